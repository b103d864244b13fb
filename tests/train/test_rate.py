"""The spans of the learning rate: settled and refused alike when a run begins and when one goes on with others."""

import pytest

from conftest import tiny_config
from refusals import refusing
from unstir.runs.run import Run
from unstir.runs.timetable import learning_rates
from unstir.train.launch import open_run


def settings(schedule, length, **changes):
    return {"train__lr_schedule": schedule, "train__length": length, "train__warmup": "1 step", **changes}


def continued(run, store, digits, **asked):
    """The run as it goes on with these settings."""
    return open_run(tiny_config(digits, **asked), run.path, store)


@pytest.mark.parametrize(("schedule", "period"), [("cosine", "3 steps"), ("wsd", "1000 steps")])
def test_a_run_that_goes_on_takes_no_fall_that_a_new_one_does_not(make_run, digits, schedule, period):
    run, store = make_run("run", **settings(schedule, "12 steps"))
    before = run.config
    for name in ("new", "run"):
        with refusing("train.lr_period", period, {"train.lr_period": "11 steps"}):
            make_run(name, **settings(schedule, "12 steps", train__lr_period=period))
    assert Run.open(run.path).config == before
    kept = continued(run, store, digits, **settings(schedule, "12 steps", train__lr_period="11 steps"))
    assert kept.config.train.lr_period == "11 steps"


def test_a_cosine_that_goes_on_beyond_its_end_asks_for_its_new_length(make_run, digits):
    run, store = make_run("run", **settings("cosine", "12 steps"))
    with refusing("train.length", remedy={"train.length": "20 steps", "train.lr_period": "19 steps"}):
        continued(run, store, digits, **settings("cosine", "20 steps"))
    longer = continued(run, store, digits, **settings("cosine", "20 steps", train__lr_period="19 steps"))
    assert longer.length == 20


def test_a_run_is_made_shorter_whatever_its_fall(make_run, digits):
    for schedule in ("cosine", "wsd"):
        run, store = make_run(schedule, **settings(schedule, "12 steps"))
        assert continued(run, store, digits, **settings(schedule, "3 steps")).length == 3


def test_a_rate_that_stands_still_within_an_epoch_falls_all_the_same(make_run, digits):
    per_epoch = make_run("any")[0].steps_per_epoch
    by_epoch = {"train__lr_every": "epoch", "train__lr": 1e-3}
    run, _ = make_run("wsd", **settings("wsd", "3 epochs", **by_epoch))
    assert run.config.train.lr_period == f"{2 * per_epoch} steps"
    rates = [learning_rates(run)(epoch * per_epoch) for epoch in range(3)]
    assert rates[1:] == pytest.approx([1e-3, 0.5e-3])
    for schedule, length, changes in (
        ("wsd", "3 epochs", {"train__lr_period": "1 epoch"}),
        ("wsd", "1 epoch", {}),
        ("cosine", "1 epoch", {}),
    ):
        with refusing("train.lr_period", remedy={"train.lr_every": "step"}):
            make_run("never", **settings(schedule, length, **by_epoch, **changes))
    make_run("long enough", **settings("wsd", "3 epochs", **by_epoch, train__lr_period=f"{per_epoch + 1} steps"))
    rising = settings("cosine", "1 epoch", **by_epoch) | {"train__warmup": "20 steps", "train__warmup_start": 0.5}
    with refusing("train.lr_period", remedy={"train.lr_every": "step"}):
        make_run("rising", **rising)
    make_run("a part of a longer cosine", **settings("cosine", "1 epoch", **by_epoch, train__lr_period="9 epochs"))


def test_a_run_that_goes_on_is_told_what_it_may_change(make_run, digits):
    whole = settings("wsd", "3 epochs", train__lr_every="epoch")
    run, store = make_run("run", **whole)
    with refusing("train.lr_period", "1 epoch", {"train.lr_period": None}):
        continued(run, store, digits, **whole, train__lr_period="1 epoch")
    short, store = make_run("short", train__lr_schedule="wsd", train__length="20 steps", train__warmup="10 steps")
    fewer = {"train__lr_schedule": "wsd", "train__length": "5 steps", "train__warmup": "10 steps"}
    with refusing("train.lr_period", "3 steps", {"train.lr_period": None}):
        continued(short, store, digits, **fewer, train__lr_period="3 steps")
    assert continued(short, store, digits, **fewer).length == 5


def test_a_constant_rate_has_no_fall(make_run, digits):
    run, store = make_run("run", **settings("constant", "12 steps"))
    asked = settings("constant", "12 steps", train__lr_period="3 steps")
    for go in (lambda: make_run("new", **asked), lambda: continued(run, store, digits, **asked)):
        with refusing("train.lr_period", "3 steps"):
            go()
