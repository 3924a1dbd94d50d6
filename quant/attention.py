"""Attention on quantized operands: the two products of activations, and the module around them.

`QAttention` stands for F.scaled_dot_product_attention, `QMultiheadAttention` for nn.MultiheadAttention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    ) -> Tensor:
        """softmax(scale * QK^T + mask) V, (..., tokens, features); scale defaults to 1/sqrt(features)."""
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


class QMultiheadAttention(nn.Module):
    """nn.MultiheadAttention with quantized projections and products; returns (output, None): no averaged weights.

    The packed projection becomes three linear layers (`q_proj`, `k_proj`, `v_proj`) with the same numbers.
    """

    is_quantized_layer = True

    def __init__(
        self,
        source: nn.MultiheadAttention,
        weight_spec: QuantSpec,
        input_spec: QuantSpec,
        specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec],
    ) -> None:
        super().__init__()
        self.heads = source.num_heads
        self.batch_first = source.batch_first
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.detach().chunk(3)
        packed = source.in_proj_weight
        weights = (
            packed.detach().chunk(3)
            if packed is not None
            else (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        )
        projections = [
            quantized_like(_linear(w.detach(), b), weight_spec, input_spec)
            for w, b in zip(weights, biases, strict=True)
        ]
        self.q_proj, self.k_proj, self.v_proj = projections
        self.out_proj: QLinear = quantized_like(source.out_proj, weight_spec, input_spec)
        self.attention = QAttention(specs, dropout=source.dropout)

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
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._heads(x) for x in (self.q_proj(query), self.k_proj(key), self.v_proj(value)))
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
