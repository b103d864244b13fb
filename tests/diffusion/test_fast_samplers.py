"""Fast samplers: step by step against diffusers, their order on a mixture, and their ends."""

import math
from functools import partial
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from known import PROCESS, denoise_of, gaussian_denoise, known

from unstir.chain import SAMPLERS, Chain
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.draw import draw
from unstir.diffusion.samplers.ancestral import ancestral
from unstir.diffusion.samplers.ddim import ddim
from unstir.diffusion.samplers.dpmpp import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m
from unstir.diffusion.samplers.heun import heun
from unstir.diffusion.samplers.ipndm import ADAMS_BASHFORTH, GROWTH, Order, ipndm
from unstir.diffusion.samplers.pndm import _count, pndm
from unstir.diffusion.samplers.unipc import unipc
from unstir.theory.oracle import MixtureData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine, linear, sigmoid, times, zero_terminal_snr
from unstir.verify.sampling import ORDERS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
GENERATOR = torch.Generator().manual_seed(0)
X_T = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=GENERATOR)
NOISES = {t: torch.randn(X_T.shape, dtype=torch.float64, generator=GENERATOR) for t in range(1, 1001)}
QUIET = lambda t: torch.zeros(1, dtype=torch.float64)
DETERMINISTIC = {solve.__name__: solve for solve in (ddim, dpmpp_2m, dpmpp_3m, heun, unipc, ipndm, pndm)}


def with_our_sigmas(scheduler, process, visited):
    """A diffusers scheduler told to visit our times with our float64 noise levels, sigma / alpha."""
    schedule = process.schedule
    scheduler.set_timesteps(len(visited) - 1)
    scheduler.timesteps = torch.tensor([t - 1 for t in visited[:-1]])
    sigmas = [schedule.sigma(t) / schedule.alpha(t) for t in visited]
    scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    scheduler.num_inference_steps = len(visited) - 1
    return scheduler


def their_pndm(process, steps, **options):
    """The PNDM of diffusers with our tables, and the times that it calls the network at, counted from 0."""
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.PNDMScheduler(1000, timestep_spacing="trailing", set_alpha_to_one=True, **options)
    theirs.set_timesteps(steps)
    theirs.alphas_cumprod = torch.tensor([process.schedule.abar(t) for t in range(1, 1001)], dtype=torch.float64)
    return theirs, iter(theirs.timesteps.tolist())


def worst_difference(theirs, ours, denoise, visited, **options):
    """The largest relative difference of the states after a step from the same state: their steps round to float32."""
    x, worst = X_T, 0.0
    for t, step in zip(visited[:-1], ours, strict=True):
        ended = theirs.step(denoise(x, t).raw, t - 1, x, **{k: v(t) for k, v in options.items()}).prev_sample
        worst = max(worst, ((step.x - ended).abs() / ended.abs().clamp(min=0.1)).max().item())
        x = step.x
    return worst


MULTISTEP = {
    **{f"dpm {order}": ("DPMSolverMultistepScheduler", {"solver_order": order}, ours)
       for order, ours in ((1, ddim), (2, dpmpp_2m), (3, dpmpp_3m))},
    "sde": ("DPMSolverMultistepScheduler", {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}, dpmpp_2m_sde),
    **{f"unipc {order}": ("UniPCMultistepScheduler", {"solver_order": order, "final_sigmas_type": "zero"},
       partial(unipc, order=order)) for order in (1, 2, 3)},
}  # fmt: skip
"""The schedulers of diffusers with their options, and our function."""


@pytest.mark.slow
@pytest.mark.parametrize("process", [PROCESS, Process(cosine())], ids=["linear", "cosine"])
@pytest.mark.parametrize(
    ("name", "steps"),  # with fewer than 15 the last but one of dpm is of lower order
    [(name, steps) for name in MULTISTEP for steps in ((5, 10, 14, 15, 20) if "dpm" in name else (5, 10, 20))],
)
def test_multistep_solvers_equal_those_of_diffusers(process, steps, name):
    diffusers = pytest.importorskip("diffusers")
    scheduler, options, solve = MULTISTEP[name]
    visited, denoise = times(process.schedule, steps), denoise_of(process)
    theirs = getattr(diffusers, scheduler)(1000, timestep_spacing="trailing", **options)
    noise = {"variance_noise": NOISES.__getitem__} if name == "sde" else {}
    ours = solve(denoise, process, X_T, visited, NOISES.__getitem__)
    assert worst_difference(with_our_sigmas(theirs, process, visited), ours, denoise, visited, **noise) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 20])
