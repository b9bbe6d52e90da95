"""A folder that was moved or renamed: its .venv works again, with no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import moved
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["new", "a new place", "d'été (1)", "n" * 140])
def test_scripts_start_again_and_activation_names_the_new_place(name: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / name
    old.mkdir()
    venv.create(old / ".venv", symlinks=True)
    script = old / ".venv" / "bin" / "tool"
    script.write_text(f"#!{old}/.venv/bin/python\nimport sys\nprint(sys.prefix)\n")
    script.chmod(0o755)
    old.rename(new)
    with pytest.raises(FileNotFoundError):
        subprocess.run([new / ".venv" / "bin" / "tool"])
    assert moved.mend(str(old), new / ".venv")
    run = subprocess.run([new / ".venv" / "bin" / "tool"], capture_output=True, text=True)
    assert run.stdout.strip() == str(new / ".venv"), run.stderr
    for path in (new / ".venv" / "bin").glob("activate*"):
        assert str(old) not in path.read_text()
    assert str(old) not in (new / ".venv" / "pyvenv.cfg").read_text()
    assert moved.mend(str(old), new / ".venv") == []


def test_what_is_no_text_is_left_alone(tmp_path: Path) -> None:
    binary = tmp_path / ".venv" / "bin" / "tool"
    binary.parent.mkdir(parents=True)
    binary.write_bytes(b"\x7fELF\0/old/.venv\0")
    assert moved.mend("/old", tmp_path / ".venv") == []


@pytest.mark.parametrize(("told", "does"), [("here", False), ("elsewhere", True), ("", False)])
def test_make_sees_that_its_folder_was_moved(told: str, does: bool, tmp_path: Path) -> None:
    """An empty mark is that of an older book, and says nothing of the place."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    mark = tmp_path / ".venv" / "installed"
    mark.parent.mkdir()
    mark.write_text({"here": f"{tmp_path}\n", "elsewhere": "/old place/book\n", "": ""}[told])
    environment = {name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS|PWD", name)}
    command = ["make", "-n", ".venv/installed", "PYTHON=python3"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert ("repo/moved.py" in run.stdout) == does, run.stdout
    assert "-m venv .venv" not in run.stdout
