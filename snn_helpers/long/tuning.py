"""What to try next until `tuning.choose` can choose, so that a record of a tuning ends with a choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..records import load_results
from ..tuning import FARTHEST, FEWEST_SEEDS, Scores, means, scores_of
from .best import best_of
from .checks import real
from .plain import plain

# The preferred numbers E12: twelve a decade, each at most 1.25 times the one before.
PER_DECADE = (1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)
COARSE = 3  # so many places on the grid, a factor of about 1.8, are one coarse step
SEEDS = (5, 6, 7)  # those of the comparison itself begin with 0
# Tuning gives up where nothing has learned within so many coarse steps of the start, a factor of about 30.
FARTHEST_STEPS = 6
# And it follows a score that still rises so many coarse steps far, a factor of 1,000: then the best is on an edge.
FARTHEST_RISE = 12

Variant = tuple[Mapping[str, Any], float]


def grid_value(place: int) -> float:
    """The value at a place of the grid: 1 at 0, 10 at 12, and so on."""
    decade, step = divmod(place, len(PER_DECADE))
    return float(f"{PER_DECADE[step]}e{decade}")


def grid_place(value: float) -> int:
    """The place of the grid's value that is nearest, as a factor."""
    about = round(len(PER_DECADE) * math.log10(value))
    return min(range(about - 2, about + 3), key=lambda place: abs(math.log(grid_value(place) / value)))


def _beside(value: float, sign: int) -> float:
    """The grid's value below (`sign` is -1) or above (1) that is farthest among those near enough for `choose`."""
    middle = grid_place(value)
    near = [grid_value(place) for place in range(middle - 3, middle + 4)]
    near = [other for other in near if (other - value) * sign > 0]
    near = [other for other in near if max(other / value, value / other) <= FARTHEST + 1e-9]
    return min(near) if sign < 0 else max(near)


def _best(scores: Scores) -> tuple[float, float]:
    """The best value and its mean; minus infinity for the mean if no score is a number."""
    try:
        best = best_of(scores, FEWEST_SEEDS)
    except ValueError:
        return math.nan, -math.inf
    return best, means(scores)[best]


def to_try(scores: Scores, start: float, floor: float = 0.0, seeds: tuple[int, ...] = SEEDS) -> list[tuple[float, int]]:
    """The next values and seeds to try; empty when `choose` can choose, or when nothing is worth it.

    First one seed at coarse steps around `start` until the best is inside; then all `seeds` at the best and at a
    neighbour on either side, until the best of all has them. What was tried before, on or off the grid, counts. A mean
    of `floor` or less is no learning: where nothing is better within a factor of about 30 on either side, the search
    ends, and what was tried there is the finding. It ends too at a factor of 1,000, if the score rises as far.
    """
    middle = grid_place(start)
    known = [value for value in means(scores) if value > 0]
    places = [grid_place(value) for value in known]

    def missing(value: float, wanted: Iterable[int]) -> list[tuple[float, int]]:
        return [(value, seed) for seed in wanted if seed not in scores.get(value, {})]

    around = [middle + step for step in (0, -COARSE, COARSE)]
    first = [place for place in around if all(abs(place - other) >= COARSE for other in places)]
    if first:
        return [(grid_value(place), seeds[0]) for place in first]
    best, best_mean = _best({value: scores[value] for value in known})
    if best_mean <= floor:
        for step in range(2, FARTHEST_STEPS + 1):
            ends = [grid_value(middle + sign * step * COARSE) for sign in (-1, 1)]
            further = [each for value in ends for each in missing(value, seeds[:1])]
            if further:
                return further
        return [each for step in (-COARSE, 0, COARSE) for each in missing(grid_value(middle + step), seeds)]
    for sign, edge in ((-1, known[0]), (1, known[-1])):
        if best == edge:
            near = _beside(best, sign)
            far = grid_value(grid_place(near) + sign * (COARSE - 1))
            ended = abs(grid_place(best) - middle) >= COARSE * FARTHEST_RISE
            return [] if ended else missing(far, seeds[:1]) + missing(near, seeds[:1])
    place = known.index(best)
    below, above = known[place - 1], known[place + 1]
    low = below if best <= (FARTHEST + 1e-9) * below else _beside(best, -1)
    high = above if above <= (FARTHEST + 1e-9) * best else _beside(best, 1)
    wanted = list(dict.fromkeys((*seeds, *scores[best])))  # a neighbour is tried with all seeds that the best has
    return [each for value in (best, low, high) for each in missing(value, wanted)]


def tuning_trials(
    name: str,
    variants: Iterable[Variant] | Callable[[], Iterable[Variant]],
    setting: str = "learning_rate",
    measure: str = "test_accuracy",
    floor: float = 0.0,
    seeds: tuple[int, ...] = SEEDS,
    also: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The trials of a record of tuning: those that it holds already, and those to run next.

    `variants` are settings, each with the value at which its search starts, or a function that gives them; no variant's
    settings are part of another's. Rows of the records `also`, made before, count as tried. The list grows with
    the record; the record is whole when it holds all of them, and `make results` asks again until it does.
    """
    searched = [(dict(variant), real("start", start, above=0)) for variant, start in _listed(variants)]
    _check(name, [variant for variant, _ in searched], setting, seeds)
    rows, before = rows_of(name), [row for other in also for row in rows_of(other)]
    trials: list[dict[str, Any]] = []
    for variant, start in searched:
        trials += [row["settings"] for row in rows if scores_of([row], setting, measure, **variant)]
        tried = to_try(scores_of([*before, *rows], setting, measure, **variant), start, floor, seeds)
        trials += [{**variant, setting: value, "seed": seed} for value, seed in tried]
    return trials


def _listed(variants: Iterable[Variant] | Callable[[], Iterable[Variant]]) -> Iterable[Variant]:
    return variants() if callable(variants) else variants


def _check(name: str, variants: Sequence[Mapping[str, Any]], setting: str, seeds: Sequence[int]) -> None:
    """Raise `ValueError` for a search that could never end with a choice, or would mix two variants' rows."""
    if len(set(seeds)) < FEWEST_SEEDS:
        raise ValueError(f"{name}: a choice needs {FEWEST_SEEDS} seeds or more, not {seeds}")
    for i, one in enumerate(variants):
        if {setting, "seed"} & set(one):
            raise ValueError(f"{name}: {dict(one)} fixes what is searched: leave out {setting} and seed")
        for other in variants[i + 1 :]:
            if plain({**one, **other}) == plain(one) or plain({**other, **one}) == plain(other):
                raise ValueError(f"{name}: {dict(one)} and {dict(other)} are not told apart: one is part of the other")


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a record; none if nothing is recorded yet."""
    try:
        return list(load_results(name)["trials"])
    except ValueError:
        return []
