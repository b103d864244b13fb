"""The page of runs, or of images that any program made: what is missing is measured, then it is written."""

import datetime
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from unstir.compare import compare, parse
from unstir.data import Store
from unstir.errors import UserError, printable
from unstir.insight import compared, page, pictures
from unstir.insight.analysis import limits_of
from unstir.insight.charts import save_charts
from unstir.insight.facts import ImagesFacts, Speed, chain_key
from unstir.insight.gather import SPEED, read_speed
from unstir.insight.page import check_files, in_words, of_samples, write_page
from unstir.insight.tables import export
from unstir.insight.themes import diversity, memorisation, quality
from unstir.metrics.classifier import networks_for
from unstir.metrics.drawn import Drawn, seconds_per_call
from unstir.metrics.evaluate import drawing_seconds, planned_images, plans_of
from unstir.metrics.features import Network
from unstir.metrics.images import Images
from unstir.metrics.plan import Plan, check, judge
from unstir.metrics.request import SEEDS, EvaluationRequest
from unstir.progress import counted, counting, sized, waiting
from unstir.runs.card import DataCard
from unstir.runs.checkpoint import environment
from unstir.runs.files import encode, make_folder, write_text
from unstir.runs.run import Run
from unstir.runs.stores import check_data, compared_with, with_store
from unstir.runs.timetable import all_snapshots
from unstir.train.held_out import catch_up

logger = logging.getLogger(__name__)

CHAINS = "ddim:10,ddim:20,ddim:50,unipc:5,unipc:10,dpmpp_2m_sde:10,dpmpp_2m_sde:20,dpmpp_2m_sde:50,ancestral:50"
"""What the last step is sampled by too, for the plot of calls against quality."""
SECONDS = 10.0  # about so long all samplers together are timed, on a batch at most


def write_report(
    paths: Sequence[str | Path],
    out: Path | None = None,
    *,
    measuring: bool = True,
    num: int = 0,
    seeds: int = SEEDS,
    exported: Path | None = None,
    figures: Sequence[str] = (),
    charts: Path | None = None,
    format: str = "png",
    store: Path | None = None,
) -> list[Path]:
    """Write the page of the runs in these folders and return the files written, the page first.

    It is ``out``, by default report.html of the run, or comparison.html of the first of several. With ``measuring`` the
    figures that are missing are measured first: ``num`` images per seed, for 0 as many as `usual_number`, for ``seeds``
    seeds. ``exported`` is a file or a folder of files for the figures, or for these ``figures`` alone, a row for each
    setting; ``charts`` is a folder for each chart, as "png", "svg" or "pdf". ``store`` is the data of the runs where it
    has moved. Raises UserError, before anything is measured, for what cannot be opened, measured or written.
    """
    runs = [Run.open(path) for path in paths]
    places = [run.path.resolve() for run in runs]
    if twice := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise UserError("", twice, "is named twice", "name each run once")
    path = out or runs[0].path / ("report.html" if len(runs) == 1 else "comparison.html")
    page.check_files(path, exported)
    runs, stores = _with_stores(runs, store)
    paired = zip(runs, stores, strict=True) if measuring else ()
    measured = [(run, store) for run, store in paired if store and run.saved_steps()]
    for run, data in measured:  # what is refused is so before any work
        planned(run, data, num=num, seeds=seeds)
    protocols = [_measured(run, data, num, seeds, timed=len(runs) == 1) for run, data in measured]
    make_folder(path.absolute().parent)
    with counting("writing the page", ""):
        if len(runs) == 1:
            facts = [page.write(runs[0], stores[0], path, next(iter(protocols), None), samples=measuring)]
        else:
            facts = compared.write(runs, stores, path)
    for text in (text for it in facts for text in it.left_out):
        logger.warning(f"{text}; it is left out")
    files = [path, *(export(exported, facts, figures) if exported else ())]
    return [*files, *(save_charts(facts, charts, format) if charts else ())]


def _with_stores(runs: Sequence[Run], named: Path | None) -> tuple[list[Run], list[Store | None]]:
    """The runs and the data of each: the store named, where it fits, else its own; None, said, where that has gone."""
    given = None if named is None else Store.open(named)
    if given is not None:
        runs = [compared_with(run, given) for run in runs]
        if given.content_hash not in {run.data.content_hash for run in runs}:
            check_data(runs[0].path, runs[0].data, given)
    result = list[Store | None]()
    for run in runs:
        store = given if given is not None and given.content_hash == run.data.content_hash else None
        if store is None:
            try:
                store = with_store(run)[1]
            except UserError as error:
                logger.warning(f"{error}. Without it nothing is measured and no data is shown")
            else:
                check_data(run.path, run.data, store)
        result.append(store)
    return list(runs), result


def _measured(run: Run, store: Store, num: int, seeds: int, timed: bool) -> dict[str, Any]:
    by_step, by_chain = planned(run, store, num=num, seeds=seeds, networks=networks_for(store))
    plans, last = [*by_step, *by_chain], by_step[-1]
    chains = (
        f" and {counted(len(by_chain), 'pair of sampler and steps', 'pairs of sampler and steps')}" if by_chain else ""
    )
    drawn = f"{counted(len(by_step), 'saved step')}{chains}, {last.seeds} x {last.num} images each"
    logger.info(f"{run.path}: {drawn}, {waiting(drawing_seconds(plans))} to draw those still missing")
    if run.config.kind.trained_here:
        catch_up(run, store)
    measure(plans)
    if timed and by_chain:
        time_samplers(run, [last, *by_chain])
    return last.protocol()


