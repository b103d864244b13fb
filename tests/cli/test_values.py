"""What is typed for an option: whole numbers stay whole, a wrong value is shown as typed, with options to paste."""

import pytest

from unstir.cli.messages import Options
from unstir.errors import UserError


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    monkeypatch.setattr("unstir.train.launch.open_data", lambda *_: pytest.fail("training began"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("sample here --num 2.7", ["--num 2.7", "whole number"]),
        ("sample here --num 1e3", ["--num 1e3", "in digits"]),
        ("sample here --num \u00b2", ["--num \u00b2", "whole number"]),
        ("sample here --num true", ["--num true", "whole number"]),
        ("data pack digits --out x --held-out half", ["--held-out half", "number, such as 0.5"]),
        ("data pack digits --out x --channels 2", ["--channels 2", "1, 3"]),
        ("edit inpaint here a.png --box 1 2 3.3 4", ["--box 3.3", "whole number"]),
        ("train digits --model.mults 1 2.5", ["--model.mults 2.5", "whole number"]),
        ("train digits --train.batch_size 1e3", ["--train.batch_size 1e3", "in digits"]),
        ("edit inpaint here a.png --box 1,2,3.3,4", ["--box 3.3", "whole number"]),
        ("train digits --log.to=tensorboard,wnb", ["--log.to wnb", "did you mean wandb?"]),
        ("train digits --data.flip=2", ["--data.flip 2", "yes or no"]),
        ("train digits --train.lr fast", ["--train.lr fast", "number"]),
        ("train digits --log.to tensorboard wandb digits", ["--log.to digits"]),
        ("train digits --model.mults 1 2 mine.toml", ["--model.mults mine.toml"]),
        ("sample here --ema=perhaps", ["--ema perhaps", "yes or no"]),
        ("edit blend here --numbers 0", ["more values for --numbers"]),
        ("sample here --sampler dim", ["--sampler dim", "ancestral, ddim", "did you mean ddim?"]),
        ("sample here --out x.png", ["--out x.png is the name of a picture, and a folder is made", "use --out x\n"]),
        ("train digits --out x.png", ["--out x.png is the name of a picture"]),
        ("sample here --out ~/x", ["--out ~/x has a ~ that the shell leaves", "leave out the quotes"]),
        ("data pack photos/* --out x", ["photos/* does not exist"]),
        ("train digits --data.flip --seed 1 yes", ["takes no further 'yes'", "--NAME or --no-NAME"]),
        ("data pack a.png b.png --out x", ["takes no further 'b.png'", "in place of many files their folder"]),
        ("train digits --grids.sampler dpmp_2m", ["--grids.sampler dpmp_2m", "did you mean dpmpp_2m?"]),
    ],
)
def test_a_value_of_another_kind_is_refused_as_it_was_given(unstir, refused, arguments, words):
    refused(unstir(*arguments.split()), *words)


@pytest.mark.parametrize("option", ["--num", "--seed", "--steps"])
def test_a_number_of_thousands_of_digits_is_refused_in_a_short_line(unstir, refused, option):
    err = refused(unstir("sample", "here", option, "9" * 5000), option, "too large", "18 digits")
    assert len(err) < 400


@pytest.mark.parametrize("text", ["9" * 19, "-" + "9" * 19, "+1" + "0" * 18])
def test_numbers_beyond_64_bits_are_refused(unstir, refused, text):
    refused(unstir("sample", "here", f"--seed={text}"), "--seed", "too large")


SWITCHES = "--ema=no", "--ema=TRUE", "--no-ema", "--ema", "--ema=0"


@pytest.mark.parametrize("typed", ["--seed=-5", "--seed -5", "--seed +007", f"--seed {'9' * 18}", *SWITCHES])
def test_whole_numbers_and_switches_pass(unstir, refused, typed):
    refused(unstir("sample", "here", *typed.split()), "here does not exist")


def test_a_list_has_commas_or_spaces_and_a_name_keeps_its_commas(unstir, refused, monkeypatch):
    def stop(config, folder, *_):
        raise UserError(f"{folder} {config.data.source} {config.model.mults} {config.grids.epochs}")

    monkeypatch.setattr("unstir.train.launch.open_data", stop)
    for mults, epochs in (("1,2,4", "3,"), ("1 2 4", "3"), ("1, 2,4", "3")):
        lists = ["--model.mults", *(mults.split() if "," not in mults else [mults]), f"--grids.epochs={epochs}"]
        refused(unstir("train", "digits", "--out", "a,b", "--data.source", "1,2", *lists), "a,b 1,2 (1, 2, 4) (3,)")


