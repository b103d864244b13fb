"""Whatever is in the files of a run, their readers give what was written, a typed result, or one line for the user."""

import dataclasses
import json
import math
import re
import shutil
import types

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import tiny_config
from refusals import mistake
from tiers import times
from unstir.errors import UserError
from unstir.generate.folder import SETTINGS, settings_in
from unstir.insight.doctor import diagnose
from unstir.insight.gather import gather, own_bound
from unstir.metrics import evaluation, likelihood
from unstir.runs import checkpoint, files, lines, recipes, sidecar, toml
from unstir.runs.files import MOST, encode
from unstir.runs.lines import Log
from unstir.runs.run import Run
from unstir.train.launch import open_data, open_run
from unstir.train.record import draw_charts
from unstir.train.trainer import Trainer

EXAMPLES = settings(max_examples=times(150, 1000), suppress_health_check=list(HealthCheck))
FEW = settings(EXAMPLES, max_examples=12)
PYTHONS = re.compile(r"Errno|\[type=|Input should|Traceback|object at 0x|Exceeds the limit|recursion")
"""Words of Python and of pydantic that no user should read."""

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**301), st.floats(), st.text(max_size=8),
    st.sampled_from(["\0", "\ud800", "\x1b[31m", "nan", "eps", "full"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
DEEP = ["[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 5000, "", "\0", "nul", '{"a": 1}x']


def damaged(values):
    """``values``, a JSON object, with a key dropped, or put to something random, also one of an object within."""

    def spoilt(of, draw):
        if isinstance(of, dict) and of:
            key = draw(st.sampled_from(sorted(of)))
            what = draw(st.sampled_from(["drop", "random", "inside"]))
            if what == "drop":
                return {name: value for name, value in of.items() if name != key}
            return {**of, key: draw(JSON) if what == "random" else spoilt(of[key], draw)}
        if isinstance(of, list) and of:
            at = draw(st.integers(0, len(of) - 1))
            return [*of[:at], spoilt(of[at], draw), *of[at + 1 :]]
        return draw(JSON)

    return st.composite(lambda draw: spoilt(values, draw))()


def sound(call):
    """What ``call`` returns, or None where it raised one line for the user."""
    try:
        return call()
    except UserError as error:
        said = str(error)
        assert "\n" not in said and not PYTHONS.search(said), said
        said.encode(errors="backslashreplace")
        return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny trained run with held-out looks, and its store."""
    folder = tmp_path_factory.mktemp("readers")
    config = tiny_config(folder / "digits", log__held_out_images=8, log__held_out_times=2)
    store = open_data(config, folder / "run")
    run = open_run(config, folder / "run", store)
    Trainer(run, store).run()
    return run, store


@pytest.fixture
def run(whole, tmp_path):
    """A copy of that run, to be spoiled."""
    shutil.copytree(whole[0].path, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize("text", DEEP)
def test_files_that_are_nested_too_deeply_or_cut_are_refused_in_a_line(run, text, tmp_path):
    for file in ("config.toml", "data.json"):
        before = (run.path / file).read_text()
        (run.path / file).write_text(f"a = {text}" if file == "config.toml" else text)
        assert sound(lambda: Run.open(run.path)) is None
        (run.path / file).write_text(before)
    for name in ("metrics", "held_out", "events"):
        file = run.path / f"{name}.jsonl"
        good = run.log(name).lines
        with file.open("a") as stream:
            stream.write(f"{text}\n")
        assert run.log(name).lines == good and len(run.log(name).damaged) == 1
    for folder in ("evaluation", "likelihood"):
        (run.path / folder).mkdir()
        (run.path / folder / "bound.json").write_text(text)
    assert evaluation.saved(run) == [] and likelihood.read(run.path / "likelihood/bound.json") is None
    (tmp_path / SETTINGS).write_text(text)
    (tmp_path / "a.json").write_text(text)
    assert sound(lambda: settings_in(tmp_path)) is None and sidecar.singles_of(tmp_path / "a.png") == []
    (tmp_path / "recipe.toml").write_text(text)
    sound(lambda: recipes.load_recipe(str(tmp_path / "recipe.toml")))
    Run.open(run.path)
    diagnose(run.path, samples=False)


@EXAMPLES
@given(data=st.data())
def test_any_config_is_read_or_refused(tmp_path_factory, data):
    base = toml.to_dict(recipes.load_recipe("digits"))
    values = data.draw(damaged(base))
    found = sound(lambda: toml.from_dict(values, "config"))
    assert found is None or toml.from_dict(toml.to_dict(found), "again") == found
    file = tmp_path_factory.mktemp("config") / "recipe.toml"
    text = data.draw(st.text(max_size=200) | st.just(None))
    if text is None:
        try:
            text = toml.to_toml(values)
        except (TypeError, ValueError):  # None, which TOML has no word for
            return
    file.write_bytes(text.encode(errors="surrogatepass"))
    sound(lambda: recipes.load_recipe(str(file)))


@EXAMPLES
@given(data=st.data())
def test_any_data_card_is_read_or_refused(whole, data):
    run, _ = whole
    values = json.loads((run.path / "data.json").read_text())
    before = (run.path / "data.json").read_text()
    del values[files.CHECKSUM]
    spoilt = data.draw(damaged(values))
    try:
        (run.path / "data.json").write_text(encode(spoilt) if isinstance(spoilt, dict) else json.dumps(spoilt))
        opened = sound(lambda: Run.open(run.path))
        if opened is not None and opened.data.run != run.data.run:
            assert sound(opened.load) is None
    finally:
        (run.path / "data.json").write_text(before)


@pytest.mark.parametrize("name", ["metrics", "held_out", "events"])
@EXAMPLES
@given(data=st.data())
def test_any_line_is_read_or_damaged(whole, name, data):
    run, _ = whole
    file, log = run.path / f"{name}.jsonl", run.log(name)
    before = file.read_bytes()
    spoilt = data.draw(damaged(log.lines[-1]))
    try:
        lines.write(file, [*log.lines[:-1], spoilt if isinstance(spoilt, dict) else {"junk": spoilt}])
        found = run.log(name)
        assert isinstance(found, Log) and len(found.lines) + len(found.damaged) == len(log.lines)
    finally:
        file.write_bytes(before)


@FEW
@given(data=st.data())
def test_whatever_lines_are_good_can_be_drawn_examined_and_gathered(run, whole, charts, data):
    store = whole[1]
    for name in ("metrics", "held_out"):
        spoilt = [data.draw(damaged(line)) for line in whole[0].log(name).lines]
        lines.write(run.path / f"{name}.jsonl", [line for line in spoilt if isinstance(line, dict)])
    for call in (
        lambda: draw_charts(run),
        lambda: diagnose(run.path, samples=False),
        lambda: gather(run.path, store=store.path, samples=False),
    ):
        sound(call)


def forged(path, meta, tensors):
    text = meta if isinstance(meta, str) else json.dumps(meta, sort_keys=True)
    text = text.encode(errors="replace").decode()
    save_file(tensors, path, {"unstir": text, "sha256": checkpoint.content_hash(tensors, text)})


def meta_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["unstir"])


@settings(EXAMPLES, max_examples=times(20, 400))
@given(data=st.data())
def test_any_metadata_with_the_right_hash_is_read_or_refused(whole, data):
    run, store = whole
    path = checkpoint.listed(run.checkpoints)[-1][1]
    before, found = path.read_bytes(), checkpoint.load(path)
    meta = data.draw(damaged(meta_of(path)))
    try:
        forged(path, meta, dict(found.tensors))
        sound(lambda: checkpoint.load(path))
        sound(lambda: run.load(12))
        sound(lambda: run.model().denoiser)
        sound(lambda: lines.cut({name: run.log(name) for name in lines.NAMES}, run.load()))
        sound(lambda: Trainer(run, store))
    finally:
        path.write_bytes(before)


SPOIL = {
    "without moments": lambda t: {k: v for k, v in t.items() if not k.startswith("optimizer.")},
    "without one moment": lambda t: {k: v for k, v in t.items() if k != max(t)},
    "without an average": lambda t: {k: v for k, v in t.items() if not k.startswith("ema.")},
    "without a weight": lambda t: {k: v for k, v in t.items() if k != max(n for n in t if n.startswith("model."))},
    "of another shape": lambda t: {k: v.reshape(-1) if k == max(t) else v[None].contiguous() for k, v in t.items()},
    "in half precision": lambda t: {k: v.half() for k, v in t.items()},
    "whole numbers": lambda t: {k: v.long() for k, v in t.items()},
    "truth values": lambda t: {k: v.bool() for k, v in t.items()},
    "complex": lambda t: {k: v.to(torch.complex64) for k, v in t.items()},
    "nothing": lambda t: {"model.x": torch.zeros(0)},
}


@pytest.mark.parametrize("how", SPOIL)
def test_tensors_that_training_cannot_go_on_from_are_damage(run, whole, logged, how):
    newest = checkpoint.listed(run.checkpoints)[-1]
    found = checkpoint.load(newest[1])
    meta = meta_of(newest[1])
    forged(newest[1], meta, SPOIL[how](dict(found.tensors)))
    trainer = Trainer(run, whole[1])
    trainer.start()
    assert trainer.state.step == 8 and newest[1].name in logged[0] and "set aside" in logged[0]
    assert (newest[1].parent / f"{newest[1].name}.damaged").exists()
    sound(lambda: run.model(step=8).denoiser)
    forged(run.weights / checkpoint.file_name(12), {**meta, "kind": "slim"}, SPOIL[how](dict(found.tensors)))
    sound(lambda: run.model(step=12).denoiser)


@pytest.mark.parametrize("value", [2**62, 2**33])
def test_a_header_that_claims_a_huge_size_is_damage(run, value):
    path = checkpoint.listed(run.checkpoints)[-1][1]
    header = json.dumps({"model.x": {"dtype": "F32", "shape": [value], "data_offsets": [0, 4 * value]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    with pytest.raises(checkpoint.DamagedError, match="is damaged"):
        checkpoint.load(path)
    path.write_bytes((1 << 62).to_bytes(8, "little") + header)
    with pytest.raises(checkpoint.DamagedError, match="is damaged"):
        checkpoint.load(path)


def _evaluation():
    figure = evaluation.Figure(name="FD", better="lower", by_seed=(1.0, 2.0), infinite=(0.5, 0.1))
    protocol = {
        "num": 8, "seeds": 2, "seed": 0, "split": "train", "num_reference": 9, "data": "d", "sampler": "ddim",
        "steps": 2, "calls": 2, "ema": True, "dtype": "float32", "networks": {"classifier": "c" * 64},
    }  # fmt: skip
    return evaluation.Evaluation(step=12, images=96, protocol=protocol, figures={"classifier/fd": figure})


@EXAMPLES
@given(data=st.data())
def test_any_figures_are_read_or_left_out(whole, data, tmp_path_factory):
    run, _ = whole
    made = _evaluation()
    path = evaluation.save(run, made)
    assert evaluation.saved(run) == [made]
    values = files.decode(path.read_bytes())
    spoilt = data.draw(damaged(values))
    path.write_text(encode(spoilt) if isinstance(spoilt, dict) else json.dumps(spoilt))
    for found in evaluation.saved(run):
        evaluation.describe(found)
        assert math.isfinite(found.main().value) or math.isinf(found.main().value) or math.isnan(found.main().value)
    path.unlink()
    protocol = {"step": 12, "calls": 2, "T": 20, "split": "held_out", "variance": "large", "clip": True, "ema": True}
    protocol |= {"weights": "w", "run": "r"}
    bound = likelihood.Likelihood(3.0, 0.1, 0.0, 1.0, (1, 2), (0.1, 0.2), (1.1, 1.3), 8, 8, protocol)
    kept = tmp_path_factory.mktemp("kept")
    file = kept / "likelihood" / "step12-held_out.json"
    file.parent.mkdir()
    file.write_text(encode(dataclasses.asdict(bound)))
    assert likelihood.read(file) == bound
    spoilt = data.draw(damaged(json.loads(json.dumps(dataclasses.asdict(bound)))))
    file.write_text(encode(spoilt) if isinstance(spoilt, dict) else json.dumps(spoilt))
    assert likelihood.read(file) is None or isinstance(likelihood.read(file), likelihood.Likelihood)
    file.with_name("another.json").write_text(encode(dataclasses.asdict(bound)))
    run_of = types.SimpleNamespace(name="run", path=kept, saved=[], data=types.SimpleNamespace(run="r"))
    assert own_bound(run_of, since=0)[0]


VALUES = {
    "zero": 0, "most": MOST - 1, "more": MOST, "negative": -1, "least": 1 - MOST, "less": -MOST, "true": True,
    "fraction": 0.5, "whole float": 2.0, "huge": 1e300, "nan": math.nan, "inf": math.inf, "none": None, "text": "1",
}  # fmt: skip
ARE = {
    "is_count": {"zero", "most"},
    "is_number": {"zero", "most", "negative", "least", "fraction", "whole float", "huge"},
    "is_figure": {"zero", "most", "negative", "least", "fraction", "whole float", "huge", "nan", "inf", "none"},
    "is_text": {"text"},
}


@pytest.mark.parametrize("kind", ARE)
def test_a_value_is_of_the_kinds_that_are_written_down(kind):
    assert MOST == 2**53
    assert {name for name, value in VALUES.items() if getattr(files, kind)(value)} == ARE[kind]


def test_figures_are_a_list_without_none_or_none():
    assert files.is_figures(None) and files.is_figures([]) and files.is_figures([1, math.nan, 0.5])
    assert not any(map(files.is_figures, ([None], [1, "2"], (1.0,), 1.0)))


def test_a_format_of_the_future_is_upgraded_to_and_any_other_is_trained_anew(tmp_path):
    files.check_format(tmp_path, 3, 3)
    for number, is_newer in ((4, True), (2, False), (-1, False), ("4", False)):
        refused = mistake(files.check_format, tmp_path, number, 3)
        assert refused.given == tmp_path and refused.remedy.startswith("upgrade") == is_newer


def test_what_may_be_missing_is_of_its_kind_where_it_is_there():
    needed, optional = {"a": files.is_count}, {"b": files.is_text}
    files.check({"a": 1}, needed, optional)
    files.check({"a": 1, "b": "x", "c": None}, needed, optional)
    for values, words in (({"b": "x"}, "it has no a"), ({"a": -1}, "its a is -1"), ({"a": 1, "b": 2}, "its b is 2")):
        with pytest.raises(ValueError, match=words):
            files.check(values, needed, optional)
    with pytest.raises(ValueError, match="no table"):
        files.check([1], {})
