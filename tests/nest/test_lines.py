"""Lines made and kept by a depth-first group, against a walk with explicit sets of lines."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hwsim.nest.lines import Lines, Map, Read, Walk, recomputed, sliding


def random_group(rng: random.Random) -> Lines:
    """A chain or DAG: strides above the window, borders, skips, maps that leave."""
    while True:
        sizes = [rng.randint(5, 24)]
        reads: list[Read] = []
        for reader in range(1, rng.randint(2, 6)):
            source = rng.choice([reader - 1, reader - 1, rng.randrange(reader)])
            reach, stride = rng.choice([1, 1, 2, 3, 3, 5]), rng.choice([1, 1, 2, 3])
            padding = rng.randrange(reach)
            size = (sizes[source] + 2 * padding - reach) // stride + 1
            if size < 1:
                break
            reads.append(Read(reader, source, stride, reach, padding))
            others = [other for other in range(reader) if other != source and sizes[other] == size]
            if others and rng.random() < 0.6:
                reads.append(Read(reader, rng.choice(others)))
            sizes.append(size)
        read = {read.source for read in reads}
        if len(sizes) < 2 or read != set(range(len(sizes) - 1)):
            continue
        maps = [Map(size) for size in sizes]
        for index in range(len(sizes) - 1):
            widest = max(read.padding for read in reads if read.source == index)
            border = widest if rng.random() < 0.3 else 0
            maps[index] = Map(sizes[index], border, border, rng.random() < 0.2)
        return Lines(tuple(maps), tuple(reads))


def stored(group: Lines, index: int) -> range:
    """The lines of a map that exist, its border included."""
    here = group.maps[index]
    return range(-here.before, here.size + here.after)


def lines_read(group: Lines, read: Read, line: int) -> set[int]:
    """What one line of a reader reads."""
    first = line * read.stride - read.padding
    return set(range(first, first + read.reach)) & set(stored(group, read.source))


def walked_sliding(group: Lines, block: int) -> list[tuple[list[int], list[int]]]:
    """(made, kept) per step: lines are made in order, none left out, when a line of a reader asks for them."""
    last = len(group.maps) - 1
    count = -(-group.maps[last].size // block)
    stand: list[set[int]] = [set() for _ in group.maps]
    fresh_of: list[list[set[int]]] = []
    for step in range(count):
        fresh: list[set[int]] = [set() for _ in group.maps]
        fresh[last] = set(range(step * block, min((step + 1) * block, group.maps[last].size)))
        for index in reversed(range(last)):
            wanted: set[int] = set()
            for read in group.readers(index):
                size = group.maps[read.reader].size
                for line in fresh[read.reader]:
                    wanted |= lines_read(group, read, line) if 0 <= line < size else set()
            if group.maps[index].leaves and step == count - 1:
                wanted |= set(range(group.maps[index].size))
            begin = -group.maps[index].before
            fresh[index] = set(range(begin, max(wanted, default=begin - 1) + 1)) - stand[index]
        for index, new in enumerate(fresh):
            stand[index] |= new
        fresh_of.append(fresh)
    found: list[tuple[list[int], list[int]]] = []
    stand = [set() for _ in group.maps]
    for step, fresh in enumerate(fresh_of):
        made, kept = [], []
        for index, new in enumerate(fresh):
            stand[index] |= new
            needed: set[int] = set()
            for later in fresh_of[step:]:
                for read in group.readers(index):
                    for line in later[read.reader]:
                        if 0 <= line < group.maps[read.reader].size:
                            needed |= lines_read(group, read, line)
            held = (needed & stand[index]) | new
            made.append(len([y for y in new if 0 <= y < group.maps[index].size]))
            kept.append(max(stand[index]) - min(held) + 1 if held else 0)  # all up to the line made last
        found.append((made, kept))
    return found


def walked_recomputed(group: Lines, block: int) -> list[tuple[list[int], list[int], list[int]]]:
    """(made, kept, fresh) per step, every block by itself."""
    last = len(group.maps) - 1
    count = -(-group.maps[last].size // block)
    done: list[set[int]] = [set() for _ in group.maps]
    found: list[tuple[list[int], list[int], list[int]]] = []
    for step in range(count):
        mine: list[set[int]] = [set() for _ in group.maps]
        mine[last] = set(range(step * block, min((step + 1) * block, group.maps[last].size)))
        for index in reversed(range(last)):
            wanted: set[int] = set()
            for read in group.readers(index):
                for line in mine[read.reader]:
                    if 0 <= line < group.maps[read.reader].size:
                        wanted |= lines_read(group, read, line)
            if group.maps[index].leaves:
                if step == count - 1:
                    wanted |= {group.maps[index].size - 1}
                first = max(done[index] | {-1}) + 1
                if wanted and max(wanted) >= first:
                    wanted |= {first}
            mine[index] = set(range(min(wanted), max(wanted) + 1)) if wanted else set()
        real = [{y for y in got if 0 <= y < here.size} for got, here in zip(mine, group.maps, strict=True)]
        found.append(
            (
                [len(got) for got in real],
                [len(got) for got in mine],
                [len({y for y in got if y > max(old | {-1})}) for got, old in zip(real, done, strict=True)],
            )
        )
        for index, got in enumerate(real):
            done[index] |= got
    return found


def test_sliding_windows_are_those_of_a_walk_with_sets_of_lines() -> None:
    rng = random.Random(7)
    for _ in range(1200):
        group, block = random_group(rng), rng.randint(1, 6)
        found, walked = sliding(group, block), walked_sliding(group, block)
        assert found.made.tolist() == [made for made, _ in walked], (group, block)
        assert found.kept.tolist() == [kept for _, kept in walked], (group, block)


def test_recomputed_halos_are_those_of_a_walk_with_sets_of_lines() -> None:
    rng = random.Random(8)
    for _ in range(1200):
        group, block = random_group(rng), rng.randint(1, 6)
        found, walked = recomputed(group, block), walked_recomputed(group, block)
        assert found.made.tolist() == [made for made, _, _ in walked], (group, block)
        assert found.kept.tolist() == [kept for _, kept, _ in walked], (group, block)
        assert found.fresh.tolist() == [fresh for _, _, fresh in walked], (group, block)


def test_sliding_makes_no_line_twice_and_a_map_that_leaves_whole() -> None:
    rng = random.Random(9)
    for _ in range(300):
        group, block = random_group(rng), rng.randint(1, 6)
        for found in (sliding(group, block), recomputed(group, block)):
            total = found.fresh.sum(0)
            for index, here in enumerate(group.maps):
                assert total[index] <= here.size
                assert total[index] == here.size or not (here.leaves or index == len(group.maps) - 1)
        assert (sliding(group, block).made == sliding(group, block).fresh).all()


@pytest.mark.parametrize("walk", [sliding, recomputed])
def test_one_block_is_layer_by_layer(walk) -> None:
    rng = random.Random(10)
    for _ in range(100):
        group = random_group(rng)
        found: Walk = walk(group, group.maps[-1].size)
        assert found.steps == 1
        whole = np.array([here.size + here.before + here.after for here in group.maps])
        assert (found.kept[0] <= whole).all()


def test_the_steady_state_of_a_chain_keeps_its_windows() -> None:
    """(T' - 1) * stride + reach lines of the reader's window, T' its own lines of a step: docs/search.md."""
    chain = Lines((Map(96), Map(96), Map(48), Map(48)), (Read(1, 0, 1, 3, 1), Read(2, 1, 2, 3, 1), Read(3, 2, 1, 3, 1)))
    steady = sliding(chain, 4).kept[5]
    assert steady.tolist() == [(8 - 1) * 1 + 3, (4 - 1) * 2 + 3, (4 - 1) * 1 + 3, 4]
