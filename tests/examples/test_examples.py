"""Each file of examples/ does what it says, in few steps."""

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from improved_network import Network

from conftest import forget_parts
from diffusion.known import known
from interop.untrained import scrambled
from refusals import refused
from unstir import (
    EvaluationRequest,
    Extractor,
    Process,
    Run,
    Store,
    cosine,
    evaluate_images,
    load_recipe,
    pack,
    starting_noise,
    train_run,
)
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """example("loop") -> the module of examples/loop.py, with what it has registered forgotten afterwards."""
    monkeypatch.syspath_prepend(EXAMPLES)
    forget_parts(monkeypatch)
    for path in EXAMPLES.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    torch.manual_seed(0)
    yield lambda name: __import__(name)
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def small(example):
    return example("dit").DiT(1, 1, 0, width=16, depth=1, heads=2)


@pytest.fixture
def images():
    return torch.randint(0, 2, (8, 1, 1, 1)).mul(255).expand(8, 1, 4, 4).byte()


def test_the_loop_is_short_and_learns(example, images):
    assert len((EXAMPLES / "loop.py").read_text().splitlines()) < 40
    loop, process, net = example("loop"), Process(cosine(20)), small(example)
    losses = list(loop.train(net, images, process, steps=60, batch_size=8))
    assert sum(losses[-20:]) < 0.85 * sum(losses[:20])
    made = loop.sample(net, process, 4, (1, 4, 4))
    assert made.shape == (4, 1, 4, 4)
    assert torch.allclose(made[:3], loop.sample(net, process, 3, (1, 4, 4)), atol=1e-3)


def test_a_straight_path_is_a_schedule(example, images):
    schedule = example("schedule").straight(10)
    assert schedule.log_snr(5) == pytest.approx(0, abs=1e-15) and schedule.abar(10) == 0
    assert schedule.log_snr(2) == pytest.approx(2 * math.log(4))
    losses = list(example("loop").train(small(example), images, Process(schedule), steps=2))
    assert all(map(math.isfinite, losses))
    assert example("loop").sample(small(example), Process(schedule), 2, (1, 4, 4)).isfinite().all()


def test_a_weighting_and_times_of_your_own_favour_the_middle(example):
    loss, schedule = example("loss"), cosine(50)
    weights, snr = loss.soft_min_snr(schedule, PARAMETERIZATIONS["x0"], gamma=5.0)[1:], schedule.snr[1:]
    assert torch.allclose(weights, 1 / (1 / snr + 1 / 5)) and weights.max() < 5
    p = loss.logit_normal(schedule)
    assert p.argmax() in (24, 25) and torch.allclose(p, p.flip(0))


def test_a_loss_of_your_own_is_trained_by_the_command_line(example, unstir, digits):
    example("loss")
    doc = Path(__file__).parents[2].joinpath("docs/extend.md").read_text()
    body = (EXAMPLES / "loss.py").read_text().partition("    process = denoiser.process")[2]
    assert body and body in doc.replace("```", "")  # the page shows what runs here
    data = "--data.store", digits, "--train.length", "1 step", "--train.warmup", "0 steps", "--train.batch_size", 4
    quiet = "--log.held_out_images", 0, "--grids.num", 1, "--grids.steps", 1
    own = "--loss.objective", "loss:huber", "--loss.objective_options.delta", 0.5
    unstir.done("train", "digits", "--out", "run", *data, *quiet, *own)
    assert Run.open("run").config.loss.objective_options == {"delta": 0.5}


def test_all_together_are_trained(example, digits, tmp_path):
    config = load_recipe(str(EXAMPLES / "parts.toml"))
    train = replace(config.train, length="2 steps", batch_size=4, warmup="0 steps", dtype="float32")
    grids, data = replace(config.grids, num=2, steps=3), replace(config.data, store=str(digits))
    log = replace(config.log, held_out_images=0)
    done = train_run(replace(config, train=train, grids=grids, data=data, log=log), tmp_path / "run")
    assert done.finished and done.run.load().config["loss"]["times_options"] == {"std": 1.2}


def test_a_sampler_of_your_own_is_of_second_order(example):
    process = Process(cosine(1024))
    denoise = known(GaussianData(torch.full((1, 2, 2), 0.3).double(), 0.25 * torch.eye(4).double()), process)
    x_T = starting_noise(0, torch.arange(2), (1, 2, 2)).double()
    ends = {}
    for stride in (2, 16, 32):
        *_, last = example("sampler").midpoint(denoise, process, x_T, range(768, 255, -stride), None)
        ends[stride] = last.x
    coarse, fine = ((ends[n] - ends[2]).abs().max() for n in (32, 16))
    assert 1.8 < math.log2(coarse / fine) < 2.2


def test_a_dataset_of_your_own_is_packed_with_its_classes(example, tmp_path):
    discs = example("data").Discs(40)
    store = pack(discs, tmp_path / "store", channels=1)
    assert store.classes == ("small", "large") and store.shape == (1, 8, 8)
    assert torch.equal(store.images("train")[0], discs[0][0])  # no 8-bit levels, so they are kept as float32
    ink = store.images("train").float().mean((1, 2, 3))
    large = store.labels("train") == 1
    assert ink[large].min() > ink[~large].max()


