"""Write the minutes that a notebook takes wherever the book tells them.

They are at its top, in the lists of chapters of the introduction, and in the table for instructors.

    python book/_scripts/repo/minutes.py

All of them come from `section_minutes` of make_workshop.py. Run it when a notebook's text or exercises have changed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teach"))

from make_workshop import BOOK, notebooks, text_and_exercises

from snn_helpers.long.files import write_whole

INTRO = BOOK / "intro.ipynb"
TIMES = BOOK / "results" / "notebook_times.json"
AT_THE_TOP = re.compile(r"\*\*It takes\*\* about \d+ minutes to read(?: and (?:work through|\d+ for the exercises))?")


def opening(source: str, of_text: int, of_exercises: int) -> str:
    """The opening of a notebook with its minutes, to the next five; as it is if it tells none."""
    told = f"**It takes** about {_to_five(of_text)} minutes to read"
    if of_exercises:
        told += f" and {_to_five(of_exercises)} for the exercises"
    return AT_THE_TOP.sub(told, source)


LISTED = re.compile(r"^(\| \[[^\]|]+\]\((\w+)\.ipynb\) \| [^|]+ \|)(?: [\d +]+ \|)?$", re.M)


def listed(source: str, minutes: dict[str, tuple[int, int]]) -> str:
    """A list of chapters with their minutes, to read and for the exercises, in its last column."""

    def row(found: re.Match[str]) -> str:
        told = [str(_to_five(part)) for part in minutes[found[2]] if part]
        return f"{found[1]} {' + '.join(told)} |"

    return LISTED.sub(row, source)


def _to_five(minutes: int) -> int:
    return 5 * max(1, round(minutes / 5))


def times(text: str, minutes: dict[str, tuple[int, int]]) -> str:
    """The record of running times with the minutes of its notebooks."""
    record = json.loads(text)
    for row in record["trials"]:
        if row["settings"]["notebook"] in minutes:
            row["text_minutes"], row["exercise_minutes"] = minutes[row["settings"]["notebook"]]
    return json.dumps(record, indent=1) + "\n"


def main() -> None:
    minutes = {}
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        of_text, of_exercises = minutes[path.stem] = text_and_exercises(notebook)
        source = opening(notebook.cells[0].source, of_text, of_exercises)
        if source != notebook.cells[0].source:
            notebook.cells[0].source = source
            write_whole(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode())
    notebook = nbformat.read(INTRO, as_version=4)
    for cell in notebook.cells:
        if "minutes: to read + exercises |" in cell.source:
            cell.source = listed(cell.source, minutes)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if text != INTRO.read_text(encoding="utf-8"):
        write_whole(INTRO, text.encode())
    write_whole(TIMES, times(TIMES.read_text(encoding="utf-8"), minutes).encode())


if __name__ == "__main__":
    main()
