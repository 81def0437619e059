"""One BLAS thread while a fit runs.

The passes have threads of their own, and all matrices besides are small. BLAS threads that spin
beside them make a 2 × 2 solve take milliseconds. The limit holds for the whole process, so fits
that run at the same time share it: the last one to end lifts it.
"""

import os
import threading
from contextlib import ExitStack
from functools import cache
from types import TracebackType

from threadpoolctl import ThreadpoolController


class _OneBlasThread:
    """A context that any number of threads may be in at once."""

    def __init__(self) -> None:
        self._limit = ExitStack()
        self._begin_anew()
        if hasattr(os, "register_at_fork"):  # no fit of the parent goes on in a child
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit.close()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit.enter_context(_controller().limit(limits=1, user_api="blas"))
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.close()


@cache
def _controller() -> ThreadpoolController:
    """Look for the BLAS libraries once; that takes milliseconds."""
    return ThreadpoolController()


one_blas_thread = _OneBlasThread()
