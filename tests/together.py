"""Several processes that do one job, as torchrun starts them: copies of this one, without the seconds of a start."""

import json
import os
import signal
import socket
import sys
import time
import traceback

import torch._dynamo  # noqa: F401  # which DistributedDataParallel needs: here once, not in every copy
from torch.distributed import TCPStore

PATIENCE = 5.0  # seconds that processes have to end by themselves where another one has ended badly


class Together:
    """``work(rank)`` in each of so many processes; what it returns, as JSON has it, is in the folder ``out``.

    What they print is in out/RANK.err. Their store is kept here, or with ``keeps_store=False`` by the first of them.
    Where one ends badly, SIGTERM ends the others, and at last SIGKILL, as under torchrun, but later: those that notice
    it say so before.
    """

    def __init__(self, num, work, out, keeps_store=True):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.began, self.ended, self._sent = out, time.monotonic(), {}, []
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port, kept = listening.getsockname()[1], os.dup(listening.fileno()) if keeps_store else None
        self.pids = [self._start(rank, num, work, port, kept) for rank in range(num)]
        # Its thread begins after the copies are made: a copy keeps the locks that are held just then.
        how = {"is_master": True, "master_listen_fd": kept, "use_libuv": False}  # torch 2.6: one or the other
        self._store = TCPStore("127.0.0.1", port, **how) if keeps_store else None
        self.statuses = [None] * num

    def _start(self, rank, num, work, port, kept):
        if pid := os.fork():
            return pid
        status = 70

        try:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(num), LOCAL_RANK=str(rank))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            if kept is not None:
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
                os.close(kept)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            for number in (1, 2):
                os.dup2(os.open(self.out / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            (self.out / f"{rank}.json").write_text(json.dumps(work(rank)))
            status = 0
        except SystemExit as left:
            status = left.code
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        return None

    def poll(self):
        """Whether all have ended."""
        for rank, pid in enumerate(self.pids):
            if self.statuses[rank] is None:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.statuses[rank], self.ended[rank] = os.waitstatus_to_exitcode(status), time.monotonic()
        badly = [ended for rank, ended in self.ended.items() if self.statuses[rank]]
        for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 4 * PATIENCE)):
            if badly and time.monotonic() > min(badly) + patience and number not in self._sent:
                self._sent.append(number)
                for pid in [pid for pid, status in zip(self.pids, self.statuses, strict=True) if status is None]:
                    os.kill(pid, number)
        if None not in self.statuses:
            self._store = None
        return None not in self.statuses

    def wait(self, timeout=90):
        """The exit statuses, when all have ended; those that have not in time are killed, and the test fails."""
        deadline = time.monotonic() + timeout
        while not self.poll():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"after {timeout} s only {self.statuses} had ended: {self.said()}")
            time.sleep(0.01)
        return self.statuses

    def signal(self, rank, number):
        """Send one of them a signal, unless it has ended."""
        self.poll()
        if self.statuses[rank] is None:
            os.kill(self.pids[rank], number)

    def kill(self):
        """End all of them at once."""
        for rank in range(len(self.pids)):
            self.signal(rank, signal.SIGKILL)
        for rank, pid in enumerate(self.pids):
            if self.statuses[rank] is None:
                os.waitpid(pid, 0)
        self._store = None

    def said(self):
        """What all of them have printed."""
        return "".join((self.out / f"{rank}.err").read_text() for rank in range(len(self.pids)))

    def results(self):
        """What each has returned, when all have ended well."""
        assert not any(self.wait()), self.said()
        return [json.loads((self.out / f"{rank}.json").read_text()) for rank in range(len(self.pids))]


def together(num, work, out):
    """What ``work(rank)`` returns in each of so many processes."""
    return Together(num, work, out).results()
