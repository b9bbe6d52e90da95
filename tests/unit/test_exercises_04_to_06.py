"""What the tasks of chapters 4 to 6 state of their answers, and their checks against another way to the same number."""

from __future__ import annotations

import math

import pytest
import torch
from snn_chapters.exercises import baseline, hebb_and_stdp, stdp_from_gradients
from snn_chapters.libraries import DESCRIBED

from snn_helpers.long.exercise import NotYet
from snn_helpers.plasticity import gradient_window, pair_stdp
from snn_helpers.statistics import mean_and_interval
from snn_helpers.tuning import choose

RULE = {"a_plus": 1.0, "a_minus": 0.6, "tau_plus": 16.8, "tau_minus": 33.7}


# --- chapter 4 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rates", "place"), [([0.1, 0.12, 0.15], 1), ([0.1, 0.12, 0.15], 2), ([0.1, 0.12], 0)])
def test_the_searches_of_the_check_are_chosen_as_the_chapter_chooses(rates: list[float], place: int) -> None:
    scores = baseline._search(rates, place, torch.Generator().manual_seed(3))
    by_seed = {rate: dict(enumerate(each)) for rate, each in scores.items()}
    if 0 < place < len(rates) - 1:
        assert choose(by_seed) == rates[place]
    else:
        with pytest.raises(ValueError, match="edge"):
            choose(by_seed)
    best_run = max(scores, key=lambda rate: max(scores[rate]))
    assert best_run != rates[place], "the best single run should mislead"


def test_two_seeds_make_an_interval_several_times_as_wide_as_five() -> None:
    spread = [1.0, 2.0, 1.4, 1.7, 1.2]
    assert mean_and_interval(spread[:2])[1] > 4 * mean_and_interval(spread)[1]


# --- chapter 5 -----------------------------------------------------------------------------------


def test_four_pairs_by_hand_are_positive_and_less_than_one_potentiation() -> None:
    pre, post = torch.zeros(2, 40, 1, 1, dtype=torch.float64)
    pre[[10, 30]], post[[15, 25]] = 1.0, 1.0
    change = pair_stdp(pre, post, **RULE).item()
    assert 0 < change < RULE["a_plus"]
    assert hebb_and_stdp.four_pairs(change, **RULE)


def test_the_balance_is_a_little_below_that_of_continuous_time() -> None:
    d = torch.arange(1, 5000, dtype=torch.float64)
    right = (torch.exp(-d / 16.8).sum() / torch.exp(-d / 33.7).sum()).item()
    assert 0 < 16.8 / 33.7 - right < 0.01
    assert hebb_and_stdp.balance(right, a_plus=1.0, tau_plus=16.8, tau_minus=33.7)


def test_with_nearest_neighbours_inputs_grow_above_a_rate_and_with_all_pairs_never() -> None:
    generator = torch.Generator().manual_seed(5)

    def mean_change(rate: float, pairing: str) -> float:
        pre = (torch.rand(3000, 300, 1, generator=generator) < 0.02).double()
        post = (torch.rand(3000, 300, 1, generator=generator) < rate).double()
        return pair_stdp(pre, post, **RULE, pairing=pairing).item()

    assert mean_change(0.01, "nearest") < 0 < mean_change(0.03, "nearest")
    assert all(mean_change(rate, "all") < 0 for rate in (0.01, 0.03, 0.1))
    for rate, words in ((0.01, "too low"), (0.03, "too high")):
        with pytest.raises(NotYet, match=words):
            hebb_and_stdp.critical_rate(rate, rate_pre=0.02, **RULE)


def test_where_every_rate_grows_the_check_says_so() -> None:
    assert "no such rate" in hebb_and_stdp.critical_rate(0.5, rate_pre=0.02, **RULE | {"a_minus": 0.01})


# --- chapter 6 -----------------------------------------------------------------------------------


def test_a_pulse_before_two_spikes_gets_a_little_positive_credit() -> None:
    assert 0 < gradient_window([7], [3, 5]).item() < 0.2


def test_the_largest_weight_of_the_example_is_where_a_spike_comes() -> None:
    def fired(w: float) -> list[bool]:
        left, found = 0.0, []
        for x in (1.0, 0.5, 1.0):
            v = w * x + 0.9 * left
            found.append(v > 1)
            left = 1 - 1.5 if v > 1 else v
        return found

    assert fired(2.0) == fired(2.9 - 1e-9) != fired(2.9 + 1e-9)
    assert stdp_from_gradients.how_far(2.9)


def test_the_parts_of_a_derivative_put_together_are_autograds() -> None:
    example = 2.0, [1.0, 0.5, 1.0], [0.5, 0.0, -0.4]
    told = 0.9, 1.0, 1.5
    assert stdp_from_gradients._wrongly(*example, told) == pytest.approx(0.082)
    assert stdp_from_gradients._through_time(*example, *told, reset="scale") == pytest.approx(0.082)
    assert stdp_from_gradients._through_time(*example, *told, reset="discharge") == pytest.approx(-0.08)


def test_what_a_binary_reset_passes_is_what_the_library_is_said_to() -> None:
    for told in DESCRIBED.values():
        if told.library == "snntorch":
            for charge in (-0.5, 0.5, 1.1, 1.5, 3.0):
                mine = stdp_from_gradients._passes(charge, told.reset, told.detached)
                assert math.isclose(mine, told.passes(charge), abs_tol=1e-12)
    of_task = [stdp_from_gradients._passes(1.5, reset, d) for reset in ("subtract", "zero") for d in (True, False)]
    assert [round(number, 2) for number in of_task] == [1, 0.71, 0, -0.43]
