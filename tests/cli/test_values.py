"""What is typed for an option: whole numbers stay whole, and each wrong value is answered in one line."""

import pytest

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
