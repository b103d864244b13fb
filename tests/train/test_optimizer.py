"""Muon against a decomposition and torch's own, a step that is skipped, and weights laid out channels last."""

import math
import statistics

import pytest
import torch
from torch import nn

from planting import Elsewhere
from unstir.diffusion.arithmetic import layout
from unstir.generate.drawing import Job, sample_batches
from unstir.nn.unet import UNet
from unstir.runs import build, checkpoint
from unstir.runs.run import Run
from unstir.runs.sections import TrainConfig
from unstir.train import optimizer as optimizers
from unstir.train.optimizer import Muon, make_optimizer, matrices, orthogonalised
from unstir.train.trainer import Trainer


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8), (16, 144), (90, 20), (5, 1)])
def test_an_orthogonalised_matrix_keeps_the_directions_and_levels_the_sizes(shape):
    matrices = normal(3, *shape) * torch.tensor([1e-4, 1.0, 300.0])[:, None, None]
    (made,) = orthogonalised([matrices])
    for before, after in zip(matrices, made, strict=True):
        u, s, vh = torch.linalg.svd(before, full_matrices=False)
        in_its_axes = u.mT @ after @ vh.mT
        sizes = in_its_axes.diagonal()
        assert (in_its_axes - sizes.diag()).abs().max() < 1e-3  # the singular vectors stay
        assert sizes[s > 0.01 * before.norm()].aminmax()[0] > 0.6 and sizes.max() < 1.25
    assert torch.equal(orthogonalised([torch.zeros(1, *shape)])[0], torch.zeros(1, *shape))


def test_matrices_of_one_height_are_orthogonalised_together_and_as_alone(monkeypatch):
    groups = [normal(n, *shape, seed=n) for n, shape in enumerate([(8, 9), (30, 8), (8, 72), (5, 5), (9, 5)], 1)]
    alone = [orthogonalised([group])[0] for group in groups]
    calls, each = [], optimizers._factors
    monkeypatch.setattr(optimizers, "_factors", lambda squares: calls.append(squares.shape) or each(squares))
    for one, made, group in zip(alone, orthogonalised(groups), groups, strict=True):
        assert made.shape == group.shape and (made - one).abs().max() < 1e-5
    assert sorted(calls) == [(6, 8, 8), (9, 5, 5)]


