"""The denoiser and its loss against formulas written by hand, and CUDA's settings for the same bits each time."""

import math
import os
from dataclasses import replace

import pytest
import torch
from torch.utils import deterministic

from refusals import mistake, refusing
from unstir import randomness
from unstir.chain import Chain
from unstir.diffusion.arithmetic import kernels, layout, repeatable, tf32
from unstir.diffusion.denoiser import Conditioned, Denoiser, Prediction, clipped, finite
from unstir.diffusion.draw import draw, starting_noise
from unstir.diffusion.likelihood import variational_bound
from unstir.diffusion.loss import Objective, denoising_loss, nearest_noise
from unstir.errors import NotFiniteError, UserError
from unstir.nn.unet import UNet, UNetConfig
from unstir.randomness import Key
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import linear

SCHEDULE = linear()


class Seen(torch.nn.Module):
    """Returns a known function of its input and remembers what it was told."""

    def forward(self, x, t, label=None, **options):
        self.t, self.label, self.options = t, label, options
        return torch.sin(3 * x)


def denoiser(name):
    return Denoiser(Seen(), Process(SCHEDULE), PARAMETERIZATIONS[name])


def test_the_network_is_told_t_minus_1():
    made, x = denoiser("eps"), torch.randn(3, 1, 2, 2)
    made(x, 1)
    assert made.net.t.tolist() == [0, 0, 0] and made.net.t.dtype == torch.int64
    made(x, torch.tensor([1, 500, 1000]))
    assert made.net.t.tolist() == [0, 499, 999]
    for t in (0, 1001, 1.5, "10", torch.tensor([1.5, 2, 3])):
        refused = mistake(made, x, t)
        assert refused.key == "t" and refused.given is t
    assert made.net.options == {} and made.net.label is None
    label = torch.tensor([4, 5, 6])
    Conditioned(made, label)(x, 7)
    assert made.net.label is label
    made(x, 7, 9)  # to a network that does not say what it knows
    assert made.net.label.tolist() == [9, 9, 9]


def test_labels_are_a_number_or_one_for_each_image():
    made, x = denoiser("eps"), torch.randn(2, 1, 4, 4)
    made.net.config = UNetConfig(in_channels=1, channels=8, mults=(1, 1), num_blocks=1, groups=4, num_classes=3)
    made(x, 5, 2)
    assert made.net.label.tolist() == [2, 2] and made.net.label.dtype == torch.int64
    for label in (-1, 3):
        with pytest.raises(UserError, match=rf"label={label} is outside 0\.\.2"):
            made(x, 5, label)
    real = replace(made, net=UNet(made.net.config).eval())
    assert "label=[0, 3]" in str(mistake(real, x, 5, torch.tensor([0, 3])))
    made.net.config = replace(made.net.config, num_classes=0)
    assert mistake(made, x, 5, 0).remedy == {"label": None}


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [None, 0.1])
def test_the_loss_is_the_mean_squared_error_of_the_target_for_each_image(name, dtype, share):
    """A perturbation moves what the network sees, and not its target (Ning et al. 2023, algorithm 1)."""
    x_0, eps, xi = torch.randn(3, 3, 2, 4, 4, dtype=dtype)
    t, made = torch.tensor([1, 300, 1000]), denoiser(name)
    losses = denoising_loss(made, x_0, t, eps, perturbation=None if share is None else share * xi).total
    assert losses.shape == (3,) and losses.dtype == dtype
    for i, time in enumerate(t.tolist()):
        alpha, sigma = SCHEDULE.abar(time) ** 0.5, (1 - SCHEDULE.abar(time)) ** 0.5
        x_t = alpha * x_0[i] + sigma * (eps[i] + (share or 0) * xi[i])
        target = {"eps": eps[i], "x0": x_0[i], "v": alpha * eps[i] - sigma * x_0[i]}[name]
        expected = ((torch.sin(3 * x_t) - target) ** 2).mean().item()
        assert losses[i].item() == pytest.approx(expected, rel=2e-5 if dtype == torch.float32 else 1e-9)


def test_the_nearest_of_several_noises_is_taken_for_each_image_alone():
    slots, x_0 = torch.arange(6), 2 * torch.rand(6, 3, 4, 4) - 1
    key = Key(5, "noise", 9, slots)
    drawn = randomness.normal(key, (8, 3, 4, 4))
    for i, (image, noise) in enumerate(zip(x_0, nearest_noise(key, x_0, 8), strict=True)):
        away = [torch.dist(image, each).item() for each in drawn[i]]
        assert torch.dist(image, noise).item() == pytest.approx(min(away)) and max(away) > min(away)
        assert torch.equal(noise, nearest_noise(key[i : i + 1], x_0[i : i + 1], 8)[0])
    assert torch.equal(nearest_noise(key, x_0), randomness.normal(key, (3, 4, 4)))


