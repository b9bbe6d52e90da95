"""The checks of chapter 6's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from snn_helpers import neuron_step
from snn_helpers.long.exercise import Check, NotYet, ask, number
from snn_helpers.plasticity import gradient_window

check = Check()


def _named(found: float, mistakes: dict[str, float], tolerance: float = 1e-9) -> str | None:
    """The words for a mistake that gives this number."""
    for words, mistake in mistakes.items():
        if abs(found - mistake) <= (tolerance * max(1.0, abs(mistake)) if mistake else 1e-9):
            return words
    return None


@check.exercise(1)
def two_spikes_on_the_way(answer: Any, decay: float, threshold: float, penalty: float) -> str:
    """The credit of a pulse seven steps before, with spikes three and five steps before, against autograd."""
    found = number("by_hand", answer)
    right = gradient_window([7], [3, 5], decay, threshold, penalty, "scale").item()
    if abs(found - right) > max(2e-3 * abs(right), 5e-7):
        slope = 1 - penalty / threshold
        if abs(found - right) < 6e-3 * abs(right):
            raise NotYet("that is close: give three digits or more")
        raise NotYet(
            _named(
                found,
                {
                    "this is the leak alone: each spike on the way is a factor of its own": decay**7,
                    "there are two spikes on the way, not one": decay**7 * slope,
                    "only two spikes lie between the pulse and the spike that pays": decay**7 * slope**3,
                    "the leak acts in all seven steps, in those with a spike, too": decay**5 * slope**2,
                    "the leak is missing": slope**2,
                    "two spikes multiply; yours add": decay**7 * 2 * slope,
                    "the slope is what is left, not the share that the spike takes": decay**7
                    * (penalty / threshold) ** 2,
                    "the penalty counts in units of the threshold": decay**7 * (1 - penalty) ** 2,
                    "the reset of the task is the one of the article's code": 0.0,
                    "two slopes of the same sign: what is the sign of their product?": -right,
                },
                2e-4,
            )
            or f"{found:g} is not what autograd finds: how many steps leak, and how many spikes are crossed?"
        )
    return "Two slopes multiply: whatever the penalty, an even number of spikes on the way never turns the sign."


@check.exercise(2)
def fourth_step(answer: Any) -> str:
    """The eligibility of a fourth step with the input 0.5, after the three steps of the example."""
    found = number("fourth_eligibility", answer)
    before = 1.045
    if abs(found - (0.5 + 0.9 * -0.5 * before)) > 6e-4:
        raise NotYet(
            _named(
                found,
                {
                    "step 3 fired: its reset has a slope": 0.5 + 0.9 * before,
                    "the leak is missing": 0.5 - 0.5 * before,
                    "the input of the step itself is missing": -0.45 * before,
                    "look at the sign of the slope": 0.5 + 0.45 * before,
                    "that goes on from step 2; step 3 is in between": 0.5 - 0.45 * 0.05,
                    'that is the reset "discharge"': 0.5,
                    "that goes on from the charge, or the state, of step 3, and not from its eligibility": (
                        0.5 - 0.45 * 2.09
                    ),
                    "the slope of step 4 comes after its own eligibility": -0.5 * (0.5 - 0.45 * before),
                },
                2e-4,
            )
            or f"{found:g} is not it: what comes in now, and by what is the eligibility of step 3 multiplied?"
        )
    return "The spike at step 3 has turned what was gathered, so the new input nearly cancels it."


@check.exercise(3)
def how_far(answer: Any) -> str:
    """The weight from which on step 2 of the example fires under "discharge"."""
    found = number("largest_weight", answer)
    if abs(found - 2.9) <= 0.011:
        return "From 2 up to there the loss is a straight line. There it jumps, and goes on with another slope."
    words = _named(
        found,
        {
            "step 1 leaves the neuron below zero, and step 2 has to make up for it": 2.0,
            "at 3 step 2 fires already; where does that begin?": 3.0,
            'that is for the reset "scale"': 20.0,
            "the state that step 1 leaves leaks before it reaches step 2": 3.0,
            "is the state after a spike threshold - penalty?": 2.0 * (1 - 0.9 * 0.5),
            "the charge must reach the threshold, not zero": 0.9,
        },
        2e-3,
    )
    if words is None:
        charge = 0.5 * found - 0.45
        words = f"at w = {found:g} the charge of step 2 is {charge:.3f}: "
        words += "it fires already" if charge > 1 else "the neuron could take more before step 2 fires"
    raise NotYet(words)


@check.exercise(4)
def by_three_factors(answer: Any) -> str:
    """The derivative of random sums of outputs by the weight of a neuron's synapse, against autograd."""
    generator = torch.Generator().manual_seed(40)
    for _ in range(4):
        draws = torch.rand(3, generator=generator).tolist()
        told = 0.5 + 0.45 * draws[0], 0.7 + draws[1], 0.4 + 2 * draws[2]
        inputs = torch.rand(14, generator=generator, dtype=torch.float64)
        costs = torch.randn(14, generator=generator, dtype=torch.float64)
        weight = 1.0 + 2 * torch.rand((), generator=generator).item()
        found = number("derivative(...)", ask("derivative", answer, weight, inputs, costs, *told))
        right = _through_time(weight, inputs.tolist(), costs.tolist(), *told, reset="scale")
        if abs(found - right) > 1e-5 * max(1.0, abs(right)):  # float32 will do
            raise NotYet(_of_derivative(found, weight, inputs.tolist(), costs.tolist(), told))
    return "No step looked back: what the past is worth is in one number, the eligibility."


