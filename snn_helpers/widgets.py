"""The live explorers: on the rendered page with no kernel, and in a running notebook.

What they simulate and draw lies in `js/`, plain modules whose model a test holds to `neuron_step`,
`window_law`, `after_spike_law` and `SpikingNet`. Here are only their settings, as traits of the Python
object: what a reader chooses in a running notebook, the next cell can use. First used in chapters
01 (neuron), 03 (digits) and 06 (windows).
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets as t
from torch import Tensor
from torch.utils.data import Dataset

from .layers import SpikingLayer
from .long.plain_layers import plain_layers
from .networks import SpikingNet
from .neurons import RESETS

_JS = Path(__file__).parent / "js"
_IMPORT = re.compile(r'^(?:im|ex)port \{[^}]*\} from "\./([\w.]+)";\n', re.M)
# What all explorers share, and the line after it: of what is before, the pages share one file.
_SHARED = "parts.js"
_SEAM = "// --- what follows is one explorer's own ---\n"


def bundle(name: str) -> str:
    """A script of `js/` and those that it imports, as the one module that anywidget loads; first what others share."""
    order: list[str] = []

    def visit(name: str) -> None:
        for needed in _IMPORT.findall((_JS / name).read_text(encoding="utf-8")):
            visit(needed)
        if name not in order:
            order.append(name)

    visit(name)
    order.sort(key=_SHARED.__ne__)  # it imports nothing
    sources = [_IMPORT.sub("", (_JS / name).read_text(encoding="utf-8")) for name in order]
    if order[0] == _SHARED:
        sources[0] += _SEAM
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


class Number(t.Float):  # type: ignore[type-arg]  # Colab's traitlets has no such arguments
    """A finite number. NumPy's numbers are taken, and made plain: the page gets them as JSON."""

    info_text = "a finite number"

    def validate(self, obj: Any, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            self.error(obj, value)
        return float(super().validate(obj, float(value)))


class Whole(t.Int):  # type: ignore[type-arg]
    """A whole number, NumPy's included."""

    info_text = "a whole number"

    def validate(self, obj: Any, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            self.error(obj, value)
        return int(super().validate(obj, int(value)))


class Buffer(t.Bytes):
    """Bytes, which a front end sends as a `memoryview`; `length`: how many there must be, if that is known."""

    def __init__(self, default: bytes = b"", length: int | None = None) -> None:
        super().__init__(default)
        self._length = length

    def validate(self, obj: Any, value: Any) -> bytes:
        if isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        data = bytes(super().validate(obj, value) or b"")
        if self._length is not None and len(data) != self._length:
            raise t.TraitError(f"{self.name} must hold {self._length} bytes, not {len(data)}; it stays as it was")
        return data


class Explorer(anywidget.AnyWidget):
    """Common to all: the style, the settings that the reset button brings back, and which of them have a control.

    Parameters
    ----------
    controls : names of the settings that have a control, in their order; all of them if not given. The others
        keep the values that they have: a chapter need not show what only a later one explains.
    more : names of settings whose controls are folded away under "More settings".
    settings : the traits' values at the start.

    Raises
    ------
    TypeError : for a setting that the explorer does not have.
    ValueError : for the name of a control that it does not have.
    """

    _css = _JS / "explorers.css"
    _start = t.Dict().tag(sync=True)
    _controls: t.List[Any] = t.List(t.Unicode(), default_value=None, allow_none=True).tag(sync=True)
    _more: t.List[Any] = t.List(t.Unicode()).tag(sync=True)
    _settings: tuple[str, ...] = ()
    _without_control: tuple[str, ...] = ()

    def __init__(self, *, controls: Sequence[str] | None = None, more: Sequence[str] = (), **settings: Any) -> None:
        unknown = sorted(set(settings) - set(self._settings))
        if unknown:
            raise TypeError(f"unknown: {', '.join(unknown)}; the settings are {', '.join(self._settings)}")
        moved = [name for name in self._settings if name not in self._without_control]
        for name in (*(controls or ()), *more):
            if name not in moved:
                raise ValueError(f"no control is called {name!r}; the controls are {', '.join(moved)}")
        super().__init__(**settings)
        self._start = {name: getattr(self, name) for name in self._settings}
        self._more = list(more)
        if controls is not None:
            self._controls = list(dict.fromkeys((*controls, *more)))


class NeuronExplorer(Explorer):
    """One neuron, driven by a flickering current: first used in chapter 01.

    Traits, which the sliders set and Python can read, set and observe: `decay`, `threshold`,
    `penalty` and `reset` as in `neuron_step`; `strength`, the mean of the current; `flicker`, from 0
    (steady) to 1 (uniform between 0 and twice the mean); `seed`; `n_steps`, which has no slider.
    `controls` and `more`: see `Explorer`.
    """

    _esm = bundle("neuron_explorer.js")
    _settings = ("decay", "threshold", "penalty", "reset", "strength", "flicker", "seed", "n_steps")
    _without_control = ("n_steps",)

    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    strength = Number(0.25, min=0).tag(sync=True)
    flicker = Number(1.0, min=0, max=1).tag(sync=True)
    seed = Whole(0, min=0).tag(sync=True)
    n_steps = Whole(80, min=1).tag(sync=True)

    def current(self) -> Tensor:
        """The current that the explorer shows, `[n_steps]`, float64."""
        current: Tensor = self.strength * (1 - self.flicker + self.flicker * (2 * uniform(self.seed, self.n_steps)))
        return current


class WindowExplorer(Explorer):
    """The window that a gradient draws around one spike: first used in chapter 06.

    Traits: `decay`, `threshold`, `penalty` and `reset` as in `neuron_step`; `earlier`, how many steps
    before it the neuron fired too (0: it did not); `strength` and `after_decay`, the size and length
    of the after-spike of chapter 09 (strength 0: there is none). `controls` and `more`: see `Explorer`.
    """

    _esm = bundle("window_explorer.js")
    _settings = ("decay", "threshold", "penalty", "reset", "earlier", "strength", "after_decay")

    decay = Number(0.9, min=0, max=1).tag(sync=True)
    threshold = Number(1.0, min=0.01).tag(sync=True)
    penalty = Number(1.5, min=0).tag(sync=True)
    reset = t.Enum(RESETS, default_value="scale").tag(sync=True)
    earlier = Whole(0, min=0, max=30).tag(sync=True)
    strength = Number(0.0, min=0).tag(sync=True)
    after_decay = Number(0.8, min=0, max=0.98).tag(sync=True)


def pack(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as whole numbers of 16 bits, with a scale for each row; derived in chapter 03.

    Parameters
    ----------
    weights : `[n_neurons, n_inputs]`, floating, all finite.

    Returns
    -------
    (integers, scales) : `[n_neurons, n_inputs]` of int16, and `[n_neurons]`; `weights` are
        `integers * scales[:, None]`, off by half a scale at most.

    Raises
    ------
    ValueError : if a weight is infinite or no number.
    """
    if not weights.isfinite().all():
        raise ValueError("the weights must be finite numbers; training with a lower learning rate may keep them so")
    scales = weights.abs().amax(dim=1).clamp(min=1e-12) / 32767
    return (weights / scales[:, None]).round().to(torch.int16), scales


def packed_net(net: SpikingNet) -> SpikingNet:
    """A copy of the network with the weights that are left after packing: what the browser runs."""
    packed = copy.deepcopy(net)
    for layer in _page_layers(packed, "packed_net"):
        integers, scales = pack(layer.linear.weight.detach())
        layer.linear.weight.data = integers * scales[:, None]
    return packed


def _page_layers(net: SpikingNet, for_what: str) -> list[SpikingLayer]:
    """The layers of a network that the page's script can run; a `TypeError` says what it cannot."""
    layers = plain_layers(net, for_what)
    if type(net).frames is not SpikingNet.frames:
        raise TypeError(f"{for_what} shows flickering images; {type(net).__name__} shows them in a way of its own")
    for layer in layers:
        _ = layer.neuron  # raises for settings that describe no neuron
    return layers


class DigitPlayground(Explorer):
    """A trained network in the browser, and a pad to draw a digit on: first used in chapter 03.

    Parameters
    ----------
    net : a trained `SpikingNet` from 28 x 28 pixels to ten digits, with one hidden layer or more, on any
        device. Each layer may have its own settings, as `fire_at` leaves them.
    digits : real digits to pick from, of (image, label), normalised as `load_mnist` does it.
    seed : of the flicker.

    Traits: `drawing`, what was shown last, 784 bytes; `answer`, what the network read, -1 before it
    has; `means`, the ten read-outs; `seed`. `image()` gives the drawing as the network takes it.

    Raises
    ------
    TypeError : for a network that is not a plain `SpikingNet`: the page runs no other.
    ValueError : for other sizes, and for images that do not fit.
    """

    _esm = bundle("digit_playground.js")
    _settings = ("seed",)

    seed = Whole(0, min=0).tag(sync=True)
    drawing = Buffer(bytes(784), length=784).tag(sync=True)
    answer = Whole(-1, min=-1, max=9).tag(sync=True)
    means = t.List(Number()).tag(sync=True)
    _neurons: t.List[Any] = t.List().tag(sync=True)
    _showing = t.Dict().tag(sync=True)
    _sizes = t.List(Whole()).tag(sync=True)
    _weights = Buffer().tag(sync=True)
    _scales: t.List[Any] = t.List().tag(sync=True)
    _biases: t.List[Any] = t.List().tag(sync=True)
    _digits = Buffer().tag(sync=True)
    _labels = t.List(Whole()).tag(sync=True)

    def __init__(self, net: SpikingNet, digits: Dataset[Any], seed: int = 0) -> None:
        layers = _page_layers(net, "DigitPlayground")
        sizes = [layers[0].n_inputs, *(layer.n_neurons for layer in layers)]
        if sizes[0] != 784:
            raise ValueError(f"the network must read 784 pixels, not {sizes[0]}")
        if sizes[-1] != 10 or len(sizes) < 3:
            raise ValueError(
                f"the network must have a hidden layer and ten answers, such as (784, 100, 10), not {sizes}"
            )
        images, labels = _as_bytes(digits)
        super().__init__(seed=seed)
        packed = [pack(layer.linear.weight.detach().cpu()) for layer in layers]
        with self.hold_sync():
            # Layer by layer: nothing says that all layers have the settings of the first.
            self._neurons = [
                {name: float(getattr(layer, name)) for name in ("decay", "threshold", "penalty")}
                | {"reset": layer.reset}
                for layer in layers
            ]
            self._showing = {"n_steps": int(net.n_steps), "begin_eval": int(net.begin_eval)}
            self._sizes = sizes
            self._weights = b"".join(integers.numpy().astype("<i2").tobytes() for integers, _ in packed)
            self._scales = [scales.tolist() for _, scales in packed]
            self._biases = [layer.linear.bias.detach().cpu().tolist() for layer in layers]
            self._digits = images
            self._labels = labels
            if labels:
                self.drawing = images[:784]

    def image(self) -> Tensor:
        """The drawing, normalised as `load_mnist` does it: `[1, 28, 28]`, torch's default dtype."""
        pixels = torch.tensor(list(self.drawing), dtype=torch.get_default_dtype())
        return pixels.reshape(1, 28, 28) / 255 - 0.5


def _as_bytes(digits: Any) -> tuple[bytes, list[int]]:
    """Each image as 784 bytes, one after the other, and the labels."""
    images, labels = [], []
    # One by one, as the data set hands them out, whatever it makes of what it holds.
    for k in range(len(digits)):
        image, label = digits[k]
        pixels = torch.as_tensor(image).detach().cpu().flatten()
        if len(pixels) != 784:
            raise ValueError(f"each digit must have 784 pixels, not {len(pixels)} (digit {k})")
        if not (pixels.abs() <= 0.5 + 1e-6).all():  # what is no number is not below it either
            raise ValueError(f"pixels must lie between -0.5 and 0.5, as load_mnist gives them (digit {k})")
        images.append(bytes(((pixels + 0.5) * 255).round().to(torch.uint8).tolist()))
        labels.append(int(label))
    return b"".join(images), labels
