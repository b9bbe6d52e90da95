"""Where a network runs; first used in chapter 01."""

from __future__ import annotations

import torch


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device by name; `"auto"` is the GPU if torch can use one, else the CPU.

    Raises `ValueError` for a GPU where torch sees none; what is no device's name is torch's own `RuntimeError`.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    picked = torch.device(device)
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but torch sees no CUDA GPU here; use 'auto' or 'cpu'")
    return picked
