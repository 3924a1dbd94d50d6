"""The C kernel of the certified search: compiled with the package or at its first use (`compiler`).

Without a working compiler `open_kernel` gives None: nothing is proven then but the bound of all legal mappings, and
`why_no_kernel` says why.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import OPERANDS
from hwsim.machine.ruled_levels import tile_limits
from hwsim.nest.points import Ints
from hwsim.search.kernel_enums import ENUMS
from hwsim.search.objective import Budget
from hwsim.search.proof.compiler import DEBUG_KERNEL, KERNEL
from hwsim.search.space.paths import CheapestPath, Step
from hwsim.search.space.prices import ENERGY, TIME, Linear, Prices, crossings_of
from hwsim.search.space.problem import Crossing, Problem
from hwsim.search.space.regions import Region, regions

# A problem beyond these is not proven.
DIMS, ARRAYS, LEVELS, CROSSINGS = (ENUMS[name] for name in ("DIMS", "ARRAYS", "LEVELS", "CROSSINGS"))
HOLDERS, POOLS, SLOTS = (ENUMS[name] for name in ("HOLDERS", "POOLS", "SLOTS"))
SUMS, TABLES = ENUMS["SUMS"], ENUMS["TABLES"]  # tables of prices of one machine, of a box of machines
REGIONS, MEMORIES, FIXED, KEPT = (ENUMS[name] for name in ("REGIONS", "MEMORIES", "FIXED", "KEPT"))
POINTS = ENUMS["WORDS"] * 64  # a point set is a string of bits
LONGEST = 2**30  # iterations of a loop: the kernel's numbers have 32 bits, and longer loops are tried, too
# Actions of a path (smaller ones are steps), how many it may have, and how a search for one ends.
SETTLE, PASS, LEAVE, NOTHING, PATH = (ENUMS[name] for name in ("SETTLE", "PASS", "LEAVE", "NOTHING", "PATH"))
FOUND, NONE_BELOW, GAVE_UP, NO_MEMORY = (ENUMS[name] for name in ("FOUND", "NONE_BELOW", "GAVE_UP", "NO_MEMORY"))
AXES = ENUMS["AXES"]
PATHS = 1024  # that one unrolling may have in a box of machines


NO_ROOM = "the proof needs more memory than there is"


class CrossingC(ctypes.Structure):
    """`Crossing` of kernel/state.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("operand", "child", "parent", "inner", "outer")),
        *((name, ctypes.c_int32) for name in ("forgets", "latch", "pool", "tiled")),
        *((name, ctypes.c_int32 * DIMS) for name in ("least", "most")),
        *((name, ctypes.c_double) for name in ("capacity", "bits", "finished", "word")),
    )  # fmt: skip


class RegionC(ctypes.Structure):
    """`Region` of kernel/state.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("k", "memory", "turns")),
        ("turn", ctypes.c_int32 * (DIMS + 1)),
        *((name, ctypes.c_int32 * DIMS) for name in ("kind", "most", "fixes")),
        ("fixed", (ctypes.c_int32 * FIXED) * DIMS),
        *((name, ctypes.c_int32 * KEPT) for name in ("kept", "sizes")),
    )


class ProblemC(ctypes.Structure):
    """`Problem` of kernel/state.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("dims", "arrays", "crossings", "pools")),
        *((name, ctypes.c_int32) for name in ("ranks", "remainders", "regions")),
        ("extent", ctypes.c_int32 * DIMS),
        ("relevant", ctypes.c_int32 * 3),
        ("latched", ctypes.c_int32 * 3),
        ("holders", ctypes.c_int32 * 3),
        *((name, (ctypes.c_int32 * HOLDERS) * 3) for name in ("segment", "depth")),
        ("rank_dim", (ctypes.c_int32 * 2) * 2),
        ("coefficient", (ctypes.c_int32 * 2) * 2),
        ("pool_bits", ctypes.c_double * POOLS),
        ("crossing", CrossingC * CROSSINGS),
        ("region", RegionC * REGIONS),
    )  # fmt: skip


