"""The explorer of chapter 08: its script against autograd and the chapter's own helpers; its Python side."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters.credit import mean_change
from snn_chapters.explorers.many_spikes import ManySpikesExplorer

from snn_helpers import neuron_step
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import input_credit, pair_weights, window_law

REACH = 10


run = script("many_spikes_model.js")


def as_case(explorer: ManySpikesExplorer) -> dict[str, Any]:
    """What the page's script reads of the explorer."""
    return {name: getattr(explorer, name) for name in explorer._settings} | {"nSteps": 60, "reach": REACH}


def random_explorer(rng: random.Random) -> ManySpikesExplorer:
    return ManySpikesExplorer(
        rate=rng.uniform(0.02, 0.3),
        wanted=rng.choice([0.0, 0.5, 1.0, rng.random()]),
        weigh=rng.choice(["all alike", "times its error"]),
        trials=rng.randrange(1, 6),
        decay=rng.choice([0.0, 1.0, rng.random(), rng.uniform(0.7, 1)]),
        threshold=rng.uniform(0.1, 3),
        penalty=rng.uniform(0, 3),
        reset=rng.choice(RESETS),
        seed=rng.randrange(1000),
    )


def by_counting(explorer: ManySpikesExplorer) -> list[float]:
    """The mean over all pairs, one by one, of what each pulse earns by all spikes: in plain Python."""
    inputs, outputs, slopes, _ = explorer.factors()
    pulses, errors = inputs.sum(dim=2).tolist(), explorer.drawn()[1].tolist()
    fired, steps = (outputs[..., 0] > 0).tolist(), slopes[..., 0].tolist()
    totals, counts = [0.0] * (2 * REACH + 1), [0.0] * (2 * REACH + 1)
    for b in range(explorer.trials):
        spikes = [t for t in range(60) if fired[t][b]]
        earned = [0.0] * 60
        for s in range(60):
            left, t = 1.0, s
            while t < 60:
                earned[s] += left * errors[t][b] * fired[t][b]
                left *= explorer.decay * steps[t][b]
                t += 1
        for t in spikes:
            weight = errors[t][b] if explorer.weigh == "times its error" else 1.0
            for s in range(max(0, t - REACH), min(60, t + REACH + 1)):
                totals[REACH + t - s] += weight * pulses[s][b] * earned[s]
                counts[REACH + t - s] += pulses[s][b]
    return [total / count if count else 0.0 for total, count in zip(totals, counts)]


def test_windows_are_those_of_the_chapter_s_helpers_in_hundreds_of_random_settings(run: Run) -> None:
    rng = random.Random(0)
    explorers = [random_explorer(rng) for _ in range(300)]
    n_fired = 0
    for explorer, found in zip(explorers, run("return s.windowAmongMany(c)", [as_case(e) for e in explorers])):
        inputs, outputs, slopes, signals = explorer.factors()
        fired = (outputs > 0).double()
        left = [
            (weights.sum() / fired.sum().clamp(min=1)).item()
            for weights in pair_weights(fired, slopes, explorer.decay, REACH + 1)
        ]
        assert found["left"] == pytest.approx(left, rel=1e-9, abs=1e-9)
        assert found["rate"] == pytest.approx(fired.mean().item(), abs=1e-12)
        n_fired += int(fired.sum())
        if explorer.weigh == "all alike":
            change = mean_change(-input_credit(signals, slopes, explorer.decay), fired, inputs, REACH)
            assert found["change"] == pytest.approx(change, rel=1e-9, abs=1e-9)
    assert n_fired > 5000


def test_windows_are_those_that_counting_finds(run: Run) -> None:
    rng = random.Random(1)
    explorers = [random_explorer(rng) for _ in range(40)]
    for explorer, found in zip(explorers, run("return s.windowAmongMany(c)", [as_case(e) for e in explorers])):
        assert found["change"] == pytest.approx(by_counting(explorer), rel=1e-9, abs=1e-9)


