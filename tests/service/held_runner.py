"""A runner that keeps fits until it is told to go on: for what can be seen while a fit runs."""

from collections.abc import Callable

from service.adapters.fit_reporting import run_and_report
from service.domain.fit_task import FitTask
from service.domain.ports import FitListener
from service.domain.records import FitOrder
from service.errors import TooManyRequests, Unavailable


class HeldRunner:
    """Implements ``JobRunner`` with a queue that a test lets out."""

    def __init__(self, queue_size: int = 10) -> None:
        self._queue_size = queue_size
        self._held: dict[str, tuple[FitTask, FitListener]] = {}
        self._admitted: set[str] = set()
        self._closed = False
        self.before_end: Callable[[], None] = lambda: None
        """Called when a released fit is done, before anyone hears of it."""

    def start(self) -> None:
        pass

    def require_place(self) -> None:
        if self._closed:
            raise Unavailable.draining()
        if len(self._held) >= self._queue_size:
            raise TooManyRequests("fit_queue_full", "the queue is full", retry_after_seconds=5)

    def submit(self, task: FitTask, listener: FitListener, *, is_held: bool = False) -> None:
        self.require_place()
        self._held[task.job_id] = task, listener
        if not is_held:
            self.admit(task.job_id)

    def resume(
        self, job_id: str, order: FitOrder, listener: FitListener, *, is_held: bool = False
    ) -> bool:
        return False

    def admit(self, job_id: str) -> None:
        self._admitted.add(job_id)

    def clear(self, is_open: Callable[[str], bool]) -> None:
        pass

    def cancel(self, job_id: str, *, keep_best: bool = False) -> None:
        if job_id in self._held:
            _, listener = self._held.pop(job_id)
            listener.cancelled()

    def check_usable(self) -> None:
        pass

    def close(self, timeout_seconds: float) -> None:
        self._closed = True
        for job_id in list(self._held):
            self.cancel(job_id)

    def ready(self) -> list[str]:
        """Return the jobs whose turn has come, in the order they came."""
        return [job_id for job_id in self._held if job_id in self._admitted]

    def release(self) -> None:
        """Run everything whose turn has come, or comes meanwhile, here and now."""
        while self.ready():
            self.release_one()

    def release_one(self) -> None:
        """Run the first one whose turn has come."""
        task, listener = self._held.pop(self.ready()[0])
        self.before_end()
        run_and_report(task, listener, is_cancelled=lambda: False)
