"""What a run is made of before its first step: its data's place, its sides, its periods, and what may change later."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import tiny_config
from refusals import refusing
from unstir.data import pack
from unstir.errors import UserError
from unstir.runs.sections import DataConfig
from unstir.train import launch
from unstir.train.launch import check_sides, open_run, store_path


def test_both_sides_are_multiples_of_the_networks(tmp_path):
    network, data = SimpleNamespace(multiple=4, mults=(1, 2, 2), attention=(1, 2), is_unet=True), DataConfig()
    config = SimpleNamespace(model=network, data=data)
    for sides in ((4, 8), (8, 4), (4, 4)):
        check_sides(config, *sides)
    two, one = ((1, 2), [1]), ((1,), [0])
    wrong = {(4, 6): (4, two), (6, 4): (4, two), (3, 8): (4, one), (7, 7): (8, one), (5, 9): (4, one)}  # the nearest
    for sides, (size, (mults, attention)) in wrong.items():
        mend = {"data.size": size}, {"model.mults": mults, "model.attention": attention}
        with refusing("model.mults", (1, 2, 2), mend):
            check_sides(config, *sides)
    (tmp_path / "train.images.npy").touch()
    config.data = DataConfig(source=str(tmp_path))  # a packed store, of which no other size can be asked
    with pytest.raises(UserError) as refused:
        check_sides(config, 7, 7)
    again, fewer = refused.value.remedy
    assert again.endswith("--size 8") and fewer == mend[1]


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
        ("cosine", 4, 3, 0, 1),
        ("wsd", 20, 3, 0, 4),
        ("wsd", 4, 3, 0, 1),
        ("wsd", 20, 3, 17, 17),
        ("constant", 20, 3, 0, 0),
    ],
)
def test_a_period_is_the_rest_or_a_fifth_of_the_run(make_run, schedule, length, warmup, asked, period):
    spans = {"length": length, "warmup": warmup, "lr_period": asked}
    changes = {f"train__{name}": f"{number} steps" for name, number in spans.items()}
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
    ("height", "width", "size", "fits"),
    [(8, 8, 0, True), (8, 8, 8, True), (8, 16, 8, False), (16, 8, 8, False), (16, 8, 0, True)],
)
def test_images_have_the_size_that_was_asked_for(digits, tmp_path, height, width, size, fits):
    images = np.arange(20 * height * width, dtype=np.uint8).reshape(20, height, width)
    store = pack(images, tmp_path / "store", channels=1)
    with nullcontext() if fits else refusing("data.size", size):
        open_run(tiny_config(digits, data__size=size), tmp_path / "run", store)


def test_a_process_whose_noise_gives_no_image_is_refused_before_the_run_is_made(make_run, tmp_path):
    with pytest.raises(UserError, match="predict="):
        make_run("dark", diffusion__T=1000, diffusion__beta_T=0.5)
    with pytest.raises(UserError, match="predict="):
        dark = {"diffusion__T": 1000, "diffusion__beta_T": 0.5, "diffusion__predict": "v"}
        make_run("dark", **dark, loss__objective="consistency", loss__teacher="eps", grids__sampler="consistency")
    assert not list(tmp_path.glob("dark*"))
