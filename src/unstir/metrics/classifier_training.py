"""How the classifier of a store learns: Adam on cross-entropy, its state saved as it goes so that a kill costs seconds.

The state (weights, moments, steps done) is one safetensors file with a hash of its content, replaced whole every
`KEPT_EVERY` steps. It names everything that decides the result; a file of anything else is left unread, and training
begins at the start. Continued or not, the weights are the same to the bit.
"""

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unstir import randomness
from unstir.errors import UserError
from unstir.metrics.reference import NOT_KEPT, keep, kept
from unstir.pixels import from_uint8
from unstir.progress import Progress
from unstir.randomness import Key

BATCH, TIMED_STEPS = 64, 4
KEPT_EVERY = 100  # steps between two states: 6,400 images, some seconds of one core at 32x32
_RATE, _WARMUP = 6e-3, 0.1


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned: ``images`` uint8 [N, C, H, W] with ``labels`` int64 [N], in ``steps`` steps of `BATCH` images.

    The order and the shifts of the images are a function of ``seed``. ``data`` is the content hash of the store.
    """

    images: Tensor
    labels: Tensor
    steps: int
    seed: int
    data: str
    version: int

    def identity(self, step: int) -> str:
        """All that decides the state after ``step`` steps, as JSON."""
        values = {key: getattr(self, key) for key in ("version", "data", "seed", "steps")}
        where = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        return json.dumps({**values, **where, "step": step}, sort_keys=True)


def learn(net: nn.Module, lesson: Lesson, kept: Path | None = None, progress: Progress | None = None) -> None:
    """Train ``net`` in place, from the state in the file ``kept`` if it is this lesson's; ``progress`` counts images.

    A state that cannot be written (a full disk, a missing right) is done without.
    """
    optimizer, order, begin = _begun(net, lesson, kept)
    for step in range(begin, lesson.steps):
        _step(net, optimizer, lesson, step, order[step])
        if progress is not None:
            progress((step + 1) * BATCH, lesson.steps * BATCH)
        if kept is not None and (step + 1) % KEPT_EVERY == 0 and step + 1 < lesson.steps:
            tensors = net.state_dict(prefix="net.")
            for number, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
            with suppress(UserError):
                keep(kept, "lesson", lesson.identity(step + 1), tensors, durable=False)


def seconds(net: nn.Module, lesson: Lesson, kept: Path | None = None) -> float:
    """How long `learn` will take from where it stands, by a few steps on a ``net`` that is spoilt by it."""
    optimizer, order, done = _begun(net, lesson, kept)
    _step(net, optimizer, lesson, 0, order[0])  # warm up
    began = time.perf_counter()
    for step in range(TIMED_STEPS):
        _step(net, optimizer, lesson, step, order[step % len(order)])
    return (time.perf_counter() - began) / TIMED_STEPS * (lesson.steps - done)


def _begun(net: nn.Module, lesson: Lesson, kept: Path | None) -> tuple[torch.optim.Optimizer, tuple[Tensor, ...], int]:
    """The optimizer, the images of each step, int64 [BATCH], in epochs of random order, and the steps done before."""
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
    epochs, num = range(math.ceil(lesson.steps * BATCH / len(lesson.images))), len(lesson.images)
    seen = lesson.steps * BATCH
    order = torch.cat([randomness.Order(lesson.seed, "classifier order", epoch, num)[:seen] for epoch in epochs])
    done = 0 if kept is None else _load(kept, net, optimizer, lesson)
    return optimizer, torch.split(order[:seen], BATCH), done


def _step(net: nn.Module, optimizer: torch.optim.Optimizer, lesson: Lesson, step: int, index: Tensor) -> None:
    rise, fall = (step + 1) / (_WARMUP * lesson.steps), 1 + math.cos(math.pi * step / lesson.steps)
    optimizer.param_groups[0]["lr"] = _RATE * (min(rise, 1.0) * 0.5 * fall)  # linear warm-up under a cosine
    x = from_uint8(moved(lesson.images[index], lesson.seed, step))
    loss = nn.functional.cross_entropy(net(x), lesson.labels[index])
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def moved(images: Tensor, seed: int, step: int) -> Tensor:
    """A batch uint8 [B, C, H, W], each image shifted by up to an eighth of its side, its rim reflected into the gap.

    By how much is a function of (seed, step, place in the batch).
    """
    B, C, H, W = images.shape
    slots = torch.arange(B)
    rows, columns = (
        _reflected(torch.arange(n) + randomness.integers(Key(seed, name, step, slots), -(n // 8), n // 8)[:, None], n)
        for name, n in (("classifier rows", H), ("classifier columns", W))
    )
    batch, channels = slots[:, None, None, None], torch.arange(C)[None, :, None, None]
    return images[batch, channels, rows[:, None, :, None], columns[:, None, None, :]]


def _reflected(index: Tensor, n: int) -> Tensor:
    """Indices from -n + 1 to 2 n - 2 folded into 0..n-1 about the first and the last: -1 is 1, n is n - 2."""
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _load(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, lesson: Lesson) -> int:
    """Put net and optimizer where the file left them and return the steps done; 0 where it is not this lesson's."""
    try:
        text, tensors = kept(path, "lesson")
        step = int(json.loads(text)["step"])
        if text != lesson.identity(step) or {name: tuple(t.shape) for name, t in tensors.items()} != _shapes(net):
            return 0
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                state.setdefault(int(number), {})[key] = value
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return step
    except NOT_KEPT:
        return 0


def _shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a state: the network's, and Adam's of each of its parameters."""
    shapes = {f"net.{name}": tuple(value.shape) for name, value in net.state_dict().items()}
    for number, parameter in enumerate(net.parameters()):
        own = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
        shapes |= {f"optimizer.{number}.{name}": shape for name, shape in own.items()}
    return shapes
