"""What gradient steps are made of, held against sums written with plain loops, and the trial."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from snn_chapters import credit
from snn_chapters.credit import (
    Controls,
    SurrogateNet,
    agreement,
    answer,
    condition,
    cosines,
    digits_task,
    fitted_window,
    gradient_step,
    halves,
    hebbian,
    hebbian_share,
    mean_change,
    patterns_task,
    plasticity_trial,
    positive_control,
    probe,
    question,
    rule_steps,
    share_at_spikes,
    static_trial,
    timing_cosines,
    triggered,
    truncated,
    two_sided,
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


def test_a_free_number_of_pulses_tells_patterns_apart() -> None:
    draw = patterns_task(64, CPU, seeded(0), n_inputs=50, n_pulses=3, free=True)
    frames, labels = draw(300, seeded(1))
    assert ((frames == 0) | (frames == 1)).all()
    counts = frames.sum(dim=0)  # [300, 50]
    assert 2.7 < counts.mean() < 3.3 and counts.std() > 1
    for label in range(10):  # it is the pattern that sets the number, not the draw
        assert (counts[labels == label] == counts[labels == label][0]).all()
    assert not torch.equal(counts[labels == 0][0], counts[labels == 1][0])


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


def controls_of(seed: int = 0) -> Controls:
    """Two examples, each the other's partner."""
    return Controls(*(torch.tensor(part) for part in ([1, 0], [3, 5], [0.3, -0.3], [0.5, -0.5], [1, 0])))


@pytest.mark.parametrize("seed", range(3))
def test_the_rules_are_sums_over_pairs(seed: int) -> None:
    factors = small_factors(seed)
    fired, error = (factors.outputs > 0).double(), torch.zeros(2, 3, dtype=torch.float64)
    for b in range(2):
        for j in range(3):
            mine = [s for s in factors.signals[:, b, j].tolist() if s != 0]
            error[b, j] = -sum(mine) / max(1, len(mine))
    n_steps = len(fired)

    def first(d: int) -> float:
        return 0.8**d if d >= 0 else 0.0

    def last(d: int) -> float:
        return 0.8**-d if d < 0 else 0.0

    def stdp(d: int) -> float:  # a spike is handed out one step after the charge that caused it
        d += 1
        return math.copysign(0.8 ** abs(d), d) if d else 0.0

    for post in (fired, fired * error):
        steps = rule_steps(post, factors.inputs, 0.8)
        kept = post.clone()
        kept[-1] = 0  # a spike in the last step is handed out too late to meet anything
        expected = {
            "rates": by_pairs(post, factors.inputs, lambda d: 1.0) / n_steps**2,
            "pre first": by_pairs(post, factors.inputs, first),
            "post first": by_pairs(post, factors.inputs, last),
            "STDP": by_pairs(kept, factors.inputs, stdp),
        }
        assert set(steps) == set(expected)
        for name, step in expected.items():
            assert torch.allclose(steps[name], step), name


def test_stdp_on_spikes_is_that_of_chapter_05() -> None:
    factors = small_factors(0)
    inputs, fired = (factors.inputs > 0.5).double(), (factors.outputs > 0).double()
    handed_out = torch.zeros_like(fired)
    handed_out[1:] = fired[:-1]
    tau = -1 / math.log(0.9)
    expected = pair_stdp(inputs, handed_out, 1.0, 1.0, tau, tau)
    torch.testing.assert_close(rule_steps(fired, inputs, 0.9)["STDP"], expected)


