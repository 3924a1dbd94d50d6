"""What one priced pass means for somebody who waits for tokens: phase, sequences, context."""

from __future__ import annotations

from dataclasses import dataclass

CACHE = "cache"  # origin of tensors that hold keys and values
NEW = ".new"  # ends the names of new rows that are written into a cache which stands elsewhere
PHASES = ("prefill", "decode")
EXPERTS = ("expected", "worst")  # how many of a block's MLPs the tokens of a batch read


@dataclass(frozen=True)
class Generation:
    """`phase` prefill: `context` tokens of each of `batch` sequences at once; decode: one new token of each, the step
    in the middle of `new` ones that follow `context` tokens. `experts_held` of a block's MLPs for `experts_read`."""

    phase: str
    batch: int
    context: int
    new: int = 1
    experts_held: int = 0
    experts_read: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that one pass takes in (prefill) or makes (decode)."""
        return self.batch * (self.context if self.phase == "prefill" else 1)

    @property
    def past(self) -> int:
        """Tokens in the cache before the pass."""
        return 0 if self.phase == "prefill" else self.context + (self.new - 1) // 2
