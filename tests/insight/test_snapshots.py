"""The corners of a run's grids on its page: whole images, of whatever number each grid was drawn; none is damaged."""

from dataclasses import replace

import pytest
import torch

from refusals import mistake
from unstir.insight import pictures
from unstir.pictures.grid import LINE, named_grid, to_picture
from unstir.runs.files import save_png
from unstir.runs.timetable import START, grid_file, snapshots

NUMS = (64, 3, 9, 1)
"""Of the noise and of the grids, first to last; the present one is the last."""


@pytest.mark.parametrize(("classes", "nrow", "lines"), [(0, 8, 0), (10, 8, 3), (10, 10, 1), (0, 2, 0), (10, 1, 3)])
def test_corners_are_whole_images_where_grids_num_changed(make_run, monkeypatch, classes, nrow, lines):
    run, _ = make_run(model__num_classes=classes, grids__nrow=nrow)
    run = replace(run, config=replace(run.config, grids=replace(run.config.grids, num=NUMS[-1])))
    monkeypatch.setattr(pictures, "encode", lambda image, shows: image)
    images = torch.randint(0, 200, (max(NUMS), *run.data.shape), generator=torch.Generator().manual_seed(0)).byte()
    files = [run.samples / "noise.png", *(grid_file(run, name) for name in snapshots(run).values())]
    assert len(files) == len(NUMS)
    run.samples.mkdir()
    expected = []
    for num, path in zip(NUMS, files, strict=True):
        names = run.labels.captions(run.labels.of(torch.arange(num))) if path is not files[0] else []
        save_png(path, named_grid(images[:num], nrow, names or None), run=run.data.run)
        columns, rows = min(num, nrow, 3), min(-(-num // nrow), 3)
        strips = min(lines, rows) if names else 0
        expected.append((50 * columns + 2, 50 * rows + 2 + LINE * strips))
    found = pictures.snapshots(run)
    corners = [picture for _, picture in found]
    assert [corner.size for corner in corners] == expected
    assert corners[0].tobytes() == named_grid(images[:64], nrow, None).crop((0, 0, *expected[0])).tobytes()


@pytest.mark.parametrize(("init", "first"), [("", "untrained"), ("runs/a@3", "initial weights")])
def test_a_run_that_began_with_weights_is_not_called_untrained(make_run, init, first):
    run, _ = make_run()
    run = replace(run, config=replace(run.config, train=replace(run.config.train, init=init)))
    run.samples.mkdir()
    picture = named_grid(torch.zeros((4, *run.data.shape), dtype=torch.uint8), 2, None)
    save_png(grid_file(run, START), picture, run=run.data.run)
    ((when, _),) = pictures.snapshots(run)
    assert when == first and "weights that" in pictures.newest_grid(run).shows


def test_grids_of_before_a_run_was_lengthened_are_shown_too(make_run, monkeypatch):
    monkeypatch.setattr(pictures, "encode", lambda image, shows: image)
    run, _ = make_run(train__length="20 steps", grids__log_spaced=2)
    run.samples.mkdir()
    images = torch.zeros((4, *run.data.shape), dtype=torch.uint8)
    drawn = {**snapshots(run), 8: "images-00000064", 11: "images-00000088"}  # those of 8 and of 11 steps, by 8 images
    for name in drawn.values():
        save_png(grid_file(run, name), named_grid(images, 2, None), run=run.data.run)
    seen = [0, *sorted(8 * step for step in drawn if step)]
    assert [when for when, _ in pictures.snapshots(run)] == ["untrained", *(f"{each:,} images" for each in seen[1:])]
    assert len(seen) == len(snapshots(run)) + 2


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_damaged_picture_is_named(tmp_path, kind):
    path = tmp_path / f"images.{kind}"
    to_picture(torch.randint(0, 255, (3, 40, 40), generator=torch.Generator().manual_seed(0)).byte()).save(path)
    content = path.read_bytes()
    assert pictures.from_file(path, "samples").width == 40
    spoilt = [content[: len(content) // 2], b""]
    if kind == "png":  # which has checksums
        spoilt += [content[:200] + bytes(500) + content[700:]]
        spoilt += [content[:900] + bytes([content[900] ^ 1]) + content[901:]]
    for each in spoilt:
        path.write_bytes(each)
        assert f"images.{kind} is" in str(mistake(pictures.from_file, path, "samples"))
