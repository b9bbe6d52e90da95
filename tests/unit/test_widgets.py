"""The explorers' JavaScript, run as it is shipped, against the helpers; and their Python side."""

from __future__ import annotations

import base64
import importlib
import json
import math
import pkgutil
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from browser import Tab, serve
from light import cut
from playwright.sync_api import Browser
from scripts import JS, Run, runner, script
from snn_chapters import explorers
from snn_chapters.after_spike import AfterSpikeNet, after_spike_law, after_spike_window
from snn_chapters.binary import BinarySpikingLayer, BinarySpikingNet
from snn_chapters.depth import EnsembleNet, fire_at
from snn_chapters.explorers.depth import DepthExplorer
from snn_chapters.explorers.encoding import EncodingExplorer
from snn_chapters.explorers.forward_in_time import ForwardExplorer
from snn_chapters.explorers.learning import LearningExplorer
from snn_chapters.explorers.many_spikes import ManySpikesExplorer
from snn_chapters.explorers.rates import RatesExplorer
from snn_chapters.explorers.rhythm import RhythmExplorer
from torch.utils.data import TensorDataset

from snn_helpers import MLP, SpikingNet, flicker, neuron_step, widgets
from snn_helpers.neurons import RESETS
from snn_helpers.plasticity import gradient_window, window_law
from snn_helpers.records import load_results
from snn_helpers.widgets import (
    DigitPlayground,
    Explorer,
    NeuronExplorer,
    WindowExplorer,
    bundle,
    pack,
    packed_net,
    uniform,
)

ROOT = Path(__file__).resolve().parents[2]


run = script("simulation.js")
windows = script("window_model.js")


def random_settings(rng: random.Random) -> dict[str, Any]:
    return {
        "decay": rng.choice([0.0, 1.0, rng.random(), rng.random(), rng.random()]),
        "threshold": rng.uniform(0.1, 3),
        "penalty": rng.uniform(0, 4),
        "reset": rng.choice(RESETS),
    }


def worst(found: Any, expected: torch.Tensor) -> float:
    difference = (torch.tensor(found, dtype=torch.float64) - expected.double()).abs()
    assert bool(torch.isfinite(difference).all())
    return float(difference.max())


# --- the same numbers, neurons, windows and networks --------------------------------------------------


def test_uniform_is_the_same_and_uniform(run: Run) -> None:
    cases = [[seed, start] for seed in (0, 1, 7, 999, 2**31 - 1) for start in (0, 5, 784_000)]
    for (seed, start), found in zip(cases, run("return Array.from(s.uniform(c[0], 50, c[1]))", cases)):
        assert uniform(seed, 50, start).tolist() == found
    draws = uniform(3, 100_000)
    assert draws.min() >= 0 and draws.max() < 1
    # The mean, the variance and the correlation of neighbours are those of independent uniform draws.
    assert abs(draws.mean() - 0.5) < 5 / (12 * 100_000) ** 0.5
    assert abs(draws.var() - 1 / 12) < 1e-3
    assert abs(torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1]) < 0.02
    assert torch.equal(uniform(3, 100), torch.cat([uniform(3, 60), uniform(3, 40, start=60)]))


def test_neuron_is_the_same_in_over_a_thousand_random_settings(run: Run) -> None:
    rng = random.Random(0)
    cases = []
    for _ in range(1200):
        settings = random_settings(rng)
        size = rng.uniform(0.1, 3)
        cases.append({"settings": settings, "currents": [rng.gauss(0.2, size) for _ in range(25)]})
    body = "const r = s.runNeuron(c.currents, c.settings); return [r.states, r.outputs, r.spikes, r.intervals]"
    differences, n_spikes = [], 0
    for case, (states, outputs, spikes, intervals) in zip(cases, run(body, cases)):
        state = torch.zeros((), dtype=torch.float64)
        expected_states, expected_outputs = [], []
        for current in torch.tensor(case["currents"], dtype=torch.float64):
            output, state = neuron_step(current, state, **case["settings"])
            expected_states.append(state)
            expected_outputs.append(output)
        fired = [t for t, output in enumerate(expected_outputs) if output > 0]
        assert spikes == fired
        assert intervals == [b - a for a, b in zip(fired, fired[1:])]
        differences.append(worst([states, outputs], torch.stack([*expected_states, *expected_outputs]).view(2, -1)))
        n_spikes += len(fired)
    print(f"largest difference {max(differences):.1e}, {n_spikes} spikes")
    assert max(differences) < 1e-5
    assert n_spikes > 1000


def test_rests_are_where_a_spike_has_thrown_the_state_below_zero(run: Run) -> None:
    settings = "{decay: 0.5, threshold: 1, penalty: 1.5, reset: 'scale'}"
    [[rests, states]] = run(
        f"const r = s.runNeuron(c, {settings}); return [r.rests, r.states]",
        [[1.2, 0, 0.2, 0.3, -0.9, 2, 2]],
    )
    # -0.6, -0.3, 0.05 | 0.325, -0.7375 without a spike | spikes at 5 and 6
    assert rests == [[0, 2], [5, 7], [6, 7]]
    assert [round(state, 4) for state in states[:5]] == [-0.6, -0.3, 0.05, 0.325, -0.7375]


def test_windows_are_the_same_in_over_a_thousand_random_settings(windows: Run) -> None:
    rng = random.Random(1)
    cases = []
    for _ in range(1100):
        earlier = rng.sample(range(1, 15), rng.randrange(4))
        after = {"afterDecay": rng.random(), "strength": rng.random(), "amplitude": rng.uniform(0.1, 2)}
        after |= {"lateCurrent": rng.choice([0.0, rng.uniform(-1, 1)]), "nAfter": rng.randrange(20, 60)}
        cases.append({"delays": list(range(-20, 21)), "earlier": earlier, "settings": random_settings(rng) | after})
    body = "return [s.windowLaw(c.delays, c.earlier, c.settings), s.afterSpikeLaw(c.delays, c.settings)]"
    differences = []
    for case, (window, after_window) in zip(cases, windows(body, cases)):
        neuron = {name: case["settings"][name] for name in ("decay", "threshold", "penalty", "reset")}
        after = {
            "after_decay": case["settings"]["afterDecay"],
            "strength": case["settings"]["strength"],
            "amplitude": case["settings"]["amplitude"],
            "late_current": case["settings"]["lateCurrent"],
            "n_after": case["settings"]["nAfter"],
        }
        differences.append(worst(window, window_law(case["delays"], case["earlier"], **neuron)))
        law = after_spike_law(case["delays"], decay=neuron["decay"], **after)
        differences.append(worst(after_window, law))
    print(f"largest difference {max(differences):.1e}")
    assert max(differences) < 1e-5


