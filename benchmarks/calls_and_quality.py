"""Network calls against quality: FD-classifier of samplers at several numbers of calls, over seeds.

    python benchmarks/calls_and_quality.py runs/digits --num 500 --out docs/images/digits-calls

Prints a Markdown table and writes OUT.json and OUT.png. The distance is in the features of a small classifier trained
on the store's labels; it has no meaning beyond this store and this classifier, and is not an FID.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

from unstir.compare import parse
from unstir.data import Store
from unstir.generate import Job, generate
from unstir.metrics.classifier import classifier_for
from unstir.metrics.quality import fd_classifier
from unstir.pictures.grid import to_uint8
from unstir.runs.run import Run

SAMPLERS = "ancestral,ddim,dpmpp_2m,dpmpp_3m,dpmpp_2m_sde,unipc,heun,ipndm"


def plot(results, floor, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for name, _ in results):
        points = [(calls, *values) for (sampler, calls), values in results.items() if sampler == name]
        calls, *seeds = zip(*points, strict=True)
        means = [mean(values) for values in zip(*seeds, strict=True)]
        errors = [stdev(values) for values in zip(*seeds, strict=True)]
        axes.errorbar(calls, means, errors, label=name, marker="o", markersize=3, linewidth=1, capsize=2)
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", linewidth=1, label="real images (floor)")
    axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel="FD-classifier")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--samplers", default=SAMPLERS)
    parser.add_argument("--calls", default="5,10,20,50,100")
    parser.add_argument("--ancestral", default="1000", help="numbers of calls that the ancestral chain has beside them")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    classifier = classifier_for(store)
    text = [f"{name}:{calls}" for name in options.samplers.split(",") for calls in options.calls.split(",")]
    text += [f"ancestral:{calls}" for calls in options.ancestral.split(",") if calls]
    results, quality = {}, None
    for chain in parse(",".join(text), run.chain()):
        values, began = [], time.perf_counter()
        for seed in range(options.seeds):
            job = Job(
                num=options.num,
                chain=replace(chain, seed=seed),
                step=run.newest_step(),
                batch_size=options.batch_size,
                dtype=options.dtype,
            )
            images = torch.cat([to_uint8(made) for _, made in generate(run, job)])
            quality = fd_classifier(store, images, classifier=classifier)
            values.append(quality.distance)
        results[chain.sampler, chain.steps] = values
        took = time.perf_counter() - began
        print(f"{chain.sampler} {chain.steps}: {mean(values):.4f} +- {stdev(values):.4f} ({took:.0f} s)", flush=True)
    floor = quality.floor
    print(f"n = {options.num}, {options.seeds} seeds; floor {floor}, ceiling {quality.ceiling}")
    kept = {f"{name}:{calls}": values for (name, calls), values in results.items()}
    options.out.with_suffix(".json").write_text(json.dumps({"fd": kept, "floor": floor, "ceiling": quality.ceiling}))
    plot(results, floor, options.out.with_suffix(".png"))
    columns = list(dict.fromkeys(calls for _, calls in results))
    print("| sampler | " + " | ".join(map(str, columns)) + " |\n|---|" + "---|" * len(columns))
    for name in dict.fromkeys(name for name, _ in results):
        cells = [results.get((name, calls)) for calls in columns]
        print(f"| {name} | " + " | ".join(f"{mean(c):.3f} ± {stdev(c):.3f}" if c else "" for c in cells) + " |")


if __name__ == "__main__":
    main()
