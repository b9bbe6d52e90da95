"""Small changes of a neuron and of a loss, against integrals done by hand and loops over whole networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import norm
from snn_chapters import perturbation
from snn_chapters.perturbation import (
    RULES,
    Line,
    NoisyNeuron,
    autograd_gradient,
    autograd_window,
    density_window,
    difference_gradient,
    draw_task,
    gradient_trial,
    gradients,
    lines,
    loss_along,
    measure_perturbation,
    perturbed_window,
    score,
    slope_trial,
    slopes,
    train_net,
    training_trial,
)
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet
from snn_helpers.neurons import RESETS

each_reset = pytest.mark.parametrize("reset", RESETS)
each_place = pytest.mark.parametrize("place", [0, 1, 2])
FrozenTask = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- One neuron ----------------------------------------------------------------------------------


def after(charge: float, reset: str, threshold: float = 1.0, penalty: float = 1.5) -> float:
    """The state that a charge leaves, from the equations in words."""
    if charge <= threshold:
        return charge
    return {
        "scale": charge * (1 - penalty / threshold),
        "discharge": threshold - penalty,
        "subtract": charge - threshold,
        "zero": 0.0,
    }[reset]


def mean_output(centre: float, sd: float, threshold: float = 1.0) -> float:
    """The mean of `max(0, v - threshold)` for a normal v: what a graded spike is worth before it comes."""
    z = (centre - threshold) / sd
    return float((centre - threshold) * norm.cdf(z) + sd * norm.pdf(z))


@each_reset
@pytest.mark.parametrize("penalty", [0.7, 1.5])
def test_the_window_by_integration_is_the_derivative_of_integrals_done_by_hand(reset: str, penalty: float) -> None:
    """From rest a pulse moves the first charge, a normal one: its mean is what is differentiated, by scipy."""
    mean, sd = 0.8, 0.3

    def expected(delay: int, shift: float) -> float:
        if delay == 0:
            return mean_output(mean + shift, sd)

        def one(charge: float) -> float:
            later = mean_output(mean + 0.9 * after(charge, reset, penalty=penalty), sd)
            return later * float(norm.pdf(charge, mean + shift, sd))

        return sum(quad(one, *ends, epsabs=1e-12)[0] for ends in ((mean - 3.0, 1.0), (1.0, mean + 3.0)))

    found = density_window(NoisyNeuron(mean, sd, 0, penalty=penalty, reset=reset), 2, n_cells=2000)
    for delay in (0, 1):
        slope = (expected(delay, 1e-4) - expected(delay, -1e-4)) / 2e-4
        assert found[delay].item() == pytest.approx(slope, abs=2e-4)


@each_reset
@pytest.mark.parametrize("read", ["output", "state"])
def test_trials_find_what_integration_finds(reset: str, read: str) -> None:
    settings = NoisyNeuron(reset=reset, read=read)
    found, exact = perturbed_window(settings, n_trials=20_000), density_window(settings)
    assert bool(((found.mean - exact).abs() < 4.5 * found.error + 1e-3).all())
    assert bool((found.error > 0).all())


def test_the_warm_up_is_carried_by_integration_as_by_trials() -> None:
    for warm_up in (0, 1, 5):
        settings = NoisyNeuron(0.4, 0.2, warm_up)
        found, exact = perturbed_window(settings, 3, n_trials=20_000), density_window(settings, 3)
        assert bool(((found.mean - exact).abs() < 4.5 * found.error + 1e-3).all())


@each_reset
@pytest.mark.parametrize("read", ["output", "state"])
def test_spikes_held_in_place_give_autograds_derivative(reset: str, read: str) -> None:
    settings = NoisyNeuron(reset=reset, read=read)
    held, told = perturbed_window(settings, n_trials=500, clamped=True), autograd_window(settings, n_trials=500)
    torch.testing.assert_close(held.mean, told.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(held.error, told.error, rtol=0, atol=1e-12)


@each_reset
def test_autograds_window_is_the_law_averaged_over_the_spikes(reset: str) -> None:
    """At a spike, `decay ** d` times the reset's slope for each spike between: in a loop over trials and steps."""
    settings = NoisyNeuron(0.3, 0.2, warm_up=3, reset=reset)
    state, currents = settings.trials(5, 40, seed=2)
    slope = {"scale": -0.5, "discharge": 0.0, "subtract": 1.0, "zero": 0.0}[reset]
    total = [0.0] * 5
    for trial in range(40):
        left, reaches = state[trial].item(), 1.0
        for delay in range(5):
            charge = currents[delay, trial].item() + 0.9 * left
            total[delay] += reaches * (charge > 1)
            reaches *= 0.9 * (slope if charge > 1 else 1.0)
            left = after(charge, reset)
    found = autograd_window(settings, 5, n_trials=40, seed=2).mean
    torch.testing.assert_close(found, torch.tensor(total, dtype=torch.float64) / 40, rtol=0, atol=1e-12)
    assert sum(total) > 5  # there were spikes