def test_measured_windows_are_what_autograd_finds(windows: Run) -> None:
    rng = random.Random(2)
    delays = list(range(-8, 13))
    cases: list[dict[str, Any]] = []
    for k in range(60):
        settings = random_settings(rng)
        settings |= {"amplitude": settings["threshold"], "nAfter": 30}  # gradient_window's clamp: twice the threshold
        earlier = rng.sample(range(1, 10), rng.randrange(3)) if k % 2 else []
        if not earlier:
            settings |= {"afterDecay": rng.random(), "strength": rng.random(), "lateCurrent": rng.uniform(-0.5, 0.5)}
        cases.append({"delays": delays, "earlier": earlier, "settings": settings})
    for case, found in zip(cases, windows("return s.measureWindow(c.delays, c.earlier, c.settings)", cases)):
        settings = case["settings"]
        neuron = {name: settings[name] for name in ("decay", "threshold", "penalty", "reset")}
        if case["earlier"]:
            expected = gradient_window(delays, case["earlier"], **neuron)
        else:
            expected = after_spike_window(
                delays,
                after_decay=settings.get("afterDecay", 0.0),
                strength=settings.get("strength", 0.0),
                amplitude=settings["amplitude"],
                late_current=settings.get("lateCurrent", 0.0),
                n_after=30,
                **neuron,
            )
        assert worst(found, expected) < 1e-5


def test_the_whole_law_is_what_is_measured(windows: Run) -> None:
    """Earlier spike and after-spike together, which the explorer alone shows."""
    rng = random.Random(3)
    cases = [
        {
            "delays": list(range(-15, 16)),
            "earlier": [rng.randrange(1, 12)],
            "settings": random_settings(rng) | {"afterDecay": rng.random(), "strength": rng.random()},
        }
        for _ in range(300)
    ]
    body = "return [s.measureWindow(c.delays, c.earlier, c.settings), s.wholeLaw(c.delays, c.earlier, c.settings)]"
    for measured, law in windows(body, cases):
        assert worst(measured, torch.tensor(law)) < 1e-5


class Cells(SpikingNet):
    """A `SpikingNet` in double precision whose weights are those that packing leaves; each layer has its settings."""

    def __init__(self, sizes: tuple[int, ...], n_steps: int, seed: int, neurons: list[dict[str, Any]]) -> None:
        super().__init__(n_steps, sizes=sizes, generator=torch.Generator().manual_seed(seed))
        self.neurons = neurons
        for layer, settings in zip(self.layers, neurons):
            for name, value in settings.items():
                setattr(layer, name, value)
        self.double()

    def parts(self) -> dict[str, Any]:
        """As the widget hands them to the browser; the network goes on with what they hold."""
        layers: list[Any] = list(self.layers)
        packed = [pack(layer.linear.weight.detach()) for layer in layers]
        for layer, (integers, scales) in zip(layers, packed):
            layer.linear.weight.data = integers * scales[:, None]
        return {
            "bytes": b"".join(integers.numpy().astype("<i2").tobytes() for integers, _ in packed),
            "sizes": [layers[0].n_inputs, *(layer.n_neurons for layer in layers)],
            "scales": [scales.tolist() for _, scales in packed],
            "biases": [layer.linear.bias.tolist() for layer in layers],
            "neurons": self.neurons,
        }


NETWORK = """
const bytes = new DataView(Uint8Array.from(atob(c.bytes), (l) => l.charCodeAt(0)).buffer);
const network = new s.Network(s.unpackLayers(bytes, c.sizes, c.scales, c.biases, c.neurons));
const states = [], outputs = [];
for (let t = 0; t < c.n_steps; t++) {
  network.step(s.flickerFrame(c.image, c.seed, t));
  states.push(network.handedOut.map((layer) => Array.from(layer.states)).flat());
  outputs.push(network.handedOut.map((layer) => Array.from(layer.outputs)).flat());
}
return [states, outputs, network.means, network.answer];
"""


@torch.no_grad()
def hold_network_to_python(run: Run, networks: list[tuple[Cells, torch.Tensor, int]]) -> float:
    cases = []
    for net, image, seed in networks:
        parts = net.parts()
        parts["bytes"] = base64.b64encode(parts["bytes"]).decode()
        cases.append({**parts, "image": image.tolist(), "seed": seed, "n_steps": net.n_steps})
    differences, n_spikes = [], 0
    for (net, image, seed), (states, outputs, means, answer) in zip(networks, run(NETWORK, cases)):
        inputs = (image * uniform(seed, net.n_steps * len(image)).view(net.n_steps, -1))[:, None]
        records = []
        for layer in net.layers:
            records.append(layer(inputs))
            inputs = records[-1][1]
        for found, expected in ((states, 0), (outputs, 1)):
            differences.append(worst(found, torch.cat([record[expected][:, 0] for record in records], dim=1)))
        n_spikes += int(sum((record[1] > 0).sum() for record in records))
        read = records[-1][0].mean(dim=0)[0]
        differences.append(worst(means, read))
        assert answer == int(read.argmax())
    assert n_spikes > len(networks)
    return max(differences)


def test_networks_are_the_same_in_over_a_thousand_random_settings(run: Run) -> None:
    rng = random.Random(4)
    networks = []
    for k in range(1050):
        sizes = (rng.randrange(3, 9), rng.randrange(2, 7), *([5] if k % 3 == 0 else []), 10)
        net = Cells(sizes, n_steps=7, seed=k, neurons=[random_settings(rng) for _ in sizes[1:]])
        image = 4 * torch.randn(net.layers[0].n_inputs, generator=torch.Generator().manual_seed(k)).double()  # type: ignore[arg-type]
        networks.append((net, image, k))
    difference = hold_network_to_python(run, networks)
    print(f"largest difference {difference:.1e}")
    assert difference < 1e-5


def test_the_chapters_network_is_the_same(run: Run) -> None:
    settings = {"decay": 0.9, "threshold": 1.0, "penalty": 1.5, "reset": "scale"}
    image = torch.rand(784, generator=torch.Generator().manual_seed(0)).double() - 0.5
    net = Cells((784, 100, 10), n_steps=48, seed=3, neurons=[settings, settings])
    assert hold_network_to_python(run, [(net, image, 5)]) < 1e-5


def test_flickering_current_is_the_same(run: Run) -> None:
    explorer = NeuronExplorer(strength=0.4, flicker=0.7, seed=12, n_steps=50)
    [found] = run("return s.flickeringCurrent(0.4, 0.7, 12, 50)", [0])
    assert worst(found, explorer.current()) < 1e-12
    explorer.flicker = 0.0
    assert torch.equal(explorer.current(), torch.full((50,), 0.4, dtype=torch.float64))


