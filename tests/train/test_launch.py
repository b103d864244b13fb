"""What a run is made of before its first step, by the recipe photos too, its initial weights, and what may change."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import DISTILLED, tiny_config
from refusals import mistake, refused, refusing
from unstir.data import pack
from unstir.data.manifest import PACK_AGAIN
from unstir.errors import UserError
from unstir.runs.recipes import load_recipe
from unstir.runs.run import Run
from unstir.runs.sections import DataConfig
from unstir.runs.timetable import learning_rates
from unstir.train import launch, photos
from unstir.train.launch import check_sides, open_data, open_run, store_path, train_run
from unstir.train.observer import Stop
from unstir.train.photos import BATCH, ENOUGH, MANY, Size, chosen, for_minutes, seen, snapshots
from unstir.train.trainer import Trainer


def test_both_sides_are_multiples_of_the_networks(tmp_path):
    network, data = SimpleNamespace(multiple=4, mults=(1, 2, 2), attention=(1, 2), is_unet=True), DataConfig()
    config = SimpleNamespace(model=network, data=data)
    for sides in ((4, 8), (8, 4), (4, 4)):
        check_sides(config, *sides)
    two, one = ((1, 2), [1]), ((1,), [0])
    nearest = {(4, 6): "4x8", (6, 4): "8x4", (3, 8): "4x8", (7, 7): 8, (5, 9): "4x8"}
    wrong = {sides: (size, two if sides in ((4, 6), (6, 4)) else one) for sides, size in nearest.items()}
    for sides, (size, (mults, attention)) in wrong.items():
        mend = {"data.size": size}, {"model.mults": mults, "model.attention": attention}
        with refusing("model.mults", (1, 2, 2), mend):
            check_sides(config, *sides)
    (tmp_path / "train.images.npy").touch()
    config.data = DataConfig(source=str(tmp_path))  # a packed store, of which no other size can be asked
    refused = mistake(check_sides, config, 7, 7)
    again, fewer = refused.remedy
    assert again.endswith("size=8") and fewer == mend[1]


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (DataConfig(source="digits", channels=1), r"digits"),
        (DataConfig(source="digits", channels=1, flip=True), r"digits"),
        (DataConfig(source="cifar10", channels=3), r"cifar10"),
        (DataConfig(source="cifar10", channels=1), r"cifar10-[0-9a-f]{6}"),
        (DataConfig(source="digits", channels=1, size=16), r"digits-[0-9a-f]{6}"),
        (DataConfig(source="photos.tar.gz", channels=3), r"photos-[0-9a-f]{6}"),
        (DataConfig(source="photos.zip", channels=3), r"photos-[0-9a-f]{6}"),
    ],
)
def test_packed_data_has_the_name_of_its_source_and_a_hash_of_what_is_unusual(data, pattern):
    path = store_path(data)
    assert path.parent == Path("data") and re.fullmatch(pattern, path.name)
    assert store_path(replace(data, store="there")) == Path("there")
    if "-" in path.name:
        others = [replace(data, size=8), replace(data, held_out=0.3), replace(data, source="other/photos.zip")]
        assert len({path, *map(store_path, others)}) == 4


@pytest.mark.parametrize(
    ("schedule", "length", "warmup", "asked", "period"),
    [
        ("cosine", 20, 3, 0, 17), ("cosine", 20, 3, 17, 17), ("cosine", 4, 3, 0, 1), ("wsd", 20, 3, 0, 4),
        ("wsd", 4, 3, 0, 1), ("wsd", 20, 3, 17, 17), ("constant", 20, 3, 0, 0),
    ],
)  # fmt: skip
def test_a_period_is_the_rest_or_a_fifth_of_the_run(make_run, schedule, length, warmup, asked, period):
    spans = {"length": length, "warmup": warmup, "lr_period": asked}
    changes = {f"train__{name}": f"{number} steps" for name, number in spans.items()}
    run, _ = make_run(train__lr_schedule=schedule, **changes)
    assert run.steps_in(run.config.train.lr_period) == period


def test_a_run_that_is_further_than_asked_is_left_as_it_is(make_run, digits, monkeypatch):
    run, store = make_run(train__length="20 steps", train__lr_schedule="constant")
    monkeypatch.setattr(launch.checkpoint, "listed", lambda *_: [(3, None), (10, None)])
    for length, kept in ((9, 20), (10, 10), (15, 15)):
        asked = tiny_config(digits, train__length=f"{length} steps", train__lr_schedule="constant")
        assert open_run(asked, run.path, store).length == length and run.open(run.path).length == kept
    changed = [line for line in run.log("events").lines if line["event"] == "changed"]
    assert [line["train.length"] for line in changed] and len(changed) == 2
    open_run(asked, run.path, store)  # with what it has already
    assert run.log("events").lines[-1] == changed[-1]


@pytest.mark.parametrize(
    ("height", "width", "size", "fits"),
    [(8, 8, 0, True), (8, 8, 8, True), (8, 16, 8, False), (16, 8, 8, False), (16, 8, 0, True)],
)
def test_images_have_the_size_that_was_asked_for(digits, tmp_path, height, width, size, fits):
    images = np.arange(20 * height * width, dtype=np.uint8).reshape(20, height, width)
    store = pack(images, tmp_path / "store", channels=1)
    with nullcontext() if fits else refusing("data.size", size):
        open_run(tiny_config(digits, data__size=size), tmp_path / "run", store)


@pytest.mark.parametrize(
    ("length", "words"), [("99 epochs", []), ("100 epochs", ["100 passes over 1498 images: expect copies of these"])]
)
def test_copies_are_expected_of_few_images_that_are_seen_often(make_run, monkeypatch, logged, length, words):
    monkeypatch.setattr(launch, "FEW", 1499)  # more than the digits have
    run, _ = make_run(train__length=length, train__batch_size=14, grids__log_spaced=0)
    stop = Stop()
    stop.request(2)
    train_run(run.config, run.path, stop=stop)
    assert [text.partition(".")[0] for text in logged[1:]] == words
    monkeypatch.setattr(launch, "FEW", 1498)
    train_run(run.config, run.path, stop=stop)
    assert not any(": expect copies" in text for text in logged[len(words) + 1 :])


def test_a_process_whose_noise_gives_no_image_is_refused_before_the_run_is_made(make_run, tmp_path):
    with pytest.raises(UserError, match="predict="):
        make_run("dark", diffusion__T=1000, diffusion__options={"beta_1": 0.01, "beta_T": 0.5})
    with pytest.raises(UserError, match="predict="):
        dark = {"diffusion__T": 1000, "diffusion__options": {"beta_1": 0.01, "beta_T": 0.5}}
        make_run("dark", **dark, **DISTILLED, loss__teacher="eps")
    assert not list(tmp_path.glob("dark*"))


def settings(schedule, length, **changes):
    return {"train__lr_schedule": schedule, "train__length": length, "train__warmup": "1 step", **changes}


def continued(run, store, digits, **asked):
    """The run as it goes on with these settings."""
    return open_run(tiny_config(digits, **asked), run.path, store)


@pytest.mark.parametrize(("schedule", "period"), [("cosine", "3 steps"), ("wsd", "1000 steps")])
def test_a_run_that_goes_on_takes_no_fall_that_a_new_one_does_not(make_run, digits, schedule, period):
    run, store = make_run("run", **settings(schedule, "12 steps"))
    before = run.config
    for name in ("new", "run"):
        with refusing("train.lr_period", period, {"train.lr_period": "11 steps"}):
            make_run(name, **settings(schedule, "12 steps", train__lr_period=period))
    assert Run.open(run.path).config == before
    kept = continued(run, store, digits, **settings(schedule, "12 steps", train__lr_period="11 steps"))
    assert kept.config.train.lr_period == "11 steps"


def test_a_cosine_that_goes_on_beyond_its_end_asks_for_its_new_length(make_run, digits):
    run, store = make_run("run", **settings("cosine", "12 steps"))
    with refusing("train.length", remedy={"train.length": "20 steps", "train.lr_period": "19 steps"}):
        continued(run, store, digits, **settings("cosine", "20 steps"))
    longer = continued(run, store, digits, **settings("cosine", "20 steps", train__lr_period="19 steps"))
    assert longer.length == 20


def test_a_run_is_made_shorter_whatever_its_fall(make_run, digits):
    for schedule in ("cosine", "wsd"):
        run, store = make_run(schedule, **settings(schedule, "12 steps"))
        assert continued(run, store, digits, **settings(schedule, "3 steps")).length == 3


def test_a_rate_that_stands_still_within_an_epoch_falls_all_the_same(make_run, digits):
    per_epoch = make_run("any")[0].steps_per_epoch
    by_epoch = {"train__lr_every": "epoch", "train__lr": 1e-3}
    run, _ = make_run("wsd", **settings("wsd", "3 epochs", **by_epoch))
    assert run.config.train.lr_period == f"{2 * per_epoch} steps"
    rates = [learning_rates(run)(epoch * per_epoch) for epoch in range(3)]
    assert rates[1:] == pytest.approx([1e-3, 0.5e-3])
    make_run("a part of a longer cosine", **settings("cosine", "1 epoch", **by_epoch, train__lr_period="9 epochs"))


def test_a_run_that_goes_on_is_told_what_it_may_change(make_run, digits):
    short, store = make_run("short", train__lr_schedule="wsd", train__length="20 steps", train__warmup="10 steps")
    fewer = {"train__lr_schedule": "wsd", "train__length": "5 steps", "train__warmup": "10 steps"}
    with refusing("train.lr_period", "3 steps", {"train.lr_period": None}):
        continued(short, store, digits, **fewer, train__lr_period="3 steps")
    assert continued(short, store, digits, **fewer).length == 5


def test_a_constant_rate_has_no_fall(make_run, digits):
    run, store = make_run("run", **settings("constant", "12 steps"))
    asked = settings("constant", "12 steps", train__lr_period="3 steps")
    for go in (lambda: make_run("new", **asked), lambda: continued(run, store, digits, **asked)):
        with refusing("train.lr_period", "3 steps"):
            go()


@pytest.fixture
def run(tmp_path):
    """A run on a folder of images that are packed; (config, run folder, store folder, folder of images)."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), i).save(photos / f"{i}.png")
    config = tiny_config(tmp_path / "store", data__source=str(photos))
    store = open_data(config, tmp_path / "run")
    open_run(config, tmp_path / "run", store)
    return config, tmp_path / "run", tmp_path / "store", photos


