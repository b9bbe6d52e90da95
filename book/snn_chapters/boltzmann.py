"""Boltzmann machines of neurons that fire or rest, and the rhythm that trains them; derived in chapter 14.

A machine is a stack of layers, the visible one first. Its states are 0 or 1, its energy
`-sum_l x[l+1] . W[l] x[l] - sum_l b[l] . x[l]`, and the probability of a state is proportional to
`exp(-energy)`. With one level of weights it is a restricted Boltzmann machine (RBM).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers.data import draw_subset
from snn_helpers.devices import pick_device
from snn_helpers.fast.draws import uniform_masks
from snn_helpers.long.autocast import without_autocast
from snn_helpers.long.checks import floating, real, whole
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.records import load_results
from snn_helpers.training import as_tensors
from snn_helpers.tuning import choose, means, scores_of

MOST_ENUMERATED = 16  # neurons: 65,536 states


class Machine(NamedTuple):
    """Weights `[n_above, n_below]` of each level, biases `[n]` of each layer; also a gradient of both."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


class Activity(NamedTuple):
    """What a rhythm goes on from: potentials, and for how many more steps neurons are on; `[B, n]` for each layer."""

    potentials: tuple[Tensor, ...]
    steps_left: tuple[Tensor, ...]


class HalfCycle(NamedTuple):
    """Half a cycle: for how many more steps each layer's neurons are on, `[T + 1, B, n]`, from the step before on."""

    steps_left: tuple[Tensor, ...]
    rest: int
    activity: Activity

    @property
    def on(self) -> tuple[Tensor, ...]:
        """1 where a neuron is on, else 0: `[T + 1, B, n]` for each layer, which starts with the step before."""
        return tuple((left > 0).to(left.dtype) for left in self.steps_left)

    @property
    def spikes(self) -> tuple[Tensor, ...]:
        """1 where a neuron fires, else 0: `[T, B, n]` for each layer."""
        return tuple((left[1:] == self.rest + 1).to(left.dtype) for left in self.steps_left)


class Cycle(NamedTuple):
    """The `gradient` of one cycle, its two halves, and each layer's `rates` in them."""

    gradient: Machine
    data: HalfCycle
    free: HalfCycle
    data_rates: tuple[Tensor, ...]
    free_rates: tuple[Tensor, ...]


# --- Machines --------------------------------------------------------------------------------------


