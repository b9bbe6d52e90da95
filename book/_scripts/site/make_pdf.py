"""Print the built pages into one PDF, _build/spikes-and-gradients.pdf; `make pdf` calls this.

Chromium prints each page as it is, formulas and figures included, and pypdf binds them: one
bookmark for each page, its sections below.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium, serve
from build_book import pages_in_order
from playwright.sync_api import Browser, PdfMargins
from pypdf import PdfReader, PdfWriter

ROOT = Path(__file__).resolve().parents[3]


def print_page(browser: Browser, url: str) -> tuple[str, PdfReader]:
    """A page's title, and the page on A4; each is printed from a tab of its own, since printing may not be undone."""
    with Tab(browser, 1000, 1400) as tab:
        tab.open(url)
        title = str(tab.run("document.querySelector('h1').firstChild.textContent")).strip()
        margin: PdfMargins = {"top": "0.6in", "bottom": "0.6in", "left": "0.5in", "right": "0.5in"}
        printed = tab.page.pdf(format="A4", margin=margin, scale=0.8, print_background=True)
    return title, PdfReader(io.BytesIO(printed))


def make_pdf(browser: Browser, html: Path, target: Path, names: list[str]) -> int:
    """Bind these pages of the folder `html` into `target`; return the number of sheets.

    Raises FileNotFoundError if a page has not been built; then nothing is written.
    """
    missing = [name for name in names if not (html / f"{name}.html").is_file()]
    if missing:
        raise FileNotFoundError(f"not built yet: {', '.join(missing)}; run make book first")
    book = PdfWriter()
    with serve(html) as address:
        for name in names:
            title, page = print_page(browser, f"{address}/{name}.html")
            book.append(page, outline_item=title, import_outline=False)
    book.add_metadata({"/Title": "Spikes and Gradients", "/Subject": "Spiking neural networks from first principles"})
    unfinished = target.with_suffix(".part")
    book.write(unfinished)
    unfinished.replace(target)
    return len(book.pages)


if __name__ == "__main__":
    if find_chromium() is None:
        sys.exit(HOW_TO_GET_IT)
    path = ROOT / "_build" / "spikes-and-gradients.pdf"
    try:
        with chromium() as browser:
            sheets = make_pdf(browser, ROOT / "_build" / "html", path, pages_in_order())
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{sheets} pages are in {path}")
