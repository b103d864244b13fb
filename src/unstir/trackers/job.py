"""What the process of a tracker is asked to do: which run it follows, and what it sends at the end."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """Follow the ``run`` in this folder, with the names of its ``snapshots`` by step, and send its ``page`` at last."""

    run: Path
    snapshots: dict[int, str]
    page: Path

    def to_json(self) -> str:
        """The job as one line."""
        return json.dumps({"run": str(self.run), "snapshots": list(self.snapshots.items()), "page": str(self.page)})

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job of a line that `to_json` made."""
        values = json.loads(text)
        return cls(Path(values["run"]), {int(step): name for step, name in values["snapshots"]}, Path(values["page"]))


def rest_of(run: Path) -> str:
    """What gives a tracker that failed at the end the rest of a run."""
    return f"unstir report {run} --no-measure, or continuing the run, gives it the rest"
