"""All sides are set to the same work: the same networks, and functions that can be called."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="the peer: pip install '.[dev]'")

from peers import of_diffusers, ours
from peers.sizes import SIZES, Size
from unstir.nn.unet import UNet
from unstir.randomness import Key
from unstir.runs import build, toml

FOLDER = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")
NANO = Size(32, (1, 2), (1,), 8, 4, num_blocks=1)


@pytest.fixture(scope="module")
def against():
    pytest.importorskip("denoising_diffusion_pytorch", reason="needs the extra [bench]")
    return runpy.run_path(str(FOLDER / "against.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, against):
    """Eight images, and the store that is packed of them."""
    made = tmp_path_factory.mktemp("peers")
    against["files"](made / "images", 8, NANO.side)
    ours.store_of(made / "images", made / "store")
    return made


@pytest.mark.parametrize("name", SIZES)
def test_ours_and_theirs_are_one_structure(name):
    size = SIZES[name]
    config = toml.from_dict(ours.settings(size, CPU, "float32", ema=False), "test")
    network = build.network_config(config)
    with torch.device("meta"):
        mine, theirs = UNet(network), of_diffusers.network(size, torch.device("meta"))
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert config.train.batch_size == size.batch and config.train.clip == 1 and not config.train.ema_decay


def test_the_masks_timed_are_those_of_a_forward_pass():
    for size in (NANO, SIZES["tiny"]):
        config = build.network_config(toml.from_dict(ours.settings(size, CPU, "float32", ema=False), "test"))
        masks = UNet(config)._dropout_masks(torch.zeros(1, *size.shape), Key(0, "dropout", 0, torch.arange(1)))
        assert sum(mask.numel() for mask in masks) == size.dropped


def test_ours_takes_a_step_and_calls_and_draws(folder):
    store = ours.store_of(folder / "images", folder / "store")
    trainer = ours.trainer_of(folder / "run", store, ours.settings(NANO, CPU, "float32", ema=False))
    before = [p.clone() for p in trainer.state.net.parameters()]
    trainer.take_step()
    assert trainer.state.step == 1 and trainer.state.average is None
    assert not all(map(torch.equal, before, trainer.state.net.parameters()))
    model = ours.model_of(trainer, "float32", CPU)
    assert ours.forward_of(model, torch.zeros(2, *NANO.shape))().shape == (2, *NANO.shape)
    (images,) = ours.drawing_of(model, 3, 2)()
    assert images.dtype == torch.uint8 and images.shape == (3, *NANO.shape)
    epoch = ours.batches_of(store, NANO, CPU)
    assert [len(batch) for batch in epoch()] == [4, 4] and len(list(epoch())) == 2
    assert ours.masks_of(NANO, CPU)().shape == (4, NANO.dropped) and ours.noise_of(NANO, CPU)()[1].shape[0] == 4


def test_the_memory_of_both_is_taken_by_steps_of_theirs(tmp_path):
    memory = runpy.run_path(str(FOLDER / "peak_memory.py"))
    options = memory["parsed"](["--size", "tiny"])
    memory["ours"](NANO, options, tmp_path, 1)()
    memory["theirs"](NANO, options, True)()


@pytest.mark.filterwarnings("ignore")  # theirs, such as files left open
def test_both_peers_take_a_step_and_call_and_draw(folder):
    from peers import of_lucidrains

    x = torch.zeros(4, *NANO.shape)
    for peer, how in ((of_diffusers, {"fused": True}), (of_lucidrains, {})):
        net = peer.network(NANO, CPU)
        before = [p.clone() for p in net.parameters()]
        peer.step_of(net, x, autocast=False, ema=True, **how)()
        assert not all(map(torch.equal, before, net.parameters()))
        assert peer.forward_of(net.eval(), x)().shape == x.shape
        assert [len(batch) for batch in peer.batches_of(folder / "images", NANO, 0)()] == [4, 4]
    assert of_lucidrains.drawing_of(net, 8, 3, 2)().shape == (3, *NANO.shape)
    net = of_diffusers.network(NANO, CPU)
    for solver in (False, True):
        assert of_diffusers.drawing_of(net, 3, 2, solver)().shape == (3, *NANO.shape)


def test_images_are_png_and_jpeg_in_turn(folder):
    formats = []
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as image:
            formats.append(image.format)
            assert image.size == (NANO.side, NANO.side)
    assert formats == ["PNG", "JPEG"] * 4


def test_settings_are_read_as_their_kind(against):
    found = dict(map(against["setting"], ("train.optimizer=muon", "train.lr=2e-3", "data.flip=true")))
    changed = ours.changed(ours.settings(NANO, CPU, "float32", ema=True), found)
    config = toml.from_dict(changed, "test")
    assert (config.train.optimizer, config.train.lr, config.data.flip) == ("muon", 2e-3, True)


def test_a_missing_peer_is_a_line_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "denoising_diffusion_pytorch", None)
    with pytest.raises(SystemExit, match=r"denoising_diffusion_pytorch is not installed; .* pip install '\.\[bench\]'"):
        runpy.run_path(str(FOLDER / "against.py"))


def test_quick_figures_are_not_put_into_the_page(against, capsys):
    assert against["parsed"](["--write"]).write == against["PAGE"]
    assert against["parsed"](["--quick", "--write", "other.md"]).rounds == 2
    with pytest.raises(SystemExit):
        against["parsed"](["--quick", "--write"])
    assert "--quick are no measurement" in capsys.readouterr().err
