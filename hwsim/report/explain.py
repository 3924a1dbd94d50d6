"""What one bit more or fewer would change in every layer, and why: `explain(report)`, `evaluate --explain`.

Every width from 1 to 16 is priced under the report's own mapping (access counts do not depend on bits), one operand of
one layer at a time. Widths that change nothing are named, with the reason: padding in the MAC, whole words, a resource
that the operand does not load. Where a wider operand no longer fits, or narrower tiles fit at the same price, the layer
is searched anew.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hwsim.errors import HwsimError
from hwsim.files.atomic import write_atomically
from hwsim.machine.mac import mac_cost
from hwsim.machine.packing import operands_per_word, words_per_operand
from hwsim.machine.parts import Accelerator, Memory
from hwsim.nest.legal import validate
from hwsim.network.bits_file import MAX_BITS
from hwsim.network.layer import Layer, Tensor, activation_inputs
from hwsim.network.sharing import sharing_groups
from hwsim.pricing.layer import LayerCost, price_stage
from hwsim.pricing.mac import refusals
from hwsim.pricing.moves import operand_bits
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.report.files import rows_to_csv
from hwsim.report.report import Report
from hwsim.search.layer import search
from hwsim.search.objective import as_objective
from hwsim.search.result import GIVEN, Effortful, Found

Side = Literal["weight", "input"]
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
            return f"{plural(self.bits)}: energy {percent(self.energy_share)}, cycles {percent(self.cycles_share)}{how}"
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


def explain(report: Report, effort: Effortful = "quick") -> tuple[Explanation, ...]:
    """Both operands of every layer with MACs; `effort` of new searches: the report's. Equal ones are explained once."""
    stages = {s.layer.name: s for s in fuse(report.workload, report.accelerator.capabilities)}
    resident, touching = frozenset(report.cost.resident), neighbours(report)
    known: dict[object, tuple[Explanation, ...]] = {}
    explanations: list[Explanation] = []
    for name, found in report.found.items():
        study = Study(stages[name], found, report.accelerator, resident, report.objective, effort)
        if study.key not in known:
            known[study.key] = tuple(study.explain(side) for side in ("weight", "input"))
        for part in known[study.key]:
            tensor = study.tensor(part.operand)
            others = tuple(other for other in touching.get(tensor.name, ()) if other != name)
            explanations.append(dataclasses.replace(part, layer=name, touched=others))
    return tuple(explanations)


def neighbours(report: Report) -> dict[str, tuple[str, ...]]:
    """Layers that make or read a tensor, or one that must have the same bits, by the tensor's name."""
    users: dict[str, list[str]] = defaultdict(list)
    for layer in report.workload:
        for tensor in (layer.output, *activation_inputs(layer)):
            users[tensor.name].append(layer.name)
    found = {name: list(layers) for name, layers in users.items()}
    for group in sharing_groups(report.workload):
        together = [layer for name in group for layer in users[name]]
        for name in group:
            found[name] = together
    return {name: tuple(dict.fromkeys(layers)) for name, layers in found.items()}


@dataclass(frozen=True)
class Study:
    """One layer under its mapping, ready to be priced at other widths."""

    stage: Stage
    found: Found
    accelerator: Accelerator
    resident: frozenset[str]
    objective: str
    effort: Effortful = "quick"

    @cached_property
    def layer(self) -> Layer:
        """The layer as memories see it."""
        return effective_layer(self.stage)

    @cached_property
    def key(self) -> object:
        """Equal keys have equal explanations."""
        layer = self.layer
        kept = tuple(t is not None and t.name in self.resident for t in (layer.weight, *layer.inputs, layer.output))
        fused = tuple((f.op, f.elements, f.output.bits) for f in self.stage.fused)
        signs = tuple((t.signed, t.offset, t.scales) for t in (*layer.inputs, layer.output, self.tensor("weight")))
        return (*layer.shape_key(), *layer.bits_key(), layer.bias, layer.padding, layer.padding_policy, signs, kept,
                fused, self.found.mapping)  # fmt: skip

    def tensor(self, side: Side) -> Tensor:
        """The operand in question."""
        weight = self.stage.layer.weight
        assert weight is not None
        return weight if side == "weight" else self.stage.layer.inputs[0]

    def at(self, side: Side, bits: int) -> Study:
        """The same layer with other bits on one operand."""
        layer, tensor = self.stage.layer, dataclasses.replace(self.tensor(side), bits=bits)
        changed = dataclasses.replace(layer, accumulator_bits=None)
        if side == "weight":
            changed = dataclasses.replace(changed, weight=tensor)
        else:
            changed = dataclasses.replace(changed, inputs=(tensor, *layer.inputs[1:]))
        if layer.accumulator_bits is not None and bits <= self.tensor(side).bits:  # the proven bound still holds
            proven = min(layer.accumulator_bits, changed.accumulator_bits_needed())
            changed = dataclasses.replace(changed, accumulator_bits=proven)
        return dataclasses.replace(self, stage=Stage(changed, self.stage.fused))

    @cached_property
    def cost(self) -> LayerCost:
        """The bill under the report's mapping, tensors staying on chip as in the report."""
        return price_stage(self.stage, self.accelerator, self.found.counts, self.resident)

    def refusals(self) -> tuple[str, ...]:
        """Rules that forbid these widths."""
        return refusals(self.stage.layer, self.accelerator)

    def misfit(self) -> str:
        """Why the mapping does not fit at these widths; empty when it does."""
        return "; ".join(validate(self.found.mapping, self.layer, self.accelerator)[:1])

    def explain(self, side: Side) -> Explanation:
        """One operand over all widths."""
        bits = self.tensor(side).bits
        below = [self.change(side, b) for b in range(bits - 1, 0, -1)]
        above = [self.change(side, b) for b in range(bits + 1, max(MAX_BITS, bits + 1) + 1)]
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
        try:
            above = wide.searched(())
        except HwsimError as problem:
            return Change(bits, "does not fit", why=(why, str(problem)))
        below = narrow.searched((above, self.found))
        before, after = (below.cost, above.cost) if wide is other else (above.cost, below.cost)
        return dataclasses.replace(change_between(before, after, bits, (why,)), remapped=True)

    def searched(self, candidates: tuple[Found, ...]) -> Found:
        """The best mapping found at these widths."""
        seeds = tuple(f.mapping for f in candidates)
        return search(self.layer, self.accelerator, as_objective(self.objective), seeds=seeds, effort=self.effort)


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


