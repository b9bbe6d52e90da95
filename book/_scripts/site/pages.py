"""A Sphinx extension: what the book's pages have beside what Sphinx and the theme make.

`_config.yml` names it, so `jupyter-book build .` and `make book` make the same pages. When all pages are
written it mends what the theme does wrong, gives each page its content security policy, stores figures
in fewer bytes, says on the status page where the notebooks ran, and writes a map of the site and a feed of
changes. Done twice, it changes nothing more. Before that, it drops outputs that are no longer true.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
import platform
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from bs4.formatter import HTMLFormatter
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parent))

from inputs import refresh

logger = logging.getLogger(__name__)


# --- mends of the theme ---------------------------------------------------------------------------


def without(attribute: str) -> Callable[[Tag], None]:
    """A mend that takes an attribute away."""

    def mend(tag: Tag) -> None:
        del tag[attribute]

    return mend


def gone(tag: Tag) -> None:
    """With the white space before it, which would be joined to what follows when the page is read again."""
    before = tag.previous_sibling
    if isinstance(before, NavigableString) and not before.strip():
        before.extract()
    tag.decompose()


def reached_by_keyboard(tag: Tag) -> None:
    tag["tabindex"] = "0"


@dataclass(frozen=True)
class Mend:
    """Where a fault of the theme is, as a CSS selector that finds it no more once it is mended, and what to do."""

    what: str
    selector: str
    do: Callable[[Tag], None]
    everywhere: bool = False  # every page has it, so that not to find it means that the theme has changed


MENDS = (
    # Names for screen readers that leave out what is seen.
    Mend("names of folded cells", 'summary[aria-label="Toggle hidden content"]', without("aria-label")),
    Mend("names of search buttons", "button.search-button-field[aria-label]", without("aria-label"), everywhere=True),
    Mend("names of theme switches", "i.theme-switch[title]", without("title"), everywhere=True),
    # The scripts of a button that this book has not, loaded twice over, which is an error in itself.
    Mend("scripts of Thebe", 'script[src*="sphinx-thebe.js"]', gone, everywhere=True),
    Mend("settings of Thebe", 'script:-soup-contains("const THEBE_JS_URL")', gone, everywhere=True),
    # A wide table scrolls, so the keyboard must reach it; and a list of sources is not made of list items.
    Mend("tables that scroll", "table.table:not([tabindex])", reached_by_keyboard),
    Mend("lists of sources", 'div.citation-list[role="list"]', without("role")),
    Mend("sources in lists", 'div.citation[role="doc-biblioentry"]', without("role")),
)
# A widget whose output is left off the page leaves its state behind, and with it the explorers' script.
WIDGET_VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]'
LEFT_BEHIND = (
    Mend("states of widgets", 'script[type="application/vnd.jupyter.widget-state+json"]', gone),
    Mend("scripts of explorers", 'script[src*="widgets/explorers.js"]', gone),
)


class AsItIs(HTMLFormatter):
    """HTML as browsers write it, the attributes in the order that they had."""

    def __init__(self) -> None:
        super().__init__(entity_substitution=HTMLFormatter.REGISTRY["minimal"].entity_substitution, indent=0)
        self.void_element_close_prefix = ""
        self.empty_attributes_are_booleans = False

    def attributes(self, tag: Tag) -> Iterable[tuple[str, Any]]:
        return tag.attrs.items()


def parse(page: str) -> BeautifulSoup:
    # As browsers do, the first of two attributes of one name counts; classes stay the text that they are.
    return BeautifulSoup(page, "html.parser", on_duplicate_attribute="ignore", multi_valued_attributes=None)


def mend(page: BeautifulSoup) -> Counter[str]:
    """Mend a page in place; how often each fault was found."""
    found: Counter[str] = Counter()
    for each in (*MENDS, *(() if page.select_one(WIDGET_VIEW) else LEFT_BEHIND)):
        for tag in page.select(each.selector):
            each.do(tag)
            found[each.what] += 1
    return found


# --- the content security policy ------------------------------------------------------------------

# What a page may load and run: the site's own files, and of scripts in the page those that the build has seen.
# Explorers make modules of their text (blob:); styles are all over the pages, where drawings are.
POLICY = (
    "default-src 'none'; script-src 'self'{blob}{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"
)


def hashed(script: str) -> str:
    digest = hashlib.sha256(script.replace("\r\n", "\n").encode()).digest()
    return f" 'sha256-{base64.b64encode(digest).decode()}'"


def handlers(page: BeautifulSoup) -> set[str]:
    """What is in the page's attributes such as onclick."""
    return {str(value) for tag in page.find_all(True) for name, value in tag.attrs.items() if name.startswith("on")}


