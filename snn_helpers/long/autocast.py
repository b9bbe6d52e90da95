"""What a model answers where `torch.autocast` may be on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def answer(model: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """The model's log-probabilities for images, in float32 at least: a loss in 8 bits of precision would say little."""
    # Autocast keeps the weights that it has rounded. It would go on with them after a step has changed the weights,
    # and with those of a test, which have no gradient, in the training after it.
    torch.clear_autocast_cache()
    log_probs: Tensor = model(images, generator=generator)
    torch.clear_autocast_cache()
    return log_probs.float() if log_probs.dtype in (torch.float16, torch.bfloat16) else log_probs