def cosine(one: Tensor, other: Tensor) -> float:
    return F.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def test_cosines_are_those_of_the_rules_and_their_nulls() -> None:
    """Each name against the rule that it stands for, built here from its two trains."""
    factors, controls = small_factors(4), controls_of()
    permuted = small_factors(54).signals
    found = cosines(factors, permuted, 0.9, 0.8, controls, seeded(0))["centred"]
    inputs, fired = factors.inputs - factors.inputs.mean(dim=(0, 1)), (factors.outputs > 0).double()
    exact = gradient_step(factors._replace(inputs=inputs), 0.9)

    def error_of(signals: Tensor) -> Tensor:
        return -signals.sum(dim=0) / (signals != 0).sum(dim=0).clamp(min=1)

    swapped, error = inputs[:, [1, 0]], error_of(factors.signals)
    reward = torch.tensor([0.3, -0.3], dtype=torch.float64)[:, None]
    for before, post, rates in (("", fired, "Hebb"), ("error x ", fired * error, "error x rates")):
        steps = rule_steps(post, inputs, 0.8)
        assert found[rates] == pytest.approx(cosine(exact, steps["rates"]))
        for name in ("pre first", "post first", "STDP"):
            assert found[before + name] == pytest.approx(cosine(exact, steps[name])), before + name
    for name, post, pre, rule in (
        ("Hebb, other inputs", fired, swapped, "rates"),
        ("pre first, other inputs", fired, swapped, "pre first"),
        ("reward x pre first", fired * reward, inputs, "pre first"),
        ("right x pre first", fired * torch.tensor([0.5, -0.5])[:, None], inputs, "pre first"),
        ("signal x trace", -factors.signals, inputs, "pre first"),
        ("error x pre first, labels permuted", fired * error_of(permuted), inputs, "pre first"),
        ("reward x pre first, rewards permuted", -fired * reward, inputs, "pre first"),
        ("error x pre, post a mean", fired.mean(dim=(0, 1)) * error.expand_as(fired), inputs, "pre first"),
    ):
        assert found[name] == pytest.approx(cosine(exact, rule_steps(post, pre, 0.8)[rule])), name
    assert all(-1.0001 <= value <= 1.0001 for value in found.values())


def test_what_chance_makes_of_a_spike_train_is_its_mean() -> None:
    """The mean step over *all* orders of the spikes is the step of the train's mean: what `timing` takes off."""
    generator = seeded(7)
    fired = (torch.rand(4, 1, 1, generator=generator) < 0.5).double()
    fired[0, 0, 0], fired[1, 0, 0] = 1, 0
    inputs = torch.randn(4, 1, 3, generator=generator, dtype=torch.float64)
    orders = [rule_steps(fired[list(order)], inputs, 0.7) for order in itertools.permutations(range(4))]
    of_mean = rule_steps(fired.mean(dim=0).expand_as(fired), inputs, 0.7)
    step = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    found = timing_cosines(step, fired, inputs, 0.7, seeded(0), 500)
    true = rule_steps(fired, inputs, 0.7)
    for name in ("pre first", "post first", "STDP"):
        mean = torch.stack([each[name] for each in orders]).mean(dim=0)
        torch.testing.assert_close(of_mean[name], mean)
        if name != "STDP":
            assert found[f"{name}, timing"] == pytest.approx(cosine(step, true[name] - mean))
        shuffled = sum(cosine(step, each[name]) for each in orders) / len(orders)
        assert found[f"{name}, shuffled"] == pytest.approx(shuffled, abs=0.1)


def test_a_shuffle_keeps_how_often_each_neuron_fires() -> None:
    values = small_factors(5).outputs
    moved = credit._shuffled(values, seeded(1))
    assert torch.equal(moved.sort(dim=0).values, values.sort(dim=0).values) and not torch.equal(moved, values)


def test_a_step_that_is_stdp_is_found_and_one_that_is_not_is_not() -> None:
    generator = seeded(3)
    inputs = (torch.rand(60, 20, 30, generator=generator) < 0.1).double()
    outputs = (torch.rand(60, 20, 8, generator=generator) < 0.1).double()
    factors = Credit(inputs, outputs, torch.ones_like(outputs), torch.zeros_like(outputs))
    found = positive_control(factors, 0.9, seeded(0))
    assert found["pre first, timing"] > 0.3 and found["post first, timing"] < -0.3
    assert abs(found["pre first, timing, shuffled"]) < 0.1 and abs(found["post first, timing, shuffled"]) < 0.1
    noise = torch.randn(8, 30, generator=generator, dtype=torch.float64)
    found = timing_cosines(noise, outputs, inputs - inputs.mean(dim=(0, 1)), 0.9, seeded(0))
    assert abs(found["pre first, timing"]) < 0.2 and abs(found["post first, timing"]) < 0.2


