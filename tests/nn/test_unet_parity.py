"""The same weights in our network and in diffusers' give the same numbers."""

import pytest
import torch

from interop.untrained import scrambled
from unstir.interop.diffusers_settings import from_diffusers, to_diffusers, to_unet2d
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.parts import library

pytest.importorskip("diffusers", reason="diffusers is the network compared with: pip install '.[dev]'")

pytestmark = pytest.mark.slow

SMALL = {"channels": 16, "mults": (1, 2), "num_blocks": 1, "groups": 8, "attention": (), "dropout": 0.0}
CASES = {
    "plain": {},
    "attention everywhere, two blocks": {"attention": (0, 1), "num_blocks": 2},
    "two heads, three blocks": {"attention": (1,), "heads": 2, "num_blocks": 3},
    "heads of one width": {"mults": (1, 2, 4), "attention": (0, 2), "head_channels": 8},
    "four heads, three levels": {"mults": (1, 2, 2), "attention": (1, 2), "heads": 4},
    "one level": {"mults": (1,), "attention": (0,)},
    "falling and rising mults": {"mults": (3, 1, 2), "attention": (1,), "groups": 4},
    "eps, shift 0, cosines first": {"norm_eps": 1e-2, "freq_shift": 0.0, "flip_sin_to_cos": True},
    "a table of times": {"time_table": 1000, "attention": (1,)},
    "scale and shift": {"scale_shift": True, "attention": (1,), "num_classes": 5},
    "symmetric padding": {"downsample_padding": 1, "mults": (1, 1, 2)},
    "classes, grey": {"num_classes": 5, "in_channels": 1, "attention": (1,)},
    "four channels in, eight out": {"in_channels": 4, "out_channels": 8},
}


def both(case):
    torch.manual_seed(1)
    config = UNetConfig(**{**SMALL, **case})
    net = scrambled(UNet(config)).double()
    other = library("diffusers", "diffusers", "a test").UNet2DModel(**to_unet2d(config, 8, 8)).double()
    other.load_state_dict(to_diffusers(net.state_dict()))  # strict: every name is found on both sides
    size = 2 ** (len(config.mults) - 1)
    inputs = [torch.randn(3, config.in_channels, 3 * size, 4 * size, dtype=torch.float64), torch.tensor([0, 417, 999])]
    if config.num_classes:
        inputs.append(torch.tensor([4, 0, 2]))
    return net, other, tuple(inputs)


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_diffusers(case):
    net, other, inputs = both(CASES[case])
    with torch.no_grad():
        expected = other(*inputs[:2], class_labels=inputs[2] if len(inputs) > 2 else None).sample
        got = net(*inputs)
    assert expected.std() > 0.1
    assert (got - expected).norm() < 1e-12 * expected.norm()


def test_gradients_are_those_of_diffusers():
    net, other, inputs = both({"attention": (1,), "mults": (1, 2, 2), "num_classes": 5})
    weight = torch.randn(3, 3, *inputs[0].shape[2:], dtype=torch.float64)
    (net(*inputs) * weight).sum().backward()
    (other(*inputs[:2], class_labels=inputs[2]).sample * weight).sum().backward()
    expected = from_diffusers({name: p.grad for name, p in other.named_parameters()}, net.state_dict())
    for name, p in net.named_parameters():
        assert (p.grad - expected[name]).norm() <= 1e-10 * max(expected[name].norm(), 1e-3), name


def test_renaming_there_and_back_is_the_identity():
    net = UNet(UNetConfig(**{**SMALL, "attention": (0,), "num_classes": 2}))
    state = net.state_dict()
    back = from_diffusers(to_diffusers(state), state)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert len(to_diffusers(UNet(UNetConfig(channels=32, groups=32)).state_dict())) == 328  # as google/ddpm-cifar10-32
