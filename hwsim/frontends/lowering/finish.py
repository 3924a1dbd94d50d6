"""Drafts become layers: which codes each array is stored in, then names, then frozen `Layer`s.

An array is stored in the codes of the quantizer it is read through; of several, in the widest, and each other form
costs a `requantize` layer. Quantizers that round alike (two casts to fp16) make one form. Quantizers are pushed in
front of what only moves values; activation functions and average pools without a quantizer in front run on the
unrounded values as they leave the array. Read bare by anything else, an array counts 32 bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.frontends.lowering.ir import Quantization
from hwsim.frontends.lowering.values import Act, Const, Draft, Part, Record
from hwsim.network.formats import Format
from hwsim.network.layer import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor

MEANS = frozenset(("avg_pool", "reduce_mean"))
# Layers that run before rounding if nothing is quantized in front of them.
BEFORE_ROUNDING = ACTIVATION_FUNCTIONS | MEANS
# Layers that move or choose values: quantizing before or after them is the same.
MOVES = frozenset(("max_pool", "pad", "copy", "concat"))


def moves(draft: Draft) -> bool:
    """Whether a layer moves or chooses values; an interpolation that reads one value per output does."""
    return draft.kind in MOVES or (draft.kind == "upsample" and draft.window == 1)


MEANS_NOTE = (
    "an average pool without a quantizer in front sums unrounded values as they leave the layer before; what that "
    "layer stores is charged at the width that others read, or of the pool's own result"
)


def finish(drafts: list[Draft]) -> tuple[list[Layer], list[str]]:
    """Layers in execution order, and notes about arrays that no quantizer covers."""
    quantized = any(record.versions for record in records_of(drafts))
    join_alike(drafts)
    notes = decide_storage(drafts) if quantized else []
    drafts = with_requantizations(drafts)
    pass_codes_on(drafts)
    store_steps(drafts)
    name_drafts(drafts)
    part_codes(drafts)
    layers = [freeze(draft) for draft in drafts]
    return layers, [*notes, *unquantized_note(drafts)] if quantized else []


def join_alike(drafts: list[Draft]) -> None:
    """Reads of an array through quantizers that round alike go through the first of them. Blocks lie along an axis of
    what the reader sees, so they are alike in equal shapes alone."""
    first: dict[int, list[Act]] = defaultdict(list)

    def joined(act: Act) -> Act:
        if act.version is None:
            return act
        mine, known = act.record.versions[act.version], first[id(act.record)]
        for other in known:
            there = act.record.versions[other.version or ""]
            if there is mine or (there.rounds_alike(mine) and (not mine.rule or other.shape == act.shape)):
                return dataclasses.replace(act, version=other.version)
        known.append(act)
        return act

    for draft in drafts:
        draft.inputs = [joined(act) for act in draft.inputs]
        if isinstance(draft.weight, Act):
            draft.weight = joined(draft.weight)


def records_of(drafts: list[Draft]) -> list[Record]:
    """Every array, network inputs first seen included, once each."""
    found: dict[int, Record] = {}
    for draft in drafts:
        for act in draft.operands():
            found.setdefault(id(act.record), act.record)
        found.setdefault(id(draft.out), draft.out)
    return list(found.values())


@dataclass
class Readers:
    """Who reads an array: layers that need one form of it (None: unrounded), and layers that take what there is."""

    forms: set[str | None] = field(default_factory=set[str | None])
    flexible: list[tuple[Draft, int]] = field(default_factory=list[tuple[Draft, int]])
    parts: dict[Part | None, set[str | None]] = field(default_factory=dict[Part | None, set[str | None]])

    def add(self, act: Act) -> None:
        """A reader that needs this form."""
        self.forms.add(act.version)
        self.parts.setdefault(act.part, set()).add(act.version)

    @property
    def apart(self) -> bool:
        """Whether all read parts that do not overlap, each through one quantizer."""
        parts = list(self.parts)
        return all(
            part is not None
            and len(self.parts[part]) == 1
            and not any(other is None or part.overlaps(other) for other in parts[:i])
            for i, part in enumerate(parts)
        )


def decide_storage(drafts: list[Draft]) -> list[str]:
    """Fill in `stored` of every array, last reader first; readers without a quantizer are given their form."""
    readers: defaultdict[int, Readers] = defaultdict(Readers)
    means = False
    for draft in reversed(drafts):
        settle(draft.out, readers[id(draft.out)])
        pushed = draft.out.stored if moves(draft) and draft.out.stored else None
        if pushed is not None and pushed.module not in draft.out.versions:
            pushed = None  # the codes are those of a later layer: nothing to push through this one
        for position, act in enumerate(draft.inputs):
            if act.record.index_bits is not None:  # positions are no values
                readers[id(act.record)].add(act)
                continue
            if act.version is None and pushed is not None:
                act.record.versions.setdefault(pushed.module, pushed)
                act = draft.inputs[position] = dataclasses.replace(act, version=pushed.module)
            if act.version is None and (draft.kind in BEFORE_ROUNDING or (moves(draft) and draft.out.stored)):
                readers[id(act.record)].flexible.append((draft, position))
                means = means or draft.kind in MEANS
            else:
                readers[id(act.record)].add(act)
        if isinstance(draft.weight, Act):
            readers[id(draft.weight.record)].add(draft.weight)
    for record in records_of(drafts):
        if record.producer is None:
            settle(record, readers[id(record)])
    return [MEANS_NOTE] if means else []


def settle(record: Record, readers: Readers) -> None:
    """Decide an array's codes, and let its flexible readers read them."""
    forms = [record.versions[name] for name in readers.forms if name is not None]
    if not readers.forms and not readers.flexible:
        forms = list(record.versions.values())  # quantized, then nothing but the network's output
    made = [draft.out.stored for draft, _ in readers.flexible]
    if None not in readers.forms and forms:
        record.stored = max(sorted(forms, key=lambda q: q.module), key=lambda q: q.bits)
        record.parts_apart = readers.apart and all(record.stored.same_codes(other) for other in forms)
    elif not readers.forms and made and all(made):
        record.stored = max((q for q in made if q is not None), key=lambda q: q.bits)
        return
    if record.stored is not None:
        for draft, position in readers.flexible:
            draft.inputs[position] = dataclasses.replace(draft.inputs[position], version=record.stored.module)


