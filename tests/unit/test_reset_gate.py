"""The derivative in the reset's gate: its formula, the exact window against experiments, training, and the slope."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from snn_chapters import reset_gate
from snn_chapters.perturbation import NoisyNeuron, density_window
from snn_chapters.reset_gate import (
    RATES,
    RECORDS,
    VARIANTS,
    GateLayer,
    GateNet,
    best_settings,
    gate_slope,
    gate_step,
    gate_trial,
    gate_window,
    loss_slope,
    noisy_window,
    quality_trial,
    quality_trials,
    step_quality,
    tuned_trials,
)
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, neuron_step
from snn_helpers.long import tuning
from snn_helpers.neurons import RESETS, Neuron

each_reset = pytest.mark.parametrize("reset", RESETS)
each_gate = pytest.mark.parametrize("gate", reset_gate.GATES)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(n: int = 40) -> TensorDataset:
    labels = torch.arange(n) % 10
    images = torch.rand(n, 1, 28, 28, generator=source(1)) - 0.5
    images[torch.arange(n), 0, :, labels] = 0.5
    return TensorDataset(images, labels)


@each_gate
@pytest.mark.parametrize("width", [0.1, 0.5, 2.0])
def test_the_gate_has_area_1_and_ends_at_its_width(gate: str, width: float) -> None:
    n = 200_000
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 6 * width - 3 * width
    slopes = gate_slope(middles, width, gate)
    assert slopes.sum().item() * 6 * width / n == pytest.approx(1, abs=1e-4)
    assert not slopes[middles.abs() >= width].any()
    assert (slopes[middles.abs() < 0.99 * width] > 0).all()
    at_zero = {"box": 1 / (2 * width), "triangle": 1 / width}[gate]
    assert gate_slope(torch.zeros(1), width, gate).item() == pytest.approx(at_zero)


@each_reset
@each_gate
def test_a_step_is_the_neurons_own_and_its_derivative_is_the_formula(
    reset: str, gate: str, device: torch.device
) -> None:
    neuron, width = Neuron(0.9, 1.0, 1.5, reset), 0.4
    charge = torch.linspace(-0.5, 2.5, 301, dtype=torch.float64, device=device).requires_grad_()
    output, state = gate_step(charge, torch.zeros_like(charge), neuron, width, gate)
    wanted = neuron_step(charge.detach(), torch.zeros_like(charge), 0.9, 1.0, 1.5, reset)
    assert torch.equal(output, wanted[0]) and torch.equal(state, wanted[1])
    (slopes,) = torch.autograd.grad(state.sum(), charge)
    # By hand: autograd's own slope, less what the reset takes times the gate's derivative.
    for v, slope in zip(charge.tolist(), slopes.tolist()):
        fired = v > 1
        own = 1.0 - fired * {"scale": 1.5, "discharge": 1.0, "subtract": 0.0, "zero": 1.0}[reset]
        taken = {"scale": 1.5 * v, "discharge": 1.5 + max(0.0, v - 1), "subtract": 1.0, "zero": v}[reset]
        inside = abs(v - 1) < width
        height = {"box": 1 / (2 * width) * inside, "triangle": max(0.0, 1 - abs(v - 1) / width) / width}[gate]
        assert slope == pytest.approx(own - taken * height, abs=1e-9)


def test_without_a_width_it_is_autograds_own() -> None:
    images = torch.rand(5, 1, 4, 4, generator=source(2)) * 2
    plain = SpikingNet(12, sizes=(16, 8, 4), generator=source())
    gated = GateNet(12, sizes=(16, 8, 4), generator=source())
    results = []
    for net in (plain, gated):
        loss = net(images, source(3)).square().sum()
        results.append([loss, *torch.autograd.grad(loss, list(net.parameters()))])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results))


def test_a_width_changes_the_gradient_and_nothing_forwards() -> None:
    images = torch.rand(5, 1, 4, 4, generator=source(2)) * 2
    plain = GateNet(12, sizes=(16, 8, 4), generator=source())
    gradients = {}
    for name, width, last in (("own", None, True), ("all", 0.5, True), ("hidden", 0.5, False)):
        net = GateNet(12, sizes=(16, 8, 4), generator=source(), width=width, last=last)
        answer = net(images, source(3))
        torch.testing.assert_close(answer, plain(images, source(3)))
        gradients[name] = torch.autograd.grad(answer.square().sum(), list(net.parameters()))
    for one, other in itertools.combinations(gradients, 2):
        assert not torch.allclose(gradients[one][0], gradients[other][0]), (one, other)
    # The last layer's own weights know of their own gate alone.
    torch.testing.assert_close(gradients["own"][2], gradients["hidden"][2])
    assert not torch.allclose(gradients["own"][2], gradients["all"][2])


def test_the_width_can_be_set_and_is_saved() -> None:
    net = GateNet(12, sizes=(16, 8, 4), width=0.5, last=False)
    assert [layer.width for layer in net.layers] == [0.5, None]
    net.width = 0.25
    assert net.width == 0.25 and [layer.width for layer in net.layers] == [0.25, None]
    for width in (0.3, None):
        layer = GateLayer(16, 8, width=2.0, gate="box")
        layer.load_state_dict(GateLayer(16, 8, width=width, gate="triangle").state_dict())
        assert (layer.width, layer.gate) == (width, "triangle")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"width": 0.0}, "above 0, not 0.0"),
        ({"width": -1.0}, "above 0, not -1.0"),
        ({"width": 0.5, "gate": "bell"}, "gate must be one of 'box', 'triangle'"),
    ],
)
def test_wrong_gates_are_refused(settings: dict[str, Any], told: str) -> None:
    for make in (lambda: gate_slope(torch.zeros(1), **settings), lambda: GateNet(**settings)):
        with pytest.raises(ValueError, match=told):
            make()
    with pytest.raises(ValueError, match=r"noise must be a finite number of 0\.1 or more"):
        noisy_window([0], noise=0.01)


# --- The exact window -----------------------------------------------------------------------------


def outputs_of(currents: Tensor, reset: str) -> Tensor:
    """The last outputs, in plain operations of their own."""
    state = torch.zeros_like(currents[0])
    for current in currents:
        charge = current + 0.9 * state
        above = charge > 1
        output = torch.where(above, charge - 1, torch.zeros_like(charge))
        after = {"scale": -0.5 * charge, "discharge": torch.full_like(charge, -0.5)}[reset]
        state = torch.where(above, after, charge)
    return output


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("mean", [0.1, 0.25, 0.6])
def test_two_integrations_of_the_density_agree(reset: str, mean: float) -> None:
    """Forwards by Gauss and Legendre, as here, and backwards over cells, with no code in common."""
    cells = density_window(NoisyNeuron(mean=mean, warm_up=10, reset=reset), 5)
    for delay, wanted in enumerate(cells.tolist()):
        found = noisy_window([delay], mean=mean, n_steps=11 + delay, reset=reset).true.item()
        assert found == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_the_true_window_is_what_a_pulse_does_and_what_triggers_an_output(reset: str) -> None:
    """Two experiments that differentiate nothing: a pulse and its opposite, and the mean current before an output."""
    n_steps, n_trials, pulse = 12, 200_000, 0.1
    currents = 0.25 + 0.15 * torch.randn(n_steps, n_trials, generator=source(4), dtype=torch.float64)
    delays = [0, 1, 2, 4, 11]
    true = noisy_window(delays, n_steps=n_steps, reset=reset).true
    outputs = outputs_of(currents, reset)
    for delay, wanted in zip(delays, true.tolist()):
        at = n_steps - 1 - delay
        ends = []
        for sign in (1, -1):
            moved = currents.clone()
            moved[at] += sign * pulse
            ends.append(outputs_of(moved, reset))
        slopes = (ends[0] - ends[1]) / (2 * pulse)
        # The pulse is finite: what the third derivative adds is below a hundredth.
        assert abs(slopes.mean().item() - wanted) < 5 * slopes.std().item() / math.sqrt(n_trials) + 0.01
        triggered = outputs * (currents[at] - 0.25) / 0.15**2
        assert abs(triggered.mean().item() - wanted) < 5 * triggered.std().item() / math.sqrt(n_trials)


@pytest.mark.parametrize("reset", ["scale", "discharge"])
@pytest.mark.parametrize(("width", "gate"), [(None, "box"), (1.0, "box"), (0.5, "triangle")])
def test_the_chain_rules_moments_are_those_of_trials(width: float | None, gate: str, reset: str) -> None:
    delays, n_trials, neuron = [0, 1, 2, 5], 100_000, Neuron(reset=reset)
    exact = noisy_window(delays, width, gate, n_steps=20, reset=reset)
    mean, deviation = gate_window(delays, width, n_trials, source(5), gate, n_steps=20, neuron=neuron)
    assert (((mean - exact.mean).abs()) < 5 * deviation / math.sqrt(n_trials) + 1e-9).all()
    torch.testing.assert_close(deviation, exact.deviation, rtol=0.1, atol=1e-3)


def test_without_a_threshold_in_reach_the_window_is_known() -> None:
    """A steady strong current: the neuron without memory (decay 0) puts out every pulse, and remembers none."""
    window = noisy_window([0, 1, 2], mean=3.0, noise=0.15, decay=0.0)
    torch.testing.assert_close(window.true, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    # One that never resets is linear: each step passes on 0.5.
    window = noisy_window([0, 1, 2], mean=3.0, noise=0.15, decay=0.5, penalty=0.0)
    torch.testing.assert_close(window.true, torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64))
    torch.testing.assert_close(window.mean, window.true)
    assert (window.deviation < 1e-5).all()


def test_narrow_gates_are_noisy_and_wrong_in_another_way() -> None:
    delays = list(range(1, 7))
    own, wide, narrow = (noisy_window(delays, width) for width in (None, 0.5, 0.1))
    assert (own.bias > 0).all()  # autograd's own credits what the neuron has forgotten
    assert wide.bias.abs().sum() < own.bias.abs().sum() / 5
    assert narrow.bias.abs().sum() > wide.bias.abs().sum()  # so the limit of no width is not the truth
    growth = narrow.deviation[1:] / narrow.deviation[:-1]
    assert (growth > 1.5).all()  # the noise grows by a factor with each step
    assert wide.deviation.max() < own.deviation.max()


# --- Training -------------------------------------------------------------------------------------


def test_the_trial_learns_and_repeats_itself() -> None:
    settings: dict[str, Any] = {"train": digits(200), "test": digits(), "learning_rate": 0.2, "n_steps": 12}
    settings |= {"longest_gradient": 1.0, "batch_size": 20, "epochs": 6}
    row = gate_trial(None, 0, **settings)
    assert row["accuracy"] > 0.5 and row["skipped"] == 0 and len(row["lengths"]) == 3
    assert row == gate_trial(None, 0, **settings)
    assert row != gate_trial(1.0, 0, **settings)


def test_steps_that_are_not_finite_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset_gate.nn.utils, "clip_grad_norm_", lambda parameters, longest: torch.tensor(math.inf))
    row = gate_trial(0.1, 0, digits(), digits(), learning_rate=0.1, n_steps=4)
    assert row["skipped"] == 1 and row["lengths"] == [] and row["loss"] is not None


def test_the_slope_of_the_loss_is_that_of_a_smooth_net() -> None:
    """With a threshold out of reach nothing jumps: what the gradient says is what the loss does."""
    net = GateNet(6, threshold=50.0, penalty=1.5, generator=source())
    for row in step_quality(net, digits(), source(), n_batches=4, batch_size=20, n_loss=400, steps=(0.01,))[1:]:
        said, says_error = row["says"]
        does, does_error = row["does"][0]
        assert abs(said - does) < 5 * (says_error + does_error)
    # And along one weight, by hand, on the same frames.
    frames, labels = net.frames(digits().tensors[0], source(1)).detach(), digits().tensors[1]
    loss = torch.nn.functional.cross_entropy(net.read_out(net.run(frames)), labels)
    gradients = torch.autograd.grad(loss, list(net.layers[1].parameters()))
    direction = torch.zeros(1010)
    direction[1003] = 1.0  # the bias of class 3
    before = [p.clone() for p in net.parameters()]
    slope, _ = loss_slope(net, 1, direction, frames, labels, 0.01)
    assert slope == pytest.approx(gradients[1][3].item(), abs=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_the_quality_has_a_row_for_each_gate() -> None:
    found = quality_trial(
        0,
        digits(),
        widths=(None, 1.0),
        learning_rate=0.1,
        longest_gradient=1.0,
        n_steps=6,
        n_batches=4,
        batch_size=5,
        n_loss=10,
    )["rows"]
    kinds = [(row["trained"], row["width"], row["last"]) for row in found]
    assert kinds == [
        (trained, *kind) for trained in (False, True) for kind in ((None, True), (1.0, True), (1.0, False))
    ]
    own, every, hidden = (row["layers"][1] for row in found[:3])
    assert own == hidden != every  # the last layer's own gradient knows of its own gate alone


# --- What is recorded -----------------------------------------------------------------------------


def made_up(best: float, trials: Any) -> list[dict[str, Any]]:
    """Rows of a record whose accuracy is highest at a rate, and lower without a longest gradient."""
    return [
        {"settings": s, "accuracy": 1 - abs(math.log(s["learning_rate"] / best)) / 9 - (s["longest_gradient"] is None)}
        for s in trials
    ]


@pytest.mark.parametrize("best", [0.1, 0.13, RATES[0], RATES[-1]])
def test_the_best_is_taken_and_has_neighbours_on_both_sides(best: float, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = {"07_reset_gate": made_up(best, RECORDS["07_reset_gate"].trials), "07_reset_gate_near": []}
    for module in (reset_gate, tuning):
        monkeypatch.setattr(module, "load_results", lambda name: {"trials": recorded[name]})
    coarse = best_settings(["07_reset_gate"], 0.5, False)
    assert coarse["longest_gradient"] == 1.0
    assert coarse["learning_rate"] == min(RATES, key=lambda rate: abs(math.log(rate / best)))
    with pytest.raises(ValueError, match="edge" if best in (RATES[0], RATES[-1]) else "needs"):
        tuned_trials()
    near = RECORDS["07_reset_gate_near"].trials
    assert callable(near)
    while len(trials := near()) > len(recorded["07_reset_gate_near"]):
        recorded["07_reset_gate_near"] = made_up(best, trials)
    assert {trial["longest_gradient"] for trial in trials} == {1.0}
    tuned = tuned_trials()
    assert len(tuned) == 5 * len(VARIANTS)
    assert [trial["learning_rate"] for trial in tuned] == pytest.approx([best] * len(tuned), rel=0.13)
    assert quality_trials()[0]["learning_rate"] == tuned[0]["learning_rate"]


def test_each_width_is_tried_at_all_rates() -> None:
    coarse = RECORDS["07_reset_gate"].trials
    assert isinstance(coarse, list) and len(coarse) == len({str(trial) for trial in coarse})
    assert len(VARIANTS) == 11 and len(coarse) == 11 * 10 * 2 * 3
