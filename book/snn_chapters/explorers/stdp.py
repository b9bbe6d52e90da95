"""The explorer of chapter 05: two spike trains, their traces, the window of STDP, and Hebb's rule beside it."""

from __future__ import annotations

import torch
import traitlets as t
from torch import Tensor

from snn_helpers.plasticity import PAIRINGS
from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

N_PAIRINGS = 12  # of the pairing experiment that the explorer shows
MARGIN = 60  # steps before the first and after the last of them, and the longest delay
N_RANDOM = 600  # steps of the random trains


class STDPExplorer(Explorer):
    """Two spike trains, and what pair-based STDP and Hebb's rule make of them; derived in chapter 05.

    Traits: `trains`, which spikes there are: `"pair"`, one on each side; `"pairings"`, twelve pairs, one every
    `interval` steps; `"following"`, random spikes on the presynaptic side, which the postsynaptic one repeats;
    `"unrelated"`, random spikes on both. `delay`, t_post - t_pre in steps, of the first three; `rate` and `seed` of
    the random ones. `a_plus`, `a_minus`, `tau_plus`, `tau_minus` and `pairing` are those of `pair_stdp`.
    """

    _esm = bundle("stdp_explorer.js")
    _settings = (
        *("trains", "delay", "interval", "rate", "seed"),
        *("a_plus", "a_minus", "tau_plus", "tau_minus", "pairing"),
    )

    trains = t.Enum(("pair", "pairings", "following", "unrelated"), default_value="pair").tag(sync=True)
    delay = Whole(10, min=-MARGIN, max=MARGIN).tag(sync=True)
    interval = Whole(100, min=1, max=1000).tag(sync=True)
    rate = Number(0.02, min=0, max=1).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    a_plus = Number(1.0, min=0).tag(sync=True)
    a_minus = Number(0.6, min=0).tag(sync=True)
    tau_plus = Number(16.8, min=0.1).tag(sync=True)
    tau_minus = Number(33.7, min=0.1).tag(sync=True)
    pairing = t.Enum(PAIRINGS, default_value="all").tag(sync=True)

    def spikes(self) -> tuple[Tensor, Tensor]:
        """The two trains that the explorer shows, pre and post, `[T]` of 0 and 1, float64."""
        if self.trains in ("pair", "pairings"):
            times = MARGIN + self.interval * torch.arange(1 if self.trains == "pair" else N_PAIRINGS)
            pre, post = torch.zeros(2, int(times[-1]) + MARGIN + 1, dtype=torch.float64)
            pre[times], post[times + self.delay] = 1, 1
            return pre, post
        pre, post = (uniform(self.seed, 2 * N_RANDOM).view(2, -1) < self.rate).double()
        if self.trains == "following":
            post = torch.zeros_like(pre)
            cause = pre.nonzero().flatten() + self.delay
            post[cause[(cause >= 0) & (cause < N_RANDOM)]] = 1
        return pre, post

    @property
    def rule(self) -> dict[str, float]:
        """The four numbers of the rule, as `pair_stdp` takes them."""
        return {name: getattr(self, name) for name in ("a_plus", "a_minus", "tau_plus", "tau_minus")}
