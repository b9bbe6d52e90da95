"""Plain Python values in place of NumPy's and torch's, so that whatever is written can be read again."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from typing import Any, SupportsFloat, cast

from .checks import real


def bare(value: Any) -> Any:
    """What an array or tensor without dimensions holds; any other value as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def plain(value: Any) -> Any:
    """The same in bool, int, float, str, None, lists and dicts; `TypeError` for what has no such form."""
    value = bare(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    if isinstance(value, numbers.Real):
        return float(cast(SupportsFloat, value))
    if isinstance(value, Mapping):
        return {plain(name): plain(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(
        f"a {type(value).__name__} ({value!r:.80}) cannot be kept: give numbers, words, and lists or dicts of them"
    )


def significant(value: Any, digits: int) -> Any:
    """The same with `digits` significant digits in each float, in lists and dicts too: a record need hold no more."""
    if isinstance(value, dict):
        return {name: significant(part, digits) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [significant(part, digits) for part in value]
    return float(f"{value:.{digits}g}") + 0.0 if isinstance(value, float) else value  # + 0.0: no minus zeros


def real_list(name: str, values: Any, each: str, least: float = -math.inf) -> list[float]:
    """The numbers of a sequence or array as a list of plain floats, each `least` or more; `each` says what for."""
    wanted = f"{name} must be a list that holds one number for each {each}"
    if isinstance(values, (str, bytes, Mapping)) or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{wanted}, not {type(values).__name__} ({values!r})")
    try:
        listed = list(values)
    except TypeError:
        raise TypeError(f"{wanted}, such as [{values!r}], not {type(values).__name__} ({values!r})") from None
    if not listed:
        raise ValueError(f"{wanted}; it is empty")
    return [real(f"{name}[{i}]", bare(value), least=least) for i, value in enumerate(listed)]


def limit(longest_gradient: Any) -> float | None:
    """The greatest length of a gradient as a plain float, or None; `ValueError` for one that is not above 0."""
    value = bare(longest_gradient)
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value) > 0):
        raise ValueError(f"longest_gradient must be above 0, or None for no limit, not {value!r}")
    return None if value is None else float(value)
