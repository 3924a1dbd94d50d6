"""The accelerator as the formulas see it: frozen dataclasses, nothing about files.

A machine is a hierarchy of nodes, outermost first: memories and, between them, arrays that replicate everything
below. `accelerator.py` reads YAML into these types; mapping, counts and cost only ever see them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

from hwsim.machine.measured import Measurements
from hwsim.machine.rules import Rules

Operand = Literal["weight", "input", "output"]
OPERANDS: tuple[Operand, ...] = ("weight", "input", "output")

Packing = Literal["dense", "floor", "padded"]
Padding = Literal["stored", "inserted"]
FirstFill = Literal["hidden", "exposed"]
MacStyle = Literal["fixed", "subword", "bit_serial", "fusion", "table", "in_memory", "measured"]
MAC_STYLES: tuple[MacStyle, ...] = ("fixed", "subword", "bit_serial", "fusion", "table", "in_memory", "measured")
Serial = Literal["weight", "input", "both"]
Coding = Literal["bitmap", "run_length"]


@dataclass(frozen=True)
class ZeroCoding:
    """Codes written without their zeros: `zeros` is the share of them that is 0, as measured.

    `bitmap`: one bit for each code says whether it follows. `run_length`: each code that is written has the number of
    zeros before it in `run_bits` in front; a longer run writes a zero between.
    """

    zeros: float
    coding: Coding
    run_bits: int = 0


@dataclass(frozen=True)
class Memory:
    """One storage level; sizes and bandwidths are per instance (one instance per element of the arrays above).

    `keeps`: operands it may hold; `bypass`: the subset of them that a mapping may leave out here.
    `partitions`: separate capacity per operand (bits) where the level is not shared; empty means one shared pool.
    `packing`: how narrow operands share a word of `word_bits`: `dense` (bit-packed), `floor` (an operand never
    straddles two words), `padded` (one operand per word, or several words if wider).
    Energies are per access of one whole word.
    """

    name: str
    size_bits: int | None  # None: unlimited (the outermost memory)
    keeps: tuple[Operand, ...]
    bypass: tuple[Operand, ...] = ()
    partitions: tuple[tuple[Operand, int], ...] = ()
    word_bits: int = 8
    packing: Packing = "dense"
    read_energy_pj: float = 0.0
    write_energy_pj: float = 0.0
    read_bandwidth_bits_per_cycle: float | None = None  # None: never the bottleneck
    write_bandwidth_bits_per_cycle: float | None = None
    efficiency: float = 1.0  # what the bandwidths above already contain: the share of a port's peak that it sustains
    shared_port: bool = False  # reads and writes share read_bandwidth_bits_per_cycle
    double_buffered: bool = True
    first_fill: FirstFill = "hidden"  # of a double-buffered level: behind the layer before, or waited for
    padding: Padding = "stored"  # zeros of the border around inputs: read from here, or made on the way
    # Bits moved (outermost memory: and stored) of an operand's own: a fixed share, or by width from the share of zeros.
    compression: tuple[tuple[Operand, float | ZeroCoding], ...] = ()
    total_bits: int | None = None  # of the outermost memory: what the whole network must fit in; None: unlimited
    stores: tuple[Operand, ...] = OPERANDS  # of the outermost memory: whole tensors that may live here between layers
    area_mm2: float = 0.0  # per instance
    leakage_mw: float = 0.0  # per instance
    source: str = ""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of an array: its size and the loop dims that may be unrolled on it (several may share it)."""

    name: str
    size: int
    dims: tuple[str, ...]
    max_dims: int | None = None  # at most so many different dims at once on this axis


@dataclass(frozen=True)
class Array:
    """A spatial fan-out: everything below it exists once per element.

    Operands whose points coincide are multicast (one parent read, one write per child); outputs that share points
    are reduced on the way up (one parent write). `hop_energy_pj_per_bit` is charged per bit and per child reached.
    """

    name: str
    axes: tuple[Axis, ...]
    hop_energy_pj_per_bit: float = 0.0
    reduction: bool = True  # False: dims C, R, S may not be unrolled here
    multicast: bool = True  # False: every child's fill costs the parent a read of its own
    systolic: bool = False  # fill and drain of rows + columns cycles per tile are charged
    loads_whole_tiles: bool = False  # weights come from outside in tiles of all elements, idle ones included
    command_steps: int = 1  # work on a tile that is held still goes by whole commands of so many steps
    source: str = ""
    hop_word_bits: int = 1  # wires come in words of so many bits: an operand pays for whole words

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for axis in self.axes:
            n *= axis.size
        return n


