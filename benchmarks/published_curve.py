"""The FIDs of a run beside those published for Ho et al.'s network after as many images.

    python benchmarks/published_curve.py runs/ho             # what `unstir evaluate runs/ho --fid` has measured
    python benchmarks/published_curve.py runs/ho --write     # and into docs/reproduction.md

The published ones are those of tqch/ddpm-torch (CIFAR-10, 50,000 images, 1000 ancestral steps), by training length.
"""

import argparse
from pathlib import Path

from peers.tables import around, table, write
from unstir.errors import UserError
from unstir.metrics.evaluation import FID, Evaluation, saved
from unstir.runs import checkpoint
from unstir.runs.run import Run

PAGE = Path(__file__).parents[1] / "docs/reproduction.md"
BLOCK, BY = "cuda training", Path(__file__).name
PUBLISHED = {6_000_000: 9.16, 12_000_000: 5.78, 24_000_000: 4.08, 54_000_000: 3.31, 102_000_000: 3.19}


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    page = f"put the table into a page (default: docs/{PAGE.name}) between its comments"
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, help=page)
    return parser.parse_args(arguments)


def rows(evaluations: list[Evaluation]) -> list[tuple[str, str, str, str, str]]:
    """Those of the run and the published ones, by images seen; figures that are no FID are named."""
    found = [
        (
            each.images,
            f"{each.main().value:.2f} ± {each.main().error:.2f}"
            + ("" if each.main_key == FID else f" ({each.main_key})"),
            f"{each.protocol['sampler']}, {each.protocol['steps']} steps",
            f"{each.protocol['num'] * each.protocol['seeds']:,}",
            "this run",
        )
        for each in evaluations
    ]
    found += [(n, f"{fid:.2f}", "ancestral, 1000 steps", "50,000", "tqch/ddpm-torch") for n, fid in PUBLISHED.items()]
    return [(f"{images:,}", *rest) for images, *rest in sorted(found, key=lambda row: (row[0], row[4]))]


def about(run: Run) -> str:
    """How the run was trained: settings, device, time and speed."""
    lines, train = run.metrics(), run.config.train
    newest, _ = checkpoint.newest(run.checkpoints)
    if newest is None or not lines:
        raise UserError(f"{run.path} has not been trained; train it first")
    where, seconds = newest.environment, float(newest.state["seconds"])
    images = newest.step * train.batch_size
    return (
        f"Recipe `{run.config.recipe}`, {images:,} images in batches of {train.batch_size}, {train.dtype}, "
        f"compile={train.compile}; {where['device']}, torch {where['torch']}; {seconds / 3600:.2f} hours, "
        f"{images / max(seconds, 1e-9):,.0f} images/s with grids and all else."
    )


def text_of(run: Run) -> str:
    head = ("images trained on", "FID", "drawn by", "images", "")
    return f"{about(run)}\n\n{table(head, rows(saved(run)))}"


def main() -> None:
    options = parsed()
    if options.write:
        around(options.write, BLOCK, BY)  # refused now, and not after the work
    try:
        text = text_of(Run.open(options.run))
    except UserError as error:
        raise SystemExit(f"published_curve.py: {error}") from None
    print(text)
    if options.write:
        write(options.write, BLOCK, text, BY)


if __name__ == "__main__":
    main()
