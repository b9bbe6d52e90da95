"""The article's two mysteries, the repairs of the second one, and what they cost; derived in chapter 09.

All derivatives are autograd's: the spikes are held in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, SpikingNet, evaluate, fit, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import with_gradients, without_autocast
from snn_helpers.long.checks import alike, delays_and_spikes, flag, floating, one_of, real, shown, whole
from snn_helpers.long.divergence import TrainingDiverged
from snn_helpers.long.examples import stored
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tasks import falling_rate
from snn_helpers.neurons import Neuron
from snn_helpers.plasticity import (
    Credit,
    gradient_window,
    input_credit,
    pair_weights,
    reset_slope,
    spike_trace,
    trace_credit,
)
from snn_helpers.statistics import decide, decide_alike, mean_and_interval, verdict

# --- The signs of a coincidence -------------------------------------------------------------------


def coincidence_shares(credit: Credit, decay: float, horizon: int, amounts: bool = False) -> Tensor:
    """Which signs make the gradient of spikes that came together; derived in chapter 09.

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
    horizon = whole("horizon", horizon, least=0)
    fired = (credit.outputs > 0).to(credit.signals.dtype)
    totals = torch.zeros(2, 2, 2, dtype=torch.float64, device="cpu")
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


def fired_together(shares: Tensor | Sequence[float]) -> Tensor:
    """Of the `coincidence_shares`, those whose input is above zero, as a spike is; derived in chapter 09.

    `shares` hold eight numbers. Returns `[2, 2]`, by the signs of minus the learning signal and of the path, which sum
    to 1; zeros if no input is above zero.
    """
    positive = torch.as_tensor(shares, dtype=torch.float64, device="cpu").reshape(2, 2, 2)[:, :, 0]
    return positive / positive.sum() if positive.sum() > 0 else positive


# --- Weight decay ---------------------------------------------------------------------------------


def pairing_with_decay(
    delays: Sequence[int],
    n_pairings: int = 60,
    learning_rate: float = 0.1,
    weight_decay: float = 0.4,
    weight: float = 0.5,
    paired: bool = True,
    decay: float = 0.9,
) -> Tensor:
    """What a pairing experiment finds in a synapse that learns by gradient descent with L2; derived in chapter 09.

    Each pairing is one step of SGD with the autograd derivative of one wanted spike, held in place, and with weight
    decay: `w <- w + learning_rate * (window(delay) - weight_decay * w)`.

    Parameters
    ----------
    delays : `t_post - t_pre` in steps, one or more.
    n_pairings, learning_rate, weight_decay, weight : of the experiment; `weight` is the first one, for each delay.
    paired : False leaves the neuron's spike out: the control synapse, which nothing pairs.
    decay : of the neuron.

    Returns a tensor `[len(delays)]` of dtype float64, on the CPU: the change of each weight after all pairings.
    Raises `TypeError` or `ValueError` for settings that do not fit.
    """
    n_pairings = whole("n_pairings", n_pairings)
    descent = gradient_window(delays, decay=decay) * flag("paired", paired)
    weights = torch.full_like(descent, real("weight", weight), requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=learning_rate, weight_decay=weight_decay)
    for _ in range(n_pairings):
        weights.grad = -descent  # the loss falls as the spike grows
        optimizer.step()
    return weights.detach() - weight


# --- The after-spike ------------------------------------------------------------------------------


def after_spike(
    outputs: Tensor, currents: Tensor, decay: float, strength: float | Tensor, detach: bool = False
) -> Tensor:
    """Let each spike be followed by a negative signal that late input provokes; derived in chapter 09.

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
    alike(outputs=floating("outputs", outputs), currents=floating("currents", currents))
    traces = spike_trace(outputs.detach() if detach else outputs, decay)
    before = torch.cat([torch.zeros_like(traces[:1]), traces[:-1]])  # a spike's own step comes too early for it
    return outputs - strength * before * torch.relu(currents)


class AfterSpikeLayer(SpikingLayer):
    """A `SpikingLayer` that hands out `after_spike` in place of its outputs; derived in chapter 09.

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

    settings = (*SpikingLayer.settings, "after_decay", "balance", "provoked", "detach")
    strength: Tensor

    def __init__(
        self,
        *args: Any,
        after_decay: float = 0.8,
        balance: float = 1.0,
        provoked: bool = True,
        detach: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.after_decay, self.balance, self.provoked, self.detach = after_decay, balance, provoked, detach
        self.after_decay, self.balance, self.provoked, self.detach = self.after
        self.register_buffer("strength", torch.zeros(self.n_neurons))

    @property
    def after(self) -> tuple[float, float, bool, bool]:
        """The settings of the after-spike, checked as they are now: decay, balance, provoked, detach."""
        decay, balance = real("after_decay", self.after_decay, least=0), real("balance", self.balance)
        if not decay < 1:
            raise ValueError(f"after_decay must lie between 0 and 1, 1 excluded, not {decay}")
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must lie between 0 (no after-spike) and 1 (integral zero), not {balance}")
        return decay, balance, flag("provoked", self.provoked), flag("detach", self.detach)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to (states, signals), each `[T, B, n_neurons]`, delayed by one step."""
        after_decay, _, provoked, detach = self.after
        currents = self.currents(inputs)
        states, spikes = self.run(currents)
        # Delayed as the spikes are: what arrived in the step in which they were fired.
        arrived = torch.cat([torch.zeros_like(currents[:1]), currents[:-1]])
        if not provoked:
            arrived = torch.ones_like(currents)
        taken = spikes - after_spike(spikes, arrived, after_decay, 1.0, detach)
        strength = self._balance(spikes.detach(), taken.detach()) if self.training else self.strength
        return states, spikes - strength * taken

    @torch.no_grad()
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
    """`SpikingNet` whose hidden layers hand out after-spikes; derived in chapter 09.

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
        *args: Any,
        after_decay: float = 0.8,
        balance: float = 1.0,
        provoked: bool = True,
        detach: bool = False,
        **settings: Any,
    ) -> None:
        self.after: dict[str, Any] = {
            "after_decay": after_decay,
            "balance": balance,
            "provoked": provoked,
            "detach": detach,
        }
        super().__init__(*args, **settings)

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """A layer with after-spikes; the last one, whose states are read, has none."""
        if is_last:
            return super().make_layer(n_inputs, n_neurons, neuron, generator, is_last)
        return AfterSpikeLayer(n_inputs, n_neurons, **vars(neuron), generator=generator, **self.after)