def test_what_a_pulse_earns_is_autograd_s_derivative(run: Run) -> None:
    rng = random.Random(2)
    explorers = [random_explorer(rng) for _ in range(60)]
    body = "const r = s.trial(1, c); return [[...r.states], [...r.outputs], [...r.earned]]"
    for explorer, (states, outputs, earned) in zip(explorers, run(body, [as_case(e) for e in explorers])):
        explorer.trials = max(2, explorer.trials)
        pulses, errors = (part[:, 1] for part in explorer.drawn())
        settings = (explorer.decay, explorer.threshold, explorer.penalty, explorer.reset)
        more = torch.zeros(60, dtype=torch.float64, requires_grad=True)  # a little more of a pulse at each step
        state, value = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for t in range(60):
            output, state = neuron_step(0.25 * pulses[t].sum() + more[t], state, *settings)
            assert outputs[t] == pytest.approx(output.item(), abs=1e-9)
            assert states[t] == pytest.approx(state.item(), abs=1e-9)
            value = value + errors[t] * output
        (by_autograd,) = torch.autograd.grad(value, more)
        assert earned == pytest.approx(by_autograd.tolist(), rel=1e-9, abs=1e-9)


def test_around_a_single_spike_it_is_the_window_of_chapter_6(run: Run) -> None:
    """A neuron that rests for long fires once: what its only spike pays is the law of one spike."""
    n_single = 0
    explorer = ManySpikesExplorer(rate=0.02, trials=1, threshold=1.9, penalty=15.0, decay=0.95)
    for found in run("return s.windowAmongMany(c)", [as_case(explorer) | {"seed": seed} for seed in range(60)]):
        if found["fired"] != 1:
            continue
        n_single += 1
        law = window_law(range(-REACH, REACH + 1), decay=0.95).tolist()
        for change, pairs, wanted in zip(found["change"], found["pairs"], law):
            assert change == pytest.approx(wanted if pairs else 0.0, abs=1e-12)
    assert n_single > 5


def test_what_the_chapter_answers_of_the_explorer_is_so(run: Run) -> None:
    start, seeds = as_case(ManySpikesExplorer()), range(5)

    def sides(**settings: Any) -> list[tuple[float, float]]:
        """The mean changes at the delays 0 to 3, and at -4 to -1, a pair for each seed."""
        changes = run("return s.windowAmongMany(c).change", [start | settings | {"seed": seed} for seed in seeds])
        return [(sum(c[REACH : REACH + 4]) / 4, sum(c[REACH - 4 : REACH]) / 4) for c in changes]

    assert all(0.6 < before < 0.8 and 0.4 < after < 0.6 for before, after in sides())
    assert all(-0.8 < before < -0.6 and -0.6 < after < -0.4 for before, after in sides(wanted=0.0))
    assert all(abs(before) < 0.1 and abs(after) < 0.1 for before, after in sides(wanted=0.5))
    assert all(before > 0.7 and abs(after) < 0.1 for before, after in sides(wanted=0.5, weigh="times its error"))
    weighed = [start | {"seed": seed, "wanted": 0.5, "weigh": "times its error"} for seed in seeds]
    for found in run("return s.windowAmongMany(c)", weighed):  # the dots come near the dotted line
        assert all(abs(change - left) < 0.2 for change, left in zip(found["change"][REACH:], found["left"]))


def test_settings_are_traits_with_limits() -> None:
    explorer = ManySpikesExplorer(rate=0.1)
    assert explorer._start["rate"] == 0.1 and explorer._start["trials"] == 100
    for name, wrong in (
        ("rate", 1.1),
        ("wanted", -0.1),
        ("weigh", "by size"),
        ("trials", 0),
        ("trials", 2.5),
        ("decay", 1.1),
        ("threshold", 0.0),
        ("penalty", -1.0),
        ("reset", "soft"),
        ("seed", -1),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: share; the settings are rate, wanted"):
        ManySpikesExplorer(share=0.5)
    pulses, errors = explorer.drawn()
    assert pulses.shape == (60, 100, 20) and errors.shape == (60, 100)
    assert set(errors.unique().tolist()) == {1.0} and abs(pulses.mean() - 0.1) < 0.01
