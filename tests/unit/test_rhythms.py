"""Rhythms against NumPy's Fourier transform, clocks and coins; the loop against numbers one by one; both trials."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from snn_chapters import rhythms
from snn_chapters.binary import BinarySpikingNet
from snn_chapters.rhythms import (
    BURN_IN,
    LOOPED,
    MEMORIES,
    OrdinaryRecurrentLayer,
    RecurrentSpikingLayer,
    SequenceNet,
    beat,
    clocks_and_coins,
    goes_round,
    has_rhythm,
    hear,
    listen,
    listen_to_memory,
    make_memory,
    match_task,
    memory_trial,
    regularity,
    rhythm_trial,
    shift_trains,
    synchrony,
    with_permuted_loop,
)
from spies import (
    N_TRAIN,
    TEST_NUMBERS,
    Calls,
    a_history,
    an_evaluation,
    are,
    numbered,
    one_class,
    several,
    shuffled,
    spy,
)
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, SpikingNet, evaluate, fit, flicker
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import reset_slope, three_factors
from snn_helpers.training import Evaluation, fit_adam


def coins(n_steps: int, n_batch: int, n: int, rate: float = 0.2, seed: int = 0) -> Tensor:
    return torch.rand(n_steps, n_batch, n, generator=torch.Generator().manual_seed(seed)) < rate


def by_fourier(spikes: Tensor, segment: int) -> tuple[Any, Any]:
    """The same two sums from NumPy's transform: Hann windows, half overlapping, each freed of its mean."""
    trains = spikes.double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(segment) / segment)
    together, alone = 0.0, 0.0
    for start in range(0, len(trains) - segment + 1, segment // 2):
        piece = trains[start : start + segment]
        piece = (piece - piece.mean(axis=0)) * window[:, None, None]
        together = together + (abs(np.fft.rfft(piece.sum(axis=2), axis=0)) ** 2).sum(axis=1)
        alone = alone + (abs(np.fft.rfft(piece, axis=0)) ** 2).sum(axis=(1, 2))
    return np.asarray(together)[1:], np.asarray(alone)[1:]


@pytest.mark.parametrize("segment", [16, 64])
def test_synchrony_is_power_of_the_sum_over_sum_of_powers(segment: int) -> None:
    spikes = coins(300, 3, 5)
    found = synchrony(spikes, segment)
    together, alone = by_fourier(spikes, segment)
    torch.testing.assert_close(found.ratio, torch.from_numpy(together / alone))
    assert found.frequencies.tolist() == pytest.approx([k / segment for k in range(1, segment // 2 + 1)])
    quotient = found.power / torch.from_numpy(together)
    torch.testing.assert_close(quotient[:-1], quotient[:1].expand(segment // 2 - 1))


def test_synchrony_is_n_in_lockstep_1_if_independent_and_0_in_turns() -> None:
    one = coins(2000, 4, 1)
    torch.testing.assert_close(synchrony(one.expand(-1, -1, 8)).ratio, torch.full((64,), 8.0, dtype=torch.float64))
    assert abs(synchrony(coins(8000, 4, 30)).ratio.mean() - 1) < 0.1
    turns = torch.cat([one, ~one], dim=2)
    assert synchrony(turns).ratio.max() < 1e-9


def test_synchrony_finds_a_shared_beat_where_it_is() -> None:
    beat = (torch.arange(4000) % 8 == 0)[:, None, None]
    spikes = (coins(4000, 3, 40, 0.5) & beat) | coins(4000, 3, 40, 0.05, seed=1)
    found = synchrony(spikes)
    assert found.ratio[15] > 10 and found.frequencies[15] == 1 / 8
    assert synchrony(shift_trains(spikes, torch.Generator().manual_seed(0))).ratio[15] < 3


def test_power_is_that_of_the_population_rate() -> None:
    """Parseval: a rate that is white has its variance spread evenly over frequencies, 0 to a half."""
    spikes = coins(20_000, 2, 10, 0.3)
    rate = spikes.double().mean(dim=2)
    assert synchrony(spikes).power.mean() == pytest.approx(2 * rate.var(dim=0).mean().item(), rel=0.05)


@pytest.mark.parametrize(
    ("spikes", "segment", "error", "words"),
    [
        (coins(50, 2, 3).double().numpy(), 16, TypeError, "torch.Tensor"),
        (coins(50, 2, 3)[:, 0], 16, ValueError, "steps, batch, neurons"),
        (coins(50, 2, 3), 51, ValueError, "between 4 and the number of steps, 50, not 51"),
        (coins(50, 2, 3), 3, ValueError, "between 4"),
        (coins(50, 2, 3), 16.0, TypeError, "whole number"),
        (torch.zeros(50, 2, 3), 16, ValueError, "no neuron ever changed"),
    ],
)
def test_synchrony_refuses_what_does_not_fit(spikes: Any, segment: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        synchrony(spikes, segment)


def test_shifted_trains_are_the_same_trains_elsewhere(device: torch.device) -> None:
    spikes = (torch.rand(60, 3, 7, generator=torch.Generator().manual_seed(3)) * (coins(60, 3, 7))).to(device)
    moved, again, other = (shift_trains(spikes, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(moved, again) and not torch.equal(moved, other)
    offsets = set()
    for n in range(7):
        fits = [k for k in range(60) if torch.equal(spikes[:, :, n].roll(k, 0), moved[:, :, n])]
        assert fits, "each neuron must be itself, moved round, by one offset for all examples"
        offsets.add(fits[0])
    assert len(offsets) > 4, "each neuron has an offset of its own"


def test_regularity_knows_clocks_and_coins() -> None:
    t = torch.arange(4000)
    clock, uneven = t % 7 == 0, (t % 4 == 0) | (t % 4 == 1)  # intervals of 1 and 3: mean 2, deviation 1
    found = regularity(torch.stack([clock, uneven], dim=1)[:, None])
    assert found[0] == 0
    assert found[1] == pytest.approx(0.5 / math.sqrt(0.5), rel=1e-2)
    for rate in (0.05, 0.5):
        assert regularity(coins(40_000, 2, 3, rate)).mean() == pytest.approx(1, abs=0.05)


def test_regularity_leaves_out_what_has_none() -> None:
    always, never = torch.ones(100, 1, 1), torch.zeros(100, 1, 1)
    assert len(regularity(torch.cat([always, never], dim=2))) == 0
    few = torch.zeros(100, 1, 1)
    few[::10] = 1  # ten spikes, nine intervals
    assert len(regularity(few, at_least=9)) == 1 and len(regularity(few, at_least=10)) == 0
    with pytest.raises(ValueError, match="at_least must be 2"):
        regularity(few, at_least=1)


# --- Listening ------------------------------------------------------------------------------------


def some_images(n: int = 30) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(n, 1, 28, 28, generator=generator) - 0.5, torch.arange(n) % 10)


def test_listening_is_hearing_with_one_flicker_and_with_ten() -> None:
    net = SpikingNet(7, generator=torch.Generator().manual_seed(2))
    images = some_images().tensors[0]
    found = listen(net, images, n_images=4, n_listened=256, n_shuffles=9, seed=5)
    assert net.n_steps == 7, "the network is left as it was"
    generator = torch.Generator().manual_seed(5)
    late, own = (hear(net.layers[0], images[:4].flatten(1), 256, generator, k) > 0 for k in (1, 10))  # type: ignore[arg-type]
    assert found["rate"] == pytest.approx(late.double().mean().item(), abs=1e-5)
    for part, spikes in (("shared", late), ("own", own)):
        true = synchrony(spikes).ratio
        assert found[part]["peak"] == pytest.approx(true.max().item(), abs=1e-4)
        assert found[part]["mean"] == pytest.approx(true.mean().item(), abs=1e-4)
        assert 0.1 <= found[part]["p_value"] <= 1 and len(found[part]["digits"]) == 4
    assert found["clocks"]["median"] == pytest.approx(regularity(late).median().item(), abs=1e-4)


@pytest.mark.parametrize("n_showings", [1, 3, 6])
def test_a_neuron_hears_its_own_showing_and_those_that_it_is_connected_to(n_showings: int) -> None:
    """Weights of 1 and no leak: a neuron's current is the flicker of the showing that it reads."""
    layer = RecurrentSpikingLayer(1, 6, decay=0.0, threshold=0.1, penalty=0.1, reset="zero", scale=0.0)
    with torch.no_grad():
        layer.linear.weight.fill_(1.0)
        layer.linear.bias.zero_()
    pixels = torch.tensor([[0.9], [0.6]])
    heard = hear(layer, pixels, 20, torch.Generator().manual_seed(4), n_showings)
    generator = torch.Generator().manual_seed(4)
    shown = [flicker(pixels, BURN_IN + 20, generator)[:, :, 0] for _ in range(n_showings)]
    for n in range(6):
        # Handed out one step late.
        torch.testing.assert_close(heard[:, :, n], (shown[n % n_showings][BURN_IN - 1 : -1] - 0.1).relu())
    with torch.no_grad():
        layer.recurrent.weight.fill_(0.05)
    assert (hear(layer, pixels, 20, torch.Generator().manual_seed(4), n_showings) >= heard).all()


def test_no_common_start_keeps_neurons_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alike neurons under a steady current are perfect clocks: in step for ever, if they started in one step."""
    layer = SpikingLayer(1, 40, 0.9, 1.0, 1.5, "discharge")
    with torch.no_grad():
        layer.linear.weight.zero_()
        layer.linear.bias.fill_(0.3)
    spikes = hear(layer, torch.ones(4, 1), 512, torch.Generator().manual_seed(0)) > 0
    assert regularity(spikes).max() == 0 and not has_rhythm(beat(spikes, 19, torch.Generator().manual_seed(0)))
    in_step = layer.run(layer.currents(torch.ones(BURN_IN + 512, 4, 1)))[1][BURN_IN:] > 0
    assert has_rhythm(beat(in_step, 19, torch.Generator().manual_seed(0)))


# --- The definition -------------------------------------------------------------------------------


def volleys(period: int, n: int = 30, n_steps: int = 1024, seed: int = 0) -> Tensor:
    """Neurons that all fire at once, half of the time, every few steps; `[n_steps, 2, n]`."""
    in_step = (torch.arange(n_steps) % period == 0)[:, None, None]
    return (coins(n_steps, 2, n, 0.5, seed) & in_step).double()


def drifting(n_steps: int = 1024) -> Tensor:
    """Neurons whose rates rise and fall together, once in 200 steps: they share it, and it is slower than any beat."""
    slow = 0.3 + 0.3 * torch.sin(2 * math.pi * torch.arange(n_steps) / 200)[:, None, None]
    return (torch.rand(n_steps, 2, 30, generator=torch.Generator().manual_seed(1)) < slow).double()


@pytest.mark.parametrize("period", [3, 8, 16])
def test_volleys_are_a_rhythm_and_their_period_is_found(period: int) -> None:
    found = beat(volleys(period), 19, torch.Generator().manual_seed(0))
    assert has_rhythm(found)
    assert found["period"] == pytest.approx(period, rel=0.05)
    assert found["p_value"] == found["highest_digit"] == 0.05 and found["digits"] == [0.05, 0.05]


def test_what_is_no_rhythm() -> None:
    """Coins and clocks share nothing, and what is slow is not periodic."""
    generator = torch.Generator().manual_seed(0)
    phases = torch.randint(1000, (2, 30), generator=generator)
    clocks = (torch.arange(1024)[:, None, None] + phases) % (5 + torch.arange(30)) == 0
    for signals in (coins(1024, 2, 30).double(), clocks.double()):
        assert not has_rhythm(beat(signals, 19, generator))
    slow = beat(drifting(), 19, generator)
    assert slow["peak"] > 5 and slow["p_value"] == 0.05 and not has_rhythm(slow)
    assert not has_rhythm(beat(torch.zeros(1024, 2, 3), 19, generator))


def test_a_null_is_called_a_rhythm_no_more_often_than_one_time_in_twenty() -> None:
    p_values = [beat(coins(256, 2, 8, 0.3, seed).double(), 19)["p_value"] for seed in range(100)]
    assert sum(p <= 0.05 for p in p_values) <= 12  # 5 are expected; three standard deviations more
    assert 0.4 < sum(p_values) / 100 < 0.65


def test_examples_that_are_copies_of_one_are_no_more_evidence_than_one() -> None:
    """Ten copies of two examples: shuffled trains are copies as well, and chance stays chance."""
    p_values = []
    for seed in range(100):
        one = coins(256, 1, 8, 0.3, seed).double()
        p_values.append(beat(one.expand(-1, 10, -1), 19, torch.Generator().manual_seed(seed))["p_value"])
    assert sum(p <= 0.05 for p in p_values) <= 12


def test_a_beat_that_one_digit_alone_has_is_found_in_that_digit() -> None:
    signals = torch.cat([coins(1024, 9, 30, 0.2).double(), volleys(8)[:, :1]], dim=1)
    found = beat(signals, 19, torch.Generator().manual_seed(1))
    assert found["digits"][9] == 0.05 and found["highest_digit"] == 0.05


def test_values_have_a_rhythm_as_spikes_have() -> None:
    """Waves in step, of either sign, among noise; turned half a period, half of them cancel the others."""
    steps = torch.arange(1024)[:, None, None]
    noise = torch.randn(1024, 2, 20, generator=torch.Generator().manual_seed(2))
    wave = torch.sin(2 * math.pi * steps / 16)
    assert has_rhythm(beat(wave + noise, 19, torch.Generator().manual_seed(0)))
    signs = torch.tensor([1.0, -1.0]).repeat(10)
    assert beat(signs * wave + noise, 19, torch.Generator().manual_seed(0))["peak"] < 2


def test_a_rhythm_needs_all_of_its_three_parts() -> None:
    whole = {"peak": 2.0, "p_value": 0.05, "rise": 2.0}
    assert has_rhythm(whole)
    for part in ({"peak": 1.9}, {"p_value": 0.1}, {"rise": 1.9}, {"peak": None}):
        assert not has_rhythm(whole | part)


def test_a_peak_is_sought_where_the_power_has_risen() -> None:
    """A slow drift that all share and a faster beat: the drift is the stronger, and the beat is the rhythm."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1024, 2, 20, generator=generator)
    steps = torch.arange(1024)[:, None, None]
    drift, wave = torch.sin(2 * math.pi * steps / 128), torch.sin(2 * math.pi * steps / 8)
    both = beat(2 * wave + drift + noise, 19, generator)
    assert both["period"] == 8 and both["rise"] > 2 and has_rhythm(both)
    alone = beat(drift + noise, 19, generator)
    assert alone["peak"] < 3 or alone["rise"] < 2
    assert not has_rhythm(alone)


def test_rise_is_the_power_there_over_that_of_the_two_slowest_frequencies() -> None:
    signals = volleys(8)
    found = beat(signals, 1, torch.Generator().manual_seed(0))
    together, alone = by_fourier(signals, 128)
    place = int((together / alone).argmax())
    assert found["rise"] == pytest.approx(together[place] / together[:2].mean(), rel=1e-3)
    assert found["peak"] == pytest.approx((together / alone)[place], abs=1e-4)


# --- Clocks and coins -----------------------------------------------------------------------------


def test_clocks_are_more_regular_than_coins_and_coins_are_not() -> None:
    clocks = torch.stack([(torch.arange(1024) % (4 + n) == 0) for n in range(20)], dim=1)[:, None]
    found = clocks_and_coins(clocks, 19, torch.Generator().manual_seed(0))
    assert (found["n_trains"], found["below"], found["median"], found["above"], found["more_regular"]) == (
        20, 1.0, 0.0, 0.0, 1.0,
    )  # fmt: skip
    assert found["coin"]["below"] == 0 and found["coin"]["median"] == pytest.approx(1, abs=0.1)
    by_chance = clocks_and_coins(coins(1024, 10, 40), 19, torch.Generator().manual_seed(0))
    assert by_chance["more_regular"] < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert by_chance["median"] == pytest.approx(by_chance["coin"]["median"], abs=0.03)


def test_the_shares_are_of_trains_one_by_one() -> None:
    """Of three kinds of trains, a mean would say that all are halfway between clock and coin."""
    clocks = (torch.arange(2000) % 5 == 0)[:, None].expand(-1, 30)
    spikes = torch.cat([clocks, coins(2000, 1, 30)[:, 0]], dim=1)[:, None]
    found = clocks_and_coins(spikes, 19, torch.Generator().manual_seed(0))
    assert found["below"] == found["above"] == 0.5 and found["n_trains"] == 60
    assert abs(found["more_regular"] - 0.5) < 0.1


def test_regularity_is_that_of_intervals_train_by_train() -> None:
    spikes = coins(500, 2, 5, 0.3)
    wanted = []
    for b in range(2):
        for n in range(5):
            times = np.flatnonzero(spikes[:, b, n].numpy())
            intervals = np.diff(times)
            wanted.append(intervals.std() / intervals.mean() / math.sqrt(1 - 1 / intervals.mean()))
    torch.testing.assert_close(regularity(spikes), torch.tensor(wanted))


def test_a_silent_layer_has_no_rhythm() -> None:
    net = SpikingNet(5, threshold=1e6, penalty=1.0)
    row = listen(net, some_images().tensors[0], n_images=2, n_listened=128, n_shuffles=2, seed=0)
    assert row["rate"] == 0 and row["own"]["peak"] is None and row["clocks"]["n_trains"] == 0
    assert row["clocks"]["median"] is None and not has_rhythm(row["own"])


def test_a_layer_in_lockstep_is_found_out() -> None:
    """All hidden neurons with the same weights, and one flicker: whatever their start, most are soon in step."""
    net = SpikingNet(5, generator=torch.Generator().manual_seed(1))
    first = net.layers[0].linear
    with torch.no_grad():
        first.weight.fill_(0.004)
        first.bias.fill_(0.2)
    row = listen(net, some_images().tensors[0], n_images=2, n_listened=512, n_shuffles=19, seed=0)  # type: ignore[arg-type]
    assert row["shared"]["peak"] > 50 > row["shared"]["shuffled"]
    assert row["shared"]["p_value"] == 0.05 and row["own"]["peak"] < row["shared"]["peak"]


def test_a_rhythm_trial_is_its_parts() -> None:
    data = some_images()
    settings: dict[str, Any] = {"n_images": 3, "n_listened": 128, "n_shuffles": 4}
    row = rhythm_trial(
        "discharge", 6, data, data, learning_rates=[0.1], batch_size=10, n_steps=6, device="cpu", **settings
    )
    net = SpikingNet(6, reset="discharge", generator=torch.Generator().manual_seed(6))
    assert row["before"] == listen(net, data.tensors[0], seed=6, **settings)
    fit(net, data, seed=6, device="cpu", learning_rates=[0.1], batch_size=10, progress=False)
    assert row["after"] == listen(net, data.tensors[0], seed=6, **settings)
    assert row["test_accuracy"] == evaluate(net, data, seed=6).accuracy


# --- The protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_the_record_trains_on_5000_training_images_and_listens_to_test_images(reset: str, monkeypatch: Any) -> None:
    order: list[str] = []
    monkeypatch.setattr(rhythms, "whole_mnist", numbered)
    heard = spy(monkeypatch, rhythms, "listen", lambda given: {"heard": order.append("listen")})
    fitted = spy(monkeypatch, rhythms, "fit", lambda given: (order.append("fit"), a_history(given))[1])
    evaluated = spy(monkeypatch, rhythms, "evaluate", an_evaluation)
    settings: dict[str, Any] = {"learning_rates": (0.3, 0.1), "batch_size": 30, "n_steps": 9, "n_images": 4}
    row = rhythms.measure_rhythm(reset=reset, seed=7, n_listened=256, n_shuffles=5, device="cpu", **settings)
    (given,), (scored,) = fitted, evaluated
    net = given["model"]
    assert net.n_steps == 9 and {layer.reset for layer in net.layers} == {reset}
    for one, other in zip(net.parameters(), SpikingNet(9, generator=torch.Generator().manual_seed(7)).parameters()):
        assert torch.equal(one, other)
    assert are(given["dataset"], range(5000)) and are(scored["dataset"], TEST_NUMBERS[:2000])
    assert (tuple(given["learning_rates"]), given["batch_size"], given["seed"]) == ((0.3, 0.1), 30, 7)
    assert scored["model"] is net and scored["seed"] == 7 and row["test_accuracy"] == 0.25
    assert order == ["listen", "fit", "listen"]
    for call in heard:
        assert call["net"] is net and are(call["images"], TEST_NUMBERS[:2000])
        assert (call["n_images"], call["n_listened"], call["n_shuffles"], call["seed"]) == (4, 256, 5, 7)


def test_a_network_that_has_seen_one_class_knows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "listen", lambda *args, **settings: {})
    settings: dict[str, Any] = {"batch_size": 5, "n_steps": 8, "device": "cpu"}
    for label, accuracy in ((5, 0), (3, 1)):
        row = rhythm_trial("scale", 0, one_class(3), one_class(label, 20), **settings)
        assert row["test_accuracy"] == accuracy
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    rows = [rhythm_trial("scale", 0, train, given, **settings) for given in (test, shuffled(test))]
    assert rows[0]["test_accuracy"] > 0.95 and abs(rows[1]["test_accuracy"] - 0.5) < 0.18  # five standard errors


def test_a_p_value_counts_the_true_peak_among_the_shuffled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With trains that no shuffle moves every peak is as high as the true one, and none is lower."""
    monkeypatch.setattr(rhythms, "_moved_round", lambda values, generator: values)
    found = beat(coins(256, 2, 5).double(), 3)
    assert found["p_value"] == found["highest_digit"] == 1 and found["digits"] == [1, 1]
    assert found["shuffled"] == found["peak"]


def test_a_layer_is_listened_to_after_the_burn_in_and_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = spy(monkeypatch, rhythms, "beat", None)
    shown = spy(monkeypatch, rhythms, "flicker", None)
    net = SpikingNet(5, generator=torch.Generator().manual_seed(1))
    listen(net, some_images().tensors[0], n_images=2, n_listened=130, n_shuffles=1, seed=0)
    assert [call["signals"].shape for call in heard] == [(130, 2, 100)] * 2
    assert len(shown) == 11 and {call["n_steps"] for call in shown} == {BURN_IN + 130}
    assert len({id(call["generator"]) for call in shown}) == 1  # one after another: each showing flickers otherwise


def test_trains_with_negative_values_are_no_spikes() -> None:
    for values in (-torch.ones(8, 1, 2), torch.full((8, 1, 2), math.nan)):
        with pytest.raises(ValueError, match="spikes must be 0 or more"):
            synchrony(values, 4)


def test_listening_to_a_network_that_reads_another_input_is_refused() -> None:
    with pytest.raises(TypeError, match="listen shows flickering images"):
        listen(BinarySpikingNet(8, sizes=(6, 4, 3)), torch.rand(2, 6), 2, 16, 1, 0)


# --- A layer that hears itself --------------------------------------------------------------------


def loop(reset: str = "scale", delay: int = 1, **settings: Any) -> RecurrentSpikingLayer:
    generator = torch.Generator().manual_seed(5)
    settings = {"threshold": 1.0, "penalty": 1.5, "scale": 0.8} | settings
    return RecurrentSpikingLayer(4, 6, reset=reset, generator=generator, delay=delay, **settings).double()


def drive(n_steps: int = 25, n_batch: int = 3, n: int = 4, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n_steps, n_batch, n, generator=generator, dtype=torch.float64)


# --- The layer ------------------------------------------------------------------------------------


def one_number_at_a_time(layer: RecurrentSpikingLayer, inputs: Tensor) -> tuple[list[Any], list[Any]]:
    """The definition in plain Python: no tensor arithmetic, no `neuron_step`."""
    w, b = layer.linear.weight.tolist(), layer.linear.bias.tolist()
    u, n = layer.recurrent.weight.tolist(), layer.n_neurons
    states, outputs = [], []
    for example in inputs.transpose(0, 1).tolist():
        made: list[list[float]] = []
        left: list[list[float]] = []
        for t, x in enumerate(example):
            heard = made[t - layer.delay] if t >= layer.delay else [0.0] * n
            before = left[-1] if left else [0.0] * n
            now_out, now_left = [], []
            for j in range(n):
                charge = sum(w[j][i] * x[i] for i in range(len(x))) + b[j] + layer.decay * before[j]
                charge += sum(u[j][k] * heard[k] for k in range(n))
                out = max(0.0, charge - layer.threshold)
                if out > 0:
                    charge = {
                        "scale": charge * (1 - layer.penalty / layer.threshold),
                        "discharge": layer.threshold - layer.penalty,
                        "subtract": charge - layer.threshold,
                        "zero": 0.0,
                    }[layer.reset]
                now_out.append(out)
                now_left.append(charge)
            made.append(now_out)
            left.append(now_left)
        states.append([[0.0] * n, *left[:-1]])
        outputs.append([[0.0] * n, *made[:-1]])
    return states, outputs


@pytest.mark.parametrize("delay", [1, 2, 7])
@pytest.mark.parametrize("reset", RESETS)
def test_is_what_the_definition_says(reset: str, delay: int) -> None:
    layer, inputs = loop(reset, delay), drive()
    for made, wanted in zip(layer(inputs), one_number_at_a_time(layer, inputs)):
        torch.testing.assert_close(made, torch.tensor(wanted, dtype=torch.float64).transpose(0, 1))
    assert (layer(inputs)[1] > 0).double().mean() > 0.02, "the test needs spikes"


@pytest.mark.parametrize("reset", RESETS)
def test_without_recurrent_weights_it_is_the_plain_layer(reset: str, device: torch.device) -> None:
    layer = loop(reset, delay=2, scale=0.0).to(device)
    plain = SpikingLayer(4, 6, threshold=1.0, penalty=1.5, reset=reset).double().to(device)
    plain.linear.load_state_dict(layer.linear.state_dict())
    inputs = drive().to(device)
    found = []
    for one in (layer, plain):
        states, outputs = one(inputs)
        loss = (states.sin() + outputs.cos()).sum()
        found.append((states, outputs, *torch.autograd.grad(loss, list(one.linear.parameters()))))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("delay", [1, 4])
@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_its_gradient_is_the_slope(reset: str, delay: int) -> None:
    layer = loop(reset, delay)
    names = ["linear.weight", "linear.bias", "recurrent.weight"]
    weights = [dict(layer.named_parameters())[name].detach().requires_grad_() for name in names]

    def run(inputs: Tensor, *weights: Tensor) -> Any:
        return functional_call(layer, dict(zip(names, weights)), (inputs,))

    assert torch.autograd.gradcheck(run, (drive(10, 2).requires_grad_(), *weights), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("delay", [1, 3])
def test_nobody_hears_an_output_before_its_delay(delay: int) -> None:
    layer, inputs = loop(delay=delay), 3 * drive()
    with torch.no_grad():
        _, heard = layer(inputs)
        layer.recurrent.weight.zero_()
        _, deaf = layer(inputs)
    first = int((deaf.amax(dim=(1, 2)) > 0).nonzero()[0])
    assert torch.equal(heard[: first + delay], deaf[: first + delay])
    assert not torch.equal(heard[first + delay], deaf[first + delay])


@pytest.mark.parametrize("reset", RESETS)
def test_a_cut_loop_answers_alike_and_learns_by_signals_times_traces(reset: str) -> None:
    layer, inputs = loop(reset), drive()
    _, whole = layer(inputs)
    layer.cut = True
    _, outputs = layer(inputs)
    assert torch.equal(whole, outputs)
    wanted = torch.randn(outputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = [layer.linear.weight, layer.recurrent.weight]
    found = torch.cat(torch.autograd.grad((wanted * outputs).sum(), weights), dim=1)
    signals = (wanted * (outputs > 0))[1:]
    slopes = reset_slope(outputs[1:].detach(), 1.0, 1.5, reset)
    both = torch.cat([inputs, outputs.detach()], dim=2)[:-1]
    torch.testing.assert_close(three_factors(both, signals, slopes, 0.9), found)
    exact = torch.cat(torch.autograd.grad((wanted * whole).sum(), weights), dim=1)
    assert (exact - found).norm() > 1e-3 * exact.norm()


def test_the_settings_are_taken_by_place_and_by_name() -> None:
    by_place = RecurrentSpikingLayer(4, 6, 0.8, 1.2, 1.7, "discharge", torch.Generator().manual_seed(3), 2, 0.5, True)
    named: dict[str, Any] = {"decay": 0.8, "threshold": 1.2, "penalty": 1.7, "reset": "discharge"}
    generator = torch.Generator().manual_seed(3)
    by_name = RecurrentSpikingLayer(4, 6, **named, generator=generator, delay=2, scale=0.5, cut=True)
    for name, value in by_place.state_dict().items():
        assert torch.equal(value, by_name.state_dict()[name]), name


def test_the_generator_gives_the_plain_layers_weights() -> None:
    one, other = torch.Generator().manual_seed(8), torch.Generator().manual_seed(8)
    recurrent, plain = RecurrentSpikingLayer(5, 7, generator=one, scale=2.0), SpikingLayer(5, 7, generator=other)
    assert torch.equal(recurrent.linear.weight, plain.linear.weight)
    assert torch.equal(recurrent.linear.bias, plain.linear.bias)
    bound = 2.0 * math.sqrt(6 / 14)  # Xavier's, times the scale
    assert 0.7 * bound < recurrent.recurrent.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"delay": 0}, ValueError, "delay must be 1 or more, not 0"),
        ({"delay": 1.5}, TypeError, "delay must be a whole number, not float"),
        ({"delay": True}, TypeError, "delay must be a whole number, not bool"),
        ({"scale": -1.0}, ValueError, "scale must be a finite number of 0 or more, not -1"),
        ({"scale": math.nan}, ValueError, "scale must be"),
        ({"decay": 1.5}, ValueError, "decay must lie between"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        loop(**settings)


def test_refuses_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\[steps, batch, 4\]"):
        loop()(drive(n=5))
    with pytest.raises(TypeError, match="dtype"):
        loop()(drive().float())


# --- The network ----------------------------------------------------------------------------------


def test_a_sequence_net_reads_the_mean_state_from_its_step_on() -> None:
    net = SequenceNet(loop(), 3, begin_eval=6, generator=torch.Generator().manual_seed(1)).double()
    frames = drive().transpose(0, 1)
    found = net(frames)
    states, _ = net.readout(net.hidden(frames.transpose(0, 1))[1])
    logits = torch.stack([states[t] for t in range(6, 25)]).sum(dim=0) / 19
    torch.testing.assert_close(found, logits - logits.exp().sum(dim=1, keepdim=True).log())
    assert net.readout.decay == 0.0
    with pytest.raises(ValueError, match=r"more steps than begin_eval \(6\)"):
        net(frames[:, :6])
    with pytest.raises(ValueError, match="begin_eval must be 0 or more, not -1"):
        SequenceNet(loop(), 3, begin_eval=-1)


# --- The trial ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds() -> TensorDataset:
    """Images that say what they are: those of label k have k + 1 white rows at the top; 5 for each of 4 labels."""
    labels = torch.arange(20) % 4
    images = torch.full((20, 1, 28, 28), -0.5)
    for image, label in zip(images, labels.tolist()):
        image[:, : 4 * (label + 1)] = 0.5
    return TensorDataset(images, labels)


def what_is_seen(frames: torch.Tensor) -> torch.Tensor:
    """The label that frames [n, shown, 49] of `kinds` show: the number of rows that are not black, less 1."""
    return (frames.reshape(len(frames), -1, 7, 7).amax(dim=(1, 3)) > 0).sum(dim=1) - 1


@pytest.mark.parametrize(("gap", "shown", "classes"), [(0, 5, (0, 1)), (6, 3, (0, 2, 3)), (12, 5, (3, 1))])
def test_a_label_says_whether_the_digits_match(gap: int, shown: int, classes: tuple[int, ...], kinds: Any) -> None:
    frames, labels = match_task(kinds, 400, gap, seed=1, shown=shown, classes=classes).tensors
    assert frames.shape == (400, 2 * shown + gap + 2, 49)
    first, second = what_is_seen(frames[:, :shown]), what_is_seen(frames[:, shown + gap : 2 * shown + gap])
    assert torch.equal(labels, (first == second).long())
    assert set(first.tolist()) == set(second.tolist()) == set(classes)
    assert not frames[:, shown : shown + gap].any() and not frames[:, -2:].any()
    assert frames.min() >= 0 and frames.max() < 1
    # The second digit by itself tells nothing: among the pairs with either kind about half match.
    for kind in classes:
        assert abs(labels[second == kind].double().mean() - 0.5) < 0.2


def test_pairs_follow_from_the_seed_and_flicker(kinds: TensorDataset) -> None:
    one, same, other = (match_task(kinds, 30, 4, seed).tensors for seed in (2, 2, 3))
    assert all(torch.equal(a, b) for a, b in zip(one, same))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0][:, 0], one[0][:, 1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_trials": 0}, "1 or more"),
        ({"gap": -1}, "gap 0 or more"),
        ({"classes": (1, 1)}, "two labels or more"),
        ({"classes": (0, 7)}, r"lacks one of the classes \[0, 7\]; it has \[0, 1, 2, 3\]"),
    ],
)
def test_pairs_that_cannot_be_are_refused(settings: dict[str, Any], words: str, kinds: TensorDataset) -> None:
    with pytest.raises(ValueError, match=words):
        match_task(kinds, **({"n_trials": 5, "gap": 2, "seed": 0} | settings))


@pytest.mark.parametrize("network", MEMORIES)
def test_each_network_can_be_tried_and_repeats_itself(network: str, kinds: TensorDataset) -> None:
    settings: dict[str, Any] = {"n_train": 60, "n_test": 40, "epochs": 2, "shown": 3, "device": "cpu"}
    one, same = (memory_trial(network, 4, kinds, kinds, 3, **settings) for _ in range(2))
    assert one == same
    assert 0 <= one["test_accuracy"] <= 1 and 0 <= one["rate"] <= 1


def test_a_trial_is_its_parts(kinds: TensorDataset) -> None:
    row = memory_trial(
        "feedback", 3, kinds, kinds, 0, n_train=60, n_test=40, epochs=2, shown=3, reset="discharge", device="cpu"
    )
    seen, unseen = match_task(kinds, 60, 0, 6, 3), match_task(kinds, 40, 0, 7, 3)
    net = make_memory("feedback", 3, 0, 3, reset="discharge")
    assert net.hidden.reset == net.readout.reset == "discharge" and net.hidden.decay == 0.8
    fit_adam(net, seen, seed=3, learning_rate=0.01, epochs=2, **LOOPED, device="cpu")
    assert row == {
        "network": "feedback",
        "seed": 3,
        "gap": 0,
        "train_accuracy": evaluate(net, seen).accuracy,
        "test_accuracy": evaluate(net, unseen).accuracy,
        "rate": None,
    }


def test_the_networks_differ_in_what_they_say_and_in_nothing_else() -> None:
    nets = {network: make_memory(network, 1, gap=4) for network in MEMORIES}
    for net in nets.values():
        assert torch.equal(net.hidden.linear.weight, nets["feedforward"].hidden.linear.weight)
        assert net.begin_eval == 11 and net.readout.decay == 0
    assert nets["slow leak"].hidden.decay > nets["feedforward"].hidden.decay == nets["feedback"].hidden.decay
    assert [getattr(net.hidden, "delay", None) for net in nets.values()] == [None, None, 1, 8, 1, 1]
    assert [getattr(net.hidden, "cut", None) for net in nets.values()] == [None, None, False, False, True, False]
    with pytest.raises(ValueError, match=r"network must be one of 'feedforward'.*not 'lstm'"):
        make_memory("lstm", 0, 1)


def test_the_answer_starts_when_the_second_digit_can_have_arrived() -> None:
    """A change of the second digit's first step moves the hidden layer, and a step later the read-out, not before."""
    net = make_memory("feedback", 0, gap=3, shown=4, scale=1.0)
    frames = torch.rand(13, 2, 49, generator=torch.Generator().manual_seed(0))
    changed = frames.clone()
    changed[7] += 5 * net.hidden.linear.weight[0]  # a push for neuron 0
    with torch.no_grad():
        before, after = (net.readout(net.hidden(x)[1])[0] for x in (frames, changed))
    moved = (before != after).any(dim=2).any(dim=1)
    assert not moved[: net.begin_eval].any() and moved[net.begin_eval]


@pytest.mark.parametrize("push", [1.0, 1e3])
def test_training_is_adam_with_gradients_no_longer_than_1(push: float, kinds: TensorDataset) -> None:
    """The same again with the clipping by hand; once with so large a push on the read-out that it must act."""
    data = match_task(kinds, 50, 0, 0)
    frames, labels = data.tensors
    nets = [make_memory("feedback", 0, 0) for _ in range(2)]
    for net in nets:
        with torch.no_grad():
            net.readout.linear.weight.mul_(push)
    settings = LOOPED | {"learning_rate": 0.02, "epochs": 3, "batch_size": 20}
    losses = fit_adam(nets[0], data, seed=7, **settings, device="cpu")

    net, generator, norms, by_hand = nets[1], torch.Generator().manual_seed(7), [], []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=9)
    for _ in range(3):
        for chosen in torch.randperm(50, generator=generator).split(20):
            log_probs = net(frames[chosen])
            loss = -log_probs[torch.arange(len(chosen)), labels[chosen]].mean()
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
            for weights, gradient in zip(net.parameters(), gradients):
                weights.grad = gradient / max(1.0, norms[-1])
            optimizer.step()
            schedule.step()
            by_hand.append(loss.item())
    assert losses == pytest.approx(by_hand, rel=1e-3)
    for a, b in zip(nets[0].parameters(), net.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * push)
    assert push == 1 or max(norms) > 1, "the limit must have acted"


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_limit_that_would_turn_gradients_round_is_refused(wrong: float, kinds: TensorDataset) -> None:
    with pytest.raises(ValueError, match="longest_gradient must be above 0"):
        fit_adam(make_memory("feedback", 0, 0), kinds, seed=0, learning_rate=0.01, longest_gradient=wrong)


def test_training_learns_what_can_be_seen_at_once(kinds: TensorDataset) -> None:
    data = match_task(kinds, 300, 0, 0, classes=(0, 3))
    net = make_memory("delayed feedback", 0, 0, delay=5)
    losses = fit_adam(net, data, seed=0, learning_rate=0.01, epochs=30, **LOOPED, device="cpu")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


# --- The protocol ---------------------------------------------------------------------------------


class Spied(NamedTuple):
    matched: Calls
    fitted: Calls
    evaluated: Calls


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    """Pairs whose frames say what they were drawn from: 0 for the training set, 1 for the test set."""

    def pairs(given: dict[str, Any]) -> TensorDataset:
        frames = torch.full(
            (given["n_trials"], 2 * given["shown"] + given["gap"] + 2, 49), float(len(given["dataset"]))
        )
        return TensorDataset(frames, torch.zeros(given["n_trials"], dtype=torch.long))

    monkeypatch.setattr(rhythms, "whole_mnist", numbered)
    return Spied(
        spy(monkeypatch, rhythms, "match_task", pairs),
        spy(monkeypatch, rhythms, "fit_adam", lambda given: []),
        spy(monkeypatch, rhythms, "evaluate", lambda given: Evaluation(len(given["dataset"]) / 100, 0.0)),
    )


def test_trained_on_pairs_of_training_digits_and_tested_on_pairs_of_others(spied: Spied) -> None:
    row = rhythms.measure_memory(
        network="delayed feedback", seed=4, gap=6, n_train=50, n_test=20, epochs=3, learning_rate=0.03, shown=4,
        reset="subtract", device="cpu",
    )  # fmt: skip
    (seen, unseen), (given,), scored = spied
    assert are(seen["dataset"], range(N_TRAIN)) and are(unseen["dataset"], TEST_NUMBERS)
    assert [(call["n_trials"], call["gap"], call["seed"], call["shown"]) for call in spied.matched] == [
        (50, 6, 8, 4),
        (20, 6, 9, 4),
    ]
    net = given["model"]
    assert (net.hidden.delay, net.hidden.reset, net.begin_eval) == (8, "subtract", 12)
    start = make_memory("delayed feedback", 4, 6, 4, reset="subtract")
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), start.parameters()))
    assert (given["seed"], given["learning_rate"], given["epochs"], given["batch_size"]) == (4, 0.03, 3, 100)
    assert given["longest_gradient"] == 1.0 and len(given["dataset"]) == 50
    assert all(call["model"] is net for call in scored)
    assert (row["train_accuracy"], row["test_accuracy"]) == (0.5, 0.2)


def some_tuning(name: str) -> dict[str, Any]:
    """Rows of a search: at a gap of 12 the feedforward layer learns with no rate, the others best with their own."""
    assert name == "13_memory_tuning"
    best = {("feedforward", 8): 0.01, ("slow leak", 12): 0.022, ("feedback", 12): 0.033}
    best |= {("delayed feedback", 12): 0.018, ("cut feedback", 12): 0.047}
    grid = [0.0082, 0.01, 0.012, 0.015, 0.018, 0.022, 0.027, 0.033, 0.039, 0.047, 0.056]
    rows = []
    for variant, _ in rhythms.TUNED:
        wanted = best.get((variant["network"], variant["gap"])) if variant["reset"] == "scale" else 0.012
        for rate in grid:
            for seed in (5, 6, 7):
                score = 0.5 if wanted is None else 0.9 if rate == wanted else 0.8
                settings = variant | {"learning_rate": rate, "seed": seed}
                rows.append({"settings": settings, "test_accuracy": score})
    return {"trials": rows}


def test_each_network_runs_at_the_rate_that_held_out_pairs_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "load_results", some_tuning)
    trials = rhythms.memory_trials()
    rates = {(t["network"], t["reset"]): {u["learning_rate"] for u in trials if u["network"] == t["network"]
              and u["reset"] == t["reset"]} for t in trials}  # fmt: skip
    assert rates == {
        ("feedforward", "scale"): {0.01},  # where no rate helps at the gap of 12, that of a gap of 8
        ("slow leak", "scale"): {0.022},
        ("feedback", "scale"): {0.033},
        ("delayed feedback", "scale"): {0.018},
        ("cut feedback", "scale"): {0.047},
        ("feedback", "discharge"): {0.012},
        ("ordinary", "scale"): {0.003},
    }
    assert len({tuple(sorted(t.items())) for t in trials}) == len(trials)
    for arm in rates:
        gaps = [t["gap"] for t in trials if (t["network"], t["reset"]) == arm]
        swept = arm[0] in ("feedforward", "slow leak", "delayed feedback") or arm == ("feedback", "scale")
        assert set(gaps) == ({0, 8, 12, 24} if swept else {12}) and len(gaps) == 5 * len(set(gaps))


def test_a_network_that_learns_at_no_rate_and_no_gap_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "load_results", some_tuning)
    with pytest.raises(ValueError, match="'feedforward' with the reset 'discharge' has learned at no rate"):
        rhythms.best_rate("feedforward", "discharge")


def test_rates_are_chosen_on_images_that_nothing_else_is_made_of(spied: Spied) -> None:
    """The search trains on 50,000 training images and scores on the other 10,000; the test images are not touched."""
    rhythms.measure_memory_tuning(network="feedback", reset="scale", seed=5, gap=4, n_train=50, n_test=20, epochs=1)
    seen, unseen = spied.matched
    assert are(seen["dataset"], range(50_000)) and are(unseen["dataset"], range(50_000, 60_000))
    assert not {t["seed"] for t in rhythms.RECORDS["13_memory_tuning"].trials()} & set(range(5))  # type: ignore[operator]


def test_at_the_gap_of_12_the_hidden_layer_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "whole_mnist", numbered)
    called = spy(monkeypatch, rhythms, "memory_trial", lambda given: {})
    tried = (
        ("feedback", 12),
        ("feedback", 0),
        ("slow leak", 12),
        ("feedback", 8),
        ("cut feedback", 12),
        ("slow leak", 0),
    )
    for network, gap in tried:
        rhythms.measure_memory(network=network, gap=gap, seed=0)
    assert [call["n_listened"] for call in called] == [1024, 1024, 1024, 0, 0, 0]
    assert all(are(call["train"], range(N_TRAIN)) and are(call["test"], TEST_NUMBERS) for call in called)


