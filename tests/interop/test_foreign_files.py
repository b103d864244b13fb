"""Files from elsewhere, told apart and refused; and folders that are whole or absent."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from report_network import Network
from untrained import saver, scrambled

from refusals import mistake
from unstir.errors import UnwrittenError
from unstir.interop.importing import import_run
from unstir.runs.files import new_folder

saved = pytest.fixture(saver)
SMALL = {"T": 50, "ch": 32, "ch_mult": [1], "attn": [], "num_res_blocks": 1}


@pytest.mark.parametrize(
    "prefixes",
    [
        ("ema.online_model.model.", "ema.ema_model.model.", "model."),
        ("", "averaged.module."),
        ("net.", "ema."),
        ("model.", "modelEMA."),
        ("remapped.", "averaged.module."),
    ],
)
@pytest.mark.usefixtures("saved")
def test_of_several_sets_of_weights_the_average_is_taken_and_named(tmp_path, prefixes):
    (average,) = {"ema.ema_model.model.", "averaged.module.", "ema.", "modelEMA."} & set(prefixes)
    nets = {prefix: scrambled(Network(**SMALL), seed) for seed, prefix in enumerate(prefixes)}
    state = {f"{prefix}{name}": t for prefix, net in nets.items() for name, t in net.state_dict().items()}
    torch.save(state, tmp_path / "all.pt")
    made = import_run(tmp_path / "all.pt", tmp_path / "run")
    ours = made.run.model(device="cpu").denoiser.net
    assert torch.equal(ours.input_conv.weight, nets[average].state_dict()["head.weight"])
    assert f"{average[:-1]} was taken" in made.notes[0]


@pytest.mark.usefixtures("saved")
def test_an_average_that_has_no_names_is_not_left_out_in_silence(tmp_path):
    net = scrambled(Network(**SMALL))
    average = {"decay": 0.999, "shadow_params": [p.detach() * 0 for p in net.parameters()]}  # as torch_ema saves it
    lists = {"losses": [torch.tensor(0.5)], "rng": [torch.get_rng_state()]}  # which hold no weights
    torch.save({"model": net.state_dict(), "ema": average, **lists}, tmp_path / "all.pt")
    notes = import_run(tmp_path / "all.pt", tmp_path / "run").notes
    assert "shadow_params" in notes[-1]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["other"], "docs/interop.md"),
        (["time_embed.0.weight", "input_blocks.0.0.weight"], "docs/interop.md"),
        (["conv_in.weight"], "config.json"),
        (["init_conv.weight"], "docs/interop.md"),
        (["ema.ema_model.model.init_conv.weight"], "docs/interop.md"),  # as denoising-diffusion's Trainer saves it
    ],
)
def test_files_of_nobody_known_are_refused_with_what_to_name_instead(tmp_path, saved, names, words):
    error = mistake(import_run, saved(torch.nn.Identity(), **dict.fromkeys(names, torch.ones(1))), tmp_path / "run")
    assert error.given == tmp_path / "ckpt_199_.pt" and words in error.remedy
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_not_read_by_a_torch_that_does_not_read_it_safely(tmp_path, saved, monkeypatch):
    file = saved(torch.nn.Identity())
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    error = mistake(import_run, file, tmp_path / "run")
    assert error.given == file and "torch>=2.10" in error.remedy[0]


WRITER = """
import sys
from pathlib import Path
from unstir.runs.files import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """writer(name) -> a process that is writing the folder of this name, and where it does so."""
    started = []

    def start(name):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, tmp_path / process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_process_left_is_removed_by_the_next_of_its_name(tmp_path, writer):
    killed, left = writer("out[1]")
    other, of_other = writer("other")
    alive, of_alive = writer("out[1]")
    for process in (killed, other):
        process.kill()
        process.wait()
    assert (left / "part").exists() and left.parent == tmp_path and left.name.startswith(".out[1].")
    with new_folder(tmp_path / "out[1]") as folder:
        (folder / "whole").touch()
    assert not left.exists() and (of_alive / "part").exists() and (of_other / "part").exists()
    assert [path.name for path in (tmp_path / "out[1]").iterdir()] == ["whole"]
    alive.communicate()  # its folder is taken, by one that is not empty
    assert sorted(path.name for path in tmp_path.iterdir()) == [of_other.name, f"{of_other.name}.lock", "out[1]"]


def test_the_later_of_two_of_one_name_is_told_to_take_another(tmp_path):
    with pytest.raises(UnwrittenError) as error, new_folder(tmp_path / "out"):
        (tmp_path / "out" / "of another").mkdir(parents=True)
    assert error.value.errno == errno.ENOTEMPTY and error.value.filename == str(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
