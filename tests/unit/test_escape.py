"""The neuron that fires at random against sums over all spike trains in plain Python, and its likelihood three ways."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from snn_chapters import escape
from snn_chapters.escape import (
    ESCAPE_RATES,
    RECORDS,
    WAYS,
    EscapeNet,
    Pairing,
    best_rate,
    enumerated_window,
    escape_accuracy,
    escape_near_trials,
    escape_trial,
    escape_trials,
    gradient_noise,
    likelihood_law,
    likelihood_window,
    noisy_currents,
    pulse_window,
    run_escape,
    score_loss,
    score_window,
    small,
    surrogate_path_window,
    train_log_likelihood,
    triggered_window,
)
from torch.utils.data import TensorDataset

from snn_helpers import neuron_step
from snn_helpers.neurons import RESETS, Neuron

each_reset = pytest.mark.parametrize("reset", RESETS)
CURRENTS = [0.3, 0.5, 0.2, 0.9, 0.4, 0.6]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(n: int = 60) -> TensorDataset:
    labels = torch.arange(n) % 10
    images = torch.rand(n, 1, 28, 28, generator=source(1)) - 0.5
    images[torch.arange(n), 0, :, 2 * labels] = 2.0
    images[torch.arange(n), 0, :, 2 * labels + 1] = 2.0
    return TensorDataset(images, labels)


def after(charge: float, reset: str) -> float:
    """The state that a spike leaves at threshold 1 and penalty 1.5, in plain Python."""
    return {
        "scale": -0.5 * charge,
        "discharge": charge - 1.5 - max(0.0, charge - 1),
        "subtract": charge - 1,
        "zero": 0.0,
    }[reset]


def expected(currents: list[float], reset: str, graded: bool, temperature: float) -> float:
    """The expected last output: the sum over all spike trains, in plain Python."""
    total = 0.0
    for train in product((0, 1), repeat=len(currents)):
        state, probability, output = 0.0, 1.0, 0.0
        for current, fired in zip(currents, train):
            charge = current + 0.9 * state
            chance = 1 / (1 + math.exp(-(charge - 1) / temperature))
            probability *= chance if fired else 1 - chance
            output = fired * (max(0.0, charge - 1) if graded else 1.0)
            state = after(charge, reset) if fired else charge
        total += probability * output
    return total


@each_reset
@pytest.mark.parametrize("graded", [False, True])
def test_the_score_function_means_the_derivative_of_the_expectation(reset: str, graded: bool) -> None:
    """Summed exactly: by score, by the derivative of the sum, and by differences of the sum in plain Python."""
    neuron, delays = Neuron(reset=reset), range(len(CURRENTS))
    currents = torch.tensor(CURRENTS, dtype=torch.float64)
    by_sum = enumerated_window(delays, currents, 0.3, neuron, graded=graded)
    by_score = enumerated_window(delays, currents, 0.3, neuron, graded=graded, by_score=True)
    assert (by_sum - by_score).abs().max() < 1e-10
    for delay, found in zip(delays, by_sum.tolist()):
        ends = []
        for side in (1e-5, -1e-5):
            moved = list(CURRENTS)
            moved[len(CURRENTS) - 1 - delay] += side
            ends.append(expected(moved, reset, graded, 0.3))
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("baseline", [False, True])
def test_trials_average_to_it(graded: bool, baseline: bool) -> None:
    n_trials, delays = 50_000, list(range(len(CURRENTS)))
    currents = torch.tensor(CURRENTS, dtype=torch.float64)
    wanted = enumerated_window(delays, currents, 0.3, graded=graded)
    repeated = currents[:, None].expand(-1, n_trials)
    score = score_window(delays, repeated, source(), 0.3, graded=graded, baseline=baseline)
    pulse = pulse_window(delays, repeated, source(1), 0.3, graded=graded)
    for found, slack in ((score, 1e-9), (pulse, 0.01)):  # a pulse is finite
        assert ((found.mean - wanted).abs() < 5 * found.deviation / math.sqrt(n_trials) + slack).all()


def test_a_surrogate_is_another_estimate_and_biased() -> None:
    """Less noise, and where the neuron's own past matters another answer."""
    n_trials, delays = 50_000, list(range(5))
    currents = noisy_currents(30, n_trials, 0.25, 0.15, source(2))
    score = score_window(delays, currents, source(3))
    surrogate = surrogate_path_window(delays, currents, source(3))
    error = 5 * (score.deviation + surrogate.deviation) / math.sqrt(n_trials)
    gap = (score.mean - surrogate.mean).abs()
    assert gap[0] < error[0]  # the spike's own step: there it is right
    assert (gap[1:] > error[1:]).all()
    assert (surrogate.deviation < score.deviation).all()


