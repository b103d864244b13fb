"""The U-Net: its sizes, initial weights, inputs and settings."""

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from refusals import mistake, refusing
from unstir.nn import blocks
from unstir.nn.blocks import Attention, ResBlock, sinusoids
from unstir.nn.config import ModelConfig, UNetConfig
from unstir.nn.unet import UNet
from unstir.randomness import Key
from unstir.runs.build import forward_flops
from unstir.runs.config import Config

SMALL = {"channels": 16, "mults": (1, 2), "num_blocks": 1, "groups": 8, "attention": (1,)}
REPORT = {"mults": (1, 2, 3, 4), "attention": (2,), "dropout": 0.15}


def small(seed=0, **changes):
    """A small network none of whose layers is zero."""
    torch.manual_seed(seed)
    net = UNet(UNetConfig(**{**SMALL, **changes}))
    for p in net.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
    return net


def batch(n=4, channels=3, size=8):
    return torch.randn(n, channels, size, size), torch.arange(n) * 100


def key(n=4, step=0):
    return Key(7, "dropout", step, torch.arange(n))


def masks_of(net, x, dropout_key):
    """What dropout keeps in each residual block of a pass in training, in order of execution."""
    masks: list[Tensor] = []
    blocks = [m for m in net.modules() if isinstance(m, ResBlock)]
    hooks = [block.register_forward_pre_hook(lambda _, given: masks.append(given[2])) for block in blocks]
    net.train()(x, torch.zeros(len(x), dtype=torch.int64), dropout_key=dropout_key)
    for hook in hooks:
        hook.remove()
    return masks


def count(config):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config).parameters())


def test_published_sizes():
    assert count(UNetConfig()) == 35_746_307  # google/ddpm-cifar10-32
    assert count(UNetConfig(**REPORT)) == 82_958_979
    assert count(UNetConfig(num_classes=10)) == 35_746_307 + 10 * 512


def test_flops_of_known_networks():
    # Usual counts leave out the two products inside attention, 4 N^2 C each time: 12.1 and 14.85 G without them.
    for changes, attention, known in (
        ({}, 5 * 4 * 256**2 * 256 + 4 * 16**2 * 256, 12.1e9),
        (REPORT, 5 * 4 * 64**2 * 384 + 4 * 16**2 * 512, 14.85e9),
    ):
        config = Config(model=ModelConfig(**changes))
        assert forward_flops(config, 32, 32) - attention == pytest.approx(known, rel=2e-3)


def test_zero_initialisation_survives_the_whole_construction():
    net = UNet(UNetConfig(**SMALL, num_classes=3))
    for module in net.modules():
        if isinstance(module, ResBlock):
            assert not module.second_conv.weight.any()
        if isinstance(module, Attention):
            assert not module.out.weight.any()
            assert module.qkv.weight.std() > 0.1
    x, t = batch()
    assert not net.eval()(x, t, torch.zeros(4, dtype=torch.int64)).any()


def test_initial_weights_have_the_variance_of_fan_average():
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=64, mults=(1,), num_blocks=1, attention=()))
    for module in (net.middle.blocks[0].first_conv, net.up[0].blocks[0].shortcut, net.time.first):
        fan_sum = (module.weight.shape[0] + module.weight.shape[1]) * module.weight[0, 0].numel()
        assert float(module.weight.detach().var()) * fan_sum / 2 == pytest.approx(1, rel=0.1)
        assert not module.bias.any()


@given(
    levels=st.integers(1, 3),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    n=st.integers(1, 3),
    out=st.integers(0, 4),
)
@settings(max_examples=25, deadline=None)
def test_output_has_the_height_and_width_of_the_input(levels, rows, columns, n, out):
    net = UNet(UNetConfig(channels=4, mults=(1,) * levels, num_blocks=1, groups=2, attention=(0,), out_channels=out))
    height, width = rows << (levels - 1), columns << (levels - 1)
    y = net.eval()(torch.zeros(n, 3, height, width), torch.zeros(n, dtype=torch.int64))
    assert y.shape == (n, out or 3, height, width)


