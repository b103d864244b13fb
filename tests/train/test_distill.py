"""`unstir distill`: a run that learns consistency from a finished one, and what may be done with it."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from conftest import copied
from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion.loss import SMOOTH, earlier
from unstir.errors import UserError
from unstir.metrics.evaluate import usual_chain
from unstir.randomness import Key
from unstir.runs.run import Run
from unstir.runs.timetable import consistency_gap, learning_rate
from unstir.train.distill import distill_run, distilled
from unstir.train.launch import train_run
from unstir.train.trainer import Trainer

CONSISTENCY = {
    "diffusion__predict": "v",
    "loss__objective": "consistency",
    "loss__gap_halving": "2 steps",
    "grids__sampler": "consistency",
}


def test_the_gap_halves_and_leaves_a_time_between_any_two(make_run):
    run, _ = make_run(**CONSISTENCY)
    assert [consistency_gap(run, step) for step in (0, 2, 4, 20)] == [1, 0.5, 0.25, 2**-10]
    assert consistency_gap(run, 1) == pytest.approx(0.5**0.5)
    t = torch.tensor([1, 2, 3, 10, 1000])
    for gap, r in ((1.0, [0] * 5), (0.5, [0, 1, 1, 5, 500]), (0.25, [0, 1, 2, 7, 750]), (2**-12, [0, 1, 2, 9, 999])):
        assert earlier(t, gap).tolist() == r


def pair_loss(trainer, keys, gap):
    """What consistency minimises of a batch, from its definition, with a key of the masks for each call."""
    seed, step, slots = 0, trainer.state.step, torch.arange(8)
    denoiser, schedule = trainer._denoiser, trainer._denoiser.process.schedule
    x_0, _ = trainer._batches(step, slots, slice(0, 8))
    t = randomness.integers(Key(seed, "time", step, slots), 1, 20)
    eps = randomness.normal(Key(seed, "noise", step, slots), (1, 8, 8))
    r = earlier(t, gap)
    at_t = denoiser(denoiser.process.diffuse(x_0, t, eps), t, None, keys[0]).x0
    at_r = denoiser(denoiser.process.diffuse(x_0, r, eps), r.clamp(min=1), None, keys[1]).x0.detach()
    target = torch.stack([image if time == 0 else estimate for image, estimate, time in zip(x_0, at_r, r, strict=True)])
    apart = ((at_t - target).square().mean((1, 2, 3)) + SMOOTH**2).sqrt() - SMOOTH
    ratio = torch.tensor([schedule.sigma(s) / schedule.alpha(s) for s in r.tolist()])
    alpha, sigma = (each.flatten() for each in schedule.gather(t, x_0))
    return apart / (sigma - alpha * ratio)


def test_a_step_in_parts_is_that_of_the_whole_batch_and_both_calls_have_one_key_of_masks(trained, make_run):
    teacher, _ = trained("teacher", train__lr=0.01)
    begins = {"train__init": str(teacher.path), "train__clip": 0.0}
    run, store = make_run(**CONSISTENCY, **begins)
    made = Trainer(run, store)
    made.state.step, gap = 4, 0.25
    made.state.net.train()
    key, other = (Key(0, stream, 4, torch.arange(8)) for stream in ("dropout", "another"))
    own, planted = (pair_loss(made, keys, gap) for keys in ((key, key), (key, other)))
    assert (own - planted).abs().max() > 0.01  # masks of their own are seen
    expected = torch.autograd.grad(own.mean(), list(made.state.net.parameters()))
    made.take_step()  # in two micro-batches
    assert made.state.window[1].item() == pytest.approx(own.mean().item(), rel=1e-5)
    for parameter, gradient in zip(made.state.net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_at_the_whole_gap_it_is_the_error_of_the_image_and_the_second_call_is_saved(make_run):
    made = Trainer(*make_run(**CONSISTENCY))
    calls = []
    made.state.net.register_forward_hook(lambda *_: calls.append(1))
    made.take_step()
    assert len(calls) == 2  # micro-batches
    made.take_step()
    assert len(calls) == 6


def test_a_distilled_run_begins_with_the_weights_continues_and_is_sampled_in_two_calls(trained, tmp_path):
    teacher, _ = trained(train__lr=0.01)
    out = tmp_path / "fast"
    assert distill_run(teacher.path, out, "16 steps").finished
    run = Run.open(out)
    assert run.config.train.init == f"{teacher.path.resolve()}@12" and run.config.diffusion.predict == "v"
    assert run.config.loss.gap_halving == "3 steps" and run.config.log.held_out_images == 0
    assert usual_chain(run) == run.chain() and run.chain().calls(run.model().process.schedule) == 2
    assert "bits" not in run.metrics()[-1] and run.metrics()[-1]["mse"] > 0
    assert distilled(teacher).train.length == "6 steps" and distilled(teacher, lr=0.5).train.lr == 0.5
    start = run.load(run.saved_steps()[0])
    again = distill_run(teacher.path, out)
    assert again.finished and again.step == 16 and start.step < 16
    with pytest.raises(UserError, match="distilled already"):
        distilled(run)
    other, _ = trained("other")
    with pytest.raises(UserError, match="was not distilled from"):
        distill_run(other.path, out)


def test_it_learns_from_the_teachers_data_though_the_source_has_gone(make_run, tmp_path, digits):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), 12 * i).save(photos / f"{i}.png")
    run, store = make_run("teacher", data__source=str(photos), data__store=str(tmp_path / "packed"))
    Trainer(run, store).run()
    shutil.rmtree(photos)
    assert distill_run(run.path, tmp_path / "fast", "4 steps").finished
    fast = Run.open(tmp_path / "fast")
    assert fast.data == run.data and fast.config.data == run.config.data
    store.path.rename(tmp_path / "moved")
    with pytest.raises(
        UserError,
        match=r"the packed data of .*teacher is not there .*unstir train --out .*teacher --data.store FOLDER$",
    ):
        distill_run(run.path, tmp_path / "second", "4 steps")
    copied(digits, tmp_path / "packed")  # another store in its place
    with pytest.raises(
        UserError, match=r"packed is not the data that .*teacher began with .*unstir train --out .*teacher"
    ):
        distill_run(run.path, tmp_path / "second", "4 steps")
    assert not (tmp_path / "second").exists()
    assert train_run(
        replace(run.config, data=replace(run.config.data, store=str(tmp_path / "moved"))), run.path
    ).finished
    assert distill_run(run.path, tmp_path / "second", "4 steps").finished


def test_the_same_command_trains_it_for_longer_and_the_rate_follows(trained, tmp_path, refused, unstir):
    teacher, _ = trained(train__lr=0.01)
    assert unstir("distill", teacher.path, "--out", "fast", "--length", "20 steps")[0] == 0
    assert Run.open("fast").config.train.lr_period == "19 steps"
    status, _, _ = unstir("distill", teacher.path, "--out", "fast", "--length", "30 steps")
    run = Run.open("fast")
    assert status == 0 and run.newest_step() == 30 and run.config.train.lr_period == "29 steps"
    assert learning_rate(run, 21) > 0.002 and learning_rate(run, 29) < 1e-4
    said = unstir("distill", teacher.path, "--out", "fast")[1]
    assert "at step 30. To go on: unstir train --out fast --train.length" in said
    refused(unstir("distill", teacher.path, "--out", "fast", "--lr", 0.5), "train.lr is 0.01 in the run, 0.5 was asked")


def test_a_learned_variance_and_a_guide_of_the_other_kind_are_refused(trained):
    hybrid, _ = trained("hybrid", diffusion__learned_variance=True, loss__objective="hybrid")
    with pytest.raises(UserError, match="learned a variance"):
        distilled(hybrid)
    plain, _ = trained("plain", diffusion__predict="v")
    fast, _ = trained("fast", **CONSISTENCY)
    with pytest.raises(UserError, match="it has distilled False, the run True"):
        replace(fast.model(), guide=plain.model(1))


def test_a_distilled_run_is_drawn_without_guidance_and_refuses_it_and_a_guide(make_run, trained):
    classes = {"model__num_classes": 10, "train__label_dropout": 0.1}
    guided = {"grids__guidance": 2.0, "grids__guidance_low": 2}
    teacher, _ = trained("teacher", **classes, **guided)
    assert distilled(teacher).grids.guidance == 1
    with pytest.raises(UserError, match=r"grids: guidance=2\.0 .* estimates are images"):
        make_run("fast", **CONSISTENCY, **classes, grids__guidance=2.0)
    assert Chain("consistency", guidance=0.0).guidance == 0
    fast, _ = trained("fast", **CONSISTENCY)
    model = fast.model()
    with pytest.raises(UserError, match="was distilled, and cannot be guided"):
        replace(model, guide=fast.model(1)).check(fast.chain())


def test_what_a_distilled_run_takes_and_refuses_in_one_line(trained, unstir, refused):
    fast, _ = trained("fast", **CONSISTENCY)
    plain, _ = trained("plain")
    assert unstir("sample", fast.path, "--num", 2, "--out", "two")[0] == 0
    assert unstir("sample", fast.path, "--num", 2, "--compare", "consistency:1,consistency:4", "--out", "c")[0] == 0
    assert unstir("edit", "vary", fast.path, "a.png", "--strength", 0.5, "--num", 2, "--out", "v.png")[0] == 0
    assert unstir("doctor", fast.path)[2].count("Traceback") == 0
    for words in (
        ("sample", fast.path, "--sampler", "ddim"),
        ("edit", "inpaint", fast.path, "a.png", "--box", 0, 0, 2, 2),
    ):
        refused(unstir(*words), "was distilled", "sampled by consistency, not by", "the run that it was distilled from")
    refused(unstir("sample", fast.path, "--guidance", 2), "guidance=2.0", "estimates are images")
    refused(unstir("likelihood", fast.path), "was distilled", "not the mean")
    refused(unstir("sample", plain.path, "--sampler", "consistency"), "unstir distill", f"which {plain.path} is not")
    refused(unstir("train", "--out", fast.path, "--grids.sampler", "ddim"), "neither")
    refused(unstir("distill", plain.path, "--out", "x", "--length", "5"), "write a whole number and a unit")
    with pytest.raises(UserError, match="was distilled"):
        fast.model().check(Chain("heun"))
