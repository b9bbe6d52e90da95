"""What to try next until `tuning.choose` can choose, so that a record of a tuning ends with a choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..records import load_results
from ..tuning import Scores, means, scores_of

# The preferred numbers E12: twelve a decade, each at most 1.25 times the one before.
PER_DECADE = (1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)
COARSE = 3  # so many places on the grid, a factor of about 1.8, are one coarse step
SEEDS = (5, 6, 7)  # those of the comparison itself begin with 0
# Tuning gives up where nothing has learned within so many coarse steps of the start, a factor of about 30.
FARTHEST_STEPS = 6


def grid_value(place: int) -> float:
    """The value at a place of the grid: 1 at 0, 10 at 12, and so on."""
    decade, step = divmod(place, len(PER_DECADE))
    return float(f"{PER_DECADE[step]}e{decade}")


def grid_place(value: float) -> int:
    """The place of the grid's value that is nearest, as a factor."""
    about = round(len(PER_DECADE) * math.log10(value))
    return min(range(about - 2, about + 3), key=lambda place: abs(math.log(grid_value(place) / value)))


def to_try(scores: Scores, start: float, floor: float = 0.0, seeds: tuple[int, ...] = SEEDS) -> list[tuple[float, int]]:
    """The next values and seeds to try; empty when `choose` can choose, or when nothing is worth it.

    First one seed at coarse steps around `start` until the best is inside; then all `seeds` at the best and at its two
    neighbours on the grid, until the best of all has them. A mean of `floor` or less is no learning: where nothing is
    better within a factor of about 30 on either side, the search ends, and what was tried there is the finding.
    """
    middle = grid_place(start)
    known = {grid_place(value): mean for value, mean in means(scores).items()}
    found = {grid_place(value): set(each) for value, each in scores.items()}

    def missing(place: int, wanted: Iterable[int]) -> list[tuple[float, int]]:
        return [(grid_value(place), seed) for seed in wanted if seed not in found.get(place, set())]

    first = [each for step in (0, -COARSE, COARSE) for each in missing(middle + step, seeds[:1])]
    if first:
        return first
    best = max(known, key=lambda place: known[place])
    if known[best] <= floor:
        for step in range(2, FARTHEST_STEPS + 1):
            further = [each for sign in (-1, 1) for each in missing(middle + sign * step * COARSE, seeds[:1])]
            if further:
                return further
        return [each for step in (-COARSE, 0, COARSE) for each in missing(middle + step, seeds)]
    if best == min(known):
        return missing(best - COARSE, seeds[:1]) + missing(best - 1, seeds[:1])
    if best == max(known):
        return missing(best + COARSE, seeds[:1]) + missing(best + 1, seeds[:1])
    return [each for place in (best, best - 1, best + 1) for each in missing(place, seeds)]


def tuning_trials(
    name: str,
    variants: Iterable[tuple[Mapping[str, Any], float]],
    setting: str = "learning_rate",
    measure: str = "test_accuracy",
    floor: float = 0.0,
    seeds: tuple[int, ...] = SEEDS,
) -> list[dict[str, Any]]:
    """The trials of a record of tuning: those that it holds already, and those to run next.

    `variants` are settings, each with the value at which its search starts. The list grows with the record; the
    record is whole when it holds all of them, and `make results` asks again until it does.
    """
    try:
        rows = load_results(name)["trials"]
    except ValueError:  # nothing is recorded yet
        rows = []
    trials = []
    for variant, start in variants:
        scores = scores_of(rows, setting, measure, **variant)
        trials += [{**variant, setting: value, "seed": seed} for value, each in scores.items() for seed in each]
        trials += [{**variant, setting: value, "seed": seed} for value, seed in to_try(scores, start, floor, seeds)]
    return trials
