"""The machine's measured limit, and the least time of an image at it."""

from dataclasses import replace

import pytest
import torch

from unstir.nn.unet import flops
from unstir.runs import build
from unstir.runs.config import Config
from unstir.runs.sections import TrainConfig
from unstir.train import limit

CPU = torch.device("cpu")
PLAIN = Config(train=TrainConfig(dtype="float32"))


@pytest.fixture(autouse=True)
def forgotten():
    """No rate that was measured before, or that a test makes up, stays."""
    limit._product_rate.cache_clear()
    yield
    limit._product_rate.cache_clear()


def test_an_image_takes_three_forward_passes_at_the_rate_measured_once(monkeypatch):
    measured = []

    def rate(device, dtype):
        measured.append(dtype)
        return 2e12

    monkeypatch.setattr(limit, "product_rate", rate)
    forward = flops(build.network_config(PLAIN), 16, 24)
    assert limit.least_seconds(PLAIN, (3, 16, 24), CPU) == pytest.approx(3 * forward / 2e12, rel=1e-12)
    assert limit.least_seconds(PLAIN, (3, 8, 8), CPU) < 3 * forward / 2e12 and measured == [torch.float32]
    limit.least_seconds(replace(PLAIN, train=TrainConfig(dtype="bfloat16")), (3, 8, 8), CPU)
    assert measured == [torch.float32, torch.bfloat16]


def test_an_unknown_rate_gives_no_least_time(monkeypatch):
    def unsupported(device, dtype):
        raise RuntimeError("addmm is not implemented for this type")

    monkeypatch.setattr(limit, "product_rate", unsupported)
    assert limit.least_seconds(PLAIN, (3, 16, 16), CPU) is None


def test_matrices_grow_until_a_product_lasts_long_enough_and_the_best_rate_counts(monkeypatch):
    sides = []

    def fastest(device, dtype, side, seconds):
        sides.append(side)
        return 2 * side**3 / (3e12 if side == 1024 else 1e12)

    monkeypatch.setattr(limit, "_fastest", fastest)
    assert limit.product_rate(CPU, torch.float32) == pytest.approx(3e12) and sides == [128, 256, 512, 1024, 2048]
    monkeypatch.setattr(limit, "_fastest", lambda device, dtype, side, seconds: 1e-6)
    assert limit.product_rate(CPU, torch.float32) == pytest.approx(2 * limit.LARGEST**3 / 1e-6)


def test_measuring_takes_no_random_numbers_and_gives_what_a_machine_can_do():
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    rate = limit.product_rate(CPU, torch.float32, 0.0)
    assert 1e7 < rate < 1e15  # FLOP/s
    assert torch.equal(torch.get_rng_state(), before) and torch.get_float32_matmul_precision() == precision