def plainly(x):
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_factors_of_five_iterations_give_what_the_iterations_give(precision):
    hardly = normal(2, 32, 3) @ normal(2, 3, 288, seed=1) + 1e-4 * normal(2, 32, 288, seed=2)
    matrices = torch.cat([normal(2, 32, 288, seed=3), hardly, normal(1, 32, 1, seed=4) @ normal(1, 1, 288, seed=5)])
    expected = plainly((matrices / matrices.flatten(1).norm(dim=1)[:, None, None]).double())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        (made,) = orthogonalised([matrices])
    finally:
        torch.set_float32_matmul_precision(before)
    assert made.dtype == matrices.dtype
    assert ((made - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max() < 3e-4


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has its own Muon from 2.9 on")
def test_steps_are_those_of_torchs_own_muon():
    ours, theirs = ([torch.nn.Parameter(normal(12, 30)), torch.nn.Parameter(normal(30, 7))] for _ in range(2))
    adam = torch.optim.AdamW([torch.nn.Parameter(normal(1))], lr=0.02, weight_decay=0.1, fused=True)
    adam.param_groups[0]["params"][0].grad = torch.zeros(1)
    own = Muon(ours, adam)
    known = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    before = [p.detach().clone() for p in ours]
    for step in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = normal(*a.shape, seed=step)
            b.grad = a.grad.clone()
        own.step()
        known.step()
    for old, a, b in zip(before, ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * (a - old).norm()  # theirs multiplies in bfloat16


def test_convolutions_within_are_moved_by_muon_and_all_else_by_adamw(make_run):
    trainer = Trainer(*make_run("muon", train__optimizer="muon", model__num_classes=10, train__augment=0.1))
    net, optimizer = trainer.state.net, trainer.state.optimizer
    moved, rest = (group["params"] for group in optimizer.param_groups)
    assert sum(map(len, (moved, rest))) == len(set(map(id, [*moved, *rest]))) == len(list(net.parameters()))
    named = dict(net.named_parameters())
    mine = matrices(net).keys()
    assert {id(named[name]) for name in mine} == set(map(id, moved))
    ends = ("input_conv.", "output_conv.", "label.", "augment.", "time.table")
    assert mine == {name for name, p in named.items() if p.ndim > 1 and not name.startswith(ends)}
    assert len(mine) > 5 and net.augment
    trainer.take_step()
    assert {key for p in moved for key in optimizer.state[p]} == {"momentum_buffer"}
    assert {key for p in rest for key in optimizer.state[p]} == {"step", "exp_avg", "exp_avg_sq"}
    assert all(group["lr"] == pytest.approx(2e-4 / 3) for group in optimizer.param_groups)


class Own(torch.nn.Module):
    """A network that is no U-Net: a table tied to its last layer, places as a bare parameter, other names."""

    def __init__(self):
        super().__init__()
        self.input, self.middle, self.table = torch.nn.Conv2d(1, 8, 2), torch.nn.Linear(8, 8), torch.nn.Embedding(9, 8)
        self.places, self.last = torch.nn.Parameter(torch.zeros(16, 8)), torch.nn.Linear(8, 9)
        self.last.weight = self.table.weight
        self.output = torch.nn.Linear(8, 4)


def test_of_another_network_the_inner_layers_alone_are_muons():
    assert list(matrices(Own())) == ["middle.weight"]


def test_an_update_has_the_size_of_adams(make_run):
    trainer = Trainer(*make_run("muon", train__optimizer="muon", train__warmup="0 steps", train__lr=0.01))
    matrices = [p for p in trainer.state.optimizer.param_groups[0]["params"] if min(p.flatten(1).shape) >= 8]
    for _ in range(3):  # the last convolution of each branch begins at zero, and no gradient passes it
        before = [p.detach().clone() for p in matrices]
        trainer.take_step()
    sizes = [((p - old).square().mean().sqrt() / 0.01).item() for p, old in zip(matrices, before, strict=True)]
    assert max(sizes) < 0.25 and min(sizes) > 0.05  # 0.2 for a momentum of full rank
    assert statistics.median(sizes) == pytest.approx(0.17, abs=0.05)


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
def test_a_step_that_is_not_finite_changes_nothing(kind):
    net = make_small()
    optimizer = make_optimizer(net, TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.1))
    for bad in (math.nan, 0.0, math.nan, 0.0):
        before = [p.detach().clone() for p in net.parameters()]
        kept = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in net.parameters()}
        for p in net.parameters():
            p.grad = torch.full_like(p, 0.1 + bad)
        optimizer.found_inf = torch.tensor(float(math.isnan(bad))).as_subclass(kind)
        optimizer.step()
        same = [torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)]
        assert all(same) if math.isnan(bad) else not any(same)
        assert all("momentum_buffer" in optimizer.state[p] for p in optimizer.param_groups[0]["params"])  # to be saved
        if math.isnan(bad):
            nothing = torch.zeros(())  # what a momentum or moment begins with
            moments = [(v, kept[p].get(k, nothing)) for p in net.parameters() for k, v in optimizer.state[p].items()]
            assert all(torch.equal(after, old.expand_as(after)) for after, old in moments)


def make_small():
    from unstir.nn.config import UNetConfig

    torch.manual_seed(0)
    return UNet(UNetConfig(in_channels=1, channels=8, mults=(1, 2), num_blocks=1, groups=4))


def test_a_network_of_inner_matrices_alone_leaves_nothing_to_adamw():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.Conv2d(8, 1, 3, bias=False))
    optimizer = make_optimizer(net, TrainConfig(optimizer="muon", lr=0.01))
    before = [p.detach().clone() for p in net.parameters()]
    net(normal(2, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    assert all((new - old).abs().max() > 1e-4 for new, old in zip(net.parameters(), before, strict=True))
    assert len(matrices(net)) == 2 and optimizer.state_dict()["param_groups"][1]["params"] == []


@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.0), ("adamw", 0.1), ("muon", 0.1)])
def test_every_setting_reaches_adam(optimizer, decay):
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    settings = {"lr": 0.01, "beta1": 0.8, "beta2": 0.7, "adam_eps": 1e-5, "weight_decay": decay}
    group = make_optimizer(net, TrainConfig(optimizer=optimizer, **settings)).param_groups[-1]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.01, (0.8, 0.7), 1e-5, decay)


