"""Make the moving picture in the README: the neuron's explorer on the built page, its sliders moved.

    python book/_scripts/site/make_animation.py

It needs the pages (`make book`) and Chromium.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium, serve
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
PAGE = "book/intro.html"
TARGET = ROOT / "book" / "_static" / "explorer.gif"
FRAME = 200  # milliseconds
# Which slider, which way, how many key presses a frame, how many frames.
MOVES = (
    ("decay", "ArrowLeft", 2, 7),
    ("decay", "ArrowRight", 2, 7),
    ("penalty", "ArrowRight", 6, 7),
    ("penalty", "ArrowLeft", 6, 7),
    ("flicker", "ArrowLeft", 2, 10),
    ("flicker", "ArrowRight", 2, 10),
)


def frames(tab: Tab) -> Iterator[Image.Image]:
    tab.run("document.querySelector('.snn').id = 'explorer'")
    tab.run("for (const fold of document.querySelectorAll('#explorer details')) fold.open = true")

    def picture() -> Image.Image:
        tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return Image.open(io.BytesIO(tab.page.locator("#explorer").screenshot())).convert("RGB")

    for name, key, times, n in MOVES:
        tab.run(
            "[...document.querySelectorAll('#explorer label')]"
            f".find((label) => label.textContent.startsWith('{name}')).control.focus()"
        )
        for _ in range(n):
            tab.press(key, times)
            yield picture()


def main() -> None:
    html = ROOT / "_build" / "html"
    if not (html / PAGE).exists():
        sys.exit("the pages are not there yet: make book builds them")
    if find_chromium() is None:
        sys.exit(HOW_TO_GET_IT)
    with serve(html) as address, chromium() as browser, Tab(browser, 860, 900) as tab:
        tab.open(f"{address}/{PAGE}")
        pictures = list(frames(tab))
    # One size for all, and few colours, since it is a drawing.
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    drawn = []
    for picture in pictures:
        whole = Image.new("RGB", size, "white")
        whole.paste(picture)
        drawn.append(whole.quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE))
    drawn[0].save(TARGET, save_all=True, append_images=drawn[1:], duration=FRAME, loop=0, optimize=True)
    print(f"{TARGET.relative_to(ROOT)}: {len(drawn)} frames, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
