"""Print the built pages into one PDF, _build/spikes-and-gradients.pdf; `make pdf` calls this.

Chromium prints each page as it is, formulas and figures included, and pypdf binds them: a list of contents, a number
on each sheet, one bookmark for each page and its sections below, and links that lead to the sheet they mean. A link to
a page that is not bound leads to the published one.
"""

from __future__ import annotations

import html
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium, serve
from build_book import pages_in_order
from playwright.sync_api import Browser, PdfMargins
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject, NumberObject, TextStringObject

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "book" / "_scripts" / "repo"))
MARGIN: PdfMargins = {"top": "0.6in", "bottom": "0.6in", "left": "0.5in", "right": "0.5in"}
AUTHOR = "The authors of Spikes and Gradients"
CONTENTS = "Contents"
STYLE = "font: 13px sans-serif; color: #222"


class Printed(NamedTuple):
    """A page on A4; `sections` are its headings: level (2 or 3), text, and the sheet, 0 for the page's first."""

    title: str
    sections: list[tuple[int, str, int]]
    sheets: PdfReader


HEADINGS = """[...document.querySelectorAll('article h2, article h3')].map(heading => [Number(heading.tagName[1]),
  [...heading.childNodes].filter(node => !node.classList?.contains('headerlink')).map(n => n.textContent).join('')])"""


def print_page(browser: Browser, url: str) -> Printed:
    """Each page is printed from a tab of its own, since printing may not be undone."""
    with Tab(browser, 1000, 1400) as tab:
        tab.open(url)
        title = str(tab.run("document.querySelector('h1').firstChild.textContent")).strip()
        headings = [(level, " ".join(text.split())) for level, text in tab.run(HEADINGS)]
        printed = tab.page.pdf(format="A4", margin=MARGIN, scale=0.8, print_background=True, outline=True, tagged=True)
    sheets = PdfReader(io.BytesIO(printed))
    return Printed(title, _placed(headings, sheets), sheets)


def _placed(headings: Sequence[tuple[int, str]], sheets: PdfReader) -> list[tuple[int, str, int]]:
    """The headings with their sheets. Chromium knows the sheets, but garbles the texts: it drops spaces and doubles."""

    def flat(entries: Any) -> Iterator[tuple[str, int]]:
        for entry in entries:
            if isinstance(entry, list):
                yield from flat(entry)
            else:
                yield "".join(str(entry.title).split()), sheets.get_destination_page_number(entry) or 0

    known, found = list(flat(sheets.outline)), []
    for level, text in headings:
        wanted = "".join(text.split())
        place = next((i for i, (told, _) in enumerate(known) if told.startswith(wanted)), None)
        if place is not None:
            found.append((level, text, known[place][1]))
            del known[: place + 1]
    return found


def print_html(browser: Browser, text: str, margin: PdfMargins = MARGIN) -> PdfReader:
    """A document of our own on A4."""
    with Tab(browser, 1000, 1400) as tab:
        tab.page.set_content(f'<!doctype html><html lang="en"><body style="margin: 0; {STYLE}">{text}</body></html>')
        return PdfReader(io.BytesIO(tab.page.pdf(format="A4", margin=margin, print_background=False)))


def contents(listed: Sequence[tuple[str, str, int]], address: str) -> str:
    """The list of contents, from name, title and number of each page's first sheet; its links are for `relink`."""
    lines = "".join(
        f'<tr><td><a style="color: inherit" href="{address}/{name}.html">{html.escape(title)}</a></td>'
        f'<td style="text-align: right">{sheet}</td></tr>'
        for name, title, sheet in listed
    )
    return (
        f"<h1>Spikes and Gradients</h1><h2>{CONTENTS}</h2>"
        f'<table style="width: 100%; border-spacing: 0 6px; {STYLE}">{lines}</table>'
    )


def numbers(first: int, last: int) -> str:
    """Sheets with nothing but their number, to be laid over the printed ones."""
    sheet = '<div style="height: 100vh; position: relative; break-after: page">{}</div>'
    place = '<div style="position: absolute; bottom: 0.25in; width: 100%; text-align: center">{}</div>'
    return "".join(sheet.format(place.format(number)) for number in range(first, last + 1))


