"""Time each notebook at its defaults, into book/results/notebook_times.json; `make times` calls this.

    python book/_scripts/measure/make_times.py [NAME ...]

Runs every notebook, one after the other, or those named, and keeps the other rows. Run it on a
machine with nothing else to do: the seconds by the clock are those of a reader who waits.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from snn_helpers import load_mnist
from snn_helpers.long.recording import provenance, write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teach"))

from make_workshop import BOOK, keep, notebooks, outputs_of, run, text_and_exercises

RECORD = BOOK / "results" / "notebook_times.json"


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the record as a whole."""
    order = [path.stem for path in notebooks()]
    rows = sorted(
        (row for row in rows if row["settings"]["notebook"] in order),
        key=lambda row: order.index(row["settings"]["notebook"]),
    )
    digits = len(load_mnist("train")) + len(load_mnist("test"))
    told = provenance("Seconds that each notebook runs at its defaults, from a new kernel to the last cell")
    write_record(RECORD, told, rows, digits=digits)


def main(names: list[str]) -> None:
    if sys.platform == "win32":
        sys.exit("Windows does not tell what a kernel has used: run make times on Linux, on a Mac or in WSL")
    paths = {path.stem: path for path in notebooks()}
    unknown = sorted(set(names) - set(paths))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(paths)}")
    for name in names or paths:
        rows = json.loads(RECORD.read_text(encoding="utf-8"))["trials"] if RECORD.exists() else []
        load = os.getloadavg()[0]
        notebook, times = run(paths[name])
        of_text, of_exercises = text_and_exercises(notebook)
        row = {
            "settings": {"notebook": name, "seed": 0},
            **times,
            "cores": os.cpu_count(),
            "load": round(load, 1),  # on average in the minute before: of other work
            "text_minutes": of_text,
            "exercise_minutes": of_exercises,
        }
        write([row for row in rows if row["settings"]["notebook"] != name] + [row])
        keep(notebook, outputs_of(paths[name]))  # `make workshop` takes its slides' figures from there
        print(f"{name}: {times['total_seconds']} s, {times['cpu_seconds']} s of computing, load {load:.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
