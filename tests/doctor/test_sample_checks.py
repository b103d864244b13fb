"""Faults planted in what a run draws: in its weights, or in the images themselves."""

import dataclasses

import pytest
import torch

from unstir.data import Store
from unstir.doctor import admit, examine
from unstir.doctor.samples import noise_level
from unstir.runs.run import Run

pytest_plugins = ["ward"]
LOOKS = {"brightness", "tint", "saturation", "collapse", "emptiness", "noise"}


@pytest.fixture(scope="module")
def patient(well):
    """The well run with 64 samples drawn."""
    return admit(well, progress=lambda *_: None)


def found(patient, made):
    """What is said of these images in place of the samples."""
    report = examine(dataclasses.replace(patient, samples=dataclasses.replace(patient.samples, made=made)))
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


def test_a_bias_of_one_channel_is_a_tint(ward):
    ward.weights(biased([0], -0.3))
    found = ward.findings()
    assert found["tint"] == "problem" and set(found) <= {"tint", "brightness", "saturation", "weights-loss"}
    assert "too much red" in ward.found("tint").says


def test_a_bias_of_all_channels_is_a_brightness(ward):
    ward.weights(biased([0, 1, 2], -0.3))
    found = ward.findings()
    assert found["brightness"] == "problem" and set(found) <= {"brightness", "saturation", "weights-loss"}
    assert "lighter" in ward.found("brightness").says


def test_weights_that_were_never_trained_draw_noise(ward):
    ward.weights(lambda name, t: t * 0 if name.startswith("output_conv") else t)
    found = ward.findings()
    assert found["noise"] == found["weights-loss"] == "problem" and set(found) <= LOOKS | {"weights-loss"}


def test_weights_that_do_not_have_the_loss_of_the_log_are_named(ward):
    ward.weights(lambda name, t: t * 1.25 if name.startswith("output_conv") else t)
    assert ward.findings() == {"weights-loss": "problem"}


def test_values_driven_to_the_ends_are_saturated(patient):
    stretched = ((patient.samples.made.float() - 100) * 8 + 100).clamp(0, 255).to(torch.uint8)
    result = found(patient, stretched)
    assert result["saturation"] == "problem" and set(result) <= LOOKS


def test_in_training_what_samples_show_is_a_warning(ward):
    ward.weights(biased([1], -0.3))
    ward.config(train__length="3000 steps", train__lr_period="2970 steps")
    found = ward.findings()
    assert found["tint"] == "warning"
    assert "at step 300 of 3000: look again at its end" in ward.found("tint").remedy


def test_one_image_again_and_again_is_a_collapse(patient):
    made = patient.samples.made
    assert found(patient, made) == {}
    result = found(patient, made[:1].expand_as(made))
    assert result["collapse"] == "problem" and set(result) <= {"collapse", "brightness"}


def test_images_of_one_colour_are_empty(patient):
    made = patient.samples.made
    flat = made.float().mean((2, 3), keepdim=True).expand(made.shape).round().to(torch.uint8)
    result = found(patient, flat)
    assert result["emptiness"] == "problem" and set(result) <= {"emptiness", "collapse"}


def test_noise_on_the_images_is_measured_in_levels(patient):
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((500, 3, 16, 16), 128.0)
    for std in (5.0, 20.0):
        noisy = (grey + std * torch.randn(grey.shape, generator=generator)).round().clamp(0, 255).to(torch.uint8)
        assert noise_level(noisy).mean().item() == pytest.approx(std, rel=0.02)
    ramp = torch.arange(16).expand(2, 3, 16, 16) * 10
    assert noise_level(ramp.to(torch.uint8)).max() == 0
    assert noise_level(torch.zeros(2, 3, 2, 2, dtype=torch.uint8)).tolist() == [0, 0]


@pytest.mark.parametrize("num", [16, 64])
@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_the_chance_of_few_samples_does_not_alarm(patient, kind, num, well):
    """A hundred sets of real images in place of samples: nothing is said of any.

    Photographs differ in brightness and colour so much (here as CIFAR-10's do) that means of few are often far off.
    """
    generator = torch.Generator().manual_seed(num)
    store = Store.open(Run.open(well).config.data.store)
    images = torch.cat([store.images("held_out"), store.images("train")])
    if kind == "photographs":
        light, colour = (std * torch.randn(4000, c, 1, 1, generator=generator) for std, c in ((31, 1), (18, 3)))
        inside = 54 * torch.randn(4000, 1, 8, 8, generator=generator)
        images = (118 + light + colour + inside).clamp(0, 255).to(torch.uint8)
    within = dataclasses.replace(patient, samples=dataclasses.replace(patient.samples, real=images[:2000]))
    for _ in range(100):
        made = images[torch.randperm(len(images), generator=generator)[:num]]
        assert found(within, made) == {}


def test_real_images_beside_samples_are_of_their_classes(make_run):
    from unstir.doctor.measure import _real

    run, store = make_run(model__num_classes=10)
    real = _real(run, store, 20)
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(store.images("train"), store.labels("train"), strict=True)
    }
    counts = torch.bincount(torch.tensor([labels[image.numpy().tobytes()] for image in real]), minlength=10)
    assert counts.min() == counts.max() and counts.sum() > 1000
