"""The checks of chapter 14's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snn_chapters.boltzmann import coincidence_window
from snn_helpers.long.exercise import Check, NotYet, ask, function, number, tensor
from snn_helpers.statistics import mean_and_interval

check = Check()


@check.exercise(1)
def one_step_up(answer: Any) -> str:
    """The weight after one step along data less free."""
    old, rate, with_data, free = 0.2, 2.0, 0.30, 0.45
    found = number("new_weight", answer)
    mistakes = {
        old - rate * (with_data - free): "the two terms are in each other's place: which one strengthens?",
        old + rate * with_data: "the free half is missing: what happens when the machine runs free weakens the weight",
        old - rate * free: "the data are missing: what happens with them strengthens the weight",
        old + rate * (with_data + free): "the gradient is a difference of the two, not their sum",
        old + (with_data - free): "the learning rate is missing",
        rate * (with_data - free): "that is the change; to which weight is it added?",
        with_data - free: "that is the gradient; the weight after the step is asked for",
        old + 100 * rate * (with_data - free): "that takes the per cent for numbers: the gradient is made of shares",
        old + 100 * (with_data - free): "that takes the per cent for numbers, and the learning rate is missing",
        old * rate + (with_data - free): "the learning rate scales the gradient, not the old weight",
    }
    right = old + rate * (with_data - free)
    for value, words in mistakes.items():
        if abs(found - value) < 1e-3:
            raise NotYet(words)
    if abs(found - right) > 1e-3:
        raise NotYet(f"{found:g} is not it: which term strengthens, which one weakens, and how far?")
    return "They meet more often in dreams than with the data. So the weight falls, and here it even changes its sign."


@check.exercise(2)
def steps_needed(answer: Any) -> str:
    """The smallest k with which CD-k's error, which falls like a power, is small enough."""
    at_first, factor, wanted = 0.30, 0.6, 0.01

    def left(k: float) -> float:
        return float(at_first * factor ** (k - 1))

    found = number("steps_needed", answer, 0)
    if abs(found - round(found)) > 0:
        raise NotYet(f"steps_needed should be a whole number of steps, and is {found:g}: do fewer, or more, suffice?")
    number("steps_needed", answer, 1, what="a number of steps")
    least = next(k for k in range(1, 100) if left(k) <= wanted)
    if found == least:
        return "What the walk remembers shrinks by the same factor at each step: so a little patience buys much."
    if found == least - 1:
        raise NotYet("too few. Is the error that the task gives that of 0 steps, or of 1?")
    if found == next(k for k in range(1, 100) if factor**k <= wanted):
        raise NotYet("that is when an error that starts at 100 % would be so small; this one starts elsewhere")
    if found < least:
        raise NotYet(f"too few: after {found:.0f} the error is still {left(found):.2g}")
    raise NotYet("too many: with fewer steps the error is small enough, and the least is asked for")


@check.exercise(3)
def pair_changes(answer: Any) -> str:
    """What a pair of spikes changes: in the data half, in the free half, and anywhere, on average."""
    rest = 6
    at_once, apart = coincidence_window(torch.tensor([0, -3]), rest).tolist()
    first, second, third = tensor("pair_changes", answer, [3]).tolist()

    def is_(value: float, wanted: float) -> bool:
        return abs(value - wanted) < 1e-3

    if is_(first, rest + 1):
        raise NotYet(
            "the first: they are on together for so many steps. But each is heard one step later: what is left?"
        )
    if is_(first, 0):
        raise NotYet("the first: a window of STDP may be 0 there. This one counts overlaps, and is highest there")
    if is_(first, -at_once) and is_(second, apart):
        raise NotYet("the signs are in each other's place: in which half does the rule add?")
    if is_(first, -at_once):
        raise NotYet("the first has the wrong sign: in the data half the rule adds")
    if not is_(first, at_once):
        raise NotYet(f"the first is not {first:g}: the law of the figure, for this rest and a delay of 0")
    if is_(second, apart):
        raise NotYet("the second has the wrong sign. It depends on the half, and not on who fires first")
    if is_(second, 0):
        raise NotYet("the second: post before pre counts, too; the window is symmetric")
    if is_(abs(second), rest + 1 - 2) or is_(abs(second), rest + 1 - 4):
        raise NotYet("the second: that is one order of hearing alone; the rule takes the mean of both")
    if not is_(second, -apart):
        raise NotYet(f"the second is not {second:g}: for how many steps do they overlap, heard one step later?")
    if not is_(third, 0):
        raise NotYet("the third: half of such pairs fall where the rule adds. And the others?")
    return "The size tells how near the spikes were, and the sign tells only when in the cycle they came."


