"""The language model of the study: a decoder with learned positions, LayerNorm before each part, and a SiLU in its MLP.

SiLU's outputs have a small negative part, for which LSQ+ has its offset. q, k and v come from one linear layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.models.ops import Add


class Attention(nn.Module):
    """Causal self-attention: softmax(q k^T / sqrt(d)) v, then a linear projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """down(silu(up(x)))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = nn.SiLU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, hidden)
        self.add1, self.add2 = Add(), Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.add1(self.attn(self.norm1(x)), x)
        return self.add2(self.mlp(self.norm2(x)), x)


class LanguageModel(nn.Module):
    """Tokens (N, length) -> logits (N, length, vocabulary) of the token that follows each."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(1, length, width))
        self.add = Add()
        self.blocks = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.add(self.embedding(tokens), self.positions[:, : tokens.shape[1]])
        return self.head(self.norm(self.blocks(x)))


def language_model() -> LanguageModel:
    """The network of the study: 32 tokens, texts of 32, width 64, 2 blocks."""
    return LanguageModel(vocabulary=32, length=32, width=64, depth=2, heads=4, hidden=128)
