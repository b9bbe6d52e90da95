"""The explorer of chapter 04: its script, run as it is shipped, against the chapter's statistics; and its class."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import traitlets
from scripts import Run, script
from snn_chapters.comparison import NETWORKS
from snn_chapters.explorers.rates import RatesExplorer
from snn_chapters.ledger import ALIKE

from snn_helpers.records import load_results
from snn_helpers.statistics import decide, decide_alike, mean_and_interval
from snn_helpers.tuning import choose, means, scores_of

RECORD = load_results("04_learning_rate")["trials"]
GRID = [m * 10.0**e for e in (-2, -1, 0) for m in (1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2)]


run = script("rates_model.js")


def invented(rng: random.Random) -> list[dict[str, Any]]:
    """Rows of two networks with rates of their own, some of one seed and some of three, in no order."""
    rows = []
    for network in ("spiking", "mlp"):
        for rate in rng.sample(GRID[5:25], rng.randrange(2, 12)):
            level = rng.uniform(0.87, 0.92)
            for seed in rng.choice([[5], [5, 6, 7], [5, 6, 7]]):
                row = {"network": network, "learning_rate": rate, "seed": seed}
                rows.append({**row, "settings": row, "test_accuracy": round(rng.gauss(level, 0.003), 4)})
    rng.shuffle(rows)
    return rows


COMPARE = """
const names = ["spiking", c.other], wanted = [c.spiking_rate, c.other_rate];
const scores = names.map((name) => s.scoresOf(c.rows, name));
const rates = scores.map((each, k) => s.nearestRate(s.gridOf(each, c.grid), wanted[k]));
const differences = s.pairedDifferences(...scores.map((each, k) => each.get(rates[k])), c.n_seeds);
const found = s.meanAndInterval(differences);
const able = scores.map((each) => [...each.values()].some((seeds) => seeds.size >= 3));
return [rates, differences, found, s.verdictOf(found), s.isAlike(found),
  scores.map((each, k) => (able[k] ? s.fairRate(each) : null)),
  scores.map((each) => [...each.keys()].map((rate) => [rate, s.meanScore(each, rate)]))];
"""
WORDS = {"holds": "ahead", "fails": "behind", "open": "open"}


def test_comparisons_are_the_chapter_s_in_hundreds_of_random_choices(run: Run) -> None:
    rng, cases, explorers = random.Random(0), [], []
    for k in range(500):
        rows = RECORD if k % 2 else invented(rng)
        settings = {
            "other": rng.choice(NETWORKS[1:]) if k % 2 else "mlp",
            "spiking_rate": rng.uniform(0.03, 2),
            "other_rate": rng.uniform(0.03, 2),
            "n_seeds": rng.randrange(1, 4),
            "grid": rng.choice(["fine", "coarse"]) if k % 2 else "fine",
        }
        explorers.append(RatesExplorer(rows, **settings))
        cases.append(settings | {"rows": explorers[-1]._rows})
    seen, n_fair = set(), 0
    for explorer, (rates, differences, found, verdict, alike, fair, mean_of) in zip(explorers, run(COMPARE, cases)):
        assert rates == list(explorer.rates())
        expected = explorer.differences()
        assert differences == pytest.approx(expected, abs=1e-9)
        if len(expected) == 1:
            assert found["half"] is None and verdict == "open" and not alike
        else:
            mean, half = mean_and_interval(expected)
            assert (found["mean"], found["half"]) == pytest.approx((mean, half), abs=1e-9)
            assert verdict == WORDS[decide(expected)]
            assert alike == (decide_alike(expected, ALIKE) == "holds")
        seen.add((verdict, alike))
        for name, fair_rate, of_network in zip(("spiking", explorer.other), fair, mean_of):
            scores = scores_of(explorer._trials, network=name)
            assert dict(map(tuple, of_network)) == pytest.approx(means(scores), abs=1e-12)
            try:
                assert fair_rate == choose(scores)
                n_fair += 1
            except ValueError:  # no fair choice can be made on such rows
                assert explorer._trials is not RECORD
    assert n_fair > 500 and {("ahead", False), ("behind", False), ("open", False), ("open", True)} <= seen
    assert run("return s.ALIKE", [0]) == [ALIKE]


def test_a_coarse_grid_holds_what_is_near_a_power_of_two(run: Run) -> None:
    rows = [["spiking", rate, 5, 0.9] for rate in (0.05, 0.06, 0.082, 0.15, 0.22, 0.27, 0.39, 0.6, 1.6)]
    [coarse, fine] = run("return s.gridOf(s.scoresOf(c[0], 'spiking'), c[1])", [[rows, "coarse"], [rows, "fine"]])
    assert coarse == [0.05, 0.082, 0.22, 0.39, 1.6] and fine == [row[1] for row in rows]
    nearest = "return s.nearestRate(c[0], c[1])"
    assert run(nearest, [[[0.1, 0.4], 0.19], [[0.1, 0.4], 0.21], [[0.1, 0.4], 0.2]]) == [0.1, 0.4, 0.1]


def test_the_factors_are_student_s(run: Run) -> None:
    for values in ([0.0, 2.0], [0.0, 1.0, 2.0]):  # a standard error of 1, and of 1 / sqrt(3)
        [found] = run("return s.meanAndInterval(c)", [values])
        assert found["half"] == pytest.approx(
            {2: 12.7062047362, 3: 4.30265272991 / math.sqrt(3)}[len(values)], abs=1e-9
        )


def test_what_the_chapter_answers_of_the_explorer_is_so() -> None:
    def told(spiking_rate: float, other_rate: float, n_seeds: int = 3) -> list[float]:
        chosen = RatesExplorer(RECORD, spiking_rate=spiking_rate, other_rate=other_rate, n_seeds=n_seeds)
        assert chosen.other == "mlp"
        return chosen.differences()

    assert RatesExplorer(RECORD).fair_rates() == (0.1, 0.27)
    fair = told(0.1, 0.27)
    assert decide(fair) == "open" and decide_alike(fair, ALIKE) == "holds"
    behind = told(0.08, 0.27)
    assert decide(behind) == "fails" and mean_and_interval(behind)[0] == pytest.approx(-0.72, abs=0.005)
    assert told(0.1, 0.33, n_seeds=1) == [pytest.approx(3.2, abs=0.05)]
    assert decide(told(0.1, 0.33)) == "open"
    coarse = RatesExplorer(RECORD, spiking_rate=0.1, other_rate=0.27, grid="coarse")
    assert coarse.rates()[0] == coarse.fair_rates()[0] and coarse.rates()[1] != coarse.fair_rates()[1]


def test_the_rows_are_small_and_those_of_the_record() -> None:
    explorer = RatesExplorer(RECORD)
    assert len(str(explorer._rows)) < 4000 and len(explorer._rows) == len(RECORD)
    assert explorer._others == [name for name in dict.fromkeys(row["network"] for row in RECORD) if name != "spiking"]
    assert set(explorer._others) == set(NETWORKS[1:])


def test_settings_are_traits_with_limits() -> None:
    explorer = RatesExplorer(RECORD)
    for name, wrong in (
        *(("other", "spiking"), ("spiking_rate", 0.0), ("other_rate", 11.0), ("n_seeds", 0), ("n_seeds", 4)),
        ("grid", "finest"),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    for rows in ([], [row for row in RECORD if row["network"] == "spiking"], RECORD[:0]):
        with pytest.raises(ValueError, match="must have the network 'spiking' and another one"):
            RatesExplorer(rows)
