"""Data sets of (image, label), read onto the device as a training run needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

READ_SEEDS = 7_368_787  # what the seeds of two readings, one after the other, differ by


class Examples:
    """The examples of a data set on a device, by their numbers.

    The tensors of a plain `TensorDataset`, or of a `Subset` of one, are moved to the device once. Of any other data
    set each reading calls its own `__getitem__` again, item by item and in this process, as a `DataLoader` without
    workers does. So an image may be another one each time (augmentation), and training is as slow as that method.

    What such a data set draws from torch's global generator on the CPU is decided by `seed` and the number of the
    reading; afterwards that generator goes on as if nothing had been. So a run repeats itself, and a checkpoint is
    continued bit for bit. What it draws elsewhere, from NumPy or a generator of its own, repeats itself only if the
    data set sees to that. A checkpoint cannot know such images: it compares the name of the class and the length
    alone, and takes another data set of that name and length for the same one.

    Raises `TypeError` or `ValueError` for what is no data set of (image, label), and for labels that are no classes.
    """

    def __init__(self, dataset: Dataset[Any], device: torch.device, seed: int = 0) -> None:
        self.n = count(dataset)
        self.dataset, self.device, self.seed, self.last_class = dataset, device, seed, 0
        tensors = _tensors(dataset)
        self.tensors = None if tensors is None else self._checked(*tensors)
        if tensors is None:
            # One item tells most of what can be wrong before anything is trained.
            self.read(range(1), 0)

    def __len__(self) -> int:
        return self.n

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """The numbers of all examples in an order drawn from `generator`, on the CPU, and kept where they are used."""
        order = torch.randperm(self.n, generator=generator, device="cpu")
        return order if self.tensors is None else order.to(self.device)

    def read(self, chosen: Tensor | range, reading: int) -> tuple[Tensor, Tensor]:
        """Images `[B, ...]` and labels `[B]` of the chosen numbers; `reading` is the number of this reading."""
        if self.tensors is not None:
            where: Any = slice(chosen.start, chosen.stop) if isinstance(chosen, range) else chosen
            return self.tensors[0][where], self.tensors[1][where]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((self.seed + READ_SEEDS * reading) % 2**63)
            pair = _collate(self.dataset, chosen if isinstance(chosen, range) else chosen.tolist())
        return self._checked(*pair)

    def zeros(self, n: int) -> Tensor:
        """Where exact sums begin, `[n]`."""
        # Apple's GPUs know no float64.
        return torch.zeros(n, dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device)

    def identity(self) -> str:
        """What a checkpoint compares: a digest of all images and labels; if they are read anew, a name alone."""
        if self.tensors is None:
            return f"{type(self.dataset).__qualname__}, read anew for each batch"
        return _fingerprint(*self.tensors)

    def _checked(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must have the shape {list(images.shape[:1])}, one class for each image, not"
                f" {list(labels.shape)}; of one-hot labels take labels.argmax(1), of a column labels.squeeze(1)"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise TypeError(
                f"labels must be whole numbers, the classes from 0, as torch.int64, not {labels.dtype}; labels.long()"
                " makes them so"
            )
        if int(labels.min()) < 0:
            raise ValueError(f"labels must be the classes, from 0, but one of them is {int(labels.min())}")
        self.last_class = max(self.last_class, int(labels.max()))
        images, labels = images.to(self.device), labels.to(self.device, torch.int64)
        return (images.clone() if images.is_inference() else images), labels  # what is to be learned from is saved

    def fitting(self, log_probs: Tensor) -> Tensor:
        """`log_probs` `[B, n_classes]`, a model's answer, once the labels are found to be classes that it knows."""
        if log_probs.dim() != 2:
            raise ValueError(
                f"the model must give log-probabilities [batch, classes], not the shape {list(log_probs.shape)}"
            )
        if self.last_class >= log_probs.shape[1]:
            raise ValueError(
                f"labels must lie between 0 and {log_probs.shape[1] - 1}, the classes that the model tells apart, but"
                f" one of them is {self.last_class}"
            )
        return log_probs


