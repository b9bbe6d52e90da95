"""The pictures: what they draw, where, and that their colours can be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from snn_chapters.activity import plot_layer

from snn_helpers import plots


@pytest.fixture
def axes() -> Iterator[tuple[Axes, Axes]]:
    """Two axes of a figure that pyplot knows nothing of, drawn to the end; pyplot must stay as it was."""
    assert matplotlib.get_backend().lower() == "agg"
    settings, figures = dict(plt.rcParams), plt.get_fignums()
    figure = Figure()
    FigureCanvasAgg(figure)
    yield figure.subplots(1, 2)
    figure.canvas.draw()
    assert plt.get_fignums() == figures
    assert dict(plt.rcParams) == settings


def wave(device: torch.device, *shape: int) -> torch.Tensor:
    """Values that hang on a gradient, some above 0 and some below."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(device).requires_grad_() * 2


def is_empty(ax: Axes) -> bool:
    return not (ax.lines or ax.collections or ax.images or ax.patches)


def test_plot_neuron(axes: tuple[Axes, Axes], device: torch.device) -> None:
    state, output = wave(device, 30), wave(device, 30).relu()
    plots.plot_neuron(axes[1], state, output, threshold=0.7, title="a neuron")
    ax = axes[1]
    assert is_empty(axes[0])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("time (steps)", "state", "a neuron")
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["threshold"].get_ydata() == [0.7, 0.7]
    np.testing.assert_array_equal(lines["state"].get_xdata(), range(30))
    np.testing.assert_allclose(lines["state"].get_ydata(), state.tolist())
    # A bar for each spike, from the threshold to where the charge was.
    bars: Any = ax.patches
    drawn = [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars]
    fired = [(t, 0.7, 0.7 + value) for t, value in enumerate(output.tolist()) if value > 0]
    np.testing.assert_allclose(drawn, fired, rtol=1e-6)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"threshold", "state", "output"}


def test_plot_neuron_that_never_fires(axes: tuple[Axes, Axes], device: torch.device) -> None:
    plots.plot_neuron(axes[0], wave(device, 9), torch.zeros(9, device=device), 1.0)
    assert not axes[0].containers


@pytest.mark.parametrize("signed", [False, True])
def test_plot_layer(axes: tuple[Axes, Axes], device: torch.device, signed: bool) -> None:
    values = wave(device, 12, 5)
    plot_layer(axes[0], values, "a layer", label="state", signed=signed)
    ax = axes[0]
    assert is_empty(axes[1])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("time (steps)", "neuron", "a layer")
    (image,) = ax.images
    np.testing.assert_allclose(np.asarray(image.get_array()), values.detach().cpu().numpy().T)
    assert image.colorbar is not None and image.colorbar.ax.get_ylabel() == "state"
    low, high = image.get_clim()
    largest = values.abs().max().item()
    assert (low, high) == pytest.approx((-largest, largest) if signed else (values.min().item(), values.max().item()))


def test_plot_layer_of_silence(axes: tuple[Axes, Axes], device: torch.device) -> None:
    plot_layer(axes[0], torch.zeros(6, 3, device=device), signed=True)
    low, high = axes[0].images[0].get_clim()
    assert low < 0 < high


def test_plot_raster(axes: tuple[Axes, Axes], device: torch.device) -> None:
    outputs = wave(device, 20, 4)
    plots.plot_raster(axes[0], outputs, "spikes")
    ax = axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("time (steps)", "neuron", "spikes")
    drawn = {(int(t), int(n)) for t, n in ax.collections[0].get_offsets()}
    assert drawn == {(t, n) for t, row in enumerate(outputs.tolist()) for n, value in enumerate(row) if value > 0}
    bottom, top = ax.get_ylim()
    assert bottom < 0 and top > 3


def test_plot_raster_of_silence(axes: tuple[Axes, Axes], device: torch.device) -> None:
    plots.plot_raster(axes[0], torch.zeros(6, 3, device=device))
    assert len(axes[0].collections[0].get_offsets()) == 0


@pytest.mark.parametrize("as_list", [False, True])
def test_plot_window(axes: tuple[Axes, Axes], device: torch.device, as_list: bool) -> None:
    delays = torch.arange(-5, 6, device=device)
    changes: Any = wave(device, 11)
    values = changes.tolist()
    ax = axes[0]
    plots.plot_window(ax, delays.tolist() if as_list else delays, values if as_list else changes, "a window", "all")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == (
        "delay t_post − t_pre (steps)",
        "weight change",
        "a window",
    )
    curve = ax.lines[-1]
    np.testing.assert_array_equal(curve.get_xdata(), range(-5, 6))
    np.testing.assert_allclose(curve.get_ydata(), values)
    # The causal half is shaded, from 0 to the longest delay.
    (shade,) = ax.patches  # a rectangle, or a polygon before matplotlib 3.9
    corners = shade.get_patch_transform().transform(shade.get_path().vertices)
    assert (corners[:, 0].min(), corners[:, 0].max()) == (0, 5)

    n_lines = len(ax.lines)
    plots.plot_window(ax, [-5, 5], [0.0, 1.0], label="nearest")
    assert len(ax.lines) == n_lines + 1 and len(ax.patches) == 1, "a second curve must not bring a second frame"
    assert ax.get_title() == "a window"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["all", "nearest"]
    assert ax.lines[-1].get_color() != curve.get_color()


def test_use_style_changes_only_settings() -> None:
    with plt.rc_context():
        figures = plt.get_fignums()
        plots.use_style()
        assert plt.get_fignums() == figures
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert len(set(cycle)) == len(cycle) >= 6
        # The card is opaque and light, so that figures read in dark mode.
        for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor"):
            assert min(to_rgb(plt.rcParams[name])) > 0.9


# How colours of linear sRGB look with one kind of cone missing, as Machado, Oliveira and Fernandes (2009)
# simulate it (severity 1.0).
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision: Any) -> Any:
    """CIE L*a*b* of a colour as that vision sees it: distances of about 2 are just noticeable."""
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(vision) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ seen / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(vision: str) -> None:
    palette = [plots.BLUE, plots.ORANGE, plots.GREEN, plots.RED, plots.PURPLE, plots.SKY, plots.YELLOW, plots.GREY]
    seen = {colour: lab(colour, VISION[vision]) for colour in (*palette, "#FCFCFC")}
    for one, other in itertools.combinations(seen, 2):
        distance = float(np.linalg.norm(seen[one] - seen[other]))
        assert distance > 10, f"{one} and {other} look alike: {distance:.1f}"


@pytest.mark.parametrize(("vision", "other"), [("protanopia", "tab:orange"), ("deuteranopia", "tab:red")])
def test_the_measure_of_colours_refuses_matplotlibs_own(vision: str, other: str) -> None:
    for eyes, alike in (("normal", False), (vision, True)):
        distance = np.linalg.norm(lab("tab:green", VISION[eyes]) - lab(other, VISION[eyes]))
        assert (distance < 10) == alike
