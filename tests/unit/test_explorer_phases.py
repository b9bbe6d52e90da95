"""The explorer of chapter 14: its arithmetic, as it is shipped, against the chapter's; and its Python side."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from scripts import Run, script
from snn_chapters import boltzmann
from snn_chapters.boltzmann import Machine
from snn_chapters.explorers.phases import PhasesExplorer
from torch import Tensor

from snn_helpers.widgets import uniform

run = script("phases_model.js")


@pytest.fixture
def reseed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The chapter's neurons with the explorer's draws, from the first on."""
    stream = {"seed": 0, "drawn": 0}

    def bernoulli(probability: Tensor, generator: Any = None) -> Tensor:
        n = probability.numel()
        draws = uniform(stream["seed"], n, stream["drawn"]).view(probability.shape)
        stream["drawn"] += n
        return (draws < probability).to(probability.dtype)

    monkeypatch.setattr(boltzmann, "bernoulli", bernoulli)
    return lambda seed: stream.update(seed=seed, drawn=0)


def random_machine(rng: random.Random, n_visible: int = 6, n_hidden: int = 4) -> dict[str, Any]:
    scale = rng.choice([0.1, 1.0, 3.0])
    draw = lambda n: [rng.gauss(0, scale) for _ in range(n)]  # noqa: E731
    return {"weight": [draw(n_visible) for _ in range(n_hidden)], "visible": draw(n_visible), "hidden": draw(n_hidden)}


def as_machine(machine: dict[str, Any]) -> Machine:
    weight, *biases = (torch.tensor(machine[name], dtype=torch.float64) for name in ("weight", "visible", "hidden"))
    return Machine((weight,), tuple(biases))


def apart(found: dict[str, Any], expected: Machine) -> float:
    return (boltzmann.flat(as_machine(found)) - boltzmann.flat(expected)).abs().max().item()


def random_case(rng: random.Random) -> dict[str, Any]:
    n_visible, n_hidden = rng.randrange(2, 7), rng.randrange(1, 5)
    pictures = [[rng.randrange(2) for _ in range(n_visible)] for _ in range(rng.randrange(1, 5))]
    return {
        "machine": random_machine(rng, n_visible, n_hidden),
        "pictures": pictures,
        "rule": rng.choice(["two phases", "transition"]),
        "nCopies": len(pictures) * rng.randrange(1, 6),
        "nSteps": rng.randrange(1, 16),
        "decay": rng.choice([0.0, rng.random() * 0.95]),
        "rest": rng.choice([0, rng.randrange(1, 8)]),
        "seed": rng.randrange(10_000),
    }