@check.exercise(4)
def pattern_gain(answer: Any) -> str:
    """What the pattern of weights brings beyond their sizes, with its interval."""
    rhythm, drawn, shuffled = (torch.tensor(row).double() for row in RUNS.values())
    mean, width = mean_and_interval((rhythm - shuffled).tolist())
    found, half = tensor("pattern_gain", answer, [2]).tolist()

    def is_(value: float, wanted: float) -> bool:
        return abs(value - wanted) < 6e-3

    if is_(found, (rhythm - drawn).mean().item()):
        raise NotYet("against the start at random sizes *and* pattern differ. Which rival has the same sizes?")
    if is_(found, (shuffled - drawn).mean().item()):
        raise NotYet("that is what the sizes bring; what does the pattern bring beyond them?")
    if is_(found, -mean):
        raise NotYet("the sign: the rhythm's start less the other one")
    if is_(found, width) and is_(half, mean):
        raise NotYet("the two are in each other's place: the mean comes first")
    if is_(found, mean - width) and is_(half, mean + width):
        raise NotYet("these are the two ends of the interval; its middle and half of its width are asked for")
    if is_(found, mean / 100):
        raise NotYet("that is a share; the accuracies are in per cent, so points are asked for")
    if not is_(found, mean):
        raise NotYet(f"the mean is not {found:g}: take, seed by seed, the difference to one of the two rivals")
    if is_(half, width):
        return "Against the start at random, sizes and pattern would have shared the praise."
    spread = (rhythm - shuffled).std().item()
    mistakes = {
        2 * width: "that is the whole width of the interval; half of it is asked for",
        -width: "it is a size, so it has no sign",
        width * math.sqrt(4 / 5): "the standard deviation is that of five values for a whole: divide by 4, not by 5",
        spread: "that is the standard deviation of one difference, and the interval is that of their mean",
        spread / math.sqrt(5): "that is the standard error; `mean_and_interval` multiplies it by Student's factor",
        1.96 * spread / math.sqrt(5): "with five seeds the factor is Student's, not 1.96",
        mean_and_interval(rhythm.tolist())[1]: "that is of one start alone; the differences are paired, seed by seed",
        mean_and_interval((rhythm - shuffled).tolist(), 2)[1]: "only one comparison is made here",
        mean_and_interval((rhythm - shuffled).tolist(), 4)[1]: "only one comparison is made here",
    }
    for value, words in mistakes.items():
        if is_(half, value):
            raise NotYet(f"the mean is right, and the half-width: {words}")
    raise NotYet(f"the mean is right, and the half-width is not {half:g}: `mean_and_interval` gives it for differences")


# Per cent right for five seeds, as the exercise gives them.
RUNS = {
    "by the rhythm": [91, 90, 92, 91, 90],
    "at random": [87, 88, 88, 87, 86],
    "shuffled": [90, 89, 90, 91, 89],
}


