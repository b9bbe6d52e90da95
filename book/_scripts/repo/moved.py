"""Make a .venv whose folder was moved or renamed work again: what it wrote down of the old place names the new one.

    python book/_scripts/repo/moved.py OLD [VENV]

make calls this when .venv/installed names another folder than that in which it lies. Nothing is fetched.
"""

from __future__ import annotations

import sys
from pathlib import Path

LONGEST = 127  # bytes of a script's first line that every system reads


def renamed(text: bytes, old: bytes, new: bytes) -> bytes:
    """A text of .venv with the old place replaced.

    A script's first line cannot hold a space, nor a long path: there the shell starts Python, as pip writes it too.
    """
    first, _, rest = text.partition(b"\n")
    if first.startswith(b"#!" + old) and (b" " in new or len(first) - len(old) + len(new) > LONGEST):
        python = first[2:].replace(old, new)
        first = b"#!/bin/sh\n'''exec' \"" + python + b'" "$0" "$@"\n\' \'\'\''
        return first + b"\n" + rest.replace(old, new)
    return text.replace(old, new)


def mend(old: str, venv: Path) -> list[Path]:
    """Rewrite the texts of `venv` that name the folder `old` (of the book, not of .venv); those changed."""
    before, after = (f"{place}/.venv".encode() for place in (old, venv.resolve().parent))
    files = [venv / "pyvenv.cfg", *(venv / "bin").iterdir(), *(venv / "share").rglob("*.json")]
    changed = []
    for path in files:
        if path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes()
        if before in text and b"\0" not in text:
            path.write_bytes(renamed(text, before, after))
            changed.append(path)
    return changed


if __name__ == "__main__":
    place = Path(sys.argv[2] if len(sys.argv) > 2 else ".venv")
    print(f"This folder was {sys.argv[1]}: {len(mend(sys.argv[1], place))} files of {place} name the new one now.")
