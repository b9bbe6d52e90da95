"""What the fast settings do to a network's accuracy; used in `performance`."""

from __future__ import annotations

from typing import Any

from torch.utils.data import TensorDataset

from snn_helpers import SpikingNet, evaluate, fit
from snn_helpers.long.recording import Record, whole_mnist
from snn_helpers.long.seeds import seeded

ENGINE_SETTINGS: dict[str, dict[str, Any]] = {
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
    model = SpikingNet(n_steps, generator=seeded(seed), **options)
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


# --- The records ----------------------------------------------------------------------------------


def measure_engine(**settings: Any) -> dict[str, Any]:
    """As `engine_trial`, on the whole of MNIST."""
    train, test = whole_mnist()
    return engine_trial(train=train, test=test, **settings)


RECORDS: dict[str, Record] = {
    "performance_accuracy": Record(
        "The article's schedule on the whole of MNIST, 128 steps, batch 1000, three epochs, trained in each setting of"
        " the engine and tested in plain float32",
        measure_engine,
        [{"setting": setting, "seed": seed} for setting in ENGINE_SETTINGS for seed in range(5)],
    ),
}
