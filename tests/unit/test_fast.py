"""The fast way, held against plain loops in float64 that are written here, and against the laws of uniform draws."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from snn_helpers import Neuron, SpikingLayer, SpikingNet, fast, flicker
from snn_helpers.fast import draws, readout
from snn_helpers.fast.draws import uniform_masks
from snn_helpers.fast.scan import Scan
from snn_helpers.neurons import RESETS

each_reset = pytest.mark.parametrize("reset", RESETS)
each_seed = pytest.mark.parametrize("seed", range(6))
both_kinds = pytest.mark.parametrize("shared", [False, True], ids=["fresh masks", "shared masks"])


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def noise(seed: int, *shape: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(device)


def loop(currents: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """A layer's states and outputs, delayed by one step, as autograd differentiates them."""
    decay, threshold, penalty, reset = neuron
    state = output = 0 * currents[0]
    states, outputs = [], []
    for current in currents:
        states.append(state)
        outputs.append(output)
        charge = current + decay * state
        fired = charge > threshold
        output = torch.where(fired, charge - threshold, 0.0)
        left = {
            "scale": charge * (1 - penalty / threshold),
            "discharge": charge - (penalty + output),
            "subtract": charge - threshold,
            "zero": charge * 0,
        }[reset]
        state = torch.where(fired, left, charge)
    return torch.stack(states), torch.stack(outputs)


def random_neuron(seed: int, reset: str) -> Neuron:
    drawn = random.Random(seed)
    decay = {0: 0.0, 1: 1.0}.get(seed, drawn.uniform(0.2, 0.98))
    return Neuron(decay, drawn.uniform(0.3, 1.5), drawn.uniform(0.0, 2.0), reset)


def random_shape(seed: int) -> tuple[int, int, int]:
    """Steps, batch and neurons: single ones first, then anything."""
    drawn = random.Random(100 + seed)
    ones = {0: (1, 3, 4), 1: (9, 1, 1), 2: (2, 5, 1)}
    return ones.get(seed, (drawn.randint(3, 60), drawn.randint(1, 40), drawn.randint(1, 30)))


# --- One layer ------------------------------------------------------------------------------------


@each_reset
@each_seed
@pytest.mark.parametrize("asked", ["states", "outputs", "both"])
def test_scan_equals_the_loop(reset: str, seed: int, asked: str, device: torch.device) -> None:
    neuron, shape = random_neuron(seed, reset), random_shape(seed)
    currents = noise(seed, *shape, device=device).requires_grad_()
    results = []
    for run in (lambda: Scan.apply(currents, neuron), lambda: loop(currents, neuron)):
        states, outputs = run()
        total = 0 * currents.sum()
        if asked != "outputs":
            total = total + (noise(50, *shape, device=device) * states).sum()
        if asked != "states":
            total = total + (noise(51, *shape, device=device) * outputs).sum()
        results.append((states, outputs, torch.autograd.grad(total, currents)[0]))
    for found, wanted in zip(*results):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def away_from_threshold(currents: Tensor, neuron: Neuron) -> None:
    charges = currents + neuron.decay * loop(currents, neuron)[0]
    gap = (charges[:-1] - neuron.threshold).abs().min().item()
    assert gap > 1e-4, "a finite difference would step over the threshold: choose other numbers"


@each_reset
@pytest.mark.parametrize("seed", range(2, 5))
def test_scan_gradcheck(reset: str, seed: int, device: torch.device) -> None:
    neuron = random_neuron(seed, reset)
    currents = noise(seed, 7, 3, 2, device=device)
    away_from_threshold(currents, neuron)
    assert torch.autograd.gradcheck(lambda c: Scan.apply(c, neuron), (currents.requires_grad_(),))


@each_reset
def test_scan_of_non_contiguous_currents(reset: str, device: torch.device) -> None:
    neuron = random_neuron(3, reset)
    currents = noise(0, 4, 5, 12, device=device).permute(2, 1, 0)
    for found, wanted in zip(Scan.apply(currents, neuron), Scan.apply(currents.contiguous(), neuron)):
        assert torch.equal(found, wanted)


def test_second_derivatives_are_refused_not_wrong(device: torch.device) -> None:
    layer = SpikingLayer(3, 2, threshold=0.3).double().to(device)
    inputs = noise(0, 5, 2, 3, device=device).requires_grad_()
    net = SpikingNet(5, sizes=(3, 2)).double().to(device)
    for result, leaf in ((layer(inputs)[0], inputs), (net(inputs[0].detach()), net.layers[0].linear.weight)):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(result.square().sum(), leaf, create_graph=True)


