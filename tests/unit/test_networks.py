"""The two networks, held against a step-by-step simulation, nn.Sequential and the laws of dropout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from snn_chapters.forward_in_time import OnlineNet
from torch import Tensor, nn
from torch.nn.utils import prune

from snn_helpers import MLP, LayerRecord, SpikingNet
from snn_helpers.neurons import RESETS

each_reset = pytest.mark.parametrize("reset", RESETS)


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def digits(n: int, device: torch.device, side: int = 28) -> Tensor:
    return (torch.rand(n, 1, side, side, generator=seeded(9), dtype=torch.float64) - 0.5).to(device)


# --- SpikingNet -----------------------------------------------------------------------------------


def simulate(net: SpikingNet, inputs: Tensor, decay: float, threshold: float, penalty: float, reset: str) -> Any:
    """All layers together, one step after the other, as the design describes them.

    `inputs` `[T, B, n]`. Returns for each layer the list of what it hands out at each step.
    """
    weights = [(layer.linear.weight.detach(), layer.linear.bias.detach()) for layer in net.layers]
    state = [inputs.new_zeros(inputs.shape[1], len(bias)) for _, bias in weights]
    output = [inputs.new_zeros(inputs.shape[1], len(bias)) for _, bias in weights]
    handed_out: list[list[tuple[Tensor, Tensor]]] = [[] for _ in weights]
    for now in inputs:
        # What every layer hands out at this step is what it reached at the step before.
        handed = [(s.clone(), o.clone()) for s, o in zip(state, output)]
        for number, (weight, bias) in enumerate(weights):
            handed_out[number].append(handed[number])
            read = now if number == 0 else handed[number - 1][1]
            charge = read @ weight.T + bias + decay * state[number]
            over = charge - threshold
            fires = over > 0
            left = {
                "scale": charge * (1 - penalty / threshold),
                "discharge": torch.full_like(charge, threshold - penalty),
                "subtract": over,
                "zero": torch.zeros_like(charge),
            }[reset]
            output[number] = torch.where(fires, over, 0.0)
            state[number] = torch.where(fires, left, charge)
    return handed_out


@each_reset
@pytest.mark.parametrize(("begin_eval", "sizes"), [(0, (784, 20, 10)), (13, (784, 20, 10)), (5, (784, 12, 9, 4))])
def test_spiking_net_equals_a_step_by_step_simulation(
    reset: str, begin_eval: int, sizes: tuple[int, ...], device: torch.device
) -> None:
    settings = (0.8, 0.4, 0.9, reset)
    net = SpikingNet(16, begin_eval, sizes, *settings, generator=seeded(3)).double().to(device)
    images = digits(5, device)
    # Four masks from each draw of 64 bits.
    draws = torch.empty(16, 5 * 784 // 4, dtype=torch.int64).random_(-(2**63), None, generator=seeded(7))
    mask = torch.from_numpy(draws.numpy().view("int16") / 2**16 + 0.5).reshape(16, 5, 784).to(device)
    handed_out = simulate(net, images.reshape(1, 5, 784) * mask, *settings)

    records = net.record(images, generator=seeded(7))
    assert len(records) == len(sizes) - 1
    for record, expected, n_neurons in zip(records, handed_out, sizes[1:]):
        assert isinstance(record, LayerRecord)
        assert record.states.shape == record.outputs.shape == (16, 5, n_neurons)
        assert (record.outputs > 0).any()
        torch.testing.assert_close(record.states, torch.stack([state for state, _ in expected]))
        torch.testing.assert_close(record.outputs, torch.stack([output for _, output in expected]))

    counted = [state for state, _ in handed_out[-1]][begin_eval:]
    logits = sum(counted) / len(counted)
    expected_answer = logits - logits.exp().sum(dim=1, keepdim=True).log()
    torch.testing.assert_close(net(images, generator=seeded(7)), expected_answer)


def test_spiking_net_defaults_are_the_articles() -> None:
    net = SpikingNet()
    assert (net.n_steps, net.begin_eval) == (128, 0)
    assert [(layer.n_inputs, layer.n_neurons) for layer in net.layers] == [(784, 100), (100, 10)]
    assert {(layer.decay, layer.threshold, layer.penalty, layer.reset) for layer in net.layers} == {
        (0.9, 1.0, 1.5, "scale")
    }


def test_an_image_needs_three_steps_to_the_answer(device: torch.device) -> None:
    """One step's delay in each layer: shown at step 0, handed on at 1, in the states handed out at 2."""
    images = torch.stack([torch.full((1, 28, 28), value) for value in (-0.5, 0.0, 0.5)]).to(device)
    for n_steps, differ in ((1, False), (2, False), (3, True)):
        net = SpikingNet(n_steps, threshold=0.1, generator=seeded(0)).to(device)
        answers = net(images, generator=seeded(1))
        assert (not torch.allclose(answers[0], answers[2])) == differ
    one_step = SpikingNet(1).to(device)(images)
    torch.testing.assert_close(one_step, torch.full_like(one_step, -math.log(10)))


