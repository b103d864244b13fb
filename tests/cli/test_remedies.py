"""Settings that do not go together: each remedy, pasted behind the command as it was typed, is accepted."""

import shlex

import pytest

from unstir.cli.messages import as_typed
from unstir.errors import UserError, option
from unstir.runs.sections import DiffusionConfig
from unstir.runs.toml import from_dict

ACCEPTED = "these settings go together"


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def stop(*_):
        raise UserError(ACCEPTED)

    monkeypatch.setattr("unstir.train.launch.open_data", stop)


def pasted(given, remedy):
    """The words ``given``, with the options of a remedy in the place of their own."""
    options = {}
    for word in [*given, *remedy]:
        if word.startswith("--"):
            name = word.replace(".no-", ".")
            options[name] = [word]
        else:
            options[name].append(word)
    return [word for words in options.values() for word in words]


@pytest.mark.parametrize(
    ("typed", "remedies"),
    [
        ("digits --diffusion.learned_variance", ["--loss.objective hybrid --loss.times uniform", "digits-hybrid"]),
        ("cifar10 --diffusion.learned_variance", ["--loss.objective hybrid"]),
        (
            "digits --diffusion.learned_variance --loss.objective hybrid",
            ["--loss.times uniform", "--loss.times importance", "digits-hybrid"],
        ),
        (
            "cifar10-small --loss.objective vlb",
            [f"--loss.times {how} --loss.times_scale 1.0" for how in ("uniform", "importance")],
        ),
        ("digits-hybrid --diffusion.no-learned_variance", ["--diffusion.learned_variance", "--loss.objective simple"]),
        ("digits --loss.min_snr_gamma 3", ["--loss.weighting min_snr", "--loss.min_snr_gamma 5.0"]),
        ("cifar10 --loss.weighting p2 --loss.objective vlb", ["--loss.weighting simple", "--loss.objective simple"]),
        (
            "digits --loss.weighting p2 --loss.objective vlb",
            ["--loss.weighting simple --loss.times uniform", "--loss.objective simple"],
        ),
        ("cifar10-small --loss.times uniform", ["--loss.times laplace", "--loss.times_scale 1.0"]),
        ("cifar10 --train.weight_decay 0.1", ["--train.optimizer adamw", "--train.weight_decay 0.0"]),
        ("digits --train.micro_batch 100", ["--train.micro_batch 64"]),
        ("digits --train.activation_checkpointing 5", ["--train.activation_checkpointing 2"]),
        ("digits --train.label_dropout 0.1", ["--model.num_classes 10", "--train.label_dropout 0.0"]),
        ("digits --data.channels 3", [f"--data.channels {n} --model.in_channels {n}" for n in (1, 3)]),
        ("digits --model.augmented", ["--train.augment 0.12", "--model.no-augmented"]),
        ("digits --model.out_channels 5", ["--model.out_channels 0"]),
        ("digits --model.time_table 5", ["--model.time_table 1000"]),
        (
            "digits --model.layout report_guided",
            ["--model.num_classes 10 --model.downsample_padding 1"],
        ),
        ("digits --model.channels 33", ["--model.channels 32"]),
        ("digits --model.channels 3", ["--model.channels 8"]),
        ("digits --model.channels 20", ["--model.groups 4", "--model.channels 16"]),
        ("digits --model.groups 12 --model.heads 3", ["--model.groups 4 --model.heads 1", "--model.channels 36"]),
        ("digits --model.heads 3", ["--model.heads 1", "--model.channels 24"]),
        ("digits --model.head_channels 12", ["--model.head_channels 4", "--model.channels 24"]),
        ("digits --model.heads 2 --model.head_channels 8", ["--model.heads 1", "--model.head_channels 0"]),
        ("digits --model.attention 7", ["--model.attention 1"]),
        ("digits --model.attention 1,0,1", ["--model.attention 1 0"]),
        ("digits --model.channels 2 --model.groups 1", ["--model.freq_shift 0.0"]),
        ("cifar10 --diffusion.beta_1 0.5", ["--diffusion.beta_1 0.02 --diffusion.beta_T 0.5"]),
        ("cifar10 --diffusion.zero_terminal_snr", ["--diffusion.predict v", "--diffusion.predict x0"]),
        (
            "digits --diffusion.zero_terminal_snr --loss.weighting p2",
            ["--loss.weighting simple", "--loss.weighting truncated_snr"],
        ),
        (
            "digits --diffusion.zero_terminal_snr --grids.sampler heun",
            ["--grids.sampler ddim", "--grids.sampler dpmpp_2m"],
        ),
        ("digits --grids.variance learned", ["--grids.variance auto"]),
        ("digits --grids.sampler consistency", ["--grids.sampler ancestral"]),
        ("digits --diffusion.T 20", ["--grids.steps 20"]),
        (
            "digits --grids.guidance 2",
            ["--train.label_dropout 0.1 --model.num_classes 10", "--grids.guidance 1.0"],
        ),
        ("digits-guided --train.label_dropout 0", ["--train.label_dropout 0.1", "--grids.guidance 1.0"]),
        ("digits --log.held_out_images 1", ["--log.held_out_images 2", "--log.held_out_images 0"]),
    ],
)  # fmt: skip
def test_a_remedy_is_an_option_to_paste(unstir, refused, typed, remedies):
    line = refused(unstir("train", *typed.split()))
    found = line.strip().split(": use ")[-1].removeprefix("at most ").split(", or ")
    assert [each.removeprefix("the recipe ") for each in found] == remedies
    for remedy in remedies:
        recipe, *given = typed.split()
        again = [recipe, *pasted(given, shlex.split(remedy))] if remedy[0] == "-" else [remedy, *given]
        refused(unstir("train", *again), ACCEPTED)


