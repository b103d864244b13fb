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
    limit._rate.cache_clear()
    yield
    limit._rate.cache_clear()


def test_an_image_takes_three_forward_passes_at_the_rate_measured_once(monkeypatch):
    measured = []

    def rate(device, dtype):
        measured.append(dtype)
        return 2e12

    monkeypatch.setattr(limit, "measured_rate", rate)
    forward = flops(build.network_config(PLAIN), 16, 24)
    assert limit.least_seconds(PLAIN, (3, 16, 24), CPU) == pytest.approx(3 * forward / 2e12, rel=1e-12)
    assert limit.least_seconds(PLAIN, (3, 8, 8), CPU) < 3 * forward / 2e12 and measured == [torch.float32]
    limit.least_seconds(replace(PLAIN, train=TrainConfig(dtype="bfloat16")), (3, 8, 8), CPU)
    assert measured == [torch.float32, torch.bfloat16]


def test_an_unknown_rate_gives_no_least_time(monkeypatch):
    def unsupported(device, dtype):
        raise RuntimeError("addmm is not implemented for this type")

    monkeypatch.setattr(limit, "measured_rate", unsupported)
    assert limit.least_seconds(PLAIN, (3, 16, 16), CPU) is None


def test_sizes_grow_until_one_lasts_long_enough_and_the_best_rate_of_products_and_convolutions_counts(monkeypatch):
    sizes, rates = [], {torch.mm: 1e12, torch.conv2d: 2e12}

    def fastest(work, seconds):
        operands = work.args
        if work.func is torch.mm:
            operations = 2 * len(operands[0]) ** 3
            assert operands[0].shape == operands[1].shape == (len(operands[0]),) * 2
        else:
            positions = torch.conv2d(*operands, **work.keywords).numel() // limit.CHANNELS
            operations = 2 * positions * operands[1].numel()
        sizes.append((work.func, len(operands[0])))
        return operations / (3e12 if sizes[-1] in best else rates[work.func])

    monkeypatch.setattr(limit, "_fastest", fastest)
    monkeypatch.setattr(limit, "ENOUGH", 1e-4)
    best = []
    assert limit.measured_rate(CPU, torch.float32) == pytest.approx(2e12)
    assert sizes == [(torch.mm, 128 << n) for n in range(3)] + [(torch.conv2d, 4)]
    best = [(torch.mm, 256)]
    assert limit.measured_rate(CPU, torch.float32) == pytest.approx(3e12)


def test_where_convolutions_fail_the_rate_is_that_of_products(monkeypatch):
    def fastest(work, seconds):
        if work.func is torch.conv2d:
            raise RuntimeError("could not create a primitive")
        return 1.0

    monkeypatch.setattr(limit, "_fastest", fastest)
    assert limit.measured_rate(CPU, torch.float32) == 2 * 128**3


def test_sizes_end_where_nothing_lasts_long_enough(monkeypatch):
    monkeypatch.setattr(limit, "_fastest", lambda work, seconds: 1e-6)
    monkeypatch.setattr(limit, "SIDES", (8, 16))
    monkeypatch.setattr(limit, "BATCHES", (1,))
    operations = max(2 * 16**3, 2 * limit.SIDE**2 * 9 * limit.CHANNELS**2)
    assert limit.measured_rate(CPU, torch.float32) == pytest.approx(operations / 1e-6)


def test_measuring_takes_no_random_numbers_and_gives_what_a_machine_can_do():
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    rate = limit.measured_rate(CPU, torch.float32, 0.0)
    assert 1e7 < rate < 1e15  # FLOP/s
    assert torch.equal(torch.get_rng_state(), before) and torch.get_float32_matmul_precision() == precision
