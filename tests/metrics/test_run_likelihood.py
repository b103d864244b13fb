"""The likelihood of a run and of single images: which terms, the error of an estimate, what is written or refused."""

import csv
import itertools
import json
import math
import re
import statistics
from dataclasses import replace

import pytest
import torch
from PIL import Image

import unstir
from refusals import mistake, refused, refusing
from unstir.diffusion.denoiser import Conditioned, Prediction, at_each_time, clipped
from unstir.diffusion.likelihood import variational_bound
from unstir.metrics import likelihood as module
from unstir.metrics.likelihood import SAMPLES, Protocol, describe, split_likelihood
from unstir.randomness import Key, normal
from unstir.runs.card import Labels
from unstir.runs.files import decode
from unstir.theory.oracle import FiniteData
from unstir.theory.process import Process
from unstir.theory.schedule import cosine
from unstir.train.held_out import with_errors

LEARNED = {"diffusion__learned_variance": True, "loss__objective": "hybrid"}


def test_the_whole_sum_is_the_bound_of_the_held_out_images(run, store, counts):
    found = split_likelihood(run.model(), store)
    count = store.count("held_out")
    assert found.num == count and found.times == tuple(range(2, 21))
    assert counts[-1][1:] == (len(counts), len(counts)) and len(counts) == 20 * -(-count // 64)
    x_0 = store.images("held_out").float() / 127.5 - 1
    noise = lambda t: normal(Key(0, "likelihood", t, torch.arange(count)), (1, 8, 8))
    with torch.no_grad():
        denoiser = run.model().denoiser
        bound = variational_bound(clipped(Conditioned(denoiser, None)), denoiser.process, x_0, noise)
    assert found.bits_per_dim == pytest.approx(bound.bits_per_dim.mean().item(), rel=1e-5)
    assert found.standard_error == pytest.approx((bound.bits_per_dim.std() / math.sqrt(count)).item(), rel=1e-4)
    assert found.num_samples == count
    assert found.bits_per_dim == pytest.approx(found.prior + found.decoder + sum(found.curve), rel=1e-9)
    assert f"{found.bits_per_dim:.4f} ±" in describe(found) and "all 20 terms" in describe(found)


def test_an_image_has_the_same_noise_in_any_batch_and_choice(run, store):
    some = split_likelihood(run.model(), store, Protocol(num=40, batch_size=7))
    assert some.bits_per_dim == pytest.approx(
        split_likelihood(run.model(), store, Protocol(num=40)).bits_per_dim, rel=1e-4
    )
    assert some.num == 40
    assert split_likelihood(run.model(), store, Protocol(num=40, seed=1)).bits_per_dim != some.bits_per_dim
    assert split_likelihood(run.model(), store, Protocol(num=40, split="train")).bits_per_dim != some.bits_per_dim


def test_an_estimate_is_near_the_sum_and_says_what_it_is(run, store):
    whole = split_likelihood(run.model(), store, Protocol(num=64))
    estimate = split_likelihood(run.model(), store, Protocol(calls=8, num=64, batch_size=16))
    assert estimate.standard_error > 0
    assert abs(estimate.bits_per_dim - whole.bits_per_dim) < 5 * estimate.standard_error
    assert "8 of 20 terms" in describe(estimate)
    all_terms = split_likelihood(run.model(), store, Protocol(calls=20, num=64))
    assert all_terms.bits_per_dim == pytest.approx(whole.bits_per_dim, rel=1e-6)
    assert split_likelihood(run.model(), store, Protocol(calls=8, num=16)).standard_error > 0  # in eight batches of two
    alone = split_likelihood(run.model(), store, Protocol(calls=8, num=1))
    assert alone.standard_error is None and "± unknown" in describe(alone)


def test_variances_classes_and_averages_are_honoured(trained):
    run, store = trained(model__num_classes=10, **LEARNED)
    protocol = Protocol(num=16)
    learned = split_likelihood(run.model(), store, protocol)
    assert learned.protocol["variance"] == "learned"
    others = [replace(protocol, variance="small"), replace(protocol, variance="large"), protocol]
    models = run.model(), run.model(), run.model(ema=False)
    figures = [split_likelihood(*asked).bits_per_dim for asked in zip(models, [store] * 3, others, strict=True)]
    assert len({*figures, learned.bits_per_dim}) == 4 and all(map(math.isfinite, figures))


def test_the_optimal_variance_lowers_the_bound(run, store):
    model = with_errors(run.model(), store)
    protocols = (Protocol(num=32, variance=variance) for variance in ("large", "small", "optimal"))
    large, small, optimal = (split_likelihood(model, store, protocol) for protocol in protocols)
    assert optimal.bits_per_dim < min(large.bits_per_dim, small.bits_per_dim)
    assert optimal.decoder == large.decoder


def test_what_does_not_fit_is_refused(run, store, tmp_path):
    for asked in (
        {"split": "test"}, {"num": 10**6}, {"num": -1}, {"calls": 1}, {"calls": 21}, {"batch_size": 0},
        {"variance": "huge"}, {"variance": "learned"}, {"variance": "optimal"},
    ):  # fmt: skip
        refused = mistake(split_likelihood, run.model(), store, Protocol(**asked))
        assert {refused.key: refused.given} == asked
    foreign = replace(run.model(), data=replace(run.data, content_hash="0" * 64))
    assert "data of" in str(mistake(split_likelihood, foreign, store))


def test_the_command_writes_figures_and_a_curve(run, command, refused):
    status, out, _ = command("likelihood", run.path, "--num", 32, "--split", "both")
    assert status == 0 and out.count("bits/dim") == 2 and "train " in out and "held_out " in out
    folder = run.path / "likelihood"
    written = sorted(path.name for path in folder.iterdir())
    of = [re.fullmatch(r"step12-([a-z_-]+)-32-images-[0-9a-f]{8}\.(json|png)", name) for name in written]
    expected = [("curve-train-held_out", "png"), ("held_out", "json"), ("train", "json")]
    assert [each and each.groups() for each in of] == expected
    with Image.open(folder / written[0]) as picture:
        assert picture.size[0] > 500
    saved = decode((folder / written[1]).read_bytes())
    assert saved["num"] == 32 and len(saved["curve"]) == 19 and saved["protocol"]["seed"] == 0
    made_of = {"weights": run.model().weights_sha256, "run": run.data.run}
    assert made_of.items() <= saved["protocol"].items() and all(map(len, made_of.values()))
    assert json.loads(command.done("likelihood", run.path, "--num", 32, "--json"))["held_out"] == saved
    written = sorted([*written, written[0].replace("curve-train-held_out", "curve-held_out")])
    refused(command("likelihood", run.path, "--calls", 1), "--calls 1 ")
    assert sorted(path.name for path in folder.iterdir()) == written  # of the same once, and nothing of what failed
    status, out, _ = command("likelihood", run.path, "--num", 32, "--calls", 5)
    assert status == 0 and "step12-curve-held_out-5-calls-32-images-" in out and "±" in out
    status, _, err = command("likelihood", run.path, "--store", run.path)
    assert status == 2 and "Traceback" not in err


def test_a_bound_computed_otherwise_replaces_none(run, command):
    variances = ["--variance", "small"], ["--variance", "optimal"]
    ways = [], *variances, ["--no-clip"], ["--seed", 1], ["--no-ema"], ["--checkpoint", 8], ["--num", 5]
    for number, way in enumerate(ways):
        asked = way if "--num" in way else ["--num", 4, *way]
        assert command("likelihood", run.path, "--calls", 2, *asked)[0] == 0
        for kind in ("json", "png"):
            assert len([*(run.path / "likelihood").glob(f"*.{kind}")]) == number + 1


def test_a_store_that_has_gone_is_asked_for(run, store, command, tmp_path, refused):
    text = (run.path / "config.toml").read_text()
    (run.path / "config.toml").write_text(text.replace(str(store.path), str(tmp_path / "gone")))
    refused(command("likelihood", run.path, "--num", 8, "--calls", 4), "--store")
    assert command("likelihood", run.path, "--num", 8, "--calls", 4, "--store", store.path)[0] == 0


@pytest.fixture
def bounds(monkeypatch):
    """The bounds of each batch, as they are computed."""
    heard, compute = [], module.variational_bound

    def listening(*given, **options):
        heard.append(compute(*given, **options))
        return heard[-1]

    monkeypatch.setattr(module, "variational_bound", listening)
    return heard


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"), [(64, 64, [8] * 8), (20, 64, [3] * 6 + [2]), (5, 64, [1] * 5), (36, 4, [4] * 9)]
)
def test_an_estimate_is_made_in_eight_samples_or_more(run, store, bounds, counts, num, batch_size, sizes):
    split_likelihood(run.model(), store, Protocol(calls=4, num=num, batch_size=batch_size))
    assert SAMPLES == 8 and [len(bound.bits_per_dim) for bound in bounds] == sizes
    assert counts[-1][1:] == (4 * len(sizes), 4 * len(sizes))
    assert len({tuple(bound.times) for bound in bounds}) > 1  # each has its own times
    bounds.clear()
    split_likelihood(run.model(), store, Protocol(num=num, batch_size=batch_size))  # the whole sum needs none of that
    assert len(bounds[0].bits_per_dim) == min(num, batch_size)


