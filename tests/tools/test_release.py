"""`make release`: a branch whose notebooks, badges and handed-out copies name the release; or nothing at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import make_workshop
import nbformat
import pytest
import yaml
from address import badges, current_address, current_branch, setup_cell
from notebooks import NOTEBOOKS, ROOT, working_tree
from packaging.version import Version
from release import UNRELEASED, ReleaseError, git, make_release

import snn_helpers

OF_NOW = Version(snn_helpers.__version__)
NEXT = f"{OF_NOW.major}.{OF_NOW.minor + 1}.0"
DAY = date(2031, 2, 3)


@pytest.fixture(autouse=True, scope="module")
def _git_is_told_who_commits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "test")
            patch.setenv(f"GIT_{who}_EMAIL", "test@example.invalid")
        yield


def commit_all(root: Path) -> str:
    """A repository of what is in the folder, on a branch named as in its _config.yml; the commit."""
    git(root, "init", "-q", "-b", current_branch(root))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "before")
    return git(root, "rev-parse", "HEAD")


def with_news(changelog: str) -> str:
    """The changelog with something new in it, also where this is the branch of a release."""
    if UNRELEASED.search(changelog):
        return changelog
    first = changelog.index("## ")
    return f"{changelog[:first]}## Unreleased\n\n- A point.\n\n{changelog[first:]}"


# --- The whole book ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the working tree on its release branch, made by the command; and the commit before."""
    root = tmp_path_factory.mktemp("released") / "book"
    for name in working_tree():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    changelog = root / "book" / "changelog.md"
    changelog.write_text(with_news(changelog.read_text(encoding="utf-8")), encoding="utf-8")
    start = commit_all(root)
    command = [sys.executable, "book/_scripts/repo/release.py", NEXT]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    first = git(root, "rev-parse", "HEAD^")
    assert f"git push origin release/{NEXT}" in run.stdout and f"git cherry-pick {first[:10]}" in run.stdout
    return root, start


def test_a_release_is_a_branch_of_two_commits(released: tuple[Path, str]) -> None:
    root, start = released
    assert git(root, "branch", "--show-current") == f"release/{NEXT}"
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "rev-parse", "HEAD~2") == start == git(root, "rev-parse", current_branch())
    version_files = {"CITATION.cff", "book/changelog.md", "snn_helpers/__init__.py"}
    version_files |= {path.relative_to(ROOT).as_posix() for path in NOTEBOOKS}
    assert set(git(root, "diff", "--name-only", start, "HEAD^").splitlines()) == version_files
    lines = git(root, "diff", "--numstat", start, "HEAD^", "--", "book/*.ipynb").splitlines()
    assert {line.split("\t")[0] for line in lines} == {"1"}, "of a notebook, only the version in its first cell"
    assert git(root, "diff", "--name-only", start, "--", ".github", "tests") == "", "workflows still run for main"
    assert git(root, "tag") == "", "the tag is made when the tests have passed"


def test_a_release_says_its_version_and_its_day(released: tuple[Path, str]) -> None:
    root, start = released
    assert f'__version__ = "{NEXT}"\n' in (root / "snn_helpers" / "__init__.py").read_text()
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == NEXT
    heading = f"## {NEXT} ({citation['date-released']})\n"
    changelog = (root / "book" / "changelog.md").read_text()
    assert changelog.count(heading) == 1 and "Unreleased" not in changelog
    before = git(root, "show", f"{start}:book/changelog.md") + "\n"
    assert changelog == re.sub(r"^(## Unreleased|Unreleased\n-+)\n", heading, before, flags=re.M)


def test_every_link_of_a_release_names_it(released: tuple[Path, str]) -> None:
    root, _ = released
    place, tag = current_address().removeprefix("https://github.com/"), f"v{NEXT}"
    named: dict[str, list[str]] = {}
    for name in git(root, "ls-files").splitlines():
        if name.endswith((".md", ".ipynb", ".yml", ".toml", ".cff", ".py", ".json")):
            text = (root / name).read_text(encoding="utf-8")
            found = re.findall(rf"{place}(?:@|/blob/|/tree/|/archive/)([\w.-]+)|gh/{place}/([\w.-]+)", text)
            named[name] = [(a or b).removesuffix(".zip") for a, b in found]
    assert {ref for refs in named.values() for ref in refs} == {tag}
    assert named["README.md"] == [tag, tag]
    for path in NOTEBOOKS:
        assert len(named[f"book/{path.name}"]) >= 3, "the first cell, Colab and Binder"
    assert yaml.safe_load((root / "_config.yml").read_text())["repository"]["branch"] == tag


