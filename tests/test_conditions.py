"""Vectors and images that describe images: they move with them, and everything else holds given them."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from refusals import mistake, refusing
from unstir import condition, likelihood, network
from unstir.data import Store, pack
from unstir.edit import vary
from unstir.edit.stack import inpaint_stack, read_stack
from unstir.errors import UserError
from unstir.generate.conditions import read_conditions
from unstir.generate.drawing import Job, sample_batches
from unstir.generate.folder import save_images, settings_in
from unstir.metrics.drawn import usual_labels
from unstir.metrics.likelihood import Protocol, split_likelihood
from unstir.metrics.plan import PAIRS, SAMPLES, pair_figures, paired
from unstir.metrics.scores import save_scores
from unstir.pictures.contact import describe
from unstir.pictures.grid import read
from unstir.pixels import Scale
from unstir.runs.conditions import some_images
from unstir.runs.run import Run
from unstir.runs.toml import from_dict
from unstir.train import paths
from unstir.train.distill import distilled
from unstir.train.launch import open_data, open_run, train_run
from unstir.train.trainer import Trainer

MODEL = {
    "in_channels": 1, "channels": 8, "mults": [1, 2], "num_blocks": 1, "groups": 4, "attention": [], "dropout": 0.0,
}  # fmt: skip
TRAIN = {"length": "3 steps", "warmup": "0 steps", "batch_size": 8, "micro_batch": 3, "dtype": "float32"}


def settings(store, **sections):
    """A config of a tiny network on a store, whose images have a stored condition."""
    values = {
        "data": {"source": str(store), "channels": 1, "condition": "stored", "flip": True},
        "model": MODEL, "train": TRAIN | {"augment": 0.3}, "diffusion": {"T": 20, "predict": "x0"},
        "grids": {"steps": 2, "num": 4, "nrow": 2}, "log": {"held_out_images": 4, "held_out_times": 2},
        "checkpoint": {"every": "1000 steps"},
    }  # fmt: skip
    for section, changed in sections.items():
        values[section] = values[section] | changed
    return from_dict(values, "test")


@pytest.fixture(scope="module")
def images():
    """Forty blobs at places of their own, uint8 [40, 1, 8, 8]."""
    y, x = np.mgrid[:8, :8]
    places = np.random.default_rng(0).uniform(1, 6, (40, 2))
    return np.stack([255 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 3) for a, b in places])[:, None].astype(np.uint8)


@pytest.fixture(scope="module")
def stores(images, tmp_path_factory):
    """Packed with the images themselves as conditions, and with vectors: the place in the array and its square."""
    folder, number = tmp_path_factory.mktemp("stores"), np.arange(40.0)
    vectors = np.stack((number, number**2), 1)
    conditions = {"image": images.astype(np.float32), "vector": vectors}
    return {
        kind: pack({"images": images, "conditions": values}, folder / kind, channels=1, held_out=0.25)
        for kind, values in conditions.items()
    }


@pytest.fixture(scope="module")
def runs(stores, tmp_path_factory, quick):
    """A run of a few steps on each of the stores."""
    folder = tmp_path_factory.mktemp("runs")
    return {kind: train_run(settings(store.path), folder / kind).run for kind, store in stores.items()}


def drawn(model, num, **asked):
    job = Job(num=num, chain=model.chain.changed(steps=3), batch_size=4, **asked)
    return torch.cat([images for _, images in sample_batches(model, job)])


def spread_out(run):
    """The model of a run with weights that let everything through; those of a few steps hardly do."""
    model = run.model()
    torch.manual_seed(0)
    for parameter in model.denoiser.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_conditions_are_packed_with_their_images_and_hashed(stores, images, tmp_path):
    store = stores["vector"]
    for split in ("train", "held_out"):
        conditions = store.conditions(split)
        assert conditions.dtype == torch.float32 and conditions.shape == (store.count(split), 2)
        assert np.array_equal(store.images(split).numpy(), images[conditions[:, 0].long()])
    Store.open(store.path).verify()
    small = pack({"images": images, "conditions": images[:, :, ::2, ::2]}, tmp_path / "small", channels=1)
    assert small.manifest["condition"] == [1, 8, 8]
    assert torch.equal(small.conditions("train")[:, :, 1::2, 1::2], small.conditions("train")[:, :, ::2, ::2])
    same = pack({"images": images, "conditions": np.arange(40)}, tmp_path / "same", channels=1, held_out=0.25)
    assert same.content_hash != store.content_hash
    for wrong in (np.arange(39), np.full(40, np.nan)):
        with pytest.raises(UserError, match="conditions"):
            pack({"images": images, "conditions": wrong}, tmp_path / "wrong", channels=1)


@pytest.mark.parametrize(("sides", "size"), [((16, 16), 8), ((16, 32), 16), ((12, 32), (8, 8))])
def test_what_crops_and_resizes_an_image_does_so_to_its_condition(tmp_path, sides, size):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, *sides)).astype(np.float32)
    given = {"images": images, "conditions": np.concatenate((images, 2 * images), 1)}
    store = pack(given, tmp_path / "same", size=size)
    assert torch.allclose(
        store.conditions("train"), torch.cat([c * store.images("train") for c in (1, 2)], 1), rtol=1e-5
    )
    blocks = images[:, :, ::4, ::4]
    given = {"images": blocks.repeat(4, 2).repeat(4, 3), "conditions": blocks}
    store = pack(given, tmp_path / "small", size=size)
    assert torch.allclose(store.conditions("train"), store.images("train"), rtol=1e-5)
    if sides != (16, 16):  # as large as what is packed, of the whole image
        with refusing(given="the condition of the arrays"):
            pack({"images": images, "conditions": images[..., ::2, ::4]}, tmp_path / "wrong", size=size)


def test_what_moves_an_image_moves_its_condition(stores, tmp_path):
    config = settings(stores["image"].path, train={"condition_dropout": 0.6})
    made = Trainer(open_run(config, tmp_path / "run", stores["image"]), stores["image"])
    examples = made.examples(slice(0, 8))
    given = examples.condition[:, 1].flatten(1).amax(1) == 1
    assert given.any() and not given.all() and not examples.condition[~given].any()
    low, high = (of(stores["image"].conditions("train")) for of in (torch.min, torch.max))
    units = (examples.x_0 + 1) * 127.5
    assert torch.allclose(examples.condition[given, :1], (2 * (units - low) / (high - low) - 1)[given], atol=1e-5)
    assert not torch.equal(examples.x_0, made._batches(0, torch.arange(8), slice(0, 8))[0])  # some were augmented


def test_a_run_with_conditions_continues_exactly(stores, tmp_path, quick):
    store, weights = stores["image"], []
    for name, lengths in (("whole", ("4 steps",)), ("parts", ("2 steps", "4 steps"))):
        for length in lengths:
            off = {"log": {"held_out_images": 0}, "grids": {"log_spaced": 0}}
            config = settings(store.path, train={"length": length}, **off)
            made = Trainer(open_run(config, tmp_path / name, store), store)
            assert made.run()
        weights.append(made.state.net.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_path_has_the_condition_of_an_image_or_of_its_mirror_image(stores, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "STEPS", (2, 2))
    store, conditions = stores["image"], runs["image"].conditions
    config = distilled(runs["image"], "3 steps")
    made = Trainer(open_run(config, tmp_path / "fast", store), store)
    examples = [made.examples(slice(0, 8))]
    made.state.step = paths.PERIOD
    examples.append(made.examples(slice(0, 8)))
    told = torch.cat([each.condition for each in examples])
    told = told[told[:, 1].flatten(1).amax(1) == 1, :1]
    scaled = conditions.given(store.conditions("train"), told.device)[:, :1]
    as_stored, mirrored = (
        torch.tensor([bool((rows == each).flatten(1).all(1).any()) for each in told])
        for rows in (scaled, scaled.flip(-1))
    )
    assert bool((as_stored | mirrored).all()) and as_stored.any() and mirrored.any()


def test_a_path_hides_the_part_of_the_mirrored_image_that_training_hides(stores, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(paths, "STEPS", (2, 2))
    store = stores["image"]
    run = train_run(settings(store.path, data={"condition": "masked"}), tmp_path / "run").run
    made = Trainer(open_run(distilled(run, "3 steps"), tmp_path / "fast", store), store)
    given = made.examples(slice(0, 8)).condition
    assert given[..., :4].any() and not given[:, 0, :, 4:].any()


def test_an_image_that_describes_itself_is_learned_almost_exactly(stores, tmp_path, quick):
    train = {"length": "120 steps", "lr": 3e-3, "batch_size": 16, "micro_batch": 0, "ema_decay": 0.9}
    config = settings(stores["image"].path, train=train, log={"held_out_images": 0}, grids={"log_spaced": 1})
    run = train_run(config, tmp_path / "run").run
    model, store = run.model(), stores["image"]
    real = store.images("held_out")[some_images(store, "held_out", 8)]
    error = ((drawn(model, 8) + 1) * 127.5 - real).square().mean().sqrt()
    others = (real.float() - real.roll(1, 0)).square().mean().sqrt()
    assert error < 0.15 * others  # of the held-out images whose conditions the run keeps, in their order


def test_image_i_is_given_row_i_of_the_conditions(runs):
    model = spread_out(runs["vector"])
    rows = torch.tensor([[3.0, 9.0], [30.0, 900.0]])
    both = drawn(model, 4, condition=rows)
    for row in range(2):
        alone = drawn(model, 4, condition=rows[row])
        assert torch.allclose(both[row::2], alone[row::2], atol=1e-5) and not torch.allclose(both, alone, atol=1e-3)
    kept = model.conditions.kept
    assert torch.equal(drawn(model, 4), drawn(model, 4, condition=kept)) and len(kept) == 10
    assert mistake(drawn, model, 1, condition=torch.zeros(3)).key == "condition"


def test_vectors_are_scaled_by_the_training_images(runs, stores):
    conditions, rows = runs["vector"].conditions, stores["vector"].conditions("train")
    given = conditions.given(rows, torch.device("cpu"))
    assert given.shape == (len(rows), 3) and bool((given[:, 2] == 1).all())
    assert torch.allclose(given[:, :2].mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(given[:, :2].std(0, correction=0), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_guidance_leads_away_from_the_hidden_condition(runs, kind):
    model = spread_out(runs[kind])
    told = model.condition(torch.arange(2))
    x, t = torch.ones(2, 1, 8, 8), 7
    with torch.no_grad():
        weak, strong = model.away_from(told)(x, t).raw, model.denoise(told)(x, t).raw
        assert torch.equal(weak, model.denoiser(x, t, torch.zeros_like(told)).raw)
    assert not torch.allclose(weak, strong, atol=1e-3)
    assert runs[kind].config.train.condition_dropout == 0.1  # which a condition takes by itself
    assert not torch.allclose(
        drawn(model, 2), drawn(replace(model, chain=model.chain.changed(guidance=3.0)), 2), atol=1e-3
    )


def test_the_bound_is_given_the_condition_of_each_image(runs, stores):
    model, store, seen = spread_out(runs["vector"]), stores["vector"], []
    model.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    result = split_likelihood(model, store, Protocol(num=4, batch_size=4))
    assert result.protocol["given"] == "condition" and len(seen) == 20
    rows = {tuple(row) for row in model.conditions.given(store.conditions("held_out"), model.device).tolist()}
    assert all(set(map(tuple, given.tolist())) < rows for given in seen)


def test_new_images_are_scored_given_the_conditions_beside_them(runs, stores, tmp_path, logged):
    model, store = spread_out(runs["vector"]), stores["vector"]
    images, rows = store.images("held_out")[:4], store.conditions("held_out")[:4]
    for name, also in (("given", {"conditions": rows}), ("bare", {}), ("wide", {"conditions": images.float()})):
        np.savez(tmp_path / f"{name}.npz", images=images, **also)
    given, hidden = likelihood(model, images, condition=rows, calls=4), likelihood(model, images, calls=4)
    del logged[:]
    columns = save_scores(model, tmp_path / "given.npz", None, calls=4)
    assert columns["bits_per_dim"] == given.bits_per_dim.tolist() and not logged
    columns = save_scores(model, tmp_path / "bare.npz", None, calls=4)
    assert columns["bits_per_dim"] == hidden.bits_per_dim.tolist() != given.bits_per_dim.tolist()
    assert "without condition" in "".join(logged)
    assert mistake(save_scores, model, tmp_path / "wide.npz", None, calls=4).key == "condition"
    with refusing("condition", [3, 2]):
        likelihood(model, images, condition=rows[:3])
    alike = (likelihood(model, images[:2], condition=one, calls=4) for one in (rows[0], rows[:1].repeat(2, 1)))
    assert torch.equal(*(result.bits_per_dim for result in alike))


def test_a_folder_of_samples_carries_the_hash_of_its_conditions(runs, tmp_path):
    model = runs["image"].model()
    job = Job(num=2, chain=model.chain, condition=torch.full((1, 8, 8), 100.0))
    save_images(model, job, tmp_path / "out")
    assert settings_in(tmp_path / "out")["condition"] == model.conditions.hash(job.condition)
    assert read(tmp_path / "out" / "grid.png").shape[2] > read(tmp_path / "out" / "noise.png").shape[2]
    with pytest.raises(UserError, match="other settings"):
        save_images(model, replace(job, condition=torch.full((1, 8, 8), 99.0)), tmp_path / "out")


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_an_edit_is_given_the_condition_of_its_picture(runs, images, kind, tmp_path):
    model = spread_out(runs[kind])
    Image.fromarray(images[0, 0]).save(tmp_path / "a.png")
    conditions = (None, *model.conditions.kept[:2])
    jobs = [Job(num=2, chain=model.chain.changed(steps=3), condition=of) for of in conditions]
    edited = [vary(model, tmp_path / "a.png", job, strength=0.8) for job in jobs]
    hashes = [it.settings["condition"] for it in edited]
    assert hashes == [None, *(model.conditions.hash(of) for of in conditions[1:])]
    assert not any(torch.equal(edited[0].made, it.made) for it in edited[1:]) and len(set(hashes)) == 3


def test_each_image_of_a_stack_has_the_condition_beside_it(runs, stores, images, tmp_path):
    model, rows = spread_out(runs["vector"]), np.array([[1.0, 2.0], [30.0, 900.0]])
    np.savez(tmp_path / "two.npz", images=images[:2], conditions=rows)
    given, described = read_stack(tmp_path / "two.npz", model)
    assert np.array_equal(given, images[:2]) and np.array_equal(described, rows)
    np.save(tmp_path / "two.npy", images[:2])
    assert read_stack(tmp_path / "two.npy", model)[1] is None
    assert "numbers of each image, those of training in " in describe(stores["vector"])
    keep = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    jobs = [Job(num=1, chain=model.chain.changed(steps=3), condition=of) for of in (None, described)]
    one, other = (inpaint_stack(model, given, keep, job).made for job in jobs)
    assert not torch.equal(one, other)


def test_conditions_are_read_as_they_are_typed(runs, tmp_path):
    vector, image = runs["vector"].model(), runs["image"].model()
    (tmp_path / "rows.csv").write_text("dose,age\n0.5,2\n-1e1,3\n")
    np.save(tmp_path / "rows.npy", np.ones((3, 2)))
    assert read_conditions("-0.3,1.5", vector).tolist() == pytest.approx([-0.3, 1.5])
    assert read_conditions(str(tmp_path / "rows.csv"), vector).tolist() == [[0.5, 2.0], [-10.0, 3.0]]
    assert read_conditions(str(tmp_path / "rows.npy"), vector).shape == (3, 2)
    (tmp_path / "spreadsheet.csv").write_text("1.5E-01, 2.0E+01\n3,4\n")
    assert read_conditions(str(tmp_path / "spreadsheet.csv"), vector)[0].tolist() == pytest.approx([0.15, 20.0])
    assert read_conditions("1E-1,2", vector).tolist() == pytest.approx([0.1, 2.0])
    (tmp_path / "spreadsheet.csv").write_text("nan,nan\n3,4\n")
    assert "condition" in str(mistake(read_conditions, str(tmp_path / "spreadsheet.csv"), vector))
    save_images(image, Job(num=3, chain=image.chain), tmp_path / "drawn")
    for name in ("grid.png", "noise.png"):
        (tmp_path / "drawn" / name).unlink()
    assert read_conditions(str(tmp_path / "drawn"), image).shape == (3, 1, 8, 8)
    assert torch.equal(read_conditions("1", image), image.conditions.kept[1])
    for text, model in (
        ("1", vector),
        ("1,2", image),
        ("64", image),
        ("1.5", image),
        ("absent", image),
        (str(tmp_path / "rows.npy"), image),
    ):
        assert "condition" in str(mistake(read_conditions, text, model))


def test_half_of_an_image_or_its_means_describe_it(digits, tmp_path):
    for number, (name, options) in enumerate({"masked": {"part": "top"}, "low_resolution": {"factor": 4}}.items()):
        data = {"source": "digits", "store": str(digits), "condition": name, "condition_options": options}
        config = settings(digits, data=data)
        run = open_run(config, tmp_path / str(number), open_data(config, tmp_path / str(number)))
        store, conditions = Store.open(digits), Run.open(run.path).conditions
        images = store.images("held_out")[some_images(store, "held_out", 5)]
        x_0 = images / 127.5 - 1
        given = conditions.of_images(x_0)[:, :1]
        if name == "masked":
            assert torch.equal(given[:, :, 4:], x_0[:, :, 4:]) and not given[:, :, :4].any()
        else:
            assert torch.allclose(given[:, :, ::4, ::4], x_0.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5)))
        assert torch.allclose(conditions.given(conditions.kept[:5], x_0.device)[:, :1], given, atol=1e-5)
        assert torch.allclose(conditions.checked(images), conditions.kept[:5], atol=1e-4)
    for wrong, key in (({"part": "all"}, "part"), ({"half": "left"}, "data.condition_options.half")):
        config = settings(digits, data=data | {"condition": "masked", "condition_options": wrong})
        assert key in str(mistake(open_run, config, tmp_path / "wrong", store))


@condition
def ink(images, power=1.0):
    """How much ink the left and the right half of an image have, in units of the function's own."""
    assert len(images)
    return torch.stack([50 + half.add(1).mean((1, 2, 3)) ** power for half in images.chunk(2, 3)], 1)


