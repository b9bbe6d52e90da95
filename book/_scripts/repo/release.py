"""Make the branch of a release: its notebooks, badges and handed-out copies name the release, not a moving branch.

    python book/_scripts/repo/release.py 0.3.0

The branch release/0.3.0 gets two commits. The first sets the version: in the helpers, in CITATION.cff, in the first
cell of each notebook, and in the changelog, whose part "Unreleased" becomes that of this version; main takes this
commit too. The second carries the tag v0.3.0 into every address, and stays on the branch. Nothing is pushed: the
workflow `release` makes the tag, once the tests have passed on the pushed branch.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from address import VERSION_LINE, change_address, current_address, setup_cell, with_first_cell
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
# A heading in either of Markdown's two ways.
UNRELEASED = re.compile(r"^(?:## Unreleased|Unreleased\n-+)\n(.*?)(?=^## |\Z)", re.M | re.S)


class ReleaseError(Exception):
    """This release cannot be made; nothing was changed."""


def git(root: Path, *arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if run.returncode != 0:
        raise ReleaseError(f"git {arguments[0]} failed in {root}: {(run.stderr or run.stdout).strip()}")
    return run.stdout.strip()


def _changed(path: Path, *changes: tuple[str, str]) -> str:
    """The file's text with one line replaced for each change: what that line looks like, and the new one."""
    text = path.read_text(encoding="utf-8")
    for pattern, new in changes:
        text, n_found = re.subn(pattern, lambda _, new=new: new, text, flags=re.M)  # type: ignore[misc]
        if n_found != 1:
            raise ReleaseError(f"{path} must have one line that looks like {pattern}, and has {n_found}")
    return text


def released_texts(version: str, day: date, root: Path = ROOT) -> dict[Path, str]:
    """What the files that name the version hold in this release. Nothing is written.

    Raises `ReleaseError` for a version that is not newer, and where the changelog says nothing new.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ReleaseError(f"a version is three numbers, such as 0.3.0, not {version!r}")
    helpers = root / "snn_helpers" / "__init__.py"
    found = re.search(VERSION_LINE, helpers.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise ReleaseError(f'{helpers} names no version: it needs a line __version__ = "…"')
    if Version(version) <= Version(found[1]):
        raise ReleaseError(f"the version {version} is not newer than the present one, {found[1]}")
    changelog = root / "book" / "changelog.md"
    news = changelog.read_text(encoding="utf-8")
    unreleased = UNRELEASED.findall(news)
    if len(unreleased) != 1 or not re.search(r"^- \S", unreleased[0], re.M):
        raise ReleaseError(f"{changelog} does not say what is new: it needs one part 'Unreleased' with a list")
    citation = root / "CITATION.cff"
    cell = setup_cell(root, version)
    first_cells = {
        path: with_first_cell(path.read_text(encoding="utf-8"), cell)
        for path in sorted((root / "book").glob("*.ipynb"))
    }
    return first_cells | {
        helpers: _changed(helpers, (VERSION_LINE, f'__version__ = "{version}"')),
        citation: _changed(
            citation, ("^version: .+$", f"version: {version}"), ("^date-released: .+$", f'date-released: "{day}"')
        ),
        changelog: UNRELEASED.sub(lambda part: f"## {version} ({day})\n{part[1]}", news),
    }


def make_release(version: str, day: date, root: Path = ROOT) -> str:
    """Make the branch, with its two commits, and stay on it; return the first commit, which main takes too.

    Raises `ReleaseError`, and leaves everything as it was, if the working tree is not clean, if the version is not
    newer, if its branch or tag is there already, if the changelog says nothing new, or if a commit fails.
    """
    changed = git(root, "status", "--porcelain")
    if changed:
        raise ReleaseError(f"there are changes that are not committed: commit them or put them away first\n{changed}")
    branch, tag = f"release/{version}", f"v{version}"
    texts = released_texts(version, day, root)
    names = (f"refs/heads/{branch}", f"refs/remotes/*/{branch}", f"refs/tags/{tag}")
    there = git(root, "for-each-ref", "--format=%(refname)", *names)
    if there:
        raise ReleaseError(f"this release is there already, as {there}: a release is never made anew, so take a newer")
    start = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    if start == "HEAD":  # on no branch
        start = git(root, "rev-parse", "HEAD")
    git(root, "switch", "-q", "-c", branch)
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        git(root, "commit", "-q", "-a", "-m", f"Version {version}")
        first = git(root, "rev-parse", "HEAD")
        change_address(current_address(root), root, tag)
        git(root, "commit", "-q", "-a", "-m", f"Badges, first cells and links name {tag}")
    except BaseException:
        # The tree was clean, so nothing of anybody else is lost.
        git(root, "reset", "-q", "--hard")
        git(root, "checkout", "-q", start)
        git(root, "branch", "-q", "-D", branch)
        raise
    return first


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("name the new version: make release VERSION=0.3.0", file=sys.stderr)
        return 2
    version = arguments[0]
    try:
        first = make_release(version, datetime.now(UTC).date())
    except ReleaseError as error:
        print(f"No release was made: {error}", file=sys.stderr)
        return 1
    print(
        f"You are on the new branch release/{version}. Push it: git push origin release/{version}\n"
        f"When the tests have passed there, the workflow 'release' makes the tag v{version} and publishes the pages.\n"
        f"main takes the first of the two commits: git switch main; git cherry-pick {first[:10]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
