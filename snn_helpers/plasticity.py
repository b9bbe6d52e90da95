"""Plasticity: how a weight changes with the spikes on its two sides; derived in chapters 05, 06 and 08.

Throughout, a delay is `t_post - t_pre`, in steps: positive is pre before post.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .long.autocast import full_precision, with_gradients, without_autocast
from .long.checks import alike, delays_and_spikes, floating, one_of, real, shown, time_first
from .long.moved import look_in
from .long.plain_layers import plain_layers
from .networks import SpikingNet
from .neurons import Neuron

# --- Traces and pair-based STDP ------------------------------------------------------------------

PAIRINGS = ("all", "nearest")


def spike_trace(spikes: Tensor, decay: float) -> Tensor:
    """What is left of past spikes at each step, `trace[t] = decay * trace[t - 1] + spikes[t]`; derived in chapter 05.

    The trace at step t counts the spike of step t itself in full. A time constant of tau steps is a `decay` of
    `exp(-1 / tau)`.

    Parameters
    ----------
    spikes : floating tensor `[T, ...]`, time first; any real values, spikes or graded input.
    decay : the share of the trace that survives one step, 0 to 1.

    Returns a tensor `[T, ...]` in units of `spikes`, of its dtype and device; gradients flow through it.
    Raises `TypeError` or `ValueError` for a decay or a tensor that does not fit.
    """
    decay = real("decay", decay, least=0, most=1)
    floating("spikes", spikes)
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

    - `"all"`: every presynaptic with every postsynaptic spike. A graded pair counts as the product of its two
      amplitudes.
    - `"nearest"`: each spike with the last spike of the other side before it: a postsynaptic one with the last
      presynaptic one (potentiation), a presynaptic one with the last postsynaptic one (depression). This is the
      symmetric scheme of Morrison, Diesmann and Gerstner (2008, doi 10.1007/s00422-008-0233-1); others exist.
      Amplitudes do not count: a spike is any value above 0.

    The rule is additive: it does not read the weights, and it does not keep them within bounds.

    Parameters
    ----------
    pre, post : floating tensors `[T, B, n_pre]` and `[T, B, n_post]`, of one dtype and device:
        spikes, 0 or more, not states.
    a_plus, a_minus : 0 or more, in units of the weight; the rule itself subtracts `a_minus`.
    tau_plus, tau_minus : time constants above 0, in steps.
    pairing : one of `PAIRINGS`.

    Returns a tensor `[n_post, n_pre]`, shaped as the weights of `nn.Linear(n_pre, n_post)`.
    Raises `TypeError` or `ValueError` for settings, dtypes, shapes, devices or values that do not fit.
    """
    a_plus, a_minus = real("a_plus", a_plus, least=0), real("a_minus", a_minus, least=0)
    tau_plus, tau_minus = real("tau_plus", tau_plus, above=0), real("tau_minus", tau_minus, above=0)
    one_of("pairing", pairing, PAIRINGS)
    # Neurons may differ in number; a column of each shows whether the rest fits.
    alike(pre=time_first("pre", pre, "neurons")[..., :1], post=time_first("post", post, "neurons")[..., :1])
    for name, spikes in (("pre", pre), ("post", post)):
        if not bool((spikes >= 0).all()):
            raise ValueError(f"{name} must hold spikes, 0 or more; it has negative values or NaN: are these states?")

    if pairing == "nearest":
        pre, post = (pre > 0).to(pre.dtype), (post > 0).to(post.dtype)
    # Each spike reads the other side's trace as it was before its own step: so d = 0 counts for nothing.
    with full_precision(pre.device):
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


# --- What backpropagation does to a weight -------------------------------------------------------


