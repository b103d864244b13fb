"""What only a GPU can show: a step does not wait for it, and training and images are the same bits each time.

`bash benchmarks/gpu.sh` runs this file on a machine that has one.
"""

import pytest
import torch
from variety import VARIETY

from unstir.diffusion.arithmetic import kernels
from unstir.generate.drawing import Job, sample_batches
from unstir.pixels import to_uint8
from unstir.runs import checkpoint
from unstir.runs.build import lacking
from unstir.runs.run import Run
from unstir.train import levers
from unstir.train.observer import Stop
from unstir.train.state import State
from unstir.train.trainer import Trainer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CHANGES = pytest.mark.parametrize("changes", VARIETY.values(), ids=VARIETY)
WAYS = [("float32", "no"), ("bfloat16", "no"), ("bfloat16", "yes"), ("bfloat16", "graphs")]
COMPILED = [pytest.mark.skipif(bool(lacking(CUDA)), reason="no compiler"), pytest.mark.filterwarnings("ignore")]
COMPUTED = pytest.mark.parametrize(
    ("dtype", "compile"), [pytest.param(*way, marks=COMPILED if way[1] != "no" else ()) for way in WAYS]
)


@pytest.fixture
def on_cuda(make_run):
    """on_cuda("name", **changes) -> the trainer of a tiny run on the GPU, made or continued."""

    def trainer(name="run", **changes):
        return Trainer(*make_run(name, **{"train__device": "cuda", "train__dtype": "auto"} | changes))

    return trainer


def final(trainer):
    """All tensors of the last checkpoint of a run that is trained to its end."""
    trainer.run()
    return checkpoint.newest(trainer._run.checkpoints)[0].tensors


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


@CHANGES
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_step_does_not_wait_for_the_device(on_cuda, changes, resident, monkeypatch):
    monkeypatch.setattr(levers, "_fits", lambda images, device: resident)
    trainer = on_cuda(**changes)
    trainer.take_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            trainer.state.window.tolist()  # it is noticed
        for _ in range(trainer._batches.steps_per_epoch + 1):  # into the next epoch, whose order is drawn
            trainer.take_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def stopped(trainer, at):
    """Train to a step, save and end, as a signal would have it."""
    stop = Stop()
    while trainer.state.step < at:
        trainer.take_step()
    stop.request(2)
    trainer.run(stop)


@CHANGES
def test_it_is_the_same_each_time_and_continues_bit_for_bit(on_cuda, changes):
    for at in (3, 7):
        stopped(on_cuda("parts", **changes), at)
    whole = final(on_cuda("whole", **changes))
    assert_same(final(on_cuda("again", **changes)), whole)
    assert_same(final(on_cuda("parts", **changes)), whole)


@COMPUTED
def test_so_it_does_in_every_type_and_way_of_compiling(on_cuda, dtype, compile):
    changes = {"train__dtype": dtype, "train__compile": compile, "model__attention": [1], "train__length": "6 steps"}
    stopped(on_cuda("parts", **changes), 3)
    torch.compiler.reset()  # as in another process
    parts = final(on_cuda("parts", **changes))
    torch.compiler.reset()
    assert_same(final(on_cuda("whole", **changes)), parts)


def test_it_is_said_by_what_kernels_a_run_was_computed(on_cuda):
    trainer = on_cuda(train__length="2 steps")
    trainer.run()
    found, _ = checkpoint.newest(trainer._run.checkpoints)
    assert found.environment["kernels"] == kernels(CUDA) and "repeatable" in kernels(CUDA)
    assert found.environment["device"] == f"cuda {torch.cuda.get_device_name()}"
    assert not torch.are_deterministic_algorithms_enabled()  # left as it was


def test_weights_lie_channels_last_and_are_those_of_the_cpu_in_a_file(make_run, tmp_path):
    run, _ = make_run()
    hashes = set()
    for device in (CPU, CUDA):
        state = State.initial(run, device)
        weight = state.net.middle.blocks[0].first_conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (device == CUDA)
        saved = checkpoint.load(checkpoint.save(tmp_path / device.type, state.to_slim(run)))
        hashes.add(checkpoint.content_hash(saved.tensors))
    assert len(hashes) == 1


def test_a_checkpoint_is_of_the_moment_that_it_was_asked_for(on_cuda):
    trainer = on_cuda()
    for _ in range(2):
        trainer.take_step()
    before = {name: t.to("cpu", copy=True) for name, t in trainer.state.net.state_dict().items()}
    moment = trainer.state.copied(trainer._run)
    for _ in range(4):
        trainer.take_step()
    assert_same(moment().part("model"), before)


@CHANGES
def test_training_is_that_of_the_cpu_but_for_rounding(on_cuda, changes, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    runs = [on_cuda(name, **changes, train__device=name, train__dtype="float32") for name in ("cpu", "cuda")]
    for trainer in runs:
        for _ in range(3):
            trainer.take_step()
    ours, theirs = (trainer.state.copied(trainer._run)().part("model") for trainer in runs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(tensor, ours[name], atol=1e-4, rtol=1e-3, msg=lambda text, at=name: f"{at}: {text}")


def drawn(model, num=8, batch_size=8, **changes):
    """Images as bytes, by the model's own chain."""
    job = Job(num=num, chain=model.chain.changed(**changes), batch_size=batch_size)
    return torch.cat([to_uint8(images).cpu() for _, images in sample_batches(model, job)])


@COMPUTED
def test_images_are_the_same_each_time(trained, dtype, compile):
    run, _ = trained(model__attention=[1])
    made = []
    for _ in range(2):
        torch.compiler.reset()
        model = Run.open(run.path).model(device="cuda", dtype=dtype, compile=compile)
        made += [drawn(model), drawn(model)]
    assert all(torch.equal(each, made[0]) for each in made[1:])
    assert "repeatable" in model.provenance()["kernels"]


def test_images_are_those_of_the_cpu_and_of_other_batches_but_for_rounding(trained, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    run, _ = trained(model__attention=[1])
    there, here = (run.model(device=device) for device in ("cuda", "cpu"))
    whole = drawn(there).int()
    assert (drawn(there, batch_size=3).int() - whole).abs().max() <= 1
    assert (drawn(here).int() - whole).abs().max() <= 1


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpmpp_2m_sde", "unipc", "heun"])
def test_every_kind_of_sampler_draws_on_it(run, sampler):
    model = run.model(device="cuda")
    assert torch.equal(drawn(model, sampler=sampler, steps=4), drawn(model, sampler=sampler, steps=4))
