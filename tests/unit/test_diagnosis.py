"""The diagnosis of a network, its words and its picture: `snn_helpers.diagnosis`, `plots.plot_health`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from snn_chapters.depth import EnsembleNet, LayerHealth, charges, diagnose, explain

from snn_helpers import SpikingNet, plots

SIZES = (784, 30, 20, 10)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    plots.plot_health(axes, found, title="health")
    assert sum(len(line.get_xdata()) for line in axes[0].lines) == 60
    assert len(axes[1].patches) == 3
    told = [text.get_text() for text in axes[1].texts]
    assert told == ["none\narrives", "none\narrives", "reaches\n100%"]
    assert "health" in (axes[0].get_title(), axes[0].get_title(loc="left"))
    plt.close(figure)
