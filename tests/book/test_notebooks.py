"""Every notebook: well formed, and running from top to bottom in each way that readers run it.

Runs are slow, so one that passed is remembered under `_build/.passed` by the fingerprint of all
that it depends on, and passes at once while nothing of that has changed; `--fresh` forgets.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from address import badges, setup_cell
from make_results import all_records
from make_stacks import archive
from notebooks import (
    BOOK,
    NOTEBOOKS,
    PAGES,
    PARAMETERS,
    ROOT,
    as_built,
    as_myst_reads,
    bare_python,
    code_cells,
    each_chapter,
    each_notebook,
    heading_anchors,
    offline,
    read,
)

from snn_helpers.parameters import in_bounds

SETUP = setup_cell()


# --- what a notebook must be ---------------------------------------------------------------------


def test_there_are_notebooks_and_each_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {toc["root"]} | {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f"book/{path.stem}" for path in NOTEBOOKS} <= listed


@each_notebook
def test_is_committed_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for index, cell in enumerate(code_cells(notebook)):
        assert not cell.outputs and cell.execution_count is None, f"code cell {index} of {path.name} holds output"
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_notebook
def test_opens_with_its_title_and_the_setup_cell(path: Path) -> None:
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    first = code_cells(notebook)[0]
    assert first.source.strip() == SETUP.strip(), "the first code cell must be the setup cell with the book's address"
    assert {"setup", "hide-cell"} <= set(first.metadata.tags)
    last_line = notebook.cells[0].source.splitlines()[-1]
    assert last_line == badges(path.stem), "the first cell ends with where the notebook runs with a click"


@each_notebook
def test_no_line_of_code_is_wider_than_the_page(path: Path) -> None:
    for index, cell in enumerate(code_cells(read(path))):
        wide = [line for line in cell.source.splitlines() if len(line) > 84]
        assert not wide, f"code cell {index} of {path.name} has lines of more than 84 characters:\n" + "\n".join(wide)


@each_notebook
def test_has_one_parameters_cell(path: Path) -> None:
    assert len(code_cells(read(path), "parameters")) == 1


@each_notebook
def test_every_figure_has_alt_text(path: Path) -> None:
    for cell in code_cells(read(path)):
        tags, drawn = cell.metadata.get("tags", []), cell.source.startswith("drawing(")
        assert not drawn or "remove-input" in tags, f"a drawing of {path.name} shows its code:\n{cell.source}"
        if drawn or "plt.show()" in cell.source:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 30, f"a figure of {path.name} lacks alt text:\n{cell.source}"


@each_notebook
def test_reads_well_outside_the_book(path: Path) -> None:
    """MyST roles and directives show as raw text in JupyterLab and Colab."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            found = re.search(r"\{(ref|numref|cite[a-z:]*|glue[a-z:]*|eq|doc|term)\}`|^(:::+|```)\{", cell.source, re.M)
            assert not found, f"{path.name}: {found.group(0) if found else ''}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_formula_is_one(path: Path) -> None:
    """Read as MyST reads it, no dollar is left in the text: a formula that ends too soon, or is none, leaves one."""
    if path.suffix == ".ipynb":
        texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    else:
        texts = [path.read_text(encoding="utf-8")]
    for text in texts:
        for kind, content in as_myst_reads(text):
            assert kind != "text" or "$" not in content, f"{path.name}: {content!r}"


@each_notebook
def test_links_between_chapters_lead_somewhere(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target, anchor in re.findall(r"\]\(([\w./-]+?\.(?:ipynb|md))(#[^)]+)?\)", cell.source):
                assert (BOOK / target).exists(), f"{path.name} links to {target}, which does not exist"
                if anchor:
                    assert anchor[1:] in heading_anchors(BOOK / target), f"{path.name}: no heading {target}{anchor}"


@each_notebook
def test_names_no_path_of_a_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/\w", path.read_text(encoding="utf-8"))


@each_chapter
def test_chapter_has_what_every_chapter_has(path: Path) -> None:
    notebook = read(path)
    opening = notebook.cells[0].source
    for words in ("You will be able to", "You need", "It takes"):
        assert words in opening, f"the opening of {path.name} lacks '{words}'"
    headings = " ".join(re.findall(r"^## .+$", "\n".join(c.source for c in notebook.cells), re.M))
    for heading in ("Summary", "Exercises", "Sources"):
        assert heading in headings, f"{path.name} lacks the section {heading}"
    assert any("assert" in cell.source for cell in code_cells(notebook))


@each_chapter
def test_chapter_has_exercises_with_folded_solutions_and_checks(path: Path) -> None:
    notebook = read(path)
    counts = {tag: len(code_cells(notebook, tag)) for tag in ("exercise", "solution", "check")}
    assert min(counts.values()) >= 3, f"{path.name} has {counts}"
    for cell in code_cells(notebook, "solution"):
        assert "hide-cell" in cell.metadata.tags
        assert cell.metadata.get("jupyter", {}).get("source_hidden") is True


@each_notebook
def test_says_how_each_record_that_it_shows_was_measured(path: Path) -> None:
    """For the records of the chapters' modules: with the function that the record's `run` calls, or that itself."""
    sources = "\n".join(cell.source.replace("%pip", "pass #") for cell in code_cells(read(path)))
    calls = [node for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Call)]
    told = {ast.literal_eval(c.args[0]): c.args[1:] for c in calls if ast.unparse(c.func) == "how_measured"}
    named = {node.value for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Constant)}
    records = all_records()
    assert named & set(records) == set(told)
    for name, code in told.items():
        measured_by, to_read = set(), [inspect.unwrap(records[name].run)]
        while to_read:  # the functions of the module that it calls, and those that they call
            run = to_read.pop()
            measured_by.add(run.__name__)
            called = [run.__globals__.get(other) for other in run.__code__.co_names]
            to_read += [f for f in called if inspect.isfunction(f) and f.__name__ not in measured_by]
        for function in code:
            assert ast.unparse(function) in measured_by, f"{name} was measured by {sorted(measured_by)}"