def test_its_error_is_that_of_the_samples_and_not_of_their_images(run, store, bounds):
    found = split_likelihood(run.model(), store, Protocol(calls=3, num=256))
    means = [bound.bits_per_dim.mean().item() for bound in bounds]
    of_images = torch.cat([bound.bits_per_dim for bound in bounds]).tolist()
    assert found.standard_error == pytest.approx(statistics.stdev(means) / math.sqrt(8), rel=1e-6)
    assert found.num_samples == 8
    assert found.standard_error > 1.5 * statistics.stdev(of_images) / math.sqrt(256)  # images of a batch share times
    assert found.bits_per_dim == pytest.approx(statistics.fmean(of_images), rel=1e-6)


def test_the_sum_up_to_a_time_ends_at_the_bound(run, store):
    for protocol in (Protocol(num=40), Protocol(num=40, calls=5), Protocol(num=41, calls=3, batch_size=4)):
        found = split_likelihood(run.model(), store, protocol)
        assert len(found.total) == len(found.times)
        assert found.prior + found.total[-1] == pytest.approx(found.bits_per_dim, rel=1e-6)
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found.total)) and found.total[0] >= found.decoder - 1e-9
    whole = split_likelihood(run.model(), store, Protocol(num=40))
    added = list(itertools.accumulate(whole.curve, initial=whole.decoder))[1:]
    assert whole.total == pytest.approx(added, rel=1e-5)


