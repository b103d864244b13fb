"""What a plan takes, its protocol, and what an evaluation is: errors, files, and verdicts."""

import json
import math
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.metrics import drawn as drawing
from unstir.metrics import evaluate as module
from unstir.metrics import evaluation
from unstir.metrics import plan as judging
from unstir.metrics.drawn import Drawn, seconds_per_call, usual_chain
from unstir.metrics.evaluate import drawing_seconds, usual_number
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
from unstir.metrics.features import Network, Trust
from unstir.metrics.figures import ClassCount, Figure, figure_effect, verdict
from unstir.metrics.memorisation import Memorisation
from unstir.metrics.plan import Plan, check, held_out_like, search_copies
from unstir.metrics.request import EvaluationRequest
from unstir.pixels import Scale
from unstir.progress import shown_by
from unstir.runs import build
from unstir.runs.config import Kind
from unstir.runs.sections import DiffusionConfig
from unstir.significance import LEVEL, widening


class Clock:
    """A clock that goes on only where it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def later(self, seconds, answer=None):
        self.now += seconds
        return answer


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def model_of(step=7, **changes):
    """What a plan asks of a model."""
    known = {
        "step": step, "process": SimpleNamespace(schedule=build.schedule(DiffusionConfig())), "hashes": "w",
        "marks": {"run": "r", "weights": "w"},
        "guide_name": None, "averaged": True, "arithmetic": "float32", "kind": Kind(),
        "labels": SimpleNamespace(of=lambda index, label, shares: index % 3), "conditions": None, "channels": (),
    }  # fmt: skip
    found = SimpleNamespace(**{**known, **changes})
    found.unloaded = lambda: found
    return found


def store_of(**counts):
    found = {"train": 3000, "held_out": 50, **counts}
    known = {"path": Path("store"), "content_hash": "h", "verify": lambda: None, "scale": Scale(), "shape": (1, 8, 8)}
    return SimpleNamespace(count=lambda split: found[split], **known)


def run_of(**changes):
    config = SimpleNamespace(train=SimpleNamespace(batch_size=32), kind=Kind(), data=SimpleNamespace(flip=True))
    known = {"path": Path("run"), "data": SimpleNamespace(run="r"), "images_seen": lambda step: 32 * step}
    return SimpleNamespace(**{**known, "config": config, **changes})


def plan_of(store=None, chain=None, **changes):
    images = Drawn(run=run_of(), model=model_of(), chain=chain or Chain("heun", steps=5), batch_size=8)
    return Plan(**{"images": images, "store": store or store_of(), "num": 100, **changes})


def test_the_number_is_that_of_the_held_out_images_where_these_are_a_floor_of_as_many():
    assert [usual_number(store_of(held_out=num)) for num in (0, 99, 100, 299, 300, 7000)] == [
        300, 300, 100, 299, 300, 300,
    ]  # fmt: skip
    assert usual_number(store_of(train=200, held_out=150), split="held_out") == 200


@pytest.mark.parametrize(("steps", "taken", "calls"), [(9, 4, 7), (4, 4, 7), (3, 3, 5)])
def test_the_speed_is_that_of_a_call_and_an_image(steps, taken, calls, clock, monkeypatch):
    heard = []

    def batches(model, job):
        heard.append((job.num, job.chain.steps))
        clock.later(100.0 if len(heard) == 1 else 8 * calls * 0.25)  # the first warms up
        return iter(())

    monkeypatch.setattr(drawing, "sample_batches", batches)
    assert seconds_per_call(plan_of(chain=Chain("heun", steps=steps)).images) == pytest.approx(0.25, rel=1e-12)
    assert heard == [(8, 2), (8, taken)]


def test_the_time_is_that_of_the_images_that_are_missing(monkeypatch):
    monkeypatch.setattr(module, "seconds_per_call", lambda images: 0.5)
    monkeypatch.setattr(Drawn, "drawn", lambda self, number: 120 + number)
    one, two = plan_of(num=300), plan_of(num=300, seeds=2)  # nine calls: 4.5 seconds an image
    monkeypatch.setattr(Plan, "known", lambda self: None)
    assert drawing_seconds([one, two]) == pytest.approx(4.5 * (180 + 179 + 178 + 180 + 179), rel=1e-12)
    assert drawing_seconds([replace(one, num=121)]) == pytest.approx(4.5)  # of the first set one
    assert drawing_seconds([replace(one, num=100)]) == 0
    monkeypatch.setattr(Plan, "known", lambda self: "there")
    assert drawing_seconds([one, two]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_of", "train", "reference"),
    [
        ({}, 3000, 2000), ({}, 1500, 1500), ({"num": 2500}, 3000, 2500), ({"reference": 30}, 3000, 30),
        ({"device": "cuda"}, 3000, 0),
    ],
)  # fmt: skip
def test_inception_on_a_cpu_has_a_smaller_reference(request_of, train, reference, monkeypatch):
    pytest.importorskip("torch_fidelity", reason="what computes Inception: pip install '.[fid]'")
    monkeypatch.setattr(build, "device", torch.device)
    request = EvaluationRequest(fid=True, **{"device": "cpu", **request_of})
    assert module._how(store_of(train=train), request, "train")["num_reference"] == reference


def test_the_size_of_what_is_compared_is_taken_where_it_is_free(monkeypatch):
    monkeypatch.setattr(module, "check", lambda plan: None)
    monkeypatch.setattr(module, "networks_for", lambda *given: [])
    others = [
        Evaluation(step=1, images=1, protocol={**plan_of().protocol(), **changes}, figures={})
        for changes in ({"num": 40}, {"num": 90}, {"num": 40, "seeds": 2})
    ]
    monkeypatch.setattr(module, "_evaluated", lambda *given: others)
    request = EvaluationRequest(against=Path("other"))

    def found(request, free):
        (plan,), its = module.ready([plan_of()], request, free)
        return plan.num, plan.seeds, its

    assert found(request, ("num",)) == (90, 3, others[1]) and found(request, ("num", "seeds"))[0] == 90
    assert module.ready([plan_of()], EvaluationRequest())[1] is None
    assert "num is 100" in str(mistake(found, replace(request, num=100), ("num",)))


LEAST = {"num": 12, "seeds": 1, "num_reference": 24}


@pytest.mark.parametrize(
    ("changes", "held_out", "key"),
    [
        ({}, 24, None), ({"num_reference": 0}, 4, None), ({"num_reference": 0}, 3, ""), ({"num": 11}, 24, "num"),
        ({"seeds": 0}, 24, "seeds"),
        ({"num_reference": 23}, 24, "num_reference"), ({"num_reference": 0}, 24, None),
        ({"num_reference": 25}, 24, "num_reference"),
    ],
)  # fmt: skip
def test_the_least_of_an_evaluation(changes, held_out, key, monkeypatch):
    for name in ("check_data", "check_job", "check_writable"):
        monkeypatch.setattr(drawing, name, lambda *given: None)
    plan = plan_of(store_of(held_out=held_out), split="held_out", **{**LEAST, **changes})
    if key is None:
        check(plan)
    else:
        assert mistake(check, plan).key == key


class Named(Network):
    def __init__(self, name, trust=None):
        self.name, self.hash, self.trust = name, name[0], trust


def test_a_plan_by_default_and_its_protocol():
    plan = plan_of(chain=Chain(seed=5))
    assert (plan.seeds, plan.split, plan.num_reference, plan.memorisation) == (3, "train", 0, True)
    assert [plan.images.job(9, number).chain.seed for number in range(3)] == [5, 6, 7]
    protocol = plan.protocol()
    assert protocol["flip"] is False and protocol["num_reference"] == 2000 and protocol["classifier"] is None
    few = replace(plan, store=store_of(train=23), networks=[Named("classifier", Trust(290, 299, 31))])
    assert few.measuring == [] and replace(few, store=store_of(train=24)).measuring == few.networks
    lost = replace(plan, networks=[Named("classifier", Trust(1, 10, 5))])
    assert lost.measuring == [] and lost.protocol()["classifier"]["used"] is False
    about = plan.images.about
    assert (about["step"], about["images"], about["weights"]) == (7, 7 * 32, "w")
    assert [each.tolist()[:4] for each in plan.images.classes(100, 2)] == [[0, 1, 2, 0]] * 2


def test_the_usual_chain_has_no_more_steps_than_there_are():
    run = lambda T: SimpleNamespace(config=SimpleNamespace(diffusion=SimpleNamespace(T=T), kind=Kind()), chain=Chain)
    assert [usual_chain(run(T)).steps for T in (19, 20, 21)] == [19, 20, 20]


def test_held_out_images_of_a_class_are_in_their_order_and_at_most_2000():
    labels = torch.arange(2005) % 2
    store = SimpleNamespace(
        labels=lambda split: labels, count=lambda split: 2005, images=lambda split: torch.arange(2005)
    )
    assert held_out_like(store, 1).tolist() == list(range(1, 2005, 2))
    all_of_them = held_out_like(store, None)
    assert len(all_of_them) == 2000 and bool((all_of_them.diff() > 0).all()) and all_of_them.max() > 2001
    store.labels = lambda split: None
    assert len(held_out_like(store, 1)) == 2000


def test_images_there_are_kept_though_fewer_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, "folder", lambda self, number=0: tmp_path / "job")
    taken = []
    monkeypatch.setattr(drawing, "save_images", lambda model, job, folder: taken.append(job.num))
    monkeypatch.setattr(drawing, "read_images", lambda folder, num: num)
    images = plan_of().images
    assert images.sets(3, 1) == [3] and taken == [3]
    (tmp_path / "job").mkdir()
    for name in ("000000.png", "000004.png", "grid.png"):
        (tmp_path / "job" / name).touch()
    assert images.sets(3, 1) == [3] and taken == [3, 3]
    for number in range(1, 5):
        (tmp_path / "job" / f"{number:06d}.png").touch()
    (tmp_path / "job" / "99999999.png").touch()  # of somebody else
    assert images.sets(3, 1) == [3] and taken == [3, 3, 5]


def test_copies_are_looked_for_by_the_features_of_the_classifier(tmp_path, monkeypatch):
    heard = {}
    monkeypatch.setattr(judging, "memorisation", lambda *given, **how: heard.update(how))
    monkeypatch.setattr(judging, "picture", lambda *given: SimpleNamespace(save=lambda *a, **b: a[0].touch()))
    store, image = store_of(), torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    monkeypatch.setattr(judging, "held_out_like", lambda *given: image)
    store.images = lambda split: image
    networks = [Named("inception"), Named("classifier")]
    plan = plan_of(store, networks=networks, flip=True)
    search_copies(plan, [image], None)
    assert heard["flip"] is True and heard["features"].__self__ is networks[1]
    search_copies(replace(plan, networks=networks[:1]), [image], tmp_path / "evaluation/name-pairs.png")
    assert heard["features"] is None and (tmp_path / "evaluation/name-pairs.png").exists()


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
    save(run, made(math.nan, step=30))
    assert [each.step for each in saved(run)] == [20] and find(run, 10, PROTOCOL) is None
    values = json.loads(whole.read_text())
    assert values["unstir_evaluation"] == evaluation.FORMAT and values["protocol"] == PROTOCOL


def test_weights_are_read_once_for_all_their_evaluations_which_is_told(run):
    model, told = run.model(), []

    def display(job, unit):
        told.append(job)
        return nullcontext(lambda *_: None)

    for num in (10, 20):
        save(run, replace(made(step=model.step, num=num), **model.marks))
    save(run, replace(made(step=model.step, num=30), run=run.data.run))  # of other weights
    save(run, replace(made(step=model.step, num=40), weights=model.weights_sha256))
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
