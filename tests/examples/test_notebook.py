"""The notebook of examples/ runs from end to end, shows pictures, and computes what the library computes."""

import ast
import base64
import io
import json
import math
import os
import re
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("nbclient", reason="runs the notebook: pip install '.[dev]'")

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

import unstir
from conftest import copied
from unstir import Process, Run, Store, cosine, starting_noise
from unstir.diffusion.denoiser import Prediction, clipped
from unstir.diffusion.likelihood import variational_bound
from unstir.diffusion.loss import denoising_loss
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.pixels import from_uint8
from unstir.theory.oracle import FiniteData

pytestmark = pytest.mark.slow
FILE = Path(__file__).parents[2] / "examples/unstir.ipynb"
MEASURED, STRIDE = 16, 10
QUICK = f'STEPS, STRIDE, MEASURED, JUDGED, FOLDER = 12, {STRIDE}, {MEASURED}, 24, "made"'
"""The same cells with less training, fewer images and shorter chains."""

KEPT = """
torch.save(
    {"walked": walked, "jumped": jumped, "bayes": bayes, "posterior": (posterior.mean.item(), posterior.var),
     "copies": copies, "by_time": by_time, "mean_loss": mean_loss, "drawn": drawn, "guided": guided,
     "bits": bits, "strip": strip, "way": way,
     "figures": {figure.name: figure.by_seed for figure in evaluation.figures.values()}},
    "found.pt",
)
"""


def source(notebook):
    """Its cells of code by their ids, without what is for IPython alone."""
    lines = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    return {name: re.sub(r"^( *)%.*", r"\1pass", text, flags=re.MULTILINE) for name, text in lines.items()}


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(FILE, as_version=4)


@pytest.fixture(scope="module")
def executed(classified, tmp_path_factory):
    """The notebook after all its cells ran, ``found`` in its variables, in a ``folder`` with packed digits."""
    folder, notebook = tmp_path_factory.mktemp("notebook"), nbformat.read(FILE, as_version=4)
    copied(classified, folder / "made/data", classifier=True)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += f"\n{QUICK}"
    notebook.cells.append(nbformat.v4.new_code_cell(KEPT))
    with tempfile.TemporaryDirectory() as short:  # a socket's name is at most 107 bytes long
        run(notebook, folder, Path(short))
    found = torch.load(folder / "found.pt", weights_only=True)
    return SimpleNamespace(notebook=notebook, folder=folder, found=SimpleNamespace(**found))


class ThisPython(AsyncKernelManager):
    """Starts a kernel of the Python that runs the tests, whatever kernels are installed."""

    @property
    def kernel_spec(self):
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])


def run(notebook, folder, sockets):
    """Run a notebook in a folder; the kernel is reached through sockets in another, and none of its own files stay."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": str(sockets / "ipython"), "PYTHONWARNINGS": "default"}
    where = {"transport": "ipc", "ip": str(sockets / "kernel"), "connection_file": str(sockets / "kernel.json")}
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.km = ThisPython(**where)
    client.owns_km = True  # so that it is shut down
    client.execute(env=environment)


def test_it_is_valid_and_holds_what_its_cells_show(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        assert not re.fullmatch("[0-9a-f]{8}", cell.id)  # a cell has a name that says what it is
        assert "execution_count" not in cell or cell.execution_count is None
    assert_shows(notebook)
    assert not re.search(r"/(tmp|root|home)/", FILE.read_text(encoding="utf-8"))  # of the machine that ran it


def test_it_uses_the_front_door_alone(notebook):
    tree = ast.parse("\n".join(source(notebook).values()))
    imported = [
        (getattr(node, "module", None), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    names = [name for module, name in imported if module == "unstir"]
    assert len(names) > 10 and set(names) <= set(unstir.__all__)
    assert not [each for each in imported if any((part or "").startswith("unstir.") for part in each)]


def test_its_links_and_sections_are_there(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    files = [link for link in links if not link.startswith("https://")]
    assert "../docs/theory.md" in files and all((FILE.parent / file).is_file() for file in files)
    theory = (FILE.parents[1] / "docs/theory.md").read_text(encoding="utf-8")
    sections = re.findall(r"§ (\d\.\d)", text)
    assert len(sections) >= 10 and all(f"\n### {section} " in theory for section in sections)


def test_every_cell_runs_and_pictures_are_shown(executed):
    assert_shows(executed.notebook)


def assert_shows(notebook):
    """The output of a notebook's cells is text without warnings, and the pictures, none of which is blank."""
    outputs = [(cell.id, each) for cell in notebook.cells for each in cell.get("outputs", ())]
    assert {each.output_type for _, each in outputs} == {"stream", "display_data"}
    assert not [each.text for _, each in outputs if each.get("name") == "stderr"]
    pictures = [each.data["image/png"] for _, each in outputs if each.output_type == "display_data"]
    assert len(pictures) == 13
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        assert pixels.shape[1] > 300 and pixels.std() > 20 and len(np.unique(pixels)) > 50