# --- The whole network ------------------------------------------------------------------------------


def random_net(seed: int, reset: str, shared: bool, device: torch.device) -> tuple[SpikingNet, Tensor, Tensor]:
    drawn = random.Random(200 + seed)
    sizes = [(20, 7, 5), (30, 4), (13, 6, 5, 3), (10, 1, 2), (15, 8, 4), (9, 5, 4, 3, 2)][seed]
    n_steps, n_batch = [(1, 3), (2, 1), (25, 1), (40, 3), (12, 30), (7, 2)][seed]
    neuron = random_neuron(seed, reset)
    net = SpikingNet(n_steps, drawn.randrange(n_steps), sizes, *neuron, seeded(seed), shared_flicker=shared)
    images = noise(seed, n_batch, sizes[0], device=device)
    return net.double().to(device), images, torch.arange(n_batch, device=device) % sizes[-1]


def slow(net: SpikingNet, images: Tensor, generator: torch.Generator) -> Tensor:
    if net.shared_flicker:
        seen = flicker(torch.ones_like(images[0]), net.n_steps, generator)[:, None] * images
    else:
        seen = flicker(images, net.n_steps, generator)
    for layer in net.layers:
        states, seen = loop(F.linear(seen, layer.linear.weight, layer.linear.bias), layer.neuron)
    return F.log_softmax(states[net.begin_eval :].mean(dim=0), dim=-1)