def test_store_and_source_that_have_gone_are_asked_for_by_data_store(run, tmp_path):
    config, out, store, photos = run
    store.rename(tmp_path / "moved")
    photos.rename(tmp_path / "elsewhere")
    with refusing("data.store", store):
        open_data(config, out)
    moved = tiny_config(tmp_path / "moved", data__source=str(photos))
    assert open_data(moved, out).path == tmp_path / "moved"


@pytest.mark.parametrize("given", [{"sha256": "0" * 64}, {"conditions": "rows.csv", "condition": "stored"}])
def test_what_is_of_files_is_not_taken_for_that_of_a_store(run, tmp_path, given):
    _, _, store, _ = run
    config, name = (
        tiny_config("", data__source=str(store), **{f"data__{key}": it for key, it in given.items()}),
        next(iter(given)),
    )
    assert mistake(open_data, config, tmp_path / "new").remedy == {f"data.{name}": None}


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"train__batch_size": 21}, "train.batch_size"),
        ({"train__length": "1 epoch", "train__warmup": "9 steps"}, "train.length"),
        ({"model__num_classes": 3}, "model.num_classes"),
        ({}, "by_class"),
    ],
)
def test_settings_that_the_data_does_not_allow_are_refused_before_an_image_is_decoded(tmp_path, asked, key):
    (tmp_path / "photos").mkdir()
    for number in range(20):
        (tmp_path / f"photos/{number}.png").write_bytes(b"no image at all")
    config = tiny_config(tmp_path / "store", data__source=str(tmp_path / "photos"), data__size=8, **asked)
    assert mistake(train_run, config, tmp_path / "run", by_class=key == "by_class").key == key
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_split_without_training_images_is_refused_before_packing(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images[:0], x_test=images)
    config = tiny_config(tmp_path / "store", data__source=str(tmp_path / "x.npz"))
    assert mistake(open_data, config, tmp_path / "run").given == str(tmp_path / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_damaged_store_of_a_run_is_said_and_no_other_is_packed(run, tmp_path):
    config, out, store, _ = run
    manifest = store / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    before = {path.name for path in tmp_path.iterdir()}
    assert PACK_AGAIN in str(mistake(open_data, config, out))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_path_with_a_nul_is_one_line(tmp_path):
    config = tiny_config(tmp_path / "store")
    for section in ({"source": "a\0b"}, {"source": "a\0b", "store": ""}, {"store": "a\0b"}):
        with pytest.raises(UserError, match="a path"):
            open_data(replace(config, data=replace(config.data, **section)), tmp_path / "run")


def same(state, weights):
    return all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_a_run_gives_its_newest_weights_or_those_of_a_step(trained, make_run, logged):
    first, _ = trained(train__lr=0.01)
    file = first.checkpoints / "step-00000012.safetensors"
    for name, text, step in (("newest", str(first.path), 12), ("file", str(file), 12), ("early", f"{first.path}@1", 1)):
        begun = Trainer(*make_run(name, train__init=text)).state
        weights = first.model(step=step).denoiser.net.state_dict()
        assert same(begun.net.state_dict(), weights) and same(begun.average.state_dict(), weights)
        assert logged == []
    assert not same(begun.net.state_dict(), first.model().denoiser.net.state_dict())


def test_a_run_keeps_to_the_step_that_it_was_made_with_though_the_other_one_trained_on(trained, make_run):
    first, _ = trained(train__lr=0.01)
    begun, _ = make_run("later", train__init=str(first.path))
    weights = first.model().denoiser.net.state_dict()
    trained(train__lr=0.01, train__length="14 steps")
    assert first.newest_step() == 14
    for text in (first.path, f"{first.path}@12"):
        run, store = make_run("later", train__init=str(text))
        assert run.config.train.init == begun.config.train.init == f"{first.path.resolve()}@12"
    assert same(Trainer(run, store).state.net.state_dict(), weights)
    assert mistake(make_run, "later", train__init=f"{first.path}@14").key == "train.init"


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_a_conditional_run_begins_from_an_unconditional_one_and_names_what_is_new(trained, make_run, logged, hidden):
    first, _ = trained(train__lr=0.01)
    classes = {"model__num_classes": 10, "train__condition_dropout": hidden}
    fresh = Trainer(*make_run("fresh", **classes)).state.net.state_dict()
    run, store = make_run("guided", train__init=str(first.path), **classes)
    begun = Trainer(run, store).state
    assert same(begun.net.state_dict(), first.model().denoiser.net.state_dict())
    assert torch.equal(begun.net.state_dict()["label.weight"], fresh["label.weight"])
    assert torch.equal(begun.average.state_dict()["label.weight"], fresh["label.weight"])
    assert len(logged) == 1 and "label.weight" in logged[0]
    assert Trainer(run, store).run()


def test_a_run_that_tells_of_augmentation_begins_from_one_that_does_not_and_draws_as_it(trained, make_run):
    first, _ = trained(train__lr=0.01)
    run, store = make_run("told", train__init=str(first.path), train__augment=0.5)
    begun = Trainer(run, store).state
    assert same(begun.net.state_dict(), first.model().denoiser.net.state_dict())
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 9])
    with torch.no_grad():
        assert torch.equal(begun.average(x, t), first.model().denoiser.net(x, t))
    assert Trainer(run, store).run() and "augment.weight" in run.model().denoiser.net.state_dict()
    with refusing("train.init", str(run.path)):
        Trainer(*make_run("untold", train__init=str(run.path)))