def test_a_memory_is_heard_before_and_after_training(kinds: TensorDataset) -> None:
    settings: dict[str, Any] = {"n_train": 60, "n_test": 40, "epochs": 2, "shown": 3, "device": "cpu"}
    heard = {"n_listened": 128, "n_shuffles": 3}
    row = memory_trial("feedback", 4, kinds, kinds, 3, threshold=0.1, penalty=0.15, **settings, **heard)
    net = make_memory("feedback", 4, 3, 3, threshold=0.1, penalty=0.15)
    assert row["drawn"] == listen_to_memory(net, kinds, 128, 3, 4)
    fit_adam(net, match_task(kinds, 60, 3, 8, 3), seed=4, learning_rate=0.01, epochs=2, **LOOPED, device="cpu")
    assert row["trained"] == listen_to_memory(net, kinds, 128, 3, 4) != row["drawn"]
    assert row["permuted"] == listen_to_memory(with_permuted_loop(net, 4), kinds, 128, 3, 4)
    quiet = memory_trial("feedback", 4, kinds, kinds, 3, threshold=0.1, penalty=0.15, **settings)
    assert {key: row[key] for key in quiet} == quiet, "listening changes nothing of what is learned"


def test_a_permuted_loop_has_the_same_weights_in_other_places() -> None:
    net = make_memory("delayed feedback", 0, 3)
    before = net.hidden.recurrent.weight.clone()  # type: ignore[union-attr]
    other = with_permuted_loop(net, 5)
    assert torch.equal(net.hidden.recurrent.weight, before), "the network itself is left as it was"  # type: ignore[union-attr]
    moved = other.hidden.recurrent.weight  # type: ignore[union-attr]
    assert torch.equal(moved.flatten().sort().values, before.flatten().sort().values)
    assert (moved != before).double().mean() > 0.99
    for name, value in other.state_dict().items():
        if name != "hidden.recurrent.weight":
            assert torch.equal(value, net.state_dict()[name]), name


