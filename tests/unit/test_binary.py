"""Binary spikes against plain loops, surrogates against their formulas, NIR against snnTorch, and the trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from snn_chapters import binary
from snn_chapters.binary import (
    LEADS,
    SHAPES,
    BinarySpikingLayer,
    BinarySpikingNet,
    accuracy_with_drops,
    binary_spike,
    binary_step,
    evidence,
    make_model,
    surrogate_law,
    surrogate_slope,
    surrogate_trial,
    surrogate_window,
    to_nir,
    what_spikes_buy,
)
from spies import (
    N_TRAIN,
    TEST_NUMBERS,
    Calls,
    an_evaluation,
    are,
    numbered,
    one_class,
    several,
    shuffled,
    spy,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingLayer, SpikingNet, neuron_step
from snn_helpers.neurons import RESETS

# Each shape once more, in plain Python.
FORMULAS: dict[str, Callable[[float], float]] = {
    "fast sigmoid": lambda z: 1 / (1 + abs(z)) ** 2,
    "arctan": lambda z: 1 / (1 + z * z),
    "sigmoid": lambda z: 4 / (2 + math.exp(z) + math.exp(-z)),
    "triangle": lambda z: max(0.0, 1 - abs(z)),
    "rectangle": lambda z: 1.0 if abs(z) < 1 else 0.0,
    "none": lambda z: 0.0,
}
# What each is the derivative of, times its slope.
INTEGRALS: dict[str, Callable[[float], float]] = {
    "fast sigmoid": lambda z: z / (1 + abs(z)),
    "arctan": math.atan,
    "sigmoid": lambda z: 4 / (1 + math.exp(-z)),
    "triangle": lambda z: math.copysign(min(abs(z), 1) - min(abs(z), 1) ** 2 / 2, z),
    "rectangle": lambda z: max(-1.0, min(1.0, z)),
}
each_shape = pytest.mark.parametrize("shape", SHAPES)
each_reset = pytest.mark.parametrize("reset", RESETS)


def draw(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@each_shape
@pytest.mark.parametrize("slope", [0.5, 3.0, 25.0])
def test_backward_is_the_formula(shape: str, slope: float, device: torch.device) -> None:
    distance = torch.cat([draw(200) / slope, torch.zeros(1)]).to(device).requires_grad_()
    arriving = draw(201, seed=1).to(device)
    binary_spike(distance, shape, slope).backward(arriving)
    wanted = torch.tensor([FORMULAS[shape](slope * x) for x in distance.tolist()], dtype=torch.float64)
    assert distance.grad is not None
    torch.testing.assert_close(distance.grad.cpu(), wanted * arriving.cpu())
    torch.testing.assert_close(surrogate_slope(distance.detach(), shape, slope).cpu(), wanted)


@pytest.mark.parametrize("shape", INTEGRALS)
def test_shapes_are_derivatives_of_steps_from_low_to_high(shape: str) -> None:
    for z in (-2.3, -0.4, 0.1, 0.7, 3.0):
        rise = (INTEGRALS[shape](z + 1e-6) - INTEGRALS[shape](z - 1e-6)) / 2e-6
        assert FORMULAS[shape](z) == pytest.approx(rise, abs=1e-6)
    assert FORMULAS[shape](0.0) == 1.0


@each_shape
def test_forward_is_exactly_0_or_1(shape: str, device: torch.device) -> None:
    distance = torch.tensor([-1e30, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1e30], device=device)
    spikes = binary_spike(distance, shape)
    assert spikes.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert spikes.dtype == distance.dtype and spikes.device == distance.device


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"shape": "step"}, ValueError, "shape must be one of 'fast sigmoid'"),
        ({"slope": 0.0}, ValueError, "above 0, not 0.0"),
        ({"slope": math.inf}, ValueError, "above 0, not inf"),
        ({"slope": "steep"}, TypeError, "must be a number, not str"),
    ],
)
def test_wrong_surrogates_are_refused(settings: dict[str, Any], error: type[Exception], told: str) -> None:
    for make in (
        lambda: binary_spike(torch.zeros(1), **settings),
        lambda: surrogate_slope(torch.zeros(1), **settings),
        lambda: binary_step(torch.zeros(1), torch.zeros(1), **settings),
        lambda: BinarySpikingNet(**settings),
    ):
        with pytest.raises(error, match=told):
            make()


@each_reset
def test_the_state_goes_as_in_neuron_step(reset: str, device: torch.device) -> None:
    current, state = draw(500).to(device), draw(500, seed=1).to(device)
    spike, after = binary_step(current, state, 0.8, 0.7, 1.2, reset)
    output, wanted = neuron_step(current, state, 0.8, 0.7, 1.2, reset)
    assert torch.equal(after, wanted)
    assert torch.equal(spike, (output > 0).double())


def test_wrong_neurons_are_refused() -> None:
    with pytest.raises(ValueError, match="reset must be one of"):
        binary_step(torch.zeros(1), torch.zeros(1), reset="never")
    with pytest.raises(ValueError, match="decay must lie between"):
        binary_step(torch.zeros(1), torch.zeros(1), decay=1.1)


def loop(
    weights: list[float], inputs: list[list[float]], settings: dict[str, Any], read: list[float]
) -> tuple[list[float], list[float]]:
    """One neuron in plain Python: its spikes, and the derivative of their weighted sum by each weight.

    Forward in time, with the rules of calculus written out and a surrogate for the derivative of the step.
    """
    decay, theta, penalty, reset = (settings[name] for name in ("decay", "threshold", "penalty", "reset"))
    state, spikes = 0.0, []
    d_state, total = [0.0] * len(weights), [0.0] * len(weights)
    for arriving, share in zip(inputs, read):
        v = sum(w * x for w, x in zip(weights, arriving)) + decay * state
        fired = 1.0 if v > theta else 0.0
        surrogate = FORMULAS[settings["shape"]](settings["slope"] * (v - theta))
        taken, d_taken = {
            "scale": (penalty / theta * v, penalty / theta),
            "discharge": (penalty + max(0.0, v - theta), fired),
            "subtract": (theta, 0.0),
            "zero": (v, 1.0),
        }[reset]
        for i, x in enumerate(arriving):
            d_v = x + decay * d_state[i]
            total[i] += share * surrogate * d_v
            d_gate = 0.0 if settings["detach"] else surrogate * d_v
            d_state[i] = d_v - fired * d_taken * d_v - d_gate * taken
        state = v - fired * taken
        spikes.append(fired)
    return spikes, total


@each_reset
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "not detached"])
@pytest.mark.parametrize("shape", ["fast sigmoid", "triangle"])
def test_layer_and_its_gradient_agree_with_a_plain_loop(
    reset: str, detach: bool, shape: str, device: torch.device
) -> None:
    settings = {"decay": 0.85, "threshold": 0.9, "penalty": 1.3, "reset": reset}
    settings |= {"shape": shape, "slope": 1.7, "detach": detach}
    layer = BinarySpikingLayer(3, 1, **settings).double().to(device)
    inputs, read = draw(20, 1, 3).abs(), draw(20, seed=2)
    with torch.no_grad():
        layer.linear.bias.zero_()
        layer.linear.weight.copy_(torch.tensor([[0.5, 0.2, 0.1]]))
    _, spikes = layer(inputs.to(device))
    # The layer hands out its spikes one step late.
    (spikes[1:, 0, 0] * read[:-1].to(device)).sum().backward()
    wanted, gradient = loop(layer.linear.weight[0].tolist(), inputs[:-1, 0].tolist(), settings, read[:-1].tolist())
    assert spikes[:, 0, 0].tolist() == [0.0, *wanted]
    assert 2 < sum(wanted) < 18
    assert layer.linear.weight.grad is not None
    assert layer.linear.weight.grad[0].tolist() == pytest.approx(gradient, rel=1e-9)


def test_without_a_surrogate_the_gradient_is_truly_zero(device: torch.device) -> None:
    images, labels = torch.rand(20, 1, 28, 28) - 0.5, torch.arange(20) % 10
    net = BinarySpikingNet(8, shape="none", detach=False).to(device)
    loss = F.nll_loss(net(images.to(device)), labels.to(device))
    loss.backward()
    for weights in net.layers[0].parameters():
        assert weights.grad is not None and not weights.grad.any()
    assert net.layers[1].linear.weight.grad.any()
    # And the loss does not change where autograd says so: it is a staircase.
    with torch.no_grad():
        net.double()
        before = net(images.double().to(device))
        net.layers[0].linear.weight += 1e-9
        assert torch.equal(net(images.double().to(device)), before)


@each_reset
@pytest.mark.parametrize("detach", [True, False])
def test_window_is_the_law(reset: str, detach: bool) -> None:
    voltages = [0.2, 1.4, 0.9, 0.3, 0.95, 1.2, 0.5, 0.8]
    settings = {"decay": 0.8, "penalty": 1.2, "reset": reset, "slope": 2.0, "detach": detach}
    for t_post in (5, 6):  # a spike, and a step without
        delays = range(t_post - 7, t_post + 1)
        measured = surrogate_window(delays, voltages, t_post, **settings)
        torch.testing.assert_close(measured, surrogate_law(delays, voltages, t_post, **settings))
        assert not measured[: 7 - t_post].any() and measured[7 - t_post] > 0


def test_window_refuses_what_lies_outside() -> None:
    with pytest.raises(ValueError, match="must lie within the 3 voltages"):
        surrogate_window([4], [0.0, 2.0, 0.0], 1)


# --- the network ---------------------------------------------------------------------------------


def test_net_is_its_layers_one_step_apart(device: torch.device) -> None:
    """A network of three layers against a loop over neurons' states, not over layers."""
    net = BinarySpikingNet(12, sizes=(6, 5, 4, 3), threshold=0.4).double().to(device)
    images = torch.rand(7, 1, 2, 3, generator=torch.Generator().manual_seed(4)).double().to(device) - 0.5
    records = net.record(images)
    assert [record.states.shape for record in records] == [(12, 7, 5), (12, 7, 4), (12, 7, 3)]
    pixels = images.flatten(1) + 0.5
    states = [torch.zeros(7, n, dtype=torch.float64, device=device) for n in (5, 4, 3)]
    for t in range(9):
        arriving = pixels
        for depth, layer in enumerate(net.layers):
            charge = layer.linear(arriving) + 0.9 * states[depth]
            arriving = (charge > layer.threshold).double()
            states[depth] = torch.where(arriving > 0, 0.0, charge)
            late = t + 1 + depth  # layers hand out one step late
            assert torch.equal(records[depth].outputs[late], arriving)
            torch.testing.assert_close(records[depth].states[late], states[depth])
    assert records[0].outputs.any() and records[1].outputs.any() and not records[2].outputs.any()
    torch.testing.assert_close(net(images), F.log_softmax(records[2].states.mean(dim=0), dim=-1))


