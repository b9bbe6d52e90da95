"""What a model answers where `torch.autocast` may be on, and gradients where they may be off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

# A decorator for what needs gradients, also where its caller is under `torch.no_grad` or `torch.inference_mode`.
with_gradients = torch.inference_mode(False)


def answer(model: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """The model's log-probabilities for images, in float32 at least: a loss in 8 bits of precision would say little."""
    # Autocast keeps the weights that it has rounded. It would go on with them after a step has changed the weights,
    # and with those of a test, which have no gradient, in the training after it.
    torch.clear_autocast_cache()
    log_probs: Tensor = model(images, generator=generator)
    torch.clear_autocast_cache()
    return log_probs.float() if log_probs.dtype in (torch.float16, torch.bfloat16) else log_probs


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which `torch.autocast` changes nothing: sums over time and gradients keep their precision."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
