"""The measurements of chapter 11, one trial at a time: run live at a small size, recorded at full size."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from .boltzmann import (
    Machine,
    at_rest,
    cd_gradient,
    coincidences,
    draw_machine,
    half_cycle,
    hidden_given,
    one_level,
    rates,
    rhythm_cycle,
    step_along,
)
from .experiments import draw_subset
from .training import as_tensors, pick_device

# What is trained on the digits, all with 200 hidden neurons: in one level, or in two of 100.
ONE_LEVEL = ("random", "cd", "rhythm", "rhythm, no leak", "no free half")
STACKS = ("greedy", "fast", "fast and slow", "slow")
ARMS = ("pixels", *ONE_LEVEL, *STACKS)


def start_machine(sizes: tuple[int, ...], pixels: Tensor, generator: torch.Generator, scale: float = 0.01) -> Machine:
    """A machine that knows no more than how often each pixel is on; from chapter 11."""
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
    n_train: int = 4000,
    n_hidden: int = 200,
    epochs: int = 2,
    batch_size: int = 100,
    n_steps: int = 10,
    decay: float = 0.5,
    rest: int = 2,
    n_spiking: int = 1000,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train one of `ARMS` on digits without their labels, and see what it has learned; derived in chapter 11.

    Each batch is shown for 4 `n_steps` steps, whatever the arm: two cycles, or a slow one of twice the length.

    - `"random"`: weights of standard deviation `scale`, centred on the mean image, that are never changed;
    - `"cd"`: contrastive divergence, two updates for each batch, without neurons or time;
    - `"rhythm"`: `rhythm_cycle` on one level; `"rhythm, no leak"`: with neither leak nor rest;
    - `"no free half"`: as `"rhythm"`, with the data half alone, so that what is on together is only ever added;
    - `"greedy"`: the first level for half of the batches, then the second above it;
    - `"fast"`: the two levels at once, each by cycles of its own;
    - `"slow"`: by slow cycles, which span both levels; `"fast and slow"`: in turns.

    Returns a row: the `accuracy` of a linear read-out of the hidden layers, fitted to the labels of the same
    `n_train` images, of the top layer alone (`top_accuracy`), and from the spikes of one data half, on the
    first `n_spiking` test images (`spike_accuracy`); how far the free half strays from the image,
    (`free_error`, mean square) and the mean of the hidden layers' `rate` and the weights' `size`.
    """
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(map(repr, ARMS))}, not {arm!r}")
    device = pick_device(device)
    generator = torch.Generator(device=device if device.type == "cuda" else "cpu").manual_seed(seed)
    pixels, labels = _bright(draw_subset(train, n_train, seed), device)
    test_pixels, test_labels = _bright(test, device)
    row: dict[str, Any] = {"arm": arm, "seed": seed}
    if arm == "pixels":
        return row | {"accuracy": readout_accuracy(pixels, labels, test_pixels, test_labels)}
    sizes = (pixels.shape[1], n_hidden // 2, n_hidden // 2) if arm in STACKS else (pixels.shape[1], n_hidden)
    machine = start_machine(sizes, pixels, generator, scale if arm == "random" else 0.01)
    if arm == "random":
        machine = Machine(machine.weights, (machine.biases[0], -machine.weights[0] @ pixels.mean(dim=0)))
    if arm == "rhythm, no leak":
        decay, rest = 0.0, 0
    started = time.perf_counter()
    n_batches = n_train // batch_size
    for epoch in range(0 if arm == "random" else epochs):
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
    """What one batch teaches one of `ARMS`, once a share `done` of the training is over; from chapter 11."""
    if arm == "cd":
        for _ in range(2):
            machine = step_along(machine, cd_gradient(machine, pixels, 1, generator)[0], learning_rate)
        return machine
    if arm == "no free half":
        for _ in range(2):
            half = half_cycle(machine, at_rest(machine, len(pixels)), 2 * n_steps, pixels, decay, rest, generator)
            machine = step_along(machine, coincidences([layer[-n_steps - 1 :] for layer in half.on]), learning_rate)
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
    """A cycle for each of these levels, which hears nothing from above and is shown the activity below; chapter 11."""
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
    """Accuracy, 0 to 1, of a linear read-out of features `[B, n]`: multinomial logistic regression; from chapter 11.

    The features are brought to mean 0 and, where they vary by more than 0.01, to standard deviation 1. What is
    minimised is the mean cross-entropy plus `penalty` times the sum of the squared weights.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp(min=0.01)
    seen, seen_in_test = (features - mean) / spread, (test_features - mean) / spread
    weight, bias = fit_readout(seen, labels, penalty)
    return float(((seen_in_test @ weight.T + bias).argmax(dim=1) == test_labels).double().mean())


def fit_readout(features: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """The weights `[10, n]` and biases `[10]` of the logistic regression, by L-BFGS."""
    weight = torch.zeros(10, features.shape[1], dtype=features.dtype, device=features.device, requires_grad=True)
    bias = torch.zeros(10, dtype=features.dtype, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _bright(dataset: TensorDataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels `[B, 784]` from 0 to 1, and labels."""
    images, labels = as_tensors(dataset, device)
    return (images.flatten(1) + 0.5).clamp(0, 1), labels
