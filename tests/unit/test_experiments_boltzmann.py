"""One trial of chapter 11: `snn_helpers.experiments_boltzmann`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from snn_chapters.boltzmann import (
    ARMS,
    STACKS,
    Machine,
    digits_trial,
    draw_machine,
    fast_cycle,
    feed_forward,
    fit_readout,
    flat,
    hidden_given,
    one_level,
    readout_accuracy,
    start_machine,
    train_once,
)
from torch.utils.data import TensorDataset

from snn_helpers import load_mnist


@pytest.fixture(scope="module")
def digits() -> tuple[TensorDataset, TensorDataset]:
    return load_mnist("train", source="subset"), load_mnist("test", source="subset")


def small_trial(digits: tuple[TensorDataset, TensorDataset], arm: str, **settings: Any) -> dict[str, Any]:
    settings = {"n_train": 100, "n_hidden": 10, "batch_size": 50, "n_steps": 4, "n_spiking": 50} | settings
    return digits_trial(arm, 3, *digits, device="cpu", **settings)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_can_be_tried_and_repeats_itself(arm: str, digits: tuple[TensorDataset, TensorDataset]) -> None:
    one, two = (small_trial(digits, arm) for _ in range(2))
    assert one | {"seconds": 0} == two | {"seconds": 0}
    assert 0 <= one["accuracy"] <= 1 and one["arm"] == arm
    assert arm == "pixels" or len(one["size"]) == (2 if arm in STACKS else 1)


def test_learns_something_without_labels(digits: tuple[TensorDataset, TensorDataset]) -> None:
    before, after = (
        small_trial(digits, "rhythm", n_train=1000, n_hidden=50, n_steps=10, epochs=epochs, n_spiking=200)
        for epochs in (0, 5)
    )
    assert after["free_error"] < after["still_error"]  # nearer to the digit than the mean image is
    assert after["free_error"] < before["free_error"]
    assert after["size"][0] > 2 * before["size"][0]


def some_stack() -> tuple[Machine, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return draw_machine((6, 4, 3), 0.5, generator), torch.rand(20, 6, generator=generator)


def taught(machine: Machine, pixels: torch.Tensor, arm: str, done: float = 0.0, number: int = 0) -> Machine:
    return train_once(machine, pixels, arm, done, number, 0.1, 6, 0.5, 1, torch.Generator().manual_seed(1))


def changed(one: Machine, other: Machine) -> list[bool]:
    """Which of the weights and biases differ, weights first."""
    pairs = zip((*one.weights, *one.biases), (*other.weights, *other.biases))
    return [not torch.equal(a, b) for a, b in pairs]


@pytest.mark.parametrize(
    ("arm", "done", "number", "expected"),
    [
        ("greedy", 0.0, 0, [True, False, True, True, False]),
        ("greedy", 0.5, 0, [False, True, False, True, True]),
        ("fast", 0.0, 0, [True] * 5),
        ("slow", 0.0, 0, [True] * 5),
    ],
)
def test_each_arm_teaches_the_levels_that_it_should(arm: str, done: float, number: int, expected: list[bool]) -> None:
    machine, pixels = some_stack()
    assert changed(machine, taught(machine, pixels, arm, done, number)) == expected


def test_fast_and_slow_take_turns() -> None:
    machine, pixels = some_stack()
    for number, like in ((0, "fast"), (1, "slow"), (2, "fast")):
        torch.testing.assert_close(
            flat(taught(machine, pixels, "fast and slow", number=number)), flat(taught(machine, pixels, like))
        )


def test_a_fast_cycle_of_the_lower_level_does_not_hear_the_upper_one() -> None:
    machine, pixels = some_stack()
    louder = Machine((machine.weights[0], 50 * machine.weights[1]), machine.biases)
    results = [
        fast_cycle(each, pixels, range(1), 0.1, 6, 0.5, 1, torch.Generator().manual_seed(2))
        for each in (machine, louder)
    ]
    assert torch.equal(results[0].weights[0], results[1].weights[0])
    slow = [taught(each, pixels, "slow") for each in (machine, louder)]
    assert not torch.equal(slow[0].weights[0], slow[1].weights[0])


def test_without_a_free_half_weights_only_grow() -> None:
    machine = draw_machine((6, 4), 0.5, torch.Generator().manual_seed(0))
    after = taught(machine, some_stack()[1], "no free half")
    assert (after.weights[0] >= machine.weights[0]).all() and any(changed(machine, after))


def test_features_go_up_level_by_level() -> None:
    machine, pixels = some_stack()
    first, second = feed_forward(machine, pixels)
    torch.testing.assert_close(first, torch.sigmoid(pixels @ machine.weights[0].T + machine.biases[1]))
    torch.testing.assert_close(second, hidden_given(one_level(machine, 1), first))


def test_the_start_knows_the_mean_image_and_no_more() -> None:
    pixels = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
    machine = start_machine((6, 4), pixels, torch.Generator().manual_seed(1), scale=0.0)
    torch.testing.assert_close(torch.sigmoid(machine.biases[0]), pixels.mean(dim=0))


def test_the_read_out_is_logistic_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 8, generator=generator, dtype=torch.float64)
    labels = (features @ torch.randn(8, 10, generator=generator, dtype=torch.float64)).argmax(dim=1)
    labels[:10] = torch.arange(10)  # every class occurs
    penalty = 0.02
    weight, bias = fit_readout(features, labels, penalty)
    # scikit-learn minimises C times the summed loss plus half the squared weights.
    other = LogisticRegression(C=1 / (2 * penalty * len(labels)), tol=1e-8, max_iter=2000).fit(features, labels)
    torch.testing.assert_close(weight, torch.from_numpy(other.coef_), atol=2e-3, rtol=0)
    answers = (features @ weight.T + bias).argmax(dim=1)
    assert (answers.numpy() == other.predict(features)).mean() > 0.99


def test_the_read_out_does_not_mind_the_scale_of_a_feature() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 5, generator=generator, dtype=torch.float64), torch.arange(200) % 10
    features[:, 0] += labels
    scaled = 7 * features + 3
    halves = slice(0, 150), slice(150, 200)
    one, two = (
        readout_accuracy(each[halves[0]], labels[halves[0]], each[halves[1]], labels[halves[1]])
        for each in (features, scaled)
    )
    assert one == two


def test_refuses_an_arm_that_it_does_not_know(digits: tuple[TensorDataset, TensorDataset]) -> None:
    with pytest.raises(ValueError, match="fast and slow"):
        small_trial(digits, "medium")