def test_elsewhere_it_is_a_setting_of_the_file_or_of_the_call():
    sections, both = {"diffusion": {"beta_1": 0.5}}, "use diffusion.beta_1=0.02 with diffusion.beta_T=0.5"
    with pytest.raises(UserError, match=rf"^mine.toml: diffusion\.beta_1=0.5 .*: {both}$"):
        from_dict(sections, "mine.toml")
    with pytest.raises(UserError, match=r"^beta_1=0.5 .*: use beta_1=0.02 with beta_T=0.5$"):
        DiffusionConfig(**sections["diffusion"])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("train.warmup", "6 steps", '--train.warmup "6 steps"'),
        ("train.init", "", '--train.init ""'),
        ("data.flip", False, "--data.no-flip"),
        ("data.flip", True, "--data.flip"),
        ("seed", 3, "--seed 3"),
        ("model.mults", [1, 2], "--model.mults 1 2"),
    ],
)
def test_a_setting_as_an_option(name, value, text):
    assert option(name, value) == text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--train.length", "60/0 steps"], '--train.length "60/0 steps" must be a whole number and a unit, such as '),
        (["--train.length", "abc"], "--train.length abc must be a whole number and a unit"),
        (["--train.length", ""], '--train.length "" must be a whole number and a unit'),
        (["--train.length", "60"], '--train.length 60 must have a unit: "60 steps", "60 epochs" or "60 images"'),
        (["--train.length", "0 epochs"], '--train.length "0 epochs" must be more than nothing, such as "1 epoch"'),
        (["--train.length", "1" * 20 + " steps"], f'--train.length "{"1" * 20} steps" is beyond 10^12'),
        (["--train.length=-5 steps"], '--train.length "-5 steps" must not be negative, but a whole number and a unit'),
        (["--train.length", "-3 steps"], '--train.length "-3 steps" must not be negative, but a whole number and'),
        (["--train.warmup", "-1 epoch", "--seed", "3"], '--train.warmup "-1 epoch" must not be negative'),
        (["--train.lr", "-1e-4"], "--train.lr -1e-4 must be more than 0"),
        (["--train.batch_size", "-8"], "--train.batch_size -8 must be at least 1"),
        (["--train.warmup", "1.5 epochs"], '--train.warmup "1.5 epochs" must be a whole number'),
        (["--train.lr_period", "x" * 99], f"--train.lr_period {'x' * 37}... must be a whole number"),
        (["--log.every", "5"], '--log.every 5 must have a unit: "5 steps"'),
        (["--checkpoint.every", "1 hour"], '--checkpoint.every "1 hour" must be a whole number and a unit'),
        (["--train.beta1", "1"], "--train.beta1 1 must be less than 1"),
        (["--train.beta2", "-0.1"], "--train.beta2 -0.1 must be at least 0"),
        (["--train.lr", "nan"], "--train.lr nan must be a finite number"),
        (["--train.lr", ""], '--train.lr "" must be a number'),
        (["--data.held_out", "2"], "--data.held_out 2 must be less than 1"),
        (["--data.channels", "2"], "--data.channels 2 must be 1 (grey) or 3 (RGB)"),
        (["--grids.epochs", "3", "-1"], "--grids.epochs -1 must be at least 0"),
        (["--model.mults", "1", "0"], "--model.mults 0 must be at least 1\n"),
        (["--model.mults"], "--model.mults must be a list of one value at least\n"),
    ],
)
def test_a_wrong_value_is_shown_as_it_was_typed(unstir, refused, typed, says):
    assert f"unstir: {says}" in refused(unstir("train", "digits", *typed))