@pytest.mark.parametrize("b", [-0.7, 0.0, 0.4])
def test_the_nearest_two_sided_window(b: float) -> None:
    generator = seeded(1)
    pre, post, rest = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    found = two_sided(2 * pre + 2 * b * post, pre, post)
    assert found["a"] == pytest.approx(2) and found["ratio"] == pytest.approx(b) and found["cosine"] == pytest.approx(1)
    # With a rest that neither explains, no other a and b come nearer.
    step = pre + b * post + rest
    best = two_sided(step, pre, post)
    error = (step - best["a"] * pre - best["b"] * post).norm()
    for more in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert (step - (best["a"] + more[0]) * pre - (best["b"] + more[1]) * post).norm() > error
    assert best["cosine"] == pytest.approx(cosine(step, best["a"] * pre + best["b"] * post))
    assert two_sided(step, torch.zeros_like(pre), post)["a"] == 0  # a side with no pairs


def test_halves_are_the_two_sides_of_the_exact_step() -> None:
    """One signal per example and neuron and no resets: with the error, all of it has pre first."""
    factors = small_factors(1)
    signals = (factors.outputs > 0) * torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 1.0]], dtype=torch.float64)
    found = halves(factors._replace(slopes=torch.ones_like(signals), signals=signals), 0.9, 0.9)
    assert set(found) == {"plain", "timing", "error"}
    assert found["error"] == pytest.approx({"a": 1, "b": 0, "ratio": 0, "cosine": 1}, abs=1e-9)


def test_where_a_rule_is_the_gradient_its_cosine_is_one() -> None:
    """No resets on the way, and one signal per example and neuron: the error times the trace is exact."""
    factors = small_factors(1)
    signals = (factors.outputs > 0) * torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 1.0]], dtype=torch.float64)
    plain = factors._replace(slopes=torch.ones_like(signals), signals=signals)
    found = cosines(plain, signals, 0.9, 0.9, controls_of(), seeded(0))["centred"]
    for name in ("error x pre first", "signal x trace", "error x pre first, labels permuted"):
        assert found[name] == pytest.approx(1), name


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
    found = windows(plain, 0.8, 12, seeded(0))
    assert len(found["kernel"]) == 11  # delays beyond the recording are left out
    # Signals near the start have no inputs far back: the law holds for those that have.
    far = [signals.abs().sum().item() for signals in (factors.signals[n:] for n in range(11))]
    assert found["kernel"] == pytest.approx([0.8**n * far[n] / far[0] for n in range(11)])
    assert len(found["credit_raised"]) == len(found["change"]) == len(found["window"]) == 2 * 11 + 1


@pytest.mark.parametrize("seed", range(2))
def test_windows_by_loops(seed: int) -> None:
    factors = small_factors(seed)
    inputs, _, slopes, signals = factors
    found = windows(factors, 0.9, 4, seeded(0))
    n_steps = len(inputs)
    for delay in range(4):
        kernel = total = 0.0
        for t in range(n_steps):
            for b in range(2):
                for j in range(3):
                    signal = signals[t, b, j].item()
                    total += abs(signal)
                    if t >= delay:
                        kernel += abs(signal) * math.prod(0.9 * slopes[r, b, j].item() for r in range(t - delay, t))
        assert found["kernel"][delay] == pytest.approx(kernel / total)
    everything = windows(factors, 0.9, n_steps - 1, seeded(0))
    rest = list(pair_weights(signals, slopes, 0.9, n_steps))[-1]  # the longest delay is not among them
    centred = inputs - inputs.mean(dim=(0, 1))
    step = gradient_step(factors._replace(inputs=centred), 0.9)
    left_out = -torch.einsum("tbj,tbi->ji", rest, centred[:1])
    share = ((left_out * step).sum() / step.square().sum()).item()
    assert sum(everything["share"]) == pytest.approx(1 - share)


