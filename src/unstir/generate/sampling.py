"""Samples of a model as files, with an animation and a strip of how the first of them came from noise."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from unstir.chain import FAST, Chain
from unstir.errors import UserError
from unstir.generate.drawing import Job
from unstir.generate.folder import name_of, save_images, scaled
from unstir.group import Alone
from unstir.runs import sidecar
from unstir.runs.model import Model

NAMES = "grid", "noise", "settings"  # in a folder of images, besides numbers
LONG = 250  # network calls an image: longer chains than this are not taken without a word


@dataclass(frozen=True)
class Sampled:
    """The ``folder`` of a ``job``'s images, the ``cost`` of each in words, and the files ``shown`` of trajectories."""

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
        from unstir.generate.trajectories import save_trajectories  # with what draws them

        save_trajectories(model, job, folder, animation, strip, stages)
    return Sampled(folder, job, model.cost(job.chain, " each"), tuple(path for path in (animation, strip) if path))


def _check(key: str, file: Path | None, suffixes: tuple[str, ...], folder: Path) -> None:
    if file is None:
        return
    if file.resolve().parent == folder.resolve() and (file.stem in NAMES or file.stem.isdecimal()):
        raise UserError(key, file, "is the name of a file of the images themselves", "name another")
    sidecar.check(file, key=key, suffixes=suffixes)
