"""The record of runs too long for a page: each row as it ends, with what it was made with, and no half-written file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import TensorDataset

from ..data import Digits, load_mnist
from .files import write_whole
from .plain import plain

ROOT = Path(__file__).parents[2]  # the checkout, if this is one
# The code that decides what a run measures.
MEASURED_BY = ("snn_helpers", "book/snn_chapters", "book/_scripts/measure")


Row = dict[str, Any]


class Record(NamedTuple):
    """What a recorded file of `book/results` holds.

    `what`, in words; `run`, the function that measures one trial; `trials`, the settings of each call of it, or,
    where they depend on an earlier record, a function that gives them.
    """

    what: str
    run: Callable[..., Row]
    trials: list[Row] | Callable[[], list[Row]]


@lru_cache(maxsize=1)
def whole_mnist() -> tuple[Digits, Digits]:
    """The 60,000 and the 10,000 digits; a record is never made on fewer."""
    train, test = load_mnist("train"), load_mnist("test")
    if len(train) != 60_000:
        sys.exit("results are recorded on the whole of MNIST, but only its subset was found: set SNN_DATA_DIR")
    return train, test


def examples(dataset: TensorDataset, first: int, stop: int | None = None) -> TensorDataset:
    """The first examples of a data set; with two numbers, those from one up to, not including, the other."""
    chosen = slice(first) if stop is None else slice(first, stop)
    return TensorDataset(*(part[chosen] for part in dataset.tensors))


def write_record(path: Path, told: Row, rows: list[Row], **more: Any) -> None:
    """Replace a record as a whole: what `provenance` tells, whatever else it says of all its rows, and the rows."""
    write_whole(path, (json.dumps({"provenance": told, **more, "trials": rows}, indent=1) + "\n").encode())


def record_trials(path: Path, what: str, trials: list[Row], run: Callable[..., Row]) -> list[Row]:
    """Run those of the `trials` (settings for `run`) that the file does not hold yet, adding each as it ends.

    The file holds `provenance` and `trials`, whose rows are the settings that `run` was given, what it returned, the
    seconds that it took and the commit that it was made with: a record may be made in parts. Each write replaces
    the file as a whole. Raises `TypeError` for a result that no file could hold, `ValueError` if the file is no record.
    """
    rows = _rows_of(path) if path.exists() else []
    made_with = commit()  # asked once: what runs is the code that was there when the run began
    try:
        for settings in trials:
            row = _run_one(settings, rows, run)
            if row is None:
                continue
            rows.append(row | {"commit": made_with})
            write_record(path, provenance(what) | {"commit": made_with}, rows)
            print(f"{path.name}: {len(rows)} rows; {settings} took {row['total_seconds']} s", flush=True)
    finally:
        whole_mnist.cache_clear()  # else the digits would stay in memory for as long as the process lives
    return rows


def _run_one(settings: Row, rows: list[Row], run: Callable[..., Row]) -> Row | None:
    """The row of one trial; None if the rows hold it already."""
    # As the file holds them: a tuple is a list, a number of NumPy's is a plain one.
    kept = json.loads(json.dumps(plain(settings)))
    if kept in [row["settings"] for row in rows]:
        return None
    started = time.perf_counter()
    measured = plain(run(**settings))
    return {"settings": kept, **measured, "total_seconds": round(time.perf_counter() - started, 2)}


def _rows_of(path: Path) -> list[Row]:
    """The rows of a record. One that names no commit was made with that of the record, None if that is not known."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: list[Row] = content["trials"]
        [row["settings"] for row in rows]
        made_with = content["provenance"].get("commit")
        rows = [{**row, "commit": row.get("commit", made_with)} for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