def test_the_mean_change_of_a_pair_by_loops() -> None:
    factors = small_factors(6)
    fired, change = (factors.outputs > 0).double(), factors.signals.cumsum(dim=0)
    expected = []
    for delay in range(-3, 4):
        pairs = total = 0.0
        for s, b, i, j in itertools.product(range(9), range(2), range(4), range(3)):
            if 0 <= s + delay < 9:
                met = max(0.0, factors.inputs[s, b, i].item()) * fired[s + delay, b, j].item()
                pairs += met
                total += met * change[s, b, j].item()
        expected.append(total / pairs)
    assert mean_change(change, fired, factors.inputs, 3) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(2))
def test_a_planted_window_is_found_again(seed: int) -> None:
    """Also where the inputs go on from step to step: a mean over pairs would smear it."""
    generator = seeded(seed)
    inputs = torch.randn(30, 10, 20, generator=generator, dtype=torch.float64).cumsum(dim=0)
    fired = (torch.rand(30, 10, 6, generator=generator) < 0.2).double()
    planted = {-3: 0.1, -2: -0.5, -1: -0.8, 0: 0.0, 1: 1.0, 2: 0.6, 3: 0.2}
    step = by_pairs(fired, inputs, lambda d: planted.get(d, 0.0))
    window, cosine = fitted_window(step, fired, inputs, 5)
    assert window == pytest.approx([0, 0, *planted.values(), 0, 0], abs=1e-6) and cosine == pytest.approx(1)


def test_the_share_of_signals_at_spikes() -> None:
    factors = small_factors(8)
    assert share_at_spikes(factors, 0.9) == pytest.approx(1)  # all of these signals come at spikes
    silent = factors._replace(outputs=torch.zeros_like(factors.outputs))
    assert share_at_spikes(silent, 0.9) == 0


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
    found = hebbian_share(factors, torch.tensor([True, True]), 0.9, 0.9)
    centred = cosines(factors, factors.signals, 0.9, 0.9, controls_of(), seeded(0))["centred"]
    assert found["n"] == 2 and -1 <= found["preference"] <= 1
    assert found["Hebb"] == pytest.approx(centred["Hebb"]) and found["STDP"] == pytest.approx(centred["STDP"])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("task", credit.TASKS)
def test_a_trial_gives_a_row_for_each_probe(task: str, binary: bool, device: torch.device) -> None:
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
        binary=binary,
        device=device,
    )
    assert [probe["update"] for probe in row["probes"]] == [0, 2, 4]
    for probed, edge in zip(row["probes"], (True, False, True)):
        assert ("windows" in probed) == ("halves" in probed) == ("control" in probed) == edge
        assert ("truncated" in probed) == (edge and not binary)
        assert len(probed["cosines"]) == 1 and 0 <= probed["accuracy"] <= 1
        assert probed["cosines"][0]["centred"]["signal x trace"] > 0.5  # nearly exact, but for the resets
    assert len(row["probes"][0]["windows"][0]) == 3 < len(row["probes"][-1]["windows"][0])
    json.dumps(row, allow_nan=False)


def test_controls_come_from_examples_with_other_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(40) % 10
    log_probs = F.log_softmax(torch.randn(40, 10, generator=seeded(0)), dim=-1)
    found = Controls.drawn(log_probs, labels, seeded(2))
    assert (labels[found.others] != labels).all() and torch.equal(found.others.sort().values, torch.arange(40))
    assert torch.equal(found.permuted, labels[found.shuffle]) and torch.equal(found.shuffle.unique(), torch.arange(40))
    assert not torch.equal(found.permuted, labels)
    losses = torch.stack([-log_probs[k, labels[k]] for k in range(40)])
    torch.testing.assert_close(found.rewards, losses.mean() - losses)
    right = (log_probs.argmax(dim=1) == labels).float()
    assert found.right.sum().item() == pytest.approx(0, abs=1e-5) and torch.equal(found.right > 0, right == 1)

    seen: list[Tensor] = []

    def spy(net: SpikingNet, frames: Tensor, labels: Tensor) -> list[Credit]:
        seen.append(labels)
        return trace_credit(net, frames, labels)

    monkeypatch.setattr("snn_chapters.credit.trace_credit", spy)
    images, labels = digits(20)
    net = SpikingNet(6, generator=seeded(0))
    probe(net, flicker(images.float().flatten(1), 6, seeded(1)), labels, seeded(2))
    assert torch.equal(seen[0], labels) and torch.equal(seen[1].sort().values, labels.sort().values)
    assert (seen[1] != labels).any()


