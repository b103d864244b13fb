"""Runs that differ get analyses that differ, and a run in which nothing happens gets hardly any claim.

The runs are simulated (`runs`), so what is true of each is known.
"""

import dataclasses
import random
import re

import pytest

import runs
from conftest import DISTILLED
from runs import STEPS, advice, analyse, by_name, chains, copied, evaluation, examined, facts, held_out, metrics
from unstir.insight.analysis import lead
from unstir.insight.findings import Finding
from unstir.insight.statement import POINTERS, TITLES, Statement
from unstir.metrics.features import Trust
from unstir.metrics.figures import ClassCount, figure_effect
from unstir.significance import LEVEL, Effect, Shift, with_error

TOPICS = tuple(TITLES)
RUNS = ("good", "over_fitted", "diverged", "too_short", "noise_only", "facts")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", RUNS)
def test_each_sentence_rests_on_its_effect(name, seed):
    known = facts() if name == "facts" else getattr(runs, name)(seed)
    found = analyse(known)
    assert [TOPICS.index(each.topic) for each in found] == sorted(TOPICS.index(each.topic) for each in found)
    missing = set(TOPICS) - {each.topic for each in found}
    assert missing == ({"diversity", "next"} if name == "facts" else set())  # nothing was evaluated
    decided = [each.effect for each in found if each.effect is not None and each.effect.decided]
    for each in found:
        assert each.figure in POINTERS
        assert re.fullmatch(r"[^<>\n]+", each.text) and each.text.count("`") % 2 == 0
        assert each.verdict == "missing" or (each.text[0].isupper() and each.text[-1] == ".")
        assert "nan" not in each.text and "inf " not in each.text and "  " not in each.text
        if each.topic == "next" and each.figure != "doctor" and each.verdict != "undecided":
            assert each.effect in decided


BY_STEP, MORE = "quality by step", "more to gain"


def test_a_good_run():
    found = by_name(runs.good())
    assert found["fall"].verdict == "good" and found["fall"].effect.value == pytest.approx(-0.92, abs=0.03)
    assert found[BY_STEP].verdict == "good" and found["near"].verdict == "good"
    for name in ("gap", "recall"):
        assert found[name].verdict == "undecided", found[name]
    assert examined(runs.good()) == []
    assert advice(runs.good()) == ["fewer calls"]
    assert " steps=20" in found["fewer calls"].text


def test_a_run_that_over_fits():
    known = runs.over_fitted()
    found, (finding,) = by_name(known), examined(known)
    assert finding.check == "overfit" and "checkpoint=188" in finding.remedy
    assert found["gap"].verdict == "bad"
    assert found["gap"].effect.value == pytest.approx(0.08 * (0.3 * 172 / 192 + 0.4), abs=3 * found["gap"].effect.error)
    assert found["recall"].verdict == "bad" and found["precision"].verdict == "undecided"
    assert found["copies"].verdict == "bad" and found["copies"].figure == "neighbours"
    assert advice(known) == ["mend overfit"] and advice(known, []) == ["regularise"]
    text = by_name(known, [])["regularise"].text
    assert "`data.flip=True`" in text and text.count("more images") == 1
    mirrored = facts(held_out=known.held_out, config={"data__flip": True})
    assert "flip" not in by_name(mirrored, [])["regularise"].text


def test_a_run_that_diverges():
    found = by_name(runs.diverged())
    assert examined(runs.diverged()) == []
    assert found[BY_STEP].verdict == "bad" and found["excess"].verdict == "bad"
    assert advice(runs.diverged()) == ["next"]  # its cause is the doctor's to find


def test_a_run_that_was_too_short():
    known = runs.too_short()
    found, (finding,) = by_name(known), examined(known)
    (advised,) = advice(known)
    assert finding.check == "still-falling" and advised.endswith(finding.check)
    assert MORE not in found  # it is said once
    assert found["gap"].verdict == "undecided" and found["excess"].verdict == "bad"


