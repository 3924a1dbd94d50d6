"""`python -m experiments.lsqplus_tables --profile cpu`: Tables 2 to 6 and Figures 1 and 2 of LSQ+ at a chosen scale.

Trains what is missing (resumable), then prints each table with 95 % intervals over the seeds. Rows go to
results/PROFILE/runs.csv and quantizers.csv; figures are drawn from those by `python -m experiments.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from experiments import command_line, profiles
from experiments.jobs import Job
from experiments.profiles import Profile


def jobs(profile: Profile) -> list[Job]:
    """All runs of the five tables, the most asked-for first."""
    parts = (
        profiles.config_jobs(profile),
        profiles.offset_jobs(profile),
        profiles.init_jobs(profile),
        profiles.baseline_jobs(profile),
    )
    return list(dict.fromkeys(chain.from_iterable(parts)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("lsqplus_tables", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
