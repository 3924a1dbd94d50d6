"""`python -m quant.sensitivity SOURCE --data cifar10 --out FILE`: what each width costs in each place that rounds.

One operand of one layer is rounded at a time, everything else stays float. Methods: `loss` (increase of the
cross-entropy), `mse` (mean squared change of the logits), `kl` (Kullback-Leibler divergence of the predictions from the
float network's), `hessian` (half the mean Hessian trace times the squared rounding error, HAWQ-V2 Sec. 3.1), `finetune`
(increase of the held-out cross-entropy after some steps of LSQ+ training, see `quant.proxy`; resumable). An allocation
adds them up; `--check N` measures N random mixed networks and says how well the sums predict them.
"""

import argparse
import copy
import itertools
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.argument import CommandLine, check_file, named, named_path, said
from quant.calibration import calibration_batches
from quant.convert import quantize
from quant.data import Dataset, eval_batches, load, train_batches, write_atomically
from quant.norms import reestimate_norms
from quant.plan import Plan
from quant.provenance import provenance
from quant.proxy import Kept, Outcome, Proxy, falling
from quant.quantizer import BaseQuantizer
from quant.spec import ALLOWED_BITS, check_choice
from quant.start import add_start_arguments, named_source, starting_point
from quant.terminal import Printer, complain
from quant.whole_models import bypassed, initialise, quantizers

METHODS = ("loss", "mse", "kl", "hessian", "finetune")
FORMAT, FORMAT_VERSION = "quant-sensitivities", 1
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sensitivity:
    """Loss added at each width by rounding one operand ("weight" or "input") of one layer."""

    layer: str
    operand: str
    loss_by_bits: dict[int, float]


@dataclass(frozen=True)
class Additivity:
    """Random mixed networks: the sum of the sensitivities next to what was measured, in the method's own unit.

    `rank_correlation` is Spearman's; `slope` is the least-squares factor from predicted to measured through zero.
    """

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    rank_correlation: float
    slope: float


class Subject:
    """A float network and its quantized copies, one per width, on fixed images.

    `norm_images`: batches on which batch norms are measured again before every look, the float network's too.
    """

    def __init__(
        self, model: nn.Module, calibration: Sequence[Tensor], batches: Batches, *,
        norm_images: Sequence[Tensor] = (), **settings: Any,
    ) -> None:  # fmt: skip
        self.model, self.calibration, self.batches = copy.deepcopy(model).eval(), list(calibration), list(batches)
        self.norm_images = list(norm_images)
        self.renew_norms(self.model)
        if not self.batches or not self.calibration:
            raise ValueError("sensitivity: expected at least one batch of images, got none")
        self.settings = {"init": "mse", "first_last": "same", "elementwise_bits": "same", **settings}
        with torch.no_grad():
            self.logits = [self.model(images) for images, _ in self.batches]
        self.entropy = mean(F.cross_entropy(z, y, reduction="none") for z, (_, y) in self._with_logits())

    def _with_logits(self) -> Iterable[tuple[Tensor, tuple[Tensor, Tensor]]]:
        return zip(self.logits, self.batches, strict=True)

    def at(self, bits: int, overrides: Mapping[str, Any] | None = None) -> tuple[nn.Module, Plan]:
        """The network with every operand at one width, or as `overrides` say; steps and offsets set."""
        made, plan = quantize(
            self.model, weight_bits=bits, act_bits=bits, overrides=overrides, **self.settings
        )  # fmt: skip
        initialise(made, self.calibration)
        return made.eval(), plan

    def renew_norms(self, model: nn.Module) -> None:
        """Measure the batch norms behind the quantizers as they are set now."""
        if self.norm_images:
            reestimate_norms(model, self.norm_images)

    @torch.no_grad()
    def cost(self, made: nn.Module, method: str) -> float:
        """What a quantized copy, as its quantizers are set now, adds to `loss`, `mse` or `kl`."""
        self.renew_norms(made)
        found = []
        for z, (images, labels) in self._with_logits():
            q = made(images)
            if method == "loss":
                found.append(F.cross_entropy(q, labels, reduction="none"))
            elif method == "mse":
                found.append((q - z).square().mean(1))
            else:
                found.append(
                    F.kl_div(F.log_softmax(q, 1), F.log_softmax(z, 1), reduction="none", log_target=True).sum(1)
                )
        return mean(found) - (self.entropy if method == "loss" else 0.0)


def mean(parts: Iterable[Tensor]) -> float:
    """Mean over all elements of several tensors, in float64."""
    return float(torch.cat([part.flatten().double() for part in parts]).mean())


def operand_of(quantizer: BaseQuantizer) -> str:
    """Which operand a quantizer rounds."""
    return "weight" if quantizer.is_weight else "input"


