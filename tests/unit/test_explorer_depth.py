"""The explorer of chapter 11: its script against the chapter's own `diagnose` and `fire_at`; its Python side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import traitlets
from scripts import runner
from snn_chapters.depth import EnsembleNet, diagnose
from snn_chapters.explorers.depth import DepthExplorer
from torch.utils.data import TensorDataset

from snn_helpers import load_mnist

Look = Callable[[list[dict[str, Any]]], list[list[dict[str, Any]]]]
RETURNED = (
    "fires: l.fires, rate: l.rate, reach: l.reach, gradient: l.gradient, threshold: l.threshold,"
    " ofWeight: [...l.ofWeight.slice(-7)]"
)


def strokes(n: int = 6) -> TensorDataset:
    """Images of bright blocks on an empty background, as digits are, whose pixels are whole numbers of 255ths."""
    levels = torch.randint(0, 256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    levels[..., :7], levels[..., 21:], levels[:, :, ::3] = 0, 0, 0
    return TensorDataset(levels / 255 - 0.5, torch.tensor([5, 0, 4, 1, 9, 2]))


def looker(run: Any, digits: TensorDataset) -> Look:
    """What the page's script sees in each of some settings, on the first five digits."""
    levels = ((digits.tensors[0][:5] + 0.5) * 255).round().int().flatten().tolist()
    body = (
        f"globalThis.seen ??= Float64Array.from({levels}, (level) => level / 255 - 0.5);"
        f"return s.look(globalThis.seen, {digits.tensors[1][:5].tolist()}, c).map((l) => ({{ {RETURNED} }}));"
    )
    return lambda cases: run(body, cases)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    with runner("depth_model.js", tmp_path_factory.mktemp("scripts")) as run:
        yield looker(run, strokes())


def settings_of(explorer: DepthExplorer) -> dict[str, Any]:
    return {name: getattr(explorer, name) for name in explorer._settings}


def random_explorer(rng: random.Random) -> DepthExplorer:
    return DepthExplorer(
        strokes(),
        layers=rng.randrange(2, 6),
        scale=rng.uniform(0.5, 4),
        threshold=rng.uniform(0.1, 1.5),
        decay=rng.choice([0.0, 1.0, rng.random(), rng.uniform(0.7, 1)]),
        repair=rng.choice([*["none"] * 6, "thresholds from data"]),
        wanted_rate=rng.choice([0.2, rng.uniform(0.05, 0.4)]),
        readout=rng.choice(["states", "spikes"]),
        seed=rng.randrange(1000),
    )


def test_layers_are_what_the_chapter_s_diagnose_finds_in_random_settings(look: Look) -> None:
    rng = random.Random(0)
    explorers = [random_explorer(rng) for _ in range(120)]
    walls = 0
    for explorer, found in zip(explorers, look([settings_of(explorer) for explorer in explorers])):
        health = diagnose(explorer.network(), *explorer.images())
        assert len(found) == len(health) == explorer.layers
        for ours, theirs in zip(found, health):
            assert ours["fires"] == pytest.approx(1 - theirs.dead, abs=1e-6)
            assert ours["rate"] == pytest.approx(theirs.rate, abs=1e-6)
            assert ours["reach"] == pytest.approx(theirs.reach, abs=1e-6)
            assert ours["gradient"] == pytest.approx(theirs.gradient, rel=1e-9, abs=1e-15)
        walls += found[0]["reach"] == 0
    assert 12 < walls < 108  # both kinds of network are among them