def test_frames_flicker_as_the_helper_s_do(run: Run) -> None:
    """Not with the same draws, but in the same way: each value times a fresh draw between 0 and 1."""
    image = [-0.5, 0.0, 0.5, 1.0]
    [frames] = run("return c[0].map((t) => Array.from(s.flickerFrame(c[1], 3, t)))", [[list(range(500)), image]])
    ours = torch.tensor(frames)
    theirs = flicker(torch.tensor(image), 500, torch.Generator().manual_seed(0))
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.mean(dim=0), theirs.mean(dim=0), atol=0.06, rtol=0)
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), atol=0.04, rtol=0)


def test_drawn_strokes_become_digits_like_the_trained_ones(run: Run) -> None:
    one, circle = (
        [[[10, 0], [10, 100]]],
        [[[50 + 40 * np.cos(a), 50 + 40 * np.sin(a)] for a in np.linspace(0, 6.28, 60)]],
    )
    shifted = [[[3 * x + 500, 3 * y - 90] for x, y in stroke] for stroke in circle]
    drawn = run("return Array.from(s.rasterise(c))", [one, circle, shifted, [[[5, 5]]], [], [[[5, 5], [5, 5]]]])
    one_image, circle_image, shifted_image, dot, nothing, stuck = (
        torch.tensor(d, dtype=torch.float64).view(28, 28) for d in drawn
    )
    torch.testing.assert_close(circle_image, shifted_image, atol=1, rtol=0)  # size and place on the pad do not matter
    rows = torch.arange(28) + 0.5
    for image in (one_image, circle_image, dot):
        assert abs((image.sum(dim=1) * rows).sum() / image.sum() - 14) < 0.2
        assert abs((image.sum(dim=0) * rows).sum() / image.sum() - 14) < 0.2
        assert image.max() > 230
    extent = (one_image.sum(dim=1) > 127).nonzero().flatten()
    assert 19 <= int(extent[-1] - extent[0]) + 1 <= 21  # as tall as MNIST's digits
    assert (one_image > 127).sum(dim=1).max() <= 4  # and about as thick
    assert nothing.sum() == 0 and dot.sum() > 0 and torch.equal(stuck, dot)


@pytest.mark.parametrize("name", ["neuron_explorer.js", "window_explorer.js", "digit_playground.js"])
def test_bundle_is_one_whole_module(name: str, tmp_path: Path) -> None:
    text = bundle(name)
    assert not [line for line in text.splitlines() if line.startswith("import ")]
    assert text.count("export ") == text.count("export default") == 1
    model = "window_model.js" if name == "window_explorer.js" else "simulation.js"
    for needed in (model, "neuron.js", "parts.js"):
        assert text.count((JS / needed).read_text(encoding="utf-8").splitlines()[0]) == 1, f"{needed} once, not twice"
    if node := shutil.which("node"):
        (tmp_path / "bundle.mjs").write_text(text, encoding="utf-8")
        done = subprocess.run([node, "--check", tmp_path / "bundle.mjs"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def spikes_of(explorer: NeuronExplorer) -> list[int]:
    """The steps in which the explorer's neuron fires, by the helpers' own step."""
    told = explorer.decay, explorer.threshold, explorer.penalty, explorer.reset
    state, fired = torch.zeros((), dtype=torch.float64), []
    for step, current in enumerate(explorer.current()):
        output, state = neuron_step(current, state, *told)
        if output > 0:
            fired.append(step)
    return fired


def test_what_the_introduction_answers_of_the_explorer_is_so() -> None:
    def gaps(**settings: float) -> list[int]:
        fired = spikes_of(NeuronExplorer(seed=0, n_steps=80, **settings))
        return [later - one for one, later in zip(fired, fired[1:])]

    silent = [percent for percent in range(100) if not spikes_of(NeuronExplorer(decay=percent / 100))]
    assert 55 <= max(silent) <= 65 and silent == list(range(len(silent)))
    steady = [percent for percent in range(100) if not spikes_of(NeuronExplorer(decay=percent / 100, flicker=0.0))]
    assert max(steady) == 75  # 0.25 / (1 - 0.75) is the threshold, and not above it
    for penalty, wait in ((1.5, 8), (3.0, 12)):
        found = gaps(penalty=penalty)
        assert round(sum(found) / len(found)) == wait
    assert set(gaps(flicker=0.0)) == {7}


# --- the Python side -----------------------------------------------------------------------------


def test_settings_are_traits_with_limits() -> None:
    explorer = NeuronExplorer(decay=0.8, reset="discharge")
    assert (explorer.decay, explorer.threshold, explorer.reset) == (0.8, 1.0, "discharge")
    assert explorer._start["decay"] == 0.8 and "n_steps" in explorer._start
    for name, wrong in (("decay", 1.1), ("threshold", 0.0), ("penalty", -1.0), ("reset", "soft"), ("seed", -1)):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)
    with pytest.raises(TypeError, match="unknown: strenght; the settings are decay, threshold"):
        NeuronExplorer(strenght=1.0)
    assert WindowExplorer(earlier=3).earlier == 3


def test_a_chapter_chooses_the_controls_that_it_shows() -> None:
    assert (NeuronExplorer()._controls, NeuronExplorer()._more) == (None, [])  # all of them, none folded
    explorer = WindowExplorer(controls=["earlier", "decay"], more=["reset", "decay"], earlier=4)
    assert (explorer._controls, explorer._more) == (["earlier", "decay", "reset"], ["reset", "decay"])
    assert explorer._start["strength"] == 0, "what has no control is still a setting"
    for wrong in ({"controls": ["decay", "beta"]}, {"more": ["beta"]}):
        with pytest.raises(ValueError, match="no control is called 'beta'; the controls are decay, threshold"):
            NeuronExplorer(**wrong)
    with pytest.raises(ValueError, match="no control is called 'n_steps'"):
        NeuronExplorer(controls=["n_steps"])


def test_defaults_are_those_of_neuron_step() -> None:
    for explorer in (NeuronExplorer(), WindowExplorer()):
        assert (explorer.decay, explorer.threshold, explorer.penalty, explorer.reset) == (0.9, 1.0, 1.5, "scale")


def test_packing_is_off_by_half_a_scale_at_most() -> None:
    weights = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[3] = 0
    integers, scales = pack(weights)
    assert integers.dtype == torch.int16
    assert bool(((weights - integers * scales[:, None]).abs() <= scales[:, None] / 2 + 1e-15).all())
    assert integers.abs().amax(dim=1).tolist() == [32767] * 3 + [0] + [32767] * 3


def test_packed_net_is_a_copy() -> None:
    net = SpikingNet(4, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    packed = packed_net(net)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(packed.state_dict(), before, rtol=0, atol=1e-5)
    assert not torch.equal(packed.layers[0].linear.weight, net.layers[0].linear.weight)  # type: ignore[union-attr, arg-type]


DIGITS = TensorDataset(
    torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0)) / 255 - 0.5,
    torch.tensor([3, 1, 4]),
)


