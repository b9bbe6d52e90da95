"""Ensembles, shared gradients, the penalty for silence, and networks set from data: `snn_helpers.depth`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from snn_chapters.depth import EnsembleNet, charges, fire_at, read_members, share_gradient, silence_penalty

from snn_helpers import SpikingNet, neuron_step
from snn_helpers.networks import LayerRecord

SIZES = (784, 30, 20, 10)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(device: torch.device, n: int = 40) -> torch.Tensor:
    return (torch.rand(n, 1, 28, 28, generator=source(5)) - 0.5).to(device)


def small_net(**settings: object) -> EnsembleNet:
    return EnsembleNet(12, sizes=SIZES, generator=source(), **settings)  # type: ignore[arg-type]


# --- EnsembleNet ---------------------------------------------------------------------------------


def test_with_its_defaults_it_is_the_spiking_net_bit_for_bit(device: torch.device) -> None:
    images = some_images(device)
    ours, theirs = EnsembleNet(12, 3, SIZES, generator=source()), SpikingNet(12, 3, SIZES, generator=source())
    results = []
    for net in (ours.to(device), theirs.to(device)):
        log_probs = net(images, generator=source(1))
        gradients = torch.autograd.grad(log_probs[:, 0].sum(), list(net.parameters()))
        results.append((log_probs, *gradients))
    for one, other in zip(*results):
        assert torch.equal(one, other)


def test_reads_spikes_of_members_in_the_documented_order(device: torch.device) -> None:
    net = small_net(readout="spikes", per_label=3, begin_eval=2).to(device)
    images = some_images(device)
    with torch.no_grad():
        outputs = net.record(images, source(1))[-1].outputs[2:].mean(dim=0)  # [B, 30]
        logits = torch.stack([outputs[:, label::10].sum(dim=1) for label in range(10)], dim=1)
        torch.testing.assert_close(net(images, generator=source(1)), F.log_softmax(logits, dim=-1))


@pytest.mark.parametrize("n_members", [1, 4])
def test_the_readings_are_a_product_and_a_mean_of_softmaxes(n_members: int) -> None:
    members = torch.randn(6, n_members, 5, generator=source(), dtype=torch.float64)
    softmaxes = members.softmax(dim=-1)
    product = softmaxes.prod(dim=1)
    torch.testing.assert_close(read_members(members, "product").exp(), product / product.sum(dim=-1, keepdim=True))
    torch.testing.assert_close(read_members(members, "mixture").exp(), softmaxes.mean(dim=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_label": 0}, "per_label"),
        ({"per_label": True}, "per_label"),
        ({"readout": "rates"}, "'states', 'spikes'"),
        ({"reading": "sum"}, "'product', 'mixture'"),
        ({"share": "all"}, "'none', 'normalised', 'silent'"),
        ({"share": "silent"}, "readout='spikes'"),
        ({"push": -1.0}, "push"),
        ({"wanted_rate": 0.0}, "wanted_rate"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_net(**settings)


def test_its_settings_are_told_to_checkpoints() -> None:
    assert small_net().extra_repr() != small_net(push=0.5).extra_repr() != small_net(per_label=2).extra_repr()


def test_a_label_that_never_fires_gets_no_gradient(device: torch.device) -> None:
    net = small_net(readout="spikes").to(device)
    with torch.no_grad():
        net.layers[-1].linear.bias[3] = -100.0
    F.nll_loss(net(some_images(device), generator=source(1)), torch.full((40,), 3, device=device)).backward()
    assert (net.layers[-1].linear.weight.grad[3] == 0).all() and net.layers[-1].linear.bias.grad[3] == 0


# --- charges and the shared gradient -------------------------------------------------------------


@pytest.mark.parametrize("reset", ["scale", "discharge", "subtract", "zero"])
def test_charges_are_what_the_neuron_charged_to(reset: str) -> None:
    current, before = 3 * torch.randn(2, 50, generator=source(), dtype=torch.float64)
    output, state = neuron_step(current, before, 0.9, 1.2, 1.5, reset)
    record = LayerRecord(state[None, None], output[None, None])
    torch.testing.assert_close(charges(record, 1.2)[0, 0], current + 0.9 * before)


@pytest.mark.parametrize("silent_only", [False, True])
def test_sharing_changes_no_value_and_gives_the_ratio_as_slope(silent_only: bool) -> None:
    charge = (2 * torch.randn(7, 3, 6, generator=source(), dtype=torch.float64)).requires_grad_()
    outputs = (charge - 1).relu()
    states = torch.where(charge > 1, torch.zeros_like(charge), charge)
    shared = share_gradient(LayerRecord(states, outputs), 1.0, per_label=2, silent_only=silent_only)
    torch.testing.assert_close(shared, outputs)
    (slopes,) = torch.autograd.grad(shared.sum(), charge)
    for t in range(7):
        for b in range(3):
            for label in range(3):
                mine = charge[t, b, [label, label + 3]].tolist()
                total = sum(max(0.0, v - 1) for v in mine)
                ratio = total / sum(max(0.0, v) for v in mine) if total > 0 else 0.0
                for neuron, v in zip((label, label + 3), mine):
                    expected = 1.0 if silent_only and v > 1 else ratio
                    assert slopes[t, b, neuron].item() == pytest.approx(expected)


def test_sharing_reaches_a_silent_neuron_only_beside_one_that_fires(device: torch.device) -> None:
    net = small_net(readout="spikes", per_label=2, share="silent").to(device)
    last = net.layers[-1].linear
    with torch.no_grad():
        last.bias.fill_(1.5)
        last.bias[[3, 4, 14]] = -20.0  # label 3 keeps one of its two neurons, label 4 loses both
    F.nll_loss(net(some_images(device), generator=source(1)), torch.full((40,), 3, device=device)).backward()
    assert last.bias.grad[3] != 0
    assert last.bias.grad[4] == 0 and last.bias.grad[14] == 0


# --- the penalty ---------------------------------------------------------------------------------


def test_the_penalty_is_that_of_its_words(device: torch.device) -> None:
    net = small_net().to(device)
    with torch.no_grad():
        records = net.record(some_images(device), source(1))
        parts = []
        for record in records:
            for n in range(record.outputs.shape[2]):
                o, s = record.outputs[..., n].flatten().tolist(), record.states[..., n].flatten().tolist()
                rate = sum(x > 0 for x in o) / len(o)
                below = sum(max(0.0, 1 - (x + 1 if x > 0 else y)) for x, y in zip(o, s)) / len(o)
                parts.append(max(0.0, 1 - rate / 0.3) * below)
        penalty = silence_penalty(net, records, 0.3)
    assert penalty.item() == pytest.approx(sum(parts) / len(parts), rel=1e-4)


def test_the_push_changes_the_gradient_and_not_the_loss_and_only_in_training(device: torch.device) -> None:
    images, labels = some_images(device), torch.arange(40, device=device) % 10
    seen = {}
    for push in (0.0, 2.0):
        net = small_net(push=push).to(device)
        loss = F.nll_loss(net(images, generator=source(1)), labels)
        seen[push] = loss, torch.autograd.grad(loss, list(net.parameters()))
    net = small_net().to(device)
    penalty = silence_penalty(net, net.record(images, source(1)), net.wanted_rate)
    torch.testing.assert_close(seen[0.0][0], seen[2.0][0])
    expected = torch.autograd.grad(2.0 * penalty, list(net.parameters()))
    for with_push, without, alone in zip(seen[2.0][1], seen[0.0][1], expected):
        torch.testing.assert_close(with_push - without, alone, atol=1e-5, rtol=1e-3)
    net = small_net(push=2.0).to(device).eval()
    (gradient,) = torch.autograd.grad(
        F.nll_loss(net(images, generator=source(1)), labels), [net.layers[0].linear.weight]
    )
    torch.testing.assert_close(gradient, seen[0.0][1][0])


# --- set from data -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["thresholds", "weights"])
@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_fires_at_the_wanted_rate(how: str, reset: str, device: torch.device) -> None:
    net, images = small_net(reset=reset).to(device), some_images(device)
    assert fire_at(net, images, 0.2, how, seed=3) is net
    with torch.no_grad():
        records = net.record(images, source(3))
    for layer, record in zip(net.layers, records):
        rates = (record.outputs > 0).float().mean(dim=(0, 1))
        assert rates.mean().item() == pytest.approx(0.2, abs=0.02)
        if how == "weights":
            assert rates.min() > 0.1
            assert layer.threshold == 1.0 and layer.penalty == 1.5
        else:
            assert layer.penalty / layer.threshold == pytest.approx(1.5)


def test_thresholds_leave_the_weights_and_the_last_layer_alone(device: torch.device) -> None:
    net, drawn = small_net().to(device), small_net().to(device)
    fire_at(net, some_images(device), 0.2, last=False)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), drawn.parameters()))
    assert net.layers[-1].threshold == 1.0 and net.layers[0].threshold != 1.0


def test_weights_spread_the_charge_by_a_threshold(device: torch.device) -> None:
    net, images = small_net(threshold=0.5).to(device), some_images(device, 200)
    fire_at(net, images, 0.2, "weights", seed=3)
    charge = torch.zeros(200, 30, device=device)
    first = net.layers[0]
    from snn_helpers import flicker

    with torch.no_grad():
        for frame in flicker(images.flatten(1), 12, source(3)):
            charge = 0.9 * charge + F.linear(frame, first.linear.weight)
    assert charge.std(dim=0).mean().item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("settings", "message"), [({"rate": 0.7}, "rate"), ({"how": "biases"}, "how")])
def test_refuses_what_cannot_be_set(settings: dict[str, object], message: str, device: torch.device) -> None:
    with pytest.raises(ValueError, match=message):
        fire_at(small_net(), some_images(device), **settings)  # type: ignore[arg-type]


def test_an_ensemble_is_silent_with_the_product_of_the_shares() -> None:
    """The law of chapter 08, on neurons that are dead independently by construction."""
    dead = torch.rand(20_000, 3, generator=source()) < 0.6
    share = dead.all(dim=1).double().mean().item()
    assert abs(share - 0.6**3) < 4 * math.sqrt(0.6**3 * (1 - 0.6**3) / 20_000)