def reset_slope(fired: Tensor, threshold: float, penalty: float, reset: str) -> Tensor:
    """How the state left after a step answers to its charge, `dv'/dv`: 1 without a spike; derived in chapter 06.

    At a spike it is `1 - penalty / threshold` (scale), 0 (discharge, zero) or 1 (subtract).

    Parameters
    ----------
    fired : tensor of any shape, non-zero where the neuron fired.
    threshold, penalty, reset : as in `neuron_step`.

    Returns a tensor of the shape and device of `fired`; its dtype if floating, else torch's default.
    Raises `TypeError` or `ValueError` for settings that do not describe a neuron.
    """
    dtype = fired.dtype if fired.is_floating_point() else torch.get_default_dtype()
    return 1 - (fired != 0).to(dtype) * Neuron(0.0, threshold, penalty, reset).taken_at_spike


@with_gradients
def gradient_window(
    delays: Sequence[int],
    earlier: Sequence[int] = (),
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """The gradient that one presynaptic pulse gets from one postsynaptic spike, by autograd; derived in chapter 06.

    A voltage clamp makes the neuron fire at `t_post`, and `d` steps earlier for each `d` in `earlier`, and nowhere
    else. A pulse of height 1 reaches it at `t_pre` through a weight of 0.

    Parameters
    ----------
    delays : `t_post - t_pre` in steps, one or more; positive is pre before post.
    earlier : how many steps before `t_post` the neuron also fired, each 1 or more.
    decay, threshold, penalty, reset : as in `neuron_step`.

    Returns a tensor `[len(delays)]` of dtype float64, on the CPU: d output(t_post) / d weight, a pure number.
    Raises `TypeError` or `ValueError` for delays or settings that do not fit.
    """
    neuron = Neuron(decay, threshold, penalty, reset)
    delays, earlier = delays_and_spikes(delays, earlier)
    t_post = max(0, *delays, *earlier)
    held = torch.zeros(t_post - min(0, *delays) + 1, dtype=torch.float64, device="cpu")
    held[[t_post - d for d in (0, *earlier)]] = 2 * threshold  # the voltage that the clamp imposes
    pulses = torch.zeros(len(held), len(delays), dtype=torch.float64, device="cpu")
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.zeros(len(delays), dtype=torch.float64, device="cpu", requires_grad=True)
    state, outputs = torch.zeros(len(delays), dtype=torch.float64, device="cpu"), []
    for voltage, pulse in zip(held, pulses):
        clamp = voltage - decay * state.detach()  # cancels what the neuron would do by itself
        output, state = neuron.step(clamp + weights * pulse, state)
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

    0 where the pulse comes after the spike; `decay ** delay` where it comes before, or in the same step; times the
    reset's slope for each earlier spike that lies between the two, or in the pulse's own step. Parameters, return
    value and errors are those of `gradient_window`.
    """
    slope = Neuron(decay, threshold, penalty, reset).slope_at_spike
    delays, earlier = delays_and_spikes(delays, earlier)
    return torch.tensor(
        [decay**d * slope ** sum(e <= d for e in set(earlier)) if d >= 0 else 0.0 for d in delays],
        dtype=torch.float64,
        device="cpu",
    )


class Credit(NamedTuple):
    """The factors of one layer's gradient, each time first.

    `inputs` `[T, B, n_inputs]`; `outputs`, `slopes` and `signals` `[T, B, n_neurons]`. Not delayed: `outputs[t]` is
    what `inputs[t]` gave rise to. `signals` are the derivatives of the loss by the charge, leaving out what goes
    through the neuron's own later charges.
    """

    inputs: Tensor
    outputs: Tensor
    slopes: Tensor
    signals: Tensor


@without_autocast
@torch.no_grad()
def trace_credit(net: SpikingNet, frames: Tensor, labels: Tensor) -> list[Credit]:
    """Each layer's factors of the gradient of the mean negative log-likelihood; derived in chapter 06.

    Parameters
    ----------
    net : of any depth. Its `n_steps` is not used: the frames say how many there are.
    frames : `[T, B, n_inputs]`, what the first layer reads, such as `flicker(images.flatten(1), T)`.
    labels : `[B]`, whole numbers.

    Returns a `Credit` for each layer, first layer first, of T - 1 steps: what a layer does at the last step is handed
    out too late to be read.
    Raises `TypeError` or `ValueError` for frames or labels that do not fit.
    """
    layers, found = plain_layers(net, "trace_credit"), []
    labels = shown(frames, labels, net.begin_eval, layers[-1].n_neurons)
    n_steps, spikes = len(frames), frames
    for layer, record in zip(layers, net.run(frames)):
        slopes = reset_slope(record.outputs[1:], layer.threshold, layer.penalty, layer.reset)
        found.append((spikes[:-1], record.outputs[1:], slopes))
        states, spikes = record
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

    `credit[t] = signals[t] + slopes[t] * decay * credit[t + 1]`, from the last step to the first: this is
    backpropagation through time. `signals`, `slopes` and the result are `[T, B, n]`.
    Raises `TypeError` or `ValueError` for tensors that do not fit.
    """
    alike(signals=time_first("signals", signals), slopes=time_first("slopes", slopes))
    credit, found = torch.zeros_like(signals[0]), []
    for signal, slope in zip(signals.flip(0), slopes.flip(0)):
        credit = signal + slope * decay * credit
        found.append(credit)
    return torch.stack(found[::-1])


def three_factors(inputs: Tensor, signals: Tensor, slopes: Tensor, decay: float) -> Tensor:
    """A layer's gradient, forward in time: signals times eligibilities; derived in chapter 06.

    Each synapse of each example keeps its eligibility, the derivative of the neuron's charge by the weight:
    `e[t] = inputs[t] + decay * slopes[t - 1] * e[t - 1]`.

    `inputs` `[T, B, n_inputs]`; `signals`, `slopes` `[T, B, n_neurons]`; returns `[n_neurons, n_inputs]`, shaped as
    the weights. It takes B x n_neurons x n_inputs numbers of memory, however many steps there are. Raises `TypeError`
    or `ValueError` for tensors that do not fit.
    """
    alike(signals=time_first("signals", signals), slopes=time_first("slopes", slopes))
    if inputs.dim() != 3 or inputs.shape[:2] != signals.shape[:2]:
        raise ValueError(
            f"inputs must have the shape [{', '.join(map(str, signals.shape[:2]))}, n_inputs], not {list(inputs.shape)}"
        )
    eligibility = torch.zeros(*signals.shape[1:], inputs.shape[2], dtype=inputs.dtype, device=inputs.device)
    gradient = torch.zeros_like(eligibility[0])
    faded = torch.zeros_like(slopes[0])
    for now, signal, slope in zip(inputs, signals, slopes):
        eligibility = now[:, None, :] + faded[:, :, None] * eligibility
        with full_precision(inputs.device):
            gradient += torch.einsum("bj,bji->ji", signal, eligibility)
        faded = decay * slope
    return gradient


def pair_weights(signals: Tensor, slopes: Tensor, decay: float, n_delays: int) -> Iterator[Tensor]:
    """For each delay n from 0, what a unit input n steps before t has earned by step t; derived in chapter 08.

    Yields `n_delays` tensors `[T - n, B, n_neurons]`, whose entry s belongs to the input at step s and the signal at
    t = s + n: `signals[t]` times `decay * slopes` of each step from s to t - 1. It stops after T delays, if
    `n_delays` is more. Raises `TypeError` or `ValueError` for tensors that do not fit.
    """
    alike(signals=time_first("signals", signals), slopes=time_first("slopes", slopes))
    weights = signals
    for delay in range(n_delays):
        yield weights
        if delay + 1 >= len(signals):
            return
        weights = weights[1:] * (decay * slopes[: len(signals) - delay - 1])


__getattr__ = look_in(__name__, "after_spike", "forward_in_time")  # old addresses, for one version
