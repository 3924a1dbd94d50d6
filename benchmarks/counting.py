"""Speed of the access counts on the layers of a saved workload.

Mappings are those that the search finds for an accelerator. Printed: CPU milliseconds per mapping, with every cache
emptied, then repeated.

    python -m benchmarks.counting WORKLOAD.json [--spec eyeriss_v1]
"""

from __future__ import annotations

import argparse
import statistics
import time

from hwsim.machine.load import load_accelerator
from hwsim.nest import reuse
from hwsim.nest.count import count_accesses
from hwsim.network.bits import assign_bits
from hwsim.network.saved import load_workload
from hwsim.search.layer import search


def main() -> None:
    """Print one line per distinct layer and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("--spec", default="eyeriss_v1")
    arguments = parser.parse_args()
    accelerator = load_accelerator(arguments.spec)
    layers = {
        layer.shape_key(): layer for layer in assign_bits(load_workload(arguments.workload), "W8A8") if layer.has_macs
    }
    first: list[float] = []
    again: list[float] = []
    print(f"{'layer':32} {'first ms':>9} {'again ms':>9}")
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
        first.append((middle - start) * 1e3)
        again.append((end - middle) / 20 * 1e3)
        print(f"{layer.name[:32]:32} {first[-1]:9.2f} {again[-1]:9.2f}")
    medians = [statistics.median(values) for values in (first, again)]
    print(f"{'median':32} {medians[0]:9.2f} {medians[1]:9.2f}")


if __name__ == "__main__":
    main()
