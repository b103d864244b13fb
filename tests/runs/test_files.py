"""Files that several processes write or a kill leaves, and the settings beside a picture: which they vouch for."""

import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from conftest import tiny_config
from processes import until
from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.data import Store, pack
from unstir.data.disk import held
from unstir.errors import UnwrittenError, UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.runs import files, sidecar
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


def test_a_name_has_six_digits_of_all_settings_but_the_machines():
    settings = {"a": 1, "b": [2]}
    found = sidecar.digest(settings)
    assert found == sidecar.digest({"b": [2], "torch": "2", "threads": 4, "a": 1}) != sidecar.digest({"a": 1})
    assert len(found) == 6 and int(found, 16) >= 0


def test_files_beside_a_picture_have_its_name(tmp_path):
    assert sidecar.sidecar_of(tmp_path / "a.PNG") == tmp_path / "a.json"
    assert sidecar.sidecar_of(tmp_path / "a.webp") == tmp_path / "a.webp.json"
    assert [path.name for path in sidecar.numbered(tmp_path / "a.png", 2)] == ["a-0.png", "a-1.png"]


def edited(picture, num):
    """A picture of an edit, with single results."""
    image = Image.new("L", (8, 8))
    sidecar.save(picture, sidecar.png(image), "unstir edit vary", {"num": num}, [image] * num)
    return sidecar.numbered(picture, num)


def test_single_results_of_the_picture_are_replaced_and_no_other_file_of_their_names(tmp_path):
    picture, other = tmp_path / "a.png", tmp_path / "日.png"
    first, second = edited(picture, 2)
    (of_other,) = edited(other, 1)
    sidecar.check(picture, [first, second])
    sidecar.check(other, [of_other])
    Image.new("L", (8, 8)).save(second)  # as another program does
    assert mistake(sidecar.check, picture, [first, second]).given == second
    for stranger in (of_other, first.rename(tmp_path / "kept.png")):
        stranger.rename(second)
        assert mistake(sidecar.check, picture, [second]).given == second
    (first,) = edited(picture, 1)
    assert second.exists()
    sidecar.check(picture, [first])
    first.with_suffix(".json").touch()
    assert mistake(sidecar.check, picture, [first]).given == first  # a picture of its own
    first.with_suffix(".json").unlink()
    picture.with_suffix(".json").unlink()
    assert mistake(sidecar.check, picture, [first]).given == picture  # nothing vouches for it


def test_a_moving_picture_has_no_part_in_the_single_results_of_a_picture_of_its_name(tmp_path):
    (single,) = edited(tmp_path / "a.png", 1)
    for seed in range(2):
        moving = tmp_path / "a.webp"
        sidecar.save(moving, lambda path: path.write_bytes(b"moving"), "unstir sample", {"seed": seed})
    assert single.exists()


def test_what_a_killed_command_left_takes_no_file_that_it_did_not_write(tmp_path):
    picture = tmp_path / "a.png"
    singles = sidecar.numbered(picture, 3)
    (tmp_path / ".a.png.unfinished").touch()
    for path in singles:
        path.write_bytes(b"written")
    sidecar.save(picture, lambda path: path.write_bytes(b"picture"), "unstir edit vary", {"grey": 1})
    assert [path.read_bytes() for path in singles] == [b"written"] * 3


def test_what_a_killed_command_wrote_goes_with_its_picture(tmp_path):
    picture = tmp_path / "a.png"
    changed, *_ = edited(picture, 3)
    picture.with_suffix(".json").unlink()
    (tmp_path / ".a.png.unfinished").touch()
    changed.write_bytes(b"changed")
    sidecar.save(picture, lambda path: path.write_bytes(b"picture"), "unstir edit vary", {"grey": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.png", "a.json", "a.png"]


@pytest.mark.parametrize("text", ['["command"]', '{"command": "other edit"}', '{"command": 3}', "{}", "{"])
def test_settings_of_others_are_not_replaced(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    refused = mistake(sidecar.check, tmp_path / "a.png")
    assert (refused.key, refused.given) == ("out", tmp_path / "a.png")


def test_a_picture_is_written_before_its_settings_and_only_then_no_longer_unfinished(tmp_path, monkeypatch):
    picture, seen, synced = tmp_path / "new/a.png", [], []
    monkeypatch.setattr(sidecar, "sync_folder", lambda folder: synced.append((folder / "a.json").exists()))

    def write(path):
        seen.append(sorted(each.name for each in path.parent.iterdir() if each != path))
        path.write_bytes(b"pixels")

    for number in (1, 2):
        sidecar.save(picture, write, "edit vary", {"grey": number}, calls=3)
    assert seen == [[".a.png.unfinished"], [".a.png.unfinished", "a.json", "a.png"]]
    assert sorted(each.name for each in picture.parent.iterdir()) == ["a.json", "a.png"]
    assert synced == [False, False]  # an older one is gone for good before its picture is replaced
    found = json.loads((tmp_path / "new/a.json").read_text())
    assert found.pop("unstir") and found == {"command": "edit vary", "grey": 2, "calls": 3}


def test_a_folder_is_no_picture(tmp_path):
    (tmp_path / "a.png").mkdir()
    refused = mistake(sidecar.check, tmp_path / "a.png", key="to")
    assert (refused.key, refused.given) == ("to", tmp_path / "a.png")
