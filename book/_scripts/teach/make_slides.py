"""The slides of the three lessons: each in the order of its plan, out of texts that are written by hand.

The plans are those of `book/instructors.ipynb`. The texts are in `slides/texts`, one file for each notebook:

    ## Leak                          a section of the notebook, as the plans name it
    ### A pulse fades                a slide of it
    - Each step keeps the share β.   what is on the slide: Markdown, formulas, a few lines of code
    ![figure](#cell-id)              what the notebook's cell of that id shows: a figure, or a line that it computes
    Note: Ask first …                what the speaker says, to the end of the slide

An exercise that a plan names brings its task; a break says how long it is.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import SlidesExporter
from traitlets.config import Config

BOOK = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("slides")
PLANS = BOOK / "instructors.ipynb"
SHOWN = re.compile(r"^!\[([^\]]*)\]\(#([\w-]+)\)$", re.M)
HEADING = re.compile(r"^### Exercise (\d+) \((\w+)\)\. (.+)$", re.M)  # of an exercise: number, level, title

Line = tuple[int, str | None, list[str], str]  # minutes, notebook, its parts, what you do


class SlideError(ValueError):
    """A slide cannot be made; the message says which, and why."""


@dataclass(frozen=True)
class Slide:
    """A title, what is below it, and what the speaker says."""

    title: str
    body: str
    notes: str = ""


def plans() -> dict[str, list[Line]]:
    """The lessons' plans, read from the page for instructors without running it."""
    for cell in nbformat.read(PLANS, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith("plans = "):
            statement = ast.parse(cell.source).body[0]
            assert isinstance(statement, ast.Assign)
            return ast.literal_eval(statement.value)  # type: ignore[no-any-return]
    raise SlideError(f"{PLANS.name} has no cell that begins with 'plans = '")


def texts(notebook: str) -> dict[str, list[Slide]]:
    """The slides that are written for a notebook, by its sections; none if it has no file."""
    path = FOLDER / "texts" / f"{notebook}.md"
    if not path.exists():
        return {}
    sections: dict[str, list[Slide]] = {}
    for section in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
        title, _, rest = section.partition("\n")
        slides = []
        for piece in re.split(r"^### ", rest, flags=re.M)[1:]:
            heading, _, body = piece.partition("\n")
            shown, _, notes = body.partition("\nNote: ")
            slides.append(Slide(heading.strip(), shown.strip(), notes.strip()))
        sections[title.strip()] = slides
    return sections


def tasks(notebook: Any) -> dict[str, Slide]:
    """A slide for each exercise of a notebook: its task, without blank, solution and check."""
    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := HEADING.search(cell.source)):
            number, _, title = heading.groups()
            name = f"Exercise {number}"
            found[name] = Slide(f"{name}. {title}", cell.source[heading.end() :].strip())
    return found


def slides_of(plan: list[Line], notebooks: Callable[[str], Any]) -> list[tuple[Slide, str | None]]:
    """The slides of a plan in its order, each with the notebook that it is of.

    Raises SlideError for a section that no slide is written for, and an exercise that is not there.
    """
    made: list[tuple[Slide, str | None]] = []
    for minutes, name, parts, what in plan:
        if name is None:
            made.append((Slide(what.capitalize(), f"{minutes} minutes"), None))
            continue
        written, set_tasks = texts(name), tasks(notebooks(name))
        for part in parts:
            slides = [set_tasks[part]] if part in set_tasks else written.get(part, [])
            if not slides:
                raise SlideError(f"the plan names {part!r} of {name}, and slides/texts/{name}.md has no slide for it")
            made += [(slide, name) for slide in slides]
    return made


def cells_of(slide: Slide, notebook: Any | None) -> list[Any]:
    """The cells of one slide: its text, and what the cells that it names show."""
    cells = [nbformat.v4.new_markdown_cell(f"## {slide.title}")]
    position = 0
    for named in SHOWN.finditer(slide.body):
        cells += _text(slide.body[position : named.start()])
        cells.append(_output(named.group(2), slide, notebook))
        position = named.end()
    return cells + _text(slide.body[position:])


def _text(source: str) -> list[Any]:
    return [nbformat.v4.new_markdown_cell(source.strip())] if source.strip() else []


def _output(cell_id: str, slide: Slide, notebook: Any | None) -> Any:
    """What a cell shows, as a cell without its code."""
    kinds = {"image/svg+xml", "image/png", "text/markdown"}
    found = [cell for cell in (notebook.cells if notebook else []) if cell.id == cell_id]
    outputs = [output for cell in found for output in cell.get("outputs", []) if kinds & set(output.get("data", {}))]
    if not outputs:
        raise SlideError(f"the slide {slide.title!r} shows the cell {cell_id!r}, and no cell of that id shows anything")
    if "text/markdown" in outputs[0].data:
        return nbformat.v4.new_markdown_cell("".join(outputs[0].data["text/markdown"]))
    cell = nbformat.v4.new_code_cell("", outputs=[outputs[0]], metadata={"tags": ["no-input"]})
    cell.outputs[0].metadata["alt"] = found[0].metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    return cell


def lesson(name: str, plan: list[Line], notebooks: Callable[[str], Any]) -> Any:
    """A lesson's slides as the notebook that nbconvert makes a slide show of."""
    deck = nbformat.v4.new_notebook()
    deck.metadata["title"] = f"Spikes and Gradients: {name}"

    def add(cell: Any, kind: str) -> None:
        cell.id = f"slide-{len(deck.cells)}"  # not drawn at random: the same texts make the same deck
        cell.metadata["slideshow"] = {"slide_type": kind}
        deck.cells.append(cell)

    add(nbformat.v4.new_markdown_cell(f"# Spikes and Gradients\n\n{name.capitalize()}"), "slide")
    for slide, of in slides_of(plan, notebooks):
        for i, cell in enumerate(cells_of(slide, notebooks(of) if of else None)):
            add(cell, "-" if i else "slide")
        if slide.notes:
            add(nbformat.v4.new_markdown_cell(slide.notes), "notes")
    return deck


def html_of(deck: Any, pages: str) -> str:
    """The slide show as one page of HTML, which loads only what `assets/` beside it holds.

    `pages` is where links to notebooks and to the glossary lead: the folder of the built pages.
    """
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"no-input"}
    exporter = SlidesExporter(config=config, template_name="book_slides", extra_template_basedirs=[str(FOLDER)])
    html, _ = exporter.from_notebook_node(deck)
    return re.sub(r'href="(\w+)\.(?:ipynb|md)(#[^"]*)?"', rf'href="{pages}/\1.html\2"', str(html))


def file_name(lesson_name: str) -> str:
    """Of a lesson's slides: `lesson_half_a_day.html`."""
    return f"lesson_{lesson_name.replace(' ', '_')}.html"


def copy_assets(folder: Path) -> None:
    """What the slides load: reveal.js, the book's own style, and MathJax."""
    shutil.copytree(FOLDER / "reveal", folder, dirs_exist_ok=True)
    shutil.copy(FOLDER / "slides.css", folder)
    shutil.copy(FOLDER / "mathjax" / "tex-svg.js", folder)
