"""Light pages: what a first visit loads is what the page shows, and no more.

The theme brings all of Font Awesome twice over, styles for parts that the book has not, scripts that only the search
page needs, and everything before the first line is painted. Here the style sheets become one, without the rules for
classes that no page and no script names; fonts keep the glyphs that are used; scripts wait for the page; figures below
the first wait for the reader; and what explorers share, and what they carry in bytes, becomes files.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tinycss2
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from formulas import characters
from PIL import Image

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each table that it cuts
HERE = Path(__file__).resolve().parent
JOINED = "joined.css"
FORMULA_FONT = HERE / "fonts" / "formulas.woff"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]'
# Bytes of an explorer, in base64, and characters of a text, from which on they are a file of their own.
LARGE, LONG = 8_000, 2_000
# The line of a bundled script that ends what all explorers share, as `bundle` of `snn_helpers.widgets` writes it.
SEAM = "// --- what follows is one explorer's own ---\n"
# Scripts of the theme that a page has no use for, and the part of the page that would use them.
IDLE = {
    "scripts/fontawesome.js": None,  # the icons are in fonts
    "design-tabs.js": ".sd-tab-set",
    "searchtools.js": "#search-results",
    "language_data.js": "#search-results",
    "searchindex.js": "#search-results",
}


def mark(content: bytes) -> str:
    """A mark of the content for an address, so that what has changed is fetched again."""
    return hashlib.sha256(content).hexdigest()[:8]


def write(path: Path, content: bytes) -> str:
    """Write the file if it is not so already; its mark."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return mark(content)


# --- scripts, figures and explorers of one page ---------------------------------------------------


def lighten(page: BeautifulSoup, path: Path, root: Path) -> None:
    """Take from a page what it does not need, and let wait what can wait. Done twice, it changes nothing more."""
    _defer_scripts(page, path)
    _let_figures_wait(page, path)
    _move_out(page, path, root)


def _defer_scripts(page: BeautifulSoup, path: Path) -> None:
    for script in page.find_all("script", src=True):
        name = urlsplit(str(script["src"])).path
        for idle, part in IDLE.items():
            if name.endswith(f"/{idle}") or name == idle:
                if part is None or not page.select_one(part):
                    gone(script)
                break
    for script in page.find_all("script", src=True):
        source = str(script["src"])
        if "documentation_options.js" in source:
            # A few constants that the scripts in the page add to: in the page itself, they are there at once.
            text = (path.parent / unquote(urlsplit(source).path)).read_text(encoding="utf-8")
            script.attrs = {}
            script.string = " ".join(text.split())
        elif not script.has_attr("async"):
            script["defer"] = ""
    for link in page.find_all("link", attrs={"rel": "preload", "as": "script"}):
        gone(link)  # they would come before what is seen


def drop_space_before(tag: Tag) -> None:
    """Without it, white space is joined to what follows the tag when that is gone and the page is read again."""
    before = tag.previous_sibling
    if isinstance(before, NavigableString) and not before.strip():
        before.extract()


def gone(tag: Tag) -> None:
    """Take a tag out of its page."""
    drop_space_before(tag)
    tag.decompose()


def _let_figures_wait(page: BeautifulSoup, path: Path) -> None:
    """Figures have their size from the start, and all but the first come when they are near."""
    article = page.find("article")
    first = article.find("img") if isinstance(article, Tag) else None
    for image in page.find_all("img", src=True):
        if image is not first:
            image["loading"] = "lazy"
        image["decoding"] = "async"
        file = path.parent / unquote(urlsplit(str(image["src"])).path)
        sized = image.has_attr("width") or image.has_attr("height")
        if not sized and file.is_file() and (size := image_size(file)):
            image["width"], image["height"] = map(str, size)


def image_size(file: Path) -> tuple[int, int] | None:
    """How large a picture is, in pixels of a page."""
    if file.suffix != ".svg":
        with Image.open(file) as image:
            return image.size
    head = file.read_text(encoding="utf-8")[:4000]
    found = [re.search(rf'<svg\b[^>]*?\s{side}="([\d.]+)(pt|px|)"', head) for side in ("width", "height")]
    if found[0] and found[1]:
        width, height = (round(float(side[1]) * (4 / 3 if side[2] == "pt" else 1)) for side in found if side)
        return width, height
    return None


