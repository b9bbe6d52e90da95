"""The explorer of chapter 07: its script, run as it is shipped, against the chapter's experiment; and its class."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters.explorers.nudge import N_STEPS, NudgeExplorer
from snn_chapters.perturbation import NoisyNeuron, autograd_window, perturbed_window
from torch import Tensor

from snn_helpers.neurons import RESETS, Neuron

run = script("nudge_model.js")


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Given(NoisyNeuron):
    """The chapter's neuron, under currents that are given, and nudged at one of their steps."""

    currents: Tensor
    at: int

    def trials(self, n_delays: int, n_trials: int, seed: int) -> tuple[Tensor, Tensor]:
        state = torch.zeros_like(self.currents[0])
        for current in self.currents[: self.at]:
            _, state = self.neuron.step(current, state)
        return state, self.currents[self.at :]


def given(settings: dict[str, Any], currents: Tensor, at: int) -> Given:
    neuron = Given(**settings)
    neuron.currents, neuron.at = currents, at
    return neuron


def random_cases(n: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {
            "neuron": {
                "decay": rng.choice([0.0, 0.9, rng.random()]),
                "threshold": rng.uniform(0.2, 2),
                "penalty": rng.choice([0.0, rng.uniform(0, 4)]),
                "reset": rng.choice(RESETS),
            },
            "trials": [[rng.gauss(0.3, 0.4) for _ in range(N_STEPS)] for _ in range(rng.randrange(2, 5))],
            "at": rng.randrange(N_STEPS),
            "size": rng.choice([0.01, 0.5, rng.uniform(0.001, 0.5)]),
        }
        for _ in range(n)
    ]


def totals(neuron: Neuron, currents: Tensor, at: int, size: float) -> Tensor:
    """The sum of all outputs in each trial."""
    state, total = torch.zeros_like(currents[0]), torch.zeros_like(currents[0])
    for t, current in enumerate(currents):
        output, state = neuron.step(current + (size if t == at else 0.0), state)
        total = total + output
    return total


BODY = """
return [s.bothWindows(c.trials, c.at, c.size, c.neuron),
  s.totalChanges(c.trials, c.at, [c.size, -c.size, 0], c.neuron)];
"""


def test_windows_and_totals_are_the_chapter_s_in_hundreds_of_random_settings(run: Run) -> None:
    cases = random_cases(300)
    worst, parted = 0.0, 0
    for case, (windows, changes) in zip(cases, run(BODY, cases)):
        currents, at, size = tensor(case["trials"]).T, case["at"], case["size"]
        chapter, n = given(case["neuron"], currents, at), N_STEPS - case["at"]
        by_autograd = autograd_window(chapter, n).mean
        free = perturbed_window(chapter, n, size=size).mean
        neuron = Neuron.of_numbers(**case["neuron"])
        before = totals(neuron, currents, at, 0.0)
        expected = [(totals(neuron, currents, at, each) - before).mean().item() for each in (size, -size, 0.0)]
        for ours, theirs in (
            (tensor(windows["autograd"]), by_autograd),
            (tensor(windows["measured"]), free),
            (tensor(changes), tensor(expected)),
        ):
            # A measured change is divided by the size, and its rounding with it.
            worst = max(worst, float((ours - theirs).abs().max()) * min(1.0, size))
        parted += bool((by_autograd - free).abs().max() > 1e-6)
        # Spikes held in place: an experiment finds what autograd says.
        held = perturbed_window(chapter, n, size=size, clamped=True).mean
        torch.testing.assert_close(tensor(windows["autograd"]), held, rtol=0, atol=1e-9)
    assert worst < 1e-9 and parted > 100


def test_while_no_spike_comes_or_goes_both_are_the_same(run: Run) -> None:
    body = """
    const spikes = [-c.size, 0, c.size].map((size) => c.trials.map((currents) =>
      s.runNudged(currents, c.at, size, c.neuron).outputs.map((output) => output > 0)));
    const same = spikes.every((each) => JSON.stringify(each) === JSON.stringify(spikes[1]));
    return [same, s.bothWindows(c.trials, c.at, c.size, c.neuron)];
    """
    cases, n_still = random_cases(300), 0
    for same, windows in run(body, cases):
        if same:
            n_still += 1
            torch.testing.assert_close(tensor(windows["autograd"]), tensor(windows["measured"]), rtol=0, atol=1e-9)
    assert n_still > 50


def test_the_currents_are_those_of_python(run: Run) -> None:
    rng, cases, expected = random.Random(1), [], []
    for _ in range(40):
        settings = {
            "mean": rng.random(),
            "noise": rng.random(),
            "seed": rng.randrange(1000),
            "trials": rng.randint(1, 9),
        }
        cases.append(settings)
        expected.append(NudgeExplorer(**settings).currents())
    for found, currents in zip(run("return s.noisyCurrents(c)", cases), expected):
        torch.testing.assert_close(tensor(found).T, currents, rtol=0, atol=1e-12)
    assert run("return s.N_STEPS", [0]) == [N_STEPS]
    draws = (NudgeExplorer(trials=200, seed=2, mean=0.0, noise=1.0).currents()).flatten()
    assert abs(draws.mean()) < 0.05 and abs(draws.std() - 1) < 0.03  # 8,000 draws
    assert abs((draws.abs() < 1.96).double().mean() - 0.95) < 0.012
    few, many = (NudgeExplorer(trials=trials).currents() for trials in (1, 7))
    assert torch.equal(few[:, 0], many[:, 0])  # more trials leave the first as it was


def test_what_the_chapter_answers_of_the_explorer_is_so() -> None:
    """At 0.1 the next spike comes a step earlier, and the sum falls where autograd says that it rises."""
    explorer = NudgeExplorer()
    currents, neuron = explorer.currents(), explorer.neuron

    def fired(size: float) -> list[int]:
        state, steps = torch.zeros(1, dtype=torch.float64), []
        for t, current in enumerate(currents):
            output, state = neuron.step(current + (size if t == explorer.at else 0.0), state)
            if output > 0:
                steps.append(t)
        return steps

    def change(size: float) -> float:
        return (totals(neuron, currents, 12, size) - totals(neuron, currents, 12, 0.0)).item()

    slider = [k * 0.005 for k in range(21)]
    assert explorer.at == 12 and explorer.size in slider
    still = fired(0.0)
    assert [size for size in slider if fired(size) != still] == [0.1]
    assert 14 in still and 13 not in still
    assert 13 in fired(0.1) and 14 not in fired(0.1)
    slope = autograd_window(given({}, currents.repeat(1, 2), 12), N_STEPS - 12).mean.sum().item()
    assert 0.6 < slope < 0.7
    assert all(abs(change(size) - slope * size) < 1e-9 for size in slider[:-1])
    assert -0.45 < change(0.1) < -0.35

    many = NudgeExplorer(trials=200).currents()
    real = (totals(neuron, many, 12, 0.2) - totals(neuron, many, 12, -0.2)).mean().item() / 0.4
    said = autograd_window(given({}, many, 12), N_STEPS - 12).mean.sum().item()
    assert said > 2.5 * real > 0


def test_settings_are_traits_with_limits() -> None:
    explorer = NudgeExplorer(penalty=0.5, reset="discharge")
    assert vars(explorer.neuron) == vars(Neuron.of_numbers(0.9, 1.0, 0.5, "discharge"))
    for name, wrong in (
        *(("size", 1.1), ("at", N_STEPS), ("at", -1), ("trials", 0), ("trials", 201), ("mean", 2.1), ("noise", -0.1)),
        *(("penalty", -0.1), ("reset", "soft"), ("seed", -1)),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
