"""The spiking network beside its non-spiking twin; derived in chapter 04."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingNet, evaluate, fit
from snn_helpers.data import draw_subset, noisy
from snn_helpers.long.examples import stored
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.records import load_results

NETWORKS = ("spiking", "mlp", "mlp, flickering input", "mlp, dropout")


def make_network(network: str, seed: int, n_steps: int = 128) -> SpikingNet | MLP:
    """One of `NETWORKS`, 784-100-10, its initial weights drawn from the seed."""
    generator = seeded(seed)
    if network == "spiking":
        return SpikingNet(n_steps, generator=generator)
    if network == "mlp":
        return MLP(generator=generator)
    if network == "mlp, flickering input":
        return MLP(flickering=True, generator=generator)
    if network == "mlp, dropout":
        return MLP(dropout=0.5, generator=generator)
    raise ValueError(f"network must be one of {', '.join(map(repr, NETWORKS))}, not {network!r}")


def run_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float = 0.1,
    n_steps: int = 128,
    batch_size: int = 1000,
    n_updates: int | None = None,
    noise_levels: tuple[float, ...] = (),
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train one network once and measure it; derived in chapter 04.

    The schedule is the article's: three thirds at `learning_rate` times 1, 0.5 and 0.1, one epoch
    each, or as many epochs as give at least `n_updates` updates in all. `noise_levels` are
    standard deviations of Gaussian noise added to the first 2000 test images (pixels span 1).

    Returns a row for a table: the settings, and `train_accuracy`, `train_loss` (of at most 10,000
    training images), `test_accuracy`, `test_loss`, `noise_accuracy` and `seconds` of training.
    """
    n_train = len(train)
    n_batches = math.ceil(n_train / batch_size)
    epochs = 1 if n_updates is None else math.ceil(n_updates / (3 * n_batches))
    model = make_network(network, seed, n_steps)
    rates = [learning_rate * factor for factor in (1.0, 0.5, 0.1) for _ in range(epochs)]
    history = fit(model, train, seed=seed, device=device, learning_rates=rates, batch_size=batch_size, progress=False)
    on_train = evaluate(model, TensorDataset(*(part[:10_000] for part in stored(train))), seed=seed)
    on_test = evaluate(model, test, seed=seed)
    return {
        "network": network,
        "seed": seed,
        "learning_rate": learning_rate,
        "n_steps": n_steps,
        "n_train": n_train,
        "batch_size": batch_size,
        "n_updates": len(history.loss),
        "train_accuracy": on_train.accuracy,
        "train_loss": on_train.loss,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "noise_accuracy": {
            str(level): evaluate(model, noisy(test, level, seed), seed=seed).accuracy for level in noise_levels
        },
        "seconds": round(history.seconds, 2),
    }


# --- The records ----------------------------------------------------------------------------------

NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
RATES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
TWINS = NETWORKS[:2]


def measure_parity(**settings: Any) -> dict[str, Any]:
    """As `run_trial`, on the whole of MNIST, with `NOISE`."""
    train, test = whole_mnist()
    return run_trial(train=train, test=test, noise_levels=NOISE, **settings)


def measure_learning_rate(**settings: Any) -> dict[str, Any]:
    """Rates are chosen on 10,000 training images held out, never on the test images."""
    train, _ = whole_mnist()
    fitted = examples(train, 50_000)
    held_out = examples(train, 50_000, 60_000)
    return run_trial(train=fitted, test=held_out, **settings)


def measure_small_data(n_train: int, **settings: Any) -> dict[str, Any]:
    """As `run_trial`, on `n_train` of MNIST's training images, drawn by the seed, and its whole test set."""
    train, test = whole_mnist()
    return run_trial(train=draw_subset(train, n_train, settings["seed"]), test=test, **settings)


def tuned_trials() -> list[dict[str, Any]]:
    """Each network at the rate whose held-out accuracy, in the mean over seeds, is best."""
    rows = load_results("04_learning_rate")["trials"]
    trials = []
    for network in NETWORKS:
        held_out: dict[float, list[float]] = {}
        for row in rows:
            if row["network"] == network:
                held_out.setdefault(row["learning_rate"], []).append(row["test_accuracy"])
        best = max(held_out, key=lambda rate: sum(held_out[rate]) / len(held_out[rate]))
        trials += [{"network": network, "seed": seed, "learning_rate": best} for seed in range(5)]
    return trials


RECORDS: dict[str, Record] = {
    "04_parity": Record(
        "The article's schedule on the whole of MNIST: 128 steps, batch 1000, three epochs",
        measure_parity,
        [{"network": network, "seed": seed} for seed in range(5) for network in TWINS],
    ),
    "04_learning_rate": Record(
        "The article's schedule, the first learning rate searched until its best has neighbours on both sides: 50,000"
        " training images, 10,000 held out as 'test'",
        measure_learning_rate,
        partial(tuning_trials, "04_learning_rate", [({"network": "spiking"}, 0.1), ({"network": "mlp"}, 0.27)]),
    ),
    "04_tuned": Record(
        "The article's schedule on the whole of MNIST, each network at its best rate of 04_learning_rate",
        measure_parity,
        tuned_trials,
    ),
    "04_small_data": Record(
        "Few training images, 300 updates of 100 images, 32 steps; tested on all 10,000 test images",
        measure_small_data,
        [
            {
                "network": network,
                "seed": seed,
                "n_train": n_train,
                "learning_rate": rate,
                "n_steps": 32,
                "batch_size": 100,
                "n_updates": 300,
            }
            for rate in (0.1, 0.4)
            for seed in range(5)
            for n_train in (100, 300, 1000, 3000, 10_000)
            for network in NETWORKS
        ],
    ),
}
