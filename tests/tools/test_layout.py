"""The layout: helpers that a reader can read, and beside each chapter what it alone uses."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS, code_cells, read

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "snn_helpers"
# What a reader of the book reads; the rest is for speed, for long runs, and for the explorers.
READ = sorted(path for path in HELPERS.glob("*.py") if path.name != "widgets.py")
CHAPTERS = sorted((ROOT / "book" / "snn_chapters").glob("*.py"))
MOST_LINES, LONGEST_FUNCTION = 1500, 80
Definition = ast.FunctionDef | ast.ClassDef


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def public(path: Path) -> dict[str, Definition]:
    """The functions and classes of a module whose names begin with a letter."""
    found = (node for node in tree(path).body if isinstance(node, Definition))
    return {node.name: node for node in found if not node.name.startswith("_")}


@lru_cache(maxsize=1)
def code_of_notebooks() -> dict[str, list[ast.Module]]:
    """Each notebook's code cells, without the lines that only IPython reads."""
    magic = re.compile(r"^(\s*)[%!].*$", re.M)
    return {
        path.stem: [ast.parse(magic.sub(r"\1pass", cell.source)) for cell in code_cells(read(path))]
        for path in NOTEBOOKS
    }


def uses(name: str, module: str) -> set[str]:
    """The notebooks that import a name from the package or from its module, or use it as `module.name`."""
    found = set()
    for notebook, cells in code_of_notebooks().items():
        for node in (node for cell in cells for node in ast.walk(cell)):
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module in ("snn_helpers", f"snn_helpers.{module}")
                and name in {alias.name for alias in node.names}
            )
            through_module = (
                isinstance(node, ast.Attribute)
                and node.attr == name
                and isinstance(node.value, ast.Name)
                and node.value.id == module
            )
            if imported or through_module:
                found.add(notebook)
    return found


def names_in_signature(node: Definition) -> set[str]:
    """The names in a function's, or in a class's methods', annotations, and the classes that a class descends from."""
    functions = (
        [node] if isinstance(node, ast.FunctionDef) else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    )
    parts: list[ast.AST] = [part for f in functions for part in (f.args, f.returns) if part is not None]
    parts += node.bases if isinstance(node, ast.ClassDef) else []
    return {name.id for part in parts for name in ast.walk(part) if isinstance(name, ast.Name)}


def test_the_part_that_readers_read_is_short() -> None:
    lines = {path.name: path.read_text(encoding="utf-8").count("\n") for path in READ}
    assert sum(lines.values()) < MOST_LINES, lines


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_no_function_is_long(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            n_lines = (node.end_lineno or 0) - node.lineno + 1
            assert n_lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {n_lines} lines"


def test_two_notebooks_or_more_import_each_public_name() -> None:
    """What one chapter alone uses is in `book/snn_chapters`. A type goes with the functions that take or give it."""
    defined = {name: (path.stem, node) for path in READ for name, node in public(path).items()}
    used = {name for name, (module, _) in defined.items() if len(uses(name, module)) >= 2}
    carried = set().union(*(names_in_signature(defined[name][1]) for name in used))
    missing = {
        f"{module}.{name}": sorted(uses(name, module))
        for name, (module, node) in defined.items()
        if name not in used and not (isinstance(node, ast.ClassDef) and name in carried)
    }
    assert not missing, f"imported by fewer than two notebooks: {missing}"


def words_of(chapter: str) -> set[str]:
    """The names in the code of a chapter, given by its number."""
    (cells,) = (cells for notebook, cells in code_of_notebooks().items() if notebook.startswith(chapter))
    nodes = [node for cell in cells for node in ast.walk(cell)]
    return {str(getattr(n, "id", None) or getattr(n, "attr", None) or getattr(n, "name", None)) for n in nodes}


@pytest.mark.parametrize("path", [*READ, *CHAPTERS], ids=lambda path: path.stem)
def test_the_chapter_that_a_docstring_names_knows_of_it(path: Path) -> None:
    """What is derived in a chapter has its name in the code there. What is only used in a chapter, or recorded for it,
    is in a module from which that code takes something."""
    wrong = []
    for name, node in public(path).items():
        told = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        for how, chapter in re.findall(r"(derived in|from|;|used in|recorded for) chapter (\d\d)", told):
            wanted = {name} | (set(public(path)) if how in ("used in", "recorded for") else set())
            if not wanted & words_of(chapter):
                wrong.append(f"{path.stem}.{name} names chapter {chapter}")
    assert not wrong, wrong


def imports(path: Path, package: str) -> set[str]:
    """The modules of `package` that a file imports, by their first name below it."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            inside = path.is_relative_to(ROOT / package) if package == "snn_helpers" else True
            if node.level and inside:
                base = path.parent if node.level == 1 else path.parent.parent
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                found |= {str((base / name).relative_to(HELPERS).parts[0]) for name in names}
            elif module == package:
                found |= {alias.name for alias in node.names}
            elif module.startswith(f"{package}."):
                found.add(module.split(".")[1])
    return found


# Who may import whom: each layer of the helpers only what is before it.
ORDER = [
    "long",
    "devices",
    "neurons",
    "fast",
    "layers",
    "encoding",
    "networks",
    "data",
    "training",
    "plasticity",
    "widgets",
]


def test_arrows_point_one_way() -> None:
    for later, module in enumerate(ORDER):
        if (path := HELPERS / f"{module}.py").exists():
            known = imports(path, "snn_helpers")
            assert not known & set(ORDER[later + 1 :]), f"{module} looks up to {known & set(ORDER[later + 1 :])}"


def test_chapters_know_nothing_of_one_another() -> None:
    for path in CHAPTERS:
        known = {
            node.module
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom)
            and node.module
            and (node.level or node.module.startswith("snn_chapters"))
        }
        assert not known, f"{path.name} imports {known}"


def test_the_tests_that_are_called_slow_are_there() -> None:
    lines = (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if not line.startswith("#")]
    assert named == sorted(set(named))
    for name in named:
        file, function = name.split("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name
