"""Where a quantized network rounds, and which codes each array is stored in: what `quant.quantize` trains.

Every input of a convolution, a linear layer and a product of activations has a quantizer of its own. So has every input
of an addition, a product, an extreme of two and a concatenation, a mean, and in recurrent layers the sequence and the
state; nothing else rounds. Choices (`where`), quotients and parts of composite operators stay bare, although some are
priced as additions: `operator` tells them apart. Calls of one module share its quantizers. An array is stored in the
codes of the quantizer it is read through; of several, in the widest, and each other form costs a `requantize` layer.
Values that pass no quantizer stay at 32 bits. The extraction of a trained network says the same (tests hold the two
together).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hwsim.network.generation import CACHE, NEW
from hwsim.network.layer import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor
from hwsim.network.ranges import operator
from hwsim.network.workload import Workload

MATRIX = ("conv", "linear")
ELEMENTWISE = ("add", "sub", "mul", "concat")
MOVES = frozenset(("max_pool", "pad", "copy", "concat"))  # rounding before or after them is the same
BEFORE_ROUNDING = ACTIVATION_FUNCTIONS | {"avg_pool", "reduce_mean"}
# Operators of several activations that a trained network rounds; others, and parts of composite ones, it leaves bare.
SEVERAL = frozenset(
    ("add", "sub", "rsub", "subtract", "mul", "multiply", "maximum", "minimum", "fmax", "fmin", "max", "min", "cat",
     "concat", "concatenate")
)  # fmt: skip
RECURRENT = frozenset(f"{kind}{cell}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for cell in ("", "_cell"))
OWN_GATE = ("silu", "hswish")  # what the front ends call x times its own gate
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


def site(layer: Layer) -> tuple[str, str]:
    """What calls of one layer of the network have in common: a name, and the weight or what its parts are cut from."""
    if is_part(layer):
        return module_of(layer), ""
    weight = "" if layer.weight is None or layer.weight_is_activation else layer.weight.name.partition(":")[0]
    return layer.name.partition("#")[0], weight


def is_part(layer: Layer) -> bool:
    """Whether a layer is one of several that a recurrent layer or a transposed convolution became."""
    label = layer.name.partition("#")[0].rpartition(".")[2]
    return operator(layer) in RECURRENT or (layer.op == "conv" and label.startswith("phase"))


def moves(layer: Layer) -> bool:
    """Whether a layer moves or chooses values; an interpolation that reads one value per output does."""
    return layer.op in MOVES or (layer.op == "upsample" and layer.window == 1)


def module_of(layer: Layer) -> str:
    """The quantized module of a layer. A module has one for all its calls, an operator written as a function one each;
    the parts of a recurrent layer or a transposed convolution have theirs together."""
    module = layer.source.partition(" in ")[2]
    name = layer.name.partition("#")[0]
    if is_part(layer):
        number = layer.name[len(name) :]
        return module if name.startswith(f"{module}.") else f"{operator(layer)}{number}"
    return name if name == module else layer.name


def is_matrix(layer: Layer) -> bool:
    """Whether a layer is a convolution or a linear layer, and no part of a recurrent one."""
    return has_weight(layer) and operator(layer) not in RECURRENT


def ends(workload: Workload) -> frozenset[tuple[str, str]]:
    """The sites of the first and the last layer with weights, by their first calls."""
    sites = list(dict.fromkeys(site(layer) for layer in workload if is_matrix(layer)))
    return frozenset((*sites[:1], *sites[-1:]))


def combines(layer: Layer) -> bool:
    """Whether a layer adds, multiplies, compares or joins several tensors, and is no part of a composite operator."""
    name = operator(layer)
    if layer.op not in ELEMENTWISE or (name and name not in SEVERAL):
        return False
    parameters = layer.weight is not None and not layer.weight_is_activation
    return len(layer.inputs) + parameters > 1


def quantizers(
    workload: Workload, rule: Rule, codes: Callable[[Tensor], tuple[bool, bool]]
) -> tuple[dict[Place, Form], dict[str, int]]:
    """Every place that rounds with its form, and by layer the width of its weight; `codes` gives (signed, offset)."""
    forms: dict[Place, Form] = {}
    weights: dict[str, int] = {}
    wide = ends(workload) if rule.first_last == "8bit" else frozenset[tuple[str, str]]()
    between = rule.activation if rule.elementwise_bits is None else rule.elementwise_bits
    gated = self_gated(workload)
    for layer in workload:
        module = module_of(layer)
        parameter = layer.weight is not None and not layer.weight_is_activation
        several = True
        if operator(layer) in RECURRENT:
            if has_weight(layer):
                weights[layer.name] = rule.weight
                name, width = recurrent_quantizer(layer), rule.activation
                forms[layer.name, 0] = Form(f"{module}.{name}", width, *codes(layer.inputs[0]))
            continue
        if has_weight(layer):
            at_end = site(layer) in wide
            width, several = max(8, rule.activation) if at_end else rule.activation, False
            weights[layer.name] = max(8, rule.weight) if at_end else rule.weight
        elif layer.op == "embedding" and parameter:
            weights[layer.name] = rule.weight
            continue
        elif layer.op == "matmul":
            width = rule.activation
        elif operator(layer) == "mean":
            # What reads the mean rounds it again: searches over widths have no place for its input.
            width, several = 8 if rule.elementwise_bits is None else between, False
        elif combines(layer) and layer.name not in gated:
            if layer.op == "concat" and all(codes(t) == (True, False) for t in layer.inputs):
                continue  # moves values that have no activation yet: what reads them rounds them
            width = between
            if parameter:
                weights[layer.name] = between
        else:
            continue
        for position, tensor in reads(layer):
            number = len(layer.inputs) if position == WEIGHT else position
            name = f"{module}.input_quantizers.{number}" if several else f"{module}.input_quantizer"
            if tensor.origin == CACHE:  # it is rounded where it is written, whoever reads it
                name = f"{tensor.name}.quantizer"
            forms[layer.name, position] = Form(name, width, *codes(tensor))
    return joined(forms), weights


def joined(forms: Mapping[Place, Form]) -> dict[Place, Form]:
    """A quantizer of several calls has codes for what any of them reads: signed where one is, else with an offset."""
    widest_of: dict[str, Form] = {}
    for form in forms.values():
        known = widest_of.get(form.name, form)
        widest_of[form.name] = max(known, form, key=lambda f: (f.signed, f.offset))
    return {place: widest_of[form.name] for place, form in forms.items()}


def recurrent_quantizer(layer: Layer) -> str:
    """The quantizer in front of a product of a recurrent layer: of the sequence that a layer reads, of the state, or of
    what is projected. A cell is a layer of one step."""
    part = layer.name.partition("#")[0].removeprefix(f"{module_of(layer)}.")
    place, _, what = part.rpartition(".")
    suffix = place.partition(".")[0] if place.startswith("l") else "l0"
    if what == "input":
        return f"input_quantizers.{suffix.removeprefix('l').partition('_')[0]}"
    return f"{'projection' if what == 'projection' else 'hidden'}_quantizers.{suffix}"


def is_cut(tensor: Tensor, maker: Layer | None) -> bool:
    """Whether a layer reads a part of what another made."""
    return maker is not None and tensor.elements < maker.output.elements


def self_gated(workload: Workload) -> frozenset[str]:
    """Products that are an activation function written out, like x * sigmoid(x)."""
    made_by = {layer.output.name: layer for layer in workload}
    found: set[str] = set()
    for layer in workload:
        if layer.op == "mul" and len(layer.inputs) == 2:
            if layer.output.origin not in OWN_GATE and any(is_cut(t, made_by.get(t.name)) for t in layer.inputs):
                continue  # one part of an array by the gate of another: x[:, :n] * sigmoid(x[:, n:])
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


def writes_cache(layer: Layer) -> bool:
    """Whether a layer writes keys and values into their cache: it rounds to the cache's codes in any network."""
    return layer.op == "requantize" and layer.output.origin == CACHE