def test_a_run_without_labels_begins_as_one_by_class_whose_labels_are_hidden(trained, make_run):
    first, _ = trained(train__lr=0.01, model__num_classes=10, train__condition_dropout=0.5)
    begun = Trainer(*make_run("plain", train__init=str(first.path))).state
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 9])
    with torch.no_grad():
        hidden = first.model().denoiser.net(x, t, torch.tensor([10, 10]))
        assert torch.allclose(begun.average(x, t), hidden, atol=1e-6)


CLASSES = {"model__num_classes": 10}


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({}, {"model__channels": 16}, "does not fit the network: model.channels is 8 there, 16 here ("),
        ({}, {"model__num_blocks": 2}, "model.num_blocks is 1 there, 2 here"),
        ({}, {"diffusion__learned_variance": True, "loss__objective": "hybrid"}, "learned_variance is False there"),
        (CLASSES, {**CLASSES, "train__condition_dropout": 0.5}, "is 10 there, 11 here"),
        (CLASSES, {}, "is 10 there, 0 here"),
    ],
)
def test_weights_of_another_structure_are_refused_by_their_settings(trained, make_run, there, here, words):
    first, _ = trained(**there)
    raised = mistake(make_run, "second", train__init=str(first.path), **here)
    assert words in str(raised) and "\n" not in str(raised)
    assert not (first.path.parent / "second").exists()


