"""A layer of spiking neurons, run over time.

Derived in chapter 01, `book/01_neuron_dynamics.ipynb`, cell by cell.
"""

from __future__ import annotations

import json
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import fast
from .long.checks import time_first, whole
from .long.plain import plain
from .long.seeds import draw_uniform
from .neurons import Neuron


class SpikingLayer(nn.Module):
    """A fully connected layer of spiking neurons, run over time; derived in chapter 01.

    `layer(inputs)` maps `[T, B, n_inputs]` to `(states, outputs)`, both `[T, B, n_neurons]` and both delayed by one
    step: at step t the layer hands out what its neurons reached at step t - 1, and zeros at the first. The weights
    are `layer.linear`, Xavier-uniform.

    A layer of other neurons overrides `step`; a layer that reads more than its input, `forward`.

    Parameters
    ----------
    n_inputs, n_neurons : 1 or more.
    decay, threshold, penalty, reset : as in `Neuron`; the defaults are those of the article's layer. They may be
        changed later, and `state_dict` saves them with the weights. To let one of them learn, make it an
        `nn.Parameter` of the layer.
    generator : where the initial weights come from; torch's global one if None.

    Raises `TypeError` or `ValueError` for settings or inputs that do not fit.
    """

    settings: ClassVar[tuple[str, ...]] = ("decay", "threshold", "penalty", "reset")

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 2.0,
        penalty: float = 2.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        neuron = Neuron.of_numbers(decay, threshold, penalty, reset)
        self.decay, self.threshold, self.penalty, self.reset = neuron.decay, neuron.threshold, neuron.penalty, reset
        self.n_inputs, self.n_neurons = whole("n_inputs", n_inputs), whole("n_neurons", n_neurons)
        self.linear = nn.Linear(self.n_inputs, self.n_neurons)
        # Xavier-uniform; the biases as nn.Linear draws them.
        draw_uniform(self.linear.weight, math.sqrt(3) * math.sqrt(2 / (self.n_inputs + self.n_neurons)), generator)
        draw_uniform(self.linear.bias, 1 / math.sqrt(self.n_inputs), generator)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to `(states, outputs)`, each `[T, B, n_neurons]`."""
        return self.run(self.currents(inputs))  # the weights do not change over time: one product serves all steps

    def run(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from the currents `[T, B, n_neurons]` on."""
        time_first("currents", currents)
        neuron = self.neuron
        if self.steps_plainly and fast.can_scan(currents, neuron):
            return fast.scan(currents, neuron)  # the same numbers, sooner: the page `performance` derives how
        state = output = torch.zeros_like(currents[0])
        states, outputs = [], []
        for current in currents:
            states.append(state)  # handed out one step late
            outputs.append(output)
            output, state = self.step(current, state)
        return torch.stack(states), torch.stack(outputs)

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the layer's neurons, `(output, state)`; a layer of other neurons overrides it."""
        return self.neuron.step(current, state)

    def currents(self, inputs: Tensor) -> Tensor:
        """What arrives at the neurons at each step, `[T, B, n_neurons]`, once the inputs are found to fit."""
        time_first("inputs", inputs, last=str(self.n_inputs))
        if inputs.shape[2] != self.n_inputs:
            raise ValueError(
                f"inputs must have the shape [steps, batch, {self.n_inputs}], each at least 1, not {list(inputs.shape)}"
            )
        weight = getattr(self.linear, "weight", None)  # a map put in the place of nn.Linear may have none
        if isinstance(weight, Tensor) and inputs.dtype != weight.dtype:
            raise TypeError(f"inputs must have the dtype of the layer's weights, {weight.dtype}, not {inputs.dtype}")
        # Of an input that is steady, one tensor for all steps, one product serves all steps.
        steady = len(inputs) > 1 and inputs.stride(0) == 0 and type(self.linear) is nn.Linear
        # Under autocast a product may come in half precision; sums over time stay in the inputs' own.
        currents: Tensor = self.linear(inputs[:1] if steady else inputs).to(inputs.dtype)
        return currents.expand(len(inputs), -1, -1) if steady else currents

    @property
    def neuron(self) -> Neuron:
        """The settings of the layer's neurons, checked as they are now."""
        for name in ("decay", "threshold", "penalty"):
            value = getattr(self, name)
            if isinstance(value, Tensor) and value.shape not in ((), (1,), (self.n_neurons,)):
                raise ValueError(
                    f"{name} must hold one value, or one for each of the {self.n_neurons} neurons, not the shape"
                    f" {list(value.shape)}"
                )
            if isinstance(self.__dict__.get(name), Tensor):
                raise TypeError(
                    f"{name} must be a number, or an nn.Parameter or a buffer of the layer, which are saved with it and"
                    " move with it; it is a tensor that is neither"
                )
        return Neuron(self.decay, self.threshold, self.penalty, self.reset)

    @property
    def steps_plainly(self) -> bool:
        """Whether a step of this layer is `Neuron.step` and nothing else."""
        return getattr(self.step, "__func__", None) is SpikingLayer.step

    @property
    def is_plain(self) -> bool:
        """Whether this layer does what chapter 01 derives, and no more, so that what is derived of it holds."""
        names = ("forward", "run", "step", "currents")
        own = all(getattr(getattr(self, name), "__func__", None) is getattr(SpikingLayer, name) for name in names)
        return own and not any(isinstance(getattr(self, name), Tensor) for name in self.settings)

    def get_extra_state(self) -> Tensor:
        """The settings, as the bytes of a JSON text: `state_dict` keeps them beside the weights."""
        given = {name: getattr(self, name) for name in self.settings}
        kept = {name: None if isinstance(value, Tensor) else plain(value) for name, value in given.items()}
        return torch.tensor(list(json.dumps(kept).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the settings that `get_extra_state` gave."""
        try:
            kept: dict[str, Any] = json.loads(bytes(state.tolist()))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"these are not the settings of a layer, as its state_dict holds them: {state}") from error
        if set(kept) != set(self.settings):
            raise ValueError(
                f"these weights are those of a layer with the settings {', '.join(kept)}, and cannot be those of a"
                f" {type(self).__name__}, whose settings are {', '.join(self.settings)}"
            )
        numbers = {name: value for name, value in kept.items() if value is not None}
        Neuron(**{name: value for name, value in numbers.items() if name in Neuron.__dataclass_fields__})
        for name, value in numbers.items():
            if not isinstance(getattr(self, name), Tensor):
                setattr(self, name, value)

    def extra_repr(self) -> str:
        """The settings, as `print` shows them."""
        values = ((name, getattr(self, name)) for name in self.settings)
        return ", ".join(f"{name}={'learned' if isinstance(value, Tensor) else repr(value)}" for name, value in values)
