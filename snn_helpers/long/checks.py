"""Numbers at the door: what is taken, what is refused, and in which words."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat, cast

import torch
from torch import Tensor, nn


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


def flag(name: str, value: Any) -> bool:
    """`value`, True or False, as a plain bool; NumPy's and torch's are taken."""
    plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if not isinstance(plain, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__} ({value!r})")
    return plain


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


def classes(labels: Any, n_examples: int, n_classes: int) -> Tensor:
    """`labels`, which must be classes `[n_examples]` from 0 to `n_classes - 1`, as int64."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a torch.Tensor, not {type(labels).__name__}")
    if labels.shape != (n_examples,):
        raise ValueError(f"labels must have the shape [{n_examples}], one an example, not {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be whole numbers, the classes from 0, as torch.int64, not {labels.dtype}")
    if n_examples == 0:
        raise ValueError("there must be at least one example, but there is none")
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < n_classes:
            raise ValueError(f"labels must lie between 0 and {n_classes - 1}, the classes, but one is {extreme}")
    return labels.long()


def shown(frames: Any, labels: Any, begin_eval: int, n_classes: int) -> Tensor:
    """The labels `[B]`, once frames `[T, B, n]` and they can be shown to a network that reads from `begin_eval` on."""
    time_first("frames", frames)
    if len(frames) < 2 or len(frames) <= begin_eval:
        raise ValueError(
            f"frames must have at least 2 steps, and more than begin_eval ({begin_eval}), not {len(frames)}"
        )
    return classes(labels, frames.shape[1], n_classes)


def counted(values: Tensor, begin_eval: Any) -> Tensor:
    """The steps of `values` `[T, ...]` that count for an answer: those from `begin_eval` on, at least one."""
    return values[whole(f"begin_eval, of {len(values)} steps,", begin_eval, least=0, most=len(values) - 1) :]


def both(handed_out: Any, layer: Any) -> tuple[Tensor, Tensor]:
    """What a layer hands out, which must be `(states, outputs)`."""
    if not isinstance(handed_out, tuple) or len(handed_out) != 2:
        raise TypeError(
            "each layer of a spiking network must hand out (states, outputs), as SpikingLayer does;"
            f" {type(layer).__name__} gives a {type(handed_out).__name__}"
        )
    return handed_out


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


def weight_and_bias(linear: Any) -> tuple[Tensor, Tensor] | None:
    """The two parameters of a plain `nn.Linear`; None for one that has others, is pruned, or has no bias.

    Never `linear.parameters()`, whose order is that of registration: to prune for good puts the weight last.
    """
    plain = type(linear) is nn.Linear and set(linear._parameters) == {"weight", "bias"} and linear.bias is not None
    if not plain or "forward" in vars(linear):  # a forward of its own may do anything
        return None
    return linear.weight, linear.bias


def source(generator: Any) -> torch.Generator | None:
    """`generator`, where random numbers come from; None is torch's global one."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    raise TypeError(
        f"generator must be a torch.Generator or None, not {type(generator).__name__} ({generator!r}); of a seed make"
        " one by torch.Generator().manual_seed(seed)"
    )


def flat(images: Tensor) -> Tensor:
    """Images `[B, ...]` as rows `[B, n_pixels]`."""
    if floating("images", images).dim() < 2:
        raise ValueError(f"images must have the batch first, such as [batch, 1, 28, 28], not {list(images.shape)}")
    return images.flatten(1)