def make_pdf(browser: Browser, folder: Path, target: Path, names: list[str], published: str | None = None) -> int:
    """Bind these pages of the built book into `target`; return the number of sheets.

    `published` is where the pages are published, by default this repository's address. Raises FileNotFoundError if a
    page has not been built; then nothing is written.
    """
    missing = [name for name in names if not (folder / f"{name}.html").is_file()]
    if missing:
        raise FileNotFoundError(f"not built yet: {', '.join(missing)}; run make book first")
    if published is None:
        from address import pages_address

        published = pages_address(ROOT)
    with serve(folder) as address:
        printed = {name: print_page(browser, f"{address}/{name}.html") for name in names}
        # The list of contents is printed twice: how many sheets it takes decides the numbers in it.
        without = [(name, page.title, 0) for name, page in printed.items()]
        sheet, sheets = len(print_html(browser, contents(without, address)).pages), {}
        for name, page in printed.items():
            sheets[name] = sheet
            sheet += len(page.sheets.pages)
        listed = [(name, page.title, sheets[name] + 1) for name, page in printed.items()]
        book = PdfWriter()
        book.append(print_html(browser, contents(listed, address)), outline_item=CONTENTS, import_outline=False)
        for name, page in printed.items():
            book.append(page.sheets, import_outline=False)
            parents: dict[int, Any] = {1: book.add_outline_item(title=page.title, page_number=sheets[name])}
            for level, text, place in page.sections:
                above = parents.get(level - 1, parents[1])
                parents[level] = book.add_outline_item(title=text, page_number=sheets[name] + place, parent=above)
        number_sheets(browser, book)
        relink(book, address, sheets, published)
    book.add_metadata(
        {
            "/Title": "Spikes and Gradients",
            "/Subject": "Spiking neural networks from first principles",
            "/Author": AUTHOR,
        }
    )
    book.root_object[NameObject("/Lang")] = TextStringObject("en")
    unfinished = target.with_suffix(".part")
    book.write(unfinished)
    unfinished.replace(target)
    return len(book.pages)


def number_sheets(browser: Browser, book: PdfWriter) -> None:
    """A number at the foot of each sheet."""
    none: PdfMargins = {"top": "0", "bottom": "0", "left": "0", "right": "0"}
    overlay = print_html(browser, numbers(1, len(book.pages)), none)
    for page, number in zip(book.pages, overlay.pages, strict=False):
        page.merge_page(number)


def relink(book: PdfWriter, address: str, sheets: Mapping[str, int], published: str) -> None:
    """Turn links to the address that was printed from into links to sheets, or to the published pages."""
    for page in book.pages:
        for annotation in _annotations(page):
            action: Any = annotation.get("/A", DictionaryObject()).get_object()
            uri = str(action.get("/URI", ""))
            if not uri.startswith(f"{address}/"):
                continue
            place = urlparse(uri)
            name = unquote(place.path).lstrip("/").removesuffix(".html")
            if name in sheets:
                top = ArrayObject([book.pages[sheets[name]].indirect_reference, NameObject("/XYZ")])
                top.extend([NullObject(), NullObject(), NumberObject(0)])
                del annotation["/A"]
                annotation[NameObject("/Dest")] = top
            else:
                anchor = f"#{place.fragment}" if place.fragment else ""
                path = place.path.lstrip("/")
                action[NameObject("/URI")] = TextStringObject(f"{published}{path}{anchor}")


def _annotations(page: Any) -> Sequence[DictionaryObject]:
    return [each.get_object() for each in page.get("/Annots", [])]


if __name__ == "__main__":
    if find_chromium() is None:
        sys.exit(HOW_TO_GET_IT)
    path = ROOT / "_build" / "spikes-and-gradients.pdf"
    try:
        with chromium() as browser:
            sheets = make_pdf(browser, ROOT / "_build" / "html", path, pages_in_order())
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{sheets} sheets are in {path}")
