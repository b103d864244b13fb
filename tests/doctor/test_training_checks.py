"""Faults planted in the log, the weights and the settings of a run that is well: each found by its own check alone."""

import dataclasses
import math
import shutil

import pytest
import torch

from unstir.doctor import CHECKS, admit, diagnose, examine
from unstir.doctor.average import initial_share
from unstir.doctor.measure import activations, learns_nothing, outputs_nothing
from unstir.errors import UserError
from unstir.runs import build, card, checkpoint, lines
from unstir.runs.run import Run

pytest_plugins = ["ward"]
QUICK = {"samples": False}


def test_of_a_run_that_is_well_nothing_is_said(well):
    heard = []
    report = diagnose(well, progress=lambda done, total, what: heard.append(what))
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
def test_a_fault_in_the_log_is_found_by_its_check(ward, name):
    change, expected = PLANTED[name]
    ward.metrics(change)
    assert ward.findings(**QUICK) == expected


def test_a_rising_loss_is_no_spike_and_small_batches_are_no_fault(ward):
    generator = torch.Generator().manual_seed(0)
    ward.metrics(lambda line, place: {**line, "loss": 0.1 * (0.4 * torch.randn((), generator=generator)).exp().item()})
    assert ward.findings(**QUICK) == {}
    ward.metrics(lambda line, place: {**line, "loss": 0.1 + 0.002 * math.sin(line["step"]) + 1e-4 * line["step"]})
    assert set(ward.findings(**QUICK)) == {"loss-rises"}


def test_losses_that_are_no_number_are_named(ward):
    ward.metrics(lambda line, place: {**line, "loss": None if place > 0.9 else line["loss"]})
    assert ward.findings(**QUICK)["not-finite"] == "problem"
    assert ward.found("not-finite", **QUICK).remedy.startswith("a new run with a lower rate (--train.lr 0.001)")


def test_leaping_gradients_need_clipping(ward):
    ward.metrics(lambda line, place: {**line, "grad_norm": 9.0 if line["step"] == 200 else 0.2, "clipped": 0.0})
    assert ward.findings(**QUICK) == {}
    ward.config(train__clip=0.0)
    assert ward.findings(**QUICK) == {"unclipped": "warning"}
    assert "--train.clip 0.4" in ward.found("unclipped", **QUICK).remedy


def test_clipping_of_a_scaled_loss_is_only_noted(ward):
    ward.metrics(put(clipped=1.0, grad_norm=50.0))
    ward.config(train__loss_scale=245.76)
    assert ward.findings(**QUICK) == {"clipping": "note"}


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
def test_a_wrong_setting_is_found_by_its_check(ward, changes, expected):
    ward.config(**changes)
    assert ward.findings(**QUICK) == expected


def test_the_share_of_initial_weights_is_the_product_of_the_decays(ward):
    ward.config(train__ema_decay=0.9, train__ema_warmup=False)
    assert initial_share(Run.open(ward.path), 20) == pytest.approx(0.9**20, rel=1e-12)
    ward.config(train__ema_decay=0.7, train__ema_warmup=True)
    product = math.prod(min(0.7, (1 + n) / (10 + n)) for n in range(40))
    assert initial_share(Run.open(ward.path), 40) == pytest.approx(product, rel=1e-12)
    ward.config(train__ema_decay=0.0)
    assert initial_share(Run.open(ward.path), 5) == 0 and ward.findings(**QUICK) == {}


def test_an_average_worse_than_its_weights_is_measured(ward):
    generator = torch.Generator().manual_seed(0)
    noisy = lambda name, t: t + 0.3 * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
    ward.weights(noisy, parts=("ema",))
    found = ward.findings()
    assert found["average-behind"] == "problem"
    assert set(found) <= {"average-behind", "noise", "collapse", "emptiness", "brightness", "tint", "saturation"}


def test_weights_that_are_no_numbers_are_named(ward):
    ward.weights(lambda name, t: t * math.nan if name == "output_conv.bias" else t)
    finding = ward.found("weights-finite", **QUICK)
    assert finding.severity == "problem" and "output_conv.bias" in finding.evidence and finding.figure == 2


