"""The checks of chapter 8's exercises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_chapters.credit import rule_steps, two_sided
from snn_helpers.long.exercise import Check, NotYet, ask, kind, number, tensor
from snn_helpers.statistics import decide, mean_and_interval

check = Check()


def _near(one: Tensor, other: Tensor, share: float = 1e-3) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= share * max(other.norm().item(), 1e-9))


@check.exercise(1)
def decision(answer: Any) -> str:
    """The chapter's decision, on made-up figures of five seeds whose intervals do not end near the margin."""
    generator = torch.Generator().manual_seed(81)
    cases: list[tuple[list[float], list[float], float]] = []
    yours: list[str] = []
    while len(cases) < 150:
        level, spread, common, margin = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        margin = [0.05, 0.1, 0.2][int(3 * margin)]
        null = 0.3 * common + 0.2 * torch.randn(5, generator=generator, dtype=torch.float64)
        values = null + 0.5 * level - 0.1 + 0.2 * spread**2 * torch.randn(5, generator=generator, dtype=torch.float64)
        mean, half = mean_and_interval((values - null).tolist())
        if abs(abs(mean - margin) / half - 1) > 0.03 and abs(mean - margin) / half > 0.12:
            cases.append((values.tolist(), null.tolist(), margin))
    for values_, null_, margin in cases:
        told = ask("decision", answer, values_, null_, margin)
        if not isinstance(told, str) or told not in ("holds", "fails", "open"):
            raise NotYet(f'decision should return "holds", "fails" or "open"; it returns {kind(told)}')
        yours.append(told)
    if yours == [decide(*case) for case in cases]:
        return 'The word "open" is the honest one: it says that these seeds cannot tell.'
    for words, others in _other_decisions(cases).items():
        if yours == others:
            raise NotYet(words)
    for told, case in zip(yours, cases):
        right = decide(*case)
        if told != right:
            mean, half = mean_and_interval([value - null for value, null in zip(*case[:2])])
            raise NotYet(
                f"in one case the differences are {mean:+.3f} ± {half:.3f} and the margin is {case[2]:g}, and you say"
                f' "{told}"'
            )
    raise AssertionError("one of them differs")


def _other_decisions(cases: Sequence[tuple[list[float], list[float], float]]) -> dict[str, list[str]]:
    def by(middle: float, half: float, margin: float) -> str:
        return "holds" if middle - half > margin else "fails" if middle + half < margin else "open"

    found: dict[str, list[str]] = {}
    for values, nulls, margin in cases:
        gains = [value - null for value, null in zip(values, nulls)]
        (mean, half), right = mean_and_interval(gains), decide(values, nulls, margin)
        of_values, of_nulls = mean_and_interval(values), mean_and_interval(nulls)
        others = {
            "the null is left out: it is the *difference* to the null that must pass the margin": decide(
                values, 0.0, margin
            ),
            "the margin is left out: above the null is not enough": decide(gains),
            "without the interval there is no open: the mean alone decides in your function": by(mean, 0.0, margin),
            'what does not hold need not fail: "open" is where the interval reaches over the margin': (
                "holds" if right == "holds" else "fails"
            ),
            "holds and fails are in each other's place": {"holds": "fails", "fails": "holds"}.get(right, right),
            "value and null are in each other's place": decide(nulls, values, margin),
            "seeds belong together: take the difference seed by seed, and the interval of these differences": by(
                of_values[0] - of_nulls[0], of_values[1], margin
            ),
            "seeds belong together: the two intervals are not to be compared as if each had seeds of its own": by(
                of_values[0] - of_nulls[0], of_values[1] + of_nulls[1], margin
            ),
            "the interval is that of a single seed: the mean of five is known better": by(
                mean, half * math.sqrt(5), margin
            ),
            "1.96 is for many seeds; five tell less, and Student's factor is larger": by(
                mean, half * 1.96 / 2.776, margin
            ),
            "the spread of so few seeds is divided by one less than their number; yours comes out too small": by(
                mean, half * math.sqrt(4 / 5), margin
            ),
            "that is one standard error; the interval is wider": by(mean, half / 2.776, margin),
            "it asks each single seed; the interval of the mean decides": (
                "holds"
                if all(gain > margin for gain in gains)
                else "fails"
                if all(gain < margin for gain in gains)
                else "open"
            ),
        }
        for words, told in others.items():
            found.setdefault(words, []).append(told)
    return found


