"""Make the workshop's three sets out of the notebooks, into _build/workshop; `make workshop` calls this.

    python book/_scripts/teach/make_workshop.py [NAME ...]

- `students`: the notebooks without solutions; blanks and checks stay;
- `instructors`: the notebooks with solutions in sight, and notes on the time that each part takes;
- `slides`: a slide show for each of the three lessons, in one folder, which needs no network (see make_slides.py).

Copies follow from the headings and tags of the notebooks in `book/`, and from the notes for instructors in `notes`.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbclient import NotebookClient

from snn_helpers.long.files import write_whole
from snn_helpers.records import load_results

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

import make_slides
from build_book import pages_in_order
from inputs import notebook_key, outputs_are_true
from make_slides import HEADING

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
OUT = ROOT / "_build" / "workshop"
LEVELS = {"short": 2, "easy": 5, "medium": 10, "hard": 15}  # minutes that a lesson plan allows for an exercise
POINTS = {"short": 1, "easy": 1, "medium": 2, "hard": 3}  # that an exercise earns
NOTES = Path(__file__).with_name("notes")  # what to say, ask and expect at each section
PACE = 120  # words of prose and code a minute, to read, run and talk about
FORMULA = 1 / 3  # of a minute
HIDDEN = ("hide-cell", "hide-input", "setup")
PARTS = ("exercise", "solution", "check")


class WorkshopError(ValueError):
    """A notebook does not have the form that the workshop is made from; the message says what is amiss."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook; the cells are those of the notebook, by their position."""

    number: int
    level: str  # "short", "easy", "medium" or "hard"
    title: str
    task: int  # the Markdown cell that sets it
    exercise: int
    solution: int
    check: int

    @property
    def minutes(self) -> int:
        return LEVELS[self.level]


def has_tag(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def notebooks() -> list[Path]:
    """The notebooks in the order of the table of contents."""
    return [path for path in (ROOT / f"{name}.ipynb" for name in pages_in_order(ROOT)) if path.exists()]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a notebook in their order: a task, a blank, a solution and a check each.

    Raises WorkshopError where one of the four is missing or is elsewhere.
    """
    tagged = [(i, part) for i, cell in enumerate(notebook.cells) for part in PARTS if has_tag(cell, part)]
    found = []
    for start in range(0, len(tagged), 3):
        group = tagged[start : start + 3]
        where = group[0][0]
        if tuple(part for _, part in group) != PARTS:
            raise WorkshopError(
                f"the cells from {where} on are tagged {[part for _, part in group]}: an exercise is a cell tagged"
                " 'exercise', then one tagged 'solution', then one tagged 'check'"
            )
        task = where - 1
        while notebook.cells[task].id.startswith("note-"):  # an instructors' copy
            task -= 1
        heading = HEADING.findall(notebook.cells[task].source)
        if notebook.cells[task].cell_type != "markdown" or len(heading) != 1:
            raise WorkshopError(
                f"cell {task}, before the exercise in cell {where}, must be Markdown with one heading such as"
                " '### Exercise 2 (medium). A title'"
            )
        number, level, title = heading[0]
        if level not in LEVELS:
            raise WorkshopError(f"exercise {number} is {level!r}; the levels are {', '.join(LEVELS)}")
        found.append(Exercise(int(number), level, title, task, *(index for index, _ in group)))
    return found


# --- the students' copy --------------------------------------------------------------------------


BLANK = "your code here"  # the mark of what a learner has to write
OPEN_ELSEWHERE = re.compile(r"^\[Open in [^\n]*$\n?", re.M)  # a copy is not what can be opened there
OF_STUDENTS = """\
**Students' copy.** The exercises have no solutions here. *Restart and run all* runs to the end: where you have not done
an exercise, its check says that it is yours to do."""


def student_copy(notebook: Any) -> Any:
    """The notebook without its solutions, and without what a run left in it; marked for nbgrader.

    Raises WorkshopError for a blank that has been filled in: an answer would go along.
    """
    notebook = unrun(notebook)
    for exercise in exercises(notebook):  # raises if a solution could hide elsewhere
        if BLANK not in notebook.cells[exercise.exercise].source:
            raise WorkshopError(
                f"exercise {exercise.number} is answered already: its cell has no '{BLANK}'. Make copies from a clean"
                " checkout (git stash puts changes aside)"
            )
        _mark_for_nbgrader(notebook, exercise)
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, "solution")]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = OPEN_ELSEWHERE.sub("", cell.source)
    notebook.cells.insert(1, _note("students", OF_STUDENTS if exercises_of(notebook) else "**Students' copy.**"))
    return notebook


def _mark_for_nbgrader(notebook: Any, exercise: Exercise) -> None:
    """The metadata of an answer and of an autograded test, as nbgrader 0.9 reads them (its schema 3)."""
    common = {"schema_version": 3, "task": False, "cell_type": "code"}
    answer = {"grade_id": f"exercise-{exercise.number}", "solution": True, "grade": False, "locked": False}
    test = {"grade_id": f"check-{exercise.number}", "solution": False, "grade": True, "locked": True}
    notebook.cells[exercise.exercise].metadata["nbgrader"] = common | answer
    notebook.cells[exercise.check].metadata["nbgrader"] = common | test | {"points": POINTS[exercise.level]}


def exercises_of(copied: Any) -> list[Any]:
    """The blanks of a copy."""
    return [cell for cell in copied.cells if has_tag(cell, "exercise")]


def unrun(notebook: Any) -> Any:
    """A copy of a notebook as its author wrote it: no outputs, no counts, no state of widgets; an id for each cell."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for i, cell in enumerate(notebook.cells):
        if "id" not in cell:
            cell.id = f"cell-{i}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.nbformat, notebook.nbformat_minor = 4, max(5, notebook.nbformat_minor)  # ids came with 4.5
    return notebook


def _unfold(cell: Any) -> None:
    """Show a cell's code, on the page, in JupyterLab, and in Colab."""
    cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if tag not in ("hide-cell", "hide-input")]
    cell.metadata.setdefault("jupyter", {})["source_hidden"] = False
    cell.metadata.pop("cellView", None)


