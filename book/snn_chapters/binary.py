"""Binary spikes, and the derivatives put in place of theirs; derived in chapter 12."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import MLP, LayerRecord, SpikingLayer, SpikingNet, evaluate, flicker
from snn_helpers.data import noisy
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import with_gradients, without_autocast
from snn_helpers.long.checks import alike, both, delays_and_spikes, flag, flat, floating, one_of, real, weight_and_bias
from snn_helpers.long.examples import stored
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.neurons import Neuron
from snn_helpers.plasticity import reset_slope
from snn_helpers.records import load_results
from snn_helpers.training import as_tensors, fit_adam
from snn_helpers.tuning import choose, scores_of

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
    """The slope that replaces the derivative of a spike, by its distance from the threshold; derived in chapter 12.

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


def _check_surrogate(shape: str, slope: float) -> tuple[str, float]:
    return one_of("shape", shape, tuple(SHAPES)), real("slope", slope, above=0)


class _Spike(torch.autograd.Function):
    """1 above the threshold and 0 elsewhere; backwards, the surrogate."""

    generate_vmap_rule = True  # so that torch.func knows it, too

    @staticmethod
    def forward(distance: Tensor, shape: str, slope: float) -> Tensor:
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str, float], output: Tensor) -> None:
        distance, ctx.shape, ctx.slope = inputs
        ctx.save_for_backward(distance)

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return arriving * SHAPES[ctx.shape](ctx.slope * distance), None, None


