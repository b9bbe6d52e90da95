"""Boltzmann machines, the rhythm and their trial: held against loops over all states, transition tables and laws."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from snn_chapters import boltzmann
from snn_chapters.boltzmann import (
    ARMS,
    STACKS,
    UNTAUGHT,
    Activity,
    Machine,
    all_states,
    at_rest,
    bernoulli,
    cd_gradient,
    coincidence_window,
    coincidences,
    digits_trial,
    distribution,
    draw_machine,
    energy,
    exact_gradient,
    fast_cycle,
    feed_forward,
    fit_readout,
    flat,
    half_cycle,
    hidden_given,
    one_level,
    readout_accuracy,
    rhythm_cycle,
    start_machine,
    step_along,
    train_once,
)
from snn_chapters.exercises import contrastive_divergence as exercises
from spies import (
    N_TRAIN,
    TEST_NUMBERS,
    Calls,
    are,
    numbered,
    numbers_of,
    one_class,
    several,
    shuffled,
    spy,
)
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import load_mnist
from snn_helpers.data import draw_subset
from snn_helpers.fast.draws import uniform_masks
from snn_helpers.long import tuning
from snn_helpers.long.tuning import grid_place, grid_value
from snn_helpers.tuning import choose, scores_of


def some_machine(*sizes: int, seed: int = 0, device: torch.device | str = "cpu") -> Machine:
    generator = torch.Generator().manual_seed(seed)
    machine = draw_machine(sizes, 1.0, generator, torch.float64, device)
    biases = (0.5 * torch.randn(n, generator=generator, dtype=torch.float64).to(device) for n in sizes)
    return Machine(machine.weights, tuple(biases))


def energy_by_loops(machine: Machine, layers: list[list[float]]) -> float:
    total = -sum(float(b[i]) * x[i] for b, x in zip(machine.biases, layers) for i in range(len(x)))
    for weight, below, above in zip(machine.weights, layers, layers[1:]):
        total -= sum(above[i] * float(weight[i, j]) * below[j] for i in range(len(above)) for j in range(len(below)))
    return total


def layers_of(machine: Machine, number: int) -> list[list[float]]:
    """The state of this number: binary digits, the visible layer's first."""
    digits = [float(number >> place & 1) for place in range(sum(len(bias) for bias in machine.biases))]
    layers = []
    for bias in machine.biases:
        layers.append(digits[: len(bias)])
        digits = digits[len(bias) :]
    return layers


def probabilities_by_loops(machine: Machine) -> list[float]:
    n_states = 2 ** sum(len(bias) for bias in machine.biases)
    weights = [math.exp(-energy_by_loops(machine, layers_of(machine, number))) for number in range(n_states)]
    return [weight / sum(weights) for weight in weights]


def number_of(states: Tensor) -> Tensor:
    return (states.long() << torch.arange(states.shape[-1], device=states.device)).sum(dim=-1)


# --- Exact ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 2), (2, 2, 2), (1, 1)])
def test_the_distribution_is_that_of_a_sum_over_all_states(sizes: tuple[int, ...], device: torch.device) -> None:
    machine = some_machine(*sizes, device=device)
    layers, found = distribution(machine)
    torch.testing.assert_close(found.cpu(), torch.tensor(probabilities_by_loops(machine), dtype=torch.float64))
    for number in (0, 1, 5 % len(found), len(found) - 1):
        assert [layer[number].tolist() for layer in layers] == layers_of(machine, number)
        single = energy(machine, [layer[number] for layer in layers]).item()
        assert single == pytest.approx(energy_by_loops(machine, layers_of(machine, number)))


@pytest.mark.parametrize("sizes", [(4, 3), (3, 2, 2)])
def test_the_exact_gradient_is_that_of_automatic_differentiation(sizes: tuple[int, ...], device: torch.device) -> None:
    machine = some_machine(*sizes, device=device)
    data = all_states(sizes[0])[[1, 1, 3, 6]].to(device)
    leaves = Machine(*(tuple(part.clone().requires_grad_() for part in parts) for parts in machine))
    everything = all_states(sum(sizes)).to(device).split(sizes, dim=1)
    log_all = torch.log_softmax(-energy(leaves, list(everything)), dim=0)
    numbers = number_of(everything[0])
    log_data = [log_all[numbers == code].logsumexp(dim=0) for code in number_of(data)]
    torch.stack(log_data).mean().backward()
    found = exact_gradient(machine, data)
    for part, leaf in zip((*found.weights, *found.biases), (*leaves.weights, *leaves.biases)):
        torch.testing.assert_close(part, leaf.grad)


# --- Contrastive divergence -----------------------------------------------------------------------


def transition_by_loops(machine: Machine) -> Tensor:
    """From each visible state to each, by block Gibbs sampling, out of the table of all states alone."""
    n_visible = len(machine.biases[0])
    table = torch.tensor(probabilities_by_loops(machine), dtype=torch.float64).view(-1, 2**n_visible)
    return (table / table.sum(dim=0)).T @ (table / table.sum(dim=1, keepdim=True))


