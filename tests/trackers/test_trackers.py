"""Trackers against the libraries themselves: what TensorBoard and W&B have of a run is what its folder says."""

import base64
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from trackers_read import BOTH, artifact, events, expected, history, records
from wandb_server import Server

from conftest import tiny_config, without_charts
from unstir.interop.published import public
from unstir.report.write import write_report
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.timetable import snapshots
from unstir.trackers import following, serve, to_tensorboard
from unstir.trackers.following import Trackers
from unstir.trackers.job import Job
from unstir.train.launch import train_run
from unstir.train.observer import Observer

pytest.importorskip("tensorboard", reason="what is tested: pip install '.[tensorboard]'")
pytest.importorskip("wandb", reason="what is tested: pip install '.[wandb]'")

KILLED_AT = 11  # three steps after the checkpoint of step 8, and one after the line of step 10


class Watching(Observer):
    """Keeps what was said, and calls ``at(step)`` after each step."""

    def __init__(self, at=lambda step: None):
        self.said, self.at = [], at

    def say(self, text):
        self.said.append(text)

    def step(self, step):
        self.at(step)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """W&B without a network, and with a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(following, "SILENT_SECONDS", 60.0)  # of a machine that has other work
        without_charts(patch)
        yield patch


def asked(digits, **changes):
    return tiny_config(digits, log__to=BOTH, log__held_out_images=8, log__held_out_times=2, **changes)


def wait_until_free(run):
    """Until the trackers of a training that was killed have ended."""
    for name in BOTH:
        with open(run / name / ".lock", "w") as lock:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise AssertionError(f"{name} did not end")


@pytest.fixture(scope="module")
def tracked(digits, offline, tmp_path_factory):
    """A run with both trackers that was killed and continued: its folder, and what TensorBoard showed in between."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    config = asked(digits)
    if (child := os.fork()) == 0:
        die = Watching(lambda step: step == KILLED_AT and os.kill(os.getpid(), signal.SIGKILL))
        train_run(config, folder, observer=die)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    wait_until_free(folder)
    live = events(folder)
    before = [event.step for event in live.Scalars("metrics/loss")], sorted(history(folder))
    (folder / "report.html").write_text("<title>a page</title>")
    watching = Watching()
    assert train_run(config, folder, observer=watching).finished
    return SimpleNamespace(run=Run.open(folder), live=live, before=before, said=watching.said)


def test_a_killed_and_continued_run_has_each_step_once_in_tensorboard(tracked):
    assert tracked.before[0] == [2, 4, 6, 8, 10]  # past the checkpoint of step 8, where it went on
    want, run = expected(tracked.run), tracked.run
    assert {"metrics/loss", "metrics/grad_norm", "metrics/lr", "metrics/images", "held_out/loss"} <= want.keys()
    assert list(want["metrics/loss"]) == [2, 4, 6, 8, 10, 12]
    for found in (events(run.path), tracked.live.Reload()):  # one that reads anew, one that was open all the time
        assert set(found.Tags()["scalars"]) == want.keys()
        for name, values in want.items():
            shown = {event.step: event.value for event in found.Scalars(name)}
            assert len(shown) == len(found.Scalars(name))
            assert shown == {step: float(np.float32(value)) for step, value in values.items()}
        for event in found.Scalars("metrics/loss"):
            began = (run.path / "data.json").stat().st_mtime
            assert event.wall_time - began == pytest.approx(want["metrics/seconds"][event.step], abs=1e-3)
    assert len(list((run.path / "tensorboard").glob("events*"))) == 2
    text = events(run.path).Tensors("config")[-1].tensor_proto.string_val[0].decode()
    assert text == f"```toml\n{(run.path / 'config.toml').read_text()}\n```"


def test_grids_are_pictures_in_tensorboard_and_the_same_files(tracked):
    found, run = events(tracked.run.path), tracked.run
    shown = {event.step: event for event in found.Images("samples")}
    assert len(shown) == len(found.Images("samples")) and shown.keys() == snapshots(run).keys()
    for step, name in snapshots(run).items():
        assert shown[step].encoded_image_string == (run.samples / f"{name}.png").read_bytes()
        picture = Image.open(io.BytesIO(shown[step].encoded_image_string))
        assert picture.size == (shown[step].width, shown[step].height) and picture.convert("RGB").getextrema()
    assert {event.step for name in ("curves", "losses") for event in found.Images(name)} <= shown.keys()


