"""The explorer of chapter 09: a spike, the after-spike that late current provokes, and the window of both."""

from __future__ import annotations

from typing import Any

import traitlets as t

from snn_helpers.widgets import Explorer, Number, bundle

TRACES = ("followed", "taken as given")


class AfterSpikeExplorer(Explorer):
    """What a spike and its after-spike hand out in a steady current, and their window; first used in chapter 09.

    Traits, which the sliders set and Python can read, set and observe: `late_current`, `strength`, `after_decay` and
    `amplitude`, as in `after_spike_window`; `trace`: autograd has it `"followed"`, or `"taken as given"`, which is
    `detach`; `decay` as in `neuron_step`. `window()` gives them as `after_spike_window` and `after_spike_law` take
    them. `controls` and `more`: see `Explorer`.
    """

    _esm = bundle("after_spike_explorer.js")
    _settings = ("late_current", "strength", "after_decay", "trace", "decay", "amplitude")

    late_current = Number(0.5, min=0).tag(sync=True)
    strength = Number(0.2, min=0).tag(sync=True)
    after_decay = Number(0.8, min=0, max=0.98).tag(sync=True)
    trace = t.Enum(TRACES, default_value="followed").tag(sync=True)
    decay = Number(0.9, min=0, max=1).tag(sync=True)
    amplitude = Number(1.0, min=0.01).tag(sync=True)

    def window(self) -> dict[str, Any]:
        """The settings by the names that `after_spike_window` and `after_spike_law` give them."""
        names = ("late_current", "strength", "after_decay", "decay", "amplitude")
        return {name: getattr(self, name) for name in names} | {"detach": self.trace == "taken as given"}
