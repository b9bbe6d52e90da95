"""The measurements of chapter 10, one trial at a time: run live at a small size, recorded at full size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from .encoding import flicker
from .experiments_surrogates import fit_adam
from .networks import SpikingNet
from .neurons import SpikingLayer
from .recurrence import RecurrentSpikingLayer, SequenceNet, regularity, shift_trains, synchrony
from .training import as_tensors, evaluate, fit, pick_device

# The hidden layers that chapter 10 compares; what is not said is as in `memory_trial`.
MEMORIES: dict[str, dict[str, Any]] = {
    "feedforward": {},
    "slow leak": {"decay": 0.97},
    "feedback": {"delay": 1},
    "delayed feedback": {"delay": 8},
    "cut feedback": {"delay": 1, "cut": True},
}
UNHEARD = (
    "peak",
    "frequency",
    "mean_ratio",
    "shuffled_peak",
    "p_value",
    "shared_mean",
    "shared_peak",
    "apart_mean",
    "apart_peak",
)
N_SHOWINGS = 10
# A loop multiplies gradients at each turn: now and then one is huge, and without the limit it undoes the training.
LOOPED: dict[str, Any] = {"batch_size": 100, "longest_gradient": 1.0}  # settings of `fit_adam`
POOLED = 7  # images of 28 x 28 are averaged to 7 x 7


# --- Rhythms --------------------------------------------------------------------------------------


def rhythm_trial(
    reset: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rates: Sequence[float] = (0.1, 0.05, 0.01),
    batch_size: int = 50,
    n_steps: int = 128,
    n_images: int = 20,
    n_listened: int = 1024,
    n_shuffles: int = 99,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """The rhythm of the article's network, as drawn and after training; derived in chapter 10.

    Returns the reset, the seed, `test_accuracy`, and under `"before"` and `"after"` what `listen` finds in each layer.
    """
    device = pick_device(device)
    net = SpikingNet(n_steps, reset=reset, generator=torch.Generator().manual_seed(seed)).to(device)
    images = test.tensors[0].to(device)
    settings = {"n_images": n_images, "n_listened": n_listened, "n_shuffles": n_shuffles, "seed": seed}
    row: dict[str, Any] = {"reset": reset, "seed": seed, "before": listen(net, images, **settings)}
    fit(net, train, seed=seed, device=device, learning_rates=learning_rates, batch_size=batch_size, progress=False)
    return row | {
        "test_accuracy": evaluate(net, test, seed=seed).accuracy,
        "after": listen(net, images, **settings),
    }


@torch.no_grad()
def listen(
    net: SpikingNet, images: Tensor, n_images: int, n_listened: int, n_shuffles: int, seed: int
) -> list[dict[str, Any]]:
    """What each layer's population does after a burn-in of 128 steps; derived in chapter 10.

    For each layer: `rate` (spikes a step and neuron); `regularity` (the mean over trains) and `n_trains` (how
    many have enough intervals for it); `peak` and `frequency` (where the ratio of `synchrony` is largest);
    `mean_ratio` (over frequencies); `shuffled_peak` (the 95th percentile of the peaks of shuffled trains) and
    `p_value` (the share of the peaks, the true one among them, that are as high). None where a layer is silent.

    For the second control the images are shown ten times, each time with a flicker of its own: `shared_mean` and
    `shared_peak` are the mean and the largest ratio, over all ten, of neurons of one showing; `apart_mean` and
    `apart_peak` the same for populations put together from all ten, where nine in ten pairs share no flicker.
    """
    burn_in, n_steps = 128, net.n_steps
    generator = torch.Generator().manual_seed(seed)
    net.n_steps = burn_in + n_listened
    try:
        showings = [net.record(images[:n_images], generator) for _ in range(N_SHOWINGS)]
    finally:
        net.n_steps = n_steps
    found = []
    for layer in zip(*([record.outputs[burn_in:].cpu() > 0 for record in records] for records in showings)):
        spikes = layer[0]
        regular = regularity(spikes)
        row: dict[str, Any] = {
            "rate": _rounded(spikes.double().mean().item()),
            "regularity": _rounded(regular.mean().item()) if len(regular) else None,
            "n_trains": len(regular),
        }
        try:
            true = synchrony(spikes).ratio
        except ValueError:  # a silent layer has no rhythm
            found.append(row | dict.fromkeys(UNHEARD))
            continue
        peaks = [synchrony(shift_trains(spikes, generator)).ratio.max() for _ in range(n_shuffles)]
        peak = true.max()
        shared, apart = synchrony(torch.cat(layer, dim=1)).ratio, synchrony(put_together(layer)).ratio
        row |= {
            "peak": _rounded(peak.item()),
            "frequency": _rounded((true.argmax().item() + 1) / 128),
            "mean_ratio": _rounded(true.mean().item()),
            "shuffled_peak": _rounded(torch.stack(peaks).quantile(0.95).item()),
            "p_value": _rounded((1 + sum(bool(other >= peak) for other in peaks)) / (1 + n_shuffles)),
            "shared_mean": _rounded(shared.mean().item()),
            "shared_peak": _rounded(shared.max().item()),
            "apart_mean": _rounded(apart.mean().item()),
            "apart_peak": _rounded(apart.max().item()),
        }
        found.append(row)
    return found


def put_together(showings: Sequence[Tensor]) -> Tensor:
    """Populations whose neurons were heard in different showings: the second control of chapter 10.

    K showings `[T, B, N]` of the same images to `[T, K * B, N]`: in the k-th of K populations, neuron n is taken
    from showing `n + k` (counted round), so that two neurons share their images, and a flicker only if their
    numbers differ by a multiple of K. Each neuron of each showing is used once.
    """
    n_neurons = showings[0].shape[2]
    every = torch.stack(list(showings))
    neurons = torch.arange(n_neurons, device=every.device)
    mixed = [every[(neurons + k) % len(every), :, :, neurons].permute(1, 2, 0) for k in range(len(every))]
    return torch.cat(mixed, dim=1)


# --- Memory ---------------------------------------------------------------------------------------


def match_task(
    dataset: TensorDataset,
    n_trials: int,
    gap: int,
    seed: int,
    shown: int = 5,
    classes: Sequence[int] = (0, 1),
) -> TensorDataset:
    """Was the second digit of the same kind as the first? A delayed match to sample; derived in chapter 10.

    A digit is shown for `shown` steps, then nothing for `gap` steps, then another digit for `shown` steps,
    then two more steps of nothing, for the answer to arrive. Digits are averaged to 7 x 7, 0 for black to 1
    for white, and flicker. Half of the pairs match, by a coin; two images are the same one only by chance.

    Returns frames `[n_trials, 2 * shown + gap + 2, 49]` and labels `[n_trials]`, 1 for a match.

    Raises
    ------
    ValueError : for settings that do not fit, or classes that the data set lacks.
    """
    if n_trials < 1 or shown < 1 or gap < 0:
        raise ValueError(f"n_trials and shown must be 1 or more and gap 0 or more, not {n_trials}, {shown} and {gap}")
    if len(set(classes)) < 2:
        raise ValueError(f"classes must name two labels or more, or every pair would match, not {list(classes)}")
    generator = torch.Generator().manual_seed(seed)
    images, labels = as_tensors(dataset, torch.device("cpu"))
    small = F.avg_pool2d(images.reshape(-1, 1, 28, 28) + 0.5, 28 // POOLED).flatten(1)
    members = [small[labels == label] for label in classes]
    if any(len(own) == 0 for own in members):
        raise ValueError(f"the data set lacks one of the classes {list(classes)}; it has {labels.unique().tolist()}")
    first = torch.randint(len(classes), (n_trials,), generator=generator)
    match = torch.randint(2, (n_trials,), generator=generator)
    other = (first + torch.randint(1, len(classes), (n_trials,), generator=generator)) % len(classes)
    second = torch.where(match == 1, first, other)
    frames = torch.zeros(2 * shown + gap + 2, n_trials, POOLED**2)
    for kinds, start in ((first, 0), (second, shown + gap)):
        places = torch.rand(n_trials, generator=generator)
        pictures = torch.stack([members[kind][int(place * len(members[kind]))] for kind, place in zip(kinds, places)])
        frames[start : start + shown] = flicker(pictures, shown, generator)
    return TensorDataset(frames.transpose(0, 1).contiguous(), match)


def make_memory(network: str, seed: int, gap: int, shown: int = 5, n_hidden: int = 64, **settings: Any) -> SequenceNet:
    """One of `MEMORIES`, 49-64-2, its initial weights drawn from the seed; it answers as it sees the second digit."""
    if network not in MEMORIES:
        raise ValueError(f"network must be one of {', '.join(map(repr, MEMORIES))}, not {network!r}")
    given: dict[str, Any] = (
        {"decay": 0.8, "threshold": 1.0, "penalty": 1.5, "reset": "scale"} | MEMORIES[network] | settings
    )
    kind = RecurrentSpikingLayer if "delay" in given else SpikingLayer
    generator = torch.Generator().manual_seed(seed)
    hidden = kind(POOLED**2, n_hidden, generator=generator, **given)
    return SequenceNet(hidden, 2, begin_eval=shown + gap + 2, generator=generator)


def memory_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    gap: int,
    *,
    n_train: int = 4000,
    n_test: int = 2000,
    epochs: int = 15,
    learning_rate: float = 0.01,
    shown: int = 5,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one of `MEMORIES` on the delayed match, and test it on other digits; derived in chapter 10.

    `settings` go to the hidden layer. Trials of one seed and gap see the same pairs, whatever the network.
    Returns the network, the seed, the gap, `train_accuracy`, `test_accuracy` and the `rate` of the hidden
    layer in the middle of the gap (None without one), in spikes a step and neuron.
    """
    device = pick_device(device)
    seen = match_task(train, n_train, gap, 2 * seed, shown)
    unseen = match_task(test, n_test, gap, 2 * seed + 1, shown)
    net = make_memory(network, seed, gap, shown, **settings).to(device)
    fit_adam(net, seen, seed=seed, learning_rate=learning_rate, epochs=epochs, **LOOPED, device=device)
    with torch.no_grad():
        outputs = net.hidden(unseen.tensors[0].to(device).transpose(0, 1))[1]
    middle = outputs[shown + gap // 2]
    return {
        "network": network,
        "seed": seed,
        "gap": gap,
        "train_accuracy": evaluate(net, seen).accuracy,
        "test_accuracy": evaluate(net, unseen).accuracy,
        "rate": _rounded((middle > 0).double().mean().item()) if gap else None,
    }


def _rounded(value: float) -> float:
    return round(value, 5)
