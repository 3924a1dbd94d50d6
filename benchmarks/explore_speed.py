"""Design points priced per second: bit assignments from tables, and new machines with a certified search each.

    python -m benchmarks.explore_speed [--bits resnet18 mobilenet_v2] [--machines resnet18] [--spec eyeriss_v1]
                                       [--joint resnet18 mobilenet_v2] [--workers here 2 cluster]

Bits: random assignments of 1 to 8 bits to every tensor of a table, 10,000 a batch, tensors on chip and lower bounds
included. Machines: array rows and columns, the sizes of the shared buffer and the weight scratchpad, drawn at random
around the spec; each layer searched anew at W8A8 without the cache, `proven` to the gaps asked for. Joint: machines
drawn around bit_fusion; for each the tables of 2, 4 and 8 bits built anew and its bits solved exactly (least loss, made
up as 4^-bits, at an energy midway between the least and that of 8 bits). One core is CPU seconds of this process. `2`
is two local processes, `cluster` a local dask.distributed cluster of two workers; both in wall seconds after every
worker has its tables and has worked once, so on a busy machine they say little.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from hwsim.command_line import load_model
from hwsim.explore.bits.allocate import Solver
from hwsim.explore.bits.bill import bit_problem
from hwsim.explore.bits.choices import Freedom, free_choices
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.space import machine_of, put
from hwsim.explore.machines.workers import Cluster, Local, Workers
from hwsim.files.strict_yaml import read_document
from hwsim.machine.load import find_spec, load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits import assign_bits
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.network import search_network
from hwsim.tables.network_table import NetworkTable

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)
AXES = {
    "eyeriss_v1": {
        "hierarchy.pe.axes.columns.size": (10, 12, 14, 16, 18),
        "hierarchy.pe.axes.rows.size": (8, 10, 12, 14, 16),
        "hierarchy.glb.size_bits": (442368, 663552, 884736, 1327104),
        "hierarchy.filter_spad.size_bits": (1792, 2688, 3584, 5376),
    },
    "bit_fusion": {
        "hierarchy.fusion_units.axes.rows.size": (8, 12, 16, 24, 32),
        "hierarchy.fusion_units.axes.columns.size": (8, 16, 24, 32),
        "hierarchy.input_buffer.size_bits": (131072, 262144, 524288),
    },
}
JOINT_SPEC = "bit_fusion"
BATCH = 10_000


@lru_cache(maxsize=4)
def table_of(model: str, spec: str) -> NetworkTable:
    """A network's table, built once per process."""
    machine = load_accelerator(spec)
    can = machine.capabilities
    widths = [b for b in WIDTHS if b in can.weight_bits and b in can.activation_bits and b in can.output_bits]
    return NetworkTable.build(assign_bits(load_model(model, None, False), "W8A8"), machine, widths)


def price_batches(model: str, spec: str, tasks: list[Any]) -> list[Record]:
    """Each task prices one batch."""
    table = table_of(model, spec)
    for seed, _ in tasks:
        table.price(table.random(BATCH, np.random.default_rng(seed)))
    return [{"trial": trial} for trial, _ in tasks]


def machine_at(spec: str, seed: int) -> Accelerator:
    """A machine drawn from the space around a spec."""
    rng = np.random.default_rng(seed)
    path = find_spec(spec)
    data = read_document(path).data
    for key, values in AXES[spec].items():
        put(data, key, int(rng.choice(values)), str(path))
    return machine_of(data, path, "benchmark")


def search_machines(model: str, spec: str, gap: float, tasks: list[Any]) -> list[Record]:
    """Each task is one new machine; its record has the largest gap of its layers."""
    os.environ[ENVIRONMENT] = ""
    workload = assign_bits(load_model(model, None, False), "W8A8")
    records: list[Record] = []
    for seed, _ in tasks:
        found = search_network(workload, machine_at(spec, seed), "energy", effort="proven", gap=gap)
        records.append({"trial": seed, "gap": max(f.certificate.gap for f in found.values())})
    return records