def with_requantizations(drafts: list[Draft]) -> list[Draft]:
    """Readers of a form that is not stored get a `requantize` layer in front of the first of them."""
    made: dict[tuple[int, str], Record] = {}
    result: list[Draft] = []
    for draft in drafts:
        for act in draft.operands():
            if not is_stored_form(act) and (id(act.record), act.version or "") not in made:
                requantize = requantized(act, draft)
                made[id(act.record), act.version or ""] = requantize.out
                result.append(requantize)
        draft.inputs = [redirected(act, made) for act in draft.inputs]
        if isinstance(draft.weight, Act):
            draft.weight = redirected(draft.weight, made)
        result.append(draft)
    return result


def is_stored_form(act: Act) -> bool:
    """Whether the reader sees the array as it is stored."""
    if act.version is None or act.record.parts_apart:
        return True
    stored = act.record.stored
    if stored is None:
        return False
    mine = act.record.versions[act.version]
    return stored.module == act.version or (not mine.rule and stored.rounds_alike(mine))


def requantized(act: Act, reader: Draft) -> Draft:
    """The layer that makes the form `act` of its array."""
    quantization = act.record.versions[act.version or ""]
    out = Record(act.record.shape, act.record.origin, stored=quantization)
    source = Act(act.record, act.record.shape)
    draft = Draft("requantize", reader.op, quantization.module, [source], out)
    out.producer = draft
    return draft


def redirected(act: Act, made: Mapping[tuple[int, str], Record]) -> Act:
    """The same view of the array that holds the wanted form."""
    if is_stored_form(act):
        return act
    return dataclasses.replace(act, record=made[id(act.record), act.version or ""], version=None)


def pass_codes_on(drafts: list[Draft]) -> None:
    """Moving codes about makes no new ones: outputs without a quantizer take their inputs' codes, if those agree."""
    for draft in drafts:
        looked_up = draft.kind == "embedding"  # the codes of its table
        sources = [act.record.stored for act in draft.inputs if act.record.index_bits is None]
        if isinstance(draft.weight, Const):
            sources.append(draft.weight.quantization)
        passes = moves(draft) or draft.kind == "relu" or looked_up
        if draft.out.stored is not None or not passes or not sources:
            continue
        first = sources[0]
        if first is not None and all(other is not None and first.same_codes(other) for other in sources):
            draft.out.stored = first


def store_steps(drafts: list[Draft]) -> None:
    """Integer weights that 16-bit floats are multiplied by keep their steps beside them, as unpacking needs."""
    for draft in drafts:
        weight = draft.weight
        if not draft.is_mac or not isinstance(weight, Const) or weight.quantization is None:
            continue
        codes, form = weight.quantization, stored_form(draft.inputs[0])
        plain = form is not None and form.is_float and form.sharing == "none"
        if codes.format is None and codes.beside_floats is not None and plain:
            draft.weight = dataclasses.replace(
                weight, quantization=dataclasses.replace(codes, format=codes.beside_floats)
            )


def stored_form(act: Act) -> Format | None:
    """The format in which an array is stored; None for integers with one step, and for 32 bits."""
    stored = act.record.stored
    return act.record.form if stored is None else stored.format


