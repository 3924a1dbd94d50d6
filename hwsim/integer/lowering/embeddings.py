# pyright: basic
"""Embeddings: rows of a table of codes, by indices that the network is given as whole numbers."""

from __future__ import annotations

from typing import Any

from torch import fx

from hwsim.integer.lowering.exported_nodes import operator_name, shape_of
from hwsim.integer.lowering.values import Const, Image, Moved, NotAffine, Rows, Value
from hwsim.integer.lowering.walk import Lowering


def embedding(low: Lowering, node: fx.Node, table: Value, index: Value, *_: Any, **__: Any) -> Value:
    """Rows whose quantizer stands behind the look-up: one step for the whole table, so the table is quantized once."""
    if not isinstance(table, Const) or not isinstance(index, (Const, Image, Moved)):
        raise NotAffine("a table or indices that are computed")
    if any(operator_name(user) != "quantizer" for user in node.users):
        raise NotAffine("rows that no quantizer reads")
    if isinstance(index, Const):
        return Rows(table.values[index.values.long()], "", shape_of(node))
    source = low.real(index)
    if not isinstance(source, str):
        raise NotAffine("indices that are computed")
    return Rows(table.values, source, shape_of(node))
