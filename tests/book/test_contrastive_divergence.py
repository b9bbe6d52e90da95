"""What chapter 14 says of its records: each of its words is turned by other figures."""

from __future__ import annotations

import ast
import copy
import runpy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from notebooks import BOOK, code_cells, read
from snn_chapters.boltzmann import START, best_untaught

from snn_helpers import records

CELLS = {cell.id: cell.source for cell in code_cells(read(BOOK / "14_contrastive_divergence.ipynb"))}
# What only reads records, in the order of the chapter.
READ = ("14-answer-figures", "14-small", "c11-053", "c11-056", "c11-075", "c11-076", "14-labels-told", "c11-080")
Change = Callable[[str, dict[str, Any]], None]


class WithoutAssertions(ast.NodeTransformer):
    """Assertions hold the prose around a cell to the records as they are: other figures must end there, not here."""

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.Pass()


def told(monkeypatch: pytest.MonkeyPatch, change: Change) -> dict[str, str]:
    """What each of these cells prints, with the rows of each record changed in place."""
    real = records.load_results

    def load(name: str) -> dict[str, Any]:
        record = copy.deepcopy(real(name))
        for row in record["trials"]:
            change(name, row)
        return record

    monkeypatch.setattr(records, "load_results", load)
    parts = [CELLS["c11-003"], "shown_by_cell = {}"]
    for name in READ:
        tree = ast.parse(CELLS[name])
        if isinstance(last := tree.body[-1], ast.Expr):
            tree.body[-1] = ast.parse(f"shown_by_cell[{name!r}] = {ast.unparse(last)}").body[0]
        parts.append(ast.unparse(WithoutAssertions().visit(tree)))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "cells.py"
        program.write_text("\n\n".join(parts), encoding="utf-8")
        return {name: shown.data for name, shown in runpy.run_path(str(program))["shown_by_cell"].items()}


def as_recorded(name: str, row: dict[str, Any]) -> None:
    pass


def moved(record: str, points: float, **of: Any) -> Change:
    """The accuracies of these rows, moved by this many points."""

    def change(name: str, row: dict[str, Any]) -> None:
        if name == record and of.items() <= (row | row["settings"]).items():
            row["accuracy"] += points / 100

    return change


def scattered(record: str, **of: Any) -> Change:
    """These rows' accuracies, from seed to seed up and down by 15 points: no seed tells what another says."""

    def change(name: str, row: dict[str, Any]) -> None:
        if name == record and all(row.get(key) == value for key, value in of.items()):
            row["accuracy"] += 0.15 if row["seed"] % 2 else -0.15

    return change


RIVALS = [{"arm": arm} for arm in ("pixels", "no free half", "covariance", "Oja")]
RIVALS += [best_untaught("accuracy"), {"arm": "random, as drawn", "scale": START}]


@pytest.mark.parametrize("rival", RIVALS, ids=str)
def test_the_answer_needs_each_rival_to_be_beaten(monkeypatch: pytest.MonkeyPatch, rival: dict[str, Any]) -> None:
    found = told(monkeypatch, moved("14_digits", 9, **rival))
    assert found["14-answer-figures"].startswith("**Not better") and "So the difference" not in found["c11-076"]


def test_the_answer_is_yes_as_recorded_and_open_where_seeds_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, as_recorded)
    assert found["14-answer-figures"].startswith("**Read from digits, yes") and "So the difference" in found["c11-076"]
    found = told(monkeypatch, scattered("14_digits", arm="pixels"))
    assert found["14-answer-figures"].startswith("**Not shown") and "So the difference" not in found["c11-076"]


def line_of(table: str, start: str) -> str:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start} |")]
    return line


def test_a_rival_is_worse_better_or_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for change, word in (
        (moved("14_digits", -9, arm="cd"), "better"),
        (moved("14_digits", 9, arm="cd"), "worse"),
        (scattered("14_digits", arm="cd"), "open"),
    ):
        with monkeypatch.context() as patch:
            assert f" {word} |" in line_of(told(patch, change)["c11-075"], "RBM, CD-1")


def test_the_lead_from_a_small_start_is_larger_smaller_or_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for change, word in (
        (moved("14_start", 0, arm="cd"), "CD-1 is larger"),
        (moved("14_start", 40, arm="cd"), "CD-1 is smaller"),
        (scattered("14_start", arm="cd"), "on the start is open"),
    ):
        with monkeypatch.context() as patch:
            assert word in told(patch, change)["c11-076"]


