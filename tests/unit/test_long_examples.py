"""Data sets of all kinds: whose `__getitem__` is called, when, and what is refused in which words."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_training import CPU, SETTINGS, PowerCut, cut_after, noisy_mlp, patterns, same_weights, seeded, spiking
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from snn_helpers import evaluate, fit
from snn_helpers.data import Digits
from snn_helpers.long.examples import Examples
from snn_helpers.training import CheckpointError, as_tensors, fit_adam

ADAM: dict[str, Any] = {"seed": 3, "learning_rate": 0.01, "epochs": 2, "batch_size": 4, "device": "cpu"}


class Changing(TensorDataset):
    """A descendant that changes its images, and counts which ones were asked for."""

    def __init__(self, change: Callable[[Tensor], Tensor], n: int = 26) -> None:
        super().__init__(*patterns(n).tensors)
        self.change = change
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.asked.append(index)
        image, label = super().__getitem__(index)
        return self.change(image), label


def black(image: Tensor) -> Tensor:
    return torch.zeros_like(image)


def jitter(image: Tensor) -> Tensor:
    """Augmentation as transforms do it: by torch's global random numbers."""
    return image + 0.5 * torch.rand(image.shape)


def seen_by(model: nn.Module) -> list[Tensor]:
    """Gets each batch of images that the model is given."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    return seen


# --- A __getitem__ of one's own -------------------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [
        lambda model, data: fit(model, data, **SETTINGS),
        lambda model, data: fit_adam(model, data, **ADAM),
        evaluate,
        lambda model, data: fit(model, patterns(), test_dataset=data, **SETTINGS | {"learning_rates": [0.0]}),
    ],
    ids=["fit", "fit_adam", "evaluate", "a test"],
)
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(26))], ids=["itself", "subset"])
def test_a_descendants_own_images_are_what_the_model_gets(run: Callable[..., Any], wrap: Callable[..., Any]) -> None:
    model = noisy_mlp().eval()
    seen = seen_by(model)
    run(model, wrap(Changing(black)))
    assert any((images == 0).all() for images in seen)
    assert all((images == 0).all() or not model.training for images in seen[-1:])


def test_as_tensors_reads_each_item_once() -> None:
    data = Changing(black)
    images, labels = as_tensors(data, CPU)
    assert images.shape == (26, 1, 4, 4) and images.abs().max() == 0
    assert torch.equal(labels, data.tensors[1])
    assert data.asked == list(range(26))


def test_fit_on_changed_images_is_fit_on_images_changed_before() -> None:
    """Where nothing is drawn, the two ways must agree to the bit, each epoch reading each item once."""
    reading, before = Changing(lambda image: 1 - image), patterns()
    models = [spiking(), spiking()]
    history = fit(models[0], reading, **SETTINGS)
    wanted = fit(models[1], TensorDataset(1 - before.tensors[0], before.tensors[1]), **SETTINGS)
    assert history.loss == wanted.loss and same_weights(*models)
    order = seeded(7)
    shuffled = [torch.randperm(26, generator=order).tolist() for _ in range(3)]
    # One look at the first item before anything is trained.
    assert reading.asked == [0, *(index for epoch in shuffled for index in epoch)]


def test_augmentation_draws_anew_in_each_epoch() -> None:
    model = noisy_mlp()
    seen = seen_by(model)
    fit(model, Changing(jitter), **SETTINGS)
    order = seeded(7)
    for_item: dict[int, list[Tensor]] = {index: [] for index in range(26)}
    for epoch in range(3):
        images = torch.cat(seen[epoch * 7 : (epoch + 1) * 7])
        for index, image in zip(torch.randperm(26, generator=order).tolist(), images):
            for_item[index].append(image - patterns().tensors[0][index])
    assert len(for_item[0]) == 3
    draws = torch.stack([torch.stack(images) for images in for_item.values()])
    assert draws.min() > -1e-6 and draws.max() < 0.5 + 1e-6
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (draws[:, one] - draws[:, other]).abs().amax(dim=(1, 2, 3)).min() > 0.01
    # 1,248 independent uniform draws: the mean within five standard errors.
    assert abs(draws.mean().item() - 0.25) < 5 * 0.5 / (12 * draws.numel()) ** 0.5


@pytest.mark.parametrize("parts", [1, 3])
def test_the_seed_decides_what_augmentation_draws(parts: int) -> None:
    settings = SETTINGS | {"parts": parts}
    model = spiking()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    losses = fit(model, Changing(jitter), **settings).loss
    assert torch.equal(torch.random.get_rng_state(), before), "the global random numbers go on as if nothing had been"
    torch.manual_seed(6)
    assert fit(spiking(), Changing(jitter), **settings).loss == losses
    assert fit(spiking(), Changing(jitter), **settings | {"seed": 8}).loss != losses
    one, same, other = (Examples(Changing(jitter), CPU, seed).read(range(4), 5)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert evaluate(spiking(), Changing(jitter), seed=1) == evaluate(spiking(), Changing(jitter), seed=1)
    assert evaluate(spiking(), Changing(jitter), seed=1) != evaluate(spiking(), Changing(jitter), seed=2)


@pytest.mark.parametrize("n_calls", [0, 3, 9, 20])
def test_a_run_with_augmentation_is_continued_bit_for_bit(n_calls: int, tmp_path: Path) -> None:
    whole, resumed = spiking(), spiking(seed=100)
    history = fit(whole, Changing(jitter), **SETTINGS)
    saving = SETTINGS | {"checkpoint": tmp_path / "run.pt", "checkpoint_every": 2}
    with pytest.raises(PowerCut):
        fit(cut_after(spiking(), n_calls), Changing(jitter), **saving)
    assert fit(resumed, Changing(jitter), **saving).loss == history.loss
    assert same_weights(resumed, whole)


class Other(Changing):
    pass


def test_what_a_checkpoint_knows_of_a_data_set_that_is_read_anew(tmp_path: Path) -> None:
    """Its class and length, and no more, as the docstring says."""
    path = tmp_path / "run.pt"
    fit(spiking(), Changing(jitter), checkpoint=path, **SETTINGS)
    for data, told in (
        (Changing(jitter, 25), "n_examples: 26 there, 25 here"),
        (Other(jitter), "training data: Changing, read anew for each batch there, Other, read anew"),
        (patterns(), "training data: Changing, read anew for each batch there"),
    ):
        with pytest.raises(CheckpointError) as caught:
            fit(spiking(), data, checkpoint=path, **SETTINGS)
        assert told in str(caught.value)
    fit(spiking(), Changing(black), checkpoint=path, **SETTINGS)


# --- Plain data sets ------------------------------------------------------------------------------


class Longer(TensorDataset):
    """With a length of its own, the tensors are not the data set."""

    def __len__(self) -> int:
        return 2 * super().__len__()

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return super().__getitem__(index % super().__len__())


class Halved(TensorDataset):
    def __len__(self) -> int:
        return super().__len__() // 2


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: patterns(), True),
        (lambda: Digits(*patterns().tensors, "subset"), True),
        (lambda: Subset(patterns(), [3, 1, 2]), True),
        (lambda: Subset(Subset(patterns(), range(20)), [3, 1, 2]), True),
        (lambda: Changing(black), False),
        (lambda: Subset(Changing(black), [3, 1]), False),
        (lambda: ConcatDataset([patterns(), patterns()]), False),
        (lambda: Longer(*patterns().tensors), False),
        (lambda: Halved(*patterns().tensors), False),
    ],
)
def test_which_data_sets_are_moved_to_the_device_once(make: Callable[[], Any], plain: bool) -> None:
    """Each is read as item by item, whichever way is taken."""
    data = make()
    found = Examples(data, CPU)
    assert (found.tensors is not None) == plain and len(found) == len(data)
    numbers = list(range(len(data)))
    for chosen in (range(len(data)), torch.tensor(numbers[::-1])):
        images, labels = found.read(chosen, 0)
        for index, image, label in zip(chosen, images, labels, strict=True):
            wanted_image, wanted_label = make()[int(index)]
            assert torch.equal(image, wanted_image) and label == wanted_label
    for one, other in zip(as_tensors(data, CPU), found.read(range(len(data)), 0)):
        assert torch.equal(one, other)


class Numpy(Dataset[Any]):
    def __len__(self) -> int:
        return 26

    def __getitem__(self, index: int) -> Any:
        images, labels = patterns().tensors
        return images[index].numpy(), np.int64(labels[index])


def test_items_of_numpy_are_taken() -> None:
    models = [spiking(), spiking(), spiking()]
    images, labels = patterns().tensors
    pairs = [(image, int(label)) for image, label in zip(images, labels)]
    losses = [fit(model, data, **SETTINGS).loss for model, data in zip(models, (patterns(), Numpy(), pairs))]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_whole_dtype(dtype: torch.dtype) -> None:
    images, labels = patterns().tensors
    assert fit(spiking(), TensorDataset(images, labels.to(dtype)), **SETTINGS).loss == (
        fit(spiking(), patterns(), **SETTINGS).loss
    )


# --- Refusals -------------------------------------------------------------------------------------

IMAGES, LABELS = patterns().tensors


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(patterns())


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return IMAGES[index], 0


PICTURE = Image.new("L", (4, 4))
REFUSED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a loader": (lambda: DataLoader(patterns()), ["not a DataLoader", "loader.dataset", "batch_size"]),
    "a stream": (Stream, ["Stream, an IterableDataset", "cannot be shuffled", "two tensors"]),
    "no length": (Unsized, ["with a length", "Unsized"]),
    "a list of tensors": (lambda: [IMAGES, LABELS], ["dataset[0] must be a pair", "TensorDataset(images, labels)"]),
    "a pair of tensors": (lambda: (IMAGES, LABELS), ["dataset[0] must be a pair", "TensorDataset(images, labels)"]),
    "a pair of arrays": (lambda: (IMAGES.numpy(), LABELS.numpy()), ["must be a pair", "not ndarray"]),
    "a tensor": (lambda: IMAGES, ["TensorDataset(images, labels)", "not Tensor"]),
    "a dict": (lambda: {0: (IMAGES[0], 0)}, ["TensorDataset(images, labels)", "not dict"]),
    "nothing": (lambda: None, ["TensorDataset(images, labels)", "not NoneType"]),
    "images alone": (lambda: TensorDataset(IMAGES), ["two tensors", "holds 1"]),
    "images alone, item by item": (lambda: Items(*IMAGES), ["dataset[0] must be a pair", "not Tensor"]),
    "three tensors": (lambda: TensorDataset(IMAGES, LABELS, LABELS), ["two tensors", "holds 3"]),
    "three in an item": (lambda: Items((IMAGES[0], 0, 1.0)), ["dataset[0] must be a pair", "tuple of 3"]),
    "items by name": (lambda: Items({"image": IMAGES[0], "label": 0}), ["must be a pair", "not dict"]),
    "pictures": (lambda: Items((PICTURE, 0)), ["ToTensor", "tensor or NumPy array"]),
    "words for labels": (lambda: Items((IMAGES[0], "three")), ["label a whole number", "labels are str"]),
    "float labels": (lambda: TensorDataset(IMAGES, LABELS.float()), ["whole numbers", "torch.float32", ".long()"]),
    "float labels, item by item": (lambda: Items((IMAGES[0], 0.5)), ["whole numbers", "torch.float64"]),
    "bool labels": (lambda: TensorDataset(IMAGES, LABELS > 0), ["whole numbers", "torch.bool"]),
    "one-hot labels": (lambda: TensorDataset(IMAGES, F.one_hot(LABELS)), ["[26]", "[26, 3]", "argmax(1)"]),
    "labels in a column": (lambda: TensorDataset(IMAGES, LABELS[:, None]), ["[26]", "[26, 1]", "squeeze(1)"]),
    "labels from 1 down": (lambda: TensorDataset(IMAGES, LABELS - 1), ["from 0", "-1"]),
    "a label of -1, item by item": (lambda: Items((IMAGES[0], -1)), ["from 0", "-1"]),
}


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (where, name)
        for where in ("fit", "test_dataset", "fit_adam", "evaluate")
        for name in REFUSED
        if (where, name) != ("test_dataset", "nothing")  # which is allowed: no tests
    ],
)
def test_what_is_no_data_set_of_images_and_labels_is_refused_first(name: str, where: str, tmp_path: Path) -> None:
    make, told = REFUSED[name]
    model = cut_after(spiking(), 0)  # fails if it is called at all
    saving = SETTINGS | {"checkpoint": tmp_path / "run.pt"}
    with pytest.raises((TypeError, ValueError)) as caught:
        if where == "fit":
            fit(model, make(), **saving)
        elif where == "test_dataset":
            fit(model, patterns(), test_dataset=make(), **saving)
        elif where == "fit_adam":
            fit_adam(model, make(), **ADAM)
        else:
            evaluate(model, make())
    for part in told:
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert same_weights(model, spiking())


@pytest.mark.parametrize("name", [name for name in REFUSED if "label" not in name])
def test_as_tensors_refuses_in_the_same_words(name: str) -> None:
    make, told = REFUSED[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        as_tensors(make(), CPU)
    for part in told:
        assert part in str(caught.value)


def test_images_that_differ_in_shape_are_told(tmp_path: Path) -> None:
    uneven = Items((IMAGES[0], 0), (IMAGES[1, :, :3], 1))
    for call in (lambda: as_tensors(uneven, CPU), lambda: fit(spiking(), uneven, **SETTINGS)):
        with pytest.raises(TypeError, match="of one shape in all items"):
            call()


# --- Memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast", [False, True])
def test_nothing_is_kept_once_a_run_has_ended(autocast: bool, tmp_path: Path) -> None:
    model, data = noisy_mlp(), Changing(jitter)
    weights = next(model.parameters())
    kept = [weakref.ref(thing) for thing in (model, data, weights)]
    on = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with on:
        fit(model, data, checkpoint=tmp_path / "run.pt", test_dataset=data, **SETTINGS | {"progress": True})
        fit_adam(model, data, **ADAM)
        evaluate(model, data)
        del model, data, weights
        gc.collect()
        assert [thing() for thing in kept] == [None, None, None]
