"""Words of the field lead to the option of the command at hand, and each option that a table names is there."""

import pytest
from commands import COMMANDS, options_of

from unstir.chain import SAMPLERS
from unstir.cli.values import meant
from unstir.runs import toml
from unstir.runs.synonyms import GOES_ON, MEANT

TRAIN_GOES_ON = "unstir train --out RUN, which goes on"


def test_each_target_of_the_table_exists():
    everywhere = {name.removeprefix("--").replace("-", "_") for command in COMMANDS for name in options_of(command)}
    assert set(MEANT) <= everywhere | {*SAMPLERS, *(command[-1] for command in COMMANDS), GOES_ON}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_word_leads_to_an_option_of_the_command_itself(command):
    options = options_of(command)
    for entry, words in MEANT.items():
        if f"--{entry}".replace("_", "-") in options or f"--{entry}" in options:
            assert {meant(f"--{word}", options) for word in words.split()} <= {*options, GOES_ON, TRAIN_GOES_ON}


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ("train digits --lr 1", "--train.lr"), ("train --learning-rate 1", "--train.lr"),
        ("train --epochs 3", "--train.length"), ("train --steps 3", "--train.length"),
        ("train --batch-size 3", "--train.batch_size"), ("train --image-size 32", "--data.size"),
        ("train --ema 0.9", "--train.ema_decay"), ("train --timesteps 100", "--diffusion.T"),
        ("train -T 100", "--diffusion.T"), ("train digits --output x", "--out"),
        ("train digits --data x", "--data.source"), ("train digits --model unet", "--train.init"),
        ("train --cfg-scale 3", "--grids.guidance"), ("train --gpu 0", "--train.device"),
        ("train digits --train.epochs 3", "--train.length"), ("train digits --grids.w 3", "--grids.guidance"),
        ("train digits --train.seed 8", "--seed"), ("train --batchsizes 8", "--train.batch_size"),
        ("sample r --num-samples 3", "--num"), ("sample r -n 3", "--num"), ("sample r --timesteps 3", "--steps"),
        ("sample r --guidance-scale 3", "--guidance"), ("sample r --class 3", "--label"),
        ("sample r --scheduler ddim", "--sampler"), ("sample r --sampelr ddim", "--sampler"),
        ("edit vary r a --n 3", "--num"), ("edit blend r a b --n 3", "--count"),
        ("edit morph r --classes 1 2", "--labels"), ("edit inpaint r a --bbox 1 2 3 4", "--box"),
        ("evaluate r --num-images 3", "--num"), ("evaluate r --ckpt 3", "--checkpoint"),
        ("likelihood r --steps 3", "--calls"), ("data pack x --output y", "--out"),
        ("data inspect x --output y", "--sheet"), ("train digits --no-train.power-ema", "--train.no-power_ema"),
        ("train --resume x", TRAIN_GOES_ON), ("sample r --continue", GOES_ON), ("evaluate r --resume", GOES_ON),
        ("sample r --sampler ddpm", "ancestral"), ("sample r --sampler euler", "ddim"),
        ("sample r --sampler dpm++", "dpmpp_2m"), ("train digits --grids.sampler ddpm", "ancestral"),
        ("help train", "unstir --help"), ("version", "unstir --version"), ("edit variations r a", "unstir edit vary"),
        ("edit r inpaint a.png", "unstir edit inpaint r"),
        ("tarin", "unstir train"), ("eval r", "unstir evaluate"), ("data pak x", "unstir data pack"),
    ],
)  # fmt: skip
def test_words_of_the_field_lead_to_ours(unstir, refused, arguments, option):
    refused(unstir(*arguments.split()), f"id you mean {option}?")


def test_where_nothing_is_near_the_help_is_named(unstir, refused):
    refused(unstir("sample", "r", "--qqq", "1"), "has no option --qqq", "unstir sample --help")
    refused(unstir("qqq"), "has no command 'qqq'", "train", "sample")
    refused(unstir("data", "qqq"), "Name one of pack, inspect")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.learning_rate", "train.lr"), ("learning_rate", "train.lr"), ("diffusion.steps", "diffusion.T"),
        ("train.ema", "train.ema_decay"), ("trian", "train"), ("train.lrr", "train.lr"),
        ("model.ch_mult", "model.mults"), ("zzzz", None),
    ],
)  # fmt: skip
def test_words_of_the_field_lead_to_keys_of_a_recipe(key, meant):
    assert toml.near_key(key) == meant
