"""Constraints of a spec as Timeloop's: what memories and axes say of their loops; what has no words there by name."""

from __future__ import annotations

from hwsim.machine.parts import Accelerator
from hwsim.machine.rules import REST, Limit, Rule
from hwsim.network.layer import DIMS
from hwsim.peers.report import TranslationReport


def temporal_words(machine: Accelerator, name: str, report: TranslationReport) -> str:
    """`temporal: {...}` of a memory; empty where its rules say nothing of loops in time."""
    words: list[str] = []
    for rule in (rule for rule in machine.constraints if rule.level == name):
        if rule.order:
            words.append(f"permutation: {permutation(rule, report)}")
        factors = [factor(dim, limit) for dim, limit in rule.factors]
        if factors:
            words.append(f"factors: [{', '.join(factors)}]")
        if rule.tile:
            report.none(name, f"{name}.constraints", "extents of tiles: only factors level by level there")
    return f"temporal: {{{', '.join(words)}}}" if words else ""


def permutation(rule: Rule, report: TranslationReport) -> str:
    """An order, innermost first; `_` where the others stand, which are outside without it."""
    if REST in rule.order:
        return '"' + "".join("_" if dim == REST else dim for dim in rule.order) + '"'
    if set(DIMS) - set(rule.order):
        text = "loops that the order does not name are free here, outside there"
        report.approximated(rule.level, f"{rule.level}.order", text)
    return f"[{', '.join(rule.order)}]"


def factor(dim: str, limit: Limit) -> str:
    """A limit; 0 is all that is left."""
    return f"{dim}=0" if limit.most is None else f"{dim}{'=' if limit.exact else '<='}{limit.most}"


def spatial_factors(machine: Accelerator, array: str, axes: list[str], report: TranslationReport) -> list[str]:
    """Factors of the unrollings that rules ask for on some axes of an array."""
    found: list[str] = []
    for rule in (rule for rule in machine.constraints if rule.level == array):
        for axis, limits in rule.unroll if set(dict(rule.unroll)) & set(axes) else ():
            for dim, limit in limits if axis in axes else ():
                if limit.most is None:
                    report.none(
                        array, f"{array}.constraints", f"all of {dim} that {axis} takes: 0 is the whole loop there"
                    )
                elif limit.most > 1:
                    found.append(factor(dim, limit))
        if rule.order or rule.min_use or any(limit.most != 1 for _, limit in rule.factors):
            text = "loops right inside an array, or a least share of it: no words there"
            report.none(array, f"{array}.constraints", text)
    return found
