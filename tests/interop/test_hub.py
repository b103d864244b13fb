"""Models on the Hub, by the real client against a stand-in server: published, fetched, and refused in one line."""

import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import Hub
from PIL import Image
from untrained import CLASSES, untrained

from conftest import DISTILLED
from refusals import refusing
from unstir.chain import Chain
from unstir.generate.drawing import Job, sample_batches
from unstir.interop import published
from unstir.interop.exporting import export
from unstir.interop.hub import FROM_CACHE
from unstir.interop.importing import import_run
from unstir.interop.model_card import Page, card
from unstir.interop.published import public, pull, push, write_repository
from unstir.metrics.evaluation import Evaluation, own
from unstir.metrics.evaluation import save as save_evaluation
from unstir.metrics.figures import Figure
from unstir.nn.config import ModelConfig, UNetConfig
from unstir.nn.unet import UNet
from unstir.parts import VARIABLE
from unstir.pictures.grid import named_grid, read
from unstir.pixels import Scale
from unstir.runs.conditions import Conditions
from unstir.runs.recipes import load_recipe
from unstir.runs.run import Run
from unstir.theory.process import Process
from unstir.theory.schedule import cosine

hub_library = pytest.importorskip("huggingface_hub", reason="pip install '.[hub]'")
pytest.importorskip("diffusers", reason="what is published is also of diffusers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]  # of the client
TOKEN = "hf_write"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, as whose user one is logged in; the client is told of it as HF_ENDPOINT would."""
    server, constants = Hub(), hub_library.constants
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()


def evaluated(run, **changes):
    """The figures of the run's step with its own weights, which nobody measured."""
    model = run.model(12, device="cpu")
    protocol = {
        "num": 24, "seeds": 2, "split": "train", "num_reference": 1498, "data": run.data.content_hash, "flip": False,
        "rounding": "uint8, to nearest", "networks": {"classifier": "c" * 64}, "classifier": None, "label": None,
        "sampler": "ddim", "steps": 20, "calls": 20, "seed": 0, "dtype": "float32", "ema": model.averaged, **changes,
    }  # fmt: skip
    figure = Figure(name="FD-classifier", better="lower", by_seed=(1.25, 1.5), floor=0.5, num_floor=24, ceiling=90.0)
    figures = {"classifier/fd": figure}
    evaluation = Evaluation(step=12, images=96, **model.marks, protocol=protocol, figures=figures)
    save_evaluation(run, evaluation)
    return evaluation


def drawn(model):
    job = Job(num=3, chain=Chain("ddim", 4), batch_size=3)
    return torch.cat([images for _, images in sample_batches(model, job)])


def test_a_run_is_published_and_pulled_and_draws_the_same(hub, tmp_path, unstir):
    run = untrained(tmp_path / "run", data__source="/home/me/secret/photos", train__init="/home/me/other@3")
    figures = evaluated(run)
    status, out, err = unstir(
        "push", run.path, "me/ddpm-digits", "--licence", "apache-2.0", "--data-licence", "CC BY 4.0 | mine"
    )
    assert status == 0 and f"published {hub.address}/me/ddpm-digits" in out, err
    files = hub.files("me/ddpm-digits")
    kept = {"config.toml", "data.json", "weights/step-00000012.safetensors", f"evaluation/{figures.name()}.json",
            "README.md", "samples.png", "model_index.json", "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"}  # fmt: skip
    assert kept <= set(files) and not any(path.startswith(("events", "run/")) for path in files)
    assert not any(b"/home/me" in data or b"secret" in data for data in files.values())
    card = files["README.md"].decode()
    data = hub_library.ModelCard(card).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0", "diffusers", "unconditional-image-generation",
    )  # fmt: skip
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value[:6]) == ("photos", "FD-classifier", "1.38 ±")
    assert result.metric_args == {"protocol": f"evaluation/{figures.name()}.json"} and "samples.png)" in card
    for words in ("FD-classifier | 1.38 ± ", "| 0.5 | 90 |", "CC BY 4.0 \\| mine", "source: photos"):
        assert words in card, words
    status, _, err = unstir("pull", "me/ddpm-digits", "--out", "pulled")
    assert (status, err) == (0, "")
    again = Run.open("pulled")
    assert again.config.imported.startswith("me/ddpm-digits@") and again.config.data.source == "photos"
    ours, theirs = run.model(12, device="cpu"), again.model(device="cpu")
    assert theirs.weights_sha256 == ours.weights_sha256 and theirs.averaged == ours.averaged
    assert torch.equal(drawn(ours), drawn(theirs))
    assert own(again) == [replace(figures, run=again.data.run)] and again.data.run != run.data.run
    status, _, err = unstir("train", "--out", "pulled")
    assert status == 2 and "Traceback" not in err


