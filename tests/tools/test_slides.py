"""The slides of the lessons: in the order of the plans, short, true to the notebooks, and whole without a network."""

from __future__ import annotations

import ast
import base64
import re
from html import unescape
from pathlib import Path
from typing import Any

import make_slides
import matplotlib.pyplot as plt
import nbformat
import pytest
from make_slides import SHOWN, Slide, SlideError, plans, slides_of, tasks, texts
from make_workshop import exercises, has_tag
from notebooks import BOOK, code_cells, read
from pages import parse

from snn_helpers.long import vectors
from snn_helpers.long.drawings import drawing

ROOT = Path(__file__).resolve().parents[2]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
MOST_WORDS, MOST_LINES, WIDEST = 50, 12, 66  # of a slide's text; of its code
# What points at something said before: anywhere, and where a slide begins.
POINTING = re.compile(r"(?:^|[.!?:] |^[-*] |^\d\. )(So|And|But|That|They|Then|These|Those) \b|\A(It|This) \b", re.M)
FENCED = re.compile(r"```(?:python)?\n([\s\S]*?)```")

WRITTEN = [
    (path.stem, section, slide)
    for path in sorted((make_slides.FOLDER / "texts").glob("*.md"))
    for section, slides in texts(path.stem).items()
    for slide in slides
]
each_slide = pytest.mark.parametrize(
    ("name", "section", "slide"), WRITTEN, ids=[f"{name}-{slide.title}" for name, _, slide in WRITTEN]
)
each_lesson = pytest.mark.parametrize("name", plans())


def with_outputs(name: str) -> Any:
    """The notebook as if it had run: a picture for each figure, a line for each cell that prints one."""
    notebook = read(BOOK / f"{name}.ipynb")
    for cell in code_cells(notebook):
        if "plt.show()" in cell.source:
            data = {"image/png": PNG}
        elif cell.source.startswith("drawing("):
            data = {"image/svg+xml": drawing(ast.literal_eval(cell.source.removeprefix("drawing"))).data}
        elif "Markdown(" in cell.source:
            data = {"text/markdown": "A **measured** number."}
        else:
            continue
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    return notebook


def prose(slide: Slide) -> str:
    return re.sub(r"\$\$[\s\S]*?\$\$|\$[^$]+\$", "", SHOWN.sub("", FENCED.sub("", slide.body))).strip()


@each_lesson
def test_a_lesson_has_a_slide_for_each_part_of_its_plan_in_order(name: str) -> None:
    made = slides_of(plans()[name], with_outputs)
    of = [notebook for _, notebook in made]
    wanted = [notebook for _, notebook, _, _ in plans()[name]]
    assert [n for i, n in enumerate(of) if not i or n != of[i - 1]] == [
        n for i, n in enumerate(wanted) if not i or n != wanted[i - 1]
    ]


def test_there_are_about_sixty_and_each_is_of_a_section_that_its_notebook_has() -> None:
    from make_workshop import sections

    assert 45 <= len(WRITTEN) <= 80
    for name, section, slide in WRITTEN:
        assert section in dict(sections(read(BOOK / f"{name}.ipynb"))), (
            f"{name} has no section {section!r}: {slide.title}"
        )


@each_slide
def test_a_slide_is_short_and_says_what_it_says(name: str, section: str, slide: Slide) -> None:
    assert slide.body, "a slide without content"
    text = prose(slide)
    assert len(re.findall(r"\w+", text)) <= MOST_WORDS
    assert not (found := POINTING.search(text)), f"points at what is not on the slide: {found.group(0)!r}"
    assert not slide.body.rstrip().endswith(":"), "a colon without what follows"
    assert "TODO" not in slide.body and len(slide.title) <= 60
    assert len(slide.notes.split()) >= 12, "what does the speaker say?"


@each_slide
def test_the_code_on_a_slide_fits_and_is_the_notebooks(name: str, section: str, slide: Slide) -> None:
    source = re.sub(r"\s+", "", "\n".join(cell.source for cell in code_cells(read(BOOK / f"{name}.ipynb"))))
    for block in FENCED.findall(slide.body):
        lines = block.rstrip().splitlines()
        assert len(lines) <= MOST_LINES and max(map(len, lines)) <= WIDEST
        assert "assert" not in block
        for line in lines:
            assert re.sub(r"\s+", "", line.split("  #")[0]) in source, f"{name} has no line {line!r}"


@each_slide
def test_what_a_slide_shows_is_shown_in_the_notebook(name: str, section: str, slide: Slide) -> None:
    make_slides.cells_of(slide, with_outputs(name))  # raises for a cell that shows nothing


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(SlideError, match="no cell of that id shows anything"):
        make_slides.cells_of(Slide("One", "![figure](#no-such-cell)"), with_outputs("01_neuron_dynamics"))
    with pytest.raises(SlideError, match="has no slide for it"):
        slides_of([(5, "01_neuron_dynamics", ["No such section"], "talk")], with_outputs)


def test_code_is_set_in_twenty_pixels_or_more() -> None:
    css = (make_slides.FOLDER / "slides.css").read_text(encoding="utf-8")
    (size,) = re.findall(r"^\.reveal pre \{[^}]*font-size: (\d+)px", css, re.M)
    assert int(size) >= 20


