"""What a report says before it measures: how much there is to do, in words that count what they name."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from unstir.report import write
from unstir.report.gather import Measuring


@pytest.mark.parametrize(
    ("steps", "chains", "words"),
    [
        (2, 7, "run: 2 saved steps and 7 pairs of sampler and steps, 3 x 100 images each, about 2 minutes where"),
        (1, 1, "run: 1 saved step and 1 pair of sampler and steps, 3 x 100 images each, about 2 minutes where"),
    ],
)
def test_the_first_line_counts_pairs_of_sampler_and_steps_as_such(monkeypatch, steps, chains, words):
    plan = Measuring((None,) * steps, (None,) * chains, 100, 120.0)
    monkeypatch.setattr(write, "planned", lambda run, store, **asked: plan)
    run, said = SimpleNamespace(path=Path("run"), saved_steps=lambda: [1]), []
    write._planned([run], ["store"], 5.0, 0, 3, said.append)
    assert len(said) == 1 and said[0].startswith(words)
