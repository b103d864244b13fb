"""A configuration that cannot be built is refused where it is written, with the remedy."""

import subprocess
import sys

import pytest

from refusals import mistake
from unstir.errors import UserError
from unstir.nn.config import UNetConfig


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *(("channels", {"channels": value}) for value in ("many", 64.5, 0)),
        ("channels", {"channels": 33, "groups": 11}), ("groups", {"channels": 48}),
        *(("mults", {"mults": value}) for value in ((), (1, 0), (1, 1.5))),
        *(("attention", {"attention": value}) for value in ((4,), (-1,), (1, 1))),
        ("heads", {"heads": 3}), ("heads", {"mults": (1, 3), "attention": (), "heads": 5}),
        ("heads", {"head_channels": 64, "heads": 2}), ("head_channels", {"head_channels": 24}),
        ("layout", {"layout": "report_guided"}), ("layout", {"layout": "report_guided", "num_classes": 2}),
        ("layout", {"layout": "guided"}), *(("dropout", {"dropout": value}) for value in (1.0, -0.1, float("nan"))),
        *(("norm_eps", {"norm_eps": value}) for value in (0.0, float("inf"))),
        ("freq_shift", {"channels": 2, "groups": 1}), ("downsample_padding", {"downsample_padding": 2}),
        ("flip_sin_to_cos", {"flip_sin_to_cos": 2}), ("num_classes", {"num_classes": -1}), ("colour", {"colour": 3}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_and_each_remedy_is_enough(key, wrong):
    refused = mistake(UNetConfig, **wrong)
    assert refused.key == key
    remedies = refused.remedy
    for settings in remedies if isinstance(remedies, tuple) else (remedies,):
        UNetConfig(**{**wrong, **settings})


@pytest.mark.parametrize(("name", "least", "most"), [("in_channels", 1, 16_384), ("num_classes", 0, 1_000_000)])
def test_counts_have_bounds(name, least, most):
    assert [getattr(UNetConfig(**{name: value}), name) for value in (least, most)] == [least, most]
    for value in (least - 1, most + 1):
        with pytest.raises(UserError, match=name):
            UNetConfig(**{name: value})


def test_lists_as_toml_has_them_become_tuples():
    config = UNetConfig(mults=[1, 2], attention=[])
    assert (config.mults, config.attention, config.widths) == ((1, 2), (), (128, 256))


def test_words_as_a_command_line_has_them_become_numbers():
    config = UNetConfig(channels="64", mults=["1", "2"], flip_sin_to_cos="true", downsample_padding="1", dropout="0.2")
    assert config == UNetConfig(channels=64, mults=(1, 2), flip_sin_to_cos=True, downsample_padding=1, dropout=0.2)


def test_a_config_is_read_without_torch():
    code = "import sys; from unstir.nn.config import UNetConfig; UNetConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_are_counted_without_symbolic_shapes():
    """torch imports them, in two seconds, for as little as an empty range on its meta device."""
    code = "import sys; from unstir.runs.build import num_parameters; from unstir.runs.config import Config; "
    code += "assert num_parameters(Config()) > 10**6; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
