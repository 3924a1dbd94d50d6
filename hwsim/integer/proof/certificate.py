# pyright: basic
"""What is proven, layer by layer: offset class, price of each padding policy, and codes equal or how many differ.

`certify(model, images, ...)` runs the float64 network and the integer one on the same images. A layer's own
differences are counted with the reference's codes at its input, so that no layer answers for another; end to end both
networks run freely. `naive` is the constant bias of Eq. 5 with code 0 in the padding, beside what was trained.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.files.identity import content_hash
from hwsim.integer import graph
from hwsim.integer.arithmetic import kernels
from hwsim.integer.arithmetic.geometry import border_share
from hwsim.integer.arithmetic.requantize import channel_steps, narrowest_multiplier
from hwsim.integer.arithmetic.rules import line_of, pulled_steps
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.lowering.lower import in_order, lower
from hwsim.integer.proof.as_layers import bits_of, elements_of, product_layer, workload_layer
from hwsim.integer.proof.compare import readers, reference, reference_codes, unframed
from hwsim.integer.run import Machine, Mode
from hwsim.machine.parts import Capabilities
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.offsets import OffsetCost, offset_cost

POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
# A machine without limits: what the class is when hardware can do everything.
UNLIMITED = Capabilities(
    weight_bits=(8,), activation_bits=(8,), output_bits=(8,), pad_value="any_code", border_bias=True
)


@dataclass(frozen=True)
class Codes:
    """Codes of one tensor against the reference. `own`: with the reference's codes at the layer's input."""

    elements: int = 0
    own_differing: int = 0
    end_to_end_differing: int = 0

    @property
    def equal(self) -> bool:
        """Whether every code is the reference's, on its own and end to end."""
        return self.own_differing == 0 and self.end_to_end_differing == 0


@dataclass(frozen=True)
class Naive:
    """The constant bias where the border needs more: codes off, and the error beside the output's RMS, as fractions."""

    border_differing: int = 0
    border_elements: int = 0
    inside_differing: int = 0
    inside_elements: int = 0
    border_relative_rms: float = 0.0


@dataclass(frozen=True)
class LayerCertificate:
    """One layer: what its offset needs here, under each policy, and what was measured."""

    name: str
    op: str
    weight_bits: int
    input_bits: int
    policy: str
    offset: OffsetCost
    policies: Mapping[str, OffsetCost]
    accumulator_bits: int
    border_classes: int
    border_share: float
    multiplier_bits: int | None
    codes: Codes
    naive: Naive | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **{k: v for k, v in dataclasses.asdict(self).items() if k not in ("offset", "policies")},
            "offset": self.offset.to_dict(),
            "policies": {k: v.to_dict() for k, v in self.policies.items()},
            "equal": self.codes.equal,
        }