def test_a_function_of_ones_own_describes_images(stores, tmp_path):
    store, data = stores["vector"], {"condition": f"{ink.__module__}:ink", "condition_options": {"power": 2.0}}
    run = train_run(settings(store.path, data=data, log={"held_out_images": 0}), tmp_path / "run").run
    assert run.config.model.condition_values == 2 and run.model().conditions.kept.min() > 50
    given = run.conditions.of_store(store, "train", torch.arange(30), store.images("train") / 127.5 - 1)
    assert torch.allclose(given[:, :2].mean(0), torch.zeros(2), atol=1e-3) and given.shape == (30, 3)
    assert drawn(run.model(), 2, condition=torch.tensor([51.0, 52.0])).shape == (2, 1, 8, 8)


@network
class Told(torch.nn.Module):
    """A network of one's own that is told a vector."""

    def __init__(self, in_channels, out_channels, size):
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(in_channels, out_channels, 3, padding=1), torch.nn.Linear(size, 1)

    def forward(self, x, t, condition=None):
        return self.conv(x) + self.linear(condition)[:, :, None, None]


def test_a_network_of_ones_own_is_given_the_tensor(stores, tmp_path):
    model = {"type": f"{Told.__module__}:Told", "in_channels": 1}
    values = settings(stores["vector"].path, train={"augment": 0.0})
    config = replace(values, model=type(values.model)(**model))
    run = train_run(config, tmp_path / "run").run
    assert run.model().denoiser.net.linear.weight.shape == (1, 3)
    assert drawn(run.model(), 3).shape == (3, 1, 8, 8)


