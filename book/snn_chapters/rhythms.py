"""Does a population of spiking neurons have a rhythm? Derived in chapter 13."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import without_autocast
from snn_helpers.long.checks import flat, whole
from snn_helpers.long.examples import stored
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded


class Synchrony(NamedTuple):
    """What `synchrony` returns, each `[F]`, float64 on the CPU.

    `frequencies` in cycles a step; `power` of the population's rate, (spikes a step and neuron)² for a cycle
    a step; `ratio`, that power in units of what independent neurons would have.
    """

    frequencies: Tensor
    power: Tensor
    ratio: Tensor


def synchrony(spikes: Tensor, segment: int = 128) -> Synchrony:
    """The spectrum of the population's rate, beside that of independent neurons; derived in chapter 13.

    The power of a sum is the sum of the powers, plus what each pair of neurons shares. Without sharing the
    ratio is 1 at every frequency, but for chance; of n neurons in step it is n. Welch's estimate: Hann windows
    that overlap by half, each freed of its mean; frequency 0 is left out. Examples are pooled before dividing.

    Parameters
    ----------
    spikes : `[T, B, N]`, time first; what is not 0 counts as one spike.
    segment : how long a window is, in steps: 4 to T. Frequencies are `1 / segment` apart, up to a half.

    Raises
    ------
    TypeError, ValueError : for spikes that do not fit, or if no neuron has fired, or all always fire.
    """
    from scipy.signal import welch

    trains = _trains(spikes)
    segment = whole("segment", segment)
    if not 4 <= segment <= len(trains):
        raise ValueError(f"segment must lie between 4 and the number of steps, {len(trains)}, not {segment}")
    n_neurons = trains.shape[2]
    frequencies, alone = welch(trains.numpy(), nperseg=segment, axis=0)
    _, together = welch(trains.sum(dim=2).numpy(), nperseg=segment, axis=0)
    summed = torch.from_numpy(alone[1:]).sum(dim=(1, 2))
    if not bool((summed > 0).all()):
        raise ValueError("no neuron ever changed between firing and silence: there is no spectrum to speak of")
    of_sum = torch.from_numpy(together[1:]).sum(dim=1)
    power = of_sum / trains.shape[1] / n_neurons**2
    return Synchrony(torch.from_numpy(frequencies[1:].copy()), power, of_sum / summed)


def shift_trains(spikes: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each neuron's train moved round in a circle by an offset of its own: the control of chapter 13.

    Every train keeps its rate, its intervals and its own rhythm, but for the seam; who fires with whom is
    left to chance.
    `spikes` and what is returned: `[T, B, N]`. Offsets are uniform over 0 to T - 1, drawn on the CPU by `generator`.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    _trains(spikes)
    n_steps = len(spikes)
    offsets = torch.randint(n_steps, spikes.shape[1:], generator=generator, device="cpu").to(spikes.device)
    places = (torch.arange(n_steps, device=spikes.device)[:, None, None] + offsets) % n_steps
    return spikes.gather(0, places)


def regularity(spikes: Tensor, at_least: int = 20) -> Tensor:
    """How far each train is from a clock: 0 for a clock, 1 for coin flips at its rate; derived in chapter 13.

    The coefficient of variation of the intervals between spikes (standard deviation over mean), divided by that of
    a neuron that fires at random in each step, `sqrt(1 - rate)`, where `1 / rate` is the mean interval.

    `spikes` `[T, B, N]`; returns a value for each of the B x N trains with `at_least` intervals (2 or more) and a
    mean interval above 1, float64 on the CPU. A neuron that fires at every step has no choice to make, and is left out.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    trains = _trains(spikes)
    at_least = whole("at_least", at_least, least=2)
    found = []
    for train in trains.flatten(1).T:
        intervals = train.nonzero().flatten().diff().double()
        if len(intervals) >= at_least and intervals.mean() > 1:
            spread = intervals.std(correction=0) / intervals.mean()
            found.append(spread / (1 - 1 / intervals.mean()).sqrt())
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64, device="cpu")


def _trains(spikes: Tensor) -> Tensor:
    """1 where there is a spike, else 0: `[T, B, N]` float64 on the CPU."""
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes must be a torch.Tensor, not {type(spikes).__name__}")
    if spikes.dim() != 3 or 0 in spikes.shape:
        raise ValueError(
            f"spikes must have the shape [steps, batch, neurons], each at least 1, not {list(spikes.shape)}"
        )
    if not bool((spikes >= 0).all()):
        raise ValueError("spikes must be 0 or more; there are negative values or NaN: are these states?")
    return (spikes.detach() != 0).double().cpu()


# --- The trial ------------------------------------------------------------------------------------


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
    """The rhythm of the article's network, as drawn and after training; recorded for chapter 13.

    Returns the reset, the seed, `test_accuracy`, and under `"before"` and `"after"` what `listen` finds in each layer.
    """
    device = pick_device(device)
    net = SpikingNet(n_steps, reset=reset, generator=seeded(seed)).to(device)
    images = stored(test)[0].to(device)
    settings = {"n_images": n_images, "n_listened": n_listened, "n_shuffles": n_shuffles, "seed": seed}
    row: dict[str, Any] = {"reset": reset, "seed": seed, "before": listen(net, images, **settings)}
    fit(net, train, seed=seed, device=device, learning_rates=learning_rates, batch_size=batch_size, progress=False)
    return row | {
        "test_accuracy": evaluate(net, test, seed=seed).accuracy,
        "after": listen(net, images, **settings),
    }


