"""Guidance away from a weaker network: a step of the same run, or another run, in sampling, judging and editing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from refusals import mistake, refusing
from unstir import edit
from unstir.chain import Chain
from unstir.data.embedded import load_embedded
from unstir.diffusion.draw import starting_noise
from unstir.generate.drawing import Job, sample_batches
from unstir.pixels import to_uint8

CLASSES = {"model__num_classes": 10}
ONE_STEP = Chain(sampler="ddim", steps=1, guidance=3.0, clip=False)
"""From t = T to 0 in one call: the image is the estimate itself."""


@pytest.fixture
def pair(trained):
    """pair(strong, weak) -> two runs trained with these changes, the second with half the channels."""

    def make(strong=None, weak=None):
        run, _ = trained("strong", **(strong or {}))
        other, _ = trained("weak", model__channels=4, **(weak or {}))
        return run, other

    return make


def estimate(run, step, label=None):
    """The estimate of the clean images 0..3 that weights make of pure noise."""
    denoiser = run.model(step=step).denoiser
    x_T = starting_noise(0, torch.arange(4), run.data.shape)
    with torch.no_grad():
        return denoiser(x_T, run.config.diffusion.T, label).x0


def drawn(run, guide, **options):
    """Images 0..3 of one guided step."""
    job = Job(num=4, chain=ONE_STEP, **options)
    ((_, images),) = sample_batches(run.model(guide=guide), job)
    return images


@pytest.mark.parametrize("step", [1, 8])
def test_a_less_trained_step_of_the_run_is_led_away_from(run, step):
    strong, weak = estimate(run, run.newest_step()), estimate(run, step)
    torch.testing.assert_close(drawn(run, str(step)), weak + 3 * (strong - weak), rtol=1e-4, atol=1e-4)


def test_another_and_smaller_run_is_led_away_from(pair):
    run, other = pair()
    strong, weak = estimate(run, run.newest_step()), estimate(other, 8)
    assert (strong - weak).abs().max() > 1e-3
    images = drawn(run, f"{other.path}@8")
    torch.testing.assert_close(images, weak + 3 * (strong - weak), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("knows", [True, False])
def test_a_guide_is_told_the_class_where_it_knows_classes(pair, knows):
    run, other = pair(CLASSES, CLASSES if knows else {})
    strong = estimate(run, run.newest_step(), 7)
    weak = estimate(other, other.newest_step(), 7 if knows else None)
    images = drawn(run, str(other.path), label=7)
    torch.testing.assert_close(images, weak + 3 * (strong - weak), rtol=1e-4, atol=1e-4)


def test_a_guide_is_named_by_a_step_a_run_or_both(pair, tmp_path):
    run, other = pair()
    assert run.model().guide is None and run.model().guide_name is None
    named = {"8": "8", str(other.path): f"{other.path}@12", f"{other.path}@8": f"{other.path}@8"}
    assert {text: run.model(guide=text).guide_name for text in named} == named
    assert run.model(guide=other.model(8)).guide_name == f"{other.path}@8"
    odd = shutil.copytree(other.path, tmp_path / "odd@8")
    assert run.model(guide=str(odd)).guide_name == f"{odd}@12"
    for wrong in ("early", f"{tmp_path / 'none'}@8", str(tmp_path), 8, Path("8"), b"8", other):
        with refusing("guide", wrong):
            run.model(guide=wrong)


def test_a_guide_that_does_not_fit_is_refused(pair, command, refused):
    run, other = pair(weak={"diffusion__options": {"beta_1": 0.01, "beta_T": 0.2}})
    refused(command("sample", run.path, "--guide", other.path, "--guidance", 2), "--guide", "noise schedule")
    assert not (run.path / "generated").exists()


def test_a_guide_whose_classes_are_others_or_in_another_order_is_refused(pair):
    strong, weak = (run.model() for run in pair(CLASSES, CLASSES))
    names = tuple(f"digit {n}" for n in range(10))

    def guided(*classes):
        guide = replace(weak, labels=replace(weak.labels, names=classes))
        return replace(strong, labels=replace(strong.labels, names=names), guide=guide)

    for wrong in (names[::-1], (*names[:9], "a tree")):
        assert mistake(guided, *wrong).key == "guide"
    for right in (names, [name.upper() for name in names], map(str, range(10))):  # numbers: told no names
        assert guided(*right).guide_name


def test_a_guide_without_effect_is_refused(run, command, refused):
    newest = run.newest_step()
    unsaved = f"--guide 3 cannot be used: step=3 was not saved; {run.path} has 1, 8, {newest}"
    for options, words in (
        (("--guide", 8), "no effect at guidance=1"),
        (("--guide", 3, "--guidance", 2), unsaved),
        (("--guide", newest, "--guidance", 2), "the very step"),
    ):
        refused(command("sample", run.path, *options), words)
    assert not (run.path / "generated").exists()


def test_a_job_knows_its_guide_by_its_weights(pair, command, tmp_path, refused):
    run, other = pair()
    ask = ("sample", run.path, "--num", 4, "--guidance", 2, "--guide", other.path, "--out", tmp_path / "led")
    assert command(*ask)[0] == 0
    alone = ("sample", run.path, "--num", 4, "--out", tmp_path / "alone")
    assert command(*alone)[0] == 0
    assert (tmp_path / "led/grid.png").read_bytes() != (tmp_path / "alone/grid.png").read_bytes()
    settings = json.loads((tmp_path / "led/settings.json").read_text())
    assert settings["guide"] == {"step": 12, "run": str(other.path)}
    assert command(*ask)[0] == 0
    moved = shutil.move(other.path, tmp_path / "moved")
    assert command(*ask[:-3], moved, *ask[-2:])[0] == 0
    shutil.copytree(run.path, other.path)  # another run of the same name
    refused(command(*ask), "(weights is")


def test_figures_under_a_guide_are_of_its_weights_too(pair):
    run, other = pair()
    ours, led = (run.model(12, guide=guide).hashes for guide in (None, f"{other.path}@8"))
    assert len(ours) == 64 and led.split()[0] == ours and len(led.split()[1]) == 64 and led.split()[1] != ours


@pytest.fixture
def image(tmp_path):
    """A picture file of a digit."""
    Image.fromarray(load_embedded("digits")[0][0].reshape(8, 8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_edits_are_guided_without_classes(pair, image):
    run, other = pair()
    guided, chain = run.model(guide=str(other.path)), Chain(sampler="ddim", steps=5, guidance=3.0)
    for work in (
        lambda model, job: edit.vary(model, image, job, strength=1.0),
        lambda model, job: edit.inpaint(model, image, job, box=(0, 4, 8, 4), resamples=2),
    ):
        led = work(guided, Job(chain=chain, num=2))
        alone = work(run.model(), Job(chain=replace(chain, guidance=1.0), num=2))
        assert (led.made != alone.made).any()
        assert led.settings["guide"] == {"step": 12, "run": str(other.path)}
        assert led.settings["weights"].split()[0] == alone.settings["weights"] != led.settings["weights"]
    with refusing("guide"):
        edit.vary(guided, image, Job(num=1, chain=replace(chain, guidance=1.0)), strength=0.5)


def test_inverting_and_blending_leave_a_guide_aside(pair, image):
    run, other = pair()
    guided, job = run.model(guide=str(other.path)), Job(num=1, chain=Chain(sampler="ddim", steps=4, guidance=3.0))
    for work in (lambda model: edit.invert(model, image, job), lambda model: edit.blend(model, (0, 1), job, count=3)):
        made, alone = work(guided), work(run.model())
        assert torch.equal(made.made, alone.made) and made.settings == alone.settings


def test_a_guide_of_a_morph_is_told_both_classes(pair):
    run, other = pair(CLASSES, CLASSES)
    model, chain = run.model(guide=str(other.path)), Chain(sampler="ddim", steps=4, guidance=3.0)
    made = edit.morph(model, Job(chain=chain, num=2), labels=(3, 8), count=3).made.reshape(2, 3, 64)
    for label, column in ((3, 0), (8, 2)):  # the ends are what sampling gives for these labels under this guide
        ((_, images),) = sample_batches(model, Job(num=2, chain=chain, label=label))
        assert (to_uint8(images).reshape(2, 64).int() - made[:, column].int()).abs().max() <= 1


def test_the_commands_of_edits_take_a_guide(pair, image, command, tmp_path, refused):
    run, other = pair()
    ask = ("edit", "vary", run.path, image, "--num", 2, "--guidance", 2, "--guide", f"{other.path}@8")
    assert command(*ask, "--out", tmp_path / "vary.png")[0] == 0
    assert json.loads((tmp_path / "vary.json").read_text())["guide"] == {"step": 8, "run": str(other.path)}
    refused(command("edit", "invert", run.path, image, "--guide", 4), "--guide")


def test_a_guide_that_needs_a_class_is_told_one(pair, image, command, refused):
    hidden = {**CLASSES, "train__condition_dropout": 0.5}
    run, other = pair(hidden, CLASSES)
    ask = ("edit", "vary", run.path, image, "--num", 1, "--guidance", 2, "--guide", other.path)
    refused(command(*ask), "--label ")
    assert command(*ask, "--label", 3)[0] == 0


def test_all_steps_but_the_guide_are_judged_and_others_are_refused_first(run, command, monkeypatch, refused):
    ask = ("evaluate", run.path, "--num", 24, "--seeds", 2, "--steps", 2, "--no-memorisation", "--guidance", 2)
    out = command.done(*ask, "--guide", 8, "--checkpoint", "all")
    assert "step 12" in out and "step 1 " in out and "step 8 " not in out
    monkeypatch.setattr("unstir.metrics.drawn.save_images", lambda *_: pytest.fail("something was drawn"))
    refused(command(*ask, "--guide", 12), "very step")


def test_a_damaged_guide_is_said_and_an_earlier_step_of_it_used(pair, command, tmp_path):
    run, other = pair(CLASSES | {"train__condition_dropout": 0.2}, CLASSES)
    newest = other.newest_step()
    for file in other.path.glob(f"*/*{newest:08}.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    ask = ["sample", run.path, "--num", 1, "--steps", 2, "--guidance", 2, "--out", tmp_path / "made"]
    status, _, err = command(*ask, "--guide", other.path)
    assert status == 0 and "earlier step" in err and f"{newest:08}" in err, err


def test_a_guide_of_the_same_run_is_one_however_its_folder_is_written(trained, tmp_path):
    run, _ = trained(**CLASSES, train__condition_dropout=0.2)
    link = tmp_path / "link"
    link.symlink_to(run.path.absolute())
    assert run.model(guide=f"{link}@8").provenance() == run.model(guide="8").provenance()
    assert run.model(guide=f"{link}@8").guide_name == "8"
