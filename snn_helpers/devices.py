"""Where a network runs, and where its random numbers come from; first used in chapter 01."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from ._check import whole

Given = ParamSpec("Given")
Found = TypeVar("Found")


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device by name; `"auto"` is the GPU if torch can use one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    picked = torch.device(device)
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but torch sees no CUDA GPU here; use 'auto' or 'cpu'")
    return picked


def seeded(seed: Any, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that starts at `seed`, a whole number of 0 or more.

    On a GPU it draws there; for any other device it draws on the CPU, so that a seed means the same everywhere.
    """
    home = "cuda" if torch.device(device).type == "cuda" else "cpu"
    return torch.Generator(home).manual_seed(whole("seed", seed, least=0, most=2**63 - 1))


def draw_uniform(tensor: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill a parameter with draws between `-bound` and `bound`, made where the generator is."""
    with torch.no_grad():
        if generator is None or generator.device.type == tensor.device.type:
            tensor.uniform_(-bound, bound, generator=generator)
        else:
            drawn = torch.empty_like(tensor, device=generator.device)
            tensor.copy_(drawn.uniform_(-bound, bound, generator=generator))


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which `torch.autocast` changes nothing: sums over time and gradients keep their precision."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def without_autocast(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """A function that measures, whose answers `torch.autocast` does not change."""

    @wraps(function)
    def measured(*args: Given.args, **settings: Given.kwargs) -> Found:
        with ExitStack() as contexts:
            for kind in ("cpu", "cuda"):
                contexts.enter_context(full_precision(torch.device(kind)))
            return function(*args, **settings)

    return measured
