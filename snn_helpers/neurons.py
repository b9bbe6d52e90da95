"""One spiking neuron, and a layer of them run over time.

Derived in chapter 01, `book/01_neuron_dynamics.ipynb`, cell by cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .engine import Neuron, Scan

RESETS = ("scale", "discharge", "subtract", "zero")


def check_neuron_settings(decay: float, threshold: float, penalty: float, reset: str) -> None:
    """Raise `TypeError` or `ValueError` unless the settings describe a neuron."""
    for name, value in (("decay", decay), ("threshold", threshold), ("penalty", penalty)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie between 0 (forgets at once) and 1 (never leaks), not {decay}")
    if not (threshold > 0 and math.isfinite(threshold)):
        raise ValueError(f"threshold must be a finite number above 0, not {threshold}")
    if not (penalty >= 0 and math.isfinite(penalty)):
        raise ValueError(f"penalty must be a finite number of 0 or more, not {penalty}")
    if reset not in RESETS:
        raise ValueError(f"reset must be one of {', '.join(map(repr, RESETS))}, not {reset!r}")


def neuron_step(
    current: Tensor,
    state: Tensor,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> tuple[Tensor, Tensor]:
    """Advance neurons by one time step; derived in chapter 01.

    The neuron leaks and charges, `v = current + decay * state`; puts out what stands above
    the threshold, `output = max(0, v - threshold)`, a graded spike; and where it has fired
    it is reset:

    - `"scale"`, the article's code: `v - (penalty / threshold) * v`
    - `"discharge"`, the article's text: `v - penalty - output`, which is `threshold - penalty`
    - `"subtract"`, common in libraries: `v - threshold` (`penalty` is not used)
    - `"zero"`, common in libraries: `0` (`penalty` is not used)

    Parameters
    ----------
    current, state : tensors of one shape, floating dtype and device
        The input current of this step, and the state that the previous step left; both in
        units of the state, as are `threshold` and `penalty`. Zeros are the neuron at rest.
    decay : the share of the state that survives one step, 0 to 1.
    threshold : above 0.
    penalty : 0 or more.
    reset : one of `RESETS`.

    Returns
    -------
    (output, state) : both of `current`'s shape, of this step (not delayed).

    Raises
    ------
    TypeError, ValueError : for settings, dtypes, shapes or devices that do not fit.
    """
    check_neuron_settings(decay, threshold, penalty, reset)
    for name, tensor in (("current", current), ("state", state)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype such as torch.float32, not {tensor.dtype}")
    if current.shape != state.shape:
        raise ValueError(
            f"current and state must have one shape: current has {tuple(current.shape)}, state {tuple(state.shape)}"
        )
    if current.dtype != state.dtype:
        raise TypeError(f"current and state must have one dtype: current has {current.dtype}, state {state.dtype}")
    if current.device != state.device:
        raise ValueError(
            f"current and state must be on one device: current is on {current.device}, state on {state.device}"
        )
    return _step(current, state, decay, threshold, penalty, reset)


def _step(
    current: Tensor, state: Tensor, decay: float, threshold: float, penalty: float, reset: str
) -> tuple[Tensor, Tensor]:
    charge = current + decay * state
    output = torch.relu(charge - threshold)
    # The gate is a step function: autograd sees a constant, and no gradient flows through it.
    gate = (output > 0).to(charge.dtype)
    if reset == "scale":
        return output, charge - gate * (penalty / threshold) * charge
    if reset == "discharge":
        return output, charge - gate * (penalty + output)
    if reset == "subtract":
        return output, charge - gate * threshold
    return output, charge - gate * charge  # "zero"


class SpikingLayer(nn.Module):
    """A fully connected layer of spiking neurons, run over time; derived in chapter 01.

    `layer(inputs)` maps `[T, B, n_inputs]` to `(states, outputs)`, both `[T, B, n_neurons]`
    and both delayed by one step: at step t the layer hands out what its neurons reached at
    step t - 1, and zeros at the first. The weights are `layer.linear`, Xavier-uniform.

    Parameters
    ----------
    n_inputs, n_neurons : 1 or more.
    decay, threshold, penalty, reset : as in `neuron_step`; the defaults are those of the
        article's layer.
    generator : where the initial weights come from; torch's global one if None.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

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
        check_neuron_settings(decay, threshold, penalty, reset)
        for name, value in (("n_inputs", n_inputs), ("n_neurons", n_neurons)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r})")
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        self.n_inputs, self.n_neurons = n_inputs, n_neurons
        self.decay, self.threshold, self.penalty, self.reset = decay, threshold, penalty, reset
        self.linear = nn.Linear(n_inputs, n_neurons)
        nn.init.xavier_uniform_(self.linear.weight, generator=generator)
        bound = 1 / math.sqrt(n_inputs)  # what nn.Linear draws its biases from
        nn.init.uniform_(self.linear.bias, -bound, bound, generator=generator)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to `(states, outputs)`, each `[T, B, n_neurons]`."""
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs must be a torch.Tensor, not {type(inputs).__name__}")
        if inputs.dim() != 3 or inputs.shape[2] != self.n_inputs or 0 in inputs.shape:
            raise ValueError(
                f"inputs must have the shape [steps, batch, {self.n_inputs}], each at least 1, not {list(inputs.shape)}"
            )
        if inputs.dtype != self.linear.weight.dtype:
            raise TypeError(
                f"inputs must have the dtype of the layer's weights, {self.linear.weight.dtype}, not {inputs.dtype}"
            )
        # The weights do not change over time, so one product serves all steps.
        currents = self.linear(inputs)
        # Chapter 01's loop over the steps, with a backward pass of its own.
        states, outputs = Scan.apply(currents, self.neuron)
        return states, outputs

    @property
    def neuron(self) -> Neuron:
        """The settings of the layer's neurons."""
        return Neuron(self.decay, self.threshold, self.penalty, self.reset)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, threshold={self.threshold}, penalty={self.penalty}, reset={self.reset!r}"
