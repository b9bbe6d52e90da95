"""One neuron and one layer, held against plain Python arithmetic, finite differences and snnTorch."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from snn_helpers import Neuron, SpikingLayer, neuron_step
from snn_helpers.neurons import RESETS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from snntorch import Leaky

each_reset = pytest.mark.parametrize("reset", RESETS)
each_seed = pytest.mark.parametrize("seed", range(5))


# --- The reference: one neuron, one step, floats only ---------------------------------------------


def scalar_step(
    current: float, state: float, decay: float, threshold: float, penalty: float, reset: str
) -> tuple[float, float]:
    charge = current + decay * state
    if charge <= threshold:
        return 0.0, charge
    left = {
        "scale": (1 - penalty / threshold) * charge,
        "discharge": threshold - penalty,
        "subtract": charge - threshold,
        "zero": 0.0,
    }[reset]
    return charge - threshold, left


def scalar_layer(inputs: Any, weights: Any, biases: Any, *settings: Any) -> tuple[list[Any], list[Any]]:
    """`inputs[t][b][i]` to `states[t][b][n]` and `outputs[t][b][n]`, handed out one step late."""
    n_batch = len(inputs[0])
    state = [[0.0 for _ in weights] for _ in range(n_batch)]
    output = [[0.0 for _ in weights] for _ in range(n_batch)]
    states, outputs = [], []
    for now in inputs:
        states.append([list(row) for row in state])
        outputs.append([list(row) for row in output])
        for b in range(n_batch):
            for n, (row, bias) in enumerate(zip(weights, biases)):
                current = sum(w * x for w, x in zip(row, now[b])) + bias
                output[b][n], state[b][n] = scalar_step(current, state[b][n], *settings)
    return states, outputs


def random_settings(seed: int) -> tuple[float, float, float]:
    """Decay, threshold and penalty: the ends of their ranges for two seeds, else anything."""
    drawn = random.Random(seed)
    threshold, penalty = drawn.uniform(0.3, 2.0), drawn.uniform(0.0, 3.0)
    if seed == 0:
        return 0.0, threshold, 0.0
    return (1.0 if seed == 1 else drawn.uniform(0.2, 0.98)), threshold, penalty


def noise(seed: int, *shape: int, device: torch.device | None = None) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(device or "cpu")


def as_close(found: Any, wanted: Any) -> None:
    found = torch.as_tensor(found, dtype=torch.float64).detach().cpu()
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-9)


# --- Values ---------------------------------------------------------------------------------------


@each_reset
@each_seed
def test_step_equals_scalar_arithmetic(reset: str, seed: int, device: torch.device) -> None:
    settings = (*random_settings(seed), reset)
    currents, states = 2 * noise(seed, 300), 2 * noise(seed + 100, 300)
    output, state = neuron_step(currents.to(device), states.to(device), *settings)
    wanted = [scalar_step(i, s, *settings) for i, s in zip(currents.tolist(), states.tolist())]
    assert 0 < sum(o > 0 for o, _ in wanted) < 300
    as_close(output, [o for o, _ in wanted])
    as_close(state, [s for _, s in wanted])


@each_reset
@each_seed
def test_layer_equals_scalar_loop(reset: str, seed: int, device: torch.device) -> None:
    settings = (*random_settings(seed), reset)
    layer = SpikingLayer(3, 4, *settings, generator=torch.Generator().manual_seed(seed)).double()
    inputs = 2 * noise(seed, 25, 2, 3)
    wanted_states, wanted_outputs = scalar_layer(
        inputs.tolist(), layer.linear.weight.tolist(), layer.linear.bias.tolist(), *settings
    )
    states, outputs = layer.to(device)(inputs.to(device))
    assert states.shape == outputs.shape == (25, 2, 4)
    assert 0 < (outputs > 0).sum() < outputs.numel(), "spikes and silence must both occur"
    as_close(states, wanted_states)
    as_close(outputs, wanted_outputs)


def test_exactly_at_the_threshold_does_not_fire() -> None:
    charge = torch.tensor([1.0, math.nextafter(1.0, 2.0)], dtype=torch.float64)
    output, _ = neuron_step(charge, torch.zeros_like(charge), threshold=1.0)
    assert (output > 0).tolist() == [False, True]


def test_defaults_are_the_articles() -> None:
    # The article's network runs at 1.0 and 1.5; its layer class by itself at 2.0 and 2.5.
    current, state = torch.tensor([1.8]), torch.tensor([0.5])
    as_close(torch.stack(neuron_step(current, state)), [[1.25], [2.25 * (1 - 1.5)]])
    layer = SpikingLayer(3, 2)
    assert (layer.decay, layer.threshold, layer.penalty, layer.reset) == (0.9, 2.0, 2.5, "scale")


@each_reset
def test_layer_is_the_delayed_step(reset: str, device: torch.device) -> None:
    layer = SpikingLayer(3, 4, 0.8, 0.5, 0.7, reset).double().to(device)
    inputs = 2 * noise(0, 12, 2, 3, device=device)
    states, outputs = layer(inputs)
    assert not states[0].any() and not outputs[0].any()
    for t in range(11):
        output, state = neuron_step(layer.linear(inputs[t]), states[t], 0.8, 0.5, 0.7, reset)
        as_close(outputs[t + 1], output.detach().cpu())
        as_close(states[t + 1], state.detach().cpu())


@each_reset
def test_the_last_input_is_not_seen_yet(reset: str, device: torch.device) -> None:
    layer = SpikingLayer(3, 4, 0.8, 0.5, 0.7, reset).to(device)
    inputs = torch.randn(6, 2, 3, device=device, requires_grad=True)
    states, outputs = layer(inputs)
    (states.sum() + outputs.sum()).backward()
    assert inputs.grad is not None
    assert not inputs.grad[-1].any()
    assert inputs.grad[-2].any()


def test_one_step_is_all_zeros_with_zero_gradient(device: torch.device) -> None:
    layer = SpikingLayer(3, 4).to(device)
    inputs = torch.randn(1, 2, 3, device=device, requires_grad=True)
    states, outputs = layer(inputs)
    assert states.shape == outputs.shape == (1, 2, 4)
    assert not states.any() and not outputs.any()
    (states.sum() + outputs.sum()).backward()
    for tensor in (inputs, *layer.parameters()):
        assert tensor.grad is not None and not tensor.grad.any()


# --- Gradients ------------------------------------------------------------------------------------


@each_reset
@each_seed
def test_step_gradcheck(reset: str, seed: int, device: torch.device) -> None:
    decay, threshold, penalty = random_settings(seed)
    charge = torch.cat([threshold + 0.1 + noise(seed, 5).abs(), threshold - 0.1 - noise(seed + 1, 5).abs()])
    state = noise(seed + 2, 10)
    current = charge - decay * state
    torch.autograd.gradcheck(
        lambda i, s: neuron_step(i, s, decay, threshold, penalty, reset),
        (current.to(device).requires_grad_(), state.to(device).requires_grad_()),
    )


@each_reset
@pytest.mark.parametrize("seed", range(2, 5))
def test_layer_gradcheck(reset: str, seed: int, device: torch.device) -> None:
    settings = (*random_settings(seed), reset)
    layer = SpikingLayer(2, 3, *settings).double()
    weight, bias = noise(seed, 3, 2), noise(seed + 1, 3)
    inputs = 2 * noise(seed + 2, 6, 2, 2)

    def charges() -> Any:
        states, _ = scalar_layer(inputs.tolist(), weight.tolist(), bias.tolist(), *settings)
        for now, state in zip(inputs, torch.tensor(states, dtype=torch.float64)):
            yield now @ weight.T + bias + settings[0] * state

    margin = min((charge - settings[1]).abs().min().item() for charge in charges())
    assert margin > 1e-4, "a finite difference would step over the threshold: choose other numbers"

    layer.to(device)

    def run(x: Tensor, w: Tensor, b: Tensor) -> Any:
        return torch.func.functional_call(layer, {"linear.weight": w, "linear.bias": b}, (x,))

    torch.autograd.gradcheck(run, [part.to(device).requires_grad_() for part in (inputs, weight, bias)])


@each_seed
def test_gradient_across_a_spike(seed: int, device: torch.device) -> None:
    """∂v_{t+1}/∂v_t: decay times what the reset lets through."""
    drawn = random.Random(seed)
    decay, threshold, penalty = drawn.uniform(0.1, 1), drawn.uniform(0.2, 3), drawn.uniform(0, 4)
    through = {"scale": 1 - penalty / threshold, "discharge": 0.0, "subtract": 1.0, "zero": 0.0}
    for reset in RESETS:
        for fires in (True, False):
            charge = threshold * (1.7 if fires else 0.6)
            current = torch.tensor([charge], dtype=torch.float64, device=device, requires_grad=True)
            output, state = neuron_step(current, torch.zeros_like(current), decay, threshold, penalty, reset)
            assert (output.item() > 0) == fires
            inhibited = torch.full_like(current, -100 * (threshold + penalty))
            silent, later = neuron_step(inhibited, state, decay, threshold, penalty, reset)
            assert silent.item() == 0, "the second step must not fire, so that its state is its charge"
            later.backward()
            as_close(current.grad, [decay * (through[reset] if fires else 1.0)])


def test_the_articles_spike_flips_the_sign() -> None:
    current = torch.tensor([1.2], requires_grad=True)
    _, state = neuron_step(current, torch.zeros(1), threshold=1.0, penalty=1.5, reset="scale")
    state.backward()
    as_close(current.grad, [-0.5])


# --- snnTorch -------------------------------------------------------------------------------------


def run_ours(currents: Tensor, decay: float, threshold: float, reset: str) -> tuple[Tensor, Tensor, Tensor]:
    """Charges before the reset, states after it, and spikes: `[T, N]` each, not delayed."""
    state = torch.zeros_like(currents[0])
    charges, states, spikes = [], [], []
    for current in currents:
        charges.append(current + decay * state)
        output, state = neuron_step(current, state, decay, threshold, reset=reset)
        states.append(state)
        spikes.append(output > 0)
    return torch.stack(charges), torch.stack(states), torch.stack(spikes)


def run_leaky(currents: Tensor, decay: float, threshold: float, reset: str, delay: bool) -> tuple[Tensor, Tensor]:
    """snnTorch's membrane potentials and spikes, `[T, N]` each."""
    # As tensors: a plain float would be rounded to float32. A threshold is so all the same where it is
    # subtracted, and must stand in 64ths to survive that.
    settings = [torch.tensor(value, dtype=torch.float64) for value in (decay, threshold)]
    neuron = Leaky(*settings, reset_mechanism=reset, reset_delay=delay).to(currents.device)
    potential = torch.zeros_like(currents[0])
    potentials, spikes = [], []
    for current in currents:
        spike, potential = neuron(current, potential)
        potentials.append(potential)
        spikes.append(spike > 0)
    return torch.stack(potentials), torch.stack(spikes)


