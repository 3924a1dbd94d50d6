"""`python -m experiments.stability --profile digits`: runs at chance and accuracy at each change limit.

Every configuration, padding policy, initialisation and offset of the SiLU network below 8 bits: at the default limit,
and without one (|s| after each step, and as printed). The configurations alone on both sides of the default, and, at
the fewest bits, without a limit but with a tenth of LSQ's gradient scale, a milder remedy that does not suffice. Batch
norms as trained. `python -m experiments.tables` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments import command_line, profiles
from experiments.jobs import Job
from experiments.profiles import Profile
from quant.recipe import Recipe

# (limit, what keeps s positive without one)
RULES = ((Recipe.change_limit, None), (None, "absolute"), (None, "printed"))
OTHER_LIMITS = (0.05, 0.005)
TENTH = "0.1/sqrt(Np)"


def jobs(profile: Profile) -> list[Job]:
    """The default first: those runs belong to every table."""
    listed = (profiles.config_jobs, profiles.padding_jobs, profiles.init_jobs, profiles.offset_jobs)
    usual = [
        replace(job, norm_batches=None)
        for job in dict.fromkeys(job for make in listed for job in make(profile))
        if job.network == profile.silu.network and job.bits in profile.low_bits()
    ]
    configurations = [
        job for job in usual if job in {replace(j, norm_batches=None) for j in profiles.config_jobs(profile)}
    ]
    found = [replace(job, change_limit=limit, positivity=rule) for limit, rule in RULES for job in usual]
    found += [replace(job, change_limit=limit) for limit in OTHER_LIMITS for job in configurations]
    tenth = {"change_limit": None, "positivity": "absolute", "gradient_scale": TENTH}
    return found + [replace(job, **tenth) for job in configurations if job.bits == profile.bits[0]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("stability", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