def expected_cd(machine: Machine, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The weights' gradient that CD-k gives on average, and the exact one."""
    n_visible, n_hidden = (len(bias) for bias in machine.biases)
    table = torch.tensor(probabilities_by_loops(machine), dtype=torch.float64).view(-1, 2**n_visible)
    start = torch.bincount(codes, minlength=2**n_visible).double() / len(codes)
    given = table / table.sum(dim=0)

    def together(visible: Tensor) -> Tensor:
        return all_states(n_hidden).T @ (given * visible) @ all_states(n_visible)

    after = start @ torch.linalg.matrix_power(transition_by_loops(machine), k)
    return together(start) - together(after), together(start) - together(table.sum(dim=0))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_cd_gives_on_average_what_the_transition_table_says(k: int, device: torch.device) -> None:
    machine = some_machine(4, 3, device=device)
    codes = torch.tensor([1, 3, 6, 15])
    data = all_states(4)[codes].repeat(5000, 1).to(device)
    gradient, chains = cd_gradient(machine, data, k, torch.Generator().manual_seed(1))
    expected, _ = expected_cd(machine, codes, k)
    error = 5 * 0.5 / math.sqrt(len(data))  # five standard errors of a share
    assert (gradient.weights[0].cpu() - expected).abs().max() < error
    assert chains.shape == data.shape and ((chains == 0) | (chains == 1)).all()


def test_the_error_of_cd_shrinks_like_the_second_eigenvalue() -> None:
    machine, codes = some_machine(4, 3), torch.tensor([1, 3, 6, 15])
    errors = []
    for k in (1, 5, 20, 25):
        expected, exact = expected_cd(machine, codes, k)
        errors.append((expected - exact).norm().item())
    assert errors == sorted(errors, reverse=True)
    second = torch.linalg.eigvals(transition_by_loops(machine)).abs().sort().values[-2].item()
    assert errors[3] / errors[2] == pytest.approx(second**5, rel=0.05)
    torch.testing.assert_close(
        exact_gradient(machine, all_states(4)[codes]).weights[0], expected_cd(machine, codes, 1)[1]
    )


def test_persistent_chains_arrive_at_the_machines_own_distribution(device: torch.device) -> None:
    machine = some_machine(3, 2, device=device)
    data = all_states(3)[[7]].repeat(20_000, 1).to(device)
    generator, chains = torch.Generator().manual_seed(2), data
    for _ in range(40):
        gradient, chains = cd_gradient(machine, data, 1, generator, chains)
    visible = torch.tensor(probabilities_by_loops(machine), dtype=torch.float64).view(-1, 8).sum(dim=0)
    visited = torch.bincount(number_of(chains), minlength=8).double().cpu() / len(chains)
    error = 5 * 0.5 / math.sqrt(len(data))
    assert (visited - visible).abs().max() < error
    assert (flat(gradient) - flat(exact_gradient(machine, data))).abs().max() < error


# --- Neurons --------------------------------------------------------------------------------------


def by_loops(
    machine: Machine, activity: Activity, n_steps: int, pixels: Tensor | None, decay: float, rest: int, seed: int
) -> list[list[list[list[float]]]]:
    """The rules of `half_cycle`, neuron by neuron; steps left on, `[step][layer][copy][neuron]`, the start first."""
    generator = torch.Generator().manual_seed(seed)
    potentials = [part.tolist() for part in activity.potentials]
    left = [part.tolist() for part in activity.steps_left]
    history, n_layers = [left], len(machine.biases)
    for _ in range(n_steps):
        before, left = history[-1], []
        for layer in range(n_layers):
            bias, n_batch = machine.biases[layer], len(before[0])
            draws = uniform_masks(1, (n_batch, len(bias)), torch.float64, torch.device("cpu"), generator)[0]
            now = []
            for copy, neuron in product(range(n_batch), range(len(bias))):
                current = float(bias[neuron])
                for other in (layer - 1, layer + 1):
                    if 0 <= other < n_layers:
                        weight = machine.weights[min(layer, other)]
                        for j in range(len(before[other][copy])):
                            strength = weight[neuron, j] if other < layer else weight[j, neuron]
                            current += float(strength) * (before[other][copy][j] > 0)
                u = decay * potentials[layer][copy][neuron] + (1 - decay) * current
                potentials[layer][copy][neuron] = u
                odds = math.exp(u) / (rest + 1)
                chance = odds / (1 + odds)
                if layer == 0 and pixels is not None:
                    p = float(pixels[copy, neuron])
                    chance = p / (p + (rest + 1) * (1 - p))
                was = before[layer][copy][neuron]
                fires = float(draws[copy, neuron]) < chance and was <= 1
                now.append(rest + 1.0 if fires else max(was - 1, 0))
            left.append([now[i : i + len(bias)] for i in range(0, len(now), len(bias))])
        history.append(left)
    return history


@pytest.mark.parametrize(("decay", "rest"), [(0.0, 0), (0.5, 2), (0.9, 1)])
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 2, 2)])
def test_half_a_cycle_is_that_of_a_loop_over_neurons(
    sizes: tuple[int, ...], shown: bool, decay: float, rest: int
) -> None:
    machine = some_machine(*sizes)
    pixels = torch.tensor([[0.0, 1.0, 0.5], [0.9, 0.2, 0.0]], dtype=torch.float64) if shown else None
    start = half_cycle(machine, at_rest(machine, 2), 5, None, decay, rest, torch.Generator().manual_seed(3)).activity
    found = half_cycle(machine, start, 9, pixels, decay, rest, torch.Generator().manual_seed(4))
    expected = by_loops(machine, start, 9, pixels, decay, rest, seed=4)
    for layer, left in enumerate(found.steps_left):
        assert left.tolist() == [step[layer] for step in expected]
        assert torch.equal(found.activity.steps_left[layer], left[-1])


@pytest.mark.parametrize("rest", [0, 1, 6])
def test_a_lone_neuron_is_on_for_its_share_whatever_its_rest(rest: int, device: torch.device) -> None:
    bias = torch.linspace(-2, 2, 5, dtype=torch.float64, device=device)
    machine = Machine((torch.zeros(1, 5, dtype=torch.float64, device=device),), (bias, bias[:1]))
    settled = half_cycle(machine, at_rest(machine, 500), 200, None, 0.8, rest, torch.Generator().manual_seed(5))
    half = half_cycle(machine, settled.activity, 400, None, 0.8, rest, torch.Generator().manual_seed(6))
    share = half.on[0].mean(dim=(0, 1))
    assert (share - torch.sigmoid(bias)).abs().max() < 5 * 0.5 * math.sqrt(2 * (rest + 1) / (500 * 400))


@pytest.mark.parametrize("rest", [0, 3])
def test_what_is_shown_is_on_for_its_share(rest: int, device: torch.device) -> None:
    machine = some_machine(4, 2, device=device)
    pixels = torch.tensor([0.0, 1.0, 0.5, 0.2], dtype=torch.float64, device=device).expand(500, 4)
    half = half_cycle(machine, at_rest(machine, 500), 400, pixels, 0.5, rest, torch.Generator().manual_seed(7))
    share = half.on[0][-300:].mean(dim=(0, 1))
    assert share[0] == 0 and share[1] == 1
    assert (share - pixels[0]).abs().max() < 5 * 0.5 * math.sqrt(2 * (rest + 1) / (500 * 300))


def test_a_spike_begins_each_stretch_of_being_on_and_a_rest_follows_it() -> None:
    machine = some_machine(4, 3)
    half = half_cycle(machine, at_rest(machine, 20), 60, None, 0.5, 3, torch.Generator().manual_seed(8))
    for spikes, on in zip(half.spikes, half.on):
        recent = sum(torch.cat([torch.zeros_like(spikes[:d]), spikes[: len(spikes) - d]]) for d in range(4))
        assert torch.equal(recent, on[1:])  # on for four steps, and never two spikes among them


def visited(machine: Machine, apart: int) -> Tensor:
    start = half_cycle(machine, at_rest(machine, 2000), 60, generator=torch.Generator().manual_seed(9)).activity
    v, h = half_cycle(machine, start, 50, generator=torch.Generator().manual_seed(10)).on
    numbers = number_of(torch.cat([v[: len(v) - apart], h[apart:]], dim=-1)).flatten()
    return torch.bincount(numbers, minlength=32).double() / len(numbers)


def test_without_leak_and_rest_the_states_one_step_apart_have_their_right_probabilities() -> None:
    machine = some_machine(3, 2)
    truth = torch.tensor(probabilities_by_loops(machine), dtype=torch.float64)
    assert (visited(machine, 1) - truth).abs().max() < 0.01
    # In one step the two layers belong to chains that never meet: the product of their marginals.
    table = truth.view(4, 8)
    apart = (table.sum(dim=1, keepdim=True) * table.sum(dim=0)).flatten()
    assert (visited(machine, 0) - apart).abs().max() < 0.01
    assert (apart - truth).abs().max() > 0.02


# --- The rhythm -----------------------------------------------------------------------------------


def test_coincidences_are_counted_one_step_apart_in_either_order() -> None:
    generator = torch.Generator().manual_seed(11)
    below, above = (bernoulli(torch.full((7, 3, n), 0.4, dtype=torch.float64), generator) for n in (4, 2))
    found = coincidences([below, above])
    for i, j in product(range(2), range(4)):
        total = 0.0
        for t, b in product(range(1, 7), range(3)):
            total += float(above[t, b, i] * below[t - 1, b, j]) + float(above[t - 1, b, i] * below[t, b, j])
        assert found.weights[0][i, j].item() == pytest.approx(total / (2 * 6 * 3))
    torch.testing.assert_close(found.biases[0], below[1:].sum(dim=(0, 1)) / 18)


