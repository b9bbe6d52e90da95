"""Random numbers for the flicker, many at a time; the reasons are derived in `performance`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..long.checks import source

LEVELS = 2**16  # of the flicker: a draw is a multiple of 1 / LEVELS
CACHED_VALUES = 2**20  # numbers worked on at a time: 4 MB of them stay in the cache


def steps_at_once(n_values: int, device: torch.device) -> int:
    """How many steps of `n_values` numbers each to work on at a time; on a GPU all, to start few kernels."""
    return max(1, CACHED_VALUES // n_values) if device.type == "cpu" else 2**31


def words_for(n_values: int) -> int:
    """Draws of 64 bits for one step of `n_values`; steps never share a draw, so that they can be drawn one by one."""
    return math.ceil(n_values / 4)


def draw_words(words: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fill `words` `[steps, words_for(n)]` int64; as int16, each piece is uniform in -32,768 to 32,767."""
    # "From the smallest number on": without it, random_ leaves the sign bit at 0.
    if (generator := source(generator)) is None or generator.device.type == words.device.type:
        return words.random_(-(2**63), None, generator=generator)
    drawn = torch.empty(words.shape, dtype=torch.int64, device=generator.device)
    return words.copy_(drawn.random_(-(2**63), None, generator=generator))


def uniform_masks(
    n_steps: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """`[n_steps, *shape]` uniform in [0, 1), multiples of 2^-16, or as fine as a shorter dtype allows."""
    masks = torch.empty(n_steps, *shape, dtype=dtype, device=device)
    n_values = math.prod(shape)
    if n_values == 0:
        return masks
    digits = min(16, 1 - round(math.log2(torch.finfo(dtype).eps)))
    at_once = min(n_steps, steps_at_once(n_values, device))
    words = torch.empty(at_once, words_for(n_values), dtype=torch.int64, device=device)
    for part in masks.view(n_steps, n_values).split(at_once):
        pieces = draw_words(words[: len(part)], generator).view(torch.int16)[:, :n_values]
        if digits < 16:  # as coarse as the dtype, so that rounding never makes a 1
            pieces = pieces >> (16 - digits)
        part.copy_(pieces).add_(2 ** (digits - 1)).mul_(2.0**-digits)
    return masks
