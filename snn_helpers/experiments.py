"""The comparison of chapter 04, one trial at a time, and the record of runs too long for a page.

A chapter runs `run_trial` live at a small size and plots what `load_results` finds recorded at
full size; `make results` records it with the same function.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from .networks import MLP, SpikingNet
from .training import evaluate, fit

NETWORKS = ("spiking", "mlp", "mlp, flickering input", "mlp, dropout")


def make_network(network: str, seed: int, n_steps: int = 128) -> SpikingNet | MLP:
    """One of `NETWORKS`, 784-100-10, its initial weights drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    if network == "spiking":
        return SpikingNet(n_steps, generator=generator)
    if network == "mlp":
        return MLP(generator=generator)
    if network == "mlp, flickering input":
        return MLP(flickering=True, generator=generator)
    if network == "mlp, dropout":
        return MLP(dropout=0.5, generator=generator)
    raise ValueError(f"network must be one of {', '.join(map(repr, NETWORKS))}, not {network!r}")


def run_trial(
    network: str,
    seed: int,
    train: TensorDataset,
    test: TensorDataset,
    *,
    learning_rate: float = 0.1,
    n_steps: int = 128,
    batch_size: int = 1000,
    n_updates: int | None = None,
    noise_levels: tuple[float, ...] = (),
    device: str | torch.device = "auto",
) -> dict[str, Any]:
    """Train one network once and measure it; derived in chapter 04.

    The schedule is the article's: three thirds at `learning_rate` times 1, 0.5 and 0.1, one epoch
    each, or as many epochs as give at least `n_updates` updates in all. `noise_levels` are
    standard deviations of Gaussian noise added to the first 2000 test images (pixels span 1).

    Returns a row for a table: the settings, and `train_accuracy`, `train_loss` (of at most 10,000
    training images), `test_accuracy`, `test_loss`, `noise_accuracy` and `seconds` of training.
    """
    n_train = len(train)
    n_batches = math.ceil(n_train / batch_size)
    epochs = 1 if n_updates is None else math.ceil(n_updates / (3 * n_batches))
    model = make_network(network, seed, n_steps)
    rates = [learning_rate * factor for factor in (1.0, 0.5, 0.1) for _ in range(epochs)]
    history = fit(model, train, seed=seed, device=device, learning_rates=rates, batch_size=batch_size, progress=False)
    on_train = evaluate(model, TensorDataset(*(part[:10_000] for part in train.tensors)), seed=seed)
    on_test = evaluate(model, test, seed=seed)
    return {
        "network": network,
        "seed": seed,
        "learning_rate": learning_rate,
        "n_steps": n_steps,
        "n_train": n_train,
        "batch_size": batch_size,
        "n_updates": len(history.loss),
        "train_accuracy": on_train.accuracy,
        "train_loss": on_train.loss,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "noise_accuracy": {
            str(level): evaluate(model, noisy(test, level, seed), seed=seed).accuracy for level in noise_levels
        },
        "seconds": round(history.seconds, 2),
    }


ENGINE_SETTINGS: dict[str, dict[str, bool]] = {
    "float32": {},
    "mixed": {"mixed_precision": True},
    "fastest": {"mixed_precision": True, "shared_flicker": True},
}


def engine_trial(
    setting: str, seed: int, train: TensorDataset, test: TensorDataset, *, n_steps: int = 128, batch_size: int = 1000
) -> dict[str, Any]:
    """The article's schedule in one of `ENGINE_SETTINGS`, tested in plain float32; used in `performance`.

    Returns `test_accuracy`, `test_loss`, the last epoch's mean `train_loss`, and `seconds` of training.
    """
    options = ENGINE_SETTINGS[setting]
    model = SpikingNet(n_steps, generator=torch.Generator().manual_seed(seed), **options)
    history = fit(model, train, seed=seed, batch_size=batch_size, progress=False)
    plain = SpikingNet(n_steps)
    plain.load_state_dict(model.state_dict())
    on_test = evaluate(plain.to(next(model.parameters()).device), test, seed=seed)
    last_epoch = history.loss[-history.batches_per_epoch :]
    return {
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "train_loss": sum(last_epoch) / len(last_epoch),
        "seconds": round(history.seconds, 2),
    }


def noisy(dataset: TensorDataset, level: float, seed: int, n_images: int = 2000) -> TensorDataset:
    """The first images with Gaussian noise of standard deviation `level` added; labels as they are."""
    images, labels = (part[:n_images] for part in dataset.tensors)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
    return TensorDataset(images + level * noise, labels)


def draw_subset(dataset: TensorDataset, n_examples: int, seed: int) -> TensorDataset:
    """`n_examples` of the data set, drawn without repetition by the seed."""
    if not 1 <= n_examples <= len(dataset):
        raise ValueError(f"n_examples must lie between 1 and {len(dataset)}, the data set's size, not {n_examples}")
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:n_examples]
    return TensorDataset(*(part[chosen] for part in dataset.tensors))


def mean_and_interval(values: list[float] | Tensor) -> tuple[float, float]:
    """The mean and the half-width of its 95 % confidence interval (Student's t) over seeds."""
    from scipy.stats import t

    samples = torch.as_tensor(values, dtype=torch.float64)
    n = samples.numel()
    if n < 2:
        raise ValueError(f"an interval needs at least two values, one a seed; given: {n}")
    return samples.mean().item(), float(t.ppf(0.975, n - 1)) * samples.std().item() / math.sqrt(n)


def load_results(name: str) -> dict[str, Any]:
    """A recorded file of `book/results`, by name, such as `"04_parity"`: `provenance` and `trials`."""
    beside = Path(__file__).parent.parent / "book" / "results"  # a checkout of the book
    if not beside.is_dir():
        beside = Path(str(resources.files("snn_helpers") / "results"))  # the installed package
    known = sorted(path.stem for path in beside.glob("*.json"))
    if name not in known:
        raise ValueError(f"no results are recorded as {name!r}; there are {', '.join(known) or 'none'}")
    return json.loads((beside / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def record_trials(
    path: Path, what: str, trials: list[dict[str, Any]], run: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run those of the `trials` (settings for `run`) that the file does not hold yet, adding each as it ends.

    The file holds `provenance` and `trials`, whose rows are what `run` returned after the
    settings it was given. Each write replaces the file as a whole.
    """
    rows: list[dict[str, Any]] = []
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))["trials"]
    for settings in trials:
        # As the file would hold them, where a tuple is a list.
        if json.loads(json.dumps(settings)) in [json.loads(json.dumps(row["settings"])) for row in rows]:
            continue
        started = time.perf_counter()
        measured = run(**settings)
        rows.append({"settings": settings, **measured, "total_seconds": round(time.perf_counter() - started, 2)})
        content = {"provenance": provenance(what), "trials": rows}
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
        print(f"{path.name}: {len(rows)} rows; {settings} took {rows[-1]['total_seconds']} s", flush=True)
    return rows


def provenance(what: str) -> dict[str, Any]:
    """When, with which versions and on what kind of machine a record was made."""
    return {
        "what": what,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
