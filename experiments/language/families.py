"""`python -m experiments.language.families`: every family of language models in both phases, or why it is refused.

Sizes are those of the models' published configurations (`families.json`), at one format on one machine. A row has
the products, the bytes of weights and cache, and tokens per second by the quick search. All rows are priced anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hwsim
from experiments import table
from experiments.tables import markdown
from hwsim.errors import HwsimError, WorkloadError, exit_code_of

TABLE = Path("results/language/families.csv")
CONFIGS = Path("experiments/language/families.json")
PHASES = {"prefill": 1, "decode": 8}  # sequences
COMMAND = "python -m experiments.language.families"


def row_of(name: str, config: Mapping[str, Any], phase: str, given: argparse.Namespace) -> dict[str, Any]:
    """One model in one phase."""
    batch = PHASES[phase]
    row: dict[str, Any] = {
        "key": f"{name} {phase}", "family": config["model_type"], "model": name, "phase": phase, "batch": batch,
        "context": given.context, "machine": given.machine, "format": given.format,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        try:
            report = hwsim.evaluate(
                f"hf:{file}", given.machine, bits=given.format, phase=phase, batch=batch, context=given.context,
                effort="quick",
            )  # fmt: skip
        except WorkloadError as problem:
            why = str(problem).split(f"model_type {config['model_type']!r}: ", 1)[-1]
            return row | {"macs": None, "weight_bytes": None, "cache_bytes": None, "tokens_per_s": None, "refused": why}
    found = report.to_dict()["generation"]
    return row | {
        "macs": report.workload.macs, "weight_bytes": found["weight_bits_held"] // 8,
        "cache_bytes": found["cache_bits"] // 8, "tokens_per_s": found["tokens_per_s"], "refused": "",
    }  # fmt: skip


def families(path: Path = TABLE) -> str:
    """The table of a CSV: a line per model."""
    rows = {(row["model"], row["phase"]): row for row in table.read(path)}
    lines: list[list[str]] = []
    for model in dict.fromkeys(model for model, _ in rows):
        first, second = rows[model, "prefill"], rows[model, "decode"]
        if first["refused"]:
            lines.append([f"`{first['family']}`", model, f"refused: {first['refused']}", "", "", "", "", ""])
            continue
        cells = [f"{int(row['macs']):.4g}" for row in (first, second)]
        cells += [f"{int(second['weight_bytes']) / 1e9:.4g}", f"{int(second['cache_bytes']) / 1e9:.4g}"]
        cells += [f"{float(row['tokens_per_s']):,.4g}" for row in (first, second)]
        lines.append([f"`{first['family']}`", model, *cells])
    return markdown(
        ("family", "model", "MACs, prefill", "MACs, decode", "weights (GB)", "cache, decode (GB)",
         "tokens per second, prefill", "tokens per second, decode"), lines,
    )  # fmt: skip


BLOCKS = {"language-families": families}


def run(given: argparse.Namespace) -> None:
    """Price and print the table."""
    configs: dict[str, dict[str, Any]] = json.loads(CONFIGS.read_text(encoding="utf-8"))
    for name, config in configs.items():
        table.append(given.out, [row_of(name, config, phase, given) for phase in PHASES], key="key")
    print(families(given.out))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--machine", default="a100", help="shipped name or path of a spec (a100)")
    parser.add_argument("--format", default="BF16", help="as --bits of hwsim evaluate (BF16)")
    parser.add_argument("--context", type=int, default=1000, help="tokens of the prompt, and of the cache (1000)")
    parser.add_argument("--out", type=Path, default=TABLE, help=f"CSV of the rows ({TABLE})")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), HwsimError)


if __name__ == "__main__":
    raise SystemExit(main())
