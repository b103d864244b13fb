"""What is advised and how it is worded: the doctor's remedies first, said once, in commands that can be pasted."""

import dataclasses
import math
import re
import shlex

import pytest

import runs
from runs import advice, analyse, by_name, evaluation, examined, facts
from unstir.cli import app
from unstir.insight.analysis import GOODNESS, URGENCY, lead, limitations, summary
from unstir.insight.doctor import CHECKS, longer
from unstir.insight.facts import DAMAGED, STEEP
from unstir.insight.findings import Finding, explained
from unstir.insight.gather import FOREIGN
from unstir.insight.statement import brief, count, percent, sentence, times, typed
from unstir.progress import duration
from unstir.significance import LEVEL, widening, with_error


def finding(check, severity="problem"):
    return Finding(severity, "measured", "a new run with `mend.it=1`", 2.0, 1.0, check=check, says=f"{check} is amiss")


def test_the_remedies_of_problems_and_warnings_are_all_that_is_advised():
    findings = explained([finding("brightness"), finding("not-learned", "warning")])
    (name,) = advice(runs.good(), findings)
    mend = by_name(runs.good(), findings)[name]
    assert advice(runs.good()) == ["fewer calls"] and mend.text.endswith("`mend.it=1`.")
    assert mend.figure == "doctor" and name == "mend not-learned"
    assert advice(runs.good(), [finding("refused", "note")]) == ["fewer calls"]


MORE = "more to gain"


def falling_by(rate, moments=runs.MOMENTS, **changes):
    """A run whose held-out loss each doubling of the images lowers by the share ``rate``, as that of its log."""
    curve = lambda images: 0.5 * (1 + images) ** math.log2(1 - rate)
    held_out = runs.held_out(curve=curve, noise=0.002, moments=moments)
    return runs.facts(held_out=held_out, lines=runs.metrics(curve=curve), **changes)


@pytest.mark.parametrize("rate", [0.004, 0.05, 0.09, 0.11, 0.2])
def test_the_page_and_the_doctor_call_the_same_runs_too_short_and_say_it_once(rate):
    known = falling_by(rate)
    found = by_name(known)
    assert (MORE in found) == (0.01 < rate < 0.1)
    assert bool(examined(known)) == (rate > 0.1)
    for each in examined(known):
        assert each.severity == "warning" and each.figure == pytest.approx(rate, abs=0.005) and each.threshold == STEEP


def test_what_a_finished_run_may_still_gain_is_advised_where_its_samples_need_it():
    near, far = (runs.evaluation(fd=fd, memory=runs.copied()) for fd in (0.24, 5.0))
    assert advice(falling_by(0.05)) == [] and advice(falling_by(0.05, by_step=(near,))) == ["next"]
    known = falling_by(0.05, by_step=(far,))
    (note,), advised = examined(known), by_name(known)["longer"].text
    assert '"6000 steps"' in advised and '"5800 steps"' in advised
    assert note.severity == "note" and note.remedy in advised  # the doctor says so too, by the same rule
    damaged = [note, finding("figures", "warning")]
    assert advice(known, damaged) == ["longer", "mend figures"]
    assert summary(analyse(known, damaged))[-1].name == "longer"


def test_a_quick_try_is_to_be_as_long_as_its_recipe():
    quick = {"train__length": "3 steps", "train__warmup": "1 steps", "train__lr_period": "2 steps"}
    assert '"1150 steps"' in longer(facts(step=3, config=quick))


def test_files_of_figures_are_only_deleted_where_nothing_is_missing():
    foreign, damaged = f"a.json {FOREIGN}", f"b.json {DAMAGED}"
    of = lambda *texts, by_step: CHECKS["figures"].run(facts(left_out=texts, by_step=by_step))[0].remedy
    assert of(foreign, by_step=(evaluation(),)).startswith("delete")
    for remedy in (of(foreign, by_step=()), of(foreign, damaged, by_step=(evaluation(),))):
        assert "unstir report" in remedy


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_run_that_is_to_go_on_is_not_called_too_short(rate):
    known = falling_by(rate, config={"train__length": f"{2 * runs.STEPS} steps"})
    found = by_name(known)
    assert found[MORE].verdict == "neutral"
    assert "6,000" in found["longer"].text and examined(known) == []


