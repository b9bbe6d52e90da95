"""Each claim of the ledger is handed figures that turn it: one that no figure could turn would be no claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from snn_chapters.credit import Agreement, Question, question
from snn_chapters.ledger import CLAIMS, abstract, all_of, in_short, judged, row

from snn_helpers.records import load_results
from snn_helpers.statistics import decide, decide_alike

HIGH, LOW, ZERO = [0.9, 1.0, 1.1, 1.0, 0.95], [-1.0, -1.1, -0.9, -1.0, -1.05], [0.01, -0.01, 0.02, -0.02, 0.0]
WIDE = [-9.0, 9.0, -8.0, 8.0, 1.0]
ALIKE = [0.95, 0.95, 0.94, 0.96, 0.95]  # cosines


def times(factor: float, values: list[float]) -> list[float]:
    return [factor * value for value in values]


BOTH = HIGH, HIGH  # a narrower gap, and a higher accuracy


def four(*gaps: list[float]) -> dict[str, list[float]]:
    return dict(zip(("as_published", "same_weights", "best_rates", "both_alike"), gaps, strict=True))


def about(value: float) -> list[float]:
    return [value + small for small in ZERO]


ALL, NONE = [True] * 5, [False] * 5
RHYTHM = {"article": NONE, "drawn": NONE, "trained": {"late": ALL}, "nulls": NONE, "control": True}
# Of each claim: figures, and the verdict that they must give.
TURNS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "alike": [
        (four(ZERO, ZERO, ZERO, times(0.5, LOW)), "holds"),
        (four(times(5, HIGH), ZERO, ZERO, ZERO), "holds if"),
        (four(times(1.5, HIGH), times(1.5, LOW), times(5, LOW), times(5, LOW)), "fails"),  # beyond, however little
        (four(WIDE, WIDE, WIDE, WIDE), "open"),
    ],
    "ahead": [
        (four(HIGH, HIGH, HIGH, HIGH), "holds"),
        (four(HIGH, HIGH, ZERO, LOW), "holds if"),
        (four(LOW, LOW, LOW, LOW), "fails"),
        (four(ZERO, LOW, LOW, LOW), "open"),
        (four([0.2, 1.8, 0.3, 1.7, 1.0], LOW, LOW, LOW), "open"),  # clear of zero by itself, not as one of four
    ],
    "slower": [({"ratios": times(9, HIGH)}, "holds"), ({"ratios": HIGH}, "fails"), ({"ratios": WIDE}, "open")],
    "first attempt": [
        ({"at_its_rate": times(90, [1, 1, 0.99])}, "holds"),
        ({"at_its_rate": times(30, [1, 1, 0.99])}, "fails"),
        ({"at_its_rate": [90.0, 90.0, 30.0]}, "open"),
    ],
    "varies": [
        # However unlike the losses are: each is large.
        ({"best": [90.0] * 5, "others": {8.0: [10.0, 84.0, 20.0, 10.0, 50.0]}}, "holds"),
        ({"best": [90.0] * 5, "others": {0.5: [88.0] * 5, 8.0: [10.0, 84.0, 20.0, 10.0, 50.0]}}, "holds if"),
        ({"best": [90.0] * 5, "others": {0.25: [90.0, 86.0, 89.0, 91.0, 90.0], 2.0: [90.0] * 5}}, "fails"),
        # From one start it loses little.
        ({"best": [90.0] * 5, "others": {2.0: [90.0] * 5, 8.0: [10.0, 86.0, 20.0, 10.0, 50.0]}}, "open"),
        ({"best": [90.0] * 4, "others": {4.0: [10.0] * 4}}, "open"),  # four that agree come by chance in 1 of 16
    ],
    "regulariser": [
        ({"spikes": {1: BOTH, 2: BOTH}, "dropout": {1: BOTH, 2: BOTH}}, "holds"),
        ({"spikes": {1: BOTH, 2: (LOW, HIGH)}, "dropout": {1: BOTH, 2: BOTH}}, "holds if"),
        ({"spikes": {1: (HIGH, LOW), 2: (LOW, HIGH)}, "dropout": {1: BOTH, 2: BOTH}}, "fails"),
        ({"spikes": {1: (HIGH, ZERO)}, "dropout": {1: BOTH}}, "open"),
        # Where the test does not find dropout, it says nothing of spikes.
        ({"spikes": {1: (LOW, LOW), 2: BOTH}, "dropout": {1: (HIGH, ZERO), 2: BOTH}}, "holds"),
        ({"spikes": {1: (LOW, LOW)}, "dropout": {1: (LOW, LOW)}}, "open"),
        ({"spikes": {1: BOTH}, "dropout": {1: (HIGH, LOW)}}, "open"),
    ],
    "gradual": [
        ({"steps_apart": times(9, HIGH), "without_memory": times(5, HIGH)}, "holds"),
        ({"steps_apart": times(9, HIGH), "without_memory": times(20, HIGH)}, "holds if"),
        ({"steps_apart": ZERO, "without_memory": HIGH}, "fails"),
    ],
    "reusable": [
        ({"loss_falls": HIGH, "below_held": ZERO}, "holds"),
        ({"loss_falls": HIGH, "below_held": times(2, HIGH)}, "fails"),
        ({"loss_falls": WIDE, "below_held": HIGH}, "open"),
    ],
    "ensembles mend": [
        ({"silent_alone": times(5, HIGH), "silent_together": ZERO}, "holds"),
        ({"silent_alone": ZERO, "silent_together": HIGH}, "fails"),
    ],
    "ensembles read": [
        ({"together": about(86), "alone": about(50)}, "holds"),
        ({"together": about(50), "alone": about(86)}, "fails"),
        ({"together": about(86), "alone": [87.0, 10.0, 87.0, 10.0, 10.0]}, "open"),
        ({"together": about(90), "alone": about(85)}, "holds"),
    ],
    "more spikes": [({"together": HIGH, "alone": ZERO}, "holds"), ({"together": ZERO, "alone": HIGH}, "fails")],
    "shared": [
        ({"as_it_is": ZERO, "normalised": ZERO, "without": times(0.3, HIGH)}, "holds"),
        ({"as_it_is": ZERO, "normalised": times(0.5, HIGH), "without": times(0.3, HIGH)}, "holds if"),
        ({"as_it_is": times(0.4, HIGH), "normalised": times(0.5, HIGH), "without": times(0.3, HIGH)}, "fails"),
    ],
    "third layer": [
        ({"as_drawn": [0.0] * 5, "by_thresholds": about(87), "by_weights": about(11)}, "holds"),
        ({"as_drawn": [0.0] * 5, "by_thresholds": about(87), "by_weights": about(86)}, "holds if"),
        ({"as_drawn": times(0.2, HIGH), "by_thresholds": about(87), "by_weights": about(11)}, "fails"),
        ({"as_drawn": [0.0] * 5, "by_thresholds": about(11), "by_weights": about(11)}, "fails"),
    ],
    "refractory": [
        ({"without_reset": "fails"}, "holds"),
        ({"without_reset": "holds"}, "fails"),
        ({"without_reset": "open"}, "open"),
    ],
    "recent": [
        (
            {"digits": times(90, HIGH), "digits_null": times(60, HIGH)}
            | {"patterns": times(90, HIGH), "patterns_null": times(60, HIGH)},
            "holds",
        ),
        # More than a half, and no more than signals at random times give.
        (
            {"digits": times(90, HIGH), "digits_null": times(95, HIGH)}
            | {"patterns": times(90, HIGH), "patterns_null": times(60, HIGH)},
            "holds if",
        ),
        (
            {"digits": times(20, HIGH), "digits_null": ZERO} | {"patterns": times(20, HIGH), "patterns_null": ZERO},
            "fails",
        ),
    ],
    "late": [
        ({"digits": ZERO, "patterns": ZERO}, "holds"),
        ({"digits": HIGH, "patterns": ZERO}, "holds if"),
        ({"digits": HIGH, "patterns": times(0.4, HIGH)}, "fails"),
        ({"digits": HIGH, "patterns": [0.02, 0.2, 0.0, 0.25, 0.05]}, "open"),
    ],
    "first told": [({"earlier": [2005, 2021]}, "fails"), ({"earlier": [2021]}, "open"), ({"earlier": []}, "open")],
    "binary": [
        ({"difference": ZERO}, "holds"),
        ({"difference": times(5, LOW)}, "fails"),
        ({"difference": WIDE}, "open"),
    ],
    "rectifier": [
        ({"steady": HIGH, "flickering": HIGH}, "holds"),
        ({"steady": times(0.4, HIGH), "flickering": HIGH}, "holds if"),  # ahead, and by no more than counts
        ({"steady": LOW, "flickering": HIGH}, "holds if"),
        ({"steady": LOW, "flickering": LOW}, "fails"),
        ({"steady": WIDE, "flickering": LOW}, "open"),
    ],
    "saves": [
        ({"saved": {"sparse": HIGH, "dense": HIGH}}, "holds"),
        ({"saved": {"sparse": HIGH, "dense": LOW}}, "holds if"),
        ({"saved": {"sparse": LOW, "dense": LOW}}, "fails"),
        ({"saved": {"sparse": WIDE, "dense": LOW}}, "open"),
    ],
    "early": [
        ({"share_of_steps": times(0.3, HIGH), "lost": ZERO}, "holds"),
        ({"share_of_steps": HIGH, "lost": ZERO}, "fails"),
        ({"share_of_steps": times(0.3, HIGH), "lost": HIGH}, "fails"),
        ({"share_of_steps": times(0.3, HIGH), "lost": WIDE}, "open"),
    ],
    "bears noise": [
        ({"difference": HIGH}, "holds"),
        ({"difference": LOW}, "fails"),
        ({"difference": ZERO}, "open"),
        ({"difference": [0.2, 1.8, 0.3, 1.7, 1.0]}, "open"),  # clear of zero by itself, not as one of three
    ],
    "bears loss": [
        ({"untrained": HIGH, "trained": HIGH}, "holds"),
        ({"untrained": HIGH, "trained": LOW}, "holds if"),
        ({"untrained": LOW, "trained": LOW}, "fails"),
        ({"untrained": ZERO, "trained": LOW}, "open"),
    ],
    "rhythm": [
        (RHYTHM | {"article": ALL, "drawn": ALL}, "holds"),
        (RHYTHM, "holds if"),
        (RHYTHM | {"trained": {"late": NONE}}, "fails"),
        (RHYTHM | {"trained": {"late": [True, True, True, True, False]}}, "open"),
        # A null that has one, and a control that has none: the test tells nothing.
        (RHYTHM | {"nulls": [False, True]}, "open"),
        (RHYTHM | {"control": False}, "open"),
    ],
    "none elsewhere": [
        ({"without_loop": NONE, "drawn": NONE, "trained": NONE}, "holds"),
        ({"without_loop": NONE, "drawn": NONE, "trained": [True, *NONE]}, "holds if"),  # one is enough
        ({"without_loop": NONE, "drawn": ALL, "trained": [True, *NONE]}, "fails"),
        ({"without_loop": NONE[:4], "drawn": NONE[:4], "trained": NONE[:4]}, "open"),
        ({"without_loop": [True, *NONE], "drawn": ALL, "trained": ALL}, "open"),  # which cannot be
    ],
    "cycles teach": [
        ({"alike_to_exact": ALIKE, "alike_if_short": ALIKE, "ahead": {"pixels": HIGH, "random": HIGH}}, "holds if"),
        ({"alike_to_exact": ALIKE, "alike_if_short": LOW, "ahead": {"pixels": HIGH, "random": HIGH}}, "holds if"),
        ({"alike_to_exact": LOW, "alike_if_short": LOW, "ahead": {"pixels": HIGH, "random": HIGH}}, "fails"),
        ({"alike_to_exact": ALIKE, "alike_if_short": LOW, "ahead": {"pixels": LOW, "random": HIGH}}, "fails"),
        ({"alike_to_exact": ALIKE, "alike_if_short": LOW, "ahead": {"pixels": HIGH, "random": LOW}}, "fails"),
        ({"alike_to_exact": ALIKE, "alike_if_short": LOW, "ahead": {"pixels": HIGH, "Oja": WIDE}}, "open"),
    ],
    "before a goal": [
        ({"over_random": {100: HIGH, 1000: HIGH}, "over_shuffled": {100: HIGH, 1000: HIGH}}, "holds"),
        ({"over_random": {100: HIGH, 1000: LOW}, "over_shuffled": {100: HIGH, 1000: HIGH}}, "holds if"),
        ({"over_random": {100: HIGH, 1000: HIGH}, "over_shuffled": {100: HIGH, 1000: LOW}}, "holds if"),
        ({"over_random": {100: LOW, 1000: LOW}, "over_shuffled": {100: HIGH, 1000: HIGH}}, "fails"),
        ({"over_random": {100: WIDE}, "over_shuffled": {100: HIGH}}, "open"),
    ],
    "slow cycles": [
        ({"gain": HIGH, "gain_with_more_time": HIGH}, "holds"),
        ({"gain": LOW, "gain_with_more_time": HIGH}, "holds if"),
        ({"gain": LOW, "gain_with_more_time": LOW}, "fails"),
    ],
}


@pytest.mark.parametrize(
    ("name", "figures", "expected"),
    [(name, figures, expected) for name, cases in TURNS.items() for figures, expected in cases],
)
def test_the_verdict_follows_the_figures(name: str, figures: dict[str, Any], expected: str) -> None:
    assert judged(name, **figures).verdict == expected


def test_every_claim_has_been_seen_to_turn() -> None:
    assert set(TURNS) == set(CLAIMS)
    for name, cases in TURNS.items():
        verdicts = {expected for _, expected in cases}
        assert "fails" in verdicts and len(verdicts) > 1, name


def test_a_row_names_the_conditions_under_which_it_holds() -> None:
    mixed = row("It flies.", {"in air": "holds", "in water": "fails", "in honey": "open", "in wind": "holds"})
    assert (mixed.verdict, mixed.under) == ("holds if", "in air or in wind")
    assert row("It flies.", {"in air": "holds"}).under == ""
    same = row("It flies.", {"a": "holds", "b": "holds", "c": "fails"}, {"a": "in gas", "b": "in gas"})
    assert (same.verdict, same.under) == ("holds if", "in gas")
    with pytest.raises(ValueError, match="'holds', 'fails' or 'open'"):
        row("It flies.", {"in air": "true"})
    with pytest.raises(ValueError, match="no claim is called 'alik'; there are alike"):
        judged("alik")


@pytest.mark.parametrize(
    ("parts", "whole"), [(["holds", "holds"], "holds"), (["holds", "open"], "open"), (["open", "fails"], "fails")]
)
def test_what_needs_several_fails_with_any(parts: list[str], whole: str) -> None:
    assert all_of(*parts) == whole


# --- the answer in short ---------------------------------------------------------------------------


def recorded(record: str, **settings: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_results(record)["trials"]
    return [row for row in rows if all(row["settings"].get(key) == value for key, value in settings.items())]


def hidden_cosines(task: str, rule: str) -> list[float]:
    rows = recorded("08_plasticity", task=task, reset="scale")
    return [row["probes"][-1]["cosines"][0]["centred"][rule] for row in rows]


def test_the_records_carry_what_the_answer_says_in_words() -> None:
    """Its figures follow the records by themselves; these are its words."""
    answer = question(load_results("08_plasticity")["trials"])
    assert in_short(answer) == (
        "**No, not as a whole.** STDP has two halves. The first, in which input before a spike is strengthened, is"
        " there on patterns that differ in time alone and on patterns that also differ in their number of pulses, and"
        " is not there on digits. The second, in which input after a spike is weakened, is not there in any task."
    )
    timed, free = (hidden_cosines(task, "pre first, timing") for task in ("patterns", "free"))
    assert decide(timed, free, margin=0.1) == "holds"  # "it agrees less"
    assert decide(hidden_cosines("patterns", "post first, timing")) == "holds"  # the wrong sign
    assert decide(hidden_cosines("free", "Hebb"), hidden_cosines("free", "Hebb, other inputs"), margin=0.1) == "holds"
    for rule in ("Hebb", "pre first, timing"):
        assert decide_alike(hidden_cosines("digits", rule), 0.1) == "holds"
    trained = [
        row
        for row in recorded("07_perturbation", part="slope", task="digits", reset="scale")
        if "penalty" not in row["settings"]
    ]
    assert len(trained) >= 5
    ratios = {
        when: [row[when]["slopes"][0]["says"][0] / row[when]["slopes"][0]["does"]["0.05"][0] for row in trained]
        for when in ("before", "after")
    }
    assert all(decide(found, 1.0) == "holds" for found in ratios.values())
    for kind, decided in ((0, "holds"), (1, "fails")):
        late = [row["after"]["window"]["late_weakened"][kind] for row in recorded("09_after_spike", variant="provoked")]
        assert decide(late, 0.5) == decided


def test_the_readme_gives_the_same_answer() -> None:
    answer = abstract(question(load_results("08_plasticity")["trials"]))
    assert answer in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def answered(verdict: str, causal: dict[str, str], depression: dict[str, str]) -> Question:
    """An answer with these decisions by task, with both resets alike."""

    def half(by_task: dict[str, str]) -> Agreement:
        resets = ("scale", "discharge")
        return Agreement({f"{task}, {reset}": by_task[task] for task in by_task for reset in resets}, {}, {})

    return Question(verdict, {}, half(causal), half(depression), {})


YES, NO = (dict.fromkeys(("patterns", "free", "digits"), decision) for decision in ("holds", "fails"))


@pytest.mark.parametrize(
    ("verdict", "causal", "depression", "told"),
    [
        ("holds", YES, YES, ["Yes.", "strengthened, is there on patterns", "weakened, is there on patterns"]),
        ("fails", NO, NO, ["**No.**", "strengthened, is not there in any", "weakened, is not there in any"]),
        ("fails", NO, YES, ["not as a whole", "strengthened, is not there in", "weakened, is there on patterns"]),
        ("holds if", YES, NO | {"digits": "holds"}, ["Under some", "weakened, is there on digits, and is not there"]),
        ("open", YES | {"digits": "open"}, NO, ["do not tell", "pulses, and is open on digits", "not there in any"]),
    ],
)
def test_the_answer_turns_with_each_half(
    verdict: str, causal: dict[str, str], depression: dict[str, str], told: list[str]
) -> None:
    answer = answered(verdict, causal, depression)
    short = in_short(answer)
    assert all(words in short for words in told), short
    assert abstract(answer).splitlines()[0].endswith(short)


def test_a_half_that_is_there_with_one_reset_only_is_open() -> None:
    answer = answered("fails", YES, NO)
    answer.causal.decisions["digits, discharge"] = "fails"
    assert "and is open on digits" in in_short(answer)