@pytest.mark.parametrize("rest", [0, 1, 4])
def test_coincidences_are_a_sum_over_pairs_of_spikes(rest: int) -> None:
    machine = some_machine(3, 2)
    half = half_cycle(machine, at_rest(machine, 2), 40, None, 0.5, rest, torch.Generator().manual_seed(12))
    spikes = [torch.cat([layer, layer.new_zeros(rest + 2, 2, layer.shape[2])]) for layer in half.spikes]
    on = []  # from the spikes, with silence before and after, so that no pair is cut off
    for layer in spikes:
        padded = torch.cat([layer.new_zeros(rest + 1, *layer.shape[1:]), layer])
        on.append(sum(padded[rest + 1 - d : len(padded) - d] for d in range(rest + 1)))
    on = [torch.cat([layer.new_zeros(1, *layer.shape[1:]), layer]) for layer in on]
    counted = coincidences(on).weights[0] * (len(on[0]) - 1) * 2
    for i, j in product(range(2), range(3)):
        total = 0.0
        for b in range(2):
            for t_post, t_pre in product(
                spikes[1][:, b, i].nonzero().flatten(), spikes[0][:, b, j].nonzero().flatten()
            ):
                total += coincidence_window(t_post - t_pre, rest).item()
        assert counted[i, j].item() == pytest.approx(total)


def test_the_window_is_symmetric_and_has_the_area_of_the_square_of_being_on() -> None:
    delays = torch.arange(-20, 21)
    for rest in (0, 1, 5):
        window = coincidence_window(delays, rest)
        assert torch.equal(window, window.flip(0)) and window.sum().item() == (rest + 1) ** 2


@pytest.mark.parametrize("sizes", [(4, 3), (4, 2, 2)])
@pytest.mark.parametrize(("decay", "rest"), [(0.0, 0), (0.5, 2)])
def test_a_cycle_points_along_the_exact_gradient(
    sizes: tuple[int, ...], decay: float, rest: int, device: torch.device
) -> None:
    machine = some_machine(*sizes, seed=3, device=device)
    data = all_states(4)[[0, 3, 12, 15]].to(device)
    exact = flat(exact_gradient(machine, data))
    gradient = rhythm_cycle(machine, data.repeat(500, 1), 60, decay, rest, torch.Generator().manual_seed(13)).gradient
    assert torch.cosine_similarity(flat(gradient), exact, dim=0) > 0.95


def test_without_leak_and_rest_a_long_cycle_gives_the_exact_gradient() -> None:
    machine = some_machine(4, 3)
    data = all_states(4)[[0, 3, 12, 15]]
    gradient = rhythm_cycle(machine, data.repeat(2000, 1), 60, generator=torch.Generator().manual_seed(14)).gradient
    assert (flat(gradient) - flat(exact_gradient(machine, data))).abs().max() < 0.02


def test_a_cycle_is_its_two_halves_and_the_rhythm_goes_on_from_where_it_stands() -> None:
    machine, data = some_machine(4, 3), all_states(4)[[3, 12]]
    generator = torch.Generator().manual_seed(15)
    first = rhythm_cycle(machine, data, 8, 0.5, 1, generator)
    second = rhythm_cycle(machine, data, 8, 0.5, 1, generator, first.free.activity)
    again = torch.Generator().manual_seed(15)
    activity, halves = at_rest(machine, 2), []
    for pixels in (data, None, data, None):
        halves.append(half_cycle(machine, activity, 8, pixels, 0.5, 1, again))
        activity = halves[-1].activity
    counts = [coincidences([layer[4:] for layer in half.on]) for half in halves]
    for cycle, added, taken in ((first, *counts[:2]), (second, *counts[2:])):
        torch.testing.assert_close(flat(cycle.gradient), flat(added) - flat(taken))
    torch.testing.assert_close(second.free_rates[1], halves[3].on[1][-4:].mean(dim=0))


def test_a_level_is_a_part_of_the_stack_and_a_step_follows_the_gradient() -> None:
    stack = some_machine(4, 3, 2)
    part = one_level(stack, 1)
    assert part.weights[0] is stack.weights[1] and part.biases[0] is stack.biases[1]
    torch.testing.assert_close(flat(step_along(stack, stack, -0.25)), 0.75 * flat(stack))


# --- What is refused ------------------------------------------------------------------------------


MACHINE = some_machine(3, 2)
PAIR = torch.zeros(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_machine([3]), "two layers"),
        (lambda: draw_machine([3, 0]), "one neuron"),
        (lambda: all_states(40), "between 1 and"),
        (lambda: exact_gradient(MACHINE, PAIR + 0.5), "0 and 1 only"),
        (lambda: exact_gradient(MACHINE, PAIR[:, :2]), r"examples, 3"),
        (lambda: cd_gradient(some_machine(3, 2, 2), PAIR), "one level"),
        (lambda: cd_gradient(MACHINE, PAIR, k=0), "k must be 1"),
        (lambda: half_cycle(MACHINE, at_rest(MACHINE, 2), 5, decay=1.0), "decay"),
        (lambda: half_cycle(MACHINE, at_rest(MACHINE, 2), 5, rest=-1), "rest"),
        (lambda: half_cycle(MACHINE, at_rest(MACHINE, 2), 0), "n_steps"),
        (lambda: half_cycle(MACHINE, at_rest(MACHINE, 2), 5, PAIR - 1), r"between 0 \(off\) and 1 \(on\)"),
        (lambda: half_cycle(MACHINE, at_rest(MACHINE, 3), 5, PAIR), "copies"),
    ],
)
def test_bad_input_is_refused_in_words(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_same_seed_gives_the_same_cycle() -> None:
    one, two = (
        flat(rhythm_cycle(MACHINE, PAIR, 6, 0.5, 1, torch.Generator().manual_seed(16)).gradient) for _ in range(2)
    )
    assert torch.equal(one, two)
    assert boltzmann.MOST_ENUMERATED >= 10  # what chapter 14 lists


@pytest.fixture(scope="module")
def digits() -> tuple[TensorDataset, TensorDataset]:
    return load_mnist("train", source="subset"), load_mnist("test", source="subset")


def small_trial(digits: tuple[TensorDataset, TensorDataset], arm: str, **settings: Any) -> dict[str, Any]:
    settings = {"n_train": 100, "n_hidden": 10, "batch_size": 50, "n_steps": 4, "n_spiking": 50} | settings
    return digits_trial(arm, 3, *digits, device="cpu", **settings)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_can_be_tried_and_repeats_itself(arm: str, digits: tuple[TensorDataset, TensorDataset]) -> None:
    one, two = (small_trial(digits, arm) for _ in range(2))
    assert one | {"seconds": 0} == two | {"seconds": 0}
    assert 0 <= one["accuracy"] <= 1 and one["arm"] == arm
    assert arm == "pixels" or len(one["size"]) == (2 if arm in STACKS else 1)


def test_learns_something_without_labels(digits: tuple[TensorDataset, TensorDataset]) -> None:
    before, after = (
        small_trial(digits, "rhythm", n_train=1000, n_hidden=50, n_steps=10, epochs=epochs, n_spiking=200)
        for epochs in (0, 5)
    )
    assert after["free_error"] < after["still_error"]  # nearer to the digit than the mean image is
    assert after["free_error"] < before["free_error"]
    assert after["size"][0] > 2 * before["size"][0]


def some_stack() -> tuple[Machine, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return draw_machine((6, 4, 3), 0.5, generator), torch.rand(20, 6, generator=generator)


def taught(machine: Machine, pixels: torch.Tensor, arm: str, done: float = 0.0, number: int = 0) -> Machine:
    return train_once(machine, pixels, arm, done, number, 0.1, 6, 0.5, 1, torch.Generator().manual_seed(1))


def changed(one: Machine, other: Machine) -> list[bool]:
    """Which of the weights and biases differ, weights first."""
    pairs = zip((*one.weights, *one.biases), (*other.weights, *other.biases))
    return [not torch.equal(a, b) for a, b in pairs]


@pytest.mark.parametrize(
    ("arm", "done", "number", "expected"),
    [
        ("greedy", 0.0, 0, [True, False, True, True, False]),
        ("greedy", 0.5, 0, [False, True, False, True, True]),
        ("fast", 0.0, 0, [True] * 5),
        ("slow", 0.0, 0, [True] * 5),
    ],
)
def test_each_arm_teaches_the_levels_that_it_should(arm: str, done: float, number: int, expected: list[bool]) -> None:
    machine, pixels = some_stack()
    assert changed(machine, taught(machine, pixels, arm, done, number)) == expected


def test_fast_and_slow_take_turns() -> None:
    machine, pixels = some_stack()
    for number, like in ((0, "fast"), (1, "slow"), (2, "fast")):
        torch.testing.assert_close(
            flat(taught(machine, pixels, "fast and slow", number=number)), flat(taught(machine, pixels, like))
        )


def test_a_fast_cycle_of_the_lower_level_does_not_hear_the_upper_one() -> None:
    machine, pixels = some_stack()
    louder = Machine((machine.weights[0], 50 * machine.weights[1]), machine.biases)
    results = [
        fast_cycle(each, pixels, range(1), 0.1, 6, 0.5, 1, torch.Generator().manual_seed(2))
        for each in (machine, louder)
    ]
    assert torch.equal(results[0].weights[0], results[1].weights[0])
    slow = [taught(each, pixels, "slow") for each in (machine, louder)]
    assert not torch.equal(slow[0].weights[0], slow[1].weights[0])


def test_without_a_free_half_weights_only_grow() -> None:
    machine = draw_machine((6, 4), 0.5, torch.Generator().manual_seed(0))
    after = taught(machine, some_stack()[1], "no free half")
    assert (after.weights[0] >= machine.weights[0]).all() and any(changed(machine, after))


def test_features_go_up_level_by_level() -> None:
    machine, pixels = some_stack()
    first, second = feed_forward(machine, pixels)
    torch.testing.assert_close(first, torch.sigmoid(pixels @ machine.weights[0].T + machine.biases[1]))
    torch.testing.assert_close(second, hidden_given(one_level(machine, 1), first))


def test_the_start_knows_the_mean_image_and_no_more() -> None:
    pixels = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
    machine = start_machine((6, 4), pixels, torch.Generator().manual_seed(1), scale=0.0)
    torch.testing.assert_close(torch.sigmoid(machine.biases[0]), pixels.mean(dim=0))


def test_the_read_out_is_logistic_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 8, generator=generator, dtype=torch.float64)
    labels = (features @ torch.randn(8, 10, generator=generator, dtype=torch.float64)).argmax(dim=1)
    labels[:10] = torch.arange(10)  # every class occurs
    penalty = 0.02
    model = fit_readout(features, labels, penalty)
    weight, bias = (torch.tensor(part, requires_grad=True) for part in (model.coef_, model.intercept_))
    loss = F.cross_entropy(features @ weight.T + bias, labels) + penalty * weight.square().sum()
    # What is minimised is what the docstring says: there, its gradient is zero. A hundredth more penalty would show.
    for slope in torch.autograd.grad(loss, (weight, bias)):
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-4, rtol=0)
    assert (2 * penalty * weight).abs().max() > 0.02


