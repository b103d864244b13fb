"""How many images an evaluation takes, how long that will be, and what of it is there already: without a network."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.metrics import evaluate as evaluating
from unstir.metrics import evaluate_run as module
from unstir.metrics import judgement
from unstir.metrics.evaluate import Plan, usual_chain
from unstir.metrics.evaluate_run import evaluate_run, fitting, seconds_per_call, sized
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.features import Awaited, Network, Trust
from unstir.metrics.judgement import held_out_like
from unstir.metrics.known import as_far_as_known
from unstir.metrics.request import EvaluationRequest
from unstir.runs import build
from unstir.runs.sections import DiffusionConfig

SIZES = (100, 200, 300, 500, 1000, 2000, 5000, 10_000)


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
    counts = {"train": 3000, "held_out": 50}
    known = {
        "step": step, "process": SimpleNamespace(schedule=build.schedule(DiffusionConfig())), "hashes": "w",
        "data": SimpleNamespace(counts=counts, content_hash="h"), "guide_name": None, "averaged": True,
        "arithmetic": "float32",
    }  # fmt: skip
    found = SimpleNamespace(**{**known, **changes})
    found.unloaded = lambda: found
    return found


def store_of(**counts):
    count = {"train": 3000, **counts}.get
    return SimpleNamespace(count=count, path=Path("store"), verify=lambda: None)


def plan_of(**changes):
    return Plan(model=model_of(), job=Job(num=100, chain=Chain("heun", steps=5)), **changes)


def test_the_number_is_the_most_that_fit_and_no_more_than_are_held_out():
    none = store_of(held_out=99)  # too few to be a floor of equal number: they limit nothing
    assert [fitting(2.0 * size, 2.0, none) for size in SIZES] == list(SIZES)
    assert [fitting(2.0 * size - 1, 2.0, none) for size in SIZES] == [100, *SIZES[:-1]]
    assert fitting(1e9, 1.0, none) == fitting(1e9, 1.0, store_of(held_out=20_000)) == 10_000
    for held_out in (100, 101, 299, 7000):
        assert fitting(1e9, 1.0, store_of(held_out=held_out)) == held_out
    assert fitting(0.0, 1.0, store_of(held_out=150)) == 100
    assert fitting(1e9, 1.0, store_of(train=400, held_out=150), split="held_out") == 400


@pytest.mark.parametrize(("steps", "taken", "calls"), [(9, 4, 7), (4, 4, 7), (3, 3, 5)])
def test_the_speed_is_that_of_a_call_and_an_image(steps, taken, calls, clock, monkeypatch):
    heard = []

    def batches(model, job):
        heard.append((job.num, job.chain.steps))
        clock.later(100.0 if len(heard) == 1 else 8 * calls * 0.25)  # the first warms up
        return iter(())

    monkeypatch.setattr(module, "sample_batches", batches)
    job = Job(num=1000, chain=Chain("heun", steps=steps), batch_size=8)
    assert seconds_per_call(model_of(), job) == pytest.approx(0.25, rel=1e-12)
    assert heard == [(8, 2), (8, taken)]


@pytest.fixture
def measured(monkeypatch):
    """A network call takes half a second; nothing was evaluated before, and 120 images of each seed were drawn."""
    monkeypatch.setattr(module, "seconds_per_call", lambda model, job: 0.5)
    monkeypatch.setattr(module, "saved", lambda run: [])
    monkeypatch.setattr(module, "find", lambda *asked: None)
    monkeypatch.setattr(module, "_count", lambda model, job: 120 + job.chain.seed)


def test_the_time_is_that_of_the_images_that_are_missing(measured):
    one, two = plan_of(), plan_of(seeds=2)  # nine calls: 4.5 seconds an image
    plans, drawing = sized(None, store_of(held_out=99), [one, two], 0, 300 * 4.5 * 5)
    assert [plan.job.num for plan in plans] == [300, 300]
    assert drawing == pytest.approx(4.5 * (180 + 179 + 178 + 180 + 179), rel=1e-12)
    assert sized(None, store_of(held_out=99), [one, two], 0, 300 * 4.5 * 5 - 1)[0][0].job.num == 200
    assert sized(None, store_of(held_out=99), [one], 121, 0.0)[1] == pytest.approx(4.5)  # of the first seed one


def test_what_was_evaluated_takes_no_time(measured, monkeypatch):
    monkeypatch.setattr(module, "find", lambda run, step, protocol: "there")
    plans, drawing = sized(None, store_of(held_out=99), [plan_of()], 50, 0.0)
    assert drawing == 0 and plans[0].job.num == 50


def evaluation(**protocol):
    return Evaluation(step=1, images=1, protocol={**plan_of().protocol(), **protocol}, figures={})


def test_the_number_of_before_is_the_most_of_one_of_the_plans():
    plans = [plan_of(), plan_of(seeds=2)]
    known = [evaluation(num=40), evaluation(num=30, seeds=2), evaluation(num=90, seeds=4)]
    assert module.known_number(plans, known) == 40 and module.known_number(plans[1:], known) == 30
    assert module.known_number(plans, known[2:]) == module.known_number(plans, []) == 0


def test_what_an_awaited_network_will_tell_is_taken_from_the_other():
    mine = {"networks": {"classifier": "", "inception": "i"}, "num_reference": 9}
    used = {"networks": {"classifier": "c"}, "classifier": {"used": True}, "num_reference": 5}
    assert as_far_as_known(mine, used) == {
        "networks": {"classifier": "c", "inception": "i"}, "classifier": {"used": True}, "num_reference": 9,
    }  # fmt: skip
    unused = {**used, "networks": {}, "classifier": {"used": False}}
    found = as_far_as_known(mine, unused)
    assert found["networks"] == {"inception": "i"} and found["num_reference"] == 5
    trained = {"networks": {"classifier": "d"}, "num_reference": 9}
    assert as_far_as_known(trained, used) == trained


def test_images_that_were_drawn_are_counted_by_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "name_of", lambda model, job: "job")
    model = SimpleNamespace(folder=tmp_path)
    assert module._count(model, None) == 0
    for folder, names in (("job-1", ("000000.png", "grid.png")), ("job-2", ("000000.png", "000001.png", "000002.txt"))):
        (tmp_path / "generated" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "generated" / folder / name).touch()
    assert module._count(model, None) == 2


def test_minutes_above_0_are_asked_for_and_are_seconds_times_60(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"minutes=0\.0 must be more than 0"):
        evaluate_run(tmp_path, EvaluationRequest(minutes=0.0))
    with pytest.raises(UserError, match="holds no run"):
        evaluate_run(tmp_path, EvaluationRequest(minutes=0.5))
    heard, said = [], []
    monkeypatch.setattr(module, "sized", lambda *given: heard.append(given) or (given[2], 90.0))
    monkeypatch.setattr(judgement, "preparing_seconds", lambda store: 30.0)
    for num in (0, 40):
        module._sized(None, store_of(), [plan_of()], 40, EvaluationRequest(num=num, minutes=2.5), said.append)
    assert heard[0][3:5] == (40, 150)
    assert said[0].startswith("about 30 seconds to train the classifier")
    drawing = "1 x 3 x 100 images, about 90 seconds to draw those still missing, and then they are measured"
    assert said[1::2] == [f"{drawing}; --num takes fewer", drawing]


@pytest.mark.parametrize(
    ("request_of", "train", "reference", "num"),
    [
        ({}, 3000, 2000, 100), ({}, 1500, 1500, 100), ({"num": 2500}, 3000, 2500, 2500),
        ({"reference": 30}, 3000, 30, 100), ({"device": "cuda"}, 3000, 0, 100),
    ],
)  # fmt: skip
def test_inception_on_a_cpu_has_a_smaller_reference(request_of, train, reference, num, monkeypatch):
    monkeypatch.setattr(module, "_models", lambda *given: [model_of(1), model_of(2)])
    monkeypatch.setattr(judgement, "networks_there", lambda store: [])
    monkeypatch.setattr(module, "usual_chain", lambda run: Chain())
    monkeypatch.setattr(module, "usual_labels", lambda *given: {})
    monkeypatch.setattr(judgement.build, "device", torch.device)
    run = SimpleNamespace(labels=SimpleNamespace(number=lambda label: None), config=SimpleNamespace(imported=""))
    request = EvaluationRequest(fid=True, **{"device": "cpu", **request_of})
    plans = module._plans(run, store_of(train=train), request, lambda sentence: None)
    assert [(plan.num_reference, plan.job.num, plan.model.step) for plan in plans] == [
        (reference, num, 1), (reference, num, 2),
    ]  # fmt: skip
    assert plans[0].networks == (Awaited("inception-v3-compat", judgement.SHA256),)
    (alone, _) = module._plans(
        run, store_of(train=train), replace(request, features=Path("own")), lambda sentence: None
    )
    assert alone.networks == (Awaited("inception-v3-compat"),)


def test_all_steps_but_the_guide_itself_are_evaluated():
    def run_of(guide):
        return SimpleNamespace(
            path=Path("run"), saved_steps=lambda: [1, 2, 3], newest_step=lambda: 3,
            model=lambda step=None, **how: (step, how["ema"], how["guide"]), guide=lambda name, say, **how: guide,
        )  # fmt: skip

    def steps(guide=None, **asked):
        request = EvaluationRequest(guide=guide and "guide", **{"checkpoint": "all", **asked})
        return [step for step, *_ in module._models(run_of(guide), request, lambda sentence: None)]

    own, other = (SimpleNamespace(folder=Path(name), step=2) for name in ("run", "other"))
    assert (steps(), steps(own), steps(other)) == ([1, 2, 3], [1, 3], [1, 2, 3])
    assert steps(checkpoint="2") == [2] and steps(checkpoint="newest") == [None]
    request = EvaluationRequest(checkpoint="2", ema=False)
    assert module._models(run_of(None), request, lambda sentence: None)[0][1] is False


def test_the_newest_of_several_steps_is_compared_by_the_network_that_was_loaded(monkeypatch):
    plans = [Plan(model=model_of(step), job=Job(num=100, chain=Chain()), networks=(Awaited("a"), Awaited("b")))
             for step in (1, 2)]  # fmt: skip
    own, other = (SimpleNamespace(path=Path(name), newest_step=lambda: 2) for name in ("own", "other"))
    heard, loaded = [], Awaited("loaded", "l")
    for name, answer in (
        ("installed", None), ("with_store", (own, SimpleNamespace(content_hash="d"))), ("check", None),
        ("inception", loaded), ("_plans", plans),
        ("evaluated", ([evaluation(num=40), evaluation(num=90)], "other")),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda *given, answer=answer, **how: answer)
    monkeypatch.setattr(module.Run, "open", lambda path: own if path == Path("own") else other)
    monkeypatch.setattr(module, "known_number", lambda plans, known: heard.append(plans[0].model.step) or len(plans))
    monkeypatch.setattr(module, "match", lambda plan, theirs, against, **how: (plan.model.step, how))
    monkeypatch.setattr(module, "_sized", lambda run, store, plans, num, *given: heard.append(num) or plans)
    monkeypatch.setattr(module, "prepared", lambda store, plans, showing: plans)
    monkeypatch.setattr(module, "evaluate", lambda run, store, plan, say, showing: (plan.model.step, plan.networks))
    monkeypatch.setattr(module, "differences", lambda last, rival: [last, rival])
    done = []
    found, words = evaluate_run(Path("own"), EvaluationRequest(fid=True, against=Path("other")), finished=done.append)
    networks = (plans[0].networks[0], loaded)
    assert found == done == [(1, networks), (2, networks)] and words == [found[1], (2, {})]
    assert heard == [2, 1]  # the number of the last plan alone


LEAST = {"num": 12, "seeds": 1, "num_reference": 24}


@pytest.mark.parametrize(
    ("changes", "held_out", "words"),
    [
        ({}, 24, None), ({}, 23, "has 23 held_out images, too few to compare with: it takes 24"),
        ({"num": 11}, 24, "num=11 must be at least 12"), ({"seeds": 0}, 24, "seeds=0 must be at least 1"),
        ({"num_reference": 23}, 24, "num_reference=23 is outside 24..24"), ({"num_reference": 0}, 24, None),
        ({"num_reference": 25}, 24, "num_reference=25 is outside 24..24"),
    ],
)  # fmt: skip
def test_the_least_of_an_evaluation(changes, held_out, words, monkeypatch):
    for name in ("check_data", "check_job", "check_writable"):
        monkeypatch.setattr(evaluating, name, lambda *given: None)
    asked = {**LEAST, **changes}
    plan = plan_of(seeds=asked["seeds"], num_reference=asked["num_reference"], split="held_out")
    plan = replace(plan, job=replace(plan.job, num=asked["num"]))
    run = SimpleNamespace(path=Path("run"), data=None)
    if words is None:
        evaluating.check(run, store_of(held_out=held_out), plan)
    else:
        with pytest.raises(UserError, match=words):
            evaluating.check(run, store_of(held_out=held_out), plan)


def test_a_plan_by_default_and_its_protocol():
    plan = plan_of()
    assert (plan.seeds, plan.split, plan.num_reference, plan.memorisation) == (3, "train", 0, True)
    assert [job.chain.seed for job in evaluating.jobs(replace(plan, job=replace(plan.job, chain=Chain(seed=5))))] == [
        5, 6, 7,
    ]  # fmt: skip
    protocol = plan.protocol()
    assert protocol["flip"] is False and protocol["num_reference"] == 2000 and protocol["classifier"] is None
    lost = Awaited("classifier", "c")
    object.__setattr__(lost, "trust", Trust(1, 10, 5))
    assert replace(plan, networks=[lost]).measuring == []


def test_the_usual_chain_has_no_more_steps_than_there_are():
    run = lambda T: SimpleNamespace(
        config=SimpleNamespace(diffusion=SimpleNamespace(T=T), distilled=False), chain=Chain
    )
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


@pytest.mark.parametrize("searched", [True, False])
def test_an_evaluation_says_how_long_drawing_and_measuring_took(searched, clock, monkeypatch):
    made, heard = evaluation(), []
    for name in ("check", "find", "save"):
        monkeypatch.setattr(evaluating, name, lambda *given: None)
    monkeypatch.setattr(
        evaluating, "samples", lambda model, job, what, showing, say: clock.later(4.04, heard.append(what))
    )
    monkeypatch.setattr(evaluating, "_measured", lambda *given: clock.later(2.04, made))
    monkeypatch.setattr(evaluating, "_memorisation", lambda *given: clock.later(1.0))
    found = evaluating.evaluate(None, None, plan_of(seeds=2, memorisation=searched))
    assert found.seconds == {"drawing": 8.1, "measuring": 3.0 if searched else 2.0}
    assert heard == ["sampling, set 1 of 2", "sampling, set 2 of 2"]


@pytest.mark.parametrize(
    ("weights", "there", "asked", "anew"),
    [("w", None, False, False), ("w", None, True, True), ("w", "none", True, False), ("v", "none", True, True)],
)
def test_what_is_known_is_measured_anew_only_where_it_lacks_something(weights, there, asked, anew, monkeypatch):
    known = Evaluation(step=7, images=1, weights=weights, protocol={}, figures={}, memorisation=there)
    monkeypatch.setattr(evaluating, "check", lambda *given: None)
    monkeypatch.setattr(evaluating, "find", lambda *given: known)
    monkeypatch.setattr(evaluating, "samples", lambda *given: (_ for _ in ()).throw(InterruptedError))
    if anew:
        with pytest.raises(InterruptedError):
            evaluating.evaluate(None, None, plan_of(memorisation=asked))
    else:
        assert evaluating.evaluate(None, None, plan_of(memorisation=asked)) is known


def test_the_images_seen_are_those_of_all_steps(monkeypatch):
    run = SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(batch_size=32)))
    labels = SimpleNamespace(of=lambda index, label, shares: index % 3)
    heard = {}
    monkeypatch.setattr(evaluating, "measure", lambda *given, labels, progress: heard.update(labels=labels) or {})
    plan = replace(plan_of(seeds=2), model=model_of(labels=labels))
    found = evaluating._measured(run, None, plan, [], lambda what, unit: evaluating.silently(what, unit))
    assert (found.step, found.images, found.weights) == (7, 7 * 32, "w")
    assert [each.tolist()[:4] for each in heard["labels"]] == [[0, 1, 2, 0]] * 2 and len(heard["labels"][0]) == 100


def test_images_there_are_kept_though_fewer_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "name_of", lambda model, job: "job")
    drawn = []
    monkeypatch.setattr(
        evaluating, "save_images", lambda model, job, folder, progress, say: drawn.append((job.num, folder))
    )
    monkeypatch.setattr(evaluating, "read_images", lambda folder, num: num)
    model = SimpleNamespace(folder=tmp_path, hashes="w")
    job = Job(num=3, chain=Chain())
    assert evaluating.samples(model, job) == 3 and drawn[0][0] == 3
    drawn[0][1].mkdir(parents=True)
    for name in ("000000.png", "000004.png", "grid.png"):
        (drawn[0][1] / name).touch()
    assert evaluating.samples(model, job) == 3 and drawn[1] == (5, drawn[0][1])


def test_copies_are_looked_for_by_the_features_of_the_classifier(tmp_path, monkeypatch):
    class Named(Network):
        trust = None

        def __init__(self, name):
            self.name = name

    heard = {}
    monkeypatch.setattr(judgement, "memorisation", lambda *given, **how: heard.update(how))
    monkeypatch.setattr(judgement, "picture", lambda *given: SimpleNamespace(save=lambda *a, **b: a[0].touch()))
    monkeypatch.setattr(judgement, "held_out_like", lambda *given: None)
    run = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(flip=True)), path=tmp_path)
    store = SimpleNamespace(images=lambda split: None)
    networks = [Named("inception"), Named("classifier")]
    evaluating._memorisation(run, store, plan_of(networks=networks), [torch.zeros(1)], "name")
    assert heard["flip"] is True and heard["features"].__self__ is networks[1]
    evaluating._memorisation(run, store, plan_of(networks=networks[:1]), [torch.zeros(1)], "name")
    assert heard["features"] is None and (tmp_path / "evaluation" / "name-pairs.png").exists()


def test_a_plan_is_checked_before_anything_is_measured(monkeypatch):
    def check(run, store, plan):
        raise UserError(f"{run} {store} {plan}")

    monkeypatch.setattr(evaluating, "check", check)
    with pytest.raises(UserError, match="run store plan"):
        evaluating.evaluate("run", "store", "plan")
