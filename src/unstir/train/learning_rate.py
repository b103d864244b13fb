"""The learning rate as a pure function of the step, so that nothing about it needs to be saved."""

import math

from unstir.runs.run import Run


def learning_rate(run: Run, step: int) -> float:
    """The learning rate of optimiser step ``step``, counted from 0.

    It rises linearly from warmup_start * lr to lr over the warm-up, then stays, or falls as half a cosine towards 0
    over lr_period (which may be longer than the run, as the report's is). With lr_every = "epoch" it is that of the
    epoch's first step; a warm-up from 0 counts the step or epoch being taken, so that no step is wasted.
    """
    cfg = run.config.train
    if cfg.lr_every == "epoch":
        step -= step % run.steps_per_epoch
    warmup = run.steps_in(cfg.warmup)
    if step < warmup:
        if cfg.warmup_start == 0:
            step += run.steps_per_epoch if cfg.lr_every == "epoch" else 1
        return cfg.lr * (cfg.warmup_start + (1 - cfg.warmup_start) * min(step / warmup, 1))
    if cfg.lr_schedule == "constant":
        return cfg.lr
    period = run.steps_in(cfg.lr_period)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / period, 1)))
