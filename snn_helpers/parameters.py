"""The bounds of a notebook's parameters, checked before anything is computed; first used in the introduction."""

from __future__ import annotations

from typing import Any

from .long.checks import real, whole


def in_bounds(**parameters: tuple[Any, ...]) -> None:
    """Raise unless each parameter is within its bounds: `n_steps=(n_steps, 10, 1000)`.

    Both bounds are allowed themselves. The number must be whole if both bounds are. A fourth entry says that the
    parameter is a list, with at least so many numbers. `TypeError` or `ValueError` says what to do.
    """
    for name, (value, least, most, *fewest) in parameters.items():
        check = whole if isinstance(least, int) and isinstance(most, int) else real
        try:
            if not fewest:
                check(name, value, least, most)
                continue
            if not isinstance(value, list | tuple):
                raise TypeError(f"{name} must be a list of numbers, not {type(value).__name__} ({value!r})")
            if len(value) < fewest[0]:
                raise ValueError(f"{name} must hold {fewest[0]} or more numbers, not {len(value)}")
            for entry in value:
                check(f"each of {name}", entry, least, most)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; change the parameters cell, and run the notebook from there on") from None