def sites(model: nn.Module, plan: Plan) -> dict[tuple[str, str], set[str]]:
    """Names of the quantizers of every (layer, operand); an addition's two inputs are one site, a mean's none."""
    names = sorted((layer.name for layer in plan.layers), key=len, reverse=True)
    found: dict[tuple[str, str], set[str]] = {}
    order = {layer.name: i for i, layer in enumerate(plan.layers)}
    means = {layer.name for layer in plan.layers if layer.op == "mean"}
    for name, quantizer in quantizers(model):
        owner = next(layer for layer in names if name.startswith(f"{layer}."))
        if owner in means:
            continue
        found.setdefault((owner, operand_of(quantizer)), set()).add(name)
    return dict(sorted(found.items(), key=lambda item: (order[item[0][0]], item[0][1] != "weight")))


def measure(
    subject: Subject,
    widths: Sequence[int],
    method: str = "loss",
    say: Callable[[str], None] = lambda line: None,
    trained: "Trained | None" = None,
) -> list[Sensitivity]:
    """The sensitivity of every operand at every width; `finetune` needs `trained`. ValueError for unknown methods and
    widths."""
    check_choice("method", method, METHODS)
    for bits in widths:
        check_choice("widths", bits, ALLOWED_BITS)
    tables: dict[tuple[str, str], dict[int, float]] = {}
    traces = hessian_traces(subject) if method == "hessian" else {}
    for bits in widths:
        made, plan = subject.at(bits)
        for site, names in sites(made, plan).items():
            if method == "finetune":
                assert trained is not None
                value = trained.increase(f"{site[0]}.{site[1]} {bits}", made, names)
            else:
                with bypassed(made, lambda name, names=names: name in names):
                    if method == "hessian":
                        value = sum(0.5 * traces[name] * squared_error(subject, made, name) for name in sorted(names))
                    else:
                        value = subject.cost(made, method)
            tables.setdefault(site, {})[bits] = value
        say(f"{bits} bits: {len(tables)} places")
    smooth = falling if method == "finetune" else dict
    return [Sensitivity(layer, operand, smooth(table)) for (layer, operand), table in tables.items()]


class Trained:
    """Increases of the held-out loss after a short training, over the float network trained the same way."""

    def __init__(self, subject: Subject, proxy: Proxy, kept: Kept) -> None:
        self.subject, self.proxy, self.kept = subject, proxy, kept
        self.base = kept.get("float", lambda: self.train(subject.at(8)[0], ()))

    def train(self, made: nn.Module, names: Collection[str]) -> Outcome:
        """The outcome of training a copy in which only the quantizers named round."""
        mine = copy.deepcopy(made)
        with bypassed(mine, lambda name: name in names):
            return self.proxy.train(mine)

    def increase(self, of: str, made: nn.Module, names: Collection[str]) -> float:
        """What rounding by some quantizers adds."""
        return self.kept.get(of, lambda: self.train(made, names))[0] - self.base[0]

    def mixed(self, of: str, overrides: Mapping[str, Any]) -> float:
        """What a network of mixed widths adds."""

        def outcome() -> Outcome:
            made, plan = self.subject.at(8, overrides)
            return self.train(made, set().union(*sites(made, plan).values()))

        return self.kept.get(of, outcome)[0] - self.base[0]


