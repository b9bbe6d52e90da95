"""`fit` and `evaluate`, held against a loop written by hand; checkpoints, against real kills."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from snn_helpers import MLP, Evaluation, History, SpikingNet, evaluate, fit, training
from snn_helpers.devices import pick_device
from snn_helpers.long import files
from snn_helpers.training import CheckpointError, TrainingDiverged, as_tensors, fit_adam

CPU = torch.device("cpu")
RATES = (0.3, 0.1, 0.05)


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def patterns(n: int = 26, seed: int = 0) -> TensorDataset:
    """Images of 4 by 4 in three classes: each class has its own pattern, under noise."""
    labels = torch.arange(n) % 3
    means = torch.rand(3, 1, 4, 4, generator=seeded(50)) - 0.5
    return TensorDataset(means[labels] + 0.2 * torch.randn(n, 1, 4, 4, generator=seeded(seed)), labels)


def spiking(seed: int = 0, **settings: Any) -> SpikingNet:
    return SpikingNet(5, sizes=(16, 12, 3), threshold=0.2, generator=seeded(seed), **settings)


def noisy_mlp(seed: int = 0) -> MLP:
    return MLP((16, 12, 3), flickering=True, dropout=0.3, generator=seeded(seed))


SETTINGS: dict[str, Any] = {"seed": 7, "learning_rates": RATES, "batch_size": 4, "progress": False, "device": "cpu"}
each_model = pytest.mark.parametrize("make", [spiking, noisy_mlp])


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- The schedule ---------------------------------------------------------------------------------


def train_by_hand(model: nn.Module, data: TensorDataset, **settings: Any) -> tuple[list[float], list[float]]:
    """The documented schedule: an order for each epoch, a fresh SGD, the flicker from one generator."""
    images, labels = data.tensors
    order, flicker = seeded(settings["seed"]), seeded(settings["seed"])
    losses, accuracies = [], []
    for rate in settings["learning_rates"]:
        sgd = torch.optim.SGD(
            model.parameters(), lr=rate, momentum=settings["momentum"], weight_decay=settings["weight_decay"]
        )
        shuffled = torch.randperm(len(labels), generator=order).tolist()
        while shuffled:
            chosen, shuffled = shuffled[: settings["batch_size"]], shuffled[settings["batch_size"] :]
            log_probs = model(images[chosen], generator=flicker)
            loss = -log_probs[range(len(chosen)), labels[chosen]].mean()
            losses.append(loss.item())
            accuracies.append(sum(p == q for p, q in zip(log_probs.argmax(1).tolist(), labels[chosen].tolist())))
            accuracies[-1] /= len(chosen)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return losses, accuracies


@each_model
@pytest.mark.parametrize("batch_size", [4, 13, 100])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.5, 0.0), (0.9, 0.01)])
def test_fit_equals_a_loop_by_hand(
    make: Callable[..., Any], batch_size: int, momentum: float, weight_decay: float
) -> None:
    """Within rounding, since the mean over a batch is taken in another way."""
    data = patterns()
    settings: dict[str, Any] = {
        "seed": 3,
        "learning_rates": RATES,
        "batch_size": batch_size,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    by_hand, by_fit = make().train(), make()
    losses, accuracies = train_by_hand(by_hand, data, **settings)
    history = fit(by_fit, data, device="cpu", progress=False, **settings)
    assert history.batches_per_epoch == math.ceil(26 / batch_size)
    assert len(history.loss) == len(history.accuracy) == 3 * history.batches_per_epoch
    assert history.loss == pytest.approx(losses, rel=1e-5)
    assert history.accuracy == pytest.approx(accuracies)
    for ours, theirs in zip(by_fit.parameters(), by_hand.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@each_model
def test_fit_equals_a_loop_by_hand_bit_for_bit(make: Callable[..., Any]) -> None:
    """With torch's own mean of the loss in the loop too, nothing may differ."""
    data = patterns()
    by_hand, by_fit = make().train(), make()
    images, labels = data.tensors
    order, flicker = seeded(7), seeded(7)
    losses = []
    for rate in RATES:
        sgd = torch.optim.SGD(by_hand.parameters(), lr=rate, momentum=0.5)
        for chosen in torch.randperm(26, generator=order).split(4):
            sgd.zero_grad()
            loss = F.nll_loss(by_hand(images[chosen], generator=flicker), labels[chosen])
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    assert fit(by_fit, data, **SETTINGS).loss == losses
    assert same_weights(by_fit, by_hand)


def test_the_defaults_are_the_articles_schedule() -> None:
    data = patterns(2300)
    settings = {"seed": 0, "learning_rates": (0.1, 0.05, 0.01), "batch_size": 1000, "momentum": 0.5, "weight_decay": 0}
    by_hand, by_fit = noisy_mlp().train(), noisy_mlp()
    losses, _ = train_by_hand(by_hand, data, **settings)
    history = fit(by_fit, data, device="cpu", progress=False)
    assert history.batches_per_epoch == 3
    assert history.loss == pytest.approx(losses, rel=1e-5)


