"""Speed of the access counts on the layers of a saved workload or a model: one by one, and many candidates at once.

Mappings are those that the search finds for an accelerator; a batch shuffles the perfect factors of each. Printed:
CPU milliseconds per mapping (with every cache emptied, then repeated) and candidates per CPU second.

    python -m benchmarks.counting WORKLOAD.json [--spec eyeriss_v1] [--candidates 16384]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import numpy as np

from hwsim.machine.load import load_accelerator
from hwsim.nest import reuse
from hwsim.nest.count import count_accesses
from hwsim.nest.count_batch import count_batch
from hwsim.nest.mapping import Mapping
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer
from hwsim.network.saved import load_workload
from hwsim.search.layer import search


def shuffled_factors(layer: Layer, template: Mapping, rows: int, seed: int = 1) -> np.ndarray:
    """Rows of perfect factors for the template's loops."""
    rng = random.Random(seed)
    dims = [loop.dim for loop in template.loops]
    table = np.ones((rows, len(dims)), dtype=np.int64)
    for dim, bound in layer.loops.as_dict().items():
        columns = [column for column, name in enumerate(dims) if name == dim]
        for row in range(rows):
            left = bound
            order = rng.sample(columns, k=len(columns))
            for column in order[:-1]:
                table[row, column] = rng.choice([f for f in range(1, left + 1) if left % f == 0])
                left //= int(table[row, column])
            for column in order[-1:]:
                table[row, column] = left
    return table


def main() -> None:
    """Print one line per distinct layer and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--spec", default="eyeriss_v1")
    parser.add_argument("--candidates", type=int, default=16384)
    arguments = parser.parse_args()
    accelerator = load_accelerator(arguments.spec)
    layers = {
        layer.shape_key(): layer for layer in assign_bits(load_workload(arguments.workload), "W8A8") if layer.has_macs
    }
    first: list[float] = []
    again: list[float] = []
    rates: list[float] = []
    print(f"{'layer':32} {'first ms':>9} {'again ms':>9} {'batch/s':>12}")
    for layer in layers.values():
        mapping = search(layer, accelerator).mapping
        for remembered in (reuse.visits, reuse.blocks, reuse.crossing, reuse.side_groups, reuse.overlap, reuse.lattice):
            remembered.cache_clear()
        start = time.process_time()
        count_accesses(layer, mapping, accelerator)
        middle = time.process_time()
        for _ in range(20):
            count_accesses(layer, mapping, accelerator)
        end = time.process_time()
        table = shuffled_factors(layer, mapping, arguments.candidates)
        begin = time.process_time()
        count_batch(layer, mapping, table, accelerator)
        rates.append(arguments.candidates / (time.process_time() - begin))
        first.append((middle - start) * 1e3)
        again.append((end - middle) / 20 * 1e3)
        print(f"{layer.name[:32]:32} {first[-1]:9.2f} {again[-1]:9.2f} {rates[-1]:12,.0f}")
    medians = [statistics.median(values) for values in (first, again, rates)]
    print(f"{'median':32} {medians[0]:9.2f} {medians[1]:9.2f} {medians[2]:12,.0f}")


if __name__ == "__main__":
    main()
