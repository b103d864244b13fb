"""A run's folder, read once, and images drawn from its weights: all that checks, sentences and pages are made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unstir import randomness
from unstir.chain import FAST, OPTIONS
from unstir.data import Store
from unstir.errors import NotFiniteError, UserError
from unstir.generate.drawing import Job, sample_batches
from unstir.insight.facts import DAMAGED, MISSING, NO_SAMPLES, Facts, Samples, SavedFile, Speed
from unstir.insight.image_stats import image_stats
from unstir.metrics.evaluation import FOLDER, Evaluation, is_own, own, saved, unlike
from unstir.metrics.likelihood import Likelihood
from unstir.metrics.likelihood import read as read_likelihood
from unstir.pixels import shown
from unstir.progress import counted, counter, counting
from unstir.runs import build, checkpoint
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.files import decode
from unstir.runs.run import Run
from unstir.runs.stores import compared_with, with_store
from unstir.runs.timetable import foreign

SPEED = "speed.json"
FOREIGN = "is of weights that are not the run's"
MOST_IMAGES, FEWEST_IMAGES, WORK = 64, 16, 1.5e12  # floating-point operations
REAL_IMAGES = 2048
Group = tuple[Evaluation, ...]
APART = "sampler", "steps", "calls", "spacing", "times", *OPTIONS  # what differs in the plot of calls


def gather(
    path: str | Path,
    *,
    store: Store | str | Path | None = None,
    samples: bool = True,
    protocol: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts of the run in folder ``path``.

    ``store`` is its packed data where that has moved; without ``samples`` no image is drawn.
    Of its evaluations those that compare are taken: by ``protocol``, else the most of them. Raises UserError where
    there is no run, or where ``store`` is named and is no store.
    """
    run = Run.open(path)
    files, loaded = _files(run)
    lines, (run, opened, store_problem) = tuple(run.metrics()), _store(run, store)
    facts = Facts(
        run=run,
        lines=lines,
        files=files,
        loaded=loaded,
        store=opened,
        store_problem=store_problem,
        held_out=tuple(run.held_out()),
        images=image_stats(opened) if opened is not None and opened.count("train") else None,
        unmeasured=NO_SAMPLES,
        **_figures(run, protocol),
    )
    return with_samples(facts) if samples else facts


def _figures(run: Run, protocol: Mapping[str, Any] | None) -> dict[str, Any]:
    evaluations, left_out = own_evaluations(run)
    by_step, by_chain = _comparable(evaluations, protocol)
    bound, others = own_bound(run, since=by_step[-1].step if by_step else (run.saved_steps() or [0])[-1])
    if (speed := read_speed(run)) is None and (run.path / SPEED).exists():
        others.append(f"{run.path / SPEED} {DAMAGED}, or of another run")
    others += [f"{path} is not of this run" for path in foreign(run)]
    parts = {"by_step": by_step, "by_chain": by_chain, "bound": bound, "speed": speed}
    return {**parts, "left_out": (*left_out, *others)}


def _refusal(check: Callable[..., object], *args: object) -> str:
    try:
        check(*args)
    except UserError as error:
        return str(error)
    return ""


def _store(run: Run, named: Store | str | Path | None) -> tuple[Run, Store | None, str]:
    """The run, its store or None, and what is wrong with it. An imported run takes the store named for its own."""
    if named is None and not run.data.content_hash:
        return run, None, ""
    try:
        run, opened = (compared_with(run, named), named) if isinstance(named, Store) else with_store(run, named)
    except UserError as error:
        if named is not None:
            raise
        return run, None, str(error)
    now, began = opened.content_hash, run.data.content_hash
    if now == began:
        return run, opened, _refusal(Store.verify, opened)
    other = f"its content hash is {now[:12]}..., the run's {began[:12]}..."
    return run, opened, f"{opened.path} is not the data that the run began with: {other}"


def _files(run: Run) -> tuple[tuple[SavedFile, ...], Checkpoint | None]:
    """Every saved file, read and verified, and the newest whole one: a full one rather than a slim one of its step."""
    files, newest = list[SavedFile](), list[Checkpoint]()
    listed = run.saved
    with counting("reading weights", "files") as count:
        for done, (step, path) in enumerate(listed, start=1):
            try:
                loaded, problem = checkpoint.load(path), ""
                newest = [max([loaded, *newest], key=lambda it: (it.step, it.kind == "full"))]
            except (UserError, FileNotFoundError) as error:
                if not path.exists() and not path.is_symlink():  # training removes files as it saves new ones
                    return _files(run)
                problem = str(error)
            kind = "full" if path.parent == run.checkpoints else "slim"
            files.append(SavedFile(step, path, kind, problem))
            count(done, len(listed))
    return tuple(files), next(iter(newest), None)


