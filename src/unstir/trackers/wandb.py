"""A training as a run of Weights & Biases, in RUN/wandb and, online, on its server.

A run has one id there, kept in RUN/wandb/id. The server takes no step twice: what it has of steps after the last
checkpoint stays, and as the steps are taken again with the same figures, its curves are one.
"""

import logging
import os
import secrets
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unstir.errors import UserError
from unstir.parts import library, tracker
from unstir.runs.files import write_text
from unstir.trackers import Scalars

logger = logging.getLogger(__name__)

SECONDS = 45  # for the beginning and for the end, after which the server is taken not to answer


@tracker
class Wandb(Scalars):
    """Sends what the run in ``folder`` does; where it goes is logged.

    Offline without a login, and where WANDB_MODE says so; nothing is ever asked on the terminal. Raises UserError
    where the extra is missing, and inside the run's folder: W&B obeys ./wandb/settings, and a stranger's run may have
    one that names a server, which the key of whoever is logged in would be sent to.
    """

    def __init__(self, folder: Path) -> None:
        self._wandb = library("wandb", "wandb", "log.to=wandb")
        if Path.cwd().is_relative_to(folder.resolve()):
            raise UserError("log.to", "wandb", f"does not work inside {folder.resolve()}", "call it in another folder")
        self._folder = folder
        self._run: Any = None
        self._snapshots: Sequence[int] = ()

    def begin(self, step: int, length: int, shape: tuple[int, ...], snapshots: Sequence[int] = ()) -> None:
        """Begin the run, or go on with it."""
        self._snapshots, kept = snapshots, self._folder / "wandb"
        kept.mkdir(exist_ok=True)
        if not (file := kept / "id").exists():
            write_text(file, secrets.token_hex(4))
        self._run = self._wandb.init(
            id=file.read_text(encoding="utf-8").strip(),
            resume="allow",
            reinit="create_new",  # another run of this process goes on
            name=os.environ.get("WANDB_NAME", self._folder.resolve().name),
            project=os.environ.get("WANDB_PROJECT", "unstir"),
            dir=str(self._folder),
            config=tomllib.loads((self._folder / "config.toml").read_text(encoding="utf-8")),
            mode=self._mode(kept),
            settings=self._wandb.Settings(
                silent=True, console="off", init_timeout=SECONDS, finish_timeout=SECONDS, finish_timeout_raises=True,
                allow_val_change=True, disable_git=True, save_code=False, x_save_requirements=False, program="unstir",
            ),
        )  # fmt: skip
        if not self._run.offline and self._run.url:
            logger.info(f"wandb: {self._run.url}")

    def _mode(self, kept: Path) -> str:
        """The mode that W&B's own settings ask for; offline, which is said, without a login."""
        wandb = self._wandb
        mode = str(wandb.setup(wandb.Settings(silent=True)).settings.mode)
        if mode != "online" or wandb.run is not None or wandb.login(prompt=False, verify=False):
            return mode
        sent = f"`wandb sync {kept}/offline-run-*` sends it later"
        logger.warning(f"wandb: no login (wandb login), so it writes to {kept} alone; {sent}")
        return "offline"

    def grid(self, step: int, file: Path) -> None:
        """Add the grid of a snapshot."""
        self.add(step, {"samples": self._wandb.Image(str(file))})

    def add(self, step: int, row: dict[str, Any]) -> None:
        """Add to the row of a step, which W&B takes once, when it is whole: of a snapshot the grid comes last."""
        if step >= self._run.starting_step:
            self._run.log(row, step=step, commit="samples" in row or step not in self._snapshots)

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.finish()