def test_a_fall_too_small_to_matter_is_not_worth_another_run():
    slow = lambda images: 0.1 * (1 + images) ** -0.01
    found = by_name(facts(held_out=held_out(curve=slow, noise=0.002), lines=metrics(curve=slow)))
    assert not {MORE, "longer"} & found.keys()


def test_a_run_that_never_learned():
    worse = lambda images: 1.5
    found = by_name(facts(held_out=held_out(curve=worse), lines=metrics(curve=worse)))
    assert found["fall"].verdict == "bad"


def test_a_run_not_at_its_end_is_to_go_on():
    known = facts(held_out=runs.too_short().held_out, config={"train__length": "6000 steps"})
    assert "step 6,000" in by_name(known)["longer"].text


def test_of_runs_without_any_effect_hardly_a_sentence_claims_one():
    """Two hundred of them, some ten tests each: at two errors one in twenty would claim something."""
    claims, tested = [], 0
    for seed in range(200):
        for each in analyse(runs.noise_only(seed)):
            if each.name == "near":  # which is true of these runs
                continue
            tested += each.effect is not None
            if each.verdict != "undecided":
                claims.append((seed, each.name, each.effect))
    assert tested > 200 * 6
    assert len({seed for seed, *_ in claims}) <= 4, claims


def test_nothing_measured_says_so_and_what_measures_it():
    found = by_name(facts(lines=()))
    assert {each.verdict for each in found.values()} == {"missing"}
    commands = {
        "excess": "`unstir evaluate RUN`",
        "copies": "`unstir evaluate RUN`",
        "enough calls": "`unstir report RUN`",
    }
    for name, command in commands.items():
        assert command in found[name].text, found[name].text


def test_missed_classes_want_guidance():
    at = lambda **true: (evaluation(**true),)
    guided = {"model__num_classes": 10, "train__condition_dropout": 0.1}
    missed = by_name(facts(by_step=at(accuracy=0.7), config=guided))
    assert missed["class accuracy"].verdict == "bad" and missed["class accuracy"].effect.value == pytest.approx(
        -0.27, abs=0.05
    )
    assert "guidance=2" in missed["guidance"].text
    assert "condition_dropout=0.1" in by_name(facts(by_step=at(accuracy=0.7)))["guidance"].text
    distilled = DISTILLED | {"log__held_out_images": 0}
    for config in (distilled, distilled | guided):
        found = by_name(facts(by_step=at(accuracy=0.7), config=config))
        assert found["class accuracy"].verdict == "bad" and "guidance" not in found


def test_samples_nearer_than_new_images_can_be_are_no_success():
    floor = dataclasses.replace(evaluation().figures["classifier/fd"], floor=2.0)
    near = dataclasses.replace(evaluation(), figures={"classifier/fd": floor})
    found = by_name(facts(by_step=(near,)))
    assert found["too near"].verdict == "bad" and "excess" not in found
    assert "near" not in found


def test_a_figure_of_which_higher_is_better_is_judged_the_other_way_round():
    main = {"classifier/coverage": evaluation(coverage=0.6).figures["classifier/coverage"]}
    later = {"classifier/coverage": evaluation(coverage=0.9).figures["classifier/coverage"]}
    steps = [
        dataclasses.replace(evaluation(step=step), figures=figures) for step, figures in ((750, main), (STEPS, later))
    ]
    found = by_name(facts(by_step=tuple(steps)))
    assert found[BY_STEP].verdict == "good" and found[BY_STEP].effect.value > 0
    assert by_name(facts(by_step=tuple(steps[:1])))["excess"].verdict == "bad"
    assert found["excess"].verdict == "undecided" and "near" not in found


