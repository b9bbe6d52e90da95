"""Training that has failed is stopped at once: before the weights are spoilt, and before they are kept."""

from __future__ import annotations

import math

import torch
from torch import nn


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message says where, and what to try."""


def check_loss(loss: float, n_before: int, batches_per_epoch: int, learning_rate: float) -> None:
    """Raise `TrainingDiverged` unless the loss of the batch after the first `n_before` ones is finite."""
    if not math.isfinite(loss):
        epoch, batch = divmod(n_before, batches_per_epoch)
        raise TrainingDiverged(
            f"the loss is {loss} in epoch {epoch + 1}, batch {batch + 1}, at the learning rate {learning_rate}. Try a"
            " smaller learning rate; if that does not help, look for NaN in the images and weights."
        )


def check_weights(model: nn.Module, n_batches: int, learning_rate: float) -> None:
    """Raise `TrainingDiverged` unless all weights are finite after `n_batches`."""
    if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
        raise TrainingDiverged(
            f"the weights are no longer finite after {n_batches} batches. Try a smaller learning rate than"
            f" {learning_rate}."
        )
