"""Code that runs on the CPU, a GPU and no device at all: no tensor may be made in the wrong place.

Without a GPU, forward passes run on pretended CUDA tensors, which carry a device but no numbers: to
mix devices is an error there as on a real GPU. `--device cuda` runs all on a real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from snn_helpers import MLP, SpikingLayer, SpikingNet, evaluate, fit, flicker, neuron_step
from snn_helpers.neurons import RESETS
from snn_helpers.training import as_tensors

MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f"spiking, {reset}": lambda reset=reset: SpikingNet(4, reset=reset) for reset in RESETS},
    "mlp": MLP,
    "mlp, flickering input": lambda: MLP(flickering=True),
    "mlp, dropout": lambda: MLP(dropout=0.5),
}
each_model = pytest.mark.parametrize("model", MODELS)


@each_model
def test_meta_forward_and_backward(model: str) -> None:
    """On "meta" a tensor made on any other device makes an operation fail."""
    with torch.device("meta"):
        net = MODELS[model]()
        images = torch.zeros(3, 1, 28, 28, requires_grad=True)
        labels = torch.zeros(3, dtype=torch.int64)
    answers = net(images)
    assert answers.shape == (3, 10)
    assert answers.is_meta
    F.nll_loss(answers, labels).backward()
    for tensor in (images, *net.parameters()):
        assert tensor.grad is not None and tensor.grad.is_meta and tensor.grad.shape == tensor.shape


@each_model
@pytest.mark.parametrize("own_generator", [False, True])
def test_pretended_cuda_forward(model: str, own_generator: bool) -> None:
    generator = torch.Generator().manual_seed(0) if own_generator else None
    with FakeTensorMode():
        with torch.device("cuda"):
            net = MODELS[model]()
            images = torch.zeros(3, 1, 28, 28)
        # Outside of the block above, which would send even a tensor made carelessly to the GPU.
        answers = net(images, generator=generator)
        assert answers.shape == (3, 10)
        assert answers.device.type == "cuda"


def test_pretended_cuda_parts() -> None:
    with FakeTensorMode():
        with torch.device("cuda"):
            net = SpikingNet(4, begin_eval=2)
            images = torch.zeros(3, 1, 28, 28)
        for record in net.record(images):
            assert record.states.device.type == record.outputs.device.type == "cuda"
        assert flicker(images, 5, torch.Generator()).device.type == "cuda"
        for reset in RESETS:
            for result in neuron_step(images, images, reset=reset):
                assert result.device.type == "cuda"
        with pytest.raises(ValueError, match="current is on cuda:0, state on cpu"):
            neuron_step(images, torch.zeros(3, 1, 28, 28))
        cpu_data = torch.utils.data.TensorDataset(torch.zeros(6, 1, 28, 28), torch.zeros(6))
        assert {part.device.type for part in as_tensors(cpu_data, torch.device("cuda"))} == {"cuda"}


class Careless(SpikingLayer):
    """The classic fault: a first state without a device is on the CPU."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        currents = self.linear(inputs)
        state = torch.zeros(currents.shape[1:])
        states = []
        for current in currents:
            states.append(state)
            state = current + self.decay * state
        return torch.stack(states), torch.stack(states)


def test_the_pretence_catches_a_mix() -> None:
    with FakeTensorMode():
        with torch.device("cuda"):
            net, images = SpikingNet(4), torch.zeros(3, 1, 28, 28)
            net.layers[0] = Careless(784, 100)
        with pytest.raises(RuntimeError, match=r"same device|different devices"):
            net(images)
        with torch.device("cuda"):
            whole = SpikingNet(4)
        with pytest.raises(RuntimeError, match=r"same device|different devices"):
            whole(torch.zeros(3, 1, 28, 28))


# --- The device that --device names ---------------------------------------------------------------


def answers_and_gradients(net: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    answers = net(images, generator=torch.Generator().manual_seed(3))  # drawn on the CPU, the same for all
    gradients = torch.autograd.grad(F.nll_loss(answers, labels), list(net.parameters()))
    return [answers, *gradients]


@each_model
def test_device_agrees_with_the_cpu(model: str, device: torch.device) -> None:
    """Forward and backward with the same draws; in float64, so that rounding decides no spike."""
    net = MODELS[model]().double()
    images = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double() - 0.5
    labels = torch.arange(20) % 10
    exact = answers_and_gradients(net, images, labels)
    there = answers_and_gradients(net.to(device), images.to(device), labels.to(device))
    for found, wanted in zip(there, exact):
        assert found.device.type == device.type
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("reset", RESETS)
def test_device_agrees_in_float32_while_no_neuron_fires(reset: str, device: torch.device) -> None:
    net = SpikingNet(10, threshold=100.0, reset=reset)
    images = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1)) - 0.5
    exact = net.double()(images.double(), generator=torch.Generator().manual_seed(3))
    there = net.float().to(device)(images.to(device), generator=torch.Generator(device).manual_seed(3))
    assert there.dtype == torch.float32
    # Nothing reaches the second layer, so the flicker, drawn otherwise there, does not matter.
    torch.testing.assert_close(there.cpu().double(), exact, rtol=1e-4, atol=1e-4)


@each_model
def test_fit_on_the_device_ends_near_the_cpu(model: str, device: torch.device) -> None:
    """Where the draws are the same; the networks that draw noise learn from other noise there."""
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(1)) - 0.5
    data = torch.utils.data.TensorDataset(images, torch.arange(60) % 10)
    losses = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        net: Any = MODELS[model]()
        history = fit(net, data, device=place, batch_size=20, learning_rates=(0.05, 0.02), progress=False)
        assert {weights.device.type for weights in net.parameters()} == {place.type}
        assert len(history.loss) == 6
        assert 0 <= evaluate(net, data).accuracy <= 1
        losses.append(history.loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if model == "mlp" else 0.3)


def test_asking_for_a_gpu_where_there_is_none_fails() -> None:
    """A skip would look like a pass."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "--device", "cuda", __file__],
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--device cuda was asked for, but torch sees no CUDA GPU" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "collected"),
    [
        ([], ["tests/unit/test_one.py::test_it", "tests/unit/test_two.py::test_it"]),
        (["tests/tools/test_style.py"], ["tests/tools/test_style.py::test_it"]),
    ],
    ids=["no path", "a path"],
)
def test_on_a_gpu_only_the_unit_tests_are_collected_unless_others_are_named(
    arguments: list[str], collected: list[str], tmp_path: Path
) -> None:
    """With a torch that only says that there is a GPU, and a suite of three tests that has this one's conftest.py."""
    root = Path(__file__).resolve().parents[2]
    for name in ("book", "snn_helpers", "_config.yml", "_toc.yml", "pyproject.toml"):
        (tmp_path / name).symlink_to(root / name)
    for name in ("unit/test_one.py", "unit/test_two.py", "tools/test_style.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text("def test_it(): pass\n")
    for name in ("conftest.py", "notebooks.py", "scripts.py", "notebook_parameters.yaml", "slow.txt"):
        shutil.copy(root / "tests" / name, tmp_path / "tests")
    program = (
        "import sys, pytest, torch; torch.cuda.is_available = lambda: True;"
        "sys.exit(pytest.main(['-p', 'no:cacheprovider', '--collect-only', '-q', '--device', 'cuda', *sys.argv[1:]]))"
    )
    run = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(line for line in run.stdout.splitlines() if "::" in line) == collected
