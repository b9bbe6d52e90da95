"""Which of several values has the best mean, whatever the scores hold; `tuning.choose` asks more of it."""

from __future__ import annotations

import math
from collections.abc import Mapping


def best_of(scores: Mapping[float, Mapping[int, float]], fewest_seeds: int) -> float:
    """The value with the best mean over seeds; of equals one with `fewest_seeds` or more, and of those the middle one.

    A mean that is no number is the worst. Raises `ValueError` if nothing else is there.
    """
    means = {value: sum(scores[value].values()) / len(scores[value]) for value in sorted(scores) if scores[value]}
    ranks = {value: (mean, len(scores[value]) >= fewest_seeds) for value, mean in means.items() if not math.isnan(mean)}
    if not ranks:
        raise ValueError(f"nothing that was tried has a score; given: {dict(scores)}")
    equals = [value for value, rank in ranks.items() if rank == max(ranks.values())]
    return equals[(len(equals) - 1) // 2]