class AfterCredit(NamedTuple):
    """The factors of the first layer's gradient in a network with after-spikes: what `trace_after_credit` returns.

    `credit` is that layer's `Credit`; its signals take in what a spike does through its after-spike.
    `handed` `[T, B, n_neurons]` are the derivatives of the loss by what the layer hands out, and
    `late` those by the currents that provoke after-spikes, for a trace of one. Not delayed.
    """

    credit: Credit
    handed: Tensor
    late: Tensor


def after_spike_layers(net: SpikingNet) -> tuple[AfterSpikeLayer, *tuple[SpikingLayer, ...]]:
    """The layers of a network whose first one has after-spikes.

    Raises
    ------
    TypeError : for another network, of which `trace_after_credit` and `probe_after_spike` do not hold.
    """
    first, *others = _layers_of(net, AfterSpikeLayer, "an AfterSpikeNet")
    return (first, *others)


Layer = TypeVar("Layer", bound=SpikingLayer)


def _layers_of(net: SpikingNet, kind: type[Layer], wanted: str) -> tuple[Layer, *tuple[SpikingLayer, ...]]:
    """The layers of a network whose first one is of this kind, and whose others are plain or of this kind too."""
    told = f"this needs {wanted}, or another SpikingNet whose first layer is {_a(kind)}"
    if not isinstance(net, SpikingNet):
        raise TypeError(f"{told}; {type(net).__name__} is another kind of network")
    first = net.layers[0]
    if not isinstance(first, kind) or type(first) is not kind:
        raise TypeError(f"{told}; the first layer of this {type(net).__name__} is {_a(type(first))}")
    if any(
        getattr(getattr(net, way), "__func__", None) is not getattr(SpikingNet, way)
        for way in ("run", "read_out", "forward")
    ):
        raise TypeError(f"{told}; {type(net).__name__} runs or reads its layers in a way of its own")
    others: list[SpikingLayer] = []
    for place, layer in enumerate(net.layers[1:], start=2):
        if not isinstance(layer, SpikingLayer) or not (layer.is_plain or type(layer) is kind):
            raise TypeError(f"{told}; layer {place} is {_a(type(layer))}, which does more")
        others.append(layer)
    if any(isinstance(getattr(layer, name), Tensor) for layer in net.layers for name in SpikingLayer.settings):
        raise TypeError(f"{told}, whose neurons learn none of their settings")
    return (first, *others)


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def without_after_spikes(net: SpikingNet) -> SpikingNet:
    """A plain network with the weights and the neurons of one with after-spikes, which it shares."""
    layers = after_spike_layers(net)
    for place, layer in enumerate(layers, start=1):
        if not (type(layer) is AfterSpikeLayer or layer.is_plain):
            raise TypeError(f"layer {place} is a {type(layer).__name__}, which does more than a plain SpikingLayer")
    plain = SpikingNet(net.n_steps, net.begin_eval, (layers[0].n_inputs, *(layer.n_neurons for layer in layers)))
    for twin, layer in zip(plain.layers, layers):
        twin.linear = layer.linear
        for name, value in vars(layer.neuron).items():
            setattr(twin, name, value)
    return plain


@without_autocast
@with_gradients
def trace_after_credit(net: AfterSpikeNet, frames: Tensor, labels: Tensor) -> AfterCredit:
    """`trace_credit` for the first layer of a network with after-spikes, in evaluation; derived in chapter 09.

    Parameters and errors as in `trace_credit`; sets the network to evaluation.
    """
    first, *others = after_spike_layers(net)
    labels = shown(frames, labels, net.begin_eval, others[-1].n_neurons)
    net.eval()
    with torch.no_grad():
        currents = first.currents(frames)
        outputs, currents = first.run(currents)[1][1:], currents[:-1]
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
    """For each delay n from 1, what a unit input n steps after a spike earns through its after-spike; from chapter 09.

    The anti-causal counterpart of `pair_weights`: yields `n_delays` tensors `[T - n, B, n_neurons]`,
    whose entry s belongs to the spike at step s and the input at s + n.
    """
    for delay in range(1, min(n_delays, len(outputs) - 1) + 1):
        yield after_decay ** (delay - 1) * outputs[:-delay] * late[delay:]


# --- A negative derivative after a spike ----------------------------------------------------------


def steps_since_spike(outputs: Tensor) -> Tensor:
    """How many steps ago each neuron last fired, `[T, ...]`: 0 in the step of a spike, T or more before the first."""
    steps = torch.arange(len(outputs), device=outputs.device).reshape(-1, *(1,) * (outputs.dim() - 1))
    last = torch.where(outputs > 0, steps, -len(outputs)).cummax(dim=0).values
    return steps - last


def refractory(outputs: Tensor, n_refractory: int) -> Tensor:
    """Where a neuron is silent and fired at most `n_refractory` steps ago, true or false, `[T, ...]`."""
    since = steps_since_spike(outputs)
    return (since > 0) & (since <= n_refractory)


def with_pseudo_derivative(outputs: Tensor, charges: Tensor, slope: float, n_refractory: int) -> Tensor:
    """The same outputs, with a derivative by the charge of `-slope` while refractory; derived in chapter 09.

    A neuron that fired at most `n_refractory` steps ago, and is silent, has no derivative by its charge. Here autograd
    is told that it is `-slope`. This is no derivative of anything that the network computes. The idea is that of
    Traub, Butz, Baayen and Otte (2020, arXiv 2006.09988), for a neuron of theirs.

    `outputs`, `charges` : `[T, ...]`, of the same steps. Returns a tensor of that shape.
    Raises `TypeError` or `ValueError` for tensors that do not fit.
    """
    alike(outputs=floating("outputs", outputs), charges=floating("charges", charges))
    silent = refractory(outputs, n_refractory).to(charges.dtype)
    return outputs - slope * silent * (charges - charges.detach())


