"""Strangers at the server: paths, hosts, origins, bodies and numbers that nobody should send; many clients; slow ones.

Nothing is written, everything is refused in one line, and the server goes on.
"""

import io
import itertools
import json
import re
import resource
import signal
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import serving
from PIL import Image
from serving import png, text

from unstir.generate.drawing import Job
from unstir.generate.memory import Drawing
from unstir.runs.run import Run
from unstir.serve import turns
from unstir.serve.calls import CALLS
from unstir.serve.server import FILE, open_server
from unstir.serve.state import MOST_BYTES, Frames, State, Values, shown

SECRET = "the secret of this machine"
JOBS = 60
SAMPLE = {"model": "digits", "sampler": "ddim", "steps": 2, "num": 1}
NUMBERS = {
    "sample": ["sampler", "steps", "num", "label", "seed", "guidance"],
    "compare": ["num", "label", "seed", "guidance", "snapshots"],
    "drawn": ["label", "seed"],
    "vary": ["steps", "num", "label", "seed", "guidance", "strength"],
    "inpaint": ["steps", "num", "label", "seed", "resamples"],
    "forward": ["image", "seed"],
    "predict": ["image", "label", "seed"],
    "check": ["t", "image", "seed"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server in a folder with a secret beside it; at the end it still answers, and no file was written."""
    around = tmp_path_factory.mktemp("around")
    (around / "secret.txt").write_text(SECRET)
    (around / "here" / "runs").mkdir(parents=True)
    (around / "here" / "runs" / "picture.svg").write_text(f"<svg>{SECRET}</svg>")
    files = sorted(around.rglob("*"))
    with pytest.MonkeyPatch.context() as patch, open_server() as opened:
        patch.chdir(around / "here")
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        yield opened
        assert post(opened, "models", {})[0] == 200
        opened.shutdown()
    assert sorted(around.rglob("*")) == files


def resident(process="self"):
    """Bytes of memory that a process has, by its number."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()


def connected(server):
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=90)


def answered(server, request):
    """(status, content) of a request of bytes, read until the server closes."""
    with connected(server) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b" 429 " not in head or b"Retry-After: 2" in head
    return int(head.split()[1]) if head else 0, content


def request(server, method, path, body=b"", **headers):
    """A request as bytes; a header that is None is left out, one of several values is sent several times."""
    given = {"Host": f"127.0.0.1:{server.server_port}", "Connection": "close"}
    if method == "POST":
        given |= {"Content-Type": "application/json", "Content-Length": len(body)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name}: {one}" for one in values if one is not None]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(server, name, values, **headers):
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    address = f"/{server.token}/{'' if name == 'picture' else 'api/'}{name}"
    return answered(server, request(server, "POST", address, body, **headers))


def refused(server, name, values, status=400, **headers):
    """The line with which a call is refused."""
    got, content = post(server, name, values, **headers)
    assert got == status, (name, content[:200])
    (line,) = json.loads(content).values()
    assert line and "\n" not in line and "Traceback" not in line
    return line


def traversals():
    """200 paths that lead out of a folder, plain and encoded once or twice."""
    ups = ["../", "..\\", "..;/", "....//", "./../", "/", "//", "file:///", "C:\\", "~/"]
    ends = ["secret.txt", "secret.txt\0.png", "etc/passwd", "runs/picture.svg", "here/runs/picture.svg"]
    plain = [up * count + end for up in ups for end in ends for count in (1, 3)]
    once = [quote(path, safe="") for path in plain[:60]]
    return [*plain, *once, *(quote(path, safe="") for path in once[:40])]


def test_no_path_leads_out_of_the_tables(server):
    paths, seconds = traversals(), []
    assert len(set(paths)) == 200
    for path, folder in zip(paths, itertools.cycle(["", "static/", "file/", "api/", "edit/"])):
        for method in ("GET", "POST"):
            began = time.monotonic()
            sent = request(server, method, f"/{server.token}/{folder}{path}")
            status, content = answered(server, sent)
            seconds.append(time.monotonic() - began)
            assert status in (400, 404) and SECRET.encode() not in content, (folder, path)
        refused(server, "model", {"model": path})
    assert statistics.median(seconds) < 0.1


def test_only_a_whole_token_opens_the_pages(server):
    for token in ("", server.token[:-1], f"{server.token}x", "%00", "..", f"x/{server.token}", server.token.swapcase()):
        assert answered(server, request(server, "GET", f"/{token}/"))[0] == 404
        assert answered(server, request(server, "POST", f"/{token}/api/models", b"{}"))[0] == 404
    assert answered(server, request(server, "GET", f"/{server.token}/"))[0] == 200
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "X"):
        assert answered(server, request(server, method, f"/{server.token}/api/models"))[0] == 501


