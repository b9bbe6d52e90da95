"""The checks of chapter 12's exercises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn_chapters.binary import ADDITION, MAC, WEIGHT, binary_step, surrogate_slope, surrogate_window
from snn_helpers.long.exercise import Check, NotYet, kind, letters, number
from snn_helpers.statistics import decide, decide_alike

check = Check()


@check.exercise(1)
def two_slopes(graded: Any, binary: Any) -> str:
    """The slope of (2 - o)² by a weight of 0.9, at the input 2 and the threshold 1.2, for both kinds of spike."""
    weight = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    (2 - (2 * weight - 1.2).relu()).square().backward()
    assert weight.grad is not None
    right = weight.grad.item()
    found, other = number("graded_slope", graded), number("binary_slope", binary)
    if _near(other, right) and _near(found, 0):
        raise NotYet("the two are in each other's place")
    _look(
        "graded_slope",
        found,
        right,
        {
            -right: "its size is right: does the loss grow or fall when the weight grows?",
            right / 2: "a factor is missing: the square has a derivative, and the charge grows with the weight by x",
            right / 4: "two factors are missing: the square has a derivative, and the charge grows with the weight",
            2 * (2 - 1.8) * -2: "what is the output at the charge 1.8? The threshold has to be taken off",
            (2 - 0.6) ** 2: "that is the loss itself; how fast it changes with the weight is asked for",
            2.0: "that is the slope of the output; go on to the loss by the chain rule",
            right * 0.9 / 2: "the charge is w x: what is its derivative by w, w or x?",
            0.0: "above its threshold the graded output does grow with the charge",
        },
        "go through the chain: weight, charge, output, loss",
    )
    _look(
        "binary_slope",
        other,
        0.0,
        {
            -4.0: "this takes the step's own derivative for 1. Is the spike larger if the charge is a little larger?",
            1.0: "that is the loss itself; how fast it changes with the weight is asked for",
            right: "the output is another one now: does it still grow with the charge?",
        },
        "move the weight a little, to 0.91: what becomes of the spike, and of the loss?",
    )
    return "Only the output has changed, and with it all that the loss can say to this weight."


@check.exercise(2)
def pairs_of_slopes(answer: Any) -> str:
    """Which of four pairs are the slopes of one function, by autograd's two derivatives of each."""
    found = letters("true_gradients", answer, "ABCD")
    missing = []
    for letter, pair in PAIRS.items():
        w1, w2 = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 1.3))
        g1, g2 = (slope + 0 * (w1 + w2) for slope in pair(w1, w2))
        first, second = torch.autograd.grad(g1, w2)[0], torch.autograd.grad(g2, w1)[0]
        if letter in found and not torch.isclose(first, second):
            raise NotYet(f"pair {letter} is not the gradient of anything: compare its ∂g₁/∂w₂ with its ∂g₂/∂w₁")
        if letter not in found and torch.isclose(first, second):
            missing.append(first.item())
    if missing:
        harmless = " That both are 0 does no harm." if missing == [0.0] else ""
        raise NotYet(
            "there is another true gradient among the pairs that you left out: of which of them are ∂g₁/∂w₂ and"
            f" ∂g₂/∂w₁ the same?{harmless}"
        )
    return "Pair B is of the chain's kind: one slope depends on the other weight, and nothing answers to it."


PAIRS: dict[str, Any] = {
    "A": lambda w1, w2: (2 * w1 * w2, w1**2),
    "B": lambda w1, w2: (w2, 0.0),
    "C": lambda w1, w2: (w1, 3 * w2),
    "D": lambda w1, w2: (w2**2, w1 * w2),
}


@check.exercise(3)
def told_or_alike(told: Any, within: Any) -> str:
    """Which of three comparisons tell two networks apart, and which show that they are within half a point."""
    apart, close = letters("told_apart", told, "ABC"), letters("within_half", within, "ABC")
    clear = {letter for letter, values in COMPARISONS.items() if decide(values) != "open"}
    for letter in sorted(apart - clear):
        raise NotYet(f"told_apart: the interval of {letter} holds 0, so chance alone may be behind it")
    if clear - apart:
        raise NotYet(
            "told_apart: of the pairs that you left out, at least one has an interval that does not hold 0: look at"
            " each of them with `mean_and_interval`"
        )
    for letter in sorted(close):
        if decide_alike(COMPARISONS[letter], 0.5) == "open":
            raise NotYet(
                f"within_half: the mean of {letter} is small, but its interval reaches beyond half a point:"
                " that nothing was shown does not show that they are alike"
            )
        if decide_alike(COMPARISONS[letter], 0.5) == "fails":
            raise NotYet(f"within_half: even the least that the interval of {letter} allows is above half a point")
    if any(decide_alike(values, 0.5) == "holds" for letter, values in COMPARISONS.items() if letter not in close):
        raise NotYet(
            "within_half: is there no pair whose whole interval lies within half a point, on either side of 0?"
        )
    return "So a difference may be clear and too small to matter, and one that is not clear may still be large."


