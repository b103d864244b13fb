"""Filling in a stack: each image as alone, a mask for each image and channel, and the spread of the results."""

import json
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
from unstir.edit.stack import read_masks
from unstir.generate.drawing import Job
from unstir.runs.run import Run
from unstir.train.launch import train_run

once, run = edited.once, edited.run


@pytest.fixture
def images(digits):
    return Store.open(digits).images("held_out")[:3].clone()


def test_each_image_is_filled_in_where_its_mask_says_and_the_first_as_alone(unstir, run, images):
    model = Run.open(run).model()
    job, keep = Job(chain=model.chain, num=4, batch_size=5), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    for number in range(3):
        keep[number, :, number : number + 3] = False
    filled = edit.inpaint_stack(model, images, keep, job)
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
    filled = edit.inpaint_stack(model, colour, keep, Job(chain=model.chain, num=2))
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
    refused(unstir("edit", "inpaint", run, "stack.npy", "--mask", "masks.npy"), "--mask masks.npy is no NumPy array")
    with refusing("images"):
        model = Run.open(run).model()
        edit.inpaint_stack(model, images[:, :, 1:], torch.ones(1, 1, 8, 8) > 0, Job(num=1, chain=model.chain))


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
