"""`unstir sample`: samplers, variances and guidance as a person asks for them, and the way from noise to images."""

import itertools
import json

import pytest
import torch
from PIL import Image

import unstir
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.draw import starting_noise
from unstir.generate import folder as folders
from unstir.generate import sampling
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import read_images, save_images
from unstir.generate.trajectories import trajectory
from unstir.pictures.animation import save_animation, strip
from unstir.pictures.charts import evenly
from unstir.pictures.grid import grid
from unstir.pixels import to_uint8
from unstir.runs.files import decode, encode
from unstir.train import trainer

LEARNED = {"diffusion__learned_variance": True, "loss__objective": "hybrid"}
GUIDED = {"model__num_classes": 10, "train__condition_dropout": 0.5}


def test_sampling_from_a_learned_variance(trained, command, tmp_path, refused):
    run, _ = trained("learned", **LEARNED)
    made = {}
    for variance in ("auto", "learned", "small"):
        folder = tmp_path / f"made-{variance}"
        assert command("sample", run.path, "--num", 4, "--variance", variance, "--out", folder)[0] == 0
        made[variance] = (folder / "grid.png").read_bytes()
    assert made["auto"] == made["learned"] != made["small"]
    fixed, _ = trained("fixed")
    refused(command("sample", fixed.path, "--variance", "learned"), "--variance learned")
    assert not (fixed.path / "generated").exists()


def test_sampling_with_ddim_needs_no_noise_on_the_way(run, command, tmp_path):
    made = {}
    for name, options in {"ddim": (), "again": (), "half": ("--eta", 0.5), "chain": ()}.items():
        sampler = "ancestral" if name == "chain" else "ddim"
        folder = tmp_path / name
        status = command("sample", run.path, "--num", 4, "--sampler", sampler, "--out", folder, *options)[0]
        assert status == 0
        made[name] = (folder / "grid.png").read_bytes()
    assert made["ddim"] == made["again"] and len(set(made.values())) == 3


def test_guidance_changes_the_images_and_is_refused_where_it_cannot_be(trained, command, refused, tmp_path):
    run, _ = trained("guided", **GUIDED)
    made = {}
    for name, options in {
        "1": (),
        "3": ("--guidance", 300),
        "late": ("--guidance", 300, "--guidance-high", 10),
    }.items():
        folder = tmp_path / f"made-{name}"
        command.done("sample", run.path, "--num", 10, "--no-clip", "--out", folder, *options)
        made[name] = (folder / "grid.png").read_bytes()
    assert len(set(made.values())) == 3
    settings = json.loads((tmp_path / "made-3/settings.json").read_text())
    assert settings["chain"]["guidance"] == 300 and settings["guide"] is None
    plain, _ = trained("plain")
    refused(command("sample", plain.path, "--guidance", 2), "--guidance 2 needs")
    refused(command("sample", plain.path, "--guidance", "nan"), "--guidance nan must be")
    assert not (plain.path / "generated").exists()


def test_an_image_of_a_later_batch_has_a_noise_and_a_class_of_its_own(trained):
    run, _ = trained("guided", **GUIDED)
    model, chain = run.model(), Chain("ddim", steps=4, guidance=300.0, clip=False)

    def drawn(batch_size, **options):
        job = Job(num=10, chain=chain, batch_size=batch_size, **options)
        return torch.cat([images for _, images in sample_batches(model, job)])

    together, in_batches = drawn(10), drawn(4)
    assert torch.allclose(in_batches, together, atol=1e-3)
    for others in (together.roll(4, 0), drawn(10, label=1)):  # of another noise, of another class
        assert not torch.isclose(in_batches, others, atol=1e-2).flatten(1).all(1)[4:].any()


def test_hidden_labels_are_chosen_per_image_and_only_in_training(trained, watched):
    run, store = trained("guided", train__length="1 step", train__batch_size=64, train__micro_batch=0, **GUIDED)
    calls = watched(trainer, "denoising_loss")
    made = trainer.Trainer(run, store)
    for _ in range(4):
        made.take_step()
    hidden = [(label == 10).float().mean().item() for _, _, _, _, label, *_ in calls]
    assert all(0.2 < share < 0.8 for share in hidden) and len(set(hidden)) > 1
    assert made.state.net.label.weight.shape[0] == 11


