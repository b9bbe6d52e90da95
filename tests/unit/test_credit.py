"""What gradient steps are made of, held against sums written with plain loops, and the trial."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from snn_chapters import credit
from snn_chapters.credit import (
    cosines,
    digits_task,
    gradient_step,
    hebbian_share,
    patterns_task,
    plasticity_trial,
    probe,
    rule_steps,
    triggered,
    truncated,
    windows,
)
from snn_chapters.forward_in_time import online_trial
from spies import (
    N_TRAIN,
    are,
    numbered,
    spy,
)
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, flicker
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import (
    Credit,
    pair_stdp,
    pair_weights,
    reset_slope,
    trace_credit,
)

each_reset = pytest.mark.parametrize("reset", RESETS)
CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weight_gradient(layer: Any) -> Tensor:
    found: Tensor = layer.linear.weight.grad
    return found


def digits(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of strokes and empty background, [n, 1, 28, 28], and labels."""
    images = torch.rand(n, 1, 28, 28, generator=seeded(seed), dtype=torch.float64)
    return torch.where(images > 0.8, images, 0.0) - 0.5, torch.arange(n) % 10


def both_ways(
    reset: str, sizes: tuple[int, ...], begin_eval: int, dtype: torch.dtype, device: torch.device
) -> tuple[SpikingNet, list[Credit]]:
    """A network with autograd's gradients in place, and the credit traced through the same frames."""
    net = SpikingNet(24, begin_eval, sizes, reset=reset, generator=seeded(1)).to(device, dtype)
    images, labels = digits(6)
    images, labels = images.to(device, dtype), (labels % sizes[-1]).to(device)
    F.nll_loss(net(images, seeded(2)), labels).backward()
    return net, trace_credit(net, flicker(images.flatten(1), 24, seeded(2)), labels)


def small_factors(seed: int, n_steps: int = 9) -> Credit:
    generator = seeded(seed)
    shape = (n_steps, 2, 3)
    fired = torch.rand(shape, generator=generator) < 0.3
    outputs = fired * torch.rand(shape, generator=generator, dtype=torch.float64)
    inputs = torch.randn(n_steps, 2, 4, generator=generator, dtype=torch.float64)
    signals = torch.randn(shape, generator=generator, dtype=torch.float64) * fired
    return Credit(inputs, outputs, reset_slope(outputs, 1.0, 1.5, "scale"), signals)


def gradients(net: SpikingNet, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = seeded(3)
    net.zero_grad()
    log_probs = net(images, generator)
    F.nll_loss(log_probs, labels).backward()
    return log_probs.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None], generator.get_state()


# --- The measurements -----------------------------------------------------------------------------


def test_patterns_are_told_apart_by_time_alone(device: torch.device) -> None:
    draw = patterns_task(64, device, seeded(0), n_inputs=50, n_pulses=3)
    frames, labels = draw(300, seeded(1))
    assert frames.shape == (64, 300, 50) and frames.device.type == device.type
    assert ((frames == 0) | (frames == 1)).all()
    assert (frames.sum(dim=0) == 3).all()  # every input fires three times in every example: rates say nothing
    first = {label: frames[:, labels == label] for label in range(10)}
    for examples in first.values():
        # A pulse moves by at most one step: around its place, three steps hold one pulse in each example.
        together = F.max_pool1d(examples.amax(dim=1).T[:, None], 3, 1, 1)[:, 0]
        assert together.sum(dim=1).max() <= 3 * 5
    again, labels_again = draw(300, seeded(1))
    assert torch.equal(again, frames) and torch.equal(labels_again, labels)


def test_digits_are_drawn_with_their_labels() -> None:
    images, labels = digits(20)
    frames, drawn = digits_task(TensorDataset(images.float(), labels), 5, CPU)(40, seeded(0))
    assert frames.shape == (5, 40, 784)
    ratio = frames[:, 3] / images.float().flatten(1)[drawn[3]]  # image k of these has the label k modulo 10
    other = frames[:, 3] / images.float().flatten(1)[drawn[3] + 10]
    assert ((ratio >= 0) & (ratio < 1)).all() or ((other >= 0) & (other < 1)).all()


