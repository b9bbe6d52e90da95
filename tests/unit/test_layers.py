"""What may be done to a layer once it is made: other or learned settings, another linear map, saving, copying."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kinds import (
    LINEARS,
    NOT_PLAIN,
    OTHER_ANSWER,
    PLAIN,
    SIZES,
    of,
    plain,
    some_frames,
    some_images,
    some_labels,
    source,
    with_linear,
)
from snn_chapters.after_spike import AfterSpikeLayer, AfterSpikeNet
from snn_chapters.binary import BinarySpikingLayer, BinarySpikingNet
from snn_chapters.depth import EnsembleNet
from snn_chapters.forward_in_time import OnlineNet
from snn_chapters.rhythms import RecurrentSpikingLayer
from torch import Tensor, nn

from snn_helpers import Neuron, SpikingLayer, SpikingNet
from snn_helpers.neurons import RESETS

NETS = {**PLAIN, **OTHER_ANSWER, **{kind: NOT_PLAIN[kind] for kind in ("binary", "after-spikes", "recurrent layer")}}
LAYERS: dict[str, type[SpikingLayer]] = {
    "plain": SpikingLayer,
    "binary": BinarySpikingLayer,
    "after-spikes": AfterSpikeLayer,
    "recurrent": RecurrentSpikingLayer,
}
# Settings of their own that are not the defaults.
OTHERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "binary": {"shape": "triangle", "slope": 4.0, "detach": False},
    "after-spikes": {"after_decay": 0.5, "balance": 0.5, "provoked": False, "detach": True},
    "recurrent": {"delay": 3, "cut": True},
}
NEURON: dict[str, Any] = {"decay": 0.7, "threshold": 0.6, "penalty": 0.2, "reset": "discharge"}

# --- Settings assigned later ----------------------------------------------------------------------

WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("reset", "nil", ValueError, "reset must be one of 'scale'"),
    ("threshold", -1.0, ValueError, "threshold must be a finite number above 0"),
    ("threshold", 0, ValueError, "threshold must be a finite number above 0"),
    ("threshold", math.nan, ValueError, "threshold must be"),
    ("threshold", "1", TypeError, "threshold must be a number, not str"),
    ("threshold", torch.tensor(1.0), TypeError, "threshold"),
    ("threshold", nn.Parameter(torch.tensor(-1.0)), (TypeError, ValueError), "threshold"),
    ("penalty", -1, ValueError, "penalty must be"),
    ("decay", 1.5, ValueError, "decay must lie between"),
    ("decay", True, TypeError, "decay must be a number"),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), WRONG, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("learning", [True, False])
def test_settings_are_checked_where_they_are_used(
    kind: str, name: str, value: Any, error: Any, words: str, learning: bool
) -> None:
    net = NETS[kind]()
    setattr(net.layers[0], name, value)
    if kind == "online" and isinstance(value, Tensor) and learning:
        error, words = TypeError, "OnlineNet is derived for"
    with torch.set_grad_enabled(learning), pytest.raises(error, match=words):
        net(some_images(), source())


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        ("binary", "shape", "nil", "shape must be one of"),
        ("binary", "slope", -1.0, "slope must be"),
        ("after-spikes", "after_decay", 1.0, "after_decay must lie between 0 and 1"),
        ("after-spikes", "after_decay", -0.1, "after_decay must be"),
        ("after-spikes", "balance", 1.5, "balance must lie between"),
        ("recurrent layer", "delay", 0, "delay must be 1 or more"),
        ("recurrent layer", "delay", -2, "delay must be 1 or more"),
    ],
)
def test_a_layers_own_settings_are_checked_too(kind: str, name: str, value: Any, words: str) -> None:
    net = NETS[kind]()
    setattr(net.layers[0], name, value)
    with pytest.raises(ValueError, match=words):
        net(some_images(), source())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("readout", "rates", "'states', 'spikes'"),
        ("reading", "sum", "'product', 'mixture'"),
        ("share", "all", "'none', 'normalised', 'silent'"),
        ("push", -1.0, "push must be"),
        ("wanted_rate", 1.0, "wanted_rate must lie between"),
        ("per_label", 3, "per_label must divide the 8 neurons"),
        ("begin_eval", 12, "begin_eval"),
    ],
)
def test_a_networks_own_settings_are_checked_too(name: str, value: Any, words: str) -> None:
    net = of(EnsembleNet, per_label=2)()
    setattr(net, name, value)
    if name == "begin_eval":
        net = plain()
        net.begin_eval = value
    with pytest.raises(ValueError, match=words):
        net(some_images(), source())


@pytest.mark.parametrize("kind", PLAIN)
def test_settings_assigned_later_are_those_of_a_network_made_with_them(kind: str) -> None:
    for reset in RESETS:
        net, made = PLAIN[kind](), of(type(PLAIN[kind]()), **(NEURON | {"reset": reset}))()
        for layer in net.layers:
            for name, value in (NEURON | {"reset": reset}).items():
                setattr(layer, name, value)
        torch.testing.assert_close(net(some_images(), source(1)), made(some_images(), source(1)), rtol=0, atol=0)


# --- Settings that learn --------------------------------------------------------------------------


def loss_of(layer: SpikingLayer, inputs: Tensor) -> Tensor:
    states, outputs = layer(inputs)
    weights = torch.rand(2, *states.shape, generator=source(9), dtype=states.dtype)
    return (weights[0] * states + weights[1] * outputs).sum()


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", ["threshold", "decay", "penalty"])
@pytest.mark.parametrize("each", [False, True], ids=["one for all", "one for each neuron"])
def test_the_gradient_of_a_learned_setting_is_the_slope(name: str, reset: str, each: bool) -> None:
    """Away from where a neuron just fires or just does not, which 1e-6 does not cross here."""
    layer = SpikingLayer(16, 12, 0.8, 0.5, 0.7, reset, source()).double()
    inputs = some_frames(5).double()
    value = torch.full((12,) if each else (), getattr(layer, name), dtype=torch.float64)
    setattr(layer, name, nn.Parameter(value.clone()))
    assert name in dict(layer.named_parameters())
    (gradient,) = torch.autograd.grad(loss_of(layer, inputs), getattr(layer, name), allow_unused=True)
    gradient = torch.zeros_like(value) if gradient is None else gradient
    for place in range(value.numel()):
        losses = []
        for change in (1e-6, -1e-6):
            moved = value.clone()
            moved.view(-1)[place] += change
            with torch.no_grad():
                getattr(layer, name).copy_(moved)
                losses.append(loss_of(layer, inputs).item())
        slope = (losses[0] - losses[1]) / 2e-6
        assert gradient.view(-1)[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-5)
    assert bool(gradient.any()) == (name != "penalty" or reset in ("scale", "discharge"))


@pytest.mark.parametrize("kind", ["spiking", "spikes of ensembles", "binary", "after-spikes", "recurrent layer"])
@pytest.mark.parametrize("each", [False, True])
def test_a_threshold_that_is_a_parameter_is_learned(kind: str, each: bool) -> None:
    """Two steps of training, so that nothing of the first one's graph is left in the second."""
    net = NETS[kind]()
    net.layers[0].threshold = nn.Parameter(torch.full((SIZES[1],) if each else (), 0.5))
    before = net.layers[0].threshold.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        F.nll_loss(net(some_images(), source(step)), some_labels()).backward()
        optimizer.step()
    assert not torch.equal(net.layers[0].threshold, before)
    same = NETS[kind]()
    same.layers[0].threshold = 0.5
    fresh = NETS[kind]()
    fresh.layers[0].threshold = nn.Parameter(torch.full((SIZES[1],) if each else (), 0.5))
    torch.testing.assert_close(fresh(some_images(), source(4)), same(some_images(), source(4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (12, 1), (2, 12)])
def test_a_learned_setting_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    net = plain()
    net.layers[0].threshold = nn.Parameter(torch.ones(shape))
    with pytest.raises(ValueError, match="threshold must hold one value, or one for each of the 12 neurons"):
        net(some_images(), source())


def test_a_tensor_that_would_not_be_saved_is_refused() -> None:
    for name in ("decay", "threshold", "penalty"):
        with pytest.raises(TypeError, match=f"{name} must be a number, not Tensor"):
            SpikingLayer(3, 2, **{name: torch.tensor(0.5)})
        layer = SpikingLayer(3, 2)
        setattr(layer, name, torch.tensor(0.5))
        with pytest.raises(TypeError, match=f"{name} must be a number, or an nn.Parameter or a buffer"):
            layer(torch.zeros(4, 1, 3))
    layer = SpikingLayer(3, 2)
    del layer.threshold
    layer.register_buffer("threshold", torch.tensor([1.0, 3.0]))
    layer(torch.zeros(4, 1, 3))
    assert Neuron(*layer.neuron).threshold is layer.threshold


# --- Another linear map ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("change", LINEARS)
def test_another_linear_map_is_used_as_it_is(change: str, kind: str) -> None:
    """The currents are what it says, which a layer whose weights are set to the same map shows."""
    net = NETS[kind]()
    if kind == "online" and change != "none":
        net = plain()
    net.layers[0].linear = LINEARS[change](net.layers[0].linear)
    linear = net.layers[0].linear
    with torch.no_grad():
        bias = linear(torch.zeros(1, 16))[0]
        weight = torch.stack([linear(row[None])[0] - bias for row in torch.eye(16)], dim=1)
    other = plain() if kind == "online" else NETS[kind]()
    with torch.no_grad():
        other.layers[0].linear.weight.copy_(weight)
        other.layers[0].linear.bias.copy_(bias)
    found, wanted = net.eval()(some_images(), source(1)), other.eval()(some_images(), source(1))
    # A quantised product rounds its inputs to 256 levels.
    tolerance = 0.1 if change == "quantised" else 1e-3
    assert (found - wanted).abs().mean() < tolerance * wanted.abs().mean()
    found[:, 0].sum().backward()
    for name, parameter in linear.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("change", ["wrapped", "without bias", "weight norm", "pruned"])
def test_training_reaches_another_linear_map(change: str) -> None:
    net = with_linear(LINEARS[change])()
    before = {name: value.detach().clone() for name, value in net.layers[0].linear.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for step in range(3):
        optimizer.zero_grad()
        F.nll_loss(net(some_images(), source(step)), some_labels()).backward()
        optimizer.step()
    for name, value in net.layers[0].linear.named_parameters():
        assert not torch.equal(value, before[name]), name


# --- Saving and copying ---------------------------------------------------------------------------


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file, as `torch.load` reads it where no pickle is trusted."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read: dict[str, Any] = torch.load(file, weights_only=True)
    return read


@pytest.mark.parametrize("kind", LAYERS)
def test_settings_are_saved_with_the_weights(kind: str) -> None:
    one = LAYERS[kind](5, 4, **NEURON, **OTHERS[kind], generator=source(1))
    other = LAYERS[kind](5, 4, generator=source(2))
    inputs = 2 * torch.rand(9, 3, 5, generator=source(3))
    one(inputs)  # so that running means are saved, too
    result = other.load_state_dict(saved(one.state_dict()))
    assert not result.missing_keys and not result.unexpected_keys
    for name, value in (NEURON | OTHERS[kind]).items():
        assert getattr(other, name) == value and type(getattr(other, name)) is type(value), name
    for a, b in zip(one.eval()(inputs), other.eval()(inputs)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", NETS)
def test_a_network_loads_anothers_thresholds(kind: str) -> None:
    one, other = NETS[kind](), NETS[kind]()
    for place, layer in enumerate(one.layers[:-1] if kind == "binary" else one.layers):
        layer.threshold, layer.decay = 0.3 + 0.1 * place, 0.6 + 0.1 * place
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(1.5)
    answers = [one.eval()(some_images(), source(1)), other.eval()(some_images(), source(1))]
    assert not torch.allclose(*answers)
    other.load_state_dict(saved(one.state_dict()), strict=True)
    assert torch.equal(other(some_images(), source(1)), answers[0])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("other", LAYERS)
def test_weights_of_another_kind_of_layer_are_refused(kind: str, other: str) -> None:
    state = LAYERS[kind](5, 4).state_dict()
    if kind == other:
        LAYERS[other](5, 4).load_state_dict(state)
        return
    with pytest.raises(ValueError, match=f"cannot be those of a {LAYERS[other].__name__}, whose settings are"):
        LAYERS[other](5, 4).load_state_dict(state)
    with pytest.raises(ValueError, match="these weights are those of a layer with the settings"):
        LAYERS[other](5, 4).load_state_dict(state, strict=False)


def test_networks_of_another_kind_are_refused() -> None:
    for one, other in ((SpikingNet, BinarySpikingNet), (SpikingNet, AfterSpikeNet), (BinarySpikingNet, OnlineNet)):
        with pytest.raises(ValueError, match="cannot be those of a"):
            of(other)().load_state_dict(of(one)().state_dict())
    of(OnlineNet)().load_state_dict(of(SpikingNet)().state_dict())  # the same layers


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (b'{"decay": 0.9}', "a layer with the settings decay"),
        (b'{"decay": 2.0, "threshold": 1.0, "penalty": 1.0, "reset": "scale"}', "decay must lie between"),
        (b'{"decay": 0.9, "threshold": 1.0, "penalty": 1.0, "reset": "nil"}', "reset must be one of"),
        (b"not JSON", "these are not the settings of a layer"),
        ({"decay": 0.9}, "these are not the settings of a layer"),
    ],
)
def test_settings_that_cannot_be_are_not_loaded(state: Any, words: str) -> None:
    layer = SpikingLayer(5, 4)
    weights = layer.state_dict()
    weights["_extra_state"] = torch.tensor(list(state), dtype=torch.uint8) if isinstance(state, bytes) else state
    with pytest.raises(ValueError, match=words):
        layer.load_state_dict(weights)
    assert (layer.decay, layer.threshold, layer.penalty, layer.reset) == (0.9, 2.0, 2.5, "scale")


def test_learned_settings_are_saved_as_the_parameters_that_they_are() -> None:
    one, other = (SpikingLayer(5, 4) for _ in range(2))
    for value, layer in ((0.4, one), (0.9, other)):
        layer.threshold = nn.Parameter(torch.full((4,), value))
    other.load_state_dict(saved(one.state_dict()))
    assert torch.equal(other.threshold, one.threshold)
    with pytest.raises(RuntimeError, match="threshold"):
        SpikingLayer(5, 4).load_state_dict(one.state_dict())
    with pytest.raises(RuntimeError, match="threshold"):
        one.load_state_dict(SpikingLayer(5, 4).state_dict())


@pytest.mark.parametrize("kind", NETS)
def test_copies_answer_alike_and_live_by_themselves(kind: str) -> None:
    net = NETS[kind]()
    net.layers[0].threshold = 0.4
    F.nll_loss(net(some_images(), source()), some_labels()).backward()  # with the memory of the fast way in use
    twin = copy.deepcopy(net)
    assert torch.equal(net.eval()(some_images(), source(1)), twin.eval()(some_images(), source(1)))
    twin.layers[0].threshold = 0.8
    with torch.no_grad():
        twin.layers[0].linear.weight.zero_()
    assert net.layers[0].threshold == 0.4 and net.layers[0].linear.weight.any()
    twin.train()(some_images(), source(1))[:, 0].sum().backward()
