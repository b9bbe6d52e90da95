"""The flicker, held against the laws of uniform draws, with tolerances of five standard errors and more."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from snn_helpers import flicker

IMAGE = torch.tensor([[-0.5, -0.2], [0.3, 0.5]], dtype=torch.float64)


def seeded(device: torch.device, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def draws(device: torch.device, n_steps: int, *shape: int, seed: int = 0) -> Tensor:
    """The bare mask: what flickers is 1."""
    return flicker(torch.ones(*shape, dtype=torch.float64, device=device), n_steps, seeded(device, seed)).cpu()


@pytest.mark.parametrize("shape", [(), (5,), (3, 1, 28, 28)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_shape_dtype_and_range(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    image = (torch.rand(shape, device=device) - 0.5).to(dtype)
    seen = flicker(image, 50, seeded(device))
    assert seen.shape == (50, *shape)
    assert seen.dtype == dtype
    assert seen.device == image.device
    assert (seen >= image.clamp(max=0)).all() and (seen <= image.clamp(min=0)).all()


def test_zero_pixels_stay_dark_and_the_image_is_left_alone(device: torch.device) -> None:
    image = torch.zeros(4, device=device)
    assert not flicker(image, 9).any()
    kept = torch.ones(4, device=device)
    flicker(kept, 9)
    assert torch.equal(kept, torch.ones(4, device=device))


def test_one_never_comes_up(device: torch.device) -> None:
    mask = draws(device, 1000, 500)
    assert mask.min() >= 0
    assert mask.max() < 1


@pytest.mark.parametrize("seed", range(3))
def test_mean_and_variance(seed: int, device: torch.device) -> None:
    """Uniform draws times x have the mean x/2, the variance x²/12 and the fourth central moment x⁴/80."""
    n = 40_000
    seen = flicker(IMAGE.to(device), n, seeded(device, seed)).cpu()
    mean_error = IMAGE.abs() / math.sqrt(12 * n)
    assert ((seen.mean(dim=0) - IMAGE / 2).abs() < 5 * mean_error).all()
    variance_error = IMAGE.square() * math.sqrt((1 / 80 - 1 / 144) / n)
    assert ((seen.var(dim=0) - IMAGE.square() / 12).abs() < 5 * variance_error).all()


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_uniform(seed: int, device: torch.device) -> None:
    """Kolmogorov's bound on the distance of the empirical distribution: at 2.5/√n, one in 100,000 fails."""
    n = 100_000
    ordered = draws(device, n // 100, 100, seed=seed).flatten().sort().values
    ranks = torch.arange(1, n + 1, dtype=torch.float64) / n
    distance = max((ranks - ordered).max().item(), (ordered - ranks + 1 / n).max().item())
    assert distance < 2.5 / math.sqrt(n)


def correlation(first: Tensor, second: Tensor) -> float:
    a, b = first.flatten() - first.mean(), second.flatten() - second.mean()
    return ((a * b).mean() / (a.std() * b.std())).item()


@pytest.mark.parametrize("lag", [1, 2, 3, 7])
def test_steps_pixels_and_images_are_independent(lag: int, device: torch.device) -> None:
    """A correlation of n independent pairs has the standard error 1/√n."""
    mask = draws(device, 200, 20, 30)
    for dimension in range(3):
        there = mask.narrow(dimension, lag, mask.shape[dimension] - lag)
        here = mask.narrow(dimension, 0, mask.shape[dimension] - lag)
        assert abs(correlation(here, there)) < 5 / math.sqrt(here.numel())


def test_the_seed_decides(device: torch.device) -> None:
    image = IMAGE.to(device)
    first, again, other = (flicker(image, 8, seeded(device, seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = seeded(device, 3)
    assert torch.equal(flicker(image, 8, generator), first)
    assert not torch.equal(flicker(image, 8, generator), first), "a second call must go on, not start over"


def test_without_a_generator_the_global_seed_decides(device: torch.device) -> None:
    seen = []
    for _ in range(2):
        torch.manual_seed(5)
        seen.append(flicker(IMAGE.to(device), 8))
    assert torch.equal(*seen)


def test_a_cpu_generator_gives_the_same_flicker_everywhere(device: torch.device) -> None:
    cpu = torch.device("cpu")
    there = flicker(IMAGE.to(device), 8, seeded(cpu))
    assert there.device.type == device.type
    torch.testing.assert_close(there.cpu(), flicker(IMAGE, 8, seeded(cpu)))


def test_the_gradient_is_the_mask(device: torch.device) -> None:
    image = IMAGE.to(device).requires_grad_()
    flicker(image, 8, seeded(device)).sum().backward()
    mask = flicker(torch.ones_like(image), 8, seeded(device))
    torch.testing.assert_close(image.grad, mask.sum(dim=0).detach())


def test_non_contiguous_image(device: torch.device) -> None:
    image = torch.rand(6, 5, device=device).T
    assert torch.equal(flicker(image, 4, seeded(device)), flicker(image.contiguous(), 4, seeded(device)))


@pytest.mark.parametrize(
    ("image", "n_steps", "error", "told"),
    [
        (torch.zeros(3, dtype=torch.uint8), 4, TypeError, ["image", "torch.uint8", "floating"]),
        (torch.zeros(3, dtype=torch.bool), 4, TypeError, ["image", "torch.bool", "floating"]),
        ([0.5, 0.2], 4, TypeError, ["image", "list"]),
        (torch.zeros(3), 0, ValueError, ["n_steps", "0", "1 or more"]),
        (torch.zeros(3), -2, ValueError, ["n_steps", "-2", "1 or more"]),
        (torch.zeros(3), 4.0, TypeError, ["n_steps", "float", "4.0", "whole"]),
        (torch.zeros(3), True, TypeError, ["n_steps", "bool", "True"]),
    ],
    ids=["uint8", "bool image", "list", "0 steps", "-2 steps", "4.0 steps", "True steps"],
)
def test_refusals(image: Any, n_steps: Any, error: type[Exception], told: list[str]) -> None:
    with pytest.raises(error) as caught:
        flicker(image, n_steps)
    for part in told:
        assert part in str(caught.value)