def test_heun_equals_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    visited, denoise, schedule = times(PROCESS.schedule, steps), denoise_of(PROCESS), PROCESS.schedule
    theirs = diffusers.HeunDiscreteScheduler(1000, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    ratio = torch.tensor([schedule.sigma(t) / schedule.alpha(t) for t in visited], dtype=torch.float64)
    theirs.sigmas = torch.cat((ratio[:1], ratio[1:-1].repeat_interleave(2), ratio[-1:]))
    seen = [visited[0], *(t for t in visited[1:-1] for _ in range(2))]
    theirs.timesteps = torch.tensor([t - 1 for t in seen], dtype=torch.float64)
    y, worst = X_T / schedule.alpha(visited[0]), 0.0
    ours = heun(denoise, PROCESS, X_T, visited, QUIET)
    for call, t in enumerate(seen):
        x = y * schedule.alpha(t)
        y = theirs.step(denoise(x, t).raw, t - 1, y).prev_sample
        if call % 2 or (t == visited[-2] and call == len(seen) - 1):  # the second call of a step, or Euler's only one
            step = next(ours)
            ended = y * schedule.alpha(step.t)
            worst = max(worst, ((step.x - ended).abs() / ended.abs().clamp(min=1e-2)).max().item())
    assert worst < 1e-6 and next(ours, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("process", [PROCESS, Process(linear(1000, 1e-3, 0.01))], ids=["linear", "less noise"])
@pytest.mark.parametrize("steps", [5, 10, 20, 50, 100])
def test_pndm_equals_diffusers(process, steps):
    """All but the last step, to 0, where theirs leaves noise; with strides that are even, as theirs are halved."""
    visited, denoise, x = times(process.schedule, steps), denoise_of(process), X_T
    theirs, calls = their_pndm(process, steps)
    for number, (t, step) in enumerate(zip(visited[:-2], pndm(denoise, process, X_T, visited, QUIET), strict=False)):
        for call in range(4 if number < 3 else 1):
            told = next(calls)
            assert call or told == t - 1
            x = theirs.step(denoise(x, told + 1).raw, told, x).prev_sample
        torch.testing.assert_close(step.x, x, rtol=1e-10, atol=1e-10)
        x = step.x
    assert list(calls) == [visited[-2] - 1]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_ipndm_equals_diffusers_pndm_without_runge_kutta_steps(steps):
    """All but the first step, which theirs takes once more, by the average of two estimates, and the last, to 0."""
    visited, denoise, x = times(PROCESS.schedule, steps), denoise_of(PROCESS), X_T
    theirs, calls = their_pndm(PROCESS, steps, skip_prk_steps=True)
    for number, step in enumerate(islice(ipndm(denoise, PROCESS, X_T, visited, QUIET), steps - 1)):
        told = next(calls)
        ended = theirs.step(denoise(x, told + 1).raw, told, x).prev_sample
        torch.testing.assert_close(step.x, ended, rtol=1e-10, atol=1e-10)
        x = step.x
        if number == 0:
            told = next(calls)
            again = theirs.step(denoise(x, told + 1).raw, told, x).prev_sample
            assert (again - x).abs().max() > 1e-6
    assert list(calls) == [visited[-2] - 1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_steps_are_those_asked_and_the_calls_those_announced(name):
    told = []
    denoise = lambda x, t: (told.append(t), denoise_of(PROCESS)(x, t))[1]
    own = [Chain(name, times=times) for times in ((1000, 500, 200), (1000, 700, 400, 200), (1000, 9, 8, 7, 6, 5))]
    for chain in own + [Chain(name, steps=n, spacing=s) for s in ("trailing", "log_snr") for n in (*range(1, 21), 100)]:
        told.clear()
        list(draw(denoise, PROCESS, X_T[:1].float(), torch.zeros(1, dtype=torch.int64), chain))
        visited = chain.visited(PROCESS.schedule)
        assert len(visited) == 1 + min(chain.steps, 94 if chain.spacing == "log_snr" else 100)  # repeated ones are one
        assert set(visited[:-1]) <= set(told) and all(1 <= t <= 1000 for t in told)
        assert len(told) == chain.calls(PROCESS.schedule)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_what_a_step_says_of_the_image_is_the_estimate_at_its_beginning(name):
    asked, denoise = [], denoise_of(PROCESS)

    def watched(x, t):
        asked.append(x)
        return denoise(x, t)

    visited, before = times(PROCESS.schedule, 7), X_T
    for t, step in zip(visited[:-1], DETERMINISTIC[name](watched, PROCESS, X_T, visited, QUIET), strict=True):
        beginning = asked[-1] if name == "unipc" else before  # UniPC corrects its x by the call that begins a step
        torch.testing.assert_close(step.x0, denoise(beginning, t).x0, rtol=0, atol=0)
        before = step.x


def test_the_stages_of_a_runge_kutta_step_are_at_its_ends_and_its_middle_rounded_down():
    told = []
    denoise = lambda x, t: (told.append(t), denoise_of(PROCESS)(x, t))[1]
    next(pndm(denoise, PROCESS, X_T, [1000, 735, 400, 0], QUIET))
    assert told == [1000, 867, 867, 735]


def test_a_long_step_of_heun_is_exact_for_an_estimate_linear_in_the_log_snr():
    """One step in which the slope at the far end would weigh much (1000 to 990 of a cosine), by quadrature."""
    process = Process(cosine())
    schedule, lambda_ = process.schedule, lambda t: 0.5 * process.schedule.log_snr(t)
    t, s = 1000, 990
    assert schedule.alpha(s) * (schedule.sigma(t) / schedule.alpha(t) * schedule.alpha(s) / schedule.sigma(s) - 1) > 4
    line = lambda at: 0.4 - 0.07 * (at - lambda_(t))  # x_0_hat by lambda
    denoise = lambda x, time: Prediction(torch.full_like(x, line(lambda_(time))), x)
    places, weights = np.polynomial.legendre.leggauss(60)
    width = (lambda_(s) - lambda_(t)) / 2
    at = lambda_(t) + width * (places + 1)
    integral = width * (weights * np.exp(at - lambda_(s)) * line(at)).sum()  # e^lambda_s = alpha_s / sigma_s
    expected = schedule.sigma(s) / schedule.sigma(t) * X_T + schedule.alpha(s) * integral
    step = next(heun(denoise, process, X_T, [t, s, 0], QUIET))
    torch.testing.assert_close(step.x, expected, rtol=1e-10, atol=1e-10)


MIXTURE = MixtureData(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-0.9], [0.6]], dtype=torch.float64),
    torch.full((2, 1, 1), 0.04, dtype=torch.float64),
)
MIXTURE_STD = math.sqrt(0.04 + 0.3 * 0.9**2 + 0.7 * 0.6**2 - (0.3 * -0.9 + 0.7 * 0.6) ** 2)
MANY = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)[:, None]  # evenly spread noise