def test_damaged_and_missing_checkpoints(ward):
    (_, older), (_, newest) = checkpoint.listed(ward.run.checkpoints)
    whole = older.read_bytes()
    older.write_bytes(whole[:5000])
    assert ward.findings(**QUICK) == {"checkpoints": "warning"}
    older.write_bytes(whole)
    content = bytearray(newest.read_bytes())
    content[-100] ^= 255
    newest.write_bytes(content)
    assert ward.findings(**QUICK) == {"checkpoints": "problem"}
    assert f"{newest} is damaged" in ward.found("checkpoints", **QUICK).evidence


def test_a_run_in_training_needs_what_it_can_go_on_from(ward):
    ward.config(train__length="600 steps", train__lr_period="570 steps")
    report = diagnose(ward.path, **QUICK)
    assert report.findings == () and report.forecast["steps_left"] == 300 and report.forecast["seconds_left"] > 0
    size = checkpoint.listed(ward.run.checkpoints)[-1][1].stat().st_size
    slim = checkpoint.listed(ward.run.weights)[-1][1].stat().st_size
    assert report.forecast["disk_bytes"] == pytest.approx(
        size + slim, rel=0.05
    )  # two are kept: one more, and a picture
    for _, path in checkpoint.listed(ward.run.checkpoints):
        path.unlink()
    assert ward.findings(**QUICK) == {"checkpoints": "problem"}
    assert "--train.init" in ward.found("checkpoints", **QUICK).remedy
    for _, path in checkpoint.listed(ward.run.weights):
        path.unlink()
    assert ward.findings(**QUICK) == {"checkpoints": "problem"}
    ward.run.metrics_file.write_text("".join(ward.run.metrics_file.read_text().splitlines(keepends=True)[:14]))
    assert ward.findings(**QUICK) == {}  # at step 140 none is due: the first is saved at 150


def test_a_finished_run_without_weights_has_a_problem(ward):
    for _, path in checkpoint.listed(ward.run.checkpoints):
        path.unlink()
    assert ward.findings(**QUICK) == {}  # the slim ones can be sampled from
    for _, path in checkpoint.listed(ward.run.weights):
        path.write_bytes(b"short")
    assert ward.findings(**QUICK) == {"checkpoints": "problem"}
    assert " is damaged" in ward.found("checkpoints", **QUICK).evidence
    for folder in (ward.run.checkpoints, ward.run.weights):
        shutil.rmtree(folder)
    finding = ward.found("checkpoints", **QUICK)
    assert finding.severity == "problem" and finding.says == "nothing can be sampled from the run"
    assert f"{ward.path} has no whole file of weights" in finding.evidence and str(ward.run.weights) in finding.remedy
    report = diagnose(ward.path)
    assert not report.healthy and report.skipped["noise"] == "no saved weights that are whole"


@pytest.mark.parametrize("moment", ["before it is read", "while it is read"])
def test_files_that_training_replaces_meanwhile_are_no_fault(ward, monkeypatch, moment):
    """keep=1, as it were: the full file that was listed is gone when its turn comes, and a newer one is there."""
    ward.config(train__length="600 steps", train__lr_period="570 steps")
    (_, older), (_, newest) = checkpoint.listed(ward.run.checkpoints)
    older.unlink()
    away = ward.path / "away"
    whole = newest.rename(away)
    newest.write_bytes(whole.read_bytes())
    changed = dataclasses.replace(checkpoint.load(newest), step=450)
    listed, load = checkpoint.listed, checkpoint.load

    def replace():
        if newest.exists():
            newest.unlink()
            checkpoint.save(ward.run.checkpoints, changed)

    def then_replaced(folder):
        found = listed(folder)
        if folder == ward.run.weights:
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
    patient = admit(ward.path, samples=False, progress=lambda *_: None)
    full = [file for file in patient.files if file.kind == "full"]
    assert (
        [file.step for file in full] == [450] and full[0].size > 10_000 and patient.loaded.step == patient.step == 450
    )
    assert all(file.problem == "" for file in patient.files) and examine(patient).findings == ()


