"""The Sphinx extension: a small book, built by plain `jupyter-book build`, has what the book's pages have."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pages
import pytest
from build_book import STRICT
from cards import descriptions
from docutils import nodes
from docutils.utils import new_document
from notebooks import MOVED, offline
from pages import MENDS, KeepTogether, Mend, finish_pages, parse, shrink_figures
from PIL import Image

from snn_helpers.long.drawings import drawing

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.search(r"baseurl: (\S+)", (ROOT / "_config.yml").read_text())[1]  # type: ignore[index]
RAN = "from pathlib import Path\nwith Path('ran').open('a') as ran:\n    ran.write('{} ')\n"

Cell = tuple[str, list[str]]
NOTEBOOKS: dict[str, list[Cell]] = {
    "intro": [
        (RAN.format("intro"), ["remove-cell"]),
        ("from snn_chapters.depth import layers\nprint(f'{layers} layers')", ["hide-input"]),
        # A widget on the page; and a figure.
        ("import ipywidgets\nipywidgets.IntSlider(3)", []),
        ("import matplotlib.pyplot as plt\nplt.plot([0, 1]);", []),
    ],
    "second": [
        (RAN.format("second"), ["remove-cell"]),
        # A widget whose output is left off.
        ("import ipywidgets\nipywidgets.IntSlider(4)", ["remove-output"]),
        ("from IPython.display import SVG\nSVG('drawn.svg')", ["remove-input"]),
    ],
}
ALT = "Two neurons, and a synapse between them"


def write(book: Path, name: str, cells: list[Cell]) -> None:
    heading = "Spikes and Gradients" if name == "intro" else f"The page {name}"
    title = nbformat.v4.new_markdown_cell(
        f"# {heading}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nSee {{cite}}`chevalier2019`."
        " With $\\beta = 0.9$ it engenders."
    )
    code = [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    for cell in code:
        if "SVG" in cell.source:
            cell.metadata["mystnb"] = {"image": {"alt": ALT}}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[title, *code], metadata={"kernelspec": kernel})
    nbformat.write(notebook, book / "book" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two notebooks and three pages, with the configuration, the style and the extension of the book."""
    root = tmp_path_factory.mktemp("small")
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copytree(ROOT / "book" / "_scripts" / "site", root / "book" / "_scripts" / "site")
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    for name in ("references.bib", "bibliography.md", "changelog.md", "status.md"):
        shutil.copy(ROOT / "book" / name, root / "book")
    (root / "snn_helpers").mkdir()
    (root / "snn_helpers" / "neurons.py").write_text("one = 1\n")
    (root / "book" / "snn_chapters").mkdir()
    (root / "book" / "snn_chapters" / "__init__.py").write_text("")
    (root / "book" / "snn_chapters" / "depth.py").write_text("layers = 3\n")
    (root / "requirements.txt").write_text("")
    (root / "book" / "drawn.svg").write_text(drawing("synapse").data, encoding="utf-8")
    listed = "".join(f"  - file: book/{name}\n" for name in ("second", "status", "changelog", "bibliography"))
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nchapters:\n{listed}")
    for name, cells in NOTEBOOKS.items():
        write(root, name, cells)
    return root


