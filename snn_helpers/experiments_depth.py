"""The measurements of chapter 08, one trial at a time: run live at a small size, recorded at full size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.data import TensorDataset

from .depth import EnsembleNet, fire_at
from .diagnosis import diagnose
from .training import TrainingDiverged, evaluate, fit, pick_device

HIDDEN = {2: (100,), 3: (100, 100), 4: (100, 100, 100)}  # neurons in the hidden layers, by the number of layers

# The repairs, alone and together: what is read, how many layers, and which repair; the learning
# rates are to be tried three times lower and higher, too.
ONE: dict[str, Any] = {"readout": "spikes", "learning_rate": 0.5}
MANY: dict[str, Any] = {"readout": "spikes", "per_label": 10, "learning_rate": 0.3}
FOUR: dict[str, Any] = {"n_layers": 4, "learning_rate": 0.1}
REPAIRS: dict[str, dict[str, Any]] = {
    "one neuron a label": ONE,
    "one, thresholds": ONE | {"fire": "thresholds"},
    "one, weights": ONE | {"fire": "weights", "learning_rate": 0.15},
    "one, penalty for silence": ONE | {"push": 1.0},
    "ensembles, product": MANY,
    "ensembles, mixture": MANY | {"reading": "mixture", "learning_rate": 3.0},
    "ensembles, shared as normalised": MANY | {"share": "normalised", "learning_rate": 1.0},
    "ensembles, shared with the silent": MANY | {"share": "silent"},
    "ensembles, weights": MANY | {"fire": "weights", "learning_rate": 0.05},
    "four layers, as drawn": FOUR,
    "four layers, thresholds": FOUR | {"fire": "thresholds", "rate": 0.2},
    "four layers, weights": FOUR | {"fire": "weights", "rate": 0.2},
    "four layers, penalty for silence": FOUR | {"push": 1.0},
    "four layers, decay 0.99": FOUR | {"decay": 0.99},
    "four layers, thresholds, discharge": FOUR | {"fire": "thresholds", "rate": 0.2, "reset": "discharge"},
    "four layers, weights, discharge": FOUR | {"fire": "weights", "rate": 0.2, "reset": "discharge"},
}


def depth_trial(
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    n_layers: int = 2,
    fire: str = "as drawn",
    rate: float = 0.1,
    learning_rate: float = 0.1,
    n_steps: int = 32,
    batch_size: int = 1000,
    n_probe: int = 500,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one network of `n_layers` on digits and look at its neurons before and after; derived in chapter 08.

    The schedule is the article's: an epoch each at `learning_rate` times 1, 0.5 and 0.1. `fire` says
    how the network is set from 300 training images: `"as drawn"` is not at all, else as `how` of
    `fire_at`, to the rate. A last layer that is read by its states is left as it was drawn. `settings` are those
    of `EnsembleNet`.

    Returns `test_accuracy` and `test_loss` (0 and None if training diverged), and, `before` and `after`
    training, layer by layer on `n_probe` test images: `rate`, `dead`, `always`, `reach`, `gradient`; and
    `dead_labels`, the number of labels of whose ensemble no neuron ever fires.
    """
    if n_layers not in HIDDEN:
        raise ValueError(f"n_layers must be one of {', '.join(map(str, HIDDEN))}, not {n_layers!r}")
    if fire not in ("as drawn", "thresholds", "weights"):
        raise ValueError(f"fire must be 'as drawn', 'thresholds' or 'weights', not {fire!r}")
    device = pick_device(device)
    sizes = (784, *HIDDEN[n_layers], 10)
    net = EnsembleNet(n_steps, sizes=sizes, generator=torch.Generator().manual_seed(seed), **settings).to(device)
    if fire != "as drawn":
        fire_at(net, train.tensors[0][:300], rate, fire, seed=seed, last=net.readout == "spikes")
    images, labels = (part[:n_probe] for part in test.tensors)
    row: dict[str, Any] = {"seed": seed, "before": _health(net, images, labels, seed)}
    rates = [learning_rate * factor for factor in (1.0, 0.5, 0.1)]
    try:
        history = fit(net, train, seed=seed, device=device, learning_rates=rates, batch_size=batch_size, progress=False)
    except TrainingDiverged:
        return row | {"test_accuracy": 0.0, "test_loss": None, "diverged": True}
    on_test = evaluate(net, test, seed=seed)
    return row | {
        "n_updates": len(history.loss),
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss if math.isfinite(on_test.loss) else None,
        "after": _health(net, images, labels, seed),
        "seconds": round(history.seconds, 2),
    }


def _health(net: EnsembleNet, images: torch.Tensor, labels: torch.Tensor, seed: int) -> dict[str, Any]:
    found = diagnose(net, images, labels, seed)
    fired = (found[-1].rates > 0).unflatten(0, (net.per_label, -1)).any(dim=0)
    row: dict[str, Any] = {
        name: [float(f"{getattr(layer, name):.4g}") for layer in found]
        for name in ("rate", "dead", "always", "reach", "gradient")
    }
    return row | {"dead_labels": int((~fired).sum())}
