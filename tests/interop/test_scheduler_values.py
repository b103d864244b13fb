"""The values that diffusers' own tests expect of whole chains, through what `import unstir` offers.

Their dummy network answers x t / (t + 1) and their dummy images are a ramp (tests/schedulers/test_schedulers.py there);
schedule linear.
"""

import pytest
import torch

from unstir import Chain, Prediction, Process, draw, linear
from unstir.diffusion.denoiser import clipped
from unstir.diffusion.samplers.ancestral import ancestral

PROCESS = Process(linear(1000))
RAMP = (torch.arange(768.0).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)


def dummy(predict):
    def denoise(x_t, t):
        raw, alpha, sigma = x_t * ((t - 1) / t), PROCESS.schedule.alpha(t), PROCESS.schedule.sigma(t)  # theirs: t - 1
        return Prediction((x_t - sigma * raw) / alpha if predict == "eps" else alpha * x_t - sigma * raw, raw)

    return denoise


@pytest.mark.parametrize(("predict", "total"), [("eps", 172.0067), ("v", 52.5302)])
def test_ddim(predict, total):
    (*_, last) = draw(dummy(predict), PROCESS, RAMP, torch.arange(4), Chain("ddim", steps=10, spacing="leading"))
    assert last.x.abs().sum().item() == pytest.approx(total, abs=1e-2)


TIMES = (1000, 900, 800, 700, 600, 501, 401, 301, 201, 101, 1)  # their chains end at the least noise, not at 0


@pytest.mark.parametrize(("predict", "mean"), [("eps", 0.3301), ("v", 0.2251)])
def test_dpm_solver(predict, mean):
    chain = Chain("dpmpp_2m", times=(*TIMES, 0), clip=False)  # the last step is of first order, and theirs is not
    *_, at_1, _ = draw(dummy(predict), PROCESS, RAMP, torch.arange(4), chain)
    assert at_1.t == 1 and at_1.x.abs().mean().item() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(("predict", "mean"), [("eps", 0.2464), ("v", 0.1014)])
def test_unipc(predict, mean):
    chain = Chain("unipc", options={"order": 2}, times=TIMES, clip=False)
    *_, at_1 = draw(dummy(predict), PROCESS, RAMP, torch.arange(4), chain)
    assert at_1.t == 1 and at_1.x.abs().mean().item() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(("predict", "total"), [("eps", 258.9606), ("v", 202.0296)])
def test_ddpm_with_the_noise_of_torch(predict, total):
    generator = torch.Generator().manual_seed(0)
    noise = lambda t: torch.randn(RAMP.shape, generator=generator)
    (*_, last) = ancestral(clipped(dummy(predict)), PROCESS, RAMP, range(1000, -1, -1), noise, "small")
    assert last.x.abs().sum().item() == pytest.approx(total, abs=1e-2)
