"""Sources that hang, lie or are not text: refused or listed at once, in one line, and nothing of Python's in it."""

import errno
import io
import os
import re
import signal
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unstir.data import Store, pack, source
from unstir.data.decoding import decode_all
from unstir.data.disk import disk_errors
from unstir.data.listing import Items
from unstir.errors import UserError

PYTHONS_WORDS = re.compile(r"Errno|Error|0x[0-9a-f]{6}|object at|codec|invalid literal|Traceback|\bb'")


def png(value=0):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def mistake(*arguments, **options):
    with pytest.raises(UserError) as caught:
        pack(*arguments, **options)
    assert not PYTHONS_WORDS.search(str(caught.value)) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_hang():
    """A test that hangs fails after two minutes."""

    def too_long(*_):
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sources(tmp_path):
    """A pipe, a socket and a device as files of their own."""
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    yield {"a pipe": tmp_path / "pipe", "a socket": tmp_path / "socket", "a device": tmp_path / "zero"}
    listening.close()


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
def test_source_that_is_no_file_is_refused_at_once(sources, tmp_path, kind):
    assert f": {kind}; give the folder" in mistake(sources[kind], tmp_path / "out")


def test_pipes_sockets_devices_and_looping_links_in_a_folder_are_listed(sources, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "ok.png").write_bytes(png())
    for number, path in enumerate(sources.values()):
        (root / f"{number}.png").symlink_to(path)
    os.mkfifo(root / "pipe.png")
    (root / "around").symlink_to(root)
    (root / "self.png").symlink_to("self.png")
    store = pack(root, tmp_path / "out")
    assert store.refused == (("self.png", "a link that leads to itself"),)
    assert {(note.text, note.count) for note in store.notes} == {
        ("device, pipe or socket ignored", 4),
        ("left out: a link to a folder, which is not followed", 1),
    }


def test_pipe_in_place_of_a_file_of_a_store_is_refused_at_once(tmp_path):
    store = pack("digits", tmp_path / "digits")
    for name in ("train.labels.npy", "manifest.json", "origin.json"):
        (store.path / name).unlink()
        os.mkfifo(store.path / name)
        if name != "origin.json":
            with pytest.raises(UserError, match=f"{name}: is a pipe and no file"):
                Store.open(store.path)


@pytest.mark.parametrize("name", ["a\0b", "", "\0"])
def test_text_that_can_be_no_path_is_one_line(tmp_path, name):
    assert "cannot be a path" in mistake(name, tmp_path / "out")
    assert "cannot be a path" in mistake("digits", name)
    with pytest.raises(UserError, match="cannot be a path"):
        Store.open(name)


NAMES = [b"caf\xe9", b"\xff\xfe", b"\x1b[2Jwipe", b"two\nlines", "Gänse 日本".encode()]


def test_names_that_are_no_utf_8_or_hold_terminal_commands_are_packed_under_names_that_can_be_shown(tmp_path):
    root = os.fsencode(tmp_path / "in")
    for number, name in enumerate(NAMES):
        os.makedirs(os.path.join(root, name))
        for i in range(3):
            Path(os.fsdecode(os.path.join(root, name, b"%d\xe9\x1b.png" % i))).write_bytes(png(9 * number + i))
        Path(os.fsdecode(os.path.join(root, name, b"bad\x07\xe9.png"))).write_bytes(b"")
    store = pack(tmp_path / "in", tmp_path / "out")
    assert set(store.classes) == {r"caf\xe9", r"\xff\xfe", r"\x1b[2Jwipe", r"two\nlines", "Gänse 日本"}
    assert store.count("train") + store.count("held_out") == 3 * len(NAMES)
    text = (store.path / "manifest.json").read_text()
    assert len(store.refused) == len(NAMES) and not re.search(r"\\u00[01]|\\ud[c-f]", text)
    assert (r"caf\xe9/bad\x07\xe9.png", "empty file") in store.refused
    assert r"caf\xe9" in Store.open(store.path).classes


