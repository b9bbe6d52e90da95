"""Build the pages into _build/html; `make book` calls this.

Two faults of an incremental build are mended here. The cache of executed notebooks knows the
notebooks, but not the helpers, records and packages that they use: when those change, what they
decided is dropped (`inputs.py`). And a build that failed, or was stopped, leaves pages that the next
one would take for good: the next one then makes all pages again.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "repo"))

from address import pages_address
from inputs import State, notebook_keys, refresh

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
STRICT = ["-W", "-n", "--keep-going"]  # every warning and every broken reference fails the build


# Faults of the theme: what is found, and what it becomes. Names for screen readers that leave out what
# is seen; the scripts of a button that this book has not, loaded twice over, which is an error in itself.
MENDS = (
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch [^>]*?) title="[^"]*"', r"\1"),
    (r"\s*<script>const THEBE_JS_URL = [^<]*</script>", ""),
    (r"\s*<script [^>]*sphinx-thebe\.js[^>]*></script>", ""),
    # A wide table scrolls, so the keyboard must reach it; and a list of sources is not made of list items.
    (r'<table class="table">', '<table class="table" tabindex="0">'),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
    (r'<div class="citation"([^>]*?) role="doc-biblioentry"', r'<div class="citation"\1'),
    # Where a feed reader looks; the address is in the page's own canonical link.
    (
        r'(<link rel="canonical" href="(https://[^"]*?/)(?:book/)?[\w-]+\.html" */?>)(?!\s*<link rel="alternate")',
        r'\1\n<link rel="alternate" type="application/rss+xml" title="Changes" href="\2changes.xml" />',
    ),
)
# A widget whose output is left off the page leaves its state behind, and with it the explorers' script.
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LEFT_BEHIND = (
    r'\s*<script type="application/vnd\.jupyter\.widget-state\+json">.*?</script>',
    r'\s*<script src="[^"]*widgets/explorers\.js[^"]*"></script>',
)


# What a page may load and run: the site's own files, and of scripts in the page those that the build has seen.
# Explorers make modules of their text (blob:); styles stand in the pages all over, where drawings are.
POLICY = (
    "default-src 'none'; script-src 'self'{blob}{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"
)
POLICY_TAG = r'\n?<meta http-equiv="Content-Security-Policy"[^>]*>'
SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.S)


def hashed(script: str) -> str:
    digest = hashlib.sha256(script.replace("\r\n", "\n").encode()).digest()
    return f" 'sha256-{base64.b64encode(digest).decode()}'"


def handlers(page: str) -> set[str]:
    """What stands in the page's attributes such as onclick."""
    return {html.unescape(text) for text in re.findall(r'<[a-z][^>]*\son[a-z]+="([^"]*)"', page)}


def policy(page: str, allowed: set[str]) -> str:
    """The page's content security policy, which knows its inline scripts and the `allowed` handlers by their hashes."""
    data = r'src=|type="(?!text/javascript|module)'  # from a file; or of a type that is no kind of JavaScript
    inline = {hashed(text) for attributes, text in SCRIPT.findall(page) if not re.search(data, attributes)}
    hashes = "".join(sorted(inline))
    if allowed:
        hashes += " 'unsafe-hashes'" + "".join(sorted(map(hashed, allowed)))
    return POLICY.format(blob=" blob:" if WIDGET_VIEW in page else "", hashes=hashes)


def mend_pages(pages: Path) -> None:
    """Mend in each page what its theme does wrong, and give it its policy; a mended page stays as it is."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages.rglob("*.html")}
    all_mended = {}
    for page, mended in texts.items():
        for pattern, replacement in MENDS:
            mended = re.sub(pattern, replacement, mended)
        if WIDGET_VIEW not in mended:
            for pattern in LEFT_BEHIND:
                mended = re.sub(pattern, "", mended, flags=re.S)
        all_mended[page] = re.sub(POLICY_TAG, "", mended)
    # The search reads the other pages, so it meets their handlers too.
    allowed = set().union(*map(handlers, all_mended.values()))
    for page, mended in all_mended.items():
        tag = f'<meta http-equiv="Content-Security-Policy" content="{policy(mended, allowed)}">'
        mended = re.sub(r"(<meta charset[^>]*>)", rf"\1\n{tag}", mended, count=1)
        if mended != texts[page]:
            page.write_text(mended, encoding="utf-8")


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


def pages_in_order(root: Path = ROOT) -> list[str]:
    """The pages in the order of the table of contents, without their ending."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def machine() -> str:
    """What the notebooks ran on, in words."""
    import torch  # takes seconds, and only the end of a build asks

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU: all on the CPU"
    return (
        f"Run with Python {platform.python_version()} and torch {torch.__version__} on {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, {gpu}."
    )


def write_sitemap(pages: Path, address: str) -> None:
    """List every page for search engines."""
    tree = ET.Element("urlset", xmlns="http://www.sitemaps.org/schemas/sitemap/0.9")
    for page in sorted(pages.rglob("*.html")):
        name = page.relative_to(pages).as_posix()
        if not name.startswith("_") and name not in ("index.html", "search.html", "genindex.html"):
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


def finish_pages(pages: Path, root: Path = ROOT) -> None:
    """What the theme does not make: mended pages, a map of the site, a feed, and what the status page says."""
    mend_pages(pages)
    shrink_figures(pages)
    address = pages_address(root)
    write_sitemap(pages, address)
    changelog = root / "book" / "changelog.md"
    if changelog.exists():
        write_feed(pages, changelog.read_text(encoding="utf-8"), address)
    status = pages / "book" / "status.html"
    if status.exists():
        text = status.read_text(encoding="utf-8")
        line = f'<p id="build-machine">{html.escape(machine())}</p>'
        text = re.sub(r'<p id="build-machine">.*?</p>', lambda _: line, text, flags=re.S)
        # In words: not every machine has a picture for the tick, and a screen reader reads its name.
        status.write_text(text.replace("\u2705", "ran through"), encoding="utf-8")


def pages_key() -> str:
    """A fingerprint of what makes pages out of the notebooks and their outputs."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))).hexdigest()


def build(root: Path = ROOT) -> int:
    """Build the pages; return the exit status, 0 only if every page is whole and nothing warned."""
    built = root / "_build"
    before = State.read(root)
    if refresh(root) or not before.whole or before.pages != pages_key():
        for folder in ("html", ".doctrees", "jupyter_execute"):
            shutil.rmtree(built / folder, ignore_errors=True)
    # Until it has ended well. The outputs that are kept by then are good, and need not be made again.
    state = State(notebook_keys(root), pages_key(), whole=False)
    state.write(root)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    # The notebooks run in this environment, whatever kernels the user has elsewhere.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    environment.pop("MPLBACKEND", None)  # a user's own choice would leave the pages without figures
    status = subprocess.run([jupyter_book, "build", root, *STRICT], cwd=root, env=environment).returncode
    if status == 0:
        finish_pages(built / "html", root)
        replace(state, whole=True).write(root)
        print(f"The pages are in {built / 'html'}: type make serve, or open index.html there.")
    return status


if __name__ == "__main__":
    sys.exit(build())
