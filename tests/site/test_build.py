"""The book as a whole: built from clean with warnings as errors, and rebuilt rightly after a change."""

from __future__ import annotations

import ast
import contextlib
import functools
import html
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import ahead
import alone
import build_book
import inputs
import nbformat
import pytest
from address import pages_address
from jupyter_cache import get_cache
from notebooks import MOVED, NOTEBOOKS, code_cells, read
from pages import machine, parse

import snn_helpers

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable  # what a fixture below replaces


class Page(HTMLParser):
    """What a page shows and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors |= {name for name in (attributes.get("id"), attributes.get("name")) if name}
        if tag == "a" and attributes.get("href"):
            self.links.append(str(attributes["href"]))
        source = attributes.get("src")
        if tag == "link" and attributes.get("rel") in {"stylesheet", "preload", "icon", "shortcut icon"}:
            source = attributes.get("href")
        if source:
            self.loaded.append(source)


def test_the_book_builds_from_clean_and_its_pages_are_whole(built_pages: Callable[[], Path]) -> None:
    pages = built_pages() / "book"
    read_once = functools.cache(Page)  # a page has hundreds of links, most of them to the same few pages
    for notebook in NOTEBOOKS:
        page = read_once((pages / f"{notebook.stem}.html").resolve())
        drawn = [cell for cell in code_cells(read(notebook)) if "plt.show()" in cell.source]
        text = (pages / f"{notebook.stem}.html").read_text(encoding="utf-8")
        tree = parse(text)
        shown = tree.select(".figure-view.by-day")  # not their twins for the night
        assert len(shown) >= len(drawn), f"{notebook.stem} shows {len(shown)} figures of {len(drawn)}"
        outside = [url for url in page.loaded if re.match(r"(https?:)?//", url)]
        assert not outside, f"{notebook.stem} loads from another host: {outside}"
        for image in tree.select("img"):
            # Of a figure in parts the first tells of all.
            view = image.find_parent(class_=re.compile(r"\bfigure-view\b"))
            first = image if view is None else view.select_one("img")
            assert first and first.get("alt") and image.has_attr("alt"), f"{notebook.stem}: no alt text: {image}"
        assert "Traceback (most recent call last)" not in text
        assert len(text) < 2_000_000
        for link in page.links:
            name, _, anchor = link.partition("#")
            if re.match(r"\w+:", link) or name.startswith(("../_sources", "../_downloads")):
                continue
            target = (pages / name).resolve() if name else pages / f"{notebook.stem}.html"
            assert target.is_file(), f"{notebook.stem} links to {link}, which is not there"
            if anchor and target.suffix == ".html":
                anchors = read_once(target).anchors
                assert anchor in anchors, f"{notebook.stem} links to {link}, whose anchor is not there"


def test_back_matter_is_made(built_pages: Callable[[], Path]) -> None:
    pages = built_pages()
    address = pages_address()
    listed = [str(place.text) for place in ET.parse(pages / "sitemap.xml").iter() if place.tag.endswith("loc")]
    made = [f"book/{page.name}" for page in (pages / "book").glob("*.html")]
    expected = [f"{address}{name}" for name in made if name not in MOVED]
    assert sorted(listed) == sorted(expected)
    changelog = (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", changelog, re.M)
    assert versions[0] == snn_helpers.__version__, "the newest version has no entry in the changelog"
    items = list(ET.parse(pages / "changes.xml").iter("item"))
    assert [item.findtext("title") for item in items] == [f"Version {version}" for version in versions]
    assert all("<li>" in str(item.findtext("description")) for item in items)
    status = (pages / "book" / "status.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert machine() in html.unescape(status)
    rows = [row.get_text() for row in parse(status).select("tr")]
    for notebook in NOTEBOOKS:
        page = (pages / "book" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert any(f"book/{notebook.stem}" in row and "ran through" in row for row in rows), notebook.stem
        card = re.search(r'property="og:image" content="([^"]+)"', page)
        assert card and (pages / card[1].removeprefix(address)).is_file(), f"{notebook.stem} has no card"
        assert f'href="{address}changes.xml"' in page


# --- what runs again after a change ---------------------------------------------------------------

CODE = {
    "alone": ["import snn_helpers", "snn_helpers.one"],
    "deep": ["from snn_chapters.depth import layers\nlayers", 'load_results("deep_runs")'],
    "loops": ["import math\nfrom snn_chapters import (  # in a list\n    loops as l,\n    words,\n)\nl.loop"],
    "claims": [
        "for name in ('loop_runs', \"deep_runs\"):\n    load_results(name)",
        "import snn_chapters.depth as d\nd",
    ],
}
MODULES = {
    "__init__": '"""Chapters."""\n',
    "depth": "layers = 3\n",
    "loops": 'from .shared import base\nloop = base\nRECORD = "loop_runs"\n',
    "shared": "base = 1\n",
    "words": "word = 'spike'\n",
    "unused": "nothing = 0\n",
}


@pytest.fixture
def small_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a helper, chapters, records and notebooks; its jupyter-book only notes that it was called."""
    (tmp_path / "snn_helpers" / "js").mkdir(parents=True)
    (tmp_path / "snn_helpers" / "neurons.py").write_text("one = 1\n")
    (tmp_path / "snn_helpers" / "js" / "parts.js").write_text("const one = 1;\n")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "_config.yml").write_text("repository: {url: 'https://github.com/someone/fork', branch: main}\n")
    (tmp_path / "book" / "snn_chapters").mkdir(parents=True)
    (tmp_path / "book" / "results").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "book" / "snn_chapters" / f"{name}.py").write_text(text)
    for name in ("deep_runs", "loop_runs", "others"):
        (tmp_path / "book" / "results" / f"{name}.json").write_text("{}")
    for name, cells in CODE.items():
        write_notebook(tmp_path / "book" / f"{name}.ipynb", cells)
    binary = tmp_path / "bin"
    binary.mkdir()
    (binary / "python").symlink_to(sys.executable)
    fake = binary / "jupyter-book"
    fake.write_text(
        "#!/bin/sh\n"
        'ls "$2/_build" >> "$2/seen"; echo -- >> "$2/seen"\n'
        'mkdir -p "$2/_build/html" "$2/_build/.doctrees"\n'
        'test ! -e "$2/fails"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(binary / "python"))
    return tmp_path


def write_notebook(path: Path, cells: list[str]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, path)


def keep_outputs(book: Path) -> None:
    """As a build does with what it has run."""
    cache = get_cache(str(book / "_build" / ".jupyter_cache"))
    for path in sorted((book / "book").glob("*.ipynb")):
        cache.cache_notebook_file(path, uri=str(path), check_validity=False, overwrite=True)


def kept(book: Path) -> set[str]:
    """The notebooks whose outputs the next build would take as they are."""
    cache = get_cache(str(book / "_build" / ".jupyter_cache"))
    names = set()
    for path in (book / "book").glob("*.ipynb"):
        with contextlib.suppress(KeyError):
            cache.match_cache_notebook(read(path))
            names.add(path.stem)
    return names


def test_a_second_build_keeps_what_is_there(small_book: Path) -> None:
    assert build_book.build(small_book) == 0
    keep_outputs(small_book)
    (small_book / "_build" / "html" / "page").write_text("built")
    assert build_book.build(small_book) == 0
    assert (small_book / "_build" / "html" / "page").exists()
    assert kept(small_book) == set(CODE)


@pytest.mark.parametrize(
    ("file", "run_again"),
    [
        ("snn_helpers/neurons.py", set(CODE)),
        ("snn_helpers/js/parts.js", set(CODE)),
        ("requirements.txt", set(CODE)),
        ("book/snn_chapters/depth.py", {"deep", "claims"}),
        ("book/snn_chapters/loops.py", {"loops"}),
        ("book/snn_chapters/shared.py", {"loops"}),
        ("book/snn_chapters/words.py", {"loops"}),
        ("book/snn_chapters/unused.py", set()),
        ("book/snn_chapters/__init__.py", {"deep", "loops", "claims"}),
        ("book/results/deep_runs.json", {"deep", "claims"}),
        ("book/results/loop_runs.json", {"loops", "claims"}),
        ("book/results/others.json", set()),
    ],
)
def test_a_change_runs_again_what_uses_it_and_nothing_else(small_book: Path, file: str, run_again: set[str]) -> None:
    build_book.build(small_book)
    keep_outputs(small_book)
    (small_book / "_build" / "html" / "old page").write_text("")
    with (small_book / file).open("a") as changed:
        changed.write("\n")
    assert build_book.build(small_book) == 0
    assert kept(small_book) == set(CODE) - run_again
    # What shows the outputs is made again with them.
    assert (small_book / "_build" / "html" / "old page").exists() == (not run_again)


@pytest.mark.parametrize(
    "shown", ["book/_static/book.css", "book/_static/widgets/explorers.js", "book/results/stacks.json"]
)
def test_a_change_of_what_is_shown_makes_the_pages_again_and_runs_nothing(shown: str, small_book: Path) -> None:
    path = small_book / shown
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    build_book.build(small_book)
    keep_outputs(small_book)
    for content, kept_page in (("{}", True), ('{"other": 1}', False)):
        (small_book / "_build" / "html" / "old page").write_text("")
        path.write_text(content)
        assert build_book.build(small_book) == 0
        assert (small_book / "_build" / "html" / "old page").exists() == kept_page
    assert kept(small_book) == set(CODE)


def test_pages_are_known_by_every_file_that_shapes_them(
    small_book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the scripts alone: sentences about the pages, the search and the fonts lie beside them."""
    site = tmp_path / "site"
    shutil.copytree(Path(inputs.__file__).parent, site, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(inputs, "__file__", str(site / "inputs.py"))
    keys = {inputs.pages_key(small_book)}
    files = [path for path in sorted(site.rglob("*")) if path.is_file()]
    assert {"descriptions.yml", "search.js", "light.py"} <= {path.name for path in files}
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        keys.add(inputs.pages_key(small_book))
        path.write_bytes(before)
    assert len(keys) == len(files) + 1


def test_the_checks_of_a_chapter_count_as_its_module(small_book: Path) -> None:
    checks = small_book / "book" / "snn_chapters" / "exercises" / "of_alone.py"
    checks.parent.mkdir()
    checks.write_text("check = 1\n")
    found = inputs.chapter_modules("from snn_chapters.exercises.of_alone import check", small_book)
    assert checks in found
    assert checks not in inputs.chapter_modules("from snn_chapters import depth", small_book)


def test_an_explorer_counts_even_if_its_name_is_a_module_s(small_book: Path) -> None:
    explorer = small_book / "book" / "snn_chapters" / "explorers" / "depth.py"
    explorer.parent.mkdir()
    explorer.write_text("from snn_helpers.widgets import Explorer\n")
    found = inputs.chapter_modules("from snn_chapters.explorers.depth import DepthExplorer", small_book)
    assert {explorer, small_book / "book" / "snn_chapters" / "depth.py"} <= set(found)


def test_a_record_that_is_new_or_gone_runs_again_what_names_it(small_book: Path) -> None:
    record = small_book / "book" / "results" / "deep_runs.json"
    for change in (record.unlink, lambda: record.write_text("{}")):
        build_book.build(small_book)
        keep_outputs(small_book)
        change()
        build_book.build(small_book)
        assert kept(small_book) == {"alone", "loops"}


def test_a_book_without_chapters_of_its_own_has_keys_too(small_book: Path) -> None:
    shutil.rmtree(small_book / "book" / "snn_chapters")
    shutil.rmtree(small_book / "book" / "results")
    keys = inputs.notebook_keys(small_book)
    assert set(keys) == {f"book/{name}.ipynb" for name in CODE} and len(set(keys.values())) == 1


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import snn_helpers", ""),
        ("import snn_chapters.depth", "__init__ depth"),
        ("from snn_chapters.depth import layers", "__init__ depth"),
        ("from snn_chapters import depth, words as w", "__init__ depth words"),
        ("from snn_chapters import (\n    depth,  # shared\n    words,\n)", "__init__ depth words"),
        ("from snn_chapters.loops import loop", "__init__ loops shared"),
        ("import snn_chapters", "__init__ depth loops shared unused words"),
        ("from snn_chapters import *", "__init__ depth loops shared unused words"),
        ('script = """\nfrom snn_chapters.depth import layers\n"""', "__init__ depth"),
        ("if True:\n    from snn_chapters import depth; layers = 2", "__init__ depth"),
        ("%matplotlib inline\nfrom snn_chapters import unused", "__init__ unused"),
    ],
)
def test_imports_are_read_however_they_are_written(small_book: Path, code: str, modules: str) -> None:
    assert [path.stem for path in inputs.chapter_modules(code, small_book)] == modules.split()


def test_no_notebook_hides_the_record_that_it_loads() -> None:
    """The key knows records by strings that are their names; a name that is put together would not be seen."""
    for path in NOTEBOOKS:
        code = "\n".join(re.sub(r"(?m)^( *)[%!].*$", r"\1pass", cell.source) for cell in code_cells(read(path)))
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in ("load_results", "how_measured"):
                name = call.args[0]
                assert isinstance(name, (ast.Name, ast.Constant)), f"{path.stem}: {ast.unparse(call)}"
                if isinstance(name, ast.Constant):
                    assert name.value in {record.stem for record in inputs.records(code)}, ast.unparse(call)


# Each of the two waits until the other one has begun: one after the other, both would fail.
MEET = """
import time
from pathlib import Path
Path("{own}").touch()
end = time.monotonic() + 60
while not Path("{other}").exists() and time.monotonic() < end:
    time.sleep(0.05)
assert Path("{other}").exists()
print("met", "{other}")
"""


def test_notebooks_run_side_by_side_but_for_those_that_need_all_cores(
    small_book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (small_book / "book").glob("*.ipynb"):
        path.unlink()
    both = {"left": MEET.format(own="left", other="right"), "right": MEET.format(own="right", other="left")}
    for name, source in (both | {"wrong": "1 / 0", "timed": "1"}).items():
        write_notebook(small_book / "book" / f"{name}.ipynb", [source])
    timed = read(small_book / "book" / "timed.ipynb")
    timed.cells[0].metadata.tags = ["all-cores"]
    nbformat.write(timed, small_book / "book" / "timed.ipynb")
    ahead.run_ahead(small_book, {"cache": "_build/.jupyter_cache", "timeout": 100}, 2)
    assert kept(small_book) == set(both)
    assert "wrong.ipynb failed: it runs once more" in capsys.readouterr().out
    cache = get_cache(str(small_book / "_build" / ".jupyter_cache"))
    _, left = cache.merge_match_into_notebook(read(small_book / "book" / "left.ipynb"))
    assert left.cells[0].outputs[0].text == "met right\n"
    # With nothing new to run, nothing runs: the files that say so are not there again.
    (small_book / "book" / "left").unlink()
    (small_book / "book" / "wrong.ipynb").unlink()
    ahead.run_ahead(small_book, {"cache": "_build/.jupyter_cache", "timeout": 100}, 2)
    assert not (small_book / "book" / "left").exists()


def test_notebooks_are_not_run_ahead_while_another_process_makes_pages(
    small_book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_book / "_config.yml").write_text("execute: {execute_notebooks: cache, cache: _build/.jupyter_cache}\n")
    monkeypatch.setattr(ahead, "at_once", lambda: 2)
    lock = alone.hold(small_book / "_build", "pages")
    assert ahead.main(small_book) == 1
    assert "another build is running" in capsys.readouterr().err
    lock.release()


def test_after_a_failed_build_every_page_is_made_again_but_good_outputs_stay(small_book: Path) -> None:
    (small_book / "fails").touch()
    assert build_book.build(small_book) != 0
    keep_outputs(small_book)
    (small_book / "_build" / "html" / "half page").write_text("")
    assert build_book.build(small_book) != 0, "a failed build must not turn green by itself"
    (small_book / "_build" / "html" / "half page").write_text("")
    (small_book / "fails").unlink()
    assert build_book.build(small_book) == 0
    assert not (small_book / "_build" / "html" / "half page").exists()
    assert kept(small_book) == set(CODE)


def test_a_build_that_was_stopped_drops_what_is_stale_all_the_same(
    small_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_book.build(small_book)
    keep_outputs(small_book)
    (small_book / "book" / "snn_chapters" / "depth.py").write_text("layers = 4\n")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(inputs, "drop_outputs", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_book.build(small_book)
    build_book.build(small_book)
    assert kept(small_book) == {"alone", "loops"}


@pytest.mark.parametrize("state", ["", "unfinished 0123", "[]", '{"keys": 3, "pages": "", "whole": true}'])
def test_a_state_that_cannot_be_read_counts_as_none(small_book: Path, state: str) -> None:
    build_book.build(small_book)
    keep_outputs(small_book)
    (small_book / "_build" / ".state").write_text(state)
    assert build_book.build(small_book) == 0
    assert kept(small_book) == set()


def test_a_cache_that_cannot_be_read_is_dropped_as_a_whole(
    small_book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_book.build(small_book)
    keep_outputs(small_book)
    (small_book / "_build" / ".jupyter_cache" / "global.db").write_text("no database")
    (small_book / "book" / "snn_chapters" / "depth.py").write_text("layers = 4\n")
    assert build_book.build(small_book) == 0
    assert "every notebook runs again" in capsys.readouterr().err
    assert kept(small_book) == set()


def test_other_data_or_records_change_the_keys(small_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[str]:
        return [inputs.inputs_key(small_book), *inputs.notebook_keys(small_book).values()]

    before = keys()
    (small_book / "book" / "results" / "record.json").write_text("{}")
    with_record = keys()
    assert with_record[0] != before[0] and with_record[1:] == before[1:]
    monkeypatch.setenv("SNN_DATA_DIR", "elsewhere")
    assert not set(keys()) & set(with_record)


def test_a_file_that_is_no_notebook_is_named(small_book: Path) -> None:
    (small_book / "book" / "half.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match=r"half\.ipynb is no notebook"):
        inputs.notebook_keys(small_book)


def test_outputs_are_true_until_what_the_notebook_uses_changes(small_book: Path) -> None:
    deep, loops = (small_book / "book" / f"{name}.ipynb" for name in ("deep", "loops"))
    assert not inputs.outputs_are_true(deep, small_book)
    build_book.build(small_book)
    assert inputs.outputs_are_true(deep, small_book) and inputs.outputs_are_true(loops, small_book)
    (small_book / "book" / "snn_chapters" / "depth.py").write_text("layers = 4\n")
    assert not inputs.outputs_are_true(deep, small_book) and inputs.outputs_are_true(loops, small_book)


# --- one build at a time --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["build", "pages"])
def test_a_second_build_ends_with_words_and_touches_nothing(
    what: str, small_book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where `make` was killed, and the process that it had started still writes pages."""
    assert build_book.build(small_book) == 0
    before = (small_book / "seen").read_text()
    (small_book / "_build" / "html" / "page").write_text("whole")
    (small_book / "snn_helpers" / "neurons.py").write_text("one = 2\n")
    holder = subprocess.Popen(
        [PYTHON, "-c", "import alone, sys, pathlib; lock = alone.hold(pathlib.Path(sys.argv[1]), sys.argv[2]);"
         "print('held', flush=True); sys.stdin.read()", str(small_book / "_build"), what],
        env=os.environ | {"PYTHONPATH": str(Path(build_book.__file__).parent)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout and holder.stdout.readline() == "held\n"
    assert build_book.build(small_book) == 1
    told = capsys.readouterr().err
    assert f"process {holder.pid}" in told and "wait until it ends, or end it" in told
    assert (small_book / "seen").read_text() == before and (small_book / "_build" / "html" / "page").exists()
    holder.kill()  # the system lets go of what a killed process held
    holder.communicate()
    assert build_book.build(small_book) == 0


def test_other_versions_than_the_pins_run_everything_again(small_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small_book / "requirements.txt").write_text("torch==2.14.1  # a pin\nPyYAML==6\n")
    build_book.build(small_book)
    keep_outputs(small_book)
    real = inputs.version
    monkeypatch.setattr(inputs, "version", lambda name: "9.9" if name == "torch" else real(name))
    inputs._installed.cache_clear()
    build_book.build(small_book)
    assert kept(small_book) == set()
    inputs._installed.cache_clear()


def test_kernels_are_started_in_silence(tmp_path: Path) -> None:
    """But for what is wrong: the word of a kernel without encryption, at each notebook, frightens and helps nobody."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, tmp_path / "one.ipynb")
    command = [sys.executable, "-m", "papermill", "one.ipynb", "out.ipynb", "-k", "python3", "--no-progress-bar"]
    loud = os.environ | {"IPYTHONDIR": str(tmp_path / "plain")}
    told = [
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
        for environment in (loud, loud | build_book.quiet_kernels(tmp_path / "quiet"))
    ]
    # By its level: a kernel that is slow to end is interrupted, and may say so as an error.
    warns = "[IPKernelApp] WARNING"
    assert warns in told[0] and warns not in told[1]


def test_sphinx_alone_makes_the_same_pages(tmp_path: Path) -> None:
    """The way out of Jupyter Book that CONTRIBUTING.md tells: with three pages, which run nothing."""
    names = ("changelog", "quiz", "glossary")
    (tmp_path / "book").mkdir()
    for name in names:
        text = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
        # Links to chapters that are not here would be warnings.
        (tmp_path / "book" / f"{name}.md").write_text(re.sub(r"\]\([\w./-]+\.(ipynb|md)(#[\w-]+)?\)", "](#x)", text))
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    shutil.copytree(ROOT / "book" / "_scripts" / "site", tmp_path / "book" / "_scripts" / "site")
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/changelog\nparts:\n  - chapters: [{file: book/quiz}, {file: book/glossary}]\n"
    )
    (tmp_path / "requirements.txt").write_text("")
    environment = os.environ | {"PYTHONPATH": "book/_scripts/site"}
    for command in (
        [Path(PYTHON).with_name("jupyter-book"), "config", "sphinx", "."],
        [PYTHON, "-m", "sphinx", "-b", "html", "-q", ".", "_build/html"],
    ):
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    for name in names:
        page = (tmp_path / "_build" / "html" / "book" / f"{name}.html").read_text(encoding="utf-8")
        assert "Content-Security-Policy" in page and "joined" in page  # what this book's own extension does
