"""The memory of a device: how much there is, how much this process has taken, at most and now, and could still take.

On CUDA it is what torch's allocator has given to tensors, elsewhere all that the process keeps in the machine's memory.
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from unstir.distributed import processes

KILO = 1024
BLOCK = KILO**2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""The options' numbers in glibc's malloc.h."""
MOST = 2**31 - 1
"""The largest value of an option."""
PLENTY = 2  # times the memory of a job that have to be there for freed blocks to be kept


def memory(device: torch.device) -> int:
    """Bytes of the device, or of what this process may use of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def peak(device: torch.device) -> int:
    """The most bytes that this process has had so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else KILO
    # A process begins with its parent's ru_maxrss; VmHWM is its own.
    return _of("/proc/self/status", "VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def taken(device: torch.device) -> int:
    """The bytes that this process has now, without those of freed blocks that it keeps, which are given back."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if _blocks == "kept":
        _trim()
    return _of("/proc/self/status", "VmRSS") or peak(device)


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more but cycles of references, and what the allocator keeps of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        _trim()


_blocks = ""  # what was decided for this process: "kept", "returned" or nothing yet


def keep_blocks(takes: int, device: torch.device) -> None:
    """From now on keep freed blocks of memory for the next ones, for a job that ``takes`` so many bytes.

    glibc, the C library of most Linux systems, gives blocks above 32 MiB back at once, and the system clears the pages
    of each new one: a third of the time of training with images of 64x64, and more of sampling them. Where blocks are
    kept, many are in pieces too small to use, so it is done where `PLENTY` times the memory may be had; a larger job in
    the same process is given what glibc does by itself after large blocks. Another C library, and a process that was to
    `return_blocks_at_once`, are left as they are. Results do not depend on it.
    """
    global _blocks
    if device.type != "cpu" or _blocks == "returned":
        return
    if PLENTY * takes * processes.size() <= reachable(device):  # the others may be on this machine
        _blocks = "kept"
        _malloc_options(MOST, MOST)
    elif _blocks == "kept":
        _malloc_options(32 * BLOCK, 64 * BLOCK)


def return_blocks_at_once() -> None:
    """From now on give freed blocks of memory of `BLOCK` bytes and more back to the system at once.

    Kept for the next ones many would be in pieces too small to use: a tenth of what a training takes that recomputes
    all activations. It costs the time that `keep_blocks` spares.
    """
    global _blocks
    _blocks = "returned"
    _malloc_options(BLOCK, BLOCK)


def _malloc_options(mapped: int, trimmed: int) -> None:
    """The sizes from which glibc maps a block by itself, and gives back what is free at the end of its memory."""
    if mallopt := _of_glibc("mallopt"):
        if not mallopt(M_MMAP_THRESHOLD, mapped):  # an older glibc takes no more than this
            mallopt(M_MMAP_THRESHOLD, 32 * BLOCK)
        mallopt(M_TRIM_THRESHOLD, trimmed)


def _trim() -> None:
    """Give back all of the memory that glibc keeps."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where there is none."""
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return found


def reachable(device: torch.device) -> int:
    """The bytes that this process has now and those that it could still get, within its limits."""
    now = taken(device)
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - now
        return now + cached + int(torch.cuda.mem_get_info(device)[0])
    free = [memory(device) - now]
    if there := _of("/proc/meminfo", "MemAvailable"):
        free.append(there)
    for limit, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, used = resource.getrlimit(limit)[0], _of("/proc/self/status", key)
        if most != resource.RLIM_INFINITY and used:
            free.append(most - used)
    return now + max(min(free), 0)


def more(device: torch.device) -> str:
    """What to do for this process to have more memory of the device."""
    if device.type == "cuda":
        return "end other programs on that GPU"
    return "end other programs or raise this one's limit (ulimit -v, or that of its container)"


def _of(file: str, key: str) -> int:
    """The bytes of a line such as "VmRSS:  1024 kB"; 0 where there is none."""
    try:
        lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith(f"{key}:")]
    return int(found[0][1]) * KILO if found else 0
