"""Make a model that comes with the package of a finished run: src/unstir/models/NAME, with its figures and its card.

    python benchmarks/ship.py runs/mnist mnist --commit a06346fdef06
    python benchmarks/ship.py shipped:mnist mnist --commit a06346fdef06    # its figures and card again, as of today

The folder is a run as `unstir push` publishes it: settings, weights in bfloat16, data.json, evaluation/ and
samples.png, with the logs of the training. Figures are measured on the weights as they are shipped. The same run, torch
and machine give the same weights and pixels. What was there under this name is replaced.
"""

import argparse
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from unstir.data.embedded import EMBEDDED
from unstir.interop.published import write_run
from unstir.metrics.evaluate import evaluate_run
from unstir.metrics.evaluation import FOLDER, protocol_in_words
from unstir.metrics.figures import in_rows
from unstir.metrics.likelihood import Protocol, save_likelihood
from unstir.metrics.request import EvaluationRequest
from unstir.progress import counted, duration
from unstir.runs import lines
from unstir.runs.files import write_text
from unstir.runs.named import FOLDER as MODELS
from unstir.runs.named import run_and_step
from unstir.runs.run import Run
from unstir.runs.stores import with_store
from unstir.significance import with_error

LOGS = "metrics", "held_out", "events"
CALLS, BOUNDED = 25, 1000  # of the network for the bound of an image, and images: all terms of all take hours


@dataclass(frozen=True)
class About:
    """What a run does not know: the data's origin, the licence as SPDX names it, what the model is not, and, of a
    run that began from other weights, the images they had seen, with a sentence of the card."""

    data: str
    licence: str
    limits: str
    images: int = 0
    before: str = ""


ABOUT = {
    "digits": About(
        "UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0: 1,797 images of 8x8 grey "
        "levels, inside the package ([digits.txt](../../data/digits.txt))",
        "CC-BY-4.0",
        "It draws digits of 8x8 pixels. It is for trying what a diffusion model does, in seconds.",
    ),
    "mnist": About(
        "MNIST (LeCun, Cortes & Burges 1998), CC BY-SA 3.0: the 10,000 images inside the package, a sixth of its "
        "training images ([mnist.txt](../../data/mnist.txt))",
        "CC-BY-SA-3.0",
        "It learned from 9,001 of the 60,000 training images, so its figures stand beside none of models that saw all.",
    ),
    "cifar10-small": About(
        "CIFAR-10 (Krizhevsky 2009), published without a licence; its images were encoded as JPEG before this training",
        "Apache-2.0",
        "Its data are re-encoded JPEG images, so no distance here stands beside a published FID.",
        1_889_024,
        " Hours and stops are those of the last 1,120,000 images; the others are of two earlier trainings, each of "
        "whose averaged weights were the beginning of the next: 804,928 images in 6.7 hours at a constant rate of "
        "0.0015, stopped and continued 12 times, by commit b55f2490a3da, and 1,084,096 in 7.4 hours at a rate that "
        "fell from 0.0008, stopped and continued 4 times, by commit d2e33ce7. "
        "`python benchmarks/reproduce.py` trains all three again, and `cifar10-fast` from the last.",
    ),
}
ABOUT["cifar10-fast"] = replace(
    ABOUT["cifar10-small"],
    limits="It draws in four calls of `ddim`, no more and no fewer, and cannot be guided, edited with or asked for a "
    "bound. Its classes are as without guidance: half its images are recognised, of those of `cifar10-small` at "
    f"guidance 1.5 70%. {ABOUT['cifar10-small'].limits}",
)

CARD = """---
license: {licence}
library_name: unstir
pipeline_tag: unconditional-image-generation
tags: [unstir, ddpm, diffusion]
---

# {name}

![the first samples of seed 0, not chosen](samples.png)

A denoising diffusion model of {shape} images {classes}, by unstir: {parameters:,} parameters, the averaged weights of
step {step:,} in bfloat16 (SHA-256 `{weights}`).

```sh
unstir sample shipped:{name} --num 64
```

## Data

{data}: {train:,} images for training and {held_out:,} held out, content hash `{content_hash}`.

## Training

`{command}` with the settings of [config.toml](config.toml): {seen:,} images {seen_as},
{length} of wall time on {machine}, {starts}. The program was commit {commit}.{before}{unfinished}
`python benchmarks/ship.py` wrote this folder.

## Figures

| figure | value | real images | noise | better |
| --- | ---: | ---: | ---: | --- |
{rows}

{protocol}. ± is one standard error. *Real images* are held-out ones, as many as the model draws: as good as new images
can be. [{figures}]({figures}) has every number. Distances of other protocols do not compare, and none is an FID.

Copies of training images: {copies}.{pairs}
{bits}
## What it is not

{limits}

## Licence

{licence}.
"""
BITS = """
Bits per dimension of {bounded:,} held-out images: {bits}, estimated from {calls} terms an image.
"""
UNFINISHED = " It was not at its end: {length:,} steps were planned."


