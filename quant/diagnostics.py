"""What a trainer wants to see of each quantizer: parameters, clipping, codes used, gradients, quantization error.

`inspect(model, batches)` runs the quantized network and returns one `Diagnosis` per quantizer; `to_frame` makes a table
of them. `plot_offsets` is Fig. 2 of LSQ+ (beta per layer with the activation's minimum), `plot_weight_scales` its
Fig. 1 (a weight scale's initial values by several rules against the value that training reaches).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quant.init import initial, squared_error
from quant.quantizer import BaseQuantizer
from quant.spec import INIT_NAMES, QuantSpec
from quant.whole_models import quantizers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Values of one tensor that are looked at; enough for 0.2 % on a share, and the optimum's search stays short.
_KEPT = 2**18


@dataclass(frozen=True)
class Diagnosis:
    """One quantizer on the data given.

    `clipped_low`, `clipped_high`: shares of values with v <= n and v >= p. `histogram`: how often each code n..p is
    used (empty for 16 bits). `effective_bits`: its entropy. `gradient_ratio`: R of LSQ 2.2, (|dL/ds| / s) over
    (||dL/dx|| / ||x||), for weights, where a loss was given. `error` and `optimal_error`: mean squared quantization
    error, as it is and at the s (and beta) of Eq. 8; `optimal_s`, `optimal_beta` are those.
    """

    name: str
    is_weight: bool
    bits: int
    config: int
    method: str
    s: float
    beta: float
    minimum: float
    maximum: float
    clipped_low: float
    clipped_high: float
    histogram: tuple[int, ...]
    effective_bits: float
    gradient_ratio: float | None
    error: float
    optimal_error: float
    optimal_s: float
    optimal_beta: float

    @property
    def distance_from_optimum(self) -> float:
        """|s - optimal_s| / s, LSQ's measure of how far the learned step is from the least error (Sec. 3.6)."""
        return abs(self.s - self.optimal_s) / self.s


