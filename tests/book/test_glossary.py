"""The glossary: every term is linked where a chapter first uses it, and leads to sections that exist."""

from __future__ import annotations

import random
import re
from pathlib import Path

import nbformat
import pytest
from glossary import find_first_uses, link_terms, read_terms
from notebooks import NOTEBOOKS, as_myst_reads, heading_anchors, read

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

TEXT = (BOOK / "glossary.md").read_text(encoding="utf-8")
NAMES = read_terms(TEXT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_term_is_linked_where_it_is_first_used(path: Path) -> None:
    assert not link_terms(read(path), NAMES), "run book/_scripts/repo/glossary.py"
    for cell in read(path).cells:
        for term in re.findall(r"\]\(glossary\.md#([\w-]+)\)", cell.source):
            assert term in NAMES.values(), f"{path.name} links to {term}, which the glossary has not"


def test_each_entry_is_used_and_leads_to_sections_that_exist() -> None:
    linked = {term for path in NOTEBOOKS for term in re.findall(r"glossary\.md#([\w-]+)", path.read_text("utf-8"))}
    assert set(NAMES.values()) == linked
    entries = re.split(r"^## ", TEXT, flags=re.M)[1:]
    assert len(entries) == len(set(NAMES.values())) >= 45
    headings = [re.sub("[^a-z ]", "", entry.splitlines()[0].lower()) for entry in entries]
    assert headings == sorted(headings)
    for entry in entries:
        text = " ".join(entry.split())
        assert "Index: " in text, f"no section is named:\n{entry}"
        for target, place in re.findall(r"\]\(([\w.]+\.ipynb)#([\w-]+)\)", text):
            assert place in heading_anchors(BOOK / target), f"no section {target}#{place}"


def test_first_uses_skip_what_is_no_prose_and_prefer_the_longer_term() -> None:
    names = read_terms("## Decay\n## Weight decay (L2)\n## Recurrent neural network (RNN)\n")
    text = "# Decay\n`decay` $decay$ [decay](x.md)\n| decay |\nWeight\ndecays, an **RNN**, decay, decay"
    found = find_first_uses(text, names, set())
    assert [(text[start:end], term) for start, end, term in found] == [
        ("Weight\ndecays", "weight-decay-l2"),
        ("**RNN**", "recurrent-neural-network-rnn"),
        ("decay", "decay"),
    ]
    assert found[-1][0] == text.rindex(", decay, decay") + 2
    assert not find_first_uses("decay, L2 and RNNs", names, set(names.values()))


def test_linking_twice_changes_nothing_and_folds_long_lines() -> None:
    words = "word " * 22
    cell = nbformat.v4.new_markdown_cell(f"- {words}the decay\n  goes on\n- next")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    names = read_terms("## Decay\n")
    assert link_terms(notebook, names) == ["decay"]
    once = cell.source
    assert max(map(len, once.split("\n"))) <= 120 and once.endswith("goes on\n- next")
    assert (
        re.sub(r"\s+", " ", once).replace("[decay](glossary.md#decay)", "decay") == f"- {words}the decay goes on - next"
    )
    assert link_terms(notebook, names) == [] and cell.source == once


WORDS = [
    "a",
    "neuron",
    "fires",
    "**often**",
    "-",
    "+",
    "*",
    ">",
    "#",
    "##",
    "3.",
    "1)",
    "---",
    "=",
    "|",
    "`a - b`",
    "$x$",
]
FORMULAS = [r"$\max(0, v - \theta)$", "$a + b - c > d$", "$1. - x$", "$p = 0.5 * q$", "[a link to it](there.md)"]


def linked_in(text: str) -> str:
    """What the tool makes of a text that ends with a term, with the link taken out again."""
    cell = nbformat.v4.new_markdown_cell(text + "decay")
    assert link_terms(nbformat.v4.new_notebook(cells=[cell]), read_terms("## Decay\n")) == ["decay"]
    assert cell.source.endswith("[decay](glossary.md#decay)")
    return str(cell.source.replace("[decay](glossary.md#decay)", "decay"))


@pytest.mark.parametrize("start", ["", "- ", "> ", "12. ", "  "])
@pytest.mark.parametrize("seed", range(40))
def test_folded_text_reads_as_before(start: str, seed: int) -> None:
    """Held against a Markdown reader: the same blocks, the same words, and each formula on one line."""
    draw = random.Random(seed)
    text = f"{start}word {' '.join(draw.choice(WORDS + FORMULAS) for _ in range(120))} the "
    folded = linked_in(text)
    assert folded.count("\n") >= 3 and max(map(len, folded.split("\n"))) <= 120 + len("](glossary.md#decay)")
    assert as_myst_reads(folded) == as_myst_reads(text + "decay")
    for line in folded.split("\n")[1:]:
        begun = line.removeprefix("> ").strip()
        assert not re.match(r"[-+*>] |#+ |\d+[.)] |[-=]+$|>", begun), f"the line begins with a mark: {line!r}"
        assert line.count("$") % 2 == 0, f"a formula is broken: {line!r}"


def test_folding_leaves_code_and_displayed_formulas_alone() -> None:
    long = "x + y " * 30
    for block in (f"$$\n{long}\n$$", f"$${long}$$", f"$${long}\n  + z$$", f"```python\n{long}\n- {long}\n```"):
        assert linked_in(f"{block}\n\n{'word ' * 30}").startswith(block + "\n\nword")
        assert linked_in(f"{'word ' * 30}\n\n{block}\n\n").rstrip("decay").rstrip().endswith(block)


def test_folding_keeps_a_quote_and_what_follows_it() -> None:
    text = "> " + "word " * 30 + "\n> and on\n> - a bullet\n\nthe "
    assert as_myst_reads(linked_in(text)) == as_myst_reads(text + "decay")
    assert "> and" not in linked_in(text).replace("\n> and", "")


def test_a_term_within_a_formula_of_two_lines_is_no_prose() -> None:
    assert not find_first_uses("$a_{decay} +\nb_{decay}$", {"decay": "decay"}, set())