@pytest.mark.parametrize("reset", RESETS)
def test_the_credit_of_binary_spikes_is_that_of_autograd(reset: str, device: torch.device) -> None:
    net = SurrogateNet(12, 2, (20, 9, 4), 0.8, 0.5, 0.7, reset, seeded(0)).to(device, torch.float64)
    frames = torch.rand(12, 5, 20, generator=seeded(1), dtype=torch.float64).to(device)
    labels = (torch.arange(5) % 4).to(device)
    record = net.run(frames)
    assert set(record[0].outputs.detach().unique().tolist()) == {0.0, 1.0} and not record[1].outputs.any()
    F.nll_loss(answer(net, frames), labels).backward()
    for layer, factors in zip(net.both_layers, net.credit(frames, labels), strict=True):
        torch.testing.assert_close(gradient_step(factors, layer.decay), -weight_gradient(layer))


def test_the_surrogate_is_the_slope_of_what_stands_for_a_spike() -> None:
    distance = torch.linspace(-1, 1, 21, dtype=torch.float64, requires_grad=True)
    layer = credit.SurrogateLayer(1, 21, 0.0, 1.0, 0.0)
    spike, _ = layer.step(distance + 1, torch.zeros_like(distance))
    assert torch.equal(spike.detach(), (distance > 0).double())
    (slope,) = torch.autograd.grad(spike.sum(), distance)
    torch.testing.assert_close(slope, 1 / (1 + 10 * distance.detach().abs()) ** 2)


def test_in_a_network_without_time_the_error_times_the_input_is_the_step() -> None:
    """A law, for any layer with a linear current: the chain rule."""
    images, labels = digits(60)
    row = static_trial(0, TensorDataset(images.float(), labels), n_updates=3, batch_size=20, n_probe=40, device="cpu")
    assert [probed["update"] for probed in row["probes"]] == [0, 3]
    for probed in row["probes"]:
        found = probed["cosines"][0]["centred"]
        assert found["error x pre first"] == found["error x rates"] == found["signal x trace"] == 1
        assert abs(found["Hebb"]) < 0.9
    json.dumps(row, allow_nan=False)


def test_trials_refuse_unknown_names() -> None:
    with pytest.raises(ValueError, match="'online' or 'bptt'"):
        online_trial("offline", 0, TensorDataset(), TensorDataset())
    with pytest.raises(ValueError, match="'patterns', 'free', 'digits'"):
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
    static = spy(monkeypatch, credit, "static_trial", lambda given: {})
    for _, measure, trials in credit.RECORDS.values():
        assert isinstance(trials, list)
        for settings in trials:
            measure(**settings)
            if settings["task"] == "digits, no time":
                assert are(static[-1]["train"], range(N_TRAIN)) and static[-1]["seed"] == settings["seed"]
                continue
            given = calls[-1]
            assert {name: given[name] for name in settings} == settings
            assert are(given["train"], range(N_TRAIN)) if settings["task"] == "digits" else given["train"] is None
    assert len(calls) + len(static) == sum(len(trials) for _, _, trials in credit.RECORDS.values())


def test_each_condition_has_five_seeds() -> None:
    for _, _, trials in credit.RECORDS.values():
        assert isinstance(trials, list)
        seeds: dict[str, list[int]] = {}
        for settings in trials:
            seeds.setdefault(condition(settings), []).append(settings["seed"])
        assert all(sorted(found) == list(range(5)) for found in seeds.values())


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


def test_the_hidden_layer_is_probed_with_its_own_decay() -> None:
    """The rule that is the exact gradient where nothing is reset: its step must be the gradient's."""
    net = SpikingNet(9, sizes=(6, 5, 3), threshold=0.3, reset="subtract", generator=torch.Generator().manual_seed(0))
    net.layers[0].decay = 0.3
    frames = torch.rand(9, 8, 6, generator=torch.Generator().manual_seed(1))
    (found,) = credit.probe(net, frames, torch.arange(8) % 3, torch.Generator().manual_seed(2), 2)["cosines"]
    assert found["centred"]["signal x trace"] == pytest.approx(1, abs=2e-3)
    with pytest.raises(ValueError, match="not for 3 layers"):
        credit.probe(SpikingNet(9, sizes=(6, 5, 4, 3)), frames, torch.arange(8) % 3, torch.Generator())


