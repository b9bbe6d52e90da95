"""Make the workshop's three sets out of the notebooks, into _build/workshop; `make workshop` calls this.

    python book/_scripts/teach/make_workshop.py [NAME ...]

- `students`: the notebooks without solutions; blanks and checks stay;
- `instructors`: the notebooks with solutions in sight, and notes on the time that each part takes;
- `slides`: each chapter as a slide show in one folder, which needs no network.

The notebooks in `book/` are the only source. Everything here follows from their headings and tags.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
import resource
import shutil
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert.exporters import SlidesExporter
from traitlets.config import Config

from snn_helpers.long.files import write_whole
from snn_helpers.records import load_results

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

from build_book import pages_in_order
from inputs import notebook_key, outputs_are_true

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
OUT = ROOT / "_build" / "workshop"
LEVELS = {"easy": 5, "medium": 10, "hard": 15}  # minutes that a lesson plan allows for an exercise
PACE = 120  # words of prose and code a minute, to read, run and talk about
HIDDEN = ("hide-cell", "hide-input", "setup")
PARTS = ("exercise", "solution", "check")
HEADING = re.compile(r"^### Exercise (\d+) \((\w+)\)\. (.+)$", re.M)


class WorkshopError(ValueError):
    """A notebook does not have the form that the workshop is made from; the message says what is amiss."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook; the cells are those of the notebook, by their position."""

    number: int
    level: str  # "easy", "medium" or "hard"
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
# What is true of the chapter and not of a copy for learners: its solutions, and where it can be opened with them.
SOLUTIONS_NEARBY = re.compile(r"\s*Where a solution is folded between the two,[^.]*\.")
OPEN_ELSEWHERE = re.compile(r"^\[Open in [^\n]*$\n?", re.M)
OF_STUDENTS = """\
**Students' copy.** The exercises have no solutions here. *Restart and run all* stops at the first one that you have not
done: its check says so, in red, and that is no fault. Do the exercise, or run the cells below it."""


def student_copy(notebook: Any) -> Any:
    """The notebook without its solutions, and without what a run left in it. Checks are folded: some compute what
    they compare with.

    Raises WorkshopError for a blank that has been filled in: an answer would go along.
    """
    notebook = unrun(notebook)
    for exercise in exercises(notebook):  # raises if a solution could hide elsewhere
        if BLANK not in notebook.cells[exercise.exercise].source:
            raise WorkshopError(
                f"exercise {exercise.number} is answered already: its cell has no '{BLANK}'. Make copies from a clean"
                " checkout (git stash puts changes aside)"
            )
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, "solution")]
    for cell in notebook.cells:
        if has_tag(cell, "check"):
            _fold(cell, True)
        if cell.cell_type == "markdown":
            cell.source = OPEN_ELSEWHERE.sub("", SOLUTIONS_NEARBY.sub("", cell.source))
    notebook.cells.insert(1, _note("students", OF_STUDENTS if exercises_of(notebook) else "**Students' copy.**"))
    return notebook


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


def _fold(cell: Any, folded: bool) -> None:
    """Fold a cell's code, or show it, on the page, in JupyterLab, and in Colab."""
    tags = [tag for tag in cell.metadata.get("tags", []) if tag not in ("hide-cell", "hide-input")]
    cell.metadata["tags"] = [*tags, "hide-input"] if folded else tags
    cell.metadata.setdefault("jupyter", {})["source_hidden"] = folded
    if folded:
        cell.metadata["cellView"] = "form"
    else:
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
    """Minutes for each section: its prose and the code in sight at `PACE`, 1 at least; exercises by their level.

    An estimate to plan with: nobody was timed.
    """
    minutes = {}
    for title, cells in sections(notebook):
        if title not in ("Exercises", "Sources"):
            shown = [notebook.cells[i] for i in cells]
            words = sum(len(re.findall(r"\w+", c.source)) for c in shown if not any(has_tag(c, tag) for tag in HIDDEN))
            minutes[title] = max(1, round(words / PACE))
    if found := exercises(notebook):
        minutes["Exercises"] = sum(exercise.minutes for exercise in found)
    return minutes


