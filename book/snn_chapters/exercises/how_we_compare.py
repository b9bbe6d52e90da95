"""The checks of the exercises in "How we compare"."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import stdev
from typing import Any

import numpy as np
from torch import Tensor

from snn_helpers.long.exercise import Check, NotYet, ask, kind, number
from snn_helpers.statistics import decide_alike

check = Check()


def _power(effect: float, n: int, tails: int = 2) -> float:
    """How often n seeds show a difference of so many standard deviations."""
    from scipy.stats import nct, t

    least, moved = t.ppf(1 - 0.05 / tails, n - 1), effect * math.sqrt(n)
    return float(nct.sf(least, n - 1, moved) + (nct.cdf(-least, n - 1, moved) if tails == 2 else 0))


@check.exercise(1)
def n_needed(answer: Any) -> str:
    """The fewest seeds that find a difference of one standard deviation in 80 %."""
    found = number("n_needed", answer, 2, what="a number of seeds")
    if found != round(found):
        raise NotYet(f"n_needed should be a whole number of seeds, and is {found:g}")
    n = round(found)
    if n > 10_000:
        raise NotYet("so many are never needed for a difference of one standard deviation: take fewer")
    if math.ceil((1.96 + 0.8416) ** 2) == n:
        raise NotYet(
            "that would be enough if s were known, or for a test on one side only; the seeds have to guess s, and the"
            " book's interval has two sides: take more"
        )
    if _power(1.0, n) < 0.8:
        raise NotYet(f"{n} seeds find it in {_power(1.0, n):.0%} only: take more")
    if n > 2 and _power(1.0, n - 1) >= 0.8:
        raise NotYet("fewer seeds would do: take fewer")
    return "About twice as many as this book has; so what is as small as that, the book often misses."


@check.exercise(2)
def alike_at_5(answer: Any) -> str:
    """Two one-sided tests, case by case, for several numbers of seeds, and close to the edge."""
    from scipy.stats import t

    rng = np.random.default_rng(20)
    wrong, open_to_alike = [], 0
    for i in range(120):
        n = (3, 5, 8)[i % 3]
        values = [float(v) for v in 0.2 * rng.normal(size=n) + rng.uniform(-0.3, 0.3)]
        margin = float(rng.uniform(0.3, 0.7))
        if i % 4 == 0:  # close to the edge, on either side of it
            edge = abs(sum(values) / n) + float(t.ppf(0.95, n - 1)) * stdev(values) / math.sqrt(n)
            margin = edge * (1.002 if i % 8 else 0.998)
        mine, book = _alike(values, margin, 0.90), decide_alike(values, margin) == "holds"
        assert mine or not book
        open_to_alike += mine and not book
        yours = _truth(ask("alike_at_5", answer, values, margin))
        wrong.append((values, margin, yours, mine, book))
    assert open_to_alike > 5
    if all(yours == mine for _, _, yours, mine, _ in wrong):
        return "Tests at 5 % each read the 90 % interval: the book asks more than that before it says *alike*."
    if all(yours == book for _, _, yours, _, book in wrong):
        raise NotYet("no case more than by the 95 % interval: for two tests at 5 % each, which interval is it?")
    if all(yours is not mine for _, _, yours, mine, _ in wrong):
        raise NotYet("it says True where it should say False, and the other way round")
    if len({yours for _, _, yours, _, _ in wrong}) == 1:
        raise NotYet(f"it says {wrong[0][2]} to all of 120 cases")
    mistakes: dict[str, Callable[[list[float], float], Any]] = {
        "it looks at the mean alone: how far can that be trusted?": lambda v, m: abs(np.mean(v)) < m,
        "it looks at the width of the interval alone: where the interval lies counts too": lambda v, m: (
            _half(v, 0.90) < m
        ),
        "it adds the differences up, and the interval is that of their mean": lambda v, m: (
            abs(sum(v)) + _half(v, 0.90) < m
        ),
        "each difference by itself does not decide; how far can their mean be trusted?": lambda v, m: (
            max(abs(value) for value in v) < m
        ),
        "differences of both signs cancel in a mean; yours takes their sizes first": lambda v, m: (
            sum(abs(value) for value in v) / len(v) + _half(v, 0.90) < m
        ),
        "it asks whether 0 is inside the interval; that is *not seen*, and not *alike*": lambda v, m: (
            abs(np.mean(v)) < _half(v, 0.95)
        ),
        "the mean of the differences has a sign: a difference may be too large on either side": lambda v, m: (
            np.mean(v) + _half(v, 0.90) < m
        ),
        "the mean of the differences has a sign, and it may be too large on either side": lambda v, m: (
            np.mean(v) - _half(v, 0.90) > -m
        ),
        "that is the interval of the level 80 %; each of the two tests is at 5 %": lambda v, m: _alike(v, m, 0.80),
        "the spread of the differences is divided by n; a mean's is divided by the root of n": lambda v, m: (
            abs(np.mean(v)) + _half(v, 0.90) / math.sqrt(len(v)) < m
        ),
        "the standard deviation divides by n - 1, since the mean is guessed too": lambda v, m: (
            abs(np.mean(v)) + _half(v, 0.90) * math.sqrt((len(v) - 1) / len(v)) < m
        ),
        "with so few seeds the factor is Student's, not the normal curve's": lambda v, m: (
            abs(np.mean(v)) + 1.645 * stdev(v) / math.sqrt(len(v)) < m
        ),
        "that is the normal curve's factor, of the 95 % interval: which interval is it, and how few are the seeds?": (
            lambda v, m: abs(np.mean(v)) + 1.96 * stdev(v) / math.sqrt(len(v)) < m
        ),
        "the standard error alone is not the half of an interval: a factor is missing": lambda v, m: (
            abs(np.mean(v)) + stdev(v) / math.sqrt(len(v)) < m
        ),
        "that is the spread of single differences; their mean's is smaller": lambda v, m: (
            abs(np.mean(v)) + _half(v, 0.90) * math.sqrt(len(v)) < m
        ),
        "Student's t is that of 5 seeds; it should be that of the differences that are given": lambda v, m: (
            abs(np.mean(v)) + float(t.ppf(0.95, 4)) * stdev(v) / math.sqrt(len(v)) < m
        ),
        "Student's t has n - 1 degrees of freedom": lambda v, m: (
            abs(np.mean(v)) + float(t.ppf(0.95, len(v))) * stdev(v) / math.sqrt(len(v)) < m
        ),
        "the margin is half a point whatever it is given": lambda v, m: _alike(v, 0.5, 0.90),
    }
    for words, mistake in mistakes.items():
        if all(yours == bool(mistake(values, margin)) for values, margin, yours, _, _ in wrong):
            raise NotYet(words)
    if any(book and not yours for _, _, yours, _, book in wrong):
        raise NotYet("what the 95 % interval calls alike, tests at 5 % must call alike too; yours refuses some of that")
    values, margin, yours, _, _ = next(row for row in wrong if row[2] != row[3])
    told = ", ".join(f"{value:.2f}" for value in values)
    raise NotYet(f"within ± {margin:.2f}, it says {yours} to the differences {told}, and both tests at 5 % disagree")


def _half(values: list[float], level: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def _alike(values: list[float], margin: float, level: float) -> bool:
    return abs(sum(values) / len(values)) + _half(values, level) < margin


def _truth(value: Any) -> bool:
    """True or False, of Python, of NumPy, or of a tensor with one element."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and np.asarray(value).size == 1:
        value = np.asarray(value).item()
    if not isinstance(value, bool):
        raise NotYet(f"alike_at_5 should return True or False, and returns {kind(value)}")
    return value
