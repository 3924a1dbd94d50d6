"""All that can be chosen for one layer, and the quantizer specs that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quant.context import Range
from quant.operators import ASYMMETRIC, GATE, SIGNED, UNSIGNED
from quant.spec import (
    ACTIVATION_CONFIGS,
    CLIP_RULES,
    FORMATS,
    GRANULARITIES,
    HALF,
    INIT_NAMES,
    METHOD_NAMES,
    OFFSET_MODES,
    PADDING_POLICIES,
    POSITIVITY,
    SCALE_RULES,
    QuantSpec,
    check_choice,
)

# Methods that quantize weights and activations differently, and those that know no offset.
_WEIGHT_METHOD = {"pact": "dorefa"}
_WITHOUT_OFFSET = ("lsq", "pact", "qil", "dorefa")


@dataclass(frozen=True)
class Choices:
    """All that can be chosen for one layer. Every field but `skip` is an argument of `quantize` too."""

    weight_bits: int
    act_bits: int
    config: int | str = "auto"
    padding_policy: str = "pad_code"
    weight_granularity: str = "tensor"
    method: str = "lsqplus"
    init: str = "lsqplus"
    clip_rule: str = "strict"
    offset_mode: str = "learned"
    power_of_two: bool = False
    ternary_weights: bool = False
    shared_inputs: bool = False
    positivity: str = "absolute"
    weight_group: int = 0
    weight_offset: bool = False
    weight_format: str = ""
    act_format: str = ""
    scale_rule: str = "floor"
    weight_scale: str = "fp32"
    skip: bool = False

    def __post_init__(self) -> None:
        check_choice("config", self.config, ("auto", *ACTIVATION_CONFIGS))
        check_choice("padding_policy", self.padding_policy, PADDING_POLICIES)
        check_choice("weight_granularity", self.weight_granularity, GRANULARITIES)
        check_choice("method", self.method, METHOD_NAMES)
        check_choice("init", self.init, INIT_NAMES)
        check_choice("clip_rule", self.clip_rule, CLIP_RULES)
        check_choice("offset_mode", self.offset_mode, OFFSET_MODES)
        check_choice("positivity", self.positivity, POSITIVITY)
        check_choice("scale_rule", self.scale_rule, SCALE_RULES)
        check_choice("weight_scale", self.weight_scale, ("fp32", "fp16"))
        check_choice("weight_format", self.weight_format, ("", *FORMATS))
        check_choice("act_format", self.act_format, ("", *FORMATS))
        if self.weight_group and self.weight_granularity == "channel":
            raise ValueError("weight_group: groups are finer than channels: leave weight_granularity out")
        if not self.weight_group and self.weight_granularity == "group":
            raise ValueError("weight_group: missing: elements along the input channels that share a step, e.g. 64")
        self.weight_spec()
        QuantSpec(self.act_bits, False)
        if self.act_format:
            self.input_spec(Range(SIGNED, ""))

    def weight_spec(self) -> QuantSpec:
        """Weights are symmetric and signed (LSQ+ Eq. 1) unless `weight_offset`; DoReFa's levels, odd multiples of s/2,
        have an offset. A named format decides on bits and scales."""
        method = _WEIGHT_METHOD.get(self.method, self.method)
        granularity = "group" if self.weight_group else self.weight_granularity
        if self.weight_format:
            return QuantSpec.for_format(
                self.weight_format, self.weight_group, granularity, method=method, init=self.init,
                offset=self.weight_offset, scale_rule=self.scale_rule,
            )  # fmt: skip
        return QuantSpec(
            2 if self.ternary_weights else self.weight_bits, True, offset=method == "dorefa" or self.weight_offset,
            method=method, init=self.init, clip_rule=self.clip_rule, granularity=granularity, group=self.weight_group,
            power_of_two=self.power_of_two, ternary=self.ternary_weights, positivity=self.positivity,
            scale_format="fp16" if self.weight_scale == "fp16" else "learned",
        )  # fmt: skip

    def without_formats(self) -> Choices:
        """The same with integers and one step per tensor; activations of 16-bit floats stay."""
        act = self.act_format if self.act_format in HALF else ""
        plain = "tensor" if self.weight_granularity == "group" else self.weight_granularity
        return replace(
            self,
            weight_format="",
            weight_group=0,
            weight_offset=False,
            act_format=act,
            weight_granularity=plain,
            weight_scale=self.weight_scale if plain == "channel" else "fp32",
        )

    def input_spec(self, source: Range) -> QuantSpec:
        """Spec of an activation quantizer for values of that range. Float formats are signed and know no offset."""
        if self.act_format:
            return QuantSpec.for_format(self.act_format, method=self.method, init=self.init, scale_rule=self.scale_rule)
        config = self.config_for(source)
        offset = ACTIVATION_CONFIGS[config].offset
        return QuantSpec.for_config(
            self.act_bits, config, method=self.method, init=self.init, clip_rule=self.clip_rule,
            offset_mode=self.offset_mode if offset else "learned", power_of_two=self.power_of_two,
            snap_offset=offset and self.padding_policy == "snap_offset", positivity=self.positivity,
        )  # fmt: skip

    def config_for(self, source: Range) -> int:
        """Row of Table 1. A chosen row holds where the paper leaves a choice: not for gates and linear outputs."""
        if source.kind == SIGNED:
            return 2
        if source.kind == GATE or self.method in _WITHOUT_OFFSET:
            # A method without an offset clips what an activation leaves below 0, as LSQ does.
            return 2 if self.config == 2 and source.kind != GATE else 1
        if self.config == "auto":
            return {UNSIGNED: 1, ASYMMETRIC: 4}[source.kind]
        return int(self.config)
