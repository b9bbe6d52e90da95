"""The window drawn by any library's neuron, held against neurons written out here and against finite differences."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from snn_chapters import libraries
from snn_chapters.libraries import DECAY, DELAYS, DESCRIBED, EARLIER, Cell, Described, clamped_window, library_cell
from torch import Tensor

from snn_helpers import Neuron
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import window_law

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.loads((ROOT / "book/results/06_libraries.json").read_text())["trials"]


def zeros(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def itself(state: Tensor) -> Tensor:
    return state


# --- The experiment, on neurons whose window is known ------------------------------------------------


@pytest.mark.parametrize("reset", RESETS)
def test_the_books_own_neuron_draws_the_books_own_window(reset: str) -> None:
    """The positive control: graded spikes, whose derivative above the threshold is 1."""
    for decay, penalty in ((DECAY, 1.5), (0.5, 0.3)):
        cell = Cell(Neuron(decay, 1.0, penalty, reset).step, zeros, itself)
        for earlier in ((), (6,), (1, 5, 9)):
            found = clamped_window(cell, DELAYS, earlier, above=0.7, rest=0.2)
            law = window_law(DELAYS, earlier, decay, 1.0, penalty, reset)
            torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), law, rtol=1e-10, atol=0)


class Spike(torch.autograd.Function):
    """A step forward; backward a derivative that belongs to no library: exp(-|x|)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Any:
        return error * torch.exp(-ctx.saved_tensors[0].abs())


def surrogate(x: float) -> float:
    return math.exp(-abs(x))


