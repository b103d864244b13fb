"""Checkpoints of improved-diffusion: outputs equal; refusals by the name of the layer, also of denoising-diffusion."""

from functools import partial

import pytest
import torch
from improved_network import Block, Network
from untrained import read_here, save, scrambled

from unstir.errors import UserError
from unstir.interop.foreign import Asked
from unstir.interop.importing import import_run
from unstir.runs.run import Run

CASES = {
    "as published": {"mult": (1, 2, 2), "attn": (1, 2), "outputs": 6, "scale_shift": True},
    "by class, grey, one head": {"images": 1, "labels": 3, "heads": 1, "attn": (), "blocks": 2},
    "one level": {"mult": (1,), "attn": (0,), "heads": 2},
}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """saved(net, prefix, **changes) -> the file of its state_dict; it is read in this process, which is quicker."""
    read_here(monkeypatch)
    return partial(save, tmp_path / "ckpt_199_.pt")


@pytest.mark.parametrize(("case", "T"), [("as published", 40), ("by class, grey, one head", 1000), ("one level", 1000)])
def test_the_run_answers_as_the_network(saved, tmp_path, case, T):
    how = CASES[case]
    net = scrambled(Network(**how)).eval()
    asked = Asked(size=8, heads=how.get("heads", 4), T=T, schedule="cosine" if T == 40 else None)
    run = import_run(saved(net, "module." if T == 40 else ""), tmp_path / "run", asked).run
    x = torch.randn(3, how.get("images", 3), 8, 8, generator=torch.Generator().manual_seed(1))
    t, own = torch.tensor([0, T // 3, T - 1]), run.model(device="cpu").denoiser.net
    label = torch.tensor([2, 0, 1]) if how.get("labels") else None
    for limit in (3e-6, 1e-6):
        with torch.no_grad():
            expected, got = net(x, t * (1000 / T), label), own(x, t, label)
        assert expected.std() > 0.1 and (got - expected).abs().max() < limit * expected.abs().max()
        net, own, x = net.double(), own.double(), x.double()
    assert run.config.diffusion.learned_variance == ("outputs" in how) and run.config.diffusion.T == T


def test_what_a_checkpoint_does_not_say_is_taken_as_its_recipes_have_it(saved, unstir, refused):
    status, out, err = unstir("import", saved(Network(**CASES["as published"])), "--out", "first", "--T", 500)
    assert status == 0 and "--size 32, --heads 4, --schedule linear, --beta-1 0.0002, --beta-T 0.04" in out, err
    run = Run.open("first")
    assert run.chain().variance == "learned" and run.chain().sampler == "ancestral" and run.chain().clip
    assert (run.config.model.time_table, run.config.model.heads, run.data.shape) == (500, 4, (3, 32, 32))
    file = saved(Network())
    refused(unstir("import", file, "--out", "b", "--schedule", "cosine", "--beta-T", 0.1), "--beta-T 0.1 was given")
    refused(unstir("import", file, "--out", "b", "--heads", 3), "heads=3 does not divide the 64 channels of level 1")
    refused(unstir("import", file, "--out", "b", "--T", 0), "T", "0")


@pytest.mark.parametrize(
    "prefixes",
    [
        ("ema.online_model.model.", "ema.ema_model.model.", "model."),
        ("", "averaged.module."),
        ("net.", "ema."),
        ("model.", "modelEMA."),
        ("remapped.", "averaged.module."),
    ],
)
def test_of_several_sets_of_weights_the_average_is_taken_and_named(tmp_path, monkeypatch, prefixes):
    read_here(monkeypatch)
    (average,) = {"ema.ema_model.model.", "averaged.module.", "ema.", "modelEMA."} & set(prefixes)
    nets = {prefix: scrambled(Network(attn=()), seed) for seed, prefix in enumerate(prefixes)}
    state = {f"{prefix}{name}": t for prefix, net in nets.items() for name, t in net.state_dict().items()}
    torch.save(state, tmp_path / "all.pt")
    made = import_run(tmp_path / "all.pt", tmp_path / "run")
    own = made.run.model(device="cpu").denoiser.net
    assert torch.equal(own.input_conv.weight, nets[average].state_dict()["input_blocks.0.0.weight"])
    assert f"of its {len(prefixes)} sets of weights, {average[:-1]} was taken, not" in made.notes[0]


def test_an_average_that_has_no_names_is_not_left_out_in_silence(tmp_path, monkeypatch):
    read_here(monkeypatch)
    net = scrambled(Network(attn=()))
    average = {"decay": 0.999, "shadow_params": [p.detach() * 0 for p in net.parameters()]}  # as torch_ema saves it
    lists = {"losses": [torch.tensor(0.5)], "rng": [torch.get_rng_state()]}  # which hold no weights
    torch.save({"model": net.state_dict(), "ema": average, **lists}, tmp_path / "all.pt")
    notes = import_run(tmp_path / "all.pt", tmp_path / "run").notes
    assert "tensors without names were left out, in ema.shadow_params; if they are an average" in notes[-1]


@pytest.mark.parametrize(
    ("how", "changes", "words"),
    [
        ({"pools": True}, {}, "input_blocks.2 has no weights: it is an average pooling"),
        ({"resizing_blocks": True}, {}, "output_blocks.1.2 is a residual block that resizes"),
        ({"mult": (2, 2)}, {}, "input_blocks.1.0 has 64 channels and input_blocks.0.0 32, which has no equal"),
        ({"images": 6}, {}, "input_blocks.0.0 takes 6 channels"),
        ({}, {"input_blocks.1.1.transformer.weight": torch.ones(1)}, "input_blocks.1.1.transformer.weight has"),
        ({}, {"out.5.weight": torch.ones(1)}, "out.5.weight has no equal here"),
        ({}, {"middle_block.0.in_layers.2.bias": None}, r"middle_block.0.in_layers.2.bias is missing \(here middle.bl"),
        ({}, {"middle_block.1.qkv.bias": None}, r"middle_block.1.qkv.bias is missing \(here"),
        ({}, {"input_blocks.1.0.in_layers.2.weight": torch.ones(32, 32, 1, 1)}, r"input_blocks.1.0.in_layers.2.w"),
        ({"attn": (0, 1)}, {f"input_blocks.1.1.{name}": None for name in (
            "norm.weight", "norm.bias", "qkv.weight", "qkv.bias", "proj_out.weight", "proj_out.bias",
        )}, "input_blocks.1.0 has no attention behind it"),
    ],
)  # fmt: skip
def test_what_has_no_equal_is_refused_by_the_name_of_the_layer(saved, tmp_path, how, changes, words):
    with pytest.raises(UserError, match=words):
        import_run(saved(Network(**how), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_levels_of_unlike_depth_are_refused(saved, tmp_path):
    net = Network(blocks=1)
    net.output_blocks.append(torch.nn.ModuleList([Block(64, 32, 128, False)]))
    with pytest.raises(UserError, match=r"output_blocks.2.0 begins a level of another number of blocks"):
        import_run(saved(net), tmp_path / "run")


@pytest.mark.parametrize("trained", [False, True])
def test_a_checkpoint_of_denoising_diffusion_is_refused_by_its_first_layers(tmp_path, saved, trained):
    module = pytest.importorskip("denoising_diffusion_pytorch")
    net = module.Unet(dim=16, dim_mults=(1, 2), channels=1, flash_attn=False)
    file = tmp_path / "model-1.pt"
    if trained:  # as its Trainer saves it, with the average
        diffusion = module.GaussianDiffusion(net, image_size=8, timesteps=10, sampling_timesteps=5)
        from ema_pytorch import EMA

        average = EMA(diffusion, beta=0.995, update_every=10)
        torch.save({"step": 1, "model": diffusion.state_dict(), "ema": average.state_dict(), "version": "2"}, file)
    else:
        torch.save(net.state_dict(), file)
    with pytest.raises(UserError) as error:
        import_run(file, tmp_path / "run")
    words = "init_conv.weight is a 7x7 convolution, where ours is 3x3; time_mlp.1.weight is a perceptron with GELU"
    assert "of denoising-diffusion-pytorch, whose network has no equal here" in str(error.value)
    assert words in str(error.value) and not (tmp_path / "run").exists()
