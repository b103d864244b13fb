"""A download cut anywhere, answered wrongly or impossible, and the disk at its edges: never a wrong file."""

import hashlib
import http.server
import os
import threading

import encoding
import numpy as np
import pytest
from encoding import tarred

from refusals import mistake
from unstir.data import cifar10, disk, listing, pack
from unstir.data.disk import fetch
from unstir.data.images import Refused
from unstir.data.listing import Items
from unstir.errors import UserError

DATA = np.random.default_rng(0).bytes(400_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA, cutting the connection after `cut` bytes of the body."""

    cut: int | None = None
    ranges = True
    status: int | None = None
    data = DATA
    requests: list[str | None]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        body = self.server.data[start:]
        if self.server.status or (asked and start >= len(self.server.data)):
            self.send_error(self.server.status or 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download_is_checked_and_reported(server, tmp_path, counts):
    fetch(server.url, tmp_path / "new/file", SHA256)
    assert (tmp_path / "new/file").read_bytes() == DATA
    assert counts[-1] == ("downloading", len(DATA), len(DATA)) and len(counts) > 1
    fetch("http://unused.invalid", tmp_path / "new/file", SHA256)  # already there


def test_cut_at_five_places_each_run_goes_on_from_there(server, tmp_path):
    target = tmp_path / "file"
    for cut in np.linspace(0, len(DATA) - 1, 5).astype(int).tolist():
        server.cut, server.requests = cut, []
        assert server.url in str(mistake(fetch, server.url, target, SHA256))
        assert not target.exists()
        server.cut = None
        fetch(server.url, target, SHA256)
        assert target.read_bytes() == DATA
        assert server.requests == [None, f"bytes={cut}-" if cut else None]
        target.unlink()


def test_server_without_ranges_starts_again_and_the_file_is_synced_before_it_is_named(server, tmp_path, monkeypatch):
    synced, part = list[bytes](), tmp_path / "file.part"
    monkeypatch.setattr(disk.os, "fsync", lambda _: synced.append(part.read_bytes()))
    part.write_bytes(b"x" * 1000)
    server.ranges = False
    fetch(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == DATA and synced == [DATA]


def test_whole_part_left_by_a_kill_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(DATA)
    fetch(server.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == DATA


def test_wrong_content_is_removed_and_the_next_run_recovers(server, tmp_path):
    server.data = b"<html>Log in to this network</html>"
    assert SHA256 in str(mistake(fetch, server.url, tmp_path / "file", SHA256))
    assert list(tmp_path.iterdir()) == []
    server.data = DATA
    fetch(server.url, tmp_path / "file", SHA256)


def test_server_error_is_one_line(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match="Not Found") as refused:
        fetch(server.url, tmp_path / "file", SHA256)
    assert refused.value.given == server.url and "\n" not in str(refused.value)


def test_offline_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:1/cifar-10-binary.tar.gz")
    refused = mistake(pack, "cifar10", tmp_path / "store", download_dir=tmp_path / "downloads")
    place = tmp_path / "downloads/cifar-10-binary.tar.gz"
    assert str(place) in refused.remedy and cifar10.BINARY_SHA256 in refused.remedy
    place.write_bytes(b"wrong")
    assert mistake(pack, "cifar10", tmp_path / "store", download_dir=tmp_path / "downloads").given == place


def test_cifar10_is_downloaded_packed_and_not_fetched_twice(server, tmp_path, monkeypatch):
    names = ["batches.meta.txt", *(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    bodies = [b"cat\ndog\n", *[(b"\1" + bytes(3072)) * 2] * 6]
    members = [(f"cifar-10-batches-bin/{name}", body) for name, body in zip(names, bodies, strict=True)]
    server.data = tarred(tmp_path / "archive", members, "w:gz").read_bytes()
    sha256 = hashlib.sha256(server.data).hexdigest()
    monkeypatch.setattr(cifar10, "URL", server.url)
    store = pack("cifar10", tmp_path / "store", sha256=sha256)
    assert (store.count("train"), store.count("held_out"), store.classes) == (10, 2, ("cat", "dog"))
    (tmp_path / "file.tar.gz").unlink()
    pack("cifar10", tmp_path / "store", sha256=sha256)
    assert len(server.requests) == 1


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path, monkeypatch):
    synced, before = [], len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    disk.sync_folder(tmp_path)
    assert synced == [str(tmp_path)] and len(os.listdir("/proc/self/fd")) == before


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
