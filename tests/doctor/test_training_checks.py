"""Faults planted in the log, the weights and the settings of a healthy run: each found by its own check alone."""

import dataclasses
import importlib
import math
import shutil

import pytest
import torch

from unstir.doctor import CHECKS, diagnose, examine, gather
from unstir.doctor.check import Errors
from unstir.doctor.gather import needs
from unstir.doctor.image_stats import learns_nothing, outputs_nothing
from unstir.doctor.samples import initial_share
from unstir.errors import UserError
from unstir.runs import build, card, checkpoint, lines, memory
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]
QUICK = {"samples": False}


def test_of_a_run_that_is_well_nothing_is_said(healthy):
    heard = []
    report = diagnose(healthy, progress=lambda done, total, what: heard.append(what))
    assert report.findings == () and report.healthy
    assert set(report.checked) == set(CHECKS) and report.skipped == {}
    assert {"files", "images", "steps of samples"} == set(heard)
    assert report.forecast["steps_left"] == report.forecast["seconds_left"] == report.forecast["disk_bytes"] == 0


def scaled(factor, since=0.0, until=1.0):
    """A change of the log that multiplies the loss in a part of it."""

    def change(line, place):
        line["loss"] *= factor if since <= place <= until else 1.0
        return line

    return change


def put(**values):
    return lambda line, place: {**line, **values}