def test_playground_carries_the_network_and_the_digits() -> None:
    net = SpikingNet(6, begin_eval=2, penalty=1.25, generator=torch.Generator().manual_seed(0))
    playground = DigitPlayground(net, DIGITS, seed=8)
    assert len(playground._weights) == 2 * (784 * 100 + 100 * 10)
    assert playground._neurons == 2 * [{"decay": 0.9, "threshold": 1.0, "penalty": 1.25, "reset": "scale"}]
    assert playground._showing == {"n_steps": 6, "begin_eval": 2}
    assert playground._labels == [3, 1, 4] and playground.seed == 8 and playground.answer == -1
    torch.testing.assert_close(playground.image(), DIGITS.tensors[0][0])
    for sizes, words in (((4, 3, 2), "784 pixels, not 4"), ((784, 5, 9), "ten answers"), ((784, 10), "hidden layer")):
        with pytest.raises(ValueError, match=words):
            DigitPlayground(SpikingNet(4, sizes=sizes), DIGITS)


def test_playground_tells_the_page_the_settings_of_each_layer() -> None:
    net = SpikingNet(20, sizes=(784, 12, 11, 10), generator=torch.Generator().manual_seed(0))
    fire_at(net, DIGITS.tensors[0], 0.1)
    thresholds = [float(layer.threshold) for layer in net.layers]  # type: ignore[arg-type]
    assert len({1.0, *thresholds}) == 4
    assert [neuron["threshold"] for neuron in DigitPlayground(net, DIGITS)._neurons] == thresholds


class Louder(SpikingNet):
    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        return super().forward(2 * images, generator)


def with_a_learned_threshold() -> SpikingNet:
    net = SpikingNet(4)
    net.layers[1].threshold = torch.nn.Parameter(torch.tensor(0.7))  # type: ignore[union-attr]
    return net


def with_a_wrapped_weight() -> SpikingNet:
    net = SpikingNet(4)
    layer: Any = net.layers[0]
    layer.linear = torch.nn.Sequential(layer.linear)
    return net


def with_another_layer() -> SpikingNet:
    net = SpikingNet(4)
    net.layers[1] = BinarySpikingLayer(100, 10)
    return net


@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP(),
        lambda: BinarySpikingNet(4),
        lambda: AfterSpikeNet(4),
        lambda: EnsembleNet(4, generator=torch.Generator().manual_seed(0)),
        lambda: Louder(4),
        with_a_learned_threshold,
        with_a_wrapped_weight,
        with_another_layer,
    ],
    ids=["mlp", "binary", "after-spike", "ensemble", "own forward", "learned threshold", "wrapped", "own layer"],
)
def test_networks_that_the_page_cannot_run_are_refused_in_words(make: Callable[[], Any]) -> None:
    net = make()
    with pytest.raises(TypeError, match="DigitPlayground is derived for a SpikingNet"):
        DigitPlayground(net, DIGITS)
    with pytest.raises(TypeError, match="packed_net is derived for a SpikingNet"):
        packed_net(net)


def test_settings_and_weights_that_make_no_sense_are_refused() -> None:
    net = SpikingNet(4)
    layer: Any = net.layers[1]
    layer.threshold = -1.0
    with pytest.raises(ValueError, match="threshold"):
        DigitPlayground(net, DIGITS)
    layer.threshold = 1.0
    layer.linear.weight.data[2, 3] = float("nan")
    with pytest.raises(ValueError, match="weights must be finite"):
        DigitPlayground(net, DIGITS)


class Negatives(TensorDataset):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        image, label = super().__getitem__(index)
        return -image, label


def test_digits_are_what_the_data_set_hands_out() -> None:
    net = SpikingNet(4)
    playground = DigitPlayground(net, Negatives(*DIGITS.tensors))
    torch.testing.assert_close(playground.image(), -DIGITS.tensors[0][0])
    empty = DigitPlayground(net, TensorDataset(torch.zeros(0, 1, 28, 28), torch.zeros(0)))
    assert empty.drawing == bytes(784) and empty._labels == []
    for images, words in (
        (torch.zeros(1, 1, 14, 14), r"784 pixels, not 196 \(digit 0\)"),
        (torch.full((1, 1, 28, 28), 0.9), "between -0.5 and 0.5"),
        (torch.full((1, 1, 28, 28), float("nan")), "between -0.5 and 0.5"),
    ):
        with pytest.raises(ValueError, match=words):
            DigitPlayground(net, TensorDataset(images, torch.tensor([1])))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_a_front_end_s_drawing_arrives(kind: Callable[[bytes], Any]) -> None:
    """Front ends send bytes beside their JSON, and the kernel gets them as a `memoryview`."""
    playground = DigitPlayground(SpikingNet(4), DIGITS)
    seen = []
    playground.observe(lambda change: seen.append(change["new"]), "drawing")
    data = bytes(range(256)) * 3 + bytes(16)
    playground.set_state({"drawing": kind(data), "answer": -1, "means": [0, 0.5]})
    assert playground.drawing == data and type(playground.drawing) is bytes and seen == [data]
    assert playground.answer == -1 and playground.means == [0, 0.5]
    torch.testing.assert_close(playground.image().flatten() + 0.5, torch.tensor(list(data)) / 255)


@pytest.mark.parametrize("wrong", [b"", bytes(783), memoryview(bytes(785)), bytearray(1)])
def test_a_drawing_of_another_size_is_refused_and_the_old_one_stays(wrong: Any) -> None:
    playground = DigitPlayground(SpikingNet(4), DIGITS)
    before = playground.drawing
    with pytest.raises(traitlets.TraitError, match=f"drawing must hold 784 bytes, not {len(wrong)}"):
        playground.set_state({"answer": 3, "drawing": wrong})
    assert playground.drawing == before and playground.answer == -1
    with pytest.raises(traitlets.TraitError, match="drawing"):
        playground.drawing = "7" * 784  # type: ignore[assignment]


def test_every_buffer_takes_what_a_front_end_sends() -> None:
    playground = DigitPlayground(SpikingNet(4), DIGITS)
    buffers = [name for name in playground.keys if isinstance(playground.traits()[name], traitlets.Bytes)]
    assert {"drawing", "_weights", "_digits"} <= set(buffers)
    for name in buffers:
        before = getattr(playground, name)
        playground.set_state({name: memoryview(before[::-1])})
        assert getattr(playground, name) == before[::-1]


def test_numpy_s_numbers_are_settings_too_and_no_number_is_none() -> None:
    explorer = NeuronExplorer(decay=np.float32(0.5), seed=np.int64(3), n_steps=np.uint8(9), penalty=2)
    state = explorer.get_state()
    assert [type(state[name]) for name in ("decay", "seed", "n_steps", "penalty")] == [float, int, int, float]
    assert (state["decay"], state["seed"]) == (0.5, 3) and len(explorer.current()) == 9
    assert json.loads(json.dumps(state["_start"]))["seed"] == 3
    for name, wrong in (("penalty", float("nan")), ("threshold", float("inf")), ("decay", True), ("seed", 1.5)):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, wrong)


