"""Every record from which a setting is chosen holds the rule of the page `how_we_compare`, or says how it differs.

Which records these are is read off `RECORDS` and off the rows: a new one cannot be forgotten.
"""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType
from typing import Any
from unittest.mock import patch

import pytest
import snn_chapters
from make_results import all_records
from notebooks import BOOK, code_cells, read

from snn_helpers.long.recording import Record
from snn_helpers.long.tuning import SEEDS, to_try, tuning_trials
from snn_helpers.records import load_results
from snn_helpers.tuning import choose, means, scores_of

RECORDS = all_records()
COMPARED = set(range(5))  # the seeds of the comparisons themselves
Rows = list[dict[str, Any]]


def searches_of(record: Record) -> list[dict[str, Any]]:
    """What each search of a record is given, its defaults too; none for a record that is not searched.

    A record's trials are a search, `partial(tuning_trials, ...)`, or a function that calls it, once or more.
    """
    trials, calls = record.trials, []
    if isinstance(trials, partial) and trials.func is tuning_trials:
        calls.append((trials.args, trials.keywords))
    elif isinstance(trials, FunctionType) and "tuning_trials" in trials.__code__.co_names:

        def spy(*args: Any, **given: Any) -> Rows:
            calls.append((args, given))
            return []

        with patch.dict(trials.__globals__, tuning_trials=spy):
            trials()
    found = [inspect.signature(tuning_trials).bind(*args, **given) for args, given in calls]
    for bound in found:
        bound.apply_defaults()
    return [dict(bound.arguments) for bound in found]


def tuned_otherwise() -> dict[str, str]:
    """The records that differ from the rule, and the words in which their modules say how."""
    modules = [import_module(f"snn_chapters.{module.name}") for module in iter_modules(snn_chapters.__path__)]
    told = [pair for module in modules for pair in getattr(module, "TUNED_OTHERWISE", {}).items()]
    return {name: words for names, words in told for name in names}


def rates_alone_differ(rows: Rows) -> bool:
    """Whether three rows are alike in all settings but the learning rate; two may be a rate and a control."""
    rates = defaultdict(set)
    for row in rows:
        others = {name: value for name, value in row["settings"].items() if name != "learning_rate"}
        rates[json.dumps(others, sort_keys=True)].add(row["settings"].get("learning_rate"))
    return any(len(each) > 2 for each in rates.values())


def several_rates_in_a_trial(rows: Rows) -> bool:
    settings = [pair for row in rows for pair in row["settings"].items()]
    return any(name.endswith("rates") and isinstance(value, list) and len(value) > 1 for name, value in settings)


def looks_tuned(record: Record, rows: Rows) -> bool:
    """Whether something may be chosen from a record: images are held out for it, or rates stand side by side."""
    held_out = "held_out" in record.run.__name__ or "held out" in record.what
    return held_out or rates_alone_differ(rows) or several_rates_in_a_trial(rows)


def faults(name: str, record: Record, load: Callable[[str], dict[str, Any]] = load_results) -> list[str]:
    """What of the rule a searched record does not hold, in words."""
    return [fault for given in searches_of(record) for fault in faults_of_search(name, given, load)]


def faults_of_search(name: str, given: dict[str, Any], load: Callable[[str], dict[str, Any]]) -> list[str]:
    assert given["name"] == name, f"{name} searches in the rows of another record"
    rows, found = load(name)["trials"], []
    before = [row for other in given["also"] for row in load(other)["trials"]]
    variants = given["variants"]
    for variant, start in variants() if callable(variants) else variants:
        scores = scores_of([*before, *rows], given["setting"], given["measure"], **variant)
        if to_try(scores, start, given["floor"], given["seeds"]):
            found.append(f"{variant}: the record is not whole")
            continue
        try:
            value = choose(scores)
        except ValueError as error:
            if max(means(scores).values()) > given["floor"]:  # else it learned at no rate, which is a finding
                found.append(f"{variant}: {error}")
        else:
            if len(scores[value]) < 3 or value in (min(scores), max(scores)):
                found.append(f"{variant}: {value} has too few seeds, or lies on an edge")
    return found


