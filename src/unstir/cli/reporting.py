"""`unstir report`."""

from pathlib import Path
from typing import Any

from unstir.cli.app import app, say, show


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
    store: Path | None = None,
) -> int:
    """Write what a run shows as one page: RUN/report.html, a single file that works offline and prints well.

    It has the samples of every moment from the same noise, losses and curves, quality by step with error bars, calls
    against quality, nearest training images, the doctor's findings, and an analysis in sentences, each of a tested
    effect. What was not measured yet is measured first: each saved step and some samplers, as `unstir evaluate` does,
    and kept. Of several runs the page shows them side by side, on figures of one protocol alone.

    Example: `unstir report runs/digits`

    Example: `unstir report runs/first runs/second --out compared.html`

    Parameters
    ----------
    runs
        Folder of the run, or of several to be compared.
    out
        The HTML file; by default report.html in the (first) run's folder, comparison.html for several.
    measure
        Measure what is missing; without, the page has what was measured before.
    minutes
        About how long drawing images for the figures of a run may take, where --num is 0.
    num
        Images a seed for the figures; 0: as many as --minutes allow, no more than are held out.
    seeds
        Sets of images for a figure, for its error bar.
    pdf
        Print the page to a PDF of the same name too; needs Chromium or Chrome.
    store
        Folder of the packed data, where it has moved.
    """
    from unstir import console
    from unstir.errors import UserError
    from unstir.report import compared, page
    from unstir.report import pdf as printing
    from unstir.runs.files import make_folder
    from unstir.runs.run import Run
    from unstir.runs.writable import check_writable

    if not runs:
        raise UserError("no run was named; give the folder of one, such as runs/digits")
    if pdf and printing.browser() is None:
        printing.print_pdf(runs[0], runs[0])  # says what is missing before anything is measured
    opened = [Run.open(path) for path in runs]
    path = out or opened[0].path / ("report.html" if len(opened) == 1 else "comparison.html")
    stores = [_store(run, store) for run in opened]
    if minutes <= 0:
        raise UserError(f"minutes={minutes} must be more than 0; --num sets the number of images itself")
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name the HTML file in it, such as {path / 'report.html'}")
    check_writable(path.parent)
    protocols = _measure(opened, stores, minutes, num, seeds) if measure else [None] * len(opened)
    make_folder(path.absolute().parent)
    with console.heartbeat("writing the page"):
        if len(opened) == 1:
            page.write(opened[0], stores[0], path, protocols[0], samples=measure)
        else:
            compared.write(opened, stores, path)
    show(f"report   {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if pdf:
        printing.print_pdf(path, path.with_suffix(".pdf"))
        show(f"pdf      {path.with_suffix('.pdf')}")
    return 0


def _store(run: Any, store: Path | None) -> Any:
    """The run's data; None, and a word about it, where it has gone."""
    from unstir.data import Store, is_store

    if store is None and not is_store(run.config.data.store):
        say(
            f"{run.config.data.store}, the data of {run.path}, is no longer there; name it with --store. Without it "
            "nothing is measured and no data is shown"
        )
        return None
    return Store.open(store or run.config.data.store)


def _measure(runs: list[Any], stores: list[Any], minutes: float, num: int, seeds: int) -> list[Any]:
    """Measure what the pages of these runs need, all by one number of images; the protocol of each, None without."""
    from unstir import console
    from unstir.report.gather import measure, planned
    from unstir.train.catch_up import catch_up

    plans: list[Any] = []
    for run, store in zip(runs, stores, strict=True):  # whatever is refused, of any run, is refused before all work
        if store is None or not run.saved_steps():
            plans.append(None)
            continue
        plans.append(plan := planned(run, store, seconds=60 * minutes, num=num, seeds=seeds))
        num = num or plan.num  # the next runs have the same, for unlike numbers do not compare
        say(
            f"{run.path}: {len(plan.by_step)} steps and {len(plan.by_chain)} samplers, {seeds} x {plan.num} images "
            f"each, about {plan.seconds / 60:.1f} min where none was measured before"
        )
    protocols: list[Any] = []
    for run, store, planned_one in zip(runs, stores, plans, strict=True):
        if planned_one is None:
            protocols.append(None)
            continue
        plan = planned_one.ready(store, console.showing)
        with console.counting(console.stderr(), "looking at held-out images", "moments") as progress:
            catch_up(run, store, progress)
        with console.counting(console.stderr(), "judging", "judgements") as progress:
            measure(run, store, (*plan.by_step, *plan.by_chain), progress=progress)
        protocols.append(plan.by_step[-1].protocol(run))
    return protocols
