"""The drawings: they can be read on a phone, on a light page and on a dark one, and by a screen reader."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures import contrast, luminance
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from snn_helpers import plots
from snn_helpers.long.drawings import FOLDER, WIDEST, drawing, names

SVG = "{http://www.w3.org/2000/svg}"
PHONE = 360  # pixels
CARD = "#FCFCFC"

each_drawing = pytest.mark.parametrize("name", names())


def tree(name: str) -> ET.Element:
    return ET.parse(FOLDER / f"{name}.svg").getroot()


def sizes(text: ET.Element) -> Iterator[float]:
    for part in text.iter():
        yield float(part.get("font-size", text.get("font-size", "nan")))


def under(drawn: ET.Element, text: ET.Element) -> str:
    """The colour of the topmost card, box or circle below a text."""
    x, y = float(text.get("x", "nan")), float(text.get("y", "nan")) - float(text.get("font-size", "nan")) / 3
    found = ""
    for shape in drawn:
        if shape is text:
            break
        at = {key: float(value) for key, value in shape.items() if re.fullmatch(r"-?[\d.]+", value)}
        inside = False
        if shape.tag == f"{SVG}rect":
            left, top = at.get("x", 0), at.get("y", 0)
            inside = left <= x <= left + at["width"] and top <= y <= top + at["height"]
        elif shape.tag == f"{SVG}circle":
            inside = (at["cx"] - x) ** 2 + (at["cy"] - y) ** 2 <= at["r"] ** 2
        if inside:
            found = shape.get("fill", "")
    return found


def test_the_scale_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") < 4.5 < contrast("#767676", "#FFFFFF")


def test_no_text_could_do_without_a_card() -> None:
    """No colour has a contrast of 4.5 both on a white page and on a dark one, so the drawings bring their own paper."""
    greys = [f"#{value:02X}{value:02X}{value:02X}" for value in range(256)]
    # Contrast is a matter of luminance alone, and greys have all luminances.
    assert max(min(contrast(grey, "#FFFFFF"), contrast(grey, "#121212")) for grey in greys) < 4.4


def test_the_drawings_are_those_of_the_book() -> None:
    assert names() == ("network", "neuron", "pairing", "synapse", "three_factors", "unrolled")


@each_drawing
def test_scales_with_the_page_and_is_small(name: str) -> None:
    drawn = tree(name)
    assert drawn.get("width") is None and drawn.get("height") is None
    left, top, width, height = map(float, drawn.get("viewBox", "").split())
    assert (left, top, width) == (0, 0, PHONE) and 0 < height <= 1.2 * width
    assert (FOLDER / f"{name}.svg").stat().st_size < 12_000


@each_drawing
def test_is_told_to_those_who_do_not_see_it(name: str) -> None:
    drawn = tree(name)
    title, description = drawn.find(f"{SVG}title"), drawn.find(f"{SVG}desc")
    assert title is not None and description is not None
    assert len(title.text or "") >= 15 and len(description.text or "") >= 80
    assert drawn.get("role") == "img"
    assert drawn.get("aria-labelledby", "").split() == [title.get("id"), description.get("id")]


@each_drawing
def test_text_reads_on_the_drawing_s_own_card(name: str) -> None:
    drawn = tree(name)
    card = drawn.find(f"{SVG}rect")
    assert card is not None and card.get("fill") == CARD
    assert [card.get("width"), card.get("height")] == drawn.get("viewBox", "").split()[2:]
    light = {shape.get("fill", "none") for shape in drawn.iter()} - {"none"}
    light = {colour for colour in light if luminance(colour) > 0.6}
    texts = drawn.findall(f"{SVG}text")
    assert texts and all(text.get("fill") and not text.findall(".//*[@fill]") for text in texts)
    for text in texts:
        colour, words = str(text.get("fill")), "".join(text.itertext())
        assert min(sizes(text)) >= 11, words  # the drawing is as many units wide as a phone has pixels
        assert contrast(colour, under(drawn, text)) >= 4.5, words
        if luminance(colour) < 0.6:  # whatever light shape it reaches over
            assert all(contrast(colour, paper) >= 4.5 for paper in light), words


def box(text: ET.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text in DejaVu Sans, one of the widest fonts that a reader may have."""
    font = FontProperties(family="DejaVu Sans", weight=text.get("font-weight", "normal"))
    size = float(text.get("font-size", "nan"))
    parts = [(text.text or "", size)]
    for part in text:
        parts += [(part.text or "", float(part.get("font-size", size))), (part.tail or "", size)]
    wide = 0.0
    for words, each in parts:
        font.set_size(each)
        wide += TextToPath().get_text_width_height_descent(words, font, ismath=False)[0] if words else 0
    left = float(text.get("x", "nan")) - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "start")] * wide
    line = float(text.get("y", "nan"))
    return left, line - 0.75 * size, left + wide, line + 0.2 * size


