"""What a batch of samples takes of memory, forecast with guidance, a guide or neither, and what is advised of it."""

import re

import pytest
import torch

from unstir.chain import Chain
from unstir.errors import OutOfMemoryError, UserError
from unstir.generate import memory
from unstir.generate.drawing import Job, batch, check
from unstir.nn.activations import sampling_bytes
from unstir.runs import build, resources
from unstir.runs.memory import OF_CHAIN, gigabytes

CLASSES = {"model__num_classes": 10, "train__label_dropout": 0.1, "train__length": "1 step"}
BEFORE, NUM = 10**6, 6000


def network(run):
    """Bytes that a run's network takes for an image of a batch."""
    return sampling_bytes(build.network_config(run.config), *run.data.shape[1:], 4)


def with_chain(of_network, run):
    """Bytes of an image that is sampled: without what a CPU's allocator takes besides, with it, and at the most."""
    each = of_network + OF_CHAIN * torch.Size(run.data.shape).numel()
    return each, each + round(0.12 * each), each + round(0.35 * each)


@pytest.fixture
def there(monkeypatch):
    """there(bytes): the memory of the machine, of which this process has taken `BEFORE`."""

    def set_to(number):
        for name in ("memory", "reachable"):
            monkeypatch.setattr(resources, name, lambda device: round(number))
        monkeypatch.setattr(resources, "taken", lambda device: BEFORE)

    return set_to


@pytest.fixture
def failed(monkeypatch):
    """failed(model, guidance, num) -> what is said where the memory runs out while so many are drawn at once."""

    def said(model, guidance, num=NUM):
        def draw(*_):
            raise MemoryError
            yield

        monkeypatch.setattr(type(model), "draw", draw)
        with pytest.raises(OutOfMemoryError) as raised:
            batch(model, Job(num=num, chain=Chain("ddim", guidance=guidance), batch_size=num), 0)
        return str(raised.value)

    return said


def advised(text):
    """The batch size that a message names."""
    return int(re.search(r"--batch-size (\d+)$", text)[1])


@pytest.mark.parametrize(("guidance", "labels"), [(1.0, 1), (0.0, 1), (0.5, 2), (3.0, 2)])
def test_the_networks_part_counts_twice_where_guidance_computes_both_labels(guidance, labels, trained, there, failed):
    run, _ = trained(**CLASSES)
    model, (sure, each, most) = run.model(device="cpu"), with_chain(labels * network(run), run)
    job = Job(num=NUM, chain=Chain("ddim", steps=2, guidance=guidance), batch_size=NUM)
    there(0.9 * NUM * sure + 1)
    check(model, job)
    there(0.9 * NUM * sure - 1)
    with pytest.raises(
        UserError, match=rf"^batch_size={NUM} images at once take about .* what fits: --batch-size \d+$"
    ):
        check(model, job)
    rest = BEFORE + 4 * build.num_parameters(run.config)
    there((rest + 1000.5 * most) / 0.9)
    text = failed(model, guidance)
    assert f"images at once take about {gigabytes(NUM * each + rest)}, and" in text and advised(text) == 1000


def test_freed_blocks_are_kept_for_what_a_batch_takes(trained, there, monkeypatch):
    run, _ = trained(**CLASSES)
    sure, asked = with_chain(2 * network(run), run)[0], []
    monkeypatch.setattr(resources, "keep_blocks", lambda *given: asked.append(given))
    there(10**9)
    batch(run.model(device="cpu"), Job(num=3, chain=Chain("ddim", steps=2, guidance=3.0), batch_size=3), 0)
    assert asked == [(BEFORE + 3 * sure, torch.device("cpu"))]


def test_a_guide_takes_weights_and_a_batch_of_its_own(trained, there, failed):
    run, wide = (trained(name, **CLASSES, model__channels=channels)[0] for name, channels in (("a", 8), ("b", 16)))
    rest = BEFORE + 4 * sum(build.num_parameters(each.config) for each in (run, wide))
    _, each, most = with_chain(network(wide), run)
    there((rest + 1000.5 * most) / 0.9)
    for strong, guide in ((run, wide), (wide, run)):
        text = failed(strong.model(device="cpu", guide=str(guide.path)), 3.0)
        assert f"images at once take about {gigabytes(NUM * each + rest)}, and" in text and advised(text) == 1000


def test_a_batch_that_should_have_fitted_is_halved_and_another_takes_what_fits(trained, there, failed):
    run, _ = trained(**CLASSES)
    model, (_, each, _) = run.model(device="cpu"), with_chain(2 * network(run), run)
    takes = BEFORE + 4 * build.num_parameters(run.config) + NUM * each
    for room in (takes, takes + 1, 10 * takes):
        there(room)
        assert advised(failed(model, 3.0)) == NUM // 2
    there(0.999 * takes)
    assert NUM // 2 < advised(failed(model, 3.0)) < NUM
    there(10 * takes)
    assert "not one image fits: end other programs" in failed(model, 3.0, num=1)


def test_of_a_guide_of_the_users_own_nothing_is_known(trained, there, failed, monkeypatch):
    run, other = (trained(name, **CLASSES)[0] for name in "ab")
    model = run.model(device="cpu", guide=str(other.path))
    monkeypatch.delitem(model.guide.settings, "model")
    monkeypatch.setattr(resources, "keep_blocks", None)  # not asked for
    there(1)
    memory.check_batch(model, NUM, 3.0)
    assert failed(model, 3.0).endswith(
        f"compute fewer images at once with --batch-size, or {resources.more(model.device)}"
    )
