"""The scale that a distance is put on: how many times that of real images, with its error, or none."""

import dataclasses
import re
import statistics

import pytest

from runs import by_name, evaluation, facts
from unstir.insight.analysis_samples import quality
from unstir.metrics.features import Trust
from unstir.significance import LEVEL

TIMES = re.compile(r", ([\d.,]+) \+- ([\d.,]+) times that of real images")


def judged(figures=None, protocol=None, parts=None, **true):
    """Facts of one evaluation, with other values of its main figure or in its protocol."""
    made = evaluation(**true)
    main = dataclasses.replace(made.figures["classifier/fd"], **(figures or {}))
    made = dataclasses.replace(
        made, figures={**made.figures, "classifier/fd": main}, protocol={**made.protocol, **(protocol or {})}
    )
    return facts(by_step=(made,), **(parts or {}))


def test_a_figure_far_from_real_is_so_many_times_theirs_and_no_share_of_a_way():
    known = judged(fd=14.0)
    found = by_name(known)["excess"]
    ratio, error = (float(part) for part in TIMES.search(found.text).groups())
    main = known.last.main()
    assert ratio == pytest.approx(main.value / main.floor, abs=error) and 0 < error < ratio / 2
    assert found.verdict == "bad" and found.effect.decided


def test_the_error_of_the_ratio_is_honest():
    """A model of three times the distance, three seeds each: the ratio misses 3 by LEVEL of its errors hardly ever."""
    misses = []
    for seed in range(300):
        if found := TIMES.search(next(quality(judged(fd=0.72, seed=seed))).text):
            ratio, error = map(float, found.groups())
            misses.append((ratio - 3) / error)
    assert len(misses) > 250  # of the others it is undecided
    assert sum(abs(miss) > LEVEL for miss in misses) <= 2 and statistics.stdev(misses) < 1.3


def test_no_ratio_is_made_to_a_figure_that_may_be_none():
    found = by_name(judged({"floor": 0.05, "floor_error": 0.03}, fd=4.0))["excess"]
    assert "times" not in found.text and "(0.05 +- 0.03)" in found.text
    assert found.verdict == "bad"


def test_as_good_as_real_is_called_good_only_where_it_is_decidedly_near():
    near = by_name(judged({"floor": 0.24, "floor_error": 0.01}, fd=0.24, seeds=10))["near"]
    assert near.verdict == "good" and near.effect.value > LEVEL * near.effect.error
    rough = by_name(judged({"floor": 0.24, "floor_error": 0.2, "bootstrap": 0.3}, fd=0.24))
    assert "near" not in rough and rough["excess"].verdict == "undecided"


def test_why_the_classifier_is_not_used_is_said():
    entry = Trust(40, 299, 31).entry()
    found = by_name(judged(protocol={"classifier": entry, "networks": {}}))
    assert found["classifier"].verdict == "neutral"
