"""Carry the repository's address and branch from _config.yml to every file that must repeat them.

    python book/_scripts/repo/address.py [NEW_ADDRESS [BRANCH]]

Notebooks, README and metadata cannot read the address from elsewhere; a test holds them to it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
KEEPS_ITS_OWN = {"LICENSE"}


def current_address(root: Path = ROOT) -> str:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str(config["repository"]["url"])


def current_branch(root: Path = ROOT) -> str:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str(config["repository"]["branch"])


def pages_address(root: Path = ROOT) -> str:
    """Where GitHub publishes the pages of this repository."""
    owner, name = current_address(root).removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook."""
    address, branch = current_address(root), current_branch(root)
    return f"""\
# Where the book's helper package is missing, as in Colab, this installs it; elsewhere it does nothing.
import importlib.util

if importlib.util.find_spec("snn_helpers") is None:
    %pip install -q "git+{address}@{branch}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("snn_helpers") is None:
        raise ImportError(
            "The book's helper package could not be installed; pip says why, above. It needs the network, once:"
            " check the connection and run this cell again. With no network, use a copy of the whole book."
        )"""


def badges(notebook: str, root: Path = ROOT) -> str:
    """The last line of a notebook's first cell: where it can be run with a click."""
    place = current_address(root).removeprefix("https://github.com/")
    branch = current_branch(root)
    colab = f"https://colab.research.google.com/github/{place}/blob/{branch}/book/{notebook}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{place}/{branch}?labpath=book/{notebook}.ipynb"
    return f"[Open in Colab]({colab}) · [Open in Binder]({binder})"


def change_address(new: str, root: Path = ROOT, branch: str | None = None) -> list[Path]:
    """Replace the address, and the branch if one is given, in every text file of the repository.

    Returns the files changed. Raises `ValueError` for what is no address or branch; then nothing is changed.
    """
    if not new.startswith("https://") or new.endswith(("/", ".git")) or new.count("/") != 4:
        raise ValueError(f"the address must look like https://github.com/owner/name, not {new!r}")
    old, old_branch, old_pages = current_address(root), current_branch(root), pages_address(root)
    branch = branch or old_branch
    if not re.fullmatch(r"[\w.][\w./-]*", branch):
        raise ValueError(f"the branch must be the name of a branch, such as main, not {branch!r}")
    # Badges name owner/name without the host.
    place, new_place = (address.removeprefix("https://github.com/") for address in (old, new))
    new_owner, new_name = new_place.split("/")[-2:]
    pairs = [
        (f"{old}@{old_branch}", f"{new}@{branch}"),
        (f"{place}/blob/{old_branch}/", f"{new_place}/blob/{branch}/"),
        (f"{place}/tree/{old_branch}/", f"{new_place}/tree/{branch}/"),
        (f"mybinder.org/v2/gh/{place}/{old_branch}", f"mybinder.org/v2/gh/{new_place}/{branch}"),
        (old_pages, f"https://{new_owner.lower()}.github.io/{new_name}/"),
        (old, new),
        (place, new_place),
    ]
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
        if name == "_config.yml":
            replaced = re.sub(r"(?m)^(  branch: ).*$", rf"\g<1>{branch}", replaced)
        if replaced != text:
            path.write_text(replaced, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f"the address is {current_address()}, the branch {current_branch()}; name another to change it")
    for path in change_address(sys.argv[1], branch=sys.argv[2] if len(sys.argv) == 3 else None):
        print(path.relative_to(ROOT))
