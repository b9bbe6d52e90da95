"""The article's two mysteries, and the after-spike that answers them; derived in chapter 09."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, SpikingNet, evaluate, fit, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import with_gradients, without_autocast
from snn_helpers.long.checks import alike, delays_and_spikes, flag, floating, real, shown, whole
from snn_helpers.long.examples import stored
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.neurons import Neuron
from snn_helpers.plasticity import (
    Credit,
    input_credit,
    pair_weights,
    reset_slope,
    spike_trace,
    trace_credit,
)

# --- The after-spike ------------------------------------------------------------------------------


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
    told = "this needs an AfterSpikeNet, or another SpikingNet whose first layer is an AfterSpikeLayer"
    if not isinstance(net, SpikingNet):
        raise TypeError(f"{told}; {type(net).__name__} is another kind of network")
    if type(net.layers[0]) is not AfterSpikeLayer:
        raise TypeError(f"{told}; the first layer of this {type(net).__name__} is a {type(net.layers[0]).__name__}")
    if any(
        getattr(getattr(net, way), "__func__", None) is not getattr(SpikingNet, way)
        for way in ("run", "read_out", "forward")
    ):
        raise TypeError(f"{told}; {type(net).__name__} runs or reads its layers in a way of its own")
    others: list[SpikingLayer] = []
    for place, layer in enumerate(net.layers[1:], start=2):
        if not isinstance(layer, SpikingLayer) or not (layer.is_plain or type(layer) is AfterSpikeLayer):
            raise TypeError(f"{told}; layer {place} is a {type(layer).__name__}, which does more")
        others.append(layer)
    if any(isinstance(getattr(layer, name), Tensor) for layer in net.layers for name in SpikingLayer.settings):
        raise TypeError(f"{told}, whose neurons learn none of their settings")
    return (net.layers[0], *others)


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
    if min(delays) < -n_after:
        raise ValueError(f"delays reach {min(delays)}, beyond the last step, {n_after} after the spike: raise n_after")
    t_post = max(0, *delays)
    held = torch.zeros(t_post + n_after + 1, dtype=torch.float64, device="cpu")
    held[t_post] = threshold + amplitude
    pulses = torch.zeros(len(held), len(delays), dtype=torch.float64, device="cpu")
    for column, delay in enumerate(delays):
        pulses[t_post - delay, column] = 1
    weights = torch.full((len(delays),), 0.1, dtype=torch.float64, device="cpu", requires_grad=True)
    currents = late_current + weights * pulses
    state, outputs = torch.zeros(len(delays), dtype=torch.float64, device="cpu"), []
    for voltage, current in zip(held, currents):
        clamp = voltage - decay * state.detach() - current.detach()
        output, state = neuron.step(clamp + current, state)
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


# --- Its trial ------------------------------------------------------------------------------------


# What each network has for an after-spike, and how its weights decay.
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"balance": 0.0},
    "L2": {"balance": 0.0, "weight_decay": 0.01},
    "fixed": {"provoked": False},
    "provoked": {},
    "provoked, detached": {"detach": True},
}


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

    Returns the variant and the seed, `test_accuracy`, `test_loss`, `seconds` of training, and,
    `before` and `after` it, what `probe_after_spike` finds on the first `n_probe` test images.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(map(repr, VARIANTS))}, not {variant!r}")
    settings = dict(VARIANTS[variant])
    weight_decay = settings.pop("weight_decay", 0.0)
    device = pick_device(device)
    net = AfterSpikeNet(n_steps, generator=seeded(seed), **settings).to(device)
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
        "seconds": round(history.seconds, 2),
        "before": before,
        "after": probe_after_spike(net, frames, labels, n_delays),
    }


@without_autocast
def probe_after_spike(net: AfterSpikeNet, frames: Tensor, labels: Tensor, n_delays: int) -> dict[str, Any]:
    """What makes the first layer's gradient on these examples; recorded for chapter 09.

    `frames` `[T, B, n_inputs]` and `labels` `[B]` are what the network is shown. Returns

    - `rate`: the share of steps in which a neuron of the first layer fires;
    - `integral`: the sum of all that the layer hands out, for a sum of 1 of its spikes alone;
    - `counts`, `amounts`: the eight `coincidence_shares` within tau, flattened; for a network without
      after-spikes only, and `output_counts`, `output_amounts` for its last layer;
    - `window`: see `two_sided_window`.
    """
    found = trace_after_credit(net, frames, labels)
    first = after_spike_layers(net)[0]
    with torch.no_grad():
        given = found.credit.outputs.sum()
        row: dict[str, Any] = {
            "rate": (found.credit.outputs > 0).float().mean().item(),
            "integral": (first(frames)[1].sum() / given).item() if given > 0 else 1.0,
        }
        if not first.strength.any():
            plain = without_after_spikes(net)
            layers = plain_layers(plain, "probe")
            for name, layer, credit in zip(("", "output_"), layers, trace_credit(plain, frames, labels)):
                for kind, amounts in (("counts", False), ("amounts", True)):
                    shares = coincidence_shares(credit, layer.decay, _tau(layer.decay), amounts)
                    row[name + kind] = significant(shares.flatten().tolist(), 4)
        row["window"] = two_sided_window(found, first.decay, first.after_decay, n_delays)
    return row


def two_sided_window(found: AfterCredit, decay: float, after_decay: float, n_delays: int) -> dict[str, list[float]]:
    """What a positive input gets from a spike at a delay from it, on both sides; derived in chapter 09.

    The mean descent direction of a pair, per unit of input, and per mean size of the learning
    signal at a spike. `wanted`: the loss would fall if the spike were larger; `unwanted`: it
    would rise; `all`: both. Each for the delays `t_post - t_pre` from `-n_delays` to `n_delays`.
    `late_weakened`: of the late pairs that change the weight at all, the share that weakens it, in
    the same three cases.
    """
    credit, handed, late = found
    fired = credit.outputs > 0
    arriving = credit.inputs.relu().sum(dim=2, keepdim=True)  # [T, B, 1]
    size = handed[fired].abs().mean().clamp(min=1e-30)
    causal = list(pair_weights(credit.signals, credit.slopes, decay, n_delays + 1))
    after = list(late_weights(credit.outputs, late, after_decay, n_delays))
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


# --- The records ----------------------------------------------------------------------------------


def measure_after_spike(**settings: Any) -> dict[str, Any]:
    """As `after_spike_trial`, on the whole of MNIST."""
    train, test = whole_mnist()
    return after_spike_trial(train=train, test=test, **settings)


RECORDS: dict[str, Record] = {
    "09_after_spike": Record(
        "The article's schedule on the whole of MNIST with 32 steps, batch 1000, three epochs, for each kind of"
        " after-spike; its gradient probed on 500 test images before and after",
        measure_after_spike,
        [{"variant": variant, "seed": seed} for seed in range(5) for variant in VARIANTS],
    ),
}
