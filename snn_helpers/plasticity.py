"""Plasticity: how a weight changes with the spikes on its two sides.

Throughout, a delay is `t_post - t_pre`, in steps: positive is pre before post.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoding import flicker
from .engine import Scan
from .networks import SpikingNet
from .neurons import SpikingLayer, check_neuron_settings, neuron_step

# --- Chapter 05: traces and pair-based STDP ------------------------------------------------------

PAIRINGS = ("all", "nearest")


def spike_trace(spikes: Tensor, decay: float) -> Tensor:
    """What is left of past spikes at each step, `trace[t] = decay * trace[t - 1] + spikes[t]`; derived in chapter 05.

    The trace at step t counts the spike of step t itself in full. A time constant of tau steps
    is a `decay` of `exp(-1 / tau)`.

    Parameters
    ----------
    spikes : floating tensor `[T, ...]`, time first; any real values, spikes or graded input.
    decay : the share of the trace that survives one step, 0 to 1.

    Returns
    -------
    Tensor `[T, ...]` in units of `spikes`, of its dtype and device; gradients flow through it.

    Raises
    ------
    TypeError, ValueError : for a decay or a tensor that does not fit.
    """
    if isinstance(decay, bool) or not isinstance(decay, (int, float)):
        raise TypeError(f"decay must be a number, not {type(decay).__name__} ({decay!r})")
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie between 0 (forgets at once) and 1 (never leaks), not {decay}")
    _check_floating("spikes", spikes)
    if spikes.dim() == 0 or len(spikes) == 0:
        raise ValueError(f"spikes must have time first, at least one step, not the shape {list(spikes.shape)}")
    trace = torch.zeros_like(spikes[0])
    traces = []
    for now in spikes:
        trace = decay * trace + now
        traces.append(trace)
    return torch.stack(traces)


def pair_stdp(
    pre: Tensor,
    post: Tensor,
    a_plus: float,
    a_minus: float,
    tau_plus: float,
    tau_minus: float,
    pairing: str = "all",
) -> Tensor:
    """The change of each weight by pair-based STDP, summed over time and batch; derived in chapter 05.

    A pair of spikes at the delay d = t_post - t_pre, in steps, changes the weight by

    - `+a_plus * exp(-d / tau_plus)` for d > 0: pre before post, potentiation
    - `-a_minus * exp(d / tau_minus)` for d < 0: post before pre, depression
    - nothing for d = 0: neither came before the other

    and `pairing` says which pairs count:

    - `"all"`: every presynaptic with every postsynaptic spike. A graded pair counts as the
      product of its two amplitudes.
    - `"nearest"`: each spike with the last spike of the other side before it: a postsynaptic one
      with the last presynaptic one (potentiation), a presynaptic one with the last postsynaptic
      one (depression). This is the symmetric scheme of Morrison, Diesmann and Gerstner (2008,
      doi 10.1007/s00422-008-0233-1); others exist. Amplitudes do not count: a spike is any
      value above 0.

    The weights themselves do not enter: the rule is additive, and keeping weights within bounds
    is left to the caller.

    Parameters
    ----------
    pre, post : floating tensors `[T, B, n_pre]` and `[T, B, n_post]`, of one dtype and device:
        spikes, 0 or more, not states.
    a_plus, a_minus : 0 or more, in units of the weight; the rule itself subtracts `a_minus`.
    tau_plus, tau_minus : time constants above 0, in steps.
    pairing : one of `PAIRINGS`.

    Returns
    -------
    Tensor `[n_post, n_pre]`, shaped as the weights of `nn.Linear(n_pre, n_post)`.

    Raises
    ------
    TypeError, ValueError : for settings, dtypes, shapes, devices or values that do not fit.
    """
    for name, value in (("a_plus", a_plus), ("a_minus", a_minus), ("tau_plus", tau_plus), ("tau_minus", tau_minus)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
        if name.startswith("a_") and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number of 0 or more (the rule itself has the sign), not {value}")
        if name.startswith("tau_") and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number of steps above 0, not {value}")
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {', '.join(map(repr, PAIRINGS))}, not {pairing!r}")
    for name, spikes in (("pre", pre), ("post", post)):
        _check_floating(name, spikes)
        if spikes.dim() != 3 or 0 in spikes.shape:
            raise ValueError(
                f"{name} must have the shape [steps, batch, neurons], each at least 1, not {list(spikes.shape)}"
            )
    if pre.shape[:2] != post.shape[:2]:
        raise ValueError(
            f"pre and post must have one number of steps and one batch: pre has {list(pre.shape[:2])},"
            f" post {list(post.shape[:2])}"
        )
    if pre.dtype != post.dtype:
        raise TypeError(f"pre and post must have one dtype: pre has {pre.dtype}, post {post.dtype}")
    if pre.device != post.device:
        raise ValueError(f"pre and post must be on one device: pre is on {pre.device}, post on {post.device}")
    for name, spikes in (("pre", pre), ("post", post)):
        if not bool((spikes >= 0).all()):
            raise ValueError(f"{name} must hold spikes, 0 or more; it has negative values or NaN: are these states?")

    if pairing == "nearest":
        pre, post = (pre > 0).to(pre.dtype), (post > 0).to(post.dtype)
    # Each spike reads the other side's trace as it stood before its own step: so d = 0 counts for nothing.
    potentiation = torch.einsum("tbi,tbj->ij", post, _trace_before(pre, tau_plus, pairing))
    depression = torch.einsum("tbi,tbj->ij", _trace_before(post, tau_minus, pairing), pre)
    return a_plus * potentiation - a_minus * depression


def _trace_before(spikes: Tensor, tau: float, pairing: str) -> Tensor:
    """The trace that each step finds, its own spikes not yet counted: `[T, B, n]`, decayed to that step."""
    decay = math.exp(-1 / tau)
    trace = torch.zeros_like(spikes[0])
    traces = []
    for now in spikes:
        trace = decay * trace
        traces.append(trace)
        # Nearest: a new spike replaces what older ones left, instead of adding to it.
        trace = trace + now if pairing == "all" else torch.where(now > 0, now, trace)
    return torch.stack(traces)


def _check_floating(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype such as torch.float32, not {tensor.dtype}")


# --- Chapter 06: what backpropagation does to a weight -------------------------------------------


def reset_slope(fired: Tensor, threshold: float, penalty: float, reset: str) -> Tensor:
    """How the state left after a step answers to its charge, `dv'/dv`: 1 without a spike; derived in chapter 06.

    At a spike it is `1 - penalty / threshold` (scale), 0 (discharge, zero) or 1 (subtract).

    Parameters
    ----------
    fired : tensor of any shape, non-zero where the neuron fired.
    threshold, penalty, reset : as in `neuron_step`.

    Returns
    -------
    Tensor of the shape and device of `fired`; its dtype if floating, else torch's default.

    Raises
    ------
    TypeError, ValueError : for settings that do not describe a neuron.
    """
    check_neuron_settings(0.0, threshold, penalty, reset)
    dtype = fired.dtype if fired.is_floating_point() else torch.get_default_dtype()
    return 1 - (fired != 0).to(dtype) * (1 - _slope_at_spike(threshold, penalty, reset))


def _slope_at_spike(threshold: float, penalty: float, reset: str) -> float:
    return {"scale": 1 - penalty / threshold, "discharge": 0.0, "subtract": 1.0, "zero": 0.0}[reset]


def gradient_window(
    delays: Sequence[int],
    earlier: Sequence[int] = (),
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """The gradient that one presynaptic pulse gets from one postsynaptic spike, by autograd; derived in chapter 06.

    A voltage clamp makes the neuron fire at `t_post`, and `d` steps earlier for each `d` in
    `earlier`, and nowhere else. A pulse of height 1 reaches it at `t_pre` through a weight of 0.

    Parameters
    ----------
    delays : `t_post - t_pre` in steps, one or more; positive is pre before post.
    earlier : how many steps before `t_post` the neuron also fired, each 1 or more.
    decay, threshold, penalty, reset : as in `neuron_step`.

    Returns
    -------
    Tensor `[len(delays)]` of dtype float64, on the CPU: d output(t_post) / d weight, a pure number.

    Raises
    ------
    TypeError, ValueError : for delays or settings that do not fit.
    """
    _check_delays(delays, earlier)
    t_post = max(0, *delays, *earlier)
    held = torch.zeros(t_post - min(0, *delays) + 1, dtype=torch.float64)
    held[[t_post - d for d in (0, *earlier)]] = 2 * threshold  # the voltage that the clamp imposes
    pulses = torch.zeros(len(held), len(delays), dtype=torch.float64)
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.zeros(len(delays), dtype=torch.float64, requires_grad=True)
    state, outputs = torch.zeros(len(delays), dtype=torch.float64), []
    for voltage, pulse in zip(held, pulses):
        clamp = voltage - decay * state.detach()  # cancels what the neuron would do by itself
        output, state = neuron_step(clamp + weights * pulse, state, decay, threshold, penalty, reset)
        outputs.append(output)
    (gradient,) = torch.autograd.grad(outputs[t_post].sum(), weights)
    return gradient


def window_law(
    delays: Sequence[int],
    earlier: Sequence[int] = (),
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """What `gradient_window` must find, in closed form; derived in chapter 06.

    0 where the pulse comes after the spike; `decay ** delay` where it comes before, or in the
    same step; times the reset's slope for each earlier spike that lies between the two, or in
    the pulse's own step. Parameters, return value and errors are those of `gradient_window`.
    """
    _check_delays(delays, earlier)
    check_neuron_settings(decay, threshold, penalty, reset)
    slope = _slope_at_spike(threshold, penalty, reset)
    return torch.tensor(
        [decay**d * slope ** sum(e <= d for e in set(earlier)) if d >= 0 else 0.0 for d in delays], dtype=torch.float64
    )


def _check_delays(delays: Sequence[int], earlier: Sequence[int]) -> None:
    for name, values in (("delays", delays), ("earlier", earlier)):
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
            raise TypeError(f"{name} must hold whole numbers of steps, not {list(values)!r}")
    if len(delays) == 0:
        raise ValueError("delays must hold at least one delay")
    if any(value < 1 for value in earlier):
        raise ValueError(f"earlier must hold steps before t_post, each 1 or more, not {list(earlier)!r}")


class Credit(NamedTuple):
    """The factors of one layer's gradient, each time first; derived in chapter 06.

    `inputs` `[T, B, n_inputs]`; `outputs`, `slopes` and `signals` `[T, B, n_neurons]`. Not
    delayed: `outputs[t]` is what `inputs[t]` gave rise to. `signals` are the derivatives of the
    loss by the charge, leaving out what goes through the neuron's own later charges.
    """

    inputs: Tensor
    outputs: Tensor
    slopes: Tensor
    signals: Tensor


def spiking_layers(net: SpikingNet) -> list[SpikingLayer]:
    """The layers of a network, first layer first, as what they are: type checkers see only modules."""
    return [layer for layer in net.layers if isinstance(layer, SpikingLayer)]


@torch.no_grad()
def trace_credit(net: SpikingNet, frames: Tensor, labels: Tensor) -> list[Credit]:
    """Each layer's factors of the gradient of the mean negative log-likelihood; derived in chapter 06.

    Parameters
    ----------
    net : of any depth. Its `n_steps` is not used: the frames say how many there are.
    frames : `[T, B, n_inputs]`, what the first layer reads, such as `flicker(images.flatten(1), T)`.
    labels : `[B]`, whole numbers.

    Returns
    -------
    A `Credit` for each layer, first layer first, of T - 1 steps: what a layer does at the last
    step is handed out too late to be read.

    Raises
    ------
    TypeError, ValueError : for frames or labels that do not fit.
    """
    _check_time_first(frames=frames)
    if len(frames) < 2 or len(frames) <= net.begin_eval:
        raise ValueError(
            f"frames must have at least 2 steps, and more than begin_eval ({net.begin_eval}), not {len(frames)}"
        )
    if labels.shape != frames.shape[1:2]:
        raise ValueError(f"labels must have the shape [{frames.shape[1]}], one an example, not {list(labels.shape)}")
    layers, found = spiking_layers(net), []
    n_steps, spikes = len(frames), frames
    for layer in layers:
        states, outputs = layer(spikes)
        slopes = reset_slope(outputs[1:], layer.threshold, layer.penalty, layer.reset)
        found.append((spikes[:-1], outputs[1:], slopes))
        spikes = outputs
    errors = states[net.begin_eval :].mean(dim=0).softmax(dim=-1)
    errors -= F.one_hot(labels, errors.shape[1])
    # The read-out averages the last layer's states, each handed out one step after its charge.
    read = torch.arange(1, n_steps, device=errors.device) >= net.begin_eval
    shares = read.to(errors.dtype) / (n_steps - net.begin_eval) / len(labels)
    signals = found[-1][2] * shares[:, None, None] * errors
    factors = [Credit(*found[-1], signals)]
    for below in range(len(layers) - 2, -1, -1):
        above = layers[below + 1]
        passed_down = input_credit(signals, found[below + 1][2], above.decay) @ above.linear.weight
        signals = torch.zeros_like(found[below][1])
        signals[:-1] = passed_down[1:]  # an output reaches the next layer one step later
        signals *= found[below][1] > 0
        factors.insert(0, Credit(*found[below], signals))
    return factors


def input_credit(signals: Tensor, slopes: Tensor, decay: float) -> Tensor:
    """The derivative of the loss by each charge in full, the neuron's own future included; derived in chapter 06.

    `credit[t] = signals[t] + slopes[t] * decay * credit[t + 1]`, from the last step to the
    first: backpropagation through time. `signals`, `slopes`, and what is returned: `[T, B, n]`.
    Raises `TypeError` or `ValueError` for tensors that do not fit.
    """
    _check_time_first(signals=signals, slopes=slopes)
    credit, found = torch.zeros_like(signals[0]), []
    for signal, slope in zip(signals.flip(0), slopes.flip(0)):
        credit = signal + slope * decay * credit
        found.append(credit)
    return torch.stack(found[::-1])


def three_factors(inputs: Tensor, signals: Tensor, slopes: Tensor, decay: float) -> Tensor:
    """A layer's gradient, forward in time: signals times eligibilities; derived in chapter 06.

    Each synapse of each example keeps its eligibility, the derivative of the neuron's charge by
    the weight: `e[t] = inputs[t] + decay * slopes[t - 1] * e[t - 1]`.

    `inputs` `[T, B, n_inputs]`; `signals`, `slopes` `[T, B, n_neurons]`; returns
    `[n_neurons, n_inputs]`, shaped as the weights. It takes B x n_neurons x n_inputs numbers of
    memory, however many steps there are. Raises `TypeError` or `ValueError` for tensors that do not fit.
    """
    _check_time_first(signals=signals, slopes=slopes)
    if inputs.dim() != 3 or inputs.shape[:2] != signals.shape[:2]:
        raise ValueError(
            f"inputs must have the shape [{', '.join(map(str, signals.shape[:2]))}, n_inputs], not {list(inputs.shape)}"
        )
    eligibility = torch.zeros(*signals.shape[1:], inputs.shape[2], dtype=inputs.dtype, device=inputs.device)
    gradient = torch.zeros_like(eligibility[0])
    faded = torch.zeros_like(slopes[0])
    for now, signal, slope in zip(inputs, signals, slopes):
        eligibility = now[:, None, :] + faded[:, :, None] * eligibility
        gradient += torch.einsum("bj,bji->ji", signal, eligibility)
        faded = decay * slope
    return gradient


def pair_weights(signals: Tensor, slopes: Tensor, decay: float, n_delays: int) -> Iterator[Tensor]:
    """For each delay n from 0, what a unit input n steps before t has earned by step t; derived in chapter 06.

    Yields `n_delays` tensors `[T - n, B, n_neurons]`, whose entry s belongs to the input at step
    s and the signal at t = s + n: `signals[t]` times `decay * slopes` of each step from s to t - 1.
    It stops after T delays, if `n_delays` is more. Raises `TypeError` or `ValueError` for tensors
    that do not fit.
    """
    _check_time_first(signals=signals, slopes=slopes)
    weights = signals
    for delay in range(n_delays):
        yield weights
        if delay + 1 >= len(signals):
            return
        weights = weights[1:] * (decay * slopes[: len(signals) - delay - 1])


def _check_time_first(**tensors: Tensor) -> None:
    """All floating, `[T, B, n]`, none of it empty, and of one shape."""
    shape = next(iter(tensors.values())).shape
    for name, tensor in tensors.items():
        _check_floating(name, tensor)
        if tensor.dim() != 3 or 0 in tensor.shape:
            raise ValueError(f"{name} must have the shape [steps, batch, n], each at least 1, not {list(tensor.shape)}")
        if tensor.shape != shape:
            raise ValueError(f"{' and '.join(tensors)} must have one shape: {list(shape)} and {list(tensor.shape)}")


class OnlineNet(SpikingNet):
    """`SpikingNet`'s answers and gradients, forward in time, with no graph through time; derived in chapter 06.

    In training, an image is shown twice, with the same flicker. The first showing gives the
    answer, and the answer gives the error. In the second, each spike of the hidden layer meets
    its learning signal and changes the gradient. What has to be kept does not grow with
    `n_steps`. With gradients switched off it is a `SpikingNet`.

    Parameters
    ----------
    n_steps, begin_eval, decay, threshold, penalty, reset, generator : as in `SpikingNet`.
    sizes : inputs, one hidden layer, classes.
    horizon : how many of its future steps, at least, the last layer's own dynamics enter the
        learning signals with. The gradient is exact up to `n_steps = 2 * horizon`; beyond that, what
        is left out has faded to `decay ** horizon` (with |1 - penalty / threshold| up to 1).

    Raises
    ------
    TypeError, ValueError : for settings that do not fit; in training also without a generator.
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
        horizon: int = 128,
    ) -> None:
        super().__init__(n_steps, begin_eval, sizes, decay, threshold, penalty, reset, generator)
        if len(sizes) != 3:
            raise ValueError(f"sizes must name inputs, one hidden layer and classes, not {sizes!r}")
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
            raise ValueError(f"horizon must be a whole number of 1 or more, not {horizon!r}")
        self.horizon = horizon

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; in training, `generator` must be given: the flicker is shown twice."""
        if not torch.is_grad_enabled():
            return super().forward(images, generator)
        if generator is None:
            raise ValueError("training forward in time shows the same flicker twice: give a generator")
        logits: Tensor = _TwoShowings.apply(self, images.flatten(1), generator, *self.parameters())
        return F.log_softmax(logits, dim=-1)

    def show(self, images: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Show flattened images `[B, n_inputs]`, step by step, keeping nothing.

        Yields `(frame, hidden, output, state)` for each step, not delayed: the flickering input
        `[B, n_inputs]`, the hidden layer's outputs, the last layer's outputs and its states.
        """
        first, last = spiking_layers(self)
        settings = (first.decay, first.threshold, first.penalty, first.reset)
        state_1 = hidden = images.new_zeros(len(images), first.n_neurons)
        state_2 = images.new_zeros(len(images), last.n_neurons)
        for _ in range(self.n_steps):
            frame = flicker(images, 1, generator)[0]
            # The last layer reads what the hidden layer put out one step before.
            output, state_2 = neuron_step(last.linear(hidden), state_2, *settings)
            hidden, state_1 = neuron_step(first.linear(frame), state_1, *settings)
            yield frame, hidden, output, state_2

    def share(self, step: int) -> float:
        """With which weight the state left by a step enters the mean that is the answer; 0 if it does not."""
        read = self.begin_eval <= step + 1 < self.n_steps  # it is handed out one step later
        return 1 / (self.n_steps - self.begin_eval) if read else 0.0

    def slope(self, fired: Tensor) -> Tensor:
        """`reset_slope` with the network's settings, in the dtype of its weights."""
        first = spiking_layers(self)[0]
        return reset_slope(fired.to(first.linear.weight.dtype), first.threshold, first.penalty, first.reset)


