"""`unstir report`."""

from pathlib import Path

from unstir.cli.app import app, say, show
from unstir.cli.options import StoreFolder


@app.command
def report(
    runs: list[Path],
    /,
    *,
    out: Path | None = None,
    measure: bool = True,
    minutes: float = 5.0,
    num: int = 0,
    seeds: int = 3,
    pdf: bool = False,
    export: Path | None = None,
    store: StoreFolder = None,
) -> int:
    """Write what a run shows as one page: RUN/report.html, a single file that works offline and prints well.

    Three sentences and the pictures come first: samples next to real images, and the grids of all snapshots. Figures
    follow: quality by step with error bars, samplers with their seconds per image, classes, the worst samples, the
    nearest training images; then every statement of the analysis, its limitations, curves and the doctor's findings.
    What is missing is measured first, each saved step and some samplers, as `unstir evaluate` does, and kept. Several
    runs share a page, with their figures where their protocols agree; where not, with what differs and what helps.

    Example: `unstir report runs/digits`

    Example: `unstir report runs/digits --export figures.tex`

    Example: `unstir report runs/first runs/second --out compared.html`

    Args:
        runs: Folder of the run, or of several to be compared.
        out: The HTML file, in a folder that is made where it is missing; by default report.html in the (first) run's
            folder, comparison.html for several.
        measure: Measure what is missing; without, the page has what was measured before.
        minutes: About how long drawing images for the figures of a run may take, where --num is 0.
        num: Images per seed for the figures; 0: as many as --minutes allow, no more than are held out.
        seeds: Sets of images for a figure, for its error bar.
        pdf: Print the page to a PDF of the same name too; needs Chromium or Chrome.
        export: Write the figures with their errors and protocols to this file too, by its ending .csv, .md (Markdown)
            or .tex (LaTeX), or to all three in this folder.
    """
    from unstir import console
    from unstir.report.write import write_report

    page, *others = write_report(
        runs,
        out,
        measuring=measure,
        minutes=minutes,
        num=num,
        seeds=seeds,
        printed=pdf,
        exported=export,
        store=store,
        say=say,
        showing=console.counting,
    )
    show(f"report   {page} ({page.stat().st_size / 1e6:.1f} MB)")
    for file in others:
        show(f"{'pdf' if file.suffix == '.pdf' else 'figures':8} {file}")
    return 0
