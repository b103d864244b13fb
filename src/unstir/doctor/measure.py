"""What must be computed for a run: images drawn, errors of its weights, bytes that training takes."""

import shutil

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import FAST
from unstir.data import Store
from unstir.diffusion.denoiser import autocast
from unstir.diffusion.loss import denoising_loss
from unstir.doctor.facts import Errors, Needs, Samples, SavedFile
from unstir.errors import UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.nn.unet import UNet, flops
from unstir.pixels import from_uint8, to_uint8
from unstir.progress import Progress, counter
from unstir.randomness import Key
from unstir.runs import build, memory
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.loading import model_of
from unstir.runs.run import Run
from unstir.runs.timetable import snapshots

MOST_IMAGES, FEWEST_IMAGES, WORK = 64, 16, 1.5e12  # floating-point operations; some 20 s of two cores
REAL_IMAGES = 2048
ERROR_IMAGES = 256


def affordable(run: Run, calls: int, most: int) -> int:
    """How many images, FEWEST_IMAGES to ``most``, take about WORK operations at ``calls`` network calls per image."""
    each = flops(build.network_config(run.config), *run.data.shape[1:]) * calls
    return max(FEWEST_IMAGES, min(most, int(WORK / each)))


def draw_samples(run: Run, loaded: Checkpoint, store: Store, progress: Progress) -> Samples:
    """Images from the averaged weights by a fast sampler, with real ones to compare; ``progress`` counts steps."""
    steps = min(FAST.steps, run.config.diffusion.T)
    num = affordable(run, steps, MOST_IMAGES)
    chain = FAST.changed(steps=steps)
    job = Job(num=num, chain=chain, batch_size=num)
    model = model_of(run, loaded, dtype="auto")
    images = torch.cat([x for _, x in sample_batches(model, job, on_step=counter(progress, steps))])
    words = f"{num} images by {chain.sampler} in {steps} steps from step {loaded.step}"
    return Samples(to_uint8(images), _real(run, store, num), words)


