"""Runs that never ran: Facts made of simulated losses and figures, each with the errors that real ones have."""

import json
import math
import random
from functools import cache
from pathlib import Path

import torch

from unstir.insight import analysis
from unstir.insight.doctor import CHECKS
from unstir.insight.facts import Facts
from unstir.insight.findings import explained
from unstir.metrics.evaluation import Evaluation
from unstir.metrics.figures import HIGHER, LOWER, Figure
from unstir.metrics.memorisation import FEWEST, Memorisation, Space, mann_whitney, precedence
from unstir.runs import recipes
from unstir.runs.card import DataCard
from unstir.runs.run import Run
from unstir.runs.toml import from_dict, to_dict

NUM_TRAIN, NUM_HELD_OUT, BATCH, STEPS = 1498, 299, 64, 3000
MOMENTS = (0, 12, 47, 188, 750, 1500, 3000)
TIMES = (1, 26, 101, 251, 501, 1000)
DATA = DataCard((1, 8, 8), tuple("0123456789"), {"train": NUM_TRAIN, "held_out": NUM_HELD_OUT}, "hash")


def flat(images):
    """A loss that has settled long ago."""
    return 0.08


def settled(images):
    """A loss that fell as a power of the images and has all but reached its floor."""
    return 0.08 + 0.9 * math.exp(-((images / 500) ** 0.8))


def falling(images):
    """A loss that falls on as a power of the images, as in a run that is far too short."""
    return 0.5 * (1 + images / 500) ** -0.25


def held_out(
    curve=settled, memorised=lambda images: 0.0, worse=lambda images: 0.0, num=128, noise=0.02, seed=0, **changes
):
    """Lines of held_out.jsonl: ``num`` images of each split whose losses follow ``curve``, noise and difficulty aside.

    The loss of a training image is lower by the share ``memorised(images)``, that of a held-out one higher by the share
    ``worse(images)``. An image's difficulty, a factor, stays; each measurement adds ``noise``, a share of its own.
    """
    draw = random.Random(seed)
    hardness = {split: [math.exp(draw.gauss(-0.045, 0.3)) for _ in range(num)] for split in ("train", "held_out")}
    lines = []
    for step in changes.get("moments", MOMENTS):
        images = step * BATCH
        line = {"step": step, "images": images, "times": list(TIMES)}
        for split, shift in (("train", -memorised(images)), ("held_out", worse(images))):
            level = curve(images) * (1 + shift)
            line[f"of_{split}"] = [
                1 + draw.gauss(0, 0.05) if step == 0 else level * hard * (1 + draw.gauss(0, noise))
                for hard in hardness[split]
            ]
        lines.append(line)
    return tuple(json.loads(json.dumps(lines)))


def metrics(curve=settled, every=100, noise=0.03, seed=0, steps=STEPS):
    """Lines of metrics.jsonl whose loss follows ``curve``."""
    draw = random.Random(f"metrics {seed}")
    return tuple(
        {
            "step": step,
            "epoch": (step - 1) * BATCH // NUM_TRAIN,
            "images": step * BATCH,
            "loss": curve((step - every / 2) * BATCH) * (1 + draw.gauss(0, noise)),
            "grad_norm": 0.2,
            "clipped": 0.0,
            "lr": 1e-3,
            "ema_decay": 0.999,
            "skipped": 0,
            "images_per_second": 1200.0 + draw.gauss(0, 20),
            "seconds": step * BATCH / 1200,
        }
        for step in range(every, steps + 1, every)
    )