@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_what_triggers_an_output_is_what_a_pulse_does(reset: str) -> None:
    """For the book's own neuron: its threshold is differentiated nowhere."""
    n_trials, delays, neuron = 100_000, [0, 1, 2, 5], Neuron(reset=reset)
    currents = noisy_currents(12, n_trials, 0.25, 0.15, source(4))
    triggered = triggered_window(delays, currents, 0.25, 0.15, neuron)
    pulse = pulse_window(delays, currents, source(), None, neuron)
    error = 5 * (triggered.deviation + pulse.deviation) / math.sqrt(n_trials) + 0.01
    assert ((triggered.mean - pulse.mean).abs() < error).all()


@each_reset
def test_a_cold_neuron_is_the_books_own(reset: str) -> None:
    neuron = Neuron(reset=reset)
    currents = torch.randn(40, 30, generator=source(5), dtype=torch.float64) + 0.3
    draws = torch.rand(40, 30, generator=source(6), dtype=torch.float64)
    done = run_escape(currents, draws, 1e-9, neuron, graded=True)
    state = torch.zeros(30, dtype=torch.float64)
    for current, output in zip(currents, done.outputs):
        wanted, state = neuron_step(current, state, 0.9, 1.0, 1.5, reset)
        torch.testing.assert_close(output, wanted)