def test_spiking_input_is_bright_as_often_as_the_pixel_is(device: torch.device) -> None:
    net = BinarySpikingNet(4000, sizes=(2, 1, 2), decay=0.0, threshold=0.5, spiking_input=True).to(device)
    with torch.no_grad():
        net.layers[0].linear.weight.copy_(torch.tensor([[1.0, 0.0]]))
        net.layers[0].linear.bias.zero_()
    images = torch.tensor([[0.3, 0.9], [1.0, 0.0]], device=device) - 0.5
    spikes = net.record(images, torch.Generator().manual_seed(0))[0].outputs
    assert spikes[:, 0].mean().item() == pytest.approx(0.3, abs=0.04)
    assert spikes[1:, 1].all()


def test_net_is_a_spiking_net_that_fit_can_train(device: torch.device) -> None:
    from snn_helpers import fit

    # Mostly dark, as digits are.
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(1)) ** 8 - 0.5
    data = TensorDataset(images, torch.arange(60) % 10)
    net = BinarySpikingNet(10, generator=torch.Generator().manual_seed(0))
    history = fit(net, data, device=device, batch_size=20, learning_rates=[0.05] * 20, progress=False)
    assert history.loss[-1] < history.loss[0] / 2


@pytest.mark.parametrize("spiking_input", [False, True])
def test_nothing_is_made_on_the_wrong_device(spiking_input: bool) -> None:
    """On pretended CUDA tensors, to mix devices is an error, as on a GPU; on "meta", backwards too."""
    with FakeTensorMode():
        with torch.device("cuda"):
            net, images = BinarySpikingNet(4, spiking_input=spiking_input), torch.zeros(3, 1, 28, 28)
        assert net(images, generator=torch.Generator().manual_seed(0)).device.type == "cuda"
        assert evidence(net, net.record(images)[0].outputs).device.type == "cuda"
    with torch.device("meta"):
        net, images = BinarySpikingNet(4, spiking_input=spiking_input), torch.zeros(3, 1, 28, 28)
        labels = torch.zeros(3, dtype=torch.int64)
    F.nll_loss(net(images), labels).backward()
    assert all(weights.grad is not None and weights.grad.is_meta for weights in net.parameters())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sizes": (784, 10)}, "one hidden layer or more"),
        ({"n_steps": 1}, "n_steps must be at least 2"),
        ({"reset": "never"}, "reset must be one of"),
    ],
)
def test_wrong_nets_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        BinarySpikingNet(**settings)


