"""What a check takes for an answer, what it says to one, and that it leaves everything as it was."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from snn_helpers.long.exercise import Check, NotYet, Undone, ask, call, ending, letters, near, number, tensor

check = Check()


@check.exercise(1)
def half(answer: Any) -> str:
    """A half."""
    torch.rand(3), np.random.random(), random.random()
    torch.set_default_dtype(torch.float64)
    if number("half", answer, 0, 1, share=True) != 0.5:
        raise NotYet("that is not a half")
    return "Two of them are one."


@check.exercise(2)
def doubled(answer: Any) -> str:
    """A function that doubles."""
    found = tensor("double(...)", ask("double", answer, torch.arange(3.0)), [3])
    if not torch.equal(found, torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)):
        raise NotYet("that is not twice as much")
    return "So it is."


@check.exercise(3)
def careless(answer: Any) -> str:
    """A check that does not think of all kinds of answer."""
    return str(answer["key"] + 1)


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNN_STRICT_CHECKS", "0")
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


def said(capsys: pytest.CaptureFixture[str], *answer: Any) -> str:
    assert check(*answer) is None  # type: ignore[func-returns-value]
    return " ".join(capsys.readouterr().out.split())


RIGHT = [
    0.5,
    torch.tensor(0.5),
    torch.tensor([0.5], requires_grad=True),
    torch.tensor([[0.5]], dtype=torch.bfloat16),
    [torch.tensor(0.5, requires_grad=True)],
    np.float32(0.5),
    np.array(0.5),
    [0.5],
    (0.5,),
    Decimal("0.5"),
    Fraction(1, 2),
]


@pytest.mark.parametrize("answer", RIGHT, ids=repr)
def test_a_number_may_come_in_any_of_its_forms(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, 1, answer) == "Right. Two of them are one."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.4, "not a half"),
        (50, "looks like per cent"),
        (-3, "between 0 and 1"),
        (1000, "between 0 and 1"),
        (float("nan"), "finite number"),
        (float("inf"), "finite number"),
        ("0.5", "is the text '0.5'"),
        ([0.5, 0.5], "is a list of 2"),
        ([], "is a list of 0"),
        ([[0.5], [0.1, 0.2]], "is a list of 2"),
        (True, "is True"),
        (torch.tensor(True), "a tensor of the shape"),
        (10**400, "far too large"),
        (0.5j, "complex number"),
        (torch.rand(2, 2), r"a tensor of the shape \[2, 2\] of 4"),
        (lambda: 0.5, "is a function"),
        ({"a": 0.5}, "is a dictionary"),
        (float, "type type"),
        (torch.nn.Linear(1, 1), "of the type Linear"),
    ],
)
def test_another_kind_of_answer_gets_words(answer: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, 1, answer)
    assert told.startswith("Not yet: ") and re.search(words, told), told


def in_place(x: torch.Tensor) -> torch.Tensor:
    x *= 2
    return x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: 2 * x, "Right. So it is."),
        (lambda x: [0, 2, 4], "Right. So it is."),
        (lambda x: (2 * x).numpy(), "Right. So it is."),
        (lambda x: (2 * x).to_sparse(), "Right. So it is."),
        (lambda x: (2 * x).bfloat16(), "Right. So it is."),
        (lambda x: [torch.tensor(0.0, requires_grad=True), 2 * x[1], np.int8(4)], "Right. So it is."),
        (
            lambda x: [0, 2, "4"],
            "Not yet: double(...) should be a tensor of numbers, and is a list that holds",
        ),
        (lambda x: (0, 2, None), "Not yet: double(...) should be a tensor of numbers, and is a tuple that holds None"),
        (lambda x: np.array(["0", "2", "4"]), "Not yet: double(...) should be a tensor of numbers, and is an array"),
        (
            lambda x: [0, 2, 10**400],
            "Not yet: double(...) should be a tensor of numbers, and is a list that",
        ),
        (lambda x: None, "Exercise 2 is yours to do: double returns None so far."),
        (None, "Exercise 2 is yours to do: put your answer in place of None"),
        (in_place, "Not yet: double changes a tensor that it was given, in place"),
        (lambda x: x + "a", "Not yet: double stops with an error (TypeError"),
        (lambda: 2, "Not yet: double stops with an error (TypeError"),
        (lambda x: 2 * x[:2], "Not yet: double(...) should have the shape [3], and has [2]"),
        (lambda x: x / 0, "Not yet: double(...) holds numbers that are not finite"),
        (lambda x: "twice", "Not yet: double(...) should be a tensor, and is the text 'twice'"),
        (lambda x: ["a", "b", "c"], "Not yet: double(...) should be a tensor of numbers, and is a list"),
        (4, "Not yet: double should be a function, and is of the type int"),
    ],
)
def test_functions_are_asked_and_what_becomes_of_it_is_told(
    answer: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, 2, answer).startswith(words)


def test_a_call_hands_over_the_things_themselves_and_lets_what_a_check_says_pass() -> None:
    given = torch.arange(3.0)
    assert call("double", in_place, given) is given and given.tolist() == [0, 2, 4]
    assert call("double", lambda x: None, given) is None

    def unwritten(x: Any) -> None:
        raise NotImplementedError

    with pytest.raises(NotYet, match=r"^double stops with an error \(NotImplementedError\)$"):
        call("double", unwritten, given)
    for mine in (NotYet, Undone):

        def refuses(part: Any, mine: type[Exception] = mine) -> None:
            raise mine("this part is too large")

        with pytest.raises(mine, match=r"^this part is too large$"):
            call("accumulate", lambda respond, part: respond(part), refuses, given)


@pytest.mark.parametrize(
    "value", ["AC", "a and c", "A, C.", ["AC"], ("c ", "A"), {"A", "C"}, {"A": 1, "C": 2}.keys(), np.array(["a", "c"])]
)
def test_letters_may_come_as_a_text_or_in_a_list(value: Any) -> None:
    assert letters("chosen", value, "ABCD") == {"A", "C"}
    assert letters("chosen", [], "ABCD") == letters("chosen", "", "ABCD") == set()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["A", "E"], "the letters are A, B, C, D"),
        ("none", "the letters are A, B, C, D"),
        ([1, 3], 'as in ["A", "B"], and is a list that holds others'),
        ([True, False], "that holds others"),
        ({"A": True, "C": False}, "a dictionary"),
        (2, "of the type int"),
        (filter(None, "AC"), "of the type filter"),
        (np.array([1, 3]), "that holds others"),
        (lambda: "AC", "a function"),
    ],
)
def test_what_are_no_letters_gets_words(value: Any, words: str) -> None:
    with pytest.raises(NotYet, match=f"^chosen.*{re.escape(words)}"):
        letters("chosen", value, "ABCD")


def never(x: int) -> int:
    while True:
        x += 1


def in_one_line(x: int) -> None:
    while True: pass  # fmt: skip  # noqa: E701


@pytest.mark.parametrize("called", [never, in_one_line, lambda x: next(n for n in count() if n < x - 10)])
def test_a_loop_without_end_is_stopped_and_told(called: Callable[..., Any]) -> None:
    before = sys.gettrace()
    with pytest.raises(NotYet, match=r"^search does not come to an end for 7: "):
        ask("search", ending("search", called), 7)
    assert sys.gettrace() is before


def test_what_comes_to_an_end_is_not_stopped() -> None:
    before = sys.gettrace()
    assert ask("total", ending("total", lambda n, start=0: sum(range(n), start)), 1000, start=5) == 499505
    with pytest.raises(NotYet, match=r"^total stops with an error \(ZeroDivisionError"):
        ask("total", ending("total", lambda n: n / 0), 1)
    assert sys.gettrace() is before


@pytest.mark.parametrize("answer", [3, [1], {"key": "a"}, {}])
def test_a_check_never_ends_in_a_traceback(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, 3, answer).startswith("Not yet: the check cannot work with this answer (")


def test_a_check_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    undisturbed = torch.rand(2), np.random.random(2), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    for answer in (0.5, 0.4, None):
        said(capsys, 1, answer)
    drawn = torch.rand(2), np.random.random(2), random.random()
    assert torch.equal(undisturbed[0], drawn[0]) and (undisturbed[1] == drawn[1]).all() and undisturbed[2] == drawn[2]
    assert torch.get_default_dtype() == torch.float32
    given = torch.ones(3)

    @check.exercise(4)
    def spoils(answer: Any, given: Any) -> str:
        answer += 1
        given["net"] = None
        return "It was spoilt."

    of_notebook = {"net": given}
    check(4, given, given=of_notebook)
    assert torch.equal(given, torch.ones(3)) and of_notebook == {"net": given}


@pytest.mark.parametrize("variable", [("SNN_STRICT_CHECKS", "1"), ("NBGRADER_EXECUTION", "autograde")])
def test_where_a_program_asks_a_wrong_answer_raises(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(*variable)
    assert said(capsys, 1, 0.5).startswith("Right.")
    with pytest.raises(NotYet, match="not a half"):
        check(1, 0.4)
    with pytest.raises(Undone, match="yours to do"):
        check(1, None)


def test_an_exercise_has_one_check_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="no check for an exercise 9 here, only for 1, 2, 3"):
        check(9, 0.5)
    with pytest.raises(ValueError, match="exercise 1 has a check already: half"):
        check.exercise(1)(doubled)


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (torch.tensor([1.0, 2.0]), True),
        (torch.tensor([1.00005, 2.0]), True),
        (torch.tensor([1.001, 2.0]), False),
        (torch.tensor([1, 2]), True),
        (torch.tensor([[1.0, 2.0]]), False),
        (torch.tensor([1.0, float("nan")]), False),
    ],
)
def test_tensors_are_near_in_shape_and_numbers_whatever_their_kind(other: torch.Tensor, is_near: bool) -> None:
    one = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert near(one, other) == near(other, one) == is_near
