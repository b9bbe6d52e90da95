"""The table of the status page: which versions were tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import stacks
from bs4 import BeautifulSoup
from fronts import FRONTS
from make_stacks import RECORD, STACKS


def row(stack: str, passed: bool, day: str, notebook: str = "one") -> dict[str, object]:
    versions = {"python": "3.13.0", "torch": "2.11.0", "ipywidgets": "7.7.1"}
    if notebook == stacks.FRONT:
        versions["notebook"] = "6.5.7"
    return {"settings": {"stack": stack, "notebook": notebook}, "passed": passed, "day": day, "versions": versions}


def test_each_stack_has_a_row_that_counts_what_passed(tmp_path: Path) -> None:
    record = tmp_path / "stacks.json"
    trials = [row("newest", False, "2031-01-02"), row("newest", True, "2031-01-01"), row("colab", True, "2031-01-01")]
    record.write_text(json.dumps({"trials": trials}))
    assert stacks.rows(record) == [
        ["Colab", "3.13.0", "2.11.0", "7.7.1", "1 of 1", "2031-01-01"],
        ["the newest versions", "3.13.0", "2.11.0", "7.7.1", "1 of 2", "2031-01-02"],
    ]
    page = BeautifulSoup("<p></p>", "html.parser")
    made = stacks.table(page, record)
    assert made and [len(line.find_all(["td", "th"])) for line in made.find_all("tr")] == [6, 6, 6]


@pytest.mark.parametrize("passed, told", [(True, "held"), (False, "failed")])
def test_a_front_end_is_told_beside_the_notebooks_and_is_none_of_them(passed: bool, told: str, tmp_path: Path) -> None:
    record = tmp_path / "stacks.json"
    trials = [row("colab", True, "2031-01-01"), row("colab", passed, "2031-01-01", stacks.FRONT)]
    record.write_text(json.dumps({"trials": trials}))
    assert stacks.rows(record)[0][4] == f"1 of 1; explorers {told} in Jupyter Notebook 6.5.7"


def test_the_stack_of_a_front_end_brings_it() -> None:
    for stack in (stack for stack in STACKS.values() if stack.front):
        major = stack.front.split()[-1]
        pins = Path(stack.requirements[-1]).read_text(encoding="utf-8")
        assert stack.front in FRONTS and f"\nnotebook=={major}." in pins


def test_without_a_record_there_is_no_table(tmp_path: Path) -> None:
    assert stacks.table(BeautifulSoup("", "html.parser"), tmp_path / "none.json") is None


def test_what_was_tried_has_passed_and_is_known() -> None:
    trials = json.loads(RECORD.read_text(encoding="utf-8"))["trials"]
    failed = [trial["settings"] for trial in trials if not trial["passed"]]
    assert trials and not failed, f"{failed}: mend it, then run: make stacks"
    assert {trial["settings"]["stack"] for trial in trials} <= set(STACKS) == set(stacks.NAMES)
