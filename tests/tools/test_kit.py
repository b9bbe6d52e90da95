"""The kit, packed and opened in an empty folder of a clean environment that no network reaches."""

from __future__ import annotations

import ast
import gzip
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import make_kit
import make_workshop
import nbformat
import pytest
from make_workshop import exercises
from notebooks import PARAMETERS, bare_python, code_cells, offline, read

from snn_helpers import data
from snn_helpers.long import mnist
from snn_helpers.long.mnist import FILES, DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNN_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A workshop of students' and instructors' copies; a slide that says only what it is."""
    folder = tmp_path / "workshop"
    monkeypatch.setattr(make_workshop, "OUT", folder)
    for path in make_workshop.notebooks():
        notebook = read(path)
        for name, made in (
            ("students", make_workshop.student_copy(notebook)),
            ("instructors", make_workshop.instructor_copy(notebook, None)),
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nbformat.write(made, folder / name / path.name)
    (folder / "slides").mkdir()
    (folder / "slides" / "one.html").write_text("a slide")
    return folder


def packed(tmp_path: Path, students: bool = False) -> Path:
    """The kit, opened in an empty folder."""
    html = tmp_path / "html"
    html.mkdir()
    (html / "index.html").write_text("a page")
    kit = tmp_path / "kit"
    kit.mkdir()
    make_kit.gather(kit, wheels=False, students=students, html=html, pip_options=[])
    make_kit.pack(kit, tmp_path / "kit.zip")
    opened = tmp_path / "opened"
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(opened)
    return opened / "kit"


def test_a_kit_opened_in_an_empty_folder_runs_a_notebook_with_no_network(
    no_mnist: None, workshop: Path, tmp_path: Path
) -> None:
    kit = packed(tmp_path)
    listed = [line.split("  ") for line in (kit / "SHA256SUMS").read_text().splitlines()]
    files = {str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert {name for _, name in listed} == files
    assert all(hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest for digest, name in listed)

    clean = tmp_path / "clean"
    python = str(bare_python(clean)[0])
    nowhere = "http://127.0.0.1:9"  # nobody listens there
    environment = offline(tmp_path) | {"http_proxy": nowhere, "https_proxy": nowhere, "PIP_NO_INDEX": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("SNN_OFFLINE")  # check.py sets it

    def call(*command: str) -> str:
        done = subprocess.run([python, *command], cwd=kit, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    unprepared = subprocess.run([python, "check.py"], cwd=kit, env=environment, capture_output=True, text=True)
    assert unprepared.returncode != 0 and "Run the pip command of README.md" in unprepared.stderr
    # The command of the kit's README, word for word.
    install = "-m pip install --no-index --find-links wheels --no-deps --force-reinstall snn-helpers"
    assert install in (kit / "README.md").read_text()
    call(*install.split(), "--quiet")
    told = call("check.py")
    assert "Ready:" in told and "1,000 test digits" in told and "Free:" in told, told
    # Without what a notebook needs it is not ready, whatever else is there.
    blocked = "import importlib.util as u, runpy, sys; f = u.find_spec\nlacking = 'jupyterlab', 'anywidget'"
    blocked += "\nu.find_spec = lambda name, *a: None if name in lacking else f(name, *a)\nrunpy.run_path('check.py')"
    lacking = subprocess.run([python, "-c", blocked], cwd=kit, env=environment, capture_output=True, text=True)
    assert lacking.returncode != 0 and "No module named anywidget, jupyterlab." in lacking.stderr, lacking.stderr[
        -2000:
    ]

    # A learner opens the first chapter, answers the first exercise, and runs the check.
    path = kit / "workshop" / "students" / "01_neuron_dynamics.ipynb"
    answered = read(path)
    (parameters,) = code_cells(answered, "parameters")
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in PARAMETERS[path.stem][0].items())
    first_check = next(i for i, cell in enumerate(answered.cells) if "check" in cell.metadata.get("tags", []))
    blank = code_cells(answered, "exercise")[0]
    assert blank.source.startswith("wanted_decay = None")
    blank.source = "wanted_decay = 0.5 ** (1 / 20)"
    answered.cells = answered.cells[: first_check + 1]
    nbformat.write(answered, path)
    environment["SNN_OFFLINE"] = "1"
    call("-m", "papermill", str(path), "out.ipynb", "--no-progress-bar", "--cwd", str(path.parent))
    where = call("-c", "import snn_helpers; print(snn_helpers.__file__)")
    assert str(clean) in where


def test_a_kit_for_students_holds_no_solution(no_mnist: None, workshop: Path, tmp_path: Path) -> None:
    kit = packed(tmp_path, students=True)
    assert {path.name for path in (kit / "workshop").iterdir()} == {"students", "slides"}
    assert not (kit / "notebooks").exists() and not (kit / "html").exists()
    for path in kit.rglob("*.ipynb"):
        assert not code_cells(read(path), "solution")
    told = (kit / "README.md").read_text()
    assert "`workshop/instructors`" not in told and "`notebooks`" not in told
    # A whole kit has them.
    chapter = read(workshop / "instructors" / "01_neuron_dynamics.ipynb")
    assert len(code_cells(chapter, "solution")) == len(exercises(chapter)) >= 3


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of four small files in MNIST's place; one of them packed already."""
    contents = {
        name: bytes(16 if "images" in name else 8) + bytes(3 * (784 if "images" in name else 1))
        for pair in FILES.values()
        for name in pair
    }
    monkeypatch.setattr(mnist, "MD5", {name: hashlib.md5(content).hexdigest() for name, content in contents.items()})
    monkeypatch.setenv("SNN_DATA_DIR", str(tmp_path / "digits"))
    raw = tmp_path / "digits" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for i, (name, content) in enumerate(contents.items()):
        (raw / (name if i else f"{name}.gz")).write_bytes(content if i else gzip.compress(content))
    return raw


