"""The checks of chapter 7's exercises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_chapters.perturbation import NoisyNeuron, autograd_window, density_window
from snn_helpers.long.exercise import Check, NotYet, ask, number

check = Check()


def _near(one: float, other: float, share: float = 1e-4) -> bool:
    return abs(one - other) <= share * max(abs(other), 1e-3)


@check.exercise(1)
def slope_and_error(answer: Any) -> str:
    """The slope by a difference under common random numbers, and its standard error, on made-up trials."""
    generator = torch.Generator().manual_seed(71)
    for n, size, sign in ((50, 0.05, 1), (400, 0.2, -1), (900, 0.5, 1)):
        noise, effect = torch.randn(2, n, generator=generator, dtype=torch.float64)
        up, down = 2 * noise, 2 * noise - 2 * size * sign * (1.5 + 2 * effect)
        given = ask("slope_and_error", answer, up, down, size)
        alone = isinstance(given, (Tensor, np.ndarray)) and given.ndim == 0
        if alone or not isinstance(given, (tuple, list, Tensor, np.ndarray)) or len(given) != 2:
            raise NotYet("slope_and_error should return two numbers, the slope and its error: return slope, error")
        slope = number("the slope", given[0])
        _of_slope(slope, up, down, size)
        _of_error(number("the error", given[1], 0, what="an error"), up, down, size)
    return "The noise of the trials is 2, and has dropped out: it is the same in both runs."


def _of_slope(slope: float, up: Tensor, down: Tensor, size: float) -> None:
    true = ((up - down).mean() / (2 * size)).item()
    mistakes = {
        "the slope is twice too large: from the one run to the other the pulse changes by more than `size`": 2 * true,
        "the sign of the slope is turned: a larger output with the larger pulse is a slope above 0": -true,
        "the slope is summed over the trials; it should be their mean": true * len(up),
        "the slope is a change per unit of pulse: divide by what the pulse has changed by": 2 * size * true,
        "the slope is half of the difference so far, and should be per unit of pulse": size * true,
    }
    for words, value in mistakes.items():
        if _near(slope, value) and not _near(slope, true):
            raise NotYet(words)
    if not _near(slope, true, 1e-3):
        raise NotYet("the slope is not the mean change of the output per unit of pulse")


def _of_error(error: float, up: Tensor, down: Tensor, size: float) -> None:
    n = len(up)
    spread = ((up - down).std() / (2 * size)).item()
    true = spread / math.sqrt(n)
    alone = ((up.var() + down.var()).sqrt() / math.sqrt(n) / (2 * size)).item()
    mistakes = {
        "the error is the spread of single trials; the mean of n trials is known better": spread,
        "the error takes the two runs for independent ones, and they share their noise: take the spread of the"
        " differences, trial by trial": alone,
        "the error is divided by n, and falls with the root of n only": spread / n,
        "the slope is per unit of pulse, the error not yet": 2 * size * true,
        "that is twice the standard error: either the half-width of a 95 % interval, or divided by `size` alone": (
            2 * true
        ),
        "that is a variance; the error is its root": true**2,
    }
    if _near(error, true, 0.015):
        return
    for words, value in mistakes.items():
        if _near(error, value, 0.025):
            raise NotYet(words)
    raise NotYet("the slope is right, the error is not the standard error of that mean")


@check.exercise(2)
def missed(answer: Any) -> str:
    """The missing term for a density of 0.8 and a current without noise."""
    found = number("missed", answer)
    wanted = -0.8 * (0.3 + 0.9 - 1)
    if abs(found - wanted) <= 1e-3:
        return "Autograd's window is too high by that much, one step later, because of the few trials at the threshold."
    if found > 0:
        raise NotYet("the spike takes output away: the missing term is below zero")
    if abs(found + 0.2) < 1e-3:
        raise NotYet(
            "this is what one trial loses: how many trials does a small pulse lift over the threshold? The density says"
        )
    if abs(found + 0.8 * 1.2) < 1e-3:
        raise NotYet("the output is what is above the threshold, not the whole charge")
    if abs(found + 0.8 * 0.3) < 1e-3:
        raise NotYet("of the charge, which lay at the threshold, neither all nor nothing is there at the next step")
    if found == 0:
        raise NotYet("the trials that the pulse lifts over the threshold lose their next output")
    raise NotYet(
        "how far above the threshold would the next charge be, without the spike? And with it? The difference of the"
        " two outputs counts, for the share of trials that the density gives"
    )


@check.exercise(3)
def unexplained(answer: Any) -> str:
    """What a derivative leaves of a change, on made-up lines with jumps, whose points are unevenly spaced."""
    generator = torch.Generator().manual_seed(73)
    for low, high, jumps in ((-0.1, 0.1, (0.5,)), (0.9, 1.6, (0.7, -0.3)), (0.0, 2.0, (-0.4,)), (0.0, 1.0, ())):
        scales = low + (high - low) * torch.rand(400, generator=generator, dtype=torch.float64).sort().values ** 3
        scales[0], scales[-1] = low, high
        smooth = torch.sin(2 * scales) + scales**2
        slopes = 2 * torch.cos(2 * scales) + 2 * scales
        losses = smooth.clone()
        for k, jump in enumerate(jumps):
            losses += jump * (scales > low + (high - low) * (0.2 + 0.45 * k))
        found = number("unexplained(...)", ask("unexplained", answer, scales, losses, slopes))
        change, integral = (losses[-1] - losses[0]).item(), torch.trapezoid(slopes, scales).item()
        if abs(found - sum(jumps)) < 0.02:
            continue
        spacing = (high - low) / (len(scales) - 1)
        mistakes = {
            "the sign is turned: it is the change of the loss less what the derivative explains, below zero"
            " where the loss jumps down": integral - change,
            "this is the whole change of the loss: what of it does the derivative explain?": change,
            "this is what the derivative adds up to: how much of the loss's change does it leave?": integral,
            "the points are not equally far apart: each slope counts for the distance to its neighbour": (
                change - slopes.sum().item() * spacing
            ),
            "a slope counts for a length of the line, and yours are added up as they are": change - slopes.sum().item(),
            "this is a share; the amount is wanted": 1 - integral / change,
        }
        for words, value in mistakes.items():
            if abs(found - value) < 1e-3 * max(1, abs(value)):
                raise NotYet(words)
        raise NotYet("on a line with jumps of known height, this is not what the derivative leaves of the change")
    return "It has found the jumps without looking at a single one; where there is none, it finds nothing."


@check.exercise(4)
def real_fall(answer: Any) -> str:
    """How much a step by a gradient of another length and direction lowers the loss, to first order."""
    found = number("real_fall", answer)
    mistakes = {
        16.0: "that is what autograd promises: it takes its own gradient for the loss's",
        6.0: "only the part of the step that points along the loss's gradient counts",
        2.0: "how steep is the loss itself? Its gradient has a length, too",
        0.75: "how far does the step go? It is as long as autograd's gradient",
        2.25: "that is what a step by the loss's own gradient would get; this one goes another way, and further",
        -3.0: "the size is right; by how much it falls is a number above zero",
        4 * 1.5 * math.cos(0.5): "0.5 is the cosine itself, not the angle",
        8.0: "two gradients meet here: the one that the step is made of, and the one that the loss has",
    }
    if abs(found - 3.0) <= 1e-2:
        return "Autograd promises 16: too steep by far, and downhill all the same. So it can teach."
    for value, words in mistakes.items():
        if abs(found - value) < 1e-2:
            raise NotYet(words)
    raise NotYet(
        "a slope along a step is the scalar product of the loss's gradient and the step: two lengths and a cosine"
    )


@check.exercise(5)
def sure_mean(answer: Any) -> str:
    """A mean current at which the neuron fires and autograd's window is right."""
    mean = number("sure_mean", answer, -1e4, 1e4, what="a current that a neuron can bear")
    sure = NoisyNeuron(mean=mean, reset="discharge")
    at_spikes = autograd_window(sure, 4, 2000, 0).mean
    if at_spikes[0] <= 0.05:
        raise NotYet(
            f"at a mean of {mean:g} the neuron fires in {at_spikes[0]:.1%} of the steps only: with no spike there is"
            " nothing to move"
        )
    worst = (density_window(sure, 4) - at_spikes).abs().max().item()
    if worst >= 0.01:
        raise NotYet(
            f"at a mean of {mean:g} autograd is {worst:.3f} off at some delay: some charges still lie near the"
            " threshold"
        )
    return "There each spike is sure to come, and only its size can change: that much autograd sees."