@both_kinds
@each_reset
@each_seed
@pytest.mark.parametrize("cached", [1, 500, 2**20])
def test_net_equals_the_loop(
    reset: str, seed: int, shared: bool, cached: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the steps are worked on one by one, in uneven lots, or all at once."""
    monkeypatch.setattr(draws, "CACHED_VALUES", cached)
    net, images, labels = random_net(seed, reset, shared, device)
    results, next_draws = [], []
    for run in (net, slow):
        generator = seeded(seed, device)
        answers = run(images, generator) if run is net else slow(net, images, generator)
        next_draws.append(torch.rand(1, generator=generator, device=device))
        results.append([answers, *torch.autograd.grad(F.nll_loss(answers, labels), list(net.parameters()))])
    for found, wanted in zip(*results):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    assert torch.equal(*next_draws), "a generator must be left as the flicker leaves it"
    with torch.no_grad():
        torch.testing.assert_close(net(images, seeded(seed, device)), results[0][0])
    recorded = net.record(images, seeded(seed, device))[-1].states[net.begin_eval :].mean(dim=0)
    torch.testing.assert_close(F.log_softmax(recorded, dim=-1), results[0][0])


@both_kinds
@each_reset
def test_net_gradcheck(reset: str, shared: bool, device: torch.device) -> None:
    net = SpikingNet(9, 2, (6, 4, 3), 0.8, 0.2, 0.5, reset, seeded(1), shared_flicker=shared).double().to(device)
    images = noise(2, 3, 6, device=device)
    names, weights = zip(*net.named_parameters())

    def run(*values: Tensor) -> Any:
        return torch.func.functional_call(net, dict(zip(names, values)), (images, seeded(4, device)))

    for layer, record in zip(net.layers, net.record(images, seeded(4, device))):
        assert 0 < (record.outputs > 0).sum() < record.outputs.numel()
        # The charges, from the states and outputs: a finite difference must not step over the threshold.
        fired = record.outputs[1:][record.outputs[1:] > 0]
        assert fired.min() > 1e-4, layer
    assert torch.autograd.gradcheck(run, weights)


def test_a_second_backward_pass_is_as_good_as_the_first(device: torch.device) -> None:
    """Memory is used again only once autograd has let go of it."""
    net = SpikingNet(20, threshold=0.3, generator=seeded(0)).double().to(device)
    images, others = noise(0, 6, 784, device=device), noise(1, 6, 784, device=device)
    weights = list(net.parameters())
    wanted = torch.autograd.grad(net(images, seeded(1, device)).square().sum(), weights)
    kept = net(images, seeded(1, device)).square().sum()
    first = torch.autograd.grad(kept, weights, retain_graph=True)
    for seed in range(3):  # with graphs dropped unused, used, and alive at the same time
        net(others, seeded(seed, device))
        torch.autograd.grad(net(others, seeded(seed, device)).sum(), weights)
    second = torch.autograd.grad(kept, weights)
    for a, b, c in zip(wanted, first, second):
        assert torch.equal(a, b) and torch.equal(a, c)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(kept, weights)


def test_weights_changed_too_early_are_noticed(device: torch.device) -> None:
    net = SpikingNet(5, generator=seeded(0)).to(device)
    answers = net(torch.rand(3, 784, device=device))
    with torch.no_grad():
        net.layers[1].linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        answers.sum().backward()


def test_each_weight_s_hook_is_called_once_with_its_gradient(device: torch.device) -> None:
    net = SpikingNet(6, sizes=(9, 5, 3), threshold=0.2, generator=seeded(0)).to(device)
    seen: dict[str, list[Tensor]] = {name: [] for name, _ in net.named_parameters()}
    for name, weight in net.named_parameters():
        weight.register_hook(seen[name].append)
    F.nll_loss(net(torch.rand(4, 9, generator=seeded(1)).to(device)), torch.arange(4, device=device) % 3).backward()
    for name, weight in net.named_parameters():
        (gradient,) = seen[name]
        assert torch.equal(gradient, weight.grad)


def test_images_may_be_non_contiguous(device: torch.device) -> None:
    net = SpikingNet(6, threshold=0.3, sizes=(20, 6, 4), generator=seeded(0)).double().to(device)
    images = noise(0, 20, 7, device=device).T
    assert torch.equal(net(images, seeded(1, device)), net(images.contiguous(), seeded(1, device)))


def test_the_gradient_by_the_images(device: torch.device) -> None:
    net, images, labels = random_net(4, "scale", False, device)
    grads = []
    for run in (lambda x: net(x, seeded(1, device)), lambda x: slow(net, x, seeded(1, device))):
        leaf = images.clone().requires_grad_()
        F.nll_loss(run(leaf), labels).backward()
        grads.append(leaf.grad)
    assert grads[1].abs().sum() > 0
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float64(dtype: torch.dtype, device: torch.device) -> None:
    # Silent, so that rounding decides no spike.
    net = SpikingNet(8, threshold=50.0, sizes=(20, 6, 4), generator=seeded(0)).to(device)
    images = noise(0, 5, 20).clamp(-0.5, 0.5).to(device)
    exact = net.double()(images, seeded(1))
    rounded = net.to(dtype)(images.to(dtype), seeded(1))
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded.double(), exact, rtol=0.03, atol=0.03)
    (-rounded[:, 0].sum()).backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in net.parameters())


@both_kinds
def test_an_empty_batch_is_refused(shared: bool) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SpikingNet(4, shared_flicker=shared)(torch.zeros(0, 784))


def test_hooks_and_other_layers_are_honoured(device: torch.device) -> None:
    """Who hooks in to watch a layer sees it run; a layer of one's own runs as written."""
    net = SpikingNet(6, threshold=0.3, generator=seeded(0)).double().to(device)
    images = noise(0, 3, 784, device=device)
    plain = net(images, seeded(1, device))
    seen: list[torch.Size] = []
    handle = net.layers[0].register_forward_hook(lambda _, __, result: seen.append(result[1].shape))
    torch.testing.assert_close(net(images, seeded(1, device)), plain)
    handle.remove()
    assert seen == [(6, 3, 100)]

    class Silent(SpikingLayer):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            states, outputs = super().forward(inputs)
            return states, 0 * outputs

    net.layers[0] = Silent(784, 100).double().to(device)
    answers = net(images, seeded(1, device))
    torch.testing.assert_close(answers, answers[:1].expand_as(answers))


# --- The options --------------------------------------------------------------------------------------


def gradients(net: SpikingNet, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    answers = net(images, seeded(3))
    grads = torch.autograd.grad(F.nll_loss(answers, labels), list(net.parameters()))
    return answers, torch.cat([grad.flatten() for grad in grads])


@both_kinds
def test_mixed_precision_is_near_float32(shared: bool, device: torch.device) -> None:
    """bfloat16 has 8 binary digits: errors of one part in 256 and less, independent over 784 inputs."""
    images = (torch.rand(200, 784, generator=seeded(0)) - 0.5).to(device)
    labels = torch.arange(200, device=device) % 10
    nets = [
        SpikingNet(32, generator=seeded(1), mixed_precision=mixed, shared_flicker=shared).to(device)
        for mixed in (False, True)
    ]
    (exact, exact_grad), (rounded, rounded_grad) = (gradients(net, images, labels) for net in nets)
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded), "it must do something"
    assert (exact - rounded).abs().max() < 0.1
    assert F.cosine_similarity(exact_grad, rounded_grad, dim=0) > 0.995


def test_shared_flicker_is_shared_and_fresh_at_each_step(device: torch.device) -> None:
    net = SpikingNet(12, threshold=0.2, sizes=(20, 30, 4), shared_flicker=True, generator=seeded(0)).double().to(device)
    images = noise(0, 1, 20, device=device).expand(5, -1)
    hidden = net.record(images, seeded(1))[0].states
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden)), "the same image must look the same within a batch"
    charged = hidden[1:] - hidden[:-1]
    assert charged.std(dim=0).min() > 0, "and flicker over time"
    alone = SpikingNet(12, threshold=0.2, sizes=(20, 30, 4), generator=seeded(0)).double().to(device)
    apart = alone.record(images, seeded(1))[0].states
    assert not torch.allclose(apart[:, 0], apart[:, 1])
    assert "shared_flicker" in repr(net) and "shared_flicker" not in repr(alone)