def draw_machine(
    sizes: Sequence[int],
    scale: float = 0.01,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Machine:
    """A machine with layers of these `sizes`, its weights normal with standard deviation `scale`, its biases 0."""
    sizes = [whole("each of sizes", n, least=0) for n in sizes]
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must name two layers or more of one neuron or more, not {sizes}")
    scale = real("scale", scale, least=0)
    drawn = [
        scale * torch.randn(above, below, generator=generator, dtype=dtype, device=_home(generator))
        for below, above in zip(sizes, sizes[1:])
    ]
    return Machine(
        tuple(weight.to(device) for weight in drawn),
        tuple(torch.zeros(n, dtype=dtype, device=device) for n in sizes),
    )


def one_level(machine: Machine, level: int) -> Machine:
    """The machine of two layers that level `level` alone makes; it shares its tensors with the whole."""
    level = whole("level", level, least=0, most=len(machine.weights) - 1)
    return Machine((machine.weights[level],), machine.biases[level : level + 2])


def step_along(machine: Machine, gradient: Machine, learning_rate: float) -> Machine:
    """The machine moved up the gradient; `ValueError` for a gradient of another shape."""
    _check_alike(machine, gradient)
    return Machine(
        tuple(weight + learning_rate * slope for weight, slope in zip(machine.weights, gradient.weights)),
        tuple(bias + learning_rate * slope for bias, slope in zip(machine.biases, gradient.biases)),
    )


def flat(gradient: Machine) -> Tensor:
    """All weights and biases as one vector, to compare directions."""
    return torch.cat([part.flatten() for part in (*gradient.weights, *gradient.biases)])


def energy(machine: Machine, layers: Sequence[Tensor]) -> Tensor:
    """The energy `[...]` of states given layer by layer, `[..., n]` each; `ValueError` for other widths."""
    _check_widths("layers", machine, layers)
    total = layers[0] @ machine.biases[0]
    for weight, bias, below, above in zip(machine.weights, machine.biases[1:], layers, layers[1:]):
        total = total + ((above @ weight) * below).sum(dim=-1) + above @ bias
    return -total


# --- Exact, by enumeration -------------------------------------------------------------------------


def all_states(n: int) -> Tensor:
    """Every state of n neurons, `[2**n, n]` float64; row `s` holds the binary digits of s, the lowest first."""
    if not 1 <= whole("n", n) <= MOST_ENUMERATED:
        raise ValueError(f"n must lie between 1 and {MOST_ENUMERATED}, as there are 2**n states, not {n}")
    states, digits = torch.arange(2**n, device="cpu"), torch.arange(n, device="cpu")
    return ((states[:, None] >> digits) & 1).double()


def distribution(machine: Machine) -> tuple[list[Tensor], Tensor]:
    """Every state of a small machine, layer by layer `[2**N, n]`, and its probability `[2**N]`.

    The visible layer holds the lowest binary digits of a state's number.
    """
    sizes = [len(bias) for bias in machine.biases]
    like = machine.weights[0]
    layers = list(all_states(sum(sizes)).to(like).split(sizes, dim=1))
    return layers, torch.softmax(-energy(machine, layers), dim=0)


@without_autocast
def exact_gradient(machine: Machine, data: Tensor) -> Machine:
    """The gradient of the mean log-likelihood of `data` `[B, n_visible]`, of 0 and 1, by enumeration.

    What happens together given the data, less what happens together when the machine runs free.
    """
    _check_visible(machine, data)
    if not ((data == 0) | (data == 1)).all():
        raise ValueError("data must hold 0 and 1 only: enumeration runs over such states")
    layers, free = distribution(machine)
    n_visible = data.shape[1]
    codes = (data.long() << torch.arange(n_visible, device=data.device)).sum(dim=1)
    seen = torch.bincount(codes, minlength=2**n_visible).to(free) / len(data)
    by_visible = free.reshape(-1, 2**n_visible)
    given_data = (by_visible / by_visible.sum(dim=0) * seen).flatten()
    return _difference(_weighted(layers, given_data), _weighted(layers, free))


def _weighted(layers: Sequence[Tensor], weights: Tensor) -> Machine:
    return Machine(
        tuple((above * weights[:, None]).T @ below for below, above in zip(layers, layers[1:])),
        tuple(weights @ layer for layer in layers),
    )


def _difference(one: Machine, other: Machine) -> Machine:
    return step_along(one, other, -1.0)


# --- Contrastive divergence ------------------------------------------------------------------------


def hidden_given(machine: Machine, visible: Tensor) -> Tensor:
    """How probable it is that each neuron above is on, `[B, n_hidden]`, given the visible layer."""
    _check_level(machine, "hidden_given")
    return torch.sigmoid(visible @ machine.weights[0].T + machine.biases[1])


def visible_given(machine: Machine, hidden: Tensor) -> Tensor:
    """How probable it is that each visible neuron is on, `[B, n_visible]`, given the layer above."""
    return torch.sigmoid(hidden @ machine.weights[0] + machine.biases[0])


@without_autocast
def cd_gradient(
    machine: Machine,
    data: Tensor,
    k: int = 1,
    generator: torch.Generator | None = None,
    chains: Tensor | None = None,
) -> tuple[Machine, Tensor]:
    """The gradient that contrastive divergence estimates for an RBM, with k steps of block Gibbs sampling.

    The chains start at the data, or at `chains` `[n_chains, n_visible]` if given: hand back what the last
    call returned, and it is persistent contrastive divergence.

    Returns
    -------
    (gradient, chains) : where the chains ended, `[n_chains, n_visible]`.
    """
    _check_level(machine, "contrastive divergence")
    k = whole("k", k)
    _check_visible(machine, data)
    data = data.to(machine.weights[0].dtype)
    if chains is not None:
        _check_visible(machine, chains)
    visible = data if chains is None else chains.to(data.dtype)
    for _ in range(k):
        hidden = bernoulli(hidden_given(machine, visible), generator)
        visible = bernoulli(visible_given(machine, hidden), generator)
    together = [_together(values, hidden_given(machine, values)) for values in (data, visible)]
    return _difference(*together), visible


def _together(visible: Tensor, hidden: Tensor) -> Machine:
    return Machine((hidden.T @ visible / len(visible),), (visible.mean(dim=0), hidden.mean(dim=0)))


def bernoulli(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """1 with the given probability, else 0; the generator may live on another device."""
    floating("probability", probability)
    drawn = uniform_masks(1, probability.shape, probability.dtype, probability.device, generator)[0]
    return (drawn < probability).to(probability.dtype)


# --- The rhythm ------------------------------------------------------------------------------------


def at_rest(machine: Machine, n_batch: int) -> Activity:
    """All potentials 0, and no neuron on."""
    zeros = tuple(bias.new_zeros(n_batch, len(bias)) for bias in machine.biases)
    return Activity(zeros, zeros)


@without_autocast
def half_cycle(
    machine: Machine,
    activity: Activity,
    n_steps: int,
    pixels: Tensor | None = None,
    decay: float = 0.0,
    rest: int = 0,
    generator: torch.Generator | None = None,
) -> HalfCycle:
    """Run leaky neurons that fire at random for one half of a cycle; derived in chapter 14.

    In each step, all at once, from what the step before left:

    - a potential leaks and charges, `u = decay * u + (1 - decay) * (b + weights of the neighbours that are on)`;
    - a neuron that may fire does so with the probability `sigmoid(u - log(rest + 1))`;
    - after a spike it is *on* for `rest + 1` steps, and may not fire in the `rest` steps that follow the spike.

    Without leak a neuron whose neighbours stay as they are is on for a share `sigmoid(u)` of the time.

    Parameters
    ----------
    activity : what the half before left, or `at_rest`.
    pixels : `[B, n_visible]`, 0 to 1: the visible neurons are on for this share of the time, whatever their
        potentials. None: they run free, driven by the layer above.
    decay : the share of a potential that survives one step, 0 up to, not including, 1.
    rest : steps, 0 or more.

    Raises
    ------
    ValueError : for settings, shapes or pixels that do not fit.
    """
    if not 0 <= real("decay", decay) < 1:
        raise ValueError(f"decay must be 0 or more and less than 1, not {decay}")
    rest, n_steps = whole("rest", rest, least=0), whole("n_steps", n_steps)
    _check_widths("the activity", machine, activity.potentials)
    if pixels is not None:
        _check_visible(machine, pixels)
        if len(pixels) != len(activity.potentials[0]):
            raise ValueError(
                f"pixels must hold one image for each of the {len(activity.potentials[0])} copies that run,"
                f" not {len(pixels)}"
            )
    length = rest + 1
    shown = None if pixels is None else pixels / (pixels + length * (1 - pixels))
    potentials, steps_left = (list(parts) for parts in activity)
    on = [(left > 0).to(left.dtype) for left in steps_left]
    history = [[left] for left in steps_left]
    for _ in range(n_steps):
        currents = [bias.expand_as(now) for bias, now in zip(machine.biases, on)]
        for level, weight in enumerate(machine.weights):
            currents[level + 1] = currents[level + 1] + on[level] @ weight.T
            if level > 0 or shown is None or decay > 0:  # else nobody listens
                currents[level] = currents[level] + on[level + 1] @ weight
        for layer, current in enumerate(currents):
            potentials[layer] = decay * potentials[layer] + (1 - decay) * current
            # What is shown fires likewise, with the pixel's log-odds for a potential.
            fires = torch.sigmoid(potentials[layer] - math.log(length)) if layer or shown is None else shown
            fired = (bernoulli(fires, generator) > 0) & (steps_left[layer] <= 1)
            steps_left[layer] = (steps_left[layer] - 1).clamp_(min=0).masked_fill_(fired, length)
            history[layer].append(steps_left[layer])
        on = [(left > 0).to(left.dtype) for left in steps_left]
    return HalfCycle(
        tuple(torch.stack(layer) for layer in history), rest, Activity(tuple(potentials), tuple(steps_left))
    )


def coincidences(on: Sequence[Tensor]) -> Machine:
    """How often neighbours are on together, one step apart, in either order; from each layer's `[T + 1, B, n]`.

    A neuron hears its neighbours one step later, so cause and effect lie one step apart. The means over
    time and batch, in the shape of a gradient; the biases' are those of being on.
    """
    if len({tuple(layer.shape[:2]) for layer in on}) != 1 or len(on[0]) < 2:
        raise ValueError(
            "on must hold two steps or more of the same length and batch for each layer, not the shapes"
            f" {[list(layer.shape) for layer in on]}"
        )
    n_pairs = (len(on[0]) - 1) * on[0].shape[1]
    return Machine(
        tuple(
            (
                above[1:].flatten(0, 1).T @ below[:-1].flatten(0, 1)
                + above[:-1].flatten(0, 1).T @ below[1:].flatten(0, 1)
            )
            / (2 * n_pairs)
            for below, above in zip(on, on[1:])
        ),
        tuple(layer[1:].mean(dim=(0, 1)) for layer in on),
    )


def rhythm_cycle(
    machine: Machine,
    pixels: Tensor,
    n_steps: int,
    decay: float = 0.0,
    rest: int = 0,
    generator: torch.Generator | None = None,
    activity: Activity | None = None,
) -> Cycle:
    """One cycle: a half that shows the data, a half that runs free from there, and their difference; from chapter 14.

    Each half has `n_steps` steps. Neurons settle in the first half of them and learn in the second, where
    `coincidences` are counted: added while the data are shown, subtracted while the machine runs free.
    """
    start = at_rest(machine, len(pixels)) if activity is None else activity
    data = half_cycle(machine, start, n_steps, pixels, decay, rest, generator)
    free = half_cycle(machine, data.activity, n_steps, None, decay, rest, generator)
    n_learning = n_steps - n_steps // 2
    data_on, free_on = (tuple(layer[-n_learning - 1 :] for layer in half.on) for half in (data, free))
    return Cycle(_difference(coincidences(data_on), coincidences(free_on)), data, free, rates(data), rates(free))


def changes(on: Sequence[Tensor]) -> Machine:
    """The sum over time of pre x change of post, of both synapses of a pair; from each layer's `[T + 1, B, n]`.

    A neuron that was on in one step gives to each neighbour its change from that step to the next; the synapses
    there and back share the sum. The means over the batch, in the shape of a gradient; the biases' are the changes.
    """
    moved = [layer[1:] - layer[:-1] for layer in on]
    n_batch = on[0].shape[1]
    return Machine(
        tuple(
            (
                moved[level + 1].flatten(0, 1).T @ on[level][:-1].flatten(0, 1)
                + on[level + 1][:-1].flatten(0, 1).T @ moved[level].flatten(0, 1)
            )
            / n_batch
            for level in range(len(on) - 1)
        ),
        tuple(layer.sum(dim=0).mean(dim=0) for layer in moved),
    )


def transition_cycle(
    machine: Machine,
    pixels: Tensor,
    n_steps: int,
    decay: float = 0.0,
    rest: int = 0,
    generator: torch.Generator | None = None,
) -> Machine:
    """What `changes` find while the picture comes back: a data half, a free half, and a data half that learns.

    No phase has a sign; but the way from the data to the free state must not learn.
    """
    data = half_cycle(machine, at_rest(machine, len(pixels)), n_steps, pixels, decay, rest, generator)
    free = half_cycle(machine, data.activity, n_steps, None, decay, rest, generator)
    return changes(half_cycle(machine, free.activity, n_steps, pixels, decay, rest, generator).on)


def rates(half: HalfCycle) -> tuple[Tensor, ...]:
    """The share of the time for which each neuron was on, `[B, n]` for each layer, in the half's second half."""
    n_steps = len(half.steps_left[0]) - 1
    return tuple((left[1 + n_steps // 2 :] > 0).to(left.dtype).mean(dim=0) for left in half.steps_left)


def coincidence_window(delay: Tensor, rest: int) -> Tensor:
    """What one pair of spikes adds to the counts of `coincidences`, by its delay in steps; derived in chapter 14.

    Two neurons, each on for `rest + 1` steps from its spike, overlap for `rest + 1 - |delay|` steps; heard one
    step later, in either order, this is the mean of that triangle moved by a step to each side.
    """
    length = rest + 1
    return ((length - (delay - 1).abs()).clamp(min=0) + (length - (delay + 1).abs()).clamp(min=0)) / 2


def _home(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _check_level(machine: Machine, for_what: str) -> None:
    if len(machine.weights) != 1:
        raise ValueError(f"{for_what} takes one level at a time, not {len(machine.weights)}: see one_level")


def _check_widths(name: str, machine: Machine, layers: Sequence[Tensor]) -> None:
    wanted, found = [len(bias) for bias in machine.biases], [layer.shape[-1] for layer in layers]
    if wanted != found:
        raise ValueError(f"{name} must have {wanted} neurons, layer by layer, as the machine has, not {found}")


def _check_alike(machine: Machine, gradient: Machine) -> None:
    shapes = [[list(part.shape) for part in (*one.weights, *one.biases)] for one in (machine, gradient)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"machine and gradient must have the same shapes, not {shapes[0]} and {shapes[1]}")


def _check_visible(machine: Machine, values: Tensor) -> None:
    n_visible = len(machine.biases[0])
    if values.dim() != 2 or values.shape[1] != n_visible or len(values) == 0:
        raise ValueError(
            f"data must have the shape [examples, {n_visible}], one column for each visible neuron,"
            f" not {list(values.shape)}"
        )
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"data must lie between 0 (off) and 1 (on), not {values.min():.3g} to {values.max():.3g}: the book's"
            " pixels, from -0.5 to 0.5, need 0.5 added"
        )


# --- The trial ------------------------------------------------------------------------------------

# What is trained on the digits, all with 200 hidden neurons: in one level, or in two of 100.
ONLY_DATA = ("no free half", "covariance", "Oja")  # rules that have no free half
UNTAUGHT = ("random", "random, as drawn")
ONE_LEVEL = (*UNTAUGHT, "cd", "rhythm", "rhythm, no memory", *ONLY_DATA)
STACKS = ("greedy", "fast", "fast and slow", "slow")
ARMS = ("pixels", *ONE_LEVEL, *STACKS)


def start_machine(sizes: tuple[int, ...], pixels: Tensor, generator: torch.Generator, scale: float = 0.01) -> Machine:
    """A machine that knows no more than how often each pixel is on; used in chapter 14."""
    machine = draw_machine(sizes, scale, generator, device=pixels.device)
    return Machine(machine.weights, (torch.logit(pixels.mean(dim=0).clamp(0.01, 0.99)), *machine.biases[1:]))


def digits_trial(
    arm: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float = 0.2,
    scale: float = 0.1,
    start_scale: float = 0.01,
    n_train: int = 4000,
    n_hidden: int = 200,
    epochs: int = 2,
    batch_size: int = 100,
    n_steps: int = 10,
    decay: float = 0.5,
    rest: int = 2,
    n_spiking: int = 1000,
    side: int = 28,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train one of `ARMS` on digits without their labels, and see what it has learned; recorded for chapter 14.

    Weights start with the standard deviation `start_scale`. Each batch is shown for 4 `n_steps` steps, whatever the
    arm: two cycles, or a slow one of twice the length.

    - `"random"`: weights of standard deviation `scale` that are never changed, with biases such that the mean image
      leaves each neuron at one half; `"random, as drawn"`: with the biases that all others start with, 0;
    - `"cd"`: contrastive divergence, two updates for each batch, without neurons or time;
    - `"rhythm"`: `rhythm_cycle` on one level; `"rhythm, no memory"`: of neurons that neither remember nor rest;
    - `"no free half"`: as `"rhythm"`, with the data half alone, so that what is on together is only ever added;
    - `"covariance"` and `"Oja"`: the data half alone, with a rule that keeps itself in bounds; see `hebbian`;
    - `"greedy"`: the first level for half of the batches, then the second above it;
    - `"fast"`: the two levels at once, each by cycles of its own;
    - `"slow"`: by slow cycles, which span both levels; `"fast and slow"`: in turns.

    The images are shrunk to `side` x `side` pixels, each the mean of those that it replaces.

    Returns a row: the `accuracy` of a linear read-out of the hidden layers, fitted to the labels of the same
    `n_train` images, of the top layer alone (`top_accuracy`), and from the spikes of one data half, on the
    first `n_spiking` test images (`spike_accuracy`); how far the free half strays from the image,
    (`free_error`, mean square) and the mean of the hidden layers' `rate` and the weights' `size`.
    """
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(map(repr, ARMS))}, not {arm!r}")
    device = pick_device(device)
    generator = seeded(seed, device)
    pixels, labels = _bright(draw_subset(train, n_train, seed), device, side)
    test_pixels, test_labels = _bright(test, device, side)
    row: dict[str, Any] = {"arm": arm, "seed": seed}
    if arm == "pixels":
        return row | {"accuracy": readout_accuracy(pixels, labels, test_pixels, test_labels)}
    sizes = (pixels.shape[1], n_hidden // 2, n_hidden // 2) if arm in STACKS else (pixels.shape[1], n_hidden)
    machine = start_machine(sizes, pixels, generator, scale if arm in UNTAUGHT else start_scale)
    if arm == "random":
        machine = centred(machine)
    if arm == "rhythm, no memory":
        decay, rest = 0.0, 0
    started = time.perf_counter()
    n_batches = n_train // batch_size
    for epoch in range(0 if arm in UNTAUGHT else epochs):
        order = torch.randperm(n_train, generator=generator, device=generator.device).to(device)
        for number, chosen in enumerate(order.split(batch_size)[:n_batches]):
            done = (epoch * n_batches + number) / (epochs * n_batches)
            machine = train_once(
                machine, pixels[chosen], arm, done, number, learning_rate, n_steps, decay, rest, generator
            )
    row["seconds"] = round(time.perf_counter() - started, 2)
    features, test_features = (feed_forward(machine, values) for values in (pixels, test_pixels))
    row["accuracy"] = readout_accuracy(torch.cat(features, 1), labels, torch.cat(test_features, 1), test_labels)
    row["top_accuracy"] = readout_accuracy(features[-1], labels, test_features[-1], test_labels)
    if n_spiking:
        few = test_pixels[:n_spiking]
        spiking = [run_whole(machine, values, 2 * n_steps, decay, rest, generator) for values in (pixels, few)]
        row["spike_accuracy"] = readout_accuracy(spiking[0][0], labels, spiking[1][0], test_labels[:n_spiking])
        row["free_error"] = (spiking[1][1] - few).square().mean().item()
        row["still_error"] = (pixels.mean(dim=0) - few).square().mean().item()
    row["rate"] = torch.cat(test_features, 1).mean().item()
    row["size"] = [weight.std().item() for weight in machine.weights]
    return row


def train_once(
    machine: Machine,
    pixels: Tensor,
    arm: str,
    done: float,
    number: int,
    learning_rate: float,
    n_steps: int,
    decay: float,
    rest: int,
    generator: torch.Generator,
) -> Machine:
    """What one batch teaches one of `ARMS`, once a share `done` of the training is over."""
    if arm == "cd":
        for _ in range(2):
            machine = step_along(machine, cd_gradient(machine, pixels, 1, generator)[0], learning_rate)
        return machine
    if arm in ONLY_DATA:
        for _ in range(2):
            half = half_cycle(machine, at_rest(machine, len(pixels)), 2 * n_steps, pixels, decay, rest, generator)
            counts = coincidences([layer[-n_steps - 1 :] for layer in half.on])
            machine = step_along(machine, hebbian(machine, counts, arm), learning_rate)
        return machine
    if arm == "slow" or (arm == "fast and slow" and number % 2):
        cycle = rhythm_cycle(machine, pixels, 2 * n_steps, decay, rest, generator)
        return step_along(machine, cycle.gradient, learning_rate)
    for _ in range(2):
        levels = range(len(machine.weights))
        if arm == "greedy":
            levels = range(1) if done < 0.5 else range(1, 2)
        machine = fast_cycle(machine, pixels, levels, learning_rate, n_steps, decay, rest, generator)
    return machine


def hebbian(machine: Machine, counts: Machine, arm: str) -> Machine:
    """What a rule without a free half makes of the data half's `coincidences`.

    `"no free half"` takes them as they are. `"covariance"` takes off what two neurons would have by chance, the
    product of their rates; `"Oja"` takes off, besides, a part of each weight, as large as the neuron's spikes go with
    its own current, which holds its weights at the length 1. These two leave the pixels' biases alone, and move the
    hidden ones so that the mean image goes on to leave a neuron in the middle.
    """
    if arm == "no free half":
        return counts
    below, above = counts.biases
    weights = counts.weights[0] - torch.outer(above, below)
    if arm == "Oja":
        weights = weights - (weights * machine.weights[0]).sum(dim=1, keepdim=True) * machine.weights[0]
    return Machine((weights,), (torch.zeros_like(below), -weights @ torch.sigmoid(machine.biases[0])))


def centred(machine: Machine) -> Machine:
    """The machine of one level with hidden biases such that the mean image leaves each hidden neuron at one half."""
    (weight,), (shown, _) = machine
    return Machine((weight,), (shown, -weight @ torch.sigmoid(shown)))


def fast_cycle(
    machine: Machine,
    pixels: Tensor,
    levels: range,
    learning_rate: float,
    n_steps: int,
    decay: float,
    rest: int,
    generator: torch.Generator,
) -> Machine:
    """A cycle for each of these levels, which hears nothing from above and is shown the activity below."""
    weights, biases = list(machine.weights), list(machine.biases)
    shown = pixels
    for level in range(levels.stop):
        part = one_level(machine, level)
        if level not in levels:
            half = half_cycle(part, at_rest(part, len(shown)), n_steps, shown, decay, rest, generator)
            shown = rates(half)[1]
            continue
        cycle = rhythm_cycle(part, shown, n_steps, decay, rest, generator)
        shown = cycle.data_rates[1]
        weights[level] = weights[level] + learning_rate * cycle.gradient.weights[0]
        for layer in (0, 1):
            if layer == 1 or level == levels.start:  # between two levels, the bias is left to the level below it
                biases[level + layer] = biases[level + layer] + learning_rate * cycle.gradient.biases[layer]
    return Machine(tuple(weights), tuple(biases))


def feed_forward(machine: Machine, pixels: Tensor) -> list[Tensor]:
    """How probable it is that each hidden neuron is on, layer by layer `[B, n]`, with nothing from above."""
    layers = [pixels]
    for level in range(len(machine.weights)):
        layers.append(hidden_given(one_level(machine, level), layers[-1]))
    return layers[1:]


def run_whole(
    machine: Machine, pixels: Tensor, n_steps: int, decay: float, rest: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One slow cycle of the whole machine: its hidden rates in the data half, the visible ones in the free half."""
    seen, free = [], []
    for shown in pixels.split(500):
        cycle = rhythm_cycle(machine, shown, n_steps, decay, rest, generator)
        seen.append(torch.cat(cycle.data_rates[1:], dim=1))
        free.append(cycle.free_rates[0])
    return torch.cat(seen), torch.cat(free)


def readout_accuracy(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, penalty: float = 3e-3
) -> float:
    """Accuracy, 0 to 1, of a linear read-out of features `[B, n]`: multinomial logistic regression.

    The features are brought to mean 0 and, where they vary by more than 0.01, to standard deviation 1. What is
    minimised is the mean cross-entropy plus `penalty` times the sum of the squared weights.
    """
    if len(labels.unique()) == 1:  # what has seen one label gives no other
        return float((test_labels == labels[0]).double().mean())
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp(min=0.01)
    model = fit_readout((features - mean) / spread, labels, penalty)
    answers = torch.from_numpy(model.predict(_as_array((test_features - mean) / spread)))
    return float((answers == test_labels.cpu()).double().mean())


def fit_readout(features: Tensor, labels: Tensor, penalty: float) -> Any:
    """The logistic regression, fitted by scikit-learn in float64: a `LogisticRegression`."""
    from sklearn.linear_model import LogisticRegression

    # It minimises C times the summed cross-entropy plus half of the squared weights.
    model = LogisticRegression(C=1 / (2 * penalty * len(features)), tol=1e-6, max_iter=2000)
    return model.fit(_as_array(features), labels.cpu().numpy())


def _as_array(features: Tensor) -> Any:
    return features.double().cpu().numpy()


def _bright(dataset: TensorDataset, device: torch.device, side: int = 28) -> tuple[Tensor, Tensor]:
    """Pixels `[B, side * side]` from 0 to 1, and labels."""
    images, labels = as_tensors(dataset, device)
    if images.shape[-1] != side:
        images = F.avg_pool2d(images.view(-1, 1, 28, 28), 28 // side)
    return (images.flatten(1) + 0.5).clamp(0, 1), labels


# --- With labels, afterwards -----------------------------------------------------------------------

STARTS = ("as drawn", "pretrained", "shuffled")


def labels_trial(
    start: str,
    n_labels: int,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float,
    unlabelled_rate: float,
    start_scale: float = 0.1,
    n_train: int = 2000,
    n_hidden: int = 200,
    epochs: int = 2,
    batch_size: int = 50,
    n_updates: int = 300,
    side: int = 28,
) -> dict[str, Any]:
    """Train a network of two layers by backpropagation from one of `STARTS`; recorded for chapter 14.

    It is ordinary: its hidden neurons say how probable it is that they are on. Of `n_train` digits it is shown the
    labels of the first `n_labels`, in `n_updates` batches. It starts with Xavier's uniform weights ("as drawn"),
    or as the rhythm has left it, which saw all `n_train` digits without labels ("pretrained"); or with the
    latter's weights after each neuron has dealt its own out among the pixels anew ("shuffled"). The read-out starts
    at 0.

    Returns a row with the `accuracy` on `test`.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(map(repr, STARTS))}, not {start!r}")
    generator = seeded(seed)
    pixels, labels = _bright(draw_subset(train, n_train, seed), torch.device("cpu"), side)
    test_pixels, test_labels = _bright(test, torch.device("cpu"), side)
    machine = start_machine((pixels.shape[1], n_hidden), pixels, generator, start_scale)
    if start == "as drawn":
        bound = math.sqrt(6 / (pixels.shape[1] + n_hidden))
        weight = bound * (2 * torch.rand(n_hidden, pixels.shape[1], generator=generator) - 1)
        machine = centred(Machine((weight,), machine.biases))
    else:
        n_batches = n_train // batch_size
        for _ in range(epochs):
            for chosen in torch.randperm(n_train, generator=generator).split(batch_size)[:n_batches]:
                machine = train_once(machine, pixels[chosen], "rhythm", 0.0, 0, unlabelled_rate, 10, 0.5, 2, generator)
    if start == "shuffled":
        machine = dealt_out(machine, generator)
    parts = [machine.weights[0].clone(), machine.biases[1].clone(), torch.zeros(10, n_hidden), torch.zeros(10)]
    parts = [part.requires_grad_() for part in parts]
    for _ in range(n_updates):
        chosen = torch.randint(0, n_labels, (batch_size,), generator=generator)
        loss = F.cross_entropy(_answers(parts, pixels[chosen]), labels[chosen])
        slopes = torch.autograd.grad(loss, parts)
        with torch.no_grad():
            for part, slope in zip(parts, slopes):
                part -= learning_rate * slope
    with torch.no_grad():
        right = _answers(parts, test_pixels).argmax(dim=1).eq(test_labels)
    return {"start": start, "n_labels": n_labels, "seed": seed, "accuracy": right.double().mean().item()}


def dealt_out(machine: Machine, generator: torch.Generator) -> Machine:
    """Each hidden neuron's weights in a random order, its bias such that the mean image drives it as before."""
    (weight,), (shown, bias) = machine
    places = torch.rand(weight.shape, generator=generator).argsort(dim=1)
    dealt = weight.gather(1, places)
    return Machine((dealt,), (shown, bias + (weight - dealt) @ torch.sigmoid(shown)))


def _answers(parts: Sequence[Tensor], pixels: Tensor) -> Tensor:
    weight, bias, out_weight, out_bias = parts
    return torch.sigmoid(pixels @ weight.T + bias) @ out_weight.T + out_bias


# --- The small machine ----------------------------------------------------------------------------

# How the machine of 6 and 4 neurons learns the five pictures: (steps in each half, decay, rest) of the rhythms.
LEARNERS: dict[str, tuple[int, float, int] | None] = {
    "exact gradient": None,
    "CD-1": None,
    "rhythm, no memory, no rest": (10, 0.0, 0),
    "rhythm, decay 0.5, rest 2": (10, 0.5, 2),
    "transition, decay 0.5, rest 2": (10, 0.5, 2),
    "transition, decay 0.9, rest 10": (30, 0.9, 10),
}
NEURONS = {"no memory, no rest": (0.0, 0), "decay 0.5, rest 2": (0.5, 2)}
MOMENTS = (0, 75, 300)  # updates after which the free half is looked into
HALVES = (60, 200)  # how long it lasts then


def five_pictures() -> Tensor:
    """The upper and the lower row of two rows by three pixels, and each of the three columns: `[5, 6]`."""
    pictures = torch.zeros(5, 2, 3, dtype=torch.float64)
    for row in range(2):
        pictures[row, row] = 1
    for column in range(3):
        pictures[2 + column, :, column] = 1
    return pictures.flatten(1)


def divergence(machine: Machine, data: Tensor) -> float:
    """Kullback-Leibler, in nats, from equally likely different rows of 0 and 1 to the machine's visible layer."""
    n_visible = data.shape[1]
    probabilities = distribution(machine)[1].view(-1, 2**n_visible).sum(dim=0)
    codes = (data.long() << torch.arange(n_visible)).sum(dim=1)
    return -math.log(len(data)) - probabilities[codes].log().mean().item()


def free_half_of(
    machine: Machine,
    data: Tensor,
    n_steps: int,
    decay: float,
    rest: int,
    generator: torch.Generator,
    n_copies: int = 2000,
    n_cycles: int = 3,
) -> tuple[float, float]:
    """The free half's correlations as a share of the true ones; the cosine of update and exact gradient.

    Both are of the mean over `n_cycles` cycles, each picture shown to `n_copies` in each, in halves of `n_steps`.
    """
    layers, probabilities = distribution(machine)
    true = _weighted(layers, probabilities)
    correlated = true.weights[0] - torch.outer(true.biases[1], true.biases[0])
    found, asked = torch.zeros_like(correlated), torch.zeros_like(flat(true))
    for _ in range(n_cycles):
        cycle = rhythm_cycle(machine, data.repeat(n_copies, 1), n_steps, decay, rest, generator)
        counts = coincidences([on[n_steps // 2 :] for on in cycle.free.on])
        found += (counts.weights[0] - torch.outer(counts.biases[1], counts.biases[0])) / n_cycles
        asked += flat(cycle.gradient) / n_cycles
    turned = F.cosine_similarity(asked, flat(exact_gradient(machine, data)), dim=0)
    return (found * correlated).sum().item() / correlated.square().sum().item(), turned.item()


def small_trial(
    learner: str, seed: int, *, n_updates: int = 300, learning_rate: float = 1.0, n_copies: int = 20
) -> dict[str, Any]:
    """The machine of 6 and 4 neurons learns the five pictures by one of `LEARNERS`; recorded for chapter 14.

    The same start for all learners of a seed, weights of standard deviation 0.1; each picture is shown to `n_copies`.

    Returns a row: the `divergence` after each ten updates; for the exact gradient, at `MOMENTS`, what
    `free_half_of` finds with each of `NEURONS` in halves of each of `HALVES`.
    """
    if learner not in LEARNERS:
        raise ValueError(f"learner must be one of {', '.join(map(repr, LEARNERS))}, not {learner!r}")
    generator = seeded(seed)
    machine, data = draw_machine((6, 4), 0.1, generator, torch.float64), five_pictures()
    few, settings = data.repeat(n_copies, 1), LEARNERS[learner]

    def update() -> Machine:
        if settings is None:
            exact = learner == "exact gradient"
            return exact_gradient(machine, data) if exact else cd_gradient(machine, few, 1, generator)[0]
        if learner.startswith("transition"):
            return transition_cycle(machine, few, *settings, generator)
        return rhythm_cycle(machine, few, *settings, generator).gradient

    found, moments = [], {}
    for number in range(n_updates + 1):
        if number % 10 == 0:
            found.append(divergence(machine, data))
        if learner == "exact gradient" and number in MOMENTS:
            moments[str(number)] = {
                kind: {str(n_steps): free_half_of(machine, data, n_steps, *neurons, generator) for n_steps in HALVES}
                for kind, neurons in NEURONS.items()
            }
        machine = step_along(machine, update(), learning_rate)
    return {"learner": learner, "seed": seed, "divergence": found} | ({"moments": moments} if moments else {})


# --- The records ----------------------------------------------------------------------------------

# Small enough for a fine tuning on three seeds: 14 x 14 pixels, 2,000 images. All rules start alike.
START = 0.1  # standard deviation of the weights
SMALL: dict[str, Any] = {"n_train": 2000, "batch_size": 50, "side": 14, "start_scale": START}
# Each rule, and about where its best learning rate is.
RULES = {
    "cd": 0.39,
    "rhythm": 0.47,
    "rhythm, no memory": 0.39,
    "no free half": 0.001,
    "covariance": 0.022,
    "Oja": 0.022,
    "greedy": 0.56,
    "fast": 0.68,
    "fast and slow": 0.68,
    "slow": 0.47,
}
WITH_SLOW = ("fast", "fast and slow")
FEW_LABELS = (100, 1000)
LABELS_SEEDS = (*range(5), *range(20, 35))  # of the comparison with labels
READINGS = ("accuracy", "spike_accuracy")  # by probabilities, and by spikes


def held_out_digits() -> tuple[TensorDataset, TensorDataset]:
    """50,000 training images and 5,000 others that stand for the test: settings are never chosen on test images."""
    train, _ = whole_mnist()
    return examples(train, 50_000), examples(train, 50_000, 55_000)


def measure_boltzmann_held_out(**settings: Any) -> dict[str, Any]:
    """As `digits_trial`; weights that are never taught are read from spikes as well."""
    train, held_out = held_out_digits()
    n_spiking = 1000 if settings["arm"] in UNTAUGHT else 0
    return digits_trial(train=train, test=held_out, n_spiking=n_spiking, **(SMALL | settings))


def measure_boltzmann(**settings: Any) -> dict[str, Any]:
    """As `digits_trial`, on digits of MNIST and its whole test set."""
    train, test = whole_mnist()
    return digits_trial(train=train, test=test, **(SMALL | settings))


def unlabelled_rate() -> float:
    """The rhythm's own best learning rate, by features alone."""
    return choose(scores_of(load_results("14_tuning")["trials"], measure="accuracy", arm="rhythm", epochs=2))


def measure_labels_held_out(**settings: Any) -> dict[str, Any]:
    """As `labels_trial`, on training images held out."""
    train, held_out = held_out_digits()
    return labels_trial(train=train, test=held_out, unlabelled_rate=unlabelled_rate(), **(SMALL | settings))


def measure_labels(**settings: Any) -> dict[str, Any]:
    """As `labels_trial`, on the whole test set."""
    train, test = whole_mnist()
    return labels_trial(train=train, test=test, unlabelled_rate=unlabelled_rate(), **(SMALL | settings))


def boltzmann_tuning() -> list[dict[str, Any]]:
    """Each rule's learning rate by what can be read from probabilities; the size of random weights by each reading."""
    rules = [({"arm": arm, "epochs": 2}, start) for arm, start in RULES.items()]
    rules += [({"arm": arm, "epochs": 4}, RULES[arm]) for arm in WITH_SLOW]
    random = [({"arm": arm, "epochs": 0}, 1.0) for arm in UNTAUGHT]
    trials = tuning_trials("14_tuning", rules, measure="accuracy", floor=0.15)
    for reading in READINGS:
        found = tuning_trials("14_tuning", random, setting="scale", measure=reading, floor=0.15)
        trials += [trial for trial in found if trial not in trials]
    return trials


def _chosen(arm: str, epochs: int = 2) -> dict[str, Any]:
    rows = load_results("14_tuning")["trials"]
    if arm == "pixels":
        return {"arm": arm}
    rate = choose(scores_of(rows, measure="accuracy", arm=arm, epochs=epochs))
    return {"arm": arm, "epochs": epochs, "learning_rate": rate}


def best_untaught(reading: str) -> dict[str, Any]:
    """Of random weights, the biases and the size that are best for one of `READINGS` on held-out images."""
    rows = load_results("14_tuning")["trials"]
    scores = {arm: scores_of(rows, "scale", reading, arm=arm, epochs=0) for arm in UNTAUGHT}
    sizes = {arm: choose(found) for arm, found in scores.items()}
    best = max(UNTAUGHT, key=lambda arm: means(scores[arm])[sizes[arm]])
    return {"arm": best, "scale": sizes[best]}


def boltzmann_trials() -> list[dict[str, Any]]:
    """Each arm at its best setting on held-out images, random weights for each reading; and what all start with."""
    best = [_chosen(arm) for arm in ARMS if arm not in UNTAUGHT]
    for settings in (*map(best_untaught, READINGS), {"arm": "random, as drawn", "scale": START}):
        if settings not in best:
            best.append(settings)
    return [{**settings, "seed": seed} for seed in range(5) for settings in best]


def longer_boltzmann_trials() -> list[dict[str, Any]]:
    """What 14_digits compares for slow cycles, with twice as many epochs, each at its best rate for them."""
    best = [_chosen(arm, 4) for arm in WITH_SLOW]
    return [{**settings, "seed": seed} for seed in range(5) for settings in best]


def small_start_trials() -> list[dict[str, Any]]:
    """The rhythm and its ordinary rival from weights of a tenth of the size, at the rates of 14_digits."""
    best = [_chosen(arm) | {"start_scale": START / 10} for arm in ("cd", "rhythm")]
    return [{**settings, "seed": seed} for seed in range(5) for settings in best]


def labels_tuning() -> list[dict[str, Any]]:
    """The learning rate of each start, for each number of labels."""
    variants = [({"start": start, "n_labels": n}, 1.8) for n in FEW_LABELS for start in STARTS]
    return tuning_trials("14_labels_tuning", variants, measure="accuracy", floor=0.15)


def labels_trials() -> list[dict[str, Any]]:
    """Each start at its best learning rate for that number of labels."""
    rows = load_results("14_labels_tuning")["trials"]
    best = [
        {
            "start": start,
            "n_labels": n,
            "learning_rate": choose(scores_of(rows, measure="accuracy", start=start, n_labels=n)),
        }
        for n in FEW_LABELS
        for start in STARTS
    ]
    return [{**settings, "seed": seed} for seed in LABELS_SEEDS for settings in best]


RECORDS: dict[str, Record] = {
    "14_small": Record(
        "6 visible and 4 hidden neurons learn five pictures, by the exact gradient and by rules that estimate it",
        small_trial,
        [{"learner": learner, "seed": seed} for seed in range(10) for learner in LEARNERS],
    ),
    "14_tuning": Record(
        "196-200 and 196-100-100, trained without labels on 2,000 images of 14 x 14 pixels, each rule at several"
        " learning rates: 5,000 training images held out as 'test'",
        measure_boltzmann_held_out,
        boltzmann_tuning,
    ),
    "14_digits": Record(
        "196-200 and 196-100-100, trained without labels on 2,000 images of 14 x 14 pixels, each rule at its best"
        " learning rate of 14_tuning: a linear read-out tested on all 10,000 test images",
        measure_boltzmann,
        boltzmann_trials,
    ),
    "14_longer": Record(
        "As 14_digits, four epochs instead of two and tuned for them: two levels by fast cycles, with and without slow"
        " ones",
        measure_boltzmann,
        longer_boltzmann_trials,
    ),
    "14_start": Record(
        "As 14_digits, from weights of standard deviation 0.01 instead of 0.1: the rhythm and the ordinary RBM",
        measure_boltzmann,
        small_start_trials,
    ),
    "14_labels_tuning": Record(
        "196-200-10 trained by backpropagation on few labels from three starts, at several learning rates: 5,000"
        " training images held out as 'test'",
        measure_labels_held_out,
        labels_tuning,
    ),
    "14_labels": Record(
        "As 14_labels_tuning, each start at its best learning rate, tested on all 10,000 test images",
        measure_labels,
        labels_trials,
    ),
}
