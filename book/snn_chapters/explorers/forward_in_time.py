"""The explorer of chapter 10: one weight's derivative, forward in time and by backpropagation."""

from __future__ import annotations

import traitlets as t
from torch import Tensor

from snn_helpers import SpikingNet
from snn_helpers.long.plain_layers import plain_layers
from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

LAYERS = ("one", "two")
RESETS_TAKEN = ("known", "ignored")


class ForwardExplorer(Explorer):
    """The derivative of an answer by one weight, step by step; first used in chapter 10.

    An input that flickers reaches a neuron through the weight. The answer is the neuron's mean state (`layers` is
    `"one"`), or that of a second neuron that reads the first one's spikes (`"two"`).

    Traits, which the sliders set and Python can read, set and observe: `step`, how many steps are gone; `horizon`, for
    how many steps ahead the learning signal knows what a spike does to the second neuron; `resets`: the eligibility
    takes the neuron's resets as `"known"`, or as `"ignored"`, which leaves the plain trace of the input; `decay` and
    `penalty` as in `neuron_step`; `weight`, of the input; `bias`, the second neuron's steady current; `seed`, of the
    flicker; `n_steps`, which has no slider. `controls` and `more`: see `Explorer`.
    """

    _esm = bundle("forward_explorer.js")
    _settings = ("step", "layers", "horizon", "resets", "decay", "penalty", "weight", "bias", "seed", "n_steps")
    _without_control = ("n_steps",)

    step = Whole(60, min=0).tag(sync=True)
    layers = t.Enum(LAYERS, default_value="two").tag(sync=True)
    horizon = Whole(0, min=0).tag(sync=True)
    resets = t.Enum(RESETS_TAKEN, default_value="known").tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    weight = Number(0.4, min=0).tag(sync=True)
    bias = Number(0.2, min=0).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    n_steps = Whole(60, min=2).tag(sync=True)

    def frames(self) -> Tensor:
        """The input that the explorer shows, `[n_steps, 1, 1]`, float64: what `SpikingNet.run` takes."""
        return uniform(self.seed, self.n_steps)[:, None, None]

    def network(self) -> SpikingNet:
        """The neurons that the explorer shows, as a network in double precision."""
        net = SpikingNet(
            self.n_steps, 0, (1,) * (2 + LAYERS.index(self.layers)), self.decay, 1.0, self.penalty, "scale"
        ).double()
        weights, biases = (self.weight, 1.0), (0.0, self.bias)
        for layer, weight, bias in zip(plain_layers(net, "ForwardExplorer"), weights, biases):
            layer.linear.weight.data.fill_(weight)
            layer.linear.bias.data.fill_(bias)
        return net
