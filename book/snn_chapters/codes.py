"""The input codes of chapter 02, and the network of chapter 03 trained on each; used from chapter 03."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit, flicker
from snn_helpers.long.checks import flat
from snn_helpers.long.recording import Record, examples, whole_mnist
from snn_helpers.long.seeds import seeded
from snn_helpers.long.tuning import tuning_trials
from snn_helpers.records import load_results
from snn_helpers.statistics import decide, mean_and_interval
from snn_helpers.training import TrainingDiverged
from snn_helpers.tuning import choose, scores_of

# Each code, and a learning rate at which the search for its own begins.
CODES = {
    "flicker of x": 0.12,
    "steady x": 0.12,
    "flicker of b": 0.27,
    "steady b": 0.27,
    "rate": 0.27,
    "latency": 0.12,
    "latency, unit spikes": 0.82,
}


def rate_code(brightness: Tensor, n_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Spikes `[n_steps, *brightness.shape]`: 1 at each step with the brightness, 0 to 1, as probability, else 0."""
    # A mask, uniform in [0, 1), lies below b with probability b.
    masks = flicker(torch.ones_like(brightness), n_steps, generator)
    return (masks < brightness).to(brightness.dtype)


def latency_code(brightness: Tensor, n_steps: int) -> Tensor:
    """One spike of 1 for each value above 0: at step 0 for a brightness of 1, at the last step for nearly 0."""
    when = ((1 - brightness) * (n_steps - 1)).round()
    steps = torch.arange(n_steps, device=brightness.device).view(-1, *[1] * brightness.dim())
    return ((steps == when) & (brightness > 0)).to(brightness.dtype)