@each_drawing
def test_texts_stay_on_the_card_and_off_each_other(name: str) -> None:
    drawn = tree(name)
    boxes = {text: box(text) for text in drawn.findall(f"{SVG}text")}
    for text, (left, top, right, bottom) in boxes.items():
        words = "".join(text.itertext())
        assert left >= 2 and right <= PHONE - 2, words
        assert top >= 2 and bottom <= float(drawn.get("viewBox", "").split()[3]) - 2, words
    for one, other in itertools.combinations(boxes, 2):
        (left, top, right, bottom), (left_2, top_2, right_2, bottom_2) = boxes[one], boxes[other]
        apart = left >= right_2 or left_2 >= right or top >= bottom_2 or top_2 >= bottom
        assert apart, ("".join(one.itertext()), "".join(other.itertext()))


@each_drawing
def test_loads_nothing_and_styles_nothing_else(name: str) -> None:
    source = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert re.findall(r"\w+://[^\"]*", source) == ["http://www.w3.org/2000/svg"]
    used = {element.tag.removeprefix(SVG) for element in tree(name).iter()}
    assert used <= {"svg", "title", "desc", "rect", "circle", "path", "text", "tspan"}, used
    assert not re.search(r"\b(href|url|class|style|on\w+)\s*[=(]", source)


@each_drawing
def test_lines_have_the_colours_of_the_figures(name: str) -> None:
    strokes = {element.get("stroke") for element in tree(name).iter()} - {None}
    of_book = {colour.upper() for colour in (plots.BLUE, plots.RED, plots.GREEN, plots.GREY)}
    assert strokes & of_book
    faint = {"#8FA3AD", "#C9CCD1"}  # what carries no meaning of its own
    for colour in map(str, strokes):
        assert colour.upper() in of_book | faint | {"#1B1E23", "#8A4A72"}, colour
        assert colour in faint or contrast(colour.upper(), CARD) >= 3, colour


def test_two_drawings_on_one_page_do_not_clash() -> None:
    ids = [element.get("id") for name in names() for element in tree(name).iter() if element.get("id")]
    assert len(ids) == len(set(ids)) == 2 * len(names())


@each_drawing
def test_a_cell_shows_it_no_wider_than_its_page(name: str) -> None:
    shown = drawing(name)
    assert isinstance(shown._repr_svg_(), str)
    made = ET.fromstring(shown.data)
    assert made.get("width") == str(WIDEST) and made.get("height") is None
    assert made.get("style") == "max-width: 100%; height: auto"
    del made.attrib["width"], made.attrib["style"]
    assert ET.canonicalize(ET.tostring(made)) == ET.canonicalize(ET.tostring(tree(name)))


@pytest.mark.parametrize("name", ["synaps", "", "../js/parts", Path("neuron"), None, 3])
def test_another_name_is_refused_in_words(name: object) -> None:
    with pytest.raises(ValueError, match=r"must be one of 'network', 'neuron', .*, not "):
        drawing(name)  # type: ignore[arg-type]