@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_where_nothing_jumps_autograd_is_right(reset: str) -> None:
    """Without a penalty, "scale" resets nothing, and "discharge" cuts off what is above the threshold, smoothly."""
    settings = NoisyNeuron(penalty=0.0, reset=reset)
    found, told, exact = perturbed_window(settings, size=1e-3), autograd_window(settings), density_window(settings)
    assert bool(((found.mean - told.mean).abs() < 1e-3).all())
    assert bool(((told.mean - exact).abs() < 4.5 * told.error + 1e-3).all())
    assert told.mean[1] > 0.1


@each_reset
def test_what_autograd_misses_one_step_later_is_the_density_at_the_threshold_times_the_jump(reset: str) -> None:
    """One step later the neuron's output has no jump of its own: only the reset at the pulse does."""
    mean, sd = 0.8, 0.3
    settings = NoisyNeuron(mean, sd, 0, reset=reset)
    below, above = (mean_output(mean + 0.9 * left, sd) for left in (1.0, after(1 + 1e-12, reset)))
    missing = float(norm.pdf(1.0, mean, sd)) * (above - below)
    told = autograd_window(settings, 2, n_trials=100_000)
    difference = (density_window(settings, 2) - told.mean)[1].item()
    assert difference == pytest.approx(missing, abs=5 * told.error[1].item() + 1e-3)
    assert missing < -0.2


def test_a_neuron_that_never_fires_only_leaks() -> None:
    for settings in (NoisyNeuron(-1.0, 0.05, 3, read=read) for read in ("output", "state")):
        law = [0.9**d if settings.read == "state" else 0.0 for d in range(4)]
        wanted = torch.tensor(law, dtype=torch.float64)
        for found in (
            perturbed_window(settings, 4, n_trials=10).mean,
            perturbed_window(settings, 4, n_trials=10, clamped=True).mean,
            autograd_window(settings, 4, n_trials=10).mean,
        ):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(density_window(settings, 4), wanted, rtol=0, atol=1e-4)