def test_of_two_noises_the_nearest_leans_towards_the_image_and_nowhere_else():
    x_0 = torch.tensor([600.0, 800.0]).view(1, 1, 1, 2).expand(4000, -1, -1, -1)  # so far that the norm does not count
    noise = nearest_noise(Key(0, "noise", 0, torch.arange(4000)), x_0, 2).view(-1, 2).double()
    along, across = (noise @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)).unbind(1)
    assert along.mean().item() == pytest.approx(math.pi**-0.5, abs=0.06)  # the mean of the larger of two
    assert across.mean().item() == pytest.approx(0, abs=0.07) and across.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_the_estimate_is_the_image_where_the_network_is_right(name):
    x_0, eps = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    made, t = denoiser(name), 400
    x_t = made.process.diffuse(x_0, t, eps)
    made.net.forward = lambda x, t, label: made.parameterization.target(SCHEDULE, x_0, 400, eps)
    torch.testing.assert_close(made(x_t, t).x0, x_0, rtol=1e-10, atol=1e-10)
    assert clipped(Conditioned(made, None))(x_t, t).x0.abs().max() <= 1


def test_noising_and_loss_stay_in_float32_under_bfloat16():
    # In bfloat16 abar_1 is 1, so that x_t would equal x_0 and the noise could not be seen in it.
    seen = {}

    class Keeps(torch.nn.Module):
        def forward(self, x, t, label=None):
            seen["x"] = x
            return torch.nn.functional.conv2d(x, torch.ones(1, 1, 1, 1))

    made = Denoiser(Keeps(), Process(SCHEDULE), PARAMETERIZATIONS["eps"], torch.bfloat16)
    x_0, eps = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    losses = denoising_loss(made, x_0, torch.tensor([1, 1]), eps).total
    assert losses.dtype == seen["x"].dtype == torch.float32
    torch.testing.assert_close(seen["x"], SCHEDULE.alpha(1) * x_0 + SCHEDULE.sigma(1) * eps)
    assert made.raw(x_0, 1).dtype == torch.float32
    assert torch.equal(made.raw(x_0, 1), x_0.bfloat16().float())


class Constant(torch.nn.Module):
    """A network of 2C output channels: c * x, then v, both learnable."""

    def __init__(self, c, v):
        super().__init__()
        self.c, self.v = torch.nn.Parameter(torch.tensor(c)), torch.nn.Parameter(torch.tensor(v))

    def forward(self, x, t, label=None):
        return torch.cat((self.c * x, self.v.expand_as(x)), 1)