# --- what its parameters may be --------------------------------------------------------------------


def run_alone(source: str, given: dict[str, Any]) -> dict[str, Any]:
    """The names that a piece of a notebook leaves behind, run as a program of its own."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(source, encoding="utf-8")
        left = runpy.run_path(str(program), init_globals=given)
    return {name: value for name, value in left.items() if not name.startswith("__")}


def parameters_and_check(path: Path) -> tuple[dict[str, Any], list[ast.stmt], dict[str, tuple[Any, ...]]]:
    """A notebook's parameters, the statements of the next cell that check them, and the bounds that these name."""
    cells = code_cells(read(path))
    at = next(index for index, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    given = run_alone(cells[at].source, {})
    body = ast.parse(cells[at + 1].source).body
    assert ast.unparse(body[0]).startswith("in_bounds("), f"the cell after the parameters of {path.name} checks them"
    last = max(k for k, part in enumerate(body) if k == 0 or "raise" in ast.unparse(part))
    bounds: dict[str, tuple[Any, ...]] = {}
    run_alone(ast.unparse(body[0]), {"in_bounds": bounds.update} | given)
    return given, body[: last + 1], bounds


def check_parameters(check: list[ast.stmt], given: dict[str, Any]) -> None:
    run_alone(ast.unparse(ast.Module(check, [])), {"in_bounds": in_bounds, "Path": Path} | given)


@each_notebook
def test_each_parameter_is_checked_and_what_is_out_of_bounds_is_refused_in_words(path: Path) -> None:
    given, check, bounds = parameters_and_check(path)
    check_parameters(check, given)
    source = "\n".join(cell.source for cell in code_cells(read(path)))
    for name in given.keys() - bounds.keys():
        by_helper = name == "device" and "pick_device(device)" in source  # it has words of its own
        assert by_helper or any(name in ast.unparse(part) for part in check[1:]), f"{path.name} does not check {name}"
    for name, (value, least, most, *fewest) in bounds.items():
        whole = isinstance(least, int) and isinstance(most, int)
        below, above = (least - 1, most + 1) if whole else (np.nextafter(least, -1), np.nextafter(most, np.inf))
        odd: list[Any] = [below, above, "7", None, True, *([least + 0.5] if whole else [math.nan])]
        fine: list[Any] = [least, most, np.int64(least) if whole else np.float32((least + most) / 2)]
        if fewest:
            rest = list(value)[: fewest[0] - 1]
            odd = [[*rest, one] for one in odd] + [rest, least, None]
            fine = [[*rest, one] for one in fine]
        for one in odd:
            with pytest.raises((TypeError, ValueError), match=rf"{name} must .*change the parameters cell"):
                check_parameters(check, given | {name: one})
        for one in fine:
            in_bounds(**{name: (one, least, most, *fewest)})


@pytest.mark.parametrize(("name", "batches"), [("03_training", 3), ("scaling_out", 6)])
def test_there_are_enough_images_for_the_batches(name: str, batches: int) -> None:
    given, check, _ = parameters_and_check(BOOK / f"{name}.ipynb")
    check_parameters(check, given | {"batch_size": 20, "n_train": 20 * batches})
    with pytest.raises(ValueError, match=r"n_train must be .* batches of 20 or more, not"):
        check_parameters(check, given | {"batch_size": 20, "n_train": 20 * batches - 1})


@pytest.mark.parametrize("start", ["24:00", "9", "09:60", "noon", 9, None])
def test_a_lesson_begins_at_a_time_of_day(start: Any) -> None:
    given, check, _ = parameters_and_check(BOOK / "instructors.ipynb")
    with pytest.raises(ValueError, match="start must be a time of day"):
        check_parameters(check, given | {"start": start})


def test_a_checkpoint_is_a_file() -> None:
    given, check, _ = parameters_and_check(BOOK / "03_training.ipynb")
    with pytest.raises(TypeError, match="checkpoint must be the name of a file"):
        check_parameters(check, given | {"checkpoint": None})
    check_parameters(check, given | {"checkpoint": "run.pt"})


@each_notebook
def test_the_first_set_of_parameters_is_at_the_lower_bounds(path: Path) -> None:
    """So that the bounds are run: what the check lets through must run to the end."""
    chosen = PARAMETERS[path.stem][0]
    given, check, _ = parameters_and_check(path)
    bounds: dict[str, tuple[Any, ...]] = {}
    run_alone(ast.unparse(check[0]), {"in_bounds": bounds.update} | given | chosen)
    check_parameters(check, given | chosen)
    for name, (value, least, _, *fewest) in bounds.items():
        assert value == least or (fewest and len(value) == fewest[0] and min(value) == least), f"{path.name}: {name}"


# --- that it runs --------------------------------------------------------------------------------


def without_clocks(executed: Any) -> Any:
    """The notebook with cells marked, for nbval, whose output tells how long something took: it differs."""
    clock = re.compile(r"seconds\b|perf_counter|\btime\.|elapsed|_time\b|per_step|bandwidth|speed_up")
    for cell in code_cells(executed):
        # The last is a bar of progress: elapsed and left.
        if clock.search(cell.source) or re.search(r"\d (s|seconds)\b|\d\d:\d\d<", json.dumps(cell.outputs)):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "nbval-ignore-output"]
    return executed


