"""The live explorers: on the rendered page with no kernel, and in a running notebook.

What they simulate and draw lies in `js/`, plain modules whose model a test holds to `neuron_step`,
`window_law`, `after_spike_law` and `SpikingNet`. Here are only their settings, as traits of the Python
object: what a reader chooses in a running notebook, the next cell can use. First used in chapters
01 (neuron), 03 (digits) and 06 (windows).
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets as t
from torch import Tensor
from torch.utils.data import TensorDataset

from .networks import SpikingNet
from .neurons import RESETS

_JS = Path(__file__).parent / "js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.M)


def bundle(name: str) -> str:
    """A script of `js/` and those that it imports, as the one module that anywidget loads."""
    order: list[str] = []

    def visit(name: str) -> None:
        for needed in _IMPORT.findall((_JS / name).read_text(encoding="utf-8")):
            visit(needed)
        if name not in order:
            order.append(name)

    visit(name)
    sources = [_IMPORT.sub("", (_JS / name).read_text(encoding="utf-8")) for name in order]
    return "\n".join(re.sub(r"^export (?!default)", "", source, flags=re.M) for source in sources)


def uniform(seed: int, n: int, start: int = 0) -> Tensor:
    """The numbers `start`, …, `start + n - 1` that the explorers draw from a seed: `[n]` in [0, 1), float64.

    The generator is mulberry32, so that a browser and Python draw the same.
    """
    with np.errstate(over="ignore"):
        a = np.uint32(seed % 2**32) + np.arange(start + 1, start + n + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
        x = (a ^ (a >> np.uint32(15))) * (a | np.uint32(1))
        x ^= x + (x ^ (x >> np.uint32(7))) * (x | np.uint32(61))
    return torch.from_numpy((x ^ (x >> np.uint32(14))) / 2.0**32)


class _Explorer(anywidget.AnyWidget):
    """Common to all: the style, and the settings that the reset button brings back."""

    _css = _JS / "explorers.css"
    _start = t.Dict().tag(sync=True)
    _settings: tuple[str, ...] = ()

    def __init__(self, **settings: Any) -> None:
        unknown = sorted(set(settings) - set(self._settings))
        if unknown:
            raise TypeError(f"unknown: {', '.join(unknown)}; the settings are {', '.join(self._settings)}")
        super().__init__(**settings)
        self._start = {name: getattr(self, name) for name in self._settings}


class NeuronExplorer(_Explorer):
    """One neuron, driven by a flickering current: first used in chapter 01.

    Traits, which the sliders set and Python can read, set and observe: `decay`, `threshold`,
    `penalty` and `reset` as in `neuron_step`; `strength`, the mean of the current; `flicker`, from 0
    (steady) to 1 (uniform between 0 and twice the mean); `seed`; `n_steps`.
    """

    _esm = bundle("neuron_explorer.js")
    _settings = ("decay", "threshold", "penalty", "reset", "strength", "flicker", "seed", "n_steps")

    decay = t.Float(0.9, min=0, max=1).tag(sync=True)
    threshold = t.Float(1.0, min=0.01).tag(sync=True)
    penalty = t.Float(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    strength = t.Float(0.25, min=0).tag(sync=True)
    flicker = t.Float(1.0, min=0, max=1).tag(sync=True)
    seed = t.Int(0, min=0).tag(sync=True)
    n_steps = t.Int(80, min=1).tag(sync=True)

    def current(self) -> Tensor:
        """The current that the explorer shows, `[n_steps]`, float64."""
        return self.strength * (1 - self.flicker + self.flicker * (2 * uniform(self.seed, self.n_steps)))


class WindowExplorer(_Explorer):
    """The window that a gradient draws around one spike: first used in chapter 06.

    Traits: `decay`, `threshold`, `penalty` and `reset` as in `neuron_step`; `earlier`, how many steps
    before it the neuron fired too (0: it did not); `strength` and `after_decay`, the size and length
    of the after-spike of chapter 07 (strength 0: there is none).
    """

    _esm = bundle("window_explorer.js")
    _settings = ("decay", "threshold", "penalty", "reset", "earlier", "strength", "after_decay")

    decay = t.Float(0.9, min=0, max=1).tag(sync=True)
    threshold = t.Float(1.0, min=0.01).tag(sync=True)
    penalty = t.Float(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    earlier = t.Int(0, min=0, max=30).tag(sync=True)
    strength = t.Float(0.0, min=0).tag(sync=True)
    after_decay = t.Float(0.8, min=0, max=0.98).tag(sync=True)


def pack(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as whole numbers of 16 bits, with a scale for each row; derived in chapter 03.

    Parameters
    ----------
    weights : `[n_neurons, n_inputs]`, floating.

    Returns
    -------
    (integers, scales) : `[n_neurons, n_inputs]` of int16, and `[n_neurons]`; `weights` are
        `integers * scales[:, None]`, off by half a scale at most.
    """
    scales = weights.abs().amax(dim=1).clamp(min=1e-12) / 32767
    return (weights / scales[:, None]).round().to(torch.int16), scales


