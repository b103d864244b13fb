"""The library with torch (and its filelock), numpy, safetensors, Pillow and pydantic: what others add is left out.

And the same without what Windows lacks of POSIX.
"""

import subprocess
import sys

import pytest

WINDOWS = """
import os, signal, sys

sys.modules.update(dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios"), None))
del os.O_NOFOLLOW, os.O_DIRECTORY, os.sysconf, os.sched_getaffinity, signal.SIGHUP


def opened(path, *rest, original=os.open, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return original(path, *rest, **named)


os.open = opened
import pkgutil, unstir

for module in pkgutil.walk_packages(unstir.__path__, "unstir."):
    if module.name != "unstir.__main__":
        __import__(module.name)

import runpy

open("weights.pt", "wb").close()
sys.argv = ["", "weights.pt", "weights.safetensors"]
try:
    runpy.run_path(unstir.interop.torch_file.__file__, run_name="__main__")
except SystemExit as error:
    print("Windows" in error.code)
"""

PROGRAM = """
import sys
from importlib.machinery import PathFinder

HIDDEN = {"cyclopts", "rich", "matplotlib", "jinja2", "diffusers", "datasets", "pyarrow"}


class Few:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Few

import logging
from dataclasses import replace

import numpy as np
import torch
import unstir

logging.basicConfig(level=logging.WARNING, format="%(message)s")
images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
store = unstir.pack(images, "packed", channels=1)
recipe = unstir.load_recipe("digits")
config = replace(
    recipe,
    data=replace(recipe.data, source="packed"),
    model=replace(recipe.model, channels=4, mults=(1,), num_blocks=1, attention=(), groups=2),
    train=replace(recipe.train, length="2 steps", warmup="0 steps", batch_size=4, micro_batch=4),
    grids=replace(recipe.grids, num=2, steps=2),
    log=replace(recipe.log, held_out_images=2, held_out_times=2),
)
training = unstir.train_run(config, "run")
job = unstir.Job(num=36, chain=unstir.Chain("ddim", steps=2))
unstir.sample(training.run.model(), job, "made")
model, indices = training.run.model(), torch.arange(2)
x_T = unstir.starting_noise(0, indices, model.shape)
steps = unstir.draw(model.denoise(None), model.process, x_T, indices, unstir.Chain("dpmpp_2m", steps=2))
evaluation, _ = unstir.evaluate_images("made", store, unstir.EvaluationRequest(num=12, seeds=3))
print([step.t for step in steps][-1], training.step, len(evaluation.figures) > 0)
print(unstir.Run.open("run").config == training.run.config)
try:
    unstir.Bars
except ImportError as error:
    print(error.name)
"""


def run(program, folder):
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


def test_training_sampling_and_judging_need_few_packages(tmp_path):
    done = run(PROGRAM, tmp_path)
    assert done.stdout.split() == ["0", "2", "True", "True", "rich"], done.stderr
    assert done.stderr.count("matplotlib is not installed") == 1
    assert (tmp_path / "made/000035.png").exists() and not (tmp_path / "run/curves.png").exists()


@pytest.mark.slow
def test_every_module_is_imported_and_a_run_made_without_what_windows_lacks(tmp_path):
    done = run(WINDOWS + PROGRAM, tmp_path)
    assert done.stdout.split() == ["True", "0", "2", "True", "True"], done.stderr
