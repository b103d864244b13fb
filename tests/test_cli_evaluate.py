"""`unstir evaluate` and `unstir report` from the command line: what they print, keep, refuse and do not do twice."""

import json
import shutil

import pytest

from unstir.data import Store
from unstir.metrics import evaluate as evaluating
from unstir.metrics.evaluation import saved
from unstir.runs.run import Run

SMALL = ("--num", 24, "--seeds", 2, "--batch-size", 16)


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A tiny run on a copy of the digits, to be judged by every test here."""
    from conftest import tiny_config
    from unstir.train.launch import open_data, open_run
    from unstir.train.trainer import Trainer

    base = tmp_path_factory.mktemp("judged")
    shutil.copytree(digits, base / "digits")
    config = tiny_config(base / "digits", data__source=str(base / "digits"))
    run = open_run(config, base / "run", open_data(config, base / "run"))
    Trainer(run, Store.open(base / "digits")).run()
    return run.path


def test_a_run_is_judged_and_its_figures_kept(folder, command):
    status, out, err = command("evaluate", folder, *SMALL)
    assert status == 0 and "FD-classifier" in out and "coverage-classifier" in out and "memorisation: " in out
    assert "1 x 2 x 24 images, about" in err
    (found,) = [each for each in saved(Run.open(folder)) if each.protocol["num"] == 24]
    assert found.step == Run.open(folder).newest_step()
    assert f"{found.main().value:.4g}" in out and found.name() in {p.stem for p in (folder / "evaluation").iterdir()}
    assert (folder / "evaluation" / f"{found.name()}-pairs.png").exists()
    protocol = found.protocol
    told = [protocol[key] for key in ("sampler", "calls", "seeds", "split", "num_reference", "flip")]
    assert told == ["dpmpp_2m_sde", 20, 2, "train", 1498, False]
    assert {"networks", "data", "rounding", "ema", "seed", "dtype", "guidance", "clip"} <= set(protocol)
    assert len(list((folder / "generated").iterdir())) >= 2  # a folder of images for each seed


def test_the_same_again_only_prints(folder, command, monkeypatch):
    command("evaluate", folder, *SMALL)
    first = command("evaluate", folder, *SMALL)[1]
    monkeypatch.setattr(evaluating, "judge", lambda *arguments, **options: pytest.fail("judged again"))
    monkeypatch.setattr(evaluating, "save_images", lambda *arguments, **options: pytest.fail("drawn again"))
    monkeypatch.setattr(evaluating, "seconds_per_call", lambda *arguments: pytest.fail("timed again"))
    assert command("evaluate", folder, *SMALL)[1] == first
    assert command("evaluate", folder, "--seeds", 2, "--batch-size", 16)[1] == first  # as many as the last time


def test_fewer_images_than_were_drawn_are_the_first_of_them(folder, command):
    command("evaluate", folder, *SMALL)
    status, out, _ = command("evaluate", folder, "--num", 12, "--seeds", 1, "--batch-size", 16, "--json")
    assert status == 0
    (found,) = json.loads(out)["evaluations"]
    assert found["protocol"]["num"] == 12 and len(found["figures"]["classifier/fd"]["by_seed"]) == 1


def test_every_saved_step_is_judged_for_a_curve(folder, command):
    status, out, _ = command("evaluate", folder, *SMALL, "--checkpoint", "all", "--sampler", "ddim", "--steps", 3)
    steps = Run.open(folder).saved_steps()
    assert status == 0 and [f"step {step} " in out for step in steps] == [True] * len(steps) and len(steps) > 1
    assert command("evaluate", folder, *SMALL, "--checkpoint", steps[0], "--sampler", "ddim", "--steps", 3)[0] == 0
    status, _, err = command("evaluate", folder, *SMALL, "--checkpoint", 999)
    assert status == 2 and "step 999 was not saved" in err
    status, _, err = command("evaluate", folder, *SMALL, "--checkpoint", "best")
    assert status == 2 and 'give "newest", "all" or one of' in err


def test_another_run_is_compared_by_the_same_protocol_alone(folder, command, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("evaluation", "generated"))
    status, _, err = command("evaluate", folder, *SMALL, "--against", other)
    assert status == 2 and "has not been judged; run unstir evaluate" in err
    command("evaluate", other, "--num", 20, "--seeds", 2, "--batch-size", 16)
    status, _, err = command("evaluate", folder, *SMALL, "--against", other)
    assert status == 2 and "do not compare: num is 24 and 20" in err and "Traceback" not in err
    command("evaluate", other, *SMALL)
    status, out, _ = command("evaluate", folder, *SMALL, "--against", other)
    assert status == 0 and "+0 +- " in out.splitlines()[-1] and out.splitlines()[-1].endswith("undecided")


def test_the_number_of_images_fits_the_minutes_and_the_held_out(make_run):
    _, store = make_run()
    assert evaluating.fitting(1000, 1.0, store) == 299  # as many as are held out, that the floor has equal n
    assert evaluating.fitting(250, 1.0, store) == 200 and evaluating.fitting(0, 1.0, store) == 100
    assert evaluating.fitting(1e9, 1.0, store, split="held_out") == 1498


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--num", 3), "num=3 must be at least 8"),
        (("--seeds", 0), "seeds=0 must be at least 1"),
        (("--reference", 1), "num_reference=1 is outside 2..1498"),
        (("--features", "no-such-file"), "cannot read no-such-file"),
        (("--label", 3), "knows no classes"),
        (("--store", "no-store"), "no-store"),
        (("--sampler", "best"), "sampler"),
    ],
)
def test_mistakes_are_one_line_with_what_is_allowed(folder, command, options, words):
    given = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | dict(zip(options[::2], options[1::2], strict=True))
    status, out, err = command("evaluate", folder, *(part for pair in given.items() for part in pair))
    assert status == 2 and words in err and "Traceback" not in err and out == ""
    assert len([line for line in err.splitlines() if line.startswith("unstir: ")]) == 1


def test_the_data_of_another_run_is_refused(folder, command, tmp_path):
    shutil.copytree(folder.parent / "digits", tmp_path / "other")
    manifest = tmp_path / "other" / "manifest.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "content_hash": "0" * 64}))
    status, _, err = command("evaluate", folder, *SMALL, "--store", tmp_path / "other")
    assert status == 2 and "is not the data of" in err


def test_a_page_is_written_from_what_was_measured(folder, command, tmp_path):
    command("evaluate", folder, *SMALL)
    status, out, _ = command("report", folder, "--no-measure", "--out", tmp_path / "new" / "page.html")
    assert status == 0 and f"report   {tmp_path / 'new' / 'page.html'}" in out
    assert "FD-classifier" in (tmp_path / "new" / "page.html").read_text()


def test_what_is_missing_is_measured_first_and_once(folder, command, tmp_path):
    status, _, err = command("report", folder, "--num", 16, "--seeds", 2)
    assert status == 0 and (folder / "report.html").exists() and "2 x 16 images each, about" in err
    chains = {each.protocol["sampler"] for each in saved(Run.open(folder)) if each.protocol["num"] == 16}
    assert {"ddim", "unipc", "dpmpp_2m_sde"} <= chains
    before = {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()}
    assert command("report", folder, "--num", 16, "--seeds", 2)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "evaluation").iterdir()} == before


def test_mistakes_of_a_report_are_one_line(folder, command, tmp_path, monkeypatch):
    for arguments, words in (
        ((tmp_path / "none",), "holds no run"),
        ((folder, "--out", folder / "config.toml" / "page.html"), "cannot make the folder"),
        ((folder, "--num", 2), "must be at least"),
    ):
        status, _, err = command("report", *arguments)
        assert status == 2 and words in err and "Traceback" not in err
    monkeypatch.setenv("UNSTIR_BROWSER", "no-such-browser")
    status, _, err = command("report", folder, "--pdf")
    assert status == 2 and "--pdf needs Chromium or Chrome" in err
