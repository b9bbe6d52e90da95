"""What ails a spiking network: who fires, who never does, and whom the gradient reaches; derived in chapter 08."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .depth import charges
from .networks import SpikingNet
from .neurons import SpikingLayer

ALWAYS = 0.8  # a neuron that fires in more than this share of all steps is always firing


@dataclass(frozen=True)
class LayerHealth:
    """One layer on some images, its neurons one by one: `rates`, `peaks` and `reached` are `[n_neurons]`.

    `rates`: the share of steps in which a neuron fires, over all images. `peaks`: the highest charge
    that it ever had, in thresholds; it fires above 1. `reached`: whether a gradient reaches its current,
    and so its bias. `gradient`: the root mean square of the gradient over all of the layer's weights,
    which need an input to be reached, too.
    """

    rates: Tensor
    peaks: Tensor
    reached: Tensor
    gradient: float

    @property
    def rate(self) -> float:
        """The firing rate, in spikes a neuron and step."""
        return self.rates.mean().item()

    @property
    def dead(self) -> float:
        """The share of neurons that never fire on these images."""
        return (self.rates == 0).to(torch.float32).mean().item()

    @property
    def always(self) -> float:
        """The share of neurons that fire in more than 80 % of the steps."""
        return (self.rates > ALWAYS).to(torch.float32).mean().item()

    @property
    def reach(self) -> float:
        """The share of neurons that a gradient reaches."""
        return self.reached.to(torch.float32).mean().item()


def diagnose(net: SpikingNet, images: Tensor, labels: Tensor, seed: int = 0) -> list[LayerHealth]:
    """Show the images to the network and look at each layer, the first one first; derived in chapter 08.

    `images` `[B, 1, 28, 28]` and `labels` `[B]`; some hundreds of each. The flicker comes from the
    seed. The gradient is that of the loss without penalties; the network is left as it was.
    """
    device = next(net.parameters()).device
    images, labels = images.to(device), labels.to(device)
    was_training = net.training
    net.eval()
    with torch.no_grad():
        records = net.record(images, torch.Generator().manual_seed(seed))
    layers = [layer for layer in net.layers if isinstance(layer, SpikingLayer)]
    with torch.enable_grad():
        loss = F.nll_loss(net(images, generator=torch.Generator().manual_seed(seed)), labels)
        of_weights = torch.autograd.grad(loss, [layer.linear.weight for layer in layers], retain_graph=True)
        of_biases = torch.autograd.grad(loss, [layer.linear.bias for layer in layers])
    net.train(was_training)
    return [
        LayerHealth(
            rates=(record.outputs > 0).to(torch.float32).mean(dim=(0, 1)).cpu(),
            peaks=(charges(record, layer.threshold).amax(dim=(0, 1)) / layer.threshold).cpu(),
            reached=(of_bias != 0).cpu(),
            gradient=of_weight.square().mean().sqrt().item(),
        )
        for layer, record, of_weight, of_bias in zip(layers, records, of_weights, of_biases)
    ]


def explain(health: list[LayerHealth]) -> list[str]:
    """One line for each layer, which names what is wrong with it and the cause; derived in chapter 08."""
    lines = []
    for index, layer in enumerate(health):
        faults = [fault for fault in (_firing_fault(health, index), _gradient_fault(health, index)) if fault]
        told = "; ".join(faults) if faults else "no fault found"
        lines.append(f"layer {index + 1}: {told} ({layer.rate:.3f} spikes a neuron and step).")
    return lines


def _firing_fault(health: list[LayerHealth], index: int) -> str:
    layer = health[index]
    n_dead, n_neurons = int((layer.rates == 0).sum()), len(layer.rates)
    if n_dead == n_neurons:
        if index > 0 and health[index - 1].rate == 0:
            return f"silent, because layer {index} below it is silent and nothing but the biases arrives"
        highest = layer.peaks.max()
        return f"silent, because its threshold is out of reach: the highest charge is {highest:.2f} thresholds"
    if layer.always > 0.1:
        return f"{layer.always:.0%} of its neurons fire in nearly every step, because their input is too strong"
    if layer.dead > 0.1:
        highest = layer.peaks[layer.rates == 0].median()
        return (
            f"{n_dead} of {n_neurons} neurons are dead, because their input is too weak: half of them never charge to"
            f" more than {highest:.2f} thresholds"
        )
    return ""


def _gradient_fault(health: list[LayerHealth], index: int) -> str:
    layer = health[index]
    if layer.reach > 0.5 and layer.gradient > 0:
        return ""
    # What stops the gradient is the topmost layer that it does not reach.
    blocks = [i for i in range(index + 1, len(health)) if health[i].reach == 0]
    n_reached, n_neurons = int(layer.reached.sum()), len(layer.reached)
    if n_reached == 0 and blocks:
        cause = "is silent" if health[blocks[-1]].rate == 0 else "fires whatever it receives"
        return f"no gradient arrives, because it cannot cross layer {blocks[-1] + 1}, which {cause}"
    if n_reached == 0 and layer.rate == 0:
        return "no gradient arrives, because none of its neurons fires"
    if n_reached == 0:
        return "no gradient arrives, though it fires: what is read no longer depends on its input"
    if n_reached > 0 and layer.gradient == 0:
        return f"only its biases can learn, because layer {index}, which is silent, gives its weights nothing to weigh"
    return f"the gradient reaches only {n_reached} of {n_neurons} neurons, as it passes only through neurons that fire"
