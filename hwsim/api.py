"""The Python functions behind `hwsim.evaluate(...)` and its neighbours: names, paths and objects in, reports out.

Arguments mean what the command line's options of the same name mean, and are checked like them: a word that is none of
the right ones is a RequestError that lists those. The commands themselves do not come through here.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from hwsim.command_line import EFFORTS, Shapes, language_pass, load_machine, load_model
from hwsim.errors import RequestError
from hwsim.explore.bits.budgets import parse_budgets
from hwsim.explore.bits.choices import Freedom, parse_limit, parse_widths
from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.bits.solve import BitPoints, solve_bits
from hwsim.explore.words import NAMES
from hwsim.machine import load as machine_files
from hwsim.machine.parts import Accelerator
from hwsim.network.format_bits import with_bits
from hwsim.network.generation import EXPERTS, PHASES, Generation
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload, load_zero_shares
from hwsim.report.report import Report
from hwsim.search.objective import OBJECTIVES, Objective
from hwsim.search.result import Effortful
from hwsim.search.side_by_side import jobs_for, threads

if TYPE_CHECKING:
    from torch import nn

    from hwsim.integer.proof.certificate import Certificate

__all__ = ["assign_bits", "evaluate", "explore_bits", "extract", "load_accelerator", "load_workload", "verify"]

Path_ = str | os.PathLike[str]
Shape = Sequence[int]
Given = ParamSpec("Given")
Found = TypeVar("Found")


def names_its_keywords(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same function, whose TypeError for a keyword that it does not take says which ones it takes."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        for name in kwargs:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise TypeError(
                    f"{function.__name__}() takes no argument {name!r}: expected some of {', '.join(known)}{hint}"
                )
        return function(*args, **kwargs)

    return checked


@names_its_keywords
def evaluate(
    model: str | os.PathLike[str] | Workload | tuple[nn.Module, Any],
    accelerator: str | os.PathLike[str] | Accelerator,
    *,
    bits: str | Path | Mapping[str, object] | None = None,
    objective: Objective = "energy",
    effort: Effortful = "auto",
    config: str | int = "auto",
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
    mapping: Path_ | None = None,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    slack: float = 0.0,
    constraints: Path_ | None = None,
    zero_shares: Path_ | Mapping[str, float] | None = None,
    input: Shape | Mapping[str, Shape] | None = None,
    allow_uncosted: bool = False,
    allow_overflow: bool = False,
    phase: str | None = None,
    batch: int | None = None,
    context: int | None = None,
    new: int | None = None,
    experts: str | None = None,
    fuse: bool = False,
    lifetimes: str | None = None,
    jobs: int | None = None,
) -> Report:
    """Energy, latency and memory of a network on an accelerator, with the origin of each number.

    `model`: what MODEL is on the command line (zoo name, checkpoint folder, file, `package.module:factory`, ...), a
    `Workload`, or a pair (torch module, example input). `accelerator`: the name of a shipped spec, a YAML file, or an
    `Accelerator`. Everything else as the options of `hwsim evaluate`; `phase` and the four behind it are for
    language models ("hf:CONFIG").

    >>> import tempfile
    >>> import hwsim
    >>> report = hwsim.evaluate("resnet18", "eyeriss_v1", bits="W4A4", effort="quick")
    >>> report.totals.macs, report.layers["fc"].bottleneck, len(report.to_frame())
    (1814073344, 'dram port', 56)
    >>> report.energy_pj == report.to_dict()["totals"]["energy_pj"], report.latency_s > 0
    (True, True)
    >>> {"report.json", "layers.csv", "report.html"} <= {path.name for path in report.save(tempfile.mkdtemp())}
    True

    Raises RequestError, SpecError, WorkloadError, UnsupportedOp, CapabilityError or InfeasibleMapping.
    """
    check_word("objective", objective, OBJECTIVES)
    check_word("effort", effort, EFFORTS)
    check_number("gap", gap, 0.0, 1.0)
    check_number("slack", slack, 0.0, 1.0)
    check_bits(bits)
    check_switches(fuse=fuse, allow_uncosted=allow_uncosted, allow_overflow=allow_overflow)
    if lifetimes is not None:
        check_kind("lifetimes", lifetimes, str, "whole, rows, borders or rows,borders")
    if time_limit_s is not None:
        check_number("time_limit_s", time_limit_s, 1e-9, 1e9)
    if jobs is not None:
        check_count("jobs", jobs, 1)
    machine = as_accelerator(accelerator)
    generation = as_pass(model, phase, batch, context, new, experts, input is not None)
    workload = generation[0] if generation else as_workload(model, input, allow_uncosted)
    if zero_shares is not None and not isinstance(zero_shares, Mapping):
        zero_shares = load_zero_shares(as_path("zero_shares", zero_shares))
    request = Request(
        objective=objective,
        bits=bits,
        config=str(config),
        first_last=first_last,
        elementwise_bits=elementwise_bits,
        mapping=None if mapping is None else as_path("mapping", mapping),
        effort=effort,
        gap=gap,
        time_limit_s=time_limit_s,
        slack=slack,
        allow_overflow=allow_overflow,
        constraints=None if constraints is None else as_path("constraints", constraints),
        zero_shares=zero_shares,
        generation=generation[1] if generation else None,
        fuse=fuse,
        lifetimes=lifetimes,
    )
    with threads(jobs_for(effort, jobs)):
        return evaluate_workload(workload, machine, request)


@names_its_keywords
def explore_bits(
    model: str | os.PathLike[str] | Workload | tuple[nn.Module, Any],
    accelerator: str | os.PathLike[str] | Accelerator,
    *,
    budgets: Mapping[str, str] | Sequence[str] = (),
    minimise: str | None = None,
    front: str | None = None,
    points: int | None = None,
    sensitivities: Path_ | None = None,
    weights: str = "2..8",
    activations: str = "2..8",
    first_last: str = "8bit",
    elementwise_bits: int | str = 8,
    limits: Sequence[str] = (),
    objective: Objective = "energy",
    on_chip: bool = True,
    time_limit_s: float | None = None,
    input: Shape | Mapping[str, Shape] | None = None,
    allow_uncosted: bool = False,
    allow_overflow: bool = False,
) -> BitPoints:
    """Which bits each layer should have on a machine, exactly: one point under budgets, or a front.

    `budgets`: `{"energy": "2mJ", "latency": "5ms"}` or `["energy=2mJ"]`; `front` names the measure to trade
    `minimise` against. Everything else as the options of `hwsim explore bits`.

    >>> import hwsim
    >>> found = hwsim.explore_bits("resnet8", "bit_fusion", weights="2,8", activations="8")
    >>> found[0].to_row()["average_activation_bits"]
    8.0

    Raises what `evaluate` raises, and InfeasibleBudget where nothing meets the budgets.
    """
    check_word("objective", objective, OBJECTIVES)
    for name, word in (("minimise", minimise), ("front", front)):
        if word is not None:
            check_word(name, word, NAMES)
    if time_limit_s is not None:
        check_number("time_limit_s", time_limit_s, 1e-9, 1e9)
    if points is not None:
        check_count("points", points, 2)
    check_switches(on_chip=on_chip, allow_uncosted=allow_uncosted, allow_overflow=allow_overflow)
    check_kind("weights", weights, str, "a text like 2..8 or 2,4,8")
    check_kind("activations", activations, str, "a text like 2..8 or 2,4,8")
    check_texts("budgets", budgets, "energy=2mJ")
    check_texts("limits", limits, "layer1.*.weight=2..4")
    machine = as_accelerator(accelerator)
    texts = [f"{name}={limit}" for name, limit in budgets.items()] if isinstance(budgets, Mapping) else budgets
    freedom = Freedom(
        parse_widths(weights, "weights"),
        parse_widths(activations, "activations"),
        first_last,
        tuple(parse_limit(text, "limits") for text in limits),
        elementwise_bits,
    )
    workload = as_workload(model, input, allow_uncosted)
    losses = None
    if sensitivities is not None:
        losses = read_sensitivities(as_path("sensitivities", sensitivities)).for_network(workload)
    return solve_bits(
        workload,
        machine,
        freedom,
        losses,
        objective,
        on_chip=on_chip,
        budgets=parse_budgets(texts, machine.clock_mhz, "budgets"),
        minimise=minimise,
        against=front,
        points=points,
        time_limit_s=time_limit_s,
        allow_overflow=allow_overflow,
    )


@names_its_keywords
def verify(
    checkpoint: Path_,
    accelerator: str | os.PathLike[str] | Accelerator | None = None,
    *,
    images: int = 64,
    accuracy_images: int = 1000,
    data_dir: Path_ | None = None,
    random: bool = False,
) -> Certificate:
    """Prove or refute that a trained network runs on integers alone, code for code: `.equal`, and a row per layer.

    `checkpoint`: a folder written by quant.train or quant.calibrate. Options as those of `hwsim verify`.
    Raises WorkloadError for what is no quantized checkpoint.
    """
    from hwsim.integer.proof.verify import Proof, verify_checkpoint  # torch: only this function needs it

    check_count("images", images, 1)
    check_count("accuracy_images", accuracy_images, 0)
    check_switches(random=random)
    folder = None if data_dir is None else as_path("data_dir", data_dir)
    proof = Proof(images, accuracy_images, folder, random)
    machine = None if accelerator is None else as_accelerator(accelerator)
    return verify_checkpoint(as_path("checkpoint", checkpoint), machine, proof)


@names_its_keywords
def extract(model: nn.Module, example: Any, *, name: str | None = None, allow_uncosted: bool = False) -> Workload:
    """The layers of a torch module for inputs like `example`, with the bits of its quantizers.

    `example`: a tensor, a tuple of positional arguments or a dict of keyword arguments; its values do not matter.
    Raises WorkloadError when the model does not run on it, UnsupportedOp where operators have no price.
    """
    from hwsim.frontends.torch_export import extract as extract_module  # torch: only this function needs it

    check_switches(allow_uncosted=allow_uncosted)
    return extract_module(model, example, name=name, allow_uncosted=allow_uncosted)


@names_its_keywords
def assign_bits(
    workload: Workload,
    bits: str | Path | Mapping[str, object],
    config: str | int = "auto",
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
) -> Workload:
    """The workload with bits on every tensor, as `hwsim evaluate --bits` gives them: the network that training makes.

    `bits`: `W4A4`, a number format such as `W4g128A16`, a YAML file or a mapping of name patterns; the rest as the
    options of the same names.
    Raises RequestError for other kinds of arguments, SpecError for bits that mean nothing for this network.
    """
    check_kind("workload", workload, Workload, "a Workload (hwsim.extract, hwsim.load_workload)")
    check_kind("bits", bits, (str, os.PathLike, Mapping), "W4A4, a YAML file or a mapping of name patterns")
    check_bits(bits)
    return with_bits(workload, bits, config, first_last, elementwise_bits)


@names_its_keywords
def load_workload(
    model: Path_, *, input: Shape | Mapping[str, Shape] | None = None, allow_uncosted: bool = False
) -> Workload:
    """The layers of a network that a text or path names: every form of MODEL that `hwsim evaluate` reads.

    `input`: the sizes of its input, or of several by name, where the file leaves them open.
    Raises RequestError for what is no path, WorkloadError with file and reason, UnsupportedOp.
    """
    as_path("model", model)
    check_switches(allow_uncosted=allow_uncosted)
    return as_workload(model, input, allow_uncosted)


@names_its_keywords
def load_accelerator(path: Path_) -> Accelerator:
    """Read a spec: a YAML file, or the name of a shipped one. Raises RequestError for what is no path, SpecError."""
    file = as_path("path", path)
    return machine_files.load_accelerator(path if isinstance(path, str) else file)  # only a text can be a spec's name


# --- what arguments may be ------------------------------------------------------------------------------------------


def as_workload(model: object, input_shape: Shape | Mapping[str, Shape] | None, allow_uncosted: bool) -> Workload:
    """The workload that an argument names, holds or is. Raises RequestError for anything else."""
    if isinstance(model, Workload):
        return model
    if isinstance(model, str | os.PathLike):
        shape = None if input_shape is None else as_shapes(input_shape)
        return load_model(os.fspath(cast(Path_, model)), shape, allow_uncosted)
    if isinstance(model, tuple) and len(cast(tuple[Any, ...], model)) == 2:
        module, example = cast(tuple[Any, Any], model)
        if is_shape(example):
            sizes = ", ".join(map(str, cast(Sequence[int], example)))
            raise RequestError(f"model: the second of the pair is a shape: give an example, such as "
                               f"torch.zeros({sizes}); its values do not matter")  # fmt: skip
        return extract(module, example, allow_uncosted=allow_uncosted)
    kind = type(model).__name__
    hint = f": give the pair ({kind} instance, example input)" if hasattr(model, "forward") else ""
    raise RequestError(
        f"model: expected a name, a path, a Workload or a pair (torch module, example input), got {kind}{hint}"
    )


def as_pass(
    model: object,
    phase: str | None,
    batch: int | None,
    context: int | None,
    new: int | None,
    experts: str | None,
    has_input: bool,
) -> tuple[Workload, Generation] | None:
    """One pass of a language model; None without a phase. Raises RequestError like the command's options."""
    if phase is not None:
        check_word("phase", phase, PHASES)
    if experts is not None:
        check_word("experts", experts, EXPERTS)
    for name, count in (("batch", batch), ("context", context), ("new", new)):
        if count is not None:
            check_count(name, count, 1)
    given = {"batch": batch, "context": context, "new": new, "experts": experts}
    return language_pass(model, phase, given, has_input)


