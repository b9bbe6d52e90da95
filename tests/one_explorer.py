"""A page of its own for one explorer, as the build makes it of a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import serve
from ipywidgets.embed import embed_data
from pages import parse, policy

from snn_helpers.widgets import Explorer

SCRIPT = Path(__file__).resolve().parents[1] / "book" / "_static" / "widgets" / "explorers.js"
KIND = "application/vnd.jupyter.widget"


def page_with(explorer: Explorer, worker: str = "") -> str:
    """A page under the policy of the book's; `worker`: what more it says of workers."""
    found = embed_data(views=[explorer], drop_defaults=False)
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>An explorer</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        "<style>html[data-theme=dark] { background: #121212; color: #eee }</style>"
        '<script defer src="explorers.js"></script></head><body><main><h1>An explorer</h1>'
        f'<script type="{KIND}-view+json">{json.dumps(found["view_specs"][0])}</script>'
        '<p style="height: 3000px">Below</p>'
        f'</main><script type="{KIND}-state+json">{json.dumps(found["manager_state"])}</script></body></html>'
    )
    told = f'<meta http-equiv="Content-Security-Policy" content="{policy(parse(page), set())}{worker}">'
    return page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">{told}')


@contextmanager
def served(folder: Path, **pages: str) -> Iterator[str]:
    """The pages, each as NAME.html, with the script that they need; `folder` is an empty one."""
    (folder / "explorers.js").write_bytes(SCRIPT.read_bytes())
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    with serve(folder) as address:
        yield address
