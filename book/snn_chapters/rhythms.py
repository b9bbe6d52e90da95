"""Rhythms of a population, outputs fed back into inputs, and what such a loop remembers; derived in chapter 13."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, SpikingNet, evaluate, fit, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import without_autocast
from snn_helpers.long.checks import counted, flag, flat, floating, real, time_first, whole
from snn_helpers.long.examples import stored
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import draw_uniform, seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.records import load_results
from snn_helpers.training import as_tensors, fit_adam
from snn_helpers.tuning import choose, means, scores_of

# --- Is there a rhythm? ---------------------------------------------------------------------------

SEGMENT = 128  # steps of a window of the spectrum: frequencies are 1/128 apart
BURN_IN = 256  # steps that are not listened to; in the first half of them the neurons start, each at its own step
TWICE = 2.0  # a rhythm is at least twice as strong as independent neurons, and as the slowest ups and downs


class Synchrony(NamedTuple):
    """What `synchrony` returns, each `[F]`, float64 on the CPU.

    `frequencies` in cycles a step; `power` of the population's rate, (spikes a step and neuron)² for a cycle
    a step; `ratio`, that power in units of what independent neurons would have.
    """

    frequencies: Tensor
    power: Tensor
    ratio: Tensor


def synchrony(spikes: Tensor, segment: int = SEGMENT) -> Synchrony:
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
    trains = _trains(spikes)
    segment = whole("segment", segment)
    if not 4 <= segment <= len(trains):
        raise ValueError(f"segment must lie between 4 and the number of steps, {len(trains)}, not {segment}")
    together, alone = _spectra(trains, segment)
    if not bool((alone.sum(dim=1) > 0).all()):
        raise ValueError("no neuron ever changed between firing and silence: there is no spectrum to speak of")
    power = together.mean(dim=1) / trains.shape[2] ** 2
    frequencies = torch.arange(1, segment // 2 + 1, dtype=torch.float64, device="cpu") / segment
    return Synchrony(frequencies, power, together.sum(dim=1) / alone.sum(dim=1))


def shift_trains(spikes: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each neuron's trains moved round in a circle by an offset of its own: the control of chapter 13.

    Every train keeps its rate, its intervals and its own rhythm, but for the seam; who fires with whom is
    left to chance. A neuron has one offset for all examples: if these are alike, so are the shuffled ones.
    `spikes` and what is returned: `[T, B, N]`. Offsets are uniform over 0 to T - 1, drawn on the CPU by `generator`.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    _trains(spikes)
    return _moved_round(spikes, generator)


def regularity(spikes: Tensor, at_least: int = 20) -> Tensor:
    """How far each train is from a clock: 0 for a clock, 1 for coin flips at its rate; derived in chapter 13.

    The coefficient of variation of the intervals between spikes (standard deviation over mean), divided by that of
    a neuron that fires at random in each step, `sqrt(1 - rate)`, where `1 / rate` is the mean interval.

    `spikes` `[T, B, N]`; returns a value for each of the B x N trains with `at_least` intervals (2 or more) and a
    mean interval above 1, float64 on the CPU. A neuron that fires at every step has no choice to make, and is left out.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    found = _regularity(_trains(spikes).flatten(1), whole("at_least", at_least, least=2))
    return found[~found.isnan()]


