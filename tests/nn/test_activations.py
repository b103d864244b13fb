"""Activation checkpointing gives the same gradients for less memory, and the memory of activations is known before."""

import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unstir.nn.activations import sampling_bytes, training_bytes
from unstir.nn.config import UNetConfig
from unstir.nn.unet import UNet
from unstir.randomness import Key

SHAPES = {
    "attention, dropout": UNetConfig(channels=8, mults=(1, 2, 2), num_blocks=1, attention=(1,), groups=4, heads=2),
    "plain": UNetConfig(channels=8, mults=(1, 2), attention=(), groups=4, dropout=0.0, downsample_padding=1),
    "one level": UNetConfig(channels=8, mults=(2,), attention=(0,), groups=4),
}


def network(config):
    torch.manual_seed(0)
    net = UNet(config).train()
    for parameter in net.parameters():  # what begins at zero would hide an error behind it
        torch.nn.init.normal_(parameter, std=0.05)
    return net


def pass_through(net, num, low=False, side=8):
    """A training pass of so many images; returns the network's output, its backward pass done."""
    x, slots = torch.randn(num, 3, side, side), torch.arange(num)
    label = slots % 3 if net.config.num_classes else None
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = net(x, slots, label, dropout_key=Key(0, "dropout", 0, slots))
    (out.float() * torch.linspace(-1, 2, side)).square().mean().backward()
    return out.detach()


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that exist, and the most there were at once."""

    def __init__(self):
        super().__init__()
        self.there, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.there and storage._cdata not in given:
                self.there[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage._cdata)
        return out

    def _freed(self, storage):
        self.now -= self.there.pop(storage)


def per_image(compute, nums=(12, 16)):
    """Bytes that one image more allocates at the peak, of enough images that weights decide nothing.

    Within torch's FakeTensorMode nothing is computed and the bytes are the same.
    """
    peaks = []
    for num in nums:
        with Allocated() as allocated:
            compute(num)
        peaks.append(allocated.peak)
    return (peaks[1] - peaks[0]) / (nums[1] - nums[0])


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_recomputed_activations_give_the_same_gradients(name, low):
    config = SHAPES[name]
    net, found = network(config), []
    for levels in range(len(config.mults) + 1):
        net.checkpoint_activations(levels)
        net.zero_grad()
        torch.manual_seed(1)
        found.append([pass_through(net, 3, low), *(parameter.grad for parameter in net.parameters())])
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


def test_the_levels_that_were_named_are_computed_twice():
    net = network(SHAPES["attention, dropout"])
    net.checkpoint_activations(2)
    counts = {}
    for name, module in net.named_modules():
        if name.endswith((".first_conv", ".resize.conv")):
            module.register_forward_hook(lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1}))
    pass_through(net, 2)
    twice = {name for name, count in counts.items() if count == 2}
    assert twice == {f"{half}.{level}.blocks.{i}.first_conv" for half, level, num in WAYS for i in range(num)}
    assert set(counts.values()) == {1, 2}
    counts.clear()
    with torch.no_grad():
        net(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64), dropout_key=Key(0, "d", 0, torch.arange(1)))
    assert set(counts.values()) == {1}


WAYS = ("down", 0, 1), ("down", 1, 1), ("up", 1, 2), ("up", 2, 2)
"""Both ways through levels 0 and 1, with their blocks: up begins at the lowest."""


@pytest.mark.parametrize("name", SHAPES)
def test_the_bytes_of_activations_are_known_before(name):
    config = SHAPES[name]
    net = network(config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    forecasts = []
    for levels in range(len(config.mults) + 1):
        net.checkpoint_activations(levels)
        forecasts.append(training_bytes(config, 8, 8, 4, levels))
        assert forecasts[-1] == pytest.approx(per_image(lambda num: pass_through(net, num)), rel=0.08), levels
    assert forecasts == sorted(forecasts, reverse=True) and forecasts[-1] < 0.75 * forecasts[0]


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize(("heads", "channels", "side"), [(1, 32, 8), (8, 32, 8), (1, 128, 10), (1, 32, 10)], ids=str)
def test_the_bytes_of_attention_that_is_trained_by_products_are_known_before(heads, channels, side, levels):
    config = UNetConfig(channels=channels, mults=(1, 1), num_blocks=1, attention=(0,), heads=heads, groups=8)
    nums = (32, 40) if levels else (12, 16)  # where all is recomputed, the weights count for more
    with FakeTensorMode():  # a processor without bfloat16 takes a minute to compute them
        found = trained_by_products(config, side, levels, nums)
    assert training_bytes(config, side, side, 2, levels, products=True) == pytest.approx(found, rel=0.1)


def trained_by_products(config, side, levels, nums):
    net = network(config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net.checkpoint_activations(levels)
    return per_image(lambda num: pass_through(net, num, low=True, side=side), nums)


def test_what_is_not_computed_has_the_bytes_of_what_is():
    config = UNetConfig(channels=32, mults=(1, 1), num_blocks=1, attention=(0,), heads=1, groups=8)
    with FakeTensorMode():
        found = trained_by_products(config, 8, 0, (2, 3))
    assert found == trained_by_products(config, 8, 0, (2, 3))


@pytest.mark.parametrize("name", SHAPES)
def test_the_bytes_of_a_forward_pass_are_known_before(name):
    net = network(SHAPES[name]).eval()

    def forward(num):
        with torch.inference_mode():
            net(torch.zeros(num, 3, 8, 8), torch.zeros(num, dtype=torch.int64))

    assert sampling_bytes(net.config, 8, 8, 4) == pytest.approx(per_image(forward), rel=0.05)


def test_numbers_of_half_the_size_take_half_the_bytes():
    plain = SHAPES["plain"]
    assert training_bytes(plain, 8, 8, 2) * 2 == training_bytes(plain, 8, 8, 4)
    assert sampling_bytes(plain, 8, 8, 2) * 2 == sampling_bytes(plain, 8, 8, 4)
    assert training_bytes(plain, 16, 8, 4) == 2 * training_bytes(plain, 8, 8, 4)