def planned(
    run: Run, store: Store, *, num: int = 0, seeds: int = SEEDS, networks: Sequence[Network] = ()
) -> tuple[list[Plan[Drawn]], list[Plan[Drawn]]]:
    """What a report measures: each kept snapshot by the usual chain, and by `CHAINS` the last; errors as `check`."""
    run.newest_step()  # says so where none was saved
    kept, snapshots = run.saved_steps(), all_snapshots(run)
    steps = [step for step in kept if step in snapshots] or kept[-1:]
    models = [run.model(step, dtype="auto") for step in steps]  # what cannot be sampled is refused before any work
    plans = plans_of(run, store, EvaluationRequest(num=num, seeds=seeds), models)
    *earlier, last = (replace(plan, networks=networks) for plan in plans)
    others = [] if run.config.kind.has_teacher else parse(CHAINS, last.images.chain)
    drawn = [replace(last.images, chain=chain) for chain in others if chain.steps <= models[-1].process.T]
    by_step = [*(replace(plan, memorisation=False, pairs=False) for plan in earlier), last]
    by_chain = [replace(last, images=images, memorisation=False, pairs=False) for images in drawn]
    for every in (*by_step, *by_chain):
        check(every)
    return by_step, by_chain


def measure(plans: Sequence[Plan[Drawn]]) -> None:
    """Carry out plans, as far as that was not done before."""
    with counting("evaluating", "evaluations") as count:
        for done, plan in enumerate(plans):
            chain = plan.images.chain
            count(done, len(plans), f"step {plan.images.model.step} by {chain.sampler}, {counted(chain.steps, 'step')}")
            judge(plan)
        count(len(plans), len(plans))


def time_samplers(run: Run, plans: Sequence[Plan[Drawn]]) -> None:
    """Time every sampler of the plans into RUN/speed.json; again only on another machine or for others."""
    images = plans[0].images
    model, job = images.model.unloaded(), images.job(1)
    machine, schedule, chains = environment(model.device), model.process.schedule, [it.images.chain for it in plans]
    calls = {chain_key(chain.sampler, chain.calls(schedule)): chain for chain in chains}
    known = read_speed(run)
    if known is not None and known.machine == machine and known.seconds.keys() == calls.keys():
        return
    whole = seconds_per_call(images) * sum(chain.calls(schedule) for chain in calls.values())
    num = max(1, min(job.batch_size, int(SECONDS / whole)))
    timed = compare(model, replace(job, num=num), list(calls.values()))
    seconds = {name: float(f"{item.seconds:.3g}") for name, item in zip(calls, timed, strict=True)}
    today = datetime.date.today().isoformat()
    speed = Speed(seconds=seconds, num=num, machine=machine, date=today, run=run.data.run)
    write_text(run.path / SPEED, encode(asdict(speed), indent=1) + "\n")


def write_images_report(
    images: Sequence[Path], request: EvaluationRequest, out: Path | None = None, *, exported: Path | None = None
) -> list[Path]:
    """Write the page of images and return the files written, the page first; they are evaluated by ``request`` first.

    It is ``out``, by default report.html in their folder, or next to a file of them; ``exported`` and errors are as in
    `write_report`.
    """
    path = out or (images[0] / "report.html" if images[0].is_dir() else images[0].with_suffix(".html"))
    check_files(path, exported)
    plan, _ = planned_images(list(images), None, request)
    facts = ImagesFacts(name=plan.images.name, data=DataCard.of_store(plan.store), last=judge(plan))
    make_folder(path.absolute().parent)
    with counting("writing the page", ""):
        _write(plan, facts, path)
    return [path, *(export(exported, [facts]) if exported else ())]


def _write(plan: Plan[Images], facts: ImagesFacts, path: Path) -> None:
    store, last = plan.store, facts.last
    statements = [*quality(facts), *diversity(facts), *(memorisation(facts) if last.memorisation else ())]
    sets, asked = plan.images.sets(plan.num, plan.seeds), plan.images.classes(plan.num, plan.seeds)
    drawn = pictures.Drawn(torch.cat(sets), None if asked is None else torch.cat(asked))
    shown: dict[str, Any] = {
        "facts": facts,
        **in_words(statements, limits_of(last)),
        "samples": pictures.some(store, drawn.images, "samples, drawn at random from the images"),
        "real": pictures.some(store, store.images("train"), "training images, drawn at random"),
        **of_samples(store, drawn, last, plan.flip, drawn),
        "neighbours": pictures.pairs(store, last),
        "about": _about(plan, store),
    }
    write_page(path, "images.html", shown)


def _about(plan: Plan[Images], store: Store) -> list[tuple[str, str]]:
    counts = f"{store.count('train'):,} for training, {store.count('held_out'):,} held out"
    return [
        ("images", f"{sum(map(len, plan.images.parts)):,}, {plan.images.name}"),
        ("their content hash", plan.images.hash),
        ("shape", sized(store.shape)),
        ("compared with", f"{printable(store.path)}: {counts}"),
        ("classes", ", ".join(store.classes) or "none"),
        ("content hash of the data", store.content_hash),
    ]
