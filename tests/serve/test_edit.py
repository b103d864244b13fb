"""The page Edit: the pixels of the command, a hole painted by mouse, finger and keys, and the picture at its size."""

import base64
import io
import json
import shlex
import threading
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

import browsers
from unstir.serve.server import open_server

browser = browsers.browser
SIDE = 8  # of the images of digits


@pytest.fixture(scope="module")
def server():
    with open_server() as opened:
        threading.Thread(target=opened.serve_forever, daemon=True).start()
        yield opened
        opened.shutdown()


@pytest.fixture
def call(server):
    """call(name, **values) -> the lines that the server answers, of the model of digits."""

    def lines(name, /, **values):
        body = json.dumps({"model": "digits", **values}).encode()
        request = Request(f"{server.address}api/{name}", body, {"Content-Type": "application/json"})
        with urlopen(request) as response:
            return [json.loads(line) for line in response]

    return lines


def png(pixels):
    """The pixels [H, W] or [H, W, 3] as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()


def pixels(url):
    """The pixels of a data: address, or of a file."""
    content = base64.b64decode(url.partition(",")[2]) if isinstance(url, str) else url.read_bytes()
    return np.asarray(Image.open(io.BytesIO(content)))


PHOTO = np.random.default_rng(0).integers(0, 256, (60, 40, 3))
HOLE = np.pad(np.full((3, 4), 255), ((4, 1), (2, 2)))


@pytest.mark.parametrize("edit", ["inpaint", "vary"])
def test_the_pixels_are_those_of_the_command_that_is_shown(call, server, command, tmp_path, monkeypatch, edit):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.png").write_bytes(photo := png(PHOTO))
    (tmp_path / "mask.png").write_bytes(mask := png(HOLE))
    options = {"inpaint": {"mask": text(mask), "resamples": 2}, "vary": {"strength": 0.5}}[edit]
    shared = {"picture": text(photo), "name": "a b.png", "num": 2, "seed": 5, "label": 3, "steps": 4}
    first, *frames, last = call(edit, **shared, **options)
    assert [frame["t"] for frame in frames if "t" in frame][-1] == 0
    words = shlex.split(first["command"])
    into = ["--into", "into.png"] if edit == "inpaint" else []
    assert command(*words[1:], "--singles", "--out", "out.png", *into)[0] == 0
    for number, result in enumerate(last["results"]):
        assert (pixels(result) == pixels(tmp_path / f"out-{number}.png")).all()
    assert (pixels(last["sheet"]) == pixels(tmp_path / "out.png")).all()
    if into:
        (line,) = call("paste", picture=text(photo), mask=text(mask), result=last["results"][0].partition(",")[2])
        with urlopen(server.address + line["photo"]) as response:
            back = np.asarray(Image.open(io.BytesIO(response.read())))
        assert back.shape == PHOTO.shape and (back == pixels(tmp_path / "into.png")).all()