# --- The random numbers ---------------------------------------------------------------------------------


def pieces(n_draws: int, seed: int) -> Any:
    """`[n_draws, 4]`: the four whole numbers from 0 to 65,535 of each draw."""
    masks = uniform_masks(1, (4 * n_draws,), torch.float64, torch.device("cpu"), seeded(seed))
    whole = masks * 2**16
    assert torch.equal(whole, whole.round()), "masks are multiples of 1 / 65,536"
    return whole.long().reshape(n_draws, 4).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_equally_often(seed: int) -> None:
    """Chi-square over all 65,536 levels, and for each of the four places over high and low bytes."""
    drawn = pieces(500_000, seed)
    assert (drawn.min(), drawn.max()) == (0, 2**16 - 1)
    counts = torch.bincount(torch.from_numpy(drawn).flatten(), minlength=2**16).numpy()
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4
    for place in range(4):
        for byte in (drawn[:, place] >> 8, drawn[:, place] & 255):
            assert stats.chisquare(torch.bincount(torch.from_numpy(byte), minlength=256).numpy()).pvalue > 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_bits_are_fair_and_independent(seed: int) -> None:
    """All 64 bits of a draw: each a half, and no two alike more often than chance, at five standard errors."""
    drawn = torch.from_numpy(pieces(100_000, seed))
    bits = ((drawn[:, :, None] >> torch.arange(16)) & 1).reshape(len(drawn), 64).double() * 2 - 1
    bound = 5 / len(drawn) ** 0.5
    assert bits.mean(dim=0).abs().max() < bound
    together = bits.T @ bits / len(drawn) - torch.eye(64)
    assert together.abs().max() < bound
    following = bits[1:].T @ bits[:-1] / (len(drawn) - 1)
    assert following.abs().max() < bound * 1.1


@pytest.mark.parametrize("seed", range(3))
def test_masks_pass_kolmogorovs_test(seed: int, device: torch.device) -> None:
    masks = uniform_masks(20, (5000,), torch.float32, device, seeded(seed, device)).cpu()
    assert stats.kstest(masks.flatten().numpy(), "uniform").pvalue > 1e-4
    n = masks.numel()
    assert abs(masks.double().mean().item() - 1 / 2) < 5 / (12 * n) ** 0.5
    assert abs(masks.double().var().item() - 1 / 12) < 5 * ((1 / 80 - 1 / 144) / n) ** 0.5


@pytest.mark.parametrize(("dtype", "levels"), [(torch.bfloat16, 256), (torch.float16, 2048), (torch.float32, 2**16)])
def test_levels_of_each_dtype(dtype: torch.dtype, levels: int, device: torch.device) -> None:
    masks = uniform_masks(30, (2**15,), dtype, device, seeded(0, device)).double().cpu().flatten()
    assert masks.min() >= 0 and masks.max() < 1
    whole = masks * levels
    assert torch.equal(whole, whole.round())
    if levels < 2**16:
        counts = torch.bincount(whole.long(), minlength=levels).numpy()
        assert len(counts) == levels and stats.chisquare(counts).pvalue > 1e-5


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (40, 784)])
def test_steps_may_be_drawn_one_by_one(shape: tuple[int, ...]) -> None:
    image = torch.ones(shape)
    one_by_one = seeded(7)
    apart = torch.cat([flicker(image, n, one_by_one) for n in (1, 1, 3, 30)])
    assert torch.equal(apart, flicker(image, 35, seeded(7)))


