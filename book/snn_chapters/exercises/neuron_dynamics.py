"""The checks of chapter 1's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from snn_helpers import neuron_step
from snn_helpers.long.exercise import Check, NotYet, ask, near, number, tensor

check = Check()
_near = partial(near, rtol=1e-5, atol=1e-6)


@check.exercise(1)
def half_life(answer: Any) -> str:
    """A decay: after 20 steps half of a pulse is left, to a thousandth."""
    if abs(number("wanted_decay", answer) - 20 / math.log(2)) < 0.1:
        raise NotYet("that is the time constant of such a neuron, in steps; a decay is between 0 and 1")
    decay = number("wanted_decay", answer, 0, 1, what="a decay")
    left = decay**20
    if abs(decay - math.exp(-1 / 20)) < 5e-4:
        raise NotYet("20 steps is its time constant then, after which a little over a third is left, and not half")
    if abs(decay - 0.5 / 20) < 1e-4:
        raise NotYet("Python takes a power before it divides: the exponent needs brackets")
    if abs(left - 0.5) > 1e-3:
        raise NotYet(
            f"after 20 steps your neuron keeps {left:.3f} of a pulse, not 0.5: it forgets too"
            f" {'slowly' if left > 0.5 else 'fast'}. (Three digits are enough)"
        )
    return "After 40 steps a quarter is left, and after 60 an eighth: that is what a half-life means."


@check.exercise(2)
def own_step(answer: Any) -> str:
    """One step with the reset "discharge", of states below, at and above the threshold, against the helpers' step."""
    generator = torch.Generator().manual_seed(20)
    for shape in ((40,), (40,), (8, 5)):
        decay, threshold, penalty = (low + torch.rand((), generator=generator).item() for low in (0.05, 0.6, 0.4))
        current = 3 * torch.rand(shape, generator=generator, dtype=torch.float64)
        state = 1.4 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.8
        current.view(-1)[0], state.view(-1)[0] = threshold, 0.0  # just at the threshold: it does not fire
        _compare(answer, current, state, min(decay, 0.95), threshold, penalty)
    return "You have written the neuron. The chapter's own, in the next cell, has three more resets."


def _compare(answer: Any, current: Tensor, state: Tensor, decay: float, threshold: float, penalty: float) -> None:
    given = ask("my_step", answer, current, state, decay, threshold, penalty)
    if isinstance(given, Tensor) and given.shape == (2, *current.shape):
        given = tuple(given)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise NotYet("my_step should return two things, output and state, as in `return output, state`")
    if any(value is None for value in given):
        raise NotYet("one of the two things that my_step returns is None")
    output, after = (tensor(f"the {name}", value, current.shape) for name, value in zip(("output", "state"), given))
    told = decay, threshold, penalty
    right_output, right_after = neuron_step(current, state, *told, reset="discharge")
    v, fired = current + decay * state, right_output > 0
    if not _near(output, right_output):
        if _near(output, right_after) and _near(after, right_output):
            raise NotYet("output and state are in each other's place")
        without_leak = neuron_step(current, state, 1.0, threshold, penalty, reset="discharge")[0]
        all_leak = neuron_step(decay * current, state, *told, reset="discharge")[0]
        lost = torch.relu(current + (1 - decay) * state - threshold)
        articles = [
            torch.relu(current + one_decay * state - one_threshold)
            for one_decay, one_threshold in ((0.9, threshold), (decay, 1.0), (0.9, 1.0))
        ]
        mistakes = {
            "it puts out the whole state where it fires, and should put out the excess over the threshold": v * fired,
            "a graded spike is as large as the excess; yours are 0 or 1": fired.double(),
            "the output is below 0 where the neuron is silent: it should be 0 there": v - threshold,
            "the old state does not leak: only its share, the decay, is there at the next step": without_leak,
            "the current leaks too: the decay belongs to the old state alone": all_leak,
            "the current alone decides whether it fires; what is left of the old state comes on top": torch.relu(
                current - threshold
            ),
            "the decay is the share that stays, and in yours it is the share that is lost": lost,
        }
        if any(_near(output, of_articles) for of_articles in articles):
            raise NotYet("it uses the article's decay or threshold, and not those that it is given")
        raise NotYet(_named(output, mistakes, "the output is not the excess of `current + decay * state`, or 0"))
    if not _near(after, right_after):
        at = v == threshold
        silent = torch.where(fired, right_after, v)
        mistakes = {
            "the state is the one before the reset: where the neuron has fired it has to fall": v,
            'this is the reset "scale", of the article\'s code; write "discharge", of its text': neuron_step(
                current, state, *told, reset="scale"
            )[1],
            "it resets silent neurons too: the gate is 0 where nothing has fired": v - (penalty + right_output),
            "silent neurons lose their state: without a spike it stays as it is": right_after * fired,
            "a spike takes away the penalty, and should take away what it has put out as well": v - penalty * fired,
            "a spike takes away what it has put out, and should take away the penalty as well": v - right_output,
            "a spike sets the state to 0 here; where does the table say that it leaves it?": v * ~fired,
            "a spike takes away the threshold here, and not what the table says": v - threshold * fired,
            "the leak comes at the next step, and your step has it twice": decay * right_after,
            "the sign of the penalty: a spike throws the neuron back": v + (penalty - right_output) * fired,
            "the state is the old one: this step's charge and reset are missing": state,
            "a state may be below 0; yours stops there": right_after.clamp(min=0),
            "a silent state may be below 0; yours stops there": torch.where(fired, right_after, v.clamp(min=0)),
            "it uses the article's penalty, and not the one that it is given": v - (1.5 + right_output) * fired,
            "a spike takes away the whole state and the penalty, and should take away what it has put out, and the"
            " penalty": v - (penalty + v) * fired,
        }
        if bool(at.any()) and _near(after[~at], right_after[~at]):
            raise NotYet("just at the threshold it does not fire yet: nothing is put out, so nothing is reset")
        if _near(after[~fired], silent[~fired]):
            otherwise = "the output is right, and the state where it is silent; look at what a spike takes away"
        else:
            otherwise = "the output is right, the state is not"
        raise NotYet(_named(after, mistakes, otherwise))


