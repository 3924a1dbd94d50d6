"""What several ONNX nodes say together: `simplified(reader) -> nodes`, before they are translated one by one.

- Sub(beta), quantizer, Add(beta): a quantizer with a real-valued offset, which ONNX has no attribute for.
- Pad, quantizer, Conv: a convolution that pads with the code of a number (`pad_code`, `snap_offset`, `pad_beta`).
- QuantizeLinear, Clip, DequantizeLinear: codes of fewer bits than their element type; the same for stored weights.
- Mul(x, Sigmoid(x)): SiLU.
- Movement of codes, DequantizeLinear: the same movement of the numbers (one spelling for both orders).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsim.frontends.lowering.ir import Meta

QUANTIZERS = ("Quant", "QuantizeLinear")
# Operators that move what their first input holds, codes or numbers alike.
MOVEMENT = frozenset(
    ("Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity", "Expand", "DepthToSpace",
     "SpaceToDepth", "MaxPool", "Resize", "Upsample", "Tile", "GatherElements", "GatherND")
)  # fmt: skip


class Reader(Protocol):
    """What is needed of the reader of a graph."""

    onnx: Any
    graph: Any
    metas: dict[str, Meta]
    constants: dict[str, str]
    values: dict[str, NDArray[Any]]


@dataclass
class Patterns:
    """What was found, by the first output of a node: real offsets, narrower codes (bits, signed), padding policies."""

    nodes: list[Any] = field(default_factory=list[Any])
    offsets: dict[str, float] = field(default_factory=dict[str, float])
    narrowed: dict[str, tuple[int, bool]] = field(default_factory=dict[str, tuple[int, bool]])
    policies: dict[str, str] = field(default_factory=dict[str, str])


def find_patterns(read: Reader) -> Patterns:
    """The nodes with each pattern merged into one of them, and what that one stands for now."""
    return Finder(read).find()


class Finder:
    """Looks for the patterns; nodes are copies, the file's own stay as they are."""

    def __init__(self, read: Reader) -> None:
        self.read = read
        self.nodes: list[Any] = []
        for node in read.graph.node:
            twin = type(node)()
            twin.CopyFrom(node)
            self.nodes.append(twin)
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: Counter[str] = Counter(name for node in self.nodes for name in node.input)
        self.outputs = {entry.name for entry in read.graph.output}
        self.readers.update(self.outputs)
        self.found = Patterns()
        self.dropped: set[int] = set()

    def find(self) -> Patterns:
        """All of them."""
        self.numbers_move()
        for node in self.nodes:
            if node.op_type == "Mul":
                self.silu(node)
            elif node.op_type == "DequantizeLinear":
                self.clipped_codes(node)
        for node in self.nodes:
            if node.op_type in QUANTIZERS:
                self.real_offset(node)
                self.padded_input(node)
        self.found.nodes = [node for node in self.nodes if id(node) not in self.dropped]
        return self.found

    # -- helpers -------------------------------------------------------------------------------------------------------

    def readers_of(self, name: str) -> list[Any]:
        """Nodes that read a tensor and are still there."""
        return [node for node in self.nodes if id(node) not in self.dropped and name in node.input]

    def made_by(self, name: str, *kinds: str) -> Any:
        """The node behind a tensor that nobody else reads, if it is of these kinds."""
        node = self.producer.get(name)
        if node is None or node.op_type not in kinds or id(node) in self.dropped or self.readers[name] != 1:
            return None
        return node

    def scalar(self, node: Any, position: int) -> float | None:
        """A constant input of one element."""
        name = node.input[position] if position < len(node.input) else ""
        value = self.read.values.get(name)
        return None if value is None or value.size != 1 else float(value.reshape(-1)[0])

    def drop(self, node: Any) -> None:
        """Leave a node out."""
        self.dropped.add(id(node))
        self.readers.subtract(node.input)

    def redirect(self, node: Any, old: str, new: str) -> None:
        """Let a node read another tensor."""
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        self.readers[old] -= 1
        self.readers[new] += 1

    # -- patterns ------------------------------------------------------------------------------------------------------

    def numbers_move(self) -> None:
        """Put every DequantizeLinear in front of what only moves its codes, as far back as it goes."""
        waiting = [node for node in self.nodes if node.op_type == "DequantizeLinear"]
        while waiting:
            node = waiting.pop()
            if id(node) in self.dropped:
                continue
            mover = self.producer.get(node.input[0])
            if mover is None or not self.moves_codes(mover) or not self.alone_behind(node):
                continue
            self.exchange(mover, node)
            waiting.append(node)

    def moves_codes(self, node: Any) -> bool:
        """Whether a node makes nothing but codes of its first input, which are not numbers yet."""
        source, made = node.input[0], node.output[0]
        if node.op_type not in MOVEMENT or made in self.read.values or source not in self.read.metas:
            return False
        if node.op_type in ("Resize", "Upsample"):
            return all(item.s == b"nearest" for item in node.attribute if item.name == "mode")
        return node.op_type != "MaxPool" or len([name for name in node.output if name]) == 1

    def alone_behind(self, node: Any) -> bool:
        """Whether only this DequantizeLinear reads its codes; equal ones beside it are merged into it."""
        codes = node.input[0]
        readers = self.readers_of(codes)
        if any(reader.op_type != "DequantizeLinear" or reader.input[1:] != node.input[1:] for reader in readers):
            return False
        if self.readers[codes] != len(readers) or codes not in self.producer:
            return False
        for twin in readers:
            if twin is not node and twin.output[0] not in self.outputs:
                for reader in self.readers_of(twin.output[0]):
                    self.redirect(reader, twin.output[0], node.output[0])
                self.drop(twin)
        return self.readers[codes] == 1

    def exchange(self, mover: Any, node: Any) -> None:
        """mover, node -> node, mover; both keep what they read and make together."""
        codes, numbers, source = node.input[0], node.output[0], mover.input[0]
        between = f"{numbers}~numbers"
        node.input[0], node.output[0] = source, between
        mover.input[0], mover.output[0] = between, numbers
        self.read.metas[between] = Meta(self.read.metas[source].shape)
        self.producer.update({between: node, numbers: mover})
        self.producer.pop(codes, None)
        self.readers[between], self.readers[codes] = 1, 0
        self.nodes.remove(node)
        self.nodes.insert(self.nodes.index(mover), node)

    def silu(self, node: Any) -> None:
        """x * Sigmoid(x) becomes Swish(x)."""
        for gate, x in (tuple(node.input), tuple(node.input)[::-1]):
            sigmoid = self.made_by(gate, "Sigmoid")
            if sigmoid is not None and sigmoid.input[0] == x:
                self.drop(sigmoid)
                node.op_type = "Swish"
                del node.input[:]
                node.input.append(x)
                return

    def clipped_codes(self, node: Any) -> None:
        """A Clip of integer codes in front of DequantizeLinear says how many of them there are."""
        clip = self.made_by(node.input[0], "Clip")
        low, high = (None, None) if clip is None else (self.scalar(clip, 1), self.scalar(clip, 2))
        if clip is None or low is None or high is None or high <= low:
            return
        codes = clip.input[0]
        source = self.producer.get(codes)
        of_weight = codes in self.read.constants
        if not of_weight and (source is None or source.op_type != "QuantizeLinear"):
            return
        owner = node.output[0] if of_weight or source is None else source.output[0]
        self.found.narrowed[owner] = (int(high - low).bit_length(), low < 0)
        self.redirect(node, node.input[0], codes)
        self.drop(clip)

    def numbers_of(self, node: Any) -> Any:
        """The node that gives the numbers behind a quantizer's codes: itself, or its only DequantizeLinear."""
        if node.op_type == "Quant":
            return node
        readers = self.readers_of(node.output[0])
        return readers[0] if len(readers) == 1 and readers[0].op_type == "DequantizeLinear" else None

    def real_offset(self, node: Any) -> None:
        """Sub(x, beta), quantizer, Add(., beta): s*code + beta with a real beta."""
        last = self.numbers_of(node)
        before = self.made_by(node.input[0], "Sub")
        if last is None or before is None:
            return
        beta = self.scalar(before, 1)
        behind = self.readers_of(last.output[0])
        if beta is None or len(behind) != 1 or behind[0].op_type != "Add" or last.output[0] != behind[0].input[0]:
            return
        if self.scalar(behind[0], 1) != beta:
            return
        self.found.offsets[node.output[0]] = beta
        self.redirect(node, node.input[0], before.input[0])
        self.drop(before)
        self.drop(behind[0])
        for reader in self.readers_of(behind[0].output[0]):
            self.redirect(reader, behind[0].output[0], last.output[0])

    def padded_input(self, node: Any) -> None:
        """Pad, quantizer, Conv without padding: the convolution pads, with the code of the number."""
        last, pad = self.numbers_of(node), self.made_by(node.input[0], "Pad")
        if last is None or pad is None:
            return
        amounts, number = self.read.values.get(pad.input[1]) if len(pad.input) > 1 else None, self.scalar(pad, 2)
        readers = self.readers_of(last.output[0])
        if amounts is None or not readers or not all(self.takes_padding(reader) for reader in readers):
            return
        mode = next((item.s for item in pad.attribute if item.name == "mode"), b"constant")
        sides = [int(n) for n in amounts.reshape(-1)]
        axes = len(sides) // 2
        if mode != b"constant" or any(sides[i] for i in (0, 1, axes, axes + 1)) or min(sides) < 0:
            return
        policy = self.policy(node, 0.0 if number is None else number)
        if policy is None:
            return
        inside = self.read.metas.get(pad.input[0])
        for reader in readers:
            kept = [item for item in reader.attribute if item.name != "pads"]
            del reader.attribute[:]
            reader.attribute.extend(kept)
            pads = [*sides[2:axes], *sides[axes + 2 :]]
            reader.attribute.append(self.read.onnx.helper.make_attribute("pads", pads))
            self.found.policies[reader.output[0]] = policy
        for name in {*node.output, *last.output}:
            if inside is not None:
                self.read.metas[name] = inside
        self.redirect(node, node.input[0], pad.input[0])
        self.drop(pad)

    def takes_padding(self, node: Any) -> bool:
        """Whether a node is a convolution that pads nothing itself."""
        if node.op_type != "Conv":
            return False
        options = {item.name: item for item in node.attribute}
        explicit = "auto_pad" not in options or options["auto_pad"].s in (b"NOTSET", b"VALID")
        return explicit and not any(options["pads"].ints if "pads" in options else ())

    def policy(self, node: Any, number: float) -> str | None:
        """Which padding policy a border of `number` in front of a quantizer is; None: none of ours."""
        beta = self.found.offsets.get(node.output[0])
        zero, scale = self.scalar(node, 2), self.scalar(node, 1)
        if beta is None and zero is not None and scale is not None:
            beta = -zero * scale
        if beta is not None and number and math.isclose(number, beta, rel_tol=1e-6):
            return "pad_beta"
        if number:
            return None
        whole = node.output[0] not in self.found.offsets and zero is not None and float(np.rint(zero)) == zero
        return "snap_offset" if whole else "pad_code"
