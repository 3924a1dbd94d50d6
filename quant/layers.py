"""Layers that compute on quantized operands: convolutions, linear, embedding, and operations of two activations.

Each keeps its float parameters under the float layer's names and adds `weight_quantizer`, `input_quantizer` (or
`input_quantizers`). `padding_policy` says what a convolution sees at its border; see `_QuantizedConvolution`.
A folded batch norm leaves `output_scale`: y = output_scale * (w_hat * x_hat) + bias, one factor per output channel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.baselines import make_quantizer
from quant.grouping import Grouping
from quant.kernels import BORDER_OF_CODE_0, BORDER_OF_ZERO
from quant.quantizer import BaseQuantizer, Quantizer
from quant.spec import PADDING_POLICIES, QuantSpec, check_choice


class _QuantizedWeight:
    """What convolutions and linear layers share: a weight quantizer ready from the start, an optional output scale."""

    is_quantized_layer = True
    weight: nn.Parameter
    weight_quantizer: BaseQuantizer
    output_scale: Tensor | None

    def __init__(self: Any, *args: Any, weight_spec: QuantSpec, input_spec: QuantSpec | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attach(weight_spec, input_spec)

    def _attach(self: Any, weight_spec: QuantSpec, input_spec: QuantSpec | None) -> None:
        """Groups and blocks lie along the input channels: axis 1 of weights and of maps, the last of a linear layer's
        input."""
        transposed = getattr(self, "transposed", False)
        axis = 1 if transposed or weight_spec.group else 0
        rows = self.weight.shape[axis] if weight_spec.granularity == "channel" else 1
        if weight_spec.group:
            if transposed:
                raise ValueError("weight_group: no groups in transposed convolutions: override them")
            rows = Grouping(axis, weight_spec.group).groups(self.weight.shape)
        self.weight_quantizer = make_quantizer(weight_spec, is_weight=True, rows=rows, axis=axis)
        # Steps and offsets stay in float32 where the weights are of a half type.
        place = {"device": self.weight.device, "dtype": torch.promote_types(self.weight.dtype, torch.float32)}
        self.weight_quantizer.to(**place)
        if not self.weight.is_meta:
            self.weight_quantizer.init_from(self.weight)
        if input_spec is not None:
            along = -1 if self.weight.ndim == 2 else 1
            self.input_quantizer = make_quantizer(input_spec, axis=along if input_spec.group else 0).to(**place)
        self.register_buffer("output_scale", None)

    def _effective_weight(self) -> Tensor:
        """w_hat, times the output scale of a folded batch norm."""
        w_hat = self.weight_quantizer(self.weight)
        if self.output_scale is None:
            return w_hat
        return w_hat * self.output_scale.view(-1, *[1] * (w_hat.ndim - 1))


class _QuantizedConvolution(_QuantizedWeight):
    """A convolution of quantized operands, with a choice of what the border sees (`padding_policy`):

    - `pad_code`: pad with 0, then quantize: the border sees quant(0), one code for hardware to pad with.
    - `snap_offset`: the same, with beta forced to -s*z (z integer), so that quant(0) is 0 where z is a code.
    - `pad_beta`: quantize, then pad with beta, which is code 0 in every configuration.
    - `border_bias`: quantize, then pad with 0, the paper's literal network.

    The four are one where 0 is quantized to 0 (no offset) or where nothing is padded with zeros.
    `extra_padding` (left, right, top, bottom, as in F.pad) is zero padding before the layer's own, e.g. of an absorbed
    nn.ZeroPad2d; it follows the policy.
    """

    padding_policy: str
    extra_padding: tuple[int, ...]

    def __init__(
        self, *args: Any, padding_policy: str = "pad_code", extra_padding: Sequence[int] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._configure(padding_policy, extra_padding)

    def _configure(self: Any, padding_policy: str, extra_padding: Sequence[int]) -> None:
        check_choice("padding_policy", padding_policy, PADDING_POLICIES)
        axes = self.weight.ndim - 2
        if extra_padding and len(extra_padding) != 2 * axes:
            raise ValueError(f"extra_padding: expected {2 * axes} numbers as F.pad takes them, got {extra_padding!r}")
        if extra_padding and self.padding_mode != "zeros":
            raise ValueError(f"extra_padding: only with padding_mode 'zeros', this layer has {self.padding_mode!r}")
        snapped = self.input_quantizer.spec.snap_offset
        if snapped and padding_policy != "snap_offset":
            raise ValueError(
                f"padding_policy: a quantizer with snap_offset needs 'snap_offset', got {padding_policy!r}"
            )
        self.padding_policy = padding_policy
        self.extra_padding = tuple(extra_padding)

    def total_padding(self: Any) -> list[int]:
        """All padding as F.pad takes it, last axis first: the layer's own plus `extra_padding`."""
        own: list[int] = list(self._reversed_padding_repeated_twice)
        extra = self.extra_padding or (0,) * len(own)
        return [a + b for a, b in zip(own, extra, strict=True)]

    def forward(self: Any, x: Tensor) -> Tensor:
        weight = self._effective_weight()
        padding = self.total_padding()
        quantizer: BaseQuantizer = self.input_quantizer
        if not any(padding):
            return self._convolve(quantizer(x), weight, padding)
        if self.padding_mode != "zeros":
            wrapped = F.pad(x, padding, mode=self.padding_mode)
            return self._convolve(quantizer(wrapped, quantizer.count_features(x)), weight, [0] * len(padding))
        if quantizer.mode != "quantize" or quantizer.zero_is_exact or self.padding_policy == "border_bias":
            return self._convolve(quantizer(x), weight, padding)
        if isinstance(quantizer, Quantizer):
            # w * pad(x_hat, c) = w * pad(x_hat - c, 0) + c * sum(w): nothing is copied into a padded map.
            kind = BORDER_OF_CODE_0 if self.padding_policy == "pad_beta" else BORDER_OF_ZERO
            shifted, border = quantizer(x, border=kind)
            around = border * weight.flatten(1).sum(1)
            return self._convolve(shifted, weight, padding, around)
        if self.padding_policy == "pad_beta":
            x_hat = pad_with(quantizer(x), padding, quantizer.offset())
        else:
            x_hat = quantizer(F.pad(x, padding), quantizer.count_features(x))
        return self._convolve(x_hat, weight, [0] * len(padding))

    def _convolve(self: Any, x_hat: Tensor, weight: Tensor, padding: list[int], around: Tensor | None = None) -> Tensor:
        """The convolution, zeros around x_hat; `around` is added to the bias."""
        before, after = padding[::2][::-1], padding[1::2][::-1]
        if before != after:
            x_hat, before = F.pad(x_hat, padding), [0] * len(before)
        convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.ndim]
        bias = self.bias
        if around is not None:
            bias = around if bias is None else bias + around
        return convolve(x_hat, weight, bias, self.stride, before, self.dilation, self.groups)


