"""A chain is said once: config, command line, help and refusals follow `unstir.chain`, for a new sampler too."""

import inspect
import json
import math
from typing import get_args

import pytest

import unstir
from refusals import mistake, refusing
from unstir.chain import DEFAULTS, OPTIONS, SAMPLERS, Chain, Cost, SpacingName, compared, title
from unstir.parts import find
from unstir.runs.config import MAY_CHANGE
from unstir.runs.sections import GridConfig
from unstir.theory.schedule import SPACINGS, linear, zero_terminal_snr


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_facts_are_those_of_the_function(name):
    options = {each.name: each.default for each in inspect.signature(find("sampler", name)).parameters.values()}
    known = {key: value for key, value in options.items() if key in OPTIONS}
    assert known == {key: DEFAULTS[key] for key in SAMPLERS[name].options}


def test_the_settings_of_a_chain_are_those_of_the_grids_and_may_change_but_for_the_seed():
    assert get_args(SpacingName) == tuple(SPACINGS) and set(OPTIONS) <= DEFAULTS.keys()
    assert Chain(**{name: getattr(GridConfig(), name) for name in DEFAULTS}) == Chain()
    assert {name for name in DEFAULTS if f"grids.{name}" in MAY_CHANGE} == DEFAULTS.keys() - {"seed"}
    assert "grids.num" in MAY_CHANGE and "grids.nrow" not in MAY_CHANGE


def test_a_changed_chain_keeps_nothing_that_has_no_effect_then():
    chain = Chain("ddim", steps=7, eta=0.5, guidance=2.0, guidance_low=3, guidance_high=9)
    assert chain.changed(sampler="heun") == Chain("heun", steps=7, guidance=2.0, guidance_low=3, guidance_high=9)
    assert chain.changed(guidance=1.0) == Chain("ddim", steps=7, eta=0.5)
    assert chain.changed(guidance=3.0).guidance_low == 3
    assert Chain(threshold=0.9).changed(clip=False) == Chain(clip=False)
    for key, given in (
        ("eta", {"sampler": "heun", "eta": 0.5}),
        ("eta", {"sampler": "heun", "eta": 0.0}),  # asked for, though it is the default
        ("guidance_low", {"guidance": 1.0, "guidance_low": 5}),
        ("sampler", {"sampler": "huen"}),
        ("threshold", {"clip": False, "threshold": 0.5}),
    ):
        with refusing(key, given[key]):
            chain.changed(**given)


def test_times_of_ones_own_take_the_place_of_steps_and_spacing():
    chain, schedule = Chain("ddim", times=(9, 5, 1, 0)), linear(10)
    assert chain.steps == 3 and chain.visited(schedule) == [9, 5, 1, 0] and "own times" in title(chain.in_effect())
    assert Chain(**json.loads(json.dumps(chain.in_effect()))) == chain and "times" not in Chain().in_effect()
    assert chain.in_effect()["times"] == [9, 5, 1, 0] and "spacing" not in chain.in_effect()
    assert Chain("ddim", steps=7, spacing="leading").changed(times=(9, 5, 1, 0)) == chain
    assert chain.changed(steps=7) == Chain("ddim", steps=7) and chain.changed(eta=0.5).times == chain.times
    for key, given in (
        ("times", {"times": [5, 9, 0]}),
        ("times", {"times": [9]}),
        ("steps", {"times": [9, 5, 0], "steps": 3}),
        ("spacing", {"times": [9, 5, 0], "spacing": "leading"}),
    ):
        with refusing(key, given[key]):
            Chain(**given)
    with refusing("times", [9, 5, 1, 0]):
        chain.visited(linear(8))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_takes_calls_by_its_sampler(name):
    calls = {"heun": [1, 3, 5, 19], "pndm": [1, 5, 9, 19]}.get(name, [1, 2, 3, 10])
    assert [SAMPLERS[name].calls_in(n) for n in (1, 2, 3, 10)] == calls


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"sampler": "plms"}, {"sampler": "ddim", "eta": 1.5}, {"guidance": math.inf}, {"eta": 0.5},
        {"sampler": "unipc", "variance": "large"}, {"guidance_low": 2}, {"guidance_high": 2},
        {"clip": False, "threshold": 0.5},
    ],
)  # fmt: skip
def test_a_wrong_chain_is_a_users_mistake_in_the_words_of_the_command_line(wrong, run, command):
    refused = mistake(unstir.Chain, **wrong)
    assert refused.key in wrong and refused.given == wrong[refused.key]
    options = [word for name, value in wrong.items() for word in (f"--{name.replace('_', '-')}", value)]
    options = ["--no-clip" if word == "--clip" else word for word in options if word is not False]
    status, out, err = command("sample", run.path, *options)
    option = f"--{refused.key.replace('_', '-')} {refused.given}"
    assert status == 2 and out == "" and err.startswith(f"unstir: {option} ")