@pytest.mark.parametrize("shape", [(1, 3, 6, 8), (1, 1, 8, 8), (3, 8, 8)])
def test_images_that_do_not_fit_are_refused(shape):
    with refusing("x", list(shape)):
        small(mults=(1, 2, 2)).eval()(torch.zeros(shape), torch.zeros(1, dtype=torch.int64))


def test_labels_must_be_given_exactly_to_a_network_with_classes():
    x, t = batch()
    for net, labels in ((small(num_classes=2), ()), (small(), (t,))):
        assert mistake(net.eval(), x, t, *labels).key == "condition"
    with pytest.raises(ValueError, match="condition must"):
        small(num_classes=2).eval()(x, t, t[:2])


def test_times_must_be_one_integer_an_image():
    x, t = batch()
    for wrong in (t[:1], t.float(), t[:, None]):
        with pytest.raises(ValueError, match="t must"):
            small().eval()(x, wrong)


def test_every_label_and_every_time_changes_the_output():
    net = small(num_classes=3).eval()
    x, t = batch(1)
    with torch.no_grad():
        outputs = [net(x, t + dt, torch.tensor([label])) for label in range(3) for dt in (0, 1)]
    assert all(not torch.allclose(a, b, atol=1e-6) for i, a in enumerate(outputs) for b in outputs[:i])


def test_a_network_is_told_of_augmentation_beside_the_time():
    net, (x, t), heard = small(augmented=True).eval(), batch(), []
    net.middle.blocks[0].register_forward_pre_hook(lambda _, args: heard.append(args[1]))
    numbers = torch.randn(4, 7)
    net(x, t), net(x, t, augmentation=numbers), net(x, t, augmentation=0 * numbers)
    silu = nn.functional.silu
    torch.testing.assert_close(heard[0], silu(net.time(t)))
    torch.testing.assert_close(heard[1], silu(net.time(t) + numbers @ net.augment.weight.T))
    assert torch.equal(heard[2], heard[0])  # zeros are an image as it is


def test_labels_begin_as_normal_numbers_of_the_size_of_the_time():
    weight = UNet(UNetConfig(**SMALL, num_classes=500)).label.weight.detach()
    assert weight.std().item() == pytest.approx(0.2, rel=0.02) and abs(weight.mean()) < 0.01


class TestDropout:
    def test_images_need_not_be_square(self):
        net, x = small(dropout=0.4), torch.randn(4, 3, 8, 12)
        assert {tuple(mask.shape[2:]) for mask in masks_of(net, x, key())} == {(8, 12), (4, 6)}
        assert net(x, batch()[1], dropout_key=key()).shape == x.shape

    def test_training_without_a_key_is_refused(self):
        x, t = batch()
        with pytest.raises(ValueError, match="dropout_key"):
            small()(x, t)
        with pytest.raises(ValueError, match="3 slots"):
            small()(x, t, dropout_key=key(3))

    def test_no_key_is_needed_where_nothing_is_dropped(self):
        x, t = batch()
        net = small()
        net.eval()
        assert torch.equal(net(x, t), net(x, t, dropout_key=key()))
        assert torch.equal(net(x, t), small(dropout=0.0).train()(x, t))

    def test_masks_do_not_depend_on_how_the_batch_is_split(self):
        net, (x, t) = small(dropout=0.4).double(), batch()
        whole = net(x.double(), t, dropout_key=key())
        parts = [net(x[s].double(), t[s], dropout_key=key()[s]) for s in (slice(0, 1), slice(1, 4))]
        assert torch.allclose(whole, torch.cat(parts), rtol=0, atol=1e-12)

    def test_masks_differ_between_steps_images_and_blocks(self):
        net = small(dropout=0.5)
        x, _ = batch()
        masks, later = masks_of(net, x, key()), masks_of(net, x, key(step=1))
        blocks = [m for m in net.modules() if isinstance(m, ResBlock)]
        assert len(masks) == len(blocks)
        assert all(m.shape[1] == block.out_channels for m, block in zip(masks, blocks, strict=True))
        assert all((m != n).float().mean() > 0.4 for m, n in zip(masks, later, strict=True))
        assert all((m[0] != m[1]).float().mean() > 0.4 for m in masks)
        assert (masks[0] != masks[-1]).float().mean() > 0.4  # of one shape: first block down, last block up
        masks += masks_of(net, x[:1], key(1))
        assert all(m.untyped_storage().nbytes() == m.numel() for m in masks)  # none keeps the memory of the others

    def test_the_block_drops_the_given_elements_and_scales_the_rest(self):
        block = ResBlock(UNetConfig(channels=4, mults=(1,), attention=(), groups=2, dropout=0.25), 4, 4)
        keep = torch.rand(2, 4, 5, 5) < 0.75
        seen = []
        block.second_conv.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        x, time = torch.randn(2, 4, 5, 5), torch.randn(2, 16)
        block(x, time), block(x, time, keep)
        assert torch.allclose(seen[1], torch.where(keep, seen[0] / 0.75, 0.0))

    def test_the_share_of_dropped_elements_is_the_probability(self):
        masks = masks_of(small(dropout=0.3), torch.zeros(8, 3, 16, 16), key(8))
        total = sum(m.numel() for m in masks)
        dropped = sum(int((~m).sum()) for m in masks) / total
        assert abs(dropped - 0.3) < 5 * (0.21 / total) ** 0.5


