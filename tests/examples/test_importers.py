"""examples/importers: a checkpoint becomes a run that answers as its network does, and is drawn from."""

import importlib.util
from pathlib import Path

import pytest
import torch
from improved_network import Network

from interop.untrained import scrambled

IMPORTERS = Path(__file__).parents[2] / "examples" / "importers"


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        ({"mult": (1, 2, 2), "attn": (1, 2), "outputs": 6, "scale_shift": True}, {"schedule": "cosine", "T": 40}),
        ({"images": 1, "labels": 3, "heads": 2, "blocks": 2}, {"heads": 2}),
    ],
    ids=["as published", "by class, grey"],
)
def test_a_checkpoint_of_improved_diffusion_becomes_a_run(tmp_path, unstir, how, asked):
    spec = importlib.util.spec_from_file_location("improved_diffusion", IMPORTERS / "improved_diffusion.py")
    importer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(importer)
    net = scrambled(Network(**how)).eval()
    torch.save(net.state_dict(), tmp_path / "ema.pt")
    run = importer.import_checkpoint(tmp_path / "ema.pt", tmp_path / "run", size=8, **asked).run
    T, images, label = asked.get("T", 1000), how.get("images", 3), torch.tensor([2, 0, 1])
    x, t, own = torch.randn(3, images, 8, 8), torch.tensor([0, T // 3, T - 1]), run.model(device="cpu").denoiser.net
    label = label if how.get("labels") else None
    for limit in (3e-6, 1e-6):
        with torch.no_grad():
            expected, got = net(x, t * (1000 / T), label), own(x, t, label)
        assert expected.std() > 0.1 and (got - expected).abs().max() < limit * expected.abs().max()
        net, own, x = net.double(), own.double(), x.double()
    assert run.config.imported.startswith(f"{tmp_path}/ema.pt, improved-diffusion, SHA-256 ")
    assert run.chain().variance == ("learned" if "outputs" in how else "large") and run.chain().clip
    status, _, err = unstir("sample", run.path, "--num", 1, "--sampler", "ddim", "--steps", 2, "--out", "made")
    assert status == 0 and Path("made/000000.png").exists(), err
