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
    export: Path | None = None,
    store: Path | None = None,
) -> int:
    """Write what a run shows as one page: RUN/report.html, a single file that works offline and prints well.

    Three sentences and the pictures come first: samples beside real images, and all moments of training. Then figures:
    quality by step with error bars, samplers with their seconds an image, classes, the worst samples, the nearest
    training images; then every statement of the analysis, its limitations, curves and the doctor's findings. What was
    not measured yet is measured first: each saved step and some samplers, as `unstir evaluate` does, and kept. Several
    runs are shown side by side; their figures where they are of one protocol, else what differs and how to mend it.

    Example: `unstir report runs/digits`

    Example: `unstir report runs/digits --export figures.tex`

    Example: `unstir report runs/first runs/second --out compared.html`

    Parameters
    ----------
    runs
        Folder of the run, or of several to be compared.
    out
        The HTML file, in a folder that is made where it is missing; by default report.html in the (first) run's folder,
        comparison.html for several.
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
    export
        Write the figures with their errors and protocols to this file too, by its ending .csv, .md (Markdown) or .tex
        (LaTeX), or to all three in this folder.
    store
        Folder of the packed data, where it has moved.
    """
    from unstir import console
    from unstir.errors import UserError
    from unstir.report import compared, page
    from unstir.report import export as exporting
    from unstir.report import pdf as printing
    from unstir.runs.files import make_folder
    from unstir.runs.run import Run

    if not runs:
        raise UserError("no run was named; give the folder of one, such as runs/digits")
    _check_numbers(minutes, num, seeds)
    if pdf and printing.browser() is None:
        printing.print_pdf(runs[0], runs[0])  # says what is missing before anything is measured
    opened = [Run.open(path) for path in runs]
    path = out or opened[0].path / ("report.html" if len(opened) == 1 else "comparison.html")
    _check(path, "--out", ".html")
    for target in exporting.targets(export) if export else ():
        _check(target, "--export", target.suffix)
    if pdf:
        _check(path.with_suffix(".pdf"), "--pdf", ".pdf")
    stores = _stores(opened, store)
    protocols = _measure(opened, stores, minutes, num, seeds) if measure else [None] * len(opened)
    make_folder(path.absolute().parent)
    with console.heartbeat("writing the page"):
        if len(opened) == 1:
            facts = [page.write(opened[0], stores[0], path, protocols[0], samples=measure)]
        else:
            facts = compared.write(opened, stores, path)
    show(f"report   {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if pdf:
        printing.print_pdf(path, path.with_suffix(".pdf"))
        show(f"pdf      {path.with_suffix('.pdf')}")
    for file in exporting.export(export, facts) if export else ():
        show(f"figures  {file}")
    return 0


def _check(path: Path, option: str, suffix: str) -> None:
    """Raise UserError for a file of another kind or one that cannot be written."""
    from unstir.cli.beside import check_place
    from unstir.errors import UserError

    if path.suffix.lower() != suffix.lower():
        more = "; for a PDF beside it add --pdf" if path.suffix.lower() == ".pdf" else ""
        raise UserError(f"{option} {path} must end in {suffix}{more}")
    check_place(path, option)


def _check_numbers(minutes: float, num: int, seeds: int) -> None:
    """Raise UserError for numbers that no figure can be made of."""
    from unstir.errors import UserError
    from unstir.metrics.floor import FEWEST

    if not minutes > 0:
        raise UserError(f"minutes={minutes} must be more than 0; --num sets the number of images itself")
    if num and num < FEWEST:
        raise UserError(
            f"num={num} must be at least {FEWEST}: a distance is between sets; better hundreds; 0: --minutes"
        )
    if seeds < 1:
        raise UserError(f"seeds={seeds} must be at least 1; error bars over seeds need 2")


def _stores(runs: list[Any], named: Path | None) -> list[Any]:
    """The data of each run: the store named, where it is that run's, else its own; None, said, where it has gone."""
    from unstir.data import Store, is_store
    from unstir.errors import UserError

    given = None if named is None else Store.open(named)
    if given is not None and given.content_hash not in {run.data.content_hash for run in runs}:
        raise UserError(f"{given.path} is not the data of {runs[0].path}; name the store that it was trained on")
    found: list[Any] = []
    for run in runs:
        if given is not None and given.content_hash == run.data.content_hash:
            found.append(given)
        elif is_store(run.config.data.store):
            found.append(Store.open(run.config.data.store))
            if found[-1].content_hash != run.data.content_hash:
                raise UserError(f"{found[-1].path} no longer holds the data of {run.path}; name its store with --store")
        else:
            say(
                f"{run.config.data.store}, the data of {run.path}, is no longer there; name it with --store. Without "
                "it nothing is measured and no data is shown"
            )
            found.append(None)
    return found


def _measure(runs: list[Any], stores: list[Any], minutes: float, num: int, seeds: int) -> list[Any]:
    """Measure what the pages of these runs need, all by one number of images; the protocol of each, None without."""
    from unstir import console
    from unstir.report.gather import measure, planned, time_samplers
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
        if len(runs) == 1:  # a page of several shows no samplers
            time_samplers(run, plan)
        protocols.append(plan.by_step[-1].protocol())
    return protocols
