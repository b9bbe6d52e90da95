"""Sweeps: every combination once, side by side, in one table; what is there is not repeated."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
import sweep

ROOT = Path(__file__).resolve().parents[2]

# It leaves a line behind whenever it runs, waits for its neighbour if told so, and fails if told so.
CELLS = """\
x = 1
names = ["a"]
folder = ""
meet = False
---
import os, time
with open(os.path.join(folder, "log"), "a") as log:
    log.write(f"{x} {names}\\n")
mark = os.path.join(folder, f"here {x} {len(names)}")
open(mark, "w").close()
end = time.monotonic() + 60
while meet and len([name for name in os.listdir(folder) if name.startswith("here")]) < 2:
    assert time.monotonic() < end, "the neighbour does not run at the same time"
    time.sleep(0.01)
if os.path.exists(os.path.join(folder, f"fail {x}")):
    raise RuntimeError(f"{x} is not wanted")
y = x**2
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.split("---\n")]
    cells[0].metadata.tags = ["parameters"]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def run(notebook: Path, *values: str, collect: tuple[str, ...] = ("square=y",), processes: int = 2) -> int:
    folder = notebook.parent
    arguments = [str(notebook), *values, f"folder='{folder}'", "--processes", str(processes)]
    return sweep.main([*arguments, "--out", str(folder / "out"), "--collect", *collect])


def log(notebook: Path) -> list[str]:
    return sorted((notebook.parent / "log").read_text().splitlines())


def table(notebook: Path) -> list[dict[str, str]]:
    with (notebook.parent / "out" / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_run_once_and_goes_on_after_a_failure(
    notebook: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (notebook.parent / "fail 3").touch()
    assert run(notebook, "x=2,3", "names=[a],[b, c]", "meet=true", collect=("square=y", "n=len(names)")) == 1
    # That they ran side by side: the first two waited for each other.
    assert log(notebook) == ["2 ['a']", "2 ['b', 'c']", "3 ['a']", "3 ['b', 'c']"]
    assert [(row["x"], row["square"], row["n"]) for row in table(notebook)] == [("2", "4", "1"), ("2", "4", "2")]
    out = capsys.readouterr().out
    assert out.count("3 is not wanted") == 2 and "2 of 4 runs" in out

    (notebook.parent / "fail 3").unlink()
    assert run(notebook, "x=2,3", "names=[a],[b, c]", "meet=true", collect=("square=y", "n=len(names)")) == 0
    assert log(notebook) == ["2 ['a']", "2 ['b', 'c']"] + ["3 ['a']"] * 2 + ["3 ['b', 'c']"] * 2
    assert [(row["x"], row["names"], row["square"], row["n"]) for row in table(notebook)] == [
        ("2", "['a']", "4", "1"),
        ("2", "['b', 'c']", "4", "2"),
        ("3", "['a']", "9", "1"),
        ("3", "['b', 'c']", "9", "2"),
    ]
    assert all(float(row["run_seconds"]) > 0 for row in table(notebook))
    left = {path.suffix for path in (notebook.parent / "out").iterdir()}
    assert left == {".json", ".ipynb", ".csv"}


def test_a_run_counts_for_its_own_notebook_and_question_only(notebook: Path) -> None:
    assert run(notebook, "x=5") == run(notebook, "x=5") == 0
    assert log(notebook) == ["5 ['a']"]
    assert run(notebook, "x=5", collect=("cube=y*x",)) == 0
    assert len(log(notebook)) == 2 and table(notebook)[0]["cube"] == "125"
    notebook.write_text(notebook.read_text().replace("y = x**2", "y = x**2 + 1"))
    assert run(notebook, "x=5") == 0
    assert len(log(notebook)) == 3 and [row["square"] for row in table(notebook)] == ["26"]


def test_values_are_yaml_and_the_last_name_changes_fastest() -> None:
    assert sweep.grid(["a=1,two", "b=[0.1, 3],[]"]) == [
        {"a": 1, "b": [0.1, 3]},
        {"a": 1, "b": []},
        {"a": "two", "b": [0.1, 3]},
        {"a": "two", "b": []},
    ]
    assert sweep.grid([]) == [{}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seed"], "must look like seed=0,1,2, not 'seed'"),
        (["x="], "must look like"),
        (["x=1", "x=2"], "x is there twice"),
        (["x=1,2,1"], "'x=1,2,1' holds a value twice"),
        (["z=1"], "small.ipynb has no parameter z; it has x, names, folder, meet"),
        (["--collect", "square=y +"], "--collect must look like"),
        (["--processes", "0"], "processes must be 1 or more, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], told: str, notebook: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([str(notebook), *arguments, "--out", str(notebook.parent / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (notebook.parent / "log").exists()


def test_a_chapter_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SNN_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    values: list[Any] = ["seed=1", "n_steps=40"]
    collect = "n=n_steps"
    assert sweep.main([str(ROOT / "book/intro.ipynb"), *values, "--out", str(tmp_path), "--collect", collect]) == 0
    assert (tmp_path / "table.csv").read_text().startswith(f"seed,n_steps,n,run_seconds{os.linesep}1,40,40,")
