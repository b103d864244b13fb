"""Pages of several runs: equal figures side by side, and what to do where figures do not compare."""

import re
import shlex
import shutil
from dataclasses import replace

import pytest
import reported
from reported import parsed, text_of, train

from unstir.metrics.classifier import networks_for
from unstir.metrics.evaluation import FID, saved, unlike
from unstir.metrics.figures import in_columns
from unstir.metrics.plan import judge
from unstir.report import compared, tables
from unstir.report.gather import planned
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.train.distill import distilled

pytestmark = pytest.mark.usefixtures("quick")
run, other, store = reported.run, reported.other, reported.store
comparison = reported.comparison


def test_several_runs_are_compared_on_equal_figures(comparison, run, other):
    tree = parsed(comparison)
    text = " ".join(tree.itertext())
    assert "first" in text and "second" in text and "train.lr" in text
    cells = ["".join(cell.itertext()) for cell in tree.iter("td")]
    for each in compared.same_protocol([run, other]).alike:
        assert {texts.whole for texts in in_columns(each.figures.values())} <= set(cells)
    assert re.search(r"FD-classifier: (second is (better|worse) than first|whether second differs from first)", text)


def test_figures_are_those_of_the_protocol_by_which_there_are_most(run, other, monkeypatch):
    runs, of = [run, other], {each.path: saved(each) for each in (run, other)}
    for once, each in zip(compared.same_protocol(runs).alike, runs, strict=True):
        of[each.path].append(replace(once, protocol={**once.protocol, "steps": 7}))
    monkeypatch.setattr(compared, "saved", lambda run: of[run.path])
    first, second = compared.same_protocol(runs).alike
    assert not unlike(first.protocol, second.protocol)
    num = lambda one: sum(not unlike(one.protocol, each.protocol) for found in of.values() for each in found)
    assert num(first) == max(map(num, of[run.path])) > 2 == num(of[run.path][-1])


def test_held_out_losses_of_runs_are_drawn_together_where_they_compare(comparison, run, other, store, tmp_path):
    chart, said = "held-out loss, sampling weights", "Held-out losses are drawn where"
    assert chart in comparison.read_text(encoding="utf-8") and said not in text_of(comparison)
    for number, changed in enumerate(({"diffusion__predict": "v"}, {"log__held_out_times": 3})):
        unlike = train(store, tmp_path / str(number), **changed)
        path = tmp_path / f"{number}.html"
        compared.write([run, unlike], [store, store], path)
        assert chart not in path.read_text(encoding="utf-8") and said in text_of(path)


def test_runs_that_were_judged_differently_are_shown_and_what_differs_is_said(run, other, store, tmp_path, command):
    shutil.copytree(other.path, tmp_path / "my other", ignore=shutil.ignore_patterns("evaluation"))
    unlike = Run.open(tmp_path / "my other")
    assert compared.same_protocol([run, unlike]).reasons == (f"{unlike.path} was not evaluated.",)
    judge(planned(unlike, store, num=20, seeds=2).with_networks(networks_for(store)).by_step[-1])
    sides = compared.same_protocol([run, unlike])
    assert sides.alike == () and sides.reasons == (f"{unlike.path}: num is 20 and 24.",)
    compared.write([run, unlike], [store, store], tmp_path / "page.html")
    text = text_of(tmp_path / "page.html")
    assert "num is 20 and 24" in text and "train.lr" in text and sides.remedies[0] in text
    assert "first (step" not in text and text.count(", while training") == 2
    assert not any("FD-classifier" in "".join(cell.itertext()) for cell in parsed(tmp_path / "page.html").iter("th"))
    status, _, _ = command(*shlex.split(sides.remedies[0])[1:])
    assert status == 0 and len(compared.same_protocol([run, unlike]).alike) == 2


@pytest.mark.parametrize(
    "given", [("--sampler", "heun", "--steps", "5"), ("--no-ema", "--steps", "7", "--eta", "0.5", "--sampler", "ddim")]
)
def test_the_command_that_makes_figures_comparable_does(given, run, other, store, tmp_path, command):
    pair = []
    for source, name in ((run, "a"), (other, "b")):
        shutil.copytree(source.path, tmp_path / name, ignore=shutil.ignore_patterns("evaluation"))
        pair.append(Run.open(tmp_path / name))
    newest = pair[0].saved_steps()[-1]
    full = [step for step, _ in checkpoint.listed(pair[0].checkpoints)][-1]
    assert newest == full
    assert command("evaluate", pair[0].path, "--num", 20, "--seeds", 2, "--dtype", "float32", *given)[0] == 0
    (remedy,) = compared.same_protocol(pair).remedies
    assert command(*shlex.split(remedy)[1:])[0] == 0
    assert len(compared.same_protocol(pair).alike) == 2


def test_figures_of_inception_are_asked_for_by_its_option(run, other, monkeypatch):
    judged_before = saved(run)[-1]
    with_fid = replace(judged_before, figures={**judged_before.figures, FID: judged_before.main()})
    monkeypatch.setattr(compared, "saved", lambda of: [with_fid] if of is run else [])
    (remedy,) = compared.same_protocol([run, other]).remedies
    assert shlex.split(remedy)[:3] == ["unstir", "evaluate", str(other.path)] and remedy.endswith(" --fid")


def test_figures_of_another_average_are_asked_for_by_its_width(run, other, monkeypatch):
    before = saved(run)[-1]
    of_width = replace(before, protocol=before.protocol | {"ema": 0.08})
    monkeypatch.setattr(compared, "saved", lambda of: [of_width] if of is run else [])
    (remedy,) = compared.same_protocol([run, other]).remedies
    assert "--ema-width 0.08" in remedy and "averaged (width 0.08) weights" in tables.protocol(of_width)


def test_figures_of_other_data_or_of_a_network_that_knows_classes_have_no_command(run, other, tmp_path):
    for change, said in (({"content_hash": "0" * 64}, "two data sets"), ({}, "with classes")):
        own = replace(other, data=replace(other.data, **change))
        if not change:
            own = replace(other, config=replace(other.config, model=replace(other.config.model, num_classes=10)))
        shutil.copytree(other.path, tmp_path / said, ignore=shutil.ignore_patterns("evaluation"))
        sides = compared.same_protocol([run, replace(own, path=tmp_path / said)])
        assert sides.remedies == () and said in sides.reasons[0]


def test_figures_of_a_distilled_run_and_of_another_have_no_command(run):
    """Each command would be refused: the samplers of the one are not those of the other."""
    usual, fast = saved(run)[-1], replace(run, config=distilled(run))
    of_fast = replace(usual, protocol=usual.protocol | {"sampler": "consistency", "steps": 2, "calls": 2})
    for judged, bare in ((usual, fast), (of_fast, run)):
        why, command = compared._side(bare, [], judged)
        assert "was not evaluated. " in why and "images that consistency draws" in why and command == ""
    assert compared._side(fast, [], of_fast)[1] and compared._side(run, [], usual)[1]


def test_names_that_charts_would_read_as_formulas_are_names(run, other, store, tmp_path):
    odd = []
    for source, name in ((run, "lr$1^$"), (other, "_hidden")):
        shutil.copytree(source.path, tmp_path / name)
        odd.append(Run.open(tmp_path / name))
    path = tmp_path / "page.html"
    compared.write(odd, [store, store], path)
    text = " ".join(" ".join(element.itertext()) for element in parsed(path).iter() if str(element.tag).endswith("svg"))
    assert "lr$1^$" in text and "_hidden" in text
