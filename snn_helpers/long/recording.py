"""The record of runs too long for a page."""

from __future__ import annotations

import json
import os
import platform
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


def record_trials(
    path: Path, what: str, trials: list[dict[str, Any]], run: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run those of the `trials` (settings for `run`) that the file does not hold yet, adding each as it ends.

    The file holds `provenance` and `trials`, whose rows are what `run` returned after the
    settings it was given. Each write replaces the file as a whole.
    """
    rows: list[dict[str, Any]] = []
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))["trials"]
    for settings in trials:
        # As the file would hold them, where a tuple is a list.
        if json.loads(json.dumps(settings)) in [json.loads(json.dumps(row["settings"])) for row in rows]:
            continue
        started = time.perf_counter()
        measured = run(**settings)
        rows.append({"settings": settings, **measured, "total_seconds": round(time.perf_counter() - started, 2)})
        content = {"provenance": provenance(what), "trials": rows}
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
        print(f"{path.name}: {len(rows)} rows; {settings} took {rows[-1]['total_seconds']} s", flush=True)
    return rows


def provenance(what: str) -> dict[str, Any]:
    """When, with which versions and on what kind of machine a record was made."""
    return {
        "what": what,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