# Of these a large part is about the clock; of any other notebook at most a quarter of the cells is not compared.
ABOUT_TIME = {"instructors", "scaling_out"}


def run_under_nbval(reference: Path, environment: dict[str, str], *which_kernel: str) -> str:
    """Run a notebook that has outputs once more, in its folder: what nbval says, of cells that fail too."""
    left_out = sum(cell.execution_count is None for cell in code_cells(read(reference)))
    assert not left_out, f"{left_out} cells of {reference.name} were never run: nbval would compare nothing with them"
    sanitized = ROOT / "tests" / "nbval_sanitize.cfg"
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["--nbval", "--nbval-cell-timeout=300", "--nbval-sanitize-with", str(sanitized), *which_kernel]
    command += ["--rootdir", str(reference.parent), "-c", os.devnull, str(reference)]
    run = subprocess.run(command, cwd=reference.parent, env=environment, capture_output=True, text=True)
    return run.stdout + run.stderr


def test_runs_with_another_output_or_none_do_not_pass_under_nbval(tmp_path: Path) -> None:
    path = tmp_path / "three.ipynb"
    sources = ("print(1)", "print(2)", "3")
    whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    whole = papermill.execute_notebook(whole, None, kernel_name="python3", progress_bar=False)
    nbformat.write(whole, path)
    in_this = offline(tmp_path), "--nbval-current-env"
    assert re.search(r"^3 passed in", run_under_nbval(path, *in_this), re.M)
    whole.cells[1].outputs[0].text = "two\n"
    whole.cells[2].outputs = []
    nbformat.write(whole, path)
    assert re.search(r"^2 failed, 1 passed in", run_under_nbval(path, *in_this), re.M)
    whole.cells[2].execution_count = None
    nbformat.write(whole, path)
    with pytest.raises(AssertionError, match=r"1 cells of three\.ipynb were never run"):
        run_under_nbval(path, *in_this)


