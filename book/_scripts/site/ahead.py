"""Run the notebooks that have no kept output side by side, before Sphinx asks for them one after the other.

    python book/_scripts/site/ahead.py FOLDER

FOLDER is that of the book. Sphinx then finds their outputs in the cache. A notebook that fails is left to Sphinx, which
runs it once more, and tells what went wrong. Nothing but this process writes to the cache, so that no output is kept
after a build was stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import alone
import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import single_nb_execution

# A notebook with a cell of this tag measures what takes more than one core, so it runs with all of them to itself.
ALL_CORES = "all-cores"
MOST_AT_ONCE = 4  # each has a kernel with torch, up to 1 GB


def at_once() -> int:
    """How many notebooks run side by side: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_AT_ONCE, cores))


def run(path: str, timeout: int) -> tuple[Any, float] | None:
    """The notebook with its outputs, and its seconds; None if it fails."""
    notebook = nbformat.read(path, as_version=4)
    folder = str(Path(path).parent)
    result = single_nb_execution(notebook, cwd=folder, timeout=timeout, allow_errors=False, meta_override=True)
    return None if result.err else (notebook, result.time)


def seconds(root: Path) -> dict[str, float]:
    """How long each notebook took when it was last timed."""
    times = root / "book" / "results" / "notebook_times.json"
    if not times.exists():
        return {}
    trials = json.loads(times.read_text(encoding="utf-8"))["trials"]
    return {trial["settings"]["notebook"]: trial["total_seconds"] for trial in trials}


def to_run(root: Path, cache: JupyterCacheAbstract) -> list[Path]:
    """The notebooks that have no kept output, those that take longest first."""
    found = []
    for path in sorted(root.glob("book/*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any(ALL_CORES in cell.metadata.get("tags", []) for cell in notebook.cells):
            continue
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            found.append(path)
    known = seconds(root)
    return sorted(found, key=lambda path: -known.get(path.stem, 0.0))


def run_ahead(root: Path, settings: Mapping[str, Any], n_at_once: int) -> None:
    """Run what is to run, `n_at_once` at a time, into the cache that the book's `settings` name."""
    cache = get_cache(str(root / settings["cache"]))
    paths = to_run(root, cache)
    if len(paths) < 2:
        return  # Sphinx does it as well
    print(f"{len(paths)} notebooks run, {n_at_once} at a time, each on one core", flush=True)
    # More threads than cores wait for each other. Kernels have it from the processes that start them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(n_at_once, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(run, str(path), settings["timeout"]): path for path in paths}
        for done in as_completed(running):
            path = running[done]
            try:
                result = done.result()
            except BrokenProcessPool:
                return  # Sphinx goes on where this ended
            if result is None:
                print(f"{path.name} failed: it runs once more, to tell of it", flush=True)
                continue
            notebook, took = result
            bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": took})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            print(f"{path.name} ran in {took:.0f} s", flush=True)


def main(root: Path) -> int:
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["execute"]
    n_at_once = at_once()
    if n_at_once < 2:
        return 0
    # The lock of who makes pages: an orphan of a build that was killed lets no other one write here.
    try:
        lock = alone.hold(root / "_build", "pages")
    except alone.BusyError as error:
        print(f"No notebook was run: {error}.", file=sys.stderr)
        return 1
    try:
        run_ahead(root, settings, n_at_once)
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
