"""The book's figures: one style, and pictures that return; first used in chapters 01 (neurons), 03 and 05 (windows).

Each function draws into the axes that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from matplotlib.axes import Axes
from torch import Tensor

from .long.vectors import use_vectors

# Okabe and Ito's palette: told apart with every kind of colour vision, though not all in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#5F6368"


def use_style() -> None:
    """Set the style of all figures of the notebook that calls it."""
    use_vectors()
    plt.rcParams.update(
        {
            # An opaque light card, so that the lines read on a dark page too.
            "figure.facecolor": "#FCFCFC",
            "axes.facecolor": "#FCFCFC",
            "savefig.facecolor": "#FCFCFC",
            "figure.figsize": (5.5, 3.2),  # no wider, so that text is read on a phone
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "legend.edgecolor": "none",  # a card that lets lines shine through
            "legend.fontsize": 10,
            "lines.linewidth": 1.6,
        }
    )


def plot_neuron(ax: Axes, state: Tensor, output: Tensor, threshold: float, title: str = "") -> None:
    """One neuron over time: its state as a line, its outputs as bars from the threshold up, as the explorer has them.

    `state`, `output`: `[T]`, in units of the state.
    """
    steps = range(len(state))
    ax.axhline(threshold, color=GREY, linestyle="--", linewidth=1, label="threshold")
    ax.plot(steps, state.detach().cpu(), color=BLUE, label="state")
    fired = [t for t in steps if output[t] > 0]
    if fired:
        heights = output.detach().cpu()[fired].tolist()
        ax.bar(fired, heights, width=0.6, bottom=threshold, color=RED, label="output")
    ax.set(xlabel="time (steps)", ylabel="state", title=title)
    ax.legend(loc="upper right", ncols=3, handlelength=1.2, columnspacing=0.8, borderaxespad=0)


def plot_raster(ax: Axes, outputs: Tensor, title: str = "") -> None:
    """A dot for each spike: `outputs` `[T, n_neurons]`, a row for each neuron."""
    times, neurons = (outputs.detach().cpu() > 0).nonzero(as_tuple=True)
    ax.scatter(times, neurons, s=5, marker="|", color=BLUE, linewidths=1)
    ax.set(xlabel="time (steps)", ylabel="neuron", title=title)
    ax.set(xlim=(0, len(outputs)), ylim=(-0.5, outputs.shape[1] - 0.5))


def plot_window(
    ax: Axes, delays: Sequence[float] | Tensor, changes: Sequence[float] | Tensor, title: str = "", label: str = ""
) -> None:
    """A plasticity window: the change of a weight against delay = t_post - t_pre, in steps.

    Positive delays are pre before post, shaded as the causal half.
    """
    delays, changes = (torch.as_tensor(values).detach().cpu() for values in (delays, changes))
    if not ax.lines:  # the first curve brings the frame
        if delays.max() > 0:
            ax.axvspan(0, delays.max().item(), color=GREY, alpha=0.1, linewidth=0)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set(xlabel="delay t_post − t_pre (steps)", ylabel="weight change", title=title)
    ax.plot(delays, changes, marker="o", markersize=3.5, label=label or None)
    if label:
        ax.legend()