def measured(name: str) -> dict[str, Any] | None:
    """The recorded times of a notebook, from `make times`; None if it has none yet."""
    if not (BOOK / "results" / "notebook_times.json").exists():
        return None
    rows = [row for row in load_results("notebook_times")["trials"] if row["settings"]["notebook"] == name]
    return rows[-1] if rows else None


def instructor_copy(notebook: Any, times: dict[str, Any] | None) -> Any:
    """The notebook with its solutions in sight, and with notes on time.

    `times` is the notebook's row of `book/results/notebook_times.json`; None if it has none.
    """
    notebook = unrun(notebook)
    minutes = section_minutes(notebook)
    seconds: dict[str, float] = times["sections"] if times else {}
    notes: dict[int, str] = {}
    for title, cells in sections(notebook):
        if title in minutes and title not in ("Opening", "Exercises"):
            told = f"**Instructor.** {title}: about {minutes[title]} min."
            if seconds.get(title, 0) >= 1:
                told += f" Its cells ran in {seconds[title]:.0f} s when they were timed."
            notes[cells.start] = told
    for exercise in exercises(notebook):
        notes[exercise.task] = (
            f"**Instructor.** Exercise {exercise.number} ({exercise.level}): allow {exercise.minutes} min."
        )
        cell = notebook.cells[exercise.solution]
        _fold(cell, False)
        if not cell.source.startswith("# Solution"):
            cell.source = f"# Solution\n{cell.source}"
    noted = []
    for i, cell in enumerate(notebook.cells):
        noted.append(cell)
        if i in notes:
            noted.append(_note(f"cell-{i}", notes[i]))
    opening = "**Instructors' copy**, with all solutions in sight. "
    of_exercises = minutes.get("Exercises", 0)
    opening += f"Plan about {sum(minutes.values()) - of_exercises} min for the text"
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
PEAK = """\
import pathlib, re, resource, sys
status = pathlib.Path("/proc/self/status")
found = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.exists() else None
in_kb = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(in_kb / (2**20 if sys.platform == "darwin" else 2**10))
"""


def run(path: Path) -> tuple[Any, dict[str, Any]]:
    """The notebook with its outputs, and how long it took.

    The second holds `total_seconds` by the clock, `cpu_seconds` of all cores together, `memory_mb`, the most that the
    kernel held at once, and `sections`, the seconds of each section's cells.
    """
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, whatever others the user has
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
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


# --- slides --------------------------------------------------------------------------------------

SKIPPED = ("setup", "parameters", "exercise", "solution", "check", "hide-cell")
WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_LINES = 26  # of code on one slide
ROOM = 19  # lines of text on one slide, before what follows goes to the next one


@dataclass
class Slide:
    """A heading, what is shown below it, and what the speaker says; `size` is in lines of text, estimated."""

    heading: str
    opens: bool  # a section: others hang below it
    shown: list[Any] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    size: float = 0.0