def pad_with(x: Tensor, padding: Sequence[int], value: Tensor) -> Tensor:
    """x inside a border of `value` (a scalar tensor, differentiable); x itself keeps its bits."""
    axes = len(padding) // 2
    inside = F.pad(x.new_ones((1,) * (x.ndim - axes) + tuple(x.shape[-axes:])), list(padding))
    return F.pad(x, list(padding)) + value.to(x.dtype) * (1 - inside)


def quantized_like(
    layer: nn.Module,
    weight_spec: QuantSpec,
    input_spec: QuantSpec | None = None,
    padding_policy: str = "pad_code",
    extra_padding: Sequence[int] = (),
) -> Any:
    """The quantized counterpart of a convolution, transposed convolution, linear layer or embedding of torch.

    It shares the layer's parameters. TypeError for other types: a subclass may compute something else.
    """
    kind = COUNTERPARTS.get(type(layer))
    if kind is None:
        known = ", ".join(known.__name__ for known in COUNTERPARTS)
        raise TypeError(f"quantized_like: expected {known}, got {type(layer).__name__}")
    # Taking over the attributes keeps parameters and hooks, and draws no random numbers for weights to throw away.
    new = kind.__new__(kind)
    new.__dict__.update(layer.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        new.__dict__[table] = dict(getattr(layer, table))
    new._non_persistent_buffers_set = set(layer._non_persistent_buffers_set)
    new._attach(weight_spec, input_spec)
    if isinstance(new, _QuantizedConvolution):
        new._configure(padding_policy, extra_padding)
    return new


class QConv1d(_QuantizedConvolution, nn.Conv1d):
    """nn.Conv1d on quantized weights and inputs."""


class QConv2d(_QuantizedConvolution, nn.Conv2d):
    """nn.Conv2d on quantized weights and inputs; groups, depthwise, stride, dilation, any padding."""


class QConv3d(_QuantizedConvolution, nn.Conv3d):
    """nn.Conv3d on quantized weights and inputs."""


class _QuantizedTransposed(_QuantizedWeight):
    """A transposed convolution of quantized operands: the zeros it inserts are no data, so no policy applies to them.

    Its weight is (inputs, outputs per group, ...): one step for all of it, or one per output channel of a group.
    """

    def forward(self: Any, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        axes = self.weight.ndim - 2
        output_padding = self._output_padding(
            x, output_size, self.stride, self.padding, self.kernel_size, axes, self.dilation
        )
        convolve = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[self.weight.ndim]
        return convolve(
            self.input_quantizer(x), self._effective_weight(), self.bias, self.stride, self.padding, output_padding,
            self.groups, self.dilation,
        )  # fmt: skip


class QConvTranspose1d(_QuantizedTransposed, nn.ConvTranspose1d):
    """nn.ConvTranspose1d on quantized weights and inputs."""


class QConvTranspose2d(_QuantizedTransposed, nn.ConvTranspose2d):
    """nn.ConvTranspose2d on quantized weights and inputs."""


class QConvTranspose3d(_QuantizedTransposed, nn.ConvTranspose3d):
    """nn.ConvTranspose3d on quantized weights and inputs."""


class QLinear(_QuantizedWeight, nn.Linear):
    """nn.Linear on quantized weights and inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_quantizer(x), self._effective_weight(), self.bias)


class QEmbedding(_QuantizedWeight, nn.Embedding):
    """nn.Embedding with a quantized table (one step for all of it). Only the rows looked up are quantized."""

    def __init__(self, *args: Any, weight_spec: QuantSpec, **kwargs: Any) -> None:
        if weight_spec.granularity != "tensor":
            raise ValueError("QEmbedding: its table has one step, use weight granularity 'tensor'")
        super().__init__(*args, weight_spec=weight_spec, input_spec=None, **kwargs)

    def forward(self, index: Tensor) -> Tensor:
        rows = F.embedding(
            index, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )
        return self.weight_quantizer(rows, self.weight.numel())


class QEmbeddingBag(_QuantizedWeight, nn.EmbeddingBag):
    """nn.EmbeddingBag with a quantized table; the bag's sum, mean or maximum is of quantized rows."""

    def __init__(self, *args: Any, weight_spec: QuantSpec, **kwargs: Any) -> None:
        super().__init__(*args, weight_spec=weight_spec, input_spec=None, **kwargs)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self._effective_weight(), offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip


#: The quantized counterpart of each of torch's layers; other types are not quantized.
COUNTERPARTS: dict[type[nn.Module], Any] = {
    nn.Conv1d: QConv1d,
    nn.Conv2d: QConv2d,
    nn.Conv3d: QConv3d,
    nn.ConvTranspose1d: QConvTranspose1d,
    nn.ConvTranspose2d: QConvTranspose2d,
    nn.ConvTranspose3d: QConvTranspose3d,
    nn.Linear: QLinear,
    nn.modules.linear.NonDynamicallyQuantizableLinear: QLinear,
    nn.Embedding: QEmbedding,
    nn.EmbeddingBag: QEmbeddingBag,
}


class _TwoActivations(nn.Module):
    """An operation of activations, each with its own quantizer, or all with one (`shared`)."""

    is_quantized_layer = True

    def __init__(self, specs: Sequence[QuantSpec], *, shared: bool = False, axes: tuple[int, ...] = ()) -> None:
        """`axes`: of each operand, the one along which blocks lie."""
        super().__init__()
        if shared and len(set(specs)) != 1:
            raise ValueError(f"{type(self).__name__}: shared quantizers need one spec for all inputs, got {specs}")
        self.shared = shared
        along = axes or (-1,) * len(specs)
        self.input_quantizers = nn.ModuleList(
            make_quantizer(spec, axis=axis if spec.group else 0)
            for spec, axis in zip(specs[:1] if shared else specs, along, strict=False)
        )

    def quantizer_of(self, position: int) -> BaseQuantizer:
        """The quantizer of the input at that position."""
        return cast(BaseQuantizer, self.input_quantizers[0 if self.shared else position])


class _Pair(_TwoActivations):
    """An operation of two activations, `operation`; blocks lie along `axes`."""

    operation: Callable[[Tensor, Tensor], Tensor]
    axes: tuple[int, ...] = (-1, -1)

    def __init__(self, left: QuantSpec, right: QuantSpec, *, shared: bool = False) -> None:
        super().__init__((left, right), shared=shared, axes=self.axes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return type(self).operation(self.quantizer_of(0)(x), self.quantizer_of(1)(y))


class QAdd(_Pair):
    """x + y, a residual addition; with separate steps the hardware rescales one of them."""

    operation = operator.add


class QSub(_Pair):
    """x - y; as an addition, with the second step negative."""

    operation = operator.sub


class QMul(_Pair):
    """x * y with broadcasting, a squeeze-excite product."""

    operation = operator.mul


class QMatmul(_Pair):
    """x @ y of two activations (attention's QK^T and PV); their offsets do not fold into a bias."""

    operation = operator.matmul
    axes = (-1, -2)


class QMaximum(_Pair):
    """The larger of x and y, element by element."""

    operation = torch.maximum


class QMinimum(_Pair):
    """The smaller of x and y, element by element."""

    operation = torch.minimum


class QMean(_TwoActivations):
    """The mean of one activation over axes: on codes, a sum and a factor. No place of searches over widths."""

    def __init__(self, spec: QuantSpec) -> None:
        super().__init__((spec,))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.quantizer_of(0)(x).mean(*args, **kwargs)


class QConcat(_TwoActivations):
    """Concatenation along `dim`; with one shared step it is data movement, with separate ones a rescale."""

    def __init__(self, specs: Sequence[QuantSpec], dim: int = 1, *, shared: bool = False) -> None:
        super().__init__(specs, shared=shared)
        self.inputs = len(specs)
        self.dim = dim

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        if len(tensors) != self.inputs:
            raise ValueError(f"QConcat: expected {self.inputs} tensors, got {len(tensors)}")
        return torch.cat([self.quantizer_of(i)(x) for i, x in enumerate(tensors)], self.dim)