Node = Memory | Array


@dataclass(frozen=True)
class MacMode:
    """One way a MAC unit can work: operands up to these widths, at this rate, for this energy per MAC."""

    weight_bits: int
    input_bits: int
    macs_per_cycle: float
    energy_pj: float
    sustained: float = 1.0  # share of the rate that kernels reach
    start_cycles: int = 0  # to start a layer in this mode, beside the machine's own layer_overhead_cycles
    unpacks: bool = False  # weights up to weight_bits are unpacked into a wider mode's MACs, even where that costs time
    elements: tuple[str, ...] = ()  # what this mode multiplies: int, or floats by name; empty: all that the MACs do


@dataclass(frozen=True)
class Granule:
    """A way to work: iterations of these loops, taken together, go by whole multiples of `size`; the rest is idle."""

    loops: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class MacUnit:
    """One multiply-accumulate unit per innermost element; see mac.py for the styles' formulas.

    `energy_pj` and `macs_per_cycle` hold at the native widths `weight_bits` x `input_bits`. `accumulator_bits` is the
    widest partial sum the unit keeps. `latches`: operands held in a register at the MAC, so that innermost irrelevant
    loops cost no read of the innermost memory. Without a latch every MAC reads its operands and reads and writes its
    partial sum.
    """

    style: MacStyle
    weight_bits: int
    input_bits: int
    accumulator_bits: int
    energy_pj: float
    macs_per_cycle: float = 1.0
    sustained: float = 1.0  # share of the rate that the best kernels reach; of a mode: its own
    latches: tuple[Operand, ...] = ()
    lanes: tuple[str, ...] = ()  # loops whose iterations fill a unit that does several products at once
    granules: tuple[Granule, ...] = ()  # ways to work, of which a layer takes the one with the fewest steps
    modes: tuple[MacMode, ...] = ()  # subword, table: every mode, the native one included
    serial: Serial = "weight"  # bit_serial: which operand comes digit by digit
    digit_bits: int = 1  # bit_serial: bits per digit
    fixed_energy_share: float = 0.0  # bit_serial: share of energy_pj that stays when digits are skipped
    sum_bits: float = 0.0  # subword, bit_serial: energy goes with w*a + sum_bits*(w + a)
    brick_bits: int = 2  # fusion: width of one brick
    cell_bits: int = 1  # in_memory: weight bits per cell
    dac_bits: int = 1  # in_memory: input bits per phase
    rows: int = 1  # in_memory: cells summed on one column
    adc_bits: int | None = None  # in_memory: None means lossless
    adc_energy_pj: float = 0.0  # in_memory: per conversion; 0: digital, no converter
    columns: int | None = None  # in_memory: columns of a row, where one unit is a whole row
    sum_columns: int = 0  # in_memory: columns that the sum of a weight takes beside its own
    measurements: Measurements | None = None  # measured: the whole machine, in place of all other figures
    area_mm2: float = 0.0
    leakage_mw: float = 0.0
    source: str = ""

    def partial_sum_bits(self, needed: int) -> int:
        """Width in which partial sums of a layer that needs `needed` bits are kept: never wider than the unit's own."""
        return min(needed, self.accumulator_bits)


@dataclass(frozen=True)
class VectorUnit:
    """Elementwise work beside the array: requantization, activations, additions, pooling, softmax."""

    lanes: int
    energy_pj_per_op: float
    lookup_energy_pj: float
    bits: int = 32
    area_mm2: float = 0.0
    leakage_mw: float = 0.0
    source: str = ""
    cycles_per_op: float = 1.0  # of one lane
    ops_per_copied_code: int = 0  # convolutions copy every window before its products (im2col), code by code


