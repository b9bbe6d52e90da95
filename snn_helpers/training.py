"""Training and testing a network on digits; derived in chapter 03.

`fit` with its defaults is the article's schedule: three epochs of SGD with momentum 0.5 at the learning rates 0.1, 0.05
and 0.01, a fresh optimiser for each epoch, batches of 1000. The step itself is `_train_step`. What a long run needs
besides, such as checkpoints and several processes, is in `long`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset

from .devices import pick_device
from .long.autocast import answer, with_gradients
from .long.checkpoint import Checkpoint, CheckpointError
from .long.checks import real, whole
from .long.divergence import TrainingDiverged, check_loss
from .long.examples import Examples, as_tensors
from .long.plain import bare, limit, real_list
from .long.processes import ProcessGroup
from .long.progress import progress_bar
from .long.seeds import seeded

# What others import from here; some of it is made in `long` and `devices`.
__all__ = [
    "CheckpointError",
    "Evaluation",
    "History",
    "TrainingDiverged",
    "as_tensors",
    "evaluate",
    "fit",
    "fit_adam",
    "pick_device",
]


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a set of examples: `accuracy` in 0 to 1, `loss` the mean over examples."""

    accuracy: float
    loss: float


@dataclass
class History:
    """What happened in training.

    `loss` and `accuracy` have one entry for each batch, the mean over its examples, taken before that batch's update;
    `test` has one for each epoch, if `fit` was given a test set; `seconds` is the time spent, testing included, over
    all interruptions.
    """

    batches_per_epoch: int
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    test: list[Evaluation] = field(default_factory=list)
    seconds: float = 0.0

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what a checkpoint holds."""
        vars(self).update(saved, test=[Evaluation(**result) for result in saved["test"]])


def _train_step(
    learner: nn.Module, optimizer: Optimizer, examples: Examples, chosen: Tensor, group: ProcessGroup, history: History
) -> None:
    """One step on the `chosen` examples, a batch; the history gets their loss and accuracy from before the step."""
    optimizer.zero_grad()
    summed = examples.zeros(2)  # the losses, and how many are right
    # A batch may be too large for the memory; so its parts come one after the other.
    for part in group.parts:
        mine, reading = chosen.tensor_split(group.n_parts)[part], len(history.loss) * group.n_parts + part
        if len(mine) == 0:  # a last batch with fewer examples than parts
            group.stand_in(learner, examples, chosen, part)
            continue
        images, labels = examples.read(mine, reading)
        with group.exchange(learner, part):
            log_probs = examples.fitting(answer(learner, images, group.noise[part]))
            loss = F.nll_loss(log_probs, labels, reduction="sum")
            # The gradients of all parts are added, and become that of the mean over the batch.
            (loss * (group.size / len(chosen))).backward()
        n_correct = (log_probs.argmax(dim=1) == labels).sum()
        summed += torch.stack([loss.detach().to(summed.dtype), n_correct.to(summed.dtype)])
    mean_loss, accuracy = (group.add_up(summed) / len(chosen)).tolist()
    # Before the step, which would spoil the weights.
    check_loss(mean_loss, len(history.loss), history.batches_per_epoch, optimizer.param_groups[0]["lr"])
    optimizer.step()
    history.loss.append(mean_loss)
    history.accuracy.append(accuracy)


@with_gradients
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
    dataset : of (image, label). The tensors of a `TensorDataset` are moved to the device once. Any other data set is
        read item by item, anew for each batch, so that it can change its images; `Examples` says what that means.
    seed : decides the order of the examples and the flicker; the model comes with its initial weights.
    device : `"auto"`, the GPU if there is one, or a torch device.
    checkpoint : a file. Progress is written there, whole or not at all, at the start, every `checkpoint_every` batches
        and at the end. If the file exists, training goes on from it, and on the CPU ends bit for bit where an
        uninterrupted run ends. All processes must see the file.
    test_dataset : evaluated after each epoch.
    learning_rates, momentum, weight_decay : of SGD; one epoch, with a fresh optimiser, for each learning rate.
    parts : how many parts each batch is cut into, to save memory. Each has its own random numbers. Processes of
        `torch.distributed` share the parts evenly; but for rounding, their number does not matter.
    progress : a progress bar, and a line that says so if the checkpoint held something.

    Raises `TrainingDiverged` at the first batch whose loss is not finite, and instead of keeping weights that are not;
    `CheckpointError` if the checkpoint is damaged or belongs to another run; `OSError` if it cannot be written, at the
    start; `TypeError`, `ValueError` for settings and data that do not fit, before anything is trained or written.
    """
    # Everything is checked first: a run that cannot end well trains and writes nothing.
    rates = real_list("learning_rates", learning_rates, each="epoch", least=0)
    momentum, weight_decay = real("momentum", bare(momentum), 0), real("weight_decay", bare(weight_decay), 0)
    batch_size, save_every = whole("batch_size", batch_size), whole("checkpoint_every", checkpoint_every)
    device, order_generator = pick_device(device), seeded(seed)
    seed = order_generator.initial_seed()  # as a plain number
    group = ProcessGroup(whole("parts", parts), seed, device)
    examples = Examples(dataset, device, seed)
    test = None if test_dataset is None else Examples(test_dataset, device)
    history = History(math.ceil(len(examples) / batch_size))
    # What must be the same for a checkpoint to be continued.
    run = {"seed": seed, "batch_size": batch_size, "learning_rates": rates, "momentum": momentum}
    run |= {"weight_decay": weight_decay, "parts": group.n_parts}
    keeper = Checkpoint(checkpoint, run, model.to(device), examples, test, group, order_generator, history)
    first_epoch, first_batch, optimizer_state = keeper.load()
    learner = group.wrap(model.train())
    n_batches, started = history.batches_per_epoch, time.perf_counter() - history.seconds
    bar = progress_bar(len(rates) * n_batches, len(history.loss), progress and group.rank == 0, keeper.resumed)
    for epoch in range(first_epoch, len(rates)):
        # A checkpoint keeps the generator from before the shuffle, so that the same order can be drawn again.
        order_state, order = order_generator.get_state(), examples.shuffled(order_generator)
        optimizer = SGD(model.parameters(), lr=rates[epoch], momentum=momentum, weight_decay=weight_decay)
        if optimizer_state is not None:  # taken up inside an epoch: the momentum goes on
            optimizer.load_state_dict(optimizer_state)
        for batch in range(first_batch, n_batches):
            history.seconds = time.perf_counter() - started
            if batch % save_every == 0:
                keeper.save(epoch, batch, order_state, optimizer)
            _train_step(learner, optimizer, examples, order[batch * batch_size :][:batch_size], group, history)
            bar.set_postfix(epoch=epoch + 1, loss=f"{history.loss[-1]:.3f}", refresh=False)
            bar.update()
        first_batch, optimizer_state = 0, None
        if test_dataset is not None:
            history.test.append(evaluate(model, test_dataset))
            model.train()
    history.seconds = time.perf_counter() - started
    if first_epoch < len(rates):
        keeper.save(len(rates), 0, order_generator.get_state(), None)
    bar.close()
    return history


