"""A helper that is derived for one kind of network gives the right answer for another, or refuses it in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kinds import (
    LINEARS,
    NEURONS,
    NOT_PLAIN,
    OTHER_ANSWER,
    PLAIN,
    SIZES,
    Twice,
    learned,
    of,
    plain,
    some_frames,
    some_images,
    some_labels,
    source,
    with_layer,
    with_linear,
)
from snn_chapters.after_spike import AfterSpikeLayer, AfterSpikeNet, trace_after_credit, without_after_spikes
from snn_chapters.binary import BinarySpikingNet, to_nir
from snn_chapters.credit import gradient_step, probe, truncated
from snn_chapters.depth import EnsembleNet, diagnose, fire_at, silence_penalty
from snn_chapters.forward_in_time import OnlineNet
from snn_chapters.rhythms import RecurrentSpikingLayer, listen
from torch import Tensor, nn

from snn_helpers import LayerRecord, SpikingNet
from snn_helpers.plasticity import input_credit, trace_credit

HELPERS: dict[str, Any] = {
    "trace_credit": lambda net: trace_credit(net, some_frames(), some_labels()),
    "probe": lambda net: probe(net, some_frames(), some_labels(), source()),
    "diagnose": lambda net: diagnose(net, some_images(), some_labels()),
    "silence_penalty": lambda net: silence_penalty(net, [], 0.1),
    "truncated": lambda net: truncated(net, trace_credit(plain(), some_frames(), some_labels()), 0.9, source()),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
@pytest.mark.parametrize("helper", HELPERS)
def test_what_is_derived_for_plain_layers_refuses_others(helper: str, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{helper} is derived for a SpikingNet, layers of SpikingLayer"):
        HELPERS[helper](NOT_PLAIN[kind]())


@pytest.mark.parametrize("kind", OTHER_ANSWER)
@pytest.mark.parametrize("helper", ["trace_credit", "probe", "truncated"])
def test_credit_refuses_another_answer(helper: str, kind: str) -> None:
    with pytest.raises(TypeError, match=f"{helper} is derived for .*EnsembleNet reads them in a way of its own"):
        HELPERS[helper](OTHER_ANSWER[kind]())


class Again(SpikingNet):
    """Runs its layers twice."""

    def run(self, frames: Tensor) -> list[LayerRecord]:
        return super().run(torch.cat([frames, frames]))


class AtTheEnd(SpikingNet):
    """Reads the last state, not the mean."""

    def read_out(self, records: Sequence[LayerRecord]) -> Tensor:
        return records[-1].states[-1]


class Softer(SpikingNet):
    """Answers with a softer softmax."""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return F.log_softmax(self.logits(images, generator) / 2, dim=-1)


@pytest.mark.parametrize(("kind", "words"), [(Again, "runs them"), (AtTheEnd, "reads them"), (Softer, "answers")])
def test_plain_layers_that_are_run_or_read_otherwise_are_refused(kind: type[SpikingNet], words: str) -> None:
    for helper in ("trace_credit", "probe", "truncated", *(("diagnose", "silence_penalty") if kind is Again else ())):
        with pytest.raises(TypeError, match=f"{helper} is derived for .*{kind.__name__} {words} in a way of its own"):
            HELPERS[helper](of(kind)())
    if kind is not Again:  # what autograd says of an answer holds for any
        net = of(kind)()
        found = diagnose(net, some_images(), some_labels(), seed=2)
        F.nll_loss(net(some_images(), source(2)), some_labels()).backward()
        for layer, health in zip(net.layers, found):
            assert health.gradient == pytest.approx(layer.linear.weight.grad.square().mean().sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("kind", PLAIN)
def test_credit_is_that_of_autograd_for_each_layers_own_settings(kind: str) -> None:
    net, frames, labels = PLAIN[kind](), some_frames().double(), some_labels()
    net.double()
    for layer, (decay, threshold, reset) in zip(net.layers, ((0.6, 0.3, "discharge"), (0.95, 0.4, "scale"))):
        layer.decay, layer.threshold, layer.reset = decay, threshold, reset
    records = net.run(frames)
    F.nll_loss(F.log_softmax(net.read_out(records), dim=-1), labels).backward()
    for layer, factors in zip(net.layers, trace_credit(net, frames, labels)):
        credit = input_credit(factors.signals, factors.slopes, layer.decay)
        torch.testing.assert_close(torch.einsum("tbj,tbi->ji", credit, factors.inputs), layer.linear.weight.grad)
        step = gradient_step(factors, layer.decay)
        torch.testing.assert_close(step, -layer.linear.weight.grad)


def test_a_probe_takes_each_layers_own_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    from snn_chapters import credit
    from spies import spy

    net = plain()
    net.layers[0].decay, net.layers[1].decay = 0.7, 0.95
    first = ("cosines", "truncated", "hebbian_share", "windows", "halves", "positive_control")
    once = [spy(monkeypatch, credit, name, lambda given: {}) for name in first]
    last = spy(monkeypatch, credit, "share_at_spikes", lambda given: 0.0)
    probe(net, some_frames(), some_labels(), source(), n_delays=2)
    assert {call["decay"] for noted in once for call in noted} == {0.7}, "these are about the first layer"
    assert [call["decay"] for call in last] == [0.95]


@pytest.mark.parametrize("kind", {**PLAIN, **OTHER_ANSWER})
def test_a_diagnosis_is_that_of_autograd(kind: str) -> None:
    net = ({**PLAIN, **OTHER_ANSWER})[kind]()
    net.layers[0].threshold, net.layers[1].threshold = 0.3, 0.4
    found = diagnose(net, some_images(), some_labels(), seed=2)
    F.nll_loss(net.eval()(some_images(), source(2)), some_labels()).backward()
    for layer, record, health in zip(net.layers, net.record(some_images(), source(2)), found):
        assert health.gradient == pytest.approx(layer.linear.weight.grad.square().mean().sqrt().item(), rel=1e-3)
        torch.testing.assert_close(health.rates, (record.outputs > 0).float().mean(dim=(0, 1)))
        highest = torch.where(record.outputs > 0, record.outputs + layer.threshold, record.states).amax(dim=(0, 1))
        torch.testing.assert_close(health.peaks, (highest / layer.threshold).detach())


@pytest.mark.parametrize(
    "kind", [kind for kind in NOT_PLAIN if kind not in ("binary", "after-spikes", "MLP", "sequences")]
)
def test_training_forward_in_time_refuses_changed_layers(kind: str) -> None:
    other = NOT_PLAIN[kind]()
    net = of(OnlineNet)()
    net.layers = other.layers
    with pytest.raises(TypeError, match="OnlineNet is derived for a SpikingNet, layers of SpikingLayer"):
        net(some_images(), source())


def test_training_forward_in_time_takes_each_layers_own_settings() -> None:
    nets = [kind(12, 2, SIZES, generator=source()).double() for kind in (SpikingNet, OnlineNet)]
    for net in nets:
        for layer, (decay, threshold, penalty, reset) in zip(
            net.layers, ((0.6, 0.3, 0.2, "discharge"), (0.95, 0.4, 0.6, "scale"))
        ):
            layer.decay, layer.threshold, layer.penalty, layer.reset = decay, threshold, penalty, reset
        F.nll_loss(net(some_images().double(), source(1)), some_labels()).backward()
    for one, other in zip(*(net.parameters() for net in nets)):
        torch.testing.assert_close(one.grad, other.grad)


# --- Networks set from data -----------------------------------------------------------------------

SETTABLE: dict[str, tuple[Any, bool]] = {
    "spiking": (of(SpikingNet, n_steps=40), True),
    "online": (of(OnlineNet, n_steps=40), True),
    "binary": (of(BinarySpikingNet, n_steps=40), False),
    "binary, spiking input": (of(BinarySpikingNet, n_steps=40, spiking_input=True), False),
    "ensembles": (of(EnsembleNet, n_steps=40, per_label=2, readout="spikes"), True),
    "layer of one's own": (with_layer(lambda: Twice(16, 12, **NEURONS, generator=source())), True),
}


@pytest.mark.parametrize("how", ["thresholds", "weights"])
@pytest.mark.parametrize("kind", SETTABLE)
def test_fires_at_the_wanted_rate_whatever_the_kind(kind: str, how: str) -> None:
    make, last = SETTABLE[kind]
    net, images = make(), some_images(200)
    fire_at(net, images, 0.1, how, seed=3, last=last)
    for layer, before in zip(net.layers, make().layers):  # a spike leaves the same share of the charge
        assert layer.penalty / layer.threshold == pytest.approx(before.penalty / before.threshold, rel=1e-14)
    for record in net.record(images, source(3))[: None if last else -1]:
        rate = (record.outputs > 0).double().mean().item()
        assert rate == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("change", LINEARS)
def test_weights_are_set_only_where_there_are_weights_and_thresholds_everywhere(change: str) -> None:
    make = with_linear(LINEARS[change])
    images = some_images(200)
    with pytest.raises(TypeError, match=r"sets the weights and biases of an nn\.Linear; layer 1 has a"):
        fire_at(make(), images, 0.1, "weights")
    net = fire_at(make(), images, 0.1, seed=1)
    for record in net.record(images, source(1)):
        assert (record.outputs > 0).double().mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("kind", ["after-spikes", "recurrent layer", "recurrent last layer", "MLP", "sequences"])
def test_refuses_to_set_layers_that_hear_more(kind: str) -> None:
    for how in ("thresholds", "weights"):
        with pytest.raises(TypeError, match="fire_at sets the layers of a SpikingNet that hear nothing but"):
            fire_at(NOT_PLAIN[kind](), some_images(), 0.1, how)
    with pytest.raises(TypeError, match="learns its threshold or penalty"):
        fire_at(learned("penalty")(), some_images())
    with pytest.raises(ValueError, match="give last=False"):
        fire_at(of(BinarySpikingNet)(), some_images())


# --- NIR, after-spikes, rhythms -------------------------------------------------------------------


@pytest.mark.parametrize("kind", {**NOT_PLAIN, **OTHER_ANSWER, **PLAIN})
def test_only_a_binary_network_is_exported(kind: str) -> None:
    net = ({**NOT_PLAIN, **OTHER_ANSWER, **PLAIN})[kind]()
    if kind == "binary":
        assert set(to_nir(net).nodes) == {"input", "weights_0", "neurons_0", "weights_1", "neurons_1", "output"}
        return
    with pytest.raises(TypeError, match="to_nir takes a BinarySpikingNet as chapter 12 builds it"):
        to_nir(net)


@pytest.mark.parametrize("change", LINEARS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_binary_network_with_other_parts_is_not_exported(change: str, place: int) -> None:
    net = of(BinarySpikingNet)()
    net.layers[place].linear = LINEARS[change](net.layers[place].linear)
    with pytest.raises(TypeError, match=rf"weights and biases, .*layer {place + 1} is"):
        to_nir(net)


def test_a_binary_network_with_other_layers_is_not_exported() -> None:
    for place, layer in (
        (0, RecurrentSpikingLayer(16, 12, reset="zero", generator=source())),
        (1, RecurrentSpikingLayer(12, 4, reset="zero", generator=source())),
        (0, plain().layers[0]),
        (1, plain().layers[1]),  # a last layer that fires
    ):
        net = of(BinarySpikingNet)()
        net.layers[place] = layer
        with pytest.raises(TypeError, match=f"layer {place + 1} is"):
            to_nir(net)


@pytest.mark.parametrize("kind", [kind for kind in NOT_PLAIN if kind != "after-spikes"])
def test_the_credit_of_after_spikes_refuses_networks_without(kind: str) -> None:
    with pytest.raises(TypeError, match="this needs an AfterSpikeNet, or another SpikingNet whose first layer is"):
        trace_after_credit(NOT_PLAIN[kind](), some_frames(), some_labels())


def test_the_credit_of_after_spikes_refuses_networks_that_answer_otherwise() -> None:
    for kind in (BinarySpikingNet, EnsembleNet):
        net = of(kind)()
        net.layers[0] = AfterSpikeLayer(16, 12, **NEURONS, generator=source())
        with pytest.raises(TypeError, match=f"{kind.__name__} runs or reads its layers in a way of its own"):
            trace_after_credit(net, some_frames(), some_labels())


def test_a_twin_without_after_spikes_drops_nothing_else() -> None:
    net = of(AfterSpikeNet, balance=0.0)()
    net.layers[1].threshold, net.layers[1].decay = 0.25, 0.6
    twin, frames = without_after_spikes(net), some_frames()
    torch.testing.assert_close(net.eval().read_out(net.run(frames)), twin.read_out(twin.run(frames)))
    net.layers[1] = RecurrentSpikingLayer(12, 4, generator=source())
    with pytest.raises(TypeError, match="layer 2 is a RecurrentSpikingLayer, which does more"):
        without_after_spikes(net)


def test_listening_refuses_what_does_not_see_flickering_images() -> None:
    for kind in ("binary", "MLP", "sequences"):
        with pytest.raises(
            TypeError, match="listen shows flickering images, each with its own flicker, to a SpikingNet"
        ):
            listen(NOT_PLAIN[kind](), some_images(), 2, 128, 1, 0)


def test_hooks_of_who_only_looks_change_nothing() -> None:
    net, seen = plain(), []
    before = trace_credit(net, some_frames(), some_labels())
    net.layers[0].register_forward_hook(lambda module, given, made: seen.append(made))
    after = trace_credit(net, some_frames(), some_labels())
    assert seen and all(torch.equal(one, other) for a, b in zip(before, after) for one, other in zip(a, b))


def test_a_linear_whose_forward_is_replaced_is_no_plain_one() -> None:
    net = plain()
    net.layers[0].linear.forward = lambda inputs: torch.ones(*inputs.shape[:-1], 12)
    with pytest.raises(TypeError, match=r"in place of an nn\.Linear with weights"):
        trace_credit(net, some_frames(), some_labels())
    wanted = net.read_out(net.record(some_images(), source()))
    torch.testing.assert_close(net(some_images(), source()), F.log_softmax(wanted, dim=-1))
    assert isinstance(net.layers[0].linear, nn.Linear)
