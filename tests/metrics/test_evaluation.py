"""What a judgement is: errors, protocols that must agree, files, and verdicts."""

import json
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest

from refusals import mistake, refusing
from unstir.metrics import evaluation
from unstir.metrics.evaluation import (
    FID,
    SHARES,
    Evaluation,
    best_match,
    check_alike,
    describe,
    differences,
    find,
    own,
    save,
    saved,
    unlike,
)
from unstir.metrics.figures import ClassCount, Figure, figure_effect, verdict
from unstir.metrics.memorisation import Memorisation
from unstir.progress import shown_by
from unstir.significance import LEVEL, widening

PROTOCOL = {
    "num": 100, "seeds": 3, "seed": 0, "split": "train", "num_reference": 1498, "data": "d", "sampler": "ddim",
    "steps": 20, "calls": 20, "ema": True, "dtype": "float32", "networks": {"classifier": "c" * 64},
}  # fmt: skip


def made(value=1.0, step=10, **protocol):
    figure = Figure(name="FD-classifier", better="lower", by_seed=(value - 0.1, value, value + 0.1), floor=0.2)
    protocol = {**PROTOCOL, **protocol}
    return Evaluation(
        step=step, images=step * 8, weights="w" * 64, protocol=protocol, figures={"classifier/fd": figure}
    )


def apart(first, second, *options):
    """[(key, value of the first, value of the second)] of what differs."""
    return [tuple(text.split()[::2]) for text in unlike(first, second, *options)]


def test_protocols_that_differ_are_refused_naming_what_differs():
    a, b = made(), made(num=50, sampler="unipc")
    assert apart(a.protocol, b.protocol) == [("num", "100", "50"), ("sampler", "ddim", "unipc")]
    assert unlike(a.protocol, b.protocol, ("sampler", "num")) == []
    assert apart(a.protocol, {k: v for k, v in PROTOCOL.items() if k != "ema"}) == [("ema", "yes", "none")]
    check_alike(a.protocol, made(step=20).protocol)  # other weights are what is compared
    for other in (b, made(networks={"classifier": "e" * 64}), made(label=SHARES), made(label=SHARES, data="e")):
        assert mistake(differences, a, other).allowed.endswith("; ".join(unlike(a.protocol, other.protocol)))


def test_options_count_for_the_samplers_that_have_them_and_a_sampler_may_be_unknown():
    ddim, ancestral = {**PROTOCOL, "eta": 0.5}, {**PROTOCOL, "sampler": "ancestral", "variance": "auto"}
    assert apart(ddim, ancestral) == [("sampler", "ddim", "ancestral")]
    assert apart(ddim, {**PROTOCOL, "eta": 0.0}) == [("eta", "0.5", "0.0")]
    assert unlike(ddim, {**ddim, "variance": "auto"}) == []  # as files had it, and without effect
    assert apart(ddim, PROTOCOL) == [("eta", "0.5", "none")]
    assert apart(PROTOCOL, {**PROTOCOL, "sampler": "mine"}) == [("sampler", "ddim", "mine")]


def test_a_difference_is_decided_at_the_level_of_all_tests():
    a, b = made(1.0).figures["classifier/fd"], made(1.5).figures["classifier/fd"]
    error = (2 * (0.1 / 3**0.5) ** 2) ** 0.5 * widening(4.0)  # Welch: 2 + 2 degrees of freedom
    change = figure_effect(b, a)
    assert (change.value, change.error) == (pytest.approx(-0.5), pytest.approx(error))
    assert verdict(change, "lower") == "undecided" and abs(change.errors) < LEVEL
    for gap, said in ((0.98, "undecided"), (1.02, "better")):
        other = made(1.0 + gap * LEVEL * error).figures["classifier/fd"]
        assert verdict(figure_effect(other, a), "lower") == said
    far = made(3.0).figures["classifier/fd"]
    assert [verdict(figure_effect(far, a), better) for better in ("lower", "higher")] == ["better", "worse"]
    assert [verdict(figure_effect(a, far), better) for better in ("lower", "higher")] == ["worse", "better"]
    alone = Figure(name="x", better="lower", by_seed=(9.0,))
    assert verdict(figure_effect(alone, a), "lower") == "undecided"
    (line,) = differences(made(1.0), made(3.0))
    numbers = ["1.00", "0.06", "3.00", "0.06", "-2.0", f"{error:.1f}"]
    assert re.findall(r"-?\d\.\d+", line) == numbers and line.endswith(": better")
    without = [replace(made(value), figures={"classifier/fd": replace(a, by_seed=(value,))}) for value in (1.0, 3.0)]
    (line,) = differences(*without)
    assert re.findall(r"-?\d+", line) == ["1", "3", "-2"] and line.endswith(": undecided")


