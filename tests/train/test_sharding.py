"""A training whose weights, moments and averages are split among processes: the steps and files of one that is not."""

import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed.fsdp  # here once, not in every copy
from test_parallel import training
from test_resume import assert_same, outcome

from conftest import tiny_config, without_charts
from together import together
from unstir.distributed import processes
from unstir.distributed.join import joined
from unstir.errors import UserError
from unstir.nn import own
from unstir.nn.config import ModelConfig
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.train import sharding, trainer
from unstir.train.launch import open_data, open_run, train_run
from unstir.train.trainer import Trainer

CLASSES = {"model__mults": [1], "model__attention": [], "model__num_classes": 10, "train__label_dropout": 0.3}
SETTINGS = {
    "train__batch_size": 7,
    "train__micro_batch": 2,
    "train__activation_checkpointing": 1,
    "train__optimizer": "adamw",
    "train__weight_decay": 0.1,
    "train__clip": 0.1,
    "train__power_ema": True,
    "train__warmup": "0 steps",
    **CLASSES,
}


OWN = ModelConfig(type="dit:DiT", in_channels=1, num_classes=10, options={"width": 16, "depth": 2, "heads": 2})
CASES = {
    "2 processes": (2, {}, None),
    "3 processes, of which the third alone has three slots": (3, {"train__micro_batch": 1}, None),
    "a network of one's own": (3, {"train__activation_checkpointing": 0}, OWN),
    "distilled": (
        2,
        {"loss__objective": "consistency", "grids__sampler": "consistency", "diffusion__predict": "v"},
        None,
    ),
}


@pytest.fixture
def dit(monkeypatch):
    """Let examples/dit.py be found, as by --model.type dit:DiT in its folder."""
    for name, value in {"_known": {}, "_allowed": {"dit"}}.items():
        monkeypatch.setattr(own, name, value)
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    yield
    sys.modules.pop("dit", None)


@pytest.mark.parametrize("case", CASES)
def test_steps_in_float64_are_those_of_whole_weights(digits, dit, tmp_path, monkeypatch, case):
    network, loss = build.network, trainer.denoising_loss

    def spoilt(*given):
        losses = loss(*given)
        return losses._replace(total=losses.total * torch.nan) if processes.rank() == 1 and spoilt.at else losses

    num, changes, model = CASES[case]
    spoilt.at = False

    def doubled(value):
        return value.double() if torch.is_tensor(value) and value.is_floating_point() else value

    def double(*given):
        net = network(*given).double()
        for module in net.modules():
            module.register_forward_pre_hook(lambda _, given: tuple(map(doubled, given)))
        return net

    monkeypatch.setattr(trainer, "denoising_loss", spoilt)
    runs = []
    for shard in (False, True):
        config = tiny_config(digits, **{**SETTINGS, **changes}, train__shard=shard)
        config = config if model is None else replace(config, model=model)
        store = open_data(config, tmp_path / f"{shard}")
        runs.append((open_run(config, tmp_path / f"{shard}", store), store))
    monkeypatch.setattr(build, "network", double)

    def steps(rank):
        with joined("cpu"):
            made = [Trainer(*run) for run in runs]
            parts = sharding.local(made[1].state.net.parameters())
            share = sum(t.numel() for t in parts) / sum(p.numel() for p in made[0].state.net.parameters())
            assert 0.7 < share * num < 1.3  # 8 rows are 3, 3 and 2
            for each in made:
                each.take_step()
                spoilt.at = True
                each.take_step()  # which all of them skip
                spoilt.at = False
                each.take_step()
            whole, split = (each.state.to_checkpoint(runs[0][0]) for each in made)
            figures = [[*each.state.window.tolist(), *each.state.counters.tolist()] for each in made]
            if rank:
                return {}, figures
            worst = {}
            for name, t in whole.tensors.items():
                worst[name.split(".")[0]] = max(worst.get(name.split(".")[0], 0.0), _error(split.tensors[name], t))
            assert whole.tensors.keys() == split.tensors.keys()
            return worst, figures

    (worst, (ours, theirs)), *others = together(num, steps, tmp_path / "out")
    teacher = {"teacher"} if case == "distilled" else set()
    assert set(worst) == {"model", "ema", "power", "optimizer"} | teacher and max(worst.values()) < 1e-12, worst
    assert ours == pytest.approx(theirs, rel=1e-12) and all(found == [ours, theirs] for _, found in others)
    assert ours[-3] > 0  # it was clipped
    assert ours[-2:] == ([0, 0] if case == "distilled" else [1, 0])  # whose loss is another one


def _error(found, due):
    """The distance of two tensors relative to the size of one; infinite where their shapes or types differ."""
    if (found.shape, found.dtype) != (due.shape, due.dtype):
        return float("inf")
    return float((found - due).double().norm() / due.double().norm().clamp(min=1e-30))


def test_a_run_stopped_and_continued_ends_with_the_same_bits_and_any_other_may_go_on(
    digits, tmp_path, quick_watch, monkeypatch
):
    without_charts(monkeypatch)
    monkeypatch.setattr(processes, "follow", lambda stop: None)  # they know it by their vote alone
    changes = {**CLASSES, "train__micro_batch": 0, "train__batch_size": 5, "train__length": "6 steps"}
    config = tiny_config(digits, **changes, train__shard=True)
    assert together(2, training(config, tmp_path / "whole"), tmp_path / "0") == [[6, True, None]] * 2
    assert together(2, training(config, tmp_path / "parts", (1, 2)), tmp_path / "1")[0][1:] == [False, signal.SIGTERM]
    assert together(2, training(config, tmp_path / "parts"), tmp_path / "2") == [[6, True, None]] * 2
    ours, theirs = (Run.open(tmp_path / name) for name in ("parts", "whole"))
    assert_same(outcome(ours), outcome(theirs))
    for step in ours.saved_steps():
        assert ours.model(step).weights_sha256 == theirs.model(step).weights_sha256
    longer = {**changes, "train__length": "7 steps"}
    assert together(2, training(tiny_config(digits, **longer), ours.path), tmp_path / "3") == [[7, True, None]] * 2
    train_run(tiny_config(digits, **longer, train__shard=True), theirs.path)
    assert checkpoint.newest(theirs.checkpoints)[0].step == 7


def test_a_parameter_without_a_dimension_is_refused_with_its_name():
    net = torch.nn.Module()
    net.register_parameter("scale", torch.nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(UserError, match=r"cannot split the parameter scale, one number; give it the shape \[1\]"):
        sharding.split(net, torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__optimizer": "muon"}, 'shard=true splits the matrices that optimizer="muon" needs whole'),
        ({"train__compile": "yes"}, 'shard=true computes blocks that compile="yes" joins'),
    ],
)
def test_what_does_not_go_with_it_is_refused(digits, changes, words):
    with pytest.raises(UserError) as refused:
        tiny_config(digits, **changes, train__shard=True)
    assert words in str(refused.value)


def test_an_older_torch_that_cannot_add_up_over_gloo_is_refused_in_words(monkeypatch):
    monkeypatch.delattr(torch.distributed.fsdp.FSDPModule, "set_force_sum_reduction_for_comms")
    with pytest.raises(UserError, match=r"train.shard=true needs torch 2.8 or newer, this is .*; upgrade torch, or"):
        sharding.split(torch.nn.Linear(2, 2), torch.device("cpu"))
