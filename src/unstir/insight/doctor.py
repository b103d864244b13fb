"""What may be wrong with a run: checks of its losses, weights, images, files, logs and settings, and all in a table."""

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

from unstir.insight import checks_data
from unstir.insight.facts import DAMAGED, STEEP, Facts, Lines, Samples, last_stretch
from unstir.insight.findings import Check, Finding, Severity, check, explained
from unstir.insight.gather import gather
from unstir.insight.image_stats import ImageStats, learns_nothing, outputs_nothing
from unstir.insight.statement import times
from unstir.insight.themes import quality
from unstir.progress import counting
from unstir.runs import build, recipes
from unstir.runs.checkpoint import Checkpoint
from unstir.runs.config import Config
from unstir.runs.files import is_number
from unstir.runs.lines import NAMES, cut, seconds_left
from unstir.runs.timetable import snapshots
from unstir.significance import Estimate, difference, two_sample

# Thresholds; docs/doctor.md explains them.
RISE = 1.15  # the last quarter of the lines over the best
FEWEST = 8  # lines; with fewer there is no verdict on a trend
PEAK = 1.3  # times the error of an output of 0, which is exceeded where the rate is too high
ENOUGH_IMAGES = 20_000  # seen; with fewer a run that goes on is not judged
BRIGHTER = 0.15  # of the standard deviation of the data's values: a shift of the mean that can be seen
SIGNAL = -7.0  # log-SNR at t = T, alpha 0.03: above, images keep something that the noise a chain begins with lacks
ALIKE = 0.5  # of the data's variance between images

HIGHEST = {"adam": 2e-3, "adamw": 2e-3, "muon": 4e-3}  # learning rates that trained digits well
STEP = 3.0  # a rate is changed by this factor at once, unless it lies above the highest


def lower_rate(config: Config) -> str:
    """A new run with a lower rate, never above the highest usual one, and gradients clipped where they are not."""
    rate = min(config.train.lr / STEP, HIGHEST[config.train.optimizer])
    clip = "" if 0 < config.train.clip <= 1 else " and `train.clip=1`"
    return f"a new run with `train.lr={rate:.2g}`{clip}"


def longer(facts: Facts) -> str:
    """The command that lets a run go on to twice its length, or to its recipe's where a quick try was shorter."""
    run, train, recipe = facts.run, facts.config.train, facts.config.recipe
    if run.shipped and not facts.config.kind.has_teacher:
        return f"train for longer, from its weights, `{run.going_on}`"
    usual = run.steps_in(recipes.load_recipe(recipe).train.length) if recipe in recipes.sentences() else 0
    length = max(2 * run.length, usual)
    if facts.config.kind.has_teacher:
        return f'go on for longer, `length="{length} steps"`'
    cosine = train.lr_schedule == "cosine"
    period = f' train.lr_period="{length - run.steps_in(train.warmup)} steps"' if cosine else ""
    return f'train for longer, `unstir train out=RUN train.length="{length} steps"{period}`'


def _quarters(facts: Facts) -> list[Estimate]:
    """The median log-loss of each quarter of the log; none of a short log, or where a loss is 0.

    The log begins after the warm-up, without its first line, which still falls fast. A line scatters about the trend by
    the median absolute difference of neighbours (normal noise).
    """
    warm = facts.run.steps_in(facts.config.train.warmup)
    lines = [line for line in facts.lines if line["step"] > warm and is_number(line["loss"])][1:]
    if len(lines) < FEWEST or any(line["loss"] <= 0 for line in lines):
        return []
    n = len(lines) // 4
    logs = [math.log(line["loss"]) for line in lines[-4 * n :]]
    scatter = 1.4826 / math.sqrt(2) * median_low([abs(b - a) for a, b in pairwise(logs)])
    error = 1.25 * scatter / math.sqrt(n)  # a median's is 1.25 that of a mean, for normal noise
    return [Estimate(median_low(logs[i * n : (i + 1) * n]), error, n) for i in range(4)]


@check("not-finite", "gradients were not finite", of_training=True)
def _not_finite(facts: Facts, lines: Lines) -> Iterator[Finding]:
    last = lines[-1]
    skipped, without = last["skipped"], sum(not is_number(line["loss"]) for line in lines)
    if skipped or without:
        share = max(skipped / max(last["step"], 1), without / len(lines))
        severe = share > 0.01 or not is_number(last["loss"])
        steps = f"{skipped} of {last['step']} steps were skipped"
        evidence = f"{steps} and {without} of {len(lines)} lines have no finite loss; none should"
        severity: Severity = "problem" if severe else "warning"
        yield Finding(severity, evidence, lower_rate(facts.config), share, 0.0)


