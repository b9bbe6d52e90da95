"""What backpropagation does to a weight, held against autograd and against sums written with plain loops."""

from __future__ import annotations

import json
import math
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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
from snn_chapters.forward_in_time import OnlineNet, online_trial
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, fit, flicker, neuron_step
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import (
    Credit,
    gradient_window,
    input_credit,
    pair_stdp,
    pair_weights,
    reset_slope,
    three_factors,
    trace_credit,
    window_law,
)

each_reset = pytest.mark.parametrize("reset", RESETS)
CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weight_gradient(layer: Any) -> Tensor:
    found: Tensor = layer.linear.weight.grad
    return found


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def digits(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of strokes and empty background, [n, 1, 28, 28], and labels."""
    images = torch.rand(n, 1, 28, 28, generator=seeded(seed), dtype=torch.float64)
    return torch.where(images > 0.8, images, 0.0) - 0.5, torch.arange(n) % 10


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


# --- one neuron ----------------------------------------------------------------------------------


@each_reset
@pytest.mark.parametrize("seed", range(4))
def test_the_slope_is_the_derivative_of_the_state_by_the_charge(seed: int, reset: str, device: torch.device) -> None:
    generator = seeded(seed)
    threshold, penalty = uniform(0.3, 3, generator), uniform(0, 4, generator)
    current = (4 * torch.rand(200, generator=generator, dtype=torch.float64)).to(device).requires_grad_()
    output, state = neuron_step(current, torch.zeros_like(current), 0.9, threshold, penalty, reset)
    (expected,) = torch.autograd.grad(state.sum(), current)
    assert (output > 0).any() and (output == 0).any()
    torch.testing.assert_close(reset_slope(output.detach(), threshold, penalty, reset), expected)
    slopes = reset_slope(output > 0, threshold, penalty, reset)
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, expected.float())


@each_reset
@pytest.mark.parametrize("seed", range(10))
def test_the_window_of_autograd_is_the_law(seed: int, reset: str) -> None:
    generator = seeded(seed)
    settings: dict[str, Any] = {
        "decay": uniform(0.05, 1, generator),
        "threshold": uniform(0.2, 5, generator),
        "penalty": uniform(0, 6, generator),
        "reset": reset,
    }
    earlier = torch.randperm(30, generator=generator)[: whole(0, 4, generator)].add(1).tolist()
    delays = list(range(-20, 41))
    measured, law = gradient_window(delays, earlier, **settings), window_law(delays, earlier, **settings)
    torch.testing.assert_close(measured, law, rtol=1e-12, atol=0)
    assert measured.dtype == torch.float64 and (measured[:20] == 0).all() and (law[:20] == 0).all()
    assert measured[20] == 1


@pytest.mark.parametrize("window", [gradient_window, window_law])
def test_the_window_by_hand(window: Any) -> None:
    delays, earlier = [-3, 0, 2, 3, 5, 9], [3, 7]
    powers = torch.tensor([0, 1, 0.9**2, 0.9**3, 0.9**5, 0.9**9], dtype=torch.float64)
    slopes: dict[str, list[float]] = {
        "scale": [-0.5, -0.5, 0.25],
        "discharge": [0, 0, 0],
        "subtract": [1, 1, 1],
        "zero": [0, 0, 0],
    }
    for reset, crossed in slopes.items():
        expected = powers * torch.tensor([1, 1, 1, *crossed])
        torch.testing.assert_close(window(delays, earlier, reset=reset), expected)
    # p / theta < 1 keeps the sign, p / theta = 1 cuts, p / theta > 1 flips it.
    for penalty, sign in ((0.5, 1), (1.0, 0), (1.5, -1)):
        assert window([4], [2], penalty=penalty).sign() == sign


def test_the_law_agrees_with_a_neuron_that_is_driven_and_not_clamped() -> None:
    """The same pulse and spikes, but by strong currents: the derivative depends on the spike times alone."""
    for delay in range(-5, 21):
        weight = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
        state = torch.zeros((), dtype=torch.float64)
        for t in range(40):
            current = weight * float(t == 25 - delay) + (5.0 if t in (17, 25) else 0.0)
            output, state = neuron_step(current, state)
            assert (output > 0) == (t in (17, 25))
            if t == 25 and output.requires_grad:
                (measured,) = torch.autograd.grad(output, weight, allow_unused=True, retain_graph=True)
        expected = window_law([delay], [8]).item()
        if delay < 0:
            assert expected == 0
        else:
            assert measured.item() == pytest.approx(expected)


@pytest.mark.parametrize("window", [gradient_window, window_law])
@pytest.mark.parametrize(
    ("delays", "settings", "error", "words"),
    [
        ([], {}, ValueError, "at least one delay"),
        ([1.5], {}, TypeError, "delays must hold whole numbers"),
        ([True], {}, TypeError, "delays must hold whole numbers"),
        ([1], {"earlier": [0]}, ValueError, "each 1 or more"),
        ([1], {"earlier": [2.0]}, TypeError, "earlier must hold whole numbers"),
        ([1], {"reset": "none"}, ValueError, "reset must be one of"),
        ([1], {"decay": 1.1}, ValueError, "decay must lie"),
    ],
)
def test_the_window_refuses_what_does_not_fit(
    window: Any, delays: Any, settings: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        window(delays, **settings)


# --- three factors -------------------------------------------------------------------------------


def both_ways(
    reset: str, sizes: tuple[int, ...], begin_eval: int, dtype: torch.dtype, device: torch.device
) -> tuple[SpikingNet, list[Credit]]:
    """A network with autograd's gradients in place, and the credit traced through the same frames."""
    net = SpikingNet(24, begin_eval, sizes, reset=reset, generator=seeded(1)).to(device, dtype)
    images, labels = digits(6)
    images, labels = images.to(device, dtype), (labels % sizes[-1]).to(device)
    F.nll_loss(net(images, seeded(2)), labels).backward()
    return net, trace_credit(net, flicker(images.flatten(1), 24, seeded(2)), labels)


@each_reset
@pytest.mark.parametrize(
    ("sizes", "begin_eval"), [((784, 30, 10), 0), ((784, 30, 10), 9), ((784, 7), 3), ((784, 40, 30, 5), 0)]
)
def test_three_factors_make_the_gradient(
    reset: str, sizes: tuple[int, ...], begin_eval: int, device: torch.device
) -> None:
    net, factors = both_ways(reset, sizes, begin_eval, torch.float64, device)
    assert len(factors) == len(sizes) - 1
    for layer, (inputs, outputs, slopes, signals) in zip(net.layers, factors, strict=True):
        assert outputs.any() or layer is net.layers[-1]
        ones = torch.ones_like(inputs[:, :, :1])  # the input of the bias
        found = three_factors(torch.cat([inputs, ones], dim=2), signals, slopes, 0.9)
        torch.testing.assert_close(found[:, :-1], weight_gradient(layer), rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found[:, -1], layer.get_submodule("linear").bias.grad, rtol=1e-9, atol=1e-14)
        credit = input_credit(signals, slopes, 0.9)
        backwards = torch.einsum("tbj,tbi->ji", credit, inputs)
        torch.testing.assert_close(backwards, weight_gradient(layer), rtol=1e-9, atol=1e-14)
        by_delay = [torch.einsum("tbj,tbi->ji", w, inputs[: len(w)]) for w in pair_weights(signals, slopes, 0.9, 99)]
        assert len(by_delay) == 23
        torch.testing.assert_close(sum(by_delay), weight_gradient(layer), rtol=1e-9, atol=1e-14)


@each_reset
def test_three_factors_make_the_gradient_in_single_precision(reset: str, device: torch.device) -> None:
    net, factors = both_ways(reset, (784, 100, 10), 0, torch.float32, device)
    for layer, (inputs, _, slopes, signals) in zip(net.layers, factors, strict=True):
        assert relative(three_factors(inputs, signals, slopes, 0.9), weight_gradient(layer)) < 1e-5


def test_a_hidden_neuron_has_a_signal_only_where_it_fires(device: torch.device) -> None:
    _, (hidden, last) = both_ways("scale", (784, 30, 10), 0, torch.float64, device)
    assert (hidden.signals[hidden.outputs == 0] == 0).all() and hidden.signals.any()
    assert (last.signals != 0).all()  # the state is read out at every step


def test_credit_is_not_traced_into_a_graph(device: torch.device) -> None:
    _, factors = both_ways("scale", (784, 30, 10), 0, torch.float64, device)
    assert not any(part.requires_grad for layer in factors for part in layer)


def small_factors(seed: int, n_steps: int = 9) -> Credit:
    generator = seeded(seed)
    shape = (n_steps, 2, 3)
    fired = torch.rand(shape, generator=generator) < 0.3
    outputs = fired * torch.rand(shape, generator=generator, dtype=torch.float64)
    inputs = torch.randn(n_steps, 2, 4, generator=generator, dtype=torch.float64)
    signals = torch.randn(shape, generator=generator, dtype=torch.float64) * fired
    return Credit(inputs, outputs, reset_slope(outputs, 1.0, 1.5, "scale"), signals)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_and_credit_by_loops(seed: int) -> None:
    inputs, _, slopes, signals = small_factors(seed)
    n_steps = len(inputs)
    weights = list(pair_weights(signals, slopes, 0.9, n_steps))
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for b in range(2):
        for j in range(3):
            for s in range(n_steps):
                credit = 0.0
                for t in range(s, n_steps):
                    path = math.prod(0.9 * slopes[r, b, j].item() for r in range(s, t))
                    assert weights[t - s][s, b, j].item() == pytest.approx(signals[t, b, j].item() * path, abs=1e-15)
                    credit += signals[t, b, j].item() * path
                found = input_credit(signals, slopes, 0.9)[s, b, j].item()
                assert found == pytest.approx(credit, abs=1e-15)
                expected[j] += credit * inputs[s, b]
    torch.testing.assert_close(three_factors(inputs, signals, slopes, 0.9), expected)


def test_without_resets_the_eligibility_is_the_plain_trace_and_nothing_is_anticausal() -> None:
    inputs, _, _, signals = small_factors(0)
    plain = torch.ones_like(signals)
    weights = list(pair_weights(signals, plain, 0.9, 4))
    for delay, w in enumerate(weights):
        torch.testing.assert_close(w, signals[delay:] * 0.9**delay)
    late = inputs.clone()
    last_spike = int(signals.abs().sum(dim=(1, 2)).nonzero().max())
    late[: last_spike + 1] = 0
    assert (three_factors(late, signals, plain, 0.9) == 0).all()


FRAMES = torch.zeros(5, 2, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: input_credit(FRAMES, FRAMES[1:], 0.9), ValueError, "one shape"),
        (lambda: input_credit(FRAMES[0], FRAMES[0], 0.9), ValueError, r"signals must have the shape \[steps"),
        (lambda: input_credit(FRAMES > 0, FRAMES, 0.9), TypeError, "floating dtype"),
        (lambda: three_factors(FRAMES[1:], FRAMES, FRAMES, 0.9), ValueError, r"inputs must have the shape \[5, 2"),
        (lambda: next(pair_weights(FRAMES, FRAMES[:, :1], 0.9, 3)), ValueError, "one shape"),
        (lambda: trace_credit(SpikingNet(sizes=(4, 2)), FRAMES[:1], torch.zeros(2)), ValueError, "at least 2 steps"),
        (lambda: trace_credit(SpikingNet(9, 5, (4, 2)), FRAMES, torch.zeros(2)), ValueError, "begin_eval"),
        (lambda: trace_credit(SpikingNet(sizes=(4, 2)), FRAMES, torch.zeros(3)), ValueError, "labels must have"),
    ],
)
def test_the_factors_refuse_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# --- forward in time -----------------------------------------------------------------------------


