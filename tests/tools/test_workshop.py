"""The workshop's three sets: no solution leaks to students, blanks and wrong answers are told why, solutions pass."""

from __future__ import annotations

import ast
import copy
import io
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make_workshop
import nbformat
import papermill
import pytest
import yaml
from make_workshop import Exercise, WorkshopError, exercises, has_tag, instructor_copy, student_copy
from notebooks import CHAPTERS, NOTEBOOKS, PARAMETERS, check_silence, code_cells, each_chapter, offline, read

ROOT = Path(__file__).resolve().parents[2]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# What learners may well answer: `right` ones, which a check must take, and `wrong` ones, with words that it must say.
ANSWERS: dict[str, dict[int, dict[str, list[Any]]]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests/answers").glob("*.yaml"))
}


def blanks(notebook: Any, exercise: Exercise) -> set[str]:
    """The names that the learner is to define."""
    source = notebook.cells[exercise.exercise].source
    names = set()
    for line in re.findall(r"^([^\n]*= )None  # your code here", source, re.M):
        names |= set(re.findall(r"\w+", line))
    return names | set(re.findall(r"^def (\w+)\([^\n]*\n    (?:return None|pass)  # your code here", source, re.M))


# --- what an exercise must be --------------------------------------------------------------------


@each_chapter
def test_exercises_in_the_text_and_three_larger_ones_at_the_end(path: Path) -> None:
    notebook = read(path)
    found = exercises(notebook)
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1))
    end = next(cells.start for title, cells in make_workshop.sections(notebook) if title == "Exercises")
    at_end = [exercise.level for exercise in found if exercise.task > end]
    assert len(at_end) >= 3 and "hard" in at_end and "short" not in at_end, f"{path.name}: {at_end}"


@each_chapter
def test_a_blank_is_marked_and_its_names_are_those_of_the_solution(path: Path) -> None:
    notebook = read(path)
    for exercise in exercises(notebook):
        blank, solution = (notebook.cells[i].source for i in (exercise.exercise, exercise.solution))
        assert "your code here" in blank, f"{path.name}, exercise {exercise.number}"
        assert "your code here" not in solution
        names = blanks(notebook, exercise)
        assert names, f"{path.name}, exercise {exercise.number}: no name for the learner to define"
        for name in names:
            assert re.search(rf"\b{name}\b", solution), f"{path.name}: the solution does not define {name}"
            assert f"`{name}" in notebook.cells[exercise.task].source, f"{path.name}: the task does not name `{name}`"


def test_an_exercise_without_its_solution_is_refused() -> None:
    notebook = read(CHAPTERS[0])
    notebook.cells = [cell for i, cell in enumerate(notebook.cells) if i != exercises(notebook)[1].solution]
    with pytest.raises(WorkshopError, match="then one tagged 'solution'"):
        student_copy(notebook)
    notebook = read(CHAPTERS[0])
    task = notebook.cells[exercises(notebook)[0].task]
    task.source = task.source.replace("(short)", "(trivial)")
    with pytest.raises(WorkshopError, match="the levels are short, easy, medium, hard"):
        exercises(notebook)


# --- the copies ----------------------------------------------------------------------------------


def lines(source: str) -> set[str]:
    """The lines of code that say something, without comments and spaces; one that is laid out over several is one."""
    found, parts = set(), []
    plain = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)
    for token in tokenize.generate_tokens(io.StringIO(plain).readline):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
            found.add(re.sub(r"\s+", "", "".join(parts)))
            parts = []
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            parts.append(token.string)
    return {line for line in found if len(line) >= 12}


@each_notebook
def test_a_students_copy_holds_no_line_of_a_solution(path: Path) -> None:
    notebook = read(path)
    copied = student_copy(notebook)
    nbformat.validate(copied)
    assert not code_cells(copied, "solution")
    text = re.sub(r"\s+", "", "\n".join(cell.source for cell in copied.cells))
    assert "#Solution" not in text
    for exercise in exercises(notebook):
        # What the blank gives, and what the chapter has shown before, is no secret.
        before = notebook.cells[: exercise.exercise + 1]
        known = set().union(*(lines(cell.source) for cell in before if cell.cell_type == "code"))
        for line in lines(notebook.cells[exercise.solution].source) - known:
            assert line not in text, f"{path.name}, exercise {exercise.number}: the students' copy holds {line}"


