"""Attention on quantized operands: the two products of activations, and the module around them.

`QAttention` stands for F.scaled_dot_product_attention, `QMultiheadAttention` for nn.MultiheadAttention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.baselines import make_quantizer
from quant.layers import QLinear, QMatmul, quantized_like
from quant.spec import QuantSpec


class QAttention(nn.Module):
    """Scaled dot-product attention with four quantized operands: QK^T, softmax in float, then PV."""

    is_quantized_layer = True

    def __init__(self, specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec], *, dropout: float = 0.0) -> None:
        """`specs`: of query, key, the probabilities, value."""
        super().__init__()
        query, key, probability, value = specs
        self.scores = QMatmul(query, key)
        self.context = QMatmul(probability, value)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(scale * QK^T + mask) V, (..., tokens, features); scale defaults to 1/sqrt(features).

        `enable_gqa`: keys and values have fewer heads than queries, each for as many in a row.
        """
        if enable_gqa:
            key, value = (shared_by_heads(x, query.shape[-3]) for x in (key, value))
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = self.scores(query, key.transpose(-2, -1)) * factor
        if is_causal:
            causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~causal, float("-inf"))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self.context(self.dropout(scores.softmax(-1)), value)


def shared_by_heads(x: Tensor, heads: int) -> Tensor:
    """Keys or values of each head as often as query heads share them."""
    own = x.shape[-3]
    return x.unsqueeze(-3).expand(*x.shape[:-2], heads // own, *x.shape[-2:]).flatten(-4, -3)


class QMultiheadAttention(nn.Module):
    """nn.MultiheadAttention with quantized projections and products; returns (output, None): no averaged weights.

    As in torch, one linear layer (`in_proj`) makes queries, keys and values of one array, or its parts do of several;
    features of other sizes have a layer each (`q_proj`, `k_proj`, `v_proj`).
    """

    is_quantized_layer = True

    def __init__(
        self,
        source: nn.MultiheadAttention,
        weight_spec: QuantSpec,
        input_specs: Sequence[QuantSpec],
        specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec],
        output: tuple[QuantSpec, QuantSpec] | None = None,
    ) -> None:
        """`input_specs`: of each array that the projections read (one of query, key and value at once, two where the
        last two are one). `specs`: of the products; `output`: of the last layer's weight and input."""
        super().__init__()
        self.heads = source.num_heads
        self.batch_first = source.batch_first
        first, packed = input_specs[0], source.in_proj_weight
        bias = None if source.in_proj_bias is None else source.in_proj_bias.detach()
        if packed is not None:
            self.in_proj: QLinear = quantized_like(_linear(packed.detach(), bias), weight_spec, first)
            names = ("key_quantizer", "value_quantizer")
            for name, spec in zip(names, input_specs[1:], strict=False):
                self.add_module(name, make_quantizer(spec, axis=-1))
        else:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
            each = (*input_specs, *[input_specs[-1]] * 2)[:3]
            self.q_proj, self.k_proj, self.v_proj = (
                quantized_like(_linear(w.detach(), b), weight_spec, spec)
                for w, b, spec in zip(weights, biases, each, strict=True)
            )
        last = output or (weight_spec, specs[3])
        self.out_proj: QLinear = quantized_like(source.out_proj, *last)
        self.attention = QAttention(specs, dropout=source.dropout)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values."""
        if not hasattr(self, "in_proj"):
            return self.q_proj(query), self.k_proj(key), self.v_proj(value)
        layer = self.in_proj
        read = layer.input_quantizer
        if query is key and key is value:
            return layer(query).chunk(3, -1)
        size = query.shape[-1]
        weight, bias = layer.weight_quantizer(layer.weight), layer.bias
        of_key = getattr(self, "key_quantizer", read)
        of_value = getattr(self, "value_quantizer", of_key)
        parts = ((query, read, 0, size), (key, of_key, size, 3 * size))
        if key is not value:
            parts = (parts[0], (key, of_key, size, 2 * size), (value, of_value, 2 * size, 3 * size))
        made = [F.linear(q(x), weight[a:b], None if bias is None else bias[a:b]) for x, q, a, b in parts]
        return (made[0], *made[1].chunk(2, -1)) if key is value else tuple(made)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Inputs (batch, tokens, features) with `batch_first`, else (tokens, batch, features); in masks True hides."""
        q, k, v = (
            self._heads(x if self.batch_first else x.transpose(0, 1)) for x in self._projected(query, key, value)
        )
        mask = None
        for given in (attn_mask, None if key_padding_mask is None else key_padding_mask[:, None, None, :]):
            if given is None:
                continue
            if given.dtype == torch.bool:
                given = torch.zeros_like(given, dtype=q.dtype).masked_fill(given, float("-inf"))
            if given.ndim == 3:
                given = given.unflatten(0, (-1, self.heads))
            mask = given if mask is None else mask + given
        out = self.attention(q, k, v, attn_mask=mask)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, tokens, features) -> (batch, heads, tokens, features of a head)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with copies of these numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    layer.bias = None if bias is None else nn.Parameter(bias.clone())
    return layer