def _note(name: str, text: str) -> Any:
    cell = nbformat.v4.new_markdown_cell("> " + text.replace("\n", "\n> "))
    cell.id = f"note-{name}"  # not drawn at random: the same notebook makes the same copy
    return cell


# --- the instructors' copy -----------------------------------------------------------------------


def sections(notebook: Any) -> list[tuple[str, range]]:
    """The `## ` sections: title and cells. What comes before the first one is called "Opening"."""
    starts, titles = [0], ["Opening"]
    for i, cell in enumerate(notebook.cells):
        heading = re.search(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if heading:
            starts.append(i)
            titles.append(heading.group(1))
    return [(title, range(a, b)) for title, a, b in zip(titles, starts, [*starts[1:], len(notebook.cells)])]


def section_minutes(notebook: Any) -> dict[str, int]:
    """Minutes for each section, its exercises included; at least 1.

    An estimate to plan with: nobody was timed. Prose and the code in sight at `PACE`, `FORMULA` for each formula that
    has a line of its own, 1 minute for each question to predict, exercises by their level. Folded answers are free.
    """
    minutes = {}
    for title, cells in sections(notebook):
        if title not in ("Exercises", "Sources"):
            shown = [notebook.cells[i] for i in cells]
            read = sum(_minutes_of(cell) for cell in shown if not any(has_tag(cell, tag) for tag in HIDDEN))
            minutes[title] = max(1, round(read))
    for exercise in exercises(notebook):
        title = next(title for title, cells in sections(notebook) if exercise.task in cells)
        minutes[title] = minutes.get(title, 0) + exercise.minutes
    return minutes


def _minutes_of(cell: Any) -> float:
    if any(has_tag(cell, part) for part in PARTS) or HEADING.search(cell.source):
        return 0.0  # counted by its level
    text = re.sub(r"<details( open)?>[\s\S]*?</details>", "", cell.source)
    text, formulas = re.subn(r"\$\$[\s\S]*?\$\$", "", text) if cell.cell_type == "markdown" else (text, 0)
    predicted = "**Predict, then look.**" in text
    return len(re.findall(r"\w+", text)) / PACE + FORMULA * formulas + predicted


def text_and_exercises(notebook: Any) -> tuple[int, int]:
    """The minutes of a notebook's text, and those of its exercises."""
    of_exercises = sum(exercise.minutes for exercise in exercises(notebook))
    return sum(section_minutes(notebook).values()) - of_exercises, of_exercises


def teaching_notes(name: str) -> dict[str, Any]:
    """What an instructor says, asks and expects in a notebook: `aims` and `sections`; empty if it has no notes."""
    path = NOTES / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {"aims": [], "sections": {}}


def measured(name: str) -> dict[str, Any] | None:
    """The recorded times of a notebook, from `make times`; None if it has none yet."""
    if not (BOOK / "results" / "notebook_times.json").exists():
        return None
    rows = [row for row in load_results("notebook_times")["trials"] if row["settings"]["notebook"] == name]
    return rows[-1] if rows else None


SAID = {
    "point": "The point.",
    "ask": "Ask:",
    "expect": "Expect:",
    "stuck": "Where they get stuck.",
    "late": "If you are late:",
}


def instructor_copy(notebook: Any, times: dict[str, Any] | None, notes_of: dict[str, Any] | None = None) -> Any:
    """The notebook with solutions and folded answers in sight, and with notes on what to say, and on time.

    `times` is the notebook's row of `book/results/notebook_times.json`; None if it has none. `notes_of` is what
    `teaching_notes` reads.
    """
    notebook = unrun(notebook)
    minutes = section_minutes(notebook)
    seconds: dict[str, float] = times["sections"] if times else {}
    to_say = (notes_of or {"sections": {}})["sections"]
    notes: dict[int, str] = {}
    for title, cells in sections(notebook):
        if title in minutes and title not in ("Opening", "Exercises"):
            told = f"**Instructor.** {title}: about {minutes[title]} min."
            if seconds.get(title, 0) >= 1:
                told += f" Its cells ran in {seconds[title]:.0f} s when they were timed."
            for word, words in to_say.get(title, {}).items():
                told += f"\n\n**{SAID[word]}** {' '.join(str(words).split())}"
            notes[cells.start] = told
    for exercise in exercises(notebook):
        notes[exercise.task] = (
            f"**Instructor.** Exercise {exercise.number} ({exercise.level}): allow {exercise.minutes} min."
        )
        cell = notebook.cells[exercise.solution]
        _unfold(cell)
        if not cell.source.startswith("# Solution"):
            cell.source = f"# Solution\n{cell.source}"
    noted = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("<details>", "<details open>")
        noted.append(cell)
        if i in notes:
            noted.append(_note(f"cell-{i}", notes[i]))
    opening = "**Instructors' copy**, with all solutions in sight. "
    of_text, of_exercises = text_and_exercises(notebook)
    opening += f"Plan about {of_text} min for the text"
    opening += f" and {of_exercises} min for the exercises. " if of_exercises else ". "
    if times:
        opening += (
            f"Run all cells before the session: that took {times['total_seconds']:.0f} s on a machine with"
            f" {times['cores']} cores ({times['cpu_seconds']:.0f} s of computing)."
        )
    noted.insert(1, _note("instructors", opening.strip()))
    notebook.cells = noted
    return notebook


# --- running -------------------------------------------------------------------------------------


# What `getrusage` tells begins with what the parent process held, so Linux's own count is better where there is one.
# Windows tells nothing of the kind, which counts as 0: times are measured elsewhere.
PEAK = """\
import pathlib, re, sys
status = pathlib.Path("/proc/self/status")
found = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.exists() else None
if found:
    in_kb = int(found[1])
elif sys.platform == "win32":
    in_kb = 0
else:
    import resource
    in_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(in_kb / (2**20 if sys.platform == "darwin" else 2**10))
"""


def run(path: Path) -> tuple[Any, dict[str, Any]]:
    """The notebook with its outputs, and how long it took.

    The second holds `total_seconds` by the clock, `cpu_seconds` of all cores together, `memory_mb`, the most that the
    kernel held at once, and `sections`, the seconds of each section's cells.
    """
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    before, started = os.times(), time.perf_counter()
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, whatever others the user has
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    seconds = time.perf_counter() - started
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    peak = float("".join(output.text for output in notebook.cells.pop().outputs if output.get("name") == "stdout"))
    by_section = {}
    for title, cells in sections(notebook):
        spent = 0.0
        for cell in (notebook.cells[i] for i in cells):
            told = cell.metadata.pop("execution", {})
            if "iopub.execute_input" in told and "shell.execute_reply" in told:
                start, end = (
                    told[key].replace("Z", "+00:00") for key in ("iopub.execute_input", "shell.execute_reply")
                )
                spent += (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        by_section[title] = round(spent, 1)
    return notebook, {
        "total_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "memory_mb": round(peak),
        "sections": by_section,
    }


def executed(path: Path) -> Any:
    """The notebook with its outputs: those of the last `make book` or `make workshop` if still true, else run now."""
    from jupyter_cache import get_cache

    kept = outputs_of(path)
    if kept.exists():
        return read(kept)
    if outputs_are_true(path):
        try:
            _, notebook = get_cache(str(ROOT / "_build" / ".jupyter_cache")).merge_match_into_notebook(read(path))
        except KeyError:
            pass
        else:
            return notebook
    print(f"running {path.name} ...", flush=True)
    notebook, _ = run(path)
    keep(notebook, kept)
    return notebook


def outputs_of(path: Path) -> Path:
    """Where the notebook's outputs are kept, for as long as it and all that it uses stay as they are."""
    digest = hashlib.sha256(path.read_bytes() + notebook_key(path).encode())
    return OUT / ".executed" / f"{path.stem}.{digest.hexdigest()[:16]}.ipynb"


def keep(notebook: Any, path: Path) -> None:
    """Write the file as a whole, in place of older ones of that notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name.split('.')[0]}.*"):
        old.unlink()
    _write(notebook, path)


def _write(notebook: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode())


def copy_pages(folder: Path) -> None:
    """The pages that notebooks link to and that are no notebooks, so that the links of the copies live."""
    linked = {name for path in notebooks() for name in re.findall(r"\]\((\w+\.md)", path.read_text(encoding="utf-8"))}
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(linked):
        shutil.copy(BOOK / name, folder)


# --- all of it -----------------------------------------------------------------------------------


def write_slides(folder: Path) -> None:
    """The slides of the three lessons, with what they load beside them."""
    paths = {path.stem: path for path in notebooks()}
    known: dict[str, Any] = {}

    def with_outputs(name: str) -> Any:
        if name not in known:
            known[name] = executed(paths[name])
        return known[name]

    make_slides.copy_assets(folder / "assets")
    for name, plan in make_slides.plans().items():
        html = make_slides.html_of(make_slides.lesson(name, plan, with_outputs), "../../html/book")
        write_whole(folder / make_slides.file_name(name), html.encode("utf-8"))


def main(names: list[str]) -> None:
    paths = notebooks()
    unknown = sorted(set(names) - {path.stem for path in paths})
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(path.stem for path in paths)}")
    if not names:  # a copy of a notebook that is no more would lie about for ever
        for folder in ("students", "instructors", "slides"):
            shutil.rmtree(OUT / folder, ignore_errors=True)
    for folder in ("students", "instructors"):
        copy_pages(OUT / folder)
    for path in paths:
        if names and path.stem not in names:
            continue
        notebook = read(path)
        _write(student_copy(notebook), OUT / "students" / path.name)
        _write(
            instructor_copy(notebook, measured(path.stem), teaching_notes(path.stem)), OUT / "instructors" / path.name
        )
    if not names:
        write_slides(OUT / "slides")
    print(f"The workshop is in {OUT}: students, instructors, and slides to open in a browser.")


if __name__ == "__main__":
    main(sys.argv[1:])
