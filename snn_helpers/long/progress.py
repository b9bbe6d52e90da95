"""How far a training run is: one bar in a terminal, one output in a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, done: int, shown: bool, resumed: Path | None) -> tqdm[Any]:
    """A bar of `total` batches on standard output; if a checkpoint is `resumed`, a line before it says so."""
    if shown and resumed is not None and done == total:
        print(f"{resumed} holds the whole training, {total} batches: there is nothing left to train.")
    elif shown and resumed is not None:
        print(f"{resumed} holds {done} of {total} batches: training goes on from there.")
    out: Any = sys.stdout
    try:
        from IPython.core.getipython import get_ipython

        # In a notebook one output is rewritten in place: no stray lines, no widget to go stale.
        if hasattr(get_ipython(), "kernel"):
            out = OneOutput()
    except ImportError:
        pass
    # At position 0: else the bar of an interrupted run would push this one to another line.
    return tqdm(
        total=total, initial=done, disable=not shown, file=out, unit="batch", ncols=90, mininterval=0.3, position=0
    )


class OneOutput:
    """A file whose every line replaces the one before, in a single output of a notebook."""

    def __init__(self) -> None:
        self.handle: Any = None

    def write(self, text: str) -> None:
        from IPython.display import display

        line = text.strip()
        if not line:
            return
        data = {"text/plain": line}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def flush(self) -> None:
        pass
