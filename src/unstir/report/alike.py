"""Whether the figures of several runs compare; where not, what differs and the commands that mend it."""

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unstir.metrics.evaluate import usual_chain
from unstir.metrics.evaluation import FID, SHARES, Evaluation, saved, unlike
from unstir.runs import build
from unstir.runs.run import Run


@dataclass(frozen=True)
class Sides:
    """The newest evaluation of each run by one protocol, ``alike``; or none, and why: ``reasons`` and ``remedies``.

    A reason is a sentence; a remedy is a command that makes the figures comparable.
    """

    alike: tuple[Evaluation, ...] = ()
    reasons: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def same_protocol(runs: Sequence[Run]) -> Sides:
    """The newest evaluation of each run, all by one protocol; or what differs, and the commands that mend it."""
    of_each = [_newest(saved(run)) for run in runs]
    if not any(of_each):
        commands = tuple(f"unstir evaluate {shlex.quote(str(run.path))}" for run in runs)
        return Sides((), ("None of these runs was evaluated yet.",), commands)
    for first in reversed(of_each[0]):
        matches = [next((e for e in found if not unlike(first.protocol, e.protocol)), None) for found in of_each]
        if all(matches):
            return Sides(tuple(match for match in matches if match is not None))
    like = _most_alike(of_each)
    sides = [_side(run, found, like) for run, found in zip(runs, of_each, strict=True)]
    reasons, remedies = zip(*(side for side in sides if side is not None), strict=True)
    return Sides((), tuple(reasons), tuple(remedy for remedy in remedies if remedy))


def _newest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    newest = max((each.step for each in evaluations), default=0)
    return [each for each in evaluations if each.step == newest]


def _most_alike(of_each: Sequence[Sequence[Evaluation]]) -> Evaluation:
    """The evaluation that differs from the nearest ones of the other runs in the fewest keys; of equals the first."""

    def apart(of: Evaluation) -> int:
        return sum(min(len(unlike(of.protocol, each.protocol)) for each in found) for found in of_each if found)

    return min(itertools.chain(*of_each), key=apart)


def _side(run: Run, found: Sequence[Evaluation], like: Evaluation) -> tuple[str, str] | None:
    """Why no figures of a run compare with ``like``, and the command that makes them; None where some do."""
    asked = like.protocol
    nearest = min(found, key=lambda each: len(unlike(asked, each.protocol)), default=None)
    if nearest is not None and not unlike(asked, nearest.protocol):
        return None
    name = str(run.path)
    why = f"{name} was not evaluated." if nearest is None else f"{name}: {'; '.join(unlike(nearest.protocol, asked))}."
    own = _by_default(run)
    if asked["data"] != own["data"]:
        return f"{why} No command makes figures of two data sets comparable.", ""
    if (asked["label"] is None) != (own["label"] is None):
        return f"{why} Figures of a network with classes and of one without never compare.", ""
    differing = [key for key, value in own.items() if key in asked and asked[key] != value]
    options = {"num": asked["num"], "seeds": asked["seeds"], **{key: asked[key] for key in differing}}
    if asked["num_reference"] != run.data.counts[asked["split"]]:
        options["reference"] = asked["num_reference"]
    command = ["unstir", "evaluate", name, *itertools.chain(*(_option(run, *pair, like) for pair in options.items()))]
    if FID in like.figures:
        command.append("--fid")
    elif nearest is not None and nearest.protocol["networks"] != asked["networks"]:
        why += " All must be evaluated with one store: name it with --store."
    return why, shlex.join(command)


def _by_default(run: Run) -> dict[str, Any]:
    """The keys of a protocol that options of `unstir evaluate` set, as they are without any; and the data."""
    chain = dataclasses.replace(usual_chain(run), seed=0)
    sampling = dataclasses.asdict(chain) | {"steps": chain.cost(build.schedule(run.config.diffusion)).steps}
    label = SHARES if run.config.model.num_classes else None
    known = {"data": run.data.content_hash, "label": label, "guide": None, "split": "train"}
    dtype = build.dtype_name("auto", build.device("auto"))
    return {**known, **sampling, "ema": run.config.train.ema_decay > 0, "dtype": dtype}


def _option(run: Run, key: str, value: Any, like: Evaluation) -> list[str]:
    """A key of a protocol as an option of `unstir evaluate`."""
    name = f"--{key.replace('_', '-')}"
    if key == "steps":  # of more steps some spacings visit no more times
        how, schedule = like.protocol, build.schedule(run.config.diffusion)
        chains = (usual_chain(run).changed(spacing=how["spacing"], steps=n) for n in range(1, schedule.T + 1))
        value = next((each.steps for each in chains if each.cost(schedule).steps == value), value)
    if isinstance(value, bool):
        return [name if value else f"--no-{key}"]
    return [name, str(value)]