def random_widths(found: Sequence[Sensitivity], count: int, seed: int = 0) -> Iterator[list[int]]:
    """A width for every entry, drawn evenly from those it has; the same draws for the same places and widths."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield [int(rng.choice(list(entry.loss_by_bits))) for entry in found]


def overrides_of(found: Sequence[Sensitivity], widths: Sequence[int]) -> dict[str, dict[str, int]]:
    """Widths as `quantize` takes them."""
    made: dict[str, dict[str, int]] = {}
    for entry, bits in zip(found, widths, strict=True):
        made.setdefault(entry.layer, {})["weight_bits" if entry.operand == "weight" else "act_bits"] = bits
    return made


def check_additivity(
    subject: Subject,
    found: Sequence[Sensitivity],
    count: int,
    method: str = "loss",
    seed: int = 0,
    trained: Trained | None = None,
) -> Additivity:
    """Measure `count` networks with widths drawn at random for every operand, steps and offsets set anew.

    `hessian` predicts a loss and is compared with that; with `trained` networks are measured after their training.
    """
    predicted, measured = [], []
    for number, widths in enumerate(random_widths(found, count, seed)):
        overrides = overrides_of(found, widths)
        predicted.append(sum(entry.loss_by_bits[bits] for entry, bits in zip(found, widths, strict=True)))
        if trained is not None:
            measured.append(trained.mixed(f"mixed {number} of seed {seed}", overrides))
        else:
            made, plan = subject.at(8, overrides)
            rounding = set().union(*sites(made, plan).values())  # what has no place of its own rounds in neither sum
            with bypassed(made, lambda name, names=rounding: name in names):
                measured.append(subject.cost(made, "loss" if method == "hessian" else method))
    return Additivity(tuple(predicted), tuple(measured), *agreement(predicted, measured))


def agreement(predicted: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """(Spearman's rank correlation, least-squares slope through zero) of what was measured against predictions.

    The correlation is NaN where either is the same everywhere.
    """
    varied = len(set(predicted)) > 1 and len(set(measured)) > 1
    correlation = float(np.corrcoef(ranks_of(predicted), ranks_of(measured))[0, 1]) if varied else float("nan")
    return correlation, float(np.dot(predicted, measured) / max(np.dot(predicted, predicted), 1e-300))


def ranks_of(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def squared_error(subject: Subject, made: nn.Module, name: str) -> float:
    """Squared rounding error of one operand: of the whole weight, or of an activation per image."""
    quantizer = made.get_submodule(name)
    assert isinstance(quantizer, BaseQuantizer)
    seen: list[float] = []

    def watch(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        x = arguments[0].detach()
        x_hat = (result[0] + result[1] if isinstance(result, tuple) else result).detach()
        error = float((x_hat - x).double().square().sum())
        seen.append(error if quantizer.is_weight else error / len(x))

    handle = quantizer.register_forward_hook(watch)
    try:
        with torch.no_grad():
            made(subject.batches[0][0])
    finally:
        handle.remove()
    return seen[0]


def hessian_traces(subject: Subject, draws: int = 8, seed: int = 0) -> dict[str, float]:
    """Mean diagonal of the loss's Hessian for every operand, by quantizer name: Hutchinson's v^T H v / n, v = +-1.

    For activations the Hessian of one image's loss with respect to its own activation, averaged over the images.
    """
    made, _ = subject.at(8)
    generator = torch.Generator().manual_seed(seed)
    images, labels = subject.batches[0]
    tensors: dict[str, Tensor] = {}
    named = dict(quantizers(made))

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
            x = arguments[0]
            x = x if x.requires_grad else x.detach().requires_grad_()
            tensors[name] = x
            return (x, *arguments[1:])

        return hook

    handles = [quantizer.register_forward_pre_hook(keep(name)) for name, quantizer in named.items()]
    try:
        with bypassed(made):
            loss = F.cross_entropy(made(images), labels, reduction="sum")
    finally:
        for handle in handles:
            handle.remove()
    names = list(tensors)
    grads = torch.autograd.grad(loss, [tensors[name] for name in names], create_graph=True)
    totals = dict.fromkeys(names, 0.0)
    for _ in range(draws):
        for name, grad in zip(names, grads, strict=True):
            sign = torch.randint(0, 2, grad.shape, generator=generator).to(grad.dtype) * 2 - 1
            (product,) = torch.autograd.grad(grad, tensors[name], sign, retain_graph=True, allow_unused=True)
            if product is not None:
                totals[name] += float((product * sign).double().sum()) / len(images)
    return {name: max(0.0, totals[name] / draws / count_of(named[name], tensors[name])) for name in names}


def count_of(quantizer: BaseQuantizer, x: Tensor) -> int:
    """Elements of an operand: of a whole weight, of one image's activation."""
    return x.numel() if quantizer.is_weight else x.numel() // len(x)


def to_json(model: str, method: str, found: Sequence[Sensitivity], about: Mapping[str, Any]) -> str:
    """The file that `hwsim.explore` reads."""
    entries = [{**asdict(entry), "loss_by_bits": {str(b): v for b, v in entry.loss_by_bits.items()}} for entry in found]
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, "model": model, "method": method, **about}
    return json.dumps({**document, "sensitivities": entries}, indent=1) + "\n"


