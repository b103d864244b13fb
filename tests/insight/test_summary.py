"""What is read in a hurry: three sentences of the analysis, the worst first, and what the figures cannot say."""

import dataclasses

import pytest

from runs import analyse, diverged, evaluation, facts, good, noise_only, over_fitted, too_short
from unstir.insight.analysis import GOODNESS, URGENCY, lead, limitations, summary
from unstir.significance import LEVEL, widening


@pytest.mark.parametrize("make", [good, over_fitted, diverged, too_short, noise_only])
def test_three_sentences_of_the_analysis_say_how_good_what_is_wrong_and_what_to_do(make):
    statements = analyse(make())
    found = summary(statements)
    assert found[0].topic == "quality" and all(each in statements for each in found)
    advised = [each for each in statements if each.topic == "next"]
    assert found[2:] == advised[:1] and len(found) == (3 if advised else 2)
    verdicts = [each.verdict for each in statements if each.topic not in ("quality", "next")]
    assert found[1].verdict == min(verdicts, key=URGENCY.index)


def test_copies_go_before_what_is_merely_worse():
    assert summary(analyse(over_fitted()))[1].topic == "memorisation"


def test_without_figures_the_summary_is_what_there_is():
    assert 1 <= len(summary(analyse(facts()))) <= 3 and summary(()) == []


def test_limitations_name_the_numbers_that_the_figures_rest_on():
    text = " ".join(limitations(good()))
    main = good().last.main()
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
