"""Pairing protocols, scored by the gradient: repeated pairs and triplets of spikes; derived in chapter 08.

An experimenter makes a synapse's two neurons fire, again and again, and measures what the weight does. Here the neuron
is held by a voltage clamp, and the weight is scored by autograd's derivative: of the sum of all its spikes, thus of a
loss that asks each of them for more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from snn_helpers.long.autocast import with_gradients
from snn_helpers.long.checks import one_of, real, whole
from snn_helpers.neurons import Neuron
from snn_helpers.plasticity import window_law


def protocol_law(
    pulses: Sequence[int],
    spikes: Sequence[int],
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> float:
    """What `protocol_gradient` must find: `window_law`, summed over all pairs of a pulse and a spike; from chapter 08.

    Parameters
    ----------
    pulses, spikes : the steps at which the input has a pulse of height 1, and at which the neuron fires: whole numbers
        of 0 or more, one of each or more; each step at most once.
    decay, threshold, penalty, reset : as in `neuron_step`.

    Returns d (sum of all outputs) / d weight. Raises `TypeError` or `ValueError` for times or settings that do not fit.
    """
    pulses, spikes = _times("pulses", pulses), _times("spikes", spikes)
    total = 0.0
    for spike in spikes:
        earlier = [spike - other for other in spikes if other < spike]
        law = window_law([spike - pulse for pulse in pulses], earlier, decay, threshold, penalty, reset)
        total += law.sum().item()
    return total


@with_gradients
def protocol_gradient(
    pulses: Sequence[int],
    spikes: Sequence[int],
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> float:
    """The same by autograd, through a clamped neuron that fires at the `spikes` and nowhere else; from chapter 08."""
    neuron = Neuron(decay, threshold, penalty, reset)
    pulses, spikes = _times("pulses", pulses), _times("spikes", spikes)
    n_steps = max(*pulses, *spikes) + 1
    held, arriving = (torch.zeros(n_steps, dtype=torch.float64, device="cpu") for _ in range(2))
    held[spikes], arriving[pulses] = 2 * threshold, 1
    weight = torch.zeros((), dtype=torch.float64, device="cpu", requires_grad=True)
    state, total = torch.zeros_like(weight), torch.zeros_like(weight)
    for voltage, pulse in zip(held, arriving):
        clamp = voltage - decay * state.detach()  # cancels what the neuron would do by itself
        output, state = neuron.step(clamp + weight * pulse, state)
        total = total + output
    (gradient,) = torch.autograd.grad(total, weight)
    found: float = gradient.item()
    return found


def pairing_times(delay: int, period: int, n_pairs: int) -> tuple[list[int], list[int]]:
    """The steps of the pulses and of the spikes of `n_pairs` pairs, one each `period` steps; from chapter 08.

    `delay` is `t_post - t_pre` in steps, less than a period in size.
    """
    delay, period = whole("delay", delay, least=-(10**6)), whole("period", period)
    n_pairs = whole("n_pairs", n_pairs)
    if abs(delay) >= period:
        raise ValueError(f"delay must be smaller than the period of {period} steps, in size, not {delay}")
    first_pulse, first_spike = max(0, -delay), max(0, delay)
    return [first_pulse + k * period for k in range(n_pairs)], [first_spike + k * period for k in range(n_pairs)]


def pairing_protocol(
    delay: int,
    period: int,
    n_pairs: int = 60,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> float:
    """The change by one pair of many, scored by the gradient: `protocol_law` over `n_pairs`; derived in chapter 08.

    Pairs far apart get `window_law`; where the next spike comes before the leak has forgotten a pulse, it pays, too,
    and what it pays crosses the spikes in between.
    """
    pulses, spikes = pairing_times(delay, period, n_pairs)
    return protocol_law(pulses, spikes, decay, threshold, penalty, reset) / n_pairs


def steps_between(rate: float, step_ms: float) -> int:
    """How many steps lie between two pairs at a rate in Hz, where one step lasts `step_ms`: the nearest whole number.

    From chapter 08. Raises `ValueError` for a rate at which that is less than one.
    """
    period = round(1000 / real("rate", rate, above=0) / real("step_ms", step_ms, above=0))
    if period < 1:
        raise ValueError(f"at {rate} Hz there is less than one step of {step_ms} ms between two pairs")
    return period


TRIPLETS = ("pre-post-pre", "post-pre-post")


def triplet(
    order: str,
    first: int,
    second: int,
    decay: float = 0.9,
    threshold: float = 1.0,
    penalty: float = 1.5,
    reset: str = "scale",
) -> float:
    """The change by three spikes, one of `TRIPLETS`, with `first` and `second` steps between them; from chapter 08."""
    one_of("order", order, TRIPLETS)
    middle = whole("first", first)
    outer = [0, middle + whole("second", second)]
    pulses, spikes = (outer, [middle]) if order == "pre-post-pre" else ([middle], outer)
    return protocol_law(pulses, spikes, decay, threshold, penalty, reset)


def _times(name: str, times: Sequence[int]) -> list[int]:
    listed = [whole(f"each of the {name}", time, least=0) for time in times]
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"{name} must be steps, one or more, each at most once, not {list(times)}")
    return listed
