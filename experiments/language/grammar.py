"""A synthetic text whose entropy is known exactly: words that depend on the word before and on the open bracket.

A token is a word or one of three kinds of brackets, nested at most three deep. A word's distribution is a row of a
fixed random table, chosen by the token before it and by the innermost open bracket. A model that sees the last token
alone cannot know that bracket. `Grammar.losses` propagates the distribution of all
states, so it has no sampling error.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Losses:
    """Mean nats per token of three predictors: none can be below `entropy`."""

    entropy: float
    last_token: float
    frequency: float


@dataclass(frozen=True)
class Grammar:
    """`words` words, `kinds` kinds of brackets, at most `depth` open. Tokens: words, then opening, then closing ones.

    `spread`: parameter of the Dirichlet distribution of which the table's rows are drawn; smaller is more predictable.
    """

    words: int = 26
    kinds: int = 3
    depth: int = 3
    opening: float = 0.12
    closing: float = 0.2
    spread: float = 0.15
    seed: int = 0

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.words + 2 * self.kinds

    @cached_property
    def stacks(self) -> list[tuple[int, ...]]:
        """All states of the open brackets, outermost first."""
        return [s for n in range(self.depth + 1) for s in itertools.product(range(self.kinds), repeat=n)]

    @cached_property
    def table(self) -> Floats:
        """(kinds + 1, vocabulary, words): the distribution of a word; row `kinds` holds where no bracket is open."""
        rows = np.random.default_rng(self.seed).dirichlet(
            np.full(self.words, self.spread), (self.kinds + 1, self.vocabulary)
        )
        return rows / rows.sum(-1, keepdims=True)

    @cached_property
    def next_token(self) -> Floats:
        """(stacks, vocabulary, vocabulary): P(next | stack, last token)."""
        found = np.zeros((len(self.stacks), self.vocabulary, self.vocabulary))
        for i, stack in enumerate(self.stacks):
            opening = self.opening if len(stack) < self.depth else 0.0
            closing = self.closing if stack else 0.0
            inner = stack[-1] if stack else self.kinds
            found[i, :, : self.words] = (1 - opening - closing) * self.table[inner]
            found[i, :, self.words : self.words + self.kinds] = opening / self.kinds
            if stack:
                found[i, :, self.words + self.kinds + inner] = closing
        return found

    @cached_property
    def next_stack(self) -> Integers:
        """(stacks, vocabulary): the stack after a token; what no token of that stack can be keeps it."""
        place = {stack: i for i, stack in enumerate(self.stacks)}
        found = np.tile(np.arange(len(self.stacks))[:, None], (1, self.vocabulary))
        for i, stack in enumerate(self.stacks):
            if len(stack) < self.depth:
                found[i, self.words : self.words + self.kinds] = [place[(*stack, k)] for k in range(self.kinds)]
            if stack:
                found[i, self.words + self.kinds + stack[-1]] = place[stack[:-1]]
        return found

    def sample(self, count: int, length: int, seed: int) -> tuple[Integers, Floats]:
        """Tokens (count, length + 1): a uniform word and what follows it; nats (count, length) of what follows."""
        draws = np.random.default_rng(seed)
        cumulative = self.next_token.cumsum(-1)
        cumulative[..., -1] = 1.0
        tokens = np.zeros((count, length + 1), np.int64)
        nats = np.zeros((count, length))
        stack = np.zeros(count, np.int64)
        tokens[:, 0] = draws.integers(self.words, size=count)
        for t in range(length):
            last = tokens[:, t]
            rows = cumulative[stack, last]
            new = np.minimum((rows <= draws.random((count, 1))).sum(1), self.vocabulary - 1)
            nats[:, t] = -np.log(self.next_token[stack, last, new])
            stack, tokens[:, t + 1] = self.next_stack[stack, new], new
        return tokens, nats

    def losses(self, length: int) -> Losses:
        """Of texts of that length: the entropy, and the best that the last token, or frequencies alone, can do."""
        state = np.zeros((len(self.stacks), self.vocabulary))
        state[0, : self.words] = 1 / self.words
        pairs = np.zeros((self.vocabulary, self.vocabulary))
        logs = np.log(self.next_token, where=self.next_token > 0, out=np.zeros_like(self.next_token))
        entropies = -(self.next_token * logs).sum(-1)
        total = 0.0
        for _ in range(length):
            total += float((state * entropies).sum())
            joint = state[:, :, None] * self.next_token
            pairs += joint.sum(0)
            moved = np.zeros_like(state)
            flow = joint.sum(1)
            for i in range(len(self.stacks)):
                np.add.at(moved, (self.next_stack[i], np.arange(self.vocabulary)), flow[i])
            state = moved
        pairs /= length
        return Losses(total / length, conditional(pairs), conditional(pairs.sum(0, keepdims=True)))


def conditional(joint: Floats) -> float:
    """H(column | row) in nats of a joint distribution."""
    rows = joint.sum(1, keepdims=True)
    some = joint > 0
    ratio = np.divide(joint, rows, where=rows > 0, out=np.zeros_like(joint))
    return -math.fsum((joint[some] * np.log(ratio[some])).tolist())
