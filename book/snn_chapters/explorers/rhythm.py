"""A population that hears itself, and whether it has a rhythm: the explorer of chapter 13."""

from __future__ import annotations

import math

import torch
import traitlets as t
from torch import Tensor

from snn_helpers.neurons import RESETS
from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

BURN_IN = 256  # as in snn_chapters.rhythms, of which a test makes sure


class RhythmExplorer(Explorer):
    """Neurons with noisy currents of their own that hear each other: raster, sum, autocorrelation, and the verdict.

    Traits, which the sliders set and Python can read, set and observe: `n` neurons; `current` and `noise`, the mean
    and the standard deviation of what each of them gets from outside; `inhibitory`, the share of them that inhibit
    (the others excite); `feedback`, how much a neuron hears if all others put out 1; `delay`, after how many steps
    an output comes back; `seed`; `decay`, `threshold`, `penalty` and `reset` as in `neuron_step`; `n_listened`, the
    steps after the burn-in.
    """

    _esm = bundle("rhythm_explorer.js")
    _settings = (
        "n", "current", "noise", "inhibitory", "feedback", "delay", "seed",
        "decay", "threshold", "penalty", "reset", "n_listened",
    )  # fmt: skip
    _without_control = ("decay", "threshold", "penalty", "reset", "n_listened")

    n = Whole(40, min=2, max=100).tag(sync=True)
    current = Number(0.5, min=0).tag(sync=True)
    noise = Number(0.3, min=0).tag(sync=True)
    inhibitory = Number(1.0, min=0, max=1).tag(sync=True)
    feedback = Number(0.0, min=0).tag(sync=True)
    delay = Whole(3, min=1, max=100).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="discharge").tag(sync=True)
    n_listened = Whole(1024, min=128, max=8192).tag(sync=True)

    def weights(self) -> Tensor:
        """The recurrent weights, `[n, n]`, float64, row by row those of the neuron that hears."""
        sign = torch.where(torch.arange(self.n) < math.floor(self.inhibitory * self.n + 0.5), -1.0, 1.0).double()
        drawn = uniform(self.seed, self.n**2).view(self.n, self.n)
        weights: Tensor = sign * self.feedback * 2 * drawn / self.n
        return weights

    def currents(self) -> Tensor:
        """What comes from outside, the burn-in included: `[BURN_IN + n_listened, 1, n]`, float64."""
        n_steps = BURN_IN + self.n_listened
        starts = (uniform(self.seed, self.n, self.n**2) * (BURN_IN // 2)).floor()
        draws = uniform(self.seed, self.n * n_steps, self.n**2 + self.n).view(n_steps, 1, self.n)
        currents = self.current + self.noise * math.sqrt(3) * (2 * draws - 1)
        return torch.where(torch.arange(n_steps)[:, None, None] < starts, 0.0, currents)
