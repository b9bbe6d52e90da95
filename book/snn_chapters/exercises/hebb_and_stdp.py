"""The checks of chapter 5's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snn_helpers.long.exercise import Check, NotYet, ask, number, tensor
from snn_helpers.statistics import mean_and_interval

check = Check()


@check.exercise(1)
def without_a_brake(answer: Any) -> str:
    """A weight of 0.1 after ten presentations of the input 2 under Hebb's rule, at a learning rate of 0.05."""
    found = number("grown_weight", answer)
    weight = 0.1
    for _ in range(10):
        weight += 0.05 * (weight * 2) * 2
    _compare(
        found,
        weight,
        2e-3,
        {
            "it grows by the same amount each time; but a larger weight makes a larger output": 0.1 + 10 * 0.05 * 0.4,
            "the input counts twice: in the output, and once more in the rule": 0.1 * 1.1**10,
            "one presentation is missing": 0.1 * 1.2**9,
            "that is one presentation too many": 0.1 * 1.2**11,
            "that is how many times as large it is; it began at 0.1": 1.2**10,
            "that is by how much it has grown; the weight itself is asked for": weight - 0.1,
            "it shrinks; Hebb's rule adds": 0.1 * 0.8**10,
        },
        "follow the first two presentations by hand: by which factor does each multiply the weight?",
    )
    return "Each presentation multiplies the weight by the same number above 1: that is exponential growth."


def _compare(found: float, right: float, tolerance: float, mistakes: dict[str, float], otherwise: str) -> None:
    """`found` is right to within a share `tolerance`, or a mistake that has a name, or something else."""
    if abs(found - right) <= tolerance * abs(right):
        return
    for words, mistake in mistakes.items():
        if abs(found - mistake) <= tolerance * abs(mistake) + 1e-12:
            raise NotYet(words)
    raise NotYet(f"{found:g} is not it: {otherwise}")


@check.exercise(2)
def four_pairs(answer: Any, a_plus: float, a_minus: float, tau_plus: float, tau_minus: float) -> str:
    """The change by pre spikes at 10 and 30 and post spikes at 15 and 25."""
    found = number("by_hand", answer)
    delays = [post - pre for post in (15, 25) for pre in (10, 30)]
    up = sum(math.exp(-d / tau_plus) for d in delays if d > 0)
    down = sum(math.exp(d / tau_minus) for d in delays if d < 0)
    swapped = a_plus * sum(math.exp(d / tau_plus) for d in delays if d < 0)
    swapped -= a_minus * sum(math.exp(-d / tau_minus) for d in delays if d > 0)
    nearest = a_plus * (math.exp(-5 / tau_plus) + math.exp(-15 / tau_plus)) - a_minus * math.exp(-5 / tau_minus)
    _compare(
        found,
        a_plus * up - a_minus * down,
        4e-3,
        {
            "the pairs in which post comes first are missing: the second pre spike has two": a_plus * up,
            "the pairs in which pre comes first are missing": -a_minus * down,
            "the pairs in which post comes first weaken: look at their sign": a_plus * up + a_minus * down,
            "the sign is turned round: pre before post strengthens": a_minus * down - a_plus * up,
            "the two sides of the window look swapped: the delay is t_post - t_pre": swapped,
            "each side has its own amplitude, and yours has none": up - down,
            "each side has its own time constant": a_plus * up
            - a_minus * sum(math.exp(d / tau_plus) for d in delays if d < 0),
            "every pair counts here, not only each spike with its nearest": nearest,
            "add the four up; yours is their mean": (a_plus * up - a_minus * down) / 4,
            "both sides fade with the size of the delay: look at the sign in the exponent": a_plus * up
            - a_minus * sum(math.exp(-d / tau_minus) for d in delays if d < 0),
            "the two time constants are in each other's place": a_plus
            * sum(math.exp(-d / tau_minus) for d in delays if d > 0)
            - a_minus * sum(math.exp(d / tau_plus) for d in delays if d < 0),
        },
        "write down the four delays with their signs, and then one term for each",
    )
    return "By pairs, as the formula has it. The next section does it without looking at pairs."


