"""Networks and helpers inside torch's contexts: autocast, another default device, torch.func; against those without."""

from __future__ import annotations

from collections.abc import Callable
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
from snn_chapters import after_spike, boltzmann, credit, depth, rhythms
from snn_chapters.after_spike import (
    AfterSpikeNet,
    after_spike_law,
    after_spike_window,
    coincidence_shares,
    trace_after_credit,
)
from snn_chapters.binary import (
    BinarySpikingNet,
    accuracy_with_drops,
    evidence,
    make_model,
    surrogate_law,
    surrogate_window,
    to_nir,
    what_spikes_buy,
)
from snn_chapters.depth import EnsembleNet, diagnose, fire_at, silence_penalty
from snn_chapters.rhythms import RecurrentSpikingLayer, SequenceNet, match_task
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingLayer, SpikingNet, evaluate
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import (
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
from snn_helpers.statistics import mean_and_interval


def sequences(kind: type[SpikingLayer]) -> Callable[[], Any]:
    return lambda: SequenceNet(kind(16, 12, 0.9, 0.5, 0.7, generator=source()), 4, generator=source(1))


NETS: dict[str, Callable[[], Any]] = {
    **PLAIN,
    **OTHER_ANSWER,
    **{kind: make for kind, make in NOT_PLAIN.items() if kind != "linear quantised"},
    "sequences": sequences(SpikingLayer),
    "sequences, fed back": sequences(RecurrentSpikingLayer),
    "mixed precision": of(SpikingNet, mixed_precision=True),
    "shared flicker": of(SpikingNet, shared_flicker=True),
    "spiking input": of(BinarySpikingNet, spiking_input=True),
    "pushed": of(EnsembleNet, per_label=2, readout="spikes", share="silent", push=0.5),
    "flickering MLP": lambda: MLP(SIZES, flickering=True, generator=source()),
    "MLP with dropout": lambda: MLP(SIZES, dropout=0.5, generator=source()),
}


def answer(net: Any, seed: int = 1) -> Tensor:
    if isinstance(net, SequenceNet):
        return net(some_frames(200).transpose(0, 1))
    return net(some_images(200), source(seed))


def data(n: int = 30) -> TensorDataset:
    return TensorDataset(some_images(n), some_labels(n))


def after_spikes() -> AfterSpikeNet:
    net = of(AfterSpikeNet)()
    net(some_images(), source(1))
    return net.eval()


def spikes() -> Tensor:
    return (some_frames() > 0.3).float()


def digits(n: int = 30) -> TensorDataset:
    return TensorDataset(torch.rand(n, 1, 28, 28, generator=source(7)) - 0.5, torch.arange(n) % 2)


def hidden_spikes() -> Tensor:
    return of(BinarySpikingNet)().record(some_images())[0].outputs


def first_credit() -> Any:
    return trace_credit(plain(), some_frames(), some_labels())[0]


def machine(*sizes: int) -> boltzmann.Machine:
    return boltzmann.draw_machine(sizes, 1.0, source())


def pixels() -> Tensor:
    return torch.rand(20, 6, generator=source(8))


DELAYS = [-2, 0, 1, 3]
# Each helper, on what it is for; what is given to it is made outside of the context.
HELPERS: dict[str, Callable[[], Any]] = {
    "trace_credit": lambda: trace_credit(plain(), some_frames(), some_labels()),
    "input_credit": lambda: input_credit(first_credit().signals, first_credit().slopes, 0.9),
    "three_factors": lambda: three_factors(first_credit().inputs, first_credit().signals, first_credit().slopes, 0.9),
    "pair_weights": lambda: list(pair_weights(first_credit().signals, first_credit().slopes, 0.9, 4)),
    "pair_stdp": lambda: pair_stdp(spikes(), spikes()[..., :3], 1.0, 0.5, 5.0, 7.0),
    "spike_trace": lambda: spike_trace(spikes(), 0.9),
    "reset_slope": lambda: reset_slope(spikes(), 1.0, 1.5, "scale"),
    "gradient_window": lambda: gradient_window(DELAYS),
    "window_law": lambda: window_law(DELAYS),
    "after_spike_window": lambda: after_spike_window(DELAYS),
    "after_spike_law": lambda: after_spike_law(DELAYS),
    "surrogate_window": lambda: surrogate_window([0, 1], [0.5] * 5, 4),
    "surrogate_law": lambda: surrogate_law([0, 1], [0.5] * 5, 4),
    "trace_after_credit": lambda: trace_after_credit(after_spikes(), some_frames(), some_labels()),
    "after_spike.probe": lambda: after_spike.probe_after_spike(after_spikes(), some_frames(), some_labels(), 3),
    "coincidence_shares": lambda: coincidence_shares(first_credit(), 0.9, 3),
    "credit.probe": lambda: credit.probe(plain(), some_frames(), some_labels(), source(), 3),
    "digits_task": lambda: credit.digits_task(digits(), 8, torch.device("cpu"))(3, source()),
    "patterns_task": lambda: credit.patterns_task(16, torch.device("cpu"), source())(3, source()),
    "diagnose": lambda: [list(vars(h).values()) for h in diagnose(plain(), some_images(), some_labels())],
    "silence_penalty": lambda: silence_penalty(plain(), plain().record(some_images(), source()), 0.3),
    "fire_at": lambda: [layer.threshold for layer in fire_at(plain(), some_images(), 0.1).layers],
    "fire_at, weights": lambda: list(fire_at(plain(), some_images(), 0.1, "weights").parameters()),
    "what_spikes_buy": lambda: what_spikes_buy(of(BinarySpikingNet)(), data(), 0),
    "accuracy_with_drops": lambda: accuracy_with_drops(of(BinarySpikingNet)(), data(), 0.2, 0),
    "bright MLP": lambda: what_spikes_buy(make_model("mlp", 0), digits(), 0),
    "evidence": lambda: evidence(of(BinarySpikingNet)(), hidden_spikes()),
    "to_nir": lambda: [torch.from_numpy(to_nir(of(BinarySpikingNet)()).nodes["weights_0"].weight)],
    "listen": lambda: rhythms.listen(plain(), some_images(), 3, 128, 3, 0),
    "synchrony": lambda: rhythms.synchrony(spikes(), 8),
    "shift_trains": lambda: rhythms.shift_trains(spikes(), source()),
    "regularity": lambda: rhythms.regularity(spikes().repeat(10, 1, 1)),
    "match_task": lambda: match_task(digits(), 5, 2, 0).tensors,
    "energy": lambda: boltzmann.energy(machine(6, 4), [pixels().round(), pixels()[:, :4].round()]),
    "distribution": lambda: boltzmann.distribution(machine(6, 4)),
    "exact_gradient": lambda: boltzmann.exact_gradient(machine(6, 4), pixels().round()),
    "cd_gradient": lambda: boltzmann.cd_gradient(machine(6, 4), pixels(), 1, source())[0],
    "rhythm_cycle": lambda: boltzmann.rhythm_cycle(machine(6, 4, 3), pixels(), 6, 0.5, 1, source())[0],
    "feed_forward": lambda: boltzmann.feed_forward(machine(6, 4, 3), pixels()),
    "readout": lambda: boltzmann.fit_readout(pixels(), some_labels(20), 3e-3).coef_,
    "evaluate": lambda: list(vars(evaluate(plain(), data())).values()),
    "mean_and_interval": lambda: mean_and_interval([0.1, 0.4, 0.2]),
    "share_gradient": lambda: depth.share_gradient(plain().record(some_images(), source())[1], 0.5, 2),
}


def numbers(found: Any) -> list[Tensor]:
    """All that a helper has found, one tensor for each part."""
    leaves = (
        torch.as_tensor(leaf).detach().double()
        for leaf in tree_leaves(found)
        if not isinstance(leaf, (str, type(None)))
    )
    return [leaf.flatten() for leaf in leaves]


def off(found: Any, wanted: Any) -> float:
    """How far the worst of the parts is off, as a share of its size."""
    parts = list(zip(numbers(found), numbers(wanted), strict=True))
    return max(((one - other).norm() / other.norm().clamp(min=1e-6)).item() for one, other in parts)


def in_bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


# --- Autocast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("learning", [True, False])
def test_under_autocast_a_network_answers_nearly_as_without(kind: str, learning: bool) -> None:
    """To 2 %; binary spikes jump: one that a rounded current takes across the threshold counts in full, up to 5 %."""
    nets = [NETS[kind]().train(learning) for _ in range(2)]
    with torch.set_grad_enabled(learning):
        wanted = answer(nets[0])
        with in_bfloat16():
            found = answer(nets[1])
    assert off(found, wanted) < (0.05 if "binary" in kind or kind == "spiking input" else 0.02)
    if learning:
        for answered in (found, wanted):
            F.nll_loss(answered.float(), some_labels(200)).backward()
        for one, other in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or one.grad.isfinite().all()


@pytest.mark.parametrize("change", LINEARS)
def test_under_autocast_another_linear_map_works_too(change: str) -> None:
    nets = [with_linear(LINEARS[change])() for _ in range(2)]
    wanted = answer(nets[0])
    with in_bfloat16():
        found = answer(nets[1])
    assert off(found, wanted) < 0.02


def given_outside_of(context: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a helper is given is made in this context, in which the helper itself is not."""

    def kept(make: Callable[..., Any]) -> Callable[..., Any]:
        def making(*args: Any, **settings: Any) -> Any:
            with context():
                return make(*args, **settings)

        return making

    for name in GIVEN:
        monkeypatch.setitem(globals(), name, kept(globals()[name]))
    of_kind = of
    monkeypatch.setitem(globals(), "of", lambda kind, **settings: kept(of_kind(kind, **settings)))


GIVEN = ("plain", "some_frames", "some_images", "some_labels", "data", "digits", "spikes", "pixels", "machine")
GIVEN += ("first_credit", "after_spikes", "make_model", "hidden_spikes")


@pytest.mark.parametrize("helper", HELPERS)
def test_under_autocast_a_helper_finds_nearly_what_it_finds_without(
    helper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = HELPERS[helper]()
    given_outside_of(lambda: torch.autocast("cpu", enabled=False), monkeypatch)
    with in_bfloat16():
        found = HELPERS[helper]()
    assert off(found, wanted) < 0.02
    assert not torch.is_autocast_enabled("cpu"), "the context is left as it was"


# --- Another default device -----------------------------------------------------------------------


@pytest.mark.parametrize("helper", HELPERS)
def test_a_helper_makes_nothing_on_the_default_device(helper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "meta" stands for a GPU where there is none: what is made there by mistake meets tensors of the CPU."""
    wanted = HELPERS[helper]()
    given_outside_of(lambda: torch.device("cpu"), monkeypatch)
    with torch.device("meta"):
        found = HELPERS[helper]()
    assert off(found, wanted) == 0
    assert all(leaf.device.type == "cpu" for leaf in tree_leaves(found) if isinstance(leaf, Tensor))


@pytest.mark.parametrize("kind", NETS)
def test_a_network_is_made_on_the_default_device_and_runs_where_it_is(kind: str) -> None:
    with torch.device("meta"):
        assert {part.device.type for part in NETS[kind]().parameters()} == {"meta"}
    net, images, frames = NETS[kind](), some_images(), some_frames()
    with torch.device("meta"):
        found = net(frames.transpose(0, 1)) if isinstance(net, SequenceNet) else net(images, source(1))
        found[:, 0].sum().backward()
    assert found.device.type == "cpu"
    other = NETS[kind]()
    assert (
        off(found, other(frames.transpose(0, 1)) if isinstance(other, SequenceNet) else other(images, source(1))) == 0
    )


# --- torch.func -----------------------------------------------------------------------------------


def plain_layer(reset: str = "scale") -> SpikingLayer:
    return SpikingLayer(5, 4, 0.8, 0.5, 0.7, reset, source()).double()


def inputs(n: int = 3) -> Tensor:
    return torch.rand(7, n, 5, generator=source(2), dtype=torch.float64)


def summed(layer: SpikingLayer, given: Tensor) -> Tensor:
    states, outputs = layer(given)
    return (states.sin() + outputs.square()).sum()


@pytest.mark.parametrize("reset", RESETS)
def test_torch_func_grad_is_autograds(reset: str) -> None:
    layer, given = plain_layer(reset), inputs()
    found = torch.func.grad(lambda x: summed(layer, x))(given)
    (wanted,) = torch.autograd.grad(summed(layer, leaf := given.clone().requires_grad_()), leaf)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("reset", RESETS)
def test_vmap_of_grad_gives_each_examples_own_gradient(reset: str) -> None:
    layer, given = plain_layer(reset), inputs(4)
    parameters = dict(layer.named_parameters())

    def of_one(values: dict[str, Tensor], x: Tensor) -> Tensor:
        states, outputs = torch.func.functional_call(layer, values, (x[:, None],))
        return (states.sin() + outputs.square()).sum()

    found = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 1))(parameters, given)
    for example in range(4):
        layer.zero_grad()
        summed(layer, given[:, example : example + 1]).backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(found[name][example], parameter.grad)