def parser() -> argparse.ArgumentParser:
    p = CommandLine(prog="hwsim sensitivity", description="How much each layer's weights and inputs mind fewer bits.")
    p.add_argument(
        "source", type=named, help="a checkpoint folder of a float network, or a zoo name with public trained weights"
    )
    p.add_argument("--weights", type=named, help="a file of weights for a zoo name (default: pretrained)")
    add_start_arguments(p)
    p.add_argument("--method", default="loss", choices=METHODS)
    p.add_argument("--widths", default="2,3,4,5,6,7,8", help="bits to measure, separated by commas")
    p.add_argument("--images", type=int, default=512, help="training images to measure on")
    p.add_argument("--calibration-images", type=int, default=256, help="training images that set steps and offsets")
    p.add_argument(
        "--norm-batches",
        type=int,
        default=0,
        metavar="N",
        help="training batches on which batch norms are measured again before each look (0: kept)",
    )
    p.add_argument("--steps", type=int, default=20, help="training steps of each place (finetune)")
    p.add_argument("--check", type=int, default=0, metavar="N", help="measure N random mixed networks against the sums")
    p.add_argument("--seed", type=int, default=0, help="which images, and the check's random widths")
    p.add_argument("--out", type=named_path, required=True, help="JSON file for hwsim.explore")
    return p


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Measure as the arguments say; the JSON text."""
    started = time.perf_counter()
    check_file(arguments.out)
    widths = [int(part) for part in arguments.widths.split(",") if part.strip().isdecimal()]
    if not widths or len(widths) != len(arguments.widths.split(",")):
        raise ValueError(f"--widths: expected numbers such as 2,4,8, got {arguments.widths!r}")
    data = load(arguments.data, arguments.data_dir, validation=arguments.validation, seed=arguments.data_seed)
    model_name, weights = named_source(arguments.source, arguments.weights)
    model, meta = starting_point(
        model_name,
        weights,
        data,
        data_dir=arguments.data_dir,
        model_arguments=dict(arguments.model_arg or []),
    )
    data = data.with_normalisation(meta.normalisation) if meta.normalisation is not None else data
    part = data.validation if arguments.method == "finetune" else data.train
    if not 1 <= arguments.images <= len(part):
        raise ValueError(f"--images: expected 1..{len(part)}, got {arguments.images}")
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(arguments.seed))
    batches = list(eval_batches(part.subset(order[: arguments.images]), data.normalisation, 256))
    count = max(1, arguments.calibration_images // 128)
    calibration = calibration_batches(data, count, min(128, arguments.calibration_images), seed=arguments.seed + 1)
    subject = Subject(model, calibration, batches, norm_images=norm_images(data, arguments))
    kept, trained = None, None
    if arguments.method == "finetune":
        kept = Kept(arguments.out.with_name(arguments.out.name + ".part"), settings_of(arguments))
        for line in kept.damaged:
            Printer(sys.stderr)(line)
        trained = Trained(subject, Proxy.of(data, arguments.steps, batches, seed=arguments.seed), kept)

    found = measure(subject, widths, arguments.method, Printer(sys.stderr), trained)
    about: dict[str, Any] = {
        "data": data.name,
        "images": arguments.images,
        "float_cross_entropy": trained.base[0] if trained else subject.entropy,
        "settings": settings_of(arguments),
        "provenance": provenance(),
    }
    if arguments.check:
        checked = check_additivity(subject, found, arguments.check, arguments.method, arguments.seed, trained)
        about["additivity"] = asdict(checked)
        say(f"{arguments.check} random mixed networks: rank correlation of predicted and measured "
            f"{checked.rank_correlation:.3f}, measured = {checked.slope:.2f} x predicted")  # fmt: skip
    if kept is not None:
        about["fine_tuned"] = {of: {"loss": a, "accuracy_percent": b} for of, (a, b) in kept.found.items()}
    about["seconds"] = round(time.perf_counter() - started, 1)
    return to_json(meta.model, arguments.method, found, about)


def norm_images(data: Dataset, arguments: argparse.Namespace) -> list[Tensor]:
    """Batches for the norms, cropped and flipped as in training. ValueError for a negative number."""
    if arguments.norm_batches < 0:
        raise ValueError(f"--norm-batches: expected a number from 0, got {arguments.norm_batches}")
    if not arguments.norm_batches:
        return []
    stream = train_batches(data, min(128, len(data.train)), seed=arguments.seed + 2, epoch=0)
    return [images for images, _ in itertools.islice(stream, arguments.norm_batches)]


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers."""
    names = ("source", "weights", "data", "validation", "data_seed", "method", "images", "calibration_images",
             "norm_batches", "steps", "seed")  # fmt: skip
    return {name: getattr(arguments, name) for name in names}


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, 2 for bad input, 3 when stopped (the same command goes on)."""
    arguments, say = parser().parse_args(argv), Printer(sys.stdout)
    try:
        text = run(arguments, say)
        write_atomically(arguments.out, lambda file: file.write(text.encode()))
        arguments.out.with_name(arguments.out.name + ".part").unlink(missing_ok=True)
    except KeyboardInterrupt:
        Printer(sys.stderr)("stopped: the same command goes on")
        return 3
    except (ValueError, OSError) as error:
        return complain(said(error))
    say(f"wrote {arguments.out}")
    return say.code(0)


if __name__ == "__main__":
    raise SystemExit(main())