def test_zip_whose_names_are_not_what_they_say_is_refused_and_others_are_packed(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("Ж/1.png", png())
        opened.writestr("\x1b[2J/2.png", png(9))
    assert pack(archive, tmp_path / "out").classes == (r"\x1b[2J", "Ж")
    archive.write_bytes(archive.read_bytes().replace("Ж".encode(), b"\xff\xff"))
    assert "not the UTF-8 that it says it is; make the zip again" in mistake(archive, tmp_path / "out2")


@given(data=st.data())
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_damaged_zip_gives_its_sound_images_or_user_errors_alone(tmp_path, data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as opened:
        for i in range(3):
            opened.writestr(f"{i}.png", png(i))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive = tmp_path / "a.zip"
    archive.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    from unstir.data.images import Refused
    from unstir.data.listing import list_zip

    try:
        listing = list_zip(archive)
        items = Items(archive)
    except UserError as error:
        assert not PYTHONS_WORDS.search(str(error))
        return
    for entry in listing.entries:
        try:
            items.read(entry.path)
        except Refused as refusal:
            assert not PYTHONS_WORDS.search(str(refusal))
    items.close()
    assert not [why for _, why in listing.refused if PYTHONS_WORDS.search(why)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 16.5}, "size=16.5 is no whole number"),
        ({"size": 16.0}, "size=16.0 is no whole number"),
        ({"size": True}, "size=True is no whole number"),
        ({"size": "16"}, "size='16' is no whole number"),
        ({"size": float("nan")}, "size=nan is no whole number"),
        ({"size": 10**8}, r"size=100000000 is outside 1\.\.4096"),
        ({"size": 0}, r"size=0 is outside 1\.\.4096"),
        ({"channels": 2}, "channels=2 is not possible; use 1"),
        ({"sha256": "abc"}, "not 64 hexadecimal digits"),
        ({"size": 10**4000}, r"is outside 1\.\.4096"),
        ({"channels": 3.0}, r"channels=3\.0 is no whole number"),
        ({"seed": 0.5}, r"seed=0\.5 is no whole number"),
        ({"held_out": 5000}, r"held_out=5000 is outside \[0, 1\); use a fraction"),
        ({"held_out": "0.1"}, r"held_out='0\.1' is outside"),
        ({"held_out": True}, "held_out=True is outside"),
        ({"held_out": 1.0}, r"held_out=1.0 is outside"),
    ],
)
def test_number_that_is_not_whole_or_absurd_is_refused_and_not_rounded(tmp_path, options, words):
    assert re.search(words, mistake("digits", tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_whole_numbers_of_numpy_are_taken(tmp_path):
    options = {"size": np.int64(8), "channels": np.uint8(1), "held_out": np.float32(0.25)}
    assert pack("digits", tmp_path / "out", **options).manifest["settings"] == {
        "size": 8, "channels": 1, "held_out": 0.25, "seed": 0,
    }  # fmt: skip


def test_advice_is_written_as_the_caller_types_it(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for side in (8, 9):
        Image.new("RGB", (side, side)).save(root / f"{side}.png")
    for how, words in (
        (source.in_python, "size=9"),
        (source.after_pack, "--size 9"),
        (source.after_train, "--data.size 9"),
    ):
        assert mistake(root, tmp_path / "out", spelling=how).endswith(f"such as {words}")
    assert "--data.store FOLDER" in mistake(root, root / "out", spelling=source.after_train)
    assert "--out FOLDER" in mistake(root, root / "out", spelling=source.after_pack)
    assert mistake("typo", tmp_path / "o", spelling=source.after_train).startswith("--data.source typo is not there")
    said = mistake("typo", tmp_path / "o", spelling=source.after_pack)
    assert said.startswith("typo is not there; use mnist, digits, cifar10, hf:OWNER/NAME, ")
    assert all(f" {kind}" in said for kind in ("folder", "zip", ".npy", ".npz", ".parquet", "tar"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "close other programs"),
        (errno.EIO, "check the disk"),
        (errno.EACCES, "chmod"),
        (errno.EROFS, "name another"),
        (errno.ENOSPC, "free some space and run the same command again"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
    ],
)
def test_remedy_of_each_refusal_of_the_disk_while_writing(tmp_path, number, remedy):
    with pytest.raises(UserError, match=remedy) as caught, disk_errors(tmp_path / "out"):
        raise OSError(number, os.strerror(number), str(tmp_path / "out" / "x"))
    assert not PYTHONS_WORDS.search(str(caught.value))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE])
def test_image_that_the_machine_could_not_read_is_not_left_out_but_ends_the_packing(tmp_path, monkeypatch, number):
    def failing(self, path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Items, "_read_file", failing)
    with pytest.raises(UserError, match=r"1\.png: ") as caught:
        Items(tmp_path).read("1.png")
    assert not PYTHONS_WORDS.search(str(caught.value))


def test_want_of_memory_in_a_worker_ends_the_packing(tmp_path):
    (tmp_path / "unstir_starved").mkdir()
    (tmp_path / "1.png").write_bytes(png())
    (tmp_path / "sitecustomize.py").write_text(
        "from PIL import Image\ndef load(self): raise MemoryError\nImage.Image.load = load\n"
        "from PIL import ImageFile\nImageFile.ImageFile.load = load\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match="not enough memory to decode its images; close other programs"):
            list(decode_all(tmp_path, [("1.png",)], 8, 3, None, 1))
