"""Ensembles, shared gradients, the penalty for silence, networks set from data, the diagnosis, and the trial."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from snn_chapters import depth
from snn_chapters.depth import (
    LEARNED,
    MARGIN,
    RACE,
    RACERS,
    REPAIRS,
    EnsembleNet,
    LayerHealth,
    charges,
    compare_repairs,
    depth_trial,
    diagnose,
    drawn_mlp,
    explain,
    fire_at,
    n_learned,
    plot_health,
    race_trial,
    read_members,
    share_gradient,
    sharing_slopes,
    silence_penalty,
    told_difference,
)
from snn_chapters.forward_in_time import OnlineNet
from spies import (
    TEST_NUMBERS,
    Calls,
    a_history,
    an_evaluation,
    are,
    numbered,
    one_class,
    several,
    shuffled,
    spy,
)
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingNet, neuron_step
from snn_helpers.networks import LayerRecord
from snn_helpers.training import TrainingDiverged, evaluate, fit

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


def test_refuses_a_number_of_members_that_is_none() -> None:
    with pytest.raises(TypeError, match="per_label must be a whole number, not bool"):
        small_net(per_label=True)


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
    """The law of chapter 11, on neurons that are dead independently by construction."""
    dead = torch.rand(20_000, 3, generator=source()) < 0.6
    share = dead.all(dim=1).double().mean().item()
    assert abs(share - 0.6**3) < 4 * math.sqrt(0.6**3 * (1 - 0.6**3) / 20_000)


def examples(device: torch.device, n: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(n, 1, 28, 28, generator=source(5)) - 0.3
    return images.to(device), (torch.arange(n) % 10).to(device)


def net_with_biases(device: torch.device, biases: list[float], **settings: object) -> EnsembleNet:
    net = EnsembleNet(10, sizes=SIZES, generator=source(), **settings)  # type: ignore[arg-type]
    for layer, bias in zip(net.layers, biases):
        torch.nn.init.constant_(layer.linear.bias, bias)
    return net.to(device)


def test_measures_what_a_record_and_autograd_say(device: torch.device) -> None:
    net, (images, labels) = net_with_biases(device, [0.2, 0.4, 0.1]), examples(device)
    found = diagnose(net, images, labels, seed=4)
    records = net.record(images, source(4))
    F.nll_loss(net(images, generator=source(4)), labels).backward()
    assert len(found) == 3
    for layer, record, health in zip(net.layers, records, found):
        fired = record.outputs > 0
        torch.testing.assert_close(health.rates, fired.float().mean(dim=(0, 1)).cpu())
        torch.testing.assert_close(health.peaks, charges(record, 1.0).amax(dim=(0, 1)).detach().cpu())
        assert health.dead == pytest.approx((~fired.any(dim=0).any(dim=0)).float().mean().item())
        assert health.gradient == pytest.approx(layer.linear.weight.grad.square().mean().sqrt().item(), rel=1e-4)
        assert torch.equal(health.reached, (layer.linear.bias.grad != 0).cpu())
        assert ((health.peaks > 1) >= (health.rates > 0)).all()


def test_leaves_the_network_as_it_was(device: torch.device) -> None:
    net, (images, labels) = net_with_biases(device, [0.2, 0.4, 0.1], push=1.0), examples(device)
    net.train()
    with torch.no_grad():
        before = diagnose(net, images, labels)
    assert net.training and all(p.grad is None for p in net.parameters())
    net.push = 0.0
    assert diagnose(net, images, labels)[0].gradient == pytest.approx(before[0].gradient)


def test_works_for_the_plain_network(device: torch.device) -> None:
    net = SpikingNet(8, sizes=SIZES, generator=source()).to(device)
    assert len(diagnose(net, *examples(device))) == 3


def test_names_a_silent_layer_and_what_it_does_to_the_others(device: torch.device) -> None:
    net = net_with_biases(device, [0.5, -50.0, 0.0])
    found = diagnose(net, *examples(device))
    first, second, third = explain(found)
    assert "cannot cross layer 2" in first
    assert "threshold is out of reach" in second and "none of its neurons fires" in second
    assert "layer 2 below it is silent" in third and "only its biases can learn" in third
    assert found[0].gradient == found[1].gradient == found[2].gradient == 0
    assert found[2].reach == 1.0 and found[1].reach == found[0].reach == 0.0


def test_a_silent_last_layer_blocks_only_if_its_spikes_are_read(device: torch.device) -> None:
    biases = [0.5, 0.5, -50.0]
    by_states = explain(diagnose(net_with_biases(device, biases), *examples(device)))
    by_spikes = explain(diagnose(net_with_biases(device, biases, readout="spikes"), *examples(device)))
    assert "cannot cross" not in "".join(by_states)
    assert all("cannot cross layer 3" in line for line in by_spikes[:2])


def test_names_neurons_that_always_fire_and_layers_without_fault(device: torch.device) -> None:
    net = net_with_biases(device, [20.0, 0.3, 0.3], decay=0.0, reset="zero")
    found = diagnose(net, *examples(device))
    # The first of ten steps hands out nothing: 0.9 is the most there is.
    assert found[0].rate == pytest.approx(0.9)
    assert found[0].always == 1.0 and "nearly every step" in explain(found)[0]
    healthy = LayerHealth(torch.full((4,), 0.2), torch.full((4,), 1.5), torch.ones(4, dtype=torch.bool), 0.1)
    assert explain([healthy]) == ["layer 1: no fault found (0.200 spikes a neuron and step)."]


def test_names_a_last_layer_that_fires_whatever_it_receives(device: torch.device) -> None:
    found = diagnose(net_with_biases(device, [0.5, 0.5, 50.0], reset="discharge"), *examples(device))
    first, _, last = explain(found)
    assert found[2].rate > 0 and found[2].reach == 0
    assert "cannot cross layer 3, which fires whatever it receives" in first
    assert "though it fires" in last and "nearly every step" in last


def test_names_dead_neurons_and_their_charge() -> None:
    sick = LayerHealth(
        torch.tensor([0.0, 0.0, 0.0, 0.3]),
        torch.tensor([0.2, 0.4, 0.6, 1.4]),
        torch.tensor([False, False, False, True]),
        0.1,
    )
    (told,) = explain([sick])
    assert "3 of 4 neurons are dead" in told and "0.40 thresholds" in told
    assert "reaches only 1 of 4" in told


def test_draws_every_neuron_and_every_layer(device: torch.device) -> None:
    found = diagnose(net_with_biases(device, [0.5, -50.0, 0.0]), *examples(device))
    figure, axes = plt.subplots(1, 2)
    plot_health(axes, found, title="health")
    assert sum(len(line.get_xdata()) for line in axes[0].lines) == 60
    assert len(axes[1].patches) == 3
    told = [text.get_text() for text in axes[1].texts]
    # The second layer is silent: nothing comes to the weights of the third, and its biases learn all the same.
    assert told == ["none\narrives", "none\narrives", "biases\nonly"]
    assert [each.get_title() for each in axes] == ["health: spikes", "health: gradient"]
    plt.close(figure)


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(40, 1, 28, 28, generator=generator) - 0.5, torch.arange(40) % 10)


def small_trial(digits: TensorDataset, seed: int = 3, **settings: Any) -> dict[str, Any]:
    settings = {"n_steps": 6, "batch_size": 20, "n_probe": 20, "device": "cpu"} | settings
    return depth_trial(seed, digits, digits, **settings)


def test_measures_what_the_parts_measure(digits: TensorDataset) -> None:
    row = small_trial(digits, n_layers=3, fire="weights", rate=0.2, learning_rate=0.05, reset="discharge")
    generator = torch.Generator().manual_seed(3)
    net = EnsembleNet(6, sizes=(784, 100, 100, 10), reset="discharge", generator=generator)
    fire_at(net, digits.tensors[0], 0.2, "weights", seed=3, last=False)
    before = diagnose(net, *(part[:20] for part in digits.tensors), seed=3)
    fit(net, digits, seed=3, device="cpu", learning_rates=[0.05, 0.025, 0.005], batch_size=20, progress=False)
    result = evaluate(net, digits, seed=3)
    assert row["test_accuracy"] == result.accuracy and row["test_loss"] == pytest.approx(result.loss)
    # Of these 40 digits all are shown at the end, too, as training images.
    assert row["train_accuracy"] == result.accuracy and row["train_loss"] == pytest.approx(result.loss)
    assert row["n_updates"] == 6
    for name in ("rate", "dead", "always", "reach", "gradient"):
        assert row["before"][name] == pytest.approx([getattr(layer, name) for layer in before], rel=1e-3)
    assert row["before"]["dead_labels"] == round(10 * before[-1].dead)


def test_repeats_itself_from_a_seed(digits: TensorDataset) -> None:
    one, two = (small_trial(digits, readout="spikes", per_label=2) for _ in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


@pytest.mark.parametrize("variant", REPAIRS)
def test_every_repair_can_be_tried(variant: str, digits: TensorDataset) -> None:
    row = small_trial(digits, **REPAIRS[variant][0])
    assert 0 <= row["test_accuracy"] <= 1 and 0 <= row["before"]["dead_labels"] <= 10


def test_a_label_is_dead_only_if_its_whole_ensemble_is(digits: TensorDataset) -> None:
    alone, crowd = (small_trial(digits, readout="spikes", per_label=k, threshold=0.2)["before"] for k in (1, 40))
    assert crowd["dead_labels"] <= alone["dead_labels"]
    assert crowd["dead"][-1] > crowd["dead_labels"] / 10


@pytest.mark.parametrize(("settings", "message"), [({"n_layers": 7}, "n_layers"), ({"fire": "at will"}, "as drawn")])
def test_refuses_what_it_does_not_know(settings: dict[str, Any], message: str, digits: TensorDataset) -> None:
    with pytest.raises(ValueError, match=message):
        small_trial(digits, **settings)


# --- The protocol ---------------------------------------------------------------------------------


def test_always_firing_is_to_fire_in_more_than_80_of_100_steps() -> None:
    rates = torch.tensor([0.0, 0.5, 0.79, 0.8, 0.81, 1.0, 0.2, 0.6], dtype=torch.float64)
    health = LayerHealth(rates, rates, rates > 0, 1.0)
    assert health.always == 0.25 and health.dead == 0.125
    assert health.rate == pytest.approx(4.7 / 8) and health.reach == 0.875


@pytest.mark.parametrize(
    "settings", [{}, {"readout": "spikes", "per_label": 2, "fire": "weights", "learning_rate": 0.5}]
)
def test_a_network_that_has_seen_one_class_knows_no_other(settings: dict[str, Any]) -> None:
    settings = {"n_steps": 8, "batch_size": 2, "n_probe": 10, "device": "cpu"} | settings
    assert depth_trial(0, one_class(3), one_class(5, 20), **settings)["test_accuracy"] == 0
    assert depth_trial(0, one_class(3), one_class(3, 20), **settings)["test_accuracy"] == 1


def test_a_test_whose_labels_are_shuffled_gives_chance() -> None:
    """Two classes, 200 digits: five standard errors are 0.18."""
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 5, "n_probe": 10, "device": "cpu"}
    rows = [depth_trial(0, train, given, **settings) for given in (test, shuffled(test))]
    assert rows[0]["test_accuracy"] > 0.95 and abs(rows[1]["test_accuracy"] - 0.5) < 0.18


class Spied(NamedTuple):
    fitted: Calls
    evaluated: Calls
    fired: Calls
    diagnosed: Calls


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    monkeypatch.setattr(depth, "whole_mnist", numbered)

    def silent(given: dict[str, Any]) -> list[LayerHealth]:
        zeros = [torch.zeros(layer.n_neurons) for layer in given["net"].layers]
        return [LayerHealth(none, none, none > 0, 0.0) for none in zeros]

    return Spied(
        spy(monkeypatch, depth, "fit", a_history),
        spy(monkeypatch, depth, "evaluate", an_evaluation),
        spy(monkeypatch, depth, "fire_at", lambda given: given["net"]),
        spy(monkeypatch, depth, "diagnose", silent),
    )


@pytest.mark.parametrize("readout", ["states", "spikes"])
def test_settings_reach_the_network_and_its_training(readout: str, spied: Spied) -> None:
    train, test = numbered()
    settings: dict[str, Any] = {"n_layers": 4, "fire": "thresholds", "rate": 0.15, "learning_rate": 0.4, "n_steps": 7}
    settings |= {"batch_size": 30, "n_probe": 25, "readout": readout, "decay": 0.7, "reset": "zero", "push": 0.5}
    row = depth_trial(6, train, test, **settings, device="cpu")
    (given,), (scored, seen), (fired,), (before, after) = spied
    net = given["model"]
    assert are(scored["dataset"], TEST_NUMBERS) and are(seen["dataset"], range(2000)) and seen["seed"] == 6
    assert isinstance(net, EnsembleNet) and (net.n_steps, net.readout, net.push) == (7, readout, 0.5)
    assert [layer.n_neurons for layer in net.layers] == [100, 100, 100, 10]
    assert {(layer.decay, layer.reset) for layer in net.layers} == {(0.7, "zero")}
    start = SpikingNet(7, sizes=(784, 100, 100, 100, 10), generator=source(6))
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), start.parameters()))
    assert given["learning_rates"] == pytest.approx([0.4, 0.2, 0.04]) and given["batch_size"] == 30
    assert (given["seed"], given["momentum"], given["weight_decay"], scored["seed"]) == (6, 0.5, 0.0, 6)
    assert (fired["rate"], fired["how"], fired["seed"], fired["last"]) == (0.15, "thresholds", 6, readout == "spikes")
    assert are(fired["images"], range(300)), "the network is set from training images"
    for call in (before, after):
        assert are(call["images"], TEST_NUMBERS[:25]) and torch.equal(call["labels"], torch.arange(25) % 10)
        assert call["net"] is net and call["seed"] == 6
    assert (row["n_updates"], row["test_accuracy"], row["test_loss"]) == (6, 0.25, 1.5)
    assert row["before"]["dead_labels"] == row["after"]["dead_labels"] == 10
    assert row["before"]["dead"] == [1.0] * 4 and row["before"]["always"] == row["before"]["reach"] == [0.0] * 4


def test_as_drawn_is_as_drawn(spied: Spied) -> None:
    depth_trial(0, *numbered(), n_steps=3, device="cpu")
    assert not spied.fired


def test_a_training_that_diverged_counts_as_a_failure(spied: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*args: Any, **settings: Any) -> None:
        raise TrainingDiverged("the loss is nan")

    monkeypatch.setattr(depth, "fit", diverge)
    row = depth_trial(0, *numbered(), n_steps=3, device="cpu")
    assert (row["test_accuracy"], row["test_loss"], row["diverged"]) == (0.0, None, True)
    assert not spied.evaluated and "after" not in row


def some_trials(name: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The first trials of a tuning; those of what follows one, at a learning rate that it would choose."""
    if name.endswith("rates"):
        trials = depth.RECORDS[name].trials
        return trials() if callable(trials) else trials
    of_each = [{"variant": v} for v in REPAIRS] if "mending" in name else [variant for variant, _ in RACE]
    rows = [
        {"settings": variant | {"learning_rate": rate, "seed": seed}, "test_accuracy": accuracy}
        for variant in of_each
        for rate, accuracy in ((0.1, 0.8), (0.12, 0.9), (0.15, 0.7))
        for seed in (5, 6, 7)
    ]
    monkeypatch.setattr(depth, "load_results", lambda asked: {"trials": rows} if asked == f"{name}_rates" else None)
    trials = depth.RECORDS[name].trials
    assert callable(trials)
    return trials()


