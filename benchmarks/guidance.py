"""Guidance against class accuracy: how often a classifier finds the requested class, by scale, over seeds.

    python benchmarks/guidance.py runs/digits-guided --num 299 --seeds 3
    python benchmarks/guidance.py runs/digits --guide runs/small --scales 1,1.5,2,3

With --guide (a step, a run, or RUN@STEP) it is autoguidance; a run without classes has no accuracy.
The classifier is the small one of `unstir.metrics`, trained on the store's labels; its accuracy on held-out images is
printed as well. FD-classifier shows what a scale costs in variety. Both as mean and standard deviation over the seeds.
"""

import argparse
from dataclasses import replace

import torch

from peers.judges import images_of
from unstir.chain import Chain
from unstir.data import Store
from unstir.generate.drawing import Job
from unstir.metrics.classifier import classifier_for
from unstir.metrics.measure import measure
from unstir.runs.run import Run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--guide")
    parser.add_argument("--scales", default="0,1,1.5,2,3,5")
    parser.add_argument("--sampler", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    classifier = classifier_for(store)
    chain, plain = Chain(sampler=options.sampler, steps=options.steps), run.model()
    led = run.model(guide=options.guide)
    labels = run.labels.of(torch.arange(options.num))
    print(f"held-out images: {classifier.trust.accuracy:.1%}")
    print("| scale | of the class asked for | FD-classifier |\n|---|---|---|")
    for scale in map(float, options.scales.split(",")):
        sets = []
        for seed in range(options.seeds):
            asked = replace(chain, guidance=scale, seed=seed)
            job = Job(num=options.num, chain=asked, batch_size=250)
            sets.append(images_of(plain if scale == 1 else led, job))
        found = measure(store, sets, [classifier], labels=None if labels is None else [labels] * len(sets))
        distance = found["classifier/fd"]
        right = "" if labels is None else spread(found["classifier/accuracy"], ".1%")
        print(f"| {scale:g} | {right} | {spread(distance, '.3f')} |", flush=True)
    print(f"floor {distance.floor:.3f} of {distance.num_floor} images; classifier {classifier.hash[:12]}")


def spread(figure, form):
    """The mean and, of two seeds or more, their standard deviation."""
    return f"{figure.value:{form}}" + (f" ± {figure.deviation:{form}}" if figure.deviation is not None else "")


if __name__ == "__main__":
    main()
