"""Means over seeds, and how far they can be trusted; derived in chapter 04."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .long.checks import whole
from .long.plain import real_list


def mean_and_interval(values: Sequence[float] | Tensor, comparisons: int = 1) -> tuple[float, float]:
    """The mean and the half-width of its 95 % confidence interval (Student's t) over seeds; derived in chapter 04.

    `values` hold one number for each seed, two or more; both results are in their units. With several `comparisons`
    the intervals are so wide that all hold at once in 95 % (Bonferroni). Raises `ValueError` for fewer.
    """
    from scipy.stats import t

    whole("comparisons", comparisons)

    empty = hasattr(values, "__len__") and len(values) == 0
    samples = torch.tensor([] if empty else real_list("values", values, each="seed"), dtype=torch.float64, device="cpu")
    n = len(samples)
    if n < 2:
        raise ValueError(f"an interval needs at least two values, one a seed; given: {n}")
    return samples.mean().item(), float(t.ppf(1 - 0.025 / comparisons, n - 1)) * samples.std().item() / math.sqrt(n)


def decide(
    values: Sequence[float], null: Sequence[float] | float = 0.0, margin: float = 0.0, comparisons: int = 1
) -> str:
    """Does a figure exceed its null by more than a margin? From chapter 08.

    A number for each seed, in the same order; `null` may be one for all. "holds" if the interval of the differences
    lies wholly above `margin`, "fails" if wholly below, else "open"; `comparisons` as for `mean_and_interval`.
    """
    given = [float(null)] * len(values) if isinstance(null, (int, float)) else list(null)
    mean, half = mean_and_interval([value - other for value, other in zip(values, given, strict=True)], comparisons)
    return "holds" if mean - half > margin else "fails" if mean + half < margin else "open"


def decide_alike(values: Sequence[float], margin: float, comparisons: int = 1) -> str:
    """Are differences, one for each seed, too small to matter? "holds" if the interval lies within ± `margin`."""
    mean, half = mean_and_interval(values, comparisons)
    return "holds" if abs(mean) + half < margin else "fails" if abs(mean) - half > margin else "open"


def verdict(decisions: Mapping[str, str]) -> str:
    """One verdict for a claim tested under several conditions: "holds" if under all, "holds if" if under some."""
    kinds = set(decisions.values())
    if not kinds or kinds - {"holds", "fails", "open"}:
        raise ValueError(f"each condition's decision must be 'holds', 'fails' or 'open', at least one: {decisions}")
    return "holds" if kinds == {"holds"} else "holds if" if "holds" in kinds else "open" if "open" in kinds else "fails"
