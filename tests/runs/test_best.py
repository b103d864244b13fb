"""The saved step of least held-out loss."""

import json

import pytest

from refusals import refusing
from unstir import Run


def told(run, losses):
    """The run with a line of held_out.jsonl for each of these steps, of these losses by image."""
    line = run.held_out()[-1]
    lines = [{**line, "step": step, "of_held_out": of, "num_held_out": 2} for step, of in losses.items()]
    run.log_file("held_out").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    return Run.open(run.path)


@pytest.fixture
def run(trained):
    return trained(log__held_out_images=8)[0]


def test_it_is_that_of_the_least_mean_and_its_error_is_said(run, caplog):
    caplog.set_level("INFO", "unstir")
    saved = run.saved_steps()
    run = told(run, {step: [3.0 + n, 4.0 + n] for n, step in enumerate(saved)} | {saved[-1] + 999: [0.0, 0.0]})
    assert run.load("best").step == run.model("best").step == saved[0]
    assert f"step {saved[0]} " in caplog.text and "3.5 ± 0.5" in caplog.text


def test_by_the_command_line_too(run, command, tmp_path):
    saved = run.saved_steps()
    told(run, {step: [3.0 + n, 4.0 + n] for n, step in enumerate(saved)})
    status, _, _ = command("sample", run.path, "--num", 2, "--checkpoint", "best", "--out", tmp_path / "made")
    assert status == 0 and json.loads((tmp_path / "made/settings.json").read_text())["step"] == saved[0]
    status, _, _ = command("export", run.path, "--to", "safetensors", "--checkpoint", "best")
    assert status == 0 and (run.path / f"exported/safetensors-step{saved[0]}").is_dir()
    assert command("sample", run.path, "--checkpoint", "newest")[0] == 2


def test_without_held_out_losses_it_is_refused(run):
    run.log_file("held_out").unlink()
    with refusing("step", "best"):
        run.model("best")
