"""Where random numbers come from: an explicit generator, wherever it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .checks import source, whole


def seeded(seed: Any, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that starts at `seed`, a whole number of 0 or more.

    On a GPU it draws there; for any other device it draws on the CPU, so that a seed means the same everywhere.
    """
    home = "cuda" if torch.device(device).type == "cuda" else "cpu"
    return torch.Generator(home).manual_seed(whole("seed", seed, least=0, most=2**63 - 1))


def draw_uniform(tensor: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill a parameter with draws between `-bound` and `bound`, made where the generator is."""
    with torch.no_grad():
        if (generator := source(generator)) is None or generator.device.type == tensor.device.type:
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            drawn = torch.empty_like(tensor, device=generator.device)
            tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))
