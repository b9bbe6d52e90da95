"""The comparison's tools: trials, statistics against SciPy, the record of long runs and its rerun."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from snn_chapters.comparison import NETWORKS, make_network, run_trial
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingNet, evaluate, fit, load_mnist, records
from snn_helpers.data import draw_subset, noisy
from snn_helpers.long import recording
from snn_helpers.long.recording import record_trials
from snn_helpers.records import load_results
from snn_helpers.statistics import mean_and_interval

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"
RECORDS = sorted(RESULTS.glob("04_*.json"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["trials"]
    return rows


@pytest.fixture(scope="module")
def digits() -> tuple[TensorDataset, TensorDataset]:
    """4,000 and 1,000 of MNIST's digits, which come with a package: no network is needed."""
    return load_mnist("train", source="subset"), load_mnist("test", source="subset")


def made_up(n: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(n, 1, 28, 28, generator=generator) - 0.5, torch.arange(n) % 10)


# --- Trials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_a_trial_repeats_itself(network: str, device: torch.device) -> None:
    rows = [
        run_trial(
            network, seed, made_up(60), made_up(40, 1), n_steps=6, batch_size=25, noise_levels=(0.0, 0.5), device=device
        )
        for seed in (3, 3, 4)
    ]
    seconds = [row.pop("seconds") for row in rows]
    assert all(0 <= value < 60 for value in seconds)
    if device.type == "cpu":
        assert rows[0] == rows[1]
    assert rows[0]["test_loss"] == pytest.approx(rows[1]["test_loss"], rel=1e-3)
    assert rows[0]["test_loss"] != pytest.approx(rows[2]["test_loss"], rel=1e-5)
    assert json.loads(json.dumps(rows[0])) == rows[0], "a row must survive being written"


def test_a_trial_is_fit_and_evaluate() -> None:
    """The row again, from its parts: three thirds at 1, 0.5 and 0.1 times the rate."""
    train, test = made_up(60), made_up(40, 1)
    row = run_trial(
        "mlp, dropout",
        5,
        train,
        test,
        learning_rate=0.2,
        batch_size=25,
        n_updates=14,
        noise_levels=(0.3,),
        device="cpu",
    )
    model = MLP(dropout=0.5, generator=torch.Generator().manual_seed(5))
    rates = (0.2, 0.2, 0.1, 0.1, 0.02, 0.02)  # 60 examples make 3 batches: 14 updates need 2 epochs a third
    history = fit(model, train, seed=5, device="cpu", learning_rates=rates, batch_size=25, progress=False)
    on_train, on_test = (evaluate(model, part, seed=5) for part in (train, test))
    row.pop("seconds")
    assert row == {
        "network": "mlp, dropout",
        "seed": 5,
        "learning_rate": 0.2,
        "n_steps": 128,
        "n_train": 60,
        "batch_size": 25,
        "n_updates": len(history.loss),
        "train_accuracy": on_train.accuracy,
        "train_loss": on_train.loss,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "noise_accuracy": {"0.3": evaluate(model, noisy(test, 0.3, 5), seed=5).accuracy},
    }
    assert row["n_updates"] == 18


@pytest.mark.parametrize(
    ("n_train", "batch_size", "n_updates", "wanted"),
    [(50, 25, None, 6), (50, 25, 6, 6), (50, 25, 7, 12), (9, 25, 1, 3)],
)
def test_a_trial_makes_at_least_the_updates_asked_for(
    n_train: int, batch_size: int, n_updates: int | None, wanted: int
) -> None:
    data = made_up(n_train)
    row = run_trial("mlp", 0, data, data, batch_size=batch_size, n_updates=n_updates, device="cpu")
    assert row["n_updates"] == wanted


def test_make_network() -> None:
    for network in NETWORKS:
        one, same, other = (make_network(network, seed, n_steps=7) for seed in (1, 1, 2))
        assert isinstance(one, SpikingNet if network == "spiking" else MLP)
        for a, b, c in zip(one.parameters(), same.parameters(), other.parameters()):
            assert torch.equal(a, b) and not torch.equal(a, c)
    plain, flickering, dropout = (make_network(network, 1) for network in NETWORKS[1:])
    assert [(net.flickering, net.dropout) for net in (plain, flickering, dropout)] == [
        (False, 0.0),
        (True, 0.0),
        (False, 0.5),
    ]
    # The variants differ in what they do, not in where they start.
    for a, b, c in zip(plain.parameters(), flickering.parameters(), dropout.parameters()):
        assert torch.equal(a, b) and torch.equal(a, c)
    with pytest.raises(ValueError, match=r"network must be one of 'spiking', 'mlp'.*not 'perceptron'"):
        make_network("perceptron", 0)


