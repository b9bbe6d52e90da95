"""The table of the status page that says on which versions every notebook was run, and when."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag

NAMES = {"colab": "Colab", "floors": "the lowest versions allowed", "newest": "the newest versions"}
FRONT = "front end"  # stands in a record's row for a notebook's name: the explorers in the stack's Jupyter Notebook
COLUMNS = ("versions", "Python", "torch", "ipywidgets", "notebooks that ran through", "last run")


def rows(record: Path) -> list[list[str]]:
    """A row for each stack of the record, in the order of `NAMES`; none without a record."""
    if not record.exists():
        return []
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads(record.read_text(encoding="utf-8"))["trials"]:
        found[row["settings"]["stack"]].append(row)
    listed = []
    for stack in (name for name in NAMES if name in found):
        runs, versions = found[stack], found[stack][0]["versions"]
        passed = [run["passed"] for run in runs if run["settings"]["notebook"] != FRONT]
        ran = f"{sum(passed)} of {len(passed)}"
        for run in (run for run in runs if run["settings"]["notebook"] == FRONT):
            held, front = "held" if run["passed"] else "failed", run["versions"]["notebook"]
            ran += f"; explorers {held} in Jupyter Notebook {front}"
        told = [versions[name] for name in ("python", "torch", "ipywidgets")]
        listed.append([NAMES[stack], *told, ran, max(run["day"] for run in runs)])
    return listed


def table(page: BeautifulSoup, record: Path) -> Tag | None:
    """The table as an element of the page; None without a record."""
    listed = rows(record)
    if not listed:
        return None
    made = page.new_tag("table", attrs={"class": "table", "id": "stacks"})
    head, body = page.new_tag("thead"), page.new_tag("tbody")
    made.extend([head, body])
    for part, kind, lines in ((head, "th", [list(COLUMNS)]), (body, "td", listed)):
        for line in lines:
            row = page.new_tag("tr")
            part.append(row)
            for text in line:
                cell = page.new_tag(kind)
                cell.string = text
                row.append(cell)
    return made
