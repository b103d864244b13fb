"""Trackers against the libraries themselves: what TensorBoard and W&B show of a run that crashed and went on."""

import io
import json
import os
import struct
import sys
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import unstir
from conftest import pixels_in, tiny_config
from refusals import mistake, refusing
from together import together
from unstir import parts
from unstir.errors import UserError
from unstir.interop.published import public
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.sections import LogConfig
from unstir.runs.timetable import snapshots
from unstir.train.launch import train_run
from unstir.train.observer import Observer
from unstir.train.record import VARYING

wandb = pytest.importorskip("wandb", reason="what is tested: pip install '.[wandb]'")
tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="what is tested: pip install '.[tensorboard]'")

pytestmark = pytest.mark.slow

BOTH = ["tensorboard", "wandb"]
LOSSES = {"loss": "held_out", "loss_train": "train"}
CRASHED_AT = 11  # three steps after the checkpoint of step 8, and one after the line of step 10


def events(run):
    """What TensorBoard's own reader finds, of all steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run / "tensorboard"), size_guidance=kept).Reload()


def records(file):
    """The records of an offline file, by W&B's own protocol buffers; its frames are those of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        assert 1 <= kind <= 4
        parts = (b"" if kind in (1, 2) else parts) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(Record.FromString(parts))
    return found


def history(file):
    """The rows of W&B by step: names (joined by a dot) and values."""
    rows = {}
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            row = {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in record.history.item}
            assert row["_step"] not in rows, "a step is there twice"
            rows[row["_step"]] = row
    return rows


def expected(run):
    """The scalars that the logs of a run hold, {name: {step: value}}."""
    found = {}
    for line in run.metrics():
        for key, value in line.items():
            if key not in ("step", "run"):
                found.setdefault(f"metrics/{key}", {})[line["step"]] = value
    for line in run.held_out():
        means = {name: float(np.mean(line[key])) for name, key in LOSSES.items()}
        for key in ("bits", "bits_error", "bits_train", "bits_train_error"):
            means[key] = line[key]
        for key, value in means.items():
            found.setdefault(f"held_out/{key}", {})[line["step"]] = value
    return found


class Watching(Observer):
    """Calls ``at(step)`` after each step."""

    def __init__(self, at):
        self.at = at

    def step(self, step):
        self.at(step)


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """W&B without a network, and with a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("WANDB_MODE", "offline")
        yield
        wandb.teardown()


def asked(digits, names=BOTH, **changes):
    return tiny_config(digits, log__to=names, log__held_out_images=8, log__held_out_times=2, **changes)


def outcome(run):
    """What a run has made, but for what the clock says."""
    logs = [[{k: v for k, v in line.items() if k not in VARYING} for line in log]
            for log in (run.metrics(), run.held_out())]  # fmt: skip
    tensors = {name: t.numpy().tobytes() for name, t in checkpoint.newest(run.checkpoints)[0].tensors.items()}
    return logs, tensors, pixels_in(run.samples)


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory):
    """What a run without trackers makes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train_run(asked(digits, []), folder)
    return outcome(Run.open(folder))


