"""One spiking neuron, step by step.

Derived in chapter 01, `book/01_neuron_dynamics.ipynb`, cell by cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .long.checks import alike, floating, one_of, real

RESETS = ("scale", "discharge", "subtract", "zero")


@dataclass(frozen=True, eq=False)
class Neuron:
    """The settings of a neuron, checked, and what follows from them.

    Parameters
    ----------
    decay : the share of the state that survives one step, 0 (forgets at once) to 1 (never leaks).
    threshold : above 0, in units of the state.
    penalty : 0 or more, in units of the state.
    reset : one of `RESETS`; `neuron_step` says what each does.

    The first three are numbers, or, in a layer that learns them, tensors: one value, or one for each neuron.

    Raises `TypeError` or `ValueError` for settings that do not describe a neuron.
    """

    decay: float = 0.9
    threshold: float = 1.0
    penalty: float = 1.5
    reset: str = "scale"

    def __post_init__(self) -> None:
        for name, bounds in (("decay", {"most": 1.0}), ("threshold", {"above": 0.0}), ("penalty", {})):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                floating(name, value)
                for extreme in (value.min().item(), value.max().item()):
                    real(f"each {name}", extreme, least=0, **bounds)
            else:
                object.__setattr__(self, name, real(name, value, least=0, **bounds))
        one_of("reset", self.reset, RESETS)

    @classmethod
    def of_numbers(cls, decay: float, threshold: float, penalty: float, reset: str) -> Neuron:
        """A neuron that learns none of its settings: tensors are refused."""
        return cls(real("decay", decay), real("threshold", threshold), real("penalty", penalty), reset)

    def __iter__(self) -> Iterator[Any]:
        """The four settings in the order in which `neuron_step` takes them: `neuron_step(current, state, *neuron)`."""
        return iter((self.decay, self.threshold, self.penalty, self.reset))

    @property
    def taken_at_spike(self) -> float:
        """How much of a small change of the charge a spike takes away."""
        return {"scale": self.penalty / self.threshold, "discharge": 1.0, "subtract": 0.0, "zero": 1.0}[self.reset]

    @property
    def slope_at_spike(self) -> float:
        """How the state that a spike leaves answers to its charge, `dv'/dv`, with the spike held in place."""
        return 1 - self.taken_at_spike

    def step(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`neuron_step`: leak and charge, fire, reset."""
        charge = current + self.decay * state
        output = torch.relu(charge - self.threshold)
        # The gate is a step function: autograd sees a constant, and no gradient flows through it.
        gate = (output > 0).to(charge.dtype)
        return output, self.reset_where(gate, charge)

    def reset_where(self, gate: Tensor, charge: Tensor) -> Tensor:
        """The state that a charge leaves: reset where `gate` is 1, the charge itself where it is 0."""
        if self.reset == "scale":
            return charge - gate * (self.penalty / self.threshold) * charge
        if self.reset == "discharge":
            return charge - gate * (self.penalty + torch.relu(charge - self.threshold))
        if self.reset == "subtract":
            return charge - gate * self.threshold
        return charge - gate * charge  # "zero"


def neuron_step(
    current: Tensor,
    state: Tensor,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> tuple[Tensor, Tensor]:
    """Advance neurons by one time step; derived in chapter 01.

    The neuron leaks and charges, `v = current + decay * state`; puts out what is above the threshold, `output =
    max(0, v - threshold)`, a graded spike; and where it has fired it is reset:

    - `"scale"`, the article's code: `v - (penalty / threshold) * v`
    - `"discharge"`, the article's text: `v - penalty - output`, which is `threshold - penalty`
    - `"subtract"`, common in libraries: `v - threshold` (`penalty` is not used)
    - `"zero"`, common in libraries: `0` (`penalty` is not used)

    Parameters
    ----------
    current, state : tensors of one shape, floating dtype and device The input current of this step, and the state
        that the previous step left; both in units of the state, as are `threshold` and `penalty`. Zeros are the
        neuron at rest.
    decay, threshold, penalty, reset : as in `Neuron`.

    Returns `(output, state)`, both of `current`'s shape, of this step (not delayed).
    Raises `TypeError` or `ValueError` for settings, dtypes, shapes or devices that do not fit.
    """
    neuron = Neuron.of_numbers(decay, threshold, penalty, reset)
    alike(current=floating("current", current), state=floating("state", state))
    return neuron.step(current, state)
