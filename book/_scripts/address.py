"""Carry the repository's address from _config.yml to every file that must repeat it.

    python book/_scripts/address.py [NEW_ADDRESS]

Notebooks, README and metadata cannot read the address from elsewhere; a test holds them to it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KEEPS_ITS_OWN = {"LICENSE"}


def current_address(root: Path = ROOT) -> str:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str(config["repository"]["url"])


def change_address(new: str, root: Path = ROOT) -> list[Path]:
    """Replace the address in every text file of the repository; return the files changed."""
    if not new.startswith("https://") or new.endswith(("/", ".git")) or new.count("/") != 4:
        raise ValueError(f"the address must look like https://github.com/owner/name, not {new!r}")
    old = current_address(root)
    # Badges name owner/name without the host.
    pairs = [(old, new), (old.removeprefix("https://github.com/"), new.removeprefix("https://github.com/"))]
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    changed = []
    for name in listed:
        path = root / name
        if name in KEEPS_ITS_OWN or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        replaced = text
        for before, after in pairs:
            replaced = replaced.replace(before, after)
        if replaced != text:
            path.write_text(replaced, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"the address is {current_address()}; name another to change it")
    for path in change_address(sys.argv[1]):
        print(path.relative_to(ROOT))
