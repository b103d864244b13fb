"""The samples that a page shows and judges: measured once, those that were judged, their classes, the worst of them."""

import json
import shutil
from dataclasses import replace

import pytest
import reported
import torch
from PIL import Image
from reported import parsed, train

from unstir.insight import page, pictures
from unstir.insight.gather import SPEED, gather, read_speed
from unstir.insight.write import measure, planned
from unstir.metrics import measure as evaluating
from unstir.metrics.classifier import networks_for
from unstir.metrics.evaluation import saved
from unstir.metrics.plan import judge
from unstir.pictures.grid import grid
from unstir.runs.files import encode
from unstir.runs.run import Run

pytestmark = pytest.mark.usefixtures("quick")
first, store, report = reported.run, reported.store, reported.report


@pytest.fixture(scope="module")
def run(first, tmp_path_factory):
    """A copy, for a test here changes it for a while."""
    return Run.open(shutil.copytree(first.path, tmp_path_factory.mktemp("runs") / "first"))


def test_the_samplers_have_their_seconds_an_image(report, run):
    section = next(element for element in parsed(report).iter("section") if element.get("id") == "calls")
    rows = [["".join(cell.itertext()) for cell in row] for row in next(section.iter("tbody"))]
    timed = read_speed(run)
    assert len(rows) == len(gather(run.path, samples=False).by_chain) == len(timed.seconds)
    assert all(float(row[3]) > 0 for row in rows) and timed.machine["device"] in "".join(section.itertext())
    (run.path / SPEED).rename(run.path / "kept")
    kept = (run.path / "kept").read_text()
    (run.path / SPEED).write_text(kept.replace(run.data.run, "another run"))
    assert read_speed(run) is None
    (run.path / SPEED).write_text('{"seconds": {"a": "b"}, "num": 1, "machine": {}, "date": ""}')
    assert read_speed(run) is None
    (run.path / "kept").rename(run.path / SPEED)


def test_what_is_measured_once_is_not_measured_again(run, store):
    by_step, by_chain = planned(run, store, num=24, seeds=2, networks=networks_for(store))
    files = {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()}
    measure([*by_step, *by_chain])
    assert {path: path.stat().st_mtime_ns for path in (run.path / "evaluation").iterdir()} == files
    facts = gather(run.path, samples=False)
    assert [each.step for each in facts.by_step] == [1, 12]
    assert len(facts.by_chain) == len(by_chain) + 1


def test_the_samples_of_a_page_are_those_that_were_judged(run, store, tmp_path):
    last = gather(run.path, samples=False).last
    known = pictures.drawn_for(run, last)
    assert len(known.images) == 2 * 24 and known.asked is None
    again = evaluating.measure(store, list(known.images.split(24)), networks_for(store), labels=None)
    assert again["classifier/fd"].by_seed == last.figures["classifier/fd"].by_seed
    shutil.copytree(run.path, tmp_path / "run")
    for settings in (tmp_path / "run" / "generated").glob("*/settings.json"):
        if json.loads(settings.read_text())["chain"]["seed"] == 1:
            (settings.parent / "000000.png").unlink()
    assert pictures.drawn_for(Run.open(tmp_path / "run"), last) is None
    assert pictures.drawn_for(run, replace(last, weights="0" * 64)) is None


def test_classes_that_were_asked_for_are_read_from_the_settings_of_the_samples(store, tmp_path):
    made = train(store, tmp_path / "run", model__num_classes=10)
    plan = planned(made, store, num=40, seeds=2, networks=networks_for(store))[0][-1]
    known = pictures.drawn_for(made, judge(plan))
    asked = made.labels.of(torch.arange(40), plan.images.label, plan.images.shares)
    assert torch.equal(known.asked, asked.repeat(2)) and len(set(asked.tolist())) > 5
    rows = pictures.by_class(store, known, None)
    assert [row.name for row in rows] == list(store.classes) and all(row.samples for row in rows)


def test_a_folder_of_samples_that_is_not_ours_is_passed_over(run, tmp_path):
    last = saved(run)[-1]
    shutil.copytree(run.path, tmp_path / "run")
    (odd := tmp_path / "run" / "generated" / "odd").mkdir()
    wrong = {"chain": {"sampler": "ddim", "steps": 10**6}, "step": 1, "label": None}
    for text in ("[" * 100_000, encode(wrong), json.dumps(wrong)):
        (odd / "settings.json").write_text(text)
        known = pictures.drawn_for(Run.open(tmp_path / "run"), last)
        assert known is not None and torch.equal(known.images, pictures.drawn_for(run, last).images)


@pytest.mark.parametrize("by", ["classifier", "pixels"])
def test_the_worst_samples_are_those_farthest_from_all_training_images(run, store, by):
    classifier = networks_for(store)[0] if by == "classifier" else None
    odd = torch.full((1, *store.shape), 255, dtype=torch.uint8)
    samples = torch.cat((store.images("train")[:20], odd, store.images("held_out")[:20]))
    found = pictures.worst(run.config.data.flip, store, pictures.Drawn(samples, None), classifier)
    assert found.samples == pictures.encode(grid(_worst_first(samples, odd, store, classifier), 8), "the worst samples")
    assert "16 of 41" in found.how


def _worst_first(samples, odd, store, classifier):
    """The 16 samples of the largest distance to the training images, by brute force; the odd one is first."""
    spaces = [x if classifier is None else classifier.features(x) for x in (samples, samples.flip(-1))]
    train = store.images("train") if classifier is None else classifier.features(store.images("train"))
    each = [torch.cdist(x.flatten(1).double(), train.flatten(1).double()).min(1).values for x in spaces]
    far = torch.minimum(*each)  # the run mirrors half of its images
    order = far.argsort(descending=True, stable=True)[:16]
    assert torch.equal(samples[order[:1]], odd)
    return samples[order]


def test_of_many_classes_the_first_are_shown(store, tmp_path):
    many = replace(store, manifest={**store.manifest, "classes": [f"class {i}" for i in range(500)]})
    object.__setattr__(many, "labels", lambda split: torch.arange(store.count(split)) % 500)
    assert [each.name for each in pictures.by_class(many, None, None)] == [
        f"class {i}" for i in range(pictures.CLASSES)
    ]
    large = pictures.encode(Image.new("L", (10, 17_000)), "tall")
    assert large.source.startswith("data:image/png") and large.height == 17_000


def test_unlabelled_data_is_judged_by_patches(store, tmp_path):
    from unstir.data import pack

    folder = tmp_path / "flat"
    folder.mkdir()
    for index, image in enumerate(store.images("train")[:120]):
        Image.fromarray(image[0].numpy()).save(folder / f"{index}.png")
    flat = pack(folder, tmp_path / "flat-store", channels=1, held_out=0.25)
    run = train(flat, tmp_path / "run")
    plan = planned(run, flat, num=20, seeds=2)[0][-1]
    assert networks_for(flat) == []
    found = judge(replace(plan, memorisation=True))
    assert list(found.figures) == ["patches/swd"] and found.main().floor < found.main().value < found.main().ceiling
    page.write(run, flat, tmp_path / "page.html")
    assert "sliced Wasserstein" in " ".join(parsed(tmp_path / "page.html").itertext())
