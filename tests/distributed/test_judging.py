"""Images that are there, judged by several processes: the figures of one, and the first alone reads and writes."""

import json
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from conftest import copied
from together import Together, together
from unstir import cli
from unstir.data import Store
from unstir.distributed.place import LOST, place
from unstir.errors import UserError
from unstir.metrics import evaluate_images as module
from unstir.metrics.classifier import Classifier
from unstir.metrics.evaluate_images import evaluate_images
from unstir.metrics.evaluation import saved
from unstir.metrics.features import Network, Outputs
from unstir.metrics.request import EvaluationRequest

pytestmark = pytest.mark.usefixtures("quick")
SMALL = ("--store", "digits", "--reference", 100)


@pytest.fixture
def here(classified, tmp_path, monkeypatch):
    """A folder with a store and its classifier, and files of images, some of them faint."""
    monkeypatch.chdir(tmp_path)
    copied(classified, tmp_path / "digits", classifier=True)
    images = Store.open("digits").images("held_out")[:160]
    for name, some in {"a": images[:70], "b": images[70:140], "faint": images[:70] // 2, "few": images[:5]}.items():
        np.save(f"{name}.npy", some.numpy())
    return tmp_path


def commands(num, words, out):
    """The command in so many processes, of which the first alone is in the folder that relative paths are of."""

    def work(rank):
        if rank:
            (out / "elsewhere").mkdir(exist_ok=True)
            os.chdir(out / "elsewhere")
        cli.main(["evaluate", *map(str, words)])

    return Together(num, work, out)


def said(job):
    return [line for line in job.said().splitlines() if line.startswith("unstir: ")]


def shown(out):
    """What a command showed as JSON, but for its times."""
    (line,) = [line for line in out.splitlines() if line.startswith("{")]
    found = json.loads(line)
    return found["comparison"], [{**each, "seconds": {}} for each in found["evaluations"]]


def test_images_are_judged_by_three_as_by_one(here, command):
    judged = ("--images", "a.npy", "b.npy", *SMALL, "--json")
    compared = ("--images", "faint.npy", *SMALL, "--against", "a.npy", "--json")
    found = {}
    for num in (1, 3):
        copied(here / "digits", here / f"data{num}", classifier=True)
        for number, words in enumerate((judged, (*judged[:2], *judged[3:]), compared)):
            words = [f"data{num}" if word == "digits" else word for word in words]
            if num == 1:
                status, out, err = command("evaluate", *words)
                assert status == 0, err
            else:
                job = commands(num, words, here / f"out{number}")
                assert job.wait() == [0, 0, 0], job.said()
                out, *others = ((here / f"out{number}/{rank}.err").read_text() for rank in range(num))
                assert others == ["", ""]
            found[num, number] = shown(out)
    for number in range(3):
        assert found[1, number] == found[3, number]
    (of_two,), (of_faint,) = found[3, 0][1], found[3, 2][1]
    assert of_two["protocol"]["seeds"] == 2 and len(of_two["figures"]) > 5 and of_two["memorisation"]
    assert len(found[3, 2][0]) == len(of_faint["figures"]) and "FD-classifier" in found[3, 2][0][0]
    names = [{each.name() for each in saved(Store.open(here / f"data{num}"))} for num in (1, 3)]
    assert names[0] == names[1] and len(names[0]) == 3
    job = commands(2, [f"data{num}" if word == "digits" else word for word in judged], here / "again")
    assert job.wait() == [0, 0] and shown((here / "again/0.err").read_text()) == found[1, 0]  # which it finds


def test_all_compute_features_and_return_the_same(here):
    images, request = torch.from_numpy(np.load("faint.npy")), EvaluationRequest(store=here / "digits", reference=100)
    evaluate_images("b.npy", None, request)

    def judge(rank=0):
        counted, batch = [], Classifier._batch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Classifier, "_batch", lambda self, some: counted.append(len(some)) or batch(self, some))
            if rank:  # which needs nothing of what the first has
                given = torch.zeros(0)
                patch.setattr(module, "planned_images", lambda *_, **__: pytest.fail("planned by another"))
            else:
                given = images
            asked = replace(request, against=here / "b.npy")
            made, comparison = evaluate_images(given, None, asked, say=lambda text: pytest.fail(text))
        return {**asdict(made), "seconds": {}}, comparison, sum(counted)

    def forget():
        for kept in (here / "digits/statistics").glob("classifier-*"):
            kept.unlink()

    forget()
    by_two = together(2, judge, here / "two")
    forget()
    for kept in (here / "digits/evaluation").glob(f"images-{by_two[0][0]['protocol']['images'][:12]}*"):
        kept.unlink()
    made, comparison, counted = judge()
    expected = json.loads(json.dumps(made))
    assert [found[:2] for found in by_two] == [[expected, comparison]] * 2 and len(comparison) == len(made["figures"])
    first, second = (found[2] for found in by_two)
    twice = first + second - counted
    assert second >= 0.4 * counted and 0 < twice < 20, (first, second, counted)  # of each the first looks at one image


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--images", "few.npy", *SMALL), "few.npy holds 5 images, too few for a set of at least 12"),
        (("--images", "none", *SMALL), "none is not there; give a folder"),
        (("--images", "a.npy", *SMALL, "--against", "few.npy"), "too few for 1 sets of at least 12"),
        (("--images", "a.npy", *SMALL, "--against", "b.npy"), "b.npy --store digits has not been evaluated"),
        (("--images", "a.npy", *SMALL, "--checkpoint", "all"), "--checkpoint says how a run's images are drawn"),
        (("--images", "a.npy", "--store", "nothing"), "nothing"),
    ],
)
def test_a_mistake_ends_all_with_one_line(here, words, why):
    before = sorted((here / "digits").rglob("*"))
    job = commands(2, words, here / "out")
    assert job.wait() == [2, 2], job.said()
    (line,) = said(job)
    assert why in line and "process" not in line and job.said().count("\n") == 1
    assert sorted((here / "digits").rglob("*")) == before