def test_the_help_says_what_the_chain_is_by_default(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    for words in (("sample",), ("edit", "vary"), ("edit", "morph"), ("edit", "inpaint"), ("edit", "invert")):
        status, out, _ = command(*words, "--help")
        text = " ".join(out.replace("│", " ").split())
        assert status == 0 and "[grids]" in text, out
        assert ("steps 50" in text) == (words != ("edit", "inpaint")) and "clip yes" in text
        assert ("spacing trailing" in text) == (words != ("edit", "invert"))
        assert ("guidance 1" in text) == (words != ("edit", "invert"))
        assert ("sampler ancestral" in text) == (words[-1] in ("sample", "vary", "morph"))


def test_the_way_is_shown_as_an_animation_and_a_strip(run, command, refused, tmp_path):
    shown = ("--animate", tmp_path / "new/way.webp", "--strip", tmp_path / "new/way.png", "--stages", 5)
    out = command.done("sample", run.path, "--num", 3, "--steps", 20, *shown, "--out", tmp_path / "images")
    assert "way.webp" in out and "way.png" in out
    assert (tmp_path / "new/way.webp.json").is_file() and (tmp_path / "new/way.json").is_file()
    with Image.open(tmp_path / "new/way.webp") as moving, Image.open(tmp_path / "new/way.png") as still:
        assert moving.n_frames == 21 and moving.size[0] > 2 * 48
        assert still.size[0] >= 5 * 48 and still.size[1] >= 6 * 48
    for wrong, words in (
        (("--animate", tmp_path / "way.mp4"), ".webp or .gif"),
        (("--strip", tmp_path / "s.png", "--compare", "ddim:5"), "leave out"),
        (("--strip", tmp_path / "s.png", "--stages", 1), "--stages 1 must be at least 2"),
    ):
        refused(command("sample", run.path, "--num", 3, *wrong), words)


def test_grids_and_the_way_are_enlarged_by_a_whole_number(run, command, tmp_path):
    files = {name: tmp_path / name for name in ("way.png", "way.webp")}
    draw = ("sample", run.path, "--num", 2, "--steps", 2, "--out", tmp_path / "made", "--scale")
    sizes = []
    for scale in (1, 3):
        command.done(*draw, scale, "--strip", files["way.png"], "--animate", files["way.webp"])
        sizes.append([])
        for path in (tmp_path / "made/grid.png", *files.values()):
            with Image.open(path) as picture:
                sizes[-1].append(picture.height)
    one, three = sizes
    assert [b - a for a, b in zip(one, three, strict=True)] == [2 * 8, 2 * 4 * 8, 2 * 8]  # rows of 8 pixels
    assert command(*draw, 0)[0] == 2


def test_what_cannot_be_used_is_refused_before_anything_is_drawn(run, command, refused, tmp_path, monkeypatch):
    file, broken = tmp_path / "file", tmp_path / "broken"
    file.write_text("")
    broken.mkdir()
    (broken / "settings.json").write_text("{")
    (tmp_path / "folder.webp").mkdir()
    monkeypatch.setattr("unstir.runs.model.Model.denoiser", property(lambda _: pytest.fail("something was drawn")))
    for options, words in (
        (("--out", file), f"--out {file} is a file; name a folder"),
        (("--out", file / "deeper"), "Not a directory; name another"),
        (("--out", broken), "settings.json is broken; name another folder"),
        (("--out", file, "--compare", "ddim:5"), "file is a file; name another"),
        (("--strip", file / "new/s.png"), "file is a file; name another"),
        (("--animate", tmp_path / "folder.webp"), "folder.webp is a folder; name a file"),
        (("--num", 10**9), "--num 1000000000 is outside 1..100000000"),
    ):
        refused(command("sample", run.path, *options), words)


def test_options_without_effect_are_refused(trained, command, refused):
    led, _ = trained("led", grids__guidance=3.0, grids__guidance_low=4, grids__guidance_high=9, **GUIDED)
    assert (led.chain().guidance_low, led.chain().guidance_high) == (4, 9)
    refused(command("sample", led.path, "--stages", 4), "--stages 4 is of a strip")
    assert command("sample", led.path, "--num", 2)[0] == 0
    assert command("sample", led.path, "--num", 2, "--guidance", 1)[0] == 0  # the run's interval goes with its scale


def test_the_pictures_of_the_way_do_not_replace_images_or_foreign_files(run, command, tmp_path):
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"precious")
    for option, file in (("--strip", mine), ("--strip", "OUT/grid.png"), ("--strip", "OUT/000000.png")):
        out = tmp_path / "new"
        ask = ("sample", run.path, "--num", 2, option, str(file).replace("OUT", str(out)), "--out", out)
        out.mkdir(exist_ok=True)
        status, _, err = command(*ask)
        assert status == 2 and "name another" in err and not list(out.iterdir()), err
    assert mine.read_bytes() == b"precious"
    for seed in (0, 1):  # its own are replaced
        ask = ("sample", run.path, "--num", 2, "--seed", seed, "--strip", tmp_path / "own.png")
        assert command(*ask)[0] == 0
        assert json.loads((tmp_path / "own.json").read_text())["chain"]["seed"] == seed


