"""Means and their intervals, held against SciPy and against how often they hold the truth."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from snn_helpers.statistics import decide, decide_alike, mean_and_interval, verdict


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


# --- decisions -------------------------------------------------------------------------------------

NULL = [0.19, 0.21, 0.17, 0.2, 0.18]


@pytest.mark.parametrize(
    ("above", "decided"), [([0.3] * 5, "holds"), ([0.05, 0.06, 0.04, 0.05, 0.07], "fails"), ([0.1, 0.3] * 2, "open")]
)
def test_a_decision_turns_with_its_figures(above: list[float], decided: str) -> None:
    null = NULL[: len(above)]
    values = [one + other for one, other in zip(above, null)]
    assert decide(values, null, margin=0.1) == decided
    # A paired null is the same as its differences against nothing.
    assert decide([value - other for value, other in zip(values, null)], margin=0.1) == decided


def test_a_decision_is_a_one_sample_test_of_the_differences() -> None:
    """At the level of 5 % in two tails, for one margin."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        values = (0.3 * torch.randn(5, generator=generator, dtype=torch.float64)).tolist()
        test = stats.ttest_1samp(values, 0.1)
        expected = "open" if test.pvalue > 0.05 else "holds" if test.statistic > 0 else "fails"
        assert decide(values, margin=0.1) == expected
        alike = [
            stats.ttest_1samp(values, edge, alternative=side).pvalue
            for edge, side in ((-0.4, "greater"), (0.4, "less"))
        ]
        for n in (1, 4):
            assert (decide_alike(values, 0.4, comparisons=n) == "holds") == (max(alike) < 0.025 / n)


def test_alike_turns_each_way() -> None:
    assert decide_alike([0.01, -0.02, 0.0, 0.01], 0.5) == "holds"
    assert decide_alike([0.9, 1.0, 1.1, 1.0], 0.5) == decide_alike([-0.9, -1.0, -1.1, -1.0], 0.5) == "fails"
    assert decide_alike([-1.0, 1.0, 0.3, 0.1], 0.5) == "open"


@pytest.mark.parametrize("values", [[0.5], [0.5, math.nan]])
def test_what_decides_nothing_is_refused(values: list[float]) -> None:
    with pytest.raises((TypeError, ValueError)):
        decide(values)
    with pytest.raises(ValueError, match="zip"):
        decide([0.1, 0.2, 0.3], [0.1, 0.2])


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "fails"], "holds if"),
        (["holds", "open"], "holds if"),
        (["fails", "fails"], "fails"),
        (["fails", "open"], "open"),
    ],
)
def test_a_verdict_names_what_holds_under_all_some_or_no_conditions(decisions: list[str], expected: str) -> None:
    assert verdict(dict(zip("ab", decisions))) == expected


@pytest.mark.parametrize("wrong", [{}, {"a": "true"}, {"a": "holds if"}])
def test_a_verdict_of_no_decisions_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        verdict(wrong)


# --- several comparisons ---------------------------------------------------------------------------


@pytest.mark.parametrize("comparisons", [1, 2, 5, 40])
def test_several_intervals_are_as_wide_as_bonferroni_makes_them(comparisons: int) -> None:
    """By SciPy: each at the level of 5 % divided by their number; and no mean moves."""
    values = [0.3, 0.1, 0.4, 0.15, 0.2]
    mean, half = mean_and_interval(values, comparisons)
    low, high = stats.t.interval(1 - 0.05 / comparisons, 4, loc=stats.tmean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)
    assert mean == mean_and_interval(values)[0] and half >= mean_and_interval(values)[1]


@pytest.mark.parametrize("comparisons", [1, 4, 11])
def test_all_of_several_intervals_hold_at_once_as_often_as_one_alone(comparisons: int) -> None:
    """Independent ones: all in (1 - 0.05 / m) ** m of the draws, which is 95 % or a little more."""
    draws = torch.randn(1000, comparisons, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = sum(all(abs(m) <= h for m, h in (mean_and_interval(v, comparisons) for v in family)) for family in draws)
    expected = (1 - 0.05 / comparisons) ** comparisons
    assert abs(held / 1000 - expected) < 5 * math.sqrt(0.05 * 0.95 / 1000) and expected >= 0.95


def test_a_decision_among_several_is_a_test_at_a_smaller_level() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for n in (1, 3, 8):
        for _ in range(100):
            values = (0.3 + 0.3 * torch.randn(5, generator=generator, dtype=torch.float64)).tolist()
            test = stats.ttest_1samp(values, 0.1)
            expected = "open" if test.pvalue > 0.05 / n else "holds" if test.statistic > 0 else "fails"
            assert decide(values, margin=0.1, comparisons=n) == expected
            seen.add((expected, decide(values, margin=0.1)))
    assert ("open", "holds") in seen, "what holds alone may be open among several"


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_a_number_of_comparisons_is_a_whole_number(wrong: int) -> None:
    with pytest.raises((TypeError, ValueError), match="comparisons must be"):
        mean_and_interval([0.1, 0.2], wrong)
    with pytest.raises((TypeError, ValueError), match="comparisons must be"):
        decide([0.1, 0.2], comparisons=wrong)
