"""A step that runs out of memory is taken with half the micro-batch, and so is it whenever the run goes back to it."""

import re
from dataclasses import replace

import pytest
import torch
from test_resume import assert_same, outcome
from torch import nn

import unstir
from conftest import tiny_config, without_charts
from unstir.errors import OutOfMemoryError, UserError
from unstir.nn import own
from unstir.nn.config import ModelConfig
from unstir.randomness import Key
from unstir.runs import checkpoint, memory, resources
from unstir.runs.config import Config
from unstir.runs.memory import OneImageError
from unstir.runs.sections import TrainConfig
from unstir.runs.toml import to_toml
from unstir.train import held_out, trainer
from unstir.train.held_out import catch_up
from unstir.train.launch import needs, open_run, train_run
from unstir.train.micro_batch import MicroBatch, halvings, in_effect
from unstir.train.observer import Observer
from unstir.train.trainer import Trainer

WHOLE = {"train__micro_batch": 0, "train__power_ema": True, "loss__times": "importance", "log__every": "5 steps"}
"""The whole batch of 8 at once, times drawn by their losses, and a log window that is open where a step is repeated."""

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 8 GiB")
CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096000000 bytes.")
WAYS = [("forward", GPU), ("backward", CPU), ("second part", MemoryError())]


def room_for(patch, most, since=1, where="forward", error=GPU):
    """Plant an error of memory: from step number ``since`` on no more than so many images can be computed at once.

    It comes before the forward pass, in the backward pass, when most of its gradient is there, or where the gradient of
    the first part of the batch is there.
    """
    for name in ("denoising_loss", "path_loss"):
        patch.setattr(trainer, name, planted(getattr(trainer, name), most, since, where, error))


def planted(loss, most, since, where, error):
    def fail(gradient=None):
        hooks.pop().remove()
        raise error

    hooks = []

    def failing(denoiser, x, *given):
        key = next(each for each in given if isinstance(each, Key))
        full = len(x) > most and key.step + 1 >= since
        if full and (where == "forward" or (where == "second part" and key.slots[0] > 0)):
            raise error
        if full and where == "backward":
            first = next(denoiser.net.parameters())  # whose gradient is among the last
            hooks.append(first.register_hook(fail))
        return loss(denoiser, x, *given)

    return failing


class Ends(Observer):
    """Hears what is said, and ends training at a step as a kill does: what was not saved is lost."""

    def __init__(self, at=0):
        self.at, self.said = at, []

    def step(self, step):
        if step == self.at:
            raise KeyboardInterrupt

    def say(self, text):
        self.said.append(text)


def train(run, store, until=0):
    """What was said while a run was trained to its end, or was killed when it had taken step ``until``."""
    observer = Ends(until)
    if until:
        with pytest.raises(KeyboardInterrupt):
            Trainer(run, store, observer).run()
    else:
        assert Trainer(run, store, observer).run()
    return observer.said


def by_hand(make_run, *sizes, **settings):
    """The outcome of a run whose user sets (micro-batch, the first step with it), such as (0, 1), (4, 6)."""
    ends = [step for _, step in sizes[1:]]
    for (size, _), until in zip(sizes, [*ends, 0], strict=True):
        changes = {**settings, "checkpoint__every": "1 step", "train__micro_batch": size}
        made = make_run("by-hand", **changes)
        train(*made, until=until)
    return outcome(made[0])


def of_halving(run):
    return [event for event in run.log("events").lines if event["event"] == "halved"]


def differ(ours, theirs):
    return any(not torch.equal(ours[1][name], theirs[1][name]) for name in ours[1])


