"""`unstir evaluate` and `unstir report` from the command line: what they print, keep, refuse and do not do twice."""

import csv
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from conftest import copied, tiny_config
from unstir.data import Store
from unstir.data.manifest import sealed
from unstir.data.store import content_hash
from unstir.metrics import classifier
from unstir.metrics import drawn as drawing
from unstir.metrics import evaluate as forecast
from unstir.metrics import plan as judging
from unstir.metrics.evaluation import SHARES, own, save, saved
from unstir.runs import checkpoint
from unstir.runs.run import Run
from unstir.significance import with_error
from unstir.train.launch import train_run

pytestmark = pytest.mark.usefixtures("quick")
SMALL = ("--num", 24, "--seeds", 2, "--batch-size", 16)


@pytest.fixture(scope="module")
def folder(quick, classified, tmp_path_factory):
    """A tiny run on a copy of the digits, to be judged by every test here."""
    base = tmp_path_factory.mktemp("judged")
    copied(classified, base / "digits", classifier=True)
    config = tiny_config(base / "digits", data__source=str(base / "digits"))
    return train_run(config, base / "run").run.path


def test_a_run_is_judged_and_its_figures_kept(folder, command):
    status, out, err = command("evaluate", folder, *SMALL)
    assert status == 0 and "FD-classifier" in out and "coverage-classifier" in out and "memorisation: " in out
    assert "1 x 2 x 24 images" in err
    (found,) = [each for each in saved(Run.open(folder)) if each.protocol["num"] == 24]
    assert found.step == Run.open(folder).newest_step()
    assert with_error(found.main().value, found.main().error) in out and found.name() in {
        p.stem for p in (folder / "evaluation").iterdir()
    }
    assert (folder / "evaluation" / f"{found.name()}-pairs.png").exists()
    protocol = found.protocol
    told = [protocol[key] for key in ("sampler", "calls", "seeds", "split", "num_reference", "flip")]
    assert told == ["unipc", 20, 2, "train", 1498, False]
    assert {"networks", "data", "rounding", "ema", "seed", "dtype", "guidance", "clip"} <= set(protocol)
    assert len(list((folder / "generated").iterdir())) >= 2  # a folder of images for each seed


@pytest.mark.parametrize("option", [("--fid",), ("--fid-weights", "weights.pth")])
def test_without_torch_fidelity_inception_alone_is_refused_and_before_any_work(
    folder, command, refused, monkeypatch, option
):
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    before = sorted(folder.rglob("*"))
    refused(command("evaluate", folder, *SMALL, "--seed", 5, *option), "Inception", "pip install '.[fid]'")
    assert sorted(folder.rglob("*")) == before
    assert "KID-classifier" in command.done("evaluate", folder, *SMALL, "--seed", 5)


def test_the_same_again_only_prints(folder, command, monkeypatch):
    command("evaluate", folder, *SMALL)
    first = command("evaluate", folder, *SMALL)[1]
    monkeypatch.setattr(judging, "measure", lambda *arguments, **options: pytest.fail("judged again"))
    monkeypatch.setattr(drawing, "save_images", lambda *arguments, **options: pytest.fail("drawn again"))
    monkeypatch.setattr(forecast, "seconds_per_call", lambda *arguments: pytest.fail("timed again"))
    assert command("evaluate", folder, *SMALL)[1] == first


def test_a_stray_number_among_the_images_is_named(folder, command):
    asked = ("evaluate", folder, *SMALL, "--seed", 7, "--no-memorisation")
    assert command(*asked)[0] == 0
    drawn = next(path for path in (folder / "generated").iterdir() if "seed7" in path.name)
    shutil.copy(drawn / "000000.png", drawn / "99999999.png")
    status, _, err = command(*asked[:2], "--num", 30, *asked[4:])
    assert status == 2 and "remove 99999999.png" in err


