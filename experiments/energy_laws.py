"""`python -m experiments.energy_laws --page docs/energy_laws.md`: energies by law, every shipped spec over each law.

The page says which laws `read_energy_pj: auto` knows, what each rests on, how far off it may be, and how many times
every on-chip memory of the shipped specs lies above or below each of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.drawing import write_bytes
from hwsim.console import wrote
from hwsim.machine.energy_laws import (
    CACTI_SPREAD,
    DRAM_LAWS,
    SRAM_LAWS,
    SYSTEM_SPREAD,
    cacti_table,
    interpolated,
    sram,
)
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.report.quantities import percent

SHOWN = ("cacti_hp", "cacti_lstp", "middle", "system")
TEXT = """\
# Energies by law

A memory whose energies are not known may say `read_energy_pj: auto`, `write_energy_pj: auto` and name a law. A law
turns size, word, ports and node into picojoules. `shared_port: true` means one port that reads and writes; else each
has its own. Area and leakage come from the same law where it has them and the spec does not state them. The report
repeats what each law said and its spread, a factor either way. A `fixed` MAC may say `energy_pj: auto` with
`synthesis_45nm`.

| law | what it is | spread |
| --- | --- | --- |
{laws}

The laws differ more than their spreads: CACTI prices a bare macro of one bank, `system` a memory with what surrounds
it on a chip. At 45 nm they agree within {system:g} times; at 7 nm `system` says {apart:.0f} times more of 8 KiB. No law
is a default for this reason, and energies of two specs compare only where both follow one law. A large memory of
several banks is dearer by `cacti` than on its chip. CACTI jumps where it changes its organisation, so its table is
interpolated, not fitted. In the setting of Bit Fusion's published rows each size was left out in turn. The law meets
it within {reads} for reads, {writes} for writes, {leakage} for leakage and {area} for area.

## The shipped specs over each law

pJ per bit read, and how many times the law's figure that is. Memories below 64 bytes are registers and left out.

| spec | memory | nm | KiB | word | pJ per bit | {heads} |
| --- | --- | --- | --- | --- | --- | {rules} |
{rows}

{summary}
"""


@dataclass(frozen=True)
class Row:
    """One on-chip memory of a spec: its pJ per bit read, and how many times every law's figure that is."""

    spec: str
    memory: str
    node_nm: float
    size_bits: int
    word_bits: int
    pj_per_bit: float
    over: dict[str, float]

    def line(self) -> str:
        """Markdown."""
        ratios = " | ".join(f"{self.over[law]:.2f}" for law in SHOWN)
        size = f"{self.size_bits / 8192:.3g}"
        return (
            f"| `{self.spec}` | {self.memory} | {self.node_nm:g} | {size} | {self.word_bits} | {self.pj_per_bit:.3g} "
            f"| {ratios} |"
        )


def rows() -> list[Row]:
    """Every memory of 64 bytes and more of the shipped specs."""
    found: list[Row] = []
    for name in shipped_specs():
        machine = load_accelerator(name)
        for memory in machine.memories[1:]:
            if memory.size_bits is None or memory.size_bits < 512:
                continue
            over = {
                law: memory.read_energy_pj
                / sram(
                    memory.size_bits, memory.word_bits, machine.node_nm, law, two_ports=not memory.shared_port
                ).read_pj
                for law in SHOWN
            }
            pj = memory.read_energy_pj / memory.word_bits
            found.append(Row(name, memory.name, machine.node_nm, memory.size_bits, memory.word_bits, pj, over))
    return found


def law_lines() -> list[str]:
    """What each law is."""
    cells = {"hp": "high performance", "lop": "low operating power", "lstp": "low standby power"}
    lines = [
        f"| `cacti_{cell}` | CACTI 7, {cells[cell]} cells: runs at 45 nm, ratios to 22, 32, 65, 90 nm; a bare "
        f"macro; linear in the node below 22 nm | {spread:g}, 90 % of sizes left out |"
        for cell, spread in CACTI_SPREAD.items()
    ]
    lines.append(
        "| `system` | Horowitz (ISSCC 2014) at 45 nm, TPUv4i (ISCA 2021) at 7 nm, power laws in size and node "
        f"| {SYSTEM_SPREAD:g} |"
    )
    lines.append(
        f"| `middle` | the geometric mean of `cacti_hp` and `system` | their distance, at least {SYSTEM_SPREAD:g} |"
    )
    lines += [
        f"| `{law}` | outermost memory: {per_bit:g} pJ per bit, interface included | {spread:g} |"
        for law, (per_bit, spread) in DRAM_LAWS.items()
    ]
    return lines


def left_out_error(quantity: str) -> float:
    """Largest relative error, each inner size left out in turn: 45 nm, 32 b, two ports, ECC."""
    known = cacti_table()[45, "hp", "r_w", "true"][32]

    def off(size: int) -> float:
        others = {32: {other: values for other, values in known.items() if other != size}}
        return abs(interpolated(others, size, 32, quantity) / known[size][quantity] - 1)

    return max(off(size) for size in sorted(known)[1:-1])


def read_pj(law: str) -> float:
    """pJ to read 64 bits of 8 KiB at 7 nm, where the laws part."""
    return sram(65536, 64, 7.0, law, two_ports=False).read_pj


def page() -> str:
    """The whole page."""
    known = rows()
    near = {law: sum(0.5 <= row.over[law] <= 2 for row in known) for law in SHOWN}
    told = ", ".join(f"{count} of `{law}`" for law, count in near.items())
    summary = (
        f"Of {len(known)} memories, within a factor of two: {told}. Most were priced from the two tables behind "
        "`system`, so this says which law their authors followed, not which one is true."
    )
    assert set(SHOWN) < set(SRAM_LAWS)
    return TEXT.format(
        laws="\n".join(law_lines()),
        heads=" | ".join(f"over `{law}`" for law in SHOWN),
        rules=" | ".join("---" for _ in SHOWN),
        rows="\n".join(row.line() for row in known),
        summary=summary,
        system=SYSTEM_SPREAD,
        apart=read_pj("system") / read_pj("cacti_hp"),
        reads=percent(left_out_error("read_pj"), digits=0),
        writes=percent(left_out_error("write_pj"), digits=0),
        leakage=percent(left_out_error("leakage_mw"), digits=0),
        area=percent(left_out_error("area_mm2"), digits=0),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or prints the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.energy_laws", description="Energies by law.")
    parser.add_argument("--page", type=Path, help="markdown page to write; without it printed")
    options = parser.parse_args(arguments)
    if options.page is None:
        print(page(), end="")
    else:
        wrote(write_bytes(options.page, page().encode()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
