"""The plan of a quantized model: what was chosen for each layer and why, and what stays in floating point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from quant.spec import QuantSpec


@dataclass(frozen=True)
class LayerPlan:
    """What was chosen for one layer: a quantizer per operand, and the reason of each input's configuration."""

    name: str
    op: str
    weight: QuantSpec | None
    inputs: tuple[QuantSpec, ...]
    reasons: tuple[str, ...]
    padding_policy: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Left:
    """An operation of the float model that stays in floating point, and why."""

    name: str
    op: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What `quantize` chose: the layers in order of execution, what stays float, the arguments given, and what is
    likely to go wrong in training.
    """

    layers: tuple[LayerPlan, ...]
    left: tuple[Left, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> list[dict[str, Any]]:
        """One row per quantized operand."""
        rows = []
        for layer in self.layers:
            operands = [("weight", layer.weight, "")] if layer.weight is not None else []
            names = ["input"] if len(layer.inputs) == 1 else [f"input {i}" for i in range(len(layer.inputs))]
            operands += list(zip(names, layer.inputs, layer.reasons, strict=True))
            for operand, spec, reason in operands:
                assert spec is not None
                rows.append(
                    {"layer": layer.name, "op": layer.op, "operand": operand, "bits": spec.bits,
                     "codes": spec.codes_text, "offset": spec.offset, "method": spec.method,
                     "config": None if operand == "weight" else spec.config,
                     "padding": layer.padding_policy or "", "why": "; ".join(filter(None, (reason, layer.note)))}
                )  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "settings": dict(self.settings),
            "layers": [
                {**asdict(layer), "weight": layer.weight and layer.weight.to_dict(),
                 "inputs": [spec.to_dict() for spec in layer.inputs]}
                for layer in self.layers
            ],
            "left": [asdict(left) for left in self.left],
            "warnings": list(self.warnings),
        }  # fmt: skip

    def __str__(self) -> str:
        heads = ("layer", "op", "operand", "bits", "codes", "config", "padding", "why")
        rows = [heads]
        for row in self.to_frame():
            config = f"{row['config']}" if row["config"] else "-"
            cells = {**row, "config": config + (" (offset)" if row["offset"] else "")}
            rows.append(tuple(str(cells[head]) for head in heads))
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"left in float: {left.name} ({left.op}): {left.why}" for left in self.left]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def printed_dead_ends(layers: Sequence[LayerPlan]) -> Iterator[str]:
    """A warning where LSQ's text, s without a guard, can end in a state that no gradient leaves."""
    risky = [layer.name for layer in layers if any(s.positivity == "printed" and s.n == 0 for s in layer.inputs)]
    if risky:
        yield (
            f"positivity 'printed' with unsigned codes (n = 0) in {len(risky)} layers ({few(risky)}): once s is "
            "negative every positive value has code 0 and d/ds = n = 0, so s never comes back; the change limit, or "
            "positivity 'absolute', prevents it"
        )


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
