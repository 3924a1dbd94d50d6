"""Access counts: equal to the walk of tests.oracles, to closed forms a reader can check, and to their invariants."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Conventions, Counts
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer, Loops
from tests.oracles import walk_counts
from tests.strategies import conv, machine, product, triple

CONVENTIONS = (Conventions(), Conventions(drain_reads=False, broadcast_partials=True))
DRAM = Memory("dram", None, OPERANDS)
TOP = Hold("dram", OPERANDS)


def loops(text: str, array: str = "pe", axis: str = "x") -> tuple[Node, ...]:
    """Loops such as "K4 P7 C*3", outermost first; a star makes a loop spatial."""
    found: list[Node] = []
    for word in text.split():
        spatial = word[1] == "*"
        factor = int(word.lstrip("NGKCPQRS*"))
        found.append(Spatial(word[0], factor, array, axis) if spatial else Temporal(word[0], factor))
    return tuple(found)


def differences(seeds: range) -> list[str]:
    """Fields in which closed form and walk disagree, by seed."""
    found: list[str] = []
    for seed in seeds:
        layer, accelerator, mapping = triple(seed)
        assert not validate(mapping, layer, accelerator)
        conventions = CONVENTIONS[seed % 2]
        walked = walk_counts(layer, mapping, accelerator, conventions)
        counted = count_accesses(layer, mapping, accelerator, conventions)
        found += [
            f"seed {seed}: {field.name}: walk {a}, closed form {b}"
            for field in dataclasses.fields(Counts)
            if (a := getattr(walked, field.name)) != (b := getattr(counted, field.name))
        ]
    return found


@pytest.mark.long
def test_counts_equal_the_walk_on_300_random_triples() -> None:
    assert not differences(range(300))


@pytest.mark.slow
def test_counts_equal_the_walk_on_6000_random_triples() -> None:
    assert not differences(range(10_000, 16_000))


def test_random_triples_cover_what_they_claim() -> None:
    seen: dict[str, int] = dict.fromkeys(("imperfect", "imperfect in space", "reduced", "bypassed", "two arrays"), 0)
    for seed in range(300):
        layer, accelerator, mapping = triple(seed)
        bounds, covered = layer.loops.as_dict(), mapping.tile(0)
        spatial = [n for n in mapping.nodes if isinstance(n, Spatial) and n.factor > 1]
        uneven = {dim for dim in DIMS if covered[dim] != bounds[dim]}
        kept = [(m.name, o) for m in accelerator.memories for o in m.keeps]
        seen["imperfect"] += bool(uneven)
        seen["imperfect in space"] += any(n.dim in uneven for n in spatial)
        seen["reduced"] += any(n.dim in "CRS" for n in spatial)
        seen["bypassed"] += any(mapping.hold_index(name, operand) is None for name, operand in kept)
        seen["two arrays"] += len({n.array for n in spatial}) > 1
    assert min(seen.values()) >= 15, seen


# --- closed forms ---------------------------------------------------------------------------------------------------


def test_without_any_reuse_every_mac_reads_everything() -> None:
    layer = conv(Loops(K=4, C=3, P=5, Q=2, R=3, S=3))
    counts = count_accesses(layer, Mapping((TOP, *loops("K4 C3 P5 Q2 R3 S3"))), machine(DRAM))
    macs, outputs = 4 * 3 * 5 * 2 * 9, 4 * 5 * 2
    assert counts.macs == counts.steps == macs
    assert counts.reads("dram", "weight") == counts.reads("dram", "input") == macs
    assert counts.reads("dram", "output") == macs - outputs  # the first read of every sum is elided
    assert counts.writes("dram", "output", "final") == outputs
    assert counts.writes("dram", "output", "partial") == macs - outputs


def test_latched_output_is_written_once() -> None:
    layer = product(Loops(K=6, C=10, P=4))
    mapping = Mapping((TOP, *loops("K6 P4 C10")))
    counts = count_accesses(layer, mapping, machine(DRAM, latches=("output",)))
    assert (counts.reads("dram", "output"), counts.writes("dram", "output")) == (0, 24)
    counts = count_accesses(layer, mapping, machine(DRAM, latches=("weight",)))
    assert counts.reads("dram", "weight") == 6 * 4 * 10  # C inside P: the latch changes at every step
    moved = Mapping((TOP, *loops("K6 C10 P4")))
    assert count_accesses(layer, moved, machine(DRAM, latches=("weight",))).reads("dram", "weight") == 60


@pytest.mark.parametrize("order", ["K4 P4 C5", "P4 K4 C5", "K4 C5 P4", "C5 P4 K4", "P2 C5 P2 K4"])
def test_plain_operands_reload_once_per_irrelevant_iteration_outside_their_innermost_own_loop(order: str) -> None:
    layer = product(Loops(K=12, C=5, P=4))
    scratch = Memory("scratch", None, ("weight",))
    mapping = Mapping((TOP, *loops(order), Hold("scratch", ("weight",)), *loops("K3")))
    counts = count_accesses(layer, mapping, machine(DRAM, scratch))
    words = order.split()
    last_own = max(place for place, word in enumerate(words) if word[0] in "KC")
    reloads = math.prod(int(word[1:]) for word in words[:last_own] if word[0] == "P")
    assert counts.reads("dram", "weight") == counts.writes("scratch", "weight") == 60 * reloads


def test_strided_pointwise_convolution_reads_no_skipped_pixel() -> None:
    layer = conv(Loops(K=2, C=3, P=7, Q=7), stride=(2, 2))
    buffer = Memory("buffer", None, ("input",))
    mapping = Mapping((TOP, Hold("buffer", ("input",)), *loops("K2 C3 P7 Q7")))
    counts = count_accesses(layer, mapping, machine(DRAM, buffer))
    assert counts.reads("dram", "input") == 3 * 49  # a bounding box would say 3 * 169


def test_halo_rows_are_fetched_once() -> None:
    # Rows p..p+2 held, p advances by one: one new row each, R + P - 1 rows in all.
    layer = conv(Loops(P=10, R=3))
    window = Memory("window", None, ("input",))
    mapping = Mapping((TOP, *loops("P10"), Hold("window", ("input",)), *loops("R3")))
    counts = count_accesses(layer, mapping, machine(DRAM, window))
    assert counts.writes("window", "input") == 12
    again = conv(Loops(K=2, P=10, R=3))
    mapping = Mapping((TOP, *loops("K2 P10"), Hold("window", ("input",)), *loops("R3")))
    counts = count_accesses(again, mapping, machine(DRAM, window))
    assert counts.writes("window", "input") == 24  # rows 9..11 share nothing with rows 0..2 at the wrap


def test_reuse_at_the_wrap_counts() -> None:
    # Tiles {0,1,2}, {1,2,3} and back: two rows stay at the wrap, one is fetched again.
    layer = conv(Loops(K=3, P=2, R=3))
    window = Memory("window", None, ("input",))
    mapping = Mapping((TOP, *loops("K3 P2"), Hold("window", ("input",)), *loops("R3")))
    counts = count_accesses(layer, mapping, machine(DRAM, window))
    assert counts.writes("window", "input") == 3 + 1 + 2 * (1 + 1)


def test_dilated_tiles_have_holes() -> None:
    # Rows p, p+2, p+4 for p = 0, 1: no overlap at all, six different rows.
    layer = conv(Loops(P=2, R=3), dilation=(2, 1))
    window = Memory("window", None, ("input",))
    mapping = Mapping((TOP, *loops("P2"), Hold("window", ("input",)), *loops("R3")))
    assert count_accesses(layer, mapping, machine(DRAM, window)).writes("window", "input") == 6


def pe_array(multicast: bool = True) -> tuple[Accelerator, Layer, Mapping]:
    """Three rows of filters by four rows of outputs, every element with its own scratchpads."""
    array = Array("pe", (Axis("x", 16, DIMS),), multicast=multicast)
    scratch = tuple(Memory(operand, None, (operand,)) for operand in OPERANDS)
    layer = conv(Loops(C=5, P=4, R=3))
    inner = tuple(Hold(operand, (operand,)) for operand in OPERANDS)
    return machine(DRAM, array, *scratch), layer, Mapping((TOP, *loops("C5 R*3 P*4"), *inner))


def test_multicast_reads_a_diagonal_once_and_writes_every_child() -> None:
    accelerator, layer, mapping = pe_array()
    counts = count_accesses(layer, mapping, accelerator)
    assert counts.reads("dram", "input") == 5 * 6  # rows p + r: six different ones for twelve elements
    assert counts.writes("input", "input") == 5 * 12
    assert counts.reads("dram", "weight") == 5 * 3
    assert counts.writes("weight", "weight") == 5 * 12
    assert counts.active_macs == 12
    assert counts.steps == 5
    apart = count_accesses(layer, mapping, pe_array(multicast=False)[0])
    assert apart.reads("dram", "input") == apart.reads("dram", "weight") == 60


def test_spatial_reduction_adds_once_and_writes_once() -> None:
    accelerator, layer, mapping = pe_array()
    counts = count_accesses(layer, mapping, accelerator)
    # Sums stay in the scratchpads for all five channels: twelve leave, each group of three becomes one.
    assert counts.writes("dram", "output") == counts.writes("dram", "output", "final") == 4
    assert counts.reads("output", "output", "partial") == 12 * 5 - 12 + 12
    assert counts.reduction_adds == 8
    assert [(d.array, d.up) for d in counts.deliveries if d.operand == "output"] == [("pe", 12)]


def test_returning_sum_goes_to_one_element_of_its_group() -> None:
    array = Array("pe", (Axis("x", 16, DIMS),))
    scratch = Memory("scratch", None, ("output",))
    layer = product(Loops(K=3, C=8))
    mapping = Mapping((TOP, *loops("C4 K3 C*2"), Hold("scratch", ("output",))))
    one = count_accesses(layer, mapping, machine(DRAM, array, scratch))
    assert one.writes("dram", "output") == 12  # 4 visits of 3 sums
    assert one.reads("dram", "output", "partial") == 9  # the first needs no read
    assert one.reads("scratch", "output") == 24 + 24 - (24 - 9)  # drains, and the MAC's reads of begun sums
    every = count_accesses(layer, mapping, machine(DRAM, array, scratch), Conventions(broadcast_partials=True))
    assert every.reads("dram", "output", "partial") == 9
    assert [d.down for d in one.deliveries if d.operand == "output"] == [9]
    assert [d.down for d in every.deliveries if d.operand == "output"] == [18]


def test_finished_outputs_are_narrow_only_where_a_requantizer_is() -> None:
    accelerator, layer, mapping = pe_array()
    counts = count_accesses(layer, mapping, accelerator)
    assert counts.reads("output", kind="final") == counts.writes("output", kind="final") == 0
    buffer = Memory("buffer", None, ("input", "output"))
    inner = [Hold(operand, (operand,)) for operand in OPERANDS]
    mapping = Mapping((TOP, *loops("C5 Q2"), Hold("buffer", ("input", "output")), *loops("R*3 P*4"), *inner))
    shared = machine(DRAM, buffer, *accelerator.hierarchy[1:])
    counts = count_accesses(conv(Loops(C=5, P=4, Q=2, R=3)), mapping, shared)
    # Eight sums visit the scratchpads five times: four visits end unfinished, return from DRAM and go down again.
    assert (counts.writes("buffer", "output", "partial"), counts.writes("buffer", "output", "final")) == (32 + 32, 8)
    assert (counts.reads("buffer", "output", "partial"), counts.reads("buffer", "output", "final")) == (32 + 32, 8)
    assert (counts.writes("dram", "output", "partial"), counts.writes("dram", "output", "final")) == (32, 8)
    assert [t.partial for t in counts.tiles if t.memory == "buffer" and t.operand == "output"] == [True]


def test_idle_elements_keep_what_they_had() -> None:
    # K = 3 on two elements: the second has no work at the second step and keeps weight 1.
    array = Array("pe", (Axis("x", 2, DIMS),))
    scratch = Memory("scratch", None, ("weight",))
    layer = product(Loops(K=3, P=2))
    mapping = Mapping((TOP, *loops("P2 K2 K*2"), Hold("scratch", ("weight",))))
    counts = count_accesses(layer, mapping, machine(DRAM, array, scratch))
    assert counts.steps == 4
    assert counts.writes("scratch", "weight") == 4 + 1  # element 0: 0, 2, 0, 2; element 1: only 1


def test_idle_elements_give_up_sums_when_the_memory_above_moves_on() -> None:
    # K = 3 on two elements, buffer of one block: element 1 is idle while the buffer holds output 2 alone, so its sum
    # of output 1 must leave with the buffer's tile, and come back for the second channel.
    array = Array("pe", (Axis("x", 2, DIMS),))
    buffer, scratch = Memory("buffer", None, ("output",)), Memory("scratch", None, ("output",))
    layer = product(Loops(K=3, C=2))
    inner = (Hold("buffer", ("output",)), *loops("K*2"), Hold("scratch", ("output",)))
    accelerator = machine(DRAM, buffer, array, scratch, latches=("output",))
    counts = count_accesses(layer, Mapping((TOP, *loops("C2 K2"), *inner)), accelerator)
    assert counts.writes("dram", "output", "partial") == counts.writes("dram", "output", "final") == 3
    assert [d.up for d in counts.deliveries if d.operand == "output"] == [6]
    assert counts.writes("buffer", "output") == 6 + 3
    # With both blocks in the buffer it stays: element 0 alternates, element 1 never changes its output.
    wide = (TOP, inner[0], *loops("C2 K2"), *inner[1:])
    counts = count_accesses(layer, Mapping(wide), accelerator)
    assert counts.writes("dram", "output") == 3
    assert [d.up for d in counts.deliveries if d.operand == "output"] == [4 + 1]


def test_groups_and_depthwise_layers_share_nothing_between_groups() -> None:
    layer = conv(Loops(G=6, P=3, Q=3, R=2, S=2))
    buffer = Memory("buffer", None, OPERANDS)
    mapping = Mapping((TOP, *loops("G6"), Hold("buffer", OPERANDS), *loops("P3 Q3 R2 S2")))
    counts = count_accesses(layer, mapping, machine(DRAM, buffer))
    assert counts.reads("dram", "input") == 6 * 16
    assert counts.reads("dram", "weight") == 6 * 4
    assert counts.writes("dram", "output") == 6 * 9


def test_array_use_tells_passes_and_elements() -> None:
    accelerator, layer, mapping = pe_array()
    (use,) = count_accesses(layer, mapping, accelerator).arrays
    assert (use.array, use.axes, use.passes) == ("pe", (("x", 12),), 5)


# --- invariants -------------------------------------------------------------------------------------------------------


def turned(layer: Layer, mapping: Mapping) -> tuple[Layer, Mapping]:
    """The same work with rows and columns exchanged."""
    other = dict(zip("PQRS", "QPSR", strict=True))
    bounds = {other.get(dim, dim): bound for dim, bound in layer.loops.as_dict().items()}
    nodes = [n if isinstance(n, Hold) else dataclasses.replace(n, dim=other.get(n.dim, n.dim)) for n in mapping.nodes]
    return conv(Loops(**bounds), layer.stride[::-1], layer.dilation[::-1]), Mapping(tuple(nodes))


def test_rows_and_columns_may_be_exchanged() -> None:
    for seed in range(400, 460):
        layer, accelerator, mapping = triple(seed)
        if layer.op == "conv":
            there = count_accesses(layer, mapping, accelerator)
            here = count_accesses(*turned(layer, mapping), accelerator)
            iterations = dict(here.iterations)
            swapped = tuple((dim, iterations[dim]) for dim in "NGKCQPSR")
            assert [n for _, n in swapped] == [n for _, n in there.iterations]
            assert there == dataclasses.replace(here, iterations=there.iterations)


def test_what_leaves_and_enters_adds_up() -> None:
    for seed in range(500, 560):
        layer, accelerator, mapping = triple(seed)
        counts = count_accesses(layer, mapping, accelerator)
        assert counts.writes("dram", "output", "final") == layer.output.elements
        assert counts.writes("dram", "weight") == counts.writes("dram", "input") == 0
        for operand in ("weight", "input"):
            moves = [t for t in counts.traffic if t.operand == operand]
            # Whatever is read fills a memory below, or serves one MAC; multicast only ever saves reads.
            assert sum(t.reads for t in moves) <= sum(t.writes for t in moves) + counts.macs


def test_multicast_never_reads_more_and_writes_the_same() -> None:
    for seed in range(600, 660):
        layer, accelerator, mapping = triple(seed)
        apart = tuple(
            dataclasses.replace(n, multicast=False) if isinstance(n, Array) else n for n in accelerator.hierarchy
        )
        shared = tuple(
            dataclasses.replace(n, multicast=True) if isinstance(n, Array) else n for n in accelerator.hierarchy
        )
        without = count_accesses(layer, mapping, dataclasses.replace(accelerator, hierarchy=apart))
        with_it = count_accesses(layer, mapping, dataclasses.replace(accelerator, hierarchy=shared))
        for memory in accelerator.memories:
            assert with_it.writes(memory.name) == without.writes(memory.name)
            assert with_it.reads(memory.name) <= without.reads(memory.name)


def test_drain_reads_are_the_only_difference_of_their_switch() -> None:
    for seed in range(700, 740):
        layer, accelerator, mapping = triple(seed)
        on = count_accesses(layer, mapping, accelerator)
        off = count_accesses(layer, mapping, accelerator, Conventions(drain_reads=False))
        assert on.deliveries == off.deliveries
        assert on.reduction_adds == off.reduction_adds
        for memory in accelerator.memories:
            assert on.writes(memory.name) == off.writes(memory.name)
            drained = on.reads(memory.name, "output") - off.reads(memory.name, "output")
            assert drained >= 0
            assert (drained > 0) == (memory.name != "dram" and mapping.hold_index(memory.name, "output") is not None)
