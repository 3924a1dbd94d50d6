"""Where a quantized network rounds, and which codes each array is stored in: what `quant.quantize` trains.

Every input of a convolution, a linear layer and a product of activations has a quantizer of its own, so has every input
of an addition, a product and a concatenation; nothing else rounds. An array is stored in the codes of the quantizer it
is read through; of several, in the widest, and each other form costs a `requantize` layer. Values that pass no
quantizer stay at 32 bits. The extraction of a trained network says the same (tests hold the two together).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hwsim.network.layer import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor
from hwsim.network.workload import Workload

MATRIX = ("conv", "linear")
ELEMENTWISE = ("add", "sub", "mul", "concat")
MOVES = frozenset(("max_pool", "pad", "copy", "concat"))  # rounding before or after them is the same
BEFORE_ROUNDING = ACTIVATION_FUNCTIONS | {"avg_pool", "reduce_mean"}
WEIGHT = -1  # position of a layer's second operand among what it reads
Place = tuple[str, int]  # a layer, and the position of one of its inputs


@dataclass(frozen=True)
class Form:
    """The codes that one quantizer makes; `name` as in a trained network."""

    name: str
    bits: int
    signed: bool
    offset: bool

    def same_codes(self, other: Form) -> bool:
        """Equal in everything that the codes' storage shows."""
        return (self.bits, self.signed, self.offset) == (other.bits, other.signed, other.offset)


@dataclass(frozen=True)
class Rule:
    """What WxAy means. `first_last` 8bit: at least 8 bits there (LSQ). `elementwise_bits` None: as the activations."""

    weight: int
    activation: int
    first_last: str = "8bit"
    elementwise_bits: int | None = 8


def reads(layer: Layer) -> Iterator[tuple[int, Tensor]]:
    """(position, tensor) of every activation that flows into a layer."""
    yield from ((i, tensor) for i, tensor in enumerate(layer.inputs) if tensor.origin != "index")
    if layer.weight is not None and layer.weight_is_activation:
        yield WEIGHT, layer.weight


def has_weight(layer: Layer) -> bool:
    """Whether a layer multiplies by weights of its own."""
    return layer.op in MATRIX and layer.weight is not None and not layer.weight_is_activation


def ends(workload: Workload) -> frozenset[str]:
    """The first and the last layer with weights."""
    names = [layer.name for layer in workload if has_weight(layer)]
    return frozenset((*names[:1], *names[-1:]))


def combines(layer: Layer) -> bool:
    """Whether a layer adds, multiplies or joins several tensors."""
    parameters = layer.weight is not None and not layer.weight_is_activation
    return layer.op in ELEMENTWISE and len(layer.inputs) + parameters > 1


def quantizers(
    workload: Workload, rule: Rule, codes: Callable[[Tensor], tuple[bool, bool]]
) -> tuple[dict[Place, Form], dict[str, int]]:
    """Every place that rounds with its form, and the width of every weight; `codes` gives (signed, offset)."""
    forms: dict[Place, Form] = {}
    weights: dict[str, int] = {}
    wide = ends(workload) if rule.first_last == "8bit" else frozenset[str]()
    between = rule.activation if rule.elementwise_bits is None else rule.elementwise_bits
    gated = self_gated(workload)
    for layer in workload:
        module = layer.name.partition("#")[0]
        at_end = layer.name in wide
        parameter = layer.weight.name if layer.weight is not None and not layer.weight_is_activation else ""
        several = True
        if has_weight(layer):
            width, several = max(8, rule.activation) if at_end else rule.activation, False
            weights[parameter] = max(8, rule.weight) if at_end else rule.weight
        elif layer.op == "embedding" and parameter:
            weights[parameter] = rule.weight
            continue
        elif layer.op == "matmul":
            width = rule.activation
        elif combines(layer) and layer.name not in gated:
            if layer.op == "concat" and all(codes(tensor) == (True, False) for tensor in layer.inputs):
                continue  # moves values that have no activation yet: what reads them rounds them
            width = between
            if parameter:
                weights[parameter] = between
        else:
            continue
        for position, tensor in reads(layer):
            number = len(layer.inputs) if position == WEIGHT else position
            name = f"{module}.input_quantizers.{number}" if several else f"{module}.input_quantizer"
            forms[layer.name, position] = Form(name, width, *codes(tensor))
    return forms, weights


def self_gated(workload: Workload) -> frozenset[str]:
    """Products that are an activation function written out, like x * sigmoid(x)."""
    made_by = {layer.output.name: layer for layer in workload}
    found: set[str] = set()
    for layer in workload:
        if layer.op == "mul" and len(layer.inputs) == 2:
            first, second = (tensor.name for tensor in layer.inputs)
            for gate, value in ((first, second), (second, first)):
                at = gate
                for _ in range(4):
                    maker = made_by.get(at)
                    if maker is None or maker.op not in (*ACTIVATION_FUNCTIONS, "add", "mul", "div"):
                        break
                    sources = {tensor.name for tensor in maker.inputs}
                    if len(sources) != 1:
                        break
                    at = sources.pop()
                    if at == value:
                        found.add(layer.name)
                        break
    return frozenset(found)