def train_in_parts(model: nn.Module, data: TensorDataset, parts: int, batch_size: int) -> list[float]:
    """Each batch in parts, each with its own random numbers; one gradient: of the mean over the batch."""
    images, labels = data.tensors
    order, flicker = seeded(7), [seeded(7 + 1_000_003 * part) for part in range(parts)]
    losses = []
    for rate in RATES:
        sgd = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
        for chosen in torch.randperm(len(labels), generator=order).split(batch_size):
            # As even as can be, the first ones longer by one.
            sizes = [len(chosen) // parts + (part < len(chosen) % parts) for part in range(parts)]
            answers = [model(images[mine], generator=g) for mine, g in zip(chosen.split(sizes), flicker) if len(mine)]
            loss = -torch.cat(answers)[range(len(chosen)), labels[chosen]].mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    return losses


@each_model
@pytest.mark.parametrize(("parts", "batch_size"), [(2, 4), (3, 8), (4, 3), (5, 13)])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    make: Callable[..., Any], parts: int, batch_size: int, device: torch.device
) -> None:
    """Also where the parts differ in size, and where some of them are empty."""
    data = patterns()
    by_hand, by_fit = make().train(), make()
    losses = train_in_parts(by_hand, data, parts, batch_size)
    history = fit(by_fit, data, **SETTINGS | {"parts": parts, "batch_size": batch_size})
    assert history.loss == pytest.approx(losses, rel=1e-5)
    for ours, theirs in zip(by_fit.parameters(), by_hand.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    fit(make(), data, **SETTINGS | {"parts": parts, "batch_size": batch_size, "device": device})


def test_without_random_numbers_parts_change_nothing() -> None:
    models = [MLP((16, 12, 3), generator=seeded(0)) for _ in range(2)]
    whole, parted = (fit(model, patterns(), **SETTINGS | {"parts": parts}) for model, parts in zip(models, (1, 3)))
    assert parted.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parted.accuracy == pytest.approx(whole.accuracy)
    for one, other in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@each_model
def test_the_seed_decides(make: Callable[..., Any], device: torch.device) -> None:
    runs = [
        fit(make(), patterns(), **SETTINGS | {"device": device, "seed": seed, "learning_rates": (0.1,)}).loss
        for seed in (1, 1, 2)
    ]
    if device.type == "cpu":
        assert runs[0] == runs[1]
    assert runs[0] == pytest.approx(runs[1], rel=1e-3)
    assert runs[0] != pytest.approx(runs[2], rel=1e-3)


def test_global_random_numbers_are_neither_used_nor_drawn() -> None:
    model = noisy_mlp()
    before = torch.random.get_rng_state()
    first = fit(model, patterns(), **SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert fit(noisy_mlp(), patterns(), **SETTINGS).loss == first.loss


def test_training_learns(device: torch.device) -> None:
    data, unseen = patterns(300), patterns(99, seed=1)
    for make in (spiking, noisy_mlp):
        model = make()
        history = fit(model, data, test_dataset=unseen, **SETTINGS | {"device": device, "batch_size": 10})
        assert next(model.parameters()).device.type == device.type
        assert sum(history.loss[-10:]) < sum(history.loss[:10])
        assert [type(result) for result in history.test] == [Evaluation] * 3
        # Chance is 1/3; 99 images have a standard error below 0.05.
        assert history.test[-1].accuracy > 1 / 3 + 0.25
        assert history.test[-1] == evaluate(model, unseen)
        assert history.seconds > 0


def test_testing_does_not_change_the_training() -> None:
    with_tests, without = noisy_mlp(), noisy_mlp()
    history = fit(with_tests, patterns(), test_dataset=patterns(9, 1), **SETTINGS)
    assert fit(without, patterns(), **SETTINGS).loss == history.loss
    assert same_weights(with_tests, without)


# --- Data sets ------------------------------------------------------------------------------------


class Pairs(Dataset[tuple[Tensor, int]]):
    """A data set as many are: item by item, the label a plain number."""

    def __init__(self, n: int) -> None:
        self.images, self.labels = patterns(n).tensors

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def test_as_tensors_takes_any_dataset(device: torch.device) -> None:
    whole = patterns(12)
    picks = [7, 2, 9]
    for dataset, rows in (
        (whole, range(12)),
        (Pairs(12), range(12)),
        (Subset(whole, picks), picks),
        (Subset(Pairs(12), picks), picks),
    ):
        images, labels = as_tensors(dataset, device)
        assert images.device.type == labels.device.type == device.type
        assert labels.dtype == torch.int64
        assert torch.equal(images.cpu(), whole.tensors[0][list(rows)])
        assert torch.equal(labels.cpu(), whole.tensors[1][list(rows)])


def test_fit_and_evaluate_are_the_same_on_any_dataset() -> None:
    models = [noisy_mlp(), noisy_mlp(), noisy_mlp()]
    datasets = [patterns(12), Pairs(12), Subset(Pairs(12), range(12))]
    runs = [fit(model, dataset, **SETTINGS).loss for model, dataset in zip(models, datasets)]
    results = [evaluate(model, dataset) for model, dataset in zip(models, datasets)]
    assert runs[0] == runs[1] == runs[2]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("dataset", [TensorDataset(torch.zeros(0, 1, 4, 4), torch.zeros(0)), Subset(patterns(), [])])
def test_an_empty_dataset_is_refused(dataset: Any) -> None:
    for call in (lambda: fit(spiking(), dataset, **SETTINGS), lambda: evaluate(spiking(), dataset)):
        with pytest.raises(ValueError, match=r"empty.*at least one"):
            call()


# --- evaluate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 23, 1000])
def test_evaluate_equals_one_pass_over_everything(batch_size: int, device: torch.device) -> None:
    """The mean over examples, also where the last batch is smaller: not the mean over batches."""
    model = MLP((16, 12, 3), dropout=0.5, generator=seeded(0)).to(device).eval()
    images, labels = patterns(23).tensors
    log_probs = model(images.to(device)).detach().cpu().tolist()
    losses = [-row[label] for row, label in zip(log_probs, labels.tolist())]
    correct = [max(row) == row[label] for row, label in zip(log_probs, labels.tolist())]
    if batch_size == 7:  # or this test could not tell the two means apart
        batch_means = [sum(part) / len(part) for part in (losses[:7], losses[7:14], losses[14:21], losses[21:])]
        assert abs(sum(batch_means) / 4 - sum(losses) / 23) > 1e-3
    result = evaluate(model, TensorDataset(images, labels), batch_size=batch_size)
    assert result.loss == pytest.approx(sum(losses) / 23, rel=1e-5)
    assert result.accuracy == pytest.approx(sum(correct) / 23)
    assert 0 < sum(correct) < 23


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluate_leaves_the_model_as_it_was(was_training: bool, device: torch.device) -> None:
    model = noisy_mlp().to(device).train(was_training)
    before = copy.deepcopy(model)
    seen = []
    model.register_forward_pre_hook(lambda module, _: seen.append((module.training, torch.is_grad_enabled())))
    evaluate(model, patterns())
    assert seen == [(False, False)]
    assert model.training == was_training
    assert all(layer.training == was_training for layer in model.modules())
    assert same_weights(model, before)
    assert all(weights.grad is None for weights in model.parameters())


def test_evaluate_repeats_itself(device: torch.device) -> None:
    model = spiking().to(device)
    assert evaluate(model, patterns(), seed=3) == evaluate(model, patterns(), seed=3)
    assert evaluate(model, patterns(), seed=3) != evaluate(model, patterns(), seed=4)


# --- Refusals and divergence ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 0}, ["batch_size", "0", "1 or more"]),
        ({"checkpoint_every": 0}, ["checkpoint_every", "0", "1 or more"]),
        ({"parts": 0}, ["parts", "0", "1 or more"]),
        ({"learning_rates": ()}, ["learning_rates", "empty"]),
    ],
)
def test_fit_refuses(settings: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        fit(spiking(), patterns(), **SETTINGS | settings)
    for part in told:
        assert part in str(caught.value)


def test_pick_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == pick_device("auto") == pick_device("cpu") == pick_device(CPU) == CPU
    for asked in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"cuda.*no CUDA GPU.*'auto' or 'cpu'"):
            pick_device(asked)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