LEVERS = {
    "train__optimizer": "muon", "train__power_ema": True, "train__activation_checkpointing": 2, "model__attention": [1],
}  # fmt: skip
CHANGES = pytest.mark.parametrize("changes", [{"train__optimizer": "adamw"}, LEVERS], ids=["adam", "muon"])


@pytest.fixture
def channels_last(monkeypatch):
    """channels_last(True) lays out as on CUDA what is built from then on, channels_last(False) as on the CPU."""

    def lay_out(so):
        monkeypatch.setattr(build, "layout", lambda device: layout(torch.device("cuda")) if so else layout(device))

    return lay_out


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def steps(make_run, name, num, **changes):
    """Make the run, or go on with it, for ``num`` steps, and save. Returns the trainer and what was saved."""
    run, store = make_run(name, **changes)
    trainer = Trainer(run, store)
    for _ in range(num):
        trainer.take_step()
    path = checkpoint.save(run.checkpoints, trainer.state.copied(run)())
    return trainer, checkpoint.load(path).tensors


def close(one, other, atol):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=atol, rtol=1e-4, msg=lambda text, at=name: f"{at}: {text}")


@CHANGES
def test_files_are_the_same_bytes_and_training_the_same_but_for_rounding(make_run, channels_last, changes):
    begun, after = [], []
    for so in (False, True):
        channels_last(so)
        trainer, tensors = steps(make_run, f"run{so}", 0, **changes)
        begun.append(tensors)
        kernels = [
            m.weight for m in trainer.state.net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]
        assert {is_channels_last(weight) for weight in kernels[1:]} == {so}  # the first one's images have one channel
        after.append(steps(make_run, f"run{so}", 3, **changes)[1])
    assert checkpoint.content_hash(begun[0]) == checkpoint.content_hash(begun[1])
    moved = max(float((after[0][name] - t).abs().max()) for name, t in begun[0].items())
    assert moved > 1e-4
    close(after[1], after[0], atol=moved * 1e-2)


@CHANGES
def test_an_interrupted_run_continues_exactly(make_run, channels_last, changes):
    channels_last(True)
    whole = steps(make_run, "whole", 6, **changes)[1]
    for num in (3, 2, 1):
        parts = steps(make_run, "parts", num, **changes)[1]
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


@CHANGES
def test_a_run_may_change_its_layout_as_it_does_from_one_device_to_another(make_run, channels_last, changes):
    """The moments that were saved belong to the numbers that they belonged to, in whatever order these lie."""
    found = []
    for name, orders in (("one", [False, False]), ("to", [False, True]), ("fro", [True, False])):
        for so in orders:
            channels_last(so)
            trainer, tensors = steps(make_run, name, 3, **changes)
        found.append(tensors)
        for parameter in trainer.state.net.parameters():
            for moment in trainer.state.optimizer.state[parameter].values():
                assert moment.shape != parameter.shape or moment.stride() == parameter.stride()
    for other in found[1:]:
        close(other, found[0], atol=1e-5)


def test_images_are_those_of_the_other_layout_and_lie_as_ever(run, channels_last):
    drawn, hashes = [], set()
    for so in (False, True):
        channels_last(so)
        model = Run.open(run.path).model(device="cpu")
        kernel = model.denoiser.net.middle.blocks[0].first_conv.weight
        assert is_channels_last(kernel) == so
        drawn += [images for _, images in sample_batches(model, Job(num=4, chain=run.chain(), batch_size=4))]
        hashes.add(model.weights_sha256)
    assert all(images.is_contiguous() for images in drawn) and len(hashes) == 1
    torch.testing.assert_close(*drawn, atol=1e-3, rtol=0)