# --- The verdicts -----------------------------------------------------------------------------------

FOUND, MADE, NONE = {"pre": 0.6, "post": -0.4, "Hebb": 0.5}, {"pre": 0.5, "post": -0.5}, {"pre": 0.0, "post": 0.0}
CONDITIONS = {"patterns": "scale", "free": "scale", "digits": "discharge"}


def made_up(
    found: dict[str, float],
    made: dict[str, float] = MADE,
    only: str | None = None,
    spread: float = 0.01,
    blind: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of a record, five seeds a condition, whose figures are these; `only` one task, the others as STDP has it.

    On the task `blind` a step made of STDP would not be found.
    """
    rows = []
    for task, reset in CONDITIONS.items():
        here = FOUND | (found if only in (None, task) else {})
        for seed in range(5):
            off = spread * (seed - 2)

            def timed(sides: dict[str, float], off: float = off) -> dict[str, float]:
                return {
                    f"{side} first, timing{null}": (sides[side] if not null else 0.02) + off * (-1 if null else 1)
                    for side in ("pre", "post")
                    for null in ("", ", shuffled")
                }

            centred = timed(here) | {"Hebb": here["Hebb"] + off, "Hebb, other inputs": 0.0}
            wrong = dict.fromkeys(centred, 9.0)
            probes = [
                {"cosines": [{"centred": wrong}], "control": wrong},
                {
                    "cosines": [{"centred": centred}, {"centred": wrong}],
                    "control": timed(NONE if task == blind else MADE | made),
                },
            ]
            rows.append({"settings": {"task": task, "seed": seed, "reset": reset}, "probes": probes})
    return rows


@pytest.mark.parametrize(
    ("found", "made", "only", "spread", "expected"),
    [
        ({}, MADE, None, 0.01, "holds"),
        ({"post": 0.3}, MADE, None, 0.01, "fails"),  # potentiation where STDP depresses
        ({"post": 0.0}, MADE, None, 0.01, "fails"),  # nothing there: the half is missing
        ({"pre": 0.06}, MADE, None, 0.01, "fails"),  # above the null, but by less than the margin
        ({"pre": -0.6}, MADE, None, 0.01, "fails"),
        ({"post": 0.3}, MADE, "digits", 0.01, "holds if"),
        ({"post": -0.1}, MADE, None, 0.02, "open"),  # the interval holds the margin
        ({}, MADE, None, 0.5, "open"),  # the seeds disagree
        ({}, {"pre": 0.5, "post": 0.0}, None, 0.01, "open"),  # a test that does not find what was put there
        ({"post": 0.3}, {"pre": 0.0, "post": -0.5}, None, 0.01, "open"),
    ],
)
def test_the_question_can_be_answered_either_way(
    found: dict[str, float], made: dict[str, float], only: str | None, spread: float, expected: str
) -> None:
    answered = question(made_up(found, made, only, spread))
    assert answered.verdict == expected
    assert set(answered.whole) == {"patterns, scale", "free, scale", "digits, discharge"}


def test_where_the_test_is_blind_it_says_nothing() -> None:
    lost = question(made_up({"post": 0.3}, blind="digits"))
    assert lost.verdict == "fails" and lost.whole["digits, discharge"] == "open"
    won = question(made_up({}, blind="free"))
    assert won.verdict == "holds if" and set(won.whole.values()) == {"holds", "open"}
    unsure = question(made_up({"post": -0.1}, spread=0.02, blind="digits"))
    assert unsure.verdict == "open"


def test_the_answer_names_its_halves_and_figures() -> None:
    answered = question(made_up({"post": 0.3}, only="patterns"))
    assert answered.causal.verdict == "holds" and answered.depression.verdict == "holds if"
    assert answered.depression.decisions["patterns, scale"] == answered.whole["patterns, scale"] == "fails"
    assert answered.whole["free, scale"] == "holds" and set(answered.control.values()) == {"holds"}
    mean, half = answered.depression.figures["patterns, scale"]
    # Student's t with four degrees of freedom is 2.776; 0.01 times (-2 ... 2) has the deviation 0.0158.
    assert mean == pytest.approx(0.3) and half == pytest.approx(2.776 * 0.0158114 / 5**0.5, rel=1e-3)
    assert answered.depression.nulls["patterns, scale"][0] == pytest.approx(0.02)
    # A margin is stated beforehand: with a wider one, the same figures say less; with one too wide, nothing.
    wide = made_up({"pre": 0.6, "post": -0.3}, made={"pre": 0.9, "post": -0.9})
    assert question(wide, margin=0.2).verdict == "holds" and question(wide, margin=0.5).verdict == "fails"
    assert question(wide, margin=0.95).verdict == "open"


@pytest.mark.parametrize(
    ("value", "only", "expected"),
    [(0.5, None, "holds"), (0.05, None, "fails"), (-0.4, None, "fails"), (0.0, "digits", "holds if")],
)
def test_whether_a_step_is_hebbian_can_be_answered_either_way(value: float, only: str | None, expected: str) -> None:
    assert hebbian(made_up({"Hebb": value}, only=only)).verdict == expected


def test_with_equal_rates_there_is_no_step_of_hebbs() -> None:
    """Each input fires as often in every example: its mean taken off, nothing is left to multiply."""
    frames, _ = patterns_task(64, CPU, seeded(0), n_inputs=20)(30, seeded(1))
    inputs = frames.double() - frames.double().mean(dim=(0, 1))
    fired = (torch.rand(64, 30, 5, generator=seeded(2)) < 0.2).double()
    assert rule_steps(fired, inputs, 0.9)["rates"].abs().max() < 1e-12
    free, _ = patterns_task(64, CPU, seeded(0), n_inputs=20, free=True)(30, seeded(1))
    inputs = free.double() - free.double().mean(dim=(0, 1))
    assert rule_steps(fired, inputs, 0.9)["rates"].abs().max() > 1e-4
    assert set(hebbian(made_up({})).figures) == {"free, scale", "digits, discharge"}


def test_swapped_inputs_leave_no_step_of_hebbs_in_the_mean() -> None:
    """What a null of swapped inputs must be held against: centred, they add up to nothing over all swaps."""
    free, labels = patterns_task(64, CPU, seeded(0), n_inputs=20, free=True)(30, seeded(1))
    inputs = free.double() - free.double().mean(dim=(0, 1))
    fired = (torch.rand(64, 30, 5, generator=seeded(2)) < 0.2).double()
    steps = [rule_steps(fired, inputs.roll(shift, dims=1), 0.9)["rates"] for shift in range(30)]
    assert torch.stack(steps).mean(dim=0).abs().max() < 1e-12 < torch.stack(steps).abs().max()
    # The number of pulses is the pattern's: a partner with the same label has the same rates.
    for label in labels.unique():
        rates = free[:, labels == label].double().mean(dim=0)
        torch.testing.assert_close(rates, rates[:1].expand_as(rates))


def test_an_agreement_is_about_one_rule_and_its_null() -> None:
    rows = made_up({})
    assert set(agreement(rows, "Hebb", "Hebb, other inputs", sign=-1).decisions.values()) == {"fails"}
    with pytest.raises(KeyError):
        agreement(rows, "Oja", "Hebb, other inputs")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"task": "patterns", "seed": 1}, "patterns, scale"),
        ({"task": "free", "reset": "discharge"}, "free, discharge"),
        ({"task": "patterns", "penalty": 0.0}, "patterns, no penalty"),
        ({"task": "patterns", "decay": 0.0, "threshold": 0.2}, "patterns, no memory"),
        ({"task": "free", "binary": True}, "free, binary spikes"),
        ({"task": "digits, no time", "seed": 3}, "digits, no time"),
    ],
)
def test_a_condition_is_named_by_what_differs(settings: dict[str, Any], name: str) -> None:
    assert condition(settings) == name
