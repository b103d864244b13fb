"""Data of floating point: packed as float32 with what is missing, a scale a channel, pages of TIFF files, any sides."""

import struct
import zlib

import numpy as np
import pytest
import torch
from encoding import png
from PIL import Image

from refusals import mistake, refusing
from unstir.data import Store, pack
from unstir.data.packing import remarks
from unstir.errors import UserError


def field(num=20, channels=5, height=6, width=10, seed=0):
    """Values of channels in other units, a tenth of them missing: float32 [num, channels, height, width]."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num, channels, height, width)) * 10.0 ** np.arange(channels)[:, None, None] + 3
    return np.where(rng.random(values.shape) < 0.1, np.nan, values).astype(np.float32)


def rows_of(store):
    """All images of a store, in an order that does not depend on the split."""
    images = torch.cat([store.images("train"), store.images("held_out")]).numpy()
    return images[np.argsort(np.nan_to_num(images).reshape(len(images), -1).sum(1))]


def in_order(values):
    return values[np.argsort(np.nan_to_num(values).reshape(len(values), -1).sum(1))]


def test_floats_come_back_as_they_were_with_a_scale_of_the_training_range(tmp_path):
    values = field()
    np.save(tmp_path / "x.npy", values)
    store = pack(tmp_path / "x.npy", tmp_path / "store")
    assert store.shape == (5, 6, 10) and store.scale.is_float
    np.testing.assert_array_equal(rows_of(store), in_order(values))
    train = store.images("train")
    scaled = store.scale.to_model(train)
    present = ~train.isnan()
    assert torch.equal(scaled.isnan(), ~present)
    for channel in range(5):
        of_channel = scaled[:, channel][present[:, channel]]
        assert of_channel.min() == pytest.approx(-1, abs=1e-5) and of_channel.max() == pytest.approx(1, abs=1e-5)
        there = store.scale.to_units(scaled)[:, channel][present[:, channel]] - train[:, channel][present[:, channel]]
        assert there.abs().max() < 1e-6 * (store.scale.high[channel] - store.scale.low[channel])
    assert Store.open(tmp_path / "store").scale == store.scale
    assert any("are missing" in line for line in remarks(store))


def test_the_scale_is_part_of_the_content_and_may_be_given(tmp_path):
    values = field(channels=2)
    given = pack(values, tmp_path / "given", scale=(-10, 10, -100, 100))
    assert (given.scale.low, given.scale.high) == ((-10, -100), (10, 100))
    for_all = pack(values, tmp_path / "all", scale=(-50, 50))
    assert (for_all.scale.low, for_all.scale.high) == ((-50, -50), (50, 50))
    assert given.content_hash != for_all.content_hash
    for scale in ((1, 0), (0, 1, 0, 1, 0, 1), (0, np.inf)):
        assert "scale" in str(mistake(pack, values, tmp_path / "wrong", scale=scale))
    assert mistake(pack, (values > 0).astype(np.uint8), tmp_path / "wrong", scale=(0, 1)).remedy == {"depth": "float"}


def test_what_a_mask_marks_is_missing(tmp_path):
    values, mask = np.nan_to_num(field(channels=3)), np.zeros((20, 6, 10), bool)
    mask[:, 2:4, 5] = True
    np.savez(tmp_path / "x.npz", images=values, mask=mask)
    of_file = pack(tmp_path / "x.npz", tmp_path / "store")
    assert (torch.cat([of_file.images(s) for s in ("train", "held_out")]).isnan().numpy() == mask[:1, None]).all()
    masked = np.ma.MaskedArray(values, np.broadcast_to(mask[:, None], values.shape))
    np.testing.assert_array_equal(rows_of(pack(masked, tmp_path / "masked")), rows_of(of_file))


def test_eight_bits_stay_eight_bits(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    as_bytes = pack(levels, tmp_path / "bytes")
    as_floats = pack((levels / 255).astype(np.float32), tmp_path / "floats")
    assert not as_floats.scale.is_float and as_floats.content_hash == as_bytes.content_hash
    rounded = pack(np.random.default_rng(0).random((10, 8, 8), np.float32), tmp_path / "rounded", depth="8")
    assert rounded.images("train").dtype == torch.uint8
    assert any("levels left" in line for line in remarks(rounded))


def test_images_of_many_channels_may_be_of_eight_bits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 7, 8, 8), dtype=np.uint8)
    store = pack(images, tmp_path / "store")
    assert store.shape == (7, 8, 8)
    np.testing.assert_array_equal(rows_of(store), in_order(images))
    assert mistake(pack, images, tmp_path / "three", channels=3).remedy == {"channels": 7}


@pytest.mark.parametrize("wrong", ["infinite", "missing"])
def test_images_without_a_usable_value_are_refused(tmp_path, wrong):
    values = field()
    values[3] = np.nan if wrong == "missing" else values[3]
    values[3, 0, 0, 0] = np.nan if wrong == "missing" else np.inf
    store = pack(values, tmp_path / "store")
    assert [path for path, _ in store.refused] == ["images[3]"] and wrong in store.refused[0][1]


def test_files_of_16_bits_keep_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (4, 9, 12), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(values):
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
    store = pack(tmp_path / "images", tmp_path / "store", depth="float")
    assert store.shape == (1, 9, 12)
    np.testing.assert_array_equal(rows_of(store)[:, 0], in_order(values))


@pytest.mark.parametrize(("channels", "colour"), [(3, 2), (4, 6), (2, 4)])
def test_colour_files_of_16_bits_keep_them(tmp_path, channels, colour):
    values = np.random.default_rng(0).integers(0, 1 << 16, (9, 12, channels), dtype=np.uint16)
    lines = values.astype(">u2").view(np.uint8).reshape(9, -1)
    left = np.pad(lines, ((0, 0), (2 * channels, 0)))[:, : -2 * channels]
    data = b"".join(b"\1" + line.tobytes() for line in lines - left)  # each byte less that of the pixel to its left
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(png(12, 9, (b"IDAT", zlib.compress(data)), bits=16, colour=colour))
    if channels == 2:
        assert mistake(pack, tmp_path / "in", tmp_path / "store", depth="float").given == str(tmp_path / "in")
        return
    store = pack(tmp_path / "in", tmp_path / "store", depth="float")
    np.testing.assert_array_equal(store.images("train")[0].numpy(), values.transpose(2, 0, 1))


def colour_tiff(values):
    """A TIFF file of colours, uint16 [H, W, 3]."""
    height, width, channels = values.shape
    tags = {256: width, 257: height, 258: 122, 259: 1, 262: 2, 273: 128, 277: channels, 278: height}
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items())
    entries += struct.pack("<HHII", 279, 4, 1, values.nbytes)
    head = b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4)
    return head + struct.pack("<3H", 16, 16, 16) + values.astype("<u2").tobytes()


def test_colour_tiff_files_of_16_bits_are_refused_where_they_would_lose_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (9, 12, 3), dtype=np.uint16)
    (tmp_path / "in").mkdir()
    file = tmp_path / "in/a.tif"
    file.write_bytes(colour_tiff(values))
    for source in (file, file.parent):
        with refusing(given=source if source == file else str(source)):
            pack(source, tmp_path / "float", depth="float")
        eight = pack(source, tmp_path / f"8-{source.name}").images("train")
        np.testing.assert_array_equal(eight[0].numpy(), values.transpose(2, 0, 1) >> 8)


@pytest.mark.parametrize("more", [{}, {"mask": np.zeros((20, 6, 10))}])
def test_values_beyond_float32_are_refused_without_a_warning(tmp_path, more):
    values = np.nan_to_num(field()).astype(np.float64)
    values[3] = 1.7e308
    store = pack({"images": values, **more}, tmp_path / "store")
    assert [path for path, _ in store.refused] == ["images[3]"]
    with refusing(given="the arrays"):
        pack({"images": values[:3], "conditions": values[1:4, 0, 0]}, tmp_path / "conditions")


def test_pages_of_a_tiff_are_images_or_in_a_folder_channels(tmp_path):
    pages = np.random.default_rng(0).normal(size=(5, 8, 12)).astype(np.float32)
    first, *others = [Image.fromarray(page) for page in pages]
    (tmp_path / "folder").mkdir()
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    for number in range(3):
        first.save(tmp_path / f"folder/{number}.tif", save_all=True, append_images=others)
    of_pages = pack(tmp_path / "stack.tif", tmp_path / "pages")
    assert of_pages.shape == (1, 8, 12)
    np.testing.assert_array_equal(rows_of(of_pages)[:, 0], in_order(pages))
    of_channels = pack(tmp_path / "folder", tmp_path / "channels", depth="float")
    np.testing.assert_array_equal(rows_of(of_channels)[0], pages)


def test_oblong_images_are_cropped_at_the_centre(tmp_path):
    ramp = np.broadcast_to(np.arange(60, dtype=np.float32)[None, :] / 59, (40, 60))
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray((255 * ramp).astype(np.uint8)).save(tmp_path / f"images/{number}.png")
    files = pack(tmp_path / "images", tmp_path / "store", size="20x20", channels=1)
    oblong = pack(tmp_path / "images", tmp_path / "oblong", size="10x40", channels=1)
    assert files.shape == (1, 20, 20) and oblong.shape == (1, 10, 40)
    widths = [store.images("train")[0, 0, 0].float() for store in (files, oblong)]
    assert widths[0][0] == pytest.approx(255 * 10.5 / 59, abs=2)  # a third of the width is cut away
    assert widths[1][0] < 4 and widths[1][-1] > 250  # nothing of the width is
    floats = pack(np.stack([ramp, 3 * ramp]), tmp_path / "floats", size=(20, 30), held_out=0)
    assert floats.shape == (1, 20, 30)
    torch.testing.assert_close(floats.images("train")[1], 3 * floats.images("train")[0])
    with pytest.raises(UserError):
        pack(tmp_path / "images", tmp_path / "other", size="20x")


def test_a_mask_of_channels_last_counts_and_conditions_of_some_splits_are_refused(tmp_path):
    values = np.moveaxis(np.nan_to_num(field(channels=3)), 1, -1)
    mask = np.zeros(values.shape[:3], bool)
    mask[:, 0] = True
    packed = pack({"images": values, "mask": mask}, tmp_path / "last").images("train")
    assert packed[:, :, 0].isnan().all() and not packed[:, :, 1:].isnan().any()
    of_train = {"x_train": values, "conditions_train": np.ones((len(values), 2)), "x_test": values}
    assert "some splits" in str(mistake(pack, of_train, tmp_path / "split"))
