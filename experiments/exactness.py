"""`python -m experiments.exactness resnet20 FOLDER...`: are the integer network's codes the float64 network's?

Float networks (zoo names with public weights, or checkpoint folders) are quantized at every precision,
configuration and padding policy, by calibration; folders of quantized networks are taken as they were trained. Both
networks run on test images: codes compared and differing, accuracies, and the naive constant bias beside them. One CSV
row per case; cases that have a row are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import table
from experiments.command_line import measure_main
from experiments.tables import markdown
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import needs_border
from hwsim.integer.proof.compare import compare, reference, reference_codes
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
    config: int | str
    policy: str


def cases(bits: Sequence[int], configs: Sequence[int], policies: Sequence[str]) -> Iterator[Case]:
    """Every padding policy where there is an offset (configurations 3 and 4), one where there is none."""
    for b in bits:
        for config in configs:
            for policy in policies if config in (3, 4) else ("border_bias",):
                yield Case(b, config, policy)


def opened(source: str, data_dir: str | None) -> tuple[nn.Module, checkpoint.Meta, data.Dataset]:
    """A trained network, float or quantized, what is known of it, and its images, scaled as in its training."""
    folder = checkpoint.is_checkpoint(source)
    images = data.load(checkpoint.load_meta(source).data if folder else "cifar10", data_dir)
    if folder:
        model, meta = checkpoint.load(source)
    else:
        model, meta = starting_point(source, "pretrained", images, data_dir=data_dir, model_arguments={})
    return model.eval(), meta, images if meta.normalisation is None else images.with_normalisation(meta.normalisation)


def case_of(chosen: Mapping[str, Any]) -> Case:
    """How a quantized checkpoint was made; ValueError where weights and activations have other widths."""
    if chosen["weight_bits"] != chosen["act_bits"]:
        raise ValueError(f"expected equal widths, got W{chosen['weight_bits']}A{chosen['act_bits']}")
    return Case(chosen["act_bits"], chosen.get("config", "auto"), chosen.get("padding_policy", "pad_code"))


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
    """Codes of every quantizer call end to end, accuracies in percent, what decided the close ones, and CPU time."""
    lowered = lower(model, images[:1])
    machines = {"integer": Machine(lowered)}
    if naive and needs_border(lowered):
        machines["naive"] = Machine(lowered, Mode(padding="naive"))
    twin, keep = reference(model), set(lowered.quantizers.values())
    right: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    codes = differing = naive_differing = 0
    seconds = 0.0
    for batch, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        result, expected = reference_codes(twin, batch)
        right["fake_quantized"] += int((result.argmax(1) == wanted).sum())
        for name, machine in machines.items():
            start = time.process_time()
            outcome = machine.run(batch, keep=keep)
            seconds += time.process_time() - start if name == "integer" else 0.0
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
        "integer_ms_per_image": 1e3 * seconds / len(labels),
    }


def grid_page(rows: Sequence[table.Row]) -> str:
    """A table of docs/integer.md: the calibrated cases, a line per network and precision."""
    heads = ("network, calibrated", "bits", "cases", "codes compared", "differing", "undecided",
             "top-1, integer less fake-quantized",
             "top-1 of `border_bias`, exact to naive, by configuration")  # fmt: skip
    mine = [row for row in rows if row["quantizers"] == "calibrated"]
    lines: list[list[str]] = []
    for (network, bits), members in table.group(mine, "network", "bits").items():
        apart = [percent(row, "integer") - percent(row, "fake_quantized") for row in members]
        naive = [
            f"{row['config']}: {percent(row, 'integer'):.1f} to {percent(row, 'naive'):.1f} %"
            for row in sorted(members, key=lambda row: row["config"])
            if row["policy"] == "border_bias" and row["top1_naive_percent"]
        ]
        lines.append([
            f"`{network}`", f"W{bits}A{bits}", str(len(members)), *totals(members),
            f"{max(apart, key=abs):+.1f} at most" if any(apart) else "0 in every case", ", ".join(naive),
        ])  # fmt: skip
    return markdown(heads, lines)


def trained_page(rows: Sequence[table.Row]) -> str:
    """A table of docs/integer.md: networks as they were trained, a line each."""
    heads = ("network, trained", "bits", "configuration, policy", "codes compared", "differing", "undecided",
             "fake-quantized", "integer", "naive constant bias")  # fmt: skip
    lines = [
        [
            f"`{row['model']}`", f"W{row['bits']}A{row['bits']}", f"{row['config']}, `{row['policy']}`", *totals([row]),
            *(f"{percent(row, form):.1f} %" if row[f"top1_{form}_percent"] else "-"
              for form in ("fake_quantized", "integer", "naive")),
        ]
        for row in sorted(rows, key=lambda row: (row["model"], row["bits"], row["config"], row["policy"]))
        if row["quantizers"] == "trained"
    ]  # fmt: skip
    return markdown(heads, lines)


def percent(row: table.Row, form: str) -> float:
    """Accuracy of one form of the network."""
    return float(row[f"top1_{form}_percent"])


def totals(rows: Sequence[table.Row]) -> list[str]:
    """Codes compared, differing and undecided."""
    return [f"{sum(int(row[column]) for row in rows):,}" for column in ("codes", "differing", "undecided")]


Way = tuple[str, str, Case, Callable[[], nn.Module]]


def ways(
    name: str, model: nn.Module, meta: checkpoint.Meta, images: data.Dataset, given: argparse.Namespace
) -> Iterator[Way]:
    """(key, how its quantizers were made, case, network): a quantized network as it is, a float one in every case."""
    if meta.quantization is not None:
        made = "trained" if "recipe" in meta.training else "calibrated"
        yield f"{name} {given.images}", made, case_of(meta.quantization), lambda: model
        return
    batches = calibration_batches(images, given.batches, 128)
    for case in cases(given.bits, given.configs, given.policies):
        key = f"{name} W{case.bits}A{case.bits} config {case.config} {case.policy} {given.images}"
        yield key, "calibrated", case, functools.partial(calibrated, model, case, batches)


def run(given: argparse.Namespace) -> int:
    """Write and print the rows; 1 when any code differs."""
    done = {row["key"] for row in table.read(given.out)}
    wrong = 0
    for source in given.networks:
        model, meta, images = opened(source, given.data_dir)
        parts = list(data.eval_batches(images.test.subset(torch.arange(given.images)), images.normalisation))
        pictures, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        name = Path(source).name
        for key, made, case, build in ways(name, model, meta, images, given):
            if key in done:
                continue
            found = measure(build(), pictures, labels, naive=made == "trained" or case.policy == "border_bias")
            head = {"key": key, "network": name, "model": meta.model, "quantizers": made}
            row = {**head, **dataclasses.asdict(case), **found}
            table.append(given.out, [row], key="key")
            wrong += found["differing"]
            print(", ".join(f"{k} {v}" for k, v in row.items() if k != "key"), flush=True)
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 when all codes are equal, 1 when any differs, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.exactness", description=__doc__)
    parser.add_argument("networks", nargs="+", help="zoo names with public weights, or checkpoint folders")
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 4, 8], help="of float networks")
    parser.add_argument("--configs", nargs="+", type=int, default=[1, 2, 3, 4], help="of float networks")
    parser.add_argument(
        "--policies", nargs="+", choices=PADDING_POLICIES, default=list(PADDING_POLICIES), help="of float networks"
    )
    parser.add_argument("--batches", type=int, default=2, help="batches of 128 training images to calibrate on")
    return measure_main(parser, run, arguments, images=1000, out=TABLE)


if __name__ == "__main__":
    raise SystemExit(main())
