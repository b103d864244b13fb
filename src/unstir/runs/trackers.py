"""The trackers that log.to may name, each with the module of its class ``Tracker``, which is loaded when it is named.

A Tracker is an `Observer` (`unstir.train.observer`), made of a run's folder.
"""

from typing import TYPE_CHECKING, Literal

TRACKERS = {"tensorboard": "unstir.trackers.tensorboard", "wandb": "unstir.trackers.wandb"}

if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[tuple(TRACKERS)]
