"""Words moved and held: against a slow packer that places operands one by one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.machine.packing import held_bits, shared_words, words, words_per_operand
from hwsim.machine.parts import Packing

PACKINGS: tuple[Packing, ...] = ("dense", "floor", "padded")


def place_one_by_one(count: int, bits: int, word_bits: int, packing: Packing) -> int:
    """Oracle: puts each operand into memory in turn and says how many words were touched."""
    used_words, free = 0, 0
    for _ in range(count):
        if packing == "dense":
            left = bits
            while left:
                if not free:
                    used_words, free = used_words + 1, word_bits
                taken = min(left, free)
                left, free = left - taken, free - taken
        elif packing == "floor" and bits <= free:
            free -= bits
        else:
            need = bits
            while need > 0:
                used_words, free, need = used_words + 1, word_bits, need - word_bits
            free = word_bits - bits if bits <= word_bits else 0
    return used_words


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 70), st.sampled_from(PACKINGS))
def test_words_equal_placing_one_by_one(count: int, bits: int, word_bits: int, packing: Packing) -> None:
    assert words(count, bits, word_bits, packing) == place_one_by_one(count, bits, word_bits, packing)
    assert held_bits(count, bits, word_bits, packing) >= count * bits


@pytest.mark.parametrize("packing", PACKINGS)
@given(word_bits=st.integers(1, 64))
@settings(max_examples=30, deadline=None)
def test_arrays_give_the_same_and_fewer_bits_never_more_words(packing: Packing, word_bits: int) -> None:
    counts = np.arange(0, 300, 7, dtype=np.int64)
    before = np.zeros_like(counts)
    for bits in range(1, 40):
        moved = words(counts, bits, word_bits, packing)
        assert moved.dtype == np.int64
        assert moved.tolist() == [words(int(n), bits, word_bits, packing) for n in counts]
        assert (moved >= before).all()
        slope = words_per_operand(bits, word_bits, packing)
        assert (moved >= slope * counts - 1e-9).all()
        assert (moved < slope * counts + 1).all()
        before = moved


def test_floor_packing_makes_6_7_8_bits_cost_the_same() -> None:
    assert [words(240, bits, 16, "floor") for bits in (5, 6, 7, 8)] == [80, 120, 120, 120]
    assert [words(240, bits, 16, "dense") for bits in (5, 6, 7, 8)] == [75, 90, 105, 120]
    assert words(240, 5, 8, "floor") / words(240, 5, 8, "dense") == pytest.approx(1.6)


@given(
    count=st.integers(0, 200), bits=st.integers(1, 32), packing=st.sampled_from(PACKINGS),
    share=st.fractions(0, 1, max_denominator=8),
)  # fmt: skip
@settings(deadline=None)
def test_a_share_of_operands_takes_its_share_of_words(count: int, bits: int, packing: Packing, share: Fraction) -> None:
    found = shared_words(count, bits, 32, packing, share)
    many = math.lcm(*range(1, 33))  # a whole number of words, however many operands one holds
    each = Fraction(words(many, bits, 32, packing), many)
    assert found == (words(count, bits, 32, packing) if share == 1 else math.ceil(count * share * each))
    arrays = shared_words(np.array([count, 7], dtype=np.int64), bits, 32, packing, share)
    assert list(arrays) == [found, shared_words(7, bits, 32, packing, share)]