@check.exercise(3)
def potentiation(answer: Any, a_plus: float, tau_plus: float) -> str:
    """The potentiation of random trains, with simultaneous spikes, against the sum over all pairs."""
    generator = torch.Generator().manual_seed(30)
    for _ in range(3):
        size, tau = (low + 2 * torch.rand((), generator=generator).item() for low in (0.3, 4.0))
        pre, post = ((torch.rand(60, generator=generator) < 0.25).double() for _ in range(2))
        pre[[3, 20]] = post[[20, 41]] = 1.0
        found = number("potentiation(...)", ask("potentiation", answer, pre, post, size, tau))
        right = _by_pairs(pre, post, size, tau)
        if abs(found - right) > 1e-4 * right:
            raise NotYet(_of_potentiation(found, pre, post, size, tau, (a_plus, tau_plus)))
    return "One number for each neuron remembers all its spikes. Depression is the same with the sides swapped."


def _by_pairs(pre: Tensor, post: Tensor, size: float, tau: float, more: int = 0, same: bool = False) -> float:
    """The sum over all pairs with pre first; `same` counts the same step, `more` adds to each delay."""
    times = [train.nonzero().flatten().tolist() for train in (pre, post)]
    least = 0 if same else 1
    return sum(size * math.exp(-(q - p + more) / tau) for p in times[0] for q in times[1] if q - p >= least)


def _of_potentiation(
    found: float, pre: Tensor, post: Tensor, size: float, tau: float, of_notebook: tuple[float, float]
) -> str:
    euler = -1 / math.log(1 - 1 / tau)
    nearest = 0.0
    for t in post.nonzero().flatten().tolist():
        before = pre[:t].nonzero().flatten().tolist()
        nearest += size * math.exp(-(t - before[-1]) / tau) if before else 0.0
    mistakes = {
        "spikes in one and the same step are counted as a pair: the spike must read the trace before that step": (
            _by_pairs(pre, post, size, tau, same=True)
        ),
        "pre and post are in each other's place": _by_pairs(post, pre, size, tau),
        "the trace fades once too often": _by_pairs(pre, post, size, tau, more=1),
        "the trace fades once too seldom": _by_pairs(pre, post, size, tau, more=-1),
        "a_plus is missing": _by_pairs(pre, post, 1.0, tau),
        "it strengthens: look at the sign": -_by_pairs(pre, post, size, tau),
        "the trace keeps exp(-1 / tau) of itself, not 1 - 1 / tau": _by_pairs(pre, post, size, euler),
        "a pre spike adds to the trace; yours replaces what was there": nearest,
        "does it take the notebook's a_plus and tau_plus instead of those it is given?": _by_pairs(
            pre, post, *of_notebook
        ),
        "is the notebook's tau_plus, or a number, in place of the tau_plus that it is given?": _by_pairs(
            pre, post, size, of_notebook[1]
        ),
        "a_plus counts once for a pair, and yours twice": _by_pairs(pre, post, size**2, tau),
        "add the changes up; yours is their mean over the steps": _by_pairs(pre, post, size, tau) / len(pre),
        "post reads the trace and leaves it as it is; yours begins anew": _cleared(pre, post, size, tau),
        "only in a step in which post fires does the weight change": _by_pairs(pre, torch.ones_like(post), size, tau),
        "only the last step's change is left: add the changes up": _by_pairs(pre, post * 0 + _last(post), size, tau),
    }
    for words, mistake in mistakes.items():
        if abs(found - mistake) <= 1e-6 * abs(mistake) + 1e-12:
            return words
    return "it differs from the sum over all pairs with pre first. What does the trace hold when post fires?"


def _cleared(pre: Tensor, post: Tensor, size: float, tau: float) -> float:
    left = total = 0.0
    for arrived, fired in zip(pre.tolist(), post.tolist()):
        left *= math.exp(-1 / tau)
        total += size * fired * left
        left = 0.0 if fired else left + arrived
    return total


