"""The input codes: each against its definition, the trial against its parts, and the comparison against its words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import t as student
from snn_chapters import codes
from snn_chapters.codes import (
    AGAIN,
    CODES,
    COMPARED,
    MARGIN,
    PAIRS,
    CodeNet,
    accuracies,
    code_trial,
    differences,
    encode,
    in_words,
    judge,
    latency_code,
    rate_code,
)
from spies import N_TRAIN, TEST_NUMBERS, Calls, a_history, an_evaluation, are, numbered, several, shuffled, spy
from torch import Tensor

from snn_helpers import SpikingNet, evaluate, fit
from snn_helpers.long.tuning import SEEDS
from snn_helpers.training import TrainingDiverged

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- The codes ------------------------------------------------------------------------------------


def test_a_rate_code_fires_with_the_brightness_as_probability() -> None:
    """Means and variances of Bernoulli draws, within five standard errors; neighbours and steps are independent."""
    b, n = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]), 40_000
    spikes = rate_code(b, n, source())
    assert spikes.shape == (n, 5) and set(spikes.unique().tolist()) == {0.0, 1.0}
    assert (spikes[:, 0] == 0).all() and (spikes[:, 4] == 1).all()
    for k, p in enumerate(b.tolist()):
        assert abs(spikes[:, k].mean().item() - p) <= 5 * math.sqrt(p * (1 - p) / n)
    middle = spikes[:, 1:4] - b[1:4]
    for pair in (middle[1:] * middle[:-1], middle[:, :2] * middle[:, 1:]):
        assert pair.mean(dim=0).abs().max().item() < 5 * 0.25 / math.sqrt(n)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 32])
def test_a_latency_code_is_one_spike_the_earlier_the_brighter(n_steps: int) -> None:
    levels = torch.arange(256) / 255
    spikes = latency_code(levels, n_steps)
    assert spikes.shape == (n_steps, 256) and set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert spikes.sum(dim=0).tolist() == [0.0] + 255 * [1.0]  # black is silent
    when = spikes.argmax(dim=0)[1:]
    assert (when.diff() <= 0).all() and when[-1] == 0 and when[0] == n_steps - 1
    for level, step in enumerate(when.tolist(), start=1):  # nearest to an even spread over the steps
        assert abs(step - (255 - level) / 255 * (n_steps - 1)) <= 0.5 + 1e-4


def images(n: int = 6) -> Tensor:
    """White, black and grey pixels, minus 0.5."""
    x = torch.randint(0, 256, (n, 1, 4, 4), generator=source(3)) / 255
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0
    return x - 0.5


@pytest.mark.parametrize("code", CODES)
def test_all_codes_of_one_scaling_bring_a_white_pixel_the_same_charge(code: str) -> None:
    n_steps = 400
    x = torch.tensor([0.5, -0.5])
    charge = encode(code, x, n_steps, source()).sum(dim=0) / n_steps
    white, black = (0.25, -0.25) if code.endswith("x") else (0.5, 0.0)
    if code == "latency, unit spikes":
        white = 1 / n_steps
    # A mean of 400 uniform draws strays by 0.0144 of the pixel.
    assert charge.tolist() == pytest.approx([white, black], abs=5 * 0.0144)


@pytest.mark.parametrize(("steady", "noisy"), [("steady x", "flicker of x"), ("steady b", "flicker of b")])
def test_a_steady_code_is_what_its_flicker_is_on_average(steady: str, noisy: str) -> None:
    n_steps, x = 3000, images()
    frames = encode(steady, x, n_steps)
    assert frames.shape == (n_steps, *x.shape) and (frames == frames[0]).all()
    strayed = (encode(noisy, x, n_steps, source()).mean(dim=0) - frames[0]).abs()
    assert strayed.max().item() < 6 / math.sqrt(12 * n_steps)


def test_a_rate_spike_is_a_half_and_a_latency_spike_half_of_the_steps() -> None:
    x = images()
    assert set(encode("rate", x, 10, source()).unique().tolist()) == {0.0, 0.5}
    assert set(encode("latency", x, 10).unique().tolist()) == {0.0, 5.0}
    assert set(encode("latency, unit spikes", x, 10).unique().tolist()) == {0.0, 1.0}


def test_an_unknown_code_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"code must be one of 'flicker of x', .*, not 'morse'"):
        encode("morse", images(), 3)


def test_with_the_articles_flicker_it_is_the_articles_network(device: torch.device) -> None:
    x = torch.rand(9, 1, 28, 28, generator=source(1)).to(device) - 0.5
    net, plain = (
        kind.to(device) for kind in (CodeNet("flicker of x", 12, source(4)), SpikingNet(12, generator=source(4)))
    )
    torch.testing.assert_close(net(x, source(2)), plain(x, source(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("code", CODES)
def test_a_network_reads_its_own_code(code: str) -> None:
    x = torch.rand(5, 1, 28, 28, generator=source(1)) - 0.5
    net = CodeNet(code, 9, source(4))
    frames = encode(code, x.flatten(1), 9, source(2))
    torch.testing.assert_close(net.logits(x, source(2)), net.read_out(net.run(frames)))


# --- The trial ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_a_trial_repeats_itself_and_is_what_its_parts_give(code: str, device: torch.device) -> None:
    train, test = several(60), several(40, seed=1)
    settings: dict[str, Any] = {"learning_rate": 0.2, "n_steps": 8, "batch_size": 20, "device": device}
    row, again = (code_trial(code, 3, train, test, **settings) for _ in range(2))
    assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in again.items() if k != "seconds"}
    net = CodeNet(code, 8, source(3))
    fit(net, train, seed=3, learning_rates=[0.2, 0.1, 0.02], batch_size=20, device=device, progress=False)
    assert row["test_accuracy"] == evaluate(net, test, seed=3).accuracy
    fired = net.record(test.tensors[0].to(device), torch.Generator(device).manual_seed(3))[0].outputs > 0
    assert row["hidden_rate"] == pytest.approx(fired.sum().item() / (8 * 40 * 100))
    assert row["never"] == pytest.approx(sum(not fired[..., k].any() for k in range(100)) / 100)
    assert (row["n_updates"], row["n_train"], row["batch_size"], row["n_steps"]) == (9, 60, 20, 8)


def test_a_test_whose_labels_are_shuffled_gives_chance() -> None:
    train, test = several(200), several(400, seed=1)
    settings: dict[str, Any] = {"learning_rate": 0.2, "n_steps": 12, "batch_size": 10, "device": "cpu"}
    assert code_trial("rate", 0, train, test, **settings)["test_accuracy"] > 0.9
    accuracy = code_trial("rate", 0, train, shuffled(test), **settings)["test_accuracy"]
    assert abs(accuracy - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 400)


def test_a_training_that_diverges_scores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*_: Any, **__: Any) -> Any:
        raise TrainingDiverged("the loss is nan")

    monkeypatch.setattr(codes, "fit", diverges)
    row = code_trial("rate", 0, several(20), several(20), learning_rate=9.0, device="cpu")
    assert row == {"test_accuracy": 0.0, "test_loss": None, "diverged": True}


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> tuple[Calls, Calls]:
    """The calls of `fit` and `evaluate`, on data that say which examples they are."""
    monkeypatch.setattr(codes, "whole_mnist", numbered)
    return spy(monkeypatch, codes, "fit", a_history), spy(monkeypatch, codes, "evaluate", an_evaluation)


@pytest.mark.parametrize("name", codes.RECORDS)
def test_rates_are_chosen_on_training_images_that_are_held_out(name: str, spied: tuple[Calls, Calls]) -> None:
    codes.RECORDS[name].run(code="steady b", seed=6, learning_rate=0.3)
    (fitted,), (scored,) = spied
    assert are(fitted["dataset"], range(codes.N_TRAIN))
    wanted = range(50_000, N_TRAIN) if name == "03_codes_tuning" else TEST_NUMBERS
    assert are(scored["dataset"], wanted)
    assert fitted["learning_rates"] == pytest.approx([0.3, 0.15, 0.03]) and fitted["batch_size"] == 100
    assert fitted["seed"] == scored["seed"] == 6 and fitted["test_dataset"] is None


def rows_with(best: dict[str, float]) -> list[dict[str, Any]]:
    """A tuning that peaks at each code's own rate."""
    return [
        {"settings": {"code": code, "learning_rate": rate * factor, "seed": seed}, "test_accuracy": accuracy}
        for code, rate in best.items()
        for factor, accuracy in ((0.8, 0.7), (1.0, 0.8), (1.25, 0.75))
        for seed in (5, 6, 7)
    ]


