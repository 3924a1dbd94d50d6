"""The shape of an accelerator YAML as pydantic models: every key, its type, its range, its meaning.

The JSON Schema for editors and the key table of accel_specs/README.md are generated from these models, so neither can
drift from what the loader accepts. `accelerator.py` loads files with them; nothing else imports pydantic.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from hwsim.machine.parts import MAC_STYLES

MAX_WIDTH = 64
PLUGIN_STYLE = "^[a-z][a-z0-9_]*[.][a-z][a-z0-9_]*$"  # library.name


def expand_widths(value: object) -> object:
    """`"2..8"` as [2, 3, ..., 8]; anything else as it is, for the type check to judge."""
    match = re.fullmatch(r"\s*(\d{1,2})\s*\.\.\s*(\d{1,2})\s*", value) if isinstance(value, str) else None
    if match is None:
        return value
    low, high = int(match[1]), int(match[2])
    return list(range(low, high + 1)) or value


def no_limit(value: object) -> object:
    """`unlimited` as None, which Memory takes for no limit."""
    return None if value == "unlimited" else value


def by_law(value: object) -> object:
    """`auto` as None, which the loader replaces by the law's figure."""
    return None if value == "auto" else value


Operand = Literal["weight", "input", "output"]
Element = Literal["int", "fp16", "bf16", "e5m2", "e4m3", "e3m2", "e2m3", "e2m1"]
Dim = Literal["N", "G", "K", "C", "P", "Q", "R", "S"]
Turn = Literal["N", "G", "K", "C", "P", "Q", "R", "S", "rest"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=60)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[int, Field(gt=0, le=2**50)]
Capacity = Annotated[Size | None, BeforeValidator(no_limit, json_schema_input_type=Size | Literal["unlimited"])]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Widths = Annotated[
    list[Width],
    BeforeValidator(expand_widths, json_schema_input_type=list[Width] | str),
    Field(min_length=1),
]
Energy = Annotated[float, Field(gt=0, le=1e6)]
# Of a memory: 0 is an ideal register, which yaml_checks allows inside all arrays alone.
AccessEnergy = Annotated[float, Field(ge=0, le=1e6)]
AutoAccessEnergy = Annotated[
    AccessEnergy | None, BeforeValidator(by_law, json_schema_input_type=AccessEnergy | Literal["auto"])
]
AutoEnergy = Annotated[Energy | None, BeforeValidator(by_law, json_schema_input_type=Energy | Literal["auto"])]
MemoryLaw = Literal[
    "cacti_hp", "cacti_lop", "cacti_lstp", "system", "middle", "ddr3", "ddr4", "lpddr4", "hbm2", "hbm3", "gddr6"
]
Positive = Annotated[float, Field(ge=1e-15, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=1e-9, le=1)]
SumBits = Annotated[float, Field(ge=0, le=64)]


class Spec(BaseModel):
    """Settings of all parts: no unknown keys, no guessing of types, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Part(Spec):
    """What every part of the machine states about itself."""

    source: Text = Field(description="where the numbers come from")
    estimated: Text | None = Field(None, description="which numbers are estimates, and how they were made")
    spread: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None,
        description="estimated energies of this part: a factor either way; without it, what published laws differ",
    )


class TimedPart(Part):
    """A part whose rates take time."""

    rate_spread: Annotated[float, Field(ge=1, le=100)] | None = Field(
        None,
        description="estimated rates of this part (bandwidths; MACs or operations per cycle; of the machine: starts of "
        "layers): a factor either way; without it they are taken as exact",
    )


class Partitions(Spec):
    """Capacity per operand where a memory is divided."""

    weight: Size | None = Field(None, description="bits for weights")
    input: Size | None = Field(None, description="bits for inputs")
    output: Size | None = Field(None, description="bits for outputs and partial sums")


class ZeroCodingSpec(Spec):
    """Codes written without their zeros."""

    zeros: Share = Field(description="share of the codes that is 0, as measured")
    coding: Literal["bitmap", "run_length"] = Field(
        description="how they are left out: a bit for each code, or the length of the run before each that is written"
    )
    run_bits: Annotated[int, Field(ge=1, le=8)] | None = Field(None, description="bits of a run's length (run_length)")


def coding_kind(value: object) -> str:
    """Which form an entry of `compression` has."""
    return "<zeros>" if isinstance(value, dict | ZeroCodingSpec) else "<share>"


CodedShare = Annotated[
    Annotated[Rate, Tag("<share>")] | Annotated[ZeroCodingSpec, Tag("<zeros>")], Discriminator(coding_kind)
]


class Compression(Spec):
    """Bits of an operand's compressed codes over those of the plain ones: a share, or zeros left out."""

    weight: CodedShare | None = Field(None, description="share of the weights' bits, or their zeros")
    input: CodedShare | None = Field(None, description="share of the inputs' bits, or their zeros")
    output: CodedShare | None = Field(
        None, description="share of the finished outputs' bits, or their zeros; unfinished sums stay whole"
    )


