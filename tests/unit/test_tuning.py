"""Which setting is compared: what `choose` takes, and all that it refuses in words."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from snn_helpers.tuning import FARTHEST, FEWEST_SEEDS, choose, means, scores_of

GOOD = {0.1: 0.8, 0.12: 0.9, 0.15: 0.85}  # neighbours of 0.12 within a factor of 1.25


def over_seeds(by_value: dict[float, float], seeds: tuple[int, ...] = (5, 6, 7)) -> dict[float, dict[int, float]]:
    """Scores whose mean over the seeds is what is given."""
    return {
        value: {seed: mean + 0.01 * (seed - sum(seeds) / len(seeds)) for seed in seeds}
        for value, mean in by_value.items()
    }


def row(seed: int, score: float | None = 0.5, **settings: Any) -> dict[str, Any]:
    return {"settings": {"seed": seed, **settings}, "test_accuracy": score}


def test_the_best_mean_is_chosen_in_whatever_order_the_scores_come() -> None:
    for order in itertools.permutations(GOOD.items()):
        assert choose(over_seeds(dict(order))) == 0.12
        assert list(means(over_seeds(dict(order)))) == [0.1, 0.12, 0.15]
    assert means(over_seeds(GOOD)) == pytest.approx(GOOD)


def test_the_mean_decides_and_not_the_best_seed() -> None:
    scores = over_seeds(GOOD)
    scores[0.15] = {5: 1.0, 6: 0.2, 7: 0.2}
    assert choose(scores) == 0.12


@pytest.mark.parametrize("edge", [0.1, 0.15])
def test_an_edge_is_never_chosen(edge: float) -> None:
    with pytest.raises(ValueError, match=f"{edge} lies on the edge"):
        choose(over_seeds(GOOD | {edge: 0.95}))


def test_a_single_value_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="edge"):
        choose(over_seeds({0.1: 0.9}))


@pytest.mark.parametrize(("low", "high"), [(0.095, 0.15), (0.1, 0.151)])
def test_a_neighbour_is_within_the_factor(low: float, high: float) -> None:
    """0.12 / 0.095 and 0.151 / 0.12 are more than 1.25."""
    with pytest.raises(ValueError, match=r"0\.12 needs 0\.\d+, or a nearer value, within a factor 1\.25"):
        choose(over_seeds({low: 0.8, 0.12: 0.9, high: 0.8}))


def test_the_factor_itself_is_near_enough_whatever_its_last_bit() -> None:
    """0.15 / 0.12 and 0.15 * 1.25 / 0.15 are 1.25 but for rounding, above or below."""
    for best in (0.12, 0.15, 1e-5, 3.0, 7e8):
        low, high = best / FARTHEST, best * FARTHEST
        for below in (low, math.nextafter(low, 0), math.nextafter(low, math.inf)):
            for above in (high, math.nextafter(high, 0), math.nextafter(high, math.inf)):
                assert choose(over_seeds({below: 0.1, best: 0.9, above: 0.2})) == best


@pytest.mark.parametrize("value", [0.1, 0.12, 0.15])
def test_too_few_seeds_at_the_best_or_beside_it_are_refused(value: float) -> None:
    scores = over_seeds(GOOD)
    del scores[value][7]
    with pytest.raises(ValueError, match="seeds"):
        choose(scores)


def test_a_neighbour_needs_the_seeds_of_the_best_and_not_only_as_many() -> None:
    scores = over_seeds(GOOD)
    scores[0.1] = {0: 0.8, 1: 0.8, 2: 0.8}
    with pytest.raises(ValueError, match=r"0\.12 needs 0\.1,.* with its seeds"):
        choose(scores)
    scores[0.1] |= {5: 0.8, 6: 0.8, 7: 0.8}  # more than the best has
    assert choose(scores) == 0.12


@pytest.mark.parametrize("n_seeds", range(1, FEWEST_SEEDS))
def test_what_too_few_seeds_call_better_stops_the_choice(n_seeds: int) -> None:
    scores = over_seeds(GOOD) | over_seeds({0.4: 0.95}, tuple(range(5, 5 + n_seeds)))
    with pytest.raises(ValueError, match=r"0\.4 may be the best, but a choice needs 3 seeds"):
        choose(scores)
    scores[0.4] = dict.fromkeys(range(5, 5 + n_seeds), 0.89)  # worse: then it does not matter
    assert choose(scores) == 0.12


def test_of_equals_the_middle_one_is_chosen_and_one_with_few_seeds_does_not_stop_it() -> None:
    flat = dict.fromkeys((0.1, 0.12, 0.15), 0.5)
    assert choose(over_seeds(flat)) == 0.12
    assert choose(over_seeds(flat) | over_seeds({0.05: 0.5, 0.3: 0.5, 0.4: 0.5}, (5,))) == 0.12


def test_a_score_that_is_no_number_is_the_worst() -> None:
    scores = over_seeds(GOOD)
    scores[0.15][6] = math.nan
    assert choose(scores) == 0.12
    scores[0.12][6] = math.nan  # now the best of the rest is on an edge
    with pytest.raises(ValueError, match=r"0\.1 lies on the edge"):
        choose(scores)
    with pytest.raises(ValueError, match="nothing that was tried has a score"):
        choose(over_seeds(dict.fromkeys(GOOD, math.nan)))


@pytest.mark.parametrize("nothing", [{}, {0.1: {}}, {0.1: {}, 0.2: {}}])
def test_a_choice_of_nothing_is_refused(nothing: dict[float, dict[int, float]]) -> None:
    assert means(nothing) == {}
    with pytest.raises(ValueError, match="nothing that was tried"):
        choose(nothing)


def test_zero_is_a_value_and_no_neighbour() -> None:
    """As of a weight decay: no factor leads from 0 to anything."""
    with pytest.raises(ValueError, match=r"0\.1 needs 0\.0"):
        choose(over_seeds({0.0: 0.8, 0.1: 0.9, 0.12: 0.8}))
    with pytest.raises(ValueError, match="edge"):
        choose(over_seeds({0.0: 0.9, 0.1: 0.8, 0.12: 0.8}))


def test_numbers_of_numpys_and_whole_numbers_are_numbers() -> None:
    drawn = {np.float64(v): {np.int64(s): np.float32(x) for s, x in e.items()} for v, e in over_seeds(GOOD).items()}
    assert choose(drawn) == 0.12
    assert choose(over_seeds({8: 0.1, 10: 0.9, 12: 0.2})) == 10


def test_the_least_that_is_accepted_is_three_seeds_at_three_values() -> None:
    """Without any one of its nine scores there is no choice."""
    whole = over_seeds(GOOD)
    assert choose(whole) == 0.12
    for value, seed in itertools.product(GOOD, (5, 6, 7)):
        with pytest.raises(ValueError):
            choose({v: {s: x for s, x in each.items() if (v, s) != (value, seed)} for v, each in whole.items()})


# --- the rows of a record --------------------------------------------------------------------------


def test_rows_are_found_by_their_settings_value_and_seed() -> None:
    rows = [
        row(seed, 0.1 * seed + rate, network=network, learning_rate=rate)
        for network in ("mlp", "spiking")
        for rate in (0.2, 0.1)
        for seed in (7, 5)
    ]
    found = scores_of(rows, network="mlp")
    assert list(found) == [0.1, 0.2]
    assert found == {rate: {seed: 0.1 * seed + rate for seed in (5, 7)} for rate in (0.1, 0.2)}
    assert scores_of(rows, network="none") == scores_of([], network="mlp") == {}
    assert scores_of(rows, setting="momentum", network="mlp") == {}


def test_two_rows_of_one_value_and_seed_need_to_be_told_apart() -> None:
    rows = [row(5, learning_rate=0.1, network=network) for network in ("mlp", "spiking")]
    with pytest.raises(ValueError, match=r"two rows have learning_rate=0\.1 and seed 5"):
        scores_of(rows)
    assert scores_of(rows, network="mlp") == {0.1: {5: 0.5}}
    with pytest.raises(ValueError, match="two rows"):
        scores_of(rows[:1] * 2, network="mlp")


def test_a_setting_that_a_row_lacks_is_none_of_its_values() -> None:
    """Not even None: `longest_gradient=None` is a setting of its own."""
    rows = [row(5, 0.1, learning_rate=0.1), row(5, 0.2, learning_rate=0.1, longest_gradient=None)]
    assert scores_of(rows, longest_gradient=None) == {0.1: {5: 0.2}}


def test_settings_are_compared_as_a_file_holds_them() -> None:
    rows = json.loads(json.dumps([row(5, 0.3, learning_rate=0.1, sizes=(784, 100, 10), detach=True)]))
    for sizes in ((784, 100, 10), [784, 100, 10], np.array([784, 100, 10])):
        assert scores_of(rows, sizes=sizes, detach=np.True_) == {0.1: {5: 0.3}}
    assert scores_of(rows, sizes=(784, 100)) == {}


def test_a_score_that_a_file_holds_as_nothing_is_no_number() -> None:
    (score,) = scores_of([row(5, None, learning_rate=0.1)])[0.1].values()
    assert math.isnan(score)
