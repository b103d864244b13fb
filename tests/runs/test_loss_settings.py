"""The [loss] settings: what contradicts itself is refused, and each reaches the objective."""

import pytest
import torch

from unstir.errors import UserError
from unstir.runs import build, recipes
from unstir.runs.toml import from_dict
from unstir.theory.weighting import loss_weights

ZERO_SNR = {"zero_terminal_snr": True, "predict": "v"}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"loss": {"objective": "hybrid"}}, "is for diffusion.learned_variance"),
        (
            {"diffusion": {"learned_variance": True}},
            'loss.objective="simple" does not train diffusion.learned_variance',
        ),
        ({"loss": {"objective": "vlb", "weighting": "p2"}}, 'which objective="vlb" does not use'),
        ({"loss": {"weighting": "snr"}}, "min_snr"),
        ({"loss": {"p2_k": 0.0}}, "more than 0"),
        ({"grids": {"variance": "learned"}}, "needs diffusion.learned_variance"),
        ({"grids": {"eta": 0.5}}, "eta=0.5 is an option of ddim, not of ancestral"),
        ({"model": {"out_channels": 6}}, "must be 0"),
        ({"model": {"augmented": True}}, "follows from train.augment"),
        ({"loss": {"min_snr_gamma": 3.0}}, 'no effect without weighting="min_snr"'),
        ({"loss": {"p2_k": 3.0, "weighting": "min_snr"}}, 'no effect without weighting="p2"'),
        ({"loss": {"vlb_weight": 3.0}}, 'no effect without objective="hybrid"'),
        ({"loss": {"teacher": "eps"}}, 'no effect without objective="consistency"'),
        ({"loss": {"objective": "consistency", "weighting": "p2"}}, 'which objective="consistency" does not use'),
        (
            {"loss": {"objective": "consistency", "input_perturbation": 0.1}},
            'input_perturbation=0.1 has no effect with objective="consistency"',
        ),
        (
            {"loss": {"objective": "consistency"}},
            'predict="eps" does not work with loss.objective="consistency", .*: use diffusion.predict="v"',
        ),
        (
            {"loss": {"objective": "consistency"}, "diffusion": {"predict": "v"}},
            "log.held_out_images=128 measures the denoising loss",
        ),
        ({"loss": {"objective": "consistency", "times": "normal"}}, "times=normal has no effect with"),
        ({"grids": {"sampler": "consistency"}}, 'either both are "consistency" or neither'),
        ({"loss": {"times_mean": 1.0, "times": "importance"}}, 'no effect without times="laplace"'),
        ({"loss": {"times_scale": 0.5}}, 'no effect without times="laplace"'),
        ({"loss": {"times": "normal", "times_scale": 1e-200}}, "times_scale.* 0.01"),  # every density would be 0
        ({"loss": {"noise_choices": 65}}, "noise_choices.* 64"),  # all are in memory at once
        ({"loss": {"times": "normal", "objective": "vlb"}}, 'with times=normal objective="vlb" would not be'),
        ({"loss": {"input_perturbation": 0.1, "times": "importance", "objective": "vlb"}}, "would not be a bound"),
        ({"loss": {"noise_choices": 4, "objective": "vlb"}}, "with noise_choices=4"),
        (
            {"grids": {"sampler": "unipc", "variance": "small"}},
            "'small' is an option of ancestral, not of unipc",
        ),
        ({"diffusion": {"zero_terminal_snr": True, "predict": "v"}, "loss": {"weighting": "p2"}}, "is 0 at t = T"),
        (
            {"diffusion": {"zero_terminal_snr": True, "predict": "v"}, "grids": {"sampler": "heun"}},
            "divides by alpha_T",
        ),
        ({"train": {"label_dropout": 0.1}}, "hides labels: use model.num_classes=10"),
        ({"grids": {"guidance": 2.0}}, "needs train.label_dropout"),
        ({"grids": {"threshold": 0.99, "clip": False}}, "leave clip on"),
        ({"loss": {"weigthing": "p2"}}, "did you mean loss.weighting"),
    ],
)
def test_contradictions_are_refused(sections, words):
    with pytest.raises(UserError, match=words):
        from_dict(sections, "test")


def test_settings_reach_the_objective():
    config = from_dict({"loss": {"weighting": "min_snr", "min_snr_gamma": 3.0}}, "test")
    denoiser = build.denoiser(config, torch.nn.Linear(1, 1), torch.float32)
    made = build.objective(config, denoiser)
    expected = loss_weights("min_snr", denoiser.process.schedule, denoiser.parameterization, min_snr_gamma=3.0)
    torch.testing.assert_close(made.weights, expected.float())
    assert made.kind == "simple"


def test_the_hybrid_recipe_is_the_digits_with_a_learned_variance():
    hybrid, digits = recipes.load_recipe("digits-hybrid"), recipes.load_recipe("digits")
    assert hybrid.train == digits.train and hybrid.model == digits.model
    assert build.network_config(hybrid).out_channels == 2 and build.network_config(digits).out_channels == 1
    denoiser = build.denoiser(hybrid, torch.nn.Linear(1, 1), torch.float32)
    assert denoiser.learned_variance and build.objective(hybrid, denoiser).kind == "hybrid"


def test_a_learned_variance_takes_twice_the_channels_out():
    learned = {"diffusion": {"learned_variance": True}, "loss": {"objective": "hybrid"}}
    for outputs, sections in ((0, {}), (3, {}), (0, learned), (6, learned)):
        assert from_dict({"model": {"out_channels": outputs}, **sections}, "test").model.out_channels == outputs
    for outputs, sections in ((6, {}), (2, {}), (3, learned), (9, learned)):
        with pytest.raises(UserError, match=f"out_channels={outputs} must be 0"):
            from_dict({"model": {"out_channels": outputs}, **sections}, "test")


def test_a_micro_batch_may_be_the_whole_batch_and_no_more():
    assert from_dict({"train": {"batch_size": 8, "micro_batch": 8}}, "test").train.micro_batch == 8
    with pytest.raises(UserError, match="micro_batch=9 exceeds batch_size=8"):
        from_dict({"train": {"batch_size": 8, "micro_batch": 9}}, "test")
