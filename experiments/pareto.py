"""`python -m experiments.pareto --profile smoke`: train, price on every shipped accelerator, draw the Pareto fronts.

Trains what is missing (configurations 1 to 4 at the profile's precisions, the padding policies of configuration 4),
prices each configuration with `hwsim.evaluate`, writes OUT/runs.csv, OUT/pareto.csv, figures and pareto.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from experiments import command_line, pareto_figures, profiles, table
from experiments.jobs import Job
from experiments.pareto_page import write_page
from experiments.pricing import price_runs
from experiments.profiles import Profile
from hwsim.errors import HwsimError
from quant.loop import rank
from quant.provenance import command


def jobs(profile: Profile) -> list[Job]:
    """Configurations at every precision; padding policies where the profile has more than one seed."""
    padding = profiles.padding_jobs(profile) if len(profile.seeds) > 1 else ()
    return list(dict.fromkeys(chain(profiles.config_jobs(profile), padding)))


def price_and_draw(
    out: Path, figures: Path, name: str, accelerators: Sequence[str] | None, keep: bool = False
) -> list[Path]:
    """OUT/pareto.csv from OUT/runs.csv, and everything that is drawn from it."""
    points = out / "pareto.csv"
    price_runs(out / "runs.csv", points, command(), accelerators, keep=keep)
    written = [points, *pareto_figures.draw(points, figures, name)]
    try:
        written.append(write_page(points, out / "pareto.html"))
    except ValueError as problem:
        print(f"no interactive page: {problem}", file=sys.stderr)
    return written


def parser() -> argparse.ArgumentParser:
    """The training options, and what is priced and where figures go."""
    p = command_line.parser("pareto", __doc__ or "")
    p.add_argument("--accelerators", nargs="+", metavar="ACCEL", help="YAML files or names (default: all shipped)")
    p.add_argument("--figures", type=Path, help="folder of the figures (default: OUT)")
    p.add_argument("--keep-prices", action="store_true", help="only bring the accuracies in OUT/pareto.csv up to date")
    p.add_argument("--no-training", action="store_true", help="price and draw the runs there are")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (start again to go on; what is there is drawn)."""
    options = parser().parse_args(arguments)
    try:
        code = 0 if options.no_training else command_line.train("pareto", options, jobs)
        if options.list or rank() != 0:
            return code
        out = options.out or Path("results") / options.profile
        if not any(row["bits"] != "float" for row in table.read(out / "runs.csv")):
            return code or 2
        for path in price_and_draw(out, options.figures or out, "pareto", options.accelerators, options.keep_prices):
            print(f"wrote {path}")
    except HwsimError as problem:
        print(f"experiments.pareto: {problem}", file=sys.stderr)
        return problem.exit_code
    except (ValueError, OSError) as problem:
        print(f"experiments.pareto: {problem}", file=sys.stderr)
        return 2
    finally:
        command_line.leave_group()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