def policy(page: BeautifulSoup, allowed: set[str]) -> str:
    """The page's policy, which knows its inline scripts and the `allowed` handlers by their hashes."""
    inline = {
        hashed(script.string or "")
        for script in page.find_all("script", src=False)
        # Of another type it is data, and no browser runs it.
        if script.get("type", "text/javascript") in ("", "text/javascript", "module")
    }
    hashes = "".join(sorted(inline))
    if allowed:
        hashes += " 'unsafe-hashes'" + "".join(sorted(map(hashed, allowed)))
    return POLICY.format(blob=" blob:" if page.select_one(WIDGET_VIEW) else "", hashes=hashes)


def finish_pages(
    pages: Path, change: Callable[[Path, BeautifulSoup], None] = lambda path, page: None
) -> tuple[Counter[str], int]:
    """Mend each page, let `change` have it, and give it its policy; how often each fault was found, and new pages.

    A page that is finished already stays as it is, to the byte.
    """
    found: Counter[str] = Counter()
    parsed = {}
    for path in sorted(pages.rglob("*.html")):
        page = parse(path.read_text(encoding="utf-8"))
        # Not the theme's snippets, nor the page that only leads on.
        if "_static" not in path.relative_to(pages).parts and page.select_one("head > meta[charset]"):
            found += mend(page)
            change(path, page)
            parsed[path] = page
    # The search reads the other pages, so it meets their handlers too.
    allowed = set().union(*map(handlers, parsed.values()))
    n_new = 0
    for path, page in parsed.items():
        (tag,) = page.select('head > meta[http-equiv="Content-Security-Policy"]') or [None]
        if tag is None:
            tag = page.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy"})
            page.select("head > meta[charset]")[0].insert_after("\n", tag)
            n_new += 1
        tag["content"] = policy(page, allowed)
        # The parser gives the doctype a line of its own, once more each time.
        text = re.sub(r"\A\s*(<!DOCTYPE[^>]*>)\s*", r"\1\n", page.decode(formatter=AsItIs()))
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
    return found, n_new


# --- figures, status, map and feed ----------------------------------------------------------------


def shrink_figures(pages: Path) -> None:
    """Store each figure in fewer bytes: without an alpha channel that lets nothing through, and well packed."""
    for path in (pages / "_images").glob("*.png"):
        with Image.open(path) as figure:
            if figure.mode == "RGBA" and figure.getchannel("A").getextrema() != (255, 255):
                continue
            packed = io.BytesIO()
            (figure.convert("RGB") if figure.mode == "RGBA" else figure).save(packed, format="PNG", optimize=True)
        if len(packed.getvalue()) < path.stat().st_size:
            path.write_bytes(packed.getvalue())


def machine() -> str:
    """What the notebooks ran on, in words."""
    import torch  # takes seconds, and only the status page asks

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU: all on the CPU"
    return (
        f"Run with Python {platform.python_version()} and torch {torch.__version__} on {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, {gpu}."
    )


def tell_status(path: Path, page: BeautifulSoup) -> None:
    """Name the machine where the page has a place for it, and say in words how each notebook ended."""
    place = page.find(id="build-machine")
    if place is None:
        return
    place.string = machine()
    # In words: not every machine has a picture for the tick, and a screen reader reads its name.
    for tick in page.find_all(string=re.compile("\u2705")):
        tick.replace_with(tick.replace("\u2705", "ran through"))


