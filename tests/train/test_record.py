"""What a training writes down and when, its grids, and its checkpoints, which are written aside and whole."""

import dataclasses
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from variety import VARIETY

from processes import until
from refusals import mistake, refusing
from unstir.errors import UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images
from unstir.runs import build, checkpoint
from unstir.runs.checkpoint import DamagedError
from unstir.runs.config import Config
from unstir.runs.run import Run
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
    data = SimpleNamespace(run="ab12")
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
    stop, other = Stop(), Stop()
    for asked, number in ((stop, 15), (stop, 2), (other, 0), (other, 2)):
        asked.request(number)
    assert (stop.signal, other.signal) == (15, 0)  # that of the first request
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


class Gate:
    """Takes the place of `checkpoint.save`: each save waits until it is let through, or fails."""

    def __init__(self, monkeypatch):
        self.save, self.open, self.error = checkpoint.save, threading.Event(), None
        self.began, self.most, self.now = [], 0, 0
        monkeypatch.setattr(record.checkpoint, "save", self)

    def __call__(self, folder, content):
        if folder.name != "checkpoints":
            return self.save(folder, content)
        self.began.append(content.step)
        self.now += 1
        self.most = max(self.most, self.now)
        self.open.wait(30)
        self.now -= 1
        if self.error is not None:
            raise self.error
        return self.save(folder, content)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def training(make_run, gate):
    """training("2 steps", ...) -> the run that a thread trains while its first save waits, and what ends both."""

    def begin(length, first, **changes):
        run, store = make_run(train__length=length, grids__log_spaced=0, **changes)
        trainer, ended = Trainer(run, store), []
        thread = threading.Thread(target=lambda: ended.append(trainer.run()))
        thread.start()
        until(lambda: gate.began == [first])
        time.sleep(0.05)
        assert thread.is_alive() and saved(run) == []
        return run, lambda: (gate.open.set(), thread.join(30), ended)[2]

    return begin


def saved(run):
    return [step for step, _ in checkpoint.listed(run.checkpoints)]


MOVING = {"train__power_ema": True, "loss__times": "importance", "train__micro_batch": 0}


def test_steps_are_taken_while_a_checkpoint_of_before_is_written(make_run, gate):
    run, store = make_run(**MOVING)
    trainer = Trainer(run, store)
    trainer.take_step()
    expected = trainer.state.copied(run)()
    trainer._saving.begin()
    for _ in range(2):
        trainer.take_step()
    assert gate.began in ([], [1]) and saved(run) == []
    gate.open.set()
    trainer._saving.wait()
    found = checkpoint.newest(run.checkpoints)[0]
    assert found.step == 1 and found.state == expected.state and found.state["window"]["steps"] == 1
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in expected.tensors)
    moved = {name.split(".")[0] for name, t in trainer.state.copied(run)().tensors.items()
             if not torch.equal(t, found.tensors[name])}  # fmt: skip
    assert moved == {"model", "ema", "power", "optimizer", "times"}


def test_one_is_written_at_a_time_and_all_are_whole_before_the_run_ends(training, gate):
    run, end = training("4 steps", 1, checkpoint__every="1 step", checkpoint__keep=9)
    assert end() == [True] and gate.began == [1, 2, 3, 4] == saved(run) and gate.most == 1


def test_the_run_does_not_end_before_its_last_checkpoint_is_whole(training, monkeypatch):
    monkeypatch.setattr(Trainer, "_take_snapshot", lambda self, stop: None)
    run, end = training("2 steps", 2, checkpoint__every="9 steps")
    assert [line["event"] for line in run.log("events").lines] == ["started"]
    end()
    assert saved(run) == [2] and len(run.log("events").lines) == 2


@pytest.mark.parametrize("length", [2, 100])
def test_what_could_not_be_written_ends_the_training_with_the_same_words(make_run, gate, length):
    run, store = make_run(train__length=f"{length} steps", checkpoint__every="2 steps", grids__log_spaced=0)
    trainer = Trainer(run, store)
    take = trainer.take_step

    def step():
        take()
        until(lambda: trainer._saving._written is None or trainer._saving._written.done())

    trainer.take_step, gate.error = step, UserError("", "x", "is full")
    gate.open.set()
    assert "x is full" in str(mistake(trainer.run))
    assert saved(run) == [] and trainer.state.step == min(length, 3)  # at the next step, not at the next save
    assert run.log("events").lines[-1]["event"] == "started"
    assert Trainer(run, store).state.step == 0


def test_an_error_of_training_is_raised_after_what_is_being_written_is_whole(make_run, gate):
    run, store = make_run(train__length="9 steps", checkpoint__every="2 steps", grids__log_spaced=0)
    trainer = Trainer(run, store)
    take = trainer.take_step

    def step():
        if trainer.state.step == 3:
            threading.Timer(0.05, gate.open.set).start()
            raise ZeroDivisionError
        take()

    trainer.take_step = step
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert saved(run) == [2]


def test_the_time_of_saving_does_not_count_against_the_speed(make_run, gate):
    run, store = make_run(
        train__length="3 steps", checkpoint__every="1 step", log__every="3 steps", grids__log_spaced=0
    )
    trainer = Trainer(run, store)
    threading.Timer(1.5, gate.open.set).start()
    trainer.run()
    (line,) = run.metrics()
    assert line["seconds"] >= 1.4 and line["images_per_second"] > 3 * 8 / 1.4


