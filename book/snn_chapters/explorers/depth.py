"""The explorer of chapter 11: who fires in a deep network as it is drawn, and whom a gradient reaches."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets as t
from torch import Tensor
from torch.utils.data import Dataset

from snn_chapters.depth import READOUTS, EnsembleNet, fire_at
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.widgets import Buffer, Explorer, Number, Whole, as_bytes, bundle, digit_pixels, from_bytes, uniform

N_IMAGES, N_STEPS, WIDTH, MOST_LAYERS = 5, 20, 100, 8
RATIO = 1.5  # of penalty and threshold
# A rate is a count of spikes: half of one more, so that rounding does not decide whether it is above a round number.
HALF_A_SPIKE = 0.5 / (N_STEPS * N_IMAGES * WIDTH)
REPAIRS = ("none", "thresholds from data")


class _OnThePage(EnsembleNet):
    """A network that sees the page's flicker."""

    flicker: Tensor

    def frames(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images.flatten(1) * self.flicker


class DepthExplorer(Explorer):
    """Layer by layer, the share of neurons that fire and that a gradient reaches; first used in chapter 11.

    A network of 100 neurons in each hidden layer, as it is drawn, sees five digits for 20 steps.

    Parameters
    ----------
    digits : of (image, label), as `load_mnist` gives them; the first five are shown.

    Traits, which the sliders set and Python can read, set and observe: `layers`, 2 to 8, the last one included;
    `scale`, what all weights are multiplied with, where 1 is Xavier's; `threshold`, and with it the penalty, 1.5 times
    as large; `decay`; `repair`, `"none"` or `"thresholds from data"`, with which `fire_at` has each layer fire at
    `wanted_rate`; `readout`, what the answer is read from, `"states"` or `"spikes"`; `seed`, of weights and flicker.
    `controls` and `more`: see `Explorer`.

    Raises `ValueError` for other images, or fewer.
    """

    _esm = bundle("depth_explorer.js")
    _settings = ("layers", "scale", "threshold", "decay", "repair", "wanted_rate", "readout", "seed")

    layers = Whole(4, min=2, max=MOST_LAYERS).tag(sync=True)
    scale = Number(1.0, min=0).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    repair = t.Enum(REPAIRS, default_value="none").tag(sync=True)
    wanted_rate = Number(0.2, min=0.01, max=0.45).tag(sync=True)
    readout = t.Enum(READOUTS, default_value="states").tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    _digits = Buffer(bytes(N_IMAGES * 784), length=N_IMAGES * 784).tag(sync=True)
    _labels = t.List(Whole()).tag(sync=True)

    def __init__(self, digits: Dataset[Any], **settings: Any) -> None:
        pixels, labels = digit_pixels(digits, N_IMAGES)
        super().__init__(**settings)
        self._digits, self._labels = as_bytes(pixels), labels

    def images(self) -> tuple[Tensor, Tensor]:
        """The digits `[5, 1, 28, 28]`, float64, and their labels `[5]`."""
        return from_bytes(self._digits).view(N_IMAGES, 1, 28, 28), torch.tensor(self._labels)

    def network(self) -> EnsembleNet:
        """The network that the page shows, in double precision; it sees the page's flicker, whatever the generator."""
        sizes = (784, *[WIDTH] * (self.layers - 1), 10)
        neuron = {"decay": self.decay, "threshold": self.threshold, "penalty": RATIO * self.threshold}
        net = _OnThePage(N_STEPS, sizes=sizes, readout=self.readout, **neuron).double()
        # The numbers of the last layer come first, so that they and all others are the same at any depth.
        starts, at = [], (WIDTH + 1) * 10
        for n_inputs in (784, *[WIDTH] * (MOST_LAYERS - 2)):
            starts.append(at)
            at += (n_inputs + 1) * WIDTH
        found = plain_layers(net, "DepthExplorer", any_read_out=True)
        for layer, start in zip(found, (*starts[: self.layers - 1], 0)):
            weights, biases = layer.linear.weight.data, layer.linear.bias.data
            drawn = 2 * uniform(self.seed, weights.numel() + biases.numel(), start) - 1
            bound = math.sqrt(3) * math.sqrt(2 / (layer.n_inputs + layer.n_neurons))
            weights.copy_(self.scale * bound * drawn[: weights.numel()].view_as(weights))
            biases.copy_(drawn[weights.numel() :] / math.sqrt(layer.n_inputs))
        net.flicker = uniform(self.seed, N_STEPS * N_IMAGES * 784, at).view(N_STEPS, N_IMAGES, 784)
        if self.repair != "none":
            rate = self.wanted_rate + HALF_A_SPIKE
            fire_at(net, self.images()[0], rate, "thresholds", last=self.readout == "spikes")
        return net