class MemorySpec(TimedPart):
    """One memory level; sizes, energies and bandwidths of ONE instance."""

    memory: Name = Field(description="name of the level")
    size_bits: Capacity = Field(
        description="capacity for tiles; of the outermost memory: for the network, or `unlimited`"
    )
    keeps: list[Operand] = Field(min_length=1, max_length=3, description="operands it may hold")
    bypass: list[Operand] = Field(default=[], description="operands of `keeps` that a mapping may leave out here")
    partitions: Partitions | None = Field(None, description="separate capacities; without it one shared pool")
    word_bits: Annotated[int, Field(gt=0, le=65536)] = Field(description="bits moved by one access")
    packing: Literal["dense", "floor", "padded"] = Field(
        "dense", description="narrow operands in a word: bit-packed, never straddling, or one per word"
    )
    read_energy_pj: AutoAccessEnergy = Field(
        description="pJ to read one word; `auto`: by energy_law; 0: an ideal register"
    )
    write_energy_pj: AutoAccessEnergy = Field(
        description="pJ to write one word; `auto`: by energy_law; 0: an ideal register"
    )
    energy_law: MemoryLaw | None = Field(
        None, description="law behind `auto`, by size, word, ports and node; also area and leakage where left out"
    )
    read_bandwidth_bits_per_cycle: Positive | None = Field(None, description="without it never the bottleneck")
    write_bandwidth_bits_per_cycle: Positive | None = Field(None, description="without it never the bottleneck")
    efficiency: Rate = Field(
        1.0, description="share of the bandwidths that its ports sustain (refresh, turnarounds), from measurements"
    )
    latency_cycles: Size | None = Field(None, description="cycles from a request to its data")
    outstanding_bits: Size | None = Field(
        None, description="bits on their way at once: with latency_cycles a port moves at most their ratio per cycle"
    )
    shared_port: bool = Field(False, description="reads and writes share read_bandwidth_bits_per_cycle")
    double_buffered: bool = Field(True, description="fills overlap compute; otherwise they add to the latency")
    first_fill: Literal["hidden", "exposed"] = Field(
        "hidden", description="a layer's first tiles of a double-buffered level: behind the layer before, or waited for"
    )
    padding: Literal["stored", "inserted"] = Field(
        "stored", description="zeros of the border around inputs: read from here, or made on the way out of it"
    )
    compression: Compression | None = Field(
        None,
        description="by operand: bits moved over the plain ones, or `{zeros: 0.5, coding: bitmap}` (`run_length` with "
        "`run_bits`); outermost memory: weights stored as well",
    )
    stores: list[Operand] | None = Field(
        None, description="outermost memory: operands whose whole tensors may live here; without it all"
    )
    area_mm2: Positive | None = Field(None, description="mm2; without it estimated from size_bits")
    leakage_mw: Positive | None = Field(None, description="mW; without it estimated from area")


class AxisSpec(Spec):
    """One spatial axis of an array."""

    size: Annotated[int, Field(gt=0, le=2**20)] = Field(description="elements along the axis")
    dims: list[Dim] = Field(min_length=1, description="loops that may be unrolled along it")
    max_dims: Annotated[int, Field(ge=1, le=8)] | None = Field(None, description="at most so many of them at once")


