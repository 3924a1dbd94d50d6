"""The language model study: the grammar's entropy is exact, the model sees no future, runs go on where they stopped."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch

import quant
from experiments import table
from experiments.format_page import LONGER, bits_of, losses
from experiments.format_pricing import average_bits
from experiments.language import page, price, train
from experiments.language.arms import ARMS, BY_NAME, Arm, quantized
from experiments.language.grammar import Grammar
from experiments.language.network import language_model
from experiments.language.sweep import TABLE as SWEEP
from hwsim.network.formats import parse_format

SMALL = Grammar(words=2, kinds=2, depth=2, spread=1.0, seed=3)


def test_the_entropy_is_that_of_all_texts() -> None:
    """Brute force: every text of four tokens, its probability, and the nats of what follows the first."""
    total, entropy, best = 0.0, 0.0, 0.0
    pairs: dict[tuple[int, int], float] = {}
    for text in itertools.product(range(SMALL.vocabulary), repeat=4):
        probability, stack = (1 / SMALL.words if text[0] < SMALL.words else 0.0), 0
        for last, new in itertools.pairwise(text):
            probability *= float(SMALL.next_token[stack, last, new])
            stack = int(SMALL.next_stack[stack, new])
        if probability:
            total += probability
            entropy -= probability * (math.log(probability) + math.log(SMALL.words)) / 3
            for pair in itertools.pairwise(text):
                pairs[pair] = pairs.get(pair, 0.0) + probability / 3
    rows = {last: sum(p for (a, _), p in pairs.items() if a == last) for last in range(SMALL.vocabulary)}
    best = -sum(p * math.log(p / rows[last]) for (last, _), p in pairs.items())
    found = SMALL.losses(3)
    assert total == pytest.approx(1)
    assert found.entropy == pytest.approx(entropy)
    assert found.last_token == pytest.approx(best)
    assert found.entropy < found.last_token < found.frequency


def test_sampled_texts_cost_the_entropy_and_close_what_they_opened() -> None:
    tokens, nats = SMALL.sample(4000, 12, seed=5)
    means = nats.mean(1)
    assert means.mean() == pytest.approx(SMALL.losses(12).entropy, abs=4 * means.std() / 4000**0.5)
    for text in tokens[:200].tolist():
        open_ones: list[int] = []
        for token in text[1:]:
            if SMALL.words <= token < SMALL.words + SMALL.kinds:
                open_ones.append(token - SMALL.words)
            elif token >= SMALL.words + SMALL.kinds:
                assert open_ones.pop() == token - SMALL.words - SMALL.kinds
        assert len(open_ones) <= SMALL.depth


def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the first 20 tokens of a text, and of the same with others behind them."""
    torch.manual_seed(0)
    texts = train.tokens(4, 9)[:, :-1]
    model, _ = quantized(language_model(), BY_NAME[name], "", texts)
    if name != LONGER:
        quant.initialise(model, [texts])
    model.eval()
    changed = texts.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 26
    with torch.no_grad():
        before, after = model(texts), model(changed)
    assert not torch.equal(before[:, 20:], after[:, 20:])
    return before[:, :20], after[:, :20]


@pytest.mark.parametrize("name", [LONGER, "lsqplus-4", "lsqplus-4-g32"])
def test_no_prediction_sees_what_follows(name: str) -> None:
    before, after = both(name)
    assert torch.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_scales_of_values_see_later_tokens_of_their_block(name: str) -> None:
    """Blocks lie along the reduction, which for values is the tokens: docs/formats.md says whom that favours."""
    before, after = both(name)
    assert 0 < (before - after).abs().mean() < 0.25 * before.abs().mean()


@pytest.mark.long
def test_runs_go_on_where_they_stopped_and_read_the_test_texts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "PARTS", {"validation": (101, 8), "test": (102, 8)})
    study = train.Study(tmp_path / "runs.csv", tmp_path, train.task(train.Length(4, 4, 2, 4)))
    arm = BY_NAME["mxfp4"]
    chosen = study.chosen(arm)
    rows = table.read(study.out)
    assert {row["scale_rule"] for row in rows if row["arm"] == "mxfp4"} == {"floor", "even", "rceil"}
    assert not any(row["test_excess_nats"] for row in rows if row["arm"] == "mxfp4")
    study.tested_run(arm, 0, *chosen)
    first = table.read(study.out)
    study.tested_run(arm, 0, *study.chosen(arm))
    assert table.read(study.out) == first
    tested = [row for row in first if row["arm"] == "mxfp4" and row["test_excess_nats"]]
    assert len(tested) == 1
    tested_losses = {row["key"]: float(row["validation_excess_nats"]) for row in first if row["arm"] == "mxfp4"}
    assert (
        tested_losses[tested[0]["key"]] == min(loss for key, loss in tested_losses.items() if chosen[1] in key)
        or chosen[0] == train.RATES[0]
    )


def test_every_arm_has_the_bits_that_its_name_says() -> None:
    costs = bits_of(table.read(price.TABLE))
    wanted = {"lsqplus-4": 4.0, "mxfp4": 4.25, "nvfp4": 4.5, "mxint8": 8.25, "lsqplus-4-g32": 5.0, "lsqplus-3": 3.0}
    assert {name: costs[name][0] for name in wanted} == pytest.approx(wanted, abs=0.006)
    assert set(costs) == {arm.name for arm in ARMS if arm.settings}
    assert average_bits(price.workload_of(BY_NAME["nvfp4"])) == pytest.approx(costs["nvfp4"], abs=1e-6)


def test_the_float_network_learned_the_brackets() -> None:
    """Far below what the last token alone can know."""
    grammar = train.GRAMMAR.losses(train.LENGTH)
    runs = page.STUDY.tested()
    assert len(runs["float"]) == 3
    assert losses(runs["float"], page.STUDY.column).mean < 0.15 * (grammar.last_token - grammar.entropy)


def test_the_sweep_reads_weights_and_caches_of_its_formats() -> None:
    """Llama-3.1-8B: 65,536 keys and values a token; head and table stay at 16 bits."""
    rows = {row["key"]: row for row in table.read(SWEEP)}
    row = rows["llama_8b a100 W4g128A16KV8 8 2048"]
    assert int(row["cache_bytes"]) == 8 * 2049 * 65_536 * (8 + 16 / 128) / 8
    inner = parse_format("4g128").bits_per_value(4096, 4096) / 8 * 6_979_321_856
    assert int(row["weight_bytes"]) == pytest.approx(int(inner) + 2 * 2 * 525_336_576, rel=1e-3)
    for key, row in rows.items():
        assert float(row["tokens_per_s"]) == pytest.approx(int(row["batch"]) / float(row["step_ms"]) * 1e3), key


def test_arms_are_data() -> None:
    assert isinstance(BY_NAME["mxfp4"], Arm)
    with pytest.raises(dataclasses.FrozenInstanceError):
        BY_NAME["mxfp4"].name = "other"  # type: ignore[misc]
