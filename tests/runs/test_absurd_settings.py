"""Every number of a config with absurd values: refused in one line before any work, or of a meaning of its own."""

import math
import time

import pytest

from conftest import tiny_config
from refusals import mistake, refusing
from unstir.errors import OutOfMemoryError
from unstir.runs import toml
from unstir.runs.config import Config
from unstir.runs.timetable import learning_rates
from unstir.train.launch import train_run

KEYS = {
    **{key: value for key, value in toml.flat(Config()).items() if not isinstance(value, bool | str)},
    "data.held_out": 0.1,  # not among the keys, as it is left out by default
}
SEEDS = {"seed", "grids.seed"}
"""Any whole number is a seed."""
ZEROS = {
    "data.size", "model.attention", "model.dropout", "model.freq_shift", "model.downsample_padding",
    "model.num_classes", "model.condition_values", "model.condition_channels",
    "model.out_channels", "train.micro_batch", "train.weight_decay", "train.beta1", "train.beta2",
    "train.warmup_start", "train.clip", "train.ema_decay", "train.condition_dropout", "log.held_out_images",
    "grids.epochs", "grids.log_spaced", "grids.channels", "grids.eta", "grids.threshold", "grids.guidance_high",
    "data.held_out", "loss.input_perturbation", "train.augment", "train.activation_checkpointing",
    "model.head_channels", "model.time_table",
}  # fmt: skip
"""Where 0 means none, the first, or what is usual."""


def refused(make, *words):
    """The call raises a UserError of one line, quickly."""
    began = time.monotonic()
    raised = mistake(make)
    text = str(raised)
    assert "\n" not in text and len(text) < 500 and time.monotonic() - began < 20
    assert all(word in text for word in words), text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [1e26, 10**26, -1, -1.0, math.nan, math.inf, 0], ids=repr)
def test_an_absurd_number_is_refused(key, value):
    section, _, name = key.rpartition(".")
    given = [value] if isinstance(KEYS[key], list) else value
    values = {section: {name: given}} if section else {name: given}
    whole = isinstance(value, int)
    if (value == 0 and key in SEEDS | ZEROS) or (key in SEEDS and whole):
        assert toml.flat(toml.from_dict(values, "test"))[key] == given
    else:
        refused(lambda: toml.from_dict(values, "test"), name)


def test_there_are_as_many_keys_as_there_are():
    assert len(KEYS) > 45 and KEYS.keys() >= SEEDS | ZEROS


SPANS = ["train.length", "train.warmup", "train.lr_period", "log.every", "checkpoint.every"]


@pytest.mark.parametrize("key", SPANS)
@pytest.mark.parametrize("number", ["1e26", "1" + "0" * 26, "9" * 5000, "-1", "nan", "1.5"])
@pytest.mark.parametrize("unit", ["images", "steps", "epochs"])
def test_an_absurd_length_is_refused(key, number, unit):
    section, name = key.split(".")
    refused(lambda: toml.from_dict({section: {name: f"{number} {unit}"}}, "test"), key)


def test_a_network_beyond_the_memory_is_refused_before_it_is_made(tmp_path):
    config = tiny_config(tmp_path / "store", model__channels=16_384, model__num_blocks=64, model__mults=[1, 2, 4, 8])
    with pytest.raises(OutOfMemoryError, match=r"model\.channels"):
        train_run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("length", "warmup", "remedy"),
    [
        ("20 steps", "1 epoch", "2 steps"),
        ("20 steps", "20 steps", "2 steps"),
        ("8 images", "1 step", "0 steps"),
        ("10 steps", "200 steps", "1 step"),
    ],
)
def test_a_run_without_a_step_at_the_full_rate_is_refused(make_run, tmp_path, length, warmup, remedy):
    asked = {"train__length": length, "train__lr_schedule": "cosine"}
    with refusing("train.length", length, {"train.warmup": remedy}):
        make_run(**asked, train__warmup=warmup)
    assert not (tmp_path / "run").exists()
    run, _ = make_run(**asked, train__warmup=remedy)
    assert run.steps_in(remedy) < run.length


def test_a_warm_up_may_leave_a_single_step(make_run):
    run, _ = make_run(train__length="20 steps", train__warmup="19 steps")
    assert learning_rates(run)(18) == learning_rates(run)(19) == run.config.train.lr > learning_rates(run)(17)
