"""The competition of chapter 5: its sums against brute force, its trains, and its verdicts turned each way."""

from __future__ import annotations

import math
import runpy
from typing import Any

import pytest
import torch
from notebooks import BOOK, code_cells, read

SIZES = {"n_sets": 3, "n_rounds": 3, "lead": 4, "seed": 3}
# What the competition rests on, in the order of the chapter.
CELLS = ("002", "003", "004", "004-spikes", "025", "027", "046-run", "067", "069", "069-rules-code", "069-compete")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that these cells of chapter 5 leave, at small sizes."""
    cells = {cell.id: cell.source for cell in code_cells(read(BOOK / "05_hebb_and_stdp.ipynb"))}
    small = "\n".join(f"{name} = {value}" for name, value in SIZES.items())
    parts = [cells[f"05-hebb-and-stdp-{name}"] for name in (*CELLS, "070-told")]
    parts.insert(CELLS.index("003") + 1, small)
    program = tmp_path_factory.mktemp("chapter") / "cells.py"
    program.write_text("\n\n".join(parts), encoding="utf-8")
    train = torch.ones(3, 1, 1)  # on which a cell tries its trace
    return runpy.run_path(str(program), init_globals={"cause": train})


def test_the_sums_are_those_over_all_pairs_of_spikes(chapter: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(5)
    pre = (torch.rand(30, 2, 40, generator=generator) < 0.2).double()
    post = (torch.rand(30, 3, 2, generator=generator) < 0.2).double()
    seen = chapter["sums"](pre, post)
    for rule, train, neuron in ((0, 0, 0), (2, 1, 39), (1, 0, 7)):
        pairs = [
            (late - early).item()
            for late in post[:, rule, train].nonzero().flatten()
            for early in pre[:, train, neuron].nonzero().flatten()
        ]
        first = sum(math.exp(-d / 16.8) for d in pairs if d > 0)
        expected = {
            "together": pairs.count(1),
            "pre_first": first,
            "post_first": sum(math.exp(d / 33.7) for d in pairs if d < 0),
            "either_order": first + sum(math.exp(d / 16.8) for d in pairs if d < 0),
            "by_rates": (post[:, rule, train].sum() / 30 * pre[:, train, neuron].sum() / 30).item(),
        }
        found = {name: seen[name][rule, train, neuron].item() for name in expected}
        assert found == pytest.approx(expected)
        assert seen["spikes"][rule, train, 0] == post[:, rule, train].sum()


def test_a_rule_that_counts_pairs_in_either_order_cannot_tell_a_recording_from_its_reverse(
    chapter: dict[str, Any],
) -> None:
    generator = torch.Generator().manual_seed(6)
    pre = (torch.rand(80, 2, 40, generator=generator) < 0.2).double()
    post = (torch.rand(80, 1, 2, generator=generator) < 0.2).double()
    forwards, backwards = chapter["sums"](pre, post), chapter["sums"](pre.flip(0), post.flip(0))
    torch.testing.assert_close(forwards["either_order"], backwards["either_order"])
    assert not torch.allclose(forwards["pre_first"], backwards["pre_first"])


def test_the_groups_are_as_often_active_and_as_often_together_as_the_chapter_says(
    chapter: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chapter, "n_sets", 1)
    chapter["generator"].manual_seed(1)
    n_steps, rate, lead = 40_000, 0.02, 4
    # Two that copy with probability 1/2 each share 1/4 of the train's spikes; else only what chance gives.
    shared, chance = 0.25 * rate + 0.75 * rate**2, rate**2

    def within(group: torch.Tensor) -> float:
        """How often two of a group fire in one step, in the mean over all twenty's pairs."""
        counts = group.sum(dim=1)
        return (counts * (counts - 1)).mean().item() / (20 * 19)

    def between(group: torch.Tensor, other: torch.Tensor) -> float:
        return (group.mean(dim=1) * other.mean(dim=1)).mean().item()

    for given, second in ((None, chance), (lead, shared)):
        spikes = chapter["grouped_inputs"](given, n_steps=n_steps)[:, 0]
        assert (spikes.mean(dim=0) - rate).abs().max() < 5 * math.sqrt(rate / n_steps)  # all at one rate
        leaders, followers = spikes[:, :20], spikes[:, 20:]
        assert within(leaders) == pytest.approx(shared, rel=0.15)
        assert within(followers) == pytest.approx(second, rel=0.15)
        assert between(leaders, followers) == pytest.approx(chance, rel=0.15)
        assert between(leaders, followers.roll(-lead, dims=0)) == pytest.approx(second, rel=0.15)


def test_the_sum_is_held_and_the_weights_stay_within_their_bounds(chapter: dict[str, Any]) -> None:
    weights = torch.rand(2, 40, dtype=torch.float64) + 0.01
    torch.testing.assert_close(chapter["hold"](weights).sum(dim=-1), torch.full((2,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(chapter["hold"](weights)[0] / weights[0], (4 / weights[0].sum()).expand(40))
    history = chapter["compete"](chapter["rules"])
    assert history.shape == (4, 5, 3, 40) and history.min() >= 0 and history.max() <= 0.2


def test_all_rules_read_the_same_trains_whatever_the_other_rules_do(chapter: dict[str, Any]) -> None:
    rules = chapter["rules"]
    together = chapter["compete"](rules, chapter["lead"])
    alone = chapter["compete"]({"STDP": rules["STDP"]}, chapter["lead"])
    torch.testing.assert_close(together[:, list(rules).index("STDP")], alone[:, 0])


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.05, 0.06, 0.05, 0.07], "yes"),
        ([0.001, -0.002, 0.0, 0.001], "no"),
        ([0.0, 0.0, 0.0], "no"),
        ([0.019, 0.022, 0.021, 0.018], "open"),  # about the margin
        ([0.2, 0.0, 0.1, -0.1], "open"),  # too wide to say
        ([-0.05, -0.06, -0.05, -0.07], "open"),  # the other way is neither
    ],
)
def test_the_verdict_turns_each_way(chapter: dict[str, Any], differences: list[float], verdict: str) -> None:
    assert chapter["told"](torch.tensor(differences, dtype=torch.float64), 1)[2] == verdict


def test_more_comparisons_widen_the_interval(chapter: dict[str, Any]) -> None:
    differences = torch.tensor([0.03, 0.05, 0.04, 0.045], dtype=torch.float64)
    assert chapter["told"](differences, 1)[2] == "yes"
    assert chapter["told"](differences, 100)[2] == "open"
