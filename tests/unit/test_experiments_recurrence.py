"""One trial of chapter 10: `snn_helpers.experiments_recurrence`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from snn_chapters.loops import LOOPED, MEMORIES, make_memory, match_task, memory_trial
from snn_chapters.rhythms import listen, put_together, rhythm_trial, synchrony
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit
from snn_helpers.training import fit_adam


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


# --- Rhythms --------------------------------------------------------------------------------------


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
