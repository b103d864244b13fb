"""The disk and the network as the data room meets them, at the edges."""

import hashlib
import io
import os
import urllib.request

import encoding
import pytest

from unstir.data import disk, listing
from unstir.data.images import Refused
from unstir.data.listing import Items


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path, monkeypatch):
    synced, before = [], len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    disk.sync_folder(tmp_path)
    assert synced == [str(tmp_path)] and len(os.listdir("/proc/self/fd")) == before


class Response(io.BytesIO):
    """What a server answers."""

    def __init__(self, body, status, length):
        super().__init__(body)
        self.status, self.headers = status, {} if length is None else {"Content-Length": str(length)}


@pytest.mark.parametrize(
    ("there", "body", "status", "length", "asked", "reports"),
    [
        (b"", b"abcdef", 200, 6, None, [(6, 6)]),
        (b"", b"abcdef", 200, None, None, [(6, 6)]),
        (b"abc", b"def", 206, 3, "bytes=3-", [(6, 6)]),
        (b"xyz", b"abcdef", 200, 6, "bytes=3-", [(6, 6)]),  # a server without ranges
    ],
)
def test_a_download_goes_on_and_is_synced_before_it_is_named(
    tmp_path, monkeypatch, counts, there, body, status, length, asked, reports
):
    target, synced = tmp_path / "new/folder/file", []
    if there:
        target.parent.mkdir(parents=True)
        target.with_name("file.part").write_bytes(there)

    def answer(request, timeout):
        assert timeout == 30 and request.get_header("Range") == asked
        return Response(body, status, length)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    part = target.with_name("file.part")
    monkeypatch.setattr(disk.os, "fsync", lambda _: synced.append(part.read_bytes()))
    disk.fetch("http://it", target, hashlib.sha256(b"abcdef").hexdigest())
    assert target.read_bytes() == b"abcdef" and synced == [b"abcdef"] and [count[1:] for count in counts] == reports


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_read_up_to_the_greatest_size(tmp_path, monkeypatch, zipped):
    assert listing.MAX_FILE_BYTES == 2**26
    monkeypatch.setattr(listing, "MAX_FILE_BYTES", 100)
    begins, root = b"\x89PNG\r\n\x1a\n", tmp_path
    files = {"fits": begins + bytes(92), "not": begins + bytes(93), "zeros": bytes(90)}
    items = Items(encoding.zipped(root / "a.zip", files) if zipped else encoding.fill(root, files))
    assert items.read("fits") == files["fits"]
    with pytest.raises(Refused, match="larger than"):
        items.read("not")
    assert len(items.read("zeros")) == (16 if zipped else 90)  # what begins like no image is not inflated
    items.close()
    if zipped:
        with pytest.raises(Refused):
            items.read("fits")


def test_a_folder_that_cannot_be_listed_is_refused_and_its_root_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "1.png").touch()
    scan = os.scandir

    def closed(path, shut="sub"):
        if path.name == shut:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", closed)
    found = listing.list_folder(tmp_path)
    assert found.refused == [("sub", "permission denied")] and [entry.path for entry in found.entries] == ["1.png"]
    monkeypatch.setattr(listing.os, "scandir", lambda path: closed(path, tmp_path.name))
    with pytest.raises(PermissionError):
        listing.list_folder(tmp_path)
