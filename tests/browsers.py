"""Chromium or Chrome, for tests of pages: `browser` is a fixture, imported where it is used."""

import shutil
from contextlib import contextmanager

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NO_BROWSER = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")


@contextmanager
def quiet_tab(browser, allowed):
    """The one tab of a browser, as a new one costs three pages. It asks for addresses that begin as ``allowed``."""
    context = browser.contexts[0] if browser.contexts else browser.new_context(has_touch=True)
    tab, complaints = context.pages[0] if context.pages else context.new_page(), []
    listeners = {
        "console": lambda message: complaints.extend([] if "status of 4" in message.text else [message.text]),
        "pageerror": lambda error: complaints.append(str(error)),
        "request": lambda asked: complaints.extend([] if asked.url.startswith(allowed) else [asked.url]),
    }
    tab.set_viewport_size({"width": 1280, "height": 720})
    tab.emulate_media(color_scheme="light", reduced_motion="no-preference")
    for event, listener in listeners.items():
        tab.on(event, listener)
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    tab.unroute_all()
    tab.goto("about:blank")  # nothing of it goes on during the next test
    assert complaints == []


@pytest.fixture(scope="module")
def browser():
    library = pytest.importorskip("playwright.sync_api", reason="pip install '.[dev]'")
    with library.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()
