"""The study in examples/research: parts of its own, given a vector, trained by settings and seeds, in one table."""

import shutil
from pathlib import Path

import pytest

from conftest import forget_parts
from together import Together
from unstir import Run, cli

FOLDER = Path(__file__).parents[2] / "examples/research"
SMALL = (
    "--train.length", "3 steps", "--train.warmup", "0 steps", "--train.lr_schedule", "constant", "--grids.num", 2,
    "--grids.steps", 2, "--grids.log_spaced", 1, "--log.held_out_images", 0, "--model.options.width", 16,
    "--model.options.depth", 1, "--train.batch_size", 8, "--train.dtype", "float32", "--diffusion.T", 50,
)  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    forget_parts(monkeypatch, "research")
    yield tmp_path
    forget_parts(monkeypatch, "research")


def test_it_takes_at_most_sixty_lines():
    assert len((FOLDER / "research.py").read_text().splitlines()) <= 60


def words(digits, exponent, seed):
    """The words that train a run of few steps; the first of them packs its data itself."""
    packed = ("--data.store", digits) if seed else ()
    settings = "--seed", seed, "--diffusion.options.exponent", exponent, *packed, *SMALL
    return "train", "research.toml", *settings, "--out", f"{exponent}-{seed}"


def trained(unstir, digits, exponent, seed):
    """The name of that run."""
    unstir.done(*words(digits, exponent, seed))
    return f"{exponent}-{seed}"


def test_it_is_trained_given_a_vector(place, digits, unstir):
    run = Run.open(trained(unstir, digits, 2, 0))
    assert run.config.model.condition_values == 3 and run.config.diffusion.options["exponent"] == 2
    assert run.load().config["grids"]["options"] == {"eta": 0.5, "until": 100}


@pytest.mark.slow
def test_settings_and_seeds_make_one_table(place, classified, unstir):
    names = [trained(unstir, classified, exponent, seed) for exponent, seed in ((0.5, 0), (0.5, 1), (2, 0))]
    pair = Together(2, lambda rank: cli.main([str(word) for word in words(classified, 2, 1)]), place / "out")
    assert pair.wait(300) == [0, 0]
    for name in [*names, "2-1"]:
        judged = "--sampler", "research:churned", "--steps", 2, "--options.until", 10, "--num", 20, "--seeds", 1
        unstir.done("evaluate", name, *judged, "--no-memorisation")
    assert not list(place.rglob("evaluation/*:*"))  # names that Windows has too
    unstir.done("report", *names, "2-1", "--no-measure", "--export", "table.tex", "--figures", "fd", "kid")
    assert Path("table.tex").read_text().count(" & 2 & ") == 2  # a row an exponent, of two trainings