def _real(run: Run, store: Store, num: int) -> Tensor:
    """Training images, of each class as often as among ``num`` samples where the network has labels."""
    order = randomness.permutation(0, "doctor", 0, store.count("train"))
    labels = store.labels("train") if run.config.model.num_classes else None
    drawn = run.labels.of(torch.arange(num))
    if labels is None or drawn is None:
        return store.images("train")[order[:REAL_IMAGES]]
    each = max(1, REAL_IMAGES // num)
    chosen = []
    for label, count in enumerate(torch.bincount(drawn, minlength=run.config.model.num_classes).tolist()):
        of_class = order[labels[order] == label]
        wanted = torch.arange(count * each) % max(len(of_class), 1)  # a small class is repeated
        chosen.append(of_class[wanted] if len(of_class) else of_class)
    return store.images("train")[torch.cat(chosen)]


@torch.inference_mode()
def squared_errors(run: Run, loaded: Checkpoint, store: Store) -> Errors:
    """The errors of raw and averaged weights on the same training images, times (stratified over 1..T) and noise."""
    num = min(affordable(run, 2, ERROR_IMAGES), store.count("train"))
    index = randomness.permutation(0, "doctor errors", 0, store.count("train"))[:num]
    labels = store.labels("train") if run.config.model.num_classes else None
    slots = torch.arange(num)
    T = run.config.diffusion.T
    t = 1 + (slots * T) // num
    found: dict[bool, Tensor] = {}
    full = loaded.kind == "full"
    averaged = run.config.train.ema_decay > 0 if full else loaded.ema
    for ema in [False, True] if full and averaged else [averaged]:
        model = model_of(run, loaded, ema=ema)
        device = model.device
        errors = []
        for part in torch.split(slots, 64):
            x_0 = from_uint8(store.images("train")[index[part]].to(device))
            eps = randomness.normal(Key(0, "doctor noise", 0, part.to(device)), run.data.shape)
            label = None if labels is None else labels[index[part]].to(device)
            errors.append(denoising_loss(model.denoiser, x_0, t[part].to(device), eps, label).mse.double().cpu())
        found[ema] = torch.cat(errors)
    return Errors(found.get(False), found.get(True))


def needs(run: Run, files: tuple[SavedFile, ...], step: int) -> Needs:
    """The bytes of training, and of files to come from ``step`` on, and what the machine has."""
    cfg = run.config
    num, copies = memory.parameters(cfg), memory.copies(cfg)
    try:
        device = build.device(cfg.train.device)
    except UserError:  # a device of another machine
        device = torch.device("cpu")
    full, slim = 4 * num * (copies - 1), 4 * num  # gradients are not saved
    there = sum(file.kind == "full" for file in files)
    pictures = sum(at > step for at in snapshots(run))
    more = max(cfg.checkpoint.keep - there, 0) + 1  # a new file is whole before the oldest goes
    micro = cfg.train.micro_batch or cfg.train.batch_size
    return Needs(
        weights=4 * num * copies,
        activations=activations(run) * micro,
        memory=memory.memory(device),
        disk=shutil.disk_usage(run.path).free,
        files=0 if step >= run.length else full * more + slim * pictures,
        device=str(device),
    )


def activations(run: Run) -> int:
    """Bytes that the backward pass keeps of one image: what two images keep less what one keeps, on the CPU.

    The difference leaves out what is kept once however large the batch, such as weights cast to bfloat16.
    """
    net = build.network(run.config, torch.device("cpu")).train()
    return _kept(run, net, 2) - _kept(run, net, 1)


def _kept(run: Run, net: UNet, num: int) -> int:
    """Bytes of the tensors that a training pass of ``num`` images keeps for its backward pass, each counted once."""
    kept: dict[int, Tensor] = {}  # kept alive until counted, so that no address is reused

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    slots = torch.arange(num)
    options = {"dropout_key": Key(0, "doctor dropout", 0, slots)} if run.config.model.dropout else {}
    arithmetic = {"bfloat16": torch.bfloat16}.get(run.config.train.dtype, torch.float32)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        autocast(torch.device("cpu"), arithmetic),
    ):
        net(torch.zeros(num, *run.data.shape), slots, slots * 0 if net.config.num_classes else None, **options)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def learns_nothing(run: Run, mean: float, std: float) -> float:
    """The squared error of the best denoiser that knows only the mean and the variance of all values, over all times.

    With x_0 ~ N(mean, std^2), V = Var(x_0 | x_t) = std^2 sigma^2 / (alpha^2 std^2 + sigma^2); the error is V of the
    image, alpha^2 / sigma^2 V of the noise and V / sigma^2 of the velocity, each a linear function of x_0 given x_t.
    """
    a, s = _squares(run)
    var = std**2 * s / (a * std**2 + s)
    return ({"x0": var, "eps": a / s * var, "v": var / s}[run.config.diffusion.predict]).mean().item()


def outputs_nothing(run: Run, mean: float, std: float) -> float:
    """The squared error of a network whose output is 0, as that of its initial weights is: E[target^2].

    1 for the noise, mean^2 + std^2 for the image, and their mixture for the velocity.
    """
    power = mean**2 + std**2
    a, s = _squares(run)
    return {"x0": power, "eps": 1.0, "v": (a + s * power).mean().item()}[run.config.diffusion.predict]


def _squares(run: Run) -> tuple[Tensor, Tensor]:
    """alpha_t^2 and sigma_t^2 at t = 1..T, float64."""
    schedule = build.schedule(run.config.diffusion)
    abar = torch.tensor([schedule.abar(t) for t in range(1, schedule.T + 1)], dtype=torch.float64)
    sigma = torch.tensor([schedule.sigma(t) for t in range(1, schedule.T + 1)], dtype=torch.float64)
    return abar, sigma.square()
