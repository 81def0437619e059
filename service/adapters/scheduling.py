"""Who gets the processors first: the server whenever it has something to do, fits what is left.

Niceness alone does not see to that. A process that wakes up waits until the one that runs has had
its slice, several milliseconds, unless its own slices are shorter; so the server's are as short as
can be and those of fits long. Niceness also counts among the processes of one group only, and the
kernel may group by session: workers stay in the server's. ``docs/benchmarks/jobs.md`` has figures.
"""

import ctypes
import os
import platform
import struct

SHORTEST_SLICE, LONGEST_SLICE = 100_000, 100_000_000
"""Nanoseconds, as the kernel bounds them (Linux 6.12 and later; earlier ones pass over them)."""
SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""The kernel's ``sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period."""
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call, for which Python has no function."""


def come_first() -> None:
    """Let this thread, and those that it starts, take the processor from fits at once."""
    if hasattr(os, "sched_getscheduler"):
        _set_slice(os.sched_getscheduler(0), SHORTEST_SLICE)


def step_back(niceness: int) -> None:
    """Let this thread, and those that it starts, have what others leave, in long slices."""
    os.nice(niceness - os.nice(0))
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        _set_slice(os.SCHED_BATCH, LONGEST_SLICE)


def _set_slice(policy: int, nanoseconds: int) -> None:
    """Ask for slices of this length; a kernel that knows of none goes on as before."""
    number = SCHED_SETATTR.get(platform.machine())
    if number is not None:
        attributes = SCHED_ATTR.pack(SCHED_ATTR.size, policy, 0, os.nice(0), 0, nanoseconds, 0, 0)
        ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)