class _TwoShowings(torch.autograd.Function):
    """To autograd, the whole network over all of time is this one operation."""

    @staticmethod
    def forward(ctx: Any, net: OnlineNet, images: Tensor, generator: torch.Generator, *parameters: Tensor) -> Tensor:
        """The first showing: the answer, its derivatives by the last layer's weights, and the recent spikes."""
        ctx.net, ctx.images = net, images
        ctx.replay = torch.Generator(generator.device)
        ctx.replay.set_state(generator.get_state())
        ctx.save_for_backward(*parameters)  # so that autograd complains if they change in between
        ctx.recent = deque(maxlen=2 * net.horizon + 1)  # where the last layer fired, lately
        last = spiking_layers(net)[1]
        logits = images.new_zeros(len(images), last.n_neurons)
        # One more input, of 1, stands for the bias.
        arriving = F.pad(images.new_zeros(len(images), last.n_inputs), (0, 1), value=1.0)
        eligibility = images.new_zeros(len(images), last.n_neurons, last.n_inputs + 1)
        ctx.influence = torch.zeros_like(eligibility)  # d logit / d weight
        for step, (_, hidden, output, state) in enumerate(net.show(images, generator)):
            eligibility += arriving[:, None]
            slope, share = net.slope(output), net.share(step)
            logits += share * state
            eligibility *= slope[:, :, None]  # now d state / d weight
            ctx.influence.add_(eligibility, alpha=share)
            eligibility *= last.decay
            arriving = F.pad(hidden, (0, 1), value=1.0)
            ctx.recent.append(output > 0)
        return logits

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        """The second showing. `errors` `[B, n_classes]` are the derivatives of the loss by the logits."""
        net, images = ctx.net, ctx.images
        first, horizon, n_steps = spiking_layers(net)[0], net.horizon, net.n_steps
        weights_2 = ctx.saved_tensors[2]
        gradient_2 = torch.einsum("bk,bkj->kj", errors, ctx.influence)
        del ctx.influence

        follower = net.show(images, ctx.replay)
        window, leader = ctx.recent, iter(())
        if n_steps > len(window):  # too long ago: a second copy of the network runs ahead
            window, ahead = deque(), torch.Generator(ctx.replay.device)
            ahead.set_state(ctx.replay.get_state())
            leader = net.show(images, ahead)
        trace = images.new_zeros(len(images), first.n_inputs + 1)
        # What each synapse's eligibility lacks, against the trace, as of its neuron's last spike.
        lacking = images.new_zeros(len(images) * first.n_neurons, first.n_inputs + 1)
        last_spike = torch.zeros(len(lacking), dtype=images.dtype, device=images.device)
        slope_at_spike = _slope_at_spike(first.threshold, first.penalty, first.reset)
        gradient_1 = torch.zeros_like(lacking[: first.n_neurons])
        for start in range(0, n_steps, horizon):
            while len(window) < min(2 * horizon + 1, n_steps - start):
                window.append(next(leader)[2] > 0)
            # The last layer's credit, from the end of the window back to where the follower is.
            credit, future = torch.zeros_like(errors), []
            for step in range(start + len(window) - 1, start, -1):
                credit = net.slope(window[step - start]) * (net.share(step) * errors + first.decay * credit)
                future.append(credit)
            for step in range(start, min(start + horizon, n_steps - 1)):
                frame, hidden, _, _ = next(follower)
                trace = first.decay * trace + F.pad(frame, (0, 1), value=1.0)
                # Only where a neuron fired is there anything to do.
                rows = hidden.flatten().nonzero().squeeze(1)
                image, neuron = rows // first.n_neurons, rows % first.n_neurons
                signals = (future.pop() @ weights_2).flatten()[rows]
                faded = first.decay ** (step - last_spike[rows])
                lack = lacking.index_select(0, rows).mul_(faded[:, None])
                eligibility = trace.index_select(0, image).sub_(lack)
                lacking.index_copy_(0, rows, lack.add_(eligibility, alpha=1 - slope_at_spike))
                last_spike[rows] = step
                gradient_1.index_add_(0, neuron, eligibility.mul_(signals[:, None]))
            for _ in range(min(horizon, len(window))):
                window.popleft()
        by_layer = [part for g in (gradient_1, gradient_2) for part in (g[:, :-1], g[:, -1])]
        return None, None, None, *by_layer


