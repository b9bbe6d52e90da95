"""The explorer of chapter 07: one neuron, nudged once; what autograd says of it, and what really happens."""

from __future__ import annotations

import math

import traitlets as t
from torch import Tensor

from snn_helpers.neurons import RESETS, Neuron
from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

N_STEPS = 40


class NudgeExplorer(Explorer):
    """One neuron in a noisy current that gets a small extra pulse, a nudge: derived in chapter 07.

    Traits: `size` of the nudge, added to the current of the step `at`, 0 to 39; `trials`, how many draws of the noise
    are averaged; `mean` and `noise`, the standard deviation, of the current; `penalty` and `reset` as in
    `neuron_step`; `seed`. The decay is 0.9 and the threshold 1. `currents()` and `neuron` give what is run.
    """

    _esm = bundle("nudge_explorer.js")
    _settings = ("size", "at", "trials", "mean", "noise", "penalty", "reset", "seed")

    size = Number(0.05, min=-1, max=1).tag(sync=True)
    at = Whole(12, min=0, max=N_STEPS - 1).tag(sync=True)
    trials = Whole(1, min=1, max=200).tag(sync=True)
    mean = Number(0.25, min=-1, max=2).tag(sync=True)
    noise = Number(0.15, min=0, max=1).tag(sync=True)
    penalty = Number(1.5, min=0, max=4).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)

    @property
    def neuron(self) -> Neuron:
        """The settings of the neuron."""
        return Neuron.of_numbers(0.9, 1.0, self.penalty, self.reset)

    def currents(self) -> Tensor:
        """The currents without the nudge, `[40, trials]`, float64."""
        first, second = uniform(self.seed, 2 * self.trials * N_STEPS).view(self.trials, 2, N_STEPS).unbind(dim=1)
        draws = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()  # normal, by Box and Muller
        currents: Tensor = self.mean + self.noise * draws
        return currents.T.contiguous()
