"""Where each check of weights and samples begins to speak: at its threshold nothing is said, beyond it is."""

import math
from types import SimpleNamespace

import pytest
import torch
from invented import facts, said

from unstir.doctor import CHECKS, samples
from unstir.doctor.check import Errors, Samples
from unstir.doctor.samples import initial_share, noise_level


@pytest.mark.parametrize(
    ("length", "better"),
    [
        (46_050, "0.9999"), (46_049, "0.9995"), (9_209, "0.9995"), (9_208, "0.999"), (4_603, "0.999"),
        (4_602, "0.995"), (919, "0.995"), (918, "0.99"), (459, "0.99"), (458, "0.9"),
    ],
)  # fmt: skip
def test_a_better_decay_forgets_the_beginning_within_the_run(length, better, monkeypatch):
    monkeypatch.setattr(samples, "initial_share", lambda run, steps: 0.05 if steps == length else 0)
    (found,) = CHECKS["slow-average"].find(facts(train__length=f"{length} steps"))
    assert f"--train.ema_decay {better};" in found.remedy


@pytest.mark.parametrize(("share", "expected"), [(0.01, None), (0.011, "warning"), (0.1, "warning"), (0.11, "problem")])
def test_the_initial_weights_in_the_average(share, expected, monkeypatch):
    monkeypatch.setattr(samples, "initial_share", lambda run, steps: share)
    assert said("slow-average", facts()) == (expected and (expected, share, 0.01))
    assert said("slow-average", facts(train__init="other.safetensors")) is None
    assert initial_share(facts(train__ema_decay=0.5, train__ema_warmup=False).run, 1000) == 0


@pytest.mark.parametrize(
    ("times", "step", "expected"),
    [(1.05, 100, None), (1.1, 100, None), (1.2, 100, "warning"), (1.5, 100, "warning"), (1.6, 99, "warning"),
     (1.6, 100, "problem")],
)  # fmt: skip
def test_an_average_behind_its_weights(times, step, expected):
    raw = torch.tensor([10.0, 30.0] * 20, dtype=torch.float64)
    found = said("average-behind", facts(step=step), Errors(raw, raw * times))
    assert found == (expected and (expected, pytest.approx(times), 1.1))
    unsure = torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([0.2, 4.6], dtype=torch.float64)
    assert said("average-behind", facts(), Errors(*unsure)) is None
    assert (
        said("average-behind", facts(), Errors(None, raw)) is said("average-behind", facts(), Errors(raw, None)) is None
    )
    assert said("average-behind", facts(), Errors(raw * 0, raw)) == ("problem", math.inf, 1.1)


def test_the_loss_of_the_weights_is_held_against_the_last_three_lines_before_them():
    lines = tuple({"step": step, "loss": 100.0 if step in (1, 5) else 2.0} for step in range(1, 6))
    loaded = SimpleNamespace(step=4)
    errors = lambda mean, by=1.0: Errors(None, torch.tensor([mean - by, mean + by] * 100, dtype=torch.float64))
    assert said("weights-loss", facts(), errors(3.2, 9.0), loaded, lines) is None  # 1.2 are two errors
    assert said("weights-loss", facts(), errors(3.0), loaded, lines) is None
    assert said("weights-loss", facts(), errors(3.2), loaded, lines) == ("problem", pytest.approx(1.6), 1.5)
    none = ({"step": 1, "loss": 0.0},)
    assert said("weights-loss", facts(), Errors(None, None), loaded, lines) is None
    assert said("weights-loss", facts(), errors(3.2), loaded, none) == ("problem", math.inf, 1.5)
    (found,) = CHECKS["weights-finite"].find(facts(), SimpleNamespace(tensors={"a": errors(math.nan).average}, step=1))
    assert (found.figure, found.threshold) == (1, 0)


def images(*rows):
    """Images [N, C, H, W] of a row of values a channel."""
    return torch.tensor(rows, dtype=torch.uint8).unsqueeze(-2)


def drawn(name, made, real, step=100):
    return said(name, facts(step=step), Samples(made, real, "by hand"))


SPREAD = [100, 140, 80, 120, 100, 60]  # of a deviation of some 28