@pytest.mark.parametrize("box", ["0 0 4 4", "0,0,4,4", "0 0,4 4"])
def test_a_path_with_a_comma_may_follow_a_list(unstir, refused, box):
    refused(unstir("edit", "inpaint", "here", "--box", *box.split(), "a,b.png"), "here does not exist")
    refused(unstir("edit", "blend", "here", "--numbers", "0", "5", "a,b.png", "1,2.png"), "--numbers 0 5")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("--train.warmup", "6 steps", '--train.warmup "6 steps"'),
        ("--train.init", "", '--train.init ""'),
        ("--out", "my runs/$1", "--out 'my runs/$1'"),
        ("--data.flip", False, "--data.no-flip"),
        ("--data.flip", True, "--data.flip"),
        ("--seed", 3, "--seed 3"),
        ("--model.mults", [1, 2], "--model.mults 1 2"),
    ],
)
def test_a_setting_as_an_option(name, value, text):
    assert Options([name])({name.removeprefix("--"): value}) == text


NAMES = "--num", "--batch-size", "--reference", "--label", "--guidance", "--data.channels", "--model.channels", "RUN"


@pytest.mark.parametrize(
    ("settings", "words", "text"),
    [
        ({"batch_size": 0}, ["--batch-size", "0"], "--batch-size 0"),
        ({"batch_size": 64}, [], "--batch-size 64"),
        ({"guidance": 2.0}, ["--guidance", "3"], "--guidance 2"),
        ({"channels": 2}, ["--model.channels", "2"], "--model.channels 2"),
        ({"channels": 2}, [], "channels=2"),
        ({"num_reference": None}, [], "--reference"),
        ({"run": None}, [], "run"),
        ({"num": 1, "label": "cat"}, [], "--num 1 --label cat"),
    ],
)
def test_arguments_of_the_library_as_options_of_a_command(settings, words, text):
    assert Options(NAMES, words)(settings) == text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--train.length", "60/0 steps"], '--train.length "60/0 steps" must be a whole number and a unit, such as '),
        (["--train.length", ""], '--train.length "" must be a whole number and a unit'),
        (["--train.length=-5 steps"], '--train.length "-5 steps" must be a whole number'),
        (["--train.warmup", "-1 epoch", "--seed", "3"], '--train.warmup "-1 epoch" must be a whole number'),
        (["--train.lr", "-1e-4"], "--train.lr -1e-4 must be greater than 0"),
        (["--train.lr_period", "x" * 99], f"--train.lr_period {'x' * 37}... must be a whole number"),
        (["--train.lr", "nan"], "--train.lr nan must be a finite number"),
        (["--grids.epochs", "3", "-1"], "--grids.epochs -1 must be greater than"),
        (["--model.mults"], "--model.mults must have at least 1 item"),
        (["--model.heads", "7"], "--model.heads 7 does not divide the 64 channels"),
        (["--grids.eta", "0.5", "--grids.sampler", "ancestral"], "--grids.eta 0.5 is an option of ddim"),
        (["--grids.steps", "3000"], "use --grids.steps 1000\n"),
        (["--log.held_out_images", "1"], "use --log.held_out_images 2, or use --log.held_out_images 0\n"),
    ],
)
def test_a_wrong_value_is_shown_as_it_was_typed(unstir, refused, typed, says):
    assert says in refused(unstir("train", "digits", *typed))


def test_another_sampler_of_the_grids_has_its_own_options(unstir, refused):
    words = "train", "cifar10-report", "--grids.sampler", "ddim"  # the recipe's variance is of another
    refused(unstir(*words, "--train.batch_size", 0), "--train.batch_size 0 must be greater")
    refused(unstir(*words, "--grids.variance", "small"), "--grids.variance small is an option of ancestral")


def test_in_a_file_a_setting_stays_one():
    error = UserError("num", 0, "must be at least 1", {"num": 1}).at("mine.toml")
    assert error.line(Options(NAMES)) == str(error)


def test_a_folder_without_a_name_is_not_the_one_that_one_is_in(unstir, refused):
    for words in (
        ("sample", ""),
        ("train", "digits", "--out", ""),
        ("sample", "nowhere", "--out", ""),
        ("evaluate", " "),
        ("data", "inspect", "x", "--sheet="),
    ):
        refused(unstir(*words), "is no name of a file or folder")
