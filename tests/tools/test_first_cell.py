"""The first cell of every notebook: it installs the helpers wherever they are missing or old, and touches nothing else.

Each case runs the cell in an environment of its own, which sees this one's packages but not the helpers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from address import current_address, helpers_version, setup_cell
from make_stacks import archive
from notebooks import bare_python

ROOT = Path(__file__).resolve().parents[2]
VERSION = helpers_version()


@dataclass
class Place:
    """A Python without the helpers, and an empty folder to run in."""

    python: Path
    site: Path
    folder: Path

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        known |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"} | environment
        return subprocess.run([self.python, "-c", code], cwd=self.folder, env=known, capture_output=True, text=True)

    def pretend(self, name: str, version: str, requires_torch: str = "") -> None:
        """A package of this name and version, as pip would have installed it."""
        module = name.replace("-", "_")
        (self.site / module).mkdir()
        (self.site / module / "__init__.py").write_text(f'__version__ = "{version}"\n')
        about = self.site / f"{module}-{version}.dist-info"
        about.mkdir()
        needs = f"Requires-Dist: torch{requires_torch}\n" if requires_torch else ""
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        (about / "INSTALLER").write_text("pip\n")
        files = [f"{module}/__init__.py,,", *(f"{about.name}/{part},," for part in ("METADATA", "INSTALLER", "RECORD"))]
        (about / "RECORD").write_text("\n".join(files) + "\n")

    def installed(self) -> set[str]:
        return {path.name for path in self.site.glob("*.dist-info")}


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def wheel(zipped: Path) -> Path:
    """The same, built: pip is done with it in a moment."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", str(zipped)]
    subprocess.run(build, cwd=zipped.parent, check=True)
    return next(zipped.parent.glob("*.whl"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    clean, empty = tmp_path / "clean", tmp_path / "empty"
    empty.mkdir()
    return Place(*bare_python(clean), empty)


CELL = setup_cell()
WHICH = "\nimport snn_helpers; print(snn_helpers.__version__, snn_helpers.__file__)"


def test_it_is_plain_python_that_names_the_book_s_version_and_archive() -> None:
    compile(CELL, "cell", "exec")
    assert f'_VERSION = "{VERSION}"\n_ARCHIVE = "{current_address()}/archive/' in CELL
    assert "git+" not in CELL and "%pip" not in CELL


def test_a_formatter_leaves_it_as_it_is() -> None:
    """Notebooks are formatted at 84 characters, and their first cells must stay what `setup_cell` says."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "84", "--check", "-"]
    run = subprocess.run(command, input=CELL + "\n", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_it_installs_what_is_missing_and_nothing_else_with_no_git_and_in_silence(place: Place, zipped: Path) -> None:
    tools = place.folder.parent / "bin"
    tools.mkdir()
    run = place.run(CELL + WHICH, SNN_HELPERS_FROM=str(zipped), PATH=str(tools))
    assert run.returncode == 0, run.stdout + run.stderr
    version, file = run.stdout.split()
    assert version == VERSION and Path(file).is_relative_to(place.site)
    assert run.stderr == ""  # no word of a restart that nobody needs
    assert place.installed() == {f"snn_helpers-{VERSION}.dist-info"}


def test_torchvision_is_not_demanded() -> None:
    """Of the requirements, what a reader's torch must fit is torch alone."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^dependencies = \[(.*?)\]", text, re.M | re.S)
    assert "torch>=" in listed and "torchvision" not in listed
    assert "torchvision==" in (ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("old", ["0.1.9", "0.0.1"])
def test_an_older_package_is_renewed_even_if_it_has_been_imported(old: str, place: Place, wheel: Path) -> None:
    place.pretend("snn-helpers", old)
    before = "import snn_helpers; assert snn_helpers.__version__ == " + repr(old) + "\n"
    run = place.run(before + CELL + WHICH, SNN_HELPERS_FROM=str(wheel))
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split()[0] == VERSION
    assert place.installed() == {f"snn_helpers-{VERSION}.dist-info"}


@pytest.mark.parametrize("there", [VERSION, "9.0.0"])
def test_where_it_is_as_new_nothing_is_done(there: str, place: Place) -> None:
    place.pretend("snn-helpers", there)
    forbid = "import subprocess; subprocess.run = None\n"  # so that to call pip would fail
    run = place.run(forbid + CELL + WHICH)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == there


def test_a_torch_that_is_too_old_is_left_alone_and_named(place: Place, wheel: Path) -> None:
    place.pretend("torch", "2.4.0")
    run = place.run(CELL, SNN_HELPERS_FROM=str(wheel))
    assert run.returncode != 0 and place.installed() == {"torch-2.4.0.dist-info"}
    assert "newer version than what is installed (torch==2.4.0)" in run.stderr
    assert "torch>=2.6" in run.stdout  # pip's own words


def test_an_older_copy_that_lies_in_the_way_is_named(place: Place, wheel: Path) -> None:
    copy = place.folder / "snn_helpers"
    copy.mkdir()
    (copy / "__init__.py").write_text('__version__ = "0.1.0"\n')
    run = place.run(CELL, SNN_HELPERS_FROM=str(wheel))
    assert run.returncode != 0
    assert f"An older copy lies in the way: {copy / '__init__.py'}. Move it away." in run.stderr


def test_with_no_network_it_says_so_and_what_to_do(place: Place) -> None:
    """Nothing answers at port 9; the words are those of any failure to connect."""
    run = place.run(CELL, SNN_HELPERS_FROM="http://127.0.0.1:9/main.zip", PIP_RETRIES="0", PIP_TIMEOUT="2")
    assert run.returncode != 0
    for words in ("http://127.0.0.1:9/main.zip cannot be reached", "Kaggle", "HTTPS_PROXY", "run this cell again"):
        assert words in run.stderr


def test_a_python_without_pip_is_told_what_to_type(place: Place, wheel: Path) -> None:
    (place.site / "packages.pth").unlink()
    run = place.run(CELL, SNN_HELPERS_FROM=str(wheel))
    assert run.returncode != 0 and f"uv pip install {wheel}" in run.stderr


@pytest.mark.parametrize("demand", [">=4", "<3"])
def test_a_python_that_does_not_fit_is_named(demand: str, place: Place, tmp_path: Path) -> None:
    small = tmp_path / "small"
    (small / "snn_helpers").mkdir(parents=True)
    (small / "snn_helpers" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    (small / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "snn-helpers"\nversion = "{VERSION}"\nrequires-python = "{demand}"\n'
    )
    zipped = shutil.make_archive(str(tmp_path / "small"), "zip", small)
    run = place.run(CELL, SNN_HELPERS_FROM=zipped)
    assert run.returncode != 0
    assert f"The book needs Python 3.11.5 to 3.14, and this is {sys.version.split()[0]}." in run.stderr


def test_any_other_failure_shows_what_pip_said(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / "main.zip"
    broken.write_bytes(b"no archive")
    run = place.run(CELL, SNN_HELPERS_FROM=str(broken))
    assert run.returncode != 0 and "pip says why, above." in run.stderr and "main.zip" in run.stdout