class TableC(ctypes.Structure):
    """`Table` of kernel/state.h."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("energy", ctypes.c_double),
        ("time", ctypes.c_double),
        ("price", ((ctypes.c_double * LEVELS) * (LEVELS + 1)) * CROSSINGS),
        ("constant", (ctypes.c_double * (LEVELS + 1)) * CROSSINGS),
    )


class Kernel:
    """A problem handed to the C kernel."""

    def __init__(self, problem: Problem, library: ctypes.CDLL, remainders: bool) -> None:
        self.problem, self.library = problem, library
        self.crossings, described = described_problem(problem)
        described.remainders = remainders
        self.handle = ctypes.c_void_p(library.mapper_open(ctypes.byref(described)))
        if not self.handle:
            raise MemoryError(NO_ROOM)
        self.tables = 0
        self.known: dict[Prices, TableC] = {}

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.mapper_close(self.handle)

    def bounds(self, spatial: Ints, spacing: Ints, steps: Ints | None = None) -> tuple[NDArray[np.float64], int]:
        """([unrolling, table]: least sums with the windows of each input alone, points covered).

        Infinite where nothing fits, -infinity where the lattice is too large. `steps` [unrolling, dim]: temporal
        iterations of dims that take more than they need.
        """
        found = np.empty((len(spatial), self.tables))
        needed = np.zeros((len(spatial), len(self.problem.dims)))
        given = (spatial, spacing, needed if steps is None else steps)
        left, right, more = (np.ascontiguousarray(a, dtype=np.int32) for a in given)
        covered = self.library.mapper_bounds(
            self.handle, len(found), left.ctypes.data, right.ctypes.data, more.ctypes.data, found.ctypes.data
        )
        if covered < 0:
            raise MemoryError(NO_ROOM)
        return found, int(covered)

    def set_tables(self, tables: Sequence[tuple[Prices, Linear]]) -> None:
        """The sums that `bounds` and `path` use from now on."""
        for prices, linear in tables:
            if prices not in self.known:
                self.known[prices] = table(prices, linear)
        self.use([self.known[prices] for prices, _ in tables])

    def set_corners(self, tables: Sequence[tuple[Prices, Linear]]) -> None:
        """The same for the corners of a box of machines, whose prices differ though they add up the same."""
        self.use([table(prices, linear) for prices, linear in tables])

    def use(self, tables: Sequence[TableC]) -> None:
        """Tables as the kernel reads them."""
        self.tables = len(tables)
        self.library.mapper_tables(self.handle, len(tables), (TableC * len(tables))(*tables))

    def path(
        self, spatial: Ints, spacing: Ints, steps: Ints, offsets: NDArray[np.float64], idle_pj: float, cutoff: float,
        nodes: int, budget: Budget | None = None,
    ) -> CheapestPath:  # fmt: skip
        """The cheapest path of one unrolling below a cutoff; windows, distances and shared memories exact.

        `steps` as in `bounds`. `offsets` are added to the sums of the tables; `idle_pj` per cycle counts in products
        and within a `budget`: the least of the other objective within it.
        """
        within = 0 if budget is None else ENERGY if budget.objective == "energy" else TIME
        limit = 0.0 if budget is None else budget.most
        left, right, more = (np.ascontiguousarray(a, dtype=np.int32) for a in (spatial, spacing, steps))
        value, length, visited = ctypes.c_double(), ctypes.c_int32(PATH), ctypes.c_int64()
        actions, loops = (ctypes.c_int32 * PATH)(), (ctypes.c_int32 * (2 * AXES))()
        status = self.library.mapper_path(
            self.handle, left.ctypes.data, right.ctypes.data, more.ctypes.data, offsets.ctypes.data, idle_pj, within,
            limit, cutoff, nodes, ctypes.byref(value), actions, ctypes.byref(length), loops, ctypes.byref(visited),
        )  # fmt: skip
        if status == NO_MEMORY:
            raise MemoryError(NO_ROOM)
        if status == NONE_BELOW:
            return CheapestPath(math.inf, (), visited.value)
        if status != FOUND:
            return CheapestPath(value.value if status == GAVE_UP else 0.0, (), visited.value)
        found = tuple(self.step(action, loops) for action in actions[: length.value] if action != NOTHING)
        return CheapestPath(value.value, found, visited.value)

    def paths(
        self, spatial: Ints, spacing: Ints, offsets: NDArray[np.float64], known: NDArray[np.float64], nodes: int
    ) -> tuple[bool, list[tuple[tuple[Step, ...], NDArray[np.float64]]], int]:
        """All paths of one unrolling that no other one beats at every table at once, and no `known` one [path, table].

        The tables are the corners of a box of machines. (whether they are complete, each path with its sums, nodes).
        """
        left, right = (np.ascontiguousarray(a, dtype=np.int32) for a in (spatial, spacing))
        needed = np.zeros(len(self.problem.dims), dtype=np.int32)
        values = np.empty((len(known) + PATHS, self.tables))
        values[: len(known)] = known
        count, visited, room = ctypes.c_int64(len(known)), ctypes.c_int64(), PATHS * AXES
        actions, lengths, loops = (ctypes.c_int32 * room)(), (ctypes.c_int32 * PATHS)(), (ctypes.c_int32 * (2 * AXES))()
        status = self.library.mapper_paths(
            self.handle, left.ctypes.data, right.ctypes.data, needed.ctypes.data, offsets.ctypes.data, nodes,
            values.ctypes.data, ctypes.byref(count), len(values), actions, lengths, room, loops, ctypes.byref(visited),
        )  # fmt: skip
        if status == NO_MEMORY:
            raise MemoryError(NO_ROOM)
        if status != NONE_BELOW:
            return False, [], visited.value
        found: list[tuple[tuple[Step, ...], NDArray[np.float64]]] = []
        first = 0
        for i, row in enumerate(values[len(known) : count.value]):
            own = actions[first : first + lengths[i]]
            found.append((tuple(self.step(action, loops) for action in own if action != NOTHING), row))
            first += lengths[i]
        return True, found, visited.value

    def step(self, action: int, loops: ctypes.Array[ctypes.c_int32]) -> Step:
        """An action of the kernel."""
        if action >= LEAVE:
            return Step(leaves=self.crossings[action - LEAVE])
        if action >= PASS:
            return Step(array=action - PASS)
        if action >= SETTLE:
            return Step(crossing=self.crossings[action - SETTLE])
        return Step(int(loops[2 * action]), int(loops[2 * action + 1]))


def table(prices: Prices, linear: Linear) -> TableC:
    """Prices as the kernel reads them: its groups reach LEVELS, the one that is not divided being the last."""
    found = TableC(kind=prices.kind, energy=prices.weights[0], time=prices.weights[1])
    price, constant = np.ctypeslib.as_array(found.price), np.ctypeslib.as_array(found.constant)
    count, groups, levels = linear.price.shape
    for mine, theirs in zip((*range(groups - 1), LEVELS), range(groups), strict=True):
        price[:count, mine, :levels] = linear.price[:, theirs]
        constant[:count, mine] = linear.constant[:, theirs]
    return found


def open_kernel(problem: Problem, remainders: bool = False) -> Kernel | None:
    """The kernel for a problem, its unrollings with remainders or without.

    None without a compiler, or where the problem is larger than its tables.
    """
    library = compiled()
    return Kernel(problem, library, remainders) if library is not None and has_kernel(problem) else None


def has_kernel(problem: Problem) -> bool:
    """Whether `open_kernel` gives one."""
    return not why_no_kernel(problem)


def why_no_kernel(problem: Problem) -> str:
    """Why `open_kernel` gives none, in a few words; empty where it gives one."""
    too_large = "" if fits(problem) else "more loops, memories or points than the proof's tables hold"
    too_large = too_large or rules_too_large(problem)
    longest = max(problem.extents, default=1)
    if longest > LONGEST:
        too_large = f"a loop of {longest:,} iterations; the proof counts at most {LONGEST:,}"
    reach = window_reach(problem)
    if reach >= POINTS:
        too_large = f"a window slides over {reach:,} points; the proof counts at most {POINTS - 1:,}"
    return why_not_compiled() or too_large


def rules_too_large(problem: Problem) -> str:
    """Why the kernel cannot follow a problem's rules; empty where it can."""
    found = regions(problem)
    if len(found) > REGIONS or len(problem.accelerator.memories) >= MEMORIES:
        return f"rules for loops of more than {REGIONS} levels"
    if any(len(region.kept) > KEPT or max(map(len, region.fixed), default=0) > FIXED for region in found):
        return f"factors of more than {KEPT} loops at a level, with factors further in open"
    library = compiled()
    if found and library is not None and not may_open(problem, library):
        return "rules part the space into more stages than the proof's tables hold"
    return ""


