"""Checks of the run's settings and folder: the noise schedule, the sampler of its grids, its files, the machine."""

import math
from collections.abc import Iterator

from unstir.doctor.facts import RunFacts
from unstir.doctor.finding import Finding, Severity, check
from unstir.doctor.numbers import median, numbers
from unstir.runs import build
from unstir.runs.timetable import snapshots

# Thresholds; docs/doctor.md has what trained runs and published ones measure.
SIGNAL_NOTE, SIGNAL_WARNING, SIGNAL_PROBLEM = 1.0, 2.0, 4.0  # shift of x_T by an image, in deviations of the noise
FEWEST_STEPS = 20  # of the ancestral chain and ddim
STRIDED = 0.5  # share of the T times below which the large variance is ruinous
FULL = 0.9  # share of the memory that training may need; the rest is for the program and other processes


@check("signal-left", "x_T keeps signal, while sampling begins from pure noise")
def signal_left(facts: RunFacts) -> Iterator[Finding]:
    """An x_T that still shows the image, though sampling begins from pure noise there."""
    schedule = build.schedule(facts.run.config.diffusion)
    log_snr = schedule.log_snr(schedule.T)
    power = facts.images.mean**2 + facts.images.std**2 if facts.images else 0.25
    seen = math.exp(0.5 * log_snr) * math.sqrt(power * math.prod(facts.run.data.shape))
    if seen > SIGNAL_NOTE:
        severity: Severity = "problem" if seen > SIGNAL_PROBLEM else "warning" if seen > SIGNAL_WARNING else "note"
        cfg = facts.run.config.diffusion
        scaled = f" --diffusion.beta_T {min(cfg.beta_T * 1000 / cfg.T, 0.9):.2g}" if cfg.T < 1000 else ""
        yield Finding(
            severity,
            f"log SNR is {log_snr:.1f} at t = T = {cfg.T}: an image shifts x_T by {seen:.1f} standard deviations of "
            f"the noise; at most {SIGNAL_NOTE:g} is harmless. Above, samples tend to a middle brightness",
            "a new run with --diffusion.schedule cosine, "
            + (f"or a steeper linear one,{scaled}" if scaled else "or --diffusion.zero_terminal_snr with predict v"),
            seen,
            SIGNAL_NOTE,
        )


@check("grid-sampler", "the grids of samples are drawn in too few steps")
def grid_sampler(facts: RunFacts) -> Iterator[Finding]:
    """A sampler of the run's grids that needs more steps than it has."""
    cfg, T = facts.run.config.grids, facts.run.config.diffusion.T
    steps = facts.run.chain().cost(build.schedule(facts.run.config.diffusion)).steps
    strided = cfg.sampler == "ancestral" and cfg.variance == "large" and steps < STRIDED * T
    few = cfg.sampler in ("ancestral", "ddim") and steps < min(FEWEST_STEPS, T)
    if strided or few:
        need = math.ceil(STRIDED * T) if strided else min(FEWEST_STEPS, T)
        what = f"variance={cfg.variance}, {steps} steps" if strided else f"{steps} steps"
        yield Finding(
            "warning",
            f"grids.sampler={cfg.sampler} with {what} of T = {T}; at least {need} are usual",
            ("--grids.variance auto" if strided else "--grids.sampler dpmpp_2m --grids.steps 15")
            + ", which may change when the run goes on; unstir sample has the same options",
            steps,
            need,
        )


@check("unclamped", "grids are drawn without clamping")
def unclamped(facts: RunFacts) -> Iterator[Finding]:
    """Grids drawn without clamping where an error of the noise is magnified beyond all bounds at the first step."""
    config = facts.run.config
    schedule = build.schedule(config.diffusion)
    factor = 1 / (schedule.alpha(schedule.T) or math.nan)
    if factor > 1000 and config.diffusion.predict == "eps" and not config.grids.clip:
        yield Finding(
            "warning",
            f"grids.clip is off and 1 / alpha_T = {factor:.2g} magnifies every error of the predicted noise at t = T; "
            "1000 at most is harmless",
            "--grids.clip, which may change when the run goes on",
            factor,
            1000.0,
        )