def binary_spike(distance: Tensor, shape: str = "fast sigmoid", slope: float = 10.0) -> Tensor:
    """1 where the distance from the threshold is above 0, else 0; backwards `surrogate_slope`; from chapter 12.

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
    """`neuron_step` with a spike of 1 for its graded output; derived in chapter 12.

    The state goes the same way to the last bit, at each of the resets. `shape` and `slope` are
    those of the surrogate. With `detach` the reset lets no gradient through its gate.

    Returns
    -------
    (spike, state) : both of `current`'s shape, of this step (not delayed).

    Raises
    ------
    TypeError, ValueError : for settings that do not fit.
    """
    neuron = Neuron(decay, threshold, penalty, reset)
    alike(current=floating("current", current), state=floating("state", state))
    return _step(current, state, neuron, *_check_surrogate(shape, slope), flag("detach", detach))


def _step(
    current: Tensor, state: Tensor, neuron: Neuron, shape: str, slope: float, detach: bool
) -> tuple[Tensor, Tensor]:
    charge = current + neuron.decay * state
    spike = _Spike.apply(charge - neuron.threshold, shape, slope)
    return spike, neuron.reset_where(spike.detach() if detach else spike, charge)


class BinarySpikingLayer(SpikingLayer):
    """A `SpikingLayer` whose spikes are 0 or 1, trained through a surrogate: a hidden layer of `BinarySpikingNet`.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`.
    shape, slope : as in `surrogate_slope`.
    detach : as in `binary_step`.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    settings = (*SpikingLayer.settings, "shape", "slope", "detach")

    def __init__(
        self, *args: Any, shape: str = "fast sigmoid", slope: float = 10.0, detach: bool = True, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.shape, self.slope, self.detach = shape, slope, detach
        self.shape, self.slope, self.detach = self._surrogate()

    def _surrogate(self) -> tuple[str, float, bool]:
        """The settings of the surrogate, checked as they are now."""
        return (*_check_surrogate(self.shape, self.slope), flag("detach", self.detach))

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the layer's neurons, `(spike, state)`."""
        return _step(current, state, self.neuron, *self._surrogate())


OUT_OF_REACH = 1e9  # the last layer's threshold: it adds up and leaks, and never fires


class BinarySpikingNet(SpikingNet):
    """`SpikingNet` with binary spikes in its hidden layers, for a steady image; derived in chapter 12.

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
        self.surrogate: dict[str, Any] = {"shape": shape, "slope": slope, "detach": detach}
        super().__init__(n_steps, begin_eval, sizes, decay, threshold, penalty, reset, generator)
        if len(self.layers) < 2:
            raise ValueError(f"sizes must name inputs, one hidden layer or more, and classes, not {sizes!r}")
        if n_steps < len(self.layers):
            raise ValueError(f"n_steps must be at least {len(self.layers)}, one for each layer, not {n_steps}")
        self.spiking_input = flag("spiking_input", spiking_input)

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """A layer of binary spikes; the last one never fires."""
        if is_last:
            return super().make_layer(n_inputs, n_neurons, replace(neuron, threshold=OUT_OF_REACH), generator, is_last)
        return BinarySpikingLayer(n_inputs, n_neurons, **vars(neuron), generator=generator, **self.surrogate)

    def frames(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the first layer reads, `[n_steps, B, n_inputs]`: steady pixels, or spikes."""
        pixels = flat(images) + 0.5
        if not self.spiking_input:
            return pixels.expand(self.showing[0], -1, -1)
        draws = flicker(torch.ones_like(pixels), self.n_steps, generator)
        return (draws < pixels).to(pixels.dtype)

    def run(self, frames: Tensor) -> list[LayerRecord]:
        """Run the layers, one after another; each starts when the one below can first have fired."""
        first, *others = self.layers
        records = [LayerRecord(*both(first(frames), first))]
        for index, layer in enumerate(others, start=1):
            parts = both(layer(records[-1].outputs[index:]), layer)
            records.append(LayerRecord(*(F.pad(part, (0, 0, 0, 0, index, 0)) for part in parts)))
        return records

    def extra_repr(self) -> str:
        """The settings that are not the layers' own, as `print` shows them."""
        return f"{super().extra_repr()}, spiking_input={self.spiking_input}"


# How an image is shown, in words.
CODES = {
    "steady": "a steady image",
    "flicker": "the article's flicker",
    "rate": "a random spike train for each pixel",
    "latency": "one spike for each pixel",
}


class CodedNet(BinarySpikingNet):
    """`BinarySpikingNet` with another input, or with graded spikes in its hidden layers; compared in chapter 12.

    Parameters
    ----------
    code : one of `CODES`. `"steady"`: pixels from 0 to 1; `"flicker"`: the article's, pixels from -0.5 to 0.5 times
        a fresh draw at each step; `"rate"`: a spike with the pixel's value for a probability; `"latency"`: one spike
        for each pixel that is not black, the sooner the brighter.
    graded : hidden neurons hand on what stands above the threshold, with its own derivative, for a spike of 1.
    others : as in `BinarySpikingNet`.
    """

    def __init__(self, n_steps: int = 25, *, code: str = "steady", graded: bool = False, **settings: Any) -> None:
        self.graded, self.code = flag("graded", graded), one_of("code", code, tuple(CODES))
        super().__init__(n_steps, spiking_input=code == "rate", **settings)

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """A layer of graded or binary spikes; the last one never fires."""
        if is_last or not self.graded:
            return super().make_layer(n_inputs, n_neurons, neuron, generator, is_last)
        return SpikingLayer(n_inputs, n_neurons, **vars(neuron), generator=generator)

    def frames(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the first layer reads, `[n_steps, B, n_inputs]`, in this network's code."""
        pixels = flat(images)
        if self.code == "flicker":
            return flicker(pixels, self.n_steps, generator)
        if self.code != "latency":
            return super().frames(images, generator)
        when = ((0.5 - pixels) * (self.n_steps - 1)).round()  # a white pixel fires at once, a black one never
        steps = torch.arange(self.n_steps, device=pixels.device)[:, None, None]
        return ((steps == when) & (pixels > -0.5)).to(pixels.dtype)

    def extra_repr(self) -> str:
        """The settings that are not the layers' own, as `print` shows them."""
        return f"{super().extra_repr()}, code={self.code!r}, graded={self.graded}"


# --- What one neuron's weight is asked to do -----------------------------------------------------


@with_gradients
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
    """`gradient_window` for a binary neuron, by autograd through the surrogate; derived in chapter 12.

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
    delays, _ = delays_and_spikes(delays)
    if not all(0 <= t_post - delay < len(voltages) for delay in (0, *delays)):
        raise ValueError(f"t_post {t_post} and the delays {list(delays)} must lie within the {len(voltages)} voltages")
    pulses = torch.zeros(len(voltages), len(delays), dtype=torch.float64, device="cpu")
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.zeros(len(delays), dtype=torch.float64, device="cpu", requires_grad=True)
    state, spikes = torch.zeros(len(delays), dtype=torch.float64, device="cpu"), []
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
    """What `surrogate_window` must find, in closed form; derived in chapter 12.

    0 for a pulse after `t_post`. Before it, the surrogate's slope at `t_post`, times `decay` and the
    slope of the reset for each step from the pulse to `t_post`. Parameters as in `surrogate_window`.
    """
    neuron = Neuron(decay, threshold, penalty, reset)
    charge = torch.as_tensor(voltages, dtype=torch.float64, device="cpu")
    height = surrogate_slope(charge - threshold, shape, slope)
    paths = reset_slope((charge > threshold).double(), threshold, penalty, reset)
    if not detach:  # a larger charge also makes the spike more likely, and that lowers the state
        paths = paths - height * (charge - neuron.reset_where(torch.ones_like(charge), charge))
    return torch.stack(
        [
            height[t_post] * (decay * paths[t_post - delay : t_post]).prod() if delay >= 0 else height[0] * 0
            for delay in delays
        ]
    )


def _exportable(net: BinarySpikingNet) -> list[SpikingLayer]:
    """The layers of a network that NIR can describe; else refuse, in words."""
    told = "to_nir takes a BinarySpikingNet as chapter 12 builds it"
    if not isinstance(net, BinarySpikingNet) or type(net).run is not BinarySpikingNet.run:
        raise TypeError(f"{told}, not a {type(net).__name__}")
    layers = cast(list[SpikingLayer], list(net.layers))
    last = layers[-1]
    for place, layer in enumerate(layers, start=1):
        binary = type(layer) is BinarySpikingLayer and layer is not last
        reads_out = layer is last and type(layer) is SpikingLayer and layer.is_plain and layer.threshold == OUT_OF_REACH
        if not (binary or reads_out) or weight_and_bias(layer.linear) is None:
            raise TypeError(
                f"{told}: hidden layers of binary spikes with weights and biases, and a last layer that never fires;"
                f" layer {place} is {layer!r}"
            )
    return layers


def to_nir(net: BinarySpikingNet, time_step: float = 1e-4) -> Any:
    """The network as a graph of the Neuromorphic Intermediate Representation (NIR); derived in chapter 12.

    NIR describes neurons in continuous time; its libraries read them with a step of `time_step`
    seconds, snnTorch with 0.1 ms. A time constant of `time_step / (1 - decay)`, as Euler's step has
    it, and as large a resistance make that step the book's. Spikes come one step earlier there than here, as its
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

    layers = _exportable(net)
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


# --- The trial ------------------------------------------------------------------------------------


MODELS = ("binary", "coded", "mlp", "mlp, dropout", "mlp, same weights", "mlp, black and white")
DROPOUT = 0.4  # in the training of the second MLP: the share of the messages that it is to bear the loss of
# The lead of one label over the next, in units of the logits, at which an answer is given.
LEADS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.3, 0.5)


def surrogate_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float,
    epochs: int = 5,
    batch_size: int = 128,
    noise_levels: Sequence[float] = (),
    drop_levels: Sequence[float] = (),
    probe: bool = False,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train 784-100-10, one of `MODELS`, once and measure it; recorded for chapter 12.

    `settings` go to `BinarySpikingNet`, or to `CodedNet` if the network is "coded". The MLPs read pixels from 0 to 1,
    as the binary network does. `noise_levels` are those of `noisy`, whose first 2000 test images they use;
    `drop_levels` the shares of the hidden layer's messages that are lost on their way, for these images.

    Returns the network, the seed, `test_accuracy`, `test_loss`, `seconds` of training,
    `noise_accuracy` and `drop_accuracy`, and with `probe` also what `what_spikes_buy` finds.
    """
    device = pick_device(device)
    model = make_model(network, seed, **settings)
    started = time.perf_counter()
    fit_adam(
        model,
        train,
        seed=seed,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        device=device,
    )
    seconds = time.perf_counter() - started
    on_test = evaluate(model, test, seed=seed)
    few = TensorDataset(*(part[:2000] for part in stored(test)))
    row: dict[str, Any] = {
        "network": network,
        "seed": seed,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "seconds": round(seconds, 2),
        "noise_accuracy": {
            str(level): evaluate(model, noisy(test, level, seed), seed=seed).accuracy for level in noise_levels
        },
        "drop_accuracy": {str(level): accuracy_with_drops(model, few, level, seed) for level in drop_levels},
    }
    if probe:
        row |= what_spikes_buy(model, test, seed)
    return row


class BrightMLP(MLP):
    """The `MLP` of chapter 04 for pixels from 0 to 1, which the binary network reads too; used in chapter 12.

    `black_and_white`: a pixel is 1 if it is brighter than one half, and else 0.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 100, 10),
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        black_and_white: bool = False,
    ) -> None:
        super().__init__(sizes, dropout=dropout, generator=generator)
        self.black_and_white = flag("black_and_white", black_and_white)
        if len(self.layers) != 2:
            raise ValueError(f"sizes must name inputs, one hidden layer and classes, not {sizes!r}")

    def hidden(self, images: Tensor) -> Tensor:
        """What the hidden layer puts out, `[B, n_neurons]`."""
        return torch.relu(self.layers[0](self.pixels(images)))

    def pixels(self, images: Tensor) -> Tensor:
        """What the first layer reads, `[B, n_inputs]`."""
        bright = self.check(images) + 0.5
        return (bright > 0.5).to(bright) if self.black_and_white else bright

    def answer(self, hidden: Tensor) -> Tensor:
        """Log-probabilities from what the hidden layer put out."""
        return F.log_softmax(self.layers[1](hidden), dim=-1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        hidden = self.hidden(images)
        if self.training and self.dropout > 0:
            draws = flicker(torch.ones_like(hidden), 1, generator)[0]
            hidden = hidden * (draws >= self.dropout) / (1 - self.dropout)
        return self.answer(hidden)


def make_model(network: str, seed: int, **settings: Any) -> BinarySpikingNet | BrightMLP:
    """One of `MODELS`, 784-100-10, its initial weights drawn from the seed."""
    generator = seeded(seed)
    if network == "binary":
        return BinarySpikingNet(generator=generator, **settings)
    if network == "coded":
        return CodedNet(generator=generator, **settings)
    if network not in MODELS:
        raise ValueError(f"network must be one of {', '.join(map(repr, MODELS))}, not {network!r}")
    settings |= {"dropout": DROPOUT if network == "mlp, dropout" else 0.0, "generator": generator}
    mlp = BrightMLP(black_and_white=network == "mlp, black and white", **settings)
    if network == "mlp, same weights":  # those that the binary network begins with
        for layer, other in zip(mlp.layers, BinarySpikingNet(generator=seeded(seed)).layers):
            layer.load_state_dict(cast(SpikingLayer, other).linear.state_dict())
    return mlp


@without_autocast
@torch.no_grad()
def accuracy_with_drops(model: BinarySpikingNet | BrightMLP, dataset: TensorDataset, level: float, seed: int) -> float:
    """Accuracy if each message of the hidden layer, a spike or an activation, is lost with a probability `level`."""
    model, level = _two_layers(model, "accuracy_with_drops"), real("level", level, least=0, most=1)
    images, labels = as_tensors(dataset, next(model.parameters()).device)
    generator = seeded(seed)
    hidden = model.hidden(images) if isinstance(model, BrightMLP) else model.record(images, generator)[0].outputs
    draws = flicker(torch.ones_like(hidden), 1, generator)[0]
    hidden = hidden * (draws >= level)
    logits = model.answer(hidden) if isinstance(model, BrightMLP) else evidence(model, hidden)[-1]
    return float((logits.argmax(dim=1) == labels).double().mean())


def _two_layers(model: Any, for_what: str) -> BinarySpikingNet | BrightMLP:
    """A `BrightMLP`, or a `BinarySpikingNet` that runs as chapter 12 builds it, with one hidden layer; else words."""
    runs = isinstance(model, BinarySpikingNet) and getattr(model.run, "__func__", None) is BinarySpikingNet.run
    reads = runs and getattr(model.read_out, "__func__", None) is BinarySpikingNet.read_out
    if not (isinstance(model, BrightMLP) or reads) or len(model.layers) != 2:
        n_layers = len(getattr(model, "layers", []))
        raise TypeError(
            f"{for_what} is for chapter 12's networks, a BinarySpikingNet or a BrightMLP with one hidden layer and a"
            f" last one, not a {type(model).__name__} of {n_layers} layers"
        )
    return cast("BinarySpikingNet | BrightMLP", model)


def evidence(net: BinarySpikingNet, hidden: Tensor) -> Tensor:
    """What speaks for each label up to each step, `[T, B, 10]`; the last step's are the logits.

    `hidden` `[T, B, n_neurons]`: the hidden layer's spikes, as `net.record` gives them.
    """
    if isinstance(_two_layers(net, "evidence"), BrightMLP):
        raise TypeError("evidence is what a BinarySpikingNet gathers over time; a BrightMLP has no time")
    states = F.pad(net.layers[1](hidden[1:])[0], (0, 0, 0, 0, 1, 0))
    states[: net.begin_eval] = 0
    return states.cumsum(dim=0) / (net.n_steps - net.begin_eval)


@without_autocast
@torch.no_grad()
def what_spikes_buy(model: BinarySpikingNet | BrightMLP, dataset: TensorDataset, seed: int) -> dict[str, Any]:
    """What a network sends and does for an image, and how soon it could answer; recorded for chapter 12.

    - `messages`: spikes of the hidden layer for an image; of an MLP, activations that are not 0;
    - `active_pixels`: pixels of an image that are not black;
    - `input_messages`: values other than 0 that the first layer reads, over all steps: spikes, if the input is spikes;
    - for a spiking network also `rate`, the share of steps in which a hidden neuron fires; `silent`,
      the share of its neurons that never fire for any image; `accuracy_by_step`, if it had to answer at
      that step; and, for each of `LEADS`, `answers`: `[lead, mean step of the answer, accuracy, spikes sent
      by then]`, answering as soon as a label leads by that much, and at the end if none does.
    """
    model = _two_layers(model, "what_spikes_buy")
    images, labels = as_tensors(dataset, next(model.parameters()).device)
    found: dict[str, Any] = {"active_pixels": float((images > -0.5).double().sum() / len(images))}
    if isinstance(model, BrightMLP):
        messages = float((model.hidden(images) > 0).double().sum() / len(images))
        read = float(torch.count_nonzero(model.pixels(images)) / len(images))
        return found | {"messages": messages, "input_messages": read}
    generator = seeded(seed)
    read, sent, leads, right, alive = 0, [], [], [], torch.zeros(1, device=images.device)
    for batch, truth in zip(images.split(1000), labels.split(1000)):
        frames = model.frames(batch, generator)
        read += int(torch.count_nonzero(frames))
        hidden = model.run(frames)[0].outputs
        speaking = evidence(model, hidden)
        best = speaking.topk(2, dim=2).values
        leads.append(best[..., 0] - best[..., 1])
        right.append(speaking.argmax(dim=2) == truth)
        sent.append((hidden > 0).sum(dim=2))
        alive = torch.maximum(alive.to(hidden), hidden.amax(dim=(0, 1)))
    lead, correct, spikes = (torch.cat(parts, dim=1) for parts in (leads, right, sent))
    so_far = spikes.cumsum(dim=0)
    everyone = torch.arange(len(labels), device=labels.device)
    answers = []
    for wanted in LEADS:
        enough = lead >= wanted
        enough[-1] = True
        step = enough.int().argmax(dim=0)  # the first of the steps at which it is enough
        values = (step.double() + 1, correct[step, everyone].double(), so_far[step, everyone].double())
        answers.append([wanted, *(round(value.mean().item(), 5) for value in values)])
    n_neurons = cast(SpikingLayer, model.layers[0]).n_neurons
    return found | {
        "messages": spikes.sum(dim=0).double().mean().item(),
        "input_messages": read / len(images),
        "rate": (spikes.double().mean() / n_neurons).item(),
        "silent": (alive == 0).double().mean().item(),
        "accuracy_by_step": [round(value, 5) for value in correct.double().mean(dim=1).tolist()],
        "answers": answers,
    }


# --- The records ----------------------------------------------------------------------------------

NOISE_LEVELS = (0.0, 0.2, 0.4, 0.8)
DROPS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
Variant = dict[str, Any]
# Chapter 12's network. Its settings were found by trying on held-out images; of that search no record was kept.
BINARY: Variant = {"n_steps": 25, "reset": "subtract", "shape": "arctan", "slope": 3.0}
# Each of the networks compared, with the learning rate at which its search starts.
COMPARED: list[tuple[Variant, float]] = [
    ({"network": "binary", **BINARY}, 0.0047),
    ({"network": "mlp"}, 0.01),
    ({"network": "mlp, dropout"}, 0.01),
    ({"network": "mlp, same weights"}, 0.01),
]
CHANGED: list[tuple[Variant, float]] = [
    ({"network": "binary", **BINARY, "n_steps": 8}, 0.0056),
    ({"network": "binary", **BINARY, "reset": "zero"}, 0.0047),
]
# Shapes and slopes of the surrogate, each with each: two with tails and two without.
CROSSED, SLOPES = ("fast sigmoid", "arctan", "triangle", "rectangle"), (1.0, 3.0, 10.0)
FEW: Variant = {"n_train": 10_000, "epochs": 3}
SURROGATES: list[tuple[Variant, float]] = [
    ({"network": "binary", **FEW, **BINARY, "shape": shape, "slope": slope, "detach": detach}, 0.01)
    for slope in SLOPES
    for shape, detach in (*((shape, True) for shape in CROSSED), ("arctan", False))
    if detach or slope > 1
]
SPIKES: list[tuple[Variant, float]] = [
    *(
        ({"network": "coded", **FEW, **BINARY, "code": code, "graded": graded}, 0.01)
        for code, graded in (
            ("steady", True),
            ("steady", False),
            ("flicker", True),
            ("flicker", False),
        )
    ),
    ({"network": "coded", **FEW, **BINARY, "code": "steady", "graded": False, "shape": "none"}, 0.01),
    ({"network": "mlp", **FEW}, 0.01),
]
# Networks of other sizes, for what they take at equal accuracy, and the input of spikes.
SIZED: list[tuple[Variant, float]] = [
    *(
        ({"network": "mlp", **FEW, "sizes": [784, n_hidden, 10]}, 0.027)
        for n_hidden in (10, 15, 20, 30, 50, 70, 200, 300)
    ),
    *(
        ({"network": "mlp, black and white", **FEW, "sizes": [784, n_hidden, 10]}, 0.027)
        for n_hidden in (15, 20, 30, 50, 70, 100, 200, 300, 500)
    ),
    *(
        ({"network": "coded", **FEW, **BINARY, "code": code, "graded": False, "sizes": [784, n_hidden, 10]}, 0.0082)
        for code, n_hidden in (("rate", 100), ("latency", 100), ("latency", 25), ("latency", 50), ("latency", 200))
    ),
]


def measure_surrogate(n_train: int = 60_000, **settings: Any) -> dict[str, Any]:
    """As `surrogate_trial`, tested on MNIST's test images, with all that it can measure."""
    train, test = whole_mnist()
    settings |= {"noise_levels": NOISE_LEVELS, "drop_levels": DROPS, "probe": True}
    return surrogate_trial(train=examples(train, n_train), test=test, **settings)


def measure_sized(n_train: int, **settings: Any) -> dict[str, Any]:
    """As `surrogate_trial`, tested on MNIST's test images, with what spikes buy."""
    train, test = whole_mnist()
    return surrogate_trial(train=examples(train, n_train), test=test, probe=True, **settings)


def measure_surrogate_tuning(**settings: Any) -> dict[str, Any]:
    """Everything is chosen on 10,000 training images held out, never on the test images; so is the early answer."""
    return measure_surrogate_held_out(probe=True, **settings)


def measure_surrogate_held_out(n_train: int = 50_000, first: int = 50_000, **settings: Any) -> dict[str, Any]:
    """As `surrogate_trial`, scored on 10,000 training images from the `first` on, which are held out."""
    train, _ = whole_mnist()
    fitted, held_out = examples(train, n_train), examples(train, first, first + 10_000)
    return surrogate_trial(train=fitted, test=held_out, **settings)


def measure_shapes(**settings: Any) -> dict[str, Any]:
    """As `measure_surrogate_held_out`, on 10,000 further training images: the last 10,000 have chosen the rates."""
    return measure_surrogate_held_out(first=40_000, **settings)


def tuned_trials(tuning: str, variants: Sequence[tuple[Variant, float]]) -> list[dict[str, Any]]:
    """Five seeds of each variant, at the learning rate that its record of tuning chooses."""
    rows = load_results(tuning)["trials"]
    rates = [choose(scores_of(rows, **variant)) for variant, _ in variants]
    return [
        {**variant, "learning_rate": rate, "seed": seed}
        for seed in range(5)
        for (variant, _), rate in zip(variants, rates)
    ]


RECORDS: dict[str, Record] = {
    "12_tuning": Record(
        "784-100-10 with binary spikes, with fewer steps and with another reset, and three MLPs, five epochs of Adam at"
        " the learning rates that a search visits: 50,000 training images, 10,000 held out as 'test'",
        measure_surrogate_tuning,
        partial(tuning_trials, "12_tuning", [*COMPARED, *CHANGED], floor=0.2),
    ),
    "12_surrogate": Record(
        "784-100-10 with binary spikes, and three MLPs, five epochs of Adam on the whole of MNIST, each at its rate of"
        " 12_tuning",
        measure_surrogate,
        partial(tuned_trials, "12_tuning", COMPARED),
    ),
    "12_steps": Record(
        "784-100-10 with binary spikes, five epochs of Adam on the whole of MNIST, with fewer steps, and with the"
        " reset that NIR has, each at its rate of 12_tuning",
        measure_surrogate,
        partial(tuned_trials, "12_tuning", CHANGED),
    ),
    "12_shapes_tuning": Record(
        "784-100-10 with binary spikes, three epochs of Adam on 10,000 training images, for shapes and slopes of the"
        " surrogate, with the reset detached and not, at the learning rates that a search visits; the last 10,000"
        " training images held out as 'test'",
        measure_surrogate_held_out,
        partial(tuning_trials, "12_shapes_tuning", SURROGATES, floor=0.2),
    ),
    "12_shapes": Record(
        "784-100-10 with binary spikes, three epochs of Adam on 10,000 training images, for shapes and slopes of the"
        " surrogate, with the reset detached and not, each at its rate of 12_shapes_tuning; 10,000 further training"
        " images as 'test'",
        measure_shapes,
        partial(tuned_trials, "12_shapes_tuning", SURROGATES),
    ),
    "12_graded_tuning": Record(
        "784-100-10 with graded and with binary spikes, with several codes of the input, and the MLP, three epochs of"
        " Adam on 10,000 training images at the learning rates that a search visits; 10,000 held out as 'test'",
        measure_surrogate_held_out,
        partial(tuning_trials, "12_graded_tuning", SPIKES, floor=0.2),
    ),
    "12_graded": Record(
        "784-100-10 with graded and with binary spikes, with several codes of the input, and the MLP, three epochs of"
        " Adam on 10,000 training images, each at its rate of 12_graded_tuning",
        measure_surrogate,
        partial(tuned_trials, "12_graded_tuning", SPIKES),
    ),
    "12_sized_tuning": Record(
        "MLPs with 10 to 500 hidden neurons that read grey or black and white, and binary spikes whose input is spikes,"
        " too, with 25 to 200, three epochs"
        " of Adam on 10,000 training images at the learning rates that a search visits; 10,000 held out as 'test'",
        measure_surrogate_held_out,
        partial(tuning_trials, "12_sized_tuning", SIZED, floor=0.2),
    ),
    "12_sized": Record(
        "MLPs with 10 to 500 hidden neurons that read grey or black and white, and binary spikes whose input is spikes,"
        " too, with 25 to 200, three epochs"
        " of Adam on 10,000 training images, each at its rate of 12_sized_tuning",
        measure_sized,
        partial(tuned_trials, "12_sized_tuning", SIZED),
    ),
}


# --- What the records say -------------------------------------------------------------------------

Row = dict[str, Any]


def of_variant(rows: Sequence[Row], variant: Variant) -> list[Row]:
    """The rows of a record with all settings of a variant, by seed; used in chapter 12."""
    found = [row for row in rows if all(row["settings"].get(name) == value for name, value in variant.items())]
    return sorted(found, key=lambda row: row["settings"]["seed"])


def at_its_rate(tuning: Sequence[Row], variant: Variant) -> list[Row]:
    """Of a record of tuning, the rows of a variant at the learning rate that is chosen; used in chapter 12."""
    rate = choose(scores_of(tuning, **variant))
    return of_variant(tuning, variant | {"learning_rate": rate})


class Early(NamedTuple):
    """When a network answers early: `step` and `lead` as chosen, and what they do, a number for each row."""

    step: int
    lead: float
    steps: list[float]  # mean steps until an answer by the lead
    sent: list[float]  # spikes of the hidden layer until then
    by_lead: list[float]  # its accuracy, as all below in per cent
    by_step: list[float]  # if everyone answers at the chosen step
    as_long: list[float]  # if everyone answers at once after as many steps as the lead takes in the mean
    at_the_end: list[float]


def answers_early(chosen_on: Sequence[Row], rows: Sequence[Row], allowed: float = 0.001) -> Early:
    """An early answer that costs at most `allowed` of the accuracy, chosen on some rows, measured on others.

    For the choice, the step and the lead are those that take the fewest steps of all whose mean accuracy is within
    `allowed` of the last step's. A mean time between two steps is had by giving some images the one and the rest the
    other, so `as_long` goes straight from one step's accuracy to the next one's. Derived in chapter 12.
    """
    by_step = torch.tensor([row["accuracy_by_step"] for row in chosen_on], dtype=torch.float64).mean(dim=0)
    answers = torch.tensor([row["answers"] for row in chosen_on], dtype=torch.float64).mean(dim=0)
    enough = by_step[-1].item() - allowed - 1e-9
    step = 1 + next(at for at, accuracy in enumerate(by_step.tolist()) if accuracy >= enough)
    fit = [(steps, lead) for lead, steps, accuracy, _ in answers.tolist() if accuracy >= enough]
    if not fit:
        raise ValueError(f"no lead keeps the accuracy to within {allowed}: try larger ones than {answers[-1, 0]:g}")
    lead = min(fit)[1]
    at = [min(row["answers"], key=lambda answer: abs(answer[0] - lead)) for row in rows]
    curves = [[100 * accuracy for accuracy in row["accuracy_by_step"]] for row in rows]
    return Early(
        step,
        lead,
        [answer[1] for answer in at],
        [answer[3] for answer in at],
        [100 * answer[2] for answer in at],
        [curve[step - 1] for curve in curves],
        [_between(curve, answer[1]) for curve, answer in zip(curves, at)],
        [curve[-1] for curve in curves],
    )


def _between(curve: Sequence[float], steps: float) -> float:
    """The accuracy after `steps` steps, 1 for the first, on a straight line between two whole numbers of steps."""
    before = min(int(steps), len(curve) - 1)
    share = steps - before
    return (1 - share) * curve[before - 1] + share * curve[before]


def main_effects(cells: dict[tuple[str, float], list[float]]) -> tuple[list[float], list[float]]:
    """How far the means of the rows, and of the columns, of a table lie apart, for each seed; derived in chapter 12.

    `cells` hold a number for each seed at each row and column of the table, every row with every column.
    """
    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*cells))
    table = torch.tensor([[cells[row, column] for column in columns] for row in rows], dtype=torch.float64)
    return tuple(  # type: ignore[return-value]
        (means.amax(dim=0) - means.amin(dim=0)).tolist() for means in (table.mean(dim=1), table.mean(dim=0))
    )


def spread_at(cells: dict[tuple[str, float], list[float]], column: float) -> list[float]:
    """How far the rows of such a table lie apart in one column, for each seed; used in chapter 12."""
    return [max(each) - min(each) for each in zip(*(cells[key] for key in cells if key[1] == column), strict=True)]


# Energies in pJ of 32-bit operations at 45 nm (Horowitz 2014): a multiplication 3.7, an addition 0.9, both 4.6. A word
# of a memory takes 5 if the memory has 8 kB, 10 if 32 kB, and 50 if 1 MB, the first in which all weights have room.
MAC, ADDITION, WEIGHT, STATE = 4.6, 0.9, 50.0, 5.0
COUNTED = ("arithmetic", "with_memory")
SIZES = [784, 100, 10]  # of a network whose row names none


class Operations(NamedTuple):
    """What a network does for one image: multiplications with an addition, additions alone, and words of memory.

    `weights` are those read; `states` are those read and those written.
    """

    macs: float
    additions: float
    weights: float
    states: float

    @property
    def arithmetic(self) -> float:
        """Energy of the operations, in nanojoules."""
        return (MAC * self.macs + ADDITION * self.additions) / 1000

    @property
    def with_memory(self) -> float:
        """The same, and that of the words: weights from a memory of 1 MB, states from one of 8 kB."""
        return self.arithmetic + (WEIGHT * self.weights + STATE * self.states) / 1000


def operations(row: Row) -> Operations:
    """What the network of a row does for one image, zeros skipped; derived in chapter 12.

    Each synapse reads one weight. A spiking neuron takes, in each step, one multiplication by the decay with one
    addition, and its state is read and written. A steady image meets the first layer's weights once.
    """
    settings = row["settings"]
    code, graded = settings.get("code", "steady"), settings.get("graded", False)
    grey = code == "steady" and settings["network"] != "mlp, black and white"
    read = row["active_pixels"] if grey else row["input_messages"]
    _, n_hidden, n_classes = settings.get("sizes", SIZES)
    first, second = n_hidden * read, n_classes * row["messages"]
    if settings["network"].startswith("mlp"):
        return Operations(first * grey + second, first * (not grey), first + second, 0.0)
    updates = (n_hidden + n_classes) * settings["n_steps"]
    macs, additions = float(updates), 0.0
    for synapses, spikes in ((first, code in ("rate", "latency")), (second, not graded)):
        macs, additions = (macs, additions + synapses) if spikes else (macs + synapses, additions)
    return Operations(macs, additions, first + second, 2.0 * updates)


SPIKING = [
    variant for variant, _ in (*SPIKES, *SIZED) if variant.get("shape") == BINARY["shape"] and not variant["graded"]
]
ORDINARY = [variant for variant, _ in (*SPIKES, *SIZED) if variant["network"].startswith("mlp")]


class Tried(NamedTuple):
    """A network of some size: its rows on test images, and at the same rate those on held-out images."""

    variant: Variant
    rows: list[Row]
    held_out: list[Row]


def tried(variants: Sequence[Variant]) -> list[Tried]:
    """What the records hold of some of `SPIKING` or `ORDINARY`; used in chapter 12."""
    names = ("12_graded", "12_graded_tuning", "12_sized", "12_sized_tuning")
    records = {name: load_results(name)["trials"] for name in names}
    found = []
    for variant in variants:
        name = "12_sized" if "sizes" in variant else "12_graded"
        held_out = at_its_rate(records[f"{name}_tuning"], variant)
        found.append(Tried(variant, of_variant(records[name], variant), held_out))
    return found


def sizes_of(variant: Variant) -> list[int]:
    """Inputs, hidden neurons and classes of one of `SPIKING` or `ORDINARY`; used in chapter 12."""
    return list(variant.get("sizes", SIZES))


class Bill(NamedTuple):
    """What a network of binary spikes takes beside an ordinary one; lists hold a number for each seed."""

    code: str
    n_hidden: int
    ordinary: str  # the network beside it, one of `MODELS`
    ordinary_hidden: int
    ahead: list[float]  # points of accuracy
    saved: list[float]  # nanojoules for an image
    share: float  # of the ordinary network's energy, in the mean over the seeds


def bill(spiking: Tried, ordinary: Tried, counted: str) -> Bill:
    """A network of binary spikes beside an ordinary one, by one of `COUNTED`; used in chapter 12."""
    takes, would_take = ([getattr(operations(row), counted) for row in each.rows] for each in (spiking, ordinary))
    pairs = zip(spiking.rows, ordinary.rows, strict=True)
    return Bill(
        code=spiking.variant["code"],
        n_hidden=sizes_of(spiking.variant)[1],
        ordinary=ordinary.variant["network"],
        ordinary_hidden=sizes_of(ordinary.variant)[1],
        ahead=[100 * (a["test_accuracy"] - b["test_accuracy"]) for a, b in pairs],
        saved=[b - a for a, b in zip(takes, would_take, strict=True)],
        share=sum(takes) / sum(would_take),
    )


def cheapest_as_accurate(spiking: Tried, among: Sequence[Tried], counted: str) -> Tried:
    """Of ordinary networks, the one that takes the least energy of all that read as well as one of binary spikes.

    So of those that read as many held-out images or more, in the mean over seeds, each at its best rate; by one of
    `COUNTED`. Used in chapter 12. Raises `ValueError` if none reads as well.
    """

    def right(network: Tried) -> float:
        return float(mean(row["test_accuracy"] for row in network.held_out))

    def energy(network: Tried) -> float:
        return float(mean(getattr(operations(row), counted) for row in network.rows))

    enough = [network for network in among if right(network) >= right(spiking)]
    if not enough:
        raise ValueError(f"no ordinary network that was tried is as accurate as {spiking.variant}: try larger ones")
    return min(enough, key=energy)
