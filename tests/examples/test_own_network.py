"""A network of the user's own: trained, continued, sampled and reported by its name; never imported without consent."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import forget_parts, tiny_config
from refusals import mistake
from unstir import Run, load_recipe, parts
from unstir.interop.exporting import export
from unstir.interop.onnx_file import on_onnxruntime
from unstir.nn.config import ModelConfig
from unstir.runs import build, checkpoint, toml
from unstir.runs.toml import is_run
from unstir.train.distill import distill_run
from unstir.train.launch import train_run

DIT = Path(__file__).parents[2] / "examples" / "dit.py"
CPU = torch.device("cpu")
OPTIONS = {"width": 16, "depth": 1, "heads": 2}


@pytest.fixture
def forget(monkeypatch):
    """forget(): as in a new process, nothing is imported and nothing allowed."""

    def forgotten():
        forget_parts(monkeypatch, "dit")

    return forgotten


@pytest.fixture
def place(tmp_path, monkeypatch, forget):
    """A folder with the code of a network, dit.py, which nothing has imported; it is the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIT, tmp_path)
    forget()
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in ("dit", "mine"):
        sys.modules.pop(module, None)


TOLD = """
import unstir
from torch import nn

@unstir.network
class Told(nn.Module):
    def __init__(self, in_channels, out_channels, num_labels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.how = nn.Linear(7, out_channels)

    def forward(self, x, t, label, augmentation):
        return self.conv(x) + self.how(augmentation)[:, :, None, None]
"""


@pytest.fixture
def augmented(place, digits):
    """The model of a run whose network is told of augmentation, in the folder run."""
    Path("mine.py").write_text(TOLD)
    parts.allow("mine:Told")
    network = ModelConfig(type="mine:Told", in_channels=1)
    config = replace(tiny_config(digits, train__length="2 steps", train__augment=0.5), model=network)
    assert train_run(config, "run").finished
    return Run.open("run").model(device="cpu")


def test_it_may_be_told_of_augmentation_and_distilled(augmented):
    model, x_t = augmented, torch.randn(2, 1, 8, 8)
    net, t = model.denoiser.net, torch.full((2,), 6)
    with torch.inference_mode():
        assert torch.equal(model.denoiser(x_t, 7).raw, net(x_t, t, None, torch.zeros(2, 7)))  # as of images as they are
    assert export(model, "safetensors", "slim").error == 0
    assert distill_run("run", "fast", "2 steps").finished
    assert distill_run("run", "fast", "3 steps").step == 3


@pytest.mark.slow
def test_told_of_augmentation_its_onnx_file_is_what_is_sampled(augmented):
    pytest.importorskip("onnxruntime", reason="what computes the file: pip install '.[onnx]'")
    x_t = torch.randn(3, 1, 8, 8)
    with torch.inference_mode():
        expected, computed = (model.denoiser(x_t, 7).raw for model in (augmented, on_onnxruntime(augmented)))
    assert (computed - expected).abs().max() < 1e-5 * expected.abs().max()


def words(digits, out, length="4 steps"):
    return [
        "train", "digits", "--out", out, "--model.type", "dit:DiT", "--model.options.width", 16,
        "--model.options.depth", 1, "--model.options.heads", 2, "--data.store", digits, "--diffusion.T", 20,
        "--train.length", length, "--train.lr_schedule", "constant", "--train.warmup", "0 steps",
        "--train.batch_size", 8, "--log.every", "2 steps", "--checkpoint.every", "2 steps", "--grids.num", 4,
        "--grids.steps", 2, "--grids.log_spaced", 1, "--log.held_out_images", 2, "--log.held_out_times", 1,
    ]  # fmt: skip


