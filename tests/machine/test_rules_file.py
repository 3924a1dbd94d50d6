"""Files of constraints: every mistake is named with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.errors import SpecError
from hwsim.machine.load import load_accelerator
from hwsim.machine.rules import Limit, Rule, anonymous
from hwsim.machine.rules_file import load_rules


def read(folder: Path, *entries: str) -> str:
    """The message of a file of constraints for eyeriss_v1, one entry a line from line 2 on."""
    path = folder / "rules.yaml"
    path.write_text("constraints:\n" + "".join(f"  - {{level: {entry}}}\n" for entry in entries))
    with pytest.raises(SpecError) as caught:
        load_rules(path, load_accelerator("eyeriss_v1"))
    assert str(caught.value).startswith(f"{path}:")
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("pee, order: [C]", ":2: constraints[0].level: no such level 'pee' in eyeriss_v1; did you mean pe?"),
        ("pe", ":2: constraints[0]: says nothing about pe: expected order, factors"),
        ("pe, keep: [weight]", "constraints[0].keep: expected no such key: pe is an array"),
        ("glb, min_use: 0.5", "constraints[0].min_use: expected no such key: glb is a memory"),
        ("glb, keep: [weight]", "glb cannot keep weight: its keeps are ['input', 'output']"),
        ("glb, bypass: [input]", "glb always keeps input: its bypass is []"),
        ("dram, tile: {K: 4}", "constraints[0].tile: dram is the outermost memory"),
        ("pe, order: [C, C]", "constraints[0].order: expected each loop once"),
        ("pe, order: [rest, C, rest]", "constraints[0].order: expected each loop once"),
        ("pe, order: [X, C]", "constraints[0].order[0]: expected one of"),
        ("pe, factors: {C: 0}", 'constraints[0].factors.C: expected a whole number from 1, "<=n" or all, got 0'),
        ("pe, factors: {C: <4}", 'expected a whole number from 1, "<=n" or all'),
        ("pe, factors: {X: 4}", "constraints[0].factors.X: expected one of N, G, K"),
        ("pe, unroll: {rows: {P: 4}}", "expected one of ['R', 'C', 'K', 'G'], which rows takes, got P"),
        ("pe, unroll: {rows: {R: 13}}", "expected at most the 12 elements of rows, got 13"),
        ("pe, unroll: {row: {R: 3}}", "no such axis of pe; did you mean rows?"),
        ("pe, ordre: [C]", "unknown key; did you mean order?"),
    ],
)
def test_a_mistake_is_named_with_line_and_key(tmp_path: Path, entry: str, message: str) -> None:
    assert message in read(tmp_path, entry)


def test_loops_have_their_rules_in_one_place(tmp_path: Path) -> None:
    text = read(tmp_path, "pe, order: [C]", "pe, min_use: 0.5")
    assert ":3: constraints[1].level: pe has constraints in constraints[0] already" in text
    text = read(tmp_path, "pe, order: [C]", "psum_spad, order: [C]")
    assert ":3: constraints[1].level: the loops of psum_spad are inside pe" in text
    (tmp_path / "both.yaml").write_text(
        "constraints:\n  - {level: pe, factors: {C: 1}}\n  - {level: psum_spad, order: [C, rest]}\n"
    )
    outside, inside = load_rules(tmp_path / "both.yaml", load_accelerator("eyeriss_v1"))
    assert (outside.factors, inside.order) == ((("C", Limit(1)),), ("C", "rest"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("constraint: []\n", "did you mean constraints?"), ("- 4\n", "expected constraints: [...]"), ("", "empty")],
)
def test_a_file_without_constraints_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=str(path)) as caught:
        load_rules(path, load_accelerator("eyeriss_v1"))
    assert message in str(caught.value)


def test_own_constraints_of_a_machine_without_any_are_refused() -> None:
    with pytest.raises(SpecError, match="simba has no constraints"):
        load_rules("own", load_accelerator("simba"))


def test_a_file_reads_as_its_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "constraints:\n"
        "  - level: pe\n    order: [S, Q]\n    factors: {S: all, C: <=4, K: 2}\n    unroll: {rows: {R: 3}}\n"
        "    min_use: 0.5\n"
        "  - {level: glb, keep: [output], tile: {K: 16}}\n"
    )
    rules = load_rules(path, load_accelerator("eyeriss_v1"))
    assert rules[0].place("factors.C") == f"{path}:4: constraints[0].factors.C"
    factors = (("S", Limit(None)), ("C", Limit(4, exact=False)), ("K", Limit(2)))
    assert anonymous(rules) == (
        Rule("pe", order=("S", "Q"), factors=factors, unroll=(("rows", (("R", Limit(3)),)),), min_use=0.5),
        Rule("glb", keep=("output",), tile=(("K", Limit(16)),)),
    )
