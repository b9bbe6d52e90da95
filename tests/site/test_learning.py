"""The network that learns in the page, in a browser, under the policy that the book's pages have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Tab
from one_explorer import page_with, served
from playwright.sync_api import Browser
from scripts import violations
from snn_chapters.explorers.learning import LearningExplorer

from snn_helpers import load_mnist


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    train, held_out = load_mnist("train", "subset"), load_mnist("test", "subset")
    explorer = LearningExplorer(train, held_out, 1000, 100, n_steps=8, n_hidden=20)
    with served(
        tmp_path_factory.mktemp("learning"),
        page=page_with(explorer),
        forbidden=page_with(explorer, "; worker-src 'none'"),
    ) as found:
        yield found


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with Tab(browser) as tab:
        yield tab


GET = "document.querySelector('.snn').parentElement.explorer.get"
RUNS = "document.querySelector('.snn-picture')?.dataset.runs"


def get(tab: Tab, name: str) -> Any:
    return tab.run(f"{GET}({json.dumps(name)})")


def press(tab: Tab, name: str) -> None:
    """A button, by the keyboard."""
    tab.page.get_by_role("button", name=name, exact=True).focus()
    tab.press("Enter")


def opened(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.wait(f"{RUNS} && {GET}('accuracy') >= 0")


def test_it_learns_beside_the_page_and_heeds_its_buttons(tab: Tab, address: str) -> None:
    opened(tab, f"{address}/page.html")
    assert tab.run(RUNS) == "a worker"
    assert get(tab, "seen") == 0 and get(tab, "accuracy") < 0.35
    press(tab, "One step")
    tab.wait(f"{GET}('seen') === 20")
    press(tab, "Start")
    tab.wait(f"{GET}('accuracy') > 0.5")
    press(tab, "Pause")
    tab.wait("[...document.querySelectorAll('button')].some((each) => each.textContent === 'Start')")
    tab.page.wait_for_timeout(300)
    before = get(tab, "seen")
    tab.page.wait_for_timeout(600)
    assert get(tab, "seen") == before and before % 20 == 0
    assert f"{before:,} digits seen" in tab.run("document.querySelector('p.snn-text').textContent")
    press(tab, "Start over")
    tab.wait(f"{GET}('seen') === 0")
    assert not tab.faults


@pytest.mark.parametrize("why", ["no workers", "forbidden"])
def test_it_learns_on_the_pages_thread_where_there_is_no_worker(why: str, tab: Tab, address: str) -> None:
    if why == "no workers":
        tab.page.add_init_script("delete window.Worker")
    opened(tab, f"{address}/{'page' if why == 'no workers' else 'forbidden'}.html")
    assert tab.run(RUNS) == "this page's own thread"
    press(tab, "Start")
    tab.wait(f"{GET}('seen') > 400")
    # In slices: the page answers while it learns.
    press(tab, "Pause")
    tab.wait("[...document.querySelectorAll('button')].some((each) => each.textContent === 'Start')")
    assert [fault for fault in tab.faults if "Content Security Policy" not in fault] == []


def test_it_rests_while_nobody_sees_it(tab: Tab, address: str) -> None:
    opened(tab, f"{address}/page.html")
    press(tab, "Start")
    tab.wait(f"{GET}('seen') > 100")
    tab.run("scrollTo({top: 1e6, behavior: 'instant'})")
    tab.page.wait_for_timeout(600)
    before = get(tab, "seen")
    tab.page.wait_for_timeout(600)
    assert get(tab, "seen") == before
    tab.run("scrollTo({top: 0, behavior: 'instant'})")
    tab.wait(f"{GET}('seen') > {before}")


def test_the_address_carries_all_settings_and_the_code_follows(tab: Tab, address: str) -> None:
    asked = {"rule": "STDP", "learning_rate": 0.03, "decay": 0.5, "threshold": 0.7, "penalty": 1, "reset": "zero"}
    asked |= {"n_steps": 6, "n_hidden": 9, "seed": 4}
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    opened(tab, f"{address}/page.html#learning?{query}")
    assert {name: get(tab, name) for name in asked} == asked
    code = tab.run("document.querySelector('pre').textContent")
    for words in ('["STDP"]', "lr=0.03", "decay = 0.5", "sizes=(196, 9, 10)", 'reset="zero"', "seed=4"):
        assert words in code
    press(tab, "One step")
    tab.wait(f"{GET}('seen') === 20")
    # Another rule starts over; another rate acts on the network as it is.
    tab.run(f"{GET.removesuffix('.get')}.set('learning_rate', 0.2)")
    press(tab, "One step")
    tab.wait(f"{GET}('seen') === 40")
    tab.run(f"{GET.removesuffix('.get')}.set('rule', 'Hebb')")
    tab.wait(f"{GET}('seen') === 0")
    assert "lr=0.2" in tab.run("document.querySelector('pre').textContent")
    assert not tab.faults


def test_it_can_be_read_by_all(browser: Browser, address: str) -> None:
    for width, theme in ((1280, "light"), (1280, "dark"), (340, "light"), (340, "dark")):
        with Tab(browser, width, 800, still=True) as tab:
            opened(tab, f"{address}/page.html")
            tab.run(f"document.documentElement.dataset.theme = '{theme}'")
            tab.run("for (const each of document.querySelectorAll('details')) each.open = true")
            press(tab, "One step")
            tab.wait(f"{GET}('seen') === 20")
            assert tab.run("document.documentElement.scrollWidth <= innerWidth")
            beyond = "[...document.querySelectorAll('.snn, .snn *')].filter((e) => !e.closest('pre') &&"
            assert tab.run(f"{beyond} e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML)") == []
            found = violations(tab)
            assert found == [], (width, theme, found)
            for drawn in ("svg", "canvas"):
                labels = tab.run(
                    f"[...document.querySelectorAll('.snn {drawn}')].map((e) => e.getAttribute('aria-label'))"
                )
                assert labels and all(label and "not drawn" not in label for label in labels), labels
