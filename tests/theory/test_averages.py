"""Power averages against their definition, published numbers, and averages that are tracked directly."""

import pytest
import torch

from refusals import mistake
from unstir.theory.averages import WIDTHS, combination, decay, exponent


def test_exponents_are_those_of_the_paper_and_of_the_width():
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005) and exponent(0.1) == pytest.approx(6.94, abs=0.005)
    for width in (0.001, 0.01, 0.15, 0.28):
        g = exponent(width)
        assert (g + 1) ** 0.5 / (g + 2) / (g + 3) ** 0.5 == pytest.approx(width, rel=1e-12)


@pytest.mark.parametrize("width", [0.0, 0.0009, 0.281, 0.3, -0.1, float("nan")])
def test_a_width_that_no_average_has_is_refused(width):
    assert "ema_width=" in str(mistake(exponent, width))


def tracked(weights, width):
    """The average after each update."""
    average, each = torch.zeros_like(weights[0]), []
    for n, new in enumerate(weights, 1):
        average = average + (1 - decay(width, n)) * (new - average)
        each.append(average)
    return each


def test_the_share_of_an_update_is_a_power_of_its_number_and_the_std_of_the_shares_the_width():
    n, width = 500, 0.1
    shares = tracked(torch.eye(n, dtype=torch.float64), width)[-1]
    k = torch.arange(1, n + 1).double()
    up_to = (k / n) ** (exponent(width) + 1)
    torch.testing.assert_close(shares.cumsum(0), up_to, rtol=1e-9, atol=1e-15)
    mean = (shares * k).sum()
    assert ((shares * (k - mean) ** 2).sum().sqrt() / n).item() == pytest.approx(width, rel=1e-3)


def test_the_shares_of_edm2():
    saved = [(4096 * n, width) for n in range(1, 9) for width in WIDTHS]
    shares, error = combination(saved, (8 * 4096, 0.07))
    assert shares[-2:] == pytest.approx([0.38708213, 0.69312741], abs=1e-6)  # its solve_posthoc_coefficients
    assert sum(shares) == pytest.approx(1) and error < 0.02


def test_an_average_that_was_saved_is_taken_as_it_is():
    shares, error = combination([(5, 0.05), (5, 0.1), (9, 0.05), (9, 0.1)], (9, 0.1))
    assert shares == pytest.approx([0, 0, 0, 1], abs=1e-9) and error < 1e-6


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15, 0.25])
def test_any_average_is_made_of_two_that_were_saved_now_and_then(width):
    steps = torch.randn(1000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = steps.cumsum(0)  # that drift as weights do
    of_width = {each: tracked(weights, each) for each in WIDTHS}
    saved = [(n, each) for n in range(50, 1001, 50) for each in WIDTHS]
    shares, error = combination(saved, (1000, width))
    made = sum(share * of_width[each][n - 1] for share, (n, each) in zip(shares, saved, strict=True))
    wanted = tracked(weights, width)[-1]
    others = [torch.dist(of_width[each][-1], wanted) for each in WIDTHS]
    assert torch.dist(made, wanted) < 0.06 * min(others) and error < 0.07


def test_what_too_few_averages_cannot_make_has_a_large_error():
    assert combination([(1000, 0.05), (1000, 0.1)], (1000, 0.2))[1] > 0.3