@pytest.mark.parametrize("name", depth.RECORDS)
def test_what_a_record_fits_and_what_it_scores(name: str, spied: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen is chosen on held-out training images; all else is scored on the test images."""
    trials = some_trials(name, monkeypatch)
    key = "variant" if "mending" in name else "network"
    for settings in {trial[key]: trial for trial in trials}.values():  # one of each
        for calls in spied:
            calls.clear()
        said = {"start": "as drawn"} | (REPAIRS[settings["variant"]][0] if key == "variant" else {}) | settings
        spiking, n_layers, hidden = (
            RACERS[said["network"]] if key == "network" else (True, said.get("n_layers", 2), 100)
        )
        depth.RECORDS[name].run(**settings, **({"n_steps": 3} if spiking else {}), device="cpu")
        (given,), (scored, seen) = spied.fitted, spied.evaluated
        n_train = 3000 if key == "variant" else 8000
        held_out = range(58_000, 60_000) if key == "variant" else range(55_000, 60_000)
        wanted = held_out if name.endswith("rates") else TEST_NUMBERS
        assert are(given["dataset"], range(n_train)) and are(scored["dataset"], wanted)
        assert are(seen["dataset"], range(2000)) and not set(range(n_train)) & set(wanted)
        assert given["batch_size"] == 50 and given["seed"] == settings["seed"]
        assert given["learning_rates"] == pytest.approx([settings["learning_rate"] * f for f in (1, 0.5, 0.1)])
        net = given["model"]
        assert [layer.weight.shape[0] if isinstance(net, MLP) else layer.n_neurons for layer in net.layers] == [
            *[hidden] * (n_layers - 1),
            10 * said.get("per_label", 1),
        ]
        assert isinstance(net, EnsembleNet) == spiking
        if not spiking:
            assert not spied.fired and not spied.diagnosed
            continue
        assert all(are(call["images"], wanted[:500]) for call in spied.diagnosed) and len(spied.diagnosed) == 2
        assert all(are(call["images"], range(300)) for call in spied.fired)
        for option in ("reading", "readout", "share", "push", "per_label"):
            assert getattr(net, option) == said.get(option, getattr(EnsembleNet(), option))
        assert {layer.decay for layer in net.layers} == {said.get("decay", 0.9)}
        assert {layer.reset for layer in net.layers} == {said.get("reset", "scale")}
        fire = said["start"] if key == "network" else said.get("fire", "as drawn")
        rate = 0.2 if key == "network" else said.get("rate", 0.1)
        assert [(call["how"], call["rate"]) for call in spied.fired] == ([(fire, rate)] if fire != "as drawn" else [])


@pytest.mark.parametrize("name", ["11_mending", "11_race"])
def test_what_follows_a_tuning_uses_its_choice_and_other_seeds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = some_trials(name, monkeypatch)
    assert {trial["learning_rate"] for trial in trials} == {0.12}
    assert all(trial["held_out"] is False for trial in trials)
    key = "variant" if name == "11_mending" else "network"
    for each in REPAIRS if name == "11_mending" else RACERS:
        seeds = [trial["seed"] for trial in trials if trial[key] == each]
        assert seeds == list(range(10 if each.startswith(("one", "ensembles")) else 5))


def test_two_variants_are_never_taken_for_one_another() -> None:
    """Rows are told apart by their settings: those of one variant are not among those of another."""
    for one in [variant for variant, _ in RACE]:
        assert sum(one.items() <= other.items() for other, _ in RACE) == 1
    assert {variant["network"] for variant, _ in RACE} == set(RACERS)


def test_what_learned_nowhere_is_run_where_its_search_began() -> None:
    dead = [{"settings": {"variant": "x", "learning_rate": r, "seed": 5}, "test_accuracy": 0.1} for r in (0.1, 1.0)]
    assert depth.chosen_rate(dead, 0.3, variant="x") == 0.3
    alive = [*dead, {"settings": {"variant": "x", "learning_rate": 0.5, "seed": 5}, "test_accuracy": 0.6}]
    with pytest.raises(ValueError, match="needs 3 seeds or more"):
        depth.chosen_rate(alive, 0.3, variant="x")


def test_the_start_of_a_racer_is_the_one_whose_best_rate_is_best() -> None:
    """A start may win with a rate at which another one is worse."""
    best = {"as drawn": (0.1, 0.91), "thresholds": (0.33, 0.94), "weights": (0.1, 0.93), "Xavier": (0.1, 0.95)}
    best |= {"He": (0.12, 0.92)}
    rows = [
        {"settings": variant | {"learning_rate": rate, "seed": seed}, "test_accuracy": accuracy}
        for variant, _ in RACE
        for rate, accuracy in (
            (best[variant["start"]][0] / 1.2, 0.5),
            best[variant["start"]],
            (best[variant["start"]][0] * 1.2, 0.6),
        )
        for seed in (5, 6, 7)
    ]
    wanted = {name: ("thresholds", 0.33) if spiking else ("Xavier", 0.1) for name, (spiking, *_) in RACERS.items()}
    assert depth.chosen_starts(rows) == wanted


# --- The race -------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", RACERS)
def test_every_racer_runs_and_its_weights_are_counted(network: str, digits: TensorDataset) -> None:
    spiking, *_ = RACERS[network]
    given: dict[str, Any] = {"n_steps": 4, "n_probe": 20} if spiking else {}
    start = "thresholds" if spiking else "He"
    row = race_trial(network, start, 1, digits, digits, learning_rate=0.01, batch_size=20, device="cpu", **given)
    hidden = {"two layers": [100], "two wide layers": [125], "four layers": [100, 100, 100]}[network.split(", ")[1]]
    net = SpikingNet(4, sizes=(784, *hidden, 10))
    assert row["n_weights"] == sum(part.numel() for part in net.parameters())
    assert row["n_updates"] == 6 and 0 <= row["test_accuracy"] <= 1 and ("before" in row) == spiking


def test_two_wide_layers_have_as_many_weights_as_four() -> None:
    def weights(hidden: list[int]) -> int:
        return sum(part.numel() for part in MLP((784, *hidden, 10)).parameters())

    four = weights([100, 100, 100])
    assert abs(weights([125]) - four) == min(abs(weights([n]) - four) for n in range(110, 140))


def test_a_race_refuses_what_it_does_not_know(digits: TensorDataset) -> None:
    with pytest.raises(ValueError, match="network must be one of 'spiking, two layers'"):
        race_trial("two layers", "He", 0, digits, digits)
    with pytest.raises(ValueError, match="draw must be one of 'as drawn', 'Xavier', 'He', not 'weights'"):
        race_trial("ordinary, two layers", "weights", 0, digits, digits)
    with pytest.raises(ValueError, match="fire must be one of 'as drawn', 'thresholds', 'weights', not 'He'"):
        race_trial("spiking, two layers", "He", 0, digits, digits)


@pytest.mark.parametrize(("draw", "factor"), [("Xavier", 0.5), ("He", 1.0)])
def test_draws_keep_the_mean_square_of_what_they_are_derived_for(draw: str, factor: float) -> None:
    """Through ten wide layers of ReLUs He's keep it, Xavier's halve it at each: both within four standard errors."""
    width = 1000
    net = drawn_mlp((width,) * 11, draw, 0)
    values = torch.randn(200, width, generator=source())
    with torch.no_grad():
        for linear in net.layers:
            linear.bias.zero_()
            before, values = values.square().mean(), torch.relu(linear(values))
            # Of a layer: 1,000 outputs, each with the relative variance 5 of a squared half-normal.
            assert abs((values.square().mean() / before).item() / factor - 1) < 4 * math.sqrt(5 / width)


def test_as_drawn_an_ordinary_network_is_the_one_of_its_seed() -> None:
    for one, other in zip(
        drawn_mlp((6, 5, 3), "as drawn", 4).parameters(), MLP((6, 5, 3), generator=source(4)).parameters()
    ):
        assert torch.equal(one, other)


# --- What is said of them -------------------------------------------------------------------------


def test_a_training_has_learned_above_the_mark_and_the_middle_is_the_median() -> None:
    assert n_learned([0.9, 0.1, LEARNED, 0.85, 0.2]) == "2 of 5 learned; median 80.0 % (10.0 to 90.0)"
    assert n_learned([0.9, 0.1, 0.6, 0.5]) == "1 of 4 learned; median 55.0 % (10.0 to 90.0)"


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([2.0, 2.1, 1.9, 2.0, 2.0], "ahead"),
        ([-2.0, -2.1, -1.9, -2.0, -2.0], "behind"),
        ([0.3, 0.31, 0.29, 0.3, 0.3], "ahead, by less than 0.5 points"),
        ([0.05, -0.05, 0.02, -0.02, 0.0], "alike, within 0.5 points"),
        ([1.5, -1.5, 1.0, -1.0, 0.5], "open"),
    ],
)
def test_a_difference_is_told_with_what_follows_from_it(points: list[float], words: str) -> None:
    assert told_difference(points, 1).endswith(f": {words}") and MARGIN == 0.5


def test_of_several_comparisons_each_has_to_be_clearer() -> None:
    points = [0.9, 1.2, 0.4, 1.0, 0.7]
    assert told_difference(points, 1).endswith(": ahead") and told_difference(points, 50).endswith(": open")


@pytest.mark.parametrize(
    ("learn", "of_other", "comparisons", "words"),
    [
        # By Fisher's exact test, two-sided: 5 against 0 of 5 is 2 / 252, 5 against 1 of 5 is 2 * 5 / 210.
        (5, 0, 6, "5 of 5 learn against 0 of 5 (p = 0.008): clearly more"),
        (0, 5, 6, "0 of 5 learn against 5 of 5 (p = 0.008): clearly fewer"),
        (5, 0, 7, "5 of 5 learn against 0 of 5 (p = 0.008): open"),
        (5, 1, 1, "5 of 5 learn against 1 of 5 (p = 0.048): clearly more"),
        (5, 1, 2, "5 of 5 learn against 1 of 5 (p = 0.048): open"),
    ],
)
def test_where_some_trainings_fail_it_is_counted_how_many_learn(
    learn: int, of_other: int, comparisons: int, words: str
) -> None:
    first, second = ([0.9] * count + [0.1] * (5 - count) for count in (learn, of_other))
    assert compare_repairs(first, second, comparisons) == words


def test_a_small_probability_is_not_told_as_none() -> None:
    """10 against 0 of 10 is 2 / 184,756."""
    assert compare_repairs([0.9] * 10, [0.1] * 10, 6) == "10 of 10 learn against 0 of 10 (p < 0.001): clearly more"


def test_where_all_learn_points_are_compared() -> None:
    one, other = [0.90, 0.91, 0.92], [0.88, 0.89, 0.90]
    assert compare_repairs(one, other, 2) == "all learn; in points +2.00 ± 0.00: ahead"


@pytest.mark.parametrize("silent_only", [False, True])
def test_the_slopes_of_sharing_are_the_ratio_in_each_ensemble_that_fires(silent_only: bool) -> None:
    charge = 2 * torch.randn(7, 3, 6, generator=source(), dtype=torch.float64)
    outputs = (charge - 1).relu()
    record = LayerRecord(torch.where(charge > 1, -torch.ones_like(charge), charge), outputs)
    found = sharing_slopes(record, 1.0, 2, silent_only)
    for t, b, label in [(t, b, label) for t in range(7) for b in range(3) for label in range(3)]:
        of = [label, label + 3]
        ratio = outputs[t, b, of].sum() / charge[t, b, of].relu().sum().clamp(min=1e-12)
        wanted = [1.0 if silent_only and outputs[t, b, n] > 0 else ratio.item() for n in of]
        assert found[t, b, of].tolist() == pytest.approx(wanted)


# --- The exercises --------------------------------------------------------------------------------


def test_what_the_exercises_say_is_so() -> None:
    """Fourteen neurons, between 10 and 20; one ensemble of three whose outputs are 0.5 and whose slopes are 0.227."""
    assert (1 - 0.6**14) ** 10 >= 0.99 > (1 - 0.6**13) ** 10
    charge = torch.tensor([1.5, 0.5, 0.2], requires_grad=True)
    outputs = (charge - 1).relu()
    shared = share_gradient(LayerRecord(charge[None, None], outputs[None, None].detach()), 1.0, per_label=3)
    assert shared.sum().item() == pytest.approx(0.5)
    assert (outputs.sum() / charge.relu().sum()).item() == pytest.approx(0.227, abs=5e-4)


@pytest.mark.parametrize(("readout", "per_label", "reading"), [("spikes", 1, "product"), ("states", 2, "mixture")])
def test_the_logits_of_an_ensemble_are_those_of_its_answer(readout: str, per_label: int, reading: str) -> None:
    generator = torch.Generator().manual_seed(0)
    settings: dict[str, Any] = {"readout": readout, "per_label": per_label, "reading": reading, "generator": generator}
    net, images = EnsembleNet(9, 2, (6, 5, 3), **settings), torch.rand(4, 6, generator=generator)
    record = net.record(images, torch.Generator().manual_seed(1))[-1]
    values = (record.states if readout == "states" else record.outputs)[2:].mean(dim=0).reshape(4, per_label, 3)
    wanted = values.sum(dim=1).softmax(1) if reading == "product" else values.softmax(2).mean(dim=1)
    found = net.logits(images, torch.Generator().manual_seed(1)).softmax(dim=1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(net(images, torch.Generator().manual_seed(1)).exp(), wanted)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"readout": "both"}, "readout must be one of"),
        ({"readout": "spikes", "reading": "sum"}, "reading must be one of"),
        ({"readout": "spikes", "share": "all"}, "share must be one of"),
        ({"share": "silent"}, "share needs readout='spikes'"),
        ({"push": -1.0}, "push must be a finite number of 0 or more"),
        ({"push": 1.0, "wanted_rate": 0.0}, "wanted_rate must lie between 0 and 1"),
        ({"per_label": 2}, "per_label must divide the 3 neurons"),
    ],
)
def test_settings_of_an_ensemble_that_no_longer_fit_are_refused(changed: dict[str, Any], words: str) -> None:
    net = EnsembleNet(5, sizes=(6, 5, 3))
    vars(net).update(changed)
    with pytest.raises(ValueError, match=words):
        net(torch.rand(2, 6))


def test_members_are_read_in_a_way_that_exists() -> None:
    with pytest.raises(ValueError, match="reading must be one of 'product', 'mixture', not 'mean'"):
        depth.read_members(torch.rand(2, 3, 4), "mean")


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
def test_diagnosis_of_a_network_that_learns_forward_in_time(off: Any, frozen: bool) -> None:
    """It gives the gradients of the plain network, also where gradients are off, and leaves all as it was."""
    images, labels = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1])
    nets = [
        kind(9, sizes=(6, 5, 3), threshold=0.5, generator=torch.Generator().manual_seed(0))
        for kind in (SpikingNet, OnlineNet)
    ]
    nets[1].requires_grad_(not frozen).layers[0].eval()
    wanted = diagnose(nets[0], images, labels)
    with off():
        found = diagnose(nets[1], images, labels)
    for one, other in zip(found, wanted):
        assert one.gradient == pytest.approx(other.gradient, rel=1e-4) and other.gradient > 0
        assert torch.equal(one.reached, other.reached)
    assert nets[1].training and not nets[1].layers[0].training
    assert all(part.requires_grad != frozen and part.grad is None for part in nets[1].parameters())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 3]), "labels must lie between 0 and 2, the classes, but one is 3"),
        (torch.tensor([-100, 1]), "but one is -100"),
        (torch.tensor([0.0, 1.0]), "labels must be whole numbers"),
        (torch.tensor([0]), r"labels must have the shape \[2\]"),
    ],
)
def test_diagnosis_refuses_labels_that_are_no_classes(labels: torch.Tensor, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        diagnose(EnsembleNet(5, sizes=(6, 4, 3), per_label=2), torch.rand(2, 6), labels)
