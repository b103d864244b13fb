"""`benchmarks/gpu.sh`, as far as a machine without a GPU can tell: its commands parse, and no part stops the others."""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from peers.sizes import Size
from peers.tables import around
from unstir.cli.app import app

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def started(*words, **environment):
    given = {"PYTHON": sys.executable, "PATH": os.environ["PATH"], **environment}
    done = subprocess.run(["bash", SCRIPT, *words], env=given, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


COMMANDS = [
    shlex.split(line)[1:]
    for what in ("table", "train")
    if shutil.which("bash")
    for quick in ("", "1")
    for line in started(what, DRY="1", QUICK=quick, OUT="/nowhere")[1].splitlines()
]


def test_bash_can_read_it():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    assert len(COMMANDS) == 16


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_in_it_is_one_that_its_program_knows(words):
    if words[:2] == ["-m", "pytest"]:
        assert [(ROOT / word).is_file() for word in words if word.startswith("tests/")] == [True]
    elif words[:2] == ["-m", "unstir"]:
        command, bound, _ = app.parse_args(words[2:], exit_on_error=False, print_error=False)
        assert command.__name__.startswith(words[2]) and bound.arguments
    else:
        if words[0].endswith("against.py"):
            pytest.importorskip("denoising_diffusion_pytorch", reason="needs the extra [bench]")
        assert runpy.run_path(str(ROOT / words[0]))["parsed"](words[1:])


def test_a_machine_without_a_gpu_is_refused_in_one_line(tmp_path):
    status, out, err = started("train", CUDA_VISIBLE_DEVICES="", OUT=str(tmp_path / "out"))
    assert (status, out, err.count("\n")) == (2, "", 1) and "no CUDA GPU on this machine; DEVICE=cpu QUICK=1" in err
    assert "DEVICE=cpu needs QUICK=1" in started(DEVICE="cpu")[2] and not list(tmp_path.iterdir())
    assert started("train", PYTHON=shutil.which("false"))[::2] == (
        2,
        "gpu.sh: torch is not installed; pip install '.'\n",
    )
    assert started("fly")[::2] == (2, "gpu.sh: fly is unknown; type nothing more, or train\n")


def test_what_fails_is_named_and_the_rest_is_done_and_kept(tmp_path):
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(
        '#!/bin/sh\necho "$@" >> $LOG\ncase "$*" in\n-c*) ;;\n*peak_memory*|*" train "*) exit 1;;\n'
        '*) echo "A training step"; echo "$2 says so";;\nesac\n'
    )
    python.chmod(0o755)
    given = {"PYTHON": str(python), "OUT": str(out), "LOG": str(tmp_path / "log"), "DEVICE": "cpu", "QUICK": "1"}
    status, said, err = started(**given)
    assert status == 1 and err == f"gpu.sh: failed: memory; what they printed is in {out}\n"
    assert [line.split()[1] for line in (out / "seconds.txt").read_text().splitlines()] == [
        "tests", "kills", "memory", "against",
    ]  # fmt: skip
    summary = (out / "summary.md").read_text()
    assert "pytest says so." in summary and "--kills says so." in summary and "### Memory" in summary
    assert "== against took" in said and "against.py --device cpu" in (tmp_path / "log").read_text()
    status, _, err = started("train", **given)
    assert status == 1 and "failed: train;" in err
    assert "-m unstir train" in (log := (tmp_path / "log").read_text()) and "-m unstir evaluate" not in log


def test_the_page_has_a_place_for_what_is_measured():
    page = ROOT / "docs/performance.md"
    around(page, "cuda")
    around(page, "cuda training", "published_curve.py")


def test_the_fids_of_a_run_stand_among_the_published_ones():
    curve = runpy.run_path(str(ROOT / "benchmarks/published_curve.py"))
    fid = SimpleNamespace(value=9.5, error=0.125)
    protocol = {"sampler": "ancestral", "steps": 1000, "num": 50_000, "seeds": 1}
    mine = SimpleNamespace(images=6_000_128, main=lambda: fid, main_key=curve["FID"], protocol=protocol)
    rows = curve["rows"]([mine])
    assert rows[:2] == [
        ("6,000,000", "9.16", "ancestral, 1000 steps", "50,000", "tqch/ddpm-torch"),
        ("6,000,128", "9.50 ± 0.12", "ancestral, 1000 steps", "50,000", "this run"),
    ]
    mine.main_key = "classifier/fd"
    assert curve["rows"]([mine])[1][1] == "9.50 ± 0.12 (classifier/fd)"


@pytest.fixture
def on(digits, tmp_path):
    """The parts of a tiny network on the digits, whose limits are not measured."""
    pytest.importorskip("denoising_diffusion_pytorch", reason="needs the extra [bench]")
    from peers import parts

    size = Size(32, (1, 2), (1,), 8, 2, num_blocks=1)
    made = parts.Setting(name="nano", size=size, device=torch.device("cpu"), folder=tmp_path, rounds=1, calls=2)
    colours = tmp_path / "images"
    colours.mkdir()
    from PIL import Image

    for number in range(2):
        Image.new("RGB", (8, 8), (number * 99, 0, 0)).save(colours / f"{number}.png")
    vars(made)["limits"] = {}
    return made


def test_settings_are_timed_and_undone(on, monkeypatch):
    from peers import variants

    before = torch.backends.cudnn.allow_tf32, variants.denoiser.repeatable, variants.trainer.repeatable
    section = variants.settings(on)
    names = [row.contestant.setting.removeprefix(f"{on.dtypes[-1]}, ") for row in section.rows]
    assert names[:4] == [
        "its default", "channels first", "kernels that may give other bits each time", "all levels recomputed",
    ]  # fmt: skip
    assert section.base is section.rows[0] and all(row.median > 0 for row in section.rows)
    with variants.unrepeatable(), variants.without_tf32():
        assert not torch.backends.cudnn.allow_tf32 and variants.denoiser.repeatable is not before[1]
    assert before == (torch.backends.cudnn.allow_tf32, variants.denoiser.repeatable, variants.trainer.repeatable)