def packed_net(net: SpikingNet) -> SpikingNet:
    """A copy of the network with the weights that are left after packing: what the browser runs."""
    packed = copy.deepcopy(net)
    layers: list[Any] = list(packed.layers)
    for layer in layers:
        integers, scales = pack(layer.linear.weight.detach())
        layer.linear.weight.data = integers * scales[:, None]
    return packed


class DigitPlayground(_Explorer):
    """A trained network in the browser, and a pad to draw a digit on: first used in chapter 03.

    Parameters
    ----------
    net : a trained `SpikingNet` that reads 28 x 28 pixels, on any device.
    digits : real digits to pick from, of (image, label).
    seed : of the flicker.

    Traits: `drawing`, what was shown last, 784 bytes; `answer`, what the network read, -1 before it
    has; `means`, the ten read-outs; `seed`. `image()` gives the drawing as the network takes it.
    """

    _esm = bundle("digit_playground.js")
    _settings = ("seed",)

    seed = t.Int(0, min=0).tag(sync=True)
    drawing = t.Bytes(bytes(784)).tag(sync=True)
    answer = t.Int(-1).tag(sync=True)
    means = t.List(t.Float()).tag(sync=True)
    _neuron = t.Dict().tag(sync=True)
    _sizes = t.List(t.Int()).tag(sync=True)
    _weights = t.Bytes().tag(sync=True)
    _scales: t.List[Any] = t.List().tag(sync=True)
    _biases: t.List[Any] = t.List().tag(sync=True)
    _digits = t.Bytes().tag(sync=True)
    _labels = t.List(t.Int()).tag(sync=True)

    def __init__(self, net: SpikingNet, digits: TensorDataset, seed: int = 0) -> None:
        layers: list[Any] = list(net.layers)
        if layers[0].n_inputs != 784:
            raise ValueError(f"the network must read 784 pixels, not {layers[0].n_inputs}")
        super().__init__(seed=seed)
        packed = [pack(layer.linear.weight.detach().cpu()) for layer in layers]
        images, labels = digits.tensors
        with self.hold_sync():
            self._neuron = {name: getattr(layers[0], name) for name in ("decay", "threshold", "penalty", "reset")}
            self._neuron |= {"n_steps": net.n_steps, "begin_eval": net.begin_eval}
            self._sizes = [layers[0].n_inputs, *(layer.n_neurons for layer in layers)]
            self._weights = b"".join(integers.numpy().astype("<i2").tobytes() for integers, _ in packed)
            self._scales = [scales.tolist() for _, scales in packed]
            self._biases = [layer.linear.bias.detach().cpu().tolist() for layer in layers]
            self._digits = _as_bytes(images)
            self._labels = labels.tolist()
            self.drawing = self._digits[:784]

    def image(self) -> Tensor:
        """The drawing, normalised as `load_mnist` does it: `[1, 28, 28]`, torch's default dtype."""
        pixels = torch.tensor(list(self.drawing), dtype=torch.get_default_dtype())
        return pixels.reshape(1, 28, 28) / 255 - 0.5


def _as_bytes(images: Tensor) -> bytes:
    return bytes(((images.detach().cpu().flatten() + 0.5) * 255).round().clamp(0, 255).to(torch.uint8).tolist())
