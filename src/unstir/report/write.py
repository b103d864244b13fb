"""The report of one run or several, from their folders: what is missing is measured, then the page is written."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unstir.data import Store, is_store
from unstir.errors import UserError
from unstir.metrics.classifier import networks_for
from unstir.metrics.evaluate import drawing_seconds
from unstir.metrics.request import SEEDS
from unstir.progress import counted, counting, waiting
from unstir.report import compared, page
from unstir.report.files import check_files
from unstir.report.gather import Measuring, measure, planned, time_samplers
from unstir.report.tables import export
from unstir.runs.files import make_folder
from unstir.runs.run import Run
from unstir.runs.stores import check_data, compared_with, with_store
from unstir.train.held_out import catch_up

logger = logging.getLogger(__name__)


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    measuring: bool = True,
    num: int = 0,
    seeds: int = SEEDS,
    exported: Path | None = None,
    store: Path | None = None,
) -> list[Path]:
    """Write the page of the runs in these folders and return the files written, the page first.

    It is ``out``, by default report.html of the run, or comparison.html of the first of several. With ``measuring`` the
    figures that are missing are measured first: ``num`` images per seed, for 0 as many as `usual_number`, for ``seeds``
    seeds. ``exported`` is a file or a folder of files for the figures. ``store`` is the data of the runs where it has
    moved. Raises UserError, before anything is measured, for what cannot be opened, measured or written.
    """
    _check_asked(paths)
    runs = [Run.open(path) for path in paths]
    path = out or runs[0].path / ("report.html" if len(runs) == 1 else "comparison.html")
    check_files(path, exported)
    runs, stores = _with_stores(runs, store)
    plans = _planned(runs, stores, num, seeds) if measuring else []
    protocols = [_measured(*plan, timed=len(runs) == 1) for plan in plans]
    make_folder(path.absolute().parent)
    with counting("writing the page", ""):
        if len(runs) == 1:
            facts = [page.write(runs[0], stores[0], path, next(iter(protocols), None), samples=measuring)]
        else:
            facts = compared.write(runs, stores, path)
    return [path, *(export(exported, facts) if exported else ())]


def _check_asked(paths: Sequence[Path]) -> None:
    """Raise UserError for no run, and for one that is named twice."""
    if not paths:
        raise UserError("no run was named; give the folder of one, such as runs/mnist")
    places = [path.resolve() for path in paths]
    if twice := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise UserError("", twice, "is named twice", "name each run once")


def _with_stores(runs: Sequence[Run], named: Path | None) -> tuple[list[Run], list[Store | None]]:
    """The runs and the data of each: the store named, where it is that run's, else its own; None, said, where it has
    gone. A run that knows no data has the store named.
    """
    given = None if named is None else Store.open(named)
    if given is not None:
        runs = [compared_with(run, given) for run in runs]
        if given.content_hash not in {run.data.content_hash for run in runs}:
            check_data(runs[0].path, runs[0].data, given)
    found = list[Store | None]()
    for run in runs:
        store = given if given is not None and given.content_hash == run.data.content_hash else None
        if store is None and is_store(run.config.data.store):
            store = with_store(run)[1]
            check_data(run.path, run.data, store)
        elif store is None:
            gone = f"{run.config.data.store}, the data of {run.path}, is no longer there; name it with --store."
            none = f"{run.path} was imported and has no data; name images to compare it with, --store STORE."
            logger.warning(
                f"{gone if run.data.content_hash else none} Without it nothing is measured and no data is shown"
            )
        found.append(store)
    return list(runs), found


def _planned(
    runs: Sequence[Run], stores: Sequence[Store | None], num: int, seeds: int
) -> list[tuple[Run, Store, Measuring]]:
    """What the pages of these runs need, with the classifiers trained; nothing of runs that cannot be measured."""
    measured = [
        (run, store) for run, store in zip(runs, stores, strict=True) if store is not None and run.saved_steps()
    ]
    plans = [planned(run, store, num=num, seeds=seeds) for run, store in measured]  # what is refused is so before work
    found = []
    for (run, store), plan in zip(measured, plans, strict=True):
        plan = plan.with_networks(networks_for(store))
        chains = counted(len(plan.by_chain), "pair of sampler and steps", "pairs of sampler and steps")
        images = f"{plan.all[0].seeds} x {plan.all[0].num} images each"
        drawn = f"{counted(len(plan.by_step), 'saved step')} and {chains}, {images}"
        logger.info(f"{run.path}: {drawn}, {waiting(drawing_seconds(plan.all))} to draw those still missing")
        found.append((run, store, plan))
    return found


def _measured(run: Run, store: Store, plan: Measuring, timed: bool) -> dict[str, Any]:
    """The protocol of the last step, with everything measured; of each sampler the seconds too where they are shown."""
    if run.config.kind.trained_here:
        catch_up(run, store)
    measure(plan.all)
    if timed:
        time_samplers(run, plan)
    return plan.by_step[-1].protocol()
