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


# --- other inputs, and graded spikes --------------------------------------------------------------


def a_coded_net(**settings: Any) -> binary.CodedNet:
    generator = torch.Generator().manual_seed(0)
    return binary.CodedNet(9, sizes=(6, 5, 3), threshold=0.3, generator=generator, **settings).double()


def test_each_pixel_of_a_latency_code_fires_once_and_the_brighter_the_sooner() -> None:
    bright = torch.tensor([[1.0, 0.0, 0.5, 0.25, 0.126, 0.001]]).double()
    spikes = a_coded_net(code="latency").frames(bright - 0.5)[:, 0]
    assert spikes.shape == (9, 6)
    for pixel, brightness in enumerate(bright[0].tolist()):
        when = [step for step in range(9) if spikes[step, pixel] == 1]
        assert when == ([] if brightness == 0 else [math.floor((1 - brightness) * 8 + 0.5)])
        assert set(spikes[:, pixel].tolist()) <= {0.0, 1.0}


def test_the_other_codes_are_those_of_the_networks_that_have_them() -> None:
    images, draws = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).double() - 0.5, torch.Generator()
    article = SpikingNet(9, sizes=(6, 5, 3)).double()
    for code, wanted in (
        ("flicker", article.frames(images, draws.manual_seed(2))),
        ("steady", (images + 0.5).expand(9, -1, -1)),
        ("rate", BinarySpikingNet(9, sizes=(6, 5, 3), spiking_input=True).frames(images, draws.manual_seed(2))),
    ):
        assert torch.equal(a_coded_net(code=code).frames(images, draws.manual_seed(2)), wanted), code
    with pytest.raises(ValueError, match="code must be one of 'steady'"):
        a_coded_net(code="morse")


@pytest.mark.parametrize("graded", [False, True])
@each_reset
def test_only_what_a_hidden_neuron_hands_on_differs(graded: bool, reset: str) -> None:
    """Both networks against one loop over the neurons' states, in which the output is the only choice."""
    net = a_coded_net(code="flicker", graded=graded, reset=reset)
    images = 6 * torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).double() - 3
    frames = net.frames(images, torch.Generator().manual_seed(2))
    hidden, last = net.run(frames)
    first, second = net.layers
    state, sums, above = torch.zeros(4, 5).double(), torch.zeros(4, 3).double(), []
    for t in range(8):
        charge = first.linear(frames[t]) + 0.9 * state
        fired = (charge > 0.3).double()
        gone = {"scale": 1.5 / 0.3 * charge, "discharge": 1.5 + charge - 0.3, "subtract": 0.3 + 0 * charge}
        state = charge - fired * gone.get(reset, charge)
        above.append(fired * (charge - 0.3) if graded else fired)
        torch.testing.assert_close(hidden.outputs[t + 1], above[-1])
        if t < 7:  # the last layer hears it in the next step, and answers one step late
            sums = second.linear(above[-1]) + 0.9 * sums
            torch.testing.assert_close(last.states[t + 2], sums)
    assert torch.stack(above).count_nonzero() > 10 and not last.outputs.any()


def test_graded_and_binary_networks_begin_with_the_same_weights() -> None:
    nets = [make_model("coded", 3, graded=graded, code="flicker") for graded in (False, True)]
    nets.append(make_model("binary", 3))
    for weights in zip(*(net.parameters() for net in nets)):
        assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    mlp = make_model("mlp, same weights", 3)
    for ours, theirs in zip(mlp.parameters(), nets[0].parameters()):
        assert torch.equal(ours, theirs)
    drawn = make_model("mlp", 3)
    assert not torch.equal(next(drawn.parameters()), next(mlp.parameters()))


def test_dropout_leaves_out_its_share_in_training_alone_and_makes_up_for_it() -> None:
    mlp = make_model("mlp, dropout", 0)
    images = several(400).tensors[0]
    seen: list[Tensor] = []
    mlp.layers[1].register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    mlp.train()(images, torch.Generator().manual_seed(0))
    mlp.eval()(images)
    trained, whole = seen
    active = whole > 0
    lost = (trained[active] == 0).double().mean().item()
    assert lost == pytest.approx(binary.DROPOUT, abs=5 * math.sqrt(0.24 / int(active.sum())))
    kept = active & (trained > 0)
    torch.testing.assert_close(trained[kept], whole[kept] / (1 - binary.DROPOUT))
    assert torch.equal(whole, mlp.hidden(images))
    assert make_model("mlp", 0).dropout == 0


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
    with pytest.raises(ValueError, match="network must be one of 'binary', 'coded', 'mlp'"):
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


