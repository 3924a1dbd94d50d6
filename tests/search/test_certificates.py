"""The tables of docs/search_results.md are those of results/certificates.csv."""

from __future__ import annotations

from benchmarks import certificates


def test_the_page_shows_the_rows_of_the_results() -> None:
    page = certificates.PAGE.read_text(encoding="utf-8")
    assert page == certificates.documented(page)


def test_a_layer_that_did_not_end_shows_in_its_cell() -> None:
    rows = [{"cpu_s": "0.5", "ended": "yes"}, {"cpu_s": "0.25", "ended": "no"}]
    assert certificates.cell(rows[:1], 1) == "0.50"
    assert certificates.cell(rows, 2) == "0.75 (1/2)"
