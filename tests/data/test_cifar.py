"""CIFAR-10's two archives, hostile ones too, and a download cut anywhere or answered wrongly: never a wrong file."""

import contextlib
import hashlib
import http.server
import os
import pickle
import tarfile
import threading

import encoding
import numpy as np
import pytest
from encoding import tarred
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusals import mistake
from unstir.data import cifar10, disk, listing, pack, unpickle
from unstir.data.disk import fetch
from unstir.data.images import Refused
from unstir.data.listing import Items
from unstir.errors import UserError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BIN, PY = "cifar-10-batches-bin", "cifar-10-batches-py"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 3072), dtype=np.uint8)  # five train batches and the test batch
LABELS = RNG.integers(0, 10, (6, 5))


def tar(file, members):
    return tarred(file, members.items(), "w:gz")


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def records(i):
    return b"".join(bytes([n]) + x.tobytes() for n, x in zip(LABELS[i], PIXELS[i], strict=True))


def binary_members():
    """In the official archive the batches are out of order too."""
    order = {"data_batch_1": 0, "data_batch_3": 2, "test_batch": 5, "data_batch_5": 4, "data_batch_2": 1}
    batches = {f"{BIN}/{name}.bin": records(i) for name, i in {**order, "data_batch_4": 3}.items()}
    meta = {f"{BIN}/batches.meta.txt": "\n".join(NAMES).encode() + b"\n\n", f"{BIN}/readme.html": b"<html>"}
    return {**meta, **batches}


def python_2_array(pixels):
    """An array as Python 2's cPickle and its numpy wrote it, protocol 2."""
    n, data = len(pixels), pixels.tobytes()
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87RK\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"K\x01K" + bytes([n]) + b"M\x00\x0c\x86" + dtype.replace(b"RK\x03", b"R(K\x03") + b"\x89"
    raw = b"T" + len(data).to_bytes(4, "little") + data
    return b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(" + state + raw + b"tb"


def python_2_batch(i):
    labels = b"](" + b"".join(b"K" + bytes([n]) for n in LABELS[i]) + b"e"
    name = b"U\x0bbatch_labelU\x05batch"
    return b"\x80\x02}(" + name + b"U\x06labels" + labels + b"U\x04data" + python_2_array(PIXELS[i]) + b"u."


def python_3_batch(i, protocol=4):
    return pickle.dumps({b"labels": LABELS[i].tolist(), b"data": PIXELS[i]}, protocol)


def python_members(batch=python_2_batch):
    names = [f"{PY}/data_batch_{i}" for i in range(1, 6)] + [f"{PY}/test_batch"]
    meta = pickle.dumps({b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}, 3)
    return {f"{PY}/batches.meta": meta, **{name: batch(i) for i, name in enumerate(names)}}


def check(store):
    train, held_out = store.labels("train"), store.labels("held_out")
    assert store.classes == NAMES and store.shape == (3, 32, 32)
    assert np.array_equal(store.images("train").numpy().reshape(-1, 3072), PIXELS[:5].reshape(-1, 3072))
    assert np.array_equal(store.images("held_out").numpy().reshape(-1, 3072), PIXELS[5])
    assert train is not None and train.tolist() == LABELS[:5].ravel().tolist()
    assert held_out is not None and held_out.tolist() == LABELS[5].tolist()
    store.verify()


def test_binary_and_python_archives_give_one_store(tmp_path):
    binary, python = tar(tmp_path / "b.tar.gz", binary_members()), tar(tmp_path / "p.tar.gz", python_members())
    first = pack(binary, tmp_path / "b", sha256=sha(binary))
    second = pack(python, tmp_path / "p", sha256=sha(python).upper())
    check(first)
    check(second)
    assert first.content_hash == second.content_hash
    assert first.manifest["source_hash"] == sha(binary)
    assert pack(binary, tmp_path / "b", sha256=sha(binary)).path == first.path
    assert f"{sha(binary)}, not {sha(python)}" in str(mistake(pack, binary, tmp_path / "b", sha256=sha(python)))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("members", [binary_members, python_members])
def test_an_unpacked_archive_is_the_same(tmp_path, members, inside):
    """The folder itself, or the one that torchvision downloads to, where the archive is too."""
    file = tar(tmp_path / "in.tar.gz", members())
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "in", filter="data")
    (tmp_path / "in/cifar-10-python.tar.gz").write_bytes(b"x")
    (folder,) = (path for path in (tmp_path / "in").iterdir() if path.is_dir())
    source = tmp_path / "in" if inside else folder
    store = pack(source, tmp_path / "s")
    check(store)
    assert store.content_hash == pack(file, tmp_path / "t", sha256=sha(file)).content_hash
    assert pack(source, tmp_path / "s").manifest == store.manifest
    next(folder.glob("test_batch*")).unlink()
    refused = mistake(pack, source, tmp_path / "u")
    assert refused.given == folder and "test_batch" in refused.allowed


def test_resized_and_grey(tmp_path):
    file = tar(tmp_path / "b.tar.gz", binary_members())
    assert pack(file, tmp_path / "s", sha256=sha(file), size=16, channels=1).shape == (1, 16, 16)
    assert "65x65" in mistake(pack, file, tmp_path / "l", sha256=sha(file), size=65).allowed
    pack(file, tmp_path / "l", sha256=sha(file))


