"""One run is never another: what a run of the same settings and another length made is left out, and named."""

import shutil
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from reported import text_of

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.generate.drawing import Job
from unstir.generate.sampling import sample
from unstir.insight.doctor import examine
from unstir.insight.facts import Speed
from unstir.insight.gather import SPEED, gather
from unstir.insight.pictures import drawn_for
from unstir.insight.write import measure, planned, write_report
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.metrics.plan import judge
from unstir.runs.checkpoint import content_hash
from unstir.runs.files import encode, words_of
from unstir.runs.run import Run
from unstir.runs.timetable import all_snapshots, drawn_grid, foreign
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick")


def of_length(store, length):
    spans = {"log__every": "1 steps", "checkpoint__every": "2 steps", "train__warmup": "0 steps"}
    spans |= {"train__length": length, "grids__log_spaced": 1}
    return tiny_config(store.path, **spans, log__held_out_images=8, log__held_out_times=2)


@pytest.fixture(scope="module")
def both(quick, digits, shared):
    """The folder of runs of 2 and 4 steps, "short" and "long", each with all that can be made of it, and their data."""

    def make(folder):
        store = Store.open(copied(digits, folder / "digits"))
        for name, length in (("short", "2 steps"), ("long", "2 steps"), ("long", "4 steps")):
            run = train_run(of_length(store, length), folder / name).run
            measure(planned(run, store, num=24, seeds=1)[0][-1:])
            save_likelihood(run.model(), store, protocol=Protocol(num=8, calls=2))
            sample(run.model(), Job(num=2, chain=run.chain()), run.path / f"edits/{length}")
            speed = Speed(seconds={}, num=1, machine={}, date="2025-01-01", run=run.data.run)
            (run.path / SPEED).write_text(encode(asdict(speed)))

    return shared("short-and-long", make)


@pytest.fixture
def short(both, tmp_path):
    """A copy of the short run, which is the same run, with its settings."""
    return Run.open(shutil.copytree(both / "short", tmp_path / "short"))


def used(run):
    """The ids of the runs that made what is shown of a run, and taken for its weights."""
    facts = gather(run.path, samples=False)
    lines = [*facts.lines, *facts.held_out, *run.log("events").lines, *run.log("errors").lines]
    weights = [facts.loaded, run.load(), *(run.load(step) for step in run.saved_steps())]
    grids = filter(None, (drawn_grid(run, name) for name in ("noise", *all_snapshots(run).values())))
    ids = {line["run"] for line in lines} | {file.data["run"] for file in weights}
    ids |= {evaluation.run for evaluation in (*facts.by_step, *facts.by_chain)}
    ids |= {words_of(path)["run"] for path in grids}
    ids |= {facts.bound.protocol["run"]} if facts.bound else set()
    return ids | ({facts.speed.run} if facts.speed else set())


MET_IN_TRAINING = [
    "weights/step-00000004.safetensors", "weights/step-00000002.safetensors", "checkpoints/step-00000004.safetensors",
    "checkpoints/step-00000002.safetensors", "samples/images-00000032.png", "samples/images-00000016.png",
    "samples/noise.png", "likelihood/step4-*.png", "likelihood/step2-*.png", "generated/step4-*/settings.json",
    "generated/step2-*/settings.json", "edits/4 steps/settings.json", "losses.png", "evaluation/step4-*-pairs.png",
    "evaluation/step2-*-pairs.png", "metrics.jsonl", "held_out.jsonl", "events.jsonl",
]  # fmt: skip
WAYS = [
    *MET_IN_TRAINING, "errors.jsonl", SPEED, "likelihood/step4-*.json", "likelihood/step2-*.json",
    "evaluation/step4-*.json", "evaluation/step2-*.json",
]  # fmt: skip
"""What the long run has, by patterns of files; at step 2 both runs have the same weights."""


def take_over(both, run, pattern):
    """Copy a file of the long run, or a folder with it where the file alone says little, into the short one."""
    (theirs, *_) = sorted((both / "long").glob(pattern))
    ours = run.path / theirs.relative_to(both / "long")
    if theirs.name == "settings.json":
        shutil.copytree(theirs.parent, ours.parent, dirs_exist_ok=True)
    ours.parent.mkdir(exist_ok=True)
    shutil.copy(theirs, ours)
    return ours


@pytest.mark.parametrize("pattern", WAYS)
def test_what_another_run_made_is_left_out_and_named(both, short, pattern, logged):
    assert used(short) == {short.data.run} and not gather(short.path, samples=False).left_out
    ours = take_over(both, short, pattern)
    assert used(short) <= {short.data.run}
    said = [finding.evidence for finding in examine(gather(short.path, samples=False)).findings]
    assert any(str(ours) in evidence for evidence in said)
    if pattern in MET_IN_TRAINING:
        train_run(of_length(Store.open(both / "digits"), "2 steps"), short.path)
        assert any(str(ours) in line for line in logged)


def test_the_page_names_all_that_another_run_made(both, short, tmp_path):
    last = gather(short.path, samples=False).last
    assert drawn_for(short, last) is not None
    shutil.rmtree(short.path / "generated")
    taken = [take_over(both, short, pattern) for pattern in WAYS if "checkpoints" not in pattern]
    write_report([short.path], page := tmp_path / "page.html", measuring=False)
    text = text_of(page)
    assert [path for path in taken if str(path) not in text] == [] and drawn_for(short, last) is None


def test_a_run_goes_on_as_if_the_weights_of_another_were_not_there(both, short, tmp_path):
    store, alone = Store.open(both / "digits"), shutil.copytree(short.path, tmp_path / "alone")
    theirs = [take_over(both, short, pattern) for pattern in MET_IN_TRAINING if "00000004" in pattern]
    ends = [train_run(of_length(store, "3 steps"), folder).run.load() for folder in (alone, short.path)]
    assert ends[0].step == ends[1].step == 3 and all(path.exists() for path in theirs)
    assert content_hash(ends[0].tensors) == content_hash(ends[1].tensors)


def test_figures_of_another_run_are_measured_anew_even_where_the_weights_are_equal(both, short):
    assert Run.open(both / "long").model(2).weights_sha256 == short.model().weights_sha256
    take_over(both, short, "evaluation/step2-*.json")
    (plan,), _ = planned(short, Store.open(both / "digits"), num=24, seeds=1)
    assert judge(plan).run == short.data.run and not gather(short.path, samples=False).left_out


def test_a_picture_that_names_no_run_is_nobodys(both, short):
    file = drawn_grid(short, "images-00000016")
    with Image.open(file) as picture:
        Image.fromarray(np.asarray(picture)).save(file)
    assert drawn_grid(short, "images-00000016") is None and foreign(short) == [file]


def test_two_runs_of_the_same_settings_have_ids_of_their_own_and_a_copy_has_that_of_its_run(make_run, tmp_path):
    (one, store), (other, _) = make_run("one"), make_run("other")
    for run in (one, other):
        Trainer(run, store).run()
    assert one.data.run != other.data.run and one.model().weights_sha256 == other.model().weights_sha256
    copy = Run.open(shutil.copytree(one.path, tmp_path / "copy"))
    assert copy.data.run == one.data.run and foreign(copy) == []