def test_a_step_is_repeated_as_if_half_the_micro_batch_were_set_from_it_on(make_run, trained, monkeypatch):
    expected = by_hand(make_run, (4, 1), (2, 6), **{**WHOLE, "train__activation_checkpointing": 2})
    settings = {**WHOLE, "train__micro_batch": 4, "train__activation_checkpointing": 2}
    assert differ(outcome(trained("more", **settings)[0]), expected)
    for where, error in WAYS:
        run, store = make_run(where, **settings)
        text = (run.path / "config.toml").read_text()
        with monkeypatch.context() as patch:
            room_for(patch, 2, 6, where, error)
            said = train(run, store)
        assert_same(outcome(run), expected)
        assert of_halving(run) == [{"event": "halved", "step": 6, "micro_batch": 2}]
        assert (run.path / "config.toml").read_text() == text and in_effect(run).train.micro_batch == 2
        asked = {"forward": ", at 3.00 GiB more", "backward": ", at 4.096 GB more", "second part": ""}[where]
        assert said == [
            f"out of memory at step 6{asked}: from there on train.micro_batch is 2 in place of 4, which changes the "
            "memory and not the batch"
        ]


def test_killed_after_it_the_run_halves_at_the_same_step_again(make_run, monkeypatch):
    expected = by_hand(make_run, (0, 1), (4, 6), **WHOLE)
    for killed in (7, 10):  # it goes back to step 4, before the halving, and to 8
        run, store = make_run(f"killed-{killed}", **WHOLE)
        with monkeypatch.context() as patch:
            room_for(patch, 4, 6)
            train(run, store, until=killed)
        for again in (5, 0):  # with all the memory there is
            assert train(*make_run(f"killed-{killed}", **WHOLE), until=again if killed == 7 else 0) == []
        assert_same(outcome(run), expected)
        assert len(of_halving(run)) == 1
    run, store = make_run("forgetful", **WHOLE)
    with monkeypatch.context() as patch:
        room_for(patch, 4, 6)
        train(run, store, until=7)
    (run.path / "events.jsonl").unlink()
    train(run, store)
    assert differ(outcome(run), expected)


def test_it_halves_as_often_as_it_has_to_and_again_later(make_run, monkeypatch):
    expected = by_hand(make_run, (0, 1), (2, 3), (1, 7), **WHOLE)
    run, store = make_run("twice", **WHOLE)
    for most, since, until in ((2, 3, 9), (1, 7, 12)):  # back at step 8, which was taken with 2, all that is left is 1
        with monkeypatch.context() as patch:
            room_for(patch, most, since)
            train(run, store, until=until)
    found = [(event["step"], event["micro_batch"]) for event in of_halving(run)]
    assert found == [(3, 2), (9, 1)]
    run, store = make_run("at-once", **WHOLE)
    with monkeypatch.context() as patch:
        room_for(patch, 2, 3)
        room_for(patch, 1, 7)
        train(run, store)
    assert_same(outcome(run), expected)
    assert halvings(run) == [(3, 2), (7, 1)]


@pytest.mark.parametrize(("device", "times"), [("cpu", 3), ("meta", 0)])
def test_after_a_halving_on_a_cpu_freed_memory_goes_back_at_once(device, times, monkeypatch):
    asked = []
    monkeypatch.setattr(resources, "return_blocks_at_once", lambda: asked.append(device))

    def gradient(size):
        if size > 1:
            raise CPU

    MicroBatch(Config(train=TrainConfig(batch_size=8))).fitting(gradient, 1, nn.Linear(1, 1, device=device))
    assert asked == [device] * times


def test_half_of_an_odd_number_is_the_larger_half_and_1_is_the_end():
    net, tried = nn.Linear(1, 1), []

    def gradient(size):
        tried.append(size)
        raise CPU

    sizes = MicroBatch(Config(train=TrainConfig(batch_size=9, micro_batch=7)), [(5, 4)])
    assert [sizes.at(step) for step in (0, 4, 5, 90)] == [7, 7, 4, 4]
    with pytest.raises(OneImageError, match="can't allocate"):
        sizes.fitting(gradient, 2, net)
    assert tried == [7, 4, 2, 1] and sizes.at(90) == 4  # what did not help is not kept
    assert sizes.fitting(lambda size: size, 3, net) == (7, "")
    assert MicroBatch(Config(train=TrainConfig(batch_size=9))).at(1) == 9
    with pytest.raises(RuntimeError, match="odd"):
        sizes.fitting(lambda size: exec('raise RuntimeError("odd")'), 3, net)


