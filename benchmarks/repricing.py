"""How fast bit assignments are priced from tables, beside searching each anew, and what the tables leave out.

    python -m benchmarks.repricing [--spec eyeriss_v2] [--model resnet18] [--count 10000] [--check 200] [--fresh 2]

CPU seconds of one process. `--check` assignments are priced again by `price_network` and must be equal; `--fresh` of
them are planned anew (`plan_network`: searches at these bits), for the ratio of times and of energies. The tables are
built with the cache off unless `--cached`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

from hwsim.command_line import load_model
from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.network import plan_network
from hwsim.tables.assignments import machine_widths
from hwsim.tables.network_table import NetworkTable


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--spec", default="eyeriss_v2")
    parse.add_argument("--model", default="resnet18", help="zoo name or saved workload")
    parse.add_argument("--count", type=int, default=10_000)
    parse.add_argument("--check", type=int, default=200)
    parse.add_argument("--fresh", type=int, default=2)
    parse.add_argument("--repeat", type=int, default=5)
    parse.add_argument("--effort", default="quick", choices=("quick", "proven"))
    parse.add_argument("--cached", action="store_true", help="keep the user's cache of mappings and tables")
    options = parse.parse_args()
    if not options.cached:
        os.environ[ENVIRONMENT] = ""
    machine, workload = load_accelerator(options.spec), assign_bits(load_model(options.model, None, False), "W8A8")
    widths = machine_widths(machine)
    began = time.process_time()
    table = NetworkTable.build(workload, machine, widths, effort=options.effort)
    built = time.process_time() - began
    distinct = {id(t): t for t in table.tables.values()}.values()
    print(f"{options.model} on {options.spec}, {options.effort}: {len(table.tables)} layers with MACs, ", end="")
    print(f"{len(distinct)} tables of {len(widths)}^3 widths, {len(table.columns)} decisions per assignment")
    searched, kept = sum(len(t.searched) for t in distinct), sum(len(t.pool) for t in distinct)
    print(f"built in {built:.1f} CPU s: {searched} searches, {kept} mappings kept")

    rows = table.random(options.count, np.random.default_rng(0))
    table.price(rows)  # operators without MACs are priced once per distinct widths
    times: list[float] = []
    for _ in range(options.repeat):
        began = time.process_time()
        priced = table.price(rows)
        times.append(time.process_time() - began)
    each = statistics.median(times)
    print(f"priced: {options.count:,} assignments in {each:.3f} CPU s (median of {options.repeat}, ", end="")
    print(f"best {min(times):.3f}), {options.count / each:,.0f}/s, with bounds and tensors that stay on chip")

    alone = table.price(rows, alone=True)
    gaps = alone.gap
    print(f"certificate, layers alone: energy within {100 * np.median(gaps):.3f} % of the bound (median), ", end="")
    print(f"{100 * gaps.max():.3f} % at most; with tensors on chip {100 * np.median(priced.gap):.2f} % (median)")
    saved = 1 - priced.energy_pj / alone.energy_pj
    ranks = [np.argsort(np.argsort(energies)) for energies in (alone.energy_pj, priced.energy_pj)]
    stay = priced.resident.sum(axis=1).mean()
    print(
        f"tensors that stay on chip: {stay:.1f} of {len(table.candidates)}; they save {100 * saved.min():.2f} ", end=""
    )
    print(f"to {100 * saved.max():.2f} % (median {100 * np.median(saved):.2f} %); ", end="")
    print(f"rank correlation with the sum of layers {np.corrcoef(*ranks)[0, 1]:.4f}")

    began, wrong = time.process_time(), 0
    for i in range(min(options.check, options.count)):
        totals = table.network_cost(rows[i]).totals
        wrong += (totals.energy_pj, totals.latency_cycles) != (priced.energy_pj[i], priced.cycles[i])
    if options.check:
        ratio = (time.process_time() - began) / options.check / (each / options.count)
        print(f"checked: {options.check} by price_network, {wrong} differ; {ratio:,.0f}x the time")
    for i in range(options.fresh):
        began = time.process_time()
        plan = plan_network(table.workload_at(rows[i]), machine)
        taken = time.process_time() - began
        ratio = priced.energy_pj[i] / plan.cost.totals.energy_pj
        print(f"fresh: assignment {i} planned in {taken:.2f} CPU s, {taken / (each / options.count):,.0f}x; ", end="")
        print(f"table's energy / its energy = {ratio:.5f}")


if __name__ == "__main__":
    main()