def test_what_does_not_fit_another_setting_is_shown_as_it_was_typed(unstir, refused):
    refused(unstir("train", "digits", "--model.heads", "7"), "unstir: --model.heads 7 does not divide the 64 channels")
    refused(
        unstir("train", "digits", "--grids.eta", "0.5", "--grids.sampler", "ancestral"), "unstir: --grids.eta 0.5 is"
    )
    with pytest.raises(UserError, match=r"^mine.toml: model.heads=7 does not divide .*: use model.heads="):
        from_dict({"model": {"heads": 7}}, "mine.toml")


def test_in_a_file_a_wrong_value_is_shown_with_its_key():
    for text, says in (("abc", r"='abc': it must be a whole number and a unit"), ("5", "='5': it must have a unit")):
        with pytest.raises(UserError, match=f"^mine.toml: train.length{says}"):
            from_dict({"train": {"length": text}}, "mine.toml")


@pytest.mark.parametrize(
    ("message", "words", "said"),
    [
        (
            "batch_size=0 must be at least 1",
            ["sample", "run", "--batch-size", "0"],
            "--batch-size 0 must be at least 1",
        ),
        ("batch_size=0 must be", ["sample", "run", "--batch-size=0"], "--batch-size 0 must be"),
        ("train.batch_size=0 must be", ["train", "digits", "--train.batch_size", "0"], "--train.batch_size 0 must be"),
        ("batch_size=0 must be", ["sample", "run"], "batch_size=0 must be"),
        ("batch_size=0 must be", ["sample", "batch-size", "--num", "1"], "batch_size=0 must be"),
        ("guidance=2.0 needs a network", ["sample", "run", "--guidance", "2"], "--guidance 2 needs a network"),
        ("guidance=1000000000.0: it must be", ["sample", "--guidance=1e9"], "--guidance 1e9: it must be"),
        ("guidance=nan: it must be", ["sample", "--guidance", "nan"], "--guidance nan: it must be"),
        ("variance='large' is an option", ["sample", "--variance", "large"], "--variance large is an option"),
        (
            "train.length=9 steps goes",
            ["train", "digits", "--train.length", "9 steps"],
            '--train.length "9 steps" goes',
        ),
        (
            "diffusion.beta_T=0.5 exceeds",
            ["train", "digits", "--diffusion.beta_T", "0.5"],
            "--diffusion.beta_T 0.5 exceeds",
        ),
        ("device='gpu' is unknown", ["train", "digits", "--train.device", "gpu"], "--train.device gpu is unknown"),
        (
            "steps=3 exceeds",
            ["train", "digits", "--diffusion.steps", "9", "--grids.steps", "3"],
            "--grids.steps 3 exceeds",
        ),
        ("steps=3 exceeds", ["train", "digits", "--grids.steps", "4"], "steps=3 exceeds"),
        ("num=5 must", ["x", "--grids.num", "5", "--num", "5"], "--num 5 must"),
        ("data.flip=true mirrors", ["train", "digits", "--data.flip", "--seed", "3"], "--data.flip mirrors"),
        ("data.flip=true mirrors", ["train", "digits", "--data.flip=true"], "--data.flip true mirrors"),
        ("num_reference=3 is", ["evaluate", "--reference", "3"], "--reference 3 is"),
        ("label=99 is outside", ["edit", "--labels", "3", "99"], "--labels 99 is outside"),
        ("model.mults=[1, 2] makes", ["train", "digits", "--model.mults", "1", "2"], "--model.mults [1, 2] makes"),
        ("run: it has a=b in it", ["sample", "--a", "b"], "run: it has a=b in it"),
        ("no value", ["sample", "--no", "1"], "no value"),
    ],
)
def test_what_was_typed_as_an_option_is_named_so_at_the_head_of_a_message(message, words, said):
    assert as_typed(message, words) == said


def test_the_beginning_of_a_word_that_is_known_is_answered_with_the_word(unstir, refused):
    refused(unstir("sample", "nowhere", "--engine", "onnx"), "torch, onnxruntime; did you mean onnxruntime?")
    assert "did you mean" not in refused(unstir("sample", "nowhere", "--engine", "jax"))
    refused(unstir("sample", "nowhere", "--sampler", "DDIM"), "dpmpp_2m_sde, unipc, heun", "did you mean ddim?")


def test_a_folder_without_a_name_is_not_the_one_that_one_is_in(unstir, refused):
    for words in (("sample", ""), ("sample", "nowhere", "--out", ""), ("evaluate", " "), ("verify", "--plot=")):
        refused(unstir(*words), "is no name of a file or folder")
