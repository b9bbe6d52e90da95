"""The spiking network beside its non-spiking twin; derived in chapter 04."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingNet, evaluate, fit
from snn_helpers.data import draw_subset, noisy
from snn_helpers.long.examples import stored
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.records import load_results
from snn_helpers.tuning import choose, scores_of

ARTICLES_RATE = 0.1
XAVIER = "mlp, Xavier weights"  # the twin of the spiking network, its initial weights included
NETWORKS = ("spiking", "mlp", XAVIER, "mlp, flickering input", "mlp, dropout")
WEIGHTS = ("default", "Xavier")


class ManyMasks(MLP):
    """An ordinary network that reads flickering input, one mask an image; tested, it answers as `n_masks` masks do.

    Its log-probabilities are then averaged over the masks, as the spiking network's states are over its steps.
    """

    def __init__(self, n_masks: int, generator: torch.Generator | None = None) -> None:
        super().__init__(flickering=True, generator=generator)
        self.n_masks = n_masks

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        answer = super().forward(images, generator)
        if self.training:
            return answer
        for _ in range(self.n_masks - 1):
            answer = answer + super().forward(images, generator)
        return F.log_softmax(answer / self.n_masks, dim=-1)


def make_network(network: str, seed: int, n_steps: int = 128, weights: str | None = None) -> SpikingNet | MLP:
    """One of `NETWORKS`, 784-100-10, its initial weights drawn from the seed; derived in chapter 04.

    `n_steps` is how long the spiking network sees an image, and how many masks the flickering one sees in a test.
    `weights` are "default", uniform as `nn.Linear` draws them, or "Xavier", about 2.3 times as large; None is
    "default" for "mlp", as in the article, and "Xavier" for all others. One seed draws them all alike, but for scale.
    """
    generator = seeded(seed)
    model: SpikingNet | MLP
    if network == "spiking":
        model = SpikingNet(n_steps, generator=generator)
    elif network in ("mlp", XAVIER):
        model = MLP(generator=generator)
    elif network == "mlp, flickering input":
        model = ManyMasks(n_steps, generator)
    elif network == "mlp, dropout":
        model = MLP(dropout=0.5, generator=generator)
    else:
        raise ValueError(f"network must be one of {', '.join(map(repr, NETWORKS))}, not {network!r}")
    wanted = weights or ("default" if network == "mlp" else "Xavier")
    if wanted not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(map(repr, WEIGHTS))}, not {weights!r}")
    drawn = "Xavier" if network == "spiking" else "default"
    for linear in (module for module in model.modules() if isinstance(module, nn.Linear)):
        n_in, n_out = linear.in_features, linear.out_features
        bounds = {"default": 1 / math.sqrt(n_in), "Xavier": math.sqrt(6 / (n_in + n_out))}
        if wanted != drawn:
            linear.weight.data *= bounds[wanted] / bounds[drawn]
    return model


def run_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float = ARTICLES_RATE,
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
SEEDS = range(5)  # of a comparison; a tuning has others
OTHER_RATES = (8.0, 4.0, 2.0, 0.25)  # times the article's learning rate
# Few images, and updates enough to learn every one of them.
SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 25, "n_updates": 1200}
SIZES = (100, 500, 2500)
SMALL_NETWORKS = tuple(network for network in NETWORKS if network != "mlp")  # all with Xavier weights
LEARNS_LESS = 0.03  # times its best rate, and a network only learns less: that must not pass for a regulariser


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


def measure_other_rate(times: float, **settings: Any) -> dict[str, Any]:
    """As `run_trial`, on the whole of MNIST, at so many `times` the article's learning rate."""
    train, test = whole_mnist()
    return run_trial(train=train, test=test, learning_rate=times * ARTICLES_RATE, **settings)


def measure_small_data(n_train: int, learning_rate: float, rate_factor: float = 1.0, **settings: Any) -> dict[str, Any]:
    """As `run_trial`, on `n_train` of MNIST's training images, drawn by the seed, and its whole test set."""
    train, test = whole_mnist()
    drawn = draw_subset(train, n_train, settings["seed"])
    return run_trial(train=drawn, test=test, learning_rate=rate_factor * learning_rate, **SMALL, **settings)


