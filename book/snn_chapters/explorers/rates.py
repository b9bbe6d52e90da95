"""The explorer of chapter 04: two networks compared at learning rates that the reader chooses, fairly or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import traitlets as t

from snn_helpers.tuning import choose, scores_of
from snn_helpers.widgets import Explorer, Number, Whole, bundle

SPIKING = "spiking"


class RatesExplorer(Explorer):
    """The spiking network beside another, each at a learning rate of a recorded search: derived in chapter 04.

    Parameters
    ----------
    rows : the trials of the search, as `load_results` gives them: rows of the network "spiking" and of others.

    Traits: `other`, the network that it is compared with, one of those of the rows; `spiking_rate` and `other_rate`,
    of which the nearest one that was tried counts; `n_seeds`, 1 to 3, the first ones; `grid`: `"fine"`, all rates that
    were tried, or `"coarse"`, only those near 0.1 times a power of two. `differences()` gives what is compared.

    Raises
    ------
    ValueError : for rows without the spiking network, or without any other.
    """

    _esm = bundle("rates_explorer.js")
    _settings = ("other", "spiking_rate", "other_rate", "n_seeds", "grid")

    other = t.Unicode("mlp").tag(sync=True)
    spiking_rate = Number(0.1, min=0.001, max=10).tag(sync=True)
    other_rate = Number(0.22, min=0.001, max=10).tag(sync=True)
    n_seeds = Whole(3, min=1, max=3).tag(sync=True)
    grid = t.Enum(("fine", "coarse"), default_value="fine").tag(sync=True)
    _rows: t.List[Any] = t.List().tag(sync=True)
    _others = t.List(t.Unicode()).tag(sync=True)

    def __init__(self, rows: Sequence[Mapping[str, Any]], **settings: Any) -> None:
        names = list(dict.fromkeys(row["network"] for row in rows))
        self._networks = [name for name in names if name != SPIKING]
        if SPIKING not in names or not self._networks:
            raise ValueError(f"the rows must have the network {SPIKING!r} and another one; they have: {names}")
        self._trials = list(rows)
        settings.setdefault("other", self._networks[0])
        super().__init__(**settings)
        with self.hold_sync():
            self._rows = [
                [row["network"], row["learning_rate"], row["seed"], row["test_accuracy"]] for row in self._trials
            ]
            self._others = self._networks

    @t.validate("other")
    def _one_of_them(self, proposal: Any) -> str:
        if proposal["value"] not in self._networks:
            raise t.TraitError(f"other must be one of {', '.join(self._networks)}, not {proposal['value']!r}")
        return str(proposal["value"])

    def rates(self) -> tuple[float, float]:
        """The learning rates that count: the spiking network's, and the other's."""
        return self._nearest(SPIKING, self.spiking_rate), self._nearest(self.other, self.other_rate)

    def fair_rates(self) -> tuple[float, float]:
        """Those that `choose` takes."""
        first, second = (choose(scores_of(self._trials, network=name)) for name in (SPIKING, self.other))
        return first, second

    def differences(self, rates: tuple[float, float] | None = None, n_seeds: int | None = None) -> list[float]:
        """Seed by seed, the spiking network's held-out accuracy minus the other's, in points, at two of the rates.

        Without arguments, at those of the explorer, for as many of its seeds as both have.
        """
        first, second = (
            scores_of(self._trials, network=name)[rate]
            for name, rate in zip((SPIKING, self.other), rates or self.rates())
        )
        seeds = [seed for seed in sorted(first) if seed in second][: n_seeds or self.n_seeds]
        return [100 * (first[seed] - second[seed]) for seed in seeds]

    def _nearest(self, network: str, wanted: float) -> float:
        tried = list(scores_of(self._trials, network=network))
        if self.grid == "coarse":
            near = [(0.1 * 2.0**k, _nearest_of(tried, 0.1 * 2.0**k)) for k in range(-4, 6)]
            tried = sorted({rate for target, rate in near if abs(math.log(rate / target)) <= math.log(1.25)})
        return _nearest_of(tried, wanted)


def _nearest_of(rates: Sequence[float], wanted: float) -> float:
    """The nearest by its ratio; of two that are as near, the lower."""
    return min(rates, key=lambda rate: (round(abs(math.log(rate / wanted)), 12), rate))
