"""A Sphinx extension: what the book's pages have beside what Sphinx and the theme make.

`_config.yml` names it, so `jupyter-book build .` and `make book` make the same pages. When all pages are
written it mends what the theme does wrong, gives each page its content security policy, stores figures
in fewer bytes, says on the status page where the notebooks ran, and writes a map of the site and a feed of
changes. Done twice, it changes nothing more. Before that, it drops outputs that are no longer true.

Formulas are written as MathML (`formulas.py`), pages made light (`light.py`) and their tables fit for a phone
(`tables.py`); figures are numbered and have a twin for the night (`figures.py`); each page has a sentence and a card
that tell of it elsewhere (`cards.py`), and the search finds a page by its title first (`search.js`).
"""

from __future__ import annotations

import base64
import gc
import hashlib
import html
import io
import os
import platform
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from bs4.formatter import HTMLFormatter
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).resolve().parent))

import alone
import stacks
from cards import SIZE as CARD_SIZE
from cards import descriptions, draw_card, figures
from figures import finish_figures
from formulas import BadFormulaError, mathml, parts
from inputs import pages_key, refresh
from light import WIDGET_VIEW, gone, join_styles, lighten
from tables import fit

logger = logging.getLogger(__name__)
HERE = Path(__file__).resolve().parent
STACKS = HERE.parents[1] / "results" / "stacks.json"
CARDS = "_images/cards"


# --- mends of the theme ---------------------------------------------------------------------------


def without(attribute: str) -> Callable[[Tag], None]:
    """A mend that takes an attribute away."""

    def mend(tag: Tag) -> None:
        del tag[attribute]

    return mend


def setting(**attributes: str) -> Callable[[Tag], None]:
    """A mend that gives a tag these attributes."""

    def mend(tag: Tag) -> None:
        tag.attrs |= attributes

    return mend


def named_twice(title: Tag) -> None:
    """The first page has the book's own name: what it is about is told in place of the name once more."""
    name, _, book = title.get_text().partition(" — ")
    if name.strip() == book.strip():
        title.string = f"{name.strip()}: spiking neural networks in PyTorch"


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
    # The skip link leads past the buttons above the article, to what one came for.
    Mend("articles without a name", "article.bd-article:not([id])", setting(id="article", tabindex="-1")),
    Mend("skip links", 'body:has(#article) #pst-skip-link > a[href="#main-content"]', setting(href="#article")),
    # What stands outside every landmark, a screen reader's list of the page's parts leaves out.
    Mend(
        "sidebars without a role",
        "div#pst-primary-sidebar:not([role])",
        setting(role="navigation", **{"aria-label": "Book"}),
        everywhere=True,
    ),
    Mend("titles that say a name twice", 'head > title:-soup-contains("Spikes and Gradients — ")', named_twice),
    Mend("repeated viewports", 'meta[name="viewport"] ~ meta[name="viewport"]', gone, everywhere=True),
    # A list of sources is not made of list items.
    Mend("lists of sources", 'div.citation-list[role="list"]', without("role")),
    Mend("sources in lists", 'div.citation[role="doc-biblioentry"]', without("role")),
)
# A widget whose output is left off the page leaves its state behind, and with it the explorers' script.
LEFT_BEHIND = (
    Mend("states of widgets", 'script[type="application/vnd.jupyter.widget-state+json"]', gone),
    Mend("scripts of explorers", 'script[src*="widgets/explorers.js"]', gone),
)


# The theme measures all that may scroll, in closed folds too, and each change makes the browser lay out the page anew:
# half a second of a phone. Here book.js is told of each, which watches it.
THEME_SCRIPT = "_static/scripts/pydata-sphinx-theme.js"
MEASURES = ".forEach(e=>{e.tabIndex=e.scrollWidth>e.clientWidth||e.scrollHeight>e.clientHeight?0:-1})"
WATCHES = ".forEach(e=>self.watchScrolling?.(e))"


