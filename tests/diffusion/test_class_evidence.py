"""Which class a chain draws: Bayes' rule by steps against Bayes' rule in terms of images, on random estimates."""

import torch

from unstir.diffusion.classes import decided, followed, step_evidence
from unstir.diffusion.denoiser import Prediction
from unstir.diffusion.samplers import Step
from unstir.theory.process import Process
from unstir.theory.schedule import cosine


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