Told = tuple[float, float, float]


def _through_time(
    weight: float,
    inputs: list[float],
    costs: list[float],
    decay: float,
    threshold: float,
    penalty: float,
    reset: str,
    last_only: bool = False,
) -> float:
    """The derivative by autograd, through all steps."""
    w = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    state, loss = torch.zeros_like(w), torch.zeros_like(w)
    for t, (x, cost) in enumerate(zip(inputs, costs)):
        output, state = neuron_step(w * x + decay * state, torch.zeros_like(w), 0.0, threshold, penalty, reset)
        loss = loss + (0.0 if last_only and t < len(inputs) - 1 else cost) * output
    (gradient,) = torch.autograd.grad(loss, w)
    return float(gradient)


def _of_derivative(found: float, weight: float, inputs: list[float], costs: list[float], told: Told) -> str:
    mistakes: dict[str, Callable[[], float]] = {
        "a step in which the neuron is silent has no learning signal: its output is flat there": lambda: _wrongly(
            weight, inputs, costs, told, silent=True
        ),
        "the resets are missing: a spike multiplies the eligibility of the next step by its slope": lambda: _wrongly(
            weight, inputs, costs, told, crossed=False
        ),
        "the slope of a spike acts from the next step on; yours acts at once": lambda: _wrongly(
            weight, inputs, costs, told, at_once=True
        ),
        "the leak of the eligibility is missing": lambda: _wrongly(weight, inputs, costs, told, leaks=False),
        "the eligibility keeps what it had; yours is the input of the step alone": lambda: _wrongly(
            weight, inputs, costs, told, keeps=False
        ),
        'that is the reset "discharge"': lambda: _through_time(weight, inputs, costs, *told, reset="discharge"),
        "the last step's product is there; add those of all steps": lambda: _through_time(
            weight, inputs, costs, *told, reset="scale", last_only=True
        ),
        "the sign is turned round: the derivative is asked for, not the step against it": lambda: (
            -_through_time(weight, inputs, costs, *told, reset="scale")
        ),
        "the penalty counts in units of the threshold, and the threshold need not be 1": lambda: _wrongly(
            weight, inputs, costs, told, in_units=False
        ),
    }
    mistakes |= {
        "add the products of all steps; yours is their mean": lambda: (
            _through_time(weight, inputs, costs, *told, reset="scale") / len(inputs)
        ),
        "that is the loss itself; how does it change with the weight?": lambda: _wrongly(
            weight, inputs, costs, told, value=True
        ),
        "the input of a step enters the eligibility as it is, without the weight": lambda: (
            weight * _through_time(weight, inputs, costs, *told, reset="scale")
        ),
        "is the threshold of the example written into it? It is an argument": lambda: _wrongly(
            weight, inputs, costs, told, fires_at=1.0
        ),
        "are the numbers of the example written into it? They are arguments": lambda: _through_time(
            weight, inputs, costs, 0.9, 1.0, 1.5, reset="scale"
        ),
    }
    for words, mistake in mistakes.items():
        value = mistake()
        if abs(found - value) <= 1e-9 * max(1.0, abs(value)):
            return words
    return "it differs from autograd's. Print charge, spike and eligibility of each step for the example of the chapter"


def _wrongly(
    weight: float,
    inputs: list[float],
    costs: list[float],
    told: Told,
    silent: bool = False,
    crossed: bool = True,
    at_once: bool = False,
    leaks: bool = True,
    keeps: bool = True,
    in_units: bool = True,
    value: bool = False,
    fires_at: float | None = None,
) -> float:
    """The sum over steps with one of its parts left out or misplaced."""
    decay, threshold, penalty = told
    state = eligible = kept = total = 0.0
    for x, cost in zip(inputs, costs):
        charge = weight * x + decay * state
        fired = charge > (threshold if fires_at is None else fires_at)
        slope = (1 - penalty / (threshold if in_units else 1.0)) if fired else 1.0
        state = charge * slope
        of_eligible = slope if crossed else 1.0
        eligible = x + (kept * eligible if keeps else 0.0)
        if at_once:
            eligible *= of_eligible
        kept = (decay if leaks else 1.0) * (1.0 if at_once else of_eligible)
        if fired or silent:
            total += cost * (charge - threshold if value else eligible)
    return total


