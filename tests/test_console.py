"""On a terminal a job has a bar; without one a line of progress comes now and then, with the time left."""

import io
import re
import time

import pytest
from rich.console import Console

from unstir import console
from unstir.train.trainer import Trainer


@pytest.fixture
def screen(monkeypatch):
    """What a console without a terminal got, where a line follows another at once."""
    monkeypatch.setattr(console, "SILENT_SECONDS", 0.0)
    made = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(console, "stderr", lambda: made)
    return made


def said(screen):
    return screen.file.getvalue().splitlines()


def test_a_line_has_the_time_left_by_what_was_done(screen, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.BARS("sampling", "steps") as count:
        now[0] += 600
        count(100, 400, "so far")
    (line,) = said(screen)
    assert line.startswith("sampling: 100 of 400") and line.endswith("30 minutes left")


def test_a_job_that_counts_nothing_says_what_it_does(screen, monkeypatch):
    monkeypatch.setattr(console, "TICK_SECONDS", 0.01)
    with console.BARS("exporting", ""):
        for _ in range(500):
            if said(screen):
                break
            time.sleep(0.01)
    assert said(screen)[0].startswith("exporting, ")


def test_jobs_one_after_another_in_a_longer_one_are_told(screen, monkeypatch):
    """Each takes less than the time between two lines."""
    now = [100.0]
    monkeypatch.setattr(console, "SILENT_SECONDS", 8.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.BARS("evaluating", "evaluations"):
        for _ in range(3):
            with console.BARS("sampling", "steps") as count:
                now[0] += 6
                count(1, 2)
    (line,) = said(screen)
    assert "sampling: 1 of 2" in line and "6 seconds" in line


def test_a_terminal_has_bars_and_no_lines(screen, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with console.BARS("evaluating", "evaluations") as outer:
        outer(1, 3)
        with console.BARS("packing", "images") as count:
            count(1, 2)
            time.sleep(0.3)
    text = screen.file.getvalue()
    last = text.rpartition("evaluating")[2]
    assert "1/3" in last and "packing" not in last and "1/2" in text and "seconds left" not in text


def test_training_says_how_fast_it_is_when_it_ends_and_when_the_next_snapshot_comes(make_run, screen, caplog):
    caplog.set_level("INFO")
    run, store = make_run("observed", grids__epochs=[], grids__log_spaced=3)
    with console.TrainingDisplay() as display:
        trainer = Trainer(run, store, display)
        assert trainer.run()
    text = screen.file.getvalue()
    forecast = [line for line in caplog.messages if "images/s measured" in line]
    assert len(forecast) == 1, text
    assert forecast[0].endswith("step 12")
    assert re.search(r" 12 of 12 .* \d+ images/s .*, ", text) and " left" in text


@pytest.mark.parametrize(
    ("width", "bar", "figures"),
    [
        (70, 6, "loss 0.2345 180 images…"),
        (80, 6, "loss 0.2345 180 images/s epoch 1…"),
        (100, 6, "loss 0.2345 180 images/s epoch 1 lr 2.00e-03"),
        (120, 12, "loss 0.2345 180 images/s epoch 1 lr 2.00e-03"),
    ],
)
def test_on_a_narrow_terminal_the_line_keeps_bar_steps_and_time_left(monkeypatch, width, bar, figures):
    screen = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "stderr", lambda: screen)
    with console.TrainingDisplay() as display:
        display.begin(0, 1250, (64, 1, 28, 28), (1250,))
        for step in range(1, 1001):
            display.step(step)
        display.metrics({"loss": 0.2345, "images_per_second": 180.4, "step": 1000, "epoch": 1, "lr": 2e-3})
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", screen.file.getvalue()).strip().splitlines()[-1].rstrip()
    assert len(line) <= width
    spent = r"0:00:0\d so far, " if width == 120 else ""
    assert re.fullmatch(rf"training ━{{{bar}}}╸? +1000/1250 steps {spent}0:01:29 left {re.escape(figures)}", line)


def test_the_pace_leaves_out_the_first_step_and_the_snapshots(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    pace = console.Pace()

    def after(seconds, call):
        now[0] += seconds
        return call()

    after(30, pace.pause)  # the picture of the beginning
    known = [after(9, pace.step), *(after(0.5, pace.step) for _ in range(3))]
    after(40, pace.pause)
    known += [after(7, pace.step), *(after(0.5, pace.step) for _ in range(3))]
    assert known == [False] * 6 + [True, False]
    assert pace.step_seconds == pytest.approx(0.5) and pace.snapshot_seconds == pytest.approx(40)


def test_piped_commands_tell_how_far_they_are(trained, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "SILENT_SECONDS", 0.0)
    run = trained()[0].path
    for ask, words in (
        (("sample", run, "--num", 8, "--steps", 20, "--batch-size", 4), "sampling: "),
        (("likelihood", run, "--num", 8), "bounding held_out: "),
        (("data", "pack", "digits", "--out", "packed"), "packing: "),
        (("train", "--out", run, "--train.length", "14 steps"), "of 14"),
    ):
        status, _, err = command(*ask)
        assert status == 0 and words in err, err


def test_the_time_left_is_known_after_one_slow_step_and_counts_the_grids_to_come(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    display, left = console.TrainingDisplay(), []
    now[0] += 600  # packing, which is no snapshot
    display.begin(0, 3, (16, 3, 48, 64), [0, 3])
    assert "16 images of 48x64" in display.line()  # as --data.size has it

    def after(seconds, call, *given):
        now[0] += seconds
        call(*given)
        left.append(display.line().rpartition(", ")[2])

    after(40, display.snapshot, "drawing samples", 5, 5)
    for step in (1, 2, 3):
        after(30, display.step, step)
    after(25, display.snapshot, "drawing samples", 3, 5)
    after(20, display.snapshot, "drawing samples", 4, 5)
    seconds = [100, 70, 40, 15]  # two steps and a grid, one and a grid, a grid, the rest of it
    assert left[0].endswith(" 5 of 5")
    assert left[1:-1] == [f"about {each} seconds left" for each in seconds]
