"""A small run and store with every kind of file, the commands that read each of them, and their results."""

import contextlib
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from unstir import cli
from unstir.runs import checkpoint, lines
from unstir.train.record import VARYING

CONFIG = """
[data]
source = "digits"
channels = 1
store = "data/digits"

[model]
in_channels = 1
channels = 8
mults = [1, 2]
num_blocks = 1
groups = 4
dropout = 0.2
num_classes = 10

[diffusion]
T = 20
options = { beta_1 = 0.01, beta_T = 0.3 }

[train]
length = "12 steps"
batch_size = 8
micro_batch = 4
warmup = "3 steps"
dtype = "float32"
condition_dropout = 0.1

[log]
every = "2 steps"
held_out_images = 8

[checkpoint]
every = "4 steps"

[grids]
num = 4
steps = 3
log_spaced = 2
"""
"""Classes, dropout, averages, micro-batches, held-out images: all that the files of a run can hold, in seconds."""

RUN = Path("run")
BY = ["--num", "4", "--steps", "3"]
VARY = ["edit", "vary", "run", "digit.png", "--strength", "0.5", "--num", "2", "--steps", "3"]
JUDGE = ["evaluate", "run", "--num", "24", "--seeds", "2", "--steps", "3", "--no-memorisation", "--json"]


def build(folder: Path) -> None:
    """Make the run in an empty folder: the store, the run, and what each command leaves in them."""
    with contextlib.chdir(folder):
        Path("mine.toml").write_text(CONFIG)
        run_command(["train", "mine.toml", "--out", "run"])
        run_command(["sample", "run", *BY, "--out", "run/generated/some"])
        shutil.copy("run/generated/some/000000.png", "digit.png")
        run_command(["likelihood", "run", "--calls", "5", "--num", "16"])
        run_command(JUDGE)
        run_command(VARY)


def run_command(arguments: list[str]) -> str:
    """What a command prints, in this process; RuntimeError where it does not end well."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as left:
            status = left.code
    if status:
        raise RuntimeError(f"{' '.join(arguments)}: status {status}: {err.getvalue()}")
    return out.getvalue()


class Consumer:
    """A command that reads the run, and the part of its results that must not change unnoticed."""

    def __init__(
        self, name: str, arguments: list[str], result: Callable[[str], object], first: Callable[[], None] | None = None
    ) -> None:
        self.name, self.arguments, self._result, self._first = name, arguments, result, first

    def prepare(self) -> None:
        """What is done to the folder before, so that the command has work to do."""
        if self._first:
            self._first()

    def result(self, printed: str) -> str:
        """A digest of what the command made and printed, timings aside."""
        made = self._result(printed)
        return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()


def _files(*patterns: str) -> list[object]:
    found = sorted(path for pattern in patterns for path in Path().glob(pattern) if path.is_file())
    return [[str(path), hashlib.sha256(path.read_bytes()).hexdigest()] for path in found]


def _trained(printed: str) -> object:
    """The newest checkpoint's tensors and history and the lines of both logs, without their timings."""
    found, _ = checkpoint.newest(RUN / "checkpoints")
    assert found is not None
    state = {key: value for key, value in found.state.items() if key != "seconds"}
    logs = [
        {key: value for key, value in json.loads(line).items() if key not in (*VARYING, lines.CHECKSUM)}
        for name in ("metrics", "held_out")
        for line in (RUN / f"{name}.jsonl").read_text().splitlines()
    ]
    return [found.step, checkpoint.content_hash(found.tensors), state, logs]


def _figures(printed: str) -> object:
    """The figures of an evaluation."""
    return json.loads(printed)["evaluations"]


def _forget_figures() -> None:
    shutil.rmtree(RUN / "evaluation", ignore_errors=True)


CONSUMERS = {
    each.name: each
    for each in (
        Consumer("sample", ["sample", "run", *BY, "--out", "made"], lambda _: _files("made/*.png")),
        *(
            Consumer(
                f"sample step {step}",
                ["sample", "run", *BY, "--checkpoint", step, "--out", "made"],
                lambda _: _files("made/*.png"),
            )
            for step in ("1", "8")
        ),
        Consumer(
            "take up",
            ["sample", "run", *BY, "--out", "run/generated/some"],
            lambda _: _files("run/generated/some/0*.png"),
        ),
        Consumer("continue", ["train", "--out", "run", "--train.length", "14 steps"], _trained),
        Consumer("likelihood", ["likelihood", "run", "--calls", "5", "--num", "16", "--json"], json.loads),
        Consumer("figures", JUDGE, _figures),
        Consumer("evaluate", JUDGE, _figures, _forget_figures),
        Consumer("vary", [*VARY, "--out", "made.png"], lambda _: _files("made.png")),
        Consumer("inspect", ["data", "inspect", "data/digits"], lambda printed: printed),
        Consumer("doctor", ["doctor", "run"], lambda _: ""),
        Consumer("report", ["report", "run", "--no-measure", "--out", "page.html"], lambda _: ""),
    )
}
"""The output of the doctor and the page hold times of day and seconds: only their exit statuses are compared."""

READERS: dict[str, tuple[str, ...]] = {
    "run/config.toml": ("sample", "sample", "likelihood", "vary", "continue", "evaluate", "doctor"),
    "run/data.json": ("sample", "sample", "figures", "continue", "doctor"),
    "run/checkpoints/*-00000012.safetensors": ("sample", "sample", "vary", "likelihood", "continue", "doctor"),
    "run/checkpoints/*.safetensors": ("sample step 8", "sample step 8", "sample step 8", "continue"),
    "run/weights/*.safetensors": ("sample step 1", "sample step 8", "sample step 1", "doctor"),
    "run/*.jsonl": ("continue", "continue", "continue", "doctor", "report"),
    "run/evaluation/*.json": ("figures", "figures", "figures", "report"),
    "run/generated/some/*": ("take up",),
    "run/generated/step*/*": ("evaluate",),
    "run/likelihood/*.json": ("report",),
    "run/edits/*": ("vary", "vary", "vary", "report"),
    "run/samples/*": ("sample", "report"),
    "data/digits/*.json": ("inspect", "inspect", "inspect", "figures", "continue", "evaluate", "doctor"),
    "data/digits/*.npy": ("figures", "figures", "likelihood", "continue", "doctor"),
    "data/digits/statistics/*": ("evaluate",),
}
"""Which commands read the files of a pattern; a file that fits several is of the first. Quick ones come more often."""

SLOW = ("run/generated/step*/*", "run/likelihood/*.json", "run/samples/*", "data/digits/statistics/*")
"""Patterns whose readers take seconds: their files are chosen a third as often."""


def targets(folder: Path) -> dict[str, list[Path]]:
    """The files of each pattern of `READERS` that has any, by path below ``folder``."""
    taken: set[Path] = set()
    found: dict[str, list[Path]] = {}
    for pattern in READERS:
        files = [path.relative_to(folder) for path in sorted(folder.glob(pattern)) if path.is_file()]
        found[pattern] = [path for path in files if path not in taken]
        taken.update(files)
    return {pattern: files for pattern, files in found.items() if files}


def choose(chance: random.Random, names: Sequence[str]) -> Consumer:
    """One of the consumers with these names."""
    return CONSUMERS[chance.choice(names)]