def test_a_run_with_conditions_is_pulled_with_them(hub, tmp_path, unstir):
    net = UNet(UNetConfig(in_channels=1, channels=8, mults=(1, 1), groups=4, attention=(), condition_values=2))
    given = {"predict": "v", "conditions": Conditions.of(torch.randn(3, 2), (1, 2), (3, 4)), "scale": Scale((0,), (4,))}
    run = Run.create(tmp_path / "run", net, Process(cosine(20)), (1, 8, 8), **given)
    status, _, err = unstir("push", run.path, "me/told", "--licence", "mit")
    assert status == 0 and "conditions.npy" in hub.files("me/told"), err
    page = hub.files("me/told")["README.md"].decode()
    for words in (
        "images, imported with unstir",
        "images: not known",
        "float32; -1..1 is 0..4",
        "condition: stored, 2",
    ):
        assert words in page, words
    unstir.done("pull", "me/told", "--out", "pulled")
    pulled = Run.open("pulled")
    assert pulled.data.scale == run.data.scale
    assert torch.equal(pulled.conditions.kept, run.conditions.kept) and pulled.data.condition == run.data.condition
    assert torch.equal(drawn(pulled.model(device="cpu")), drawn(run.model(device="cpu")))


def test_figures_that_cannot_be_read_are_said_to_be_so(tmp_path, monkeypatch):
    run = untrained(tmp_path / "run")
    evaluated(run)
    write_repository(run.model(12, device="cpu"), "me/x", tmp_path / "there")
    (tmp_path / "there/evaluation/lost.json").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr(published.hub, "fetch", lambda *_, **__: (tmp_path / "there", "me/x@0", ()))
    done = pull("me/x", tmp_path / "pulled")
    assert len(own(done.run)) == 1 and "figures of evaluation/" in done.notes[-1]
    (tmp_path / "there/evaluation/lost.json").unlink()
    assert pull("me/x", tmp_path / "again").notes == ()


def test_a_later_step_replaces_the_one_before_in_one_commit(hub, tmp_path):
    run = untrained(tmp_path / "run")
    evaluated(run)
    push(run.model(12, device="cpu"), "me/again")
    first = set(hub.files("me/again"))
    shutil.rmtree(run.path / "evaluation")
    (run.weights / "step-00000012.safetensors").unlink()
    other = untrained(tmp_path / "other", model__scale_shift=True)
    push(other.model(12, device="cpu"), "me/again")
    assert len(hub.repositories["me/again"]) == 3  # the Hub's own first one, and a commit each
    assert {path for path in first if path.startswith("evaluation/")} and not any(
        path.startswith("evaluation/") for path in hub.files("me/again")
    )
    assert pull("me/again", tmp_path / "pulled").run.config.model.scale_shift


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model__heads": 2, "model__attention": [0, 1], "model__mults": [1, 2]}, "model.heads=2"),
        (DISTILLED, "distilled"),
    ],
)
def test_what_diffusers_has_not_is_published_without_it_and_names_no_folder_of_the_machine(hub, tmp_path, changes, why):
    run = untrained(tmp_path / "secret" / "run", **changes)
    done = push(run.model(12, device="cpu"), "me/fast")
    files = hub.files("me/fast")
    assert why in done.notes[0] and why.encode() in files["README.md"] and b"library_name: unstir" in files["README.md"]
    assert not any(path.startswith("unet/") for path in files)
    assert not any(str(tmp_path).encode() in data or b"secret" in data for data in files.values())
    pulled = pull("me/fast", tmp_path / "pulled").run.config
    assert pulled.model == run.config.model and pulled.loss == run.config.loss


