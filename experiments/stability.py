"""`python -m experiments.stability --profile digits`: some runs at 2 bits end at chance; do smaller steps help?

Layers with few features (the squeeze of a squeeze-excite block has one per channel) get large updates of s and beta
from LSQ's gradient scale 1/sqrt(N*p). Configurations 1 to 4 at the fewest bits with that scale and with a tenth of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments import command_line, profiles
from experiments.jobs import Job
from experiments.profiles import Profile

SCALES = ("0.1/sqrt(Np)", "1/sqrt(Np)")


def jobs(profile: Profile) -> list[Job]:
    """The SiLU network at the fewest bits, both gradient scales."""
    return [
        replace(profile.silu, bits=profile.bits[0], config=config, seed=seed, gradient_scale=scale)
        for scale in SCALES
        for seed in profile.seeds
        for config in reversed(profiles.CONFIGS)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("stability", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
