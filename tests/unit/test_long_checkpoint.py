"""What a checkpoint is compared by, and that it can be read again whatever kind of numbers `fit` was given."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from test_training import (
    RATES,
    SETTINGS,
    PowerCut,
    cut_after,
    noisy_mlp,
    patterns,
    same_weights,
    seeded,
    spiking,
    without_seconds,
)
from torch import Tensor, nn

from snn_helpers import MLP, SpikingNet, fit
from snn_helpers.long.checkpoint import settings_of
from snn_helpers.training import CheckpointError, fit_adam


def cut_run(model: nn.Module, path: Path, **settings: Any) -> None:
    """A run that is cut in its fourth batch of the second epoch, saved after the second: 9 of 21."""
    with pytest.raises(PowerCut):
        fit(cut_after(model, 10), patterns(), **{"checkpoint": path, "checkpoint_every": 2} | SETTINGS | settings)


# --- Which model it is ----------------------------------------------------------------------------


class Dressed(SpikingNet):
    """The same network, printed in another way and under another name."""

    def extra_repr(self) -> str:
        return "the best of all networks"


def test_how_a_model_is_printed_does_not_matter(tmp_path: Path) -> None:
    whole, resumed = spiking(), Dressed(5, sizes=(16, 12, 3), threshold=0.2, generator=seeded(100))
    history = fit(whole, patterns(), **SETTINGS)
    cut_run(spiking(), tmp_path / "run.pt")
    assert str(resumed) != str(whole)
    assert fit(resumed, patterns(), checkpoint=tmp_path / "run.pt", **SETTINGS).loss == history.loss
    assert same_weights(resumed, whole)


def other_threshold() -> SpikingNet:
    """A network one of whose layers was changed after it had been made."""
    net: Any = spiking()
    net.layers[1].threshold = 0.3
    return net  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "other", "told", "untold"),
    [
        (
            spiking,
            lambda: SpikingNet(5, sizes=(16, 12, 3), threshold=0.25),
            ["layers.0.threshold=0.2", "layers.0.threshold=0.25"],
            ["n_steps"],
        ),
        (spiking, other_threshold, ["layers.1.threshold=0.2", "layers.1.threshold=0.3"], ["layers.0", "n_steps"]),
        (
            spiking,
            lambda: SpikingNet(6, sizes=(16, 12, 3), threshold=0.2),
            ["n_steps=5 there", "n_steps=6 here"],
            ["layers"],
        ),
        (
            noisy_mlp,
            lambda: MLP((16, 12, 3), flickering=True, dropout=0.4),
            ["dropout=0.3 there", "dropout=0.4 here"],
            ["flickering"],
        ),
    ],
    ids=["threshold", "one layer's threshold", "n_steps", "dropout"],
)
def test_another_setting_is_refused_by_name(
    make: Callable[[], nn.Module], other: Callable[[], nn.Module], told: list[str], untold: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    cut_run(make(), path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"belongs to another run .network: ") as caught:
        fit(other(), patterns(), checkpoint=path, **SETTINGS)
    message = str(caught.value).removeprefix(str(path))
    assert all(part in message for part in told) and not any(part in message for part in untold)
    assert path.read_bytes() == before


def test_a_checkpoint_that_described_its_network_in_other_terms_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    cut_run(spiking(), path)
    saved = torch.load(path, weights_only=True)
    saved["run"]["network"] = "n_steps=5, begin_eval=0"
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=r"network: n_steps=5, begin_eval=0 there, .*Move the file away"):
        fit(spiking(), patterns(), checkpoint=path, **SETTINGS)


class Keeper(nn.Module):
    """A model with an extra state: a setting as JSON in bytes, of another length for another setting."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale
        self.linear = nn.Linear(16, 3)
        nn.init.uniform_(self.linear.weight, generator=seeded(0))
        nn.init.zeros_(self.linear.bias)
        self.restored: list[float] = []

    def get_extra_state(self) -> Tensor:
        return torch.tensor(list(json.dumps({"scale": self._scale}).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        self.restored.append(json.loads(bytes(state.tolist()))["scale"])

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (self._scale * self.linear(images.flatten(1))).log_softmax(dim=1)


def test_a_model_with_an_extra_state_goes_on(tmp_path: Path) -> None:
    whole, resumed = Keeper(0.5), Keeper(0.5)
    history = fit(whole, patterns(), **SETTINGS)
    cut_run(Keeper(0.5), tmp_path / "run.pt")
    assert fit(resumed, patterns(), checkpoint=tmp_path / "run.pt", **SETTINGS).loss == history.loss
    assert same_weights(resumed, whole)
    assert resumed.restored == [0.5]


def test_another_extra_state_is_another_setting_not_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    cut_run(Keeper(0.5), path)
    with pytest.raises(CheckpointError, match=r"network: scale=0.5 there, scale=0.0625 here") as caught:
        fit(Keeper(0.0625), patterns(), checkpoint=path, **SETTINGS)
    assert "shapes" not in str(caught.value)


class Both(NamedTuple):
    rate: float
    kind: str


class Settings(nn.Module):
    """One attribute of each kind."""

    def __init__(self, **others: Any) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = True, 3, 0.5, "word"
        self.pair, self.both = (1, "x"), Both(0.25, "y")
        self._private, self.nothing, self.tensor, self.listed = 7, None, torch.zeros(2), [1, 2]
        self.mixed, self.register = (1, torch.zeros(1)), {"a": 1}
        self.inner = nn.Dropout(0.1)
        for name, value in others.items():
            setattr(self, name, value)


WANTED: dict[str, Any] = {"a": True, "b": 3, "c": 0.5, "d": "word", "pair": [1, "x"]}
WANTED |= {"both.rate": 0.25, "both.kind": "y", "inner.p": 0.1, "inner.inplace": False}


@pytest.mark.parametrize("others", [{}, {"b": np.int64(3), "c": np.float64(0.5), "pair": (np.int32(1), "x")}])
def test_settings_are_the_plain_public_attributes(others: dict[str, Any]) -> None:
    found = settings_of(Settings(**others))
    assert found == WANTED
    buffer = io.BytesIO()
    torch.save(found, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == WANTED
    assert settings_of(Settings().eval()) == WANTED, "whether a model is in training is no setting"


def test_a_setting_of_nan_is_itself() -> None:
    assert settings_of(Settings(c=float("nan"))) == settings_of(Settings(c=np.float64("nan"))) != WANTED


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (torch.tensor(list(b'{"a": [1, 2.5], "b": {"c": null}}'), dtype=torch.uint8), {"a": [1, 2.5], "b.c": None}),
        ({"a": np.float32(0.5), "b": (1, 2)}, {"a": 0.5, "b": [1, 2]}),
        (torch.tensor([1.0, 2.0]), {"extra state": [1.0, 2.0]}),
        (torch.tensor(list(b"no JSON"), dtype=torch.uint8), {}),
        (object(), {}),
    ],
    ids=["JSON", "dict", "tensor", "bytes", "object"],
)
def test_an_extra_state_of_any_kind(state: Any, wanted: dict[str, Any]) -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> Any:
            return state

    assert settings_of(Odd()) == wanted
    assert settings_of(nn.Sequential(nn.Identity(), Odd())) == {f"1.{name}": value for name, value in wanted.items()}


# --- Numbers of every kind ------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "learning_rates": [0.25, 0.125, 0.0625],
    "momentum": 0.5,
    "weight_decay": 0.0625,
    "batch_size": 4,
    "parts": 2,
    "checkpoint_every": 2,
    "seed": 7,
}
OTHER_KINDS: list[dict[str, Any]] = [
    {"learning_rates": np.array([0.25, 0.125, 0.0625])},
    {"learning_rates": np.array([0.25, 0.125, 0.0625], dtype=np.float32)},
    {"learning_rates": torch.tensor([0.25, 0.125, 0.0625])},
    {"learning_rates": [np.float64(0.25), np.array(0.125), Fraction(1, 16)]},
    {"learning_rates": iter([0.25, 0.125, 0.0625])},
    {"momentum": np.float64(0.5), "weight_decay": np.float32(0.0625)},
    {"momentum": np.array(0.5), "weight_decay": torch.tensor(0.0625)},
    {"batch_size": np.int64(4), "parts": np.int32(2), "checkpoint_every": np.uint8(2), "seed": np.int64(7)},
    {"batch_size": np.array(4), "parts": torch.tensor(2), "checkpoint_every": np.array(2), "seed": np.array(7)},
]


