"""`python -m experiments.campaign --profile cpu_long`: the long runs, the most telling first.

Seed by seed: configuration 4 with the padding policies that fold (`pad_beta`, `pad_code`) and configuration 1 on the
SiLU network, at the fewest bits first; then the other configurations and policies, LSQ+ with a float teacher, and the
ReLU network. Start the same command twice for two processes: they share the list. Rows: results/PROFILE/runs.csv.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from experiments import command_line
from experiments.jobs import Job
from experiments.profiles import CONFIGS, POLICIES, Profile

# (configuration, padding policy) whose comparison answers the project's question.
CENTRAL = (("4", "pad_beta"), ("4", "pad_code"), ("1", "pad_code"))
FURTHER = (*((config, "pad_code") for config in CONFIGS), *(("4", policy) for policy in POLICIES))


def central(profile: Profile) -> Iterator[Job]:
    """The three that matter most: the fewest and the most bits, seed by seed, then the bits between."""
    ends = (profile.bits[0], profile.bits[-1])
    for group in (ends, [b for b in profile.bits if b not in ends]):
        for seed in profile.seeds:
            for b in group:
                for config, policy in CENTRAL:
                    yield profile.at(profile.silu, b, config=config, padding_policy=policy, seed=seed)


def further(profile: Profile, seed: int) -> Iterator[Job]:
    """All configurations and policies, a teacher, the ReLU network."""
    for b in profile.bits:
        for config, policy in FURTHER:
            yield profile.at(profile.silu, b, config=config, padding_policy=policy, seed=seed)
        yield replace(profile.at(profile.silu, b, config="4", padding_policy="pad_beta", seed=seed), distill=True)
        if profile.relu is not None:
            for config in CONFIGS:
                yield profile.at(profile.relu, b, config=config, seed=seed)


def jobs(profile: Profile) -> list[Job]:
    """The central runs before all others."""
    others = [job for seed in profile.seeds for job in further(profile, seed)]
    return list(dict.fromkeys([*central(profile), *others]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    return command_line.train_main("campaign", __doc__ or "", jobs, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