def by_pairs(post: Tensor, pre: Tensor, window: Any) -> Tensor:
    """Sum over all pairs of an entry of `post` [T, B, J] and one of `pre` [T, B, I], weighed by their delay."""
    n_steps = len(post)
    step = torch.zeros(post.shape[2], pre.shape[2], dtype=torch.float64)
    for t_post in range(n_steps):
        for t_pre in range(n_steps):
            step += window(t_post - t_pre) * torch.einsum("bj,bi->ji", post[t_post], pre[t_pre])
    return step


@pytest.mark.parametrize("seed", range(3))
def test_the_rules_are_sums_over_pairs(seed: int) -> None:
    factors = small_factors(seed)
    wrong = small_factors(seed + 50).signals
    others = torch.tensor([1, 0])
    steps = rule_steps(factors, wrong, 0.8, others, seeded(0))
    fired = (factors.outputs > 0).double()
    errors = {}
    for name, signals in (("right", factors.signals), ("wrong", wrong)):
        errors[name] = torch.zeros(2, 3, dtype=torch.float64)
        for b in range(2):
            for j in range(3):
                mine = [s for s in signals[:, b, j].tolist() if s != 0]
                errors[name][b, j] = -sum(mine) / max(1, len(mine))
    taught, mistaught = fired * errors["right"], fired * errors["wrong"]
    n_steps = len(fired)

    def first(d: int) -> float:
        return 0.8**d if d >= 0 else 0.0

    def last(d: int) -> float:
        return 0.8**-d if d < 0 else 0.0

    def stdp(d: int) -> float:  # a spike is handed out one step after the charge that caused it
        d += 1
        return math.copysign(0.8 ** abs(d), d) if d else 0.0

    def counted(post: Tensor, pre: Tensor) -> Tensor:
        # A spike in the last step is handed out too late to meet anything.
        kept = post.clone()
        kept[-1] = 0
        return by_pairs(kept, pre, stdp)

    expected = {
        "Hebb": by_pairs(fired, factors.inputs, lambda d: 1.0) / n_steps**2,
        "STDP": counted(fired, factors.inputs),
        "error x rates": by_pairs(taught, factors.inputs, lambda d: 1.0) / n_steps**2,
        "error x pre first": by_pairs(taught, factors.inputs, first),
        "error x post first": by_pairs(taught, factors.inputs, last),
        "error x STDP": counted(taught, factors.inputs),
        "signal x trace": by_pairs(-factors.signals, factors.inputs, first),
        "wrong labels": by_pairs(mistaught, factors.inputs, first),
        "other inputs": by_pairs(taught, factors.inputs[:, others], first),
    }
    assert set(steps) == {*expected, "random"}
    for name, step in expected.items():
        assert torch.allclose(steps[name], step), name


def test_stdp_on_spikes_is_that_of_chapter_05() -> None:
    factors = small_factors(0)
    spikes = factors._replace(inputs=(factors.inputs > 0.5).double())
    handed_out = torch.zeros_like(spikes.outputs)
    handed_out[1:] = (spikes.outputs[:-1] > 0).double()
    tau = -1 / math.log(0.9)
    expected = pair_stdp(spikes.inputs, handed_out, 1.0, 1.0, tau, tau)
    found = rule_steps(spikes, spikes.signals, 0.9, torch.tensor([1, 0]), seeded(0))["STDP"]
    torch.testing.assert_close(found, expected)


def test_where_a_rule_is_the_gradient_its_cosine_is_one() -> None:
    """No resets on the way, and one signal per example and neuron: the error times the trace is exact."""
    factors = small_factors(1)
    signals = (factors.outputs > 0) * torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 1.0]], dtype=torch.float64)
    plain = factors._replace(slopes=torch.ones_like(signals), signals=signals)
    for kind in ("raw", "centred"):
        found = cosines(plain, signals, 0.9, torch.tensor([1, 0]), seeded(0))[kind]
        assert found["error x pre first"] == pytest.approx(1) and found["signal x trace"] == pytest.approx(1)
        assert all(-1.0001 <= value <= 1.0001 for value in found.values())


