"""The denoiser and its loss against hand-written formulas, with a network that can be seen through."""

import pytest
import torch

from unstir.diffusion.denoiser import Denoiser, clipped, labelled
from unstir.diffusion.loss import denoising_loss
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
    for t in (0, 1001):
        with pytest.raises(ValueError, match=r"outside 1\.\.1000"):
            made(x, t)
    assert made.net.options == {} and made.net.label is None
    label = torch.tensor([4, 5, 6])
    labelled(made, label)(x, 7)
    assert made.net.label is label


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_is_the_mean_squared_error_of_the_target_for_each_image(name, dtype):
    x_0, eps = torch.randn(2, 3, 2, 4, 4, dtype=dtype)
    t = torch.tensor([1, 300, 1000])
    made = denoiser(name)
    losses = denoising_loss(made, x_0, t, eps).total
    assert losses.shape == (3,) and losses.dtype == dtype
    for i, time in enumerate(t.tolist()):
        alpha, sigma = SCHEDULE.abar(time) ** 0.5, (1 - SCHEDULE.abar(time)) ** 0.5
        x_t = alpha * x_0[i] + sigma * eps[i]
        target = {"eps": eps[i], "x0": x_0[i], "v": alpha * eps[i] - sigma * x_0[i]}[name]
        assert losses[i].item() == pytest.approx(((torch.sin(3 * x_t) - target) ** 2).mean().item(), rel=2e-5)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_the_estimate_is_the_image_where_the_network_is_right(name):
    x_0, eps = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64)
    made, t = denoiser(name), 400
    x_t = made.process.diffuse(x_0, t, eps)
    made.net.forward = lambda x, t, label: made.parameterization.target(SCHEDULE, x_0, 400, eps)
    torch.testing.assert_close(made(x_t, t).x0, x_0, rtol=1e-10, atol=1e-10)
    assert clipped(labelled(made, None))(x_t, t).x0.abs().max() <= 1


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