def test_same_generator_same_weights_as_the_graded_net() -> None:
    from snn_helpers import SpikingNet

    one = dict(BinarySpikingNet(generator=torch.Generator().manual_seed(3)).named_parameters())
    other = dict(SpikingNet(generator=torch.Generator().manual_seed(3)).named_parameters())
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what spikes buy -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    images = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(1)) - 0.5
    return TensorDataset(images, torch.arange(50) % 10)


def test_evidence_ends_in_the_answer(digits: TensorDataset) -> None:
    net = BinarySpikingNet(9, begin_eval=3, generator=torch.Generator().manual_seed(0))
    images = digits.tensors[0]
    found = evidence(net, net.record(images)[0].outputs)
    torch.testing.assert_close(F.log_softmax(found[-1], dim=-1), net(images))
    assert not found[:3].any() and found[3].any()


def test_answers_against_a_loop_over_images(digits: TensorDataset) -> None:
    net = BinarySpikingNet(9, generator=torch.Generator().manual_seed(0))
    found = what_spikes_buy(net, digits, seed=0)
    images, labels = digits.tensors
    hidden = net.record(images)[0].outputs
    speaking = evidence(net, hidden)
    for wanted, step, accuracy, sent in found["answers"]:
        steps, rights, spikes = [], [], []
        for i in range(50):
            for t in range(9):
                ordered = sorted(speaking[t, i].tolist())
                if ordered[-1] - ordered[-2] >= wanted or t == 8:
                    break
            steps.append(t + 1)
            rights.append(int(speaking[t, i].argmax()) == int(labels[i]))
            spikes.append(hidden[: t + 1, i].sum().item())
        assert (step, accuracy, sent) == pytest.approx(tuple(sum(x) / 50 for x in (steps, rights, spikes)), abs=1e-4)
    assert [row[0] for row in found["answers"]] == list(LEADS)
    assert found["messages"] == pytest.approx(hidden.sum().item() / 50)
    assert found["accuracy_by_step"][-1] == pytest.approx(found["answers"][-1][2])
    assert found["active_pixels"] == pytest.approx((images > -0.5).sum().item() / 50)


