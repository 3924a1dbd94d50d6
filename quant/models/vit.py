"""Vision transformer ViT-B/16 (Dosovitskiy et al. 2021), parameter names of timm's `vit_base_patch16_224`.

q, k and v come from one fused Linear (`attn.qkv`); the two products of activations are modules (`attn.qk`, `attn.av`)
so that an extractor counts them: 2 * 197 * 197 * 768 MACs in each of the 12 blocks. Softmax, LayerNorm and GELU stay
float. torchvision's `vit_b_16` state dict holds the same tensors under other names; `quant.weights` renames them.
"""

import torch
from torch import Tensor, nn

from quant.models.ops import Add, MatMul


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(d)) v, then a linear projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"vit: width {dim} must divide by the number of heads, got {heads}")
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.qk = MatMul()
        self.softmax = nn.Softmax(dim=-1)
        self.av = MatMul()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = self.softmax(self.qk(q * self.scale, k.transpose(-2, -1)))
        return self.proj(self.av(attention, v).transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.add1 = Add()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))
        self.add2 = Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.add1(self.attn(self.norm1(x)), x)
        return self.add2(self.mlp(self.norm2(x)), x)


class PatchEmbed(nn.Module):
    def __init__(self, in_channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Patches, class token, learned positions, `depth` blocks, norm, linear head on the class token."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"vit: image_size must divide by the patch size {patch}, got {image_size}")
        self.patch_embed = PatchEmbed(in_channels, dim, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image_size // patch) ** 2 + 1, dim))
        self.add_pos = Add()
        self.blocks = nn.Sequential(*[Block(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.blocks(self.add_pos(x, self.pos_embed))
        return self.head(self.norm(x)[:, 0])


def vit_b_16(
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
) -> VisionTransformer:
    return VisionTransformer(num_classes, in_channels, image_size, 16, dim, depth, heads)