def test_the_match_of_a_run_is_the_newest_of_the_same_protocol():
    others = [made(3.0, step=5), made(2.0, step=10), made(1.0, step=20, calls=50)]
    assert best_match(PROTOCOL, others, "runs/b").figures == others[1].figures
    assert "num is 7" in str(mistake(best_match, {**PROTOCOL, "num": 7}, others, "runs/b"))
    with refusing("against", "runs/b"):
        best_match(PROTOCOL, [], "runs/b")


NO_COPIES = Memorisation(spaces=(), verdict="none", num=100, num_train=8, num_held_out=2, flip=False)


def test_what_is_saved_is_read_again_and_found_by_its_protocol(make_run):
    run, _ = make_run()
    first = replace(
        made(), figures={"classifier/fd": replace(made().figures["classifier/fd"], infinite=(0.5, 0.1))},
        memorisation=NO_COPIES,
    )  # fmt: skip
    later, other = made(step=30), made(num=50)
    for each in (later, first, other):
        save(run, each)
    assert saved(run) == [*sorted([first, other], key=Evaluation.name), later]
    assert find(run, 10, PROTOCOL) == first and find(run, 30, PROTOCOL) == later
    assert find(run, 20, PROTOCOL) is None and find(run, 10, {**PROTOCOL, "dtype": "bfloat16"}) is None


@pytest.mark.parametrize("spoil", ["", "{", "[1]", '{"unstir_evaluation": 1}', '{"unstir_evaluation": 999}'])
def test_damaged_files_and_those_of_another_format_are_left_out(make_run, spoil):
    run, _ = make_run()
    path = save(run, made())
    whole = save(run, made(step=20))
    path.write_text(spoil)
    assert [each.step for each in saved(run)] == [20] and find(run, 10, PROTOCOL) is None
    values = json.loads(whole.read_text())
    assert values["unstir_evaluation"] == evaluation.FORMAT and values["protocol"] == PROTOCOL


def test_weights_are_read_once_for_all_their_evaluations_which_is_told(run):
    model, told = run.model(), []

    def display(job, unit):
        told.append(job)
        return nullcontext(lambda *_: None)

    for num in (10, 20):
        save(run, replace(made(step=model.step, num=num), weights=model.weights_sha256))
    save(run, made(step=model.step, num=30))
    with shown_by(display):
        for _ in range(2):
            assert sorted(it.protocol["num"] for it in own(run)) == [10, 20]
    assert told == ["reading weights"]


def test_what_is_printed_has_the_protocol_and_the_bounds():
    text = describe(made(1.25))
    numbers = ["10", "80", "0", "3", "100", "20", "20", "1,498"]
    assert re.findall(r"\b[\d,]*\d\b", text.splitlines()[0]) == numbers, text
    assert all(
        words in text
        for words in ("averaged weights", "by ddim", "float32", "of the train split", "classifier " + "c" * 12)
    )
    assert text.splitlines()[2].split()[:4] == ["FD-classifier", "1.25", "±", "0.06"] and "0.2" in text.splitlines()[2]


def test_missing_classes_are_printed():
    counts = (ClassCount("cat", 0, 900, 90.0, 1e-40), ClassCount("dog", 80, 900, 90.0, 0.15))
    judged = made()
    shares = replace(judged.figures["classifier/fd"], by_class=counts)
    text = describe(replace(judged, figures={**judged.figures, "classifier/classes": shares}))
    assert "cat (0 of 900, 90" in text and "dog" not in text


def test_fid_is_the_main_figure_where_it_was_measured():
    both = made()
    fid = Figure(name="FID", better="lower", by_seed=(5.0,))
    assert both.main().name == "FD-classifier"
    assert replace(both, figures={**both.figures, FID: fid}).main() == fid