def may_open(problem: Problem, library: ctypes.CDLL) -> bool:
    """Whether the kernel has room for the stages of a problem."""
    described = described_problem(problem)[1]
    described.remainders = True
    handle = ctypes.c_void_p(library.mapper_open(ctypes.byref(described)))
    if handle:
        library.mapper_close(handle)
    return bool(handle)


def fits(problem: Problem) -> bool:
    """Whether the kernel's fixed tables hold the problem."""
    crossings = sum(len(pairs) for pairs in problem.crossings.values())
    return (
        len(problem.dims) <= DIMS
        and len(problem.arrays) <= ARRAYS
        and crossings <= CROSSINGS
        and max(len(holders) for holders in problem.holders.values()) < HOLDERS
        and len(problem.holders["input"]) <= SLOTS
        and len(pools(problem)) <= POOLS
        and window_reach(problem) < POINTS
    )


def window_reach(problem: Problem) -> int:
    """Points that the longest window slides over; 0 without windows."""
    bounds = problem.layer.loops.as_dict()
    ranks = (rank for rank, _ in problem.window_ranks)
    return max((sum(coefficient * bounds[dim] for dim, coefficient in rank.terms) for rank in ranks), default=0)


def pools(problem: Problem) -> list[str]:
    """Shared memories that could be too small for all their operands together."""
    found = {c.pool for pairs in problem.crossings.values() for c in pairs.values() if c.pool and c.capacity_bits}
    return sorted(found)


