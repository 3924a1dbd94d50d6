"""What Timeloop would print for a mapping, beside our exact counts of it: the text of `timeloop_statistics.txt`."""

from __future__ import annotations

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import Layer
from hwsim.peers.timeloop.accounting import Access, Account

HEADS = ("level", "operand", "instances", "reads", "fills", "updates", "| counted here: reads", "writes")


def statistics_text(account: Account, layer: Layer, nest: Nest, machine: Accelerator) -> str:
    """Cycles, energy by level (pJ) and accesses by level and operand (elements over all instances)."""
    counts = count_accesses(layer, nest, machine)
    computes = layer.loops.macs
    lines = [
        "By Timeloop's rules (docs/coming_from.md): bounding boxes, no drains, whole vectors per instance.",
        f"cycles {account.cycles:,}, utilization {100 * account.utilization:.2f} %, computes {computes:,}",
        f"energy {account.total_pj:,.2f} pJ, {1000 * account.total_pj / computes:,.2f} fJ per compute",
        *(f"  {level}: {energy:,.2f} pJ" for level, energy in account.energy_pj.items()), "",
    ]  # fmt: skip
    return "\n".join([*lines, *aligned([HEADS, *(row(access, counts) for access in account.accesses)])]) + "\n"


def row(access: Access, counts: Counts) -> tuple[str, ...]:
    """One level and operand."""
    exact = counts.reads(access.memory, access.operand), counts.writes(access.memory, access.operand)
    numbers = (access.instances, access.reads, access.fills, access.updates, *exact)
    return access.memory, access.operand, *(f"{number:,}" for number in numbers)


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of one width: names to the left, numbers to the right."""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(cells, widths, strict=True))).rstrip()
        for cells in rows
    ]  # fmt: skip