def test_a_runge_kutta_step_that_would_multiply_an_estimate_averages_those_of_the_image(monkeypatch):
    """The effects said in the module, and the form that is taken on either side of an effect of 1."""
    schedule = cosine()
    assert _count(schedule, 1000, 999, 999) == pytest.approx(8.2215, abs=1e-4)
    assert _count(schedule, 1000, 997, 994) == pytest.approx(2661.56, abs=0.01)
    process = Process(schedule)
    after = lambda t, s: next(pndm(known(MIXTURE, process), process, MANY, [t, s, 0], QUIET)).x
    for t, s, least, most in ((990, 940, 1.2, 1.3), (900, 850, 0.08, 0.1)):
        effect = _count(schedule, t, (t + s) // 2, s)
        taken, forms = after(t, s), {}
        for forced in (0, 9):  # the form of the noise, and that of the image
            with monkeypatch.context() as patch:
                patch.setattr("unstir.diffusion.samplers.pndm._count", lambda *_, forced=forced: forced)
                forms[forced] = after(t, s)
        assert least < effect < most and not torch.equal(forms[0], forms[9])
        assert torch.equal(taken, forms[9 if effect > 1 else 0])
    still = next(pndm(lambda x, t: Prediction(0 * x + 0.3, x), process, X_T, [990, 940, 0], QUIET)).x  # as DDIM's step
    ratio = schedule.sigma(940) / schedule.sigma(990)
    wanted = ratio * X_T + (schedule.alpha(940) - ratio * schedule.alpha(990)) * 0.3
    torch.testing.assert_close(still, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", [linear(), cosine(), sigmoid()], ids=["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_the_ends_are_safe(name, schedule, steps):
    """No blow-up at t = T, no residual noise at 0: without any clamp, on data whose exact denoiser is known."""
    process = Process(schedule)
    taken = list(DETERMINISTIC[name](known(MIXTURE, process), process, MANY, times(schedule, steps), QUIET))
    assert all(step.x.abs().max() < 5 for step in taken)
    torch.testing.assert_close(taken[-1].x, taken[-1].x0, rtol=0, atol=1e-9)
    if steps == 20:
        assert taken[-1].x.std().item() == pytest.approx(MIXTURE_STD, rel=0.08 if ORDERS[name] == 1 else 0.04)


@pytest.mark.parametrize("name", ["heun", "ipndm", "pndm"])
@pytest.mark.parametrize("schedule", [cosine(), sigmoid()], ids=["cosine", "sigmoid"])
@pytest.mark.parametrize("spacing", ["trailing", "log_snr", "quadratic"])
def test_the_start_is_safe_where_alpha_grows_much_in_a_step(name, schedule, spacing):
    """Whatever the steps, no state leaves the bounds of its noise, and data N(0.3, 0.5^2) keep their spread."""
    process = Process(schedule)
    denoise = gaussian_denoise(process, 0.3, 0.5)
    for calls in (100, 170, 350, 500, 1000):
        most = max(steps for steps in range(1, calls + 1) if SAMPLERS[name].calls_in(steps) <= calls)
        visited = Chain(name, steps=most, spacing=spacing).visited(schedule)
        taken = list(DETERMINISTIC[name](denoise, process, MANY, visited, QUIET))
        assert max(step.x.abs().max() for step in taken) < 4  # what MANY begins with
        assert taken[-1].x.std().item() == pytest.approx(0.5, rel=0.02), calls
        assert taken[-1].x.mean().item() == pytest.approx(0.3, abs=1e-3), calls


def mixture_errors(sampler, process, start, steps):
    """The error at t = 200 from ``start`` on the mixture, against UniPC with 1600 steps."""
    denoise, x_T = known(MIXTURE, process), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def at_200(solve, n):
        visited = [*dict.fromkeys(round(start - (start - 200) * i / n) for i in range(n + 1)), 0]
        return next(step.x for step in solve(denoise, process, x_T, visited, QUIET) if step.t == 200)

    exact = at_200(unipc, 1600)
    return [(at_200(sampler, n) - exact).abs().mean().item() for n in steps]


MIXTURE_ORDERS = {
    "ddim": (0.9, 1.1), "heun": (1.9, 2.1), "dpmpp_2m": (1.9, 2.25), "unipc": (2.7, 3.3),
    "dpmpp_3m": (1.9, 3.2), "ipndm": (1.9, 3.6), "pndm": (1.9, 3.6),  # down to a limit of 2, which the first steps set
}  # fmt: skip


@pytest.mark.parametrize("name", MIXTURE_ORDERS)
def test_the_order_holds_on_a_mixture_too(name):
    process = Process(linear(8200, 1e-4 / 8.2, 0.02 / 8.2))  # so that whole times allow many steps, all alike
    found = mixture_errors(DETERMINISTIC[name], process, 8200, (100, 200, 400))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(found)]
    low, high = MIXTURE_ORDERS[name]
    assert all(low < order < high for order in orders), orders


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if not SAMPLERS[name].divides_by_alpha])
def test_zero_terminal_snr_is_solved(name):
    process = Process(zero_terminal_snr(linear()))
    kind = PARAMETERIZATIONS["v"]
    denoise = lambda x, t: Prediction(kind.x0(process.schedule, x, t, torch.sin(x)).clamp(-1, 1), x)
    steps = DETERMINISTIC[name](denoise, process, X_T, times(process.schedule, 10), QUIET)
    assert all(step.x.isfinite().all() for step in steps)


