"""The files of the repository as they are now: asked of git, and in a download without git of .gitignore alone."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatch
from pathlib import Path


def listed_files(root: Path) -> list[str]:
    """Names from the root, in order: what git tracks, and what is new and not ignored.

    In a folder that is no clone, such as an unpacked .zip, or where there is no git, all that .gitignore does not name.
    """
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    try:
        inside = subprocess.run(["git", "rev-parse", "--show-prefix"], cwd=root, capture_output=True, text=True)
        if inside.returncode == 0 and inside.stdout.strip() == "":  # a clone, and not only a folder within another's
            asked = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
            return sorted(name for name in asked.stdout.splitlines() if (root / name).is_file())
    except FileNotFoundError:
        pass
    ignore = root / ".gitignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]

    def ignored(path: Path) -> bool:
        return path.name == ".git" or any(fnmatch(path.name, pattern) for pattern in patterns)

    found, folders = [], [root]
    while folders:
        for path in folders.pop().iterdir():
            if ignored(path):
                continue
            if path.is_dir():
                folders.append(path)
            else:
                found.append(path.relative_to(root).as_posix())
    return sorted(found)
