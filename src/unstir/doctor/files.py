"""Checks of the run's own files: its logs line by line, and whether its settings are those of its weights."""

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Check, Finding
from unstir.runs import logs


def damaged_lines(facts: RunFacts) -> Finding | None:
    """Lines of metrics.jsonl, held_out.jsonl or events.jsonl that are missing or not what was written."""
    of_run = {name: facts.run.log(name) for name in logs.NAMES}
    broken = [log for log in of_run.values() if log.damaged]
    cut = logs.cut(of_run, facts.loaded) if facts.loaded else []
    if not broken and cut:
        said, num = "; ".join(cut), len(cut)
        return Finding("logs", "problem", "lines of the run's logs are missing", said, "restore it from a copy", num, 0)
    if not broken:
        return None
    num = sum(len(log.damaged) for log in broken)
    return Finding(
        "logs",
        "problem",
        "lines of the run's logs are damaged",
        f"{num} of {num + sum(len(log.lines) for log in broken)}: {'; '.join(log.problem for log in broken)}; none "
        "should be, and they are left out of every figure",
        f"restore the file from a copy, or go on without them: unstir train --out {facts.run.path} keeps a copy",
        num,
        0,
    )


def settings(facts: RunFacts) -> Finding | None:
    """Settings in config.toml, or data in data.json, that are not those of the newest whole checkpoint."""
    if not facts.settings_problem:
        return None
    what, _, remedy = facts.settings_problem.rpartition("; ")
    return Finding(
        "settings",
        "problem",
        "the settings or the data beside the weights are not theirs",
        what,
        remedy,
        1,
        0,
    )


CHECKS = (
    Check("logs", "every line of the logs, by its checksum", damaged_lines),
    Check("settings", "config.toml and data.json against the newest checkpoint", settings, ("loaded",)),
)
