"""Figures on the pages: numbered, with a caption, in the colours of day and of night, and readable on a phone.

A notebook's figures are vectors (`snn_helpers/long/vectors.py`). Here each gets a twin in colours for a dark page, and
where its panels can be parted it becomes one picture for each, so that a phone has them below one another. Cells are
tidied too: what is folded stands under what it shows, and what a cell says of the machine that built the page is left
out. The style is in `book/_static/figures.css`.
"""

from __future__ import annotations

import colorsys
import copy
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from light import drop_space_before, write
from PIL import Image

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK)
# A phone of 390 pixels has so many for a figure, and no text of it may be smaller than this there.
PHONE, SMALLEST = 358, 9.0
# Where panels are below one another, "on the right" has to be explained.
BELOW = " (On this screen the panels are below one another, the left one first.)"
PAPER = "#121212"  # of a dark page
INK = "#e6e8eb"

# The figures' colours by day, and what they become by night. What is not listed follows the rules of `by_night`.
NIGHT = {
    "#000000": INK,
    "#fcfcfc": PAPER,
    "#ffffff": PAPER,
    "#dddddd": "#3a3f45",  # the grid
    "#0072b2": "#3f9be0",  # blue
    "#56b4e9": "#a3dcff",  # sky
    "#e69f00": "#f0ae1a",  # orange
    "#009e73": "#1fc493",  # green
    "#d55e00": "#ff7433",  # red
    "#cc79a7": "#e39cc3",  # purple
    "#f0e442": "#f0e442",  # yellow
    "#5f6368": "#a9afb6",  # grey
}


# --- colours ---------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def by_night(colour: str) -> str:
    """The colour on a dark page of what has this colour on a light one.

    What is light becomes dark and the other way round; a colour keeps its hue, and is told from the page.
    """
    colour = colour.lower()
    if len(colour) == 4:
        colour = "#" + "".join(2 * digit for digit in colour[1:])
    if colour in NIGHT:
        return NIGHT[colour]
    hue, light, full = colorsys.rgb_to_hls(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    if full < 0.2 or light > 0.8:  # greys, and tints of areas
        return _hexadecimal(hue, 0.07 + 0.9 * (1 - light), full)
    found = _hexadecimal(hue, light, full)
    while contrast(found, PAPER) < 6 and light < 0.95:  # enough for a text, on such an area too
        light += 0.02
        found = _hexadecimal(hue, light, full)
    return found


def _hexadecimal(hue: float, light: float, full: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, min(light, 1.0), full))


def _recolour(element: ET.Element) -> None:
    for name in ("fill", "stroke", "stop-color"):
        if re.fullmatch(r"#[0-9A-Fa-f]{3}(?:[0-9A-Fa-f]{3})?", element.get(name, "")):
            element.set(name, by_night(element.get(name, "")))
    if "#" in element.get("style", ""):
        element.set(
            "style", re.sub(r"(?<=: )#[0-9A-Fa-f]{6}\b", lambda found: by_night(found[0]), element.get("style", ""))
        )


def dark_twin(drawing: ET.Element) -> ET.Element:
    """The same drawing for a dark page. Pictures in it stay as they are, and so does what lies on them."""
    twin = copy.deepcopy(drawing)
    left = {id(each) for axes in _axes(twin) for part in _on_picture(axes) for each in part.iter()}
    for element in twin.iter():
        if id(element) in left:
            if element.tag == f"{{{SVG}}}text" and "fill" not in element.get("style", ""):
                element.set("fill", "#000000")  # or it would have the colour of all other text
        else:
            _recolour(element)
    twin.set("fill", INK)  # of what has no colour of its own, which is black by day
    return twin


def _axes(drawing: ET.Element) -> Iterator[ET.Element]:
    for group in drawing.iter(f"{{{SVG}}}g"):
        if re.fullmatch(r"axes_\d+", group.get("id", "")):
            yield group


def _on_picture(axes: ET.Element) -> Iterator[ET.Element]:
    """What lies on the picture that fills these axes; nothing, where there is none."""
    frame = extent(axes)
    if frame is None or not any(
        part.tag == f"{{{SVG}}}image" or part.find(f"{{{SVG}}}image") is not None for part in axes
    ):
        return
    left, top, right, bottom = frame
    for part in axes:
        if re.match(r"(line2d|\w+Collection|quiver|Quiver)_", part.get("id", "")):
            yield part
        elif (text := part.find(f"{{{SVG}}}text")) is not None:
            x, y = float(text.get("x", "nan")), float(text.get("y", "nan"))
            if math.isnan(x) and (
                moved := re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", ET.tostring(text, "unicode"))
            ):
                x, y = float(moved[1]), float(moved[2])
            if left <= x <= right and top < y < bottom:
                yield part


