"""Freed memory that the C library keeps.

Compiling a training step leaves half a gigabyte of it behind, beside which the step's own would be
the peak of the process. Only glibc has this; elsewhere nothing happens.
"""

import ctypes
import functools
from collections.abc import Callable


def give_back() -> bool:
    """Returns freed memory to the operating system; whether there was any."""
    trim = _trim()
    return bool(trim and trim(0))


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; TypeError: Windows
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
