"""A population's rhythm, and outputs fed back into inputs; derived in chapter 10."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .neurons import SpikingLayer, neuron_step

# --- Rhythms --------------------------------------------------------------------------------------


class Synchrony(NamedTuple):
    """What `synchrony` found, each `[F]`, float64 on the CPU; derived in chapter 10.

    `frequencies` in cycles a step; `power` of the population's rate, (spikes a step and neuron)² for a cycle
    a step; `ratio`, that power in units of what independent neurons would have.
    """

    frequencies: Tensor
    power: Tensor
    ratio: Tensor


def synchrony(spikes: Tensor, segment: int = 128) -> Synchrony:
    """The spectrum of the population's rate, beside that of independent neurons; derived in chapter 10.

    The power of a sum is the sum of the powers, plus what each pair of neurons shares. Without sharing the
    ratio is 1 at every frequency, but for chance; of n neurons in step it is n. Welch's estimate: Hann windows
    that overlap by half, each freed of its mean; frequency 0 is left out. Examples are pooled before dividing.

    Parameters
    ----------
    spikes : `[T, B, N]`, time first; what is not 0 counts as one spike.
    segment : how long a window is, in steps: 4 to T. Frequencies are `1 / segment` apart, up to a half.

    Raises
    ------
    TypeError, ValueError : for spikes that do not fit, or if no neuron has fired, or all always fire.
    """
    from scipy.signal import welch

    trains = _trains(spikes)
    if isinstance(segment, bool) or not isinstance(segment, int):
        raise TypeError(f"segment must be a whole number of steps, not {type(segment).__name__} ({segment!r})")
    if not 4 <= segment <= len(trains):
        raise ValueError(f"segment must lie between 4 and the number of steps, {len(trains)}, not {segment}")
    n_neurons = trains.shape[2]
    frequencies, alone = welch(trains.numpy(), nperseg=segment, axis=0)
    _, together = welch(trains.sum(dim=2).numpy(), nperseg=segment, axis=0)
    summed = torch.from_numpy(alone[1:]).sum(dim=(1, 2))
    if not bool((summed > 0).all()):
        raise ValueError("no neuron ever changed between firing and silence: there is no spectrum to speak of")
    of_sum = torch.from_numpy(together[1:]).sum(dim=1)
    power = of_sum / trains.shape[1] / n_neurons**2
    return Synchrony(torch.from_numpy(frequencies[1:].copy()), power, of_sum / summed)


def shift_trains(spikes: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each neuron's train moved round in a circle by an offset of its own: the control of chapter 10.

    Every train keeps its rate, its intervals and its own rhythm, but for the seam; who fires with whom is
    left to chance.
    `spikes` and what is returned: `[T, B, N]`. Offsets are uniform over 0 to T - 1, drawn on the CPU by `generator`.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    _trains(spikes)
    n_steps = len(spikes)
    offsets = torch.randint(n_steps, spikes.shape[1:], generator=generator).to(spikes.device)
    places = (torch.arange(n_steps, device=spikes.device)[:, None, None] + offsets) % n_steps
    return spikes.gather(0, places)


def regularity(spikes: Tensor, at_least: int = 20) -> Tensor:
    """How far each train is from a clock: 0 for a clock, 1 for coin flips at its rate; derived in chapter 10.

    The coefficient of variation of the intervals between spikes (standard deviation over mean), divided by that of
    a neuron that fires at random in each step, `sqrt(1 - rate)`, where `1 / rate` is the mean interval.

    `spikes` `[T, B, N]`; returns a value for each of the B x N trains with `at_least` intervals (2 or more) and a
    mean interval above 1, float64 on the CPU. A neuron that fires at every step has no choice to make, and is left out.
    Raises `TypeError` or `ValueError` for spikes that do not fit.
    """
    trains = _trains(spikes)
    if at_least < 2:
        raise ValueError(f"at_least must be 2 intervals or more, to speak of their spread, not {at_least}")
    found = []
    for train in trains.flatten(1).T:
        intervals = train.nonzero().flatten().diff().double()
        if len(intervals) >= at_least and intervals.mean() > 1:
            spread = intervals.std(correction=0) / intervals.mean()
            found.append(spread / (1 - 1 / intervals.mean()).sqrt())
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)


def _trains(spikes: Tensor) -> Tensor:
    """1 where there is a spike, else 0: `[T, B, N]` float64 on the CPU."""
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes must be a torch.Tensor, not {type(spikes).__name__}")
    if spikes.dim() != 3 or 0 in spikes.shape:
        raise ValueError(
            f"spikes must have the shape [steps, batch, neurons], each at least 1, not {list(spikes.shape)}"
        )
    return (spikes.detach() != 0).double().cpu()


# --- A layer that hears itself --------------------------------------------------------------------


class RecurrentSpikingLayer(SpikingLayer):
    """A `SpikingLayer` whose outputs come back as inputs, `delay` steps later; derived in chapter 10.

    At step t each neuron reads `layer.linear` of the input of this step plus `layer.recurrent` of what
    the layer's neurons put out at step `t - delay`; before there is anything to come back, zeros. With a
    delay of 1 that is exactly what the layer hands out at step t: the one-step delay closes the loop.
    `layer(inputs)` maps `[T, B, n_inputs]` to `(states, outputs)`, both `[T, B, n_neurons]` and delayed
    by one step, as in `SpikingLayer`.

    Parameters
    ----------
    n_inputs, n_neurons, decay, threshold, penalty, reset, generator : as in `SpikingLayer`; the same
        generator gives the same `layer.linear`.
    delay : after how many steps an output comes back, 1 or more.
    scale : the recurrent weights `layer.recurrent.weight` `[n_neurons, n_neurons]`, row by row those of
        the neuron that hears, start as `scale` times a Xavier-uniform draw; 0 or more.
    cut : autograd takes what comes back for a constant: the answers are the same, but no gradient
        flows around the loop.

    Raises
    ------
    TypeError, ValueError : for settings or inputs that do not fit.
    """

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        decay: float = 0.9,
        threshold: float = 2.0,
        penalty: float = 2.5,
        reset: str = "scale",
        generator: torch.Generator | None = None,
        delay: int = 1,
        scale: float = 1.0,
        cut: bool = False,
    ) -> None:
        super().__init__(n_inputs, n_neurons, decay, threshold, penalty, reset, generator)
        if isinstance(delay, bool) or not isinstance(delay, int):
            raise TypeError(f"delay must be a whole number of steps, not {type(delay).__name__} ({delay!r})")
        if delay < 1:
            raise ValueError(
                f"delay must be 1 step or more, since an output cannot come back before it is made: {delay}"
            )
        if not 0 <= scale < float("inf"):
            raise ValueError(f"scale must be a finite number of 0 or more, not {scale}")
        self.delay, self.cut = delay, cut
        self.recurrent = nn.Linear(n_neurons, n_neurons, bias=False)
        nn.init.xavier_uniform_(self.recurrent.weight, gain=scale, generator=generator)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run over time: `[T, B, n_inputs]` to `(states, outputs)`, each `[T, B, n_neurons]`."""
        super().forward(inputs[:1])  # one step of it, which refuses inputs that do not fit
        neuron = (self.decay, self.threshold, self.penalty, self.reset)
        currents = self.linear(inputs)
        silence = torch.zeros_like(currents[0])
        states, outputs = [silence], [silence]  # what is handed out: step t's stands at t + 1
        for t in range(len(inputs) - 1):
            back = outputs[t + 1 - self.delay] if t >= self.delay else silence
            heard = self.recurrent(back.detach() if self.cut else back)
            output, state = neuron_step(currents[t] + heard, states[t], *neuron)
            states.append(state)
            outputs.append(output)
        return torch.stack(states), torch.stack(outputs)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, delay={self.delay}" + (", cut=True" if self.cut else "")