def unquantized_note(drafts: list[Draft]) -> list[str]:
    """Arrays of a quantized network that no quantizer covers stay at 32 bits; say which."""
    read = {id(act.record) for draft in drafts for act in draft.operands()}
    bare = [
        d.name
        for d in drafts
        if d.out.stored is None and d.out.form is None and d.out.index_bits is None and id(d.out) in read
    ]
    if not bare:
        return []
    shown = ", ".join(bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
    return [f"{len(bare)} arrays inside the network pass no quantizer and count {FLOAT_BITS} bits: made by {shown}"]


def part_codes(drafts: list[Draft]) -> None:
    """A parameter that layers read in different codes is stored once for each: `NAME`, then `NAME (LAYER)`."""
    first: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[str, tuple[object, ...]], str] = {}
    for draft in drafts:
        if not isinstance(draft.weight, Const):
            continue
        tensor = weight_tensor(draft.weight)
        codes = (tensor.bits, tensor.signed, tensor.offset, tensor.format)
        if first.setdefault(tensor.name, codes) != codes:
            name = names.setdefault((tensor.name, codes), f"{tensor.name} ({draft.name})")
            draft.weight = dataclasses.replace(draft.weight, name=name)


def name_drafts(drafts: list[Draft]) -> None:
    """Module-qualified names: a module with one layer lends its name, others add the operator; `#2` for repeats."""
    inside: Counter[str] = Counter()  # modules that contain a module with layers
    per_call: defaultdict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.kind == "requantize" and draft.label != "requantize":
            continue
        per_call[draft.op.call].append(draft)
        parent = draft.op.module.rpartition(".")[0]
        while parent:
            inside[parent] += 1
            parent = parent.rpartition(".")[0]
    used: Counter[str] = Counter()
    for draft in drafts:
        base = base_name(draft, per_call[draft.op.call], bool(inside[draft.op.module]))
        used[base] += 1
        draft.name = base if used[base] == 1 else f"{base}#{used[base]}"
        if not draft.out.name:
            draft.out.name = f"{draft.name}.out"


def base_name(draft: Draft, siblings: list[Draft], has_children: bool) -> str:
    """The module's name where the layer is all there is to it (or its only MAC layer), else module.operator."""
    if draft.kind == "requantize" and draft not in siblings:
        return draft.label
    module = draft.op.module
    if not module:
        return draft.label
    macs = [sibling for sibling in siblings if sibling.is_mac]
    alone = siblings == [draft] or macs == [draft]
    return module if alone and not has_children else f"{module}.{draft.label}"


def freeze(draft: Draft) -> Layer:
    """The layer itself."""
    weight = None
    if isinstance(draft.weight, Act):
        weight = tensor_of(draft.weight)
    elif draft.weight is not None:
        weight = weight_tensor(draft.weight)
    return Layer(
        name=draft.name,
        op=draft.kind,
        inputs=tuple(tensor_of(act) for act in draft.inputs),
        output=tensor_of(Act(draft.out, draft.out.shape)),
        weight=weight,
        loops=draft.loops,
        stride=draft.stride,
        dilation=draft.dilation,
        padding=draft.padding,
        padding_policy=draft.padding_policy,
        pad_code=draft.pad_code,
        bias=draft.bias,
        weight_is_activation=isinstance(draft.weight, Act),
        window=draft.window,
        kernel=draft.kernel,
        source=f"{draft.op.op} in {draft.op.module or 'the model'}",
    )


def tensor_of(act: Act) -> Tensor:
    """An activation operand."""
    record, codes = act.record, act.record.stored
    shape = tuple(act.shape) or (1,)
    if act.repeats > 1 and math.prod(shape) % act.repeats == 0:  # an expanded array is read once
        shape = (math.prod(shape) // act.repeats,)
    if codes is None:
        if record.index_bits is not None:
            return Tensor(record.name, shape, record.index_bits, signed=False, origin=record.origin)
        return Tensor(record.name, shape, width_of(record.form), origin=record.origin, format=record.form)
    scales = codes.scales_of(shape)
    named = (record.name, shape, codes.bits, codes.signed, codes.offset, record.origin, scales)
    return Tensor(*named, zero_point=codes.zero_point, run_time=codes.run_time, format=codes.format)


def width_of(form: Format | None) -> int:
    """Bits of a value that no quantizer covers."""
    return FLOAT_BITS if form is None else form.bits


def weight_tensor(const: Const) -> Tensor:
    """A parameter operand."""
    codes = const.quantization or Quantization("", width_of(const.form), True, False, format=const.form)
    shape = tuple(const.shape) or (1,)
    named = (const.name, shape, codes.bits, codes.signed, codes.offset, "weight", codes.scales_of(shape))
    return Tensor(*named, zero_point=codes.zero_point, format=codes.format)
