"""The explorer of chapter 08: the window that the gradient draws around the spikes of a neuron that fires often."""

from __future__ import annotations

import torch
import traitlets as t
from torch import Tensor

from snn_helpers import neuron_step
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import Credit, reset_slope
from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

N_STEPS, N_INPUTS, WEIGHT = 60, 20, 0.25
WEIGHED = ("all alike", "times its error")


class ManySpikesExplorer(Explorer):
    """What a pulse earns by its delay to the spikes of a neuron that fires often; first used in chapter 08.

    Twenty inputs have pulses at random steps and reach the neuron through the same weight.

    Traits, which the sliders set and Python can read, set and observe: `rate`, pulses of an input a step; `wanted`, the
    share of the spikes that should be larger: the error of a spike is 1 or -1, drawn for each; `weigh`, whether in the
    mean all pairs count `"all alike"`, or each `"times its error"`; `trials`, of 60 steps; `decay`, `threshold`,
    `penalty` and `reset` as in `neuron_step`; `seed`. `controls` and `more`: see `Explorer`.
    """

    _esm = bundle("many_spikes_explorer.js")
    _settings = ("rate", "wanted", "weigh", "trials", "decay", "threshold", "penalty", "reset", "seed")

    rate = Number(0.05, min=0, max=1).tag(sync=True)
    wanted = Number(1.0, min=0, max=1).tag(sync=True)
    weigh = t.Enum(WEIGHED, default_value="all alike").tag(sync=True)
    trials = Whole(100, min=1, max=1000).tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)

    def drawn(self) -> tuple[Tensor, Tensor]:
        """The pulses `[60, trials, 20]`, 0 or 1, and the errors of the steps `[60, trials]`, 1 or -1; float64."""
        numbers = uniform(self.seed, self.trials * N_STEPS * (N_INPUTS + 1)).view(self.trials, N_STEPS, -1)
        pulses, errors = (numbers[..., :-1] < self.rate).double(), 2 * (numbers[..., -1] < self.wanted).double() - 1
        return pulses.movedim(0, 1), errors.T

    def factors(self) -> Credit:
        """What the neuron does with the pulses, as the factors of a gradient, with one neuron.

        The loss is minus the sum of all outputs, each times its error: gradient descent makes a wanted spike larger.
        """
        pulses, errors = self.drawn()
        settings = {"threshold": self.threshold, "penalty": self.penalty, "reset": self.reset}
        state, found = torch.zeros(self.trials, dtype=torch.float64), []
        for arriving in pulses.sum(dim=2):
            output, state = neuron_step(WEIGHT * arriving, state, self.decay, **settings)
            found.append(output)
        outputs = torch.stack(found)[..., None]
        slopes = reset_slope((outputs > 0).double(), **settings)
        return Credit(pulses, outputs, slopes, -errors[..., None] * (outputs > 0))
