"""Run every notebook on the versions that readers have, into book/results/stacks.json; `make stacks` calls this.

    python book/_scripts/measure/make_stacks.py [STACK ...]

The stacks: `colab`, what Colab has (requirements-colab.txt); `floors`, the lowest versions that pyproject.toml allows
(requirements-floors.txt); `newest`, the newest that pip finds. Each gets an environment of its own under _build/stacks,
with its own Python, and no helpers: each notebook runs alone in an empty folder, at the second of its two sets of test
parameters, and its real first cell installs the helpers from an archive of this folder. If a stack has a front end, the
explorers are used in it, in Chromium. A stack's rows are replaced when its run has ended; about 6 GB and some 15
minutes each, and the environment is deleted at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Error

from snn_helpers.long.recording import provenance, write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "repo"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium
from files import listed_files
from fronts import FRONTS, WINDOW, jupyter, use
from stacks import FRONT

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
RECORD = BOOK / "results" / "stacks.json"
# Run in the stack's own Python: what a reader would be asked for in a report.
VERSIONS = """
import json, sys
from importlib.metadata import version
names = ("torch", "numpy", "matplotlib", "ipykernel", "ipywidgets", "anywidget", *sys.argv[1:])
print(json.dumps({"python": sys.version.split()[0]} | {name: version(name) for name in names}))
"""


@dataclass(frozen=True)
class Stack:
    """Versions to install, and the Python that they are for, as `3.13`."""

    what: str
    python: str
    requirements: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # notebooks, where a comment in STACKS says why
    front: str = ""  # one of FRONTS, which the versions bring with them as the package `notebook`


def of_pyproject() -> tuple[str, ...]:
    """The requirements of the helpers, with no upper bound: pip takes the newest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(project["dependencies"])


STACKS = {
    # Colab's own front end is nowhere else. Jupyter Notebook 6 has the same ipywidgets, anywidget and kernel.
    "colab": Stack("what Colab has", "3.13", ("-r", str(ROOT / "requirements-colab.txt")), front="Jupyter Notebook 6"),
    # With torch 2.6 a process of scaling_out was seen to wait for ever as its group was closed.
    "floors": Stack(
        "the lowest versions allowed",
        "3.11",
        ("-r", str(ROOT / "requirements-floors.txt"), "ipykernel", "setuptools", "wheel"),
        ("scaling_out",),
    ),
    "newest": Stack("the newest that pip finds", "3.12", (*of_pyproject(), "torchvision", "ipykernel", "wheel")),
}


