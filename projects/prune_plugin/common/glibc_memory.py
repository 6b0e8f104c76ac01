"""Settings of glibc's allocator for the memory of CPU tensors."""

import ctypes
import sys

#: Parameters of glibc's ``mallopt``, see malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for later tensors instead of returning it to the system.

    By default every large tensor is given new pages, and the page faults can take longer than the layer
    itself. The process then stays at its peak memory.

    Returns:
        Whether the settings were applied; False without Linux and glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def trim_heap() -> bool:
    """Make glibc return freed memory to the system now (``malloc_trim``).

    When many batches are processed in turn, the heap fragments; the gaps can add up to a considerable
    part of the activations' size.

    Returns:
        Whether memory was returned; False without Linux and glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # no glibc
        return False