def test_it_is_trained_continued_sampled_and_reported_like_the_unet(
    place, forget, digits, unstir, refused, monkeypatch
):
    unstir.done(*words(digits, "whole"))
    assert Run.open("whole").config.model == ModelConfig(type="dit:DiT", in_channels=1, options=OPTIONS)
    assert unstir(*words(digits, "run", "2 steps"))[0] == 0
    forget()
    assert f"{parts.VARIABLE}=dit" in refused(unstir("train", "--out", "run", "--train.length", "4 steps"), "dit:DiT")
    assert "dit" not in sys.modules
    assert unstir(*words(digits, "run"))[0] == 0
    saved = [checkpoint.load(Run.open(name).checkpoints / checkpoint.file_name(4)) for name in ("whole", "run")]
    assert saved[0].tensors.keys() == saved[1].tensors.keys() and "ema.blocks.0.steer.weight" in saved[0].tensors
    assert all(torch.equal(t, saved[1].tensors[name]) for name, t in saved[0].tensors.items())
    forget()
    refused(unstir("sample", "run", "--num", 2, "--steps", 2, "--out", "made"), "dit:DiT", "where you trust")
    refused(unstir("doctor", "run"), "where you trust")
    assert "dit" not in sys.modules and not Path("made").exists()

    monkeypatch.setenv(parts.VARIABLE, "other, dit")
    assert unstir("sample", "run", "--num", 2, "--sampler", "ddim", "--steps", 2, "--out", "made")[0] == 0
    unstir.done("sample", "run", "--num", 2, "--steps", 2, "--dtype", "bfloat16", "--out", "half")
    status, out, err = unstir("doctor", "run")
    assert status in (0, 1) and "--model." not in out, err
    assert unstir("report", "run", "--no-measure")[0] == 0
    assert unstir("export", "run", "--to", "safetensors", "--out", "file")[0] == 0
    status, _, err = unstir("distill", "run", "--out", "fast", "--length", "1 steps")
    assert status == 0 and Run.open("fast").config.model.options == OPTIONS, err


def test_a_file_of_settings_of_the_users_own_is_consent_and_the_config_of_a_run_is_not(place, forget, digits):
    Path("mine.toml").write_text('recipe = "digits"\n[model]\ntype = "dit:DiT"\n')
    assert load_recipe("mine.toml").model == ModelConfig(type="dit:DiT", in_channels=1)
    assert build.network(load_recipe("mine.toml"), CPU).patch == 2
    forget()
    Path("data.json").touch()  # now it lies in a run, which may be a stranger's
    assert f"{parts.VARIABLE}=dit" in str(mistake(build.network, load_recipe("mine.toml"), CPU))
    assert "dit" not in sys.modules


def test_importing_the_module_is_consent_and_no_class_but_a_registered_one_is_found(place):
    config = tiny_config("none")
    tiny = replace(config, model=ModelConfig(type="subprocess:Popen", in_channels=1, options={"args": "true"}))
    parts.allow("subprocess:Popen")
    assert "network Popen" in str(mistake(build.network, tiny, CPU))
    sys.path.append(str(place))
    import dit

    assert isinstance(build.network(replace(tiny, model=ModelConfig(type="dit:DiT", in_channels=1)), CPU), dit.DiT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.type", "dit"], "--model.type dit must be one of unet, or MODULE:NAME"),
        (["--model.type", "dit:DiT", "--model.channels", 64], "--model.channels 64 is of the U-Net"),
        (["--model.options.width", 64], "are of a network of your own"),
        (
            ["--model.type", "dit:DiT", "--model.options.widht", 64],
            "--model.options.widht 64 is no option: dit:DiT takes width, depth, heads, patch; did you mean width?",
        ),
        (
            ["--model.type", "dit:DiT", "--model.options.width", "wide"],
            "--model.options.width wide must be a whole number",
        ),
        (["--model.type", "dit:Dit"], "has no network Dit"),
        (["--model.type", "mine:Forgotten"], "has no network Forgotten; put @unstir.network above it"),
        (["--model.type", "absent:Net"], "ModuleNotFoundError: No module named 'absent'"),
        (["--model.type", "broken:Net"], "SyntaxError"),
        (["--model.type", "dit:DiT", "--model.options.patch", 3], "returns [2, 1, 6, 6]"),
        (["--model.type", "dit:DiT", "--train.activation_checkpointing", 1], "is of the U-Net"),
        (["--model.type", "dit:DiT", "--train.augment", 0.1], "needs a network that takes augmentation"),
        (["--model.type", "mine:Dropping"], "draws random numbers of torch's"),
        (["--model.type", "mine:Attending"], "draws random numbers of torch's"),
        (["--model.type", "mine:Frozen"], "has the parameter still, which gets no gradient"),
        (["--model.type", "mine:Unused"], "has the parameter idle, which gets no gradient"),
        (["--model.type", "mine:Counting"], "holds seen, which is not float32"),
        (["--model.type", "mine:Raising"], "by zero (mine.py, line 47)"),
        (["--model.type", "mine:Paired"], "returns a tuple"),
    ],
)
def test_what_is_wrong_with_it_is_one_line_before_anything_is_written(place, digits, unstir, refused, arguments, said):
    Path("broken.py").write_text("class Net(\n")
    Path("mine.py").write_text(MINE)
    refused(unstir("train", "digits", "--out", "run", "--data.store", digits, *arguments), said)
    assert not Path("run").exists()


