"""The page Edit: the pixels of the command, a hole painted by mouse, finger and keys, and the picture at its size."""

import base64
import io
import json
import shlex
from urllib.request import Request, urlopen

import numpy as np
import pytest
import serving
from PIL import Image
from serving import png, text

import browsers
from unstir.serve.state import MOST_BYTES

browser, run, server, tab = browsers.browser, serving.run, serving.server, serving.tab


@pytest.fixture
def call(server):
    """call(name, **values) -> the lines that the server answers, of the model of digits."""

    def lines(name, /, **values):
        body = json.dumps({"model": "digits", **values}).encode()
        request = Request(f"{server.address}api/{name}", body, {"Content-Type": "application/json"})
        with urlopen(request) as response:
            return [json.loads(line) for line in response]

    return lines


def pixels(url):
    """The pixels of a data: address, or of a file."""
    content = base64.b64decode(url.partition(",")[2]) if isinstance(url, str) else url.read_bytes()
    return np.asarray(Image.open(io.BytesIO(content)))


PHOTO = np.random.default_rng(0).integers(0, 256, (60, 40, 3))
HOLE = png(np.pad(np.full((3, 4), 255), ((4, 1), (2, 2))))


def test_a_photo_of_more_than_7_megabytes_is_taken(call, server):
    large = png(np.random.default_rng(0).integers(0, 256, (1600, 1570, 3)))
    assert 7_500_000 < len(large) < MOST_BYTES and call("preview", picture=serving.sent(server.address, large))


OPTIONS = {"inpaint": {"mask": text(HOLE), "resamples": 2}, "vary": {"strength": 0.5, "sampler": "heun", "guidance": 3}}


@pytest.mark.parametrize("edit, options", OPTIONS.items())
def test_the_pixels_are_those_of_the_command_that_is_shown(call, server, command, tmp_path, monkeypatch, edit, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "--a b.png").write_bytes(png(PHOTO))
    (tmp_path / "mask.png").write_bytes(HOLE)
    id = serving.sent(server.address, png(PHOTO))
    shared = {"picture": id, "name": "--a b.png", "num": 2, "seed": 5, "label": 3, "steps": 4}
    first, *frames, last = call(edit, **shared, **options)
    assert [frame["t"] for frame in frames if "t" in frame][-1] == 0
    words = shlex.split(first["command"])
    into = ["--into", "into.png"] if edit == "inpaint" else []
    assert command(*words[1:], "--singles", "--out", "out.png", *into)[0] == 0
    for number, result in enumerate(last["results"]):
        assert (pixels(result) == pixels(tmp_path / f"out-{number}.png")).all()
    assert (pixels(last["sheet"]) == pixels(tmp_path / "out.png")).all()
    (seen,) = call("preview", picture=id)
    assert pixels(seen["shown"]).shape == (40, 40) and len(seen["notes"]) == 2
    if into:
        (line,) = call("paste", picture=id, result=last["results"][0], mask=text(HOLE))
        with urlopen(server.address + line["photo"]) as response:
            back = np.asarray(Image.open(io.BytesIO(response.read())))
        assert back.shape == PHOTO.shape and (back == pixels(tmp_path / "into.png")).all()


def opened(tab, address="edit#model=digits&label=3&num=2&steps=3"):
    """The page, once the model has drawn a picture."""
    page = tab(address)
    serving.until(page, "document.getElementById('file-picture').download === 'drawn.png'")
    return page


def painted(page):
    """What is painted of the mask."""
    values = page.evaluate("[...document.getElementById('mask').getContext('2d').getImageData(0, 0, 8, 8).data]")
    return np.array(values).reshape(8, 8, 4)[..., 3] > 0


