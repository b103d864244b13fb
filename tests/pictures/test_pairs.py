"""Pictures of images beside their nearest, looked at pixel by pixel."""

import numpy as np
import pytest
import torch

from unstir.pictures.grid import GAP, TILE
from unstir.pictures.pairs import HEAD, NOTE, Block, Row, pairs

SPACE = 12


def flat(grey, channels=1, side=8):
    return torch.full((channels, side, side), grey, dtype=torch.uint8)


def block(first=0, rows=2, channels=1, side=8, title="t", group=3):
    made = []
    for j in range(rows):
        greys = [first + 10 * j + i for i in range(1 + 2 * group)]
        tiles = [flat(grey, channels, side) for grey in greys]
        groups = tuple(torch.stack(tiles[1 + g * group : 1 + (g + 1) * group]) for g in range(2))
        made.append(Row(tiles[0], "0.5", groups, (("1.25",) * group, ("2 flip",) * group)))
    return Block(title, ("sample", "by pixels", "by features"), tuple(made))


def pixels(picture):
    return np.asarray(picture.convert("L")).astype(int)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 100)])
def test_every_image_is_in_its_place_with_its_note_below(channels, side):
    picture = pairs([[block(channels=channels, side=side)]])
    scale = max(1, -(-TILE // side))
    tile, step = side * scale, side * scale + GAP
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert picture.size == (GAP + 7 * step + 2 * SPACE, 2 * HEAD + 2 * (step + NOTE))
    grey = pixels(picture)
    lefts = [
        GAP,
        *(GAP + step + SPACE + i * step for i in range(3)),
        *(GAP + 4 * step + 2 * SPACE + i * step for i in range(3)),
    ]
    for j in range(2):
        top = 2 * HEAD + j * (step + NOTE)
        for i, left in enumerate(lefts):
            assert (grey[top : top + tile, left : left + tile] == 10 * j + i).all()
            note = grey[top + tile : top + tile + NOTE, left : left + tile]
            assert (note < 100).any() and (note > 250).any()
    for line in range(2):
        assert (grey[line * HEAD : (line + 1) * HEAD] < 100).any()
    for left in (lefts[0], lefts[1], lefts[4]):  # a heading begins over each group
        assert (grey[HEAD : 2 * HEAD, left : left + 20] < 100).any()


def test_blocks_stand_side_by_side_and_in_lines():
    one, other = block(0), block(100, rows=1)
    alone, small = pairs([[one]]), pairs([[other]])
    picture = pairs([[one, other], [other]])
    assert picture.size == (2 * alone.width + 2 * SPACE, alone.height + SPACE + small.height)
    grey = pixels(picture)
    assert np.array_equal(grey[: alone.height, : alone.width], pixels(alone))
    assert np.array_equal(grey[: small.height, alone.width + 2 * SPACE :], pixels(small))
    assert np.array_equal(grey[alone.height + SPACE :, : small.width], pixels(small))
    assert (grey[small.height : alone.height, alone.width :] == 255).all()


def test_a_title_wider_than_its_images_is_shown_whole():
    title = "a title that is longer than one image with one other"
    wide = pairs([[block(rows=1, group=1, title=title)]])
    assert wide.width > 3 * (TILE + GAP) + 2 * SPACE + GAP
    assert (pixels(wide)[:HEAD, -12:] < 100).any() and (pixels(wide)[:HEAD, -1] == 255).all()