def test_the_cost_of_guidance_is_said(trained, command, tmp_path):
    run, _ = trained("guided", **GUIDED)
    said, kept = {}, {}
    for name, cost, options in (
        ("plain", "", ()),
        ("guide", ", and as many of the guide", ("--guidance", 2, "--guide", 8)),
    ):
        said[name] = command("sample", run.path, "--num", 2, "--out", tmp_path / name, *options)[1].splitlines()[-1]
        kept[name] = json.loads((tmp_path / name / "settings.json").read_text())["cost"]
        assert said[name].endswith(f" 3 calls each{cost}")
    assert [text.replace("calls", "calls each") for text in kept.values()] == [
        text.partition(f"{tmp_path / name}, ")[2] for name, text in said.items()
    ]


def test_a_long_chain_that_nobody_asked_for_is_said_with_a_shorter_one(run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "LONG", 2)
    said = [
        command("sample", run.path, "--num", 2, "--out", tmp_path / str(number), *options)[2]
        for number, options in enumerate([(), ("--steps", 3), ("--sampler", "ddim")])
    ]
    assert "3 calls" in said[0] and "its settings" in said[0] and "sampler=unipc" in said[0]
    assert "its settings" not in said[1] + said[2]


def test_comparisons_say_the_cost_of_guidance_as_sampling_does(trained, command, tmp_path):
    run, _ = trained("guided", **GUIDED)
    ask = ("--num", 1, "--guidance", 2, "--guide", 8)
    out = command("sample", run.path, *ask, "--compare", "ddim:5,heun:2", "--out", tmp_path / "compared")[1]
    costs = json.loads((tmp_path / "compared/compare.json").read_text())["cost"]
    assert [cost.split(", ")[:2] for cost in costs] == [["5 steps", "5 calls"], ["2 steps", "3 calls"]]
    assert all(cost.endswith(" guide") for cost in costs)
    assert all(cost in line for cost, line in zip(costs, out.splitlines(), strict=False))


def test_every_file_of_settings_says_which_command_and_version_made_it(run, command, tmp_path):
    assert command("sample", run.path, "--num", 1, "--strip", tmp_path / "s.png", "--out", tmp_path / "made")[0] == 0
    assert command("sample", run.path, "--num", 1, "--compare", "ddim:2", "--out", tmp_path / "compared")[0] == 0
    assert command("edit", "vary", run.path, tmp_path / "s.png", "--num", 1, "--out", tmp_path / "e.png")[0] == 0
    for file, by in {
        "made/settings.json": "unstir sample",
        "s.json": "unstir sample",
        "compared/compare.json": "unstir sample --compare",
        "e.json": "unstir edit vary",
    }.items():
        kept = json.loads((tmp_path / file).read_text())
        assert list(kept)[:2] == ["command", "unstir"] and "cost" in kept
        assert (kept["command"], kept["unstir"]) == (by, unstir.__version__)


def test_images_of_another_sampler_are_refused_by_its_name_alone(run, command, refused, tmp_path):
    ask = ("sample", run.path, "--num", 1, "--out", tmp_path / "made", "--sampler")
    assert command(*ask, "ddim", "--eta", 0.5)[0] == 0
    for sampler, key in (("ancestral", "sampler"), ("ddim", "eta")):
        refused(command(*ask, sampler), f"(chain.{key} ")
    refused(command(*ask, "ddim", "--eta", 0.5, "--steps", 5, "--seed", 7), "(chain.steps ", " chain.seed ")
    file = tmp_path / "made/settings.json"
    file.write_text(encode(decode(file.read_bytes()) | {"unstir": "0.0.1"}))  # another version decides no pixel
    assert command(*ask, "ddim", "--eta", 0.5)[0] == 0


def test_a_job_that_goes_on_says_in_what_batches(run, command, tmp_path):
    assert command("sample", run.path, "--num", 2, "--batch-size", 2, "--out", tmp_path / "made")[0] == 0
    status, _, err = command("sample", run.path, "--num", 4, "--batch-size", 3, "--out", tmp_path / "made")
    assert status == 0 and "batches of 2" in err


def test_an_interrupted_job_says_what_becomes_of_it(run, command, tmp_path, watched):
    watched(folders, "batch", KeyboardInterrupt())
    status, _, err = command("sample", run.path, "--num", 2, "--out", tmp_path / "made")
    assert status == 130 and "interrupted; " in err and "Traceback" not in err


def noise_of(run, seed, num):
    """What images 0..num-1 of a seed begin as, in pixels."""
    return to_uint8(starting_noise(seed, torch.arange(num), run.data.shape))


