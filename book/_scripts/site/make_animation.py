"""Make the moving pictures in the README from the built pages: a neuron whose sliders move, a network that learns.

    python book/_scripts/site/make_animation.py [explorer | learning ...]

It needs the pages (`make book`) and Chromium. The network trains as long as a reader would wait, on this machine.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium, serve
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
STATIC = ROOT / "book" / "_static"
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
ENOUGH = 0.85  # of the held-out digits: then the film ends
LONGEST = 120  # frames


def picture(tab: Tab) -> Image.Image:
    """What is drawn of the explorer now."""
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return Image.open(io.BytesIO(tab.page.locator("#explorer").screenshot())).convert("RGB")


def moved_sliders(tab: Tab) -> Iterator[Image.Image]:
    """The neuron of the first page."""
    tab.run("document.querySelector('.snn').id = 'explorer'")
    tab.run("for (const fold of document.querySelectorAll('#explorer details')) fold.open = true")
    for name, key, times, n in MOVES:
        tab.run(
            "[...document.querySelectorAll('#explorer label')]"
            f".find((label) => label.textContent.startsWith('{name}')).control.focus()"
        )
        for _ in range(n):
            tab.press(key, times)
            yield picture(tab)


def a_training(tab: Tab) -> Iterator[Image.Image]:
    """The network of the story, from its start until it reads enough digits that it has never learned from."""
    tab.run(
        "[...document.querySelectorAll('.snn')]"
        ".find((each) => each.parentElement.explorer.get('accuracy') !== undefined).id = 'explorer'"
    )
    tab.run("document.querySelector('#explorer').scrollIntoView()")  # it draws nothing that is not seen
    get = "document.querySelector('#explorer').parentElement.explorer.get"
    tab.wait(f"{get}('accuracy') >= 0")
    tab.page.locator("#explorer").get_by_role("button", name="Start", exact=True).click()
    for _ in range(LONGEST):
        yield picture(tab)
        if tab.run(f"{get}('accuracy')") >= ENOUGH:
            break
        tab.page.wait_for_timeout(FRAME)
    else:
        sys.exit(f"fewer than {ENOUGH:.0%} of the digits are read after {LONGEST} pictures: is the machine busy?")
    yield from [picture(tab)] * 10  # a while to look at what it has become


FILMS: dict[str, tuple[str, Callable[[Tab], Iterator[Image.Image]]]] = {
    "explorer": ("book/intro.html", moved_sliders),
    "learning": ("book/story.html", a_training),
}


def main(names: list[str]) -> None:
    if unknown := sorted(set(names) - FILMS.keys()):
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(FILMS)}")
    html = ROOT / "_build" / "html"
    if find_chromium() is None:
        sys.exit(HOW_TO_GET_IT)
    for name in names or FILMS:
        page, film = FILMS[name]
        if not (html / page).exists():
            sys.exit("the pages are not there yet: make book builds them")
        with serve(html) as address, chromium() as browser, Tab(browser, 860, 900) as tab:
            tab.open(f"{address}/{page}")
            save(STATIC / f"{name}.gif", list(film(tab)))


def save(target: Path, pictures: list[Image.Image]) -> None:
    # One size for all, and few colours, since it is a drawing.
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    drawn = []
    for picture in pictures:
        whole = Image.new("RGB", size, "white")
        whole.paste(picture)
        drawn.append(whole.quantize(64, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE))
    drawn[0].save(target, save_all=True, append_images=drawn[1:], duration=FRAME, loop=0, optimize=True)
    print(f"{target.relative_to(ROOT)}: {len(drawn)} frames, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