COMPARISONS: dict[str, list[float]] = {
    "A": [0.1, 0.4, 0.2, 0.3, 0.2],
    "B": [-0.9, 0.8, 0.3, -0.4, 0.7],
    "C": [0.9, 1.1, 1.0, 0.8, 1.2],
}


@check.exercise(4)
def picojoules(arithmetic: Any, with_weights: Any) -> str:
    """Energy from 200 hidden neurons to 10 labels, of a spiking network and of an MLP, with and without the weights."""
    additions, macs = 200 * 0.1 * 20 * 10, 200 * 0.5 * 10
    right = {
        "arithmetic_pj": (ADDITION * additions, MAC * macs),
        "with_weights_pj": ((ADDITION + WEIGHT) * additions, (MAC + WEIGHT) * macs),
    }
    for (name, (spiking, ordinary)), answer in zip(right.items(), (arithmetic, with_weights)):
        if hasattr(answer, "tolist"):
            answer = answer.tolist()
        if not isinstance(answer, (list, tuple)) or len(answer) != 2:
            raise NotYet(f"{name} should be two numbers, the spiking network's and the MLP's, and is {kind(answer)}")
        one, other = (number(f"a part of {name}", part, 0) for part in answer)
        weighed = name == "with_weights_pj"
        each, each_mac = (ADDITION + WEIGHT, MAC + WEIGHT) if weighed else (ADDITION, MAC)
        if _near(one, ordinary, 0.01) and _near(other, spiking, 0.01):
            raise NotYet(f"{name}: the two are in each other's place; the spiking network's comes first")
        both = {
            "in {name} the {part} is given in nanojoules; picojoules are asked for": (spiking / 1000, ordinary / 1000),
            "in {name} the {part} counts messages; each of them goes to ten labels": (spiking / 10, ordinary / 10),
            "in {name} the {part} has the weights' reading alone; the arithmetic comes on top": (
                WEIGHT * additions if weighed else -1,
                WEIGHT * macs if weighed else -1,
            ),
            "in {name} the {part} has no reading of a weight yet": (
                ADDITION * additions if weighed else -1,
                MAC * macs if weighed else -1,
            ),
            "in {name} the {part} is a number of operations: each takes energy": (additions, macs),
        }
        for words, mistakes in both.items():
            for part, value, mistake in zip(("spiking network's part", "MLP's part"), (one, other), mistakes):
                if _near(value, mistake, 0.01):
                    raise NotYet(words.format(name=name, part=part))
        _look(
            f"the spiking network's part of {name}",
            one,
            spiking,
            {
                spiking / 20: "that is one step; there are twenty, and a weight is added in each step with a spike",
                10 * spiking: "that lets each neuron fire in every step",
                MAC / ADDITION * spiking: "a spike of 1 needs no multiplication: what does an addition take?",
                (MAC + WEIGHT) * additions: "a spike of 1 needs no multiplication: what does an addition take?",
                each * 200 * 0.1 * 10 * 20 / 2: "half of the MLP's neurons are 0; the spiking ones fire in a tenth",
                ADDITION * additions + WEIGHT * 2000: "a weight is read each time a spike arrives, not once an image",
                ADDITION * additions + WEIGHT * 200: "a weight is read each time a spike arrives, not once an image",
            },
            "how many spikes are there in an image, and how many weights does each of them meet?",
            0.01,
        )
        _look(
            f"the MLP's part of {name}",
            other,
            ordinary,
            {
                2 * ordinary: "half of its hidden neurons are 0, and zeros are skipped",
                20 * ordinary: "an MLP answers in one pass, not in twenty steps",
                (each_mac - ADDITION) * macs: "that is without the additions: a MAC multiplies and adds",
                each * macs: "that is without the multiplications: a MAC multiplies and adds",
            },
            "how many hidden neurons are not 0, and how many weights does each of them meet?",
            0.01,
        )
    return "The spiking network is ahead by arithmetic and behind by memory: it fetches the same weights many times."