@pytest.fixture
def batches(monkeypatch):
    """A list that grows by the size of each batch that a denoiser is asked about."""
    asked, call = [], Denoiser.__call__

    def counted(self, x_t, t, *rest):
        asked.append(len(x_t))
        return call(self, x_t, t, *rest)

    monkeypatch.setattr(Denoiser, "__call__", counted)
    return asked


def test_the_noise_beside_the_images_is_that_of_their_seed(trained, command, tmp_path):
    run, _ = trained(train__length="1 step", grids__nrow=5)
    for seed, num in ((0, 3), (1, 3), (7, 70)):
        out, shown = tmp_path / f"seed{seed}", min(num, 64)
        options = ("--seed", seed, "--num", num, "--sampler", "ddim", "--steps", 1, "--out", out)
        assert command("sample", run.path, *options)[0] == 0
        for name, images in (("noise", noise_of(run, seed, shown)), ("grid", read_images(out, shown))):
            with Image.open(out / f"{name}.png") as picture:
                assert picture.tobytes() == grid(images, nrow=5).tobytes()
    assert not torch.equal(noise_of(run, 0, 3), noise_of(run, 1, 3))


@pytest.mark.parametrize("batch_size", [4, 64])
def test_the_way_leads_from_the_noise_to_the_images_that_the_job_writes(trained, tmp_path, batches, counts, batch_size):
    run, _ = trained(train__length="1 step")
    job = Job(num=10, chain=Chain("ddim", steps=10, seed=3, clip=False), batch_size=batch_size)
    batches.clear()
    model = run.model()
    save_images(model, job, tmp_path / "made")
    written = batches.copy()
    every = trajectory(model, job, 10)
    for shown, limit in itertools.product((2, 4, 64), (2, 3, 60)):
        batches.clear()
        counts.clear()
        count = min(shown, 10)
        frames = trajectory(model, job, shown, limit=limit)
        seen = [every[i] for i in evenly(11, limit)]
        assert all(torch.equal(frame.x0, whole.x0[:count]) for frame, whole in zip(frames, seen, strict=True))
        assert torch.equal(frames[0].x, noise_of(run, 3, count))
        assert torch.equal(frames[-1].x, read_images(tmp_path / "made", count))
        assert [frame.t for frame in frames] == [range(20, -1, -2)[i] for i in evenly(11, limit)]
        assert {len(images) for frame in frames for images in (frame.x, frame.x0)} == {count}
        made = 10 * -(-count // batch_size)  # ten calls a batch, and no batch without an image that is shown
        assert batches == written[:made] and counts == [
            ("drawing trajectories", done, made) for done in range(1, made + 1)
        ]


@pytest.mark.parametrize(
    ("which", "options"),
    [({}, {"label": 3}), ({}, {"shares": (1, 0, 0, 5, 0, 0, 0, 0, 0, 1)}), ({"ema": False}, {}), ({"guide": "1"}, {})],
)
def test_the_way_is_labelled_guided_and_averaged_as_the_job_is(trained, tmp_path, which, options):
    run, _ = trained(**GUIDED)
    chain = Chain(steps=5, seed=2, guidance=30.0)
    job = Job(num=6, chain=chain, batch_size=4, **options)
    model = run.model(**which)
    save_images(model, job, tmp_path / "made")
    made = read_images(tmp_path / "made", 6)
    assert torch.equal(trajectory(model, job, 6)[-1].x, made)
    usual = Job(num=6, chain=chain, batch_size=4)
    assert not torch.equal(trajectory(run.model(), usual, 6)[-1].x, made)


def test_the_files_that_show_the_way_are_those_of_the_jobs_frames(trained, command, tmp_path):
    run, _ = trained(train__length="1 step", grids__nrow=3)
    files = tmp_path / "a.webp", tmp_path / "s.png"
    options = ("--num", 10, "--batch-size", 4, "--seed", 5, "--steps", 20, "--stages", 3)
    shown = ("--animate", files[0], "--strip", files[1], "--out", tmp_path / "made")
    command.done("sample", run.path, *options, *shown)
    job = Job(num=10, chain=Chain(steps=20, seed=5), batch_size=4)
    save_animation(trajectory(run.model(), job, 10), tmp_path / "own.webp", nrow=3)
    assert files[0].read_bytes() == (tmp_path / "own.webp").read_bytes()
    first = trajectory(run.model(), job, 8)
    assert torch.equal(first[-1].x, read_images(tmp_path / "made", 8))
    with Image.open(files[1]) as picture:
        assert picture.tobytes() == strip(first, 3).tobytes()