def _named(found: Tensor, mistakes: dict[str, Tensor], otherwise: str) -> str:
    return next((words for words, mistake in mistakes.items() if _near(found, mistake)), otherwise)


@check.exercise(3)
def slope(answer: Any) -> str:
    """The slope of the reset "scale" at a threshold of 2 and a penalty of 5."""
    found = number("wanted_slope", answer)
    mistakes = {
        0.0: 'a slope of 0 cuts the credit; so does "discharge", and the question is about "scale"',
        1 - 5: "the penalty counts in units of the threshold, and the threshold is 2 here",
        1.5: "the size is right; look at the sign",
        2.5: "that is the share of the state that the spike takes away; what is left of it?",
        -2.5: "that is the share of the state that the spike takes away; what is left of it?",
        1 - 2 / 5: "the penalty counts in units of the threshold, not the threshold in units of the penalty",
        -0.5: "that is the slope in the article's network; here threshold and penalty are others",
        2 - 5: 'that is where "discharge" leaves the state; how does it change with the state before?',
        1.0: 'with a slope of 1 the reset would be "subtract"; the question is about "scale"',
    }
    for value, words in mistakes.items():
        if abs(found - value) < 1e-3:
            raise NotYet(words)
    if abs(found + 1.5) > 1e-3:
        raise NotYet(f"{found:g} is not the slope of v -> v - (p / θ) v for this threshold and this penalty")
    return "Its size is above 1: across this spike credit grows, and its sign changes."


@check.exercise(4)
def every_ten_steps(answer: Any) -> str:
    """A penalty at which the neuron fires every ten steps; any of the range will do."""
    penalty = number("wanted_penalty", answer, 0, what="a penalty")
    # At the very ends of the range rounding decides: a hair to either side will do.
    tries = [_intervals(penalty * factor) for factor in (1.0, 1 - 1e-9, 1 + 1e-9)]
    intervals = tries[0]
    if not any(set(found) == {10} for found in tries):
        if len(intervals) == 0:
            raise NotYet(f"with the penalty {penalty:g} it fires less than twice in 3,000 steps: make it smaller")
        found = intervals[-1]
        raise NotYet(
            f"with the penalty {penalty:g} it fires every {'step' if found == 1 else f'{found} steps'}, not every 10:"
            f" make it {'smaller' if found > 10 else 'larger'}"
        )
    return (
        "A harder penalty makes the neuron wait longer, but only with the logarithm: the wait is τ ln(1 + p/(C − θ))."
    )


