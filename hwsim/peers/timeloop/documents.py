"""Timeloop's files merged into one description by top key, the way its front end does.

Any number of files; `components`, `constraints`, `mapping` and `globals` match by part of a name, other keys exactly.
Keys with `-` are read as `_`. The result holds trees; their meaning is read in architecture.py, problem.py, mapping.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.errors import SpecError
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.templates import Templates

EXACT = ("architecture", "mapper", "mapspace", "problem", "variables", "sparse_optimizations", "ERT", "ART",
         "ERT_summary", "ART_summary")  # fmt: skip
PARTS = ("components", "constraints", "mapping", "globals")
IGNORED = {
    "mapper": "settings of Timeloop's own search",
    "mapspace": "settings of Timeloop's own search",
    "components": "estimators' compound components: energies come from an energy reference table or our estimates",
}
HARMLESS = ("version", "dumped_by_timeloop_front_end")


@dataclass
class Documents:
    """Top keys with the trees that stood under them, in the order of the files."""

    files: tuple[Path, ...]
    trees: dict[str, list[Item]] = field(default_factory=dict[str, list[Item]])

    def all(self, key: str) -> list[Item]:
        """Every tree under a key."""
        return self.trees.get(key, [])

    def one(self, key: str) -> Item | None:
        """The tree under a key; None where there is none or an empty one. Two are an error."""
        found = [tree for tree in self.all(key) if tree.value not in (None, [], {})]
        if len(found) > 1:
            raise found[1].error(f"{key}: described twice, first in {found[0].place}: give one of them")
        return found[0] if found else None


def read_documents(paths: Sequence[Path], variables: Mapping[str, str], report: TranslationReport) -> Documents:
    """All files, rendered, parsed and merged. Raises SpecError."""
    documents = Documents(tuple(paths))
    unused = set(variables)
    for path in paths:
        templates = Templates(path.parent.resolve(), variables)
        root = templates.load(path)
        unused -= templates.used
        for key, tree in root.keys("a Timeloop file").items():
            name = top_key(key)
            if name is None and key not in HARMLESS:
                raise tree.error(f"unknown top key {key!r}; known: {', '.join((*EXACT, *PARTS))}")
            if name is not None:
                documents.trees.setdefault(name, []).append(tree)
                if name in IGNORED:
                    report.none(tree.place, key, IGNORED[name])
    if unused:
        raise SpecError(f"{paths[0]}: no template uses the variable {sorted(unused)[0]!r} that was set")
    refuse_globals(documents)
    refuse_sparse(documents)
    return documents


def top_key(key: str) -> str | None:
    """The canonical name of a top key."""
    plain = key.replace("-", "_")
    if plain in EXACT:
        return plain
    return next((part for part in PARTS if part in plain), None)


def refuse_globals(documents: Documents) -> None:
    """Refuse what would load code; environment variables are only read over."""
    for tree in documents.all("globals"):
        for key in ("expression_custom_functions", "accelergy_plug_ins"):
            found = tree.keys("globals").get(key)
            if found is not None and found.value not in ([], None):
                raise found.error(f"globals.{key} loads code, which is refused: nothing in a description is executed")


def refuse_sparse(documents: Documents) -> None:
    """Refuse sparse modelling by name."""
    for tree in documents.all("sparse_optimizations"):
        content = tree.value
        if isinstance(content, dict):
            content = content.get("targets", Item([], tree.file, tree.line)).value
        if content not in ([], None, {}):
            raise tree.error("sparse_optimizations have no counterpart: gating, skipping and formats are not priced")
