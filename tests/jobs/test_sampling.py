"""Images, features and figures by several processes: each as one process makes it, none missing and none too many."""

import json
import signal

import together
from processes import until
from test_not_finite import spoil
from test_sample_killed import hashes
from together import Together
from unstir import cli
from unstir.jobs.process import LOST


def commands(num, words, out):
    return Together(num, lambda rank: cli.main([str(word) for word in words]), out)


def test_images_of_several_processes_are_those_of_one_though_one_was_killed(run, command, tmp_path, monkeypatch):
    options = ("sample", run.path, "--num", 50, "--batch-size", 4, "--steps", 10)
    assert command(*options, "--out", tmp_path / "one")[0] == 0
    words = (*options, "--out", tmp_path / "three", "--strip", tmp_path / "strip.png")
    job = commands(3, words, tmp_path / "killed")
    until(lambda: len(list((tmp_path / "three").glob("[0-9]*.png"))) >= 6 or job.poll())
    monkeypatch.setattr(together, "PATIENCE", 0.5)
    job.signal(1, signal.SIGKILL)
    assert job.wait() == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM], job.said()
    assert 0 < len(list((tmp_path / "three").glob("[0-9]*.png"))) < 50
    job = commands(3, words, tmp_path / "again")
    assert job.wait() == [0, 0, 0], job.said()
    assert hashes(tmp_path / "three") == hashes(tmp_path / "one") and len(hashes(tmp_path / "one")) == 52
    assert not list((tmp_path / "three").glob(".*")) and (tmp_path / "strip.png").exists()
    first, *others = ((tmp_path / f"again/{rank}.err").read_text() for rank in range(3))
    assert f"images   50 in {tmp_path / 'three'}" in first and others == ["", ""]
    begun, alone = (json.loads((tmp_path / name / "settings.json").read_text()) for name in ("three", "one"))
    for changing in ("crc32", "date", "made"):
        begun.pop(changing, None), alone.pop(changing, None)
    assert begun == alone


def test_a_job_whose_processes_differ_is_refused(run, tmp_path):

    def work(rank):
        cli.main(["sample", str(run.path), "--num", "6", "--steps", str(3 + rank), "--out", str(tmp_path / "made")])

    job = Together(2, work, tmp_path / "out")
    assert job.wait() == [2, 2]
    said = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
    assert len(said) == 1 and "process 1 of 2" in said[0], said
    assert not (tmp_path / "made").exists()


def test_weights_that_answer_with_nan_end_all_and_leave_no_folder(run, tmp_path):
    spoil(run)
    job = commands(2, ("sample", run.path, "--num", 8, "--batch-size", 4, "--out", tmp_path / "made"), tmp_path / "out")
    assert set(job.wait()) <= {2, LOST}
    said = [line for line in job.said().splitlines() if line.startswith("unstir: ")]
    assert len(said) == 1 and "NaN or infinite" in said[0]
    assert not (tmp_path / "made").exists()
