"""Out to diffusers and back: the same bits, the same pictures, by diffusers' own pipelines and schedulers."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from untrained import untrained

from conftest import DISTILLED
from refusals import mistake, refusing
from unstir import randomness
from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.draw import starting_noise
from unstir.errors import UnwrittenError
from unstir.generate.drawing import Job, sample_batches
from unstir.interop import exporting
from unstir.interop.diffusers_settings import DDIM_STRIDES, to_diffusers
from unstir.interop.exporting import export
from unstir.interop.importing import import_run
from unstir.interop.published import write_repository
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.parts import library
from unstir.pixels import Scale
from unstir.randomness import Key
from unstir.runs import checkpoint
from unstir.runs.checkpoint import load
from unstir.runs.run import Run
from unstir.theory.process import Process
from unstir.theory.schedule import cosine

pytest.importorskip("diffusers", reason="the pipelines compared with: pip install '.[diffusers]'")

pytestmark = pytest.mark.slow
diffusers = library("diffusers", "diffusers", "this test")
COSINE = {"diffusion__schedule": "cosine", "diffusion__options": {}}
GUIDED = {"model__num_classes": 10, "train__condition_dropout": 0.2, **COSINE}
CASES = {
    "plain": {"model__attention": [1]},
    "guided": {**GUIDED, "diffusion__predict": "v", "model__heads": 2, "model__flip_sin_to_cos": True},
    "learned": {
        "model__scale_shift": True, "model__time_table": 20, "diffusion__learned_variance": True,
        "loss__objective": "hybrid", "train__augment": 0.5,
    },
    "guided learned": {
        **GUIDED, "diffusion__predict": "v", "diffusion__learned_variance": True, "loss__objective": "hybrid",
    },
    "zero": {
        "diffusion__zero_terminal_snr": True, "diffusion__predict": "x0", "diffusion__schedule": "sigmoid",
        "diffusion__options": {},
    },
    "rectangular": {
        "model__head_channels": 4, "model__attention": [0, 1], "grids__threshold": 0.9, "grids__spacing": "leading",
    },
}  # fmt: skip


@pytest.fixture
def there_and_back(tmp_path):
    """there_and_back("plain") -> the run, the folder it was exported to, and the run imported from that."""

    def go(case):
        run = untrained(tmp_path / "run", (1, 8, 12) if case == "rectangular" else (1, 8, 8), **CASES[case])
        export(run.model(device="cpu"), "diffusers", tmp_path / "out")
        return run, tmp_path / "out", import_run(tmp_path / "out", tmp_path / "back").run

    return go


def pictures(run, chain, num=3):
    return next(sample_batches(run.model(device="cpu"), Job(num=num, chain=chain, batch_size=num)))[1]


@pytest.mark.parametrize("case", CASES)
def test_weights_and_settings_come_back_to_the_bit(there_and_back, case):
    run, _, back = there_and_back(case)
    weights, again = (either.model().denoiser.net.state_dict() for either in (run, back))
    assert weights.keys() - again.keys() == ({"augment.weight"} if case == "learned" else set())
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.items())
    assert back.config.diffusion == run.config.diffusion
    assert back.config.model == run.config.model
    assert back.labels == run.labels and back.data.shape == run.data.shape
    assert "diffusers, SHA-256" in back.config.imported and str(back.path.parent / "out") in back.config.imported


def test_units_of_the_data_come_back_and_are_those_of_its_samples(tmp_path):
    net, scale = (
        UNet(UNetConfig(in_channels=2, channels=8, mults=(1, 1), groups=4, attention=())),
        Scale((0, -9), (4, 9)),
    )
    run = Run.create(tmp_path / "run", net, Process(cosine(20)), (2, 8, 8), predict="v", scale=scale)
    done = export(run.model(device="cpu"), "diffusers", tmp_path / "out")
    assert any("unstir.json" in note for note in done.notes)
    back = import_run(tmp_path / "out", tmp_path / "back").run
    assert back.data.scale == run.data.scale == scale and back.data.shape == (2, 8, 8)
    (tmp_path / "out/unstir.json").write_text('{"classes": [], "scale": [[0, 4]]}')
    with refusing("scale", [(0, 4)]):
        import_run(tmp_path / "out", tmp_path / "other")


def test_every_sampler_draws_the_same_pictures_there_and_back(there_and_back):
    run, _, back = there_and_back("guided")
    for name in SAMPLERS:
        chain = Chain(name, steps=5, guidance=2.0)
        assert torch.equal(pictures(run, chain), pictures(back, chain)), name


STEPS = "num_inference_steps"


class OurNoise:
    """What `randn_tensor` of diffusers gives in a pipeline: the noise of our images, call by call."""

    def __init__(self, chain, shape, num, times):
        slots = torch.arange(num)
        noises = [randomness.normal(Key(chain.seed, "sample", t, slots), shape) for t in times]
        self.left = [starting_noise(chain.seed, slots, shape), *noises]

    def __call__(self, shape, **_):
        assert tuple(shape) == self.left[0].shape
        return self.left.pop(0)


def drawn_by(monkeypatch, pipeline, noise, **options):
    for module in ("pipelines.ddpm.pipeline_ddpm", "pipelines.ddim.pipeline_ddim", "schedulers.scheduling_ddpm",
                   "schedulers.scheduling_ddim"):  # fmt: skip
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", noise)
    pipeline.set_progress_bar_config(disable=True)
    return torch.from_numpy(pipeline(batch_size=3, output_type="np", **options).images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("case", ["plain", "learned", "zero", "rectangular"])
def test_the_ddpm_pipeline_draws_our_pictures(there_and_back, monkeypatch, case):
    run, folder, _ = there_and_back(case)
    chain = Chain("ancestral", 20, threshold=run.chain().threshold)  # its variance is that of the whole chain
    noise = OurNoise(chain, run.data.shape, 3, range(20, 0, -1))
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder, local_files_only=True)
    theirs = drawn_by(monkeypatch, pipeline, noise, num_inference_steps=20)
    ours = (pictures(run, chain).clamp(-1, 1) + 1) / 2
    assert len(noise.left) == 1 and (theirs - ours).abs().max() < 1 / 255


@pytest.mark.parametrize("fixed", ["small", "large"])
def test_a_learned_variance_that_the_run_leaves_aside_is_drawn_with_and_said(tmp_path, unstir, monkeypatch, fixed):
    run = untrained(tmp_path / "run", **CASES["learned"], grids__variance=fixed)
    assert f"grids.variance={fixed} " in unstir.done("export", run.path, "--to", "diffusers", "--out", "out")
    assert f"grids.variance={fixed} " in Path("out/README.md").read_text()
    noise = OurNoise(run.chain(), run.data.shape, 3, range(20, 0, -1))
    theirs = drawn_by(monkeypatch, diffusers.DDPMPipeline.from_pretrained("out"), noise, num_inference_steps=20)
    ours = (pictures(run, Chain("ancestral", 20, variance="learned")).clamp(-1, 1) + 1) / 2
    assert (theirs - ours).abs().max() < 1 / 255


def test_the_ddim_pipeline_draws_our_pictures(there_and_back, monkeypatch):
    run, folder, _ = there_and_back("plain")
    chain = Chain("ddim", 10, eta=0.7)
    noise = OurNoise(chain, run.data.shape, 3, range(20, 0, -2))
    pipeline = diffusers.DDIMPipeline.from_pretrained(folder, local_files_only=True)
    options = {"eta": 0.7, "num_inference_steps": 10, "use_clipped_model_output": True}
    theirs = drawn_by(monkeypatch, pipeline, noise, **options)
    ours = (pictures(run, chain).clamp(-1, 1) + 1) / 2
    assert (theirs - ours).abs().max() < 1 / 255


@pytest.mark.parametrize(
    ("spacing", "steps", "alike"),
    [
        ("trailing", 5, True), ("trailing", 6, False), ("leading", 6, True), ("linspace", 5, False),
        ("linspace", 20, True),
    ],
)  # fmt: skip
def test_what_ddim_pipelines_draw_in_other_numbers_of_steps_is_as_noted(tmp_path, monkeypatch, spacing, steps, alike):
    run = untrained(tmp_path / "run", **CASES["plain"], grids__spacing=spacing)
    notes = " ".join(export(run.model(device="cpu"), "diffusers", tmp_path / "out").notes)
    chain = Chain("ddim", steps, spacing)
    times = chain.visited(run.model(device="cpu").process.schedule)[:-1]
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    noise = OurNoise(chain, run.data.shape, 3, times)
    theirs = drawn_by(monkeypatch, pipeline, noise, num_inference_steps=steps, use_clipped_model_output=True)
    off = (theirs - (pictures(run, chain).clamp(-1, 1) + 1) / 2).abs().max()
    assert off < 1e-5 if alike else off > 1 / 255
    notable = {"trailing": "divides 20", "linspace": "20 steps"}
    assert (DDIM_STRIDES in notes) == (spacing in notable)
    assert notable.get(spacing, "") in notes


def test_with_float32_tables_of_a_thousand_times_the_pictures_are_the_same(tmp_path, monkeypatch):
    settings = {"diffusion__T": 1000, "diffusion__options": {"beta_1": 1e-4, "beta_T": 0.02}, "grids__steps": 50}
    settings["grids__variance"] = "small"
    run = untrained(tmp_path / "run", **settings, model__mults=[1], model__attention=[])
    export(run.model(device="cpu"), "diffusers", tmp_path / "out")
    noise = OurNoise(run.chain(), run.data.shape, 3, range(1000, 0, -20))
    theirs = drawn_by(monkeypatch, diffusers.DDPMPipeline.from_pretrained(tmp_path / "out"), noise, **{STEPS: 50})
    assert (theirs - (pictures(run, run.chain()).clamp(-1, 1) + 1) / 2).abs().max() < 1 / 255


@pytest.mark.parametrize("case", ["guided", "guided learned"])
def test_the_readme_draws_our_pictures_of_classes(there_and_back, monkeypatch, tmp_path, case):
    run, folder, _ = there_and_back(case)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "[0, 1, 2, 3]" in code and "0 is digit 0" in code
    chain = Chain("ancestral", 20, guidance=2.0)
    noise = OurNoise(chain, run.data.shape, 4, range(20, 0, -1))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", noise)
    monkeypatch.setattr(torch, "randn", lambda *shape: noise(shape))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert (names["images"] - (pictures(run, chain, 4).clamp(-1, 1) + 1) / 2).abs().max() < 1e-5


def test_an_export_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    def swapped(weights):
        return {name.replace("to_q", "to_x").replace("to_k", "to_q").replace("to_x", "to_k"): t for name, t in
                to_diffusers(weights).items()}  # fmt: skip

    run = untrained(tmp_path / "run", **CASES["plain"])
    monkeypatch.setattr(exporting, "to_diffusers", swapped)
    error = mistake(export, run.model(device="cpu"), "diffusers", tmp_path / "out")
    assert error.given == run.path and "differs" in error.allowed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("owner", "name", "error", "to", "unwritten"),
    [
        (diffusers.DDPMPipeline, "save_pretrained", SafetensorError(FULL), "diffusers", "out"),
        (diffusers.DDPMPipeline, "save_pretrained", OSError(FULL), "diffusers", "out"),
        (checkpoint, "save_file", OSError(28, "No space left"), "safetensors", "out/step-00000012.safetensors"),
        (diffusers.UNet2DModel, "from_pretrained", FileNotFoundError("config.json"), "diffusers", None),  # as it is
    ],
)
def test_an_export_that_fails_leaves_nothing(tmp_path, watched, owner, name, error, to, unwritten):
    model = untrained(tmp_path / "run", **CASES["plain"]).model(12, device="cpu")
    watched(owner, name, error)
    repository = lambda model, _, folder: write_repository(model, "me/x", folder)
    for write in (export, repository) if to == "diffusers" else (export,):
        with pytest.raises(UnwrittenError if unwritten else FileNotFoundError) as refusal:
            write(model, to, tmp_path / "out")
        assert refusal.value.filename == (unwritten and str(tmp_path / unwritten))
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model__heads": 2, "model__attention": [0, 1]}, "model.heads"),
        (DISTILLED, ""),
    ],
)
def test_what_diffusers_has_not_is_refused_and_nothing_written(tmp_path, changes, key):
    run = untrained(tmp_path / "run", **changes)
    with refusing(key, 2 if key else run.path):
        export(run.model(device="cpu"), "diffusers", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_replaced_and_an_unknown_target_are_refused(tmp_path, unstir, refused, monkeypatch):
    run = untrained(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    Path("link").symlink_to(tmp_path / "empty", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "empty")
    refused(unstir("export", run.path, "--to", "diffusers", "--out", run.path), f"--out {run.path}")
    for to, out, key in (("safetensors", ".", "out"), ("safetensors", "../link", "out"), ("keras", "o", "to")):
        error = mistake(export, run.model(), to, out)
        assert error.key == key and str(error.given) == (out if key == "out" else to)


def test_without_the_library_the_remedy_is_one_line(tmp_path, unstir, refused, monkeypatch):
    run = untrained(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    refused(unstir("export", run.path, "--to", "diffusers", "--out", "out"), "'.[diffusers]'")
    assert not Path("out").exists()


def test_the_optimal_variance_goes_with_the_slim_file_and_not_to_diffusers(tmp_path):
    run = untrained(tmp_path / "run", grids__variance="optimal", log__held_out_images=8)
    model = replace(run.model(device="cpu"), errors=torch.linspace(0, 1, 21, dtype=torch.float64))
    with refusing("grids.variance", "optimal"):
        export(model, "diffusers", tmp_path / "theirs")
    (file,) = export(model, "safetensors", tmp_path / "slim").folder.iterdir()
    again = run.model(load(file))
    assert torch.equal(again.errors, model.errors) and again.weights_sha256 == model.weights_sha256
    again.check(run.chain())
    with refusing("variance", "optimal"):
        run.model().check(run.chain())


def test_the_slim_file_begins_a_run_and_is_the_model(tmp_path, unstir):
    run = untrained(tmp_path / "run", **CASES["guided"])
    status, out, _ = unstir("export", run.path, "--to", "safetensors", "--out", "slim")
    (file,) = Path("slim").iterdir()
    assert status == 0 and "exported slim" in out and file.name == "step-00000012.safetensors"
    slim, saved = load(file), run.load()
    assert slim.config == saved.config and slim.data == saved.data and slim.ema and slim.kind == "slim"
    assert all(torch.equal(slim.part("model")[name], tensor) for name, tensor in saved.part("model").items())