GUIDED = {"layout": "report_guided", "downsample_padding": 1, "time_table": 500}


@pytest.mark.parametrize("layout", [{}, GUIDED, {"scale_shift": True}])
def test_every_weight_gets_a_gradient_after_one_step(layout):
    net = UNet(UNetConfig(**SMALL, num_classes=2, dropout=0.0, **layout))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x, t = batch()
    for _ in range(4):  # the zeros open one after another: output, then residual branches, then what is inside them
        (net(x, t, t % 2) - x).square().mean().backward()
        optimiser.step()
        gone = [name for name, p in net.named_parameters() if not p.grad.any()]
        optimiser.zero_grad()
    assert not gone


def test_a_table_begins_as_the_sines_and_is_what_the_network_sees():
    x, t = batch()
    plain, table = small(), UNet(UNetConfig(**SMALL, time_table=400))
    table.load_state_dict({"time.table": table.time.table.detach(), **plain.state_dict()})
    plain.eval(), table.eval()
    assert torch.equal(table(x, t), plain(x, t)) and table.time.table.shape == (400, 16)
    with torch.no_grad():
        table.time.table[100] = 0
    same = (table(x, t) == plain(x, t)).flatten(1).all(1)
    assert same.tolist() == [True, False, True, True]  # of the times 0, 100, 200 and 300


def test_bfloat16_weights_take_and_return_float32():
    net, (x, t) = small().eval(), batch()
    with torch.inference_mode():
        exact = net(x, t)
        got = copy.deepcopy(net).to(torch.bfloat16)(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x, t)
    assert exact.dtype == got.dtype == mixed.dtype == torch.float32
    for other in (got, mixed):
        assert 0 < (other - exact).norm() / exact.norm() < 0.03


def test_times_are_told_apart_in_bfloat16():
    """bfloat16 rounds 999 and 1000 to the same number, so the sinusoids are taken in float32."""
    waves = sinusoids(torch.tensor([999, 1000]), 32, 1.0, False).bfloat16()
    assert (waves[0] - waves[1]).abs().max() > 0.5


def test_sinusoids_by_the_formula():
    t = torch.tensor([0, 3, 999])
    frequency = 10_000.0 ** (-torch.arange(4, dtype=torch.float64) / 3)
    angle = t[:, None] * frequency
    expected = torch.cat((angle.sin(), angle.cos()), dim=1)
    assert torch.allclose(sinusoids(t, 8, 1.0, False).double(), expected, atol=1e-4)
    assert torch.equal(sinusoids(t, 8, 1.0, True), sinusoids(t, 8, 1.0, False).roll(4, dims=1))


def test_channels_last_images_give_the_same_numbers():
    net, (x, t) = small().eval().double(), batch()
    with torch.no_grad():
        plain = net(x.double(), t)
        last = net.to(memory_format=torch.channels_last)(x.double().to(memory_format=torch.channels_last), t)
    assert torch.allclose(plain, last, atol=1e-12)