def _last(train: Tensor) -> Tensor:
    only = torch.zeros_like(train)
    only[train.nonzero().max()] = 1.0
    return only


@check.exercise(4)
def next_pairing(answer: Any) -> str:
    """The delay between a post spike and the pre spike of the next pairing: interval 20, delay +10."""
    found = number("next_delay", answer, whole=True)
    messages = {
        10: "the size is right. Which of the two spikes comes first?",
        30: "that is a pre spike of a pairing before; the next one comes later",
        -30: "the post spike comes 10 steps after its own pre spike: how far is it then to the next pre spike?",
        20: "that is the interval from one pairing to the next",
        -20: "that is the interval from one pairing to the next, between two pre spikes",
        0: "0 would be the same step",
    }
    if found != -10:
        raise NotYet(messages.get(round(found), "draw the two pairings on a line of time: when do they fire?"))
    return "So each post spike is in pairs on both sides of the window. With all pairs, the wider side collects more."


@check.exercise(5)
def balance(answer: Any, a_plus: float, tau_plus: float, tau_minus: float) -> str:
    """The depression at which the two areas are equal, in discrete time."""
    found = number("balanced_a_minus", answer)
    if found <= 0:
        raise NotYet("the rule subtracts it already, so it should be positive")
    area = {tau: 1 / math.expm1(1 / tau) for tau in (tau_plus, tau_minus)}
    right = a_plus * area[tau_plus] / area[tau_minus]
    _compare(
        found,
        right,
        2e-4,
        {
            "this is the continuous-time answer: in discrete time the delays are 1, 2, 3, …": a_plus
            * tau_plus
            / tau_minus,
            "that is the other way round: the wider side needs the smaller amplitude": a_plus**2 / right,
            "the sum begins at a delay of 1; two spikes in the same step count for nothing": a_plus
            * math.expm1(-1 / tau_minus)
            / math.expm1(-1 / tau_plus),
            "that takes τ - ½ for the area, which is close; the series itself is asked for": a_plus
            * (tau_plus - 0.5)
            / (tau_minus - 0.5),
        },
        f"the area below zero would be {'smaller' if found < right else 'larger'} than the one above",
    )
    return "The balance holds at every rate, as long as all pairs count and the trains are long."


@check.exercise(6)
def other_half(rule: Any, ahead: Any, **given: Any) -> str:
    """The rule on random weights and sums, and then what a run of the competition with it finds."""
    generator = torch.Generator().manual_seed(60)
    for _ in range(3):
        weights = 0.05 + 0.1 * torch.rand(4, 40, generator=generator, dtype=torch.float64)
        names = ("spikes", "by_rates", "together", "pre_first", "post_first", "either_order")
        seen = {name: 20 * torch.rand(4, 40, generator=generator, dtype=torch.float64) for name in names}
        # A few lose all that they have, and more: a rule that cuts weights off at zero is another one.
        seen["post_first"][:, 3::10] += 100 / given["a_minus"]
        found = tensor("other_half(w, s)", ask("other_half", rule, weights, seen), [4, 40])
        if not torch.allclose(found, _held(weights - 0.002 * given["a_minus"] * seen["post_first"]), atol=1e-7):
            raise NotYet(_of_rule(found, weights, seen, given["a_minus"]))
    generator, compete = given["generator"], given["compete"]
    kept = generator.get_state()

    def in_competition(**settings: str) -> Tensor:
        weights: Tensor = compete({"other half": rule}, given["lead"], **settings)[-1, 0]
        generator.set_state(kept)
        return weights[:, :20].mean(dim=1) - weights[:, 20:].mean(dim=1)

    right = in_competition(reset="subtract")
    if isinstance(ahead, Tensor) and ahead.dim() > 1 and ahead.numel() == len(right):
        ahead = ahead.flatten()
    told = tensor("ahead", ahead, [len(right)])
    if not torch.allclose(told, right, atol=6e-3):
        mistakes: dict[str, Callable[[], Tensor]] = {
            "ahead is that of the followers: leaders less followers, please": lambda: -right,
            "ahead is a difference of sums; the means are asked for": lambda: 20 * right,
            "ahead is a hundred times as large: weights are no percentages": lambda: 100 * right,
            "that is the neuron that rests; run the other one": in_competition,
        }
        for words, mistake in mistakes.items():
            if torch.allclose(told, mistake(), atol=6e-3):
                raise NotYet(words)
        raise NotYet("ahead comes out otherwise here: is it from the last weights of your rule, at `lead`?")
    mean, half = mean_and_interval(told)
    if mean - half > 0.02:
        return "It finds the leaders with no potentiation at all: either half has a direction."
    return "With these settings it is open who leads; with those of the chapter the leaders win."