def pair_of_nets(
    device: torch.device, dtype: torch.dtype, horizon: int, **settings: Any
) -> tuple[SpikingNet, OnlineNet]:
    bptt = SpikingNet(**settings, generator=seeded(1)).to(device, dtype)
    online = OnlineNet(**settings, generator=seeded(1), horizon=horizon).to(device, dtype)
    return bptt, online


def gradients(net: SpikingNet, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = seeded(3)
    net.zero_grad()
    log_probs = net(images, generator)
    F.nll_loss(log_probs, labels).backward()
    return log_probs.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None], generator.get_state()


@each_reset
@pytest.mark.parametrize(
    ("n_steps", "begin_eval", "horizon"), [(2, 0, 4), (3, 2, 1), (8, 0, 4), (9, 0, 4), (31, 7, 64), (40, 0, 20)]
)
def test_online_gradients_are_those_of_backpropagation_through_time(
    reset: str, n_steps: int, begin_eval: int, horizon: int, device: torch.device
) -> None:
    settings = {"n_steps": n_steps, "begin_eval": begin_eval, "sizes": (784, 30, 10), "reset": reset}
    bptt, online = pair_of_nets(device, torch.float64, horizon, **settings)
    images, labels = (part.to(device) for part in digits(7))
    answer, expected, state = gradients(bptt, images, labels)
    online_answer, found, online_state = gradients(online, images, labels)
    torch.testing.assert_close(online_answer, answer)
    assert torch.equal(state, online_state)  # both leave the generator where the other does
    if n_steps <= 2 * horizon:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


