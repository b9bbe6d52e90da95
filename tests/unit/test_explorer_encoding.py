"""The explorer of chapter 02: its script, run as it is shipped, against the chapter's codes; and its class."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import traitlets
from scripts import Run, script
from snn_chapters.codes import encode, latency_code
from snn_chapters.explorers.encoding import CODES, EncodingExplorer

from snn_helpers import load_mnist, neuron_step
from snn_helpers.widgets import uniform

DIGITS = torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255 - 0.5
DIGITS[:, :, ::2] = -0.5  # black paper
DIGITS[:, :, 5] = 0.5


run = script("encoding_model.js")


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_cases(n: int, n_pixels: int = 30) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {
            "code": CODES[k % len(CODES)],
            "bytes": [rng.choice([0, 255, rng.randrange(256)]) for _ in range(n_pixels)],
            "contrast": rng.choice([0.0, 0.5, 1.0, rng.random()]),
            "n": rng.randrange(1, 40),
            "seed": rng.randrange(1000),
            "decay": rng.choice([0.0, 0.99, rng.random()]),
        }
        for k in range(n)
    ]


BODY = """
const pixels = s.pixelsOf(c.bytes, c.contrast);
const frames = s.encodeFrames(c.code, pixels, c.n, c.seed);
const sent = frames.map((f) => f[3]);
return [frames.map((f) => Array.from(f)), Array.from(s.meanOf(frames)), Array.from(s.meanLimit(c.code, pixels, c.n)),
  s.expectedError(c.code, pixels, c.n), s.runningMean(sent), s.leakyStates(sent, c.decay)];
"""


def test_codes_means_and_neurons_are_those_of_python_in_hundreds_of_random_settings(run: Run) -> None:
    cases = random_cases(600)
    worst = 0.0
    for case, found in zip(cases, run(BODY, cases)):
        frames, mean, _, _, so_far, states = map(tensor, found)
        n, x = case["n"], case["contrast"] * (tensor(case["bytes"]) / 255 - 0.5)
        masks = uniform(case["seed"], n * len(x)).view(n, -1)
        expected = {
            "flicker": masks * x,
            "steady": encode("steady x", x, n),
            "rate": (masks < x + 0.5).double(),
            "latency": latency_code(x + 0.5, n),
        }[case["code"]]
        state, left = torch.zeros((), dtype=torch.float64), []
        for current in expected[:, 3]:
            _, state = neuron_step(current, state, case["decay"], threshold=1e6)
            left.append(state)
        steps = torch.arange(1, n + 1)
        for ours, theirs in (
            (frames, expected),
            (mean, expected.mean(dim=0)),
            (so_far, expected[:, 3].cumsum(0) / steps),
            (states, torch.stack(left)),
        ):
            assert ours.shape == theirs.shape
            worst = max(worst, float((ours - theirs).abs().max()))
    assert worst < 1e-9


def test_the_mean_converges_to_its_limit_as_the_law_says(run: Run) -> None:
    """Over many pixels and seeds the root mean square distance is the law's, and four times the steps halve it."""
    rng = random.Random(1)
    values = [rng.choice([0, 255, rng.randrange(256)]) for _ in range(784)]
    cases = [
        {"code": code, "bytes": values, "contrast": contrast, "n": n, "seed": seed, "decay": 0}
        for code in ("flicker", "rate")
        for contrast in (0.3, 1.0)
        for n in (8, 32)
        for seed in range(5)
    ]
    found = run(BODY, cases)
    for _, mean, limit, expected, *_ in found:
        distance = (tensor(mean) - tensor(limit)).square().mean().sqrt().item()
        assert abs(distance / expected - 1) < 0.15  # a standard error is about 3 %
    errors = [each[3] for each in found]
    assert all(abs(errors[k] / errors[k + 5] - 2) < 1e-12 for k in (0, 10, 20, 30))
    for code in ("steady", "latency"):  # no chance: after all steps the mean is at its limit
        case = {"code": code, "bytes": values, "contrast": 1.0, "n": 16, "seed": 0, "decay": 0}
        [(_, mean, limit, expected, *_)] = run(BODY, [case])
        torch.testing.assert_close(tensor(mean), tensor(limit), rtol=0, atol=1e-12)
        assert expected == 0


