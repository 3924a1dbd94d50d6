"""ZigZag's fixed unrollings and orders of loops in time as the constraints of a spec.

An unrolling above its axis is clipped to it, as there. An order is kept at every memory; ZigZag binds the innermost
loops of the whole nest by it and leaves to its allocator in which memories they run.
"""

from __future__ import annotations

from hwsim.machine.rules import REST
from hwsim.peers.draft import Draft
from hwsim.peers.report import TranslationReport
from hwsim.peers.schedule import Amount, Entry, keep_out_of_arrays, levels_of, write_constraints
from hwsim.peers.zigzag.mapping import Choice


def add_schedule(draft: Draft, choice: Choice, dims: dict[str, str], report: TranslationReport) -> None:
    """Write `constraints` into the draft. `dims`: their loops in our names."""
    found = array_entries(draft, choice, dims, report)
    order = order_of(choice, dims, report)
    if order:
        for node in draft.data["hierarchy"]:
            if "memory" in node:
                found[node["memory"]] = {"level": node["memory"], "order": order}
        keep_out_of_arrays(draft, found)
    names = levels_of(draft)
    source = f"mapping entry {choice.name}"
    if write_constraints(draft, found, dict.fromkeys(names, source), dict.fromkeys(names, line_of(choice))):
        report.taken(choice.place, "constraints", "its unrollings and order: --constraints own searches under them")


def line_of(choice: Choice) -> int:
    """Line of the entry."""
    return int(choice.place.rpartition(":")[2])


def array_entries(draft: Draft, choice: Choice, dims: dict[str, str], report: TranslationReport) -> dict[str, Entry]:
    """Exact unrollings by array."""
    found: dict[str, Entry] = {}
    for node in draft.data["hierarchy"]:
        unroll: dict[str, dict[str, Amount]] = {}
        for axis, size in ((name, keys["size"]) for name, keys in node.get("axes", {}).items()):
            for dim, factor in choice.unrolled.get(axis, []):
                if factor > size:
                    report.approximated(choice.place, f"{axis}.{dim}", f"{factor} on {size} elements: {size}, as there")
                if dim in dims and factor > 1:
                    unroll.setdefault(axis, {})[dims[dim]] = min(factor, size)
        if unroll:
            found[node["array"]] = {"level": node["array"], "unroll": unroll}
    return found


def order_of(choice: Choice, dims: dict[str, str], report: TranslationReport) -> list[str]:
    """The order of loops, the fastest first, the others outside; empty (and named) where a loop is cut in several."""
    known = [dims[turn] for turn in choice.turns if turn in dims]
    for turn in choice.turns:
        if turn not in dims and turn != "*":
            report.none(
                choice.place, f"temporal_ordering.{turn}", "no loop of these layers is called so; it is skipped"
            )
    if len(set(known)) < len(known):
        report.none(choice.place, "temporal_ordering", "a loop cut in several has no place in a spec's order")
        return []
    missing = [dim for dim in dict.fromkeys(dims.values()) if dim not in known]
    if known:
        text = "this order is kept at every memory; there it binds the innermost loops of the whole nest"
        report.approximated(choice.place, "temporal_ordering", text)
    return [*known, *([REST] if len(missing) > 1 else missing)] if known else []
