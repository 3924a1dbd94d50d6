"""The walk over a model's layers and operations that decides for each and puts quantized modules in their places.

First and last layers, elementwise operations and named exceptions have their own rules. Operations written as
functions are replaced by rewriting the traced graph; what cannot be replaced is listed, never passed over in silence.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from quant import context, recurrent, rewrite
from quant.attention import QMultiheadAttention
from quant.choices import Choices
from quant.context import Op, Range
from quant.layers import quantized_like
from quant.operators import COMPLEX_NUMBERS, GATE, OBJECT, REASONS, SIGNED, UNSIGNED
from quant.plan import LayerPlan, Left, few
from quant.quantizer import BaseQuantizer
from quant.spec import QuantSpec

_MATRIX = (
    "conv1d", "conv2d", "conv3d", "linear", "embedding", "embeddingbag",
    "convtranspose1d", "convtranspose2d", "convtranspose3d",
)  # fmt: skip
_TABLES = ("embedding", "embeddingbag")
_RECURRENT = ("lstm", "gru", "rnn", "lstmcell", "grucell", "rnncell")
_WEIGHTED = (
    nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase,
)  # fmt: skip
_ELEMENTWISE = ("add", "sub", "mul", "maximum", "minimum", "concat", "mean")
_PAIRS = ("add", "sub", "mul", "matmul", "maximum", "minimum")
_SHARED = ("add", "sub", "maximum", "minimum", "concat")
_CHOICES = ("topk", "argmax", "argmin", "argsort", "sort")  # operations whose positions depend on values
_OF_ACTIVATIONS = (*_ELEMENTWISE, "matmul", "attention", "multiheadattention")


def _tensors(op: Op) -> list[Op]:
    """The activations that an operation computes on, as often as it reads them."""
    if op.kind == "mean":
        return list(op.inputs[:1])
    return [o for o in op.operands if isinstance(o, Op) and o.is_tensor]


def _why_left(op: Op, kind: str) -> str:
    """Why an operation without a quantized counterpart stays in floating point."""
    if op.node.op == "call_method" and kind not in REASONS and not hasattr(Tensor, str(op.node.target)):
        return OBJECT
    return REASONS.get(kind, "no quantized counterpart")


def alike(one: BaseQuantizer, other: BaseQuantizer) -> bool:
    """Whether two quantizers of one weight can be one; the first one's rule of first values then holds."""
    return (one.spec, one.rows, one.axis) == (other.spec.replace(init=one.spec.init), other.rows, other.axis)


@dataclass
class Site:
    """A layer or operation to quantize; a shared module has several operations."""

    name: str
    kind: str
    ops: list[Op]


