"""Training and testing a network on digits; derived in chapter 03.

`fit` with its defaults is the article's schedule: three epochs of SGD with momentum 0.5 at the
learning rates 0.1, 0.05 and 0.01, a fresh optimiser for each epoch, batches of 1000.

Started by `torchrun`, in processes that have called `torch.distributed.init_process_group`, the
same `fit` shares each batch among them; `scaling_out` shows how.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, TensorDataset, default_collate
from tqdm import tqdm

from .devices import pick_device


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; the message says where, and what to try."""


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or belongs to another run; the file is left as it was."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a set of examples: `accuracy` in 0 to 1, `loss` the mean over examples."""

    accuracy: float
    loss: float


@dataclass
class History:
    """What happened in training.

    `loss` and `accuracy` have one entry for each batch, the mean over its examples, taken before
    that batch's update; `test` has one for each epoch, if `fit` was given a test set; `seconds`
    is the time spent, testing included, over all interruptions.
    """

    batches_per_epoch: int
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    test: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0


def as_tensors(dataset: Dataset[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """A whole data set of (image, label) as two tensors on the device: one transfer, not one an image."""
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise ValueError("the dataset is empty; it needs at least one (image, label)")
    if isinstance(dataset, TensorDataset):
        images, labels = dataset.tensors
    else:
        images, labels = default_collate([dataset[i] for i in range(len(dataset))])  # type: ignore[arg-type]
    return images.to(device), labels.to(device)


@torch.no_grad()
def evaluate(model: nn.Module, dataset: Dataset[Any], batch_size: int = 1000, seed: int = 0) -> Evaluation:
    """Accuracy and mean loss over a data set of (image, label), on the model's own device.

    `model(images, generator=...)` must give log-probabilities `[B, n_classes]`; the generator,
    from which the flicker comes, starts at `seed`.
    """
    device = next(model.parameters()).device
    images, labels = as_tensors(dataset, device)
    generator = _generator(device, seed)
    was_training = model.training
    model.eval()
    n_correct, summed_loss = 0, 0.0
    for image_batch, label_batch in zip(images.split(batch_size), labels.split(batch_size)):
        log_probs = model(image_batch, generator=generator)
        # Summed, then divided once by the number of examples: batches may differ in size.
        summed_loss += F.nll_loss(log_probs, label_batch, reduction="sum").item()
        n_correct += int((log_probs.argmax(dim=1) == label_batch).sum())
    model.train(was_training)
    return Evaluation(n_correct / len(labels), summed_loss / len(labels))


def fit(
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    test_dataset: Dataset[Any] | None = None,
    learning_rates: Sequence[float] = (0.1, 0.05, 0.01),
    momentum: float = 0.5,
    weight_decay: float = 0.0,
    batch_size: int = 1000,
    checkpoint_every: int = 20,
    parts: int = 1,
    progress: bool = True,
) -> History:
    """Train a network on (image, label) pairs; the defaults are the article's schedule.

    Parameters
    ----------
    model : maps `(images, generator=...)` to log-probabilities; moved to the device, changed in place.
    dataset : of (image, label); kept on the device as a whole.
    seed : decides the order of the examples and the flicker. The initial weights are the
        model's own: give its constructor a generator.
    device : `"auto"`, or a torch device.
    checkpoint : a file. Progress is written there, whole or not at all, at the start, every
        `checkpoint_every` batches and at the end. If the file exists, training goes on from it,
        and on the CPU ends bit for bit where an uninterrupted run ends. Of several processes the
        first one writes; all must see the file.
    test_dataset : evaluated after each epoch.
    learning_rates : one epoch of SGD for each, with a fresh optimiser.
    momentum, weight_decay : of SGD.
    parts : how many parts each batch is cut into. Each has its own random numbers, and their
        gradients are added up before the step: a part takes less memory than the batch. Processes
        of `torch.distributed` share the parts evenly, so their number must divide `parts`. How many
        processes there are does not matter for the result, but for rounding.
    progress : a progress bar, and a line that says so if the checkpoint held something.

    Raises
    ------
    TrainingDiverged : at the first batch whose loss is not finite, and instead of keeping weights that are not.
    CheckpointError : if the checkpoint is damaged or belongs to another run.
    OSError : if the checkpoint cannot be written; at the start, before any training is done.
    ValueError : for settings that do not fit.
    """
    if batch_size < 1 or checkpoint_every < 1 or parts < 1:
        raise ValueError(
            f"batch_size ({batch_size}), checkpoint_every ({checkpoint_every}) and parts ({parts}) must be 1 or more"
        )
    if len(learning_rates) == 0:
        raise ValueError("learning_rates must hold one rate for each epoch; it is empty")
    team = _Team(parts)
    device = pick_device(device)
    model.to(device)
    images, labels = as_tensors(dataset, device)
    batches_per_epoch = math.ceil(len(labels) / batch_size)
    history = History(batches_per_epoch)
    order_generator = torch.Generator().manual_seed(seed)
    noise_generators = [_generator(device, seed + PART_SEEDS * part) for part in range(parts)]
    path = None if checkpoint is None else Path(checkpoint)
    # What must be the same for a checkpoint to be continued.
    run = {
        # Of no class names, so that a subclass may take over.
        "network": "; ".join(filter(None, (module.extra_repr() for module in model.modules()))),
        "device": device.type,
        "seed": seed,
        "n_examples": len(labels),
        "batch_size": batch_size,
        "learning_rates": [float(rate) for rate in learning_rates],
        "momentum": float(momentum),
        "weight_decay": float(weight_decay),
        "parts": parts,
        "tested after each epoch": test_dataset is not None,
    }
    if path is not None:
        # As many images may still be other ones.
        run["training data"] = _fingerprint(images, labels)
        run["test data"] = None if test_dataset is None else _fingerprint(*as_tensors(test_dataset, device))
    epochs_done, batches_done, optimizer_state = 0, 0, None
    if path is not None and path.exists():
        saved = _read_checkpoint(path, run, model)
        model.load_state_dict(saved["model"])
        epochs_done, batches_done, optimizer_state = saved["epoch"], saved["batch"], saved["optimizer"]
        order_generator.set_state(saved["order"])
        for generator, state in zip(noise_generators, saved["noise"]):
            generator.set_state(state)
        tests = [Evaluation(**result) for result in saved["history"].pop("test")]
        history = History(**saved["history"], test=tests)
        if progress and team.rank == 0:
            _tell_resumed(path, len(history.loss), len(learning_rates) * batches_per_epoch)
    team.check_agreement(epochs_done, batches_done, device)
    learner = team.wrap(model)

    seconds_before, started = history.seconds, time.perf_counter()
    model.train()
    bar = _progress_bar(len(learning_rates) * batches_per_epoch, len(history.loss), progress and team.rank == 0)
    for epoch in range(epochs_done, len(learning_rates)):
        order_state = order_generator.get_state()
        order = torch.randperm(len(labels), generator=order_generator).to(device)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=learning_rates[epoch], momentum=momentum, weight_decay=weight_decay
        )
        if optimizer_state is not None:
            optimizer.load_state_dict(optimizer_state)
            optimizer_state = None

        def save(epoch: int, batch: int, order_state: Tensor, optimizer: torch.optim.SGD | None) -> None:
            if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
                raise TrainingDiverged(
                    f"the weights are no longer finite after {len(history.loss)} batches. Try a smaller learning rate"
                    f" than {max(learning_rates)}."
                )
            if path is None:
                return
            noise = team.gather([generator.get_state() for generator in noise_generators], device)
            if team.rank == 0:
                history.seconds = seconds_before + time.perf_counter() - started
                content = {
                    "run": run,
                    "model": model.state_dict(),
                    "optimizer": None if optimizer is None else optimizer.state_dict(),
                    "epoch": epoch,
                    "batch": batch,
                    "order": order_state,
                    "noise": noise,
                    "history": asdict(history),
                }
                _write_whole(path, content)

        for batch in range(batches_done, batches_per_epoch):
            if batch % checkpoint_every == 0:
                save(epoch, batch, order_state, optimizer)
            chosen = order[batch * batch_size : (batch + 1) * batch_size]
            optimizer.zero_grad()
            # The losses, and how many are right. Apple's GPUs know no float64.
            summed = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
            for part in team.parts:
                mine = chosen.tensor_split(parts)[part]
                if len(mine) == 0:  # a last batch with fewer examples than parts
                    team.stand_in(learner, images[chosen[:1]], part)
                    continue
                with team.exchange(learner, part):
                    log_probs = learner(images[mine], generator=noise_generators[part])
                    loss = F.nll_loss(log_probs, labels[mine], reduction="sum")
                    # The gradients of all parts are added, and become that of the mean over the batch.
                    (loss * (team.size / len(chosen))).backward()
                n_correct = (log_probs.argmax(dim=1) == labels[mine]).sum()
                summed += torch.stack([loss.detach().to(summed.dtype), n_correct.to(summed.dtype)])
            mean_loss, accuracy = (team.add_up(summed) / len(chosen)).tolist()
            if not math.isfinite(mean_loss):
                raise TrainingDiverged(
                    f"the loss is {mean_loss} in epoch {epoch + 1}, batch {batch + 1}, at the learning rate"
                    f" {learning_rates[epoch]}. Try a smaller learning rate; if that does not help, look for NaN"
                    " in the images and weights."
                )
            optimizer.step()
            history.loss.append(mean_loss)
            history.accuracy.append(accuracy)
            bar.set_postfix(epoch=epoch + 1, loss=f"{history.loss[-1]:.3f}", refresh=False)
            bar.update()
        batches_done = 0
        if test_dataset is not None:
            history.test.append(evaluate(model, test_dataset))
            model.train()
        if epoch + 1 == len(learning_rates):
            save(epoch + 1, 0, order_generator.get_state(), None)
    bar.close()
    history.seconds = seconds_before + time.perf_counter() - started
    return history


PART_SEEDS = 1_000_003  # a part's random numbers start at the seed plus this, times the number of the part


class _Team:
    """The processes that train together, each on its share of the parts; one, unless torch.distributed is on."""

    def __init__(self, parts: int) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0
        if parts % self.size != 0:
            raise ValueError(
                f"{self.size} processes cannot share {parts} parts of a batch evenly: give fit parts={self.size}, or a"
                f" multiple of it, and the same number to every run that is to end with the same weights"
            )
        share = parts // self.size
        self.parts = range(self.rank * share, (self.rank + 1) * share)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, with the first process's weights in all of them, and gradients averaged over them."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def exchange(self, learner: nn.Module, part: int) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged once a batch: after the last of this process's parts."""
        if isinstance(learner, DistributedDataParallel) and part != self.parts[-1]:
            return learner.no_sync()
        return contextlib.nullcontext()

    def stand_in(self, learner: nn.Module, image: Tensor, part: int) -> None:
        """Without an example of its own a process still takes part in the exchange, with a gradient of 0."""
        if self.size > 1:
            with self.exchange(learner, part):
                (learner(image, generator=_generator(image.device, 0)).sum() * 0).backward()

    def add_up(self, values: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, states: list[Tensor], device: torch.device) -> list[Tensor]:
        """The states of all parts' generators, each from the process that draws from it."""
        if self.size == 1:
            return states
        # As tensors: objects would be pickled. NCCL sends from GPU to GPU only.
        mine = torch.stack([states[part] for part in self.parts]).to(device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(gathered, mine)
        # Cloned, since a generator misreads a state that is a view.
        return [state.clone() for state in torch.cat(gathered).cpu()]

    def check_agreement(self, epoch: int, batch: int, device: torch.device) -> None:
        if self.size == 1:
            return
        mine = torch.tensor([epoch, batch], device=device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        places = [tuple(place.tolist()) for place in found]
        if len(set(places)) > 1:
            raise CheckpointError(
                f"the processes disagree about where to go on: (epochs, batches) done are {places}. All of them must"
                " see the same checkpoint: put it into a folder that every machine shares."
            )


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tell_resumed(path: Path | None, done: int, total: int) -> None:
    if done == total:
        print(f"{path} holds the whole training, {total} batches: there is nothing left to train.")
    else:
        print(f"{path} holds {done} of {total} batches: training goes on from there.")


def _generator(device: torch.device, seed: int) -> torch.Generator:
    # Draws are made where they are used on a GPU; elsewhere on the CPU, so that seeds mean the same.
    return torch.Generator(device=device if device.type == "cuda" else "cpu").manual_seed(seed)


def _read_checkpoint(path: Path, run: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    mend = "Move the file away to start afresh, or name another one."
    try:
        # torch itself overlooks changed bytes; the archive that it writes holds checksums.
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of its part {damaged}")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        differing = {name: (saved["run"].get(name), run[name]) for name in run if saved["run"].get(name) != run[name]}
        shapes = {name: list(tensor.shape) for name, tensor in saved["model"].items()}
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint of fit ({error}). {mend}") from error
    wanted_shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if shapes != wanted_shapes:
        differing["the weights' shapes"] = (shapes, wanted_shapes)
    if differing:
        told = "; ".join(f"{name}: {old} there, {new} here" for name, (old, new) in differing.items())
        raise CheckpointError(f"{path} belongs to another run ({told}). {mend}")
    return saved  # type: ignore[no-any-return]


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write the file so that whoever reads it finds the old content or the new, never a part."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        kept = f" {path} still holds what was saved before: call fit again, and it goes on from there."
        raise OSError(
            error.errno,
            f"the checkpoint {path} cannot be written ({error.strerror or error}; it takes"
            f" {buffer.getbuffer().nbytes / 1e6:.1f} MB). Make room, or name a file in an existing folder that can"
            f" be written.{kept if os.path.isfile(path) else ''}",
        ) from error


def _progress_bar(total: int, done: int, shown: bool) -> tqdm[Any]:
    out: Any = sys.stdout
    try:
        from IPython.core.getipython import get_ipython

        # In a notebook one output is rewritten in place: no stray lines, no widget to go stale.
        if hasattr(get_ipython(), "kernel"):
            out = _OneOutput()
    except ImportError:
        pass
    # At position 0: else the bar of an interrupted run would push this one to another line.
    return tqdm(
        total=total, initial=done, disable=not shown, file=out, unit="batch", ncols=90, mininterval=0.3, position=0
    )


class _OneOutput:
    """A file whose every line replaces the one before, in a single output of a notebook."""

    def __init__(self) -> None:
        self.handle: Any = None

    def write(self, text: str) -> None:
        from IPython.display import display

        line = text.strip()
        if not line:
            return
        data = {"text/plain": line}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def flush(self) -> None:
        pass


def fit_adam(
    model: nn.Module,
    dataset: TensorDataset,
    *,
    seed: int,
    learning_rate: float,
    epochs: int = 5,
    batch_size: int = 128,
    longest_gradient: float | None = None,
    device: str | torch.device = "auto",
) -> list[float]:
    """Train with Adam, whose learning rate rises to `learning_rate` and falls to 0 over the run; from chapter 09.

    The seed decides the order of the examples and what the model draws. Gradients longer than `longest_gradient`
    are cut to that length; chapter 10 says what for. Returns the loss of each batch. Raises ValueError for a
    `longest_gradient` of 0 or less.
    """
    if longest_gradient is not None and not longest_gradient > 0:
        raise ValueError(f"longest_gradient must be above 0, or None for no limit, not {longest_gradient}")
    device = pick_device(device)
    model.to(device).train()
    images, labels = as_tensors(dataset, device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    n_batches = math.ceil(len(labels) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * n_batches)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator, device="cpu").to(device)
        for chosen in order.split(batch_size):
            optimizer.zero_grad()
            loss = F.nll_loss(model(images[chosen], generator=generator), labels[chosen])
            loss.backward()
            if longest_gradient is not None:
                nn.utils.clip_grad_norm_(model.parameters(), longest_gradient)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses
