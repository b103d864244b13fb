"""What may be done with an imported run, and what says that its training and its data are not known."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from untrained import untrained

from refusals import mistake
from unstir.data import Store
from unstir.errors import UserError
from unstir.insight.write import write_report
from unstir.interop.exporting import export
from unstir.interop.importing import import_run
from unstir.metrics.evaluate import evaluate_run
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.metrics.request import EvaluationRequest
from unstir.runs.run import Run
from unstir.runs.stores import compared_with
from unstir.train.distill import distilled
from unstir.train.trainer import Trainer

pytest.importorskip("diffusers", reason="pip install '.[diffusers]'")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


@pytest.fixture
def imported(shared, tmp_path):
    """An imported run of 8x8 digits: its folder, copied."""

    def make(folder):
        run = untrained(folder / "first")
        export(run.model(device="cpu"), "diffusers", folder / "out")
        import_run(folder / "out", folder / "run")

    return Run.open(shutil.copytree(shared("imported", make) / "run", tmp_path / "imported"))


def test_it_says_where_it_came_from_and_holds_nothing_made_up(imported):
    source, program, sha256 = imported.config.imported.split(", ")
    assert (source[-4:], program) == ("/out", "diffusers") and re.fullmatch("SHA-256 [0-9a-f]{64}", sha256)
    assert imported.load().config["imported"] == imported.config.imported
    assert imported.data.content_hash == "" and imported.data.counts == {"train": 0, "held_out": 0}
    assert imported.metrics() == [] and imported.length == 0
    assert [line["event"] for line in imported.log("events").lines] == ["imported"]
    assert imported.model().averaged is False  # of what kind they were is not known


def test_commands_that_need_images_ask_for_them(imported, unstir, refused):
    for command in ("evaluate", "likelihood"):
        refused(unstir(command, imported.path), "was imported", "--store")


def test_it_is_evaluated_against_images_that_are_named(imported, classified):
    request = EvaluationRequest(store=classified, num=20, seeds=1)
    ((evaluation,), _) = evaluate_run(imported.path, request)
    assert evaluation.protocol["data"] and evaluation.main().value > 0 and evaluation.memorisation is None


def test_its_errors_by_time_are_measured_on_images_that_are_named(imported, classified):
    assert imported.model().errors is None
    asked = Protocol(variance="optimal", num=4, calls=4)
    store = Store.open(classified)
    save_likelihood(compared_with(imported, store).model(), store, ("held_out",), asked)
    assert imported.model().errors is not None


def test_images_of_another_kind_are_refused(imported, classified):
    bare = replace(imported, data=replace(imported.data, shape=(1, 16, 16)))
    assert mistake(compared_with, bare, Store.open(classified)).given == Store.open(classified).path


NAMES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (NAMES, ""),
        ((), ""),
        (tuple(map(str, range(10))), ""),  # as an import without --classes makes up
        (NAMES[:5] + NAMES[:4:-1], "dog, .* from number 5 .* has truck, "),
        (("Plane", *NAMES[2:0:-1], *NAMES[3:]), "car, .* from number 1 .* has bird, "),
        ((*NAMES[:9], "lorry"), "truck from number 9 .* has lorry"),
    ],
)
def test_a_number_that_is_one_class_there_and_another_here_is_refused(imported, classified, theirs, words):
    store = Store.open(classified)
    store = replace(store, manifest={**store.manifest, "classes": list(NAMES)})
    by_class = replace(
        imported,
        config=replace(imported.config, model=replace(imported.config.model, num_classes=10)),
        data=replace(imported.data, classes=theirs),
    )
    assert compared_with(imported, store).data.content_hash == store.content_hash  # whose classes nobody asks for
    if not words:
        assert compared_with(by_class, store).data.content_hash == store.content_hash
    else:
        with pytest.raises(UserError, match=words):
            compared_with(by_class, store)


def test_the_doctor_leaves_out_what_was_elsewhere(imported, unstir, classified):
    status, out, _ = unstir("doctor", imported.path)
    assert status == 0 and "nothing found" in out and "elsewhere" in out
    checked = unstir("doctor", imported.path, "--store", classified)[1].split("checked")[1].split("skipped")[0]
    assert "brightness" in checked and "not-learned" not in checked


def test_the_page_says_that_training_is_not_known(imported, tmp_path, logged):
    write_report([imported.path], measuring=False)
    assert "store=" in logged[0]
    text = re.sub(r"<[^>]+>", " ", (imported.path / "report.html").read_text())
    assert f"imported from {imported.config.imported}" in text
    assert "finished" not in text.split("Settings")[0] and "training time" not in text
    untrained(tmp_path / "other")
    write_report([imported.path, tmp_path / "other"], measuring=False)


def test_training_does_not_continue_it_and_goes_on_from_its_weights(imported, unstir, refused, make_run):
    line = refused(unstir("train", "--out", imported.path), "was imported (")
    assert f"--train.init {imported.path} --data.source IMAGES" in line and "--train.warmup LENGTH" in line
    error = mistake(distilled, imported)
    assert error.given == imported.path and imported.going_on in error.remedy
    refused(unstir("train", imported.path / "config.toml", "--out", "new"), "--data.source")
    run, store = make_run("new", train__init=str(imported.path))
    state = Trainer(run, store).state.net.state_dict()
    assert all(torch.equal(state[name], t) for name, t in imported.load().part("model").items())
    status, _, err = unstir(
        "train", imported.path / "config.toml", "--train.init", imported.path, "--data.source", "digits",
        "--data.store", store.path, "--train.length", "1 step", "--out", "going-on", "--log.held_out_images", 0,
        "--grids.num", 4, "--train.batch_size", 8,
    )  # fmt: skip
    assert status == 0 and Run.open("going-on").config.imported == "", err
