"""Checks of the run's own files: its logs line by line, and whether its settings are those of its weights."""

from collections.abc import Iterator

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Finding, check
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.lines import NAMES, cut


@check("logs", "lines of the run's logs are damaged")
def damaged_lines(facts: RunFacts) -> Iterator[Finding]:
    """Lines of metrics.jsonl, held_out.jsonl or events.jsonl that are missing or not what was written."""
    logs = {name: facts.run.log(name) for name in NAMES}
    broken = [log for log in logs.values() if log.damaged]
    if broken:
        num = sum(len(log.damaged) for log in broken)
        yield Finding(
            "problem",
            f"{num} of {num + sum(len(log.lines) for log in broken)}: {'; '.join(log.problem for log in broken)}; none "
            "should be, and they are left out of every figure",
            f"restore the file from a copy, or go on without them: unstir train --out {facts.run.path} keeps a copy",
            num,
            0,
        )
    elif facts.loaded and (missing := cut(logs, facts.loaded)):
        says = "lines of the run's logs are missing"
        yield Finding("problem", "; ".join(missing), "restore it from a copy", len(missing), 0, says=says)


@check("settings", "the weights were trained with other settings or other data")
def settings(facts: RunFacts, loaded: Checkpoint) -> Iterator[Finding]:
    """Settings in config.toml, or data in data.json, that are not those of the newest whole checkpoint."""
    if facts.settings_problem:
        what, _, remedy = facts.settings_problem.rpartition("; ")
        yield Finding("problem", what, remedy, 1, 0)
