"""`python -m experiments.padding --profile cpu`: what the free variants of the offset's border cost in accuracy.

Configuration 4 with each padding policy: pad then quantize, snapped offset, padding with beta, padding with zero and a
border bias. Trains what is missing; `experiments.tables` prints the comparison, `experiments.pareto` its price.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments import command_line, profiles
from experiments.jobs import Job
from experiments.profiles import Profile


def jobs(profile: Profile) -> list[Job]:
    """Four policies at every precision below 8 bits."""
    return list(profiles.padding_jobs(profile))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("padding", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
