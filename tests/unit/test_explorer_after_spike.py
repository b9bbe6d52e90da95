"""The explorer of chapter 09: its script against the chapter's own helpers; its Python side."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters.after_spike import after_spike, after_spike_law, after_spike_window
from snn_chapters.explorers.after_spike import AfterSpikeExplorer

DELAYS = list(range(-15, 16))
BOTH = f"return [s.law({DELAYS}, c), s.measure({DELAYS}, c), s.handedOut(c)]"


run = script("after_spike_model.js")


def settings_of(explorer: AfterSpikeExplorer) -> dict[str, Any]:
    return {name: getattr(explorer, name) for name in explorer._settings}


def random_explorer(rng: random.Random) -> AfterSpikeExplorer:
    return AfterSpikeExplorer(
        late_current=rng.choice([0.0, rng.uniform(0, 2)]),
        strength=rng.uniform(0, 2),
        after_decay=rng.choice([0.0, rng.uniform(0, 0.98)]),
        trace=rng.choice(["followed", "taken as given"]),
        decay=rng.choice([0.0, 1.0, rng.random()]),
        amplitude=rng.uniform(0.1, 2),
    )


def test_law_signal_and_window_are_those_of_the_helpers_in_hundreds_of_random_settings(run: Run) -> None:
    rng = random.Random(0)
    explorers = [random_explorer(rng) for _ in range(300)]
    for k, (explorer, found) in enumerate(zip(explorers, run(BOTH, [settings_of(e) for e in explorers]))):
        law, measured, signals = found
        assert law == pytest.approx(after_spike_law(DELAYS, **explorer.window()).tolist(), rel=1e-9, abs=1e-9)
        assert measured == pytest.approx(law, rel=1e-9, abs=1e-9)
        spike = torch.zeros(61, dtype=torch.float64)
        spike[0] = explorer.amplitude
        current = torch.full_like(spike, explorer.late_current)
        wanted = after_spike(spike, current, explorer.after_decay, explorer.strength)
        assert signals == pytest.approx(wanted.tolist(), rel=1e-9, abs=1e-9)
        if k < 40:  # autograd, the slow way
            by_autograd = after_spike_window(DELAYS, **explorer.window()).tolist()
            assert measured == pytest.approx(by_autograd, rel=1e-9, abs=1e-9)


def test_what_the_chapter_answers_of_the_explorer_is_so(run: Run) -> None:
    start = settings_of(AfterSpikeExplorer())
    cases = [start, start | {"strength": 0.4}, start | {"strength": 0.4, "trace": "taken as given"}]
    (law, _, signals), (balanced, _, in_all), (given, _, _) = run(BOTH, cases)
    early = DELAYS.index(0)
    assert sum(signals) == pytest.approx(0.5, abs=1e-5) and law[early] == pytest.approx(0.5, abs=1e-5)
    assert sum(in_all) == pytest.approx(0, abs=1e-5)
    assert balanced[early:] == pytest.approx([0.0] * 16, abs=1e-5) and max(balanced[:early]) < 0
    assert given[early:] == pytest.approx([0.9**d for d in range(16)]) and given[:early] == balanced[:early]
    # Another size that sums to zero, as (1 - decay) / current says.
    for current, decay in ((1.0, 0.8), (0.5, 0.5), (2.0, 0.9)):
        case = start | {"late_current": current, "after_decay": decay, "strength": (1 - decay) / current}
        [(_, _, handed)] = run(BOTH, [case])
        assert sum(handed) == pytest.approx(0, abs=2 * decay**60)


def test_settings_are_traits_with_limits() -> None:
    explorer = AfterSpikeExplorer(strength=0.3)
    assert explorer._start["strength"] == 0.3 and explorer.window()["detach"] is False
    for name, wrong in (
        ("late_current", -0.1),
        ("strength", -1.0),
        ("after_decay", 0.99),
        ("trace", "detached"),
        ("decay", 1.1),
        ("amplitude", 0.0),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: current; the settings are late_current, strength"):
        AfterSpikeExplorer(current=0.5)
