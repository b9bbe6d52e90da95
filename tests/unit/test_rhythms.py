"""Synchrony and regularity against NumPy's Fourier transform, clocks and coins; what listening hears; the trial."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from snn_chapters import rhythms
from snn_chapters.binary import BinarySpikingNet
from snn_chapters.rhythms import listen, put_together, regularity, rhythm_trial, shift_trains, synchrony
from spies import (
    TEST_NUMBERS,
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
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit


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
    spikes = (torch.rand(60, 3, 5, generator=torch.Generator().manual_seed(3)) * (coins(60, 3, 5))).to(device)
    moved, again, other = (shift_trains(spikes, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(moved, again) and not torch.equal(moved, other)
    offsets = set()
    for b in range(3):
        for n in range(5):
            fits = [k for k in range(60) if torch.equal(spikes[:, b, n].roll(k), moved[:, b, n])]
            assert fits, "each train must be its own, moved round"
            offsets.add(fits[0])
    assert len(offsets) > 5, "each train has an offset of its own"


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


def test_listening_hears_what_the_network_does_after_the_burn_in() -> None:
    net = SpikingNet(7, generator=torch.Generator().manual_seed(2))
    images = some_images().tensors[0]
    found = listen(net, images, n_images=4, n_listened=256, n_shuffles=9, seed=5)
    assert net.n_steps == 7, "the network is left as it was"
    net.n_steps = 384
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        showings = [[r.outputs[128:] > 0 for r in net.record(images[:4], generator)] for _ in range(10)]
    for layer, row in enumerate(found):
        late = showings[0][layer]
        together = synchrony(torch.cat([showing[layer] for showing in showings], dim=1)).ratio
        apart = synchrony(put_together([showing[layer] for showing in showings])).ratio
        wanted = [together.mean(), together.max(), apart.mean(), apart.max()]
        assert [row[name] for name in ("shared_mean", "shared_peak", "apart_mean", "apart_peak")] == pytest.approx(
            [float(value) for value in wanted], abs=1e-5
        )
        assert row["rate"] == pytest.approx(late.double().mean().item(), abs=1e-5)
        true = synchrony(late).ratio
        assert row["peak"] == pytest.approx(true.max().item(), abs=1e-5)
        assert row["frequency"] == pytest.approx((int(true.argmax()) + 1) / 128, abs=1e-5)
        assert 0.1 <= row["p_value"] <= 1


def test_a_population_put_together_takes_each_neuron_once_and_from_its_showing() -> None:
    showings = [torch.rand(7, 3, 12, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    mixed = put_together(showings)
    assert mixed.shape == (7, 15, 12)
    for k in range(5):
        for n in range(12):
            assert torch.equal(mixed[:, 3 * k : 3 * k + 3, n], showings[(n + k) % 5][:, :, n])
    assert mixed.sum() == pytest.approx(sum(float(showing.sum()) for showing in showings), rel=1e-5)


def test_the_second_control_tells_shared_noise_from_what_is_locked() -> None:
    """Coins tossed once for all neurons of a showing fall apart; a beat that all showings have stays."""
    generator = torch.Generator().manual_seed(3)
    noise = [(torch.rand(1000, 2, 1, generator=generator) < 0.3).expand(-1, -1, 20) for _ in range(10)]
    beat = [(torch.arange(1000) % 9 == 0)[:, None, None].expand(-1, 2, 20)] * 10
    assert synchrony(noise[0]).ratio.mean() == pytest.approx(20) == synchrony(put_together(beat)).ratio.max()
    assert synchrony(put_together(noise)).ratio.mean() < 3


def test_a_silent_layer_has_no_rhythm() -> None:
    net = SpikingNet(5, threshold=1e6, penalty=1.0)
    for row in listen(net, some_images().tensors[0], n_images=2, n_listened=128, n_shuffles=2, seed=0):
        assert row["rate"] == 0 and row["peak"] is None and row["regularity"] is None


def test_a_layer_in_lockstep_is_found_out() -> None:
    """All hidden neurons with the same weights: the peak is the number of neurons, and no shuffle comes near."""
    net = SpikingNet(5, generator=torch.Generator().manual_seed(1))
    first = net.layers[0].linear
    with torch.no_grad():
        first.weight.fill_(0.004)
        first.bias.fill_(0.2)
    row = listen(net, some_images().tensors[0], n_images=2, n_listened=512, n_shuffles=19, seed=0)[0]  # type: ignore[arg-type]
    assert row["peak"] == pytest.approx(100) and row["shuffled_peak"] < 50 and row["p_value"] == 0.05


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
    heard = spy(monkeypatch, rhythms, "listen", lambda given: [order.append("listen")])
    fitted = spy(monkeypatch, rhythms, "fit", lambda given: (order.append("fit"), a_history(given))[1])
    evaluated = spy(monkeypatch, rhythms, "evaluate", an_evaluation)
    settings: dict[str, Any] = {"learning_rates": (0.3, 0.1), "batch_size": 30, "n_steps": 9, "n_images": 4}
    row = rhythms.measure_rhythm(reset=reset, seed=7, n_listened=256, n_shuffles=5, device="cpu", **settings)
    (given,), (scored,) = fitted, evaluated
    net = given["model"]
    assert net.n_steps == 9 and {layer.reset for layer in net.layers} == {reset}
    for one, other in zip(net.parameters(), SpikingNet(9, generator=torch.Generator().manual_seed(7)).parameters()):
        assert torch.equal(one, other)
    assert are(given["dataset"], range(5000)) and are(scored["dataset"], TEST_NUMBERS)
    assert (tuple(given["learning_rates"]), given["batch_size"], given["seed"]) == ((0.3, 0.1), 30, 7)
    assert scored["model"] is net and scored["seed"] == 7 and row["test_accuracy"] == 0.25
    assert order == ["listen", "fit", "listen"]
    for call in heard:
        assert call["net"] is net and are(call["images"], TEST_NUMBERS)
        assert (call["n_images"], call["n_listened"], call["n_shuffles"], call["seed"]) == (4, 256, 5, 7)


def test_a_network_that_has_seen_one_class_knows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "listen", lambda *args, **settings: [])
    settings: dict[str, Any] = {"batch_size": 5, "n_steps": 8, "device": "cpu"}
    for label, accuracy in ((5, 0), (3, 1)):
        row = rhythm_trial("scale", 0, one_class(3), one_class(label, 20), **settings)
        assert row["test_accuracy"] == accuracy
    train, test = several(240, classes=2), several(200, classes=2, seed=1)
    rows = [rhythm_trial("scale", 0, train, given, **settings) for given in (test, shuffled(test))]
    assert rows[0]["test_accuracy"] > 0.95 and abs(rows[1]["test_accuracy"] - 0.5) < 0.18  # five standard errors


def test_a_p_value_counts_the_true_peak_among_the_shuffled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With trains that no shuffle moves every peak is as high as the true one, and none is lower."""
    net, images = SpikingNet(5, generator=torch.Generator().manual_seed(1)), some_images().tensors[0]
    monkeypatch.setattr(rhythms, "shift_trains", lambda spikes, generator: spikes)
    for row in listen(net, images, n_images=2, n_listened=128, n_shuffles=3, seed=0):
        assert row["peak"] is None or (row["p_value"] == 1 and row["shuffled_peak"] == row["peak"])


def test_a_layer_is_listened_to_after_the_burn_in_and_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = spy(monkeypatch, rhythms, "regularity", None)
    shown = spy(monkeypatch, rhythms, "flicker", None)
    net = SpikingNet(5, generator=torch.Generator().manual_seed(1))
    listen(net, some_images().tensors[0], n_images=2, n_listened=130, n_shuffles=1, seed=0)
    assert [call["spikes"].shape for call in heard] == [(130, 2, 100), (130, 2, 10)]
    assert len(shown) == rhythms.N_SHOWINGS == 10 and {call["n_steps"] for call in shown} == {258}
    assert len({id(call["generator"]) for call in shown}) == 1  # one after another: each showing flickers otherwise


def test_trains_with_negative_values_are_no_spikes() -> None:
    for values in (-torch.ones(8, 1, 2), torch.full((8, 1, 2), math.nan)):
        with pytest.raises(ValueError, match="spikes must be 0 or more"):
            synchrony(values, 4)


def test_listening_to_a_network_that_reads_another_input_is_refused() -> None:
    with pytest.raises(TypeError, match="listen shows flickering images"):
        listen(BinarySpikingNet(8, sizes=(6, 4, 3)), torch.rand(2, 6), 2, 16, 1, 0)
