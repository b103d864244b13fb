"""Whatever is typed, and whatever the machine refuses: a status and one line that says what to type, no traceback."""

import errno
import logging
import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import COMMANDS, options_of
from PIL import Image

import unstir.metrics.evaluate  # noqa: F401  # before its parts are replaced
from unstir import cli
from unstir.chain import SAMPLERS
from unstir.cli.app import show
from unstir.cli.values import meant
from unstir.data import pack
from unstir.errors import REMEDIES, UserError
from unstir.runs import toml
from unstir.runs.run import Run
from unstir.runs.synonyms import GOES_ON, MEANT
from unstir.train.trainer import Trainer

FILE = "runs/r1/weights/step-00000001.safetensors"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Images, a file named as ONNX's, nothing, and a place for a run."""
    shelf = tmp_path_factory.mktemp("shelf")
    for name in ("few", "ox", "empty"):
        (shelf / name).mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(shelf / "few/1.png")
    (shelf / "ox/model.onnx").write_bytes(b"\x08\x08")
    return shelf


@pytest.fixture
def there(shelf, monkeypatch, make_run):
    """The shelf, with a run of one step, as the present folder."""
    monkeypatch.chdir(shelf)
    if not (shelf / "runs").exists():
        run, store = make_run("r1", train__length="1 step")
        Trainer(run, store).run()
        (shelf / "runs").mkdir()
        run.path.rename(shelf / "runs/r1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train few", ["neither a recipe"]),
        ("train runs/r1", ["is a run", "train --out runs/r1"]),
        ("train digit", ["did you mean digits?"]),
        ("sample runs/rr1", ["runs/rr1 does not exist"]),
        ("data inspect few", ["few is no packed store", "unstir data pack"]),
        ("sample runs/r1 --num", ["--num"]),
        ("sample", ["RUN"]),
        ("sample few", ["few holds no run"]),
        ("push few me/x", ["few holds no run"]),
        ("report few", ["few holds no run"]),
        ("sample few/1.png", ["holds no run"]),
        ("sample ox/model.onnx", ["holds no run"]),
        ("report runs/r1 runs/../runs/r1", ["runs/r1 is named twice"]),
        ("train digits --out q --train.init ox/model.onnx", ["ox/model.onnx is damaged"]),
        ("import ox/model.onnx --out i", ["ox/model.onnx is refused", "name a file of weights"]),
        ("import empty --out i", ["no folder of diffusers", "OWNER/NAME"]),
        (f"import {FILE} --out i", ["needs no import", "name the run"]),
    ],
)
def test_what_it_is_and_what_to_type_is_said(there, command, refused, arguments, words):
    refused(command(*arguments.split()), *words)


def test_a_run_whose_config_is_gone_is_no_run_and_none_begins_there(there, command, refused, tmp_path):
    shutil.copytree("runs/r1", broken := tmp_path / "broken")
    (broken / "config.toml").unlink()
    for name in ("sample", "doctor", "report", "evaluate"):
        refused(command(name, broken), f"{broken} holds no run")
    refused(command("train", "digits", "--out", broken), f"{broken} is not empty")


def test_a_store_is_no_run(there, command, refused, digits):
    for word in ("doctor", "evaluate", "sample", "likelihood", "report"):
        refused(command(word, digits), f"{digits} holds no run")


def test_what_is_no_command_no_number_and_no_set_of_images_is_said_so(there, command, refused, digits):
    refused(command("--vers"), "unstir has no option '--vers'. Did you mean unstir --version?")
    refused(command("smaple"), "unstir has no command 'smaple'. Did you mean unstir sample?")
    refused(command("sample", "runs/r1", "--num", ""), '--num "" must be a whole number')
    refused(command("sample", "runs/r1", "--guidance="), '--guidance "" must be a number')
    Path("program.py").write_text("print(1)")
    refused(command("evaluate", "--images", "program.py", "--store", digits), "program.py")


def test_a_name_almost_that_of_a_source_is_answered_with_it(there, command, refused):
    refused(command("data", "pack", "Digts", "--out", "s"), "Digts does not exist; did you mean digits?")
    assert "digits?" not in refused(command("data", "pack", "photos", "--out", "s"), "photos")


