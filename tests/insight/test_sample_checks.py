"""Faults planted in what a run draws: in its weights, or in the images themselves."""

import dataclasses

import pytest
import torch

from unstir.data import Store
from unstir.insight.doctor import CHECKS, examine
from unstir.insight.gather import gather, real_images
from unstir.runs.run import Run

pytest_plugins = ["spoiled"]
OF_SAMPLES = {"brightness", "collapse"}


@pytest.fixture(scope="module")
def facts(healthy):
    """The healthy run with 64 samples drawn."""
    return gather(healthy)


def found(facts, made):
    """What is said of these images in place of the samples."""
    report = examine(dataclasses.replace(facts, samples=dataclasses.replace(facts.samples, made=made)))
    return {finding.check: finding.severity for finding in report.findings}


def biased(channels, by):
    """A change of weights that shifts the output, which is the predicted noise, in these channels."""

    def change(name, tensor):
        if name != "output_conv.bias":
            return tensor
        shifted = tensor.clone()
        shifted[channels] += by
        return shifted

    return change


def test_a_bias_of_all_channels_is_a_brightness(spoiled):
    spoiled.weights(biased([0, 1, 2], -0.3))
    found = spoiled.findings()
    assert found == {"brightness": "problem"}
    assert "lighter" in spoiled.found("brightness").says


@pytest.mark.parametrize("num", [16, 64])
@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_the_chance_of_few_samples_does_not_alarm(facts, kind, num, healthy):
    """A hundred sets of real images in place of samples: nothing is said of any.

    Photographs differ in brightness and colour so much (here as CIFAR-10's do) that means of few are often far off.
    """
    generator = torch.Generator().manual_seed(num)
    store = Store.open(Run.open(healthy).config.data.store)
    images = torch.cat([store.images("held_out"), store.images("train")])
    if kind == "photographs":
        light, colour = (std * torch.randn(4000, c, 1, 1, generator=generator) for std, c in ((31, 1), (18, 3)))
        inside = 54 * torch.randn(4000, 1, 8, 8, generator=generator)
        images = (118 + light + colour + inside).clamp(0, 255).to(torch.uint8)
    within = dataclasses.replace(facts, samples=dataclasses.replace(facts.samples, real=images[:2000]))
    of_samples = [check for check in CHECKS.values() if "samples" in check.needs]
    assert {check.name for check in of_samples} == OF_SAMPLES
    for repeat in range(100):
        made = images[torch.randperm(len(images), generator=generator)[:num]]
        drawn = dataclasses.replace(within, samples=dataclasses.replace(within.samples, made=made))
        assert [finding for check in of_samples for finding in check.run(drawn)] == []
        assert repeat or found(within, made) == {}  # the other checks look at no sample: once will do


def test_real_images_beside_samples_are_of_their_classes(make_run):
    run, store = make_run(model__num_classes=10)
    real = real_images(store, run.labels.of(torch.arange(20)).repeat(102), 2048, "test")
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(store.images("train"), store.labels("train"), strict=True)
    }
    counts = torch.bincount(torch.tensor([labels[image.numpy().tobytes()] for image in real]), minlength=10)
    assert counts.min() == counts.max() and counts.sum() > 1000