def _intervals(penalty: float) -> list[int]:
    state, fired = 0.0, []
    for step in range(3000):
        state = 0.25 + 0.9 * state
        if state > 1:
            fired.append(step)
            state = 1 - penalty
    return [later - earlier for earlier, later in zip(fired, fired[1:])]


@check.exercise(5)
def credit(answer: Any) -> str:
    """∂v_n/∂I_0 with the reset "scale", at random settings, against autograd through the neuron."""
    generator = torch.Generator().manual_seed(50)
    cases: list[tuple[int, int, float, float, float]] = []
    yours, true = [], []
    for ratio in (0.6, 1.4, 1.8, 2.3):  # penalties below and above the threshold
        beta, theta, more = (low + torch.rand((), generator=generator).item() for low in (0.5, 1.2, 0.0))
        beta, p = min(beta, 0.97), theta * (ratio + 0.1 * more)
        first = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        state, k = torch.zeros((), dtype=torch.float64), 0
        for n, later in enumerate([0.0, 1.8, 0.1, 6.0, 0.1, 0.0, 8.0, 0.0]):
            into = first if n == 0 else torch.tensor(later * theta, dtype=torch.float64)
            v = into + beta * state
            true.append(torch.autograd.grad(v, first, retain_graph=True)[0].item())
            yours.append(number("credit(...)", ask("credit", answer, n, k, beta, theta, p)))
            cases.append((n, k, beta, theta, p))
            output, state = neuron_step(into, state, beta, theta, p, reset="scale")
            k += int(output > 0)
    off = [case for case, one, other in zip(cases, yours, true) if abs(one - other) > 1e-4 * max(1, abs(other))]
    if off:
        raise NotYet(_of_credit(yours, cases, off[0]))
    return 'For "discharge" the slope is 0: decay ** n without a spike, and nothing at all after the first one.'


def _of_credit(
    yours: list[float],
    cases: list[tuple[int, int, float, float, float]],
    off: tuple[int, int, float, float, float],
) -> str:
    """The mistake that gives these numbers in all cases; else the first case that is off."""
    mistakes: dict[str, list[Callable[[int, int, float, float, float], float]]] = {
        "the penalty counts in units of the threshold, and the threshold need not be 1": [
            lambda n, k, beta, theta, p: beta**n * (1 - p) ** k
        ],
        "the penalty counts in units of the threshold, not the threshold in units of the penalty": [
            lambda n, k, beta, theta, p: beta**n * (1 - theta / p) ** k
        ],
        "the leak is there, the spikes are not: each multiplies by the slope of its reset": [
            lambda n, k, beta, theta, p: beta**n
        ],
        "the spikes are there, the leak is not": [lambda n, k, beta, theta, p: (1 - p / theta) ** k],
        "it leaks once too often": [lambda n, k, beta, theta, p: beta ** (n + 1) * (1 - p / theta) ** k],
        "it leaks once too seldom": [
            lambda n, k, beta, theta, p: beta ** (n - 1) * (1 - p / theta) ** k,
            lambda n, k, beta, theta, p: beta ** max(n - 1, 0) * (1 - p / theta) ** k,
        ],
        "it leaks at every step, also where it fires": [
            lambda n, k, beta, theta, p: beta ** (n - k) * (1 - p / theta) ** k
        ],
        "a spike does not leak once more: each step leaks once, whether it fires or not": [
            lambda n, k, beta, theta, p: beta ** (n + k) * (1 - p / theta) ** k
        ],
        "one spike too many: without one it is the leak alone": [
            lambda n, k, beta, theta, p: beta**n * (1 - p / theta) ** (k + 1)
        ],
        "one spike is missing: the first one counts as well": [
            lambda n, k, beta, theta, p: beta**n * (1 - p / theta) ** max(k - 1, 0)
        ],
        "the steps leak and the spikes multiply; yours has the two in each other's place": [
            lambda n, k, beta, theta, p: beta**k * (1 - p / theta) ** n
        ],
        "the leak multiplies step by step; yours adds up": [
            lambda n, k, beta, theta, p: beta * n * (1 - p / theta) ** k
        ],
        "the sign is lost: the slope of a spike may be below 0": [
            lambda n, k, beta, theta, p: beta**n * abs(1 - p / theta) ** k
        ],
        "the sign is turned round: what does a spike leave of a state?": [
            lambda n, k, beta, theta, p: beta**n * (p / theta - 1) ** k
        ],
        "a penalty below the threshold leaves the sign as it is; yours turns it at each spike": [
            lambda n, k, beta, theta, p: beta**n * (-abs(1 - p / theta)) ** k
        ],
        "several spikes multiply several times": [lambda n, k, beta, theta, p: beta**n * (1 - p / theta) ** min(k, 1)],
        "a spike leaves a share of the state; yours is the share that it takes away": [
            lambda n, k, beta, theta, p: beta**n * (p / theta) ** k
        ],
        'a spike has cut it: so it is for "discharge", and the question is about "scale"': [
            lambda n, k, beta, theta, p: beta**n * (k == 0)
        ],
        "each spike multiplies; yours are added up": [
            lambda n, k, beta, theta, p: beta**n * k * (1 - p / theta),
            lambda n, k, beta, theta, p: beta**n * (1 - k * p / theta),
        ],
        "it uses the article's settings, and not those that it is given": [
            lambda n, k, beta, theta, p: 0.9**n * (-0.5) ** k,
            lambda n, k, beta, theta, p: 0.9**n * (1 - p / theta) ** k,
            lambda n, k, beta, theta, p: beta**n * (-0.5) ** k,
        ],
    }
    for words, formulas in mistakes.items():
        for formula in formulas:
            values = [formula(*case) for case in cases]
            if all(abs(one - value) <= 1e-5 * max(1, abs(value)) for one, value in zip(yours, values)):
                return words
    n, k, _, theta, p = off
    after = f"after {n} step{'s' * (n != 1)} and {k} spike{'s' * (k != 1)}"
    return f"{after}, at θ = {theta:.2f} and p = {p:.2f}, your formula and autograd differ"


