"""A server of the pages in this process, its run of seconds, and tabs of a browser: fixtures, imported where used."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

import browsers
from conftest import tiny_config
from unstir.serve.server import FILE, open_server
from unstir.train.launch import train_run


@contextmanager
def program(cwd):
    """`unstir serve` as a program of its own, which Ctrl-C ends however the tests themselves were started."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored signal would be inherited
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "unstir", "serve"], cwd=cwd, env=env, **pipes) as process:
        signal.signal(signal.SIGINT, usual)
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def run(digits, shared):
    """The folder of a run that knows classes, with two snapshots."""
    config = tiny_config(digits, model__num_classes=10, train__condition_dropout=0.2)
    return shared("run-served", lambda folder: train_run(config, folder))


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """A server of this run and the models of the package, in an empty folder."""
    with pytest.MonkeyPatch.context() as patch, open_server([run]) as opened:
        patch.chdir(tmp_path_factory.mktemp("here"))
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def tab(browser, server):
    """tab("sample#seed=1") -> a page of the server, as the first one that is opened."""

    def opened(address=""):
        page.goto(f"{server.address}static/report.css")
        page.evaluate("sessionStorage.clear()")
        page.goto(server.address + address)
        return page

    with browsers.quiet_tab(browser, (server.address, "data:", "blob:")) as page:
        yield opened


def png(pixels):
    """The bytes of a PNG with these pixels, [H, W] or [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def sent(address, content):
    """The id of a picture file that is sent to the server of an address."""
    with urlopen(Request(f"{address}picture", content, {"Content-Type": FILE})) as response:
        return json.load(response)["picture"]


def text(content):
    """Bytes as calls hold them."""
    return base64.b64encode(content).decode()


def until(page, expression, most=90.0):
    """Wait until JavaScript is true; Playwright's own way is refused by the pages' policy."""
    end = time.monotonic() + most
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def violations(page, *screens):
    """What axe finds on screens (width, colour scheme), and where the page is wider than the window."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for width, scheme in screens:
        page.set_viewport_size({"width": width, "height": 720})
        page.emulate_media(color_scheme=scheme)
        rules = Axe().run(page).response["violations"]
        found += [(width, rule["id"], [node["html"][:80] for node in rule["nodes"]]) for rule in rules]
        found += [(width, "too wide")] * page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return found