# --- chapter 07: the two mysteries and the after-spike -------------------------------------------


def coincidence_shares(credit: Credit, decay: float, horizon: int, amounts: bool = False) -> Tensor:
    """Which signs make the gradient of spikes that came together; derived in chapter 07.

    A coincidence is an input that is not zero and a spike of the neuron in the same step or at most
    `horizon` steps later. Its share of the descent direction, minus the gradient, is a product of
    three factors: minus the learning signal, the path through the resets in between, the input.

    Parameters
    ----------
    credit : of one layer, from `trace_credit`.
    decay : of that layer.
    horizon : in steps, 0 or more.
    amounts : weigh each coincidence with the size of what it contributes; otherwise, count it as one.

    Returns
    -------
    Tensor `[2, 2, 2]`, summing to 1: shares by the sign of each factor, in the order above; index 0 is
    a positive factor, 1 a negative one. Coincidences that contribute nothing are left out; zeros if
    there is no other.

    Raises
    ------
    ValueError : for a horizon that is no whole number of 0 or more.
    """
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 0:
        raise ValueError(f"horizon must be a whole number of steps, 0 or more, not {horizon!r}")
    fired = (credit.outputs > 0).to(credit.signals.dtype)
    totals = torch.zeros(2, 2, 2, dtype=torch.float64)
    sides = [side if amounts else (side > 0).to(side.dtype) for side in (credit.inputs.relu(), (-credit.inputs).relu())]
    arriving = [side.sum(dim=2, keepdim=True) for side in sides]  # a neuron reads all inputs of its example
    for delay, weights in enumerate(pair_weights(credit.signals, credit.slopes, decay, horizon + 1)):
        wanted = -credit.signals[delay:].sign() * fired[delay:]
        path = -weights.sign() * wanted
        size = weights.abs() if amounts else torch.ones_like(weights)
        for i, j, k in product(range(2), repeat=3):
            chosen = (wanted == (1, -1)[i]) & (path == (1, -1)[j])
            totals[i, j, k] += (chosen * size * arriving[k][: len(weights)]).sum(dtype=torch.float64).cpu()
    return totals / totals.sum() if totals.sum() > 0 else totals


