"""Carry the repository's address and branch from _config.yml to every file that must repeat them, first cells included.

    python book/_scripts/repo/address.py [NEW_ADDRESS [BRANCH]]

Without an address it writes the notebooks' first cells anew, after a change of `CELL`.
Notebooks, README and metadata cannot read the address from elsewhere; a test holds them to it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml
from files import listed_files

ROOT = Path(__file__).resolve().parents[3]
KEEPS_ITS_OWN = {"LICENSE"}
VERSION_LINE = r'^__version__ = "(.+)"$'

CELL = """\
# Where the book's helper package is missing or too old, as in Colab, this cell
# installs it. Elsewhere it does nothing. Torch stays as it is, and you need not
# restart anything.
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

_VERSION = "@version@"
_ARCHIVE = "@archive@"


def _where_helpers():
    found = importlib.util.find_spec("snn_helpers")
    return found.origin if found else None


def _old_helpers():
    place = _where_helpers()
    text = Path(place).read_text(encoding="utf-8") if place else ""
    found = re.search(r'^__version__ = "(\\d+)\\.(\\d+)\\.(\\d+)', text, re.M)
    wanted = tuple(map(int, _VERSION.split(".")))
    return not found or tuple(map(int, found.groups())) < wanted


def _install_helpers(archive):
    torch = [
        f"torch=={found.version}"
        for found in importlib.metadata.distributions(name="torch")
    ][:1]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    run = subprocess.run([*pip, archive, *torch], capture_output=True, text=True)
    importlib.invalidate_caches()
    for name in list(sys.modules):  # what was imported of the old one
        if re.match(r"snn_(helpers|chapters)\\b", name):
            del sys.modules[name]
    if run.returncode == 0 and not _old_helpers():
        return
    said = run.stdout + run.stderr
    if run.returncode == 0:
        why = f"An older copy lies in the way: {_where_helpers()}. Move it away."
    elif "No module named pip" in said:
        why = (
            "This Python has no pip. With uv, type in a terminal: "
            f"uv pip install {archive}"
        )
    elif "requires a different Python" in said:
        this = sys.version.split()[0]
        why = f"The book needs Python 3.11.5 to 3.14, and this is {this}."
    elif "conflict" in said:
        why = (
            "The book needs a newer version than what is installed "
            f"({', '.join(torch)}): pip says which, above."
        )
    elif re.search(
        "name resolution|resolve host|refused|timed out|unreachable|proxy"
        "|HTTP error|SSLError",
        said,
    ):
        why = (
            f"{archive} cannot be reached. In Kaggle, switch on 'Internet' in the "
            "settings of the notebook. Behind a proxy, set HTTPS_PROXY. With no "
            "network, use a copy of the whole book."
        )
    else:
        why = "pip says why, above."
    print(said)
    raise ImportError(
        f"The book's helper package {_VERSION} could not be installed. {why} "
        "Then run this cell again."
    )


if _old_helpers():
    _install_helpers(os.environ.get("SNN_HELPERS_FROM", _ARCHIVE))"""


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


def helpers_version(root: Path = ROOT) -> str:
    """The version of the helper package, as its own file names it."""
    text = (root / "snn_helpers" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(VERSION_LINE, text, re.M)
    if found is None:
        raise ValueError(f'{root / "snn_helpers" / "__init__.py"} names no version: it needs a line __version__ = "…"')
    return found[1]


def setup_cell(root: Path = ROOT, version: str | None = None) -> str:
    """The first code cell of every notebook: plain Python, which needs neither git nor a restart.

    Where the helpers are missing, or older than `version` (by default that of the helpers in `root`), it installs the
    archive of the branch or tag that the book names; pip is told to keep the torch that is there. A failure is told by
    its cause, with what pip said. SNN_HELPERS_FROM in the environment names another archive, such as a copy in a room
    with no network.
    """
    archive = f"{current_address(root)}/archive/{current_branch(root)}.zip"
    return CELL.replace("@archive@", archive).replace("@version@", version or helpers_version(root))


def with_first_cell(notebook: str, cell: str) -> str:
    """The text of a notebook with this first code cell in the place of its own."""
    content = json.loads(notebook)
    for each in content["cells"]:
        if "setup" in each["metadata"].get("tags", []):
            each["source"] = cell.splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def renew_first_cells(root: Path = ROOT) -> list[Path]:
    """Give every notebook the first cell of now; those that had another one."""
    cell, changed = setup_cell(root), []
    for path in sorted((root / "book").glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        if (after := with_first_cell(before, cell)) != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


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
        (f"{old}/archive/{old_branch}.zip", f"{new}/archive/{branch}.zip"),
        (f"{place}/blob/{old_branch}/", f"{new_place}/blob/{branch}/"),
        (f"{place}/tree/{old_branch}/", f"{new_place}/tree/{branch}/"),
        (f"mybinder.org/v2/gh/{place}/{old_branch}", f"mybinder.org/v2/gh/{new_place}/{branch}"),
        (old_pages, f"https://{new_owner.lower()}.github.io/{new_name}/"),
        (old, new),
        (place, new_place),
    ]
    changed = []
    for name in listed_files(root):
        path = root / name
        if name in KEEPS_ITS_OWN:
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
    if len(sys.argv) > 3:
        sys.exit("name an address, and perhaps a branch: make address URL=https://github.com/you/your-fork BRANCH=main")
    if len(sys.argv) == 1:
        changed = renew_first_cells()
        print(f"the address is {current_address()}, the branch {current_branch()}; name another to change it")
    else:
        changed = change_address(sys.argv[1], branch=sys.argv[2] if len(sys.argv) == 3 else None)
    for path in changed:
        print(path.relative_to(ROOT))