@pytest.fixture(scope="module")
def plain_run() -> tuple[nn.Module, Any]:
    model = spiking()
    return model, fit(model, patterns(), **SETTINGS | PLAIN)


@pytest.mark.parametrize("kinds", OTHER_KINDS, ids=lambda kinds: ", ".join(kinds))
def test_numbers_of_any_kind_make_the_plain_run(kinds: dict[str, Any], plain_run: Any, tmp_path: Path) -> None:
    """Written to a checkpoint, read without running code, and continued, with plain numbers too."""
    whole, history = plain_run
    path = tmp_path / "run.pt"
    # An iterator can be read once.
    kinds = {name: list(value) if name == "learning_rates" else value for name, value in kinds.items()}
    cut_run(spiking(), path, **PLAIN | kinds)
    saved = torch.load(path, weights_only=True)
    assert {name: saved["run"][name] for name in PLAIN if name != "checkpoint_every"} == {
        name: value for name, value in PLAIN.items() if name != "checkpoint_every"
    }
    copy = path.read_bytes()
    for settings in (PLAIN | kinds, PLAIN):
        path.write_bytes(copy)
        resumed = spiking(seed=100)
        again = fit(resumed, patterns(), checkpoint=path, **SETTINGS | settings)
        assert without_seconds(again) == without_seconds(history)
        assert same_weights(resumed, whole)


