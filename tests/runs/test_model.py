"""A model is made of a run or of values alone; whoever takes one is not told weights, device or arithmetic again."""

import ast
import shutil
from pathlib import Path

import pytest
import torch

import unstir
from refusals import mistake, refusing
from unstir.chain import Chain
from unstir.diffusion.denoiser import Denoiser
from unstir.errors import UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.metrics.evaluate import _models
from unstir.metrics.evaluation import PROTOCOL
from unstir.metrics.request import EvaluationRequest
from unstir.runs import build, checkpoint
from unstir.runs.card import DataCard, Labels
from unstir.runs.model import Model
from unstir.theory.averages import WIDTHS, combination
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine

SOURCE = Path(unstir.__file__).parent


class Zero(torch.nn.Module):
    """A network that takes every image for noise, and counts the times it was made."""

    made = 0

    def __init__(self):
        super().__init__()
        Zero.made += 1
        self.scale = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, label=None):
        return x * self.scale


def test_what_sampling_has_loaded_can_be_differentiated_through(run):
    model = run.model()
    list(sample_batches(model, Job(num=1, chain=Chain(sampler="ddim", steps=2))))
    x_t = torch.zeros(1, *model.shape, requires_grad=True)
    model.denoise(None)(x_t, 5).x0.sum().backward()
    assert x_t.grad is not None and x_t.grad.abs().sum() > 0


def test_samples_are_ordinary_tensors_and_a_model_is_shown_in_a_line():
    model = foreign()
    ((_, images),) = sample_batches(model, Job(num=2, chain=model.chain))
    assert not images.is_inference() and (images.requires_grad_() * 2).sum().backward() is None
    assert all(part in repr(model) for part in ("elsewhere", "step 3", "averaged", "1x4x4", "cpu"))


def foreign(**changes):
    """A model whose weights come from no run."""
    process = Process(cosine(10))
    known = {
        "load": lambda dtype: Denoiser(Zero().to(dtype), process, PARAMETERIZATIONS["x0"]), "process": process,
        "predict": "x0", "learned_variance": False, "data": DataCard((1, 4, 4), (), {}, ""), "labels": Labels(),
        "chain": Chain("ddim", steps=5), "folder": Path("elsewhere"), "step": 3, "weights_sha256": "ab", "settings": {},
        "device": torch.device("cpu"),
    }  # fmt: skip
    return Model(**known | changes)


def test_a_model_of_no_run_is_sampled_and_loaded_once_when_first_needed():
    Zero.made = 0
    model = foreign()
    assert model.provenance()["weights"] == "ab" and model.guide_name is None and Zero.made == 0
    batches = [images for _, images in sample_batches(model, Job(num=5, chain=model.chain, batch_size=2))]
    assert [len(images) for images in batches] == [2, 2, 1] and not torch.cat(batches).any() and Zero.made == 1
    assert model.unloaded().denoiser is not model.denoiser and Zero.made == 2


def test_what_a_model_cannot_do_is_refused_before_it_is_loaded():
    Zero.made = 0
    model = foreign()
    for job, words in (
        (Job(num=1, chain=model.chain, label=2), "knows no classes"),
        (Job(num=1, chain=model.chain.changed(guidance=2.0)), "train.condition_dropout"),
        (Job(num=1, chain=Chain(steps=11)), "steps=11"),
        (Job(num=1, chain=Chain(steps=5, variance="learned")), "needs a network that has learned it"),
    ):
        with pytest.raises(UserError, match=words):
            list(sample_batches(model, job))
    assert Zero.made == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the very step"),
        ({"step": 2, "predict": "v"}, "it has predict v, the run x0"),
        ({"step": 2, "process": Process(cosine(11))}, "it has T 11, the run 10"),
        ({"step": 2, "labels": Labels(3, ("a", "b", "c"))}, "it has classes 3, the run 0"),
        ({"folder": Path("small"), "data": DataCard((1, 4, 8), (), {}, "")}, "it has shape 1x4x8, the run 1x4x4"),
    ],
)
def test_a_model_with_a_guide_that_does_not_fit_cannot_be(changes, words):
    with pytest.raises(UserError, match=words):
        foreign(guide=foreign(**changes))
    assert foreign(guide=foreign(step=2)).guide_name == "2"
    assert foreign(guide=foreign(folder=Path("small"))).guide_name == "small@3"


def test_only_what_makes_a_model_takes_step_ema_device_dtype_and_guide():
    clump, found = {"step", "ema", "device", "dtype", "guide", "loaded", "checkpoint"}, set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
                if len(arguments & clump) > 2 and path.parent.name != "cli":  # a command's arguments are its options
                    found.add(f"{path.relative_to(SOURCE)}: {node.name}")
    assert found == {"runs/run.py: model"}


def weights(model):
    return model.denoiser.net.state_dict()


