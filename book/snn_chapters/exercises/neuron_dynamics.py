"""The checks of chapter 1's exercises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snn_helpers import neuron_step
from snn_helpers.long.exercise import Check, NotYet, ask, number, tensor

check = Check()


@check.exercise(1)
def half_life(answer: Any) -> str:
    """A decay: after 20 steps half of a pulse is left, to a thousandth."""
    decay = number("wanted_decay", answer, 0, 1, what="a decay")
    left = decay**20
    if abs(left - 0.5) > 1e-3:
        raise NotYet(
            f"after 20 steps your neuron keeps {left:.3f} of a pulse, not 0.5: it forgets too"
            f" {'slowly' if left > 0.5 else 'fast'}"
        )
    return "After 40 steps a quarter is left, and after 60 an eighth: that is what a half-life means."


@check.exercise(2)
def own_step(answer: Any) -> str:
    """One step with the reset "discharge", of states below, at and above the threshold, against the helpers' step."""
    generator = torch.Generator().manual_seed(20)
    for _ in range(3):
        decay, threshold, penalty = (low + torch.rand((), generator=generator).item() for low in (0.05, 0.6, 0.4))
        current = 3 * torch.rand(40, generator=generator, dtype=torch.float64)
        state = torch.rand(40, generator=generator, dtype=torch.float64) - 0.8
        current[0], state[0] = threshold, 0.0  # just at the threshold: it does not fire
        _compare(answer, current, state, min(decay, 0.95), threshold, penalty)
    return "You have written the neuron. The chapter's own, in the next cell, has three more resets."


def _compare(answer: Any, current: Tensor, state: Tensor, decay: float, threshold: float, penalty: float) -> None:
    given = ask("my_step", answer, current, state, decay, threshold, penalty)
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise NotYet("my_step should return two things, output and state, as in `return output, state`")
    output, after = (tensor(f"the {name}", value, [40]) for name, value in zip(("output", "state"), given))
    told = decay, threshold, penalty
    right_output, right_after = neuron_step(current, state, *told, reset="discharge")
    if not _near(output, right_output):
        mistakes: dict[str, Callable[[], Tensor]] = {
            "it puts out the whole state where it fires, and should put out the excess over the threshold": lambda: (
                torch.where(right_output > 0, right_output + threshold, 0.0)
            ),
            "a graded spike is as large as the excess; yours are 0 or 1": lambda: (right_output > 0).double(),
            "the output is below 0 where the neuron is silent: it should be 0 there": lambda: (
                current + decay * state - threshold
            ),
            "the old state does not leak: only its share, the decay, is there at the next step": lambda: neuron_step(
                current, state, 1.0, threshold, penalty, reset="discharge"
            )[0],
            "the current leaks too: the decay belongs to the old state alone": lambda: neuron_step(
                decay * current, state, *told, reset="discharge"
            )[0],
            "output and state are in each other's place": lambda: right_after,
        }
        for words, mistake in mistakes.items():
            if _near(output, mistake()):
                raise NotYet(words)
        raise NotYet("the output is not max(0, v - threshold), with v = current + decay * state")
    if not _near(after, right_after):
        v = current + decay * state
        if _near(after, v):
            raise NotYet("the state is the one before the reset: where the neuron has fired it has to fall")
        if _near(after, neuron_step(current, state, *told, reset="scale")[1]):
            raise NotYet('this is the reset "scale", of the article\'s code; write "discharge", of its text')
        if _near(after, v - (penalty + right_output)):
            raise NotYet("it resets silent neurons too: the gate is 0 where nothing has fired")
        if _near(after[right_output > 0], (v - penalty)[right_output > 0]):
            raise NotYet("a spike takes away the penalty, and should take away what it has put out as well")
        raise NotYet("the output is right, the state is not: a spike leaves it at threshold - penalty, silence at v")


def _near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other.double(), rtol=1e-5, atol=1e-6)


@check.exercise(3)
def slope(answer: Any) -> str:
    """The slope of the reset "scale" at a threshold of 2 and a penalty of 3."""
    found = number("wanted_slope", answer)
    if abs(found) < 1e-9:
        raise NotYet('a slope of 0 cuts the credit; so does "discharge", and the question is about "scale"')
    if abs(found - (1 - 3)) < 1e-3:
        raise NotYet("the penalty counts in units of the threshold, and the threshold is 2 here")
    if abs(found - 0.5) < 1e-3:
        raise NotYet("the size is right; look at the sign")
    if abs(found - 1.5) < 1e-3:
        raise NotYet("that is the share of the state that the spike takes away; what is left of it?")
    if abs(found + 0.5) > 1e-3:
        raise NotYet(f"{found:g} is not the slope of v -> v - (p / θ) v at θ = 2, p = 3")
    return "It is the same as in the article's network: only the ratio of penalty and threshold counts."


