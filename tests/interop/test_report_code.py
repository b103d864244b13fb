"""Checkpoints of the report's code: the network made again from its description, random weights, outputs equal."""

from dataclasses import replace

import pytest
import torch
from report_network import Network, waves
from untrained import saver, scrambled

from refusals import mistake
from unstir.interop.foreign import Asked
from unstir.interop.importing import import_run
from unstir.runs.recipes import load_recipe
from unstir.runs.run import Run
from unstir.train.trainer import Trainer

saved = pytest.fixture(saver)
SMALL = {"T": 50, "ch": 32, "ch_mult": [1, 2], "attn": [1], "num_res_blocks": 1}
CASES = {
    "the first": SMALL,
    "two blocks, three levels": {"T": 20, "ch": 32, "ch_mult": [1, 3, 2], "attn": [0, 2], "num_res_blocks": 2},
    "one level": {**SMALL, "ch_mult": [1], "attn": []},
    "by class": {**SMALL, "labels": 3},
    "by class, two blocks": {"T": 20, "ch": 32, "ch_mult": [1, 2, 2], "attn": [], "num_res_blocks": 2, "labels": 5},
}


@pytest.mark.parametrize(("case", "prefix"), [*((case, "") for case in CASES), ("one level", "module.")])
def test_the_run_answers_as_the_network(saved, tmp_path, case, prefix):
    net = scrambled(Network(**CASES[case])).eval()
    if "labels" not in CASES[case]:
        net.time_embedding.timembedding[0].weight.copy_(waves(CASES[case]["T"], 32))
    T, labels = CASES[case]["T"], CASES[case].get("labels", 0)
    run = import_run(saved(net, prefix), tmp_path / "run", Asked(size=8)).run
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    t, own = torch.tensor([0, 1, T // 2, T - 1]), run.model(device="cpu").denoiser.net
    theirs = torch.tensor([1, labels, 0, 2]) if labels else None  # 0 says nothing there
    ours = torch.tensor([0, labels - 1, labels, 1]) if labels else None
    for limit in (3e-6, 1e-6):  # in float32 both round; in float64 what is left is the rounding of sums of weights
        with torch.no_grad():
            expected, got = net(x, t, theirs), own(x, t, ours)
        assert expected.std() > 0.1 and (got - expected).abs().max() < limit * expected.abs().max()
        net, own, x = net.double(), own.double(), x.double()
    assert run.config.diffusion.T == run.config.model.time_table == T and run.config.model.norm_eps == 1e-5


def test_the_run_has_the_settings_of_the_report(saved, tmp_path, unstir, refused):
    assert "beta_T=0.02" in unstir.done("import", saved(Network(**SMALL)), "--out", "first")
    run = Run.open("first")
    grids, diffusion = run.config.grids, run.config.diffusion
    assert (grids.sampler, grids.steps, grids.variance, grids.clip) == ("ancestral", 50, "large", False)
    assert (diffusion.options, diffusion.predict, run.data.shape) == (
        {"beta_1": 1e-4, "beta_T": 0.02},
        "eps",
        (3, 32, 32),
    )
    names = [f"class {i}" for i in range(10)]
    given = "--classes", *names, "--size", 16, "--beta-T", 0.03, "--beta-1", 1e-4
    assert "note" not in unstir.done("import", saved(Network(**SMALL, labels=10)), "--out", "second", *given)
    run = Run.open("second")
    assert run.labels.names == tuple(names) and run.labels.has_null and run.chain().guidance == 2.8
    assert run.config.model.layout == "report_guided" and run.config.diffusion.options["beta_T"] == 0.03
    refused(unstir("import", saved(Network(**SMALL)), "--out", "third", "--beta-1", 0.5), "beta_1=0.5 and beta_T=0.02")


@pytest.mark.parametrize(("recipe", "attn", "labels"), [("cifar10-report", [2], 0), ("cifar10-guided", [], 10)])
def test_the_recipe_has_the_network_of_that_run_and_its_guidance(saved, tmp_path, recipe, attn, labels):
    config = load_recipe(recipe)
    model, T = replace(config.model, channels=32), config.diffusion.T
    network = Network(T, 32, list(model.mults), attn, model.num_blocks, labels)
    imported = import_run(saved(network), tmp_path / "run", Asked()).run.config
    table = model.time_table or T  # the first run's table is fixed, and so are the sines and cosines here
    assert replace(model, time_table=table) == imported.model
    assert config.diffusion == imported.diffusion and config.grids.guidance == imported.grids.guidance


def test_a_step_of_training_goes_on_from_either(saved, tmp_path, make_run):
    import_run(saved(Network(**SMALL, labels=10)), tmp_path / "guided", Asked(size=8))
    config = Run.open(tmp_path / "guided").config
    model = {f"model__{key}": value for key, value in vars(config.model).items() if key != "in_channels"}
    grey = {"data__channels": 1, "model__in_channels": 1, "train__condition_dropout": 0.1, "diffusion__T": 50}
    run, store = make_run("new", **model, **grey, train__length="1 step", grids__num=2)
    trainer = Trainer(run, store)
    before = {name: t.clone() for name, t in trainer.state.net.state_dict().items()}
    assert trainer.run()
    after = trainer.state.net.state_dict()
    assert not torch.equal(before["output_conv.weight"], after["output_conv.weight"])


@pytest.mark.parametrize(
    ("changes", "layer"),
    [
        ({"head.weight": None}, "head.weight"),
        ({"downblocks.0.block1.0.bias": None}, "down.0.blocks.0.first_norm.bias"),
        ({"downblocks.0.extra": torch.ones(1)}, "downblocks.0.extra"),
        ({"tail.2.weight": torch.ones(3, 32, 1, 1)}, "output_conv.weight"),
        ({"downblocks.1.main.weight": None, "downblocks.1.main.bias": None}, "downblocks"),
        ({"head.weight": torch.ones(())}, ""),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_layer(saved, tmp_path, changes, layer):
    file = saved(Network(**SMALL), **changes)
    error = mistake(import_run, file, tmp_path / "run")
    assert str(file) in str(error) and layer in str(error) and not (tmp_path / "run").exists()
