"""`python -m experiments.exactness resnet20 FOLDER...`: are the integer network's codes the float64 network's?

Quantizes trained float networks (zoo names with public weights, or checkpoint folders) on CIFAR-10 at every precision,
configuration and padding policy, by calibration, and runs both networks on test images: codes compared and differing,
accuracies, and the naive constant bias beside them. One CSV row per case; cases that have a row are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import table
from hwsim.integer.certificate import needs_border
from hwsim.integer.compare import compare, reference, reference_codes
from hwsim.integer.lower import lower
from hwsim.integer.run import Machine, Mode
from quant import checkpoint, data
from quant.calibration import calibrate, calibration_batches
from quant.convert import quantize
from quant.spec import PADDING_POLICIES
from quant.start import starting_point

TABLE = Path("experiments/data/exactness.csv")


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to quantize a network."""

    bits: int
    config: int
    policy: str


def cases(bits: Sequence[int], configs: Sequence[int], policies: Sequence[str]) -> Iterator[Case]:
    """Every padding policy where there is an offset (configurations 3 and 4), one where there is none."""
    for b in bits:
        for config in configs:
            for policy in policies if config in (3, 4) else ("border_bias",):
                yield Case(b, config, policy)


def float_network(source: str, data_dir: Path | None) -> tuple[nn.Module, data.Dataset]:
    """The trained float network, and CIFAR-10 scaled as it was trained."""
    images = data.load("cifar10", data_dir)
    folder = checkpoint.is_checkpoint(source)
    name, init = (None, source) if folder else (source, "pretrained")
    model, meta = starting_point(name, init, images, data_dir=data_dir, model_arguments={})
    if meta.quantization is not None:
        raise ValueError(f"{source}: already quantized: give the float network that it came from")
    return model.eval(), images if meta.normalisation is None else images.with_normalisation(meta.normalisation)


def calibrated(model: nn.Module, case: Case, batches: Sequence[Tensor]) -> nn.Module:
    """Steps and offsets by MSE on training images, batch norms measured again behind the quantizers."""
    made, _ = quantize(
        model, weight_bits=case.bits, act_bits=case.bits, config=case.config, padding_policy=case.policy, init="mse",
    )  # fmt: skip
    calibrate(made, batches)
    return made.eval()


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 50, *, naive: bool = True
) -> dict[str, Any]:
    """Codes of every quantizer call end to end, accuracies in percent, and what decided the close ones."""
    lowered = lower(model, images[:1])
    machines = {"integer": Machine(lowered)}
    if naive and needs_border(lowered):
        machines["naive"] = Machine(lowered, Mode(padding="naive"))
    twin, keep = reference(model), set(lowered.quantizers.values())
    right: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    codes = differing = naive_differing = 0
    for batch, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        result, expected = reference_codes(twin, batch)
        right["fake_quantized"] += int((result.argmax(1) == wanted).sum())
        for name, machine in machines.items():
            outcome = machine.run(batch, keep=keep)
            right[name] += int((outcome.values.argmax(1) == wanted).sum())
            found = compare(lowered, outcome.codes, expected) if name == "integer" else ()
            tally.update(outcome.tally if name == "integer" else {})
            codes += sum(d.elements for d in found)
            differing += sum(d.differing for d in found)
            if name == "naive":
                naive_differing += sum(d.differing for d in compare(lowered, outcome.codes, expected))
    share = 100 / len(labels)
    return {
        "images": len(labels),
        "codes": codes,
        "differing": differing,
        "undecided": tally["undecided"],
        "decided_with_rationals": tally["decided with rationals"],
        "top1_fake_quantized_percent": right["fake_quantized"] * share,
        "top1_integer_percent": right["integer"] * share,
        "top1_naive_percent": right["naive"] * share if "naive" in machines else None,
        "naive_differing_percent": 100 * naive_differing / codes if "naive" in machines else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print it; exit code 1 when any code differs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.exactness", description=__doc__)
    parser.add_argument("networks", nargs="+", help="zoo names with public weights, or float checkpoint folders")
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--configs", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--policies", nargs="+", choices=PADDING_POLICIES, default=list(PADDING_POLICIES))
    parser.add_argument("--images", type=int, default=1000, help="test images (10000: all of them)")
    parser.add_argument("--batches", type=int, default=2, help="batches of 128 training images to calibrate on")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    done = {row["key"] for row in table.read(given.out)}
    wrong = 0
    for source in given.networks:
        model, images = float_network(source, given.data_dir)
        batches = calibration_batches(images, given.batches, 128)
        test = images.test.subset(torch.arange(given.images))
        parts = list(data.eval_batches(test, images.normalisation))
        pictures, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        name = Path(source).name
        for case in cases(given.bits, given.configs, given.policies):
            key = f"{name} W{case.bits}A{case.bits} config {case.config} {case.policy} {given.images}"
            if key in done:
                continue
            made = calibrated(model, case, batches)
            found = measure(made, pictures, labels, naive=case.policy == "border_bias")
            row = {"key": key, "network": name, **dataclasses.asdict(case), **found}
            table.append(given.out, [row], key="key")
            wrong += found["differing"]
            print(", ".join(f"{k} {v}" for k, v in row.items() if k != "key"), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
