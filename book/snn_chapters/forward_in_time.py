"""Autograd's derivative of a spiking network, with no graph through time; derived in chapter 10."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import full_precision
from snn_helpers.long.checks import flat, source, whole
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, Row, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.plasticity import reset_slope
from snn_helpers.statistics import decide_alike, mean_and_interval

Pairs = Sequence[tuple[dict[str, Any], dict[str, Any]]]  # of trials: through time and forward in time, one a seed


class OnlineNet(SpikingNet):
    """`SpikingNet`'s answers and gradients, forward in time, with no graph through time; derived in chapter 10.

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

    def __init__(self, *args: Any, horizon: int = 128, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if len(self.layers) != 2:
            raise ValueError(
                f"sizes must name inputs, one hidden layer and classes, not {len(self.layers) + 1} numbers"
            )
        self.horizon = whole("horizon", horizon)

    def logits(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As in `SpikingNet`; in training, `generator` must be given: the flicker is shown twice."""
        if not torch.is_grad_enabled():
            return super().logits(images, generator)
        if source(generator) is None:
            raise ValueError("training forward in time shows the same flicker twice: give a generator")
        if images.requires_grad:
            raise ValueError("forward in time there are gradients for the weights only: the images must not need one")
        first, last = plain_layers(self, "OnlineNet")
        _ = self.showing  # refuses steps that do not fit
        first.currents(flat(images[:1]).unsqueeze(0))  # refuses images that do not fit
        with full_precision(images.device):
            parameters = [part for layer in (first, last) for part in (layer.linear.weight, layer.linear.bias)]
            logits: Tensor = _TwoShowings.apply(self, flat(images), generator, *parameters)
        return logits

    def steps(self, images: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Show flattened images `[B, n_inputs]`, step by step, keeping nothing.

        Yields `(frame, hidden, output, state)` for each step, not delayed: the flickering input
        `[B, n_inputs]`, the hidden layer's outputs, the last layer's outputs and its states.
        """
        first, last = plain_layers(self, "OnlineNet")
        neuron_1, neuron_2 = first.neuron, last.neuron
        state_1 = hidden = images.new_zeros(len(images), first.n_neurons)
        state_2 = images.new_zeros(len(images), last.n_neurons)
        for _ in range(self.n_steps):
            frame = flicker(images, 1, generator)[0]
            # The last layer reads what the hidden layer put out one step before.
            output, state_2 = neuron_2.step(last.linear(hidden), state_2)
            hidden, state_1 = neuron_1.step(first.linear(frame), state_1)
            yield frame, hidden, output, state_2

    def share(self, step: int) -> float:
        """With which weight the state left by a step enters the mean that is the answer; 0 if it does not."""
        read = self.begin_eval <= step + 1 < self.n_steps  # it is handed out one step later
        return 1 / (self.n_steps - self.begin_eval) if read else 0.0

    def slope(self, fired: Tensor) -> Tensor:
        """`reset_slope` of the last layer, in the dtype of its weights."""
        last = plain_layers(self, "OnlineNet")[1]
        return reset_slope(fired.to(last.linear.weight.dtype), last.threshold, last.penalty, last.reset)


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
        last = plain_layers(net, "OnlineNet")[1]
        logits = images.new_zeros(len(images), last.n_neurons)
        # The bias is the weight of one more input, which is always 1.
        arriving = F.pad(images.new_zeros(len(images), last.n_inputs), (0, 1), value=1.0)
        eligibility = images.new_zeros(len(images), last.n_neurons, last.n_inputs + 1)
        ctx.influence = torch.zeros_like(eligibility)  # d logit / d weight
        for step, (_, hidden, output, state) in enumerate(net.steps(images, generator)):
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
        with full_precision(errors.device):
            return _TwoShowings._second(ctx, errors)

    @staticmethod
    def _second(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        net, images = ctx.net, ctx.images
        (first, last), horizon, n_steps = plain_layers(net, "OnlineNet"), net.horizon, net.n_steps
        weights_2 = ctx.saved_tensors[2]
        gradient_2 = torch.einsum("bk,bkj->kj", errors, ctx.influence)
        del ctx.influence

        follower = net.steps(images, ctx.replay)
        window, leader = ctx.recent, iter(())
        if n_steps > len(window):  # too long ago: a second copy of the network runs ahead
            window, ahead = deque(), torch.Generator(ctx.replay.device)
            ahead.set_state(ctx.replay.get_state())
            leader = net.steps(images, ahead)
        trace = images.new_zeros(len(images), first.n_inputs + 1)
        # What each synapse's eligibility lacks, against the trace, as of its neuron's last spike.
        lacking = images.new_zeros(len(images) * first.n_neurons, first.n_inputs + 1)
        last_spike = torch.zeros(len(lacking), dtype=images.dtype, device=images.device)
        taken_at_spike = float(first.neuron.taken_at_spike)
        gradient_1 = torch.zeros_like(lacking[: first.n_neurons])
        for start in range(0, n_steps, horizon):
            while len(window) < min(2 * horizon + 1, n_steps - start):
                window.append(next(leader)[2] > 0)
            # The last layer's credit, from the end of the window back to where the follower is.
            credit, future = torch.zeros_like(errors), []
            for step in range(start + len(window) - 1, start, -1):
                credit = net.slope(window[step - start]) * (net.share(step) * errors + last.decay * credit)
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
                lacking.index_copy_(0, rows, lack.add_(eligibility, alpha=taken_at_spike))
                last_spike[rows] = step
                gradient_1.index_add_(0, neuron, eligibility.mul_(signals[:, None]))
            for _ in range(min(horizon, len(window))):
                window.popleft()
        by_layer = [part for g in (gradient_1, gradient_2) for part in (g[:, :-1], g[:, -1])]
        return None, None, None, *by_layer


class SameFlicker(nn.Module):
    """A network that takes its flicker from a generator of its own, whatever the training hands it.

    On a GPU a generator gives other numbers if it is asked step by step than if it is asked for all steps at once. One
    on the CPU does not: so two networks see the same flicker, and the same on every device.
    """

    def __init__(self, net: SpikingNet, seed: int) -> None:
        super().__init__()
        self.net, self.source = net, seeded(seed)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        log_probs: Tensor = self.net(images, self.source)
        return log_probs


def step_cost(net: SpikingNet, images: Tensor, labels: Tensor, repeats: int = 5) -> dict[str, float]:
    """What one forward and backward pass of a batch costs on a GPU; recorded for chapter 10.

    Returns `peak_bytes`, by how much the most memory held exceeds what is held before, and `seconds`, the median of
    the `repeats`; one more pass before them warms up. The flicker comes from a generator on the GPU, so that nothing
    waits for the CPU's draws. Network and batch are on the GPU; gradients are left at None.

    Raises `ValueError` for a batch elsewhere: the CPU keeps no such account.
    """
    device = images.device
    if device.type != "cuda":
        raise ValueError(f"the images must lie on a CUDA GPU, whose peak memory torch knows, not on {device.type!r}")
    generator, seconds, peak = torch.Generator(device).manual_seed(0), [], 0
    for _ in range(repeats + 1):
        net.zero_grad(set_to_none=True)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held, started = torch.cuda.memory_allocated(device), time.perf_counter()
        F.nll_loss(net(images, generator), labels).backward()
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        peak = max(peak, torch.cuda.max_memory_allocated(device) - held)
    net.zero_grad(set_to_none=True)
    return {"peak_bytes": peak, "seconds": median(seconds[1:])}


def online_trial(
    method: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    n_steps: int = 128,
    batch_size: int = 1000,
    learning_rates: Sequence[float] = (0.1, 0.05, 0.01),
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Train 784-100-10 on digits, `"online"` (forward in time) or by `"bptt"`; recorded for chapter 10.

    From the same seed the two start from the same weights and see the same images with the same flicker, on any
    device: what differs is rounding. Returns the test accuracy and loss, and the loss of each batch before its
    update; on a GPU also the `step_cost` of a batch by the network as it starts, `{}` elsewhere. On a GPU most of
    `seconds` is waiting for the flicker, which the CPU draws.

    Raises `ValueError` for another method, or a device that torch does not see.
    """
    if method not in ("online", "bptt"):
        raise ValueError(f"method must be 'online' or 'bptt', not {method!r}")
    kind, picked = OnlineNet if method == "online" else SpikingNet, pick_device(device)
    net = kind(n_steps, generator=seeded(seed)).to(picked)
    images, labels = (part[:batch_size].to(picked) for part in train.tensors)
    cost = step_cost(net, images, labels) if picked.type == "cuda" else {}
    history = fit(
        SameFlicker(net, seed),
        train,
        seed=seed,
        device=picked,
        learning_rates=learning_rates,
        batch_size=batch_size,
        progress=False,
    )
    on_test = evaluate(SameFlicker(net, seed), test, seed=seed)
    return {
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "batch_loss": significant(history.loss, 7),
        "seconds": round(history.seconds, 2),
        "step_cost": significant(cost, 4),
    }


# --- What the trials say ---------------------------------------------------------------------------


def in_pairs(trials: Sequence[dict[str, Any]]) -> dict[tuple[str, int], Pairs]:
    """The recorded trials by machine ("CPU", "GPU") and number of steps: a pair for each seed; from chapter 10.

    A pair is a trial by backpropagation through time and its like forward in time; a seed that lacks one is left out.
    """
    found: dict[tuple[str, int], dict[int, dict[str, dict[str, Any]]]] = {}
    for row in trials:
        given = row["settings"]
        where = "GPU" if given.get("device") == "cuda" else "CPU"
        seeds = found.setdefault((where, given["n_steps"]), {})
        seeds.setdefault(given["seed"], {})[given["method"]] = row
    complete = {group: [by for by in seeds.values() if len(by) == 2] for group, seeds in found.items()}
    return {group: [(by["bptt"], by["online"]) for by in rows] for group, rows in sorted(complete.items()) if rows}


def points_apart(pairs: Pairs) -> list[float]:
    """By how many points of test accuracy each second trial is above the first; used in chapter 10."""
    return [100 * (other["test_accuracy"] - one["test_accuracy"]) for one, other in pairs]


def agreement(pairs: Pairs, margin: float) -> str:
    """What the differences of two seeds or more say of equal accuracy, in words, as Markdown; from chapter 10.

    Where the interval lies within `margin` points, and yet on one side of 0, that is said too.
    """
    apart = points_apart(pairs)
    middle, half = mean_and_interval(apart)
    words = {"holds": "the two **agree**", "fails": "the two **differ**", "open": "that is **open**"}
    told = words[decide_alike(apart, margin)] + f" ({middle:+.2f} ± {half:.2f} points)"
    if abs(middle) <= half:
        return told
    side, count = ("lower", sum(gap < 0 for gap in apart)) if middle < 0 else ("higher", sum(gap > 0 for gap in apart))
    return told + f", though the interval leaves 0 out: the forward way is {side} with {count} of {len(apart)} seeds"


def losses_apart(pairs: Pairs, batch: int) -> float:
    """How far the losses of a batch are apart between the two ways, on average over seeds; from chapter 10."""
    losses = [(float(one["batch_loss"][batch]), float(other["batch_loss"][batch])) for one, other in pairs]
    return mean(abs(one - other) for one, other in losses)


# --- The records ----------------------------------------------------------------------------------


def measure_online(**settings: Any) -> dict[str, Any]:
    """As `online_trial`, on the whole of MNIST."""
    train, test = whole_mnist()
    return online_trial(train=train, test=test, **settings)


# On one core of a CPU, forward in time takes 20 minutes for one seed; so five seeds are trained on a GPU.
ON_CPU: list[Row] = [{"method": method, "seed": 0, "n_steps": 32} for method in ("bptt", "online")]
ON_GPU: list[Row] = [
    {"method": method, "seed": seed, "n_steps": n_steps, "device": "cuda"}
    for n_steps in (32, 128)
    for seed in range(5)
    for method in ("bptt", "online")
]

RECORDS: dict[str, Record] = {
    "10_online": Record(
        "The article's schedule on the whole of MNIST with 32 steps and with 128, batch 1000, three epochs:"
        " backpropagation through time, and the same gradients forward in time, from the same seed with the same images"
        " and flicker; one seed on a CPU, five on a GPU",
        measure_online,
        [*ON_CPU, *ON_GPU],
    ),
}
