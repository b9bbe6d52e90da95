"""The book's drawings: what a plot cannot show, such as a neuron, a network, an experiment."""

from __future__ import annotations

from pathlib import Path

from IPython.display import SVG

from .checks import one_of

FOLDER = Path(__file__).resolve().parents[1] / "drawings"
WIDEST = 600  # pixels; on a narrower page a drawing is as wide as the page


def names() -> tuple[str, ...]:
    """The drawings that there are."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.svg")))


def drawing(name: str) -> SVG:
    """A drawing, for the output of a cell.

    It brings a light card of its own, as the figures do, so that it reads on a dark page too.

    Raises `ValueError` for a name that is none of `names()`.
    """
    source = (FOLDER / f"{one_of('name', name, names())}.svg").read_text(encoding="utf-8")
    # Where the drawing becomes an image the width counts, and the page makes it smaller; in the page itself the style.
    return SVG(source.replace("<svg ", f'<svg width="{WIDEST}" style="max-width: 100%; height: auto" ', 1))
