"""Every number of a config with absurd values: refused in one line before any work, or of a meaning of its own."""

import math
import time

import pytest

from conftest import tiny_config
from unstir.errors import UserError
from unstir.runs import memory, toml
from unstir.runs.config import Config
from unstir.runs.sections import TrainConfig
from unstir.train import launch
from unstir.train.launch import open_data

KEYS = {
    **{key: value for key, value in toml.flat(Config()).items() if not isinstance(value, bool | str)},
    "data.held_out": 0.1,  # not among the keys, as it is left out by default
}
SEEDS = {"seed", "grids.seed"}
"""Any whole number is a seed."""
ZEROS = {
    "data.size", "model.attention", "model.dropout", "model.freq_shift", "model.downsample_padding",
    "model.num_classes", "model.out_channels", "train.micro_batch", "train.weight_decay", "train.beta1", "train.beta2",
    "train.warmup_start", "train.clip", "train.ema_decay", "train.label_dropout", "log.held_out_images", "grids.epochs",
    "grids.log_spaced", "grids.eta", "grids.threshold", "grids.guidance_high", "data.held_out", "loss.times_mean",
    "loss.input_perturbation", "train.augment", "train.activation_checkpointing", "model.head_channels",
    "model.time_table",
}  # fmt: skip
"""Where 0 means none, the first, or what is usual."""


def refused(make, *words):
    """The call raises a UserError of one line, quickly."""
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        make()
    text = str(raised.value)
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


def test_a_network_beyond_the_memory_is_refused_before_the_data_is_packed(tmp_path):
    config = tiny_config(tmp_path / "store", model__channels=16_384, model__num_blocks=64, model__mults=[1, 2, 4, 8])
    refused(lambda: open_data(config, tmp_path / "run"), "parameters", "GB", "--model.channels")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grids__num": 9000}, ["grids.num=9000 images of 8x8 at once take at least", "lower it"]),
        ({"train__batch_size": 1400, "train__micro_batch": 0}, ["train.batch_size=1400", "--train.micro_batch"]),
    ],
)
def test_images_beyond_the_memory_are_refused(make_run, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(memory, "memory", lambda device: 7_000_000)
    refused(lambda: make_run(**changes), *words, "more than the 0.0 GB of cpu")
    assert not (tmp_path / "run").exists()
    make_run("small", **{**changes, "grids__num": 64, "train__batch_size": 64, "train__micro_batch": 0})


def test_what_the_skips_hold_is_counted(make_run):
    import torch

    run, _ = make_run()
    from unstir.runs import build

    net, held = build.network(run.config, torch.device("cpu")).eval(), []
    for level in net.up:
        for block in level.blocks:  # its input is what comes from below beside one skip
            block.register_forward_hook(lambda module, given, out: held.append(given[0][0].numel()))
    below = []
    for level in (net.middle, *net.up):
        for block in level.blocks:
            block.register_forward_hook(lambda module, given, out: below.append(out[0].numel()))
    with torch.no_grad():
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))
    kept = memory.kept_numbers(run.config.model, 8, 8)
    widths, blocks = run.config.model.widths, run.config.model.num_blocks
    assert kept == 64 * (1 + blocks) * widths[0] + 16 * (widths[0] + blocks * widths[1])
    assert kept < sum(held)


def test_a_warm_up_longer_than_the_run_is_refused(make_run, tmp_path):
    refused(
        lambda: make_run(train__length="20 steps", train__warmup="1 epoch"),
        "train.warmup=1 epoch is longer than the whole run, train.length=20 steps", '--train.warmup "2 steps"',
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
    run, _ = make_run(train__length="20 steps", train__warmup="20 steps")
    assert run.length == 20


def test_the_memory_is_this_machines(monkeypatch):
    import torch

    assert 1e8 < memory.memory(torch.device("cpu")) < 1e14
    assert launch.check_weights(Config(), torch.device("cpu")) is None
    monkeypatch.setattr(memory, "memory", lambda device: 20 * 35_746_307 - 1)
    words = "35,746,307 parameters", "which take 0.7 GB in training (20 bytes each)"
    refused(lambda: launch.check_weights(Config(), torch.device("cpu")), *words)
    monkeypatch.setattr(memory, "memory", lambda device: 20 * 35_746_307)
    launch.check_weights(Config(), torch.device("cpu"))


def test_images_that_fill_the_memory_are_computed(make_run, monkeypatch):
    import torch

    run, _ = make_run(train__batch_size=80, train__micro_batch=0, grids__num=80, train__dtype="float32")
    each = 4 * memory.kept_numbers(run.config.model, 8, 8)
    monkeypatch.setattr(memory, "memory", lambda device: 80 * each)
    memory.check_images(run.config, 8, 8, torch.device("cpu"))
    monkeypatch.setattr(memory, "memory", lambda device: 80 * each - 1)
    refused(lambda: memory.check_images(run.config, 8, 8, torch.device("cpu")), "train.batch_size=80")


@pytest.mark.parametrize(
    ("limit", "bytes_"), [("1000\n", 1000), ("max\n", 2_048_000), ("9" * 20, 2_048_000), (None, 2_048_000)]
)
def test_the_memory_is_what_the_control_group_leaves(monkeypatch, limit, bytes_):
    import torch

    def read(path, encoding):
        if limit is None:
            raise FileNotFoundError
        return limit

    monkeypatch.setattr(memory.Path, "read_text", read)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}.__getitem__)
    assert memory.memory(torch.device("cpu")) == bytes_


@pytest.mark.parametrize(
    ("optimizer", "ema_decay", "power_ema", "copies"),
    [("muon", 0.0, False, 3), ("adam", 0.0, False, 4), ("adamw", 0.9, False, 5), ("muon", 0.9, True, 6)],
)
def test_training_holds_a_weight_its_gradient_its_moments_and_its_averages(optimizer, ema_decay, power_ema, copies):
    train = TrainConfig(optimizer=optimizer, ema_decay=ema_decay, power_ema=power_ema)
    assert memory.copies(Config(train=train)) == copies
