"""The logs of a run: each line is what was written, or said to be damaged; a kill costs a last line alone."""

import errno
import json
import math
import os
import shutil

import pytest

from unstir.errors import UnwrittenError
from unstir.runs import lines
from unstir.runs.run import Run
from unstir.train.record import VARYING
from unstir.train.trainer import Trainer

SEEN = {"log__held_out_images": 16, "log__held_out_times": 4, "grids__log_spaced": 3}
LOGS = ("metrics", "held_out", "events")


def missing(run):
    """The lines that the newest checkpoint counts on and the logs lack, in words."""
    return lines.cut({name: run.log(name) for name in lines.NAMES}, run.load())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.mark.parametrize("name", LOGS)
def test_a_damaged_line_costs_itself_alone_and_a_copy_of_the_file_is_kept(trained, make_run, logged, name):
    run, _ = trained(**SEEN)
    file, before = run.path / f"{name}.jsonl", run.log(name).lines
    for number, spoil in ((1, b"\x00junk"), (2, b"{}")):
        whole = file.read_bytes()
        texts = whole.split(b"\n")
        texts[1] = spoil
        file.write_bytes(b"\n".join(texts))
        assert f"{name}.jsonl: line 2" in run.log(name).problem
        logged.clear()
        Trainer(*make_run(**SEEN)).start()
        (said,) = logged
        assert "line 2" in said
        copies = sorted(path for path in run.path.iterdir() if ".damaged" in path.name)
        assert len(copies) == number and copies[-1].read_bytes() == b"\n".join(texts) and copies[-1].name in said
        assert run.log(name).damaged == () and run.log(name).lines == tuple(
            line for line in before if line != before[1]
        )
        file.write_bytes(whole)
    assert run.log(name).lines == before


def test_a_last_line_cut_anywhere_is_dropped_without_a_word(trained, make_run, logged):
    run, _ = trained(**SEEN)
    for name in LOGS:
        file = run.path / f"{name}.jsonl"
        whole, wanted = file.read_bytes(), run.log(name).lines
        *_, last = whole.splitlines(keepends=True)
        for cut in {1, 2, 7, len(last) // 2, len(last) - 1}:
            file.write_bytes(whole[:-cut])
            found = run.log(name)
            assert found.damaged == () and found.lines == (wanted if cut == 1 else wanted[:-1])
            new = {"event": "new", "run": run.data.run}
            lines.append(file, new if name == "events" else wanted[-1])  # after a kill
            assert run.log(name).damaged == () and len(run.log(name).lines) == len(wanted) + (cut == 1)
        file.write_bytes(whole)
    Trainer(*make_run(**SEEN)).start()
    assert logged == []


def test_lines_that_a_checkpoint_counts_on_and_are_gone_are_missed(run, make_run, logged):
    whole = run.log_file("metrics").read_bytes().splitlines(keepends=True)
    for left in (whole[:-1], whole[:2], []):
        run.log_file("metrics").write_bytes(b"".join(left))
        (problem,) = missing(run)
        logged.clear()
        Trainer(*make_run()).start()
        step = 2 * len(left)
        assert f"at step {step}" in problem and logged[0] in problem
    run.log_file("metrics").unlink()
    assert "at step 0" in missing(run)[0]


def test_held_out_lines_that_a_checkpoint_counts_on_and_are_gone_are_missed(trained, make_run, logged):
    run, _ = trained(**SEEN)
    first = run.log_file("held_out").read_bytes().splitlines(keepends=True)[0]
    assert missing(run) == []
    for spoilt in (first, first + b"{", first[:-1] + b"\x0b", b""):
        run.log_file("held_out").write_bytes(spoilt)
        (problem,) = missing(run)
        logged.clear()
        Trainer(*make_run(**SEEN)).start()
        assert run.log_file("held_out").name in problem and logged == [problem]


def test_a_last_held_out_line_whose_end_is_damaged_is_measured_again_by_a_longer_run(trained, make_run, tmp_path):
    """A last line without its end is what a kill leaves; the checkpoint of its step has the weights."""
    run, _ = trained(**SEEN)
    shutil.copytree(run.path, tmp_path / "whole")
    whole = run.log_file("held_out").read_bytes()
    run.log_file("held_out").write_bytes(whole[:-1] + b"\x0b")
    ended = []
    for name in ("whole", run.path.name):
        longer, store = make_run(name, **SEEN | {"train__length": "14 steps"})
        Trainer(longer, store).run()
        ended.append([{**line, "seconds": 0} for line in longer.held_out()])
    assert ended[0] == ended[1] and 12 in {line["step"] for line in ended[0]}


def test_a_continued_run_has_the_lines_of_one_that_was_not_stopped_after_damage_too(trained, make_run):
    whole, _ = trained("whole")
    run, _ = make_run("stopped", train__length="8 steps")
    Trainer(*make_run("stopped", train__length="8 steps")).run()
    texts = run.log_file("metrics").read_bytes().split(b"\n")
    run.log_file("metrics").write_bytes(b"\n".join([texts[0], b"damaged", *texts[2:]]))
    Trainer(*make_run("stopped", train__length="12 steps")).run()
    ours, theirs = (
        [{key: value for key, value in line.items() if key not in VARYING} for line in each.metrics()]
        for each in (run, whole)
    )
    assert ours == [line for line in theirs if line["step"] != 4]


@pytest.mark.parametrize(
    "change",
    [
        {"images": None}, {"loss": "0.1"}, {"loss": True}, {"lr": math.nan}, {"lr": None}, {"step": -1}, {"step": 1.0},
        {"step": True}, {"images": 10**400}, {"seconds": 10**400}, {"seconds": [1]}, {"mse": {}}, {"skipped": 2**60},
    ],
)  # fmt: skip
def test_a_line_of_other_kinds_is_damaged(run, change):
    sound = run.metrics()
    lines.write(run.log_file("metrics"), [sound[0], {**sound[1], **change}, *sound[2:]])
    ((number, reason),) = run.log("metrics").damaged
    assert number == 2 and next(iter(change)) in reason and len(reason) < 100
    for key in lines.METRICS:
        lines.write(run.log_file("metrics"), [{name: value for name, value in sound[0].items() if name != key}])
        assert [(number, key in reason) for number, reason in run.log("metrics").damaged] == [(1, True)]


def test_losses_that_are_no_numbers_are_what_was_measured(run):
    sound = run.metrics()
    for value in (None, math.inf):
        lines.write(run.log_file("metrics"), [{**sound[0], "loss": value}])
        assert run.metrics() == [{**sound[0], "loss": value}]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EPERM, errno.EROFS])
def test_a_log_that_cannot_be_written_is_named(run, monkeypatch, number):

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    sync, record = (lambda: lines.sync(run.log_file("metrics"))), (lambda: run.record("started"))
    for owner, name, call, file in ((lines.os, "fsync", sync, "metrics"), (lines.os, "open", record, "events")):
        with monkeypatch.context() as patch, pytest.raises(UnwrittenError) as refused:
            patch.setattr(owner, name, fail)
            call()
        assert (refused.value.errno, refused.value.filename) == (number, str(run.path / f"{file}.jsonl"))
    assert Run.open(run.path).metrics()


def test_a_line_is_an_object_that_anyone_can_read(tmp_path):
    lines.append(tmp_path / "log", {"b": 0.1, "a": "é"})
    text = (tmp_path / "log").read_text()
    assert json.loads(text) == {"b": 0.1, "a": "é"} and text.endswith("}\n")
