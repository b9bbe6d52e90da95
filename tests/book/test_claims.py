"""The ledger of claims: every row has its verdict, its figure and a link that leads to a section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import papermill
import pytest
from notebooks import BOOK, heading_anchors, offline

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
    "negative gradient": "gradient can still be negative",
    "late input": "late input",
    "L2": "decay (L2)",
    "after-spike": "negative signal",
    "no RNN": "recurrent",
    "the delay": "delay of one step",
    "dead labels": "never fires never learns",
    "ensembles": "ensemble",
    "third layer": "third layer",
    "contrastive divergence": "contrastive divergence",
    "cycles of cycles": "Cycles of cycles",
    "rhythms": "Rhythms",
    "feedback": "recurrent network",
    "all-or-nothing spikes": "all or nothing",
}


def faults(row: list[str]) -> list[str]:
    """What is wrong with a row of cells: claim, verdict, figure, where it was decided."""
    if len(row) != 4:
        return [f"it has {len(row)} cells, not 4"]
    _, verdict, figure, where = row
    verdict, found = verdict.strip("*"), []
    if verdict not in VERDICTS:
        found.append(f"its verdict is {verdict!r}")
    if verdict == "open":
        return found if "chapter" in where else [*found, "it is open and does not say which chapter will decide"]
    if not re.search(r"\d", figure):
        found.append("it lacks a figure")
    link = re.fullmatch(r"\[[^\]]+\]\(([\w.]+\.ipynb)#([\w-]+)\)", where)
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
        ("| a | **open** | not yet | tomorrow |", "which chapter"),
    ],
)
def test_a_bad_row_is_noticed(row: str, words: str) -> None:
    (cells,) = table_rows("| h |\n| --- |\n" + row)
    assert any(words in fault for fault in faults(cells)), faults(cells)


def test_a_good_row_is_not() -> None:
    (cells,) = table_rows("| h |\n| --- |\n| a | **holds** | 3 % | [1](01_neuron_dynamics.ipynb#leak) |")
    assert faults(cells) == []


def test_every_claim_has_its_row_and_every_row_its_figure_and_link(
    passed_before: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with passed_before(Path(__file__), *sorted(BOOK.glob("*.ipynb"))) as known:
        if known:
            return
        for name, value in offline(tmp_path).items():
            monkeypatch.setenv(name, value)
        result = papermill.execute_notebook(
            str(BOOK / "claims.ipynb"), str(tmp_path / "out.ipynb"), cwd=str(BOOK), progress_bar=False
        )
        rows = [
            row
            for cell in result.cells
            for output in cell.get("outputs", [])
            for row in table_rows(output.get("data", {}).get("text/markdown", ""))
        ]
        wrong = {row[0]: faults(row) for row in rows if faults(row)}
        assert not wrong
        missing = [name for name, words in CLAIMED.items() if not any(words in row[0] for row in rows)]
        assert not missing, f"no row speaks of {missing}"
        undecided = [row[0] for row in rows if row[1].strip("*") == "open"]
        assert not undecided
