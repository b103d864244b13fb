"""Settings that do not go together: each remedy of the error, put in place of what was given, is accepted."""

from collections.abc import Mapping

import pytest

from refusals import mistake
from unstir.runs import recipes
from unstir.runs.toml import from_dict, to_dict

OTHERS = "loss.objective loss.times model.in_channels model.groups model.freq_shift diffusion.predict "
OTHERS = (OTHERS + "grids.steps grids.guidance").split()  # at fault where another setting was given


def changed(tables, settings):
    """Settings with these, by dotted keys, in place of their own."""
    tables = {name: dict(value) if isinstance(value, dict) else value for name, value in tables.items()}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        tables[section][name] = value
    return tables


@pytest.mark.parametrize(
    ("recipe", "given"),
    [
        ("digits", {"diffusion.learned_variance": True}), ("cifar10", {"diffusion.learned_variance": True}),
        ("digits", {"diffusion.learned_variance": True, "loss.objective": "hybrid"}),
        ("cifar10-small", {"loss.objective": "vlb"}), ("digits-hybrid", {"diffusion.learned_variance": False}),
        ("cifar10", {"loss.weighting": "p2", "loss.objective": "vlb"}),
        ("digits", {"loss.weighting": "p2", "loss.objective": "vlb"}),
        ("cifar10", {"train.weight_decay": 0.1}), ("digits", {"train.micro_batch": 100}),
        ("digits", {"train.activation_checkpointing": 5}), ("digits", {"train.condition_dropout": 0.1}),
        ("digits", {"data.channels": 3}), ("digits", {"model.augmented": True}), ("digits", {"model.out_channels": 5}),
        ("digits", {"model.time_table": 5}), ("digits", {"model.layout": "report_guided"}),
        ("digits", {"model.channels": 33}), ("digits", {"model.channels": 3}), ("digits", {"model.channels": 20}),
        ("digits", {"model.groups": 12, "model.heads": 3}), ("digits", {"model.heads": 3}),
        ("digits", {"model.head_channels": 12}), ("digits", {"model.heads": 2, "model.head_channels": 8}),
        ("digits", {"model.attention": [7]}), ("digits", {"model.attention": [1, 0, 1]}),
        ("digits", {"model.channels": 2, "model.groups": 1}),
        ("cifar10", {"diffusion.zero_terminal_snr": True}),
        ("digits", {"diffusion.zero_terminal_snr": True, "grids.sampler": "heun"}),
        ("digits", {"grids.variance": "learned"}), ("digits", {"grids.sampler": "consistency"}),
        ("digits", {"diffusion.T": 20}), ("digits", {"grids.guidance": 2.0}),
        ("digits-guided", {"train.condition_dropout": 0.0}), ("digits", {"log.held_out_images": 1}),
    ],
)  # fmt: skip
def test_each_remedy_is_accepted(recipe, given):
    tables = changed(to_dict(recipes.load_recipe(recipe)), given)
    refused = mistake(from_dict, tables, "mine.toml")
    error = refused
    assert error.where == "mine.toml" and error.key in {*given, *OTHERS}
    remedies = error.remedy if isinstance(error.remedy, tuple) else (error.remedy,)
    settings = [each for each in remedies if isinstance(each, Mapping)]
    assert settings
    for each in settings:
        from_dict(changed(tables, each), "mine.toml")