def test_cycles_are_the_chapter_s(run: Run, reseed: Callable[[int], None]) -> None:
    rng = random.Random(0)
    cases = [random_case(rng) for _ in range(500)]
    body = (
        "const found = s.cycleOf(c.machine, c.pictures, c);"
        "return {...found, halves: found.halves.map((half) => half.map((layers) => layers.map((l) => Array.from(l))))}"
    )
    worst, fired = 0.0, 0
    for case, found in zip(cases, run(body, cases), strict=True):
        machine, pictures = as_machine(case["machine"]), torch.tensor(case["pictures"], dtype=torch.float64)
        crowd = pictures.repeat(case["nCopies"] // len(pictures), 1)
        neurons = (case["nSteps"], case["decay"], case["rest"])
        reseed(case["seed"])
        if case["rule"] == "transition":
            worst = max(worst, apart(found["gradient"], boltzmann.transition_cycle(machine, crowd, *neurons)))
            continue
        cycle = boltzmann.rhythm_cycle(machine, crowd, *neurons)
        worst = max(worst, apart(found["gradient"], cycle.gradient))
        for half, expected in zip(found["halves"], (cycle.data, cycle.free), strict=True):
            for level, left in enumerate(expected.steps_left):
                assert [moment[level] for moment in half] == left.flatten(1).tolist()
            fired += int(sum(spikes.sum() for spikes in expected.spikes))
        learning = case["nSteps"] - case["nSteps"] // 2
        for name, half in (("plus", cycle.data), ("minus", cycle.free)):
            counts = boltzmann.coincidences([on[-learning - 1 :] for on in half.on])
            worst = max(worst, apart(found[name], counts))
    print(f"largest difference {worst:.1e}; {fired} spikes")
    assert worst < 1e-12 and fired > 10_000


def test_exact_gradient_divergence_and_cosine_are_the_chapter_s(run: Run) -> None:
    rng = random.Random(1)
    pictures = boltzmann.five_pictures()
    cases = [{"machine": random_machine(rng), "pictures": pictures.tolist()} for _ in range(200)]
    body = (
        "const exact = s.exactGradient(c.machine, c.pictures), next = s.stepAlong(c.machine, exact, 0.7);"
        "return {exact, next, divergence: s.divergence(c.machine, c.pictures), cosine: s.cosine(exact, next)}"
    )
    worst = 0.0
    for case, found in zip(cases, run(body, cases), strict=True):
        machine = as_machine(case["machine"])
        exact = boltzmann.exact_gradient(machine, pictures)
        moved = boltzmann.step_along(machine, exact, 0.7)
        turned = F.cosine_similarity(exact.weights[0].flatten(), moved.weights[0].flatten(), dim=0).item()
        worst = max(
            worst,
            apart(found["exact"], exact),
            apart(found["next"], moved),
            abs(found["divergence"] - boltzmann.divergence(machine, pictures)),
            abs(found["cosine"] - turned),
        )
    assert worst < 1e-10


def test_the_transition_obeys_the_law(run: Run) -> None:
    """What pre x change of post adds up to: the end less the start, less what changes at once."""
    rng = random.Random(2)
    cases = [random_case(rng) | {"rule": "transition", "rest": 0, "nSteps": 1} for _ in range(50)]
    body = (
        "const f = s.cycleOf(c.machine, c.pictures, c);"
        "const half = f.halves[2].map((moment) => moment.map((layer) => Array.from(layer)));"
        "return [f.gradient.weight, f.plus.weight, f.minus.weight, half]"
    )
    for case, (change, plus, minus, half) in zip(cases, run(body, cases), strict=True):
        n = case["nCopies"]
        (v0, h0), (v1, h1) = ([torch.tensor(layer).double().clamp(max=1).view(n, -1) for layer in m] for m in half)
        end, start, found = (torch.tensor(part, dtype=torch.float64) for part in (plus, minus, change))
        torch.testing.assert_close(found, end - start - (h1 - h0).T @ (v1 - v0) / n)


def small_explorer(**settings: Any) -> PhasesExplorer:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return PhasesExplorer(draw(4, 6), 0.5 * draw(6), 0.5 * draw(4), boltzmann.five_pictures(), **settings)


def in_the_page(explorer: PhasesExplorer) -> dict[str, Any]:
    return {
        "machine": {"weight": explorer.weight, "visible": explorer.visible_bias, "hidden": explorer.hidden_bias},
        "pictures": explorer._pictures,
        "nCopies": explorer.n_copies * len(explorer._pictures),
        "nSteps": explorer.n_steps,
        **{name: getattr(explorer, name) for name in ("rule", "decay", "rest", "seed")},
    }


def test_what_the_chapter_answers_of_it_is_so(run: Run) -> None:
    """Slow neurons need long halves; ten updates bring the machine nearer; and the transition points the right way."""
    settings = [{"decay": 0.95, "rest": 15, "n_steps": 10}, {"decay": 0.95, "rest": 15, "n_steps": 60}, {}]
    cases = [in_the_page(small_explorer(**each, seed=seed)) for each in settings for seed in range(3)]
    body = (
        "const turn = (m) => s.cosine(s.cycleOf(m, c.pictures, c).gradient, s.exactGradient(m, c.pictures));"
        "const found = [turn(c.machine), s.divergence(c.machine, c.pictures)]; let m = c.machine;"
        "const draws = (k) => ({...c, seed: c.seed + 1000 * k});"
        "for (let k = 0; k < 10; k++) m = s.stepAlong(m, s.cycleOf(m, c.pictures, draws(k)).gradient, 1);"
        "return [...found, s.divergence(m, c.pictures)]"
    )
    short, long, quick = torch.tensor(run(body, cases), dtype=torch.float64).view(3, 3, 3)
    assert bool((short[:, 0] < long[:, 0] - 0.05).all()) and bool((quick[:, 0] > 0.9).all())
    way = {"rule": "transition", "decay": 0.9, "rest": 10, "n_steps": 30}
    turns = run(body, [in_the_page(small_explorer(**way, seed=seed)) for seed in range(3)])
    assert all(turn > 0.7 for turn, *_ in turns)
    assert bool((quick[:, 2] < quick[:, 1] - 0.5).all())


def test_machine_pictures_and_settings_are_checked() -> None:
    explorer = small_explorer(decay=np.float32(0.25), rule="transition")
    assert (explorer.decay, explorer.rule, explorer.updates) == (0.25, "transition", 0)
    assert set(explorer._start) == set(PhasesExplorer._settings) and explorer._start["weight"] == explorer.weight
    weight, visible, hidden = explorer.tensors()
    assert weight.tolist() == explorer.weight and visible.shape == (6,) and hidden.shape == (4,)
    for name, wrong in (
        ("rule", "cd"), ("decay", 1.0), ("rest", -1), ("n_steps", 0), ("picture", 0), ("learning_rate", -1.0),
        ("seed", -1), ("updates", -1), ("weight", [[float("nan")]]), ("n_copies", 0),
    ):  # fmt: skip
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    ok = (torch.zeros(4, 6), torch.zeros(6), torch.zeros(4), torch.zeros(5, 6))
    for place, part, words in (
        (0, torch.zeros(4), r"not \[4\], \[6\]"),
        (1, torch.zeros(5), r"6 visible and 4 hidden neurons .* not \[5, 4, 6\]"),
        (3, torch.zeros(5, 4), r"not \[6, 4, 4\]"),
        (3, torch.full((5, 6), 0.5), "0 and 1 only"),
    ):
        with pytest.raises(ValueError, match=words):
            PhasesExplorer(*(part if k == place else right for k, right in enumerate(ok)))
    with pytest.raises(ValueError, match="at most 10 visible neurons, not 11"):
        PhasesExplorer(torch.zeros(1, 11), torch.zeros(11), torch.zeros(1), torch.zeros(1, 11))
    with pytest.raises(ValueError, match="all of weight, visible_bias and hidden_bias"):
        PhasesExplorer(torch.zeros(4, 6))
    drawn = PhasesExplorer()
    assert drawn._pictures == boltzmann.five_pictures().tolist()
    assert [list(part.shape) for part in drawn.tensors()] == [[4, 6], [6], [4]]
    with pytest.raises(TypeError, match="unknown: leak"):
        small_explorer(leak=1.0)
