"""A job of many images, killed again and again: exactly as many whole files as asked, the same as without."""

import hashlib
import os
import signal
import subprocess
import sys
import time

KILLS = int(os.environ.get("UNSTIR_KILLS", "3"))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def test_a_killed_job_ends_with_the_files_of_one_never_killed(trained, command, tmp_path):
    run, _ = trained()
    options = ("--num", 300, "--batch-size", 8, "--steps", 20)
    assert command("sample", run.path, *options, "--out", tmp_path / "whole")[0] == 0
    killed = tmp_path / "killed"
    words = [sys.executable, "-m", "unstir", "sample", run.path, *options, "--out", killed]
    for kill in range(KILLS):
        child = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal, deadline = 290 * (kill + 1) // (KILLS + 1), time.monotonic() + 120
        while len(list(killed.glob("[0-9]*.png"))) < goal and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert child.poll() is None, "it finished before it could be killed"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert 0 < len(list(killed.glob("[0-9]*.png"))) < 300
    assert command("sample", run.path, *options, "--out", killed)[0] == 0
    assert hashes(killed) == hashes(tmp_path / "whole")
    assert len(list(killed.glob("[0-9]*.png"))) == 300 and not list(killed.glob(".*"))


def test_fewer_than_are_there_is_refused(trained, command, tmp_path):
    run, _ = trained()
    assert command("sample", run.path, "--num", 6, "--out", tmp_path / "six")[0] == 0
    before = hashes(tmp_path / "six")
    status, _, err = command("sample", run.path, "--num", 3, "--out", tmp_path / "six")
    assert status == 2 and "holds 6 of these images, more than num=3" in err
    assert hashes(tmp_path / "six") == before