def test_it_compiles_as_one_graph_and_the_dropout_key_compiles_nothing_anew():
    net, (x, t) = UNet(ModelConfig(**SMALL, num_classes=2)), batch()  # a run's settings, which know other networks
    nn.init.normal_(net.output_conv.weight)
    whole = torch.compile(net.eval(), backend="eager", fullgraph=True)  # raises where the graph would break
    assert torch.equal(whole(x, t, t % 2), net(x, t, t % 2))
    torch.compiler.reset()
    expected = [net.train()(x, t, t % 2, dropout_key=key(step=step)) for step in range(3)]
    net.compile(backend="eager")
    with torch.compiler.set_stance("eager_on_recompile"), torch.no_grad():
        got = [net(x, t, t % 2, dropout_key=key(step=step)) for step in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(("positions", "channels"), [(16, 8), (64, 8), (256, 256)])
def test_attention_in_bfloat16_that_is_trained_errs_by_two_hundredths_at_most(positions, channels):
    q, k, v = (1.5 * torch.randn(2, 3, positions, channels).bfloat16() for _ in range(3))
    made = blocks._attend(*(part.requires_grad_() for part in (q, k, v)))
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert made.dtype == torch.bfloat16 and (made - expected).norm() < 0.02 * expected.norm()


def test_an_image_that_wraps_around_may_be_turned_round():
    net = small(padding="circular").eval()
    x, t = batch(2)
    for shift in ((2, 0), (0, 4)):
        turned = net(x.roll(shift, (2, 3)), t)
        torch.testing.assert_close(turned, net(x, t).roll(shift, (2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"padding": "circular"}, {"downsample_padding": 1}])
def test_of_signals_only_the_longer_side_is_halved(changes):
    net, x = small(dropout=0.5, mults=(1, 2, 2), **changes), torch.randn(2, 3, 1, 16)
    assert net.eval()(x, torch.tensor([0, 5])).shape == x.shape
    widths = [mask.shape[2:] for mask in masks_of(net, x, key(2))]
    assert set(widths) == {(1, 16), (1, 8), (1, 4)}
    assert net.eval()(x.transpose(2, 3), torch.tensor([0, 5])).shape == (2, 3, 16, 1)
    assert mistake(net, torch.randn(2, 3, 1, 10), torch.tensor([0, 5])).key == "x"


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *(("channels", {"channels": value}) for value in ("many", 64.5, 0)),
        ("channels", {"channels": 33, "groups": 11}), ("groups", {"channels": 48}),
        *(("mults", {"mults": value}) for value in ((), (1, 0), (1, 1.5))),
        *(("attention", {"attention": value}) for value in ((4,), (-1,))),
        ("heads", {"heads": 3}), ("heads", {"mults": (1, 3), "attention": (), "heads": 5}),
        ("heads", {"head_channels": 64, "heads": 2}), ("head_channels", {"head_channels": 24}),
        ("layout", {"layout": "report_guided"}), ("layout", {"layout": "report_guided", "num_classes": 2}),
        ("layout", {"layout": "guided"}), *(("dropout", {"dropout": value}) for value in (1.0, -0.1, float("nan"))),
        *(("norm_eps", {"norm_eps": value}) for value in (0.0, float("inf"))),
        ("freq_shift", {"channels": 2, "groups": 1}), ("downsample_padding", {"downsample_padding": 2}),
        ("flip_sin_to_cos", {"flip_sin_to_cos": 2}), ("num_classes", {"num_classes": -1}), ("colour", {"colour": 3}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_and_each_remedy_is_enough(key, wrong):
    refused = mistake(UNetConfig, **wrong)
    assert refused.key == key
    remedies = refused.remedy
    for changes in remedies if isinstance(remedies, tuple) else (remedies,):
        UNetConfig(**{**wrong, **changes})


@pytest.mark.parametrize(("name", "least", "most"), [("in_channels", 1, 16_384), ("num_classes", 0, 1_000_000)])
def test_counts_have_bounds(name, least, most):
    assert [getattr(UNetConfig(**{name: value}), name) for value in (least, most)] == [least, most]
    for value in (least - 1, most + 1):
        assert name in str(mistake(UNetConfig, **{name: value}))


def test_weights_are_counted_without_symbolic_shapes():
    """torch imports them, in two seconds, for as little as an empty range on its meta device."""
    code = "import sys; from unstir.runs.build import num_parameters; from unstir.runs.config import Config; "
    code += "assert num_parameters(Config()) > 10**6; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
