"""The record of long runs: what each row was made with, and that nothing is lost when the run is cut off."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snn_helpers.data import Digits
from snn_helpers.long import files, recording
from snn_helpers.long.files import write_whole
from snn_helpers.long.plain import plain
from snn_helpers.long.recording import commit, provenance, record_trials

ROOT = Path(__file__).resolve().parents[2]


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def square(number: float, **_: Any) -> dict[str, Any]:
    return {"square": number**2}


# --- The commit -----------------------------------------------------------------------------------


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(root), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout, whose tracked files are of each kind."""
    root = tmp_path / "checkout"
    for name in ("snn_helpers/a.py", "book/snn_chapters/b.py", "book/_scripts/measure/c.py", "book/page.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1\n")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", head) and commit(checkout) == head
    (checkout / "book" / "page.md").write_text("2\n")
    (checkout / "snn_helpers" / "untracked.py").write_text("2\n")
    assert commit(checkout) == head, "neither a page nor a file that is not tracked measures anything"
    git(checkout, "commit", "-qam", "second")
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD") != head


@pytest.mark.parametrize("name", ["snn_helpers/a.py", "book/snn_chapters/b.py", "book/_scripts/measure/c.py"])
@pytest.mark.parametrize("change", ["edited", "staged", "deleted"])
def test_changed_code_is_told(name: str, change: str, checkout: Path) -> None:
    head, path = git(checkout, "rev-parse", "HEAD"), checkout / name
    if change == "deleted":
        path.unlink()
    else:
        path.write_text("2\n")
    if change == "staged":
        git(checkout, "add", "-A")
    assert commit(checkout) == f"{head}+changes"
    git(checkout, "reset", "-q", "--hard")
    assert commit(checkout) == head
    os.utime(path, (1, 1))
    assert commit(checkout) == head, "a file that was only touched is no change"


def test_without_a_checkout_there_is_no_commit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkout / "venv" / "site-packages"
    (inside / "snn_helpers").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    git(tmp_path, "init", "-q", str(tmp_path / "new"))
    assert commit(inside) is None, "the checkout around an installed package is not the package's"
    assert commit(tmp_path / "empty") is None
    assert commit(tmp_path / "new") is None, "no commit was made there yet"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert commit(checkout) is None, "git is not installed"


def test_a_hook_does_not_lead_to_another_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", "nowhere")
    assert commit(checkout) == head


def test_provenance_names_the_commit_of_this_code() -> None:
    assert provenance("a test")["commit"] == commit()
    assert {"what", "date", "python", "torch", "system", "cores", "torch_threads", "gpu"} < set(provenance("a test"))


# --- Rows -----------------------------------------------------------------------------------------


def test_each_row_names_the_commit_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    # Of a row from before any commit was named, none is known.
    path.write_text(json.dumps({"provenance": {}, "trials": [{"settings": {"number": 1}, "square": 1}]}))
    for made_with, numbers in (("one", [1, 2, 3]), ("two+changes", [2, 4]), (None, [5])):
        monkeypatch.setattr(recording, "commit", lambda made_with=made_with: made_with)
        rows = record_trials(path, "a test", [{"number": number} for number in numbers], square)
        assert content_of(path)["provenance"]["commit"] == made_with
    assert rows == content_of(path)["trials"]
    assert [row["commit"] for row in rows] == [None, "one", "one", "two+changes", None]
    assert [row["square"] for row in rows] == [1, 4, 9, 16, 25]


