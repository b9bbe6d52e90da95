"""Light pages, tables on a phone, and what is told of a page elsewhere: each part by itself."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import light
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from cards import SIZE, descriptions, draw_card
from fontTools.ttLib import TTFont
from light import FORMULA_FONT, image_size, join_styles, lighten, may_be, needed, read_sheet, subset
from pages import parse
from PIL import Image
from tables import fit, of_sentences

from snn_helpers import widgets
from snn_helpers.widgets import bundle

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"btn", "toc", "bs-tooltip-"}


# --- style sheets and fonts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prelude", "kept"),
    [
        ("p, .gone", True),
        (".gone", False),
        (".btn .gone", False),
        (".gone, .btn", True),
        (".btn:not(.gone)", True),
        (":is(.gone, p) .btn", True),
        ('a[class~=".gone"]', True),
        (".bs-tooltip-top", True),  # a script puts its end to its beginning
        (".btn-gone", False),
        (r".md\:gone", False),
        ("@page", True),
    ],
)
def test_a_rule_goes_only_if_nothing_can_match_it(prelude: str, kept: bool) -> None:
    assert needed(prelude, KNOWN) == kept


def test_a_class_may_be_made_of_a_beginning() -> None:
    assert may_be("bs-tooltip-end", KNOWN) and not may_be("bs-popover", KNOWN)


def test_a_sheet_keeps_its_order_its_imports_and_its_addresses(tmp_path: Path) -> None:
    (tmp_path / "_static" / "styles").mkdir(parents=True)
    (tmp_path / "_static" / "basic.css").write_text("p { color: red } .gone { color: blue }")
    sheet = tmp_path / "_static" / "styles" / "theme.css"
    sheet.write_text(
        '@charset "utf-8"; @import "../basic.css"; /* said */ /*! a licence */'
        '.btn { background: url("../file.png") } .gone { color: green }'
        "@media print { .gone { color: green } .btn { color: url(data:,x) } } @media screen { .gone { a: b } }"
        "@keyframes turn { from { a: b } }"
    )
    text = read_sheet(sheet, tmp_path, KNOWN)
    assert "gone" not in text and "screen" not in text and "charset" not in text and "said" not in text
    places = [text.index(part) for part in ("color: red", "a licence", 'url("file.png")', "@media print", "@keyframes")]
    assert places == sorted(places) and "data:,x" in text


def test_fonts_keep_the_letters_that_are_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "some.woff"
    first = subset(FORMULA_FONT, target, {"β", "∑"})
    assert set(TTFont(target).getBestCmap()) == {ord("β"), ord("∑")}
    assert target.stat().st_size < FORMULA_FONT.stat().st_size / 4
    assert "MATH" in TTFont(target), "without it nothing grows with what is in it"
    assert subset(FORMULA_FONT, target, {"∑", "β"}) == first, "the same letters, the same bytes"
    assert subset(FORMULA_FONT, target, {"\ue000"}) is None


@pytest.mark.parametrize("root", ["msqrt", "mroot"])
def test_the_sign_of_a_root_is_kept_though_no_formula_spells_it(root: str, tmp_path: Path) -> None:
    """Without it s divided by the root of n is shown as s divided by n."""
    page = BeautifulSoup(f"<math><mfrac><mi>s</mi><{root}><mi>n</mi></{root}></mfrac></math>", "html.parser")
    letters = set(light._formula_letters([page]))
    assert "√" in letters
    subset(FORMULA_FONT, tmp_path / "some.woff", letters)
    assert ord("√") in TTFont(tmp_path / "some.woff").getBestCmap()
    plain = BeautifulSoup("<math><mi>n</mi></math>", "html.parser")
    assert "√" not in set(light._formula_letters([plain]))


# --- scripts, figures, states of explorers ----------------------------------------------------------------------

PAGE = """\
<!DOCTYPE html><html><head><meta charset="utf-8">
<link rel="stylesheet" href="../_static/a.css?v=1"><link rel="stylesheet" href="../_static/b.css">
<link rel="preload" as="script" href="../_static/scripts/bootstrap.js">
<script src="../_static/scripts/fontawesome.js?digest=5" defer></script>
<script src="../_static/documentation_options.js?v=1"></script><script src="../_static/doctools.js"></script>
<script>DOCUMENTATION_OPTIONS.pagename = 'x'</script>
<script src="../_static/searchtools.js"></script><script src="../searchindex.js"></script>
<script type="application/vnd.jupyter.widget-state+json">{state}</script>
<script src="../_static/widgets/explorers.js"></script>
</head><body><img src="../_static/logo.png"><article><img src="../_images/1.png" alt="1"><p class="btn">a</p>
<img src="../_images/2.svg" alt="2"><math><mi>x</mi></math>
<script type="application/vnd.jupyter.widget-view+json">{"model_id": "a"}</script></article></body></html>
"""


def page_with(entries: dict[str, Any]) -> str:
    return PAGE.replace("{state}", json.dumps({"state": entries}).replace("</", "<\\/"))


def state_of(page: BeautifulSoup) -> dict[str, Any]:
    (script,) = page.find_all("script", type=light.WIDGET_STATE)
    return dict(json.loads(script.string or "")["state"])


def small_site(tmp_path: Path, data: bytes = b"x" * 9000) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_images").mkdir()
    (tmp_path / "_static" / "a.css").write_text("p { a: b } .gone { a: b }")
    (tmp_path / "_static" / "b.css").write_text(".btn { a: c } @font-face { src: url(formulas.woff) }")
    (tmp_path / "_static" / "documentation_options.js").write_text("const DOCUMENTATION_OPTIONS = {\n};\n")
    Image.new("RGB", (30, 20)).save(tmp_path / "_images" / "1.png")
    (tmp_path / "_images" / "2.svg").write_text('<?xml version="1.0"?>\n<svg width="72pt" height="36.0pt" viewBox=""/>')
    buffer = {"path": ["_weights"], "encoding": "base64", "data": base64.b64encode(data).decode()}
    entry = {"state": {"_esm": "</script>"}, "buffers": [buffer]}
    (tmp_path / "book" / "page.html").write_text(page_with({"a": entry}), encoding="utf-8")
    return tmp_path / "book" / "page.html"


def test_a_page_loads_what_it_needs_and_its_scripts_wait(tmp_path: Path) -> None:
    path = small_site(tmp_path)
    page = parse(path.read_text(encoding="utf-8"))
    for _ in range(2):  # the second time nothing changes
        lighten(page, path, tmp_path)
        assert [(each["src"], each.has_attr("defer")) for each in page.select("script[src]")] == [
            ("../_static/doctools.js", True),
            ("../_static/widgets/explorers.js", True),
        ]
        assert [str(each.string) for each in page.select("script:not([src]):not([type])")] == [
            "const DOCUMENTATION_OPTIONS = { };",
            "DOCUMENTATION_OPTIONS.pagename = 'x'",
        ]
        assert not page.select('link[rel="preload"]')
        first, second = page.select("article img")
        assert (first.get("loading"), first["width"], first["height"]) == (None, "30", "20")
        assert (second["loading"], second["width"], second["height"]) == ("lazy", "96", "48")
        (buffer,) = state_of(page)["a"]["buffers"]
        assert "data" not in buffer and state_of(page)["a"]["state"]["_esm"] == "</script>"
        script = (path.parent / buffer["file"]).resolve()
        assert script.parent == tmp_path / "_static" / "widgets"
        held = re.search(r'\["(\w+)"\] = "([^"]*)"', script.read_text(encoding="utf-8"))
        assert held and held[1] == script.stem and base64.b64decode(held[2]) == b"x" * 9000


def test_few_bytes_and_short_texts_stay_in_the_page(tmp_path: Path) -> None:
    path = small_site(tmp_path, b"few")
    page = parse(path.read_text(encoding="utf-8"))
    lighten(page, path, tmp_path)
    (buffer,) = state_of(page)["a"]["buffers"]
    assert base64.b64decode(buffer["data"]) == b"few" and not (tmp_path / "_static" / "widgets").exists()


SHARED = "// line of all: “×”, \\n, </script>\n" * 100
STYLE = ".snn { color: red }\n" * 200


def test_long_texts_begin_in_files_that_explorers_and_pages_share(tmp_path: Path) -> None:
    """What is shared is in no page and in one file; with what is in the page, the files are what the state held."""
    path = small_site(tmp_path)
    other = path.with_name("other.html")
    scripts = {name: f"{SHARED}{light.SEAM}{name} = 1;\n" + "// own\n" * 400 for name in ("a", "b", "c", "unseen")}
    entries: dict[str, Any] = {
        name: {"state": {"_esm": text, "_css": STYLE, "seed": 3, "short": "s"}} for name, text in scripts.items()
    }
    entries["b"]["buffers"] = [{"path": ["w"], "encoding": "base64", "data": "A" * (light.LARGE + 4)}]
    view = '<script type="application/vnd.jupyter.widget-view+json">{{"model_id": "{}"}}</script>'
    path.write_text(page_with(entries).replace("<math>", view.format("b") + "<math>"), encoding="utf-8")
    other.write_text(page_with({"a": entries["c"], "c": entries["a"]}), encoding="utf-8")
    pages = {each: parse(each.read_text(encoding="utf-8")) for each in (path, other)}
    for _ in range(2):
        for each, page in pages.items():
            lighten(page, each, tmp_path)
            assert SHARED[:30] not in str(page) and STYLE[:20] not in str(page)
    for each, given in ((path, scripts), (other, {"a": scripts["c"], "c": scripts["a"]})):
        for name, entry in state_of(pages[each]).items():
            values = entry["state"]
            for key, files in entry["texts"].items():
                parts = [light.text_in(each.parent / file) for file in files]
                assert (key, name) == ("_esm", "a") or key not in values, "only what is made at once keeps its own"
                values[key] = "".join([*parts, values.get(key, "")])
            assert values == {"_esm": given[name], "_css": STYLE, "seed": 3, "short": "s"}
    held = [light.text_in(file) for file in (tmp_path / "_static" / "widgets").iterdir()]
    own = {light.cut(script)[1] for script in scripts.values()}  # each is somewhere not shown, or has bytes
    assert set(held) == {SHARED + light.SEAM, STYLE, *own, "A" * (light.LARGE + 4)} and len(set(held)) == len(held)
    # What is shown, and has no bytes that come later, comes with the page, in front of what reads it, and once.
    for page in pages.values():
        needed_at_once = [file for files in state_of(page)["a"]["texts"].values() for file in files]
        sources = [str(script["src"]) for script in page.select("script[defer]")]
        assert sources[1:] == [*needed_at_once, "../_static/widgets/explorers.js"] and len(needed_at_once) == 2


def test_a_class_that_a_long_text_names_is_known(tmp_path: Path) -> None:
    path = small_site(tmp_path)
    text = "// filling\n" * 300 + "`a\ngone`"  # not “ngone”, which is how JSON spells it
    page = parse(page_with({"a": {"state": {"_esm": text}}}))
    lighten(page, path, tmp_path)
    assert "gone" in light.words([page], tmp_path) and "ngone" not in light.words([page], tmp_path)


def test_scripts_of_explorers_begin_alike_and_are_cut_there() -> None:
    folder = Path(widgets.__file__).parent / "js"
    names = [path.name for path in folder.glob("*_explorer.js")] + ["digit_playground.js"]
    assert len({light.cut(bundle(name))[0] for name in names}) == 1 < len(names)
    assert len({light.cut(bundle(name))[1] for name in names}) == len(names)
    for name in names:
        assert "".join(light.cut(bundle(name))) == bundle(name)
    assert light.cut(bundle("learning_worker.js")) == (bundle("learning_worker.js"), "")
    # It comes first, so it may need nothing of the others.
    assert not re.search(r"^import ", (folder / "parts.js").read_text(encoding="utf-8"), re.M)


def test_the_search_page_keeps_its_scripts_in_order(tmp_path: Path) -> None:
    path = small_site(tmp_path)
    page = parse(path.read_text(encoding="utf-8").replace("<article>", '<article><div id="search-results"></div>'))
    lighten(page, path, tmp_path)
    names = [str(each["src"]).split("/")[-1] for each in page.select("script[src][defer]")]
    assert names == ["doctools.js", "searchtools.js", "searchindex.js", "explorers.js"]


def test_one_sheet_for_all_pages_also_when_some_are_joined_already(tmp_path: Path) -> None:
    path = small_site(tmp_path)
    raw = parse(path.read_text(encoding="utf-8"))
    other = tmp_path / "book" / "other.html"
    both = {path: raw, other: parse(path.read_text(encoding="utf-8"))}
    join_styles(both, tmp_path)
    (link,) = raw.select('link[rel="stylesheet"]')
    text = (tmp_path / "_static" / "joined.css").read_text(encoding="utf-8")
    assert str(link["href"]).startswith("../_static/joined.css?v=")
    assert text.index("a: b") < text.index("a: c") and "gone" not in text
    letters = set(TTFont(tmp_path / "_static" / "formulas.woff").getBestCmap())
    assert letters == {ord("x"), 0x1D465} and re.search(r"formulas\.woff\?v=\w+", text)
    before = link["href"]
    both[other] = parse(path.read_text(encoding="utf-8"))  # written anew, as by a build of one page
    join_styles(both, tmp_path)
    assert {str(each.select('link[rel="stylesheet"]')[0]["href"]) for each in both.values()} == {before}


def test_sizes_are_read_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text('<svg viewBox="0 0 10 10"></svg>')
    assert image_size(tmp_path / "a.svg") is None
    (tmp_path / "b.svg").write_text('<svg xmlns="x" height="20px" width="10"></svg>')
    assert image_size(tmp_path / "b.svg") == (10, 20)


# --- tables ---------------------------------------------------------------------------------------


def table(*rows: tuple[str, ...]) -> str:
    head, *body = rows
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    cells = "".join("<tr>" + "".join(f"<td><p>{cell}</p></td>" for cell in row) + "</tr>" for row in body)
    return f"<table class='table'><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"


LONG = "what was found, in a sentence that is too long for a narrow column of a table"


def test_rows_of_sentences_become_cards_with_the_names_of_their_columns() -> None:
    page = parse(f"<article>{table(('claim', '', 'figure'), (LONG, 'holds', LONG))}</article>")
    for _ in range(2):
        fit(page)
        (found,) = page.select("table.table.cards")
        assert [cell.get("data-label") for cell in found.select("tbody td")] == ["claim", None, "figure"]
        assert [cell["role"] for cell in found.select("thead tr > *")] == ["columnheader", "cell", "columnheader"]
        assert [str(cell.get("class")) for cell in found.select("tbody td")] == ["None", "brief", "None"]
        assert not found.select("th:empty")
        (place,) = page.select("article > div.pst-scrollable-table-container")
        assert found.parent is place


def test_rows_of_many_numbers_become_cards() -> None:
    heads = tuple(f"column {n}" for n in range(7))
    page = parse(f"<article>{table(heads, ('scale', *['+0.16 ± 0.01'] * 6))}</article>")
    for _ in range(2):
        fit(page)
        (found,) = page.select("table.dense.cards:not(.named)")
        assert [cell.get("data-label") for cell in found.select("tbody td")] == [*heads]
    page = parse(f"<article>{table(heads[1:], ('scale', *['+0.16 ± 0.01'] * 5))}</article>")
    fit(page)
    assert not page.select("table:is(.dense, .cards)")


def test_long_names_of_rows_are_known_and_end_their_lines_after_a_bar() -> None:
    page = parse(
        f"<article>{table(('page', 'minutes'), ('<code>08_window_in_trained</code>', '1'), ('b', '2'))}"
        f"{table(('words', 'minutes'), ('a free number of pulses, scale', '1'))}</article>"
    )
    for _ in range(2):
        fit(page)
        assert ["named" in str(each["class"]) for each in page.select("table")] == [False, True]
        assert str(page.select_one("code")) == "<code>08_<wbr/>window_<wbr/>in_<wbr/>trained</code>"


def test_tables_of_numbers_and_of_two_columns_stay_tables() -> None:
    for text in (
        table(("rule", "before", "after"), ("scale", "+0.16 ± 0.01", "+0.22 ± 0.01")),
        table(("word", "meaning"), ("short", LONG * 3)),
        "<table></table>",
    ):
        page = parse(f"<article>{text}</article>")
        assert not of_sentences(page.select("table")[0])
        fit(page)
        assert not page.select("table.cards")


def test_a_value_is_not_torn_from_its_error() -> None:
    page = parse("<article><p>from 90.5 ± 0.2 % to <b>1</b> ± 2, a %</p><pre>1 ± 2</pre><td>3 ± 4</td></article>")
    for _ in range(2):
        fit(page)
        assert page.get_text() == "from 90.5\xa0±\xa00.2\xa0% to 1 ± 2, a %1 ± 23\xa0±\xa04"


# --- what is told of a page elsewhere -------------------------------------------------------------


def test_each_page_has_a_sentence_of_its_own() -> None:
    listed = descriptions()
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    assert not set(names) - set(listed), "book/_scripts/site/descriptions.yml lacks these pages"
    assert len(set(listed.values())) == len(listed)
    for name, text in listed.items():
        assert 50 <= len(text) <= 160, f"{name}: {len(text)} characters"
        assert re.fullmatch(r"[A-Z][^.<>$\\`]*\.", text), f"{name}: one sentence, no markup"


def test_a_card_shows_the_figure_in_its_own_shape() -> None:
    figure = Image.new("RGBA", (400, 100), (255, 0, 0, 255))
    figure.paste((0, 0, 0, 0), (0, 0, 200, 100))  # the left half lets through what is behind it
    with Image.open(io.BytesIO(draw_card("A title", "A sentence " * 14, figure))) as card:
        assert card.size == SIZE
        pixels = np.asarray(card.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert width / height == pytest.approx(2, rel=0.02)
    assert SIZE[0] / 2 - 5 < columns[0] < SIZE[0] / 2 + 5 and rows[-1] < SIZE[1] - 40
    assert pixels[rows[0] + 5, columns[0] - 50].min() > 240