def beat(signals: Tensor, n_shuffles: int, generator: torch.Generator | None = None) -> dict[str, Any]:
    """What the definition of a rhythm asks for; derived in chapter 13, and `has_rhythm` decides by it.

    `signals` `[T, B, N]` are what N units do that are shown B inputs which stay the same, after a burn-in: 0 and 1 for
    spikes, values for units that have values. `rise` is the population's power over that at the two slowest frequencies
    (at most a million). Of all inputs together: `peak`, the largest synchrony where the power has risen to `TWICE` or
    more, or anywhere if it has nowhere; the `rise` there; `shuffled`, the highest synchrony anywhere in the shuffles;
    `p_value`, the share of the peaks, the true one among those of the shuffles, that are as high; `period`, in steps,
    of the slowest peak that is as high but for a tenth. `digits` holds the p-values of each input by itself, and
    `highest_digit` that of the highest peak among them. What is still has no rhythm: its peak is None.
    """
    values = signals.detach().double().cpu()
    true = _spectra(values)
    if not bool(true[1].sum() > 0):
        return {"peak": None}
    pooled, single = _ratios(*true)
    shuffled = [_ratios(*_spectra(_moved_round(values, generator))) for _ in range(n_shuffles)]
    peaks = torch.stack([ratio.max() for ratio, _ in shuffled])
    of_digits = torch.stack([ratios.max(dim=0).values for _, ratios in shuffled])

    def p_value(found: Tensor, by_chance: Tensor) -> Tensor:
        return (1 + (by_chance >= found).sum(dim=0)) / (1 + n_shuffles)

    power = true[0].sum(dim=1)
    rise = (power / power[:2].mean().clamp_min(power.max() / 1e6)).clamp_max(1e6)
    risen = rise >= TWICE
    place = int(torch.where(risen, pooled, -1.0).argmax() if risen.any() else pooled.argmax())
    # The slowest peak that is as high, but for a tenth; the others are its multiples.
    as_high = ((pooled >= 0.9 * pooled[place]) & (risen | ~risen.any())).nonzero().flatten().tolist()
    first = [k for n, k in enumerate(as_high) if k == as_high[0] + n]
    slowest = max(first, key=lambda k: power[k].item())
    digits = single.max(dim=0).values
    return {
        "peak": round(pooled[place].item(), 4),
        "mean": round(pooled.mean().item(), 4),
        "shuffled": round(peaks.max().item(), 4),
        "p_value": round(p_value(pooled[place], peaks).item(), 4),
        "rise": round(rise[place].item(), 2),
        "period": round(SEGMENT / (slowest + 1), 2),
        "digits": [round(p, 4) for p in p_value(digits, of_digits).tolist()],
        "highest_digit": round(p_value(digits.max(), of_digits.max(dim=1).values).item(), 4),
    }


def has_rhythm(found: Mapping[str, Any]) -> bool:
    """Whether what `beat` found is a rhythm; derived in chapter 13.

    It is shared: at least twice as strong as in independent neurons, and as few of the shuffles as one in twenty are
    as strong. And it is periodic: the population's power there is at least twice that of its slowest ups and downs.
    """
    if found["peak"] is None:
        return False
    return bool(found["peak"] >= TWICE and found["p_value"] <= 0.05 and found["rise"] >= TWICE)


def clocks_and_coins(spikes: Tensor, n_coins: int, generator: torch.Generator | None = None) -> dict[str, Any]:
    """How regular each neuron is, beside coins that fire as often; recorded for chapter 13.

    Over the trains that `regularity` measures (`n_trains`): `below`, the share under 0.2; `median`; `above`, the share
    over 0.8; `more_regular`, the share that is more regular than 95 % of `n_coins` coins with the same rate. `coin`
    holds the same three for one coin a train. None where there are no such trains.
    """
    trains = _trains(spikes).flatten(1)
    values = _regularity(trains)
    kept = ~values.isnan()
    if not kept.any():
        return {"n_trains": 0, "below": None, "median": None, "above": None, "more_regular": None, "coin": None}
    trains, values = trains[:, kept], values[kept]
    draws = [
        _regularity((torch.rand(trains.shape, generator=generator, device="cpu") < trains.mean(dim=0)).double(), 2)
        for _ in range(n_coins)
    ]
    coins = torch.stack(draws)
    as_regular = (1 + (coins <= values).sum(dim=0)) / (1 + n_coins)

    def told(of: Tensor) -> dict[str, float]:
        of = of[~of.isnan()]
        return {
            "below": round((of < 0.2).double().mean().item(), 4),
            "median": round(of.median().item(), 4),
            "above": round((of > 0.8).double().mean().item(), 4),
        }

    more = (as_regular <= 0.05).double().mean().item()
    return {"n_trains": len(values), **told(values), "more_regular": round(more, 4), "coin": told(coins[0])}