def test_rows_of_a_record_that_names_one_commit_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written next names another one for the record as a whole."""
    path = tmp_path / "record.json"
    old = [{"settings": {"number": 1}, "square": 1}, {"settings": {"number": 2}, "square": 4, "commit": "two"}]
    path.write_text(json.dumps({"provenance": {"commit": "one"}, "trials": old}))
    before = path.read_bytes()
    monkeypatch.setattr(recording, "commit", lambda: "three")
    record_trials(path, "a test", [{"number": 1}], square)
    assert path.read_bytes() == before, "a record to which nothing is added is not touched"
    rows = record_trials(path, "a test", [{"number": 3}], square)
    assert content_of(path)["trials"] == rows
    assert [row["commit"] for row in rows] == ["one", "two", "three"]
    assert content_of(path)["provenance"]["commit"] == "three"


def test_the_commit_is_that_of_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit made while a run goes on does not change the code that runs."""
    now = ["begun"]
    monkeypatch.setattr(recording, "commit", lambda: now[0])

    def run(number: int) -> dict[str, Any]:
        now[0] = "later"
        return square(number)

    record_trials(tmp_path / "record.json", "a test", [{"number": 1}, {"number": 2}], run)
    content = content_of(tmp_path / "record.json")
    assert [row["commit"] for row in content["trials"]] == ["begun", "begun"]
    assert content["provenance"]["commit"] == "begun"


SAME: list[dict[str, Any]] = [
    {"number": 3, "levels": (0.0, 0.5), "inner": {"sizes": (1, (2, 3))}},
    {"number": 3, "levels": [0.0, 0.5], "inner": {"sizes": [1, [2, 3]]}},
    {"number": np.int64(3), "levels": np.array([0.0, 0.5]), "inner": {"sizes": (np.int8(1), torch.tensor([2, 3]))}},
    {"number": np.array(3), "levels": (np.float64(0.0), torch.tensor(0.5)), "inner": {"sizes": (1, [2, 3])}},
]


@pytest.mark.parametrize("first", SAME, ids=["tuples", "lists", "arrays", "0-d"])
def test_the_same_settings_are_known_in_any_form(first: dict[str, Any], tmp_path: Path) -> None:
    path, ran = tmp_path / "record.json", []

    def run(**settings: Any) -> dict[str, Any]:
        ran.append(settings)
        return {"score": np.float32(0.5), "all": np.arange(3), "by": {np.int64(1): np.bool_(True), 0.5: None}}

    record_trials(path, "a test", [first], run)
    assert ran[0] is not first and ran[0].keys() == first.keys()
    assert all(ran[0][name] is first[name] for name in first), "the run gets its settings as they were given"
    record_trials(path, "a test", SAME, run)
    assert len(ran) == 1
    (row,) = content_of(path)["trials"]
    assert row["settings"] == SAME[1]
    assert (row["score"], row["all"], row["by"]) == (0.5, [0, 1, 2], {"1": True, "0.5": None})
    record_trials(path, "a test", [SAME[0] | {"levels": (0.0, 0.25)}], run)
    assert len(ran) == 2


def test_a_result_that_no_file_could_hold_is_told(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record_trials(path, "a test", [{"number": 1}], square)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"a complex .1j. cannot be kept: give numbers, words"):
        record_trials(path, "a test", [{"number": 2}], lambda number: {"score": [number, 1j]})
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"trials": 3}', '{"trials": [{"score": 1}]}', '{"rows": []}'])
def test_a_file_that_is_no_record_is_left_as_it_is(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=r"record\.json is no record of trials .*move it away"):
        record_trials(path, "a test", [{"number": 1}], square)
    assert path.read_text() == damage