@pytest.mark.parametrize(
    ("token", "name", "words"),
    [
        ("hf_write", "you/x", "403 Forbidden"),
        ("hf_write", "x", "x is no name"),
        ("hf_write", "me/x@main", "me/x@main is no name"),
        ("hf_write", "https://huggingface.co/me/x", "me/x is no name"),
        ("hf_write", "me/a--b", "me/a--b on the Hugging Face Hub: "),
        ("hf_write", "me/other", "me/other is there"),
        ("hf_read", "me/x", "403 Forbidden"),
        ("hf_wrong", "me/x", "Invalid user token."),
        ("", "me/x", "logged in"),
    ],
)
def test_what_cannot_be_published_is_refused_in_one_line_without_the_token(
    hub, tmp_path, unstir, refused, monkeypatch, caplog, token, name, words
):
    caplog.set_level(logging.DEBUG)
    run = untrained(tmp_path / "run")
    hub.repositories["me/other"] = [{"model.bin": b"of somebody"}]
    monkeypatch.setenv("HF_TOKEN", token)
    if not token:
        monkeypatch.delenv("HF_TOKEN")
    before = sorted(run.path.rglob("*"))
    result = unstir("push", run.path, name)
    refused(result, words)
    keys = {token, "signature"} - {""}  # the stand-in repeats both in what it refuses
    assert not any(key in text for key in keys for text in (*result[1:], caplog.text))
    assert sorted(run.path.rglob("*")) == before and set(hub.repositories) == {"me/other"}


def test_what_cannot_be_pulled_is_refused_in_one_line(hub, tmp_path, unstir, refused):
    hub.repositories["me/other"] = [{"model.bin": b"of somebody", "config.json": b"{}"}]
    refused(unstir("pull", "me/nothing", "--out", "a"), "me/nothing", "Repository Not Found")
    refused(unstir("pull", "nothing"), "nothing is no name")
    refused(unstir("import", "me/nothing", "--out", "a"), "me/nothing", "Repository Not Found")
    refused(unstir("pull", "me/other"), "unstir import me/other")
    run = untrained(tmp_path / "run")
    push(run.model(12, device="cpu"), "me/whole")
    refused(unstir("pull", "me/whole", "--out", run.path), f"--out {run.path}")
    refused(unstir("pull", "me/whole@0123abc"), "me/whole@0123abc", "Revision Not Found")
    files = hub.repositories["me/whole"][-1]
    weights = files["weights/step-00000012.safetensors"]
    files["weights/step-00000012.safetensors"] = weights[:-8] + b"\1\1\1\1\1\1\1\1"
    result = unstir("pull", "me/whole")
    refused(result, "me/whole cannot be used: ", "SHA-256")
    assert not os.path.exists("runs")
    files["weights/step-00000012.safetensors"] = weights  # the Hub is right again, and the copy here is not
    refused(unstir("pull", "me/whole"), "SHA-256")
    shutil.rmtree(re.search("at fault, remove (.*) and pull again", result[2])[1])
    assert unstir("pull", "me/whole")[0] == 0


def test_without_a_network_the_cache_is_read_and_nothing_is_published(hub, tmp_path, unstir, refused, monkeypatch):
    run = untrained(tmp_path / "run")
    evaluated(run)
    push(run.model(12, device="cpu"), "me/kept")
    first = pull("me/kept", tmp_path / "first")
    assert first.notes == ()
    hub.close()
    hub_library.close_session()
    second = pull("me/kept", tmp_path / "second")
    assert second.run.config.imported == first.run.config.imported
    assert second.notes == (FROM_CACHE,) and f"note     {FROM_CACHE}" in second.lines
    monkeypatch.setattr(hub_library.constants, "HF_HUB_OFFLINE", True)
    refused(unstir("pull", "me/never"), "me/never", "HF_HUB_OFFLINE")
    untrained(tmp_path / "runs/digits")
    for name in ("runs/digits", "./runs/digits"):
        refused(unstir("pull", name), f"{name} is a run")
    refused(unstir("push", run.path, "me/new"), "me/new on the Hugging Face Hub: ")


def test_a_published_model_is_imported_too_though_it_was_pulled_before(hub, tmp_path):
    model = untrained(tmp_path / "run").model(12, device="cpu")
    push(model, "me/both")
    for number in range(2):
        run = import_run("me/both", tmp_path / f"imported{number}").run
        assert run.config.imported.startswith("me/both@")
        assert torch.equal(drawn(run.model(device="cpu")), drawn(model))
        pull("me/both", tmp_path / f"pulled{number}")  # which leaves config.toml beside the files of diffusers
    push(untrained(tmp_path / "two", model__heads=2, model__attention=[0, 1]).model(12, device="cpu"), "me/ours")
    with refusing(given="me/ours", remedy="unstir pull me/ours"):
        import_run("me/ours", tmp_path / "third")


