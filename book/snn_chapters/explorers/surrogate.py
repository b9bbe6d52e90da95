"""What a surrogate promises, and what a nudge does: the explorer of chapter 12."""

from __future__ import annotations

import traitlets as t
from torch import Tensor

from snn_helpers.neurons import RESETS
from snn_helpers.widgets import Explorer, Number, Whole, bundle, flickering_current

# Those of snn_chapters.binary, of which a test makes sure.
SHAPES = ("fast sigmoid", "arctan", "sigmoid", "triangle", "rectangle", "none")


class SurrogateExplorer(Explorer):
    """One neuron of binary spikes: the gradient of its number of spikes, beside what a nudge of its input does.

    Traits, which the sliders set and Python can read, set and observe: `shape` and `slope` of the surrogate;
    `decay`, `threshold`, `penalty` and `reset` as in `neuron_step`; `strength`, the mean of the current; `flicker`,
    from 0 (steady) to 1 (uniform between 0 and twice the mean); `nudge`, by which the current of one step is
    raised; `seed`; `n_steps`. The reset is detached.
    """

    _esm = bundle("surrogate_explorer.js")
    _settings = (
        "shape", "slope", "decay", "threshold", "penalty", "reset", "strength", "flicker", "nudge", "seed", "n_steps",
    )  # fmt: skip
    _without_control = ("threshold", "penalty", "n_steps")

    shape = t.Enum(SHAPES, default_value="arctan").tag(sync=True)
    slope = Number(3.0, min=0.01).tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="subtract").tag(sync=True)
    strength = Number(0.2, min=0).tag(sync=True)
    flicker = Number(1.0, min=0, max=1).tag(sync=True)
    nudge = Number(0.3, min=0.001).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    n_steps = Whole(40, min=1, max=200).tag(sync=True)

    def current(self) -> Tensor:
        """The current that the explorer shows, `[n_steps]`, float64."""
        return flickering_current(self.strength, self.flicker, self.seed, self.n_steps)
