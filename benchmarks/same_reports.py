"""Whether two checkouts give the same reports, byte for byte: what a move of code must show.

    python -m benchmarks.same_reports write BEFORE     # in the old checkout (or with its folder first on PYTHONPATH)
    python -m benchmarks.same_reports write AFTER      # in the new one
    python -m benchmarks.same_reports compare BEFORE AFTER

`write` prices resnet8, ds_cnn and silu_se_net at W8A8, W4A4 and W2A2 on every shipped spec with the quick search, and
resnet18 on eyeriss_v1 and resnet8 on five specs with proofs, through the command line alone. A refused request leaves
its message. `--specs`, `--bits` and `--no-proofs` take fewer. `compare` leaves out what names the folder: the command,
and hashes into which the place of a spec's rules goes. It prints the CPU seconds of both, too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NETWORKS = ("resnet8", "ds_cnn", "silu_se_net")
WIDTHS = ("W8A8", "W4A4", "W2A2")
PROVEN = ("eyeriss_v1", "simba", "nvdla_small", "bit_fusion", "gemmini_16x16")
ABOUT_FOLDERS = ("command", "identity", "seal")
TIMES = "cpu_seconds.txt"


def requests(specs: Sequence[str], widths: Sequence[str], proofs: bool) -> dict[str, list[str]]:
    """Name of each file -> the command's arguments."""
    specs = specs or sorted(path.stem for path in Path("accel_specs").glob("*.yaml"))
    found = {
        f"{spec}-{network}-{bits}": [network, spec, "--bits", bits, "--quick"]
        for spec in specs
        for network in NETWORKS
        for bits in widths
    }
    if proofs:
        found["eyeriss_v1-resnet18-proven"] = ["resnet18", "eyeriss_v1"]
        found |= {f"{spec}-resnet8-proven": ["resnet8", spec, "--bits", "W4A4"] for spec in PROVEN}
    return found


def write(folder: Path, asked: dict[str, list[str]]) -> None:
    """One file per request: report.json, or the message of a refusal."""
    from hwsim.evaluate import main

    folder.mkdir(parents=True, exist_ok=True)
    workloads = folder / "workloads"
    workloads.mkdir(exist_ok=True)
    began = time.process_time()
    for name, arguments in asked.items():
        saved = workloads / f"{arguments[0]}.json"
        if not saved.is_file():
            with contextlib.redirect_stdout(io.StringIO()):
                main([arguments[0], "eyeriss_v1", "--quick", "--save-workload", str(saved)])
        with tempfile.TemporaryDirectory() as out:
            message = io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(message):
                code = main([str(saved), *arguments[1:], "--out", out])
            target = folder / f"{name}.json"
            if code == 0:
                shutil.copyfile(Path(out) / "report.json", target)
            else:
                target.write_text(f"exit {code}\n{message.getvalue()}", encoding="utf-8")
    (folder / TIMES).write_text(f"{time.process_time() - began:.1f}\n", encoding="utf-8")


def content(path: Path, folder: Path) -> Any:
    """A report without what names folders; a refusal's message."""
    text = path.read_text(encoding="utf-8").replace(str(folder), "")
    if text.startswith("exit"):
        return text
    return json.dumps({key: value for key, value in json.loads(text).items() if key not in ABOUT_FOLDERS})


def compare(before: Path, after: Path) -> int:
    """How many files differ; each is named."""
    names = {path.name for folder in (before, after) for path in folder.glob("*.json")}
    different = [
        name
        for name in sorted(names)
        if not (before / name).is_file()
        or not (after / name).is_file()
        or content(before / name, before) != content(after / name, after)
    ]
    for name in different:
        print(f"differs: {name}")
    print(f"{len(names) - len(different)} of {len(names)} reports are equal, byte for byte")
    if all((folder / TIMES).is_file() for folder in (before, after)):
        print("CPU seconds:", *((folder / TIMES).read_text(encoding="utf-8").strip() for folder in (before, after)))
    return len(different)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something differs."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.same_reports", description=__doc__)
    commands = parse.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--specs", nargs="+", default=[], metavar="SPEC", help="default: all")
    writing.add_argument("--bits", nargs="+", default=WIDTHS, metavar="WxAy", help="of the quick search")
    writing.add_argument("--no-proofs", dest="proofs", action="store_false", help="the quick search alone")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parse.parse_args(arguments)
    if options.command == "write":
        os.environ["HWSIM_CACHE"] = ""
        write(options.folder, requests(options.specs, options.bits, options.proofs))
        return 0
    return min(1, compare(options.before, options.after))


if __name__ == "__main__":
    sys.exit(main())
