"""Rows as a run of Weights & Biases, in the folder RUN/wandb and, online, on its server.

A run has one id there, kept in RUN/wandb/id. The server continues it and takes no step twice: what it has is not sent
again, and as a step that is taken again has the figures that it had, but for those of the clock, its curves are those
of metrics.jsonl. Offline nothing says what was sent: each time that a run is followed its whole history is written to
a new folder, and those of before are removed. `wandb sync` of it replaces what the server has of this id.

It is offline without a login, and where WANDB_MODE says so; nothing is ever asked on the terminal.
"""

import os
import secrets
import shutil
import tomllib
from pathlib import Path
from typing import Any

from unstir.libraries import library
from unstir.progress import Say
from unstir.runs.files import write_text
from unstir.trackers.folder import Row
from unstir.trackers.job import Job

SECONDS = 45  # for the beginning and for the end, after which the server is taken not to answer
OFFLINE = "offline", "dryrun"


def load() -> None:
    """Load what is needed. Raises UserError where the extra is missing."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # which it reads when it is loaded
    _library()


def _library() -> Any:
    return library("wandb", "wandb", "--log.to wandb")


class Tracker:
    """The run of Weights & Biases of a run that is being followed."""

    def __init__(self, job: Job, say: Say) -> None:
        self._wandb, self._job = _library(), job
        self._folder = job.run / "wandb"
        self._folder.mkdir(exist_ok=True)
        if Path.cwd().is_relative_to(job.run.resolve()):  # W&B obeys ./wandb/settings, a stranger's run may have one
            os.chdir(job.run.resolve().anchor)
        os.environ.setdefault("WANDB_CACHE_DIR", str(self._folder / "cache"))
        if not (file := self._folder / "id").exists():
            write_text(file, secrets.token_hex(4))
        self._id = file.read_text(encoding="utf-8").strip()
        mode = self._wandb.setup(self._wandb.Settings(silent=True)).settings.mode
        self._old = [] if mode == "disabled" else list(self._folder.glob(f"offline-run-*-{self._id}"))
        try:
            self._run = self._begin(mode) if mode in OFFLINE else self._begin(mode, resume="allow")
        except self._wandb.errors.UsageError as error:
            self._run = self._begin("offline")
            why, sent = str(error).partition(". ")[0], f"`wandb sync {self._folder}/offline-run-*` sends it later"
            say(f"wandb: no login ({' '.join(why.split())}), so it writes to {self._folder} alone; {sent}")
        if not self._run.offline and self._run.url:
            say(f"wandb: {self._run.url}")

    def _begin(self, mode: str, **how: Any) -> Any:
        config = tomllib.loads((self._job.run / "config.toml").read_text(encoding="utf-8"))
        settings = self._wandb.Settings(
            silent=True, console="off", init_timeout=SECONDS, finish_timeout=SECONDS, allow_val_change=True,
            disable_git=True, save_code=False, x_save_requirements=False, x_stats_pid=os.getppid(),
            program="unstir",
        )  # fmt: skip
        return self._wandb.init(
            id=self._id,
            name=os.environ.get("WANDB_NAME", self._job.run.name),
            project=os.environ.get("WANDB_PROJECT", "unstir"),
            dir=str(self._job.run),
            config=config,
            mode=mode,
            settings=settings,
            **how,
        )

    def add(self, row: Row) -> None:
        """Add a row, unless the server has its step."""
        if row.step < self._run.starting_step:
            return
        pictures = {name: self._wandb.Image(str(file)) for name, file in row.pictures.items()}
        self._run.log({**row.scalars, **pictures}, step=row.step, commit=True)

    def caught_up(self) -> None:
        """All that was there is given: remove the offline folders of before."""
        for folder in self._old:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Send the page of the run, where there is one, and wait for what is not sent yet."""
        if self._job.page.exists():
            page = self._wandb.Artifact(f"report-{self._id}", type="report")
            page.add_file(str(self._job.page), name="report.html", policy="immutable", skip_cache=True)
            self._run.log_artifact(page)
        self._run.finish()