@dataclass(frozen=True)
class Capabilities:
    """What the machine can do at all; a request outside is refused with the rule's name."""

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    output_bits: tuple[int, ...]
    signed_activations: bool = True
    unsigned_activations: bool = True
    per_channel_scales: bool = True
    requantization: str = "multiplier"  # multiplier | shift | thresholds
    pad_value: str = "zero_only"  # zero_only | any_code
    border_bias: bool = False
    zero_gating: tuple[Operand, ...] = ()
    zero_gating_saving: float = 0.0  # share of a MAC's energy that a zero operand saves
    fused: tuple[str, ...] = ("activation", "requantize")
    operators: tuple[str, ...] = ()  # empty: all that the cost model knows
    elements: tuple[str, ...] = ("int",)  # what the MACs multiply: int, or floats by name
    group_scales: tuple[str, ...] = ()  # ways to scales along the sums: mac, vector, unpack
    scaled_elements: tuple[str, ...] = ()  # whose scales the MACs apply, where group_scales has mac; empty: of all
    unpack_rows: int = 128  # rows of activations that a weight serves each time it is unpacked
    causal_block: int = 0  # kernels skip blocks of that many tokens above the diagonal; 0: nothing is skipped


@dataclass(frozen=True)
class Spread:
    """How far the energies of one component of the bill, or the rates of one part, may lie from the truth.

    `factor` either way; `origin`: what they come from, the same for estimates that are wrong together.
    """

    component: str
    factor: float
    origin: str


@dataclass(frozen=True)
class Accelerator:
    """A whole machine. `hierarchy` is outermost first; the MAC units sit below its last node."""

    name: str
    clock_mhz: float
    node_nm: float
    hierarchy: tuple[Node, ...]
    mac: MacUnit
    vector: VectorUnit
    capabilities: Capabilities
    static_power_mw: float = 0.0
    control_power_mw: float = 0.0  # while it works: clock network and control
    other_area_mm2: float = 0.0
    sources: tuple[str, ...] = ()
    spreads: tuple[Spread, ...] = ()  # of components whose energies are estimates
    rate_spreads: tuple[Spread, ...] = ()  # of memories, mac, vector and start whose rates are estimates
    notes: tuple[str, ...] = field(default=())
    overlap: bool = True  # False: MACs, memory ports and vector work take turns, as on a plain processor
    layer_overhead_cycles: int = 0  # to start one layer: launch, configuration, call
    constraints: Rules = ()  # the machine's own schedule, which a search follows only where it is asked to

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, each.name) for each in fields(self)))

    def __hash__(self) -> int:  # a machine is the key of many memos
        return self._hash

    def __getstate__(self) -> dict[str, object]:
        """The fields alone: hashes of text differ from process to process."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def memories(self) -> tuple[Memory, ...]:
        """Memories, outermost first."""
        return tuple(n for n in self.hierarchy if isinstance(n, Memory))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Spatial arrays, outermost first."""
        return tuple(n for n in self.hierarchy if isinstance(n, Array))

    @cached_property
    def outermost(self) -> Memory:
        """The memory that holds everything; the loader guarantees that it comes first."""
        return self.memories[0]

    @cached_property
    def activation_memory(self) -> Memory | None:
        """Where tensors may stay between layers: the outermost single on-chip memory that inputs and outputs share."""
        for node in self.hierarchy[1:]:
            if isinstance(node, Array) and node.size > 1:
                return None
            if isinstance(node, Memory) and {"input", "output"} <= set(node.keeps) and not node.partitions:
                return node
        return None

    def instances(self, node: Node) -> int:
        """How many copies of `node` the machine has: the product of the arrays above it."""
        n = 1
        for other in self.hierarchy:
            if other is node:
                return n
            if isinstance(other, Array):
                n *= other.size
        return n

    @cached_property
    def mac_units(self) -> int:
        """Number of MAC units: one per element of all arrays."""
        n = 1
        for array in self.arrays:
            n *= array.size
        return n


def stationary_memory(accelerator: Accelerator, array: Array) -> Memory | None:
    """The memory directly inside an array: what it keeps is still while a systolic array works."""
    inside = accelerator.hierarchy[accelerator.hierarchy.index(array) + 1 :]
    return inside[0] if inside and isinstance(inside[0], Memory) else None