def some_currents(seed: int, decay: float, threshold: float, device: torch.device) -> Tensor:
    """Strong enough to fire often, too weak to stand above the threshold after a subtraction.

    With currents below (2 - decay) θ, a state of at most θ charges to below 2 θ, and is back
    below θ after the reset.
    """
    drawn = torch.rand(200, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((drawn * (2.5 - decay) - 0.5) * threshold).to(device)


@each_seed
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_equals_snntorch_with_reset_at_once(reset: str, seed: int, device: torch.device) -> None:
    drawn = random.Random(seed)
    decay, threshold = drawn.uniform(0.3, 1), drawn.randint(20, 190) / 64
    currents = some_currents(seed, decay, threshold, device)
    _, states, spikes = run_ours(currents, decay, threshold, reset)
    theirs, their_spikes = run_leaky(currents, decay, threshold, reset, delay=False)
    assert 0.02 < spikes.double().mean() < 0.98
    torch.testing.assert_close(states, theirs, rtol=1e-9, atol=1e-9)
    assert torch.equal(spikes, their_spikes)


def test_snntorch_subtracts_twice_where_the_first_was_not_enough(device: torch.device) -> None:
    """Where a state is still above the threshold after the reset, the two part.

    | step | current | ours: charge, spike, state | snnTorch, reset_delay=False |
    | --- | --- | --- | --- |
    | 0 | 2.5 | 2.5, yes, 1.5 | 2.5, yes, 1.5 |
    | 1 | 0.2 | 0.9 * 1.5 + 0.2 = 1.55, yes, 0.55 | subtracts first: 0.55, no; puts it back: 1.55 |
    """
    currents = torch.tensor([[2.5], [0.2]], dtype=torch.float64, device=device)
    _, states, spikes = run_ours(currents, 0.9, 1.0, "subtract")
    theirs, their_spikes = run_leaky(currents, 0.9, 1.0, "subtract", delay=False)
    as_close(states, [[1.5], [0.55]])
    as_close(theirs, [[1.5], [1.55]])
    assert spikes.tolist() == [[True], [True]]
    assert their_spikes.tolist() == [[True], [False]]


@each_seed
def test_snntorch_delayed_zero_has_our_charges(seed: int, device: torch.device) -> None:
    """snnTorch resets by default one step later (reset_delay=True), which changes the order of leak and reset.

    |  | ours | snnTorch, reset_delay=True |
    | --- | --- | --- |
    | "zero" | v[t] = β (1 - S[t-1]) v[t-1] + I[t] | U[t] = β (1 - S[t-1]) U[t-1] + I[t] |
    | "subtract" | v[t] = β (v[t-1] - θ S[t-1]) + I[t] | U[t] = β U[t-1] - θ S[t-1] + I[t] |

    v is the charge, before the reset. "zero" resets before the leak in both: charges and spike
    times coincide, and only what is reported as the state differs, before or after the reset.
    "subtract" takes off θ after the leak, where ours takes it off before, that is, βθ: after a
    single spike snnTorch's potential is lower by (1 - β) θ, and this gap then leaks away.
    Without a leak, β = 1, nothing is left of the difference. (The two tests below.)
    """
    drawn = random.Random(seed)
    decay, threshold = drawn.uniform(0.3, 1), drawn.randint(20, 190) / 64
    currents = 2 * some_currents(seed, decay, threshold, device)
    charges, states, spikes = run_ours(currents, decay, threshold, "zero")
    theirs, their_spikes = run_leaky(currents, decay, threshold, "zero", delay=True)
    assert 0.02 < spikes.double().mean() < 0.98
    assert torch.equal(spikes, their_spikes)
    torch.testing.assert_close(charges, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states, theirs * ~their_spikes, rtol=1e-9, atol=1e-9)


@each_seed
def test_snntorch_delayed_subtract_takes_off_after_the_leak(seed: int, device: torch.device) -> None:
    drawn = random.Random(seed)
    decay, threshold = drawn.uniform(0.3, 0.95), drawn.randint(20, 190) / 64
    currents = torch.zeros(20, 1, dtype=torch.float64, device=device)
    currents[3] = 1.5 * threshold  # one spike, at step 3, then silence
    charges, _, spikes = run_ours(currents, decay, threshold, "subtract")
    theirs, their_spikes = run_leaky(currents, decay, threshold, "subtract", delay=True)
    assert spikes.nonzero()[:, 0].tolist() == their_spikes.nonzero()[:, 0].tolist() == [3]
    gap = [0.0] * 4 + [(1 - decay) * threshold * decay**k for k in range(16)]
    as_close((charges - theirs)[:, 0], gap)


@each_seed
def test_snntorch_delayed_subtract_without_leak_has_our_charges(seed: int, device: torch.device) -> None:
    # In quarters, so that sums are exact and both stand at the threshold at the same times.
    currents = (some_currents(seed, 1.0, 1.0, device) * 4).round() / 4
    charges, _, spikes = run_ours(currents, 1.0, 1.0, "subtract")
    theirs, their_spikes = run_leaky(currents, 1.0, 1.0, "subtract", delay=True)
    assert 0.02 < spikes.double().mean() < 0.98
    assert torch.equal(charges, theirs)
    assert torch.equal(spikes, their_spikes)


# --- Kinds of input -------------------------------------------------------------------------------


@each_reset
def test_non_contiguous_input(reset: str, device: torch.device) -> None:
    current, state = noise(0, 6, 8, device=device), noise(1, 8, 6, device=device)
    sliced = neuron_step(current[:, ::2], state.T[:, ::2], reset=reset)
    whole = neuron_step(current, state.T.contiguous(), reset=reset)
    for part, full in zip(sliced, whole):
        as_close(part, full[:, ::2].cpu())

    layer = SpikingLayer(3, 4, threshold=0.5, reset=reset).double().to(device)
    inputs = noise(2, 3, 2, 9, device=device).permute(2, 1, 0)
    assert not inputs.is_contiguous()
    for seen, expected in zip(layer(inputs), layer(inputs.contiguous())):
        as_close(seen, expected.detach().cpu())


@each_reset
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(reset: str, dtype: torch.dtype, device: torch.device) -> None:
    inputs = torch.randn(9, 2, 3, dtype=dtype, device=device, requires_grad=True)
    layer = SpikingLayer(3, 4, threshold=0.5, reset=reset).to(device, dtype)
    states, outputs = layer(inputs)
    assert states.dtype == outputs.dtype == dtype
    assert states.device.type == device.type
    (states.sum() + outputs.sum()).backward()
    assert inputs.grad is not None and inputs.grad.dtype == dtype and inputs.grad.isfinite().all()
    output, state = neuron_step(inputs[0], inputs[1], reset=reset)
    assert output.dtype == state.dtype == dtype


def test_bfloat16_is_near_float64(device: torch.device) -> None:
    # Silent, so that rounding decides no spike: then errors stay of the size of the rounding.
    layer = SpikingLayer(3, 4, threshold=50.0).double().to(device)
    inputs = noise(0, 9, 2, 3, device=device)
    exact, _ = layer(inputs)
    rounded, _ = layer.bfloat16()(inputs.bfloat16())
    torch.testing.assert_close(rounded.double(), exact, rtol=0.05, atol=0.1)


def test_inputs_are_left_as_they_were(device: torch.device) -> None:
    current, state = noise(0, 5, device=device), noise(1, 5, device=device)
    before = current.clone(), state.clone()
    for reset in RESETS:
        neuron_step(current, state, reset=reset)
    assert torch.equal(current, before[0]) and torch.equal(state, before[1])


# --- Weights --------------------------------------------------------------------------------------


def test_weights_are_xavier_uniform_from_the_generator() -> None:
    layers = [SpikingLayer(300, 200, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(layers[0].linear.weight, layers[1].linear.weight)
    assert torch.equal(layers[0].linear.bias, layers[1].linear.bias)
    assert not torch.equal(layers[0].linear.weight, layers[2].linear.weight)
    for values, bound in (
        (layers[0].linear.weight, math.sqrt(6 / (300 + 200))),
        (layers[0].linear.bias, 1 / math.sqrt(300)),
    ):
        assert values.abs().max() <= bound
        n = values.numel()
        # A uniform draw in (-bound, bound) has the variance bound² / 3, known to 5 standard errors.
        error = 5 * bound**2 * math.sqrt(4 / 45 / n)
        assert values.square().mean().item() == pytest.approx(bound**2 / 3, abs=error)


# --- Refusals -------------------------------------------------------------------------------------

REFUSED_SETTINGS = [
    ({"decay": 1.1}, ValueError, ["decay", "1.1", "between 0", "1"]),
    ({"decay": -0.1}, ValueError, ["decay", "-0.1", "between 0"]),
    ({"decay": math.nan}, ValueError, ["decay", "nan"]),
    ({"decay": True}, TypeError, ["decay", "bool", "True", "number"]),
    ({"decay": "0.9"}, TypeError, ["decay", "str", "'0.9'", "number"]),
    ({"decay": torch.tensor(0.9)}, TypeError, ["decay", "Tensor", "number"]),
    ({"threshold": 0.0}, ValueError, ["threshold", "0.0", "above 0"]),
    ({"threshold": -1}, ValueError, ["threshold", "-1", "above 0"]),
    ({"threshold": math.nan}, ValueError, ["threshold", "nan", "finite"]),
    ({"threshold": math.inf}, ValueError, ["threshold", "inf", "finite"]),
    ({"threshold": None}, TypeError, ["threshold", "NoneType", "number"]),
    ({"penalty": -0.5}, ValueError, ["penalty", "-0.5", "0 or more"]),
    ({"penalty": math.nan}, ValueError, ["penalty", "nan", "finite"]),
    ({"penalty": math.inf}, ValueError, ["penalty", "inf", "finite"]),
    ({"penalty": False}, TypeError, ["penalty", "bool", "False"]),
    ({"reset": "nil"}, ValueError, ["reset", "'nil'", *(repr(reset) for reset in RESETS)]),
    ({"reset": None}, ValueError, ["reset", "None", *(repr(reset) for reset in RESETS)]),
]


def refuses(error: type[Exception], told: list[str], call: Any) -> None:
    with pytest.raises(error) as caught:
        call()
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"decay": torch.tensor(1.1)}, ValueError, ["decay", "1.1", "between 0"]),
        ({"decay": torch.tensor(1)}, TypeError, ["decay", "floating", "torch.int64"]),
        ({"threshold": torch.tensor([1.0, 0.0, 2.0])}, ValueError, ["threshold", "0.0", "above 0"]),
        ({"penalty": torch.tensor([1.0, math.nan, 2.0])}, ValueError, ["penalty", "nan"]),
    ],
    ids=["decay", "whole", "threshold", "penalty"],
)
def test_refused_settings_that_are_learned(settings: dict[str, Any], error: type[Exception], told: list[str]) -> None:
    refuses(error, told, lambda: Neuron(**settings))


