"""Old addresses, for one version: what one chapter alone uses is beside that chapter now, in `snn_chapters`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any
from warnings import warn


def moved(module: str, *subjects: str) -> None:
    """Give an old module the public names of these modules of `snn_chapters`, and say so."""
    new = [import_module(f"snn_chapters.{subject}") for subject in subjects]
    for home in new:
        vars(sys.modules[module]).update({name: value for name, value in vars(home).items() if name[0] != "_"})
    warn(f"{module} has moved to {' and '.join(home.__name__ for home in new)}", FutureWarning, stacklevel=3)


def look_in(module: str, *subjects: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module that has given some of its names to these modules of `snn_chapters`."""

    def find(name: str) -> Any:
        for home in (import_module(f"snn_chapters.{subject}") for subject in subjects if name[0] != "_"):
            if name in vars(home):
                warn(f"{module}.{name} has moved to {home.__name__}", FutureWarning, stacklevel=2)
                return vars(home)[name]
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