SEARCHED = [name for name, record in RECORDS.items() if searches_of(record)]
PARTS = {other for name in SEARCHED for given in searches_of(RECORDS[name]) for other in given["also"]}


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_chosen_is_chosen_by_the_rule_or_the_record_says_how(name: str) -> None:
    if looks_tuned(RECORDS[name], load_results(name)["trials"]):
        known = name in SEARCHED or name in PARTS or name in tuned_otherwise()
        assert known, (
            f"{name} looks like a tuning: make its trials partial(tuning_trials, {name!r}, ...), or say in its"
            " module's TUNED_OTHERWISE how it differs from the rule of how_we_compare"
        )


@pytest.mark.parametrize("name", SEARCHED)
def test_each_variant_of_a_search_is_chosen_on_three_seeds_with_neighbours_on_both_sides(name: str) -> None:
    assert faults(name, RECORDS[name]) == []


@pytest.mark.parametrize("name", SEARCHED)
def test_a_choice_is_made_on_other_seeds_than_the_comparison(name: str) -> None:
    seeds = {row["settings"]["seed"] for row in load_results(name)["trials"]}
    assert not seeds & COMPARED or name in tuned_otherwise(), f"{name} chooses on the seeds {sorted(seeds & COMPARED)}"


def test_what_differs_from_the_rule_is_told_on_the_page() -> None:
    """Its cell collects the modules' own words, so that none is left out."""
    told = tuned_otherwise()
    assert set(told) <= set(RECORDS) and all(len(words) > 30 and words[0].islower() for words in told.values())
    code = "\n".join(cell.source for cell in code_cells(read(BOOK / "how_we_compare.ipynb")))
    assert "TUNED_OTHERWISE" in code and "iter_modules" in code


def test_what_the_modules_say_of_their_own_grids_is_so() -> None:
    rows = [row for name in ("07_escape_tuning", "07_escape_near") for row in load_results(name)["trials"]]
    for way in {row["settings"]["way"] for row in rows}:
        scores = scores_of(rows, measure="accuracy", way=way)
        rates, known = list(scores), means(scores)
        best = max(known, key=lambda rate: known[rate])
        low, high = rates[rates.index(best) - 1], rates[rates.index(best) + 1]
        assert best / low <= 1.5 and high / best <= 1.5 and low < best < high
        assert all(set(scores[rate]) == {0, 1, 2} for rate in (low, best, high))

    curves = load_results("09_learning_curves")["trials"]
    rates = sorted({row["settings"]["learning_rate"] for row in curves})
    assert len(rates) == 4 and all(2.9 < high / low < 3.4 for low, high in zip(rates, rates[1:]))
    for variant in {row["settings"]["variant"] for row in curves}:
        ends = [{"settings": row["settings"], "test_accuracy": row["held_out"][-1]} for row in curves]
        known = means(scores_of(ends, variant=variant))
        assert max(known.values()) == max(known[rate] for rate in rates[1:-1]), "at the longest no edge is best"


def one_search() -> Rows:
    return [*tuning_trials("t", [({"network": "a"}, 0.1)], floor=0.3), {"network": "b", "seed": 5}]


def two_searches() -> Rows:
    return one_search() + tuning_trials("t", [({"network": "b"}, 0.1)], setting="scale")


def no_search() -> Rows:
    return []


def test_searches_are_found_where_they_stand_alone_and_within_a_function() -> None:
    for trials in (one_search, partial(tuning_trials, "t", [({"network": "a"}, 0.1)], floor=0.3)):
        (given,) = searches_of(Record("made up", measure_held_out, trials))
        assert (given["name"], given["floor"], given["setting"], given["seeds"]) == ("t", 0.3, "learning_rate", SEEDS)
    both = searches_of(Record("made up", measure_held_out, two_searches))
    assert [(given["setting"], given["floor"]) for given in both] == [("learning_rate", 0.3), ("scale", 0.0)]
    for trials in ([], no_search, partial(no_search)):
        assert searches_of(Record("made up", measure_held_out, trials)) == []