@check.exercise(5)
def at_another_step(tau: Any, resistance: Any) -> str:
    """NIR's τ (in ms) and R for β = 0.8, where the reader takes Euler steps of 0.5 ms."""
    found, other = number("tau_ms", tau, 0), number("resistance", resistance, 0)
    step, decay = 0.5, 0.8
    right, right_resistance = step / (1 - decay), 1 / (1 - decay)
    if _near(found, right_resistance) and _near(other, right):
        raise NotYet("the two are in each other's place")
    _look(
        "tau_ms",
        found,
        right,
        {
            0.1 / (1 - decay): "this is for steps of 0.1 ms, and the reader takes longer ones",
            right / 1000: "that is in seconds; milliseconds are asked for",
            1000 * right: "that is in microseconds; milliseconds are asked for",
            step / decay: "this divides by β; which share of the state does one Euler step take away?",
            1 / (1 - decay): "that is counted in steps; how long is a step here?",
            2.2407: "that solves the equation exactly over a step, as chapter 1 does; this reader takes Euler steps",
            step * (1 - decay): "turn it round: a larger share that is kept should make τ longer",
            1.0: "that is for β = 0.9 of chapter 1 at steps of 0.1 ms",
            5.0: "that is for another β; here it is 0.8",
        },
        "in an Euler step the state loses the share step / τ, and this has to be what the leak takes",
    )
    _look(
        "resistance",
        other,
        right_resistance,
        {
            right / 0.1: "the step to divide by is this reader's, not 0.1 ms",
            1 - decay: "turn it round: with this R the current would arrive weakened",
            1.0: "with R = 1 only the share step / τ of the current would arrive in a step; all of it should",
            10.0: "that is for another β; here it is 0.8",
            right: "that is τ itself; divide it by the length of a step",
        },
        "in an Euler step the current enters with the factor R · step / τ, and it should be 1",
    )
    return "At another step the same file would be another network: the reader's step belongs to the agreement."


@check.exercise(6)
def quarter(answer: Any) -> str:
    """The distance at which the fast sigmoid of slope 10 is down to a quarter."""
    found = number("quarter", answer)
    if found < 0:
        raise NotYet("a distance is not below 0; the surrogate is the same on both sides, so give its size")
    height = surrogate_slope(torch.tensor(found, dtype=torch.float64), "fast sigmoid", 10.0).item()
    if abs(height - 0.25) < 2e-3:
        return "Twice the slope would halve this distance: the slope alone says how near is near."
    if _near(found, 0.3):
        raise NotYet("too far: the square is left out")
    if _near(found, 1.0):
        raise NotYet("too far: that is slope times distance; the distance alone is asked for")
    if _near(found, 10.0):
        raise NotYet("too far: is that per cent of the threshold? Give it in the unit of the charge")
    if abs(height - 0.5) < 5e-3:
        raise NotYet("too near: there it is still at half of its height")
    raise NotYet(f"too {'near' if height > 0.25 else 'far'}: at {found:g} it is {height:.3f} of its height")


@check.exercise(7)
def levels(zero: Any, subtract: Any) -> str:
    """How many numbers of spikes one neuron can give in 25 steps, by the reset."""
    names = {"levels_zero": ("zero", zero), "levels_subtract": ("subtract", subtract)}
    found = {
        name: int(number(name, answer, 0, whole=True, what="a count of different numbers"))
        for name, (_, answer) in names.items()
    }
    right = {name: {_n_levels(reset, dtype=dtype) for dtype in DTYPES} for name, (reset, _) in names.items()}
    assert max(right["levels_zero"]) * 2 < min(right["levels_subtract"])
    if all(found[name] in right[other] for name, other in zip(right, reversed(right))):
        raise NotYet("the two are swapped: which reset forgets by how much the threshold was exceeded?")
    for name, (reset, _) in names.items():
        value, wanted = found[name], right[name]
        if value in wanted:
            continue
        if value == 1000:
            raise NotYet(f"{name}: count the different numbers of spikes, not the currents: see torch.unique")
        if value == max(_counts(reset).tolist()):
            raise NotYet(f"{name}: that is the largest number of spikes; no spikes at all is a number, too")
        if value == 1:
            raise NotYet(f"{name}: does each step begin with the state that the last one left?")
        if value in right["levels_subtract" if name == "levels_zero" else "levels_zero"]:
            raise NotYet(f"{name}: that is what the other reset gives. Is it handed to `binary_step`?")
        if value in {_n_levels(reset, n_steps=n) for n in (24, 26)} | {w + d for w in wanted for d in (-1, 1)}:
            raise NotYet(
                f"{name}: is it 25 steps, neither one fewer nor one more? And is each number that comes up counted,"
                " no spikes at all among them?"
            )
        if value == 25 or value == 26:
            raise NotYet(f"{name}: not every number from 0 to 25 comes up; count those that do")
        if value in {_n_levels(reset, decay=decay) for decay in (0.0, 0.5)}:
            raise NotYet(f"{name}: is the decay 0.9?")
        if value == int(_counts(reset).sum()):
            raise NotYet(f"{name}: that is the sum of all spikes; count how many different numbers there are")
        raise NotYet(f"{name}: not quite. Count the spikes of each current over all steps, then the different counts")
    return "With the reset to zero, many currents give one and the same answer: all that is above θ is thrown away."