# --- Data and statistics --------------------------------------------------------------------------


def test_draw_subset() -> None:
    whole = TensorDataset(torch.arange(50.0).reshape(50, 1), torch.arange(50))
    first, again, other = (draw_subset(whole, 20, seed) for seed in (1, 1, 2))
    images, labels = first.tensors
    assert torch.equal(images[:, 0].long(), labels), "images and labels must stay together"
    assert len(set(labels.tolist())) == len(first) == 20
    assert torch.equal(labels, again.tensors[1])
    assert not torch.equal(labels, other.tensors[1])
    assert sorted(draw_subset(whole, 50, 3).tensors[1].tolist()) == list(range(50))
    # Every example has the same chance: 20 of 50 in 400 draws, within five standard errors.
    counts = torch.stack([draw_subset(whole, 20, seed).tensors[1] for seed in range(400)]).flatten().bincount()
    assert ((counts - 160).abs() < 5 * math.sqrt(400 * 0.4 * 0.6)).all()
    for n in (0, -1, 51):
        with pytest.raises(ValueError, match=f"n_examples.*between 1 and 50.*not {n}"):
            draw_subset(whole, n, 0)


@pytest.mark.parametrize("level", [0.1, 1.0])
def test_noisy(level: float, device: torch.device) -> None:
    images, labels = (part.to(device) for part in made_up(300).tensors)
    whole = TensorDataset(images, labels)
    noised, same_labels = noisy(whole, level, seed=2, n_images=200).tensors
    assert noised.shape == (200, 1, 28, 28)
    assert torch.equal(same_labels, labels[:200])
    noise = (noised - images[:200]).double().cpu().flatten()
    n = noise.numel()
    assert abs(noise.mean().item()) < 5 * level / math.sqrt(n)
    assert abs(noise.var().item() - level**2) < 5 * level**2 * math.sqrt(2 / n)
    assert torch.equal(noised, noisy(whole, level, seed=2, n_images=200).tensors[0])
    assert not torch.equal(noised, noisy(whole, level, seed=3, n_images=200).tensors[0])
    assert torch.equal(noisy(whole, 0.0, seed=2).tensors[0], images)
    assert len(noisy(TensorDataset(torch.zeros(2500, 1), torch.zeros(2500)), level, 0)) == 2000


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_mean_and_interval_is_scipys(n: int, as_tensor: bool) -> None:
    values = (0.9 + 0.02 * torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)).tolist()
    mean, half = mean_and_interval(torch.tensor(values, dtype=torch.float64) if as_tensor else values)
    low, high = stats.t.interval(0.95, n - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("values", [[], [0.9]])
def test_mean_and_interval_needs_two_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match=f"at least two.*given: {len(values)}"):
        mean_and_interval(values)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 of 100 in the long run; of 2000 within five standard errors."""
    samples = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = sum(abs(mean) <= half for mean, half in map(mean_and_interval, samples))
    assert abs(held - 1900) < 5 * math.sqrt(2000 * 0.95 * 0.05)


# --- The record -----------------------------------------------------------------------------------


def test_record_trials_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    ran: list[int] = []

    def run(seed: int, levels: tuple[float, ...]) -> dict[str, Any]:
        if seed == 3:
            raise RuntimeError("the power is gone")
        ran.append(seed)
        return {"score": seed * 10}

    # Tuples come back from the file as lists, and must be known all the same.
    trials: list[dict[str, Any]] = [{"seed": seed, "levels": (0.0, 0.5)} for seed in (1, 2, 3, 4)]
    with pytest.raises(RuntimeError, match="power"):
        record_trials(path, "a test", trials, run)
    assert ran == [1, 2]
    assert [row["score"] for row in rows_of(path)] == [10, 20]

    rows = record_trials(path, "a test", [trials[3], *trials[:2], trials[3]], run)
    assert ran == [1, 2, 4], "what is recorded must not run again"
    assert json.loads(json.dumps(rows)) == rows_of(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["trials"][2]["settings"] == {"seed": 4, "levels": [0.0, 0.5]}
    assert content["trials"][2]["total_seconds"] >= 0
    assert content["provenance"]["what"] == "a test"
    assert content["provenance"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]
    assert "record.json: 3 rows" in capsys.readouterr().out


def test_record_trials_writes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment before the file is replaced, the old one is still whole, and the new one is too."""
    path = tmp_path / "record.json"
    replace, seen = recording.os.replace, []

    def watched(partial: Path, target: Path) -> None:
        seen.append((len(rows_of(target)) if target.exists() else 0, len(rows_of(partial))))
        replace(partial, target)

    monkeypatch.setattr(recording.os, "replace", watched)
    record_trials(path, "a test", [{"seed": seed} for seed in range(3)], lambda seed: {"score": seed})
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_load_results() -> None:
    for path in RECORDS:
        assert load_results(path.stem) == json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(ValueError) as caught:
        load_results("05_nothing")
    assert "'05_nothing'" in str(caught.value)
    for path in RECORDS:
        assert path.stem in str(caught.value)


