"""Try the notebooks that learners hand in, and write one line for each into a table; `make grade` calls this.

    python book/_scripts/teach/make_grade.py FOLDER [--out FILE.csv] [--limit SECONDS] [--cell-limit SECONDS]

FOLDER holds students' copies as learners saved them, under any names, in folders or not: the table names each by its
path. What is run is the learner's own cells, in a fresh kernel, and after each exercise the check of *this* book, not
the one in the hand-in. An exercise earns 1, 2 or 3 points (short or easy, medium, hard) if its check passes, else none.

Nothing of a hand-in is trusted: but a notebook is a program, and it runs with your rights. Grade on a machine, or in
a container, on which your learners may run programs.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from make_workshop import BOOK, POINTS, Exercise, exercises, has_tag, notebooks, read
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from snn_helpers.long.files import write_whole

LONGEST = 300  # characters of a message in the table
TITLE = re.compile(r"^# (.+)$", re.M)
HEADING = re.compile(r"^### Exercise (\d+) ", re.M)


@dataclass
class Mark:
    """What became of one hand-in; `said` holds a line for each exercise that earned nothing."""

    learner: str
    chapter: str = ""
    points: int = 0
    out_of: int = 0
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0


def chapter_of(notebook: Any) -> Path | None:
    """The chapter that a hand-in was made from, by the title in its first lines, whatever its file is called."""
    titles = {_title(read(path)): path for path in notebooks()}
    return titles.get(_title(notebook))


def _title(notebook: Any) -> str | None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := TITLE.search(cell.source)):
            return found.group(1).strip()
    return None


def answers(notebook: Any) -> dict[int, list[Any]]:
    """The code cells that follow the heading of each exercise, up to the check or the next heading.

    A learner may have split a blank in two, or a front end may have dropped tags and ids; headings stay.
    """
    found: dict[int, list[Any]] = {}
    number: int | None = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = HEADING.search(cell.source)
            if heading:
                number = int(heading.group(1))
                found.setdefault(number, [])
            elif re.search(r"^#{1,3} ", cell.source, re.M):
                number = None
        elif cell.cell_type == "code" and (has_tag(cell, "check") or cell.source.startswith("check(")):
            number = None  # what follows in the text is no part of the answer
        elif number is not None and cell.cell_type == "code":
            found[number].append(cell)
    return found


def to_run(handed_in: Any, chapter: Any) -> tuple[Any, dict[int, Exercise]]:
    """The chapter with the learner's answers in place of its blanks and without solutions; and where each check is.

    What lies between the exercises is the book's own, so a learner who broke a cell of the text, or left one out,
    is graded on the answers alone. A learner's check is never run.
    """
    given = answers(handed_in)
    notebook = copy.deepcopy(chapter)
    found = {exercise.exercise: exercise for exercise in exercises(chapter)}
    cells, checks = [], {}
    # An answer may have taken the name.
    imported = next(
        iter(re.findall(r"^from snn_chapters\.exercises.*$", "\n".join(c.source for c in notebook.cells), re.M)), ""
    )
    for i, cell in enumerate(notebook.cells):
        if has_tag(cell, "solution"):
            continue
        if i in found:
            for answer in given.get(found[i].number) or [cell]:
                # An answer that fails is told by the check after it, and does not end the run.
                cells.append(_cell(answer.source, raises=True))
            continue
        if has_tag(cell, "check"):
            exercise = next(e for e in found.values() if e.check == i)
            checks[len(cells)] = exercise
            cells.append(_cell(f"{imported}\n{cell.source}", raises=True))
            continue
        cells.append(cell)
    notebook.cells = cells
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
    return notebook, checks


def _cell(source: str, raises: bool) -> Any:
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"] if raises else []})


def outcome(cell: Any) -> str | None:
    """None if a check passed; else what it said."""
    said = ""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"{output.evalue or output.ename}"
        said += "".join(output.get("text", ""))
    if not cell.get("execution_count"):
        return "was not reached"
    return None if said.startswith("Right.") else said or "the check said nothing"


def grade(path: Path, learner: str, limit: float, cell_limit: int) -> Mark:
    """Run one hand-in and mark it. What cannot be read or run earns nothing, and the mark says why."""
    mark, started = Mark(learner), time.monotonic()
    try:
        handed_in = nbformat.read(path, as_version=4)
    except Exception as error:  # whatever a learner hands in
        mark.said = [f"this is no notebook that can be read ({type(error).__name__})"]
        return mark
    chapter = chapter_of(handed_in)
    if chapter is None:
        mark.said = ["its title is that of no chapter: the first heading must be as in the students' copy"]
        return mark
    mark.chapter = chapter.stem
    notebook, checks = to_run(handed_in, read(chapter))
    mark.out_of = sum(POINTS[exercise.level] for exercise in checks.values())
    # An answer that never ends is interrupted, and the exercises after it are still tried.
    too_long = {"ename": "TimeoutError", "evalue": f"ran for more than {cell_limit} s", "traceback": []}
    client = NotebookClient(
        notebook,
        timeout=cell_limit,
        interrupt_on_timeout=True,
        error_on_timeout=too_long,
        resources={"metadata": {"path": str(BOOK)}},
    )
    stopped = _run(client, started + limit, cell_limit)
    for place, exercise in checks.items():
        told = outcome(notebook.cells[place])
        if told is None:
            mark.points += POINTS[exercise.level]
        else:
            words = " ".join(told.split())
            mark.said.append(f"exercise {exercise.number}: {words[:LONGEST]}")
    mark.said += [stopped] if stopped else []
    mark.seconds = round(time.monotonic() - started, 1)
    return mark


def _run(client: NotebookClient, until: float, cell_limit: int) -> str | None:
    """Run cell by cell until the time is up; None if all ran, else why it ended."""
    with client.setup_kernel():
        for i, cell in enumerate(client.nb.cells):
            left = until - time.monotonic()
            if left <= 0:
                return f"stopped at cell {i}: the time for one notebook was up"
            client.timeout = min(cell_limit, int(left) + 1)
            try:
                client.execute_cell(cell, i)
            except CellTimeoutError:
                return f"stopped at cell {i}: it ran for more than {client.timeout} s"
            except DeadKernelError:
                return f"stopped at cell {i}: the kernel died there"
            except Exception as error:  # a cell of the text that fails after an answer
                return f"stopped at cell {i}: {type(error).__name__}: {' '.join(str(error).split())[-LONGEST:]}"
    return None


def table(marks: list[Mark]) -> str:
    """The marks as CSV, a header first. What a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learner", "chapter", "points", "out of", "what was wrong", "seconds"])
    for mark in marks:
        said = _as_text("; ".join(mark.said))
        writer.writerow([_as_text(mark.learner), mark.chapter, mark.points, mark.out_of, said, mark.seconds])
    return text.getvalue()


def _as_text(value: str) -> str:
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Grade the notebooks in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="the table; by default grades.csv in the folder")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one notebook")
    parser.add_argument("--cell-limit", type=int, default=120, help="seconds for one cell")
    given = parser.parse_args(arguments)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is no folder. Give the folder that holds what the learners handed in")
    found = sorted(path for path in given.folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not found:
        parser.error(f"{given.folder} holds no notebook (*.ipynb)")
    out = given.out or given.folder / "grades.csv"
    marks = []
    for path in found:
        learner = path.relative_to(given.folder).with_suffix("").as_posix()
        marks.append(grade(path, learner, given.limit, given.cell_limit))
        print(f"{learner}: {marks[-1].points} of {marks[-1].out_of} {marks[-1].chapter}", flush=True)
        write_whole(out, table(marks).encode("utf-8"))  # after each: a run that is cut short keeps what it has
    print(f"The table is in {out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