def _comparable(evaluations: Sequence[Evaluation], protocol: Mapping[str, Any] | None) -> tuple[Group, Group]:
    """Evaluations by one ``protocol``, by default the commonest: of several steps, of the last by several chains."""
    newest = max((item.step for item in evaluations), default=0)
    last = [item for item in evaluations if item.step == newest]

    def group(of: Evaluation) -> tuple[Group, Group]:
        by_step = tuple(item for item in evaluations if not unlike(of.protocol, item.protocol))
        return by_step, tuple(item for item in last if not unlike(of.protocol, item.protocol, APART))

    def weight(of: Evaluation) -> tuple[int, int]:
        return sum(map(len, group(of))), of.protocol["num"] * of.protocol["seeds"]

    matching = [item for item in last if protocol is not None and not unlike(protocol, item.protocol)]
    return group(max(matching or last, key=weight)) if last else ((), ())


def own_evaluations(run: Run) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the run's own weights, by rising step, and what is wrong with the other files of them."""
    mine = own(run)
    whole, known = ({it.name() for it in items} for items in (saved(run), mine))
    others = [path for path in sorted((run.files / FOLDER).glob("*.json")) if path.stem not in known]
    return mine, [f"{path} {FOREIGN if path.stem in whole else DAMAGED}" for path in others]


def own_bound(run: Run, since: int) -> tuple[Likelihood | None, list[str]]:
    """The newest bound on held-out images of `unstir likelihood`'s usual settings, from step ``since`` on; problems."""
    bounds, wrong = list[Likelihood](), list[str]()
    for path in sorted((run.path / "likelihood").glob("*.json")):
        if (bound := read_likelihood(path)) is None:
            wrong.append(f"{path} {DAMAGED}")
        elif is_own(run, *(bound.protocol[key] for key in ("step", "ema", "weights", "run"))):
            bounds.append(bound)
        else:
            wrong.append(f"{path} {FOREIGN}")

    def is_usual(how: Mapping[str, Any]) -> bool:
        usual = how.get("clip") is True and how.get("variance") not in ("small", "optimal")
        return usual and isinstance(how["ema"], bool) and bool(how["split"] == "held_out" and how["step"] >= since)

    def rank(bound: Likelihood) -> tuple[int, bool, bool, bool, int]:
        how = bound.protocol
        return how["step"], how["ema"], how["calls"] == how["T"], how.get("dtype") == "float32", bound.num

    return max((it for it in bounds if is_usual(it.protocol)), key=rank, default=None), wrong


def read_speed(run: Run) -> Speed | None:
    """What `write` kept of the run; None where it kept nothing, or the file is damaged or of another run."""
    try:
        result = Speed(**decode((run.path / SPEED).read_bytes()))
        return result if result.run == run.data.run else None
    except (OSError, ValueError, TypeError):
        return None


def with_samples(facts: Facts) -> Facts:
    """The facts with samples, where there are weights of the run, and data that fits them."""
    run, store, loaded = facts.run, facts.store, facts.loaded
    if store is None:
        reason = MISSING["store"]
    elif store.count("train") < 2 or store.shape != run.data.shape:
        reason = "the data does not fit the run"
    elif loaded is None:
        reason = MISSING["loaded"]
    elif run.config.model.num_classes and not store.labelled:
        reason = "the data has no labels"
    else:
        with suppress(NotFiniteError):
            return replace(facts, samples=_draw_samples(run, loaded, store))
        reason = "the network answers with NaN or an infinity"
    return replace(facts, unmeasured=reason)


def _draw_samples(run: Run, loaded: Checkpoint, store: Store) -> Samples:
    steps = min(FAST.steps, run.config.diffusion.T)
    chain = run.chain() if run.config.kind.has_teacher else FAST.changed(steps=steps)
    of_image = build.forward_flops(run.config, *run.data.shape[1:]) * steps
    num = max(FEWEST_IMAGES, min(MOST_IMAGES, int(WORK / of_image)))
    job = Job(num=num, chain=chain, batch_size=num)
    with counting("sampling", "steps") as count:
        batches = sample_batches(run.model(loaded, dtype="auto"), job, on_step=counter(count, chain.steps))
        images = torch.cat([x for _, x in batches])
    words = f"{counted(num, 'image')} by {job.chain.sampler} in {counted(chain.steps, 'step')} from step {loaded.step}"
    labels = run.labels.of(torch.arange(num))
    asked = None if labels is None else labels.repeat(max(1, REAL_IMAGES // num))
    channels = run.config.grids.channels
    return Samples(shown(images, channels), real_images(store, asked, REAL_IMAGES, "doctor", channels), words)


def real_images(store: Store, asked: Tensor | None, num: int, name: str, channels: Sequence[int] = ()) -> Tensor:
    """Training images as pixels: one of each class ``asked`` for, int64 [N], else ``num``, drawn for ``name``."""
    order, labels = randomness.permutation(0, name, 0, store.count("train")), store.labels("train")
    if asked is not None and labels is not None:
        of_class = {label: cycle(order[labels[order] == label].tolist()) for label in set(asked.tolist())}
        chosen = [next(of_class[label], None) for label in asked.tolist()]
        order = torch.tensor([index for index in chosen if index is not None], dtype=torch.int64)
        num = len(order)
    return store.scale.shown(store.images("train")[order[:num]], channels)
