"""`python -m experiments.stability --profile digits`: runs at chance and accuracy at each change limit.

Configurations 1 to 4 of the SiLU network below 8 bits, as printed (no limit), at the default and on both sides of it;
and at the fewest bits without a limit but with a tenth of LSQ's gradient scale, a milder remedy that does not suffice.
`python -m experiments.tables` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments import command_line, profiles
from experiments.jobs import Job
from experiments.profiles import Profile
from quant.recipe import Recipe

LIMITS = (Recipe.change_limit, None, 0.05, 0.005)


def jobs(profile: Profile) -> list[Job]:
    """The default first: those runs belong to every table."""
    usual = [
        profile.at(profile.silu, bits, config=config, seed=seed)
        for seed in profile.seeds
        for bits in profile.low_bits()
        for config in profiles.CONFIGS
    ]
    limited = [replace(job, change_limit=limit) for limit in LIMITS for job in usual]
    tenth = [replace(job, change_limit=None, gradient_scale="0.1/sqrt(Np)") for job in usual]
    return [*limited, *(job for job in tenth if job.bits == profile.bits[0])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("stability", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