def _move_out(page: BeautifulSoup, path: Path, root: Path) -> None:
    """What is long in an explorer's state goes into scripts of their own, which also a page opened as a file may load.

    A file has the name of its content, so that pages and explorers share it. An explorer without large bytes is made
    at once: its files come with the page, and what its script has for itself stays there, for each file is a request
    that it would wait for. The files of others come when they are near.
    """
    up = posixpath.relpath(".", path.parent.relative_to(root).as_posix())
    shown = {json.loads(view.string or "{}").get("model_id") for view in page.select(WIDGET_VIEW)}

    def filed(text: str) -> str:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        line = f'(self.explorerFiles ??= {{}})["{name}"] = {json.dumps(text, ensure_ascii=False)};\n'
        write(root / "_static" / "widgets" / f"{name}.js", line.encode())
        return posixpath.join(up, f"_static/widgets/{name}.js")

    for script in page.find_all("script", type=WIDGET_STATE):
        state, moved = json.loads(script.string or "{}"), False
        at_once: dict[str, None] = {}
        for name, entry in state.get("state", {}).items():
            for buffer in entry.get("buffers", []):
                data = "".join(buffer.get("data", "").split())
                if buffer.get("encoding") == "base64" and len(data) > LARGE:
                    del buffer["data"]
                    buffer["file"], moved = filed(data), True
            waits = name not in shown or any("file" in buffer for buffer in entry.get("buffers", []))
            values, texts = entry.get("state", {}), entry.get("texts", {})
            for key in [key for key, text in values.items() if key not in texts and is_long(text)]:
                begin, rest = cut(values.pop(key))
                texts[key] = [filed(part) for part in ((begin, rest) if waits and rest else (begin,))]
                if rest and not waits:
                    values[key] = rest
                entry["texts"], moved = texts, True
            if not waits:
                at_once |= {file: None for files in texts.values() for file in files}
        if moved:
            script.string = json.dumps(state).replace("</", "<\\/")
            for file in at_once:
                script.insert_before(page.new_tag("script", attrs={"defer": "", "src": file}), "\n")


def is_long(value: object) -> bool:
    """Whether a value of a state is a text that does not belong into each page."""
    return isinstance(value, str) and len(value) > LONG


def cut(text: str) -> tuple[str, str]:
    """What many texts begin with, and the rest; the whole text, if it begins as no other does."""
    begin, seam, rest = text.partition(SEAM)
    return begin + seam, rest


def text_in(file: Path) -> str:
    """What a file holds that `lighten` has made: a text, or bytes in base64."""
    return str(json.loads(file.read_text(encoding="utf-8").split(" = ", 1)[1].rstrip(";\n")))


def _long_texts(page: BeautifulSoup, root: Path) -> Iterator[str]:
    """What the explorers of a page load: their style and their scripts, or what these begin with."""
    for script in page.find_all("script", type=WIDGET_STATE):
        for entry in json.loads(script.string or "{}").get("state", {}).values():
            for files in entry.get("texts", {}).values():
                yield from (text_in(root / "_static" / "widgets" / posixpath.basename(file)) for file in files)


# --- one style sheet and small fonts for all pages ------------------------------------------------


def join_styles(pages: Mapping[Path, BeautifulSoup], root: Path) -> None:
    """One style sheet for all pages, in the order of those that it stands for, and fonts with the glyphs in use.

    A page remembers which sheets they are, so that a build that writes only some of the pages joins the same.
    """
    known = words(pages.values(), root)
    texts: dict[tuple[str, ...], str] = {}
    letters = {letter for told in _formula_letters(pages.values()) for letter in told}
    for path, page in pages.items():
        links = page.find_all("link", rel="stylesheet")
        if not links:
            continue
        sheets = tuple(
            name
            for link in links
            for name in (str(link["data-joins"]).split() if link.has_attr("data-joins") else [_name(link, path, root)])
        )
        if sheets not in texts:
            texts[sheets] = with_small_fonts(
                "".join(read_sheet(root / name, root, known) for name in sheets), root, letters
            )
        name = JOINED if len(texts) == 1 else f"{len(texts)}-{JOINED}"
        version = write(root / "_static" / name, texts[sheets].encode())
        up = posixpath.relpath(".", path.parent.relative_to(root).as_posix())
        joined = page.new_tag("link", attrs={"rel": "stylesheet"})
        joined["href"] = posixpath.normpath(posixpath.join(up, "_static", name)) + f"?v={version}"
        joined["data-joins"] = " ".join(sheets)
        links[0].replace_with(joined)
        for link in links[1:]:
            gone(link)


def _name(link: Tag, path: Path, root: Path) -> str:
    file = (path.parent / unquote(urlsplit(str(link["href"])).path)).resolve()
    return file.relative_to(root.resolve()).as_posix()


def _formula_letters(pages: Iterable[BeautifulSoup]) -> Iterator[str]:
    for page in pages:
        for formula in page.find_all("math"):
            yield from characters(str(formula))
            if formula.find(["msqrt", "mroot"]):
                yield "√"  # a browser draws it, and no letter of the formula is it


