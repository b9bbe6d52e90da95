"""What the tests know of the notebooks: where they are, how they are read, and in which environment they run."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import sys
import venv
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from files import listed_files
from inputs import inputs_key, notebook_key
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(BOOK.glob("*.md"))]
PARAMETERS: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "tests/notebook_parameters.yaml").read_text())
# Old addresses, and where they lead.
MOVED: dict[str, str] = {
    f"{old}.html": f"book/{new}"
    for old, new in yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["redirects"].items()
}
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"\d\d_", path.name)]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any, tag: str | None = None) -> list[Any]:
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and (tag is None or tag in cell.metadata.get("tags", []))
    ]


def as_built(pages: Path, path: Path) -> Any:
    """The notebook with the outputs that these built pages show.

    They are in the cache: Sphinx's own copies of notebooks have outputs only where it ran them itself.
    """
    from jupyter_cache import get_cache  # where no pages are built, as with the lowest versions, it is not there

    cache = get_cache(pages.parent / ".jupyter_cache")
    return cache.merge_match_into_notebook(read(path), cell_meta=())[1]


def check_silence(result: Any, name: str) -> None:
    for output in (output for cell in result.cells for output in cell.get("outputs", [])):
        assert output.get("name") != "stderr", f"{name} writes to stderr:\n{output.text}"


def run_lines(source: str, folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What lines of a notebook define, run as a program in a folder that knows what is `given`."""
    program = folder / "lines.py"
    program.write_text(source, encoding="utf-8")
    return runpy.run_path(str(program), given)


def offline(folder: Path) -> dict[str, str]:
    """The environment for a run: no download, so that tests never need the network."""
    return os.environ | {
        "SNN_OFFLINE": "1",
        "XDG_CACHE_HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "SNN_STRICT_CHECKS": "1",  # a solution that its check does not take ends the run
    }


def bare_python(folder: Path) -> tuple[Path, Path]:
    """A new environment in this folder that sees this one's packages, but no editable install: its Python, its site."""
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    here = next(entry for entry in sys.path if entry.endswith("site-packages"))
    # A folder added this way brings its packages, but not its .pth files, which an editable install is.
    (site / "packages.pth").write_text(here + "\n")
    return folder / "bin" / "python", site


def fingerprint(*inputs: Path) -> str:
    """Of these files and of what they depend on: a notebook on what it uses, all else on whatever there is."""
    keys = [notebook_key(path) for path in sorted(inputs) if path.suffix == ".ipynb"] or [inputs_key()]
    digest = hashlib.sha256("".join(keys).encode())
    for path in sorted(inputs):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def working_tree() -> list[str]:
    """The files of the repository as they are now: tracked, or new and not ignored."""
    return listed_files(ROOT)


def heading_anchors(path: Path) -> set[str]:
    if path.suffix == ".md":
        sources = [path.read_text(encoding="utf-8")]
    else:
        sources = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    anchors = set()
    for source in sources:
        for title in re.findall(r"^#+ +(.+?) *$", source, re.M):
            # As MyST and GitHub make anchors of headings.
            plain = re.sub(r"[^\w\- ]", "", title.lower())
            anchors.add(plain.replace(" ", "-"))
    return anchors


def as_myst_reads(source: str) -> list[tuple[str, str]]:
    """The kind and content of each piece of a Markdown text, in order; the end of a line counts as a space."""
    reader = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)
    pieces: list[tuple[str, str]] = []
    for token in reader.parse(source):
        if token.type != "inline":
            pieces.append((token.type, token.content))
        for child in token.children or []:
            kind, content = ("text", " ") if child.type == "softbreak" else (child.type, child.content)
            if kind == "text" and pieces[-1][0] == "text":  # one text, however it was parted
                kind, content = "text", pieces.pop()[1] + content
            pieces.append((kind, content))
    return pieces