@check("loss-rises", "the loss rises", of_training=True)
def _loss_rises(facts: Facts, lines: Lines) -> Iterator[Finding]:
    quarters = _quarters(facts)
    rise = difference(min(quarters[:-1]), quarters[-1], 3) if quarters else None
    if rise and rise.value > math.log(RISE) and (rise.decided or not rise.error):  # lines may not scatter at all
        evidence = f"its last quarter is {times(math.exp(rise.value))} the best quarter; at most {RISE} is usual"
        remedy = f"{lower_rate(facts.config)}, or with `train.lr_schedule=cosine`; sample an earlier step of this run"
        yield Finding("problem", evidence, remedy, math.exp(rise.value), RISE)


@check("still-falling", "the loss still falls steeply where the run ends", of_training=True)
def _still_falling(facts: Facts, held_out: Lines) -> Iterator[Finding]:
    last = last_stretch(facts.measured)
    if not facts.finished or last is None or not last.gains:
        return
    by = f"{last.share:.0%} ({abs(last.fall.errors):.0f} standard errors), {last.rate:.0%} for each doubling of these"
    span = f"from {last.before.images} to {last.after.images} training images"
    evidence = f"{span} the held-out loss fell by {by}; less than {STEEP:.0%} is usual"
    if last.steep:
        yield Finding("warning", evidence, longer(facts), last.rate, STEEP)
    elif any(it.name == "excess" and it.verdict == "bad" for it in quality(facts)):
        says = "the loss still falls where the run ends, and samples can be told from real images"
        yield Finding("note", evidence, longer(facts), last.rate, STEEP, says=says)


@check("not-learned", "the network has not learned to see images", of_training=True, single_times=True)
def _not_learned(facts: Facts, lines: Lines, images: ImageStats) -> Iterator[Finding]:
    errors = [error for line in lines if is_number(error := line["mse" if "mse" in line else "loss"])]
    seen = lines[-1]["step"] * facts.config.train.batch_size
    if not errors or not (facts.finished or seen >= ENOUGH_IMAGES):
        return
    ended, limit = fmean(errors[-3:]), learns_nothing(facts.run, images.mean, images.std)
    peak, untrained = max(errors), outputs_nothing(facts.run, images.mean, images.std)
    evidence = f"after {seen} images the squared error is {ended:.3g}; the data's mean and variance give {limit:.3g}"
    if ended > limit and peak > PEAK * untrained:
        evidence += f"; it reached {peak:.3g}; at most {PEAK:g} times {untrained:.3g}, that of no training, is usual"
        says = "training diverged, for the learning rate is too high"
        yield Finding("problem", evidence, lower_rate(facts.config), peak / untrained, PEAK, says=says)
    elif ended > limit:
        remedy = longer(facts) if facts.finished else "let it go on; if this stays, begin a new run with a higher rate"
        yield Finding("problem", evidence, remedy, ended, limit)


@check("weights-finite", "the saved weights are not finite")
def _weights_finite(facts: Facts, loaded: Checkpoint) -> Iterator[Finding]:
    weights = [t for name, t in loaded.tensors.items() if name.startswith(("model.", "ema."))]
    broken = sum(not t.isfinite().all() for t in weights)
    if broken:
        evidence = f"{broken} of {len(weights)} tensors of step {loaded.step} hold NaN or an infinity; none should"
        remedy = f"sample an earlier step, or {lower_rate(facts.config)}"
        yield Finding("problem", evidence, remedy, broken, 0)


@check("brightness")
def _brightness(facts: Facts, samples: Samples) -> Iterator[Finding]:
    drawn, real = (images.double().flatten(1).mean(1) for images in (samples.made, samples.real))
    result, most = two_sample(real.tolist(), drawn.tolist()), BRIGHTER * samples.real.double().std().item()
    sure = f"{abs(result.errors):.0f} standard errors" if result.error else "the same in every image"
    gap = abs(result.value)
    if gap > most and (result.decided or not result.error):
        means = f"the mean of their values is {drawn.mean():.1f}, the data's {real.mean():.1f}: {gap:.1f} levels of 255"
        evidence = f"{means} ({sure}; {samples.chain}); at most {most:.1f} is usual"
        remedy = longer(facts)
        if build.schedule(facts.config.diffusion).log_snr(facts.config.diffusion.T) > SIGNAL:
            remedy += "; its schedule keeps signal at t = T: use `diffusion.schedule=cosine` in a new run"
        says = f"samples are {'lighter' if result.value > 0 else 'darker'} than the data"
        yield _finding(facts, evidence, remedy, gap, most, says)