def is_shape(value: object) -> bool:
    """Whether somebody gave an input's sizes where the input itself is asked for."""
    sizes: Sequence[Any] = cast(Sequence[Any], value) if isinstance(value, list | tuple) else ()
    return bool(sizes) and all(isinstance(n, int) and not isinstance(n, bool) for n in sizes)


def as_shapes(shapes: object) -> Shapes:
    """One input's sizes, or those of several by name."""
    if isinstance(shapes, Mapping):
        return {str(name): as_shape(shape) for name, shape in cast(Mapping[object, object], shapes).items()}
    return as_shape(shapes)


def as_shape(shape: object) -> tuple[int, ...]:
    """An input's sizes. Raises RequestError for what are no whole numbers."""
    sizes: tuple[Any, ...] = tuple(cast(Sequence[Any], shape)) if isinstance(shape, Sequence) else ()
    if not sizes or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise RequestError(f"input: expected positive integers like (1, 3, 224, 224), got {shape!r}")
    return sizes


def as_path(name: str, path: object) -> Path:
    """A path. Raises RequestError for anything else."""
    check_kind(name, path, (str, os.PathLike), "a path")
    return Path(cast(Path_, path))


def as_accelerator(accelerator: object) -> Accelerator:
    """The machine that an argument names or is. Raises RequestError for anything else."""
    if isinstance(accelerator, Accelerator):
        return accelerator
    if isinstance(accelerator, str):
        return load_machine(accelerator)
    if isinstance(accelerator, os.PathLike):
        return machine_files.load_accelerator(Path(cast(os.PathLike[str], accelerator)))
    raise RequestError(
        f"accelerator: expected a shipped spec's name, a YAML file or an Accelerator, got {type(accelerator).__name__}"
    )


