"""`make grade`: what learners hand in is tried in a fresh kernel, and each gets a line, whatever it does."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import make_grade
import make_workshop
import nbformat
import pytest
from make_grade import Mark, grade, table
from make_workshop import student_copy
from notebooks import CHAPTERS, read

MARKDOWN, CODE = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell


def exercise(number: int, level: str, name: str, solution: str, check: str) -> list[Any]:
    return [
        MARKDOWN(f"### Exercise {number} ({level}). A title\n\nPut it into `{name}`."),
        CODE(f"{name} = None  # your code here", metadata={"tags": ["exercise"]}),
        CODE(solution, metadata={"tags": ["solution", "hide-cell"]}),
        CODE(check, metadata={"tags": ["check"]}),
    ]


def told(right: str, words: str) -> str:
    """A check that says what the checks of the chapters say."""
    return f"print('Right.' if {right} else f'Not yet: {words}')"


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A book of one small chapter: six points in three exercises."""
    cells = [
        MARKDOWN("# 1. A small chapter\n\nText."),
        CODE("base = 2"),
        *exercise(1, "easy", "double", "double = 2 * base", told("double == 4", "double is {double}")),
        MARKDOWN("## More"),
        *exercise(2, "medium", "half", "half = base / 2", told("half == 1", "half of base")),
        *exercise(3, "hard", "f", "def f(x):\n    return x + base", told("f(5) == 7", "f adds base")),
        MARKDOWN("## Sources"),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    path = tmp_path / "book" / "01_small.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    monkeypatch.setattr(make_grade, "notebooks", lambda: [path])
    monkeypatch.setattr(make_grade, "BOOK", path.parent)
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    return notebook


def handed_in(chapter: Any, answers: dict[int, str], where: Path) -> Path:
    """A students' copy with some answers in its blanks."""
    copied = student_copy(chapter)
    for cell in make_workshop.exercises_of(copied):
        number = next(n for n, name in enumerate(("double", "half", "f"), 1) if cell.source.startswith(f"{name} ="))
        cell.source = answers.get(number, cell.source)
    nbformat.write(copied, where)
    return where


SOLVED = {1: "double = 2 * base", 2: "half = base / 2", 3: "def f(x):\n    return x + base"}


@pytest.mark.parametrize(
    ("answers", "points", "said"),
    [
        (SOLVED, 6, []),
        ({}, 0, ["double is None", "half of base", "exercise 3: 'NoneType' object is not callable"]),
        (SOLVED | {1: "double = 5"}, 5, ["double is 5"]),
        (SOLVED | {2: "half = 1 / 0"}, 4, ["exercise 2: name 'half' is not defined"]),
        (SOLVED | {2: "half = ("}, 4, ["exercise 2:"]),
        # An endless loop costs its own exercise only.
        (SOLVED | {1: "while True:\n    pass"}, 5, ["exercise 1: name 'double' is not defined"]),
        # Who leaves the kernel keeps what came before.
        (SOLVED | {2: "import os\nos._exit(3)"}, 1, ["exercise 2: was not reached", "the kernel died there"]),
        # A learner's own check does not count: it is the book's that is run.
        (SOLVED | {3: "f = lambda x: 7\nassert True"}, 6, []),
    ],
    ids=["solved", "blank", "wrong", "raises", "no Python", "endless", "exits", "hard-coded"],
)
def test_each_answer_gets_its_points(
    chapter: Any, answers: dict[int, str], points: int, said: list[str], tmp_path: Path
) -> None:
    mark = grade(handed_in(chapter, answers, tmp_path / "x.ipynb"), "ann", limit=60, cell_limit=3)
    assert (mark.learner, mark.chapter, mark.points, mark.out_of) == ("ann", "01_small", points, 6)
    told = "; ".join(mark.said)
    assert all(words in told for words in said) and (bool(mark.said) == bool(said)), told


def test_the_time_for_one_notebook_ends(chapter: Any, tmp_path: Path) -> None:
    slow = SOLVED | {1: "import time\ndouble = 4\ntime.sleep(8)"}
    mark = grade(handed_in(chapter, slow, tmp_path / "x.ipynb"), "ann", limit=5, cell_limit=60)
    assert mark.points < 6 and "the time for one notebook was up" in mark.said[-1] and mark.seconds < 30


def test_a_front_end_may_drop_tags_and_ids_and_a_learner_may_add_cells(chapter: Any, tmp_path: Path) -> None:
    path = handed_in(chapter, SOLVED, tmp_path / "x.ipynb")
    notebook = read(path)
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.source.startswith("print('Right"):
            cell.source = "pass  # the check, defused"
    notebook.cells.insert(2, CODE("raise ValueError('a try of mine')"))
    place = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("half"))
    notebook.cells[place : place + 1] = [CODE("two = 2"), CODE("half = base / two")]
    nbformat.write(notebook, path)
    assert grade(path, "ann", limit=60, cell_limit=20).points == 6


def test_what_is_no_hand_in_gets_a_line(chapter: Any, tmp_path: Path) -> None:
    (tmp_path / "torn.ipynb").write_text('{"cells": [')
    nbformat.write(nbformat.v4.new_notebook(cells=[MARKDOWN("# My own work")]), tmp_path / "own.ipynb")
    torn, own = (grade(tmp_path / f"{name}.ipynb", name, limit=9, cell_limit=9) for name in ("torn", "own"))
    assert torn.points == own.points == 0
    assert "no notebook that can be read" in torn.said[0] and "its title is that of no chapter" in own.said[0]


def test_the_table_is_one_line_a_learner_and_no_formula() -> None:
    marks = [Mark("=cmd()", "01", 1, 6, ['exercise 2: said "no", twice', "and\nmore"], 1.5), Mark("ann/a", "02", 3, 3)]
    header, *rows = csv.reader(io.StringIO(table(marks)))
    assert header == ["learner", "chapter", "points", "out of", "what was wrong", "seconds"]
    assert [row[:4] for row in rows] == [["'=cmd()", "01", "1", "6"], ["ann/a", "02", "3", "3"]]
    assert 'said "no", twice' in rows[0][4]


def test_the_command_writes_as_it_goes_and_refuses_an_empty_folder(
    chapter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "class"
    with pytest.raises(SystemExit):
        make_grade.main([str(folder)])
    assert "is no folder" in capsys.readouterr().err
    (folder / "ben" / ".ipynb_checkpoints").mkdir(parents=True)
    with pytest.raises(SystemExit):
        make_grade.main([str(folder)])
    assert "holds no notebook" in capsys.readouterr().err
    handed_in(chapter, SOLVED, folder / "ben" / "mine.ipynb")
    handed_in(chapter, SOLVED, folder / "ben" / ".ipynb_checkpoints" / "mine.ipynb")
    assert make_grade.main([str(folder), "--cell-limit", "20"]) == 0
    rows = list(csv.reader(io.StringIO((folder / "grades.csv").read_text("utf-8"))))
    assert len(rows) == 2 and rows[1][:4] == ["ben/mine", "01_small", "6", "6"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_chapter_can_be_graded(path: Path) -> None:
    """Its copy is known by its title, and each of its blanks is found again."""
    copied = student_copy(read(path))
    assert make_grade.chapter_of(copied) == path
    given = make_grade.answers(copied)
    numbers = [exercise.number for exercise in make_workshop.exercises(read(path))]
    assert list(given) == numbers
    assert all(len(cells) == 1 and "your code here" in cells[0].source for cells in given.values())
    _, checks = make_grade.to_run(copied, read(path))
    assert [exercise.number for exercise in checks.values()] == numbers