PLANTED = {
    "loss-spikes": (scaled(4, 0.61, 0.63), {"loss-spikes": "warning"}),
    "loss-rises": (lambda line, place: scaled(1 + 1.5 * max(place - 0.5, 0))(line, place), {"loss-rises": "problem"}),
    "still-falling": (
        lambda line, place: {**line, "loss": 0.2 * math.exp(-1.5 * place) * (1 + 0.01 * math.sin(line["step"]))},
        {"still-falling": "warning"},
    ),
    "not-finite, once": (put(skipped=1), {"not-finite": "warning"}),
    "not-finite, often": (put(skipped=30), {"not-finite": "problem"}),
    "clipping": (put(clipped=0.97, grad_norm=6.0), {"clipping": "warning"}),
    "first-loss": (scaled(4, 0, 0.01), {"first-loss": "problem"}),
    "not-learned": (put(loss=0.27), {"not-learned": "problem"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_in_the_log_is_found_by_its_check(spoiled, name):
    change, expected = PLANTED[name]
    spoiled.metrics(change)
    assert spoiled.findings(**QUICK) == expected


def test_a_rising_loss_is_no_spike_and_small_batches_are_no_fault(spoiled):
    generator = torch.Generator().manual_seed(0)
    noise = lambda: (0.4 * torch.randn((), generator=generator)).exp().item()
    spoiled.metrics(lambda line, place: {**line, "loss": 0.1 * noise()})
    assert spoiled.findings(**QUICK) == {}
    spoiled.metrics(lambda line, place: {**line, "loss": 0.1 + 0.002 * math.sin(line["step"]) + 1e-4 * line["step"]})
    assert set(spoiled.findings(**QUICK)) == {"loss-rises"}


def test_losses_that_are_no_number_are_named(spoiled):
    spoiled.metrics(lambda line, place: {**line, "loss": None if place > 0.9 else line["loss"]})
    assert spoiled.findings(**QUICK)["not-finite"] == "problem"
    assert spoiled.found("not-finite", **QUICK).remedy.startswith("a new run with a lower rate (--train.lr 0.001)")


def test_leaping_gradients_need_clipping(spoiled):
    spoiled.metrics(lambda line, place: {**line, "grad_norm": 9.0 if line["step"] == 200 else 0.2, "clipped": 0.0})
    assert spoiled.findings(**QUICK) == {}
    spoiled.config(train__clip=0.0)
    assert spoiled.findings(**QUICK) == {"unclipped": "warning"}
    assert "--train.clip 0.4" in spoiled.found("unclipped", **QUICK).remedy


def test_clipping_of_a_scaled_loss_is_only_noted(spoiled):
    spoiled.metrics(put(clipped=1.0, grad_norm=50.0))
    spoiled.config(train__loss_scale=245.76)
    assert spoiled.findings(**QUICK) == {"clipping": "note"}


SETTINGS = [
    ({"train__warmup": "300 steps"}, {"rate-plan": "problem"}),
    ({"train__warmup": "200 steps"}, {"rate-plan": "warning"}),
    ({"train__lr_period": "2000 steps"}, {"rate-plan": "warning"}),
    ({"train__ema_decay": 0.9999, "train__ema_warmup": False}, {"slow-average": "problem"}),
    ({"train__ema_decay": 0.99, "train__ema_warmup": False}, {"slow-average": "warning"}),
    ({"train__ema_decay": 0.98, "train__ema_warmup": False}, {}),
    ({"train__ema_decay": 0.9999}, {}),
    ({"diffusion__T": 100}, {"signal-left": "problem"}),
    ({"diffusion__beta_T": 0.01}, {}),
    ({"diffusion__beta_T": 0.005}, {"signal-left": "warning"}),
    ({"diffusion__schedule": "cosine", "diffusion__T": 100}, {}),
    ({"grids__sampler": "ancestral"}, {"grid-sampler": "warning"}),
    ({"grids__sampler": "ancestral", "grids__steps": 50}, {}),
    ({"grids__sampler": "ancestral", "grids__steps": 250, "grids__variance": "large"}, {"grid-sampler": "warning"}),
    ({"grids__sampler": "ancestral", "grids__steps": 1000, "grids__variance": "large"}, {}),
    ({"grids__clip": False}, {}),
    ({"grids__clip": False, "diffusion__schedule": "cosine"}, {"unclamped": "warning"}),
]


@pytest.mark.parametrize(("changes", "expected"), SETTINGS, ids=lambda case: ",".join(map(str, case.values())))
def test_a_wrong_setting_is_found_by_its_check(spoiled, changes, expected):
    spoiled.config(**changes)
    assert spoiled.findings(**QUICK) == expected


def test_the_share_of_initial_weights_is_the_product_of_the_decays(spoiled):
    spoiled.config(train__ema_decay=0.9, train__ema_warmup=False)
    assert initial_share(Run.open(spoiled.path), 20) == pytest.approx(0.9**20, rel=1e-12)
    spoiled.config(train__ema_decay=0.7, train__ema_warmup=True)
    product = math.prod(min(0.7, (1 + n) / (10 + n)) for n in range(40))
    assert initial_share(Run.open(spoiled.path), 40) == pytest.approx(product, rel=1e-12)
    spoiled.config(train__ema_decay=0.0)
    assert initial_share(Run.open(spoiled.path), 5) == 0 and spoiled.findings(**QUICK) == {}


def test_an_average_worse_than_its_weights_is_measured(spoiled):
    generator = torch.Generator().manual_seed(0)
    noisy = lambda name, t: t + 0.3 * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
    spoiled.weights(noisy, parts=("ema",))
    found = spoiled.findings()
    assert found["average-behind"] == "problem"
    assert set(found) <= {"average-behind", "noise", "collapse", "emptiness", "brightness", "tint", "saturation"}


def test_an_average_whose_error_is_not_finite_has_no_number_of_standard_errors(healthy):
    facts = gather(healthy, samples=False, progress=lambda *_: None)
    raw = torch.linspace(0.1, 0.2, 8, dtype=torch.float64)

    def evidence(average):
        errors = Errors(raw, torch.tensor(average, dtype=torch.float64))
        (finding,) = examine(dataclasses.replace(facts, errors=errors)).findings
        assert finding.check == "average-behind" and finding.severity == "problem"
        return finding.evidence

    assert "more than 1,000 times (not finite for 3 of 8 training images)" in evidence([math.inf] * 3 + [0.2] * 5)
    assert "3.00 times (7 standard errors, 8 training images)" in evidence((3 * raw).tolist())


def test_weights_that_are_no_numbers_are_named(spoiled):
    spoiled.weights(lambda name, t: t * math.nan if name == "output_conv.bias" else t)
    finding = spoiled.found("weights-finite", **QUICK)
    assert finding.severity == "problem" and "output_conv.bias" in finding.evidence and finding.figure == 2


def test_damaged_and_missing_checkpoints(spoiled):
    (_, older), (_, newest) = checkpoint.listed(spoiled.run.checkpoints)
    whole = older.read_bytes()
    older.write_bytes(whole[:5000])
    assert spoiled.findings(**QUICK) == {"checkpoints": "warning"}
    older.write_bytes(whole)
    content = bytearray(newest.read_bytes())
    content[-100] ^= 255
    newest.write_bytes(content)
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert f"{newest} is damaged" in spoiled.found("checkpoints", **QUICK).evidence


def test_a_run_in_training_needs_what_it_can_go_on_from(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    report = diagnose(spoiled.path, **QUICK)
    assert report.findings == () and report.forecast["steps_left"] == 300 and report.forecast["seconds_left"] > 0
    size = checkpoint.listed(spoiled.run.checkpoints)[-1][1].stat().st_size
    slim = checkpoint.listed(spoiled.run.weights)[-1][1].stat().st_size
    assert report.forecast["disk_bytes"] == pytest.approx(
        size + slim, rel=0.05
    )  # two are kept: one more, and a picture
    for _, path in checkpoint.listed(spoiled.run.checkpoints):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert "--train.init" in spoiled.found("checkpoints", **QUICK).remedy
    for _, path in checkpoint.listed(spoiled.run.weights):
        path.unlink()
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    spoiled.run.metrics_file.write_text("".join(spoiled.run.metrics_file.read_text().splitlines(keepends=True)[:14]))
    assert spoiled.findings(**QUICK) == {}  # at step 140 none is due: the first is saved at 150


@pytest.mark.parametrize(
    ("changes", "step", "full", "slim"),
    [
        # two full files are there: with keep = 5 three more are kept, and one is whole before the oldest goes
        ({"checkpoint__keep": 5}, 300, 4, 1),
        ({"checkpoint__keep": 2}, 300, 1, 1),
        ({"checkpoint__keep": 1}, 300, 1, 1),
        # snapshots are at steps 0, 6, 60 and 600; that of the step at which the run stands is drawn
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 0, 4, 3),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 5, 4, 3),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 6, 4, 2),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 599, 4, 1),
        ({"checkpoint__keep": 5, "grids__log_spaced": 3}, 600, 0, 0),
        ({"checkpoint__keep": 5, "train__ema_decay": 0.0}, 300, 4, 1),
        ({"checkpoint__keep": 5, "train__power_ema": True}, 300, 4, 3),  # a slim file has two averages besides
    ],
)
def test_the_disk_that_the_rest_of_a_run_needs_is_known_to_the_byte(spoiled, changes, step, full, slim):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps", **changes)
    run = Run.open(spoiled.path)
    assert len(checkpoint.listed(run.checkpoints)) == 2
    kept = gather(run.path, samples=False, progress=lambda *_: None).files
    num = sum(p.numel() for p in build.network(run.config, torch.device("cpu")).parameters())
    tensors = 4 if run.config.train.ema_decay else 3  # weights, two moments of Adam, and their average if there is one
    tensors += 2 * run.config.train.power_ema
    assert needs(run, kept, step).files == 4 * num * (tensors * full + slim)


