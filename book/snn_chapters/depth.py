"""Deep spiking networks whose neurons do not stay silent, and what ails those that do; derived in chapter 11.

`EnsembleNet` is `SpikingNet` with other read-outs; `fire_at` sets a network's thresholds or weights
from data, so that its neurons fire at a wanted rate; `diagnose` says who fires and whom the gradient reaches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_helpers import MLP, LayerRecord, SpikingLayer, SpikingNet, evaluate, fit
from snn_helpers.devices import pick_device
from snn_helpers.long.autocast import with_gradients, without_autocast
from snn_helpers.long.checks import classes, counted, layer_sizes, one_of, real, weight_and_bias, whole
from snn_helpers.long.plain import significant
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import draw_uniform, seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.plots import BLUE, PURPLE, RED
from snn_helpers.records import load_results
from snn_helpers.statistics import mean_and_interval
from snn_helpers.training import TrainingDiverged
from snn_helpers.tuning import choose, means, scores_of

READOUTS = ("states", "spikes")


READINGS = ("product", "mixture")


SHARINGS = ("none", "normalised", "silent")


class EnsembleNet(SpikingNet):
    """`SpikingNet` with an ensemble of neurons for each label, read by states or spikes; derived in chapter 11.

    Neuron `i` of the last layer speaks for label `i % n_labels`. Each **member** `j`, the neurons
    `j * n_labels` to `(j + 1) * n_labels - 1`, holds one neuron for each label. With the defaults
    it is `SpikingNet`, bit for bit.

    Parameters
    ----------
    sizes : as in `SpikingNet`, with the number of labels last.
    per_label : the number of members, 1 or more.
    readout : what a neuron says: the mean over steps of its `"states"`, or of its `"spikes"`.
    reading : how members become one answer. `"product"`: their values are added up before one
        softmax, which is the normalised product of their softmaxes. `"mixture"`: each has a
        softmax of its own, and the probabilities are averaged.
    share : for spikes: whose charge receives the gradient of an ensemble in the steps in which one of
        it fires; see `share_gradient`.
    push : the strength of `silence_penalty` in training; 0 is none.
    wanted_rate : the rate, in spikes a step, below which that penalty sets in.
    settings : `decay`, `threshold`, `penalty`, `reset`, `generator` of `SpikingNet`.
    """

    def __init__(
        self,
        n_steps: int = 128,
        begin_eval: int = 0,
        sizes: Sequence[int] = (784, 100, 10),
        *,
        per_label: int = 1,
        readout: str = "states",
        reading: str = "product",
        share: str = "none",
        push: float = 0.0,
        wanted_rate: float = 0.05,
        **settings: Any,
    ) -> None:
        per_label, sizes = whole("per_label", per_label), layer_sizes(sizes)
        super().__init__(n_steps, begin_eval, (*sizes[:-1], sizes[-1] * per_label), **settings)
        self.per_label, self.readout, self.reading, self.share = per_label, readout, reading, share
        self.push, self.wanted_rate = push, wanted_rate
        self._check()

    def _check(self) -> None:
        """Refuse settings that do not fit, as they are now."""
        one_of("readout", self.readout, READOUTS)
        one_of("reading", self.reading, READINGS)
        one_of("share", self.share, SHARINGS)
        if self.share != "none" and self.readout != "spikes":
            raise ValueError("share needs readout='spikes': a state receives its gradient anyway")
        real("push", self.push, least=0)
        _wanted(self.wanted_rate)
        last = self.layers[-1]
        if isinstance(last, SpikingLayer) and last.n_neurons % whole("per_label", self.per_label):
            raise ValueError(
                f"per_label must divide the {last.n_neurons} neurons of the last layer, not {self.per_label}"
            )

    @property
    def reads_states(self) -> bool:
        """Whether the logits are the last layer's mean states, and nothing else."""
        own = getattr(self.read_out, "__func__", None) is EnsembleNet.read_out
        return own and self.readout == "states" and self.per_label == 1

    def members(self, last: LayerRecord) -> Tensor:
        """What each member says: `[B, per_label, n_labels]`, from the record of the last layer."""
        self._check()
        if self.readout == "states":
            values = last.states
        elif self.share == "none":
            values = last.outputs
        else:
            values = share_gradient(
                last,
                plain_layers(self, "share", any_read_out=True)[-1].threshold,
                self.per_label,
                self.share == "silent",
            )
        means = counted(values, self.begin_eval).mean(dim=0)
        return by_member(means, self.per_label)

    def read_out(self, records: Sequence[LayerRecord]) -> Tensor:
        """The logits `[B, n_labels]`; of a mixture, the log-probabilities."""
        if self.readout == "states" and self.per_label == 1:
            return super().read_out(records)
        members = self.members(records[-1])
        return members.sum(dim=1) if self.reading == "product" else read_members(members, self.reading)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_labels]`; `generator` is where the flicker comes from."""
        self._check()
        if not (self.training and self.push > 0):
            return super().forward(images, generator)
        records = self.record(images, generator)
        # The mean of what is subtracted is added to the loss: its value is 0, its gradient the penalty's.
        penalty = self.push * silence_penalty(self, records, self.wanted_rate)
        return F.log_softmax(self.read_out(records), dim=-1) - (penalty - penalty.detach())

    def extra_repr(self) -> str:
        told = f"per_label={self.per_label}, readout={self.readout!r}, reading={self.reading!r}, share={self.share!r}"
        return f"{super().extra_repr()}, {told}, push={self.push}, wanted_rate={self.wanted_rate}"


def _wanted(rate: float) -> float:
    if not 0 < real("wanted_rate", rate) < 1:
        raise ValueError(f"wanted_rate must lie between 0 and 1 spikes a step, not {rate}")
    return rate


def by_member(values: Tensor, per_label: int) -> Tensor:
    """Values of a last layer `[..., per_label * n_labels]` member by member, `[..., per_label, n_labels]`."""
    if values.shape[-1] % whole("per_label", per_label):
        raise ValueError(f"per_label must divide the {values.shape[-1]} neurons of the last layer, not {per_label}")
    members: Tensor = values.unflatten(-1, (per_label, -1))
    return members


def read_members(members: Tensor, reading: str = "product") -> Tensor:
    """Values `[B, per_label, n_labels]` to log-probabilities `[B, n_labels]`; derived in chapter 11."""
    if one_of("reading", reading, READINGS) == "product":
        return F.log_softmax(members.sum(dim=1), dim=-1)
    return F.log_softmax(members, dim=-1).logsumexp(dim=1) - math.log(members.shape[1])


def charges(record: LayerRecord, threshold: float) -> Tensor:
    """The charge before the reset, of the record's shape: what was above the threshold was handed out."""
    return torch.where(record.outputs > 0, record.outputs + threshold, record.states)


def share_gradient(record: LayerRecord, threshold: float, per_label: int, silent_only: bool = False) -> Tensor:
    """A layer's outputs, unchanged, with a gradient for whole ensembles; derived in chapter 11.

    In a step in which an ensemble fires, the ratio of its summed outputs to its summed positive
    charges is the slope with which each of its charges, fired or not, receives the gradient. With
    `silent_only` neurons that fired keep their own slope, 1. Not the gradient of any loss.
    """
    charge = charges(record, threshold)
    outputs = record.outputs
    total = by_member(outputs.detach(), per_label).sum(dim=-2)
    ratio = total / by_member(charge.detach().relu(), per_label).sum(dim=-2).clamp(min=1e-12)
    slopes = torch.cat([ratio] * per_label, dim=-1)
    if silent_only:
        slopes = torch.where(outputs > 0, torch.ones_like(slopes), slopes)
    shared: Tensor = outputs.detach() + slopes * (charge - charge.detach())
    return shared


def sharing_slopes(record: LayerRecord, threshold: float, per_label: int, silent_only: bool = False) -> Tensor:
    """The slope with which each charge receives the gradient of `share_gradient`, of the record's shape."""
    states, outputs = (values.detach().requires_grad_() for values in record)
    shared = share_gradient(LayerRecord(states, outputs), threshold, per_label, silent_only)
    # The charge of a neuron that fired is its output, and the threshold; that of a silent one is its state.
    slopes = torch.autograd.grad(shared.sum(), (states, outputs))
    return slopes[0] + slopes[1]


def silence_penalty(net: SpikingNet, records: Sequence[LayerRecord], wanted_rate: float) -> Tensor:
    """How far the charges of neurons that fire too rarely lie below the threshold; derived in chapter 11.

    A mean over all neurons of all layers: by how much a neuron falls short of the wanted rate, as a
    share of it, times the mean of (threshold - charge) where that is positive, in thresholds. The
    first factor counts as a constant: a rate of 0 has no gradient, a charge does.
    """
    parts, wanted_rate = [], _wanted(wanted_rate)
    for layer, record in zip(plain_layers(net, "silence_penalty", any_read_out=True), records):
        rate = (record.outputs > 0).to(record.outputs.dtype).mean(dim=(0, 1))
        short = (1 - rate / wanted_rate).relu()
        below = (1 - charges(record, layer.threshold) / layer.threshold).relu().mean(dim=(0, 1))
        parts.append(short * below)
    return torch.cat(parts).mean()


@without_autocast
@torch.no_grad()
def fire_at(
    net: SpikingNet,
    images: Tensor,
    rate: float = 0.05,
    how: str = "thresholds",
    seed: int = 0,
    last: bool = True,
) -> SpikingNet:
    """Set the network, layer by layer, so that its neurons fire at the wanted rate; derived in chapter 11.

    Parameters
    ----------
    net : changed in place.
    images : `[B, 1, 28, 28]`, some hundreds; labels are not needed.
    rate : wanted, in spikes a neuron and step, on these images.
    how : `"thresholds"`: one threshold for each layer; the penalty is scaled with it, so that a spike leaves the
        same share of the charge. `"weights"`: each layer's weights are scaled until its charge, were there no
        spikes, has a standard deviation of one threshold, and each neuron's bias is set to give that neuron
        the rate.
    seed : of the flicker.
    last : whether the last layer is set too; its states need no spikes to be read.
    """
    if not 0 < rate < 0.5:
        raise ValueError(f"rate must lie between 0 and 0.5 spikes a step, not {rate}")
    if how not in ("thresholds", "weights"):
        raise ValueError(f"how must be 'thresholds' or 'weights', not {how!r}")
    layers = _feedforward_layers(net, last, how)
    device = next(net.parameters()).device
    frames = net.frames(images.to(device), seeded(seed))
    for layer in layers:
        inputs, currents = _arriving(net, frames, layer)
        if how == "thresholds":
            _set_threshold(layer, currents, rate, len(frames))
        else:
            _set_weights(layer, inputs, rate, len(frames))
    return net


def _feedforward_layers(net: SpikingNet, last: bool, how: str) -> list[SpikingLayer]:
    """The layers that `fire_at` sets: of any neurons, as long as these hear nothing but `linear` of the layer below."""
    told = "fire_at sets the layers of a SpikingNet that hear nothing but the layer below"
    if not isinstance(net, SpikingNet):
        raise TypeError(f"{told}; {type(net).__name__} is another kind of network")
    if last and type(net).run is not SpikingNet.run:
        raise ValueError(
            f"{told}; {type(net).__name__} runs them in a way of its own: give last=False to leave its last"
        )
    ways, layers = ("forward", "run", "currents"), []
    for place, layer in enumerate(net.layers if last else net.layers[:-1], start=1):
        if not isinstance(layer, SpikingLayer) or any(
            getattr(type(layer), way) is not getattr(SpikingLayer, way) for way in ways
        ):
            raise TypeError(f"{told}; layer {place} is a {type(layer).__name__}, which does more")
        if isinstance(layer.threshold, Tensor) or isinstance(layer.penalty, Tensor):
            raise TypeError(f"{told}; layer {place} learns its threshold or penalty")
        if how == "weights" and weight_and_bias(layer.linear) is None:
            raise TypeError(
                f"how='weights' sets the weights and biases of an nn.Linear; layer {place} has a"
                f" {type(layer.linear).__name__} in its place"
            )
        layers.append(layer)
    return layers


def _arriving(net: SpikingNet, frames: Tensor, layer: SpikingLayer) -> tuple[Tensor, Tensor]:
    """What reaches a layer and its neurons in the network's own run: inputs and currents, time first."""
    caught: list[tuple[Tensor, Tensor]] = []
    hook = layer.linear.register_forward_hook(lambda _, given, made: caught.append((given[0], made)))
    try:
        net.run(frames)
    finally:
        hook.remove()
    inputs, currents = caught[0]
    if len(currents) == 1:  # a steady image, whose one product serves all steps
        currents = currents.expand(len(frames), -1, -1)
    return inputs, currents


def _set_threshold(layer: SpikingLayer, currents: Tensor, rate: float, n_steps: int) -> None:
    ratio = layer.penalty / layer.threshold
    low, high = 1e-4, 1e4
    for _ in range(40):
        middle = math.sqrt(low * high)
        layer.threshold, layer.penalty = middle, ratio * middle
        low, high = (middle, high) if _rates(layer, currents, n_steps).mean().item() > rate else (low, middle)
    layer.threshold, layer.penalty = high, ratio * high


def _set_weights(layer: SpikingLayer, inputs: Tensor, rate: float, n_steps: int) -> None:
    def currents() -> Tensor:
        made: Tensor = layer.linear(inputs)
        return made.expand(n_steps, -1, -1) if len(made) == 1 else made

    charge = torch.zeros_like(currents()[0])
    for current in currents():  # were there no spikes
        charge = current + layer.decay * charge
    layer.linear.weight.mul_(layer.threshold / charge.std(dim=0).mean().clamp(min=1e-12))
    layer.linear.bias.zero_()
    arriving = currents()
    low = torch.full_like(layer.linear.bias, -100 * layer.threshold)
    high = -low
    for _ in range(40):
        middle = (low + high) / 2
        above = _rates(layer, arriving + middle, n_steps) > rate
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    layer.linear.bias.copy_(high)


def _rates(layer: SpikingLayer, currents: Tensor, n_steps: int) -> Tensor:
    """The share of the `n_steps` of a showing in which each neuron fires, `[n_neurons]`."""
    state = torch.zeros_like(currents[0])
    fired = torch.zeros_like(currents[0, 0])
    for current in currents[:-1]:  # the last step's outputs are never handed out
        output, state = layer.step(current, state)
        fired += (output > 0).to(fired.dtype).mean(dim=0)
    return fired / n_steps


# --- Diagnosis ------------------------------------------------------------------------------------


ALWAYS = 0.8  # a neuron that fires in more than this share of all steps is always firing


@dataclass(frozen=True)
class LayerHealth:
    """One layer on some images, its neurons one by one: `rates`, `peaks` and `reached` are `[n_neurons]`.

    `rates`: the share of steps in which a neuron fires, over all images. `peaks`: the highest charge
    that it ever had, in thresholds; it fires above 1. `reached`: whether a gradient reaches its current,
    and so its bias. `gradient`: the root mean square of the gradient over all of the layer's weights,
    which need an input to be reached, too.
    """

    rates: Tensor
    peaks: Tensor
    reached: Tensor
    gradient: float

    @property
    def rate(self) -> float:
        """The firing rate, in spikes a neuron and step."""
        return self.rates.mean().item()

    @property
    def dead(self) -> float:
        """The share of neurons that never fire on these images."""
        return (self.rates == 0).to(torch.float32).mean().item()

    @property
    def always(self) -> float:
        """The share of neurons that fire in more than 80 % of the steps."""
        return (self.rates > ALWAYS).to(torch.float32).mean().item()

    @property
    def reach(self) -> float:
        """The share of neurons that a gradient reaches."""
        return self.reached.to(torch.float32).mean().item()


@without_autocast
@with_gradients
def diagnose(net: SpikingNet, images: Tensor, labels: Tensor, seed: int = 0) -> list[LayerHealth]:
    """Show the images to the network and look at each layer, the first one first; derived in chapter 11.

    `images` `[B, 1, 28, 28]` and `labels` `[B]`; some hundreds of each. The flicker comes from the
    seed. The gradient is that of the loss without penalties; the network is left as it was.
    """
    layers = plain_layers(net, "diagnose", any_read_out=True)
    device = next(net.parameters()).device
    n_classes = layers[-1].n_neurons // getattr(net, "per_label", 1)
    images, labels = images.to(device), classes(labels, len(images), n_classes).to(device)
    # A copy, in which nothing is frozen: the network is left as it was, whatever happens.
    twin = copy.deepcopy(net).eval().requires_grad_()
    with torch.no_grad():
        records = twin.record(images, seeded(seed))
    linears = [layer.linear for layer in plain_layers(twin, "diagnose", any_read_out=True)]
    loss = F.nll_loss(twin(images, generator=seeded(seed)), labels)
    wanted = [linear.weight for linear in linears] + [linear.bias for linear in linears]
    gradients = torch.autograd.grad(loss, wanted)
    of_weights, of_biases = gradients[: len(layers)], gradients[len(layers) :]
    return [
        LayerHealth(
            rates=(record.outputs > 0).to(torch.float32).mean(dim=(0, 1)).cpu(),
            peaks=(charges(record, layer.threshold).amax(dim=(0, 1)) / layer.threshold).cpu(),
            reached=(of_bias != 0).cpu(),
            gradient=of_weight.square().mean().sqrt().item(),
        )
        for layer, record, of_weight, of_bias in zip(layers, records, of_weights, of_biases)
    ]


def explain(health: list[LayerHealth]) -> list[str]:
    """One line for each layer, which names what is wrong with it and the cause; derived in chapter 11."""
    lines = []
    for index, layer in enumerate(health):
        faults = [fault for fault in (_firing_fault(health, index), _gradient_fault(health, index)) if fault]
        told = "; ".join(faults) if faults else "no fault found"
        lines.append(f"layer {index + 1}: {told} ({layer.rate:.3f} spikes a neuron and step).")
    return lines


def _firing_fault(health: list[LayerHealth], index: int) -> str:
    layer = health[index]
    n_dead, n_neurons = int((layer.rates == 0).sum()), len(layer.rates)
    if n_dead == n_neurons:
        if index > 0 and health[index - 1].rate == 0:
            return f"silent, because layer {index} below it is silent and nothing but the biases arrives"
        highest = layer.peaks.max()
        return f"silent, because its threshold is out of reach: the highest charge is {highest:.2f} thresholds"
    if layer.always > 0.1:
        return f"{layer.always:.0%} of its neurons fire in nearly every step, because their input is too strong"
    if layer.dead > 0.1:
        highest = layer.peaks[layer.rates == 0].median()
        return (
            f"{n_dead} of {n_neurons} neurons are dead, because their input is too weak: half of them never charge to"
            f" more than {highest:.2f} thresholds"
        )
    return ""


def _gradient_fault(health: list[LayerHealth], index: int) -> str:
    layer = health[index]
    if layer.reach > 0.5 and layer.gradient > 0:
        return ""
    # What stops the gradient is the topmost layer that it does not reach.
    blocks = [i for i in range(index + 1, len(health)) if health[i].reach == 0]
    n_reached, n_neurons = int(layer.reached.sum()), len(layer.reached)
    if n_reached == 0 and blocks:
        cause = "is silent" if health[blocks[-1]].rate == 0 else "fires whatever it receives"
        return f"no gradient arrives, because it cannot cross layer {blocks[-1] + 1}, which {cause}"
    if n_reached == 0 and layer.rate == 0:
        return "no gradient arrives, because none of its neurons fires"
    if n_reached == 0:
        return "no gradient arrives, though it fires: what is read no longer depends on its input"
    if n_reached > 0 and layer.gradient == 0:
        return f"only its biases can learn, because layer {index}, which is silent, gives its weights nothing to weigh"
    return f"the gradient reaches only {n_reached} of {n_neurons} neurons, as it passes only through neurons that fire"


def plot_health(axes: Sequence[Axes], health: Sequence[LayerHealth], title: str = "") -> None:
    """What `diagnose` found, a column for each layer, in two axes.

    Left, a dot for each neuron at its firing rate, red where it never fires, and the share of dead ones above. Right,
    the size of the gradient of a weight, and the share of neurons that it reaches, or that only their biases have one.
    """
    left, right = axes
    for layer, found in enumerate(health, start=1):
        rates = found.rates.sort().values
        places = layer + torch.linspace(-0.3, 0.3, len(rates)) if len(rates) > 1 else torch.tensor([float(layer)])
        for chosen, colour in ((rates > 0, BLUE), (rates == 0, RED)):
            left.plot(places[chosen], rates[chosen], "o", color=colour, markersize=3)
        left.text(layer, 1.2, f"{found.dead:.0%}\ndead", ha="center", va="bottom", fontsize=9)
        colour = PURPLE if found.gradient > 0 else RED
        right.bar(layer, found.gradient, color=colour, width=0.6)
        without = "biases\nonly" if found.reach > 0 else "none\narrives"
        told = f"reaches\n{found.reach:.0%}" if found.gradient > 0 else without
        right.text(layer, 1.3 * found.gradient + 1e-8, told, ha="center", va="bottom", fontsize=9)
    layers = range(1, len(health) + 1)
    left.set_yscale("symlog", linthresh=1e-3, linscale=0.5)
    left.set(ylim=(-3e-4, 1), ylabel="spikes a step", xlabel="layer")
    left.set_title(f"{title}: spikes" if title else "", pad=32)
    right.set_yscale("symlog", linthresh=1e-7, linscale=0.3)
    right.set(ylim=(0, 10), ylabel="gradient of a weight\n(root mean square)", xlabel="layer")
    right.set_title(f"{title}: gradient" if title else "", pad=32)
    right.set_yticks([0, 1e-6, 1e-4, 1e-2, 1])
    left.set_yticks([0, 1e-2, 1e-1, 1])
    for ax in axes:
        ax.set_xticks(layers)
        ax.set_xlim(0.4, len(health) + 0.6)


# --- The trials -----------------------------------------------------------------------------------


LAYERS = (2, 3, 4)


FLOOR = 0.2  # twice chance: a network that reads fewer digits has learned nothing


# The repairs, alone and together: what is read, how many layers, and which repair; and the learning rate at which the
# search for the best one starts.
ONE: dict[str, Any] = {"readout": "spikes"}


MANY: dict[str, Any] = {"readout": "spikes", "per_label": 10}


FOUR: dict[str, Any] = {"n_layers": 4}


REPAIRS: dict[str, tuple[dict[str, Any], float]] = {
    "one neuron a label": (ONE, 1.0),
    "one, thresholds": (ONE | {"fire": "thresholds"}, 0.56),
    "one, weights": (ONE | {"fire": "weights"}, 0.15),
    "one, penalty for silence": (ONE | {"push": 1.0}, 0.47),
    "ensembles, product": (MANY, 0.33),
    "ensembles, mixture": (MANY | {"reading": "mixture"}, 3.3),
    "ensembles, shared as normalised": (MANY | {"share": "normalised"}, 1.0),
    "ensembles, shared with the silent": (MANY | {"share": "silent"}, 0.33),
    "four layers, as drawn": (FOUR, 0.1),
    "four layers, thresholds": (FOUR | {"fire": "thresholds", "rate": 0.2}, 0.1),
    "four layers, weights": (FOUR | {"fire": "weights", "rate": 0.2}, 0.033),
    "four layers, penalty for silence": (FOUR | {"push": 1.0}, 0.15),
    "four layers, decay 0.99": (FOUR | {"decay": 0.99}, 0.018),
    "four layers, thresholds, discharge": (FOUR | {"fire": "thresholds", "rate": 0.2, "reset": "discharge"}, 0.056),
    "four layers, weights, discharge": (FOUR | {"fire": "weights", "rate": 0.2, "reset": "discharge"}, 0.01),
}


# The networks of the race: whether one spikes, its layers, and the neurons in each hidden one. With 125 of these two
# layers have as many weights as four with 100.
RACERS: dict[str, tuple[bool, int, int]] = {
    "spiking, two layers": (True, 2, 100),
    "spiking, two wide layers": (True, 2, 125),
    "spiking, four layers": (True, 4, 100),
    "ordinary, two layers": (False, 2, 100),
    "ordinary, two wide layers": (False, 2, 125),
    "ordinary, four layers": (False, 4, 100),
}


# How the first weights come about. An ordinary network as drawn has those of nn.Linear.
STARTS = ("as drawn", "thresholds", "weights")


DRAWS = ("as drawn", "Xavier", "He")


# Each racer with each of its starts, and the learning rate at which the search begins. The two wide layers, a control,
# have one start. Four spiking layers as drawn
# are not in it: they learn nothing, as the repairs show.
RACE: list[tuple[dict[str, Any], float]] = [
    ({"network": "spiking, two layers", "start": "as drawn"}, 0.1),
    ({"network": "spiking, two layers", "start": "thresholds"}, 0.082),
    ({"network": "spiking, two layers", "start": "weights"}, 0.082),
    ({"network": "spiking, two wide layers", "start": "thresholds"}, 0.082),
    ({"network": "spiking, four layers", "start": "thresholds"}, 0.082),
    ({"network": "spiking, four layers", "start": "weights"}, 0.022),
    ({"network": "ordinary, two layers", "start": "as drawn"}, 0.22),
    ({"network": "ordinary, two layers", "start": "Xavier"}, 0.18),
    ({"network": "ordinary, two layers", "start": "He"}, 0.15),
    ({"network": "ordinary, two wide layers", "start": "as drawn"}, 0.22),
    ({"network": "ordinary, two wide layers", "start": "Xavier"}, 0.18),
    ({"network": "ordinary, two wide layers", "start": "He"}, 0.15),
    ({"network": "ordinary, four layers", "start": "as drawn"}, 0.18),
    ({"network": "ordinary, four layers", "start": "Xavier"}, 0.12),
    ({"network": "ordinary, four layers", "start": "He"}, 0.1),
]


def depth_trial(
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    n_layers: int = 2,
    hidden: int = 100,
    fire: str = "as drawn",
    rate: float = 0.1,
    learning_rate: float = 0.1,
    n_steps: int = 32,
    batch_size: int = 1000,
    n_probe: int = 500,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one network of `n_layers` on digits and look at its neurons before and after; derived in chapter 11.

    The schedule is the article's: an epoch each at `learning_rate` times 1, 0.5 and 0.1. `hidden` is the number of
    neurons in each layer but the last. `fire` says how the network is set from 300 training images: `"as drawn"` is
    not at all, else as `how` of `fire_at`, to the rate. A last layer that is read by its states is left as it was
    drawn. `settings` are those of `EnsembleNet`.

    Returns `test_accuracy` and `test_loss` (0 and None if training diverged), `train_accuracy` and `train_loss` of at
    most 2,000 training images, and, `before` and `after` training, layer by layer on `n_probe` test images: `rate`,
    `dead`, `always`, `reach`, `gradient`; and `dead_labels`, the number of labels of whose ensemble no neuron ever
    fires.
    """
    one_of("fire", fire, STARTS)
    device = pick_device(device)
    net = EnsembleNet(n_steps, sizes=_sizes(n_layers, hidden), generator=seeded(seed), **settings).to(device)
    if fire != "as drawn":
        fire_at(net, train.tensors[0][:300], rate, fire, seed=seed, last=net.readout == "spikes")
    images, labels = (part[:n_probe] for part in test.tensors)
    before = _health(net, images, labels, seed)
    row = _trained(net, seed, train, test, learning_rate, batch_size, device)
    return {"before": before} | row | ({} if "diverged" in row else {"after": _health(net, images, labels, seed)})


def _sizes(n_layers: int, hidden: int) -> tuple[int, ...]:
    if n_layers not in LAYERS:
        raise ValueError(f"n_layers must be one of {', '.join(map(str, LAYERS))}, not {n_layers!r}")
    return (784, *[whole("hidden", hidden)] * (n_layers - 1), 10)


def _trained(
    net: SpikingNet | MLP,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    learning_rate: float,
    batch_size: int,
    device: str | torch.device,
) -> dict[str, Any]:
    """What became of a network that was trained by the article's schedule."""
    row: dict[str, Any] = {"seed": seed}
    rates = [learning_rate * factor for factor in (1.0, 0.5, 0.1)]
    try:
        history = fit(net, train, seed=seed, device=device, learning_rates=rates, batch_size=batch_size, progress=False)
    except TrainingDiverged:
        return row | {"test_accuracy": 0.0, "test_loss": None, "diverged": True}
    on_test, on_train = evaluate(net, test, seed=seed), evaluate(net, examples(train, 2000), seed=seed)
    return row | {
        "n_updates": len(history.loss),
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss if math.isfinite(on_test.loss) else None,
        "train_accuracy": on_train.accuracy,
        "train_loss": on_train.loss if math.isfinite(on_train.loss) else None,
        "seconds": round(history.seconds, 2),
    }


def _health(net: EnsembleNet, images: torch.Tensor, labels: torch.Tensor, seed: int) -> dict[str, Any]:
    found = diagnose(net, images, labels, seed)
    fired = (found[-1].rates > 0).unflatten(0, (net.per_label, -1)).any(dim=0)
    row: dict[str, Any] = {
        name: [significant(getattr(layer, name), 4) for layer in found]
        for name in ("rate", "dead", "always", "reach", "gradient")
    }
    return row | {"dead_labels": int((~fired).sum())}


def race_trial(
    network: str,
    start: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float = 0.1,
    batch_size: int = 50,
    device: str | torch.device = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train one of `RACERS` from one of its starts; derived in chapter 11.

    A spiking one starts by one of `STARTS`, at 0.2 spikes a neuron and step where it is set from data; `settings` are
    those of `depth_trial`, whose row it returns. An ordinary one starts with weights from one of `DRAWS`; its row has
    the same names, but for the neurons. `n_weights` counts weights and biases.
    """
    spiking, n_layers, hidden = RACERS[one_of("network", network, tuple(RACERS))]
    sizes = _sizes(n_layers, hidden)
    counted = {"n_weights": sum((n_in + 1) * n_out for n_in, n_out in zip(sizes, sizes[1:]))}
    of_both: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": batch_size, "device": device}
    if spiking:
        given: dict[str, Any] = {"n_layers": n_layers, "hidden": hidden, "fire": start, "rate": 0.2}
        return counted | depth_trial(seed, train, test, **given, **of_both, **settings)
    return counted | _trained(drawn_mlp(sizes, start, seed), seed, train, test, **of_both)


def drawn_mlp(sizes: Sequence[int], draw: str, seed: int) -> MLP:
    """An ordinary network whose weights have the variance of nn.Linear's, of Xavier's, or of He's; see chapter 11."""
    one_of("draw", draw, DRAWS)
    net, generator = MLP(sizes, generator=seeded(seed)), seeded(seed)
    if draw != "as drawn":
        for linear, n_in, n_out in zip(net.layers, sizes, sizes[1:]):
            assert isinstance(linear, nn.Linear)
            variance = 2 / (n_in + n_out) if draw == "Xavier" else 2 / n_in
            draw_uniform(linear.weight, math.sqrt(3 * variance), generator)
            draw_uniform(linear.bias, 1 / math.sqrt(n_in), generator)
    return net


# --- What is said of them -------------------------------------------------------------------------


LEARNED = 0.8  # who lost one of the ten labels, or more, reads fewer digits


MARGIN = 0.5  # points of accuracy: two networks of the race that differ by less are alike


def n_learned(accuracies: Sequence[float]) -> str:
    """Accuracies, one a seed, of trainings of which some fail, in words: an interval of their mean says nothing."""
    values = sorted(accuracies)
    n = len(values)
    middle = (values[(n - 1) // 2] + values[n // 2]) / 2
    learned = sum(value > LEARNED for value in values)
    told = [f"{100 * value:.1f}" for value in (middle, values[0], values[-1])]
    return f"{learned} of {n} learned; median {told[0]} % ({told[1]} to {told[2]})"


def compare_repairs(first: Sequence[float], second: Sequence[float], comparisons: int) -> str:
    """Accuracies of two variants, one a seed, in words: by points where all trainings succeed, else by how many do.

    How many is Fisher's exact test, and it has to pass its share of 5 %: one of several `comparisons`.
    """
    from scipy.stats import fisher_exact

    n = len(first)
    learned = [sum(value > LEARNED for value in values) for values in (first, second)]
    if learned == [n, n]:
        told = told_difference([100 * (one - other) for one, other in zip(first, second, strict=True)], comparisons)
        return f"all learn; in points {told}"
    p = float(fisher_exact([[count, n - count] for count in learned])[1])
    found = "open" if p * comparisons >= 0.05 else "clearly more" if learned[0] > learned[1] else "clearly fewer"
    told = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    return f"{learned[0]} of {n} learn against {learned[1]} of {n} ({told}): {found}"


def told_difference(points: Sequence[float], comparisons: int) -> str:
    """A difference in points, one a seed, with its interval, one of several `comparisons`, and what follows from it."""
    mean, half = mean_and_interval(points, comparisons)
    alike = abs(mean) + half < MARGIN
    if abs(mean) > half:
        found = "ahead" if mean > 0 else "behind"
        found += f", by less than {MARGIN} points" if alike else ""
    else:
        found = f"alike, within {MARGIN} points" if alike else "open"
    return f"{mean:+.2f} ± {half:.2f}: {found}"


# --- The records ----------------------------------------------------------------------------------


def measure_repair(variant: str, held_out: bool = True, **settings: Any) -> dict[str, Any]:
    """The article's number of updates, 180, with 3,000 images; rates are chosen on 2,000 held-out training images."""
    train, whole_test = whole_mnist()
    test = examples(train, 58_000, 60_000) if held_out else whole_test
    return depth_trial(train=examples(train, 3000), test=test, batch_size=50, **REPAIRS[variant][0], **settings)


def measure_race(held_out: bool = True, **settings: Any) -> dict[str, Any]:
    """As `race_trial`, on 8,000 images; rates and starts are chosen on 5,000 held-out training images."""
    train, whole_test = whole_mnist()
    test = examples(train, 55_000, 60_000) if held_out else whole_test
    return race_trial(train=examples(train, 8_000), test=test, **settings)


def chosen_rate(rows: Sequence[Mapping[str, Any]], start: float, **variant: Any) -> float:
    """The learning rate that a record of tuning chooses; where nothing learned, the one at which the search began."""
    scores = scores_of(rows, **variant)
    return start if max(means(scores).values()) <= FLOOR else choose(scores)


def repair_trials() -> list[dict[str, Any]]:
    """Each variant at the learning rate whose held-out accuracy is best; two layers, of which some fail, more often."""
    rows = load_results("11_mending_rates")["trials"]
    best = {variant: chosen_rate(rows, start, variant=variant) for variant, (_, start) in REPAIRS.items()}
    return [
        {"variant": variant, "learning_rate": best[variant], "held_out": False, "seed": seed}
        for seed in range(10)
        for variant, (settings, _) in REPAIRS.items()
        if seed < 5 or "n_layers" not in settings
    ]


def chosen_starts(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, float]]:
    """For each network of the race the start, and its learning rate, whose held-out accuracy is best."""
    found: dict[str, tuple[float, str, float]] = {}
    for variant, _ in RACE:
        scores = scores_of(rows, **variant)
        rate = choose(scores)
        candidate = (means(scores)[rate], variant["start"], rate)
        found[variant["network"]] = max(found.get(variant["network"], candidate), candidate)
    return {network: (start, rate) for network, (_, start, rate) in found.items()}


def race_trials() -> list[dict[str, Any]]:
    """Each network with the start and the learning rate whose held-out accuracy is best."""
    best = chosen_starts(load_results("11_race_rates")["trials"])
    return [
        {"network": network, "start": start, "learning_rate": rate, "held_out": False, "seed": seed}
        for seed in range(5)
        for network, (start, rate) in best.items()
    ]


RECORDS: dict[str, Record] = {
    "11_mending_rates": Record(
        "The repairs of dead neurons, alone and together, at several learning rates: 32 steps, 180 updates of 50"
        " images, 3,000 training images, 2,000 held out as 'test'",
        measure_repair,
        partial(
            tuning_trials,
            "11_mending_rates",
            [({"variant": variant}, start) for variant, (_, start) in REPAIRS.items()],
            floor=FLOOR,
        ),
    ),
    "11_mending": Record(
        "The repairs of dead neurons, alone and together, each at its best learning rate of 11_mending_rates: 32"
        " steps, 180 updates of 50 images, 3,000 training images, 10,000 test images",
        measure_repair,
        repair_trials,
    ),
    "11_race_rates": Record(
        "Two layers and four, spiking and not, from several starts and at several learning rates: 32 steps, 480 updates"
        " of 50 images, 8,000 training images, 5,000 held out as 'test'",
        measure_race,
        partial(tuning_trials, "11_race_rates", RACE, floor=FLOOR),
    ),
    "11_race": Record(
        "Two layers and four, spiking and not, each from its best start and at its best learning rate of"
        " 11_race_rates: 32 steps, 480 updates of 50 images, 8,000 training images, 10,000 test images",
        measure_race,
        race_trials,
    ),
}
