"""Learning rates that a remedy may name: near the run's own, and where such networks are known to train."""

from unstir.runs import recipes
from unstir.runs.config import Config

HIGHEST = 1e-3
"""The highest rate of the recipes here, whose networks are trained by Adam; Ho et al. 2020 have 2e-4."""

STEP = 3.0
"""A rate is changed by this factor at once, unless it lies above `HIGHEST` or the recipe's."""


def usual_rate(config: Config) -> float:
    """The rate of the recipe that the run began from; without one, that of Ho et al. 2020."""
    known = config.recipe in recipes.sentences()
    return (recipes.load_recipe(config.recipe) if known else Config()).train.lr


def lower_rate(config: Config) -> float:
    """A rate to try where the run's is too high: the recipe's where that is lower, else a third of it, and never
    above `HIGHEST`.
    """
    rate = config.train.lr
    if config.recipe in recipes.sentences() and usual_rate(config) < rate:
        return usual_rate(config)
    return min(rate / STEP, HIGHEST)


def higher_rate(config: Config) -> float | None:
    """A rate to try where the run's may be too low: towards the recipe's, by `STEP` at most.

    None where the run has the recipe's rate or a higher one: a higher one still is not known to train.
    """
    rate, usual = config.train.lr, usual_rate(config)
    return min(STEP * rate, usual) if rate < usual else None