def measure_small_data_rate(n_train: int, **settings: Any) -> dict[str, Any]:
    """As `measure_small_data`, on images of the first 50,000 training images; 5,000 of the others are 'test'."""
    train, _ = whole_mnist()
    fitted = draw_subset(examples(train, 50_000), n_train, settings["seed"])
    return run_trial(train=fitted, test=examples(train, 50_000, 55_000), **SMALL, **settings)


def best_rate(network: str) -> float:
    """The rate of `network` with the best held-out accuracy on the whole of MNIST."""
    return choose(scores_of(load_results("04_learning_rate")["trials"], network=network))


def best_small_rate(network: str, n_train: int) -> float:
    """The same with `n_train` images."""
    rows = load_results("04_small_data_tuning")["trials"]
    return choose(scores_of(rows, network=network, n_train=n_train))


def tuned_trials() -> list[dict[str, Any]]:
    """Each network at its best rate; one whose best rate is the article's has had its trials in 04_parity."""
    recorded = RECORDS["04_parity"].trials
    assert isinstance(recorded, list)
    trials = [
        {"network": network, "seed": seed, "learning_rate": best_rate(network)}
        for network in NETWORKS
        for seed in SEEDS
    ]
    return [
        trial
        for trial in trials
        if trial["learning_rate"] != ARTICLES_RATE
        or {"network": trial["network"], "seed": trial["seed"]} not in recorded
    ]


def tuned_rows(network: str) -> list[dict[str, Any]]:
    """The rows of `network` at its best rate, one a seed, from 04_tuned or, at the article's rate, 04_parity."""
    rows, best = load_results("04_tuned")["trials"] + load_results("04_parity")["trials"], best_rate(network)
    found = [row for row in rows if (row["network"], row["learning_rate"]) == (network, best)]
    return sorted(found, key=lambda row: row["seed"])


def small_trials() -> list[dict[str, Any]]:
    """Each network at its own best rate at each size, and the plain one at a rate at which it learns less."""
    trials: list[dict[str, Any]] = []
    for n_train in SIZES:
        each = [{"network": network, "learning_rate": best_small_rate(network, n_train)} for network in SMALL_NETWORKS]
        null = {"network": XAVIER, "learning_rate": best_small_rate(XAVIER, n_train), "rate_factor": LEARNS_LESS}
        trials += [{**one, "n_train": n_train, "seed": seed} for one in [*each, null] for seed in SEEDS]
    return trials


RECORDS: dict[str, Record] = {
    "04_learning_rate": Record(
        "The article's schedule, the first learning rate searched until its best has neighbours on both sides: 50,000"
        " training images, 10,000 held out as 'test'",
        measure_learning_rate,
        partial(
            tuning_trials,
            "04_learning_rate",
            [
                ({"network": "spiking"}, 0.1),
                ({"network": "mlp"}, 0.27),
                ({"network": XAVIER}, 0.22),
                ({"network": "mlp, dropout"}, 0.33),
                # A rate is as good with 32 masks as with 128, and they take a fourth of the time.
                ({"network": "mlp, flickering input", "n_steps": 32}, 0.39),
            ],
        ),
    ),
    "04_parity": Record(
        "The article's schedule on the whole of MNIST: 128 steps, batch 1000, three epochs",
        measure_parity,
        [{"network": network, "seed": seed} for seed in SEEDS for network in NETWORKS[:3]],
    ),
    "04_other_rates": Record(
        "The article's schedule on the whole of MNIST, at a fourth, and at two, four and eight times the article's"
        " learning rate",
        measure_other_rate,
        [{"network": "spiking", "times": times, "seed": seed} for times in OTHER_RATES for seed in SEEDS],
    ),
    "04_tuned": Record(
        "The article's schedule on the whole of MNIST, each network at its best rate of 04_learning_rate",
        measure_parity,
        tuned_trials,
    ),
    "04_small_data_tuning": Record(
        "100 to 2,500 training images, 1,200 updates of 25 images, 32 steps, the first learning rate searched; 5,000"
        " training images held out as 'test'",
        measure_small_data_rate,
        partial(
            tuning_trials,
            "04_small_data_tuning",
            [({"network": network, "n_train": n_train}, 0.1) for n_train in SIZES for network in SMALL_NETWORKS],
        ),
    ),
    "04_small_data": Record(
        "100 to 2,500 training images, 1,200 updates of 25 images, 32 steps, each network at its best rate of"
        " 04_small_data_tuning; tested on all 10,000 test images",
        measure_small_data,
        small_trials,
    ),
}