def check_bits(bits: object) -> None:
    """Raise RequestError for bits that are no text, path or mapping by name."""
    if bits is None:
        return
    check_kind("bits", bits, (str, os.PathLike, Mapping), "W4A4, a YAML file or a mapping of name patterns")
    for name in cast(Mapping[object, object], bits) if isinstance(bits, Mapping) else ():
        check_kind("bits", name, str, "layer names or patterns as keys")


def check_kind(name: str, value: object, right: type | tuple[type, ...], words: str) -> None:
    """Raise RequestError for what is of none of the right types."""
    if not isinstance(value, right):
        raise RequestError(f"{name}: expected {words}, got {value!r}")


def check_switches(**values: object) -> None:
    """Raise RequestError for a switch that is neither True nor False: a text such as "no" would count as yes."""
    for name, value in values.items():
        check_kind(name, value, bool, "True or False")


def check_texts(name: str, values: object, example: str) -> None:
    """Raise RequestError for what is no list of texts; one text alone is none. Mappings hold their own checks."""
    if isinstance(values, Mapping):
        return
    right = isinstance(values, Sequence) and not isinstance(values, str)
    if not right or not all(isinstance(value, str) for value in cast(Sequence[object], values)):
        raise RequestError(f"{name}: expected a list of texts like [{example!r}], got {values!r}")


def check_count(name: str, value: object, least: int) -> None:
    """Raise RequestError for what is no whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name}: expected a whole number from {least}, got {value!r}")


def check_word(name: str, word: object, right: Collection[str]) -> None:
    """Raise RequestError with the right words for any other."""
    if word not in right:
        near = difflib.get_close_matches(str(word), right, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"{name}: expected one of {', '.join(right)}, got {word!r}{hint}")


def check_number(name: str, value: object, least: float, below: float) -> None:
    """Raise RequestError for what is no number in [least, below)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < below:
        raise RequestError(f"{name}: expected a number from {least:g} to below {below:g}, got {value!r}")
