"""The explorer of chapter 12: its arithmetic, as it is shipped, against autograd; and its Python side."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters import binary
from snn_chapters.explorers.surrogate import SHAPES, SurrogateExplorer

from snn_helpers.neurons import RESETS
from snn_helpers.widgets import uniform

run = script("surrogate_model.js")


def random_settings(rng: random.Random) -> dict[str, Any]:
    return {
        "shape": rng.choice(SHAPES),
        "slope": 10 ** rng.uniform(-1, 1.7),
        "decay": rng.choice([0.0, 1.0, rng.random(), rng.random(), rng.random()]),
        "threshold": rng.uniform(0.2, 2),
        "penalty": rng.uniform(0, 3),
        "reset": rng.choice(RESETS),
        "strength": rng.uniform(0, 1),
        "flicker": rng.choice([0.0, rng.random(), 1.0]),
        "nudge": rng.uniform(0.01, 1),
        "seed": rng.randrange(1000),
        "n_steps": rng.randrange(1, 45),
    }


def by_the_chapter(case: dict[str, Any], current: torch.Tensor) -> torch.Tensor:
    """The spikes of the chapter's neuron, `[T, ...]` as `current`."""
    names = ("decay", "threshold", "penalty", "reset", "shape", "slope")
    state, spikes = torch.zeros_like(current[0]), []
    for each in current:
        spike, state = binary.binary_step(each, state, **{name: case[name] for name in names})
        spikes.append(spike)
    return torch.stack(spikes)


def test_everything_is_as_autograd_and_the_chapter_s_step_have_it(run: Run) -> None:
    rng = random.Random(0)
    cases = [random_settings(rng) for _ in range(600)]
    body = (
        "const found = s.runBinary(c.currents, c);"
        "return {spikes: found.spikes, gradient: s.spikeGradient(found, c), nudged: s.nudged(c.currents, c.nudge, c)}"
    )
    for case in cases:
        case["currents"] = SurrogateExplorer(**case).current().tolist()
    worst, fired, changed = 0.0, 0, 0
    for case, found in zip(cases, run(body, cases), strict=True):
        current = torch.tensor(case["currents"], dtype=torch.float64, requires_grad=True)
        spikes = by_the_chapter(case, current)
        assert found["spikes"] == spikes.tolist()
        (gradient,) = torch.autograd.grad(spikes.sum(), current)
        size = max(1.0, gradient.abs().max().item())  # a penalty above the threshold can blow it up
        worst = max(worst, (torch.tensor(found["gradient"], dtype=torch.float64) - gradient).abs().max().item() / size)
        n = len(current)
        raised = current.detach()[:, None] + case["nudge"] * torch.eye(n, dtype=torch.float64)
        change = by_the_chapter(case, raised).sum(dim=0) - spikes.detach().sum()
        assert found["nudged"] == change.tolist()
        fired += int(spikes.sum())
        changed += int((change != 0).sum())
    print(f"largest difference {worst:.1e}; {fired} spikes, {changed} nudges that changed something")
    assert worst < 1e-12 and fired > 1000 and changed > 1000


def test_shapes_are_the_chapter_s(run: Run) -> None:
    assert tuple(binary.SHAPES) == SHAPES
    distances = torch.linspace(-3, 3, 101, dtype=torch.float64)
    cases = [{"shape": shape, "slope": slope, "distances": distances.tolist()} for shape in SHAPES for slope in (1, 9)]
    for case, found in zip(cases, run("return c.distances.map((d) => s.surrogateSlope(d, c))", cases), strict=True):
        expected = binary.surrogate_slope(distances, case["shape"], case["slope"])
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=0, atol=1e-15)


def test_the_first_step_of_a_leaky_chain_by_hand(run: Run) -> None:
    """No spike, two steps: the first current reaches both charges, the second one's by the decay."""
    case = {"shape": "triangle", "slope": 1, "decay": 0.5, "threshold": 1, "penalty": 1.5, "reset": "zero"}
    [found] = run("return s.spikeGradient(s.runBinary([0.4, 0.4], c), c)", [case])
    assert found == pytest.approx([0.4 + 0.5 * 0.6, 0.6])


def test_what_the_chapter_answers_of_it_is_so(run: Run) -> None:
    """A neuron far below its threshold: three shapes give nothing back, at any step; and a nudge of 1 makes it fire."""
    explorer = SurrogateExplorer(strength=0.04, nudge=1.0)
    settings = explorer._start | {"currents": explorer.current().tolist()}
    assert settings["slope"] == 3.0
    body = (
        "const found = s.runBinary(c.currents, c);"
        "return [found.count, s.spikeGradient(found, c), s.nudged(c.currents, c.nudge, c)]"
    )
    cases = [settings | {"shape": shape} for shape in SHAPES]
    for shape, (count, gradient, change) in zip(SHAPES, run(body, cases), strict=True):
        assert count == 0 and set(change) == {1}
        if shape in ("triangle", "rectangle", "none"):
            assert set(gradient) == {0}
        else:
            assert min(gradient) > 0


def test_settings_are_traits_with_limits() -> None:
    explorer = SurrogateExplorer(shape="triangle", slope=np.float32(2), seed=np.int64(3))
    assert (explorer.shape, explorer.slope, explorer.seed) == ("triangle", 2.0, 3)
    assert explorer._start["shape"] == "triangle" and set(explorer._start) == set(SurrogateExplorer._settings)
    explorer.flicker, explorer.strength = 0.5, 0.4
    torch.testing.assert_close(explorer.current(), 0.4 * (0.5 + uniform(3, 40)))
    for name, wrong in (
        ("shape", "step"), ("slope", 0.0), ("decay", 1.1), ("threshold", 0.0), ("penalty", -1.0), ("reset", "soft"),
        ("strength", -0.1), ("flicker", 2.0), ("nudge", 0.0), ("seed", -1), ("n_steps", 0),
    ):  # fmt: skip
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: slopes; the settings are shape, slope"):
        SurrogateExplorer(slopes=1.0)
