"""Deep spiking networks whose neurons do not stay silent; derived in chapter 08.

`EnsembleNet` is `SpikingNet` with other read-outs; `fire_at` sets a network's thresholds or weights
from data, so that its neurons fire at a wanted rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoding import flicker
from .networks import LayerRecord, SpikingNet
from .neurons import SpikingLayer, _step

READOUTS = ("states", "spikes")
READINGS = ("product", "mixture")
SHARINGS = ("none", "normalised", "silent")


class EnsembleNet(SpikingNet):
    """`SpikingNet` with an ensemble of neurons for each label, read by states or spikes; derived in chapter 08.

    Neuron `i` of the last layer speaks for label `i % n_labels`. Each **member** `j`, the neurons
    `j * n_labels` to `(j + 1) * n_labels - 1`, holds one neuron for each label. With the defaults
    it is `SpikingNet`, bit for bit.

    Parameters
    ----------
    sizes : as in `SpikingNet`, with the number of labels last.
    per_label : the number of members, 1 or more.
    readout : what stands for a neuron: the mean over steps of its `"states"`, or of its `"spikes"`.
    reading : how members become one answer. `"product"`: their values are added up before one
        softmax, which is the normalised product of their softmaxes. `"mixture"`: each has a
        softmax of its own, and the probabilities are averaged.
    share : for spikes: whose charge receives the gradient of an ensemble in the steps in which one of
        it fires; see `share_gradient`.
    push : the strength of `silence_penalty` in training; 0 is none.
    wanted_rate : the rate, in spikes a step, below which that penalty sets in.
    settings : `decay`, `threshold`, `penalty`, `reset`, `generator` of `SpikingNet`.
    """

    def __init__(
        self,
        n_steps: int = 128,
        begin_eval: int = 0,
        sizes: Sequence[int] = (784, 100, 10),
        *,
        per_label: int = 1,
        readout: str = "states",
        reading: str = "product",
        share: str = "none",
        push: float = 0.0,
        wanted_rate: float = 0.05,
        **settings: Any,
    ) -> None:
        if isinstance(per_label, bool) or not isinstance(per_label, int) or per_label < 1:
            raise ValueError(f"per_label must be a whole number of at least 1, not {per_label!r}")
        for name, value, allowed in (
            ("readout", readout, READOUTS),
            ("reading", reading, READINGS),
            ("share", share, SHARINGS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
        if share != "none" and readout != "spikes":
            raise ValueError("share needs readout='spikes': a state receives its gradient anyway")
        if not (push >= 0 and math.isfinite(push)):
            raise ValueError(f"push must be a finite number of 0 or more, not {push}")
        if not 0 < wanted_rate < 1:
            raise ValueError(f"wanted_rate must lie between 0 and 1 spikes a step, not {wanted_rate}")
        super().__init__(n_steps, begin_eval, (*sizes[:-1], sizes[-1] * per_label), **settings)
        self.per_label, self.readout, self.reading, self.share = per_label, readout, reading, share
        self.push, self.wanted_rate = push, wanted_rate

    def members(self, last: LayerRecord) -> Tensor:
        """What each member says: `[B, per_label, n_labels]`, from the record of the last layer."""
        if self.readout == "states":
            values = last.states
        elif self.share == "none":
            values = last.outputs
        else:
            values = share_gradient(last, _layer(self, -1).threshold, self.per_label, self.share == "silent")
        means = values[self.begin_eval :].mean(dim=0)
        return means.reshape(len(means), self.per_label, -1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_labels]`; `generator` is where the flicker comes from."""
        pushed = self.training and self.push > 0
        if self.readout == "states" and self.per_label == 1 and not pushed:
            return super().forward(images, generator)
        records = self.record(images, generator)
        log_probs = read_members(self.members(records[-1]), self.reading)
        if pushed:
            # The mean of what is subtracted is added to the loss: its value is 0, its gradient the penalty's.
            penalty = self.push * silence_penalty(self, records, self.wanted_rate)
            log_probs = log_probs - (penalty - penalty.detach())
        return log_probs

    def extra_repr(self) -> str:
        told = f"per_label={self.per_label}, readout={self.readout!r}, reading={self.reading!r}, share={self.share!r}"
        return f"{super().extra_repr()}, {told}, push={self.push}, wanted_rate={self.wanted_rate}"


def read_members(members: Tensor, reading: str = "product") -> Tensor:
    """Values `[B, per_label, n_labels]` to log-probabilities `[B, n_labels]`; derived in chapter 08."""
    if reading == "product":
        return F.log_softmax(members.sum(dim=1), dim=-1)
    return F.log_softmax(members, dim=-1).logsumexp(dim=1) - math.log(members.shape[1])


def charges(record: LayerRecord, threshold: float) -> Tensor:
    """The charge before the reset, of the record's shape: what stood above the threshold was handed out."""
    return torch.where(record.outputs > 0, record.outputs + threshold, record.states)