@pytest.mark.parametrize("network", ["binary", "mlp"])
def test_no_drops_change_nothing_and_all_drops_leave_the_bias(network: str, digits: TensorDataset) -> None:
    model = make_model(network, 0)
    images, labels = digits.tensors
    whole = (model(images).argmax(dim=1) == labels).double().mean().item()
    assert accuracy_with_drops(model, digits, 0.0, seed=0) == pytest.approx(whole)
    favourite = int(model.layers[1].bias.argmax() if network == "mlp" else model.layers[1].linear.bias.argmax())
    nothing = (labels == favourite).double().mean().item()
    assert accuracy_with_drops(model, digits, 1.0, seed=0) == pytest.approx(nothing)


@pytest.mark.parametrize("network", ["binary", "mlp"])
def test_a_trial_repeats(network: str, digits: TensorDataset) -> None:
    settings: dict[str, Any] = {"learning_rate": 0.01, "epochs": 2, "batch_size": 20, "device": "cpu"}
    settings |= {"noise_levels": (0.0, 0.5), "drop_levels": (0.5,), "probe": True}
    settings |= {"n_steps": 6, "spiking_input": True} if network == "binary" else {}
    first, again = (surrogate_trial(network, 3, digits, digits, **settings) for _ in range(2))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert first["noise_accuracy"]["0.0"] == first["test_accuracy"]


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of 'binary', 'mlp'"):
        make_model("graded", 0)


