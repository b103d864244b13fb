"""Values do not change once they are made: every dataclass is frozen, but for a few that collect something."""

import importlib
import inspect
import pkgutil

import unstir

COLLECTING = {
    "listing.Listing", "loss.LossHistory", "state.State",
}  # fmt: skip
BY_IDENTITY = {
    "check.Errors", "check.RunFacts", "check.Samples", "classifier.Classifier", "classifier_training.Lesson",
    "drawn.Drawn", "feature_figures.Floor", "feature_figures.Sides", "floor.Draws",
    "frechet.Moments", "images.Images", "inception.Extractor", "model.Model", "nearest.Nearest",
    "oracle.FiniteData", "oracle.GaussianData", "oracle.MixtureData", "pairs.Block", "pairs.Row",
    "paths._Followed", "pictures.Drawn", "plan.Plan",
    "reference.Reference", "schedule.NoiseSchedule", "times.TimeTable",
}  # fmt: skip
"""What holds tensors or networks, and is a key of a dictionary or never compared."""
BY_NAME = {
    "config.Config", "config.ModelConfig", "config.UNetConfig", "distill.DistillOptions",
    "drawing.Job", "drawn.Drawn", "edit.EditOptions",
    "evaluate.EvaluationOptions", "evaluation.Evaluation", "facts.Cost",
    "facts.Facts", "facts.Speed", "figures.Figure", "foreign.Asked", "foreign.Foreign",
    "import_.SourceOptions", "likelihood.Protocol", "model.Model", "model_card.Page", "options.ChainOptions",
    "options.FillOptions", "options.InvertOptions", "options.ModelOptions", "options.WeightOptions", "plan.Plan",
    "request.EvaluationRequest", "sections.CheckpointConfig", "sections.DataConfig", "sections.DiffusionConfig",
    "sections.LogConfig", "sections.LossConfig", "sections.TrainConfig", "sections._Snapshots", "significance.Effect",
    "train.Settings",
}  # fmt: skip
"""What has so many fields that they are given by name."""


def classes():
    for module in pkgutil.walk_packages(unstir.__path__, "unstir."):
        if not module.name.endswith("__main__"):
            for each in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(each) and each.__module__ == module.name and "__dataclass_params__" in vars(each):
                    yield each


def test_dataclasses_are_frozen_and_compared_and_made_as_is_said_here():
    found = [(f"{each.__module__.rsplit('.', 1)[1]}.{each.__name__}", each) for each in classes()]
    assert {name for name, _ in found} >= COLLECTING | BY_IDENTITY | BY_NAME
    for name, each in found:
        how = each.__dataclass_params__
        assert how.frozen is (name not in COLLECTING) and how.eq is (name not in BY_IDENTITY), name
        given_by_name = {field.kw_only for field in each.__dataclass_fields__.values() if field.init}
        assert (name in BY_NAME) == (given_by_name == {True}), name
