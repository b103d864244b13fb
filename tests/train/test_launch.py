"""What a run is made of before its first step: its data's place, its sides, its periods, and what may change later."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import tiny_config
from unstir.errors import UserError
from unstir.runs.sections import DataConfig
from unstir.train import launch
from unstir.train.launch import check_sides, open_run, store_path


def test_both_sides_are_multiples_of_the_networks(tmp_path):
    network, data = SimpleNamespace(multiple=4, mults=(1, 2, 2), attention=(1, 2), is_unet=True), DataConfig()
    config = SimpleNamespace(model=network, data=data)
    for sides in ((4, 8), (8, 4), (4, 4)):
        check_sides(config, *sides)
    remedies = {
        (4, 6): "--data.size 4, or keep the images as they are: --model.mults 1 2 --model.attention 1$",
        (6, 4): "--data.size 4, or keep the images as they are: --model.mults 1 2 --model.attention 1$",
        (3, 8): "--data.size 4, or keep the images as they are: --model.mults 1 --model.attention 0$",
        (7, 7): "--data.size 8, or keep the images as they are: --model.mults 1 --model.attention 0$",  # the nearest
        (5, 9): "--data.size 4, or keep the images as they are: --model.mults 1 --model.attention 0$",
    }
    for sides, remedy in remedies.items():
        images = f"images of {sides[0]}x{sides[1]} .* 3 levels .* multiples of 4; give {remedy}"
        with pytest.raises(UserError, match=images):
            check_sides(config, *sides)
    (tmp_path / "train.images.npy").touch()
    config.data = DataConfig(source=str(tmp_path))  # a packed store, of which no other size can be asked
    with pytest.raises(UserError, match="multiples of 4; pack the images again by unstir data pack --size 8, or keep"):
        check_sides(config, 7, 7)


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
        ("cosine", 20, 3, 0, 17),
        ("cosine", 20, 3, 17, 17),
        ("cosine", 20, 3, 16, 'ends at step 19 of 20.*--train.lr_period "17 steps"$'),
        ("cosine", 4, 3, 0, 1),
        ("wsd", 20, 3, 0, 4),
        ("wsd", 4, 3, 0, 1),
        ("wsd", 20, 3, 17, 17),
        ("wsd", 20, 3, 18, 'longer than the run of 20 steps; at most --train.lr_period "17 steps"$'),
        ("constant", 20, 3, 0, 0),
    ],
)
def test_a_period_is_the_rest_or_a_fifth_of_the_run(make_run, schedule, length, warmup, asked, period):
    spans = {"length": length, "warmup": warmup, "lr_period": asked}
    changes = {f"train__{name}": f"{number} steps" for name, number in spans.items()}
    if isinstance(period, str):
        with pytest.raises(UserError, match=period):
            make_run(train__lr_schedule=schedule, **changes)
    else:
        run, _ = make_run(train__lr_schedule=schedule, **changes)
        assert run.steps_in(run.config.train.lr_period) == period


def test_a_run_that_is_further_than_asked_is_left_as_it_is(make_run, digits, monkeypatch):
    run, store = make_run(train__length="20 steps", train__lr_schedule="constant")
    monkeypatch.setattr(launch.checkpoint, "listed", lambda folder: [(3, None), (10, None)])
    for length, kept in ((9, 20), (10, 10), (15, 15)):
        asked = tiny_config(digits, train__length=f"{length} steps", train__lr_schedule="constant")
        assert open_run(asked, run.path, store).length == length and run.open(run.path).length == kept
    changed = [line for line in run.log("events").lines if line["event"] == "changed"]
    assert [line["train.length"] for line in changed] and len(changed) == 2
    open_run(asked, run.path, store)  # with what it has already
    assert run.log("events").lines[-1] == changed[-1]


@pytest.mark.parametrize(
    ("height", "width", "size", "says"),
    [(8, 8, 0, ""), (8, 8, 8, ""), (8, 16, 8, "holds 8x16 images"), (16, 8, 8, "holds 16x8"), (16, 8, 0, "")],
)
def test_images_have_the_size_that_was_asked_for(digits, height, width, size, says):
    config = tiny_config(digits, data__size=size, model__num_classes=0)
    store = SimpleNamespace(path="store", shape=(1, height, width), classes=(), count=lambda split: 100)
    if says:
        with pytest.raises(UserError, match=f"{says}.*data.size is 8"):
            launch._check_fit(config, store)
    else:
        launch._check_fit(config, store)


def test_a_process_whose_noise_gives_no_image_is_refused_before_the_run_is_made(make_run, tmp_path):
    with pytest.raises(UserError, match="predict="):
        make_run("dark", diffusion__T=1000, diffusion__beta_T=0.5)
    with pytest.raises(UserError, match="predict="):
        dark = {"diffusion__T": 1000, "diffusion__beta_T": 0.5, "diffusion__predict": "v"}
        make_run("dark", **dark, loss__objective="consistency", loss__teacher="eps", grids__sampler="consistency")
    assert not list(tmp_path.glob("dark*"))
