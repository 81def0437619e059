"""Memory that is freed and soon wanted again stays with the process.

Every body is read in large pieces. By its defaults the C library gives each back to the system when
it is freed, and the system hands out cleared pages one fault after another: a third of the time of
a million rows went there. ``docs/benchmarks/serving.md`` has figures.
"""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""
KEPT_BYTES = 128 * 1024**2
"""Free at the end of the heap, beyond which it is given back."""
OWN_PAGES_BYTES = 32 * 1024**2
"""From which on an allocation has pages of its own, which are always given back."""


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; False where it has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((TRIM_THRESHOLD, KEPT_BYTES), (MMAP_THRESHOLD, OWN_PAGES_BYTES))
    return all(mallopt(*setting) == 1 for setting in settings)
