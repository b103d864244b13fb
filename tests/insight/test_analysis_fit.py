"""What the analysis must not claim: over-fitting where both splits got worse, memorisation where images are hard.

The runs are simulated (`runs`), so what is true of each is known.
"""

import dataclasses
import random
from types import SimpleNamespace

import pytest

import runs
from runs import STEPS, advice, by_name, evaluation, examined, facts, held_out
from unstir.insight.gather import likelihoods
from unstir.metrics.figures import figure_effect
from unstir.runs import files


def bound(bits, samples=299, **other):
    protocol = {"step": STEPS, "split": "held_out", "variance": "large", "clip": True, "ema": True, "seed": 0}
    protocol |= {"dtype": "float32", "calls": 1000, "T": 1000} | other
    return {"bits_per_dim": bits, "standard_error": 0.02, "num": 299, "num_samples": samples, "protocol": protocol}


def without_train(lines):
    return tuple({**line, "train": None, "train_error": None, "of_train": None, "num_train": 0} for line in lines)


def test_splits_that_rise_alike_are_not_called_over_fitted():
    """A rise of 2% of both splits, near what a measurement can tell."""
    rising = lambda images: 0.08 if images < STEPS * runs.BATCH else 0.0816
    alike = [facts(held_out=held_out(curve=rising, noise=0.05, seed=seed)) for seed in range(40)]
    assert not any(examined(known) for known in alike)
    assert sum("rose" in by_name(known) for known in alike) > 5
    more = lambda images: 0.0 if images < STEPS * runs.BATCH else 0.06
    apart = [facts(held_out=held_out(curve=runs.flat, worse=more, noise=0.05, seed=seed)) for seed in range(10)]
    assert sum(bool(examined(known)) for known in apart) > 7


def test_a_rise_of_unknown_cause_is_said_and_no_more():
    of = without_train(held_out(worse=lambda images: 0.3 * (images > 20_000)))
    found = by_name(facts(held_out=of))
    assert found["rose"].verdict == "bad" and "training images" not in found["rose"].text


def test_a_loss_at_other_times_is_no_loss_that_rose():
    """Followed at half of the times, the later ones, before the run was continued."""
    *early, last = held_out(curve=runs.flat, worse=lambda images: 0.0 if images < STEPS * runs.BATCH else 0.5)
    assert examined(facts(held_out=(*early, last)))
    keys = ("times", "held_out", "held_out_error", "train", "train_error")
    fewer = tuple({**line, **{key: line[key][len(line[key]) // 2 :] for key in keys}} for line in early)
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


def test_likelihoods_of_one_step_are_compared():
    both = {"held_out": bound(4.9), "train": bound(4.5)}
    found = by_name(facts(held_out=held_out(), likelihoods=both))["bits"]
    assert found.verdict == "neutral" and found.effect.value == pytest.approx(0.4) and "At step 3,000 " in found.text
    assert by_name(facts(likelihoods={**both, "train": bound(4.89)}))["bits"].verdict == "undecided"
    for other in (
        {"held_out": bound(4.7)},
        {**both, "train": bound(4.5, step=5)},
        {**both, "train": bound(4.5, variance="small")},
    ):
        assert by_name(facts(likelihoods=other))["bits"].effect is None


def test_an_estimated_likelihood_is_as_sure_as_its_batches_are_many():
    """4.2 errors apart: decided by 299 images, and by chance one time in 250 of 8 batches that share their times."""
    told = lambda samples: by_name(facts(likelihoods={"held_out": bound(4.62, samples), "train": bound(4.5, samples)}))
    many, few = told(299)["bits"], told(8)["bits"]
    assert many.effect.positive and not few.effect.positive and many.effect.value == few.effect.value
    assert many.text != few.text


def test_likelihoods_of_weights_left_behind_are_not_gathered(tmp_path):
    folder = tmp_path / "likelihood"
    folder.mkdir()
    run = SimpleNamespace(path=tmp_path)
    rest = {"prior": 0.001, "decoder": 0.5, "times": [2], "curve": [0.1], "total": [0.6]}
    write = lambda name, value: (folder / f"{name}.json").write_text(files.encode({**value, **rest}))
    for split in ("held_out", "train"):
        write(f"old-{split}", bound(5.0, step=500, split=split))
    assert likelihoods(run, since=STEPS) == {}
    assert set(likelihoods(run, since=500)) == {"held_out", "train"}
    write("z", bound(4.5))
    others = (
        {"dtype": "bfloat16"},
        {"variance": "small"},
        {"calls": 10},
        {"clip": False},
        {"ema": False},
        {"ema": 0.05},
    )
    for number, other in enumerate(others):
        write(f"other-{number}", bound(5.4 - number, **other))
    write("few", {**bound(4.3), "num": 8})
    found = likelihoods(run, STEPS)
    assert set(found) == {"held_out"} and found["held_out"]["bits_per_dim"] == 4.5
    (folder / "damaged.json").write_text("[1]")
    assert likelihoods(run, STEPS) == found


def test_few_seeds_decide_as_seldom_as_promised_where_the_bootstrap_says_too_little():
    """Three seeds each of nothing, the bootstrap at 0.7 of the true spread: 0.05% at the level of 3.5 errors."""
    draw = random.Random(0)
    usual = evaluation().figures["classifier/fd"]
    made = lambda shift=0.0: dataclasses.replace(
        usual, by_seed=tuple(draw.gauss(shift, 1.0) for _ in range(3)), bootstrap=0.7
    )
    assert sum(figure_effect(made(), made()).decided for _ in range(4000)) <= 4
    assert sum(figure_effect(made(), made(8.0)).decided for _ in range(200)) > 180


def test_the_degrees_of_freedom_are_those_of_what_is_known():
    usual = evaluation().figures["classifier/fd"]
    of = lambda seeds, error: dataclasses.replace(usual, by_seed=tuple(range(seeds)), bootstrap=error).estimate.df
    assert of(3, None) == 2 and of(3, 5.0) == of(3, 0.1) == 7 and of(1, 5.0) < of(2, 5.0)


def test_what_was_seen_before_is_no_measure_of_how_hard_images_are_by_nature():
    lines = held_out(curve=runs.flat, worse=lambda images: 2.0)
    gap = by_name(facts(held_out=lines, config={"train__init": "/runs/a@3"}))["gap"]
    assert gap.verdict == "neutral" and "allowing for" not in gap.text