def test_what_is_no_run_and_no_step_is_refused(trained, make_run):
    first, _ = trained()
    folder = first.path.parent
    for text, *fault in (("nowhere", "train.init"), (f"{first.path}@7", "step", 7), (str(folder), "", folder)):
        with refusing(*fault):
            make_run("second", train__init=text)
        assert not (first.path.parent / "second").exists()


SMALL, MIDDLE, LARGE = Size(32, 32), Size(32, 64), Size(64, 64)
SPEEDS = {SMALL: 200.0, MIDDLE: 70.0, LARGE: 15.0}
BORDER = next(minutes for minutes in range(1, 1000) if seen(minutes, SPEEDS[MIDDLE]) >= ENOUGH)


@pytest.mark.parametrize(
    ("minutes", "size"), [(0.1, SMALL), (BORDER - 1, SMALL), (BORDER, MIDDLE), (30, MIDDLE), (600, LARGE)]
)
def test_the_largest_size_is_chosen_that_sees_enough_images(minutes, size):
    settings = chosen(400, minutes, SPEEDS, SPEEDS.__getitem__)
    assert (settings["data.size"], settings["model.channels"]) == size
    assert settings["train.length"] == f"{seen(minutes, SPEEDS[size])} images"
    assert settings["grids.log_spaced"] == snapshots(minutes, SPEEDS[size])


