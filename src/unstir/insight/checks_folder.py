"""Checks of the run's folder and machine: its files, its logs, its settings, and the disk."""

import shlex
from collections.abc import Iterator

from unstir.insight.facts import DAMAGED, Facts
from unstir.insight.findings import Finding, check
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.lines import NAMES, cut, seconds_left
from unstir.runs.timetable import snapshots


@check("checkpoints", "saved files are damaged")
def _checkpoints(facts: Facts) -> Iterator[Finding]:
    run, broken = facts.run, [file for file in facts.files if file.problem]
    whole = [file for file in facts.files if not file.problem]
    usable = whole if facts.finished else [file for file in whole if file.kind == "full"]
    first = min([run.steps_in(run.config.checkpoint.every), *(step for step in snapshots(run) if step)])
    if (facts.files or facts.step >= first) and not usable:
        lacks = "weights alone, with nothing to continue from" if whole else "no whole file of weights"
        evidence = "; ".join([f"{run.path} has {lacks}", *(file.problem for file in broken[:1])])
        remedy = f"restore a file of {run.weights if facts.finished else run.checkpoints}, or begin a new run"
        remedy += f" with `train.init={shlex.quote(str(whole[-1].path))}`" if whole else ""
        says = "nothing can be sampled from the run" if facts.finished else "training cannot be continued"
        yield Finding("problem", evidence, remedy, 0, 1, says=says)
    elif broken:
        newest = max(file.step for file in facts.files)
        lost = any(file.step == newest and file.kind == "full" for file in broken)
        evidence = f"{len(broken)} of {len(facts.files)}: {broken[0].problem}; none should be"
        remedy = f"restore them, or delete them: the newest that is whole is of step {max(f.step for f in usable)}"
        yield Finding("problem" if lost else "warning", evidence, remedy, len(broken), 0)


@check("logs", "lines of the run's logs are damaged")
def _logs(facts: Facts) -> Iterator[Finding]:
    logs = {name: facts.run.log(name) for name in NAMES}
    broken = [log for log in logs.values() if log.damaged]
    if broken:
        num = sum(len(log.damaged) for log in broken)
        evidence = f"""{num} of {num + sum(len(log.lines) for log in broken)}:
            {"; ".join(log.problem for log in broken)}; none should be, and they are left out of every figure"""
        remedy = "restore the file from a copy, or go on without them: `unstir train out=RUN` keeps a copy"
        yield Finding("problem", evidence, remedy, num, 0)
    elif facts.loaded and (missing := cut(logs, facts.loaded)):
        says = "lines of the run's logs are missing"
        yield Finding("problem", "; ".join(missing), "restore it from a copy", len(missing), 0, says=says)


@check("figures", "figures of the run are left out")
def _figures(facts: Facts) -> Iterator[Finding]:
    if facts.left_out:
        evidence, num = "; ".join(facts.left_out), len(facts.left_out)
        missing = facts.last is None or facts.older or any(DAMAGED in text for text in facts.left_out)
        remedy = "delete these files" + ("; `unstir report RUN` measures what is missing" if missing else "")
        yield Finding("warning", evidence, remedy, num, 0)


@check("settings", "the weights were trained with other settings or other data")
def _settings(facts: Facts, loaded: Checkpoint) -> Iterator[Finding]:
    if facts.settings_problem:
        evidence, _, remedy = facts.settings_problem.rpartition("; ")
        yield Finding("problem", evidence, remedy, 1, 0)


def forecast(facts: Facts) -> dict[str, float | None]:
    """Steps and seconds left; None where no line gives the speed."""
    left = max(facts.run.length - facts.step, 0)
    seconds = seconds_left(facts.lines, left, facts.config.train.batch_size)
    return {"steps_left": left, "seconds_left": seconds if left else 0.0}