def test_a_wrong_name_and_a_wrong_kind_name_the_argument():
    for make, key, given in ((lambda: Chain(stepz=3), "stepz", None), (lambda: Chain("ddim", "x"), "steps", "x")):
        with refusing(key, given):
            make()


def test_the_help_says_the_calls_of_the_samplers_that_take_more(command):
    said = " ".join(command("sample", "--help")[1].replace("│", " ").split())
    assert "heun 2N - 1, pndm N + 9 (N > 3)" in said
    more = {name: sampler.calls_in(20) for name, sampler in SAMPLERS.items() if sampler.calls_in(20) != 20}
    assert more == {"heun": 2 * 20 - 1, "pndm": 20 + 9}


def test_the_cost_counts_steps_that_fall_together_once(run, command, tmp_path):
    ask = ("sample", run.path, "--num", 1, "--steps", 20, "--sampler", "heun")
    for spacing in ("log_snr", "trailing"):
        out = command(*ask, "--spacing", spacing, "--out", tmp_path / spacing)[1]
        steps = json.loads((tmp_path / spacing / "settings.json").read_text())["calls"] // 2 + 1
        assert (steps < 20) == (spacing == "log_snr") and f"{steps} steps, {2 * steps - 1} calls each" in out
    assert str(Cost(1, 1)) == "1 step, 1 call" and str(Cost(1000, 2000)) == "1,000 steps, 2,000 calls"


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("steps", (1, 1_000_000), (0, 1_000_001)), ("guidance_low", (1, 1_000_000), (0, 1_000_001)),
        ("guidance_high", (1, 1_000_000), (-1, 1_000_001)), ("eta", (0.0, 1.0), (-0.01, 1.01)),
        ("threshold", (0.0, 0.999), (-0.01, 1.0)), ("guidance", (0.0, 1000.0), (-0.01, 1000.5)),
    ],
)  # fmt: skip
def test_each_setting_has_its_bounds(name, allowed, refused):
    others = {"sampler": "ddim", **({"guidance": 2.0} if name.startswith("guidance_") else {})}
    for value in allowed:
        assert getattr(Chain(**{**others, name: value}), name) == value
    for value in refused:
        assert name in str(mistake(Chain, **{**others, name: value}))


def test_steps_and_an_interval_are_within_the_times():
    at_the_end = {"guidance": 2, "steps": 1}
    for chain in (Chain(steps=9), Chain(**at_the_end, guidance_low=9), Chain(**at_the_end, guidance_high=9)):
        chain.check(9)
        for refused in (mistake(chain.check, 8), mistake(chain.visited, linear(8))):
            assert "1..8" in str(refused)
    assert mistake(Chain(steps=2).check, 1).remedy == {"steps": 1}
    Chain(steps=1, guidance=2, guidance_low=4, guidance_high=4).check(9)
    with refusing(remedy={"guidance_low": 4, "guidance_high": 5}):
        Chain(steps=1, guidance=2, guidance_low=5, guidance_high=4).check(9)
    for interval in ({"guidance_low": 2}, {"guidance_high": 1}):
        assert Chain(guidance=2, **interval).changed(guidance=1) == Chain()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_that_divides_by_alpha_does_not_begin_where_it_is_0(name):
    silent, chain = zero_terminal_snr(linear(20)), Chain(name, steps=5)
    if SAMPLERS[name].divides_by_alpha:
        assert name in str(mistake(chain.visited, silent))
        assert chain.changed(spacing="leading").visited(silent)[0] < 20
    else:
        assert chain.visited(silent)[0] == 20


def test_a_title_and_a_comparison_name_what_differs():
    chain = {**DEFAULTS, "sampler": "ddim", "eta": 1.0, "spacing": "log_snr"}
    assert title(chain).split(", ") == ["ddim", "eta 1", "log_snr"] and title(DEFAULTS) == "ancestral"
    assert title({**DEFAULTS, "variance": "large"}) == "ancestral, large"
    assert compared(chain, {**chain, "steps": 9}) == {"steps": (50, 9)} and compared(chain, chain) == {}
    others = {**chain, "sampler": "heun", "eta": 0.5}  # of another sampler, whose eta is of no effect
    assert compared(chain, others) == {"sampler": ("ddim", "heun")}
