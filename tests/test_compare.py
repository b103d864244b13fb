"""Several samplers side by side: one noise, what each costs, and the picture with its settings."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.compare import compare, parse, save_comparison
from unstir.diffusion.denoiser import Denoiser
from unstir.generate.drawing import Job, sample_batches
from unstir.pictures import grid
from unstir.pictures.grid import caption
from unstir.pixels import to_uint8
from unstir.runs.model import Model
from unstir.theory.schedule import cosine


def test_a_comparison_is_one_picture_with_what_each_costs(run, command, tmp_path, refused):
    text = "ancestral:20,ddim:5,dpmpp_2m:4:log_snr,heun:5"
    out = command.done("sample", run.path, "--num", 3, "--compare", text, "--out", tmp_path / "compared")
    lines = out.splitlines()
    assert [line.split(", ")[:-1] for line in lines[:4]] == [
        ["ancestral", "20 steps", "20 calls"], ["ddim", "5 steps", "5 calls"],
        ["dpmpp_2m", "log_snr", "4 steps", "4 calls"], ["heun", "5 steps", "9 calls"],
    ]  # fmt: skip
    assert lines[0].endswith(" s per image")
    with Image.open(tmp_path / "compared/compare.png") as picture:
        assert picture.size[1] >= 4 * 48
    assert not (tmp_path / "compared/000000.png").exists()
    few = ("sample", run.path, "--out", tmp_path / "none", "--compare")
    refused(command(*few, "ddim:21"), "compare ddim:21: steps=21 is outside 1..20")
    refused(command(*few, "foo:3"), "compare foo:3: sampler='foo' must be one of ancestral, ")


def test_a_comparison_has_its_settings_beside_it_and_other_settings_another_file(run, command):
    asked = [("ddim:5,heun:5",), ("ddim:5",), ("ddim:5", "--seed", 1), ("ddim:5", "--no-clip"), ("ddim:5", "--no-ema")]
    files = []
    for options in (*asked, *asked):
        out = command.done("sample", run.path, "--num", 3, "--compare", *options)
        files.append(Path(out.splitlines()[-1].split()[1]))
    assert files[:5] == files[5:] and len(set(files)) == 5 and all(file.is_file() for file in files)
    settings = json.loads(files[0].with_suffix(".json").read_text())
    assert settings["command"].split() == ["unstir", "sample", "--compare"]
    assert settings["steps"] == [5, 5] and settings["calls"] == [5, 9]
    assert [chain["sampler"] for chain in settings["compared"]] == ["ddim", "heun"] and len(settings["seconds"]) == 2
    assert settings["num"] == 3 and len(settings["weights"]) == 64
    assert "chain" not in settings  # the run's own was not used


def test_a_comparison_begins_every_row_from_the_jobs_own_noise(run):
    job = Job(num=3, chain=Chain(steps=20, seed=5))
    one, other, again = compare(
        run.model(), job, [Chain(steps=20, seed=1), Chain(steps=20, seed=2), Chain("ddim", steps=5)]
    )
    assert torch.equal(one.images, other.images) and not torch.equal(one.images, again.images)
    (_, alone), *_ = sample_batches(run.model(), job)
    assert torch.equal(one.images, to_uint8(alone)) and again.seconds > 0


def test_a_comparison_is_read_as_it_is_written():
    base = Chain(sampler="ddim", steps=7, spacing="linspace", eta=0.5, seed=3, clip=False)
    first, second = parse("ddim:5, unipc:10:log_snr", base)
    assert first == Chain(sampler="ddim", steps=5, spacing="linspace", eta=0.5, seed=3, clip=False)
    assert second == Chain(sampler="unipc", steps=10, spacing="log_snr", seed=3, clip=False)
    for text, key in (
        ("", "compare"), ("ddim", "compare"), ("ddim:x", "compare"), ("ddim:\u00b2", "compare"),
        ("plms:5", "sampler"), ("ddim:5:even", "spacing"), ("ancestral:3,dimm:3", "sampler"),
    ):  # fmt: skip
        refused = mistake(parse, text, base)
        assert refused.key == key
    assert "ddim" in refused.remedy and str(refused).startswith("compare dimm:3: sampler='dimm'")


def test_a_row_may_have_options_of_its_own():
    one, two, three, four = parse("ddim:5:eta=1,unipc:9:log_snr:order=2,unipc:9, ddim:5", Chain("ddim", eta=0.25))
    assert (one.eta, two.spacing, two.options, three.options, four.eta) == (1, "log_snr", {"order": 2}, {}, 0.25)
    for text, key in (("unipc:9:ordr=2", "options.ordr"), ("ddim:5:eta=x", "eta"), ("ddim:5:even:log_snr", "compare")):
        assert mistake(lambda text=text: parse(text, Chain())[0].visited(cosine(20))).key == key


def test_an_option_of_one_sampler_is_for_the_rows_that_take_it(trained, command, tmp_path):
    base = Chain("ddim", steps=3, eta=0.25)
    eta = [chain.eta for chain in parse("ddim:5,ancestral:5,ddim:9", base, {"eta": 1.0})]
    assert eta == [1.0, 0.0, 1.0] and parse("ddim:5", base)[0].eta == 0.25
    assert "eta=1.0" in str(mistake(parse, "unipc:3", base, {"eta": 1.0}))
    run, out = trained()[0], tmp_path / "made"
    asked = ("sample", run.path, "--num", 2, "--out", out, "--compare", "ddim:3,ancestral:3")
    status, said, _ = command(*asked, "--eta", 1)
    assert status == 0 and said.split(", ")[:3] == ["ddim", "eta 1", "3 steps"] and "\nancestral, 3 steps, " in said
    made = json.loads((out / "compare.json").read_text())["compared"]
    assert made[0]["eta"] == 1 and "eta" not in made[1] and made[1]["variance"] == "auto"


def test_the_seconds_are_those_of_an_image_and_of_its_own_chain_alone(run, monkeypatch):
    clock, call = [100.0], Denoiser.__call__

    def slow(self, x_t, t, *rest):
        clock[0] += 3.0  # a batch takes three seconds a call
        return call(self, x_t, t, *rest)

    monkeypatch.setattr(Denoiser, "__call__", slow)
    monkeypatch.setattr("unstir.compare.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    job = Job(num=10, chain=Chain(steps=20), batch_size=4)  # three batches
    rows = compare(run.model(), job, [Chain("ddim", steps=5), Chain(steps=20), Chain("heun", steps=5)])
    assert [row.cost.calls for row in rows] == [5, 20, 9]
    assert [row.seconds for row in rows] == [pytest.approx(3 * 3 * calls / 10) for calls in (5, 20, 9)]
    assert rows[0].caption.split(", ") == ["ddim", "5 steps", "5 calls", "4.5 s per image"]


def test_a_caption_with_guidance_is_drawn_whole(run, command, monkeypatch):
    drawn = []
    monkeypatch.setattr(Model, "besides", lambda *_: ", computed for two conditions (guidance) at t = 100 to 900")
    monkeypatch.setattr(grid, "caption", lambda name, *given: drawn.append((name, caption(name, *given))) or name)
    assert command("sample", run.path, "--num", 2, "--compare", "dpmpp_2m_sde:15,ancestral:20")[0] == 0
    assert len(drawn) == 2 and all("guidance" in name and name == shown for name, shown in drawn)


def test_many_images_of_a_comparison_come_in_lines_of_sixteen(run, command, tmp_path):
    ask = ("sample", run.path, "--num", 40, "--compare", "ddim:2,unipc:2", "--out", tmp_path / "two")
    sizes = []
    for options in ((), ("--scale", 10), ("--scale", 1)):
        assert command(*ask, *options)[0] == 0
        with Image.open(tmp_path / "two/compare.png") as picture:
            sizes.append(picture.size)
    assert sizes[0][0] < 17 * 50 + 300
    assert [height for _, height in sizes] == [2 + 6 * (tile + 2) for tile in (48, 80, grid.LINE)]
    with refusing("scale", 65, {"scale": None}):
        save_comparison(run.model(), Job(num=2, chain=Chain()), "ddim:2", tmp_path / "two", scale=65)


def test_a_job_that_cannot_be_done_is_refused_before_anything_is_drawn(trained, command, tmp_path, refused):
    run, _ = trained(model__num_classes=10)
    refused(command("sample", run.path, "--compare", "ddim:3", "--stages", 0), "--stages")
    job = Job(num=2, chain=Chain(steps=3), label=99)
    assert "99" in str(mistake(save_comparison, run.model(), job, "ddim:3", tmp_path / "none"))
    assert "99" in str(mistake(compare, run.model(), job, [Chain(steps=3)]))
    assert not (tmp_path / "none").exists()
