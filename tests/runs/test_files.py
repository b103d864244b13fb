"""Several processes write the same files at once: all succeed and each file is whole; what a kill leaves is removed."""

import errno
import fcntl
import hashlib
import os
import signal
import stat
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from conftest import tiny_config
from processes import until
from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.data import Store, pack
from unstir.errors import UnwrittenError, UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.locks import held
from unstir.runs import files
from unstir.runs.files import replacing, staging, write_text
from unstir.runs.run import Run
from unstir.train.launch import train_run


def in_children(*works):
    """Do each of ``works`` in a process of its own, at once; their exit statuses, 0 for each that returned."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                torch.set_num_threads(1)
                work()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_processes_that_write_one_file_at_once_all_succeed(tmp_path):
    file = tmp_path / "file"

    def write(text):
        for _ in range(100):
            write_text(file, text * 1000)
            assert set(file.read_text()) < set("abcd") and len(file.read_text()) == 1000

    assert in_children(*(lambda text=text: write(text) for text in "abcd")) == [0] * 4
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (4, 3, 2, 5)])
def test_four_jobs_in_one_folder_make_the_images_of_one(run, tmp_path, sizes):
    job = Job(num=24, chain=Chain(steps=3), batch_size=4)
    save_images(run.model(12, device="cpu"), job, tmp_path / "alone")

    def sample(size):
        save_images(run.model(12, device="cpu"), Job(**{**vars(job), "batch_size": size}), tmp_path / "together")

    assert in_children(*(lambda size=size: sample(size) for size in sizes)) == [0] * 4
    alone, together = hashes(tmp_path / "alone"), hashes(tmp_path / "together")
    assert alone.keys() == together.keys()
    if len(set(sizes)) == 1:  # else the last bits are those of whichever began
        assert alone == together


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    child = os.fork()
    if child == 0:
        with staging(tmp_path, "a") as partial:
            (partial / "file").write_text("half")
            time.sleep(60)
        os._exit(0)
    until(lambda: [file.read_text() for file in tmp_path.glob(".a.*/file")] == ["half"])
    left = list(tmp_path.glob(".a.*/file"))
    with staging(tmp_path, "a"):
        assert left[0].read_text() == "half"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with staging(tmp_path, "b"):
        assert left[0].exists()
    with staging(tmp_path, "a"):
        assert not left[0].exists()
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_run_removes_what_a_killed_training_left_and_not_what_others_write_there(run):
    ours = [run.path / ".curves.png.01234567.partial", run.samples / ".a.png.01234567.partial"]
    theirs = run.path / ".report.html.01234567.partial"
    for partial in (*ours, theirs):
        partial.touch()
    with run.lock():
        run.tidy()
    assert not any(partial.exists() for partial in ours) and theirs.exists()


def test_names_that_are_too_long_are_refused(tmp_path):
    with pytest.raises(UnwrittenError) as refused:
        write_text(tmp_path / ("a" * 300), "")
    assert refused.value.errno == errno.ENAMETOOLONG
    write_text(tmp_path / ("é" * 127), "long")
    assert os.listdir(tmp_path) == ["é" * 127]


def test_a_file_system_without_locks_is_written_to_and_nothing_there_is_removed(tmp_path, monkeypatch):
    def none(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".a.01234567.partial").mkdir()  # its writer may live
    (tmp_path / ".a.01234567.partial.lock").touch()
    with held(tmp_path / "lock") as is_locked, staging(tmp_path, "a") as partial:
        (partial / "file").write_text("whole")
        (partial / "file").replace(tmp_path / "file")
    assert not is_locked and sorted(os.listdir(tmp_path)) == [".a.01234567.partial", "file"]


def test_a_run_is_trained_there_and_data_packed(tmp_path, digits, monkeypatch):
    """Where no lock can be had, nobody has it: a run that says that another process trains it could never begin."""
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none")))
    assert pack(Store.open(digits).images("train")[:20].numpy(), tmp_path / "store").count("train") == 18
    assert train_run(tiny_config(digits, train__length="1 step"), tmp_path / "run").finished


def test_a_lock_that_the_disk_fails_to_give_is_no_other_trainer(run, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (_ for _ in ()).throw(OSError(errno.EIO, "it failed")))
    with pytest.raises(OSError, match="it failed"), run.lock():
        pass


def test_a_folder_that_cannot_be_synced_is_written_to_and_a_file_that_cannot_is_not(tmp_path, monkeypatch):
    def only(kind):
        def sync(descriptor):
            if kind(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        return sync

    monkeypatch.setattr(os, "fsync", only(stat.S_ISDIR))
    write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"
    monkeypatch.setattr(os, "fsync", only(stat.S_ISREG))
    with pytest.raises(UnwrittenError, match="Invalid argument"):
        write_text(tmp_path / "file", "newer")
    assert (tmp_path / "file").read_text() == "whole"


def test_a_lock_is_held_while_its_block_runs_and_gone_after_it(tmp_path):
    lock = tmp_path / "lock"
    with pytest.raises(KeyError), held(lock):
        with pytest.raises(UserError, match="busy"), held(lock, UserError("busy")):
            pass
        raise KeyError
    assert not lock.exists()


def test_a_link_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_stays(run, tmp_path):
    (tmp_path / "precious").write_text("whole")
    (run.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), run.lock():
        pass
    assert (tmp_path / "precious").read_text() == "whole"


def test_nothing_in_a_run_is_followed_out_of_it(run, tmp_path):
    events, precious = run.path / "events.jsonl", tmp_path / "precious"
    precious.write_bytes(events.read_bytes() + b'{"cut"')
    events.unlink()
    events.symlink_to(precious)
    with pytest.raises(UnwrittenError) as refused:
        run.record("started")
    assert refused.value.errno == errno.ELOOP and precious.read_bytes().endswith(b'{"cut"')
    (tmp_path / "elsewhere").mkdir()
    for name in ("checkpoints", "weights", "samples", "generated", "evaluation", "likelihood", "edits", "onnx"):
        folder, aside = run.path / name, tmp_path / f"{name} aside"
        if folder.exists():
            folder.rename(aside)
        folder.symlink_to(tmp_path / "elsewhere")
        with refusing("", folder):
            Run.open(run.path)
        folder.unlink()
        if aside.exists():
            aside.rename(folder)
    with Run.open(run.path).lock():
        pass


def test_of_images_by_another_network_what_differs_is_named_and_nothing_else(run, tmp_path):
    model, job, out = run.model(), Job(num=2, chain=Chain(steps=2)), tmp_path / "images"
    save_images(model, job, out)
    settings = files.decode((out / "settings.json").read_bytes())
    (out / "settings.json").write_text(files.encode({**settings, "model": {"type": "mine:Net", "depth": 3}}))
    refused = mistake(save_images, model, job, out)
    assert "model is" in str(refused) and "None" not in str(refused)


def test_a_disk_is_full_only_where_less_is_free_than_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with replacing(tmp_path / "fits", needs=100) as partial:
        partial.touch()
    with pytest.raises(UnwrittenError, match="space left"), replacing(tmp_path / "not", needs=101):
        pass
    assert os.listdir(tmp_path) == ["fits"]


def test_what_was_not_written_is_said_with_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_500_000))
    with pytest.raises(UnwrittenError) as caught, files.writing(tmp_path / "a", 1_500_000):
        raise SafetensorError("an odd\nname")
    error = caught.value
    assert error.errno is None and error.filename == str(tmp_path / "a")
    assert "1.5 MB" in error.strerror and "2.5 MB" in error.strerror