def encode(code: str, x: Tensor, n_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Frames `[n_steps, *x.shape]` of images `x`, pixel - 0.5, in one of `CODES`; b is the brightness, x + 0.5.

    A white pixel brings the same charge in all codes but the last: on average 1/2 a step for brightness b, and 1/4
    for x. So a spike of the rate code counts 1/2, and the one spike of the latency code `n_steps` / 2.
    """
    b = x + 0.5
    if code == "flicker of x":
        return flicker(x, n_steps, generator)
    if code == "steady x":
        return (x / 2).expand(n_steps, *x.shape)
    if code == "flicker of b":
        return flicker(b, n_steps, generator)
    if code == "steady b":
        return (b / 2).expand(n_steps, *x.shape)
    if code == "rate":
        return rate_code(b, n_steps, generator) / 2
    if code == "latency":
        return latency_code(b, n_steps) * (n_steps / 2)
    if code == "latency, unit spikes":
        return latency_code(b, n_steps)
    raise ValueError(f"code must be one of {', '.join(map(repr, CODES))}, not {code!r}")


class CodeNet(SpikingNet):
    """`SpikingNet` that reads its images in one of `CODES`; with "flicker of x" it is `SpikingNet`."""

    def __init__(self, code: str, n_steps: int = 32, generator: torch.Generator | None = None) -> None:
        super().__init__(n_steps, generator=generator)
        self.code = code

    def frames(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images in the network's code, `[n_steps, B, n_inputs]`."""
        return encode(self.code, flat(images), self.n_steps, generator)


def code_trial(
    code: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float,
    n_steps: int = 32,
    batch_size: int = 100,
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train the network once on images in one code, by the article's three epochs, and test it in the same code.

    Returns a row: `test_accuracy` and `test_loss` (0 and None if the training diverged), and of the trained network
    on the first 1000 test images `hidden_rate`, the share of steps in which a hidden neuron fires, and `never`, the
    share of hidden neurons that fire for none of them.
    """
    net = CodeNet(code, n_steps, generator=seeded(seed))
    rates = [learning_rate * factor for factor in (1.0, 0.5, 0.1)]
    try:
        history = fit(net, train, seed=seed, device=device, learning_rates=rates, batch_size=batch_size, progress=False)
    except TrainingDiverged:
        return {"test_accuracy": 0.0, "test_loss": None, "diverged": True}
    on_test = evaluate(net, test, seed=seed)
    images = test.tensors[0][:1000].to(next(net.parameters()).device)
    with torch.no_grad():
        fired = net.record(images, seeded(seed, images.device))[0].outputs > 0
    return {
        "n_steps": n_steps,
        "n_train": len(train),
        "batch_size": batch_size,
        "n_updates": len(history.loss),
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss if math.isfinite(on_test.loss) else None,
        "hidden_rate": fired.float().mean().item(),
        "never": (~fired.any(dim=0).any(dim=0)).float().mean().item(),
        "seconds": round(history.seconds, 2),
    }


# --- The comparison -------------------------------------------------------------------------------

MARGIN = 0.01  # in accuracy: two codes whose difference is surely smaller count as alike
SCATTER = 0.1  # where seeds differ by more, a mean and its interval say little: median and range are told instead
COMPARED = (*range(5), *range(10, 15))  # the seeds of each code; those in between have tuned it
AGAIN = range(20, 30)  # and of the article's code once more, for a null
# What is compared with what, and what alone differs between the two. The last is a control: it must be worse.
PAIRS = (
    ("steady x", "flicker of x", "no noise"),
    ("steady b", "flicker of b", "no noise"),
    ("flicker of b", "flicker of x", "brightness, not pixel − 0.5"),
    ("steady b", "steady x", "brightness, not pixel − 0.5"),
    ("rate", "flicker of b", "spikes, not graded values"),
    ("latency", "flicker of b", "one spike, early or late"),
    ("latency, unit spikes", "latency", "a weak spike"),
)


def accuracies(rows: Sequence[dict[str, Any]], code: str, seeds: Sequence[int]) -> list[float]:
    """The test accuracies of one code, in the order of the seeds."""
    found = {row["settings"]["seed"]: row["test_accuracy"] for row in rows if row["settings"]["code"] == code}
    return [found[seed] for seed in seeds]


def differences(rows: Sequence[dict[str, Any]], seeds: Sequence[int] = COMPARED) -> dict[tuple[str, str], list[float]]:
    """By how much the first code of each pair is ahead, paired by seed: same initial weights, same order of images."""
    return {
        (code, against): [a - b for a, b in zip(accuracies(rows, code, seeds), accuracies(rows, against, seeds))]
        for code, against, _ in PAIRS
    }


def judge(values: Sequence[float], comparisons: int = len(PAIRS)) -> str:
    """In words: is the first of two ahead, by differences of one for each seed, among several `comparisons`?

    "better" or "worse" if the interval for all comparisons is clear of 0; "alike" if it lies within ± `MARGIN`; both,
    if both; else "open". Differences that scatter are counted.
    """
    if max(values) - min(values) > SCATTER:
        n_worse = sum(value < 0 for value in values)
        n_better = sum(value > 0 for value in values)
        return f"{'worse' if n_worse > n_better else 'better'} with {max(n_worse, n_better)} of {len(values)} seeds"
    ahead = {"holds": "better", "fails": "worse", "open": ""}[decide(values, comparisons=comparisons)]
    mean, half = mean_and_interval(values, comparisons)
    alike = abs(mean) + half < MARGIN
    if ahead and alike:
        return f"{ahead}, but by less than the margin"
    return ahead or ("alike" if alike else "open")


def in_words(values: Sequence[float], comparisons: int = 1, sign: str = "") -> str:
    """In per cent, or in points with the `sign` "+": mean and interval, or, if they scatter, median and range."""
    if max(values) - min(values) > SCATTER:
        ordered = sorted(100 * value for value in values)
        return f"median {median(ordered):{sign}.1f}, range {ordered[0]:{sign}.1f} to {ordered[-1]:{sign}.1f}"
    mean, half = mean_and_interval(values, comparisons)
    return f"{100 * mean:{sign}.2f} ± {100 * half:.2f}"


# --- The records ----------------------------------------------------------------------------------

N_TRAIN = 12_000


def measure_tuning(**settings: Any) -> dict[str, Any]:
    """As `code_trial`, on the first 12,000 training images, tested on the last 10,000 of them."""
    train, _ = whole_mnist()
    return code_trial(train=examples(train, 0, N_TRAIN), test=examples(train, 50_000, 60_000), **settings)


def measure_codes(**settings: Any) -> dict[str, Any]:
    """As `code_trial`, on the first 12,000 training images and all test images."""
    train, test = whole_mnist()
    return code_trial(train=examples(train, 0, N_TRAIN), test=test, **settings)


def tuned_codes() -> list[dict[str, Any]]:
    """Each code at its own learning rate, ten seeds; the article's with ten further seeds, for a null."""
    rows = load_results("03_codes_tuning")["trials"]
    rates = {code: choose(scores_of(rows, code=code)) for code in CODES}
    wanted = [(code, seed) for seed in COMPARED for code in CODES] + [("flicker of x", seed) for seed in AGAIN]
    return [{"code": code, "learning_rate": rates[code], "seed": seed} for code, seed in wanted]


RECORDS: dict[str, Record] = {
    "03_codes_tuning": Record(
        "Seven input codes at several learning rates: 360 updates of 100 images, 32 steps, 10,000 images held out",
        measure_tuning,
        partial(
            tuning_trials, "03_codes_tuning", [({"code": code}, start) for code, start in CODES.items()], floor=0.2
        ),
    ),
    "03_codes": Record(
        "Seven input codes, each at its best learning rate of 03_codes_tuning; tested on all 10,000 test images",
        measure_codes,
        tuned_codes,
    ),
}
