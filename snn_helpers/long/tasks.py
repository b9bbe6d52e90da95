"""Tasks that are drawn anew for each batch, digits and patterns told apart by time; and the rate to learn them at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..encoding import flicker
from .examples import stored

Task = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def digits_task(train: TensorDataset, n_steps: int, device: torch.device) -> Task:
    """Draws `n` digits at random: `task(n, generator)` gives flickering frames `[T, n, 784]` and labels `[n]`."""
    images, labels = (part.to(device) for part in stored(train))

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (n,), generator=generator, device="cpu").to(device)
        return flicker(images[chosen].flatten(1), n_steps, generator), labels[chosen]

    return draw


def patterns_task(
    n_steps: int,
    device: torch.device,
    generator: torch.Generator,
    n_inputs: int = 200,
    n_pulses: int = 3,
    free: bool = False,
) -> Task:
    """Ten fixed patterns of pulses; `task(n, generator)` gives frames `[T, n, n_inputs]` of zeros and ones, and labels.

    Each input fires `n_pulses` times in each pattern, so that nothing but time tells them apart. With `free`, each
    place for a pulse is taken or not by itself, `n_pulses` of them in the mean: the number of pulses tells, too. In
    each example each pulse is moved by at most one step at random. Raises ValueError for too few steps.
    """
    if n_steps < 3 * n_pulses + 1:
        raise ValueError(
            f"n_steps must be at least {3 * n_pulses + 1}, three for each of the {n_pulses} pulses and one more, not"
            f" {n_steps}"
        )
    # Two free steps between the places of an input: moved, pulses can neither meet nor leave the time.
    n_places = (n_steps - 1) // 3
    draws = torch.rand(10, n_inputs, n_places, generator=generator, device="cpu")
    taken = draws < n_pulses / n_places if free else draws.argsort(dim=-1).argsort(dim=-1) < n_pulses
    pulses, places = taken.to(torch.get_default_dtype()), 3 * torch.arange(n_places, device="cpu") + 1

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (n,), generator=generator, device="cpu")
        moved = places + torch.randint(-1, 2, (n, n_inputs, n_places), generator=generator, device="cpu")
        frames = torch.zeros(n, n_inputs, n_steps, device="cpu").scatter_(2, moved, pulses[labels])
        return frames.permute(2, 0, 1).contiguous().to(device), labels.to(device)

    return draw


def falling_rate(learning_rate: float, update: int, n_updates: int) -> float:
    """The rate at an update of `n_updates`: it falls to a half after one third of them, and to a tenth after two.

    `update` is 0 or more, and less than `n_updates`.
    """
    return learning_rate * (1.0, 0.5, 0.1)[3 * update // n_updates]
