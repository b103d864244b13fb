"""The network as ONNX: any batch, outputs equal on fresh inputs, and every sampler on ONNX Runtime."""

import json
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import untrained

from unstir.chain import SAMPLERS, Chain
from unstir.data.disk import file_sha256
from unstir.diffusion.draw import draw
from unstir.errors import MissingLibraryError, UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.interop import exporting, onnx_file
from unstir.interop.exporting import export
from unstir.interop.onnx_file import OnnxNetwork, on_onnxruntime
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.pixels import Scale
from unstir.runs.conditions import Conditions
from unstir.runs.run import Run
from unstir.theory.process import Process
from unstir.theory.schedule import cosine

onnxruntime = pytest.importorskip("onnxruntime", reason="what is compared with: pip install '.[onnx]'")

pytestmark = pytest.mark.slow
GUIDED = {"model__num_classes": 10, "train__condition_dropout": 0.2, "model__attention": [1], "model__mults": [1, 1]}


@pytest.fixture
def run(shared, tmp_path):
    """A run by class with hidden labels, whose network ONNX Runtime has computed before: its folder, copied."""

    def make(folder):
        made = untrained(folder, (1, 4, 8), **GUIDED)
        list(sample_batches(on_onnxruntime(made.model(device="cpu")), Job(num=1, chain=Chain("ddim", 1))))

    return Run.open(shutil.copytree(shared("onnx", make), tmp_path / "run"))


