"""Tasks that are drawn anew for each batch: digits that flicker, and patterns told apart by time alone."""

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
    n_steps: int, device: torch.device, generator: torch.Generator, n_inputs: int = 200, n_pulses: int = 3
) -> Task:
    """Ten fixed patterns of pulses, told apart by nothing but time: each input fires `n_pulses` times in each.

    `task(n, generator)` gives frames `[T, n, n_inputs]` of zeros and ones, each pulse moved by at most
    one step at random, and labels `[n]`. Raises ValueError for too few steps.
    """
    if n_steps < 3 * n_pulses + 1:
        raise ValueError(
            f"n_steps must be at least {3 * n_pulses + 1}, three for each of the {n_pulses} pulses and one more, not"
            f" {n_steps}"
        )
    # Two free steps between the pulses of an input: moved, they can neither meet nor leave the time.
    slots = torch.rand(10, n_inputs, (n_steps - 1) // 3, generator=generator, device="cpu").argsort(dim=-1)[
        :, :, :n_pulses
    ]
    times = 3 * slots + 1

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (n,), generator=generator, device="cpu")
        moved = times[labels] + torch.randint(-1, 2, (n, n_inputs, n_pulses), generator=generator, device="cpu")
        frames = torch.zeros(n, n_inputs, n_steps, device="cpu").scatter_(2, moved, 1.0)
        return frames.permute(2, 0, 1).contiguous().to(device), labels.to(device)

    return draw