def test_the_page_of_an_imported_run_does_not_say_that_it_was_trained_here(tmp_path):
    run = untrained(tmp_path / "run")
    export(run.model(12, device="cpu"), "diffusers", tmp_path / "theirs")
    for folder, made, images in (
        (run.path, "trained", "1,498 for training, 299 held out"),
        (import_run(tmp_path / "theirs", tmp_path / "imported").run.path, "imported", "not known"),
    ):
        model = Run.open(folder).model(device="cpu")
        text = card(model, "me/x", Page(config=Run.open(folder).config))
        assert f"images, {made} with unstir" in text and f"\n- images: {images}\n" in text


@pytest.mark.parametrize(
    ("settings", "says", "typed"),
    [
        ({}, "", ()),
        ({"guidance": 2.0, "guidance_low": 3}, " with guidance=2.0, guidance_low=3",
         ("--guidance", 2, "--guidance-low", 3)),
        ({"guidance": 2.0, "guidance_high": 9, "threshold": 0.6},
         " with guidance=2.0, guidance_high=9, threshold=0.6",
         ("--guidance", 2, "--guidance-high", 9, "--threshold", 0.6)),
        ({"clip": False}, " with clip=false", ("--no-clip",)),
    ],
)  # fmt: skip
def test_the_samples_of_the_page_are_drawn_again_by_what_it_says(tmp_path, unstir, settings, says, typed):
    grids = {f"grids__{name}": value for name, value in settings.items()}
    hidden = {"model__num_classes": 10, "train__condition_dropout": 0.2}
    model = untrained(tmp_path / "run", **hidden, **grids).model(12, device="cpu")
    write_repository(model, "me/x", tmp_path / "there")
    assert f" by unipc in 20 steps{says}, " in (tmp_path / "there/README.md").read_text()
    words = ("--sampler", "unipc", "--steps", 20, "--spacing", "trailing", *typed)
    plain = untrained(tmp_path / "plain", **hidden)  # the same weights, and no such settings in its config
    unstir.done("sample", plain.path, "--num", 16, *words, "--out", "made")
    drawn = torch.stack([read(Path(f"made/{number:06d}.png")) for number in range(16)])
    with Image.open(tmp_path / "there/samples.png") as shown:
        assert shown.tobytes() == named_grid(drawn, 8, [CLASSES[number % 10] for number in range(16)]).tobytes()


def test_paths_of_the_machine_stay_at_home():
    config = load_recipe("digits")
    here = {"store": "/home/me/data", "options": {"root": "/home/me/patients"}}
    shown = public(replace(config, data=replace(config.data, **here)))
    assert shown.data.store == "" and shown.data.source == "digits" and not shown.data.options
    for source, kept in (
        ("/home/me/secret/ckpt.pt", "ckpt.pt"),
        ("google/ddpm@0123456789ab", "google/ddpm@0123456789ab"),
        ("secret/run", "run"),
        ("/home/me, myself/ckpt.pt", "ckpt.pt"),
        ("me, secret/x", "x"),
    ):
        imported = public(replace(config, imported=f"{source}, diffusers, SHA-256 00")).imported
        assert imported.split(", ") == [kept, "diffusers", "SHA-256 00"]


def test_what_failed_is_tried_again_and_a_licence_that_is_refused_is_named(hub, tmp_path, unstir, refused):
    run = untrained(tmp_path / "run")
    hub.failing = {"validate-yaml": 400}
    refused(unstir("push", run.path, "me/again", "--licence", "mine"), "me/again", "license")
    assert set(hub.files("me/again")) == {".gitattributes"}
    hub.failing = {}
    status, _, err = unstir("push", run.path, "me/again", "--licence", "mit")
    assert status == 0 and "data.json" in hub.files("me/again"), err


def test_what_is_to_be_private_is_never_published_openly(hub, tmp_path, unstir, refused):
    run = untrained(tmp_path / "run")
    for _ in range(2):
        assert unstir("push", run.path, "me/hidden", "--private")[0] == 0
    assert hub.private == {"me/hidden"}
    assert unstir("push", run.path, "me/open")[0] == 0
    commits = len(hub.repositories["me/open"])
    refused(unstir("push", run.path, "me/open", "--private"), "--private", "me/open")
    assert len(hub.repositories["me/open"]) == commits


def test_the_page_of_a_network_of_ones_own_says_what_it_needs(tmp_path):
    model = untrained(tmp_path / "run").model(12, device="cpu")
    config = Run.open(model.folder).config
    assert VARIABLE not in card(model, "me/x", Page(config=config))
    ones_own = replace(config, model=ModelConfig(type="dit:DiT", in_channels=1, options={}))
    page = Page(config=ones_own, without_diffusers="no such network")
    assert f"{VARIABLE}=dit" in card(model, "me/x", page)