@without_autocast
@torch.no_grad()
def listen(
    net: SpikingNet, images: Tensor, n_images: int, n_listened: int, n_shuffles: int, seed: int
) -> list[dict[str, Any]]:
    """What each layer's population does after a burn-in of 128 steps; recorded for chapter 13.

    For each layer: `rate` (spikes a step and neuron); `regularity` (the mean over trains) and `n_trains` (how
    many have enough intervals for it); `peak` and `frequency` (where the ratio of `synchrony` is largest);
    `mean_ratio` (over frequencies); `shuffled_peak` (the 95th percentile of the peaks of shuffled trains) and
    `p_value` (the share of the peaks, the true one among them, that are as high). None where a layer is silent.

    For the second control the images are shown ten times, each time with a flicker of its own: `shared_mean` and
    `shared_peak` are the mean and the largest ratio, over all ten, of neurons of one showing; `apart_mean` and
    `apart_peak` the same for populations put together from all ten, where nine in ten pairs share no flicker.
    """
    own = isinstance(net, SpikingNet) and getattr(net.frames, "__func__", None) is SpikingNet.frames
    if not own or net.shared_flicker:
        raise TypeError(
            "listen shows flickering images, each with its own flicker, to a SpikingNet that reads them so, not to"
            f" {net!r:.80}"
        )
    burn_in, generator = 128, seeded(seed)
    pixels = flat(images[:n_images])
    showings = [net.run(flicker(pixels, burn_in + n_listened, generator)) for _ in range(N_SHOWINGS)]
    found = []
    for layer in zip(*([record.outputs[burn_in:].cpu() > 0 for record in records] for records in showings)):
        spikes = layer[0]
        regular = regularity(spikes)
        row: dict[str, Any] = {
            "rate": round(spikes.double().mean().item(), 5),
            "regularity": round(regular.mean().item(), 5) if len(regular) else None,
            "n_trains": len(regular),
        }
        try:
            found_there = synchrony(spikes)
            true = found_there.ratio
        except ValueError:  # a silent layer has no rhythm
            found.append(row | dict.fromkeys(UNHEARD))
            continue
        peaks = [synchrony(shift_trains(spikes, generator)).ratio.max() for _ in range(n_shuffles)]
        peak = true.max()
        shared, apart = synchrony(torch.cat(layer, dim=1)).ratio, synchrony(put_together(layer)).ratio
        row |= {
            "peak": round(peak.item(), 5),
            "frequency": round(found_there.frequencies[true.argmax()].item(), 5),
            "mean_ratio": round(true.mean().item(), 5),
            "shuffled_peak": round(torch.stack(peaks).quantile(0.95).item(), 5),
            "p_value": round((1 + sum(bool(other >= peak) for other in peaks)) / (1 + n_shuffles), 5),
            "shared_mean": round(shared.mean().item(), 5),
            "shared_peak": round(shared.max().item(), 5),
            "apart_mean": round(apart.mean().item(), 5),
            "apart_peak": round(apart.max().item(), 5),
        }
        found.append(row)
    return found


def put_together(showings: Sequence[Tensor]) -> Tensor:
    """Populations whose neurons were heard in different showings: the second control of chapter 13.

    K showings `[T, B, N]` of the same images to `[T, K * B, N]`: in the k-th of K populations, neuron n is taken
    from showing `n + k` (counted round), so that two neurons share their images, and a flicker only if their
    numbers differ by a multiple of K. Each neuron of each showing is used once.
    """
    shapes = {tuple(_trains(spikes).shape) for spikes in showings}
    if len(shapes) != 1:
        raise ValueError(f"showings must hold one showing or more, all of one shape, not {sorted(shapes)}")
    n_neurons = showings[0].shape[2]
    every = torch.stack(list(showings))
    neurons = torch.arange(n_neurons, device=every.device)
    mixed = [every[(neurons + k) % len(every), :, :, neurons].permute(1, 2, 0) for k in range(len(every))]
    return torch.cat(mixed, dim=1)


# --- The records ----------------------------------------------------------------------------------


def measure_rhythm(**settings: Any) -> dict[str, Any]:
    """As `rhythm_trial`, trained on 5,000 digits of MNIST."""
    train, test = whole_mnist()
    few = examples(train, 5000)
    return rhythm_trial(train=few, test=test, **settings)


RECORDS: dict[str, Record] = {
    "13_rhythms": Record(
        "784-100-10, as drawn and after three epochs on 5,000 training images: the rhythm of each layer's population"
        " over 1,024 steps, after a burn-in of 128, beside 99 shuffles",
        measure_rhythm,
        [{"reset": reset, "seed": seed} for seed in range(5) for reset in ("scale", "discharge")],
    ),
}
