"""Compiled runs and images: the numbers of those that are not, and what is refused where there is no compiler."""

import json
import os

import pytest
import torch
import without_kernels
from without_kernels import tensors

from conftest import pixels_in
from refusals import refusing
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import save_images
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.train.launch import introduction
from unstir.train.trainer import Trainer

traced = without_kernels.traced


def test_a_compiled_run_has_the_names_and_here_the_numbers_of_one_that_is_not(make_run, trained, traced):
    plain, _ = trained("plain")
    run, store = make_run("compiled", train__compile="graphs", train__activation_checkpointing=2)
    trainer = Trainer(run, store)
    assert "compiled, on" in (line := introduction(run, trainer.state)) and line.endswith("first step")
    trainer.run()
    assert set(traced) == {(4, 1, 8, 8)}  # a micro-batch; grids are drawn as the network was written
    ours, theirs = tensors(run), tensors(plain)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    slim = checkpoint.load(run.weights / checkpoint.file_name(12)).tensors
    assert not any("_orig_mod" in name for name in (*ours, *slim))
    assert Run.open(run.path).config.train.compile == "graphs"
    assert pixels_in(run.samples) == pixels_in(plain.samples)


def test_grids_of_raw_weights_are_not_compiled(make_run, traced):
    run, store = make_run(train__compile="yes", train__ema_decay=0.0, train__length="2 steps", log__held_out_images=4)
    Trainer(run, store).run()
    assert set(traced) == {(4, 1, 8, 8)} and (run.samples / "images-00000016.png").exists()


def test_graphs_add_to_gradients_that_stay_where_they_are(make_run, traced):
    places = {}
    for how in ("yes", "graphs"):
        trainer = Trainer(*make_run(how, train__compile=how))
        kept = [p.grad for p in trainer.state.net.parameters()]
        assert all(g is not None and not g.any() for g in kept) if how == "graphs" else kept[0] is None
        for _ in range(2):
            trainer.take_step()
            places.setdefault(how, []).append([p.grad.data_ptr() for p in trainer.state.net.parameters()])
    assert places["graphs"][0] == places["graphs"][1] != places["yes"][0]


def test_what_a_network_writes_again_was_copied():
    class Reusing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.out = torch.zeros(1, 1, 2, 2)

        def forward(self, x, t, label):
            return self.out.add_(1)

    for reuses in (False, True):
        denoiser = Denoiser(Reusing(), None, None, reuses_output=reuses)
        first = denoiser.raw(torch.zeros(1, 1, 2, 2), 1)
        denoiser.raw(torch.zeros(1, 1, 2, 2), 1)
        assert first.max() == (1 if reuses else 2)


def test_a_run_goes_on_as_asked(make_run, traced):
    for how, asked in (("yes", "yes"), ("no", "yes"), ("yes", "no")):
        name = f"{how}-{asked}"
        make_run(name, train__compile=how, train__length="2 steps")
        goes_on = make_run(name, train__length="2 steps", train__compile=asked)[0].config.train.compile
        assert goes_on == asked  # another machine may have no compiler


def test_without_a_compiler_it_is_refused(monkeypatch, make_run, trained):
    monkeypatch.setenv("CXX", "no-such-compiler")
    for asked in ("yes", "graphs"):
        with refusing("compile", asked, {"compile": "no"}):
            make_run("refused", train__compile=asked)
        with refusing("compile", asked):
            trained()[0].model(compile=asked)
    with refusing("compile", "yes"):
        build.check_compile("yes", torch.device("mps"))
    with refusing("compile", "on"):
        trained()[0].model(compile="on")


@pytest.mark.slow
@pytest.mark.skipif("UNSTIR_COMPILE" not in os.environ, reason="compiles for minutes; set UNSTIR_COMPILE=1")
@pytest.mark.filterwarnings("ignore")
def test_with_real_kernels_a_stopped_run_continues_bit_for_bit(make_run):
    from unstir.train.observer import Stop

    small = {"model__channels": 4, "model__mults": [1], "model__groups": 2, "train__compile": "yes"}
    small |= {"model__attention": [], "train__length": "6 steps"}
    plain, store = make_run("plain", **{**small, "train__compile": "no"})
    Trainer(plain, store).run()
    Trainer(*make_run("whole", **small)).run()
    for at in (1, 4):
        torch.compiler.reset()
        trainer, stop = Trainer(*make_run("parts", **small)), Stop()
        while trainer.state.step < at:
            trainer.take_step()
        stop.request(2)
        trainer.run(stop)
    run, store = make_run("parts", **small)
    Trainer(run, store).run()
    whole, parts, eager = tensors(Run.open(run.path.parent / "whole")), tensors(run), tensors(plain)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not all(torch.equal(whole[name], eager[name]) for name in whole)
    assert all(torch.allclose(whole[name], eager[name], rtol=0.02, atol=1e-3) for name in whole)


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
