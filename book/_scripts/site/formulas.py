"""Formulas as MathML, which browsers show by themselves: no page loads a script for them.

latex2mathml does most of it. What it leaves to guesses of the browser is said here: where a minus is a sign and where
an operation, how a name such as max is spaced, how the cases of a definition are aligned. What it gets wrong is
refused in words, so that no page shows a torn formula.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from latex2mathml.converter import convert

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
# What shows that a command or an environment was not understood: it is in the result, letter by letter.
TORN = re.compile(r"[\\&#$]|begin|end\{")
SIGNS = "+-\N{MINUS SIGN}±∓"
OPERATIONS = SIGNS + "×·⋅∘⊙∗*÷∩∪"
BETWEEN = OPERATIONS + "=≠<>≤≥≈∼~∝≪≫∈→←⟶↦⇒≡∣⊂"
KNOWN = "+\N{MINUS SIGN}=<>≤≥×·⋅≈∈→"  # with these spaces in all browsers
TIGHT = "./!"
SUMS, MARKS, SCRIPTS = ("∑", "∏"), "^ˆ¯‾~˜˙.→", ("msub", "msup", "msubsup", "munder", "mover", "munderover")
OPENING, CLOSING = tuple("([{⌊⌈⟨"), tuple(")]}⌋⌉⟩")
# TeX's spaces, as far as browsers have others of their own.
THIN, OPERATION, RELATION = "0.167em", "0.222em", "0.278em"
# Letters of other alphabets have places of their own in Unicode; `mathvariant` is no longer read.
DOUBLE_STRUCK = {"1": "\U0001d7d9", "0": "\U0001d7d8"}


class BadFormulaError(ValueError):
    """A formula that would not be shown as it is meant."""


def mathml(tex: str, display: bool = False) -> str:
    """The formula as a `<math>` element; `display`: on a line of its own.

    Raises BadFormulaError if it holds what would not be shown as it is meant.
    """
    asked = f"the formula {' '.join(tex.split())!r}"
    if re.search(r"\\begin\{(?!cases\})", tex):
        raise BadFormulaError(f"{asked} has an environment other than cases: write one formula for each line")
    braces = re.findall(r"(?<!\\)[{}]", tex)
    if braces.count("{") != braces.count("}"):
        raise BadFormulaError(
            f"{asked} cannot be read: it opens {braces.count('{')} braces, closes {braces.count('}')}"
        )
    # Upright letters: what the converter makes of \mathrm is shown in italics.
    tex = re.sub(r"\\(?:mathrm|operatorname)\{([A-Za-z ]+)\}", r"\\text{\1}", tex.strip())
    try:
        math = ET.fromstring(convert(tex, display="block" if display else "inline"))
    except Exception as error:  # it has errors of its own for each fault, and the parser has one
        raise BadFormulaError(f"{asked} cannot be read: {error or type(error).__name__}") from error
    for element in math.iter():
        element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        element.text = (element.text or "").strip() if element.tag != "mtext" else element.text
        if element.tag != "mtext" and TORN.search(element.text or ""):
            raise BadFormulaError(f"{asked} holds {element.text!r}, which is shown letter by letter: is it spelled so?")
        if element.get("linebreak"):
            raise BadFormulaError(f"{asked} breaks into lines: write one formula for each line")
    _mend(math, display, script=False)
    _flatten(math)
    return ET.tostring(math, encoding="unicode")


def parts(tex: str) -> list[str]:
    """What a formula sets apart by `\\qquad`, outside braces and environments; on a narrow screen each has a line."""
    found, depth = [""], 0
    for piece in re.split(r"(\\qquad(?![A-Za-z])|\\[{}]|\\(?:left|right)(?![A-Za-z])|\\(?:begin|end)\b|[{}])", tex):
        depth += piece in ("{", "\\left", "\\begin")
        depth -= piece in ("}", "\\right", "\\end")
        if piece == "\\qquad" and depth == 0:
            found.append("")
        else:
            found[-1] += piece
    return [part.strip() for part in found if part.strip()] or [tex]


def _mend(row: ET.Element, large: bool, script: bool) -> None:
    """Mend an element's children and theirs; `large`: sums have limits above and below, `script`: in an index."""
    for index, child in enumerate(list(row)):
        if child.tag == "mrow" and [each.text for each in child] == [","]:  # within a number, as in 10{,}000
            child[0].set("rspace", "0")
        elif child.tag in ("mo", "mi", "mn"):
            _mend_letter(row, child, script)
        elif child.tag == "mtd":
            if (side := child.attrib.pop("columnalign", "")) in ("left", "right"):
                child.set("style", f"text-align: {side}")
        elif child.tag == "mtable":
            for name in ("columnspacing", "rowspacing"):  # no browser reads them
                child.attrib.pop(name, None)
        elif large and child.tag in ("msub", "msup", "msubsup") and child[0].text in SUMS:
            child.tag = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}[child.tag]
        elif child.tag in ("msup", "msubsup") and (child[-1].text or "").strip() in ("′", "″"):
            # The font's prime is where it belongs, and raised once more it would be hard to see.
            prime, letter = child[-1], child[0]
            child.remove(prime)
            child.tag = "msub" if child.tag == "msubsup" else "mrow"
            prime.tag, prime.attrib = "mo", {"lspace": "0", "rspace": "0"}
            if child.tag == "msub":
                child[0] = ET.Element("mrow")
                child[0].extend([letter, prime])
            else:
                child.append(prime)
        elif child.tag == "munder" and child[1].text in ("⏟", "⏞"):  # as large as what it is under
            child.set("accentunder", "true")
        elif child.tag == "mover" and child[1].tag == "mo" and (child[1].text or " ") in MARKS:
            child.set("accent", "true")
        # The first part of an index or a brace is as large as the whole; what is in a fraction or a case is not.
        index_of = row.tag in SCRIPTS and index > 0
        still_large = large and not index_of and child.tag not in ("mfrac", "mtable", "mstyle")
        _mend(child, still_large, script or index_of)


