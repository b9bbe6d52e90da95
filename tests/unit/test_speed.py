"""What the fast settings do to accuracy: the trial's protocol."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from snn_chapters import speed
from snn_chapters.speed import ENGINE_SETTINGS, RECORDS, engine_trial
from spies import N_TRAIN, TEST_NUMBERS, a_history, an_evaluation, are, numbered, one_class, several, shuffled, spy

from snn_helpers import SpikingNet
from snn_helpers.records import load_results

OPTIONS = ("mixed_precision", "shared_flicker")


def test_the_settings_are_what_their_names_say() -> None:
    nets = {name: SpikingNet(4, **options) for name, options in ENGINE_SETTINGS.items()}
    assert {name: (net.mixed_precision, net.shared_flicker) for name, net in nets.items()} == {
        "float32": (False, False),
        "mixed": (True, False),
        "fastest": (True, True),
    }


@pytest.mark.parametrize("setting", ENGINE_SETTINGS)
def test_a_network_that_has_seen_one_class_knows_no_other(setting: str) -> None:
    row = engine_trial(setting, 0, one_class(3), one_class(5), n_steps=8, batch_size=5)
    assert row["test_accuracy"] == 0 and row["train_loss"] < 0.5 < row["test_loss"]
    assert engine_trial(setting, 0, one_class(3), one_class(3, 20), n_steps=8, batch_size=5)["test_accuracy"] == 1


def test_a_test_whose_labels_are_shuffled_gives_chance() -> None:
    """Two classes, 200 digits: five standard errors are 0.18."""
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    rows = [engine_trial("fastest", 0, train, given, n_steps=8, batch_size=5) for given in (test, shuffled(test))]
    assert rows[0]["test_accuracy"] > 0.95 and abs(rows[1]["test_accuracy"] - 0.5) < 0.18


@pytest.mark.parametrize("setting", ENGINE_SETTINGS)
def test_trained_in_its_setting_and_tested_in_plain_float32(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def training(given: dict[str, Any]) -> Any:
        with torch.no_grad():
            given["model"].layers[0].linear.weight.add_(1.0)  # what was learned
        return a_history(given)

    fitted = spy(monkeypatch, speed, "fit", training)
    evaluated = spy(monkeypatch, speed, "evaluate", an_evaluation)
    train, test = numbered()
    row = engine_trial(setting, 7, train, test, n_steps=6, batch_size=50)
    (fit_call,), (call,) = fitted, evaluated
    trained, tested = fit_call["model"], call["model"]
    assert {name: getattr(trained, name) for name in OPTIONS} == dict.fromkeys(OPTIONS, False) | ENGINE_SETTINGS[
        setting
    ]
    assert not any(getattr(tested, name) for name in OPTIONS) and tested.n_steps == trained.n_steps == 6
    start = SpikingNet(6, generator=torch.Generator().manual_seed(7))
    assert torch.equal(trained.layers[0].linear.weight, start.layers[0].linear.weight + 1)
    for one, other in zip(trained.parameters(), tested.parameters(), strict=True):
        assert torch.equal(one, other) and other.dtype == torch.float32
    assert (fit_call["seed"], fit_call["batch_size"], call["seed"]) == (7, 50, 7)
    assert tuple(fit_call["learning_rates"]) == (0.1, 0.05, 0.01) and fit_call["momentum"] == 0.5
    assert are(fit_call["dataset"], range(N_TRAIN)) and are(call["dataset"], TEST_NUMBERS)
    # The last epoch's two losses of the six: 16 and 32.
    assert row == {"test_accuracy": 0.25, "test_loss": 1.5, "train_loss": 24.0, "seconds": 1.0}


def test_the_record_trains_on_training_images_and_is_scored_on_the_test_images(monkeypatch: Any) -> None:
    monkeypatch.setattr(speed, "whole_mnist", numbered)
    fitted, evaluated = spy(monkeypatch, speed, "fit", a_history), spy(monkeypatch, speed, "evaluate", an_evaluation)
    ((_, measure, trials),) = RECORDS.values()
    measure(**trials[-1])  # type: ignore[index]
    assert are(fitted[0]["dataset"], range(N_TRAIN)) and are(evaluated[0]["dataset"], TEST_NUMBERS)
    assert fitted[0]["model"].n_steps == 128 and fitted[0]["batch_size"] == 1000 and fitted[0]["seed"] == 4
    assert fitted[0]["model"].mixed_precision and fitted[0]["model"].shared_flicker
    assert [trial["seed"] for trial in trials] == [*range(5)] * 3  # type: ignore[index]
    assert {trial["setting"] for trial in trials} == set(ENGINE_SETTINGS)  # type: ignore[index]


def test_all_settings_were_trained_on_one_thread_with_the_same_seeds() -> None:
    record = load_results("performance_accuracy")
    assert record["provenance"]["torch_threads"] == 1
    seeds: dict[str, list[int]] = {setting: [] for setting in ENGINE_SETTINGS}
    for row in record["trials"]:
        seeds[row["settings"]["setting"]].append(row["settings"]["seed"])
    assert all(sorted(each) == [*range(5)] for each in seeds.values()), seeds
