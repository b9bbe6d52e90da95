"""Formulas as MathML: what TeX means by each is what browsers are told."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from formulas import BadFormulaError, characters, italic, mathml, parts
from light import FORMULA_FONT
from notebooks import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[2]


def read(tex: str, display: bool = False) -> ET.Element:
    return ET.fromstring(mathml(tex, display))


def texts(element: ET.Element) -> str:
    return "".join(element.itertext())


def book_formulas() -> list[tuple[str, str, bool]]:
    """Every formula in the book's texts, with where it is, and whether it has a line of its own."""
    found = []
    for path in [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
        found += [(path.stem, tex, True) for tex in re.findall(r"\$\$(.+?)\$\$", text, re.S)]
        text = re.sub(r"\$\$.+?\$\$", "", text, flags=re.S)
        found += [(path.stem, tex, False) for tex in re.findall(r"(?<![\\$])\$(?!\s)([^$]+?)(?<!\s)\$(?!\d)", text)]
    return found


def test_every_formula_of_the_book_is_read_whole_and_the_font_has_its_letters() -> None:
    formulas = book_formulas()
    assert len(formulas) > 400, "or this test looks at the wrong place"
    has = set(TTFont(FORMULA_FONT).getBestCmap())
    for name, tex, display in formulas:
        page = mathml(tex, display)
        shown = texts(ET.fromstring(page))
        # Whatever TeX calls by a name must not be shown as its name, nor lost.
        assert not re.search(r"[\\$&]", shown), (name, tex)
        assert shown.count("{") == tex.count(r"\{") + tex.count(r"\begin{cases}"), (name, tex)
        assert shown.count("}") == tex.count(r"\}"), (name, tex)
        assert shown.count("=") == re.sub(r"\\ne(?![a-z])", "", tex).count("="), (name, tex, shown)
        for digits in re.findall(r"\d+\.\d+", tex):
            assert digits in shown, (name, tex, shown)
        missing = {letter for letter in characters(page) if ord(letter) not in has}
        assert not missing, f"{name}: {tex} shows {missing}, which {FORMULA_FONT.name} has not"


@pytest.mark.parametrize(
    ("tex", "signs"),
    [
        ("-x", [True]),
        ("a - b", [False]),
        ("a = -b", [True]),
        ("(-b)", [True]),
        ("a(b) - c", [False]),
        ("a, -b", [True]),
        ("|a| - b", [False]),
        ("x' - y", [False]),
        (r"\text{late: } -a", [True]),
        (r"\text{softmax} - \text{label}", [False]),
        (r"\dots - b", [False]),
        (r"\frac{-1}{\ln\beta}", [True]),
        (r"\left(a\right) - 1", [False]),
        ("e^{-x} - 1", [True, False]),
    ],
)
def test_a_minus_is_a_sign_where_nothing_is_before_it(tex: str, signs: list[bool]) -> None:
    found = [each for each in read(tex).iter("mo") if each.text == "−"]
    assert [each.get("form") == "prefix" for each in found] == signs


def test_names_of_functions_have_the_spaces_of_tex() -> None:
    spaced = [each.tag for each in read(r"\tau \ln \beta")]
    assert spaced == ["mi", "mspace", "mi", "mspace", "mi"]
    assert [each.tag for each in read(r"\max(0, x)")][:2] == ["mi", "mo"]  # none towards a bracket
    assert texts(read(r"\frac{1}{\ln\beta}")) == "1lnβ"


def test_sums_have_limits_above_and_below_in_a_line_of_their_own_only() -> None:
    assert read(r"\sum_{i=1}^n x_i", display=True)[0].tag == "munderover"
    assert read(r"\sum_{i=1}^n x_i")[0].tag == "msubsup"
    brace = read(r"\underbrace{\prod_{u=s}^{t} \rho_u}_{\text{path}}", display=True)
    assert brace.find(".//munderover") is not None
    assert read(r"\frac{\sum_i x_i}{n}", display=True).find(".//munder") is None


@pytest.mark.parametrize("kind", [r"\mathrm{E}[x]", r"\Delta t", r"\text{pre}"])
def test_what_is_upright_in_tex_is_upright(kind: str) -> None:
    first = next(each for each in read(kind).iter() if each.text)
    assert first.tag == "mtext" or first.get("mathvariant") == "normal"


def test_primes_bars_and_thousands() -> None:
    assert read("v'").find("msup") is None and texts(read("v'_{t-1}")) == "v′t−1"
    assert [each.get("form") for each in read("N - |k|").iter("mo") if each.text == "|"] == ["prefix", "postfix"]
    (comma,) = [each for each in read("10{,}000").iter("mo") if each.text == ","]
    assert comma.get("rspace") == "0"
    assert texts(read(r"\mathbb{1}")) == "\U0001d7d9"
    assert texts(read(r"1 + \dots + n")) == "1+⋯+n" and texts(read(r"0, \dots, n")) == "0,…,n"


def test_cases_stand_left_under_one_brace() -> None:
    table = read(r"s = \begin{cases} 1 & v > \theta \\ 0 & \text{else.} \end{cases}", display=True)
    assert len(table.findall(".//mtr")) == 2 and len(table.findall(".//mtd")) == 4
    assert {cell.get("style") for cell in table.iter("mtd")} == {"text-align: left"}


@pytest.mark.parametrize(
    ("tex", "told"),
    [
        (r"\frac{1}{2", "cannot be read"),
        (r"\nosuchthing x", "is it spelled so"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "one formula for each line"),
        (r"\begin{matrix} 1 \end{matrix}", "other than cases"),
        (r"a \\ b", "one formula for each line"),
        ("", "cannot be read"),
    ],
)
def test_what_would_be_torn_is_refused_in_words(tex: str, told: str) -> None:
    with pytest.raises(BadFormulaError, match=told):
        mathml(tex)


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"a = b", ["a = b"]),
        (r"a = b, \qquad c = d", ["a = b,", "c = d"]),
        (r"a, \qquad\text{so} \qquad b", ["a,", r"\text{so}", "b"]),
        (r"\underbrace{a \qquad b}_{c} \qquad d", [r"\underbrace{a \qquad b}_{c}", "d"]),
        (r"\left( a \qquad b \right) \qquad d", [r"\left( a \qquad b \right)", "d"]),
        (r"\left\{ a \qquad b \right\} \qquad d", [r"\left\{ a \qquad b \right\}", "d"]),
        (r"k = \begin{cases} 1 \qquad 2 \end{cases}", [r"k = \begin{cases} 1 \qquad 2 \end{cases}"]),
        (r"\{a\} \qquad b", [r"\{a\}", "b"]),
        ("", [""]),
    ],
)
def test_what_is_set_apart_is_a_formula_of_its_own(tex: str, expected: list[str]) -> None:
    assert parts(tex) == expected


def test_italics_are_those_of_unicode() -> None:
    """Held to Unicode's own names."""
    import unicodedata

    for letter in "aAzZgβΓωΩ∂":
        name = unicodedata.name(italic(letter))
        plain = unicodedata.name(letter)
        if letter == "∂":
            assert name == "MATHEMATICAL ITALIC PARTIAL DIFFERENTIAL"
        else:
            size = "CAPITAL" if "CAPITAL" in plain else "SMALL"
            assert name == f"MATHEMATICAL ITALIC {size} {plain.split()[-1]}"
    assert unicodedata.name(italic("h")) == "PLANCK CONSTANT" and italic("1") == "1"