@pytest.mark.parametrize(("settings", "error", "told"), REFUSED_SETTINGS, ids=lambda value: str(value)[:40])
def test_refused_settings(settings: dict[str, Any], error: type[Exception], told: list[str]) -> None:
    refuses(error, told, lambda: neuron_step(torch.zeros(3), torch.zeros(3), **settings))
    refuses(error, told, lambda: SpikingLayer(2, 3, **settings))


@pytest.mark.parametrize(
    ("current", "state", "error", "told"),
    [
        ([1.0], torch.zeros(1), TypeError, ["current", "list", "torch.Tensor"]),
        (torch.zeros(1), 0.0, TypeError, ["state", "float", "torch.Tensor"]),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2), TypeError, ["current", "torch.int64", "floating"]),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bool), TypeError, ["state", "torch.bool", "floating"]),
        (torch.zeros(2, dtype=torch.complex64), torch.zeros(2), TypeError, ["current", "torch.complex64"]),
        (torch.zeros(2, 3), torch.zeros(3), ValueError, ["shape", "[2, 3]", "[3]"]),
        (torch.zeros(2), torch.zeros(2).double(), TypeError, ["dtype", "torch.float32", "torch.float64"]),
        (torch.zeros(2), torch.zeros(2, device="meta"), ValueError, ["device", "cpu", "meta"]),
    ],
    ids=["list", "float", "int64", "bool", "complex", "shape", "dtype", "device"],
)
def test_step_refuses(current: Any, state: Any, error: type[Exception], told: list[str]) -> None:
    refuses(error, told, lambda: neuron_step(current, state))


