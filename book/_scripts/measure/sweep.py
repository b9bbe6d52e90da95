"""Run one notebook with many sets of parameters, some at a time, and put what comes out into one table.

    make sweep ARGS="book/03_training.ipynb seed=0,1,2 n_steps=12,24 --collect accuracy=history.test[-1].accuracy"

`NAME=VALUE,VALUE` are values of a parameter of the notebook, in YAML: every combination is run.
`--collect NAME=EXPRESSION` names a column of the table and what it holds, as the notebook would
write it in its last cell. The runs and the table, `table.csv`, are kept in a folder, by default
`_build/sweeps` and the notebook's name. A run that is there is not repeated, so what was interrupted
goes on; but after a change to the notebook, the helpers or the data it counts no more. A run that
fails is told at the end, its notebook kept, and tried again the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml

from snn_helpers.long.files import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

from inputs import notebook_key

ROOT = Path(__file__).resolve().parents[3]


def grid(texts: list[str]) -> list[dict[str, Any]]:
    """`["seed=0,1", "n_steps=12"]` to a list of all combinations, the last name changing fastest."""
    values: dict[str, list[Any]] = {}
    for text in texts:
        name, found, listed = text.partition("=")
        chosen = yaml.safe_load(f"[{listed}]") if found else None
        if not name.isidentifier() or not chosen:
            raise ValueError(f"a parameter must look like seed=0,1,2, not {text!r}")
        if name in values:
            raise ValueError(f"{name} is there twice: put all of its values behind one {name}=")
        if any(value in chosen[:place] for place, value in enumerate(chosen)):
            raise ValueError(f"{text!r} holds a value twice")
        values[name] = chosen
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def columns(texts: list[str]) -> dict[str, str]:
    """`["accuracy=history.test[-1].accuracy"]` to names and expressions, each of which must be valid Python."""
    expressions = {}
    for text in texts:
        name, _, expression = text.partition("=")
        try:
            compile(expression.strip(), name, "eval")
        except SyntaxError as error:
            raise ValueError(f"--collect must look like accuracy=history.test[-1].accuracy, not {text!r}") from error
        expressions[name] = expression.strip()
    return expressions


def run_one(
    notebook: Path, parameters: dict[str, Any], collect: dict[str, str], folder: Path, threads: int
) -> Path | None:
    """Run the notebook unless this run is there already; the file that holds its row, None if it failed."""
    asked = json.dumps(
        [notebook.read_text(encoding="utf-8"), parameters, collect, notebook_key(notebook)], sort_keys=True
    )
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    row, executed = folder / f"{key}.json", folder / f"{key}.ipynb"
    if row.exists():
        return row
    source, measured = folder / f"{key}.source.ipynb", folder / f"{key}.measured"
    changed: Any = nbformat.read(notebook, as_version=4)
    wanted = ", ".join(f"{name!r}: {expression}" for name, expression in collect.items())
    last = f"import json\nwith open({str(measured)!r}, 'w') as file:\n    json.dump({{{wanted}}}, file)"
    changed.cells.append(nbformat.v4.new_code_cell(last))
    nbformat.write(changed, source)
    given = folder / f"{key}.yaml"
    given.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    command = [sys.executable, "-m", "papermill", str(source), str(executed), "--no-progress-bar", "-f", str(given)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "JUPYTER_PREFER_ENV_PATH": "1"}
    started = time.perf_counter()
    run = subprocess.run(
        [*command, "--cwd", str(notebook.parent)], env=environment, capture_output=True, text=True, check=False
    )
    try:
        if run.returncode != 0:
            reason = (run.stderr.strip() or f"ended with {run.returncode}").splitlines()[-1]
            print(f"{parameters} failed: {reason} (see {executed})", flush=True)
            return None
        content = {
            "parameters": parameters,
            "measured": json.loads(measured.read_text(encoding="utf-8")),
            "seconds": round(time.perf_counter() - started, 1),
        }
        # Written last, and whole or not at all: it is what says that the run is there.
        write_whole(row, (json.dumps(content, indent=1) + "\n").encode())
        print(f"{parameters} took {content['seconds']} s", flush=True)
        return row
    finally:
        for left in (source, given, measured):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


def write_table(folder: Path, files: list[Path]) -> Path:
    """`table.csv`, a row for each of the files."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    lines = [{**row["parameters"], **row["measured"], "run_seconds": row["seconds"]} for row in rows]
    table = folder / "table.csv"
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else [])
    writer.writeheader()
    writer.writerows(lines)
    write_whole(table, text.getvalue().encode())
    return table


def sweep(
    notebook: Path, runs: list[dict[str, Any]], collect: dict[str, str], folder: Path, processes: int
) -> tuple[Path, int]:
    """Run what is missing, `processes` at a time; the table, and how many runs are missing still."""
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted({name for run in runs for name in run} - set(known))
    if unknown:
        raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    if processes < 1:
        raise ValueError(f"processes must be 1 or more, not {processes}")
    folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ThreadPoolExecutor(processes) as pool:
        files = list(pool.map(lambda run: run_one(notebook, run, collect, folder, threads), runs))
    return write_table(folder, [file for file in files if file is not None]), files.count(None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a notebook with many sets of parameters; one table.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("values", nargs="*", help="NAME=VALUE,VALUE: values of a parameter; all combinations are run")
    parser.add_argument("--collect", nargs="+", default=[], help="NAME=EXPRESSION: a column of the table")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at a time; a core each")
    parser.add_argument("--out", type=Path, help="a folder; by default _build/sweeps and the notebook's name")
    given = parser.parse_args(arguments)
    notebook = given.notebook.resolve()
    folder = (given.out or ROOT / "_build" / "sweeps" / notebook.stem).resolve()
    try:
        runs = grid(given.values)
        table, n_missing = sweep(notebook, runs, columns(given.collect), folder, given.processes)
    except (ValueError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    print(f"{len(runs) - n_missing} of {len(runs)} runs are in {table}")
    return 1 if n_missing else 0


if __name__ == "__main__":
    sys.exit(main())