class ArraySpec(Part):
    """A spatial fan-out: everything below exists once per element."""

    array: Name = Field(description="name of the array")
    axes: dict[Name, AxisSpec] = Field(min_length=1, description="its axes by name; rows first for a systolic array")
    hop_energy_pj_per_bit: Energy | None = Field(
        None, description="pJ per bit delivered to or sent up from one element"
    )
    hop_word_bits: Width = Field(1, description="an operand pays for whole words of so many wires")
    reduction: bool = Field(True, description="partial sums are added between elements (needed to unroll C, R, S)")
    multicast: bool = Field(True, description="one parent read serves all elements that need the same point")
    systolic: bool = Field(False, description="fill and drain cycles of rows + columns are charged")
    loads_whole_tiles: bool = Field(
        False, description="weights come from outside in tiles of the whole array, zeros for elements without work"
    )
    command_steps: Annotated[int, Field(ge=1, le=2**16)] = Field(
        1, description="work on a tile that the memory inside holds still goes by whole commands of so many steps"
    )


class GranuleSpec(Spec):
    """A way to work: loops whose iterations go by whole multiples."""

    loops: list[Dim] = Field(min_length=1, description="loops taken together")
    size: Annotated[int, Field(ge=2, le=2**16)] = Field(description="iterations in time go by multiples of it")


class MacBase(TimedPart):
    """What all MAC styles state: one unit per innermost element."""

    weight_bits: Width = Field(description="native weight width")
    input_bits: Width = Field(description="native input width")
    accumulator_bits: Width = Field(description="widest partial sum kept")
    energy_pj: AutoEnergy = Field(
        description="pJ per MAC at native widths, accumulation included; `auto`: by energy_law"
    )
    energy_law: Literal["synthesis_45nm"] | None = Field(None, description="law behind `auto`, by widths and node")
    macs_per_cycle: Positive = Field(1.0, description="rate at native widths")
    sustained: Rate = Field(1.0, description="share of the peak rate that the best kernels reach, from measurements")
    latches: list[Operand] = Field(default=[], description="operands kept in a register at the MAC")
    lanes: list[Dim] = Field(
        default=[], description="loops that fill a unit of several products per cycle; required where one has them"
    )
    granules: list[GranuleSpec] = Field(
        default=[],
        description="ways to work, each with loops that go by whole multiples; a layer takes the one of fewest steps",
    )
    area_mm2: Positive | None = Field(None, description="mm2 per unit; without it estimated from widths and style")
    leakage_mw: Positive | None = Field(None, description="mW per unit; without it estimated from area")


class ModeSpec(Spec):
    """One mode of a sub-word or tabulated MAC unit."""

    weight_bits: Width = Field(description="weights up to this width")
    input_bits: Width = Field(description="inputs up to this width")
    macs_per_cycle: Positive = Field(description="rate in this mode")
    energy_pj: Energy | None = Field(None, description="pJ per MAC in this mode; without it by mac.sum_bits")
    sustained: Rate = Field(1.0, description="share of this mode's rate that kernels reach, from measurements")
    start_cycles: Annotated[int, Field(ge=0, le=10**9)] = Field(
        0, description="cycles to start a layer in this mode, on top of layer_overhead_cycles"
    )
    unpacks: bool = Field(
        False, description="narrow weights are unpacked into a wider mode's MACs, at its pJ; may be the slower of both"
    )
    elements: list[Element] = Field(
        default=[], description="what this mode multiplies, out of capabilities.elements; without it all of them"
    )


class FixedMac(MacBase):
    """Narrow operands are padded (no gain), wider ones take several passes."""

    style: Literal["fixed"] = Field(description="narrow operands padded, wider ones in passes")


class ModesMac(MacBase):
    """A table of modes; an operand pair runs in the cheapest mode that holds it."""

    style: Literal["subword", "table"] = Field(description="modes by construction, or measured")
    modes: list[ModeSpec] = Field(min_length=1, description="all modes, the native one included")
    sum_bits: SumBits | None = Field(
        None, description="energy of modes without energy_pj goes with w*a + sum_bits*(w + a): registers, adders"
    )