def test_the_read_out_does_not_mind_the_scale_of_a_feature() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 5, generator=generator, dtype=torch.float64), torch.arange(200) % 10
    features[:, 0] += labels
    scaled = 7 * features + 3
    halves = slice(0, 150), slice(150, 200)
    one, two = (
        readout_accuracy(each[halves[0]], labels[halves[0]], each[halves[1]], labels[halves[1]])
        for each in (features, scaled)
    )
    assert one == two


def test_refuses_an_arm_that_it_does_not_know(digits: tuple[TensorDataset, TensorDataset]) -> None:
    with pytest.raises(ValueError, match="fast and slow"):
        small_trial(digits, "medium")


# --- The protocol ---------------------------------------------------------------------------------


def tiny(arm: str, train: TensorDataset, test: TensorDataset, **settings: Any) -> dict[str, Any]:
    settings = {"n_hidden": 10, "batch_size": 10, "n_steps": 4, "n_spiking": 20, "epochs": 1} | settings
    return digits_trial(arm, 3, train, test, n_train=len(train), device="cpu", **settings)


@pytest.mark.parametrize("arm", ARMS)
def test_a_read_out_that_has_seen_one_class_knows_no_other(arm: str) -> None:
    for label, wanted in ((5, 0), (3, 1)):
        row = tiny(arm, one_class(3), one_class(label, 20))
        found = {name: row[name] for name in ("accuracy", "top_accuracy", "spike_accuracy") if name in row}
        assert found == dict.fromkeys(found, wanted) and len(found) == (1 if arm == "pixels" else 3)


@pytest.mark.parametrize("arm", ["pixels", "random"])
def test_a_test_whose_labels_are_shuffled_gives_chance(arm: str) -> None:
    """Two classes, 200 digits: five standard errors are 0.18."""
    train, test = several(60, classes=2), several(200, classes=2, seed=1)
    settings: dict[str, Any] = {"n_spiking": 200, "n_hidden": 20, "scale": 1.0, "n_steps": 8}
    right, chance = (tiny(arm, train, given, **settings) for given in (test, shuffled(test)))
    for name in ("accuracy", "top_accuracy", "spike_accuracy"):
        if name in right:
            assert right[name] > 0.9 and abs(chance[name] - 0.5) < 0.18, name


class Spied(NamedTuple):
    taught: Calls
    read: Calls
    ran: Calls
    drawn: Calls


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    monkeypatch.setattr(boltzmann, "whole_mnist", numbered)
    return Spied(
        spy(monkeypatch, boltzmann, "train_once", lambda given: given["machine"]),
        spy(monkeypatch, boltzmann, "readout_accuracy", lambda given: len(given["test_features"]) / 10_000),
        spy(monkeypatch, boltzmann, "run_whole", None),
        spy(monkeypatch, boltzmann, "draw_subset", None),
    )


def bright(numbers: range | list[int]) -> torch.Tensor:
    """The pixels of these of the `numbered` examples, from 0 to 1, in records 14 x 14 of them."""
    return (torch.as_tensor(list(numbers)) / 70_000)[:, None].expand(-1, 196)


