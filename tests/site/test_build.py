"""The book as a whole: built from clean with warnings as errors, and rebuilt rightly after a change."""

from __future__ import annotations

import html
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import build_book
import matplotlib.pyplot as plt
import numpy as np
import pytest
from address import pages_address
from notebooks import NOTEBOOKS, code_cells, read
from PIL import Image

import snn_helpers

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """What a page shows and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
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
    for notebook in NOTEBOOKS:
        page = Page(pages / f"{notebook.stem}.html")
        drawn = [cell for cell in code_cells(read(notebook)) if "plt.show()" in cell.source]
        drawn = [cell for cell in drawn if "remove-output" not in cell.metadata.get("tags", [])]
        shown = [image for image in page.images if "/_images/" in str(image.get("src"))]
        assert len(shown) >= len(drawn), f"{notebook.stem} shows {len(shown)} figures of {len(drawn)}"
        for image in page.images:
            assert image.get("alt"), f"{notebook.stem}: an image without alt text: {image}"
        outside = [url for url in page.loaded if re.match(r"(https?:)?//", url)]
        assert not outside, f"{notebook.stem} loads from another host: {outside}"
        text = (pages / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert "Traceback (most recent call last)" not in text
        assert len(text) < 2_000_000
        for link in page.links:
            name, _, anchor = link.partition("#")
            if re.match(r"\w+:", link) or name.startswith(("../_sources", "../_downloads")):
                continue
            target = (pages / name).resolve() if name else pages / f"{notebook.stem}.html"
            assert target.is_file(), f"{notebook.stem} links to {link}, which is not there"
            if anchor and target.suffix == ".html":
                assert anchor in Page(target).anchors, f"{notebook.stem} links to {link}, whose anchor is not there"


def test_back_matter_is_made(built_pages: Callable[[], Path]) -> None:
    pages = built_pages()
    address = pages_address()
    listed = [str(place.text) for place in ET.parse(pages / "sitemap.xml").iter() if place.tag.endswith("loc")]
    expected = [f"{address}book/{page.name}" for page in (pages / "book").glob("*.html")]
    assert sorted(listed) == sorted(expected)
    changelog = (ROOT / "book" / "changelog.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", changelog, re.M)
    assert versions[0] == snn_helpers.__version__, "the newest version has no entry in the changelog"
    items = list(ET.parse(pages / "changes.xml").iter("item"))
    assert [item.findtext("title") for item in items] == [f"Version {version}" for version in versions]
    assert all("<li>" in str(item.findtext("description")) for item in items)
    status = (pages / "book" / "status.html").read_text(encoding="utf-8")
    assert build_book.machine() in html.unescape(status)
    for notebook in NOTEBOOKS:
        page = (pages / "book" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert re.search(rf"{notebook.stem}<.*?ran through", status, re.S), f"{notebook.stem} is not on the status page"
        card = re.search(r'property="og:image" content="([^"]+)"', page)
        assert card and (pages / card[1].removeprefix(address)).is_file(), f"{notebook.stem} has no card"
        assert f'href="{address}changes.xml"' in page


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
    build_book.shrink_figures(tmp_path)
    with Image.open(path) as figure:
        after = np.asarray(figure.convert("RGB"))
    assert np.array_equal(before, after) and path.stat().st_size < size
    once = path.read_bytes()
    build_book.shrink_figures(tmp_path)
    assert path.read_bytes() == once and list(path.parent.iterdir()) == [path]


@pytest.fixture
def small_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one helper, whose jupyter-book only notes that it was called."""
    (tmp_path / "snn_helpers").mkdir()
    (tmp_path / "snn_helpers" / "neurons.py").write_text("one = 1\n")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "_config.yml").write_text("repository: {url: 'https://github.com/someone/fork', branch: main}\n")
    binary = tmp_path / "bin"
    binary.mkdir()
    (binary / "python").symlink_to(sys.executable)
    fake = binary / "jupyter-book"
    fake.write_text(
        "#!/bin/sh\n"
        'ls "$2/_build" >> "$2/seen"; echo -- >> "$2/seen"\n'
        'mkdir -p "$2/_build/html" "$2/_build/.jupyter_cache" "$2/_build/.doctrees"\n'
        'test ! -e "$2/fails"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(binary / "python"))
    return tmp_path


def last_seen(book: Path) -> str:
    return (book / "seen").read_text().split("--\n")[-2]


def cache_is_there(book: Path) -> bool:
    return (book / "_build" / ".jupyter_cache").exists()


def test_a_second_build_keeps_what_is_there(small_book: Path) -> None:
    assert build_book.build(small_book) == 0
    (small_book / "_build" / "html" / "page").write_text("built")
    assert build_book.build(small_book) == 0
    assert (small_book / "_build" / "html" / "page").exists()


def test_a_changed_helper_drops_the_cache_of_outputs(small_book: Path) -> None:
    build_book.build(small_book)
    (small_book / "_build" / ".jupyter_cache" / "old output").write_text("")
    (small_book / "_build" / "html" / "old page").write_text("")
    (small_book / "snn_helpers" / "neurons.py").write_text("one = 2\n")
    assert build_book.build(small_book) == 0
    assert not (small_book / "_build" / ".jupyter_cache" / "old output").exists()
    assert not (small_book / "_build" / "html" / "old page").exists()


def test_after_a_failed_build_every_page_is_made_again_but_good_outputs_stay(small_book: Path) -> None:
    (small_book / "fails").touch()
    assert build_book.build(small_book) != 0
    (small_book / "_build" / ".jupyter_cache" / "good output").write_text("")
    (small_book / "_build" / "html" / "half page").write_text("")
    assert build_book.build(small_book) != 0, "a failed build must not turn green by itself"
    (small_book / "_build" / "html" / "half page").write_text("")
    (small_book / "fails").unlink()
    assert build_book.build(small_book) == 0
    assert not (small_book / "_build" / "html" / "half page").exists()
    assert (small_book / "_build" / ".jupyter_cache" / "good output").exists()


def test_other_data_or_records_change_the_key(small_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_book.inputs_key(small_book)
    (small_book / "book" / "results").mkdir(parents=True)
    (small_book / "book" / "results" / "record.json").write_text("{}")
    with_record = build_book.inputs_key(small_book)
    monkeypatch.setenv("SNN_DATA_DIR", "elsewhere")
    assert len({before, with_record, build_book.inputs_key(small_book)}) == 3
    assert os.environ["SNN_DATA_DIR"] == "elsewhere"