@pytest.mark.parametrize("fails", [False, True])
def test_the_digits_are_given_back(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read once a record, however many trials it has, and do not stay in memory behind it."""
    loaded: list[weakref.ref[Any]] = []

    def load(split: str) -> Digits:
        digits = Digits(torch.zeros(60_000, 1), torch.zeros(60_000), split)
        loaded.append(weakref.ref(digits))
        return digits

    monkeypatch.setattr(recording, "load_mnist", load)

    def run(number: int) -> dict[str, Any]:
        train, test = recording.whole_mnist()
        if fails and number == 2:
            raise RuntimeError("the power is gone")
        return {"sizes": [len(train), len(test)]}

    trials = [{"number": number} for number in range(4)]
    with pytest.raises(RuntimeError, match="power") if fails else contextlib.nullcontext():
        record_trials(tmp_path / "record.json", "a test", trials, run)
    assert len(content_of(tmp_path / "record.json")["trials"]) == (2 if fails else 4)
    gc.collect()
    assert [digits() for digits in loaded] == [None, None]


# --- Cut off --------------------------------------------------------------------------------------

# Each moment is a process of its own that kills itself; then the record is taken up again.
KILLER = """
import builtins, os, signal, sys
from pathlib import Path
from snn_helpers.long import files, recording

folder = Path(sys.argv[1])
TRIALS = [{"number": number} for number in range(5)]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment, n):
    calls = iter(range(n))
    replace = os.replace

    def due():
        return next(calls, None) is None

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            if due():
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                die()
            return self.file.write(content)

    def before(*arguments):
        if due():
            die()
        replace(*arguments)

    def after(*arguments):
        replace(*arguments)
        if due():
            die()

    if moment == "half written":
        files.open = lambda *arguments: Half(builtins.open(*arguments))
    elif moment in ("before replace", "after replace"):
        os.replace = before if moment == "before replace" else after
    return die if moment == "running" else None, due


def record(name, moment=None, n=0):
    stop, due = arm(moment, n)

    def run(number):
        if stop is not None and due():
            stop()
        with open(folder / f"{name}.ran", "a") as file:
            file.write(f"{number}\\n")
        return {"square": number**2}

    recording.record_trials(folder / f"{name}.json", "a test", TRIALS, run)


for moment in ("running", "half written", "before replace", "after replace"):
    for n in range(5):
        child = os.fork()
        if child == 0:
            record(f"{moment} {n}", moment, n)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, n, status)
        cut = folder / f"{moment} {n}.json"
        (folder / f"{moment} {n}.cut").write_bytes(cut.read_bytes() if cut.exists() else b"")
        child = os.fork()
        if child == 0:
            record(f"{moment} {n}")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, (moment, n)
"""
MOMENTS = ("running", "half written", "before replace", "after replace")


@pytest.fixture(scope="module")
def killed(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return once("killed records", record_and_kill)


def record_and_kill(folder: Path) -> None:
    (folder / "killer.py").write_text(KILLER)
    run = subprocess.run(
        [sys.executable, str(folder / "killer.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("n", range(5))
def test_a_record_that_is_killed_loses_at_most_the_trial_that_ran(moment: str, n: int, killed: Path) -> None:
    name = f"{moment} {n}"
    cut = (killed / f"{name}.cut").read_text()
    kept = [row["square"] for row in json.loads(cut)["trials"]] if cut else []
    n_kept = n + 1 if moment == "after replace" else n
    assert kept == [number**2 for number in range(n_kept)]
    assert [row["square"] for row in content_of(killed / f"{name}.json")["trials"]] == [0, 1, 4, 9, 16]
    ran = [int(line) for line in (killed / f"{name}.ran").read_text().split()]
    again = [n] if moment in ("half written", "before replace") else []
    assert sorted(ran) == sorted([*range(5), *again]), "what is kept does not run again"
    assert not (killed / f"{name}.json.partial").exists()


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"new", memoryview(b"new")])
def test_write_whole(content: bytes | memoryview, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() == bytes(content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_was_there_stays_if_writing_fails(
    error: BaseException, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_plain_values() -> None:
    for value, wanted in (
        (np.float32(0.5), 0.5),
        (np.int8(3), 3),
        (np.bool_(False), False),
        (np.str_("a"), "a"),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        ({"a": (np.array(1.5), None)}, {"a": [1.5, None]}),
    ):
        found = plain(value)
        assert found == wanted and json.loads(json.dumps(found)) == wanted
        assert type(found) is type(wanted)
    for wrong in (object(), 1j, b"a", {1, 2}):
        with pytest.raises(TypeError, match="cannot be kept"):
            plain(wrong)