@pytest.fixture(scope="module", params=plans())
def html(request: pytest.FixtureRequest) -> str:
    deck = make_slides.lesson(request.param, plans()[request.param], with_outputs)
    assert deck == make_slides.lesson(request.param, plans()[request.param], with_outputs)
    nbformat.validate(deck)
    return make_slides.html_of(deck, "../../html/book")


def test_slides_load_nothing_but_their_assets(html: str, tmp_path: Path) -> None:
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"", html)
    inside = [url for url in loaded if not url.startswith("data:image/")]
    make_slides.copy_assets(tmp_path)
    assert inside and all((tmp_path / url.removeprefix("assets/")).is_file() for url in inside), inside
    for own in [html, *(path.read_text("utf-8") for path in tmp_path.glob("*.css"))]:
        assert not re.search(r"(url\(|@import|import\(|fetch\()[\"' ]*(https?:)?//", own)


def test_slides_hold_no_solution_and_link_to_pages(html: str) -> None:
    text = re.sub(r"<[^>]+>|\s+", "", html)
    for path in BOOK.glob("[0-9]*.ipynb"):
        for exercise in exercises(notebook := read(path)):
            shown = [c.source for c in notebook.cells[: exercise.exercise] if c.cell_type == "code"]
            known = "".join("\n".join(shown).split())
            for line in notebook.cells[exercise.solution].source.splitlines():
                plain = "".join(line.split("#")[0].split())
                if len(plain) >= 20 and plain not in known:
                    assert plain not in text, f"{path.name}, exercise {exercise.number}: {line}"
    assert not re.search(r'href="\w+\.(ipynb|md)', html), "the slides stand beside no notebooks"


def test_a_figure_has_its_words(html: str) -> None:
    words = [str(image.get("alt", "")) for image in parse(html).select("img")]
    assert len(words) > 5
    assert all(len(each) >= 30 for each in words), words


def test_a_drawing_is_an_image_with_its_words() -> None:
    cell = nbformat.v4.new_code_cell('drawing("synapse")', metadata={"tags": ["remove-input"]})
    cell.id, cell.metadata["mystnb"] = "the-drawing", {"image": {"alt": 'Two neurons, "pre" and post, and a synapse'}}
    shown = {"image/svg+xml": drawing("synapse").data, "text/plain": "<IPython.core.display.SVG object>"}
    cell.outputs = [nbformat.v4.new_output("execute_result", data=shown, execution_count=1)]
    deck = nbformat.v4.new_notebook(metadata={"title": "One"})
    deck.cells = make_slides.cells_of(Slide("One", "![it](#the-drawing)"), nbformat.v4.new_notebook(cells=[cell]))
    for i, part in enumerate(deck.cells):
        part.metadata["slideshow"] = {"slide_type": "-" if i else "slide"}
    html = make_slides.html_of(deck, "../../html/book")
    (image,) = re.findall(r"<img[^>]*>", html)
    assert 'Two neurons, "pre" and post, and a synapse' in unescape(image)
    packed = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', image)
    assert packed and base64.b64decode(packed[1]).decode() == drawing("synapse").data
    assert "drawing(" not in html and "IPython.core" not in html


def test_a_figure_is_shown_as_the_vector_that_it_is() -> None:
    """A figure is wider than high, and leaves room for words; a drawing may be as high as the slide."""
    figure, axes = plt.subplots()
    axes.set(title="A window")
    cell = nbformat.v4.new_code_cell("plt.show()", metadata={"mystnb": {"image": {"alt": "A window, drawn"}}})
    cell.id = "the-figure"
    data, told = vectors.bundle(figure)
    data["image/png"] = PNG
    cell.outputs = [nbformat.v4.new_output("display_data", data=data, metadata=told)]
    deck = nbformat.v4.new_notebook(metadata={"title": "One"})
    deck.cells = make_slides.cells_of(Slide("One", "![it](#the-figure)"), nbformat.v4.new_notebook(cells=[cell]))
    for i, part in enumerate(deck.cells):
        part.metadata["slideshow"] = {"slide_type": "-" if i else "slide"}
    html = make_slides.html_of(deck, "../../html/book")
    (image,) = re.findall(r'<div class="figure"><img[^>]*>', html)
    packed = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', image)
    assert packed and b"A window" in base64.b64decode(packed[1]) and 'alt="A window, drawn"' in image


def test_a_task_comes_without_what_is_not_for_the_wall() -> None:
    notebook = read(BOOK / "01_neuron_dynamics.ipynb")
    assert set(tasks(notebook)) == {f"Exercise {exercise.number}" for exercise in exercises(notebook)}
    assert not any(has_tag(cell, "solution") for cell in make_slides.cells_of(tasks(notebook)["Exercise 1"], notebook))


def test_the_vendored_reveal_is_what_its_note_says() -> None:
    folder = ROOT / "book" / "_scripts" / "teach" / "slides" / "reveal"
    note = (folder / "README.md").read_text("utf-8")
    version = re.search(r"reveal\.js (\d+\.\d+\.\d+)", note)
    assert version and f"reveal.js {version.group(1)}" in (folder / "reveal.js").read_text("utf-8")[:200]
    assert "sphinx-revealjs==" in note
    assert "Hakim El Hattab" in (folder / "LICENSE").read_text("utf-8")
