"""A short training per place: what is kept is not trained again, and what training mends costs less than before it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quant.data import Dataset, from_arrays
from quant.proxy import Kept, Proxy, falling, judged
from quant.sensitivity import Subject, Trained, check_additivity, measure


@pytest.fixture
def data() -> Dataset:
    """Two classes of 8x8 images, told apart by which half is brighter."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (320, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(320) % 2
    images[labels == 1, :, :4] += 60
    return from_arrays((images[:240], labels[:240]), (images[240:], labels[240:]), 2, validation=80)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip


def prepared(data: Dataset, steps: int = 4) -> tuple[Subject, Proxy]:
    held_out = [(data.normalisation.apply(data.validation.images), data.validation.labels)]  # type: ignore[attr-defined]
    proxy = Proxy.of(data, steps, held_out, batch_size=32)
    net = network()
    proxy.train(net)
    images = data.normalisation.apply(data.train.images[:64])  # type: ignore[attr-defined]
    return Subject(net, [images], held_out), proxy


def test_each_place_is_trained_once_and_compared_with_the_float_network(data: Dataset, tmp_path: Path) -> None:
    subject, proxy = prepared(data)
    kept = Kept(tmp_path / "part", {"seed": 0})
    found = measure(subject, (1, 8), "finetune", trained=Trained(subject, proxy, kept))
    assert [(s.layer, s.operand) for s in found] == [("0", "weight"), ("0", "input"), ("5", "weight"), ("5", "input")]
    raw = {of: loss for of, (loss, _) in kept.found.items()}
    expected = falling({bits: raw[f"0.weight {bits}"] - raw["float"] for bits in (1, 8)})
    assert found[0].loss_by_bits == expected
    assert sum(s.loss_by_bits[1] for s in found) > sum(s.loss_by_bits[8] for s in found)
    made, _ = subject.at(1)
    alone = Proxy.of(data, 4, proxy.held_out, batch_size=32).train(made)
    assert alone != kept.found["float"]

    class Never:
        def train(self, model: nn.Module) -> Any:
            raise AssertionError("trained again")

    again = Trained(subject, Never(), Kept(tmp_path / "part", {"seed": 0}))  # type: ignore[arg-type]
    assert measure(subject, (1, 8), "finetune", trained=again) == found


def test_a_measurement_cut_short_goes_on_and_another_is_refused(data: Dataset, tmp_path: Path) -> None:
    subject, proxy = prepared(data, 1)
    path = tmp_path / "part"
    whole = measure(subject, (4,), "finetune", trained=Trained(subject, proxy, Kept(path, {"seed": 0})))
    text = path.read_bytes()
    for cut in (3, len(text) - 3):
        path.write_bytes(text[:cut])
        assert measure(subject, (4,), "finetune", trained=Trained(subject, proxy, Kept(path, {"seed": 0}))) == whole
        assert path.read_bytes() == text
    with pytest.raises(ValueError, match="holds another measurement"):
        Kept(path, {"seed": 1})


def test_the_check_trains_mixed_networks(data: Dataset) -> None:
    subject, proxy = prepared(data, 1)
    kept = Kept(None, {})
    trained = Trained(subject, proxy, kept)
    found = measure(subject, (2, 8), "finetune", trained=trained)
    checked = check_additivity(subject, found, 2, "finetune", 0, trained)
    assert checked.measured[1] == kept.found["mixed 1 of seed 0"][0] - kept.found["float"][0]


def test_judged_is_the_mean_over_all_images(data: Dataset) -> None:
    net, split = network(), data.validation
    images, labels = data.normalisation.apply(split.images), split.labels  # type: ignore[attr-defined]
    parts = [(images[:30], labels[:30]), (images[30:], labels[30:])]
    assert judged(net, parts) == pytest.approx(judged(net, [(images, labels)]))


def test_falling_keeps_what_falls_and_pools_what_does_not() -> None:
    assert falling({2: 3.0, 4: 1.0, 8: 0.0}) == {2: 3.0, 4: 1.0, 8: 0.0}
    assert falling({8: 0.5, 2: 0.1, 4: 0.3}) == pytest.approx(dict.fromkeys((2, 4, 8), 0.3))


def test_a_part_file_holds_one_outcome_a_line(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "part", {"a": 1})
    assert kept.get("x", lambda: (0.5, 50.0)) == (0.5, 50.0)
    lines = (tmp_path / "part").read_text().splitlines()
    said = json.loads(lines[1])
    assert said.pop("hash")
    assert said == {"of": "x", "loss": 0.5, "accuracy_percent": 50.0}


def test_any_damaged_byte_of_a_part_file_is_measured_again(tmp_path: Path) -> None:
    """Every byte of an outcome's line changed, removed or doubled; the other outcomes stay."""
    path = tmp_path / "part"
    kept = Kept(path, {})
    kept.get("x", lambda: (0.25, 12.5))
    kept.get("y", lambda: (0.5, 50.0))
    whole = path.read_bytes()
    begin, end = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    for at in range(begin, end):
        for byte in (bytes([whole[at] ^ 1]), b"\xff", b"", b"\n", whole[at : at + 1] * 2):
            path.write_bytes(whole[:at] + byte + whole[at + 1 :])
            again = Kept(path, {})
            assert again.damaged[0].startswith(f"{path}:2: damaged, it is measured again")
            assert again.get("x", lambda: (0.25, 12.5)) == (0.25, 12.5)
            assert again.found == {"y": (0.5, 50.0), "x": (0.25, 12.5)}
            assert Kept(path, {}).damaged == []