def pixels(file):
    with Image.open(file) as picture:
        return picture.size, picture.tobytes()


def drawn(run, out, **which):
    save_images(run.model(**which), Job(num=4, chain=run.chain(), batch_size=4), out)
    return pixels(out / "grid.png")


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_the_last_grid_is_what_the_run_draws_from_its_averages_or_raw_weights(trained, tmp_path, decay):
    run, _ = trained(train__ema_decay=decay, train__lr=0.01)
    picture = pixels(run.samples / "images-00000096.png")
    assert drawn(run, tmp_path / "default") == picture
    assert pixels(tmp_path / "default/noise.png") == pixels(run.samples / "noise.png")
    raw = drawn(run, tmp_path / "raw", ema=False)
    assert (raw == picture) == (decay == 0)


def test_a_grid_of_the_optimal_variance_is_what_the_run_draws(trained, tmp_path):
    run, _ = trained(grids__variance="optimal", log__held_out_images=4, train__lr=0.01)
    assert drawn(run, tmp_path / "default") == pixels(run.samples / "images-00000096.png")
    assert drawn(run, tmp_path / "early", step=1) == pixels(run.samples / "images-00000008.png")
    with refusing("variance", "optimal"):
        drawn(run, tmp_path / "raw", ema=False)


def test_slim_files_draw_the_picture_of_their_milestone(trained, tmp_path):
    run, _ = trained(checkpoint__keep=1, train__lr=0.01)
    assert run.saved_steps() == [1, 12]
    assert drawn(run, tmp_path / "early", step=1) == pixels(run.samples / "images-00000008.png")
    assert drawn(run, tmp_path / "late") != drawn(run, tmp_path / "early", step=1)
    with refusing("ema", False):
        run.model(1, ema=False)
    with refusing("step", 5):
        run.model(5)


def test_a_run_rebuilds_its_denoiser_from_the_folder_alone(run, tmp_path):
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    denoiser = Run.open(moved).model().denoiser
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert denoiser(x, 7).x0.shape == x.shape
    assert not denoiser.net.training
    half = Run.open(moved).model(dtype="bfloat16").denoiser
    assert {p.dtype for p in half.net.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        ours, exact = half(x, 7), denoiser(x, 7)
    assert ours.raw.dtype == torch.float32
    assert (ours.raw - exact.raw).norm() / exact.raw.norm() < 0.05


def test_exactly_as_many_images_as_asked_each_from_its_index(run):
    job = Job(num=7, chain=dataclasses.replace(run.chain(), seed=9), batch_size=3)
    batches = list(sample_batches(run.model(), job))
    assert [list(indices) for indices, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    whole = torch.cat([images for _, images in batches])
    assert whole.shape == (7, 1, 8, 8)
    later = torch.cat([images for _, images in sample_batches(run.model(), job, first=3)])
    assert torch.equal(later, whole[3:])


def test_a_grid_is_enlarged_and_in_order(tmp_path, make_run):
    from unstir.pictures.grid import grid

    images = torch.arange(6, dtype=torch.uint8).mul(40).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    sheet = np.asarray(grid(images, nrow=3))
    assert sheet.shape == (2 + 2 * 50, 2 + 3 * 50)
    assert [sheet[20, 20 + 50 * i] for i in range(3)] == [0, 40, 80]
    assert [sheet[70, 20 + 50 * i] for i in range(3)] == [120, 160, 200]
    assert (sheet[:2] == 255).all() and (sheet[50:52] == 255).all()
    assert Image.fromarray(sheet).mode == "L"


class NoWaiting(TorchDispatchMode):
    """Raises where a tensor's value is asked for, which on a GPU would wait for all work before it."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name().split("::")[-1].split(".")[0]
        assert name not in self.WAITS, f"{name} waits for the device"
        return function(*arguments, **(options or {}))


def test_a_training_step_never_asks_for_a_value(make_run):
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        torch.ones(1).item()
    trainer = Trainer(*make_run(data__flip=True, model__num_classes=10, train__clip=0.1))
    with NoWaiting():
        for _ in range(3):
            trainer.take_step()
    assert trainer.state.window[0] == 3


def test_a_training_step_reads_no_file(make_run, monkeypatch):
    trainer = Trainer(*make_run())
    trainer.take_step()
    opened = []
    monkeypatch.setattr("builtins.open", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(Path, "open", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a))
    trainer.take_step()
    assert opened == []


META = torch.device("meta")


@pytest.fixture
def on_meta(make_run, monkeypatch):
    """on_meta(**changes) -> the trainer of a tiny run whose images, weights and all else lie on the meta device."""

    def trainer(**changes):
        made = make_run(**changes)
        monkeypatch.setattr(build, "device", lambda name: META)
        monkeypatch.setattr(levers, "_fits", lambda images, device: True)
        return Trainer(*made)

    return trainer


@pytest.mark.parametrize("changes", VARIETY.values(), ids=VARIETY)
def test_a_gradient_needs_no_number_of_the_device_and_none_of_the_cpu(on_meta, changes):
    trainer = on_meta(**changes)
    trainer.state.net.train()
    found = trainer._learn_from(trainer._part)
    assert [each.device for each in found] == [META] * 3
    assert all(p.grad is not None and p.grad.device == META for p in trainer.state.net.parameters())