def test_other_hosts_and_origins_are_refused_on_every_route(server):
    port = server.server_port
    ours, local = f"127.0.0.1:{port}", f"localhost:{port}"
    hosts = [None, "", "evil.com", f"evil.com:{port}", f"localhost.evil.com:{port}", f"127.0.0.1.nip.io:{port}"]
    hosts += ["127.0.0.1", f"127.0.0.1:{port + 1}", f"0.0.0.0:{port}", f"[::1]:{port}", f"{ours}.", [ours, "evil.com"]]
    others = ["evil.com", f"localhost.evil.com:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", local]
    origins = ["null", "", f"https://{ours}", f"http://{ours}/", [f"http://{ours}", "null"]]
    origins += [f"http://{other}" for other in others]
    for name in (*CALLS, "picture"):
        for host in hosts:
            refused(server, name, {}, 403, Host=host)
            refused(server, name, {}, 403, Host=host, Origin=f"http://{host}")
        for origin in origins:
            refused(server, name, {}, 403, Origin=origin)
        for host in (ours, local):
            assert post(server, name, b"[]", Host=host, Origin=f"http://{host}")[0] == (400 if name in CALLS else 415)
    assert answered(server, request(server, "GET", f"/{server.token}/", Host=hosts[3]))[0] == 403


def test_it_listens_on_the_loopback_alone(server):
    assert server.socket.getsockname() == ("127.0.0.1", server.server_port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=5)


@pytest.mark.parametrize("name", CALLS)
def test_bodies_that_are_no_values_are_refused(server, name):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", FILE, None):
        refused(server, name, b"{}", 415, Content_Type=kind)
        assert kind in (FILE, None) or post(server, "picture", b"{}", Content_Type=kind)[0] == 415
    for length in (None, "-1", "x", "1e3", " ", "９", str(MOST_BYTES + 1), "9" * 30):
        refused(server, name, b"", 413, Content_Length=length)
        refused(server, "picture", b"", 413, Content_Length=length, Content_Type=FILE)
    for body in (b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"model": 1}', b'{"model": "digits", "x": 1}'):
        refused(server, name, body)


@pytest.mark.parametrize("name, keys", NUMBERS.items())
def test_absurd_numbers_are_refused_naming_them(server, name, keys):
    picture, model = {"picture": server.state.take(png(np.eye(8)))}, {"model": "digits"}
    mask, rows = {"mask": text(png(np.eye(8) * 255))}, {"rows": [{"sampler": "ddim", "steps": 2}], "snapshots": [2000]}
    exercise = {"exercise": "step", "t": 20}
    also = {"compare": rows, "vary": picture, "inpaint": picture | mask, "check": exercise}
    values = model | also.get(name, {})
    for key in keys:
        for value in ("1e16", "1" + 400 * "0", "-1", "1e999", "[]", "{}", '"x"'):
            body = json.dumps(values | {key: 0}).replace(f'"{key}": 0', f'"{key}": {value}')
            _, content = post(server, name, body.encode())
            assert re.search(rf'"error":"{key}\b', content.decode()), content