def _mend_letter(row: ET.Element, child: ET.Element, script: bool) -> None:
    children, text = list(row), child.text or " "  # without a mark, as `\left.` is
    index = children.index(child)
    before = children[index - 1] if index else None
    after = children[index + 1] if index + 1 < len(children) else None
    in_row = row.tag in ("mrow", "math", "mstyle", "mtd")
    if child.get("mathvariant") == "double-struck":
        child.tag, child.text = "mi", DOUBLE_STRUCK.get(text, text)
        del child.attrib["mathvariant"]
    elif len(text) > 1 and text.isalpha():  # max, ln
        child.tag, child.attrib = "mi", {}
        if in_row:
            _space(row, child, before, after)
    elif child.tag == "mi" and "Α" <= text <= "Ω":  # upright, as TeX has them
        child.set("mathvariant", "normal")
    elif text in ("⟨", "⟩"):
        child.tag, child.attrib = "mo", {"form": "prefix" if text == "⟨" else "postfix", "stretchy": "false"}
    elif text in ("…", "⋯") or text in TIGHT:
        if text == "…" and before is not None and (before.text or " ") in BETWEEN:
            child.text = "⋯"
        child.tag, child.attrib = "mo", {"lspace": "0", "rspace": "0"}
    elif text == "|":  # the bars of a size, which open and close in turn
        opens = sum(each.text == "|" for each in children[:index]) % 2 == 0
        child.tag, child.attrib = "mo", {"form": "prefix" if opens else "postfix", "stretchy": "false"}
    elif child.get("minsize"):
        opens = sum(bool(each.get("minsize")) for each in children[:index]) % 2 == 0
        child.attrib |= {"stretchy": "true", "form": "prefix" if opens else "postfix"}
    elif text in BETWEEN:
        child.tag = "mo"
        if text in SIGNS and _starts_a_term(before):
            child.set("form", "prefix")
            child.attrib |= {"lspace": "0", "rspace": "0"}
        elif script:  # no room there
            child.attrib |= {"lspace": "0", "rspace": "0"}
        elif text not in KNOWN:
            space = OPERATION if text in OPERATIONS else RELATION
            child.attrib |= {"lspace": space, "rspace": space}


def _starts_a_term(before: ET.Element | None) -> bool:
    """Whether a sign after this is the sign of what follows, and no sum."""
    if before is None or before.tag == "mspace":
        return True
    if before.tag == "mtext":  # as in `late: -a`
        return (before.text or "").strip().endswith(":")
    return before.tag == "mo" and before.text not in (*CLOSING, "…", "⋯", "′") and before.get("form") != "postfix"


def _space(row: ET.Element, name: ET.Element, before: ET.Element | None, after: ET.Element | None) -> None:
    """TeX's spaces around max, ln and the like: none towards a bracket or an operator, a thin one towards a letter."""

    def letter(element: ET.Element | None) -> bool:
        if element is None or element.tag in ("mspace", "mtext", "mo") or element.text in OPENING:
            return False
        if len(element) and element[0].text in SUMS:
            return False
        return not (element.tag == "mrow" and len(element) and element[0].get("fence"))

    if letter(after):
        row.insert(list(row).index(name) + 1, ET.Element("mspace", width=THIN))
    closes = before is not None and before.tag == "mo" and before.text in CLOSING
    # A bracket that grows is a row of its own: `a ln(1 + b)`.
    between = before is not None and before.tag == "mi" and after is not None and after.tag == "mrow"
    if letter(before) or closes or between:
        row.insert(list(row).index(name), ET.Element("mspace", width=THIN))


def _flatten(math: ET.Element) -> None:
    """Without rows of one child, which say nothing."""

    def only(row: ET.Element) -> bool:
        return row.tag == "mrow" and len(row) == 1 and not row.attrib

    for parent in list(math.iter()):
        for index, child in enumerate(list(parent)):
            while only(child):
                child = child[0]
            parent[index] = child
    if len(math) == 1 and math[0].tag == "mrow":
        (row,) = math
        math.remove(row)
        math.extend(list(row))


def characters(page: str) -> Iterator[str]:
    """The characters of all formulas of a page, as a font needs them: a variable's letter is shown in italics."""
    for formula in re.findall(r"<math\b.*?</math>", page, re.S):
        for tag, text in re.findall(r"<(m[inos]|mtext)\b[^>]*>([^<]+)", formula):
            text = html.unescape(text).strip()
            yield from text
            if tag == "mi" and len(text) == 1:
                yield italic(text)


def italic(letter: str) -> str:
    """The letter as browsers show it in `<mi>`: MathML's table of italics, for the alphabets that it knows."""
    code = ord(letter)
    if letter == "h":
        return "\u210e"
    for first, last, start in (("A", "Z", 0x1D434), ("a", "z", 0x1D44E), ("Α", "Ω", 0x1D6E2), ("α", "ω", 0x1D6FC)):
        if ord(first) <= code <= ord(last):
            return chr(start + code - ord(first))
    return {"∂": "\U0001d715", "ϵ": "\U0001d716", "ϑ": "\U0001d717", "ϕ": "\U0001d719", "∇": "\U0001d6fb"}.get(
        letter, letter
    )
