"""A network that was trained in a loop of one's own comes back: as a run, and as a model without a folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unstir
from refusals import mistake, refusing
from unstir import EvaluationRequest
from unstir.interop.published import write_repository
from unstir.metrics.evaluation import describe
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet


@unstir.network
class Tiny(nn.Module):
    """Two convolutions, the time and the label as features."""

    def __init__(self, in_channels, out_channels, num_labels, width=8):
        super().__init__()
        self.into, self.out = nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, out_channels, 3, padding=1)
        self.time, self.label = nn.Linear(1, width), nn.Embedding(num_labels + 1, width)

    def forward(self, x, t, label=None):
        known = 0 if label is None else self.label(label)
        h = torch.tanh(self.into(x) + (self.time(t[:, None] / 50) + known)[:, :, None, None])
        return self.out(h)


def straight(T):
    """A schedule of one's own, without signal at its end."""
    u = torch.arange(T + 1, dtype=torch.float64) / T
    return unstir.NoiseSchedule(2 * torch.log1p(-u) - torch.log((1 - u) ** 2 + u**2))


@pytest.fixture
def learned(tmp_path, monkeypatch):
    """A store, a process, and a network that learned from it in a loop of torch."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    store = unstir.pack((rows, np.arange(60) % 2), "packed", channels=1)
    process, net = unstir.Process(straight(50)), Tiny(1, 1, 2)
    images, labels = store.images("train"), store.labels("train")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        index = torch.randint(len(images), (16,))
        x_0, t = images[index] / 127.5 - 1, torch.randint(1, 51, (16,))
        eps = torch.randn_like(x_0)
        alpha, sigma = process.schedule.gather(t, x_0)
        error = net(alpha * x_0 + sigma * eps, t - 1, labels[index]) - (alpha * eps - sigma * x_0)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    return store, process, net


JOB = unstir.Job(num=2, chain=unstir.Chain("dpmpp_2m", steps=5))
NAMED = unstir.Job(num=2, chain=unstir.Chain("ddim", steps=5), label=1)


def drawn(model):
    return next(unstir.sample_batches(model, JOB))[1]


def test_a_run_of_it_does_what_any_imported_run_does(learned):
    store, process, net = learned
    run = unstir.Run.create("run", net, process, store, predict="v", classes=store.classes, step=30)
    model = run.model(device="cpu")
    assert torch.equal(model.process.schedule.log_abar, process.schedule.log_abar) and run.saved_steps() == [30]
    with torch.no_grad():
        x, t = torch.randn(3, 1, 4, 4), torch.tensor([1, 20, 50])
        assert torch.equal(model.denoiser(x, t, torch.tensor([0, 1, 1])).raw, net(x, t - 1, torch.tensor([0, 1, 1])))
    assert unstir.sample(model, JOB, "made").folder.is_dir()
    assert unstir.morph(model, JOB, labels=(0, 1), count=3).made.shape == (6, 1, 4, 4)
    evaluations, _ = unstir.evaluate_run("run", EvaluationRequest(num=12, seeds=3))
    assert evaluations[0].step == 30 and evaluations[0].figures
    assert evaluations[0].images == 0 and "images seen" not in describe(evaluations[0])  # of a batch nobody named
    page, *_ = unstir.write_report([run.path], measuring=False)
    assert "trained elsewhere" in page.read_text()
    bits, _ = save_likelihood(model, store, protocol=Protocol(calls=5))
    assert bits["held_out"].bits_per_dim > 0
    assert unstir.export(model, "safetensors", "exported").error < 1e-6
    assert not run.config.kind.trained_here and unstir.Run.open("run").config == run.config


def unet(**given):
    return UNet(UNetConfig(in_channels=1, channels=4, mults=(1,), num_blocks=1, attention=(), groups=2, **given))


FILES = Path("0.png"), Path("1.png")
EDITS = {
    "inpaint": lambda model: unstir.inpaint(model, FILES[0], NAMED, box=(0, 0, 2, 4)),
    "vary": lambda model: unstir.vary(model, FILES[0], NAMED, strength=0.5),
    "invert": lambda model: unstir.invert(model, FILES[0], NAMED),
    "blend": lambda model: unstir.blend(model, FILES, NAMED, labels=(0, 1), count=2),
    "morph": lambda model: unstir.morph(model, replace(NAMED, num=1), labels=(0, 1), count=2),
}


@pytest.mark.parametrize("network", [lambda: Tiny(1, 1, 2), lambda: unet(num_classes=2)], ids=["own", "unet"])
@pytest.mark.parametrize("work", [*EDITS, *(pytest.param(to, marks=pytest.mark.slow) for to in ("onnx", "diffusers"))])
def test_a_run_of_it_is_edited_and_exported_as_any_run(learned, network, work):
    store, process, _ = learned
    run = unstir.Run.create("run", network(), process, store, predict="v", classes=store.classes)
    model = run.model(device="cpu")
    if work in EDITS:
        for file, image in zip(FILES, store.images("train")[:2, 0].numpy(), strict=True):
            Image.fromarray(image).save(file)
        edited = EDITS[work](model)
        assert edited.made.shape == (2, 1, 4, 4) and edited.settings["weights"] == model.hashes and edited.calls > 0
    elif work == "diffusers" and not run.config.model.is_unet:
        with refusing("", model.folder, {"to": "onnx"}):
            unstir.export(model, work)
    else:
        pytest.importorskip(work)
        assert unstir.export(model, work).error < 1e-5


@pytest.mark.slow
def test_it_is_published_and_pulled_as_any_run(learned, tmp_path):
    pytest.importorskip("diffusers")
    store, process, net = learned
    run = unstir.Run.create("run", net, process, store, predict="v", classes=store.classes)
    write_repository(run.model(device="cpu"), "me/tiny", tmp_path / "hub")
    published = unstir.Run.open(tmp_path / "hub").model(device="cpu")
    assert torch.equal(drawn(published), drawn(run.model(device="cpu")))


def test_a_model_without_a_folder_draws_and_edits_as_the_run(learned):
    store, process, net = learned
    run = unstir.Run.create("run", net, process, store, predict="v", classes=store.classes)
    model = unstir.Model.of(net, process, store.shape, predict="v", classes=store.classes)
    expected = drawn(run.model(device="cpu"))
    assert torch.equal(drawn(model), expected) and model.weights_sha256 == run.model().weights_sha256
    with torch.no_grad():
        net.out.weight.zero_()
    assert torch.equal(drawn(model), expected)
    morphed = unstir.morph(model, JOB, labels=(0, 1), count=2)
    assert morphed.made.shape == (4, 1, 4, 4) and morphed.settings["weights"] == model.hashes


@unstir.network
class Described(nn.Conv2d):
    """One convolution of x_t and an image that describes it, or with a vector added."""

    def __init__(self, in_channels, out_channels, num_labels, image=False):
        super().__init__(in_channels + num_labels * image, out_channels, 3, padding=1)
        self.vector = nn.Linear(num_labels, out_channels)

    def forward(self, x, t, condition):
        if condition.ndim == 4:
            return super().forward(torch.cat((x, condition), 1)) + self.vector.bias[:, None, None]
        return super().forward(x) + self.vector(condition)[:, :, None, None]


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_a_network_with_conditions_comes_back_with_them(kind, tmp_path):
    rows = torch.randn(5, 2) if kind == "vector" else torch.rand(5, 2, 4, 4)
    conditions = unstir.Conditions.of(rows, offset=(1, 2), scale=(2, 4), hides=True)
    net, process = Described(1, 1, 3, image=kind == "image"), unstir.Process(unstir.cosine(50))
    given = {"predict": "v", "conditions": conditions}
    run = unstir.Run.create(tmp_path / "run", net, process, (1, 4, 4), options={"image": kind == "image"}, **given)
    model, other = unstir.Run.open(run.path).model(device="cpu"), unstir.Model.of(net, process, (1, 4, 4), **given)
    told = model.condition(torch.arange(5))
    sides = (1,) * (rows.ndim - 2)
    scaled = (rows - torch.tensor([1.0, 2.0]).view(2, *sides)) / torch.tensor([2.0, 4.0]).view(2, *sides)
    assert torch.equal(told[:, :2], scaled) and bool((told[:, 2] == 1).all())
    assert torch.equal(told, other.condition(torch.arange(5))) and model.hides
    with torch.no_grad():
        x, t = torch.randn(5, 1, 4, 4), torch.tensor([1, 2, 20, 30, 50])
        assert torch.equal(model.denoiser(x, t, told).raw, net(x, t - 1, told))
    assert torch.equal(drawn(model), drawn(other))
    guided = unstir.Job(num=2, chain=unstir.Chain("ddim", steps=4, guidance=2), condition=rows[3])
    assert unstir.sample(model, guided, tmp_path / "made").folder.is_dir()
    if kind == "image":
        net = UNet(UNetConfig(in_channels=1, condition_channels=2, channels=4, mults=(1,), groups=2, attention=()))
        run = unstir.Run.create(tmp_path / "unet", net, process, (1, 4, 4), **given)
        assert run.config.model.condition_channels == 2 and run.conditions.is_image


@pytest.mark.parametrize("output", [lambda x: (x, x), lambda x: x[:, :1], lambda x: x.mean()])
def test_a_network_that_returns_no_images_is_refused_in_one_line(output):
    net = nn.Conv2d(2, 2, 1)
    net.forward = lambda x, t, condition=None: output(x)
    with pytest.raises(unstir.UserError, match="the network returns"):
        drawn(unstir.Model.of(net, unstir.Process(unstir.cosine(50)), (2, 4, 4), predict="v"))


def test_a_unet_of_a_schedule_of_ours_is_taken_by_name(tmp_path):
    run = unstir.Run.create(tmp_path / "run", unet(), unstir.Process(unstir.linear(50)), (1, 4, 4), step=7)
    diffusion = run.config.diffusion
    assert (diffusion.schedule, diffusion.options) == ("linear", {"beta_1": 1e-4, "beta_T": 0.02})
    assert run.config.model.is_unet and run.data.content_hash == "" and len(run.model(device="cpu").hashes) == 64


def test_what_could_not_be_loaded_again_is_refused_before_the_folder_is_made(learned, tmp_path):
    store, process, net = learned
    given = {"predict": "v", "classes": store.classes}
    with refusing("predict", "eps"):
        unstir.Run.create("run", net, process, store)
    assert mistake(unstir.Run.create, "run", net, process, store, predict="v", classes=("a", "b")).key == "classes"
    with pytest.raises(unstir.UserError, match="do not fit"):
        unstir.Run.create("run", net, process, store, **given, options={"width": 4})
    with pytest.raises(unstir.UserError, match=r"@unstir\.network"):
        unstir.Run.create("run", nn.Conv2d(1, 1, 1), process, store, **given)
    with refusing("scale", [(0, 4)]):
        unstir.Run.create("run", net, process, store, **given, scale=unstir.Scale((0,), (4,)))
    run = unstir.Run.create("units", unet(), process, (1, 4, 4), predict="v", scale=unstir.Scale((0,), (4,)))
    with refusing(given=store.path):  # in other units
        unstir.evaluate_run(run.path, EvaluationRequest(num=12, seeds=3, store=store.path))
    for low in (0, 0), (0,):
        with refusing("scale"):
            unstir.Run.create("run", net, process, (1, 4, 4), **given, scale=unstir.Scale(low, (4, 4)))
    assert not (tmp_path / "run").exists()
