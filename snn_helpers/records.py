"""What the runs that are too long for a page have measured, and the code that measured it; first used in chapter 03."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

SOURCE = "https://github.com/spikes-and-gradients/book/blob/main/"  # `make address` and `make release` keep it true


def load_results(name: str) -> dict[str, Any]:
    """A recorded file of `book/results`, by name, such as `"04_parity"`: its `provenance` and its `trials`.

    Raises `ValueError` for a name that no record has.
    """
    beside = Path(__file__).parent.parent / "book" / "results"  # a checkout of the book
    if not beside.is_dir():
        beside = Path(str(resources.files("snn_helpers") / "results"))  # the installed package
    known = sorted(path.stem for path in beside.glob("*.json"))
    if name not in known:
        raise ValueError(f"no results are recorded as {name!r}; there are {', '.join(known) or 'none'}")
    return json.loads((beside / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def how_measured(name: str, *code: Callable[..., Any]) -> Any:
    """The line under a recorded table or figure: what was run, with links to the code that ran it.

    `code` are the functions that measured. Returns a `Markdown`. Raises `ValueError` for a name that no record has.
    """
    from IPython.display import Markdown

    record = load_results(name)
    made, links = record["provenance"], []
    for function in code:
        lines, first = inspect.getsourcelines(function)
        module = function.__module__.replace(".", "/") + ".py"
        folder = "book/" if module.startswith("snn_chapters") else ""
        links.append(f"[`{function.__name__}`]({SOURCE}{folder}{module}#L{first}-L{first + len(lines) - 1})")
    told = f"*How this was measured: {' and '.join(links)}; {len(record['trials'])} trials"
    return Markdown(f"{told}, {made['date']}, torch {made['torch']}, commit {(made.get('commit') or 'unknown')[:9]}.*")
