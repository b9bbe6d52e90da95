"""What the runs that are too long for a page have measured; first used in chapter 03."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any


def load_results(name: str) -> dict[str, Any]:
    """A recorded file of `book/results`, by name, such as `"04_parity"`: `provenance` and `trials`."""
    beside = Path(__file__).parent.parent / "book" / "results"  # a checkout of the book
    if not beside.is_dir():
        beside = Path(str(resources.files("snn_helpers") / "results"))  # the installed package
    known = sorted(path.stem for path in beside.glob("*.json"))
    if name not in known:
        raise ValueError(f"no results are recorded as {name!r}; there are {', '.join(known) or 'none'}")
    return json.loads((beside / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
