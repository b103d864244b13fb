"""Edits from Python and of stacks: batches, the noise that is drawn, masks, and every call of the network counted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import edited
from conftest import tiny_config
from refusals import refused, refusing
from unstir import edit
from unstir.data import Store, pack
from unstir.diffusion.samplers import Step
from unstir.edit.stack import inpaint_stack, read_masks
from unstir.generate.drawing import Job, sample_batches
from unstir.pixels import to_uint8
from unstir.runs.run import Run
from unstir.train.launch import train_run

once, run = edited.once, edited.run


def test_many_results_come_in_batches(unstir, run):
    model, made = Run.open(run).model(), []
    for batch_size in (64, 2):
        job = Job(num=5, chain=model.chain, batch_size=batch_size)
        made.append(edit.vary(model, Path("a.png"), job, strength=0.6).made.int())
    assert len(made[0]) == 5 and (made[0] - made[1]).abs().max() <= 1


def test_steps_of_a_picture_in_memory_end_in_what_its_file_gives(unstir, run):
    model, path = Run.open(run).model(), Path("a.png")
    job, given = Job(num=2, chain=model.chain.changed(steps=4)), {"box": (0, 0, 4, 4), "resamples": 2}
    steps = edit.inpaint_steps(model, path.read_bytes(), job, **given)
    taken = []
    while len(taken) < 7:
        taken.append(next(steps))
    with pytest.raises(StopIteration) as end:
        next(steps)
    edited = end.value.value
    assert taken[-1].t == 0 and edited.calls == 7
    assert torch.equal(edited.made, edit.inpaint(model, path, job, **given).made)
    assert torch.equal(model.to_units(taken[-1].x), edited.made)


def test_the_noise_of_filling_in_is_named_by_use_time_visit_and_image(unstir, run, monkeypatch):
    kept = []

    def spy(denoise, process, image, mask, x_T, times, noise, **_):
        kept.append(noise)
        yield Step(0, image, image)

    monkeypatch.setattr("unstir.diffusion.editing.inpaint", spy)
    opened = Run.open(run)
    edit.inpaint(opened.model(), Path("a.png"), Job(chain=opened.chain(), num=3), box=(0, 0, 4, 4))
    (noise,) = kept
    drawn = [noise(use, t, visit) for use in ("step", "known", "back") for t in (1, 2, 20) for visit in (0, 1, 9)]
    assert drawn[0].shape == (3, 1, 8, 8) and torch.equal(drawn[0], noise("step", 1, 0))
    assert len({image.numpy().tobytes() for images in drawn for image in images}) == 3 * 27


def test_weights_clamp_and_guidance_are_what_was_asked(unstir, once, run):
    path = Path("a.png")
    for folder, guidances in (
        (run, (1.0,)),
        (once("guided", model__num_classes=10, train__condition_dropout=0.5), (1.0, 3.0)),
    ):
        opened, made = Run.open(folder), set()
        for guidance, clip, ema in [(guidance, *rest) for guidance in guidances for rest in ((0, 1), (1, 1), (0, 0))]:
            chain = replace(opened.chain(), guidance=guidance, clip=bool(clip), steps=5)
            job = Job(chain=chain, num=2, label=0 if len(guidances) > 1 else None)
            done = edit.inpaint(opened.model(ema=bool(ema)), path, job, box=(0, 0, 6, 6), resamples=2)
            made.add(done.made.numpy().tobytes())
        assert len(made) == 3 * len(guidances)


def test_library_calls_count_every_network_call(unstir, run, counts):
    model = Run.open(run).model()
    job = Job(chain=model.chain, num=3, batch_size=2)
    pair, path = (Path("a.png"), Path("b.png")), Path("a.png")
    for work in (
        lambda: edit.inpaint(model, path, job, box=(0, 0, 4, 4), resamples=3),
        lambda: edit.vary(model, path, job, strength=0.3),
        lambda: edit.invert(model, path, job),
        lambda: edit.blend(model, pair, job),
        lambda: edit.blend(model, (0, 1), job),
    ):
        counts.clear()
        result = work()
        assert counts == [("editing", done, len(counts)) for done in range(1, len(counts) + 1)]
        assert result.given.dtype == result.made.dtype == torch.uint8
        assert not result.given.is_inference() and not result.made.is_inference()


def test_calls_are_counted_for_each_class_and_for_guidance(unstir, once, counts):
    known = Run.open(once("classes", model__num_classes=10)).model()
    hidden = Run.open(once("guided", model__num_classes=10, train__condition_dropout=0.5)).model()
    pair, jobs = (Path("a.png"), Path("b.png")), {}
    for scale in (1.0, 3.0):
        jobs[scale] = Job(chain=replace(known.chain, sampler="ddim", steps=2, guidance=scale), num=2, batch_size=3)
    for calls, work in (
        (2, lambda: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 3), count=3)),
        (4, lambda: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 5), count=3)),
        (14, lambda: edit.blend(known, pair, jobs[1.0], labels=(3, 3), count=3)),
        (16, lambda: edit.blend(known, pair, jobs[1.0], labels=(3, 5), count=3)),
        (8, lambda: edit.morph(known, jobs[1.0], labels=(3, 5), count=3)),
        (8, lambda: edit.morph(hidden, jobs[1.0], labels=(3, 5), count=3)),
        (12, lambda: edit.morph(hidden, jobs[3.0], labels=(3, 5), count=3)),
    ):
        counts.clear()
        result = work()
        assert counts == [("editing", done, calls) for done in range(1, calls + 1)] and result.calls == calls


def test_a_blend_is_between_the_images_that_sampling_draws_of_their_classes(once):
    model = Run.open(once("classes", model__num_classes=10)).model()
    job = Job(chain=replace(model.chain, sampler="ddim", steps=2, guidance=1.0), num=5, batch_size=5)
    ((_, drawn),) = sample_batches(model, job)
    ends = edit.blend(model, (4, 1), job, count=2).made
    assert torch.equal(ends, to_uint8(drawn[[4, 1]].cpu()))


@pytest.fixture
def images(digits):
    return Store.open(digits).images("held_out")[:3].clone()


def test_each_image_is_filled_in_where_its_mask_says_and_the_first_as_alone(unstir, run, images):
    model = Run.open(run).model()
    job, keep = Job(chain=model.chain, num=4, batch_size=5), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    for number in range(3):
        keep[number, :, number : number + 3] = False
    filled = inpaint_stack(model, images, keep, job)
    assert filled.made.shape == (3, 4, 1, 8, 8)
    for number in range(3):
        changed = (filled.made[number] != images[number]).any(0)
        assert not (changed & keep[number]).any() and changed.any()
        assert (filled.deviation[number][keep[number]] == 0).all() and filled.deviation[number].max() > 0
    torch.testing.assert_close(filled.mean, filled.made.double().mean(1).float())
    Image.fromarray(images[0, 0].numpy()).save("first.png")
    alone = edit.inpaint(model, Path("first.png"), job, box=(0, 0, 8, 3))
    assert (alone.made.int() - filled.made[0].int()).abs().max() <= 1


def test_a_channel_is_filled_in_alone(unstir, tmp_path, images):
    store = pack("digits", tmp_path / "colour", channels=3)
    config = tiny_config(store.path, data__channels=3, model__in_channels=3, train__length="1 step")
    model = train_run(config, tmp_path / "run").run.model()
    colour = images.expand(-1, 3, -1, -1).contiguous()
    keep = torch.ones(1, 3, 8, 8, dtype=torch.bool)
    keep[:, 1, :4] = False
    filled = inpaint_stack(model, colour, keep, Job(chain=model.chain, num=2))
    assert (filled.made[:, :, [0, 2]] == colour[:, None, [0, 2]]).all()
    assert (filled.made[:, :, 1, 4:] == colour[:, None, 1, 4:]).all() and (filled.deviation[:, 1, :4] > 0).any()


def test_the_command_takes_arrays_and_folders_and_writes_mean_and_deviation(unstir, run, images):
    masks = np.zeros((3, 8, 8), bool)
    masks[:, 4:] = True
    np.save("stack.npy", images.numpy())
    np.save("masks.npy", masks)
    for name, arrays in (("pictures", images[:, 0].numpy()), ("holes", masks * np.uint8(255))):
        Path(name).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(f"{name}/{number}.png")
    asked = "--num", 3, "--spread", "--steps", 5
    status, out, err = unstir("edit", "inpaint", run, "stack.npy", "--mask", "masks.npy", *asked, "--out", "arrays")
    assert status == 0 and "deviation.npy" in out, err
    results, mean, deviation = (np.load(f"arrays/{name}.npy") for name in ("results", "mean", "deviation"))
    assert results.shape == (3, 3, 1, 8, 8) and (results[:, :, :, :4] == images[:, None, :, :4].numpy()).all()
    np.testing.assert_allclose(mean, results.mean(1), rtol=1e-6)
    np.testing.assert_allclose(deviation, results.std(1, ddof=1), rtol=1e-4, atol=1e-4)
    assert json.loads(Path("arrays/mean.npy.json").read_text())["edit"] == "inpaint"
    with Image.open("arrays/deviation.png") as picture:
        assert picture.format == "PNG"
    assert unstir("edit", "inpaint", run, "pictures", "--mask", "holes", *asked, "--out", "files")[0] == 0
    assert (np.load("files/results.npy") == results).all()
    assert unstir("edit", "inpaint", run, "pictures", "--box", 0, 4, 8, 4, *asked)[0] == 0
    assert any(file.suffix == ".npy" for folder in (run / "edits").iterdir() for file in folder.iterdir())
    np.save("masks.npy", masks[:2])
    refused(unstir("edit", "inpaint", run, "stack.npy", "--mask", "masks.npy"), "masks.npy", "[3, 1, 8, 8]")
    refused(unstir("edit", "inpaint", run, "stack.npy", "--mask", "masks.npy", "--singles"), "--singles")
    Path("masks.npy").write_text("no array")
    refused(unstir("edit", "inpaint", run, "stack.npy", "--mask", "masks.npy"), "--mask masks.npy is no array")
    with refusing("images"):
        model = Run.open(run).model()
        inpaint_stack(model, images[:, :, 1:], torch.ones(1, 1, 8, 8) > 0, Job(num=1, chain=model.chain))


def test_masks_in_split_folders_are_those_of_their_images(tmp_path):
    shape = (4, 1, 8, 8)
    for split, column in (("test", 7), ("train", 0)):
        (tmp_path / split).mkdir()
        for number in range(2):
            hole = Image.new("L", (8, 8))
            hole.paste(255, (column, 0, column + 1, 8))
            hole.save(tmp_path / split / f"{number}.png")
    keep = read_masks(tmp_path, None, shape)
    assert (~keep).nonzero()[:, 3].view(4, 8).unique(dim=1).flatten().tolist() == [0, 0, 7, 7]  # train is packed first


def test_masks_called_as_their_images_with_mask_behind_are_theirs(tmp_path):
    for column, name in enumerate(("cell", "cell_2", "cell_10")):
        hole = Image.new("L", (8, 8))
        hole.paste(255, (column, 0, column + 1, 8))
        hole.save(tmp_path / f"{name}_mask.png")
    keep = read_masks(tmp_path, None, (3, 1, 8, 8))
    assert (~keep).nonzero()[:, 3].view(3, 8).unique(dim=1).flatten().tolist() == [0, 1, 2]