def _held(weights: Tensor) -> Tensor:
    return weights * (40 * 0.1 / weights.sum(dim=-1, keepdim=True))


def _of_rule(found: Tensor, weights: Tensor, seen: dict[str, Tensor], a_minus: float) -> str:
    step = 0.002 * seen["post_first"]
    mistakes: dict[str, Callable[[], Tensor]] = {
        "the sum of the weights is not held": lambda: weights - a_minus * step,
        "pairs with post first should weaken; yours strengthen": lambda: _held(weights + a_minus * step),
        "that is the half with pre first; the other one is asked for": lambda: _held(
            weights + 0.002 * seen["pre_first"]
        ),
        "it is the half with post first that weakens; yours takes the other sum": lambda: _held(
            weights - 0.002 * a_minus * seen["pre_first"]
        ),
        "the amplitude a_minus is missing": lambda: _held(weights - step),
        "the learning rate of 0.002 is missing": lambda: _held(weights - a_minus * seen["post_first"]),
        "hold the sum of the new weights, not that of the old ones": lambda: _held(weights) - a_minus * step,
        "each set of trains has its own sum to hold: along which dimension do you add?": lambda: (
            4 * (weights - a_minus * step) / (weights - a_minus * step).sum()
        ),
        "the half with pre first is still there; keep depression alone": lambda: _held(
            weights + 0.002 * seen["pre_first"] - a_minus * step
        ),
        "weights below zero are cut off in yours; the task says nothing of that": lambda: _held(
            (weights - a_minus * step).clamp(min=0)
        ),
        "it returns the change; a rule returns the new weights": lambda: -a_minus * step,
    }
    for words, mistake in mistakes.items():
        if torch.allclose(found, mistake(), atol=1e-7):
            return words
    return "on random weights and sums it differs from weights that lose what post_first takes, their sum then held"


@check.exercise(7)
def critical_rate(answer: Any, rate_pre: float, **rule: float) -> str:
    """The postsynaptic rate at which nearest neighbours neither gain nor lose, to 10 %."""

    def drift(rate_post: float) -> float:
        gain = rule["a_plus"] * _mean_read(rate_pre, rule["tau_plus"])
        return rate_post * gain - rate_pre * rule["a_minus"] * _mean_read(rate_post, rule["tau_minus"])

    if drift(1e-6) > 0 or drift(0.999) < 0:
        return "With this rule there is no such rate, so every answer passes: set the parameters back to try."
    found = number("critical_rate", answer, what="a rate")
    if found <= 0:
        raise NotYet("a rate is above 0. Which side loses more when post is slow?")
    if found >= 1:
        raise NotYet(f"{found:.3g} is no rate in spikes a step: is it in Hz?")
    if drift(0.9 * found) > 0:
        raise NotYet("too high: at a rate 10 % below this one the weights grow already")
    if drift(1.1 * found) < 0:
        raise NotYet("too low: at a rate 10 % above this one the weights still shrink")
    return "With nearest neighbours the verdict on noise depends on the rates, and not on the areas alone."


def _mean_read(rate: float, tau: float) -> float:
    """What a spike reads, on average, from the other side's nearest-neighbour trace."""
    d = torch.arange(1, 5000, dtype=torch.float64)
    return float((rate * (1 - rate) ** (d - 1) * torch.exp(-d / tau)).sum())
