"""Which setting a network is compared at, by the rule of the page `how_we_compare`; used from chapter 04."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .long.best import best_of
from .long.plain import plain

FEWEST_SEEDS, FARTHEST = 3, 1.25  # a choice is made on that many seeds; its neighbours are within that factor
Scores = Mapping[float, Mapping[int, float]]  # for each value of the setting a score for each seed; more is better


def scores_of(
    rows: Sequence[Mapping[str, Any]], setting: str = "learning_rate", measure: str = "test_accuracy", **of: Any
) -> dict[float, dict[int, float]]:
    """By value of the setting and by seed, the rows of a record whose settings hold all of `of`; from chapter 04.

    Raises `ValueError` if two rows have the same value and seed: then `of` must say more.
    """
    found: dict[float, dict[int, float]] = {}
    for row in rows:
        had = row["settings"]
        if setting in had and plain({**had, **of}) == plain(had):
            each = found.setdefault(had[setting], {})
            if had["seed"] in each:
                raise ValueError(f"two rows have {setting}={had[setting]} and seed {had['seed']}: name more than {of}")
            each[had["seed"]] = math.nan if row[measure] is None else row[measure]
    return dict(sorted(found.items()))


def means(scores: Scores) -> dict[float, float]:
    """The mean over seeds at each value of the setting, from the smallest value to the largest; from chapter 04."""
    return {value: sum(scores[value].values()) / len(scores[value]) for value in sorted(scores) if scores[value]}


def choose(scores: Scores) -> float:
    """The value with the best mean on held-out images; from chapter 04.

    Raises `ValueError`, in words, unless three seeds or more chose it, and it has a neighbour on either side within a
    factor of 1.25 that was tried with the same seeds.
    """
    known, told = means(scores), {value: f"{len(each)} seeds" for value, each in scores.items()}
    best = best_of(scores, FEWEST_SEEDS)
    if len(scores[best]) < FEWEST_SEEDS:
        raise ValueError(f"{best} may be the best, but a choice needs {FEWEST_SEEDS} seeds or more; given: {told}")
    below, above = [value for value in known if value < best], [value for value in known if value > best]
    if not below or not above:
        raise ValueError(f"{best} lies on the edge of what was tried: {told}. Try further values")
    for low, high, other in ((below[-1], best, below[-1]), (best, above[0], above[0])):
        if high > (FARTHEST + 1e-9) * low or not set(scores[best]) <= set(scores[other]):
            raise ValueError(f"{best} needs {other}, or a nearer value, within a factor {FARTHEST} and with its seeds")
    return best