@pytest.mark.parametrize("n_labels", [100, 1000])
def test_each_start_with_labels_is_better_worse_or_open(monkeypatch: pytest.MonkeyPatch, n_labels: int) -> None:
    of = {"start": "pretrained", "n_labels": n_labels}
    for change, word in (
        (moved("14_labels", 20, **of), "20 of 20 | better"),
        (moved("14_labels", -20, **of), "0 of 20 | worse"),
        (scattered("14_labels", **of), "| open"),
    ):
        with monkeypatch.context() as patch:
            table = told(patch, change)["14-labels-told"]
        assert word in line_of(table, f"the start at random | {n_labels:,}")


def test_slow_cycles_help_harm_or_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for record, cell in (("14_digits", "against fast ones alone"), ("14_longer", "a difference of")):
        for change, word in (
            (moved(record, 9, arm="fast and slow"), "(better)"),
            (moved(record, -9, arm="fast and slow"), "(worse)"),
            (scattered(record, arm="fast and slow"), "(open)"),
        ):
            with monkeypatch.context() as patch:
                text = told(patch, change)["c11-080"]
            (line,) = [line for line in text.splitlines() if cell in line and "slow cycles alone" not in line]
            shown = line.split(" | ")[1] if record == "14_digits" else line.split("a difference of")[1]
            assert word in shown


def test_a_learner_is_nearer_farther_or_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def by(factor: Callable[[int], float]) -> Change:
        def change(name: str, row: dict[str, Any]) -> None:
            if name == "14_small" and row["learner"] == "CD-1":
                row["divergence"][-6:] = [value * factor(row["seed"]) for value in row["divergence"][-6:]]

        return change

    for change, word in (
        (by(lambda seed: 0.1), "(nearer)"),
        (by(lambda seed: 1.5), "(farther)"),
        (by(lambda seed: 0.2 if seed % 2 else 1.0), "(open)"),
    ):
        with monkeypatch.context() as patch:
            assert word in line_of(told(patch, change)["c11-053"], "CD-1").split(" | ")[2]


def test_the_memory_turns_the_update_or_not_or_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(cosines: tuple[float, float], scatter: float = 0.001) -> Change:
        def change(name: str, row: dict[str, Any]) -> None:
            if name == "14_small" and "moments" in row:
                found = row["moments"]["300"]["decay 0.5, rest 2"]
                for n_steps, cosine in zip(("60", "200"), cosines, strict=True):
                    found[n_steps][1] = cosine + scatter * (row["seed"] - 4.5)

        return change

    for change, words in (
        (slow((0.1, 0.1)), "memory and rest turn it, and longer halves do not help:"),
        (slow((1.5, 1.5)), "not shown that memory and rest turn it:"),
        (slow((0.1, 1.5)), "not shown that memory and rest turn it:"),
        (slow((0.9, 0.1), scatter=0.2), "is open:"),
    ):
        with monkeypatch.context() as patch:
            assert words in told(patch, change)["c11-056"]


def test_the_rhythm_with_memory_ends_farther_nearer_or_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def by(more: Callable[[int], float]) -> Change:
        def change(name: str, row: dict[str, Any]) -> None:
            if name == "14_small" and row["learner"] == "rhythm, decay 0.5, rest 2":
                row["divergence"][-6:] = [value + more(row["seed"]) for value in row["divergence"][-6:]]

        return change

    for change, words in (
        (by(lambda seed: 1.0), "rest the rhythm ends farther"),
        (by(lambda seed: -1.0), "rest the rhythm ends nearer"),
        (by(lambda seed: 1.0 if seed % 2 else -1.0), "rest where the rhythm ends is not told apart"),
    ):
        with monkeypatch.context() as patch:
            assert words in told(patch, change)["c11-053"]


def test_a_rule_without_a_free_half_has_learned_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for change, words in (
        (moved("14_digits", 9, arm="Oja"), "Oja's rule is shown"),
        (moved("14_digits", 9, arm="random, as drawn", scale=START), "none is shown"),
    ):
        with monkeypatch.context() as patch:
            assert words in told(patch, change)["c11-076"]
