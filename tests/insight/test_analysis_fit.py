"""What the analysis must not claim: over-fitting where both splits got worse, memorisation where images are hard.

The runs are simulated (`runs`), so what is true of each is known.
"""

import dataclasses
import random

import runs
from runs import STEPS, advice, by_name, evaluation, examined, facts, held_out
from unstir.metrics.figures import figure_effect


def test_splits_that_rise_alike_are_not_called_over_fitted():
    """A rise of 2% of both splits, near what a measurement can tell."""
    rising = lambda images: 0.08 if images < STEPS * runs.BATCH else 0.0816
    alike = [facts(held_out=held_out(curve=rising, noise=0.05, seed=seed)) for seed in range(40)]
    assert not any(examined(known) for known in alike)
    more = lambda images: 0.0 if images < STEPS * runs.BATCH else 0.06
    apart = [facts(held_out=held_out(curve=runs.flat, worse=more, noise=0.05, seed=seed)) for seed in range(10)]
    assert sum(bool(examined(known)) for known in apart) > 7


def test_a_loss_at_other_times_is_no_loss_that_rose():
    """Followed at half of the times, the later ones, before the run was continued."""
    *early, last = held_out(curve=runs.flat, worse=lambda images: 0.0 if images < STEPS * runs.BATCH else 0.5)
    assert examined(facts(held_out=(*early, last)))
    fewer = tuple({**line, "times": line["times"][3:]} for line in early)
    known = facts(held_out=(*fewer, last))
    assert [each.step for each in known.measured] == [STEPS] and not examined(known)


def test_images_that_are_hard_by_nature_are_not_learned_memorised():
    lines = held_out(worse=lambda images: 0.3)
    once = facts(held_out=(lines[0], lines[-1]))  # nothing to compare with
    assert by_name(once)["gap"].verdict == "neutral" and "by nature" in by_name(once)["gap"].text
    assert "regularise" not in advice(once)
    verdicts = []
    for seed in range(15):
        for curve in (runs.settled, runs.falling):
            known = facts(held_out=held_out(curve=curve, worse=lambda images: 0.3, noise=0.2, seed=seed))
            verdicts.append(by_name(known)["gap"].verdict)
            assert "regularise" not in advice(known)
    assert "neutral" in verdicts and "bad" not in verdicts


def test_a_term_of_hardness_is_not_learned_memorised():
    """What no network can predict of an image stays, whatever the loss of the rest falls to."""
    curve = runs.falling
    for seed in range(10):
        term = lambda images: 0.03 / curve(images)
        assert by_name(facts(held_out=held_out(curve=curve, worse=term, noise=0.05, seed=seed)))["gap"].verdict != "bad"


def test_few_seeds_decide_as_seldom_as_promised_where_the_bootstrap_says_too_little():
    """Three seeds each of nothing, the bootstrap at 0.7 of the true spread: 0.05% at the level of 3.5 errors."""
    draw = random.Random(0)
    usual = evaluation().figures["classifier/fd"]
    made = lambda shift=0.0: dataclasses.replace(
        usual, by_seed=tuple(draw.gauss(shift, 1.0) for _ in range(3)), bootstrap=0.7
    )
    assert sum(figure_effect(made(), made()).decided for _ in range(4000)) <= 4
    assert sum(figure_effect(made(), made(8.0)).decided for _ in range(200)) > 180


def test_what_was_seen_before_is_no_measure_of_how_hard_images_are_by_nature():
    lines = held_out(curve=runs.flat, worse=lambda images: 2.0)
    gap = by_name(facts(held_out=lines, config={"train__init": "/runs/a@3"}))["gap"]
    assert gap.verdict == "neutral" and "Since step" not in gap.text
