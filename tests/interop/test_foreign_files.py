"""Whose a file of weights is, which of its sets of weights is taken, and what is refused: denoising-diffusion too."""

from functools import partial

import pytest
import torch
from report_network import Network
from untrained import read_here, save, scrambled

from unstir.errors import UserError
from unstir.interop.importing import import_run

SMALL = {"T": 50, "ch": 32, "ch_mult": [1], "attn": [], "num_res_blocks": 1}


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """saved(net, prefix, **changes) -> the file of its state_dict; it is read in this process, which is quicker."""
    read_here(monkeypatch)
    return partial(save, tmp_path / "ckpt_199_.pt")


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
    nets = {prefix: scrambled(Network(**SMALL), seed) for seed, prefix in enumerate(prefixes)}
    state = {f"{prefix}{name}": t for prefix, net in nets.items() for name, t in net.state_dict().items()}
    torch.save(state, tmp_path / "all.pt")
    made = import_run(tmp_path / "all.pt", tmp_path / "run")
    own = made.run.model(device="cpu").denoiser.net
    assert torch.equal(own.input_conv.weight, nets[average].state_dict()["head.weight"])
    assert f"of its {len(prefixes)} sets of weights, {average[:-1]} was taken, not" in made.notes[0]


def test_an_average_that_has_no_names_is_not_left_out_in_silence(tmp_path, monkeypatch):
    read_here(monkeypatch)
    net = scrambled(Network(**SMALL))
    average = {"decay": 0.999, "shadow_params": [p.detach() * 0 for p in net.parameters()]}  # as torch_ema saves it
    lists = {"losses": [torch.tensor(0.5)], "rng": [torch.get_rng_state()]}  # which hold no weights
    torch.save({"model": net.state_dict(), "ema": average, **lists}, tmp_path / "all.pt")
    notes = import_run(tmp_path / "all.pt", tmp_path / "run").notes
    assert "tensors without names were left out, in ema.shadow_params; if they are an average" in notes[-1]


def test_files_of_nobody_are_refused(tmp_path, saved, monkeypatch):
    improved = {"time_embed.0.weight": torch.ones(1), "input_blocks.0.0.weight": torch.ones(1)}
    for tensors in ({"other": torch.ones(1)}, improved):
        with pytest.raises(UserError, match=r"holds \d tensors \(.*, ...\) of no program known here; docs/interop.md"):
            import_run(saved(torch.nn.Identity(), **tensors), tmp_path / "run")
    with pytest.raises(UserError, match="lie beside it; name the folder that has its config.json"):
        import_run(saved(torch.nn.Identity(), **{"conv_in.weight": torch.ones(1)}), tmp_path / "run")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(UserError, match=r"torch 2.9.1\+cpu does not read safely .* pip install 'torch>=2.10'"):
        import_run(tmp_path / "ckpt_199_.pt", tmp_path / "run")


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