@each_notebook
def test_copies_differ_from_the_chapter_in_nothing_else(path: Path) -> None:
    notebook, untouched = read(path), read(path)
    students, instructors = student_copy(notebook), instructor_copy(notebook, None)
    assert notebook == untouched
    nbformat.validate(instructors)
    sources = [cell.source for cell in notebook.cells]
    without = [cell for cell in notebook.cells if not has_tag(cell, "solution")]

    def own(copied: Any) -> list[str]:
        return [cell.source for cell in copied.cells if not cell.id.startswith("note-")]

    changed = [
        (cell.source, copied) for cell, copied in zip(without, own(students), strict=True) if cell.source != copied
    ]
    for was, now in changed:  # what is not true of a copy is left out, and nothing is put in
        assert "Open in Colab" in was
        assert "Open in" not in now
        assert "".join(now.split()) in "".join(was.split()) or now.split("[Open")[0] in was
    assert len(changed) <= 1
    opened = [source.replace("<details>", "<details open>") for source in sources]
    assert own(instructors) == [
        source if source.startswith("# Solution") or not has_tag(cell, "solution") else f"# Solution\n{source}"
        for source, cell in zip(opened, notebook.cells)
    ]
    assert student_copy(notebook) == students, "the same notebook should make the same copy"


def used(notebook: Any) -> Any:
    """The notebook as somebody leaves it who has run it in a front end that keeps no ids."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata["widgets"] = {"state": {"a": 1}}
    notebook.nbformat_minor = 4
    for i, cell in enumerate(notebook.cells):
        del cell["id"]
        if cell.cell_type == "code":
            cell.execution_count = i
            cell.outputs = [nbformat.v4.new_output("stream", text="the teacher's result")]
            cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    return notebook


@pytest.mark.parametrize("make", [student_copy, lambda notebook: instructor_copy(notebook, None)])
def test_a_copy_holds_nothing_of_a_run(make: Callable[[Any], Any]) -> None:
    source = read(CHAPTERS[0])
    left = used(source)
    copied = make(left)
    nbformat.validate(copied)
    assert "the teacher's result" not in nbformat.writes(copied) and "widgets" not in copied.metadata
    assert all(cell.execution_count is None and not cell.outputs for cell in code_cells(copied))
    assert [cell.source for cell in copied.cells] == [cell.source for cell in make(source).cells]
    assert left == used(source), "the notebook itself stays as it is"


def test_a_blank_that_is_filled_in_is_not_handed_out() -> None:
    notebook = read(CHAPTERS[0])
    notebook.cells[exercises(notebook)[1].exercise].source = "my_step = None"
    with pytest.raises(WorkshopError, match="exercise 2 is answered already"):
        student_copy(notebook)


def test_links_of_copies_lead_to_what_is_beside_them(tmp_path: Path) -> None:
    make_workshop.copy_pages(tmp_path)
    beside = {path.name for path in tmp_path.iterdir()} | {path.name for path in NOTEBOOKS}
    assert {"glossary.md", "bibliography.md"} <= beside
    for path in NOTEBOOKS:
        text = "\n".join(cell.source for cell in student_copy(read(path)).cells if cell.cell_type == "markdown")
        assert "colab.research" not in text
        for link in re.findall(r"\]\(([^)#:]+)[)#]", text):
            assert link in beside, f"{path.name} links to {link}"


def test_instructors_copies_unfold_solutions_in_colab_too() -> None:
    assert all(cell.metadata.cellView == "form" for cell in code_cells(read(CHAPTERS[0]), "solution"))
    shown = instructor_copy(read(CHAPTERS[0]), None)
    assert not any("cellView" in cell.metadata for cell in code_cells(shown, "solution"))


def test_students_copies_are_marked_for_nbgrader() -> None:
    copied = student_copy(read(CHAPTERS[0]))
    ids = [cell.metadata.nbgrader.grade_id for cell in copied.cells if "nbgrader" in cell.metadata]
    assert len(ids) == len(set(ids)) == 2 * len(exercises(read(CHAPTERS[0])))
    for cell in code_cells(copied, "exercise"):
        assert cell.metadata.nbgrader.solution and not cell.metadata.nbgrader.grade
    points = [cell.metadata.nbgrader.points for cell in code_cells(copied, "check")]
    assert points == [make_workshop.POINTS[exercise.level] for exercise in exercises(read(CHAPTERS[0]))]


@each_chapter
def test_an_instructors_copy_shows_solutions_and_adds_up_its_minutes(path: Path) -> None:
    notebook = read(path)
    copied = instructor_copy(notebook, {"sections": {}, "total_seconds": 12.0, "cpu_seconds": 20.0, "cores": 2})
    for cell in code_cells(copied, "solution"):
        assert not has_tag(cell, "hide-cell") and cell.metadata.jupyter.source_hidden is False
    notes = "\n".join(cell.source for cell in copied.cells if cell.id.startswith("note-"))
    told = re.findall(r"Exercise \d+ \((\w+)\): allow (\d+) min", notes)
    assert [level for level, _ in told] == [exercise.level for exercise in exercises(notebook)]
    of_exercises = sum(int(minutes) for _, minutes in told)
    by_section = make_workshop.section_minutes(notebook)
    text = sum(by_section.values()) - of_exercises
    assert f"about {text} min for the text and {of_exercises} min for the exercises" in notes
    assert "12 s on a machine with 2 cores" in notes
    told_sections = dict(re.findall(r"^> \*\*Instructor\.\*\* (.+): about (\d+) min\.", notes, re.M))
    assert {title: int(minutes) for title, minutes in told_sections.items()} == {
        title: minutes for title, minutes in by_section.items() if title not in ("Opening", "Exercises")
    }


# --- checks, run -------------------------------------------------------------------------------------


@dataclass
class Attempt:
    """What is tried in an exercise: the id of the check's cell after it, and what the check must say."""

    check: str
    what: str
    words: str


