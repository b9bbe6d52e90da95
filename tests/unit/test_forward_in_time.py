"""The network without a graph through time, held against backpropagation through time."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from snn_chapters import forward_in_time
from snn_chapters.forward_in_time import OnlineNet, online_trial
from spies import (
    N_TRAIN,
    TEST_NUMBERS,
    a_history,
    an_evaluation,
    are,
    numbered,
    one_class,
    several,
    shuffled,
    spy,
)
from torch import Tensor
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, fit
from snn_helpers.neurons import RESETS

each_reset = pytest.mark.parametrize("reset", RESETS)
CPU = torch.device("cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def digits(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of strokes and empty background, [n, 1, 28, 28], and labels."""
    images = torch.rand(n, 1, 28, 28, generator=seeded(seed), dtype=torch.float64)
    return torch.where(images > 0.8, images, 0.0) - 0.5, torch.arange(n) % 10


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


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
    ("call", "error", "words"),
    [
        (lambda: OnlineNet(sizes=(784, 10)), ValueError, "one hidden layer"),
        (lambda: OnlineNet(sizes=(784, 20, 20, 10)), ValueError, "one hidden layer"),
        (lambda: OnlineNet(horizon=0), ValueError, "horizon must be 1 or more, not 0"),
        (lambda: OnlineNet(horizon=2.0), TypeError, "horizon must be a whole number"),  # type: ignore[arg-type]
        (lambda: OnlineNet(4)(torch.zeros(2, 784)), ValueError, "give a generator"),
    ],
)
def test_the_online_network_refuses_what_does_not_fit(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
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


def test_both_ways_of_training_give_one_accuracy() -> None:
    images, labels = digits(40)
    dataset = TensorDataset(images.float(), labels)
    rows = [
        online_trial(method, 0, dataset, dataset, n_steps=10, batch_size=20, learning_rates=[0.1], device="cpu")
        for method in ("online", "bptt")
    ]
    torch.testing.assert_close(rows[0]["batch_loss"], rows[1]["batch_loss"], rtol=1e-4, atol=1e-5)
    assert abs(rows[0]["test_accuracy"] - rows[1]["test_accuracy"]) <= 0.05


# --- The protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["online", "bptt"])
def test_a_network_that_has_seen_one_class_knows_no_other(method: str) -> None:
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 5, "device": "cpu"}
    assert online_trial(method, 0, one_class(3), one_class(5, 10), **settings)["test_accuracy"] == 0
    assert online_trial(method, 0, one_class(3), one_class(3, 10), **settings)["test_accuracy"] == 1


def test_a_test_whose_labels_are_shuffled_gives_chance() -> None:
    """Two classes, 200 digits: five standard errors are 0.18."""
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 5, "device": "cpu"}
    rows = [online_trial("bptt", 0, train, given, **settings) for given in (test, shuffled(test))]
    assert rows[0]["test_accuracy"] > 0.95 and abs(rows[1]["test_accuracy"] - 0.5) < 0.18


@pytest.mark.parametrize(("method", "kind"), [("online", OnlineNet), ("bptt", SpikingNet)])
def test_settings_reach_the_network_and_its_training(method: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_in_time, "whole_mnist", numbered)
    fitted = spy(monkeypatch, forward_in_time, "fit", a_history)
    evaluated = spy(monkeypatch, forward_in_time, "evaluate", an_evaluation)
    row = forward_in_time.measure_online(
        method=method, seed=9, n_steps=7, batch_size=30, learning_rates=(0.2, 0.1), device="cpu"
    )
    (given,), (scored,) = fitted, evaluated
    net = given["model"].net
    assert type(net) is kind and net.n_steps == 7 and scored["model"].net is net
    start = SpikingNet(7, generator=seeded(9))
    for one, other in zip(net.parameters(), start.parameters(), strict=True):
        assert torch.equal(one, other)
    for shown in (given["model"], scored["model"]):  # the flicker of the seed, from its beginning, on the CPU
        assert torch.equal(shown.source.get_state(), seeded(9).get_state())
    assert (given["seed"], given["batch_size"], scored["seed"]) == (9, 30, 9)
    assert tuple(given["learning_rates"]) == (0.2, 0.1)
    assert (given["momentum"], given["weight_decay"], given["test_dataset"]) == (0.5, 0.0, None)
    assert are(given["dataset"], range(N_TRAIN)) and are(scored["dataset"], TEST_NUMBERS)
    wanted = {"test_accuracy": 0.25, "test_loss": 1.5, "batch_loss": [1, 2, 4, 8], "seconds": 1.0, "step_cost": {}}
    assert row == wanted


def test_the_recorded_trials_differ_in_nothing_but_the_method() -> None:
    ((_, _, trials),) = forward_in_time.RECORDS.values()
    assert isinstance(trials, list) and trials
    by_method = {m: [t | {"method": None} for t in trials if t["method"] == m] for m in ("bptt", "online")}
    assert by_method["bptt"] == by_method["online"] and len(trials) == 2 * len(by_method["bptt"])
    for n_steps in (32, 128):
        on_gpu = [t["seed"] for t in by_method["online"] if t["n_steps"] == n_steps and t.get("device") == "cuda"]
        assert on_gpu == [0, 1, 2, 3, 4]


# --- What the trials say --------------------------------------------------------------------------