def slides_of(notebook: Any, page: str) -> list[Slide]:
    """The notebook as slides; `notebook` has its outputs, `page` is the link to its page.

    Each heading opens a slide, and goes on to a further one when it is full. Formulas, lists, tables and quotations
    stay in sight; of prose only its first sentence does, and all of it goes to the speaker's notes. Code that defines
    or prints is shown if it is short, and so is each figure. What comes before the first section prepares a run, and
    stays away; exercises come without blank, solution and check.
    """
    slides: list[Slide] = []
    waiting: list[tuple[Any, float]] = []  # text that stays with what comes after it

    def show(*pieces: tuple[Any, float]) -> None:
        if not pieces:
            return
        size = sum(size for _, size in pieces)
        if slides[-1].size + size > ROOM and slides[-1].size > 1:
            slides.append(Slide("#### " + slides[-1].heading.lstrip("# "), opens=False))
        slides[-1].shown += [cell for cell, _ in pieces]
        slides[-1].size += size

    def let_go() -> None:
        show(*waiting)
        waiting.clear()

    section = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for title, body in _split(cell.source):
                if title:
                    let_go()
                    section = title if title.startswith(("# ", "## ")) else section
                if section == "## Sources" or (section.startswith("# ") and not title):
                    continue
                if title:
                    slides.append(Slide(title, opens=not title.startswith("###")))
                blocks, told = ([body], "") if title.startswith("### Exercise") else _shown_and_told(body)
                for block in blocks:
                    if not (waiting and waiting[-1][0].source.endswith(":")):
                        let_go()
                    new = nbformat.v4.new_markdown_cell(block)
                    waiting.append((new, _lines_of(block)))
                if told:
                    slides[-1].told.append(told)
        elif section.startswith("## ") and not any(has_tag(cell, tag) for tag in SKIPPED):
            for piece in _code_pieces(cell, page):
                if sum(size for _, size in waiting) + piece[1] > ROOM:
                    let_go()
                show(*waiting, piece)
                waiting.clear()
    let_go()
    return slides


def _as_notebook(notebook: Any, slides: list[Slide]) -> Any:
    """Slides as nbconvert reads them: cells with slide types."""
    made = copy.deepcopy(notebook)
    made.metadata.pop("widgets", None)
    made.cells = []

    def add(cell: Any, kind: str) -> None:
        cell.id = f"slide-{len(made.cells)}"
        cell.metadata["slideshow"] = {"slide_type": kind}
        made.cells.append(cell)

    for slide in slides:
        add(nbformat.v4.new_markdown_cell(slide.heading), "slide" if slide.opens else "subslide")
        for cell in slide.shown:
            add(cell, "-")
        if slide.told:
            add(nbformat.v4.new_markdown_cell("\n\n".join(slide.told)), "notes")
    return made