def test_features_of_ones_own_judge_images_and_are_known_by_name_and_hash(
    example, classified, quick, command, tmp_path
):
    store, images = Store.open(classified), Store.open(classified).images("held_out")[:40]
    np.save(tmp_path / "images.npy", images.numpy())
    asked = "--images", tmp_path / "images.npy", "--store", classified, "--no-memorisation", "--json"
    out = command.done("evaluate", *asked, "--features", "features:blocks")
    (made,) = json.loads(out)["evaluations"]
    assert made["figures"]["blocks/fd"]["name"] == "FD-blocks" and len(made["protocol"]["networks"]["blocks"]) == 64
    out = command.done("evaluate", *asked, "--features", "features:blocks", "--features-options.blocks.side", 3)
    (other,) = json.loads(out)["evaluations"]
    assert other["protocol"]["networks"]["blocks"] != made["protocol"]["networks"]["blocks"]
    assert other["figures"]["blocks/fd"]["by_seed"] != made["figures"]["blocks/fd"]["by_seed"]
    options = "--features", "features:blocks", "--features-options"
    for wrong, says in {"blocks.sid": "side", "block.side": "block is the name of no network"}.items():
        refused(command("evaluate", *asked[:-1], *options[:2], f"{options[2]}.{wrong}", 3), says)
    net = example("features").OfImageNet(torch.nn.Flatten(), side=4)
    assert net(images).shape == (40, 48)
    same, _ = evaluate_images(images, store, networks=[Extractor("tiny", net)])
    assert same.protocol["networks"]["tiny"] == Extractor("tiny", net).hash
    refused(command("evaluate", *asked[:-1], "--features", "features:nothing"), "features has no features nothing")
    refused(command("evaluate", *asked[:-1], "--features", "dinov2"), "must be one of inception, or MODULE:NAME")


@pytest.mark.slow
def test_a_network_of_torchvision_judges_images(example, classified, monkeypatch):
    """Of random weights, so that nothing is downloaded, and of small pictures."""
    models, features = pytest.importorskip("torchvision").models, example("features")
    monkeypatch.setattr(models, "resnet18", lambda weights: models.resnet.resnet18())
    monkeypatch.setattr(features.OfImageNet.__init__, "__defaults__", (32,))
    store, net = Store.open(classified), features.resnet18()
    assert net(store.images("train")[:2]).shape == (2, 512)
    request = EvaluationRequest(memorisation=False)
    good, noisy = (
        evaluate_images(images, store, request, networks=[Extractor("resnet18", net)])[0].figures["resnet18/fd"]
        for images in (store.images("held_out")[:60], torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8))
    )
    assert good.name == "FD-resnet18" and good.value < noisy.value < 1.5 * good.ceiling


@pytest.mark.slow
def test_maps_with_gaps_are_learned_filled_in_and_odd_ones_found(example, tmp_path):
    """The mean of a channel alone has an error of 1.2 of these units."""
    found = example("science").main(tmp_path, steps=200, num=64)
    assert found["auroc"] > 0.9 and found["filled in"] < 0.5


def test_maps_are_drawn_in_their_units_and_odd_ones_not_found_without_training(example, tmp_path):
    assert example("science").main(tmp_path, steps=10, num=32)["auroc"] < 0.8
    drawn = Store.open(tmp_path / "store")
    images = np.load(tmp_path / "drawn/images.npy")
    assert images.dtype == np.float32 and images.shape == (4, *drawn.shape)
    low, high = (np.array(ends)[:, None, None] for ends in (drawn.scale.low, drawn.scale.high))
    assert ((images - low) / (high - low) > -0.01).all() and ((images - low) / (high - low) < 1.01).all()


IMPORTERS = Path(__file__).parents[2] / "examples" / "importers"


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        ({"mult": (1, 2, 2), "attn": (1, 2), "outputs": 6, "scale_shift": True}, {"schedule": "cosine", "T": 40}),
        ({"images": 1, "labels": 3, "heads": 2, "blocks": 2}, {"heads": 2}),
    ],
    ids=["as published", "by class, grey"],
)
def test_a_checkpoint_of_improved_diffusion_becomes_a_run(tmp_path, unstir, how, asked):
    spec = importlib.util.spec_from_file_location("improved_diffusion", IMPORTERS / "improved_diffusion.py")
    importer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(importer)
    net = scrambled(Network(**how)).eval()
    torch.save(net.state_dict(), tmp_path / "ema.pt")
    run = importer.import_checkpoint(tmp_path / "ema.pt", tmp_path / "run", size=8, **asked).run
    T, images, label = asked.get("T", 1000), how.get("images", 3), torch.tensor([2, 0, 1])
    x, t, own = torch.randn(3, images, 8, 8), torch.tensor([0, T // 3, T - 1]), run.model(device="cpu").denoiser.net
    label = label if how.get("labels") else None
    for limit in (3e-6, 1e-6):
        with torch.no_grad():
            expected, got = net(x, t * (1000 / T), label), own(x, t, label)
        assert expected.std() > 0.1 and (got - expected).abs().max() < limit * expected.abs().max()
        net, own, x = net.double(), own.double(), x.double()
    assert run.config.imported.startswith(f"{tmp_path}/ema.pt, improved-diffusion, SHA-256 ")
    assert run.chain().variance == ("learned" if "outputs" in how else "large") and run.chain().clip
    status, _, err = unstir("sample", run.path, "--num", 1, "--sampler", "ddim", "--steps", 2, "--out", "made")
    assert status == 0 and Path("made/000000.png").exists(), err