def own_cell(told: Described) -> Cell:
    """The neuron that `told` describes, written out plainly."""

    def step(current: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        voltage, flowing = state
        flowing = flowing + current
        charge = DECAY * voltage + told.gain * flowing
        spike: Tensor = Spike.apply(charge - 1)
        gate = spike.detach() if told.detached else spike
        after = charge - gate if told.reset == "subtract" else (1 - gate) * charge
        return spike, State(after, told.synapse * flowing)

    return Cell(step, lambda shape: State(zeros(shape), zeros(shape)), lambda state: state.v, told.gain, told.synapse)


class State(tuple[Tensor, Tensor]):
    def __new__(cls, v: Tensor, i: Tensor) -> State:
        return super().__new__(cls, (v, i))

    @property
    def v(self) -> Tensor:
        return self[0]


KINDS = [
    Described("none", "none", reset, detached, surrogate, gain, synapse)
    for reset in ("subtract", "zero")
    for detached in (True, False)
    for gain, synapse in ((1.0, 0.0), (0.1, 0.0), (0.25, 0.6))
]


def kind(told: Described) -> str:
    """A name that is the same in every process: that of a function would hold its address."""
    return f"{told.reset}, {'detached' if told.detached else 'followed'}, gain {told.gain:g}, synapse {told.synapse:g}"


def by_differences(told: Described, delay: int, earlier: tuple[int, ...], above: float, rest: float) -> float:
    """The same derivative in plain numbers, with no autograd.

    Each gate is replaced by the straight line that the surrogate says it is at the charge that the clamp imposes.
    """
    last = max(delay, *earlier, 0)
    held = [1 + above if ago == 0 or ago in earlier else rest for ago in range(last, -1, -1)]

    def answer(weight: float) -> float:
        voltage, flowing = 0.0, 0.0
        clamped_voltage, clamped_flowing = 0.0, 0.0
        spike = 0.0
        for ago, level in zip(range(last, -1, -1), held):
            clamp = (level - DECAY * clamped_voltage) / told.gain - clamped_flowing
            clamped_flowing += clamp
            flowing += clamp + (weight if ago == delay else 0.0)
            charge = DECAY * voltage + told.gain * flowing
            fired = float(level > 1)
            spike = fired + surrogate(level - 1) * (charge - level)
            gate = fired if told.detached else spike
            voltage = charge - gate if told.reset == "subtract" else charge - gate * charge
            clamped_voltage = level - fired if told.reset == "subtract" else level - fired * level
            flowing, clamped_flowing = told.synapse * flowing, told.synapse * clamped_flowing
        return spike

    return (answer(1e-5) - answer(-1e-5)) / 2e-5


@pytest.mark.parametrize("told", KINDS, ids=kind)
def test_the_law_and_the_experiment_against_finite_differences(told: Described) -> None:
    draw = random.Random(kind(told))
    for _ in range(6):
        above, rest = draw.uniform(0.05, 1), draw.uniform(-0.5, 0.9)
        earlier = tuple(draw.sample(range(1, 10), draw.randrange(3)))
        delays = [0, *draw.sample(range(1, 12), 3)]
        expected = [by_differences(told, delay, earlier, above, rest) for delay in delays]
        assert told.window(delays, earlier, above, rest) == pytest.approx(expected, rel=1e-6, abs=1e-8)
        assert clamped_window(own_cell(told), delays, earlier, above, rest) == pytest.approx(
            expected, rel=1e-6, abs=1e-8
        )


@pytest.mark.parametrize("told", KINDS, ids=kind)
def test_nothing_reaches_back_in_time(told: Described) -> None:
    found = clamped_window(own_cell(told), [-5, -1, 0], (2,), 0.3, 0.1)
    assert found[:2] == [0, 0] and found[2] != 0
    assert told.window([-5, -1], (2,), 0.3, 0.1) == [0, 0]


@pytest.mark.parametrize("told", KINDS, ids=kind)
def test_another_neurons_law_is_not_found(told: Described) -> None:
    """What would say so if a library were described wrongly."""
    found = clamped_window(own_cell(told), DELAYS, (EARLIER,), 0.5, 0.5)
    for wrong in (
        replace_in(told, detached=not told.detached),
        replace_in(told, reset="zero" if told.reset == "subtract" else "subtract"),
        replace_in(told, surrogate=lambda x: 1 / (1 + abs(x)) ** 2),
        replace_in(told, gain=told.gain / 2),
    ):
        law = wrong.window(DELAYS, (EARLIER,), 0.5, 0.5)
        assert max(abs(a - b) for a, b in zip(found, law)) > 0.02 * max(map(abs, law))


def replace_in(told: Described, **changed: Any) -> Described:
    return told._replace(**changed)


def test_a_neuron_that_the_clamp_does_not_hold_is_noticed() -> None:
    high = Cell(Neuron(DECAY, 2.0, 1.5, "zero").step, zeros, itself)  # 1.5 is not above its threshold
    with pytest.raises(RuntimeError, match="at step 4 the charge is held above"):
        clamped_window(high, [0, 4])
    low = Cell(Neuron(DECAY, 0.5, 1.5, "zero").step, zeros, itself)
    with pytest.raises(RuntimeError, match="at step 0 the charge is held below"):
        clamped_window(low, [0, 4], rest=0.7)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda cell: clamped_window(cell, []), ValueError, "delay"),
        (lambda cell: clamped_window(cell, [1], [0]), ValueError, "1 or more"),
        (lambda cell: clamped_window(cell, [1], above=0), ValueError, "above must be a finite number above 0"),
        (lambda cell: clamped_window(cell, [1], rest=1.0), ValueError, "rest must lie below the threshold, 1, not 1"),
        (lambda cell: library_cell("Brian"), ValueError, "neuron must be"),
        (lambda cell: libraries.measure_library("Brian"), ValueError, "neuron must be"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[Cell], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(Cell(Neuron().step, zeros, itself))


# --- The libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["snntorch", "norse", "spikingjelly"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name, told in DESCRIBED.items() if told.library == library)
    for module in [library, *(known for known in sys.modules if known.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {library}, which is not installed.*requirements-bench.txt"):
        library_cell(name)


@pytest.mark.parametrize("neuron", [name for name, told in DESCRIBED.items() if told.library == "snntorch"])
def test_snntorch_draws_what_is_said_of_it(neuron: str) -> None:
    cell = library_cell(neuron)
    for above, rest in ((0.2, 0.0), (0.4, 0.7)):
        found = clamped_window(cell, DELAYS, (EARLIER,), above, rest)
        assert found == pytest.approx(DESCRIBED[neuron].window(DELAYS, (EARLIER,), above, rest), rel=1e-6, abs=1e-7)


def test_a_trial_tells_of_a_neuron_that_is_described_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "snnTorch Leaky, zero"
    right = libraries.measure_library(name, aboves=[0.3], rests=[0.2])["cases"][0]
    assert right["worst"] < 1e-6 and right["passed"] == [0, 0]
    monkeypatch.setattr(libraries, "library_cell", lambda neuron: own_cell(KINDS[0]))
    assert libraries.measure_library(name, aboves=[0.3], rests=[0.2])["cases"][0]["worst"] > 0.1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["settings"]["neuron"])
def test_the_record_is_that_of_the_pinned_libraries_and_follows_the_law(row: dict[str, Any]) -> None:
    name = row["settings"]["neuron"]
    told = DESCRIBED[name]
    pins = "".join((ROOT / file).read_text() for file in ("requirements.txt", "requirements-bench.txt"))
    pinned = re.search(rf"^{told.library}==(\S+)", pins, re.M)
    assert pinned and row["version"] == pinned[1]
    assert (row["library"], row["layer"], row["reset"], row["detached"]) == (
        told.library,
        told.layer,
        told.reset,
        told.detached,
    )
    assert [(case["above"], case["rest"]) for case in row["cases"]] == [(0.1, 0.0), (0.1, 0.5), (0.5, 0.0), (0.5, 0.5)]
    for case in row["cases"]:
        for curve, earlier in (("alone", ()), ("crossed", (EARLIER,))):
            law = told.window(DELAYS, earlier, case["above"], case["rest"])
            assert case[curve] == pytest.approx(law, rel=1e-5, abs=1e-6 * max(map(abs, law)))