def test_it_fires_as_often_as_its_probability_says(device: torch.device) -> None:
    currents = torch.full((1, 100_000), 0.8, dtype=torch.float64, device=device)
    draws = torch.rand(currents.shape, generator=source(7), dtype=torch.float64).to(device)
    done = run_escape(currents, draws, 0.2)
    chance = 1 / (1 + math.exp(0.2 / 0.2))
    assert done.fired.mean().item() == pytest.approx(chance, abs=5 * math.sqrt(chance / 100_000))
    fired = done.fired[0] > 0
    assert done.log_probs[0][fired].exp().cpu() == pytest.approx(chance)
    assert done.log_probs[0][~fired].exp().cpu() == pytest.approx(1 - chance)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"through": "luck"}, "through must be one of 'score', 'surrogate'"),
        ({"draws": torch.zeros(2, 1)}, "draws must have the shape of the currents"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run_escape(**{"currents": torch.zeros(3, 1), "draws": torch.zeros(3, 1)} | settings)


# --- The likelihood -------------------------------------------------------------------------------

DELAYS = [-20, -10, -3, -2, -1, 0, 1, 2, 5, 15]
PAIRINGS = {
    "plain": {},
    "another weight": {"weight": 0.2},
    "not refractory": {"refractory": False},
    "the spike alone": {"silence": 0},
    "silence nearby": {"silence": 6},
    "discharge": {"reset": "discharge"},
    "discharge, strong": {"reset": "discharge", "weight": 0.5},
    "subtract": {"reset": "subtract"},
    "zero": {"reset": "zero"},
}


@pytest.mark.parametrize("name", PAIRINGS)
def test_the_likelihoods_window_by_law_by_autograd_and_by_differences(name: str) -> None:
    settings: dict[str, Any] = {"n_before": 20, "n_after": 20} | PAIRINGS[name]
    pairing = Pairing(**settings)
    law = likelihood_law(DELAYS, pairing)
    assert (likelihood_window(DELAYS, pairing) - law).abs().max() < 1e-10
    assert (likelihood_window(DELAYS, pairing, step=1e-5) - law).abs().max() < 1e-5


def test_silence_brings_depression_in_and_without_it_there_is_none() -> None:
    late = list(range(-30, 0))
    full, alone = likelihood_window(late, Pairing()), likelihood_window(late, Pairing(silence=0))
    assert (full < 0).all()
    assert (alone == 0).all()
    nearby = likelihood_window(late, Pairing(silence=10))
    assert (nearby[-10:] < 0).all() and (nearby[:-10] == 0).all()
    # Pre before post: potentiation, whatever is asked of the silence.
    for silence in (None, 10, 0):
        assert (likelihood_window([0, 1, 2], Pairing(silence=silence)) > 0).all()
    # Refractoriness does not bring depression in: it weakens what comes just after the spike.
    rested = likelihood_window(late, Pairing(refractory=False))
    assert (rested < 0).all()
    assert (full[-10:] > rested[-10:]).all()


def test_a_neuron_that_never_fires_by_itself_has_next_to_no_depression() -> None:
    """Depression is what spikes that nobody asked for would cost: where there are none, it is not there."""
    quiet = likelihood_window([-5, -1, 1], Pairing(current=0.0, temperature=0.05))
    assert quiet[2] > 1 and (quiet[:2].abs() < 1e-6).all()


@each_reset
def test_the_mean_over_a_neurons_own_trains_is_zero(reset: str) -> None:
    """Of its own spikes a neuron learns nothing: what causal pairs give, the others take."""
    n = len(CURRENTS)
    trains = torch.tensor(list(product((0.0, 1.0), repeat=n)), dtype=torch.float64).T
    currents = torch.tensor(CURRENTS, dtype=torch.float64)[:, None].repeat(1, 2**n).requires_grad_()
    log_probs = train_log_likelihood(currents, trains, torch.ones_like(trains), 0.2, Neuron(reset=reset))
    weights = log_probs.exp().detach()
    assert weights.sum().item() == pytest.approx(1)
    (slopes,) = torch.autograd.grad((weights * log_probs).sum(), currents)
    assert (slopes.abs().max(dim=1).values > 1e-3).all()  # a train says something
    assert (slopes.sum(dim=1).abs() < 1e-12).all()


@pytest.mark.parametrize(
    ("pairing", "delays", "told"),
    [
        (Pairing(), [61], "each delay must lie between -60 and 60"),
        (Pairing(decay=1.0), [0], "decay must be below 1"),
        (Pairing(silence=-1), [0], "silence must be 0 or more"),
    ],
)
def test_wrong_pairings_are_refused(pairing: Pairing, delays: list[int], told: str) -> None:
    for window in (likelihood_window, likelihood_law):
        with pytest.raises(ValueError, match=told):
            window(delays, pairing)


# --- Training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["score", "score, paired"])
def test_the_networks_score_means_the_derivative_of_the_expected_loss(way: str) -> None:
    """Two hidden neurons, two steps: all 16 outcomes, and for a pair of runs or examples all 256."""
    net = EscapeNet((3, 2, 4), 0.5, source()).double()
    frames = torch.rand(2, 1, 3, generator=source(8), dtype=torch.float64) * 2
    labels = torch.tensor([1])
    outcomes = torch.tensor(list(product((0.0, 1.0), repeat=4)), dtype=torch.float64).view(16, 2, 1, 2)

    def mean_loss() -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for draws in outcomes:
            answer, chance = net(frames, draws)
            total = total + chance.exp().sum() * -answer[0, labels[0]]
        return total

    wanted = torch.autograd.grad(mean_loss(), list(net.parameters()))
    pair_frames, pair_labels = torch.cat([frames, frames], dim=1), torch.cat([labels, labels])
    found = [torch.zeros_like(p) for p in net.parameters()]
    for one in outcomes:
        for other in outcomes:
            draws = torch.cat([one, other], dim=1)
            with torch.no_grad():
                weight = net(pair_frames, draws)[1].sum().exp()
            loss, _ = score_loss(net, pair_frames, pair_labels, draws, way)
            for total, part in zip(found, torch.autograd.grad(loss, list(net.parameters()))):
                total += weight * part
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_pairs_must_be_pairs() -> None:
    net, frames = EscapeNet((3, 2, 4), 0.5, source()), torch.ones(2, 2, 3)
    with pytest.raises(ValueError, match="needs each example twice"):
        score_loss(net, frames, torch.tensor([0, 1]), torch.rand(2, 2, 2), "score, paired")
    with pytest.raises(ValueError, match="draws must be given"):
        net(frames, None)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_learns_what_it_may(way: str) -> None:
    settings: dict[str, Any] = {"train": digits(200), "test": digits(), "n_hidden": 20, "n_steps": 8}
    row = escape_trial(way, 0, learning_rate=0.02, n_updates=60, test_at=(0, 60), **settings)
    assert [update for update, _ in row["curve"]] == [0, 60] and row["curve"][1][1] == row["accuracy"]
    assert row["accuracy"] > 0.3 > row["curve"][0][1]
    assert 0 < row["rate"] < 1


def test_a_frozen_hidden_layer_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, EscapeNet] = {}

    def accuracy(net: EscapeNet, *rest: Any) -> float:
        kept["net"] = net
        return escape_accuracy(net, *rest)

    monkeypatch.setattr(escape, "escape_accuracy", accuracy)
    fresh = EscapeNet((196, 20, 10), 0.2, source())
    for way in ("last layer", "score"):
        escape_trial(way, 0, digits(), digits(), learning_rate=0.01, n_updates=2, n_hidden=20, n_steps=4)
        same = torch.equal(kept["net"].hidden.linear.weight, fresh.hidden.linear.weight)
        assert same is (way == "last layer")
        assert not torch.equal(kept["net"].last.linear.weight, fresh.last.linear.weight)


