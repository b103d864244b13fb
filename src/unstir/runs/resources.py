"""The memory of a device: the most that this process has taken, and what it could still take.

On CUDA it is what torch's allocator has given to tensors, elsewhere all that the process keeps in the machine's memory.
"""

import os
import sys
from pathlib import Path

import torch

KILO = 1024
STATUS = "/proc/self/status"


def peak(device: torch.device) -> int:
    """The most bytes that this process has had so far; 0 on Windows, which is not asked."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else KILO
    # A process begins with its parent's ru_maxrss; VmHWM is its own.
    return _of(STATUS, "VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free() -> int:
    """The bytes of the machine that this process could still get, within its limits and those of its container.

    On Windows, which is not asked, more than any machine has: there a size that does not fit is an error of torch.
    """
    try:
        import resource
    except ImportError:
        return sys.maxsize
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    left = [_of("/proc/meminfo", "MemAvailable") or installed]
    try:
        container = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        container = "max"
    if container.isdigit():
        left.append(int(container) - _of(STATUS, "VmRSS"))
    for limit, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, used = resource.getrlimit(limit)[0], _of(STATUS, key)
        if most != resource.RLIM_INFINITY and used:
            left.append(most - used)
    return max(min(left), 0)


def _of(file: str, key: str) -> int:
    """The bytes of a line such as "VmRSS:  1024 kB"; 0 where there is none."""
    try:
        lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    matches = [line.split() for line in lines if line.startswith(f"{key}:")]
    return int(matches[0][1]) * KILO if matches else 0