# --- why ------------------------------------------------------------------------------------------------------------


def reasons(now: Study, then: Study, side: Side) -> tuple[str, ...]:
    """Why the bill changes or does not: the MAC, every memory, the wires, and the resource that bounds the time."""
    return (
        mac_reason(now, then),
        *memory_reasons(now, then, side),
        *wire_reasons(now, then, side),
        time_reason(now, then),
    )


def mac_reason(now: Study, then: Study) -> str:
    """What the MAC unit makes of the other width."""
    mac = now.accelerator.mac
    if mac.measurements is not None:
        return f"kernel: {then.cost.mac_mode} instead of {now.cost.mac_mode}"
    before, after = (mac_cost(mac, s.tensor("weight").bits, s.tensor("input").bits) for s in (now, then))
    if (before.energy_pj, before.cycles) == (after.energy_pj, after.cycles):
        return f"MAC: as before ({after.mode})"
    energy = percent(after.energy_pj / before.energy_pj - 1) if before.energy_pj else "+0.0 %"
    time = percent(float(after.cycles / before.cycles) - 1) if before.cycles else "+0.0 %"
    return f"MAC: {after.mode} instead of {before.mode}, energy {energy}, time {time}"


def memory_reasons(now: Study, then: Study, side: Side) -> tuple[str, ...]:
    """Every memory port: words of the operand, and of partial sums whose width follows; like changes together."""
    before, after = words_moved(now.cost), words_moved(then.cost)
    memories = {memory.name: memory for memory in now.accelerator.memories}
    found: dict[str, list[str]] = defaultdict(list)
    for key, count in before.items():
        name, operand, kind = key
        changed = after.get(key, 0)
        if operand == side and count == changed:
            found[same_words(memories[name], side, now.tensor(side).bits, then.tensor(side).bits)].append(name)
        elif count != changed:
            what = "partial sums" if kind == "partial" else f"{operand} words"
            found[f"{what} {percent(changed / count - 1)}"].append(name)
    return tuple(f"{', '.join(names)}: {text}" for text, names in found.items())


def words_moved(cost: LayerCost) -> dict[tuple[str, str, str], int]:
    """Words over each memory's ports by operand and kind."""
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for moved in cost.moved:
        found[moved.memory, moved.operand, moved.kind] += moved.read_words + moved.write_words
    return {key: count for key, count in found.items() if count}


def same_words(memory: Memory, side: Side, now: int, then: int) -> str:
    """Why a memory moves as many words at both widths."""
    width, widest = memory.word_bits, max(now, then)
    each = operands_per_word(widest, width, memory.packing)
    if memory.packing == "dense":
        reason = f"the difference ends in the same {width}-bit words"
    elif each > 1:
        reason = f"a word of {width} bits holds {each} at either width"
    else:
        reason = f"each takes {-(-widest // width)} x {width} bits at either width"
    return f"{side} words as before, {reason}"


def wire_reasons(now: Study, then: Study, side: Side) -> tuple[str, ...]:
    """Hops through arrays that charge for them."""
    found: list[str] = []
    for array in now.accelerator.arrays:
        before, after = (
            {p.detail: p.energy_pj for p in s.cost.parts if p.component == array.name} for s in (now, then)
        )
        for detail, energy in before.items():
            changed = after.get(detail, 0.0)
            if changed != energy:
                found.append(f"{array.name}: {detail} {percent(changed / energy - 1)}")
            elif detail == f"{side} hops":
                found.append(f"{array.name}: {detail} as before, wires come in words of {array.hop_word_bits} bits")
    return tuple(found)


