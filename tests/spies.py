"""What the tests of protocols share: data that say which examples they are, and spies that note what is passed on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers.training import Evaluation, History

N_TRAIN, N_TEST = 60_000, 10_000
TEST_NUMBERS = range(N_TRAIN, N_TRAIN + N_TEST)


def numbered() -> tuple[TensorDataset, TensorDataset]:
    """As many examples as MNIST has, in next to no memory: each pixel of example i says i, the test set from 60,000."""
    numbers = torch.arange(N_TRAIN + N_TEST)
    images = (numbers / len(numbers) - 0.5)[:, None, None, None].expand(-1, 1, 28, 28)
    labels = numbers % 10
    return TensorDataset(images[:N_TRAIN], labels[:N_TRAIN]), TensorDataset(images[N_TRAIN:], labels[N_TRAIN:])


def numbers_of(shown: TensorDataset | Tensor) -> list[int]:
    """Which of the `numbered` examples these are."""
    images = shown.tensors[0] if isinstance(shown, TensorDataset) else shown
    first_pixels = images.reshape(len(images), -1)[:, 0].double()
    return [round(number) for number in ((first_pixels + 0.5) * (N_TRAIN + N_TEST)).tolist()]


def are(shown: TensorDataset | Tensor, wanted: range) -> bool:
    """Whether these are just the examples with these numbers, in their order."""
    return numbers_of(shown) == list(wanted)


def one_class(label: int, n: int = 40) -> TensorDataset:
    """Digits of one class alone: a bright bar at the class's own place, and noise."""
    images = 0.2 * torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(label))
    images[:, :, 2 * label + 3 : 2 * label + 5] = 1.0
    return TensorDataset(images - 0.5, torch.full((n,), label))


def several(n: int, classes: int = 10, seed: int = 0) -> TensorDataset:
    """Digits of several classes that are easily told apart, as in `one_class`."""
    labels = torch.arange(n) % classes
    images = 0.2 * torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist()):
        image[:, 2 * label + 3 : 2 * label + 5] = 1.0
    return TensorDataset(images - 0.5, labels)


def shuffled(dataset: TensorDataset, seed: int = 0) -> TensorDataset:
    """The same images with each other's labels."""
    images, labels = dataset.tensors
    return TensorDataset(images, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))])


Calls = list[dict[str, Any]]


def spy(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, answer: Callable[[dict[str, Any]], Any] | None
) -> Calls:
    """Notes, for each call of `module.name`, all of its arguments by name, defaults too.

    `answer` is called with them in its place; None lets the function itself answer.
    """
    original, calls = getattr(module, name), []
    signature = inspect.signature(original)

    def noted(*args: Any, **settings: Any) -> Any:
        bound = signature.bind(*args, **settings)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name)
        calls.append(given)
        return original(*args, **settings) if answer is None else answer(given)

    monkeypatch.setattr(module, name, noted)
    return calls


def a_history(given: dict[str, Any]) -> History:
    """What `fit` could have answered: two batches an epoch, and losses that tell each batch from all others."""
    n_batches = 2 * len(given["learning_rates"])
    return History(2, [float(2**k) for k in range(n_batches)], [0.5] * n_batches, seconds=1.0)


def an_evaluation(given: dict[str, Any]) -> Evaluation:
    """What `evaluate` could have answered."""
    return Evaluation(0.25, 1.5)
