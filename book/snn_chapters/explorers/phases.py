"""A small machine that two phases teach, update by update: the explorer of chapter 14."""

from __future__ import annotations

from typing import Any

import torch
import traitlets as t
from torch import Tensor

from snn_helpers.widgets import Explorer, Number, Whole, bundle, uniform

RULES = ("two phases", "transition")
MOST = 10  # visible neurons: the page lists all their states
# Two rows of three pixels: each row, and each column.
PICTURES = ((1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1), (1, 0, 0, 1, 0, 0), (0, 1, 0, 0, 1, 0), (0, 0, 1, 0, 0, 1))


class PhasesExplorer(Explorer):
    """Copies of a Boltzmann machine through one cycle, the change that the cycle asks for, and the exact gradient.

    Parameters
    ----------
    weight : `[n_hidden, n_visible]`; visible_bias : `[n_visible]`; hidden_bias : `[n_hidden]`.
    pictures : `[n_pictures, n_visible]` of 0 and 1; each is shown to `n_copies` copies.

    Of a machine, all three parts must be given, or none: then one of 6 and 4 neurons is drawn, for the five pictures.

    Traits, which the controls set and Python can read, set and observe: `rule`, one of `RULES`; `decay`, `rest` and
    `n_steps` of each half, as in `half_cycle`; `picture`, whose copy is drawn, 1 for the first; `learning_rate`;
    `seed`; `updates`, how often the machine was changed; and the machine itself, as `weight`, `visible_bias` and
    `hidden_bias`, lists of numbers. `tensors()` gives the machine as it is now.

    Raises
    ------
    ValueError : for shapes or pictures that do not fit.
    """

    _esm = bundle("phases_explorer.js")
    _settings = (
        "rule", "decay", "rest", "n_steps", "picture", "learning_rate", "seed", "n_copies",
        "updates", "weight", "visible_bias", "hidden_bias",
    )  # fmt: skip
    _without_control = ("n_copies", "updates", "weight", "visible_bias", "hidden_bias")

    rule = t.Enum(RULES, default_value="two phases").tag(sync=True)
    decay = Number(0.5, min=0, max=0.99).tag(sync=True)
    rest = Whole(2, min=0, max=50).tag(sync=True)
    n_steps = Whole(10, min=1, max=200).tag(sync=True)
    picture = Whole(1, min=1).tag(sync=True)
    learning_rate = Number(1.0, min=0).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    n_copies = Whole(60, min=1, max=1000).tag(sync=True)
    updates = Whole(0, min=0).tag(sync=True)
    weight = t.List(t.List(Number())).tag(sync=True)
    visible_bias = t.List(Number()).tag(sync=True)
    hidden_bias = t.List(Number()).tag(sync=True)
    _pictures = t.List(t.List(Whole())).tag(sync=True)

    def __init__(
        self,
        weight: Any = None,
        visible_bias: Any = None,
        hidden_bias: Any = None,
        pictures: Any = PICTURES,
        **settings: Any,
    ) -> None:
        given = [part is not None for part in (weight, visible_bias, hidden_bias)]
        if not all(given) and any(given):
            raise ValueError("give all of weight, visible_bias and hidden_bias, or none of them")
        if not any(given):
            drawn = 2 * uniform(0, 34) - 1
            weight, visible_bias, hidden_bias = 2 * drawn[:24].view(4, 6), drawn[24:30], drawn[30:]
        parts = [
            torch.as_tensor(part).detach().cpu().double() for part in (weight, visible_bias, hidden_bias, pictures)
        ]
        if [part.dim() for part in parts] != [2, 1, 1, 2]:
            raise ValueError(
                "weight must have the shape [n_hidden, n_visible], the biases [n_visible] and [n_hidden], and pictures"
                f" [n_pictures, n_visible], not {', '.join(str(list(part.shape)) for part in parts)}"
            )
        n_hidden, n_visible = parts[0].shape
        found = [len(parts[1]), len(parts[2]), parts[3].shape[1]]
        if found != [n_visible, n_hidden, n_visible] or 0 in parts[3].shape or 0 in parts[0].shape:
            raise ValueError(
                f"a machine of {n_visible} visible and {n_hidden} hidden neurons needs as many biases and pixels,"
                f" not {found}"
            )
        if n_visible > MOST:
            raise ValueError(f"the page lists all visible states: at most {MOST} visible neurons, not {n_visible}")
        if not bool(((parts[3] == 0) | (parts[3] == 1)).all()):
            raise ValueError("pictures must hold 0 and 1 only: enumeration runs over such states")
        names = ("weight", "visible_bias", "hidden_bias")
        super().__init__(**dict(zip(names, (part.tolist() for part in parts))), **settings)
        self._pictures = [[int(pixel) for pixel in picture] for picture in parts[3]]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The machine as it is now, float64: weights `[n_hidden, n_visible]`, visible biases, hidden biases."""
        weight, visible, hidden = (
            torch.tensor(part, dtype=torch.float64) for part in (self.weight, self.visible_bias, self.hidden_bias)
        )
        return weight, visible, hidden
