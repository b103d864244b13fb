"""`unstir evaluate`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from cyclopts import Group, Parameter

from unstir.chain import FAST
from unstir.cli.app import app, say, show, show_json
from unstir.cli.options import FLAT, ChainOptions, RunFolder
from unstir.metrics.request import EvaluationRequest

USUAL = f"Defaults are {FAST.sampler} with {FAST.steps} steps, and else as in the run's [grids] settings."


@FLAT
@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(EvaluationRequest):
    """A request as options; the chain and its guide have options of their own."""

    chain: Annotated[Mapping[str, Any], Parameter(parse=False)] = field(default_factory=dict)
    guide: Annotated[str | None, Parameter(parse=False)] = None


@app.command
def evaluate(
    run: RunFolder,
    /,
    *,
    options: EvaluationOptions = EvaluationOptions(),
    chain: Annotated[ChainOptions, Parameter(group=Group("Chain", help=USUAL))] = ChainOptions(),
    json_: bool = False,
) -> int:
    """Evaluate a trained run: distances of its samples to the data, with those of real images and of noise.

    Without any download the features are those of a small classifier of the run's own labels, trained in seconds and
    kept with the data (FD-classifier, which is no FID); data without labels has the sliced Wasserstein distance. With
    --fid Inception's are added: FID, KID, Inception Score, precision and recall, density and coverage. Images are drawn
    into RUN/generated, figures with their whole protocol go to RUN/evaluation; the same command again goes on where it
    was killed, and a finished one only prints.

    Example: `unstir evaluate runs/digits`

    Example: `unstir evaluate runs/mine --num 10000 --fid --against runs/theirs`

    Args:
        json_: Print the evaluations as JSON.
    """
    from unstir import console
    from unstir.metrics.evaluate_run import evaluate_run
    from unstir.metrics.evaluation import Evaluation, describe

    request = dataclasses.replace(options, chain=chain.given(), guide=chain.guide)

    def finished(evaluation: Evaluation) -> None:
        if not json_:
            show(*describe(evaluation).splitlines())

    with console.heartbeat("evaluating"):
        found, comparison = evaluate_run(run, request, say=say, showing=console.counting, finished=finished)
    if json_:
        show_json({"evaluations": found, "comparison": comparison or None})
    elif comparison:
        show(*comparison)
    return 0