@check.exercise(2)
def fitted(answer: Any) -> str:
    """The window fitted by least squares to all delays at once, on counts of pairs that go together."""
    generator = torch.Generator().manual_seed(82)
    for n_delays, n_weights in ((4, 60), (6, 90), (3, 50)):
        common = torch.rand(n_weights, generator=generator, dtype=torch.float64)
        own = torch.rand(n_delays, n_weights, generator=generator, dtype=torch.float64)
        counts = (12 * (0.6 * common + 0.4 * own)).round()  # where pairs are many at one delay, they are at the others
        window = torch.randn(n_delays, generator=generator, dtype=torch.float64)
        step = window @ counts + 0.5 * torch.randn(n_weights, generator=generator, dtype=torch.float64)
        yours = tensor("fitted_window(...)", ask("fitted_window", answer, step, counts), [n_delays])
        right = torch.linalg.lstsq(counts.T, step[:, None]).solution[:, 0]
        if _near(yours, right):
            continue
        centred = counts - counts.mean(dim=1, keepdim=True)
        with_constant = torch.linalg.lstsq(centred.T, (step - step.mean())[:, None]).solution[:, 0]
        mistakes = {
            "that is the *mean change*: it gives each delay the whole step of a weight, and here pairs at"
            " two delays come together": counts @ step / counts.sum(dim=1),
            "each delay is fitted by itself; fit them all at once, or one delay gets what another has done": (
                counts @ step / counts.square().sum(dim=1)
            ),
            "that is how step and counts go together, not yet which window explains the step": counts @ step,
            "the shape is right; do not divide by the largest entry": right / right.abs().max(),
            "the shape is right, the signs are turned": -right,
            "a constant was fitted as well: a weight without any pair shall not change": with_constant,
        }
        for words, value in mistakes.items():
            if _near(yours, value):
                raise NotYet(words)
        raise NotYet(
            "another window comes nearer to the step: least squares, over all weights and for all delays at once"
        )
    return "The inputs were correlated over time, and the fit was not fooled: it has the window, not the statistics."


@check.exercise(3)
def weight_gradient(answer: Any) -> str:
    """Signal times input, summed, against autograd in three layers of which none has a spike."""
    generator = torch.Generator().manual_seed(83)
    for layer, n_steps in (("leaky", 7), ("tanh", 5), ("relu", 1)):
        inputs = torch.randn(n_steps, 6, 5, generator=generator, dtype=torch.float64)
        goal = torch.randn(n_steps, 6, 3, generator=generator, dtype=torch.float64)
        weight = torch.randn(3, 5, generator=generator, dtype=torch.float64).requires_grad_()
        currents = inputs @ weight.T
        if layer == "leaky":
            state, states = torch.zeros(6, 3, dtype=torch.float64), []
            for current in currents:
                state = current + 0.8 * state
                states.append(state)
            values = torch.stack(states)
        else:
            values = torch.tanh(currents) if layer == "tanh" else torch.relu(currents)
        signals, right = torch.autograd.grad((values - goal).square().sum(), (currents, weight))
        yours = ask("weight_gradient", answer, signals, inputs)
        if isinstance(yours, Tensor) and yours.shape == (5, 3):
            raise NotYet("the shape should be [n_post, n_pre], as that of the weights, and yours is turned round")
        yours = tensor("weight_gradient(...)", yours, [3, 5])
        if _near(yours, right):
            continue
        total = torch.einsum("tbj,tbi->ji", signals, inputs)
        mistakes = {
            "it is the descent, minus the gradient; the gradient itself is wanted": -total,
            "it is a sum over steps and examples, not a mean over both": total / (n_steps * 6),
            "it is a sum over the examples, not their mean": total / 6,
            "it is a sum over the steps, not their mean": total / n_steps,
            "the signal was averaged over time first, and the moments at which it counts are lost": (
                signals.mean(dim=0).T @ inputs.sum(dim=0)
            ),
            "signal and input were each averaged over time first: rates are left, and no pairs": (
                signals.mean(dim=0).T @ inputs.mean(dim=0)
            ),
            "signal and input were each summed over time first: each step must meet its own input": (
                signals.sum(dim=0).T @ inputs.sum(dim=0)
            ),
            "of all steps only the last one is there": signals[-1].T @ inputs[-1],
            "the signs alone are there; the sizes count": signals.sign().flatten(0, 1).T @ inputs.flatten(0, 1),
        }
        for words, value in mistakes.items():
            if _near(yours, value):
                raise NotYet(words)
        raise NotYet("autograd finds another gradient; by the chain rule it is a sum of products, one for each step")
    return "It was tried on a ReLU, a tanh and a leaky layer without any spike: the law has nothing to do with Hebb."


