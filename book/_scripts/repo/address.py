"""Carry the repository's address and branch from _config.yml to every file that must repeat them.

    python book/_scripts/repo/address.py [NEW_ADDRESS [BRANCH]]

Notebooks, README and metadata cannot read the address from elsewhere; a test holds them to it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml
from files import listed_files

ROOT = Path(__file__).resolve().parents[3]
KEEPS_ITS_OWN = {"LICENSE"}


CELL = """\
# Where the book's helper package is missing or too old, as in Colab, this cell installs it.
# Elsewhere it does nothing. Torch stays as it is. You need not restart anything.
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path


def _old_helpers(wanted):
    found = importlib.util.find_spec("snn_helpers")
    text = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    version = re.search(r'^__version__ = "(\\d+)\\.(\\d+)\\.(\\d+)', text, re.M)
    return not version or tuple(map(int, version.groups())) < wanted


def _install_helpers(version, archive):
    wanted = tuple(map(int, version.split(".")))
    if not _old_helpers(wanted):
        return
    archive = os.environ.get("SNN_HELPERS_FROM", archive)
    torch = [f"torch=={found.version}" for found in importlib.metadata.distributions(name="torch")][:1]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", archive]
    run = subprocess.run(pip + torch, capture_output=True, text=True)
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if re.match(r"snn_(helpers|chapters)\\b", name)]:
        del sys.modules[name]  # what was imported of the old one
    if run.returncode == 0 and not _old_helpers(wanted):
        return
    said = run.stdout + run.stderr
    if run.returncode == 0:
        why = f"An older copy lies in the way: {importlib.util.find_spec('snn_helpers').origin}. Move it away."
    elif "No module named pip" in said:
        why = f"This Python has no pip. With uv, type in a terminal: uv pip install {archive}"
    elif "requires a different Python" in said:
        why = f"The book needs Python 3.11.5 to 3.14, and this is {sys.version.split()[0]}."
    elif "conflict" in said:
        why = f"The book needs a newer version than what is installed ({', '.join(torch)}): pip says which, above."
    elif re.search(r"name resolution|resolve host|refused|timed out|unreachable|proxy|HTTP error|SSLError", said):
        why = (
            f"{archive} cannot be reached. In Kaggle, switch on 'Internet' in the settings of the notebook. Behind a"
            " proxy, set HTTPS_PROXY. With no network, use a copy of the whole book."
        )
    else:
        why = "pip says why, above."
    print(said)
    raise ImportError(f"The book's helper package {version} could not be installed. {why} Then run this cell again.")


_install_helpers("VERSION", "ARCHIVE")"""


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
    found = re.search(r'^__version__ = "(.+)"$', text, re.M)
    if found is None:
        raise ValueError(f'{root / "snn_helpers" / "__init__.py"} names no version: it needs a line __version__ = "…"')
    return found[1]


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook: plain Python, which needs neither git nor a restart.

    Where the helpers are missing, or older than the notebook, it installs the archive of the branch or tag that the
    book names; pip is told to keep the torch that is there. A failure is told by its cause, with what pip said.
    SNN_HELPERS_FROM in the environment names another archive, such as a copy in a room with no network.
    """
    archive = f"{current_address(root)}/archive/{current_branch(root)}.zip"
    return CELL.replace("ARCHIVE", archive).replace("VERSION", helpers_version(root))


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