def described_problem(problem: Problem) -> tuple[list[Crossing], ProblemC]:
    """The crossings in the kernel's order, and the problem as it reads it."""
    shared = pools(problem)
    p = ProblemC(dims=len(problem.dims), arrays=len(problem.arrays), pools=len(shared))
    memories = {memory.name: memory for memory in problem.accelerator.memories}
    depth = {name: len(memories) - 1 - i for i, name in enumerate(memories)}
    for e, extent in enumerate(problem.extents):
        p.extent[e] = extent
    for i, name in enumerate(shared):
        memory = memories[name]
        p.pool_bits[i] = (problem.size_of(memory) or 0) - sum(size for _, size in memory.partitions)
    for i, (rank, pair) in enumerate(problem.window_ranks):
        p.ranks = i + 1
        for t in range(2):
            p.rank_dim[i][t], p.coefficient[i][t] = pair[t], rank.terms[t][1]
    for x, operand in enumerate(OPERANDS):
        reuse = problem.irrelevant_axes(operand)
        p.relevant[x] = sum(1 << e for e in range(len(problem.dims)) if e not in reuse)
        p.latched[x] = problem.latched(operand)
        p.holders[x] = len(problem.holders[operand])
        for place, memory in enumerate(problem.holders[operand]):
            p.segment[x][place + 1] = problem.segments[memory.name]
            p.depth[x][place + 1] = depth[memory.name]
    known = crossings_of(problem)
    places = [place for pairs in problem.crossings.values() for place in pairs]
    for q, crossing, (child, parent) in zip(p.crossing[: len(known)], known, places, strict=True):
        x = OPERANDS.index(crossing.operand)
        q.operand, q.child, q.parent = x, child + 1, parent + 1
        q.inner, q.outer = crossing.segment, crossing.parent_segment
        q.forgets = child < 0 and not problem.latched(crossing.operand)
        q.latch = child < 0 and problem.latched(crossing.operand)
        q.pool = shared.index(crossing.pool) if crossing.pool in shared else -1
        q.capacity = math.inf if crossing.capacity_bits is None else crossing.capacity_bits
        if q.pool >= 0:
            q.capacity = p.pool_bits[q.pool]
        q.bits, q.finished = crossing.bits_per_element, crossing.finished_bits_per_element
        q.word = memories[crossing.child].word_bits if child >= 0 else 1.0
        for e, least, most in tile_extents(problem, crossing):
            q.tiled, q.least[e] = 1, max(q.least[e], least)
            q.most[e] = min(q.most[e] or most, most)
    p.crossings = len(known)
    for i, region in enumerate(regions(problem)):
        p.regions = i + 1
        describe_region(p.region[i], region)
    return known, p


