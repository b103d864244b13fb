"""Samples of a model as files, with an animation and a strip of how the first of them came from noise."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unstir.chain import FAST, Chain
from unstir.diffusion.draw import starting_noise
from unstir.errors import UserError
from unstir.generate.drawing import Job, check, steps
from unstir.generate.folder import computing_with, drawn_classes, name_of, save_images, scaled, settings_in
from unstir.group import Alone
from unstir.pictures.animation import MAX_FRAMES, STAGES, Frame, animation_kind, collect, save_animation
from unstir.pictures.animation import strip as strip_of
from unstir.pictures.grid import titled
from unstir.progress import counter, counting
from unstir.runs import sidecar
from unstir.runs.model import Model

NAMES = "grid", "noise", "settings"  # names in a folder of images, besides the numbers of these
LONG = 250  # network calls an image: longer chains than this are not taken without a word


@dataclass(frozen=True)
class Sampled:
    """The ``folder`` of a ``job``'s images, done as it says there, what each of them cost, and the files that are
    ``shown`` of their trajectories."""

    folder: Path
    job: Job
    cost: str
    shown: tuple[Path, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What was written, and its cost."""
        return (
            f"samples  {self.folder / 'grid.png'}",
            f"noise    {self.folder / 'noise.png'}",
            f"images   {self.job.num} in {self.folder}, {self.cost}",
            *(f"shown    {path}" for path in self.shown),
        )


def shorter(model: Model, chain: Chain, given: Collection[str]) -> str:
    """What to say of a long ``chain`` that a run's own settings ask for, where no sampler or steps were ``given``."""
    if model.kind.has_teacher or {"sampler", "steps"} & set(given) or chain.calls(model.process.schedule) <= LONG:
        return ""
    fast = f"sampler={FAST.sampler} with steps={FAST.steps} takes {FAST.steps} calls"
    return f"{model.cost(chain, ' an image')}, as its settings say; {fast}"


def sample(
    model: Model,
    job: Job,
    folder: str | Path | None = None,
    *,
    animation: Path | None = None,
    strip: Path | None = None,
    stages: int | None = None,
    scale: int | None = None,
    group: Alone = Alone(),
    format: str | None = None,
) -> Sampled:
    """Write the images of a job to a folder, as `save_images` does in a ``format``; by default one in RUN/generated.

    The ``animation``, a .webp or .gif file, shows the first 64 images from noise on, x_t next to the estimate of x_0;
    the ``strip``, a .png file, the first 8 at so many ``stages``, by default 11. Grids and these are enlarged by the
    whole number ``scale``, by default such that tiles are at least 48 pixels high. The processes of a ``group`` share
    the work (`unstir.torchrun_group`). Raises UserError, before anything is drawn, where these cannot be written
    or would replace a file that is not theirs, and as `save_images`.
    """
    if stages is not None and not strip:
        raise UserError("stages", stages, "is of a strip", ("name that too", {"stages": None}))
    if stages is not None and stages < 2:
        raise UserError("stages", stages, "must be at least 2, the noise and the image")
    model = scaled(model, scale)
    folder = Path(folder or model.folder / "generated" / f"{name_of(model, job)}{'-npy' * (format == 'npy')}")
    _check("animation", animation, (".webp", ".gif"), folder)
    _check("strip", strip, (".png",), folder)
    model, job = save_images(model, job, folder, group, format)
    if (animation or strip) and group.is_first:
        save_trajectories(model, job, folder, animation, strip, stages)
    return Sampled(folder, job, model.cost(job.chain, " each"), tuple(path for path in (animation, strip) if path))


def _check(key: str, file: Path | None, suffixes: tuple[str, ...], folder: Path) -> None:
    if file is None:
        return
    if file.resolve().parent == folder.resolve() and (file.stem in NAMES or file.stem.isdecimal()):
        raise UserError(key, file, "is the name of a file of the images themselves", "name another")
    sidecar.check(file, key=key, suffixes=suffixes)


MOVING, IN_STRIP = 64, 8  # the first images that an animation and a strip show


def trajectory(model: Model, job: Job, shown: int, *, limit: int = MAX_FRAMES) -> list[Frame]:
    """The trajectory of a job's images 0..shown-1: at most ``limit`` states. Raises UserError as `sample_batches`."""
    check(model, job)
    times, shown = job.chain.visited(model.process.schedule), min(shown, job.num)
    total, parts = -(-shown // job.batch_size) * (len(times) - 1), []
    with counting("drawing trajectories", "steps") as count:
        on_step = counter(count, total)
        for begin in range(0, shown, job.batch_size):
            indices, taken = steps(model, job, begin, on_step)
            x_T = starting_noise(job.chain.seed, torch.tensor(indices), model.shape)
            parts.append([*collect(taken, x_T, times, limit, model.pixels)])
    return [
        Frame(same[0].t, *(torch.cat([getattr(frame, name) for frame in same])[:shown] for name in ("x", "x0")))
        for same in zip(*parts, strict=True)
    ]


def save_trajectories(
    model: Model, job: Job, folder: Path, animation: Path | None, strip: Path | None, stages: int | None
) -> None:
    """Draw the first images once more, exactly as those of the folder, and write their trajectories."""
    stages = stages or STAGES
    limit, settings = max(MAX_FRAMES, stages), settings_in(folder)
    with computing_with(settings["threads"]):
        frames = trajectory(model, job, MOVING if animation else IN_STRIP, limit=limit)
    settings |= {"num": job.num, "frames": len(frames), "cost": model.cost(job.chain)}
    if animation:
        drawn: dict[str, Any] = {"nrow": model.nrow, "scale": model.scale, "kind": animation_kind(animation)}
        write: Callable[[Path], None] = partial(save_animation, frames, **drawn)
        sidecar.save(animation, write, "unstir sample", settings)
    if strip:
        first: list[Frame] = [replace(frame, x=frame.x[:IN_STRIP], x0=frame.x0[:IN_STRIP]) for frame in frames]
        sheet = titled(strip_of(first, stages, model.scale), ", ".join(drawn_classes(model, job, IN_STRIP)))
        sidecar.save(strip, sidecar.png(sheet), "unstir sample", {**settings, "stages": stages})
