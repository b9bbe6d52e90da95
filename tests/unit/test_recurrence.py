"""Chapter 10's helpers: the loop against numbers one by one, the spectra against NumPy's Fourier transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from snn_chapters.loops import RecurrentSpikingLayer, SequenceNet
from snn_chapters.rhythms import regularity, shift_trains, synchrony
from torch import Tensor
from torch.func import functional_call

from snn_helpers import SpikingLayer
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import reset_slope, three_factors


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
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if name != "recurrent.weight"})
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
        ({"delay": 0}, ValueError, "1 step or more"),
        ({"delay": 1.5}, TypeError, "whole number of steps, not float"),
        ({"delay": True}, TypeError, "whole number of steps, not bool"),
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
    with pytest.raises(ValueError, match="begin_eval must be a step"):
        SequenceNet(loop(), 3, begin_eval=-1)


# --- Rhythms --------------------------------------------------------------------------------------


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
