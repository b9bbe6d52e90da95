"""The two networks that the book compares: spiking (derived in chapter 03) and not (chapter 04)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoding import flicker
from .engine import Plan, read_out
from .neurons import SpikingLayer


class LayerRecord(NamedTuple):
    """What one layer did: `states` and `outputs`, both `[T, B, n_neurons]`, delayed by one step."""

    states: Tensor
    outputs: Tensor


class SpikingNet(nn.Module):
    """Layers of spiking neurons that read a flickering image; derived in chapter 03.

    Maps images `[B, 1, 28, 28]` (or anything that flattens to `[B, sizes[0]]`) to
    log-probabilities `[B, sizes[-1]]`. Each layer reads the outputs of the layer below; the
    logits are the last layer's states, averaged over the steps from `begin_eval` on.

    Parameters
    ----------
    n_steps : how long the image is shown, in steps.
    begin_eval : the first step that counts for the answer, 0 to n_steps - 1.
    sizes : number of inputs, of neurons in each hidden layer, of classes.
    decay, threshold, penalty, reset : as in `neuron_step`, for every layer.
    generator : where the initial weights come from; torch's global one if None.
    mixed_precision : faster; the products of the first layer are in bfloat16 (as precise as one part
        in 256), all else stays as it is. `record` does not use it.
    shared_flicker : faster; at each step one mask for all images of a batch. Each image sees the same
        kind of flicker as before, but the images of a batch are no longer independent draws.

    Raises
    ------
    TypeError, ValueError : for settings or images that do not fit.
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
        for name, value in (("n_steps", n_steps), ("begin_eval", begin_eval)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r})")
        if n_steps < 1:
            raise ValueError(f"n_steps must be 1 or more, not {n_steps}")
        if not 0 <= begin_eval < n_steps:
            raise ValueError(f"begin_eval must lie between 0 and n_steps - 1 = {n_steps - 1}, not {begin_eval}")
        _check_sizes(sizes)
        self.n_steps, self.begin_eval = n_steps, begin_eval
        self.mixed_precision, self.shared_flicker = mixed_precision, shared_flicker
        self.layers = nn.ModuleList(
            SpikingLayer(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
            for n_inputs, n_neurons in zip(sizes, sizes[1:])
        )

    def record(self, images: Tensor, generator: torch.Generator | None = None) -> list[LayerRecord]:
        """Show the images; return each layer's states and outputs over time, first layer first."""
        flat = _flat(images)
        if self.shared_flicker:
            spikes = flicker(flat.new_ones(flat.shape[1:]), self.n_steps, generator).unsqueeze(1) * flat
        else:
            spikes = flicker(flat, self.n_steps, generator)
        records = []
        for layer in self.layers:
            records.append(LayerRecord(*layer(spikes)))
            spikes = records[-1].outputs
        return records

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` is where the flicker comes from."""
        flat = _flat(images)
        if self._is_plain(flat):
            layers = [layer for layer in self.layers if isinstance(layer, SpikingLayer)]
            neurons = [layer.neuron for layer in layers]
            plan = Plan(self.n_steps, self.begin_eval, neurons, generator, self.shared_flicker, self.mixed_precision)
            mean = read_out(flat.contiguous(), [part for layer in layers for part in layer.linear.parameters()], plan)
        else:
            mean = self.record(images, generator)[-1].states[self.begin_eval :].mean(dim=0)
        return F.log_softmax(mean, dim=-1)

    def _is_plain(self, flat: Tensor) -> bool:
        """Whether the fast way does all that is asked; the readable one, `record`, always does, or says what is wrong."""
        if any(type(layer) is not SpikingLayer or _is_watched(layer) for layer in self.layers):
            return False
        weight: Tensor = self.layers[0].linear.weight  # type: ignore[union-attr, assignment]
        return (
            flat.dtype == weight.dtype
            and flat.dtype in (torch.float32, torch.float64)
            and flat.device == weight.device
            and flat.shape[1:] == weight.shape[1:]
            and len(flat) > 0
            and not (flat.requires_grad and torch.is_grad_enabled())
            and not torch.compiler.is_compiling()
        )

    def extra_repr(self) -> str:
        told = f"n_steps={self.n_steps}, begin_eval={self.begin_eval}"
        told += ", mixed_precision=True" if self.mixed_precision else ""
        return told + (", shared_flicker=True" if self.shared_flicker else "")


class MLP(nn.Module):
    """The same network without spikes or time: linear, ReLU, linear; derived in chapter 04.

    Maps images `[B, 1, 28, 28]` (or anything that flattens to `[B, sizes[0]]`) to
    log-probabilities `[B, sizes[-1]]`. Initialised as `nn.Linear` is, like the article's.

    Parameters
    ----------
    sizes : number of inputs, of neurons in each hidden layer, of classes.
    flickering : multiply each image by one fresh uniform mask, in training and testing alike,
        as the spiking network's input is at each of its steps.
    dropout : the share of hidden activations left out in training, 0 to below 1.
    generator : where the initial weights come from; torch's global one if None.

    Raises
    ------
    TypeError, ValueError : for settings that do not fit.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 100, 10),
        flickering: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(sizes)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie between 0 and 1, 1 excluded, not {dropout}")
        self.flickering, self.dropout = flickering, dropout
        linears = [nn.Linear(n_in, n_out) for n_in, n_out in zip(sizes, sizes[1:])]
        for linear in linears:
            bound = 1 / math.sqrt(linear.in_features)  # nn.Linear's own draw, from our generator
            nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
            nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
        self.layers = nn.ModuleList(linears)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` draws the flicker and the dropout."""
        values = _flat(images)
        if self.flickering:
            values = flicker(values, 1, generator)[0]
        for linear in self.layers[:-1]:
            values = torch.relu(linear(values))
            if self.training and self.dropout > 0:
                # nn.Dropout takes no generator, so that a run could not be repeated or resumed.
                draws = flicker(torch.ones_like(values), 1, generator)[0]
                values = values * (draws >= self.dropout) / (1 - self.dropout)
        return F.log_softmax(self.layers[-1](values), dim=-1)

    def extra_repr(self) -> str:
        return f"flickering={self.flickering}, dropout={self.dropout}"


def _flat(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, not {type(images).__name__}")
    if images.dim() < 2:
        raise ValueError(f"images must have the batch first, such as [batch, 1, 28, 28], not {list(images.shape)}")
    return images.flatten(1)


def _check_sizes(sizes: Sequence[int]) -> None:
    if len(sizes) < 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(
            f"sizes must hold two or more whole numbers of at least 1 (inputs, hidden layers, classes), not {sizes!r}"
        )


def _is_watched(layer: SpikingLayer) -> bool:
    """Whether someone has hooked in to see what the layer is given and hands out."""
    parts = (layer, layer.linear)
    return type(layer.linear) is not nn.Linear or any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in parts
    )