def test_any_batch_gives_the_outputs_of_the_network_and_the_file_says_what_it_is(run):
    (file,) = (run.path / "onnx").glob("*.onnx")
    model = run.model(device="cpu")
    net, written = model.denoiser.net, OnnxNetwork(file)
    for num in (1, 2, 5):
        x, t, label = torch.randn(num, 1, 4, 8), torch.randint(20, (num,)), torch.randint(11, (num,))
        with torch.no_grad():
            expected = net(x, t, label)
        assert (written(x, t, label) - expected).abs().max() < 1e-5 * expected.abs().max()
    session = onnxruntime.InferenceSession(str(file))
    assert [(given.name, given.shape) for given in session.get_inputs()] == [
        ("x", ["batch", 1, 4, 8]), ("t", ["batch"]), ("label", ["batch"]),
    ]  # fmt: skip
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["unstir"])
    assert metadata["weights"] == model.weights_sha256 and file.stem == model.weights_sha256[:16]
    assert metadata["diffusion"]["T"] == 20 and metadata["has_null"] and metadata["classes"][3] == "digit 3"


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_a_run_with_conditions_is_drawn_as_torch_draws_it(kind, tmp_path):
    rows = torch.randn(3, 2) if kind == "vector" else torch.rand(3, 2, 4, 8)
    sizes = {"condition_values": 2} if kind == "vector" else {"condition_channels": 2}
    net = UNet(UNetConfig(in_channels=1, channels=8, mults=(1, 1), groups=4, attention=(), **sizes))
    given = {"predict": "v", "conditions": Conditions.of(rows, hides=True), "scale": Scale((0,), (4,))}
    run = Run.create(tmp_path / "run", net, Process(cosine(20)), (1, 4, 8), **given)
    model, job = run.model(device="cpu"), Job(num=3, chain=Chain("ddim", 4, guidance=2.0), batch_size=3)
    exported = export(model, "onnx", tmp_path / "file")
    assert exported.error < 1e-5
    metadata = onnxruntime.InferenceSession(str(exported.folder / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["unstir"])["scale"] == [[0, 4]]
    kept = tmp_path / "run/onnx" / f"{model.weights_sha256[:16]}.onnx"  # the engine's own would be the same
    kept.parent.mkdir()
    shutil.copy(exported.folder / "model.onnx", kept)
    kept.with_suffix(".sha256").write_text(f"{file_sha256(kept)}\n")
    ((_, ours),), ((_, theirs),) = (list(sample_batches(each, job)) for each in (model, on_onnxruntime(model)))
    assert (ours.clamp(-1, 1) - theirs.clamp(-1, 1)).abs().max() < 2 / 255


def test_every_sampler_draws_the_pictures_of_torch(run):
    model = run.model(device="cpu")
    engine = on_onnxruntime(model)
    for name in SAMPLERS:
        job = Job(num=2, chain=Chain(name, 4, guidance=2.0), batch_size=2)
        ((_, ours),), ((_, theirs),) = list(sample_batches(model, job)), list(sample_batches(engine, job))
        assert (ours.clamp(-1, 1) - theirs.clamp(-1, 1)).abs().max() < 2 / 255, name
    assert isinstance(engine.denoiser.net, OnnxNetwork) and isinstance(engine.unloaded().denoiser.net, OnnxNetwork)


def test_the_command_says_which_engine_drew_and_does_not_mix_them(run, unstir, refused):
    words = "sample", run.path, "--num", 2, "--steps", 2
    assert unstir(*words, "--engine", "onnxruntime", "--out", "made")[0] == 0
    with open("made/settings.json") as file:
        assert json.load(file)["engine"] == "onnxruntime"
    refused(unstir(*words, "--out", "made"), "onnxruntime", "torch")
    refused(unstir(*words, "--engine", "onnxruntime", "--dtype", "bfloat16"), "--dtype bfloat16", "--dtype float32")
    refused(unstir(*words, "--engine", "onnxruntime", "--compile", "yes"), "--compile yes", "--compile no")
    refused(unstir(*words, "--engine", "tensorrt"), "--engine tensorrt")


def test_an_export_draws_with_numpy_and_what_is_missing_is_a_line(run, tmp_path, unstir, refused, monkeypatch):
    (known,) = (run.path / "onnx").glob("*.onnx")  # the exporter takes seconds
    monkeypatch.setattr(exporting, "write_onnx", lambda model, file: shutil.copy(known, file))
    done = export(run.model(device="cpu"), "onnx", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "README.md", "sample.py"}
    assert done.error < 1e-5
    monkeypatch.chdir(tmp_path / "out")
    drawn, model = runpy.run_path("sample.py"), run.model(device="cpu")
    x_T = torch.from_numpy(np.random.default_rng(0).standard_normal((16, 1, 4, 8))).float()
    *_, end = draw(model.denoise(torch.arange(16) % 10), model.process, x_T, torch.arange(16), Chain("ddim", 20))
    assert np.abs(drawn["x"] - end.x.numpy()).max() < 1e-4
    with Image.open("samples.png") as picture:
        assert picture.size == (64, 8)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(unstir("export", run.path, "--to", "onnx", "--out", "o"), "needs onnxscript", "'.[onnx]'")
    with pytest.raises(MissingLibraryError):
        on_onnxruntime(run.model(device="cpu"))


@pytest.mark.parametrize(("kind", "channels", "scale"), [
    ("eps", 3, {}), ("x0", 5, {}), ("v", 2, {"scale": [[0, 4], [-100, 100]]}),
])  # fmt: skip
def test_the_sampler_of_an_export_finds_the_image_whatever_the_network_predicts(
    tmp_path, monkeypatch, kind, channels, scale
):
    schedule, image = cosine(30), np.random.default_rng(1).uniform(-1, 1, (channels, 4, 4))
    about = {"abar": [schedule.abar(t) for t in range(31)], "shape": [channels, 4, 4], "steps": 5, **scale}
    about["diffusion"] = {"predict": kind}

    class Session:
        def __init__(self, file):
            self.custom_metadata_map = {"unstir": json.dumps(about)}

        def get_modelmeta(self):
            return self

        def get_inputs(self):
            return []

        def run(self, _, given):
            t = int(given["t"][0]) + 1
            x, alpha, sigma = given["x"], schedule.alpha(t), schedule.sigma(t)
            outputs = {"eps": (x - alpha * image) / sigma, "x0": image + 0 * x, "v": (alpha * x - image) / sigma}
            return [np.concatenate((outputs[kind], x), axis=1)]  # the second half is a variance

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(Path(onnx_file.__file__).with_name("onnx.md").read_text().split("```python\n")[1].split("```")[0], names)
    assert np.abs(names["x"] - image).max() < 1e-5
    assert (tmp_path / "samples.png").exists() == (channels == 3)
    if channels != 3:
        made, due = (
            np.load("samples.npy"),
            image[:2] * [[[2]], [[100]]] + [[[2]], [[0]]] if scale else image * 127.5 + 127.5,
        )
        assert made.dtype == (np.float32 if scale else np.uint8) and np.abs(made - due).max() <= (
            1e-3 if scale else 0.51
        )


@pytest.mark.parametrize("damage", ["a weight", "cut", "hash gone"])
def test_a_damaged_file_is_written_anew_and_never_computed_with(run, monkeypatch, damage):
    (file,) = (run.path / "onnx").glob("*.onnx")
    good, made = file.read_bytes(), []
    monkeypatch.setattr(onnx_file, "write_onnx", lambda model, file: made.append(file.write_bytes(good)))
    _ = on_onnxruntime(run.model(device="cpu")).denoiser.net
    assert not made
    weights = run.model(device="cpu").denoiser.net.label.weight.detach().numpy().tobytes()
    at = good.index(weights) + len(weights) - 1  # of a label that the comparison does not ask for
    if damage == "a weight":
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
    elif damage == "cut":
        file.write_bytes(good[:20_000])
    else:
        file.with_suffix(".sha256").unlink()
    model = on_onnxruntime(run.model(device="cpu"))
    assert isinstance(model.denoiser.net, OnnxNetwork) and file.read_bytes() == good and len(made) == 1
    _ = on_onnxruntime(run.model(device="cpu")).denoiser
    assert len(made) == 1


def test_a_file_that_is_none_of_onnx_with_its_hash_is_refused_in_one_line(run, unstir, refused, tmp_path):
    (file,) = (run.path / "onnx").glob("*.onnx")
    file.write_bytes(b"no network")
    file.with_suffix(".sha256").write_text(f"{file_sha256(file)}\n")
    words = ("sample", run.path, "--num", 2, "--engine", "onnxruntime", "--device", "cpu", "--out", "none")
    refused(unstir(*words), f"{file} cannot be read by ONNX Runtime")


def test_a_network_that_torch_cannot_export_is_refused_in_one_line(run, unstir, refused, monkeypatch):
    net = run.model(device="cpu").denoiser.net
    plain = type(net).forward

    def depends(self, x, *rest, **options):
        return plain(self, x, *rest, **options) if x.sum() > 0 else x

    shutil.rmtree(run.path / "onnx")
    monkeypatch.setattr(type(net), "forward", depends)
    words = ("sample", run.path, "--num", 2, "--device", "cpu", "--engine", "onnxruntime", "--out", "none")
    refused(unstir(*words), f"{run.path} cannot be exported", "--engine torch")
    assert not list((run.path / "onnx").iterdir())


def test_a_file_that_computes_something_else_is_not_kept(run, monkeypatch):
    shutil.rmtree(run.path / "onnx")
    monkeypatch.setattr(onnx_file, "write_onnx", lambda model, file: shutil.copy(run.path / "data.json", file))
    monkeypatch.setattr(onnx_file, "OnnxNetwork", lambda file: lambda x, t, label: x * 0)
    with pytest.raises(UserError) as error:
        _ = on_onnxruntime(run.model(device="cpu")).denoiser
    assert error.value.given == run.path and "differs" in error.value.allowed
    assert not list((run.path / "onnx").iterdir())
