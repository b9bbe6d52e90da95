"""Traces, pair-based STDP and what backpropagation does to a weight: held against sums over pairs and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from snn_helpers import SpikingNet, flicker, neuron_step
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import (
    Credit,
    gradient_window,
    input_credit,
    pair_stdp,
    pair_weights,
    reset_slope,
    spike_trace,
    three_factors,
    trace_credit,
    window_law,
)

RULE: dict[str, Any] = {"a_plus": 1.0, "a_minus": 0.6, "tau_plus": 16.8, "tau_minus": 33.7}
MIRRORED: dict[str, Any] = {"a_plus": 0.6, "a_minus": 1.0, "tau_plus": 33.7, "tau_minus": 16.8}


def random_train(seed: int, n_steps: int, n_batch: int, n_neurons: int, rate: float = 0.15) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n_steps, n_batch, n_neurons, generator=generator, dtype=torch.float64) < rate).double()


def graded(spikes: Tensor, seed: int) -> Tensor:
    return spikes * torch.rand(spikes.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(times: list[int], n_steps: int = 60) -> Tensor:
    spikes = torch.zeros(n_steps, 1, 1, dtype=torch.float64)
    spikes[times] = 1
    return spikes


def pair_window(delay: int, a_plus: float, a_minus: float, tau_plus: float, tau_minus: float) -> float:
    if delay > 0:
        return a_plus * math.exp(-delay / tau_plus)
    if delay < 0:
        return -a_minus * math.exp(delay / tau_minus)
    return 0.0


def loop_all(pre: list[float], post: list[float], rule: dict[str, float]) -> float:
    return sum(
        x * y * pair_window(t_post - t_pre, **rule)
        for t_pre, x in enumerate(pre)
        for t_post, y in enumerate(post)
        if x > 0 and y > 0
    )


def loop_nearest(pre: list[float], post: list[float], rule: dict[str, float]) -> float:
    """Walk through time and remember the last spike of each side before the present step."""
    change, last_pre, last_post = 0.0, None, None
    for t, (x, y) in enumerate(zip(pre, post, strict=True)):
        if y > 0 and last_pre is not None:
            change += pair_window(t - last_pre, **rule)
        if x > 0 and last_post is not None:
            change += pair_window(last_post - t, **rule)
        last_pre = t if x > 0 else last_pre
        last_post = t if y > 0 else last_post
    return change


def by_loops(pre: Tensor, post: Tensor, rule: dict[str, float], pairing: str) -> Tensor:
    loop = {"all": loop_all, "nearest": loop_nearest}[pairing]
    changes = torch.zeros(post.shape[2], pre.shape[2], dtype=torch.float64)
    for i in range(post.shape[2]):
        for j in range(pre.shape[2]):
            for b in range(pre.shape[1]):
                changes[i, j] += loop(pre[:, b, j].tolist(), post[:, b, i].tolist(), rule)
    return changes


# --- traces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0, 1])
@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 3)])
def test_a_trace_is_the_sum_of_faded_spikes(decay: float, shape: tuple[int, ...], device: Any) -> None:
    spikes = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    trace = spike_trace(spikes, decay)
    for t in range(40):
        expected = sum(decay ** (t - s) * spikes[s] for s in range(t + 1))
        torch.testing.assert_close(trace[t], expected)


def test_a_trace_counts_its_own_step_and_lets_gradients_through() -> None:
    spikes = torch.tensor([0.0, 1.0, 0.0, 2.0], requires_grad=True)
    trace = spike_trace(spikes, 0.5)
    torch.testing.assert_close(trace, torch.tensor([0.0, 1.0, 0.5, 2.25]))
    trace[3].backward()
    torch.testing.assert_close(spikes.grad, torch.tensor([0.125, 0.25, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("spikes", "decay", "error", "words"),
    [
        (torch.ones(3), 1.1, ValueError, "decay must lie between 0"),
        (torch.ones(3), -0.1, ValueError, "decay must lie between 0"),
        (torch.ones(3), math.nan, ValueError, "decay must lie between 0"),
        (torch.ones(3), "0.9", TypeError, "decay must be a number"),
        (torch.ones(3), True, TypeError, "decay must be a number"),
        ([1.0, 0.0], 0.9, TypeError, "spikes must be a torch.Tensor"),
        (torch.ones(3, dtype=torch.int64), 0.9, TypeError, "floating dtype"),
        (torch.tensor(1.0), 0.9, ValueError, "time first"),
        (torch.ones(0, 2), 0.9, ValueError, "time first"),
    ],
)
def test_a_trace_refuses_what_does_not_fit(spikes: Any, decay: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        spike_trace(spikes, decay)


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("seed", range(5))
def test_stdp_is_the_sum_over_pairs(seed: int, pairing: str, device: Any) -> None:
    pre, post = random_train(seed, 80, 2, 3), random_train(100 + seed, 80, 2, 4)
    changes = pair_stdp(pre.to(device), post.to(device), **RULE, pairing=pairing)
    assert changes.shape == (4, 3) and changes.dtype == torch.float64
    torch.testing.assert_close(changes.cpu(), by_loops(pre, post, RULE, pairing))


@pytest.mark.parametrize("seed", range(3))
def test_graded_pairs_count_as_the_product_of_their_amplitudes(seed: int, device: Any) -> None:
    pre, post = graded(random_train(seed, 80, 2, 2), seed), graded(random_train(9 + seed, 80, 2, 3), 9 + seed)
    changes = pair_stdp(pre.to(device), post.to(device), **RULE)
    torch.testing.assert_close(changes.cpu(), by_loops(pre, post, RULE, "all"))
    torch.testing.assert_close(pair_stdp(3 * pre, 2 * post, **RULE), 6 * pair_stdp(pre, post, **RULE))


def test_nearest_neighbours_take_no_account_of_amplitudes() -> None:
    pre, post = random_train(1, 80, 2, 2), random_train(2, 80, 2, 3)
    expected = pair_stdp(pre, post, **RULE, pairing="nearest")
    assert torch.equal(pair_stdp(0.1 * pre, 5 * post, **RULE, pairing="nearest"), expected)


@pytest.mark.parametrize("pairing", ["all", "nearest"])
@pytest.mark.parametrize("delay", [-20, -1, 0, 1, 20])
def test_one_pair_gives_the_window(delay: int, pairing: str) -> None:
    change = pair_stdp(at([30]), at([30 + delay]), **RULE, pairing=pairing)
    torch.testing.assert_close(change.item(), pair_window(delay, **RULE))
    assert (change.item() > 0) == (delay > 0) and (change.item() < 0) == (delay < 0)


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_simultaneous_spikes_are_no_pair(pairing: str) -> None:
    assert pair_stdp(at([7]), at([7]), **RULE, pairing=pairing).item() == 0
    # Each of the two at step 20 still meets the other side's earlier spike, as in NEST's symmetric scheme.
    change = pair_stdp(at([10, 20]), at([20]), **RULE, pairing=pairing).item()
    assert change == pytest.approx(pair_window(10, **RULE))
    change = pair_stdp(at([20]), at([10, 20]), **RULE, pairing=pairing).item()
    assert change == pytest.approx(pair_window(-10, **RULE))


def test_the_pairings_differ_as_soon_as_there_are_two_spikes_to_choose_from() -> None:
    pre, post = at([10, 20]), at([25])
    assert pair_stdp(pre, post, **RULE).item() == pytest.approx(pair_window(15, **RULE) + pair_window(5, **RULE))
    assert pair_stdp(pre, post, **RULE, pairing="nearest").item() == pytest.approx(pair_window(5, **RULE))


@pytest.mark.parametrize("seed", range(3))
def test_backwards_in_time_the_two_sides_of_the_window_swap_roles(seed: int) -> None:
    pre = graded(random_train(seed, 80, 2, 3), seed)
    post = graded(random_train(50 + seed, 80, 2, 2), 50 + seed)
    backwards = pair_stdp(pre.flip(0), post.flip(0), **RULE)
    torch.testing.assert_close(backwards, -pair_stdp(pre, post, **MIRRORED))
    # Swapping the neurons does the same to each delay.
    torch.testing.assert_close(pair_stdp(post, pre, **RULE).T, backwards)


def test_nearest_neighbours_look_only_back_so_the_law_of_reversal_fails() -> None:
    pre, post = at([10, 20]), at([25])
    backwards = pair_stdp(pre.flip(0), post.flip(0), **RULE, pairing="nearest")
    assert backwards.item() != pytest.approx(-pair_stdp(pre, post, **MIRRORED, pairing="nearest").item())


def test_batch_and_sides_add_up() -> None:
    pre, post = random_train(3, 60, 3, 2), random_train(4, 60, 3, 2)
    one_by_one = [pair_stdp(pre[:, b : b + 1], post[:, b : b + 1], **RULE) for b in range(3)]
    torch.testing.assert_close(pair_stdp(pre, post, **RULE), torch.stack(one_by_one).sum(dim=0))
    gain, loss = pair_stdp(pre, post, **RULE | {"a_minus": 0}), pair_stdp(pre, post, **RULE | {"a_plus": 0})
    assert (gain >= 0).all() and (loss <= 0).all()
    torch.testing.assert_close(gain + loss, pair_stdp(pre, post, **RULE))


def test_traces_and_rule_agree() -> None:
    pre, post = random_train(5, 60, 1, 1), random_train(6, 60, 1, 1)
    before = spike_trace(pre, math.exp(-1 / 16.8)) - pre
    gain = pair_stdp(pre, post, **RULE | {"a_minus": 0.0})
    torch.testing.assert_close(gain.item(), (post * before).sum().item())


def test_single_precision_and_gradients(device: Any) -> None:
    pre, post = random_train(7, 60, 2, 2).float().to(device), random_train(8, 60, 2, 2).float().to(device)
    pre.requires_grad_()
    changes = pair_stdp(pre, post, **RULE)
    assert changes.dtype == torch.float32
    changes.sum().backward()
    assert pre.grad is not None and pre.grad.isfinite().all() and pre.grad.any()


SPIKES = torch.zeros(5, 2, 3)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"a_plus": -1.0}, ValueError, "a_plus must be a finite number of 0 or more"),
        ({"a_minus": -0.3}, ValueError, "a_minus must be a finite number of 0 or more, not -0.3"),
        ({"a_minus": math.inf}, ValueError, "a_minus"),
        ({"a_plus": None}, TypeError, "a_plus must be a number"),
        ({"tau_plus": 0}, ValueError, "tau_plus must be a finite number above 0"),
        ({"tau_minus": -5.0}, ValueError, "tau_minus"),
        ({"tau_minus": math.nan}, ValueError, "tau_minus"),
        ({"tau_plus": True}, TypeError, "tau_plus must be a number"),
        ({"pairing": "some"}, ValueError, "pairing must be one of 'all', 'nearest'"),
        ({"pre": [[0.0]]}, TypeError, "pre must be a torch.Tensor"),
        ({"post": SPIKES > 0}, TypeError, "post must have a floating dtype"),
        ({"post": SPIKES.double()}, TypeError, "one dtype"),
        ({"pre": SPIKES[:, 0]}, ValueError, r"pre must have the shape \[steps, batch, neurons\]"),
        ({"pre": SPIKES[:0]}, ValueError, "each at least 1"),
        ({"pre": SPIKES[:4]}, ValueError, r"one shape: pre has \[4, 2, 1\], post \[5, 2, 1\]"),
        ({"post": SPIKES[:, :1]}, ValueError, r"one shape: pre has \[5, 2, 1\], post \[5, 1, 1\]"),
        ({"pre": SPIKES.to("meta")}, ValueError, "one device"),
        ({"post": SPIKES - 1}, ValueError, "are these states"),
        ({"pre": SPIKES * math.nan}, ValueError, "NaN"),
    ],
)
def test_the_rule_refuses_what_does_not_fit(changed: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pair_stdp(**{"pre": SPIKES, "post": SPIKES, **RULE, **changed})


each_reset = pytest.mark.parametrize("reset", RESETS)


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
        ([1.5], {}, TypeError, "delays must be a whole number"),
        ([True], {}, TypeError, "delays must be a whole number"),
        ([1], {"earlier": [0]}, ValueError, "each 1 or more"),
        ([1], {"earlier": [2.0]}, TypeError, "earlier must be a whole number"),
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


def gradients(net: SpikingNet, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    generator = seeded(3)
    net.zero_grad()
    log_probs = net(images, generator)
    F.nll_loss(log_probs, labels).backward()
    return log_probs.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None], generator.get_state()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), "labels must lie between 0 and 2, the classes, but one is 3"),
        (torch.tensor([0, -1]), "but one is -1"),
        (torch.tensor([0.0, 1.0]), "labels must be whole numbers"),
        ([0, 1], "labels must be a torch.Tensor, not list"),
    ],
)
def test_credit_refuses_labels_that_are_no_classes(labels: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        trace_credit(SpikingNet(5, sizes=(6, 4, 3)), torch.rand(5, 2, 6), labels)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_window_is_found_where_gradients_are_off(off: Any) -> None:
    with off():
        found = gradient_window([-1, 0, 2], decay=0.5)
    assert found.tolist() == [0.0, 1.0, 0.25]