def test_every_saved_step_is_judged_for_a_curve(folder, command):
    status, out, _ = command("evaluate", folder, *SMALL, "--checkpoint", "all", "--sampler", "ddim", "--steps", 3)
    steps = Run.open(folder).saved_steps()
    assert status == 0 and [f"step {step} " in out for step in steps] == [True] * len(steps) and len(steps) > 1
    assert command("evaluate", folder, *SMALL, "--checkpoint", steps[0], "--sampler", "ddim", "--steps", 3)[0] == 0


def test_another_run_is_compared_by_the_same_protocol_alone(folder, command, tmp_path, refused):
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("evaluation", "generated"))
    command("evaluate", other, "--num", 20, "--seeds", 2, "--batch-size", 16)
    refused(command("evaluate", folder, *SMALL, "--against", other), "num is 24")
    command("evaluate", other, *SMALL)
    status, out, _ = command("evaluate", folder, *SMALL, "--against", other)
    assert (
        status == 0 and re.search(r", \+0\.0+ ± ", out.splitlines()[-1]) and out.splitlines()[-1].endswith("undecided")
    )
    assert command.done("evaluate", folder, *SMALL[2:], "--against", other).splitlines()[-1] == out.splitlines()[-1]


def test_figures_of_weights_that_a_run_has_not_are_left_out(folder, command, tmp_path):
    command("evaluate", folder, *SMALL)
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("generated"))
    assert command("evaluate", folder, *SMALL, "--against", other)[0] == 0  # a copy has the same weights
    run = Run.open(other)
    for made in saved(run):
        save(run, replace(made, weights="f" * 64))
    status, _, err = command("evaluate", folder, *SMALL, "--against", other)
    left_out, refusal = err.splitlines()
    assert status == 2 and f"{other}/evaluation: {len(saved(run))} evaluation" in left_out and "not been" in refusal
    for path in other.glob("*/*.safetensors"):  # the weights are gone
        path.unlink()
    assert own(run) == saved(run)  # the identity of the run decides then
    for made in saved(run):
        save(run, replace(made, run="another"))
    assert own(run) == []


def test_figures_of_other_networks_are_refused_before_anything_is_drawn(
    folder, command, tmp_path, monkeypatch, refused
):
    command("evaluate", folder, *SMALL)
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("evaluation", "generated"))
    usual = {"num": 24, "sampler": "unipc", "seed": 0}
    (made,) = [each for each in saved(Run.open(folder)) if usual.items() <= each.protocol.items()]
    networks = {"inception-v3-compat": "f" * 64}
    save(Run.open(other), replace(made, protocol={**made.protocol, "networks": networks}))
    monkeypatch.setattr(drawing, "save_images", lambda *arguments, **options: pytest.fail("drawn"))
    refused(command("evaluate", folder, *SMALL, "--against", other), "networks is ")


def test_figures_are_exported_beside_the_page(folder, command, tmp_path):
    command("evaluate", folder, *SMALL)
    status, out, _ = command(
        "report", folder, "--no-measure", "--out", tmp_path / "a.html", "--export", tmp_path / "b.csv"
    )
    assert status == 0 and f"figures  {tmp_path / 'b.csv'}" in out
    rows = csv.DictReader((tmp_path / "b.csv").read_text().splitlines())
    found = {float(row["value"]) for row in rows if row["figure"] == "FD-classifier"}  # of all tests before this one
    assert found and found <= {each.main().value for each in saved(Run.open(folder))}


@pytest.mark.parametrize(("option", "name"), [("--out", "mine.html"), ("--export", "mine.MD")])
def test_a_file_that_is_not_the_reports_own_is_never_replaced(folder, command, tmp_path, option, name, refused):
    command("evaluate", folder, *SMALL)
    page = ("--out", tmp_path / "page.html") if option == "--export" else ()
    words = ("report", folder, "--no-measure", *page, option, tmp_path / name)
    mine = "run,step,images_seen,figure_of_mine"
    (tmp_path / name).write_text(mine)
    refused(command(*words), f"{option} {tmp_path / name} ")
    assert (tmp_path / name).read_text() == mine and not (tmp_path / "page.html").exists()
    (tmp_path / name).write_text("")  # nothing is lost
    assert command(*words)[0] == command(*words)[0] == 0


