"""Guidance against class accuracy: how often a classifier sees the class that was asked for, by scale.

    python benchmarks/guidance.py runs/guided --num 500

The classifier is the small one of `unstir.metrics`, trained on the store's labels; its accuracy on held-out images is
printed beside. FD-classifier shows what a scale costs in variety.
"""

import argparse
from dataclasses import replace

import torch

from unstir.data import Store
from unstir.diffusion.draw import Chain
from unstir.generate import Job, generate
from unstir.metrics.classifier import classifier_for
from unstir.metrics.quality import fd_classifier
from unstir.pictures.grid import to_uint8
from unstir.runs.run import Run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--scales", default="0,1,1.5,2,3,5")
    parser.add_argument("--sampler", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    classifier = classifier_for(store)
    chain = Chain(sampler=options.sampler, steps=options.steps)
    print(
        f"held-out images: {classifier.accuracy:.3f}\n| scale | of the class asked for | FD-classifier |\n|---|---|---|"
    )
    for scale in map(float, options.scales.split(",")):
        job = Job(num=options.num, chain=replace(chain, guidance=scale), step=run.newest_step(), batch_size=250)
        images = torch.cat([to_uint8(made) for _, made in generate(run, job)])
        labels = run.labels_of(torch.arange(options.num))
        quality = fd_classifier(store, images, labels=labels, classifier=classifier)
        print(f"| {scale:g} | {quality.accuracy:.3f} | {quality.distance:.3f} |", flush=True)
    print(f"floor {quality.floor:.3f}")


if __name__ == "__main__":
    main()
