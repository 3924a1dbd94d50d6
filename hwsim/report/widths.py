"""One layer beside itself at other bit-widths: what changes in its bill, and how far nothing does (`Study`, `Change`).

The bills are those of `tables/`, under the report's mapping. Where a wider operand no longer fits, or narrower tiles
fit at the same price, the layer is searched anew. Why a bill changes is in why.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from hwsim.errors import HwsimError
from hwsim.machine.packing import words_per_operand
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import MAX_BITS
from hwsim.network.workload import Workload
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.moves import operand_bits
from hwsim.pricing.stages import fuse
from hwsim.report.why import reasons, signed_percent
from hwsim.search.objective import as_objective
from hwsim.search.result import GIVEN, Effortful, Found
from hwsim.tables.mapped import SIDES, MappedStage, Side

Verdict = Literal["saves", "same", "costs", "refused", "does not fit"]


@dataclass(frozen=True)
class Change:
    """One operand of one layer at `bits`: difference of the layer's bill (`cycles`, `energy_pj`), and why.

    `remapped`: the difference is between two searched mappings, because the report's own
    does not fit or gains nothing.
    """

    bits: int
    verdict: Verdict
    energy_pj: float = 0.0
    energy_share: float = 0.0
    cycles: int = 0
    cycles_share: float = 0.0
    why: tuple[str, ...] = ()
    remapped: bool = False

    def describe(self) -> str:
        """`7 bits: energy -3.1 %, cycles +0.0 %`, or why there is no price."""
        if self.verdict == "same":
            return f"{plural(self.bits)} change nothing"
        if self.verdict in ("saves", "costs"):
            how = " with a new mapping" if self.remapped else ""
            energy, cycles = signed_percent(self.energy_share), signed_percent(self.cycles_share)
            return f"{plural(self.bits)}: energy {energy}, cycles {cycles}{how}"
        return f"{plural(self.bits)}: {self.verdict}"


@dataclass(frozen=True)
class Explanation:
    """One operand of one layer: one bit fewer, one bit more, and the widths around that cost the same.

    `lowest` to `highest` is the run of allowed widths around `bits` with the same bill. `next_saving` is the widest
    narrower width that saves, `touched` the other layers whose bill changes too because they share the tensor.
    """

    layer: str
    operand: Side
    bits: int
    fewer: Change | None
    more: Change
    lowest: int
    highest: int
    next_saving: Change | None
    touched: tuple[str, ...] = ()

    @property
    def useless_bits(self) -> int:
        """Bits that could go without saving anything: they buy nothing here, and cost nothing."""
        return self.bits - self.lowest

    @property
    def free_bits(self) -> int:
        """Bits that could be added without cost."""
        return self.highest - self.bits

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**dataclasses.asdict(self), "useless_bits": self.useless_bits, "free_bits": self.free_bits}


def plural(bits: int) -> str:
    """`1 bit`, `2 bits`."""
    return f"{bits} bit" if bits == 1 else f"{bits} bits"


@dataclass(frozen=True)
class Study(MappedStage):
    """One layer under its mapping, compared with itself at other widths."""

    objective: str
    effort: Effortful = "quick"

    @cached_property
    def key(self) -> object:
        """Equal keys have equal explanations."""
        layer = self.layer
        kept = tuple(t is not None and t.name in self.resident for t in (layer.weight, *layer.inputs, layer.output))
        fused = tuple((f.op, f.elements, f.output.bits) for f in self.stage.fused)
        signs = tuple((t.signed, t.offset, t.scales) for t in (*layer.inputs, layer.output, self.tensor("weight")))
        widths = (*layer.bits_key(), *layer.format_key)
        return (*layer.shape_key(), *widths, layer.bias, layer.padding, layer.padding_policy, signs, kept, fused,
                self.found.mapping)  # fmt: skip

    def explain(self, side: Side) -> Explanation:
        """One operand over all widths that its element can have."""
        bits = self.tensor(side).bits
        below = [self.change(side, b) for b in range(bits - 1, 0, -1) if self.has(side, b)]
        wider = [b for b in range(bits + 1, max(MAX_BITS, bits + 1) + 1) if self.has(side, b)]
        above = [self.change(side, b) for b in wider or [bits + 1]]
        below, lowest = self.searched_run(side, below)
        return Explanation(
            layer=self.stage.layer.name,
            operand=side,
            bits=bits,
            fewer=below[0] if below else None,
            more=above[0],
            lowest=lowest,
            highest=end_of_run(bits, above),
            next_saving=next((c for c in below if c.verdict == "saves"), None),
        )

    def narrower(self) -> dict[Side, Change]:
        """Either operand at the next narrower width that the machine allows; at one bit fewer if it allows none."""
        found: dict[Side, Change] = {}
        for side in SIDES:
            bits = self.next_below(side)
            if bits:
                found[side] = self.change(side, bits)
        return found

    def next_below(self, side: Side) -> int:
        """The widest narrower width without a refusal, else one bit fewer; 0 where there is one bit only."""
        bits = self.tensor(side).bits
        known = [b for b in range(bits - 1, 0, -1) if self.has(side, b)]
        return next((b for b in known if not self.at(side, b).refusals()), known[0] if known else 0)

    def searched_run(self, side: Side, below: list[Change]) -> tuple[list[Change], int]:
        """Narrower widths and the last that changes nothing, after one new search at the end of their run.

        It is needed where tiles take less room there. If it saves, only widths with equal footprints change nothing.
        """
        bits = self.tensor(side).bits
        end = end_of_run(bits, below)
        given, room = self.found.certificate.space == GIVEN, footprints(self, side)
        if given or footprints(self.at(side, end), side) == room:
            return below, end
        anew = self.remapped(self.at(side, end), side, end, "nothing changes under this mapping, but larger tiles fit")
        if anew.verdict != "saves":
            return below, end
        run = [c.bits for c in below if c.bits >= end and c.verdict == "same"]
        lowest = min([bits, *(b for b in run if footprints(self.at(side, b), side) == room)])
        return [anew if c.bits == end else c for c in below], lowest

    def change(self, side: Side, bits: int) -> Change:
        """One other width against this one."""
        if not self.has(side, bits):
            return Change(bits, "refused", why=(f"no {self.tensor(side).element} or other float has {plural(bits)}",))
        other, now = self.at(side, bits), self.tensor(side).bits
        refused = other.refusals()
        if refused:
            return Change(bits, "refused", why=tuple(rule_only(reason) for reason in refused))
        misfit = other.misfit() if bits > now else ""
        if misfit:
            why = f"the mapping does not fit any more: {misfit}"
            return (
                self.remapped(other, side, bits, why) if bits == now + 1 else Change(bits, "does not fit", why=(why,))
            )
        return change_between(self.cost, other.cost, bits, reasons(self, other, side))

    def remapped(self, other: Study, side: Side, bits: int, why: str) -> Change:
        """The change when the narrower of both widths is searched with the wider one's mapping among its candidates.

        Each is priced alone (no tensor stays on chip). A mapping that the user gave is never replaced.
        """
        if self.found.certificate.space == GIVEN:
            return Change(bits, "does not fit", why=(why,))
        wide, narrow = (other, self) if bits > self.tensor(side).bits else (self, other)
        objective = as_objective(self.objective)
        try:
            above = wide.searched(objective, (), self.effort)
        except HwsimError as problem:
            return Change(bits, "does not fit", why=(why, str(problem)))
        below = narrow.searched(objective, (above, self.found), self.effort)
        before, after = (below.cost, above.cost) if wide is other else (above.cost, below.cost)
        return dataclasses.replace(change_between(before, after, bits, (why,)), remapped=True)


def end_of_run(bits: int, changes: list[Change]) -> int:
    """The last width before the bill changes; widths that the machine refuses are skipped."""
    end = bits
    for change in changes:
        if change.verdict == "same":
            end = change.bits
        elif change.verdict != "refused":
            break
    return end


def change_between(before: LayerCost, after: LayerCost, bits: int, why: tuple[str, ...]) -> Change:
    """Difference of two bills."""
    energy, cycles = after.total_energy_pj - before.total_energy_pj, after.latency_cycles - before.latency_cycles
    verdict: Verdict = "costs" if energy > 0 or cycles > 0 else "saves" if energy < 0 or cycles < 0 else "same"
    return Change(
        bits,
        verdict,
        energy,
        energy / before.total_energy_pj if before.total_energy_pj else 0.0,
        cycles,
        cycles / before.latency_cycles if before.latency_cycles else 0.0,
        why,
    )


def footprints(study: Study, side: Side) -> tuple[float, ...]:
    """Capacity that one element takes in every bounded memory: equal footprints allow the same mappings."""
    layer, machine = study.layer, study.accelerator
    bounded = [memory for memory in machine.memories if memory.size_bits is not None]
    slopes = [words_per_operand(study.tensor(side).bits, m.word_bits, m.packing) for m in bounded if side in m.keeps]
    sums = operand_bits(layer, machine, "output", "partial")
    return (*slopes, *(words_per_operand(sums, m.word_bits, m.packing) for m in bounded if "output" in m.keeps))


def rule_only(refusal: str) -> str:
    """A refusal without layer and tensor: `capabilities.weight_bits: expected one of 2, 4, 8 bits, got 7`."""
    rule = refusal.split(": ", 1)[-1]
    return re.sub(r" bits for \S+, got", " bits, got", rule.split(" ", 1)[-1])


def narrower(
    workload: Workload, accelerator: Accelerator, found: Map[str, Found], resident: frozenset[str], objective: str
) -> dict[str, dict[Side, Change]]:
    """What the next narrower width of either operand changes in each layer with MACs, under its mapping."""
    stages = {s.layer.name: s for s in fuse(workload, accelerator.capabilities)}
    known: dict[object, dict[Side, Change]] = {}
    changes: dict[str, dict[Side, Change]] = {}
    for name, mapped in found.items():
        if stages[name].layer.format_key:  # a format's bits do not vary one by one
            continue
        study = Study(stages[name], mapped, accelerator, resident, objective)
        if study.key not in known:
            known[study.key] = study.narrower()
        changes[name] = known[study.key]
    return changes
