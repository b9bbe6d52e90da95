"""The search of a tuning: it ends, with what `choose` accepts, whatever the scores look like."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import make_results
import numpy as np
import pytest

from snn_helpers.long import tuning
from snn_helpers.long.recording import Record
from snn_helpers.long.tuning import (
    COARSE,
    FARTHEST_RISE,
    FARTHEST_STEPS,
    SEEDS,
    grid_place,
    grid_value,
    to_try,
    tuning_trials,
)
from snn_helpers.tuning import FARTHEST, choose, means

Score = Callable[[float, int], float]
CHANCE, FLOOR = 0.1, 0.15


def search(
    score: Score, start: float, floor: float = FLOOR, before: dict[float, dict[int, float]] | None = None, **given: Any
) -> dict[float, dict[int, float]]:
    """All that the search tries; each round must try something new, within a factor of a thousand and one step."""
    scores: dict[float, dict[int, float]] = {value: dict(each) for value, each in (before or {}).items()}
    for _ in range(300):
        wanted = to_try(scores, start, floor, **given)
        if not wanted:
            return scores
        assert len(wanted) == len(set(wanted))
        for value, seed in wanted:
            assert seed not in scores.get(value, {})
            assert max(value / start, start / value) < 1000 * 2
            scores.setdefault(value, {})[seed] = score(value, seed)
    raise AssertionError("the search does not end")


def peak(best: float, width: float = 1.0, noise: float = 0.0, cliff: float = math.inf) -> Score:
    """An accuracy by the learning rate: highest at `best`, at chance beyond `cliff` times it."""

    def score(value: float, seed: int) -> float:
        learned = 0.8 * math.exp(-((math.log(value / best) / width) ** 2)) if value < cliff * best else 0.0
        return CHANCE + learned + random.Random(f"{best} {value} {seed}").gauss(0, noise)

    return score


# --- the grid --------------------------------------------------------------------------------------


def test_the_grid_is_fine_enough_for_a_choice_and_coarse_steps_are_not() -> None:
    values = [grid_value(place) for place in range(-60, 61)]
    ratios = [high / low for low, high in zip(values, values[1:])]
    assert min(ratios) > 1.15 and max(ratios) <= FARTHEST + 1e-9
    assert grid_value(0) == 1 and grid_value(12) == 10 and grid_value(-12) == 0.1 and grid_value(-7) == 0.27
    assert all(high / low > FARTHEST for low, high in zip(values, values[COARSE:]))


def test_a_value_of_the_grid_is_at_its_place_and_others_are_at_the_nearest() -> None:
    for place in range(-60, 61):
        assert grid_place(grid_value(place)) == place
        assert grid_place(float(f"{grid_value(place):.4g}")) == place
    for value in [10 ** random.Random(i).uniform(-5, 5) for i in range(500)]:
        nearest = min(range(-70, 71), key=lambda place: abs(math.log(grid_value(place)) - math.log(value)))
        assert grid_place(value) == nearest


def test_beside_any_value_there_is_one_of_the_grid_that_is_near_enough() -> None:
    for value in [10 ** random.Random(i).uniform(-5, 5) for i in range(500)] + [grid_value(p) for p in range(-9, 9)]:
        below, above = tuning._beside(value, -1), tuning._beside(value, 1)
        assert below < value < above
        assert value / below <= FARTHEST + 1e-9 and above / value <= FARTHEST + 1e-9
        assert choose({v: dict.fromkeys(SEEDS, 0.5 + (v == value)) for v in (below, value, above)}) == value


# --- the search ------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0, 1, -2, 5, -11, 23])
def test_without_noise_the_best_of_the_whole_grid_is_found_however_far_it_starts(far: int) -> None:
    """By brute force over the grid; and it takes few trials."""
    for i in range(60):
        best = 10 ** random.Random(i).uniform(-4, 1)
        start = grid_value(grid_place(best) + far)
        score = peak(best, width=4.0)
        found = search(score, start)
        grid = [grid_value(place) for place in range(-80, 60)]
        assert choose(found) == max(grid, key=lambda value: score(value, 0))
        assert sum(map(len, found.values())) <= 19 + 2 * abs(far)


def test_with_noise_the_search_ends_with_a_choice_or_with_no_learning() -> None:
    """Sharp and flat peaks, cliffs, starts that are far off, scores of few digits: 1,500 of them."""
    chosen = 0
    for i in range(1500):
        draw = random.Random(i)
        best = 10 ** draw.uniform(-3, 1)
        noise = draw.choice([0.0, 0.001, 0.01, 0.05, 0.2])
        score = peak(best, draw.uniform(0.2, 3), noise, draw.choice([math.inf, 1.5, 4.0]))
        digits = draw.choice([1, 2, 3, 16])
        found = search(
            lambda v, s, score=score, digits=digits: round(score(v, s), digits), best * 10 ** draw.gauss(0, 1)
        )  # type: ignore[misc]
        if max(means(found).values()) > FLOOR:
            value = choose(found)
            chosen += 1
            assert means(found)[value] == max(means(found).values())
            assert value not in (min(found), max(found)) and set(SEEDS) <= set(found[value])
    assert chosen > 1000


def test_where_nothing_learns_the_search_ends_with_three_seeds_at_three_values() -> None:
    found = search(lambda value, seed: CHANCE, 0.1)
    assert [value for value, each in found.items() if set(each) == set(SEEDS)] == [0.1, 0.056, 0.18]
    assert len(found) == 1 + 2 * FARTHEST_STEPS
    assert max(found) / min(found) == pytest.approx(1000, rel=0.01)
    with pytest.raises(ValueError):
        choose(found)


@pytest.mark.parametrize("off", [2.5, 5.9])
def test_what_learns_only_far_from_the_start_is_found(off: float) -> None:
    place = grid_place(0.1) - round(off * COARSE)
    assert choose(search(peak(grid_value(place), width=0.5), 0.1)) == grid_value(place)


def test_what_two_of_three_seeds_learn_is_learned() -> None:
    """The first seed learns nowhere: what the others do at the start is seen all the same."""
    score = peak(0.1, width=2.0)
    assert choose(search(lambda v, s: CHANCE if s == SEEDS[0] else score(v, s), 0.1)) == 0.1


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_score_that_rises_for_ever_ends_on_an_edge_that_is_refused(sign: int) -> None:
    found = search(lambda value, seed: 0.5 + 0.01 * sign * math.log10(value), 0.1)
    edge = max(found) if sign > 0 else min(found)
    assert COARSE * FARTHEST_RISE <= abs(grid_place(edge) - grid_place(0.1)) < COARSE * (FARTHEST_RISE + 1)
    assert len(found) < 40
    for seeds in (1, 3):  # the search stops with one there; with more it would be refused as well
        with pytest.raises(ValueError, match="may be the best" if seeds == 1 else "edge"):
            choose(found | {edge: dict.fromkeys(SEEDS[:seeds], found[edge][SEEDS[0]])})


def test_of_a_flat_score_the_start_is_chosen() -> None:
    """A plateau is no reason to walk away, and none to go on."""
    found = search(lambda value, seed: 1.0, 0.1)
    assert choose(found) == 0.1 and sum(map(len, found.values())) == 11


def test_a_score_that_is_no_number_is_no_learning() -> None:
    found = search(lambda value, seed: math.nan, 0.1)
    assert len(found) == 1 + 2 * FARTHEST_STEPS
    good = peak(0.1)
    found = search(lambda v, s: math.nan if v > 0.13 else good(v, s), 0.1)
    assert choose(found) == 0.1


def test_a_search_cut_off_after_any_trial_ends_with_the_same_choice() -> None:
    for i in range(10):
        score = peak(10 ** random.Random(i).uniform(-2, 0), noise=0.02)
        whole = search(score, 0.1)
        kept: dict[float, dict[int, float]] = {}
        while wanted := to_try(kept, 0.1, FLOOR):
            kept.setdefault(wanted[0][0], {})[wanted[0][1]] = score(*wanted[0])  # one trial, and asked again
        assert choose(kept) == choose(whole)


# --- what was tried before -------------------------------------------------------------------------


def test_old_rows_off_the_grid_and_of_other_seeds_count_and_do_not_stop_the_choice() -> None:
    """Such as a grid of factor 2, with two seeds, whose best is no value of the grid."""
    for i in range(200):
        draw = random.Random(i)
        best = 10 ** draw.uniform(-2, 0)
        score = peak(best, draw.uniform(0.5, 2), draw.choice([0.0, 0.01, 0.05]))
        seeds = draw.choice([(0, 1), (0, 1, 2), (5, 6, 7), (5,)])
        grid = [0.003125 * 2**k for k in range(10)]
        before = {rate: {seed: score(rate, seed) for seed in seeds} for rate in grid}
        found = search(score, draw.choice([0.1, max(means(before), key=lambda v: means(before)[v])]), before=before)
        value = choose(found)
        assert means(found)[value] == max(means(found).values())
        assert all(found[rate].items() >= each.items() for rate, each in before.items())


def test_values_that_share_a_place_of_the_grid_are_not_taken_for_one_another() -> None:
    """0.2 and 0.22 are nearest to one place. The best, 0.2, needs neighbours of its own."""
    before = {0.2: dict.fromkeys(SEEDS, 0.9), 0.22: {5: 0.3}, 0.1: {5: 0.2}, 0.4: {5: 0.2}}
    found = search(lambda v, s: 0.5, 0.2, before=before)
    assert choose(found) == 0.2
    assert found[0.22].keys() == set(SEEDS)


def test_a_value_of_zero_is_left_aside() -> None:
    score = peak(0.1)
    found = search(score, 0.1, before={0.0: dict.fromkeys(SEEDS, 0.2)})
    assert choose(found) == 0.1
    with pytest.raises(ValueError, match="edge"):  # it would be the best: the search ends, and says so
        choose(search(score, 0.1, before={0.0: dict.fromkeys(SEEDS, 0.99)}))


def test_more_seeds_than_three_are_all_used() -> None:
    found = search(peak(0.1, noise=0.1), 0.1, seeds=(0, 1, 2, 3, 4))
    assert set(found[choose(found)]) == {0, 1, 2, 3, 4}


# --- the trials of a record ------------------------------------------------------------------------


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of records, which `tuning_trials` reads and `make results` writes."""

    def load(name: str) -> dict[str, Any]:
        path = tmp_path / f"{name}.json"
        if not path.exists():
            raise ValueError(f"no results are recorded as {name!r}")
        loaded: dict[str, Any] = json.loads(path.read_text())
        return loaded

    monkeypatch.setattr(tuning, "load_results", load)
    monkeypatch.setattr(make_results, "RESULTS", tmp_path)
    return tmp_path