@check.exercise(5)
def paid_by_the_next(answer: Any, decay: float, threshold: float, penalty: float) -> str:
    """The derivative of the sum of two outputs, at several gaps, delays and resets, against autograd."""

    def credit(delay: int, earlier: list[int], reset: str) -> float:
        return gradient_window([delay], earlier, decay, threshold, penalty, reset).item()

    for gap in (10, 4):
        for reset in ("scale", "discharge"):
            for delay in (-3, -12, 0, 2, 7, 15):
                found = number("two_spikes(...)", ask("two_spikes", answer, delay, gap, reset))
                first, second = credit(delay, [], reset), credit(delay + gap, [gap], reset)
                if abs(found - first - second) <= 1e-6:
                    continue
                words = _named(
                    found,
                    {
                        "the part of the second spike is missing: before it, a pulse after the first one is early": (
                            first
                        ),
                        "the part of the first spike is missing": second,
                        "on its way to the second spike, the pulse has to cross the first": first
                        + credit(delay + gap, [], reset),
                        "each spike sees another delay: from the second one, the pulse is older by the gap": first
                        + credit(delay, [gap], reset),
                        "the second spike comes later, so from there the pulse is older, not younger": first
                        + credit(delay - gap, [gap], reset),
                        "the first spike has no earlier one": credit(delay, [gap], reset) + second,
                        "add what the two spikes pay; yours is their mean": (first + second) / 2,
                        "add what the two spikes pay; yours takes one from the other": first - second,
                        "is the reset handed on? That is the other one": credit(delay, [], reset)
                        + credit(delay + gap, [gap], "scale" if reset == "discharge" else "discharge"),
                        "the gap is an argument; is another one written into the function?": credit(delay, [], reset)
                        + credit(delay + 10, [10], reset),
                    },
                )
                raise NotYet(
                    f"at delay {delay}, gap {gap}, reset {reset!r}: "
                    + (words or "autograd finds another number. What does each of the two spikes pay?")
                )
    return "Under STDP the first spike would weaken a pulse between the two; here only the second one pays it."


@check.exercise(6)
def what_a_reset_passes(answer: Any) -> str:
    """The derivative of the state that a step leaves by its charge, with snnTorch's default surrogate."""
    for charge in (1.5, 0.5, -0.5, 1.1, 3.0, 0.93):
        for reset in ("subtract", "zero"):
            for detached in (True, False):
                found = number("passes(...)", ask("passes", answer, charge, reset, detached))
                right = _passes(charge, reset, detached)
                if abs(found - right) > 1e-6:
                    how = "detached" if detached else "followed"
                    where = f"at a charge of {charge} with the reset {reset!r}, {how}: "
                    raise NotYet(where + _of_passes(found, charge, reset, detached))
    return "The chapter's table was read off the libraries' own layers; your function predicts the rows of snnTorch."


def _passes(charge: float, reset: str, detached: bool, centre: float = 1.0, taken: float | None = None) -> float:
    fired = charge > 1
    kept = 1.0 if reset == "subtract" or not fired else 0.0
    takes = (1.0 if reset == "subtract" else charge) if taken is None else taken
    return kept - (0.0 if detached else takes / (1 + (math.pi * (charge - centre)) ** 2))


def _of_passes(found: float, charge: float, reset: str, detached: bool) -> str:
    fired = charge > 1
    distance, takes = charge - 1, 1.0 if reset == "subtract" else charge

    def kept_less(squared: float) -> float:
        """What is left with another surrogate, 1 / (1 + squared)."""
        return _passes(charge, reset, True) - takes / (1 + squared) if not detached and squared != -1 else math.nan

    through = _passes(charge, reset, False) - _passes(charge, reset, True)
    mistakes = {
        "the surrogate is taken at the distance from the threshold, not at the charge": _passes(
            charge, reset, detached, centre=0.0
        ),
        "what the gate takes away is another thing for each reset": _passes(
            charge, reset, detached, taken=charge if reset == "subtract" else 1.0
        ),
        "where the gate is followed, it has a slope": _passes(charge, reset, True) if not detached else math.nan,
        "detached, the slope of the gate is left out": _passes(charge, reset, False) if detached else math.nan,
        "π is inside the square, with the distance from the threshold": kept_less(math.pi * distance**2),
        "the square is of π times the distance alone; then 1 is added": kept_less((1 + math.pi * distance) ** 2 - 1),
        "a gate that opens more takes more: look at the sign": _passes(charge, reset, True) - through,
        "the slope of the gate is there; its value counts, too": through,
        "without a spike a reset to zero leaves the state as it is": 0.0 if not fired and detached else math.nan,
        "where the neuron has fired, a reset to zero forgets the charge": 1.0
        if fired and detached and reset == "zero"
        else math.nan,
        "to subtract a constant changes no slope": 0.0 if detached and reset == "subtract" else math.nan,
    }
    return _named(found, mistakes, 1e-6) or "what does the gate let through, and what does its own slope take away?"
