"""Binary spikes, and the derivatives put in place of theirs; derived in chapter 09."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoding import flicker
from .networks import LayerRecord, SpikingNet
from .neurons import SpikingLayer, check_neuron_settings
from .plasticity import _check_delays, reset_slope, spiking_layers

# The shapes, each of height 1 at the threshold: `slope` k says how fast they fall off beside it.
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "fast sigmoid": lambda z: (1 + z.abs()).pow(-2),
    "arctan": lambda z: 1 / (1 + z.square()),
    "sigmoid": lambda z: 4 * torch.sigmoid(z) * torch.sigmoid(-z),
    "triangle": lambda z: (1 - z.abs()).clamp(min=0),
    "rectangle": lambda z: (z.abs() < 1).to(z.dtype),
    "none": torch.zeros_like,  # the true derivative, wherever there is one
}


def surrogate_slope(distance: Tensor, shape: str = "fast sigmoid", slope: float = 10.0) -> Tensor:
    """What stands in for the derivative of a spike, by its distance from the threshold; derived in chapter 09.

    With z = slope * distance it is `1 / (1 + |z|)**2` (fast sigmoid), `1 / (1 + z**2)` (arctan),
    `4 / (2 + exp(z) + exp(-z))` (sigmoid), `max(0, 1 - |z|)` (triangle), 1 where |z| < 1
    (rectangle), or 0 (none).

    Parameters
    ----------
    distance : floating tensor of any shape, charge minus threshold.
    shape : one of `SHAPES`.
    slope : above 0; the larger, the nearer to the threshold a neuron must be to learn.

    Returns
    -------
    Tensor of the shape of `distance`.

    Raises
    ------
    TypeError, ValueError : for settings that do not fit.
    """
    _check_surrogate(shape, slope)
    return SHAPES[shape](slope * distance)


def _check_surrogate(shape: str, slope: float) -> None:
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(map(repr, SHAPES))}, not {shape!r}")
    if isinstance(slope, bool) or not isinstance(slope, (int, float)):
        raise TypeError(f"slope must be a number, not {type(slope).__name__} ({slope!r})")
    if not (slope > 0 and math.isfinite(slope)):
        raise ValueError(f"slope must be a finite number above 0, not {slope}")


class _Spike(torch.autograd.Function):
    """1 above the threshold and 0 elsewhere; backwards, the surrogate."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, shape: str, slope: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.shape, ctx.slope = shape, slope
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return arriving * SHAPES[ctx.shape](ctx.slope * distance), None, None


def binary_spike(distance: Tensor, shape: str = "fast sigmoid", slope: float = 10.0) -> Tensor:
    """1 where the distance from the threshold is above 0, else 0; backwards `surrogate_slope`; from chapter 09.

    Parameters and errors as in `surrogate_slope`; returns a tensor of the shape of `distance`.
    """
    _check_surrogate(shape, slope)
    return _Spike.apply(distance, shape, slope)  # type: ignore[no-any-return]


def binary_step(
    current: Tensor,
    state: Tensor,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "zero",
    shape: str = "fast sigmoid",
    slope: float = 10.0,
    detach: bool = True,
) -> tuple[Tensor, Tensor]:
    """`neuron_step` with a spike of 1 for its graded output; derived in chapter 09.

    The state goes the same way to the last bit, at each of the resets. `shape` and `slope` are
    those of the surrogate. With `detach` the reset lets no gradient through its gate.

    Returns
    -------
    (spike, state) : both of `current`'s shape, of this step (not delayed).

    Raises
    ------
    TypeError, ValueError : for settings that do not fit.
    """
    check_neuron_settings(decay, threshold, penalty, reset)
    _check_surrogate(shape, slope)
    return _step(current, state, decay, threshold, penalty, reset, shape, slope, detach)


def _step(
    current: Tensor,
    state: Tensor,
    decay: float,
    threshold: float,
    penalty: float,
    reset: str,
    shape: str,
    slope: float,
    detach: bool,
) -> tuple[Tensor, Tensor]:
    charge = current + decay * state
    spike = _Spike.apply(charge - threshold, shape, slope)
    gate = spike.detach() if detach else spike
    if reset == "scale":
        return spike, charge - gate * (penalty / threshold) * charge
    if reset == "discharge":
        return spike, charge - gate * (penalty + torch.relu(charge - threshold))
    if reset == "subtract":
        return spike, charge - gate * threshold
    return spike, charge - gate * charge