@pytest.fixture(scope="module")
def build(small_book: Path) -> Callable[[], str]:
    """`jupyter-book build .`, as strict as `make book`; what it says."""

    def run() -> str:
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", *STRICT]
        # The modules of the small book, not those that are installed or named by a variable.
        environment = offline(small_book / "cache") | {"NO_COLOR": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(command, cwd=small_book, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def first(small_book: Path, build: Callable[[], str]) -> str:
    """What the first build says."""
    return build()


def all_pages(book: Path) -> dict[str, str]:
    html = book / "_build" / "html"
    named = {path.relative_to(html).as_posix(): path for path in html.rglob("*.html")}
    return {
        name: path.read_text(encoding="utf-8")
        for name, path in named.items()
        if not name.startswith("_static/") and name != "index.html" and name not in MOVED
    }


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("With $x = 1$. Next", "\u27e8x = 1\u27e9."),
        ("With $x = 1$, next", "\u27e8x = 1\u27e9,"),
        ("is it ($x = 1$)?", "(\u27e8x = 1\u27e9)?"),
        ("the $x$-step map", "\u27e8x\u27e9-step"),
        ("both ($x$ and $y$) hold", "(\u27e8x\u27e9|\u27e8y\u27e9)"),
        ("from $x$ to $y$ it", ""),
        ("so $x$ . It", ""),
    ],
)
def test_a_formula_stays_with_the_mark_beside_it(written: str, kept: str) -> None:
    document = new_document("one")
    paragraph = nodes.paragraph()
    for k, part in enumerate(written.split("$")):
        paragraph += nodes.math(part, part) if k % 2 else nodes.Text(part)
    document += paragraph
    whole = document.astext()
    for _ in range(2):  # done twice, it changes nothing more
        KeepTogether(document).run()
        assert document.astext() == whole
        spans = list(document.findall(lambda node: isinstance(node, nodes.inline)))
        shown = [
            "".join(f"\u27e8{c.astext()}\u27e9" if isinstance(c, nodes.math) else c.astext() for c in span.children)
            for span in spans
        ]
        assert "|".join(shown) == kept


def ran(book: Path) -> list[str]:
    """Which notebooks ran since this was last asked."""
    log = book / "book" / "ran"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(names)


def test_a_drawing_is_an_image_of_the_page_with_its_words_and_without_its_code(first: str, small_book: Path) -> None:
    page = parse((small_book / "_build" / "html" / "book" / "second.html").read_text(encoding="utf-8"))
    image, twin = page.select("div.cell_output img")
    assert image["alt"] == twin["alt"] == ALT and "SVG(" not in page.get_text()
    stored = (small_book / "_build" / "html" / "book" / str(image["src"])).resolve()
    assert stored.suffix == ".svg" and stored.read_text(encoding="utf-8").strip() == drawing("synapse").data.strip()


def test_each_mend_finds_on_the_theme_s_pages_what_it_mends(first: str, small_book: Path) -> None:
    """A new version of the theme may write it otherwise: then this fails, and so does `make book`."""
    (told,) = re.findall(r"mended in the pages: (.*)", first)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) ([^,]+)", told)}
    assert set(counts) == {each.what for each in (*MENDS, *pages.LEFT_BEHIND)}
    everywhere = [each.what for each in MENDS if each.everywhere]
    assert everywhere and all(counts[what] >= len(all_pages(small_book)) for what in everywhere)
    for text in all_pages(small_book).values():
        assert text.count('<meta name="viewport"') == 1 and not parse(text).select("table[tabindex]")
        assert not [each.what for each in MENDS if parse(text).select(each.selector)]


def test_formulas_are_in_the_page_and_code_is_not_in_the_search(first: str, small_book: Path) -> None:
    html = small_book / "_build" / "html"
    page = parse((html / "book" / "second.html").read_text(encoding="utf-8"))
    (formula,) = page.select("span.math > math")
    assert formula.get_text() == "β=0.9" and not page.select('script[src*="mathjax"]')
    index = (html / "searchindex.js").read_text(encoding="utf-8")
    assert '"engend"' in index and '"pyplot"' not in index


