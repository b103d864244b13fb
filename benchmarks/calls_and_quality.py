"""Network calls against quality: FD-classifier of samplers at several numbers of calls, over seeds.

    python benchmarks/calls_and_quality.py runs/digits --num 500 --out docs/images/digits-calls

Prints a Markdown table and writes OUT.json and OUT.png. Calls are those really made, where they are not those asked.
The distance is in the features of a small classifier trained
on the store's labels; it has no meaning beyond this store and this classifier, and is not an FID.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

import torch

from unstir.compare import parse
from unstir.data import Store
from unstir.generate import Job, generate
from unstir.metrics.classifier import classifier_for
from unstir.metrics.judge import judge
from unstir.pictures.grid import to_uint8
from unstir.runs import build
from unstir.runs.run import Run

SAMPLERS = "ancestral,ddim,dpmpp_2m,dpmpp_3m,dpmpp_2m_sde,unipc,heun,ipndm,pndm"


def plot(rows, floor, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["chain"]["sampler"] for row in rows):
        points = sorted((row["calls"], mean(row["fd"]), spread(row)) for row in rows if row["chain"]["sampler"] == name)
        axes.errorbar(*zip(*points, strict=True), label=name, marker="o", markersize=3, linewidth=1, capsize=2)
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", linewidth=1, label="real images (floor)")
    axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel="FD-classifier")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def spread(row):
    """The standard deviation over the seeds; 0 of one."""
    return stdev(row["fd"]) if len(row["fd"]) > 1 else 0.0


def cell(row, asked):
    """A cell of the table, with the calls really made where they are fewer than asked."""
    fewer = f" ({row['calls']})" if row["calls"] != asked else ""
    return f"{mean(row['fd']):.3f} ± {spread(row):.3f}{fewer}"


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
    schedule, rows = build.schedule(run.config.diffusion), []
    for chain in parse(",".join(text), run.chain()):
        sets, began = [], time.perf_counter()
        for seed in range(options.seeds):
            job = Job(
                num=options.num,
                chain=replace(chain, seed=seed),
                step=run.newest_step(),
                batch_size=options.batch_size,
                dtype=options.dtype,
            )
            sets.append(torch.cat([to_uint8(made) for _, made in generate(run, job)]))
        found = judge(store, sets, [classifier])["classifier/fd"]
        rows.append({"chain": asdict(chain), "calls": chain.calls(schedule), "fd": found.by_seed})
        took = time.perf_counter() - began
        print(f"{chain.sampler} {chain.steps}: {cell(rows[-1], chain.steps)} ({took:.0f} s)", flush=True)
    about = {
        "n": options.num,
        "seeds": list(range(options.seeds)),
        "batch_size": options.batch_size,
        "dtype": options.dtype,
        "step": run.newest_step(),
        "data": store.content_hash,
        "classifier": classifier.hash,
        "reference_n": found.num_reference,
        "floor": found.floor,
        "floor_n": found.num_floor,
        "ceiling": found.ceiling,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    options.out.with_suffix(".json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    plot(rows, found.floor, options.out.with_suffix(".png"))
    columns = list(dict.fromkeys(row["chain"]["steps"] for row in rows))
    print("| sampler | " + " | ".join(map(str, columns)) + " |\n|---|" + "---|" * len(columns))
    for name in dict.fromkeys(row["chain"]["sampler"] for row in rows):
        own = {row["chain"]["steps"]: row for row in rows if row["chain"]["sampler"] == name}
        print(f"| {name} | " + " | ".join(cell(own[asked], asked) if asked in own else "" for asked in columns) + " |")


if __name__ == "__main__":
    main()