@each_reset
def test_the_gradient_step_is_downhill(reset: str, device: torch.device) -> None:
    net, factors = both_ways(reset, (784, 30, 10), 0, torch.float64, device)
    for layer, these in zip(net.layers, factors, strict=True):
        torch.testing.assert_close(gradient_step(these, 0.9), -weight_gradient(layer), rtol=1e-9, atol=1e-14)


def test_spike_triggered_means_by_loops() -> None:
    factors = small_factors(2)
    values, sizes = factors.inputs[:, :, :3], factors.signals.abs()
    n_steps, expected = len(values), []
    for delay in range(-4, 5):
        above, below = 0.0, 0.0
        for t in range(n_steps):
            if 0 <= t - delay < n_steps:
                spikes = sizes[t] != 0
                above += values[t - delay][spikes].sum().item()
                below += sizes[t][spikes].sum().item()
        expected.append(above / below)
    assert triggered(values, sizes, 4) == pytest.approx(expected)


def test_windows_of_a_neuron_without_resets_are_the_law() -> None:
    factors = small_factors(0, n_steps=12)
    plain = factors._replace(slopes=torch.ones_like(factors.slopes))
    found = windows(plain, 0.8, 12, torch.tensor([1, 0]), seeded(0))
    assert len(found["kernel"]) == 11  # delays beyond the recording are left out
    # Signals near the start have no inputs far back: the law holds for those that have.
    far = [signals.abs().sum().item() for signals in (factors.signals[n:] for n in range(11))]
    assert found["kernel"] == pytest.approx([0.8**n * far[n] / far[0] for n in range(11)])
    for sign, kind, direction in (
        ("raised", "positive", 1),
        ("lowered", "positive", -1),
        ("raised", "negative", -1),
        ("lowered", "negative", 1),
    ):
        assert all(direction * value >= 0 for value in found[f"{sign}_by_{kind}"])


@pytest.mark.parametrize("seed", range(2))
def test_windows_by_loops(seed: int) -> None:
    factors = small_factors(seed)
    inputs, _, slopes, signals = factors
    found = windows(factors, 0.9, 4, torch.tensor([1, 0]), seeded(0))
    n_steps, size = len(inputs), signals[signals != 0].abs().mean().item()
    for delay in range(4):
        kernel = total = change = mass = 0.0
        for t in range(n_steps):
            for b in range(2):
                for j in range(3):
                    signal = signals[t, b, j].item()
                    total += abs(signal)
                    if t < delay:
                        continue
                    path = math.prod(0.9 * slopes[r, b, j].item() for r in range(t - delay, t))
                    kernel += abs(signal) * path
                    if signal < 0:
                        for x in inputs[t - delay, b].tolist():
                            change += -signal * path * max(x, 0.0)
                            mass += max(x, 0.0)
        assert found["kernel"][delay] == pytest.approx(kernel / total)
        assert found["raised_by_positive"][delay] == pytest.approx(change / mass / size)
    everything = windows(factors, 0.9, n_steps - 1, torch.tensor([1, 0]), seeded(0))
    rest = list(pair_weights(signals, slopes, 0.9, n_steps))[-1]  # the longest delay is not among them
    centred = inputs - inputs.mean(dim=(0, 1))
    step = gradient_step(factors._replace(inputs=centred), 0.9)
    left_out = -torch.einsum("tbj,tbi->ji", rest, centred[:1])
    share = ((left_out * step).sum() / step.square().sum()).item()
    assert sum(everything["share"]) == pytest.approx(1 - share)


