"""Memory that a training on the CPU keeps between its steps.

A step allocates and frees activations of many megabytes. By default glibc returns such blocks to the system at once,
and the next step faults every page in again: on the SiLU network of CIFAR-10 28,000 to 124,000 page faults a step, a
fifth to half of its time (docs/training.md). The arithmetic, the bits and the peak memory stay the same.
"""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt(3): no block by mmap, never trim the heap's end, grow the heap by 256 MiB at a time.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_SETTINGS = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28))


def keep_memory() -> bool:
    """Tell glibc to keep freed memory for the process; whether it did. Elsewhere (musl, macOS, Windows): False."""
    if not sys.platform.startswith("linux"):
        return False
    process = ctypes.CDLL(None)
    if not hasattr(process, "gnu_get_libc_version") or not hasattr(process, "mallopt"):
        return False
    done = [process.mallopt(parameter, value) for parameter, value in _SETTINGS]
    return all(one == 1 for one in done)
