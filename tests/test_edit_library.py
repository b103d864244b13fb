"""Edits from Python: batches, the noise that is drawn, what was asked, and every call of the network counted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edited
from unstir import edit
from unstir.diffusion.samplers import Step
from unstir.generate.drawing import Job
from unstir.runs.run import Run

once, run = edited.once, edited.run


def test_many_results_come_in_batches(unstir, run):
    model, made = Run.open(run).model(), []
    for batch_size in (64, 2):
        job = Job(num=5, chain=model.chain, batch_size=batch_size)
        made.append(edit.vary(model, Path("a.png"), job, strength=0.6).made.int())
    assert len(made[0]) == 5 and (made[0] - made[1]).abs().max() <= 1


def test_steps_of_a_picture_in_memory_end_in_what_its_file_gives(unstir, run):
    model, path = Run.open(run).model(), Path("a.png")
    job, given = Job(num=2, chain=model.chain.changed(steps=4)), {"box": (0, 0, 4, 4), "resamples": 2}
    steps = edit.inpaint_steps(model, path.read_bytes(), job, **given)
    taken = []
    while len(taken) < 7:
        taken.append(next(steps))
    with pytest.raises(StopIteration) as end:
        next(steps)
    edited = end.value.value
    assert taken[-1].t == 0 and edited.calls == 7
    assert torch.equal(edited.made, edit.inpaint(model, path, job, **given).made)
    assert torch.equal(model.to_units(taken[-1].x), edited.made)


def test_the_noise_of_filling_in_is_named_by_use_time_visit_and_image(unstir, run, monkeypatch):
    kept = []

    def spy(denoise, process, image, mask, x_T, times, noise, **_):
        kept.append(noise)
        yield Step(0, image, image)

    monkeypatch.setattr("unstir.diffusion.editing.inpaint", spy)
    opened = Run.open(run)
    edit.inpaint(opened.model(), Path("a.png"), Job(chain=opened.chain(), num=3), box=(0, 0, 4, 4))
    (noise,) = kept
    drawn = [noise(use, t, visit) for use in ("step", "known", "back") for t in (1, 2, 20) for visit in (0, 1, 9)]
    assert drawn[0].shape == (3, 1, 8, 8) and torch.equal(drawn[0], noise("step", 1, 0))
    assert len({image.numpy().tobytes() for images in drawn for image in images}) == 3 * 27


def test_weights_clamp_and_guidance_are_what_was_asked(unstir, once, run):
    path = Path("a.png")
    for folder, guidances in (
        (run, (1.0,)),
        (once("guided", model__num_classes=10, train__condition_dropout=0.5), (1.0, 3.0)),
    ):
        opened, made = Run.open(folder), set()
        for guidance, clip, ema in [(guidance, *rest) for guidance in guidances for rest in ((0, 1), (1, 1), (0, 0))]:
            chain = replace(opened.chain(), guidance=guidance, clip=bool(clip), steps=5)
            job = Job(chain=chain, num=2, label=0 if len(guidances) > 1 else None)
            done = edit.inpaint(opened.model(ema=bool(ema)), path, job, box=(0, 0, 6, 6), resamples=2)
            made.add(done.made.numpy().tobytes())
        assert len(made) == 3 * len(guidances)


def test_library_calls_count_every_network_call(unstir, run, counts):
    model = Run.open(run).model()
    job = Job(chain=model.chain, num=3, batch_size=2)
    pair, path = (Path("a.png"), Path("b.png")), Path("a.png")
    for work in (
        lambda: edit.inpaint(model, path, job, box=(0, 0, 4, 4), resamples=3),
        lambda: edit.vary(model, path, job, strength=0.3),
        lambda: edit.invert(model, path, job),
        lambda: edit.blend(model, pair, job),
        lambda: edit.blend(model, (0, 1), job),
    ):
        counts.clear()
        result = work()
        assert counts == [("editing", done, len(counts)) for done in range(1, len(counts) + 1)]
        assert result.given.dtype == result.made.dtype == torch.uint8
        assert not result.given.is_inference() and not result.made.is_inference()


def test_calls_are_counted_for_each_class_and_for_guidance(unstir, once, counts):
    known = Run.open(once("classes", model__num_classes=10)).model()
    hidden = Run.open(once("guided", model__num_classes=10, train__condition_dropout=0.5)).model()
    pair, jobs = (Path("a.png"), Path("b.png")), {}
    for scale in (1.0, 3.0):
        jobs[scale] = Job(chain=replace(known.chain, sampler="ddim", steps=2, guidance=scale), num=2, batch_size=3)
    for calls, work in (
        (2, lambda: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 3), count=3)),
        (4, lambda: edit.blend(known, (4, 1), jobs[1.0], labels=(3, 5), count=3)),
        (14, lambda: edit.blend(known, pair, jobs[1.0], labels=(3, 3), count=3)),
        (16, lambda: edit.blend(known, pair, jobs[1.0], labels=(3, 5), count=3)),
        (8, lambda: edit.morph(known, jobs[1.0], labels=(3, 5), count=3)),
        (8, lambda: edit.morph(hidden, jobs[1.0], labels=(3, 5), count=3)),
        (12, lambda: edit.morph(hidden, jobs[3.0], labels=(3, 5), count=3)),
    ):
        counts.clear()
        result = work()
        assert counts == [("editing", done, calls) for done in range(1, calls + 1)] and result.calls == calls