@check.exercise(5)
def both_on(answer: Any) -> str:
    """How probable it is that both neurons of the smallest machine are on."""
    weight = 2.0
    e = math.exp(weight)
    found = number("both_on", answer, 0)
    mistakes = {
        e: "that is no probability: have you divided by Z, the sum over the four states?",
        e / 4: "the four states are not alike: Z is the sum of their four exponentials",
        1 / e: "look at the sign: a state of *low* energy is probable. And divide by Z",
        3 / (3 + e): "that is how probable it is that they are *not* both on",
        1 / (1 + 1 / e): "that is how probable one is, given that the other is on",
        1 / (3 + e): "that is how probable another state is: which sign has the energy of both on?",
        1 / e / (3 + 1 / e): "look at the sign: a state of *low* energy is probable",
        e / (2 + e): "how many states are there besides the one with both on?",
        e / (4 + e): "in Z the state with both on is counted once, and how often does each other occur?",
        (1 + e) / (3 + e): "that is how probable it is that one of them is on, whatever the other does",
        weight / (3 + weight): "the weight alone is no probability: take the exponential of minus the energy",
        0.25: "all four states would be alike without a weight",
    }
    for value, words in mistakes.items():
        if abs(found - value) < 6e-4:
            raise NotYet(words)
    number("both_on", answer, share=True)
    if abs(found - e / (3 + e)) > 6e-4:
        raise NotYet(f"{found:g} is not it, to three digits: which energies have the four states, and what is Z?")
    return "A sum over four states is easy. With 784 pixels there are too many, and so one has to wander."


@check.exercise(6)
def share_uncorrected(answer: Any) -> str:
    """The share of time on without the correction, for random potentials and rests, against the chain's own balance."""
    asked = function("share_uncorrected", answer)
    generator = torch.Generator().manual_seed(60)
    cases = [(-1.0, 3), (0.0, 9)]  # at 0 several slips make the same number
    for _ in range(6):
        u = round(float(4 * torch.rand(1, generator=generator).item() - 2), 2)
        cases.append((u, int(torch.randint(1, 15, (1,), generator=generator))))
    for u, rest in [*cases, (0.7, 0)]:
        answered = _share(asked, u, rest)
        found = number("what share_uncorrected returns", answered)
        right = _on(u, rest)
        if abs(found - right) < 6e-4:
            continue
        told = f"for the potential {u:g} and a rest of {rest}"
        for value, words in _slips(u, rest).items():
            if abs(found - value) < 6e-4:
                raise NotYet(f"{told}: {words}")
        number("what share_uncorrected returns", answered, share=True)
        raise NotYet(f"{told} it is not {found:.4g}: how long is it off, on average, and how long on?")
    return "So the correction is needed: without it each neuron has a bias that nobody gave it."


def _share(asked: Callable[..., Any], u: float, rest: int) -> Any:
    """What the function answers to numbers; to tensors, if it can only work with these."""
    try:
        return ask("share_uncorrected", asked, u, rest)
    except NotYet:
        return ask("share_uncorrected", asked, torch.tensor(u).double(), torch.tensor(rest).double())


def _on(u: float, rest: int) -> float:
    """The share of time on, from the chain over the steps left: 0 to rest + 1, by its balance."""
    fire, n = 1 / (1 + math.exp(-u)), rest + 2
    chain = torch.zeros(n, n, dtype=torch.float64)
    for left in range(n):
        may = left <= 1
        chain[left, rest + 1] += fire if may else 0.0
        chain[left, max(left - 1, 0)] += 1 - fire if may else 1.0
    system = torch.cat([chain.T - torch.eye(n, dtype=torch.float64), torch.ones(1, n, dtype=torch.float64)])
    target = torch.zeros(n + 1, 1, dtype=torch.float64)
    target[-1] = 1
    settled = torch.linalg.lstsq(system, target).solution
    return 1 - float(settled[0])