def mend_script(pages: Path) -> bool:
    """Mend the theme's script; False if what is to be mended is not there."""
    path = pages / THEME_SCRIPT
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if MEASURES in text:
        path.write_text(text.replace(MEASURES, WATCHES), encoding="utf-8")
    return MEASURES in text or WATCHES in text


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

# What a page may load and run: the site's own files (for Firefox the next page, which it fetches ahead, is one), and
# of scripts in the page those that the build has seen.
# Explorers make modules of their text (blob:); styles are in attributes of figures and formulas.
POLICY = (
    "default-src 'self'; object-src 'none'; frame-src 'none'; script-src 'self'{blob}{hashes};"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
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
            fit(page)
            finish_figures(page, path)
            lighten(page, path, pages)
            parsed[path] = page
    join_styles(parsed, pages)
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
    # Run by a command of their own, since they need other versions than this book's pins.
    if (there := page.find(id="stacks")) and (made := stacks.table(page, STACKS)):
        there.replace_with(made)
    # In words: not every machine has a picture for the tick, and a screen reader reads its name.
    for tick in page.find_all(string=re.compile("\u2705")):
        tick.replace_with(tick.replace("\u2705", "ran through"))


def write_cards(pages: Path, source: Path, titles: Mapping[str, str]) -> None:
    """The card of each page, with the first figure of its notebook; of a page without one, that of the first page."""
    kept = source / "_build" / ".jupyter_cache"
    listed, first = descriptions(), next(figures(source / "book" / "intro.ipynb", kept), None)
    for name, title in titles.items():
        card = pages / CARDS / f"{name}.png"
        card.parent.mkdir(parents=True, exist_ok=True)
        figure = next(figures(source / f"{name}.ipynb", kept), first)
        card.write_bytes(draw_card(title, listed[name], figure))


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
    """A mark that is there while no page has been written since all were finished."""
    return Path(app.doctreedir) / "pages.finished"


def hold_the_folder(app: Sphinx) -> None:
    """Let no other build write here meanwhile, however it was started."""
    try:
        app._lock = alone.hold(Path(app.outdir).parent, "pages")  # type: ignore[attr-defined]
    except alone.BusyError as error:
        raise ExtensionError(str(error)) from None


def let_go(app: Sphinx, error: Exception | None) -> None:
    app._lock.release()  # type: ignore[attr-defined]


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


def describe(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """One sentence and a card for each page of the table of contents, in the place of what a program would cut out."""
    text = descriptions().get(name)
    if doctree is None or text is None:
        return
    context["metatags"] = (
        f'{context.get("metatags", "")}\n<meta name="description" content="{html.escape(text)}" />\n'
        '<meta name="twitter:card" content="summary_large_image" />\n'
    )
    width, height = CARD_SIZE
    context["meta"] = dict(context.get("meta") or {}) | {
        "og:description": text,
        "og:image": f"{app.config.html_baseurl}{CARDS}/{name}.png",
        "og:image:alt": text,
        "og:image:width": str(width),
        "og:image:height": str(height),
    }


def configure(app: Sphinx, config: Config) -> None:
    config.html_search_scorer = str(HERE / "search.js")  # the page first whose title is asked for
    config.book_pages_key = pages_key(Path(app.srcdir))


# What the search leaves out: cells of code, the first of which is the same in each notebook.
CODE = ("cell_input", "tag_setup")


def leave_code_out_of_the_search(app: Sphinx) -> None:
    builder: Any = app.builder
    if not hasattr(builder, "index_page"):
        return
    index_page = builder.index_page

    def without_code(name: str, doctree: nodes.document, title: str) -> None:
        doctree = doctree.deepcopy()
        for node in list(doctree.findall(nodes.container)):
            if node.parent is not None and set(CODE) & set(node.get("classes", [])):
                node.parent.remove(node)
        index_page(name, doctree, title)

    builder.index_page = without_code


# --- formulas -------------------------------------------------------------------------------------


# What belongs to the formula before it, and what to the formula after it.
MARK_AFTER = re.compile(r"[.,;:!?)\]%’”]+(?=\s|$)|(?:'s|-\w+)\b[.,;:)]*")
MARK_BEFORE = re.compile(r"(?<!\S)[(\[“‘]+$")


class KeepTogether(SphinxPostTransform):
    """Put a formula and the mark beside it into one span: browsers end a line between the two."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.math)):
            parent = node.parent
            if "together" in parent.get("classes", []):
                continue
            at = parent.index(node)
            together = nodes.inline(classes=["together"])
            before = parent[at - 1] if at > 0 else None
            after = parent[at + 1] if at + 1 < len(parent) else None
            opening = MARK_BEFORE.search(before) if isinstance(before, nodes.Text) else None
            closing = MARK_AFTER.match(after) if isinstance(after, nodes.Text) else None
            if not (opening or closing):
                continue
            pieces: list[nodes.Node] = []
            first, last = at, at + 1
            if opening and before is not None:
                pieces.append(nodes.Text(str(before)[: opening.start()]))
                together += nodes.Text(opening[0])
                first -= 1
            together += node.deepcopy()
            pieces.append(together)
            if closing and after is not None:
                together += nodes.Text(closing[0])
                pieces.append(nodes.Text(str(after)[closing.end() :]))
                last += 1
            parent[first:last] = pieces


def formula(translator: HTML5Translator, node: nodes.math | nodes.math_block, display: bool) -> str:
    texts = parts(node.astext()) if display else [node.astext()]
    try:
        return "".join(mathml(text, display) for text in texts)
    except BadFormulaError as error:
        logger.warning("%s", error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def write_formula(translator: HTML5Translator, node: nodes.math) -> None:
    opened = translator.starttag(node, "span", "", CLASS="math notranslate nohighlight")
    translator.body.append(f"{opened}{formula(translator, node, display=False)}</span>")
    raise nodes.SkipNode


def write_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", "", CLASS="math notranslate nohighlight"))
    translator.body.append(f"{formula(translator, node, display=True)}</div>\n")
    raise nodes.SkipNode


def finish(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.name != "html":
        return
    pages, mark = Path(app.outdir), finished(app)
    if mark.exists():
        return
    gc.disable()  # all pages are kept to the end, in a million parts: to look for garbage among them takes seconds
    try:
        found, n_new = finish_pages(pages, tell_status)
    finally:
        gc.enable()
    logger.info("mended in the pages: %s", ", ".join(f"{n} {what}" for what, n in found.items()) or "nothing")
    if n_new:
        for each in MENDS:
            if each.everywhere and not found[each.what]:
                logger.warning("no page has %s to mend (%s): has the theme changed?", each.what, each.selector)
    if not mend_script(pages):
        logger.warning("%s does not measure what scrolls as it did: has the theme changed?", THEME_SCRIPT)
    shrink_figures(pages)
    described = sorted(descriptions().keys() & app.env.found_docs)
    write_cards(pages, Path(app.srcdir), {name: app.env.titles[name].astext() for name in described})
    if address := app.config.html_baseurl:
        write_sitemap(pages, address, app.config.redirects)
        if changelog_of(app).exists():
            write_feed(pages, changelog_of(app).read_text(encoding="utf-8"), address)
    mark.touch()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(KeepTogether)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_display, None))
    app.add_config_value("book_pages_key", "", "html")  # another value, and Sphinx writes every page anew
    app.connect("config-inited", configure)
    app.connect("builder-inited", hold_the_folder, priority=1)
    app.connect("builder-inited", leave_code_out_of_the_search)
    app.connect("builder-inited", drop_stale_outputs)
    app.connect("env-get-outdated", read_again)
    app.connect("html-page-context", name_the_feed)
    app.connect("html-page-context", describe, priority=400)  # before other sites' tags are made of it
    app.connect("build-finished", finish, priority=900)  # the theme still writes the colours of code there
    app.connect("build-finished", let_go, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
