"""Outputs fed back: the loop against numbers one by one, the delayed match, and the trial against its parts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from snn_chapters import loops
from snn_chapters.loops import (
    LOOPED,
    MEMORIES,
    RecurrentSpikingLayer,
    SequenceNet,
    make_memory,
    match_task,
    memory_trial,
)
from spies import (
    N_TRAIN,
    TEST_NUMBERS,
    Calls,
    are,
    numbered,
    spy,
)
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import TensorDataset

from snn_helpers import SpikingLayer, evaluate
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import reset_slope, three_factors
from snn_helpers.training import Evaluation, fit_adam


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
    assert [getattr(net.hidden, "delay", None) for net in nets.values()] == [None, None, 1, 8, 1]
    assert [getattr(net.hidden, "cut", None) for net in nets.values()] == [None, None, False, False, True]
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

    monkeypatch.setattr(loops, "whole_mnist", numbered)
    return Spied(
        spy(monkeypatch, loops, "match_task", pairs),
        spy(monkeypatch, loops, "fit_adam", lambda given: []),
        spy(monkeypatch, loops, "evaluate", lambda given: Evaluation(len(given["dataset"]) / 100, 0.0)),
    )


def test_trained_on_pairs_of_training_digits_and_tested_on_pairs_of_others(spied: Spied) -> None:
    row = loops.measure_memory(
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


def test_no_two_trials_of_one_record_share_pairs_between_training_and_test() -> None:
    """Seeds of the training pairs are even and of the test pairs odd: no draw is used for both."""
    ((_, _, trials),) = loops.RECORDS.values()
    seeds = {trial["seed"] for trial in trials}
    assert not {2 * seed for seed in seeds} & {2 * seed + 1 for seed in seeds}
    for network in MEMORIES:
        gaps = [trial["gap"] for trial in trials if trial["network"] == network and "reset" not in trial]
        assert set(gaps) == ({12} if network == "cut feedback" else {0, 4, 8, 12, 24}) and len(gaps) == 5 * len(
            set(gaps)
        )


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
