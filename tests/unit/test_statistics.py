"""Means and their intervals, held against SciPy and against how often they hold the truth."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from snn_helpers.statistics import mean_and_interval


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_mean_and_interval_is_scipys(n: int, as_tensor: bool) -> None:
    values = (0.9 + 0.02 * torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)).tolist()
    mean, half = mean_and_interval(torch.tensor(values, dtype=torch.float64) if as_tensor else values)
    low, high = stats.t.interval(0.95, n - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("values", [[], [0.9]])
def test_mean_and_interval_needs_two_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match=f"at least two.*given: {len(values)}"):
        mean_and_interval(values)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 of 100 in the long run; of 2000 within five standard errors."""
    samples = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = sum(abs(mean) <= half for mean, half in map(mean_and_interval, samples))
    assert abs(held - 1900) < 5 * math.sqrt(2000 * 0.95 * 0.05)


@pytest.mark.parametrize("values", [[0.9, math.nan], [0.9, math.inf], torch.rand(3, 2), [True, False], ["a", "b"]])
def test_values_that_are_no_finite_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"values\[\d\] must be a (finite )?number"):
        mean_and_interval(values)
