"""Runs that differ in the seed alone as one setting: the mean of each figure over trainings, and its deviation."""

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unstir.errors import UserError
from unstir.insight.facts import Facts, Reported, same_features
from unstir.metrics.evaluation import Evaluation, check_alike
from unstir.metrics.figures import Figure
from unstir.runs import toml
from unstir.runs.config import MAY_CHANGE

LEARNING = {"train.length", "train.lr_period"}  # may change in a run, and change the weights
MEANING = "± is the standard deviation over trainings"


@dataclass(frozen=True)
class Setting:
    """A ``name``, and the newest evaluation of each training."""

    name: str
    evaluations: tuple[Evaluation, ...]

    def values(self, text: str) -> tuple[float, float | None]:
        """The mean of a figure (`chosen`) over trainings, and its standard deviation; None for one training."""
        means = [chosen(evaluation, text).value for evaluation in self.evaluations]
        return statistics.mean(means), statistics.stdev(means) if len(means) > 1 else None


def settings(runs: Sequence[Reported]) -> list[Setting]:
    """The runs that were evaluated, in the order of the first of each setting. UserError where protocols differ."""
    groups: list[list[Reported]] = []
    for facts in runs:
        if facts.last is not None:
            known = next((group for group in groups if _alike(group[0], facts)), None)
            groups.append([facts]) if known is None else known.append(facts)
    evaluations = [tuple(facts.last for facts in group if facts.last is not None) for group in groups]
    for evaluation in itertools.chain(*evaluations):
        check_alike(evaluations[0][0].protocol, evaluation.protocol)
    names = [_name(group) for group in groups]
    if "" in names or len(set(names)) < len(names):
        names = [group[0].name for group in groups]
    return [Setting(*pair) for pair in zip(names, evaluations, strict=True)]


def _alike(a: Reported, b: Reported) -> bool:
    """Whether two runs learned the same data by the same settings to the same step, from another seed."""
    if not (isinstance(a, Facts) and isinstance(b, Facts) and a.last and b.last and a.last.step == b.last.step):
        return False
    free = {"seed", *MAY_CHANGE} - LEARNING
    one, other = ({key: value for key, value in toml.flat(it.config).items() if key not in free} for it in (a, b))
    return one == other and a.data.content_hash == b.data.content_hash


def _name(group: Sequence[Reported]) -> str:
    """What the names of folders have in common but for the seed: "dit" of dit-seed0 and dit-seed1, or of one alone."""
    names = [facts.name for facts in group]
    seed = str(group[0].config.seed) if isinstance(group[0], Facts) else ""
    if len(names) == 1:
        return re.sub(rf"[-_. ]+(seed|s)?{seed}$", "", names[0]) if seed else names[0]
    common = names[0].removesuffix(seed)
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return common if common == names[0] else re.sub(r"[-_. ]+(seed|s)?[-_. ]*$", "", common)


def chosen(evaluation: Evaluation, text: str) -> Figure:
    """The figure of a key such as "classifier/fd", or "fd" in the features of the main one. UserError for none."""
    figure = evaluation.figures.get(text) or same_features(evaluation, text)
    if figure is None:
        raise UserError("figures", text, "was not measured", f"choose among {', '.join(evaluation.figures)}")
    return figure
