"""The ledger of claims: every row has its verdict, its figure and a link that leads to a section."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from notebooks import BOOK, as_built, heading_anchors

VERDICTS = {"holds", "holds if", "fails", "open"}

# What the article claims, each told by words that its row must contain.
CLAIMED = {
    "equal accuracy": "about as well",
    "slightly better": "slightly better",
    "slower": "more time to train",
    "regulariser": "regulariser",
    "exponentially less credit": "exponentially less credit",
    "the reset cuts credit": "reset cuts",
    "Hebbian": "Hebbian",
    "negative gradient": "gradient can be negative",
    "the integral": "integral of the spike",
    "earlier": "fire before their target",
    "the time axis": "time axis",
    "the first time": "first time",
    "gradually": "gradually",
    "a layer of another": "layer inside any other",
    "tinkering": "vary a lot",
    "more spikes": "more spikes for each label",
    "the read-out": "average of the output neurons",
    "ReLU": "ReLU",
    "late input": "late input",
    "L2": "decay (L2)",
    "after-spike": "negative signal",
    "no RNN": "recurrent",
    "the delay": "delay of one step",
    "dead labels": "never fires never learns",
    "ensembles": "ensemble",
    "third layer": "third layer",
    "contrastive divergence": "contrastive divergence",
    "before a goal": "before there is a goal",
    "cycles of cycles": "Cycles of cycles",
    "rhythms": "Rhythms",
    "feedback": "outputs back to its inputs",
    "all-or-nothing spikes": "all or nothing",
}


def faults(row: list[str]) -> list[str]:
    """What is wrong with a row of cells: claim, verdict, figure, where it was decided."""
    if len(row) != 4:
        return [f"it has {len(row)} cells, not 4"]
    _, verdict, figure, where = row
    named = re.match(r"\*\*([^*]+)\*\*", verdict)
    verdict, found = named[1] if named else verdict, []
    if verdict not in VERDICTS:
        found.append(f"its verdict is {verdict!r}")
    if not re.search(r"\d", figure):
        found.append("it lacks a figure")
    link = re.fullmatch(r"\[[^\]]+\]\((\w+\.(?:ipynb|md))#([\w-]+)\)", where)
    if link is None:
        found.append("it lacks a link to a section")
    elif not (BOOK / link[1]).exists() or link[2] not in heading_anchors(BOOK / link[1]):
        found.append(f"its link leads nowhere: {link[0]}")
    return found


def table_rows(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("| a | **holds** | none | [1](01_neuron_dynamics.ipynb#leak) |", "lacks a figure"),
        ("| a | **holds** | 3 % | 1, Leak |", "lacks a link"),
        ("| a | **fails** | 3 % | [1](01_neuron_dynamics.ipynb#nowhere) |", "leads nowhere"),
        ("| a | **true** | 3 % | [1](01_neuron_dynamics.ipynb#leak) |", "verdict"),
        ("| a | **open** | | tomorrow |", "cells"),
        ("| a | **open** | not yet | [1](01_neuron_dynamics.ipynb#leak) |", "lacks a figure"),
    ],
)
def test_a_bad_row_is_noticed(row: str, words: str) -> None:
    (cells,) = table_rows("| h |\n| --- |\n" + row)
    assert any(words in fault for fault in faults(cells)), faults(cells)


def test_a_good_row_is_not() -> None:
    (cells,) = table_rows("| h |\n| --- |\n| a | **holds** | 3 % | [1](01_neuron_dynamics.ipynb#leak) |")
    assert faults(cells) == []


def test_every_claim_has_its_row_and_every_row_its_figure_and_link(built_pages: Callable[[], Path]) -> None:
    result = as_built(built_pages(), BOOK / "claims.ipynb")
    tables = [
        table
        for cell in result.cells
        for output in cell.get("outputs", [])
        if (table := output.get("data", {}).get("text/markdown", "")).startswith("| ")
    ]
    laws = [row for table in tables if "by construction" in table.splitlines()[0] for row in table_rows(table)]
    rows = [row for table in tables if "| verdict |" in table.splitlines()[0] for row in table_rows(table)]
    assert laws and len(rows) > 25
    # A law has no verdict; else it needs what a row needs: a figure and a link.
    wrong = {row[0]: faults(row) for row in rows if faults(row)}
    for law in laws:
        found = faults([law[0], "**holds**", *law[2:]]) if len(law) == 4 else [f"it has {len(law)} cells, not 4"]
        wrong |= {law[0]: found} if found else {}
    assert not wrong
    missing = [name for name, words in CLAIMED.items() if not any(words in row[0] for row in rows + laws)]
    assert not missing, f"no row speaks of {missing}"