def after_spike(
    outputs: Tensor, currents: Tensor, decay: float, strength: float | Tensor, detach: bool = False
) -> Tensor:
    """Let each spike be followed by a negative signal that late input provokes; derived in chapter 07.

    `signal[t] = output[t] - strength * trace[t] * max(0, current[t])`, where
    `trace[t] = decay * trace[t - 1] + output[t - 1]` is what is left of earlier spikes. In a steady
    current I a spike and what follows it have the integral zero for `strength = (1 - decay) / I`.

    Parameters
    ----------
    outputs, currents : `[T, ...]`, what the neurons put out and what arrived there, in the same
        steps: both delayed, or both not. With ones for `currents` the after-spike is a fixed one.
    decay : of the trace, 0 to 1.
    strength : a number, or one for each neuron, `[n_neurons]`.
    detach : no gradient through the trace, thus none from an after-spike to the spike it follows.

    Returns
    -------
    Tensor shaped as `outputs`.

    Raises
    ------
    TypeError, ValueError : for tensors or a decay that do not fit.
    """
    _check_floating("currents", currents)
    _check_floating("outputs", outputs)
    if currents.shape != outputs.shape:
        raise ValueError(
            f"outputs and currents must have one shape: outputs has {list(outputs.shape)}, currents"
            f" {list(currents.shape)}"
        )
    traces = spike_trace(outputs.detach() if detach else outputs, decay)
    before = torch.cat([torch.zeros_like(traces[:1]), traces[:-1]])  # a spike's own step comes too early for it
    return outputs - strength * before * torch.relu(currents)


