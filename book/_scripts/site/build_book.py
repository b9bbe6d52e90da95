"""Build the pages into _build/html; `make book` calls this.

Two faults of an incremental build are mended here. The cache of executed notebooks knows the
notebooks, but not the helpers, records and packages that they use: when those change, what they
decided is dropped (`inputs.py`). And a build that failed, or was stopped, leaves pages that the next
one would take for good: the next one then makes all pages again. And notebooks run side by side
(`ahead.py`), where Sphinx would run them one after the other. All else is the business of
jupyter-book and of the extension that `_config.yml` names, `pages.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import alone
import yaml
from inputs import State, notebook_keys, pages_key, refresh

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
STRICT = ["-W", "-n", "--keep-going"]  # every warning and every broken reference fails the build


def pages_in_order(root: Path = ROOT) -> list[str]:
    """The pages in the order of the table of contents, without their ending."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def quiet_kernels(folder: Path) -> dict[str, str]:
    """Settings by which kernels say only what is wrong: not at each start that a reader's machine talks to itself."""
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n", encoding="utf-8")
    return {"IPYTHONDIR": str(folder)}


def build(root: Path = ROOT) -> int:
    """Build the pages; return the exit status, 0 only if every page is whole and nothing warned."""
    built = root / "_build"
    try:
        lock = alone.hold(built, "build")
        alone.check(built, "pages")
    except alone.BusyError as error:
        print(f"No pages were made: {error}.", file=sys.stderr)
        return 1
    try:
        return _build(root, built)
    finally:
        lock.release()


def _build(root: Path, built: Path) -> int:
    before = State.read(root)
    key = pages_key(root)
    if refresh(root) or not before.whole or before.pages != key:
        for folder in ("html", ".doctrees", "jupyter_execute"):
            shutil.rmtree(built / folder, ignore_errors=True)
    # Until it has ended well. The outputs that are kept by then are good, and need not be made again.
    state = State(notebook_keys(root), key, whole=False)
    state.write(root)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    # The notebooks run in this environment, whatever kernels the user has elsewhere; a wrong solution ends the build.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "SNN_STRICT_CHECKS": "1"}
    environment |= quiet_kernels(built / ".ipython")
    environment.pop("MPLBACKEND", None)  # a user's own choice would leave the pages without figures
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    if settings.get("execute", {}).get("execute_notebooks") == "cache":
        subprocess.run([sys.executable, HERE / "ahead.py", root], cwd=root, env=environment)
    status = subprocess.run([jupyter_book, "build", root, *STRICT], cwd=root, env=environment).returncode
    if status == 0:
        replace(state, whole=True).write(root)
        print(f"The pages are in {built / 'html'}: type make serve, or open index.html there.")
    return status


if __name__ == "__main__":
    sys.exit(build())