# Settings that a tuning might have ended with; the record of tuning grows while it runs, others depend on it.
CHOSEN = {
    "pixels": {},
    **{arm: {"epochs": 2, "learning_rate": 0.1 * (place + 1)} for place, arm in enumerate(boltzmann.RULES)},
}


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of tuning that chooses `CHOSEN`, twice the rate for four epochs, and 1.0 for each start with labels."""
    peaks = [({"arm": arm, "epochs": 2}, "learning_rate", CHOSEN[arm]["learning_rate"]) for arm in boltzmann.RULES]
    peaks += [
        ({"arm": arm, "epochs": 4}, "learning_rate", 2 * CHOSEN[arm]["learning_rate"])
        for arm in ("fast", "fast and slow")
    ]
    peaks += [
        ({"start": start, "n_labels": n}, "learning_rate", 1.0) for n in (100, 1000) for start in boltzmann.STARTS
    ]
    rows: list[dict[str, Any]] = [
        {"settings": {**of, setting: peak * factor, "seed": seed}, "accuracy": score}
        for of, setting, peak in peaks
        for factor, score in ((0.8, 0.5), (1.0, 0.7), (1.2, 0.6))
        for seed in (5, 6, 7)
    ]
    # Random weights as drawn are the better ones for probabilities, and centred ones for spikes.
    rows += [
        {
            "settings": {"arm": arm, "epochs": 0, "scale": scale, "seed": seed},
            "accuracy": accuracy,
            "spike_accuracy": of_spikes,
        }
        for arm, more in (("random", 0.0), ("random, as drawn", 0.1))
        for scale, accuracy, of_spikes in (
            (0.47, 0.5 + more, 0.5 - more),
            (0.56, 0.6 + more, 0.6 - more),
            (0.68, 0.5 + more, 0.7 - more),
            (0.82, 0.4 + more, 0.6 - more),
        )
        for seed in (5, 6, 7)
    ]
    monkeypatch.setattr(boltzmann, "load_results", lambda name: {"trials": rows})


DIGITS = [name for name in boltzmann.RECORDS if name != "14_small" and "labels" not in name]


@pytest.mark.parametrize("name", DIGITS)
def test_what_a_record_fits_and_what_it_scores(name: str, spied: Spied, tuned: None) -> None:
    """Read-outs are fitted on what was trained on, and scored on held-out training images or on the test images."""
    _, measure, trials = boltzmann.RECORDS[name]
    trials = trials() if callable(trials) else trials
    for settings in {
        trial["arm"]: trial for trial in trials if trial["arm"] in (*UNTAUGHT, "pixels", "fast", "cd")
    }.values():
        for calls in spied:
            calls.clear()
        row = measure(**settings, n_train=40, batch_size=20, n_steps=2, n_hidden=4, device="cpu")
        held_out = name == "14_tuning"
        wanted = range(50_000, 55_000) if held_out else TEST_NUMBERS
        (drawn,) = spied.drawn
        assert are(drawn["dataset"], range(50_000 if held_out else N_TRAIN))
        assert (drawn["n_examples"], drawn["seed"]) == (40, settings["seed"])
        seen = draw_subset(drawn["dataset"], 40, settings["seed"])
        for call in spied.read[:2]:  # of all hidden layers, and of the top one
            assert len(call["features"]) == 40 and len(call["test_features"]) == len(wanted)
            assert torch.equal(call["labels"], seen.tensors[1])
            assert torch.equal(call["test_labels"], torch.as_tensor(list(wanted)) % 10)
            assert call["penalty"] == 3e-3
        if settings["arm"] == "pixels":
            torch.testing.assert_close(spied.read[0]["features"], bright(numbers_of(seen)))
            torch.testing.assert_close(spied.read[0]["test_features"], bright(wanted), rtol=1e-4, atol=1e-5)
            continue
        every, top = (call["features"].shape[1] for call in spied.read[:2])
        assert (every, top) == ((4, 2) if settings["arm"] in STACKS else (4, 4))
        for kind in ("features", "test_features"):
            assert torch.equal(spied.read[1][kind], spied.read[0][kind][:, -top:]), "the top layer is the last one"
        epochs = 0 if settings["arm"] in UNTAUGHT else settings.get("epochs", 2)
        assert len(spied.taught) == 2 * epochs  # 2 batches an epoch
        for call in spied.taught[:1]:
            spread = call["machine"].weights[0].std().item()
            assert spread == pytest.approx(settings.get("start_scale", 0.1), rel=0.15)
        for call in spied.taught:
            assert call["learning_rate"] == settings.get("learning_rate", 0.2) and call["arm"] == settings["arm"]
            assert not set((call["pixels"][:, 0] * 70_000).round().long().tolist()) - set(numbers_of(seen))
        if spied.ran:
            n_spiking = 1000
            assert [len(call["pixels"]) for call in spied.ran] == [40, n_spiking]
            torch.testing.assert_close(spied.ran[1]["pixels"], bright(wanted[:n_spiking]), rtol=1e-4, atol=1e-5)
            spiking = spied.read[2]
            assert len(spiking["features"]) == 40 and torch.equal(spiking["labels"], seen.tensors[1])
            assert torch.equal(spiking["test_labels"], torch.as_tensor(list(wanted)[:n_spiking]) % 10)
            mean = bright(numbers_of(seen)).double().mean().item()
            still = (bright(wanted[:n_spiking])[:, 0].double() - mean).square().mean().item()
            assert row["still_error"] == pytest.approx(still, rel=1e-3), "the mean image is that of the training images"
        assert bool(spied.ran) == (not held_out or settings["arm"] in UNTAUGHT)


@pytest.mark.parametrize("arm", ["cd", "rhythm", "rhythm, no memory", "greedy", "fast and slow"])
def test_settings_reach_the_lessons(arm: str, spied: Spied) -> None:
    train, test = several(45), several(10, seed=1)
    settings: dict[str, Any] = {
        "learning_rate": 0.7,
        "epochs": 3,
        "batch_size": 20,
        "n_steps": 6,
        "decay": 0.3,
        "rest": 1,
    }
    digits_trial(arm, 2, train, test, n_train=45, n_hidden=8, n_spiking=5, **settings, device="cpu")
    taught = spied.taught
    assert len(taught) == 6  # of 45 examples two whole batches an epoch
    assert [call["done"] for call in taught] == pytest.approx([k / 6 for k in range(6)])
    assert [call["number"] for call in taught] == [0, 1] * 3
    assert {len(call["pixels"]) for call in taught} == {20}
    quiet = arm == "rhythm, no memory"
    for call in taught:
        assert (call["learning_rate"], call["n_steps"]) == (0.7, 6)
        assert (call["decay"], call["rest"]) == ((0.0, 0) if quiet else (0.3, 1))
    for call in spied.ran:
        assert (call["n_steps"], call["decay"], call["rest"]) == ((12, 0.0, 0) if quiet else (12, 0.3, 1))
    sizes = [len(bias) for bias in taught[0]["machine"].biases]
    assert sizes == ([784, 4, 4] if arm in STACKS else [784, 8])
    assert not torch.equal(taught[0]["pixels"], taught[2]["pixels"]), "each epoch has an order of its own"


@pytest.mark.parametrize("arm", UNTAUGHT)
def test_random_weights_are_as_large_as_asked_and_never_taught(arm: str, spied: Spied) -> None:
    train, test = several(40), several(10, seed=1)
    row = digits_trial(arm, 2, train, test, n_train=40, scale=0.7, n_hidden=100, n_spiking=5, device="cpu")
    assert not spied.taught and row["size"] == pytest.approx([0.7], rel=0.02)
    machine = spied.ran[0]["machine"]
    assert bool(machine.biases[1].any()) == (arm == "random")
    if arm == "random":  # the mean image leaves each neuron in the middle
        halves = boltzmann.hidden_given(machine, torch.sigmoid(machine.biases[0])[None])
        torch.testing.assert_close(halves, torch.full_like(halves, 0.5))


def test_errors_of_the_free_half_are_mean_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    def reconstruct(given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(given["pixels"]), 3), given["pixels"] + 0.25

    spy(monkeypatch, boltzmann, "run_whole", reconstruct)
    train, test = several(40), several(10, seed=1)
    row = digits_trial("random", 2, train, test, n_train=40, n_hidden=6, n_spiking=7, device="cpu")
    assert row["free_error"] == pytest.approx(0.0625)
    mean = (train.tensors[0] + 0.5).clamp(0, 1).mean(dim=0)
    still = ((test.tensors[0][:7] + 0.5).clamp(0, 1) - mean).square().mean().item()
    assert row["still_error"] == pytest.approx(still, rel=1e-5)


def test_the_read_out_is_fitted_to_training_features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their mean and spread are what the test features are measured in, too."""
    fitted = spy(monkeypatch, boltzmann, "fit_readout", None)
    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] > 3).long()
    others, truth = features[:20] + torch.tensor([4.0, 0, 0, 0], dtype=torch.float64), labels[:20]
    found = readout_accuracy(features, labels, others, truth)
    (call,) = fitted
    torch.testing.assert_close(call["features"].mean(dim=0), torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(call["features"].std(dim=0), torch.ones(4, dtype=torch.float64))
    assert torch.equal(call["labels"], labels) and call["penalty"] == 3e-3
    # All of the others lie above the border that the training features have drawn, all but for a few.
    assert found == pytest.approx((others[:, 0] > 3).eq(truth.bool()).double().mean().item(), abs=0.1)


def test_an_arm_is_measured_at_its_best_held_out_settings(tuned: None) -> None:
    """Four epochs have a rate of their own, as each start with labels has; a small start has that of a large one."""
    trials = boltzmann.boltzmann_trials()
    taught = [trial for trial in trials if trial["arm"] not in UNTAUGHT]
    assert set(boltzmann.RULES) == set(ARMS) - {"pixels", *UNTAUGHT}
    for trial in taught:
        assert trial == {"arm": trial["arm"], "seed": trial["seed"], **CHOSEN[trial["arm"]]}
    assert {(t["arm"], t["seed"]) for t in taught} == {
        (arm, n) for arm in ARMS if arm not in UNTAUGHT for n in range(5)
    }
    # Of those that are not taught the best for each reading, and what all start with.
    untaught = [(t["arm"], t["scale"], t["seed"]) for t in trials if t["arm"] in UNTAUGHT]
    wanted = (("random, as drawn", 0.56), ("random", 0.68), ("random, as drawn", 0.1))
    assert sorted(untaught) == sorted((*each, seed) for each in wanted for seed in range(5))
    assert [tuple(boltzmann.best_untaught(reading).values()) for reading in boltzmann.READINGS] == list(wanted[:2])
    assert boltzmann.longer_boltzmann_trials() == [
        {"arm": arm, "seed": seed, "epochs": 4, "learning_rate": 2 * CHOSEN[arm]["learning_rate"]}
        for seed in range(5)
        for arm in ("fast", "fast and slow")
    ]
    assert boltzmann.small_start_trials() == [
        {"arm": arm, "seed": seed, "start_scale": pytest.approx(0.01), **CHOSEN[arm]}
        for seed in range(5)
        for arm in ("cd", "rhythm")
    ]
    assert boltzmann.unlabelled_rate() == CHOSEN["rhythm"]["learning_rate"]
    assert {(t["start"], t["n_labels"], t["seed"], t["learning_rate"]) for t in boltzmann.labels_trials()} == {
        (start, n, seed, 1.0) for start in boltzmann.STARTS for n in (100, 1000) for seed in (*range(5), *range(20, 35))
    }


def test_a_tuning_begins_with_all_variants_and_asks_for_no_more_once_it_can_choose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each variant's accuracy is made up, with one best value on the grid; the record grows until all are chosen."""
    best = {arm: grid_value(grid_place(start) + 2) for arm, start in boltzmann.RULES.items()}
    sizes = {"accuracy": {"random": 0.56, "random, as drawn": 0.68}, "spike_accuracy": dict.fromkeys(UNTAUGHT, 1.5)}
    rows: list[dict[str, Any]] = []
    for module in (boltzmann, tuning):
        monkeypatch.setattr(module, "load_results", lambda name: {"trials": rows})
    while missing := [t for t in boltzmann.boltzmann_tuning() if t not in [row["settings"] for row in rows]]:
        for trial in missing:
            value = trial.get("learning_rate", trial.get("scale"))
            peaks = {reading: (best | of)[trial["arm"]] for reading, of in sizes.items()}
            rows.append({"settings": trial} | {name: 0.9 - abs(math.log(value / at)) for name, at in peaks.items()})
        assert len(rows) < 300
    chosen = {t["arm"]: t["learning_rate"] for t in boltzmann.boltzmann_trials() if "learning_rate" in t}
    assert chosen == best
    for reading, peaks in sizes.items():
        assert {arm: choose(scores_of(rows, "scale", reading, arm=arm, epochs=0)) for arm in UNTAUGHT} == peaks
    assert {row["settings"]["seed"] for row in rows} == {5, 6, 7}, "the comparison itself has the seeds 0 to 4"


# --- Rules without a free half --------------------------------------------------------------------


def test_covariance_and_oja_are_their_textbook_rules() -> None:
    """By loops over copies and steps; `on` holds one step more, the one before."""
    machine = some_machine(3, 2)
    generator = torch.Generator().manual_seed(20)
    below, above = (bernoulli(torch.full((2, 4, n), 0.5, dtype=torch.float64), generator) for n in (3, 2))
    counts = coincidences([below, above])
    mean_below, mean_above = below[1], above[1]  # the biases' counts are those of the last step here
    covariance = boltzmann.hebbian(machine, counts, "covariance")
    oja = boltzmann.hebbian(machine, counts, "Oja")
    for i in range(2):
        found = []
        for j in range(3):
            pairs = [float(above[1, b, i] * below[0, b, j] + above[0, b, i] * below[1, b, j]) / 2 for b in range(4)]
            by_chance = float(mean_above[:, i].mean() * mean_below[:, j].mean())
            found.append(sum(pairs) / 4 - by_chance)
            assert covariance.weights[0][i, j].item() == pytest.approx(found[j])
        held = sum(float(machine.weights[0][i, j]) * found[j] for j in range(3))
        for j in range(3):
            assert oja.weights[0][i, j].item() == pytest.approx(found[j] - held * float(machine.weights[0][i, j]))
    assert boltzmann.hebbian(machine, counts, "no free half") is counts


def test_oja_holds_weights_at_the_length_one_and_covariance_lets_them_grow() -> None:
    generator = torch.Generator().manual_seed(21)
    pixels = (torch.rand(200, 1, generator=generator) > 0.5).float() * torch.tensor([1.0, 1, 1, 0, 0, 0])
    pixels = (pixels + 0.1 * torch.rand(200, 6, generator=generator)).clamp(0, 1)
    grown, held = (start_machine((6, 3), pixels, generator, 0.3) for _ in range(2))
    for number in range(200):
        grown, held = (
            train_once(machine, pixels, arm, 0.0, number, 0.5, 5, 0.0, 0, generator)
            for machine, arm in ((grown, "covariance"), (held, "Oja"))
        )
    torch.testing.assert_close(held.weights[0].norm(dim=1), torch.ones(3), atol=0.1, rtol=0)
    # The first principal component: the three pixels that light up together.
    axis = torch.tensor([1.0, 1, 1, 0, 0, 0]) / math.sqrt(3)
    assert (held.weights[0] @ axis).abs().min() > 0.95
    assert grown.weights[0].norm(dim=1).min() > 5


@pytest.mark.parametrize("arm", ["covariance", "Oja"])
def test_the_mean_image_leaves_a_neuron_in_the_middle(arm: str) -> None:
    generator = torch.Generator().manual_seed(22)
    pixels = 0.1 + 0.8 * torch.rand(50, 6, generator=generator)
    machine = boltzmann.centred(start_machine((6, 4), pixels, generator, 0.5))
    for _ in range(3):
        machine = train_once(machine, pixels, arm, 0.0, 0, 0.5, 6, 0.5, 2, generator)
    middle = hidden_given(machine, pixels.mean(dim=0, keepdim=True))
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5))


