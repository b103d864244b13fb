"""The job's store: text by key, which all of its processes see; torchrun keeps it, or else the first process."""

import os
import time
from datetime import timedelta

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # not in __all__
from torch.distributed.rendezvous import rendezvous

_stores: list[Store] = []  # the first process may keep the others' store, which lasts as long as the process


def job_store(timeout: timedelta) -> Store:
    """The store of this attempt of the job: torchrun starts the processes again, and its store stays as it is."""
    if not _stores:
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _stores.append(PrefixStore(f"unstir/{attempt}", next(iter(rendezvous("env://", timeout=timeout)))[0]))
    return _stores[0]


def awaited(store: Store, key: str) -> str:
    """The value of a key, however long it takes until another process sets it."""
    while not store.check([key]):  # the store's own wait would put off signals
        time.sleep(0.02)
    return bytes(store.get(key)).decode()


def is_first_to_end(rank: str, if_gone: bool) -> bool:
    """Whether no other process has ended with a message before this one.

    It is ``if_gone`` where the first process kept the store and has ended, with a message unless it was killed.
    """
    if not _stores and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        return bytes(job_store(timedelta(seconds=10)).compare_set("ended", "", rank)).decode() == rank
    except RuntimeError:
        return if_gone