@pytest.mark.parametrize("on_train", [0.0, 0.3])
def test_a_fall_of_held_out_images_alone_is_no_lack_of_training(on_train):
    """Where the loss of training images does not fall too, more training is no remedy."""
    known = falling_by(0.16)
    *early, last = known.held_out
    stayed = [loss * (1 + on_train) for loss in early[-1]["of_train"]]
    known = dataclasses.replace(known, held_out=(*early, {**last, "of_train": stayed}))
    assert MORE not in by_name(known) and examined(known) == []


@pytest.mark.parametrize("make", [runs.good, runs.over_fitted, runs.diverged, runs.too_short, runs.noise_only])
def test_three_sentences_of_the_analysis_say_how_good_what_is_wrong_and_what_to_do(make):
    statements = analyse(make())
    found = summary(statements)
    assert found[0].topic == "quality" and all(each in statements for each in found)
    advised = [each for each in statements if each.topic == "next"]
    assert found[2:] == advised[:1] and len(found) == (3 if advised else 2)
    verdicts = [
        each.verdict for each in statements if each.topic not in ("quality", "next") and each.verdict in URGENCY
    ]
    assert found[1].verdict == min(verdicts, key=URGENCY.index)


def test_copies_go_before_what_is_merely_worse():
    assert summary(analyse(runs.over_fitted()))[1].topic == "memorisation"


def test_without_figures_the_summary_is_what_there_is():
    assert summary(analyse(facts())) == summary(()) == []


def test_limitations_name_the_numbers_that_the_figures_rest_on():
    text = " ".join(limitations(runs.good()))
    main = runs.good().last.main()
    least = LEVEL * 2**0.5 * main.error * widening(2 * main.estimate.df)
    assert f"about {least:.2g}" in text
    assert "not seen" not in " ".join(limitations(facts(by_step=(without_error(evaluation(seeds=1)),))))


def without_error(of):
    figures = {key: dataclasses.replace(figure, bootstrap=None) for key, figure in of.figures.items()}
    return dataclasses.replace(of, figures=figures)


