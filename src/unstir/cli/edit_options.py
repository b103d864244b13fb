"""What the commands of `unstir edit` take alike, and how each of them is carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from unstir.cli.app import say, show
from unstir.cli.chain_options import Given
from unstir.cli.model_options import ModelOptions
from unstir.errors import UserError

if TYPE_CHECKING:
    from unstir.edit import Edited


@Parameter(name="*", name_transform=lambda name: name.replace("_", "-"))
@dataclass(frozen=True, kw_only=True)
class EditOptions(ModelOptions):
    """What every edit takes."""

    out: Path | None = None
    """The PNG file to write, with its settings in a sidecar, OUT.json; by default one in RUN/edits for each setting."""
    singles: bool = False
    """Also write each result as a file of its own, at the run's resolution: OUT-0.png, OUT-1.png, ..."""
    seed: int = 0
    """Result i is a function of the seed and i."""


def carry_out(
    run: Path,
    parts: Sequence[str | int | Path],
    doing: str,
    chain: Given,
    options: EditOptions,
    work: Callable[..., "Edited"],
    *,
    mask: Path | None = None,
    labels: tuple[str, str] | None = None,
    remedy: str = "leave it out",
    **asked: Any,
) -> int:
    """Call the library to do the ``work``, and to write what came of it; ``parts`` are the images, or what names them.

    ``labels`` are the classes of both ends, as typed, and ``remedy`` what to do where there are none; what else is
    ``asked`` are the number of results and the class, as typed.
    """
    from unstir import console
    from unstir.edit.files import Target, advice
    from unstir.edit.reading import notes_on
    from unstir.generate import Job
    from unstir.runs.run import Run

    opened, images = Run.open(run), [part for part in parts if isinstance(part, Path)]
    target = Target(options.out, run / "edits", parts, [*images, *([mask] if mask else [])], options.singles)
    guidance = chain.given().get("guidance")
    needs_label = opened.labels.has_null and chain.guide is None and guidance not in (None, 1)
    if needs_label and asked.get("label", 0) is None:
        raise UserError(f"guidance={guidance} leads towards a class; name it with --label")
    if "label" in asked:
        asked["label"] = opened.labels.number(asked["label"])
    model = options.model(opened, chain.guide)
    job = Job(chain=model.chain.changed(**chain.given(), seed=options.seed), **{"num": 1, **asked})
    ends = {"labels": model.labels.numbers(labels, "--labels", remedy)} if labels else {}
    with console.counting(doing, "network calls") as progress:
        edited = work(model, job=job, progress=progress, **ends)
    for image in images:
        for note in notes_on(image, model.shape):
            say(f"{image}: {note}")
    show(*target.save(edited))
    if poor := advice(edited):
        say(poor)
    return 0
