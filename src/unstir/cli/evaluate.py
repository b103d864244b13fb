"""`unstir evaluate`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from unstir.cli.app import app, say, show
from unstir.cli.chain_options import ChainOptions

FAST = ChainOptions()
ON_CPU = 2000  # Inception sees some 5 to 10 images a second there
CHAIN = Group("Chain", help="Defaults are dpmpp_2m_sde with 20 calls, and else as in the run's [grids] settings.")


@app.command
def evaluate(
    run: Path,
    /,
    *,
    num: int = 0,
    seeds: int = 3,
    minutes: float = 3.0,
    chain: Annotated[ChainOptions, Parameter(group=CHAIN)] = FAST,
    checkpoint: str = "newest",
    fid: bool = False,
    features: Path | None = None,
    split: Literal["train", "held_out"] = "train",
    reference: int = 0,
    memorisation: bool = True,
    against: Path | None = None,
    seed: int = 0,
    label: str | None = None,
    store: Path | None = None,
    batch_size: int = 64,
    dtype: Literal["float32", "bfloat16", "auto"] = "auto",
    device: str = "auto",
    ema: bool = True,
    json_: bool = False,
) -> int:
    """Judge a trained run: distances of its samples to the data, beside those of real images and of noise.

    Without any download the features are those of a small classifier of the run's own labels, trained in seconds and
    kept with the data (FD-classifier, which is no FID); data without labels has the sliced Wasserstein distance. With
    --fid Inception's are added: FID, KID, Inception Score, precision and recall, density and coverage. Images are drawn
    into RUN/generated, figures with their whole protocol go to RUN/evaluation; the same command again goes on where it
    was killed, and a finished one only prints.

    Example: `unstir evaluate runs/digits`

    Example: `unstir evaluate runs/mine --num 10000 --fid --against runs/theirs`

    Parameters
    ----------
    run
        Folder of the run.
    num
        Images a seed; 0: as many as before, else as --minutes allow, but not more than are held out where 100 or more
        are.
    seeds
        Sets of images, each of a seed of its own, for error bars.
    minutes
        What --num 0 fits into.
    checkpoint
        The saved step whose weights are judged, "newest", or "all": each saved step, for a curve.
    fid
        Also judge by the Inception network that FIDs are measured with; a file of 96 MB, downloaded once.
    features
        The file of that network, where it is already there; implies --fid.
    split
        The images to be compared with; published figures take those trained on.
    reference
        How many of them; 0: all, but with --fid on a CPU 2000, or --num.
    memorisation
        Look for copies of training images.
    against
        Another run, judged before by the same protocol, to be compared with.
    seed
        Seed of the first set.
    label
        Class, by its name or number; by default each as often as the data has it, where the network knows classes.
    store
        Folder of the packed data, where it has moved.
    batch_size
        Images computed at once.
    dtype
        Arithmetic inside the denoising network.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    ema
        Use the averaged weights where the run has them.
    json_
        Print the evaluations as JSON.
    """
    from unstir import console
    from unstir.errors import UserError
    from unstir.generate import Job
    from unstir.metrics import classifier, forecast
    from unstir.metrics import evaluate as judging
    from unstir.metrics.evaluation import describe, differences
    from unstir.metrics.features import Awaited
    from unstir.metrics.inception import NAME, SHA256, check_installed, inception
    from unstir.progress import duration
    from unstir.runs import build

    if not minutes > 0:  # NaN too
        raise UserError(f"minutes={minutes} must be more than 0; --num sets the number of images itself")
    if fid or features:
        check_installed()
    opened, data = _opened(run, store)
    named = opened.labels.number(label)
    how = {"ema": ema, "device": device, "dtype": dtype, "guide": chain.guide}
    models = _models(opened, checkpoint, **how)
    networks: list[Any] = list(classifier.networks_there(data))
    if fid or features:
        networks.append(Awaited(NAME, "" if features else SHA256))
        if not reference and build.device(device).type == "cpu":
            reference = min(data.count(split), max(ON_CPU, num))
    job = Job(
        num=num or 100,
        chain=judging.usual_chain(opened).changed(**chain.given(), seed=seed),
        batch_size=batch_size,
        **judging.usual_labels(opened, data, named),
    )
    plan = judging.Plan(
        model=models[-1],
        job=job,
        seeds=seeds,
        split=split,
        num_reference=reference,
        networks=tuple(networks),
        memorisation=memorisation,
    )
    plans = [dataclasses.replace(plan, model=model) for model in models]
    for each in plans:
        judging.check(opened, data, each)
    other = _other(opened, against) if against else None
    if other:
        num = num or forecast.known_number(opened, plans[-1], other)  # of another number nothing would compare
        forecast.match(opened, plans[-1], other, any_number=not num)
    if fid or features:
        networks[-1] = inception(features, say, device=device)
        plans = [dataclasses.replace(each, networks=tuple(networks)) for each in plans]
    plans, drawing = forecast.sized(opened, data, plans, num, 60 * minutes)
    if not num and forecast.known_number(opened, plan):
        say(f"{plans[0].job.num} images a seed, as when it was judged before; --num takes another number")
    preparing = classifier.preparing_seconds(data)
    if preparing:
        again = "once for this data" if _keeps(data) else f"at every call, for {data.path} cannot be written to"
        say(f"about {duration(preparing)} to train the classifier, {again}")
    if drawing:
        images = f"{len(plans)} x {seeds} x {plans[0].job.num} images"
        say(f"{images}, about {duration(drawing)} to draw those still missing")
    plans = judging.prepared(data, plans, console.counting)
    if other:
        forecast.match(opened, plans[-1], other)
    results = []
    for each in plans:
        with console.heartbeat("judging"):
            results.append(judging.evaluate(opened, data, each, showing=console.counting))
        if not json_:
            show(*describe(results[-1]).splitlines())
    comparison = differences(results[-1], forecast.match(opened, plans[-1], other)) if other else None
    if json_:
        print(json.dumps({"evaluations": [dataclasses.asdict(each) for each in results], "comparison": comparison}))
    elif comparison:
        show(*comparison)
    return 0


def _opened(path: Path, store: Path | None) -> tuple[Any, Any]:
    """The run and its data."""
    from unstir.data import Store, is_store
    from unstir.errors import UserError
    from unstir.runs.run import Run

    run = Run.open(path)
    if store is None and not is_store(run.config.data.store):
        raise UserError(f"{run.config.data.store}, the data of {path}, is no longer there; name it with --store")
    return run, Store.open(store or run.config.data.store)


def _keeps(store: Any) -> bool:
    """Whether the store's folder takes what is computed once."""
    from unstir.errors import UserError
    from unstir.runs.files import check_writable

    try:
        check_writable(store.path / "statistics")
    except UserError:
        return False
    return True


def _models(run: Any, text: str, **how: Any) -> list[Any]:
    """The models of the saved steps that ``--checkpoint`` names, rising; a guide cannot lead away from itself."""
    from unstir.errors import UserError

    if text == "newest":
        return [run.model(say=say, **how)]
    run.newest_step()  # says so where none was saved
    if text == "all":
        return [run.model(step, **how) for step in run.saved_steps() if str(step) != how["guide"]]
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f'--checkpoint {text} is no step; give "newest", "all" or one of {run.saved_steps()}')
    return [run.model(int(text), **how)]


def _other(run: Any, against: Path) -> Any:
    """The run to be compared with; UserError where it is none, or the run itself."""
    from unstir.errors import UserError
    from unstir.runs.run import Run

    other = Run.open(against)
    if other.path.resolve() == run.path.resolve():
        raise UserError(f"--against {against} is the run itself; name another")
    return other
