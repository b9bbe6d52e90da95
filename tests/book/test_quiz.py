"""The quiz: thirty questions, one right answer each, and nothing by which it could be guessed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = (BOOK / "quiz.md").read_text(encoding="utf-8")
QUESTIONS = re.split(r"(?=^\*\*\d+\. )", TEXT, flags=re.M)[1:]
CHOICE = re.compile(r"^- ([abcd])\) (.+)$", re.M)


def right(question: str) -> str:
    (letter,) = re.findall(r":::\{dropdown\} Answer\n\*\*([abcd])\.\*\*", question)
    return str(letter)


def test_there_are_thirty_in_order() -> None:
    numbers = [int(re.match(r"\*\*(\d+)\.", question)[1]) for question in QUESTIONS]  # type: ignore[index]
    assert numbers == list(range(1, 31))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question[2:5].strip("."))
def test_a_question_has_four_different_choices_and_an_answer_with_its_reason(question: str) -> None:
    choices = CHOICE.findall(question)
    assert [letter for letter, _ in choices] == list("abcd")
    assert len({text.lower() for _, text in choices}) == 4
    reason = question.split(":::{dropdown} Answer")[1]
    assert right(question) in "abcd" and len(reason.split()) >= 10
    # Whoever is wrong is led to where it is settled.
    linked = re.findall(r"\]\((\w+\.(?:ipynb|md))", reason)
    assert linked and all((BOOK / name).exists() for name in linked), linked


def test_no_letter_can_be_guessed() -> None:
    letters = [right(question) for question in QUESTIONS]
    assert max(Counter(letters).values()) <= 9
    assert not re.search(r"(.)\1\1", "".join(letters)), "three times the same letter in a row"
    # Nor is the right one the longest too often.
    longest = sum(
        max(CHOICE.findall(question), key=lambda choice: len(choice[1]))[0] == right(question) for question in QUESTIONS
    )
    assert longest <= 15, f"the right choice is the longest in {longest} of 30"


def test_what_learners_get_wrong_is_asked_from_every_chapter() -> None:
    asked = {name for question in QUESTIONS for name in re.findall(r"\]\((\d\d)_\w+\.ipynb", question)}
    chapters = {path.name[:2] for path in BOOK.glob("[0-9][0-9]_*.ipynb")}
    assert asked == chapters