def test_archive_of_another_hash_is_not_read(tmp_path, monkeypatch):
    file = tar(tmp_path / "b.tar.gz", binary_members())
    monkeypatch.setattr(tarfile.TarFile, "extractfile", None)
    refused = mistake(pack, file, tmp_path / "s")
    assert refused.given == file
    assert all(part in refused.allowed for part in (sha(file), cifar10.BINARY_SHA256, cifar10.PYTHON_SHA256))
    assert "0" * 64 in str(mistake(pack, file, tmp_path / "s", sha256="0" * 64))


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def escapes():
    good = binary_members()
    batch = f"{BIN}/data_batch_3.bin"
    return [
        ("dot dot", {"../../evil": b"x", f"{BIN}/../../evil": b"x", **good}, None),
        ("absolute", {"/evil": b"x", **good}, None),
        ("device", {"dev": link("dev", "", tarfile.CHRTYPE), **good}, None),
        ("symbolic link", {**good, batch: link(batch, "/etc/passwd")}, batch),
        ("hard link", {**good, batch: link(batch, f"{BIN}/test_batch.bin", tarfile.LNKTYPE)}, batch),
        ("missing", {k: v for k, v in good.items() if k != batch}, batch),
        ("half a record", {**good, batch: records(2)[:-1]}, batch),
        ("label", {**good, batch: b"\x0b" + records(2)[1:]}, batch),
    ]


@pytest.mark.parametrize(("name", "members", "message"), escapes(), ids=[e[0] for e in escapes()])
def test_binary_archive_writes_nothing_outside_the_store(tmp_path, name, members, message):
    file = tar(tmp_path / "b.tar.gz", members)
    if message:
        with pytest.raises(UserError, match=message):
            pack(file, tmp_path / "s", sha256=sha(file))
        return
    check(pack(file, tmp_path / "s", sha256=sha(file)))
    assert sorted(tmp_path.iterdir()) == [file, tmp_path / "s"]


def test_damaged_gzip_is_one_line(tmp_path):
    data = tar(tmp_path / "b.tar.gz", binary_members()).read_bytes()
    for i, bad in enumerate((data[: len(data) // 2], data[:20], data[:1000] + b"\0" * 1000 + data[2000:])):
        (tmp_path / "c.tar.gz").write_bytes(bad)
        with pytest.raises(UserError, match=r"c\.tar\.gz"):
            pack(tmp_path / "c.tar.gz", tmp_path / f"s{i}", sha256=hashlib.sha256(bad).hexdigest())


@pytest.mark.parametrize("protocol", [3, 4])
def test_python_archive_pickled_anew_by_python_3(tmp_path, protocol):
    file = tar(tmp_path / "p.tar.gz", python_members(lambda i: python_3_batch(i, protocol)))
    check(pack(file, tmp_path / "s", sha256=sha(file)))


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(canary):
    """Pickles that would create the file `canary` (or fill memory), were they believed."""
    touch, one = f"touch {canary}", np.zeros((1, 3072), np.uint8)
    cases = {f"os.system {p}": pickle.dumps(Call(os.system, touch), p) for p in range(6)}
    return cases | {
        "nested": pickle.dumps({b"labels": [1], b"data": [Call(os.system, touch)]}, 4),
        "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 4),
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__subclasses\x93.",
        "build on the stand-in": b"cnumpy\nndarray\n}S'__setstate__'\ncnumpy\ndtype\nsb.",
        "function attributes": b"cnumpy.core.multiarray\n_reconstruct\n(N}S'__code__'\nNstb.",
        "object array": b"cnumpy\ndtype\n(S'O8'\nK\x00K\x01tR.",
        "wrong shape": pickle.dumps({b"labels": [1], b"data": one[:, 1:]}, 4),
        "wrong type": pickle.dumps({b"labels": [1], b"data": one.astype(np.float32)}, 4),
        "too few labels": pickle.dumps({b"labels": [], b"data": one}, 4),
        "labels of text": pickle.dumps({b"labels": ["x"], b"data": one}, 4),
        "label too large": pickle.dumps({b"labels": [256], b"data": one}, 4),
        "negative label": pickle.dumps({b"labels": [-1], b"data": one}, 4),
        "empty array": b"}(S'labels'\n]S'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nNNtRu.",
        "huge memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "huge bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "deep": b"(" * 50_000 + b"t" * 49_999 + b".",
    }


def test_hostile_pickles_never_run_anything(tmp_path):
    canary = tmp_path / "canary"
    believed = pickle.loads(hostile(canary)["os.system 4"])
    assert believed == 0 and canary.exists()  # the canary works
    canary.unlink()
    for name, data in hostile(canary).items():
        with pytest.raises(Exception):  # noqa: B017
            unpickle.batch(data)
        assert not canary.exists(), name


@pytest.mark.parametrize(("name", "member"), [("os.system 2", "data_batch_2"), ("deep", "batches.meta")])
def test_hostile_archive_is_refused_in_one_line(tmp_path, name, member):
    canary = tmp_path / "canary"
    members = python_members() | {f"{PY}/{member}": hostile(canary)[name]}
    file = tar(tmp_path / "p.tar.gz", members)
    with pytest.raises(UserError, match=f"{PY}/{member}") as refused:
        pack(file, tmp_path / "s", sha256=sha(file))
    assert cifar10.URL in refused.value.remedy and "\n" not in str(refused.value)
    assert not canary.exists() and not (tmp_path / "s").exists()


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_pickles_give_records_or_doubt(data: st.DataObject) -> None:
    content = bytearray(python_2_batch(0))
    head = content.index(PIXELS[0].tobytes())  # the instructions before the pixels
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Exception):
        content = unpickle.batch(bytes(content))
    assert isinstance(content, bytearray) or len(content) % 3073 == 0


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