# --- to other libraries --------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(784, 100, 10), (784, 30, 20, 10)], ids=["two layers", "three layers"])
@pytest.mark.parametrize(("decay", "threshold"), [(0.9, 1.0), (0.75, 0.6)])
def test_snntorch_runs_the_exported_net_with_the_same_spikes(
    sizes: tuple[int, ...], decay: float, threshold: float, tmp_path: Path, digits: TensorDataset
) -> None:
    import nir
    from snntorch.import_nir import import_from_nir

    net = BinarySpikingNet(20, sizes=sizes, decay=decay, threshold=threshold)
    nir.write(tmp_path / "net.nir", to_nir(net))
    other = import_from_nir(nir.read(tmp_path / "net.nir")).float()
    depth = len(sizes) - 1
    fired: list[list[Tensor]] = [[] for _ in range(depth)]
    for index in range(depth):
        neurons = getattr(other, f"neurons_{index}")
        neurons.register_forward_hook(lambda module, given, spikes, index=index: fired[index].append(spikes))
    images, states, memory = digits.tensors[0], [], None
    with torch.no_grad():
        for _ in range(20):
            _, memory = other(images.flatten(1) + 0.5, memory)
            states.append(getattr(other, f"neurons_{depth - 1}").mem.clone())
        records = net.record(images)
    for index, record in enumerate(records[:-1]):
        ours, theirs = record.outputs[index + 1 :], torch.stack(fired[index])[: 19 - index]
        assert ours.any() and torch.equal(ours, theirs), f"layer {index}"
    assert not torch.stack(fired[-1]).any()
    torch.testing.assert_close(torch.stack(states)[: 20 - depth], records[-1].states[depth:])


def test_nir_refuses_what_it_cannot_say() -> None:
    for settings, told in (({"reset": "subtract"}, "reset='zero'"), ({"decay": 1.0}, "a decay below 1")):
        with pytest.raises(ValueError, match=told):
            to_nir(BinarySpikingNet(**settings))  # type: ignore[arg-type]


def test_export_keeps_the_books_numbers() -> None:
    net = BinarySpikingNet(sizes=(5, 4, 3), decay=0.8, threshold=0.7)
    graph = to_nir(net, time_step=1e-3)
    assert list(graph.nodes) == ["input", "weights_0", "neurons_0", "weights_1", "neurons_1", "output"]
    neurons = graph.nodes["neurons_0"]
    # One Euler step of tau dv/dt = -v + r I over the time step.
    for v, current in product((0.3, -1.0), (0.2, 2.0)):
        stepped = v + 1e-3 / neurons.tau[0] * (-v + neurons.r[0] * current)
        assert stepped == pytest.approx(0.8 * v + current)
    assert neurons.v_threshold.tolist() == [0.7] * 4
    assert isinstance(net.layers[1], SpikingLayer)


# --- The protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", binary.MODELS)
def test_a_network_that_has_seen_one_class_knows_no_other(network: str) -> None:
    settings: dict[str, Any] = {"learning_rate": 0.02, "epochs": 4, "batch_size": 4, "device": "cpu"}
    settings |= {"noise_levels": (0.0,), "drop_levels": (0.0,)} | ({"n_steps": 6} if network == "binary" else {})
    for label, wanted in ((5, 0), (3, 1)):
        row = surrogate_trial(network, 0, one_class(3), one_class(label, 20), **settings)
        found = (row["test_accuracy"], row["noise_accuracy"]["0.0"], row["drop_accuracy"]["0.0"])
        assert found == (wanted, wanted, wanted)


