"""What the commands share: how a MODEL argument is read, and the checked kinds of numbers of their options.

Readers are loaded by the functions that read: `--help` answers without them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import RequestError, SpecError, WorkloadError
from hwsim.frontends.forms import FORMS
from hwsim.network.bits_file import FIRST_LAST, MAX_BITS, SAME
from hwsim.network.generation import EXPERTS, PHASES, Generation
from hwsim.peers.words import TOOLS

if TYPE_CHECKING:
    from hwsim.machine.parts import Accelerator
    from hwsim.nest.mapping import Mapping as Nest
    from hwsim.network.workload import Workload

Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None  # of the first input, or by an input's name
EFFORTS = ("auto", "proven", "perfect", "quick")
PEERS = tuple(f"{tool}:" for tool in TOOLS)  # begin an argument that names other tools' files
MODEL_HELP = f"{FORMS}; or other tools' files: {', '.join(f'{peer}FILE' for peer in PEERS)}"
ACCELERATOR_HELP = "YAML file, the bare name of a shipped spec (eyeriss_v1), or other tools' files as for model"


def load_machine(text: str) -> Accelerator:
    """The machine an ACCEL argument names: a spec, or `timeloop:FILE,...` and the like."""
    if text.startswith(PEERS):
        from hwsim.peers.translation import machine_argument  # jinja2 is loaded for descriptions alone

        return machine_argument(text)
    from hwsim.machine.load import load_accelerator

    try:
        return load_accelerator(text)
    except SpecError:
        from hwsim.network import zoo

        if Path(text).exists() or text not in zoo.contents():
            raise
        raise SpecError(f"{text}: a network of the zoo, where an accelerator is expected; MODEL comes first") from None


def load_model(text: str, input_shape: Shapes, allow_uncosted: bool) -> Workload:
    """The workload a MODEL argument names. Saved workloads and the zoo at its own inputs are read without torch."""
    if text.startswith(PEERS):
        from hwsim.peers.translation import workload_argument

        return workload_argument(text)
    path = Path(text)
    a_file = path.exists() or ":" not in text  # hf:config.json names a reader first
    if (path.suffix == ".json" and a_file) or (path.is_file() and starts_like_workload(path)):
        from hwsim.network.saved import load_workload

        return load_workload(path)
    if input_shape is None and not path.exists():
        from hwsim.network import zoo

        came_along = zoo.shipped(text.strip())
        if came_along is not None:
            return came_along
    try:
        from hwsim.frontends.argument import load_model_argument
    except ImportError as problem:
        raise WorkloadError(
            f"{text}: reading a model needs torch ({problem}); a saved workload (.json) does not"
        ) from None
    return load_model_argument(text, input_shape, allow_uncosted=allow_uncosted)


def write_for_peer(
    peer: str, machine: Accelerator, workload: Workload, mappings: Mapping[str, Nest], folder: Path | None
) -> list[Path]:
    """Write machine, layers and mappings in another tool's format below `folder`. Raises WorkloadError without one."""
    if folder is None:
        raise WorkloadError(f"--format {peer} needs --out DIR to write to")
    from hwsim.peers.timeloop.export import write_files

    return write_files(machine, workload, mappings, folder / peer)


def starts_like_workload(path: Path) -> bool:
    """Whether a file without the usual suffix is a saved workload all the same."""
    from hwsim.network.workload import FORMAT

    with path.open("rb") as file:
        return FORMAT.encode() in file.read(200)


class InputShapes(argparse.Action):
    """`--input 1,3,224,224`, or `--input NAME=1,128` once for each input: a shape, or shapes by name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add one; a bare shape after another one, or the same name twice, is refused."""
        name, shape = values
        so_far = getattr(namespace, self.dest, None)
        if so_far is None and not name:
            setattr(namespace, self.dest, shape)
            return
        named = {"": so_far} if isinstance(so_far, tuple) else dict(so_far or {})
        if name in named:
            parser.error(f"argument --input: {name or 'a bare shape'} is given twice")
        setattr(namespace, self.dest, {**named, name: shape})


def add_phase_options(parse: Any) -> None:
    """--phase and what goes with it, for language models."""
    group = parse.add_argument_group("language models (hf:CONFIG)")
    group.add_argument("--phase", choices=PHASES, help="prefill: a prompt at once; decode: one new token a sequence")
    group.add_argument("--batch", type=parse_count, metavar="B", help="sequences side by side (default: 1)")
    group.add_argument("--context", type=parse_count, metavar="L", help="tokens of a prompt, or in the cache (decode)")
    group.add_argument(
        "--new", type=parse_count, metavar="T", help="decode: tokens to make; prices the middle step (1)"
    )
    group.add_argument(
        "--experts", choices=EXPERTS, help="experts that a batch reads: expected (default), worst"
    )  # fmt: skip


