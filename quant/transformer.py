"""torch's transformer layers without their fast path, so that their parts can be seen, swapped and run.

In evaluation torch computes nn.TransformerEncoderLayer with one fused operator that reads the float weights directly:
quantized parts would be passed over. `open_transformers` changes the class of such modules in place to one with the
same parameters and the documented equations. With a padding mask, torch's fast path of nn.TransformerEncoder writes
zeros at padded positions; here they hold values, as in training.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class EncoderLayer(nn.TransformerEncoderLayer):
    """x + attention, x + feed-forward, each with a norm after it or (norm_first) before it."""

    def forward(
        self, src: Tensor, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        if self.norm_first:
            x = src + self._sa_block(self.norm1(src), src_mask, src_key_padding_mask, is_causal=is_causal)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(src + self._sa_block(src, src_mask, src_key_padding_mask, is_causal=is_causal))
        return self.norm2(x + self._ff_block(x))


class DecoderLayer(nn.TransformerDecoderLayer):
    """As `EncoderLayer`, with attention to the encoder's result between the two; torch's own equations."""


class _Stack(nn.Module):
    """Layers one after the other, then a norm."""

    def _through(self: Any, x: Tensor, *memory: Tensor, **masks: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *memory, **masks)
        return x if self.norm is None else self.norm(x)


class Encoder(nn.TransformerEncoder, _Stack):
    """nn.TransformerEncoder."""

    def forward(
        self, src: Tensor, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Tensor:
        return self._through(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask)


class Decoder(nn.TransformerDecoder, _Stack):
    """nn.TransformerDecoder."""

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        return self._through(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
        )  # fmt: skip


class Transformer(nn.Transformer):
    """nn.Transformer."""

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask)
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
        )  # fmt: skip


_OPEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.TransformerEncoderLayer: EncoderLayer,
    nn.TransformerDecoderLayer: DecoderLayer,
    nn.TransformerEncoder: Encoder,
    nn.TransformerDecoder: Decoder,
    nn.Transformer: Transformer,
}


def open_transformers(model: nn.Module) -> None:
    """Change the class of torch's transformer modules in `model` (exact types only) to those without fast path."""
    for module in model.modules():
        opened = _OPEN.get(type(module))
        if opened is not None:
            module.__class__ = opened
