"""This project against diffusers and denoising-diffusion-pytorch on the same work, in turns, on this machine.

    pip install '.[bench]'
    python benchmarks/against.py                               # the 16x16 network and Ho et al.'s
    python benchmarks/against.py --write                       # and the tables of docs/performance.md
    python benchmarks/against.py --quick --sizes tiny          # whether all of it runs
    bash benchmarks/gpu.sh                                     # on a GPU: this, and all else that is measured there

Timed are a training step, a call of the network without gradients, 64 images at equal quality, an epoch of data, the
random numbers of a step, and a process until its first training step; the last three of the first size alone. The
part "settings", which has to be named, is our training step in each type, layout and way of compiling. All
sides take turns in every round. Printed are medians and quartiles, ratios within a round, and what part of this
machine's own rate of products and convolutions is reached.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

try:
    import denoising_diffusion_pytorch  # noqa: F401
    import diffusers
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing.name} is not installed; both peers come with: pip install '.[bench]'") from None

import numpy as np
from PIL import Image

from peers import machine, parts, tables, variants
from peers.kept import given
from peers.sizes import IMAGES, SIZES
from unstir.chain import FAST
from unstir.runs.build import device

PAGE = Path(__file__).parents[1] / "docs/performance.md"
PARTS = {part.__name__: part for part in (parts.training, parts.inference, parts.drawing, variants.settings)}
PARTS |= {part.__name__: part for part in (parts.data, parts.randomness, parts.start)}
ONCE = ("data", "randomness", "start")  # of the first size alone


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "ho"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[name for name in PARTS if name != "settings"])
    parser.add_argument("--rounds", type=int, default=9, help="turns that count; a third for images and start-up")
    parser.add_argument("--quick", action="store_true", help="2 rounds of small batches: whether it runs, not how fast")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--batch", type=int, default=0, help="images of a training step in place of each size's own")
    parser.add_argument("--images", type=int, default=2048, help="files of the data part")
    parser.add_argument("--calls", type=int, default=12, help=f"of {FAST.sampler}, at equal quality")
    parser.add_argument("--ema", action="store_true", help="every side averages its weights at each training step")
    parser.add_argument("--compile", action="store_true", help="add ours and diffusers compiled")
    parser.add_argument("--set", nargs="*", default=[], help="settings of our run, such as train.optimizer=muon")
    also = "Markdown files whose text ends what is written, such as figures of other commands"
    parser.add_argument("--also", nargs="*", type=Path, default=[], metavar="FILE", help=also)
    page = f"put the tables into a page (default: docs/{PAGE.name}) between its comments"
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, help=page)
    options = parser.parse_args(arguments)
    if options.quick and options.write == PAGE:
        parser.error(f"the figures of --quick are no measurement; --write docs/{PAGE.name} without it")
    if options.quick:
        options.rounds, options.images = 2, 64
    return options


def files(folder: Path, count: int, side: int) -> None:
    """Images of smooth colours with a little noise, PNG and JPEG in turn, as they come from a camera or a page."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))
        pixels = np.clip(np.asarray(coarse) + draw.normal(0, 8, (side, side, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.{'jpg' if number % 2 else 'png'}")


def measured(options: argparse.Namespace, folder: Path) -> list[tables.Section]:
    """Every part of every size, printed as it is done."""
    found: list[tables.Section] = []
    for place, name in enumerate(options.sizes):
        on = prepared(options, name, folder / name)
        for part in (part for part in PARTS if part in options.parts and (place == 0 or part not in ONCE)):
            done = PARTS[part](on)
            for section in done if isinstance(done, list) else [done]:
                print(f"\n{section.markdown()}", flush=True)
                found.append(section)
    return found


def prepared(options: argparse.Namespace, name: str, folder: Path) -> parts.Setting:
    """A size with the options, and images for it in the folder."""
    size, on = SIZES[name], device(options.device)
    size = replace(size, batch=options.batch or size.batch)
    if on.type != "cpu":
        size = replace(size, drawn=IMAGES, calls=0)
    if options.quick:
        size = replace(size, batch=options.batch or 8, drawn=8, calls=2)
    folder.mkdir()
    files(folder / "images", max(options.images, size.batch), size.side)
    return parts.Setting(
        name=name,
        size=size,
        device=on,
        folder=folder,
        rounds=options.rounds,
        calls=options.calls,
        ema=options.ema,
        compiled=options.compile,
        changes=given(options.set),
    )


def page_of(sections: list[tables.Section], about: list[tuple[str, str]], also: Sequence[str] = ()) -> str:
    """All that is written into the page."""
    limits = ", ".join(f"{dtype} {rate / 1e9:,.0f} GFLOP/s" for dtype, rate in sections[0].limits.items())
    rows = [
        ("command", f"`{machine.command()}`"),
        *about,
        ("limit: the faster of matrix products and 3×3 convolutions", limits),
    ]
    return "\n\n".join(
        (
            tables.table(("measured", ""), rows),
            "How many times as fast unstir is (medians over rounds, with quartiles):",
            tables.headline(sections),
            *filter(None, [tables.spent(section for section in sections if section.of == sections[0].of)]),
            *also,
        )
    )


def main() -> None:
    options = parsed()
    diffusers.utils.logging.set_verbosity_error()
    kind = device(options.device).type
    if options.write:
        tables.around(options.write, kind)  # refused now, and not after the work
    about = machine.described(device(options.device))
    for what, text in about:
        print(f"{what}: {text}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sections = measured(options, Path(folder))
    text = page_of(sections, about, [file.read_text().strip() for file in options.also])
    print(text, *(section.markdown() for section in sections), sep="\n\n")
    if options.write:
        tables.write(options.write, kind, text)
        print(f"\nwritten into {options.write}")


if __name__ == "__main__":
    main()