@check.exercise(4)
def paid_late(answer: Any) -> str:
    """A pulse one step after each spike of a train with a period of 5."""
    found = number("paid_late", answer)
    if abs(found - 0.9**4) <= 5e-3:
        return "So late input earns, and from the next spike: no fast train depresses here."
    mistakes = {
        0.0: "the spike before it pays nothing, but the next one does",
        0.9**5: "the pulse comes one step after a spike: count the steps to the next one again",
        0.9**3: "count the steps to the next spike again: the pulse comes one step after the last one",
        0.9: "one step is how late it comes after a spike; how far is it to the next one?",
        0.9**4 / (1 + 0.5 * 0.9**5): "with the scale reset later spikes would pay, too; discharge cuts",
        0.9**4 / (1 - 0.9**5): "beyond the next spike nobody pays: the reset of that spike, discharge, cuts",
        -(0.9**4): "the size is right; the loss asks each spike for more, and a pulse before a spike helps it",
        -0.9: "no spike looks back: nothing is taken from a pulse because a spike came before it",
        65.61: "a share is wanted, not per cent",
    }
    for value, words in mistakes.items():
        if abs(found - value) < 2e-3:
            raise NotYet(words)
    raise NotYet("which spike can this pulse still change, and how many steps does what is left of it leak until then?")


@check.exercise(5)
def by_chance_alone(answer: Any) -> str:
    """The step that "pre first" takes in the mean over all orders of each neuron's spikes, in each example."""
    generator = torch.Generator().manual_seed(85)
    for n_steps, decay in ((12, 0.9), (9, 0.6)):
        post = (torch.rand(n_steps, 4, 3, generator=generator) < 0.35).double()
        pre = torch.rand(n_steps, 4, 6, generator=generator, dtype=torch.float64)
        answered = ask("by_chance_alone", answer, post, pre, decay)
        if isinstance(answered, dict):
            raise NotYet('that is all rules together; the step of "pre first" is wanted')
        yours = tensor("by_chance_alone(...)", answered, [3, 6])
        flat, flat_pre = (part.mean(dim=0, keepdim=True).expand_as(part) for part in (post, pre))
        rules = rule_steps(flat, pre, decay)
        right = rules["pre first"]
        if _near(yours, right, 1e-4):
            continue
        everyone = post.mean(dim=(0, 1), keepdim=True).expand_as(post)
        mistakes = {
            "that is the rule itself: the spikes are still where they were": rule_steps(post, pre, decay)["pre first"],
            "each example on its own: take the mean over time, not over the examples": (
                rule_steps(everyone, pre, decay)["pre first"]
            ),
            "it is the neuron's spikes that come in a random order; the inputs stay where they are": (
                rule_steps(post, flat_pre, decay)["pre first"]
            ),
            "both sides are flat; the inputs are to stay where they are": rule_steps(flat, flat_pre, decay)[
                "pre first"
            ],
            "each neuron fires as it fires: take the mean over time, not over the neurons": (
                rule_steps(post.mean(dim=2, keepdim=True).expand_as(post), pre, decay)["pre first"]
            ),
            "the spikes are still in their steps: take the mean over time, not over the examples": (
                rule_steps(post.mean(dim=1, keepdim=True).expand_as(post), pre, decay)["pre first"]
            ),
            "the size is right, the sign is turned": -right,
            "the rule's step is a sum over the examples, not their mean": right / post.shape[1],
            "a neuron keeps its number of spikes: yours fires as often in every step as in all together": n_steps
            * right,
            "what times add is the other part: here what chance alone makes of it is wanted": (
                rule_steps(post - flat, pre, decay)["pre first"]
            ),
            "the decay is an argument, and need not be 0.9": rule_steps(flat, pre, 0.9)["pre first"],
        } | {f'that is another rule, "{name}"': step for name, step in rules.items() if name != "pre first"}
        for words, value in mistakes.items():
            if _near(yours, value, 1e-4):
                raise NotYet(words)
        torch.manual_seed(86)
        again = tensor("by_chance_alone(...)", ask("by_chance_alone", answer, post, pre, decay), [3, 6])
        if not _near(yours, again, 1e-9):
            raise NotYet("that is drawn: the mean over all orders can be had without a random number")
        raise NotYet(
            "the mean over all orders is another step: the rule is a sum over spikes, so what is the mean train?"
        )
    return "Take this off the rule's step, and what is left is due to the times of the spikes alone."


