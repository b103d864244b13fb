"""What a report says before it measures: how much there is to do, in words that count what they name."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from unstir.report import write
from unstir.report.gather import Measuring


@dataclass(frozen=True)
class Each:
    """What is read of a plan."""

    num: int = 100
    seeds: int = 3
    networks: tuple = ()


@pytest.mark.parametrize(
    ("steps", "chains", "words"),
    [
        (2, 7, "run: 2 saved steps and 7 pairs of sampler and steps, 3 x 100 images each, about 2 minutes to draw"),
        (1, 1, "run: 1 saved step and 1 pair of sampler and steps, 3 x 100 images each, about 2 minutes to draw"),
    ],
)
def test_the_first_line_counts_pairs_of_sampler_and_steps_as_such(monkeypatch, logged, steps, chains, words):
    each = Each()
    monkeypatch.setattr(write, "planned", lambda run, store, **asked: Measuring((each,) * steps, (each,) * chains))
    monkeypatch.setattr(write, "networks_for", lambda *given: [])
    monkeypatch.setattr(write, "drawing_seconds", lambda plans: 120.0)
    run = SimpleNamespace(path=Path("run"), saved_steps=lambda: [1])
    write._planned([run], ["store"], 0, 3)
    assert len(logged) == 1 and logged[0].startswith(words)