def _lines_of(source: str) -> float:
    """How many lines of a slide a piece of Markdown takes, roughly."""
    if source.lstrip().startswith("$$"):
        return 2.5 + source.count("\\\\")
    return 0.5 + sum(max(1, -(-len(line) // 85)) for line in source.splitlines() if line.strip())


def _split(source: str) -> list[tuple[str, str]]:
    """The parts of a Markdown cell, each with the heading above it, or ""."""
    pieces = re.split(r"^(#{1,3} .+)$", source, flags=re.M)
    parts = [("", pieces[0].strip())] if pieces[0].strip() else []
    return parts + [(title.strip(), body.strip()) for title, body in zip(pieces[1::2], pieces[2::2])]


def _shown_and_told(body: str) -> tuple[list[str], str]:
    """Blocks for the slide, and prose for the notes. A sentence that ends in a colon introduces what follows."""
    shown: list[str] = []
    told: list[str] = []
    blocks = [block for block in re.split(r"\n\s*\n", body) if block.strip()]
    for i, block in enumerate(blocks):
        following = blocks[i + 1] if i + 1 < len(blocks) else ""
        sentences = re.split(r"(?<=[.?!]) (?=[A-Z])", " ".join(block.split()))
        if _is_display(block) or block.startswith("**"):
            shown.append(block)
            continue
        told.append(block)
        if block.rstrip().endswith(":") and _is_display(following):
            shown.append(sentences[-1])
        elif i == 0:
            shown.append(sentences[0])
    return shown, "\n\n".join(told)


def _is_display(block: str) -> bool:
    return bool(re.match(r"\s*(\$\$|[-*] |\d+\. |\||>)", block))


def _code_pieces(cell: Any, page: str) -> list[tuple[Any, float]]:
    """What a code cell brings to the slides, each with its size: its code if it explains, and what it shows."""
    pieces: list[tuple[Any, float]] = []
    outputs = [output for output in cell.outputs if output.output_type != "error" and output.get("name") != "stderr"]
    live = any(WIDGET in output.get("data", {}) for output in outputs) or has_tag(cell, "remove-output")
    outputs = [] if live else outputs
    code = cell.source.strip()
    explains = bool(re.search(r"^(def|class) ", code, re.M)) and "plt." not in code and "ax." not in code
    if explains and not has_tag(cell, "hide-input") and not live and len(code.splitlines()) <= MOST_LINES:
        source = copy.deepcopy(cell)
        source.outputs = []
        source.metadata["tags"] = []
        pieces.append((source, 1 + 0.75 * len(code.splitlines())))
    for output in outputs:
        result = copy.deepcopy(cell)
        result.outputs = [output]
        result.metadata["tags"] = ["no-input"]
        data = output.get("data", {})
        if "image/png" in data or "image/svg+xml" in data:
            size = 13.0
        else:
            size = _lines_of("".join(data.get("text/markdown", data.get("text/plain", output.get("text", "")))))
        pieces.append((result, size))
    if live:
        text = f"This one is live: [try it on the page]({page})."
        pieces.append((nbformat.v4.new_markdown_cell(text), 1.5))
    return pieces


def slides_html(notebook: Any, page: str) -> str:
    """The slide show as one page of HTML, which loads only what `assets/` beside it holds."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"no-input"}
    exporter = SlidesExporter(
        config=config,
        template_name="book_slides",
        extra_template_basedirs=[str(Path(__file__).with_name("slides"))],
    )
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    slides = _as_notebook(notebook, slides_of(notebook, page))
    for cell in slides.cells:
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for output in cell.get("outputs", []):
            if alt and "image/png" in output.get("data", {}):
                output.metadata["alt"] = alt
    slides.metadata["title"] = title
    html, _ = exporter.from_notebook_node(slides)
    # Other chapters are pages here, not notebooks.
    return re.sub(r'href="(\w+)\.(?:ipynb|md)(#[^"]*)?"', rf'href="{page.rpartition("/")[0]}/\1.html\2"', str(html))


def copy_assets(folder: Path) -> None:
    """What the slides load: reveal.js, the book's own style, and MathJax."""
    shutil.copytree(Path(__file__).with_name("slides") / "reveal", folder, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("slides") / "slides.css", folder)
    shutil.copy(BOOK / "_static" / "mathjax" / "tex-svg.js", folder)


def copy_pages(folder: Path) -> None:
    """The pages that notebooks link to and that are no notebooks, so that the links of the copies live."""
    linked = {name for path in notebooks() for name in re.findall(r"\]\((\w+\.md)", path.read_text(encoding="utf-8"))}
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(linked):
        shutil.copy(BOOK / name, folder)


# --- all of it -----------------------------------------------------------------------------------


def main(names: list[str]) -> None:
    paths = notebooks()
    unknown = sorted(set(names) - {path.stem for path in paths})
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(path.stem for path in paths)}")
    if not names:  # a copy of a notebook that is no more would lie about for ever
        for folder in ("students", "instructors", "slides"):
            shutil.rmtree(OUT / folder, ignore_errors=True)
    copy_assets(OUT / "slides" / "assets")
    for folder in ("students", "instructors"):
        copy_pages(OUT / folder)
    for path in paths:
        if names and path.stem not in names:
            continue
        notebook = read(path)
        _write(student_copy(notebook), OUT / "students" / path.name)
        _write(instructor_copy(notebook, measured(path.stem)), OUT / "instructors" / path.name)
        if exercises(notebook):
            html = slides_html(executed(path), f"../../html/book/{path.stem}.html")
            (OUT / "slides" / f"{path.stem}.html").write_text(html, encoding="utf-8")
    print(f"The workshop is in {OUT}: students, instructors, and slides to open in a browser.")


if __name__ == "__main__":
    main(sys.argv[1:])