class BitSerialMac(MacBase):
    """Digits of one or both operands come one after another."""

    style: Literal["bit_serial"] = Field(description="time and energy by digits")
    serial: Literal["weight", "input", "both"] = Field(description="which operand comes digit by digit")
    digit_bits: Annotated[int, Field(ge=1, le=16)] = Field(1, description="bits per digit")
    fixed_energy_share: Share = Field(0.0, description="share of energy_pj that stays when digits are skipped")
    sum_bits: SumBits | None = Field(
        None, description="serial: both: energy goes with w*a + sum_bits*(w + a): registers and adders shrink slowly"
    )


class FusionMac(MacBase):
    """Bricks of a few bits that fuse into wider multipliers."""

    style: Literal["fusion"] = Field(description="ceil(w/brick)*ceil(a/brick) bricks per MAC")
    brick_bits: Annotated[int, Field(ge=1, le=8)] = Field(2, description="width of one brick")


class InMemoryMac(MacBase):
    """Bit-sliced array with a converter per column."""

    style: Literal["in_memory"] = Field(description="weight slices side by side, input bits in phases")
    cell_bits: Annotated[int, Field(ge=1, le=8)] = Field(1, description="weight bits per cell")
    dac_bits: Annotated[int, Field(ge=1, le=8)] = Field(1, description="input bits per phase")
    rows: Annotated[int, Field(ge=1, le=65536)] = Field(description="cells summed on one column")
    adc_bits: Annotated[int, Field(ge=1, le=24)] | None = Field(None, description="without it lossless")
    adc_energy_pj: Energy | None = Field(None, description="pJ per conversion; without it digital, no converter")
    columns: Size | None = Field(None, description="cells of a row, where one unit is a whole row with all its weights")
    sum_columns: Annotated[int, Field(ge=0, le=64)] = Field(
        0, description="columns of each weight's sum beside its own; they do not shrink with the weight"
    )


class PluginMac(MacBase):
    """A style that an installed package adds: its function is asked once for every pair of widths (mac_plugin.py)."""

    style: Annotated[str, Field(pattern=PLUGIN_STYLE)] = Field(
        description="LIBRARY.NAME of an installed plug-in (docs/plugins.md); area_mm2 is required with it"
    )
    parameters: dict[Name, float] = Field(default={}, description="numbers that its function reads besides")


class MeasuredMac(Part):
    """A machine known by measurements of whole layers; its hierarchy is the outermost memory alone."""

    style: Literal["measured"] = Field(description="whole layers from a table, interpolated")
    table: Text = Field(description="CSV beside the spec: loops, strides, weight_bits, input_bits, cycles, energy_pj")
    accumulator_bits: Width = Field(description="widest partial sum kept")
    energy_pj_per_cycle: Energy | None = Field(None, description="pJ per cycle where the table has no energy_pj")
    area_mm2: Positive | None = Field(None, description="mm2 of the machine; never estimated")
    leakage_mw: Positive | None = Field(None, description="mW on top of the measured energy")


class VectorSpec(TimedPart):
    """Elementwise work beside the array."""

    lanes: Annotated[int, Field(gt=0, le=2**20)] = Field(description="operations per cycle")
    energy_pj_per_op: Energy = Field(description="pJ per operation")
    lookup_energy_pj: Energy = Field(description="pJ per table lookup")
    cycles_per_op: Positive = Field(1.0, description="cycles one lane needs for an operation")
    ops_per_copied_code: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="convolutions copy the window of every output pixel first (im2col): operations per code"
    )
    bits: Width = Field(32, description="width of the unit")
    area_mm2: Positive | None = Field(None, description="mm2; without it estimated from lanes and bits")
    leakage_mw: Positive | None = Field(None, description="mW; without it estimated from area")


