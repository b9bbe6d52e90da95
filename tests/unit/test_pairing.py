"""Pairing protocols: the law against autograd and against small changes of the weight, and what it says at the ends."""

from __future__ import annotations

import pytest
import torch
from snn_chapters.pairing import (
    TRIPLETS,
    pairing_protocol,
    pairing_times,
    protocol_gradient,
    protocol_law,
    steps_between,
    triplet,
)

from snn_helpers.neurons import RESETS


def by_a_small_change(pulses: list[int], spikes: list[int], decay: float, penalty: float, reset: str) -> float:
    """The sum of all outputs of a clamped neuron, for a weight a little above and below 0, in plain Python."""

    def total(weight: float) -> float:
        # The clamp's current is what holds the neuron with a weight of 0; it is the same for both weights.
        state = at_rest = 0.0
        outputs = 0.0
        for t in range(max(pulses + spikes) + 1):
            held = 2.0 if t in spikes else 0.0
            current = held - decay * at_rest

            def after(charge: float) -> float:
                if charge <= 1:
                    return charge
                if reset == "scale":
                    return charge - penalty * charge
                return {"discharge": 1 - penalty, "subtract": charge - 1, "zero": 0.0}[reset]

            charge = current + weight * (t in pulses) + decay * state
            outputs += max(0.0, charge - 1)
            state, at_rest = after(charge), after(held)
        return outputs

    return (total(1e-6) - total(-1e-6)) / 2e-6


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("seed", range(4))
def test_the_law_is_autograds_and_that_of_a_small_change(reset: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pulses, spikes = (torch.randperm(25, generator=generator)[:n].tolist() for n in (6, 5))
    expected = by_a_small_change(pulses, spikes, 0.85, 1.3, reset)
    assert protocol_law(pulses, spikes, 0.85, 1.0, 1.3, reset) == pytest.approx(expected, abs=1e-8)
    assert protocol_gradient(pulses, spikes, 0.85, 1.0, 1.3, reset) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("reset", RESETS)
def test_pairs_far_apart_are_pairs_alone(reset: str) -> None:
    assert pairing_protocol(4, 400, 3, reset=reset) == pytest.approx(0.9**4)
    assert pairing_protocol(-4, 400, 3, reset=reset) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("reset", "slope"), [("scale", -0.5), ("discharge", 0.0)])
@pytest.mark.parametrize("delay", [1, 2, -1, -3])
def test_close_pairs_are_a_geometric_series(reset: str, slope: float, delay: int) -> None:
    """Of many pairs, each pulse is paid by its own next spike and, times the slope, by each one after it."""
    period = 5
    own = delay if delay > 0 else delay + period
    endless = 0.9**own / (1 - slope * 0.9**period)
    assert pairing_protocol(delay, period, 60, reset=reset) == pytest.approx(endless, rel=0.03)


def test_pairs_come_as_often_as_asked() -> None:
    assert pairing_times(2, 10, 3) == ([0, 10, 20], [2, 12, 22])
    assert pairing_times(-3, 10, 2) == ([3, 13], [0, 10])
    assert pairing_times(0, 4, 2) == ([0, 4], [0, 4])
    assert steps_between(50, 2) == 10 and steps_between(50, 1) == 20 and steps_between(1, 2) == 500


@pytest.mark.parametrize("order", TRIPLETS)
def test_triplets_by_hand(order: str) -> None:
    """One spike pays the pulse before it; the pulse after it goes unpaid, and so does one whose spike came before."""
    paid = 0.9**3 if order == "pre-post-pre" else 0.9**7
    assert triplet(order, 3, 7) == pytest.approx(paid)


def test_times_that_make_no_protocol_are_refused() -> None:
    with pytest.raises(ValueError, match="smaller than the period of 5 steps"):
        pairing_times(5, 5, 3)
    with pytest.raises(ValueError, match="spikes must be steps, one or more, each at most once"):
        protocol_law([1], [2, 2])
    with pytest.raises(ValueError, match="pulses must be steps, one or more"):
        protocol_gradient([], [2])
    with pytest.raises(ValueError, match="less than one step of 2"):
        steps_between(2000, 2)
    with pytest.raises(ValueError, match="'pre-post-pre', 'post-pre-post'"):
        triplet("pre-pre-post", 1, 1)