def hybrid(net, **options):
    made = Denoiser(net, Process(linear()), PARAMETERIZATIONS["eps"], learned_variance=True)
    x_0 = torch.randint(0, 256, (4, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    eps = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return denoising_loss(made, x_0, torch.tensor([1, 2, 500, 1000]), eps, objective=Objective(**options))


def test_a_learned_variance_is_the_second_half_of_the_channels():
    made = Denoiser(Constant(0.5, -0.2), Process(linear()), PARAMETERIZATIONS["eps"], learned_variance=True)
    x_t = torch.randn(2, 3, 4, 4)
    prediction = made(x_t, 500)
    assert torch.equal(prediction.raw, 0.5 * x_t)
    assert torch.equal(prediction.var_fraction, torch.full_like(x_t, 0.4))
    assert torch.equal(clipped(Conditioned(made, None))(x_t, 500).var_fraction, prediction.var_fraction)


def test_the_hybrid_teaches_the_mean_by_the_squared_error_alone_and_the_variance_by_the_bound():
    net = Constant(0.5, 0.1)
    losses = hybrid(net, kind="hybrid", vlb_weight=0.01)
    torch.testing.assert_close(losses.total, losses.mse + 0.01 * losses.bits)
    losses.total.sum().backward()
    mean, variance = net.c.grad.clone(), net.v.grad.clone()
    net.zero_grad()
    hybrid(net, kind="simple").total.sum().backward()
    torch.testing.assert_close(mean, net.c.grad)
    assert net.v.grad is None or net.v.grad == 0
    net.zero_grad()
    losses = hybrid(net, kind="vlb")
    assert torch.equal(losses.total, losses.bits)
    losses.total.sum().backward()
    torch.testing.assert_close(variance, 0.01 * net.v.grad)
    assert (net.c.grad - mean).abs() > 0.1 * mean.abs()  # the bound alone does move the mean


def test_weights_multiply_the_squared_error_by_time():
    weights = torch.arange(1001, dtype=torch.float64)
    losses = hybrid(Constant(0.5, 0.0), weights=weights)
    torch.testing.assert_close(losses.total, losses.mse * torch.tensor([1.0, 2, 500, 1000]))


@pytest.mark.parametrize("part", ["x0", "var_fraction"])
@pytest.mark.parametrize(
    ("bad", "indices", "t", "words"),
    [
        ([2], None, 7, "at t=7 of image 2, so"),
        ([1, 3], torch.tensor([10, 20, 30, 40]), 7, "at t=7 of image 20 (and of 1 more), so"),
        ([0, 2, 3], None, torch.tensor([9, 8, 7, 6]), "at t=9 of image 0 (and of 2 more), so"),
        ([3], torch.tensor([10, 20, 30, 40]), torch.tensor([9, 8, 7, 6]), "at t=6 of image 40, so"),
    ],
)
def test_what_is_not_finite_is_refused_by_the_number_of_its_image(part, bad, indices, t, words):
    made = {name: torch.zeros(4, 1, 2, 2) for name in ("x0", "raw", "var_fraction")}
    assert finite(lambda x, t: Prediction(**made), indices)(made["raw"], t).x0 is made["x0"]
    made[part][bad, 0, 0, 1] = math.inf
    with pytest.raises(NotFiniteError) as refused:
        finite(lambda x, t: Prediction(**made), indices)(made["raw"], t)
    assert words in str(refused.value)


def test_an_estimate_of_another_shape_is_refused_and_not_broadcast():
    process, indices = Process(linear(10)), torch.arange(2)
    x_T = starting_noise(0, indices, (3, 4, 4))
    for shape in ((2, 1, 4, 4), (1, 3, 4, 4), (2, 3, 4, 1)):
        wrong = torch.zeros(shape)
        with refusing("denoise"):
            list(draw(lambda x, t, w=wrong: Prediction(w, w), process, x_T, indices, Chain(steps=2)))


def test_the_vlb_sums_to_the_bound_without_its_prior():
    process, net = Process(linear(20, 1e-3, 0.3)), Constant(0.3, 0.2)
    made = Denoiser(net, process, PARAMETERIZATIONS["eps"], learned_variance=True)
    x_0 = torch.randint(0, 256, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    noise = lambda t: torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    with torch.no_grad():
        bound = variational_bound(Conditioned(made, None), process, x_0, noise, variance="learned")
        of_time = [
            denoising_loss(made, x_0, torch.full((3,), t), noise(t), objective=Objective("vlb")).bits
            for t in range(1, 21)
        ]
    expected = bound.bits_per_dim - bound.to_bits(bound.prior)
    torch.testing.assert_close(torch.stack(of_time).mean(0).double(), expected, rtol=1e-5, atol=0)


CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # a device can be named where there is none


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        deterministic.fill_uninitialized_memory,
    )


@pytest.fixture
def others(request):
    """Settings of a user's own, and torch's defaults afterwards."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def test_a_block_on_cuda_is_repeatable_and_leaves_nothing_behind():
    before = settings()
    with repeatable(CUDA):
        assert settings() == (True, False, False, False)
        with repeatable(CUDA):
            pass
        assert settings() == (True, False, False, False)
    assert settings() == before == (False, False, False, True)


def test_what_a_user_had_set_is_put_back_also_after_an_error(others):
    before = settings()
    with pytest.raises(ValueError), repeatable(CUDA):
        assert settings() == (True, False, False, False)
        raise ValueError
    assert settings() == before == (True, True, True, True)


def test_other_devices_change_nothing():
    before = settings()
    for device in (CPU, torch.device("mps")):
        with repeatable(device):
            assert settings() == before
        assert layout(device) == torch.preserve_format


def test_what_torch_refuses_is_said_in_one_line(monkeypatch):
    refused = "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(UserError, match="avg_pool3d_backward_cuda"), repeatable(CUDA):
        raise RuntimeError(refused)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UserError) as refusal, repeatable(CUDA):
        raise RuntimeError("it uses CuBLAS: set CUBLAS_WORKSPACE_CONFIG=:4096:8 or CUBLAS_WORKSPACE_CONFIG=:16:8")
    assert refusal.value.given == ":0:0" and "CUBLAS_WORKSPACE_CONFIG=:4096:8" in refusal.value.remedy
    with pytest.raises(torch.OutOfMemoryError), repeatable(CUDA):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_command_line_sets_what_cublas_needs(command, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert command("--version")[0] == 0
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_the_kernels_are_named_with_what_torch_was_told(monkeypatch):
    assert tf32() == (True, False)
    assert kernels(CUDA) == "repeatable, channels last, float32 convolutions in TF32, products in float32"
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = False
        assert tf32() == (False, True)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert tf32() == (False, False)
