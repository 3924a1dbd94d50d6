"""`python -m experiments.language.sweep`: tokens per second, energy and memory of a decoder over B, L and formats.

One decode step of `--config` (Llama-3-8B's sizes) for every batch and context: a row of the CSV. What is there is not
priced again, so other machines, formats, batches and contexts can be added. Rates are of the whole batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hwsim
from experiments import table
from hwsim.errors import exit_code_of

TABLE = Path("results/language/sweep.csv")
CONFIG = Path("experiments/language/llama_8b.json")
FORMATS = {
    "a100": ("BF16", "W8A8KV8", "W4g128A16", "W4g128A16KV8"),
    "b200": ("BF16", "W4g128A16KV8", "WFP8AFP8KVFP8", "WNVFP4ANVFP4KVFP8"),
}
BATCHES, CONTEXTS = (1, 8, 64), (512, 2048, 8192)
Case = tuple[str, str, int, int]


def cases(given: argparse.Namespace) -> Iterator[Case]:
    """(machine, format, batch, context) of all points."""
    for machine in given.machines:
        for name in given.formats or FORMATS.get(machine, ("BF16",)):
            yield from ((machine, name, batch, context) for batch in given.batches for context in given.contexts)


def row_of(config: Path, case: Case) -> dict[str, Any]:
    """One decode step; memory and traffic in bytes."""
    machine, name, batch, context = case
    report = hwsim.evaluate(
        f"hf:{config}", machine, bits=name, phase="decode", batch=batch, context=context, effort="quick"
    )
    found = report.to_dict()["generation"]
    return {
        "key": key_of(config, case), "config": config.stem, "machine": machine, "format": name, "batch": batch,
        "context": context, "tokens_per_s": found["tokens_per_s"], "step_ms": found["pass_s"] * 1e3,
        "energy_mj_per_token": found["energy_pj_per_token"] / 1e9, "memory_bytes": found["memory_bits"] // 8,
        "weight_bytes": found["weight_bits_held"] // 8, "cache_bytes": found["cache_bits"] // 8,
        "cache_read_bytes": found["cache_read_bits"] // 8,
    }  # fmt: skip


def key_of(config: Path, case: Case) -> str:
    """A point's name."""
    return " ".join(map(str, (config.stem, *case)))


def run(given: argparse.Namespace) -> None:
    """Price what is missing."""
    known = {row["key"] for row in table.read(given.out)}
    for case in cases(given):
        if key_of(given.config, case) not in known:
            row = row_of(given.config, case)
            table.append(given.out, [row], key="key")
            print(f"{row['key']}: {row['tokens_per_s']:,.4g} tokens per second", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.language.sweep", description=__doc__)
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"config.json of a decoder ({CONFIG})")
    parser.add_argument("--machines", nargs="+", default=list(FORMATS), help="machines (a100 b200)")
    parser.add_argument("--formats", nargs="+", help="formats, for all machines")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="sequences")
    parser.add_argument("--contexts", nargs="+", type=int, default=list(CONTEXTS), help="tokens in the cache")
    parser.add_argument("--out", type=Path, default=TABLE, help=f"CSV of the points ({TABLE})")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