def test_the_teachers_digits_go_into_the_kit_and_can_be_read_there(small_mnist: Path, tmp_path: Path) -> None:
    assert make_kit.copy_digits(tmp_path / "data")
    copied = tmp_path / "data" / "MNIST" / "raw"
    assert all(path.suffix == ".gz" for path in copied.iterdir()) and len(list(copied.iterdir())) == 4
    for split in FILES:
        assert len(data.load_mnist(split, source="local", folder=tmp_path / "data")) == 3


def test_without_a_whole_copy_no_digits_are_copied_and_a_damaged_one_is_an_error(
    small_mnist: Path, tmp_path: Path
) -> None:
    damaged = small_mnist / "t10k-labels-idx1-ubyte"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="damaged"):
        make_kit.copy_digits(tmp_path / "one")
    damaged.unlink()
    assert not make_kit.copy_digits(tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_a_wheel_holds_helpers_scripts_and_records_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {path.name for path in ROOT.iterdir()}
    with zipfile.ZipFile(make_kit.make_wheel(tmp_path)) as wheel:
        names = set(wheel.namelist())
    pictures = [*(ROOT / "snn_helpers").glob("js/*"), *(ROOT / "snn_helpers").glob("drawings/*")]
    assert len(pictures) > 6
    for path in [*(ROOT / "snn_helpers").glob("*.py"), *pictures]:
        assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "book" / "results").glob("*.json"):
        assert f"snn_helpers/results/{path.name}" in names
    for path in [*(ROOT / "book" / "snn_chapters").glob("*.py"), *(ROOT / "snn_helpers").glob("*/**/*.py")]:
        assert str(path.relative_to(ROOT)).removeprefix("book/") in names
    assert {path.name for path in ROOT.iterdir()} == before


def test_a_failing_pip_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "PIP_NO_INDEX", "1")
    with pytest.raises(make_kit.KitError, match="pip download failed"):
        make_kit._pip("download", "--dest", str(tmp_path), "no-such-package==1.0")
    with pytest.raises(make_kit.KitError, match=r"not in requirements\.txt"):
        make_kit.pinned("no-such-package")


def test_with_wheels_the_readme_installs_all_of_them_from_the_kit(
    no_mnist: None, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    real = make_kit._pip

    def only_the_own_wheel(*arguments: str) -> None:
        asked.append(arguments)
        if arguments[0] == "wheel":
            real(*arguments)

    monkeypatch.setattr(make_kit, "_pip", only_the_own_wheel)
    kit = tmp_path / "kit"
    kit.mkdir()
    options = ["--platform", "win_amd64", "--only-binary=:all:"]
    make_kit.gather(kit, wheels=True, students=True, html=tmp_path, pip_options=options)
    (download,) = [arguments for arguments in asked if arguments[0] == "download"]
    assert "-r" in download and list(download[-3:]) == options and str(kit / "wheels") in download
    assert "https://download.pytorch.org/whl/cpu" in download
    told = (kit / "README.md").read_text()
    commands = [line for line in told.splitlines() if "pip install" in line]
    assert len(commands) == 2 and all("--no-index --find-links wheels" in command for command in commands)
    assert not any("extra-index-url" in command for command in commands), "the kit needs no index"
    assert "packed without" not in told and "whose wheel is in `wheels`" in told


@pytest.mark.parametrize("gpu", [False, True])
def test_the_build_of_torch_for_processors_is_the_default(
    gpu: bool, no_mnist: None, workshop: Path, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    make_kit.gather(kit, wheels=False, students=True, html=tmp_path, pip_options=[], gpu=gpu)
    block = (kit / "README.md").read_text().split("```")[1]
    lines = block.strip().splitlines()
    assert lines[0] == "python3 -m venv .venv" and lines[-1] == ".venv/bin/python check.py"
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in lines[1]) != gpu
    assert lines[1].endswith("-r requirements-learn.txt") and (kit / "requirements-learn.txt").exists()
    assert "snn-helpers" in lines[2] and len(lines) == 4, "one block, in the order in which it runs"


def test_what_a_learner_needs_is_pinned_as_the_book_is_and_covers_what_notebooks_import() -> None:
    learn = [line for line in (ROOT / "requirements-learn.txt").read_text().splitlines() if line and line[0] != "#"]
    assert set(learn) <= set((ROOT / "requirements.txt").read_text().splitlines())
    named = {line.split("==")[0].replace("-", "_") for line in learn} | {
        "IPython",
        "cycler",
        "sklearn",
        "traitlets",
    }
    # What `make bench` measures beside it is imported where it is there, and no notebook needs it.
    own = {"snn_helpers", "snn_chapters", "norse", "spikingjelly"}
    code = [
        cell.source for path in make_workshop.notebooks() for cell in code_cells(read(path)) if "%" not in cell.source
    ]
    code += [
        path.read_text("utf-8") for path in [*ROOT.glob("snn_helpers/**/*.py"), *ROOT.glob("book/snn_chapters/**/*.py")]
    ]
    for text in code:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = {node.module.split(".")[0]}
            else:
                continue
            assert modules <= named | own | set(sys.stdlib_module_names), modules