def test_classes_that_come_up_too_often_are_bad():
    num = evaluation().protocol["num"]
    usual = evaluation().figures["classifier/accuracy"]
    usual = dataclasses.replace(usual, bootstrap=0.03, floor_error=0.02, num_floor=num)
    for seen, verdict in ((0.3, "bad"), (0.05, "undecided")):
        shares = dataclasses.replace(usual, name="class imbalance", better="lower", by_seed=(seen,) * 3, floor=0.05)
        judged = dataclasses.replace(evaluation(), figures={**evaluation().figures, "classifier/classes": shares})
        assert by_name(facts(by_step=(judged,)))["classes"].verdict == verdict


def test_missing_classes_are_named():
    counts = (ClassCount("cat", 0, 900, 90.0, 1e-40), ClassCount("dog", 80, 900, 90.0, 0.15))
    usual = evaluation().figures["classifier/accuracy"]
    shares = dataclasses.replace(usual, name="class imbalance", better="lower", by_seed=(0.05,), by_class=counts)
    judged = dataclasses.replace(evaluation(), figures={**evaluation().figures, "classifier/classes": shares})
    found = by_name(facts(by_step=(judged,)))["classes"]
    assert found.verdict == "bad" and "cat (0 of 900, " in found.text and "dog" not in found.text


