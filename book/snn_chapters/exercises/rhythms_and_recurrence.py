"""The checks of chapter 13's exercises."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from scipy.signal import welch
from torch import Tensor

from snn_helpers import neuron_step
from snn_helpers.long.exercise import Check, NotYet, Undone, ask, ending, function, letters, number, tensor

check = Check()

# What each population fails by, in the order of the definition; "" is a rhythm.
POPULATIONS = {
    "A": "each of its neurons is a clock, and that says nothing of the population: what is its peak?",
    "B": "",
    "C": "look at how its power has risen: is that periodic, or a slow drift?",
    "D": "look at who shares a flicker: what is pushed from outside at the same moments is not the population's own",
    "E": "its peak is above its shuffles, and what does the definition ask of it besides?",
    "F": "",
}


@check.exercise(1)
def which_beat(answer: Any) -> str:
    """Which of six described populations have a rhythm."""
    named = letters("beating", answer, "ABCDEF")
    for letter in sorted(named):
        if POPULATIONS[letter]:
            raise NotYet(f"{letter}: {POPULATIONS[letter]}")
    if not named:
        raise NotYet("some of them do have one: go through the three conditions, row by row")
    if "B" not in named:
        raise NotYet("one more has a rhythm: must each *neuron* be regular for that?")
    if "F" not in named:
        raise NotYet("one more has a rhythm: may its neurons be clocks?")
    return "Clocks and coins can both share a rhythm, and can both lack one: these are two questions."


@check.exercise(2)
def around_the_loop(exact: Any, cut: Any) -> str:
    """The derivative of a loss by a weight, with the path through a second neuron and without."""
    found = number("exact_slope", exact), number("cut_slope", cut)
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    slopes = []
    for cuts in (False, True):
        first = (2 * weight - 1).relu()
        second = (3 + 0.25 * (first.detach() if cuts else first) - 1).relu()
        loss = 3 * first + 4 * second
        slopes.append(torch.autograd.grad(loss, weight)[0].item())
    right, without = slopes

    def near(value: float, wanted: float) -> bool:
        return abs(value - wanted) < 5e-3

    if near(found[0], without) and near(found[1], right):
        raise NotYet("the two are in each other's place")
    for name, value in (("exact_slope", found[0]), ("cut_slope", found[1])):
        if near(value, loss.item()):
            raise NotYet(f"{name}: that is the loss; its derivative by w is asked for")
    if near(found[1], 1.5 * 3):
        raise NotYet("cut_slope: the charge is w x: what is its derivative by w, w or x?")
    if near(found[0], right / 2) or near(found[1], without / 2):
        raise NotYet("a step of w moves the first neuron's charge by more than the step: what does w multiply?")
    if near(found[0], 2 * (3 + 4)):
        raise NotYet("exact_slope: what the second neuron hears of the first comes through U")
    if near(found[0], right - without):
        raise NotYet("exact_slope: that is the path around the loop alone; the direct one counts as well")
    if near(found[0], without):
        raise NotYet("exact_slope: the first neuron's output moves the second one's, too, and the loss hears both")
    if near(found[0], right) and near(found[1], right):
        raise NotYet("cut_slope: when the loop is cut, which of the two paths is left?")
    if near(found[0], right) and near(found[1], right - without):
        raise NotYet("cut_slope: that is the path that the cut takes away; the other one is left")
    if near(found[0], right) and near(found[1], 0):
        raise NotYet("cut_slope: the cut takes away one path only, and the first neuron's own way to the loss is left")
    if not near(found[0], right):
        raise NotYet(
            f"exact_slope is not {found[0]:g}: follow each path from w to the loss, multiply along it, and add"
        )
    if not near(found[1], without):
        raise NotYet(f"exact_slope is right; cut_slope is not {found[1]:g}: which path is left?")
    return "What is missing is the path through the other neuron. It grows with U, as the next figure shows."


@check.exercise(3)
def set_the_clock(answer: Any) -> str:
    """A penalty at which a neuron under the current 0.5 fires every six steps."""
    penalty = number("my_penalty", answer, 0, what="a penalty")
    state, times = torch.zeros(1, dtype=torch.float64), []
    for t in range(600):
        output, state = neuron_step(torch.full_like(state, 0.5), state, 0.9, 1.0, penalty, "discharge")
        if output.item() > 0:
            times.append(t)
    if len(times) < 4:
        raise NotYet("with this penalty it hardly fires in 600 steps: lower it")
    every = times[-1] - times[-2]
    if every != 6:
        steps = "step" if every == 1 else f"{every} steps"
        raise NotYet(f"with this penalty it fires every {steps}: {'raise' if every < 6 else 'lower'} it")
    return "A whole range of penalties gives six, since the neuron can fire in whole steps only."


@check.exercise(4)
def signed_synchrony(answer: Any, spikes: Tensor, signs: Tensor) -> str:
    """The power of a signed sum over the sum of the powers, on drawn spikes, on halves in turns, and on the layer."""
    asked = function("signed_synchrony", answer)
    generator = torch.Generator().manual_seed(130)
    for n_images, n in ((1, 4), (3, 6), (2, 9)):
        drawn = torch.rand(512, n_images, n, generator=generator) < 0.3 * torch.rand(n_images, n, generator=generator)
        drawn[::5, :, : n // 2] = True
        split = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0).double()
        _compare(asked, drawn, split)
    turns = torch.stack([(torch.arange(512) + k) % 2 == 0 for k in (0, 0, 1, 1)], dim=1)[:, None]
    turns[::7] = False  # all pause in every seventh step
    _compare(asked, turns, torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64))
    peak = float(tensor("signed_synchrony(...)", ask("signed_synchrony", asked, spikes, signs)).max())
    if peak < 2:
        return f"Split by these signs, the peak of the hidden layer is {peak:.2f}: it hides no such rhythm."
    return f"Split by these signs, the peak is {peak:.2f}. In so few steps chance alone can do that: try more of them."


def _powers(spikes: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """The power of the signed sum [65, B], and of each neuron [65, B, N]."""
    signed = (spikes.double() * signs).numpy()
    together = welch(signed.sum(axis=2), nperseg=128, axis=0)[1]
    return torch.from_numpy(together), torch.from_numpy(welch(signed, nperseg=128, axis=0)[1])


def _of_one_sign(spikes: Tensor, signs: Tensor) -> list[tuple[str, Tensor]]:
    """The synchrony of each half by itself."""
    found = []
    for words, chosen in (("+1", signs > 0), ("−1", signs < 0)):
        together, alone = _powers(spikes[:, :, chosen], signs[chosen])
        found.append((words, together[1:].sum(dim=1) / alone[1:].sum(dim=(1, 2))))
    return found


def _compare(asked: Callable[..., Any], spikes: Tensor, signs: Tensor) -> None:
    answer = ask("signed_synchrony", asked, spikes, signs)
    if isinstance(answer, tuple):
        raise NotYet("signed_synchrony should return the values alone, [F], and returns a tuple: the frequencies, too?")
    found = tensor("signed_synchrony(...)", answer)
    if found.shape == (65,):
        raise NotYet("it returns 65 values, so frequency 0 is among them: leave that one out")
    if found.shape == (64, spikes.shape[1]) and spikes.shape[1] > 1:
        raise NotYet("it returns a value for each image; the powers of all images are to be added before dividing")
    if found.shape != (64,):
        raise NotYet(
            f"the result should have one value for each of 64 frequencies, and has the shape {list(found.shape)}"
        )
    together, alone = (part[1:] for part in _powers(spikes, signs))
    of_sum, of_each = together.sum(dim=1), alone.sum(dim=(1, 2))
    if torch.allclose(found, of_sum / of_each, rtol=1e-3, atol=1e-4):
        return
    plain = _powers(spikes, torch.ones_like(signs))[0][1:].sum(dim=1)
    weighed = (alone * signs).sum(dim=(1, 2))
    halves = ((alone * (signs > 0)).sum(dim=(1, 2)), (alone * (signs < 0)).sum(dim=(1, 2)))
    mistakes = [
        ("this is the synchrony without signs: what is each neuron multiplied by, before the sum?", plain / of_each),
        ("this is the power of the sum; by what is it to be divided?", of_sum),
        ("the quotient is turned round", of_each / of_sum),
        ("the power of the *mean* of the neurons is taken, not of their sum", of_sum / of_each / len(signs) ** 2),
        ("the sum is divided by the *mean* of the powers, not by their sum", of_sum / of_each * len(signs)),
        ("the sum of the powers is right without signs: a sign does not turn a neuron's own power", of_sum / weighed),
        ("the powers are multiplied by the signs; the spikes should be, before the spectrum", weighed / of_each),
        ("images are averaged after dividing; add their powers first", (together / alone.sum(dim=2)).mean(dim=1)),
        ("the square root is taken: power is the square already", (of_sum / of_each).sqrt()),
        ("only the neurons of one sign take part", of_sum / halves[0]),
        *((f"only the neurons of one sign take part: {one}", by) for one, by in _of_one_sign(spikes, signs)),
    ]
    for words, wrong in mistakes:
        if torch.allclose(found, wrong, rtol=1e-3, atol=1e-4):
            raise NotYet(words)
    raise NotYet(
        "for spikes and signs that were drawn for this check the values are not those of the definition. Does it use"
        " the spikes and the signs that it is given, and windows of 128 steps?"
    )


@check.exercise(5)
def turns(answer: Any) -> str:
    """After how many turns an echo meets the second digit, for all gaps to 25 and all delays to 30."""
    asked = function("turns", answer)
    cases = [(12, 8), (12, 1), (0, 1), (24, 8), (0, 30)] + [(g, d) for g in range(26) for d in range(1, 31)]
    found = {case: _one_answer(asked, *case) for case in cases}
    if all(value is None for value in found.values()):
        raise Undone("turns returns None so far, for every gap and delay")
    if all(found[case] == _meets(*case) for case in cases):
        return "A delay of 1 needs a turn a step, and each turn is a chance to lose the memory."
    mistakes: list[tuple[str, Callable[[int, int], int | None]]] = [
        (
            "this looks for an echo whose *first* step falls into the second digit; its last steps may do so earlier",
            lambda gap, delay: _meets(gap, delay, steps=(0,)),
        ),
        ("this asks for the whole echo to fall into the second digit; one step of it is enough", _whole),
        ("this is the last echo that meets the second digit; the smallest number of turns is asked for", _last),
        (
            "an echo can come too late as well: what if it jumps past the second digit?",
            lambda gap, delay: max(1, -(-(gap + 1) // delay)),
        ),
        ("the turn 0 is the digit itself, not yet an echo", lambda gap, delay: 0),
        ("this is the same for all gaps and delays", lambda gap, delay: found[12, 8]),
        (
            "where are the first digit's own five steps? The second digit begins after these and the gap",
            lambda gap, delay: _meets(gap - 5, delay),
        ),
        ("the digits last five steps, not one: which steps does an echo fill?", lambda gap, delay: _short(gap, delay)),
        (
            "the two arguments are in each other's place: the gap comes first, then the delay",
            lambda gap, delay: _meets(delay, gap),
        ),
    ]
    for words, mistake in mistakes:
        if all(found[case] == mistake(*case) for case in cases):
            raise NotYet(words)
    gap, delay = next(case for case in cases if found[case] != _meets(*case))
    told = f"for a gap of {gap} and a delay of {delay}, {found[gap, delay]} is not it"
    if _meets(gap, delay) is None:
        raise NotYet(f"{told}: there every echo misses the second digit, and the answer to that is None")
    raise NotYet(
        f"{told}: the second digit is in steps {gap + 5} to {gap + 9}. Write down the steps of each echo beside it"
    )


def _one_answer(asked: Callable[..., Any], gap: int, delay: int) -> int | None:
    asked = ending("turns", asked)
    with redirect_stdout(io.StringIO()):  # it is asked hundreds of times
        (value,) = ask("turns", lambda gap, delay: (asked(gap, delay),), gap, delay)
    if value is None:
        return None
    if isinstance(value, (int, float)) and (value in (math.inf, -math.inf, -1) or math.isnan(value)):
        raise NotYet(f"for a gap of {gap} and a delay of {delay} it returns {value}: where no echo meets, return None")
    return int(number("what turns returns", value, 0, whole=True, what="a number of turns"))


def _meets(gap: int, delay: int, steps: tuple[int, ...] = (0, 1, 2, 3, 4)) -> int | None:
    second = set(range(gap + 5, gap + 10))
    return next((k for k in range(1, 60) if {k * delay + step for step in steps} & second), None)


def _whole(gap: int, delay: int) -> int | None:
    return next((k for k in range(1, 60) if k * delay == gap + 5), None)


def _last(gap: int, delay: int) -> int | None:
    return max((k for k in range(1, 60) if abs(k * delay - gap - 5) <= 4), default=None)


def _short(gap: int, delay: int) -> int | None:
    return next((k for k in range(1, 60) if k * delay == gap + 1), None)
