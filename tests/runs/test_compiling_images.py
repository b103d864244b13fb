"""A model is compiled by its handle, and a folder of images goes on as it was begun."""

import json

import pytest
import torch
import without_kernels

from refusals import refusing
from unstir.chain import Chain
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images

traced = without_kernels.traced


def test_a_model_is_compiled_by_its_handle_alone(run, traced):
    x, plain = torch.randn(3, *run.data.shape), run.model()
    for how, reuses in (("yes", False), ("graphs", True), ("no", False)):
        model, before = run.model(compile=how), len(traced)
        with torch.inference_mode():
            made, expected = model.denoiser(x, 5), plain.denoiser(x, 5)
        assert torch.equal(made.x0, expected.x0) and model.denoiser.reuses_output is reuses
        assert (len(traced) > before) == (how == "yes")  # graphs has the graph of yes
        assert model.provenance()["compile"] == how
        assert model.denoiser.net.state_dict().keys() == plain.denoiser.net.state_dict().keys()
    assert model.unloaded(compile="yes").unloaded().compile == "yes"


def test_a_guide_is_compiled_with_its_model(trained):
    model = trained()[0].model(guide="1", compile="yes")
    assert model.guide.compile == "yes" and model.unloaded(compile="no").guide.compile == "no"


def test_images_go_on_as_they_began_and_it_is_said(run, traced, tmp_path, logged):
    job, settings = Job(num=2, chain=Chain("ddim", steps=2)), tmp_path / "made/settings.json"
    save_images(run.model(compile="yes"), job, tmp_path / "made")
    assert json.loads(settings.read_text())["compile"] == "yes" and traced
    for how in ("no", "graphs"):
        model, _ = save_images(run.model(compile=how), job, tmp_path / "made")
        assert model.compile == "yes" and "compile=yes" in logged.pop() and not logged


def test_a_folder_begun_compiled_says_what_to_do_where_there_is_no_compiler(trained, traced, tmp_path, monkeypatch):
    run, job = trained()[0], Job(num=2, chain=Chain("ddim", steps=2))
    save_images(run.model(compile="yes"), job, tmp_path / "made")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with refusing("compile", "yes"):
        save_images(run.model(), job, tmp_path / "made")


def test_a_folder_of_something_else_is_refused_before_anything_is_compiled(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("unstir.runs.model.compiled", lambda *_: pytest.fail("it was compiled"))
    (tmp_path / "photo.png").touch()
    for out, why in ((tmp_path, "was not made by unstir sample"), (tmp_path / "photo.png", "is a file")):
        with pytest.raises(UserError, match=why):
            save_images(trained()[0].model(compile="yes"), Job(num=2, chain=Chain("ddim", steps=2)), out)