def test_scripts_are_files_that_are_shipped() -> None:
    assert widgets._JS == JS
    # What lies there is a part of the script of an explorer of the book, and nothing else.
    explorers = {path.name for path in JS.glob("*_explorer.js")} | {"digit_playground.js", "learning_worker.js"}
    parts = {"parts.js", "neuron.js", "simulation.js", "learning_code.js", "learning_rules.js"}
    parts |= {path.name for path in JS.glob("*_model.js")}
    assert {path.name for path in JS.iterdir()} == explorers | parts | {"explorers.css"}
    shipped = [bundle(name) for name in sorted(explorers)]
    for name in parts:
        first = re.search(r"^export ((?:class|function) \w+)", (JS / name).read_text(encoding="utf-8"), re.M)
        assert first and any(first[1] in script for script in shipped), f"no explorer uses {name}"


# --- in a browser: controls, drawings and hosts --------------------------------------------------


def test_labels_are_spread_out_and_stay_near_their_lines(tmp_path: Path) -> None:
    rng = random.Random(6)
    cases = []
    for _ in range(300):
        gap, n = rng.uniform(1, 15), rng.randrange(1, 11)
        cases.append([[rng.choice([rng.uniform(-20, 120), 50.0]) for _ in range(n)], gap, 0, 100])
    with runner("parts.js", tmp_path / "scripts") as run:
        found = run("return s.spreadOut(c[0], c[1], c[2], c[3])", cases)
    for (wanted, gap, low, high), places in zip(cases, found):
        room = min(gap, (high - low) / max(1, len(wanted) - 1))
        order = sorted(range(len(wanted)), key=lambda k: wanted[k])
        sorted_places = [places[k] for k in order]
        assert low - 1e-9 <= min(sorted_places) and max(sorted_places) <= high + 1e-9
        assert all(b - a >= room - 1e-9 for a, b in zip(sorted_places, sorted_places[1:])), "in order, and apart"
        nearest = [wanted[k] for k in order]
        if nearest[0] >= low and nearest[-1] <= high and all(b - a >= room for a, b in zip(nearest, nearest[1:])):
            assert sorted_places == nearest, "what has room stays where it was"


def test_numbers_are_told_as_a_reader_expects_them(tmp_path: Path) -> None:
    """Nothing has no sign, at whatever depth; all else has its own; and there is one step, but two steps."""
    rng = random.Random(7)
    cases = [[rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 3), rng.randrange(5)] for _ in range(500)]
    cases += [[sign * value, decimals] for sign in (-1, 1) for value in (0.0, 0.004, 0.4) for decimals in (0, 2, 3)]
    with runner("parts.js", tmp_path / "scripts") as run:
        told = run("return [s.round(c[0], c[1]), s.signed(c[0], c[1])]", cases)
        assert run("return s.counted(c, 'step')", [0, 1, 2, 11]) == ["0 steps", "1 step", "2 steps", "11 steps"]
    nothing = 0
    for (value, decimals), (number, with_sign) in zip(cases, told):
        assert abs(float(number.replace("−", "-")) - value) <= 0.5 * 10**-decimals + 1e-9 and "-" not in number
        if float(number.replace("−", "-")) == 0:
            nothing += 1
            assert number == with_sign == f"{0:.{decimals}f}"
        else:
            assert with_sign == ("−" if value < 0 else "+") + number.removeprefix("−")
            assert number.startswith("−") == (value < 0)
    assert nothing > 50


def test_what_was_asked_last_is_remembered(tmp_path: Path) -> None:
    body = "let n = 0; const f = s.remembering((given) => [++n, given.at]); return c.map((at) => f({ at }))"
    with runner("parts.js", tmp_path / "scripts") as run:
        assert run(body, [[3, 3, 4, 4, 3]]) == [[[1, 3], [1, 3], [2, 4], [2, 4], [3, 3]]]


def test_ticks_are_round_and_inside_and_none_where_none_are_asked_for(tmp_path: Path) -> None:
    rng = random.Random(8)
    cases = [[low := rng.uniform(-50, 50), low + 10 ** rng.uniform(-2, 3), rng.randrange(1, 12)] for _ in range(300)]
    with runner("parts.js", tmp_path / "scripts") as run:
        found = run("return s.ticks(c[0], c[1], c[2])", cases)
        assert run("return s.ticks(-1, 1, c)", [0]) == [[]]
    for (low, high, n), values in zip(cases, found):
        step = (high - low) / n
        assert all(low - 1e-6 * step <= value <= high + 1e-6 * step for value in values) and len(values) <= n + 1
        for one, other in zip(values, values[1:]):
            power = 10 ** math.floor(math.log10(other - one) + 1e-6)
            assert (other - one) / power == pytest.approx(round((other - one) / power))
            assert round((other - one) / power) in (1, 2, 5)


for _module in pkgutil.iter_modules(explorers.__path__):
    importlib.import_module(f"{explorers.__name__}.{_module.name}")


def kinds_of(kind: type[Explorer] = Explorer) -> list[type[Explorer]]:
    """Every explorer of the book, those of single chapters included."""
    return [each for sub in kind.__subclasses__() for each in (sub, *kinds_of(sub))]


# The least that a host promises: MyST's model has get, set and on, tells each setting, and holds only JSON.
STAGE = """
window.Bare = class {
  told = new EventTarget();
  constructor(values) { this.values = values; }
  get(name) { return this.values[name]; }
  set(name, value) {
    this.values[name] = value;
    for (const event of [`change:${name}`, "change"])
      this.told.dispatchEvent(new CustomEvent(event, { detail: value }));
  }
  on(event, listener) { this.told.addEventListener(event, listener); }
};
window.show = async (text, values, above = 0) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const el = document.createElement("div");
  el.style.marginTop = `${above}px`;
  document.body.append(el);
  window.model = new window.Bare(values);
  window.stop = await widget.render({ model: window.model, el });
};
window.seen = () => [...document.querySelectorAll(".snn svg, .snn canvas, .snn pre")]
  .map((d) => d.tagName === "CANVAS" ? d.toDataURL() : d.innerHTML)
  .concat([...document.querySelectorAll(".snn [role=img], .snn-text")]
    .map((d) => d.getAttribute("aria-label") ?? d.textContent))
  .join("");
window.settle = () =>
  new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))));
window.slider = (label) => [...document.querySelectorAll(".snn input, .snn select")]
  .find((input) => input.labels[0].textContent.startsWith(label));
1
"""


