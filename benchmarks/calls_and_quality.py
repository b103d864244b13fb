"""Network calls against quality: FD-classifier of samplers at several numbers of calls, over seeds.

    python benchmarks/calls_and_quality.py runs/digits --num 500 --out digits-calls

Prints a Markdown table and writes OUT.json and OUT.png. A chain has as many steps as the calls asked for allow; calls
are those really made, where they are fewer.
The distance is in the features of a small classifier trained on the store's labels; it has no meaning beyond this store
and this classifier, and is not an FID. OUT.json is written after every chain, and the chains it holds are not sampled
again if it was made from the same weights with the same settings: the command can be killed, and given more chains.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

from peers.judges import images_of
from peers.kept import earlier, write
from unstir.chain import SAMPLERS
from unstir.data import Store
from unstir.generate.drawing import Job
from unstir.metrics.classifier import classifier_for
from unstir.metrics.measure import measure
from unstir.runs.run import Run


def plot(rows, floor, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(dict.fromkeys(row["chain"]["sampler"] for row in rows)):
        points = sorted((row["calls"], mean(row["fd"]), spread(row)) for row in rows if row["chain"]["sampler"] == name)
        look = {"color": f"C{place}", "marker": "os^DvXP<*h"[place], "linestyle": ("-", "--", "-.", ":")[place % 4]}
        axes.errorbar(*zip(*points, strict=True), label=name, markersize=5, linewidth=1, capsize=2, **look)
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", linewidth=1, label="real images (floor)")
    axes.set(xscale="log", yscale="log", xlabel="network calls per image", ylabel="FD-classifier")
    axes.set_xticks([5, 10, 20, 50, 100, 1000])
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10, 20])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
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


def judged(model, store, classifier, job, seeds):
    """The Frechet distance of a chain's images to the training images, one value a seed."""
    sets = [images_of(model, replace(job, chain=replace(job.chain, seed=seed))) for seed in range(seeds)]
    return measure(store, sets, [classifier])["classifier/fd"]


def table(rows):
    columns = list(dict.fromkeys(row["asked"] for row in rows))
    yield "| sampler | " + " | ".join(map(str, columns)) + " |\n|---|" + "---|" * len(columns)
    for name in dict.fromkeys(row["chain"]["sampler"] for row in rows):
        own = {row["asked"]: row for row in rows if row["chain"]["sampler"] == name}
        yield f"| {name} | " + " | ".join(cell(own[asked], asked) if asked in own else "" for asked in columns) + " |"


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--calls", default="5,10,20,50,100")
    parser.add_argument("--ancestral", default="1000", help="numbers of calls of the ancestral chain in addition")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main():
    options = parsed()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    classifier = classifier_for(store)
    model, how = run.model(dtype=options.dtype), {"num": options.num, "batch_size": options.batch_size}
    about = {
        **how,
        "step": model.step,
        "dtype": options.dtype,
        "seeds": list(range(options.seeds)),
        "weights": model.weights_sha256,
        "data": store.content_hash,
        "classifier": classifier.hash,
    }
    asked = [(name, int(calls)) for name in options.samplers.split(",") for calls in options.calls.split(",")]
    asked += [("ancestral", int(calls)) for calls in options.ancestral.split(",") if calls]
    path = options.out.with_suffix(".json")
    known = earlier(path, about, {"rows": []})
    schedule, rows = model.process.schedule, []
    for name, calls in asked:
        began = time.perf_counter()
        steps = max(n for n in range(1, calls + 1) if SAMPLERS[name].calls_in(n) <= calls)
        chain = run.chain().changed(sampler=name, steps=steps)
        row = next((row for row in known["rows"] if row["chain"] == asdict(chain)), None)
        if row is None:
            found = judged(model, store, classifier, Job(chain=chain, **how), options.seeds)
            row = {"chain": asdict(chain), **asdict(chain.cost(schedule)), "fd": found.by_seed}
            known["rows"].append(row)
            known.update(reference_n=found.num_reference, floor=found.floor, floor_n=found.num_floor)
            known.update(ceiling=found.ceiling)
            write(path, known)
        rows.append({**row, "asked": calls})
        took = time.perf_counter() - began
        print(f"{name} {calls}: {cell(row, calls)} ({took:.0f} s)", flush=True)
    print(", ".join(f"{name} {value}" for name, value in known.items() if name != "rows"))
    plot(rows, known["floor"], options.out.with_suffix(".png"))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