@pytest.fixture(scope="module")
def tracked(digits, tmp_path_factory):
    """A run with both trackers that crashed and went on, and what TensorBoard showed when it crashed."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    before = []

    def crash(step):
        if step == CRASHED_AT:
            before.extend(event.step for event in events(folder).Scalars("metrics/loss"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_run(asked(digits), folder, observer=Watching(crash))
    assert train_run(asked(digits), folder).finished
    return SimpleNamespace(run=Run.open(folder), before=before)


def test_trackers_change_no_bit_and_print_nothing(alone, digits, tmp_path, capfd, logged):
    assert train_run(asked(digits), tmp_path / "run").finished
    assert outcome(Run.open(tmp_path / "run")) == alone
    assert len(logged) == 1 and capfd.readouterr() == ("", "")  # the introduction


def test_tensorboard_has_each_step_of_a_continued_run_once(tracked, alone):
    assert tracked.before == [2, 4, 6, 8, 10]  # a kill would leave them
    want, run = expected(tracked.run), tracked.run
    assert {"metrics/loss", "metrics/images_per_second", "metrics/lr", "held_out/loss", "held_out/bits"} <= want.keys()
    found = events(run.path)
    assert set(found.Tags()["scalars"]) == want.keys() and list(want["metrics/loss"]) == [2, 4, 6, 8, 10, 12]
    for name, values in want.items():
        shown = [(event.step, event.value) for event in found.Scalars(name)]
        assert shown == [(step, float(np.float32(value))) for step, value in values.items()]
    text = found.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text == f"```toml\n{(run.path / 'config.toml').read_text()}\n```"
    assert outcome(run) == alone
    shown = found.Images("samples")
    assert [event.step for event in shown] == list(snapshots(run))
    for event, name in zip(shown, snapshots(run).values(), strict=True):
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert np.array_equal(picture, Image.open(run.samples / f"{name}.png").convert("RGB"))


def test_wandb_goes_on_with_a_run_under_its_id(tracked):
    run, want = tracked.run, expected(tracked.run)
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    first, second = (next(folder.glob("run-*.wandb")) for folder in folders)
    assert list(history(first)) == [0, 1, 2, 4, 6, 8, 10] and list(history(second)) == [10, 12]
    rows = history(second) | history(first)  # of step 10 what was there first, as W&B's server has it
    for name, values in want.items():
        shown = {step: row[name] for step, row in rows.items() if name in row}
        assert shown.keys() == values.keys()
        assert shown == values or name.removeprefix("metrics/") in VARYING
    files = {file.name: file.read_bytes() for folder in folders for file in folder.glob("files/media/images/*")}
    for step, name in snapshots(run).items():
        assert files[rows[step]["samples.path"].rpartition("/")[2]] == (run.samples / f"{name}.png").read_bytes()
    for file in (first, second):
        sent = next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")
        config = {item.key: json.loads(item.value_json) for item in sent.config.update}
        assert config.items() >= tomllib.loads((run.path / "config.toml").read_text()).items()
        assert (sent.run_id, sent.display_name) == ((run.path / "wandb/id").read_text(), "run")
        assert not sent.git.remote_url and not sent.git.commit


@pytest.mark.parametrize("login", [True, False])
def test_without_a_login_wandb_is_offline_and_the_server_is_sent_no_step_twice(
    digits, tmp_path, monkeypatch, logged, login
):
    given, rows = {}, []
    sent = SimpleNamespace(starting_step=5, offline=not login, url="https://there", finish=lambda: rows.append("end"))
    sent.log = lambda row, step, commit: rows.append((step, "samples" in row, commit))
    monkeypatch.setattr(wandb, "setup", lambda settings: SimpleNamespace(settings=SimpleNamespace(mode="online")))
    monkeypatch.setattr(wandb, "login", lambda **_: login)
    monkeypatch.setattr(wandb, "init", lambda **values: given.update(values) or sent)
    kept = tmp_path / "run/wandb"
    train_run(asked(digits, ["wandb"]), tmp_path / "run")
    if login:
        assert given["mode"] == "online" and logged[1:] == [f"wandb: {sent.url}"]
    else:
        assert given["mode"] == "offline" and f"{kept}/offline-run" in logged[1]
    assert (given["id"], given["resume"]) == ((kept / "id").read_text(), "allow")
    assert rows == [
        (6, False, True), (8, False, True), (10, False, True), (12, False, False), (12, False, False), (12, True, True),
        "end",
    ]  # fmt: skip


def test_wandb_is_refused_inside_the_run_whose_settings_it_would_obey(digits, tmp_path, monkeypatch):
    (tmp_path / "run/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run/sub")
    with refusing("log.to", "wandb"):
        train_run(asked(digits, ["wandb"]), "..")


def test_a_library_that_fails_is_named_once_and_changes_no_bit(digits, alone, tmp_path, monkeypatch, logged):
    closed, close = [], tensorboard.SummaryWriter.close

    def fail(self, name, value, step):
        if step == 4:
            raise OSError(28, "No space\nleft on device")

    def refuse(**_):
        raise TimeoutError

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", fail)
    monkeypatch.setattr(tensorboard.SummaryWriter, "close", lambda self: closed.append(close(self)))
    monkeypatch.setattr(wandb, "init", refuse)
    assert train_run(asked(digits), tmp_path / "run").finished
    assert [line.split()[0] for line in logged[1:]] == ["wandb", "tensorboard"]
    assert outcome(Run.open(tmp_path / "run")) == alone and closed == [None]


@pytest.mark.parametrize("name", BOTH)
def test_a_library_that_is_missing_is_refused_before_anything_is_made(digits, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"log.to={name} needs {name}, .* pip install '\.\[{name}\]'"):
        train_run(asked(digits, [name]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


MINE = """
from pathlib import Path
import unstir
from unstir.train.observer import Observer

@unstir.tracker
class Mine(Observer):
    def __init__(self, folder):
        self.folder, self.lines = folder, []
        if folder.name == "broken":
            raise TypeError("descriptors")

    def metrics(self, line):
        self.lines.append(f"metrics {line['step']}")

    def held_out(self, line):
        self.lines.append(f"held-out {line['step']}")

    def grid(self, step, file):
        self.lines.append(f"{file.name} {step}")

    def __exit__(self, *_):
        with (self.folder / "mine").open("a") as file:
            file.write("\\n".join([*self.lines, "end"]))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A tracker of somebody's own, which is one file: mine:Mine."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    parts.allow("mine:Mine")
    yield
    sys.modules.pop("mine", None)


def test_one_of_several_processes_tells_a_tracker_of_ones_own(mine, digits, tmp_path):
    config = asked(digits, ["mine:Mine"], train__length="2 steps")

    def trained(rank):
        with unstir.torchrun_group("cpu") as group:
            return train_run(config, tmp_path / "run", group=group).finished

    together(2, trained, tmp_path / "out")
    lines = (tmp_path / "run/mine").read_text().splitlines()
    names = snapshots(Run.open(tmp_path / "run"))
    assert lines == [
        "held-out 0", f"{names[0]}.png 0", "held-out 1", f"{names[1]}.png 1",
        "metrics 2", "held-out 2", f"{names[2]}.png 2", "end",
    ]  # fmt: skip


def test_a_library_that_is_broken_is_refused_before_anything_is_made(mine, digits, tmp_path):
    with refusing("log.to", "mine:Mine"):
        train_run(asked(digits, ["mine:Mine"]), tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def test_the_names_of_trackers_are_checked():
    assert LogConfig(to=["wandb", "tensorboard"]).to == ("wandb", "tensorboard")
    assert mistake(LogConfig, to=["tensorbord"]).key == "to"


def test_a_published_run_names_no_tracker(digits):
    published = public(asked(digits, ["mine:Mine"], log__options={"Mine": {"key": "secret"}}))
    assert published.log.to == () and not published.log.options