class CapabilitySpec(Spec):
    """What the machine can do at all; anything else is refused with the rule's name."""

    weight_bits: Widths = Field(description='widths allowed: a list, or "2..8"')
    activation_bits: Widths = Field(description="widths of inputs")
    output_bits: Widths = Field(description="widths written back")
    signed_activations: bool = Field(True, description="signed input codes")
    unsigned_activations: bool = Field(True, description="unsigned input codes")
    per_channel_scales: bool = Field(True, description="one weight scale per output channel")
    requantization: Literal["multiplier", "shift", "thresholds"] = Field(
        "multiplier", description="how outputs become codes"
    )
    pad_value: Literal["zero_only", "any_code"] = Field("zero_only", description="codes the border may be filled with")
    border_bias: bool = Field(False, description="bias may depend on the position along the border")
    zero_gating: list[Operand] = Field(default=[], description="operands whose zeros save MAC energy")
    zero_gating_saving: Share = Field(0.0, description="share of a MAC's energy that a zero saves")
    fused: list[Literal["requantize", "activation", "normalization", "elementwise", "pooling"]] = Field(
        default=["requantize", "activation"], description="done on the way out of the array, without memory traffic"
    )
    elements: list[Element] = Field(default=["int"], description="what the MACs multiply: integers, floats by name")
    group_scales: list[Literal["mac", "vector", "unpack"]] = Field(
        default=[],
        description="who multiplies by scales along a sum: mac (its own), vector (unit, once per group); "
        "unpack: narrow weights become 16-bit floats first",
    )
    scaled_elements: list[Element] = Field(
        default=[], description="elements whose scales the MACs apply, where group_scales names mac; without it all"
    )
    unpack_rows: Annotated[int, Field(ge=1, le=2**20)] = Field(
        128, description="rows of activations that a weight serves each time it is unpacked"
    )
    causal_block: Annotated[int, Field(ge=0, le=2**20)] = Field(
        0, description="attention skips blocks of that many tokens above the diagonal; 0: it computes the square"
    )
    operators: list[str] = Field(default=[], description="operators it can run; empty: all that are priced")
    source: Text | None = Field(None, description="where this comes from")


def node_kind(value: Any) -> str | None:
    """Which model an entry of `hierarchy` belongs to."""
    if not isinstance(value, dict):
        return None
    return "<memory>" if "memory" in value else "<array>" if "array" in value else None


def mac_kind(value: Any) -> str | None:
    """Which model a `mac` belongs to."""
    style: Any = value.get("style") if isinstance(value, dict) else None
    if style in ("subword", "table"):
        return "<modes>"
    if isinstance(style, str) and re.fullmatch(PLUGIN_STYLE, style):
        return "<plugin>"
    return f"<{style}>" if style in MAC_STYLES else None


NodeSpec = Annotated[
    Annotated[MemorySpec, Tag("<memory>")] | Annotated[ArraySpec, Tag("<array>")], Discriminator(node_kind)
]
MacSpec = Annotated[
    Annotated[FixedMac, Tag("<fixed>")]
    | Annotated[ModesMac, Tag("<modes>")]
    | Annotated[BitSerialMac, Tag("<bit_serial>")]
    | Annotated[FusionMac, Tag("<fusion>")]
    | Annotated[InMemoryMac, Tag("<in_memory>")]
    | Annotated[PluginMac, Tag("<plugin>")]
    | Annotated[MeasuredMac, Tag("<measured>")],
    Discriminator(mac_kind),
]


MAC_MODELS: dict[str, type[BaseModel]] = {
    "<fixed>": FixedMac,
    "<modes>": ModesMac,
    "<bit_serial>": BitSerialMac,
    "<fusion>": FusionMac,
    "<in_memory>": InMemoryMac,
    "<plugin>": PluginMac,
    "<measured>": MeasuredMac,
}


def limit_text(value: object) -> object:
    """A number, `all` or `<=n` as text; anything else is refused."""
    right = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**40
    if right or (isinstance(value, str) and re.fullmatch(r"all|<= *[1-9][0-9]{0,11}", value)):
        return str(value)
    raise PydanticCustomError("limit", 'a whole number from 1, "<=n" or all')


LimitForm = Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern="^(all|<= *[1-9][0-9]*)$")]
LimitText = Annotated[str, BeforeValidator(limit_text, json_schema_input_type=LimitForm)]
LimitTexts = Annotated[dict[Dim, LimitText], Field(min_length=1)]


