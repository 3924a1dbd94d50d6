"""`python -m experiments.peers --data DIR`: results/peers/*.csv, the numbers behind docs/coming_from.md.

DIR holds `peers/` (descriptions of other tools and what these printed) and `onnx/`; default: $HWSIM_DATA.
`--peer-python PATH`, the Python of an environment with zigzag-dse, answers ZigZag's own rows (about half an hour). They
stay in `--answers`, where a later run finds them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import table
from experiments.peers import accelergy, maestro, round_trip, scalesim, timeloop, zigzag, zigzag_beside
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.search.cache import ENVIRONMENT

STUDIES: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "timeloop": timeloop.rows,
    "accelergy": accelergy.rows,
    "maestro": lambda _: maestro.rows(),
    "zigzag": zigzag.rows,
    "scalesim": scalesim.rows,
    "scalesim_runs": lambda _: scalesim.printed_rows(),
    "round_trip": lambda _: round_trip.rows(),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.peers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HWSIM_DATA", "data")))
    parser.add_argument("--only", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--peer-python", help="Python of an environment with zigzag-dse: ZigZag beside our search")
    parser.add_argument("--answers", type=Path, help="folder of ZigZag's answers; those there are not asked for again")
    parser.add_argument("--out", type=Path, default=Path("results/peers"))
    options = parser.parse_args(arguments)
    os.environ[ENVIRONMENT] = ""
    try:
        for name in options.only:
            rows = STUDIES[name](options.data)
            table.write(options.out / f"{name}.csv", rows)
            wrote(options.out / f"{name}.csv", f"{len(rows)} rows")
        if options.peer_python or options.answers:
            answers = options.answers or Path("results/peers/answers")
            for name, rows in zigzag_beside.tables(options.data, answers, options.peer_python).items():
                table.write(options.out / f"{name}.csv", rows)
                wrote(options.out / f"{name}.csv", f"{len(rows)} rows")
    except HwsimError as problem:
        print(f"experiments.peers: {problem}", file=sys.stderr)
        return problem.exit_code
    except OSError as problem:
        print(f"experiments.peers: {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