def test_load_results_from_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the records lie inside the package, and no `book` beside it."""
    inside = tmp_path / "site-packages" / "snn_helpers"
    (inside / "results").mkdir(parents=True)
    (inside / "results" / "04_parity.json").write_text('{"trials": []}')
    monkeypatch.setattr(records, "__file__", str(inside / "records.py"))
    monkeypatch.setattr(records.resources, "files", lambda name: tmp_path / "site-packages" / name)
    assert load_results("04_parity") == {"trials": []}
    with pytest.raises(ValueError, match="there are 04_parity"):
        load_results("04_tuned")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_recorded_rows_are_what_a_trial_returns(path: Path) -> None:
    data = made_up(30)
    keys = set(run_trial("mlp", 0, data, data, device="cpu"))
    rows = rows_of(path)
    assert rows
    settings = [row["settings"] for row in rows]
    assert all(settings.count(one) == 1 for one in settings)
    for row in rows:
        assert set(row) == keys | {"settings", "total_seconds"}
        assert row["network"] in NETWORKS
        assert 0 < row["test_accuracy"] < 1 and 0 < row["train_accuracy"] <= 1
        assert 0 < row["seconds"] < row["total_seconds"] + 0.01
        for name, value in row["settings"].items():
            # n_updates is a lower bound; all else is used as given.
            assert row[name] >= value if name == "n_updates" else row[name] == value


@pytest.mark.parametrize("network", NETWORKS[1:])
def test_a_recorded_figure_comes_out_again(
    network: str, digits: tuple[TensorDataset, TensorDataset], device: torch.device
) -> None:
    """100 training digits, with the recorded settings, on other digits and seeds.

    A draw of 100 digits moves the accuracy by about 0.02, the 1,000 test digits by 0.015: of three
    runs against five, 0.06 is more than four standard errors. Chance is 0.1.
    """
    train, test = digits
    recorded = [
        row
        for row in rows_of(RESULTS / "04_small_data.json")
        if (row["network"], row["n_train"], row["learning_rate"]) == (network, 100, 0.1)
    ]
    assert recorded
    settings = {k: v for k, v in recorded[0]["settings"].items() if k not in ("network", "seed", "n_train")}
    rows = [
        run_trial(network, seed, draw_subset(train, 100, seed), test, device=device, **settings)
        for seed in (10, 11, 12)
    ]
    assert {row["n_updates"] for row in rows} == {recorded[0]["n_updates"]}
    for measure in ("test_accuracy", "train_accuracy"):
        before = sum(row[measure] for row in recorded) / len(recorded)
        now = sum(row[measure] for row in rows) / len(rows)
        assert now == pytest.approx(before, abs=0.06), measure


def test_the_spiking_network_learns_digits_in_few_updates(
    digits: tuple[TensorDataset, TensorDataset], device: torch.device
) -> None:
    """Chance is 0.1, with a standard error of 0.01 on 1,000 digits; the record says 0.7 to 0.8 after 300 updates."""
    train, test = digits
    row = run_trial(
        "spiking", 0, draw_subset(train, 300, 0), test, n_steps=16, batch_size=50, n_updates=36, device=device
    )
    assert row["test_accuracy"] > 0.4
    assert set(row) | {"settings", "total_seconds"} == set(rows_of(RESULTS / "04_small_data.json")[0])
