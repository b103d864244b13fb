"""What a plan takes: how many images, how long, its least, its protocol, and what of it is there already."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from refusals import mistake
from unstir.chain import Chain
from unstir.metrics import drawn as drawing
from unstir.metrics import evaluate as module
from unstir.metrics import plan as judging
from unstir.metrics.drawn import Drawn, seconds_per_call, usual_chain
from unstir.metrics.evaluate import drawing_seconds, usual_number
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.features import Network, Trust
from unstir.metrics.plan import Plan, check, held_out_like, search_copies
from unstir.metrics.request import EvaluationRequest
from unstir.pixels import Scale
from unstir.runs import build
from unstir.runs.config import Kind
from unstir.runs.sections import DiffusionConfig


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
        "guide_name": None, "averaged": True, "arithmetic": "float32",
        "labels": SimpleNamespace(of=lambda index, label, shares: index % 3), "conditions": None,
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
