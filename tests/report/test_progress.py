"""Progress: the number of searches is known beforehand, a watcher changes no number, only a terminal sees it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.network import Totals
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.progress import reading, searches_of, watched
from hwsim.search.objective import OBJECTIVES


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Workload:
    """Four linear layers, two of them equal; nothing is remembered between runs."""
    monkeypatch.setenv("HWSIM_CACHE", "")
    sizes = (24, 16, 16, 16, 10)
    layers = [
        Layer(
            f"fc{i}", "linear", (Tensor(f"t{i}", (1, sizes[i]), 8),), Tensor(f"t{i + 1}", (1, sizes[i + 1]), 8),
            weight=Tensor(f"w{i}", (sizes[i + 1], sizes[i]), 8), loops=Loops(K=sizes[i + 1], C=sizes[i]),
        )
        for i in range(4)
    ]  # fmt: skip
    return assign_bits(Workload("chain", layers), "W4A4")


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.phases: list[list[object]] = []
        self.first: list[Totals] = []

    def begin(self, what: str, searches: int) -> None:
        self.phases.append([what, searches, 0])

    def advance(self) -> None:
        self.phases[-1][2] += 1  # type: ignore[operator]

    def early(self, totals: Totals) -> None:
        self.first.append(totals)


def test_as_many_searches_are_made_as_were_announced(chain: Workload) -> None:
    machine, notes = load_accelerator("eyeriss_v1"), Notes()
    evaluate_workload(chain, machine, Request(bits="W4A4"), notes)
    once = searches_of(chain, machine)
    count = 2 * once  # the machine's own schedule as well
    others = (len(OBJECTIVES) - 1) * count
    *quick, (proving, announced, made) = notes.phases[:3]
    assert quick == [["searching", count, count], ["other objectives", others, others]]
    # What a network's plan asks is seen on the way; at 4 and 8 bits eyeriss_v1 moves the same words.
    assert (proving, announced) == ("proving", count)
    assert made
    # Three different layers, each at 4 and at 8 bits.
    assert once == 6


def test_a_watcher_changes_no_number_and_hears_the_quick_answer_first(chain: Workload) -> None:
    machine, notes = load_accelerator("eyeriss_v1"), Notes()
    seen = evaluate_workload(chain, machine, Request(bits="W4A4"), notes)
    assert seen.to_dict() == evaluate_workload(chain, machine, Request(bits="W4A4")).to_dict()
    assert notes.first == [evaluate_workload(chain, machine, Request(bits="W4A4", effort="quick")).totals]


def test_only_a_terminal_sees_it(chain: Workload) -> None:
    machine = load_accelerator("eyeriss_v1")
    for terminal in (False, True):
        target = io.StringIO()
        with watched(Console(file=target, force_terminal=terminal, width=100)) as watch:
            assert (watch is None) == (not terminal)
            report = evaluate_workload(chain, machine, Request(bits="W4A4"), watch)
        assert ("first answer: " in target.getvalue()) == terminal
        if not terminal:
            assert target.getvalue() == ""
    assert report.energy_pj > 0


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_sees_that_a_network_is_being_read(terminal: bool) -> None:
    target = io.StringIO()
    with reading("[bold]net", Console(file=target, force_terminal=terminal, width=60)):
        pass
    assert ("reading [bold]net" in target.getvalue()) == terminal
