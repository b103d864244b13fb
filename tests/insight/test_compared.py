"""Pages of several runs and trainings: equal figures side by side, and what to do where figures do not compare."""

import csv
import io
import shutil
import statistics
from dataclasses import replace

import pytest
import reported
from reported import parsed, text_of, train
from test_charts import cells_of_latex

from refusals import mistake, refusing
from runs import evaluation, facts
from unstir.insight import compared, tables
from unstir.insight.tables import settings
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
    judge(planned(unlike, store, num=20, seeds=2, networks=networks_for(store))[0][-1])
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


def trained(name, seed, **changes):
    of = facts(name=name, by_step=(evaluation(seed=seed, **changes),))
    return replace(of, run=replace(of.run, config=replace(of.config, seed=seed)))


@pytest.fixture
def runs():
    """Three trainings of one setting, two of another."""
    other = [trained(f"wide-{seed}", seed, fd=0.4) for seed in (0, 1)]
    widened = [
        replace(it, run=replace(it.run, config=replace(it.config, loss=replace(it.config.loss, weighting="min_snr"))))
        for it in other
    ]
    return [trained(f"plain-seed{seed}", seed) for seed in (0, 1, 2)] + widened


def test_a_setting_has_the_mean_and_deviation_over_its_trainings(runs):
    found = settings(runs)
    assert [(it.name, len(it.evaluations)) for it in found] == [("plain", 3), ("wide", 2)]
    values = [run.last.figures["classifier/fd"].value for run in runs[:3]]
    assert found[0].values("fd") == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert found[0].values("classifier/fd") == found[0].values("fd")


def test_one_training_has_no_deviation_and_its_setting_is_not_called_by_its_seed(runs):
    alone = settings([trained("1-0", 0), *runs[3:]])
    assert [(it.name, len(it.evaluations)) for it in alone] == [("1", 1), ("wide", 2)]
    figure = alone[0].evaluations[0].figures["classifier/fd"]
    assert alone[0].values("fd") == (figure.value, None)
    assert tables.trainings(alone[:1], ["fd"])[0] == ["1", "1", with_error(figure.value, None)]
    names = [settings([trained(*pair)])[0].name for pair in (("a-7", 7), ("b-seed3", 3), ("c-3", 4), ("d-50", 0))]
    assert names == ["a", "b", "c-3", "d-50"]


def test_runs_of_other_data_steps_or_settings_are_settings_of_their_own(runs):
    first, second, *_ = runs
    data = replace(second, run=replace(second.run, data=replace(second.data, content_hash="other")))
    step = replace(second, by_step=(replace(second.last, step=12),))
    for other in (data, step, runs[3]):
        assert len(settings([first, other])) == 2
    assert [it.name for it in settings([first, data])] == ["plain-seed0", "plain-seed1"]
    assert "300 and 100" in str(mistake(settings, [first, trained("few", 0, num=100)]))


def test_the_table_has_a_row_for_each_setting_and_the_figures_asked_for(runs, tmp_path):
    files = tables.export(tmp_path, runs, ["fd", "coverage"])
    rows = list(csv.reader(io.StringIO(files[0].read_text())))
    assert rows[0][:3] == ["setting", "trainings", "FD-classifier"] and len(rows) == 3
    assert float(rows[1][2]) == settings(runs)[0].values("fd")[0]
    latex = files[2].read_text().splitlines()
    heads, plain, wide = (cells_of_latex(line) for line in latex if " & " in line)
    assert heads == ["setting", "trainings", "FD-classifier", "coverage-classifier"]
    assert plain[:2] == ["plain", "3"] and wide[:2] == ["wide", "2"] and "±" in plain[2]
    assert "over trainings" in files[1].read_text()
    assert all(tables.is_ours(file.suffix, file.read_bytes()) for file in files)
    with refusing("figures", "sharpness"):
        tables.export(tmp_path, runs, ["sharpness"])