def test_a_single_size_is_taken_however_slow_it_is():
    assert chosen(400, 1, [LARGE], lambda size: 0.5)["data.size"] == 64


@pytest.mark.parametrize(
    ("images", "batch", "augment"),
    [(1, 1, 0.12), (BATCH - 1, BATCH - 1, 0.12), (BATCH, BATCH, 0.12), (MANY - 1, BATCH, 0.12), (MANY, BATCH, 0.0)],
)
def test_batch_and_augmentation_follow_the_number_of_images(images, batch, augment):
    settings = chosen(images, 30, SPEEDS, SPEEDS.__getitem__)
    assert (settings["train.batch_size"], settings["train.augment"]) == (batch, augment)


@pytest.mark.parametrize("speed", [0.1, 10.0, 10_000.0])
def test_training_and_its_snapshots_fit_into_the_minutes(speed):
    for minutes in (1, 30, 600):
        possible = 60 * minutes * speed
        assert 1 <= snapshots(minutes, speed) <= 6 and 1 <= seen(minutes, speed) <= max(possible, 1)
        if possible > 8 * photos.SNAPSHOT:
            assert seen(minutes, speed) + photos.SNAPSHOT * (1 + snapshots(minutes, speed)) <= possible


WORDS = (
    "--data.size 8 --model.channels 8 --model.groups 4 --model.mults 1 --model.attention 0 --diffusion.T 20 "
    "--grids.num 2 --grids.steps 2 --log.held_out_images 0 --train.dtype float32"
)
TINY, SHORT = WORDS.split(), ("--train.length", "2 steps", "--train.warmup", "0 steps")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder "mine" of 24 photographs of several sizes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    Path("mine").mkdir()
    for number in range(24):
        image = noise.integers(0, 256, (9 + number % 3, 12, 3), np.uint8)
        Image.fromarray(image).save(f"mine/{number}.png")
    return Path("mine")


def test_the_run_keeps_what_was_chosen_and_the_same_command_continues_it(folder, command):
    words = "train", "photos", "--data.source", folder, "--minutes", 1000, *TINY, *SHORT, "--train.augment", "0.0"
    command.done(*words)
    config = Run.open("runs/photos").config
    assert config.recipe == "photos" and config.grids.log_spaced == 6 and config.data.flip
    assert config.train.batch_size == 22  # all training images, which are fewer than the recipe's 32
    assert config.train.augment == 0.0  # typed, though it is the recipe's own
    assert (config.data.size, config.model.channels, config.train.length) == (8, 8, "2 steps")
    command.done(*words[:-6], *SHORT[2:], "--train.length", "3 steps", "--train.lr_period", "3 steps")
    assert Run.open("runs/photos").newest_step() == 3 and Run.open("runs/photos").config.train.batch_size == 22


def test_minutes_are_for_photos_and_photos_need_images(folder, command):
    refused(command("train", "digits", "--minutes", 5), "--minutes", "photos")
    with refusing("minutes", 0):
        for_minutes(load_recipe("photos"), 0)
    with refusing("data.source", ""):
        for_minutes(load_recipe("photos"), 1)
    assert not Path("runs").exists()


def test_it_begins_with_the_model_of_the_package_where_that_fits(folder, monkeypatch, logged):
    monkeypatch.setattr(photos, "SHIPPED", "digits")
    digits = load_recipe("digits")
    digits = replace(digits, data=replace(digits.data, size=8))
    assert for_minutes(digits, 1).train.init == "shipped:digits"
    assert len(logged) == 2 and "shipped:digits" in logged[1]
    assert for_minutes(digits, 1, by_class=True).train.init == ""
    assert for_minutes(replace(digits, model=replace(digits.model, channels=16)), 1).train.init == ""
    assert for_minutes(digits, 1, typed=["train.init"]).train.init == ""


def test_it_trains_alike_whatever_the_program_is_in(digits, tmp_path, quick):
    config = tiny_config(digits, train__length="2 steps")
    plain = train_run(config, tmp_path / "plain").run.load()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            within = train_run(config, tmp_path / "within").run.load()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, tensor in plain.part("model").items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, within.part("model")[name])
    with refusing("dtype", "bf16"):
        Run.open(tmp_path / "plain").model(dtype="bf16")
