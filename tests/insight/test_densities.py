"""Runs that draw their times by a density: what their log has is judged by means over it."""

import pytest
import torch
from invented import STATS, facts, said

from conftest import DISTILLED
from unstir.insight.doctor import examine
from unstir.insight.facts import NO_SAMPLES
from unstir.insight.image_stats import learns_nothing, outputs_nothing
from unstir.runs import build
from unstir.train.trainer import Trainer

DRAWN = ("uniform", "importance", "laplace", "normal")
MEAN, STD = -0.4, 0.6


def drawn_by_training(run, store, steps):
    """The times that the first ``steps`` batches of a run train on, of which no loss was seen yet."""
    trainer, found = Trainer(run, store), []
    for trainer.state.step in range(steps):
        found.append(trainer.examples(slice(0, run.config.train.batch_size)).t)
    return torch.cat(found)


@pytest.mark.parametrize("times", DRAWN)
@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_limits_are_means_over_the_times_that_training_draws(make_run, predict, times):
    """Gaussian values at training's own times: what an output of 0 leaves of them, and what the best estimate does."""
    schedule = {"diffusion__T": 1000, "diffusion__options": {"beta_1": 1e-4, "beta_T": 0.02}}
    run, store = make_run(**schedule, diffusion__predict=predict, loss__times=times, train__batch_size=1024)
    denoiser = build.denoiser(run.config, torch.nn.Identity(), torch.float32)
    table, target = denoiser.process.schedule, denoiser.parameterization.target
    t = drawn_by_training(run, store, 20)
    generator = torch.Generator().manual_seed(1)
    x_0, eps = torch.randn(2, len(t), 64, generator=generator, dtype=torch.float64)
    x_0 = MEAN + STD * x_0
    x_t = denoiser.process.diffuse(x_0, t, eps)
    of_t = lambda of: torch.tensor([of(i) for i in t.tolist()], dtype=torch.float64)[:, None]
    alpha, sigma = of_t(table.alpha), of_t(table.sigma)
    best = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)
    wanted = target(table, x_0, t, eps)
    for limit, output in (
        (outputs_nothing(run, MEAN, STD), torch.zeros(())),
        (learns_nothing(run, MEAN, STD), target(table, best, t, (x_t - alpha * best) / sigma)),
    ):
        errors = (wanted - output).square().mean(1)
        assert abs(errors.mean().item() - limit) < 4 * errors.std().item() / len(t) ** 0.5


def of_times(times, **settings):
    return facts(loss__times=times, **settings).run


def test_means_over_a_density_are_others_than_over_all_times_alike():
    of = {times: learns_nothing(of_times(times), MEAN, STD) for times in DRAWN}
    assert of["importance"] == of["uniform"] < 0.7 * min(of["laplace"], of["normal"])
    noisy = of_times("laplace", loss__times_options={"scale": 0.1, "mean": -2.0}, diffusion__predict="v")
    alike = of_times("uniform", diffusion__predict="v")
    assert outputs_nothing(noisy, MEAN, STD) < 0.9 * outputs_nothing(alike, MEAN, STD)


@pytest.mark.parametrize("times", DRAWN)
def test_a_log_is_held_against_the_limits_of_its_own_times(times):
    """In squared errors, which are logged beside a weighted loss."""
    limit = learns_nothing(of_times(times), STATS.mean, STATS.std)
    for share, expected in ((0.99, None), (1.01, ("problem", pytest.approx(1.01 * limit), pytest.approx(limit)))):
        for weighting, values in (("simple", {"loss": share * limit}), ("min_snr", {"loss": 9, "mse": share * limit})):
            lines = ({"step": 100, **values},)
            assert said("not-learned", facts(loss__times=times, loss__weighting=weighting), lines, STATS) == expected


def test_paths_are_not_held_against_errors_of_single_times():
    distilled = DISTILLED | {"log__held_out_images": 0}
    lines = tuple({"step": step, "loss": 9.0, "skipped": 0, "images_per_second": 0.0} for step in (1, 50, 100))
    parts = {"lines": lines, "images": STATS, "unmeasured": NO_SAMPLES}
    plain, other = (examine(facts(**parts, **settings)) for settings in ({}, distilled))
    assert "not-learned" in {it.check for it in plain.findings} and "not-learned" not in other.checked
    assert "not-learned" in other.skipped


def test_the_remedies_of_a_distilled_run_are_options_of_distill():
    distilled = DISTILLED | {"log__held_out_images": 0}
    lines = tuple({"step": step, "loss": None, "skipped": 0, "images_per_second": 0.0} for step in (1, 50, 100))
    parts = {"lines": lines, "images": STATS, "unmeasured": NO_SAMPLES}
    plain, other = (
        next(each.remedy for each in examine(facts(**parts, **settings)).findings if each.check == "not-finite")
        for settings in ({}, distilled)
    )
    trained, distilling = "`train.lr=", "`lr="
    assert trained in plain and distilling not in plain and other == plain.replace(trained, distilling)