def test_a_test_whose_labels_are_shuffled_gives_chance() -> None:
    """Two classes, 200 digits: five standard errors are 0.18."""
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    settings: dict[str, Any] = {"learning_rate": 0.02, "epochs": 1, "batch_size": 4, "drop_levels": (0.0,)}
    for network, steps in (("binary", {"n_steps": 6}), ("mlp", {})):
        rows = [
            surrogate_trial(network, 0, train, given, **settings, **steps, device="cpu")
            for given in (test, shuffled(test))
        ]
        assert rows[0]["test_accuracy"] > 0.95 and rows[0]["drop_accuracy"]["0.0"] > 0.95
        for accuracy in (rows[1]["test_accuracy"], rows[1]["drop_accuracy"]["0.0"]):
            assert abs(accuracy - 0.5) < 0.18


def test_the_silent_are_those_who_never_fire() -> None:
    """30 of 100 hidden neurons are held below the threshold, all others far above it."""
    net = BinarySpikingNet(6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.layers[0].linear.weight.zero_()
        net.layers[0].linear.bias.fill_(5.0)
        net.layers[0].linear.bias[10:40] = -1.0
    found = what_spikes_buy(net, several(2020), 0)
    assert found["silent"] == pytest.approx(0.3)
    # 70 neurons fire at each step but the first, whose outputs are those before it.
    assert found["messages"] == 70 * 5 and found["rate"] == pytest.approx(0.7 * 5 / 6)


def test_lost_messages_are_lost_and_not_made_up_for() -> None:
    """100 hidden neurons vote for label 0 and have the majority over the bias of label 1 only if most are heard."""
    model = make_model("mlp", 0)
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.zero_()
            layer.bias.zero_()
        model.layers[0].bias.fill_(1.0)
        model.layers[1].weight[0] = 0.01
        model.layers[1].bias[1] = 0.75
    zeros, ones = (TensorDataset(several(200).tensors[0], torch.full((200,), label)) for label in (0, 1))
    assert [accuracy_with_drops(model, zeros, level, 0) for level in (0.0, 0.05, 0.5, 1.0)] == [1, 1, 0, 0]
    assert [accuracy_with_drops(model, ones, level, 0) for level in (0.0, 0.5)] == [0, 1]


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_each_spike_is_lost_by_itself(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net, data = BinarySpikingNet(8, threshold=0.3, generator=torch.Generator().manual_seed(0)), several(50)
    calls = spy(monkeypatch, binary, "evidence", None)
    accuracy_with_drops(net, data, level, seed=3)
    with torch.no_grad():
        sent = net.record(data.tensors[0])[0].outputs
    heard = calls[0]["hidden"]
    assert ((heard == sent) | (heard == 0)).all()
    n_sent = int(sent.sum())
    assert abs(int(heard.sum()) - (1 - level) * n_sent) <= 5 * math.sqrt(level * (1 - level) * n_sent)


class Spied(NamedTuple):
    fitted: Calls
    evaluated: Calls
    dropped: Calls
    bought: Calls


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    monkeypatch.setattr(binary, "whole_mnist", numbered)
    return Spied(
        spy(monkeypatch, binary, "fit_adam", lambda given: []),
        spy(monkeypatch, binary, "evaluate", an_evaluation),
        spy(monkeypatch, binary, "accuracy_with_drops", lambda given: 1 - given["level"]),
        spy(monkeypatch, binary, "what_spikes_buy", lambda given: {"messages": 3}),
    )


def test_settings_reach_the_network_and_its_training(spied: Spied) -> None:
    settings: dict[str, Any] = {"n_steps": 9, "reset": "subtract", "shape": "triangle", "slope": 4.0, "detach": False}
    train, test = numbered()
    row = surrogate_trial(
        "binary", 5, train, test, learning_rate=0.03, epochs=2, batch_size=64, drop_levels=(0.1, 0.4), **settings
    )
    (given,), (scored,), dropped, bought = spied
    net = given["model"]
    hidden = net.layers[0]
    assert (given["seed"], given["learning_rate"], given["epochs"], given["batch_size"]) == (5, 0.03, 2, 64)
    assert given["longest_gradient"] is None and are(given["dataset"], range(N_TRAIN))
    assert (net.n_steps, hidden.reset, hidden.shape, hidden.slope, hidden.detach) == tuple(settings.values())
    start = make_model("binary", 5, **settings)
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), start.parameters()))
    assert scored["model"] is net and scored["seed"] == 5 and are(scored["dataset"], TEST_NUMBERS)
    assert [(call["level"], call["seed"]) for call in dropped] == [(0.1, 5), (0.4, 5)]
    assert all(are(call["dataset"], TEST_NUMBERS[:2000]) and call["model"] is net for call in dropped)
    assert not bought and row["drop_accuracy"] == {"0.1": 0.9, "0.4": 0.6} and row["noise_accuracy"] == {}
    assert (row["test_accuracy"], row["test_loss"]) == (0.25, 1.5)


