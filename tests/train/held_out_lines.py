"""The lines of held_out.jsonl of tiny runs."""

from unstir.train.record import VARYING

MEASURED = {"log__held_out_images": 6, "log__held_out_times": 2}


def measured(run):
    """The lines without what depends on the clock."""
    return [{key: value for key, value in line.items() if key not in VARYING} for line in run.held_out()]