def without_requantizations(workload: Workload) -> list[Layer]:
    """The layers with what they read before any other form of it was made."""
    sources: dict[str, Tensor] = {}
    layers: list[Layer] = []

    def source(tensor: Tensor) -> Tensor:
        while tensor.name in sources:
            tensor = dataclasses.replace(sources[tensor.name], shape=tensor.shape)
        return tensor

    for layer in workload:
        if layer.op == "requantize":
            sources[layer.output.name] = layer.inputs[0]
            continue
        changed = dataclasses.replace(layer, inputs=tuple(source(tensor) for tensor in layer.inputs))
        if layer.weight is not None and layer.weight_is_activation:
            changed = dataclasses.replace(changed, weight=source(layer.weight))
        layers.append(changed)
    return layers


@dataclass
class Readers:
    """Who reads an array: places that need one form of it (None: unrounded), and those that take what there is."""

    forms: list[tuple[Form | None, int]] = field(default_factory=list[tuple[Form | None, int]])
    flexible: list[tuple[Layer, int]] = field(default_factory=list[tuple[Layer, int]])

    def apart(self, elements: int) -> bool:
        """Whether all read parts that do not overlap: together they are no more than the array."""
        return len(self.forms) > 1 and sum(size for _, size in self.forms) <= elements


class Storage:
    """Decides what each array is stored in, last reader first, and writes the layers accordingly."""

    def __init__(
        self, layers: Iterable[Layer], forms: Mapping[Place, Form], kept: Mapping[str, Form] | None = None
    ) -> None:
        self.layers = list(layers)
        self.kept = dict(kept or {})  # codes of arrays that no quantizer decides
        self.forms: dict[Place, Form] = dict(forms)
        self.readers: defaultdict[str, Readers] = defaultdict(Readers)
        self.own: defaultdict[str, set[str]] = defaultdict(set)  # quantizers applied to each array
        self.stored: dict[str, Form] = {}
        self.parted: set[str] = set()
        seen = [tensor for layer in self.layers for _, tensor in reads(layer)]
        self.tensors = {tensor.name: tensor for tensor in (*seen, *(layer.output for layer in self.layers))}
        for layer in self.layers:
            for position, tensor in reads(layer):
                if (layer.name, position) in self.forms:
                    self.own[tensor.name].add(self.forms[layer.name, position].name)
        self.decide()

    def decide(self) -> None:
        """Fill in `stored`; readers without a quantizer are given their form."""
        for layer in reversed(self.layers):
            self.settle(layer.output.name)
            out = self.stored.get(layer.output.name)
            pushed = out if layer.op in MOVES and out and out.name in self.own[layer.output.name] else None
            for position, tensor in reads(layer):
                form = self.forms.get((layer.name, position))
                if form is None and pushed is not None:
                    form = self.forms[layer.name, position] = pushed
                    self.own[tensor.name].add(pushed.name)
                takes_any = layer.op in BEFORE_ROUNDING or (layer.op in MOVES and out is not None)
                if form is None and takes_any:
                    self.readers[tensor.name].flexible.append((layer, position))
                else:
                    self.readers[tensor.name].forms.append((form, tensor.elements))
        made = {layer.output.name for layer in self.layers}
        for name in self.tensors:
            if name not in made:
                self.settle(name)

    def settle(self, name: str) -> None:
        """Decide an array's codes."""
        readers = self.readers[name]
        forms = [form for form, _ in readers.forms]
        known = [form for form in forms if form is not None]
        made = [self.stored.get(layer.output.name) for layer, _ in readers.flexible]
        if known and len(known) == len(forms):
            stored = self.stored[name] = widest(known)
            if readers.apart(self.tensors[name].elements) and all(stored.same_codes(form) for form in known):
                self.parted.add(name)
            for layer, position in readers.flexible:
                self.forms[layer.name, position] = stored
        elif not forms and made and None not in made:
            self.stored[name] = widest([form for form in made if form is not None], by_name=False)

    def written(self) -> list[Layer]:
        """The layers, with a `requantize` in front of the first reader of every form that is not stored."""
        made: dict[tuple[str, str], Tensor] = {}
        used = Counter(layer.name for layer in self.layers)
        result: list[Layer] = []
        for layer in self.layers:
            changed = dict[int, Tensor]()
            for position, tensor in reads(layer):
                form, stored = self.forms.get((layer.name, position)), self.stored.get(tensor.name)
                seen = with_codes(tensor, stored or self.kept.get(tensor.name))
                if form is not None and tensor.name not in self.parted and (stored is None or stored.name != form.name):
                    key = tensor.name, form.name
                    if key not in made:
                        whole = self.tensors[tensor.name]
                        used[form.name] += 1
                        name = form.name if used[form.name] == 1 else f"{form.name}#{used[form.name]}"
                        made[key] = with_codes(dataclasses.replace(whole, name=f"{name}.out"), form)
                        result.append(
                            Layer(
                                name,
                                "requantize",
                                (with_codes(whole, stored or self.kept.get(tensor.name)),),
                                made[key],
                                source=layer.source,
                            )
                        )
                    seen = dataclasses.replace(made[key], shape=tensor.shape)
                changed[position] = seen
            result.append(self.rewritten(layer, changed))
        return result

    def rewritten(self, layer: Layer, changed: Mapping[int, Tensor]) -> Layer:
        """A layer that reads and makes what is stored."""
        inputs = tuple(changed.get(i, tensor) for i, tensor in enumerate(layer.inputs))
        codes = [(tensor.bits, tensor.signed, tensor.offset) for tensor in inputs]
        passes = layer.op in MOVES | {"relu"} and layer.weight is None and len(set(codes)) == 1
        name = layer.output.name
        if name not in self.stored and passes and codes[0][0] < FLOAT_BITS:
            self.stored[name] = Form("", *codes[0])
        output = with_codes(layer.output, self.stored.get(name) or self.kept.get(name))
        return dataclasses.replace(layer, inputs=inputs, output=output, weight=changed.get(WEIGHT, layer.weight))