def test_what_is_missing_is_measured_first_and_once(folder, command, tmp_path):
    status, _, err = command("report", folder, "--num", 16, "--seeds", 2)
    assert status == 0 and (folder / "report.html").exists()
    assert "2 x 16 images" in err
    chains = {each.protocol["sampler"] for each in saved(Run.open(folder)) if each.protocol["num"] == 16}
    assert {"ddim", "unipc", "dpmpp_2m_sde"} <= chains
    before = {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()}
    assert command("report", folder, "--num", 16, "--seeds", 2)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()} == before


@pytest.fixture(scope="module")
def conditional(folder):
    """A tiny run that knows the classes."""
    store = folder.parent / "digits"
    config = tiny_config(store, data__source=str(store), model__num_classes=10, train__condition_dropout=0.1)
    return train_run(config, folder.parent / "conditional").run.path


def test_a_label_with_a_bit_flipped_is_damage_of_the_store(conditional, command, folder, refused):
    labels = folder.parent / "digits" / "train.labels.npy"
    whole = labels.read_bytes()
    try:
        labels.write_bytes(whole[:135] + b"\x20" + whole[136:])  # a class of 2^61
        for name in ("evaluate", "report"):
            refused(command(name, conditional), "digits")
    finally:
        labels.write_bytes(whole)


def test_classes_are_drawn_as_often_as_the_data_has_them(conditional, command, folder):
    out = command.done("evaluate", conditional, *SMALL, "--json")
    (found,) = json.loads(out)["evaluations"]
    assert found["protocol"]["label"] == SHARES and "classifier/accuracy" in found["figures"]
    run, store = Run.open(conditional), Store.open(folder.parent / "digits")
    shares = torch.bincount(store.labels("train")).tolist()
    usual = drawing.usual_labels(run, store)
    assert usual == {"shares": tuple(shares)} and drawing.usual_labels(run, store, 3) == {"label": 3}


def test_a_class_asked_for_is_the_class_held_against_what_is_seen(conditional, command, monkeypatch):
    heard = []
    kept = judging.measure

    def listening(*arguments, labels, **options):
        heard.append(labels)
        return kept(*arguments, labels=labels, **options)

    monkeypatch.setattr(judging, "measure", listening)
    assert command("evaluate", conditional, *SMALL, "--label", 7)[0] == 0
    assert [set(each.tolist()) for each in heard[0]] == [{7}, {7}]
    protocol = saved(Run.open(conditional))[-1].protocol
    assert protocol["label"] in (7, SHARES)


def test_a_run_with_classes_and_one_without_are_not_compared(conditional, folder, command, refused):
    command("evaluate", conditional, *SMALL)
    command("evaluate", folder, *SMALL)
    for first, second in ((conditional, folder), (folder, conditional)):
        refused(command("evaluate", first, *SMALL, "--against", second), "label is")


def test_a_guide_is_part_of_the_protocol(conditional, folder):
    run, store = Run.open(conditional), Store.open(folder.parent / "digits")
    images = drawing.Drawn(run=run, model=run.model(12), chain=replace(run.chain(), guidance=2.0))
    plan = judging.Plan(images=images, store=store, num=24)
    guided = replace(images, model=run.model(12, guide=str(run.saved_steps()[0])))
    assert plan.protocol() != replace(plan, images=guided).protocol()


def test_a_guidance_that_acts_at_no_time_is_said_before_any_work(conditional, command):
    between = ("--guidance", 2, "--guidance-low", 14, "--guidance-high", 14)
    idle = "unstir: guidance never acts: no time that the chain visits is in t = 14 to 14"
    status, _, err = command("evaluate", conditional, *SMALL, "--steps", 4, *between)  # at t = 20, 15, 10 and 5
    assert status == 0 and err.startswith(idle)
    assert "never acts" not in command("evaluate", conditional, *SMALL, "--steps", 4, "--guidance", 2)[2]