def test_gradients_are_autograd_s_weight_by_weight(look: Look) -> None:
    rng = random.Random(1)
    explorers = [random_explorer(rng) for _ in range(20)]
    for explorer, found in zip(explorers, look([settings_of(explorer) for explorer in explorers])):
        net: Any = explorer.network()
        images, labels = explorer.images()
        F.nll_loss(net(images), labels).backward()
        for layer, ours in zip(net.layers, found):
            assert ours["threshold"] == pytest.approx(layer.threshold, rel=1e-9)
            expected = layer.linear.weight.grad.flatten()[-7:].tolist()
            assert ours["ofWeight"] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_weights_are_drawn_as_the_book_s_layers_draw_them() -> None:
    explorer = DepthExplorer(strokes(), layers=3)
    net: Any = explorer.network()
    like: Any = EnsembleNet(20, sizes=(784, 100, 100, 10), generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(net.layers, like.layers):
        for part in ("weight", "bias"):
            drawn, wanted = (getattr(layer.linear, part).detach() for layer in (ours, theirs))
            assert drawn.shape == wanted.shape
            assert drawn.abs().max().item() == pytest.approx(
                wanted.abs().max().item(), rel=0.3 if part == "bias" else 0.02
            )
            assert drawn.std().item() == pytest.approx(wanted.std().item(), rel=0.35 if part == "bias" else 0.08)
        assert ours.penalty == 1.5 * ours.threshold
    explorer.scale, first = 2.0, net.layers[0].linear
    larger: Any = explorer.network()
    torch.testing.assert_close(larger.layers[0].linear.weight, 2 * first.weight)
    torch.testing.assert_close(larger.layers[0].linear.bias, first.bias)


def test_depth_changes_none_of_the_layers_below(look: Look) -> None:
    cases = [settings_of(DepthExplorer(strokes(), layers=layers, scale=2.5)) for layers in (3, 6)]
    shallow, deep = look(cases)
    for one, other in zip(shallow[:2], deep):
        assert (one["fires"], one["rate"]) == (other["fires"], other["rate"]) and one["fires"] > 0


def test_what_the_chapter_answers_of_the_explorer_is_so(tmp_path: Any) -> None:
    digits = load_mnist("train", source="subset")  # other digits than the page's: the answers are not of these five
    with runner("depth_model.js", tmp_path) as run:
        look = looker(run, digits)
        start = settings_of(DepthExplorer(digits))

        def seen(**settings: Any) -> list[dict[str, Any]]:
            [found] = look([start | settings])
            return found

        assert [layer["fires"] > 0 for layer in seen()] == [True, True, False, False]
        assert seen()[0]["reach"] == 0
        assert seen(scale=1.6)[0]["reach"] == 0 and seen(scale=1.7)[0]["reach"] > 0.3
        assert seen(layers=8, scale=2.5)[0]["reach"] == 0 and seen(layers=8, scale=3)[0]["reach"] > 0.5
        for low, high, layers in ((1.5, 1.8, 4), (2.5, 3.0, 8)):
            for few in (digits, TensorDataset(*(part[5:] for part in digits.tensors))):
                grid = [round(low - 0.1 + 0.1 * k, 1) for k in range(round(10 * (high - low)) + 2)]
                asked = [
                    start | {"layers": layers, "scale": scale, "seed": seed} for seed in range(3) for scale in grid
                ]
                found = [net[0]["reach"] for net in looker(run, few)(asked)]
                for seed in range(3):
                    reach = found[seed * len(grid) : (seed + 1) * len(grid)]
                    assert reach[0] == 0 and reach[-1] > 0
                    assert next(share for share in reach if share) > 0.3
        assert seen(threshold=0.6)[0]["reach"] > 0.4
        mended = [seen(layers=layers, repair="thresholds from data")[0] for layers in range(2, 9)]
        assert all(layer["reach"] > 0.8 for layer in mended)
        sizes = [layer["gradient"] for layer in mended]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] > 100 * sizes[-1]


def test_settings_are_traits_with_limits_and_digits_must_fit() -> None:
    digits = strokes()
    explorer = DepthExplorer(digits, layers=6)
    assert explorer._start["layers"] == 6 and explorer._start["threshold"] == 1.0
    images, labels = explorer.images()
    torch.testing.assert_close(images, digits.tensors[0][:5].double(), rtol=0, atol=1e-7)
    assert labels.tolist() == digits.tensors[1][:5].tolist()
    for name, wrong in (
        ("layers", 1),
        ("layers", 9),
        ("scale", -1.0),
        ("threshold", 0.0),
        ("decay", 1.1),
        ("repair", "weights"),
        ("wanted_rate", 0.5),
        ("readout", "charges"),
        ("seed", -1),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: depth; the settings are layers, scale"):
        DepthExplorer(digits, depth=3)
    for wrong_images, words in (
        (digits.tensors[0][:4], "5 digits or more, not 4"),
        (digits.tensors[0][..., :14], "784 pixels, not 392"),
        (255 * digits.tensors[0], "between -0.5 and 0.5"),
    ):
        with pytest.raises(ValueError, match=words):
            DepthExplorer(TensorDataset(wrong_images, digits.tensors[1][: len(wrong_images)]))