def test_functional_call_takes_other_weights() -> None:
    layer, given = plain_layer(), inputs()
    doubled = {name: 2 * value for name, value in layer.named_parameters()}
    found = torch.func.functional_call(layer, doubled, (given,))
    with torch.no_grad():
        for value in layer.parameters():
            value.mul_(2)
    for one, other in zip(found, layer(given)):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reset", RESETS)
def test_jvp_is_the_slope_along_a_direction(reset: str) -> None:
    layer, given = plain_layer(reset), inputs()
    along = torch.randn(given.shape, generator=source(3), dtype=torch.float64)
    values, slopes = torch.func.jvp(lambda x: layer(x), (given,), (along,))
    with torch.no_grad():
        above, below = layer(given + 1e-6 * along), layer(given - 1e-6 * along)
    for value, slope, high, low, plainly in zip(values, slopes, above, below, layer(given)):
        torch.testing.assert_close(value, plainly)
        torch.testing.assert_close(slope, (high - low) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reset", RESETS)
def test_the_hessian_is_the_slope_of_the_gradient(reset: str) -> None:
    layer, given = plain_layer(reset), inputs(1)[:4, :, :]
    found = torch.func.hessian(lambda x: summed(layer, x))(given).reshape(20, 20)
    gradient = torch.func.grad(lambda x: summed(layer, x))
    for place in range(20):
        step = torch.zeros(20, dtype=torch.float64)
        step[place] = 1e-5
        slope = (gradient(given + step.reshape(given.shape)) - gradient(given - step.reshape(given.shape))) / 2e-5
        torch.testing.assert_close(found[place], slope.flatten(), rtol=1e-4, atol=1e-6)


def test_a_whole_network_can_be_differentiated_by_torch_func() -> None:
    net, images = plain().double(), some_images().double()
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return F.nll_loss(torch.func.functional_call(net, values, (images, source(1))), some_labels())

    found = torch.func.grad(loss)(parameters)
    F.nll_loss(net(images, source(1)), some_labels()).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