def time_reason(now: Study, then: Study) -> str:
    """What bounds the time before and after."""
    before, after = now.cost, then.cost
    resource = before.bottleneck
    if before.latency_cycles != after.latency_cycles:
        then_by = "" if resource == after.bottleneck else f", then {bound_by(after.bottleneck)}"
        change = percent(after.latency_cycles / before.latency_cycles - 1)
        return f"time {change}: {bound_by(resource)}{then_by}"
    others = [name for name, n in before.cycles if dict(after.cycles).get(name, 0) != n]
    hidden = f" ({', '.join(others)} change behind it)" if others else ""
    return f"time as before: {bound_by(resource)}{hidden}"


def bound_by(resource: str) -> str:
    """`compute-bound`, or bandwidth-bound with the port."""
    return f"{resource}-bound" if resource in ("compute", "vector") else f"bandwidth-bound at {resource}"


def percent(share: float) -> str:
    """A signed percentage; what rounds to nothing says so.

    >>> percent(-0.125), percent(0.00001)
    ('-12.5 %', '+<0.1 %')
    """
    if share and abs(share) < 0.0005:
        return f"{'+' if share > 0 else '-'}<0.1 %"
    return f"{100 * share:+.1f} %"


# --- as text and rows -------------------------------------------------------------------------------------------------

NOTE = (
    "each operand alone, under the mapping above; a new search at fewer bits can only gain more. Energy and cycles are "
    "the layer's own: layers that share the tensor change too"
)


def explanation_lines(explanations: tuple[Explanation, ...]) -> list[str]:
    """What to print: the bits that buy nothing first, then every operand with its reasons; equal texts together."""
    if not explanations:
        return []
    lines = ["What one bit would change", f"({NOTE})", *useless_lines(explanations)]
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for part in explanations:
        together[operand_lines(part)].append(part.layer)
    for (first, *rest), layers in together.items():
        lines += [f"{name_list(layers)}: {first}", *(f"    {line}" for line in rest)]
    return lines


def useless_lines(explanations: tuple[Explanation, ...]) -> list[str]:
    """Which bits could go or come for nothing."""
    useless: dict[tuple[Side, int, int], list[str]] = defaultdict(list)
    free: dict[tuple[Side, int, int], list[str]] = defaultdict(list)
    for part in explanations:
        if part.useless_bits:
            useless[part.operand, part.bits, part.lowest].append(part.layer)
        if part.free_bits:
            free[part.operand, part.bits, part.highest].append(part.layer)
    lines = [
        f"useless: {operand}s of {plural(bits)} cost what {lowest} do: {name_list(layers)}"
        for (operand, bits, lowest), layers in useless.items()
    ]
    lines += [
        f"free: {operand}s of {plural(bits)} may have {highest} at the same price: {name_list(layers)}"
        for (operand, bits, highest), layers in free.items()
    ]
    return lines or ["every bit counts: no operand has a neighbouring width at the same price"]


def operand_lines(part: Explanation) -> tuple[str, ...]:
    """One operand: its bits, then a line per width that is compared."""
    pieces = [f"{part.operand}s of {plural(part.bits)}"]
    if part.fewer is not None:
        pieces.append(f"{part.fewer.describe()} [{'; '.join(part.fewer.why)}]")
        if part.next_saving is not None and part.next_saving.bits != part.fewer.bits:
            pieces.append(f"next saving at {part.next_saving.describe()} [{'; '.join(part.next_saving.why)}]")
        elif part.next_saving is None:
            pieces.append("no narrower width saves anything")
    pieces.append(f"{part.more.describe()} [{'; '.join(part.more.why)}]")
    return tuple(pieces)


def name_list(names: list[str]) -> str:
    """Up to four names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def to_rows(explanations: tuple[Explanation, ...]) -> list[dict[str, Any]]:
    """One flat row per operand, for explain.csv and data frames."""
    rows: list[dict[str, Any]] = []
    for part in explanations:
        row: dict[str, Any] = {"layer": part.layer, "operand": part.operand, "bits": part.bits}
        for name, change in (("fewer", part.fewer), ("more", part.more), ("next_saving", part.next_saving)):
            row |= {f"{name}_{key}": value for key, value in change_row(change).items()}
        rows.append(
            {**row, "lowest_same": part.lowest, "highest_same": part.highest, "touched": ";".join(part.touched)}
        )
    return rows


def change_row(change: Change | None) -> Map[str, Any]:
    """A change as columns; empty where there is none."""
    keys = ("bits", "verdict", "energy_pj", "cycles", "remapped")
    values = {key: getattr(change, key) if change else "" for key in keys}
    return {**values, "why": "; ".join(change.why) if change else ""}


def explained_json(report: Report, explanations: tuple[Explanation, ...]) -> str:
    """The report as JSON with a list `explanations` where there are any."""
    if not explanations:
        return report.to_json()
    return json.dumps(
        {**report.to_dict(), "explanations": [part.to_dict() for part in explanations]}, indent=1, allow_nan=False
    )


def write_explanations(explanations: tuple[Explanation, ...], folder: Path) -> Path:
    """Write explain.csv into a folder that exists."""
    path = folder / "explain.csv"
    write_atomically(path, rows_to_csv(to_rows(explanations)))
    return path