def inspect(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> list[Diagnosis]:
    """A diagnosis of every quantizer that runs on `batches`, in order of registration.

    `loss(model, batch)` runs the network and returns a scalar; with it, gradients are taken (summed over the batches)
    and R is known for weights. Without, the model is called on each batch (or on its first entry). Everything is
    restored: mode, gradients, and no parameter moves.
    """
    seen = {id(q): (name, q, _Watch()) for name, q in quantizers(model)}
    hooks = [q.register_forward_pre_hook(watch) for _, q, watch in seen.values()]
    grads = [(p, p.grad) for p in model.parameters()]
    was_training = model.training
    model.eval()
    try:
        for p, _ in grads:
            p.grad = None
        for batch in batches:
            if loss is not None:
                loss(model, batch).backward()
            else:
                with torch.no_grad():
                    model(batch[0] if isinstance(batch, (tuple, list)) else batch)
        owners = {id(m.weight_quantizer): m.weight for m in model.modules() if hasattr(m, "weight_quantizer")}
        return [
            _diagnose(name, q, watch.values(), owners.get(id(q)) if loss is not None else None)
            for name, q, watch in seen.values()
            if watch.samples
        ]
    finally:
        for hook in hooks:
            hook.remove()
        for p, grad in grads:
            p.grad = grad
        model.train(was_training)


class _Watch:
    """Keeps a sample of what a quantizer reads, with its extremes."""

    def __init__(self) -> None:
        self.samples: list[Tensor] = []

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(module, BaseQuantizer)
        x = arguments[0].detach()
        if self.samples and (module.is_weight or has_format(module)):
            return
        if has_format(module):
            self.samples.append(x)
            return
        flat = x.reshape(1, -1) if module.rows == 1 else x.movedim(module.axis, 0).reshape(module.rows, -1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        if flat.shape[0] == 1 and flat.shape[1] > _KEPT:
            chooser = torch.Generator().manual_seed(len(self.samples))
            chosen = torch.randint(flat.shape[1], (_KEPT,), generator=chooser).to(flat.device)
            flat = torch.cat([flat[:, chosen], flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)], 1)
        self.samples.append(flat)

    def values(self) -> Tensor:
        return torch.cat(self.samples, 1)


def _diagnose(name: str, quantizer: BaseQuantizer, values: Tensor, weight: Tensor | None) -> Diagnosis:
    """`values`: (rows, elements). Steps and offsets per channel are reported as their means."""
    spec = quantizer.spec
    if has_format(quantizer):
        return _diagnose_format(name, quantizer, values)
    with torch.no_grad():
        s, beta = (t.detach().reshape(-1, 1).to(values) for t in (quantizer.step(), quantizer.offset()))
        shaped = values if quantizer.rows > 1 else values.flatten()
        axis, quantizer.axis = quantizer.axis, 0
        try:
            codes = quantizer.codes(shaped).reshape(values.shape)
        finally:
            quantizer.axis = axis
        v = (values - beta) / s
        counts = torch.bincount((codes - spec.n).flatten().long(), minlength=spec.levels)
        share = counts[counts > 0].double() / counts.sum()
        best_s, best_beta, best_error = _optimum(values, spec)
    return Diagnosis(
        name=name, is_weight=quantizer.is_weight, bits=spec.bits, config=spec.config, method=spec.method,
        s=s.mean().item(), beta=beta.mean().item(), minimum=values.min().item(), maximum=values.max().item(),
        clipped_low=(v <= spec.n).double().mean().item(), clipped_high=(v >= spec.p).double().mean().item(),
        histogram=tuple(counts.tolist()) if spec.bits <= 8 else (),
        effective_bits=-(share * share.log2()).sum().item() + 0.0,
        gradient_ratio=gradient_ratio(quantizer, weight) if weight is not None else None,
        error=(codes * s + beta - values).double().square().mean().item(),
        optimal_error=best_error, optimal_s=best_s, optimal_beta=best_beta,
    )  # fmt: skip


def has_format(quantizer: nn.Module) -> bool:
    """Whether groups share steps, or the elements are floats: steps are then known element by element."""
    spec = quantizer.spec
    return isinstance(spec, QuantSpec) and (spec.group > 0 or spec.element != "int")


def _diagnose_format(name: str, quantizer: BaseQuantizer, x: Tensor) -> Diagnosis:
    """Of one tensor; s and beta as means over its elements. No histogram, and no optimum is searched (NaN)."""
    spec, nan = quantizer.spec, float("nan")
    with torch.no_grad():
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        codes, s, beta = quantizer.codes(wide), quantizer.step_at(wide), quantizer.offset_at(wide)
        v = (wide - beta) / s
    return Diagnosis(
        name=name, is_weight=quantizer.is_weight, bits=spec.bits, config=spec.config, method=spec.method,
        s=s.mean().item(), beta=beta.mean().item(), minimum=x.min().item(), maximum=x.max().item(),
        clipped_low=(v <= float(spec.n)).double().mean().item(),
        clipped_high=(v >= float(spec.p)).double().mean().item(),
        histogram=(), effective_bits=nan, gradient_ratio=None,
        error=(codes * s + beta - wide).double().square().mean().item(), optimal_error=nan, optimal_s=nan,
        optimal_beta=nan,
    )  # fmt: skip


def _optimum(values: Tensor, spec: QuantSpec) -> tuple[float, float, float]:
    """(s, beta, error) of Eq. 8 for these codes, means over the rows."""
    free = QuantSpec(spec.bits, spec.signed, spec.offset and spec.offset_mode == "learned", init="mse",
                     ternary=spec.ternary)  # fmt: skip
    s, beta = initial(values, free, is_weight=False)
    error = squared_error(values, s[:, None], beta[:, None], free)
    return s.mean().item(), beta.mean().item(), error.mean().item()


def gradient_ratio(quantizer: BaseQuantizer, weight: Tensor) -> float | None:
    """R = (|dL/ds| / s) / (||dL/dw|| / ||w||) of LSQ 2.2, from the gradients now held; near 1 is what the scale is for.

    The root mean square over the rows where there is a step per channel. None without gradients or without an s.
    """
    parameter = getattr(quantizer, "s", None)
    if not isinstance(parameter, nn.Parameter) or parameter.grad is None or weight.grad is None:
        return None
    relative = weight.grad.norm() / weight.detach().norm()
    if relative == 0:
        return None
    step = (parameter.grad / quantizer.step().detach()).square().mean().sqrt()
    return (step / relative).item()


def to_frame(diagnoses: Sequence[Diagnosis]) -> Any:
    """A pandas DataFrame of the diagnoses, or a list of dictionaries where pandas is not installed."""
    rows = [{**asdict(d), "distance_from_optimum": d.distance_from_optimum} for d in diagnoses]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


# ---- figures -----------------------------------------------------------------------------------------------------


def plot_offsets(diagnoses: Sequence[Diagnosis], axes: Axes | None = None) -> Axes:
    """LSQ+ Fig. 2: the learned offset of each activation quantizer, and the minimum of what it reads.

    Quantizers without an offset are left out. With signed codes (configuration 3) the value of the lowest code is
    drawn, beta + n*s, which is what compares with a minimum. Raises ValueError when no quantizer has an offset.
    """
    shown = [d for d in diagnoses if not d.is_weight and d.config in (3, 4)]
    if not shown:
        raise ValueError("plot_offsets: no activation quantizer has an offset (configurations 3 and 4 do)")
    axes = axes if axes is not None else _new_axes(max(6.0, 0.22 * len(shown)), 3.6)
    places = range(len(shown))
    lowest = [d.beta + (QuantSpec.for_config(d.bits, d.config).n * d.s if d.config == 3 else 0.0) for d in shown]
    axes.plot(places, [d.minimum for d in shown], color="0.6", linewidth=1.2, label="minimum of the activation")
    axes.plot(places, lowest, "o", markersize=4, label="lowest code's value (beta in configuration 4)")
    axes.axhline(0.0, color="0.85", linewidth=0.8, zorder=0)
    axes.set_xticks(places, [d.name.removesuffix(".input_quantizer") for d in shown], rotation=90, fontsize=6)
    axes.set_ylabel("value of the activation")
    axes.legend(fontsize=7)
    return axes


def initial_scales(weight: Tensor, spec: QuantSpec) -> dict[str, float]:
    """The first s of a weight tensor by each rule (one step for the tensor)."""
    values = weight.detach().reshape(1, -1)
    tensor_wide = spec.replace(granularity="tensor")
    return {name: initial(values, tensor_wide.replace(init=name), is_weight=True)[0].item() for name in INIT_NAMES}


def plot_weight_scales(history: Sequence[float], starts: Mapping[str, float], axes: Axes | None = None) -> Axes:
    """LSQ+ Fig. 1: a weight scale through training, and where each initialisation would have started it.

    `history`: s after each logged step; `starts`: from `initial_scales` on the pretrained weight.
    """
    if not len(history):
        raise ValueError("plot_weight_scales: expected the values of s through training, got none")
    axes = axes if axes is not None else _new_axes(5.0, 3.2)
    axes.plot(range(len(history)), history, color="black", label="learned")
    for i, (name, start) in enumerate(starts.items()):
        distance = abs(start - history[-1]) / history[-1]
        axes.axhline(start, color=f"C{i}", linestyle="--", label=f"{name} start ({distance:.0%} from the end)")
    axes.set_xlabel("logged step")
    axes.set_ylabel("weight scale s")
    axes.legend(fontsize=7)
    return axes


def _new_axes(width: float, height: float) -> Axes:
    """Axes of a figure that belongs to no window and to no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()