REAL = {"fd": 0.24, "precision": 0.80, "recall": 0.78, "density": 0.95, "coverage": 0.93, "accuracy": 0.97}
NOISE = {"fd": 45.0, "precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0, "accuracy": 0.1}


def evaluation(*, step=STEPS, sampler="dpmpp_2m_sde", calls=20, num=300, seeds=3, seed=0, memory=None, **true):
    """An evaluation whose figures scatter about ``true`` ones ("fd", "coverage", ...), by default those of real images.

    A figure set to None is left out; ``guidance`` goes into the protocol.
    """
    draw = random.Random(f"{step} {sampler} {calls} {seed}")
    figures = {}
    for key, real in REAL.items():
        if (value := true.get(key, real)) is None:
            continue
        spread = (
            0.08 * value + 0.01 if key == "fd" else 0.03 if key == "density" else math.sqrt(value * (1 - value) / num)
        )
        figures[f"classifier/{key}"] = Figure(
            name={"fd": "FD-classifier", "accuracy": "class accuracy"}.get(key, f"{key}-classifier"),
            better=LOWER if key == "fd" else HIGHER,
            by_seed=tuple(draw.gauss(value, spread) for _ in range(seeds)),
            bootstrap=None if key == "density" else spread,
            floor=real + (draw.gauss(0, 0.03 if key == "fd" else 0.02) if key != "accuracy" else 0.0),
            floor_error={"fd": 0.03, "accuracy": None}.get(key, 0.02),
            num_floor=0 if key == "accuracy" else num,
            ceiling=NOISE[key],
            num_reference=NUM_TRAIN,
        )
    protocol = {"num": num, "seeds": seeds, "sampler": sampler, "guidance": true.get("guidance", 1.0)}
    protocol |= {"steps": calls, "calls": calls}  # one call per step
    protocol |= {"ema": True, "split": "train", "num_reference": NUM_TRAIN}
    return Evaluation(step=step, images=step * BATCH, protocol=protocol, figures=figures, memorisation=memory)


@cache
def _config(changes):
    values = to_dict(recipes.load_recipe("digits"))
    for key, value in changes:
        section, key = key.split("__")
        values[section][key] = value
    return from_dict(values, "test")


def facts(*, config=None, name="digits", step=STEPS, data=DATA, lines=None, **parts):
    """Facts of a run that predicts the noise; ``config`` holds dotted keys, __ for the dot, such as train__length."""
    changes = {"model__dropout": 0.1, "diffusion__schedule": "linear", "diffusion__predict": "eps"}
    changes |= {"loss__times": "uniform", "train__lr": 1e-3, "train__optimizer": "adam"}
    changes |= {"train__length": f"{STEPS} steps", "train__lr_period": f"{STEPS - 200} steps", **(config or {})}
    run = Run(Path(name), _config(tuple(changes.items())), data)
    return Facts(run=run, lines=metrics(steps=step) if lines is None else lines, **parts)


def copied(share=0.0, *, num=900, num_held_out=NUM_HELD_OUT, seed=0):
    """What `unstir.metrics.memorisation` keeps, of samples of which a ``share`` are copies, in one space."""
    draw = torch.Generator().manual_seed(seed)
    relative = torch.randn(num, generator=draw, dtype=torch.float64) * 0.1 + 0.7
    relative[: round(share * num)] = 0.01
    new = torch.randn(num_held_out, generator=draw, dtype=torch.float64) * 0.1 + 0.7
    enough = min(num, num_held_out) >= FEWEST
    nearer = mann_whitney(relative, new) if enough else None
    copies = precedence(relative, new, 0.01 / 3) if enough else None
    space = Space("pixels", nearer, nearer, copies, (), ())
    verdict = None if copies is None or copies.p > 0.01 / 3 else "copies"
    return Memorisation((space,), verdict, num, NUM_TRAIN, num_held_out, flip=False)


CHAINS = (("dpmpp_2m", 5, 1.5), ("ddim", 10, 0.9), ("dpmpp_2m", 20, 0.45), ("ddim", 50, 0.5), ("ancestral", 1000, 0.43))


def chains(*, seed=0, known=CHAINS):
    """Evaluations of one step by several samplers, as (sampler, calls, FD)."""
    return tuple(evaluation(sampler=name, calls=calls, fd=fd, seed=seed) for name, calls, fd in known)


def good(seed=0):
    """A run that was trained out, with samples as good and as varied as real images."""
    by_step = tuple(
        evaluation(step=step, fd=fd, seed=seed, memory=copied(seed=seed))
        for step, fd in ((47, 20.0), (750, 1.0), (STEPS, 0.25))
    )
    return facts(held_out=held_out(seed=seed), by_step=by_step, by_chain=chains(seed=seed))


def over_fitted(seed=0):
    """A run that memorised its training images after the first few hundred steps."""
    memorised = lambda images: 0.4 * images / (STEPS * BATCH)
    lines = held_out(
        memorised=memorised, worse=lambda images: 0.3 * max(images - 20_000, 0) / (STEPS * BATCH), seed=seed
    )
    by_step = (
        evaluation(step=750, fd=1.5, seed=seed),
        evaluation(fd=2.0, recall=0.5, coverage=0.6, seed=seed, memory=copied(0.1, seed=seed)),
    )
    return facts(
        held_out=lines, by_step=by_step, config={"train__lr_schedule": "constant", "train__lr_period": "0 steps"}
    )


def diverged(seed=0):
    """A run whose loss went up again after a thousand steps."""
    rising = lambda images: settled(images) if images < 1000 * BATCH else 0.7
    by_step = (evaluation(step=750, fd=1.5, seed=seed), evaluation(fd=30.0, coverage=0.05, seed=seed))
    return facts(held_out=held_out(curve=rising, seed=seed), lines=metrics(curve=rising, seed=seed), by_step=by_step)


def too_short(seed=0):
    """A run that ended while everything was still getting better."""
    by_step = tuple(
        evaluation(step=step, fd=fd, coverage=0.6, seed=seed) for step, fd in ((47, 30.0), (1500, 8.0), (STEPS, 5.0))
    )
    return facts(held_out=held_out(curve=falling, seed=seed), lines=metrics(curve=falling, seed=seed), by_step=by_step)


def noise_only(seed=0):
    """A run that is measured again and again while nothing changes, as good as real images."""
    by_step = tuple(evaluation(step=step, seed=seed, memory=copied(seed=seed)) for step in (750, 1500, STEPS))
    every = {"held_out": held_out(curve=flat, moments=MOMENTS[1:], seed=seed), "lines": metrics(curve=flat, seed=seed)}
    known = tuple((name, calls, 0.43) for name, calls, _ in CHAINS)
    return facts(**every, by_step=by_step, by_chain=chains(seed=seed, known=known))


def examined(known):
    """What the doctor's two rules on held-out losses find."""
    return explained(finding for name in ("overfit", "still-falling") for finding in CHECKS[name].run(known))


def analyse(known, findings=None):
    """The analysis of a run with what these two rules find, or with these findings."""
    return analysis.analyse(known, examined(known) if findings is None else findings)


def by_name(known, findings=None):
    statements = {statement.name: statement for statement in analyse(known, findings)}
    assert len(statements) == len(analyse(known, findings)), "a name is there twice"
    return statements


def advice(known, findings=None):
    return [statement.name for statement in analyse(known, findings) if statement.topic == "next"]
