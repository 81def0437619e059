"""A thread that has little to do, and soon, asks the system for short slices of the processor.

Linux from 6.12 on lets a thread name its slice: who asks for a shorter one is let in sooner beside
threads that compute, and gets no more of the processor altogether. No privilege is needed.
``docs/benchmarks/serving.md`` has figures.
"""

import ctypes
import os
import platform
import struct

GET, SET = {"x86_64": (315, 314), "aarch64": (275, 274)}.get(platform.machine(), (-1, -1))
"""Linux's ``sched_getattr`` and ``sched_setattr``, which older C libraries do not name."""
ATTRIBUTES = struct.Struct("=IIQiIQQQII")
"""Size, policy, flags, nice value, priority; slice, deadline and period in nanoseconds; clamps."""
SLICE_PLACE = 5
FAIR_POLICIES = (getattr(os, "SCHED_OTHER", -1), getattr(os, "SCHED_BATCH", -1))


def ask_for_slices(nanoseconds: int) -> bool:
    """Ask for slices of this length for the calling thread; False where that cannot be."""
    values = _attributes()
    if values is None or values[1] not in FAIR_POLICIES:
        return False
    values[SLICE_PLACE] = nanoseconds
    wished = ctypes.create_string_buffer(ATTRIBUTES.pack(*values), ATTRIBUTES.size)
    return _call(SET, wished, 0) == 0 and slice_of_thread() == nanoseconds


def slice_of_thread() -> int | None:
    """Return the slice of the calling thread in nanoseconds; None where no such thing is told."""
    values = _attributes()
    return None if values is None else values[SLICE_PLACE]


def _attributes() -> list[int] | None:
    told = ctypes.create_string_buffer(ATTRIBUTES.size)
    if platform.system() != "Linux" or GET < 0 or _call(GET, told, ATTRIBUTES.size, 0) != 0:
        return None
    return list(ATTRIBUTES.unpack(told.raw))


def _call(number: int, attributes: "ctypes.Array[ctypes.c_char]", *rest: int) -> int:
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, attributes, *rest))