@pytest.mark.parametrize(
    ("sizes", "error", "told"),
    [
        ((0, 3), ValueError, ["n_inputs", "0", "1 or more"]),
        ((3, -2), ValueError, ["n_neurons", "-2", "1 or more"]),
        ((3.0, 3), TypeError, ["n_inputs", "float", "3.0", "whole"]),
        ((3, True), TypeError, ["n_neurons", "bool", "True", "whole"]),
    ],
)
def test_layer_refuses_sizes(sizes: Any, error: type[Exception], told: list[str]) -> None:
    refuses(error, told, lambda: SpikingLayer(*sizes))


@pytest.mark.parametrize(
    ("inputs", "error", "told"),
    [
        ([[[1.0, 2.0, 3.0]]], TypeError, ["inputs", "list", "torch.Tensor"]),
        (torch.zeros(4, 3), ValueError, ["[steps, batch, 3]", "[4, 3]"]),
        (torch.zeros(5, 2, 4), ValueError, ["[steps, batch, 3]", "[5, 2, 4]"]),
        (torch.zeros(5, 0, 3), ValueError, ["at least 1", "[5, 0, 3]"]),
        (torch.zeros(0, 2, 3), ValueError, ["at least 1", "[0, 2, 3]"]),
        (torch.zeros(5, 2, 3).double(), TypeError, ["torch.float32", "torch.float64"]),
        (torch.zeros(5, 2, 3, dtype=torch.uint8), TypeError, ["torch.float32", "torch.uint8"]),
    ],
    ids=["list", "two dimensions", "width", "empty batch", "no steps", "double", "uint8"],
)
def test_layer_refuses_inputs(inputs: Any, error: type[Exception], told: list[str]) -> None:
    refuses(error, told, lambda: SpikingLayer(3, 2)(inputs))
