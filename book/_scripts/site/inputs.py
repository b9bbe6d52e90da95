"""What decides a notebook's output beside the notebook itself, and which kept outputs are no longer true.

The cache of outputs (jupyter-cache) knows a notebook by its code alone. Here is the rest: the helpers,
those modules of `book/snn_chapters` that the notebook imports, the records that it names, the packages,
Python and where the data are. A change in one of them runs again the notebooks that use it, and no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# `snn_chapters.depth` wherever it is, `from snn_chapters import depth, loops` over one line or many, and
# `from .depth import …` within the package. Text in strings counts too: a cell may write a script and start it.
_DOTTED = re.compile(r"\bsnn_chapters\.(?:(?:exercises|explorers)\.)?(\w+)")
_FROM = re.compile(r"\bfrom\s+snn_chapters\s+import\s*(\([^)]*\)|[^\n;]*)")
_WHOLE = re.compile(r"\bimport\s+snn_chapters\b(?!\.)")
_SIBLING = re.compile(r"^\s*from\s+\.(\w*)\s+import\s*(\([^)]*\)|[^\n;]*)", re.M)


def _names(listed: str) -> set[str]:
    """The names of an import's list, `(a, b as c)`, without comments."""
    parts = re.sub(r"#[^\n]*", "", listed).strip("() \n").split(",")
    return {words[0] for part in parts if (words := part.split())}


def _code(notebook: Path) -> str:
    """The code of a notebook, one cell after the other."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook} is no notebook that can be read: {error}") from error
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def chapter_modules(text: str, root: Path = ROOT) -> list[Path]:
    """The files of `book/snn_chapters` that this code imports, and what those import of one another."""
    folder = root / "book" / "snn_chapters"
    known: dict[str, list[Path]] = {}
    for path in [*folder.glob("*.py"), *folder.glob("exercises/[!_]*.py"), *folder.glob("explorers/[!_]*.py")]:
        known.setdefault(path.stem, []).append(path)
    named = set(_DOTTED.findall(text)).union(*map(_names, _FROM.findall(text)))
    if _WHOLE.search(text) or "*" in named:
        named = set(known)  # any of them may be meant
    elif "snn_chapters" in text:
        named.add("__init__")
    found: set[str] = set()
    while new := (named & set(known)) - found:
        found |= new
        for name in new:
            source = "\n".join(path.read_text(encoding="utf-8") for path in known[name])
            named |= set(_DOTTED.findall(source)).union(*map(_names, _FROM.findall(source)))
            for module, listed in _SIBLING.findall(source):
                named |= {module} if module else _names(listed)
    return sorted(path for name in found for path in known[name])


def records(text: str, root: Path = ROOT) -> list[Path]:
    """The records in `book/results` whose names are strings of this code."""
    named = set(re.findall(r"""["']([\w-]+)["']""", text))
    return sorted(path for path in (root / "book" / "results").glob("*.json") if path.stem in named)


def _core(root: Path) -> list[Path]:
    files = [*root.glob("snn_helpers/**/*"), root / "requirements.txt"]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


@lru_cache(maxsize=4)
def _installed(requirements: str) -> str:
    """What is installed of the required packages: other versions than these pins may be."""
    names = re.findall(r"(?m)^([A-Za-z0-9][\w.-]*)", requirements)
    found = []
    for name in names:
        with suppress(PackageNotFoundError):
            found.append(f"{name}=={version(name)}")
    return " ".join(found)


def _key(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
        digest.update(b"\0")
    requirements = root / "requirements.txt"
    digest.update(_installed(requirements.read_text(encoding="utf-8") if requirements.exists() else "").encode())
    digest.update(f"{sys.version_info[:2]} {os.environ.get('SNN_DATA_DIR')}".encode())
    return digest.hexdigest()


def notebook_key(path: Path, root: Path = ROOT) -> str:
    """A fingerprint of all that decides this notebook's output, but for the notebook's own text.

    Raises ValueError if the file is no notebook.
    """
    text = _code(path)
    modules = chapter_modules(text, root)
    text = "\n".join([text, *(module.read_text(encoding="utf-8") for module in modules)])
    return _key([*_core(root), *modules, *records(text, root)], root)


def inputs_key(root: Path = ROOT) -> str:
    """A fingerprint of all that decides the output of any notebook."""
    chapters = (path for path in root.glob("book/snn_chapters/**/*") if path.is_file())
    chapters = (path for path in chapters if "__pycache__" not in path.parts)
    return _key([*_core(root), *chapters, *root.glob("book/results/*.json")], root)


def notebook_keys(root: Path = ROOT) -> dict[str, str]:
    """The key of each notebook of the book, by its path from the root."""
    return {path.relative_to(root).as_posix(): notebook_key(path, root) for path in sorted(root.glob("book/*.ipynb"))}


def pages_key(root: Path = ROOT) -> str:
    """A fingerprint of what makes pages out of notebooks and outputs: the files beside this one, styles and icons."""
    folders = (Path(__file__).resolve().parent, root / "book" / "_static")
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    stacks = root / "book" / "results" / "stacks.json"  # the status page shows it
    digest = hashlib.sha256()
    for path in [*files, *([stacks] if stacks.exists() else [])]:
        if "__pycache__" not in path.parts:
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass
class State:
    """What `_build/.state` remembers: with which inputs outputs were kept, and whether the last build ended well."""

    keys: dict[str, str] = field(default_factory=dict)
    pages: str = ""  # of what makes pages out of outputs
    whole: bool = False

    @classmethod
    def read(cls, root: Path) -> State:
        """What is remembered; nothing, if there is no state or one that cannot be read."""
        try:
            told = json.loads((root / "_build" / ".state").read_text(encoding="utf-8"))
            return cls(dict(told["keys"]), str(told["pages"]), told["whole"] is True)
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, root: Path) -> None:
        path = root / "_build" / ".state"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(".state.part")
        unfinished.write_text(json.dumps(vars(self), indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)


def drop_outputs(stale: Iterable[str], root: Path = ROOT) -> None:
    """Take what is kept of these notebooks out of the cache; of all of them, if it cannot be read."""
    stale = tuple(f"/{name}" for name in stale)
    folder = root / "_build" / ".jupyter_cache"
    if not stale or not folder.exists():
        return
    from jupyter_cache import get_cache  # takes a second, and most builds drop nothing

    try:
        cache = get_cache(str(folder))
        for record in cache.list_cache_records():
            if f"/{Path(record.uri).as_posix()}".endswith(stale):
                cache.remove_cache(record.pk)
    except Exception as error:  # whatever is wrong with it: what cannot be trusted is made again
        print(f"the cache of outputs cannot be read ({error}): every notebook runs again", file=sys.stderr)
        shutil.rmtree(folder)


def refresh(root: Path = ROOT) -> list[str]:
    """Drop the outputs that are no longer true, and remember the new keys; the notebooks that this concerns."""
    before, keys = State.read(root), notebook_keys(root)
    stale = [name for name, key in keys.items() if before.keys.get(name) != key]
    if stale or before.keys.keys() != keys.keys():
        drop_outputs(stale, root)
        # Written last: a build that is stopped before this line drops them once more.
        State(keys, before.pages, False).write(root)
    return stale


def outputs_are_true(path: Path, root: Path = ROOT) -> bool:
    """Whether what the cache holds of this notebook was made with the inputs of now."""
    return State.read(root).keys.get(path.relative_to(root).as_posix()) == notebook_key(path, root)
