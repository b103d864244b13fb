"""What is timed: each part sets all sides to the same work and lets them take turns."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch

from peers import of_diffusers, of_lucidrains, ours
from peers.kept import changed
from peers.limit import measured_rate
from peers.sizes import IMAGES, Size, T
from peers.tables import DIFFUSERS, LUCIDRAINS, OURS, Section
from peers.timing import Contestant, in_turns
from unstir.runs.build import has_native_bfloat16

TORCH = "torch"
DEFAULT = "its default"
TRAINING = 3  # forward passes that a training step costs


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How all parts are timed: ``name`` of `SIZES` with its ``size``, and ``folder`` with images/ and store/ in it.

    ``calls`` of our chain give the quality of T steps of the peers' default. ``ema`` lets every side average its
    weights at each step; ``compiled`` adds ours compiled, and diffusers with channels-last and compiled; ``changes``
    are settings of our run by dotted keys.
    """

    name: str
    size: Size
    device: torch.device
    folder: Path
    rounds: int
    calls: int
    ema: bool = False
    compiled: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def native(self) -> bool:
        """Whether bfloat16 is worth a setting of its own: where it is emulated it takes a hundred times as long."""
        return has_native_bfloat16(self.device)

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "bfloat16") if self.native else ("float32",)

    @cached_property
    def limits(self) -> dict[str, float]:
        """FLOP/s of the machine's fastest products and convolutions, by dtype."""
        return {dtype: measured_rate(self.device, getattr(torch, dtype), 0.5) for dtype in self.dtypes}

    @property
    def few(self) -> int:
        """The rounds of what takes long."""
        return min(self.rounds, max(3, self.rounds // 3))

    @cached_property
    def store(self) -> Any:
        return ours.store_of(self.folder / "images", self.folder / "store")

    def finish(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def images(self, num: int) -> torch.Tensor:
        return torch.rand(num, *self.size.shape, device=self.device) * 2 - 1

    @property
    def how(self) -> str:
        """How our network is compiled at its fastest."""
        return "graphs" if self.device.type == "cuda" else "yes"

    def trainer(self, dtype: str, how: str = "no", **changes: Any) -> Any:
        """A run of ours that computes in ``dtype``, in a folder of its own; ``how`` it is compiled.

        ``changes`` are settings of [train].
        """
        of_train = {f"train.{key}": value for key, value in changes.items()}
        config = ours.settings(self.size, self.device, dtype, self.ema)
        config = changed(config, {"train.compile": how, **self.changes, **of_train})
        number = len(list(self.folder.iterdir()))
        return ours.trainer_of(self.folder / f"run-{number}", self.store, config)

    def timed(self, title: str, note: str, contestants: list[Contestant], base: str, rounds: int = 0) -> Section:
        warm_up = 1 if self.device.type == "cpu" else 3
        rows = in_turns(contestants, rounds or self.rounds, finish=self.finish, warm_up=warm_up)
        of = next(row for row in rows if row.contestant.side == base)
        return Section(title, f"{self.size}, {self.device}", note, rows, of, self.limits)


@cache
def forward_flops(side: str, size: Size) -> int:
    """Operations of a forward pass of one image, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    net = {DIFFUSERS: of_diffusers, LUCIDRAINS: of_lucidrains}[side].network(size, torch.device("cpu"))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.to("meta").eval()(torch.zeros(1, *size.shape), torch.zeros(1, dtype=torch.int64))
    return int(counter.get_total_flops())


def training(on: Setting) -> Section:
    """A training step of each side, each with a network and an optimiser of its own."""
    size, x_0, best = on.size, on.images(on.size.batch), on.dtypes[-1]
    contestants = [trained(on, OURS, on.trainer("auto").take_step, best, DEFAULT)]
    if on.native:
        contestants.append(trained(on, OURS, on.trainer("float32").take_step, "float32"))
    if on.compiled:
        contestants.append(trained(on, OURS, on.trainer("auto", on.how).take_step, best, f"compiled ({on.how})"))

    def of_diffusers_in(dtype: str, how: str, compiled: bool = False) -> Contestant:
        net, given = of_diffusers.network(size, on.device), x_0
        if compiled:
            net, given = net.to(memory_format=torch.channels_last), x_0.to(memory_format=torch.channels_last)
            net.compile()
        low, fused = dtype == "bfloat16", "fused" in how
        training = of_diffusers.Training(net, autocast=low, fused=fused, ema=on.ema)
        return trained(on, DIFFUSERS, partial(training.step, given), dtype, how)

    contestants += [of_diffusers_in("float32", DEFAULT), of_diffusers_in("float32", "fused")]
    if on.native:
        contestants.append(of_diffusers_in("bfloat16", "fused"))
    if on.compiled:
        contestants.append(of_diffusers_in(best, "fused, channels-last, compiled", compiled=True))
    for dtype in on.dtypes:
        net = of_lucidrains.network(size, on.device)
        step = of_lucidrains.step_of(net, x_0, autocast=dtype == "bfloat16", ema=on.ema)
        contestants.append(trained(on, LUCIDRAINS, step, dtype, DEFAULT if dtype == "float32" else ""))
    return on.timed("Training step", _about_training(on), contestants, DIFFUSERS)


def _about_training(on: Setting) -> str:
    other = of_lucidrains.network(on.size, torch.device("meta"))
    forward, theirs = (forward_flops(side, on.size) / 1e9 for side in (DIFFUSERS, LUCIDRAINS))
    return (
        f"Noising, forward, backward, clipping at norm 1, AdamW{', an average of the weights' * on.ema}, with dropout. "
        "Ours takes its batch from the packed store besides, and logs. Ours and diffusers' are one structure, with "
        f"{forward:.3g} GFLOP for the forward pass of an image; {LUCIDRAINS}'s own network of this width has "
        f"{theirs:.3g} and {sum(p.numel() for p in other.parameters()):,} parameters."
    )


def trained(on: Setting, side: str, step: Callable[[], object], dtype: str, how: str = "") -> Contestant:
    flops = TRAINING * on.size.batch * forward_flops(_structure(side), on.size)
    return Contestant(side, ", ".join(filter(None, (dtype, how))), step, on.size.batch, flops, dtype)


def inference(on: Setting) -> Section:
    """A forward pass without gradients; each side's weights in the type named."""
    size, x, trainer, contestants = on.size, on.images(on.size.batch), on.trainer("auto"), []

    def entered(side: str, call: Callable[[], object], dtype: str, how: str = "") -> None:
        flops = size.batch * forward_flops(_structure(side), size)
        setting = ", ".join(filter(None, (dtype, how)))
        contestants.append(Contestant(side, setting, call, size.batch, flops, dtype))

    for dtype in on.dtypes:
        model = ours.model_of(trainer, dtype, on.device)
        entered(OURS, ours.forward_of(model, x), dtype, DEFAULT if dtype == "float32" else "")
    for dtype in on.dtypes:
        net = of_diffusers.network(size, on.device).eval().to(getattr(torch, dtype))
        entered(DIFFUSERS, of_diffusers.forward_of(net, x), dtype, DEFAULT if dtype == "float32" else "")
    if on.compiled:
        dtype = on.dtypes[-1]
        call = ours.forward_of(ours.model_of(trainer, dtype, on.device, on.how), x)
        entered(OURS, call, dtype, f"compiled ({on.how})")
        net = of_diffusers.network(size, on.device).eval()
        net = net.to(getattr(torch, dtype), memory_format=torch.channels_last)
        net.compile()
        call = of_diffusers.forward_of(net, x.to(memory_format=torch.channels_last))
        entered(DIFFUSERS, call, dtype, "channels-last, compiled")
    entered(LUCIDRAINS, of_lucidrains.forward_of(of_lucidrains.network(size, on.device).eval(), x), "float32", DEFAULT)
    return on.timed("Inference", "One call of the network without gradients.", contestants, DIFFUSERS)


def _structure(side: str) -> str:
    """The side whose network counts as this one's; ours has the structure of diffusers'."""
    return DIFFUSERS if side == OURS else side


def drawing(on: Setting) -> Section:
    """64 images at equal quality."""
    size, num = on.size, on.size.drawn
    trainer, part = on.trainer("auto"), min(size.calls or on.calls, on.calls)
    contestants: list[Contestant] = []

    def entered(side: str, setting: str, call: Callable[[], object], calls: int, dtype: str = "float32") -> None:
        flops = IMAGES * calls * forward_flops(_structure(side), size)
        times = IMAGES / num * calls / part
        contestants.append(Contestant(side, f"{setting}, {calls} calls", call, IMAGES, flops, dtype, times))

    for dtype, how in [(dtype, "no") for dtype in on.dtypes] + [(on.dtypes[-1], on.how)] * on.compiled:
        model = ours.model_of(trainer, dtype, on.device, how)
        setting = dtype if how == "no" else f"{dtype}, compiled ({how})"
        entered(OURS, setting, ours.drawing_of(model, num, part), on.calls, dtype)
    net = of_diffusers.network(size, on.device).eval()
    solver = of_diffusers.drawing_of(net, num, part, solver=True)
    entered(DIFFUSERS, "DDPMPipeline, its default", of_diffusers.drawing_of(net, num, part, solver=False), T)
    entered(DIFFUSERS, "the same with DPMSolverMultistep", solver, on.calls)
    other = of_lucidrains.network(size, on.device).eval()
    entered(LUCIDRAINS, "its default", of_lucidrains.drawing_of(other, size.side, num, part), T)
    note = (
        f"Ours with {on.calls} calls of the sampler that [sampling.md](sampling.md#how-few-calls-do) measures to be as "
        "good as 1000 ancestral calls, the default of both peers, of trained networks: for digits that of the velocity "
        "and that of the noise, for colour images that of the velocity. All peers in float32. "
        f"{part} calls on {num} images were timed of each, with all that a sampler does around them; the time is that "
        f"of {IMAGES} images and all calls in proportion."
    )
    return on.timed(f"{IMAGES} images at equal quality", note, contestants, DIFFUSERS, on.few)


def data(on: Setting) -> Section:
    """An epoch of batches on the device."""
    size, cores, images = on.size, os.cpu_count() or 1, on.folder / "images"
    count = len(list(images.iterdir()))

    def entered(side: str, setting: str, epoch: Callable[[], Any]) -> Contestant:
        return Contestant(side, setting, lambda: [batch.to(on.device) for batch in epoch()], count)

    contestants = [
        entered(OURS, "packed store", ours.epochs_of(on.store, size, on.device)),
        entered(DIFFUSERS, "its example's loader, its default", of_diffusers.batches_of(images, size, 0)),
        entered(DIFFUSERS, f"the same, {cores} workers", of_diffusers.batches_of(images, size, cores)),
        entered(LUCIDRAINS, f"its Dataset, {cores} workers", of_lucidrains.batches_of(images, size, cores)),
    ]
    note = (
        f"An epoch of {count:,} PNG and JPEG files of {size.side}×{size.side}, mirrored at random. Ours packs them "
        "once, before the first step; the peers decode them in every epoch. Larger files would cost them more."
    )
    return on.timed("Data", note, contestants, DIFFUSERS)


def randomness(on: Setting) -> list[Section]:
    """What a step draws, by our counters and by torch's generator."""
    size = on.size

    def noise() -> object:
        times = torch.randint(1, T + 1, (size.batch,), device=on.device)
        return times, torch.randn(size.batch, *size.shape, device=on.device)

    def masks() -> object:
        return torch.empty(size.batch, size.dropped, device=on.device).bernoulli_(1 - size.dropout)

    pairs = (("Times and noise", ours.noise_of, noise), ("Dropout masks", ours.masks_of, masks))
    note = "Of a batch; ours are the same for an image in whatever batch and on whatever device."
    found = []
    for title, mine, theirs in pairs:
        both = [Contestant(OURS, "", mine(size, on.device), size.batch), Contestant(TORCH, "", theirs, size.batch)]
        found.append(on.timed(title, note, both, TORCH))
    return found


def start(on: Setting) -> Section:
    """From the start of a process to the end of one that has taken its first training step."""
    ours.store_of(on.folder / "images", on.folder / "store")
    here = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}

    def process(side: str) -> Callable[[], object]:
        of = [side, on.name, str(on.size.batch), str(on.device), str(on.folder)]
        what = [sys.executable, "-m", "peers.first_step", *of]
        return lambda: subprocess.run(what, env=environment, check=True, stdout=subprocess.DEVNULL)

    sides = ((OURS, "ours"), (DIFFUSERS, "of_diffusers"), (LUCIDRAINS, "of_lucidrains"), (TORCH, "torch"))
    contestants = [
        Contestant(name, "its import alone" if name == TORCH else "", process(of), on.size.batch) for name, of in sides
    ]
    note = (
        "A fresh process that imports, builds the network, takes one training step and ends. Ours makes the folder of "
        "a run too."
    )
    return on.timed("Start-up", note, contestants, DIFFUSERS, on.few)