@pytest.mark.parametrize(
    ("name", "made", "real", "expected"),
    [
        ("brightness", [[[7, 7]]] * 2, [[[7, 7]]] * 2, None),
        ("brightness", [[[v + 3 for v in SPREAD]]] * 9, [[SPREAD]] * 9, None),
        ("brightness", [[[v + 5 for v in SPREAD]]] * 9, [[SPREAD]] * 9, 5),
        ("brightness", [[[v - 5 for v in SPREAD]]] * 9, [[SPREAD]] * 9, 5),
        ("tint", [[[9, 5], [9, 5], [9, 5]]] * 2, [[[9, 5], [9, 5], [9, 5]]] * 2, None),
        ("tint", [[[v + 1 for v in SPREAD], SPREAD, SPREAD]] * 9, [[SPREAD] * 3] * 9, None),
        ("tint", [[[v + 3 for v in SPREAD], SPREAD, SPREAD]] * 9, [[SPREAD] * 3] * 9, 2),
        ("tint", [[SPREAD, SPREAD, [v - 3 for v in SPREAD]]] * 9, [[SPREAD] * 3] * 9, 2),
        ("tint", [[[60, 60]]] * 9, [[[40, 60]]] * 9, None),
        ("saturation", [[[0] + [9] * 9]] * 2, [[[9] * 10]] * 2, None),
        ("saturation", [[[0] * 3 + [9] * 17]] * 2, [[[9] * 20]] * 2, 0.15),
        ("saturation", [[[255] * 3 + [9] * 17]] * 2, [[[9] * 20]] * 2, 0.15),
        ("saturation", [[[1, 254] + [9] * 3]] * 2, [[[9] * 5]] * 2, None),
        ("collapse", [[[0, 0]], [[0, 20]]], [[[0, 0]], [[20, 20]]], None),
        ("collapse", [[[0, 0]], [[0, 19]]], [[[0, 0]], [[20, 20]]], 0.45125),
        ("collapse", [[[0, 0]], [[0, 20]]], [[[5, 5]], [[5, 5]]], None),
        ("emptiness", [[[0, 20], [0, 20], [0, 0], [0, 0], [0, 0]]], [[[0, 20]] * 5], None),
        ("emptiness", [[[0, 20], [0, 19], [0, 0], [0, 0], [0, 0]]], [[[0, 20]] * 5], 0.39),
        ("emptiness", [[[0, 20]]], [[[5, 5]]], None),
    ],
)
def test_what_samples_show(name, made, real, expected):
    found = drawn(name, images(*made), images(*real))
    assert (None if found is None else found[:2]) == (expected and ("problem", pytest.approx(expected)))
    in_training = drawn(name, images(*made), images(*real), step=99)
    assert (None if in_training is None else in_training[0]) == (expected and "warning")


@pytest.mark.parametrize(
    ("name", "made", "real"),
    [
        ("brightness", [[[v + 5 for v in SPREAD]]] * 9, [[SPREAD]] * 9),
        ("tint", [[[v + 3 for v in SPREAD], SPREAD, SPREAD]] * 9, [[SPREAD] * 3] * 9),
        ("saturation", [[[0] * 3 + [9] * 17]] * 2, [[[9] * 20]] * 2),
    ],
)
def test_no_number_of_errors_is_said_where_images_do_not_vary(name, made, real):
    (found,) = CHECKS[name].find(facts(), Samples(images(*made), images(*real), "by hand"))
    assert "(the same in every image; by hand)" in found.evidence and "inf" not in found.evidence


@pytest.mark.parametrize(
    ("made", "real", "expected"),
    [(16.0, 10.0, None), (16.1, 10.0, 1.61), (3.0, 1.0, None), (3.1, 1.0, 3.1), (5.0, 0.0, 5e9)],
)
def test_noise_left_in_samples(made, real, expected, monkeypatch):
    monkeypatch.setattr(samples, "noise_level", lambda images: images)
    found = drawn("noise", torch.full((9,), made).double(), torch.full((9,), real).double())
    assert found == (expected and ("problem", pytest.approx(expected), 1.6))
    checks = torch.tensor([[0, 9, 0], [9, 0, 9], [0, 9, 0]], dtype=torch.uint8)
    assert noise_level(checks.expand(1, 1, 3, 3)).item() == pytest.approx(72 * math.sqrt(math.pi / 2) / 6)
