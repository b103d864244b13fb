"""Images by the command line: the same in any batch, a job that goes on, and what a refused one leaves."""

import json

import numpy as np
import pytest

import tiny_command
from refusals import refused
from tiny_command import pixels
from unstir.errors import UserError
from unstir.generate import folder as images
from unstir.runs.run import Run

unstir, here = tiny_command.unstir, tiny_command.here


def test_image_i_is_the_same_in_any_batch_and_job(unstir, here, tmp_path):
    made = {}
    for name, num, size in (("one", 6, 1), ("four", 6, 4), ("all", 9, 9)):
        assert unstir("sample", "here", "--num", num, "--batch-size", size, "--out", name)[0] == 0
        made[name] = np.stack([pixels(tmp_path / name / f"{i:06d}.png") for i in range(6)])
    assert abs(made["one"] - made["four"]).max() <= 1 and abs(made["one"] - made["all"]).max() <= 1
    status, _, _ = unstir("sample", "here", "--num", 6, "--batch-size", 4, "--out", "seed1", "--seed", 1)
    other = np.stack([pixels(tmp_path / "seed1" / f"{i:06d}.png") for i in range(6)])
    assert status == 0 and abs(other - made["four"]).max() > 20


def test_a_sampling_job_goes_on_where_it_was(unstir, here, tmp_path):
    assert unstir("sample", "here", "--num", 7, "--batch-size", 2, "--out", "whole")[0] == 0
    assert unstir("sample", "here", "--num", 3, "--batch-size", 2, "--out", "parts")[0] == 0
    kept = (tmp_path / "parts/000001.png").stat().st_mtime_ns
    assert unstir("sample", "here", "--num", 7, "--batch-size", 5, "--out", "parts")[0] == 0  # goes on by twos
    assert (tmp_path / "parts/000001.png").stat().st_mtime_ns == kept
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()
    other = unstir("sample", "here", "--num", 7, "--out", "parts", "--seed", 1)
    refused(other, "(chain.seed is 0 there, 1 was asked)", "another folder")
    refused(unstir("sample", "here", "--out", "here"), "not empty", "--out")


@pytest.mark.parametrize("wrong", ["--steps 99", "--num 0", "--batch-size 0", "--checkpoint 77", "--device cuda:9"])
def test_a_refused_sample_leaves_nothing_in_the_way_of_the_next(unstir, here, tmp_path, wrong):
    refused(unstir("sample", "here", "--out", "made", *wrong.split()), wrong.split()[1])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_job_whose_settings_cannot_be_written_makes_no_folder(unstir, here, tmp_path, watched, there):
    if there:
        (tmp_path / "made").mkdir()
    watched(images, "write_text", UserError("No space left on device"))
    refused(unstir("sample", "here", "--num", 2, "--out", "made"), "No space left on device")
    assert (tmp_path / "made").exists() == there


def test_a_small_job_does_not_slow_the_large_one_after_it(unstir, here, tmp_path):
    for num in (1, 5):
        assert unstir("sample", "here", "--num", num, "--out", "made")[0] == 0
    assert json.loads((tmp_path / "made/settings.json").read_text())["batch_size"] == 64


def test_a_job_goes_on_from_the_slim_file_of_the_same_weights(unstir, here):
    assert unstir("sample", "here", "--num", 2, "--out", "made")[0] == 0
    for path in Run.open("here").checkpoints.iterdir():
        path.unlink()
    assert unstir("sample", "here", "--num", 4, "--out", "made")[0] == 0