def tile_extents(problem: Problem, crossing: Crossing) -> Iterator[tuple[int, int, int]]:
    """(axis, least, most) extents that rules allow a crossing's child, of the dims that its operand sees."""
    reuse = problem.irrelevant_axes(crossing.operand)
    for dim, limit in tile_limits(problem.rules, crossing.child):
        if dim in problem.dims and (e := problem.dims.index(dim)) not in reuse:
            bound = problem.extents[e]
            most = bound if limit.most is None else min(limit.most, bound)
            yield e, most if limit.exact or limit.most is None else 1, most


def describe_region(r: RegionC, region: Region) -> None:
    """A region as the kernel reads it."""
    r.k, r.memory, r.turns = region.segment, region.depth, len(region.turns)
    for t, moves in enumerate(region.turns):
        r.turn[t] = moves
    for e, (kind, most) in enumerate(region.limits):
        r.kind[e], r.most[e] = kind, most
    for e, fixed in enumerate(region.fixed):
        r.fixes[e] = len(fixed)
        for i, factor in enumerate(fixed):
            r.fixed[e][i] = factor
    for i in range(KEPT):
        r.kept[i], r.sizes[i] = region.kept[i] if i < len(region.kept) else (-1, 1)


# --- loading ----------------------------------------------------------------------------------------------------------


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The kernel compiled for this machine, or None without a working compiler."""
    if os.environ.get("HWSIM_KERNEL") == "none":
        return None
    kernel = DEBUG_KERNEL if os.environ.get("HWSIM_KERNEL") == "debug" else KERNEL
    for path in kernel.files():
        try:
            return declared(ctypes.CDLL(str(path)))
        except OSError:
            continue
    return None


@functools.cache
def why_not_compiled() -> str:
    """Why there is no compiled kernel, in a few words; empty where there is one."""
    if compiled() is not None:
        return ""
    if os.environ.get("HWSIM_KERNEL") == "none":
        return "HWSIM_KERNEL=none"
    return KERNEL.missing() or "the compiled kernel and this version disagree"


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions."""
    pointer, whole, wide, real = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double
    library.mapper_sizes.argtypes, library.mapper_sizes.restype = [whole], wide
    structures = (ProblemC, CrossingC, TableC, RegionC)
    if [library.mapper_sizes(i) for i in range(4)] != [ctypes.sizeof(c) for c in structures]:
        raise OSError("the compiled kernel and this file disagree on its structures")
    if enumerators(library) != ENUMS:
        raise OSError("the compiled kernel and its header, as read here, disagree on limits or codes")
    library.mapper_open.argtypes, library.mapper_open.restype = [pointer], pointer
    library.mapper_close.argtypes, library.mapper_close.restype = [pointer], None
    library.mapper_tables.argtypes, library.mapper_tables.restype = [pointer, whole, pointer], None
    library.mapper_bounds.argtypes = [pointer, wide, pointer, pointer, pointer, pointer]
    library.mapper_bounds.restype = wide
    library.mapper_path.argtypes = [
        *([pointer] * 5), real, whole, real, real, wide, *([pointer] * 5),
    ]  # fmt: skip
    library.mapper_path.restype = whole
    library.mapper_paths.argtypes = [
        *([pointer] * 5), wide, pointer, pointer, wide, pointer, pointer, wide, pointer, pointer,
    ]  # fmt: skip
    library.mapper_paths.restype = whole
    library.mapper_below.argtypes, library.mapper_below.restype = [pointer, whole, pointer, pointer, pointer], None
    library.mapper_arrive.argtypes = [pointer, pointer, pointer, whole, pointer, pointer, whole]
    library.mapper_arrive.restype = None
    return library


def enumerators(library: ctypes.CDLL) -> dict[str, int]:
    """Limits and codes that a kernel was compiled with, asked of it by name."""
    ask, value = library.mapper_enumerator, ctypes.c_int64()
    ask.argtypes, ask.restype = [ctypes.c_int32, ctypes.c_void_p], ctypes.c_char_p
    found: dict[str, int] = {}
    while name := ask(len(found), ctypes.byref(value)):
        found[name.decode()] = value.value
    return found