# --- that the test would find a fault --------------------------------------------------------------


def measure_held_out(**settings: Any) -> dict[str, Any]:
    return {"test_accuracy": 0.5}


def a_record(rows: Rows, what: str = "made up", **given: Any) -> tuple[Record, Callable[[str], dict[str, Any]]]:
    """A searched record of two networks, and what loads its rows."""
    variants = [({"network": "a"}, 0.1), ({"network": "b"}, 0.1)]
    trials = partial(tuning_trials, "t", variants, floor=0.15, **given)
    return Record(what, measure_held_out, trials), lambda name: {"trials": rows}


def rows_of(network: str, scores: dict[float, float], seeds: tuple[int, ...] = SEEDS) -> Rows:
    return [
        {"settings": {"network": network, "learning_rate": rate, "seed": seed}, "test_accuracy": score}
        for rate, score in scores.items()
        for seed in seeds
    ]


GOOD = {0.056: 0.5, 0.082: 0.8, 0.1: 0.9, 0.12: 0.8, 0.18: 0.5}


@pytest.mark.parametrize(
    ("of_b", "told"),
    [
        (rows_of("b", GOOD), None),
        (rows_of("b", GOOD, (5, 6)), "not whole"),
        (rows_of("b", {rate: score for rate, score in GOOD.items() if rate != 0.082}), "not whole"),
        (rows_of("b", GOOD | {0.18: 0.95}), "not whole"),
        ([], "not whole"),
        (rows_of("b", {0.1 * 10 ** (k / 4): 0.1 for k in range(-6, 7)}), "not whole"),
        (rows_of("b", {round(0.1 * 10 ** (k / 12), 9): 10**-6 * k + 0.5 for k in range(-40, 41)}), "edge"),
    ],
)
def test_a_fault_of_any_variant_is_found_by_name(of_b: Rows, told: str | None) -> None:
    found = faults("t", *a_record([*rows_of("a", GOOD), *of_b]))
    assert (found == []) if told is None else (len(found) == 1 and "'b'" in found[0] and told in found[0])


def test_to_learn_at_no_rate_is_a_finding_and_no_fault() -> None:
    rows = list(rows_of("a", GOOD))
    record, load = a_record(rows)
    while faults("t", record, load):
        tried = to_try(scores_of(rows, network="b"), 0.1, 0.15)
        rows += [row for rate, seed in tried for row in rows_of("b", {rate: 0.1}, (seed,))]
    with pytest.raises(ValueError):
        choose(scores_of(rows, network="b"))


@pytest.mark.parametrize(
    ("what", "run", "settings", "tuned"),
    [
        ("images held out as 'test'", dict, [{"width": 1, "seed": 0}], True),
        ("made up", measure_held_out, [{"width": 1, "seed": 0}], True),
        ("made up", dict, [{"learning_rate": rate, "seed": 0} for rate in (0.1, 0.2, 0.4)], True),
        ("made up", dict, [{"learning_rate": rate, "seed": 0} for rate in (0.1, 0.01)], False),
        ("made up", dict, [{"rates": [0.1, 0.2], "seed": 0}], True),
        (
            "made up",
            dict,
            [{"learning_rate": rate, "network": str(rate), "seed": 0} for rate in (0.1, 0.2, 0.4)],
            False,
        ),
        ("made up", dict, [{"learning_rate": 0.1, "seed": seed} for seed in range(5)], False),
        ("made up", dict, [{"width": width, "seed": 0} for width in (1, 2)], False),
    ],
)
def test_a_tuning_is_known_by_what_it_does(what: str, run: Any, settings: Rows, tuned: bool) -> None:
    rows = [{"settings": each} for each in settings]
    assert looks_tuned(Record(what, run, settings), rows) == tuned
