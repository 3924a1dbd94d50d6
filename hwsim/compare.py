"""`hwsim compare A B ...`: saved reports side by side, with ratios to the first, and what their questions differ in.

`--out PAGE.html` leaves the comparison as one page, layer by layer. `--same` prints only whether they are the same
question; the exit code is then 1 where they are not. Exit codes otherwise: 0; 2 for a file that is no report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hwsim.console import printable, wrote
from hwsim.errors import exit_code_of
from hwsim.files.argument import CommandLine, parse_path
from hwsim.report.compare import fitted, read_report, sameness, table, write_page


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = CommandLine(
        prog="hwsim compare",
        description="Saved reports side by side.",
        epilog="The table is as wide as the terminal, or as the variable COLUMNS says. Exit codes: 0 done; 1 with "
        "--same, where they answer different questions; 2 a file that is no report.",
    )
    parse.add_argument(
        "reports", nargs="+", type=parse_path, metavar="REPORT", help="report.json, or a folder that has one"
    )
    parse.add_argument(
        "--out", type=parse_path, metavar="PAGE.html", help="write the comparison as one self-contained page"
    )
    parse.add_argument("--same", action="store_true", help="only say whether they answer the same question")
    return parse


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse, read, print. Raises HwsimError where `main` prints it."""
    options = parser().parse_args(arguments)
    if len(options.reports) < 2:
        parser().error("expected at least two reports")
    reports = [read_report(path) for path in options.reports]
    if not options.same:
        from hwsim.report.screen import standard_output  # here, not above: `--help` does not wait for the pricing

        for line in fitted(table(reports), standard_output().width):
            print(printable(line))
    for line in sameness(reports):
        print(printable(line))
    if options.out is not None:
        write_page(reports, options.out)
        wrote(options.out)
    different = any(reports[0].identity.value != report.identity.value for report in reports[1:])
    return 1 if options.same and different else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command."""
    return exit_code_of(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