def _counted(answer: Any, reset: str) -> tuple[Any, int]:
    """What the function answers, and how often it calls the notebook's `neuron_step`: 0 if it has other means."""
    known = getattr(answer, "__globals__", {})
    step = known.get("neuron_step")
    if step is None:
        return ask("gain", answer, reset), 0
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return step(*arguments, **named)

    known["neuron_step"] = counted
    try:
        told = ask("gain", answer, reset)
    finally:
        known["neuron_step"] = step
    return told, calls


@check.exercise(6)
def gain(answer: Any) -> str:
    """The rise of the mean output per unit of mean current, for three resets, against the whole window's sum."""
    found: dict[str, float] = {}
    apart, n_steps = 0.0, 0
    for reset in ("scale", "subtract", "zero"):
        told, n_steps = _counted(answer, reset)
        yours = number("gain(...)", told)
        right = density_window(NoisyNeuron(reset=reset), 50).sum().item()
        held = autograd_window(NoisyNeuron(reset=reset), 50, 2000, 0).mean.sum().item()
        found[reset] = yours
        if abs(yours - right) < 0.03:
            apart += (yours - right) / 3
            continue
        if abs(yours - held) < 0.06:
            raise NotYet(
                "that is about what autograd says, with the spikes held in place. No derivative is to be taken here,"
                " and an output is the size of a spike, not their number"
            )
        if len(found) > 1 and abs(yours - found["scale"]) < 1e-6:
            raise NotYet(f'the reset "{reset}" gets the same answer as "scale": hand `reset` on to the neuron')
        mistakes = {
            "it is the mean output *per step*: divide the sum by the number of steps that you read": 10 * right,
            "it is the rise per unit of mean current: divide by how far the two means lie apart": 0.04 * right,
            "the two means lie further apart than what you divide by": 2 * right,
            "the sign is turned: more current, more output": -right,
        }
        for words, value in mistakes.items():
            if abs(yours - value) < 0.1 * max(abs(value), 0.02):
                raise NotYet(words)
        raise NotYet(
            f'with the reset "{reset}" this is not by how much the mean output rises: is the noise the same in both'
            " runs, are the first 50 steps left out, and is the difference divided by that of the two means?"
        )
    # Without the 50 steps all three are a little too small, by more than many neurons' noise.
    if apart < -0.0065 and 0 < n_steps < 50:
        raise NotYet(
            "that is near, and a little too small for each reset, as for neurons that have only just begun: let them"
            " warm up for 50 steps, and read the steps after them"
        )
    return "No derivative was taken: two runs and a difference, and the spikes were free to move."


