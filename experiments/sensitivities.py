"""`python -m experiments.sensitivities resnet8`: how well sums of each method predict mixed networks, trained or not.

Reads results/sensitivities/NETWORK_*.json as `python -m quant.sensitivity ... --check N` wrote them. Each file says how
its sums agree with what it measured itself, in its own unit. The networks that the file of `finetune` measured were
trained first: the sums of every method are compared with those too, on the same assignments.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.tables import markdown
from quant.sensitivity import Sensitivity, agreement, random_widths

FOLDER = Path("results/sensitivities")
TRAINED = "finetune"


def read(network: str, folder: Path = FOLDER) -> dict[str, Mapping[str, Any]]:
    """The files of a network by method. ValueError without that of `finetune`, or where one lacks its check."""
    found = {path.stem.removeprefix(f"{network}_"): json.loads(path.read_text())
             for path in sorted(folder.glob(f"{network}_*.json"))}  # fmt: skip
    missing = [method for method in found if "additivity" not in found[method]]
    if TRAINED not in found or missing:
        lacking = f"no {network}_{TRAINED}.json" if TRAINED not in found else f"no check of {', '.join(missing)}"
        raise ValueError(f"{folder}: {lacking}: write it by python -m quant.sensitivity {network} --check N")
    return found


def sensitivities(document: Mapping[str, Any]) -> list[Sensitivity]:
    """The places of a file and what each width costs there."""
    return [
        Sensitivity(e["layer"], e["operand"], {int(b): v for b, v in e["loss_by_bits"].items()})
        for e in document["sensitivities"]
    ]


def sums(
    document: Mapping[str, Any], places: Sequence[Sensitivity], assignments: Sequence[Sequence[int]]
) -> list[float]:
    """What a method predicts of assignments of widths to `places`."""
    known = {(s.layer, s.operand): s.loss_by_bits for s in sensitivities(document)}
    return [
        sum(known[(s.layer, s.operand)][bits] for s, bits in zip(places, widths, strict=True)) for widths in assignments
    ]


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Per method: agreement with its own measurement, and with the trained networks."""
    places = sensitivities(found[TRAINED])
    measured = found[TRAINED]["additivity"]["measured"]
    assignments = list(random_widths(places, len(measured), found[TRAINED]["settings"]["seed"]))
    lines: list[list[str]] = []
    for method, document in found.items():
        own = document["additivity"]
        rank, slope = agreement(sums(document, places, assignments), measured)
        lines.append([f"`{method}`", f"{own['rank_correlation']:.2f}", f"{own['slope']:.2f}", f"{rank:.2f}",
                      f"{slope:.2g}", f"{document['seconds']:.0f}"])  # fmt: skip
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sensitivities", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("network", help="a zoo name")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    try:
        lines = rows(read(options.network, options.folder))
    except (ValueError, KeyError) as problem:
        print(f"experiments.sensitivities: {problem}", file=sys.stderr)
        return 2
    heads = ("method", "own measure: rank correlation", "slope", "loss after training: rank correlation", "slope",
             "seconds")  # fmt: skip
    print(markdown(heads, lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
