"""Chromium, as playwright drives it: the tests of the pages, the PDF and the animation in the README use it.

A `Tab` is a page of playwright that keeps what went wrong on it: errors, requests that failed, and
requests to other hosts, which do not exist for this browser.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

HOW_TO_GET_IT = "no Chromium was found: `apt-get install chromium` gets one, or name yours in SNN_CHROMIUM"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def find_chromium() -> str | None:
    """The browser named in SNN_CHROMIUM, or the first of the usual names on the path."""
    if named := os.environ.get("SNN_CHROMIUM"):
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that `find_chromium` finds, with no window; it ends with the block.

    Raises FileNotFoundError if there is none.
    """
    binary = find_chromium()
    if binary is None:
        raise FileNotFoundError(HOW_TO_GET_IT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files, without a line for each on the terminal."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path, handler: type[http.server.SimpleHTTPRequestHandler] = Quiet) -> Iterator[str]:
    """The folder's files at a local address, which is yielded without a slash at its end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Window(ABC):
    """What a test does with a page, in whatever browser.

    Since `open`: `faults` is what has gone wrong, `requests` what was asked for.
    """

    passing: type[Exception]  # what `run` raises when a page is on its way out

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.requests: list[str] = []

    @abstractmethod
    def go(self, url: str) -> None:
        """To an address, until it is loaded."""

    @abstractmethod
    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""

    @abstractmethod
    def rest(self) -> None:
        """A moment for the page, and for what is told of it."""

    @abstractmethod
    def press(self, key: str, times: int = 1) -> None:
        """A key of the keyboard."""

    def asked_for(self, url: str) -> None:
        self.requests.append(url)
        where = urlparse(url)
        if where.scheme not in ("data", "blob", "file") and where.hostname != "127.0.0.1":
            self.faults.append(f"a request to another host: {url}")

    def answered(self, url: str, status: int) -> None:
        if status >= 400:
            self.faults.append(f"status {status}: {url}")

    def failed(self, url: str, why: str | None) -> None:
        self.faults.append(f"failed: {url} ({why})")

    def open(self, url: str, whole: bool = True) -> None:
        """Open a page and wait until it, its scripts and its explorers are there.

        `whole`: also what else comes only when it is near, the figures below and explorers with files of their own.
        """
        self.go("about:blank")
        self.faults, self.requests = [], []
        self.go(url)
        self.wait(
            "!document.querySelector('script[src*=\"explorers.js\"]') || document.documentElement.dataset.explorers"
        )
        if whole:
            self.run("dispatchEvent(new Event('explorers:all'))")
            shown = "image.getClientRects().length"  # of two colours of a figure, a reader is sent one
            self.run(
                f"document.querySelectorAll('img[loading=lazy]').forEach((image) => {{ if ({shown})"
                " image.loading = 'eager' })"
            )
            self.wait(
                "!document.querySelector('.explorer-to-come')"
                f" && [...document.querySelectorAll('article img')].every((image) => image.complete || !{shown})"
            )
            self.wait(
                "!document.querySelector('script[src*=\"explorers.js\"]')"
                " || document.documentElement.dataset.explorers === 'all'"
            )
        self.wait("document.fonts.status === 'loaded'")

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """Until the expression is true in the page; its value.

        Raises TimeoutError if it has not become true by then. playwright's own way runs text as a script in the
        page, which the pages' policy forbids.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(self.passing):  # or what is asked for is not there yet
                if value := self.run(condition):
                    return value
            self.rest()
        raise TimeoutError(f"after {seconds} seconds still not true: {condition}")


class Tab(Window):
    """A page of its own, with its own cache; `finger`: on a touch screen, `still`: for a reader who wants no motion."""

    passing = Error

    def __init__(
        self, browser: Browser, width: int = 1200, height: int = 900, finger: bool = False, still: bool = False
    ) -> None:
        super().__init__()
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            has_touch=finger,
            is_mobile=finger,
            color_scheme="light",
            reduced_motion="reduce" if still else "no-preference",
        )
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self.asked_for(request.url))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", lambda response: self.answered(response.url, response.status))
        self._protocol = self._context.new_cdp_session(self.page)

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert"):
            self.faults.append(f"console: {message.text} {message.location.get('url', '')}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # taken back, as by a page that is left
            self.failed(request.url, request.failure)

    def go(self, url: str) -> None:
        self.page.goto(url, wait_until="load")

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)

    def rest(self) -> None:
        self.page.wait_for_timeout(30)

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)

    def centre(self, selector: str) -> tuple[float, float]:
        """Where an element's centre is in the window, after scrolling it into view."""
        self.page.evaluate(
            f"document.querySelector('{selector}').scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        box = self.page.locator(selector).bounding_box()
        assert box is not None, f"{selector} is not seen"
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it through the others, and let go."""
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point)
        self.page.mouse.up()

    def swipe(self, points: list[tuple[float, float]]) -> None:
        """Put a finger down at the first point, move it through the others, and lift it: playwright's can only tap."""
        for kind, (x, y) in zip(["touchStart", *["touchMove"] * (len(points) - 1)], points):
            self._protocol.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        self._protocol.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