@check.exercise(6)
def best_r(answer: Any, *, up: Tensor, down: Tensor, goal: Tensor) -> str:
    """The amount of depression nearest to a goal in direction."""
    found = number("best_r", answer)
    fit = two_sided(goal, up, down)

    def reached(r: float) -> float:
        return F.cosine_similarity((up - r * down).flatten(), goal.flatten(), dim=0).item()

    right = -fit["ratio"]
    if abs(found - right) <= 5e-3:
        return "Its sign says it: the window nearest to this goal potentiates on both sides."
    product, squares = (goal * down).sum().item(), down.square().sum().item()
    left = goal - up
    if abs(found + right) < 5e-3:
        raise NotYet("mind the sign: STDP *subtracts* r times the step with post first")
    if abs(abs(found) - abs(right * _of_up(up, down, goal))) < 1e-3:
        raise NotYet("that is the amount of `down` for all of `goal`; how much is it for one part of `up`?")
    alone = (product / squares, -product / squares, (left * down).sum().item() / squares)
    if any(abs(abs(found) - abs(value)) < 1e-3 for value in alone):
        raise NotYet("the two steps overlap: fit both amounts at once")
    if abs(found - 1 / right) < 5e-3 or abs(found + 1 / right) < 5e-3:
        raise NotYet("that is the amount of potentiation for one part of depression; the other way round")
    raise NotYet(
        f"{found:.4g} reaches a cosine of {reached(found):.4f}, and a {'larger' if right > found else 'smaller'} number"
        " more. The two steps overlap, so fit both at once"
    )


def _of_up(up: Tensor, down: Tensor, goal: Tensor) -> float:
    """The amount of `up` in the nearest sum of both."""
    sides = torch.stack([up.flatten(), down.flatten()], dim=1)
    return float(torch.linalg.lstsq(sides, goal.flatten()[:, None]).solution[0].item())


@check.exercise(7)
def at_random_times(answer: Any) -> str:
    """A null: each neuron's spikes at random steps of the same example, each neuron and example for itself."""
    n_steps, n_examples, n_neurons = 20, 40, 50
    draws = torch.Generator().manual_seed(87)
    spikes = (torch.rand(n_steps, n_examples, n_neurons, generator=draws) < 0.2).double()
    spikes[:, :, :20] = 0.0
    spikes[[3, 4], :, :20] = 1.0  # twenty neurons with one train, two spikes side by side

    def shuffled(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return tensor("at_random_times(...)", ask("at_random_times", answer, spikes, generator), list(spikes.shape))

    torch.manual_seed(1)
    found = shuffled(5)
    torch.manual_seed(2)
    again, other = shuffled(5), shuffled(6)
    if _near(found, spikes, 1e-9):
        raise NotYet("the spikes are still where they were")
    if not _near(found.sum(dim=0), spikes.sum(dim=0), 1e-9):
        if _near(found.sum(dim=(0, 1)), spikes.sum(dim=(0, 1)), 1e-9):
            raise NotYet("spikes went from one example to another; each has to stay in its own")
        if _near(found.sum(dim=(0, 2)), spikes.sum(dim=(0, 2)), 1e-9):
            raise NotYet("spikes went from one neuron to another; each neuron keeps its own")
        raise NotYet("a neuron should have as many spikes in an example as before: move them, do not draw new ones")
    if not _near(found, again, 1e-9):
        raise NotYet("the same generator, started anew, should give the same null: draw from `generator`")
    if _near(found, other, 1e-9):
        raise NotYet(
            "two generators give the same null: draw from the one that is handed over, with no seed of your own"
        )
    twins = found[:, :, :20]
    if _near(twins, twins[:, :, :1].expand_as(twins), 1e-9):
        if _near(twins, twins[:, :1].expand_as(twins), 1e-9):
            raise NotYet("one random order serves all: neurons that fired together still do")
        raise NotYet("the neurons of an example share one random order: those that fired together still do")
    if _near(twins, twins[:, :1].expand_as(twins), 1e-9):
        raise NotYet("all examples share one random order of each neuron: give each its own")
    side_by_side = (twins * twins.roll(1, dims=0)).sum(dim=0).clamp(max=1).mean().item()
    if side_by_side > 0.5:
        raise NotYet("the trains are moved as a whole: spikes that came side by side still do. Move each for itself")
    expected = spikes.mean().item()
    by_step = found.mean(dim=(1, 2))
    if bool(((by_step - expected).abs() > 6 * math.sqrt(expected / (n_examples * n_neurons))).any()):
        raise NotYet("some steps get more spikes than others: every step should be as likely")
    return "A cosine that this null reaches as well has nothing to do with when a neuron fired."