def test_one_step_can_be_trained_on(device: torch.device) -> None:
    net = SpikingNet(1).to(device)
    net(digits(2, device).float()).sum().backward()
    for weights in net.parameters():
        assert weights.grad is not None and not weights.grad.any()


def both_nets() -> list[Any]:
    return [
        pytest.param(lambda: SpikingNet(6, threshold=0.3), id="spiking"),
        pytest.param(MLP, id="mlp"),
        pytest.param(lambda: MLP(flickering=True, dropout=0.5), id="mlp, flicker, dropout"),
    ]


@pytest.mark.parametrize("make", both_nets())
def test_answers_are_log_probabilities(make: Any, device: torch.device) -> None:
    net = make().to(device)
    images = digits(7, device).float()
    answers = net(images)
    assert answers.shape == (7, 10)
    assert (answers <= 0).all()
    torch.testing.assert_close(answers.exp().sum(dim=1), torch.ones(7, device=device))
    # Anything that flattens to 784 will do, and a generator's seed decides all.
    flat = net(images.flatten(1), generator=seeded(4))
    torch.testing.assert_close(flat, net(images, generator=seeded(4)))


@pytest.mark.parametrize("make", both_nets())
def test_every_weight_has_a_gradient(make: Any, device: torch.device) -> None:
    net = make().to(device)
    torch.nn.functional.nll_loss(net(digits(7, device).float()), torch.arange(7, device=device)).backward()
    for name, weights in net.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


@pytest.mark.parametrize("kind", [SpikingNet, MLP])
def test_the_generator_decides_the_initial_weights(kind: Any) -> None:
    first, again, other = (
        dict(kind(sizes=(30, 20, 5), generator=seeded(seed)).named_parameters()) for seed in (1, 1, 2)
    )
    for name in first:
        assert torch.equal(first[name], again[name])
        assert name.endswith("_extra_state") or not torch.equal(first[name], other[name])  # settings are not drawn
    before = torch.random.get_rng_state()
    kind(sizes=(30, 20, 5), generator=seeded(1))
    named = dict(kind(sizes=(30, 20, 5), generator=seeded(1)).named_parameters())
    torch.random.set_rng_state(before)
    kind(sizes=(30, 20, 5))
    assert all(torch.equal(first[name], named[name]) for name in first), "the global draws must not matter"


@pytest.mark.parametrize("kind", [SpikingNet, MLP])
def test_initial_weights_are_uniform_within_their_bounds(kind: Any) -> None:
    """Weights: Xavier's √(6 / (in + out)) for spiking layers, nn.Linear's 1/√in for the MLP; biases 1/√in."""
    net = kind(sizes=(400, 300, 200), generator=seeded(0))
    for layer, n_in, n_out in zip(net.layers, (400, 300), (300, 200)):
        linear = layer.linear if kind is SpikingNet else layer
        bound = math.sqrt(6 / (n_in + n_out)) if kind is SpikingNet else 1 / math.sqrt(n_in)
        for values, limit in ((linear.weight, bound), (linear.bias, 1 / math.sqrt(n_in))):
            n = values.numel()
            assert values.abs().max() <= limit
            assert values.abs().max() > limit * (1 - 20 / n)
            assert abs(values.mean().item()) < 5 * limit / math.sqrt(3 * n)
            variance_error = limit**2 * math.sqrt((1 / 5 - 1 / 9) / n)
            assert abs(values.square().mean().item() - limit**2 / 3) < 5 * variance_error


# --- MLP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(784, 100, 10), (784, 30, 20, 5), (784, 10)])
def test_mlp_equals_nn_sequential(sizes: tuple[int, ...], device: torch.device) -> None:
    mlp = MLP(sizes, generator=seeded(0)).double().to(device)
    parts: list[nn.Module] = [nn.Flatten()]
    for layer in mlp.layers:
        linear = nn.Linear(layer.in_features, layer.out_features).double().to(device)
        linear.load_state_dict(layer.state_dict())
        parts += [linear, nn.ReLU()]
    parts[-1] = nn.LogSoftmax(dim=1)
    sequential = nn.Sequential(*parts)
    images = digits(6, device)
    for training in (True, False):
        mlp.train(training)
        torch.testing.assert_close(mlp(images), sequential(images))
    mlp(images)[:, 1].sum().backward()
    sequential(images)[:, 1].sum().backward()
    for ours, theirs in zip(mlp.parameters(), sequential.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)