@each_reset
def test_online_gradients_in_single_precision(reset: str, device: torch.device) -> None:
    bptt, online = pair_of_nets(device, torch.float32, 64, n_steps=32, reset=reset)
    images, labels = digits(5)
    images, labels = images.to(device, torch.float32), labels.to(device)
    _, expected, _ = gradients(bptt, images, labels)
    _, found, _ = gradients(online, images, labels)
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-5


@pytest.mark.parametrize("n_steps", [24, 40, 64, 100])
@pytest.mark.parametrize("horizon", [1, 4, 8])
def test_what_lies_beyond_the_horizon_has_faded(n_steps: int, horizon: int, device: torch.device) -> None:
    bptt, online = pair_of_nets(device, torch.float64, horizon, n_steps=n_steps, sizes=(784, 30, 10))
    images, labels = (part.to(device) for part in digits(7))
    _, expected, _ = gradients(bptt, images, labels)
    _, found, _ = gradients(online, images, labels)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        # The last layer's own gradient needs no horizon.
        assert relative(one, other) < (1.5 * 0.9**horizon if number < 2 else 1e-12)
    assert relative(found[0], expected[0]) > 1e-9


def test_other_decays_and_penalties_and_losses(device: torch.device) -> None:
    settings = {"n_steps": 20, "sizes": (784, 15, 6), "decay": 0.7, "threshold": 0.5, "penalty": 0.2}
    bptt, online = pair_of_nets(device, torch.float64, 32, **settings)
    images = digits(4)[0].to(device)
    for net in (bptt, online):
        (net(images, seeded(5)) ** 2).sum().backward()
    for one, other in zip(online.parameters(), bptt.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-14)