def test_a_process_that_can_make_no_further_kernel_ends_and_the_next_one_begins_with_half():
    net, tried, told = nn.Linear(1, 1), [], []
    errors = {8: CPU, **dict.fromkeys((4, 2, 1), RuntimeError("could not create a primitive"))}

    def gradient(size):
        tried.append(size)
        if size in errors:
            raise errors[size]
        return size

    sizes = MicroBatch(Config(train=TrainConfig(batch_size=8)), record=lambda **what: told.append(what))
    with pytest.raises(
        OutOfMemoryError, match=r"^out of memory at step 3: .* is 2 in place of 8, .*; run the same command"
    ):
        sizes.fitting(gradient, 3, net)
    assert tried == [8, 4, 2, 1] and told == [{"step": 3, "micro_batch": 2}]
    for first, expected in ((2, OutOfMemoryError), (1, OneImageError)):  # at 1 from the start nothing smaller is left
        sizes = MicroBatch(Config(train=TrainConfig(batch_size=8, micro_batch=first)))
        with pytest.raises(expected, match="in place of 2" if first == 2 else "primitive"):
            sizes.fitting(gradient, 3, net)
    del errors[2]  # where that size can be computed after all, it is
    sizes = MicroBatch(Config(train=TrainConfig(batch_size=8)))
    assert sizes.fitting(gradient, 3, net)[0] == 2 and sizes.at(3) == 2


def test_where_one_image_is_too_much_the_command_says_so_and_the_last_checkpoint_stays(
    digits, trained, command, tmp_path, monkeypatch
):
    without_charts(monkeypatch)
    (tmp_path / "tiny.toml").write_text(to_toml(tiny_config(digits, **WHOLE)))
    words = ["train", tmp_path / "tiny.toml", "--out", tmp_path / "run"]
    for _ in range(2):
        with monkeypatch.context() as patch:
            room_for(patch, 0, 6)
            status, _, err = command(*words)
        last = err.splitlines()[-1]
        assert status == 2 and "Traceback" not in err
        assert re.match(
            r"unstir: out of memory, at 3\.00 GiB more: this training takes about [\d.]+ GB \([^)]*\) with "
            r"train\.micro_batch=1, and this process can have [\d.]+ GB of memory; ",
            last,
        ), last
        found, damaged = checkpoint.newest(tmp_path / "run/checkpoints")
        run = unstir.Run.open(tmp_path / "run")
        assert found.step == 4 and not damaged and of_halving(run) == []
    with monkeypatch.context() as patch:
        room_for(patch, 4, 12)
        status, _, err = command(*words)
    assert status == 0 and "out of memory at step 12, at 3.00 GiB more: from there on train.micro_batch is 4" in err
    ours, whole = outcome(run), outcome(trained("whole", **WHOLE)[0])
    assert differ(ours, whole)
    for name in ours[1]:
        torch.testing.assert_close(ours[1][name], whole[1][name], rtol=1e-3, atol=1e-5)


def test_what_runs_out_of_memory_after_the_gradient_is_not_repeated(make_run, monkeypatch):
    run, _ = make_run(train__length="2 steps")
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: exec("raise MemoryError"))
    with pytest.raises(OutOfMemoryError) as raised:
        train_run(run.config, run.path)
    assert of_halving(run) == [] and "with train.micro_batch=1" not in str(raised.value)  # which was not tried


def test_a_change_of_what_decides_on_memory_begins_with_the_micro_batch_of_the_settings_again(make_run, monkeypatch):
    run, store = make_run(**WHOLE)
    with monkeypatch.context() as patch:
        room_for(patch, 2, 3)
        train(run, store, until=5)
    assert halvings(make_run(**{**WHOLE, "train__length": "13 steps"})[0]) == [(3, 2)]
    run, store = make_run(**{**WHOLE, "train__activation_checkpointing": 1})
    assert halvings(run) == [] and in_effect(run).train.micro_batch == 0
    made = Trainer(run, store)
    assert made.take_step() == "" and (made.state.step, made.micro_batch) == (5, 8)
    run, _ = make_run(**{**WHOLE, "train__micro_batch": 6})
    assert halvings(run) == [] and in_effect(run).train.micro_batch == 6


