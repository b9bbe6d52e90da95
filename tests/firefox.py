"""Firefox as it is installed, driven over WebDriver BiDi, which it speaks itself: there is no driver to install.

Commands and events are those of https://w3c.github.io/webdriver-bidi/.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browser import Window
from scripts import need
from websocket import WebSocket, WebSocketException, create_connection

HOW_TO_GET_FIREFOX = "no Firefox was found: `apt-get install firefox-esr` gets one, or name yours in SNN_FIREFOX"
ON_A_MAC = "/Applications/Firefox.app/Contents/MacOS/firefox"
FLAGS = ["--headless", "--remote-debugging-port=0", "--no-remote", "--profile"]
LISTENS = r"WebDriver BiDi listening on (ws://\S+)\n"
PATIENCE, GRACE = 120.0, 10.0  # seconds: for an answer, and to end by itself
# Other hosts do not exist for this browser: the way to them leads through a proxy that is not there.
PROXY = {"http": "127.0.0.1", "http_port": 9, "ssl": "127.0.0.1", "ssl_port": 9, "no_proxies_on": "127.0.0.1"}
PREFERENCES = {f"network.proxy.{name}": value for name, value in ({"type": 1} | PROXY).items()}
EVENTS = ["log.entryAdded", "network.beforeRequestSent", "network.responseCompleted", "network.fetchError"]
MARKUP = "Invalid markup"
LAID_OUT_ANEW = """document.querySelectorAll('math').forEach((formula) => {
  formula.style.display = 'none';
  formula.getBoundingClientRect();
  formula.style.display = '';
  formula.getBoundingClientRect();
})"""
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "End": "\ue010", "Home": "\ue011"}
KEYS |= {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}


class FirefoxError(RuntimeError):
    """Firefox is not there, or no longer."""


class Refused(FirefoxError):
    """Firefox has answered that it does not do what it was asked for."""


def find_firefox() -> str | None:
    """The browser named in SNN_FIREFOX, or the first of the usual names on the path, or where a Mac has it."""
    if named := os.environ.get("SNN_FIREFOX"):
        return named
    return next((found for name in ("firefox", "firefox-esr", ON_A_MAC) if (found := shutil.which(name))), None)


def need_firefox() -> None:
    need(find_firefox(), HOW_TO_GET_FIREFOX)


@contextlib.contextmanager
def process(binary: str) -> Iterator[str]:
    """Firefox with a profile of its own; yields where it listens. Both end with the block.

    Raises FirefoxError, with what it said, if it does not listen.
    """
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as profile:
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
        Path(profile, "user.js").write_text("".join(lines), encoding="utf-8")
        log, end = Path(profile, "said"), time.monotonic() + PATIENCE
        with log.open("w") as out:
            running = subprocess.Popen(
                [binary, *FLAGS, profile],
                env=os.environ | {"HOME": profile},  # root's Firefox starts in no home but root's
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not (address := re.search(LISTENS, said := log.read_text(encoding="utf-8", errors="replace"))):
                if running.poll() is not None or time.monotonic() > end:
                    raise FirefoxError(f"{binary} should say {LISTENS!r}, but said {said[-2000:] or 'nothing'!r}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(timeout=0.05)
            yield address[1]
        finally:
            for how in (signal.SIGTERM, signal.SIGKILL):  # its own processes, too
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, how)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(timeout=GRACE)


class Fox(Window):
    """The one window of a Firefox."""

    passing = Refused

    def __init__(self, socket: WebSocket) -> None:
        super().__init__()
        self._socket, self._n = socket, 0
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=EVENTS)
        self._context = self.ask("browsingContext.create", type="tab")["context"]
        self.ask("browsingContext.setViewport", context=self._context, viewport={"width": 1200, "height": 900})

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a command; events that come before it are heard. Raises Refused, or FirefoxError."""
        self._n += 1
        end = time.monotonic() + PATIENCE
        message: dict[str, Any] = {}
        try:
            self._socket.send(json.dumps({"id": self._n, "method": method, "params": params}))
            while message.get("id") != self._n:
                self._socket.settimeout(max(0.1, end - time.monotonic()))
                message = json.loads(self._socket.recv())
                if message["type"] == "event":
                    self._heard(message["method"], message["params"])
        except (WebSocketException, OSError) as error:
            raise FirefoxError(f"no answer to {method} {params}: {error!r}") from error
        if message["type"] == "error":
            raise Refused(f"{method} {params}: {message['error']}: {message['message']}")
        return message["result"]

    def _heard(self, event: str, told: dict[str, Any]) -> None:
        if event == "log.entryAdded":
            if told["level"] == "error":
                self.faults.append(f"{told['type']}: {told['text']}")
        elif event == "network.beforeRequestSent":
            self.asked_for(told["request"]["url"])
        elif event == "network.responseCompleted":
            self.answered(told["request"]["url"], told["response"]["status"])
        elif told["errorText"] != "NS_BINDING_ABORTED":  # taken back, as by a page that is left
            self.failed(told["request"]["url"], told["errorText"])

    def go(self, url: str) -> None:
        self.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")
        self.rest()
        # It lays out what has come of a page, and complains of a formula whose end has not come yet. What it says of
        # the formulas of the whole page counts: they are laid out once more.
        self.faults = [fault for fault in self.faults if MARKUP not in fault]
        self.run(LAID_OUT_ANEW)

    def run(self, script: str) -> Any:
        text = f"(async () => JSON.stringify(await ({script})) ?? 'null')()"
        found = self.ask("script.evaluate", expression=text, target={"context": self._context}, awaitPromise=True)
        if found["type"] == "exception":
            raise Refused(f"{found['exceptionDetails']['text']} in {script}")
        return json.loads(found["result"]["value"])

    def rest(self) -> None:
        with contextlib.suppress(Refused):
            self.run("new Promise((done) => setTimeout(done, 30))")

    def press(self, key: str, times: int = 1) -> None:
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")] * times
        keyboard = {"type": "key", "id": "keyboard", "actions": strokes}
        self.ask("input.performActions", context=self._context, actions=[keyboard])


@contextlib.contextmanager
def firefox() -> Iterator[Fox]:
    """The browser that `find_firefox` finds, with no window on the screen; it ends with the block.

    Raises FileNotFoundError if there is none.
    """
    binary = find_firefox()
    if binary is None:
        raise FileNotFoundError(HOW_TO_GET_FIREFOX)
    # It takes nobody who names an origin; and no proxy lies between.
    how: dict[str, Any] = {"timeout": PATIENCE, "suppress_origin": True, "http_no_proxy": ["127.0.0.1"]}
    with process(binary) as address, contextlib.closing(create_connection(f"{address}/session", **how)) as socket:
        yield Fox(socket)
