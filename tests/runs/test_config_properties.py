"""Any config is written and read again; a mistake names its argument, and its remedy is accepted."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusals import mistake
from unstir.errors import UserError
from unstir.nn.config import ModelConfig
from unstir.runs import recipes
from unstir.runs.config import Config
from unstir.runs.sections import GridConfig, LossConfig, TrainConfig
from unstir.runs.toml import flat, from_dict, read, to_dict, to_toml

POSITIVE = st.floats(1e-6, 100, allow_subnormal=False)
SPANS = st.builds("{} {}s".format, st.integers(2, 10**7), st.sampled_from(["step", "epoch", "image"]))


@st.composite
def settings(draw):
    """Nested settings that contradict nothing."""
    learned = draw(st.booleans())
    zero = draw(st.booleans())
    objective = draw(st.sampled_from(["hybrid", "vlb"] if learned else ["simple", "vlb"]))
    classes = draw(st.integers(0, 20))
    channels = draw(st.sampled_from([1, 3]))
    first = draw(st.floats(1e-6, 0.1))
    return {
        "seed": draw(st.integers(-(2**40), 2**40)),
        "data": {"channels": channels, "source": draw(st.text(min_size=1, max_size=20)), "flip": draw(st.booleans())},
        "model": {"in_channels": channels, "num_classes": classes, "dropout": draw(st.floats(0, 0.99))},
        "diffusion": {
            "T": draw(st.integers(1000, 5000)),
            "options": {"beta_1": first, "beta_T": draw(st.floats(first, 0.9))},
            "predict": draw(st.sampled_from(["x0", "v"] if zero else ["eps", "x0", "v"])),
            "zero_terminal_snr": zero,
            "learned_variance": learned,
        },
        "loss": {
            "objective": objective,
            "vlb_weight": draw(POSITIVE) if objective == "hybrid" else 0.001,
            "times": draw(st.sampled_from(["uniform", "importance", *(["laplace"] if objective == "simple" else [])])),
        },
        "train": {
            "length": draw(SPANS),
            "lr": draw(POSITIVE),
            "condition_dropout": draw(st.floats(0, 0.9)) if classes else 0.0,
        },
        "grids": {"epochs": draw(st.lists(st.integers(0, 500), max_size=5)), "seed": draw(st.integers(0, 10**9))},
    }


@given(settings())
def test_any_config_survives_toml_and_json(values):
    config = from_dict(values, "test")
    assert from_dict(tomllib.loads(to_toml(config)), "toml") == config
    assert from_dict(json.loads(json.dumps(to_dict(config))), "json") == config
    assert flat(values).items() <= flat(config).items()


def test_what_is_no_toml_is_told_where_it_is(tmp_path):
    for text, where in (("seed = 1\nlr = 0,004\n", "line 2, column"), ('seed = "', "of document")):
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(UserError, match=where):
            read(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("make", "key", "given"),
    [
        (lambda: GridConfig(steps=0), "steps", 0),
        (lambda: GridConfig(step=5), "step", None),
        (lambda: replace(TrainConfig(), lr=-1.0), "lr", -1.0),
        (lambda: replace(Config(), model=replace(ModelConfig(), in_channels=1)), "model.in_channels", 1),
        (lambda: LossConfig(objective="none"), "objective", "none"),
    ],
)
def test_a_mistake_in_python_names_the_argument(make, key, given):
    raised = mistake(make)
    assert (raised.key, raised.given) == (key, given)


OTHERS = "loss.objective loss.times model.in_channels model.groups model.freq_shift diffusion.predict "
OTHERS = (
    OTHERS + "grids.steps grids.guidance train.condition_dropout"
).split()  # at fault where another setting was given


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
        ("digits", {"diffusion.learned_variance": True, "loss.objective": "hybrid", "loss.times": "laplace"}),
        ("digits", {"loss.objective": "vlb", "loss.times": "laplace"}),
        ("digits-hybrid", {"diffusion.learned_variance": False}),
        ("cifar10", {"loss.weighting": "p2", "loss.objective": "vlb"}),
        ("digits", {"loss.weighting": "p2", "loss.objective": "vlb"}),
        ("cifar10", {"train.weight_decay": 0.1}), ("digits", {"train.micro_batch": 100}),
        ("digits", {"train.activation_checkpointing": 5}), ("digits", {"train.condition_dropout": 0.1}),
        ("digits", {"data.channels": 3}), ("digits", {"model.augmented": True}), ("digits", {"model.out_channels": 5}),
        ("digits", {"model.time_table": 5}), ("digits", {"model.layout": "report_guided"}),
        ("digits", {"model.channels": 33}), ("digits", {"model.channels": 3}), ("digits", {"model.channels": 20}),
        ("digits", {"model.groups": 12, "model.heads": 3}), ("digits", {"model.heads": 3}),
        ("digits", {"model.head_channels": 12}), ("digits", {"model.heads": 2, "model.head_channels": 8}),
        ("digits", {"model.attention": [7]}),
        ("digits", {"model.channels": 2, "model.groups": 1}),
        ("cifar10", {"diffusion.zero_terminal_snr": True}),
        ("digits", {"diffusion.zero_terminal_snr": True, "grids.sampler": "heun"}),
        ("digits", {"grids.variance": "learned"}),
        ("digits", {"diffusion.T": 20}), ("digits", {"grids.guidance": 2.0}),
        ("digits-guided", {"train.condition_dropout": 0.0}), ("digits", {"log.held_out_images": 1}),
        ("mnist", {"model.num_classes": 0}),
    ],
)  # fmt: skip
def test_each_remedy_is_accepted(recipe, given):
    tables = changed(to_dict(recipes.load_recipe(recipe)), given)
    error = mistake(from_dict, tables, "mine.toml")
    assert error.where == "mine.toml" and error.key in {*given, *OTHERS}
    remedies = error.remedy if isinstance(error.remedy, tuple) else (error.remedy,)
    settings = [each for each in remedies if isinstance(each, Mapping)]
    assert settings
    for each in settings:
        from_dict(changed(tables, each), "mine.toml")