class ConstraintSpec(Spec):
    """What the schedule keeps at one level, an array or a memory."""

    level: Name = Field(description="name of the array or memory")
    order: Annotated[list[Turn], Field(min_length=1)] | None = Field(
        None, description="its loops in time, the fastest first; `rest`: all that are not named, which else are free"
    )
    factors: LimitTexts | None = Field(
        None, description='iterations of its loops in time: 4, "<=4", or `all` that are left'
    )
    unroll: Annotated[dict[Name, LimitTexts], Field(min_length=1)] | None = Field(
        None, description="array: by axis, elements side by side per loop: as `factors`"
    )
    min_use: Rate | None = Field(None, description="array: least share of its elements that work")
    keep: Annotated[list[Operand], Field(min_length=1)] | None = Field(
        None, description="memory: operands that it has to hold"
    )
    bypass: Annotated[list[Operand], Field(min_length=1)] | None = Field(
        None, description="memory: operands that it may not hold"
    )
    tile: LimitTexts | None = Field(None, description="memory: extents of its tiles: as `factors`")
    source: Text | None = Field(None, description="where this comes from")


class ConstraintsSpec(Spec):
    """A file of constraints."""

    constraints: Annotated[list[ConstraintSpec], Field(min_length=1)] = Field(
        description="what the schedule keeps, level by level"
    )


class AcceleratorSpec(TimedPart):
    """A whole machine, outermost memory first."""

    name: Name = Field(description="bare name of the machine")
    clock_mhz: Annotated[float, Field(ge=1e-6, le=20000)] = Field(description="clock in MHz")
    node_nm: Annotated[float, Field(ge=0.1, le=500)] = Field(description="technology node in nm")
    static_power_mw: Positive | None = Field(
        None, description="idle power of the whole machine; replaces leakage estimates"
    )
    control_power_mw: Positive | None = Field(
        None, description="power of clock network and control while the machine works, on top of the idle power"
    )
    other_area_mm2: Positive | None = Field(None, description="control, interfaces and whatever is not listed")
    overlap: bool = Field(True, description="false: MACs, memory ports and vector work take turns (a plain processor)")
    layer_overhead_cycles: Annotated[int, Field(gt=0, le=10**9)] | None = Field(
        None, description="cycles to start one layer: launch, configuration, call"
    )
    hierarchy: list[NodeSpec] = Field(min_length=1, description="memories and arrays, outermost first")
    mac: MacSpec = Field(description="the MAC unit at every innermost element")
    vector: VectorSpec = Field(description="the vector unit")
    capabilities: CapabilitySpec = Field(description="what it can do")
    constraints: Annotated[list[ConstraintSpec], Field(min_length=1)] | None = Field(
        None, description="the machine's own schedule; the search is free of it unless --constraints own"
    )


def json_schema() -> str:
    """JSON Schema of the YAML, as published in hwsim/machine/accelerator.schema.json."""
    schema = AcceleratorSpec.model_json_schema()
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "hwsim accelerator"}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def key_table() -> str:
    """Markdown tables of all keys with their meaning, as they stand in accel_specs/README.md."""
    parts: list[tuple[str, type[BaseModel]]] = [
        ("top level", AcceleratorSpec),
        ("`hierarchy` entry: a memory", MemorySpec),
        ("an entry of `compression`: zeros left out", ZeroCodingSpec),
        ("`hierarchy` entry: an array", ArraySpec),
        ("an axis", AxisSpec),
        ("`mac`, every style but `measured`", MacBase),
        ("`mac`, style `subword` or `table`", ModesMac),
        ("a mode", ModeSpec),
        ("a granule", GranuleSpec),
        ("`mac`, style `bit_serial`", BitSerialMac),
        ("`mac`, style `fusion`", FusionMac),
        ("`mac`, style `in_memory`", InMemoryMac),
        ("`mac`, style `measured`", MeasuredMac),
        ("`mac`, a plug-in's style", PluginMac),
        ("`vector`", VectorSpec),
        ("`capabilities`", CapabilitySpec),
        ("a `constraints` entry", ConstraintSpec),
    ]
    lines: list[str] = []
    for title, model in parts:
        shared = (
            set(MacBase.model_fields) - {"style"} if issubclass(model, MacBase) and model is not MacBase else set[str]()
        )
        lines += [f"**{title}**", "", "| key | meaning | default |", "| --- | --- | --- |"]
        for key, known in model.model_fields.items():
            if key in shared:
                continue
            default = (
                "required" if known.is_required() else "none" if known.default is None else json.dumps(known.default)
            )
            lines.append(f"| `{key}` | {known.description} | {default} |")
        lines.append("")
    return "\n".join(lines)
