"""The pages that sample, compare and watch a training, in headless Chromium on real small runs."""

import base64
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import serving
from pydantic_core import to_json

import browsers
from conftest import tiny_config
from tiny_command import tiny
from unstir.compare import compare
from unstir.data import pack
from unstir.generate.drawing import Job
from unstir.runs.run import Run
from unstir.serve.state import shown
from unstir.train.launch import train_run

browser, run, server, tab = browsers.browser, serving.run, serving.server, serving.tab
pytestmark = [pytest.mark.slow, browsers.NO_BROWSER]
MODEL = "model=run-served"


def done(page):
    page.locator("#status", has_text="Done").wait_for()
    return page


@pytest.mark.parametrize("told", [f"{MODEL}&label=2", "model=described&condition=3", "model=numbers&condition=0.3,1.2"])
def test_the_page_draws_what_the_command_draws(tab, digits, command, tmp_path, told):
    if "described" in told:
        train_run(tiny_config(digits, data__condition="low_resolution"), Path("runs/described"))
    if "numbers" in told:
        pack({"images": np.zeros((9, 1, 8, 8), np.uint8), "conditions": np.eye(9)[:, :2]}, "store", channels=1)
        train_run(tiny_config("store", data__source="store", data__condition="stored"), Path("runs/numbers"))
    page = done(tab(f"sample#{told}&guidance=2&sampler=ddim&steps=10&seed=3&num=6"))
    assert page.locator("#conditions canvas").count() == (10 if "described" in told else 0)
    words = shlex.split(page.inner_text("#command"))[1:]
    assert ("--condition" in words) == ("condition" in told)
    assert command(*words, "--format", "npy", "--out", tmp_path / "out", "--animate", tmp_path / "a.webp")[0] == 0
    for name, file in {"npy": "out/images.npy", "png": "out/grid.png", "webp": "a.webp"}.items():
        content = page.locator(f"#files a[download='images.{name}']").get_attribute("href").partition(",")[2]
        assert base64.b64decode(content) == (tmp_path / file).read_bytes(), name
    slider = page.locator("#time")
    pictures = [(slider.press(key), page.get_attribute("#x", "src"))[1] for key in ("Home", "ArrowRight", "End")]
    assert len(set(pictures)) == 3 and slider.get_attribute("max") == "10"
    assert page.get_attribute("#x0", "src") == pictures[-1]


def test_frames_change_while_they_are_computed_until_it_is_stopped(tab):
    page = tab("sample#model=digits&sampler=ancestral&steps=1000&num=16")
    for number in (2, 4):
        serving.until(page, f"Number(document.getElementById('time').max) >= {number}")
    page.get_by_role("button", name="Stop").click()
    assert page.inner_text("#status") == "Stopped." and Path(page.get_attribute("#x", "src")).name
    assert page.inner_text("#command") == "" and not page.locator("body.pale").count()
    page.locator("[name=label]").select_option("3")
    assert page.locator("body.pale").count() and "Press Draw" in page.inner_text("#status")
    page.locator("[name=steps]").fill("2")
    page.get_by_role("button", name="Draw").click()
    assert done(page).locator("#time").get_attribute("max") == "2"


def test_a_refusal_is_shown_and_goes(tab):
    page = tab(f"sample#{MODEL}&steps=999")
    page.get_by_role("alert").filter(has_text="steps=999").wait_for()
    page.locator("[name=steps]").fill("3")
    page.get_by_role("button", name="Draw").click()
    done(page)
    assert page.inner_text("#problem") == "" and "steps=3" in page.url


def test_back_leads_to_the_settings_before_and_a_full_server_is_asked_again(tab):
    page = done(tab(f"sample#{MODEL}&steps=3"))
    first, seed = page.get_attribute("#x", "src"), page.locator("[name=seed]")
    seed.fill("4")
    page.get_by_role("button", name="Draw").click()
    serving.until(page, f"document.getElementById('x').src !== '{first}'")
    full = [{"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": "full"}}]
    page.route("**/api/sample", lambda route: route.fulfill(**full.pop()) if full else route.continue_())
    page.go_back()
    page.locator("#status", has_text="Waiting").wait_for()
    assert "seed=0" in page.url and seed.input_value() == "0"
    seed.fill("5")  # while it is computed
    page.locator("body.pale #status", has_text="Press Draw").wait_for()
    assert page.get_attribute("#x", "src") == first and full == []