def _regularity(trains: Tensor, at_least: int = 20) -> Tensor:
    """As `regularity`, of trains `[T, M]`, a value for each: nan for those that it leaves out."""
    steps = torch.arange(len(trains), device="cpu").double()[:, None]
    last = torch.where(trains > 0, steps, -1.0).cummax(dim=0).values
    before = torch.cat([torch.full_like(last[:1], -1.0), last[:-1]])
    counted_ones = (trains > 0) & (before >= 0)
    intervals = torch.where(counted_ones, steps - before, 0.0)
    n = counted_ones.sum(dim=0)
    mean = intervals.sum(dim=0) / n
    spread = ((intervals**2).sum(dim=0) / n - mean**2).clamp_min(0).sqrt()
    fits = (n >= at_least) & (mean > 1)
    return torch.where(fits, spread / mean / (1 - 1 / mean).sqrt(), math.nan)


def _spectra(trains: Tensor, segment: int = SEGMENT) -> tuple[Tensor, Tensor]:
    """For each frequency and example `[F, B]`, the power of the sum of the trains, and the sum of their powers."""
    window = torch.hann_window(segment, dtype=torch.float64, device="cpu")
    pieces = trains.unfold(0, segment, segment // 2)
    waves = torch.fft.rfft((pieces - pieces.mean(dim=-1, keepdim=True)) * window, dim=-1)[..., 1:]
    # One-sided, as densities: each frequency but the last stands for two.
    sides = torch.full((segment // 2,), 2.0, dtype=torch.float64, device="cpu")
    if segment % 2 == 0:
        sides[-1] = 1.0
    scale = sides / (window**2).sum() / len(pieces)
    together = (waves.sum(dim=2).abs() ** 2).sum(dim=0) * scale
    alone = (waves.abs() ** 2).sum(dim=(0, 2)) * scale
    return together.T, alone.T


def _ratios(together: Tensor, alone: Tensor) -> tuple[Tensor, Tensor]:
    """The synchrony of all examples `[F]`, and of each `[F, B]`; 0 where there is no power but that of rounding."""
    pooled, summed = together.sum(dim=1), alone.sum(dim=1)
    all_of_them = torch.where(summed > 1e-6 * summed.max(), pooled / summed, 0.0)
    each = torch.where(alone > 1e-6 * alone.max(dim=0).values, together / alone, 0.0)
    return all_of_them, each


def _moved_round(values: Tensor, generator: torch.Generator | None) -> Tensor:
    n_steps = len(values)
    offsets = torch.randint(n_steps, values.shape[2:], generator=generator, device="cpu").to(values.device)
    places = (torch.arange(n_steps, device=values.device)[:, None, None] + offsets) % n_steps
    return values.gather(0, places.expand(values.shape))


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


# --- A layer that hears itself ------------------------------------------------------------------


class RecurrentSpikingLayer(SpikingLayer):
    """A `SpikingLayer` whose outputs come back as inputs, `delay` steps later; derived in chapter 13.

    At step t each neuron reads `layer.linear` of the input of this step plus `layer.recurrent` of what
    the layer's neurons put out at step `t - delay`; before there is anything to come back, zeros. With a
    delay of 1 that is exactly what the layer hands out at step t: the one-step delay closes the loop.
    `layer(inputs)` maps `[T, B, n_inputs]` to `(states, outputs)`, both `[T, B, n_neurons]` and delayed
    by one step, as in `SpikingLayer`.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`; the same
        generator gives the same `layer.linear`.
    delay : after how many steps an output comes back, 1 or more.
    scale : the recurrent weights `layer.recurrent.weight` `[n_neurons, n_neurons]`, row by row those of
        the neuron that hears, start as `scale` times a Xavier-uniform draw; 0 or more.
    cut : autograd takes what comes back for a constant: the answers are the same, but no gradient
        flows around the loop.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    settings = (*SpikingLayer.settings, "delay", "cut")

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 2.0,
        penalty: float = 2.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
        delay: int = 1,
        scale: float = 1.0,
        cut: bool = False,
    ) -> None:
        super().__init__(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
        # An output cannot come back before it is made.
        self.delay, self.cut = whole("delay", delay), flag("cut", cut)
        scale = real("scale", scale, least=0)
        self.recurrent = nn.Linear(self.n_neurons, self.n_neurons, bias=False)
        draw_uniform(self.recurrent.weight, math.sqrt(3) * (scale * math.sqrt(1 / self.n_neurons)), generator)

    def run(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from the currents `[T, B, n_neurons]` on."""
        time_first("currents", currents)
        delay, cut = whole("delay", self.delay), flag("cut", self.cut)
        silence = torch.zeros_like(currents[0])
        states, outputs = [silence], [silence]  # as handed out: entry t + 1 is what step t made
        for t in range(len(currents) - 1):
            back = outputs[t + 1 - delay] if t >= delay else silence
            heard = self.recurrent(back.detach() if cut else back).to(currents.dtype)
            output, state = self.step(currents[t] + heard, states[t])
            states.append(state)
            outputs.append(output)
        return torch.stack(states), torch.stack(outputs)


class OrdinaryRecurrentLayer(RecurrentSpikingLayer):
    """The hidden layer of an ordinary recurrent network: its output is `tanh` of what it hears; used in chapter 13.

    It has no spikes, no leak and no reset: all that it keeps comes back through `layer.recurrent`.
    """

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`(output, state)`, of which the state stays 0."""
        return torch.tanh(current), torch.zeros_like(current)


class SequenceNet(nn.Module):
    """A hidden layer and a read-out for input that changes over time; used in chapter 13.

    Maps frames `[B, T, n_inputs]` to log-probabilities `[B, n_classes]`. The logits are the states of
    the last layer, a `SpikingLayer`, averaged over the steps from `begin_eval` on.

    Parameters
    ----------
    hidden : a `SpikingLayer`, or one of its kind, such as `RecurrentSpikingLayer`.
    n_classes : 1 or more; the read-out has the hidden layer's neuron settings, but for `decay`.
    begin_eval : the first step that counts for the answer.
    read_decay : the read-out's own leak, 0 to 1. At 0 it remembers nothing: what is remembered is the hidden
        layer's doing.
    generator : where the read-out's initial weights come from; torch's global one if None.

    Raises
    ------
    TypeError, ValueError : for settings or frames that do not fit.
    """

    def __init__(
        self,
        hidden: SpikingLayer,
        n_classes: int,
        begin_eval: int = 0,
        read_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(hidden, SpikingLayer):
            raise TypeError(f"hidden must be a SpikingLayer, or one of its kind, not {type(hidden).__name__}")
        neuron = (hidden.threshold, hidden.penalty, hidden.reset)
        self.begin_eval = whole("begin_eval", begin_eval, least=0)
        self.hidden = hidden
        self.readout = SpikingLayer(hidden.n_neurons, n_classes, read_decay, *neuron, generator)

    def forward(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` is not used: nothing here is drawn."""
        if frames.dim() != 3 or frames.shape[1] <= self.begin_eval:
            raise ValueError(
                f"frames must have the shape [batch, steps, inputs], with more steps than begin_eval"
                f" ({self.begin_eval}), not {list(frames.shape)}"
            )
        states, _ = self.readout(self.hidden(frames.transpose(0, 1))[1])
        return F.log_softmax(counted(states, self.begin_eval).mean(dim=0), dim=-1)


@without_autocast
@torch.no_grad()
def hear(layer: SpikingLayer, pixels: Tensor, n_steps: int, generator: torch.Generator, n_showings: int = 1) -> Tensor:
    """What a layer puts out after the burn-in, `[n_steps, B, N]` on the CPU, while images are shown; from chapter 13.

    `pixels` `[B, n_inputs]` flicker all the time. With several showings, each with a flicker of its own, neuron n
    reads the showing n, counted round: with as many as neurons, none shares its flicker with another one. Each neuron
    begins to read at a step of its own, so that no common start keeps them in step. What they share through
    connections, they still share.
    """
    currents = torch.empty(0)
    for k in range(n_showings):
        found = layer.currents(flicker(pixels, BURN_IN + n_steps, generator))
        currents = currents if len(currents) else torch.empty_like(found)
        currents[:, :, k::n_showings] = found[:, :, k::n_showings]
    starts = torch.randint(BURN_IN // 2, currents.shape[1:], generator=generator, device="cpu").to(currents.device)
    currents[torch.arange(len(currents), device=currents.device)[:, None, None] < starts] = 0
    return layer.run(currents)[1][BURN_IN:].cpu()


# --- The article's network ------------------------------------------------------------------------

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
    n_images: int = 10,
    n_listened: int = 1024,
    n_shuffles: int = 19,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """The rhythm of the article's network, as drawn and after training; recorded for chapter 13.

    Returns the reset, the seed, `test_accuracy`, and under `"before"` and `"after"` what `listen` finds.
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


def listen(
    net: SpikingNet, images: Tensor, n_images: int, n_listened: int, n_shuffles: int, seed: int
) -> dict[str, Any]:
    """What the first hidden layer of a network does while digits flicker; recorded for chapter 13.

    `rate` (spikes a step and neuron), `clocks` (what `clocks_and_coins` finds), and what `beat` finds: under `shared`
    where all neurons see the same flicker, under `own` where the digits are shown `N_SHOWINGS` times, each time with a
    flicker of its own, and neighbours read different showings.
    """
    own = isinstance(net, SpikingNet) and getattr(net.frames, "__func__", None) is SpikingNet.frames
    if not own or net.shared_flicker:
        raise TypeError(
            "listen shows flickering images, each with its own flicker, to a SpikingNet that reads them so, not to"
            f" {net!r:.80}"
        )
    layer: Any = net.layers[0]
    generator, pixels = seeded(seed), flat(images[:n_images])
    together, apart = (hear(layer, pixels, n_listened, generator, k) > 0 for k in (1, N_SHOWINGS))
    return {
        "rate": round(together.double().mean().item(), 5),
        "clocks": clocks_and_coins(together, n_shuffles, generator),
        "shared": beat(together, n_shuffles, generator),
        "own": beat(apart, n_shuffles, generator),
    }


# --- The memory -----------------------------------------------------------------------------------

# The hidden layers that chapter 13 compares; what is not said is as in `make_memory`.
MEMORIES: dict[str, dict[str, Any]] = {
    "feedforward": {},
    "slow leak": {"decay": 0.97},
    "feedback": {"delay": 1},
    "delayed feedback": {"delay": 8},
    "cut feedback": {"delay": 1, "cut": True},
    "ordinary": {"delay": 1},
}


# A loop multiplies gradients at each turn: now and then one is huge, and without the limit it undoes the training.
LOOPED: dict[str, Any] = {"batch_size": 100, "longest_gradient": 1.0}  # settings of `fit_adam`


POOLED = 7  # images of 28 x 28 are averaged to 7 x 7


def match_task(
    dataset: TensorDataset,
    n_trials: int,
    gap: int,
    seed: int,
    shown: int = 5,
    classes: Sequence[int] = (0, 1),
) -> TensorDataset:
    """Was the second digit of the same kind as the first? A delayed match to sample; derived in chapter 13.

    A digit is shown for `shown` steps, then nothing for `gap` steps, then another digit for `shown` steps,
    then two more steps of nothing, for the answer to arrive. Digits are averaged to 7 x 7, 0 for black to 1
    for white, and flicker. Half of the pairs match, by a coin; two images are the same one only by chance.

    Returns frames `[n_trials, 2 * shown + gap + 2, 49]` and labels `[n_trials]`, 1 for a match.

    Raises
    ------
    ValueError : for settings that do not fit, or classes that the data set lacks.
    """
    n_trials, shown, gap = whole("n_trials", n_trials), whole("shown", shown), whole("gap", gap, least=-(2**31))
    if gap < 0:
        raise ValueError(f"n_trials and shown must be 1 or more and gap 0 or more, not {n_trials}, {shown} and {gap}")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(
            "classes must name two labels or more, each once, or pairs of one label would not match, not"
            f" {list(classes)}"
        )
    generator = seeded(seed)
    small, labels = _small(dataset)
    members = [small[labels == label] for label in classes]
    if any(len(own) == 0 for own in members):
        raise ValueError(f"the data set lacks one of the classes {list(classes)}; it has {labels.unique().tolist()}")
    first = torch.randint(len(classes), (n_trials,), generator=generator, device="cpu")
    match = torch.randint(2, (n_trials,), generator=generator, device="cpu")
    other = (first + torch.randint(1, len(classes), (n_trials,), generator=generator, device="cpu")) % len(classes)
    second = torch.where(match == 1, first, other)
    frames = torch.zeros(2 * shown + gap + 2, n_trials, POOLED**2, device="cpu")
    for kinds, start in ((first, 0), (second, shown + gap)):
        places = torch.rand(n_trials, generator=generator, device="cpu")
        pictures = torch.stack([members[kind][int(place * len(members[kind]))] for kind, place in zip(kinds, places)])
        frames[start : start + shown] = flicker(pictures, shown, generator)
    return TensorDataset(frames.transpose(0, 1).contiguous(), match)


def _small(dataset: TensorDataset) -> tuple[Tensor, Tensor]:
    """Images as the memory task shows them, `[n, 49]`, 0 for black to 1 for white, and their labels."""
    images, labels = as_tensors(dataset, torch.device("cpu"))
    if floating("images", images).shape[1:].numel() != 28 * 28:
        raise ValueError(f"images must have 28 x 28 pixels, not the shape {list(images.shape[1:])}")
    return F.avg_pool2d(images.reshape(-1, 1, 28, 28) + 0.5, 28 // POOLED).flatten(1), labels


def make_memory(network: str, seed: int, gap: int, shown: int = 5, n_hidden: int = 64, **settings: Any) -> SequenceNet:
    """One of `MEMORIES`, 49-64-2, its initial weights drawn from the seed; it answers as it sees the second digit."""
    if network not in MEMORIES:
        raise ValueError(f"network must be one of {', '.join(map(repr, MEMORIES))}, not {network!r}")
    given: dict[str, Any] = (
        {"decay": 0.8, "threshold": 1.0, "penalty": 1.5, "reset": "scale"} | MEMORIES[network] | settings
    )
    kind = RecurrentSpikingLayer if "delay" in given else SpikingLayer
    if network == "ordinary":
        kind = OrdinaryRecurrentLayer
    generator = seeded(seed)
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
    n_listened: int = 0,
    n_shuffles: int = 19,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one of `MEMORIES` on the delayed match, and test it on other digits; recorded for chapter 13.

    `settings` go to the hidden layer. Trials of one seed and gap see the same pairs, whatever the network.
    Returns the network, the seed, the gap, `train_accuracy`, `test_accuracy` and the `rate` of the hidden
    layer in the middle of the gap (None without one), in spikes a step and neuron. With `n_listened` steps, also
    what `beat` finds while digits are shown, each neuron with a flicker of its own: `drawn`, before training,
    `trained`, after it, and `permuted`, if there is a loop, after it and with the loop's weights in another order.
    """
    device = pick_device(device)
    seen = match_task(train, n_train, gap, 2 * seed, shown)
    unseen = match_task(test, n_test, gap, 2 * seed + 1, shown)
    net = make_memory(network, seed, gap, shown, **settings).to(device)
    heard: dict[str, Any] = {}
    if n_listened:
        heard["drawn"] = listen_to_memory(net, test, n_listened, n_shuffles, seed)
    fit_adam(net, seen, seed=seed, learning_rate=learning_rate, epochs=epochs, **LOOPED, device=device)
    if n_listened:
        heard["trained"] = listen_to_memory(net, test, n_listened, n_shuffles, seed)
        if isinstance(net.hidden, RecurrentSpikingLayer):
            heard["permuted"] = listen_to_memory(with_permuted_loop(net, seed), test, n_listened, n_shuffles, seed)
    with torch.no_grad():
        outputs = net.hidden(unseen.tensors[0].to(device).transpose(0, 1))[1]
    middle = outputs[shown + gap // 2]
    return {
        "network": network,
        "seed": seed,
        "gap": gap,
        "train_accuracy": evaluate(net, seen).accuracy,
        "test_accuracy": evaluate(net, unseen).accuracy,
        "rate": round((middle > 0).double().mean().item(), 5) if gap else None,
        **heard,
    }


def with_permuted_loop(net: SequenceNet, seed: int) -> SequenceNet:
    """A copy whose recurrent weights are the same numbers, each at a place left to chance; recorded for chapter 13."""
    other: Any = deepcopy(net)
    weight: Tensor = other.hidden.recurrent.weight
    order = torch.randperm(weight.numel(), generator=seeded(seed), device="cpu").to(weight.device)
    with torch.no_grad():
        weight.copy_(weight.flatten()[order].view_as(weight))
    permuted: SequenceNet = other
    return permuted


def listen_to_memory(
    net: SequenceNet,
    dataset: TensorDataset,
    n_listened: int,
    n_shuffles: int,
    seed: int,
    classes: Sequence[int] = (0, 1),
    n_images: int = 10,
) -> dict[str, Any]:
    """What `beat` finds in the hidden layer, each neuron with a flicker of its own; from chapter 13.

    The first `n_images` of the classes are shown, all the time.
    """
    generator = seeded(seed)
    small, labels = _small(dataset)
    pixels = small[torch.isin(labels, torch.tensor(list(classes), device=labels.device))][:n_images]
    hidden = net.hidden
    outputs = hear(hidden, pixels.to(hidden.linear.weight.device), n_listened, generator, hidden.n_neurons)
    spikes = not isinstance(hidden, OrdinaryRecurrentLayer)
    active = outputs > 0 if spikes else outputs
    found = beat(active, n_shuffles, generator)
    return found | ({"rate": round(active.double().mean().item(), 5)} if spikes else {})


@without_autocast
@torch.no_grad()
def goes_round(
    net: SequenceNet,
    dataset: TensorDataset,
    n_steps: int = 1024,
    classes: Sequence[int] = (0, 1),
    n_images: int = 10,
) -> list[bool]:
    """For each image, does a layer of `tanh` units go round while its input stands still? Derived in chapter 13.

    The first `n_images` of the classes are shown, each at the mean of its flicker, without any noise. It goes round if
    in the last `SEGMENT` steps some unit still moves by more than 0.01, and at some frequency the power of all units,
    summed without regard to who is up and who is down, is at least `TWICE` that at the two slowest frequencies.
    """
    hidden = net.hidden
    if not isinstance(hidden, OrdinaryRecurrentLayer):
        raise TypeError(f"a steady input makes clocks of spiking neurons: give a layer of values, not {hidden!r:.80}")
    small, labels = _small(dataset)
    shown = small[torch.isin(labels, torch.tensor(list(classes), device=labels.device))][:n_images]
    currents = hidden.linear(shown.to(hidden.linear.weight.device) / 2)
    values = hidden.run(currents.expand(BURN_IN + n_steps, -1, -1))[1][BURN_IN:].double().cpu()
    last = values[-SEGMENT:]
    moves = (last.amax(dim=0) - last.amin(dim=0)).amax(dim=1) > 0.01
    alone = _spectra(values)[1]
    periodic = alone.amax(dim=0) >= TWICE * alone[:2].mean(dim=0)
    found: list[bool] = (moves & periodic).tolist()
    return found


# --- The records ----------------------------------------------------------------------------------


def measure_rhythm(**settings: Any) -> dict[str, Any]:
    """As `rhythm_trial`, trained on 5,000 digits of MNIST and tested on 2,000."""
    train, test = whole_mnist()
    return rhythm_trial(train=examples(train, 5000), test=examples(test, 2000), **settings)


def measure_memory(**settings: Any) -> dict[str, Any]:
    """As `memory_trial`, with pairs of digits of the whole of MNIST.

    At a gap of 12 the hidden layer is listened to, and with feedback at none, too.
    """
    train, test = whole_mnist()
    heard = settings["gap"] == GAP and settings["network"] != "cut feedback"
    heard |= settings["gap"] == 0 and settings["network"] in ("feedback", "delayed feedback")
    return memory_trial(train=train, test=test, n_listened=1024 if heard else 0, **settings)


def measure_memory_tuning(**settings: Any) -> dict[str, Any]:
    """As `memory_trial`, with pairs of 50,000 training digits, and of the 10,000 others as 'test'."""
    train, _ = whole_mnist()
    return memory_trial(train=examples(train, 50_000), test=examples(train, 50_000, 60_000), **settings)


GAP = 12  # at which the networks are tuned, and heard
CHANCE = 0.55  # chance and a little: with less nothing was learned
# Where the search for a learning rate starts. At the gap of 12 the feedforward layer learns with none: it is tuned
# at 8 as well.
TUNED: list[tuple[dict[str, Any], float]] = [
    ({"network": "feedforward", "reset": "scale", "gap": 8}, 0.01),
    ({"network": "feedforward", "reset": "scale", "gap": GAP}, 0.01),
    ({"network": "slow leak", "reset": "scale", "gap": GAP}, 0.027),
    ({"network": "feedback", "reset": "scale", "gap": GAP}, 0.022),
    ({"network": "delayed feedback", "reset": "scale", "gap": GAP}, 0.022),
    ({"network": "cut feedback", "reset": "scale", "gap": GAP}, 0.033),
    ({"network": "feedback", "reset": "discharge", "gap": GAP}, 0.01),
]


def best_rate(network: str, reset: str = "scale") -> float:
    """The learning rate of a network in `13_memory`: the best of `13_memory_tuning` at the gap of 12; from chapter 13.

    Where nothing is learned at that gap with any rate, it is the best at a gap of 8.
    """
    rows = load_results("13_memory_tuning")["trials"]
    for gap in (GAP, 8):
        scores = scores_of(rows, network=network, reset=reset, gap=gap)
        if max(means(scores).values(), default=0.0) > CHANCE:
            return choose(scores)
    raise ValueError(f"{network!r} with the reset {reset!r} has learned at no rate and no gap")


def memory_trials() -> list[dict[str, Any]]:
    """Each network at its rate, over the gaps; some at the gap of 12 alone. The ordinary one is not tuned."""
    scale = {"reset": "scale"}
    arms: list[tuple[dict[str, Any], Sequence[int]]] = [
        ({"network": name, **scale, "learning_rate": best_rate(name)}, (0, 8, GAP, 24))
        for name in ("feedforward", "slow leak", "feedback", "delayed feedback")
    ]
    arms += [
        ({"network": "cut feedback", **scale, "learning_rate": best_rate("cut feedback")}, (GAP,)),
        ({"network": "feedback", "reset": "discharge", "learning_rate": best_rate("feedback", "discharge")}, (GAP,)),
        ({"network": "ordinary", **scale, "learning_rate": 0.003}, (GAP,)),
    ]
    return [{**arm, "gap": gap, "seed": seed} for seed in range(5) for arm, gaps in arms for gap in gaps]


RECORDS: dict[str, Record] = {
    "13_rhythms": Record(
        "784-100-10, as drawn and after three epochs on 5,000 training images: the rhythm of the hidden layer over"
        " 1,024 steps, after a burn-in of 256, beside 19 shuffles",
        measure_rhythm,
        [{"reset": reset, "seed": seed} for seed in range(5) for reset in ("scale", "discharge")],
    ),
    "13_memory_tuning": Record(
        "49-64-2 on a delayed match of two digits, 15 epochs of Adam on 4,000 pairs of 50,000 training images, at other"
        " learning rates; the pairs of 'test' are those of 10,000 images held out",
        measure_memory_tuning,
        partial(tuning_trials, "13_memory_tuning", TUNED, floor=CHANCE),
    ),
    "13_memory": Record(
        "49-64-2 on a delayed match of two digits, 15 epochs of Adam on 4,000 pairs, each at its best learning rate of"
        " 13_memory_tuning: layers with and without feedback, for each gap, and the rhythm of the hidden layer",
        measure_memory,
        memory_trials,
    ),
}
