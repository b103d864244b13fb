"""The first command, end to end: `unstir train` makes digits of the class asked for, clear, varied, and no copies."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch

from unstir import Job, Run, Store, load_recipe, sample_batches
from unstir.pixels import to_uint8

pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow

EACH = 30
"""Images of each class."""
CHANCE = 0.001
"""Level of the one-sided test that samples lie nearer to the training set than held-out digits do."""


def command(folder, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "unstir", *words]
    return subprocess.run(line, cwd=folder, check=True, env=environment, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder in which `unstir train` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("newcomer")
    return folder, command(folder, "train")


@pytest.fixture(scope="module")
def judge(newcomer):
    from judge import LARGE, Judge

    store = Store.open(newcomer[0] / "data/mnist")
    splits = [store.images("train"), store.labels("train"), store.images("held_out"), store.labels("held_out")]
    return Judge(*(tensor.numpy() for tensor in splits), LARGE)


def test_the_judge_tells_real_digits_from_noise_copies_and_repetition(judge, newcomer):
    store = Store.open(newcomer[0] / "data/mnist")
    images, labels = store.images("train")[::20].numpy(), store.labels("train")[::20].numpy()
    assert judge.accuracy > 0.95
    assert judge(images, labels).p_nearer < CHANCE
    few = np.concatenate([images[:10], store.images("held_out")[:90].numpy()])
    assert judge(few).copies >= 0.1
    assert judge(images, labels[::-1]).right < 0.3
    one = images[np.array([np.flatnonzero(labels == k)[0] for k in labels])]
    assert judge(one, labels).spread < 0.1
    noise = judge(np.random.default_rng(0).integers(0, 256, (100, 1, 28, 28)), np.arange(100) % 10)
    assert noise.right < 0.3 and noise.distance > 2 * noise.real_distance
    mixed = judge(images // 2 + images[::-1] // 2, labels)
    assert mixed.right < 0.5 and mixed.confidence < mixed.real_confidence - 0.06


def test_its_digits_are_of_the_class_asked_for_clear_varied_and_no_copies(judge, newcomer):
    model = Run.open(newcomer[0] / "runs/mnist").model()
    drawn = []
    for label in range(10):
        job = Job(num=EACH, chain=model.chain.changed(seed=label), label=label, batch_size=EACH)
        drawn += [to_uint8(images) for _, images in sample_batches(model, job)]
    verdict = judge(torch.cat(drawn).numpy(), np.repeat(np.arange(10), EACH))
    print(verdict)
    assert verdict.right > verdict.real_right - 0.06
    assert abs(verdict.confidence - verdict.real_confidence) < 0.04
    assert verdict.distance < 1.3 * verdict.real_distance
    assert verdict.spread > 0.8 * verdict.real_spread
    assert verdict.p_nearer > CHANCE and verdict.copies < 0.05


def test_it_names_three_commands_to_go_on_with_and_they_work(newcomer):
    folder, said = newcomer
    lines = re.findall(r"^(?:next)? +unstir (.*)$", said, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["sample", "sample", "report"]
    for line in lines:
        measure = ["--no-measure"] if line.startswith("report") else []  # which takes minutes
        assert command(folder, *shlex.split(line), *measure)
    assert (
        list((folder / "runs/mnist/generated").glob("*/compare.png")) and (folder / "runs/mnist/report.html").exists()
    )


def test_the_run_learned_and_kept_what_it_says(newcomer):
    run = Run.open(newcomer[0] / "runs/mnist")
    lines = run.metrics()
    assert lines[-1]["step"] == run.length and lines[-1]["skipped"] == 0
    assert lines[-1]["loss"] < 0.15 < 0.4 < lines[0]["loss"]
    assert len(list(run.samples.glob("images-*.png"))) == load_recipe("mnist").grids.log_spaced
