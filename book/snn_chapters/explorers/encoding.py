"""The explorer of chapter 02: a digit in four codes, and what a mean and a leaky neuron make of one of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets as t
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers.widgets import Buffer, Explorer, Number, Whole, as_bytes, bundle, digit_pixels, from_bytes, uniform

SIDE = 28
CODES = ("flicker", "steady", "rate", "latency")


class EncodingExplorer(Explorer):
    """A few digits, sent in four codes: derived in chapter 02.

    Parameters
    ----------
    images : `[n, 1, 28, 28]` or any shape of n times 784 pixels, normalised as `load_mnist` does it; one or more.
    labels : n whole numbers.

    Traits: `code`, one of `CODES`: the book's flicker, its mean without noise, a Bernoulli rate code, a latency code;
    `n_steps`; `contrast`, which multiplies the pixels, x = contrast * (brightness - 0.5); `seed` of the draws;
    `digit`, which of the images; `row` and `column` of one pixel; `decay` of the neuron that it charges.
    `pixels()` and `frames()` give what is shown and sent.

    Raises
    ------
    ValueError : for images or labels that do not fit.
    """

    _esm = bundle("encoding_explorer.js")
    _settings = ("code", "n_steps", "contrast", "row", "column", "digit", "decay", "seed")

    code = t.Enum(CODES, default_value="flicker").tag(sync=True)
    n_steps = Whole(32, min=1, max=512).tag(sync=True)
    contrast = Number(1.0, min=0, max=1).tag(sync=True)
    row = Whole(14, min=0, max=SIDE - 1).tag(sync=True)
    column = Whole(14, min=0, max=SIDE - 1).tag(sync=True)
    digit = Whole(0, min=0).tag(sync=True)
    decay = Number(0.9, min=0, max=0.99).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    _digits = Buffer().tag(sync=True)
    _labels = t.List(Whole()).tag(sync=True)

    def __init__(self, images: Tensor, labels: Sequence[int] | Tensor, **settings: Any) -> None:
        labels = [int(label) for label in labels]
        if not labels or images.numel() != len(labels) * SIDE**2:
            raise ValueError(
                f"there must be one label or more, and {SIDE**2} pixels for each:"
                f" not {len(labels)} labels and {images.numel()} pixels"
            )
        pixels, _ = digit_pixels(TensorDataset(images.reshape(len(labels), -1), torch.tensor(labels)))
        self._n_digits = len(labels)
        super().__init__(**settings)
        with self.hold_sync():
            self._digits, self._labels = as_bytes(pixels), labels

    @t.validate("digit")
    def _one_of_them(self, proposal: Any) -> int:
        digit = int(proposal["value"])
        if digit >= self._n_digits:
            raise t.TraitError(f"digit must be 0 to {self._n_digits - 1}, not {digit}")
        return digit

    def pixels(self) -> Tensor:
        """The digit that is shown, with its contrast: `[784]` from -0.5 to 0.5, float64."""
        start = self.digit * SIDE**2
        pixels: Tensor = self.contrast * from_bytes(self._digits[start : start + SIDE**2])
        return pixels

    def frames(self) -> Tensor:
        """What is sent, `[n_steps, 784]`, float64."""
        x = self.pixels()
        b: Tensor = x + 0.5
        masks = uniform(self.seed, self.n_steps * SIDE**2).view(self.n_steps, -1)
        frames: Tensor
        if self.code == "flicker":
            frames = masks * x
        elif self.code == "steady":
            frames = (x / 2).expand(self.n_steps, -1)
        elif self.code == "rate":
            frames = (masks < b).double()
        else:
            when = ((1 - b) * (self.n_steps - 1)).round()
            frames = ((torch.arange(self.n_steps)[:, None] == when) & (b > 0)).double()
        return frames