def test_a_plain_build_has_all_that_the_book_s_pages_have(first: str, small_book: Path) -> None:
    html = small_book / "_build" / "html"
    texts = all_pages(small_book)
    assert {f"book/{name}.html" for name in ("intro", "second", "status", "changelog", "bibliography")} < set(texts)
    for name, text in texts.items():
        policies = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', text)
        assert len(policies) == 1 and "'unsafe-inline'" not in policies[0].split(";")[1], name
        assert text.count(
            f'<link rel="alternate" type="application/rss+xml" title="Changes" href="{ADDRESS}changes.xml"'
        )
        view = 'type="application/vnd.jupyter.widget-view+json"' in text
        assert view == ("blob:" in policies[0]) == (name == "book/intro.html")
        assert ("widget-state+json" in text) == ("widgets/explorers.js" in text) == view
    listed = [place.text for place in ET.parse(html / "sitemap.xml").iter() if place.tag.endswith("loc")]
    assert sorted(map(str, listed)) == sorted(f"{ADDRESS}{name}" for name in texts if name.startswith("book/"))
    assert ET.parse(html / "changes.xml").findtext("channel/item/title") is not None
    status = texts["book/status.html"]
    assert pages.machine() in status and "ran through" in status and "\u2705" not in status
    (figure,) = (html / "_images").glob("*.png")
    for name in ("intro", "status"):
        page = parse(texts[f"book/{name}.html"])
        (told,) = page.select('meta[name="description"]')
        assert told["content"] == descriptions()[f"book/{name}"]
        (card,) = page.select('meta[property="og:image"]')
        assert (html / str(card["content"]).removeprefix(ADDRESS)).is_file()
    assert "<title>Spikes and Gradients: spiking neural networks in PyTorch</title>" in texts["book/intro.html"]
    with Image.open(figure) as image:
        assert image.mode in ("RGB", "P")


def test_a_second_build_changes_nothing(first: str, small_book: Path, build: Callable[[], str]) -> None:
    ran(small_book)
    html = small_book / "_build" / "html"
    before = {path: path.read_bytes() for path in html.rglob("*") if path.suffix in (".html", ".png", ".xml")}
    assert "mended" not in build()
    # And once more as after a build that was stopped while it wrote pages.
    (small_book / "_build" / ".doctrees" / "pages.finished").unlink()
    assert "mended in the pages: nothing" in build()
    assert ran(small_book) == []
    assert {path: path.read_bytes() for path in before} == before


def test_a_plain_build_runs_again_what_a_change_concerns(
    first: str, small_book: Path, build: Callable[[], str]
) -> None:
    ran(small_book)
    (small_book / "book" / "snn_chapters" / "depth.py").write_text("layers = 5\n")
    build()
    assert ran(small_book) == ["intro"]
    assert "5 layers" in all_pages(small_book)["book/intro.html"]


# --- its parts ------------------------------------------------------------------------------------

PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><title>Spikes and Gradients — Spikes and Gradients</title>
<meta name="viewport" content="width=device-width" /><meta name="viewport" content="width=device-width" />
<script>const THEBE_JS_URL = "x"; const a = 1</script>
<script async="async" src="a/sphinx-thebe.js?v=1"></script>
<script>if (1 < 2 && "é") { go("</" + "p>"); }</script>
<script type="application/json">{"a": "<b>"}</script>
</head><body data-x onload="go('1')">
<div id="pst-skip-link"><a href="#main-content">Skip</a></div><div id="pst-primary-sidebar"></div>
<article class="bd-article">
<summary aria-label="Toggle hidden content"><p>Show&nbsp;it</p></summary>
<button class="btn search-button-field b" title="Search" aria-label="Search" onclick="a &amp;&amp; b">Search</button>
<button aria-label="Mode"><i class="theme-switch fa-sun" data-mode="light" title="Light"></i></button>
<table class="table"><tr><td>1</td></tr></table>
<div role="list" class="citation-list"><div class="citation" id="c" role="doc-biblioentry">C</div></div>
<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>
</article>
</body></html>
"""


def test_a_page_is_mended_once_and_stays_as_it_is_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE, encoding="utf-8")
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=book/intro.html" />\n')
    assert finish_pages(tmp_path) == ({each.what: 1 for each in MENDS}, 1)
    mended = path.read_text(encoding="utf-8")
    page = parse(mended)
    (tag,) = page.select("meta[http-equiv]")
    tag.decompose()
    assert [each.get_text().strip() for each in page.select("script")] == [
        'if (1 < 2 && "é") { go("</" + "p>"); }', '{"a": "<b>"}'
    ]  # fmt: skip
    assert '<div class="pst-scrollable-table-container" tabindex="0"><table class="table"><tr>' in mended
    assert '<a href="#article">' in mended and '<div class="citation" id="c">C</div>' in mended
    assert '<button class="btn search-button-field b" title="Search" onclick="a &amp;&amp; b">Search</button>' in mended
    assert "<summary><p>Show\xa0it</p></summary>" in mended and mended.startswith("<!DOCTYPE html>\n<html")
    assert finish_pages(tmp_path) == ({}, 0) and path.read_text(encoding="utf-8") == mended
    assert (tmp_path / "index.html").read_text() == '<meta http-equiv="Refresh" content="0; url=book/intro.html" />\n'


def test_the_policy_knows_scripts_by_their_text_and_handlers_of_all_pages(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "two.html").write_text('<html><head><meta charset="utf-8"></head></html>')
    finish_pages(tmp_path)
    one, two = ((tmp_path / f"{name}.html").read_text(encoding="utf-8") for name in ("one", "two"))

    def hashed(text: str) -> str:
        openssl = ["openssl", "dgst", "-sha256", "-binary"]
        digest = subprocess.run(openssl, input=text.encode(), capture_output=True, check=True).stdout
        encoded = subprocess.run(["openssl", "base64"], input=digest, capture_output=True, check=True).stdout
        return f"'sha256-{encoded.decode().strip()}'"

    known = set(re.findall(r"'sha256-[^']+'", one))
    script, handler_1, handler_2 = map(hashed, ('if (1 < 2 && "é") { go("</" + "p>"); }', "go('1')", "a && b"))
    assert known == {script, handler_1, handler_2}
    assert set(re.findall(r"'sha256-[^']+'", two)) == {handler_1, handler_2}


def test_a_theme_that_has_changed_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<html><head><meta charset="utf-8"></head></html>')
    warnings: list[str] = []
    monkeypatch.setattr(pages.logger, "warning", lambda text, *given: warnings.append(text % given))
    monkeypatch.setattr(pages, "MENDS", (Mend("old buttons", "button.old", pages.gone, everywhere=True),))
    script = tmp_path / pages.THEME_SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text(f"all(){pages.MEASURES};")

    class App:
        builder = type("Builder", (), {"name": "html"})
        outdir = srcdir = doctreedir = str(tmp_path)
        config = type("Config", (), {"html_baseurl": ""})
        env = type("Env", (), {"found_docs": set()})

    pages.finish(App(), None)  # type: ignore[arg-type]
    assert warnings == ["no page has old buttons to mend (button.old): has the theme changed?"]
    assert script.read_text() == f"all(){pages.WATCHES};"


@pytest.mark.parametrize(
    ("script", "mended"),
    [
        (f"a(){pages.MEASURES},b", f"a(){pages.WATCHES},b"),
        (pages.WATCHES, pages.WATCHES),
        ("new()", None),
        (None, None),
    ],
)
def test_the_theme_s_script_is_mended_once_and_another_one_is_told_of(
    script: str | None, mended: str | None, tmp_path: Path
) -> None:
    path = tmp_path / pages.THEME_SCRIPT
    path.parent.mkdir(parents=True)
    if script is not None:
        path.write_text(script)
    assert pages.mend_script(tmp_path) == (mended is not None)
    assert script is None or path.read_text() == (mended or script)


def test_figures_become_smaller_and_stay_the_same(tmp_path: Path) -> None:
    (tmp_path / "_images").mkdir()
    path = tmp_path / "_images" / "figure.png"
    fig, ax = plt.subplots()
    for k in range(5):
        ax.plot([0, 1, 2], [k, k + 1, k], linewidth=3)
    ax.imshow(np.arange(400).reshape(20, 20), extent=(0, 2, 0, 2))
    fig.savefig(path)
    plt.close(fig)
    with Image.open(path) as figure:
        before, size = np.asarray(figure.convert("RGB")), path.stat().st_size
    shrink_figures(tmp_path)
    with Image.open(path) as figure:
        after = np.asarray(figure.convert("RGB"))
    assert np.array_equal(before, after) and path.stat().st_size < size
    once = path.read_bytes()
    shrink_figures(tmp_path)
    assert path.read_bytes() == once and list(path.parent.iterdir()) == [path]
