"""Files that are never found half written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that whoever reads it finds the old content or the new, never a part.

    Raises `OSError` if it cannot be written; the file is then as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # an interruption at the keyboard too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
