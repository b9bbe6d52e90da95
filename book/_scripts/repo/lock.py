"""Write requirements-hashed.txt: the pins of requirements.txt, and torch's GPU libraries, with their files' hashes.

    .venv/bin/python book/_scripts/repo/lock.py

What is built for others is installed from it (`make book REQUIREMENTS=requirements-hashed.txt`): pip
then refuses any file but those that the package index had when this was written. Needs the network.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
INDEX = "https://pypi.org/simple"
# What other systems need beside what is installed here.
ELSEWHERE = {"appnope": ("0.1.4", 'sys_platform == "darwin"')}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Name and version of each line `name==version`; what follows is left out."""
    return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M)}


def linux_only(pins: dict[str, str]) -> dict[str, str]:
    """What torch brings along on Linux beside the pins: its GPU libraries, as they are installed here."""
    return {
        name: found.version
        for found in distributions()
        if (name := canonical(found.metadata["Name"])) not in pins
        and re.match(r"nvidia-|cuda-|triton$", name)  # nothing that was tried out in this environment
    }


def hashes(name: str, version: str) -> list[str]:
    """The sha256 of every file of this version, wheels and source."""
    request = urllib.request.Request(
        f"{INDEX}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json", "User-Agent": "pip lock"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    found = []
    for file in files:
        with contextlib.suppress(InvalidWheelFilename, InvalidSdistFilename):
            parse = parse_wheel_filename if file["filename"].endswith(".whl") else parse_sdist_filename
            if parse(file["filename"])[1] == Version(version):
                found.append(file["hashes"]["sha256"])
    if not found:
        raise LookupError(f"{INDEX} has no file of {name} {version}")
    return sorted(set(found))


def main() -> None:
    pins = read_pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    wanted = [(name, version, "") for name, version in pins.items()]
    wanted += [(name, version, 'sys_platform == "linux"') for name, version in linux_only(pins).items()]
    wanted += [(name, version, marker) for name, (version, marker) in ELSEWHERE.items()]
    lines = ["# Made by book/_scripts/repo/lock.py from requirements.txt: do not edit.\n"]
    for name, version, marker in sorted(wanted):
        condition = f" ; {marker}" if marker else ""
        listed = " \\\n".join(f"    --hash=sha256:{digest}" for digest in hashes(name, version))
        lines.append(f"{name}=={version}{condition} \\\n{listed}\n")
    (ROOT / "requirements-hashed.txt").write_text("".join(lines), encoding="utf-8")
    print(f"{len(wanted)} packages are in requirements-hashed.txt")


if __name__ == "__main__":
    main()