MINE = """import torch
import unstir

class Forgotten(torch.nn.Module): ...

@unstir.network
class Plain(torch.nn.Conv2d):
    def __init__(self, channels, outputs, labels, rate=0.0):
        super().__init__(channels, outputs, 1)
        self.drop = torch.nn.Dropout(rate)

    def forward(self, x, t, label=None, dropout_key=None):
        assert (dropout_key is None) == (not self.training)
        return super().forward(self.drop(x))

@unstir.network
class Dropping(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes, rate=0.5)

@unstir.network
class Attending(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.attention = torch.nn.MultiheadAttention(1, 1, dropout=0.5, batch_first=True)

    def forward(self, x, t, label=None):
        tokens = x.flatten(2).mT
        seen = self.attention(tokens, tokens, tokens)[0].mT.reshape(x.shape)
        return super().forward(seen, t, label, self.training or None)

@unstir.network
class Frozen(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.still = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

@unstir.network
class Unused(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.idle = torch.nn.Parameter(torch.zeros(1))

@unstir.network
class Raising(Plain):
    def forward(self, x, t, label=None):
        return x * (1 // 0)

@unstir.network
class Paired(Plain):
    def forward(self, x, t, label=None):
        return super().forward(x, t, label, self.training or None), None

@unstir.network
class Counting(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
"""


def test_counts_are_of_the_network_and_not_of_the_unet(place):
    parts.allow("dit:DiT")
    config = replace(tiny_config("none"), model=ModelConfig(type="dit:DiT", in_channels=1, options=OPTIONS))
    net = build.network(config, CPU)
    assert build.num_parameters(config) == sum(p.numel() for p in net.parameters())
    width, tokens = 16, 16
    block = tokens * 12 * width**2 + 2 * tokens**2 * width + 6 * width**2  # matrices of tokens, attention, the gates
    ends = tokens * 4 * width * 2 + 2 * width**2  # in and out of patches of 2x2, the time
    assert build.forward_flops(config, 8, 8) == 2 * (block + ends)
    assert toml.from_dict(toml.to_dict(config), "test") == config and "channels" not in toml.to_dict(config)["model"]


def test_dropout_keys_reach_a_network_that_takes_them(place, make_run):
    from unstir.train.trainer import Trainer

    Path("mine.py").write_text(MINE)
    parts.allow("mine:Plain")
    run, store = make_run(train__length="2 steps")
    config = replace(run.config, model=ModelConfig(type="mine:Plain", in_channels=1, options={"rate": 0.0}))
    assert Trainer(replace(run, config=config), store).run()  # its forward pass asserts it


def test_the_settings_of_the_unet_are_written_as_before():
    assert not {"type", "options"} & toml.to_dict(load_recipe("digits"))["model"].keys()
    assert isinstance(build.network(load_recipe("digits"), CPU), nn.Module)


@pytest.mark.slow
def test_the_example_is_trained_as_it_says_and_writes_to_runs_of_the_current_folder(tmp_path):
    shutil.copytree(DIT.parent, tmp_path / "examples", ignore=shutil.ignore_patterns("*.ipynb", "__pycache__", "*-*"))
    typed = "PYTHONPATH=examples unstir train examples/dit.toml"
    for file in (DIT, DIT.with_suffix(".toml"), DIT.parents[1] / "docs/extend.md"):
        assert typed in file.read_text()
    before = sorted(path.name for path in (tmp_path / "examples").iterdir())
    short = "--train.warmup=0steps --train.length=1step --grids.num=1 --grids.steps=2 --log.held_out_images=0"
    small = "--train.batch_size=2 --model.options.width=16 --model.options.depth=1"
    command = [sys.executable, "-m", "unstir", "train", "examples/dit.toml", *short.split(), *small.split()]
    paths = os.pathsep.join(filter(None, ("examples", os.environ.get("PYTHONPATH"))))
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, check=True, timeout=240)
    assert is_run(tmp_path / "runs/dit") and (tmp_path / "data/digits").is_dir()
    assert sorted({path.name for path in (tmp_path / "examples").iterdir()} - {"__pycache__"}) == before
