"""`unstir train --help` with the values that would be used, and how the command line alone keeps freed memory."""

import ctypes
import re
import subprocess
import sys
from collections import Counter

import pytest

from unstir.cli.options import MOST_USED
from unstir.jobs import process
from unstir.runs import card, recipes, toml
from unstir.runs.files import encode

DATA = card.DataCard((1, 8, 8), (), {"train": 8, "held_out": 0}, "hash")
VALUES = "with the values of {}"


@pytest.fixture
def page(unstir, monkeypatch):
    """page("train", ..., "--help") -> the help as one line of words."""
    monkeypatch.setenv("COLUMNS", "80")

    def ask(*arguments):
        status, out, err = unstir(*arguments)
        assert status == 0 and not err
        assert max(map(len, out.splitlines())) <= 80
        return " ".join(out.replace("\u2502", " ").split())

    return ask


def entries(text):
    """{option: its default or None} in the order of the page."""
    found = {}
    for part in re.split(r" (?=--[a-z])", text[text.index("Most used") :])[1:]:
        name = part.split()[0]
        default = re.search(r"\[default: ([^\]]+)\]", part)
        found.setdefault(name, default and default[1])
    return found


@pytest.mark.parametrize("recipe", ["", "cifar10-small"])
def test_the_defaults_are_those_of_the_recipe(page, recipe):
    text = page("train", *([recipe] if recipe else []), "--help")
    assert VALUES.format(f"recipe {recipe or 'mnist'}") in text
    shown, config = entries(text), recipes.load_recipe(recipe or "mnist")
    assert shown["--model.channels"] == str(config.model.channels)
    assert shown["--train.length"] == config.train.length
    assert shown["--train.lr"] == str(config.train.lr)
    assert shown["--model.mults"] == " ".join(map(str, config.model.mults))
    assert shown["--diffusion.schedule"] == config.diffusion.schedule
    assert shown["--train.condition_dropout"] == str(config.train.condition_dropout)


def test_each_setting_is_there_once_and_the_most_used_are_first(page):
    text = page("train", "--help")
    listed = [name for name in entries(text) if "no-" not in name and name not in ("--diffusion",)]
    assert tuple(listed[: len(MOST_USED)]) == MOST_USED
    keys = {f"--{key}" for key in toml.flat(recipes.load_recipe("digits"))} - {"--recipe", "--imported"}
    names = Counter(re.split(r"\.|--", key)[-1] for key in keys | {"--data.held_out"})
    listed = text[text.index("Most used") :]
    found = Counter(re.findall(r"(?:--|--\w+\.| \.)(\w+)\s", listed))  # a narrow column breaks a name before its dot
    assert {name: found[name] for name in names} == names
    groups, sections = text[text.index("--seed") :], ("data", "model", "diffusion", "loss", "train", "log", "grids")
    order = [groups.index(f" {section}: ") for section in sections]
    assert order == sorted(order)


def test_a_file_options_and_a_run_have_their_own_values(page, unstir, tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "digits"\n[model]\nchannels = 48\n')
    shown = entries(page("train", "mine.toml", "--help"))
    assert shown["--model.channels"] == "48" and shown["--train.lr"] == "0.004"
    assert entries(page("train", "--help", "mine.toml", "--train.lr", "0.5"))["--train.lr"] == "0.5"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text("[model]\nchannels = 64\n")
    card.save(tmp_path / "run", DATA)
    text = page("train", "--out", "run", "-h")
    assert VALUES.format("run") in text and entries(text)["--model.channels"] == "64"


def test_help_where_a_run_cannot_be_read_has_the_values_of_the_recipe_and_training_says_what_is_wrong(
    page, unstir, refused, tmp_path
):
    run = tmp_path / "runs/mnist"
    run.mkdir(parents=True)
    (run / "config.toml").write_text("[loss]\nno_longer_known = 64\n")
    (run / "data.json").write_text(encode({"unstir_data": 1}))
    assert VALUES.format("recipe mnist") in page("train", "--help")
    assert VALUES.format("recipe mnist") in page("train", "--out", "runs/mnist", "--help")
    refused(unstir("train"), "runs/mnist/data.json has format 1, this version reads")


def test_help_is_quick_for_torch_is_not_loaded():
    code = (
        "import sys\nfrom unstir.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    for words in (("train", "cifar10-small", "--help"), ("sample", "--help"), ("train", "digits", "--lr", "1")):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert "AssertionError" not in done.stderr and done.returncode == (2 if "--lr" in words else 0), done.stderr


def test_a_folder_whose_name_looks_like_markup_is_named(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "a[bold]b[" / "b]").mkdir(parents=True)
    (folder / "config.toml").write_text(toml.to_toml(recipes.load_recipe("digits")))
    card.save(folder, DATA)
    assert VALUES.format("a[bold]b[/b]") in page("train", "--out", "a[bold]b[/b]", "--help")


COUNTING = """
import ctypes

class Counts(ctypes.Structure):
    names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "a", "b", "c", "d", "keepcost"]
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def of_system():
    before = libc.mallinfo2().hblks
    libc.malloc(64 << 20)
    return libc.mallinfo2().hblks - before
"""
LIBRARY = """
import unstir, torch
from unstir.train.launch import train_run
from unstir.runs.run import Run
from unstir.generate.drawing import Job, sample_batches
run = Run.open({path!r})
next(iter(sample_batches(run.model(device="cpu"), Job(num=2, chain=run.chain()))))
train_run(run.config, run.path)
"""
COMMAND = """
import sys
from unstir.cli import main
try:
    main(["--version"])
except SystemExit:
    assert "torch" not in sys.modules
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_the_command_line_keeps_freed_blocks_and_the_library_changes_nothing(trained):
    run, _ = trained(train__length="2 steps")
    found = []
    for code in (LIBRARY.format(path=str(run.path)), COMMAND):
        program = f"{COUNTING}{code}\nprint(of_system(), libc.mallopt(-3, 2**31 - 1))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        found.append(done.stdout.split()[-2:])
    assert found[0][0] == "1"  # glibc maps such a block by itself
    assert found[1] in (["0", "1"], ["1", "0"])  # an older one keeps no block of this size, and says so


def test_another_c_library_is_left_as_it_is(monkeypatch, keep_blocks):
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: object())
    keep_blocks()
    monkeypatch.setattr(process.sys, "platform", "win32")
    keep_blocks()