def _slips(u: float, rest: int) -> dict[float, str]:
    fire, wait = 1 / (1 + math.exp(-u)), math.exp(-u)
    low = _logistic(u - math.log(rest + 1))
    return {
        fire: "that is the corrected neuron's share; this one lacks the correction",
        low: "that takes the correction off once more; this neuron is on for longer, not for less",
        rest / (rest + wait): "after a spike it is on for the rest, and for the step of the spike itself",
        (rest + 1)
        / (rest + 1 + 1 / fire): "it may fire again in its last step on, so it is off for fewer steps than that",
        1 / (rest + 1 + wait): "that is how often it fires; it is on for longer than for the step of a spike",
        wait / (rest + 1 + wait): "that is the share for which it is off",
        (rest + 1) * fire: "while it is on it cannot fire, but for its last step: so spikes are rarer",
        min(1.0, (rest + 1) * fire): "while it is on it cannot fire, but for its last step: so spikes are rarer",
        1 + wait / (rest + 1): "the quotient is turned round",
        1 / (1 + 1 / wait / (rest + 1)): "look at the sign of the potential: the higher it is, the longer it is on",
        1 - (1 - fire) ** (rest + 1): "it does not toss a coin in each of these steps: while it is on it cannot fire",
    }


def _logistic(u: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-u))


@check.exercise(7)
def which_runs_backwards(visible: Any, both: Any, joint: Tensor, up: Tensor, down: Tensor) -> str:
    """The flow of the visible chain, and of the joint one, entry by entry."""
    p, ups, downs = (part.detach().cpu().double() for part in (joint, up, down))
    chance = p / p.sum(dim=0)
    if abs(float(p.sum()) - 1) > 1e-6 or not _alike(chance.T, ups) or not _alike((p.T / p.sum(dim=1)).T, downs):
        raise NotYet(
            "the tables `joint`, `up` and `down` do not fit together any more: something has changed them in place. Run"
            " the cells that make them again, and make new tensors from them"
        )
    n_visible, n_joint = len(ups), p.numel()
    of_visible = tensor("visible_flow", visible, [n_visible, n_visible])
    of_joint = tensor("joint_flow", both, [n_joint, n_joint])

    chances, moves = p.sum(dim=0), ups @ downs
    right = chances[:, None] * moves
    if not _alike(of_visible, right):
        for wrong, words in (
            (moves, "these are the transitions, and not the flow yet: how probable is the state that they start from?"),
            (chances * moves, "each *row* starts from a state; you have multiplied the columns"),
            (chances.expand(n_visible, -1) * chances[:, None], "these are two states that do not know of each other"),
        ):
            if _alike(of_visible, wrong):
                raise NotYet(f"visible_flow: {words}")
        raise NotYet(
            "visible_flow is not that. Block Gibbs sampling is reversible: did you multiply each row by the probability"
            " of its state?"
        )

    def joint_flow(new: Tensor) -> Tensor:
        return p.flatten()[:, None] * new

    sequence = torch.einsum("vk,kw->vkw", ups, downs).reshape(n_visible, n_joint).repeat(len(downs), 1)
    right = joint_flow(sequence)
    if _alike(of_joint, right):
        return "Backwards, the joint chain would draw v first and h after it. The visible states do not notice."
    by_old = torch.einsum("vl,kw->kvlw", ups, downs).reshape(n_joint, n_joint)
    other = torch.arange(n_joint).view(len(downs), n_visible).T.flatten()
    for wrong, words in (
        (sequence, "each row has to be multiplied by the probability of its joint state"),
        (right.T, "that is the flow backwards: rows are now, columns next. Drawing v' before h' makes the same table"),
        (joint_flow(by_old), "that draws the new v from the *old* h; h' is drawn first, and v' from it"),
        (right[other][:, other], "the numbers of the states: `joint.flatten()` has h outside and v inside"),
        (p.flatten() * sequence, "each *row* starts from a state; you have multiplied the columns"),
    ):
        if _alike(of_joint, wrong):
            raise NotYet(f"joint_flow: {words}")
    if (of_joint - of_joint.T).abs().max() < 1e-12:
        raise NotYet("joint_flow: this chain is not reversible, and yours is. In which order are the new layers drawn?")
    raise NotYet("joint_flow is not that: which h' and which v' does a column name, and who is drawn from whom?")


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-4 * wanted.max())