def words(pages: Iterable[BeautifulSoup], root: Path) -> set[str]:
    """All that may be a class: those of the pages' elements, and every word in a script that a page loads or holds."""
    found: set[str] = set()
    scripts: set[Path] = set(root.glob("_static/*.js")) | set(root.glob("_static/scripts/*.js"))
    scripts |= set(root.glob("_static/widgets/explorers.js"))
    scripts = {script for script in scripts if not any(script.match(name) for name in IDLE if IDLE[name] is None)}
    texts = [script.read_text(encoding="utf-8") for script in sorted(scripts)]
    for page in pages:
        for tag in page.find_all(True):
            if value := tag.get("class"):
                found.update(str(value).split())
        texts += [script.string or "" for script in page.find_all("script", src=False)]
        texts += _long_texts(page, root)
    for text in texts:
        found.update(re.findall(r"[A-Za-z_][\w-]*", text))
    return found


def may_be(name: str, known: Collection[str]) -> bool:
    """Whether a class occurs; also as a beginning that a script adds to, such as `bs-tooltip-`."""
    return name in known or any(name[:end] in known for end in range(3, len(name)) if name[end - 1] == "-")


def needed(prelude: str, known: Collection[str]) -> bool:
    """Whether one of the selectors may find something."""
    text = re.sub(r'"[^"]*"|\'[^\']*\'|\[[^\]]*\]', "", prelude)
    while (inner := re.sub(r":[\w-]+\([^()]*\)", "", text)) != text:  # what is in :not() is not asked for
        text = inner
    for selector in text.split(","):
        if all(may_be(re.sub(r"\\", "", name), known) for name in re.findall(r"\.((?:[\w-]|\\.)+)", selector)):
            return True
    return False


def read_sheet(path: Path, root: Path, known: Collection[str]) -> str:
    """A style sheet without the rules for what no page has, its addresses seen from `_static`."""

    def kept(rules: Iterable[tinycss2.ast.Node]) -> Iterator[str]:
        for rule in rules:
            if rule.type == "comment":
                if rule.value.startswith("!"):  # a licence
                    yield rule.serialize()
            elif rule.type == "qualified-rule":
                if needed(tinycss2.serialize(rule.prelude), known):
                    yield rule.serialize()
            elif rule.type == "at-rule" and rule.lower_at_keyword == "import":
                target = next(token.value for token in rule.prelude if token.type in ("string", "url"))
                yield read_sheet((path.parent / target).resolve(), root, known)
            elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports") and rule.content:
                inner = "".join(kept(tinycss2.parse_rule_list(rule.content, skip_whitespace=True)))
                if inner:
                    yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}"
            elif not (rule.type == "at-rule" and rule.lower_at_keyword == "charset"):
                yield rule.serialize()

    parsed = tinycss2.parse_stylesheet(path.read_text(encoding="utf-8"), skip_whitespace=True)
    text = "\n".join(kept(parsed)) + "\n"
    folder = path.parent.resolve().relative_to((root / "_static").resolve()).as_posix()

    def rebased(found: re.Match[str]) -> str:
        quote, address = found[1], found[2]
        if re.match(r"data:|https?:|#|/", address):
            return found[0]
        return f"url({quote}{posixpath.normpath(posixpath.join(folder, address))}{quote})"

    return re.sub(r"""url\((["']?)([^"')]*)\1\)""", rebased, text)


def with_small_fonts(text: str, root: Path, letters: Collection[str]) -> str:
    """A style sheet with fonts cut to the glyphs in use: of icons those that it names, of formulas these letters."""
    icons = {letter for letter in text if "\ue000" <= letter <= "\uf8ff"}

    def cut(face: re.Match[str]) -> str:
        source = re.search(r"""url\("?([^)"]*vendor/fontawesome/[^)"]*\.ttf)"?\)""", face[0])
        if source is None:
            return face[0]
        name = f"{Path(source[1]).stem}.woff"
        version = subset(root / "_static" / source[1], root / "_static" / name, icons)
        if version is None:
            return ""
        return re.sub(r"src:[^;}]*", f'src:url({name}?v={version}) format("woff")', face[0])

    text = re.sub(r"@font-face\s*\{[^}]*\}", cut, text)
    if letters:
        version = subset(FORMULA_FONT, root / "_static" / "formulas.woff", letters)
        text = text.replace("url(formulas.woff)", f"url(formulas.woff?v={version})")
    return text


def subset(source: Path, target: Path, letters: Collection[str]) -> str | None:
    """Write a font with these letters alone, as far as it has them; its mark, or None if it has none of them."""
    font = TTFont(source, recalcTimestamp=False)
    if not (codes := {ord(letter) for letter in letters} & set(font.getBestCmap())):
        return None
    options = Options()
    options.hinting, options.glyph_names, options.recalc_timestamp = False, False, False
    options.name_IDs, options.layout_features = [0, 13, 14], []  # who made it, and the licence
    options.drop_tables += ["FFTM"]
    cutter = Subsetter(options)
    cutter.populate(unicodes=codes)
    cutter.subset(font)
    font.flavor = "woff"
    packed = io.BytesIO()
    font.save(packed)
    return write(target, packed.getvalue())