def test_each_code_is_compared_at_its_own_rate_on_new_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {code: 0.1 * (k + 1) for k, code in enumerate(CODES)}
    monkeypatch.setattr(codes, "load_results", lambda name: {"trials": rows_with(best)} if "tuning" in name else {})
    trials = codes.tuned_codes()
    assert all(trial["learning_rate"] == best[trial["code"]] for trial in trials)
    seeds = {code: [trial["seed"] for trial in trials if trial["code"] == code] for code in CODES}
    assert seeds["flicker of x"] == [*COMPARED, *AGAIN] and len(COMPARED) == len(AGAIN) == 10
    assert all(each == list(COMPARED) for code, each in seeds.items() if code != "flicker of x")
    assert len({*SEEDS, *COMPARED, *AGAIN}) == len(SEEDS) + len(COMPARED) + len(AGAIN), (
        "a seed that tunes judges nothing"
    )


# --- The comparison -------------------------------------------------------------------------------


def test_each_pair_differs_in_one_thing_and_every_code_is_compared() -> None:
    assert {code for pair in PAIRS for code in pair[:2]} == set(CODES)
    for code, against, changed in PAIRS:  # the scaling changes only where the scaling is what is compared
        if "brightness" not in changed:
            assert code.endswith("x") == against.endswith("x")