def solve_machines(model: str, tasks: list[Any]) -> list[Record]:
    """Each task is one new machine with its best bits; its record has their energy."""
    os.environ[ENVIRONMENT] = ""
    workload, freedom = load_model(model, None, False), Freedom((2, 4, 8), (2, 4, 8))
    records: list[Record] = []
    for seed, _ in tasks:
        machine = machine_at(JOINT_SPEC, seed)
        coded = assign_bits(workload, "W8A8")
        sites = [site for entry in free_choices(coded, machine, freedom) for site in entry.sites]
        losses = {site: {bits: 4.0**-bits for bits in (2, 4, 8)} for site in sites}
        made = bit_problem(workload, machine, freedom, losses, on_chip=True)
        solver = Solver(made.problem)
        ends = [solver.best("energy_pj", {}), solver.best("loss", {})]
        budget = sum(end.values["energy_pj"] for end in ends) / 2
        found = solver.best("loss", {"energy_pj": budget})
        records.append({"trial": seed, "energy_pj": found.values["energy_pj"]})
    return records


@contextmanager
def local_cluster() -> Iterator[Workers]:
    """Two workers of one thread each."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as running:
        workers = Cluster(running.scheduler_address)
        try:
            yield workers
        finally:
            workers.close()


def rate(work: Any, count: int, where: str) -> tuple[float, list[Record]]:
    """Tasks per second: CPU seconds here, wall seconds elsewhere, after everybody has worked once."""
    if where == "here":
        work([(10**6, {})])
        began = time.process_time()
        records = work([(seed, {}) for seed in range(count)])
        return count / (time.process_time() - began), records
    if where == "cluster":
        with local_cluster() as workers:
            return timed(workers, work, count)
    workers = Local(int(where))
    try:
        return timed(workers, work, count)
    finally:
        workers.close()


def timed(workers: Workers, work: Any, count: int) -> tuple[float, list[Record]]:
    """Tasks per wall second of workers that have worked."""
    for _ in workers.run(work, [(10**6 + i, {}) for i in range(4)]):
        pass
    began = time.perf_counter()
    records = [record for found in workers.run(work, [(seed, {}) for seed in range(count)]) for record in found]
    return count / (time.perf_counter() - began), records


def main() -> None:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--bits", nargs="*", default=["resnet18", "mobilenet_v2"], metavar="MODEL")
    parse.add_argument("--bits-spec", default="eyeriss_v2")
    parse.add_argument("--batches", type=int, default=20, help=f"of {BATCH:,} assignments")
    parse.add_argument("--machines", nargs="*", default=["resnet18"], metavar="MODEL")
    parse.add_argument("--spec", default="eyeriss_v1", choices=list(AXES))
    parse.add_argument("--gaps", nargs="+", type=float, default=[0.0, 0.02])
    parse.add_argument("--count", type=int, default=8, help="machines per gap, or joint ones")
    parse.add_argument("--joint", nargs="*", default=["resnet18", "mobilenet_v2"], metavar="MODEL")
    parse.add_argument("--workers", nargs="+", default=["here", "2", "cluster"], metavar="WHERE")
    options = parse.parse_args()
    unit = {"here": "per CPU s, one core", "2": "per s, two processes", "cluster": "per s, cluster of two workers"}
    for model in options.bits:
        for where in options.workers:
            work = functools.partial(price_batches, model, options.bits_spec)
            each, _ = rate(work, options.batches, where)
            print(
                f"{model} on {options.bits_spec}: {each * BATCH:,.0f} assignments {unit.get(where, where)}", flush=True
            )
    for model in options.machines:
        for gap in options.gaps:
            for where in options.workers:
                work = functools.partial(search_machines, model, options.spec, gap)
                each, records = rate(work, options.count, where)
                worst = max(record["gap"] for record in records)
                print(f"{model} on machines around {options.spec}, gap asked for {gap:g}: {each:.2f} machines "
                      f"{unit.get(where, where)}; largest gap {100 * worst:.3f} %", flush=True)  # fmt: skip
    for model in options.joint:
        for where in options.workers:
            each, _ = rate(functools.partial(solve_machines, model), options.count, where)
            print(
                f"{model}: {each:.2f} machines around {JOINT_SPEC} with exact bits {unit.get(where, where)}", flush=True
            )


if __name__ == "__main__":
    main()