def test_without_a_future_the_signal_is_the_error_at_that_moment(device: torch.device) -> None:
    net, factors = both_ways("scale", (784, 30, 10), 0, torch.float64, device)
    found = truncated(net, factors, 0.9, seeded(0))
    assert 0.3 < found["no_future"] <= 1.0001 and abs(found["random_feedback"]) <= 1
    # With a last layer that forgets at once there is no future to leave out.
    forgetful = SpikingNet(24, sizes=(784, 30, 10), decay=0.0, generator=seeded(1)).to(device, torch.float64)
    images, labels = (part.to(device) for part in digits(6))
    factors = trace_credit(forgetful, flicker(images.flatten(1), 24, seeded(2)), labels)
    assert factors[0].outputs.any()
    assert truncated(forgetful, factors, 0.0, seeded(0))["no_future"] == pytest.approx(1)


def test_hebbian_share_of_all_is_the_cosine() -> None:
    factors = small_factors(3)
    found = hebbian_share(factors, torch.tensor([True, True]), 0.9)
    centred = cosines(factors, factors.signals, 0.9, torch.tensor([1, 0]), seeded(0))["centred"]
    assert found["n"] == 2 and -1 <= found["preference"] <= 1
    assert found["Hebb"] == pytest.approx(centred["Hebb"]) and found["STDP"] == pytest.approx(centred["STDP"])


@pytest.mark.parametrize("task", ["digits", "patterns"])
def test_a_trial_gives_a_row_for_each_probe(task: str, device: torch.device) -> None:
    images, labels = digits(30)
    row = plasticity_trial(
        task,
        0,
        TensorDataset(images.float(), labels),
        n_steps=16,
        batch_size=10,
        n_hidden=20,
        probe_at=(0, 2, 4),
        n_probe=20,
        n_delays=5,
        device=device,
    )
    assert [probe["update"] for probe in row["probes"]] == [0, 2, 4]
    assert ["windows" in probe for probe in row["probes"]] == [True, False, True]
    for probed in row["probes"]:
        assert len(probed["cosines"]) == 2 and 0 <= probed["accuracy"] <= 1
        assert probed["cosines"][1]["raw"]["signal x trace"] > 0.5  # the last layer's rule is nearly exact
    json.dumps(row, allow_nan=False)


def test_controls_come_from_examples_with_other_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spy(net: SpikingNet, frames: Tensor, labels: Tensor) -> list[Credit]:
        seen.append(labels)
        return trace_credit(net, frames, labels)

    monkeypatch.setattr("snn_chapters.credit.trace_credit", spy)
    images, labels = digits(20)
    net = SpikingNet(6, generator=seeded(0))
    probe(net, flicker(images.float().flatten(1), 6, seeded(1)), labels, seeded(2))
    assert torch.equal(seen[0], labels) and (seen[1] != labels).all()


def test_trials_refuse_unknown_names() -> None:
    with pytest.raises(ValueError, match="'online' or 'bptt'"):
        online_trial("offline", 0, TensorDataset(), TensorDataset())
    with pytest.raises(ValueError, match="'digits' or 'patterns'"):
        plasticity_trial("letters", 0)
    with pytest.raises(ValueError, match=r"n_steps must be at least 10, .* not 9"):
        plasticity_trial("patterns", 0, n_steps=9)
    with pytest.raises(ValueError, match="needs train"):
        plasticity_trial("digits", 0)


# --- The protocol ---------------------------------------------------------------------------------


