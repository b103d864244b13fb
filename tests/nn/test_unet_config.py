"""A configuration that cannot be built is refused where it is written, with the remedy."""

import dataclasses
import subprocess
import sys

import pytest

from unstir.errors import UserError
from unstir.nn.config import UNetConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": "many"}, "a whole number"),
        ({"channels": 64.5}, "a whole number"),
        ({"channels": 0}, "at least 1"),
        ({"channels": 33, "groups": 11}, "channels=33 is odd.*; use channels=44$"),
        ({"channels": 48}, r"groups=32 does not divide the 48 channels .*; use groups=16, or use channels=64$"),
        ({"mults": ()}, "a list of one value at least"),
        ({"mults": (1, 0)}, "at least 1"),
        ({"mults": (1, 1.5)}, "a whole number"),
        ({"attention": (4,)}, r"names level 4, but mults=\[1, 2, 2, 2\] makes levels 0 to 3; use attention=\[3\]"),
        ({"attention": (-1,)}, "at least 0"),
        ({"attention": (1, 1)}, r"names a level twice; use attention=\[1\]"),
        ({"heads": 3}, "heads=3 does not divide the 256 channels of level 1"),
        ({"mults": (1, 3), "attention": (), "heads": 5}, "heads=5 does not divide the 384 channels of level 1"),
        ({"head_channels": 24}, "head_channels=24 does not divide the 256 channels of level 1.*use head_channels"),
        (
            {"head_channels": 64, "heads": 2},
            "heads=2 and head_channels=64 were given, .*; use heads=1, or use head_channels=0",
        ),
        ({"layout": "report_guided"}, "layout='report_guided' is by class and pads all round; use num_classes=10"),
        ({"layout": "report_guided", "num_classes": 2}, "use num_classes=2 with downsample_padding=1"),
        ({"layout": "guided"}, "one of 'ho', 'report_guided'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"dropout": -0.1}, "at least 0"),
        ({"dropout": float("nan")}, "less than 1"),
        ({"norm_eps": 0.0}, "more than 0"),
        ({"norm_eps": float("inf")}, "at most 1"),
        ({"channels": 2, "groups": 1}, r"freq_shift=1.0 must be less than channels/2 = 1; use freq_shift=0.0"),
        ({"downsample_padding": 2}, "at most 1"),
        ({"flip_sin_to_cos": 2}, "true or false"),
        ({"num_classes": -1}, "at least 0"),
        ({"colour": 3}, "colour"),
    ],
)
def test_a_wrong_value_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        UNetConfig(**wrong)


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


def test_a_config_is_a_frozen_value():
    assert UNetConfig() == UNetConfig(**dataclasses.asdict(UNetConfig()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        UNetConfig().channels = 64


def test_a_config_is_read_without_torch():
    code = "import sys; from unstir.nn.config import UNetConfig; UNetConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_are_counted_without_symbolic_shapes():
    """torch imports them, in two seconds, for as little as an empty range on its meta device."""
    code = "import sys; from unstir.runs.build import num_parameters; from unstir.runs.config import Config; "
    code += "assert num_parameters(Config()) > 10**6; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
