"""Sources that hang, lie or are not text: refused or listed at once, in one line, and nothing of Python's in it."""

import errno
import io
import os
import re
import signal
import socket
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from encoding import flat, options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unstir.data import Store, listing, pack
from unstir.data.decoding import decode_all
from unstir.data.images import Refused
from unstir.data.listing import Items, list_zip
from unstir.data.packing import origin_of
from unstir.errors import UserError
from unstir.progress import MAX_SIDE

PYTHONS_WORDS = re.compile(r"Errno|Error|0x[0-9a-f]{6}|object at|codec|invalid literal|Traceback|\bb'")


def mistake(*arguments, **options):
    with pytest.raises(UserError) as caught:
        pack(*arguments, **options)
    assert not PYTHONS_WORDS.search(str(caught.value)) and "\n" not in str(caught.value)
    return caught.value


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
    refused = mistake(sources[kind], tmp_path / "out")
    assert (refused.key, refused.given) == ("source", sources[kind])


@pytest.mark.parametrize("sha256", [None, "0" * 64])
def test_file_without_length_is_not_read_as_those_of_the_kernel_let_a_reader_wait(tmp_path, monkeypatch, sha256):
    (kmsg := tmp_path / "kmsg").touch()
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("waits"))
    assert mistake(kmsg, tmp_path / "out", sha256=sha256).given == kmsg


def test_pipes_sockets_devices_and_looping_links_in_a_folder_are_listed(sources, tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "ok.png").write_bytes(flat())
    for number, path in enumerate(sources.values()):
        (root / f"{number}.png").symlink_to(path)
    os.mkfifo(root / "pipe.png")
    (root / "around").symlink_to(root)
    (root / "self.png").symlink_to("self.png")
    store = pack(root, tmp_path / "out")
    assert [path for path, _ in store.refused] == ["self.png"]
    assert {note.text.split()[0]: note.count for note in store.notes} == {"device,": 4, "left": 1}


def test_pipe_in_place_of_a_file_of_a_store_is_refused_at_once(tmp_path):
    store = pack("digits", tmp_path / "digits")
    for name in ("train.labels.npy", "manifest.json", "origin.json"):
        (store.path / name).unlink()
        os.mkfifo(store.path / name)
        if name != "origin.json":
            with pytest.raises(UserError) as refused:
                Store.open(store.path)
            assert refused.value.where == str(store.path / name)


@pytest.mark.parametrize("name", ["a\0b", "", "\0"])
def test_text_that_can_be_no_path_is_one_line(tmp_path, name):
    assert mistake(name, tmp_path / "out").given == mistake("digits", name).given == repr(name)
    with pytest.raises(UserError):
        Store.open(name)


NAMES = [b"caf\xe9", b"\xff\xfe", b"\x1b[2Jwipe", b"two\nlines", "Gänse 日本".encode()]


def test_names_that_are_no_utf_8_or_hold_terminal_commands_are_packed_under_names_that_can_be_shown(tmp_path):
    root = os.fsencode(tmp_path / "in")
    for number, name in enumerate(NAMES):
        os.makedirs(os.path.join(root, name))
        for i in range(3):
            Path(os.fsdecode(os.path.join(root, name, b"%d\xe9\x1b.png" % i))).write_bytes(flat(9 * number + i))
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
        opened.writestr("Ж/1.png", flat())
        opened.writestr("\x1b[2J/2.png", flat(9))
    assert pack(archive, tmp_path / "out").classes == (r"\x1b[2J", "Ж")
    archive.write_bytes(archive.read_bytes().replace("Ж".encode(), b"\xff\xff"))
    assert mistake(archive, tmp_path / "out2").given == archive


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_damaged_zip_gives_its_sound_images_or_user_errors_alone(tmp_path, data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as opened:
        for i in range(3):
            opened.writestr(f"{i}.png", flat(i))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive = tmp_path / "a.zip"
    archive.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
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
    ("key", "value"),
    [
        *(("size", value) for value in (16.5, 16.0, True, "16x", float("nan"), 10**8, 4097, 10**4000)),
        *(("channels", value) for value in (0, 65, 3.0)),
        *(("held_out", value) for value in (5000, "0.1", True, 1.0, float("nan"))),
        ("seed", 0.5),
        ("sha256", "abc"),
    ],
    ids=lambda value: str(value)[:9],
)
def test_number_that_is_not_whole_or_absurd_is_refused_and_not_rounded(tmp_path, key, value):
    refused = mistake("digits", tmp_path / "out", **{key: value})
    assert refused.key == key and refused.given is value and not (tmp_path / "out").exists()


def test_whole_numbers_of_numpy_and_options_at_their_bounds_are_taken():
    numpy = {"size": np.int64(8), "channels": np.uint8(1), "held_out": np.float32(0.25), "seed": np.int64(3)}
    taken = {"size": 8, "channels": 1, "held_out": 0.25, "seed": 3}
    assert origin_of(options("digits", **numpy)).settings == taken
    made = origin_of(options("digits", size=MAX_SIDE, held_out=0))
    assert (MAX_SIDE, made.size, made.held_out) == (4096, (4096, 4096), 0.0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_image_that_the_machine_could_not_read_is_not_left_out_but_ends_the_packing(tmp_path, monkeypatch, number):
    def failing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(UserError) as caught:
        Items(tmp_path).read("1.png")
    assert caught.value.where.endswith("1.png") and not PYTHONS_WORDS.search(str(caught.value))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_one_image_that_the_disk_cannot_read_is_left_out(tmp_path, monkeypatch, number):
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    with pytest.raises(Refused, match=os.strerror(number)):
        Items(tmp_path).read("1.png")


class Failing:
    """An entry of a folder; the disk cannot read the status of those with numbers from 20 on."""

    def __init__(self, entry):
        self.name, self.path, self.is_dir, self.is_symlink = entry.name, entry.path, entry.is_dir, entry.is_symlink
        self._entry = entry

    def stat(self):
        if self.name >= "20":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._entry.stat()


@pytest.mark.parametrize("failing", [1, 11])
def test_files_whose_status_or_first_bytes_the_disk_cannot_read_are_left_out_as_unreadable(
    tmp_path, monkeypatch, failing
):
    (tmp_path / "in").mkdir()
    for number in (*range(10, 14), *range(20, 20 + failing)):
        (tmp_path / f"in/{number}.png").write_bytes(flat(number))
    (tmp_path / "in/15").write_bytes(flat(15))  # an image by its first bytes alone
    entries = os.scandir
    scanned = lambda path: nullcontext([*map(Failing, entries(path))]) if path == tmp_path / "in" else entries(path)
    monkeypatch.setattr(listing.os, "scandir", scanned)
    monkeypatch.setattr(listing, "FileIO", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    if failing > 9:  # a disk that fails
        assert listing.UNREADABLE in str(mistake(tmp_path / "in", tmp_path / "out"))
    else:
        store = pack(tmp_path / "in", tmp_path / "out")
        assert [path for path, _ in store.refused] == ["15", "20.png"] and sum(store.manifest["counts"].values()) == 4


def test_want_of_memory_in_a_worker_ends_the_packing(tmp_path):
    (tmp_path / "unstir_starved").mkdir()
    (tmp_path / "1.png").write_bytes(flat())
    (tmp_path / "sitecustomize.py").write_text(
        "from PIL import Image\ndef load(self): raise MemoryError\nImage.Image.load = load\n"
        "from PIL import ImageFile\nImageFile.ImageFile.load = load\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(MemoryError):
            list(decode_all(tmp_path, [("1.png",)], {"size": (8, 8), "channels": 3, "is_float": False}, None, 1))