def values_of(explorer: Explorer, *left_out: str) -> dict[str, Any]:
    """An explorer's state as JSON, without its script and what else is left out."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in explorer.get_state().items()
        if name not in ("_esm", "_css", *left_out)
    }


@pytest.fixture
def stage(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Tab]]:
    """A function that shows an explorer on a bare page; `bare`: without what not every host hands over."""
    style = (JS / "explorers.css").read_text("utf-8")
    (tmp_path / "page.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body></body></html>'
    )
    tabs = []
    with serve(tmp_path) as address:

        def show(explorer: Explorer, *, bare: bool = False, above: int = 0, prepare: str = "1", **window: Any) -> Tab:
            tab = Tab(browser, **{"still": True} | window)
            tabs.append(tab)
            tab.open(f"{address}/page.html")
            tab.run(STAGE)
            tab.run(prepare)
            state = values_of(explorer, *(("_start", "_controls", "_more") if bare else ()))
            tab.page.evaluate(
                "([text, values, above]) => show(text, values, above)", [str(explorer._esm), state, above]
            )
            return tab

        yield show
        for tab in tabs:
            tab.__exit__()


def example(kind: type[Explorer]) -> Explorer:
    if kind is DigitPlayground:
        return DigitPlayground(SpikingNet(6, generator=torch.Generator().manual_seed(0)), DIGITS)
    if kind is DepthExplorer:
        return DepthExplorer(TensorDataset(*(torch.cat([part, part]) for part in DIGITS.tensors)))
    if kind is EncodingExplorer:
        return EncodingExplorer(*DIGITS.tensors)
    if kind is LearningExplorer:
        return LearningExplorer(DIGITS, DIGITS, n_train=len(DIGITS), n_held_out=len(DIGITS))
    if kind is RatesExplorer:
        return RatesExplorer(load_results("04_learning_rate")["trials"])
    return kind()


@pytest.mark.parametrize("kind", kinds_of(), ids=lambda kind: kind.__name__)
def test_every_setting_but_those_without_has_one_control(kind: type[Explorer]) -> None:
    explorer = example(kind)
    controls = re.findall(r'\{ name: "(\w+)"', str(explorer._esm))
    assert sorted(controls) == sorted(set(kind._settings) - set(kind._without_control))
    assert set(explorer._start) == set(kind._settings)


@pytest.mark.parametrize("kinds", [kinds_of()], ids=["all"])  # of the book: tests define others meanwhile
def test_the_build_finds_what_all_explorers_share(kinds: list[type[Explorer]]) -> None:
    found = [cut(str(example(kind)._esm)) for kind in kinds]
    assert len({shared for shared, _ in found}) == 1 and all(rest for _, rest in found)


@pytest.mark.parametrize("kind", kinds_of(), ids=lambda kind: kind.__name__)
def test_every_explorer_runs_where_the_host_promises_little(kind: type[Explorer], stage: Callable[..., Tab]) -> None:
    tab = stage(example(kind), bare=True)
    tab.run("settle()")
    before = tab.run("seen()")
    tab.run("document.querySelector('.snn input[type=range]:not([aria-disabled=true])').focus()")
    at_its_end = tab.run("document.activeElement.value === document.activeElement.max")
    tab.press("ArrowLeft" if at_its_end else "ArrowRight", times=3)
    tab.wait(f"seen() !== {json.dumps(before)}", seconds=20)
    tab.run("[...document.querySelectorAll('.snn button')].find((b) => b.textContent === 'Reset')?.click()")
    tab.run("settle()")
    tab.run("stop?.()")
    assert not tab.faults


OTHER_VALUES = {
    "decay": [0.0, 0.31, 0.85, 1.0],
    "threshold": [0.1, 0.6, 1.3, 3.0],
    "penalty": [0.0, 0.4, 2.0, 4.0],
    "reset": list(RESETS),
    "strength": [0.0, 0.1, 0.6, 1.0],
    "flicker": [0.0, 0.4, 1.0],
    "seed": [0, 5, 77],
    "earlier": [0, 2, 11],
    "after_decay": [0.1, 0.5, 0.9],
}


@pytest.mark.parametrize("kind", [NeuronExplorer, WindowExplorer])
def test_a_control_is_grey_exactly_where_it_changes_nothing(kind: type[Explorer], stage: Callable[..., Tab]) -> None:
    """Every control in random settings, those at their ends among them, against what trying finds."""
    rng = random.Random(7)
    names = [name for name in kind._settings if name != "n_steps"]
    tab = stage(kind())
    script = """async ([settings, names, others]) => {
      for (const [name, value] of Object.entries(settings)) model.set(name, value);
      await settle();
      const first = seen(), found = {};
      for (const [k, name] of names.entries()) {
        const input = document.querySelectorAll(".snn .snn-control")[k].querySelector("input, select");
        const why = document.getElementById(input.getAttribute("aria-describedby"))?.textContent ?? "";
        const grey = input.getAttribute("aria-disabled") === "true";
        let acts = false;
        for (const value of others[name]) {
          model.set(name, value);
          await settle();
          acts ||= seen() !== first;
        }
        model.set(name, settings[name]);
        await settle();
        found[name] = [grey, why, acts];
      }
      return found;
    }"""
    greys = dict.fromkeys(names, 0)
    for _ in range(14):
        settings = {name: rng.choice(OTHER_VALUES[name]) for name in names}
        if rng.random() < 0.5:  # a neuron that fires, or has fired before, so that not all is grey
            settings |= {"decay": 0.9, "threshold": 1.0}
            settings |= {"reset": "scale", "earlier": 6} if kind is WindowExplorer else {}
        found = tab.page.evaluate(script, [settings, names, OTHER_VALUES])
        for name, (grey, why, acts) in found.items():
            assert grey != acts, f"{name} in {settings}: grey {grey} ({why}), and it acts: {acts}"
            assert bool(why) == grey and (not grey or why.startswith("no effect: "))
            greys[name] += grey
    print(greys)
    assert all(0 < greys[name] < 14 for name in ("penalty", "reset")) and not tab.faults


def test_a_grey_control_is_reached_but_does_not_move(stage: Callable[..., Tab]) -> None:
    tab = stage(WindowExplorer(penalty=2.0))
    assert tab.run("slider('penalty').getAttribute('aria-disabled')") == "true"
    tab.run("slider('penalty').focus()")
    tab.press("ArrowRight", times=3)
    assert tab.run("[slider('penalty').value, model.get('penalty')].join()") == "2,2"
    tab.run("slider('penalty').dataset.grey = ''")
    x, y = tab.centre("[data-grey]")
    tab.drag([(x, y), (x + 40, y)])
    assert tab.run("[slider('penalty').value, model.get('penalty')].join()") == "2,2"
    tab.run("slider('earlier').focus()")
    tab.press("ArrowRight", times=6)
    assert tab.run("slider('earlier').getAttribute('aria-valuetext')") == "6 steps"
    assert not tab.run("slider('penalty').hasAttribute('aria-disabled')")
    tab.run("slider('penalty').focus()")
    tab.press("ArrowRight", times=2)
    assert tab.run("model.get('penalty')") == pytest.approx(2.1)
    assert not tab.faults


def test_only_the_chosen_controls_are_shown(stage: Callable[..., Tab]) -> None:
    tab = stage(WindowExplorer(controls=["earlier", "decay"], more=["reset"], strength=0.3))
    labels = "[...document.querySelectorAll('.snn label')].map((l) => [l.textContent, Boolean(l.closest('details'))])"
    assert tab.run(labels) == [["earlier spike, steps before (0: none)", False], ["decay β", False], ["reset", True]]
    assert not tab.run("document.querySelector('.snn details').open")
    tab.run("document.querySelector('.snn summary').focus()")
    tab.press("Enter")
    assert tab.run("document.querySelector('.snn details').open")
    assert not tab.run("document.querySelector('.snn output:not([aria-live=off])')"), "a slider speaks once"
    # What is folded by itself is not where a chapter names it.
    assert ["seed", True] in stage(EncodingExplorer(*DIGITS.tensors)).run(labels)
    named = stage(EncodingExplorer(*DIGITS.tensors, controls=["seed", "code"], more=["decay"]))
    assert named.run(labels) == [["seed", False], ["code", False], ["decay β of the neuron", True]]


def test_a_slider_reaches_what_it_was_started_with(stage: Callable[..., Tab]) -> None:
    tab = stage(NeuronExplorer(threshold=0.05, penalty=6.0, strength=0.3))
    assert tab.run("['threshold', 'penalty', 'input'].map((name) => Number(slider(name).value))") == [0.05, 6, 0.3]
    tab.run("slider('threshold').focus()")
    tab.press("ArrowRight", times=2)
    assert tab.run("model.get('threshold')") == pytest.approx(0.15)
    tab.run("[...document.querySelectorAll('.snn button')].find((b) => b.textContent === 'Reset').click()")
    assert tab.run("[Number(slider('threshold').value), model.get('threshold')]") == [0.05, 0.05]
    assert not tab.faults
    longer = stage(ForwardExplorer(n_steps=90))
    assert longer.run("['steps gone', 'steps of the future'].map((name) => slider(name).max)") == ["90", "90"]


def test_nothing_is_computed_for_a_drawing_that_is_not_seen(stage: Callable[..., Tab]) -> None:
    tab = stage(NeuronExplorer(), above=5000)
    tab.run("settle()")
    empty = tab.run("seen()")
    assert "polyline" not in empty and "not drawn yet" in empty
    tab.run("model.set('decay', 0.5)")
    tab.run("settle()")
    assert tab.run("seen()") == empty
    tab.run("document.querySelector('.snn').scrollIntoView()")
    tab.wait("seen().includes('polyline')")
    drawn = tab.run("seen()")
    tab.run("scrollTo(0, 0)")
    for _ in range(5):
        tab.run("settle()")
    tab.run("model.set('decay', 0.95)")
    tab.run("settle()")
    assert tab.run("seen()") == drawn, "away again, it waits"
    tab.run("dispatchEvent(new Event('beforeprint'))")
    printed = tab.run("seen()")
    assert printed != drawn, "paper shows all"
    tab.run("document.querySelector('.snn').scrollIntoView()")
    for _ in range(5):
        tab.run("settle()")
    assert tab.run("seen()") == printed
    tab.run("stop()")
    assert not tab.faults
    # A browser that cannot tell what is seen draws all.
    old = stage(NeuronExplorer(decay=0.5), above=5000, prepare="delete window.IntersectionObserver")
    assert old.run("seen()") == drawn


def test_another_width_listens_to_no_rhythm_again(stage: Callable[..., Tab]) -> None:
    verdict = "document.querySelector('.snn svg text[font-weight]').textContent"
    tab = stage(RhythmExplorer(n=20, feedback=10.0, n_listened=256))
    tab.wait(f"/^(Rhythm|No rhythm)/.test({verdict})")
    before = tab.run(
        f"window.seenSince = []; new MutationObserver(() => seenSince.push({verdict}))"
        f".observe(document.querySelector('.snn svg'), {{ childList: true }}); {verdict}"
    )
    tab.page.set_viewport_size({"width": 620, "height": 700})
    tab.wait("seenSince.length > 0")
    assert set(tab.run("seenSince")) == {before} and not tab.faults
    tab.run("model.set('seed', 1)")
    tab.wait("seenSince.includes('Listening …')")


@pytest.mark.parametrize("broken", ["decay=abc&reset=none", "decay=%zz", "decay=1e999&seed=&strength=NaN", "%"])
def test_a_broken_link_leaves_the_settings_and_the_rest_of_it_counts(broken: str, stage: Callable[..., Tab]) -> None:
    hash_ = f"location.hash = {json.dumps(f'neuron?{broken}&penalty=0.5')}; Bare.prototype.isStatic = true"
    tab = stage(NeuronExplorer(), prepare=hash_)
    tab.run("settle()")
    kept = tab.run("['decay', 'reset', 'strength', 'seed'].map((name) => model.get(name))")
    assert kept == [0.9, "scale", 0.25, 0]
    assert tab.run("model.get('penalty')") == 0.5 and not tab.faults


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_an_axis_of_steps_has_whole_ones(n_steps: int, stage: Callable[..., Tab]) -> None:
    tab = stage(EncodingExplorer(*DIGITS.tensors, n_steps=n_steps))
    texts = "[...document.querySelectorAll('.snn svg text')]"
    below = f"{texts}.find((each) => each.textContent === 'time (steps)').getAttribute('y') - 16"
    ticks = tab.run(f"{texts}.filter((each) => each.getAttribute('y') == {below}).map((each) => each.textContent)")
    assert ticks == [str(step) for step in range(n_steps)]


@pytest.mark.parametrize("kind", [NeuronExplorer, WindowExplorer])
def test_on_a_phone_the_drawing_stays_in_sight(kind: type[Explorer], stage: Callable[..., Tab]) -> None:
    tab = stage(kind(), above=900, width=390, height=664, finger=True)
    tab.run("settle()")
    for index in range(tab.run("document.querySelectorAll('.snn .snn-control').length")):
        control = f"document.querySelectorAll('.snn .snn-control')[{index}].querySelector('input, select')"
        tab.run(f"{control}.focus(); {control}.scrollIntoView({{block: 'nearest', behavior: 'instant'}})")
        for _ in range(3):
            tab.run("settle()")
        drawing = tab.run("document.querySelector('.snn svg').getBoundingClientRect().toJSON()")
        at = tab.run(f"{control}.getBoundingClientRect().toJSON()")
        assert drawing["top"] >= 0 and drawing["bottom"] <= at["top"] and at["bottom"] < 665
        assert 170 <= drawing["height"] <= 0.45 * 664
        x, y = at["left"] + at["width"] / 2, at["top"] + at["height"] / 2
        assert tab.run(f"document.elementFromPoint({x}, {y}) === {control}"), "nothing lies on it"
    small = tab.run(
        "[...document.querySelectorAll('.snn svg text')].filter((t) => parseFloat(getComputedStyle(t).fontSize) *"
        " Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b) < 9).map((t) => t.textContent)"
    )
    assert not small
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


# What of an explorer lies behind something else: a slider just below the drawing; and what comes after the sliders,
# at each of these shares of the window's height.
HIDDEN = """(low) => {
  const held = document.querySelector(".snn-parted .snn-picture"), hidden = [];
  const parts = [...document.querySelectorAll(".snn .snn-control :is(input, select), .snn button, .snn a, "
    + ".snn summary, .snn .snn-below p:not(.snn-heard), .snn .snn-below figure, .snn .snn-below canvas")]
    .filter((part) => !held?.contains(part) && part.checkVisibility());
  for (const part of parts) {
    // A slider goes behind the drawing, as it must; what comes after the sliders never does.
    const isSlider = part.closest(".snn-control, summary");
    const heights = isSlider && held ? [null] : low;
    for (const share of heights) {
      const top = share === null ? held.getBoundingClientRect().height + 4 : share * innerHeight;
      scrollBy({ top: part.getBoundingClientRect().top - top, behavior: "instant" });
      const box = part.getBoundingClientRect(), y = box.top + Math.min(box.height / 2, 12);
      const found = document.elementFromPoint(box.left + Math.min(box.width / 2, 30), y);
      if (!part.contains(found) && !found?.contains(part)) hidden.push(`${part.outerHTML.slice(0, 80)} at ${share}`);
      else if (found !== part && held?.contains(found)) hidden.push(`${part.outerHTML.slice(0, 80)} at ${share}`);
    }
  }
  return hidden;
}"""


@pytest.mark.parametrize("kind", kinds_of(), ids=lambda kind: kind.__name__)
def test_on_a_phone_nothing_lies_on_what_is_read_and_pressed(kind: type[Explorer], stage: Callable[..., Tab]) -> None:
    tab = stage(
        example(kind),
        above=900,
        width=390,
        height=664,
        finger=True,
        prepare="document.body.style.paddingBottom = '900px'",
    )
    tab.run("document.querySelector('.snn').scrollIntoView()")
    for _ in range(3):
        tab.run("settle()")
    assert tab.page.evaluate(HIDDEN, [0.05, 0.2, 0.35, 0.6]) == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


CUT = """[...document.querySelectorAll(".snn select")].filter((menu) => {
  const free = menu.cloneNode(true);
  free.style.cssText = "position: absolute; max-width: none; width: max-content";
  menu.after(free);
  const needed = free.getBoundingClientRect().width;
  free.remove();
  return menu.checkVisibility() && menu.getBoundingClientRect().width < needed - 0.5;
}).map((menu) => menu.labels[0].textContent)"""


@pytest.mark.parametrize("kind", kinds_of(), ids=lambda kind: kind.__name__)
def test_menus_show_their_longest_choice(kind: type[Explorer], stage: Callable[..., Tab]) -> None:
    tab = stage(example(kind), width=760, height=700)
    tab.run("document.querySelectorAll('.snn details').forEach((fold) => { fold.open = true; })")
    for width in (760, 390, 1280):
        tab.page.set_viewport_size({"width": width, "height": 700})
        assert tab.run(CUT) == [], width


@pytest.mark.parametrize("width", [390, 1280])
def test_the_legend_names_a_state_where_one_is_drawn(width: int, stage: Callable[..., Tab]) -> None:
    tab = stage(ManySpikesExplorer(), width=width, height=664)
    tab.run("settle()")
    drawn = tab.run("document.querySelectorAll('.snn svg .snn-state').length > 0")
    assert drawn == tab.run("document.querySelector('.snn-legend .snn-state').checkVisibility()") == (width > 700)


def test_the_pad_s_answer_is_under_the_pad(stage: Callable[..., Tab]) -> None:
    net = SpikingNet(6, generator=torch.Generator().manual_seed(0))
    tab = stage(DigitPlayground(net, DIGITS), width=390, height=664, finger=True)
    tab.run("document.querySelector('.snn-pad').scrollIntoView()")
    tab.run("settle()")
    for part in (".snn-pad", ".snn-answer", ".snn-reading canvas"):
        assert tab.run(f"document.querySelector('{part}').getBoundingClientRect().bottom") <= 664, part
    assert not tab.run("document.querySelector('.snn details').open")
    assert tab.run("slider('step').getAttribute('aria-valuetext')") == "6 of 6 steps"
    assert tab.run("getComputedStyle(document.querySelector('figcaption')).fontWeight") == "400"


def test_a_drawn_digit_is_not_the_picked_one(stage: Callable[..., Tab]) -> None:
    tab = stage(DigitPlayground(SpikingNet(6, generator=torch.Generator().manual_seed(0)), DIGITS))
    pick = "document.querySelector('.snn select').value"
    assert tab.run(pick) == "0"
    tab.run("document.querySelector('.snn-pad').id = 'pad'")
    x, y = tab.centre("#pad")
    tab.drag([(x, y - 50), (x, y + 50)])
    assert tab.run(pick) == ""
    tab.run("document.querySelector('.snn select').value = '1'")
    tab.run("document.querySelector('.snn select').dispatchEvent(new Event('change'))")
    tab.run("document.querySelector('.snn-pad').focus()")
    tab.press(" ")
    assert tab.run(pick) == "", "the keyboard draws, too"
    assert not tab.faults


@pytest.mark.parametrize("bias", [1.0, -30.0, 0.0])
def test_the_race_names_all_ten_labels(bias: float, stage: Callable[..., Tab]) -> None:
    """Labels far apart, and all at one place; and the lowest number with its minus."""
    net = SpikingNet(12, generator=torch.Generator().manual_seed(0))
    last: Any = net.layers[1].linear
    last.weight.data *= 0 if bias == 0 else 1
    last.bias.data = bias * torch.linspace(0, 1, 10)
    record = """const fillText = CanvasRenderingContext2D.prototype.fillText; window.words = [];
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
      words.push([text, x, y, this.measureText(text).width, this.textAlign]); fillText.call(this, text, x, y); }; 1"""
    tab = stage(DigitPlayground(net, DIGITS), prepare=record)
    tab.run("words.length = 0; slider('step').focus()")
    tab.press("ArrowLeft")
    words = tab.run("words")
    height = tab.run("document.querySelector('.snn-race').clientHeight")
    labels = {text: y for text, x, y, _, align in words if align == "left"}
    assert sorted(labels) == [str(k) for k in range(10)]
    places = sorted(labels.values())
    assert min(b - a for a, b in zip(places, places[1:])) >= 12 - 1e-9
    assert places[0] >= 8 and places[-1] <= height - 16
    assert all(x - width >= 0 for _, x, _, width, align in words if align == "right")
    assert not tab.faults
