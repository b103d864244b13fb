"""`compile = "auto"` compiles what pays for it: what is measured, what is chosen, and what is said of it."""

import dataclasses
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from weakref import WeakSet

import pytest
import torch
import without_kernels

from unstir.chain import Chain
from unstir.errors import UserError
from unstir.generate import drawing
from unstir.generate.drawing import Job, settled
from unstir.generate.folder import save_images
from unstir.runs import compiling
from unstir.runs.compiling import fastest
from unstir.train import launch, trainer, trial
from unstir.train.trainer import Trainer

traced = without_kernels.traced
CPU = torch.device("cpu")


class Clock:
    """Takes the place of the clock of `compiling` alone: each call of a network so compiled takes so many seconds.

    No more than one call is held at any time.
    """

    def __init__(self, monkeypatch, **seconds):
        self.now, self.seconds, self.built, self.aside, self.held = 0.0, seconds, [], False, WeakSet()
        monkeypatch.setattr(compiling, "time", SimpleNamespace(perf_counter=lambda: self.now))
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
