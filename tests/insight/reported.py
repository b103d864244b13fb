"""Two tiny runs that were judged, and their pages, made once for the tests of pages; nothing of them may be changed."""

import html5lib
import pytest

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.insight import compared, page
from unstir.insight.write import measure, planned, time_samplers
from unstir.metrics.classifier import networks_for
from unstir.runs.run import Run
from unstir.train.launch import open_data, open_run
from unstir.train.trainer import Trainer


@pytest.fixture(scope="module")
def store(classified, shared):
    return Store.open(shared("reported-digits", lambda folder: copied(classified, folder, classifier=True)))


def train(store, out, **changes):
    config = tiny_config(
        store.path, **{"log__held_out_images": 16, "grids__log_spaced": 3, "data__source": str(store.path), **changes}
    )
    run = open_run(config, out, open_data(config, out))
    Trainer(run, store).run()
    return run


@pytest.fixture(scope="module")
def run(quick, store, shared):
    """A tiny run, judged at each saved step and by some chains, with its page."""

    def make(folder):
        made = train(store, folder / "first")
        by_step, by_chain = planned(made, store, num=24, seeds=2, networks=networks_for(store))
        measure([*by_step, *by_chain])
        time_samplers(made, [by_step[-1], *by_chain])
        page.write(made, store, made.path / "report.html")

    return Run.open(shared("reported-first", make) / "first")


@pytest.fixture(scope="module")
def other(quick, store, shared):
    """Another of a higher learning rate, judged by the same protocol."""

    def make(folder):
        made = train(store, folder / "second", train__lr=1e-3)
        measure(planned(made, store, num=24, seeds=2, networks=networks_for(store))[0])

    return Run.open(shared("reported-second", make) / "second")


@pytest.fixture(scope="module")
def report(run):
    return run.path / "report.html"


@pytest.fixture(scope="module")
def comparison(run, other, store, shared):
    def make(folder):
        folder.mkdir()
        compared.write([run, other], [store, store], folder / "page.html")

    return shared("reported-comparison", make) / "page.html"


def parsed(path):
    """The page as a tree; html5lib's strict parser raises for any error in it."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(path.read_text(encoding="utf-8"))


def text_of(path):
    return " ".join(" ".join(parsed(path).itertext()).split())
