"""The machine's measured limit."""

import pytest
import torch

from peers import limit

CPU = torch.device("cpu")


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
    assert limit.measured_rate(CPU, torch.float32, 0.0) == pytest.approx(2e12)
    assert sizes == [(torch.mm, 128 << n) for n in range(3)] + [(torch.conv2d, 4)]
    best = [(torch.mm, 256)]
    assert limit.measured_rate(CPU, torch.float32, 0.0) == pytest.approx(3e12)


def test_where_convolutions_fail_the_rate_is_that_of_products(monkeypatch):
    def fastest(work, seconds):
        if work.func is torch.conv2d:
            raise RuntimeError("could not create a primitive")
        return 1.0

    monkeypatch.setattr(limit, "_fastest", fastest)
    assert limit.measured_rate(CPU, torch.float32, 0.0) == 2 * 128**3


def test_sizes_end_where_nothing_lasts_long_enough(monkeypatch):
    monkeypatch.setattr(limit, "_fastest", lambda work, seconds: 1e-6)
    monkeypatch.setattr(limit, "SIDES", (8, 16))
    monkeypatch.setattr(limit, "BATCHES", (1,))
    operations = max(2 * 16**3, 2 * limit.SIDE**2 * 9 * limit.CHANNELS**2)
    assert limit.measured_rate(CPU, torch.float32, 0.0) == pytest.approx(operations / 1e-6)


def test_measuring_takes_no_random_numbers_and_gives_what_a_machine_can_do():
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    rate = limit.measured_rate(CPU, torch.float32, 0.0)
    assert 1e7 < rate < 1e15  # FLOP/s
    assert torch.equal(torch.get_rng_state(), before) and torch.get_float32_matmul_precision() == precision