def extent(axes: ET.Element) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of axes, by their background or else by what is drawn first in them."""
    for path in axes.iter(f"{{{SVG}}}path"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d", ""))]
        if len(numbers) >= 8:
            return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    for picture in axes.iter(f"{{{SVG}}}image"):
        x, y, width, height = (float(picture.get(name, "0")) for name in ("x", "y", "width", "height"))
        if moved := re.fullmatch(r"matrix\((.*)\)", picture.get("transform", "")):
            across, _, _, down, left, top = map(float, moved[1].split())
            return left, top, left + across * width, top + down * height
        return x, abs(y), x + width, abs(y) + height
    return None


# --- parts -----------------------------------------------------------------------------------------


def size(drawing: ET.Element) -> tuple[float, float]:
    """Width and height in pixels of a page. A drawing without them is as wide as its own units."""
    _, _, wide, high = map(float, drawing.get("viewBox", "0 0 0 0").split())
    width = float(re.sub("px$", "", drawing.get("width", str(wide))))
    return width, float(re.sub("px$", "", drawing.get("height", str(width * high / wide))))


def cut(drawing: ET.Element) -> list[ET.Element]:
    """The drawing in parts from left to right, as many as it says that it can be parted into."""
    width, height = size(drawing)
    _, top, wide, high = map(float, drawing.get("viewBox", "").split())
    edges = [0.0, *map(float, drawing.get("data-cuts", "").split()), width]
    parts = []
    for left, right in zip(edges, edges[1:]):
        part = copy.deepcopy(drawing)
        scale = wide / width
        part.set("viewBox", f"{left * scale:g} {top:g} {(right - left) * scale:g} {high:g}")
        part.set("width", f"{right - left:g}")
        part.set("height", f"{height:g}")
        part.attrib.pop("data-cuts", None)
        for above in list(part.iter(f"{{{SVG}}}g")):
            for axes in [each for each in above if re.fullmatch(r"axes_\d+", each.get("id", ""))]:
                frame = extent(axes)
                if frame is not None and not left * scale <= (frame[0] + frame[2]) / 2 <= right * scale:
                    _drop(above, axes)
        parts.append(part)
    return parts


def _drop(above: ET.Element, axes: ET.Element) -> None:
    """Take axes out, but leave the shapes that others use: a mark of a tick is drawn once for all."""
    place = list(above).index(axes)
    shapes = [each for each in axes.iter(f"{{{SVG}}}defs")]
    above.remove(axes)
    for shape in reversed(shapes):
        above.insert(place, shape)


def smallest_text(drawing: ET.Element) -> float:
    """The size of the smallest text in pixels, at the drawing's own width; endless, where there is no text.

    Of a text with an index or an exponent the size is that of the text.
    """
    found = [math.inf]
    for text in drawing.iter(f"{{{SVG}}}text"):
        sizes = [
            float(told[1])
            for part in text.iter()
            if (told := re.search(r"font-size: ([\d.]+)px", part.get("style", "")))
            or (told := re.match(r"([\d.]+)", part.get("font-size", "")))
        ]
        if sizes:
            found.append(max(sizes))
    _, _, wide, _ = map(float, drawing.get("viewBox", "").split())
    return min(found) * size(drawing)[0] / wide


def least_width(drawing: ET.Element) -> int:
    """How wide, in pixels, the drawing must be for its smallest text to be read; 0 where a phone is wide enough."""
    needed = SMALLEST / smallest_text(drawing) * size(drawing)[0]
    return math.ceil(needed) if needed > PHONE else 0


# --- the page --------------------------------------------------------------------------------------


def finish_figures(page: BeautifulSoup, path: Path) -> None:
    """Number a page's figures, and give each its twin and its parts. Done twice, it changes nothing more."""
    tidy_cells(page)
    chapter = re.match(r"(\d\d)_", path.stem)
    number = len(page.select("figure.book-figure[id]"))
    for image in page.select("div.cell_output img[src]"):
        if image.find_parent("figure", class_="book-figure"):
            continue
        file = path.parent / unquote(urlsplit(str(image["src"])).path)
        if not file.is_file() or file.suffix not in (".svg", ".png"):
            continue
        old = image.find_parent("figure") or image.find_parent("a", class_="image-reference") or image
        told = old.select_one(".caption-text") if old.name == "figure" else None
        figure = page.new_tag("figure", attrs={"class": "book-figure"})
        for view in views(page, image, file):
            figure.append(view)
        if told is not None:
            number += 1
            label = f"{int(chapter[1])}.{number}" if chapter else str(number)
            figure["id"] = f"figure-{label.replace('.', '-')}"
            caption = page.new_tag("figcaption")
            link = page.new_tag("a", attrs={"class": "figure-number", "href": f"#{figure['id']}"})
            link.string = f"Figure {label}."
            caption.append(link)
            caption.append(" ")
            for part in list(told.contents):
                caption.append(part.extract())
            if len(figure.select(".by-day img")) > 1 and re.search(r"\b(left|right)\b", caption.get_text()):
                turned = page.new_tag("span", attrs={"class": "narrow"})
                turned.string = BELOW
                caption.append(turned)
            figure.append(caption)
        old.replace_with(figure)