@pytest.mark.parametrize("name", binary.RECORDS)
def test_what_a_record_fits_and_what_it_scores(name: str, spied: Spied) -> None:
    """What is chosen is chosen on held-out training images; all else is scored on the test images."""
    _, measure, trials = binary.RECORDS[name]
    trials = trials() if callable(trials) else trials
    for settings in (trials[0], trials[-1]):
        for calls in spied:
            calls.clear()
        row = measure(**settings)
        (given,), (scored, *noise) = spied.fitted, spied.evaluated
        held_out = name in ("12_tuning", "12_shapes")
        n_train = settings.get("n_train", 50_000) if held_out else N_TRAIN
        wanted = range(50_000, 60_000) if held_out else TEST_NUMBERS
        assert are(given["dataset"], range(n_train)) and are(scored["dataset"], wanted)
        assert (given["learning_rate"], given["seed"]) == (settings["learning_rate"], settings["seed"])
        assert (given["epochs"], given["batch_size"]) == (settings.get("epochs", 5), 128)
        for option in ("shape", "slope", "detach", "reset"):
            if option in settings:
                assert getattr(given["model"].layers[0], option) == settings[option]
        if "n_steps" in settings:
            assert given["model"].n_steps == settings["n_steps"]
        # Noise, drops and what spikes buy: of the test images, and only where nothing is chosen.
        assert len(noise) == (0 if held_out else 4) and len(spied.dropped) == (0 if held_out else 6)
        assert len(spied.bought) == (0 if held_out else 1) and ("messages" in row) == (not held_out)
        assert all(are(call["dataset"], TEST_NUMBERS) and call["seed"] == settings["seed"] for call in spied.bought)
        assert all(are(call["dataset"], TEST_NUMBERS[:2000]) for call in spied.dropped)
        assert all(torch.equal(call["dataset"].tensors[1], torch.arange(2000) % 10) for call in noise)
        for level, call in zip((0.0, 0.2, 0.4, 0.8), noise):
            moved = call["dataset"].tensors[0] - numbered()[1].tensors[0][:2000]
            assert moved.std().item() == pytest.approx(level, rel=0.01)


