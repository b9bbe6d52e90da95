"""The record of runs too long for a page: each row as it ends, with what it was made with, and no half-written file."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .plain import plain

ROOT = Path(__file__).parents[2]  # the checkout, if this is one
# The code that decides what a run measures.
MEASURED_BY = ("snn_helpers", "book/snn_chapters", "book/_scripts/measure")


def record_trials(
    path: Path, what: str, trials: list[dict[str, Any]], run: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run those of the `trials` (settings for `run`) that the file does not hold yet, adding each as it ends.

    The file holds `provenance` and `trials`, whose rows are the settings that `run` was given, what it returned, the
    seconds that it took and the commit that it was made with: a record may be made in parts. Each write replaces
    the file as a whole. Raises `TypeError` for a result that no file could hold, `ValueError` if the file is no record.
    """
    rows: list[dict[str, Any]] = _rows_of(path) if path.exists() else []
    made_with = commit()  # asked once: what runs is the code that was there when the run began
    for settings in trials:
        # As the file holds them: a tuple is a list, a number of NumPy's is a plain one.
        kept = json.loads(json.dumps(plain(settings)))
        if kept in [row["settings"] for row in rows]:
            continue
        started = time.perf_counter()
        measured = plain(run(**settings))
        took = round(time.perf_counter() - started, 2)
        rows.append({"settings": kept, **measured, "total_seconds": took, "commit": made_with})
        content = {"provenance": provenance(what) | {"commit": made_with}, "trials": rows}
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
        print(f"{path.name}: {len(rows)} rows; {settings} took {took} s", flush=True)
    return rows


def _rows_of(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
        [row["settings"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no record of trials ({type(error).__name__}: {error}). It is left as it is: move it away to"
            " begin a new record, or name another file"
        ) from error
    return rows


def provenance(what: str) -> dict[str, Any]:
    """When, with which code and versions, and on what kind of machine a record was made."""
    return {
        "what": what,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def commit(root: Path = ROOT) -> str | None:
    """The commit of the checkout `root`, with "+changes" if its code that measures is no longer that of the commit.

    None where there is no checkout: in an installed package, or in a download without git.
    """
    # Without this question git would answer for a checkout around an installed package.
    if not (root / ".git").exists():
        return None
    # Set inside a git hook, these would name another checkout.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = ["git", "-C", str(root), "--no-optional-locks"]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], env=environment, capture_output=True, text=True, check=True)
        same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *MEASURED_BY], env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("" if same.returncode == 0 else "+changes")


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
    except BaseException:  # also an interruption at the keyboard
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
