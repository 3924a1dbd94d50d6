# pyright: basic
"""Whether files come from one trained network: checkpoints, reports, certificates, exported C and ONNX, and those that
price its layers at other widths: workloads, tables, studies.

Each carries the network's identity (`quant.checkpoint.identity`). A checkpoint's is computed from what lies there;
the others' is read, beside a seal that shows whether the file was changed since it was written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.errors import RequestError, reason
from hwsim.files.identity import content_hash
from hwsim.files.reading import read_text
from hwsim.integer.export.seal import identity_of_c, identity_of_onnx
from hwsim.network.workload import FORMAT
from quant import checkpoint


@dataclass(frozen=True)
class Artefact:
    """A file or folder, what it is, the network that it names, and whether it is as it was written."""

    path: Path
    kind: str
    identity: str
    whole: bool = True

    def text(self) -> str:
        """One line."""
        changed = "" if self.whole else "  (changed since it was written)"
        return f"{self.identity}  {self.kind:11s}  {self.path}{changed}"


def read_artefact(path: Path) -> Artefact:
    """What a path says about its network. Raises RequestError, naming the command that writes an identity."""
    if path.is_dir() and checkpoint.is_checkpoint(path):
        return Artefact(path, "checkpoint", identity_of_checkpoint(path))
    if (path / "study.json").is_file():
        return Artefact(path, "study", identity_of_study(path))
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise RequestError(
            f"{path}: expected a checkpoint, a report, a certificate, a workload, a table, a study, a .c or an .onnx "
            "file"
        )
    if file.suffix == ".c":
        return Artefact(path, "C", *identity_of_c(file))
    if file.suffix == ".onnx":
        return Artefact(path, "ONNX", *identity_of_onnx(file))
    if file.suffix == ".csv":
        return Artefact(path, "table", identity_of_table(file))
    return from_json(path, file)


def identity_of_study(folder: Path) -> str:
    """The network that a study over machines began with; all its variants name it. Raises RequestError."""
    saved = sorted((folder / "networks").glob("*.json"))
    named = {from_json(path, path).identity for path in saved}
    if len(named) != 1:
        raise RequestError(f"{folder}/networks: expected saved workloads of one trained network, found {len(named)}")
    return named.pop()


def identity_of_table(file: Path) -> str:
    """The network whose layers a table of `hwsim table` prices. Raises RequestError."""
    try:
        named = {row.get("network") or "" for row in csv.DictReader(read_text(file).splitlines())}
    except (OSError, ValueError, csv.Error) as problem:
        raise RequestError(f"{file}: cannot be read as CSV: {reason(problem)}") from None
    if len(named) != 1 or "" in named:
        raise RequestError(f"{file}: names no trained network, or several: hwsim table CHECKPOINT ACCEL --out FILE.csv "
                           "writes one in the column `network`")  # fmt: skip
    return named.pop()


def identity_of_checkpoint(folder: Path) -> str:
    """Computed, once the weights are what their file's name says. Raises RequestError."""
    try:
        checkpoint.load(folder)
        return checkpoint.identity(folder)
    except (ValueError, OSError) as problem:
        raise RequestError(str(problem)) from None


def from_json(path: Path, file: Path) -> Artefact:
    """A report, a certificate or a saved workload, told apart by their keys."""
    try:
        data = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as problem:
        raise RequestError(f"{file}: cannot be read as JSON: {reason(problem)}") from None
    found: dict[str, Any] = data if isinstance(data, dict) else {}
    model = found.get("model")
    if found.get("format") == FORMAT:
        return named(path, "workload", found.get("identity"), True)
    if "network" in found:
        return named(path, "table", found["network"], True)
    content = {key: value for key, value in found.items() if key != "seal"}
    whole = content_hash(content) == found.get("seal")
    kind, said = ("report", model) if isinstance(model, dict) else ("certificate", found)
    return named(path, kind, said.get("identity"), whole)


def named(path: Path, kind: str, identity: object, whole: bool) -> Artefact:
    """The artefact, which must name a network. `whole` holds without a proof where a file carries no seal."""
    if not isinstance(identity, str) or not identity:
        raise RequestError(
            f"{path}: names no trained network: hwsim evaluate CHECKPOINT ACCEL --out DIR and hwsim verify CHECKPOINT "
            "--out FILE write it; a network with other bits than it was trained with has none"
        )
    return Artefact(path, kind, identity, whole)


def are_same(artefacts: Sequence[Artefact]) -> bool:
    """Whether all name one network and none was changed."""
    return len({item.identity for item in artefacts}) == 1 and all(item.whole for item in artefacts)