def views(page: BeautifulSoup, image: Tag, file: Path) -> Iterator[Tag]:
    """The figure by day and, if it is a vector, by night; each leads to its file, where it is as large as one likes."""
    address = str(image["src"]).rsplit("/", 1)[0]

    def view(kind: str, whole: Path, parts: list[tuple[Path, float, float, int]]) -> Tag:
        place = page.new_tag("div", attrs={"class": f"figure-view {kind}"})
        link = page.new_tag("a", attrs={"href": f"{address}/{whole.name}"})
        place.append(link)
        if not image.get("alt"):
            link["aria-label"] = "The figure, as large as its file"
        for index, (part, width, height, least) in enumerate(parts):
            shown = page.new_tag("img", attrs={"class": "dark-light", "src": f"{address}/{part.name}"})
            shown["alt"] = str(image.get("alt", "")) if index == 0 else ""  # it tells of all parts
            shown["width"], shown["height"] = f"{width:.0f}", f"{height:.0f}"
            if least:
                shown["style"] = f"--least: {least}px"
            if kind == "by-night":
                shown["loading"] = "lazy"  # what is not shown is not fetched
            link.append(shown)
        return place

    if file.suffix == ".png":
        with Image.open(file) as picture:
            full = picture.size
        width, height = (float(str(image.get(side) or full[k])) for k, side in enumerate(("width", "height")))
        yield view("by-day always", file, [(file, width, height, 0)])
        return
    drawing = ET.fromstring(file.read_text(encoding="utf-8"))
    for kind, drawn in (("by-day", drawing), ("by-night", dark_twin(drawing))):
        whole = file if kind == "by-day" else file.with_name(f"{file.stem}-night.svg")
        if kind == "by-night":
            write(whole, ET.tostring(drawn, encoding="unicode").encode())
        # What can be read on a phone stays whole.
        parts, named = (cut(drawn) if least_width(drawn) else [drawn]), [whole]
        if len(parts) > 1:
            named = [whole.with_name(f"{whole.stem}-{k}.svg") for k, _ in enumerate(parts, 1)]
            for name, part in zip(named, parts):
                write(name, ET.tostring(part, encoding="unicode").encode())
        yield view(kind, whole, [(name, *size(part), least_width(part)) for name, part in zip(named, parts)])


# --- cells -----------------------------------------------------------------------------------------

# What a helper says under its one sentence, for whoever runs the notebook: where on their machine, and why.
ASIDE = re.compile(r"^  \((?:from|because) .*\)\n?", re.M)


def tidy_cells(page: BeautifulSoup) -> None:
    """Put what is folded under what it shows, and leave out what concerns the machine that built the page."""
    for fold in page.select("div.cell.tag_hide-input > details.above-input"):
        outputs = [each for each in fold.find_next_siblings("div") if "cell_output" in str(each.get("class")).split()]
        if outputs:
            drop_space_before(fold)
            outputs[0].insert_after(fold.extract())
    for text in page.select("div.cell_output .output.stream pre"):
        for part in text.find_all(string=ASIDE):
            part.replace_with(ASIDE.sub("", str(part)))