DTYPES = (torch.float64, torch.float32)


def _counts(reset: str, n_steps: int = 25, decay: float = 0.9, dtype: torch.dtype = torch.float64) -> Tensor:
    currents = torch.linspace(0, 1, 1000, dtype=dtype)
    state, n_spikes = torch.zeros_like(currents), torch.zeros_like(currents)
    for _ in range(n_steps):
        spike, state = binary_step(currents, state, decay=decay, threshold=1.0, reset=reset)
        n_spikes = n_spikes + spike
    return n_spikes


def _n_levels(reset: str, n_steps: int = 25, decay: float = 0.9, dtype: torch.dtype = torch.float64) -> int:
    return len(_counts(reset, n_steps, decay, dtype).unique())


@check.exercise(8)
def late_credit(answer: Any) -> str:
    """What a pulse five steps after the spike earns, summed over the windows of all steps."""
    found = number("late_credit", answer)
    right = _credit(25, range(31))
    height = 1 / (1 + 3.0 * 0.2) ** 2  # of the surrogate at each near miss
    assert not _near(_credit(15, range(31)), right), "the two sides of the spike must differ"
    assert right > 1 and _near(right, sum(height * 0.9**n for n in range(6)), 1e-9)
    said = "So with a surrogate late input is not punished either: it is even rewarded for what nearly happened."
    if _near(found, right):  # the mistakes take a while
        return said
    if found < 0:
        raise NotYet("each near miss earns something positive: nothing here turns the sign")
    _look(
        "late_credit",
        found,
        right,
        {
            0.0: "the spike's own window is zero there, but the loss counts the other steps, too",
            height: "this is the pulse's own step alone: the charge lasts, and later steps count too",
            _credit(25, range(30)): "a step is missing at the end: the last one is ten after the spike",
            _credit(25, range(26, 31)): "the pulse's own step is missing: it is raised by the pulse at once",
            6 * height: "the charge leaks, so each later step earns less",
            6.0: "the charge leaks, and each near miss has the surrogate's height, which is not 1",
            (1 - 0.9**6) / 0.1: "that is the leak alone; each near miss has the surrogate's height, which is not 1",
            (1 - 0.9**6) / 0.1 / 1.6: "the square of the fast sigmoid's derivative is left out",
            height * sum(0.9**n for n in range(5, 11)): "the leak counts from the pulse on, not from the spike",
            height / 0.1: "that goes on for ever; the loss counts the steps to the tenth after the spike",
            _credit(15, range(31)): "that is for a pulse five steps before the spike",
            _credit(25, range(31), slope=10.0): "that is for slope 10, which the function takes if none is given",
            _credit(25, range(31), detach=False): "that is with the reset not detached",
            _credit(25, range(31), detach=False, reset="subtract"): "that is with the reset not detached",
            _credit(25, range(31), shape="arctan"): "that is for another shape of the surrogate",
            right / 31: "that is the mean over the steps; their sum is asked for",
            right / 6: "that is the mean over the steps; their sum is asked for",
        },
        "add what the pulse earns from each step from its own on: a geometric series of near misses",
    )
    return said


def _credit(t_pulse: int, steps: Sequence[int], slope: float = 3.0, **settings: Any) -> float:
    voltages = [0.8] * 31
    voltages[20] = 1.6
    return sum(surrogate_window([t - t_pulse], voltages, t, slope=slope, **settings).item() for t in steps)


# --- shared by several ---------------------------------------------------------------------------


def _near(value: float, wanted: float, share: float = 3e-3) -> bool:
    return abs(value - wanted) <= share * max(abs(wanted), 0.1)


def _look(name: str, value: float, right: float, mistakes: dict[float, str], else_: str, share: float = 3e-3) -> None:
    """Say what is wrong with `value`, by the usual mistakes and else by `else_`; nothing if it is right."""
    if _near(value, right, share):
        return
    for mistake, words in mistakes.items():
        if _near(value, mistake, share):
            raise NotYet(f"{name}: {words}")
    raise NotYet(f"{name}: {value:g} is not it; {else_}")
