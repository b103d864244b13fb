"""Parts of the user's own, one of each kind: found by MODULE:NAME, given their options, absent without consent."""

import json
import math
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unstir
from conftest import forget_parts, tiny_config
from refusals import mistake, refusing
from unstir import Chain, EvaluationRequest, Job, Run, parts, sample_batches
from unstir.data import pack
from unstir.errors import UserError
from unstir.interop.diffusers_settings import to_scheduler
from unstir.metrics.likelihood import Protocol, split_likelihood
from unstir.nn.config import ModelConfig
from unstir.parts import ARGUMENTS, OURS
from unstir.runs import build, recipes, toml
from unstir.runs.conditions import Conditions
from unstir.runs.sections import DataConfig, DiffusionConfig, LossConfig
from unstir.runs.stores import with_store
from unstir.theory.schedule import from_betas
from unstir.train.launch import train_run
from unstir.train.state import WINDOW
from unstir.train.trainer import Trainer

MINE = """
import numpy as np
import torch
import unstir
from unstir import NoiseSchedule, Step
from unstir.train.observer import Observer

@unstir.schedule
def straight(T, power=1.0):
    u = (torch.arange(T + 1, dtype=torch.float64) / (T + 0.5)) ** power
    return NoiseSchedule(2 * torch.log1p(-u) - torch.log((1 - u) ** 2 + u**2))

@unstir.weighting
def soft(schedule, parameterization, gamma: float = 5.0):
    snr = schedule.snr
    return unstir.theory.weighting.of_output(snr * gamma / (snr + gamma), schedule, parameterization)

@unstir.times
def late(schedule, slope=1.0):
    return torch.arange(1.0, schedule.T + 1, dtype=torch.float64) ** slope

@unstir.loss
def huber(denoiser, x_0, t, eps, delta: float = 1.0):
    raw = denoiser(denoiser.process.diffuse(x_0, t, eps), t).raw
    target = denoiser.parameterization.target(denoiser.process.schedule, x_0, t, eps)
    return torch.nn.functional.huber_loss(raw, target, reduction="none", delta=delta).flatten(1).mean(1)

@unstir.sampler(calls=2)
def heun2(denoise, process, x_T, times, noise, eta: float = 0.0, twice: bool = True, style: str = ""):
    x = x_T
    for t, s in zip(times[:-1], times[1:]):
        x0 = denoise(x, t).x0
        if s and twice:
            x0 = (x0 + denoise(process.schedule.alpha(s) * x0 + process.schedule.sigma(s) * noise(t), s).x0) / 2
        x = process.schedule.alpha(s) * x0 + process.schedule.sigma(s) * (process.eps(x, x0, t) + eta * noise(t))
        yield Step(s, x, x0)

@unstir.condition
def mean(images):
    return images.flatten(1).mean(1, keepdim=True)

@unstir.network
class Net(torch.nn.Module):
    def __init__(self, in_channels, out_channels, num_labels, width=4):
        super().__init__()
        self.a = torch.nn.Conv2d(in_channels, width, 3, padding=1)
        self.b = torch.nn.Conv2d(width, out_channels, 3, padding=1)
        self.register_buffer("longest", torch.from_numpy(np.array(20.0, np.float32)))

    def forward(self, x, t, label=None):
        return self.b(torch.tanh(self.a(x) + t[:, None, None, None] / self.longest))

@unstir.source
def stars(num=24, seed=0, version: str = "1", dark: bool = False):
    assert isinstance(version, str) and isinstance(dark, bool)
    images = torch.randint(0, 256, (num, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return images.numpy(), [number % 2 for number in range(num)]

@unstir.features
def flat():
    return lambda pixels: pixels.flatten(1).float()

@unstir.tracker
class Diary(Observer):
    def __init__(self, folder, name="diary.txt", version: str = "", days=1):
        assert isinstance(version, str) and isinstance(days, int)
        self.file = folder / name

    def metrics(self, line):
        with self.file.open("a") as file:
            file.write(f"{line['step']} {line['loss']}\\n")
"""
KINDS = {
    "schedule": "straight", "weighting": "soft", "times": "late", "loss": "huber", "sampler": "heun2",
    "condition": "mean", "network": "Net", "source": "stars", "features": "flat", "tracker": "Diary",
}  # fmt: skip
OWN = {
    "data__source": "mine:stars", "data__options": {"num": 24}, "model": {"type": "mine:Net", "options": {"width": 6}},
    "diffusion__schedule": "mine:straight", "diffusion__options": {"power": 1.5},
    "loss__weighting": "mine:soft", "loss__weighting_options": {"gamma": 3}, "loss__times": "mine:late",
    "loss__times_options": {"slope": 0.5}, "grids__sampler": "mine:heun2", "grids__options": {"eta": 0.25},
    "log__to": ["mine:Diary"], "log__options": {"Diary": {"name": "notes.txt"}},
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with mine.py, which nothing has imported; it is the current folder."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    forget_parts(monkeypatch, "mine")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def config(store="", **changes):
    """The tiny run, all of whose parts are of mine.py."""
    network = ModelConfig(**OWN["model"])
    given = {key: value for key, value in OWN.items() if key != "model"} | changes
    return replace(tiny_config(store, data__flip=False, **given), model=network)


def test_there_is_a_part_of_each_kind_and_each_is_absent_until_its_module_is_named(place):
    assert KINDS.keys() == ARGUMENTS.keys()
    for kind, name in KINDS.items():
        with pytest.raises(UserError, match=f"{kind} mine:{name} .*{parts.VARIABLE}=mine"):
            parts.find(kind, f"mine:{name}")
    assert "mine" not in sys.modules
    parts.allow("mine:straight")
    for kind, name in KINDS.items():
        assert parts.find(kind, f"mine:{name}").__name__ == name
        with pytest.raises(UserError, match=f"no {kind} other; .*@unstir.{kind}"):
            parts.find(kind, "mine:other")


def test_ours_are_registered_by_the_same_decorators():
    for kind, names in OURS.items():
        for name in names:
            assert parts.find(kind, name).__name__.lower() == name
            with pytest.raises(UserError) as refused:
                parts.make(kind, name, *(1 for _ in ARGUMENTS[kind]), options={"no_such": 1})
            assert refused.value.key == "no_such"


@pytest.mark.parametrize("kind", [kind for kind in ARGUMENTS if ARGUMENTS[kind]])
def test_a_decorator_refuses_what_cannot_be_called_as_its_kind(kind):
    def wrong(one, two, three, four, five, six, seven): ...

    with pytest.raises(UserError, match=rf"{kind} wrong .*\({ARGUMENTS[kind][0]}.*default"):
        getattr(unstir, kind)(wrong)


def test_a_run_of_own_parts_is_trained_resumed_exactly_and_judged(place):
    parts.allow("mine:Net")

    assert train_run(config(), "whole").finished
    assert train_run(config(train__length="8 steps"), "run").finished
    assert train_run(config(), "run").finished
    one, other = (Run.open(folder).load().part("model") for folder in ("whole", "run"))
    assert one and all(torch.equal(one[name], other[name]) for name in one)
    assert one and config().train.micro_batch == 4 and train_run(config(train__micro_batch=8), "at-once").finished
    at_once = Run.open("at-once").load().part("model")  # not in micro-batches
    assert all((one[name] - at_once[name]).abs().max() < 1e-5 for name in one)
    run = Run.open("run")
    assert run.load().config["loss"]["weighting_options"] == {"gamma": 3}
    diary = Path("run/notes.txt").read_text().splitlines()
    assert [line.split()[0] for line in diary] == ["2", "4", "6", "8", "10", "12"]
    model = run.model(device="cpu")
    assert run.chain().options == {"eta": 0.25} and run.chain().cost(model.process.schedule).calls == 5
    assert model.process.schedule.alpha(3) == build.schedule(run.config.diffusion).alpha(3)
    drawn = [
        torch.cat([images for _, images in sample_batches(model, Job(num=5, chain=chain, batch_size=size))])
        for chain, size in ((run.chain(), 5), (run.chain(), 2), (Chain("mine:heun2", steps=3), 5))
    ]
    assert torch.allclose(drawn[0], drawn[1], atol=1e-5) and not torch.allclose(drawn[0], drawn[2])
    _, store = with_store(run)
    bound = split_likelihood(model, store, Protocol(num=2))
    assert 0 < bound.bits_per_dim < 1000


def test_a_run_of_own_parts_is_trained_and_sampled_by_the_command_line(place, monkeypatch, unstir, refused):
    Path("mine.toml").write_text('''
recipe = "digits"
data = { source = "mine:stars", options = { num = 24, version = "12", dark = true } }
model = { type = "mine:Net" }
loss = { weighting = "mine:soft", weighting_options = { gamma = 2 } }
log = { to = ["mine:Diary"], held_out_images = 0, every = "1 step", options = { Diary = { name = "notes.txt" } } }
train = { length = "2 steps", batch_size = 4, optimizer = "adam", warmup = "0 steps", lr_schedule = "constant" }
[diffusion]
T = 20
schedule = "mine:straight"
options = { power = 2 }
[grids]
num = 2
steps = 3
''')  # fmt: skip
    typed = "--grids.sampler", "mine:heun2", "--grids.options.eta", 1, "--data.options.num", 24
    unstir.done("train", "mine.toml", "--out", "run", *typed)
    assert Path("run/notes.txt").is_file() and repr(Run.open("run").config.grids.options) == "{'eta': 1}"
    more = "train", "--out", "run", "--train.length", "3 steps", "--log.options.Diary."
    unstir.done(*more[:-1], more[-1] + "version", "1e3", more[-1] + "name", "more.txt", "--log.to", "mine:Diary")
    assert Run.open("run").config.log.options == {"Diary": {"name": "more.txt", "version": "1e3"}}
    assert Path("run/more.txt").read_text().startswith("3 ")
    unstir.done(*more[:3], "--train.length", "4 steps", more[-1] + "days", 2, "--log.to", "mine:Diary")
    assert Run.open("run").config.log.options == {"Diary": {"name": "more.txt", "version": "1e3", "days": 2}}
    kept = {"to": ["mine:Diary"], "options": {"Diary": {"days": 2}}}
    assert recipes.over({"log": kept}, {"log": {"to": ["wandb", "mine:Diary"]}})["log"]["options"] == kept["options"]
    refused(unstir(*more[:-1], more[-1] + "dayz", 2), "--log.options.Diary.dayz 2 is no option", "did you mean days?")
    refused(
        unstir(*more[:-1], "--log.options.days", 2), "--log.options.days 2 must be a table", "log.options.days.NAME"
    )
    refused(unstir(*more[:-1], "--log.options.Dairy.days", 2), "is of no tracker")
    tracked = *more[:3], "--train.length", "5 steps", "--log.to", "mine:Diary"
    unstir.done(*tracked, "--log.options.mine:Diary.days", 3)
    assert Run.open("run").config.log.options["mine:Diary"] == {"days": 3}
    unstir.done(*tracked, "--log.options.Diary.days", 4)
    assert parts.options_of("mine:Diary", Run.open("run").config.log.options)["days"] == 4
    assert Run.open("run").config.data.options == {"num": 24, "version": "12", "dark": True}
    assert unstir("data", "pack", "mine:stars", "--out", "d", "--options.version", "1e3", "--options.num", 9)[0] == 0
    assert '"options.version": "1e3"' in Path("d/manifest.json").read_text()
    forget_parts(monkeypatch, "mine")
    line = refused(unstir("sample", "run", "--num", 2), "mine:Net", f"type {parts.VARIABLE}=mine")
    assert line.count("\n") == 1 and "mine" not in sys.modules
    refused(unstir("sample", "run", "--num", 2, "--sampler", "mine:heun3"), "has no sampler heun3")
    for words, says in {
        ("--options.etta", 1): "--options.etta 1 is no option: mine:heun2 takes eta, twice, style; did you mean eta?",
        ("--options.eta", "x"): "--options.eta x must be a number",
        ("--eta", 0.5): "--eta 0.5 is an option of ddim, not of mine:heun2",
    }.items():
        refused(unstir("sample", "run", "--num", 2, "--sampler", "mine:heun2", *words), says)
    out = "--num", 2, "--out"
    assert unstir("sample", "run", *out, "one", "--sampler", "mine:heun2", "--options.eta", 0.5)[0] == 0
    assert unstir("sample", "run", *out, "two", "--sampler", "mine:heun2", "--options.twice", "false")[0] == 0
    assert (
        unstir("sample", "run", *out, "four", "--options.style", 7, "--options.no-twice")[0] == 0
    )  # the run's sampler
    one, two, four = (Path(f"{name}/000000.png").read_bytes() for name in ("one", "two", "four"))
    chain = json.loads(Path("four/settings.json").read_text())["chain"]
    assert one != two == four and chain["options"] == {"eta": 1, "style": "7", "twice": False}
    assert unstir("sample", "run", *out, "three", "--compare", "mine:heun2:3:twice=false,ddim:3")[0] == 0
    assert unstir("export", "run", "--to", "safetensors", "--out", "file")[0] == 0


def test_a_schedule_of_ones_own_is_written_for_diffusers_where_float32_holds_it(place):
    parts.allow("mine:straight")
    diffusion = DiffusionConfig(T=20, schedule="mine:straight")
    betas = torch.tensor(to_scheduler(diffusion, Chain())["trained_betas"], dtype=torch.float64)
    assert torch.allclose(from_betas(betas).log_abar, build.schedule(diffusion).log_abar, rtol=1e-12)
    with refusing("diffusion.schedule", "mine:straight", {"to": "safetensors"}):
        to_scheduler(replace(diffusion, T=2000), Chain())


def test_what_a_part_of_ones_own_does_wrong_is_one_line(place):
    Path("mine.py").write_text("""
import torch, unstir
from unstir import Step

@unstir.schedule
def short(T): return unstir.linear(T - 1)

@unstir.schedule
def broken(T): return 1 / 0

@unstir.weighting
def minus(schedule): return -torch.ones(schedule.T + 1)

@unstir.times
def never(schedule): return torch.zeros(schedule.T)

@unstir.sampler
def half(denoise, process, x_T, times, noise):
    yield Step(times[0] // 2, x_T, x_T)

@unstir.sampler
def lost(denoise, process, x_T, times, noise):
    yield Step(0, x_T + torch.zeros(3, 3), x_T)

@unstir.sampler
def pairs(denoise, process, x_T, times, noise):
    yield 0, x_T

@unstir.sampler
def eager(denoise, process, x_T, times, noise):
    raise ValueError("too few")

@unstir.condition
def of_numpy(images): return images.numpy()

@unstir.source
def nothing(): torch.zeros(3, 8, 8)
""")
    parts.allow("mine:short")
    for given, says in {
        ("diffusion__schedule", "mine:short"): r"diffusion.schedule='mine:short' must return a NoiseSchedule with T=20",
        ("diffusion__schedule", "mine:broken"): r"fails: ZeroDivisionError: division by zero \(mine.py, line 9\)",
        ("loss__weighting", "mine:minus"): r"loss.weighting='mine:minus' gives weights that are negative",
        ("loss__times", "mine:never"): r"loss.times='mine:never' gives probabilities that are .* all 0",
    }.items():
        with pytest.raises(UserError, match=says):
            build.check_parts(tiny_config("", diffusion__options={}, **dict([given])))
    Path("typo.py").write_text("import unstir\n\n@unstir.sampler(call=2)\ndef two(*_): ...\n")
    parts.allow("typo:two")
    with pytest.raises(UserError, match=r"'call'.*\(typo.py, line 3\)"):
        Chain("typo:two", steps=3).cost(unstir.cosine(20))
    process = unstir.Process(unstir.cosine(20))
    steps = process, torch.randn(1, 1, 2, 2), torch.arange(1)
    *_, last = unstir.draw(lambda x, t: unstir.Prediction(x, x), *steps, Chain("mine:half", times=(10, 5)))
    assert last.t == 5
    with pytest.raises(UserError, match="returns nothing"):
        pack("mine:nothing", place / "none")
    store = pack(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), place / "store", channels=1)
    with pytest.raises(UserError, match="returns a ndarray"):
        Conditions.measured(DataConfig(condition="mine:of_numpy"), store)
    for name, says in {
        "half": "ends at t=10, not at 0", "lost": r"fails: RuntimeError: .*\(mine.py", "pairs": "yields a tuple",
        "eager": r"fails: ValueError: too few \(mine.py",
    }.items():  # fmt: skip
        chain, noise = Chain(f"mine:{name}", steps=3), unstir.starting_noise(0, torch.arange(2), (1, 8, 8))
        with pytest.raises(UserError, match=says):
            list(unstir.draw(lambda x, t: unstir.Prediction(x, x), process, noise, torch.arange(2), chain))