@check("checkpoints", "saved files are damaged")
def checkpoints(facts: RunFacts) -> Iterator[Finding]:
    """Files that are damaged, or none that training could go on from, or a finished run be sampled from."""
    broken = [file for file in facts.files if file.problem]
    whole = [file for file in facts.files if not file.problem]
    full = [file for file in whole if file.kind == "full"]
    run = facts.run
    first = min([run.steps_in(run.config.checkpoint.every), *(step for step in snapshots(run) if step)])
    due = facts.files or facts.step >= first
    if due and not (whole if facts.finished else full):
        what = "weights alone, with nothing to continue from" if whole else "no whole file of weights"
        yield Finding(
            "problem",
            f"{run.path} has {what}" + (f"; {broken[0].problem}" if broken else ""),
            f"restore a file of {run.weights if facts.finished else run.checkpoints}"
            + (f", or begin a new run with --train.init {whole[-1].path}" if whole else ", or begin a new run"),
            0,
            1,
            says="nothing can be sampled from the run" if facts.finished else "training cannot be continued",
        )
    elif broken:
        newest = max(file.step for file in facts.files)
        lost = any(file.step == newest and file.kind == "full" for file in broken)
        yield Finding(
            "problem" if lost else "warning",
            f"{len(broken)} of {len(facts.files)}: {broken[0].problem}; none should be",
            "restore them, or delete them: samples are drawn from the newest that is whole (step "
            f"{max(file.step for file in whole)})"
            + (f", and training goes on from step {max(file.step for file in full)}" if full else ""),
            len(broken),
            0,
        )


@check("memory", "training needs more memory than there is")
def memory(facts: RunFacts) -> Iterator[Finding]:
    """Training that does not fit the device's memory."""
    needs = facts.needs
    need = needs.weights + needs.activations
    if need > FULL * needs.memory and not facts.finished:
        cfg = facts.run.config.train
        part = max(1, (cfg.micro_batch or cfg.batch_size) // (2 * math.ceil(need / needs.memory)))
        yield Finding(
            "problem" if need > needs.memory else "warning",
            f"about {need / 1e9:.1f} GB ({needs.weights / 1e9:.1f} of weights and moments, "
            f"{needs.activations / 1e9:.1f} of activations) on {needs.device}, which has {needs.memory / 1e9:.1f} GB; "
            f"{FULL:.0%} of that is safe",
            f"--train.micro_batch {part}, which changes the memory and not the batch"
            if needs.activations > needs.weights
            else "a smaller network, --model.channels, in a new run",
            need / needs.memory,
            FULL,
        )


@check("disk", "the disk is too full for the checkpoints to come")
def disk(facts: RunFacts) -> Iterator[Finding]:
    """Checkpoints to come that do not fit the disk."""
    needs = facts.needs
    if needs.files > needs.disk:
        yield Finding(
            "problem",
            f"they take {needs.files / 1e9:.2f} GB and {needs.disk / 1e9:.2f} GB are free",
            f"free {(needs.files - needs.disk) / 1e9:.2f} GB, or --checkpoint.keep 1 and a smaller --grids.log_spaced",
            needs.files / 1e9,
            needs.disk / 1e9,
        )


def forecast(facts: RunFacts) -> dict[str, float | None]:
    """Steps and seconds left (None where no line gives the speed), and bytes of memory and disk."""
    run, needs = facts.run, facts.needs
    speeds = [speed for speed in numbers(facts.lines[-5:], "images_per_second") if speed > 0]
    left = max(run.length - facts.step, 0)
    known = not left or bool(speeds)
    return {
        "steps_left": left,
        "seconds_left": (left * run.config.train.batch_size / median(speeds) if left else 0.0) if known else None,
        "memory_bytes": needs.weights + needs.activations,
        "memory_there": needs.memory,
        "disk_bytes": needs.files,
        "disk_free": needs.disk,
    }
