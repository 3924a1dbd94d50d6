"""Attention and rotary embeddings of ONNX, the standard's and onnxruntime's: products by heads, caches, masks.

Keys and values of earlier tokens (a cache) stand in front of the new ones, and both are handed on. A form that this
version does not know keeps its name, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.frontends.files.onnx_contributed import flipped, unknown, weight_codes
from hwsim.frontends.files.onnx_reader import Handler, OnnxReader
from hwsim.frontends.lowering.ir import Arg, Op, Ref


@dataclass(frozen=True)
class Around:
    """What stands around softmax(q k^T) v: masks, earlier keys and values, where all of them are handed on.

    `total`: tokens attended to, where the file states it (a cache may have room for more).
    """

    masks: tuple[Arg, ...] = ()
    past: tuple[str, str] = ("", "")
    present: tuple[str, str] = ("", "")
    total: int | None = None


# -- parts of tensors --------------------------------------------------------------------------------------------------


def named(node: Any, position: int, *, output: bool = False) -> str:
    """An input's or an output's name; empty where it is absent."""
    names = node.output if output else node.input
    return str(names[position]) if position < len(names) else ""


def parts_of(read: OnnxReader, source: str, sizes: Sequence[int], axis: int, words: Sequence[str]) -> list[str]:
    """Parts of a tensor along an axis."""
    shape = read.shape(source)
    axis %= len(shape)
    if sum(sizes) != shape[axis]:
        raise read.refuse(f"{source!r} of shape {shape} is to be cut into {', '.join(map(str, sizes))}")
    names = [read.fresh(f"{source}.{word}", (*shape[:axis], n, *shape[axis + 1 :]))
             for n, word in zip(sizes, words, strict=True)]  # fmt: skip
    arguments: dict[str, Arg] = {"self": Ref(source), "dim": axis}
    read.ops.append(Op("aten.split_with_sizes", arguments, tuple(names), read.layer, read.layer))
    return names


def viewed(read: OnnxReader, source: str, shape: tuple[int, ...], word: str) -> str:
    """The same numbers under another shape."""
    if read.shape(source) == shape:
        return source
    made = read.fresh(f"{source}.{word}", shape)
    read.op("aten.view", made, self=Ref(source))
    return made


def unstacked(read: OnnxReader, source: str, axis: int, words: Sequence[str]) -> list[str]:
    """The entries of a tensor along one axis."""
    shape = read.shape(source)
    found = parts_of(read, source, [1] * len(words), axis, words)
    return [viewed(read, name, (*shape[:axis], *shape[axis + 1 :]), "entry") for name in found]


def joined(read: OnnxReader, parts: Sequence[str], axis: int, word: str) -> str:
    """Tensors one behind the other."""
    shapes = [read.shape(part) for part in parts]
    axis %= len(shapes[0])
    size = sum(shape[axis] for shape in shapes)
    made = read.fresh(f"{parts[-1]}.{word}", (*shapes[0][:axis], size, *shapes[0][axis + 1 :]))
    read.op("aten.cat", made, tensors=tuple(Ref(part) for part in parts), dim=axis)
    return made


def heads_of(read: OnnxReader, source: str, heads: int) -> str:
    """(batch, tokens, heads * size) as (batch, heads, tokens, size)."""
    shape = read.shape(source)
    if len(shape) == 4:
        return source
    batch, tokens, width = shape
    if heads < 1 or width % heads:
        raise read.refuse(f"{width} features for {heads} heads")
    return viewed(read, source, (batch, heads, tokens, width // heads), "heads")


def with_bias(read: OnnxReader, parts: Sequence[str], bias: str) -> list[str]:
    """Parts of a projection plus their parts of one vector."""
    if not bias:
        return list(parts)
    vectors = parts_of(read, bias, [read.shape(part)[-1] for part in parts], -1, ("q", "k", "v"))
    found: list[str] = []
    for part, vector in zip(parts, vectors, strict=True):
        made = read.fresh(f"{part}.biased", read.shape(part))
        read.op("aten.add", made, self=Ref(part), other=Ref(vector))
        found.append(made)
    return found


# -- attention ---------------------------------------------------------------------------------------------------------


def attend(read: OnnxReader, node: Any, names: Sequence[str], heads: int, kv_heads: int, around: Around) -> None:
    """softmax(q k^T) v by heads."""
    query = heads_of(read, names[0], heads)
    flat = len(read.shape(names[0])) == 3
    key, value = (heads_of(read, name, kv_heads) for name in names[1:3])
    caches = [(key, around.past[0], around.present[0]), (value, around.past[1], around.present[1])]
    key, value = (with_past(read, *cache, around.total) for cache in caches)
    batch, _, tokens, _ = read.shape(query)
    size = read.shape(value)[3]
    made = read.fresh(f"{read.layer}.heads", (batch, heads, tokens, size))
    options = read.options(node)
    causal = bool(options.get("is_causal") or options.get("unidirectional") or node.op_type == "GroupQueryAttention")
    read.op(
        "aten.scaled_dot_product_attention", made, query=Ref(query), key=Ref(key), value=Ref(value),
        attn_mask=tuple(mask for mask in around.masks if mask is not None), is_causal=causal,
        softcap=bool(options.get("softcap")),
    )  # fmt: skip
    output = node.output[0]
    read.declare(output, (batch, tokens, heads * size) if flat else (batch, heads, tokens, size))
    read.op("aten.view", output, self=Ref(made))


def with_past(read: OnnxReader, new: str, past: str, present: str, total: int | None) -> str:
    """Keys or values of all tokens, handed on under a name of the file where it has one."""
    found = new
    if past:
        batch, heads, tokens, size = read.shape(new)
        room = read.shape(past)[2]
        seen = room if total is None else total - tokens
        if not 0 <= seen <= room:
            raise read.refuse(f"{total} tokens in all, of which {tokens} are new, for a cache of {room}")
        if seen < room:
            cut = read.fresh(f"{past}.seen", (batch, heads, seen, size))
            read.op("aten.slice", cut, self=Ref(past), dim=2, start=0)
            past = cut
        found = joined(read, [past, new], 2, "all") if seen else new
    if present:
        read.declare(present, read.shape(found))
        read.op("aten.view", present, self=Ref(found))
    return found


def attention(read: OnnxReader, node: Any) -> None:
    """Attention of the standard (opset 23): four-dimensional operands, or three-dimensional ones with their heads."""
    options = read.options(node)
    if node.domain not in ("", "ai.onnx"):
        packed_attention(read, node)
        return
    odd = [name for name in [*node.output[3:], *node.input[6:]] if name]
    if odd or (len(read.shape(node.input[0])) == 3 and "q_num_heads" not in options):
        unknown(read, node)
        return
    heads = int(options.get("q_num_heads", read.shape(node.input[0])[1]))
    pairs = int(options.get("kv_num_heads", read.shape(node.input[1])[1]))
    past = (named(node, 4), named(node, 5))
    present = (named(node, 1, output=True), named(node, 2, output=True))
    attend(read, node, node.input[:3], heads, pairs, Around((read.ref(node, 3),), past, present))


def packed_attention(read: OnnxReader, node: Any) -> None:
    """com.microsoft.Attention and QAttention: input times the weights of queries, keys and values, bias, attention."""
    options, quantized = read.options(node), node.op_type == "QAttention"
    mask, past = (5, 8) if quantized else (3, 4)
    bias = -1 if quantized else 5
    if (not quantized and read.has(node, 6)) or options.get("do_rotary"):
        unknown(read, node)
        return
    heads = int(options["num_heads"])
    batch, tokens, _ = read.shape(node.input[0])
    width = read.shape(node.input[1])[1]
    sizes = [int(n) for n in options.get("qkv_hidden_sizes", ())] or [width // 3] * 3
    x, weight = node.input[0], node.input[1]
    if quantized:
        x, weight = weight_codes(read, node, 0, 3, 6), weight_codes(read, node, 1, 4, 7)
    made = read.fresh(f"{read.layer}.qkv", (batch, tokens, width))
    read.op("aten.linear", made, input=Ref(x), weight=Ref(flipped(read, weight)), bias=read.ref(node, 2))
    parts = parts_of(read, made, sizes, 2, ("q", "k", "v"))
    earlier, later = ("", ""), named(node, 1, output=True)
    if read.has(node, past):
        keys, values = unstacked(read, named(node, past), 0, ("keys", "values"))
        earlier = (keys, values)
    kept = (f"{later}.keys", f"{later}.values") if later else ("", "")
    masks = (read.ref(node, mask), read.ref(node, bias) if bias > 0 else None)
    attend(read, node, parts, heads, heads, Around(masks, earlier, kept))
    if later:
        shape = read.shape(kept[0])
        read.declare(later, (2, *shape))
        read.op("aten.stack", later, tensors=tuple(Ref(name) for name in kept), dim=0)


def separate_attention(read: OnnxReader, node: Any) -> None:
    """MultiHeadAttention: queries, keys and values, or two or three of them in one tensor of five dimensions."""
    heads = int(read.options(node)["num_heads"])
    names = [named(node, i) for i in range(3)]
    if any(named(node, i) for i in range(8, len(node.input))) or named(node, 3, output=True):
        unknown(read, node)
        return
    rank = len(read.shape(names[0]))
    if rank == 5:
        names = by_tokens(read, unstacked(read, names[0], 3, ("q", "k", "v")))
    elif names[1] and len(read.shape(names[1])) == 5:
        names = [names[0], *by_tokens(read, unstacked(read, names[1], 3, ("k", "v")))]
    elif not names[1] or not names[2]:
        unknown(read, node)
        return
    if all(len(read.shape(name)) == 3 for name in names):
        names = with_bias(read, names, named(node, 3))
    elif named(node, 3):
        unknown(read, node)
        return
    masks = (read.ref(node, 4), read.ref(node, 5))
    past, present = (named(node, 6), named(node, 7)), (named(node, 1, output=True), named(node, 2, output=True))
    attend(read, node, names, heads, heads, Around(masks, past, present))


def by_tokens(read: OnnxReader, parts: Sequence[str]) -> list[str]:
    """(batch, tokens, heads, size) as (batch, tokens, features)."""
    shapes = [read.shape(part) for part in parts]
    return [viewed(read, p, (*s[:2], s[2] * s[3]), "flat") for p, s in zip(parts, shapes, strict=True)]


def grouped_attention(read: OnnxReader, node: Any) -> None:
    """GroupQueryAttention: fewer heads of keys than of queries, rotated by their positions if the file asks for it."""
    options = read.options(node)
    heads, pairs = int(options["num_heads"]), int(options["kv_num_heads"])
    if any(named(node, i) for i in range(11, len(node.input))) or named(node, 3, output=True):
        unknown(read, node)
        return
    names = [named(node, i) for i in range(3)]
    if not names[1]:
        size = read.shape(names[0])[2] // (heads + 2 * pairs)
        names = parts_of(read, names[0], [heads * size, pairs * size, pairs * size], 2, ("q", "k", "v"))
    split = [heads_of(read, name, number) for name, number in zip(names, (heads, pairs, pairs), strict=True)]
    if options.get("do_rotary"):
        rows = [cache_rows(read, named(node, i), named(node, 9), read.shape(split[0])[2]) for i in (7, 8)]
        split[:2] = [rotated(read, name, rows[0], rows[1]) for name in split[:2]]
    given = read.number(node, 6)
    total = None if given is None else int(given.reshape(-1)[0])
    past, present = (named(node, 3), named(node, 4)), (named(node, 1, output=True), named(node, 2, output=True))
    output, shape = node.output[0], read.shape(split[0])
    read.declare(output, (shape[0], shape[2], heads * shape[3]))
    attend(read, node, split, heads, pairs, Around((read.ref(node, 10),), past, present, total))


# -- rotary embeddings -------------------------------------------------------------------------------------------------


def cache_rows(read: OnnxReader, cache: str, positions: str, tokens: int) -> str:
    """The rows of a table of cosines or sines for these positions, or for the first tokens."""
    width = read.shape(cache)[-1]
    if positions:
        found = read.fresh(f"{cache}.rows", (*read.shape(positions), width))
        read.op("aten.embedding", found, weight=Ref(cache), indices=Ref(positions))
    else:
        found = read.fresh(f"{cache}.rows", (tokens, width))
        read.op("aten.slice", found, self=Ref(cache))
    return found


def rotated(read: OnnxReader, source: str, cosines: str, sines: str) -> str:
    """(x1 cos - x2 sin, x1 sin + x2 cos) of the first features of each head; further ones stay as they are."""
    shape = read.shape(source)
    half = read.shape(cosines)[-1]
    rest = shape[-1] - 2 * half
    sizes, words = ([half, half, rest], ("x1", "x2", "rest")) if rest else ([half, half], ("x1", "x2"))
    first, second, *others = parts_of(read, source, sizes, -1, words)

    def combined(name: str, one: str, other: str) -> str:
        products: list[str] = []
        for x, factor in ((first, one), (second, other)):
            products.append(read.fresh(f"{source}.{name}", read.shape(first)))
            read.op("aten.mul", products[-1], self=Ref(x), other=Ref(factor))
        made = read.fresh(f"{source}.{name}", read.shape(first))
        read.op(f"aten.{name}", made, self=Ref(products[0]), other=Ref(products[1]))
        return made

    parts = [combined("sub", cosines, sines), combined("add", sines, cosines), *others]
    return joined(read, parts, -1, "rotated")


def rotary(read: OnnxReader, node: Any) -> None:
    """RotaryEmbedding: x, cosines, sines, positions in the standard; x, positions, cosines, sines in onnxruntime."""
    contributed = node.domain not in ("", "ai.onnx")
    at, cosines, sines = (1, 2, 3) if contributed else (3, 1, 2)
    options, shape = read.options(node), read.shape(node.input[0])
    heads = int(options.get("num_heads", 0))
    if len(shape) == 3 and not heads:
        heads = shape[2] // (2 * read.shape(node.input[cosines])[-1])
    source = heads_of(read, node.input[0], heads)
    tables = [named(node, i) for i in (cosines, sines)]
    if read.has(node, at):
        positions = named(node, at)
        tables = [cache_rows(read, name, positions, read.shape(source)[2]) for name in tables]
    made = rotated(read, source, *tables)
    read.declare(node.output[0], shape)
    read.op("aten.view", node.output[0], self=Ref(made))


ATTENTION: dict[str, Handler] = {
    "Attention": attention,
    "QAttention": packed_attention,
    "MultiHeadAttention": separate_attention,
    "GroupQueryAttention": grouped_attention,
    "RotaryEmbedding": rotary,
}
