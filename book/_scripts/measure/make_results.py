"""Record the runs that are too long for a page, into book/results; `make results` calls this.

    python book/_scripts/measure/make_results.py [NAME ...]

Runs every record, or those named. What a record already holds is not run again: delete its file
to start it afresh. It needs the whole of MNIST: `load_mnist` downloads it, or finds it in
SNN_DATA_DIR.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch.utils.data import TensorDataset

from snn_helpers import load_mnist
from snn_helpers.experiments import NETWORKS, draw_subset, engine_trial, record_trials, run_trial
from snn_helpers.experiments_after_spike import VARIANTS, after_spike_trial
from snn_helpers.experiments_boltzmann import ARMS, digits_trial
from snn_helpers.experiments_depth import REPAIRS, depth_trial
from snn_helpers.experiments_plasticity import online_trial, plasticity_trial
from snn_helpers.experiments_recurrence import MEMORIES, memory_trial, rhythm_trial
from snn_helpers.experiments_surrogates import surrogate_trial
from snn_helpers.surrogates import SHAPES

RESULTS = Path(__file__).resolve().parents[2] / "results"
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
RATES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
TWINS = NETWORKS[:2]
DROPS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
# Chapter 09's network, found by trying on held-out images.
BINARY: dict[str, Any] = {"n_steps": 25, "reset": "subtract", "shape": "arctan", "slope": 3.0}


@lru_cache(maxsize=1)
def whole_mnist() -> tuple[TensorDataset, TensorDataset]:
    train, test = load_mnist("train"), load_mnist("test")
    if len(train) != 60_000:
        sys.exit("results are recorded on the whole of MNIST, but only its subset was found: set SNN_DATA_DIR")
    return train, test


def parity(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return run_trial(train=train, test=test, noise_levels=NOISE, **settings)


def learning_rate(**settings: Any) -> dict[str, Any]:
    """Rates are chosen on 10,000 training images held out, never on the test images."""
    train, _ = whole_mnist()
    fitted = TensorDataset(*(part[:50_000] for part in train.tensors))
    held_out = TensorDataset(*(part[50_000:] for part in train.tensors))
    return run_trial(train=fitted, test=held_out, **settings)


def small_data(n_train: int, **settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return run_trial(train=draw_subset(train, n_train, settings["seed"]), test=test, **settings)


def tuned_trials() -> list[dict[str, Any]]:
    """Each network at the rate whose held-out accuracy, in the mean over seeds, is best."""
    rows = json.loads((RESULTS / "04_learning_rate.json").read_text(encoding="utf-8"))["trials"]
    trials = []
    for network in NETWORKS:
        held_out: dict[float, list[float]] = {}
        for row in rows:
            if row["network"] == network:
                held_out.setdefault(row["learning_rate"], []).append(row["test_accuracy"])
        best = max(held_out, key=lambda rate: sum(held_out[rate]) / len(held_out[rate]))
        trials += [{"network": network, "seed": seed, "learning_rate": best} for seed in range(5)]
    return trials


def online(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return online_trial(train=train, test=test, **settings)


def plasticity(**settings: Any) -> dict[str, Any]:
    return plasticity_trial(train=whole_mnist()[0] if settings["task"] == "digits" else None, **settings)


def after_spike(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return after_spike_trial(train=train, test=test, **settings)


def few_digits(n_train: int, held_out: bool = True, **settings: Any) -> dict[str, Any]:
    """The article's number of updates, 180, with few images; choices are made on 2,000 held-out training images."""
    train, test = whole_mnist()
    few = TensorDataset(*(part[:n_train] for part in train.tensors))
    if held_out:
        test = TensorDataset(*(part[58_000:] for part in train.tensors))
    return depth_trial(train=few, test=test, batch_size=n_train // 60, **settings)


def repair(variant: str, **settings: Any) -> dict[str, Any]:
    return few_digits(**(REPAIRS[variant] | {"n_train": 3000} | settings))


def repair_trials() -> list[dict[str, Any]]:
    """Each variant at the learning rate whose held-out accuracy is best."""
    rows = json.loads((RESULTS / "08_repairs_tuning.json").read_text(encoding="utf-8"))["trials"]
    best = {}
    for row in sorted(rows, key=lambda row: row["test_accuracy"]):
        best[row["settings"]["variant"]] = row["settings"]["learning_rate"]
    return [
        {"variant": variant, "learning_rate": best[variant], "held_out": False, "seed": seed}
        for seed in range(5)
        for variant in REPAIRS
    ]


def depth(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return depth_trial(train=train, test=test, **settings)


def depth_held_out(**settings: Any) -> dict[str, Any]:
    """Everything is chosen on 10,000 training images held out, never on the test images."""
    train, _ = whole_mnist()
    fitted = TensorDataset(*(part[:50_000] for part in train.tensors))
    held_out = TensorDataset(*(part[50_000:] for part in train.tensors))
    return depth_trial(train=fitted, test=held_out, **settings)


def depth_trials(tuning: str = "08_depth_tuning") -> list[dict[str, Any]]:
    """Two and four layers, each with the settings whose held-out accuracy, in the mean over seeds, is best."""
    rows = json.loads((RESULTS / f"{tuning}.json").read_text(encoding="utf-8"))["trials"]
    best = []
    for n_layers in (2, 4):
        held_out: dict[str, list[float]] = {}
        for row in rows:
            settings = {name: value for name, value in row["settings"].items() if name not in ("seed", "n_train")}
            if settings["n_layers"] == n_layers:
                held_out.setdefault(json.dumps(settings), []).append(row["test_accuracy"])
        best.append(json.loads(max(held_out, key=lambda key: sum(held_out[key]) / len(held_out[key]))))
    return [settings | {"seed": seed} for seed in range(5) for settings in best]


def engine(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return engine_trial(train=train, test=test, **settings)


def surrogate(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return surrogate_trial(train=train, test=test, noise_levels=NOISE[::2], drop_levels=DROPS, probe=True, **settings)


def surrogate_held_out(n_train: int = 50_000, **settings: Any) -> dict[str, Any]:
    """Everything is chosen on 10,000 training images held out, never on the test images."""
    train, _ = whole_mnist()
    fitted = TensorDataset(*(part[:n_train] for part in train.tensors))
    held_out = TensorDataset(*(part[50_000:] for part in train.tensors))
    return surrogate_trial(train=fitted, test=held_out, **settings)


def tuned_surrogate_trials() -> list[dict[str, Any]]:
    """Both networks at the rate whose held-out accuracy, in the mean over seeds, is best."""
    rows = json.loads((RESULTS / "09_tuning.json").read_text(encoding="utf-8"))["trials"]
    trials = []
    for network, settings in (("binary", BINARY), ("mlp", {})):
        held_out: dict[float, list[float]] = {}
        for row in rows:
            if row["network"] == network:
                held_out.setdefault(row["settings"]["learning_rate"], []).append(row["test_accuracy"])
        best = max(held_out, key=lambda rate: sum(held_out[rate]) / len(held_out[rate]))
        trials += [{"network": network, "seed": seed, "learning_rate": best, **settings} for seed in range(5)]
    return trials


def rhythm(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    few = TensorDataset(*(part[:5000] for part in train.tensors))
    return rhythm_trial(train=few, test=test, **settings)


def memory(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return memory_trial(train=train, test=test, **settings)


def boltzmann_held_out(**settings: Any) -> dict[str, Any]:
    """Everything is chosen on 5,000 training images held out, never on the test images."""
    train, _ = whole_mnist()
    fitted = TensorDataset(*(part[:50_000] for part in train.tensors))
    held_out = TensorDataset(*(part[50_000:55_000] for part in train.tensors))
    n_spiking = 1000 if settings["arm"] == "random" else 0
    return digits_trial(train=fitted, test=held_out, n_spiking=n_spiking, **settings)


def boltzmann(**settings: Any) -> dict[str, Any]:
    train, test = whole_mnist()
    return digits_trial(train=train, test=test, **settings)


def boltzmann_trials() -> list[dict[str, Any]]:
    """Each arm at its best settings on held-out images; random weights are chosen for probabilities and spikes both."""
    rows = json.loads((RESULTS / "11_tuning.json").read_text(encoding="utf-8"))["trials"]
    best: dict[str, dict[str, float]] = {"pixels": {}}
    for row in sorted(rows, key=lambda row: row["accuracy"] + row.get("spike_accuracy", 0)):
        chosen = {name: value for name, value in row["settings"].items() if name in ("learning_rate", "scale")}
        best[row["arm"]] = chosen
    best["no free half"] = best["rhythm"]
    return [{"arm": arm, "seed": seed, **best[arm]} for seed in range(5) for arm in ARMS]


def longer_boltzmann_trials() -> list[dict[str, Any]]:
    """What 11_digits compares for slow cycles, with twice as many epochs."""
    return [
        settings | {"epochs": 4}
        for settings in boltzmann_trials()
        if settings["arm"] in ("fast", "fast and slow") and settings["seed"] < 3
    ]


# What each record holds: in words, the function for one trial, and the trials' settings, as a list or,
# where they depend on an earlier record, as a function that gives the list.
RECORDS: dict[str, tuple[str, Any, Any]] = {
    "04_parity": (
        "The article's schedule on the whole of MNIST: 128 steps, batch 1000, three epochs",
        parity,
        [{"network": network, "seed": seed} for seed in range(5) for network in TWINS],
    ),
    "04_learning_rate": (
        "The article's schedule at other learning rates: 50,000 training images, 10,000 held out as 'test'",
        learning_rate,
        [
            {"network": network, "seed": seed, "learning_rate": rate}
            for seed in range(2)
            for network in NETWORKS
            for rate in (RATES if network == "spiking" else (*RATES, 1.6, 3.2))
        ],
    ),
    "04_tuned": (
        "The article's schedule on the whole of MNIST, each network at its best rate of 04_learning_rate",
        parity,
        tuned_trials,
    ),
    "04_small_data": (
        "Few training images, 300 updates of 100 images, 32 steps; tested on all 10,000 test images",
        small_data,
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
    "06_plasticity": (
        "What gradient steps are made of, in training: 784-100-10 on digits, 128 steps, and 200-100-10 on ten"
        " patterns told apart by time alone, 64 steps; 300 updates of 100 examples, probed on 200",
        plasticity,
        [
            *({"task": "patterns", "seed": seed, "n_steps": 64} for seed in range(5)),
            *(
                {"task": "digits", "seed": seed, "reset": reset}
                for seed in range(5)
                for reset in ("scale", "discharge")
            ),
        ],
    ),
    "06_online": (
        "The article's schedule on the whole of MNIST with 32 steps, batch 1000, three epochs: backpropagation through"
        " time, and the same gradients forward in time, from the same seed with the same images and flicker",
        online,
        [{"method": method, "seed": seed, "n_steps": 32} for seed in range(1) for method in ("bptt", "online")],
    ),
    "07_after_spike": (
        "The article's schedule on the whole of MNIST with 32 steps, batch 1000, three epochs, for each kind of"
        " after-spike; its gradient probed on 500 test images before and after",
        after_spike,
        [{"variant": variant, "seed": seed} for seed in range(5) for variant in VARIANTS],
    ),
    "08_depth_tuning": (
        "Two and four layers with the same choices of starting weights and learning rate, reset 'discharge': 32 steps,"
        " 180 updates of 100 images, 6,000 training images, 2,000 held out as 'test'",
        few_digits,
        [
            {
                "n_train": 6000,
                "n_layers": n_layers,
                "reset": "discharge",
                "fire": fire,
                "rate": 0.2,
                "learning_rate": rate,
                "seed": seed,
            }
            for seed in range(2)
            for rate in (0.1, 0.05, 0.2, 0.025)
            for fire in ("thresholds", "weights", "as drawn")
            for n_layers in (2, 4)
            # Four layers as drawn get no gradient at any rate: one is enough to show it.
            if (n_layers, fire) != (4, "as drawn") or rate == 0.1
        ],
    ),
    "08_depth": (
        "The article's schedule on the whole of MNIST, 32 steps, batch 1000, three epochs: two and four layers, each"
        " with the best settings of 08_depth_tuning",
        depth,
        depth_trials,
    ),
    "08_longer_tuning": (
        "Two and four layers with the same choices of starting weights and learning rate, reset 'discharge': 32 steps,"
        " batch 100, three epochs, 50,000 training images, 10,000 held out as 'test'",
        depth_held_out,
        [
            {
                "n_layers": n_layers,
                "reset": "discharge",
                "fire": fire,
                "rate": 0.2,
                "batch_size": 100,
                "learning_rate": rate,
                "seed": 0,
            }
            for rate in (0.1, 0.2, 0.05, 0.4)
            for fire in ("thresholds", "weights", "as drawn")
            for n_layers in (2, 4)
            # Four layers as drawn get no gradient at any rate: one is enough to show it.
            if (n_layers, fire) != (4, "as drawn") or rate == 0.1
        ],
    ),
    "08_longer": (
        "The article's schedule with batches of 100, so with ten times the updates, on the whole of MNIST, 32 steps,"
        " three epochs: two and four layers, each with the best settings of 08_longer_tuning",
        depth,
        partial(depth_trials, "08_longer_tuning"),
    ),
    "08_repairs_tuning": (
        "The repairs of dead neurons, alone and together, each at three learning rates: 32 steps, 180 updates of 50"
        " images, 3,000 training images, 2,000 held out as 'test'",
        repair,
        [
            {"variant": variant, "learning_rate": round(factor * REPAIRS[variant]["learning_rate"], 4), "seed": 5}
            for factor in (1.0, 0.33, 3.0)
            for variant in REPAIRS
        ],
    ),
    "08_repairs": (
        "The repairs of dead neurons, alone and together, each at its best learning rate of 08_repairs_tuning: 32"
        " steps, 180 updates of 50 images, 3,000 training images, 10,000 test images",
        repair,
        repair_trials,
    ),
    "performance_accuracy": (
        "The article's schedule on the whole of MNIST, 128 steps, batch 1000, three epochs, trained in each setting of"
        " the engine and tested in plain float32",
        engine,
        [{"setting": setting, "seed": seed} for setting in ("fastest", "mixed") for seed in range(5)],
    ),
    "09_tuning": (
        "784-100-10 with binary spikes, and the MLP, five epochs of Adam at several learning rates: 50,000 training"
        " images, 10,000 held out as 'test'",
        surrogate_held_out,
        [
            {"network": network, "seed": seed, "learning_rate": rate, **settings}
            for seed in range(2)
            for network, settings in (("binary", BINARY), ("mlp", {}))
            for rate in (0.0025, 0.005, 0.01, 0.02)
        ],
    ),
    "09_surrogate": (
        "784-100-10 with binary spikes, and the MLP, five epochs of Adam on the whole of MNIST, each at its best rate"
        " of 09_tuning",
        surrogate,
        tuned_surrogate_trials,
    ),
    "09_shapes": (
        "784-100-10 with binary spikes, three epochs of Adam on 10,000 training images, for each shape and slope of the"
        " surrogate, with the reset detached and not; 10,000 held out as 'test'",
        surrogate_held_out,
        [
            {
                "network": "binary",
                "seed": seed,
                "n_train": 10_000,
                "epochs": 3,
                "learning_rate": 0.01,
                **BINARY,
                "shape": shape,
                "slope": slope,
                "detach": detach,
            }
            for seed in range(3)
            for shape, detach in (*((shape, True) for shape in SHAPES if shape != "none"), ("arctan", False))
            for slope in (1.0, 3.0, 10.0, 30.0)
        ],
    ),
    "09_steps": (
        "784-100-10 with binary spikes, five epochs of Adam on the whole of MNIST, with fewer steps, and with the"
        " reset that NIR has",
        surrogate,
        [
            {"network": "binary", "seed": seed, "learning_rate": 0.005, **BINARY, **changed}
            for seed in range(3)
            for changed in ({"n_steps": 8}, {"reset": "zero"})
        ],
    ),
    "10_rhythms": (
        "784-100-10, as drawn and after three epochs on 5,000 training images: the rhythm of each layer's population"
        " over 1,024 steps, after a burn-in of 128, beside 99 shuffles",
        rhythm,
        [{"reset": reset, "seed": seed} for seed in range(5) for reset in ("scale", "discharge")],
    ),
    "10_memory": (
        "49-64-2 on a delayed match of two digits, 15 epochs of Adam on 4,000 pairs, at one learning rate for all:"
        " layers with and without feedback, for each gap",
        memory,
        [
            {"network": network, "seed": seed, "gap": gap}
            for seed in range(5)
            for network in MEMORIES
            for gap in ((0, 4, 8, 12, 24) if network != "cut feedback" else (12,))
        ]
        + [
            {"network": network, "seed": seed, "gap": 12, "reset": "discharge"}
            for seed in range(5)
            for network in ("feedforward", "feedback", "delayed feedback")
        ],
    ),
    "11_tuning": (
        "784-200 and 784-100-100, trained without labels on 4,000 images, each rule at several learning rates: 5,000"
        " training images held out as 'test'",
        boltzmann_held_out,
        [
            *({"arm": "random", "seed": 7, "scale": scale} for scale in (0.1, 0.3, 1.0)),
            *(
                {"arm": arm, "seed": 7, "learning_rate": rate}
                for rate in (0.2, 0.1, 0.4, 0.8)
                for arm in ("cd", "rhythm", "rhythm, no leak", "greedy", "fast", "fast and slow", "slow")
            ),
        ],
    ),
    "11_digits": (
        "784-200 and 784-100-100, trained without labels on 4,000 images, each rule at its best learning rate of"
        " 11_tuning: a linear read-out tested on all 10,000 test images",
        boltzmann,
        boltzmann_trials,
    ),
    "11_longer": (
        "As 11_digits, four epochs instead of two: two levels by fast cycles, without and with slow ones",
        boltzmann,
        longer_boltzmann_trials,
    ),
}


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(RECORDS))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(RECORDS)}")
    RESULTS.mkdir(exist_ok=True)
    for name in names or RECORDS:
        what, run, trials = RECORDS[name]
        record_trials(RESULTS / f"{name}.json", what, trials() if callable(trials) else trials, run)


if __name__ == "__main__":
    main(sys.argv[1:])
