"""The two networks that the book compares: spiking (derived in chapter 03) and not (chapter 04)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import fast
from .encoding import flicker
from .layers import SpikingLayer
from .long.checks import both, counted, flag, flat, layer_sizes, real, whole
from .long.seeds import draw_uniform
from .neurons import Neuron


class LayerRecord(NamedTuple):
    """What one layer did: `states` and `outputs`, both `[T, B, n_neurons]`, delayed by one step."""

    states: Tensor
    outputs: Tensor


class SpikingNet(nn.Module):
    """Layers of spiking neurons that read a flickering image; derived in chapter 03.

    Maps images `[B, 1, 28, 28]` (or anything that flattens to `[B, sizes[0]]`) to log-probabilities `[B, sizes[-1]]`.
    Each layer reads the outputs of the layer below; the logits are the last layer's states, averaged over the steps
    from `begin_eval` on.

    A network of other layers overrides `make_layer`; one that shows or reads its layers otherwise, `frames`, `run` or
    `read_out`.

    Parameters
    ----------
    n_steps : how long the image is shown, in steps.
    begin_eval : the first step that counts for the answer, 0 to n_steps - 1.
    sizes : number of inputs, of neurons in each hidden layer, of classes.
    decay, threshold, penalty, reset : as in `neuron_step`, for every layer.
    generator : where the initial weights come from; torch's global one if None.
    mixed_precision : faster; the products of the first layer are in bfloat16 (as precise as one part in 256), all
        else stays as it is. `record` does not use it.
    shared_flicker : faster; at each step one mask for all images of a batch. Each image sees the same kind of flicker
        as before, but the images of a batch are no longer independent draws.

    Raises `TypeError` or `ValueError` for settings or images that do not fit.
    """

    def __init__(
        self,
        n_steps: int = 128,
        begin_eval: int = 0,
        sizes: Sequence[int] = (784, 100, 10),
        decay: float = 0.9,
        threshold: float = 1.0,
        penalty: float = 1.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
        mixed_precision: bool = False,
        shared_flicker: bool = False,
    ) -> None:
        super().__init__()
        self.n_steps, self.begin_eval = n_steps, begin_eval
        self.n_steps, self.begin_eval = self.showing
        if (mixed_precision or shared_flicker) and type(self) is not SpikingNet:
            raise ValueError(
                f"mixed_precision and shared_flicker are for SpikingNet itself, not for {type(self).__name__}"
            )
        self.mixed_precision = flag("mixed_precision", mixed_precision)
        self.shared_flicker = flag("shared_flicker", shared_flicker)
        sizes, neuron = layer_sizes(sizes), Neuron(decay, threshold, penalty, reset)
        self.layers = nn.ModuleList(
            self.make_layer(n_inputs, n_neurons, neuron, generator, is_last=place == len(sizes) - 2)
            for place, (n_inputs, n_neurons) in enumerate(zip(sizes, sizes[1:]))
        )

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """One of the network's layers, the first one first."""
        return SpikingLayer(
            n_inputs, n_neurons, neuron.decay, neuron.threshold, neuron.penalty, neuron.reset, generator
        )

    @property
    def showing(self) -> tuple[int, int]:
        """For how many steps an image is shown, and the first one that counts, checked as they are now."""
        n_steps = whole("n_steps", self.n_steps)
        return n_steps, whole("begin_eval", self.begin_eval, least=0, most=n_steps - 1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` is where the flicker comes from."""
        return F.log_softmax(self.logits(images, generator), dim=-1)

    def logits(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What `forward` takes the softmax of, `[B, n_classes]`."""
        if self._can_be_fast(images):  # the same numbers, sooner: the page `performance` derives how
            return fast.read_out(
                self, flat(images), *self.showing, generator, self.shared_flicker, self.mixed_precision
            )
        return self.read_out(self.record(images, generator))

    def record(self, images: Tensor, generator: torch.Generator | None = None) -> list[LayerRecord]:
        """Show the images; return each layer's states and outputs over time, first layer first."""
        return self.run(self.frames(images, generator))

    def frames(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the first layer reads: the images, flickering, `[n_steps, B, n_inputs]`."""
        pixels = flat(images)
        if not self.shared_flicker:
            return flicker(pixels, self.n_steps, generator)
        return flicker(pixels.new_ones(pixels.shape[1:]), self.n_steps, generator).unsqueeze(1) * pixels

    def run(self, frames: Tensor) -> list[LayerRecord]:
        """Run the layers, one after another, over frames `[T, B, n_inputs]` of any number of steps."""
        records = []
        for layer in self.layers:
            records.append(LayerRecord(*both(layer(frames), layer)))
            frames = records[-1].outputs
        return records

    def read_out(self, records: Sequence[LayerRecord]) -> Tensor:
        """The logits `[B, n_classes]`: the last layer's states, averaged from `begin_eval` on."""
        return counted(records[-1].states, self.begin_eval).mean(dim=0)

    @property
    def reads_states(self) -> bool:
        """Whether the logits are the last layer's mean states, and nothing else."""
        return getattr(self.read_out, "__func__", None) is SpikingNet.read_out

    def _can_be_fast(self, images: Tensor) -> bool:
        """Whether this class's own way over its own kind of layers is asked for, and nobody looks in."""
        ways = ("record", "frames", "run")
        own = all(getattr(getattr(self, way), "__func__", None) is getattr(SpikingNet, way) for way in ways)
        own = own and self.reads_states
        layers = [layer for layer in self.layers if isinstance(layer, SpikingLayer) and layer.is_plain]
        own = own and len(layers) == len(self.layers) and 0 <= self.begin_eval < self.n_steps
        return own and fast.can_read_out(flat(images), layers)

    def extra_repr(self) -> str:
        """The settings that are not the layers' own, as `print` shows them."""
        told = f"n_steps={self.n_steps}, begin_eval={self.begin_eval}"
        told += ", mixed_precision=True" if self.mixed_precision else ""
        return told + (", shared_flicker=True" if self.shared_flicker else "")


class MLP(nn.Module):
    """The same network without spikes or time: linear, ReLU, linear; derived in chapter 04.

    Maps images `[B, 1, 28, 28]` (or anything that flattens to `[B, sizes[0]]`) to log-probabilities `[B, sizes[-1]]`.
    Initialised as `nn.Linear` is, like the article's.

    Parameters
    ----------
    sizes : number of inputs, of neurons in each hidden layer, of classes.
    flickering : multiply each image by one fresh uniform mask, in training and testing alike, as the spiking
        network's input is at each of its steps.
    dropout : the share of hidden activations left out in training, 0 to below 1.
    generator : where the initial weights come from; torch's global one if None.

    Raises `TypeError` or `ValueError` for settings or images that do not fit.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 100, 10),
        flickering: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = layer_sizes(sizes)
        self.flickering, self.dropout = flag("flickering", flickering), real("dropout", dropout, least=0)
        if not self.dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, 1 excluded, not {dropout}")
        linears = [nn.Linear(n_in, n_out) for n_in, n_out in zip(sizes, sizes[1:])]
        for linear in linears:
            bound = 1 / math.sqrt(linear.in_features)  # nn.Linear's own draw, from our generator
            draw_uniform(linear.weight, bound, generator)
            draw_uniform(linear.bias, bound, generator)
        self.layers = nn.ModuleList(linears)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` draws the flicker and the dropout."""
        values = self.check(images)
        if self.flickering:
            values = flicker(values, 1, generator)[0]
        for linear in self.layers[:-1]:
            values = torch.relu(linear(values))
            if self.training and self.dropout > 0:
                # nn.Dropout takes no generator, so that a run could not be repeated or resumed.
                draws = flicker(torch.ones_like(values, dtype=images.dtype), 1, generator)[0]
                values = values * (draws >= self.dropout) / (1 - self.dropout)
        return F.log_softmax(self.layers[-1](values), dim=-1)

    def check(self, images: Tensor) -> Tensor:
        """The images as rows `[B, sizes[0]]`, once they are found to fit."""
        pixels, weight = flat(images), getattr(self.layers[0], "weight", None)
        if not isinstance(weight, Tensor):  # what stands in for the linear map may have none
            return pixels
        if pixels.shape[1] != weight.shape[1] or len(pixels) == 0:
            raise ValueError(
                f"images must have {weight.shape[1]} pixels each, and there must be at least one, not the shape"
                f" {list(images.shape)}"
            )
        if pixels.dtype != weight.dtype:
            raise TypeError(f"images must have the dtype of the network's weights, {weight.dtype}, not {pixels.dtype}")
        return pixels

    def extra_repr(self) -> str:
        """The settings, as `print` shows them."""
        return f"flickering={self.flickering}, dropout={self.dropout}"
