"""Packing: killed and begun again, twice at once, on a full disk; and data of floating point, with what is missing."""

import errno
import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoding import fill, flat, png, zipped
from PIL import Image

import unstir
from refusals import mistake, refusing
from unstir.data import SPLITS, Store, decoding, pack, packing
from unstir.data.decoding import decode_all
from unstir.data.folder import FolderSource
from unstir.data.packing import remarks
from unstir.errors import UserError
from unstir.progress import shown_by

PROGRAM = """
import sys, time
from contextlib import nullcontext
from unstir.data import pack
from unstir.progress import shown_by
def report(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
with shown_by(lambda job, unit: nullcontext(report)):
    pack(sys.argv[1], sys.argv[2], size=8)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """900 images in two classes, a refusal and an oddity among them."""
    root = tmp_path_factory.mktemp("in") / "photos"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(450):
            Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    (root / "cat/7.png").write_bytes(b"")
    Image.new("L", (8, 8)).save(root / "cat/8.png", "JPEG")
    return root


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """The store an uninterrupted pack makes."""
    return pack(photos, tmp_path_factory.mktemp("whole") / "store", size=8).path


def test_each_image_keeps_its_label(tmp_path):
    for image in range(60):
        folder = tmp_path / "in" / f"{image % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{image}.png").write_bytes(flat(100 * (image % 3)))
    store = pack(tmp_path / "in", tmp_path / "out")
    for split in SPLITS:
        labels = store.labels(split)
        assert len(labels) > 3 and torch.equal(store.images(split)[:, 0, 0, 0], (100 * labels).to(torch.uint8))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(source, out, pause):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(source), str(out), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def killed(source, out, after, pause=0.05):
    """Pack until `after` chunks are reported, then SIGKILL."""
    with start(source, out, pause) as process:
        assert process.stdout
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_pack_begins_again_and_its_bytes_are_those_of_an_uninterrupted_one(photos, whole, tmp_path, counts):
    out = tmp_path / "store"
    for after in (0, 2):
        killed(photos, out, after)
        assert not out.exists()
    assert (tmp_path / ".store.packing/store").exists()
    (tmp_path / ".store.packing/rest").mkdir()
    pack(photos, out, size=8)
    assert counts[0][1] <= 256 and counts[-1] == ("packing", 900, 900)
    assert contents(out) == contents(whole)
    assert list(tmp_path.iterdir()) == [out]


def test_every_state_a_kill_can_leave_is_recovered_from(tmp_path, monkeypatch):
    """SIGKILL at the n-th sync, for every n."""
    whole, out, limit, status = contents(pack("digits", tmp_path / "whole").path), tmp_path / "store", 0, -1
    real = os.fsync

    def sync(file):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        real(file)

    monkeypatch.setattr(os, "fsync", sync)
    while status:
        assert not out.exists() or contents(out) == whole
        calls = iter(range(limit))
        if (child := os.fork()) == 0:
            pack("digits", out)
            os._exit(0)
        status, limit = os.waitpid(child, 0)[1], limit + 1
    assert contents(out) == whole and limit > 5


def test_source_that_changes_while_it_is_packed_is_an_error(photos, tmp_path):
    source, out = tmp_path / "photos", tmp_path / "store"
    shutil.copytree(photos, source)
    changing = nullcontext(lambda done, total: (source / "cat/1.png").unlink(missing_ok=True))
    with pytest.raises(UserError, match=str(source)), shown_by(lambda job, unit: changing):
        pack(source, out, size=8)
    assert pack(source, out, size=8).manifest["counts"] == {"train": 808, "held_out": 90}


@pytest.mark.parametrize("there", [True, False])
def test_a_link_leads_to_where_the_store_is_made(photos, tmp_path, there):
    disk, link = tmp_path / "disk", tmp_path / "here" / "store"
    (disk / "store").mkdir(parents=True) if there else disk.mkdir()
    link.parent.mkdir()
    link.symlink_to(disk / "store")
    made = pack(photos, link, size=8)
    assert link.is_symlink() and made.path == disk / "store" and [path.name for path in disk.iterdir()] == ["store"]
    assert [path.name for path in link.parent.iterdir()] == ["store"]
    assert pack(photos, link, size=8).manifest == made.manifest


def test_a_source_and_a_place_that_are_links_to_themselves_are_errors(photos, tmp_path):
    (loop := tmp_path / "loop").symlink_to(loop)
    with pytest.raises(OSError) as refused:
        pack(photos, loop, size=8)
    assert refused.value.filename and [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_finished_store_is_opened_at_once(photos, whole, monkeypatch):
    monkeypatch.setattr(packing, "staging_folder", None)  # would be called
    monkeypatch.setattr(FolderSource, "source_hash", None)
    assert pack(photos, whole, size=8).path == whole


def test_touched_or_copied_source_is_still_the_same(photos, whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy, copy_function=shutil.copy)
    assert pack(copy, whole, size=8).path == whole


def test_store_of_something_else_is_not_overwritten(photos, whole, tmp_path):
    for settings, kept in ({"size": 16}, {"size": 8}), ({"size": 4, "held_out": 0.2}, {"size": 8, "held_out": 0.1}):
        refused = mistake(pack, photos, whole, **settings)  # type: ignore[arg-type]
        assert refused.given == whole and kept in refused.remedy
    with pytest.raises(UserError, match=r"\bfolder\b.*\bdigits\b"):
        pack("digits", whole)
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    (other / "dog/3.png").write_bytes((other / "dog/4.png").read_bytes())
    assert str(other) in str(mistake(pack, other, whole, size=8))


def test_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    pack("digits", tmp_path / "out")  # empty: fine
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        assert str(tmp_path / name) in str(mistake(pack, "digits", tmp_path / name))
    assert (tmp_path / "mine/thesis.txt").exists()


def test_two_packers_of_one_store(photos, tmp_path):
    out = tmp_path / "store"
    with start(photos, out, 0.3) as process:
        assert process.stdout
        process.stdout.readline()
        assert str(out) in str(mistake(pack, photos, out, size=8))
        process.kill()
    assert pack(photos, out, size=8).count("train") == 809


def test_killed_worker_is_an_error_and_not_a_hang(photos):
    paths = [tuple(f"cat/{i}.png" for i in range(20))] * 40
    replies = decode_all(photos, paths, {"size": (8, 8), "channels": 3, "is_float": False}, None, 2)
    next(replies)
    mine = f"{os.getpid()}"
    children = Path(f"/proc/{mine}/task/{mine}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    begun = time.monotonic()
    for pid in children.read_text().split():
        if b"unstir.data.decoding" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
    assert "-9" in str(mistake(list, replies))
    assert time.monotonic() - begun < 10


def test_full_disk_is_told_before_anything_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"24\d,\d\d\d bytes, 1,000"):
        pack(photos, tmp_path / "store", size=8)


def test_disk_that_fills_up_meanwhile_leaves_nothing(photos, whole, tmp_path):
    import resource

    out = tmp_path / "store"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as failed:
            pack(photos, out, size=8)
        assert failed.value.errno == errno.EFBIG and str(tmp_path) in failed.value.filename
        assert not any(tmp_path.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    pack(photos, out, size=8)
    assert contents(out) == contents(whole)


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        pack("digits", tmp_path / "file/store")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(PermissionError):
            pack("digits", tmp_path / "closed/store")


@pytest.mark.parametrize("kind", ["npy", "zip"])
def test_a_file_of_another_hash_is_refused_also_where_it_is_packed_already(tmp_path, kind):
    file = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(file, np.zeros((4, 5, 5, 3), np.uint8))
    else:
        zipped(file, {"a.png": flat()})
    own, other = hashlib.sha256(file.read_bytes()).hexdigest(), "0" * 64
    assert own in str(mistake(pack, file, tmp_path / "store", sha256=other))
    assert not (tmp_path / "store").exists()
    store = pack(file, tmp_path / "store", sha256=own.upper())
    assert pack(file, tmp_path / "store", sha256=own).content_hash == store.content_hash
    assert own in str(mistake(pack, file, tmp_path / "store", sha256=other))


def test_a_hash_of_what_is_no_file_is_refused(photos, tmp_path):
    for source in ("digits", "hf:me/animals", photos, [1]):
        assert mistake(pack, source, tmp_path / "store", sha256="0" * 64).remedy == {"sha256": None}


def test_the_least_size_is_one_pixel(tmp_path):
    store = pack("digits", tmp_path / "store", size=1)
    assert store.shape == (1, 1, 1) and store.images("train").float().std() > 1


def test_source_that_is_nothing_of_use(tmp_path, whole):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    for source, remedy in ((tmp_path / "a.png", "folder"), ("typo", "mnist"), ("digts", "digits?"), (whole, "it is")):
        refused = mistake(pack, source, tmp_path / "store")
        assert (refused.key, refused.given) == ("source", Path(source)) and remedy in refused.remedy


def test_strict_lists_the_first_ten(tmp_path):
    root = fill(tmp_path / "in", {"ok.png": flat(), **{f"{i}.png": b"" for i in range(12)}})
    with pytest.raises(UserError, match=r"\(12\)") as refused:
        pack(root, tmp_path / "store", strict=True)
    assert str(refused.value).count("empty file") == 10 and {"strict": None} in refused.value.remedy
    assert not (tmp_path / "store").exists()


def images(folder, odd):
    """Seven images in a folder, and an eighth, the last, that is of another shape, empty, or like the others."""
    last = {"shape": flat(size=9), "empty": b""}.get(odd, flat(size=8))
    return fill(folder, {**{f"{place}.png": flat(size=8) for place in range(7)}, "7.png": last})


def items(folder, odd):
    """The same as the items of a data set."""
    return [(np.asarray(Image.open(file)), "one") for file in sorted(images(folder, odd).iterdir())]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("unstir.data.source._CHUNK_ROWS", 2)


@pytest.mark.parametrize(
    ("make", "odd", "strict", "place"),
    [(images, "shape", False, "'7.png'"), (items, "shape", False, "[7]"), (images, "empty", True, "7.png")],
)
def test_a_refusal_of_the_images_leaves_nothing(small_chunks, tmp_path, make, odd, strict, place):
    given = make(tmp_path / "in", odd)
    with pytest.raises(UserError, match=re.escape(place)):
        pack(given, tmp_path / "store", held_out=0, strict=strict)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("error", [UserError("a packing worker ended"), OSError(28, "full"), KeyboardInterrupt()])
def test_what_fails_or_is_interrupted_leaves_nothing(small_chunks, tmp_path, monkeypatch, error):
    class Writer(packing.Writer):
        def write(self, chunk):
            if self.done == 4:
                raise error
            super().write(chunk)

    monkeypatch.setattr(packing, "Writer", Writer)
    with pytest.raises(type(error)):
        pack(images(tmp_path / "in", ""), tmp_path / "store", held_out=0)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


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


@pytest.mark.parametrize("more", [{}, {"mask": np.zeros((20, 6, 10))}])
def test_levels_that_float32_loses_are_counted_where_it_loses_some(tmp_path, more):
    values, counts = np.nan_to_num(field().astype(np.float64)), np.arange(6000).reshape(20, 5, 6, 10)
    for number, (offset, lost) in enumerate(
        [(values, False), (values + 1e9, True), (counts, False), (counts + 10**9, True)]
    ):
        store = pack({"images": offset, **more}, tmp_path / str(number), depth="float")
        assert any("rounded to float32" in line for line in remarks(store)) == lost


def test_images_of_many_channels_may_be_of_eight_bits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 7, 8, 8), dtype=np.uint8)
    store = pack(images, tmp_path / "store")
    assert store.shape == pack(images, tmp_path / "asked", channels=7).shape == (7, 8, 8)
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
    deep = [Image.fromarray((1000 * abs(page)).astype(np.uint16)) for page in pages]
    deep[0].save(tmp_path / "deep.tif", save_all=True, append_images=deep[1:])
    scaled, kept = (
        pack(tmp_path / "deep.tif", tmp_path / depth, depth=depth, channels=1) for depth in ("auto", "float")
    )
    np.testing.assert_array_equal(rows_of(scaled), ((rows_of(kept) + 128) // 257).astype(np.uint8))
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
    of_one = pack({"images": values, "mask": mask[..., None]}, tmp_path / "one").images("train")
    assert torch.equal(of_one.isnan(), packed.isnan())
    assert "fits no images" in str(mistake(pack, {"images": values, "mask": mask[0]}, tmp_path / "for-all"))
    assert packed[:, :, 0].isnan().all() and not packed[:, :, 1:].isnan().any()
    of_train = {"x_train": values, "conditions_train": np.ones((len(values), 2)), "x_test": values}
    assert "some splits" in str(mistake(pack, of_train, tmp_path / "split"))


def found():
    with decoding.start("import here, unstir; print(here.__file__, unstir.__file__, sep='\\n')") as process:
        return process.communicate()[0].decode().splitlines()


def test_a_child_finds_what_this_process_finds_first(tmp_path, monkeypatch):
    package = Path(unstir.__file__).parents[1]
    for name in ("first", "current"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.py").write_text("")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "first"), *sys.path])
    assert found() == [str(tmp_path / "first/here.py"), str(package / "unstir/__init__.py")]
    (tmp_path / "other/unstir").mkdir(parents=True)  # another version, and this one was found in the current folder
    (tmp_path / "other/unstir/__init__.py").write_text("")
    rest = [path for path in sys.path[1:] if Path(path) != package]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "other"), *rest])
    assert found()[1] == str(package / "unstir/__init__.py")


def test_a_folder_of_images_next_to_one_of_their_masks_is_no_two_classes(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (4, 4), number).save(tmp_path / "in" / folder / f"{number}.png")
    refused = mistake(pack, tmp_path / "in", tmp_path / "store", channels=1)
    assert "images and masks" in str(refused) and not (tmp_path / "store").exists()
    assert pack(tmp_path / "in/images", tmp_path / "store", channels=1).classes == ()
    (tmp_path / "in/masks").rename(tmp_path / "in/ships")
    assert pack(tmp_path / "in", tmp_path / "other", channels=1).classes == ("images", "ships")


@pytest.mark.parametrize("fill", [-9999, 1e20, -32768])
def test_a_value_that_stands_for_missing_ones_is_not_taken_for_the_range(tmp_path, fill):
    images = np.random.default_rng(0).normal(size=(24, 2, 8, 8)).astype(np.float32)
    images[::5, 1, :2] = fill
    refused = mistake(pack, images, tmp_path / "store")
    assert f"{fill:.6g}" in str(refused) and "channel 1" in str(refused) and "NaN" in str(refused)
    assert not (tmp_path / "store").exists()
    once = np.where(np.arange(images.size).reshape(images.shape) == 9, np.float32(fill), 0.5 * (images > 0))
    assert pack(once, tmp_path / "once").scale.is_float
    assert pack(images, tmp_path / "given", scale=(-3, 3)).scale.low == (-3, -3)
    images[images == np.float32(fill)] = np.nan
    assert max(pack(images, tmp_path / "missing").scale.high) < 5


def test_16_bits_that_are_cut_to_8_are_said_with_the_remedy(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 65535, (12, 4, 4)).astype(np.uint16)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"in/{number}.png")
    (note,) = pack(tmp_path / "in", tmp_path / "store", channels=1).notes
    assert (note.count, "depth=float" in note.text) == (12, True)
    whole = pack(tmp_path / "in", tmp_path / "float", channels=1, depth="float", held_out=0)
    assert set(whole.images("train").flatten().tolist()) == set(pixels.flatten().tolist())
