"""Images, features and figures by several processes: each as one process makes it, none missing and none too many."""

import hashlib
import json
import signal
import time

import pytest
import torch

from test_not_finite import spoil
from together import Together, together
from unstir import cli
from unstir.data import Store
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.distributed.place import LOST
from unstir.metrics.assist import assisted, serve
from unstir.metrics.classifier import classifier_for
from unstir.metrics.reference import noise_images


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def commands(num, words, out, **environment):
    return Together(num, lambda rank: cli.main([str(word) for word in words]), out)


def test_images_of_several_processes_are_those_of_one_though_one_was_killed(trained, command, tmp_path):
    run, _ = trained()
    options = ("sample", run.path, "--num", 50, "--batch-size", 4, "--steps", 10)
    assert command(*options, "--out", tmp_path / "one")[0] == 0
    words = (*options, "--out", tmp_path / "three", "--strip", tmp_path / "strip.png")
    job, deadline = commands(3, words, tmp_path / "killed"), time.monotonic() + 60
    while len(list((tmp_path / "three").glob("[0-9]*.png"))) < 6 and not job.poll():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    job.signal(1, signal.SIGKILL)
    assert job.wait() == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM], job.said()
    assert 0 < len(list((tmp_path / "three").glob("[0-9]*.png"))) < 50
    job = commands(3, words, tmp_path / "again")
    assert job.wait() == [0, 0, 0], job.said()
    assert hashes(tmp_path / "three") == hashes(tmp_path / "one") and len(hashes(tmp_path / "one")) == 52
    assert not list((tmp_path / "three").glob(".*")) and (tmp_path / "strip.png").exists()
    first, *others = ((tmp_path / f"again/{rank}.err").read_text() for rank in range(3))
    assert f"images   50 in {tmp_path / 'three'}" in first and others == ["", ""]
    begun = json.loads((tmp_path / "three/settings.json").read_text())
    alone = json.loads((tmp_path / "one/settings.json").read_text())
    assert {key: begun[key] for key in alone if key not in ("crc32", "date", "made")} == {
        key: alone[key] for key in alone if key not in ("crc32", "date", "made")
    }


def test_a_job_whose_processes_differ_is_refused(trained, tmp_path):
    run, _ = trained()

    def work(rank):
        cli.main(["sample", str(run.path), "--num", "6", "--steps", str(3 + rank), "--out", str(tmp_path / "made")])

    job = Together(2, work, tmp_path / "out")
    assert job.wait() == [2, 2]
    said = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
    assert len(said) == 1 and "process 1 of 2 (counted from 0) differs from the first: chain" in said[0], said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("num", [1, 130, 200, 64])
def test_features_are_shared_in_whole_batches(classified, tmp_path, num):
    network = classifier_for(Store.open(classified))
    images = noise_images((1, 8, 8), num)
    index = torch.arange(num).flip(0)[: max(num - 3, 1)]
    expected = network.outputs(images, index)

    def work(rank):
        with joined("cpu"):
            if not processes.is_first():
                return serve([network])
            done = []
            with assisted([network]) as (shared,):
                found = shared.outputs(images, index, progress=lambda *both: done.append(both))
                again = shared.features(images)
            same = [torch.equal(a, b) for a, b in zip(found, expected, strict=True)]
            same.append(torch.equal(again, network.features(images)))
            same += [(shared.name, shared.hash, shared.trust) == (network.name, network.hash, network.trust)]
            return [*same, done[-1] == (len(index), len(index))]

    assert together(3, work, tmp_path)[0] == [True] * 5


def test_an_evaluation_by_two_is_that_of_one(trained, classified, command, tmp_path, quick, monkeypatch):
    figures = []
    for num in (1, 2):
        run, _ = trained(f"run-{num}", log__held_out_images=0, data__store=str(classified))
        words = ("evaluate", run.path, "--num", 20, "--seeds", 2, "--steps", 2, "--reference", 100, "--json")
        if num == 1:
            status, out, err = command(*words)
            assert status == 0, err
        else:
            job = commands(2, words, tmp_path / "out")
            assert job.wait() == [0, 0], job.said()
            assert (tmp_path / "out/1.err").read_text() == ""
            out = next(line for line in job.said().splitlines() if line.startswith("{"))
        (evaluation,) = json.loads(out)["evaluations"]
        figures.append({key: evaluation[key] for key in ("figures", "protocol", "memorisation", "weights")})
    assert figures[0] == figures[1] and figures[0]["figures"] and figures[0]["memorisation"]
    job = commands(2, words, tmp_path / "again")  # which finds it
    assert job.wait() == [0, 0] and json.loads((tmp_path / "again/0.err").read_text().splitlines()[-1])


def test_weights_that_answer_with_nan_end_all_and_leave_no_folder(trained, tmp_path):
    run, _ = trained()
    spoil(run)
    job = commands(2, ("sample", run.path, "--num", 8, "--batch-size", 4, "--out", tmp_path / "made"), tmp_path / "out")
    assert set(job.wait()) <= {2, LOST}
    said = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
    assert len(said) == 1 and "not a finite number" in said[0]
    assert not (tmp_path / "made").exists()
