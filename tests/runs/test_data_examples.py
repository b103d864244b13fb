"""Examples of a run's data: images that it was not trained on, one of each class first."""

import torch

from unstir.data import Store
from unstir.runs.run import Run
from unstir.runs.stores import examples


def test_examples_are_held_out_and_begin_with_one_of_each_class(digits, make_run):
    store, shipped = Store.open(digits), examples(Run.open("shipped:digits"), 12)
    images, labels = store.scale.to_model(store.images("held_out")), store.labels("held_out")
    x_0, told, present = shipped
    first = [labels.tolist().index(label) for label in range(10)]
    rest = [place for place in range(20) if place not in first][:2]
    assert torch.equal(x_0, images[first + rest]) and torch.equal(told, labels[first + rest]) and present is None
    run, _ = make_run(train__length="1 step")
    assert torch.equal(examples(run, 12)[0], x_0) and examples(run, 12)[1] is None
    run, _ = make_run("by class", train__length="1 step", model__num_classes=10)
    assert torch.equal(examples(run, 12)[1], told)
