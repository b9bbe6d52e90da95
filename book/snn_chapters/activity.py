"""Pictures of a whole layer over time; derived in chapter 03."""

from __future__ import annotations

from matplotlib.axes import Axes
from torch import Tensor


def plot_layer(ax: Axes, values: Tensor, title: str = "", label: str = "", signed: bool = False) -> None:
    """A layer over time as an image: `values` `[T, n_neurons]`, a row for each neuron.

    `signed` centres the colours on zero, blue below and red above; without it, what is silent is white.
    """
    picture = values.detach().cpu().float().numpy().T
    limit = float(abs(picture).max()) or 1.0
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "Blues"}
    image = ax.imshow(picture, aspect="auto", **colours)
    ax.grid(False)
    ax.set(xlabel="time (steps)", ylabel="neuron", title=title)
    colorbar = ax.figure.colorbar(image, ax=ax)
    colorbar.set_label(label)
