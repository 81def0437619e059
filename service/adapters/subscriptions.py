"""Who wants to hear of a job: calls by job, each made once it changes or ends."""

import threading
from collections.abc import Callable, Sequence

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