def test_the_estimated_sum_is_near_the_whole_one_at_every_time(run, store):
    whole = dict(
        zip(*(lambda r: (r.times, r.total))(split_likelihood(run.model(), store, Protocol(num=128))), strict=True)
    )
    sums = [split_likelihood(run.model(), store, Protocol(num=128, calls=6, seed=seed)) for seed in range(6)]
    for t in (5, 10, 20):
        at_t = [max(s for time, s in zip(found.times, found.total, strict=True) if time <= t) for found in sums]
        assert statistics.fmean(at_t) == pytest.approx(whole[t], abs=4 * statistics.stdev(at_t) / 6**0.5 + 0.02)


def test_the_mean_is_the_runs_own_figure_and_the_parts_add_up(run, store):
    images = store.images("held_out")
    whole, own = unstir.likelihood(run.model(), images), split_likelihood(run.model(), store)
    assert whole.bits_per_dim.shape == (len(images),) and whole.error is None
    assert whole.bits_per_dim.mean().item() == pytest.approx(own.bits_per_dim, rel=1e-12)
    assert whole.prior.mean().item() == pytest.approx(own.prior, rel=1e-12)
    assert whole.diffusion.mean().item() == pytest.approx(sum(own.curve), rel=1e-9)
    assert whole.decoder.mean().item() == pytest.approx(own.decoder, rel=1e-12)
    torch.testing.assert_close(whole.prior + whole.diffusion + whole.decoder, whole.bits_per_dim)


def test_the_error_of_an_estimate_covers_how_it_varies(run, store):
    model, images = run.model(), store.images("held_out")[:60]
    whole = unstir.likelihood(model, images)
    some = [unstir.likelihood(model, images, calls=9, seed=seed) for seed in range(12)]
    spread = torch.stack([it.bits_per_dim for it in some]).std(0).mean()
    stated = torch.stack([it.error for it in some]).square().mean(0).sqrt().mean()
    assert 0.7 * spread < stated < 4 * spread
    assert abs(torch.stack([it.bits_per_dim for it in some]).mean() - whole.bits_per_dim.mean()) < 2 * stated


