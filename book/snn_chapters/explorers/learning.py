"""A network that learns real digits in the page, by a rule that the reader chooses: `LearningExplorer`.

What it computes is in `snn_helpers/js/learning_model.js`. Here are the digits that it gets, its settings, and its
draws once more, so that the code it offers finds the same weights, digits and flicker.

The output layer always learns by backpropagation. The hidden layer learns by the rule: the gradient, computed back
through time or forward in time; or a rule of pairs as chapter 8 defines it, with the inputs less their mean over the
batch. Such a rule gives the direction alone: its step is made as long as the gradient's, and leaves the biases.

The learning rate is divided by the number of the epoch. Its default was chosen on 500 digits that the page does not
have: over the tests from 6,000 to 12,000 digits, in the mean over three seeds, 0.05, 0.1, 0.2 and 0.4 read 81.3, 83.2,
82.9 and 72.1 % of them rightly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import traitlets as t
from torch import Tensor
from torch.utils.data import Dataset

from snn_helpers import SpikingNet
from snn_helpers.long.checks import whole
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.neurons import RESETS
from snn_helpers.widgets import Buffer, Explorer, Number, Whole, bundle, digit_pixels, uniform

RULES = ("backpropagation", "three factors", "error x pre first", "Hebb", "STDP", "none")
SIDE = 14  # pixels: a fourth of the bytes, and of the arithmetic, of 28 x 28
BATCH = 20  # digits


def small_digits(dataset: Dataset[Any], n_examples: int) -> tuple[Tensor, Tensor]:
    """The first digits as the page has them: 14 x 14 pixels, means of four, in 16 greys.

    Parameters
    ----------
    dataset : of (image, label), the images of 28 x 28 pixels from -0.5 to 0.5, as `load_mnist` gives them.
    n_examples : 1 or more; at most as many as there are.

    Returns `(images, labels)`: `[n_examples, 196]` float64, from -0.5 to 0.5, and `[n_examples]` int64.
    Raises `ValueError` for images that do not fit, and for more digits than there are.
    """
    n_examples = whole("n_examples", n_examples, most=len(dataset))  # type: ignore[arg-type]
    pixels, labels = digit_pixels(dataset, n_examples)
    means = F.avg_pool2d(pixels.reshape(-1, 1, 28, 28), 2).flatten(1)
    return ((means + 0.5) * 15).round().clamp(0, 15) / 15 - 0.5, torch.tensor(labels)


def _packed(images: Tensor) -> bytes:
    """Two pixels a byte."""
    greys = ((images + 0.5) * 15).round().to(torch.uint8).flatten()
    return bytes((16 * greys[0::2] + greys[1::2]).tolist())


def _stream(seed: int, place: int) -> int:
    """The seed of one of the page's streams of draws: 0 weights, 1 order, 2 flicker, 3 flicker of the test."""
    return (seed * 0x9E3779B1 + (place + 1) * 0x85EBCA6B) % 2**32


def draw_weights(net: SpikingNet, seed: int) -> None:
    """Give a network the weights that the page starts with, Xavier-uniform, from its own draws."""
    start = 0
    for layer in plain_layers(net, "draw_weights"):
        weight, bias = layer.linear.weight, layer.linear.bias
        draws = 2 * uniform(_stream(seed, 0), weight.numel() + bias.numel(), start) - 1
        start += len(draws)
        edge = (6 / (layer.n_inputs + layer.n_neurons)) ** 0.5
        weight.data = (edge * draws[: weight.numel()]).reshape(weight.shape).to(weight)
        bias.data = (draws[weight.numel() :] / layer.n_inputs**0.5).to(bias)


def flickering_batch(images: Tensor, labels: Tensor, update: int, n_steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """The batch that the page learns from at an update, counted from 0, if `n_steps` has not been changed before.

    Returns `(frames, labels)`: `[n_steps, B, n_pixels]` and `[B]`. What is shown in the last step nobody reads, and the
    page does not draw it: it is 0.
    """
    n_batches = -(-len(images) // BATCH)
    epoch, place = divmod(update, n_batches)
    draws = uniform(_stream(seed, 1), len(images), epoch * len(images))
    chosen = draws.argsort(stable=True)[place * BATCH : (place + 1) * BATCH]
    size = (n_steps - 1) * images.shape[1]
    seen = epoch * len(images) + place * BATCH
    masks = uniform(_stream(seed, 2), len(chosen) * size, seen * size).reshape(len(chosen), n_steps - 1, -1)
    frames = (masks * images[chosen][:, None]).transpose(0, 1)
    return torch.cat([frames, torch.zeros_like(frames[:1])]), labels[chosen]


class LearningExplorer(Explorer):
    """A network 196-100-10 that learns real digits in the page; the rule of its hidden layer can be chosen.

    Parameters
    ----------
    train, held_out : digits of (image, label), as `load_mnist` gives them.
    n_train, n_held_out : how many of them go to the page, from the first on. A thousand take about 40 kB of a
        compressed page.
    settings : the traits' values.

    Traits, which the sliders set and Python can read, set and observe: `rule`, one of `RULES`; `learning_rate`;
    `decay`, `threshold`, `penalty` and `reset` as in `neuron_step`; `n_steps`, for how many steps a digit is shown;
    `n_hidden`; `seed`. `seen` and `accuracy` are how many digits it has learned from, and the share of the held-out
    digits that it read rightly in its last test (-1 before the first).

    Raises `TypeError` or `ValueError` for digits and settings that do not fit.
    """

    _esm = bundle("learning_explorer.js")
    _settings = ("rule", "learning_rate", "decay", "threshold", "penalty", "reset", "n_steps", "n_hidden", "seed")

    rule = t.Enum(RULES, default_value="backpropagation").tag(sync=True)
    learning_rate = Number(0.1, min=0, max=1).tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    n_steps = Whole(24, min=3, max=128).tag(sync=True)
    n_hidden = Whole(100, min=1, max=400).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    seen = Whole(0, min=0).tag(sync=True)
    accuracy = Number(-1.0, min=-1, max=1).tag(sync=True)
    _worker = t.Unicode(bundle("learning_worker.js")).tag(sync=True)
    _digits = Buffer().tag(sync=True)
    _labels = Buffer().tag(sync=True)
    _n_train = Whole(0, min=0).tag(sync=True)
    _source = t.Unicode("auto").tag(sync=True)

    def __init__(
        self,
        train: Dataset[Any],
        held_out: Dataset[Any],
        n_train: int = 3000,
        n_held_out: int = 500,
        **settings: Any,
    ) -> None:
        images, labels = zip(small_digits(train, n_train), small_digits(held_out, n_held_out))
        super().__init__(**settings)
        with self.hold_sync():
            self._digits = _packed(torch.cat(images))
            self._labels = bytes(torch.cat(labels).tolist())
            self._n_train = len(images[0])
            # So that the code of the page names the digits that it has.
            self._source = "subset" if getattr(train, "source", "auto") == "subset" else "auto"
