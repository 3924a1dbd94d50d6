"""`python -m hwsim.convert FILE... --to DIR`: descriptions of other tools into ours, and ours into Timeloop's.

In: Timeloop v4 and v3 (with jinja2 top files), Accelergy's tables, ZigZag 3.9, SCALE-Sim v3, MAESTRO. Out: a spec, a
workload, a mapping, and `translation.txt`, which says what was taken over, what was approximated and what has no
counterpart.
With `--format timeloop`: a spec (and a workload and mapping) of ours as Timeloop v4 files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.console import wrote
from hwsim.errors import SpecError, exit_code_of
from hwsim.files.argument import CommandLine, parse_name, parse_path
from hwsim.files.atomic import write_atomically
from hwsim.peers.words import TOOLS

if TYPE_CHECKING:
    from hwsim.peers.report import TranslationReport


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = CommandLine(
        prog="hwsim convert",
        description="Descriptions of other tools into ours (spec, workload, mapping, report), or ours into Timeloop's.",
        epilog="Exit codes: 0 done; 2 bad input. Nothing in a description is executed.",
    )
    parse.add_argument(
        "files", nargs="+", type=parse_name, metavar="FILE", help="files of one tool; or, with --format, a spec of ours"
    )
    parse.add_argument("--to", type=parse_path, required=True, metavar="DIR", help="folder to write to")
    parse.add_argument("--from", dest="tool", choices=TOOLS, help="the tool (default: told by the files)")
    parse.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a template's variable")
    parse.add_argument("--format", choices=["timeloop"], help="write a machine of ours in this tool's format")
    parse.add_argument("--workload", type=parse_path, metavar="FILE", help="with --format: its layers become problems")
    parse.add_argument("--mapping", type=parse_path, metavar="FILE", help="with --format: mappings of these layers")
    parse.add_argument(
        "--replace",
        action="store_true",
        help="write over an earlier translation in DIR; files that this one lacks stay",
    )
    parse.add_argument("--quiet", action="store_true", help="print only the files written")
    return parse


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse, translate, write, print. Raises HwsimError where `main` prints it."""
    options = parser().parse_args(arguments)
    from hwsim.peers.report import TITLES  # here, not above, and so are the readers: `--help` does not wait for them

    report, written = write_out(options) if options.format else read_in(options)
    if not options.quiet:
        print(report.text(), end="")
    said = ", ".join(f"{len(report.of(verdict))} {title}" for verdict, title in TITLES.items())
    print(f"translation: {said}")
    for path in written:
        wrote(path)


def read_in(options: argparse.Namespace) -> tuple[TranslationReport, list[Path]]:
    """Other tools' files into ours."""
    from hwsim.peers.translation import VARIABLE, is_direct, parse_argument, tool_of, translate

    named = [parse_argument(text) for text in options.files if is_direct(text)]
    paths = [Path(text) for text in options.files if not is_direct(text)]
    tools = {tool for tool, _, _ in named} | {options.tool or tool_of(path) for path in paths}
    tools |= {options.tool} if options.tool else set()
    if len(tools) > 1:
        raise SpecError(f"{', '.join(options.files)}: files of {' and '.join(sorted(tools))}: give those of one tool")
    variables: dict[str, str] = {}
    for _, files, values in named:
        paths += files
        variables |= values
    for text in options.set:
        match = VARIABLE.fullmatch(text)
        if match is None:
            raise SpecError(f"--set {text}: expected NAME=VALUE")
        variables[match[1]] = match[2]
    translation = translate(tools.pop(), paths, variables)
    keep_earlier(options)
    return translation.report, translation.write(options.to)


def keep_earlier(options: argparse.Namespace) -> None:
    """SpecError where the folder holds a translation already and nobody asked to replace it."""
    if not options.replace and (options.to / "translation.txt").exists():
        raise SpecError(
            f"{options.to}: holds an earlier translation (translation.txt); expected a folder without one: "
            "name another with --to, or write over it with --replace"
        )


def write_out(options: argparse.Namespace) -> tuple[TranslationReport, list[Path]]:
    """A spec of ours into Timeloop's files."""
    from hwsim.machine.load import load_accelerator
    from hwsim.nest.text import load_mappings
    from hwsim.network.saved import load_workload
    from hwsim.peers.report import TranslationReport
    from hwsim.peers.timeloop.export import export_files

    if len(options.files) != 1:
        raise SpecError(f"{' '.join(options.files)}: with --format expected one spec, got {len(options.files)}")
    workload = load_workload(options.workload) if options.workload else None
    mappings = load_mappings(options.mapping) if options.mapping else {}
    report = TranslationReport()
    files = export_files(load_accelerator(options.files[0]), workload, mappings, report)
    keep_earlier(options)
    for name, text in files.items():
        write_atomically(options.to / name, text)
    return report, [options.to / name for name in files]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    return exit_code_of(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
