"""How the first images of a job came from noise, as an animation and a strip."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from unstir.diffusion.draw import starting_noise
from unstir.generate.drawing import Job, check, steps
from unstir.generate.folder import computing_with, drawn_classes, settings_in
from unstir.pictures.animation import MAX_FRAMES, STAGES, Frame, animation_kind, collect, save_animation
from unstir.pictures.animation import strip as strip_of
from unstir.pictures.grid import titled
from unstir.progress import counter, counting
from unstir.runs import sidecar
from unstir.runs.model import Model

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
    """Draw the first images of the folder once more, and write their trajectories."""
    stages = stages or STAGES
    settings = settings_in(folder)
    with computing_with(settings["threads"]):
        frames = trajectory(model, job, MOVING if animation else IN_STRIP, limit=max(MAX_FRAMES, stages))
    settings |= {"num": job.num, "frames": len(frames), "cost": model.cost(job.chain)}
    if animation:
        kind = animation_kind(animation)
        write = partial(save_animation, frames, kind=kind, nrow=model.nrow, scale=model.scale)
        sidecar.save(animation, write, "unstir sample", settings)
    if strip:
        first = [replace(frame, x=frame.x[:IN_STRIP], x0=frame.x0[:IN_STRIP]) for frame in frames]
        sheet = titled(strip_of(first, stages, model.scale), ", ".join(drawn_classes(model, job, IN_STRIP)))
        sidecar.save(strip, sidecar.png(sheet), "unstir sample", {**settings, "stages": stages})
