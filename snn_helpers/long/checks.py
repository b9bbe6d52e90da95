"""Numbers at the door: what is taken, what is refused, and in which words."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat, cast

import torch
from torch import Tensor


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as a plain int, `least` to `most`; NumPy's integers are taken, and no checkpoint then holds them.

    Raises `TypeError` for what is no whole number, `ValueError` for one out of bounds.
    """
    if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r})")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__} ({value!r})") from None
    if most is not None and not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most}, not {number}")
    if number < least:
        raise ValueError(f"{name} must be {least} or more, not {number}")
    return number


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf, above: float | None = None) -> float:
    """`value` as a plain, finite float, `least` to `most` and, if given, more than `above`.

    Raises `TypeError` for what is no real number, `ValueError` for one out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__} ({value!r})")
    number = float(cast(SupportsFloat, value))
    if least > -math.inf and most < math.inf and not least <= number <= most:
        raise ValueError(f"{name} must lie between {least:g} and {most:g}, not {number}")
    if above is not None and not (number > above and number < math.inf):
        raise ValueError(f"{name} must be a finite number above {above:g}, not {number}")
    if not (math.isfinite(number) and least <= number <= most):
        least_told = f" of {least:g} or more" if least > -math.inf else ""
        raise ValueError(f"{name} must be a finite number{least_told}, not {number}")
    return number


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """`value`, which must be one of the `allowed` words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value


def floating(name: str, value: Any) -> Tensor:
    """`value`, which must be a tensor of real, floating numbers."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype such as torch.float32, not {value.dtype}")
    return value


def time_first(name: str, value: Any, last: str = "n") -> Tensor:
    """`value`, which must be a floating tensor `[steps, batch, n]`, none of them 0."""
    tensor = floating(name, value)
    if tensor.dim() != 3 or 0 in tensor.shape:
        raise ValueError(
            f"{name} must have the shape [steps, batch, {last}], each at least 1, not {list(tensor.shape)}"
        )
    return tensor


def alike(**tensors: Tensor) -> None:
    """Raise unless the tensors have one shape, one dtype and one device."""
    (first_name, first), *others = tensors.items()
    for name, tensor in others:
        both = f"{first_name} and {name} must"
        if tensor.shape != first.shape:
            raise ValueError(
                f"{both} have one shape: {first_name} has {list(first.shape)}, {name} {list(tensor.shape)}"
            )
        if tensor.dtype != first.dtype:
            raise TypeError(f"{both} have one dtype: {first_name} has {first.dtype}, {name} {tensor.dtype}")
        if tensor.device != first.device:
            raise ValueError(f"{both} be on one device: {first_name} is on {first.device}, {name} on {tensor.device}")


def delays_and_spikes(delays: Sequence[int], earlier: Sequence[int] = ()) -> tuple[list[int], list[int]]:
    """Delays `t_post - t_pre` and how many steps before `t_post` a neuron also fired, as plain whole numbers."""
    given = {"delays": delays, "earlier": earlier}
    plain = [[whole(f"each of {name}", value, least=-(2**31)) for value in values] for name, values in given.items()]
    if not plain[0]:
        raise ValueError("delays must hold at least one delay")
    if any(value < 1 for value in plain[1]):
        raise ValueError(f"earlier must hold steps before t_post, each 1 or more, not {plain[1]}")
    return plain[0], plain[1]


def shown(frames: Any, labels: Tensor, begin_eval: int) -> None:
    """Raise unless frames `[T, B, n]` and labels `[B]` can be shown to a network that reads from `begin_eval` on."""
    time_first("frames", frames)
    if len(frames) < 2 or len(frames) <= begin_eval:
        raise ValueError(
            f"frames must have at least 2 steps, and more than begin_eval ({begin_eval}), not {len(frames)}"
        )
    if labels.shape != frames.shape[1:2]:
        raise ValueError(f"labels must have the shape [{frames.shape[1]}], one an example, not {list(labels.shape)}")


def layer_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of a network as plain numbers: inputs, hidden layers, classes."""
    try:
        found = tuple(whole("each of sizes", n) for n in sizes)
    except (TypeError, ValueError):
        found = ()
    if len(found) < 2:
        raise ValueError(
            f"sizes must hold two or more whole numbers of at least 1 (inputs, hidden layers, classes), not {sizes!r}"
        )
    return found


def flat(images: Tensor) -> Tensor:
    """Images `[B, ...]` as rows `[B, n_pixels]`."""
    if floating("images", images).dim() < 2:
        raise ValueError(f"images must have the batch first, such as [batch, 1, 28, 28], not {list(images.shape)}")
    return images.flatten(1)
