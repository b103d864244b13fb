"""`unstir report`."""

from pathlib import Path
from typing import Any

from unstir.cli.app import app, say, show
from unstir.cli.options import StoreFolder
from unstir.errors import UserError
from unstir.metrics.request import SEEDS, EvaluationRequest


@app.command
def report(
    runs: list[Path] | None = None,
    /,
    *,
    images: list[Path] | None = None,
    label: str | None = None,
    flip: bool = False,
    out: Path | None = None,
    measure: bool = True,
    num: int = 0,
    seeds: int | None = None,
    export: Path | None = None,
    store: StoreFolder = None,
) -> int:
    """Write what a run shows as one page: RUN/report.html, a single file that works offline.

    What the run is in plain words, three sentences and the pictures come first: samples next to real images, and the
    grids of all snapshots. Figures follow: quality by step with error bars, samplers with their seconds per image,
    classes, the worst samples, the nearest training images; then every statement of the analysis, its limitations,
    curves and the doctor's findings. What is missing is measured first, each saved step and some samplers, as `unstir
    evaluate` does, and kept. Several runs share a page, with their figures where their protocols agree; where not, with
    what differs and what helps.

    Example: `unstir report runs/mnist`

    Example: `unstir report runs/mnist --export figures.tex`

    Example: `unstir report runs/first runs/second --out compared.html`

    Example: `unstir report --images made/ --store data/mnist`

    Args:
        runs: Folder of the run, or of several to be compared.
        images: Images of any program in place of a run, as `unstir evaluate` takes them: the part of the page that
            needs no training, by default report.html in their folder.
        label: With --images the class that all of them show.
        flip: With --images: mirror images of training images count as copies too.
        out: The HTML file, in a folder that is made where it is missing; by default report.html in the (first) run's
            folder, comparison.html for several. No file but an earlier page is replaced, nor by --export.
        measure: Measure what is missing; without, the page has what was measured before.
        num: Images per seed for the figures; 0: as `unstir evaluate` has them.
        seeds: Sets of images for a figure, for its error bar: 3, and of --images as `unstir evaluate` has them.
        export: Write the figures with their errors and protocols to this file too, by its ending .csv, .md (Markdown)
            or .tex (LaTeX), or to all three in this folder.
    """
    from unstir import console
    from unstir.insight.images import write_images_report
    from unstir.insight.write import write_report

    _check(bool(runs), bool(images), label is not None or flip, measure)
    telling: dict[str, Any] = {"say": say, "showing": console.counting}
    if images:
        request = EvaluationRequest(num=num, seeds=seeds, label=label, flip=flip, store=store)
        page, *others = write_images_report(images, request, out, exported=export, **telling)
    else:
        how: dict[str, Any] = {"measuring": measure, "num": num, "exported": export}
        how["seeds"] = SEEDS if seeds is None else seeds
        page, *others = write_report(runs or [], out, store=store, **how, **telling)
    show(f"report   {page} ({page.stat().st_size / 1e6:.1f} MB)")
    for file in others:
        show(f"figures  {file}")
    return 0


def _check(runs: bool, images: bool, of_images: bool, measure: bool) -> None:
    """Raise UserError unless runs or images were given, with options of their own alone."""
    if runs == images:
        raise UserError("give either the folder of a run or several, or images with --images")
    if images and not measure:
        raise UserError("--no-measure is of runs; leave it out with --images")
    if runs and of_images:
        raise UserError("--label and --flip are of --images; leave them out")
