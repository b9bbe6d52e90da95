"""A notebook that is cut off in the middle of its training: run again, it goes on and ends the same.

As in a cloud that takes its machine back: everything that runs is killed, and only the file is left.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import torch
import yaml
from notebooks import BOOK, code_cells, offline

# Three epochs of 50 batches, each saved three times over: long enough to be caught anywhere.
PARAMETERS: dict[str, Any] = {
    "seed": 4, "n_train": 1000, "n_test": 100, "n_steps": 40, "batch_size": 20, "learning_rates": [0.1, 0.05, 0.01],
    "device": "cpu",
}  # fmt: skip
N_BATCHES = 150


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chapter 03 up to its training, without figures, then a cell that keeps the weights for the comparison."""
    chapter = nbformat.read(BOOK / "03_training.ipynb", as_version=4)
    code = [cell for cell in code_cells(chapter) if "plt.show()" not in cell.source and "drawing(" not in cell.source]
    (training_cell,) = (i for i, cell in enumerate(code) if "checkpoint=checkpoint" in cell.source)
    chapter.cells = code[: training_cell + 1]
    keep = 'import json\ntorch.save(net.state_dict(), "weights.pt")\njson.dump(history.loss, open("loss.json", "w"))'
    chapter.cells.append(nbformat.v4.new_code_cell(keep))
    path = tmp_path_factory.mktemp("notebook") / "03_training.ipynb"
    nbformat.write(chapter, path)
    return path


def start(notebook: Path, folder: Path, **others: Any) -> subprocess.Popen[str]:
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump(PARAMETERS | {"checkpoint": str(folder / "run.pt")} | others))
    command = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), "--no-progress-bar"]
    command += ["--cwd", str(folder), "-f", str(parameters)]
    return subprocess.Popen(command, env=offline(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(notebook: Path, folder: Path, **others: Any) -> str:
    """Run to the end; what the training cell said."""
    with start(notebook, folder, **others) as run:
        said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said[-4000:]
    cell = next(c for c in code_cells(nbformat.read(folder / "out.ipynb", 4)) if "checkpoint=checkpoint" in c.source)
    return "".join(str(output.get("text", output.get("data"))) for output in cell.outputs)


def kill_when(notebook: Path, folder: Path, moment: Callable[[psutil.Process], bool]) -> None:
    """Kill papermill and its kernel as soon as `moment` has come."""
    with start(notebook, folder) as run:
        papermill, end = psutil.Process(run.pid), time.monotonic() + 240
        while not moment(papermill):
            assert run.poll() is None, f"it ended before the moment came: {run.stdout and run.stdout.read()[-4000:]}"
            assert time.monotonic() < end, "the moment did not come"
            time.sleep(0.002)
        # The kernel first: it does the work. Nobody gets the chance to tidy up.
        for process in [*papermill.children(recursive=True), papermill]:
            process.send_signal(signal.SIGKILL)


def same_result(one: Path, other: Path) -> None:
    assert (one / "loss.json").read_bytes() == (other / "loss.json").read_bytes()
    theirs = torch.load(other / "weights.pt", weights_only=True)
    for name, weights in torch.load(one / "weights.pt", weights_only=True).items():
        assert torch.equal(weights, theirs[name])


def epochs_done(folder: Path) -> int:
    if not (folder / "run.pt").exists():
        return -1
    return int(torch.load(folder / "run.pt", weights_only=True)["epoch"])


@pytest.fixture(scope="module")
def whole(notebook: Path, once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A training that nothing interrupts; a first start, killed before it began, leaves nothing behind."""

    def train(folder: Path) -> None:
        kill_when(notebook, folder, lambda papermill: len(papermill.children()) > 0)
        assert not (folder / "run.pt").exists()
        said = finish(notebook, folder)
        assert f"{N_BATCHES}/{N_BATCHES}" in said and "holds" not in said

    return once("a whole training", train)


@pytest.mark.parametrize("n_epochs", [0, 1], ids=["the file appears", "the second epoch"])
def test_a_killed_notebook_goes_on_when_it_is_run_again(
    n_epochs: int, notebook: Path, whole: Path, tmp_path: Path
) -> None:
    kill_when(notebook, tmp_path, lambda _: epochs_done(tmp_path) >= n_epochs)
    assert not (tmp_path / "weights.pt").exists(), "the kill came too late to interrupt anything"
    said = finish(notebook, tmp_path)
    (done,) = re.findall(rf"run\.pt holds (\d+) of {N_BATCHES} batches: training goes on", said)
    assert int(done) >= 50 * n_epochs
    same_result(tmp_path, whole)
    assert not list(tmp_path.glob("*.partial"))


def test_a_finished_training_is_not_repeated_and_not_taken_for_another(
    notebook: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.pt").write_bytes((whole / "run.pt").read_bytes())
    assert f"holds the whole training, {N_BATCHES} batches: there is nothing left to train" in finish(
        notebook, tmp_path
    )
    same_result(tmp_path, whole)
    before = (tmp_path / "run.pt").read_bytes()
    with start(notebook, tmp_path, seed=5, n_steps=39) as run:
        said, _ = run.communicate(timeout=300)
    assert run.returncode != 0
    for part in (
        "CheckpointError",
        "another run",
        "n_steps=40",
        "n_steps=39",
        "seed: 4 there, 5 here",
        "Move the file",
    ):
        assert part in said
    assert (tmp_path / "run.pt").read_bytes() == before
