"""The pages and the explorers in Firefox, which can reach nothing but a local server."""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import firefox as driver
import pytest
from browser import Quiet, serve
from firefox import HOW_TO_GET_FIREFOX, FirefoxError, Fox, Refused, find_firefox, firefox, need_firefox, process
from notebooks import BOOK, CHAPTERS, MOVED, NOTEBOOKS, code_cells, read, run_lines
from one_explorer import KIND, page_with, served
from snn_chapters.explorers.learning import LearningExplorer

from snn_helpers import load_mnist
from snn_helpers.widgets import NeuronExplorer


@pytest.fixture(scope="module")
def fox() -> Iterator[Fox]:
    """One Firefox for all tests of this file."""
    need_firefox()
    with firefox() as found:
        yield found


# The drawings of an explorer that have a place on the page, and whether there is something in each: a shape that has a
# size, or dots of more than one colour.
EMPTY = """((explorer) => {
  const hasSize = (shape) => { const { width, height } = shape.getBBox(); return width + height > 0; };
  const dots = (e) => new Uint32Array(e.getContext('2d').getImageData(0, 0, e.width, e.height).data.buffer);
  const isDrawn = (e) => e.tagName === 'CANVAS' ? new Set(dots(e)).size > 1
    : [...e.querySelectorAll('path, rect, circle, line, polyline, polygon')].some(hasSize);
  const drawings = [...explorer.querySelectorAll('svg, canvas')].filter((e) => e.getClientRects().length);
  return drawings.length ? drawings.filter((e) => !isDrawn(e)).map((e) => e.outerHTML.slice(0, 200)) : ['no drawing'];
})"""


def explorer(k: int) -> str:
    return f"document.querySelectorAll('.snn')[{k}]"


