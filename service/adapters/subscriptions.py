"""Who wants to hear of a job: calls by job, each made once it changes or ends."""

import threading
from collections.abc import Callable, Sequence

from service.domain.records import JobRecord

Call = Callable[[], None]


class Subscriptions:
    """Safe to use from several threads; makes no call itself."""

    def __init__(self) -> None:
        self._calls: dict[str, list[Call]] = {}
        self._lock = threading.Lock()

    def add(self, job_id: str, call: Call) -> Call:
        """Remember a call; return what forgets it."""
        with self._lock:
            self._calls.setdefault(job_id, []).append(call)

        def forget() -> None:
            self.take(job_id, call)

        return forget

    def take_all(self, job_id: str) -> Sequence[Call]:
        with self._lock:
            return self._calls.pop(job_id, [])

    def of(self, job_id: str) -> Sequence[Call]:
        with self._lock:
            return tuple(self._calls.get(job_id, ()))

    def job_ids(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._calls)

    def take(self, job_id: str, call: Call) -> bool:
        """Forget a call; tell whether it was still there, so that it is made only once."""
        with self._lock:
            calls = self._calls.get(job_id, [])
            was_there = call in calls
            if was_there:
                calls.remove(call)
            if not calls:
                self._calls.pop(job_id, None)
            return was_there


class Listeners:
    """Those who wait for a job's end and those who follow its changes; calls them."""

    def __init__(self) -> None:
        self.until_done = Subscriptions()
        self.on_change = Subscriptions()

    def job_ids(self) -> frozenset[str]:
        return self.until_done.job_ids() | self.on_change.job_ids()

    def tell(self, job: JobRecord) -> None:
        if job.is_done:
            self.tell_end(job.id)
        else:
            self.tell_change(job.id)

    def tell_change(self, job_id: str) -> None:
        for call in self.on_change.of(job_id):
            call()

    def tell_end(self, job_id: str) -> None:
        """Tell that nothing follows: the job has ended, or is gone."""
        for call in [*self.on_change.take_all(job_id), *self.until_done.take_all(job_id)]:
            call()