def test_a_run_goes_on_where_its_halved_micro_batch_fits_and_the_one_of_its_settings_would_not(make_run, monkeypatch):
    run, store = make_run(**WHOLE)
    with monkeypatch.context() as patch:
        room_for(patch, 2, 3)
        train(run, store, until=5)
    config, shape, device, _ = needs(run.config, store)
    least = [memory.of_steps(each, shape, device).least for each in (config, in_effect(run))]
    assert least[0] > least[1] >= memory.of_grids(config, shape, device).least
    monkeypatch.setattr(resources, "memory", lambda _: sum(least) // 2)
    assert open_run(run.config, run.path, store).config == run.config
    for given, changes in {"micro_batch=7": {"micro_batch": 7}, "batch_size=8": {"compile": "yes"}}.items():
        changed = replace(run.config, train=replace(run.config.train, **changes))  # begins with its settings again
        with pytest.raises(UserError, match=rf"^train.{given} images of 8x8 at once take at least "):
            open_run(changed, run.path, store)
    (run.path / "events.jsonl").unlink()
    with pytest.raises(UserError, match=r"train.batch_size=8 images of 8x8 at once take at least"):
        open_run(run.config, run.path, store)


def test_held_out_losses_are_measured_with_the_size_of_their_step(make_run, monkeypatch):
    sizes, real = [], held_out.squared_errors

    def spy(denoiser, images, times, size, on_call):
        sizes.append(size)
        return real(denoiser, images, times, size, on_call)

    monkeypatch.setattr(held_out, "squared_errors", spy)
    settings = {**WHOLE, "train__length": "2 steps", "log__held_out_images": 8, "log__held_out_times": 1}
    run, store = make_run(**settings)
    with monkeypatch.context() as patch:
        room_for(patch, 4, 2)
        train(run, store)
    assert sizes == [8, 8, 8, 8, 4, 4]  # of both splits before the first step, after it and after the second
    before = run.held_out_file.read_bytes()
    *kept, _ = before.splitlines(keepends=True)
    run.held_out_file.write_bytes(b"".join(kept))
    assert catch_up(run, store) == 1 and sizes[6:] == [4, 4]
    assert run.held_out()[-1]["train"] is not None


def test_a_distilled_run_halves_and_drops_the_paths_of_the_larger_parts(make_run, monkeypatch):
    settings = {"diffusion__predict": "v", "loss__objective": "consistency", "grids__sampler": "consistency"}
    settings |= {"train__batch_size": 10, "train__micro_batch": 0, "train__length": "4 steps"}
    expected = by_hand(make_run, (0, 1), (3, 3), **settings)
    run, store = make_run("distilled", **settings)
    made = Trainer(run, store)
    with monkeypatch.context() as patch:
        room_for(patch, 3, 3)
        assert made.run()
    assert_same(outcome(run), expected)
    assert sorted(made._paths._followed) == [0, 3, 6, 9] and halvings(run) == [(3, 3)]


def test_buffers_of_a_network_are_those_of_before_the_step(make_run, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_known", {})

    @unstir.network
    class Counting(nn.Module):
        def __init__(self, in_channels, out_channels, num_labels):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.register_buffer("passes", torch.zeros(1))

        def forward(self, x, t, label=None, dropout_key=None):
            self.passes += self.training
            return self.conv(x) * (1 + self.passes / 100)

    _, store = make_run("digits")

    def make(name, **changes):
        network = ModelConfig(type=f"{__name__}:Counting", in_channels=1)
        return open_run(replace(tiny_config(digits, **changes), model=network), tmp_path / name, store), store

    expected = by_hand(make, (4, 1), (2, 6))
    run, _ = made = make("counting")
    with monkeypatch.context() as patch:
        room_for(patch, 2, 6, "second part")
        train(*made)
    assert_same(outcome(run), expected)
    assert expected[1]["model.passes"] == 5 * 2 + 7 * 4
