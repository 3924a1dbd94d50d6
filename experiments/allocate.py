"""`python -m experiments.allocate resnet8 unpu W4A4`: bits per layer at the energy of one width, as jobs train them.

Writes experiments/allocations/NETWORK-MACHINE-BITS-METHOD.yaml: of the front of predicted loss against energy the point
of the least loss that costs no more than the network of configuration 1 at those bits. The problem is that network with
a width for every reader of a tensor, as in training, and on chip what stays there at 8 bits; the network of one width
is one of its points. Energies are of whole quantized networks as they are trained, read off by `hwsim.extract`.
"""

from __future__ import annotations

import argparse
import bisect
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from experiments.jobs import ALLOCATIONS, Job
from experiments.pricing import workload_of
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.explore.bits.allocate import front
from hwsim.explore.bits.bill import bit_problem
from hwsim.explore.bits.choices import Freedom, parse_widths
from hwsim.explore.bits.output import overrides
from hwsim.explore.bits.problem import InfeasibleBudget
from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.words import ENERGY, LOSS
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.report.evaluation import Request, evaluate_workload
from quant import models
from quant.convert import quantize
from quant.data import write_atomically

Widths = dict[str, dict[str, int]]
QUICK = Request(effort="quick")  # as trained networks are priced beside each other


def energy_pj(network: str, widths: Widths, machine: Accelerator) -> float:
    """What a network quantized to these widths costs."""
    model, _ = quantize(models.create(network), weight_bits=8, act_bits=8, config=1, overrides=widths)
    shape = (1, *models.info(network).input_shape_for())
    return evaluate_workload(extract(model, torch.zeros(shape), name=network), machine, QUICK).cost.totals.energy_pj


def allocate(
    network: str, spec: str, bits: str, file: Path, freedom: Freedom | None = None, share: float = 1.0
) -> tuple[Widths, float, float, float]:
    """(widths by layer, predicted loss, energy, energy of one width), at most a `share` of that energy.

    Raises InfeasibleBudget, SpecError.
    """
    machine = load_accelerator(spec)
    uniform = evaluate_workload(
        workload_of(Job(network, (), bits=bits, config="1")), machine, QUICK
    ).cost.totals.energy_pj
    workload = workload_of(Job(network, (), bits="W8A8", config="1"))
    losses = read_sensitivities(file).for_network(workload)
    made = bit_problem(workload, machine, freedom or Freedom(elementwise_bits="same"), losses, on_chip=True)
    budget = share * uniform
    points = list(front(made.problem, LOSS, ENERGY))

    def priced(place: int) -> float:
        return energy_pj(network, overrides(made, points[place]), machine)

    # Energies of whole networks fall along the front as the tables' do, but for what stays on chip.
    low = bisect.bisect_left(range(len(points)), True, key=lambda place: priced(place) <= budget)
    if low < len(points):
        return overrides(made, points[low]), points[low].values[LOSS], priced(low), uniform
    raise InfeasibleBudget(f"{network} on {spec}: nothing costs as little as {bits}", (ENERGY,), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 nothing is as cheap."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.allocate", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("network", help="a zoo name")
    parser.add_argument("machine")
    parser.add_argument("bits", help="such as W4A4")
    parser.add_argument("--sensitivities", type=Path, help="default: results/sensitivities/NETWORK_finetune.json")
    parser.add_argument("--widths", default="2,3,4,5,6,8", help="widths allowed (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the energy of one width (default: all of it)")
    parser.add_argument("--out", type=Path, default=ALLOCATIONS)
    options = parser.parse_args(arguments)
    file = options.sensitivities or Path(f"results/sensitivities/{options.network}_finetune.json")
    try:
        allowed = parse_widths(options.widths, "--widths")
        freedom = Freedom(allowed, allowed, elementwise_bits="same")
        widths, loss, found, budget = allocate(
            options.network, options.machine, options.bits, file, freedom, options.share
        )
        method = read_sensitivities(file).method
    except HwsimError as problem:
        print(f"experiments.allocate: {problem}", file=sys.stderr)
        return problem.exit_code
    less = f"_{100 * options.share:.0f}" if options.share < 1 else ""
    target = options.out / f"{options.network}-{options.machine}-{options.bits.lower()}-{method}{less}.yaml"
    made = (f"python -m experiments.allocate {options.network} {options.machine} {options.bits} --sensitivities {file} "
            f"--widths {options.widths}" + (f" --share {options.share:g}" if less else ""))  # fmt: skip
    said = f"# {made}\n# predicted loss {loss:.4g}, {found * 1e-6:.2f} uJ ({options.bits}: {budget * 1e-6:.2f} uJ)\n"
    text = said + yaml.safe_dump(widths, sort_keys=False)
    write_atomically(target, lambda opened: opened.write(text.encode()))
    print(said, end="")
    wrote(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