def as_tensors(dataset: Dataset[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """A whole data set of (image, label) as two tensors on the device: one transfer, not one an image.

    The tensors of a plain `TensorDataset` are taken as they are; of any other data set each item is read once,
    by its own `__getitem__`. Raises `TypeError` or `ValueError` for what is no data set of (image, label).
    """
    n = count(dataset)
    images, labels = _tensors(dataset) or _collate(dataset, range(n))
    return images.to(device), labels.to(device)


def stored(dataset: Any) -> tuple[Tensor, Tensor]:
    """The images and labels of a data set that is two tensors and no more; `TypeError` for another one.

    What takes some of the images, or changes them, would lose what a data set makes of them in its `__getitem__`.
    """
    count(dataset)
    found = _tensors(dataset)
    if found is None:
        raise TypeError(
            "dataset must be a TensorDataset of images and labels, its examples as stored, not"
            f" {type(dataset).__name__}"
        )
    return found


def count(dataset: Any) -> int:
    """How many examples there are: 1 or more. Raises `TypeError` or `ValueError`, and says what is allowed."""
    wanted = "dataset must be a data set of (image, label) pairs, such as TensorDataset(images, labels)"
    if isinstance(dataset, DataLoader):
        raise TypeError(f"{wanted}, not a DataLoader: give its own data set, loader.dataset, and a batch_size")
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            f"{wanted}, not {type(dataset).__name__}, an IterableDataset: its items have no numbers, so they cannot be"
            " shuffled anew for each epoch; read them into two tensors first"
        )
    has_items = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not has_items or isinstance(dataset, (Tensor, str, bytes, Mapping)):
        raise TypeError(f"{wanted}, with a length and items by number, not {type(dataset).__name__}")
    if len(dataset) == 0:
        raise ValueError("the dataset is empty; it needs at least one (image, label)")
    return len(dataset)


def _tensors(dataset: Any) -> tuple[Tensor, Tensor] | None:
    """The images and labels of a data set that is two tensors and no more; None if its items are its own affair."""
    if type(dataset) is Subset:
        whole = _tensors(dataset.dataset)
        if whole is None:
            return None
        chosen = torch.as_tensor(list(dataset.indices), dtype=torch.int64, device="cpu")
        return whole[0][chosen.to(whole[0].device)], whole[1][chosen.to(whole[1].device)]
    kind = cast(Any, type(dataset))
    if not isinstance(dataset, TensorDataset) or kind.__getitem__ is not TensorDataset.__getitem__:
        return None
    if kind.__len__ is not TensorDataset.__len__:
        return None
    if len(dataset.tensors) != 2:
        raise TypeError(
            "dataset must hold two tensors, TensorDataset(images, labels), but this TensorDataset holds"
            f" {len(dataset.tensors)}"
        )
    images, labels = dataset.tensors
    return images, labels


def _collate(dataset: Any, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The items of these numbers as two tensors, each item by the data set's own `__getitem__`."""
    items = [_pair(dataset[number], number) for number in numbers]
    try:
        # A label that is a plain number becomes a tensor on the CPU, whatever the default device is.
        with torch.device("cpu"):
            images, labels = default_collate(items)
        if isinstance(images, Tensor) and isinstance(labels, Tensor):
            return images, labels
        why = f"images are {type(items[0][0]).__name__}, labels are {type(items[0][1]).__name__}"
    except (TypeError, RuntimeError) as error:
        why = str(error)
    raise TypeError(
        "the items of the data set must be (image, label): the image a tensor or NumPy array, of one shape in all"
        f" items, the label a whole number ({why}). Pictures become tensors by a transform such as torchvision's"
        " ToTensor()"
    )


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise TypeError(
            f"dataset[{number}] must be a pair (image, label), not {type(item).__name__}{size}. Of images and labels in"
            " two tensors make TensorDataset(images, labels)"
        )
    return item[0], item[1]


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