def abar(t):
    """The cosine schedule by its formula (Nichol & Dhariwal 2021, eq. 17), where beta is not clipped."""
    return (math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2


def test_the_walk_ends_as_the_formula_says(executed):
    mean, std = math.sqrt(abar(500)) * 0.5, math.sqrt(1 - abar(500))
    assert executed.found.jumped == pytest.approx((mean, std), rel=1e-9)
    walked = executed.found.walked
    assert abs(walked[0] - mean) < 4 * std / math.sqrt(1e5) and abs(walked[1] - std) < 4 * std / math.sqrt(2e5)


def test_bayes_rule_on_a_grid_is_the_posterior(executed):
    at_s, at_t = abar(400), abar(500)
    beta = 1 - at_t / at_s
    a, b = math.sqrt(at_t / at_s) * (1 - at_s) / (1 - at_t), math.sqrt(at_s) * beta / (1 - at_t)
    right = a * -0.6 + b * 0.5, (1 - at_s) / (1 - at_t) * beta
    assert executed.found.posterior == pytest.approx(right, rel=1e-9)
    assert executed.found.bayes == pytest.approx(right, rel=1e-9)


@pytest.fixture(scope="module")
def data(executed):
    store = Store.open(executed.folder / "made/data")
    return {split: (from_uint8(store.images(split)), store.labels(split)) for split in ("train", "held_out")}


def test_the_perfect_denoiser_only_copies(executed, data):
    images, copies = data["train"][0].flatten(1), executed.found.copies.flatten(1)
    assert torch.cdist(copies, images).amin(1).max() < 1e-5
    assert len(torch.unique(copies, dim=0)) == 10


def test_each_estimate_is_shown_with_the_state_and_time_that_it_was_made_from(executed, data):
    """Of the exact denoiser and of the network; a sampler's step holds the state after it, and the estimate before."""
    process, exact = Process(cosine(1000)), FiniteData(data["train"][0])
    strip, way = executed.found.strip, executed.found.way
    for pairs in (strip, way):
        assert len(pairs) == 10 and pairs[0][0] == 1000 and all(s < t for (t, *_), (s, *_) in pairwise(pairs))
    for t, x_t, x0 in strip:
        right = exact.estimate(x_t, process.schedule.alpha(t), process.schedule.sigma(t))
        torch.testing.assert_close(x0, right, rtol=1e-3, atol=1e-3)
    denoise = clipped(Run.open(executed.folder / "made/run").model(device="cpu").denoise(torch.arange(4)))
    for t, x_t, x0 in way:
        with torch.no_grad():
            torch.testing.assert_close(x0, denoise(x_t, t).x0, rtol=1e-4, atol=1e-4)


def test_the_floor_is_that_of_the_oracle(executed, data):
    """The curve that is drawn last is the exact denoiser's on digits that it does not know."""
    (known, classes), process = data["train"], Process(cosine(1000))
    for split, name in (("train", "exact, training digits: the floor"), ("held_out", "exact, held-out digits")):
        x_0, label = (each[:MEASURED] for each in data[split])
        by_time = []
        for t in range(25, 1000, 50):
            x_t = process.diffuse(x_0, t, starting_noise(t, torch.arange(MEASURED), (1, 8, 8)))
            error = torch.zeros(MEASURED)
            for each in range(10):
                rows = label == each
                x0 = FiniteData(known[classes == each]).estimate(x_t[rows], math.sqrt(abar(t)), math.sqrt(1 - abar(t)))
                error[rows] = (x0 - x_0[rows]).square().flatten(1).mean(1)
            by_time.append(error.mean().item() / (1 - abar(t)))
        assert executed.found.mean_loss[name] == pytest.approx(sum(by_time) / 20, rel=1e-3)
    assert executed.found.by_time == pytest.approx(by_time, rel=1e-3)


def test_the_loss_of_the_network_is_that_of_training(executed, data):
    denoiser = Run.open(executed.folder / "made/run").model(device="cpu").denoiser
    for split, name in (("train", "network, training digits"), ("held_out", "network, held-out digits")):
        x_0, label = (each[:MEASURED] for each in data[split])
        by_time = []
        for t in range(25, 1000, 50):
            eps = starting_noise(t, torch.arange(MEASURED), (1, 8, 8))
            with torch.no_grad():
                by_time.append(denoising_loss(denoiser, x_0, torch.full((MEASURED,), t), eps, label).mse.mean().item())
        assert executed.found.mean_loss[name] == pytest.approx(sum(by_time) / 20, rel=1e-4)


def test_algorithm_2_by_hand_is_the_sampler(notebook, monkeypatch):
    process, times = Process(cosine(1000)), list(range(1000, -1, -100))
    (function,) = [each for each in ast.parse(source(notebook)["ancestral"]).body if isinstance(each, ast.FunctionDef)]
    space = {"torch": torch, "process": process, "pairwise": pairwise}
    exec(compile(ast.unparse(function), "ancestral", "exec"), space)

    def denoise(x, t):
        return Prediction(x0=torch.tanh(x) + t / 1000, raw=x)

    def noise(t):
        return starting_noise(t, torch.arange(3), (1, 8, 8))

    *_, last = ancestral(clipped(denoise), process, noise(1), times, noise, variance="small")
    drawn = map(noise, times)
    monkeypatch.setattr(torch, "randn_like", lambda _: next(drawn))
    by_hand = space["ancestral"](denoise, noise(1), times)
    assert next(drawn) is not None and next(drawn, None) is None  # a noise for each step
    torch.testing.assert_close(by_hand, last.x, rtol=1e-5, atol=1e-5)
    assert by_hand.std() > 0.1


def printed(executed, name):
    """What a cell printed."""
    (cell,) = [each for each in executed.notebook.cells if each.id == name]
    return "".join(each.text for each in cell.outputs if each.output_type == "stream")


def test_the_samplers_and_scales_differ_as_their_names_say(executed):
    drawn = executed.found.drawn
    assert all(images.shape == (10, 1, 8, 8) and images.isfinite().all() for images in drawn.values())
    end = drawn[f"DDIM, {1000 // STRIDE}"]
    distance = {name: (images - end).square().mean().sqrt().item() for name, images in drawn.items()}
    assert distance["ancestral, 50"] > distance["DDIM, 10"] > distance["DDIM, 50"]
    shown = dict(re.findall(r"^(D.*?) +(0\.\d{4})$", printed(executed, "compare"), re.MULTILINE))
    assert len(shown) == 4 and shown == {name: f"{distance[name]:.4f}" for name in shown}
    unguided, plain, *_ = executed.found.guided
    assert not torch.equal(unguided, plain)


def test_the_bits_are_those_of_the_bound(executed, data):
    model = Run.open(executed.folder / "made/run").model(device="cpu")
    x_0, label = (each[: MEASURED // 8] for each in data["held_out"])
    slots = torch.arange(len(x_0))
    with torch.no_grad():
        right = variational_bound(
            clipped(model.denoise(label)),
            model.process,
            x_0,
            lambda t: starting_noise(t, slots, (1, 8, 8)),
            times=range(1000, -1, -STRIDE),
        )
    bits = executed.found.bits.double()
    assert len(bits) == 1000 // STRIDE + 1
    assert bits.sum().item() == pytest.approx(right.bits_per_dim.mean().item(), rel=1e-4)
    assert bits[0].item() == pytest.approx(right.to_bits(right.decoder).mean().item(), rel=1e-4)
    assert bits[-1].item() == pytest.approx(right.to_bits(right.prior).mean().item(), rel=1e-3, abs=1e-9)
    first = f"{bits[:10].sum():.2f} in the first ten of {1000 // STRIDE + 1} terms"
    assert printed(executed, "bound").startswith(f"{bits.sum():.2f} bits/dim, {first}; ")


def test_the_figures_are_those_kept_with_the_run(executed):
    (kept,) = (executed.folder / "made/run/evaluation").glob("*.json")
    figures = json.loads(kept.read_text())["figures"]
    assert {each["name"]: tuple(each["by_seed"]) for each in figures.values()} == executed.found.figures
    assert {"FD-classifier", "class accuracy"} <= set(executed.found.figures)