def test_the_sde_solver_of_first_order_is_the_ancestral_chain():
    denoise, visited = denoise_of(PROCESS), times(PROCESS.schedule, 2)  # no history, then no noise
    ours = list(dpmpp_2m_sde(denoise, PROCESS, X_T, visited, NOISES.__getitem__))
    theirs = list(ancestral(denoise, PROCESS, X_T, visited, NOISES.__getitem__, "small"))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.x, other.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["heun", "ipndm", "pndm"])
@pytest.mark.parametrize(
    ("schedule", "spread"),
    [(linear(4000), 0.39), (linear(1000, 1e-4, 0.1), 0.39), (linear(1000, 1e-4, 0.5), 0.22)],
    ids=["T=4000", "beta_T=0.1", "beta_T=0.5"],
)
def test_rounding_errors_do_not_grow_while_there_is_hardly_a_signal(name, schedule, spread):
    """Many steps with an alpha_T down to 1e-63: a float32 state stays that of float64. Data N(0.3, 0.5^2)."""
    process, alpha, sigma = Process(schedule), schedule.alpha, schedule.sigma
    spread_at = lambda t: alpha(t) ** 2 * 0.25 + sigma(t) ** 2
    denoise = lambda x, t: Prediction(0.3 + alpha(t) * 0.25 * (x - alpha(t) * 0.3) / spread_at(t), x)
    for spacing in ("trailing", "log_snr", "quadratic"):
        for steps in (4, 7, 10, 20, 50):
            visited = times(schedule, steps, spacing)
            exact, rounded = (
                list(DETERMINISTIC[name](denoise, process, start, visited, QUIET)) for start in (MANY, MANY.float())
            )
            assert max(step.x.abs().max() for step in exact) < 4  # what MANY begins with
            assert max((a.x - b.x).abs().max() for a, b in zip(exact, rounded, strict=True)) < 5e-4
            if (spacing, steps) == ("trailing", 20):
                assert spread < exact[-1].x.std().item() < 0.5  # DDIM ends just below, and far more steps at 0.5


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_a_schedule_whose_numbers_are_almost_too_large_is_drawn_all_the_same(steps):
    process = Process(linear(1000, 1e-4, 0.8))
    denoise = lambda x, t: Prediction(0.3 + 0 * x, x)
    for name in ("heun", "ipndm", "pndm"):
        *_, ended = DETERMINISTIC[name](denoise, process, X_T.float(), times(process.schedule, steps), QUIET)
        torch.testing.assert_close(ended.x, torch.full_like(ended.x, 0.3))


def test_a_step_averages_as_many_estimates_as_the_bound_on_growth_allows():
    """Over T=1000 and trailing times always as many as there are; over a long schedule in few steps down to one."""

    def orders(schedule, visited):
        order = Order(schedule)
        return [order.of(min(number, 4), *pair) for number, pair in enumerate(pairwise(visited[:-1]), 1)]

    for schedule in (linear(), cosine(), sigmoid()):
        for steps in (8, 10, 20, 50):
            assert orders(schedule, times(schedule, steps)) == [min(n, 4) for n in range(1, steps)]
    long = orders(linear(4000), times(linear(4000), 20))
    assert orders(linear(2000), times(linear(2000), 10)) == [1, 2, 3, 4, 2, 2, 2, 3, 3]
    assert orders(cosine(), times(cosine(), 10, "log_snr")) == [1, 2, 3, 3, 2, 3, 4, 4]
    assert long == [1, 2, 3, 2, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 3, 3]


def test_a_change_of_the_state_grows_in_the_average_by_as_much_as_is_said():
    """Where eps is x: the largest growth of differences of one size, by the weights themselves."""
    for weights, growth in zip(ADAMS_BASHFORTH, GROWTH, strict=True):
        left = np.cumsum(weights[::-1])[::-1]  # what x_n - sum w x has of d_n, d_(n-1), ...: 1 - left[0] = 0 of x_n
        assert left[0] == pytest.approx(1) and np.abs(left[1:]).sum() == pytest.approx(growth)