def widest(forms: list[Form], by_name: bool = True) -> Form:
    """The form with most bits; of several the first by name, as in the extraction of a trained network."""
    return max(sorted(forms, key=lambda form: form.name) if by_name else forms, key=lambda form: form.bits)


def with_codes(tensor: Tensor, form: Form | None) -> Tensor:
    """A tensor in a form's codes; unrounded values count 32 bits, indices keep their width."""
    if tensor.origin == "index":
        return tensor
    codes = (FLOAT_BITS, True, False) if form is None else (form.bits, form.signed, form.offset)
    bits, signed, offset = codes
    plain = dataclasses.replace(tensor, zero_point=None, scales=1, run_time=False, format=None)
    return dataclasses.replace(plain, bits=bits, signed=signed, offset=offset)


def unrounded(workload: Workload) -> Workload:
    """The float network behind any quantized one: nothing rounds, everything counts 32 bits."""
    layers = layers_at_float(without_requantizations(workload))
    return Workload(workload.name, layers, workload.coverage, workload.notes)


def rounded(plain: Workload, rule: Rule, codes: Callable[[Tensor], tuple[bool, bool]]) -> Workload:
    """A float network (`unrounded`) as `quant.quantize` would make it at these widths."""
    forms, weights = quantizers(plain, rule, codes)
    layers = with_weights(Storage(plain.layers, forms).written(), weights)
    return Workload(plain.name, layers, plain.coverage, plain.notes)


def restored(workload: Workload) -> Workload:
    """The same widths at every place that rounds, stored anew: of changed widths another form may be the widest."""
    layers = without_requantizations(workload)
    original = {layer.name: layer for layer in workload}
    forms: dict[Place, Form] = {}
    named, _ = quantizers(workload, Rule(8, 8), lambda tensor: (tensor.signed, tensor.offset))
    for layer in layers:
        for position, tensor in reads(original[layer.name]):
            if (layer.name, position) in named and tensor.bits < FLOAT_BITS:
                name = named[layer.name, position].name
                forms[layer.name, position] = Form(name, tensor.bits, tensor.signed, tensor.offset)
    kept = {
        tensor.name: Form("", tensor.bits, tensor.signed, tensor.offset)
        for tensor in workload.tensors.values()
        if tensor.bits < FLOAT_BITS
    }
    found = [
        layer
        if layer.weight is None or layer.weight_is_activation
        else dataclasses.replace(layer, weight=original[layer.name].weight)
        for layer in Storage(layers_at_float(layers), forms, kept).written()
    ]
    return Workload(workload.name, found, workload.coverage, workload.notes)


def layers_at_float(layers: Iterable[Layer]) -> list[Layer]:
    """Layers whose activations and weights count as nobody had quantized them."""
    return [
        dataclasses.replace(
            layer,
            inputs=tuple(with_codes(tensor, None) for tensor in layer.inputs),
            output=with_codes(layer.output, None),
            weight=None if layer.weight is None else with_codes(layer.weight, None),
        )
        for layer in layers
    ]


def with_weights(layers: Iterable[Layer], widths: Mapping[str, int]) -> list[Layer]:
    """Layers with the given widths of their own weights: signed, symmetric."""
    return [
        layer
        if layer.weight is None or layer.weight_is_activation or layer.weight.name not in widths
        else dataclasses.replace(
            layer, weight=dataclasses.replace(layer.weight, bits=widths[layer.weight.name], signed=True)
        )
        for layer in layers
    ]
