"""Figures as vectors: the same to the letter in each run, with text that is text, and cut where nothing is hurt."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from snn_helpers import plots
from snn_helpers.long import vectors

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def two_panels() -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3), sharey=True)
    left.plot([0, 1, 2], [0.125, 0.005, 0.25], label="the first")
    left.set(xlabel="time (steps)", ylabel="state", title="Left & right")
    left.legend()
    left.text(1, 0.1, "0.005")
    right.imshow(np.arange(12).reshape(3, 4))
    return figure


DRAW = (
    "import sys; sys.path.insert(0, 'tests/unit'); import test_long_vectors as t; print(t.vectors.svg(t.two_panels()))"
)


def test_two_runs_draw_the_same_to_the_letter() -> None:
    texts = []
    for salt in ("1", "2"):  # of Python's own hashes, which sets follow
        environment = os.environ | {"PYTHONHASHSEED": salt, "MPLBACKEND": "agg"}
        code = f"from snn_helpers import plots; plots.use_style(); {DRAW}"
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        texts.append(run.stdout)
    assert texts[0] == texts[1] and "<svg" in texts[0]
    assert vectors.svg(two_panels()).strip() == texts[0].strip()


def test_text_is_text_in_the_reader_s_font() -> None:
    drawn = ET.fromstring(vectors.svg(two_panels()))
    words = {"".join(text.itertext()) for text in drawn.iter(f"{SVG}text")}
    assert {"time (steps)", "state", "Left & right", "the first", "0.005"} <= words
    assert drawn.get("font-family") == "system-ui, sans-serif"
    assert not [text for text in drawn.iter() if "font-family" in text.get("style", "")]


def test_styles_nothing_around_it_and_loads_nothing() -> None:
    """In Colab the SVG stands in the page itself."""
    text = vectors.svg(two_panels())
    assert "<style" not in text and "<script" not in text and "<!--" not in text and "metadata" not in text
    assert set(re.findall(r"\w+://[^\"]*", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert {link[:1] for link in re.findall(r'href="([^"]*)"', text)} <= {"#", "d"}


def test_places_are_short_and_stay_where_they_were() -> None:
    figure = two_panels()
    written = io.StringIO()
    with plt.rc_context(vectors.SETTINGS):
        figure.savefig(written, format="svg")
    before, after = (
        [[float(number) for number in re.findall(r"-?\d+\.?\d*", path)] for path in re.findall(r' d="([^"]*)"', text)]
        for text in (written.getvalue(), vectors.svg(figure))
    )
    assert len(before) == len(after) > 20
    for one, other in zip(before, after):
        np.testing.assert_allclose(one, other, atol=0.0051)
    assert len(vectors.svg(figure)) < len(written.getvalue()) / 1.5


def test_a_cut_goes_through_nothing_that_is_drawn() -> None:
    figure = two_panels()
    vectors.svg(figure)
    (cut,) = vectors.cuts(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box is not None
        edges = [edge * 96 / figure.dpi for edge in (box.x0, box.x1)]
        assert edges[1] < cut or edges[0] > cut


def legend_for_all(figure: Figure) -> None:
    figure.legend(figure.axes[0].lines, ["what the lines of both panels show"], loc="outside lower center")


def scale_of_colours(figure: Figure) -> None:
    figure.colorbar(figure.axes[1].images[0], ax=figure.axes[1])


def long_title(figure: Figure) -> None:
    figure.axes[0].set_title("A title that goes on and on, as far as over its neighbour")


def rows_without_names(figure: Figure) -> None:
    figure.clear()
    left, right = figure.subplots(1, 2)
    left.set_yticks([0, 1], ["one", "two"])
    right.set_yticks([0, 1], ["", ""])


@pytest.mark.parametrize(
    ("change", "n_cuts"),
    [(legend_for_all, 0), (scale_of_colours, 1), (long_title, 0), (rows_without_names, 0)],
)
def test_what_belongs_together_is_not_cut(change: Any, n_cuts: int) -> None:
    figure = two_panels()
    change(figure)
    vectors.svg(figure)
    assert len(vectors.cuts(figure)) == n_cuts


def test_one_panel_is_whole_and_a_row_of_eight_is_eight() -> None:
    for columns in (1, 8):
        figure, _ = plt.subplots(2, columns, figsize=(7.6, 2), squeeze=False)
        for axes in figure.axes:
            axes.axis("off")
            axes.imshow(np.eye(3))
        assert len(vectors.cuts(figure)) == columns - 1


def test_a_panel_that_shares_a_scale_has_its_numbers_beside_it() -> None:
    figure = two_panels()
    assert not any(label.get_visible() for label in figure.axes[1].get_yticklabels())
    vectors.bundle(figure)
    assert any(label.get_text() and label.get_visible() for label in figure.axes[1].get_yticklabels())


def test_a_vector_comes_with_a_small_picture_of_the_same_shape() -> None:
    data, told = vectors.bundle(two_panels())
    assert set(data) == {"image/svg+xml", "image/png", "text/plain"}
    assert told["image/svg+xml"] == told["image/png"] == {"width": 730, "height": 288}
    with Image.open(io.BytesIO(data["image/png"])) as picture:
        assert picture.size == (608, 240)


def test_a_picture_is_taken_where_it_is_smaller() -> None:
    figure, axes = plt.subplots()
    axes.plot(*np.random.default_rng(0).random((2, 60_000)), ".", alpha=0.3)
    data, told = vectors.bundle(figure)
    assert set(data) == {"image/png", "text/plain"} and told == {"image/png": {"width": 528, "height": 307}}
    with Image.open(io.BytesIO(data["image/png"])) as picture:
        assert picture.size == (1100, 640)


def test_the_figure_is_left_as_it_was() -> None:
    figure = two_panels()
    layout, dots = figure.get_layout_engine(), figure.dpi
    vectors.bundle(figure)
    assert figure.get_layout_engine() is layout and figure.dpi == dots


class Shell:
    def __init__(self) -> None:
        self.display_formatter = DisplayFormatter()


def test_a_notebook_shows_vectors_whatever_it_would_have_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell()
    shell.display_formatter.formatters["image/png"].for_type(Figure, lambda figure: b"matplotlib's own")
    monkeypatch.setattr(vectors, "get_ipython", lambda: shell)
    plots.use_style()
    data, told = shell.display_formatter.format(two_panels())
    assert data["image/svg+xml"].startswith("<svg")
    picture = data["image/png"]
    raw = picture if isinstance(picture, bytes) else base64.b64decode(picture)
    assert raw.startswith(b"\x89PNG") and told["image/png"]["width"] == 730


def test_without_a_notebook_only_settings_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "get_ipython", lambda: None)
    plots.use_style()
    assert plt.rcParams["svg.fonttype"] == "none" and plt.rcParams["svg.hashsalt"] == "book"


def test_fonts_as_older_versions_of_matplotlib_write_them() -> None:
    found = re.sub(
        r"font: ([^;\"]*?)([\d.]+px) [^;\"]*",
        vectors._longhand,
        "font: italic 700 11px 'DejaVu Sans'; text-anchor: end",
    )
    assert found == "font-style: italic; font-weight: 700; font-size: 11px; text-anchor: end"