class AfterSpikeLayer(SpikingLayer):
    """A `SpikingLayer` that hands out `after_spike` in place of its outputs; derived in chapter 07.

    Each neuron sets the strength of its after-spike such that its signal sums to `1 - balance` of what
    its spikes alone sum to, over a batch and all steps. In training the batch at hand decides;
    in evaluation, `layer.strength`, a running mean. To the gradient a strength is a constant.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`.
    after_decay : of the after-spike, 0 to below 1.
    balance : 0 (no after-spike) to 1 (the integral is zero).
    provoked : by late input; otherwise the after-spike is a fixed one.
    detach : as in `after_spike`.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    strength: Tensor

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 2.0,
        penalty: float = 2.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
        after_decay: float = 0.8,
        balance: float = 1.0,
        provoked: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
        if not 0 <= after_decay < 1:
            raise ValueError(f"after_decay must lie between 0 and 1, 1 excluded, not {after_decay}")
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must lie between 0 (no after-spike) and 1 (integral zero), not {balance}")
        self.after_decay, self.balance, self.provoked, self.detach = after_decay, balance, provoked, detach
        self.register_buffer("strength", torch.zeros(n_neurons))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to (states, signals), each `[T, B, n_neurons]`, delayed by one step."""
        super().forward(inputs[:1])  # one step of it, which refuses inputs that do not fit
        currents = self.linear(inputs)
        states, spikes = Scan.apply(currents, self.neuron)
        # Delayed as the spikes are: what arrived in the step in which they were fired.
        arrived = torch.cat([torch.zeros_like(currents[:1]), currents[:-1]])
        if not self.provoked:
            arrived = torch.ones_like(currents)
        taken = spikes - after_spike(spikes, arrived, self.after_decay, 1.0, self.detach)
        strength = self._balance(spikes.detach(), taken.detach()) if self.training else self.strength
        return states, spikes - strength * taken

    def _balance(self, spikes: Tensor, taken: Tensor) -> Tensor:
        """The strengths that balance this batch, `[n_neurons]`; the running mean takes them in."""
        given = spikes.sum(dim=(0, 1))
        # A late current below a tenth of the threshold counts as a tenth: no division by next to nothing.
        least = 0.1 * self.threshold / (1 - self.after_decay) * given
        needed = self.balance * given / torch.maximum(taken.sum(dim=(0, 1)), least)
        needed = torch.where(given > 0, needed, self.strength)
        fresh = not bool(self.strength.any())
        self.strength.copy_(needed if fresh else torch.lerp(self.strength, needed, 0.1))
        return needed