def test_each_notebook_has_two_sets_of_parameters() -> None:
    assert set(PARAMETERS) == {path.stem for path in NOTEBOOKS}
    for name, sets in PARAMETERS.items():
        assert len(sets) == 2 and sets[0] != sets[1], f"{name} needs two different sets of parameters"
        # papermill only warns of a name that the notebook lacks.
        unknown = set().union(*sets) - set(papermill.inspect_notebook(str(BOOK / f"{name}.ipynb")))
        assert not unknown, f"{name} has no parameters {unknown}"


@dataclass
class Clean:
    """A Python with torch, but without the helpers until a notebook's first cell has installed them, as in Colab."""

    python: Path
    environment: dict[str, str]

    def ask(self, code: str) -> subprocess.CompletedProcess[str]:
        folder = self.python.parent
        return subprocess.run(
            [self.python, "-c", code], cwd=folder, env=self.environment, capture_output=True, text=True
        )


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Shared by all notebooks: their first cells are the same to the letter, and what those do is tried elsewhere."""
    place = tmp_path_factory.mktemp("clean")
    python, _ = bare_python(place / "venv")
    environment = offline(place) | {
        "SNN_HELPERS_FROM": str(archive(place)),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # in the environment pip reads this option the other way round: 0 is "none"
    }
    environment.pop("PYTHONPATH", None)
    made = Clean(python, environment)
    probe = "import torch, importlib.util as u; print(u.find_spec('snn_helpers'))"
    assert made.ask(probe).stdout.strip() == "None"
    run = made.ask(SETUP)
    assert run.returncode == 0, run.stdout + run.stderr
    assert str(place) in made.ask(probe).stdout, "the helpers were not installed into the clean environment"
    kernel = place / "kernels" / "clean"
    kernel.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "clean", "language": "python"}))
    environment["JUPYTER_PATH"] = str(place)
    return made


@each_notebook
def test_runs_alone_in_an_empty_folder_of_a_clean_environment_with_the_outputs_of_the_build(
    path: Path, passed_before: Any, built_pages: Callable[[], Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Strictly, under nbval, and with only what its first cell installs of the book.

    Each cell prints and draws the same, but for addresses in memory and times of the clock. Of figures vectors are
    compared; pictures, whose bytes hang on libraries, are not.
    """
    made_by = [BOOK / "_scripts" / "site" / name for name in ("ahead.py", "build_book.py", "inputs.py")]
    settings = [ROOT / "tests" / "nbval_sanitize.cfg", ROOT / "_config.yml", ROOT / "pyproject.toml"]
    with passed_before(path, *settings, *made_by) as known:
        if known:
            return
        executed = without_clocks(as_built(built_pages(), path))
        left_out = ["nbval-ignore-output" in cell.metadata.get("tags", []) for cell in code_cells(executed)]
        assert sum(left_out) <= (0.5 if path.stem in ABOUT_TIME else 0.25) * len(left_out)
        clean: Clean = request.getfixturevalue("clean")
        empty = tmp_path / "empty"
        empty.mkdir()
        nbformat.write(executed, empty / path.name)
        said = run_under_nbval(empty / path.name, clean.environment, "--nbval-kernel-name", "clean")
        assert re.search(rf"^{len(left_out)} passed in", said, re.M), said[-8000:]
        assert {left.name for left in empty.iterdir()} == {path.name}, "it leaves files behind"
