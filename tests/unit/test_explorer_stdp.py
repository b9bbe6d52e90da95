"""The explorer of chapter 05: its script, run as it is shipped, against `pair_stdp`; and its class."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters.explorers import stdp
from snn_chapters.explorers.stdp import STDPExplorer

from snn_helpers.plasticity import PAIRINGS, pair_stdp, spike_trace

run = script("stdp_model.js")


def random_rule(rng: random.Random) -> dict[str, Any]:
    return {
        "a_plus": rng.choice([0.0, rng.uniform(0, 1.5)]),
        "a_minus": rng.uniform(0, 1.5),
        "tau_plus": rng.uniform(2, 60),
        "tau_minus": rng.uniform(2, 60),
        "pairing": rng.choice(PAIRINGS),
    }


def random_cases(n: int) -> list[dict[str, Any]]:
    """Trains of every density, empty ones and graded ones too."""
    rng = random.Random(0)
    cases = []
    for _ in range(n):
        n_steps, rate = rng.randrange(1, 60), rng.choice([0.0, 0.05, 0.3, 1.0])
        graded = rng.random() < 0.5
        trains = [[(rng.random() if graded else 1.0) * (rng.random() < rate) for _ in range(n_steps)] for _ in range(2)]
        cases.append({"pre": trains[0], "post": trains[1], "rule": random_rule(rng)})
    return cases


def column(train: list[float]) -> torch.Tensor:
    return torch.tensor(train, dtype=torch.float64)[:, None, None]


def test_traces_and_pairs_are_the_rule_of_the_helpers_in_hundreds_of_random_settings(run: Run) -> None:
    cases = random_cases(600)
    body = """
    const pairs = s.stdpPairs(c.pre, c.post, c.rule);
    const traces = s.stdpByTraces(c.pre, c.post, c.rule);
    return [pairs.reduce((sum, p) => sum + p.change, 0), traces.weight, traces.left, traces.found];
    """
    n_changed, worst = 0, 0.0
    for case, (by_pairs, weight, left, found) in zip(cases, run(body, cases)):
        pre, post, rule = column(case["pre"]), column(case["post"]), case["rule"]
        expected = pair_stdp(pre, post, **rule).item()
        worst = max(worst, abs(by_pairs - expected), abs(weight[-1] - expected))
        half = len(pre) // 2  # the weight so far is that of the trains so far
        worst = max(worst, abs(weight[half] - pair_stdp(pre[: half + 1], post[: half + 1], **rule).item()))
        n_changed += expected != 0
        for k, (train, tau) in enumerate(((pre, rule["tau_plus"]), (post, rule["tau_minus"]))):
            fade = math.exp(-1 / tau)
            if rule["pairing"] == "all":
                trace = spike_trace(train.flatten(), fade)
            else:  # what is left of the last spike alone
                at = [max((s for s in range(t + 1) if train[s] > 0), default=-math.inf) for t in range(len(train))]
                trace = torch.tensor([fade ** (t - s) for t, s in enumerate(at)], dtype=torch.float64)
            before = fade * torch.cat([torch.zeros(1, dtype=torch.float64), trace[:-1]])
            for ours, theirs in ((left[k], trace), (found[k], before)):
                torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), theirs, rtol=0, atol=1e-9)
    assert worst < 1e-9 and n_changed > 300


def test_each_pair_is_told_with_its_steps(run: Run) -> None:
    rule = {"a_plus": 1, "a_minus": 1, "tau_plus": 10, "tau_minus": 10}
    pre, post = [1, 0, 1, 0, 0], [0, 1, 0, 0, 1]
    body = "return s.stdpPairs(c.pre, c.post, c.rule).map((p) => [p.tPre, p.tPost])"
    every, nearest = run(body, [{"pre": pre, "post": post, "rule": {**rule, "pairing": name}} for name in PAIRINGS])
    assert sorted(every) == [[0, 1], [0, 4], [2, 1], [2, 4]]
    assert sorted(nearest) == [[0, 1], [2, 1], [2, 4]]  # the post spike of step 4 does not see the pre spike of 0


def test_hebb_s_rule_is_the_product_of_the_rates_and_has_no_direction(run: Run) -> None:
    cases = random_cases(200)
    body = "return [s.hebb(c.pre, c.post), s.hebb(c.pre.slice().reverse(), c.post.slice().reverse()).at(-1)]"
    for case, (changes, backwards) in zip(cases, run(body, cases)):
        pre, post = (torch.tensor(case[name], dtype=torch.float64) for name in ("pre", "post"))
        n = len(pre)
        so_far = pre.cumsum(0) / n * post.cumsum(0) / n
        torch.testing.assert_close(torch.tensor(changes, dtype=torch.float64), so_far, rtol=0, atol=1e-12)
        assert abs(changes[-1] - (pre.mean() * post.mean()).item()) < 1e-12
        assert abs(backwards - changes[-1]) < 1e-12


def test_the_trains_are_those_of_python(run: Run) -> None:
    rng, cases, expected = random.Random(1), [], []
    for trains in ("pair", "pairings", "following", "unrelated"):
        for _ in range(60):
            settings = {
                "trains": trains,
                "delay": rng.randint(-stdp.MARGIN, stdp.MARGIN),
                "interval": rng.randint(1, 200),
                "rate": rng.uniform(0, 0.2),
                "seed": rng.randrange(1000),
            }
            cases.append(settings)
            expected.append(STDPExplorer(**settings).spikes())
    found = run("const r = s.stdpTrains(c); return [Array.from(r.pre), Array.from(r.post)]", cases)
    for (pre, post), (pre_here, post_here) in zip(found, expected):
        assert pre == pre_here.tolist() and post == post_here.tolist()
    [sizes] = run("return [s.N_PAIRINGS, s.MARGIN, s.N_RANDOM]", [0])
    assert sizes == [stdp.N_PAIRINGS, stdp.MARGIN, stdp.N_RANDOM]


def test_the_trains_are_what_their_names_say() -> None:
    pre, post = STDPExplorer(trains="pair", delay=-7).spikes()
    assert pre.sum() == post.sum() == 1 and int(post.argmax()) - int(pre.argmax()) == -7
    pre, post = STDPExplorer(trains="pairings", delay=60, interval=25).spikes()
    assert pre.nonzero().flatten().diff().unique().tolist() == [25]
    assert (post.nonzero() - pre.nonzero()).unique().tolist() == [60] and len(pre.nonzero()) == stdp.N_PAIRINGS
    pre, post = STDPExplorer(trains="following", delay=5, rate=0.1).spikes()
    assert torch.equal(post[5:], pre[:-5]) and post[:5].sum() == 0
    pre, post = STDPExplorer(trains="following", delay=-5, rate=0.1).spikes()
    assert torch.equal(post[:-5], pre[5:]) and post[-5:].sum() == 0
    pre, post = STDPExplorer(trains="unrelated", rate=0.1).spikes()
    assert 30 < pre.sum() < 90 and 30 < post.sum() < 90  # 60 expected; a standard deviation is 7.3
    assert abs(torch.corrcoef(torch.stack([pre, post]))[0, 1]) < 0.2


def change(explorer: STDPExplorer) -> float:
    pre, post = (train[:, None, None] for train in explorer.spikes())
    return pair_stdp(pre, post, **explorer.rule, pairing=explorer.pairing).item()


def test_what_the_chapter_answers_of_the_explorer_is_so() -> None:
    """Pre always comes first; close together, all pairs weaken, and nearest ones still strengthen."""
    intervals = [*range(15, 31), 40, 70, 100, 150]
    every, nearest = (
        [change(STDPExplorer(trains="pairings", interval=each, pairing=pairing)) for each in intervals]
        for pairing in PAIRINGS
    )
    assert [each for each, found in zip(intervals, every) if found < 0] == list(range(15, 22))
    assert every == sorted(every) and min(nearest) > 0


def test_settings_are_traits_with_limits() -> None:
    explorer = STDPExplorer(delay=-3, a_minus=0.4)
    assert explorer.rule == {"a_plus": 1.0, "a_minus": 0.4, "tau_plus": 16.8, "tau_minus": 33.7}
    for name, wrong in (
        *(("trains", "pears"), ("delay", 61), ("delay", -61), ("delay", 1.5), ("interval", 0), ("rate", 1.1)),
        *(("seed", -1), ("a_plus", -0.1), ("a_minus", -0.1), ("tau_plus", 0.0), ("tau_minus", math.nan)),
        ("pairing", "some"),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: tau; the settings are trains, delay"):
        STDPExplorer(tau=3)