class Planner:
    """Walks the sites in order of execution, decides, swaps."""

    def __init__(
        self,
        model: nn.Module,
        ops: list[Op],
        base: Choices,
        first_last: str,
        elementwise_bits: int | str,
        patterns: dict[str, dict[str, Any]],
    ) -> None:
        self.model = model
        self.ops = ops
        self.base = base
        self.first_last = first_last
        self.elementwise_bits = elementwise_bits
        self.patterns = patterns
        self.layers: list[LayerPlan] = []
        self.left: list[Left] = []
        self.owners: dict[int, tuple[str, Any]] = {}
        self.sites = self._sites()
        matrices = [name for site in self.sites for name in self._matrices(site)]
        self.ends = {matrices[0], matrices[-1]} if matrices else set()
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(site.name, pattern) for site in self.sites):
                known = ", ".join(site.name for site in self.sites[:6])
                raise ValueError(f"overrides: {pattern!r} matches no layer; there are {known}, ...")

    def _matrices(self, site: Site) -> tuple[str, ...]:
        """Names of the convolutions and linear layers of a site, in order: candidates for the network's ends."""
        if site.kind == "multiheadattention":
            module = self.model.get_submodule(site.name)
            packed = getattr(module, "in_proj_weight", None) is not None
            parts = ("in_proj",) if packed else ("q_proj", "k_proj", "v_proj")
            return tuple(f"{site.name}.{part}" for part in (*parts, "out_proj"))
        by_parameter = site.kind == "matmul" and any(o.is_fixed for o in _tensors(site.ops[0]))
        return (site.name,) if by_parameter or (site.kind in _MATRIX and site.kind not in _TABLES) else ()

    def _sites(self) -> list[Site]:
        sites: dict[str, Site] = {}
        for op in self.ops:
            kind = context.operation(op, self.model)
            if op.node.op not in ("call_module", "call_function", "call_method"):
                continue
            if op.is_fixed and kind not in _MATRIX:
                continue  # a computation on parameters, which a deployed network has done once
            if kind in _MATRIX or kind in _OF_ACTIVATIONS or (kind in _RECURRENT and op.module is not None):
                site = sites.setdefault(op.name, Site(op.name, kind, []))
                site.ops.append(op)
            elif not context.keeps_values(op, kind) and any(source.is_tensor for source in op.inputs):
                self.left.append(Left(op.name, kind, _why_left(op, kind)))
        self.left += self._unseen(sites)
        return list(sites.values())

    def _unseen(self, sites: dict[str, Site]) -> list[Left]:
        """Layers with weights that the graph shows no call of: never called, or inside a module it does not open."""
        shown = {op.name for op in self.ops if op.module is not None}
        opened = tuple(f"{name}." for name, site in sites.items() if site.kind == "multiheadattention")
        around = {name.rpartition(".")[0] for name in (op.name for op in self.ops if op.module is None)}
        found = []
        for name, module in self.model.named_modules():
            known = name in shown or name in sites or name.startswith(opened) or name in around
            if isinstance(module, _WEIGHTED) and not known:
                kind = context.plain_name(type(module))
                found.append(
                    Left(
                        name,
                        kind,
                        "not called, or its result not used, or inside a module whose code the graph does not show",
                    )
                )
        return found

    def choices_for(self, site: Site) -> tuple[Choices, str]:
        """The choices for a site, and a note where a rule other than the arguments decided."""
        chosen, notes = self.base, []
        if self.first_last == "8bit" and site.name in self.ends:
            chosen, note = self._at_end(chosen)
            notes.append(note)
        if site.kind in _OF_ACTIVATIONS:
            if site.kind in _ELEMENTWISE:
                chosen = chosen.without_formats()
            if site.kind in _ELEMENTWISE and isinstance(self.elementwise_bits, int):
                chosen = replace(chosen, act_bits=self.elementwise_bits)
            elif site.kind == "mean":
                # What reads the mean rounds it again: searches over widths have no place for its input.
                chosen = replace(chosen, act_bits=8)
            notes += [self._plain(chosen)[1].lstrip(", ")]
            chosen = self._plain(chosen)[0]
        for pattern, changes in self.patterns.items():
            if fnmatch.fnmatchcase(site.name, pattern):
                try:
                    chosen = replace(chosen, **changes)
                except (ValueError, TypeError) as error:
                    raise ValueError(f"overrides: {pattern!r}: {error}") from error
                notes.append(f"override {pattern!r}")
        return chosen, ", ".join(filter(None, notes))

    def _at_end(self, chosen: Choices) -> tuple[Choices, str]:
        """The choices for the first and the last layer with weights, and a note."""
        wide = {"weight_bits": max(8, chosen.weight_bits), "act_bits": max(8, chosen.act_bits)}
        plain, why = self._plain(replace(chosen.without_formats(), **wide, ternary_weights=False))
        return plain, f"first or last layer at 8 bits{why}"

    def _plain(self, chosen: Choices) -> tuple[Choices, str]:
        """LSQ+ instead of a baseline where its papers quantize nothing: ends of the network, products, additions."""
        if chosen.method in ("lsq", "lsqplus"):
            return chosen, ""
        return replace(chosen, method="lsqplus"), f", by lsqplus: {chosen.method} leaves it in float"

    def convert(self, traced: bool, given: Mapping[str, Any]) -> nn.Module:
        """Swap every site's module; rewrite the graph where operations have none."""
        written: list[tuple[Op, nn.Module, LayerPlan]] = []
        for site in self.sites:
            chosen, note = self.choices_for(site)
            why = self._reason_to_leave(site, chosen, traced)
            if why:
                self.left.append(Left(site.name, site.kind, why))
                continue
            if site.ops[0].module is not None:
                self._swap(site, chosen, note)
            else:
                for op in site.ops:
                    made, plan = self._written(site, op, chosen, note)
                    written.append((op, made, plan))
                    self.layers.append(plan)
        if not written:
            return self.model
        stuck = rewrite.differing_in_training(self.model, self.ops, given)
        if stuck:
            taken = {plan.name for _, _, plan in written}
            self.layers = [plan for plan in self.layers if plan.name not in taken]
            self.left += [Left(plan.name, plan.op, f"the forward pass depends on training mode: {stuck}")
                          for _, _, plan in written]  # fmt: skip
            return self.model
        return rewrite.insert_modules(self.model, self.ops, [(op, made, plan.name) for op, made, plan in written])

    def _reason_to_leave(self, site: Site, chosen: Choices, traced: bool) -> str:
        op = site.ops[0]
        if chosen.skip:
            return "skipped by an override"
        if any(each.is_complex or any(source.is_complex for source in each.inputs) for each in site.ops):
            return COMPLEX_NUMBERS
        module = None if op.module is None else self.model.get_submodule(op.module)
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return ""
        if site.kind in _MATRIX and module is not None:
            return rewrite.unquantizable_type(module)
        if op.module is None and not traced:
            return "written as a function in a model that cannot be traced symbolically"
        if site.kind in _MATRIX:
            found = rewrite.layer_of_call(site.kind, op, self.model)
            return found if isinstance(found, str) else ""
        return self._reason_to_leave_operation(site, op)

    def _reason_to_leave_operation(self, site: Site, op: Op) -> str:
        tensors = _tensors(op)
        if not op.is_tensor:
            return "arithmetic on sizes"
        if site.kind == "mul" and context.is_self_gated(op) and op.operands[0] is not op.operands[1]:
            return "an activation function written as a product"
        if len(tensors) < 2 and site.kind in _PAIRS:
            return "one operand is a constant"
        if site.kind in _PAIRS and site.kind != "matmul" and (folded := context.folds(op, self.model)):
            return folded
        if site.kind in _ELEMENTWISE and self.elementwise_bits == "float":
            return "elementwise_bits='float'"
        if site.kind == "concat" and all(source.range.kind == SIGNED for source in tensors):
            return "moves values that have no activation yet; what reads them quantizes them"
        return rewrite.obstacle(site.kind, op, self.model)

    def _swap(self, site: Site, chosen: Choices, note: str) -> None:
        """Put the quantized module in the place of the old one, under every name that it has."""
        old = self.model.get_submodule(site.name)
        if site.kind in _MATRIX:
            new, plan = self._matrix(site, old, chosen, note)
        elif isinstance(old, (nn.RNNBase, nn.RNNCellBase)):
            new, plan = self._recurrent(site, old, chosen, note)
        else:
            new, plan = self._operation(site, site.ops[0], chosen, note)
        new.train(old.training)
        for name in [n for n, module in self.model.named_modules(remove_duplicate=False) if module is old]:
            self.model.set_submodule(name, new)
        self.layers.append(plan)

    def _written(self, site: Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        """The module for an operation that the code writes as a function."""
        if site.kind not in _MATRIX:
            return self._operation(site, op, chosen, note)
        layer = rewrite.layer_of_call(site.kind, op, self.model)
        assert isinstance(layer, nn.Module)
        return self._matrix(site, layer, chosen, note)

    def _matrix(self, site: Site, old: nn.Module, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        weight = chosen.weight_spec()
        if site.kind in _TABLES:
            # LSQ+'s Gaussian rule is for the weights of sums, and cuts at 3 sigma what a row look-up gives out whole.
            rule = "mse" if weight.init == "lsqplus" else weight.init
            weight = chosen.without_formats().weight_spec().replace(granularity="tensor", init=rule)
            new = quantized_like(old, weight)
            note = self._note(new, note)
            return self._tied(new, site.name), LayerPlan(site.name, site.kind, weight, (), (), None, note)
        source = context.join(op.inputs[0].range for op in site.ops)
        spec = chosen.input_spec(source)
        padded = site.kind in ("conv1d", "conv2d", "conv3d")
        extra = self._absorbed_padding(site) if padded and site.ops[0].module is not None else ()
        if not padded:
            spec = spec.replace(snap_offset=False)
        new = quantized_like(old, weight, spec, chosen.padding_policy, extra)
        policy = chosen.padding_policy if padded and any(new.total_padding()) else None
        if policy and new.input_quantizer.zero_is_exact:
            note = ", ".join(filter(None, (note, "0 is a code: all padding policies agree")))
        note = self._note(new, note)
        return self._tied(new, site.name), LayerPlan(
            site.name, site.kind, weight, (spec,), (source.reason,), policy, note
        )

    def _note(self, new: nn.Module, note: str) -> str:
        """The note of a layer, with the name of the layer that it shares its weight with."""
        first = self.owners.get(id(new.weight))
        if first is None:
            return note
        same = alike(first[1].weight_quantizer, new.weight_quantizer)
        shared = f"weight of {first[0]}, " + ("with the same codes" if same else "with codes of its own")
        return ", ".join(filter(None, (note, shared)))

    def _tied(self, new: nn.Module, name: str) -> nn.Module:
        """Layers that share a weight share its quantizer, where their specs agree: the weight is stored once."""
        first = self.owners.setdefault(id(new.weight), (name, new))[1]
        if first is not new and alike(first.weight_quantizer, new.weight_quantizer):
            new.weight_quantizer = first.weight_quantizer
        return new

    def _recurrent(
        self, site: Site, old: nn.RNNBase | nn.RNNCellBase, chosen: Choices, note: str
    ) -> tuple[nn.Module, LayerPlan]:
        """Hidden states lie in -1..1, or are not negative behind ReLU."""
        weight = chosen.weight_spec()
        source = context.join(op.inputs[0].range for op in site.ops)
        behind_relu = getattr(old, "nonlinearity", "tanh") == "relu"
        hidden = Range(UNSIGNED, "hidden state after relu") if behind_relu else Range(SIGNED, "hidden state")
        specs = tuple(chosen.input_spec(r).replace(snap_offset=False) for r in (source, hidden))
        made = recurrent.QRecurrent if isinstance(old, nn.RNNBase) else recurrent.QRecurrentCell
        new = made(old, weight, *specs)  # type: ignore[arg-type]
        note = ", ".join(filter(None, (note, "gates and cell state in floating point")))
        return new, LayerPlan(site.name, site.kind, weight, specs, (source.reason, hidden.reason), None, note)

    def choices_by_values(self) -> Iterator[str]:
        """A warning where positions chosen by values (routing) are read again: near ties may fall otherwise."""
        chosen = [op.name for op in self.ops if op.kind in _CHOICES and any(u.node.op != "output" for u in op.users)]
        if chosen:
            yield (
                f"{few(chosen)} choose by values: where two are nearly equal, the quantized network may choose the "
                "other one, and what is read there (an expert, a row) is another; all else stays within its rounding"
            )

    def dead_channels(self) -> Iterator[str]:
        """A warning where layers in front of a batch norm have channels of weights that are all 0.

        The norm divides what is constant by sqrt(eps), and multiplies gradients by 1/sqrt(eps): 316 at eps = 1e-5.
        """
        found: dict[str, int] = {}
        for site in self.sites:
            if site.ops[0].module is None or site.kind.startswith("convtranspose"):
                continue
            if not any(user.kind.startswith("batchnorm") for op in site.ops for user in op.users):
                continue
            layer = self.model.get_submodule(site.name)
            quantizer = getattr(layer, "weight_quantizer", None)
            if quantizer is None or layer.weight.is_meta:
                continue
            dead = int((quantizer.codes(layer.weight.detach()).flatten(1) == 0).all(1).sum())
            if dead:
                found[f"{site.name}: {dead} of {len(layer.weight)}"] = dead
        if found:
            yield (
                f"{sum(found.values())} output channels in {len(found)} layers ({few(list(found))}) have no weight "
                "but 0 and a batch norm behind them, which multiplies gradients by 1/sqrt(eps): init 'mse' or "
                "granularity 'channel' rounds fewer weights to 0"
            )

    def _absorbed_padding(self, site: Site) -> tuple[int, ...]:
        """Padding of an nn.ZeroPad in front of the convolution alone, which then becomes an nn.Identity."""
        if len(site.ops) != 1 or not site.ops[0].inputs:
            return ()
        source = site.ops[0].inputs[0]
        if source.module is None or len(source.users) != 1:
            return ()
        module = self.model.get_submodule(source.module)
        if not isinstance(module, (nn.ZeroPad1d, nn.ZeroPad2d)) or min(module.padding) < 0:
            return ()
        self.model.set_submodule(source.module, nn.Identity())
        return tuple(module.padding)

    def _operation(self, site: Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        sources = _tensors(op)
        if site.kind in ("attention", "multiheadattention"):
            return self._attention(site, op, chosen, note)
        specs = tuple(
            chosen.input_spec(source.range).replace(snap_offset=False)
            if site.kind != "matmul" or not source.is_fixed
            else chosen.input_spec(source.range).replace(snap_offset=False, bits=chosen.weight_bits)
            for source in sources
        )
        reasons = tuple(source.range.reason for source in sources)
        shared = chosen.shared_inputs and site.kind in _SHARED and len(set(specs)) == 1
        module = None if op.module is None else self.model.get_submodule(op.module)
        made = rewrite.quantized_operation(site.kind, specs, shared, rewrite.concat_dim(op, module))
        if shared:
            note = "; ".join(filter(None, (note, "one step for all inputs")))
        return made, LayerPlan(op.name, site.kind, None, specs, reasons, None, note)

    def _attention(self, site: Site, op: Op, chosen: Choices, note: str) -> tuple[nn.Module, LayerPlan]:
        plain = chosen.input_spec(Range(SIGNED, "")).replace(snap_offset=False)
        gate = chosen.input_spec(Range(GATE, "")).replace(snap_offset=False)
        specs = (plain, plain, gate, plain)
        reasons = ("query", "key", "probabilities after softmax", "value")
        if site.kind == "attention":
            return rewrite.quantized_attention(op, specs), LayerPlan(
                op.name, site.kind, None, specs, reasons, None, note
            )
        return self._multihead(site, op, chosen, specs, note)

    def _multihead(
        self, site: Site, op: Op, chosen: Choices, specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec], note: str
    ) -> tuple[nn.Module, LayerPlan]:
        """nn.MultiheadAttention: its projections are linear layers like any other."""
        old = self.model.get_submodule(site.name)
        assert isinstance(old, nn.MultiheadAttention)
        *first, last = (
            self._at_end(chosen) if self.first_last == "8bit" and name in self.ends else (chosen, "")
            for name in self._matrices(site)
        )
        calls = [rewrite.multihead_inputs(each) for each in site.ops]
        sources = [context.join(source.range for source in together) for together in zip(*calls, strict=False)]
        inputs = [first[0][0].input_spec(source).replace(snap_offset=False) for source in sources]
        output = (last[0].weight_spec(), last[0].input_spec(Range(SIGNED, "")).replace(snap_offset=False))
        made = QMultiheadAttention(old, first[0][0].weight_spec(), inputs, specs, output)
        note = "; ".join(dict.fromkeys(filter(None, (note, first[0][1], last[1]))))
        reasons = (*(source.reason for source in sources), "query", "key", "probabilities after softmax", "value")
        shown = (*inputs, *specs)
        return made, LayerPlan(site.name, site.kind, first[0][0].weight_spec(), shown, reasons, None, note)
