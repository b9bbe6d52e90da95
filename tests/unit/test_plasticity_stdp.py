"""Spike traces and pair-based STDP, held against sums over pairs of spikes written with plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from snn_helpers.plasticity import pair_stdp, spike_trace

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


def window(delay: int, a_plus: float, a_minus: float, tau_plus: float, tau_minus: float) -> float:
    if delay > 0:
        return a_plus * math.exp(-delay / tau_plus)
    if delay < 0:
        return -a_minus * math.exp(delay / tau_minus)
    return 0.0


def loop_all(pre: list[float], post: list[float], rule: dict[str, float]) -> float:
    return sum(
        x * y * window(t_post - t_pre, **rule)
        for t_pre, x in enumerate(pre)
        for t_post, y in enumerate(post)
        if x > 0 and y > 0
    )


def loop_nearest(pre: list[float], post: list[float], rule: dict[str, float]) -> float:
    """Walk through time and remember the last spike of each side before the present step."""
    change, last_pre, last_post = 0.0, None, None
    for t, (x, y) in enumerate(zip(pre, post, strict=True)):
        if y > 0 and last_pre is not None:
            change += window(t - last_pre, **rule)
        if x > 0 and last_post is not None:
            change += window(last_post - t, **rule)
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
    torch.testing.assert_close(change.item(), window(delay, **RULE))
    assert (change.item() > 0) == (delay > 0) and (change.item() < 0) == (delay < 0)


@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_simultaneous_spikes_are_no_pair(pairing: str) -> None:
    assert pair_stdp(at([7]), at([7]), **RULE, pairing=pairing).item() == 0
    # Each of the two at step 20 still meets the other side's earlier spike, as in NEST's symmetric scheme.
    change = pair_stdp(at([10, 20]), at([20]), **RULE, pairing=pairing).item()
    assert change == pytest.approx(window(10, **RULE))
    change = pair_stdp(at([20]), at([10, 20]), **RULE, pairing=pairing).item()
    assert change == pytest.approx(window(-10, **RULE))


def test_the_pairings_differ_as_soon_as_there_are_two_spikes_to_choose_from() -> None:
    pre, post = at([10, 20]), at([25])
    assert pair_stdp(pre, post, **RULE).item() == pytest.approx(window(15, **RULE) + window(5, **RULE))
    assert pair_stdp(pre, post, **RULE, pairing="nearest").item() == pytest.approx(window(5, **RULE))


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
        ({"a_minus": -0.3}, ValueError, "the rule itself has the sign"),
        ({"a_minus": math.inf}, ValueError, "a_minus"),
        ({"a_plus": None}, TypeError, "a_plus must be a number"),
        ({"tau_plus": 0}, ValueError, "tau_plus must be a finite number of steps above 0"),
        ({"tau_minus": -5.0}, ValueError, "tau_minus"),
        ({"tau_minus": math.nan}, ValueError, "tau_minus"),
        ({"tau_plus": True}, TypeError, "tau_plus must be a number"),
        ({"pairing": "some"}, ValueError, "pairing must be one of 'all', 'nearest'"),
        ({"pre": [[0.0]]}, TypeError, "pre must be a torch.Tensor"),
        ({"post": SPIKES > 0}, TypeError, "post must have a floating dtype"),
        ({"post": SPIKES.double()}, TypeError, "one dtype"),
        ({"pre": SPIKES[:, 0]}, ValueError, r"pre must have the shape \[steps, batch, neurons\]"),
        ({"pre": SPIKES[:0]}, ValueError, "each at least 1"),
        ({"pre": SPIKES[:4]}, ValueError, "one number of steps"),
        ({"post": SPIKES[:, :1]}, ValueError, "one number of steps and one batch"),
        ({"pre": SPIKES.to("meta")}, ValueError, "one device"),
        ({"post": SPIKES - 1}, ValueError, "are these states"),
        ({"pre": SPIKES * math.nan}, ValueError, "NaN"),
    ],
)
def test_the_rule_refuses_what_does_not_fit(changed: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pair_stdp(**{"pre": SPIKES, "post": SPIKES, **RULE, **changed})
