"""Drafts become layers: which codes each array is stored in, then names, then frozen `Layer`s.

An array read through one quantizer is stored in that quantizer's codes. One read through several, or also read
unquantized, is stored in the widest form that is read, and each other form costs a `requantize` layer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping

from hwsim.extraction.ir import Quantization
from hwsim.extraction.values import Act, Const, Draft, Record
from hwsim.workload import ACTIVATION_FUNCTIONS, FLOAT_BITS, Layer, Tensor

# An array read only by these takes the codes of what they make: activation functions run on the accumulator before it
# is rounded, and max pooling commutes with rounding.
APPLIED_BEFORE_ROUNDING = ACTIVATION_FUNCTIONS | {"max_pool"}
# Layers that only move or choose codes: what they make has the codes of what they read.
KEEPS_CODES = frozenset(("max_pool", "pad", "copy", "concat", "relu"))


def finish(drafts: list[Draft]) -> tuple[list[Layer], list[str]]:
    """Layers in execution order, and notes about arrays that no quantizer covers."""
    drafts = split_versions(drafts)
    quantized = any(draft.out.stored for draft in drafts)
    pass_codes_on(drafts)
    take_codes_back(drafts)
    name_drafts(drafts)
    layers = [freeze(draft) for draft in drafts]
    return layers, unquantized_note(drafts) if quantized else []


def records_of(drafts: list[Draft]) -> list[Record]:
    """Every array, network inputs first seen included, once each."""
    found: dict[int, Record] = {}
    for draft in drafts:
        for act in draft.operands():
            found.setdefault(id(act.record), act.record)
        found.setdefault(id(draft.out), draft.out)
    return list(found.values())


def split_versions(drafts: list[Draft]) -> list[Draft]:
    """Decide what each array is stored as; readers of another form get a `requantize` layer in front of them."""
    read_as: defaultdict[int, dict[str | None, None]] = defaultdict(dict)
    for draft in drafts:
        for act in draft.operands():
            read_as[id(act.record)][act.version] = None
    for record in records_of(drafts):
        forms = read_as[id(record)]
        if not forms and record.versions:  # quantized, then nothing but the network's output
            forms = dict.fromkeys(record.versions)
        if None not in forms and forms:
            candidates = [record.versions[name] for name in forms if name is not None]
            record.stored = max(candidates, key=lambda quantization: quantization.bits)
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
    if act.version is None:
        return True
    return act.record.stored is not None and act.record.stored.module == act.version


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
        sources = [act.record.stored for act in draft.inputs]
        if isinstance(draft.weight, Const):
            sources.append(draft.weight.quantization)
        if draft.out.stored is not None or draft.kind not in KEEPS_CODES or not sources:
            continue
        first = sources[0]
        if first is not None and all(other is not None and first.same_codes(other) for other in sources):
            draft.out.stored = first


def take_codes_back(drafts: list[Draft]) -> None:
    """An array read only by functions applied before rounding takes the widest codes of what they make."""
    readers: defaultdict[int, list[Draft]] = defaultdict(list)
    for draft in drafts:
        for act in draft.operands():
            readers[id(act.record)].append(draft)
    for draft in reversed(drafts):
        record = draft.out
        made = [reader.out.stored for reader in readers[id(record)] if reader.kind in APPLIED_BEFORE_ROUNDING]
        codes = [quantization for quantization in made if quantization is not None]
        if record.stored is None and codes and len(codes) == len(readers[id(record)]):
            record.stored = max(codes, key=lambda quantization: quantization.bits)


def unquantized_note(drafts: list[Draft]) -> list[str]:
    """Arrays of a quantized network that no quantizer covers stay at 32 bits; say which."""
    read = {id(act.record) for draft in drafts for act in draft.operands()}
    bare = [d.name for d in drafts if d.out.stored is None and id(d.out) in read]
    if not bare:
        return []
    shown = ", ".join(bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
    return [f"{len(bare)} arrays inside the network pass no quantizer and count {FLOAT_BITS} bits: made by {shown}"]


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
        bias=draft.bias,
        weight_is_activation=isinstance(draft.weight, Act),
        window=draft.window,
        source=f"{draft.op.op} in {draft.op.module or 'the model'}",
    )


def tensor_of(act: Act) -> Tensor:
    """An activation operand."""
    record, codes = act.record, act.record.stored
    shape = tuple(act.shape) or (1,)
    if codes is None:
        width = FLOAT_BITS if record.index_bits is None else record.index_bits
        return Tensor(record.name, shape, width, signed=record.index_bits is None, origin=record.origin)
    return Tensor(record.name, shape, codes.bits, codes.signed, codes.offset, record.origin, codes.scales)


def weight_tensor(const: Const) -> Tensor:
    """A parameter operand."""
    codes = const.quantization or Quantization("", FLOAT_BITS, True, False)
    shape = tuple(const.shape) or (1,)
    return Tensor(const.name, shape, codes.bits, codes.signed, codes.offset, "weight", codes.scales)
