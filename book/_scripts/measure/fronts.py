"""The explorers in the front ends of readers: run, moved, typed into and drawn on, as a reader does in a notebook.

The tests do it in JupyterLab and Jupyter Notebook 7, `make stacks` in Jupyter Notebook 6 with Colab's versions.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Locator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))

from browser import Tab

ROOT = Path(__file__).resolve().parents[3]
CELLS = (
    "from snn_helpers.widgets import NeuronExplorer\nexplorer = NeuronExplorer(decay=0.5)\nexplorer",
    """\
import torch
from torch.utils.data import TensorDataset
from snn_helpers import SpikingNet
from snn_helpers.widgets import DigitPlayground
net = SpikingNet(20, generator=torch.Generator().manual_seed(0))
playground = DigitPlayground(net, TensorDataset(torch.full((1, 1, 28, 28), 0.25), torch.tensor([8])))
playground""",
    """\
inked = (playground.image()[0] > 0).any(dim=0).nonzero().flatten().tolist()
print(f"Python has {explorer.decay:.2f} and {explorer.reset}, "
      f"ink from column {inked[0]} to {inked[-1]}, answer {playground.answer}.")""",
)
# In a notebook's command mode they insert, cut, paste, delete, change, choose and move cells.
KEYS = ("a", "b", "x", "v", "d", "d", "m", "y", "j", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight")
WINDOW = (1200, 2400)  # so high that nothing is out of sight


@dataclass(frozen=True)
class Front:
    """A front end: what serves it, its place in addresses, and in JavaScript how its notebook is asked.

    `ready`: whether cells can be run; `run`: a function that runs the cell of this number and those below it; `cells`:
    kind and text of each, which of them is active, and in which mode.
    `own`: parts of the errors that the front end writes on the browser's console with every notebook, some time after
    it is opened; what is written before a cell can be run is its own in any case.
    """

    server: tuple[str, ...]
    place: str
    ready: str
    run: str
    cells: str
    own: tuple[str, ...] = ()


# JupyterLab and Jupyter Notebook 7 at once. Pages may ask them, and they ask no other host for news.
_SERVER = (
    "jupyter_server",
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
)
# Commands and models that JupyterLab and Jupyter Notebook 7 share; they stay when the names of classes change.
_PANEL = "jupyterapp.shell.currentWidget"
_READY = f"{_PANEL}.sessionContext.session.kernel.status === 'idle' && {_PANEL}.content.widgets.length === {len(CELLS)}"
_RUN = (
    f"(k) => {{ {_PANEL}.content.deselectAll(); {_PANEL}.content.activeCellIndex = k;"
    " jupyterapp.commands.execute('notebook:run-all-below'); }"
)
_CELLS = (
    f"[{_PANEL}.content.widgets.map((cell) => [cell.model.type, cell.model.sharedModel.getSource()]),"
    f" {_PANEL}.content.activeCellIndex, {_PANEL}.content.mode]"
)
FRONTS = {
    "JupyterLab": Front(_SERVER, "lab/tree", _READY, _RUN, _CELLS),
    "Jupyter Notebook 7": Front(
        _SERVER,
        "notebooks",
        _READY,
        _RUN,
        _CELLS,
        ("undefined (reading 'schema')", "Command 'filebrowser:open-path' not registered"),
    ),
    "Jupyter Notebook 6": Front(
        ("notebook",),
        "notebooks",
        # Nothing is unanswered: once its widgets hear which of them the kernel has, they hide any that is shown.
        f"Jupyter.notebook.ncells() === {len(CELLS)} && !!Jupyter.notebook.kernel.widget_manager"
        " && Jupyter.notebook.kernel.is_connected() && Jupyter.notebook.kernel.info_reply.status === 'ok'"
        " && Object.keys(Jupyter.notebook.kernel._msg_callbacks).length === 0",
        "(k) => { Jupyter.notebook.select(k); Jupyter.notebook.execute_cells_below(); }",
        "[Jupyter.notebook.get_cells().map((cell) => [cell.cell_type, cell.get_text()]),"
        " Jupyter.notebook.get_selected_index(), Jupyter.notebook.mode]",
    ),
}


def _write_notebooks(folder: Path) -> None:
    """A notebook of `CELLS` for each front end."""
    folder.mkdir(parents=True)
    for name in FRONTS:
        cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")


def _address(server: subprocess.Popen[bytes], folder: Path) -> str:
    """Where the server listens, which it writes into this folder."""
    for _ in range(600):
        for path in folder.glob(f"*server-{server.pid}.json"):
            with contextlib.suppress(json.JSONDecodeError):  # not yet written to its end
                return str(json.loads(path.read_text(encoding="utf-8"))["url"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.2)
            break
    raise RuntimeError("no server of Jupyter came up")


@contextlib.contextmanager
def jupyter(python: str | Path, front: Front, folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """A server of Jupyter in an empty folder, where `python` runs it and its kernels; it ends with the block.

    The kernels have the helpers of this repository. Yields an address in which `{place}` and `{name}`, both of a front
    end, are still to be filled in.

    Raises RuntimeError if the server does not start, with what it wrote.
    """
    _write_notebooks(folder / "work")
    jupyters = ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
    token = secrets.token_hex(16)  # it runs code: for nobody else on this machine
    given = {"JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_TOKEN": token, "PYTHONPATH": str(ROOT)}
    given |= {name: str(folder / name) for name in ("IPYTHONDIR", *(f"JUPYTER{name}" for name in jupyters))}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # Jupyter Notebook 6 cannot tell which one it was given for a 0
    command = [str(python), "-m", *front.server, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    log = folder / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=folder / "work", env={**environment, **given}, stdout=out, stderr=out)
    try:
        try:
            address = _address(server, folder / "JUPYTER_RUNTIME_DIR")
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{log.read_text()[-3000:]}") from None
        yield f"{address}{{place}}/{{name}}.ipynb?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Reader:
    """Who has the notebook open in a front end; what they do raises AssertionError or TimeoutError if it fails."""

    def __init__(self, tab: Tab, address: str, name: str) -> None:
        self._tab, self._front = tab, FRONTS[name]
        self._neuron = tab.page.get_by_role("group", name="Neuron explorer")
        self._digits = tab.page.get_by_role("group", name="Digit playground")
        self._slider, self._menu = self._neuron.get_by_label("decay"), self._neuron.get_by_label("reset")
        self._pad = self._digits.get_by_role("application")
        tab.open(address.format(place=self._front.place, name=name))
        tab.wait(self._front.ready, seconds=120)
        # No explorer was there yet. The server, among others, answers 500 if it is asked while a kernel starts.
        tab.faults.clear()

    def _said(self, wanted: str, seconds: float) -> None:
        self._tab.wait(f"document.body.innerText.includes('Python has {wanted}')", seconds)

    def _finds(self, wanted: str) -> None:
        """The last cell says so, run until it does: a change may come to Python after the cell."""
        for _ in range(10):
            self._tab.page.evaluate(self._front.run, len(CELLS) - 1)
            with contextlib.suppress(TimeoutError):
                return self._said(wanted, 3)
        raise AssertionError(f"the page shows it, but Python does not have {wanted}")

    def _box(self, element: Locator) -> tuple[float, float, float, float]:
        element.hover()  # once it stays where it is
        box = element.bounding_box()
        assert box, f"{element} is not seen"
        return box["x"], box["y"], box["width"], box["height"]

    def run(self) -> None:
        """Run all cells: both explorers are drawn, and the last cell has their start."""
        self._tab.page.evaluate(self._front.run, 0)
        self._said("0.50 and scale, ink from column 0 to 27", 120)
        for element in (self._slider, self._pad):
            element.wait_for(timeout=120_000)
        # No link there: it could not lead back to a running notebook.
        assert self._neuron.get_by_role("link").count() == 0

    def move(self) -> None:
        """Move a slider by mouse, then by keys: the picture changes, and Python has the value."""
        picture = self._neuron.get_by_role("img").first
        before = picture.inner_html()
        left, top, width, height = self._box(self._slider)
        self._tab.drag([(left + share * width, top + height / 2) for share in (0.5, 0.6, 0.8)])
        dragged = float(self._slider.input_value())
        assert 0.7 < dragged < 0.9, f"a slider from 0 to 1 was drawn to 0.8, and is at {dragged}"
        # The cell is in its command mode now, where arrows are commands.
        self._tab.press("ArrowLeft", times=12)
        moved = float(self._slider.input_value())
        assert abs(moved - (dragged - 0.12)) < 1e-9, f"twelve arrows led from {dragged} to {moved}: who took them?"
        self._finds(f"{moved:.2f} and scale")
        assert picture.inner_html() != before, "the slider moved, but not the picture"

    def type_keys(self) -> None:
        """Type into every kind of control: the focus stays there, and the notebook as it was."""
        for control in (
            self._slider,
            self._menu,
            self._neuron.get_by_role("button"),
            self._digits.locator("summary"),
            self._pad,
        ):
            control.focus()
            before = self._tab.run(self._front.cells)
            for key in KEYS:
                self._tab.press(key)
                stays = control.evaluate("(element) => element === document.activeElement")
                assert stays, f"the key {key} took the focus from {control}"
            after = self._tab.run(self._front.cells)
            assert after == before, f"keys on {control} reached the notebook: it was {before}, and is {after}"
        self._finds(f"{float(self._slider.input_value()):.2f} and {self._menu.input_value()}")

    def draw(self) -> None:
        """Draw a line from top to bottom: Python has its ink, put into the middle, and what the network reads."""
        self._digits.get_by_label("speed").select_option("fastest")
        self._digits.get_by_role("button", name="Clear").click()
        self._digits.get_by_text("Draw a digit", exact=True).wait_for()  # what was read before is gone
        left, top, width, height = self._box(self._pad)
        self._tab.drag([(left + width / 4, top + share * height) for share in (0.2, 0.4, 0.6, 0.8)])
        answer = self._tab.wait("/I read a (\\d)/.exec(document.querySelector('.snn-digits').innerText)?.[1]")
        settings = f"{float(self._slider.input_value()):.2f} and {self._menu.input_value()}"
        self._finds(f"{settings}, ink from column 13 to 14, answer {answer}.")


def use(tab: Tab, address: str, name: str) -> None:
    """All that a reader does, at this address of a `jupyter` in the front end of this name; and no error is written."""
    reader = Reader(tab, address, name)
    reader.run()
    reader.move()
    reader.type_keys()
    reader.draw()
    faults = [fault for fault in tab.faults if not any(own in fault for own in FRONTS[name].own)]
    assert not faults, f"{name} wrote errors: {faults}"
