"""Outputs fed back into inputs, and what such a loop remembers; derived in chapter 13."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, evaluate, flicker
from snn_helpers.devices import pick_device
from snn_helpers.long.checks import counted, flag, floating, real, whole
from snn_helpers.long.recording import Record, whole_mnist
from snn_helpers.long.seeds import draw_uniform, seeded
from snn_helpers.training import as_tensors, fit_adam


class RecurrentSpikingLayer(SpikingLayer):
    """A `SpikingLayer` whose outputs come back as inputs, `delay` steps later; derived in chapter 13.

    At step t each neuron reads `layer.linear` of the input of this step plus `layer.recurrent` of what
    the layer's neurons put out at step `t - delay`; before there is anything to come back, zeros. With a
    delay of 1 that is exactly what the layer hands out at step t: the one-step delay closes the loop.
    `layer(inputs)` maps `[T, B, n_inputs]` to `(states, outputs)`, both `[T, B, n_neurons]` and delayed
    by one step, as in `SpikingLayer`.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`; the same
        generator gives the same `layer.linear`.
    delay : after how many steps an output comes back, 1 or more.
    scale : the recurrent weights `layer.recurrent.weight` `[n_neurons, n_neurons]`, row by row those of
        the neuron that hears, start as `scale` times a Xavier-uniform draw; 0 or more.
    cut : autograd takes what comes back for a constant: the answers are the same, but no gradient
        flows around the loop.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    settings = (*SpikingLayer.settings, "delay", "cut")

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 2.0,
        penalty: float = 2.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
        delay: int = 1,
        scale: float = 1.0,
        cut: bool = False,
    ) -> None:
        super().__init__(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
        # An output cannot come back before it is made.
        self.delay, self.cut = whole("delay", delay), flag("cut", cut)
        scale = real("scale", scale, least=0)
        self.recurrent = nn.Linear(self.n_neurons, self.n_neurons, bias=False)
        draw_uniform(self.recurrent.weight, math.sqrt(3) * (scale * math.sqrt(1 / self.n_neurons)), generator)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to `(states, outputs)`, each `[T, B, n_neurons]`."""
        currents = self.currents(inputs)
        delay, cut = whole("delay", self.delay), flag("cut", self.cut)
        silence = torch.zeros_like(currents[0])
        states, outputs = [silence], [silence]  # as handed out: entry t + 1 is what step t made
        for t in range(len(inputs) - 1):
            back = outputs[t + 1 - delay] if t >= delay else silence
            heard = self.recurrent(back.detach() if cut else back).to(currents.dtype)
            output, state = self.step(currents[t] + heard, states[t])
            states.append(state)
            outputs.append(output)
        return torch.stack(states), torch.stack(outputs)


class SequenceNet(nn.Module):
    """A hidden layer and a read-out for input that changes over time; used in chapter 13.

    Maps frames `[B, T, n_inputs]` to log-probabilities `[B, n_classes]`. The logits are the states of
    the last layer, a `SpikingLayer`, averaged over the steps from `begin_eval` on.

    Parameters
    ----------
    hidden : a `SpikingLayer`, or one of its kind, such as `RecurrentSpikingLayer`.
    n_classes : 1 or more; the read-out has the hidden layer's neuron settings, but for `decay`.
    begin_eval : the first step that counts for the answer.
    read_decay : the read-out's own leak, 0 to 1. At 0 it remembers nothing: what is remembered is the hidden
        layer's doing.
    generator : where the read-out's initial weights come from; torch's global one if None.

    Raises
    ------
    TypeError, ValueError : for settings or frames that do not fit.
    """

    def __init__(
        self,
        hidden: SpikingLayer,
        n_classes: int,
        begin_eval: int = 0,
        read_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(hidden, SpikingLayer):
            raise TypeError(f"hidden must be a SpikingLayer, or one of its kind, not {type(hidden).__name__}")
        neuron = (hidden.threshold, hidden.penalty, hidden.reset)
        self.begin_eval = whole("begin_eval", begin_eval, least=0)
        self.hidden = hidden
        self.readout = SpikingLayer(hidden.n_neurons, n_classes, read_decay, *neuron, generator)

    def forward(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` is not used: nothing here is drawn."""
        if frames.dim() != 3 or frames.shape[1] <= self.begin_eval:
            raise ValueError(
                f"frames must have the shape [batch, steps, inputs], with more steps than begin_eval"
                f" ({self.begin_eval}), not {list(frames.shape)}"
            )
        states, _ = self.readout(self.hidden(frames.transpose(0, 1))[1])
        return F.log_softmax(counted(states, self.begin_eval).mean(dim=0), dim=-1)


# --- The trial ------------------------------------------------------------------------------------


# The hidden layers that chapter 13 compares; what is not said is as in `memory_trial`.
MEMORIES: dict[str, dict[str, Any]] = {
    "feedforward": {},
    "slow leak": {"decay": 0.97},
    "feedback": {"delay": 1},
    "delayed feedback": {"delay": 8},
    "cut feedback": {"delay": 1, "cut": True},
}


# A loop multiplies gradients at each turn: now and then one is huge, and without the limit it undoes the training.
LOOPED: dict[str, Any] = {"batch_size": 100, "longest_gradient": 1.0}  # settings of `fit_adam`


POOLED = 7  # images of 28 x 28 are averaged to 7 x 7


def match_task(
    dataset: TensorDataset,
    n_trials: int,
    gap: int,
    seed: int,
    shown: int = 5,
    classes: Sequence[int] = (0, 1),
) -> TensorDataset:
    """Was the second digit of the same kind as the first? A delayed match to sample; derived in chapter 13.

    A digit is shown for `shown` steps, then nothing for `gap` steps, then another digit for `shown` steps,
    then two more steps of nothing, for the answer to arrive. Digits are averaged to 7 x 7, 0 for black to 1
    for white, and flicker. Half of the pairs match, by a coin; two images are the same one only by chance.

    Returns frames `[n_trials, 2 * shown + gap + 2, 49]` and labels `[n_trials]`, 1 for a match.

    Raises
    ------
    ValueError : for settings that do not fit, or classes that the data set lacks.
    """
    n_trials, shown, gap = whole("n_trials", n_trials), whole("shown", shown), whole("gap", gap, least=-(2**31))
    if gap < 0:
        raise ValueError(f"n_trials and shown must be 1 or more and gap 0 or more, not {n_trials}, {shown} and {gap}")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(
            "classes must name two labels or more, each once, or pairs of one label would not match, not"
            f" {list(classes)}"
        )
    generator = seeded(seed)
    images, labels = as_tensors(dataset, torch.device("cpu"))
    if floating("images", images).shape[1:].numel() != 28 * 28:
        raise ValueError(f"images must have 28 x 28 pixels, not the shape {list(images.shape[1:])}")
    small = F.avg_pool2d(images.reshape(-1, 1, 28, 28) + 0.5, 28 // POOLED).flatten(1)
    members = [small[labels == label] for label in classes]
    if any(len(own) == 0 for own in members):
        raise ValueError(f"the data set lacks one of the classes {list(classes)}; it has {labels.unique().tolist()}")
    first = torch.randint(len(classes), (n_trials,), generator=generator, device="cpu")
    match = torch.randint(2, (n_trials,), generator=generator, device="cpu")
    other = (first + torch.randint(1, len(classes), (n_trials,), generator=generator, device="cpu")) % len(classes)
    second = torch.where(match == 1, first, other)
    frames = torch.zeros(2 * shown + gap + 2, n_trials, POOLED**2, device="cpu")
    for kinds, start in ((first, 0), (second, shown + gap)):
        places = torch.rand(n_trials, generator=generator, device="cpu")
        pictures = torch.stack([members[kind][int(place * len(members[kind]))] for kind, place in zip(kinds, places)])
        frames[start : start + shown] = flicker(pictures, shown, generator)
    return TensorDataset(frames.transpose(0, 1).contiguous(), match)


def make_memory(network: str, seed: int, gap: int, shown: int = 5, n_hidden: int = 64, **settings: Any) -> SequenceNet:
    """One of `MEMORIES`, 49-64-2, its initial weights drawn from the seed; it answers as it sees the second digit."""
    if network not in MEMORIES:
        raise ValueError(f"network must be one of {', '.join(map(repr, MEMORIES))}, not {network!r}")
    given: dict[str, Any] = (
        {"decay": 0.8, "threshold": 1.0, "penalty": 1.5, "reset": "scale"} | MEMORIES[network] | settings
    )
    kind = RecurrentSpikingLayer if "delay" in given else SpikingLayer
    generator = seeded(seed)
    hidden = kind(POOLED**2, n_hidden, generator=generator, **given)
    return SequenceNet(hidden, 2, begin_eval=shown + gap + 2, generator=generator)


def memory_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    gap: int,
    *,
    n_train: int = 4000,
    n_test: int = 2000,
    epochs: int = 15,
    learning_rate: float = 0.01,
    shown: int = 5,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one of `MEMORIES` on the delayed match, and test it on other digits; recorded for chapter 13.

    `settings` go to the hidden layer. Trials of one seed and gap see the same pairs, whatever the network.
    Returns the network, the seed, the gap, `train_accuracy`, `test_accuracy` and the `rate` of the hidden
    layer in the middle of the gap (None without one), in spikes a step and neuron.
    """
    device = pick_device(device)
    seen = match_task(train, n_train, gap, 2 * seed, shown)
    unseen = match_task(test, n_test, gap, 2 * seed + 1, shown)
    net = make_memory(network, seed, gap, shown, **settings).to(device)
    fit_adam(net, seen, seed=seed, learning_rate=learning_rate, epochs=epochs, **LOOPED, device=device)
    with torch.no_grad():
        outputs = net.hidden(unseen.tensors[0].to(device).transpose(0, 1))[1]
    middle = outputs[shown + gap // 2]
    return {
        "network": network,
        "seed": seed,
        "gap": gap,
        "train_accuracy": evaluate(net, seen).accuracy,
        "test_accuracy": evaluate(net, unseen).accuracy,
        "rate": round((middle > 0).double().mean().item(), 5) if gap else None,
    }


# --- The records ----------------------------------------------------------------------------------


def measure_memory(**settings: Any) -> dict[str, Any]:
    """As `memory_trial`, with pairs of digits of the whole of MNIST."""
    train, test = whole_mnist()
    return memory_trial(train=train, test=test, **settings)


RECORDS: dict[str, Record] = {
    "13_memory": Record(
        "49-64-2 on a delayed match of two digits, 15 epochs of Adam on 4,000 pairs, at one learning rate for all:"
        " layers with and without feedback, for each gap",
        measure_memory,
        [
            {"network": network, "seed": seed, "gap": gap}
            for seed in range(5)
            for network in MEMORIES
            for gap in ((0, 4, 8, 12, 24) if network != "cut feedback" else (12,))
        ]
        + [
            {"network": network, "seed": seed, "gap": 12, "reset": "discharge"}
            for seed in range(5)
            for network in ("feedforward", "feedback", "delayed feedback")
        ],
    ),
}