def stages(notebook: Any, answers: dict[int, dict[str, list[Any]]]) -> list[Attempt]:
    """Make a notebook try each exercise: blank, wrong answers, right ones, solution, each with the check after it."""
    cells, attempts, done = [], [], 0
    for cell in notebook.cells:
        cell.id = f"own-{cell.id}"[:64]
    for exercise in exercises(notebook):
        cells += notebook.cells[done : exercise.exercise]
        check = notebook.cells[exercise.check]
        blank, solution = notebook.cells[exercise.exercise], notebook.cells[exercise.solution]
        tried: list[tuple[Any, str, str]] = [(blank, "the blank", f"^Exercise {exercise.number} is yours to do")]
        given = answers[exercise.number]
        for wrong in given["wrong"]:
            words = f"^Not yet: .*({wrong['says']})"
            tried.append((nbformat.v4.new_code_cell(wrong["answer"]), wrong["answer"], words))
        tried += [(nbformat.v4.new_code_cell(right), right, r"^Right\.") for right in given["right"]]
        tried.append((solution, "the solution", r"^Right\."))
        for number, (cell, what, words) in enumerate(tried):
            answer, asked = copy.deepcopy(cell), copy.deepcopy(check)
            answer.id, asked.id = (f"{part}-{exercise.number}-{number}" for part in ("answer", "check"))
            cells += [answer, asked]
            attempts.append(Attempt(asked.id, f"exercise {exercise.number}, {what}", words))
        done = exercise.check + 1
    notebook.cells = [*cells, *notebook.cells[done:]]
    return attempts


def said(cell: Any) -> str:
    """What a cell prints, on one line; or the error that it ended with, which no check should."""
    words = [
        f"{output.ename}: {output.evalue}" if output.output_type == "error" else output.get("text", "")
        for output in cell.outputs
    ]
    return " ".join(" ".join(words).split())


# At the lower bounds two answers may be the same number. There a notebook runs without answers, too.
ANSWERED_WITH: dict[str, dict[str, Any]] = {
    stem: PARAMETERS[stem][1]
    for stem in (
        "01_neuron_dynamics",
        "03_training",
        "04_baseline",
        "06_stdp_from_gradients",
        "09_closing_the_window",
    )
} | {"05_hebb_and_stdp": {"seed": 2, "n_pairings": 10, "n_steps": 500, "n_trials": 60, "n_rounds": 4, "n_sets": 3}}


