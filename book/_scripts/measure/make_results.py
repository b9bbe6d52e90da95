"""Record the runs that are too long for a page, into book/results; `make results` calls this.

    python book/_scripts/measure/make_results.py [NAME ...]

Runs every record, or those named. What a record already holds is not run again: delete its file
to start it afresh. It needs the whole of MNIST: `load_mnist` downloads it, or finds it in
SNN_DATA_DIR. What a record holds, and the code that measures it, is beside its chapter, in
`book/snn_chapters`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import snn_chapters

from snn_helpers.long.recording import Record, record_trials

RESULTS = Path(__file__).resolve().parents[2] / "results"
MOST_ROUNDS = 200  # a tuning takes about ten


def all_records() -> dict[str, Record]:
    """The records of all modules of `snn_chapters`, by name."""
    modules = [import_module(f"snn_chapters.{module.name}") for module in iter_modules(snn_chapters.__path__)]
    found = [(name, record) for module in modules for name, record in getattr(module, "RECORDS", {}).items()]
    return dict(sorted(found))


def main(names: list[str]) -> None:
    records = all_records()
    unknown = sorted(set(names) - set(records))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(records)}")
    RESULTS.mkdir(exist_ok=True)
    for name in names or records:
        run_record(RESULTS / f"{name}.json", records[name])


def run_record(path: Path, record: Record) -> None:
    """Run what the record does not hold yet. What a tuning tries next depends on what it found: it is asked again.

    It ends when nothing new is wanted, and in words if that would never be.
    """
    held = -1
    for _ in range(MOST_ROUNDS):
        trials = record.trials() if callable(record.trials) else record.trials
        n_rows = len(record_trials(path, record.what, trials, record.run))
        if n_rows == held or not callable(record.trials):
            return
        held = n_rows
    sys.exit(f"{path.stem} wants further trials after each of {MOST_ROUNDS} rounds: its search does not end")


if __name__ == "__main__":
    main(sys.argv[1:])