def see(fox: Fox, k: int) -> None:
    """Scroll to an explorer, and wait until all of it is drawn. Raises TimeoutError."""
    fox.run(f"{explorer(k)}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    fox.wait(f"{EMPTY}({explorer(k)}).length === 0")


# --- every page ----------------------------------------------------------------------------------


def wrong_with(fox: Fox, url: str, n: int) -> list[str]:
    """What is wrong with a page that should have `n` explorers."""
    fox.open(url)
    wrong = []
    if (is_at := fox.run("location.href")) != url:
        wrong.append(f"it leads to {is_at}")
    if (there := fox.run("document.querySelectorAll('.snn').length")) != n:
        wrong.append(f"{there} explorers instead of {n}")
    if (mark := fox.run("document.documentElement.dataset.explorers ?? null")) != ("all" if n else None):
        wrong.append(f"of the explorers are there: {mark}")
    for k in range(there):
        try:
            see(fox, k)
        except TimeoutError:
            wrong.append(f"explorer {k + 1} does not draw {fox.run(f'{EMPTY}({explorer(k)})')}")
    return wrong + fox.faults


def test_every_page_is_whole(built_pages: Callable[[], Path], fox: Fox) -> None:
    folder = built_pages()
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    # The others are no pages, or only lead on.
    pages = sorted(name for name in set(names) - {"index.html", *MOVED} if not name.startswith("_static/"))
    n_explorers = {name: (folder / name).read_text("utf-8").count(f'type="{KIND}-view+json"') for name in pages}
    with serve(folder) as address:
        wrong = {name: found for name, n in n_explorers.items() if (found := wrong_with(fox, f"{address}/{name}", n))}
    assert not wrong
    assert len(pages) > len(NOTEBOOKS) and sum(n_explorers.values()) > len(CHAPTERS)


# --- explorers -----------------------------------------------------------------------------------


def get(fox: Fox, name: str) -> Any:
    return fox.run(f"{explorer(0)}.parentElement.explorer.get('{name}')")


def press(fox: Fox, name: str) -> None:
    """A button, by the keyboard."""
    fox.run(f"[...document.querySelectorAll('button')].find((each) => each.textContent === '{name}').focus()")
    fox.press("Enter")


def of_the_story(folder: Path) -> LearningExplorer:
    """The story's own, with the digits that every reader has."""
    story = read(BOOK / "story.ipynb")
    (settings,) = code_cells(story, "parameters")
    (explorer,) = (cell for cell in code_cells(story) if cell.source.startswith("LearningExplorer("))
    names: dict[str, Any] = {"LearningExplorer": LearningExplorer}
    names |= {"train": load_mnist("train", "subset"), "held_out": load_mnist("test", "subset")}
    made: LearningExplorer = run_lines(f"{settings.source}\nmade = {explorer.source}", folder, names)["made"]
    return made


def test_the_network_of_the_story_learns_in_a_worker(tmp_path: Path, fox: Fox) -> None:
    """The story says that it takes about 5,000 digits; ten seeds took 3,080 to 6,800."""
    with served(tmp_path, page=page_with(of_the_story(tmp_path))) as address:
        fox.open(f"{address}/page.html")
        fox.wait(f"{explorer(0)}.querySelector('.snn-picture').dataset.runs === 'a worker'")
        assert get(fox, "seen") == 0 and 0 <= get(fox, "accuracy") < 0.35
        press(fox, "Start")
        moved = f"{explorer(0)}.parentElement.explorer.get"
        fox.wait(f"{moved}('accuracy') >= 0.85 || {moved}('seen') > 10000", seconds=300)
        accuracy = get(fox, "accuracy")
        assert accuracy >= 0.85 and round(500 * accuracy) == pytest.approx(500 * accuracy)
        press(fox, "Pause")
        fox.wait("[...document.querySelectorAll('button')].some((each) => each.textContent === 'Start')")
        see(fox, 0)
        told = fox.run(f"{explorer(0)}.querySelector('p.snn-text').textContent")
        assert re.search(r"Held out: \d+ % of 500 read rightly", told)
        assert not fox.faults


# What is seen of the explorer: its drawing, with its words.
SEEN = (
    f"[...{explorer(0)}.querySelectorAll('svg')].map((e) => e.innerHTML + e.getAttribute('aria-label')).join('')"
    f" + {explorer(0)}.querySelector('p.snn-text').textContent"
)
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_keys_move_sliders_and_what_they_set_is_drawn(tmp_path: Path, fox: Fox) -> None:
    with served(tmp_path, page=page_with(NeuronExplorer(decay=0.8, strength=0.5))) as address:
        fox.open(f"{address}/page.html")
        see(fox, 0)
        first = fox.run(SEEN)
        for name, step, way in (("decay", 0.01, "Left"), ("threshold", 0.05, "Right"), ("penalty", 0.05, "Left")):
            before = get(fox, name)
            fox.run(f"{explorer(0)}.querySelector('input[id*=\"snn-{name}\"]').focus()")
            fox.press(f"Arrow{way}", times=6)
            assert get(fox, name) == pytest.approx(before + {"Left": -6, "Right": 6}[way] * step)
            fox.run(DRAWN)
            assert fox.run(SEEN) != first, f"{name} moved, and nothing was drawn"
            fox.press("ArrowRight" if way == "Left" else "ArrowLeft", times=6)
            assert get(fox, name) == pytest.approx(before)
            fox.run(DRAWN)
            assert fox.run(SEEN) == first, f"{name} came back, and something else is drawn"
        fox.run(f"{explorer(0)}.querySelector('input[id*=\"snn-decay\"]').focus()")
        for key, end in (("Home", "min"), ("End", "max")):
            fox.press(key)
            assert get(fox, "decay") == float(fox.run(f"document.activeElement.{end}"))
        assert not fox.faults


# --- what finds faults is tried on some ------------------------------------------------------------

HEAD = '<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>'
PLANTED = {
    "sound": ("<script>console.warn('planted')</script>", None),
    "told": ("<script>console.error('planted')</script>", r"^console: planted$"),
    "thrown": ("<script>throw new Error('planted')</script>", r"^javascript: Error: planted$"),
    "rejected": ("<script>Promise.reject(new Error('planted'))</script>", r"^javascript: Error: planted$"),
    "missing": ('<img src="not-there.png" alt="">', r"^status 404: http://127\.0\.0\.1:\d+/not-there\.png$"),
    "refused": ('<img src="http://127.0.0.1:2/" alt="">', r"^failed: http://127\.0\.0\.1:2/ \(.+\)$"),
    "elsewhere": ('<img src="http://example.org/x.png" alt="">', r"^a request to another host: http://example\.org/x"),
    "formula": ("<math><msub><mi>x</mi></msub></math>", r"^javascript: Invalid markup: .* <msub/>"),
    "forbidden": (
        "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\"><script>1</script>",
        "Policy",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, tmp_path: Path, fox: Fox) -> None:
    content, fault = PLANTED[name]
    with served(tmp_path, page=f"{HEAD}{content}", next=HEAD) as address:
        fox.open(f"{address}/page.html")
        if fault is None:
            assert not fox.faults
        else:
            assert any(re.search(fault, found) for found in fox.faults), fox.faults
        fox.open(f"{address}/next.html")
        assert not fox.faults, "they are those of one page"


class InTwoParts(Quiet):
    """A page whose second part comes when the first has been drawn: a script in the first asks for it."""

    drawn = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/drawn":
            self.drawn.set()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.path == "/page.html":
            tells = "requestAnimationFrame(() => requestAnimationFrame(() => fetch('/drawn')))"
            self.wfile.write(f"{HEAD}<script>{tells}</script><p>A <math><msub><mi>x</mi>".encode())
            self.wfile.flush()
            assert self.drawn.wait(60)
            self.wfile.write(b"<mi>t</mi></msub></math>")


def test_a_formula_that_comes_in_two_parts_is_no_fault(tmp_path: Path, fox: Fox) -> None:
    """So it comes over any network, and on a busy machine from a server beside the browser, too."""
    InTwoParts.drawn.clear()
    with serve(tmp_path, InTwoParts) as address:
        fox.open(f"{address}/page.html")
        assert fox.run("document.querySelector('msub').children.length") == 2 and InTwoParts.drawn.is_set()
        assert not fox.faults


def test_an_empty_drawing_is_found(tmp_path: Path, fox: Fox) -> None:
    drawing = '<svg width="20" height="20"><g></g><path d=""></path></svg><canvas width="4" height="4"></canvas>'
    with served(tmp_path, page=f'{HEAD}<div class="snn">{drawing}</div>') as address:
        fox.open(f"{address}/page.html")
        assert len(fox.run(f"{EMPTY}({explorer(0)})")) == 2
        fox.run("document.querySelector('path').setAttribute('d', 'M 1 1 L 9 1')")
        (left,) = fox.run(f"{EMPTY}({explorer(0)})")
        assert "canvas" in left
        fox.run("document.querySelector('canvas').getContext('2d').fillRect(0, 0, 2, 2)")
        assert fox.run(f"{EMPTY}({explorer(0)})") == []
        fox.run(f"{explorer(0)}.replaceChildren()")
        assert fox.run(f"{EMPTY}({explorer(0)})") == ["no drawing"]


def test_firefox_says_what_it_does_not_do(fox: Fox) -> None:
    assert "Firefox/" in fox.run("navigator.userAgent")
    with pytest.raises(Refused, match="ReferenceError: nothing is not defined in nothing"):
        fox.run("nothing")
    with pytest.raises(Refused, match=r"browsingContext\.navigate .*127\.0\.0\.1:2.*REFUSED"):
        fox.go("http://127.0.0.1:2/")
    with pytest.raises(TimeoutError, match=r"after 0\.1 seconds still not true: 1 > 2"):
        fox.wait("1 > 2", seconds=0.1)


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_firefox_that_does_not_listen_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNN_FIREFOX", script(tmp_path / "ends", "echo there is no display >&2"))
    with pytest.raises(FirefoxError, match=r"(?s)ends should say .* but said .*there is no display"), firefox():
        pass
    monkeypatch.setattr(driver, "PATIENCE", 0.0)
    monkeypatch.setenv("SNN_FIREFOX", script(tmp_path / "waits", "exec sleep 1000"))
    with pytest.raises(FirefoxError, match=r"waits should say .* but said 'nothing'"), firefox():
        pass


def test_whatever_happens_firefox_and_its_processes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has a process of its own, and does not want to end."""
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    stays = ["trap '' TERM", f"exec 3> {tmp_path / 'held'}", 'echo "$HOME" >&3', "sleep 1000 &"]
    stays += ["echo WebDriver BiDi listening on ws://127.0.0.1:2 >&2", "wait"]
    monkeypatch.setattr(driver, "GRACE", 0.2)
    try:
        with pytest.raises(KeyError), process(script(tmp_path / "stays", *stays)) as address:
            assert address == "ws://127.0.0.1:2"
            profile = Path(os.read(held, 999).decode().strip())
            assert profile.is_dir()
            raise KeyError
        assert not profile.exists()
        assert select.select([held], [], [], 10)[0] and os.read(held, 9) == b"", "somebody still holds it"
    finally:
        os.close(held)


def test_which_firefox_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ON_A_MAC", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SNN_FIREFOX", raising=False)
    assert find_firefox() is None
    with pytest.raises(FileNotFoundError, match="apt-get install firefox-esr"), firefox():
        pass
    monkeypatch.delenv("SNN_NEEDS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match=re.escape(HOW_TO_GET_FIREFOX)):
        need_firefox()
    monkeypatch.setenv("SNN_NEEDS_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match=re.escape(HOW_TO_GET_FIREFOX)):
        need_firefox()
    for name in ("firefox-esr", "firefox"):
        script(tmp_path / name)
        assert find_firefox() == str(tmp_path / name)
    need_firefox()
    monkeypatch.setenv("SNN_FIREFOX", "/my/own")
    assert find_firefox() == "/my/own"
