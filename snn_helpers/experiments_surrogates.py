"""The measurements of chapter 09, one trial at a time: run live at a small size, recorded at full size."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from .encoding import flicker
from .experiments import noisy
from .networks import MLP
from .plasticity import spiking_layers
from .surrogates import BinarySpikingNet
from .training import as_tensors, evaluate, pick_device

NETWORKS = ("binary", "mlp")
# The lead of one label over the next, in units of the logits, at which an answer is given.
LEADS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


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
        order = torch.randperm(len(labels), generator=generator).to(device)
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


def surrogate_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float,
    epochs: int = 5,
    batch_size: int = 128,
    noise_levels: Sequence[float] = (),
    drop_levels: Sequence[float] = (),
    probe: bool = False,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train 784-100-10, one of `NETWORKS`, once and measure it; derived in chapter 09.

    `settings` go to `BinarySpikingNet`. Both networks read pixels from 0 to 1. `noise_levels` are
    those of `noisy`, whose first 2000 test images they use; `drop_levels` the shares of the hidden
    layer's messages that are lost on their way, for these images.

    Returns the network, the seed, `test_accuracy`, `test_loss`, `seconds` of training,
    `noise_accuracy` and `drop_accuracy`, and with `probe` also what `what_spikes_buy` finds.
    """
    device = pick_device(device)
    model = make_network(network, seed, **settings)
    started = time.perf_counter()
    fit_adam(
        model,
        train,
        seed=seed,
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        device=device,
    )
    seconds = time.perf_counter() - started
    on_test = evaluate(model, test, seed=seed)
    few = TensorDataset(*(part[:2000] for part in test.tensors))
    row: dict[str, Any] = {
        "network": network,
        "seed": seed,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "seconds": round(seconds, 2),
        "noise_accuracy": {
            str(level): evaluate(model, noisy(test, level, seed), seed=seed).accuracy for level in noise_levels
        },
        "drop_accuracy": {str(level): accuracy_with_drops(model, few, level, seed) for level in drop_levels},
    }
    if probe:
        row |= what_spikes_buy(model, test, seed)
    return row


class BrightMLP(MLP):
    """The `MLP` of chapter 04, reading pixels from 0 to 1, as the binary network does; derived in chapter 09."""

    def hidden(self, images: Tensor) -> Tensor:
        """What the hidden layer puts out, `[B, n_neurons]`."""
        return torch.relu(self.layers[0](images.flatten(1) + 0.5))

    def answer(self, hidden: Tensor) -> Tensor:
        """Log-probabilities from what the hidden layer put out."""
        return F.log_softmax(self.layers[1](hidden), dim=-1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.answer(self.hidden(images))


def make_network(network: str, seed: int, **settings: Any) -> BinarySpikingNet | BrightMLP:
    """One of `NETWORKS`, 784-100-10, its initial weights drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    if network == "binary":
        return BinarySpikingNet(generator=generator, **settings)
    if network == "mlp":
        return BrightMLP(generator=generator, **settings)
    raise ValueError(f"network must be one of {', '.join(map(repr, NETWORKS))}, not {network!r}")


@torch.no_grad()
def accuracy_with_drops(model: BinarySpikingNet | BrightMLP, dataset: TensorDataset, level: float, seed: int) -> float:
    """Accuracy if each message of the hidden layer, a spike or an activation, is lost with a probability `level`."""
    images, labels = as_tensors(dataset, next(model.parameters()).device)
    generator = torch.Generator().manual_seed(seed)
    hidden = model.hidden(images) if isinstance(model, BrightMLP) else model.record(images, generator)[0].outputs
    draws = flicker(torch.ones_like(hidden), 1, generator)[0]
    hidden = hidden * (draws >= level)
    logits = model.answer(hidden) if isinstance(model, BrightMLP) else evidence(model, hidden)[-1]
    return float((logits.argmax(dim=1) == labels).double().mean())


def evidence(net: BinarySpikingNet, hidden: Tensor) -> Tensor:
    """What speaks for each label up to each step, `[T, B, 10]`; the last step's are the logits; from chapter 09.

    `hidden` `[T, B, n_neurons]`: the hidden layer's spikes, as `net.record` gives them.
    """
    states = F.pad(net.layers[1](hidden[1:])[0], (0, 0, 0, 0, 1, 0))
    states[: net.begin_eval] = 0
    return states.cumsum(dim=0) / (net.n_steps - net.begin_eval)


@torch.no_grad()
def what_spikes_buy(model: BinarySpikingNet | BrightMLP, dataset: TensorDataset, seed: int) -> dict[str, Any]:
    """What a network sends and does for an image, and how soon it could answer; derived in chapter 09.

    - `messages`: spikes of the hidden layer for an image; of an MLP, activations that are not 0;
    - `active_pixels`: pixels of an image that are not 0;
    - for the binary network also `rate`, the share of steps in which a hidden neuron fires; `silent`,
      the share of its neurons that never fire for any image; `accuracy_by_step`, if it had to answer at
      that step; and, for each of `LEADS`, `answers`: `[lead, mean step of the answer, accuracy, spikes sent
      by then]`, answering as soon as a label leads by that much, and at the end if none does.
    """
    images, labels = as_tensors(dataset, next(model.parameters()).device)
    found: dict[str, Any] = {"active_pixels": float((images > -0.5).double().sum() / len(images))}
    if isinstance(model, BrightMLP):
        return found | {"messages": float((model.hidden(images) > 0).double().sum() / len(images))}
    generator = torch.Generator().manual_seed(seed)
    sent, leads, right, alive = [], [], [], torch.zeros(1)
    for batch, truth in zip(images.split(1000), labels.split(1000)):
        hidden = model.record(batch, generator)[0].outputs
        speaking = evidence(model, hidden)
        best = speaking.topk(2, dim=2).values
        leads.append(best[..., 0] - best[..., 1])
        right.append(speaking.argmax(dim=2) == truth)
        sent.append(hidden.sum(dim=2))
        alive = torch.maximum(alive.to(hidden), hidden.amax(dim=(0, 1)))
    lead, correct, spikes = (torch.cat(parts, dim=1) for parts in (leads, right, sent))
    so_far = spikes.cumsum(dim=0)
    everyone = torch.arange(len(labels), device=labels.device)
    answers = []
    for wanted in LEADS:
        enough = lead >= wanted
        enough[-1] = True
        step = enough.int().argmax(dim=0)  # the first of the steps at which it is enough
        values = (step.double() + 1, correct[step, everyone].double(), so_far[step, everyone].double())
        answers.append([wanted, *(round(value.mean().item(), 5) for value in values)])
    n_neurons = spiking_layers(model)[0].n_neurons
    return found | {
        "messages": spikes.sum(dim=0).double().mean().item(),
        "rate": (spikes.double().mean() / n_neurons).item(),
        "silent": (alive == 0).double().mean().item(),
        "accuracy_by_step": [round(value, 5) for value in correct.double().mean(dim=1).tolist()],
        "answers": answers,
    }