def find_python(version: str) -> str:
    """A Python of this version on this machine; ends in words if there is none."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return str(getattr(sys, "_base_executable", sys.executable))
    name = f"python{version}"
    if found := shutil.which(name):
        asked = subprocess.run([found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if asked.returncode == 0:
            return asked.stdout.strip()
    installed = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/{name}"))
    if installed:
        return str(installed[-1])
    sys.exit(f"this stack needs Python {version}, and there is no {name} on this machine: install it, or name others")


def archive(folder: Path) -> Path:
    """A zip of the working tree, as GitHub makes one of a branch."""
    path = folder / "main.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name in listed_files(ROOT):
            made.write(ROOT / name, f"book-main/{name}")
    return path


def quiet(*command: str | Path) -> str:
    """Run a command; its output, or the end of this program with it."""
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:6]))} … failed:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return run.stdout


def install(name: str, stack: Stack, folder: Path) -> Path:
    """The stack's environment, known to Jupyter as the kernel `stack`; its Python."""
    print(f"{name}: installing {stack.what} for Python {stack.python}", flush=True)
    quiet(find_python(stack.python), "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    quiet(python, "-m", "pip", "install", "--quiet", *stack.requirements)
    quiet(python, "-m", "pip", "check")
    quiet(python, "-m", "ipykernel", "install", "--prefix", folder / "kernel", "--name", "stack")
    return python


def run_notebook(path: Path, python: Path, folder: Path, zipped: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run one notebook alone on the stack; whether it passed, and its seconds."""
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "snn-helpers"], capture_output=True)
    empty = folder / path.stem
    empty.mkdir(exist_ok=True)
    shutil.copy(path, empty)
    (empty / "parameters.json").write_text(json.dumps(parameters))
    environment = os.environ | {
        "JUPYTER_PATH": str(folder / "kernel" / "share" / "jupyter"),
        "SNN_HELPERS_FROM": str(zipped),
        "SNN_STRICT_CHECKS": "1",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "papermill", path.name, "out.ipynb", "--no-progress-bar", "-k", "stack"]
    started = time.perf_counter()
    run = subprocess.run(
        [*command, "-f", "parameters.json"], cwd=empty, env=environment, capture_output=True, text=True
    )
    seconds = round(time.perf_counter() - started, 1)
    print(f"  {path.stem}: {'passed' if run.returncode == 0 else 'FAILED'}, {seconds} s", flush=True)
    if run.returncode != 0:
        print(run.stderr[-3000:], flush=True)
    return {"passed": run.returncode == 0, "total_seconds": seconds}


def use_front(name: str, python: Path, folder: Path) -> dict[str, Any]:
    """Use the explorers in the stack's front end of this name; whether all held, and its seconds."""
    environment = os.environ | {"SNN_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    failed = ""
    started = time.perf_counter()
    try:
        with (
            jupyter(python, FRONTS[name], folder / "front", environment) as address,
            chromium() as browser,
            Tab(browser, *WINDOW) as tab,
        ):
            use(tab, address, name)
    except (AssertionError, RuntimeError, TimeoutError, Error) as error:
        failed = str(error)
    seconds = round(time.perf_counter() - started, 1)
    print(f"  {name}: {f'FAILED, {seconds} s: {failed}' if failed else f'passed, {seconds} s'}", flush=True)
    return {"passed": not failed, "total_seconds": seconds}


def write(rows: list[dict[str, Any]]) -> None:
    """Replace the record as a whole."""
    rows = sorted(rows, key=lambda row: (list(STACKS).index(row["settings"]["stack"]), row["settings"]["notebook"]))
    told = provenance("Whether each notebook runs alone, through its real first cell, on the versions of its readers")
    write_record(RECORD, told, rows)


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(STACKS))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(STACKS)}")
    if find_chromium() is None and any(STACKS[name].front for name in names or STACKS):
        sys.exit(HOW_TO_GET_IT)
    parameters = yaml.safe_load((ROOT / "tests" / "notebook_parameters.yaml").read_text(encoding="utf-8"))
    failed = []
    for name in names or STACKS:
        stack, folder = STACKS[name], ROOT / "_build" / "stacks" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        python = install(name, stack, folder)
        zipped = archive(folder)
        versions = json.loads(quiet(python, "-c", VERSIONS, *(["notebook"] if stack.front else [])))
        ended = {
            path.stem: run_notebook(path, python, folder, zipped, parameters[path.stem][1])
            for path in sorted(BOOK.glob("*.ipynb"))
            if path.stem not in stack.left_out
        }
        if stack.front:
            ended[FRONT] = use_front(stack.front, python, folder)
        told = {"day": datetime.now(UTC).date().isoformat(), "versions": versions}
        rows = [{"settings": {"stack": name, "notebook": what}, **end, **told} for what, end in ended.items()]
        kept = json.loads(RECORD.read_text(encoding="utf-8"))["trials"] if RECORD.exists() else []
        write([row for row in kept if row["settings"]["stack"] in STACKS and row["settings"]["stack"] != name] + rows)
        failed += [f"{name}: {row['settings']['notebook']}" for row in rows if not row["passed"]]
        shutil.rmtree(folder / "venv")
    print(f"failed: {', '.join(failed)}" if failed else "all passed", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