def test_damaged_lines_are_a_problem_and_left_out(ward):
    sound = ward.run.metrics()
    for broken in (b"\xff\xfe\x80", b"[3, null]", b"3", b'"step"', b'{"step": null}', b'{"step": NaN}', b'{"loss": 1}'):
        lines.write(ward.run.metrics_file, sound[:2])
        with ward.run.metrics_file.open("ab") as file:
            file.write(broken + b"\n" + lines.encode(sound[-1]).encode())
        assert ward.run.metrics() == [*sound[:2], sound[-1]]
        found = ward.found("logs", **QUICK)
        assert found.severity == "problem" and "line 3 is damaged" in found.evidence and found.figure == 1


def test_other_settings_beside_the_weights_are_a_problem_and_the_weights_are_judged_with_their_own(ward):
    text = (ward.path / "config.toml").read_text()
    for was, now in (
        ("T = 1000", "T = 900"),
        ("mults = [", "mults = [1, 1, 1, 1, 1,"),
        ('predict = "eps"', 'predict = "v"'),
    ):
        assert was in text
        (ward.path / "config.toml").write_text(text.replace(was, now))
        assert ward.findings() == {"settings": "problem"}
    (ward.path / "config.toml").write_text(text[: text.index("[diffusion]")])
    assert ward.findings() == {"settings": "problem"}
    found = ward.found("settings", **QUICK)
    assert "train.batch_size is 128, not 32" in found.evidence and "batch_size = 32" in found.remedy
    (ward.path / "config.toml").write_text(text)
    card.save(ward.path, dataclasses.replace(ward.run.data, content_hash="0" * 64))
    assert "data.json is not of the data that" in ward.found("settings").evidence


def test_without_samples_no_network_is_asked_for_an_image_or_a_loss(well, monkeypatch):
    asked, denoiser = [], Run.denoiser
    monkeypatch.setattr(Run, "denoiser", lambda *args, **options: asked.append(1) or denoiser(*args, **options))
    report = diagnose(well, samples=False)
    assert asked == [] and {"noise", "average-behind"} <= set(report.skipped) and "checkpoints" in report.checked
    diagnose(well)
    assert len(asked) == 3  # to draw, and for the losses of the raw and of the averaged weights


def test_memory_and_disk_are_held_against_the_machine(ward):
    ward.config(train__length="600 steps", train__lr_period="570 steps")
    patient = admit(ward.path, samples=False, progress=lambda *_: None)

    def found(**changes):
        spoilt = dataclasses.replace(patient, needs=dataclasses.replace(patient.needs, **changes))
        return {each.check: each.severity for each in examine(spoilt).findings}

    need = patient.needs.weights + patient.needs.activations
    assert found(memory=int(need / 0.95)) == {"memory": "warning"}
    assert found(memory=need - 1) == {"memory": "problem"}
    assert found(memory=int(need / 0.85)) == {}
    assert found(disk=patient.needs.files) == {}
    assert found(disk=patient.needs.files - 1) == {"disk": "problem"}


def test_the_bytes_of_training_are_those_that_autograd_keeps(well):
    run = Run.open(well)
    net = build.network(run.config, torch.device("cpu")).train()
    num = sum(p.numel() for p in net.parameters())
    patient = admit(well, samples=False, progress=lambda *_: None)
    assert patient.needs.weights == 20 * num and patient.needs.activations == 32 * activations(run)
    kept = {}
    keep = lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        net(torch.zeros(16, 3, 8, 8), torch.zeros(16, dtype=torch.int64))
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    whole = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    assert 16 * activations(run) == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_knowing_nothing_is_what_a_measurement_says(ward, predict):
    ward.config(diffusion__predict=predict)
    run = Run.open(ward.path)
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


def test_a_folder_without_a_run_and_a_wrong_store_are_refused(ward, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        diagnose(tmp_path)
    with pytest.raises(UserError, match="no packed data here"):
        diagnose(ward.path, store=tmp_path, samples=False)
