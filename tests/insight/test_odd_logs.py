"""Logs with losses that are not finite, or beyond all measure: no check fails over them, and none writes them out."""

import dataclasses
import math
import re

import pytest

from runs import MOMENTS, by_name, held_out, metrics
from runs import facts as simulated
from unstir.insight.doctor import examine
from unstir.insight.gather import gather

pytest_plugins = ["spoiled"]
NOT_FINITE = [None, math.nan, math.inf, -math.inf]


@pytest.fixture(scope="module")
def facts(healthy):
    return gather(healthy, samples=False)


def with_values(facts, values, chosen=slice(10, 20)):
    lines = [dict(line) for line in facts.lines]
    for line in lines[chosen]:
        line.update(values)
    return examine(dataclasses.replace(facts, lines=tuple(lines))).findings


@pytest.mark.parametrize("value", NOT_FINITE, ids=lambda value: repr(value)[:8])
@pytest.mark.parametrize("key", ["loss", "mse"])
def test_losses_that_are_not_finite_are_passed_over(facts, key, value):
    found = {finding.check for finding in with_values(facts, {key: value})}
    assert found == ({"not-finite"} if key == "loss" else set())
    everywhere = {finding.check for finding in with_values(facts, {key: value}, slice(None))}
    assert everywhere == ({"not-finite"} if key == "loss" else set())
    assert with_values(facts, {}) == ()
    known = simulated(lines=tuple({**line, key: value} for line in metrics()), held_out=held_out())
    assert by_name(known).keys() == by_name(simulated(held_out=held_out())).keys()


@pytest.mark.parametrize("key", ["of_held_out", "of_train"])
def test_a_line_with_a_loss_that_is_not_finite_is_left_out(key):
    *early, last = held_out()
    for value in (math.nan, math.inf):
        known = simulated(held_out=(*early, {**last, key: [*last[key][1:], value]}))
        assert [it.step for it in known.measured] == list(MOMENTS[:-1])


@pytest.mark.parametrize("loss", [1e9, 1e30, 1e38])
@pytest.mark.parametrize("where", [slice(0, 3), slice(14, 16), slice(-8, None), slice(-1, None)])
def test_losses_beyond_all_measure_are_not_written_out(facts, loss, where):
    found = with_values(facts, {"loss": loss, "grad_norm": loss}, where)
    assert {finding.check for finding in found} <= {"not-finite", "loss-rises", "not-learned"}
    assert found or where != slice(-8, None)
    for finding in found:
        assert not re.search(r"\d{8}", finding.evidence), finding.evidence
        assert "1,000 times" in finding.evidence or finding.check != "loss-rises"