def bomb():
    """A PNG of 400 million pixels in a few hundred kilobytes."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"<svg onload=alert(1)>", b"<html>", b"GIF89a", b"\x89PNG\r\n\x1a\n", png([[0]]), png([[0, 1]])[:50], bomb()],
    ids=["empty", "svg", "html", "gif", "png", "tiny", "cut", "bomb"],
)
def test_what_is_no_picture_is_refused(server, content):
    before, id = resident(), serving.sent(server.address, content)
    files = [("picture", id), ("mask", text(content)), ("result", text(content))]
    for name, number in {"preview": 1, "own": 1, "vary": 1, "inpaint": 2, "paste": 3}.items():
        refused(server, name, {"model": "digits"} | dict(files[:number]))
    assert resident() - before < 50_000_000


def test_who_sends_or_takes_nothing_is_dropped(server, monkeypatch):
    monkeypatch.setattr(server.RequestHandlerClass, "timeout", 0.3)
    server.state.keep("large", "image/png", bytes(50_000_000))
    began, threads = time.monotonic(), threading.active_count()
    for start in (b"", b"GET /", request(server, "POST", f"/{server.token}/api/models", b"{", Content_Length=9)):
        answered(server, start)
    with connected(server) as deaf:
        deaf.sendall(request(server, "GET", f"/{server.token}/file/large"))
        while threading.active_count() > threads:
            assert time.monotonic() < began + 10
            time.sleep(0.05)
    assert post(server, "models", {})[0] == 200


def test_one_thread_computes_for_all_and_who_reads_nothing_holds_it_for_a_moment(server, monkeypatch):
    def thread(state: State, values: Values) -> Frames:
        yield {"thread": threading.current_thread().name}

    def flood(state: State, values: Values) -> Frames:
        while True:
            yield {"much": 200_000 * "x"}

    monkeypatch.setitem(CALLS, "thread", thread)
    monkeypatch.setitem(CALLS, "flood", flood)
    monkeypatch.setattr(turns, "PATIENCE", 0.5)
    with ThreadPoolExecutor(8) as clients:
        assert len(set(clients.map(lambda _: post(server, "thread", {}), range(8)))) == 1
    with connected(server) as deaf:
        deaf.sendall(request(server, "POST", f"/{server.token}/api/flood", b"{}"))
        assert deaf.recv(8) == b"HTTP/1.1"
        began = time.monotonic()
        refused(server, "own", {"model": "digits", "picture": "x"})
        assert 0.3 < time.monotonic() - began < 5


@pytest.fixture
def program(tmp_path):
    """`unstir serve` as a program of its own, with its process and the port and token of its address."""
    with serving.program(tmp_path) as process:
        port, token = re.search(r"http://127\.0\.0\.1:(\d+)/(.+)/", process.stdout.readline()).groups()
        yield SimpleNamespace(server_port=int(port), token=token, process=process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_of_many_clients_each_has_its_image_and_who_leaves_ends_nothing_else(program):
    model, full = Run.open("shipped:digits").model(), []

    def due(seed):
        chain = model.chain.changed(sampler="ddim", steps=2, seed=seed)
        *_, last = Drawing(model, Job(num=1, chain=chain)).frames()
        return shown(last.x, model)

    def job(seed):
        return request(program, "POST", f"/{program.token}/api/sample", json.dumps(SAMPLE | {"seed": seed}).encode())

    def asked(seed):
        if seed % 5 == 4:  # goes away
            with connected(program) as connection:
                connection.sendall(job(seed))
                connection.recv(10 if seed % 2 else 1)
            return None
        while (answer := answered(program, job(seed)))[0] == 429:
            full.append(seed)
            time.sleep(0.2)
        return [json.loads(line)["x"] for line in answer[1].split(b"\r\n") if line.startswith(b'{"t"')][-1]

    assert asked(0) == due(0)
    before = resident(program.process.pid)
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(asked, range(JOBS)))
    assert [seed for seed in range(JOBS) if answers[seed] not in (None, due(seed))] == []
    assert full and resident(program.process.pid) - before < 50_000_000
