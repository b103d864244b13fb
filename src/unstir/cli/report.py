"""`unstir report`."""

from pathlib import Path

from unstir.cli.app import app, show
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

    The page begins with a summary and pictures: samples next to real images, and the grids of all snapshots. Figures
    follow: quality by step, samplers with their seconds per image, classes, worst samples, nearest training images.
    Then come the analysis, curves and the doctor's findings. Missing figures are measured first, as `unstir evaluate`
    does, and kept. Several runs share a page; their figures stand together where the protocols agree.

    Example: `unstir report runs/mnist`

    Example: `unstir report runs/mnist --export figures.tex`

    Example: `unstir report runs/first runs/second --out compared.html`

    Example: `unstir report --images made/ --store data/mnist`

    Args:
        runs: Folder of the run, or folders of several runs to compare.
        images: Images of any program in place of a run, as `unstir evaluate` takes them. The page leaves out training.
        label: With --images the class that all of them show.
        flip: With --images: count mirror images of training images as copies too.
        out: The HTML file; by default report.html in the folder of the run or images, comparison.html for several runs.
            Only an earlier page is replaced.
        measure: Measure what is missing; --no-measure shows only what was measured before.
        num: Images per seed for the figures; 0: as many as `unstir evaluate` takes.
        seeds: Sets of images for the error bar of a figure; by default as many as `unstir evaluate` takes.
        export: Also write the figures with their errors and protocols to this .csv, .md or .tex file, or to all three
            in this folder.
    """
    from unstir.insight.images import write_images_report
    from unstir.insight.write import write_report

    _check(bool(runs), bool(images), label is not None or flip, measure)
    if images:
        request = EvaluationRequest(num=num, seeds=seeds, label=label, flip=flip, store=store)
        page, *others = write_images_report(images, request, out, exported=export)
    else:
        sets = SEEDS if seeds is None else seeds
        page, *others = write_report(
            runs or [], out, store=store, measuring=measure, num=num, seeds=sets, exported=export
        )
    show(f"report   {page} ({page.stat().st_size / 1e6:.1f} MB)", *(f"figures  {file}" for file in others))
    return 0


def _check(runs: bool, images: bool, of_images: bool, measure: bool) -> None:
    """Raise UserError unless runs or images were given, with options of their own alone."""
    if runs == images:
        raise UserError("give either the folder of a run or several, or images with --images")
    if images and not measure:
        raise UserError("measure", False, "is of runs", "leave it out with --images")
    if runs and of_images:
        raise UserError("--label and --flip are of --images; leave them out")