@pytest.mark.slow
@browsers.NO_BROWSER
class TestInTheBrowser:
    def test_a_hole_in_a_photo_is_painted_by_mouse_filled_in_and_put_back(self, tab, tmp_path):
        page = opened(tab)
        (tmp_path / "mine.png").write_bytes(png(PHOTO))
        (tmp_path / "page.png").write_text("<svg onload=alert(1)>")
        page.locator("#file").set_input_files(tmp_path / "page.png")
        page.get_by_role("alert").filter(has_text="picture").wait_for()
        assert page.get_attribute("#picture", "src") is None
        page.locator("#file").set_input_files(tmp_path / "mine.png")
        serving.until(page, "document.getElementById('file-picture').download === 'mine.png'")
        assert "its centre is used, 40x40 of 60x40" in page.inner_text("#notes")
        board = page.locator("#mask").bounding_box()
        x, y = board["x"] + board["width"] / 2, board["y"] + board["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + board["width"] / 4, y, steps=3)
        page.mouse.up()
        hole = painted(page)
        assert 4 <= hole.sum() <= 40 and hole[4, 4] and not hole[0].any()
        page.locator("#start").click()
        serving.until(page, "document.querySelectorAll('#results li').length === 2")
        assert page.inner_text("#command").startswith("unstir edit inpaint shipped:digits mine.png --mask mask.png")
        assert (pixels(page.get_attribute("#file-mask", "href"))[..., 0] == 255 * hole).all()
        assert {"label=3", "num=2"} <= set(page.url.partition("#")[2].split("&"))
        given = np.asarray(Image.fromarray(np.uint8(PHOTO)).resize((8, 8), 1, (0, 10, 40, 50)).convert("L"))
        result = pixels(page.get_attribute("#results img >> nth=0", "src"))
        assert (result == given)[~hole].all() and not (result == given).all()
        page.locator("#results button").nth(1).click()
        serving.until(page, "document.querySelector('#photo img').naturalWidth === 40")
        assert page.evaluate("document.querySelector('#photo img').naturalHeight") == 60
        page.reload()
        serving.until(page, "document.getElementById('file-picture').download === 'mine.png'")
        assert (painted(page) == hole).all()

    def test_keys_move_and_fill_a_box_and_fingers_paint(self, tab):
        page = opened(tab)
        page.locator("#mask").focus()
        for key in (*8 * ["ArrowUp"], *8 * ["ArrowLeft"], "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
            page.keyboard.press(key)
        assert (painted(page) == np.pad(np.ones((3, 5)), ((0, 5), (0, 3)))).all()
        assert "5 x 3" in page.inner_text("#where-box")
        page.keyboard.press("Delete")
        assert not painted(page).any()
        page.locator("#start").click()
        assert "hole" in page.inner_text("#problem")
        board = page.locator("#mask").bounding_box()
        page.touchscreen.tap(board["x"] + board["width"] - 3, board["y"] + board["height"] - 3)
        assert painted(page)[-1, -1] and not painted(page)[:4].any()

    def test_the_strength_slider_varies_again_and_stop_ends_it(self, tab):
        page = opened(tab, "edit#model=digits&label=3&edit=vary&steps=900&num=16")
        page.locator("[name=strength]").fill("0.9")
        page.locator("[name=strength]").fill("1")
        serving.until(page, "document.getElementById('x').src")
        page.locator("#start").click()
        serving.until(page, "document.getElementById('status').textContent === 'Stopped.'")
        page.locator("[name=steps]").fill("3")
        page.locator("[name=sampler]").select_option("ddim")
        assert page.locator("body.pale").count() and "Press Start" in page.inner_text("#status")
        page.locator("[name=strength]").fill("0.5")
        serving.until(page, "document.querySelectorAll('#results li').length === 16")
        assert all(it in page.inner_text("#command") for it in ("--strength 0.5", "--sampler ddim", "--guidance 2"))
        assert page.inner_text("#problem") == "" and not page.locator("body.pale").count()
        assert page.locator("[name=guidance]").is_visible()
        page.locator("[name=label]").select_option("")
        assert not page.locator("[name=guidance]").is_visible()

    def test_everybody_can_use_it(self, tab):
        page = opened(tab)
        assert not page.locator("#play").is_visible()
        page.locator("#mask").focus()
        page.keyboard.press("Enter")
        page.locator("#start").click()
        serving.until(page, "document.querySelectorAll('#results li').length === 2")
        assert serving.violations(page, (1280, "light"), (800, "dark"), (390, "light")) == []
