"""Link each term of the glossary where a notebook first uses it.

    python book/_scripts/repo/glossary.py

A term is a heading of book/glossary.md; what is in brackets after it is another name for it.
The first use is the first in the notebook's prose, outside headings, tables, code, formulas and links.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

BOOK = Path(__file__).resolve().parents[2]
# What is no prose, in the order of looking: fenced code, formulas, code, links and pictures, headings, tables.
NO_PROSE = re.compile(
    r"```[\s\S]*?```|\$\$[\s\S]*?\$\$|\$(?:[^$\n]|\n(?!\s*\n))+\$|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|^#+ .*$|^\|.*$|<[^>]*>",
    re.M,
)

# What is not parted by the end of a line: words, and formulas and code with spaces in them.
WHOLE = re.compile(r"(?:\\.|\$\$[\s\S]*?\$\$|\$[^$]+\$|`[^`]+`|\S)+")
# What Markdown takes for a bullet, a number, a heading, a quote, a rule, a table or code where a line begins with it.
BLOCK_MARK = re.compile(r"[-+*] |\d+[.)] |#{1,6} |>|(?:-+|=+|\*{3,}|_{3,}) *$|\||```|~~~|\$\$|</?[a-zA-Z!]")
OTHER_BLOCK = re.compile(rf"\s*(?:{BLOCK_MARK.pattern})")


def anchor(heading: str) -> str:
    """The anchor that MyST and GitHub make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_terms(text: str) -> dict[str, str]:
    """Each name of each term in a glossary's text, and the anchor of its heading; the longest names first."""
    names = {}
    for heading in re.findall(r"^## (.+)$", text, re.M):
        term, _, others = heading.partition(" (")
        for name in (term, *others.rstrip(")").split(", ")):
            if name:
                names[name] = anchor(heading)
    return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def _pattern(name: str) -> str:
    if name.isupper():  # an abbreviation
        return rf"\b{name}s?\b"
    first = name[0]
    words = r"[\s-]+".join(re.escape(word) for word in re.split(r"[\s-]+", name[1:]))
    return rf"\b[{first.upper()}{first.lower()}]{words}(?:s|es)?\b"


def find_first_uses(source: str, names: dict[str, str], seen: set[str]) -> list[tuple[int, int, str]]:
    """Start, end and anchor of each first use in this text of a term that is not in `seen`, which is added to."""
    every = "|".join(f"(?P<t{i}>{_pattern(name)})" for i, name in enumerate(names))
    anchors = list(names.values())
    hidden = [match.span() for match in NO_PROSE.finditer(source)]
    for link in re.findall(r"\]\(glossary\.md#([\w-]+)\)", source):
        seen.add(link)
    found = []
    for match in re.finditer(every, source):
        term = anchors[int(str(match.lastgroup)[1:])]
        start, end = match.span()
        if term in seen or any(first < end and start < last for first, last in hidden):
            continue
        seen.add(term)
        while source[start - 1 : start] == "*" and source[end : end + 1] == "*":  # the emphasis goes into the link
            start, end = start - 1, end + 1
        found.append((start, end, term))
    return found


def _fill(text: str) -> str:
    """Fold the paragraphs that have a line of more than 120 characters, with the indent of their list item.

    Formulas and code stay whole, and a line begins with no mark that Markdown takes for a bullet, heading or quote.
    """
    lines = text.split("\n")
    out: list[str] = []
    i, fence = 0, ""  # fence: what closes the code or the formula that we are in
    while i < len(lines):
        line = lines[i]
        opens = re.match(r"\s*(```|~~~|\$\$)", line)
        if opens and (fence in ("", opens.group(1)) and line.count(opens.group(1)) % 2 == 1):
            fence = "" if fence else opens.group(1)
        elif fence and line.rstrip().endswith(fence):
            fence = ""
        elif not fence and not opens and len(line) > 120 and not line.startswith(("|", "#", "[Open in Colab]")):
            # The rest of the paragraph is folded again, so that no line stays half empty.
            start = re.match(r"\s*(?:[-*+] |\d+[.)] |> )?", line)
            assert start is not None
            hanging = "> " if line.startswith("> ") else " " * len(start.group())
            block = [line[len(start.group()) :]]
            while (
                i + 1 < len(lines)
                and re.match(rf"{hanging}\S", lines[i + 1])
                and not OTHER_BLOCK.match(lines[i + 1].removeprefix(hanging))
            ):
                i += 1
                block.append(lines[i].removeprefix(hanging))
            out += _fold(" ".join(block), start.group(), hanging)
            i += 1
            continue
        out.append(line)
        i += 1
    return "\n".join(out)


def _fold(paragraph: str, start: str, hanging: str) -> list[str]:
    rows: list[list[str]] = [[]]
    for word in WHOLE.findall(paragraph):
        if rows[-1] and len(hanging) + len(" ".join([*rows[-1], word])) > 120:
            first = [word]
            while BLOCK_MARK.match(first[0] + " ") and len(rows[-1]) > 1:
                first.insert(0, rows[-1].pop())  # a word before it begins the line
            rows.append(first)
        else:
            rows[-1].append(word)
    return [(hanging if k else start) + " ".join(row) for k, row in enumerate(rows)]


def link_terms(notebook: nbformat.NotebookNode, names: dict[str, str]) -> list[str]:
    """Link the first use of each term in this notebook, in place; return the anchors that were linked."""
    seen: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            seen.update(re.findall(r"\]\(glossary\.md#([\w-]+)\)", cell.source))
    linked = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        if cell.source.startswith("## Sources"):  # titles stay as they were printed
            break
        uses = find_first_uses(cell.source, names, seen)
        for start, end, term in reversed(uses):
            text = cell.source[start:end]
            cell.source = f"{cell.source[:start]}[{text}](glossary.md#{term}){cell.source[end:]}"
        if uses:
            cell.source = _fill(cell.source)
            linked += [term for *_, term in uses]
    return linked


def main() -> None:
    names = read_terms((BOOK / "glossary.md").read_text(encoding="utf-8"))
    for path in sorted(BOOK.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        linked = link_terms(notebook, names)
        if linked:
            nbformat.write(notebook, path)
            print(f"{path.name}: {', '.join(linked)}")


if __name__ == "__main__":
    main()