# --- The transition -------------------------------------------------------------------------------


def test_changes_are_pre_times_change_of_post_of_both_synapses() -> None:
    generator = torch.Generator().manual_seed(23)
    below, above = (bernoulli(torch.full((6, 3, n), 0.4, dtype=torch.float64), generator) for n in (4, 2))
    found = boltzmann.changes([below, above])
    for i, j in product(range(2), range(4)):
        total = 0.0
        for t, b in product(range(5), range(3)):
            total += float(below[t, b, j] * (above[t + 1, b, i] - above[t, b, i]))  # the synapse upwards
            total += float(above[t, b, i] * (below[t + 1, b, j] - below[t, b, j]))  # the synapse downwards
        assert found.weights[0][i, j].item() == pytest.approx(total / 3)
    torch.testing.assert_close(found.biases[1], (above[-1] - above[0]).mean(dim=0))


def test_changes_add_up_to_the_end_less_the_start_less_what_changes_together() -> None:
    """The law that the chapter states, for three layers."""
    generator = torch.Generator().manual_seed(24)
    on = [bernoulli(torch.full((9, 5, n), 0.4, dtype=torch.float64), generator) for n in (4, 3, 2)]
    for level, found in enumerate(boltzmann.changes(on).weights):
        below, above = on[level], on[level + 1]
        ends = torch.einsum("bi,bj->ij", above[-1], below[-1]) - torch.einsum("bi,bj->ij", above[0], below[0])
        both = torch.einsum("tbi,tbj->ij", above.diff(dim=0), below.diff(dim=0))
        torch.testing.assert_close(found, (ends - both) / 5)