@dataclass(frozen=True)
class Certificate:
    """A network: its layers, its quantizers, its accuracies in percent, shares of zero codes by layer."""

    model: str
    images: int
    layers: tuple[LayerCertificate, ...]
    accuracies: Mapping[str, float]
    zero_shares: Mapping[str, float]
    float_operators: tuple[str, ...]
    tally: Mapping[str, int]
    weight_bits: int
    machine: str = ""
    assumptions: tuple[str, ...] = ()
    identity: str = ""  # of the checkpoint, where the network came from one
    integer_methods: tuple[str, ...] = ()  # of softmax and norms, where they do not stay float

    @property
    def equal(self) -> bool:
        """Whether every code of every layer is the reference's."""
        return all(layer.codes.equal for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, sealed by the hash of its content."""
        data = self.content()
        return {**data, "seal": content_hash(data)}

    def content(self) -> dict[str, Any]:
        """Everything but the seal."""
        return {
            "model": self.model,
            **({"identity": self.identity} if self.identity else {}),
            "machine": self.machine,
            "images": self.images,
            "equal": self.equal,
            "accuracies_percent": dict(self.accuracies),
            "layers": [layer.to_dict() for layer in self.layers],
            "zero_shares": dict(self.zero_shares),
            "float_operators": list(self.float_operators),
            **({"integer_methods": list(self.integer_methods)} if self.integer_methods else {}),
            "tally": dict(self.tally),
            "weight_bits": self.weight_bits,
            "assumptions": list(self.assumptions),
        }


ASSUMPTIONS = (
    "reference: the same network in float64, with the codes of every quantizer call",
    "exact: round half to even of the real number behind the float parameters, decided with rationals",
    "the image is quantized in float64 at the entrance; everything behind it is integer arithmetic",
    "means of values without a quantizer are fixed point; what lies within their error of a threshold is undecided",
)
NONLINEAR = {
    "float": (),
    "proven": ("softmax and norms by integers; what lies within their proven error of a threshold is undecided",),
    "i-bert": (
        "softmax and norms by integers as in I-BERT (arXiv 2101.01321): no error is claimed, codes are compared",
    ),
}


@dataclass
class _Measured:
    """Running counts of one quantizer."""

    elements: int = 0
    own: int = 0
    free: int = 0
    zeros: int = 0
    naive: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    squares: list[float] = field(default_factory=lambda: [0.0, 0.0])


def certify(
    model: nn.Module,
    images: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    name: str = "",
    capabilities: Capabilities = UNLIMITED,
    machine: str = "a machine that can pad with any code and add border biases",
    batch_size: int = 32,
    naive: bool = True,
    nonlinear: str = "float",
) -> Certificate:
    """The certificate of a quantized network on these images (real numbers, as the network takes them).

    A network of several inputs takes a tuple of them, or a dictionary by the names of its arguments. `nonlinear`: the
    integer method of softmax and norms (`lower`).
    """
    given = in_order(model, images)
    lowered = lower(model, given, name=name, nonlinear=nonlinear)
    exact = Machine(lowered)
    constant = Machine(lowered, Mode(padding="naive")) if naive and needs_border(lowered) else None
    twin = reference(model)
    measured: dict[str, _Measured] = {q: _Measured() for q in lowered.quantizers}
    tally: Counter[str] = Counter()
    nodes = set(lowered.quantizers.values())
    for batch in zip(*(part.split(batch_size) for part in given), strict=True):
        _, expected = reference_codes(twin, batch)
        forced = {n: unframed(lowered, lowered.node(n), expected[q]) for q, n in lowered.quantizers.items()}
        free = exact.run(batch, keep=nodes)
        own = exact.run(batch, keep=nodes, force=forced)
        wrong = constant.run(batch, keep=nodes, force=forced) if constant is not None else None
        tally.update(free.tally)
        for q, n in lowered.quantizers.items():
            _count(measured[q], lowered, lowered.node(n), forced[n], free.codes[n], own.codes[n],
                   None if wrong is None else wrong.codes[n])  # fmt: skip
    layers = tuple(_layers(lowered, measured, capabilities))
    shares = {
        layer: measured[q].zeros / max(1, measured[q].elements)
        for q, n in lowered.quantizers.items()
        for layer in (reader.layer for reader in readers(lowered, lowered.node(n)))
    }
    return Certificate(
        lowered.name, len(given[0]), layers, {}, shares, lowered.float_operators, dict(tally), lowered.weight_bits,
        machine, (*ASSUMPTIONS, *NONLINEAR[nonlinear]), integer_methods=lowered.integer_methods,
    )  # fmt: skip


def needs_border(model: IntegerModel) -> bool:
    """Whether the naive constant bias would be another network."""
    return any(n.padding.policy != "none" and n.padding.policy != "pad_beta" for n in model.convolutions)


def _count(
    m: _Measured, model: IntegerModel, node: Node, expected: Tensor, free: Tensor, own: Tensor, naive: Tensor | None
) -> None:
    m.elements += expected.numel()
    m.zeros += int((expected == 0).sum())
    m.free += int((free != expected).sum())
    m.own += int((own != expected).sum())
    source = source_convolution(model, node)
    if naive is None or source is None or source.window is None or naive.ndim != 4:
        return
    inside = inside_mask(source, model)
    off = (naive.to(torch.int32) - expected.to(torch.int32)).double()
    wrong = off != 0
    assert node.code is not None
    real = float(node.code.s) * expected.double() + float(node.code.beta)
    m.naive[0] += int(wrong[..., ~inside].sum())
    m.naive[1] += int((~inside).sum()) * off.shape[0] * off.shape[1]
    m.naive[2] += int(wrong[..., inside].sum())
    m.naive[3] += int(inside.sum()) * off.shape[0] * off.shape[1]
    m.squares[0] += float((off[..., ~inside] * float(node.code.s)).square().sum())
    m.squares[1] += float(real[..., ~inside].square().sum())


def source_convolution(model: IntegerModel, node: Node) -> graph.Convolve | None:
    """The convolution whose accumulators a quantizer reads, if it is the only one and maps have its size."""
    if not isinstance(node, graph.Requantize):
        return None
    found = [model.node(s) for s in node.form.sources]
    found = [n for n in found if isinstance(n, graph.Convolve)]
    return found[0] if len(found) == 1 and found[0].shape[2:] == node.shape[2:] else None


def inside_mask(node: graph.Convolve, model: IntegerModel) -> Tensor:
    """Output positions at which every tap meets data: (P, Q)."""
    assert node.window is not None
    rows, columns = node.window.runs(*model.node(node.x).shape[2:])
    full = [
        torch.cat([torch.full((r.stop - r.start,), (r.first, r.last) == (0, k)) for r in runs])
        for runs, k in ((rows, node.window.kernel[0]), (columns, node.window.kernel[1]))
    ]
    return full[0][:, None] & full[1][None, :]


def _layers(
    model: IntegerModel, measured: Mapping[str, _Measured], capabilities: Capabilities
) -> Iterable[LayerCertificate]:
    """Convolutions, linear layers and matrix products with the quantizers that read them; then all other quantizers.

    A quantizer is seen through moves and maxima, in front of which it was pushed: no code is left out.
    """
    by_name = {node.name: node for node in model.nodes}
    made = {q: makers(by_name, n) for q, n in model.quantizers.items()}
    read: dict[str, set[str]] = {}
    for q, names in made.items():
        sources = [s for name in names if isinstance(n := by_name[name], graph.Requantize) for s in n.form.sources]
        read[q] = {root for source in sources for root in makers(by_name, source)}
    seen: set[str] = set()
    for node in model.nodes:
        if isinstance(node, (graph.Convolve, graph.MatMul)):
            behind = [q for q in made if node.name in read[q]]
            seen.update(behind)
            if isinstance(node, graph.Convolve) and not node.stands_for_layer:
                continue
            row = _matrix_layer if isinstance(node, graph.Convolve) else _product_layer
            yield row(model, node, [measured[q] for q in behind], capabilities)  # type: ignore[arg-type]
            continue
        for q in (q for q, names in made.items() if names[0] == node.name and q not in seen):
            seen.add(q)
            if isinstance(node, graph.Requantize):
                yield _elementwise_layer(model, node, q, measured[q])
            else:
                yield _known_codes(node, q, measured[q])
    assert seen == set(made), f"quantizers without a row: {sorted(set(made) - seen)}"


def makers(nodes: Mapping[str, Node], name: str) -> list[str]:
    """The nodes whose integers a node holds: itself, or what moves and maxima read, all the way."""
    node = nodes[name]
    if not isinstance(node, (graph.Move, graph.MaxPool)):
        return [name]
    return list(dict.fromkeys(maker for x in node.inputs for maker in makers(nodes, x)))


def _known_codes(node: Node, name: str, m: _Measured) -> LayerCertificate:
    """The entrance of the network, codes of a float operator's result, or constants."""
    op, why = ("constant", "codes known beforehand") if isinstance(node, graph.Constant) else (
        "encode", "the entrance: real numbers to codes")  # fmt: skip
    return LayerCertificate(
        name, op, 0, bits_of(node), "none", OffsetCost(why=why), {}, 0, 0, 0.0, None,
        Codes(m.elements, m.own, m.free), None,
    )  # fmt: skip


def _product_layer(
    model: IntegerModel, node: graph.MatMul, behind: list[_Measured], capabilities: Capabilities
) -> LayerCertificate:
    layer = product_layer(model, node)
    assert layer.weight is not None
    return LayerCertificate(
        node.layer, layer.op, layer.weight.bits, layer.inputs[0].bits, "none", offset_cost(layer, capabilities), {},
        layer.accumulator_bits_needed(), 0, 0.0, None, _codes(behind), None,
    )  # fmt: skip


def _codes(behind: Sequence[_Measured]) -> Codes:
    return Codes(sum(m.elements for m in behind), sum(m.own for m in behind), sum(m.free for m in behind))


def _matrix_layer(
    model: IntegerModel, node: graph.Convolve, behind: list[_Measured], capabilities: Capabilities
) -> LayerCertificate:
    layer = workload_layer(model, node)
    runs = None if node.window is None else node.window.runs(*model.node(node.x).shape[2:])
    classes, share = 1, 0.0
    if runs is not None and node.window is not None:
        share = border_share(*runs, node.window.kernel)
        classes = len(runs[0]) * len(runs[1])
    policies = {
        p: offset_cost(dataclasses.replace(layer, padding_policy=p), capabilities)
        for p in (POLICIES if any(layer.padding) and layer.inputs[0].offset else ())
    }
    naive = None
    border = sum(m.naive[1] for m in behind)
    if border:
        squares = [sum(m.squares[i] for m in behind) for i in (0, 1)]
        naive = Naive(
            sum(m.naive[0] for m in behind), border, sum(m.naive[2] for m in behind), sum(m.naive[3] for m in behind),
            (squares[0] / squares[1]) ** 0.5 if squares[1] else 0.0,
        )  # fmt: skip
    return LayerCertificate(
        node.layer, layer.op, layer.weight.bits if layer.weight else 0, layer.inputs[0].bits, node.padding.policy,
        offset_cost(layer, capabilities), policies, layer.accumulator_bits_needed(), classes, share,
        exact_multiplier_bits(model, node), _codes(behind), naive,
    )  # fmt: skip


def exact_multiplier_bits(model: IntegerModel, node: graph.Convolve) -> int | None:
    """Fewest bits of M with which (a*M + N) >> F is exact on all this accumulator can hold; None: not such a form."""
    widths = []
    for n in model.nodes:
        if not isinstance(n, graph.Requantize) or n.form.sources != (node.name,) or n.form.border is not None:
            continue
        assert n.code is not None
        line = line_of(n.form, n.code, n.form.intercepts)
        if line is None:
            return None
        rows = n.form.rows
        low = [node.range.low[k] if rows > 1 else node.range.least for k in range(rows)]
        high = [node.range.high[k] if rows > 1 else node.range.largest for k in range(rows)]
        slopes = [n.form.terms[0].slopes[k if len(n.form.terms[0].slopes) > 1 else 0] for k in range(rows)]
        intercepts = [n.form.intercepts[k if len(n.form.intercepts) > 1 else 0] for k in range(rows)]
        width = narrowest_multiplier(line, channel_steps(slopes, intercepts, pulled_steps(n.form, n.code), low, high))
        if width is None:
            return None
        widths.append(width)
    return max(widths, default=None)


def _elementwise_layer(model: IntegerModel, node: graph.Requantize, name: str, m: _Measured) -> LayerCertificate:
    sources = [model.node(s) for s in node.form.sources]
    double = any(len(t.nodes) == 2 for t in node.form.terms)
    offsets = [s for s in sources if s.code is not None and s.code.beta != 0]
    op = "mul" if double else "add" if len(sources) > 1 else "requantize"
    offset = OffsetCost(why="no operand has an offset")
    if double and offsets:
        adds = len(offsets) * elements_of(node)
        offset = OffsetCost("dynamic", 0, adds, why="product of two activations: offsets are added first")
    elif offsets:
        offset = OffsetCost(
            "folded", 0, elements_of(node), why="one constant per element when inputs change their grid"
        )
    return LayerCertificate(
        name, op, 0, max((bits_of(s) for s in sources if s.code is not None), default=32), "none", offset, {},
        max(kernels.bits_for(s.range.least, s.range.largest) for s in sources), 0, 0.0, None,
        Codes(m.elements, m.own, m.free), None,
    )  # fmt: skip


def offset_classes(model: IntegerModel, capabilities: Capabilities = UNLIMITED) -> dict[str, OffsetCost]:
    """What the offset of each convolution, linear layer and matrix product needs, by layer: no image is run.

    The rule is the cost model's own (`hwsim.pricing.offsets`), its facts are those of the integer network.
    """
    found: dict[str, OffsetCost] = {}
    for n in model.nodes:
        if isinstance(n, graph.MatMul) or (isinstance(n, graph.Convolve) and n.stands_for_layer):
            layer = workload_layer(model, n) if isinstance(n, graph.Convolve) else product_layer(model, n)
            found[n.layer] = offset_cost(layer, capabilities)
    return found


def annotate(workload: Workload, model: IntegerModel) -> Workload:
    """The workload with what the integer network proves, for layers of equal name: accumulator bits, real offsets.

    An offset that training left at exactly 0 costs nothing: such tensors lose their offset here.
    """
    known = {n.layer: n for n in model.convolutions if n.stands_for_layer}
    codes = {layer.inputs[0].name: model.node(known[layer.name].x).code for layer in workload if layer.name in known}
    without = {name for name, code in codes.items() if code is not None and code.beta == 0}
    sums = known | {n.layer: n for n in model.nodes if isinstance(n, graph.MatMul)}

    def proven(layer: Layer) -> Layer:
        node = sums.get(layer.name)
        if node is None:
            return layer
        parts = model.shares(node) if isinstance(node, graph.Convolve) else (node,)
        bits = max(kernels.bits_for(n.range.least, n.range.largest) for n in parts)
        return dataclasses.replace(layer, accumulator_bits=bits)

    found = Workload(workload.name, map(proven, workload.layers), workload.coverage, workload.notes)
    return found.map_tensors(lambda t: dataclasses.replace(t, offset=False) if t.name in without else t)
