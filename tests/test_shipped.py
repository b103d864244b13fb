"""Models that come with the package: found by name, read where they lie, and what is made of them goes elsewhere."""

import hashlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from refusals import mistake, refusing
from unstir import cli
from unstir.chain import Chain
from unstir.generate.drawing import Job, sample_batches
from unstir.insight.doctor import longer
from unstir.insight.gather import gather
from unstir.metrics.evaluation import own
from unstir.runs import named
from unstir.runs.initial import pinned
from unstir.runs.run import Run
from unstir.runs.stores import with_store
from unstir.train.distill import distilled

ROOT = Path(__file__).parents[1]
QUICK = ["--num", "2", "--steps", "2"]
MOST = 36e6  # bytes of all models in the wheel


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_command(*words):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    return stopped.value.code


def content(folder):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """The models in a folder that cannot be written, as in a package that the system installed."""
    folder = tmp_path / "package"
    shutil.copytree(named.FOLDER, folder)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(named, "FOLDER", folder)
    before = content(folder)
    yield folder
    assert content(folder) == before
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


def test_a_name_and_the_name_with_its_prefix_are_one_run():
    run = Run.open("digits")
    assert run == Run.open("shipped:digits") == Run.open(Path("digits")) == Run.open(run.name)
    assert (run.path, run.files) == (Path("digits"), named.FOLDER / "digits")


@pytest.mark.parametrize("place", ["digits", "runs/digits"])
def test_a_name_that_a_run_has_too_is_refused_and_both_are_named(place):
    shutil.copytree(named.FOLDER / "digits", place)
    refused = mistake(Run.open, "digits")
    assert "shipped:digits" in str(refused.remedy) and place in str(refused.remedy)
    assert Run.open("shipped:digits").shipped and Run.open(Path(place).resolve()).shipped is None
    assert run_command("report", "shipped:digits", "--no-measure", "--out", "page.html") == 0
    page = Path("page.html").read_text()
    assert "FD-classifier" in page and "samples of class 7" in page


def test_what_was_made_of_a_model_hides_it_not():
    Path("digits/generated").mkdir(parents=True)
    Path("runs/digits").mkdir(parents=True)
    assert Run.open("digits").shipped


def test_a_name_that_no_model_has_is_refused():
    with refusing("", given="shipped:dogs"):
        Run.open("shipped:dogs")


def test_commands_write_beside_and_not_into_the_package(read_only):
    assert run_command("sample", "digits", "--label", "7", *QUICK, "--out", "made") == 0
    assert run_command("sample", "digits", *QUICK) == 0
    picture = "made/000000.png"
    assert run_command("edit", "vary", "digits", picture, "--strength", "0.5", *QUICK) == 0
    assert run_command("export", "digits", "--to", "safetensors") == 0
    assert run_command("likelihood", "digits", "--calls", "2", "--num", "8") == 0
    assert {path.name for path in Path("digits").iterdir()} == {"generated", "edits", "exported", "likelihood"}


MADE = [
    ["report", "--live"],
    ["report", "--live", "--out", "new/folder/page.html"],
    ["sample", *QUICK, "--animate", "new/steps.webp"],
    ["sample", "--num", "2", "--compare", "ddim:1,ddim:2"],
    ["sample", "--num", "2", "--compare", "ddim:1,ddim:2", "--out", "new/folder"],
    ["edit", "morph", "--labels", "3", "5", "--steps", "2", "--out", "new/folder/morph.png"],
    ["export", "--to", "safetensors", "--out", "new/folder/weights"],
]


@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_commands_make_the_folder_of_what_they_write(words):
    at = 2 if words[0] == "edit" else 1
    assert run_command(*words[:at], "shipped:digits", *words[at:]) == 0
    assert any(file.is_file() for folder in ("digits", "new") for file in Path(folder).rglob("*"))


def test_its_training_goes_on_in_another_folder():
    facts = gather("shipped:mnist", samples=False)
    assert "out=RUN" not in longer(facts) and "--train.init shipped:mnist" in longer(facts)


def test_its_digits_are_packed_where_a_run_would_have_them():
    run, store = with_store(Run.open("digits"))
    assert store.path == Path("data/digits") and store.content_hash == run.data.content_hash


def test_its_figures_are_there():
    assert all(own(Run.open(f"shipped:{name}")) for name in named.names())


def test_weights_are_bfloat16_and_give_the_same_pixels_twice():
    with safe_open(next(Run.open("digits").weights.iterdir()), framework="pt") as file:
        network = set(file.keys()) - {"errors"}  # of training, by time
        assert {file.get_tensor(name).dtype for name in network} == {torch.bfloat16}
    job = Job(num=2, chain=Chain("ddim", steps=2))
    once, again = (next(sample_batches(Run.open("digits").model(), job))[1] for _ in range(2))
    assert torch.equal(once, again)


def test_settings_keep_its_name_and_step():
    run = Run.open("digits")
    kept = f"shipped:digits@{run.newest_step()}"
    assert pinned("digits") == pinned("shipped:digits") == distilled(run).train.init == kept


def test_the_first_training_ends_with_what_draws_at_once(capsys):
    short = ["--train.length", "1 steps", "--train.warmup", "0 steps", "--train.batch_size", "2"]
    quick = ["--model.channels", "8", "--grids.num", "1", "--grids.steps", "1", "--log.held_out_images", "0"]
    assert run_command("train", *short, *quick) == 0
    command = capsys.readouterr().out.splitlines()[-1].partition("unstir ")[2].split()
    assert run_command(*command, *QUICK) == 0 and Path("mnist/generated").is_dir()


def test_each_model_is_listed(capsys):
    assert run_command("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(named.names())
    for line, name in zip(lines, named.names(), strict=True):
        run = Run.open(f"shipped:{name}")
        assert f" at guidance {own(run)[-1].protocol['guidance']:g} (" in line


def test_all_models_are_small():
    assert sum(file.stat().st_size for file in named.FOLDER.rglob("*") if file.is_file()) < MOST


@pytest.mark.slow
def test_the_script_makes_a_model_of_a_run(trained, quick, tmp_path, monkeypatch):
    run, store = trained("own", model__num_classes=10, diffusion__T=25, log__held_out_images=4)
    monkeypatch.setattr(named, "FOLDER", tmp_path / "models")
    words = [str(run.path), "digits", "--commit", "abc", "--store", str(store.path)]
    monkeypatch.setattr(sys, "argv", ["ship.py", *words])
    runpy.run_path(str(ROOT / "benchmarks/ship.py"), run_name="__main__")
    made, weights = Run.open("digits"), run.load().part("ema")
    assert made.metrics() == [{**line, "run": made.data.run} for line in run.metrics()] and len(own(made)) == 1
    for name, tensor in made.load().part("model").items():
        assert torch.equal(tensor, weights[name].bfloat16()), name
    assert {path.name for path in made.files.iterdir()} >= {"README.md", "samples.png", "data.json", "config.toml"}


@pytest.mark.slow
def test_the_wheel_has_the_models(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", "wheels", ROOT], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", "installed", wheel], cwd=tmp_path, check=True)
    draw = f"import sys; sys.path[0] = 'installed'; from unstir.cli import main; main(['sample', 'mnist', *{QUICK}])"
    subprocess.run([sys.executable, "-c", draw], cwd=tmp_path, env={}, check=True)
    assert (tmp_path / "mnist/generated").is_dir()