@check.exercise(6)
def longest_gap(answer: Any) -> str:
    """The longest gap between two weak pulses that still make the neuron fire, against the neuron itself."""
    generator = torch.Generator().manual_seed(60)
    drawn = (0.55 + 0.4 * torch.rand(4, 2, generator=generator, dtype=torch.float64)).tolist()
    cases = [(size * threshold, decay, threshold) for (size, decay), threshold in zip(drawn, (1.0, 1.3, 0.7, 1.0))]
    # Two that wait long, one that reaches the threshold exactly and not more, and two that never fire.
    cases += [(0.9, 0.93, 1.0), (0.99, 0.97, 1.0), (0.75, 0.5, 0.9375), (0.99, 0.5, 1.7), (0.5, 0.9, 1.1)]
    for size, decay, threshold in cases:
        found = number("longest_gap(...)", ask("longest_gap", answer, size, decay, threshold), whole=True)
        fires = _pairs_fire(size, decay, threshold)
        longest = max(fires, default=0)
        told = f"for pulses of {size:.2f}, a decay of {decay:.2f} and a threshold of {threshold:.2f}"
        if found in fires and found == longest - 1:
            raise NotYet(f"{told} it is one step too short: at the next gap it still fires")
        if not fires and found != 0:
            raise NotYet(
                f"{told} even pulses in neighbouring steps do not reach the threshold: then the answer is 0, and"
                f" yours is {found:g}"
            )
        if found == longest + 1:
            raise NotYet(
                f"{told} it is one step too long: does the neuron fire at your gap? (Just at the threshold it does not)"
            )
        if found != longest:
            stops = " (it is far from the end: does your search stop too early?)" if longest > 100 else ""
            raise NotYet(f"{told}, {found:g} is not it: it is too {'long' if found > longest else f'short{stops}'}")
    return "A ReLU of the sum has no such limit: it does not know when its inputs came."


def _pairs_fire(size: float, decay: float, threshold: float) -> set[int]:
    """The gaps of 1 to 199 steps at which two pulses make the neuron fire: one neuron each, side by side."""
    gaps = torch.arange(1, 200)
    state, fired = torch.zeros(len(gaps), dtype=torch.float64), torch.zeros(len(gaps), dtype=torch.bool)
    for step in range(200):
        current = size * ((gaps == step) | (step == 0)).double()
        output, state = neuron_step(current, state, decay, threshold, 1.0, reset="discharge")
        fired |= output > 0
    return set(gaps[fired].tolist())