# Five differences, in points, and what must be said of them among all comparisons.
SPREAD = (-1.0, -0.5, 0.0, 0.5, 1.0)  # times a width: standard deviation 0.79 of it
JUDGED = [
    (2.0, 0.1, "better"),
    (-2.0, 0.1, "worse"),
    (0.5, 0.1, "better, but by less than the margin"),
    (-0.5, 0.1, "worse, but by less than the margin"),
    (0.1, 0.3, "alike"),
    (0.0, 2.0, "open"),
    (1.0, 1.0, "open"),
]


@pytest.mark.parametrize(("mean", "width", "words"), JUDGED)
def test_a_difference_is_judged_by_its_intervals(mean: float, width: float, words: str) -> None:
    values = [(mean + width * step) / 100 for step in SPREAD]
    error = width * math.sqrt(2.5 / 4) / math.sqrt(5)
    half = float(student.ppf(1 - 0.025 / len(PAIRS), 4)) * error
    clear, within = abs(mean) > half, abs(mean) + half < 100 * MARGIN
    assert words == ("better" if mean > 0 else "worse") * clear + ", but by less than the margin" * (
        clear and within
    ) + "alike" * (within and not clear) + "open" * (not clear and not within)
    assert judge(values) == words


def test_more_comparisons_ask_for_more() -> None:
    values = [(0.5 + 0.45 * step) / 100 for step in SPREAD]
    assert judge(values, comparisons=1).startswith("better") and judge(values, comparisons=50) == "open"


def made_up(accuracy: dict[str, float]) -> list[dict[str, Any]]:
    """Rows in an odd order, whose accuracy falls by 0.01 with each seed."""
    return [
        {"settings": {"code": code, "seed": seed, "learning_rate": 0.1}, "test_accuracy": start - seed / 100}
        for seed in (3, 0, 4, *range(10, 15), 20, 2, 1)
        for code, start in accuracy.items()
    ]


def test_differences_are_paired_by_seed() -> None:
    """The scatter that two codes share is no scatter of their difference."""
    start = {code: 0.9 - 0.02 * k for k, code in enumerate(CODES)}
    rows = made_up(start)
    assert accuracies(rows, "rate", [4, 0]) == pytest.approx([start["rate"] - 0.04, start["rate"]])
    gaps = differences(rows)
    assert list(gaps) == [(code, against) for code, against, _ in PAIRS]
    for (code, against), values in gaps.items():
        assert values == pytest.approx(10 * [start[code] - start[against]])
        assert judge(values) == ("better" if start[code] > start[against] else "worse")


def test_accuracies_in_words() -> None:
    values = [0.90, 0.91, 0.92, 0.93, 0.94]
    for n in (1, 6):
        half = student.ppf(1 - 0.025 / n, 4) * math.sqrt(2.5e-4) / math.sqrt(5)
        assert in_words(values, n) == f"92.00 ± {100 * half:.2f}"
    assert in_words([0.01, 0.01, 0.01], sign="+") == "+1.00 ± 0.00"


def test_what_scatters_gets_no_interval_but_is_counted() -> None:
    """Some seeds learn and some do not: a mean with a t-interval would describe neither."""
    assert in_words([0.1, 0.75, 0.8, 0.09, 0.7]) == "median 70.0, range 9.0 to 80.0"
    values = [-0.6, -0.1, -0.2, 0.1, -0.6]
    assert in_words(values, sign="+") == "median -20.0, range -60.0 to +10.0"
    assert judge(values) == "worse with 4 of 5 seeds"
    assert judge([-value for value in values]) == "better with 4 of 5 seeds"
    assert in_words([*values, -0.3]).startswith("median -25.0, "), "half-way between the two in the middle"


# --- What is recorded ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", codes.RECORDS)
def test_a_record_holds_each_trial_once_and_what_a_trial_gives(name: str) -> None:
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["trials"]
    settings = [row["settings"] for row in rows]
    assert all(settings.count(one) == 1 for one in settings)
    assert {one["code"] for one in settings} == set(CODES)
    for row in rows:
        assert (row["n_train"], row["n_updates"], row["batch_size"], row["n_steps"]) == (12_000, 360, 100, 32)
        assert 0 < row["test_accuracy"] < 1 and 0 <= row["hidden_rate"] <= 1
    trials = codes.RECORDS[name].trials
    wanted = trials() if callable(trials) else trials
    assert sorted(map(str, settings)) == sorted(map(str, wanted))  # and a tuning has nothing more to try
