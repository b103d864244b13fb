"""What training writes as it goes on: lines of metrics, its curves, grids of samples and checkpoints.

Checkpoints are written in a thread while training goes on. The state is copied first, so that a file is of one step. At
most one is being written, and the process does not end before it is whole: a kill leaves the one before it. Where there
is no memory for the copy, training waits while the file is written of the state itself. The thread begins with the
block: one that begins where no memory is left may wait for ever.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import torch

from unstir.diffusion.denoiser import Denoiser
from unstir.diffusion.draw import starting_noise
from unstir.errors import NotFiniteError, UserError, asked_for, is_out_of_memory, within_memory
from unstir.group import Alone
from unstir.parts import is_own
from unstir.pictures.charts import held_out_figure, save_figure, training_curves
from unstir.pictures.grid import grid, named_grid
from unstir.progress import counted
from unstir.runs import checkpoint, lines, resources
from unstir.runs.checkpoint import warn
from unstir.runs.files import replacing, save_png
from unstir.runs.model import Model
from unstir.runs.run import Run, model_in_training
from unstir.runs.timetable import drawn_grid, grid_file
from unstir.runs.toml import is_run
from unstir.train.observer import Observer, Stop
from unstir.train.state import WINDOW, State

logger = logging.getLogger(__name__)

VARYING = ("run", "images_per_second", "seconds", "peak_memory_bytes")
"""The fields that name the run, or depend on clock and process; all others are functions of its settings."""


class Record:
    """Writes a run's metrics, if it is to, and keeps the clock from the moment it is made."""

    def __init__(self, run: Run, state: State, writes: bool = True) -> None:
        self._run, self._state, self._writes = run, state, writes
        self._seconds_before = state.seconds
        self._began = self._line_began = time.perf_counter()
        self._paused_for = 0.0
        self._line_step = state.step

    def start(self) -> None:
        """Drop the lines of steps that will be taken again, of metrics.jsonl and the damaged ones of events.jsonl.

        A run that has a log and begins at step 0 has lost its checkpoints, or was killed before the next; it says so.
        """
        if not self._state.step and (earlier := self._run.metrics()):
            steps = counted(earlier[-1]["step"], "step")
            own = checkpoint.listed(self._run.checkpoints, self._run.data.run)
            why = "" if own else ": it has no checkpoint to go on from"
            logger.warning(f"{self._run.path} begins at step 0 again and drops {steps} of its log{why}")
        cut_log(self._run, "metrics", self._state.step, self._state.logged)
        cut_log(self._run, "events", None)

    def write_line(self, lr: float, ema_decay: float) -> dict[str, Any]:
        """Add the line of the steps since the last, and begin the next one; this waits for the device."""
        state, config = self._state, self._run.config
        sums = dict(zip(WINDOW, state.window.tolist(), strict=True))
        steps = sums.pop("steps")
        means = {name: value / steps if steps else None for name, value in sums.items()}
        if config.loss.objective == config.loss.weighting == "simple":
            del means["mse"]  # it is the loss itself
        if is_own(config.loss.objective):
            means["mse"] = None  # which it does not say
        if not config.loss.has_bound:
            del means["bits"]
        state.window.zero_()
        now = time.perf_counter()
        busy = max(now - self._line_began - self._paused_for, 1e-9)
        state.seconds = self._seconds_before + now - self._began
        per_second = (state.step - self._line_step) * config.train.batch_size / busy
        line = {
            "step": state.step,
            "epoch": (state.step - 1) // self._run.steps_per_epoch,
            "images": state.step * config.train.batch_size,
            "steps": int(steps),
            **means,
            "lr": lr,
            "ema_decay": ema_decay,
            "skipped": int(state.counters[0].item()),
            "images_per_second": round(per_second, 1),
            "seconds": round(state.seconds, 2),
            "peak_memory_bytes": resources.peak(state.window.device),
            "run": self._run.data.run,
        }
        if self._writes:
            lines.append(self._run.log_file("metrics"), line)
        state.logged = state.step
        self._line_began, self._paused_for, self._line_step = now, 0.0, state.step
        return line

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in this block (snapshots, checkpoints) does not count against the images per second."""
        began = time.perf_counter()
        yield
        now = time.perf_counter()
        self._paused_for += now - began
        self._state.seconds = self._seconds_before + now - self._began


def cut_log(run: Run, name: str, step: int | None, due: int = 0) -> list[dict[str, Any]]:
    """Rewrite a log without the lines of steps after ``step`` (None: keep all), which are taken again; what stays.

    Where lines are damaged a copy of the file is kept. That is logged, and where the line of step ``due`` is missing.
    """
    log = run.log(name)
    kept = [line for line in log.lines if step is None or line["step"] <= step]
    if log.damaged:
        copy = lines.copy_aside(log.file)
        logger.warning(f"{log.problem}; a copy is kept as {copy.name}, and the {len(log.lines)} good lines stay in use")
    if due and (missing := lines.cut_short(log, due)):
        logger.warning(missing)
    if log.damaged or (step is not None and log.file.exists()):
        lines.write(log.file, kept)
    return kept


def draw_charts(run: Run) -> None:
    """Draw curves.png and losses.png from metrics.jsonl and held_out.jsonl, where they have lines."""
    charts = ("curves.png", run.metrics(), training_curves), ("losses.png", run.held_out(), held_out_figure)
    try:
        for name, drawn, draw in charts:
            if drawn:
                with replacing(run.path / name) as partial:
                    save_figure(draw(drawn), partial, run=run.data.run)
    except ImportError:
        warn("matplotlib is not installed: no charts are drawn")


class Grids:
    """Draws what is not there yet; ``spoilt``: the last weights answered with NaN."""

    def __init__(self, run: Run, observer: Observer) -> None:
        self._run, self._observer = run, observer
        self.spoilt = False

    def is_drawn(self, name: str | None) -> bool:
        """Whether the grid of a snapshot exists (that of no snapshot counts as drawn)."""
        return name is None or drawn_grid(self._run, name) is not None

    def draw(self, denoiser: Denoiser, step: int, name: str, stop: Stop) -> None:
        """Draw the grid of a snapshot, after ``step``; not of weights that give NaN. Raises OutOfMemoryError."""
        model = model_in_training(self._run, denoiser, step)
        try:
            with within_memory("grids.num"):
                draw_grid(self._run, model, name, self._observer, stop)
            self.spoilt = False
        except NotFiniteError as error:
            if not self.spoilt:
                logger.warning(f"no grid of step {step} is drawn: {error}")
            self.spoilt = True


def draw_grid(run: Run, model: Model, name: str, observer: Observer, stop: Stop) -> None:
    """Draw samples/NAME.png, with the names of the classes, from the same noise as every grid, which noise.png shows.

    Draws nothing when stopping. Raises NotFiniteError where the network answers with NaN or an infinity.
    """
    cfg = run.config.grids
    indices = torch.arange(cfg.num, device=model.device)
    x = starting_noise(cfg.seed, indices, run.data.shape)
    run.samples.mkdir(exist_ok=True)
    save_png(run.samples / "noise.png", grid(model.pixels(x), cfg.nrow), run=run.data.run)
    total, condition = len(model.chain.visited(model.process.schedule)) - 1, model.condition(indices)
    for done, step in enumerate(model.draw(model.chain, indices, condition), start=1):
        if stop.signal is not None:
            return
        observer.snapshot("drawing samples", done, total)
        x = step.x
    names = model.labels.captions(condition) if model.labels.count else None
    picture = named_grid(model.beside(model.pixels(x), indices), cfg.nrow, names)
    save_png(file := grid_file(run, name), picture, run=run.data.run, step=str(model.step))
    observer.grid(model.step, file)


class Saving:
    """What saves a run's full checkpoints. Leaving the block waits for the one under way.

    An error of writing is raised by the next call, or at the end of the block unless another error ends that.
    """

    def __init__(self, run: Run, state: State, record: Record, group: Alone = Alone()) -> None:
        self._run, self._state, self._record, self._group = run, state, record, group
        self._copies = True
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    def begin(self) -> None:
        """Save this moment, then free to change. UserError for a gone folder or others' weights; errors as `wait`."""
        self.wait()
        faulty = "its device computes otherwise, or is faulty: leave it out, and the same command goes on"
        self._group.check_alike(dict(self._state.net.named_parameters()), faulty)
        if not self._group.is_first:
            return
        if not is_run(self._run.path):
            raise UserError("", self._run.path, "was moved or removed in training", "put it back to go on from there")
        with self._record.paused():
            copied = self._copied()
            self._written = self._thread.submit(self._write, copied or self._state.uncopied(self._run))
            if copied is None:
                self._written.exception()

    def _copied(self) -> Callable[[], checkpoint.Checkpoint] | None:
        """The state's copy; None, from then on, where the memory runs out for it."""
        try:
            return self._state.copied(self._run) if self._copies else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            missing = asked_for(error)
        self._copies = False
        lacking = f"out of memory at step {self._state.step}{missing}, for the copy that a checkpoint is written from"
        logger.warning(f"{lacking}; from now on training waits while one is written")
        return None

    def wait(self) -> None:
        """Wait until all is written. Raises UnwrittenError where it could not be."""
        written, self._written = self._written, None
        if written is not None:
            with self._record.paused():
                written.exception()
            written.result()

    def check(self) -> None:
        """Raise what a save raised, where it is over; this never waits."""
        if self._written is not None and self._written.done():
            self.wait()

    def _write(self, copied: Callable[[], checkpoint.Checkpoint]) -> None:
        """Write a checkpoint; the lines of metrics that it counts on come first, to survive a power cut."""
        lines.sync(self._run.log_file("metrics"))
        checkpoint.save(self._run.checkpoints, copied())
        run = self._run
        checkpoint.keep_last(run.checkpoints, run.config.checkpoint.keep, run.data.run)

    def __enter__(self) -> Self:
        if self._group.is_first:
            self._thread.submit(int).result()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._thread.shutdown()
            self._thread, self._written = ThreadPoolExecutor(1, "checkpoint"), None
