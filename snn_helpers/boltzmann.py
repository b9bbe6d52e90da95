"""Boltzmann machines of neurons that fire or rest, and the rhythm that trains them; derived in chapter 11.

A machine is a stack of layers, the visible one first. Its states are 0 or 1, its energy
`-sum_l x[l+1] . W[l] x[l] - sum_l b[l] . x[l]`, and the probability of a state is proportional to
`exp(-energy)`. With one level of weights it is a restricted Boltzmann machine (RBM).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .engine import uniform_masks

MOST_ENUMERATED = 16  # neurons: 65,536 states


class Machine(NamedTuple):
    """Weights `[n_above, n_below]` of each level, biases `[n]` of each layer; also a gradient of both."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


class Activity(NamedTuple):
    """Where a rhythm stands: each layer's potentials, and for how many more steps its neurons are on; `[B, n]` each."""

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
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes must name two layers or more of one neuron or more, not {list(sizes)}")
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
    return Machine((machine.weights[level],), machine.biases[level : level + 2])


def step_along(machine: Machine, gradient: Machine, learning_rate: float) -> Machine:
    """The machine moved up the gradient."""
    return Machine(
        tuple(weight + learning_rate * slope for weight, slope in zip(machine.weights, gradient.weights)),
        tuple(bias + learning_rate * slope for bias, slope in zip(machine.biases, gradient.biases)),
    )


def flat(gradient: Machine) -> Tensor:
    """All weights and biases as one vector, to compare directions."""
    return torch.cat([part.flatten() for part in (*gradient.weights, *gradient.biases)])


def energy(machine: Machine, layers: Sequence[Tensor]) -> Tensor:
    """The energy `[...]` of states given layer by layer, `[..., n]` each."""
    total = layers[0] @ machine.biases[0]
    for weight, bias, below, above in zip(machine.weights, machine.biases[1:], layers, layers[1:]):
        total = total + ((above @ weight) * below).sum(dim=-1) + above @ bias
    return -total


# --- Exact, by enumeration -------------------------------------------------------------------------


def all_states(n: int) -> Tensor:
    """Every state of n neurons, `[2**n, n]` float64; row `s` holds the binary digits of s, the lowest first."""
    if not 1 <= n <= MOST_ENUMERATED:
        raise ValueError(f"n must lie between 1 and {MOST_ENUMERATED}, as there are 2**n states, not {n}")
    return ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1).double()


def distribution(machine: Machine) -> tuple[list[Tensor], Tensor]:
    """Every state of a small machine, layer by layer `[2**N, n]`, and its probability `[2**N]`.

    The visible layer holds the lowest binary digits of a state's number.
    """
    sizes = [len(bias) for bias in machine.biases]
    like = machine.weights[0]
    layers = list(all_states(sum(sizes)).to(like).split(sizes, dim=1))
    return layers, torch.softmax(-energy(machine, layers), dim=0)


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
    return torch.sigmoid(visible @ machine.weights[0].T + machine.biases[1])


def visible_given(machine: Machine, hidden: Tensor) -> Tensor:
    """How probable it is that each visible neuron is on, `[B, n_visible]`, given the layer above."""
    return torch.sigmoid(hidden @ machine.weights[0] + machine.biases[0])


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
    if len(machine.weights) != 1:
        raise ValueError(f"contrastive divergence takes one level at a time, not {len(machine.weights)}: see one_level")
    if k < 1:
        raise ValueError(f"k must be 1 or more steps, not {k}")
    _check_visible(machine, data)
    visible = data if chains is None else chains
    for _ in range(k):
        hidden = bernoulli(hidden_given(machine, visible), generator)
        visible = bernoulli(visible_given(machine, hidden), generator)
    together = [_together(values, hidden_given(machine, values)) for values in (data, visible)]
    return _difference(*together), visible


def _together(visible: Tensor, hidden: Tensor) -> Machine:
    return Machine((hidden.T @ visible / len(visible),), (visible.mean(dim=0), hidden.mean(dim=0)))


def bernoulli(probability: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """1 with the given probability, else 0; the generator may live on another device."""
    drawn = uniform_masks(1, probability.shape, probability.dtype, probability.device, generator)[0]
    return (drawn < probability).to(probability.dtype)


# --- The rhythm ------------------------------------------------------------------------------------


def at_rest(machine: Machine, n_batch: int) -> Activity:
    """All potentials 0, and no neuron on."""
    zeros = tuple(bias.new_zeros(n_batch, len(bias)) for bias in machine.biases)
    return Activity(zeros, zeros)


def half_cycle(
    machine: Machine,
    activity: Activity,
    n_steps: int,
    pixels: Tensor | None = None,
    decay: float = 0.0,
    rest: int = 0,
    generator: torch.Generator | None = None,
) -> HalfCycle:
    """Run leaky neurons that fire at random for one half of a cycle; derived in chapter 11.

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
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be 0 or more and less than 1, not {decay}")
    if rest < 0 or n_steps < 1:
        raise ValueError(f"rest must be 0 or more steps and n_steps 1 or more, not {rest} and {n_steps}")
    if pixels is not None:
        _check_visible(machine, pixels)
        if pixels.min() < 0 or pixels.max() > 1:
            raise ValueError(f"pixels must lie between 0 and 1, not {pixels.min():.3g} to {pixels.max():.3g}")
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
    """One cycle: a half that shows the data, a half that runs free from there, and their difference; from chapter 11.

    Each half has `n_steps` steps. Neurons settle in the first half of them and learn in the second, where
    `coincidences` are counted: added while the data are shown, subtracted while the machine runs free.
    """
    start = at_rest(machine, len(pixels)) if activity is None else activity
    data = half_cycle(machine, start, n_steps, pixels, decay, rest, generator)
    free = half_cycle(machine, data.activity, n_steps, None, decay, rest, generator)
    n_learning = n_steps - n_steps // 2
    data_on, free_on = (tuple(layer[-n_learning - 1 :] for layer in half.on) for half in (data, free))
    return Cycle(_difference(coincidences(data_on), coincidences(free_on)), data, free, rates(data), rates(free))


def rates(half: HalfCycle) -> tuple[Tensor, ...]:
    """The share of the time for which each neuron was on, `[B, n]` for each layer, in the half's second half."""
    n_steps = len(half.steps_left[0]) - 1
    return tuple((left[1 + n_steps // 2 :] > 0).to(left.dtype).mean(dim=0) for left in half.steps_left)


def coincidence_window(delay: Tensor, rest: int) -> Tensor:
    """What one pair of spikes adds to the counts of `coincidences`, by its delay in steps; derived in chapter 11.

    Two neurons, each on for `rest + 1` steps from its spike, overlap for `rest + 1 - |delay|` steps; heard one
    step later, in either order, this is the mean of that triangle moved by a step to each side.
    """
    length = rest + 1
    return ((length - (delay - 1).abs()).clamp(min=0) + (length - (delay + 1).abs()).clamp(min=0)) / 2


def _home(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


def _check_visible(machine: Machine, values: Tensor) -> None:
    n_visible = len(machine.biases[0])
    if values.dim() != 2 or values.shape[1] != n_visible or len(values) == 0:
        raise ValueError(
            f"data must have the shape [examples, {n_visible}], one column for each visible neuron,"
            f" not {list(values.shape)}"
        )