def test_slow_neurons_learn_from_the_transition_and_would_unlearn_on_the_way_back() -> None:
    machine, data = some_machine(4, 3, seed=3), all_states(4)[[0, 3, 12, 15]].repeat(500, 1)
    exact = exact_gradient(machine, data).weights[0].flatten()
    generator = torch.Generator().manual_seed(25)
    there = boltzmann.transition_cycle(machine, data, 60, 0.9, 10, generator)
    shown = half_cycle(machine, at_rest(machine, len(data)), 60, data, 0.9, 10, generator)
    back = boltzmann.changes(half_cycle(machine, shown.activity, 60, None, 0.9, 10, generator).on)
    assert torch.cosine_similarity(there.weights[0].flatten(), exact, dim=0) > 0.9
    assert torch.cosine_similarity(back.weights[0].flatten(), exact, dim=0) < -0.9


def test_a_transition_is_three_halves_of_which_the_last_one_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, data = some_machine(4, 3), all_states(4)[[3, 12]]
    found = boltzmann.transition_cycle(machine, data, 7, 0.5, 1, torch.Generator().manual_seed(26))
    again, activity = torch.Generator().manual_seed(26), at_rest(machine, 2)
    for pixels in (data, None, data):
        half = half_cycle(machine, activity, 7, pixels, 0.5, 1, again)
        activity = half.activity
    assert torch.equal(flat(found), flat(boltzmann.changes(half.on)))


# --- The small machine ----------------------------------------------------------------------------


def test_the_divergence_is_that_of_a_sum_over_all_states() -> None:
    machine, data = some_machine(6, 4), boltzmann.five_pictures()
    assert data.tolist() == [
        [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]
    ]  # fmt: skip
    table = torch.tensor(probabilities_by_loops(machine), dtype=torch.float64).view(16, 64).sum(dim=0)
    wanted = sum(0.2 * math.log(0.2 / table[number].item()) for number in number_of(data).tolist())
    assert boltzmann.divergence(machine, data) == pytest.approx(wanted)


@pytest.mark.parametrize("learner", boltzmann.LEARNERS)
def test_each_learner_comes_nearer_to_the_pictures(learner: str) -> None:
    row = boltzmann.small_trial(learner, 0, n_updates=80)
    assert len(row["divergence"]) == 9 and row["divergence"][-1] < row["divergence"][0] - 0.5
    assert ("moments" in row) == (learner == "exact gradient")
    first = boltzmann.small_trial("CD-1", 0, n_updates=0)["divergence"]
    assert first[0] == row["divergence"][0], "all learners of a seed begin alike"


def test_the_exact_gradient_lowers_the_divergence_as_its_length_says() -> None:
    """By a first-order law: a small step along the gradient lowers it by the step times the squared length."""
    machine, data = some_machine(6, 4), boltzmann.five_pictures()
    gradient, step = exact_gradient(machine, data), 1e-5
    fall = boltzmann.divergence(machine, data) - boltzmann.divergence(step_along(machine, gradient, step), data)
    assert fall / step == pytest.approx(flat(gradient).square().sum().item(), rel=1e-3)


def test_near_the_goal_the_walk_forgets_slowly_and_chance_alone_turns_the_gradient() -> None:
    """Independent draws from the machine's own distribution, without any neuron, as the free half."""
    generator, data = torch.Generator().manual_seed(22), boltzmann.five_pictures()
    machine = draw_machine((6, 4), 0.1, generator, torch.float64)
    lengths, seconds = [], []
    for number in range(301):
        gradient = exact_gradient(machine, data)
        lengths.append(flat(gradient).norm().item())
        if number in (0, 300):
            seconds.append(torch.linalg.eigvals(transition_by_loops(machine)).abs().sort().values[-2].item())
        machine = step_along(machine, gradient, 1.0)
    assert lengths[-1] < max(lengths) / 5 and seconds[0] < 0.1 and seconds[1] > 0.95
    layers, chances = distribution(machine)
    target, cosines = exact_gradient(machine, data).weights[0], []
    for n in (1500, 45_000):
        for _ in range(10):
            drawn = torch.multinomial(chances, n, replacement=True, generator=generator)
            missed = chances - torch.bincount(drawn, minlength=len(chances)) / n
            asked = target + (layers[1] * missed[:, None]).T @ layers[0]
            cosines.append(torch.cosine_similarity(asked.flatten(), target.flatten(), dim=0).item())
    assert sum(cosines[:10]) / 10 < 0.8 and sum(cosines[10:]) / 10 > 0.9


def test_without_memory_the_free_half_has_the_true_correlations() -> None:
    machine, data = some_machine(6, 4), boltzmann.five_pictures()
    few = {"n_copies": 300, "n_cycles": 1}
    share, turned = boltzmann.free_half_of(machine, data, 60, 0.0, 0, torch.Generator().manual_seed(27), **few)
    assert share == pytest.approx(1, abs=0.1) and turned > 0.97


def test_the_mean_over_cycles_is_that_of_as_many_copies() -> None:
    """Near the goal, where chance turns the update: more of either straightens it."""
    generator, data = torch.Generator().manual_seed(3), boltzmann.five_pictures()
    machine = boltzmann.draw_machine((6, 4), 0.1, generator, torch.float64)
    for _ in range(300):
        machine = step_along(machine, exact_gradient(machine, data), 1.0)
    turned = {
        (n_copies, n_cycles): [
            boltzmann.free_half_of(machine, data, 20, 0.0, 0, generator, n_copies, n_cycles)[1] for _ in range(5)
        ]
        for n_copies, n_cycles in ((100, 1), (100, 16), (1600, 1))
    }
    few, cycles, copies = (sum(values) / 5 for values in turned.values())
    assert few < min(cycles, copies) - 0.1 and abs(cycles - copies) < 0.2


def test_a_learner_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="CD-1"):
        boltzmann.small_trial("CD", 0)
    with pytest.raises(ValueError, match="pretrained"):
        boltzmann.labels_trial("taught", 10, 0, several(20), several(20), learning_rate=1.0, unlabelled_rate=0.1)


