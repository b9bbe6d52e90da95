"""The book's figures as vectors: text stays text, in the reader's own font, and two runs draw the same to the letter.

A notebook's figures become SVG where that is no larger than a picture of 200 dots an inch, else that picture. Beside
the SVG goes a small picture, for whatever shows no vectors. The SVG says where it can be cut between panels, so that a
page may put them below one another on a phone.
"""

from __future__ import annotations

import gzip
import io
import re
from typing import Any

import matplotlib.pyplot as plt
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

FONT = "system-ui, sans-serif"  # as on the book's pages
DOTS = 200  # an inch, of a picture that is shown instead of a vector
FALLBACK_DOTS = 80
LIGHT = 30_000  # bytes, packed: so small a vector is taken without asking how large the picture would be
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "book",
    "svg.image_inline": True,
    "image.interpolation": "none",  # each cell of a matrix stays one pixel, and the browser makes it large
}


def use_vectors() -> None:
    """Show the figures of this notebook as vectors; without a notebook it changes settings alone."""
    plt.rcParams.update(SETTINGS)
    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    # What sets matplotlib's own formats, once and for all, has to come first.
    from matplotlib_inline import backend_inline  # noqa: F401

    for formatter in shell.display_formatter.formatters.values():
        formatter.pop(Figure, None)
    shell.display_formatter.mimebundle_formatter.for_type(Figure, bundle)


def bundle(figure: Figure, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a notebook shows of a figure, by media type, and how large."""
    kept = figure.get_dpi()
    own_scales(figure)
    vector = svg(figure)
    layout = figure.get_layout_engine()
    size = {"width": round(96 * figure.get_figwidth()), "height": round(96 * figure.get_figheight())}
    try:
        figure.set_layout_engine("none")  # all is in its place by now
        if len(packed := gzip.compress(vector.encode(), mtime=0)) > LIGHT:
            picture = png(figure, DOTS)
            if len(packed) > len(picture):
                return {"image/png": picture, "text/plain": repr(figure)}, {"image/png": size}
        data = {"image/svg+xml": vector, "image/png": png(figure, FALLBACK_DOTS), "text/plain": repr(figure)}
        return data, {"image/svg+xml": size, "image/png": size}
    finally:
        figure.set_layout_engine(layout)
        figure.set_dpi(kept)


def own_scales(figure: Figure) -> None:
    """Panels side by side have their numbers beside them, each its own: on a phone the neighbour is not beside it."""
    for axes in figure.axes:
        place = axes.get_subplotspec()
        for other in axes.get_shared_y_axes().get_siblings(axes):
            beside = other.get_subplotspec()
            if place is not None and beside is not None and place.colspan.start != beside.colspan.start:
                axes.yaxis.set_tick_params(labelleft=True)


def png(figure: Figure, dots: int) -> bytes:
    """The figure as a picture."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=dots, metadata={"Software": None})
    return written.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG, with nothing in it that changes from run to run or that styles what is around it."""
    written = io.StringIO()
    with plt.rc_context(SETTINGS):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.S
    )
    text = re.sub(r"font: ([^;\"]*?)([\d.]+px) [^;\"]*", _longhand, text)  # as matplotlib wrote it before 3.10
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r" transform=\"rotate\(-0 [^\"]*\"|(?<= style=\")fill: #000000; (?=font)", "", text)
    text = re.sub(r" (d|x|y|points|transform)=\"[^\"]*\"", _round, text)
    text = re.sub(r"\s*\n\s*(?=[A-Z] |z|\")", " ", text)
    text = re.sub(r">\s*\n\s*<(?!/?tspan)", ">\n<", text)
    width, height = (round(96 * side) for side in figure.get_size_inches())
    head = (
        f'<svg width="{width}" height="{height}" font-family="{FONT}" stroke-linejoin="round" stroke-linecap="butt"'
        f' data-cuts="{" ".join(map(str, cuts(figure)))}"'
    )
    return re.sub(
        r"<svg\b((?: xmlns(?::xlink)?=\"[^\"]*\")*) width=\"[^\"]*\" height=\"[^\"]*\"", head + r"\1", text, count=1
    )


def _longhand(font: re.Match[str]) -> str:
    told = font[1].split()
    parts = [f"font-style: {word}; " for word in told if word in ("italic", "oblique")]
    parts += [f"font-weight: {word}; " for word in told if word == "bold" or word.isdigit()]
    return f"{''.join(parts)}font-size: {font[2]}"


def _round(attribute: re.Match[str]) -> str:
    """A place with two decimals: a hundredth of a point is seen by nobody, and a scale needs more."""
    places = 5 if attribute[1] == "transform" else 2
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.{places}f}".rstrip("0").rstrip("."), attribute[0])


def cuts(figure: Figure) -> list[int]:
    """Where the figure may be cut from top to bottom without hurting anything drawn: pixels of a page from the left."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = {axes: axes.get_tightbbox(renderer) for axes in figure.axes}  # each takes a while
    boxes = {axes: box for axes, box in found.items() if box is not None}
    drawn = [box for axes, box in boxes.items() if axes.get_visible()]
    for axes, box in boxes.items():  # rows without names have them in the panel to the left
        shown = [label.get_text() for label in axes.get_yticklabels()]
        if axes.axison and axes.get_visible() and shown and not any(shown):
            drawn.append(Bbox.union([box, Bbox.from_bounds(0, 0, 1, 1)]))
    for axes in boxes:  # a scale of colours belongs to its picture
        scales = [mapped.colorbar.ax for mapped in (*axes.images, *axes.collections) if mapped.colorbar is not None]
        drawn.append(Bbox.union([boxes[each] for each in (axes, *scales) if each in boxes]))
    others = (*figure.texts, *figure.legends, *figure.lines, *figure.patches, *figure.artists)
    drawn += [artist.get_window_extent(renderer) for artist in others if artist.get_visible()]
    spans = sorted((box.x0, box.x1) for box in drawn if box.width)
    places, reached = [], float("-inf")
    for left, right in spans:
        if reached > float("-inf") and left > reached:
            places.append(round((reached + left) / 2 * 96 / figure.dpi))
        reached = max(reached, right)
    return places
