"""`unstir distill`: a run that learns from a finished one to draw in few calls, and what may be done with it."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from conftest import DISTILLED, copied, tiny_config
from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.data import pack
from unstir.diffusion.denoiser import Conditioned, Prediction, clipped
from unstir.diffusion.paths import SMOOTH, follow
from unstir.diffusion.samplers.ddim import ddim
from unstir.metrics.drawn import usual_chain
from unstir.randomness import Key
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.runs.timetable import learning_rates
from unstir.train import paths
from unstir.train.distill import distill_run, distilled
from unstir.train.launch import train_run
from unstir.train.paths import PATHS, PERIOD
from unstir.train.trainer import Trainer


@pytest.fixture
def long_paths():
    """As many paths, and as long, as there are outside of tests."""


@pytest.fixture(autouse=True)
def short_paths(request, monkeypatch):
    """One path of two steps, for tests of all that is not the paths themselves."""
    if "long_paths" not in request.fixturenames:
        monkeypatch.setattr(paths, "PATHS", 1)
        monkeypatch.setattr(paths, "STEPS", (2, 2))


def test_paths_take_steps_that_the_calls_divide_as_many_as_are_drawn_or_as_there_are_times(long_paths, make_run):
    for calls, T, steps in ((3, 1000, {24, 27, 30}), (5, 1000, {25, 30}), (32, 32, {32}), (3, 20, {18}), (3, 3, {3})):
        cut = {"loss__calls": calls, "grids__steps": calls, "diffusion__T": T}
        made = Trainer(*make_run(f"{calls}-{T}", **DISTILLED | cut))._paths
        assert {made._chain(number).steps for number in range(200)} == steps
        assert made._chain(3) == made._chain(3)
    assert set(made(0, torch.arange(8), slice(0, 8)).t.tolist()) <= {1, 2, 3}


def pairs_of(trainer, steps, parts=(slice(0, 4), slice(4, 8))):
    """What the slots of a batch learn from at these steps: (t, x_t, target) of each, [steps * 8, ...]."""
    found = []
    for trainer.state.step in steps:
        found += [trainer.examples(part) for part in parts]
    return [torch.cat([getattr(each, name) for each in found]) for name in ("t", "x_t", "x_0")]


def test_pairs_are_points_on_paths_of_the_teacher_and_what_takes_a_call_to_the_next(long_paths, trained, make_run):
    teacher, _ = trained("teacher", diffusion__predict="v", train__lr=0.01)
    made = Trainer(*make_run(**DISTILLED, train__init=str(teacher.path)))
    t, x_t, target = pairs_of(made, range(2 * PERIOD))
    from_noise = t == 20
    assert set(t.tolist()) == {20, 13, 7} and from_noise.float().mean().item() == pytest.approx(1 / 3, abs=0.05)
    assert x_t[from_noise].std().item() == pytest.approx(1, abs=0.1)
    pairs = {(*each.flatten().tolist(), time) for each, time in zip(target, t.tolist(), strict=True)}
    assert 0.95 < len(pairs) / (2 * PATHS * 8 * 3) <= 1  # each slot has its own, and others in the next period
    process, beginnings = made._denoiser.process, x_t[from_noise]
    visited = Chain("unipc", steps=18).visited(process.schedule)
    path = follow(clipped(Conditioned(teacher.model().denoiser, None)), process, beginnings, visited)
    for time in (13, 7):
        apart = (x_t[t == time][:, None] - path[visited.index(time)]).abs().flatten(2).amax(2)
        assert (apart.amin(1) < 1e-4).float().mean() > 0.95  # of some path the beginning was not drawn
    step = ddim(lambda x, _: Prediction(target[from_noise], x), process, beginnings, (20, 13), lambda _: x_t)
    torch.testing.assert_close(next(step).x, path[visited.index(13)], rtol=0, atol=1e-4)


def test_pairs_are_those_of_the_step_and_slot_whatever_came_before_and_however_the_batch_is_cut(make_run, monkeypatch):
    monkeypatch.setattr(paths, "PATHS", 3)
    monkeypatch.setattr(paths, "STEPS", (2, 4))
    made, other = Trainer(*make_run(**DISTILLED)), Trainer(*make_run(**DISTILLED))
    whole = pairs_of(made, (0, 70, 71))
    for theirs, ours in zip(pairs_of(other, (70,), (slice(0, 8),)), whole, strict=True):
        torch.testing.assert_close(theirs, ours[8:16], rtol=1e-4, atol=1e-5)


def test_classes_are_hidden_for_whole_paths_and_else_come_as_often_as_in_the_data(long_paths, make_run):
    made = Trainer(*make_run(**DISTILLED, model__num_classes=10, train__condition_dropout=0.3))
    labels = torch.stack([made._paths._condition(number, torch.arange(500)) for number in (0, 1)])
    assert (labels == 10).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert set(labels.flatten().tolist()) == set(range(11)) and not torch.equal(*labels)
    assert made.examples(slice(0, 8)).condition.shape == (8,)


def test_a_teacher_that_predicts_noise_teaches_one_that_predicts_velocity(trained, make_run):
    teacher, _ = trained("teacher", train__lr=0.01)
    made = Trainer(*make_run(**DISTILLED, loss__teacher="eps", train__init=str(teacher.path)))
    t, x_t = torch.tensor([20]), torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(made._paths._teacher(x_t, t).x0, teacher.model().denoiser(x_t, t).x0)
    assert made._denoiser.parameterization != made._paths._teacher.parameterization


def test_a_step_learns_the_targets_and_leaves_the_teacher(trained, make_run):
    teacher, _ = trained("teacher", diffusion__predict="v", train__lr=0.01)
    made = Trainer(*make_run(**DISTILLED, train__init=str(teacher.path), train__clip=0.0))
    before = {name: tensor.clone() for name, tensor in made.state.teacher.state_dict().items()}
    made.state.net.train()
    total = torch.zeros(())
    for part in (slice(0, 4), slice(4, 8)):
        slots = torch.arange(part.start, part.stop)
        pairs = made.examples(part)
        estimate = made._denoiser(pairs.x_t, pairs.t, None, Key(0, "dropout", 0, slots)).x0
        sigma = torch.tensor([made._denoiser.process.schedule.sigma(t) for t in pairs.t.tolist()])
        error = (estimate - pairs.x_0).square().mean((1, 2, 3))
        total = total + ((((error + SMOOTH**2).sqrt() - SMOOTH) / sigma).sum()) / 8
    expected = torch.autograd.grad(total, list(made.state.net.parameters()))
    made.take_step()
    assert made.state.window[1].item() == pytest.approx(total.item(), rel=1e-5)
    for parameter, gradient in zip(made.state.net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state.teacher.state_dict().items())


def test_a_distilled_run_begins_with_the_weights_continues_and_is_sampled_in_its_calls(trained, tmp_path):
    teacher, _ = trained(train__lr=0.01)
    out = tmp_path / "fast"
    assert distill_run(teacher.path, out, "16 steps", calls=2).finished
    run = Run.open(out)
    assert run.config.train.init == f"{teacher.path.resolve()}@12" and run.config.diffusion.predict == "v"
    assert run.config.loss.teacher == "eps" and run.config.log.held_out_images == 0 and run.config.model.dropout == 0
    assert usual_chain(run) == run.chain() and run.chain().calls(run.model().process.schedule) == 2
    assert "bits" not in run.metrics()[-1] and run.metrics()[-1]["mse"] > 0
    assert distilled(teacher).train.length == "12 steps" and distilled(teacher).train.lr == 0.005
    assert distilled(teacher, lr=0.5).train.lr == 0.5 and distilled(teacher).kind.calls == 4
    start = run.load(run.saved_steps()[0])
    again = distill_run(teacher.path, out)
    assert again.finished and again.step == 16 and start.step < 16
    with refusing("", run.path):
        distilled(run)
    with refusing("calls", 3):
        distill_run(teacher.path, out, calls=3)
    other, _ = trained("other")
    with refusing("out", out):
        distill_run(other.path, out)


def test_one_of_a_teacher_that_was_told_of_augmentation_is_continued_too(trained, tmp_path, logged):
    teacher, _ = trained(train__augment=0.5)
    out = tmp_path / "fast"
    assert distill_run(teacher.path, out, "2 steps").step == 2
    assert f"{PERIOD} steps" in logged[-1] and "2 calls" in logged[-1]  # in tests one path of two
    saved = checkpoint.load(out / "checkpoints" / checkpoint.file_name(2)).tensors
    weight = saved["teacher.augment.weight"]
    assert weight.any() and torch.equal(saved["model.augment.weight"], weight)  # nothing here is augmented
    assert distill_run(teacher.path, out, "3 steps").step == 3


def test_of_one_that_is_longer_than_asked_no_setting_is_named_that_distill_does_not_take(trained, tmp_path, logged):
    teacher, _ = trained(train__lr_schedule="cosine")
    assert distill_run(teacher.path, tmp_path / "fast", "4 steps").finished
    assert distill_run(teacher.path, tmp_path / "fast", "3 steps").step == 4
    assert not any("no step" in text for text in logged), logged


def test_it_learns_from_the_teachers_data_though_the_source_has_gone(make_run, tmp_path, digits):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), 12 * i).save(photos / f"{i}.png")
    run, store = make_run(
        "teacher", data__source=str(photos), data__store=str(tmp_path / "packed"), train__length="2 steps"
    )
    Trainer(run, store).run()
    shutil.rmtree(photos)
    assert distill_run(run.path, tmp_path / "fast", "1 step").finished
    fast = Run.open(tmp_path / "fast")
    assert fast.data.content_hash == run.data.content_hash and fast.config.data == run.config.data
    store.path.rename(tmp_path / "moved")
    with refusing("data.store", store.path):
        distill_run(run.path, tmp_path / "second", "1 step")
    copied(digits, tmp_path / "packed")  # another store in its place
    with refusing("data.store", store.path):
        distill_run(run.path, tmp_path / "second", "1 step")
    assert not (tmp_path / "second").exists()
    moved = replace(run.config.data, store=str(tmp_path / "moved"))
    assert train_run(replace(run.config, data=moved), run.path).finished
    assert distill_run(run.path, tmp_path / "second", "1 step").finished


def test_other_data_of_the_same_classes_does_where_the_teachers_is_not_here(trained, tmp_path, unstir, refused):
    teacher, _ = trained(model__num_classes=10, train__condition_dropout=0.1)
    other = pack("digits", tmp_path / "other", held_out=0.5)
    unnamed = pack(str(other.path / "train.images.npy"), tmp_path / "unnamed", channels=1)
    fast = ("distill", teacher.path, "--out", tmp_path / "fast", "--length", "2 steps", "--store")
    refused(unstir(*fast, unnamed.path), f"{unnamed.path} has 0 classes", "knows 10")
    assert unstir(*fast, other.path)[0] == 0
    assert Run.open(tmp_path / "fast").data.content_hash == other.content_hash != teacher.data.content_hash
    refused(unstir("distill", "cifar10-small"), "cifar is gone, the data of cifar10-small; use --store FOLDER")


def test_the_same_command_trains_it_for_longer_and_the_rate_follows(trained, tmp_path, refused, unstir):
    teacher, _ = trained(train__lr=0.01)
    fast = teacher.path.with_name(f"{teacher.path.name}-distilled")
    assert unstir("distill", teacher.path, "--length", "20 steps")[0] == 0
    assert Run.open(fast).config.train.lr_period == "19 steps"
    status, _, _ = unstir("distill", teacher.path, "--length", "30 steps")
    run = Run.open(fast)
    assert status == 0 and run.newest_step() == 30 and run.config.train.lr_period == "29 steps"
    assert learning_rates(run)(21) > 0.001 and learning_rates(run)(29) < 1e-4
    assert "at step 30" in unstir("distill", teacher.path, "--out", fast)[1]
    refused(unstir("distill", teacher.path, "--lr", 0.5), "train.lr=0.5 is 0.005 in the run")


def test_guidance_a_guide_and_a_learned_variance_are_refused(make_run, trained):
    classes = {"model__num_classes": 10, "train__condition_dropout": 0.1}
    brief = {"train__length": "1 step"}
    teacher, _ = trained("teacher", **brief, **classes, grids__guidance=2.0, grids__guidance_low=2)
    assert distilled(teacher).grids.guidance == 1
    with refusing("grids.guidance", 2.0):
        make_run("fast", **DISTILLED, **classes, grids__guidance=2.0)
    fast, _ = trained("fast", **DISTILLED)
    hidden, _ = trained("hidden", **DISTILLED, **classes)
    hidden.model().check(hidden.chain().changed(guidance=0.0))
    model = fast.model()
    with refusing("", model.folder):
        replace(model, guide=fast.model(1)).check(fast.chain())
    plain, _ = trained("plain", diffusion__predict="v")
    assert "calls 0" in str(mistake(replace, model, guide=plain.model(1)))
    hybrid, _ = trained("hybrid", **brief, diffusion__learned_variance=True, loss__objective="hybrid")
    with refusing("", hybrid.path):
        distilled(hybrid)


def test_what_a_distilled_run_takes_and_refuses_in_one_line(trained, unstir, refused):
    fast, _ = trained("fast", **DISTILLED)
    plain, _ = trained("plain")
    assert unstir("sample", fast.path, "--num", 2, "--out", "two")[0] == 0
    assert unstir("sample", fast.path, "--num", 2, "--compare", "ddim:3", "--out", "compared")[0] == 0
    assert unstir("evaluate", fast.path, "--num", 64, "--seeds", 1)[0] == 0
    assert unstir("report", fast.path, "--num", 64, "--seeds", 1)[0] == 0
    assert unstir("doctor", fast.path)[2].count("Traceback") == 0
    for words, why in (
        (("sample", fast.path, "--sampler", "unipc"), "--sampler unipc is not what"),
        (("sample", fast.path, "--steps", 2), "--steps 2 is not what"),
        (("sample", fast.path, "--eta", 0.5), "--eta 0.5 is not what"),
        (("edit", "inpaint", fast.path, "a.png", "--box", 0, 0, 2, 2), "whole chains"),
        (("edit", "vary", fast.path, "a.png", "--strength", 0.5), "whole chains"),
    ):
        refused(unstir(*words), "was distilled", why, "the run that it was distilled from")
    refused(unstir("sample", fast.path, "--guidance", 2), "--guidance 2 does not work", "are no means")
    refused(unstir("likelihood", fast.path), "was distilled", "not the mean")
    refused(unstir("train", "--out", fast.path, "--grids.sampler", "heun"), "was distilled for")
    for words in (("--length", 5), ("--lr", 0), ("--calls", 33)):
        refused(unstir("distill", plain.path, "--out", "x", *words), f"unstir: {words[0]} {words[1]} must ")
    with refusing("times", (20, 10, 0)):
        fast.model().check(Chain("ddim", times=(20, 10, 0)))


@pytest.mark.parametrize(
    ("length", "expected"), [(4, []), (9, ["is at step 4 of 9; to finish it first: unstir train"])]
)
def test_a_teacher_that_is_unfinished_is_said_to_be(make_run, tmp_path, monkeypatch, logged, length, expected):
    run, store = make_run("teacher", train__length="4 steps")
    Trainer(run, store).run()
    config = replace(run.config, train=replace(run.config.train, length=f"{length} steps"))
    replace(run, config=config).save_config()
    monkeypatch.setattr("unstir.train.distill.train_run", lambda *_, **__: None)
    logged.clear()
    distill_run(run.path, tmp_path / "fast")
    assert [text.removeprefix(f"{run.path} ").removesuffix(f" --out {run.path}") for text in logged] == expected


def test_a_teacher_is_a_trained_run_of_the_same_process_whose_answer_is_read_as_it_is_meant(trained, tmp_path, digits):
    teacher, _ = trained("teacher", train__lr=0.01)
    asked = tiny_config(digits, **DISTILLED, loss__teacher="eps", log__held_out_images=0)
    begins = replace(asked.train, init=str(teacher.path))
    wrong = [
        asked,
        replace(asked, train=begins, loss=replace(asked.loss, teacher="v")),
        replace(asked, train=begins, diffusion=replace(asked.diffusion, T=50, schedule="cosine")),
    ]
    for config in wrong:
        with refusing("train.init", config.train.init):
            train_run(config, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()
    fast = distill_run(teacher.path, tmp_path / "fast", "2 steps").run
    with refusing("train.init", str(fast.path)):
        train_run(replace(asked, train=replace(begins, init=str(fast.path))), tmp_path / "wrong")


def test_the_rate_falls_by_steps_though_the_teachers_stood_still_within_an_epoch(trained, tmp_path):
    by_epoch = {"train__lr_every": "epoch", "train__lr_schedule": "constant"}
    teacher, _ = trained("teacher", **by_epoch, log__to=["tensorboard", "wandb"])
    assert distilled(teacher).train.lr_every == "step" and distilled(teacher).log.to == ()
    fast = distill_run(teacher.path, tmp_path / "fast", "12 steps").run  # far less than an epoch
    assert learning_rates(fast)(11) < 0.05 * fast.config.train.lr
