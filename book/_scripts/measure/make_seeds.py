"""Run each notebook with other seeds, at its default sizes, into book/results/notebook_seeds.json, for `make seeds`.

    python book/_scripts/measure/make_seeds.py [NAME ...]

A notebook passes if all of its assertions hold. It runs whatever has not passed with the code that the notebooks have
now, or those named; the other rows are kept. A test asks that none has failed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import papermill
from sweep import run_one

from snn_helpers import load_mnist
from snn_helpers.long.recording import commit, provenance, write_record

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
RECORD = BOOK / "results" / "notebook_seeds.json"
SEEDS = (1, 2, 3, 4, 5)  # the default is 0


def code_digest(path: Path) -> str:
    """A fingerprint of a notebook's code, but for its white space, and for the setup cell, which names a release."""
    notebook: Any = nbformat.read(path, as_version=4)
    code = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])
    ]
    return hashlib.sha256("".join("".join(cell.source.split()) for cell in code).encode()).hexdigest()[:16]


def notebooks() -> dict[str, Path]:
    """The notebooks that have a seed, by name."""
    paths = sorted(BOOK.glob("*.ipynb"))
    return {path.stem: path for path in paths if "seed" in papermill.inspect_notebook(str(path))}


def is_fresh(row: dict[str, Any], paths: dict[str, Path]) -> bool:
    """Whether a row says that a notebook passed with the code that it has now."""
    name = row["settings"]["notebook"]
    return bool(row["passed"]) and name in paths and row["code"] == code_digest(paths[name])


def run(path: Path, seed: int, folder: Path) -> dict[str, Any]:
    """One row. The notebook of a run that fails is kept in the folder."""
    started = time.perf_counter()
    digest, made_with = code_digest(path), commit()
    (folder / path.stem).mkdir(parents=True, exist_ok=True)
    done = run_one(path, {"seed": seed}, {}, folder / path.stem, threads=1)
    seconds = round(time.perf_counter() - started, 1)
    if done is not None:
        seconds = json.loads(done.read_text(encoding="utf-8"))["seconds"]  # of the run itself, if it was there already
    row = {"settings": {"notebook": path.stem, "seed": seed}, "passed": done is not None, "code": digest}
    return {**row, "total_seconds": max(seconds, 0.1), "commit": made_with}


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the record as a whole."""
    rows = sorted(rows, key=lambda row: (row["settings"]["notebook"], row["settings"]["seed"]))
    told = provenance("Whether all assertions of each notebook hold with other seeds, at its default sizes")
    digits = len(load_mnist("train")) + len(load_mnist("test"))
    write_record(RECORD, told, rows, digits=digits)


def main(names: list[str], folder: Path = ROOT / "_build" / "seeds", processes: int | None = None) -> int:
    paths = notebooks()
    unknown = sorted(set(names) - set(paths))
    if unknown:
        sys.exit(f"unknown, or without a seed: {', '.join(unknown)}; there are {', '.join(paths)}")
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["trials"] if RECORD.exists() else []
    kept = [row for row in rows if row["settings"]["notebook"] not in names and is_fresh(row, paths)]
    there = {(row["settings"]["notebook"], row["settings"]["seed"]) for row in kept}
    wanted = [(name, seed) for name in names or paths for seed in SEEDS if (name, seed) not in there]
    with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
        for row in pool.map(lambda one: run(paths[one[0]], one[1], folder), wanted):
            kept.append(row)
            write(kept)
            print(f"{row['settings']}: {'passed' if row['passed'] else 'FAILED'}, {row['total_seconds']} s", flush=True)
    if len(kept) < len(rows):  # of a notebook that is gone
        write(kept)
    failed = [row["settings"] for row in kept if not row["passed"]]
    print(f"{len(kept) - len(failed)} of {len(kept)} runs passed; failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
