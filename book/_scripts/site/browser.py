"""A headless Chromium, driven over its own protocol: the tests of the pages and the animation in the README use it.

It keeps what went wrong: errors on the console, requests that failed, requests to other hosts (which
are not let through).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import websocket

HOW_TO_GET_IT = "no Chromium was found: `apt-get install chromium` gets one, or name yours in SNN_CHROMIUM"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


def find_chromium() -> str | None:
    """The browser named in SNN_CHROMIUM, or the first of the usual names on the path."""
    if named := os.environ.get("SNN_CHROMIUM"):
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder's files at a local address, which is yielded without a slash at its end."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class PageError(RuntimeError):
    """A script that was run in the page raised, or what was waited for did not come."""


class Browser:
    """One tab. `faults` is what has gone wrong on the page since `open`, `received` the bytes that it was sent."""

    def __init__(self, binary: str | None = None) -> None:
        binary = binary or find_chromium()
        if binary is None:
            raise FileNotFoundError(HOW_TO_GET_IT)
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # No other host exists for this browser.
        only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        command = [binary, *FLAGS, only_here, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._n_calls = 0
        self._clear()
        port = self._wait_for_port()
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port[0]}{port[1]}", timeout=300)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(1200, 900)

    def _wait_for_port(self) -> tuple[str, str]:
        file = Path(self._profile.name) / "DevToolsActivePort"
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError("Chromium ended before it could be reached")
            if file.exists() and len(lines := file.read_text().split("\n")) >= 2:
                return lines[0], lines[1]
            time.sleep(0.05)
        raise TimeoutError("Chromium did not open its port within 30 seconds")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._session = None
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    # --- the protocol ---

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the browser's protocol; events that come meanwhile are noted."""
        self._n_calls += 1
        message: dict[str, Any] = {"id": self._n_calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._n_calls:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _clear(self) -> None:
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.received = 0
        self.from_cache: list[str] = []
        self._urls: dict[str, str] = {}

    def _note(self, event: str, data: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = data["exceptionDetails"]
            self.faults.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif event == "Runtime.consoleAPICalled" and data["type"] in ("error", "assert"):
            self.faults.append(f"console: {[part.get('value', part.get('description')) for part in data['args']]}")
        elif event == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.faults.append(f"log: {data['entry']['text']} {data['entry'].get('url', '')}")
        elif event == "Network.requestWillBeSent":
            url = data["request"]["url"]
            self._urls[data["requestId"]] = url
            self.requests.append(url)
            if urlparse(url).scheme not in ("data", "blob") and urlparse(url).hostname != "127.0.0.1":
                self.faults.append(f"a request to another host: {url}")
        elif event == "Network.loadingFailed" and not data.get("canceled"):
            self.faults.append(f"failed: {self._urls.get(data['requestId'])} ({data['errorText']})")
        elif event == "Network.responseReceived" and data["response"]["status"] >= 400:
            self.faults.append(f"status {data['response']['status']}: {data['response']['url']}")
        elif event == "Network.requestServedFromCache":
            self.from_cache.append(self._urls.get(data["requestId"], ""))
        elif event == "Network.dataReceived":
            self.received += data["dataLength"]

    # --- what a reader does ---

    def open(self, url: str) -> None:
        """Open a page and wait until it, its scripts and its explorers are there."""
        self.call("Page.navigate", url="about:blank")
        self._clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        self.wait(
            "!document.querySelector('script[src*=\"explorers.js\"]')"
            " || document.documentElement.dataset.explorers === 'ready'"
        )
        self.wait("document.fonts.status === 'loaded'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(str(details.get("exception", {}).get("description", details["text"])))
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """Until the expression is true in the page; its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(PageError):  # a page on its way out
                value = self.run(condition)
                if value or value == {}:  # an element comes as {}
                    return value
            time.sleep(0.05)
        raise PageError(f"after {seconds} seconds still not true: {condition}")

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """The window's size; `mobile` makes it a touch screen."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def prefer(self, **features: str) -> None:
        """What the reader prefers, such as `prefers_color_scheme="dark"`."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def key(self, key: str, times: int = 1) -> None:
        """Press and release a key, as the keyboard does."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13, " ": 32,
                 "Home": 36, "End": 35}  # fmt: skip
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        name = "Space" if key == " " else key
        common = {"key": key, "code": name, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it through the others, and let go."""
        for kind, (x, y) in zip(
            ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"], [*points, points[-1]]
        ):
            pressed = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def swipe(self, points: list[tuple[float, float]]) -> None:
        """Put a finger down at the first point, move it through the others, and lift it."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": points[0][0], "y": points[0][1]}])
        for x, y in points[1:]:
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def centre(self, selector: str) -> tuple[float, float]:
        """Where an element's centre is in the window, after scrolling it into view."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def click(self, selector: str) -> None:
        self.drag([self.centre(selector)])

    def screenshot(self, selector: str | None = None) -> bytes:
        """A PNG of an element, or of the window."""
        extra: dict[str, Any] = {}
        if selector:
            box = self.run(
                f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}; })()"
            )
            extra = {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **extra)["data"])