def test_a_floor_of_another_number_of_images_decides_nothing():
    """A distance of fewer images is larger for that alone."""
    usual = evaluation().figures
    fewer = {key: dataclasses.replace(figure, num_floor=figure.num_floor // 2) for key, figure in usual.items()}
    judged = dataclasses.replace(evaluation(), figures=fewer)
    with_them, without = (by_name(facts(by_step=(each,))) for each in (evaluation(), judged))
    assert "near" in with_them and "recall" in with_them
    assert not {"near", "too near", "recall", "precision"} & set(without)
    assert "150 real images" in without["excess"].text and "`num=150`" in without["excess"].text
    assert without["excess"].verdict == "undecided" and without["excess"].effect is None


def test_calls_that_cannot_be_told_apart_are_not_called_enough():
    known = facts(by_chain=chains(known=[(name, calls, 0.43) for name, calls, _ in runs.CHAINS]))
    found = by_name(known)
    assert found["enough calls"].verdict == "undecided"
    assert "num=300 seeds=10" in found["enough calls"].text  # evaluate measures one chain
    many = facts(by_chain=[evaluation(sampler="ddim", calls=calls, fd=0.43, num=500, seeds=10) for calls in (10, 20)])
    assert "seeds=30" in by_name(many)["enough calls"].text  # fewer images tell no more
    between = chains(known=[("ddim", 5, 0.92), ("ddim", 10, 0.72), ("ancestral", 1000, 0.6)])
    found = by_name(facts(by_chain=between))  # ten calls cannot be told from the most, nor from five
    assert found["enough calls"].verdict == "undecided"
    every = facts(by_chain=chains(known=[("ddim", 10, 5.0), ("ancestral", 1000, 0.4)]))
    assert by_name(every)["enough calls"].verdict == "undecided"


def test_a_run_that_failed_states_nothing_about_the_weights_of_before():
    failed, before = Finding("problem", "", "", 1, 0, check="not-finite", says="it failed"), evaluation(step=700)
    known = facts(by_step=(evaluation(step=400), before), by_chain=(before, evaluation(step=700, calls=50)))
    assert {"precision", BY_STEP} <= by_name(known, []).keys()
    found = by_name(known, [failed])
    assert {it.verdict for it in found.values() if it.topic in ("quality", "diversity", "sampling")} == {"missing"}
    assert BY_STEP not in found and "of step 700" in lead(known, list(found.values()))[0]


def test_samples_that_lie_farther_from_training_images_than_new_ones_do_are_told_from_real_ones():
    def of(share, p):
        (space,) = copied().spaces
        space = dataclasses.replace(space, distance=Shift(share, 0.03, p))
        return by_name(facts(by_step=(evaluation(memory=dataclasses.replace(copied(), spaces=(space,))),)))

    far = of(0.34, 1 - 1e-7)
    assert far["distance"].verdict == "bad" and "34 ± 3% of comparisons" in far["distance"].text
    assert "distance" not in of(0.45, 0.95) and "distance" not in of(0.9, 1e-12)


def test_copies_are_named_and_their_absence_is_no_proof():
    of = lambda memory: by_name(facts(by_step=(evaluation(memory=memory),)))
    some = of(copied(0.05))
    assert some["copies"].verdict == "bad" and some["copies"].effect.value == pytest.approx(45, abs=6)
    assert "900 samples" in some["copies"].text
    none = of(copied())
    assert none["copies"].verdict == "undecided"
    assert of(copied(0.4, num=10))["copies"].verdict == "undecided"


def test_one_image_set_without_an_error_decides_nothing():
    single = evaluation(seeds=1)
    figures = {key: dataclasses.replace(each, bootstrap=None, floor_error=None) for key, each in single.figures.items()}
    known = facts(by_step=(dataclasses.replace(single, figures={"classifier/fd": figures["classifier/fd"]}),))
    found = by_name(known)
    assert found["excess"].verdict == "undecided"


def test_runs_looked_at_less_than_usual():
    without_train, without_held_out = (
        tuple({**line, split: None} for line in held_out()) for split in ("of_train", "of_held_out")
    )
    found = by_name(facts(held_out=without_train))
    assert found["fall"].verdict == "good" and found["gap"].verdict == "missing"
    fewer = {**held_out()[-1], "of_held_out": held_out()[-1]["of_held_out"][:9]}
    for lines in (without_held_out, held_out()[-1:], (*held_out()[:-1], fewer)):
        found = by_name(facts(held_out=lines))["fall"]
        assert found.verdict == "missing"
    other_number = (*held_out(num=64)[:3], *held_out(num=128)[3:])
    assert "12,032 images to" in by_name(facts(held_out=other_number))["fall"].text
    last_only = (*held_out(num=64)[:-1], held_out(num=128)[-1])
    assert by_name(facts(held_out=last_only))["fall"].effect is None  # no two measurements of the same images


def test_a_sentence_cannot_claim_more_than_its_effect():
    weak, strong = (Effect(value=1.0, error=1.0, z=z) for z in (LEVEL - 0.1, LEVEL + 0.1))
    usual = {"name": "x", "topic": "fit", "text": "It is so.", "figure": "losses"}
    for verdict, effect in (("good", weak), ("bad", None), ("neutral", weak), ("undecided", strong)):
        with pytest.raises(ValueError, match="x: "):
            Statement(**usual, verdict=verdict, effect=effect)


def judged(figures=None, protocol=None, parts=None, **true):
    """Facts of one evaluation, with other values of its main figure or in its protocol."""
    made = evaluation(**true)
    main = dataclasses.replace(made.figures["classifier/fd"], **(figures or {}))
    made = dataclasses.replace(
        made, figures={**made.figures, "classifier/fd": main}, protocol={**made.protocol, **(protocol or {})}
    )
    return facts(by_step=(made,), **(parts or {}))


def test_a_figure_far_from_real_stands_beside_theirs():
    known = judged(fd=14.0)
    found, main = by_name(known)["excess"], known.last.main()
    assert with_error(main.value, main.error) in found.text and with_error(main.floor, main.floor_error) in found.text
    assert found.verdict == "bad" and found.effect.decided


def test_as_good_as_real_is_called_good_only_where_it_is_decidedly_near():
    near = by_name(judged({"floor": 0.24, "floor_error": 0.01}, fd=0.24, seeds=10))["near"]
    assert near.verdict == "good" and near.effect.value > LEVEL * near.effect.error
    rough = by_name(judged({"floor": 0.24, "floor_error": 0.2, "bootstrap": 0.3}, fd=0.24))
    assert "near" not in rough and rough["excess"].verdict == "undecided"


def test_why_the_classifier_is_not_used_is_said():
    entry = Trust(40, 299, 31).entry()
    found = by_name(judged(protocol={"classifier": entry, "networks": {}}))
    assert found["classifier"].verdict == "neutral"


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
