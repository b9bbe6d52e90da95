"""Options and fixtures of the whole suite; `--device cuda` runs the unit tests on a GPU."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib: tests open no window

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the unit tests run: cpu (the default) or cuda")
    parser.addoption("--fresh", action="store_true", help="run again the notebooks that have passed before")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--device")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise pytest.UsageError(f"--device must be cpu or cuda, not {name!r}")
    if name != "cpu" and not torch.cuda.is_available():
        # To skip instead would look like a pass.
        raise pytest.UsageError(f"--device {name} was asked for, but torch sees no CUDA GPU here")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """No test depends on how many global random numbers another one drew."""
    torch.manual_seed(0)
