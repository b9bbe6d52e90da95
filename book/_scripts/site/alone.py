"""One build at a time in a folder: a second one ends with words, before it touches anything.

Two locks: that of `make book`, and that of Sphinx. The second is held by the process that writes the pages, so it also
keeps out who builds anew after `make` was killed and its child lives on.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout


class BusyError(RuntimeError):
    """Another process builds in this folder; the message names it."""


def hold(folder: Path, what: str) -> FileLock:
    """The lock `what` of an output folder, held until it is released or this process ends.

    Raises `BusyError` if another one holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, who = FileLock(folder / f".{what}.lock"), folder / f".{what}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        process = f" (process {who.read_text().strip()})" if who.exists() else ""
        raise BusyError(f"another build is running in {folder}{process}: wait until it ends, or end it") from None
    who.write_text(f"{os.getpid()}\n")
    return lock


def check(folder: Path, what: str) -> None:
    """Raise `BusyError` if another process holds the lock."""
    hold(folder, what).release()