def share_gradient(record: LayerRecord, threshold: float, per_label: int, silent_only: bool = False) -> Tensor:
    """A layer's outputs, unchanged, with a gradient for whole ensembles; derived in chapter 08.

    In a step in which an ensemble fires, the ratio of its summed outputs to its summed positive
    charges is the slope with which each of its charges, fired or not, receives the gradient. With
    `silent_only` neurons that fired keep their own slope, 1. Not the gradient of any loss.
    """
    charge = charges(record, threshold)
    outputs = record.outputs
    by_member = (*outputs.shape[:-1], per_label, outputs.shape[-1] // per_label)
    total = outputs.detach().reshape(by_member).sum(dim=-2)
    ratio = total / charge.detach().relu().reshape(by_member).sum(dim=-2).clamp(min=1e-12)
    slopes = torch.cat([ratio] * per_label, dim=-1)
    if silent_only:
        slopes = torch.where(outputs > 0, torch.ones_like(slopes), slopes)
    shared: Tensor = outputs.detach() + slopes * (charge - charge.detach())
    return shared


def silence_penalty(net: SpikingNet, records: Sequence[LayerRecord], wanted_rate: float) -> Tensor:
    """How far the charges of neurons that fire too rarely lie below the threshold; derived in chapter 08.

    A mean over all neurons of all layers: by how much a neuron falls short of the wanted rate, as a
    share of it, times the mean of (threshold - charge) where that is positive, in thresholds. The
    first factor counts as a constant: a rate of 0 has no gradient, a charge does.
    """
    parts = []
    for layer, record in zip(net.layers, records):
        assert isinstance(layer, SpikingLayer)
        rate = (record.outputs > 0).to(record.outputs.dtype).mean(dim=(0, 1))
        short = (1 - rate / wanted_rate).relu()
        below = (1 - charges(record, layer.threshold) / layer.threshold).relu().mean(dim=(0, 1))
        parts.append(short * below)
    return torch.cat(parts).mean()


@torch.no_grad()
def fire_at(
    net: SpikingNet,
    images: Tensor,
    rate: float = 0.05,
    how: str = "thresholds",
    seed: int = 0,
    last: bool = True,
) -> SpikingNet:
    """Set the network, layer by layer, so that its neurons fire at the wanted rate; derived in chapter 08.

    Parameters
    ----------
    net : changed in place.
    images : `[B, 1, 28, 28]`, some hundreds; labels are not needed.
    rate : wanted, in spikes a neuron and step, on these images.
    how : `"thresholds"`: one threshold for each layer; the penalty is scaled with it, so that a spike leaves the
        same share of the charge. `"weights"`: each layer's weights are scaled until its charge, were there no
        spikes, has a standard deviation of one threshold, and each neuron's bias is set to give that neuron
        the rate.
    seed : of the flicker.
    last : whether the last layer is set too; its states need no spikes to be read.
    """
    if not 0 < rate < 0.5:
        raise ValueError(f"rate must lie between 0 and 0.5 spikes a step, not {rate}")
    if how not in ("thresholds", "weights"):
        raise ValueError(f"how must be 'thresholds' or 'weights', not {how!r}")
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    inputs = flicker(images.flatten(1).to(device), net.n_steps, generator)
    layers = [_layer(net, i) for i in range(len(net.layers))]
    for layer in layers if last else layers[:-1]:
        if how == "thresholds":
            _set_threshold(layer, layer.linear(inputs), rate)
        else:
            _set_weights(layer, inputs, rate)
        inputs = layer(inputs)[1]
    return net


def _set_threshold(layer: SpikingLayer, currents: Tensor, rate: float) -> None:
    ratio = layer.penalty / layer.threshold

    def rate_at(threshold: float) -> float:
        return _rates(layer, currents, threshold, ratio * threshold).mean().item()

    low, high = 1e-4, 1e4
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rate_at(middle) > rate else (low, middle)
    layer.threshold, layer.penalty = high, ratio * high


def _set_weights(layer: SpikingLayer, inputs: Tensor, rate: float) -> None:
    currents = layer.linear(inputs)
    charge = torch.zeros_like(currents[0])
    for current in currents:  # were there no spikes
        charge = current + layer.decay * charge
    layer.linear.weight.mul_(layer.threshold / charge.std(dim=0).mean().clamp(min=1e-12))
    layer.linear.bias.zero_()
    currents = layer.linear(inputs)
    low = torch.full_like(layer.linear.bias, -100 * layer.threshold)
    high = -low
    for _ in range(40):
        middle = (low + high) / 2
        above = _rates(layer, currents + middle, layer.threshold, layer.penalty) > rate
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    layer.linear.bias.copy_(high)


def _rates(layer: SpikingLayer, currents: Tensor, threshold: float, penalty: float) -> Tensor:
    """The share of steps in which each neuron fires, `[n_neurons]`."""
    state = torch.zeros_like(currents[0])
    fired = torch.zeros_like(currents[0, 0])
    for current in currents[:-1]:  # the last step's outputs are never handed out
        output, state = _step(current, state, layer.decay, threshold, penalty, layer.reset)
        fired += (output > 0).to(fired.dtype).mean(dim=0)
    return fired / len(currents)


def _layer(net: SpikingNet, index: int) -> SpikingLayer:
    layer = net.layers[index]
    assert isinstance(layer, SpikingLayer)
    return layer
