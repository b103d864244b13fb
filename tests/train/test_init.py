"""Where the initial weights of a run may come from (train.init), and what is said of those that do not fit."""

import pytest
import torch

from refusals import mistake, refusing
from unstir.train.trainer import Trainer


def same(state, weights):
    return all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_a_run_gives_its_newest_weights_or_those_of_a_step(trained, make_run, logged):
    first, _ = trained(train__lr=0.01)
    file = first.checkpoints / "step-00000012.safetensors"
    for name, text, step in (("newest", str(first.path), 12), ("file", str(file), 12), ("early", f"{first.path}@1", 1)):
        begun = Trainer(*make_run(name, train__init=text)).state
        weights = first.model(step=step).denoiser.net.state_dict()
        assert same(begun.net.state_dict(), weights) and same(begun.average.state_dict(), weights)
        assert logged == []
    assert not same(begun.net.state_dict(), first.model().denoiser.net.state_dict())


def test_a_run_keeps_to_the_step_that_it_was_made_with_though_the_other_one_trained_on(trained, make_run):
    first, _ = trained(train__lr=0.01)
    begun, _ = make_run("later", train__init=str(first.path))
    weights = first.model().denoiser.net.state_dict()
    trained(train__lr=0.01, train__length="14 steps")
    assert first.newest_step() == 14
    for text in (first.path, f"{first.path}@12"):
        run, store = make_run("later", train__init=str(text))
        assert run.config.train.init == begun.config.train.init == f"{first.path.resolve()}@12"
    assert same(Trainer(run, store).state.net.state_dict(), weights)
    assert mistake(make_run, "later", train__init=f"{first.path}@14").key == "train.init"


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_a_conditional_run_begins_from_an_unconditional_one_and_names_what_is_new(trained, make_run, logged, hidden):
    first, _ = trained(train__lr=0.01)
    classes = {"model__num_classes": 10, "train__condition_dropout": hidden}
    fresh = Trainer(*make_run("fresh", **classes)).state.net.state_dict()
    run, store = make_run("guided", train__init=str(first.path), **classes)
    begun = Trainer(run, store).state
    assert same(begun.net.state_dict(), first.model().denoiser.net.state_dict())
    assert torch.equal(begun.net.state_dict()["label.weight"], fresh["label.weight"])
    assert torch.equal(begun.average.state_dict()["label.weight"], fresh["label.weight"])
    assert len(logged) == 1 and "label.weight" in logged[0]
    assert Trainer(run, store).run()


def test_a_run_that_tells_of_augmentation_begins_from_one_that_does_not_and_draws_as_it(trained, make_run):
    first, _ = trained(train__lr=0.01)
    run, store = make_run("told", train__init=str(first.path), train__augment=0.5)
    begun = Trainer(run, store).state
    assert same(begun.net.state_dict(), first.model().denoiser.net.state_dict())
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 9])
    with torch.no_grad():
        assert torch.equal(begun.average(x, t), first.model().denoiser.net(x, t))
    assert Trainer(run, store).run() and "augment.weight" in run.model().denoiser.net.state_dict()
    with refusing("train.init", str(run.path)):
        Trainer(*make_run("untold", train__init=str(run.path)))


def test_a_run_without_labels_begins_as_one_by_class_whose_labels_are_hidden(trained, make_run):
    first, _ = trained(train__lr=0.01, model__num_classes=10, train__condition_dropout=0.5)
    begun = Trainer(*make_run("plain", train__init=str(first.path))).state
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0, 9])
    with torch.no_grad():
        hidden = first.model().denoiser.net(x, t, torch.tensor([10, 10]))
        assert torch.allclose(begun.average(x, t), hidden, atol=1e-6)


CLASSES = {"model__num_classes": 10}


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({}, {"model__channels": 16}, "does not fit the network: model.channels is 8 there, 16 here ("),
        ({}, {"model__num_blocks": 2}, "model.num_blocks is 1 there, 2 here"),
        ({}, {"diffusion__learned_variance": True, "loss__objective": "hybrid"}, "learned_variance is False there"),
        (CLASSES, {**CLASSES, "train__condition_dropout": 0.5}, "is 10 there, 11 here"),
        (CLASSES, {}, "is 10 there, 0 here"),
    ],
)
def test_weights_of_another_structure_are_refused_by_their_settings(trained, make_run, there, here, words):
    first, _ = trained(**there)
    raised = mistake(make_run, "second", train__init=str(first.path), **here)
    assert words in str(raised) and "\n" not in str(raised)
    assert not (first.path.parent / "second").exists()


def test_what_is_no_run_and_no_step_is_refused(trained, make_run):
    first, _ = trained()
    folder = first.path.parent
    for text, *fault in (("nowhere", "train.init"), (f"{first.path}@7", "step", 7), (str(folder), "", folder)):
        with refusing(*fault):
            make_run("second", train__init=text)
        assert not (first.path.parent / "second").exists()
