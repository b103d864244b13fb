"""The names of classes on a grid: above the images, which stay what they are pixel for pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unstir.generate.drawing import Job
from unstir.generate.folder import drawn_classes, save_images
from unstir.pictures.grid import GAP, LINE, grid, named_grid


def images(num, channels=1):
    return torch.randint(0, 200, (num, channels, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


def without_names(sheet, num, nrow, strips):
    """The sheet with the strips above the rows numbered ``strips`` cut out."""
    pixels, row = np.asarray(sheet), 48 + GAP
    tops = [LINE * (1 + i) + strip * row for i, strip in enumerate(sorted(strips))]
    keep = np.ones(len(pixels), dtype=bool)
    for top in tops:
        keep[top - LINE : top] = False
    return pixels[keep]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("num", "nrow", "classes", "strips"),
    [(20, 10, 10, {0}), (16, 8, 10, {0, 1}), (13, 5, 5, {0}), (7, 4, 3, {0, 1}), (3, 8, 3, {0}), (1, 1, 1, {0})],
)
def test_names_stand_where_they_change_and_move_no_pixel_of_an_image(channels, num, nrow, classes, strips):
    made = images(num, channels)
    sheet = named_grid(made, nrow, [f"c{i % classes}" for i in range(num)])
    plain = np.asarray(grid(made, nrow))
    assert sheet.height == len(plain) + LINE * len(strips) and sheet.width == plain.shape[1]
    assert np.array_equal(without_names(sheet, num, nrow, strips), plain)
    assert (np.asarray(sheet)[:LINE] < 128).any()  # something is written
    assert np.array_equal(np.asarray(named_grid(made, nrow, None)), plain)


def test_grids_of_a_run_with_classes_have_their_names(trained, tmp_path):
    changes = {"grids__num": 20, "grids__nrow": 10, "train__length": "2 steps"}
    run, _ = trained("classes", model__num_classes=10, **changes)
    plain, _ = trained("plain", **changes)
    names = sorted(path.name for path in run.samples.iterdir())
    assert names == sorted(path.name for path in plain.samples.iterdir())
    sizes = {}
    for each in (run, plain):
        from PIL import Image

        for name in names:
            with Image.open(each.samples / name) as picture:
                sizes[each.path.name, name] = picture.size
    assert all(sizes["plain", name] == sizes["plain", "noise.png"] == (502, 102) for name in names)
    assert all(sizes["classes", name] == (502, 102 if name == "noise.png" else 102 + LINE) for name in names)
    job = Job(num=20, chain=run.chain(), batch_size=20)
    assert len(drawn_classes(run.model(), job, 8)) == 8 and drawn_classes(plain.model(), job, 8) == []
    assert drawn_classes(run.model(), replace(job, label=3), 8) == ["3"]
    save_images(run.model(), job, tmp_path / "made")
    with Image.open(tmp_path / "made/grid.png") as picture, Image.open(run.samples / names[1]) as in_training:
        assert picture.tobytes() == in_training.tobytes()
    assert run.labels.captions(run.labels.of(torch.arange(3))) == ["0", "1", "2"]
    other = replace(run, data=replace(run.data, classes=("Wald", "日本", *run.data.classes[2:])))
    assert other.labels.captions(torch.arange(3)) == ["Wald", "1: 日本", "2"]