def held_against_fewer(of):
    figures = {key: dataclasses.replace(figure, num_floor=figure.num_floor // 2) for key, figure in of.figures.items()}
    return dataclasses.replace(of, figures=figures)


@pytest.mark.parametrize(
    ("true", "key", "others"),
    [
        ({"fd": 9.0}, ("excess", "bad"), ""), ({"fd": 9.0, "precision": 0.3}, ("excess", "bad"), ""),
        ({"fd": 0.24}, ("near", "good"), ""),
        ({"fd": 0.24, "precision": 0.3, "recall": 0.2}, ("near", "good"), "(below: precision, recall)"),
        ({"fd": 0.3, "recall": 0.2, "seeds": 1}, ("excess", "undecided"), "(below: recall)"),  # undecided is not alike
        ({"fd": 0.3, "seeds": 1}, ("excess", "undecided"), ""),
        ({"fd": 0.3, "fewer": True}, ("excess", "not compared"), ""),
        ({"fd": 0.3, "accuracy": 0.3, "fewer": True}, ("excess", "not compared"), "(below: class accuracy)"),
        ({"fd": 9.0, "step": 700}, ("excess", "bad"), "They are of step 700, while the run is at step 3,000."),
    ],
)  # fmt: skip
def test_the_first_lines_say_whether_its_images_are_good(true, key, others):
    fewer = true.pop("fewer", False)
    judged = held_against_fewer(evaluation(**true)) if fewer else evaluation(**true)
    known = facts(by_step=(judged,))
    text = lead(known, analyse(known))[0]
    assert text.startswith(GOODNESS[key]) and others in text and (text == GOODNESS[key]) == (not others)


def test_commands_and_settings_can_be_pasted_for_a_run_with_a_space_in_its_name():
    known = [runs.good(), runs.over_fitted(), runs.too_short(), runs.noise_only(), falling_by(0.05), facts()]
    known += [facts(by_step=(evaluation(accuracy=0.5),), config={"model__num_classes": 10, **condition_dropout})
              for condition_dropout in ({}, {"train__condition_dropout": 0.1})]  # fmt: skip
    texts = [it.text for one in known for findings in (None, []) for it in analyse(one, findings)]
    codes = {code for text in texts for code in re.findall("`([^`]+)`", text)}
    commands = {typed(code, "my runs/a") for code in codes if code.startswith("unstir ")}
    assert {shlex.split(command)[1] for command in commands} == {"evaluate", "report", "sample", "train"}
    settings = {f"unstir train {typed(code)}" for code in codes if re.match(r"[a-z]+\.\w+=", code)}
    assert len(settings) >= 2
    for command in commands | settings:
        _, bound, _ = app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
        assert command in settings or "my runs/a" in str(bound.arguments)


SHOWN = [
    (brief, {0.0312: "0.031", 3.21: "3.2", 99.4: "99", 99.6: "100", 104.2: "104", 2956: "2,956", -3.21: "-3.2"}),
    (lambda number: count(number, "image"), {
        0: "0 images", 1: "1 image", 1280: "1,280 images", 999_999: "999,999 images", 1_200_000: "1.2 million images",
        10**9: "1 billion images",
    }),
    (percent, {
        0.0004: "0.04%", 0.026: "2.6%", 0.93: "93%", 0.994: "99.4%", 0.99968: "99.97%", 0.99999: "99.99%", 1.0: "100%",
        7.74: "774%", 15.2: "15 times", 48_000.0: "more than 1,000 times", math.inf: "more than 1,000 times",
    }),
    (times, {
        0.5: "0.50 times", 1.254: "1.25 times", 9.99: "9.99 times", 48.4: "48 times", 1000.0: "1,000 times",
        1e4: "more than 1,000 times", math.nan: "more than 1,000 times",
    }),
    (duration, {
        3.25: "3.2 seconds", 100: "100 seconds", 163: "2.7 minutes", 4138: "69 minutes", 90_000: "25 hours",
        2e7: "231 days", 0: "less than a second", 1: "1 second", 1.04: "1 second", 1.06: "1.1 seconds",
        29: "29 seconds", 200: "3.3 minutes", 4799: "80 minutes", 5976: "100 minutes", 86_400: "24 hours",
        266_500: "3.1 days", 3e9: "34,722 days",
    }),
    (lambda code: typed(code, "my runs/a"), {
        "train.lr=3e-05": "--train.lr 3e-05", "data.flip=True": "--data.flip", "ema=False": "--no-ema",
        "data.flip=False": "--data.no-flip", "/data/a b=c": "/data/a b=c",
        "unstir report RUN": "unstir report 'my runs/a'",
        'unstir train out=RUN train.length="600 steps"': "unstir train --out 'my runs/a' --train.length \"600 steps\"",
        "train.init='it'\"'\"'s/x'": "--train.init 'it'\"'\"'s/x'",
    }),
    (sentence, {
        "the loss rises": "The loss rises.", "train.warmup=200 steps is much.": "train.warmup=200 steps is much.",
        "x_T holds signal.": "x_T holds signal.",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("write", "shown"), SHOWN)
def test_numbers_and_options_are_written_for_readers(write, shown):
    assert {value: write(value) for value in shown} == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.021234, 0.0003, "0.0212 ± 0.0003"), (0.021234, 0.00014, "0.02123 ± 0.00014"),
        (0.0212, 0.00096, "0.0212 ± 0.0010"), (44.8123, 1.96, "45 ± 2"), (344.8, 12.3, "345 ± 12"),
        (1234.5, 3.2, "1,234 ± 3"), (344.8, 45.0, "340 ± 40"), (-0.001, 0.02, "-0.001 ± 0.02"),
        (3.21, 400.0, "3.2 ± 400"),
        (1.23456, None, "1.235"), (1.23456, 0.0, "1.235"), (1.23456, math.nan, "1.235"),
        (1.2e-9, 3e-10, "1.2e-09 ± 3e-10"),
    ],
)  # fmt: skip
def test_a_value_has_the_digits_its_error_allows(value, error, shown):
    assert with_error(value, error) == shown
    if value > 0:
        assert with_error(value, error, sign=True) == f"+{shown}"
        assert with_error(-value, error) == f"-{shown}"
