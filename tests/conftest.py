"""Options and fixtures of the whole suite; `--device cuda` runs the unit tests, and only them, on a GPU."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Each worker has a core. Two that ask for all cores wait for each other: 1,143 unit tests took 518 s, with this 171 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib
import pytest
import torch
from filelock import FileLock

# Tests open no window. Not by the variable MPLBACKEND: kernels would inherit it, and their notebooks show no figure.
matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[1]
# The scripts are no package; every test finds them, and what the tests share, by name.
sys.path[:0] = [str(ROOT / "book" / "_scripts" / folder) for folder in ("site", "teach", "measure", "repo")]

from browser import chromium  # noqa: E402
from notebooks import fingerprint, offline, working_tree  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402
from scripts import need_chromium  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default="cpu", help="where the unit tests run: cpu (the default) or cuda, which runs no other tests"
    )
    parser.addoption("--quick", action="store_true", help="leave out the tests that tests/slow.txt names")
    parser.addoption("--fresh", action="store_true", help="run again the notebooks that have passed before")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--device")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise pytest.UsageError(f"--device must be cpu or cuda, not {name!r}")
    if name != "cpu" and not torch.cuda.is_available():
        # To skip instead would look like a pass.
        raise pytest.UsageError(f"--device {name} was asked for, but torch sees no CUDA GPU here")
    unit = ROOT / "tests" / "unit"
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if name != "cpu" and not named and unit.is_relative_to(config.invocation_params.dir):
        # The others ask for no device: on a GPU they would only be run once more. Who names them gets them.
        config.args = [str(unit)]


def slow_tests() -> set[str]:
    """The tests that take seconds, as `tests/unit/test_x.py::test_y`."""
    lines = (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # What needs the pages comes first, for one worker; the other one has enough else to do until they are built.
    items.sort(key=lambda item: "built_pages" not in getattr(item, "fixturenames", ()))
    if config.getoption("--quick"):
        slow = slow_tests()
        left_out = [item for item in items if item.nodeid.split("[")[0] in slow]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid.split("[")[0] not in slow]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests of a file."""
    need_chromium()
    with chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """No test depends on how many global random numbers another one drew."""
    torch.manual_seed(0)


@pytest.fixture
def passed_before(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`with passed_before(*inputs) as known:` — `known` is True if this test passed with these inputs."""
    memory = ROOT / "_build" / ".passed"

    @contextmanager
    def remember(*inputs: Path) -> Iterator[bool]:
        known = fingerprint(
            ROOT / "tests/notebooks.py", ROOT / "tests/notebook_parameters.yaml", Path(request.path), *inputs
        )
        mark = memory / hashlib.sha256((request.node.name + known).encode()).hexdigest()
        if mark.exists() and not request.config.getoption("--fresh"):
            yield True
            return
        yield False
        memory.mkdir(parents=True, exist_ok=True)
        mark.write_text(request.node.name + "\n")

    return remember


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: a folder that `make(folder)` has filled, once for all tests and all workers of this run."""
    shared = shared_folder(tmp_path_factory)

    def filled(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not (done := shared / f"{name}.done").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed: the next one tells why, too
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return filled


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run, the same for all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def built_pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that gives the folder of the book's pages, built from clean out of the working tree.

    They are built once for all tests and all workers, and again only if something of the book has changed.
    """

    def build() -> Path:
        files = [name for name in working_tree() if not name.startswith(("tests/", ".", "README", "CONTRIBUTING"))]
        store = ROOT / "_build" / ".pages"
        copy = store / fingerprint(*(ROOT / name for name in files))[:16]
        session = shared_folder(tmp_path_factory)
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / "lock"):
            if request.config.getoption("--fresh") and not (session / "pages built").exists():
                shutil.rmtree(copy, ignore_errors=True)
            if not (copy / "whole").exists():
                for old in store.iterdir():
                    if old.is_dir():
                        shutil.rmtree(old)
                for name in files:
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, copy / name)
                run = subprocess.run(
                    [sys.executable, "book/_scripts/site/build_book.py"],
                    cwd=copy,
                    env=offline(tmp_path_factory.mktemp("cache")),
                    capture_output=True,
                    text=True,
                )
                assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
                (copy / "whole").touch()
            (session / "pages built").touch()
        return copy / "_build" / "html"

    return build
