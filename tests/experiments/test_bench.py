"""The table of ratios that `make bench` ends with is read from what the parts print."""

from __future__ import annotations

import sys

import pytest

from benchmarks import __main__ as bench

PRINTED = {
    "evaluate": ("model / workload, CPU: 3.4x\n", [["first price: from the model / from a saved workload", "3.4"]]),
    "peers": (
        "tpu_like: ours 57.9 M pJ, at most 58.0 with whole words per transfer, gap 0 %, 12 cycles, 0.40 CPU s\n"
        "  its best recorded: 57.9 M pJ; ours / its = 1.0, at most 1.0\n"
        "  its LOMA (version 3.9, lpf 6): 58.0 M pJ, 5 cycles, 6.90 CPU s; ours / its = 0.9983, its time / ours = 17\n"
        "eyeriss_like: ours 674.6 M pJ, at most 675.0 with whole words per transfer, gap 0 %, 12 cycles, 2.30 CPU s\n"
        "  its LOMA (version 3.9, lpf 6): 750.3 M pJ, 5 cycles, 9.1 CPU s; ours / its = 0.9, its time / ours = 4\n",
        [
            ["one layer, time: ZigZag's default / our proof, tpu_like", "17"],
            ["one layer, time: ZigZag's default / our proof, eyeriss_like", "4"],
        ],
    ),
    "tables": (
        "sizes           70.1      512.0       0.40     1280 x   24 of 24   0 of 360   1200\n",
        [["a machine's time: fresh proof / from tables, varying sizes", "1280"]],
    ),
    "training": (
        "resnet20:\n  float                                   100.00    1.00    1.00\n"
        "  ours                                    112.00    1.00    1.12\n"
        "  ours, compiled over float, compiled: 1.070\n",
        [
            ["training step of resnet20, eager, / float: ours", "1.12"],
            ["training step: ours, compiled over float, compiled", "1.070"],
        ],
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_ratios_are_read_from_what_a_part_prints(name: str) -> None:
    printed, rows = PRINTED[name]
    assert bench.PARTS[name].found(printed) == rows


def test_an_older_checkout_has_rows_for_search_and_proofs() -> None:
    part = bench.Part("", (), ratios=bench.BEFORE)
    told = "resnet18 on eyeriss_v1: quick 0.80 -> 0.40 s, 0.50x   proofs 1.90 -> 1.20 s, 0.63x\n"
    assert [row[1] for row in part.found(told)] == ["0.50", "0.63"]


def test_a_part_that_fails_is_said_and_the_others_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "PARTS", {"one": bench.Part("?", (("no_such_module",),))})
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert bench.main(["--only", "one"]) == 1
    assert "failed: one" in capsys.readouterr().err
