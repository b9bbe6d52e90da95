"""Turning a still image into input that changes over time; derived in chapter 02."""

from __future__ import annotations

import torch
from torch import Tensor


def flicker(image: Tensor, n_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Show an image for `n_steps` steps, each pixel flickering at random; derived in chapter 02.

    At each step every value is multiplied by a fresh draw, uniform in [0, 1).

    Parameters
    ----------
    image : floating tensor of any shape, normalised as (pixel - 0.5) / 1.0.
    n_steps : 1 or more.
    generator : where the draws come from; torch's global one if None. It may live on another
        device than the image: the draws are then moved.

    Returns
    -------
    Tensor `[n_steps, *image.shape]`, of the image's dtype and device.

    Raises
    ------
    TypeError, ValueError : for an image or a number of steps that does not fit.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        given = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image must be a floating tensor, not {given}")
    if isinstance(n_steps, bool) or not isinstance(n_steps, int):
        raise TypeError(f"n_steps must be a whole number, not {type(n_steps).__name__} ({n_steps!r})")
    if n_steps < 1:
        raise ValueError(f"n_steps must be 1 or more, not {n_steps}")
    device = image.device if generator is None else generator.device
    mask = torch.rand(n_steps, *image.shape, generator=generator, dtype=image.dtype, device=device)
    # In place, since at full size this block is the largest of the whole book.
    return mask.to(image.device).mul_(image)