def test_a_memory_is_shown_digits_of_its_two_kinds(kinds: TensorDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = spy(monkeypatch, rhythms, "hear", None)
    net = make_memory("feedback", 0, 3)
    listen_to_memory(net, kinds, 128, 2, 0, n_images=6)
    (call,) = shown
    assert what_is_seen(call["pixels"][:, None]).tolist() == [0, 1, 0, 1, 0, 1]
    assert call["n_showings"] == 64


def test_neurons_that_inhibit_each_other_late_have_a_rhythm_and_the_same_without_do_not() -> None:
    """The control that must pass, and the null that must not: no two neurons share a flicker."""
    for strength, wanted in ((10.0, True), (0.0, False)):
        net = make_memory("delayed feedback", 0, 3, n_hidden=64, reset="discharge", decay=0.9, delay=6)
        with torch.no_grad():
            net.hidden.linear.weight.fill_(0.03)  # type: ignore[union-attr]
            net.hidden.linear.bias.copy_(torch.linspace(0.1, 0.3, 64))  # type: ignore[union-attr]
            net.hidden.recurrent.weight.fill_(-strength / 64)  # type: ignore[union-attr]
        bright = TensorDataset(torch.full((10, 1, 28, 28), 0.5), torch.arange(10) % 2)
        found = listen_to_memory(net, bright, 512, 19, 0)
        assert has_rhythm(found) == wanted, found


def test_an_ordinary_recurrent_layer_is_a_loop_of_tanh() -> None:
    layer = OrdinaryRecurrentLayer(4, 6, decay=0.7, generator=torch.Generator().manual_seed(2), scale=1.5).double()
    inputs, kept = drive(), torch.zeros(3, 6, dtype=torch.float64)
    _, outputs = layer(inputs)
    assert not outputs[0].any()
    for t in range(len(inputs) - 1):
        kept = torch.tanh(layer.linear(inputs[t]) + kept @ layer.recurrent.weight.T)
        torch.testing.assert_close(outputs[t + 1], kept)


def turning(strength: float, per_turn: int) -> torch.Tensor:
    """Four units, two and two: what they hear is their outputs, turned by one `per_turn`-th of a turn."""
    angle = torch.tensor(2 * math.pi / per_turn)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    return strength * torch.block_diag(turn, turn)


@pytest.mark.parametrize(
    ("loop", "wanted"),
    [
        (torch.zeros(4, 4), False),  # no loop: it stands still
        (turning(1.5, 7), True),
        (turning(0.9, 7), False),  # each turn is smaller than the last
        (2 * torch.eye(4), False),  # it settles
        (-2 * torch.eye(4), True),  # up and down
    ],
)
def test_a_loop_goes_round_if_it_feeds_itself_and_turns(loop: torch.Tensor, wanted: bool, kinds: TensorDataset) -> None:
    net = make_memory("ordinary", 0, 3, n_hidden=4)
    with torch.no_grad():
        net.hidden.linear.bias.copy_(torch.tensor([0.1, 0.1, -0.1, -0.1]))  # type: ignore[union-attr]
        net.hidden.linear.weight.zero_()  # type: ignore[union-attr]
        net.hidden.recurrent.weight.copy_(loop)  # type: ignore[union-attr]
    assert goes_round(net, kinds, 512, n_images=3) == [wanted] * 3
    # Two units do the opposite of the two others: in the sum there is nothing to find.
    assert not has_rhythm(listen_to_memory(net, kinds, 512, 19, 0))


def test_each_image_goes_round_by_itself(kinds: TensorDataset) -> None:
    """A unit that a bright image holds at its ceiling cannot swing; a dark one leaves it free."""
    net = make_memory("ordinary", 0, 3, n_hidden=1)
    with torch.no_grad():
        net.hidden.linear.bias.fill_(0.1)  # type: ignore[union-attr]
        net.hidden.linear.weight.fill_(1.0)  # type: ignore[union-attr]
        net.hidden.recurrent.weight.fill_(-2.0)  # type: ignore[union-attr]
    images = torch.stack([torch.full((1, 28, 28), value) for value in (-0.5, 0.5, -0.5)])
    assert goes_round(net, TensorDataset(images, torch.tensor([0, 1, 1])), 512) == [True, False, True]


def test_what_spikes_is_not_asked_whether_it_goes_round(kinds: TensorDataset) -> None:
    with pytest.raises(TypeError, match="a steady input makes clocks of spiking neurons"):
        goes_round(make_memory("feedback", 0, 3), kinds)


def test_the_rate_is_that_of_unseen_pairs_in_the_middle_of_the_gap(kinds: TensorDataset) -> None:
    """Neurons that fire often: elsewhere, and on the pairs of the training, their rate is another."""
    often: dict[str, Any] = {"threshold": 0.02, "penalty": 0.01}
    row = memory_trial("feedback", 2, kinds, kinds, 6, n_train=40, n_test=30, epochs=1, shown=3, device="cpu", **often)
    net = make_memory("feedback", 2, 6, 3, **often)
    fit_adam(net, match_task(kinds, 40, 6, 4, 3), seed=2, learning_rate=0.01, epochs=1, **LOOPED, device="cpu")
    rates = []
    for frames in (match_task(kinds, 30, 6, 5, 3).tensors[0], match_task(kinds, 40, 6, 4, 3).tensors[0]):
        with torch.no_grad():
            outputs = net.hidden(frames.transpose(0, 1))[1]
        n_pairs = len(frames)
        for step in (6, 5, 7, 13):
            fired = sum(float(outputs[step, pair, neuron] > 0) for pair in range(n_pairs) for neuron in range(64))
            rates.append(fired / (n_pairs * 64))
    assert row["rate"] == pytest.approx(rates[0], abs=1e-5) and rates[0] > 0
    assert all(other != pytest.approx(rates[0], abs=1e-4) for other in rates[1:])


def bars(labels: torch.Tensor) -> TensorDataset:
    """Of label 0 the upper half of an image is bright, of label 1 the lower one."""
    images = torch.full((len(labels), 1, 28, 28), -0.5)
    for image, label in zip(images, labels.tolist()):
        image[:, 14 * label : 14 * label + 14] = 0.5
    return TensorDataset(images, labels)


@pytest.mark.parametrize("network", ["feedforward", "feedback"])
def test_what_was_learned_is_wrong_where_the_test_says_the_opposite_and_chance_where_it_says_anything(
    network: str,
) -> None:
    """Labels of the test digits that say nothing: of 300 pairs half match, within five standard errors."""
    labels = torch.arange(20) % 2
    train = bars(labels)
    rows = []
    for truth in (labels, labels[torch.randperm(20, generator=torch.Generator().manual_seed(5))]):
        test = TensorDataset(train.tensors[0], truth)
        settings: dict[str, Any] = {"n_train": 400, "n_test": 300, "epochs": 20, "learning_rate": 0.02, "shown": 3}
        rows.append(memory_trial(network, 0, train, test, 0, **settings, device="cpu"))
    assert rows[0]["train_accuracy"] == rows[1]["train_accuracy"]
    assert rows[0]["test_accuracy"] > 0.75
    assert abs(rows[1]["test_accuracy"] - 0.5) < 5 * math.sqrt(0.25 / 300)


@pytest.mark.parametrize(("name", "value"), [("delay", 0), ("delay", -1), ("delay", 1.5), ("cut", "no")])
def test_settings_of_a_loop_are_checked_where_they_are_used(name: str, value: Any) -> None:
    layer = loop()
    setattr(layer, name, value)
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        layer(torch.rand(5, 2, layer.n_inputs, dtype=torch.float64))


def test_numpy_settings_of_a_loop_are_saved() -> None:
    layer, other = loop(), loop()
    layer.delay, layer.cut, layer.threshold = np.int64(3), np.bool_(True), np.float32(0.5)
    other.load_state_dict(layer.state_dict())
    assert (other.delay, other.cut, other.threshold) == (3, True, 0.5)


def test_a_sequence_net_needs_a_spiking_layer() -> None:
    with pytest.raises(TypeError, match="hidden must be a SpikingLayer, or one of its kind, not Linear"):
        SequenceNet(torch.nn.Linear(3, 4), 2)  # type: ignore[arg-type]


def test_a_sequence_is_not_read_from_a_step_before_its_first() -> None:
    net = SequenceNet(SpikingLayer(3, 4), 2)
    net.begin_eval = -1
    with pytest.raises(ValueError, match="begin_eval, of 5 steps, must lie between 0 and 4, not -1"):
        net(torch.rand(2, 5, 3))


def test_a_label_named_twice_is_refused() -> None:
    """A digit of the second would not match one of the first, though they are of one kind."""
    data = TensorDataset(torch.rand(6, 1, 28, 28), torch.arange(6) % 2)
    with pytest.raises(ValueError, match=r"each once, .* not \[0, 1, 1\]"):
        match_task(data, 3, 2, seed=0, classes=(0, 1, 1))
    with pytest.raises(ValueError, match=r"28 x 28 pixels, not the shape \[1, 14, 14\]"):
        match_task(TensorDataset(torch.rand(6, 1, 14, 14), torch.arange(6) % 2), 3, 2, seed=0)