def test_commands_that_are_printed_take_a_folder_with_a_space_in_its_name(there, command, refused, tmp_path):
    folder = Path(shutil.copytree("runs/r1", tmp_path / "my run"))
    assert shlex.split(Run.open(folder).going_on)[2] == f"{folder}/config.toml"
    for weights in ("weights", "checkpoints"):
        shutil.rmtree(folder / weights)
    refused(command("sample", folder), f"unstir train --out '{folder}'")


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
        ("model.ch_mult", "model.mults"), ("zzzz", None), ("micro_batch", "train.micro_batch"), ("scale", "data.scale"),
    ],
)  # fmt: skip
def test_words_of_the_field_lead_to_keys_of_a_recipe(key, meant):
    assert toml.near_key(key) == meant


VALUES = (
    "0", "1", "-1", "2.7", "1e3", "nan", "inf", "-inf", "9" * 5000, "1" * 19, "", " ", "\udcff",
    "caf\udce9.png",
    "\x1b[31mred\x1b[0m", "[bold]x", "\u202egnp.exe", "\u00e9", "true", "no", "None",
    "[1, 2]", '{"a": 1}', "{", "--", "-",
    "--x", "-n", "=", "a=b", "ddim", "ancestral", "5 epochs", "../..", "x" * 5000, "/dev/null", "*", "%s", "{0}", "@x",
    "'", '"', "\n", "--help", "train",
)  # fmt: skip


@pytest.fixture
def nothing_is_done(monkeypatch, tmp_path):
    """The command line is parsed and checked; what it would begin is refused in place of done."""

    def stop(*_, **__):
        raise UserError("here it would begin")

    monkeypatch.chdir(tmp_path)
    for place in (
        "unstir.train.launch.open_data", "unstir.runs.run.Run.open", "unstir.data.pack", "unstir.data.Store.open",
        "unstir.verify.choose",
    ):  # fmt: skip
        monkeypatch.setattr(place, stop)


@pytest.mark.parametrize("seed", range(8))
def test_random_command_lines_end_in_a_status_and_no_traceback(nothing_is_done, command, tmp_path, seed):
    chance = random.Random(seed)
    for _ in range(25):
        name = chance.choice([*COMMANDS, (), ("data",), ("edit",)])
        words = [*name, *"rij"[: chance.randrange(4)]]
        options = (sorted(options_of(name)) if name in COMMANDS else []) or ["--help", "--version", "-h"]
        for _ in range(chance.randrange(4)):
            option, value = chance.choice(options), chance.choice(VALUES)
            words += chance.choice(([option, value], [f"{option}={value}"], [value], [option], [option, value, value]))
        if chance.random() < 0.2:
            words[chance.randrange(len(words) + 1) :] = [chance.choice(VALUES)]
        status, out, err = command(*words)
        assert status in (0, 1, 2), words
        assert "Traceback" not in out + err, words
        assert status == 0 or (err.count("\n") == 1 and len(err) < 2000), (words, err)
        assert "\x1b" not in err and "\udcff" not in err, words
        for foreign in ("Errno", "nput should", "nable to", "nvalid literal", "Exceeds", "pydantic"):
            assert foreign not in err, (words, err)
        assert not list(tmp_path.iterdir()), words


ODD_FILES = None, b"bytes", "\x1b[2Jname"


@pytest.mark.parametrize(
    ("number", "file"),
    [*((number, "there/settings.json") for number in sorted(REMEDIES)), *((errno.EIO, file) for file in ODD_FILES)],
)
def test_each_error_of_the_system_names_file_and_remedy(command, monkeypatch, number, file):
    error = OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    status, _, err = command("doctor", "r")
    assert status == 2 and err.count("\n") == 1 and os.strerror(number) in err and REMEDIES[number] in err
    assert "Errno" not in err and "\x1b" not in err
    assert not isinstance(file, str) or file.split("[")[-1].removeprefix("2J") in err


UNREADABLE = Path("/proc/self/mem")  # it opens, and what is read at its start is EIO


