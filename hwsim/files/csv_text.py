"""CSV as text: lines end in one newline on every system, None and what is lacking is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows, the first of them perhaps the header.

    >>> csv_text([("layer", "energy_pj"), ("conv, first", None)])
    'layer,energy_pj\\n"conv, first",\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def csv_table(columns: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """A header and records by name. Raises ValueError for a name that is no column.

    >>> csv_table(["layer", "bits"], [{"bits": 8, "layer": "conv"}, {"layer": "fc"}])
    'layer,bits\\nconv,8\\nfc,\\n'
    """
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
