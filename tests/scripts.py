"""The explorers' JavaScript, run as it is shipped: in node where there is one, else in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import HOW_TO_GET_IT, Tab, chromium, find_chromium, serve

ROOT = Path(__file__).resolve().parents[1]
JS = ROOT / "snn_helpers" / "js"
AXE = ROOT / "tests" / "assets" / "axe" / "axe.min.js"
Run = Callable[[str, Any], Any]


def need(browser: str | None, how_to_get_it: str) -> None:
    """Skip the test where there is no such browser; but continuous integration skips nothing."""
    if browser is None:
        if os.environ.get("SNN_NEEDS_BROWSER"):
            pytest.fail(how_to_get_it)
        pytest.skip(how_to_get_it)


def need_chromium() -> None:
    need(find_chromium(), HOW_TO_GET_IT)


def lay_out(tab: Tab) -> None:
    """As after scrolling through the whole page: sections below the screen wait to be laid out (book.css)."""
    tab.run("document.querySelectorAll('article section').forEach((each) => each.classList.add('laid-out'))")
    tab.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # until it is drawn


def unfold(tab: Tab) -> None:
    """Open every fold, and lay out the whole page."""
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    lay_out(tab)


def violations(tab: Tab) -> list[str]:
    """What axe-core finds on a page, of any weight, with every fold open and the elements named."""
    unfold(tab)
    tab.wait("document.getAnimations().every((each) => each.playState !== 'running')")  # they fade in
    return by_axe(tab, "{resultTypes: ['violations']}")


def only(*rules: str) -> str:
    """Options for axe-core: it asks these rules, and no others."""
    return f"{{runOnly: {{type: 'rule', values: {json.dumps(rules)}}}, resultTypes: ['violations']}}"


def by_axe(tab: Tab, options: str) -> list[str]:
    """What axe-core finds on a page as it is, with these options."""
    tab.run(f"{AXE.read_text(encoding='utf-8')}; 1")
    found = tab.run(
        f"axe.run(document, {options}).then((r) => r.violations.map((v) =>"
        " `${v.impact} ${v.id}: ${v.nodes.map((n) => n.html).join(' | ')}`))"
    )
    return [str(line)[:600] for line in found]


@contextmanager
def runner(module: str, folder: Path) -> Iterator[Run]:
    """`run(body, cases)`: what the body of a JavaScript function makes of each case `c`; `s` is the module.

    `folder` is an empty one, for a copy of the scripts.
    """
    node = shutil.which("node")
    if node is None:
        need_chromium()
        with serve(JS) as address, chromium() as browser, Tab(browser) as tab:
            tab.open(f"{address}/explorers.css")
            yield lambda body, cases: tab.page.evaluate(
                f"(cases) => import('/{module}').then((s) => cases.map((c) => {{ {body} }}))", cases
            )
        return
    # Node takes a file called .js for a module only where a package says so.
    shutil.copytree(JS, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')

    def in_node(body: str, cases: Any) -> Any:
        script = (
            f"import * as s from {json.dumps((folder / module).as_uri())};"
            "import { readFileSync } from 'node:fs';"
            f"const f = (c) => {{ {body} }};"
            "console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(f)));"
        )
        command = [node, "--input-type=module", "-e", script]
        done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    yield in_node


def script(module: str) -> Any:
    """A fixture: what the body of a JavaScript function makes of each case `c`; `s` is the script of that name."""

    @pytest.fixture(scope="module")
    def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
        with runner(module, tmp_path_factory.mktemp("scripts")) as found:
            yield found

    return run