def test_without_gradients_it_is_the_other_network(device: torch.device) -> None:
    bptt, online = pair_of_nets(device, torch.float32, 8, n_steps=12)
    images = digits(4)[0].to(device, torch.float32)
    with torch.no_grad():
        assert torch.equal(bptt(images, seeded(1)), online(images, seeded(1)))
        assert online(images).shape == (4, 10)


def test_there_is_no_graph_through_time(device: torch.device) -> None:
    online = OnlineNet(30, generator=seeded(0)).to(device)
    log_probs = online(digits(3)[0].to(device, torch.float32), seeded(1))
    nodes, found = [log_probs.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            found.append(type(node).__name__)
            nodes += [following for following, _ in node.next_functions]
    assert sorted(found) == ["AccumulateGrad"] * 4 + ["LogSoftmaxBackward0", "_TwoShowingsBackward"]


def test_weights_changed_between_the_showings_are_noticed(device: torch.device) -> None:
    online = OnlineNet(6, generator=seeded(0)).to(device)
    loss = online(digits(3)[0].to(device, torch.float32), seeded(1)).sum()
    with torch.no_grad():
        next(online.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_fit_trains_both_alike() -> None:
    images, labels = digits(30)
    dataset = TensorDataset(images.float(), labels)
    bptt, online = pair_of_nets(CPU, torch.float32, 64, n_steps=12)
    histories = [fit(net, dataset, seed=4, device="cpu", batch_size=10, progress=False) for net in (bptt, online)]
    torch.testing.assert_close(histories[0].loss, histories[1].loss, rtol=1e-4, atol=1e-5)
    for one, other in zip(online.parameters(), bptt.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: OnlineNet(sizes=(784, 10)), "one hidden layer"),
        (lambda: OnlineNet(sizes=(784, 20, 20, 10)), "one hidden layer"),
        (lambda: OnlineNet(horizon=0), "horizon must be a whole number of 1 or more"),
        (lambda: OnlineNet(horizon=2.0), "horizon"),  # type: ignore[arg-type]
        (lambda: OnlineNet(4)(torch.zeros(2, 784)), "give a generator"),
    ],
)
def test_the_online_network_refuses_what_does_not_fit(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


class PeakMemory(TorchDispatchMode):
    """The bytes of all tensors made inside, at most at any one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.peak = 0, 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.release, storage._cdata, storage.nbytes())
        return made

    def release(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def test_memory_does_not_grow_with_the_number_of_steps(device: torch.device) -> None:
    images, labels = digits(2)
    images, labels = images.to(device, torch.float32), labels.to(device)
    peaks: dict[type, list[int]] = {}
    for kind in (SpikingNet, OnlineNet):
        for n_steps in (80, 160, 320):
            net = kind(n_steps, generator=seeded(0)).to(device)
            if isinstance(net, OnlineNet):
                net.horizon = 16
            with PeakMemory() as memory:
                F.nll_loss(net(images, seeded(1)), labels).backward()
            peaks.setdefault(kind, []).append(memory.peak)
    # The rows of the neurons that fire together make the peak: the busiest step may be a little busier.
    assert peaks[OnlineNet][2] <= 1.05 * peaks[OnlineNet][0]
    grown = [later - earlier for earlier, later in zip(peaks[SpikingNet], peaks[SpikingNet][1:])]
    # At least the flickering frames and both layers' charges must be kept, for each step.
    assert grown[0] >= 80 * 2 * (784 + 110) * 4 and grown[1] == pytest.approx(2 * grown[0], rel=0.05)


# --- the measurements ----------------------------------------------------------------------------


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


def test_both_ways_of_training_give_one_accuracy() -> None:
    images, labels = digits(40)
    dataset = TensorDataset(images.float(), labels)
    rows = [
        online_trial(method, 0, dataset, dataset, n_steps=10, batch_size=20, learning_rates=[0.1], device="cpu")
        for method in ("online", "bptt")
    ]
    torch.testing.assert_close(rows[0]["batch_loss"], rows[1]["batch_loss"], rtol=1e-4, atol=1e-5)
    assert abs(rows[0]["test_accuracy"] - rows[1]["test_accuracy"]) <= 0.05


def test_trials_refuse_unknown_names() -> None:
    with pytest.raises(ValueError, match="'online' or 'bptt'"):
        online_trial("offline", 0, TensorDataset(), TensorDataset())
    with pytest.raises(ValueError, match="'digits' or 'patterns'"):
        plasticity_trial("letters", 0)
    with pytest.raises(ValueError, match="needs train"):
        plasticity_trial("digits", 0)