def test_a_seed_says_what_is_drawn() -> None:
    one, other, another = (perturbed_window(NoisyNeuron(), 3, n_trials=50, seed=seed).mean for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, another)


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({"sd": 0.0}, {}, "sd must be a finite number above 0"),
        ({"warm_up": -1}, {}, "warm_up must be 0 or more"),
        ({"read": "spikes"}, {}, "read must be one of 'output', 'state'"),
        ({"reset": "none"}, {}, "reset must be one of"),
        ({}, {"size": 0.0}, "size must be a finite number above 0"),
        ({}, {"n_delays": 0}, "n_delays must be 1 or more"),
        ({}, {"n_trials": 1}, "n_trials must be 2 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, float], more: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        perturbed_window(NoisyNeuron(**settings), **more)  # type: ignore[arg-type]


# --- The loss along a line -----------------------------------------------------------------------


def network(device: torch.device, reset: str = "scale", penalty: float = 1.5, seed: int = 1) -> SpikingNet:
    """Three layers, double precision: the differences that are held against one another are small."""
    net = SpikingNet(14, 2, (7, 6, 5, 3), reset=reset, penalty=penalty, generator=seeded(seed))
    with torch.no_grad():
        for layer in net.layers:
            layer.linear.weight *= 2  # so that all layers fire
    return net.to(device, torch.float64)


def shown(device: torch.device, n: int = 9) -> tuple[Tensor, Tensor]:
    frames = torch.rand(14, n, 7, generator=seeded(3), dtype=torch.float64).to(device)
    return frames, (torch.arange(n) % 3).to(device)


def mean_loss(net: SpikingNet, frames: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(net.read_out(net.run(frames)), labels)


def moved(net: SpikingNet, place: int, change: Tensor, frames: Tensor, labels: Tensor) -> float:
    """The loss once the weights of a layer are changed; they are put back."""
    weight = net.layers[place].linear.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += change
        loss = mean_loss(net, frames, labels).item()
        weight.copy_(before)
    return loss


@each_place
@each_reset
def test_the_loss_along_a_line_is_that_of_the_changed_network(device: torch.device, reset: str, place: int) -> None:
    net, (frames, labels) = network(device, reset), shown(device)
    weight = net.layers[place].linear.weight
    direction = torch.randn(weight.shape, generator=seeded(4), dtype=torch.float64).to(device)
    direction[1] = 0  # a neuron that keeps its weights
    scales = torch.tensor([-0.3, 0.0, 0.1, 0.25], dtype=torch.float64)
    line = loss_along(net, frames, labels, direction, scales, place, at_once=3)
    for scale, loss, slope in zip(scales.tolist(), line.losses.tolist(), line.slopes.tolist()):
        assert loss == pytest.approx(moved(net, place, scale * direction, frames, labels), abs=1e-10)
        with torch.no_grad():
            weight += scale * direction
        gradient = autograd_gradient(net, frames, labels, place)
        with torch.no_grad():
            weight -= scale * direction
        assert slope == pytest.approx((gradient * direction).sum().item(), abs=1e-10)


def test_autograds_gradient_is_that_of_backward(device: torch.device) -> None:
    net, (frames, labels) = network(device), shown(device)
    mean_loss(net, frames, labels).backward()  # type: ignore[no-untyped-call]
    for place, layer in enumerate(net.layers):
        torch.testing.assert_close(autograd_gradient(net, frames, labels, place), layer.linear.weight.grad)


def test_a_line_tells_a_slope_from_a_jump() -> None:
    scales = torch.linspace(0, 2, 401, dtype=torch.float64)
    smooth = Line(scales, scales**2, 2 * scales)
    assert smooth.change == pytest.approx(4) and smooth.integral == pytest.approx(4)
    assert smooth.jump_share == pytest.approx(0, abs=1e-9)
    stairs = Line(scales, (5 * scales).floor(), torch.zeros_like(scales))
    assert stairs.change == 10 and stairs.integral == 0 and stairs.jump_share == 1
    # A saw: it rises by 1 a unit and falls back by 1 at each of 9 teeth; a fall meets the rise of its own interval.
    saw = Line(scales, (5 * scales + 0.5).remainder(1) / 5, torch.ones_like(scales))
    assert saw.integral == pytest.approx(2) and saw.change == pytest.approx(0, abs=1e-9)
    assert saw.jump_share == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("reset", ["scale", "discharge"])
def test_without_a_jump_the_integral_of_autograds_derivative_is_the_change(device: torch.device, reset: str) -> None:
    (frames, labels), scales = shown(device), torch.linspace(-0.2, 0.2, 401, dtype=torch.float64)
    found = {}
    for penalty in (0.0, 1.5):
        net = network(device, reset, penalty)
        direction = net.layers[0].linear.weight.detach()
        found[penalty] = loss_along(net, frames, labels, direction, scales, at_once=101)
    assert found[0.0].integral == pytest.approx(found[0.0].change, rel=1e-3)
    assert abs(found[0.0].change) > 1e-3 and found[0.0].jump_share < 0.01
    assert abs(found[1.5].integral - found[1.5].change) > 0.01 and found[1.5].jump_share > 0.2


def test_a_direction_that_does_not_fit_is_refused(device: torch.device) -> None:
    net, (frames, labels) = network(device), shown(device)
    scales = torch.zeros(2)
    with pytest.raises(ValueError, match=r"direction must have the shape of the layer's weights, \[6, 7\], not \[7\]"):
        loss_along(net, frames, labels, torch.zeros(7), scales)
    with pytest.raises(ValueError, match="place must lie between 0 and 2, not 3"):
        loss_along(net, frames, labels, torch.zeros(6, 7), scales, place=3)


def test_lines_move_the_neurons_that_fire_most(device: torch.device) -> None:
    net, (frames, labels) = network(device), shown(device)
    found = lines(net.float(), frames.float(), labels, n_neurons=2, n_points=5, n_fine=41)
    net = net.double()
    fired = (net.run(frames.float().double())[0].outputs > 0).double().mean(dim=(0, 1))
    for neuron, change in zip(fired.argsort(descending=True).tolist(), found["change"], strict=False):
        direction = torch.zeros_like(net.layers[0].linear.weight)
        direction[neuron] = net.layers[0].linear.weight.detach()[neuron]
        ends = [moved(net, 0, scale * direction, frames.float().double(), labels) for scale in (0.1, -0.1)]
        assert change == pytest.approx(ends[0] - ends[1], abs=1e-6)
    assert len(found["change"]) == len(found["integral"]) == 2 and 0 <= found["jump_share"] <= 1


# --- The slope and the gradient of the mean loss -------------------------------------------------


def by_differences(net: SpikingNet, frames: Tensor, labels: Tensor, place: int, step: float) -> Tensor:
    weight = net.layers[place].linear.weight
    found = torch.zeros_like(weight, requires_grad=False)
    for where in range(weight.numel()):
        change = torch.zeros_like(found)
        change.view(-1)[where] = step
        ends = [moved(net, place, sign * change, frames, labels) for sign in (1, -1)]
        found.view(-1)[where] = (ends[0] - ends[1]) / (2 * step)
    return found


@each_place
@each_reset
def test_differences_are_those_of_whole_networks(device: torch.device, reset: str, place: int) -> None:
    net, (frames, labels) = network(device, reset), shown(device)
    wanted = by_differences(net, frames, labels, place, 0.1)
    torch.testing.assert_close(difference_gradient(net, frames, labels, place, 0.1), wanted, rtol=0, atol=1e-10)
    assert wanted.abs().max() > 1e-3


@each_place
def test_without_a_jump_differences_are_autograds(device: torch.device, place: int) -> None:
    net, (frames, labels) = network(device, penalty=0.0), shown(device)
    found = difference_gradient(net, frames, labels, place, 1e-6)
    torch.testing.assert_close(found, autograd_gradient(net, frames, labels, place), rtol=0, atol=1e-6)


def always(frames: Tensor, labels: Tensor) -> FrozenTask:
    """A task that draws the same examples, in order, over and over."""

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return frames[:, :n], labels[:n]

    return draw


@each_place
def test_slopes_are_taken_along_autograds_direction(device: torch.device, place: int) -> None:
    net, (frames, labels) = network(device), shown(device)
    gradient = autograd_gradient(net, frames, labels, place)
    found = slopes(net, always(frames, labels), place, seeded(), steps=(0.05, 0.3), n_examples=9)
    assert found["length"] == pytest.approx(gradient.norm().item(), rel=1e-9)
    assert found["says"][0] == pytest.approx(gradient.norm().item(), rel=1e-9)
    for step in (0.05, 0.3):
        change = step * gradient / gradient.norm()
        ends = [moved(net, place, sign * change, frames, labels) for sign in (1, -1)]
        assert found["does"][str(step)][0] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-9)
    # The standard error is that over examples: each one's own slope, found by running it alone.
    ones = []
    for i in range(9):
        alone = autograd_gradient(net, frames[:, i : i + 1], labels[i : i + 1], place)
        ones.append((alone * gradient / gradient.norm()).sum())
    assert found["says"][1] == pytest.approx(torch.stack(ones).std().item() / 3, rel=1e-9)


def test_examples_that_are_drawn_in_parts_make_one_mean(device: torch.device) -> None:
    net = SpikingNet(12, sizes=(16, 6, 10), generator=seeded(1)).to(device)
    task = draw_task("patterns", seeded(5), device, small=True)[0]
    one, parts = (slopes(net, task, 0, seeded(7), n_examples=30, at_once=at_once) for at_once in (30, 11))
    assert one["says"][0] != parts["says"][0]  # other draws: a task draws a batch at a time
    assert one["says"][0] == pytest.approx(parts["says"][0], abs=6 * (one["says"][1] + parts["says"][1]))


def test_two_gradients_are_compared_without_their_noise(device: torch.device) -> None:
    net, (frames, labels) = network(device), shown(device)
    told = autograd_gradient(net, frames, labels, 0)
    real = difference_gradient(net, frames, labels, 0, 0.1)
    found = gradients(net, always(frames, labels), 0, seeded(), steps=(0.1,), n_examples=9)["0.1"]
    assert found["autograd"] == pytest.approx(told.norm().item(), rel=1e-9)
    assert found["differences"] == pytest.approx(real.norm().item(), rel=1e-9)
    assert found["cosine"] == pytest.approx(F.cosine_similarity(told.flatten(), real.flatten(), dim=0).item(), rel=1e-9)
    assert found["agree"] == pytest.approx(1)


def test_the_lengths_of_gradients_do_not_grow_with_noise(device: torch.device) -> None:
    """Where labels are drawn at random, and nothing is known of them, a gradient is noise: it has no length then."""
    net, (frames, _) = network(device), shown(device, 40)

    def noise(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return frames[:, :n], torch.randint(3, (n,), generator=generator).to(device)

    net.layers[-1].linear.weight.data.zero_()
    net.layers[-1].linear.bias.data.zero_()
    squares = []
    for seed in range(30):
        both = [autograd_gradient(net, *noise(40, seeded(2 * seed + half)), 2) for half in (0, 1)]
        found = gradients(net, noise, 2, seeded(seed), steps=(0.1,), n_examples=40)["0.1"]
        squares.append(found["autograd"] ** 2 / both[0].square().sum().item())
    # The squared length below zero counts as 0: so some are above, and about a half are 0.
    assert 5 <= sum(square == 0 for square in squares) <= 25
    assert sum(squares) / len(squares) < 0.5


# --- Training and the record ---------------------------------------------------------------------


def pixels(n: int = 60) -> TensorDataset:
    return TensorDataset(torch.rand(n, 1, 28, 28, generator=seeded(8)) - 0.5, torch.arange(n) % 10)


def test_frozen_layers_stay_and_the_others_learn(device: torch.device) -> None:
    for rule, frozen in (("autograd", None), ("hidden frozen", 0), ("last frozen", 1), ("differences", None)):
        generator = seeded(1)
        task, n_steps, sizes = draw_task("patterns", generator, device, small=True)
        net = SpikingNet(n_steps, sizes=sizes, generator=generator).to(device)
        before = [layer.linear.weight.detach().clone() for layer in net.layers]
        train_net(net, task, generator, n_updates=2, rule=rule, batch_size=20)
        same = [torch.equal(b, layer.linear.weight) for b, layer in zip(before, net.layers)]
        assert same == [place == frozen for place in range(2)], rule


def test_the_rule_of_differences_steps_down_what_was_measured(device: torch.device) -> None:
    frames = torch.rand(10, 8, 5, generator=seeded(2), dtype=torch.float64).to(device)
    labels = (torch.arange(8) % 3).to(device)
    net = SpikingNet(10, sizes=(5, 4, 3), generator=seeded(1)).to(device, torch.float64)
    wanted = [net.layers[p].linear.weight - 0.2 * by_differences(net, frames, labels, p, 0.1) for p in range(2)]
    bias = net.layers[0].linear.bias
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            bias[2] += sign * 0.1
            ends.append(mean_loss(net, frames, labels).item())
            bias[2] -= sign * 0.1
    wanted_bias = bias[2].item() - 0.2 * (ends[0] - ends[1]) / 0.2
    train_net(net, always(frames, labels), seeded(), 0.2, 1, "differences", batch_size=8)
    for layer, weight in zip(net.layers, wanted):
        torch.testing.assert_close(layer.linear.weight, weight, rtol=0, atol=1e-9)
    assert net.layers[0].linear.bias[2].item() == pytest.approx(wanted_bias, abs=1e-9)


def test_training_lowers_the_loss_and_is_tested_on_what_is_drawn(device: torch.device) -> None:
    frames, labels = shown(device)
    net = SpikingNet(14, sizes=(7, 6, 3), generator=seeded(1)).to(device, torch.float64)
    before = score(net, always(frames, labels), seeded(), 9)
    assert before["loss"] == pytest.approx(mean_loss(net, frames, labels).item())
    right = (net.read_out(net.run(frames)).argmax(dim=1) == labels).double().mean().item()
    assert before["accuracy"] == pytest.approx(right)
    train_net(net, always(frames, labels), seeded(), 0.1, 30, batch_size=9)
    assert score(net, always(frames, labels), seeded(), 9)["loss"] < before["loss"]


def test_tasks_come_whole_and_small(device: torch.device) -> None:
    for name, small, wanted in (
        ("digits", False, (64, 784, 10)),
        ("patterns", False, (64, 200, 10)),
        ("digits", True, (32, 16, 3)),
        ("patterns", True, (32, 16, 10)),
    ):
        task, n_steps, sizes = draw_task(name, seeded(), device, pixels(), small)
        frames, labels = task(30, seeded())
        assert (n_steps, sizes[0], sizes[-1]) == wanted and frames.shape == (n_steps, 30, sizes[0])
        assert int(labels.min()) >= 0 and int(labels.max()) < sizes[-1]
    # A small digit flickers as its own average does: no value goes beyond it.
    frames, labels = draw_task("digits", seeded(), device, pixels(4), True)[0](50, seeded())
    means = pixels(4).tensors[0].view(4, 4, 7, 4, 7).mean(dim=(2, 4)).flatten(1).to(device)
    assert bool((frames.abs() <= means[labels].abs() + 1e-6).all())
    with pytest.raises(ValueError, match="the task 'digits' needs train, a set of digits"):
        draw_task("digits", seeded(), device)
    with pytest.raises(ValueError, match="task must be one of 'digits', 'patterns'"):
        draw_task("letters", seeded(), device)
    with pytest.raises(ValueError, match="rule must be one of 'autograd'"):
        train_net(SpikingNet(), task, seeded(), rule="magic")


def test_the_trials_give_plain_figures_and_repeat_them(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"n_updates": 1, "n_examples": 20, "device": "cpu"}
    few = {"n_neurons": 2, "n_points": 3, "n_fine": 5}
    monkeypatch.setattr(perturbation, "lines", lambda *given: lines(*given, **few))
    monkeypatch.setattr(perturbation, "score", lambda *given: score(*given, n_examples=30))
    one, other = (slope_trial("patterns", 3, **quick) for _ in range(2))  # type: ignore[arg-type]
    assert json.loads(json.dumps(one)) == other and set(one) == {"before", "after"}
    assert set(one["after"]["slopes"][1]) == {"length", "says", "does"}
    found = gradient_trial("digits", 0, pixels(), **quick)  # type: ignore[arg-type]
    assert json.loads(json.dumps(found)) == found and len(found["before"]["gradients"]) == 2
    trained = training_trial("digits", 0, pixels(), rules=RULES, rates=(0.1, 0.2), small=True, n_updates=1)["trained"]
    assert [(row["rule"], row["rate"]) for row in trained] == [(rule, rate) for rule in RULES for rate in (0.1, 0.2)]
    assert json.loads(json.dumps(trained)) == trained


def test_each_trial_of_the_record_is_one_that_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name in the settings is one that the trial takes, and the record has five seeds of everything."""
    import inspect

    (record,) = perturbation.RECORDS.values()
    assert record.run is measure_perturbation
    seeds: dict[str, set[int]] = {}
    for settings in record.trials if isinstance(record.trials, list) else record.trials():
        assert json.loads(json.dumps(settings)) == settings
        trial = getattr(perturbation, f"{settings['part']}_trial")
        inspect.signature(trial).bind(train=None, device="cpu", **{k: v for k, v in settings.items() if k != "part"})
        rest = json.dumps({name: value for name, value in settings.items() if name != "seed"})
        seeds.setdefault(rest, set()).add(settings["seed"])
    assert all(found == set(range(5)) for found in seeds.values())
    monkeypatch.setattr(perturbation, "slope_trial", lambda **settings: settings)
    given = measure_perturbation(part="slope", task="patterns", seed=1)
    assert given == {"train": None, "device": "cpu", "task": "patterns", "seed": 1}
    assert math.isfinite(given["seed"])
