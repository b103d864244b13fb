"""Checkpoints written aside, in a thread, while training goes on.

The state is copied first, so that a file is of one step. At most one is being written, and the process does not end
before it is whole: a kill leaves the one before it, as at any other time. Where there is no memory for the copy,
training waits while the same file is written of the state itself.

The thread begins with the block, while there is memory: one that begins where none is left may wait for ever.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from unstir.errors import UserError, asked_for, is_out_of_memory
from unstir.group import Alone
from unstir.runs import checkpoint
from unstir.runs.folder import is_run
from unstir.runs.run import Run
from unstir.train import parallel
from unstir.train.record import Record
from unstir.train.state import State

logger = logging.getLogger(__name__)


class Saving:
    """What saves a run's full checkpoints. Leaving the block waits for the one under way.

    An error of writing is raised by the next call, or at the end of the block unless another error ends that.
    """

    def __init__(self, run: Run, state: State, record: Record, group: Alone = Alone()) -> None:
        self._run, self._state, self._record, self._group = run, state, record, group
        self._copies = True
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    def begin(self) -> None:
        """Begin to save this moment; the state may change as soon as this returns. Of several processes the first does.

        Raises UserError where the run's folder has gone or the processes' weights differ, and what
        the save before raised.
        """
        self.wait()
        parallel.check_alike(self._group, self._state.net)
        if not self._group.is_first:
            return
        if not is_run(self._run.path):
            raise UserError(
                "", self._run.path, "was moved or removed while it was trained", "put it back to go on from there"
            )
        with self._record.paused():
            copied = self._copied()
            self._written = self._thread.submit(self._write, copied or self._state.uncopied(self._run))
            if copied is None:
                self._written.exception()

    def _copied(self) -> Callable[[], checkpoint.Checkpoint] | None:
        """The state's copy; None, from then on, where the memory runs out for it."""
        try:
            return self._state.copied(self._run) if self._copies else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            asked = asked_for(error)
        self._copies = False
        logger.warning(
            f"out of memory at step {self._state.step}{asked}, for the copy of the state that a checkpoint is written "
            "from; from now on training waits while a checkpoint is written, which changes nothing else"
        )
        return None

    def wait(self) -> None:
        """Wait until all is written. Raises UserError where it could not be."""
        written, self._written = self._written, None
        if written is not None:
            with self._record.paused():
                written.exception()
            written.result()

    def check(self) -> None:
        """Raise what a save raised, where it is over; this never waits."""
        if self._written is not None and self._written.done():
            self.wait()

    def _write(self, copied: Callable[[], checkpoint.Checkpoint]) -> None:
        """Write a checkpoint; the lines of metrics that it counts on come first."""
        self._record.sync()
        made = copied()
        checkpoint.save(self._run.checkpoints, made)
        checkpoint.keep_last(self._run.checkpoints, self._run.config.checkpoint.keep)

    def __enter__(self) -> Self:
        if self._group.is_first:
            self._thread.submit(int).result()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._thread.shutdown()
            self._thread, self._written = ThreadPoolExecutor(1, "checkpoint"), None
