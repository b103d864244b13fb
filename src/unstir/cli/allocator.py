"""What torch needs of a process of the command line's own: to keep freed memory, and a setting for exact bits."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the options' numbers in glibc's malloc.h
MOST, OLDER_MOST = 2**31 - 1, 1 << 25  # the largest value of an option; the largest block that an older glibc keeps


def same_bits() -> None:
    """Have CUDA's products of matrices give the same bits each time (`diffusion.arithmetic`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def keep_blocks() -> None:
    """From now on keep freed blocks of memory for the next ones. Call it before torch is loaded.

    glibc gives blocks above 32 MiB back at once, and the system clears the pages of each new one: a third of the time
    of training with images of 64x64. Another C library is left as it is, and no result depends on it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, MOST):
            mallopt(M_MMAP_THRESHOLD, OLDER_MOST)
        mallopt(M_TRIM_THRESHOLD, MOST)