def write_weights(source: Run, folder: Path) -> Run:
    """The run in ``folder`` with the averaged weights of the newest step in bfloat16, and the logs of ``source``."""
    write_run(source, source.model(dtype="bfloat16", device="cpu"), folder, [])
    run = Run.open(folder)
    for name in LOGS:
        if kept := source.log(name).lines:
            lines.write(run.log_file(name), [{**line, "run": run.data.run} for line in kept])
    return run


def card(source: Run, run: Run, name: str, commit: str, store: Path) -> str:
    """The text of README.md, with figures measured now."""
    about, model = ABOUT[name], run.model(device="cpu")
    if not source.config.train.init or source.config.kind.has_teacher:
        about = replace(about, images=0, before="")
    (evaluation,), _ = evaluate_run(run.path, EvaluationRequest(store=store))
    pairs = run.path / FOLDER / f"{evaluation.name()}-pairs.png"
    if source.config.data.source not in EMBEDDED:
        pairs.unlink(missing_ok=True)  # it shows training images, which are not the package's to give
    last, distilled = run.metrics()[-1], source.config.kind.has_teacher
    started = [event for event in source.log("events").lines if event["event"] in ("started", "continued")]
    rows = [" | ".join(row) for row in in_rows(evaluation.figures.values(), evaluation.protocol["num"])]
    command, seen_as = f"unstir train {run.config.recipe}", "seen ({:.0f} passes)"
    if distilled:
        teacher = run_and_step(source.config.train.init)[0]
        command = f"unstir distill {teacher} --calls {source.config.loss.calls}"
        seen_as = "in its batches, points on paths of that model"
    copies, seen = evaluation.memorisation, about.images + source.images_seen(model.step)
    return CARD.format(
        **vars(about),
        name=name,
        shape="x".join(map(str, model.shape[1:])) + (" grey" if model.shape[0] == 1 else " colour"),
        classes="by class" if model.labels.count else "without classes",
        parameters=sum(t.numel() for t in model.denoiser.net.parameters()),
        step=model.step,
        weights=model.weights_sha256,
        **run.data.counts,
        content_hash=run.data.content_hash,
        command=command,
        seen=seen,
        seen_as=seen_as.format(seen / run.data.counts["train"]),
        length=duration(last["seconds"]),
        machine=f"{started[0]['threads']} thread(s) of a {started[0]['device']}, torch {started[0]['torch']}",
        starts="never stopped" if len(started) == 1 else f"stopped and continued {counted(len(started) - 1, 'time')}",
        commit=commit,
        unfinished=UNFINISHED.format(length=source.length) if model.step < source.length else "",
        rows="\n".join(f"| {row} |" for row in rows),
        protocol=protocol_in_words(evaluation),
        figures=f"{FOLDER}/{evaluation.name()}.json",
        pairs=f" [The nearest pairs]({FOLDER}/{pairs.name})." if pairs.exists() else "",
        copies=copies.says.splitlines()[0] if copies else "not searched for",
        bits="" if distilled else bits(run, store),
    )


def bits(run: Run, store: Path) -> str:
    """The card's sentence of the bound of held-out images."""
    with tempfile.TemporaryDirectory() as temporary:
        data, num = with_store(run, store)[1], min(BOUNDED, run.data.counts["held_out"])
        protocol = Protocol(num=num, calls=CALLS)
        bounds, _ = save_likelihood(run.model(device="cpu"), data, protocol=protocol, folder=Path(temporary))
    bound = bounds["held_out"]
    return BITS.format(bounded=num, calls=CALLS, bits=with_error(bound.bits_per_dim, bound.standard_error))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", choices=ABOUT)
    parser.add_argument("--commit", required=True, help="the commit of unstir that trained it")
    parser.add_argument("--store", type=Path, help="the run's packed data, if it has moved")
    asked = parser.parse_args()
    source, folder = Run.open(asked.run), MODELS / asked.name
    _, store = with_store(source, asked.store)
    with tempfile.TemporaryDirectory() as temporary:
        run = write_weights(source, Path(temporary) / asked.name)
        write_text(run.path / "README.md", card(source, run, asked.name, asked.commit, store.path))
        shutil.rmtree(run.path / "generated")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run.path, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