class AfterSpikeNet(SpikingNet):
    """`SpikingNet` whose hidden layers hand out after-spikes; derived in chapter 07.

    Parameters
    ----------
    n_steps, begin_eval, sizes, decay, threshold, penalty, reset, generator : as in `SpikingNet`;
        the same generator gives the same weights.
    after_decay, balance, provoked, detach : as in `AfterSpikeLayer`.

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
        after_decay: float = 0.8,
        balance: float = 1.0,
        provoked: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__(n_steps, begin_eval, sizes, decay, threshold, penalty, reset, generator)
        neuron, after = (decay, threshold, penalty, reset), (after_decay, balance, provoked, detach)
        for index, plain in enumerate(spiking_layers(self)[:-1]):
            layer = AfterSpikeLayer(plain.n_inputs, plain.n_neurons, *neuron, torch.Generator(), *after)
            layer.linear = plain.linear
            self.layers[index] = layer


class AfterCredit(NamedTuple):
    """The factors of the first layer's gradient in a network with after-spikes; derived in chapter 07.

    `credit` is that layer's `Credit`; its signals take in what a spike does through its after-spike.
    `handed` `[T, B, n_neurons]` are the derivatives of the loss by what the layer hands out, and
    `late` those by the currents that provoke after-spikes, for a trace of one. Not delayed.
    """

    credit: Credit
    handed: Tensor
    late: Tensor


def trace_after_credit(net: AfterSpikeNet, frames: Tensor, labels: Tensor) -> AfterCredit:
    """`trace_credit` for the first layer of a network with after-spikes, in evaluation; derived in chapter 07.

    Parameters and errors as in `trace_credit`; sets the network to evaluation.
    """
    net.eval()
    first, *others = spiking_layers(net)
    if not isinstance(first, AfterSpikeLayer):
        raise TypeError(f"the first layer must be an AfterSpikeLayer, not {type(first).__name__}")
    _check_time_first(frames=frames)
    if len(frames) < 2 or len(frames) <= net.begin_eval:
        raise ValueError(
            f"frames must have at least 2 steps, and more than begin_eval ({net.begin_eval}), not {len(frames)}"
        )
    if labels.shape != frames.shape[1:2]:
        raise ValueError(f"labels must have the shape [{frames.shape[1]}], one an example, not {list(labels.shape)}")
    with torch.no_grad():
        outputs = SpikingLayer.forward(first, frames)[1][1:]
        currents = first.linear(frames[:-1])
        signals = first(frames)[1]
    values = signals.requires_grad_()
    for layer in others:
        states, values = layer(values)
    log_probs = F.log_softmax(states[net.begin_eval :].mean(dim=0), dim=-1)
    handed = torch.autograd.grad(F.nll_loss(log_probs, labels), signals)[0][1:]
    drive = torch.relu(currents) if first.provoked else torch.ones_like(currents)
    late = -first.strength * handed * (currents > 0) * first.provoked
    own = torch.zeros_like(handed)
    if not first.detach:  # a larger spike leaves a larger trace to every step after it
        taken = -first.strength * drive * handed
        own[:-1] = input_credit(taken, torch.ones_like(taken), first.after_decay)[1:]
    slopes = reset_slope(outputs, first.threshold, first.penalty, first.reset)
    return AfterCredit(Credit(frames[:-1], outputs, slopes, (handed + own) * (outputs > 0)), handed, late)


def late_weights(outputs: Tensor, late: Tensor, after_decay: float, n_delays: int) -> Iterator[Tensor]:
    """For each delay n from 1, what a unit input n steps after a spike earns through its after-spike; from chapter 07.

    The anti-causal counterpart of `pair_weights`: yields `n_delays` tensors `[T - n, B, n_neurons]`,
    whose entry s belongs to the spike at step s and the input at s + n.
    """
    for delay in range(1, min(n_delays, len(outputs) - 1) + 1):
        yield after_decay ** (delay - 1) * outputs[:-delay] * late[delay:]


def after_spike_window(
    delays: Sequence[int],
    after_decay: float = 0.8,
    strength: float = 0.2,
    amplitude: float = 1.0,
    late_current: float = 0.0,
    n_after: int = 60,
    detach: bool = False,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """The gradient that one pulse gets from one spike and its after-spike, by autograd; derived in chapter 07.

    As `gradient_window`, with a clamp that makes the neuron fire once, at `t_post`; but the gradient
    is that of the sum of all that the neuron hands out, up to `n_after` steps after the spike. The
    pulse, of height 1, arrives through a weight of 0.1.

    Parameters
    ----------
    delays : `t_post - t_pre` in steps, one or more, each at least `-n_after`.
    after_decay, strength, detach : as in `after_spike`.
    amplitude : the output at `t_post`, above 0.
    late_current : that other synapses bring at every step; the clamp cancels its charge.
    decay, threshold, penalty, reset : as in `neuron_step`.

    Returns
    -------
    Tensor `[len(delays)]` of dtype float64, on the CPU: d sum of signals / d weight, a pure number.

    Raises
    ------
    TypeError, ValueError : for delays or settings that do not fit.
    """
    _check_delays(delays, ())
    if not amplitude > 0:
        raise ValueError(f"amplitude must be above 0, the height of a spike, not {amplitude}")
    if min(delays) < -n_after:
        raise ValueError(f"delays reach {min(delays)}, beyond the last step, {n_after} after the spike: raise n_after")
    t_post = max(0, *delays)
    held = torch.zeros(t_post + n_after + 1, dtype=torch.float64)
    held[t_post] = threshold + amplitude
    pulses = torch.zeros(len(held), len(delays), dtype=torch.float64)
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.full((len(delays),), 0.1, dtype=torch.float64, requires_grad=True)
    currents = late_current + weights * pulses
    state, outputs = torch.zeros(len(delays), dtype=torch.float64), []
    for voltage, current in zip(held, currents):
        clamp = voltage - decay * state.detach() - current.detach()
        output, state = neuron_step(clamp + current, state, decay, threshold, penalty, reset)
        outputs.append(output)
    signals = after_spike(torch.stack(outputs), currents, after_decay, strength, detach)
    (gradient,) = torch.autograd.grad(signals.sum(), weights)
    return gradient


def after_spike_law(
    delays: Sequence[int],
    after_decay: float = 0.8,
    strength: float = 0.2,
    amplitude: float = 1.0,
    late_current: float = 0.0,
    n_after: int = 60,
    detach: bool = False,
    decay: float = 0.9,
) -> Tensor:
    """What `after_spike_window` must find, in closed form; derived in chapter 07.

    After the spike, `-strength * amplitude * after_decay ** (|delay| - 1)` where the late current is
    excitatory in all. Before it, or in its step, `decay ** delay`, times what is left of a spike
    whose after-spike grows with it: `1 - strength * late_current * (1 + after_decay + ...)`.
    Threshold, penalty and reset do not enter.
    """
    _check_delays(delays, ())
    taken = strength * max(0.0, late_current) * sum(after_decay**step for step in range(n_after))
    causal = 1.0 if detach else 1.0 - taken
    depression = -strength * amplitude * (late_current + 0.1 > 0)
    return torch.tensor(
        [causal * decay**d if d >= 0 else depression * after_decay ** (-d - 1) for d in delays], dtype=torch.float64
    )