@check("collapse", "samples are nearly all alike")
def _collapse(facts: Facts, samples: Samples) -> Iterator[Finding]:
    drawn, real = (images.double().flatten(1).var(0).mean().item() for images in (samples.made, samples.real))
    ratio = drawn / real if real else math.inf
    if not ratio >= ALIKE:
        evidence = f"they vary by {ratio:.2f} of the data's variance ({samples.chain}); at least {ALIKE} is usual"
        remedy = "if the loss is low, look for copies in the data; else train longer, or anew at a lower learning rate"
        yield _finding(facts, evidence, remedy, ratio, ALIKE)


def _finding(facts: Facts, evidence: str, remedy: str, figure: float, threshold: float, says: str = "") -> Finding:
    """A problem; of a run in training a warning, for it may pass, and the remedy is to wait first."""
    if facts.finished:
        return Finding("problem", evidence, remedy, figure, threshold, says=says)
    wait = f"the run is at step {facts.step} of {facts.run.length}: look again at its end; if it stays, "
    return Finding("warning", evidence, wait + remedy, figure, threshold, says=says)


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
        what = "; ".join(log.problem for log in broken)
        evidence = f"{num} of {num + sum(len(log.lines) for log in broken)}: {what}; they are left out of every figure"
        remedy = "restore the file from a copy"
        if not facts.run.shipped:
            remedy += ", or go on without them: `unstir train out=RUN` keeps a copy"
        yield Finding("problem", evidence, remedy, num, 0)
    elif facts.loaded and (missing := cut(logs, facts.loaded)):
        says = "lines of the run's logs are missing"
        yield Finding("problem", "; ".join(missing), "restore it from a copy", len(missing), 0, says=says)


@check("figures", "files in the run's folder are left out")
def _figures(facts: Facts) -> Iterator[Finding]:
    if facts.left_out:
        evidence, num = "; ".join(facts.left_out), len(facts.left_out)
        missing = facts.last is None or facts.older or any(DAMAGED in text for text in facts.left_out)
        remedy = "delete these files" + ("; `unstir report RUN` measures what is missing" if missing else "")
        yield Finding("warning", evidence, remedy, num, 0)


def forecast(facts: Facts) -> dict[str, float | None]:
    """Steps and seconds left; None where no line gives the speed."""
    left = max(facts.run.length - facts.step, 0)
    seconds = seconds_left(facts.lines, left, facts.config.train.batch_size)
    return {"steps_left": left, "seconds_left": seconds if left else 0.0}


CHECKS: dict[str, Check] = {
    check.name: check for check in (*vars(checks_data).values(), *globals().values()) if isinstance(check, Check)
}


@dataclass(frozen=True)
class Report:
    """The findings, names ``checked``, why others were ``skipped``, and in ``forecast`` steps and seconds left."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    skipped: dict[str, str]
    forecast: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """Whether nothing found is a problem."""
        return all(finding.severity != "problem" for finding in self.findings)


def diagnose(path: str | Path, *, store: str | Path | None = None, samples: bool = True) -> Report:
    """Read the run in folder ``path``, draw from it and examine it. Arguments and errors as `gather`."""
    with counting("examining", ""):
        return examine(gather(path, store=store, samples=samples))


def examine(facts: Facts) -> Report:
    """Run every check whose needs are met."""
    reasons = {name: _why_not(check, facts) for name, check in CHECKS.items()}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    checked = tuple(name for name in CHECKS if name not in skipped)
    findings = [finding for name in checked for finding in CHECKS[name].run(facts)]
    if facts.config.kind.has_teacher:
        findings = [replace(it, remedy=re.sub(r"`train\.(lr|length)=", r"`\1=", it.remedy)) for it in findings]
    return Report(tuple(explained(findings)), checked, skipped, forecast(facts))


def _why_not(check: Check, facts: Facts) -> str:
    """Why a check cannot be made of this run; "" where it can."""
    if not facts.config.kind.trained_here and check.of_training:
        return "the run was imported, and trained elsewhere"
    if facts.config.kind.has_teacher and check.single_times:
        return "a distilled run has no error of single times"
    return next(filter(None, map(facts.why_not, check.needs)), "")