@check.exercise(7)
def score_slope(answer: Any) -> str:
    """The slope of a mean reward by the charge, from trials alone, against the exact one."""
    generator = torch.Generator().manual_seed(77)
    n = 200_000
    for threshold, temperature, with_spike, without in (
        (1.0, 0.3, 2.0, 0.5),
        (1.6, 0.5, -0.4, 1.0),
        (0.5, 0.8, 1.5, 2.5),
    ):
        charges = threshold + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
        p = torch.sigmoid((charges - threshold) / temperature)
        fired = (torch.rand(n, generator=generator, dtype=torch.float64) < p).double()
        rewards = torch.where(fired > 0, with_spike, without)
        rewards = rewards + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
        answered = ask("score_slope", answer, rewards, fired, charges, threshold, temperature)
        if isinstance(answered, Tensor) and answered.shape == (n,):
            raise NotYet("this is one number for each trial: take their mean")
        yours = number("score_slope(...)", answered)
        true = (p * (1 - p) / temperature).mean().item() * (with_spike - without)
        surprise = fired - p
        if abs(yours - true) < 5 * (rewards * surprise).std().item() / temperature / math.sqrt(n):
            continue
        unscaled = torch.sigmoid(charges - threshold)
        mistakes = {
            "the temperature is missing in front: how fast the probability changes depends on it": (rewards * surprise),
            "the sign of the surprise is turned: it is above zero where the neuron fired": (
                -rewards * surprise / temperature
            ),
            "a spike that was sure to come is no surprise: take off how likely it was": (rewards * fired / temperature),
            "how likely a spike was differs from trial to trial: the charge of each trial says it": (
                rewards * (fired - fired.mean()) / temperature
            ),
            "that is the probability of no spike: with more charge a spike is more likely": (
                rewards * (fired - (1 - p)) / temperature
            ),
            "that probability knows no threshold": (
                rewards * (fired - torch.sigmoid(charges / temperature)) / temperature
            ),
            "that probability knows no temperature": rewards * (fired - unscaled) / temperature,
            "each reward is weighed with the slope of the probability, whether the neuron fired or not: a reward must"
            " meet the surprise of its own trial": rewards * p * (1 - p) / temperature,
            "that is how likely spikes are to change; where are the rewards?": p * (1 - p) / temperature,
            "the surprise alone is zero in the mean: where are the rewards?": surprise / temperature,
        }
        for words, mistake in mistakes.items():
            if abs(yours - mistake.mean().item()) < 1e-3:
                raise NotYet(words)
        if abs(yours - (rewards * surprise / temperature).sum().item()) < 1:
            raise NotYet("that is a sum over the trials; the mean is wanted")
        raise NotYet("over 200,000 trials this is not near the slope of the mean reward")
    return "It was found from rewards and spikes alone: nothing was differentiated but the probability to fire."
