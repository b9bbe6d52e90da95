"""Turning a still image into input that changes over time; derived in chapter 02."""

from __future__ import annotations

import torch
from torch import Tensor

from .fast.draws import uniform_masks
from .fast.scan import transformed
from .long.checks import floating, whole


def flicker(image: Tensor, n_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Show an image for `n_steps` steps, each pixel flickering at random; derived in chapter 02.

    At each step every value is multiplied by a fresh draw, uniform in [0, 1): one of 65,536 levels, k / 65,536 (of
    2,048 in float16, of 256 in bfloat16). A generator on the CPU gives the same draws whether the steps are drawn in
    one call or in several.

    Parameters
    ----------
    image : floating tensor of any shape, normalised as (pixel - 0.5) / 1.0.
    n_steps : 1 or more.
    generator : where the draws come from; torch's global one if None. It may live on another device than the image:
        the draws are then moved.

    Returns a tensor `[n_steps, *image.shape]`, of the image's dtype and device.
    Raises `TypeError` or `ValueError` for an image or a number of steps that does not fit.
    """
    floating("image", image)
    n_steps = whole("n_steps", n_steps)
    masks = uniform_masks(n_steps, image.shape, image.dtype, image.device, generator)
    # In place, since at full size this block is the largest of the whole book; torch.func.vmap knows no such thing.
    return masks * image if transformed() else masks.mul_(image)
