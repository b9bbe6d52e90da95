"""One trial of chapter 08: `snn_helpers.experiments_depth`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from snn_chapters.depth import REPAIRS, EnsembleNet, depth_trial, diagnose, fire_at
from torch.utils.data import TensorDataset

from snn_helpers.training import evaluate, fit


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(40, 1, 28, 28, generator=generator) - 0.5, torch.arange(40) % 10)


def small_trial(digits: TensorDataset, seed: int = 3, **settings: Any) -> dict[str, Any]:
    settings = {"n_steps": 6, "batch_size": 20, "n_probe": 20, "device": "cpu"} | settings
    return depth_trial(seed, digits, digits, **settings)


def test_measures_what_the_parts_measure(digits: TensorDataset) -> None:
    row = small_trial(digits, n_layers=3, fire="weights", rate=0.2, learning_rate=0.05, reset="discharge")
    generator = torch.Generator().manual_seed(3)
    net = EnsembleNet(6, sizes=(784, 100, 100, 10), reset="discharge", generator=generator)
    fire_at(net, digits.tensors[0], 0.2, "weights", seed=3, last=False)
    before = diagnose(net, *(part[:20] for part in digits.tensors), seed=3)
    fit(net, digits, seed=3, device="cpu", learning_rates=[0.05, 0.025, 0.005], batch_size=20, progress=False)
    result = evaluate(net, digits, seed=3)
    assert row["test_accuracy"] == result.accuracy and row["test_loss"] == pytest.approx(result.loss)
    assert row["n_updates"] == 6
    for name in ("rate", "dead", "always", "reach", "gradient"):
        assert row["before"][name] == pytest.approx([getattr(layer, name) for layer in before], rel=1e-3)
    assert row["before"]["dead_labels"] == round(10 * before[-1].dead)


def test_repeats_itself_from_a_seed(digits: TensorDataset) -> None:
    one, two = (small_trial(digits, readout="spikes", per_label=2) for _ in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.parametrize("variant", REPAIRS)
def test_every_repair_can_be_tried(variant: str, digits: TensorDataset) -> None:
    row = small_trial(digits, **REPAIRS[variant])
    assert 0 <= row["test_accuracy"] <= 1 and 0 <= row["before"]["dead_labels"] <= 10


def test_a_label_is_dead_only_if_its_whole_ensemble_is(digits: TensorDataset) -> None:
    alone, crowd = (small_trial(digits, readout="spikes", per_label=k, threshold=0.2)["before"] for k in (1, 40))
    assert crowd["dead_labels"] <= alone["dead_labels"]
    assert crowd["dead"][-1] > crowd["dead_labels"] / 10


@pytest.mark.parametrize(("settings", "message"), [({"n_layers": 7}, "n_layers"), ({"fire": "at will"}, "as drawn")])
def test_refuses_what_it_does_not_know(settings: dict[str, Any], message: str, digits: TensorDataset) -> None:
    with pytest.raises(ValueError, match=message):
        small_trial(digits, **settings)