class SequenceNet(nn.Module):
    """A hidden layer and a read-out for input that changes over time; derived in chapter 10.

    Maps frames `[B, T, n_inputs]` to log-probabilities `[B, n_classes]`. The logits are the states of
    the last layer, a `SpikingLayer`, averaged over the steps from `begin_eval` on.

    Parameters
    ----------
    hidden : a `SpikingLayer`, or one of its kind, such as `RecurrentSpikingLayer`.
    n_classes : 1 or more; the read-out has the hidden layer's neuron settings, but for `decay`.
    begin_eval : the first step that counts for the answer.
    read_decay : the read-out's own leak, 0 to 1. At 0 it remembers nothing: what is remembered is the hidden
        layer's doing.
    generator : where the read-out's initial weights come from; torch's global one if None.

    Raises
    ------
    TypeError, ValueError : for settings or frames that do not fit.
    """

    def __init__(
        self,
        hidden: SpikingLayer,
        n_classes: int,
        begin_eval: int = 0,
        read_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if isinstance(begin_eval, bool) or not isinstance(begin_eval, int) or begin_eval < 0:
            raise ValueError(f"begin_eval must be a step, 0 or more, not {begin_eval!r}")
        neuron = (hidden.threshold, hidden.penalty, hidden.reset)
        self.begin_eval = begin_eval
        self.hidden = hidden
        self.readout = SpikingLayer(hidden.n_neurons, n_classes, read_decay, *neuron, generator)

    def forward(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Log-probabilities `[B, n_classes]`; `generator` is not used: nothing here is drawn."""
        if frames.dim() != 3 or frames.shape[1] <= self.begin_eval:
            raise ValueError(
                f"frames must have the shape [batch, steps, inputs], with more steps than begin_eval"
                f" ({self.begin_eval}), not {list(frames.shape)}"
            )
        states, _ = self.readout(self.hidden(frames.transpose(0, 1))[1])
        return F.log_softmax(states[self.begin_eval :].mean(dim=0), dim=-1)
