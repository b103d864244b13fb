"""A compiled network keeps the names of its weights and goes on bit for bit; "auto" compiles what pays for it."""

import dataclasses
import json
import os
import shutil
from contextlib import contextmanager
from itertools import count
from weakref import WeakSet

import pytest
import torch

from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.generate import drawing
from unstir.generate.drawing import Job, settled
from unstir.generate.folder import save_images
from unstir.runs import checkpoint, compiling
from unstir.runs.compiling import fastest
from unstir.runs.run import Run
from unstir.train import launch, trainer, trial
from unstir.train.sentences import introduction
from unstir.train.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def traced(monkeypatch):
    """The shapes that networks are compiled for, in place of kernels, which would take a minute each to compile."""
    shapes = []

    def backend(graph, inputs):
        shapes.append(next(tuple(t.shape) for t in inputs if t.ndim == 4 and t.shape[2:] == (8, 8)))
        return graph.forward

    monkeypatch.setattr(compiling, "BACKEND", backend)
    torch.compiler.reset()
    yield shapes
    torch.compiler.reset()


def tensors(run):
    found = checkpoint.newest(run.checkpoints)[0]
    return found.tensors


def test_a_compiled_run_has_the_names_and_here_the_numbers_of_one_that_is_not(make_run, trained, traced):
    plain, _ = trained("plain")
    run, store = make_run("compiled", train__compile="graphs", train__activation_checkpointing=2)
    trainer = Trainer(run, store)
    assert "in float32, compiled, on cpu" in introduction(run, trainer.state, 1 << 30)
    trainer.run()
    assert set(traced) == {(4, 1, 8, 8)}  # a micro-batch; grids are drawn as the network was written
    ours, theirs = tensors(run), tensors(plain)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    slim = checkpoint.load(run.weights / checkpoint.file_name(12)).tensors
    assert not any("_orig_mod" in name for name in (*ours, *slim))
    assert Run.open(run.path).config.train.compile == "graphs"
    assert (run.samples / "images-00000096.png").read_bytes() == (plain.samples / "images-00000096.png").read_bytes()


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


def test_a_run_keeps_to_how_it_began_unless_asked(make_run, traced):
    for how, asked in (("yes", "auto"), ("no", "auto"), ("yes", "no")):
        name = f"{how}-{asked}"
        make_run(name, train__compile=how, train__length="2 steps")
        again = {} if asked == "auto" else {"train__compile": asked}
        goes_on = make_run(name, train__length="2 steps", **again)[0].config.train.compile
        assert goes_on == (how if asked == "auto" else asked)  # another machine may have no compiler


def test_a_model_is_compiled_by_its_handle_alone(trained, traced):
    run, _ = trained()
    x, plain = torch.randn(3, *run.data.shape), run.model()
    for how, reuses in (("yes", False), ("graphs", True), ("no", False), ("auto", False)):
        model, before = run.model(compile=how), len(traced)
        with torch.inference_mode():
            made, expected = model.denoiser(x, 5), plain.denoiser(x, 5)
        assert torch.equal(made.x0, expected.x0) and model.denoiser.reuses_output is reuses
        assert (len(traced) > before) == (how == "yes")  # graphs has the graph of yes
        assert model.provenance()["compile"] == ("no" if how == "auto" else how)
        assert model.denoiser.net.state_dict().keys() == plain.denoiser.net.state_dict().keys()
    assert model.compiling("yes").unloaded().compile == "yes"


def test_a_guide_is_compiled_with_its_model(trained):
    model = trained()[0].model(guide="1", compile="yes")
    assert model.guide.compile == "yes" and model.compiling("no").guide.compile == "no"


