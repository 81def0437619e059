"""Fits in a few threads of this process, behind a bounded queue.

Cancelling is cooperative: asked between two EM steps.
"""

import logging
import threading
from collections import deque
from dataclasses import dataclass, field

from service.adapters.fit_reporting import run_and_report
from service.domain.fit_task import FitTask
from service.domain.ports import FitListener
from service.errors import TooManyRequests, Unavailable

logger = logging.getLogger(__name__)

QUEUE_RETRY_SECONDS = 5
CANCEL_GRACE_SECONDS = 2.0
"""How long ``close`` waits for the EM step that a cancelled fit is in."""


@dataclass(frozen=True, slots=True)
class _Fit:
    task: FitTask
    listener: FitListener
    cancelled: threading.Event = field(default_factory=threading.Event)


class ThreadRunner:
    def __init__(self, *, threads: int, queue_size: int) -> None:
        self._queue_size = queue_size
        self._queue: deque[_Fit] = deque()
        self._running: dict[str, _Fit] = {}
        self._closed = False
        self._changed = threading.Condition()
        for number in range(threads):
            # Daemons, so that an EM step that outlasts the drain does not hold up the exit.
            threading.Thread(target=self._work, name=f"fit-{number}", daemon=True).start()

    def submit(self, task: FitTask, listener: FitListener) -> None:
        with self._changed:
            if self._closed:
                raise Unavailable.draining()
            if len(self._queue) >= self._queue_size:
                raise TooManyRequests(
                    "fit_queue_full",
                    f"{self._queue_size} fits are waiting already; try again later",
                    retry_after_seconds=QUEUE_RETRY_SECONDS,
                )
            self._queue.append(_Fit(task, listener))
            self._changed.notify_all()

    def cancel(self, job_id: str) -> None:
        queued = None
        with self._changed:
            if job_id in self._running:
                self._running[job_id].cancelled.set()
            for fit in self._queue:
                if fit.task.job_id == job_id:
                    queued = fit
            if queued is not None:
                self._queue.remove(queued)
                self._changed.notify_all()
        if queued is not None:
            queued.listener.cancelled()

    def close(self, timeout_seconds: float) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self._idle_within(timeout_seconds):
            for job_id in self._left():
                self.cancel(job_id)
            self._idle_within(CANCEL_GRACE_SECONDS)

    def _idle_within(self, timeout_seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._queue and not self._running, timeout_seconds
            )

    def _left(self) -> list[str]:
        with self._changed:
            return [fit.task.job_id for fit in self._queue] + list(self._running)

    def _work(self) -> None:
        while (fit := self._next()) is not None:
            try:
                run_and_report(fit.task, fit.listener, is_cancelled=fit.cancelled.is_set)
            except Exception:
                # A listener broke; the thread has other fits to run.
                logger.exception("fit_listener_broke", extra={"job": fit.task.job_id})
            finally:
                self._ended(fit)

    def _next(self) -> _Fit | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            fit = self._queue.popleft()
            self._running[fit.task.job_id] = fit
            return fit

    def _ended(self, fit: _Fit) -> None:
        with self._changed:
            del self._running[fit.task.job_id]
            self._changed.notify_all()
