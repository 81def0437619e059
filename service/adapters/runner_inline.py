"""Fits at once, in the caller's thread: for tests and scripts."""

from collections.abc import Callable

from service.adapters.fit_reporting import run_and_report
from service.domain.fit_task import FitTask
from service.domain.ports import FitListener
from service.domain.records import FitOrder, StopWish
from service.errors import Unavailable


class InlineRunner:
    def __init__(self) -> None:
        self._running: dict[str, set[StopWish]] = {}
        """By job, how it was asked to stop."""
        self._held: dict[str, tuple[FitTask, FitListener]] = {}
        self._closed = False

    def start(self) -> None:
        pass

    def require_place(self) -> None:
        if self._closed:
            raise Unavailable.draining()

    def submit(self, task: FitTask, listener: FitListener, *, is_held: bool = False) -> None:
        self.require_place()
        self._held[task.job_id] = task, listener
        if not is_held:
            self.admit(task.job_id)

    def admit(self, job_id: str) -> None:
        held = self._held.pop(job_id, None)
        if held is not None:
            self._run(*held)

    def _run(self, task: FitTask, listener: FitListener) -> None:
        wishes = self._running[task.job_id] = set()
        try:
            run_and_report(
                task,
                listener,
                is_cancelled=lambda: StopWish.DISCARD in wishes,
                should_end=lambda: StopWish.KEEP_BEST in wishes,
            )
        finally:
            del self._running[task.job_id]

    def resume(
        self,
        job_id: str,  # noqa: ARG002  # it keeps no rows
        order: FitOrder,  # noqa: ARG002  # it keeps no rows
        listener: FitListener,  # noqa: ARG002  # it keeps no rows
        *,
        is_held: bool = False,  # noqa: ARG002  # it keeps no rows
    ) -> bool:
        return False

    def clear(self, is_open: Callable[[str], bool]) -> None:
        pass

    def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
        held = self._held.pop(job_id, None)
        if held is not None:
            _, listener = held
            listener.cancelled()
        if job_id in self._running:
            self._running[job_id].add(StopWish.KEEP_BEST if keep_best else StopWish.DISCARD)

    def check_usable(self) -> None:
        pass

    def close(self, timeout_seconds: float) -> None:  # noqa: ARG002  # no thread outlasts a call
        self._closed = True
        self._held.clear()