def test_a_loss_that_is_not_finite_stops_training(device: torch.device) -> None:
    images, labels = patterns().tensors
    images = images.clone()
    images[5] = math.nan
    model = spiking()
    with pytest.raises(TrainingDiverged) as caught:
        fit(model, TensorDataset(images, labels), **SETTINGS | {"device": device})
    place = next(i for i, batch in enumerate(torch.randperm(26, generator=seeded(7)).split(4)) if 5 in batch)
    for part in ("nan", "epoch 1", f"batch {place + 1}", "0.3", "smaller learning rate", "images"):
        assert part in str(caught.value)
    assert all(weights.isfinite().all() for weights in model.parameters())


@pytest.mark.parametrize("n", [4, 26])  # 4: a single batch, after which no loss would tell
def test_a_checkpoint_never_holds_broken_weights(n: int, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    images, labels = patterns(n).tensors
    data = TensorDataset(images * 1000, labels)
    with pytest.raises(TrainingDiverged, match="smaller learning rate"):
        fit(MLP((16, 12, 3)), data, checkpoint=path, checkpoint_every=1, **SETTINGS | {"learning_rates": (1e38,)})
    saved = torch.load(path, weights_only=True)
    assert all(weights.isfinite().all() for weights in saved["model"].values())
    assert all(math.isfinite(loss) for loss in saved["history"]["loss"])


# --- Contexts of torch ------------------------------------------------------------------------------


def train_with_adam(model: nn.Module, data: TensorDataset) -> list[float]:
    return fit_adam(model, data, seed=3, learning_rate=0.01, epochs=3, batch_size=4, device="cpu")


@each_model
def test_a_default_device_changes_nothing(make: Callable[..., Any], tmp_path: Path) -> None:
    """A tensor that was made without a device is in the wrong place, as on a GPU; on "meta" it has no values."""
    data, unseen, items = patterns(), patterns(9, 1), Pairs(26)
    settings = SETTINGS | {"test_dataset": unseen, "parts": 3}
    plain, kept, read, resumed, *by_adam = (make(seed) for seed in (0, 0, 0, 100, 0, 0))
    wanted, by_hand = fit(plain, data, **settings), train_with_adam(by_adam[0], data)
    result = evaluate(plain, unseen)
    path = tmp_path / "run.pt"
    with torch.device("meta"):
        assert without_seconds(fit(kept, data, checkpoint=path, **settings)) == without_seconds(wanted)
        assert without_seconds(fit(resumed, data, checkpoint=path, **settings)) == without_seconds(wanted)
        assert fit(read, items, **settings).loss == wanted.loss
        assert evaluate(kept, unseen) == result
        assert evaluate(kept, Subset(items, range(9))) == evaluate(kept, Subset(data, range(9)))
        assert train_with_adam(by_adam[1], data) == by_hand
        images, labels = as_tensors(items, CPU)
        assert images.device == labels.device == CPU
    assert same_weights(plain, kept) and same_weights(plain, resumed) and same_weights(plain, read)
    assert same_weights(*by_adam)


def half(model: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """One answer under an autocast of its own, as torch's documentation has it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs: Tensor = model(images, generator=generator)
    assert log_probs.dtype == torch.bfloat16
    return log_probs.float()


@pytest.mark.parametrize("tested", [False, True])
def test_under_autocast_fit_equals_a_loop_by_hand(tested: bool) -> None:
    """Each step must go on with the weights of the step before, not with those that autocast has kept."""
    images, labels = patterns().tensors
    by_hand, by_fit = noisy_mlp().train(), noisy_mlp()
    order, flicker, losses = seeded(7), seeded(7), []
    for rate in RATES:
        sgd = torch.optim.SGD(by_hand.parameters(), lr=rate, momentum=0.5)
        for chosen in torch.randperm(26, generator=order).split(4):
            sgd.zero_grad()
            loss = F.nll_loss(half(by_hand, images[chosen], flicker), labels[chosen])
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    more = {"test_dataset": patterns(9, 1)} if tested else {}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        history = fit(by_fit, patterns(), **SETTINGS, **more)
        # Of the weights as they are after the last step.
        answers = by_fit.eval()(images, generator=seeded(1))
    assert history.loss == pytest.approx(losses, rel=1e-5)
    for ours, theirs in zip(by_fit.parameters(), by_hand.parameters()):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert torch.equal(answers.float(), half(by_fit, images, seeded(1)))
    # bfloat16 has 8 bits: losses that are multiples of its steps would be few.
    assert any(torch.tensor(loss).bfloat16().item() != loss for loss in history.loss)


def test_under_autocast_evaluate_and_fit_adam_equal_loops_by_hand() -> None:
    images, labels = patterns().tensors
    by_hand, by_adam = noisy_mlp().train(), noisy_mlp()
    generator, losses = seeded(3), []
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 0.01, total_steps=21)
    for _ in range(3):
        for chosen in torch.randperm(26, generator=generator).split(4):
            adam.zero_grad()
            loss = F.nll_loss(half(by_hand, images[chosen], generator), labels[chosen])
            loss.backward()
            adam.step()
            schedule.step()
            losses.append(loss.item())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert train_with_adam(by_adam, patterns()) == pytest.approx(losses, rel=1e-4)
        result = evaluate(by_adam, patterns())
        with torch.no_grad():
            for weights in by_adam.parameters():
                weights.mul_(-1)
        turned = evaluate(by_adam, patterns())
    for found in (turned, result):
        log_probs = half(by_adam.eval(), images, seeded(0))
        assert found.loss == pytest.approx(F.nll_loss(log_probs, labels).item(), rel=1e-5)
        assert found.accuracy == (log_probs.argmax(1) == labels).double().mean().item()
        with torch.no_grad():
            for weights in by_adam.parameters():
                weights.mul_(-1)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_log_probabilities_are_float32_at_least(dtype: torch.dtype, wanted: torch.dtype) -> None:
    model, images = MLP((16, 12, 3)).to(dtype), patterns().tensors[0].to(dtype)
    answers = training.answer(model, images, seeded(0))
    assert answers.dtype == wanted
    assert torch.equal(answers, model(images).to(wanted))


# --- Progress -------------------------------------------------------------------------------------


def test_progress_goes_to_standard_output_only(capfd: pytest.CaptureFixture[str]) -> None:
    fit(spiking(), patterns(), **SETTINGS | {"progress": True})
    out, err = capfd.readouterr()
    assert err == ""
    assert "21/21" in out and "loss=" in out and "epoch=3" in out
    fit(spiking(), patterns(), **SETTINGS)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As in a notebook; the list gets each text that the cell's output shows, with the output's number."""
    shown: list[str] = []
    n_outputs = 0

    class Handle:
        def __init__(self, number: int) -> None:
            self.number = number

        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(f"{self.number}: {data['text/plain']}")

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        nonlocal n_outputs
        n_outputs += 1
        handle = Handle(n_outputs)
        handle.update(data, raw)
        return handle

    class Shell:
        kernel = None

    monkeypatch.setattr("IPython.core.getipython.get_ipython", Shell)
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_progress_in_a_notebook_is_one_output(notebook: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    fit(spiking(), patterns(), **SETTINGS | {"progress": True})
    assert capfd.readouterr() == ("", "")
    assert {text.split(":")[0] for text in notebook} == {"1"}
    assert "21/21" in notebook[-1]


def test_progress_after_an_interrupted_cell(notebook: list[str]) -> None:
    """The interrupted cell's traceback keeps its bar alive, which must not disturb the next one."""
    model = spiking()
    calls = iter(range(3))

    def interrupt(*_: Any) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model, patterns(), **SETTINGS | {"progress": True})
    notebook.clear()
    fit(spiking(), patterns(), **SETTINGS | {"progress": True})
    assert caught.tb is not None
    assert not [text for text in notebook if "\x1b" in text or ("it" not in text and "batch" not in text)]
    assert "21/21" in notebook[-1]


# --- Checkpoints ----------------------------------------------------------------------------------


def without_seconds(history: History) -> tuple[Any, ...]:
    return history.batches_per_epoch, history.loss, history.accuracy, history.test


class PowerCut(Exception):
    pass


def cut_after(model: nn.Module, n_calls: int) -> nn.Module:
    """The model, whose `n_calls`-th call from 0 fails."""
    calls = iter(range(n_calls))

    def cut(*_: Any) -> None:
        if next(calls, None) is None:
            raise PowerCut

    model.register_forward_pre_hook(cut)
    return model


@each_model
def test_a_checkpoint_changes_nothing(make: Callable[..., Any], tmp_path: Path) -> None:
    plain, kept = make(), make()
    history = fit(plain, patterns(), **SETTINGS)
    kept_history = fit(kept, patterns(), checkpoint=tmp_path / "run.pt", checkpoint_every=3, **SETTINGS)
    assert without_seconds(history) == without_seconds(kept_history)
    assert same_weights(plain, kept)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_another_test_set_of_the_same_size_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    fit(spiking(), patterns(), checkpoint=path, test_dataset=patterns(9, 1), **SETTINGS)
    with pytest.raises(CheckpointError, match=r"another run .test data"):
        fit(spiking(), patterns(), checkpoint=path, test_dataset=patterns(9, 2), **SETTINGS)


def test_a_checkpoint_from_before_its_latest_entries_is_refused_in_words(half_way: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    saved = torch.load(io.BytesIO(half_way), weights_only=True)
    del saved["run"]["parts"]
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=r"another run .parts: None there, 1 here"):
        fit(spiking(), patterns(), checkpoint=path, **SETTINGS)


def test_it_says_in_words_that_it_goes_on(half_way: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(half_way)
    # Cut in the fourth batch of the second epoch, after the last write two batches into it: 7 + 2.
    for told in ("holds 9 of 21 batches: training goes on", "the whole training, 21 batches: there is nothing left"):
        fit(spiking(), patterns(), checkpoint=path, **SETTINGS | {"progress": True})
        captured = capsys.readouterr()
        assert str(path) in captured.out and told in captured.out and captured.err == ""
    fit(spiking(), patterns(), checkpoint=path, **SETTINGS)
    fit(spiking(), patterns(), checkpoint=tmp_path / "new.pt", **SETTINGS | {"progress": True})
    assert "batches:" not in capsys.readouterr().out, "nothing is said where nothing is taken up"


@each_model
def test_resuming_in_parts_ends_the_same(make: Callable[..., Any], tmp_path: Path) -> None:
    settings = SETTINGS | {"parts": 3, "checkpoint_every": 2}
    whole = make()
    history = fit(whole, patterns(), **settings)
    for n_calls in (0, 1, 8, 40):  # three calls a batch
        path = tmp_path / f"{n_calls}.pt"
        with pytest.raises(PowerCut):
            fit(cut_after(make(), n_calls), patterns(), checkpoint=path, **settings)
        resumed = make(seed=100)
        assert fit(resumed, patterns(), checkpoint=path, **settings).loss == history.loss
        assert same_weights(resumed, whole)


@each_model
@pytest.mark.parametrize("checkpoint_every", [1, 3, 1000])
def test_resuming_after_any_batch_ends_the_same(
    make: Callable[..., Any], checkpoint_every: int, tmp_path: Path, device: torch.device
) -> None:
    """On the CPU bit for bit; elsewhere within rounding. The resumed model starts from other weights."""
    settings = SETTINGS | {"device": device, "test_dataset": patterns(9, 1), "checkpoint_every": checkpoint_every}
    whole = make()
    history = fit(whole, patterns(), **settings)
    for n_calls in range(0, 24, 1 if checkpoint_every == 3 else 5):
        path = tmp_path / f"{n_calls}.pt"
        with pytest.raises(PowerCut):
            fit(cut_after(make(), n_calls), patterns(), checkpoint=path, **settings)
        resumed = make(seed=100)
        resumed_history = fit(resumed, patterns(), checkpoint=path, **settings)
        if device.type == "cpu":
            assert without_seconds(resumed_history) == without_seconds(history)
            assert same_weights(resumed, whole)
        assert resumed_history.loss == pytest.approx(history.loss, rel=1e-3)


def test_a_finished_checkpoint_returns_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    first = spiking()
    history = fit(first, patterns(), checkpoint=path, test_dataset=patterns(9, 1), **SETTINGS)
    before = path.read_bytes()
    again = cut_after(spiking(seed=100), 0)  # fails if it is called at all
    again_history = fit(again, patterns(), checkpoint=str(path), test_dataset=patterns(9, 1), **SETTINGS)
    assert without_seconds(again_history) == without_seconds(history)
    assert again_history.seconds >= torch.load(path, weights_only=True)["history"]["seconds"] > 0
    assert same_weights(first, again)
    assert path.read_bytes() == before


def test_time_adds_up_over_interruptions(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(PowerCut):
        fit(cut_after(spiking(), 9), patterns(), checkpoint=path, checkpoint_every=1, **SETTINGS)
    saved = torch.load(path, weights_only=True)
    saved["history"]["seconds"] = 1000.0
    torch.save(saved, path)
    assert 1000 < fit(spiking(), patterns(), checkpoint=path, **SETTINGS).seconds < 1500


def test_a_checkpoint_loads_without_running_code(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    model = noisy_mlp()
    fit(model, patterns(), checkpoint=path, test_dataset=patterns(9, 1), **SETTINGS)
    saved = torch.load(path, weights_only=True)
    for name, weights in model.state_dict().items():
        assert torch.equal(saved["model"][name], weights)
    assert set(map(type, saved["history"]["loss"])) == {float}


@pytest.fixture(scope="module")
def half_way(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a good checkpoint of a run that was cut."""
    path = tmp_path_factory.mktemp("half_way") / "run.pt"
    with pytest.raises(PowerCut):
        fit(cut_after(spiking(), 10), patterns(), checkpoint=path, checkpoint_every=2, **SETTINGS)
    return path.read_bytes()


def torch_file(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Evil:
    """Unpickled, it would run code."""

    def __reduce__(self) -> Any:
        return print, ("this must never run",)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "cut in half": lambda good: good[: len(good) // 2],
    "last byte lost": lambda good: good[:-1],
    "zeros": lambda good: bytes(len(good)),
    "text": lambda good: b"weights: none\n",
    "another torch file": lambda good: torch_file({"weights": torch.zeros(3)}),
    "a bare tensor": lambda good: torch_file(torch.zeros(3)),
    "a model's weights": lambda good: torch_file(spiking().state_dict()),
    "code": lambda good: torch_file({"run": Evil()}),
}


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of asking a bare tensor for a name
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_refused(
    damage: str, half_way: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.pt"
    bad = DAMAGES[damage](half_way)
    path.write_bytes(bad)
    model = spiking(seed=100)
    before = copy.deepcopy(model)
    with pytest.raises(CheckpointError) as caught:
        fit(model, patterns(), checkpoint=path, **SETTINGS)
    assert str(path) in str(caught.value) and "Move the file away" in str(caught.value)
    assert path.read_bytes() == bad
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]
    assert same_weights(model, before)
    assert "must never run" not in capsys.readouterr().out


def test_a_changed_byte_is_never_taken_for_training(half_way: bytes, tmp_path: Path) -> None:
    """Wherever a byte is flipped, the file is refused, or the byte did not matter and the run ends as ever."""
    whole = spiking()
    fit(whole, patterns(), **SETTINGS)
    path = tmp_path / "run.pt"
    refused = 0
    places = range(0, len(half_way), len(half_way) // 40)
    for place in places:
        bad = bytearray(half_way)
        bad[place] ^= 0x55
        path.write_bytes(bad)
        resumed = spiking(seed=100)
        try:
            fit(resumed, patterns(), checkpoint=path, **SETTINGS)
        except CheckpointError:
            refused += 1
            assert path.read_bytes() == bad
        else:
            assert same_weights(resumed, whole)
    assert refused > len(places) / 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seed": 8}, ["seed: 7 there, 8 here"]),
        ({"batch_size": 5}, ["batch_size: 4 there, 5 here"]),
        ({"learning_rates": (0.3, 0.1)}, ["learning_rates: [0.3, 0.1, 0.05] there, [0.3, 0.1] here"]),
        ({"momentum": 0.9}, ["momentum: 0.5 there, 0.9 here"]),
        ({"weight_decay": 0.01, "seed": 1}, ["weight_decay: 0.0 there, 0.01 here", "seed: 7 there, 1 here"]),
        ({"dataset": patterns(25)}, ["n_examples: 26 there, 25 here"]),
        ({"dataset": patterns(26, seed=1)}, ["training data"]),
        ({"dataset": TensorDataset(patterns().tensors[0], 2 - patterns().tensors[1])}, ["training data"]),
        ({"parts": 2}, ["parts: 1 there, 2 here"]),
        ({"test_dataset": patterns(9)}, ["tested after each epoch: False there, True here"]),
        ({"model": SpikingNet(5, sizes=(16, 11, 3), threshold=0.2)}, ["shapes", "[12, 16]", "[11, 16]"]),
        ({"model": SpikingNet(6, sizes=(16, 12, 3), threshold=0.2)}, ["network", "n_steps=5", "n_steps=6"]),
        ({"model": spiking(begin_eval=2)}, ["network", "begin_eval=0", "begin_eval=2"]),
        ({"model": spiking(reset="zero")}, ["network", "reset='scale'", "reset='zero'"]),
        ({"model": noisy_mlp()}, ["network", "dropout=0.3"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_runs_checkpoint_is_refused(
    settings: dict[str, Any], told: list[str], half_way: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(half_way)
    call = {"model": spiking(), "dataset": patterns(), "checkpoint": path, **SETTINGS} | settings
    before = copy.deepcopy(call["model"])
    with pytest.raises(CheckpointError) as caught:
        fit(**call)
    for part in (str(path), "another run", "Move the file away", *told):
        assert part in str(caught.value)
    assert path.read_bytes() == half_way
    assert same_weights(call["model"], before)


def test_another_devices_checkpoint_is_refused(half_way: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    saved = torch.load(io.BytesIO(half_way), weights_only=True)
    saved["run"]["device"] = "cuda"
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match="device: cuda there, cpu here"):
        fit(spiking(), patterns(), checkpoint=path, **SETTINGS)


@pytest.mark.parametrize("place", ["missing/run.pt", "file/run.pt"])
def test_an_unwritable_place_is_told_before_any_training(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    model = cut_after(spiking(), 0)  # fails if it is called at all
    with pytest.raises(OSError, match=r"run\.pt cannot be written .* name a file in an existing folder"):
        fit(model, patterns(), checkpoint=tmp_path / place, **SETTINGS)
    assert same_weights(model, spiking())


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(PermissionError, match=r"run\.pt cannot be written .Permission denied.* name a file"):
        fit(cut_after(spiking(), 0), patterns(), checkpoint=tmp_path / "run.pt", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def no_file_beyond(n_bytes: int) -> Iterator[None]:
    """The kernel itself refuses what would make a file longer, in the midst of writing it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_the_system_cuts_short(half_way: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with no_file_beyond(len(half_way) // 2), pytest.raises(OSError, match=r"cannot be written .*Make room") as caught:
        fit(cut_after(spiking(), 0), patterns(), checkpoint=path, **SETTINGS)
    assert "goes on from there" not in str(caught.value), "there is nothing yet to go on from"
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(half_way)
    with no_file_beyond(len(half_way) // 2), pytest.raises(OSError, match=r"run\.pt still holds .* goes on from there"):
        fit(spiking(), patterns(), checkpoint=path, **SETTINGS)
    assert path.read_bytes() == half_way
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]
    whole, resumed = spiking(), spiking(seed=100)
    fit(whole, patterns(), **SETTINGS)
    fit(resumed, patterns(), checkpoint=path, **SETTINGS)
    assert same_weights(resumed, whole)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    whole = spiking()
    history = fit(whole, patterns(), **SETTINGS)
    calls = iter(range(4))

    def full(_: int) -> None:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            fit(spiking(), patterns(), checkpoint=path, checkpoint_every=2, **SETTINGS)
    resumed = spiking(seed=100)
    assert fit(resumed, patterns(), checkpoint=path, checkpoint_every=2, **SETTINGS).loss == history.loss
    assert same_weights(resumed, whole)


# --- Real kills -----------------------------------------------------------------------------------

# Each moment is a process of its own that kills itself, without a chance to tidy up; the same file is
# then trained on, killed again if told so, to the end. All fork from one clean parent, since
# importing torch takes longer than all of their work.
KILLER = """
import builtins, os, signal, sys
from pathlib import Path
import torch
import torch._dynamo  # an optimiser imports it, for two seconds: here once, and not in each fork
import test_training
from snn_helpers import fit
from snn_helpers.long import files

torch.set_num_threads(1)
folder = Path(sys.argv[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def countdown(n):
    calls = iter(range(n))
    return lambda: next(calls, None) is None


def arm(model, moment, n):
    due = countdown(n)
    if moment == "forward":
        model.register_forward_pre_hook(lambda *_: die() if due() else None)
    elif moment == "backward":
        next(model.parameters()).register_hook(lambda _: die() if due() else None)
    elif moment == "testing":
        model.register_forward_pre_hook(lambda module, _: die() if not module.training and due() else None)
    elif moment == "before replace" or moment == "after replace":
        replace = os.replace

        def dying(*arguments):
            last = due()
            if moment == "after replace" or not last:
                replace(*arguments)
            if last:
                die()

        files.os.replace = dying
    elif moment == "half written":
        class Half:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, content):
                if due():
                    self.file.write(content[: len(content) // 2])
                    self.file.flush()
                    die()
                return self.file.write(content)

        files.open = lambda *arguments: Half(builtins.open(*arguments))


def train(make, path, moment=None, n=0):
    model = make(seed=0)
    if moment:
        arm(model, moment, n)
    history = fit(
        model, test_training.patterns(), checkpoint=path, checkpoint_every=3,
        test_dataset=test_training.patterns(9, 1), **test_training.SETTINGS,
    )
    history.seconds = 0.0
    return {"weights": model.state_dict(), "history": repr(history)}


def in_a_fork(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def run_to_the_end(make, name, kills):
    path = folder / f"{name}.pt"
    for moment, n in kills:
        status = in_a_fork(lambda: train(make, path, moment, n))
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, moment, n, status)
    checkpoint = path if kills else None
    assert in_a_fork(lambda: torch.save(train(make, checkpoint), folder / f"{name}.result")) == 0
    assert not list(folder.glob("*.partial")), name


for model in ("spiking", "noisy_mlp"):
    make = getattr(test_training, model)
    run_to_the_end(make, model, [])
    for number, kills in enumerate(test_training.KILLS):
        run_to_the_end(make, f"{model}-{number}", kills)
"""

# Where to die: which moment, and after how many others of its kind. Each run has 21 batches in
# three epochs, 24 calls with the tests, and writes 10 times.
KILLS: list[list[tuple[str, int]]] = [
    [("forward", 0)],
    [("forward", 1)],
    [("forward", 6)],
    [("forward", 8)],
    [("forward", 22)],
    [("backward", 12)],
    [("testing", 0)],
    [("testing", 2)],
    [("before replace", 0)],
    [("before replace", 4)],
    [("before replace", 9)],
    [("after replace", 0)],
    [("after replace", 5)],
    [("after replace", 9)],
    [("half written", 0)],
    [("half written", 6)],
    [("forward", 4), ("half written", 1), ("forward", 5), ("before replace", 1), ("testing", 0)],
]


@pytest.fixture(scope="module")
def killed(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    return once("killed runs", run_and_kill)


def run_and_kill(folder: Path) -> None:
    script = folder / "killer.py"
    script.write_text(KILLER)
    # The tests that it imports, and the helpers of this checkout.
    here = Path(__file__).parent
    environment = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("number", range(len(KILLS)), ids=lambda n: ", ".join(f"{m} {i}" for m, i in KILLS[n]))
@pytest.mark.parametrize("model", ["spiking", "noisy_mlp"])
def test_killed_runs_end_where_an_uninterrupted_one_ends(model: str, number: int, killed: Path) -> None:
    whole = torch.load(killed / f"{model}.result", weights_only=True)
    resumed = torch.load(killed / f"{model}-{number}.result", weights_only=True)
    assert resumed["history"] == whole["history"]
    for name, weights in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], weights)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_training_goes_on_where_gradients_are_off(off: Any) -> None:
    images, labels = torch.rand(6, 8), torch.randint(0, 3, (6,))
    found = []
    for way in (torch.enable_grad, off):
        model = MLP((8, 4, 3), generator=torch.Generator().manual_seed(0))
        with way():
            data = TensorDataset(images.clone(), labels.clone())
            fit(model, data, device="cpu", batch_size=3, learning_rates=[0.5], progress=False)
            fit_adam(model, data, seed=0, learning_rate=0.01, epochs=1, device="cpu")
        found.append([part.detach().clone() for part in model.parameters()])
    for one, other in zip(*found):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", ["fit", "fit_adam", "evaluate"])
def test_a_label_beyond_the_classes_is_refused_in_words(way: str) -> None:
    model, data = MLP((8, 4, 3)), TensorDataset(torch.rand(5, 8), torch.tensor([0, 1, 2, 3, 0]))
    with pytest.raises(ValueError, match="labels must lie between 0 and 2, the classes that the model tells apart"):
        if way == "fit":
            fit(model, data, device="cpu", progress=False)
        elif way == "fit_adam":
            fit_adam(model, data, seed=0, learning_rate=0.1, device="cpu")
        else:
            evaluate(model, data)