def test_a_killed_and_continued_run_has_each_step_once_in_wandb(tracked):
    run = tracked.run
    assert set(tracked.before[1]) == {0, 1, 2, 4, 6, 8, 10}
    rows, want = history(run.path), expected(run)
    for name, values in want.items():
        assert {step: row[name] for step, row in rows.items() if name in row} == values
    assert len(list((run.path / "wandb").glob("offline-run-*"))) == 1
    pictures = {step: row for step, row in rows.items() if "samples.path" in row}
    assert pictures.keys() == snapshots(run).keys()
    (files,) = (run.path / "wandb").glob("offline-run-*/files")
    for step, name in snapshots(run).items():
        assert (files / pictures[step]["samples.path"]).read_bytes() == (run.samples / f"{name}.png").read_bytes()
    of_run = next(record.run for record in records(run.path) if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in of_run.config.update}
    assert config.items() >= tomllib.loads((run.path / "config.toml").read_text()).items()
    assert (of_run.run_id, of_run.display_name) == ((run.path / "wandb/id").read_text(), "run")
    assert not of_run.git.remote_url and not of_run.git.commit
    assert tracked.said[1:] == []  # after the introduction


def test_the_page_is_an_artifact_of_wandb_at_the_end_of_training_and_of_the_report(tracked, tmp_path, monkeypatch):
    """Offline, as it is without a login too, which is said."""
    contents, found = artifact(tracked.run.path)
    page = tracked.run.path / "report.html"
    assert len(found) == 1 and found[0].type == "report"
    assert contents["report.html"].digest == base64.b64encode(hashlib.md5(page.read_bytes()).digest()).decode()
    other, said = tmp_path / "other.html", []
    before = history(tracked.run.path)
    monkeypatch.delenv("WANDB_MODE")
    write_report([tracked.run.path], other, measuring=False, say=said.append)
    contents, found = artifact(tracked.run.path)
    assert contents["report.html"].digest == base64.b64encode(hashlib.md5(other.read_bytes()).digest()).decode()
    assert history(tracked.run.path).keys() == before.keys()
    (text,) = said
    where = tracked.run.path.absolute() / "wandb"
    assert text == (
        f"wandb: no login (No API key configured), so it writes to {where} alone; "
        f"`wandb sync {where}/offline-run-*` sends it later"
    )
    assert len(list((tracked.run.path / "tensorboard").glob("events*"))) == 2
    with tracked.run.lock():  # it is being trained
        following.send(tracked.run, page, said.append)
    assert said[1].startswith("tensorboard and wandb did not get what is new: ") and "is being trained" in said[1]
    assert artifact(tracked.run.path)[0]["report.html"].digest == contents["report.html"].digest


def test_wandb_that_is_disabled_leaves_what_was_written_offline(tracked, tmp_path, monkeypatch):
    folder, said = shutil.copytree(tracked.run.path, tmp_path / "run", symlinks=True), []
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Trackers(["wandb"]) as trackers, trackers.following(Run.open(folder), said.append):
        pass
    assert said == [] and history(folder).keys() == history(tracked.run.path).keys()


def test_settings_of_wandb_that_lie_in_a_run_are_not_obeyed(tracked, tmp_path, monkeypatch):
    """They could name a server, which the key of whoever is logged in would be sent to."""
    folder, said = shutil.copytree(tracked.run.path, tmp_path / "run", symlinks=True), []
    (folder / "wandb/settings").write_text("[default]\nmode = disabled\n")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.chdir(folder)
    with Trackers(["wandb"]) as trackers, trackers.following(Run.open("."), said.append):
        pass
    assert "wandb: no login" in said[0]