WRONG: list[tuple[str, Any, str]] = [
    ("learning_rates", 0.1, "must be a list that holds one number for each epoch, such as [0.1], not float"),
    ("learning_rates", np.float64(0.1), "must be a list"),
    ("learning_rates", np.array(0.1), "must be a list"),
    ("learning_rates", "0.1", "must be a list"),
    ("learning_rates", None, "must be a list"),
    ("learning_rates", {0.1: 1}, "must be a list"),
    ("learning_rates", np.array([]), "it is empty"),
    ("learning_rates", [0.1, -0.1], "[1] must be a finite number of 0 or more, not -0.1"),
    ("learning_rates", [float("nan")], "[0] must be a finite number"),
    ("learning_rates", [0.1, float("inf")], "[1] must be a finite number"),
    ("learning_rates", [True], "[0] must be a number, not bool"),
    ("learning_rates", ["0.1"], "[0] must be a number, not str"),
    ("learning_rates", np.array([True]), "[0] must be a number, not bool"),
    ("learning_rates", np.array([0.1 + 0j]), "[0] must be a number, not complex"),
    ("learning_rates", np.ones((2, 2)), "[0] must be a number, not ndarray"),
    *(
        (name, value, told)
        for name in ("momentum", "weight_decay")
        for value, told in (
            (-0.1, "must be a finite number of 0 or more, not -0.1"),
            (np.float64("nan"), "must be a finite number"),
            ("0.5", "must be a number, not str"),
            (True, "must be a number, not bool"),
            (np.array(True), "must be a number, not bool"),
            (0.5j, "must be a number, not complex"),
            (None, "must be a number, not NoneType"),
            ([0.5], "must be a number, not list"),
        )
    ),
    *(
        (name, value, told)
        for name in ("batch_size", "parts", "checkpoint_every", "seed")
        for value, told in (
            (2.0, "must be a whole number, not float"),
            (np.float64(2), "must be a whole number, not float64"),
            ("2", "must be a whole number, not str"),
            (True, "must be a whole number, not bool"),
            (np.True_, "must be a whole number, not bool"),
            (torch.tensor(True), "must be a whole number, not Tensor"),
            (2j, "must be a whole number, not complex"),
            (None, "must be a whole number, not NoneType"),
        )
    ),
    *((name, -1, "must be 1 or more, not -1") for name in ("batch_size", "parts", "checkpoint_every")),
    ("batch_size", np.int64(0), "must be 1 or more, not 0"),
]


@pytest.mark.parametrize(("name", "value", "told"), WRONG, ids=lambda value: str(value)[:20])
def test_what_is_no_number_for_a_setting_is_refused_first(name: str, value: Any, told: str, tmp_path: Path) -> None:
    model = cut_after(spiking(), 0)  # fails if it is called at all
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(model, patterns(), checkpoint=tmp_path / "run.pt", **SETTINGS | {name: value})
    assert str(caught.value).startswith(name) and told in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert same_weights(model, spiking())


ADAM: dict[str, Any] = {
    "seed": 3,
    "learning_rate": 0.03125,
    "epochs": 2,
    "batch_size": 5,
    "longest_gradient": 0.5,
    "device": "cpu",
}


@pytest.mark.parametrize(
    "kinds",
    [
        {"seed": np.int64(3), "learning_rate": np.float32(0.03125), "longest_gradient": np.float64(0.5)},
        {"epochs": np.int32(2), "batch_size": np.array(5), "learning_rate": np.array(0.03125)},
        {"longest_gradient": torch.tensor(0.5)},
    ],
)
def test_fit_adam_takes_numbers_of_any_kind(kinds: dict[str, Any]) -> None:
    one, other = noisy_mlp(), noisy_mlp()
    losses = fit_adam(one, patterns(), **ADAM | kinds)
    assert losses == fit_adam(other, patterns(), **ADAM)
    assert same_weights(one, other) and {type(loss) for loss in losses} == {float}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("learning_rate", -0.1, "must be a finite number above 0"),
        ("learning_rate", 0, "must be a finite number above 0"),
        ("learning_rate", float("nan"), "must be a finite number above 0"),
        ("learning_rate", [0.1], "must be a number, not list"),
        ("learning_rate", True, "must be a number, not bool"),
        ("epochs", 0, "must be 1 or more, not 0"),
        ("epochs", 1.5, "must be a whole number, not float"),
        ("batch_size", "5", "must be a whole number, not str"),
        ("seed", 0.5, "must be a whole number, not float"),
        ("longest_gradient", np.float64("nan"), "must be above 0, or None"),
        ("longest_gradient", "1", "must be above 0, or None"),
        ("longest_gradient", 1j, "must be above 0, or None"),
        ("longest_gradient", True, "must be above 0, or None"),
    ],
)
def test_fit_adam_refuses(name: str, value: Any, told: str) -> None:
    model = cut_after(noisy_mlp(), 0)
    with pytest.raises((TypeError, ValueError)) as caught:
        fit_adam(model, patterns(), **ADAM | {name: value})
    assert str(caught.value).startswith(name) and told in str(caught.value)
    assert same_weights(model, noisy_mlp())


def test_the_rates_are_one_for_each_epoch() -> None:
    assert len(fit(noisy_mlp(), patterns(), **SETTINGS | {"learning_rates": np.linspace(0.1, 0.05, 2)}).loss) == 14
    assert len(RATES) == 3
