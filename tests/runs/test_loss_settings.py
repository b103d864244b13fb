"""Settings with any value, of the loss and of spans above all: what they become, and which are refused."""

import math
import time

import pytest
import torch

from conftest import tiny_config
from refusals import mistake, refusing
from unstir.errors import OutOfMemoryError, UserError
from unstir.runs import build, recipes, toml
from unstir.runs.config import Config, steps_in
from unstir.runs.named import run_and_step
from unstir.runs.run import check_free
from unstir.runs.sections import TrainConfig
from unstir.runs.timetable import learning_rates
from unstir.runs.toml import from_dict
from unstir.train.launch import train_run

ZERO_SNR = {"zero_terminal_snr": True, "predict": "v"}


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"loss": {"objective": "hybrid"}}, "loss.objective"),
        ({"diffusion": {"learned_variance": True}}, "loss.objective"),
        ({"loss": {"objective": "vlb", "weighting": "p2"}}, "loss.weighting"),
        ({"loss": {"weighting": "snr"}}, "loss.weighting"),
        ({"grids": {"eta": 0.5}}, "grids.eta"),
        ({"loss": {"vlb_weight": 3.0}}, "loss.vlb_weight"),
        ({"loss": {"teacher": "eps"}}, "loss.teacher"),
        ({"loss": {"calls": 2}}, "loss.calls"),
        ({"loss": {"objective": "paths", "weighting": "p2"}}, "loss.weighting"),
        ({"loss": {"objective": "paths", "input_perturbation": 0.1}}, "loss.input_perturbation"),
        ({"loss": {"objective": "paths"}}, "diffusion.predict"),
        ({"loss": {"objective": "paths"}, "diffusion": {"predict": "v"}}, "log.held_out_images"),
        ({"loss": {"objective": "paths", "times": "normal"}}, "loss.times"),
        ({"loss": {"noise_choices": 65}}, "loss.noise_choices"),  # all are in memory at once
        ({"loss": {"times": "normal", "objective": "vlb"}}, "loss.times"),
        ({"loss": {"input_perturbation": 0.1, "times": "importance", "objective": "vlb"}}, "loss.input_perturbation"),
        ({"loss": {"noise_choices": 4, "objective": "vlb"}}, "loss.noise_choices"),
        ({"grids": {"sampler": "unipc", "variance": "small"}}, "grids.variance"),
        ({"diffusion": ZERO_SNR, "grids": {"sampler": "heun"}}, "grids.sampler"),
        ({"grids": {"threshold": 0.99, "clip": False}}, "grids.threshold"),
        ({"loss": {"weigthing": "p2"}}, "loss.weigthing"),
    ],
)
def test_contradictions_are_refused(sections, key):
    refused = mistake(from_dict, sections, "test")
    assert refused.key == key and refused.where == "test"


@pytest.mark.parametrize(
    ("sections", "key", "allowed"),
    [
        ({"loss": {"weighting": "p2", "weighting_options": {"k": 0.0}}}, "loss.weighting_options.k", "positive"),
        ({"loss": {"weighting": "min_snr", "weighting_options": {"k": 3}}}, "loss.weighting_options.k", "takes gamma"),
        ({"loss": {"weighting_options": {"k": 3.0}}}, "loss.weighting_options.k", "simple takes none"),
        ({"loss": {"times": "normal", "times_options": {"scale": 0}}}, "loss.times_options.scale", "0.01 to 100"),
        ({"loss": {"times": "normal", "times_options": {"mean": "a"}}}, "loss.times_options.mean", "a number"),
        ({"diffusion": {"options": {"beta1": 0.1}}}, "diffusion.options.beta1", "beta_1, beta_T"),
        ({"diffusion": {"options": {"beta_T": True}}}, "diffusion.options.beta_T", "a number"),
        ({"diffusion": {"options": {"beta_1": 0.5}}}, "diffusion.options.beta_1", "beta_T=0.02"),
        ({"diffusion": ZERO_SNR, "loss": {"weighting": "p2"}}, "loss.weighting", "is 0 at t = T"),
        ({"grids": {"sampler": "unipc", "options": {"order": 2.5}}}, "grids.options.order", "a whole number"),
        ({"grids": {"sampler": "ddim", "options": {"eta": 0.5}}}, "grids.options.eta", "ddim takes none"),
    ],
)
def test_an_option_is_refused_by_the_part_that_it_is_for(sections, key, allowed):
    refused = mistake(build.check_parts, from_dict(sections, "test"))
    assert refused.key == key and allowed in refused.allowed


