"""The repository around the notebooks: one address, pinned parts, records with their provenance."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from address import badges, change_address, current_address, pages_address, setup_cell
from build_book import pages_in_order
from files import listed_files
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    return [ROOT / name for name in listed_files(ROOT)]


@pytest.mark.parametrize("inside", ["nothing", "another clone"])
def test_a_download_without_git_has_the_same_files(inside: str, tmp_path: Path) -> None:
    if inside == "another clone":
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    copy = tmp_path / "book-main"
    for path in tracked():
        (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(ROOT)).write_bytes(b"")
    shutil.copy(ROOT / ".gitignore", copy)
    for name in ("_build/html/index.html", ".venv/bin/python", "book/__pycache__/a.pyc", "snn_helpers.egg-info/x"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(b"")
    assert listed_files(copy) == listed_files(ROOT)


def test_without_git_on_the_machine_files_are_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = listed_files(ROOT)
    monkeypatch.setenv("PATH", "")
    found = set(listed_files(ROOT))  # and what a user keeps out of git by other means than .gitignore
    assert set(expected) <= found


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as in a terminal: nothing of the make that runs these tests, such as REQUIREMENTS=…, is handed on."""
    environment = {name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS", name)}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_address_is_the_same_everywhere() -> None:
    address = current_address()
    owner_and_name = address.removeprefix("https://github.com/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == address
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address
    name = owner_and_name.split("/")[0]
    for path in tracked():
        if path.suffix in {".md", ".ipynb", ".yml", ".toml", ".cff", ".py"}:
            for found in re.findall(rf"github\.com/{name}/[\w-]+|github/{name}/[\w-]+", path.read_text("utf-8")):
                assert found.endswith(owner_and_name), f"{path}: {found}"


def test_another_address_is_carried_everywhere(tmp_path: Path) -> None:
    old, new = current_address(), "https://github.com/someone/fork"
    for name in ("_config.yml", "README.md", "pyproject.toml", "book/intro.ipynb", "snn_helpers/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(ValueError, match="branch"):
        change_address(new, tmp_path, "no branch")
    assert len(change_address(new, tmp_path, "workshop")) == 4
    cells = json.loads((tmp_path / "book/intro.ipynb").read_text("utf-8"))["cells"]
    assert "".join(cells[1]["source"]) == setup_cell(tmp_path)
    assert f"{new}/archive/workshop.zip" in setup_cell(tmp_path)
    assert badges("intro", tmp_path) in "".join(cells[0]["source"])
    assert "someone/fork/blob/workshop/book/intro.ipynb" in badges("intro", tmp_path)
    assert pages_address(tmp_path) == "https://someone.github.io/fork/"
    for path in tmp_path.rglob("*.*"):
        if path.is_file() and ".git" not in path.parts:
            assert old not in path.read_text("utf-8")
            json.loads(path.read_text("utf-8")) if path.suffix == ".ipynb" else None
    assert current_address(tmp_path) == new


@pytest.mark.parametrize("wrong", ["github.com/a/b", "https://github.com/a", "https://github.com/a/b/", "https://x"])
def test_a_wrong_address_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must look like"):
        change_address(wrong, tmp_path)


def test_workflows_pin_actions_by_commit_and_ask_for_little() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        for used in re.findall(r"uses: (\S+)", text):
            ours = used.startswith("./") and (ROOT / used).is_file()
            assert ours or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), f"{path.name}: {used}"
        assert "permissions" in yaml.safe_load(text)


def test_pins_and_actions_are_kept_up_to_date() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    for update in updates:
        assert update["schedule"] == {"interval": "weekly"} and len(update["groups"]) == 1
        for path in update.get("exclude-paths", []):
            assert (ROOT / path).is_file(), path


def test_the_link_check_runs_no_notebook_and_misses_no_doi() -> None:
    said = make("-n", "-o", ".venv/installed", "links")
    (command,) = (line for line in said.stdout.splitlines() if line.startswith("sed "))
    sed = subprocess.run(command.partition(" > ")[0], shell=True, cwd=ROOT, check=True, capture_output=True, text=True)
    config, changed = yaml.safe_load((ROOT / "_config.yml").read_text()), yaml.safe_load(sed.stdout)
    assert changed["execute"].pop("execute_notebooks") == "off" != config["execute"].pop("execute_notebooks")
    assert changed == config
    workflow = (ROOT / ".github" / "workflows" / "links.yml").read_text()
    pattern = re.search(r"grep -rhoE '(.+?)' book", workflow)
    assert pattern
    listed = (ROOT / "book" / "references.bib").read_text()
    dois = re.findall(r"^  doi = \{(.+)\},?$", listed, re.M)
    assert len(dois) >= 10 and dois == [found.group() for found in re.finditer(pattern[1], listed)]
    grep = ["grep", "-oE", pattern[1]]
    found = subprocess.run([*grep, "book/references.bib"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.split() == dois
    told = "[doi:10.1234/a](https://doi.org/10.1016/S0(01)5-6), (10.1234/b) and 10.1234/c."
    # A part in parentheses belongs to a DOI, what ends a link or a sentence does not: the workflow strips a last dot.
    found = subprocess.run(grep, input=told, check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["10.1234/a", "10.1016/S0(01)5-6", "10.1234/b", "10.1234/c."]


def test_what_the_benchmark_needs_is_pinned_exactly() -> None:
    lines = [line for line in (ROOT / "requirements-bench.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {"norse", "spikingjelly"} <= {line.split("==")[0] for line in lines}


def test_requirements_are_pinned_exactly() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {re.sub("[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    given = {"torch", "torchvision", "jupyter-book", "ipywidgets", "matplotlib", "nbval", "papermill"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {re.split("[<>=]", dependency)[0] for dependency in project["dependencies"]}
    assert given | floors <= pinned
    assert all(">=" in dependency for dependency in project["dependencies"]), "floors only, so that Colab's torch stays"


def test_the_floors_are_the_projects() -> None:
    """The file that the workflow installs has exactly the lowest version of each dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements-floors.txt").read_text().splitlines() if line and line[0] != "#"]
    exact = {entry.name: entry.specifier for entry in map(Requirement, lines)}
    floors = {entry.name: entry.specifier for entry in map(Requirement, project["dependencies"])}
    assert exact.keys() == floors.keys() and len(lines) == len(exact)
    for name, specifier in floors.items():
        (floor,), (pin,) = specifier, exact[name]
        assert (floor.operator, pin.operator) == (">=", "=="), name
        assert Version(floor.version) == Version(pin.version), name


def test_the_floors_are_tried_with_all_unit_tests_but_those_that_pretend_a_gpu() -> None:
    workflow = (ROOT / ".github" / "workflows" / "floors.yml").read_text()
    assert "-r requirements-floors.txt" in workflow
    lowest = min(version for version in range(20) if f"3.{version}.99" in allowed_pythons())
    assert f'python-version: "3.{lowest}"' in workflow
    words = re.search(r'pytest tests/unit -k "([^"]+)"', workflow)
    assert words
    left_out = re.findall(r"not (\w+)", words[1])
    assert words[1] == " and ".join(f"not {word}" for word in left_out)
    tests = {
        f"{path.stem}.{function.name}": ast.unparse(function)
        for path in (ROOT / "tests" / "unit").glob("test_*.py")
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    }
    assert len(tests) > 200, "or this test looks at the wrong place"
    named = {name for name in tests if any(word in name for word in left_out)}
    assert named == {name for name, text in tests.items() if "FakeTensorMode" in text}
    whole = re.findall(r'"(tests/\S+\.py)::(\w+)\[(\w+)\]"', workflow)
    assert len(set(whole)) == 4 == workflow.count("::")
    for file, function, name in whole:
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), function
        assert (ROOT / "book" / f"{name}.ipynb").is_file(), name


def python_sources() -> list[tuple[str, str]]:
    """Name and text of all Python of the repository: modules, and the code cells of notebooks."""
    sources = []
    for path in tracked():
        if path.suffix == ".py":
            sources.append((path.name, path.read_text("utf-8")))
        elif path.suffix == ".ipynb":
            for cell in json.loads(path.read_text("utf-8"))["cells"]:
                if cell["cell_type"] == "code":
                    sources.append((path.name, "".join(cell["source"])))
    return sources


def unsafe_loads(text: str) -> list[str]:
    """Calls that may run code out of a data file; programs that are written down in strings included."""
    found = []
    without_magics = re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.M)
    for node in ast.walk(ast.parse(without_magics)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nimport " in node.value:
            with contextlib.suppress(SyntaxError):  # no program after all
                found += unsafe_loads(node.value)
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [name for name in modules if name.split(".")[0] in {"pickle", "dill", "joblib", "shelve"}]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(ast.unparse(node))
            if called in {"np.load", "numpy.load"} and "allow_pickle" in given:
                found.append(ast.unparse(node))
            if called in {"yaml.load", "yaml.unsafe_load", "torch.hub.load", "eval", "exec"}:
                found.append(ast.unparse(node))
    return found


def test_no_data_file_is_loaded_in_a_way_that_could_run_code() -> None:
    sources = python_sources()
    assert sum("torch.load" in text for _, text in sources) >= 5, "or this test looks at the wrong place"
    for name, text in sources:
        assert not unsafe_loads(text), f"{name}: {unsafe_loads(text)}"


@pytest.mark.parametrize(
    "text",
    ["torch.load(path)", "torch.load(path, weights_only=False)", "import pickle", "from joblib import load", "eval(x)",
     "yaml.load(f)", "np.load(f, allow_pickle=True)", "program = '''\nimport" + " torch\ntorch.load(path)\n'''"],
)  # fmt: skip
def test_unsafe_loads_are_found(text: str) -> None:
    assert unsafe_loads(text)


def test_no_file_holds_a_secret() -> None:
    shapes = r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|github_pat_\w{40}|hf_[A-Za-z]{30}|-----BEGIN [A-Z ]*PRIVATE KEY"
    for path in tracked():
        found = re.search(shapes.encode(), path.read_bytes())
        assert not found, f"{path}: {found.group(0)[:12] if found else b''!r}"


def allowed_pythons() -> SpecifierSet:
    return SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])


@pytest.mark.parametrize(
    "version",
    ["2.7.18", "3.9.18", "3.10.19", "3.11.0", "3.11.4", "3.11.5", "3.11.9", "3.11.10", "3.11.15", "3.12.0", "3.13.13",
     "3.14.0", "3.14.10", "3.15.0", "3.110.0", "4.0.0"],
)  # fmt: skip
def test_make_takes_the_pythons_that_the_project_allows_and_no_other(version: str, tmp_path: Path) -> None:
    """With a program that calls itself this Python, and that fails when it is asked for an environment."""
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pretends.py").write_text(
        f"""import sys
assert sys.argv[1] == "-c", "an environment was asked for"
sys.version_info = ({version.replace(".", ", ")}, "final", 0)
exec(sys.argv[2])
"""
    )
    pretends = tmp_path / "another-python"
    pretends.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} pretends.py "$@"\n')
    pretends.chmod(0o755)
    run = make("book", "PYTHON=./another-python", folder=tmp_path)
    assert run.returncode == 2
    assert not (tmp_path / ".venv").exists()
    allowed = version in allowed_pythons()
    assert ("an environment was asked for" in run.stderr) == allowed, run.stderr
    sentence = f"This book needs Python 3.11.5 to 3.14, but './another-python' is {version}. Name another: make book "
    assert (sentence in run.stderr) == (not allowed), run.stderr


def test_make_says_that_a_python_is_not_there(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    run = make("test", "PYTHON=python3.99", folder=tmp_path)
    assert run.returncode == 2
    assert "needs Python 3.11.5 to 3.14, but 'python3.99' is no Python that runs here." in run.stderr


def test_the_allowed_pythons_are_said_alike_everywhere() -> None:
    bounds = {part.operator: part.version for part in allowed_pythons()}
    floor = bounds[">="]
    assert bounds == {">=": "3.11.5", "<": "3.15"}, "or the sentences below, and the Makefile's, say another"
    assert f"--python-version {floor} " in (ROOT / "Makefile").read_text(), "make lock"
    assert "Python 3.11.5 to 3.14" in (ROOT / "README.md").read_text()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for version in re.findall(r"python-version: \"?([\d.]+)", path.read_text()):
            assert f"{version}.99" in allowed_pythons(), path.name
    image = re.search(r"^FROM python:([\d.]+)-", (ROOT / ".binder" / "Dockerfile").read_text(), re.M)
    assert image and f"{image[1]}.99" in allowed_pythons()
    # No pin asks for a newer Python than the floor.
    hashed = hashed_requirements()
    for package in distributions():
        if canonicalize_name(package.metadata["Name"]) in hashed:
            needs = SpecifierSet(package.metadata.get("Requires-Python") or "")
            assert floor in needs, f"{package.metadata['Name']} needs Python {needs}"


def hashed_requirements() -> dict[str, Requirement]:
    """Each requirement of requirements-hashed.txt by its name; every line belongs to one, and each has a hash."""
    text = (ROOT / "requirements-hashed.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    entries = re.findall(r"^(\S+==[^\n]*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M)
    assert sum(1 + len(hashes.splitlines()) for _, hashes in entries) == len(lines), "a line is no entry: make lock"
    found = {canonicalize_name(Requirement(entry).name): Requirement(entry) for entry, _ in entries}
    assert len(found) == len(entries), "a package has two versions"
    return found


def test_the_hashed_requirements_are_the_same_pins_and_each_has_a_hash() -> None:
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    hashed = hashed_requirements()
    everywhere = {name: str(entry.specifier) for name, entry in hashed.items() if entry.marker is None}
    assert everywhere == {canonicalize_name(Requirement(pin).name): str(Requirement(pin).specifier) for pin in pins}
    assert "://" not in (ROOT / "requirements-hashed.txt").read_text(), "no package index is named"
    for workflow in ("test", "release"):
        assert "REQUIREMENTS=requirements-hashed.txt" in (ROOT / ".github/workflows" / f"{workflow}.yml").read_text()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    ("platform", "system", "os_name", "machine"),
    [
        ("linux", "Linux", "posix", "x86_64"),
        ("darwin", "Darwin", "posix", "arm64"),
        ("win32", "Windows", "nt", "AMD64"),
    ],
)
def test_the_hashed_requirements_hold_for_other_systems_too(
    python: str, platform: str, system: str, os_name: str, machine: str
) -> None:
    """With hashes pip takes nothing else: what a pin needs on that system, by its own word, must be in the file."""
    there = {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": platform,
        "platform_system": system,
        "os_name": os_name,
        "platform_machine": machine,
        "extra": "",
    }
    hashed = hashed_requirements()
    markers = {name: entry.marker for name, entry in hashed.items()}
    here = {name for name, marker in markers.items() if marker is None or marker.evaluate(there)}
    needed = {
        (package.metadata["Name"], needs.name): canonicalize_name(needs.name)
        for package in distributions()
        if canonicalize_name(package.metadata["Name"]) in here
        for needs in map(Requirement, package.requires or [])
        if needs.marker is None or needs.marker.evaluate(there)
    }
    assert len(needed) > 200, "or this test looks at the wrong place"
    if python == "3.12":
        assert ("papermill", "aiohttp") in needed, "or no pin differs between the versions of Python any longer"
    for (package_name, needs_name), name in needed.items():
        assert name in here, f"{package_name} needs {needs_name} there, and the file has {hashed.get(name)}: make lock"


@pytest.mark.parametrize("path", sorted((ROOT / "book" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_record_says_how_it_was_made(path: Path) -> None:
    record = json.loads(path.read_text())
    assert {"what", "date", "python", "torch", "system", "cores"} <= set(record["provenance"])
    assert record["trials"]
    for row in record["trials"]:
        assert row["total_seconds"] > 0
        # What other libraries' neurons do under a clamp is no matter of chance; whether a notebook runs is none either.
        assert "seed" in row["settings"] or path.stem in ("06_libraries", "stacks", "lighthouse")


def test_by_the_record_every_page_is_fast_and_sound_on_a_phone() -> None:
    rows = json.loads((ROOT / "book" / "results" / "lighthouse.json").read_text(encoding="utf-8"))["trials"]
    assert [row["settings"]["page"] for row in rows] == pages_in_order()
    for row in rows:
        assert row["accessibility"] == row["best_practices"] == row["seo"] == 100 and row["performance"] >= 95, row
        assert row["largest_paint_s"] <= 2.6 and row["sent_kb"] <= 400, row


def test_records_are_complete() -> None:
    """Every trial that `make results` lists is in its file, and no other."""
    from make_results import all_records

    for name, (_, _, trials) in all_records().items():
        rows = json.loads((ROOT / "book" / "results" / f"{name}.json").read_text())["trials"]
        recorded = [row["settings"] for row in rows]
        listed = trials() if callable(trials) else trials
        assert sorted(map(str, recorded)) == sorted(map(str, listed)), name


def test_files_are_small_and_name_no_path_of_one_machine() -> None:
    for path in tracked():
        assert path.stat().st_size < 3_000_000, f"{path} is large"
        if path.suffix in {".py", ".ipynb", ".md", ".yml", ".yaml", ".toml", ".json", ".cff"}:
            found = re.search(r"(?<![\w.:/])/(home|root|work|farm)/[\w.]", path.read_text("utf-8"))
            assert not found, f"{path}: {found.group(0) if found else ''}"


def bibliography() -> dict[str, dict[str, str]]:
    """The fields of each entry, by its key."""
    text = (ROOT / "book" / "references.bib").read_text("utf-8")
    entries = re.findall(r"^@\w+\{(\w+),\n(.*?)^\}$", text, re.S | re.M)
    assert len(entries) == len(dict(entries)) == text.count("@") >= 30
    return {key: dict(re.findall(r"^  (\w+) = \{(.*)\},?$", fields, re.M)) for key, fields in entries}


def test_every_entry_of_the_bibliography_says_what_it_is_for() -> None:
    """In a sentence of its own, and under one heading of the page, below which a sentence says what they are for."""
    page = (ROOT / "book" / "bibliography.md").read_text("utf-8")
    parts = re.findall(r"^## .+\n\n([A-Z][^`]*\.)\n\n```\{bibliography\}\n:filter: keywords % \"(\w+)\"$", page, re.M)
    assert len(parts) == page.count("{bibliography}") == page.count("\n## ")
    entries = bibliography()
    assert sorted(part for _, part in parts) == sorted({entry["keywords"] for entry in entries.values()})
    for key, entry in entries.items():
        assert {"author", "title", "year"} <= set(entry), key
        assert re.fullmatch(r"[A-Z0-9].{15,}\.", entry["note"]), f"{key}: what is it for?"


def test_what_the_chapters_cite_is_in_the_bibliography() -> None:
    entries = bibliography().values()
    known = {entry[field].lower() for entry in entries for field in ("doi", "eprint") if field in entry}
    cited = set()
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"])
            cited |= {(path.stem, found) for found in re.findall(r"\[(?:doi|arXiv):([^\]]+)\]", text)}
    assert len(cited) >= 20
    missing = sorted((name, found) for name, found in cited if found.lower() not in known)
    assert not missing, f"in a chapter and not in references.bib: {missing}"


def test_the_image_is_made_of_the_same_pins() -> None:
    """Binder, dev containers and hubs share one Dockerfile, and it installs requirements.txt as it stands."""
    lines = (ROOT / ".binder" / "Dockerfile").read_text()
    assert "-r requirements.txt" in lines and not re.search(r"pip install[^&\n]*==\d", lines)
    for copied in re.findall(r"^COPY (\S+) ", lines, re.M):
        assert (ROOT / copied).exists(), copied
    assert re.findall(r"^USER (.*)$", lines, re.M) == ["${NB_USER}"], "whoever runs a notebook is not root"
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / ".binder" / "Dockerfile"
    assert f"ARG NB_USER={container['remoteUser']}" in lines


def test_nothing_that_a_command_loads_at_once_is_of_unix_alone() -> None:
    """Windows has no `resource`, `fcntl` or `pwd`: what needs them imports them where they are used."""
    of_unix = {"resource", "fcntl", "pwd", "grp", "termios"}
    for path in [*(ROOT / "book").rglob("*.py"), *(ROOT / "snn_helpers").rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                first = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module}
                assert not first & of_unix, f"{path.relative_to(ROOT)} imports {first & of_unix}"


def test_the_lines_for_windows_do_what_make_does() -> None:
    """Each, written as on Linux, is a command of the Makefile; and each part of the two commands has its line."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(py -3.*?)```", text, re.S)
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = {
        "$(PYTHON) -m venv .venv",
        "$(BIN)/python -m pip install --quiet $(INDEX) -r $(REQUIREMENTS)",
        "$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .",
        "$(BIN)/python book/_scripts/site/build_book.py",
        "$(BIN)/python -m pytest -n 2 --dist worksteal",
    }
    assert all(command in rules for command in known)

    def plain(command: str) -> str:
        for name, value in {
            "$(PYTHON)": "python",
            "$(BIN)/python": "python",
            ".venv/Scripts/python": "python",
            "py -3.12": "python",
            " --quiet": "",
            " $(INDEX)": "",
            "$(REQUIREMENTS)": "requirements.txt",
        }.items():
            command = command.replace(name, value)
        return command

    assert {plain(line.replace("\\", "/")) for line in block.splitlines()} == {plain(command) for command in known}


def test_the_workflow_tries_every_stack_with_its_python() -> None:
    from make_stacks import STACKS

    job = yaml.safe_load((ROOT / ".github" / "workflows" / "stacks.yml").read_text())["jobs"]["stacks"]
    assert job["strategy"]["matrix"]["stack"] == list(STACKS)
    (given,) = (step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {}))
    assert {stack.python for stack in STACKS.values()} <= set(given.split())
    assert "3." + str(min(int(v.split(".")[1]) for v in given.split())) == given.split()[-1]