def test_the_disk_of_a_run_without_files_is_that_of_all_it_keeps(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps", checkpoint__keep=3)
    slim = [file for file in gather(spoiled.path, samples=False, progress=lambda *_: None).files if file.kind == "slim"]
    run, num = Run.open(spoiled.path), build.num_parameters(spoiled.run.config)
    assert needs(run, (), 0).files == needs(run, tuple(slim), 0).files == 4 * num * (4 * (3 + 1) + 1)


def test_a_finished_run_without_weights_has_a_problem(spoiled):
    for _, path in checkpoint.listed(spoiled.run.checkpoints):
        path.unlink()
    assert spoiled.findings(**QUICK) == {}  # the slim ones can be sampled from
    for _, path in checkpoint.listed(spoiled.run.weights):
        path.write_bytes(b"short")
    assert spoiled.findings(**QUICK) == {"checkpoints": "problem"}
    assert " is damaged" in spoiled.found("checkpoints", **QUICK).evidence
    for folder in (spoiled.run.checkpoints, spoiled.run.weights):
        shutil.rmtree(folder)
    finding = spoiled.found("checkpoints", **QUICK)
    assert finding.severity == "problem" and finding.says == "nothing can be sampled from the run"
    assert f"{spoiled.path} has no whole file of weights" in finding.evidence
    assert str(spoiled.run.weights) in finding.remedy
    report = diagnose(spoiled.path)
    assert not report.healthy and report.skipped["noise"] == "no saved weights that are whole"


@pytest.mark.parametrize("moment", ["before it is read", "while it is read"])
def test_files_that_training_replaces_meanwhile_are_no_fault(spoiled, monkeypatch, moment):
    """keep=1, as it were: the full file that was listed is gone when its turn comes, and a newer one is there."""
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    (_, older), (_, newest) = checkpoint.listed(spoiled.run.checkpoints)
    older.unlink()
    away = spoiled.path / "away"
    whole = newest.rename(away)
    newest.write_bytes(whole.read_bytes())
    changed = dataclasses.replace(checkpoint.load(newest), step=450)
    listed, load = checkpoint.listed, checkpoint.load

    def replace():
        if newest.exists():
            newest.unlink()
            checkpoint.save(spoiled.run.checkpoints, changed)

    def then_replaced(folder):
        found = listed(folder)
        if folder == spoiled.run.weights:
            replace()
        return found

    def replaced_then(path):
        if path == newest:
            replace()
        return load(path)

    if moment == "before it is read":
        monkeypatch.setattr(checkpoint, "listed", then_replaced)
    else:
        monkeypatch.setattr(checkpoint, "load", replaced_then)
    facts = gather(spoiled.path, samples=False, progress=lambda *_: None)
    full = [file for file in facts.files if file.kind == "full"]
    assert [file.step for file in full] == [450] and full[0].size > 10_000 and facts.loaded.step == facts.step == 450
    assert all(file.problem == "" for file in facts.files) and examine(facts).findings == ()


def test_damaged_lines_are_a_problem_and_left_out(spoiled):
    sound = spoiled.run.metrics()
    for broken in (b"\xff\xfe\x80", b"[3, null]", b"3", b'"step"', b'{"step": null}', b'{"step": NaN}', b'{"loss": 1}'):
        lines.write(spoiled.run.metrics_file, sound[:2])
        with spoiled.run.metrics_file.open("ab") as file:
            file.write(broken + b"\n" + lines.encode(sound[-1]).encode())
        assert spoiled.run.metrics() == [*sound[:2], sound[-1]]
        found = spoiled.found("logs", **QUICK)
        assert found.severity == "problem" and "line 3 is damaged" in found.evidence and found.figure == 1


def test_other_settings_beside_the_weights_are_a_problem_and_the_weights_are_judged_with_their_own(spoiled):
    text = (spoiled.path / "config.toml").read_text()
    for was, now in (
        ("T = 1000", "T = 900"),
        ("mults = [", "mults = [1, 1, 1, 1, 1,"),
        ('predict = "eps"', 'predict = "v"'),
    ):
        assert was in text
        (spoiled.path / "config.toml").write_text(text.replace(was, now))
        assert spoiled.findings() == {"settings": "problem"}
    (spoiled.path / "config.toml").write_text(text[: text.index("[diffusion]")])
    assert spoiled.findings() == {"settings": "problem"}
    found = spoiled.found("settings", **QUICK)
    assert "train.batch_size is 128, not 32" in found.evidence and "batch_size = 32" in found.remedy
    (spoiled.path / "config.toml").write_text(text)
    card.save(spoiled.path, dataclasses.replace(spoiled.run.data, content_hash="0" * 64))
    assert "data.json is not of the data that" in spoiled.found("settings").evidence


def test_without_samples_no_network_is_asked_for_an_image_or_a_loss(healthy, monkeypatch):
    module = importlib.import_module("unstir.doctor.gather")  # the package has the function of this name
    asked, model_of = [], module.model_of
    monkeypatch.setattr(module, "model_of", lambda *args, **options: asked.append(1) or model_of(*args, **options))
    report = diagnose(healthy, samples=False)
    assert asked == [] and {"noise", "average-behind"} <= set(report.skipped) and "checkpoints" in report.checked
    diagnose(healthy)
    assert len(asked) == 3  # to draw, and for the losses of the raw and of the averaged weights


def test_memory_and_disk_are_held_against_the_machine(spoiled):
    spoiled.config(train__length="600 steps", train__lr_period="570 steps")
    facts = gather(spoiled.path, samples=False, progress=lambda *_: None)

    def found(**changes):
        spoilt = dataclasses.replace(facts, needs=dataclasses.replace(facts.needs, **changes))
        return {each.check: each.severity for each in examine(spoilt).findings}

    need = facts.needs.weights + facts.needs.activations
    assert found(memory=int(need / 0.95)) == {"memory": "warning"}
    assert found(memory=need - 1) == {"memory": "problem"}
    assert found(memory=int(need / 0.85)) == {}
    assert found(disk=facts.needs.files) == {}
    assert found(disk=facts.needs.files - 1) == {"disk": "problem"}


def test_the_bytes_of_training_are_those_that_are_forecast(healthy):
    run, facts = Run.open(healthy), gather(healthy, samples=False, progress=lambda *_: None)
    num, on_cpu = build.num_parameters(run.config), torch.device("cpu")
    low = run.config.train.dtype == "bfloat16"
    assert facts.needs.weights == (5 + 4 - 1) * 4 * num + low * 2 * num  # with the copy that is saved, no gradients yet
    assert facts.needs.activations == 32 * memory.activations(run.config, (3, 8, 8), on_cpu)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_knowing_nothing_is_what_a_measurement_says(spoiled, predict):
    spoiled.config(diffusion__predict=predict)
    run = Run.open(spoiled.path)
    denoiser = build.denoiser(run.config, torch.nn.Identity(), torch.float32)
    process, mean, std = denoiser.process, -0.4, 0.6
    generator = torch.Generator().manual_seed(1)
    x_0 = mean + std * torch.randn(1000, 400, generator=generator, dtype=torch.float64)
    eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    t = torch.arange(1, 1001)
    target = denoiser.parameterization.target(process.schedule, x_0, t, eps)
    x_t = process.diffuse(x_0, t, eps)
    residual = 0.0
    for row, y in zip(x_t, target, strict=True):  # the best line through the points of each time
        row, y = row - row.mean(), y - y.mean()
        residual += float((y - row * (row @ y) / (row @ row)).square().mean()) / 1000
    assert learns_nothing(run, mean, std) == pytest.approx(residual, rel=0.02)
    assert outputs_nothing(run, mean, std) == pytest.approx(target.square().mean().item(), rel=0.01)


def test_a_folder_without_a_run_and_a_wrong_store_are_refused(spoiled, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        diagnose(tmp_path)
    with pytest.raises(UserError, match="no packed data here"):
        diagnose(spoiled.path, store=tmp_path, samples=False)
