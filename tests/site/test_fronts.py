"""The explorers in JupyterLab and in Jupyter Notebook themselves, as a reader uses them in a running notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Tab
from fronts import FRONTS, WINDOW, jupyter, use
from notebooks import offline
from playwright.sync_api import Browser

NAMES = ("JupyterLab", "Jupyter Notebook 7")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of one server for both."""
    assert len({FRONTS[name].server for name in NAMES}) == 1
    folder = tmp_path_factory.mktemp("jupyter")
    with jupyter(sys.executable, FRONTS[NAMES[0]], folder, offline(folder / "cache")) as address:
        yield address


@pytest.mark.parametrize("name", NAMES)
def test_explorers_set_python_and_leave_the_notebook_alone(name: str, browser: Browser, address: str) -> None:
    with Tab(browser, *WINDOW) as tab:
        use(tab, address, name)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    front = replace(FRONTS["JupyterLab"], server=("no_such_server",))
    with (
        pytest.raises(RuntimeError, match="No module named no_such_server"),
        jupyter(sys.executable, front, tmp_path, offline(tmp_path)),
    ):
        pass