def input_of(layer: nn.Module, run: Any) -> Tensor:
    """What a layer is given while `run` runs."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    run()
    handle.remove()
    return seen[0].cpu()


@pytest.mark.parametrize("dropout", [0.2, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(dropout: float, device: torch.device) -> None:
    """Each active hidden value becomes 0 with probability p, else value / (1 - p): the mean stays."""
    mlp = MLP((16, 100, 10), dropout=dropout, generator=seeded(0)).double().to(device)
    image = digits(1, device, side=4)
    kept_whole = torch.relu(mlp.layers[0](image.flatten(1))).detach().cpu()
    images = image.expand(2000, -1, -1, -1)

    seen = input_of(mlp.layers[1], lambda: mlp(images, generator=seeded(5)))
    active = (kept_whole > 0)[0]
    assert active.sum() > 20
    factors = (seen / kept_whole)[:, active]
    assert set(factors.unique().mul(1e9).round().div(1e9).tolist()) == {0.0, round(1 / (1 - dropout), 9)}
    n = factors.numel()
    assert abs((factors == 0).double().mean().item() - dropout) < 5 * math.sqrt(dropout * (1 - dropout) / n)
    assert abs(factors.mean().item() - 1) < 5 * math.sqrt(dropout / (1 - dropout) / n)
    # Neurons and images are dropped one by one, not in blocks.
    zero = (factors == 0).double() - dropout
    for here, there in ((zero[1:], zero[:-1]), (zero[:, 1:], zero[:, :-1])):
        assert abs((here * there).mean().item()) < 5 * dropout * (1 - dropout) / math.sqrt(here.numel())

    mlp.eval()
    whole = input_of(mlp.layers[1], lambda: mlp(images, generator=seeded(5)))
    torch.testing.assert_close(whole, kept_whole.expand(2000, -1))


@pytest.mark.parametrize("training", [True, False])
def test_flickering_input_is_masked_afresh_in_training_and_in_testing(training: bool, device: torch.device) -> None:
    mlp = MLP((16, 8, 3), flickering=True, generator=seeded(0)).double().to(device).train(training)
    image = digits(1, device, side=4)
    images = image.expand(5000, -1, -1, -1)
    generator = seeded(6)
    seen = input_of(mlp.layers[0], lambda: mlp(images, generator=generator))
    share = seen / image.flatten().cpu()
    assert share.min() >= 0 and share.max() < 1
    n = len(images)
    assert ((share.mean(dim=0) - 1 / 2).abs() < 5 / math.sqrt(12 * n)).all()
    assert ((share.var(dim=0) - 1 / 12).abs() < 5 * math.sqrt((1 / 80 - 1 / 144) / n)).all()
    again = input_of(mlp.layers[0], lambda: mlp(images, generator=generator))
    assert not torch.equal(seen, again)


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: SpikingNet(0), ValueError, ["n_steps", "1 or more", "0"]),
        (lambda: SpikingNet(8.0), TypeError, ["n_steps", "whole", "float", "8.0"]),  # type: ignore[arg-type]
        (lambda: SpikingNet(True), TypeError, ["n_steps", "bool", "True"]),
        (lambda: SpikingNet(8, 8), ValueError, ["begin_eval", "between 0", "7", "8"]),
        (lambda: SpikingNet(8, -1), ValueError, ["begin_eval", "between 0", "-1"]),
        (lambda: SpikingNet(8, 1.5), TypeError, ["begin_eval", "float", "1.5"]),  # type: ignore[arg-type]
        (lambda: SpikingNet(sizes=(784,)), ValueError, ["sizes", "two or more", "(784,)"]),
        (lambda: SpikingNet(sizes=(784, 0, 10)), ValueError, ["sizes", "at least 1", "(784, 0, 10)"]),
        (lambda: SpikingNet(decay=2.0), ValueError, ["decay", "2.0"]),
        (lambda: SpikingNet(reset="none"), ValueError, ["reset", "'none'", "'scale'"]),
        (lambda: MLP(sizes=(784, 10.0)), ValueError, ["sizes", "whole", "10.0"]),  # type: ignore[arg-type]
        (lambda: MLP(dropout=1.0), ValueError, ["dropout", "between 0 and 1", "1.0"]),
        (lambda: MLP(dropout=-0.1), ValueError, ["dropout", "-0.1"]),
        (lambda: MLP(dropout=math.nan), ValueError, ["dropout", "nan"]),
        (lambda: SpikingNet(4)(torch.zeros(2, 1, 14, 14)), ValueError, ["784", "196"]),
        (lambda: SpikingNet(4)(torch.zeros(0, 1, 28, 28)), ValueError, ["at least 1", "[4, 0, 784]"]),
        (lambda: SpikingNet(4)(torch.zeros(2, 784).double()), TypeError, ["torch.float32", "torch.float64"]),
        (lambda: SpikingNet(4)(torch.zeros(2, 784).byte()), TypeError, ["floating", "torch.uint8"]),
        (lambda: SpikingNet(4)([[0.0] * 784]), TypeError, ["images", "torch.Tensor", "list"]),
        (lambda: SpikingNet(4)(torch.zeros(784)), ValueError, ["images", "batch first", "[784]"]),
        (lambda: MLP()(torch.zeros(784)), ValueError, ["images", "batch first", "[784]"]),
    ],
)
def test_refusals(make: Any, error: type[Exception], told: list[str]) -> None:
    with pytest.raises(error) as caught:
        make()
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize("changed", [{"begin_eval": 8}, {"begin_eval": -1}, {"n_steps": 0}, {"n_steps": 3}])
@pytest.mark.parametrize("watched", [False, True])
def test_steps_that_no_longer_fit_are_refused(changed: dict[str, int], watched: bool) -> None:
    """On the fast way and on the plain one, which is taken where somebody looks in."""
    net = SpikingNet(8, 5, sizes=(6, 4, 3))
    if watched:
        net.layers[0].register_forward_hook(lambda *_: None)
    vars(net).update(changed)
    with pytest.raises(ValueError, match=next(iter(changed)) if "begin_eval" in changed else "n_steps must|begin_eval"):
        net(torch.rand(2, 6))


def test_fewer_frames_than_the_first_step_that_counts_are_refused() -> None:
    net = SpikingNet(8, 5, sizes=(6, 4, 3))
    records = net.run(torch.rand(5, 2, 6))
    with pytest.raises(ValueError, match=r"begin_eval, of 5 steps, must lie between 0 and 4, not 5"):
        net.read_out(records)


@pytest.mark.parametrize("n_steps", [2, 5])
def test_a_layer_that_does_not_hand_out_states_and_outputs_is_refused(n_steps: int) -> None:
    """With two steps, a tensor of two frames could be taken for a pair."""
    net = SpikingNet(n_steps, sizes=(6, 4, 3))
    net.layers[1] = nn.Linear(4, 3)
    with pytest.raises(TypeError, match=r"must hand out \(states, outputs\).* Linear gives a Tensor"):
        net(torch.rand(2, 6))


@pytest.mark.parametrize("kind", [SpikingNet, MLP])
def test_a_seed_in_place_of_a_generator_is_refused_in_words(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator or None, not int \(3\)"):
        kind(sizes=(6, 4, 3), generator=3)
    net = SpikingNet(4, sizes=(6, 4, 3)) if kind is SpikingNet else MLP((6, 4, 3), flickering=True)
    with pytest.raises(TypeError, match=r"torch.Generator\(\).manual_seed\(seed\)"):
        net(torch.rand(2, 6), 3)


@pytest.mark.parametrize("name", ["mixed_precision", "shared_flicker"])
def test_switches_are_true_or_false(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, not str"):
        SpikingNet(4, **{name: "no"})


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", [SpikingNet, OnlineNet])
def test_weights_pruned_for_good_answer_and_learn_as_any_others(kind: Any, place: int) -> None:
    """To prune for good registers the weight anew, after the bias."""
    images, labels = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2])
    found = []
    for pruned in (True, False):
        net = kind(9, sizes=(6, 4, 3), threshold=0.5, generator=torch.Generator().manual_seed(0))
        linear = net.layers[place].linear
        if pruned:
            prune.l1_unstructured(linear, "weight", amount=0.4)
            prune.remove(linear, "weight")
            assert [name for name, _ in linear.named_parameters()] == ["bias", "weight"]
        else:
            with torch.no_grad():
                smallest = linear.weight.abs().flatten().argsort()[: round(0.4 * linear.weight.numel())]
                linear.weight.view(-1)[smallest] = 0
        log_probs = net(images, torch.Generator().manual_seed(2))
        torch.nn.functional.nll_loss(log_probs, labels).backward()
        found.append([log_probs] + [parameter.grad for _, parameter in sorted(net.named_parameters())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def test_pruned_weights_of_an_mlp_are_found() -> None:
    net, images = MLP((6, 4, 3)), torch.rand(2, 6)
    prune.random_unstructured(net.layers[0], "weight", amount=0.5)
    hidden = torch.relu(images @ (net.layers[0].weight_orig * net.layers[0].weight_mask).T + net.layers[0].bias)
    torch.testing.assert_close(net(images), net.layers[1](hidden).log_softmax(dim=1))
    with pytest.raises(ValueError, match="images must have 6 pixels each"):
        net(torch.rand(2, 5))