def test_attempts_that_fail_leave_few_files_of_tensorboard(tracked, tmp_path, monkeypatch):
    """Each of them writes the whole history, and there is one a minute."""
    folder, counts = shutil.copytree(tracked.run.path, tmp_path / "run"), []
    files = folder / "tensorboard"
    before = sorted(files.glob("events*"))
    last = before[-1].rename(files / "events.out.tfevents.0000000002.before")
    before[0].rename(files / "events.out.tfevents.0000000001.before")

    class Failing(to_tensorboard.Tracker):
        def caught_up(self):
            assert last.exists()  # whole, where a new one may never be
            counts.append(len(list(files.glob("events*"))))
            if len(counts) < 6:
                raise OSError(28, "No space left on device")
            super().caught_up()
            ended.set()

    ended = threading.Event()
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.0)
    serve.follow(Job(folder, {}, folder / "none"), "tensorboard", Failing, ended, [].append)
    assert counts == [3, 4, 4, 4, 4, 4] and len(list(files.glob("events*"))) == 2


PLANTED = """
import sys
if sys.argv[0] == "-c":
    import tensorboard.summary.writer.record_writer as writer
    def write(self, data):
        raise OSError(28, "No space left on device")
    writer.RecordWriter.write = write
"""


def test_a_full_disk_and_a_server_that_never_answers_change_no_bit(
    digits, offline, tmp_path, monkeypatch, capfd, tracked
):
    """Nor does W&B print anything, ask for anything or keep the training waiting."""
    import socket

    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/sitecustomize.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path / "planted")
    monkeypatch.setattr(following, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(following, "WAIT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        watching = Watching()
        assert train_run(asked(digits), tmp_path / "run", observer=watching).finished
    ours, theirs = (checkpoint.newest(path / "checkpoints")[0] for path in (tmp_path / "run", tracked.run.path))
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    of = {name: [text for text in watching.said[1:] if text.startswith(name)] for name in (*BOTH, "waiting")}
    *first, last = of["tensorboard"]  # the first unless training was over sooner
    why = f"{tmp_path / 'run/tensorboard'}: No space left on device; free some space"
    again = f"tensorboard failed, and is tried again every minute; the run does not depend on it: {why}"
    assert first in ([], [again])
    assert last.startswith(f"tensorboard failed, and lacks the rest: {why}. unstir report {tmp_path / 'run'} ")
    assert len(of["waiting"]) == 1 and "for wandb to take what is left, 2 s at most" in of["waiting"][0]
    assert len(of["wandb"]) == 1 and "was ended: unstir report" in of["wandb"][0]
    assert len(watching.said) == 4 + len(first)
    assert capfd.readouterr() == ("", "")


def test_online_the_server_gets_each_step_once_and_what_it_lacks(tracked, offline, monkeypatch, tmp_path):
    """Of a run that was followed to step 6 and goes on: W&B's own client, and a server that knows what it was sent."""
    folder = shutil.copytree(tracked.run.path, tmp_path / "run", ignore=shutil.ignore_patterns("wandb", "report.html"))
    run, said, want = Run.open(folder), [], expected(tracked.run)
    whole = run.metrics_file.read_text().splitlines(keepends=True)
    last = run.samples / f"{snapshots(run)[12]}.png"
    picture = last.read_bytes()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        run.metrics_file.write_text("".join(whole[:3]))
        run.held_out_file.unlink()
        last.unlink()
        for steps in ([0, 1, 2, 4, 6], [0, 1, 2, 4, 6, 8, 10, 12]):
            with Trackers(["wandb"]) as trackers, trackers.following(run, said.append):
                pass
            assert [server.history[number]["_step"] for number in sorted(server.history)] == steps
            run.metrics_file.write_text("".join(whole))
            last.write_bytes(picture)
    name = (folder / "wandb/id").read_text()
    assert said == [f"wandb: {server.url}/lab/unstir/runs/{name}"] * 2
    loss = {line["_step"]: line["metrics/loss"] for line in server.history.values() if "metrics/loss" in line}
    assert loss == want["metrics/loss"] and picture in server.files.values()
    assert server.config["train"]["value"]["length"] == "12 steps"
    kinds = {path.partition("/")[0] for path in server.files}
    assert kinds == {"media", "config.yaml", "wandb-summary.json", "wandb-metadata.json"} and server.others == set()
    assert not list((folder / "wandb").glob("offline-run-*"))


def test_a_published_run_names_no_tracker(tracked):
    assert tracked.run.config.log.to == tuple(BOTH) and public(tracked.run.config).log.to == ()
