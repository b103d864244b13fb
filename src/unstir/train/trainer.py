"""The training loop (Ho et al. 2020, algorithm 1).

Read `Trainer.take_step` first, then `run`. Between two steps the only state is `State`; everything random is a function
of the step, so that a continued run takes the steps it would have taken. Within a step nothing waits for the device:
figures are summed there and read once a log line.

Of several processes each computes the gradient of its slots. Once these are added up (`Alone.learner`), all that
follows is the same in all of them. The first one alone writes, and alone needs the run's folder; where files or signals
decide, all do as one says (`group`).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir import randomness
from unstir.data.store import Store
from unstir.diffusion.arithmetic import repeatable
from unstir.diffusion.denoiser import takes
from unstir.diffusion.loss import Losses, denoising_loss
from unstir.errors import UserError
from unstir.group import Alone
from unstir.randomness import Key
from unstir.runs import build, checkpoint
from unstir.runs.build import compiled, set_aside
from unstir.runs.checkpoint import what_differs
from unstir.runs.initial import initial_weights
from unstir.runs.run import Run
from unstir.runs.timetable import ema_decay, foreign, learning_rates, snapshots
from unstir.theory.averages import WIDTHS, decay
from unstir.train.held_out import HeldOutLoss
from unstir.train.levers import Batches, Examples, levers
from unstir.train.observer import Observer, Stop
from unstir.train.record import Grids, Record, Saving, draw_charts
from unstir.train.state import State, update_average

logger = logging.getLogger(__name__)

MAX_SKIPPED = 10
"""So many steps in a row without a finite gradient, seen when a log line is written, end the training."""


class Trainer:
    """A run in training, which goes on from its newest whole checkpoint."""

    def __init__(self, run: Run, store: Store, observer: Observer | None = None, group: Alone = Alone()) -> None:
        cfg, self._group = run.config.train, group
        self._run, self._config, self._observer = run, cfg, observer or Observer()
        self._device = build.device(cfg.device)
        self.state = State.initial(run, self._device, group.size)
        self._part = group.share(cfg.batch_size)
        self._size = cfg.micro_batch or cfg.batch_size
        drawn: dict[str, Any] = {"seed": run.config.seed, "batch_size": cfg.batch_size, "flip": run.config.data.flip}
        drawn |= {"labels": run.config.model.num_classes > 0, "conditions": run.conditions}
        self._batches = Batches(store, **drawn, device=self._device)
        self._slots = torch.arange(cfg.batch_size, device=self._device)
        self._snapshots, self._grids, self._started = snapshots(run), Grids(run, self._observer), False
        self._damaged = self._begin_state()
        net, self._takes_key = self.state.net, takes(self.state.net, "dropout_key")
        denoiser = compiled(build.denoiser(run.config, net, build.dtype(cfg.dtype, self._device)), cfg.compile)
        self._learner = group.learner(net)
        self._denoiser = replace(denoiser, net=self._learner)
        self._objective = build.objective(run.config, self._denoiser)
        self._rate, self._levers = learning_rates(run), levers(run, self.state.history, self._device)
        self._paths = None
        if self.state.teacher is not None:
            from unstir.train.paths import Paths  # which few runs need

            teacher = build.teacher(run.config, self.state.teacher, self._denoiser.dtype)
            self._paths = Paths(teacher, run.config, run.data.shape, self._batches)
        self._record = Record(run, self.state, group.is_first)
        self._saving = Saving(run, self.state, self._record, group)
        self._held_out = HeldOutLoss(run, store, self._device)

    def _begin_state(self) -> dict[Path, str]:
        """Go on from the newest whole checkpoint, or from train.init, read by the first process; what is damaged."""
        run, group, state = self._run, self._group, self.state
        newest = partial(checkpoint.newest, run.checkpoints, state.check, run.data.run)
        found, damaged = newest() if group.is_first else (None, {})
        fields = group.of_first({} if found is None else {name: getattr(found, name) for name in checkpoint.FIELDS})
        tensors = group.tensors_of_first({} if found is None else found.tensors)
        if fields:
            saved = checkpoint.Checkpoint(tensors=tensors, **fields)
            state.restore(saved)
            there = saved.environment if 0 < saved.step < run.length else {}  # else no step was taken, or is left
            if differing := what_differs(there, state.conditions()):
                logger.warning(differing)
        elif run.config.train.init:
            net = build.network(run.config, torch.device("cpu"))
            weights, notes = initial_weights(net, run.config) if group.is_first else ({}, "")
            state.start_from(group.tensors_of_first(weights))
            if notes:
                logger.info(notes)
        return damaged

    def start(self) -> None:
        """Make the folder ready, once: damaged checkpoints are set aside, and the logs cut."""
        if self._started or not self._group.is_first:
            return
        state, self._started = self.state, True
        for path, problem in self._damaged.items():
            logger.warning(f"{problem}; it is set aside, going back to an earlier checkpoint")
            checkpoint.set_aside(path)
        for path in foreign(self._run):
            logger.warning(f"{path} is not of this run; it is left out")
        self._record.start()
        self._held_out.start(state.step, state.measured)
        state.measured = max(state.measured, self._held_out.last)  # it may have been measured after its checkpoint

    @property
    def finished(self) -> bool:
        """Whether every step is taken and the last grid drawn, if it can be."""
        drawn = self._grids.spoilt or self._grids.is_drawn(self._snapshots.get(self.state.step))
        return self._group.of_first(self.state.step >= self._run.length and drawn)

    def run(self, stop: Stop | None = None) -> bool:
        """Start, train to the run's length or until ``stop`` is asked for, save, and return whether it finished."""
        self.start()
        stop = stop or Stop()
        run, state, group = self._run, self.state, self._group
        log_every, save_every = run.steps_in(run.config.log.every), run.steps_in(run.config.checkpoint.every)
        with self._record.paused():
            self._observer.begin(state.step, run.length, (self._config.batch_size, *run.data.shape), [*self._snapshots])
        self._event("continued" if state.step else "started", **state.conditions())
        self._take_snapshot(stop)
        saved = group.of_first((state.step, run.checkpoints / checkpoint.file_name(state.step)) in run.saved)
        slim = checkpoint.listed(run.weights, run.data.run)
        ends = group.of_first([step for step, _ in slim])  # which may be measured again
        self._warm_up()
        with self._saving:
            while state.step < run.length and group.vote(stop.signal) is None:
                self.take_step()
                saved = False
                self._saving.check()
                self._observer.step(state.step)
                if state.step % log_every == 0 or state.step == run.length:
                    self._log()
                if state.step % save_every == 0 or state.step in self._snapshots:
                    self._saving.begin()
                    saved = True
                self._take_snapshot(stop)
                if state.step in self._snapshots or state.step in ends:
                    group.of_first(None)
            if not saved:
                self._saving.begin()
        if stop.signal is None:
            stop.signal = group.voted()
        finished = self.finished
        self._event("finished" if finished else "stopped", signal=stop.signal)
        return finished

    def _warm_up(self) -> None:
        """A pass that does not count, after which gradients of several processes add up in the order of later steps."""
        if self._group.size > 1 and self.state.step < self._run.length:
            buffers = [(buffer, buffer.clone()) for buffer in self.state.net.train().buffers()]
            self._learn_from(slice(self._part.start, self._part.start + 1))
            for buffer, before in buffers:
                buffer.copy_(before)

    def _event(self, name: str, **details: Any) -> None:
        if self._group.is_first:
            self._run.record(name, step=self.state.step, **details)

    def take_step(self) -> None:
        """One optimiser step on the global batch, a micro-batch at a time.

        Where the gradient is not finite the whole step is skipped, on the device and without asking it: fused Adam
        leaves weights and moments alone when ``found_inf`` is 1.
        """
        cfg, state = self._config, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = self._rate(state.step)
        state.net.train()
        state.optimizer.zero_grad(set_to_none=not self._denoiser.reuses_output)
        first, end = self._part.start, self._part.stop
        parts = [slice(begin, min(begin + self._size, end)) for begin in range(first, end, self._size)]
        seen = [self._learn_from(part, part.stop == end) for part in parts]
        columns = tuple(torch.cat(column) for column in zip(*seen, strict=True))
        t, losses, figures = self._group.rows_of_all(columns, self._part, cfg.batch_size)
        norm = torch.nn.utils.clip_grad_norm_(state.net.parameters(), cfg.clip or math.inf, foreach=True)
        applied = torch.isfinite(norm)
        state.optimizer.found_inf = (~applied).float()  # type: ignore[attr-defined]
        if self._device.type != "mps" or bool(applied):  # fused Adam does not look at found_inf on MPS
            state.optimizer.step()
        if state.average is not None:
            update_average(state.average, state.net, ema_decay(cfg, state.step), applied.float())
        for width, average in zip(WIDTHS, state.powers, strict=False):
            update_average(average, state.net, decay(width, state.step + 1), applied.float())
        if state.history is not None:
            state.history.record(t, losses, applied)
        self._count(applied, (*figures.mean(0), norm, norm > (cfg.clip or math.inf)))
        state.step += 1

    def examples(self, part: slice) -> Examples:
        """What a part of the present batch learns from: algorithm 1, and the levers of the run."""
        step, slots, seed = self.state.step, self._slots[part], self._run.config.seed
        if self._paths is not None:
            return self._paths(step, slots, part)
        x_0, condition = self._batches(step, slots, part)
        t = randomness.integers(Key(seed, "time", step, slots), 1, self._denoiser.process.T)
        eps = randomness.normal(Key(seed, "noise", step, slots), tuple(x_0.shape[1:]))
        examples = Examples(x_0, t, eps, torch.ones_like(x_0[:, 0, 0, 0]), condition)
        for lever in self._levers:
            examples = lever(step, slots, examples)
        return examples

    def _learn_from(self, part: slice, last: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Add the gradient of a part of the batch. Returns its times [b], losses [b] and weighted figures [b, 3]."""
        examples = self.examples(part)
        with self._group.exchanging(self._learner, last), repeatable(self._device):
            losses = self._losses(examples, self._slots[part])
            scale = self._config.loss_scale / self._config.batch_size
            torch.autograd.backward((losses.total * examples.weight).sum() * scale)
        total, mse, bits = (torch.zeros_like(losses.mse) if each is None else each.detach() for each in losses)
        return examples.t, total, torch.stack((total, mse, bits), 1) * examples.weight[:, None]

    def _losses(self, examples: Examples, slots: Tensor) -> Losses:
        """The losses of each image; a run with a teacher learns its paths."""
        denoiser = replace(self._denoiser, augmentation=examples.augmentation)
        dropout_key = Key(self._run.config.seed, "dropout", self.state.step, slots) if self._takes_key else None
        x_0, t, eps, _, condition, perturbation, _, x_t, present = examples
        if x_t is not None:
            from unstir.diffusion.paths import path_loss

            return path_loss(denoiser, x_t, t, x_0, condition, dropout_key)
        assert self._objective is not None
        return denoising_loss(denoiser, x_0, t, eps, condition, dropout_key, self._objective, perturbation, present)

    def _count(self, applied: Tensor, figures: Sequence[Tensor]) -> None:
        state = self.state
        of_step = torch.stack([figure.to(state.window.dtype) for figure in (applied, *figures)])
        state.window += torch.where(applied, of_step, 0.0)
        skipped, in_a_row = state.counters
        state.counters = torch.stack((skipped + ~applied, (in_a_row + 1) * ~applied))

    def _log(self) -> None:
        state, last = self.state, self.state.step - 1
        self._observer.metrics(self._record.write_line(self._rate(last), ema_decay(self._config, last)))
        in_a_row = int(state.counters[1].item())
        if in_a_row >= MAX_SKIPPED:
            self._saving.begin()
            self._saving.wait()
            self._group.of_all(None)  # or the others would end before the first has saved
            steps = f"gave no finite gradient in {in_a_row} steps up to step {state.step}"
            raise UserError("train.lr", self._config.lr, steps, "start a new run with a lower one")

    def _take_snapshot(self, stop: Stop) -> None:
        """Where a snapshot is due keep its weights, measure its held-out loss and draw its grid, unless they are there.

        The grid comes last, for it says that the snapshot is whole. When stopping the rest is left out.
        """
        state, name = self.state, self._snapshots.get(self.state.step)
        ended_here = (self._run.weights / checkpoint.file_name(state.step)).exists()  # the run, which is longer now
        loss_is_due = self._held_out.due(state.step) and (name is not None or (ended_here and self._held_out.last >= 0))
        if not self._group.is_first or not (loss_is_due or not self._grids.is_drawn(name)):
            return
        self._saving.wait()  # what is of this step comes after its checkpoint
        with self._record.paused(), set_aside(self._config.compile):
            denoiser = replace(self._denoiser, net=state.sampling_net.eval())
            if state.step > 0:
                checkpoint.save(self._run.weights, state.to_slim(self._run))
            if loss_is_due:
                if not self._held_out.measure(denoiser, state.step, self._observer, stop):
                    return
                state.measured = state.step
            draw_charts(self._run)
            if name is not None and not self._grids.is_drawn(name):
                self._grids.draw(denoiser, state.step, name, stop)
