"""The scale that a distance is put on: how many times that of real images, with its error, or none."""

import dataclasses
import re
import statistics

import pytest

from runs import STEPS, by_name, evaluation, facts, held_out
from unstir.metrics.features import Trust
from unstir.report import tables
from unstir.report.analysis import analyse
from unstir.report.analysis_quality import NEAR
from unstir.significance import LEVEL, widening

TIMES = re.compile(r", ([\d.,]+) \+- ([\d.,]+) times that of real images")


def judged(figures=None, protocol=None, **true):
    """Facts of one evaluation, with other values of its main figure or in its protocol."""
    made = evaluation(**true)
    main = dataclasses.replace(made.figures["classifier/fd"], **(figures or {}))
    made = dataclasses.replace(
        made, figures={**made.figures, "classifier/fd": main}, protocol={**made.protocol, **(protocol or {})}
    )
    return facts(by_step=(made,))


def test_a_figure_far_from_real_is_so_many_times_theirs_and_no_share_of_a_way():
    known = judged(fd=14.0)
    found = by_name(known)["excess"]
    ratio, error = (float(part) for part in TIMES.search(found.text).groups())
    main = known.last.main()
    assert ratio == pytest.approx(main.value / main.floor, abs=error) and 0 < error < ratio / 2
    assert found.verdict == "bad" and found.effect.decided
    assert not any("way from noise" in each.text or "% of the way" in each.text for each in analyse(known))


def test_the_error_of_the_ratio_is_honest():
    """A model of three times the distance, three seeds each: the ratio misses 3 by LEVEL of its errors hardly ever."""
    misses = []
    for seed in range(300):
        if found := TIMES.search(by_name(judged(fd=0.72, seed=seed))["excess"].text):
            ratio, error = map(float, found.groups())
            misses.append((ratio - 3) / error)
    assert len(misses) > 250  # of the others it is undecided
    assert sum(abs(miss) > LEVEL for miss in misses) <= 2 and statistics.stdev(misses) < 1.3


def test_no_ratio_is_made_to_a_figure_that_may_be_none():
    found = by_name(judged({"floor": 0.05, "floor_error": 0.03}, fd=4.0))["excess"]
    assert "times" not in found.text and "beyond that of real images (0.05 +- 0.03)" in found.text
    assert found.verdict == "bad"


def test_as_good_as_real_is_called_good_only_where_it_is_decidedly_near():
    near = by_name(judged({"floor": 0.24, "floor_error": 0.01}, fd=0.24, seeds=10))["near"]
    assert near.verdict == "good" and near.effect.value > LEVEL * near.effect.error
    assert f"decidedly less than {NEAR:g} times theirs" in near.text and "Whether they differ is undecided" in near.text
    rough = by_name(judged({"floor": 0.24, "floor_error": 0.2, "bootstrap": 0.3}, fd=0.24))
    assert "near" not in rough and rough["excess"].verdict == "undecided"


def test_what_the_finite_number_adds_is_known_better_than_the_figure_and_that_of_infinitely_many():
    made = {"by_seed": (0.30, 0.40, 0.32), "bootstrap": 0.08, "infinite": (0.0, 0.06)}
    said = by_name(judged({**made, "bias_error": (0.01, 27.0)}))["finite number"]
    assert said.effect.value == pytest.approx(0.34) and said.verdict == "neutral" and said.effect.decided
    assert said.effect.error == pytest.approx(0.01 * widening(27))
    assert "0.340 +- 0.011 is due to the finite number of samples" in said.text and "0.00 +- 0.06" in said.text
    assert "finite number" not in by_name(judged({**made, "bias_error": (0.2, 27.0)}))
    assert "finite number" not in by_name(judged(made))  # figures of before that was measured


def test_figures_of_an_older_step_say_so_where_they_are_read_first():
    newest, older = judged(fd=14.0), dataclasses.replace(judged(fd=14.0), step=STEPS + 500)
    assert by_name(newest)["excess"].text.startswith("FD-classifier is 1") and newest.older == ""
    start = f"FD-classifier, of step {STEPS:,}, while the run is at step {STEPS + 500:,}, is 1"
    assert by_name(older)["excess"].text.startswith(start)
    bits = {"bits_per_dim": 4.9, "standard_error": 0.02, "protocol": {"step": STEPS, "calls": 1000, "T": 1000}}
    for known, end in ((newest, ""), (older, f"; of step {STEPS:,}")):
        for changes in ({}, {"likelihoods": {"held_out": bits}}):
            made = dataclasses.replace(known, held_out=held_out(), **changes)
            notes = [note for *_, note in tables.cards(made)]
            assert all(note.endswith(end) if end else "step" not in note for note in notes[:3]), notes
            assert not any("step" in note for note in notes[3:])


def test_further_than_noise_is_said_where_it_is():
    assert "beyond noise" not in by_name(judged(fd=40.0))
    found = by_name(judged(fd=80.0))["beyond noise"]
    assert found.verdict == "bad" and "further from real images than uniform noise" in found.text


def test_the_accuracy_of_the_classifier_stands_with_its_figure_or_instead_of_it():
    good, lost = Trust(290, 299, 31).entry(), Trust(26, 299, 31).entry()
    used = by_name(judged(protocol={"classifier": good, "networks": {"classifier": "c"}}))
    assert "its classifier is right in 97% of 299 held-out images" in used["near"].text and "classifier" not in used
    found = by_name(judged(protocol={"classifier": lost, "networks": {}}))["classifier"]
    assert found.verdict == "neutral" and found.effect is None
    assert found.text.startswith("The classifier is right in 8.7% of 299 held-out images, not decidedly above chance")
    assert found.text.endswith("it is not used; the sliced Wasserstein distance is used instead.")


def test_where_samples_may_be_no_nearer_than_noise_it_is_said():
    noise = judged().last.main().ceiling
    found = by_name(judged(fd=1.1 * noise))["beyond noise"]
    assert found.verdict == "undecided" and found.effect.value > 0 and f"that of noise {noise:.3g}. A net" in found.text
    assert "beyond noise" not in by_name(judged(fd=noise))  # which comes out a little lower
