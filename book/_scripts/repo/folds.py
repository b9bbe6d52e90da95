"""Name the folds of the notebooks by what is in them: `python book/_scripts/repo/folds.py` writes what is out of date.

A fold that says "code of this figure" can be left closed with a good conscience. What a cell is follows from its tags
and its code; its words are in its metadata, where the pages find them. Cells that only import, or only check the
parameters, are folded; of a cell that computes nothing and prints a sentence, the page shows the sentence alone.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from snn_helpers.long.files import write_whole

BOOK = Path(__file__).resolve().parents[2]

# What a fold is called closed and open, by the kind of its cell.
WORDS = {
    "setup": ("Install the book's helpers", "Hide the installation"),
    "install": ("Install what this section needs", "Hide the installation"),
    "imports": ("Imports", "Hide the imports"),
    "bounds": ("Check of the parameters, and what they set up", "Hide the check of the parameters"),
    "figure": ("Code of this figure", "Hide the code of this figure"),
    "explorer": ("Code of this explorer", "Hide the code of this explorer"),
    "table": ("How this table is computed", "Hide how this table is computed"),
    "sentence": ("How these numbers are computed", "Hide how these numbers are computed"),
    "solution": ("Show the solution", "Hide the solution"),
    "check": ("Check of what was said", "Hide the check of what was said"),
    "code": ("Code behind the text", "Hide the code behind the text"),
}
# In a sentence that computes nothing, only such functions are called.
TELLING = {"Markdown", "abs", "round", "len", "min", "max", "sum", "float", "int", "str"}


def source(cell: Any) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def tags(cell: Any) -> list[str]:
    return list(cell["metadata"].get("tags", []))


def _statements(code: str) -> list[ast.stmt]:
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)).body


def _calls(statement: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)}


def kind(cell: Any) -> str:
    """What a cell of code is, as a key of `WORDS`."""
    code = source(cell)
    for tag in ("setup", "solution"):
        if tag in tags(cell):
            return tag
    body = _statements(code)
    if re.search(r"^\s*%pip install", code, re.M):
        return "install"
    if not body:  # comments alone, or nothing
        return "code"
    calls = {call.split(".")[-1] for statement in body for call in _calls(statement)}
    shown = ast.unparse(body[-1])
    if "plt.show()" in code or "drawing" in calls:
        return "figure"
    if any(call.endswith(("Explorer", "Playground")) for call in calls) or {"interact", "VBox"} & calls:
        return "explorer"
    if all(isinstance(part, ast.Import | ast.ImportFrom) or "use_style()" in ast.unparse(part) for part in body):
        return "imports"
    if "in_bounds" in calls and "Markdown" not in calls:
        return "bounds"
    if "Markdown" in calls or (isinstance(body[-1], ast.Expr) and re.match(r"by_the_clock\(", shown)):
        return "table" if re.search(r"\| ?:?-{3}|by_the_clock\(", code) else "sentence"
    if "print" in calls:
        return "sentence"
    asserts = any(isinstance(node, ast.Assert) for part in body for node in ast.walk(part))
    longest = max(body, key=lambda part: (part.end_lineno or 0) - part.lineno)
    return "check" if asserts and not isinstance(longest, ast.Assign | ast.FunctionDef) else "code"


def only_tells(cell: Any) -> bool:
    """Whether a folded cell prints a sentence out of what is known already: nobody needs its code to trust it."""
    body = _statements(source(cell))
    if len(body) != 1 or not isinstance(body[0], ast.Expr) or not ast.unparse(body[0]).startswith("Markdown("):
        return False
    return _calls(body[0]) <= TELLING and "| ---" not in source(cell)


def fold(cell: Any) -> None:
    """Give a cell the tags and the words of its kind."""
    found = kind(cell)
    metadata, labels = cell["metadata"], tags(cell)
    if found in ("imports", "bounds") and not labels and "print(" not in source(cell):
        labels = ["hide-input"]
    if labels == ["hide-input"] and only_tells(cell):
        labels = ["remove-input"]
    if labels:
        metadata["tags"] = labels
    told = dict(metadata.get("mystnb", {}))
    for name in ("code_prompt_show", "code_prompt_hide"):
        told.pop(name, None)
    if {"hide-input", "hide-cell"} & set(labels):
        told["code_prompt_show"], told["code_prompt_hide"] = WORDS[found]
    if told:
        metadata["mystnb"] = dict(sorted(told.items()))
    else:
        metadata.pop("mystnb", None)
    cell["metadata"] = dict(sorted(metadata.items()))


def renew(path: Path) -> bool:
    """Write a notebook anew if one of its folds is not named as it should be; whether it was."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            fold(cell)
    renewed = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if renewed != text:
        write_whole(path, renewed.encode())
    return renewed != text


def main() -> int:
    changed = [path.name for path in sorted(BOOK.glob("*.ipynb")) if renew(path)]
    print(f"named anew: {', '.join(changed) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
