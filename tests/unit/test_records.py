"""The record of long runs: it resumes, is written whole, and is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from snn_helpers import records
from snn_helpers.long import recording
from snn_helpers.long.recording import record_trials
from snn_helpers.records import load_results

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"
RECORDS = sorted(RESULTS.glob("04_*.json"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return rows


def test_record_trials_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    ran: list[int] = []

    def run(seed: int, levels: tuple[float, ...]) -> dict[str, Any]:
        if seed == 3:
            raise RuntimeError("the power is gone")
        ran.append(seed)
        return {"score": seed * 10}

    # Tuples come back from the file as lists, and must be known all the same.
    trials: list[dict[str, Any]] = [{"seed": seed, "levels": (0.0, 0.5)} for seed in (1, 2, 3, 4)]
    with pytest.raises(RuntimeError, match="power"):
        record_trials(path, "a test", trials, run)
    assert ran == [1, 2]
    assert [row["score"] for row in rows_of(path)] == [10, 20]

    rows = record_trials(path, "a test", [trials[3], *trials[:2], trials[3]], run)
    assert ran == [1, 2, 4], "what is recorded must not run again"
    assert json.loads(json.dumps(rows)) == rows_of(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["trials"][2]["settings"] == {"seed": 4, "levels": [0.0, 0.5]}
    assert content["trials"][2]["total_seconds"] >= 0
    assert content["provenance"]["what"] == "a test"
    assert content["provenance"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]
    assert "record.json: 3 rows" in capsys.readouterr().out


def test_record_trials_writes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment before the file is replaced, the old one is still whole, and the new one is too."""
    path = tmp_path / "record.json"
    replace, seen = recording.os.replace, []

    def watched(partial: Path, target: Path) -> None:
        seen.append((len(rows_of(target)) if target.exists() else 0, len(rows_of(partial))))
        replace(partial, target)

    monkeypatch.setattr(recording.os, "replace", watched)
    record_trials(path, "a test", [{"seed": seed} for seed in range(3)], lambda seed: {"score": seed})
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_load_results() -> None:
    for path in RECORDS:
        assert load_results(path.stem) == json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(ValueError) as caught:
        load_results("05_nothing")
    assert "'05_nothing'" in str(caught.value)
    for path in RECORDS:
        assert path.stem in str(caught.value)


def test_load_results_from_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the records lie inside the package, and no `book` beside it."""
    inside = tmp_path / "site-packages" / "snn_helpers"
    (inside / "results").mkdir(parents=True)
    (inside / "results" / "04_parity.json").write_text('{"trials": []}')
    monkeypatch.setattr(records, "__file__", str(inside / "records.py"))
    monkeypatch.setattr(records.resources, "files", lambda name: tmp_path / "site-packages" / name)
    assert load_results("04_parity") == {"trials": []}
    with pytest.raises(ValueError, match="there are 04_parity"):
        load_results("04_tuned")