def test_an_average_of_any_width_is_made_of_those_that_a_run_saved(trained, command):
    run, _ = trained(train__power_ema=True)
    steps = [step for step, _ in checkpoint.listed(run.weights)]
    files = [checkpoint.load(run.weights / checkpoint.file_name(step)) for step in steps]
    assert steps == [1, 12]
    for name, t in weights(run.model(ema=0.1)).items():
        torch.testing.assert_close(t, files[-1].tensors[f"power.0.1.{name}"])
        assert not name.endswith("conv_1.weight") or not torch.equal(t, files[-1].tensors[f"power.0.05.{name}"])
    model = run.model(ema=0.08)
    shares, _ = combination([(step, width) for step in steps for width in WIDTHS], (12, 0.08))
    for name, t in weights(model).items():
        parts = [file.tensors[f"power.{width}.{name}"].double() for file in files for width in WIDTHS]
        torch.testing.assert_close(t, sum(share * part for share, part in zip(shares, parts, strict=True)).float())
    assert model.provenance()["ema"] == 0.08 and model.weights_sha256 != run.model().weights_sha256
    assert run.model(1, ema=0.07).step == 1
    shutil.rmtree(run.checkpoints)  # the slim files alone are kept for good
    assert run.model(ema=0.08).weights_sha256 == model.weights_sha256
    assert "width 0.08" in command.done("likelihood", run.path, "--ema-width", 0.08, "--num", 4, "--calls", 2)
    status, _, err = command("sample", run.path, "--no-ema", "--ema-width", 0.08, "--num", 1)
    assert status == 2 and err.count("\n") == 1 and "--ema-width 0.08" in err
    with refusing("ema_width", 0.08):
        _models(run, EvaluationRequest(ema=False, ema_width=0.08))
    for request, averaged in ((EvaluationRequest(ema_width=0.08), 0.08), (EvaluationRequest(), True)):
        assert _models(run, request)[0].averaged == averaged and PROTOCOL["ema"](averaged)


def test_a_guide_has_the_width_where_its_run_keeps_averages_and_else_its_ordinary_one(trained):
    run, _ = trained(train__power_ema=True)
    plain, _ = trained("plain", train__lr=0.01)
    guided = run.model(ema=0.08, guide=str(plain.path))
    assert guided.ema == 0.08 and guided.guide.weights_sha256 == plain.model().weights_sha256
    assert run.model(ema=0.07, guide="1").guide.weights_sha256 == run.model(1, ema=0.07).weights_sha256
    assert run.model(ema=False, guide=str(plain.path)).guide.ema is False


@pytest.mark.parametrize(
    ("changes", "width"), [({}, 0.1), ({"train__power_ema": True}, 0.25), ({"train__power_ema": True}, 0.0)]
)
def test_an_average_that_cannot_be_made_is_refused(trained, changes, width):
    run, _ = trained(**changes)
    with refusing("ema_width", width):
        run.model(ema=width)


def test_what_guidance_costs_besides_is_said_where_it_costs():
    null, guided = foreign(labels=Labels(2, ("a", "b"), has_null=True)), foreign(guide=foreign(step=2))
    chain = Chain("ddim", steps=5)
    twice, middle = chain.changed(guidance=2.0), Chain("pndm", steps=5, guidance=2.0)
    two, many, never = (
        ", computed for two conditions (guidance)",
        ", and as many of the guide",
        ", and guidance never acts",
    )
    never += ": no time that the chain visits is in t = {} to {}"
    at_7, at_end = {"guidance_low": 7, "guidance_high": 7}, Chain("heun", times=(9, 7), guidance=2.0)
    assert twice.visited(null.process.schedule) == [10, 8, 6, 4, 2, 0]
    for model, of, said in (
        (null, chain, ""), (null, chain.changed(guidance=0.0), ""), (null, twice, two), (guided, twice, many),
        (guided, twice.changed(guidance_high=10), many),
        (guided, twice.changed(guidance_low=2), f"{many} at t = 2 to 10"),
        (guided, twice.changed(guidance_high=9), f"{many} at t = 1 to 9"),
        *((null, of.changed(**at_7), f"{two} at t = 7 to 7") for of in (twice.changed(steps=10), at_end)),
        (null, middle.changed(**at_7), f"{two} at t = 7 to 7"),  # its Runge-Kutta steps call the network there
    ):  # fmt: skip
        assert model.besides(of) == said
    for model, of, at in (
        (null, twice.changed(**at_7), 7), (guided, twice.changed(**at_7), 7), (null, twice.changed(guidance_high=1), 1),
        (guided, twice.changed(guidance_high=1), 1), (null, twice.changed(times=(9, 7), **at_7), 7),
        (null, chain.changed(guidance=0.0, guidance_low=9, guidance_high=9), 9),
        (null, middle.changed(guidance_low=3, guidance_high=3), 3),  # no more of those
    ):  # fmt: skip
        assert model.besides(of) == never.format(at, at)


@pytest.mark.parametrize(("scale", "words"), [(1.0, "has no effect at guidance=1"), (0.0, "is alone, which is to")])
def test_a_guide_has_an_effect_at_other_scales_than_0_and_1(scale, words):
    model = foreign(guide=foreign(step=2))
    model.check(Chain("ddim", steps=5, guidance=2.0))
    assert f"guide='2' {words}" in str(mistake(model.check, Chain("ddim", steps=5, guidance=scale)))


def test_bfloat16_is_native_where_the_device_says_so(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation))
    assert build.has_native_bfloat16(torch.device("cuda")) is False and asked == [False]
    assert build.has_native_bfloat16(torch.device("meta")) is False
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    cpu = torch.device("cpu")
    assert build.dtype_name("auto", cpu) == "float32" and build.dtype("bfloat16", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert build.dtype_name("auto", cpu) == "bfloat16" and build.dtype("float32", cpu) == torch.float32


def test_guidance_leads_away_from_the_guide_or_the_null_label_or_nothing():
    labels = torch.tensor([0, 1])
    null, plain = foreign(labels=Labels(2, ("a", "b"), has_null=True)), foreign(labels=Labels(2, ("a", "b")))
    assert null.away_from(labels).condition.tolist() == [2, 2]
    assert null.away_from(None) is plain.away_from(labels) is plain.away_from(None) is None
    guided = foreign(guide=foreign(step=2))
    assert guided.away_from(None).denoiser is guided.guide.denoiser and guided.away_from(labels).condition is None