def test_the_rate_is_the_best_in_the_mean_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = {0.01: (0.99, 0.51), 0.02: (0.9, 0.88), 0.04: (0.89, 0.87)}
    rows = [
        {"network": network, "settings": {"learning_rate": rate * factor, "seed": seed}, "test_accuracy": accuracy}
        for network, factor in (("binary", 1), ("mlp", 10))
        for rate, accuracies in held_out.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    asked: list[str] = []
    monkeypatch.setattr(binary, "load_results", lambda name: asked.append(name) or {"trials": rows})
    trials = binary.tuned_surrogate_trials()
    assert asked == ["12_tuning"]
    assert trials == [
        {"network": network, "seed": seed, "learning_rate": 0.02 * factor, **settings}
        for network, factor, settings in (("binary", 1, binary.BINARY), ("mlp", 10, {}))
        for seed in range(5)
    ]
    # What is measured is what was chosen: the same network as in the choice.
    tuned = [trial for trial in binary.RECORDS["12_tuning"].trials if trial["network"] == "binary"]
    for trial in tuned:
        assert {name: trial[name] for name in binary.BINARY} == binary.BINARY


class Loop(SpikingLayer):
    """Neurons that hear more than their input: a step's current is that of all inputs so far."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.run(self.currents(inputs.cumsum(dim=0)))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("spiking_input", [False, True])
def test_a_layer_with_a_forward_of_its_own_is_run_by_it(place: int, spiking_input: bool) -> None:
    net = small_net(place, spiking_input)
    images = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    seen: list[int] = []
    for layer in net.layers:
        layer.register_forward_hook(lambda *_: seen.append(1))
    found = net.logits(images, torch.Generator().manual_seed(2))
    assert len(seen) == 2
    frames = net.frames(images, torch.Generator().manual_seed(2)).clone()  # a copy: no steps share their memory
    _, outputs = net.layers[0](frames)
    states, _ = net.layers[1](outputs[1:])
    wanted = torch.cat([torch.zeros_like(states[:1]), states]).mean(dim=0)
    torch.testing.assert_close(found, wanted)


def small_net(place: int, spiking_input: bool) -> BinarySpikingNet:
    generator = torch.Generator().manual_seed(0)
    net = BinarySpikingNet(8, sizes=(6, 5, 3), generator=generator, spiking_input=spiking_input)
    net.layers[place] = Loop(net.layers[place].n_inputs, net.layers[place].n_neurons, generator=generator)
    return net


def test_switches_of_binary_neurons_are_true_or_false() -> None:
    layer = binary.BinarySpikingLayer(4, 3)
    layer.detach = "no"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="detach must be True or False, not str"):
        layer(torch.rand(5, 2, 4))


@pytest.mark.parametrize(
    "model", [SpikingNet(8, sizes=(6, 4, 3)), BinarySpikingNet(8, sizes=(6, 5, 4, 3)), MLP((6, 4, 3))]
)
def test_networks_that_send_and_read_otherwise_are_refused(model: Any) -> None:
    data = TensorDataset(torch.rand(4, 6), torch.tensor([0, 1, 2, 0]))
    for ask in (
        lambda: evidence(model, torch.zeros(8, 4, 5)),
        lambda: accuracy_with_drops(model, data, 0.1, 0),
        lambda: what_spikes_buy(model, data, 0),
    ):
        with pytest.raises(TypeError, match="is for chapter 12's networks"):
            ask()


def test_the_bright_mlp_has_one_hidden_layer_and_checks_its_images() -> None:
    with pytest.raises(ValueError, match="one hidden layer and classes"):
        binary.BrightMLP((6, 5, 4, 3))
    with pytest.raises(ValueError, match="images must have 6 pixels each"):
        binary.BrightMLP((6, 4, 3))(torch.rand(2, 5))


@pytest.mark.parametrize("kind", [SpikingNet, BinarySpikingNet])
def test_gradients_of_single_examples_by_torch_func(kind: Any) -> None:
    """All examples see the same flicker then; each gradient is that of the example by itself."""
    net = kind(8, sizes=(6, 5, 3), threshold=0.3, generator=torch.Generator().manual_seed(0))
    images, labels = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    parameters = dict(net.named_parameters())

    def loss(given: Any, image: Tensor, label: Tensor) -> Tensor:
        return F.nll_loss(torch.func.functional_call(net, given, (image[None],)), label[None])

    torch.manual_seed(3)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0), randomness="same")(parameters, images, labels)
    for index in range(4):
        torch.manual_seed(3)
        alone = torch.autograd.grad(loss(parameters, images[index], labels[index]), list(parameters.values()))
        for found, wanted in zip(each.values(), alone):
            torch.testing.assert_close(found[index], wanted)