def test_variances_are_those_of_the_draws(run: Run) -> None:
    u = uniform(0, 200_000)
    for x in (-0.5, -0.2, 0.0, 0.3, 0.5):
        flicker, rate = run("return s.stepVariance(c[0], c[1])", [["flicker", x], ["rate", x]])
        assert abs((u * x).var().item() - flicker) < 1e-3
        assert abs((u < x + 0.5).double().var().item() - rate) < 5e-3


def test_the_class_sends_what_the_page_sends(run: Run) -> None:
    rng, cases, expected = random.Random(2), [], []
    for k in range(40):
        settings = {
            "code": CODES[k % 4],
            "contrast": rng.random(),
            "n_steps": rng.randrange(1, 6),
            "seed": rng.randrange(1000),
            "digit": rng.randrange(3),
        }
        explorer = EncodingExplorer(DIGITS, [3, 1, 4], **settings)
        start = 784 * explorer.digit
        cases.append(settings | {"bytes": list(explorer._digits[start : start + 784])})
        expected.append(explorer.frames())
    body = "return s.encodeFrames(c.code, s.pixelsOf(c.bytes, c.contrast), c.n_steps, c.seed).map((f) => Array.from(f))"
    for found, frames in zip(run(body, cases), expected):
        torch.testing.assert_close(tensor(found), frames, rtol=0, atol=1e-12)


def test_pixels_are_those_of_the_data_set() -> None:
    explorer = EncodingExplorer(DIGITS, torch.tensor([3, 1, 4]), digit=2, contrast=0.5)
    torch.testing.assert_close(explorer.pixels(), 0.5 * DIGITS[2].flatten().double(), rtol=0, atol=1e-7)
    assert explorer._labels == [3, 1, 4]


def test_what_the_chapter_answers_of_the_explorer_is_so(run: Run) -> None:
    """For each of its digits the rate code is the noisier one below a contrast of about 0.9."""
    test = load_mnist("test")
    explorer = EncodingExplorer(test.images[:4], test.labels[:4])
    body = """const p = s.pixelsOf(c.bytes, c.contrast);
    return [s.expectedError("flicker", p, 32) / (c.contrast / 2), s.expectedError("rate", p, 32) / c.contrast]"""
    contrasts = [percent / 100 for percent in range(1, 101)]
    for start in range(0, 4 * 784, 784):
        digit = list(explorer._digits[start : start + 784])
        found = run(body, [{"bytes": digit, "contrast": contrast} for contrast in contrasts])
        noisier = [contrast for contrast, (flicker, rate) in zip(contrasts, found) if rate > flicker]
        assert noisier == contrasts[: len(noisier)] and 0.87 < noisier[-1] < 0.92
        assert max(flicker for flicker, _ in found) - min(flicker for flicker, _ in found) < 1e-9


def test_settings_are_traits_with_limits() -> None:
    explorer = EncodingExplorer(DIGITS, [3, 1, 4])
    for name, wrong in (
        *(("code", "morse"), ("n_steps", 0), ("n_steps", 513), ("contrast", 1.1), ("row", 28), ("column", -1)),
        *(("digit", 3), ("decay", 1.0), ("seed", -1)),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    for images, labels, words in (
        (DIGITS, [3, 1], "not 2 labels and 2352 pixels"),
        (DIGITS[:0], [], "one label or more"),
        (DIGITS + 0.1, [3, 1, 4], "between -0.5 and 0.5"),
        (DIGITS * torch.nan, [3, 1, 4], "between -0.5 and 0.5"),
    ):
        with pytest.raises(ValueError, match=words):
            EncodingExplorer(images, labels)