@check.exercise(4)
def every_ten_steps(answer: Any) -> str:
    """A penalty at which the neuron fires every ten steps; any of the range will do."""
    penalty = number("wanted_penalty", answer, 0, what="a penalty")
    intervals = _intervals(penalty)
    if not intervals:
        raise NotYet(f"with the penalty {penalty:g} it fires less than twice in 3,000 steps: make it smaller")
    if set(intervals) != {10}:
        found = intervals[-1]
        raise NotYet(
            f"with the penalty {penalty:g} it fires every {found} steps, not every 10: make it"
            f" {'smaller' if found > 10 else 'larger'}"
        )
    return (
        "A harder penalty makes the neuron wait longer, but only with the logarithm: the wait is τ ln(1 + p/(C − θ))."
    )


def _intervals(penalty: float) -> list[int]:
    state, zero = torch.zeros((), dtype=torch.float64), []
    for step in range(3000):
        current = torch.tensor(0.25, dtype=torch.float64)
        output, state = neuron_step(current, state, 0.9, 1.0, penalty, reset="discharge")
        if output > 0:
            zero.append(step)
    return [later - earlier for earlier, later in zip(zero, zero[1:])]


@check.exercise(5)
def credit(answer: Any) -> str:
    """∂v_n/∂I_0 with the reset "scale", at random settings, against autograd through the neuron."""
    generator = torch.Generator().manual_seed(50)
    for _ in range(4):
        beta, theta, p = (low + torch.rand((), generator=generator).item() for low in (0.5, 1.2, 0.3))
        beta = min(beta, 0.97)
        first = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        state, k = torch.zeros((), dtype=torch.float64), 0
        for n, later in enumerate([0.0, 1.5, 0.1, 2.5, 0.1, 0.0]):
            into = first if n == 0 else torch.tensor(later * theta * 1.2, dtype=torch.float64)
            v = into + beta * state
            true = torch.autograd.grad(v, first, retain_graph=True)[0].item()
            yours = number("credit(...)", ask("credit", answer, n, k, beta, theta, p))
            if abs(yours - true) > 1e-6 * max(1, abs(true)):
                raise NotYet(_of_credit(yours, n, k, beta, theta, p))
            output, state = neuron_step(into, state, beta, theta, p, reset="scale")
            k += int(output > 0)
    return 'For "discharge" the slope is 0: decay ** n without a spike, and nothing at all after the first one.'


def _of_credit(yours: float, n: int, k: int, beta: float, theta: float, p: float) -> str:
    slope = 1 - p / theta
    mistakes = {
        "the penalty counts in units of the threshold, and the threshold need not be 1": beta**n * (1 - p) ** k,
        "the leak is there, the spikes are not: each multiplies by the slope of its reset": beta**n,
        "the spikes are there, the leak is not": slope**k,
        "it leaks once too often": beta ** (n + 1) * slope**k,
        "it leaks once too seldom": beta ** (n - 1) * slope**k,
        "the sign is lost: the slope of a spike may be below 0": beta**n * abs(slope) ** k,
        "each spike multiplies; yours are added up": beta**n * k * slope,
    }
    for words, value in mistakes.items():
        if abs(yours - value) <= 1e-9 * max(1, abs(value)):
            return words
    return f"after {n} steps and {k} spikes, at θ = {theta:.2f}, your formula and autograd differ"


@check.exercise(6)
def longest_gap(answer: Any) -> str:
    """The longest gap between two weak pulses that still make the neuron fire, against the neuron itself."""
    for size, decay, threshold in (
        (0.6, 0.9, 1.0),
        (0.9, 0.8, 1.3),
        (0.55, 0.95, 1.0),
        (0.99, 0.5, 1.7),
        (0.5, 0.9, 1.1),
    ):
        found = number("longest_gap(...)", ask("longest_gap", answer, size, decay, threshold), whole=True)
        fires = [gap for gap in range(1, 200) if _pair_fires(size, gap, decay, threshold)]
        longest = max(fires, default=0)
        if not fires and found != 0:
            raise NotYet(
                f"two pulses of {size} never reach a threshold of {threshold}, not even in neighbouring steps: then"
                f" the answer is 0, and yours is {found:g}"
            )
        if found == longest + 1:
            raise NotYet(f"one step too long, for pulses of {size}: try whether the neuron fires at your gap")
        if found == longest - 1:
            raise NotYet(f"one step too short, for pulses of {size}: at the next gap it still fires")
        if found != longest:
            raise NotYet(
                f"for pulses of {size}, a decay of {decay} and a threshold of {threshold}, {found:g} is not it"
            )
    return "A ReLU of the sum has no such limit: it does not know when its inputs came."


def _pair_fires(size: float, gap: int, decay: float, threshold: float) -> bool:
    state, fired = torch.zeros((), dtype=torch.float64), False
    for step in range(gap + 1):
        current = torch.tensor(size if step in (0, gap) else 0.0, dtype=torch.float64)
        output, state = neuron_step(current, state, decay, threshold, 1.0, reset="discharge")
        fired = fired or bool(output > 0)
    return fired
