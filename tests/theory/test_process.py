"""The ends of the process, and what it refuses; its equations are rows of `unstir verify` (tests/verify)."""

import math

import pytest
import torch
from torch.distributions import Normal

from refusals import mistake
from unstir.theory.parameterization import VARIANCES, check_variance, chosen_variance, error_at_each_time, log_variance
from unstir.theory.process import Gaussian, Process
from unstir.theory.schedule import from_betas, linear, zero_terminal_snr

PROCESS = Process(linear())


@pytest.mark.parametrize(("t", "s"), [(5, 5), (5, 6), (0, 0), (1001, 3), (5, -1)])
def test_times_in_the_wrong_order_are_refused(t, s):
    with pytest.raises(ValueError, match="0 <= s < t <= 1000"):
        PROCESS.posterior_coefficients(t, s)


@pytest.mark.parametrize(("t", "s"), [(60, 1), (60, 27), (33, 1), (2, 1), (60, 0), (2, 0)])
def test_a_long_step_keeps_the_little_that_is_left_of_the_image(t, s):
    """The scale is a product of sqrt(1 - beta); from the beta of the whole step, near 1, rounding would lose it."""
    process = Process(from_betas(torch.full((60,), 0.5, dtype=torch.float64)))
    mean = process.one_step(torch.ones(1, dtype=torch.float64), t, s).mean.item()
    assert mean == pytest.approx(0.5 ** ((t - s) / 2), rel=1e-13, abs=0)


def test_the_step_to_the_image_takes_the_small_variance_of_the_one_before_it():
    for T in (1, 2, 3):
        process = Process(from_betas(torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)[:T]))
        at_x_0, log_small, log_large = process.step(1, torch.zeros(1))
        assert at_x_0 == process.posterior_coefficients(1, 0)[1] and log_large == process.log_variances(1, 0)[1]
        assert log_small == (process.log_variances(2, 1)[0] if T > 1 else log_large)
        several = process.step(torch.arange(1, T + 1), torch.zeros(T, 1, dtype=torch.float64))
        for t in range(1, T + 1):
            assert [each[t - 1].item() for each in several] == list(process.step(t, torch.zeros(1)))


def test_a_variance_is_the_small_the_large_or_one_between_that_was_learned():
    fraction = torch.tensor([0.0, 0.25, 1.0])
    assert log_variance("small", -3.0, -1.0) == -3.0 and log_variance("large", -3.0, -1.0) == -1.0
    assert log_variance("learned", -3.0, -1.0, fraction).tolist() == [-3.0, -2.5, -1.0]
    for kind, given in (("learned", None), ("auto", fraction)):
        with pytest.raises(ValueError, match=f"'{kind}'"):
            log_variance(kind, -3.0, -1.0, given)
    chosen = {of: chosen_variance("auto", *of) for of in ((True, True), (True, False), (False, True), (False, False))}
    assert list(chosen.values()) == ["learned", "learned", "large", "small"]
    assert all(chosen_variance(kind, True, True) == kind for kind in VARIANCES)
    for kind in ("auto", *VARIANCES):
        check_variance(kind, learned=True, measured=True)
    check_variance("large", learned=False, measured=False)
    for kind, learned, measured in (("learned", False, True), ("optimal", True, False), ("none", True, True)):
        raised = mistake(check_variance, kind, learned, measured)
        assert (raised.key, raised.given) == ("variance", kind)


@pytest.mark.parametrize("schedule", [linear(50, 0.002, 0.25), zero_terminal_snr(linear(50, 0.002, 0.25))])
def test_errors_at_few_times_give_those_at_all(schedule):
    """An error that is a power of the SNR is met at every time between those measured, and stays beyond them."""
    power = lambda t: math.exp(-0.7 * schedule.log_snr(t))
    found = error_at_each_time(schedule, (2, 9, 30), [power(t) for t in (2, 9, 30)]).tolist()
    assert math.isnan(found[0]) and len(found) == 51
    assert found[2:31] == pytest.approx([power(t) for t in range(2, 31)], rel=1e-12)
    assert found[1] == pytest.approx(power(2), rel=1e-12) and found[31:] == pytest.approx([power(30)] * 20, rel=1e-12)
    ends = error_at_each_time(schedule, (1, 50), [0.01, 0.5]).tolist()
    assert (ends[1], ends[50]) == (pytest.approx(0.01), pytest.approx(0.5)) and ends[1:] == sorted(ends[1:])


def pair(mean, std):
    mean = torch.tensor(mean, dtype=torch.float64)
    return Gaussian(mean, torch.tensor(2 * math.log(std), dtype=torch.float64)), Normal(mean, std)


def test_the_density_equals_torchs():
    ours, theirs = pair([0.1, -2.0, 3.0], 0.7)
    x = torch.tensor([0.3, 0.3, -4.0], dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-13, atol=0)


def test_log_var_may_be_a_number():
    as_number = Gaussian(torch.zeros(3, dtype=torch.float64), math.log(0.49))
    as_tensor, _ = pair([0.0] * 3, 0.7)
    x = torch.tensor([0.3, 1.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(as_number.log_prob(x), as_tensor.log_prob(x))
    torch.testing.assert_close(as_number.sample(x), 0.7 * x)
    torch.testing.assert_close(as_number.kl(pair([0.2] * 3, 1.1)[0]), as_tensor.kl(pair([0.2] * 3, 1.1)[0]))
    assert as_number.std == pytest.approx(0.7) and as_number.var == pytest.approx(0.49)


def test_discretised_mass_is_exact_far_in_the_tail():
    # Bins 30 std away, where the tanh approximation of the CDF and a plain difference of CDFs are both useless.
    x, std = torch.tensor([100 / 127.5 - 1], dtype=torch.float64), 0.02
    for sign in (1, -1):
        mean = sign * x + sign * 30 * std
        log_mass = Gaussian(mean, 2 * math.log(std)).discretised_log_prob(sign * x)
        near, far = (30 * std - 1 / 255) / std, (30 * std + 1 / 255) / std
        log_tail = lambda z: torch.special.log_ndtr(torch.tensor(-z, dtype=torch.float64))
        expected = log_tail(near) + torch.log(-torch.expm1(log_tail(far) - log_tail(near)))
        assert log_mass.item() == pytest.approx(expected.item(), rel=1e-12, abs=0)
        assert -500 < log_mass.item() < -400
