"""What bfloat16 inside the network changes in the images: the same seeds in both types, by sampler.

    python benchmarks/bfloat16.py runs/digits --num 256

The difference is that of the pixels as they are written, in 0..255: its mean over all values and its 99th percentile.
FD-classifier shows whether the images are worse; it compares only with others of the same classifier and number.
"""

import argparse

from peers.judges import images_of
from unstir.compare import parse
from unstir.data import Store
from unstir.generate.drawing import Job
from unstir.metrics.classifier import classifier_for
from unstir.metrics.measure import measure
from unstir.runs.run import Run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--chains", default="ddim:50,dpmpp_2m_sde:20")
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    classifier = classifier_for(store)
    print("| sampler, steps | mean | 99th percentile | FD-classifier, float32 | bfloat16 |\n|---|---|---|---|---|")
    for chain in parse(options.chains, run.chain()):
        job = Job(num=options.num, chain=chain, batch_size=options.batch_size)
        made = [images_of(run.model(dtype=dtype), job) for dtype in ("float32", "bfloat16")]
        gap = (made[0].int() - made[1].int()).abs().flatten()
        most = gap.sort().values[int(0.99 * (len(gap) - 1))].item()
        figures = [measure(store, [images], [classifier])["classifier/fd"] for images in made]
        fd = " | ".join(f"{each.value:.3f} ± {each.error:.3f}" for each in figures)
        print(f"| `{chain.sampler}`, {chain.steps} | {gap.float().mean():.2f} | {most} | {fd} |", flush=True)
    print(f"{options.num} images against {figures[0].num_reference}; classifier {classifier.hash[:12]}")


if __name__ == "__main__":
    main()
