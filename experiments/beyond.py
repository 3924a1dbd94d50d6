"""`python -m experiments.beyond --profile digits`: what may be added to LSQ+, one at a time, and what helped together.

Configuration 4 of the SiLU network, all seeds from one float network, equal steps: at the profile's fewest bits with
five seeds, or at those that it names (`beyond`) with its own. The most telling methods come first. The base is LSQ+
with first values of least squared error and three times the rate for weights; `as printed` is LSQ+ without both.
Batch norms measured again are in all of them. Rows: results/PROFILE/beyond.csv; docs/training.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from experiments import command_line, table
from experiments.jobs import Job
from experiments.profiles import Profile
from experiments.table import Interval, Row

SEEDS = range(5)
BASE: dict[str, Any] = {"init": "mse", "weight_learning_rate": 0.03}
AS_PRINTED: dict[str, Any] = {"init": "lsqplus", "weight_learning_rate": None}
# Name -> what differs from the base.
METHODS: dict[str, dict[str, Any]] = {
    "base": {},
    "LSQ+ as printed, change limit on": AS_PRINTED,
    "least squared error alone": {"weight_learning_rate": None},
    "weights at three times the rate alone": {"init": "lsqplus"},
    "distillation from the float network": {"distill": True},
    "one weight step per channel": {"weight_granularity": "channel"},
    "EWGS, delta 0.2": {"ewgs": 0.2},
    "damping, 0.01": {"damping": 0.01},
    "freezing, 0.02": {"freezing": 0.02},
    "W4A4 for the first half": {"anneal_from": "W4A4"},
    "distillation and a step per channel": {"distill": True, "weight_granularity": "channel"},
}


# What gained on the digits, and what it is set against: tried before the others.
TELLING = ("base", "distillation and a step per channel", "distillation from the float network",
           "one weight step per channel")  # fmt: skip


def precisions(profile: Profile) -> tuple[str, ...]:
    """The bits at which the methods are compared."""
    return profile.beyond or profile.bits[:1]


def jobs(profile: Profile) -> list[Job]:
    """Seed by seed: the most telling methods at every precision, then the others."""
    seeds = profile.seeds if profile.beyond else SEEDS
    return [
        replace(profile.at(profile.silu, bits, config="4"), float_seed=0, seed=seed, **BASE | METHODS[name])
        for names in (TELLING, [name for name in METHODS if name not in TELLING])
        for bits in precisions(profile)
        for seed in seeds
        for name in names
    ]


def method_of(row: Row) -> str | None:
    """The name of a row's method; None for rows that are none (float networks, wider halves)."""
    base = asdict(Job("", **BASE))
    for name, changes in METHODS.items():
        wanted = {**{key: base[key] for method in METHODS.values() for key in method}, **changes}
        if all(row.get(key, "") == table.text_of(value) for key, value in wanted.items()):
            return name
    return None


def comparison(rows: Sequence[Row]) -> list[list[str]]:
    """One line per method of one precision: test accuracy, the difference to the base seed by seed, how many seeds."""
    named = table.group([{**row, "method_name": method_of(row) or ""} for row in rows], "method_name")
    base = {row["seed"]: float(row["test_accuracy_percent"]) for row in named.get(("base",), [])}
    lines = []
    for name in METHODS:
        mine = {row["seed"]: float(row["test_accuracy_percent"]) for row in named.get((name,), [])}
        gains = [value - base[seed] for seed, value in mine.items() if seed in base]
        if gains:
            found = Interval.of(gains)
            half = "" if found.half_width is None else f" ± {found.half_width:.2f}"
            gain = "" if name == "base" else f"{found.mean:+.2f}{half}"
            lines.append([name, Interval.of(list(mine.values())).text(), gain, str(len(gains))])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("beyond", __doc__ or "", jobs, arguments, table_name="beyond.csv")


if __name__ == "__main__":
    raise SystemExit(main())
