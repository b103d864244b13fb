"""What a budget of images buys: all sides train on as many images, draw and are judged, a side at a time."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from conftest import copied
from unstir import Run

SCRIPT = str(Path(__file__).parents[2] / "benchmarks/budget.py")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, such as files left open


@pytest.fixture(scope="module")
def budget():
    pytest.importorskip("denoising_diffusion_pytorch", reason="needs the extra [bench]")
    return runpy.run_path(SCRIPT)


@pytest.fixture
def work(budget, tmp_path, monkeypatch):
    """Two steps of the digits recipe, or eight of a peer's small batches."""
    monkeypatch.chdir(tmp_path)
    config = budget["load_recipe"]("digits")
    store = budget["open_data"](config, tmp_path / "none")
    return budget["Work"](config, store, 128, tmp_path)


def test_the_network_is_that_of_the_recipe(budget, work):
    from peers import of_diffusers

    size = work.size()
    net = of_diffusers.network(size, torch.device("cpu"))
    assert budget["count"](net) == budget["num_parameters"](work.config) == 701_345
    assert size.shape == (1, 8, 8) and size.batch == 64


def test_batches_are_whole_shuffled_and_in_the_range_of_the_networks(work):
    batches = work.batches(16)
    assert [len(batch) for batch in batches] == [16] * 8
    images = torch.cat(list(batches))
    assert images.min() == -1 and images.max() == 1
    assert len(images.flatten(1).unique(dim=0)) > 120  # an epoch names each once; few digits are alike
    torch.manual_seed(0)
    first = work.batches(64)
    torch.manual_seed(0)
    assert all(map(torch.equal, first, work.batches(64)))


def test_batches_are_made_when_they_are_asked_for(budget, work, monkeypatch):
    made, names = [], budget["Work"].batches.__globals__
    as_floats = names["from_uint8"]
    monkeypatch.setitem(names, "from_uint8", lambda images: made.append(len(images)) or as_floats(images))
    batches = work.batches(16)
    assert not made and len(batches) == 8
    assert batches[0].shape == (16, 1, 8, 8) and made == [16]


def test_a_recipe_that_mirrors_has_the_peers_images_mirrored_too(budget, work):
    from dataclasses import replace

    torch.manual_seed(0)
    plain = torch.cat(list(work.batches(64)))
    mirroring = replace(work, config=replace(work.config, data=replace(work.config.data, flip=True)))
    torch.manual_seed(0)
    images = torch.cat(list(mirroring.batches(64)))
    turned = (images == plain.flip(3)).flatten(1).all(1) & (images != plain).flatten(1).any(1)
    kept = (images == plain).flatten(1).all(1)
    assert (turned | kept).all() and 40 < turned.sum() < 90


def test_an_average_of_what_was_learned_is_drawn_from(budget, work):
    """A rate of 0 leaves the networks as they began, and the averages too: so the images differ by what was learned."""
    for side, still in (("diffusers", {"warmup": 1}), ("lucidrains", {})):
        drawn = []
        for lr in (0.0, 1e-2):
            trained = budget[side](work, 0, batch=16, lr=lr, **still)
            assert trained.steps == 8 and trained.parameters > 500_000
            torch.manual_seed(1)
            drawn.append(trained.draw(3, 2))
        assert all(images.shape == (3, 1, 8, 8) and images.dtype == torch.uint8 for images in drawn)
        assert not torch.equal(*drawn)


def test_ours_trains_the_recipe_on_so_many_images_and_draws_by_either_chain(budget, work):
    from dataclasses import replace

    config = replace(work.config, log=replace(work.config.log, held_out_images=0))
    config = replace(config, grids=replace(config.grids, num=4, steps=2, log_spaced=1))
    trained = budget["ours"](replace(work, config=config), 1)
    run = Run.open(work.folder / "run-128-1")
    assert trained.steps == run.length == run.saved_steps()[-1] == 2 and run.config.seed == 1
    assert trained.parameters == 701_345
    fast, slow = trained.draw(3, 2), trained.draw(1, 1000)
    assert fast.shape == (3, 1, 8, 8) and slow.shape == (1, 1, 8, 8) and fast.dtype == slow.dtype == torch.uint8


def test_sides_are_measured_and_a_second_time_none(budget, classified, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copied(classified, tmp_path / "data/digits", classifier=True)  # the judge, which takes seconds to train
    options = ["--sides", "diffusers, tuned", "--images", "128", "--seeds", "1", "--num", "20", "--calls", "3"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *options, "--out", "out"])
    budget["main"]()
    table = capsys.readouterr().out.splitlines()[-3:]
    rows = json.loads((tmp_path / "out/budget.json").read_text())
    assert [(row["side"], row["steps"], row["images"]) for row in rows] == [("diffusers, tuned", 2, 128)]
    assert all(0.3 < row["3"]["svm"] <= 1 and row["3"]["fd"] > 1 and row["seconds"] > 0 for row in rows)
    assert table[0].endswith("| SVM, 3 calls | FD-classifier, 3 calls |")
    assert table[2].startswith("| diffusers, tuned | 128 | 1 | 2 | 701,345 |")
    budget["main"]()
    again = capsys.readouterr().out
    assert again.splitlines() == table and json.loads((tmp_path / "out/budget.json").read_text()) == rows
    options[-1] = "2"  # other calls: measured anew, and what was measured stays for those who ask for it
    monkeypatch.setattr(sys, "argv", [SCRIPT, *options, "--out", "out"])
    budget["main"]()
    assert capsys.readouterr().out.splitlines()[-3].endswith("| SVM, 2 calls | FD-classifier, 2 calls |")
    both = json.loads((tmp_path / "out/budget.json").read_text())
    assert both[0] == rows[0] and both[1]["2"].keys() == rows[0]["3"].keys() and len(both) == 2


def test_means_stand_with_their_deviation_over_seeds(budget):
    rows = [
        {"side": "unstir", "seed": seed, "images": 64, "seconds": 1.0, "steps": 1, "parameters": 1, "20": {"fd": fd}}
        for seed, fd in enumerate((1.0, 2.0, 3.0))
    ]
    assert budget["table"](rows, [20])[-1] == "| unstir | 64 | 3 | 1 | 1 | 1 s | 2.000 ± 1.000 |"


def test_a_missing_peer_is_a_line_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    with pytest.raises(
        SystemExit, match=r"denoising_diffusion_pytorch is not installed; .* pip install '\.\[bench,test\]'"
    ):
        runpy.run_path(SCRIPT)


def test_a_warm_up_in_epochs_is_of_epochs_of_the_store(budget, work, monkeypatch):
    from dataclasses import replace

    heard = []

    def train_run(config, folder):
        heard.append(config.train)
        raise InterruptedError

    monkeypatch.setitem(budget["ours"].__globals__, "train_run", train_run)
    config = replace(work.config, train=replace(work.config.train, warmup="7 epochs"))
    with pytest.raises(InterruptedError):
        budget["ours"](replace(work, config=config, images=64 * 2000), 0)
    assert heard[0].length == "2000 steps" and heard[0].warmup == "161 steps"  # 7 times the 23 of 1498 images
