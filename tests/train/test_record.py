"""What a training writes down, and how it is asked to stop, each for itself with a clock and a device made up."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from unstir.runs import checkpoint
from unstir.runs.checkpoint import DamagedError
from unstir.runs.config import Config
from unstir.runs.sections import LossConfig, TrainConfig
from unstir.theory.averages import WIDTHS, decay
from unstir.train import launch, levers, record
from unstir.train.observer import Stop
from unstir.train.record import Record
from unstir.train.state import update_average
from unstir.train.trainer import Trainer


def recording(tmp_path, monkeypatch, config):
    """A record of a run at step 10 after 100 seconds, its state, and the clock that it reads."""
    now = [1000.0]
    monkeypatch.setattr(record.time, "perf_counter", lambda: now[0])
    counters = torch.tensor([3.0, 0.0], dtype=torch.float64)
    state = SimpleNamespace(step=10, seconds=100.0, window=torch.zeros(6), counters=counters, logged=0)
    data = SimpleNamespace(mark="ab12")
    run = SimpleNamespace(config=config, log_file=lambda name: tmp_path / f"{name}.jsonl", steps_per_epoch=7, data=data)
    return Record(run, state), state, now


def test_a_line_has_the_means_and_the_time_of_its_steps_alone(tmp_path, monkeypatch):
    made, state, now = recording(tmp_path, monkeypatch, Config(train=TrainConfig(batch_size=30)))
    now[0] = 1008.0
    with made.paused():
        now[0] = 1011.0
    assert state.seconds == 111.0
    with made.paused():
        now[0] = 1012.0
    state.step, state.window, now[0] = 14, torch.tensor([4.0, 8.0, 8.0, 0.0, 2.0, 1.0]), 1016.0
    monkeypatch.setattr(record.resources, "peak", lambda device: 12_345 if device.type == "cpu" else 0)
    line = made.write_line(0.25, 0.5)
    assert line == {
        "step": 14, "epoch": 1, "images": 420, "steps": 4, "loss": 2.0, "grad_norm": 0.5, "clipped": 0.25, "lr": 0.25,
        "ema_decay": 0.5, "skipped": 3, "images_per_second": 10.0, "seconds": 116.0,
        "peak_memory_bytes": 12_345, "run": "ab12",
    }  # fmt: skip
    assert state.logged == 14 and not state.window.any()
    state.step, now[0] = 15, 1018.127  # a step that was skipped has no means
    line = made.write_line(0.25, 0.5)
    assert (line["images_per_second"], line["seconds"], line["epoch"]) == (14.1, 118.13, 2)
    assert line["loss"] is line["grad_norm"] is None and line["steps"] == 0
    state.step = 16  # a clock that stands still divides by no zero
    assert made.write_line(0.25, 0.5)["images_per_second"] == pytest.approx(30 / 1e-9)


@pytest.mark.parametrize(
    ("loss", "kept"),
    [
        (LossConfig(), set()),
        (LossConfig(weighting="min_snr"), {"mse"}),
        (LossConfig(objective="hybrid"), {"mse", "bits"}),
        (LossConfig(objective="vlb"), {"mse", "bits"}),
    ],
)
def test_figures_of_a_loss_are_those_that_it_has(tmp_path, monkeypatch, loss, kept):
    made, _, _ = recording(tmp_path, monkeypatch, SimpleNamespace(loss=loss, train=TrainConfig()))
    assert made.write_line(0.0, 0.0).keys() & {"mse", "bits"} == kept


def test_the_split_is_on_a_gpu_where_it_fills_less_than_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 0))
    cuda = torch.device("cuda")
    assert levers._fits(torch.zeros(99, dtype=torch.uint8), cuda) and not levers._fits(
        torch.zeros(100, dtype=torch.uint8), cuda
    )
    assert not levers._fits(torch.zeros(1, dtype=torch.uint8), torch.device("cpu"))


def test_buffers_of_an_average_are_those_of_the_network():
    average, net = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    net.running_mean.fill_(3.0)
    net.weight.data.fill_(2.0)
    update_average(average, net, 0.75, torch.tensor(1.0))
    assert average.running_mean.tolist() == [3.0, 3.0] and average.weight.tolist() == [1.25, 1.25]


def test_lines_and_checkpoints_are_due_at_their_steps_and_once_at_the_end(make_run, monkeypatch):
    for length, snapshot, due_lines, due_saves in ((7, 5, [3, 6, 7], [2, 4, 5, 6, 7]), (6, 1, [3, 6], [1, 2, 4, 6])):
        often = {"log__every": "3 steps", "checkpoint__every": "2 steps", "train__length": f"{length} steps"}
        run, store = make_run(f"run-{length}", **often)
        made, lines, saves = Trainer(run, store), [], []
        state = made.state
        monkeypatch.setattr(made, "take_step", lambda state=state: setattr(state, "step", state.step + 1))
        monkeypatch.setattr(made, "_log", lambda lines=lines, state=state: lines.append(state.step))
        monkeypatch.setattr(made._saving, "begin", lambda saves=saves, state=state: saves.append(state.step))
        monkeypatch.setattr(made, "_take_snapshot", lambda stop: None)
        made._snapshots = {snapshot: "name"}
        assert made.run() is (snapshot < length) and (lines, saves) == (due_lines, due_saves)
        run.checkpoints.mkdir(exist_ok=True)
        (run.checkpoints / checkpoint.file_name(length)).touch()
        made.run()
        assert saves == due_saves  # what is there is not saved again
    assert [line["event"] for line in run.log("events").lines][-4:] == ["started", "finished", "continued", "finished"]


def test_power_averages_take_the_first_weights_and_then_fall_behind_by_their_decay(make_run):
    made, weights = Trainer(*make_run(train__power_ema=True)), []
    torch.nn.init.normal_(made.state.net.output_conv.weight)
    for _ in range(2):
        made.take_step()
        weights.append(torch.nn.utils.parameters_to_vector(made.state.net.parameters()).detach().clone())
        averages = [torch.nn.utils.parameters_to_vector(each.parameters()) for each in made.state.powers]
        for width, average in zip(WIDTHS, averages, strict=True):
            expected = weights[-1] + decay(width, len(weights)) * (weights[0] - weights[-1])
            torch.testing.assert_close(average, expected, rtol=0, atol=1e-7)
    assert len(averages) == 2 and not torch.equal(*averages)


def test_a_checkpoint_has_moments_where_a_step_was_taken_and_figures_of_their_kind(make_run):
    run, store = make_run(train__optimizer="muon")
    made = Trainer(run, store)
    state = made.state
    saved = state.copied(run)()
    saved = replace(saved, tensors={name: t.clone() for name, t in saved.tensors.items()})
    for step, counters in ((0, [0, 0]), (3, [3, 1])):  # those of step 3 were skipped
        state.check(replace(saved, step=step, state={**saved.state, "counters": counters}))
    with pytest.raises(DamagedError, match=r"optimizer\..* missing"):
        state.check(replace(saved, step=4, state={**saved.state, "counters": [3, 1]}))
    for broken in (
        {"window": {**saved.state["window"], "bits": None}}, {"window": [0.0] * 6}, {"counters": [0]},
        {"counters": [0, 0, 0]}, {"counters": [0, "0"]}, {"counters": "00"}, {"logged": -1}, {"measured": 0.5},
        {"seconds": None},
    ):  # fmt: skip
        with pytest.raises(DamagedError, match="its state"):
            state.check(replace(saved, state={**saved.state, **broken}))
    made.take_step()
    after = state.copied(run)()
    state.check(after)
    for ending in (".momentum_buffer", ".exp_avg", ".exp_avg_sq", ".step"):
        name = next(name for name in after.tensors if name.startswith("optimizer.") and name.endswith(ending))
        with pytest.raises(DamagedError, match="is missing"):
            state.check(replace(after, tensors={key: t for key, t in after.tensors.items() if key != name}))
        with pytest.raises(DamagedError, match=r"float32 \[7\]"):
            state.check(replace(after, tensors={**after.tensors, name: torch.zeros(7)}))
    state.restore(saved)  # and goes back to the beginning
    assert not state.optimizer.state and state.step == 0 and state.window.tolist() == [0.0] * 6
    assert all(torch.equal(t, saved.tensors[f"model.{name}"]) for name, t in state.net.state_dict().items())


@pytest.mark.parametrize(
    ("schedule", "period", "whole", "words"),
    [
        ("constant", 1, 20, '--train.length "40 steps"; '),
        ("cosine", 35, 20, '--train.length "40 steps" --train.lr_period "36 steps"; '),
        ("cosine", 36, 20, '--train.length "40 steps"; '),
        ("cosine", 35, 21, "is at step 20 of 21, beyond the 20 asked for: nothing to do"),
    ],
)
def test_a_run_that_is_finished_is_made_twice_as_long(monkeypatch, schedule, period, whole, words):
    monkeypatch.setattr(launch.Run, "open", lambda path: SimpleNamespace(length=whole))
    config = TrainConfig(lr_schedule=schedule, lr_period=f"{period} steps", warmup="4 steps")
    config = SimpleNamespace(train=config)
    run = SimpleNamespace(path="run", length=20, steps_in=lambda span: int(span.split()[0]), config=config)
    assert words in launch.conclusion(run, 20)


def test_other_threads_are_told_of_where_a_step_was_taken_and_one_is_left(make_run, monkeypatch, logged):
    run, store = make_run(train__length="2 steps")
    longer = replace(run, config=replace(run.config, train=replace(run.config.train, length="3 steps")))
    stop = Stop()
    for number in (15, 2):
        stop.request(number)
    assert stop.signal == 15  # that of the first request
    Trainer(run, store).run(stop)  # which saves step 0
    for at, goes_on, told in ((0, run, False), (1, run, True), (2, run, False), (2, longer, True)):
        logged.clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: 7)
            trainer = Trainer(goes_on, store)
        assert trainer.state.step == at and any("threads=7" in text for text in logged) == told
        if at < 2:
            trainer.take_step()
            trainer.run(stop)