def test_first_cells_and_copies_of_a_release_install_it(released: tuple[Path, str]) -> None:
    root, _ = released
    cell = f'_VERSION = "{NEXT}"\n_ARCHIVE = "{current_address()}/archive/v{NEXT}.zip"\n'
    assert cell in setup_cell(root)
    for path in NOTEBOOKS:
        notebook = nbformat.read(root / "book" / path.name, as_version=4)
        copies = [notebook, make_workshop.student_copy(notebook), make_workshop.instructor_copy(notebook, None)]
        for copy in copies:
            first = next(cell for cell in copy.cells if cell.cell_type == "code")
            assert first.source.strip() == setup_cell(root).strip()
        assert badges(path.stem, root) in notebook.cells[0].source


def test_the_tests_of_the_repository_hold_on_the_branch_of_a_release(released: tuple[Path, str]) -> None:
    root, _ = released
    tests = ["tests/tools/test_repository.py", "tests/book/test_notebooks.py"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not test_runs_", *tests],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "book")])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    n_passed = re.search(r"(\d+) passed", run.stdout)
    assert n_passed and int(n_passed[1]) > 10 * len(NOTEBOOKS)


def test_main_takes_the_version_and_keeps_its_own_name(released: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = released
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "-b", current_branch(), str(root), str(clone))
    git(clone, "cherry-pick", f"origin/release/{NEXT}^")
    assert current_branch(clone) == current_branch()
    assert f'__version__ = "{NEXT}"\n' in (clone / "snn_helpers" / "__init__.py").read_text()
    assert setup_cell(clone) == setup_cell().replace(snn_helpers.__version__, NEXT)


# --- What is refused -----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with only what a release changes, version 1.2.3."""
    files = {
        "snn_helpers/__init__.py": '"""Helpers."""\n\n__version__ = "1.2.3"\n',
        "CITATION.cff": 'cff-version: 1.2.0\nversion: 1.2.3\ndate-released: "2030-01-01"\n',
        "book/changelog.md": "# Changes\n\nUnreleased\n----------\n\n- New.\n\n## 1.2.3 (2030-01-01)\n\n- Old.\n",
        "_config.yml": "repository:\n  url: https://github.com/someone/book\n  branch: main\n",
        "README.md": "[Open](https://colab.research.google.com/github/someone/book/blob/main/book/intro.ipynb)\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    commit_all(tmp_path)
    return tmp_path


def state(root: Path) -> tuple[str, ...]:
    """All that a refused release must leave as it is."""
    asked = (["for-each-ref"], ["rev-parse", "--abbrev-ref", "HEAD"], ["rev-parse", "HEAD"], ["status", "--porcelain"])
    return tuple(git(root, *arguments) for arguments in asked)


def test_a_small_release(small: Path) -> None:
    first = make_release("1.3.0", DAY, small)
    assert (
        (small / "book/changelog.md").read_text().startswith("# Changes\n\n## 1.3.0 (2031-02-03)\n\n- New.\n\n## 1.2")
    )
    assert yaml.safe_load((small / "CITATION.cff").read_text()) == {
        "cff-version": "1.2.0",
        "version": "1.3.0",
        "date-released": "2031-02-03",
    }
    assert "/blob/v1.3.0/" in (small / "README.md").read_text()
    assert "/blob/main/" in git(small, "show", f"{first}:README.md")


def test_a_release_of_a_release(small: Path) -> None:
    """A mend of a released version sets out from its branch."""
    make_release("1.3.0", DAY, small)
    changelog = small / "book/changelog.md"
    changelog.write_text(with_news(changelog.read_text()))
    git(small, "commit", "-q", "-a", "-m", "a mend")
    make_release("1.3.1", DAY, small)
    assert "/blob/v1.3.1/" in (small / "README.md").read_text() and current_branch(small) == "v1.3.1"
    assert git(small, "branch", "--show-current") == "release/1.3.1"


@pytest.mark.parametrize("version", ["1.2.3", "1.2.2", "0.9.0", "1.1.99"])
def test_a_version_that_is_not_newer_is_refused(version: str, small: Path) -> None:
    before = state(small)
    with pytest.raises(ReleaseError, match=rf"{version} is not newer than the present one, 1\.2\.3"):
        make_release(version, DAY, small)
    assert state(small) == before


@pytest.mark.parametrize("version", ["", "1.3", "v1.3.0", "1.3.0rc1", "1.3.0 ", "main", "1.3.0\n"])
def test_what_is_no_version_is_refused(version: str, small: Path) -> None:
    before = state(small)
    with pytest.raises(ReleaseError, match=r"three numbers, such as 0\.3\.0, not"):
        make_release(version, DAY, small)
    assert state(small) == before


@pytest.mark.parametrize("name", ["README.md", "new file"])
def test_changes_that_are_not_committed_are_kept_and_refused(name: str, small: Path) -> None:
    (small / name).write_text("mine\n")
    before = state(small)
    with pytest.raises(ReleaseError, match="not committed: commit them or put them away") as caught:
        make_release("1.3.0", DAY, small)
    assert name in str(caught.value)
    assert state(small) == before and (small / name).read_text() == "mine\n"


@pytest.mark.parametrize("kind", ["branch", "tag", "branch elsewhere"])
def test_a_release_that_is_there_is_refused(kind: str, small: Path) -> None:
    if kind == "branch":
        git(small, "branch", "release/1.3.0")
    elif kind == "tag":
        git(small, "tag", "v1.3.0")
    else:
        git(small, "update-ref", "refs/remotes/origin/release/1.3.0", "HEAD")
    before = state(small)
    with pytest.raises(ReleaseError, match=r"there already, as refs/.*1\.3\.0: .*take a newer"):
        make_release("1.3.0", DAY, small)
    assert state(small) == before
    make_release("1.3.1", DAY, small)


@pytest.mark.parametrize("part", ["", "Unreleased\n----------\n\n", "## Unreleased\n\nNothing yet.\n\n"])
def test_a_changelog_that_says_nothing_new_is_refused(part: str, small: Path) -> None:
    (small / "book/changelog.md").write_text(f"# Changes\n\n{part}## 1.2.3 (2030-01-01)\n\n- Old.\n")
    git(small, "commit", "-q", "-a", "-m", "no news")
    before = state(small)
    with pytest.raises(ReleaseError, match=r"changelog\.md does not say what is new"):
        make_release("1.3.0", DAY, small)
    assert state(small) == before


@pytest.mark.parametrize("n_good", [0, 1])
@pytest.mark.parametrize("on_a_branch", [True, False])
def test_a_commit_that_fails_leaves_everything_as_it_was(n_good: int, on_a_branch: bool, small: Path) -> None:
    if not on_a_branch:
        git(small, "checkout", "-q", "--detach")
    hook = small / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f'#!/bin/sh\necho x >> .git/tried\ntest "$(wc -l < .git/tried)" -le {n_good} || {{ echo NO >&2; exit 1; }}\n'
    )
    hook.chmod(0o755)
    before = state(small)
    with pytest.raises(ReleaseError, match=r"git commit failed in .*NO"):
        make_release("1.3.0", DAY, small)
    assert state(small) == before
    assert len((small / ".git" / "tried").read_text().split()) == n_good + 1


@pytest.mark.parametrize("lost", ["snn_helpers/__init__.py", "CITATION.cff"])
def test_a_file_without_its_line_is_refused(lost: str, small: Path) -> None:
    text = (small / lost).read_text()
    (small / lost).write_text("\n".join(line for line in text.splitlines() if "1.2.3" not in line))
    git(small, "commit", "-q", "-a", "-m", "lost")
    before = state(small)
    with pytest.raises(ReleaseError, match=re.escape(lost)):
        make_release("1.3.0", DAY, small)
    assert state(small) == before


def test_the_command_says_why_not(small: Path) -> None:
    script = ROOT / "book" / "_scripts" / "repo" / "release.py"
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.returncode == 2 and "make release VERSION=" in run.stderr
    run = subprocess.run([sys.executable, str(script), "0.0.1"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("No release was made: ") and "Traceback" not in run.stderr


# --- The workflow --------------------------------------------------------------------------------


def test_pages_and_tags_come_only_after_the_tests() -> None:
    folder = ROOT / ".github" / "workflows"
    workflows = {path.name: yaml.safe_load(path.read_text()) for path in folder.glob("*.yml")}
    assert [path.name for path in folder.glob("*.yml") if "deploy-pages" in path.read_text()] == ["release.yml"]
    release, test = workflows["release.yml"], workflows["test.yml"]
    on = True  # what YAML 1.1 takes the key `on` for
    assert release[on] == {"push": {"branches": ["release/*"]}}
    assert "workflow_call" in test[on] and test[on]["push"] == {"branches": ["main"]}
    jobs = release["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    before: list[str] = ["deploy"]
    while needed := jobs[before[-1]].get("needs"):
        before.append(needed)
    assert before == ["deploy", "tag", "build", "test"]
    assert jobs["tag"]["permissions"] == {"contents": "write"}
    assert all("write" not in str(job["permissions"]) for name, job in jobs.items() if name in ("test", "build"))


def test_the_branch_of_a_release_is_named_as_its_version() -> None:
    """Here and now: a tag in the addresses is that of this version, and the changelog and CITATION.cff agree."""
    if re.fullmatch(r"v\d+\.\d+\.\d+", current_branch()):
        assert current_branch() == f"v{snn_helpers.__version__}"
        assert not UNRELEASED.search((ROOT / "book" / "changelog.md").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == snn_helpers.__version__
    newest = re.search(r"^## (\d\S*) \((\S+)\)", (ROOT / "book" / "changelog.md").read_text(), re.M)
    assert newest and newest.groups() == (citation["version"], citation["date-released"])