def test_images_go_on_as_they_began_and_those_of_before_were_not_compiled(trained, traced, tmp_path):
    run, _ = trained()
    job, settings = Job(num=2, chain=Chain("ddim", steps=2)), tmp_path / "made/settings.json"
    save_images(run.model(compile="yes"), job, tmp_path / "made")
    assert json.loads(settings.read_text())["compile"] == "yes" and traced
    for how in ("no", "auto", "graphs"):
        model, _ = save_images(run.model(compile=how), job, tmp_path / "made")
        assert model.compile == "yes"
    shutil.rmtree(tmp_path / "made")
    save_images(run.model(), job, tmp_path / "made")
    _without(settings, "compile")
    assert save_images(run.model(compile="yes"), job, tmp_path / "made")[0].compile == "no"


def test_a_folder_begun_compiled_says_what_to_do_where_there_is_no_compiler(trained, traced, tmp_path, monkeypatch):
    run, job = trained()[0], Job(num=2, chain=Chain("ddim", steps=2))
    save_images(run.model(compile="yes"), job, tmp_path / "made")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler on this machine; .* or name another folder with --out"):
        save_images(run.model(), job, tmp_path / "made")


def test_a_folder_of_something_else_is_refused_before_anything_is_compiled(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("unstir.generate.folder.settled", lambda *_: pytest.fail("it was tried how to compile"))
    (tmp_path / "photo.png").touch()
    for out, why in ((tmp_path, "was not made by unstir sample"), (tmp_path / "photo.png", "is a file")):
        with pytest.raises(UserError, match=why):
            save_images(trained()[0].model(compile="auto"), Job(num=2, chain=Chain("ddim", steps=2)), out)


def _without(settings, key):
    from unstir.runs.lines import decode, encode

    values = decode(settings.read_bytes())
    del values[key]
    settings.write_text(encode(values, indent=1))


class Clock:
    """Takes the place of time.perf_counter: each call of a network so compiled takes so many seconds.

    No more than one call is held at any time.
    """

    def __init__(self, monkeypatch, **seconds):
        self.now, self.seconds, self.built, self.aside, self.held = 0.0, seconds, [], False, WeakSet()
        monkeypatch.setattr(compiling.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(compiling, "set_aside", self.kernels_set_aside)

    @contextmanager
    def kernels_set_aside(self, how):
        assert how == self.built[-1] != "no"
        self.aside = True
        yield
        self.aside = False

    def build(self, how):
        assert not self.held
        self.built.append(how)
        first = count()

        def call():
            if isinstance(seconds := self.seconds[how], Exception):
                raise seconds
            without = self.seconds["no"] if self.aside else seconds
            self.now += without + (90 if how != "no" and next(first) == 0 else 0)

        self.held.add(call)
        return call


WORK = 1e15


def test_what_is_short_is_not_even_timed_and_what_is_not_long_is_not_compiled(monkeypatch):
    clock = Clock(monkeypatch, no=1.0, yes=0.5)
    assert fastest(clock.build, CPU, 10**6, compiling.WORK * 0.99, 60) == ("no", "") and clock.built == []
    assert fastest(clock.build, CPU, 59, WORK, 60) == ("no", "") and clock.built == ["no"]
    how, words = fastest(clock.build, CPU, 60, WORK, 60)
    assert how == "yes" and words == "compile=yes, as measured: yes is 2.00 times as fast, ready after 91 seconds"


def test_what_gains_less_than_a_twentieth_is_left(monkeypatch):
    for seconds, chosen in ((0.94, "yes"), (0.96, "no"), (2.0, "no")):
        clock = Clock(monkeypatch, no=1.0, yes=seconds)
        how, words = fastest(clock.build, CPU, 10**6, WORK, 60)
        assert how == chosen and words.startswith(f"compile={chosen}, as measured: yes is {1 / seconds:.2f} times")


def test_a_gpu_tries_graphs_too_and_what_fails_is_said(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: None)
    for graphs, chosen in ((0.4, "graphs"), (0.6, "yes"), (RuntimeError("no\n room"), "yes"), (MemoryError(), "yes")):
        clock = Clock(monkeypatch, no=1.0, yes=0.5, graphs=graphs)
        how, words = fastest(clock.build, torch.device("cuda"), 10**6, WORK, 60)
        failed = f"graphs fails: {'no room' if isinstance(graphs, RuntimeError) else 'out of memory'}" in words
        assert how == chosen and failed == isinstance(graphs, Exception) and clock.built == ["no", "yes", "graphs"]
    clock = Clock(monkeypatch, no=1.0, yes=RuntimeError("broken"))
    assert fastest(clock.build, CPU, 10**6, WORK, 60) == ("no", "compile=no, as measured: yes fails: broken")


def test_without_a_compiler_auto_is_no_and_yes_is_refused(monkeypatch, make_run, trained):
    monkeypatch.setenv("CXX", "no-such-compiler")
    clock = Clock(monkeypatch, no=1.0)
    how, words = fastest(clock.build, CPU, 10**6, WORK, 60)
    assert how == "no" and "compile=no: there is no C++ compiler no-such-compiler on this machine" in words
    for asked in ("yes", "graphs"):
        with pytest.raises(UserError, match=f"compile={asked}: there is no C.. compiler .* or use --train.compile no"):
            make_run("refused", train__compile=asked)
        with pytest.raises(UserError, match="no C.. compiler"):
            trained()[0].model(compile=asked)
    with pytest.raises(UserError, match="not for mps"):
        compiling.check("yes", torch.device("mps"))


def test_a_long_training_is_compiled_as_measured_and_says_so(make_run, tmp_path, monkeypatch, traced):
    asked, made = [], []

    class Kept(Trainer):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(trial, "Trainer", Kept)

    def measured(build, device, calls, work, least):
        asked.append((device.type, calls, work, least))
        build("no")()
        trainer = made[-1]
        assert (trainer._config.compile, trainer._config.dtype, trainer.state.step) == ("no", "float32", 1)
        return "yes", "compile=yes, as measured"

    monkeypatch.setattr(trial.compiling, "fastest", measured)
    config, said = make_run()[0].config, []
    store = launch.open_data(config, tmp_path / "new")
    auto = dataclasses.replace(config, train=dataclasses.replace(config.train, compile="auto"))
    run = launch.open_run(auto, tmp_path / "new", store, said.append)
    assert run.config.train.compile == "yes" and said == ["compile=yes, as measured"]
    weights = sum(p.numel() for p in Trainer(make_run("other")[0], store).state.net.parameters())
    assert asked[-1] == ("cpu", 12, 2 * 3 * weights * 64 * 12 * 8, 7200)


def test_a_long_job_of_images_is_compiled_as_measured_and_says_so(trained, tmp_path, monkeypatch, traced):
    asked, said, run = [], [], trained()[0]

    def measured(build, device, calls, work, least):
        asked.append((calls, work, least))
        build("yes")()
        return "yes", "compile=yes, as measured"

    monkeypatch.setattr(drawing, "fastest", measured)
    job = Job(num=5, chain=Chain("heun", steps=3), batch_size=2)
    model, _ = save_images(run.model(compile="auto"), job, tmp_path / "made", say=said.append)
    weights = sum(p.numel() for p in model.denoiser.net.parameters())
    calls = job.chain.calls(model.process.schedule)
    assert model.compile == "yes" and said == ["compile=yes, as measured"] and (2, 1, 8, 8) in traced
    assert asked == [(9, 2 * weights * 64 * 5 * calls, 600)]
    assert settled(run.model(), job)[1] == "" and len(asked) == 1
    save_images(run.model(compile="auto"), job, tmp_path / "made", say=said.append)
    assert len(asked) == len(said) == 1  # a job that goes on has its way


@pytest.fixture
def tried(make_run, tmp_path, monkeypatch, traced):
    """tried() -> (how to compile, what was said): a tiny training that counts as long enough to be tried both ways.

    Attempts of its trainers are in tried.made; no two of them hold weights at once.
    """
    run, store = make_run()
    monkeypatch.setattr(compiling, "WORK", 0)
    monkeypatch.setattr(trial, "LONG", 0)
    monkeypatch.setattr(compiling, "lacking", lambda _: "")
    alive, made, said = WeakSet(), [], []

    class One(Trainer):
        def __init__(self, draft, store):
            assert not alive
            super().__init__(draft, store)
            alive.add(self.state.net)
            made.append((draft.config.train.compile, draft.config.train.micro_batch))

    monkeypatch.setattr(trial, "Trainer", One)

    def call():
        train = dataclasses.replace(run.config.train, compile="auto", micro_batch=0)
        draft = dataclasses.replace(run, path=tmp_path / "draft", config=dataclasses.replace(run.config, train=train))
        how = trial.how_to_compile(draft, store, said.append)
        assert not alive and not (tmp_path / "draft").exists()
        return how, said

    call.made = made
    return call


def test_one_training_is_held_while_it_is_tried_how_to_compile(tried, traced):
    how, said = tried()
    assert tried.made == [("no", 0), ("yes", 0)] and set(traced) == {(8, 1, 8, 8)}
    assert how in ("no", "yes") and said[0].startswith(f"compile={how}, as measured: yes is ")


def test_a_trial_halves_as_training_does_and_does_not_compile_what_needs_more_memory(tried, traced, monkeypatch):
    real = trainer.denoising_loss
    for compiled, says in ((4, ": yes is "), (3, "compile=no, as measured: yes fails: out of memory")):

        def loss(denoiser, x_0, *given, compiled=compiled):
            if len(x_0) > (4 if denoiser.net._compiled_call_impl is None else compiled):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(denoiser, x_0, *given)

        monkeypatch.setattr(trainer, "denoising_loss", loss)
        tried.made.clear()
        how, said = tried()
        assert tried.made == [("no", 0), ("yes", 4)] and says in said[-1]
        assert how == "no" or compiled == 4
    monkeypatch.setattr(trainer, "denoising_loss", lambda *_: exec("raise MemoryError"))
    with pytest.raises(MemoryError):  # which `open_run` says in words
        tried()


@pytest.mark.parametrize("how", ["yes", "graphs"])
def test_a_compiled_run_that_halves_is_compiled_anew_and_resumes_bit_for_bit(make_run, traced, monkeypatch, how):
    settings = {"train__compile": how, "train__micro_batch": 0, "train__length": "6 steps", "train__warmup": "2 steps"}
    before, store = make_run("before", **{**settings, "train__length": "3 steps"})
    Trainer(before, store).run()
    Trainer(*make_run("before", **{**settings, "train__micro_batch": 4})).run()
    expected, real = tensors(before), trainer.denoising_loss

    def loss(denoiser, x_0, *given):
        losses = real(denoiser, x_0, *given)
        if len(x_0) > 4 and given[3].step == 3:
            losses.total.register_hook(lambda _: exec('raise RuntimeError("out of memory")'))
        return losses

    run, store = make_run("halved", **settings)
    traced.clear()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "denoising_loss", loss)
        Trainer(run, store).run()
    assert traced == [(4, 1, 8, 8)]  # anew, though the other run had compiled it
    ours = tensors(run)
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


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
        trainer, stop = Trainer(*make_run("parts", **small)), Stop(install=False)
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


def test_a_folder_of_images_says_that_it_goes_on_as_it_was_begun(make_run, tmp_path):
    from unstir.chain import Chain
    from unstir.generate.drawing import Job
    from unstir.generate.folder import save_images

    run, store = make_run("begun", train__length="1 step")
    Trainer(run, store).run()
    job, said = Job(num=2, chain=Chain("ddim", steps=2)), []
    for how in ("no", "yes"):
        save_images(run.model(device="cpu", compile=how), job, tmp_path / "made", say=said.append)
        assert len(said) == (how == "yes")
    assert said[0].endswith("was begun with compile=no and goes on so, for all of its images to be alike")