PEAKS = {"a": peak(0.03, noise=0.01), "b": peak(0.5, noise=0.01), "dead": lambda value, seed: CHANCE}
VARIANTS = [({"network": "a"}, 0.1), ({"network": "b"}, 0.1), ({"network": "dead"}, 0.1)]


def measure(network: str, learning_rate: float, seed: int, **more: Any) -> dict[str, Any]:
    return {"test_accuracy": PEAKS[network](learning_rate, seed)}


def make(monkeypatch: pytest.MonkeyPatch, **trials: Any) -> None:
    """`make results`, of made-up records."""
    found = {name: Record("made up", measure, given) for name, given in trials.items()}
    monkeypatch.setattr(make_results, "all_records", lambda: found)
    make_results.main([])


def rows_in(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["trials"]
    return rows


def test_a_record_of_tuning_is_made_until_each_variant_can_be_chosen(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = partial(tuning_trials, "t", VARIANTS, floor=FLOOR)
    make(monkeypatch, t=trials)
    rows = rows_in(records / "t.json")
    assert sorted(map(str, trials())) == sorted(str(row["settings"]) for row in rows), "the record is whole"
    for network in ("a", "b"):
        found = search(PEAKS[network], 0.1)
        assert choose(tuning.scores_of(rows, network=network)) == choose(found)
        assert tuning.scores_of(rows, network=network) == {value: found[value] for value in sorted(found)}
    with pytest.raises(ValueError):
        choose(tuning.scores_of(rows, network="dead"))
    make(monkeypatch, t=trials)
    assert rows_in(records / "t.json") == rows


def test_what_a_record_holds_is_listed_as_it_is(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with a setting that a variant does not name, too: they are not asked for again without it."""
    old = [{"network": "a", "learning_rate": 0.1, "seed": seed, "n_steps": 128} for seed in SEEDS]
    make(monkeypatch, t=old)
    trials = partial(tuning_trials, "t", VARIANTS[:1], floor=FLOOR)
    make(monkeypatch, t=trials)
    settings = [row["settings"] for row in rows_in(records / "t.json")]
    assert settings[:3] == old and sorted(map(str, trials())) == sorted(map(str, settings))


def test_settings_of_a_variant_may_be_what_a_file_writes_otherwise(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tuple, a number of NumPy's: their rows are found again."""
    variants = [({"network": "a", "sizes": (784, 10), "width": np.float32(0.5)}, 0.1)]
    trials = partial(tuning_trials, "t", variants, floor=FLOOR)
    make(monkeypatch, t=trials)
    scores = tuning.scores_of(rows_in(records / "t.json"), sizes=(784, 10), width=0.5)
    assert choose(scores) == choose(search(PEAKS["a"], 0.1))


def test_rows_of_earlier_records_count_and_are_not_made_again(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = [{"network": "a", "learning_rate": 0.003125 * 2**k, "seed": seed} for k in range(10) for seed in (0, 1, 2)]
    near = partial(
        tuning_trials, "near", lambda: [({"network": "a"}, 0.025)], floor=FLOOR, seeds=(0, 1, 2), also=("coarse",)
    )
    make(monkeypatch, coarse=coarse, near=near)
    first, second = (rows_in(records / f"{name}.json") for name in ("coarse", "near"))
    assert len(first) == 30 and 6 <= len(second) <= 15
    assert choose(tuning.scores_of([*first, *second], network="a")) == pytest.approx(0.03, rel=0.3)
    assert not {str(row["settings"]) for row in first} & {str(row["settings"]) for row in second}


@pytest.mark.parametrize(
    ("variants", "given", "told"),
    [
        ([({"network": "a"}, 0.1), ({"network": "a", "reset": "zero"}, 0.1)], {}, "are not told apart"),
        ([({"network": "a", "reset": "zero"}, 0.1), ({"network": "a"}, 0.1)], {}, "are not told apart"),
        ([({}, 0.1), ({"network": "a"}, 0.1)], {}, "are not told apart"),
        ([({"sizes": (1, 2)}, 0.1), ({"sizes": [1, 2]}, 0.3)], {}, "are not told apart"),
        ([({"network": "a", "learning_rate": 0.1}, 0.1)], {}, "fixes what is searched"),
        ([({"network": "a", "seed": 1}, 0.1)], {}, "fixes what is searched"),
        ([({"network": "a"}, 0.1)], {"seeds": (5, 6)}, "3 seeds or more"),
        ([({"network": "a"}, 0.1)], {"seeds": (5, 5, 5)}, "3 seeds or more"),
        ([({"network": "a"}, 0.0)], {}, "start must be a finite number above 0"),
        ([({"network": "a"}, math.nan)], {}, "start must be a finite number above 0"),
    ],
)
def test_a_search_that_could_not_choose_is_refused(
    variants: Any, given: dict[str, Any], told: str, records: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        tuning_trials("t", variants, **given)


def test_variants_that_differ_in_one_setting_are_told_apart(records: Path) -> None:
    variants = [({"network": "a", "width": width}, 0.1) for width in (None, 1.0, 0.5)]
    assert len(tuning_trials("t", variants)) == 9
    assert tuning_trials("t", [({}, 0.1)]) == [{"learning_rate": v, "seed": 5} for v in (0.1, 0.056, 0.18)]


# --- make results ----------------------------------------------------------------------------------


def test_a_record_with_a_list_is_run_through_once(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = make_results.record_trials
    monkeypatch.setattr(make_results, "record_trials", lambda *given: calls.append(given) or real(*given))
    make(monkeypatch, t=[{"network": "a", "learning_rate": 0.1, "seed": seed} for seed in SEEDS])
    assert len(calls) == 1 and len(rows_in(records / "t.json")) == 3


def test_trials_that_never_end_are_stopped_in_words(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it is asked, it wants one more."""
    asked = []

    def ever_more() -> list[dict[str, Any]]:
        asked.append(1)
        return [{"network": "a", "learning_rate": 0.1, "seed": seed} for seed in range(len(asked))]

    monkeypatch.setattr(make_results, "MOST_ROUNDS", 20)
    with pytest.raises(SystemExit, match="t wants further trials after each of 20 rounds"):
        make(monkeypatch, t=ever_more)
    assert len(rows_in(records / "t.json")) == 20


def test_trials_that_come_in_another_order_each_time_or_never_equal_themselves_end(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = iter(range(1000))

    def shuffled() -> list[dict[str, Any]]:
        trials = [{"network": "a", "learning_rate": 0.1, "seed": seed, "more": float("inf")} for seed in SEEDS]
        random.Random(next(orders)).shuffle(trials)
        return trials

    make(monkeypatch, t=shuffled)
    assert len(rows_in(records / "t.json")) == 3 and next(orders) == 2


def test_rounds_are_more_than_any_search_takes() -> None:
    """One round asks all variants at once: as many rounds as the longest search."""
    longest = 0
    for i in range(200):
        scores: dict[float, dict[int, float]] = {}
        draw = random.Random(i)
        score = peak(10 ** draw.uniform(-4, 2), draw.uniform(0.2, 5), draw.choice([0.0, 0.05, 0.3]))
        rounds = 0
        while wanted := to_try(scores, 0.1):
            rounds += 1
            for value, seed in wanted:
                scores.setdefault(value, {})[seed] = score(value, seed)
        longest = max(longest, rounds)
    assert longest < make_results.MOST_ROUNDS / 3
