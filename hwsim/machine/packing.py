"""How many memory words a number of operands occupies, for each way of sharing a word.

The same arithmetic on one int or on an int64 array of counts; bits stay a plain int (one operand of one layer).
`dense`: bit-packed, words hold pieces of operands. `floor`: an operand never straddles two words. `padded`: one
operand per word. Operands wider than a word take ceil(bits / word_bits) words each, except when densely packed.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Packing

Counts64 = NDArray[np.int64]


@overload
def words(count: int, bits: int, word_bits: int, packing: Packing) -> int: ...
@overload
def words(count: Counts64, bits: int, word_bits: int, packing: Packing) -> Counts64: ...
def words(count: int | Counts64, bits: int, word_bits: int, packing: Packing) -> int | Counts64:
    """Words that `count` operands of `bits` each occupy: whole words, because a partial word costs a whole access.

    dense: ceil(count*bits / word_bits); floor: ceil(count / floor(word_bits/bits)); padded: count*ceil(bits/word_bits).
    Never falls when count or bits rise.
    """
    if packing == "dense":
        return -(-count * bits // word_bits)
    each = -(-bits // word_bits)
    per_word = operands_per_word(bits, word_bits, packing)
    return count * each if per_word <= 1 else -(-count // per_word)


def word_slope(bits: int, word_bits: int, packing: Packing) -> Fraction:
    """`words_per_operand`, exact."""
    if packing == "dense":
        return Fraction(bits, word_bits)
    per_word = operands_per_word(bits, word_bits, packing)
    return Fraction(-(-bits // word_bits)) if per_word <= 1 else Fraction(1, per_word)


@overload
def shared_words(count: int, bits: int, word_bits: int, packing: Packing, share: Fraction) -> int: ...
@overload
def shared_words(count: Counts64, bits: int, word_bits: int, packing: Packing, share: Fraction) -> Counts64: ...
def shared_words(count: int | Counts64, bits: int, word_bits: int, packing: Packing, share: Fraction) -> int | Counts64:
    """`words` of which a share is moved: ceil(count * share * words per operand)."""
    if share == 1:
        return words(count, bits, word_bits, packing)
    each = share * word_slope(bits, word_bits, packing)
    if isinstance(count, int):
        return math.ceil(count * each)
    return np.array([math.ceil(int(n) * each) for n in count], dtype=np.int64)


def operands_per_word(bits: int, word_bits: int, packing: Packing) -> int:
    """Whole operands in one word: floor(word_bits/bits), 1 where padded or wider than a word."""
    return 1 if packing == "padded" else max(1, word_bits // bits)


@overload
def held_bits(count: int, bits: int, word_bits: int, packing: Packing) -> int: ...
@overload
def held_bits(count: Counts64, bits: int, word_bits: int, packing: Packing) -> Counts64: ...
def held_bits(count: int | Counts64, bits: int, word_bits: int, packing: Packing) -> int | Counts64:
    """Bits of capacity that `count` operands take once packed: whole words."""
    return words(count, bits, word_bits, packing) * word_bits


def words_per_operand(bits: int, word_bits: int, packing: Packing) -> float:
    """Slope of `words` in `count`, rounding up left out: the linear price used by searches.

    words(n) lies in [slope*n, slope*n + 1): an energy from slopes is a lower bound, off by less than one word.
    """
    return float(word_slope(bits, word_bits, packing))