def watch_sgd(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of `torch.optim.SGD` at each step."""
    steps: list[dict[str, Any]] = []
    step = torch.optim.SGD.step

    def noted(self: torch.optim.SGD, *args: Any, **settings: Any) -> Any:
        (group,) = self.param_groups
        steps.append({name: group[name] for name in ("lr", "momentum", "weight_decay", "nesterov", "dampening")})
        return step(self, *args, **settings)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    return steps


@pytest.mark.parametrize("task", ["digits", "patterns"])
def test_the_learning_rate_falls_by_thirds(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = watch_sgd(monkeypatch)
    images, labels = digits(30)
    data = TensorDataset(images.float(), labels)
    plasticity_trial(
        task, 0, data, n_steps=10, batch_size=5, n_hidden=8, probe_at=(0, 9), n_probe=20, n_delays=2, learning_rate=0.3,
        device="cpu",
    )  # fmt: skip
    assert [step["lr"] for step in steps] == pytest.approx([0.3] * 3 + [0.15] * 3 + [0.03] * 3)
    assert {step["momentum"] for step in steps} == {0.5}
    assert {(step["weight_decay"], step["nesterov"], step["dampening"]) for step in steps} == {(0, False, 0)}


def test_settings_reach_the_network_and_its_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One set of examples is probed, windows at both ends; each batch is another draw, of the training set alone."""
    probed = spy(monkeypatch, credit, "probe", lambda given: {})
    answered = spy(monkeypatch, credit, "answer", None)
    monkeypatch.setattr(credit, "whole_mnist", numbered)
    settings: dict[str, Any] = {"n_steps": 7, "batch_size": 6, "n_hidden": 9, "probe_at": (0, 1, 3), "n_probe": 12}
    row = credit.measure_plasticity(task="digits", seed=4, reset="discharge", n_delays=5, device="cpu", **settings)
    assert [probe["update"] for probe in row["probes"]] == [0, 1, 3]
    assert [call["n_delays"] for call in probed] == [5, 0, 5]
    assert all(call["frames"] is probed[0]["frames"] and call["labels"] is probed[0]["labels"] for call in probed)
    assert probed[0]["frames"].shape == (7, 12, 784)
    net = probed[0]["net"]
    assert [layer.n_neurons for layer in net.layers] == [9, 10] and {layer.reset for layer in net.layers} == {
        "discharge"
    }
    assert len(answered) == 3 and all(call["frames"].shape == (7, 6, 784) for call in answered)
    assert not torch.equal(answered[0]["frames"], answered[1]["frames"])


def test_a_seed_decides_all_of_a_trial() -> None:
    images, labels = digits(30)
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 5, "n_hidden": 8, "probe_at": (0, 2), "n_probe": 20}
    rows = []
    for noise, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(noise)
        rows.append(
            plasticity_trial(
                "digits", seed, TensorDataset(images.float(), labels), n_delays=2, **settings, device="cpu"
            )
        )
    assert rows[0] == rows[1] != rows[2]


def test_only_the_digits_come_from_the_training_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit, "whole_mnist", numbered)
    calls = spy(monkeypatch, credit, "plasticity_trial", lambda given: {})
    ((_, measure, trials),) = credit.RECORDS.values()
    assert isinstance(trials, list)
    for settings in trials:
        measure(**settings)
        given = calls[-1]
        assert {name: given[name] for name in settings} == settings
        assert are(given["train"], range(N_TRAIN)) if settings["task"] == "digits" else given["train"] is None


def test_what_is_probed_is_scored_by_its_own_labels() -> None:
    """A network that answers 3 whatever it is shown is right for the share of the probe that is a 3."""
    images, labels = digits(40)
    net = SpikingNet(6, generator=seeded(0))
    with torch.no_grad():
        net.layers[1].linear.bias.fill_(-50.0)[3] = 0.0
    frames = flicker(images.float().flatten(1), 6, seeded(1))
    assert probe(net, frames, labels, seeded(2))["accuracy"] == pytest.approx(0.1)
    found = probe(net, frames, torch.where(labels < 6, 3, labels), seeded(2))
    assert found["accuracy"] == pytest.approx(0.6)


def test_each_layer_is_probed_with_its_own_decay() -> None:
    """The rule that is the exact gradient where nothing is reset: its step must be the gradient's."""
    net = SpikingNet(9, sizes=(6, 5, 3), threshold=0.3, reset="subtract", generator=torch.Generator().manual_seed(0))
    net.layers[1].decay = 0.3
    frames = torch.rand(9, 8, 6, generator=torch.Generator().manual_seed(1))
    found = credit.probe(net, frames, torch.arange(8) % 3, torch.Generator().manual_seed(2))["cosines"]
    assert [layer["raw"]["signal x trace"] for layer in found] == pytest.approx([1, 1], abs=2e-3)
    with pytest.raises(ValueError, match="not for 3 layers"):
        credit.probe(SpikingNet(9, sizes=(6, 5, 4, 3)), frames, torch.arange(8) % 3, torch.Generator())
