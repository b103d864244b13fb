"""Runs that differ in the seed alone are one setting, with the mean and the deviation of a figure over trainings."""

import csv
import io
import statistics
from dataclasses import replace

import pytest
from test_export import cells_of_latex

from refusals import mistake, refusing
from runs import evaluation, facts
from unstir.insight import tables
from unstir.insight.trainings import settings
from unstir.significance import with_error


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
