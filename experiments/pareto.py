"""`python -m experiments.pareto --profile smoke`: train, price on every shipped accelerator, draw the Pareto fronts.

Trains what is missing (configurations 1 to 4 at the profile's precisions, the padding policies of configuration 4),
prices each configuration with `hwsim.evaluate` (in other processes, meanwhile), writes OUT/runs.csv, OUT/pareto.csv,
figures and pareto.html. The figures show one machine of each kind unless --accelerators chooses; the page shows all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from experiments import command_line, pareto_figures, profiles, table
from experiments.jobs import Job
from experiments.pareto_page import write_page
from experiments.pricing import Prices, price_runs, refresh_accuracies
from experiments.profiles import Profile
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator, shipped_specs
from quant.processes import rank
from quant.provenance import command


def jobs(profile: Profile) -> list[Job]:
    """Configurations at every precision, mixed bits; padding policies where the profile has more than one seed."""
    padding = profiles.padding_jobs(profile) if len(profile.seeds) > 1 else ()
    return list(dict.fromkeys(chain(profiles.config_jobs(profile), profiles.mixed_jobs(profile), padding)))


def draw(points: Path, figures: Path, name: str, machines: Sequence[str] | None) -> list[Path]:
    """Everything that is drawn from pareto.csv: figures of `machines`, and the page of all of them."""
    written = [points, *pareto_figures.draw(points, figures, name, machines)]
    try:
        written.append(write_page(points, points.with_name("pareto.html")))
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
        out = options.out or Path("results") / options.profile
        accelerators = [load_accelerator(name) and name for name in options.accelerators or shipped_specs()]
        # Under torchrun the processors are taken; a few prices are not worth a process.
        alone = "RANK" not in os.environ and len(accelerators) > 4 and not (options.list or options.keep_prices)
        with Prices(accelerators, os.cpu_count() or 1 if alone else 0) as prices:
            code = 0
            if not options.no_training:
                if not options.list:
                    prices.ask(jobs(command_line.choose_profile(options)))
                code = command_line.train("pareto", options, jobs)
            if options.list or rank() != 0:
                return code
            if not any(row["bits"] != "float" for row in table.read(out / "runs.csv")):
                return code or 2
            if options.keep_prices:
                refresh_accuracies(out / "runs.csv", out / "pareto.csv")
            else:
                price_runs(out / "runs.csv", out / "pareto.csv", command(), prices)
        shown = None if options.accelerators else pareto_figures.MACHINES
        for path in draw(out / "pareto.csv", options.figures or out, "pareto", shown):
            wrote(path)
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
