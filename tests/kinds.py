"""One small network of each kind, for tests of what holds for all of them or is refused for some."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from snn_chapters.after_spike import AfterSpikeNet
from snn_chapters.binary import BinarySpikingLayer, BinarySpikingNet
from snn_chapters.depth import EnsembleNet
from snn_chapters.forward_in_time import OnlineNet
from snn_chapters.rhythms import RecurrentSpikingLayer, SequenceNet
from torch import Tensor, nn
from torch.nn.utils import prune

from snn_helpers import MLP, SpikingLayer, SpikingNet

SIZES = (16, 12, 4)
N_STEPS = 12


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(n: int = 30) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=source(5)) - 0.2


def some_labels(n: int = 30) -> Tensor:
    return torch.arange(n) % 4


def some_frames(n: int = 30) -> Tensor:
    """What a network's first layer reads, `[N_STEPS, n, 16]`."""
    return some_images(n).flatten(1) * torch.rand(N_STEPS, n, 16, generator=source(6))


def plain(**settings: Any) -> SpikingNet:
    return SpikingNet(
        **{"n_steps": N_STEPS, "sizes": SIZES, "threshold": 0.5, "penalty": 0.7, "generator": source()} | settings
    )


def of(kind: type[SpikingNet], **settings: Any) -> Callable[[], SpikingNet]:
    def make() -> SpikingNet:
        given: dict[str, Any] = {"n_steps": N_STEPS, "sizes": SIZES, "threshold": 0.5, "penalty": 0.7}
        return kind(**given | {"generator": source()} | settings)

    return make


def with_layer(make_layer: Callable[[], nn.Module], place: int = 0) -> Callable[[], SpikingNet]:
    """A plain network, one of whose layers is another."""

    def make() -> SpikingNet:
        net = plain()
        net.layers[place] = make_layer()
        return net

    return make


def with_linear(change: Callable[[nn.Linear], nn.Module], place: int = 0) -> Callable[[], SpikingNet]:
    """A plain network with something else in place of one layer's `nn.Linear`."""

    def make() -> SpikingNet:
        net = plain()
        net.layers[place].linear = change(net.layers[place].linear)
        return net

    return make


class Twice(SpikingLayer):
    """Hands out twice of what its neurons put out."""

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        output, state = super().step(current, state)
        return 2 * output, state


def quantised(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will move it elsewhere one day
        made: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear}, torch.qint8)[0]
        made(torch.zeros(1, linear.in_features))
    return made


def without_bias(linear: nn.Linear) -> nn.Module:
    replaced = nn.Linear(linear.in_features, linear.out_features, bias=False)
    replaced.weight = linear.weight
    return replaced


def weight_normed(linear: nn.Linear) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(linear)


def pruned(linear: nn.Linear) -> nn.Module:
    return prune.l1_unstructured(linear, "weight", 0.5)


LINEARS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "wrapped": nn.Sequential,
    "without bias": without_bias,
    "quantised": quantised,
    "weight norm": weight_normed,
    "pruned": pruned,
}


def learned(name: str = "threshold", value: float = 0.5, each: bool = False) -> Callable[[], SpikingNet]:
    """A plain network whose first layer learns one of its settings, or one for each neuron."""

    def make() -> SpikingNet:
        net = plain()
        setattr(net.layers[0], name, nn.Parameter(torch.full((SIZES[1],) if each else (), value)))
        return net

    return make


NEURONS: dict[str, Any] = {"threshold": 0.5, "penalty": 0.7}

# What plain layers are derived for does not hold for these: their layers do more, or other things.
NOT_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "binary": of(BinarySpikingNet),
    "after-spikes": of(AfterSpikeNet),
    "recurrent layer": with_layer(lambda: RecurrentSpikingLayer(16, 12, **NEURONS, generator=source())),
    "recurrent last layer": with_layer(lambda: RecurrentSpikingLayer(12, 4, **NEURONS, generator=source()), 1),
    "binary layer": with_layer(lambda: BinarySpikingLayer(16, 12, **NEURONS, generator=source())),
    "layer of one's own": with_layer(lambda: Twice(16, 12, **NEURONS, generator=source())),
    "learned threshold": learned(),
    "learned thresholds": learned(each=True),
    **{f"linear {name}": with_linear(change) for name, change in LINEARS.items()},
    "MLP": lambda: MLP(SIZES, generator=source()),
    "sequences": lambda: SequenceNet(SpikingLayer(16, 12, generator=source()), 4, generator=source()),
}
# These have plain layers, and another answer.
OTHER_ANSWER: dict[str, Callable[[], SpikingNet]] = {
    "ensembles": of(EnsembleNet, per_label=2),
    "spikes of ensembles": of(EnsembleNet, per_label=2, readout="spikes"),
}
PLAIN: dict[str, Callable[[], SpikingNet]] = {"spiking": of(SpikingNet), "online": of(OnlineNet)}