def a_trial(method: str, seed: int, accuracy: float, **settings: Any) -> dict[str, Any]:
    given = {"method": method, "seed": seed, "n_steps": 32} | settings
    return {"settings": given, "test_accuracy": accuracy, "batch_loss": [2.0, accuracy]}


def pairs_apart(*points: float) -> forward_in_time.Pairs:
    return [(a_trial("bptt", s, 0.9), a_trial("online", s, 0.9 + gap / 100)) for s, gap in enumerate(points)]


@pytest.mark.parametrize(
    ("points", "words", "side"),
    [
        ((0.1, -0.1, 0.05, -0.05, 0.0), "agree", None),
        ((-0.2, -0.1, -0.2, -0.1, -0.2), "agree", "lower with 5 of 5 seeds"),
        ((2.0, 2.1, 1.9, 2.0, 2.2), "differ", "higher with 5 of 5 seeds"),
        ((-1.0, -1.1, -0.9, -1.2, -0.8), "differ", "lower with 5 of 5 seeds"),
        ((1.0, -1.0, 2.0, -2.0, 0.1), "open", None),
        ((1.0, 0.2, 0.3, 0.6, -0.1), "open", None),
    ],
)
def test_the_words_turn_with_the_accuracies(points: tuple[float, ...], words: str, side: str | None) -> None:
    told = forward_in_time.agreement(pairs_apart(*points), margin=0.5)
    assert f"**{words}**" in told and told.count("**") == 2
    assert (side in told) if side else ("leaves 0 out" not in told)


def test_trials_are_paired_by_machine_steps_and_seed() -> None:
    trials = [
        a_trial(method, seed, 0.1 * seed + 0.01 * steps, n_steps=steps, **where)
        for seed in (1, 2)
        for steps in (32, 4)
        for where in ({}, {"device": "cuda"})
        for method in ("online", "bptt")
    ]
    alone = a_trial("online", 3, 0.5)
    found = forward_in_time.in_pairs([alone, *trials, a_trial("bptt", 0, 0.5, n_steps=8)])
    assert list(found) == [("CPU", 4), ("CPU", 32), ("GPU", 4), ("GPU", 32)]
    for pairs in found.values():
        for one, other in pairs:
            assert one["settings"] == other["settings"] | {"method": "bptt"} and other["settings"]["method"] == "online"
        assert [one["settings"]["seed"] for one, _ in pairs] == [1, 2]


def test_losses_apart_is_a_mean_of_distances() -> None:
    pairs = pairs_apart(3.0, -1.0)
    assert forward_in_time.losses_apart(pairs, 0) == 0.0
    assert forward_in_time.losses_apart(pairs, -1) == pytest.approx(0.02)


class Asks(SpikingNet):
    """Notes a number that it draws from what it is shown."""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        assert generator is not None
        self.shown = [*getattr(self, "shown", []), int(torch.randint(2**40, (), generator=generator))]
        return super().forward(images, generator)


def test_the_same_flicker_is_shown_whatever_the_training_hands_over(device: torch.device) -> None:
    net = Asks(4, sizes=(784, 5, 10), generator=seeded(0)).to(device)
    model, images = forward_in_time.SameFlicker(net, 6), digits(3)[0].to(device, torch.float32)
    for number in range(2):
        model(images, torch.Generator(device).manual_seed(number))
    source, wanted = seeded(6), []
    for _ in range(2):
        wanted.append(int(torch.randint(2**40, (), generator=source)))
        SpikingNet(4, sizes=(784, 5, 10))(images.cpu(), source)
    assert net.shown == wanted


def test_what_a_step_costs_is_asked_of_a_gpu_only(device: torch.device) -> None:
    images, labels = digits(20)
    images, labels = images.to(device, torch.float32), labels.to(device)
    net = OnlineNet(8, generator=seeded(0)).to(device)
    if device.type == "cpu":
        with pytest.raises(ValueError, match="must lie on a CUDA GPU, whose peak memory torch knows, not on 'cpu'"):
            forward_in_time.step_cost(net, images, labels)
        return
    costs = {n: forward_in_time.step_cost(SpikingNet(n).to(device), images, labels, repeats=2) for n in (64, 256)}
    # At least the flickering frames must be held, two bytes for each value.
    assert costs[256]["peak_bytes"] - costs[64]["peak_bytes"] > 192 * 20 * 784 * 2
    assert all(cost["seconds"] > 0 for cost in costs.values())


@pytest.mark.parametrize("method", ["online", "bptt"])
def test_a_trial_is_the_same_on_every_device(method: str, device: torch.device) -> None:
    images, labels = digits(12)
    dataset = TensorDataset(images.float(), labels)
    settings: dict[str, Any] = {"n_steps": 6, "batch_size": 4, "learning_rates": [0.1]}
    row, on_cpu = (online_trial(method, 3, dataset, dataset, device=where, **settings) for where in (device, "cpu"))
    torch.testing.assert_close(row["batch_loss"], on_cpu["batch_loss"], rtol=1e-3, atol=1e-4)
    assert (set(row["step_cost"]) == {"peak_bytes", "seconds"}) == (device.type == "cuda")


def test_a_mask_over_the_weights_is_refused_in_words() -> None:
    net = OnlineNet(5, sizes=(6, 4, 3))
    prune.random_unstructured(net.layers[1].linear, "weight", amount=0.5)
    with pytest.raises(TypeError, match=r"layer 2 has a Linear, with the parameters .*bias, weight_orig"):
        net(torch.rand(2, 6), torch.Generator().manual_seed(0))