class PseudoLayer(SpikingLayer):
    """A `SpikingLayer` whose outputs have the derivative of `with_pseudo_derivative`; recorded for chapter 09.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`.
    pseudo_slope : 0 or more.
    n_refractory : in steps, 1 or more.

    Raises `TypeError` or `ValueError` for settings or inputs that do not fit.
    """

    settings = (*SpikingLayer.settings, "pseudo_slope", "n_refractory")

    def __init__(self, *args: Any, pseudo_slope: float = 0.3, n_refractory: int = 5, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.pseudo_slope, self.n_refractory = pseudo_slope, n_refractory
        self.pseudo_slope, self.n_refractory = self.pseudo

    @property
    def pseudo(self) -> tuple[float, int]:
        """The slope and the refractory steps, checked as they are now."""
        return real("pseudo_slope", self.pseudo_slope, least=0), whole("n_refractory", self.n_refractory)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to (states, outputs), each `[T, B, n_neurons]`, delayed by one step."""
        slope, n_refractory = self.pseudo
        currents = self.currents(inputs)
        states, outputs = self.run(currents)
        # A state is handed out one step late, so that it meets the current of the step that it goes into.
        charges = (currents + self.decay * states)[:-1]
        return states, torch.cat([outputs[:1], with_pseudo_derivative(outputs[1:], charges, slope, n_refractory)])


class PseudoNet(SpikingNet):
    """`SpikingNet` whose hidden layers are `PseudoLayer`s; recorded for chapter 09.

    `pseudo_slope`, `n_refractory` as in `PseudoLayer`; the rest, and errors, as in `SpikingNet`; the same generator
    gives the same weights.
    """

    def __init__(self, *args: Any, pseudo_slope: float = 0.3, n_refractory: int = 5, **settings: Any) -> None:
        self.pseudo: dict[str, Any] = {"pseudo_slope": pseudo_slope, "n_refractory": n_refractory}
        super().__init__(*args, **settings)

    def make_layer(
        self, n_inputs: int, n_neurons: int, neuron: Neuron, generator: torch.Generator | None, is_last: bool
    ) -> SpikingLayer:
        """A layer with the derivative of its own; the last one, whose states are read, has none."""
        if is_last:
            return super().make_layer(n_inputs, n_neurons, neuron, generator, is_last)
        return PseudoLayer(n_inputs, n_neurons, **vars(neuron), generator=generator, **self.pseudo)


@without_autocast
@with_gradients
def trace_pseudo_credit(net: PseudoNet, frames: Tensor, labels: Tensor) -> AfterCredit:
    """`trace_after_credit` for a `PseudoNet`; recorded for chapter 09.

    Here `late` `[T, B, n_neurons]` is what a unit input at a refractory step earns, from that step and the refractory
    ones after it; zero at other steps.
    """
    first, *others = _layers_of(net, PseudoLayer, "a PseudoNet")
    labels = shown(frames, labels, net.begin_eval, others[-1].n_neurons)
    slope, n_refractory = first.pseudo
    net.eval()
    with torch.no_grad():
        signals = first(frames)[1]
    outputs = signals[1:].detach()
    values = signals.requires_grad_()
    for layer in others:
        states, values = layer(values)
    log_probs = F.log_softmax(states[net.begin_eval :].mean(dim=0), dim=-1)
    handed = torch.autograd.grad(F.nll_loss(log_probs, labels), signals)[0][1:]
    silent = refractory(outputs, n_refractory).to(handed.dtype)
    # From the last step to the first, within one refractory time: no spike lies in between.
    late = input_credit(-slope * silent * handed, silent, first.decay) * silent
    slopes = reset_slope(outputs, first.threshold, first.penalty, first.reset)
    own = torch.zeros_like(handed)  # what a spike does to the refractory steps after it, through the state it leaves
    own[:-1] = first.decay * (slopes * (outputs > 0))[:-1] * late[1:]
    return AfterCredit(Credit(frames[:-1], outputs, slopes, (handed + own) * (outputs > 0)), handed, late)


def pseudo_late_weights(outputs: Tensor, late: Tensor, n_delays: int) -> Iterator[Tensor]:
    """`late_weights` for a `PseudoNet`: an input belongs to the last spike before it; recorded for chapter 09."""
    since = steps_since_spike(outputs)
    for delay in range(1, min(n_delays, len(outputs) - 1) + 1):
        yield (since[delay:] == delay) * late[delay:]


@with_gradients
def pseudo_window(
    delays: Sequence[int],
    slope: float = 0.3,
    n_refractory: int = 5,
    n_after: int = 60,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """The credit that one pulse gets from one spike with a negative derivative after it; derived in chapter 09.

    As `after_spike_window`: a clamp makes the neuron fire once, and what is differentiated, by autograd, is the sum
    of all that it hands out. `slope`, `n_refractory` as in `with_pseudo_derivative`.

    Returns a tensor `[len(delays)]` of dtype float64, on the CPU. Raises as `after_spike_window`.
    """
    delays, _ = delays_and_spikes(delays)
    neuron = Neuron(decay, threshold, penalty, reset)
    held, pulses = _clamped(delays, n_after, 2 * threshold)
    weights = torch.full((len(delays),), 0.1, dtype=torch.float64, device="cpu", requires_grad=True)
    signals = with_pseudo_derivative(*_through_clamp(neuron, held, weights * pulses), slope, n_refractory)
    (credit,) = torch.autograd.grad(signals.sum(), weights)
    return credit


def pseudo_law(
    delays: Sequence[int],
    slope: float = 0.3,
    n_refractory: int = 5,
    n_after: int = 60,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> Tensor:
    """What `pseudo_window` must find, in closed form; derived in chapter 09.

    n steps after the spike, `-slope * (1 + decay + ... + decay ** (n_refractory - n))`, and 0 later than
    `n_refractory`. d steps before it, `decay ** d` times `1 - slope * (slope of the reset) * (decay + decay ** 2 + ...
    + decay ** n_refractory)`.
    """
    delays, _ = delays_and_spikes(delays)
    at_spike = Neuron(decay, threshold, penalty, reset).slope_at_spike
    last = min(n_refractory, n_after)
    early = 1 - slope * at_spike * sum(decay**n for n in range(1, last + 1))
    return torch.tensor(
        [decay**d * early if d >= 0 else -slope * sum(decay**n for n in range(last + d + 1)) for d in delays],
        dtype=torch.float64,
        device="cpu",
    )


def _clamped(delays: Sequence[int], n_after: int, at_spike: float) -> tuple[Tensor, Tensor]:
    """The voltages of the clamp `[T]`, and a pulse for each delay `[T, len(delays)]`."""
    if min(delays) < -n_after:
        raise ValueError(f"delays reach {min(delays)}, beyond the last step, {n_after} after the spike: raise n_after")
    t_post = max(0, *delays)
    held = torch.zeros(t_post + n_after + 1, dtype=torch.float64, device="cpu")
    held[t_post] = at_spike
    pulses = torch.zeros(len(held), len(delays), dtype=torch.float64, device="cpu")
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    return held, pulses


def _through_clamp(neuron: Neuron, held: Tensor, currents: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs and the charges `[T, n]` of neurons whose charge a clamp holds, whatever the currents bring."""
    state, outputs, charges = torch.zeros_like(currents[0]), [], []
    for voltage, current in zip(held, currents):
        clamp = voltage - neuron.decay * state.detach() - current.detach()
        charges.append(clamp + current + neuron.decay * state)
        output, state = neuron.step(clamp + current, state)
        outputs.append(output)
    return torch.stack(outputs), torch.stack(charges)


# --- The window of an after-spike -----------------------------------------------------------------


@with_gradients
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
    """The gradient that one pulse gets from one spike and its after-spike, by autograd; derived in chapter 09.

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
    delays, _ = delays_and_spikes(delays)
    neuron = Neuron(decay, threshold, penalty, reset)
    if not amplitude > 0:
        raise ValueError(f"amplitude must be above 0, the height of a spike, not {amplitude}")
    held, pulses = _clamped(delays, n_after, threshold + amplitude)
    weights = torch.full((len(delays),), 0.1, dtype=torch.float64, device="cpu", requires_grad=True)
    currents = late_current + weights * pulses
    signals = after_spike(_through_clamp(neuron, held, currents)[0], currents, after_decay, strength, detach)
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
    """What `after_spike_window` must find, in closed form; derived in chapter 09.

    After the spike, `-strength * amplitude * after_decay ** (|delay| - 1)` where the late current is
    excitatory in all. Before it, or in its step, `decay ** delay`, times what is left of a spike
    whose after-spike grows with it: `1 - strength * late_current * (1 + after_decay + ...)`.
    Threshold, penalty and reset do not enter.
    """
    delays, _ = delays_and_spikes(delays)
    taken = strength * max(0.0, late_current) * sum(after_decay**step for step in range(n_after))
    causal = 1.0 if detach else 1.0 - taken
    depression = -strength * amplitude * (late_current + 0.1 > 0)
    return torch.tensor(
        [causal * decay**d if d >= 0 else depression * after_decay ** (-d - 1) for d in delays],
        dtype=torch.float64,
        device="cpu",
    )


# --- Its trials -----------------------------------------------------------------------------------


# What each network has for an after-spike, and how its weights decay.
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"balance": 0.0},
    "L2": {"balance": 0.0, "weight_decay": 0.01},
    "fixed": {"provoked": False},
    "provoked": {},
    "provoked, detached": {"detach": True},
    "pseudo": {"pseudo_slope": 0.3, "n_refractory": 5},
}


def make_network(
    variant: str, n_steps: int, generator: torch.Generator, sizes: Sequence[int] = (784, 100, 10), **neuron: Any
) -> tuple[AfterSpikeNet | PseudoNet, float]:
    """The network of one of `VARIANTS`, and its weight decay; recorded for chapter 09.

    `neuron`: settings of its neurons. The weights are those of a `SpikingNet` with this generator.
    """
    settings = dict(VARIANTS[one_of("variant", variant, tuple(VARIANTS))])
    weight_decay = settings.pop("weight_decay", 0.0)
    kind = PseudoNet if variant == "pseudo" else AfterSpikeNet
    return kind(n_steps, sizes=sizes, generator=generator, **neuron, **settings), weight_decay


def after_spike_trial(
    variant: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    n_steps: int = 32,
    batch_size: int = 1000,
    learning_rates: Sequence[float] = (0.1, 0.05, 0.01),
    n_probe: int = 500,
    n_delays: int = 12,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train 784-100-10 on digits with one of `VARIANTS` of the after-spike, and measure it; used in chapter 09.

    Returns the variant and the seed, `test_accuracy`, `test_loss`, `by_epoch`, the test accuracy after each epoch,
    `seconds` of training, and, `before` and `after` it, what `probe_after_spike` finds on the first `n_probe` test
    images.
    """
    device = pick_device(device)
    net, weight_decay = make_network(variant, n_steps, seeded(seed))
    net = net.to(device)
    images, labels = (part[:n_probe].to(device) for part in stored(test))
    frames = flicker(images.flatten(1), n_steps, seeded(seed))
    net.train()
    with torch.no_grad():
        net.layers[0](frames)  # a first batch, from which the strengths of the after-spikes come
    before = probe_after_spike(net, frames, labels, n_delays)
    history = fit(
        net,
        train,
        seed=seed,
        device=device,
        test_dataset=test,
        learning_rates=learning_rates,
        batch_size=batch_size,
        weight_decay=weight_decay,
        progress=False,
    )
    on_test = evaluate(net, test, seed=seed)
    return {
        "variant": variant,
        "seed": seed,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "by_epoch": [result.accuracy for result in history.test],
        "seconds": round(history.seconds, 2),
        "before": before,
        "after": probe_after_spike(net, frames, labels, n_delays),
    }


LENGTHS = (1000, 2000, 6000, 20_000, 50_000)
RATES = (0.01, 0.03, 0.1, 0.3)
TUNED = ("none", "provoked", "pseudo")


def learning_curve_trial(
    variant: str,
    seed: int,
    learning_rate: float,
    train: TensorDataset,
    held_out: TensorDataset,
    test: TensorDataset,
    *,
    lengths: Sequence[int] = LENGTHS,
    n_steps: int = 32,
    batch_size: int = 100,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """How far one of `VARIANTS` has come after so many digits, each seen once; recorded for chapter 09.

    SGD with momentum 0.5, and one learning rate throughout. Returns `lengths`, and for each of them the accuracy on
    `held_out`, by which a rate may be chosen, and on `test`, by which it may not; 0 from where training diverged.
    """
    net, weight_decay = make_network(variant, n_steps, seeded(seed))
    held, tested = [], []
    for start, stop in zip((0, *lengths), lengths):
        try:
            fit(
                net,
                examples(train, start, stop),
                seed=seed,
                device=device,
                learning_rates=(learning_rate,),
                batch_size=batch_size,
                weight_decay=weight_decay,
                progress=False,
            )
        except TrainingDiverged:
            break
        held.append(evaluate(net, held_out, seed=seed).accuracy)
        tested.append(evaluate(net, test, seed=seed).accuracy)
    missing = [0.0] * (len(lengths) - len(held))
    return {"lengths": list(lengths), "held_out": held + missing, "test": tested + missing}


@without_autocast
def probe_after_spike(net: AfterSpikeNet | PseudoNet, frames: Tensor, labels: Tensor, n_delays: int) -> dict[str, Any]:
    """What makes the first layer's gradient on these examples; recorded for chapter 09.

    `frames` `[T, B, n_inputs]` and `labels` `[B]` are what the network is shown. Returns

    - `rate`: the share of steps in which a neuron of the first layer fires;
    - `integral`: the sum of all that the layer hands out, for a sum of 1 of its spikes alone;
    - `counts`, `amounts`: the eight `coincidence_shares` within tau, flattened; for a network without
      after-spikes only, and `output_counts`, `output_amounts` for its last layer;
    - `window`: see `two_sided_window`.
    """
    first: SpikingLayer
    if isinstance(net, PseudoNet):
        first, *_ = _layers_of(net, PseudoLayer, "a PseudoNet")
        found = trace_pseudo_credit(net, frames, labels)
        pairs = pseudo_late_weights(found.credit.outputs, found.late, n_delays)
    else:
        first, *_ = after_spike_layers(net)
        found = trace_after_credit(net, frames, labels)
        pairs = late_weights(found.credit.outputs, found.late, first.after_decay, n_delays)
    with torch.no_grad():
        given = found.credit.outputs.sum()
        row: dict[str, Any] = {
            "rate": (found.credit.outputs > 0).float().mean().item(),
            "integral": (first(frames)[1].sum() / given).item() if given > 0 else 1.0,
        }
        if isinstance(first, AfterSpikeLayer) and not first.strength.any():
            plain = without_after_spikes(net)
            layers = plain_layers(plain, "probe")
            for name, layer, credit in zip(("", "output_"), layers, trace_credit(plain, frames, labels)):
                for kind, amounts in (("counts", False), ("amounts", True)):
                    shares = coincidence_shares(credit, layer.decay, _tau(layer.decay), amounts)
                    row[name + kind] = significant(shares.flatten().tolist(), 4)
        row["window"] = two_sided_window(found, first.decay, pairs, n_delays)
    return row


def two_sided_window(
    found: AfterCredit, decay: float, late_pairs: Iterable[Tensor], n_delays: int
) -> dict[str, list[float]]:
    """What a positive input gets from a spike at a delay from it, on both sides; derived in chapter 09.

    `late_pairs` are the `late_weights`, or `pseudo_late_weights`, of the same layer, for `n_delays`.

    The mean descent direction of a pair, per unit of input, and per mean size of the learning
    signal at a spike. `wanted`: the loss would fall if the spike were larger; `unwanted`: it
    would rise; `all`: both. Each for the delays `t_post - t_pre` from `-n_delays` to `n_delays`.
    `late_weakened`: of the late pairs that change the weight at all, the share that weakens it, in
    the same three cases.
    """
    credit, handed, _ = found
    fired = credit.outputs > 0
    arriving = credit.inputs.relu().sum(dim=2, keepdim=True)  # [T, B, 1]
    size = handed[fired].abs().mean().clamp(min=1e-30)
    causal = list(pair_weights(credit.signals, credit.slopes, decay, n_delays + 1))
    after = list(late_pairs)
    curves: dict[str, list[float]] = {"late_weakened": []}
    for name, kind in (("wanted", handed < 0), ("unwanted", handed > 0), ("all", torch.ones_like(fired))):
        spikes = (fired & kind).to(handed.dtype)
        # The weight of each pair, and its input; the latest input first, then the earlier ones.
        late_half = [(w, spikes[: len(w)] * arriving[-len(w) :]) for w in reversed(after)]
        pairs = late_half + [(w, spikes[-len(w) :] * arriving[: len(w)]) for w in causal]
        changes = [-((w * met).sum() / met.sum().clamp(min=1e-30) / size).item() for w, met in pairs]
        curves[name] = significant(changes, 4)
        weakened = sum((met * (w > 0)).sum().item() for w, met in late_half)
        changed = sum((met * (w != 0)).sum().item() for w, met in late_half)
        curves["late_weakened"].append(weakened / changed if changed else 0.0)
    return curves


def _tau(decay: float) -> int:
    """The whole steps within the time constant, in which a trace falls to 1/e."""
    return int(-1 / torch.tensor(decay, dtype=torch.float64, device="cpu").log().item())


# --- Do presynaptic spikes come earlier? ----------------------------------------------------------


def late_pair(
    drive: Tensor,
    strength: float,
    *,
    t_post: int = 12,
    n_steps: int = 24,
    synapse: float = 0.5,
    after_decay: float = 0.8,
) -> tuple[Tensor, Tensor]:
    """Two neurons of chapter 01, the second one with after-spikes: what both do; derived in chapter 09.

    The first neuron gets the same current `drive` at every step, and fires when that has charged it. The second reads
    its spikes through a `synapse`, in the same step; at `t_post` a current of 1.5 of its own makes it fire. What the
    synapse brings provokes its after-spikes, as in `after_spike`.

    `drive` : a tensor, without dimensions for one pair of neurons, `[n]` for as many pairs. Returns the first neuron's
    outputs and the second's signals, both `[n_steps, ...]`.
    """
    neuron, pre_state, post_state = Neuron(), torch.zeros_like(drive), torch.zeros_like(drive)
    pre, post, arrived = [], [], []
    for t in range(n_steps):
        output, pre_state = neuron.step(drive, pre_state)
        arrived.append(synapse * output)
        answer, post_state = neuron.step(arrived[-1] + 1.5 * (t == t_post), post_state)
        pre.append(output)
        post.append(answer)
    return torch.stack(pre), after_spike(torch.stack(post), torch.stack(arrived), after_decay, strength)


@with_gradients
def follow_late_neurons(
    drives: Sequence[float], strength: float, n_updates: int = 120, learning_rate: float = 0.0005, **settings: Any
) -> list[list[int | None]]:
    """Where gradient descent moves presynaptic spikes to, if the signals of `late_pair` are wanted; from chapter 09.

    Each of the `drives` is that of a pair of its own, and learns by autograd's derivative of the sum of the pair's
    signals, spikes held in place. Returns for each the step of the first presynaptic spike before each update and after
    the last one; None where the neuron does not fire.
    """
    learned = torch.tensor(drives, dtype=torch.float64, device="cpu", requires_grad=True)
    found = []
    for _ in range(n_updates + 1):
        pre, signals = late_pair(learned, strength, **settings)
        fired = pre > 0
        first = zip(fired.any(dim=0), fired.int().argmax(dim=0))
        found.append([int(step) if fires else None for fires, step in first])
        (rise,) = torch.autograd.grad(signals.sum(), learned)
        learned = (learned + learning_rate * rise).detach().requires_grad_()
    return [list(of_one) for of_one in zip(*found)]


def lag_counts(pre: Tensor, post: Tensor, reach: int, weights: Tensor | None = None) -> Tensor:
    """How many pairs of spikes there are at each lag `t_post - t_pre`; derived in chapter 09.

    Parameters
    ----------
    pre, post : `[T, B, n_pre]` and `[T, B, n_post]`, not zero where a neuron fired, in the steps in which the
        postsynaptic neuron reads the one and fires the other.
    reach : the largest lag, in steps, below T.
    weights : `[n_post, n_pre]`, what a pair counts; 1 for each if None.

    Returns a float64 tensor `[2 * reach + 1]`, on the CPU, for the lags from `-reach` to `reach`.
    Raises `ValueError` for trains that do not fit.
    """
    reach = whole("reach", reach, least=0, most=len(pre) - 1)
    if pre.dim() != 3 or post.dim() != 3 or pre.shape[:2] != post.shape[:2]:
        raise ValueError(
            f"pre and post must have the shapes [T, B, n_pre] and [T, B, n_post] with the same T and B, not"
            f" {list(pre.shape)} and {list(post.shape)}"
        )
    fired, answered = ((train != 0).to(torch.float64) for train in (pre, post))
    arriving = fired.sum(dim=2, keepdim=True) if weights is None else fired @ weights.to(fired).T
    counts = []
    for lag in range(-reach, reach + 1):
        early = arriving[max(0, -lag) : len(pre) - max(0, lag)]
        late = answered[max(0, lag) : len(pre) - max(0, -lag)]
        counts.append((early * late).sum().item())
    return torch.tensor(counts, dtype=torch.float64, device="cpu")


def share_before(counts: Tensor) -> float:
    """Of the pairs of `lag_counts` that are not in one step, the share whose presynaptic spike comes first."""
    middle = len(counts) // 2
    before, after = counts[middle + 1 :].sum().item(), counts[:middle].sum().item()
    return before / (before + after) if before + after > 0 else 0.5


def one_step_ahead(
    pre: Tensor,
    post: Tensor,
    reach: int,
    generator: torch.Generator,
    weights: Tensor | None = None,
    n_shuffles: int = 10,
) -> float:
    """What `share_before` gains beyond chance if all presynaptic spikes move a step ahead; derived in chapter 09.

    It gains in trains that have nothing to do with one another, too: pairs that the ends of the run cut off were not
    counted on the one side, and are now. So the mean gain next to postsynaptic trains that are shuffled in time is
    taken away. Parameters and errors as in `lag_counts`.
    """
    ahead = torch.cat([pre[1:], torch.zeros_like(pre[:1])])

    def gain(answers: Tensor) -> float:
        moved, unmoved = (share_before(lag_counts(train, answers, reach, weights)) for train in (ahead, pre))
        return moved - unmoved

    by_chance = [gain(shuffled_in_time(post, generator)) for _ in range(n_shuffles)]
    return gain(post) - sum(by_chance) / n_shuffles


def first_spike(spikes: Tensor) -> float:
    """The mean step of a neuron's first spike in an example, of the neurons that fire in it; 0 if none does."""
    fired = spikes != 0
    first = fired.to(torch.float64).argmax(dim=0)[fired.any(dim=0)]
    return first.to(torch.float64).mean().item() if len(first) else 0.0


def shuffled_in_time(spikes: Tensor, generator: torch.Generator) -> Tensor:
    """The same spikes `[T, B, n]` with the steps of each example in an order of its own."""
    order = torch.rand(spikes.shape[:2], generator=generator, device="cpu").argsort(dim=0).to(spikes.device)
    return spikes.gather(0, order[:, :, None].expand_as(spikes))


@torch.no_grad()
def lags(
    net: SpikingNet, frames: Tensor, reach: int, generator: torch.Generator, n_shuffles: int = 10
) -> dict[str, Any]:
    """When the spikes of the last hidden layer's presynaptic layer come, next to its own; recorded for chapter 09.

    In evaluation. Returns `share` (see `share_before`) of all pairs within `reach`, and `weighed`, each pair with its
    weight where that is above zero; `share_null` and `weighed_null`, their means where the postsynaptic layer's steps
    are shuffled, in each example by itself; `share_advanced`, what `share` is if each presynaptic spike is moved one
    step towards the beginning; `lag`, the mean lag of the pairs, in steps; `first_pre` and `first_post`, the mean step
    of a neuron's first spike, of those that fire; `first_pre_null` and `first_post_null`, the same with the steps
    shuffled, for a neuron that fires more often fires sooner; `rate_pre` and `rate_post`.
    """
    net.eval()
    *below, upper, _ = [layer for layer in net.layers if isinstance(layer, SpikingLayer)]
    spikes = frames
    for layer in below:
        spikes = layer(spikes)[1]
    pre, post = spikes[:-1], SpikingLayer.forward(upper, spikes)[1][1:]
    weights = upper.linear.weight.clamp(min=0)
    counts = lag_counts(pre, post, reach)
    row: dict[str, Any] = {
        "share": share_before(counts),
        "weighed": share_before(lag_counts(pre, post, reach, weights)),
    }
    nulls: list[list[float]] = []
    for _ in range(n_shuffles):
        moved_pre, moved = (shuffled_in_time(train, generator) for train in (pre, post))
        null = lag_counts(pre, moved, reach)
        null_weighed = lag_counts(pre, moved, reach, weights)
        nulls.append([share_before(null), share_before(null_weighed), first_spike(moved_pre), first_spike(moved)])
    means = [sum(column) / n_shuffles for column in zip(*nulls)]
    row |= dict(zip(("share_null", "weighed_null", "first_pre_null", "first_post_null"), means))
    advanced = torch.cat([pre[1:], torch.zeros_like(pre[:1])])
    row["share_advanced"] = share_before(lag_counts(advanced, post, reach))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64, device="cpu")
    row["lag"] = ((steps * counts).sum() / counts.sum().clamp(min=1)).item()
    for name, train in (("pre", pre), ("post", post)):
        row[f"first_{name}"] = first_spike(train)
        row[f"rate_{name}"] = (train != 0).to(torch.float64).mean().item()
    rounded: dict[str, Any] = significant(row, 5)
    return rounded


def timed_patterns(
    n_steps: int, generator: torch.Generator, n_inputs: int = 200, n_pulses: int = 3
) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    """Ten patterns that differ in time alone: each input fires `n_pulses` times in each, at times of its own.

    Returns `draw(n, generator)`, which gives frames `[T, n, n_inputs]` of zeros and ones, each pulse moved by at most
    one step, and labels `[n]`.
    """
    n_slots = (n_steps - 1) // 3  # three steps to a pulse, so that moved ones cannot meet
    if n_slots < n_pulses:
        raise ValueError(f"n_steps must be at least {3 * n_pulses + 1} for {n_pulses} pulses, not {n_steps}")
    drawn = torch.rand(10, n_inputs, n_slots, generator=generator, device="cpu").argsort(dim=-1)
    times = 3 * drawn[:, :, :n_pulses] + 1

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (n,), generator=generator, device="cpu")
        moved = times[labels] + torch.randint(-1, 2, (n, n_inputs, n_pulses), generator=generator, device="cpu")
        frames = torch.zeros(n, n_inputs, n_steps, device="cpu").scatter_(2, moved, 1.0)
        return frames.permute(2, 0, 1).contiguous(), labels

    return draw