# --- With labels, afterwards ----------------------------------------------------------------------


def labelled(start: str, n_labels: int = 30, **settings: Any) -> dict[str, Any]:
    train, test = several(60, classes=2), several(200, classes=2, seed=1)
    settings = {
        "learning_rate": 1.0,
        "unlabelled_rate": 0.2,
        "n_train": 60,
        "n_hidden": 20,
        "batch_size": 10,
    } | settings
    return boltzmann.labels_trial(start, n_labels, 3, train, test, **settings)


@pytest.mark.parametrize("start", boltzmann.STARTS)
def test_labels_teach_from_each_start_and_shuffled_ones_do_not(start: str) -> None:
    row = labelled(start)
    assert row == labelled(start) and row["accuracy"] > 0.9
    train, test = several(60, classes=2), several(200, classes=2, seed=1)
    settings: dict[str, Any] = {"learning_rate": 1.0, "unlabelled_rate": 0.2, "n_train": 60, "batch_size": 10}
    chance = boltzmann.labels_trial(start, 30, 3, train, shuffled(test), **settings)
    assert abs(chance["accuracy"] - 0.5) < 0.18


def test_only_what_is_pretrained_is_shown_digits_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, boltzmann, "train_once", lambda given: given["machine"])
    labelled("as drawn", n_updates=1)
    assert not calls
    labelled("pretrained", n_updates=1)
    assert len(calls) == 2 * 6 and {call["arm"] for call in calls} == {"rhythm"}
    assert {call["learning_rate"] for call in calls} == {0.2}


def test_only_the_first_labels_are_used() -> None:
    """With the labels of the others changed, nothing changes; with one of the first changed, it does."""
    train, test = several(60, classes=2), several(50, classes=2, seed=1)
    drawn = draw_subset(train, 60, 3)
    found = []
    for changed_from in (30, 0, 60):
        labels = drawn.tensors[1].clone()
        labels[changed_from:] = 1 - labels[changed_from:]
        given = TensorDataset(drawn.tensors[0], labels)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boltzmann, "draw_subset", lambda dataset, n, seed: dataset)
            found.append(
                boltzmann.labels_trial(
                    "as drawn", 30, 3, given, test, learning_rate=1.0, unlabelled_rate=0.2, n_train=60, batch_size=10
                )["accuracy"]
            )
    assert found[0] == found[2] != found[1]


def test_dealing_out_keeps_each_neurons_weights_and_its_drive_by_the_mean_image() -> None:
    machine = some_machine(6, 4)
    dealt = boltzmann.dealt_out(machine, torch.Generator().manual_seed(28))
    assert torch.equal(dealt.weights[0].sort(dim=1).values, machine.weights[0].sort(dim=1).values)
    assert not torch.equal(dealt.weights[0], machine.weights[0])
    mean = torch.sigmoid(machine.biases[0])
    torch.testing.assert_close(*(each.weights[0] @ mean + each.biases[1] for each in (dealt, machine)))


def test_shrunk_images_have_the_means_of_what_they_replace() -> None:
    images = several(3).tensors[0]
    pixels, _ = boltzmann._bright(several(3), torch.device("cpu"), 14)
    for number, (row, column) in product(range(3), ((0, 0), (5, 7), (13, 13))):
        block = images[number].view(28, 28)[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert pixels[number, 14 * row + column].item() == pytest.approx(
            (block + 0.5).clamp(0, 1).mean().item(), abs=1e-6
        )


def test_machines_and_states_of_other_sizes_are_refused() -> None:
    deep, level = draw_machine((4, 3, 2)), draw_machine((4, 3))
    with pytest.raises(ValueError, match="must have the same shapes"):
        step_along(deep, level, 0.1)
    with pytest.raises(ValueError, match=r"layers must have \[4, 3, 2\] neurons"):
        energy(deep, [torch.zeros(5, 4), torch.zeros(5, 3)])
    with pytest.raises(ValueError, match="hidden_given takes one level at a time, not 2"):
        hidden_given(deep, torch.zeros(5, 4))
    with pytest.raises(ValueError, match="level must lie between 0 and 1, not -1"):
        one_level(deep, -1)
    with pytest.raises(ValueError, match=r"the activity must have \[4, 3\] neurons"):
        half_cycle(level, at_rest(deep, 5), 3)
    with pytest.raises(ValueError, match="two steps or more"):
        coincidences([torch.zeros(1, 2, 4), torch.zeros(1, 2, 3)])


def test_states_as_whole_numbers_or_in_double_teach_the_same() -> None:
    machine = draw_machine((4, 3), 1.0, torch.Generator().manual_seed(0))
    data = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0]])
    wanted, _ = cd_gradient(machine, data, 2, torch.Generator().manual_seed(1))
    for given in (data.long(), data.double(), data.bool()):
        found, _ = cd_gradient(machine, given, 2, torch.Generator().manual_seed(1))
        assert torch.equal(flat(found), flat(wanted))


# --- The exercises --------------------------------------------------------------------------------


def test_what_the_exercises_say_is_so() -> None:
    # The smallest machine: both on in more than a half.
    e = math.exp(2)
    assert 0.5 < e / (3 + e) < 1
    # Without the correction a neuron that rests for 9 steps is on for more than 0.9 of the time, at 0; by running it.
    generator = torch.Generator().manual_seed(14)
    left, on = torch.zeros(4000), 0.0
    for step in range(400):
        fires = (torch.rand(4000, generator=generator) < 0.5) & (left <= 1)
        left = torch.where(fires, torch.tensor(10.0), (left - 1).clamp(min=0))
        on += (left > 0).double().mean().item() * (step >= 100) / 300
    assert on > 0.9
    assert abs(on - exercises._on(0.0, 9)) < 0.005
    # Spikes 0 and 3 steps apart, with a rest of 6: steps in which one is on while the other was, a step before.
    for delay, wanted in ((0, 6), (-3, 4)):
        pre, post = set(range(20, 27)), set(range(20 + delay, 27 + delay))
        heard = (len({t + 1 for t in pre} & post) + len({t + 1 for t in post} & pre)) / 2
        assert heard == wanted
    # The error of the second exercise is above 1 % after 7 steps, and not after 8.
    assert 0.3 * 0.6**6 > 0.01 >= 0.3 * 0.6**7


def test_the_visible_chain_runs_alike_backwards_and_the_joint_one_as_if_v_were_drawn_first() -> None:
    generator = torch.Generator().manual_seed(15)
    weight, a, b = (torch.randn(*shape, generator=generator).double() for shape in ((2, 3), (3,), (2,)))
    states = [(h, v) for h in product((0.0, 1.0), repeat=2) for v in product((0.0, 1.0), repeat=3)]
    h, v = (torch.tensor([state[part] for state in states]).double() for part in (0, 1))
    p = torch.softmax(((h @ weight) * v).sum(dim=1) + v @ a + h @ b, dim=0).view(4, 8)
    up, down = (p / p.sum(dim=0)).T, p / p.sum(dim=1, keepdim=True)  # [8, 4] and [4, 8]
    flow = p.sum(dim=0)[:, None] * (up @ down)
    torch.testing.assert_close(flow, flow.T)
    joint = torch.einsum("hv,vk,kw->hvkw", p, up, down).reshape(32, 32)
    assert (joint - joint.T).abs().max() > 1e-4
    turned = torch.einsum("hv,hw,wk->hvkw", p, down, up).reshape(32, 32)
    torch.testing.assert_close(joint.T, turned)
