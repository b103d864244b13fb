"""The models that come with unstir, as `unstir models` lists them."""

from dataclasses import replace

from unstir.metrics.evaluation import saved
from unstir.metrics.figures import in_rows
from unstir.progress import counted
from unstir.runs.named import PREFIX, names
from unstir.runs.run import Run


def listed() -> list[str]:
    """A line a model: its name, images, classes, size of its files, first figure with that of real images, licence."""
    rows = [_row(Run.open(f"{PREFIX}{name}")) for name in names()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(run: Run) -> tuple[str, ...]:
    channels, height, width = run.data.shape
    size = sum(file.stat().st_size for file in run.files.rglob("*") if file.is_file())
    evaluation = saved(replace(run, path=run.files))[-1]
    name, value, real, *_ = in_rows([evaluation.main()], evaluation.protocol["num"])[0]
    card = (run.files / "README.md").read_text("utf-8").splitlines()
    licence = next(line.partition(": ")[2] for line in card if line.startswith("license: "))
    return (
        run.files.name,
        f"{height}x{width} {'grey' if channels == 1 else 'colour'}",
        counted(run.labels.count, "class", "classes"),
        f"{size / 1e6:.1f} MB",
        f"{name} {value} (real images {real})",
        licence,
    )