class Exact:
    """The exact denoiser of known data, in the place of a network."""

    def __init__(self, data, process):
        schedule, self.net = process.schedule, torch.nn.Identity()

        def denoise(x_t, t):
            x0 = data.estimate(x_t, schedule.abar(t) ** 0.5, (1 - schedule.abar(t)) ** 0.5)
            return Prediction(x0, x0)

        self.denoise = at_each_time(denoise)

    def __call__(self, x_t, t, condition=None, dropout_key=None):
        return self.denoise(x_t, t)


def test_where_the_data_are_one_image_the_bound_of_any_other_is_known(run, store):
    process, images = Process(cosine(50)), store.images("train")[:8]
    model = replace(run.model(), process=process, load=lambda _: Exact(FiniteData(images[:1]), process))
    scored = unstir.likelihood(model, images, variance="small")
    snr = [math.exp(process.schedule.log_snr(t)) for t in (1, 50)]
    squares = ((images - images[:1].int()) / 127.5).double().square().flatten(1).sum(1)
    closed = (
        (snr[0] - snr[1]) / 2 * squares / (64 * math.log(2))
    )  # each term is half a difference of SNR, times squares
    torch.testing.assert_close(scored.diffusion, closed, rtol=1e-4, atol=1e-9)
    assert scored.diffusion[0] < 1e-9 and scored.bits_per_dim[1:].min() > 10 * scored.bits_per_dim[0]


def test_the_command_writes_a_row_for_each_image_of_a_folder(trained, command, tmp_path):
    run, store = trained(model__num_classes=10)
    for number, name in enumerate(("b", "a", "c")):
        folder = tmp_path / "new" / store.classes[number]
        folder.mkdir(parents=True)
        Image.fromarray(store.images("held_out")[number, 0].numpy()).save(folder / f"{name}.png")
    file = tmp_path / "tables" / "new.csv"
    status, out, _ = command("likelihood", run.path, "--images", tmp_path / "new", "--per-image", file, "--calls", 8)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert status == 0 and "3 images" in out and str(file) in out
    assert [row["image"] for row in rows] == ["0/b.png", "1/a.png", "2/c.png"]
    images, labels = store.images("held_out")[:3], torch.tensor([0, 1, 2])
    again = unstir.likelihood(run.model(), images, labels, calls=8)
    assert [float(row["bits_per_dim"]) for row in rows] == again.bits_per_dim.tolist()
    assert [float(row["error"]) for row in rows] == again.error.tolist()
    refused(command("likelihood", run.path, "--images", tmp_path / "new", "--num", 2), "--num")


def test_a_run_scores_its_own_images_and_what_misfits_is_refused(trained, command, tmp_path):
    run, store = trained(model__num_classes=10)
    status, out, _ = command("likelihood", run.path, "--per-image", tmp_path / "own.csv")
    own = split_likelihood(run.model(), store)
    assert status == 0 and f"{own.bits_per_dim:.4f} ±" in out
    assert len((tmp_path / "own.csv").read_text().splitlines()) == own.num + 1
    for seed in range(4):  # all images share their times, of which the error must tell
        of = "--per-image", tmp_path / "own.csv", "--calls", 4, "--seed", seed
        _, out, _ = command("likelihood", run.path, *of)
        mean, error = map(float, re.match(r"(\S+) ± (\S+) bits", out).groups())
        assert abs(mean - own.bits_per_dim) < 4 * error and "estimated from 4 of 20 terms" in out
    assert "± unknown" in command("likelihood", run.path, "--per-image", tmp_path / "own.csv", "--calls", 2)[1]
    images = store.images("held_out")[:2]
    assert mistake(unstir.likelihood, run.model(), images.float()).key == "images"
    assert mistake(unstir.likelihood, run.model(), images).key == "label"
    hidden = replace(run.model(), labels=Labels(10, run.labels.names, True))
    with refusing("labels", [1]):
        unstir.likelihood(hidden, images, torch.zeros(1, dtype=torch.int64))