class BinarySpikingLayer(SpikingLayer):
    """A `SpikingLayer` whose spikes are 0 or 1, trained through a surrogate; derived in chapter 09.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`.
    shape, slope : as in `surrogate_slope`.
    detach : as in `binary_step`.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 1.0,
        penalty: float = 1.5,
        reset: str = "zero",
        generator: torch.Generator | None = None,
        shape: str = "fast sigmoid",
        slope: float = 10.0,
        detach: bool = True,
    ) -> None:
        super().__init__(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
        _check_surrogate(shape, slope)
        self.shape, self.slope, self.detach = shape, slope, detach

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to (states, spikes), each `[T, B, n_neurons]`, delayed by one step."""
        super().forward(inputs[:1])  # one step of it, which refuses inputs that do not fit
        return self.run(self.linear(inputs))

    def run(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, from the currents `[T, B, n_neurons]` on, which may be one expanded over time."""
        settings = (self.decay, self.threshold, self.penalty, self.reset, self.shape, self.slope, self.detach)
        state = spike = torch.zeros_like(currents[0])
        states, spikes = [], []
        for current in currents:
            states.append(state)
            spikes.append(spike)
            spike, state = _step(current, state, *settings)
        return torch.stack(states), torch.stack(spikes)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, shape={self.shape!r}, slope={self.slope}, detach={self.detach}"


OUT_OF_REACH = 1e9  # the last layer's threshold: it adds up and leaks, and never fires


class BinarySpikingNet(SpikingNet):
    """`SpikingNet` with binary spikes in its hidden layers, for a steady image; derived in chapter 09.

    Each pixel, from 0 for black to 1 for white, is a steady current; or, with `spiking_input`, a
    spike train that fires at each step with the pixel's value for a probability. A layer starts
    when the one below can first have fired. The last layer never fires; its states, averaged over
    the steps from `begin_eval` on, are the logits.

    Parameters
    ----------
    n_steps : at least one for each layer.
    begin_eval, sizes, decay, threshold, penalty, reset, generator : as in `SpikingNet`, with at least
        one hidden layer.
    shape, slope, detach : as in `BinarySpikingLayer`.
    spiking_input : whether the input, too, is spikes.

    Raises
    ------
    TypeError, ValueError : for settings or images that do not fit.
    """

    def __init__(
        self,
        n_steps: int = 25,
        begin_eval: int = 0,
        sizes: Sequence[int] = (784, 100, 10),
        decay: float = 0.9,
        threshold: float = 1.0,
        penalty: float = 1.5,
        reset: str = "zero",
        generator: torch.Generator | None = None,
        shape: str = "fast sigmoid",
        slope: float = 10.0,
        detach: bool = True,
        spiking_input: bool = False,
    ) -> None:
        super().__init__(n_steps, begin_eval, sizes, decay, threshold, penalty, reset, generator)
        *hidden, last = spiking_layers(self)
        if not hidden:
            raise ValueError(f"sizes must name inputs, one hidden layer or more, and classes, not {sizes!r}")
        if n_steps < len(self.layers):
            raise ValueError(f"n_steps must be at least {len(self.layers)}, one for each layer, not {n_steps}")
        self.spiking_input = spiking_input
        last.threshold = OUT_OF_REACH
        for index, plain in enumerate(hidden):
            neuron = (decay, threshold, penalty, reset, torch.Generator(), shape, slope, detach)
            layer = BinarySpikingLayer(plain.n_inputs, plain.n_neurons, *neuron)
            layer.linear = plain.linear
            self.layers[index] = layer

    def record(self, images: Tensor, generator: torch.Generator | None = None) -> list[LayerRecord]:
        """Show the images; return each layer's states and spikes over time, first layer first."""
        pixels = images.flatten(1) + 0.5
        first, *others = self.layers
        assert isinstance(first, BinarySpikingLayer)
        if self.spiking_input:
            draws = flicker(torch.ones_like(pixels), self.n_steps, generator)
            records = [LayerRecord(*first((draws < pixels).to(pixels.dtype)))]
        else:  # the image stands still, and one product serves all steps
            records = [LayerRecord(*first.run(first.linear(pixels).expand(self.n_steps, -1, -1)))]
        for index, layer in enumerate(others, start=1):
            parts = layer(records[-1].outputs[index:])
            records.append(LayerRecord(*(F.pad(part, (0, 0, 0, 0, index, 0)) for part in parts)))
        return records

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, spiking_input={self.spiking_input}"


# --- What one neuron's weight is asked to do -----------------------------------------------------


def surrogate_window(
    delays: Sequence[int],
    voltages: Sequence[float],
    t_post: int,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "zero",
    shape: str = "fast sigmoid",
    slope: float = 10.0,
    detach: bool = True,
) -> Tensor:
    """`gradient_window` for a binary neuron, by autograd through the surrogate; derived in chapter 09.

    A voltage clamp makes the neuron's charge what `voltages` say, at each step; it fires where they
    exceed the threshold. A pulse of height 1 reaches it at `t_pre` through a weight of 0.

    Parameters
    ----------
    delays : `t_post - t_pre` in steps, one or more; positive is pre before post. Each pulse must
        fall within the steps of `voltages`.
    voltages : the charge imposed at each step.
    t_post : the step whose spike is differentiated; it need not fire.
    decay, threshold, penalty, reset, shape, slope, detach : as in `binary_step`.

    Returns
    -------
    Tensor `[len(delays)]` of dtype float64, on the CPU: d spike(t_post) / d weight, a pure number.

    Raises
    ------
    TypeError, ValueError : for delays or settings that do not fit.
    """
    _check_delays(delays, ())
    if not all(0 <= t_post - delay < len(voltages) for delay in (0, *delays)):
        raise ValueError(f"t_post {t_post} and the delays {list(delays)} must lie within the {len(voltages)} voltages")
    pulses = torch.zeros(len(voltages), len(delays), dtype=torch.float64)
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.zeros(len(delays), dtype=torch.float64, requires_grad=True)
    state, spikes = torch.zeros(len(delays), dtype=torch.float64), []
    for voltage, pulse in zip(voltages, pulses):
        clamp = voltage - decay * state.detach()
        current = clamp + weights * pulse
        spike, state = binary_step(current, state, decay, threshold, penalty, reset, shape, slope, detach)
        spikes.append(spike)
    (gradient,) = torch.autograd.grad(spikes[t_post].sum(), weights)
    return gradient


def surrogate_law(
    delays: Sequence[int],
    voltages: Sequence[float],
    t_post: int,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "zero",
    shape: str = "fast sigmoid",
    slope: float = 10.0,
    detach: bool = True,
) -> Tensor:
    """What `surrogate_window` must find, in closed form; derived in chapter 09.

    0 for a pulse after `t_post`. Before it, the surrogate's slope at `t_post`, times `decay` and the
    slope of the reset for each step from the pulse to `t_post`. Parameters as in `surrogate_window`.
    """
    charge = torch.as_tensor(voltages, dtype=torch.float64)
    height = surrogate_slope(charge - threshold, shape, slope)
    paths = reset_slope((charge > threshold).double(), threshold, penalty, reset)
    if not detach:  # a larger charge also makes the spike more likely, and that lowers the state
        over = (charge - threshold).clamp(min=0)
        taken = {"scale": penalty / threshold * charge, "discharge": penalty + over, "zero": charge}
        paths = paths - height * taken.get(reset, torch.full_like(charge, threshold))
    return torch.stack(
        [
            height[t_post] * (decay * paths[t_post - delay : t_post]).prod() if delay >= 0 else height[0] * 0
            for delay in delays
        ]
    )


# --- To other libraries ---------------------------------------------------------------------------


def to_nir(net: BinarySpikingNet, time_step: float = 1e-4) -> Any:
    """The network as a graph of the Neuromorphic Intermediate Representation (NIR); derived in chapter 09.

    NIR describes neurons in continuous time; its libraries read them with a step of `time_step`
    seconds, snnTorch with 0.1 ms. A time constant of `time_step / (1 - decay)` and as large a
    resistance make that step the book's. Spikes come one step earlier there than here, as its
    layers have no delay.

    Parameters
    ----------
    net : with `reset="zero"`, the only one of the book's resets that NIR has, and a decay below 1.

    Returns
    -------
    nir.NIRGraph : `input`, then `weights_0`, `neurons_0` and so on for each layer, `output`.

    Raises
    ------
    ValueError : for another reset or decay.
    """
    import nir
    import numpy as np

    layers = spiking_layers(net)
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([layers[0].n_inputs])})}
    for index, layer in enumerate(layers):
        if layer.reset != "zero" or layer.decay >= 1:
            raise ValueError(f"NIR needs reset='zero' and a decay below 1, not {layer.reset!r} and {layer.decay}")
        weight, bias = (part.detach().cpu().numpy() for part in (layer.linear.weight, layer.linear.bias))
        tau = np.full(layer.n_neurons, time_step / (1 - layer.decay))
        threshold = np.full(layer.n_neurons, layer.threshold)
        nodes[f"weights_{index}"] = nir.Affine(weight, bias)
        nodes[f"neurons_{index}"] = nir.LIF(tau=tau, r=tau / time_step, v_leak=0 * tau, v_threshold=threshold)
    nodes["output"] = nir.Output({"output": np.array([layers[-1].n_neurons])})
    names = list(nodes)
    return nir.NIRGraph(nodes, list(zip(names, names[1:])))
