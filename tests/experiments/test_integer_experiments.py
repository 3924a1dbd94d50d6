"""Exactness, the border picture and the table of padding policies: their measures on a small network, their rows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from experiments import border_error, exactness, offset_is_free, table
from hwsim.integer.lowering.lower import lower
from tests.integer.nets import quantized

ROOT = Path(__file__).resolve().parents[2]


def small(policy: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(),
                        nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip
    return quantized(net.eval(), images, 4, config=4, padding_policy=policy), images


def test_measures_on_a_small_network() -> None:
    model, images = small("border_bias")
    labels = torch.zeros(len(images), dtype=torch.int64)
    found = exactness.measure(model, images, labels, batch_size=4)
    assert found["codes"] > 1000
    assert found["differing"] == 0
    assert found["top1_fake_quantized_percent"] == found["top1_integer_percent"]
    assert found["naive_differing_percent"] > 0
    errors = list(border_error.rows(lower(model, images[:1]), images))
    assert len(errors) == 64  # the second convolution's map; the image has no offset here
    for row in errors:
        inside = 0 < row["row"] < 7 and 0 < row["column"] < 7
        assert (row["differing_percent"] == 0) == inside, row
        assert (row["error_percent_of_rms"] == 0) == inside, row


def test_cases_have_every_policy_where_there_is_an_offset() -> None:
    found = list(exactness.cases((2, 8), (1, 2, 3, 4), ("pad_code", "border_bias")))
    assert len(found) == 2 * (1 + 1 + 2 + 2)
    assert len(set(found)) == len(found)


def test_the_committed_picture_is_wrong_at_the_border_and_only_there(tmp_path: Path) -> None:
    rows = table.read(ROOT / "results" / "border_error.csv")
    first = [row for row in rows if row["layer"] == "blocks.0.0.conv_dw"]  # 3x3, stride 1, on 32x32
    assert len(first) == 32 * 32
    for row in first:
        edge = row["row"] in ("0", "31") or row["column"] in ("0", "31")
        assert (float(row["error_percent_of_rms"]) > 0) == edge
    out = ["--out", str(ROOT / "results" / "border_error.csv"), "--figures", str(tmp_path)]
    assert border_error.main(out) == 0
    assert (tmp_path / "border_error.png").stat().st_size > 10_000


def test_every_committed_case_is_exact() -> None:
    rows = table.read(exactness.TABLE)
    assert rows
    assert all(int(row["differing"]) == 0 and int(row["codes"]) > 10**8 for row in rows)
    assert all(row["top1_fake_quantized_percent"] == row["top1_integer_percent"] for row in rows)


def test_the_table_of_padding_policies_contrasts_them_with_asymmetric_weights() -> None:
    rows = table.read(ROOT / "experiments" / "data" / "offset_is_free.csv")
    text = offset_is_free.page(rows)
    assert all(f"`{name}`" in text for name in offset_is_free.MACHINES)
    for (machine, bits), members in table.group(rows, "machine", "bits").items():
        energy = {row["variant"]: float(row["energy_percent"]) for row in members}
        assert energy["no_offset"] == 0, (machine, bits)
        assert energy["asymmetric_weights"] >= energy["pad_beta"] > 0, (machine, bits)
        free = {row["variant"] for row in members if float(row["memory_percent"] or 1) == 0}
        assert "pad_beta" in free, (machine, bits)
