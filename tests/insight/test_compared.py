"""Pages of several runs: equal figures side by side, and what to do where figures do not compare."""

import shutil
from dataclasses import replace

import pytest
import reported
from reported import parsed, text_of, train

from unstir.insight import compared
from unstir.insight.write import planned
from unstir.metrics.classifier import networks_for
from unstir.metrics.evaluation import saved, unlike
from unstir.metrics.plan import judge
from unstir.runs.run import Run
from unstir.significance import with_error

pytestmark = pytest.mark.usefixtures("quick")
run, other, store = reported.run, reported.other, reported.store
comparison = reported.comparison


def test_several_runs_are_compared_on_equal_figures(comparison, run, other):
    tree = parsed(comparison)
    text = " ".join(tree.itertext())
    assert "first" in text and "second" in text and "train.lr" in text
    cells = ["".join(cell.itertext()).replace("\xa0", " ") for cell in tree.iter("td")]
    for each in compared.same_protocol([run, other])[0]:
        assert {with_error(it.value, it.error) for it in each.figures.values()} <= set(cells)
    assert "FD-classifier: " in text


def test_figures_are_those_of_the_protocol_by_which_there_are_most(run, other, monkeypatch):
    runs, of = [run, other], {each.path: saved(each) for each in (run, other)}
    for once, each in zip(compared.same_protocol(runs)[0], runs, strict=True):
        of[each.path].append(replace(once, protocol={**once.protocol, "steps": 7}))
    monkeypatch.setattr(compared, "own_evaluations", lambda run: (of[run.path], []))
    first, second = compared.same_protocol(runs)[0]
    assert not unlike(first.protocol, second.protocol)
    num = lambda one: sum(not unlike(one.protocol, each.protocol) for found in of.values() for each in found)
    assert num(first) == max(map(num, of[run.path])) > 2 == num(of[run.path][-1])


def test_held_out_losses_of_runs_are_drawn_together_where_they_compare(comparison, run, other, store, tmp_path):
    chart = "held-out loss, sampling weights"
    assert chart in comparison.read_text(encoding="utf-8")
    for number, changed in enumerate(({"diffusion__predict": "v"}, {"log__held_out_times": 3})):
        unlike = train(store, tmp_path / str(number), **changed)
        path = tmp_path / f"{number}.html"
        compared.write([run, unlike], [store, store], path)
        assert chart not in path.read_text(encoding="utf-8")


def test_runs_that_were_judged_differently_are_shown_and_what_differs_is_said(run, other, store, tmp_path):
    shutil.copytree(other.path, tmp_path / "my other", ignore=shutil.ignore_patterns("evaluation"))
    unlike = Run.open(tmp_path / "my other")
    assert compared.same_protocol([run, unlike])[0] == []
    judge(planned(unlike, store, num=20, seeds=2, networks=networks_for(store)).by_step[-1])
    alike, reasons = compared.same_protocol([run, unlike])
    assert alike == [] and "20 and 24" in reasons[0]
    compared.write([run, unlike], [store, store], tmp_path / "page.html")
    text = text_of(tmp_path / "page.html")
    assert "20 and 24" in text and "train.lr" in text
    assert "first (step" not in text and text.count(", while training") == 2
    assert not any("FD-classifier" in "".join(cell.itertext()) for cell in parsed(tmp_path / "page.html").iter("th"))


def test_names_that_charts_would_read_as_formulas_are_names(run, other, store, tmp_path):
    odd = []
    for source, name in ((run, "lr$1^$"), (other, "_hidden")):
        shutil.copytree(source.path, tmp_path / name)
        odd.append(Run.open(tmp_path / name))
    path = tmp_path / "page.html"
    compared.write(odd, [store, store], path)
    text = " ".join(" ".join(element.itertext()) for element in parsed(path).iter() if str(element.tag).endswith("svg"))
    assert "lr$1^$" in text and "_hidden" in text
