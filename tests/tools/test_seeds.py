"""That the notebooks' assertions hold for other seeds: the record of it, and the command that makes the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import make_seeds
import nbformat
import pytest
from make_seeds import SEEDS, code_digest, is_fresh, notebooks


def test_what_has_been_run_with_other_seeds_has_passed() -> None:
    """Every row of the record, at default sizes. `make seeds` runs what is missing, or has changed since."""
    assert len(set(SEEDS)) == 5 and 0 not in SEEDS
    rows = json.loads(make_seeds.RECORD.read_text(encoding="utf-8"))["trials"]
    failed = [row["settings"] for row in rows if not row["passed"]]
    assert not failed, f"assertions fail: {failed}. Mend the notebook; then run: make seeds"
    ran = [(row["settings"]["notebook"], row["settings"]["seed"]) for row in rows]
    assert ran and len(set(ran)) == len(ran) and {seed for _, seed in ran} <= set(SEEDS)
    assert {name for name, _ in ran} <= set(notebooks()), "of a notebook that is gone: run make seeds"


def write(path: Path, *cells: str, tags: tuple[str, ...] = ("setup", "parameters")) -> None:
    made = [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(cells)]
    for cell, tag in zip(made, tags):
        cell.metadata.tags = [tag]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of three notebooks. One fails with seed 2, one has no seed."""
    write(tmp_path / "fine.ipynb", "1", "seed = 0", "assert seed < 5")
    write(tmp_path / "fragile.ipynb", "1", "seed = 0", "assert seed != 2")
    write(tmp_path / "still.ipynb", "1", "size = 0", "assert size")
    monkeypatch.setattr(make_seeds, "BOOK", tmp_path)
    monkeypatch.setattr(make_seeds, "RECORD", tmp_path / "notebook_seeds.json")
    monkeypatch.setattr(make_seeds, "SEEDS", (1, 2))
    return tmp_path


def rows(book: Path) -> dict[tuple[str, int], dict[str, Any]]:
    listed = json.loads((book / "notebook_seeds.json").read_text())["trials"]
    return {(row["settings"]["notebook"], row["settings"]["seed"]): row for row in listed}


def test_it_runs_each_notebook_with_each_seed_and_again_only_what_failed_or_has_changed(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int]] = []

    def run_here(path: Path, parameters: dict[str, Any], collect: dict[str, str], folder: Path, threads: int) -> Any:
        """As `sweep.run_one`, without a kernel."""
        ran.append((path.stem, parameters["seed"]))
        if f"assert seed != {parameters['seed']}" in path.read_text():
            return None
        done = folder / f"{parameters['seed']}.json"
        done.write_text('{"seconds": 2.5}')
        return done

    monkeypatch.setattr(make_seeds, "run_one", run_here)
    assert make_seeds.main([], book / "kept", 2) == 1
    everything = [("fine", 1), ("fine", 2), ("fragile", 1), ("fragile", 2)]
    assert sorted(ran) == sorted(rows(book)) == everything
    assert [key for key, row in rows(book).items() if not row["passed"]] == [("fragile", 2)]
    assert all("commit" in row for row in rows(book).values())
    assert rows(book)["fine", 1]["total_seconds"] == 2.5
    assert "FAILED" in capsys.readouterr().out
    before = rows(book)

    ran.clear()  # what failed is tried again, and nothing else
    assert make_seeds.main([], book / "kept", 2) == 1
    assert ran == [("fragile", 2)]

    ran.clear()  # mended: the other seeds of that notebook have to pass again, too
    write(book / "fragile.ipynb", "1", "seed = 0", "assert seed != 3")
    assert make_seeds.main([], book / "kept", 2) == 0
    assert sorted(ran) == [("fragile", 1), ("fragile", 2)]
    assert {key: rows(book)[key] for key in everything[:2]} == {key: before[key] for key in everything[:2]}

    ran.clear()
    assert make_seeds.main([], book / "kept", 2) == 0 and ran == []
    assert make_seeds.main(["fine"], book / "kept", 2) == 0 and sorted(ran) == everything[:2]
    (book / "fragile.ipynb").unlink()
    assert make_seeds.main([], book / "kept", 2) == 0 and sorted(rows(book)) == everything[:2]


def test_a_notebook_is_run_as_a_sweep_runs_it(book: Path) -> None:
    row = make_seeds.run(book / "fragile.ipynb", 2, book)
    assert not row["passed"] and row["settings"] == {"notebook": "fragile", "seed": 2}
    (kept,) = (book / "fragile").glob("*.ipynb")
    assert "AssertionError" in kept.read_text()


def test_a_notebook_that_is_not_there_or_has_no_seed_is_refused(book: Path) -> None:
    for name in ("still", "nowhere"):
        with pytest.raises(SystemExit, match=rf"{name}; there are fine, fragile"):
            make_seeds.main([name], book / "kept")


def test_a_row_counts_for_the_code_that_it_was_made_with(book: Path) -> None:
    """Not for another seed's luck, other prose, or the release that the setup cell names."""
    path = book / "fine.ipynb"
    row = {"settings": {"notebook": "fine", "seed": 1}, "passed": True, "code": code_digest(path)}
    assert is_fresh(row, {"fine": path}) and not is_fresh(row | {"passed": False}, {"fine": path})
    assert not is_fresh(row, {})
    write(path, "install('v0.3.0')", "seed  = 0", "assert (\n    seed < 5\n)".replace("(\n", "").replace("\n)", ""))
    assert is_fresh(row, {"fine": path})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("Prose."))
    nbformat.write(notebook, path)
    assert is_fresh(row, {"fine": path})
    for changed in (("seed = 1", "assert seed < 5"), ("seed = 0", "assert seed < 4"), ("seed = 0",)):
        write(path, "1", *changed)
        assert not is_fresh(row, {"fine": path})