BEST = 0.012  # the learning rate that made-up tunings end with


def a_tuning(variants: list[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    """A record of tuning, made up: three seeds at three rates, of which the one in the middle is best."""
    rows = [
        {"settings": {**variant, "learning_rate": rate, "seed": seed}, "test_accuracy": accuracy + seed / 1000}
        for variant, _ in variants
        for rate, accuracy in ((0.01, 0.9), (BEST, 0.91), (0.015, 0.905))
        for seed in (5, 6, 7)
    ]
    return {"trials": rows}


TUNINGS = {
    "12_tuning": [*binary.COMPARED, *binary.CHANGED],
    "12_shapes_tuning": binary.SURROGATES,
    "12_graded_tuning": binary.SPIKES,
    "12_sized_tuning": binary.SIZED,
}
COMPARISONS = {
    "12_surrogate": ("12_tuning", binary.COMPARED),
    "12_steps": ("12_tuning", binary.CHANGED),
    "12_shapes": ("12_shapes_tuning", binary.SURROGATES),
    "12_graded": ("12_graded_tuning", binary.SPIKES),
    "12_sized": ("12_sized_tuning", binary.SIZED),
}


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the records that are asked for."""
    asked: list[str] = []

    def load(name: str) -> dict[str, Any]:
        asked.append(name)
        return a_tuning(TUNINGS[name])

    monkeypatch.setattr(binary, "load_results", load)
    monkeypatch.setattr("snn_helpers.long.tuning.load_results", load)
    return asked


def trials_of(name: str) -> list[dict[str, Any]]:
    trials = binary.RECORDS[name].trials
    return trials() if callable(trials) else trials


def test_each_record_is_a_tuning_or_a_comparison_after_one() -> None:
    assert set(binary.RECORDS) == set(TUNINGS) | set(COMPARISONS)


@pytest.mark.parametrize("name", binary.RECORDS)
def test_what_a_record_fits_and_what_it_scores(name: str, spied: Spied, tuned: list[str]) -> None:
    """What is chosen is chosen on held-out training images; the rest on others that nothing was chosen on."""
    trials = trials_of(name)
    for settings in trials[:: max(1, len(trials) // 12)]:
        for calls in spied:
            calls.clear()
        row = binary.RECORDS[name].run(**settings)
        (given,), (scored, *noise) = spied.fitted, spied.evaluated
        on_test = name in ("12_surrogate", "12_steps", "12_graded", "12_sized")
        disturbed = on_test and name != "12_sized"
        n_train = settings.get("n_train", N_TRAIN if on_test else 50_000)
        first = 40_000 if name == "12_shapes" else 50_000
        wanted = TEST_NUMBERS if on_test else range(first, first + 10_000)
        assert are(given["dataset"], range(n_train)) and are(scored["dataset"], wanted)
        assert on_test or n_train <= first, "no image is trained on and scored"
        assert (given["learning_rate"], given["seed"]) == (settings["learning_rate"], settings["seed"])
        assert (given["epochs"], given["batch_size"]) == (settings.get("epochs", 5), 128)
        net = given["model"]
        for option in ("shape", "slope", "detach", "reset"):
            if option in settings and hasattr(net.layers[0], option):
                assert getattr(net.layers[0], option) == settings[option]
        for option in ("n_steps", "code", "graded"):
            if option in settings:
                assert getattr(net, option) == settings[option]
        # Noise and drops: of the test images alone. What spikes buy: there, and where an early answer is chosen.
        assert len(noise) == (4 if disturbed else 0) and len(spied.dropped) == (6 if disturbed else 0)
        probed = on_test or name == "12_tuning"
        assert len(spied.bought) == int(probed) and ("messages" in row) == probed
        assert all(are(call["dataset"], wanted) and call["seed"] == settings["seed"] for call in spied.bought)
        assert all(are(call["dataset"], TEST_NUMBERS[:2000]) for call in spied.dropped)
        for level, call in zip((0.0, 0.2, 0.4, 0.8), noise):
            moved = call["dataset"].tensors[0] - numbered()[1].tensors[0][:2000]
            assert moved.std().item() == pytest.approx(level, rel=0.01)


@pytest.mark.parametrize("name", COMPARISONS)
def test_each_variant_is_compared_at_the_rate_that_its_tuning_chose(name: str, tuned: list[str]) -> None:
    tuning, variants = COMPARISONS[name]
    trials = trials_of(name)
    assert tuned == [tuning]
    wanted = [{**variant, "learning_rate": BEST, "seed": seed} for variant, _ in variants for seed in range(5)]
    assert sorted(trials, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("name", TUNINGS)
def test_a_tuning_asks_for_nothing_more_once_each_variant_has_its_best(name: str, tuned: list[str]) -> None:
    """And no variant's settings are among another's, so that no row is taken for two."""
    recorded = [row["settings"] for row in a_tuning(TUNINGS[name])["trials"]]
    assert {str(sorted(t.items(), key=str)) for t in trials_of(name)} >= {
        str(sorted(t.items(), key=str)) for t in recorded
    }
    variants = [variant for variant, _ in TUNINGS[name]]
    assert not [(a, b) for a in variants for b in variants if a is not b and a.items() <= b.items()]


def test_the_surrogates_are_crossed() -> None:
    detached = [variant for variant, _ in binary.SURROGATES if variant["detach"]]
    assert {(v["shape"], v["slope"]) for v in detached} == set(product(binary.CROSSED, binary.SLOPES))
    assert len(detached) == len(binary.CROSSED) * len(binary.SLOPES)
    # Graded and binary networks differ in nothing else.
    pairs = [
        (a, b) for a, _ in binary.SPIKES for b, _ in binary.SPIKES if a.get("graded") and not b.get("graded", True)
    ]
    same = [a["code"] for a, b in pairs if {**a, "graded": False} == b]
    assert sorted(same) == ["flicker", "steady"]


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


# --- what the records say ------------------------------------------------------------------------


def an_early_row(by_step: list[float], answers: list[list[float]], seed: int) -> dict[str, Any]:
    return {"settings": {"seed": seed}, "accuracy_by_step": by_step, "answers": answers}


def test_an_early_answer_is_chosen_on_some_rows_and_measured_on_others() -> None:
    held_out = [
        an_early_row([0.1, 0.8, 0.9, 0.95], [[0.1, 1.5, 0.7, 3.0], [0.2, 2.5, 0.949, 4.0], [0.3, 2.7, 0.95, 6.0]], 5),
        an_early_row([0.1, 0.8, 0.95, 0.95], [[0.1, 1.6, 0.7, 3.0], [0.2, 2.6, 0.951, 4.0], [0.3, 2.8, 0.95, 6.0]], 6),
    ]
    # On these, the smallest lead would do, and so would the second step.
    tested = [an_early_row([0.1, 0.9, 0.92, 0.9], [[0.1, 1.1, 0.9, 1.0], [0.2, 2.25, 0.91, 2.0], [0.3, 3, 0.9, 3]], 0)]
    found = binary.answers_early(held_out, tested)
    assert (found.step, found.lead) == (4, 0.2)
    assert (found.steps, found.sent, found.by_lead) == ([2.25], [2.0], [91.0])
    assert (found.by_step, found.at_the_end) == ([90.0], [90.0])
    # A quarter of the images answers at step 3, the others at step 2.
    assert found.as_long == pytest.approx([0.75 * 90 + 0.25 * 92])
    assert binary.answers_early(held_out, tested, allowed=0.03).step == 3
    with pytest.raises(ValueError, match="no lead keeps the accuracy"):
        binary.answers_early([an_early_row([0.1, 0.9], [[0.1, 1.0, 0.2, 1.0]], 5)], tested)


def test_main_effects_of_a_sum_are_those_of_its_terms() -> None:
    """In a table whose cells are a row's term plus a column's, the means lie apart as the terms do."""
    rows, columns = {"a": 1.0, "b": 4.0, "c": 2.0}, {1.0: 0.5, 10.0: -0.5}
    cells = {(r, c): [rows[r] + columns[c], 2 * rows[r] + columns[c]] for r in rows for c in columns}
    of_rows, of_columns = binary.main_effects(cells)
    assert of_rows == pytest.approx([3.0, 6.0]) and of_columns == pytest.approx([1.0, 1.0])
    # What only the two together do is in neither: here each row has its best in another column.
    crossing = {("a", 1.0): [1.0], ("a", 2.0): [0.0], ("b", 1.0): [0.0], ("b", 2.0): [1.0]}
    assert binary.main_effects(crossing) == ([0.0], [0.0])
    # At each column by itself the rows lie apart as their terms do, or not.
    assert binary.spread_at(cells, 10.0) == pytest.approx([3.0, 6.0])
    narrow = {**crossing, ("b", 1.0): [0.75]}
    assert (binary.spread_at(narrow, 1.0), binary.spread_at(narrow, 2.0)) == ([0.25], [1.0])


def by_event(net: Any, images: Tensor) -> tuple[float, float, float, float]:
    """Multiplications with an addition, additions alone, weights and states, counted event by event, for one image."""
    frames, hidden = net.frames(images), net.record(images)[0].outputs
    macs = additions = weights = states = 0
    for image in range(len(images)):
        for t in range(net.n_steps):
            for sent, targets, spikes in (
                (frames[t, image], 100, net.code in ("rate", "latency")),
                (hidden[t, image], 10, not net.graded),
            ):
                if net.code == "steady" and targets == 100 and t > 0:
                    continue  # the current of the first step serves the others
                n_messages = int((sent != 0).sum())
                macs, additions = (
                    (macs, additions + targets * n_messages)
                    if spikes
                    else (
                        macs + targets * n_messages,
                        additions,
                    )
                )
                weights += targets * n_messages
            macs += 110  # times the decay, plus the current
            states += 2 * 110
    return tuple(count / len(images) for count in (macs, additions, weights, states))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("code", "graded"), [("steady", False), ("steady", True), ("flicker", True), ("latency", False)]
)
def test_operations_are_those_of_each_event(code: str, graded: bool) -> None:
    settings: dict[str, Any] = {"n_steps": 6, "code": code, "graded": graded}
    net = make_model("coded", 0, **settings)
    # Half of the pixels are black, and nothing is drawn by chance but the flicker, which is never 0.
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(1)).sub(0.5).clamp(min=0) * 1.9 - 0.5
    data = TensorDataset(images, torch.arange(4))
    row = {"settings": {"network": "coded", **settings}, **what_spikes_buy(net, data, 0)}
    if code == "flicker":  # its draws differ from run to run: the same seed as the row's
        net.frames = lambda shown, draws=None: binary.CodedNet.frames(net, shown, torch.Generator().manual_seed(0))
    found = binary.operations(row)
    assert found == pytest.approx(by_event(net, images))
    assert found.arithmetic == pytest.approx((4.6 * found.macs + 0.9 * found.additions) / 1000)
    assert found.with_memory == pytest.approx(found.arithmetic + 0.05 * found.weights + 0.005 * found.states)


def test_an_mlp_reads_a_weight_for_each_of_its_operations() -> None:
    data = several(30)
    row = {"settings": {"network": "mlp"}, **what_spikes_buy(make_model("mlp", 0), data, 0)}
    found = binary.operations(row)
    assert found.macs == found.weights == pytest.approx(100 * 784 + 10 * row["messages"])
    assert found.additions == found.states == 0


def test_a_smaller_mlp_reads_fewer_weights() -> None:
    """As many as it has, for an image without a black pixel and hidden neurons that are all active."""
    row = {"settings": {"network": "mlp", "sizes": [784, 20, 10]}, "active_pixels": 784.0, "messages": 20.0}
    weights = [p.numel() for p in make_model("mlp", 0, sizes=[784, 20, 10]).parameters() if p.dim() == 2]
    assert binary.operations(row).macs == binary.operations(row).weights == sum(weights)


def made_up(network: str, seed: int, accuracy: float, **settings: Any) -> dict[str, Any]:
    counts = {"active_pixels": 10.0, "input_messages": 10.0, "messages": 2.0 + seed}
    settings = {"network": network, "seed": seed, "n_steps": 4, "learning_rate": 0.01, **settings}
    return {"settings": settings, "test_accuracy": accuracy, **counts}


BESIDE: dict[str, Any] = {"network": "coded", "code": "latency", "graded": False, "sizes": [784, 100, 10]}
SMALL: list[dict[str, Any]] = [{"network": "mlp", "sizes": [784, n_hidden, 10]} for n_hidden in (30, 10, 20)]


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Made-up records; the held-out accuracies of the MLPs, by their hidden neurons, which a test may change."""
    held_out = {10: 0.90, 20: 0.92, 30: 0.93}

    def load(name: str) -> dict[str, Any]:
        tuning = name.endswith("_tuning")
        rates = (0.008, 0.01, 0.0125) if tuning else (0.01,)
        rows = []
        for variant in (BESIDE, *SMALL):
            right = 0.915 if variant is BESIDE else held_out[variant["sizes"][1]]
            rows += [
                made_up(accuracy=(right if tuning else 0.8) - 0.1 * (rate != 0.01), seed=seed, **variant)
                | {"settings": {**variant, "n_steps": 4, "seed": seed, "learning_rate": rate}}
                for rate in rates
                for seed in ((5, 6, 7) if tuning else (1, 0))
            ]
        return {"trials": rows}

    monkeypatch.setattr(binary, "load_results", load)
    return held_out


def test_a_bill_pairs_the_seeds(sized: dict[int, float]) -> None:
    spiking, ordinary = binary.tried([BESIDE, SMALL[2]])
    found, with_memory = (binary.bill(spiking, ordinary, counted) for counted in binary.COUNTED)
    assert (found.code, found.n_hidden, found.ordinary, found.ordinary_hidden) == ("latency", 100, "mlp", 20)
    assert found.ahead == pytest.approx([0.0, 0.0])
    # One spike a pixel: 1,000 additions for the first layer, 10 for each message, and 110 neurons for 4 steps.
    ordinary = [4.6 * (200 + 10 * (2 + seed)) / 1000 for seed in (0, 1)]
    spiking = [(0.9 * (1000 + 10 * (2 + seed)) + 4.6 * 440) / 1000 for seed in (0, 1)]
    assert found.saved == pytest.approx([a - b for a, b in zip(ordinary, spiking)])
    assert found.share == pytest.approx(sum(spiking) / sum(ordinary))
    memory = [(50 * (1000 + 10 * (2 + seed)) + 5 * 880) / 1000 for seed in (0, 1)]
    of_mlp = [50 * (200 + 10 * (2 + seed)) / 1000 for seed in (0, 1)]
    less = [a + b - c - d for a, b, c, d in zip(ordinary, of_mlp, spiking, memory)]
    assert with_memory.saved == pytest.approx(less)


def cheapest() -> dict[str, Any]:
    (spiking,) = binary.tried([BESIDE])
    return binary.cheapest_as_accurate(spiking, binary.tried(SMALL), "arithmetic").variant


def test_the_cheapest_that_is_as_accurate_is_chosen_on_held_out_images(sized: dict[int, float]) -> None:
    assert binary.sizes_of(cheapest())[1] == 20
    sized[10] = 0.915  # as accurate
    assert binary.sizes_of(cheapest())[1] == 10
    sized.update({10: 0.9, 20: 0.9})
    assert binary.sizes_of(cheapest())[1] == 30
    sized[30] = 0.91
    with pytest.raises(ValueError, match=r"as accurate as .*latency.* try larger ones"):
        cheapest()


def test_it_is_the_cheapest_and_not_the_smallest(sized: dict[int, float]) -> None:
    """A larger one that reads black and white adds where a smaller one multiplies; with the memory it takes more."""
    (spiking,) = binary.tried([BESIDE])
    _, _, small = binary.tried(SMALL)
    other = {"network": "mlp, black and white", "sizes": [784, 30, 10]}
    large = binary.Tried(other, [row | {"settings": row["settings"] | other} for row in small.rows], small.held_out)
    chosen = [binary.cheapest_as_accurate(spiking, [small, large], counted) for counted in binary.COUNTED]
    assert chosen == [large, small]


def test_black_and_white_is_added_and_not_multiplied() -> None:
    data = several(30)
    model = make_model("mlp, black and white", 0)
    row = {"settings": {"network": "mlp, black and white"}, **what_spikes_buy(model, data, 0)}
    white = (data.tensors[0] > 0).double().sum().item() / 30
    assert row["input_messages"] == pytest.approx(white) and white < row["active_pixels"]
    found = binary.operations(row)
    assert found.additions == pytest.approx(100 * white) and found.macs == pytest.approx(10 * row["messages"])
    assert found.weights == pytest.approx(found.additions + found.macs) and found.states == 0
    bright = (data.tensors[0] > 0).double().flatten(1) - 0.5
    assert torch.equal(model(data.tensors[0]), make_model("mlp", 0)(bright.float().view_as(data.tensors[0])))


def test_there_are_ordinary_networks_smaller_and_larger_than_each_network_of_spikes() -> None:
    for network in ("mlp", "mlp, black and white"):
        sizes = [binary.sizes_of(variant)[1] for variant in binary.ORDINARY if variant["network"] == network]
        assert len(set(sizes)) == len(sizes) and 100 in sizes
        assert min(sizes) < min(binary.sizes_of(variant)[1] for variant in binary.SPIKING)
        assert max(sizes) >= max(binary.sizes_of(variant)[1] for variant in binary.SPIKING)
    assert [binary.sizes_of(variant)[1] for variant in binary.SPIKING].count(100) == 4
    assert {variant["code"] for variant in binary.SPIKING} == set(binary.CODES)


# --- what is the gradient of a loss, and what is not ----------------------------------------------


def walk(loss: Callable[[Tensor, Tensor], Tensor], left: float, right: float, low: float, high: float) -> float:
    """The surrogate's slopes added up along a rectangle in the plane of two weights, once around."""
    n, total = 4000, 0.0
    shares = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
    for start, end in zip(corners, corners[1:]):
        w1, w2 = ((s + (e - s) * shares).requires_grad_() for s, e in zip(start, end))
        for slopes, s, e in zip(torch.autograd.grad(loss(w1, w2).sum(), (w1, w2)), start, end):
            total += slopes.sum().item() * (e - s) / n
    return total


def test_a_surrogate_gradient_is_one_for_a_neuron_and_none_for_two() -> None:
    """The walks around a rectangle against integrals by hand, of the fast sigmoid at slope 3 and threshold 1."""

    def fire(charge: Tensor) -> Tensor:
        return binary_spike(charge - 1, "fast sigmoid", 3.0)

    def rises(start: float, end: float) -> float:
        return sum(sign * (z - 1) / (1 + 3 * abs(z - 1)) for sign, z in ((1, end), (-1, start)))

    def slope(charge: float) -> float:
        return (1 + 3 * abs(charge - 1)) ** -2

    a, b, c, d = 0.5, 1.5, 0.9, 1.3
    assert walk(lambda w1, w2: fire(0.6 * w1 + 0.4 * w2), a, b, c, d) == pytest.approx(0, abs=1e-6)

    def chain_along(w2: float) -> float:
        return w2 * (slope(0.0) * rises(a, 1) + slope(w2) * rises(1, b))

    by_hand = chain_along(c) + rises(c, d) - chain_along(d)  # the second weight's slope is 0 where w1 = a
    assert walk(lambda w1, w2: fire(w2 * fire(w1)), a, b, c, d) == pytest.approx(by_hand, abs=1e-6)
    assert abs(by_hand) > 0.1

    # log(1 + exp(s2 - s1)): its slope by s2 is p and by s1 is -p, with p the logistic function of s2 - s1.
    p = {s: 1 / (1 + math.exp(-s)) for s in (-1, 0, 1)}
    along = -p[0] * rises(a, 1) - p[-1] * rises(1, b) + p[1] * rises(a, 1) + p[0] * rises(1, b)
    up = p[-1] * rises(c, 1) + p[0] * rises(1, d) - p[0] * rises(c, 1) - p[1] * rises(1, d)
    side = walk(lambda w1, w2: F.softplus(fire(w2) - fire(w1)), a, b, c, d)
    assert side == pytest.approx(along + up, abs=1e-6) and abs(side) > 0.01
    # A loss that is a sum, a term for each neuron, couples nothing.
    assert walk(lambda w1, w2: fire(w1) + fire(w2) ** 2, a, b, c, d) == pytest.approx(0, abs=1e-6)


def test_what_the_exercises_say_is_so() -> None:
    assert surrogate_slope(torch.tensor(0.1), "fast sigmoid", 10.0).item() == pytest.approx(0.25)

    def n_levels(reset: str) -> int:
        currents, counts = torch.linspace(0, 1, 1000, dtype=torch.float64), set()
        for current in currents.tolist():
            state, fired = 0.0, 0
            for _ in range(25):
                state = current + 0.9 * state
                if state > 1:
                    fired, state = fired + 1, 0.0 if reset == "zero" else state - 1
            counts.add(fired)
        return len(counts)

    assert n_levels("subtract") > 2 * n_levels("zero")
    voltages = [0.8] * 31
    voltages[20] = 1.2
    credit = sum(surrogate_window([t - 25], voltages, t, slope=3.0).item() for t in range(31))
    assert credit > 1
