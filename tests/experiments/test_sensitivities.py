"""Every method is compared with the networks that were trained, on the assignments that were drawn for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.sensitivities import main, read, rows
from quant.sensitivity import Sensitivity, random_widths

PLACES = [("a", "weight"), ("a", "input"), ("b", "weight")]


def document(scale: float, widths: tuple[int, ...], measured: list[float], **more: Any) -> dict[str, Any]:
    """Losses of `scale` / bits, doubled at place b."""
    entries = [
        {"layer": layer, "operand": operand, "loss_by_bits": {str(b): scale * (1 + (layer == "b")) / b for b in widths}}
        for layer, operand in PLACES
    ]
    own = {"predicted": measured, "measured": measured, "rank_correlation": 1.0, "slope": 1.0}
    return {"sensitivities": entries, "additivity": own, "seconds": 3.0, **more}


def test_a_method_is_judged_by_the_trained_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [Sensitivity(layer, operand, {2: 0.0, 4: 0.0, 8: 0.0}) for layer, operand in PLACES]
    drawn = list(random_widths(places, 6, 5))
    truth = [sum((1 + (i == 2)) / b for i, b in enumerate(widths)) for widths in drawn]
    trained = document(1.0, (2, 4, 8), truth, settings={"seed": 5})
    (tmp_path / "net_finetune.json").write_text(json.dumps(trained))
    (tmp_path / "net_mse.json").write_text(json.dumps(document(-4.0, (2, 3, 4, 8), [1.0, 2.0])))
    own, other = rows(read("net", tmp_path))
    assert own == ["`finetune`", "1.00", "1.00", "1.00", "1", "3"]
    assert other[3:5] == ["-1.00", "-0.25"]
    assert main(["net", "--folder", str(tmp_path)]) == 0
    assert "| `mse` |" in capsys.readouterr().out


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net", "--folder", str(tmp_path)]) == 2
    assert "no net_finetune.json" in capsys.readouterr().err
    (tmp_path / "net_finetune.json").write_text(json.dumps({"sensitivities": []}))
    assert main(["net", "--folder", str(tmp_path)]) == 2
    assert "no check of finetune" in capsys.readouterr().err
