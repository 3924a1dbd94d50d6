"""What a translation did with every part of a description: taken over, approximated, or without a counterpart.

Readers fill one report as they go, so that nothing is dropped in silence. `text` is what `hwsim convert` prints and
writes; `notes` are the lines that belong among a report's assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["taken", "approximated", "none"]
TITLES: dict[Verdict, str] = {
    "taken": "taken over",
    "approximated": "approximated",
    "none": "no counterpart",
}


@dataclass(frozen=True)
class Entry:
    """One statement: `place` is `file:line` or a part's name, `subject` the key or part, `text` what became of it."""

    verdict: Verdict
    place: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.subject}: {self.text}"


@dataclass
class TranslationReport:
    """Entries in the order of reading; equal statements appear once."""

    entries: list[Entry] = field(default_factory=list[Entry])

    def add(self, verdict: Verdict, place: str, subject: str, text: str) -> None:
        """Note one statement."""
        entry = Entry(verdict, place, subject, text)
        if entry not in self.entries:
            self.entries.append(entry)

    def taken(self, place: str, subject: str, text: str) -> None:
        """The part says the same in our words."""
        self.add("taken", place, subject, text)

    def approximated(self, place: str, subject: str, text: str) -> None:
        """Our words say it nearly; `text` names the difference."""
        self.add("approximated", place, subject, text)

    def none(self, place: str, subject: str, text: str) -> None:
        """We have no words for it; `text` says what follows."""
        self.add("none", place, subject, text)

    def of(self, verdict: Verdict) -> list[Entry]:
        """All entries of one kind."""
        return [entry for entry in self.entries if entry.verdict == verdict]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know: everything that was not simply taken over."""
        kept = [*self.of("approximated"), *self.of("none")]
        return tuple(f"translation, {TITLES[entry.verdict]}: {entry.subject}: {entry.text}" for entry in kept)

    def text(self) -> str:
        """The report as plain text, one section per verdict."""
        lines: list[str] = []
        for verdict, title in TITLES.items():
            found = self.of(verdict)
            lines.append(f"{title} ({len(found)})")
            lines += [f"  {entry}" for entry in found] or ["  nothing"]
        return "\n".join(lines) + "\n"