def under_papermill(
    notebook: Any, given: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> Any:
    """The notebook after a run with these parameters, in which nothing is written to stderr."""
    for variable, value in (offline(folder) | {"SNN_STRICT_CHECKS": str(int(strict))}).items():
        monkeypatch.setenv(variable, value)
    nbformat.write(notebook, folder / "in.ipynb")
    result = papermill.execute_notebook(
        str(folder / "in.ipynb"),
        None,  # else the whole of it is written before and after each cell, which takes half of the time
        parameters=given,
        cwd=str(ROOT / "book"),
        progress_bar=False,
    )
    check_silence(result, folder.name)
    return result


WITH_EXERCISES = [path for path in NOTEBOOKS if exercises(read(path))]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_answers_right_and_wrong_are_told_so(
    path: Path, passed_before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not strict, so that wrong answers end nothing; that each solution is right is asked for here."""
    table = ROOT / "tests" / "answers" / f"{path.stem}.yaml"
    with passed_before(path, table, ROOT / "book/_scripts/teach/make_workshop.py") as known:
        if known:
            return
        notebook = read(path)
        attempts = stages(notebook, ANSWERS[path.stem])
        given = ANSWERED_WITH.get(path.stem, PARAMETERS[path.stem][0])
        result = under_papermill(notebook, given, tmp_path, monkeypatch, strict=False)
        cells = {cell.id: cell for cell in result.cells}
        for attempt in attempts:
            told = said(cells[attempt.check])
            assert re.search(attempt.words, told), (
                f"{path.name}, {attempt.what}: the check says {told!r}, not {attempt.words!r}"
            )


WITHOUT_ANSWERS = [path for path in NOTEBOOKS if path not in WITH_EXERCISES or path.stem in ANSWERED_WITH]


@pytest.mark.parametrize("path", WITHOUT_ANSWERS, ids=lambda path: path.stem)
def test_notebooks_not_answered_at_the_lower_bounds_run_there(
    path: Path, passed_before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with passed_before(path) as known:
        if not known:
            under_papermill(read(path), PARAMETERS[path.stem][0], tmp_path, monkeypatch, strict=True)


def test_every_exercise_has_been_tried_with_ten_answers_right_and_wrong() -> None:
    assert set(ANSWERS) == {path.stem for path in NOTEBOOKS if exercises(read(path))}
    for stem, answers in ANSWERS.items():
        numbers = {exercise.number for exercise in exercises(read(ROOT / "book" / f"{stem}.ipynb"))}
        assert set(answers) == numbers, stem
        for number, tried in answers.items():
            assert len(tried["right"]) >= 2, f"{stem}, exercise {number}: two right answers of other forms"
            assert len(tried["right"]) + len(tried["wrong"]) >= 10, f"{stem}, exercise {number}"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if exercises(read(p))], ids=lambda path: path.stem)
def test_a_check_cell_only_asks(path: Path) -> None:
    """One call, so that it defines no name; and of names that a cell after the one it is from does not bind anew."""
    for exercise in exercises(notebook := read(path)):
        source = notebook.cells[exercise.check].source
        (statement,) = ast.parse(source).body
        assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call), source
        assert ast.unparse(statement.value.func) == "check", source
        assert ast.unparse(statement.value.args[0]) == str(exercise.number), source


@each_chapter
def test_each_aim_of_a_chapter_is_touched_by_an_exercise(path: Path) -> None:
    notes = make_workshop.teaching_notes(path.stem)
    opening = read(path).cells[0].source.split("**You will be able to**")[1].split("**You need**")[0]
    aims = re.findall(r"^- ", opening, re.M)
    numbers = {exercise.number for exercise in exercises(read(path))}
    assert len(notes["aims"]) == len(aims), f"{path.name} has {len(aims)} aims, its notes {len(notes['aims'])}"
    for aim in notes["aims"]:
        assert aim["exercises"] and set(aim["exercises"]) <= numbers, f"{path.name}: {aim}"


@each_chapter
def test_each_section_has_a_note_for_who_teaches_it(path: Path) -> None:
    notes = make_workshop.teaching_notes(path.stem)["sections"]
    titles = [title for title, _ in make_workshop.sections(read(path))]
    assert list(notes) == [title for title in titles if title not in ("Opening", "Summary", "Exercises", "Sources")]
    for title, note in notes.items():
        assert set(note) == {"point", "ask", "expect", "stuck", "late"}, f"{path.name}, {title}"
        assert all(len(str(words)) >= 15 for words in note.values()), f"{path.name}, {title}"
