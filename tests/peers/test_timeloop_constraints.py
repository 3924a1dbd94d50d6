"""Constraints of Timeloop's mapper become a spec's: what is said, what is named, what its recorded mapper runs keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwsim.errors import SpecError
from hwsim.nest.count import count_accesses
from hwsim.nest.ruled import broken_rules
from hwsim.peers.timeloop.read import Timeloop, read_timeloop
from hwsim.pricing.layer import price
from hwsim.search.layer import search
from tests.peers.test_timeloop import reference

ARCH = """
architecture:
  version: 0.4
  nodes:
  - !Container {{name: system, attributes: {{technology: "40nm", global_cycle_seconds: 1e-9}}}}
  - !Component {{name: DRAM, class: DRAM, attributes: {{width: 64, datawidth: 8}}}}
  - !Component
    name: glb
    class: SRAM
    attributes: {{depth: 4096, width: 64, datawidth: 8}}
    constraints: {{{glb}}}
  - !Container
    name: rows
    spatial: {{meshY: 4}}
    constraints: {{{rows}}}
  - !Container
    name: columns
    spatial: {{meshX: 8}}
    constraints: {{{columns}}}
  - !Component
    name: spad
    class: regfile
    attributes: {{depth: 64, width: 8, datawidth: 8}}
    constraints: {{{spad}}}
  - !Component {{name: MAC, class: intmac, attributes: {{multiplier_width: 8, adder_width: 16}}}}
problem:
  shape:
    name: layer
    dimensions: [C, M, R, S, N, P, Q]
    data_spaces:
    - {{name: Weights, projection: [[[C]], [[M]], [[R]], [[S]]]}}
    - {{name: Inputs, projection: [[[N]], [[C]], [[R], [P]], [[S], [Q]]]}}
    - {{name: Outputs, projection: [[[N]], [[M]], [[P]], [[Q]]], read_write: true}}
  instance: {{C: 16, M: 32, R: 3, S: 3, N: 1, P: 14, Q: 14}}