def test_the_hybrid_recipe_is_the_digits_with_a_learned_variance():
    hybrid, digits = recipes.load_recipe("digits-hybrid"), recipes.load_recipe("digits")
    assert hybrid.train == digits.train and hybrid.model == digits.model
    assert build.network_config(hybrid).out_channels == 2 and build.network_config(digits).out_channels == 1
    denoiser = build.denoiser(hybrid, torch.nn.Linear(1, 1), torch.float32)
    assert denoiser.learned_variance and build.objective(hybrid, denoiser).kind == "hybrid"


def test_a_learned_variance_takes_twice_the_channels_out():
    learned = {"diffusion": {"learned_variance": True}, "loss": {"objective": "hybrid"}}
    for outputs, sections in ((0, {}), (3, {}), (0, learned), (6, learned)):
        assert from_dict({"model": {"out_channels": outputs}, **sections}, "test").model.out_channels == outputs
    for outputs, sections in ((6, {}), (2, {}), (3, learned), (9, learned)):
        with pytest.raises(UserError, match=f"out_channels={outputs} must be 0"):
            from_dict({"model": {"out_channels": outputs}, **sections}, "test")


def test_a_micro_batch_may_be_the_whole_batch_and_no_more():
    assert from_dict({"train": {"batch_size": 8, "micro_batch": 8}}, "test").train.micro_batch == 8
    with refusing("train.micro_batch", 9, {"train.micro_batch": 8}):
        from_dict({"train": {"batch_size": 8, "micro_batch": 9}}, "test")


@pytest.mark.parametrize(
    ("span", "steps"),
    [
        ("1 step", 1),
        ("20 epochs", 460),
        ("65 images", 2),  # rounded up
        ("640 images", 10),
        ("0 images", 0),
    ],
)
def test_a_span_is_so_many_steps(span, steps):
    assert steps_in(span, steps_per_epoch=23, batch_size=64) == steps


def test_a_run_of_so_many_images_sees_them_and_no_more_than_a_batch_more(make_run):
    for images in (80, 81, 200):
        run, _ = make_run(f"of-{images}", train__length=f"{images} images", train__warmup="8 images")
        assert images <= run.length * run.config.train.batch_size < images + run.config.train.batch_size
        assert run.steps_in(run.config.train.warmup) == 1


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1step", "1 step"),
        (" 2 step ", "2 steps"),
        ("1 epochs", "1 epoch"),
        ("0 epochs", "0 steps"),
        ("9" * 12 + " images", "9" * 12 + " images"),
        ("0" * 20 + "5 images", "5 images"),
    ],
)
def test_a_span_has_one_form(text, span):
    assert TrainConfig(warmup=text).warmup == span


def test_no_span_is_beyond_twelve_digits_and_no_training_is_of_nothing():
    assert mistake(TrainConfig, warmup="1" + "0" * 12 + " images").key == "warmup"
    assert mistake(TrainConfig, length="0 epochs").key == "length"


def test_a_new_run_may_have_a_folder_in_which_nothing_is_but_what_its_birth_left(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "absent")
    for name in ("data.json", ".lock", ".a.partial"):
        (tmp_path / name).touch()
    check_free(tmp_path)
    (tmp_path / "photo.png").touch()
    for taken in (tmp_path, tmp_path / "photo.png"):
        with refusing("out", taken):
            check_free(taken)


def test_a_step_is_named_behind_a_run_unless_that_is_a_path(tmp_path):
    assert run_and_step("runs/a@5") == ("runs/a", 5) and run_and_step("a@b@12") == ("a@b", 12)
    assert run_and_step("runs/a") == ("runs/a", None) and run_and_step("a@last") == ("a@last", None)
    (tmp_path / "a@5").mkdir()
    assert run_and_step(f"{tmp_path}/a@5") == (f"{tmp_path}/a@5", None)


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
