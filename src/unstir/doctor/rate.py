"""Checks of the learning rate: too high to learn at, too low or too short to have learned, and its plan."""

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Check, Finding
from unstir.doctor.learning import squared_error
from unstir.doctor.measure import learns_nothing, outputs_nothing
from unstir.doctor.remedies import HIGHEST, STEP, higher_rate, lower_rate
from unstir.runs.moments import learning_rate
from unstir.runs.run import Run

ENOUGH_IMAGES = 20_000
"""After so many images trained runs have half the error of a denoiser that knows but a mean and a variance."""


PEAK = 1.3
"""Times the error of an output of 0, which a network whose rate is not too high never exceeds. Trained runs: 1.02."""


def _unlearned(facts: RunFacts) -> tuple[float, float] | None:
    """The error of the last lines and the limit that it has not come below; None where it has, or it is too early."""
    assert facts.images is not None
    errors = [error for line in facts.lines[-3:] if (error := squared_error(line)) is not None]
    images = facts.lines[-1]["step"] * facts.run.config.train.batch_size
    if not errors or (not facts.finished and images < ENOUGH_IMAGES):
        return None
    limit, mean = learns_nothing(facts.run, facts.images.mean, facts.images.std), sum(errors) / len(errors)
    return (mean, limit) if mean > limit else None


def too_high(facts: RunFacts) -> Finding | None:
    """A rate at which training diverged: nothing was learned, and the error rose above that of an untrained network.

    A rate far above every usual one, at which nothing was learned, is named without such a rise too.
    """
    assert facts.images is not None
    run = facts.run
    untrained = outputs_nothing(run, facts.images.mean, facts.images.std)
    peak = max((error for line in facts.lines if (error := squared_error(line)) is not None), default=0.0)
    unlearned, lr, rose = _unlearned(facts), run.config.train.lr, peak > PEAK * untrained
    if unlearned is None or not (rose or lr > STEP * HIGHEST):
        return None
    ended, limit = unlearned
    return Finding(
        "learning-rate",
        "problem",
        "training diverged, for the learning rate is too high"
        if rose
        else "nothing was learned, at a learning rate far above any usual one",
        f"with train.lr={lr:g} the squared error reached {peak:.3g}, where an untrained network has {untrained:.3g}, "
        f"and is {ended:.3g} at the end, where knowing no more than the data's mean and variance gives {limit:.3g}; a "
        f"peak of at most {PEAK:g} times the untrained network's, and rates up to {HIGHEST:g}, are usual",
        f"a new run with --train.lr {lower_rate(run.config):.2g}"
        + ("" if 0 < run.config.train.clip <= 1 else " and --train.clip 1"),
        peak / untrained if rose else lr,
        PEAK if rose else STEP * HIGHEST,
    )


def not_learned(facts: RunFacts) -> Finding | None:
    """An error no better than that of a denoiser which knows the values' mean and variance and sees no image."""
    unlearned, rate = _unlearned(facts), higher_rate(facts.run.config)
    if unlearned is None:
        return None
    ended, limit = unlearned
    images = facts.lines[-1]["step"] * facts.run.config.train.batch_size
    return Finding(
        "not-learned",
        "problem",
        "the network has not learned to see images",
        f"after {images} images the squared error is {ended:.3g}; knowing no more than the data's mean and "
        f"variance gives {limit:.3g}",
        "train for longer (--train.length)"
        + ("" if rate is None else f", or begin anew with a higher rate, --train.lr {rate:.2g}"),
        ended,
        limit,
    )


def rate_plan(facts: RunFacts) -> Finding | None:
    """A warm-up that takes most of the run, or a cosine that is far from its end when the run is at its own."""
    run: Run = facts.run
    cfg, length = run.config.train, run.length
    share = run.steps_in(cfg.warmup) / length
    if share > 0.5:
        return Finding(
            "rate-plan",
            "problem" if share >= 1 else "warning",
            "the warm-up takes most of the run",
            f"train.warmup={cfg.warmup} is {share:.2g} of the run's {length} steps; at most 0.5 is usual",
            f'a new run with --train.warmup "{max(length // 20, 1)} steps"',
            share,
            0.5,
        )
    left = learning_rate(run, length - 1) / cfg.lr
    if cfg.lr_schedule == "constant" or left <= 0.1:
        return None
    return Finding(
        "rate-plan",
        "warning",
        "the cosine is not at its end when the run is",
        f"the rate of the last step is {left:.0%} of train.lr={cfg.lr:g}; at most 10% is usual",
        f'--train.length "{run.steps_in(cfg.warmup) + run.steps_in(cfg.lr_period)} steps", which goes on to its end',
        left,
        0.1,
    )


CHECKS = (
    Check("learning-rate", "a rate too high to learn at", too_high, ("lines", "images")),
    Check("not-learned", "the loss against that of knowing a mean and a variance", not_learned, ("lines", "images")),
    Check("rate-plan", "warm-up and cosine against the run's length", rate_plan),
)