def test_noise_shrinks_with_the_batch_and_the_score_has_more_of_it() -> None:
    images, labels = small(digits(200).tensors[0]), digits(200).tensors[1]
    net = EscapeNet((196, 20, 10), 0.2, source())
    few, many = (gradient_noise(net, images, labels, 0, 20, 8, size) for size in (10, 160))
    for way in ("score", "surrogate"):
        assert many[way]["noise"] == pytest.approx(few[way]["noise"] / 4, rel=0.4)
        assert few["score"]["noise"] > 3 * few["surrogate"]["noise"]
    assert many["surrogate"]["length"] > 0


def test_small_digits_are_means_of_four_pixels() -> None:
    images = torch.arange(784.0).view(1, 1, 28, 28)
    assert small(images).shape == (1, 196)
    assert small(images)[0, 0] == (0 + 1 + 28 + 29) / 4


# --- What is recorded -----------------------------------------------------------------------------


def test_the_best_rate_is_taken_and_its_neighbours_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = RECORDS["07_escape_tuning"].trials
    assert isinstance(coarse, list) and len(coarse) == len({str(trial) for trial in coarse})
    for best, neighbours in ((0.004, 2), (ESCAPE_RATES[0], 3), (ESCAPE_RATES[-1], 3)):
        rows = [{"settings": s, "accuracy": 1 - abs(math.log(s["learning_rate"] / best))} for s in coarse]
        monkeypatch.setattr(escape, "load_results", lambda name, rows=rows: {"trials": rows})
        assert best_rate("score") == best
        trials = escape_near_trials()
        assert len(trials) == len(WAYS) * neighbours * 3
        rates = {trial["learning_rate"] for trial in trials} | set(ESCAPE_RATES)
        assert min(rates) < best < max(rates)
        assert len(escape_trials()) == 5 * len(WAYS)