def write_sitemap(pages: Path, address: str, moved: Collection[str] = ()) -> None:
    """List every page for search engines, but for the old addresses of pages that have `moved`."""
    left_out = {"index.html", "search.html", "genindex.html", *(f"{name}.html" for name in moved)}
    tree = ET.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for page in sorted(pages.rglob("*.html")):
        name = page.relative_to(pages).as_posix()
        if not name.startswith("_") and name not in left_out:
            ET.SubElement(ET.SubElement(tree, "url"), "loc").text = address + name
    ET.ElementTree(tree).write(pages / "sitemap.xml", encoding="utf-8", xml_declaration=True)


def write_feed(pages: Path, changelog: str, address: str) -> None:
    """An RSS feed with an item for each version of the changelog, `## number (year-month-day)`."""
    feed = ET.Element("rss", version="2.0")
    channel = ET.SubElement(feed, "channel")
    for tag, text in (
        ("title", "Spikes and Gradients: changes"),
        ("link", f"{address}book/changelog.html"),
        ("description", "What is new in each version of the book"),
    ):
        ET.SubElement(channel, tag).text = text
    for number, day, text in re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)\n(.*?)(?=^## |\Z)", changelog, re.M | re.S):
        item = ET.SubElement(channel, "item")
        points = re.findall(r"^- (.*?)(?=^- |\Z)", text.strip() + "\n", re.M | re.S)
        listed = "".join(f"<li>{html.escape(' '.join(point.split()))}</li>" for point in points)
        when = datetime.fromisoformat(day).replace(tzinfo=UTC)
        for tag, value in (
            ("title", f"Version {number}"),
            ("link", f"{address}book/changelog.html"),
            ("guid", f"{address}book/changelog.html#{number}"),
            ("pubDate", format_datetime(when)),
            ("description", f"<ul>{listed}</ul>"),
        ):
            ET.SubElement(item, tag).text = value
    ET.ElementTree(feed).write(pages / "changes.xml", encoding="utf-8", xml_declaration=True)


# --- what Sphinx calls ----------------------------------------------------------------------------


def changelog_of(app: Sphinx) -> Path:
    return Path(app.srcdir) / "book" / "changelog.md"


def finished(app: Sphinx) -> Path:
    """A mark that is there while no page has been written since all were finished; it knows by what."""
    return Path(app.doctreedir) / "pages.finished"


def drop_stale_outputs(app: Sphinx) -> None:
    app._stale_notebooks = refresh(Path(app.srcdir))  # type: ignore[attr-defined]


def read_again(app: Sphinx, *_: object) -> list[str]:
    """The pages of notebooks whose outputs were dropped: Sphinx takes them for unchanged."""
    names = (name.removesuffix(".ipynb") for name in app._stale_notebooks)  # type: ignore[attr-defined]
    return [name for name in names if name in app.env.found_docs]


def name_the_feed(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Tell feed readers where to look; a page is being written, so that there is something to finish."""
    finished(app).unlink(missing_ok=True)
    if app.config.html_baseurl and changelog_of(app).exists():
        address = html.escape(f"{app.config.html_baseurl}changes.xml")
        link = f'<link rel="alternate" type="application/rss+xml" title="Changes" href="{address}" />'
        context["metatags"] = f"{context.get('metatags', '')}\n{link}\n"


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    pages, mark, by = Path(app.outdir), finished(app), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == by:
        return
    found, n_new = finish_pages(pages, tell_status)
    logger.info("mended in the pages: %s", ", ".join(f"{n} {what}" for what, n in found.items()) or "nothing")
    if n_new:
        for each in MENDS:
            if each.everywhere and not found[each.what]:
                logger.warning("no page has %s to mend (%s): has the theme changed?", each.what, each.selector)
    shrink_figures(pages)
    if address := app.config.html_baseurl:
        write_sitemap(pages, address, app.config.redirects)
        if changelog_of(app).exists():
            write_feed(pages, changelog_of(app).read_text(encoding="utf-8"), address)
    mark.write_text(by)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", drop_stale_outputs)
    app.connect("env-get-outdated", read_again)
    app.connect("html-page-context", name_the_feed)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