@pytest.mark.parametrize("differs", ["samplers", "steps", "snapshots"])
def test_rows_are_those_of_the_library(tab, run, differs):
    samplers, steps = ["ddim", "heun"][: 1 + (differs == "samplers")], [3, 5][: 1 + (differs == "steps")]
    snapshots = Run.open(run).saved_steps()[-1 - (differs == "snapshots") :]
    chosen = [*(f"samplers={it}" for it in samplers), f"several={','.join(map(str, steps))}"]
    page = done(tab("&".join([f"compare#{MODEL}&num=4&guidance=1", *chosen, *(f"snapshots={it}" for it in snapshots)])))
    expected = []
    for model in map(Run.open(run).model, snapshots):
        chains = [model.chain.changed(sampler=sampler, steps=n) for sampler in samplers for n in steps]
        rows = compare(model, Job(num=4, chain=chains[0]), chains)
        expected += [shown(row.images, model, 4) for row in rows]
    assert [image.get_attribute("src") for image in page.locator("#rows img").all()] == expected
    assert len(set(expected)) == 2


def test_a_training_is_watched_through_its_end_and_its_restart(tab, server, run, digits):
    options = tiny("1000 steps", "2 steps")
    for name, value in {"--grids.log_spaced": "10", "--log.held_out_images": "0"}.items():
        options[options.index(name) + 1] = value
    words = "train", "digits", *options, "--data.store", str(digits), "--out", "runs/live"

    def grown(command, above):
        """How many points the chart has once there are more than ``above``, while a training runs."""
        with subprocess.Popen([sys.executable, "-m", "unstir", *command], stderr=subprocess.DEVNULL) as trainer:
            try:
                page.locator("[name=model] option", has_text="live").wait_for(state="attached", timeout=90_000)
                page.select_option("[name=model]", "live")
                points = "(document.querySelector('polyline.a')?.points.numberOfItems ?? 0)"
                serving.until(page, f"{points} > {above}")
                serving.until(page, "document.getElementById('goes').hidden")
                return page.evaluate(points)
            finally:
                trainer.terminate()

    page = tab("train")
    points = grown(words, 2)
    page.locator("#goes", has_text="unstir train --out runs/live").wait_for()
    page.get_by_role("button", name="Make its report").click()
    report = page.request.get(server.address + page.get_by_role("link", name="Open the report").get_attribute("href"))
    assert b"<footer>Made by unstir" in report.body() and "sandbox" in report.headers["content-security-policy"]
    assert grown(("train", "--out", "runs/live"), points) > points
    marks = page.locator("#chart text[text-anchor=end]").evaluate_all("(all) => all.map((it) => it.y.baseVal[0].value)")
    assert all(abs(one - other) >= 11 for one, other in combinations(marks, 2))
    source = "document.getElementById('grid').src"
    for key in ("Home", "End"):
        before = page.evaluate(source)
        page.locator("#time").press(key)
        serving.until(page, f"{source} !== '{before}' && {source}.startsWith('data:image/webp')")
    assert int(page.locator("#time").get_attribute("max")) > 2
    page.reload()
    assert page.locator("[name=model] option").first.inner_text() == "live"  # it was written last
    assert tab("train").locator("[name=model]").input_value() == "live"
    shutil.rmtree("runs/live")
    shutil.copytree(run, "runs/live")  # trained anew: three grids
    serving.until(page, "document.getElementById('time').max === '2'")
    shutil.rmtree("runs/live")
    page.select_option("[name=model]", "digits")
    page.select_option("[name=model]", "live")
    page.get_by_role("alert").filter(has_text="not known").wait_for()
    assert page.inner_text("#step") == "" and not page.locator("#grids").is_visible()


def test_it_prints_nothing_and_ctrl_c_ends_it_while_it_computes(tmp_path):
    with serving.program(tmp_path) as program:
        address = program.stdout.readline().split()[1]
        hole = serving.png([8 * [255], *7 * [8 * [0]]])
        fill = {"model": "digits", "picture": serving.sent(address, hole), "mask": serving.text(hole), "steps": 2}
        call = urllib.request.Request(f"{address}api/inpaint", to_json(fill), {"Content-Type": "application/json"})
        assert b"results" in urllib.request.urlopen(call).read()
        values = {"model": "digits", "sampler": "ancestral", "steps": 1000}
        call = urllib.request.Request(f"{address}api/sample", to_json(values), {"Content-Type": "application/json"})
        with urllib.request.urlopen(call) as lines:
            assert b"command" in lines.readline() and any(b"data:image/png" in line for line in lines)
            program.send_signal(signal.SIGINT)
            assert (program.wait(30), program.stderr.read()) == (0, "")


@pytest.mark.parametrize("name", ["sample", "compare", "train"])
def test_everybody_can_use_it(tab, name):
    page = tab(f"{name}#{MODEL}")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.querySelector('#settings button').getBoundingClientRect().bottom <= 720")
    assert serving.violations(page, (390, "light"), (1280, "dark")) == []