def test_a_sampler_is_tried_before_anything_is_made(place, digits):
    Path("mine.py").write_text("""
import torch, unstir
from unstir import Step

@unstir.sampler
def late(denoise, process, x_T, times, noise):
    yield Step(0, x_T[:3].unsqueeze(2), x_T)

@unstir.sampler
def wild(denoise, process, x_T, times, noise):
    yield Step(0, x_T / 0, x_T)

@unstir.sampler
def typo(denoise, process, x_T, times, noise):
    yield Step(0, denoise(x_T, times[0]).x_0, x_T)
""")
    parts.allow("mine:late")
    before = sorted(place.iterdir())
    for name, says in {
        "late": r"grids.sampler='mine:late' makes \[2, 1, 1, 8, 8\] of \[2, 1, 8, 8\]", "wild": "not finite",
        "typo": r"fails: AttributeError: .*x_0.*\(mine.py, line 15\)",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=says):
            train_run(tiny_config(digits, grids__sampler=f"mine:{name}", grids__guidance=1.0), "run")
    assert {path.name for path in place.iterdir()} - {path.name for path in before} <= {"__pycache__"}


@pytest.mark.parametrize("program", ["program", "01-loop"])
def test_a_part_of_the_program_that_runs_needs_no_further_step(tmp_path, program):
    (tmp_path / f"{program}.py").write_text(
        MINE
        + """
from dataclasses import replace
from unstir import load_recipe
from unstir.nn.config import ModelConfig
from unstir.runs import build
config = replace(load_recipe("digits"), model=ModelConfig(type=unstir.parts.name_of("network", Net)))
print(build.num_parameters(config))
"""
    )
    done = subprocess.run([sys.executable, f"{program}.py"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == f"{4 * 9 + 4 + 4 * 9 + 1}\n"


def test_a_traceback_is_shown_where_it_is_asked_for(unstir, refused, monkeypatch):
    Path("broken.py").write_text("raise KeyError('here')\n")
    forget_parts(monkeypatch, "broken")
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = "train", "digits", "--out", "run", "--diffusion.schedule", "broken:plan"
    refused(unstir(*words), "KeyError")
    monkeypatch.setenv("UNSTIR_DEBUG", "1")
    status, _, err = unstir(*words)
    assert status == 2 and 'broken.py", line 1' in err and "KeyError: 'here'" in err
    assert err.splitlines()[-1].startswith("unstir: the module broken")


def test_options_of_one_among_several_stand_under_its_name_or_its_whole_name():
    for name in ("Diary", "mine:Diary"):
        options = {name: {"days": 2}}
        assert tiny_config("", log__to=["mine:Diary"], log__options=options).log.options == options
        request = EvaluationRequest(features=("mine:Diary",), features_options=options)
        assert request.networks == {"mine:Diary": {"days": 2}}
    assert mistake(tiny_config, "", log__to=["mine:Diary"], log__options={"other:Diary": {}}).key == "log.options"


def test_an_option_is_text_or_a_finite_number_and_stays_what_it_is():
    options = {"a": "12", "b": 12, "c": 1.5, "d": True, "e": "1e-4"}
    config = tiny_config("", data__options=options)
    assert repr(toml.from_dict(tomllib.loads(toml.to_toml(config)), "x").data.options) == repr(options)
    for value in (math.inf, math.nan, [1]):
        refused = mistake(toml.from_dict, {"diffusion": {"options": {"a": value}}}, "x")
        assert refused.key == "diffusion.options.a" and "finite" in refused.allowed


def test_annotations_that_are_text_count_as_types_do(tmp_path, monkeypatch):
    text = "from __future__ import annotations\nimport unstir\n@unstir.schedule\n"
    (tmp_path / "later.py").write_text(f"{text}def plan(T: int, version: str = '', power: float = 1.0): ...\n")
    monkeypatch.chdir(tmp_path)
    forget_parts(monkeypatch, "later")
    parts.allow("later:plan")
    assert [parts.read("schedule", "later:plan", key, "12") for key in ("version", "power")] == ["12", 12]
    assert [parts.read("schedule", "later:plan", "power", text) for text in (".5", "-.5e1", "007")] == [
        0.5,
        -5.0,
        "007",
    ]
    (tmp_path / "under").mkdir()
    (tmp_path / "under/__init__.py").write_text("from later import plan\n")
    parts.allow("under:plan")
    assert parts.find("schedule", "under:plan") is parts.find("schedule", "later:plan")
    sys.modules.pop("under")
    with refusing("power", "high"):
        parts.check_options("schedule", "later:plan", {"power": "high"})
    forget_parts(monkeypatch, "later")


def test_a_loss_of_ones_own_is_what_a_step_minimises(place, make_run):
    parts.allow("mine:huber")
    own = {"loss__times": "laplace", "model__num_classes": 10, "train__condition_dropout": 0.1}
    losses = []
    for name, changes in {
        "simple": {}, "wide": {"loss__objective": "mine:huber", "loss__objective_options": {"delta": 1000.0}},
        "narrow": {"loss__objective": "mine:huber", "loss__objective_options": {"delta": 0.1}},
    }.items():  # fmt: skip
        trainer = Trainer(*make_run(name, **own, **changes))
        before = trainer.state.net.output_conv.weight.clone()
        trainer.take_step()
        losses.append(trainer.state.window[WINDOW.index("loss")].item())
        assert not torch.equal(before, trainer.state.net.output_conv.weight)
    assert losses[1] == pytest.approx(losses[0] / 2, rel=1e-5)  # near 0 it is half of the square
    assert losses[2] < losses[1] / 2


def test_a_run_of_a_loss_of_ones_own_keeps_it_and_has_the_usual_held_out_loss(place, make_run):
    parts.allow("mine:huber")
    run, store = make_run(loss__objective="mine:huber", log__held_out_images=2, train__length="2 steps", grids__num=1)
    Trainer(run, store).run()
    (line,) = run.metrics()
    assert line["mse"] is None and 0 < line["loss"] < 1
    usual = run.held_out()[0]["train"]
    assert sum(usual) / len(usual) == pytest.approx(1, abs=0.3)  # the square: nothing is learned yet
    assert Run.open(run.path).load().config["loss"]["objective"] == "mine:huber"


def test_a_loss_that_cannot_be_trained_by_is_refused_before_anything_is_made(place, digits):
    Path("mine.py").write_text("""
import torch, unstir

@unstir.loss
def scalar(denoiser, x_0, t, eps): return denoiser(x_0, t).raw.square().mean()

@unstir.loss
def double(denoiser, x_0, t, eps): return denoiser(x_0, t).raw.square().flatten(1).mean(1).double()

@unstir.loss
def infinite(denoiser, x_0, t, eps): return denoiser(x_0, t).raw.flatten(1).mean(1) / 0

@unstir.loss
def detached(denoiser, x_0, t, eps): return denoiser(x_0, t).raw.detach().flatten(1).mean(1)

@unstir.loss
def typo(denoiser, x_0, t, eps): return denoiser.sigma(t)
""")
    parts.allow("mine:scalar")
    for name, says in {
        "scalar": r"loss.objective='mine:scalar' returns \[\] .*not \[2\]", "double": "of torch.float64, not",
        "infinite": r"gives \[.*(inf|nan).*\] for noise", "detached": "no gradient",
        "typo": r"the loss mine:typo fails: AttributeError: .*sigma.*\(mine.py, line 17\)",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=says):
            train_run(tiny_config(digits, loss__objective=f"mine:{name}"), "run")
    assert not Path("run").exists()
    for given, key in {
        ("objective_options", "delta"): "loss.objective_options.delta", ("weighting", "min_snr"): "loss.weighting",
        ("input_perturbation", 0.1): "loss.input_perturbation",
    }.items():  # fmt: skip
        value = {"delta": 1} if given[1] == "delta" else given[1]
        work = {"loss__objective": "mine:scalar", f"loss__{given[0]}": value}
        assert mistake(lambda work=work: train_run(tiny_config(digits, **work), "run")).key == key
    assert mistake(tiny_config, digits, loss__objective_options={"a": 1}).key == "loss.objective_options"


@pytest.mark.parametrize("name", ["weighting", "times"])
def test_with_a_loss_of_ones_own_no_bound_is_minimised(name):
    assert mistake(LossConfig, objective="vlb", **{name: "mine:other"}).key == name