def test_processes_that_were_asked_for_different_things_are_refused(here):
    def work(rank):
        cli.main(["evaluate", "--images", ("a.npy", "b.npy")[rank], *map(str, SMALL)])

    job = Together(2, work, here / "out")
    assert job.wait() == [2, 2]
    (line,) = said(job)
    assert "differs from the first: images is 'b.npy', not 'a.npy'; start all with the same options" in line


@pytest.mark.parametrize("at", [0, 1])
def test_one_that_is_killed_ends_the_others_and_the_same_command_goes_on(here, at, monkeypatch):
    words, batch = ("--images", "a.npy", *SMALL), Classifier._batch

    def killed(self, images):
        if place().rank == at and len(images) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, images)

    monkeypatch.setattr(Classifier, "_batch", killed)
    job = commands(3, words, here / "killed")
    statuses = job.wait()
    assert statuses.pop(at) == -signal.SIGKILL and sorted(statuses) == [-signal.SIGTERM, LOST], job.said()
    (line,) = said(job)
    assert "another process was lost" in line
    assert not saved(Store.open("digits"))
    monkeypatch.setattr(Classifier, "_batch", batch)
    job = commands(2, words, here / "again")
    assert job.wait() == [0, 0] and len(saved(Store.open("digits"))) == 1, job.said()


class Means(Network):
    """Means of pixels in the place of Inception's features."""

    name, trust = "inception-v3-compat", None

    def __init__(self, digest):
        self.hash = digest

    def _check(self, images):
        pass

    def _batch(self, images):
        return Outputs(images.double().flatten(1)[:, 20:28])


def test_a_network_that_one_cannot_load_is_a_mistake_in_all(here, monkeypatch):
    def inception(file, say, device):
        if place().rank == 1:
            raise UserError("no weights are here")
        return Means("0" * 64)

    monkeypatch.setattr(module, "installed", lambda: None)
    monkeypatch.setattr(module, "inception", inception)
    job = commands(2, ("--images", "b.npy", *SMALL, "--fid"), here / "out")
    assert job.wait() == [2, 2], job.said()
    (line,) = said(job)
    assert "process 1 of 2 (counted from 0): no weights are here" in line


@pytest.mark.parametrize("alike", [True, False])
def test_a_network_that_each_loads_is_the_same_in_all(here, monkeypatch, command, alike):
    loaded = {}

    def inception(file, say, device):
        assert (file, device) == (None, "auto") and place().rank not in loaded
        loaded[place().rank] = True
        return Means(str(0 if alike else place().rank) * 64)

    monkeypatch.setattr(module, "installed", lambda: None)
    monkeypatch.setattr(module, "inception", inception)
    words = ("--images", "b.npy", *SMALL, "--fid", "--json")
    job = commands(2, words, here / "out")
    if not alike:
        assert job.wait() == [2, 2] and not (here / "digits/evaluation").exists()
        (line,) = said(job)
        assert "differs from the first: inception-v3-compat is '1111" in line and "the same file of weights" in line
        return
    assert job.wait() == [0, 0], job.said()
    by_two = shown((here / "out/0.err").read_text())
    for path in ("evaluation", "statistics"):
        (here / "digits" / path).rename(here / path)
    assert shown(command("evaluate", *words)[1]) == by_two
    assert {key.split("/")[0] for key in by_two[1][0]["figures"]} == {"classifier", "inception-v3-compat"}