def test_other_weights_under_the_same_step_are_judged_anew(folder, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    command("evaluate", run, *SMALL)
    usual = {"num": 24, "sampler": "unipc", "seed": 0}
    (before,) = [each for each in saved(Run.open(run)) if usual.items() <= each.protocol.items()]
    found = checkpoint.load(run / "weights" / checkpoint.file_name(12))
    for tensor in found.tensors.values():
        tensor.mul_(1.5)
    for file in (*(run / "weights").iterdir(), *(run / "checkpoints").iterdir()):
        if file.name == checkpoint.file_name(12):
            file.unlink()
    checkpoint.save(run / "weights", found)
    assert command("evaluate", run, *SMALL)[0] == 0
    (after,) = [each for each in saved(Run.open(run)) if usual.items() <= each.protocol.items()]
    assert after.weights != before.weights and after.main().value != before.main().value
    drawn = sorted((run / "generated").glob("step12-unipc20-seed0-*"), key=lambda path: path.stat().st_mtime_ns)
    shutil.rmtree(drawn[-1])
    shutil.copytree(drawn[0], drawn[-1])  # images of the weights before
    status, _, err = command("evaluate", run, "--num", 30, *SMALL[2:])
    assert status == 2 and str(drawn[-1]) in err and "(weights is " in err


def test_a_search_for_copies_is_made_up_for(folder, command, monkeypatch):
    small = ("--num", 20, "--seeds", 2, "--batch-size", 16)
    command("evaluate", folder, *small, "--no-memorisation")
    (without,) = [each for each in saved(Run.open(folder)) if each.protocol["num"] == 20]
    assert without.memorisation is None
    monkeypatch.setattr(judging, "measure", lambda *arguments, **options: pytest.fail("judged again"))
    assert "memorisation: " in command.done("evaluate", folder, *small)
    (found,) = [each for each in saved(Run.open(folder)) if each.protocol["num"] == 20]
    assert found.memorisation is not None and found.figures == without.figures


@pytest.fixture(scope="module")
def lost(quick, digits, tmp_path_factory):
    """A tiny run on digits whose labels are shuffled."""
    base = tmp_path_factory.mktemp("lost")
    folder = base / "digits"
    copied(digits, folder)
    store = Store.open(folder)
    for split in ("train", "held_out"):
        labels = store.labels(split).clone()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        file = folder / f"{split}.labels.npy"
        file.write_bytes(file.read_bytes()[:128] + labels[order].numpy().tobytes())
    manifest = {**store.manifest, "content_hash": content_hash(folder, store.manifest)}
    (folder / "manifest.json").write_bytes(sealed(manifest))
    config = tiny_config(folder, data__source=str(folder), model__num_classes=10)
    return train_run(config, base / "run").run.path


@pytest.fixture
def briefly(monkeypatch):
    """A classifier sees as few images as one of the smallest store; of shuffled labels there is nothing to learn."""
    monkeypatch.setattr(classifier, "MOST_SEEN", classifier.LEAST_SEEN)


def test_shuffled_labels_are_told_and_the_classifier_is_not_used(briefly, lost, command):
    status, out, err = command("evaluate", lost, *SMALL)
    assert status == 0 and "training a classifier" in err
    assert "sliced Wasserstein" in out and "FD-classifier" not in out and "class accuracy" not in out
    (found,) = saved(Run.open(lost))
    assert list(found.figures) == ["patches/swd"] and found.protocol["networks"] == {}
    entry = found.protocol["classifier"]
    assert entry["used"] is False and entry["accuracy"] < 0.2 and entry["num"] == 299
    assert [space.name for space in found.memorisation.spaces] == ["pixels"]  # no features of such a network
    status, out, err = command("evaluate", lost, *SMALL, "--json")
    assert json.loads(out)["evaluations"][0]["protocol"]["classifier"] == entry and "training a classifier" not in err
