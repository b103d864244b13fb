"""Checks of the learning rate: too high to learn at, too low or too short to have learned, and its plan."""

from collections.abc import Iterator

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Finding, check
from unstir.doctor.image_stats import ImageStats
from unstir.doctor.measure import learns_nothing, outputs_nothing
from unstir.doctor.numbers import Lines, logged_errors
from unstir.doctor.remedies import HIGHEST, STEP, higher_rate, lower_rate
from unstir.runs.timetable import learning_rate

ENOUGH_IMAGES = 20_000
"""After so many images trained runs have half the error of a denoiser that knows only a mean and a variance."""

PEAK = 1.3  # times the error of an output of 0, which a network whose rate is not too high never exceeds


def _unlearned(facts: RunFacts, lines: Lines, images: ImageStats) -> tuple[float, float] | None:
    """The error of the last lines and the limit that it has not come below; None where it has, or it is too early."""
    errors = logged_errors(lines[-3:])
    if not errors or (not facts.finished and _images_seen(facts) < ENOUGH_IMAGES):
        return None
    limit, mean = learns_nothing(facts.run, images.mean, images.std), sum(errors) / len(errors)
    return (mean, limit) if mean > limit else None


def _images_seen(facts: RunFacts) -> int:
    seen: int = facts.lines[-1]["step"] * facts.run.config.train.batch_size
    return seen


@check("learning-rate", "training diverged, for the learning rate is too high")
def too_high(facts: RunFacts, lines: Lines, images: ImageStats) -> Iterator[Finding]:
    """A rate at which training diverged: nothing was learned, and the error rose above that of an untrained network.

    A rate far above every usual one, at which nothing was learned, is named without such a rise too.
    """
    train = facts.run.config.train
    untrained = outputs_nothing(facts.run, images.mean, images.std)
    peak = max(logged_errors(lines), default=0.0)
    unlearned, rose = _unlearned(facts, lines, images), peak > PEAK * untrained
    if unlearned is None or not (rose or train.lr > STEP * HIGHEST):
        return
    ended, limit = unlearned
    yield Finding(
        "problem",
        f"with train.lr={train.lr:g} the squared error reached {peak:.3g}, where an untrained network has "
        f"{untrained:.3g}, and is {ended:.3g} at the end, where the data's mean and variance alone give {limit:.3g}; a "
        f"peak of at most {PEAK:g} times the untrained network's, and rates up to {HIGHEST:g}, are usual",
        f"a new run with --train.lr {lower_rate(facts.run.config):.2g}"
        + ("" if 0 < train.clip <= 1 else " and --train.clip 1"),
        peak / untrained if rose else train.lr,
        PEAK if rose else STEP * HIGHEST,
        says="" if rose else "nothing was learned, at a learning rate far above any usual one",
    )


@check("not-learned", "the network has not learned to see images")
def not_learned(facts: RunFacts, lines: Lines, images: ImageStats) -> Iterator[Finding]:
    """An error no better than that of a denoiser which knows the values' mean and variance and sees no image."""
    unlearned, rate = _unlearned(facts, lines, images), higher_rate(facts.run.config)
    if unlearned:
        ended, limit = unlearned
        yield Finding(
            "problem",
            f"after {_images_seen(facts)} images the squared error is {ended:.3g}; the data's mean and variance alone "
            f"give {limit:.3g}",
            "train for longer (--train.length)"
            + ("" if rate is None else f", or start a new run with a higher rate, --train.lr {rate:.2g}"),
            ended,
            limit,
        )


@check("rate-plan", "the warm-up takes most of the run")
def rate_plan(facts: RunFacts) -> Iterator[Finding]:
    """A warm-up that takes most of the run, or a cosine that is far from its end when the run is at its own."""
    run = facts.run
    cfg, length = run.config.train, run.length
    warmup = run.steps_in(cfg.warmup)
    if warmup > 0.5 * length:
        yield Finding(
            "problem" if warmup >= length else "warning",
            f"train.warmup={cfg.warmup} is {warmup / length:.2g} of the run's {length} steps; at most 0.5 is usual",
            f'a new run with --train.warmup "{max(length // 20, 1)} steps"',
            warmup / length,
            0.5,
        )
    elif cfg.lr_schedule != "constant" and (left := learning_rate(run, length - 1) / cfg.lr) > 0.1:
        yield Finding(
            "warning",
            f"the rate of the last step is {left:.0%} of train.lr={cfg.lr:g}; at most 10% is usual",
            f'--train.length "{warmup + run.steps_in(cfg.lr_period)} steps", which goes on to its end',
            left,
            0.1,
            says="the cosine is not at its end when the run is",
        )
