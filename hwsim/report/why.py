"""Why a layer's bill changes at another width, or why it does not: in words, one resource after the other.

The MAC unit, the words of every memory, the wires of every array, and what bounds the time.
"""

from __future__ import annotations

from collections import defaultdict

from hwsim.machine.packing import operands_per_word
from hwsim.machine.parts import Memory
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.mac import layer_mac
from hwsim.report.quantities import percent
from hwsim.tables.mapped import MappedStage, Side


def reasons(now: MappedStage, then: MappedStage, side: Side) -> tuple[str, ...]:
    """Why the bill changes or does not: the MAC, every memory, the wires, and the resource that bounds the time."""
    return (
        mac_reason(now, then),
        *memory_reasons(now, then, side),
        *wire_reasons(now, then, side),
        time_reason(now, then),
    )


def mac_reason(now: MappedStage, then: MappedStage) -> str:
    """What the MAC unit makes of the other width."""
    if now.accelerator.mac.measurements is not None:
        return f"kernel: {then.cost.mac_mode} instead of {now.cost.mac_mode}"
    before, after = (layer_mac(s.stage.layer, s.accelerator) for s in (now, then))
    if (before.energy_pj, before.cycles) == (after.energy_pj, after.cycles):
        return f"MAC: as before ({after.mode})"
    energy = signed_percent(after.energy_pj / before.energy_pj - 1) if before.energy_pj else "+0.0 %"
    time = signed_percent(float(after.cycles / before.cycles) - 1) if before.cycles else "+0.0 %"
    return f"MAC: {after.mode} instead of {before.mode}, energy {energy}, time {time}"


def memory_reasons(now: MappedStage, then: MappedStage, side: Side) -> tuple[str, ...]:
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
            found[f"{what} {signed_percent(changed / count - 1)}"].append(name)
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


def wire_reasons(now: MappedStage, then: MappedStage, side: Side) -> tuple[str, ...]:
    """Hops through arrays that charge for them."""
    found: list[str] = []
    for array in now.accelerator.arrays:
        before, after = (
            {p.detail: p.energy_pj for p in s.cost.parts if p.component == array.name} for s in (now, then)
        )
        for detail, energy in before.items():
            changed = after.get(detail, 0.0)
            if changed != energy:
                found.append(f"{array.name}: {detail} {signed_percent(changed / energy - 1)}")
            elif detail == f"{side} hops":
                found.append(f"{array.name}: {detail} as before, wires come in words of {array.hop_word_bits} bits")
    return tuple(found)


def time_reason(now: MappedStage, then: MappedStage) -> str:
    """What bounds the time before and after."""
    before, after = now.cost, then.cost
    resource = before.bottleneck
    if before.latency_cycles != after.latency_cycles:
        then_by = "" if resource == after.bottleneck else f", then {bound_by(after.bottleneck)}"
        change = signed_percent(after.latency_cycles / before.latency_cycles - 1)
        return f"time {change}: {bound_by(resource)}{then_by}"
    others = [name for name, n in before.cycles if dict(after.cycles).get(name, 0) != n]
    hidden = f" ({', '.join(others)} change behind it)" if others else ""
    return f"time as before: {bound_by(resource)}{hidden}"


def bound_by(resource: str) -> str:
    """`compute-bound`, or bandwidth-bound with the port."""
    return f"{resource}-bound" if resource in ("compute", "vector") else f"bandwidth-bound at {resource}"


def signed_percent(share: float) -> str:
    """A signed percentage; what rounds to nothing says so.

    >>> signed_percent(-0.125), signed_percent(0.00001)
    ('-12.5 %', '+<0.1 %')
    """
    if share and abs(share) < 0.0005:
        return f"{'+' if share > 0 else '-'}<0.1 %"
    return percent(share, sign="+")