@torch.no_grad()
def evaluate(model: nn.Module, dataset: Dataset[Any], batch_size: int = 1000, seed: int = 0) -> Evaluation:
    """Accuracy and mean loss over a data set of (image, label), on the model's own device.

    `model(images, generator=...)` must give log-probabilities `[B, n_classes]`; the generator, from which the flicker
    comes, starts at `seed`. Raises `TypeError` or `ValueError` for settings and data sets that do not fit.
    """
    batch_size, device = whole("batch_size", batch_size), next(model.parameters()).device
    generator = seeded(seed, device)
    examples = Examples(dataset, device, generator.initial_seed())
    was_training = model.training
    model.eval()
    n_correct, summed_loss = 0, 0.0
    for reading, start in enumerate(range(0, len(examples), batch_size)):
        images, labels = examples.read(range(start, min(start + batch_size, len(examples))), reading)
        log_probs = examples.fitting(answer(model, images, generator))
        # Summed, then divided once by the number of examples: batches may differ in size.
        summed_loss += F.nll_loss(log_probs, labels, reduction="sum").item()
        n_correct += int((log_probs.argmax(dim=1) == labels).sum())
    model.train(was_training)
    return Evaluation(n_correct / len(examples), summed_loss / len(examples))


@with_gradients
def fit_adam(
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    seed: int,
    learning_rate: float,
    epochs: int = 5,
    batch_size: int = 128,
    longest_gradient: float | None = None,
    device: str | torch.device = "auto",
) -> list[float]:
    """Train with Adam, whose learning rate rises to `learning_rate` and falls to 0 over the run; from chapter 12.

    The seed decides the order of the examples and what the model draws. Gradients longer than `longest_gradient`
    are cut to that length; chapter 13 says what for. Returns the loss of each batch. Raises `TypeError` or
    `ValueError` for settings and data sets that do not fit.
    """
    learning_rate, longest = real("learning_rate", bare(learning_rate), above=0), limit(longest_gradient)
    epochs, batch_size, device = whole("epochs", epochs), whole("batch_size", batch_size), pick_device(device)
    generator = seeded(seed)
    examples = Examples(dataset, device, generator.initial_seed())
    optimizer = Adam(model.to(device).train().parameters(), lr=learning_rate)
    schedule = OneCycleLR(optimizer, learning_rate, total_steps=epochs * math.ceil(len(examples) / batch_size))
    losses: list[float] = []
    for _ in range(epochs):
        for chosen in examples.shuffled(generator).split(batch_size):
            images, labels = examples.read(chosen, len(losses))
            optimizer.zero_grad()
            loss = F.nll_loss(examples.fitting(answer(model, images, generator)), labels)
            loss.backward()
            if longest is not None:
                nn.utils.clip_grad_norm_(model.parameters(), longest)
            with torch.device("cpu"):  # older torch counts Adam's steps on the default device
                optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses
