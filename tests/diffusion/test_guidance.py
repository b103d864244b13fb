"""Guidance against its formula, dynamic thresholding, and which class a chain draws, by Bayes' rule twice."""

import pytest
import torch
from known import PROCESS, known

from refusals import mistake
from unstir.chain import Chain
from unstir.diffusion.classes import decided, followed, step_evidence
from unstir.diffusion.denoiser import Conditioned, Denoiser, Prediction, clipped, finite, thresholded
from unstir.diffusion.draw import draw, starting_noise, steered
from unstir.diffusion.editing import mixed
from unstir.diffusion.guidance import guided, in_plane
from unstir.diffusion.samplers import Step
from unstir.theory.oracle import GaussianData
from unstir.theory.parameterization import PARAMETERIZATIONS
from unstir.theory.process import Process
from unstir.theory.schedule import cosine

X = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class ByLabel(torch.nn.Module):
    """F(x, label) = (label + 1) x / 10, counting its calls and their batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x, t, label=None):
        self.batches.append(len(x))
        return (label + 1).view(-1, 1, 1, 1) * x / 10


def denoiser(kind="eps"):
    return Denoiser(ByLabel(), PROCESS, PARAMETERIZATIONS[kind])


def labels(value, n=3):
    return torch.full((n,), value)


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("scale", [0.5, 1.8, 3.0])
def test_the_formula_holds_for_every_prediction(kind, scale):
    made = denoiser(kind)
    strong, weak = made(X, 500, labels(4)), made(X, 500, labels(9))
    mixed = guided(Conditioned(made, labels(4)), Conditioned(made, labels(9)), scale)(X, 500)
    torch.testing.assert_close(mixed.raw, weak.raw + scale * (strong.raw - weak.raw), rtol=1e-5, atol=1e-6)
    w = scale - 1  # the report's weight
    torch.testing.assert_close(mixed.raw, (1 + w) * strong.raw - w * weak.raw, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed.x0, weak.x0 + scale * (strong.x0 - weak.x0), rtol=1e-4, atol=1e-5)
    again = made.predict(mixed.raw, X, 500)  # mixing outputs is mixing estimates
    torch.testing.assert_close(mixed.x0, again.x0, rtol=1e-4, atol=1e-4)


def test_scale_1_is_strong_alone_0_is_weak_alone_and_others_one_call_of_both():
    made = denoiser()
    strong, weak = Conditioned(made, labels(4)), Conditioned(made, labels(9))
    made.net.batches.clear()
    assert torch.equal(guided(strong, weak, 1.0)(X, 500).x0, strong(X, 500).x0)
    assert torch.equal(guided(strong, weak, 0.0)(X, 500).x0, weak(X, 500).x0)
    assert made.net.batches == [3, 3, 3, 3]
    guided(strong, weak, 2.0)(X, 500)
    assert made.net.batches[4:] == [6]
    other = denoiser()
    guided(strong, Conditioned(other, labels(4)), 2.0)(X, 500)
    assert made.net.batches[5:] == [3] and other.net.batches == [3]


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [(1, 0, 1, 1000), (300, 0, 300, 1000), (1, 700, 1, 700), (300, 700, 300, 700), (700, 700, 700, 700)],
)
def test_a_chain_is_guided_at_the_times_of_its_interval_and_at_no_others(scale, low, high, first, last):
    made, asked = denoiser(), []
    strong, weak = Conditioned(made, labels(4)), Conditioned(made, labels(9))

    def watched(x, t):
        asked.append(t)
        return weak(x, t)

    chain = Chain(sampler="ddim", steps=20, guidance=scale, guidance_low=low, guidance_high=high, clip=False)
    led = steered(strong, chain, PROCESS, watched)
    for t in range(1, 1001):
        good, bad = strong(X, t).x0, weak(X, t).x0
        expected = bad + scale * (good - bad) if first <= t <= last else good
        torch.testing.assert_close(led(X, t).x0, expected, rtol=1e-4, atol=1e-4)
    assert asked == list(range(first, last + 1))
    asked.clear()
    list(draw(strong, PROCESS, starting_noise(0, torch.arange(3), (1, 4, 4)), torch.arange(3), chain, watched))
    assert asked == [t for t in range(1000, 0, -50) if first <= t <= last]


def test_at_scale_0_weak_is_alone_within_the_interval_and_strong_outside():
    made = denoiser()
    strong, weak = Conditioned(made, labels(4)), Conditioned(made, labels(9))
    within = guided(strong, weak, 0.0, 200, 600)
    for t, alone in ((199, strong), (200, weak), (600, weak), (601, strong)):
        made.net.batches.clear()
        found = within(X, t).x0
        assert made.net.batches == [3] and torch.equal(found, alone(X, t).x0)
        assert not torch.equal(strong(X, t).x0, weak(X, t).x0)


def test_a_learned_variance_and_the_errors_are_the_strong_ones():
    class Twice(ByLabel):
        def forward(self, x, t, label=None):
            return super().forward(x, t, label).repeat(1, 2, 1, 1)

    made = Denoiser(Twice(), PROCESS, PARAMETERIZATIONS["eps"], learned_variance=True, errors=torch.arange(1001.0))
    strong = Conditioned(made, labels(4))
    mixed = guided(strong, Conditioned(made, labels(9)), 2.0)(X, 500)
    assert torch.equal(mixed.var_fraction, strong(X, 500).var_fraction) and mixed.raw.shape == X.shape
    assert mixed.error == 500


WRAPPERS = {
    "labelled": lambda strong, weak: strong,
    "clipped": lambda strong, weak: clipped(strong),
    "thresholded": lambda strong, weak: thresholded(strong, 0.9),
    "finite": lambda strong, weak: finite(strong),
    "mixed": lambda strong, weak: mixed(strong, weak, 0.3),
    "known": lambda strong, weak: known(GaussianData(torch.zeros(1, 4, 4).double(), torch.eye(16).double()), PROCESS),
    **{f"scale {scale}": lambda strong, weak, scale=scale: guided(strong, weak, scale) for scale in (0, 1, 2.5)},
    **{
        f"scale {scale} within 400..600": lambda strong, weak, scale=scale: guided(strong, weak, scale, 400, 600)
        for scale in (0, 2.5)
    },
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_every_denoiser_takes_a_time_an_image_too(name):
    class Twice(ByLabel):
        def forward(self, x, t, label=None):
            return (super().forward(x, t, label) + (t / 1000).view(-1, 1, 1, 1)).repeat(1, 2, 1, 1)

    made = Denoiser(Twice(), PROCESS, PARAMETERIZATIONS["eps"], learned_variance=True)
    denoise = WRAPPERS[name](Conditioned(made, labels(4, 1)), Conditioned(made, labels(9, 1)))
    in_batch = WRAPPERS[name](Conditioned(made, labels(4)), Conditioned(made, labels(9)))
    t = torch.tensor([3, 500, 900])
    together = in_batch(X, t)
    for row, time in enumerate(t.tolist()):
        alone = denoise(X[row : row + 1], time)
        for each in ("x0", "raw", "var_fraction"):
            found, wanted = getattr(together, each), getattr(alone, each)
            assert (found is None) == (wanted is None)
            if found is not None:
                torch.testing.assert_close(found[row : row + 1], wanted, rtol=1e-5, atol=1e-5)


def test_a_chain_is_guided_before_it_is_clamped():
    made, indices = denoiser(), torch.arange(3)
    strong, weak = Conditioned(made, labels(4)), Conditioned(made, labels(9))
    x_T = starting_noise(0, indices, (1, 4, 4))
    chain = Chain(sampler="ddim", steps=4, guidance=2.0)
    first = next(draw(strong, PROCESS, x_T, indices, chain, weak))
    torch.testing.assert_close(first.x0, clipped(guided(strong, weak, 2.0))(x_T, 1000).x0)
    assert "guidance=2.0 " in str(mistake(draw, strong, PROCESS, x_T, indices, chain))
    limited = Chain(sampler="ddim", steps=4, guidance=2.0, guidance_high=900, clip=False)
    torch.testing.assert_close(next(draw(strong, PROCESS, x_T, indices, limited, weak)).x0, strong(x_T, 1000).x0)


def test_a_chain_is_guided_before_it_is_thresholded():
    made, indices = denoiser(), torch.arange(3)
    strong, weak = Conditioned(made, labels(4)), Conditioned(made, labels(9))
    x_T = starting_noise(0, indices, (1, 4, 4))
    chain = Chain(sampler="ddim", steps=4, guidance=3.0, threshold=0.9)
    first = next(draw(strong, PROCESS, x_T, indices, chain, weak)).x0
    torch.testing.assert_close(first, thresholded(guided(strong, weak, 3.0), 0.9)(x_T, 1000).x0)
    before = guided(thresholded(strong, 0.9), thresholded(weak, 0.9), 3.0)(x_T, 1000).x0
    assert (first - before).abs().max() > 0.1 and first.abs().max() <= 1


def test_dynamic_thresholding_scales_each_image_by_its_own_quantile():
    x0 = torch.stack([torch.linspace(-4, 4, 101), torch.linspace(-0.5, 0.5, 101)]).view(2, 1, 1, 101)
    found = thresholded(lambda x, t: Prediction(x0, x0), 0.5)(x0, 1).x0
    torch.testing.assert_close(found[0], (x0[0] / 2).clamp(-1, 1))  # the median of |x_0| is 2
    assert torch.equal(found[1], x0[1])  # within [-1, 1] nothing is done
    assert found.abs().max() <= 1


def test_a_chain_thresholds_where_it_is_asked_to():
    x_T, indices = starting_noise(0, torch.arange(3), (1, 4, 4)), torch.arange(3)
    far = lambda x, t: Prediction(4 * x, x)
    dynamic = next(draw(far, PROCESS, x_T, indices, Chain(sampler="ddim", steps=4, threshold=0.9)))
    torch.testing.assert_close(dynamic.x0, thresholded(far, 0.9)(x_T, 1000).x0)
    plain = next(draw(far, PROCESS, x_T, indices, Chain(sampler="ddim", steps=4)))
    torch.testing.assert_close(plain.x0, (4 * x_T).clamp(-1, 1))
    assert not torch.equal(plain.x0, dynamic.x0)


def test_arrows_in_their_plane_keep_lengths_and_angles():
    x_t, weak, strong = X.double()
    arrows = in_plane(x_t, weak, strong, [1.0, 3.0])
    ends = torch.stack((weak, strong, strong, weak + 3 * (strong - weak))) - x_t
    products = torch.einsum("i...,j...->ij", ends, ends) / x_t.numel()
    torch.testing.assert_close(arrows @ arrows.mT, products)


def test_evidence_grows_with_the_signal_to_noise_ratio():
    process, t, s = Process(cosine(1000)), 600, 450
    x_t, x_0, *estimates = torch.randn(6, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at_x_t, at_x_0, _ = process.posterior_coefficients(t, s)
    x_s, estimates = at_x_t * x_t + at_x_0 * x_0, torch.cat(estimates)
    evidence = step_evidence(process, x_t, x_s, estimates, t, s)
    gained = process.schedule.snr[s] - process.schedule.snr[t]
    expected = -gained / 2 * (estimates - x_0).square().flatten(1).sum(1)
    torch.testing.assert_close(evidence - evidence[0], expected - expected[0])


def test_probabilities_are_of_all_steps_so_far_but_the_last():
    process, x = Process(cosine(1000)), torch.randn(4, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0)) / 2
    estimates = torch.linspace(-2, 2, 12).view(3, 1, 2, 2)
    steps = [Step(t, x_s, x_s) for t, x_s in zip((600, 300, 0), x[1:], strict=True)]
    lines = list(followed(lambda x_t, t: Prediction(estimates, estimates), 3, process, x[0], 900, steps))
    assert [(t, step.t) for t, _, step, _ in lines] == [(900, 600), (600, 300), (300, 0)]
    first, second = (
        step_evidence(process, x_t, step.x, estimates.clamp(-1, 1), t, step.t) for t, x_t, step, _ in lines[:2]
    )
    for line, evidence in zip(lines, (first, first + second, first + second), strict=True):
        torch.testing.assert_close(line[3], evidence.softmax(0))


def test_a_class_is_decided_after_the_last_change_of_the_most_probable_one():
    probabilities = torch.eye(3)[torch.tensor([2, 0, 2, 0, 0])]
    assert decided([50, 40, 30, 20, 10], probabilities) == 20
    assert decided([50, 40], torch.eye(3)[torch.tensor([1, 1])]) == 50