def test_held_out_conditions_are_of_all_classes_of_a_folder(images, tmp_path, quick):
    given = {"images": np.tile(images, (10, 1, 1, 1)), "conditions": np.arange(400.0), "labels": np.arange(400) // 100}
    store = pack(given, tmp_path / "store", channels=1, held_out=0.25)  # by class, as a folder's images lie
    run = train_run(settings(store.path), tmp_path / "run").run
    for rows in (run.conditions.kept, usual_labels(run, store)["condition"][:40]):
        assert (rows[:, 0] // 100).long().bincount().min() > 4


@dataclass(frozen=True)
class Made:
    """Samples in the place of those that a run draws: those of the image whose number is the condition."""

    model: object
    images: torch.Tensor
    condition: torch.Tensor | None = None

    def sets(self, num, seeds):
        of_image = self.images.view(PAIRS, SAMPLES, 1, 4, 4)
        return [of_image[self.condition[::SAMPLES, 0, 0, 0].long()].flatten(0, 1)]


@pytest.mark.parametrize("scale", [Scale(), Scale((0.0,), (255.0,))])
def test_samples_of_the_truth_have_the_error_that_their_spread_predicts(scale):
    generator = torch.Generator().manual_seed(0)
    mean = 127.5 + 40 * torch.randn(PAIRS, 1, 1, 4, 4, generator=generator)

    def like_it(num, std):
        drawn = mean + std * torch.randn(PAIRS, num, 1, 4, 4, generator=generator)
        images = drawn.round().clamp(0, 255).byte().flatten(0, 1)
        return images.float() if scale.is_float else images

    numbers = torch.arange(PAIRS)[:, None, None, None].expand(PAIRS, 1, 4, 4)
    real, conditions = like_it(1, 15), SimpleNamespace(is_image=True, rows_of=lambda _, split, index: numbers[index])
    store = SimpleNamespace(count=lambda _: PAIRS, images=lambda _: real, shape=(1, 4, 4), scale=scale)
    right, narrow = (
        pair_figures(*paired(Made(SimpleNamespace(conditions=conditions), like_it(SAMPLES, std)), store), store)
        for std in (15, 5)
    )
    error, spread = right["pairs/error"], right["pairs/spread"]
    assert abs(error.value - (1 + 1 / SAMPLES) * (15 / 127.5) ** 2) < 4 * error.error
    assert abs(spread.value - 1) < 4 * spread.error < 0.2
    assert narrow["pairs/spread"].value == pytest.approx((17 / 16) ** 0.5 * 5 / (15**2 + 5**2 / 16) ** 0.5, rel=0.1)