@pytest.mark.skipif(not UNREADABLE.exists(), reason="no such file in this system")
@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["edit", "vary", "shipped:digits", "bad.png"], "bad.png"),
        (["edit", "inpaint", "shipped:digits", "good.png", "--mask", "bad.png"], "bad.png"),
        (["train", "bad.toml"], "bad.toml"),
        (["data", "inspect", "store", "--sheet", "bad.png"], "bad.png"),
        (["report", "run"], "run/data.json"),
        (["report", "shipped:digits", "--out", "bad.html"], "bad.html"),
        (["report", "--images", "images", "--store", "store"], "images: bad.png"),
        (["evaluate", "--images", "images", "--store", "store"], "images: bad.png"),
        (["evaluate", "run"], "run/data.json"),
    ],
    ids=lambda it: it if isinstance(it, str) else " ".join(it),
)
def test_an_error_while_a_file_is_read_names_it(command, monkeypatch, tmp_path, words, file):
    monkeypatch.chdir(tmp_path)
    for name in ("bad.png", "bad.toml", "bad.html", "images/bad.png", "run/data.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(UNREADABLE)
    for name in ("good.png", "images/good.png"):
        Image.new("L", (8, 8)).save(name)
    Path("run/config.toml").touch()
    pack("digits", tmp_path / "store")
    status, _, err = command(*words)
    assert status == 2 and err.count("\n") == 1 and file in err and os.strerror(errno.EIO) in err


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), "2.50 GiB"),
        (RuntimeError("std::bad_alloc"), "out of memory; lower --batch-size"),
        (type("Failed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})("odd"), "odd. Leave it out: --compile"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OverflowError("int too large to convert to float"), "too large"),
        (ValueError("Exceeds the limit (4300 digits) for integer string conversion"), "too large"),
        (UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed"), "not UTF-8"),
    ],
)
def test_limits_of_the_machine_are_one_line(command, monkeypatch, error, word):
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    status, _, err = command("doctor", "r")
    assert status == 2 and err.count("\n") == 1 and word in err and "Exceeds" not in err


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("odd"), KeyError("odd"), AssertionError("odd")])
def test_a_bug_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr("unstir.runs.run.Run.open", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        cli.main(["doctor", "r"])


ONE_BY_ONE = """
import sys
from unstir.cli import main
words = []
for word in sys.argv[1:]:
    words.append(word)
    if word == "--and":
        try:
            main(words[:-1])
        except SystemExit as left:
            print(left.code)
        words = []
"""
"""Commands that end in --and, in one process, which imports torch once; it prints the exit status of each."""


@pytest.mark.parametrize("terminal", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_names_that_the_terminal_cannot_show_do_not_fail(tmp_path, terminal):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 \xc3\xa9\x1b[31m"
    os.mkdir(folder)
    commands = [b"sample", folder], [b"train", b"--data.source", folder], [b"data", b"inspect", folder]
    given = [word for words in commands for word in (*words, b"--and")]
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, *given], capture_output=True, env={**os.environ, **terminal}, cwd=tmp_path
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert done.stdout.split() == [b"2", b"2", b"2"] and done.stderr.count(b"\n") == 3, done.stderr
    for line in done.stderr.splitlines():
        assert rb"caf\xe9" in line and b"\x1b" not in line, line


@pytest.mark.parametrize("words", [("--sheet", "x.txt"), ("--sheet", "no/x.png"), ("--sheet", ".")])
def test_the_name_of_a_contact_sheet_is_checked(unstir, refused, tmp_path, digits, words):
    assert "png" in refused(unstir("data", "inspect", digits, *words), words[1]).lower()
    assert not (tmp_path / "x.txt").exists() and not (tmp_path / "no").exists()


def test_what_a_terminal_would_act_on_is_escaped_in_results_and_in_what_is_said(unstir, capsys, monkeypatch):
    for given, shown in (("a\x1b[2Jb", "a\\x1b[2Jb\n"), ("caf\udce9\nline", "caf\\xe9\\nline\n")):
        show(given)
        assert capsys.readouterr().out == shown
    logger = logging.getLogger("unstir.verify")
    monkeypatch.setattr("unstir.verify.verify", lambda names: logger.warning("a\x1b]0;title\x07b") or [])
    status, _, err = unstir("verify")
    assert status == 0 and err == "unstir: a\\x1b]0;title\\x07b\n"
