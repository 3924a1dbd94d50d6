"""`python -m experiments.legal_mappings`: how many mappings fit as bits change, and what the best one then costs.

Narrow operands packed into words leave room for tiles that did not fit: so bits and mapping belong together, says the
study of Klhufek et al. (DDECS 2024). Here random nests of every distinct layer are checked at each width, weights and
activations alike. A nest uses every memory; the prime factors of its loops are dealt out evenly to the places below
memories and to the axes of arrays. A row gives how many fit, as a share of those that fit at the narrowest width, and
with --energy what the network costs under the mappings that the search finds at that width.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import table
from experiments.uniform import uniform
from hwsim.command_line import load_model
from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Array
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.stages import effective_layer, fuse
from hwsim.search.network import plan_network
from hwsim.tables.pool import anonymous

WIDTHS = (2, 4, 8, 16)
MACHINES = ("experiments/data/synergy_eyeriss.yaml", "eyeriss_v1", "simba")


def prime_factors(number: int) -> list[int]:
    """Prime factors in ascending order.

    >>> prime_factors(12)
    [2, 2, 3]
    """
    found: list[int] = []
    divisor = 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found


def random_nest(rng: random.Random, layer: Layer, machine: Accelerator) -> Mapping:
    """A nest through all memories; factors that an axis has no room for become loops above its array."""
    nodes = list(machine.hierarchy)
    loops: list[list[tuple[str, int]]] = [[] for _ in nodes]
    spatial: dict[tuple[int, str], list[tuple[str, int]]] = {}
    room = {(i, axis.name): axis.size for i, n in enumerate(nodes) if isinstance(n, Array) for axis in n.axes}
    memories = [i for i, node in enumerate(nodes) if not isinstance(node, Array)]
    for dim, bound in layer.loops.as_dict().items():
        axes = [(i, axis.name) for i, n in enumerate(nodes) if isinstance(n, Array) for axis in n.axes
                if dim in axis.dims]  # fmt: skip
        for factor in prime_factors(bound):
            place = rng.choice([*memories, *axes])
            if isinstance(place, tuple) and room[place] >= factor:
                room[place] //= factor
                spatial.setdefault(place, []).append((dim, factor))
            else:
                loops[rng.choice(memories) if isinstance(place, tuple) else place].append((dim, factor))
    nest: list[Node] = []
    for i, node in enumerate(nodes):
        if isinstance(node, Array):
            nest += [Spatial(dim, factor, node.name, axis.name) for axis in node.axes
                     for dim, factor in merged(spatial.get((i, axis.name), []))]  # fmt: skip
        else:
            rng.shuffle(loops[i])
            nest += [Hold(node.name, node.keeps), *(Temporal(dim, factor) for dim, factor in merged(loops[i]))]
    return Mapping(tuple(nest))


def merged(loops: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """One loop per dim, in the order in which dims come first."""
    found: dict[str, int] = {}
    for dim, factor in loops:
        found[dim] = found.get(dim, 1) * factor
    return list(found.items())


def distinct_layers(network: Workload, machine: Accelerator) -> Iterator[Layer]:
    """Every layer shape with MACs once, as memories see it."""
    seen: set[Layer] = set()
    for stage in fuse(network, machine.capabilities):
        if stage.layer.has_macs and (key := anonymous(effective_layer(stage))) not in seen:
            seen.add(key)
            yield effective_layer(stage)


def at(layer: Layer, bits: int) -> Layer:
    """The layer with weights, inputs and outputs of one width."""
    assert layer.weight is not None
    return dataclasses.replace(
        layer,
        weight=dataclasses.replace(layer.weight, bits=bits),
        inputs=tuple(dataclasses.replace(t, bits=bits) for t in layer.inputs),
        output=dataclasses.replace(layer.output, bits=bits),
    )


def fitting(network: Workload, machine: Accelerator, count: int, seed: int) -> dict[int, int]:
    """How many of `count` random nests per layer are legal at each width."""
    rng = random.Random(seed)
    found = dict.fromkeys(WIDTHS, 0)
    for layer in distinct_layers(network, machine):
        layers = {bits: at(layer, bits) for bits in WIDTHS}
        for _ in range(count):
            nest = random_nest(rng, layer, machine)
            for bits in WIDTHS:  # what does not fit narrow does not fit wide
                if validate(nest, layers[bits], machine):
                    break
                found[bits] += 1
    return found


def rows_of(model: str, spec: str, count: int, seed: int, energy: bool) -> list[dict[str, Any]]:
    """One row per width."""
    machine = load_accelerator(spec)
    network = load_model(model, None, False)
    legal = fitting(uniform(network, 8), machine, count, seed)
    rows: list[dict[str, Any]] = []
    for bits in WIDTHS:
        share = legal[bits] / max(1, legal[WIDTHS[0]])
        row: dict[str, Any] = {"network": model, "accelerator": machine.name, "bits": bits, "nests": count,
                               "legal": legal[bits], "share_of_narrowest": share}  # fmt: skip
        if energy and bits <= 8:
            totals = plan_network(uniform(network, bits), machine).cost.totals
            row |= {"energy_pj": totals.energy_pj, "latency_cycles": totals.latency_cycles}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.legal_mappings", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--machines", nargs="+", default=list(MACHINES))
    parser.add_argument("--count", type=int, default=100, help="random nests per layer shape")
    parser.add_argument("--energy", action="store_true", help="search and price the network at 2, 4 and 8 bits, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/legal_mappings.csv"))
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    try:
        for spec in options.machines:
            rows += rows_of(options.model, spec, options.count, options.seed, options.energy)
            for row in rows[-len(WIDTHS) :]:
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    except HwsimError as problem:
        print(f"experiments.legal_mappings: {problem}", file=sys.stderr)
        return problem.exit_code
    table.write(options.out, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
