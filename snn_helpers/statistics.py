"""Means over seeds, and how far they can be trusted; derived in chapter 04."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .long.plain import real_list


def mean_and_interval(values: Sequence[float] | Tensor) -> tuple[float, float]:
    """The mean and the half-width of its 95 % confidence interval (Student's t) over seeds; derived in chapter 04.

    `values` hold one number for each seed, two or more; both results are in their units. Raises `ValueError` for fewer.
    """
    from scipy.stats import t

    empty = hasattr(values, "__len__") and len(values) == 0
    samples = torch.tensor([] if empty else real_list("values", values, each="seed"), dtype=torch.float64, device="cpu")
    n = len(samples)
    if n < 2:
        raise ValueError(f"an interval needs at least two values, one a seed; given: {n}")
    return samples.mean().item(), float(t.ppf(0.975, n - 1)) * samples.std().item() / math.sqrt(n)
