"""The lesson plans: they add up, they name what there is, and they leave enough time."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import make_workshop
import nbformat
import pytest
from make_workshop import exercises, section_minutes, text_and_exercises
from minutes import AT_THE_TOP, LISTED, listed, opening
from notebooks import BOOK, CHAPTERS, code_cells, each_chapter, read

ROOT = Path(__file__).resolve().parents[2]

Line = tuple[int, str | None, list[str], str]
TIMES = json.loads((ROOT / "book" / "results" / "notebook_times.json").read_text(encoding="utf-8"))
ROWS: dict[str, dict[str, Any]] = {row["settings"]["notebook"]: row for row in TIMES["trials"]}
EXPECTED = {"90 minutes": 90, "half a day": 210, "a day": 420}


def assigned(name: str) -> Any:
    """What a cell of the page assigns to a name, read without running it."""
    for cell in code_cells(read(ROOT / "book" / "instructors.ipynb")):
        for node in ast.parse(cell.source.replace("%pip", "#")).body if "%pip" not in cell.source else []:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return ast.literal_eval(node.value)
    raise AssertionError(f"no cell assigns {name}")


PLANS: dict[str, list[Line]] = assigned("plans")
each_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


def test_the_minutes_of_each_plan_add_up() -> None:
    assert {name: sum(minutes for minutes, *_ in lines) for name, lines in PLANS.items()} == EXPECTED
    assert assigned("lengths") == EXPECTED


@each_plan
def test_what_a_plan_names_is_there_and_gets_the_time_that_it_needs(plan: list[Line]) -> None:
    for minutes, name, parts, what in plan:
        assert minutes > 0 and what
        if name is None:
            assert not parts
            continue
        notebook = read(ROOT / "book" / f"{name}.ipynb")
        by_section = section_minutes(notebook)
        by_exercise = {f"Exercise {exercise.number}": exercise.minutes for exercise in exercises(notebook)}
        assert parts
        needed = 0
        for part in parts:
            assert part in by_section or part in by_exercise, f"{name} has no section or exercise {part!r}"
            needed += by_exercise.get(part, 0) or by_section[part]
        assert minutes >= needed, f"{name}, {parts}: {minutes} minutes planned, {needed} needed"


def _has_an_exercise(name: str, part: str) -> bool:
    notebook = read(ROOT / "book" / f"{name}.ipynb")
    cells = dict(make_workshop.sections(notebook)).get(part, range(0))
    return part.startswith("Exercise") or any(exercise.task in cells for exercise in exercises(notebook))


@each_plan
def test_a_plan_follows_the_order_of_the_book_and_has_breaks(plan: list[Line]) -> None:
    order = [path.stem for path in make_workshop.notebooks()]
    used = [name for _, name, _, _ in plan if name]
    assert [order.index(name) for name in used] == sorted(order.index(name) for name in used)
    without = 0
    for minutes, name, _, _ in plan:
        without = without + minutes if name else 0
        assert without <= 105, "nobody listens for so long: a break is missing"
    assert sum(_has_an_exercise(name, part) for _, name, parts, _ in plan if name for part in parts) >= 3


@each_plan
def test_no_part_of_a_plan_waits_for_its_cells_longer_than_it_lasts(plan: list[Line]) -> None:
    for minutes, name, parts, _ in plan:
        if name:
            # An exercise's cells are in the section that it belongs to.
            seconds = sum(ROWS[name]["sections"][part] for part in parts if not part.startswith("Exercise "))
            assert seconds < 60 * minutes, f"{name}, {parts}: {seconds} s of running in {minutes} minutes"


@pytest.mark.parametrize("name", ROWS)
def test_the_sections_that_were_timed_are_those_that_the_notebook_has(name: str) -> None:
    now = [title for title, _ in make_workshop.sections(read(BOOK / f"{name}.ipynb"))]
    assert list(ROWS[name]["sections"]) == now, f"run: make times ARGS={name}"


def test_every_chapter_and_whatever_a_plan_names_has_been_timed() -> None:
    named = {name for lines in PLANS.values() for _, name, _, _ in lines if name}
    missing = ({path.stem for path in CHAPTERS} | named) - set(ROWS)
    assert not missing, f"not timed: {sorted(missing)}. Run: make times ARGS='{' '.join(sorted(missing))}'"


@pytest.mark.parametrize("name", ROWS)
def test_the_minutes_are_those_of_the_notebook_wherever_they_are_told(name: str) -> None:
    notebook = read(ROOT / "book" / f"{name}.ipynb")
    now = text_and_exercises(notebook)
    cure = "run: .venv/bin/python book/_scripts/repo/minutes.py"
    assert (ROWS[name]["text_minutes"], ROWS[name]["exercise_minutes"]) == now, cure
    assert opening(notebook.cells[0].source, *now) == notebook.cells[0].source, cure


@each_chapter
def test_a_chapter_tells_its_minutes_at_the_top(path: Path) -> None:
    assert AT_THE_TOP.search(read(path).cells[0].source)


def test_formulas_questions_and_exercises_count_and_folded_answers_do_not() -> None:
    def minutes(*sources: str) -> tuple[int, int]:
        cells = [nbformat.v4.new_markdown_cell(source) for source in ("# Title", "## Part", *sources)]
        return text_and_exercises(nbformat.v4.new_notebook(cells=cells))

    words = "word " * 1200  # ten minutes; the opening counts as one
    assert minutes(words) == (11, 0)
    assert minutes(words, "$$\na = b\n$$\n" * 6) == (13, 0)
    assert minutes(words, "**Predict, then look.** What?") == (12, 0)
    assert minutes(words, f"<details>\n<summary>Answers</summary>\n\n{words}\n\n</details>") == (11, 0)


@pytest.mark.parametrize(
    ("of_text", "of_exercises", "told"),
    [(31, 0, "about 30 minutes to read"), (33, 12, "about 35 minutes to read and 10 for the exercises")],
)
def test_minutes_are_told_in_steps_of_five(of_text: int, of_exercises: int, told: str) -> None:
    before = "**It takes** about 60 minutes to read and work through; the notebook runs in ten seconds."
    after = opening(before, of_text, of_exercises)
    assert after == f"**It takes** {told}; the notebook runs in ten seconds."
    assert opening(after, of_text, of_exercises) == after


def test_the_introduction_lists_each_chapter_with_its_minutes() -> None:
    lists = [
        cell.source for cell in read(BOOK / "intro.ipynb").cells if "minutes: to read + exercises |" in cell.source
    ]
    minutes = {path.stem: text_and_exercises(read(path)) for path in CHAPTERS}
    assert len(lists) == 1 and lists[0] == listed(lists[0], minutes), "run book/_scripts/repo/minutes.py"
    assert {stem for _, stem in LISTED.findall(lists[0])} == set(minutes)
