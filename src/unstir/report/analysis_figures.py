"""Figures of an evaluation as sentences have them."""

from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import Figure
from unstir.report.wording import with_error


def beside(evaluation: Evaluation, figure: str) -> Figure | None:
    """The figure of this name ("coverage") in the features of the main one; None where it is not there."""
    return evaluation.figures.get(f"{evaluation.main_key.split('/')[0]}/{figure}")


def shown(figure: Figure) -> str:
    """Its value with the error."""
    return with_error(figure.value, figure.error)