# --- Memory -----------------------------------------------------------------------------------------------

PEAK = """
import sys, torch
import torch.nn.functional as F
from snn_helpers import SpikingNet, neuron_step

torch.manual_seed(0)
torch.set_num_threads(1)
net = SpikingNet(128)
first, second = (layer.linear for layer in net.layers)

def loop(images):
    s1 = o1 = torch.zeros(len(images), 100)
    s2 = total = torch.zeros(len(images), 10)
    for _ in range(128):
        total = total + s2
        _, s2 = neuron_step(second(o1), s2)
        o1, s1 = neuron_step(first(images * torch.rand_like(images)), s1)
    return F.log_softmax(total / 128, dim=1)

run = loop if sys.argv[1] == "loop" else net
def train(n):
    F.nll_loss(run(torch.rand(n, 784)), torch.zeros(n, dtype=torch.int64)).backward()

def highest():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

train(2)
before = highest()
train(300)
train(300)
print(highest() - before)
"""


def test_peak_memory_is_at_most_half_of_the_loops() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux says how much memory a process has held at most")
    peaks = {}
    for which in ("loop", "engine"):
        command = [sys.executable, "-c", PEAK, which]
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        peaks[which] = int(run.stdout)
    assert 0 < peaks["engine"] <= peaks["loop"] / 2, peaks


def train_on(net: SpikingNet, n_images: int) -> None:
    images = torch.rand(n_images, 12, generator=seeded(n_images)) - 0.5
    net(images, seeded(1))[:, 0].sum().backward()


def test_a_network_keeps_no_more_than_a_few_blocks_of_memory() -> None:
    """However many batches of other sizes come, one after another or many at once."""
    net = SpikingNet(6, sizes=(12, 7, 5, 3), generator=seeded(0))
    for n_images in range(1, 12):
        train_on(net, n_images)
        assert 0 < len(readout._spare[net]) <= readout.MOST_SPARE == 4
    answers = [net(torch.rand(n, 12, generator=seeded(n)) - 0.5, seeded(1)) for n in range(1, 12)]
    del answers
    gc.collect()
    assert len(readout._spare[net]) <= readout.MOST_SPARE


def test_memory_is_used_again_by_the_next_batch_of_its_size() -> None:
    net = SpikingNet(6, sizes=(12, 7, 3), generator=seeded(0))
    train_on(net, 9)
    kept = {block.data_ptr() for block in readout._spare[net].values()}
    train_on(net, 9)
    assert {block.data_ptr() for block in readout._spare[net].values()} == kept


def test_memory_goes_with_its_network_or_when_it_is_asked_to() -> None:
    nets = [SpikingNet(6, sizes=(12, 7, 3), generator=seeded(0)) for _ in range(2)]
    for net in nets:
        train_on(net, 9)
    blocks = [weakref.ref(block) for block in readout._spare[nets[0]].values()]
    others = [weakref.ref(block) for block in readout._spare[nets[1]].values()]
    assert blocks and others
    del net
    nets.pop(0)
    gc.collect()
    assert not any(block() is not None for block in blocks) and all(block() is not None for block in others)
    fast.release()
    gc.collect()
    assert not any(block() is not None for block in others)
    train_on(nets[0], 9)  # and the network goes on as before


def test_memory_that_is_still_needed_is_not_lent_twice() -> None:
    """Two answers of one size, both waiting for their backward pass, release in between: each has its own gradient."""
    images = [torch.rand(5, 12, generator=seeded(n)) - 0.5 for n in range(2)]
    net = SpikingNet(6, sizes=(12, 7, 3), generator=seeded(0))
    alone = []
    for given in images:
        net.zero_grad()
        net(given, seeded(1))[:, 0].sum().backward()
        alone.append(net.layers[0].linear.weight.grad.clone())
    together = [net(given, seeded(1)) for given in images]
    fast.release()
    for answer, wanted in zip(together, alone):
        net.zero_grad()
        answer[:, 0].sum().backward()
        torch.testing.assert_close(net.layers[0].linear.weight.grad, wanted)