def load_phase(options: argparse.Namespace) -> tuple[Workload, Generation] | None:
    """The pass that --phase asks for; None without it. Raises RequestError for options that contradict each other."""
    given = {key: getattr(options, key) for key in ("batch", "context", "new", "experts")}
    return language_pass(options.model, options.phase, given, options.input is not None, "--{}".format)


def language_pass(
    model: object, phase: str | None, given: Mapping[str, Any], has_input: bool, spell: Callable[[str], str] = str
) -> tuple[Workload, Generation] | None:
    """One pass of a language model and what it means; None without a phase.

    `given`: batch, context, new and experts, None where they are not given. `spell`: how the caller writes an option.
    Raises RequestError for arguments that contradict each other.
    """
    if phase is None:
        strange = [key for key, value in given.items() if value is not None]
        if strange:
            one, other = spell("phase prefill"), spell("phase decode")
            way = f"; of others {spell('input')} has the batch in front (8,3,32,32)" if "batch" in strange else ""
            raise RequestError(f"{spell(strange[0])} is for language models: add {one} or {other}{way}")
        return None
    prefix, _, name = model.partition(":") if isinstance(model, str) else ("", "", "")
    if prefix != "hf" or not name:
        raise RequestError(f"{spell('phase')}: expected hf:CONFIG, a configuration of transformers, got {model!r}")
    if has_input:
        raise RequestError(f"{spell('input')}: with {spell('phase')} the shapes follow from {spell('batch')} and "
                           f"{spell('context')}")  # fmt: skip
    if given["context"] is None:
        raise RequestError(f"{spell('context')}: missing: how many tokens does the {phase} see?")
    if given["new"] is not None and phase == "prefill":
        raise RequestError(
            f"{spell('new')}: a prefill makes no further tokens; price those with {spell('phase')} decode"
        )
    from hwsim.frontends.language_models.build import build_phase
    from hwsim.frontends.language_models.description import describe, read_configuration

    description = describe(read_configuration(name), name)
    batch, new, experts = given["batch"] or 1, given["new"] or 1, given["experts"] or "expected"
    return build_phase(description, phase, batch, given["context"], new, experts)


def parse_count(text: str) -> int:
    """A positive whole number up to 2^24."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 2**24:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {2**24:,}, got {text!r}")
    return value


def add_jobs(parse: Any) -> None:
    """The option --jobs of the commands that search."""
    parse.add_argument(
        "--jobs", type=parse_count, metavar="N",
        help="threads that prove layers side by side; any number gives the same answer (default: the usable cores, at "
        "most 8; 1 for the quick search)",
    )  # fmt: skip


def add_input_option(parse: Any) -> None:
    """The option --input of every command that takes a MODEL."""
    parse.add_argument(
        "--input", type=parse_named_shape, action=InputShapes, metavar="N,C,H,W",
        help="input shape, where the model has none; NAME=1,128 for one of several inputs (repeat it)",
    )  # fmt: skip


def parse_named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME=1,128` or `1,3,224,224` (name ""). Raises argparse's error for anything else."""
    name, equals, sizes = text.rpartition("=")
    if equals and not name:
        raise argparse.ArgumentTypeError(f"expected NAME=1,128 or 1,3,224,224, got {text!r}")
    return name, parse_shape(sizes)


def parse_shape(text: str) -> tuple[int, ...]:
    """`1,3,224,224` as a tuple. Raises argparse's error for anything but positive integers."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or any(n < 1 for n in shape):
        raise argparse.ArgumentTypeError(f"expected positive integers like 1,3,224,224, got {text!r}")
    return shape


def parse_elementwise(text: str) -> int | str:
    """`same`, or bits from 1 to 16."""
    if text == SAME:
        return text
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BITS:
        raise argparse.ArgumentTypeError(f"expected same or 1 to {MAX_BITS}, got {text!r}")
    return int(text)


def add_ends(parse: Any) -> None:
    """`--first-last` and `--elementwise-bits`: what WxAy means where layers differ, as in training."""
    parse.add_argument(
        "--first-last", choices=FIRST_LAST, help="bits of the first and last layer with weights (default: 8bit)"
    )
    parse.add_argument(
        "--elementwise-bits", type=parse_elementwise, metavar="BITS",
        help="bits of the inputs of additions, products and concatenations: same, or a number (default: 8)",
    )  # fmt: skip


def parse_fraction(text: str) -> float:
    """A gap in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to below 1, got {text!r}")
    return value


def parse_seconds(text: str) -> float:
    """A positive, finite time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value
