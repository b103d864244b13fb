"""How well DDIM inversion reconstructs held-out images: median PSNR by spacing, steps and refinements.

    python benchmarks/inversion.py runs/digits --num 32

Prints a Markdown table. The estimate is clamped in both directions, as `unstir edit invert` does by default.
"""

import argparse
from statistics import median

import torch

from unstir.data import Store
from unstir.diffusion.denoiser import clipped
from unstir.diffusion.editing import invert
from unstir.diffusion.samplers.ddim import ddim
from unstir.edit.editing import last, psnr
from unstir.runs.run import Run
from unstir.theory.schedule import times


@torch.inference_mode()
def came_back(denoise, process, images, visited, refinements):
    x_T = last(invert(denoise, process, images, visited[::-1], refinements))
    back = last(ddim(denoise, process, x_T, visited, lambda _: x_T)).clamp(-1, 1)
    return median(psnr(made, image) for made, image in zip(back, images, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--store", default="")
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--steps", default="20,50,100")
    parser.add_argument("--refinements", default="0,1,2,8")
    parser.add_argument("--spacings", default="log_snr,trailing")
    options = parser.parse_args()
    run = Run.open(options.run)
    store = Store.open(options.store or run.config.data.store)
    denoiser = run.model().denoiser
    images = store.images("held_out")[: options.num].float() / 127.5 - 1
    refinements = [int(number) for number in options.refinements.split(",")]
    print("| spacing | steps | " + " | ".join(map(str, refinements)) + " |\n|---|---|" + "---|" * len(refinements))
    for spacing in options.spacings.split(","):
        for steps in map(int, options.steps.split(",")):
            visited = times(denoiser.process.schedule, steps, spacing)
            row = [came_back(clipped(denoiser), denoiser.process, images, visited, number) for number in refinements]
            print(f"| {spacing} | {steps} | " + " | ".join(f"{value:.1f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