"""


def read(folder: Path, extra: str = "", **constraints: str) -> Timeloop:
    text = ARCH.format(**{**dict.fromkeys(("glb", "rows", "columns", "spad"), ""), **constraints})
    (folder / "arch.yaml").write_text(text + extra)
    return read_timeloop([folder / "arch.yaml"])


def said(found: Timeloop) -> dict[str, dict[str, Any]]:
    """Entries by level, without their sources."""
    assert found.draft is not None
    found.machine()  # every entry is one that a spec may have
    return {
        entry["level"]: {key: value for key, value in entry.items() if key not in ("level", "source")}
        for entry in found.draft.data.get("constraints", ())
    }


BANNED = {"factors": dict.fromkeys(("N", "G", "K", "C", "P", "Q", "R", "S"), 1)}


@pytest.mark.parametrize(
    ("words", "entry"),
    [
        ("factors: [R=3, M<=4, Q=0, N=1]", {"factors": {"N": 1, "K": "<=4", "Q": "all", "R": 3}}),
        ("permutation: [R, S]", {"order": ["R", "S", "rest"]}),
        ("permutation: RS_M", {"order": ["R", "S", "rest", "K"]}),
        ("permutation: [Q, P, S, R, C, M]", {"order": ["Q", "P", "S", "R", "C", "K", "N"]}),
        ("permutation: [N, M, C, P, Q, R, S]", {"order": ["N", "K", "C", "P", "Q", "R", "S"]}),
        ("factors_only: [], factors: [C=4]", {"factors": {"N": 1, "K": 1, "C": 4, "P": 1, "Q": 1, "R": 1, "S": 1}}),
        ("no_iteration_over_dataspaces: [Weights]", {"factors": {"K": 1, "C": 1, "R": 1, "S": 1}}),
        ("must_iterate_over_dataspaces: [Outputs]", {"factors": {"C": 1, "R": 1, "S": 1}}),
        ("default_max_factor: 2, factors: [C=1, M=1, N=1, P=1, Q=1]",
         {"factors": {"N": 1, "K": 1, "C": 1, "P": 1, "Q": 1, "R": "<=2", "S": "<=2"}}),
    ],
)  # fmt: skip
def test_temporal_constraints_of_the_innermost_level(tmp_path: Path, words: str, entry: dict[str, Any]) -> None:
    assert said(read(tmp_path, spad=f"temporal: {{{words}}}")) == {"spad": entry}


def test_loops_may_not_hide_between_an_array_and_its_memory(tmp_path: Path) -> None:
    found = said(read(tmp_path, glb="temporal: {factors: [R=1]}"))
    assert found == {"glb": {"factors": {"R": 1}}, "rows": BANNED, "columns": BANNED, "spad": {"order": ["rest"]}}


@pytest.mark.parametrize(
    ("words", "entry"),
    [
        ("factors: [M=8, C=1]", {"unroll": {"meshX": {"K": 8}}}),
        ("factors: [M<=4, C=2]", {"unroll": {"meshX": {"K": "<=4", "C": 2}}}),
        ("maximize_dims: [[M]]", {"unroll": {"meshX": {"K": "all"}}}),
    ],
)
def test_spatial_constraints(tmp_path: Path, words: str, entry: dict[str, Any]) -> None:
    assert said(read(tmp_path, columns=f"spatial: {{{words}}}")) == {"columns": entry}


def test_constraints_in_a_file_of_their_own_are_the_same(tmp_path: Path) -> None:
    words = "permutation: [R, S], factors: [N=1]"
    beside = f"constraints:\n  targets:\n  - {{target: spad, type: temporal, {words}}}\n"
    assert said(read(tmp_path, beside)) == said(read(tmp_path, spad=f"temporal: {{{words}}}"))


def test_a_least_share_of_macs(tmp_path: Path) -> None:
    beside = "constraints:\n  targets:\n  - {target: MAC, type: utilization, min: 0.5}\n"
    found = read(tmp_path, beside)
    assert said(found) == {}
    assert [entry.subject for entry in found.report.of("none") if "utilization" in entry.subject] == ["MAC.utilization"]


@pytest.mark.parametrize(
    ("level", "words", "subject"),
    [
        ("spad", "temporal: {factors: [R>=2]}", "spad.factors"),
        ("spad", "temporal: {rmw_first_update: [Outputs]}", "spad.temporal.rmw_first_update"),
        ("columns", "spatial: {no_reuse: [Inputs]}", "columns.spatial.no_reuse"),
        ("columns", "spatial: {maximize_dims: [[M, C]]}", "columns.maximize_dims"),
        ("columns", "temporal: {factors: [R=1]}", "columns.temporal"),
    ],
)
def test_what_a_spec_cannot_say_is_named(tmp_path: Path, level: str, words: str, subject: str) -> None:
    found = read(tmp_path, **{level: words})
    assert subject in [entry.subject for entry in found.report.of("none")]


@pytest.mark.parametrize(
    ("level", "words", "message"),
    [
        ("columns", "spatial: {factors: [M=16]}", "M=16 on meshX of 8 elements"),
        ("spad", "temporal: {permutation: [R, R]}", "R stands twice"),
        ("spad", "temporal: {permutation: [X]}", "unknown loop 'X'"),
        ("spad", "temporal: {factor: [R=1]}", "unknown key 'factor'"),
    ],
)
def test_mistakes_have_a_line(tmp_path: Path, level: str, words: str, message: str) -> None:
    with pytest.raises(SpecError, match=r"arch.yaml:\d+: .*" + message):
        read(tmp_path, **{level: words})


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected one of temporal, spatial"):
        read(tmp_path, "constraints:\n  targets:\n  - {target: spad, type: temporary, factors: [R=1]}\n")


@pytest.mark.parametrize("name", ["eyeriss_like", "simple_weight_stationary"])
def test_its_mappers_result_keeps_its_constraints_and_ours_is_no_dearer(peers_dir: Path, name: str) -> None:
    ref = reference(peers_dir, name)
    rules = ref.machine.constraints
    assert len(rules) >= 6
    assert broken_rules(ref.nest, ref.layer, ref.machine, rules) == []
    theirs = price(ref.layer, count_accesses(ref.layer, ref.nest, ref.machine), ref.machine)
    ours = search(ref.layer, ref.machine, effort="quick", rules=rules)
    assert broken_rules(ours.mapping, ref.layer, ref.machine, rules) == []
    assert ours.cost.total_energy_pj < 0.95 * theirs.total_energy_pj
    assert ours.cost.latency_cycles <= theirs.latency_cycles


def test_the_page_says_what_its_mapper_missed(peers_dir: Path) -> None:
    """docs/coming_from.md: prices of its runs and our least under its constraints."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "coming_from.md").read_text(encoding="utf-8")
    for name in ("eyeriss_like", "simple_weight_stationary"):
        ref = reference(peers_dir, name)
        theirs = price(ref.layer, count_accesses(ref.layer, ref.nest, ref.machine), ref.machine).total_energy_pj
        ours = search(ref.layer, ref.machine, effort="quick", rules=ref.machine.constraints).cost.total_energy_pj
        assert f"({theirs / 1e6:.4g} and {ours / 1e6:.4g} uJ" in page
