"""How the C library deals with memory that tensors on the CPU give back."""

import ctypes
import sys

#: Parameters of glibc's ``mallopt``, see malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next tensor instead of handing it back to the system.

    A large tensor otherwise gets fresh pages each time, and touching those takes longer than many a
    layer does. The process stays as large as it has once been.

    Returns:
        Whether it was done; not on other systems than Linux with glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def trim_heap() -> bool:
    """Have glibc hand freed memory back to the system now.

    Many batches in flight in turn leave holes between what they hold, which would add up to a good part
    of the activations.

    Returns:
        Whether there was any to hand back; never on other systems than Linux with glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # no glibc
        return False