def timing_trial(
    variant: str,
    task: str,
    seed: int,
    train: TensorDataset | None = None,
    *,
    n_steps: int = 48,
    n_hidden: int = 50,
    n_updates: int = 600,
    batch_size: int = 100,
    learning_rate: float = 0.1,
    threshold: float = 0.3,
    reach: int = 5,
    n_probe: int = 1000,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train two hidden layers, the upper one with after-spikes, and see whether the lower one's spikes move.

    The article wants neurons that are late to fire before their postsynaptic target instead. The target is then the
    neuron with the after-spike, and the late neuron one whose spikes can move: so the after-spikes are in the upper of
    two hidden layers, and the lower one has none. The task is `"digits"`, which flicker, or `"patterns"`, told apart
    by time alone. Recorded for chapter 09.

    Returns `accuracy` on the `n_probe` examples of the probe, and the `lags` on them `before` and `after` training.
    """
    device, generator = pick_device(device), seeded(seed)
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    if one_of("task", task, ("digits", "patterns")) == "patterns":
        draw, n_inputs = timed_patterns(n_steps, generator), 200
    else:
        if train is None:
            raise ValueError("the task 'digits' needs train, a set of digits")
        images, labels = stored(train)
        n_inputs = images[0].numel()

        def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(labels), (n,), generator=generator, device="cpu")
            return flicker(images[chosen].flatten(1), n_steps, generator), labels[chosen]

    neuron = {"threshold": threshold, "penalty": 1.5 * threshold}
    net, weight_decay = make_network(variant, n_steps, generator, (n_inputs, n_hidden, n_hidden, 10), **neuron)
    lower = net.layers[0]
    if isinstance(lower, PseudoLayer):
        lower.pseudo_slope = 0.0
    elif isinstance(lower, AfterSpikeLayer):
        lower.balance = 0.0
    net = net.to(device)
    frames, right = (part.to(device) for part in draw(n_probe, generator))
    net.train()
    with torch.no_grad():
        net.run(frames)  # a first batch, from which the strengths of the after-spikes come
    before = lags(net, frames, reach, seeded(seed))
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate, momentum=0.5, weight_decay=weight_decay)
    net.train()
    for update in range(n_updates):
        optimizer.param_groups[0]["lr"] = falling_rate(learning_rate, update, n_updates)
        shown_frames, shown_labels = (part.to(device) for part in draw(batch_size, generator))
        optimizer.zero_grad()
        F.cross_entropy(net.read_out(net.run(shown_frames)), shown_labels).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        accuracy = (net.read_out(net.run(frames)).argmax(dim=1) == right).float().mean().item()
    return {"accuracy": accuracy, "before": before, "after": lags(net, frames, reach, seeded(seed))}


# --- What the records say -------------------------------------------------------------------------

Rows = Sequence[Mapping[str, Any]]


class Finding(NamedTuple):
    """A verdict, as `snn_helpers.statistics.verdict` gives it, with the decision under each of its conditions and the
    figures that decided, one for each seed.
    """

    verdict: str
    decisions: dict[str, str]
    figures: dict[str, list[float]]


class Comparison(NamedTuple):
    """A paired difference over seeds: its mean, the half-width of its 95 % interval, its p-value after Holm's
    correction for the number of comparisons, and what this says: "better", "worse" or "not told apart".
    """

    mean: float
    half: float
    p: float
    told: str


def by_seed(rows: Rows, pick: Callable[[Mapping[str, Any]], float], **settings: Any) -> list[float]:
    """`pick(row)` of the rows with these settings, in the order of the seeds; derived in chapter 09."""
    chosen = [row for row in rows if all(row["settings"].get(name) == value for name, value in settings.items())]
    return [pick(row) for row in sorted(chosen, key=lambda row: int(row["settings"]["seed"]))]


def compare(accuracy: Mapping[str, Sequence[float]], against: str = "none") -> dict[str, Comparison]:
    """Each of the others against one, seed by seed, corrected for how many they are; derived in chapter 09.

    A paired t-test for each. Holm's correction multiplies the smallest p-value by the number of comparisons, the next
    one by one less, and so on, and lets none be smaller than one before it. Below 0.05 a difference is told apart.
    """
    from scipy.stats import ttest_rel

    others = [name for name in accuracy if name != against]
    raw = {name: float(ttest_rel(accuracy[name], accuracy[against]).pvalue) for name in others}
    # No spread over the seeds: there is no difference, or one that is the same for all.
    same = {name: all(a == b for a, b in zip(accuracy[name], accuracy[against])) for name in others}
    raw = {name: (1.0 if same[name] else 0.0) if math.isnan(p) else p for name, p in raw.items()}
    adjusted: dict[str, float] = {}
    for rank, name in enumerate(sorted(others, key=lambda name: raw[name])):
        adjusted[name] = min(1.0, max([raw[name] * (len(others) - rank), *adjusted.values()]))
    found = {}
    for name in others:
        mean, half = mean_and_interval([a - b for a, b in zip(accuracy[name], accuracy[against], strict=True)])
        told = "not told apart" if adjusted[name] >= 0.05 else "better" if mean > 0 else "worse"
        found[name] = Comparison(mean, half, adjusted[name], told)
    return found


def at_best_rate(curves: Rows, variant: str, length: int) -> tuple[float, list[float]]:
    """The learning rate with the best mean on held-out images, and the test accuracies with it; derived in chapter 09.

    For one variant, after so many digits; an accuracy for each seed.
    """
    place = curves[0]["lengths"].index(length)
    rates = sorted({row["settings"]["learning_rate"] for row in curves if row["settings"]["variant"] == variant})

    def mean(rate: float) -> float:
        held = by_seed(curves, lambda row: row["held_out"][place], variant=variant, learning_rate=rate)
        return sum(held) / len(held)

    best = max(rates, key=mean)
    return best, by_seed(curves, lambda row: row["test"][place], variant=variant, learning_rate=best)


KINDS = ("wanted", "unwanted", "all")
# What a verdict asks for, stated before the records were made. (`find_earlier` asks for no margin.)
SHARE_THAT_COUNTS = 0.01  # of the coincidences
MORE_THAN_A_COIN = 0.1  # of the late pairs, above a half
INTEGRAL_NEAR_ZERO = 0.1  # of the spikes alone
POTENTIATION_LEFT = 0.5  # of that without after-spikes


def weakened_share(shares: Sequence[float]) -> float:
    """Of the coincidences whose input is above zero: the share that weakens the synapse; derived in chapter 09."""
    signs = fired_together(shares)
    return float(signs[0, 1] + signs[1, 0])


def find_weakened(rows: Rows) -> Finding:
    """ "The gradient can be negative although both neurons fired together"; recorded for chapter 09."""
    figures = {
        name: by_seed(rows, lambda row, layer=layer: weakened_share(row["after"][layer]), variant="none")  # type: ignore[misc]
        for name, layer in (("hidden layer", "counts"), ("last layer", "output_counts"))
    }
    decisions = {name: decide(shares, margin=SHARE_THAT_COUNTS) for name, shares in figures.items()}
    return Finding(verdict(decisions), decisions, figures)


def find_decay(changes: Sequence[float], alone: float) -> Finding:
    """ "Weight decay penalises a neuron for firing too late"; recorded for chapter 09.

    `changes` are those of `pairing_with_decay` at late delays, and `alone` that of a synapse with no spike to pair: it
    is the control. Weight decay weakens whatever there is, so that less than the control loses would show nothing.
    """
    more = max(changes) < alone - 1e-9 * abs(alone)
    decisions = {"more than an input that meets no spike": "holds" if more else "fails"}
    return Finding(verdict(decisions), decisions, {"late": list(changes), "alone": [alone]})


def find_late(rows: Rows, variant: str) -> Finding:
    """ "Late input is penalised", in the trained network, by the sign of its spike; recorded for chapter 09."""
    figures = {
        f"{kind} spikes": by_seed(
            rows,
            lambda row, place=place: row["after"]["window"]["late_weakened"][place],  # type: ignore[misc]
            variant=variant,
        )
        for place, kind in enumerate(KINDS)
    }
    # More often weakened than strengthened: a coin would give a half.
    decisions = {name: decide(shares, null=0.5, margin=MORE_THAN_A_COIN) for name, shares in figures.items()}
    return Finding(verdict(decisions), decisions, figures)


def find_integral(rows: Rows, variant: str = "provoked") -> Finding:
    """ "The integral of spike and after-spike may be about zero, and the spike is still learned from"; for chapter 09.

    The strength of an after-spike is set for that integral. Where it is not near zero, nothing is decided.
    """

    def early(row: Mapping[str, Any]) -> float:
        curve = row["after"]["window"]["wanted"]
        return float(curve[len(curve) // 2])

    without = by_seed(rows, early, variant="none")
    left = [mine / other for mine, other in zip(by_seed(rows, early, variant=variant), without, strict=True)]
    integral = by_seed(rows, lambda row: row["after"]["integral"], variant=variant)
    near = decide_alike(integral, INTEGRAL_NEAR_ZERO) == "holds"
    decisions = {"most of the potentiation is left": decide(left, margin=POTENTIATION_LEFT) if near else "open"}
    return Finding(verdict(decisions), decisions, {"integral": integral, "potentiation left": left})


def gain_before(row: Mapping[str, Any], name: str = "weighed") -> float:
    """By how much training raised the share of pairs whose presynaptic spike comes first; derived in chapter 09.

    After training less before, each less that of shuffled spikes. `"weighed"` counts each pair with its weight, where
    that is above zero; `"share"` counts all alike.
    """
    before, after = row["before"], row["after"]
    return float((after[name] - after[f"{name}_null"]) - (before[name] - before[f"{name}_null"]))


def find_earlier(timing: Rows, variant: str = "provoked") -> Finding:
    """ "Late neurons fire before their postsynaptic target instead", against `none`; recorded for chapter 09.

    The figures are shares: how much more `gain_before` is than without after-spikes.
    """
    figures = {}
    for task in ("digits", "patterns"):
        mine, others = (by_seed(timing, gain_before, variant=name, task=task) for name in (variant, "none"))
        figures[task] = [a - b for a, b in zip(mine, others, strict=True)]
    decisions = {task: decide(gains) for task, gains in figures.items()}
    return Finding(verdict(decisions), decisions, figures)


LATE = (-1, -3, -10, -30)  # delays, in steps


def findings(rows: Rows, timing: Rows) -> dict[str, Finding]:
    """The verdicts of chapter 09, from the trials of "09_after_spike" and "09_timing"; derived there.

    Keys: `"weakened"`, `"weight decay"`, `"provoked"`, `"pseudo"`, `"integral"`, `"earlier"`.
    """
    return {
        "weakened": find_weakened(rows),
        "weight decay": find_decay(
            pairing_with_decay(LATE).tolist(), pairing_with_decay(LATE[:1], paired=False).item()
        ),
        "provoked": find_late(rows, "provoked"),
        "pseudo": find_late(rows, "pseudo"),
        "integral": find_integral(rows),
        "earlier": find_earlier(timing),
    }


# --- The records ----------------------------------------------------------------------------------


def measure_after_spike(**settings: Any) -> dict[str, Any]:
    """As `after_spike_trial`, on the whole of MNIST."""
    train, test = whole_mnist()
    return after_spike_trial(train=train, test=test, **settings)


def measure_learning_curve(**settings: Any) -> dict[str, Any]:
    """As `learning_curve_trial`, on the whole of MNIST; half of the last 10,000 training images are held out."""
    train, test = whole_mnist()
    return learning_curve_trial(train=train, held_out=examples(train, 50_000, 55_000), test=test, **settings)


def measure_timing(**settings: Any) -> dict[str, Any]:
    """As `timing_trial`, its digits those of the whole of MNIST."""
    return timing_trial(train=whole_mnist()[0] if settings["task"] == "digits" else None, **settings)


# How these differ from the rule of the page `how_we_compare`, which lists them.
TUNED_OTHERWISE = {
    ("09_learning_curves",): "after-spikes: the best of four rates, each about three times the one before, for each"
    " length of training; at the shortest the best is the last one, and the chapter says where"
}

RECORDS: dict[str, Record] = {
    "09_after_spike": Record(
        "The article's schedule on the whole of MNIST with 32 steps, batch 1000, three epochs, for each kind of"
        " after-spike; its gradient probed on 500 test images before and after",
        measure_after_spike,
        [{"variant": variant, "seed": seed} for seed in range(5) for variant in VARIANTS],
    ),
    "09_learning_curves": Record(
        "784-100-10 with 32 steps on up to 50,000 digits, each seen once, batch 100, at four learning rates; accuracy"
        " on 5,000 held-out training images, by which a rate is chosen, and on the test images",
        measure_learning_curve,
        [
            {"variant": variant, "seed": seed, "learning_rate": rate}
            for seed in range(5)
            for variant in TUNED
            for rate in RATES
        ],
    ),
    "09_timing": Record(
        "Two hidden layers of 50, the upper one with after-spikes, on digits and on ten patterns told apart by time"
        " alone, 48 steps, 600 updates of 100 examples; the lags between the two layers' spikes before and after",
        measure_timing,
        [
            {"variant": variant, "task": task, "seed": seed}
            for seed in range(5)
            for task in ("digits", "patterns")
            for variant in TUNED
        ],
    ),
}