def without_requantizations(workload: Workload) -> list[Layer]:
    """The layers with what they read before any other form of it was made."""
    sources: dict[str, Tensor] = {}
    layers: list[Layer] = []

    def source(tensor: Tensor) -> Tensor:
        while tensor.name in sources:
            tensor = dataclasses.replace(sources[tensor.name], shape=tensor.shape)
        return tensor

    for layer in workload:
        if layer.op == "requantize" and not writes_cache(layer):
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
            if writes_cache(layer) and layer.output.name.endswith(NEW):
                self.settle_new_rows(layer.output.name)
            out = self.stored.get(layer.output.name)
            pushed = out if moves(layer) and out and out.name in self.own[layer.output.name] else None
            for position, tensor in reads(layer):
                form = self.forms.get((layer.name, position))
                if form is None and pushed is not None:
                    form = self.forms[layer.name, position] = pushed
                    self.own[tensor.name].add(pushed.name)
                takes_any = layer.op in BEFORE_ROUNDING or writes_cache(layer) or (moves(layer) and out is not None)
                if form is None and takes_any:
                    self.readers[tensor.name].flexible.append((layer, position))
                else:
                    self.readers[tensor.name].forms.append((form, tensor.elements))
        made = {layer.output.name for layer in self.layers}
        for name in self.tensors:
            if name not in made:
                self.settle(name)

    def settle_new_rows(self, name: str) -> None:
        """New rows of a cache have its codes; the cache is read behind their layer alone, so all of its readers are
        known."""
        cache = name.removesuffix(NEW)
        if cache in self.tensors:
            self.settle(cache)
        if cache in self.stored:
            self.stored[name] = self.stored[cache]

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
        if layer.op == "embedding" and layer.weight is not None:
            codes = [(layer.weight.bits, layer.weight.signed, layer.weight.offset)]  # the codes of its table
        bare = layer.weight is None and (moves(layer) or layer.op == "relu")
        passes = (bare or layer.op == "embedding") and len(set(codes)) == 1
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
    written = [layer.output for layer in plain if writes_cache(layer)]  # some are read by later passes alone
    kept = {tensor.name: Form("", rule.activation, *codes(tensor)) for tensor in written}
    layers = Storage(with_weights(plain.layers, weights), forms, kept).written()
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
    """Layers with the given widths of their own weights: signed, symmetric. A weight that layers read at several widths
    is stored once for each: `NAME`, then `NAME (LAYER)`."""
    first: dict[str, int] = {}
    names: dict[tuple[str, int], str] = {}
    result: list[Layer] = []
    for layer in layers:
        weight = layer.weight
        if weight is not None and not layer.weight_is_activation:
            width = widths.get(layer.name, weight.bits)
            name = weight.name
            if first.setdefault(name, width) != width:
                name = names.setdefault((name, width), f"{name} ({layer.name})")
            signed = True if layer.name in widths else weight.signed
            layer = dataclasses.replace(layer, weight=dataclasses.replace(weight, name=name, bits=width, signed=signed))
        result.append(layer)
    return result
